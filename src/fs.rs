//! Chapter 12: the POSIX operations. No FUSE type appears in any signature, and no operation waits for anything but the disk,
//! the log and glocks.
//!
//! Each operation is one story: take the inodes' glocks (parents before children), look, *decide*, set space aside, begin a
//! transaction, apply, commit. Errors that a user may cause are found before the transaction begins; a failure after it is a
//! failing disk, and the mount withdraws.
//!
//! Permission bits, ACLs and sticky directories are checked by the kernel (`default_permissions`); the immutable and
//! append-only flags are checked here, because the kernel does not know them.
//!
//! A *node* is an inode the kernel knows: `fs/node.rs` counts its references. An inode without a name is deleted when the
//! kernel forgets it, which it does when nobody has it open.

mod attr;
mod flags;
mod flock;
mod freeze;
mod grow;
mod handle;
mod io;
mod list;
mod make;
mod namei;
mod names;
mod node;
mod orphans;
pub mod plock;
mod rename;
mod shut;
mod xattr;

pub use attr::{Attr, SetAttr, SetTime};
pub use flags::{FsxAttr, Inode as InodeFlags};
pub use flock::LockDone;
pub use io::OpenHow;
pub use list::DirItem;
pub use make::NewInode;
pub use rename::RenameHow;
pub use xattr::SetMode;

use crate::error::{Error, Result};
use crate::format::DiFlags;
use crate::glock::Entry;
use crate::ids::{BlockAddr, Inum};
use crate::inode::{Inode, InodeExclusive, InodeShared, Users, Volume};
use crate::quota::Quota;
use crate::rgrp::Owner;
use crate::statfs::Statfs;
use crate::sync;
use crate::sync::thread;
use flock::Flocks;
use freeze::Gate;
use node::Nodes;
use orphans::Left;
use plock::Plocks;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// How long nothing must have been deleted until a full disk is called full; also what "no space" costs while somebody has a
/// file without a name open.
const DELETION_PATIENCE_MS: u32 = 30;

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller {
    /// User id, as the filesystem sees it.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// File mode creation mask; 0 where it does not matter.
    pub umask: u32,
}

/// What df shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes in a block.
    pub block_size: u32,
    /// Blocks in all.
    pub total: u64,
    /// Free ones.
    pub free: u64,
    /// Inodes in all: the dinodes there are and those that the free blocks could become.
    pub inodes: u64,
}

impl Space {
    /// Free space in bytes.
    pub fn free_bytes(&self) -> u64 {
        self.free.saturating_mul(u64::from(self.block_size))
    }
}

/// Who uses inodes on this node: the kernel, through its operations.
struct Here(Weak<Fs>);

impl Users for Here {
    fn uses(&self, addr: BlockAddr) -> bool {
        self.0.upgrade().is_some_and(|fs| fs.nodes.known(addr))
    }
    fn forget_soon(&self, addr: BlockAddr) {
        if let Some(fs) = self.0.upgrade()
            && let Some(forget) = fs.forgetter.get()
        {
            forget(addr);
        }
    }
}

/// A mounted filesystem.
pub struct Fs {
    vol: Arc<Volume>,
    statfs: Arc<Statfs>,
    quota: Option<Arc<Quota>>,
    nodes: Nodes,
    /// On a shared volume: where inodes were last found.
    names: Option<names::Names>,
    /// Inodes without a name that somebody used when they were to be deleted.
    left: Left,
    /// Makes the kernel forget an inode that it only remembers.
    forgetter: OnceLock<Box<dyn Fn(BlockAddr) + Send + Sync>>,
    /// Nothing may be changed (now: a remount can switch it).
    read_only: AtomicBool,
    /// Shut while the volume is frozen.
    gate: Gate,
    flocks: Arc<Flocks>,
    plocks: OnceLock<Arc<dyn Plocks>>,
}

impl Fs {
    /// The operations on an opened volume.
    pub fn new(vol: Arc<Volume>, statfs: Arc<Statfs>, quota: Option<Arc<Quota>>) -> Arc<Self> {
        let (root, read_only) = (vol.root, AtomicBool::new(vol.options.read_only));
        let flocks = Flocks::new(Arc::clone(vol.inodes.manager()));
        let names = vol.inodes.is_shared().then(names::Names::default);
        let fs = Arc::new(Self {
            vol,
            statfs,
            quota,
            names,
            nodes: Nodes::new(root),
            left: Left::default(),
            forgetter: OnceLock::new(),
            read_only,
            gate: Gate::default(),
            flocks,
            plocks: OnceLock::new(),
        });
        if fs.vol.users.set(Box::new(Here(Arc::downgrade(&fs)))).is_err() {
            tracing::error!("a volume has one set of operations");
        }
        fs
    }

    /// `forget` asks the kernel, without waiting, to forget an inode that it does not have open: another node wants to delete
    /// it. To be set once.
    pub fn set_forgetter(&self, forget: Box<dyn Fn(BlockAddr) + Send + Sync>) {
        if self.forgetter.set(forget).is_err() {
            tracing::error!("the forgetter is set once");
        }
    }

