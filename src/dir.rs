//! Chapter 9: linear and extendible-hash directories (ondisk.md 5).
//!
//! A small directory is *linear*: its entries fill the dinode's block behind the header. When it overflows it becomes an
//! *exhash* directory: the file's contents are then a table of 2^d leaf addresses, indexed by the top d bits of the name's
//! hash, and the entries live in leaves. A leaf whose entries agree in only k < d bits stands in a run of 2^(d-k) slots:
//!
//! ```text
//!            hash 00.. ──┐ depth d = 2
//!   slots   00   01   10   11
//!            │    │     \  /
//!         leaf A  leaf B  leaf C          lf_depth 2, 2, 1
//! ```
//!
//! A full leaf splits: the lower half of its run goes to a new leaf. When its run is a single slot the table doubles first.
//! At depth 17 the table has its final size, and a leaf that overflows gets a chain of further leaves behind it. Nothing
//! shrinks again before the directory is removed.
//!
//! * `hash`, `block`, `split` are pure: bytes and numbers in, bytes and numbers out. Every rule of ondisk.md 5.2 is checked in
//!   `block`, on every record that is looked at.
//! * `linear`, `exhash`, `table` read; `grow` changes the shape; `change` adds, removes and replaces; `plan` says before a
//!   transaction what adding will cost; `readdir` lists; `dealloc` frees the leaves of a removed directory.
//!
//! Invariants, true at every commit: the entries of a leaf agree in their top `lf_depth` hash bits with its run; a run is
//! 2^(d-lf_depth) slots long and aligned to its length; `di_entries` is the sum of all `lf_entries`.

mod block;
mod change;
mod dealloc;
mod exhash;
mod grow;
mod hash;
mod linear;
mod plan;
mod readdir;
mod split;
mod table;
#[cfg(test)]
mod tests;

pub use change::{add, prepare_change, remove, replace};
pub use dealloc::free_leaves;
pub use linear::init;
pub use plan::plan_add;
pub use readdir::list;

use crate::error::Result;
use crate::format::DirentType;
use crate::format::checksum::dir_hash;
use crate::format::directory::NAME_MAX;
use crate::ids::Inum;
use crate::inode::{Inode, Volume};

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whom.
    pub inum: Inum,
    /// Its type.
    pub kind: DirentType,
}

/// What adding a name costs at most, found out before the transaction. All blocks that the change will look at are cached
/// afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddPlan {
    /// Blocks to allocate.
    pub alloc: u32,
    /// Metadata blocks to log, besides `Space::log_blocks`; the directory's dinode included.
    pub log: u32,
}

/// Metadata blocks that `remove` or `replace` of one name may log: entry block (and its predecessor) and dinode.
pub const CHANGE_LOG_BLOCKS: u32 = 3;

/// Position in a directory: 0 is the start; stable while the entry lives, never negative as an `i64`.
///
/// It is made of the name alone (its hash and a second hash of it), so it survives whatever happens to other entries: leaf
/// splits, the conversion of a linear directory, removals.
pub type Cookie = u64;

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Where it leads.
    pub entry: Entry,
    /// Cookie to resume *after* it.
    pub next: Cookie,
}

/// Looks a name up; `None` when it is not there (also for names that cannot exist: empty or above 255 bytes).
pub fn lookup(vol: &Volume, dir: &Inode, name: &[u8]) -> Result<Option<Entry>> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Ok(None);
    }
    let hash = dir_hash(name);
    let place =
        if exhash::is_exhash(dir) { exhash::find(vol, dir, hash, name)? } else { linear::find(vol, dir, hash, name)? };
    place.map(|p| p.entry()).transpose()
}
