//! Chapter 7: the inode in memory.
//!
//! An [`Inode`] is the dinode's header and what this node knows besides. It lives inside its glock and is reached through a
//! holder only: `shared` to look, `exclusive` to change. Its `dinode` field is the truth while the lock is held; a change ends
//! with [`Inode::write_back`] in the same transaction, so that the dinode's buffer always agrees when the holder is dropped and
//! the object may be forgotten at any time.
//!
//! What follows the header in the dinode's block (stuffed data, entries, pointers) is edited in the buffer directly.
//!
//! # A life
//!
//! `create.rs` makes it, in the transaction that also gives it a name. `lifetime.rs` ends it: the last name goes and the bitmap
//! says UNLINKED; when nobody has it open, `delete` frees leaves, attributes, tree and dinode in as many transactions as that
//! takes. After a crash, `reclaim` finds what was left UNLINKED and deletes it from the start: every step tolerates that part
//! of its work is done (ondisk.md 9.3).
//!
//! Where several nodes share the volume, `users.rs` says on which of them an inode is in use: the last one deletes it.

mod ahead;
mod attrs;
mod create;
mod kernel_cache;
mod lifetime;
mod lookup;
mod protect;
mod read;
mod users;

pub use ahead::Ahead;
pub use create::{Birth, Cradle};
pub use kernel_cache::KernelCache;
pub use lifetime::Fate;
pub use read::check_dinode;
pub use users::{Bare, InUse, Users};

use crate::cache::Cache;
use crate::clock::Clock;
use crate::format::Dinode;
use crate::glock::{ExclusiveHolder, Glock, GlockTable, SharedHolder};
use crate::ids::{BlockAddr, BlockSize, Inum, Jid, LockName};
use crate::journal::Journal;
use crate::rgrp::{Reservation, Rgrps};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

/// What chapters 7 to 12 work on: one mounted volume. Made by `volume.rs`.
pub struct Volume {
    /// Block size.
    pub bs: BlockSize,
    /// 1801 or 1802.
    pub fs_format: u32,
    /// Our journal id.
    pub jid: Jid,
    /// The root directory.
    pub root: Inum,
    /// The master directory.
    pub master: Inum,
    /// Blocks in memory.
    pub cache: Arc<Cache>,
    /// The log.
    pub journal: Arc<Journal>,
    /// Resource groups.
    pub rgrps: Arc<Rgrps>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Options that change what operations do.
    pub options: VolumeOptions,
    /// Inode glocks.
    pub inodes: GlockTable<Inode>,
    /// What the kernel caches of inodes; set once, where the volume is shared and mounted.
    pub kernel_cache: OnceLock<Arc<dyn KernelCache>>,
    /// Locks without an object: which inodes are in use, and the rename lock.
    pub bare: GlockTable<Bare>,
    /// Who uses inodes on this node; set once.
    pub users: OnceLock<Box<dyn Users>>,
    /// Told of every inode lock that is lost; set once.
    pub lost: OnceLock<Box<dyn Fn(LockName) + Send + Sync>>,
    /// Where inodes were made lately.
    pub ahead: Ahead,
    /// Inodes whose locks the mount itself holds for good: nobody else on this node may ask for them.
    pub kept: Vec<BlockAddr>,
}

/// Mount options that matter below FUSE.
#[derive(Clone, Debug)]
pub struct VolumeOptions {
    /// No writing.
    pub read_only: bool,
    /// `acl`: POSIX ACLs are used.
    pub acl: bool,
    /// `data=ordered` (true) or `data=writeback`.
    pub ordered: bool,
    /// `suiddir`.
    pub suiddir: bool,
    /// `barrier`.
    pub barrier: bool,
    /// `discard`: freed blocks are discarded.
    pub discard: bool,
}

/// Handle to an inode's glock.
pub type InodeLock = Arc<Glock<Inode>>;
/// An inode held shared.
pub type InodeShared = SharedHolder<Inode>;
/// An inode held exclusively.
pub type InodeExclusive = ExclusiveHolder<Inode>;

/// The incore inode: lives inside its glock.
pub struct Inode {
    /// Which one.
    pub inum: Inum,
    /// The dinode header. Truth while the lock is held; `write_back` puts it into the dinode's buffer.
    pub dinode: Dinode,
    /// Blocks set aside for it.
    pub resv: Reservation,
    /// Batch of the last change, for fsync.
    last_batch: AtomicU64,
    /// Batch of the last change that was not of the times alone, for fdatasync.
    data_batch: AtomicU64,
}
