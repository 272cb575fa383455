//! From an identity to a held inode.

use super::lifetime::deleted_upto;
use super::{Inode, InodeExclusive, InodeLock, InodeShared, Volume};
use crate::error::{Corrupt, CorruptKind, Error, Result};
use crate::file;
use crate::format::DiFlags;
use crate::glock::Entry;
use crate::ids::{BlkState, BlockAddr, Inum, LockName};

impl Volume {
    /// The glock of the inode at this address.
    pub fn inode(&self, addr: BlockAddr) -> InodeLock {
        self.inodes.get(LockName::inode(addr))
    }

    /// The inode, shared; `Stale` when `inum.formal` is another life, or the block is no dinode any more.
    pub fn shared(&self, inum: Inum) -> Result<InodeShared> {
        self.shared_as(inum, Entry::Ordinary)
    }

    /// The same for a request that the kernel may wait for before it gives back what it caches.
    pub fn shared_as(&self, inum: Inum, entry: Entry) -> Result<InodeShared> {
        let held = self.inode(inum.addr).shared_as(entry).map_err(|e| self.gone(inum, e))?;
        self.same_life(&held, held.glock(), inum)?;
        Ok(held)
    }

    /// The inode, exclusive; finishes a truncate that a crash interrupted (TRUNC_IN_PROG) first.
    pub fn exclusive(&self, inum: Inum) -> Result<InodeExclusive> {
        self.exclusive_as(inum, Entry::Ordinary)
    }

    /// The same for a request that the kernel may wait for before it gives back what it caches.
    pub fn exclusive_as(&self, inum: Inum, entry: Entry) -> Result<InodeExclusive> {
        let mut held = self.inode(inum.addr).exclusive_as(entry).map_err(|e| self.gone(inum, e))?;
        self.same_life(&held, held.glock(), inum)?;
        self.finish_truncate(&mut held)?;
        Ok(held)
    }

    /// Several inodes exclusive, in lock order (ascending address, each once), returned in the order asked for.
    /// The same inode twice gives one holder: the second is `None`.
    pub fn exclusive_many(&self, inums: &[Inum]) -> Result<Vec<Option<InodeExclusive>>> {
        let mut order: Vec<usize> = (0..inums.len()).collect();
        // Stable: of two equal ones, the first asked for gets the holder.
        order.sort_by_key(|&i| inums[i].addr);
        let mut held: Vec<Option<InodeExclusive>> = inums.iter().map(|_| None).collect();
        let mut previous = None;
        for i in order {
            if previous == Some(inums[i].addr) {
                continue;
            }
            previous = Some(inums[i].addr);
            held[i] = Some(self.exclusive(inums[i])?);
        }
        Ok(held)
    }

    pub(super) fn finish_truncate(&self, inode: &mut Inode) -> Result<()> {
        if inode.flags().has(DiFlags::TRUNC_IN_PROG) && !self.options.read_only {
            file::resume_truncate(self, inode)?;
        }
        Ok(())
    }

    /// `Stale` when it is another life. The block of an inode that another node has deleted may still look like one: the value
    /// block of its lock says which lives are over.
    fn same_life(&self, inode: &Inode, lock: &InodeLock, inum: Inum) -> Result<()> {
        let over = self.inodes.is_shared() && deleted_upto(lock.lvb()) >= inum.formal.0;
        if inode.inum == inum && !over { Ok(()) } else { Err(Error::Stale) }
    }

    /// Why an inode could not be read: when its block is no dinode by now, it is gone, and nothing is corrupt.
    fn gone(&self, inum: Inum, e: Error) -> Error {
        let Error::Corrupt(Corrupt { at, what: CorruptKind::MetaType { .. } | CorruptKind::Dinode(_) }) = &e else {
            return e;
        };
        if *at != inum.addr {
            return e;
        }
        match self.rgrps.state(inum.addr) {
            Ok(BlkState::Free | BlkState::Used) => Error::Stale,
            Err(wait @ Error::MustWait) => wait,
            _ => e,
        }
    }
}