    /// Forbids or allows changes; used by a remount.
    pub fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::Release);
    }

    /// True while nothing may be changed.
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Acquire)
    }

    /// The volume.
    pub fn volume(&self) -> &Arc<Volume> {
        &self.vol
    }

    /// The path under which an inode was last found here, for people: it may be out of date.
    pub fn path_of(&self, node: BlockAddr) -> Option<String> {
        self.names.as_ref()?.path(node, self.vol.root.addr)
    }

    /// True when the kernel was told of this inode and has not forgotten it.
    pub fn is_known(&self, node: BlockAddr) -> bool {
        self.nodes.known(node)
    }

    /// The root directory's node.
    pub fn root(&self) -> BlockAddr {
        self.vol.root.addr
    }

    /// Bytes in a block, as stat(2) advises.
    pub fn space_unit(&self) -> u32 {
        u32::try_from(self.vol.bs.bytes()).unwrap_or(u32::MAX)
    }

    /// The quotas, when the mount counts them.
    pub fn quota(&self) -> Option<&Arc<Quota>> {
        self.quota.as_ref()
    }

    /// The counters.
    pub fn statfs(&self) -> &Arc<Statfs> {
        &self.statfs
    }

    /// Whether the volume as a whole may be changed now: waits while it is frozen. `ReadOnly`.
    pub fn may_change(&self) -> Result<()> {
        if self.is_read_only() {
            return Err(Error::ReadOnly);
        }
        self.gate.pass()
    }

    /// What df shows.
    pub fn space(&self) -> Space {
        let (total, free, dinodes) = self.statfs.totals();
        let block_size = self.space_unit();
        Space { block_size, total, free, inodes: dinodes.saturating_add(free) }
    }

    /// Makes everything durable: sync(2).
    pub fn sync(&self) -> Result<()> {
        if self.is_read_only() {
            return Ok(());
        }
        self.vol.journal.sync()
    }

    /// Moves pending statfs and quota changes into the master files; called by the mount's timer and at unmount.
    pub fn sync_counters(&self) -> Result<()> {
        if let Some(quota) = &self.quota {
            quota.sync(&self.vol)?;
        }
        self.statfs.sync(&self.vol)
    }

    /// Takes over what another node had counted; `file` is its statfs_change dinode (see [`Statfs::take_over`]).
    pub fn take_over_counts(&self, file: BlockAddr) -> Result<()> {
        self.statfs.take_over(&self.vol, file)
    }

    /// The kernel drops `count` references to a node. The last one of an inode without a name deletes it.
    pub fn forget(&self, node: BlockAddr, count: u64) -> Result<()> {
        self.let_go(node, count).map_or(Ok(()), |inum| self.delete_forgotten(inum))
    }

    /// The first half of [`Fs::forget`]: the identity of an inode that is now to be deleted with [`Fs::delete_forgotten`].
    pub fn let_go(&self, node: BlockAddr, count: u64) -> Option<Inum> {
        self.nodes.forget(node, count)
    }

    /// How many deletions have ended: for [`Fs::await_deletions`].
    pub fn deletions_ended(&self) -> usize {
        self.nodes.ended()
    }

    /// Waits until what was deleted has given its space back, or until it seems that somebody still has it open: unlinking
    /// answers before that is done. `since`: [`Fs::deletions_ended`] of before there was found to be no space. True when
    /// something was deleted after that. `MustWait` like all that waits.
    pub fn await_deletions(&self, since: usize) -> Result<bool> {
        let enough = self.nodes.doomed();
        if enough > 0 {
            sync::about_to_wait()?;
        }
        let (mut ended, mut quiet) = (self.nodes.ended(), 0);
        while self.nodes.doomed() > 0 && quiet < DELETION_PATIENCE_MS && ended - since < enough {
            thread::sleep(Duration::from_millis(1));
            let now = self.nodes.ended();
            quiet = if now != ended || self.nodes.is_deleting() { 0 } else { quiet + 1 };
            ended = now;
        }
        Ok(ended != since)
    }

    /// True when deleting this inode is a matter of one small transaction and of nothing that has to be read first.
    pub fn is_deleted_quickly(&self, inum: Inum) -> bool {
        let inode = sync::impatiently(|| self.vol.shared(inum));
        inode.is_ok_and(|inode| {
            let d = &inode.dinode;
            d.height.get() <= 1 && d.eattr.get() == 0 && !inode.flags().has(DiFlags::EXHASH)
        })
    }

    /// Passes a result on; a contradiction on the disk makes the mount withdraw.
    fn watch<T>(&self, result: Result<T>) -> Result<T> {
        self.vol.journal.watch(result)
    }

    fn shared(&self, node: BlockAddr) -> Result<InodeShared> {
        self.vol.shared(self.nodes.inum(node)?)
    }

    fn shared_as(&self, node: BlockAddr, entry: Entry) -> Result<InodeShared> {
        self.vol.shared_as(self.nodes.inum(node)?, entry)
    }

    fn exclusive(&self, node: BlockAddr) -> Result<InodeExclusive> {
        self.exclusive_as(node, Entry::Ordinary)
    }

    fn exclusive_as(&self, node: BlockAddr, entry: Entry) -> Result<InodeExclusive> {
        if self.is_read_only() {
            return Err(Error::ReadOnly);
        }
        self.gate.pass()?;
        self.vol.exclusive_as(self.nodes.inum(node)?, entry)
    }

    /// `QuotaExceeded` when the owner may not have `blocks` more. The superuser may; and whoever is above a limit may do what
    /// takes no space.
    fn check_quota(&self, caller: &Caller, owner: Owner, blocks: u64) -> Result<()> {
        match &self.quota {
            Some(quota) if caller.uid != 0 && blocks > 0 => quota.check(&self.vol, owner, blocks),
            _ => Ok(()),
        }
    }

    /// The same for an inode's owner; `blocks` is asked only where there may be a limit.
    fn check_inode_quota(
        &self,
        caller: &Caller,
        inode: &Inode,
        blocks: impl FnOnce(&Volume) -> Result<u64>,
    ) -> Result<()> {
        match inode.owner() {
            Some(owner) if caller.uid != 0 && self.quota.as_ref().is_some_and(|q| q.is_enforced()) => {
                let blocks = self.watch(blocks(&self.vol))?;
                self.check_quota(caller, owner, blocks)
            }
            _ => Ok(()),
        }
    }
}
