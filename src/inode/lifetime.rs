//! The end of an inode (ondisk.md 4.7, 9.3, 9.5).

use super::{Inode, InodeExclusive, Volume};
use crate::error::{CorruptKind, Error, Result};
use crate::file::change;
use crate::file::piece::{Piece, Range, first_work};
use crate::format::DiFlags;
use crate::ids::{BlkState, BlockAddr};
use crate::journal::{Reserve, Transaction};
use crate::rgrp::FreeSpace;
use crate::{dir, xattr};

impl Volume {
    /// Marks an inode that lost its last name: nlink 0, bitmap UNLINKED, ctime; in the caller's transaction.
    pub fn unlinked(&self, tx: &mut Transaction<'_>, inode: &mut Inode, free: &mut FreeSpace<'_>) -> Result<()> {
        free.unlink_dinode(tx, inode.inum.addr)?;
        inode.dinode.nlink.set(0);
        if inode.is_dir() {
            inode.dinode.entries.set(0);
        }
        inode.dinode.set_ctime(self.clock.now());
        inode.write_back(self, tx)
    }

    /// Final delete of an UNLINKED inode that nobody uses (ondisk.md 4.7, 9.3): in many transactions, restartable. `Stale` when
    /// the bitmap does not call it UNLINKED (it is gone, or it has a name); `Corrupt` when it has links.
    pub fn delete(&self, mut inode: InodeExclusive) -> Result<()> {
        let (addr, name) = (inode.inum.addr, inode.lock_name());
        self.rgrps.release(&mut inode.resv);
        if self.rgrps.state(addr)? != BlkState::Unlinked {
            return Err(Error::Stale);
        }
        if inode.dinode.nlink.get() != 0 {
            return Err(Error::corrupt(addr, CorruptKind::Dinode("unlinked, but its link count is not 0")));
        }
        if inode.is_dir() && inode.flags().has(DiFlags::EXHASH) {
            dir::free_leaves(self, &mut inode)?;
        }
        if inode.dinode.eattr.get() != 0 {
            xattr::free_all(self, &mut inode)?;
        }
        self.free_tree_and_dinode(&mut inode)?;
        inode.forget_object();
        drop(inode);
        self.inodes.remove(name);
        Ok(())
    }

    /// The tree piece by piece, the dinode with the last one if that lies in the same rgrp: most files go in one transaction.
    fn free_tree_and_dinode(&self, inode: &mut Inode) -> Result<()> {
        let addr = inode.inum.addr;
        while let Some(first) = first_work(self, inode, Range::ALL)? {
            let mut free = self.rgrps.lock_for_free(first)?;
            let piece = Piece::plan(self, inode, &free, Range::ALL)?;
            if piece.finished && free.covers(addr) {
                let reserve = piece.reserve(self, &free, 1);
                return self.free_dinode(inode, &mut free, reserve, Some(&piece));
            }
            let reserve = piece.reserve(self, &free, 0);
            change(self, inode, reserve, |tx, inode| piece.apply(tx, &mut free, inode))?;
        }
        let mut free = self.rgrps.lock_for_free(addr)?;
        let reserve = Reserve::blocks(1 + free.log_blocks(1)).with_revokes(1);
        self.free_dinode(inode, &mut free, reserve, None)
    }

    /// The last transaction. The dinode is not written back: its block goes.
    fn free_dinode(
        &self,
        inode: &mut Inode,
        free: &mut FreeSpace<'_>,
        reserve: Reserve,
        rest: Option<&Piece>,
    ) -> Result<()> {
        let addr = inode.inum.addr;
        if inode.dinode.blocks.get().checked_sub(rest.map_or(0, Piece::freed)) != Some(1) {
            return Err(Error::corrupt(addr, CorruptKind::Dinode("di_blocks is not the number of its blocks")));
        }
        let mut tx = self.journal.begin(reserve)?;
        if let Some(piece) = rest {
            piece.apply(&mut tx, free, inode)?;
        }
        free.free_dinode(&mut tx, addr, inode.owner())?;
        tx.commit();
        Ok(())
    }

    /// The reclaimer: deletes every UNLINKED inode of an rgrp for which `unused(addr)`; counts them. Inodes whose lock is held
    /// are somebody's and skipped, so that this may be called (without an rgrp lock) while other inodes are held.
    pub fn reclaim(&self, rgrp_index: usize, unused: &dyn Fn(BlockAddr) -> bool) -> Result<u64> {
        let mut deleted = 0;
        for addr in self.rgrps.find(rgrp_index, BlkState::Unlinked)? {
            if !unused(addr) {
                continue;
            }
            let inode = match self.inode(addr).try_exclusive() {
                Ok(Some(inode)) => inode,
                Ok(None) => continue,
                // Nobody can open it, so it harms nobody: it is left to fsck.
                Err(Error::Corrupt(c)) => {
                    tracing::error!("an unlinked inode cannot be deleted: {c}");
                    continue;
                }
                Err(e) => return Err(e),
            };
            // It may have found a user, or its end, before its lock was ours.
            if !unused(addr) {
                continue;
            }
            match self.delete(inode) {
                Ok(()) => deleted += 1,
                Err(Error::Stale) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(deleted)
    }
}
