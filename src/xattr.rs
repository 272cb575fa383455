//! Chapter 10: extended attributes and ACLs (ondisk.md 6).
//!
//! An inode's attributes are records in EA blocks: one block at `di_eattr`, or (EA_INDIRECT) several that an indirect block
//! there lists. Records tile their block. A value lies in its record, or, when the record would pass a block, in ED blocks that
//! the record points to. All ED blocks of one attribute lie in one resource group: the kernel frees them under one lock.
//!
//! ```text
//!   di_eattr ─► EA block │ user.a "x" │ unused      │ user.big ─┐ LAST │
//!                                                     ED block ◄─┴► ED block
//! ```
//!
//! * `block` is pure: records in a block, each checked when it is looked at.
//! * `read` walks blocks: `get`, `list`. `set`, `remove`, `initial` change, `dealloc` frees everything at the inode's end.
//! * `acl` knows what POSIX ACLs mean; to the rest they are values.
//!
//! A change of one attribute is one transaction, so a crash leaves the old or the new value. Only the ED blocks of a replaced
//! value are freed in a second one: until then an UNUSED record owns them (ondisk.md 6.4), and whoever meets such a record
//! later finishes the work.

pub mod acl;
mod block;
mod dealloc;
mod initial;
mod name;
mod read;
mod remove;
mod set;
#[cfg(test)]
mod tests;

pub use dealloc::free_all;
pub use initial::{initial, initial_cost};
pub use name::split_name;
pub use read::{get, list};
pub use remove::remove;
pub use set::{set, set_cost};

/// How `set` treats an attribute that is (not) there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMode {
    /// Either way.
    Any,
    /// XATTR_CREATE.
    Create,
    /// XATTR_REPLACE.
    Replace,
}
