//! fcntl(2) locks: ranges of bytes (dlm.md 4.11). Who keeps them is behind a trait: the cluster, or [`LocalPlocks`], where no other
//! node looks.

mod local;

pub use local::LocalPlocks;

use super::Fs;
use super::flock::LockDone;
use crate::error::Result;
use crate::ids::BlockAddr;
use std::sync::Arc;

/// A range of an inode's bytes that somebody has locked or wants to lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plock {
    /// The inode: the address of its dinode.
    pub inode: BlockAddr,
    /// Whose it is; unique on this node.
    pub owner: u64,
    /// The process, for F_GETLK.
    pub pid: u32,
    /// First byte.
    pub start: u64,
    /// Last byte (`i64::MAX`: to the end, wherever that is).
    pub end: u64,
    /// A write lock.
    pub exclusive: bool,
}

/// Told once who is in the way.
pub type Found = Box<dyn FnOnce(Result<Option<Plock>>) + Send>;

/// Keeps the byte-range locks of a filesystem. No method waits, and what is to be told may be told before it returns.
pub trait Plocks: Send + Sync {
    /// Locks a range for an owner, whatever it had there before. Told `WouldBlock` when it may not `wait` and would have to,
    /// `Interrupted` when it was cancelled. `ticket` names the request for [`Plocks::cancel`] and must be one of its own.
    fn lock(&self, lock: Plock, ticket: u64, wait: bool, done: LockDone);
    /// Takes a request back that waits; if it is granted already, it stays so.
    fn cancel(&self, inode: BlockAddr, ticket: u64);
    /// Unlocks a range of an owner.
    fn unlock(&self, lock: Plock, done: LockDone);
    /// Drops all locks and requests of an owner of that inode.
    fn close(&self, inode: BlockAddr, owner: u64);
    /// A lock of somebody else that `lock` would have to wait for.
    fn get(&self, lock: Plock, found: Found);
}

impl Plock {
    /// Both cannot be granted.
    fn conflicts(&self, other: &Self) -> bool {
        self.owner != other.owner && (self.exclusive || other.exclusive) && self.overlaps(other)
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.start <= other.end && other.start <= self.end
    }
}

impl Fs {
    /// From now on the cluster keeps the byte-range locks; to be called before the mount serves requests.
    pub fn set_plocks(&self, plocks: Arc<dyn Plocks>) {
        if self.plocks.set(plocks).is_err() {
            debug_assert!(false, "they are set once");
        }
    }

    /// Who keeps the byte-range locks.
    pub fn plocks(&self) -> &Arc<dyn Plocks> {
        self.plocks.get_or_init(|| Arc::new(LocalPlocks::default()))
    }
}
