//! Chapter 3: the glock, a cluster lock with its cached object inside. Start here to understand GFS2.
//!
//! Several nodes share one disk. Before a node looks at an inode or a resource group it takes the *glock* of that name; what
//! it read then stays valid until the lock is given up. So the cached object lives inside the lock ([`Glock<T>`]) and is
//! reached only through a holder: [`SharedHolder`] derefs to `&T`, [`ExclusiveHolder`] to `&mut T`. Losing the lock *is*
//! dropping the object.
//!
//! | state | holders on this node | other nodes | may be cached here |
//! |---|---|---|---|
//! | UN | none | anything | nothing |
//! | SH | many readers | SH | clean metadata and data |
//! | DF | many direct I/Os | DF | clean metadata |
//! | EX | one writer, or many SH, or many DF | nothing | dirty metadata and data |
//!
//! A lock once got is kept until another node wants it, so taking it again costs two atomic operations and no message. Locks
//! of a single node ([`Nolock`]) are got at once; everything else is the same.
//!
//! The pieces: [`mode`] has the rules as tables, `queue` and `machine` decide, `driver` acts, [`manager`] is the border to
//! the lock service, `table` finds and forgets glocks, [`order`] takes several, `dump` shows them. `docs/GLOCKS.md` has the
//! whole picture with lock order and demotion.
//!
//! Holders are not re-entrant: a thread that holds a lock and asks for it again waits for itself.

mod claim;
mod driver;
mod dump;
mod holder;
mod machine;
pub mod manager;
pub mod mode;
pub mod order;
mod queue;
mod table;
mod workers;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod transcript;

pub use claim::Claim;
pub use driver::Glock;
pub use holder::{DeferredHolder, ExclusiveHolder, SharedHolder};
pub use machine::Reply;
pub use manager::{Answer, LockClient, LockManager, Lvb, Nolock, Request};
pub use mode::LockState;
pub use queue::Entry;
pub use table::GlockTable;

use crate::error::{Error, Result};
use crate::ids::LockName;
use std::sync::Arc;
use workers::Workers;

/// What lives inside a glock. Implemented beside each object (`inode/protect.rs`, `rgrp/protect.rs`).
pub trait Protected: Sized + Send + Sync + 'static {
    /// What the object needs to be read from and written to the disk.
    type Context: Send + Sync + 'static;
    /// The lock carries a value block.
    const HAS_LVB: bool = false;
    /// Holders need the lock in exactly their state: a shared one is not content with EX, which other nodes could not share.
    const EXACT: bool = false;
    /// The kernel may cache what the lock protects, so that it must be [drained](Protected::drain).
    const DRAINS: bool = false;
    /// Reads the object from the disk; called with the lock held, when a holder finds no object.
    fn instantiate(name: LockName, cx: &Self::Context) -> Result<Self>;
    /// Whether [`Protected::drain`] would have anything to do; called under the glock's mutex, so it must be a quick look.
    fn must_drain(_name: LockName, _to: LockState, _cx: &Self::Context) -> bool {
        false
    }
    /// Makes the kernel give back what it cached under this lock and may not when we hold no more than `to`. The lock is still
    /// held and the object not locked: requests that this waits for are let in ([`Entry`]). An error means that the lock is never
    /// given up.
    fn drain(_name: LockName, _to: LockState, _cx: &Self::Context) -> Result<()> {
        Ok(())
    }
    /// Makes all that this lock covers clean on the disk (log flushed, written in place, revoked), before EX is given up. An
    /// error means that the lock is never given up.
    fn sync(name: LockName, object: &mut Self, cx: &Self::Context) -> Result<()>;
    /// The same when the object itself was forgotten after a failed change.
    fn sync_without(name: LockName, cx: &Self::Context) -> Result<()> {
        let mut object = Self::instantiate(name, cx)?;
        Self::sync(name, &mut object, cx)
    }
    /// The lock cannot be given up: nothing may be written any more, so that others get it once our journal is replayed. Called on a
    /// thread of its own, holding nothing.
    fn cannot_give_up(_name: LockName, _cause: &Error, _cx: &Self::Context) {}
    /// Forgets what is cached outside the object (buffers); the object itself is dropped with it.
    fn invalidate(name: LockName, cx: &Self::Context);
    /// [`heed`](Self::heed) is called.
    const HEEDS: bool = false;
    /// Another node wants the lock: whoever uses it here for long may let go. Called on a thread of its own, holding nothing.
    fn heed(_name: LockName, _cx: &Arc<Self::Context>) {}
    /// The object's line in a dump, without the leading blank.
    fn describe(&self) -> Option<String> {
        None
    }
}
