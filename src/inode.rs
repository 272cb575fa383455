//! Chapter 7: the inode in memory. (API skeleton)

use crate::cache::{Buffer, Cache};
use crate::clock::{Clock, Timestamp};
use crate::error::Result;
use crate::format::{DiFlags, Dinode};
use crate::glock::{ExclusiveHolder, Glock, GlockTable, LockManager, Protected, SharedHolder};
use crate::ids::{BlockAddr, BlockSize, Inum, Jid, LockName};
use crate::journal::{Journal, Transaction};
use crate::rgrp::{Owner, Reservation, Rgrps, Space};
use std::sync::Arc;

/// What chapters 7 to 12 work on: one mounted volume. Made by `mount.rs`.
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
}

/// What a new inode is born with.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device numbers.
    pub rdev: (u32, u32),
    /// Flags (JDATA for directories is added).
    pub flags: DiFlags,
    /// Allocation goal of the parent's dinode.
    pub now: Timestamp,
}

impl Volume {
    /// The glock of the inode at this address.
    pub fn inode(&self, _addr: BlockAddr) -> InodeLock {
        unimplemented!()
    }
    /// The inode, shared; `Stale` when `inum.formal` is another life.
    pub fn shared(&self, _inum: Inum) -> Result<InodeShared> {
        unimplemented!()
    }
    /// The inode, exclusive; finishes a truncate that a crash interrupted (TRUNC_IN_PROG) first.
    pub fn exclusive(&self, _inum: Inum) -> Result<InodeExclusive> {
        unimplemented!()
    }
    /// Several inodes exclusive, in lock order (ascending address, each once), returned in the order asked for.
    /// The same inode twice gives one holder: the second is `None`.
    pub fn exclusive_many(&self, _inums: &[Inum]) -> Result<Vec<Option<InodeExclusive>>> {
        unimplemented!()
    }
    /// Makes a dinode in a transaction: allocates it from `space`, writes it (directories get `.` and `..` of `parent`), takes
    /// its lock exclusively with the object inside. `with_ea`: also tries to allocate the adjacent EA block (its address is
    /// returned; the xattr chapter initialises it).
    pub fn create(&self, _tx: &mut Transaction<'_>, _space: &mut Space<'_>, _birth: &Birth, _parent: Inum, _with_ea: bool) -> Result<(InodeExclusive, Option<BlockAddr>)> {
        unimplemented!()
    }
    /// Marks an inode that lost its last name: nlink 0, bitmap UNLINKED, ctime; in the caller's transaction.
    pub fn unlinked(&self, _tx: &mut Transaction<'_>, _inode: &mut Inode, _free: &mut crate::rgrp::FreeSpace<'_>) -> Result<()> {
        unimplemented!()
    }
    /// Final delete of an UNLINKED inode that nobody uses (ondisk.md 4.7, 9.3): in many transactions, restartable.
    pub fn delete(&self, _inode: InodeExclusive) -> Result<()> {
        unimplemented!()
    }
    /// The reclaimer: deletes every UNLINKED inode of an rgrp for which `unused(addr)`; counts them.
    pub fn reclaim(&self, _rgrp_index: usize, _unused: &dyn Fn(BlockAddr) -> bool) -> Result<u64> {
        unimplemented!()
    }
}

impl Inode {
    /// The lock that covers the inode's blocks.
    pub fn lock_name(&self) -> LockName {
        LockName::inode(self.inum.addr)
    }
    /// The dinode's buffer.
    pub fn buffer(&self, _vol: &Volume) -> Result<Arc<Buffer>> {
        unimplemented!()
    }
    /// Puts `self.dinode` into the buffer, in the transaction (one block).
    pub fn write_back(&self, _vol: &Volume, _tx: &mut Transaction<'_>) -> Result<()> {
        unimplemented!()
    }
    /// Flags.
    pub fn flags(&self) -> DiFlags {
        self.dinode.flags()
    }
    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.dinode.mode.get() & 0o170000 == 0o040000
    }
    /// True for a regular file.
    pub fn is_regular(&self) -> bool {
        self.dinode.mode.get() & 0o170000 == 0o100000
    }
    /// True when the contents lie in the dinode (height 0).
    pub fn is_stuffed(&self) -> bool {
        self.dinode.height.get() == 0
    }
    /// True when file data goes through the journal (JDATA regular files; directories' tables always).
    pub fn is_jdata(&self) -> bool {
        self.flags().has(DiFlags::JDATA)
    }
    /// Whom its blocks are charged to; `None` for system files.
    pub fn owner(&self) -> Option<Owner> {
        unimplemented!()
    }
    /// Allocation goal: `goal_meta`, or its own address where that is out of range.
    pub fn goal(&self, _vol: &Volume) -> BlockAddr {
        unimplemented!()
    }
}

impl Protected for Inode {
    type Context = Volume;
    fn instantiate(_name: LockName, _cx: &Volume) -> Result<Self> {
        unimplemented!()
    }
    fn sync(_name: LockName, _object: &mut Self, _cx: &Volume) -> Result<()> {
        unimplemented!()
    }
    fn invalidate(_name: LockName, _cx: &Volume) {
        unimplemented!()
    }
}

/// Checks a dinode block as the kernel does when it reads one (ondisk.md 4.1).
pub fn check_dinode(_block: &[u8], _at: BlockAddr, _bs: BlockSize) -> Result<Dinode> {
    unimplemented!()
}

#[allow(dead_code)]
fn _manager(_: Arc<dyn LockManager>) {}
