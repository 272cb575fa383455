//! The kernel above us caches too: attributes, ACLs, pages. What it has of an inode is good as long as we hold the inode's lock.

use crate::error::Result;
use crate::glock::LockState;
use crate::ids::BlockAddr;

/// What the kernel caches of inodes, as seen from below. The fuse chapter implements it; a volume without a kernel (mkfs, tests)
/// has none.
///
/// Names are not part of it: on a shared mount the kernel is told to remember none (`fuse/policy.rs`).
pub trait KernelCache: Send + Sync {
    /// Whether the kernel may have something of this inode that it may not have when this node holds no more than `to`. A quick
    /// look: called under a mutex of the glock.
    fn holds(&self, addr: BlockAddr, to: LockState) -> bool;

    /// Makes the kernel write back what was changed through mappings and forget what it may not keep under `to`. Waits for page
    /// fills and write-backs, which must be served meanwhile. One round: the glock repeats it when a fill came in between.
    /// Errors: the kernel could not be told, so that the lock must be kept.
    fn drain(&self, addr: BlockAddr, to: LockState) -> Result<()>;
}
