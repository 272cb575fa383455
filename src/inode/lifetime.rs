//! The end of an inode (ondisk.md 4.7, 9.3, 9.5).

use super::{Bare, Inode, InodeExclusive, Volume};
use crate::error::{CorruptKind, Error, Result};
use crate::file::change;
use crate::file::piece::{Piece, Range, first_work};
use crate::format::lvb::InodeLvb;
use crate::format::{DiFlags, MAGIC, OnDisk};
use crate::glock::{Claim, Lvb};
use crate::ids::{BlkState, BlockAddr, FormalIno, LockName};
use crate::journal::{Reserve, Transaction};
use crate::rgrp::FreeSpace;
use crate::sync::Instant;
use crate::{dir, xattr};
use std::time::Duration;

/// How long other nodes have to let go of an inode that is to be deleted (ondisk.md 9.4).
const LETTING_GO: Duration = Duration::from_secs(5);
/// How long the reclaimer waits for the lock of an inode that perhaps nobody uses.
const GIVING_UP: Duration = Duration::from_secs(1);
/// How long a deleter that another node pokes still waits for the others: enough for those that only have to be asked, and for
/// the question to arrive, after which a user knows that the deletion is left to it.
const LAST_LOOK: Duration = Duration::from_millis(20);

/// What became of an attempt to delete an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is deleted.
    Deleted,
    /// Somebody uses it, or may: whoever asked should look again later.
    InUse,
    /// It was deleted before, or has a name.
    Over,
}

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

    /// Final delete of an UNLINKED inode that nobody here uses (ondisk.md 4.7, 9.3): in many transactions, restartable. False
    /// when it is in use on another node, which deletes it later. `Stale` when the bitmap does not call it UNLINKED (it is gone,
    /// or it has a name); `Corrupt` when it has links.
    pub fn delete(&self, inode: InodeExclusive) -> Result<bool> {
        self.delete_held(inode, true)
    }

    /// The same for an inode of which nobody knows whether it is still there; `unused` says, with the lock held, whether somebody
    /// here uses it. `formal` is `None` where any life is meant. Without `waits`, no other node is waited for.
    pub fn delete_at(
        &self,
        addr: BlockAddr,
        formal: Option<FormalIno>,
        unused: &dyn Fn() -> bool,
        waits: bool,
    ) -> Result<Fate> {
        let lock = self.inode(addr);
        let claim = if waits { Some(lock.claim()?) } else { lock.try_claim()? };
        self.delete_claimed(claim, (addr, formal), unused, waits)
    }

    fn delete_claimed(
        &self,
        claim: Option<Claim<Inode>>,
        (addr, formal): (BlockAddr, Option<FormalIno>),
        unused: &dyn Fn() -> bool,
        waits: bool,
    ) -> Result<Fate> {
        let Some(claim) = claim.filter(|_| unused()) else { return Ok(Fate::InUse) };
        let inode = match self.orphan(claim, addr, formal) {
            Ok(Some(inode)) => inode,
            Ok(None) => return Ok(Fate::Over),
            // Nobody can open it, so it harms nobody: it is left to fsck.
            Err(Error::Corrupt(c)) if formal.is_none() => {
                tracing::error!("an unlinked inode cannot be deleted: {c}");
                return Ok(Fate::Over);
            }
            Err(e) => return Err(e),
        };
        match self.delete_held(inode, waits) {
            Ok(true) => Ok(Fate::Deleted),
            Ok(false) => Ok(Fate::InUse),
            Err(Error::Stale) => Ok(Fate::Over),
            Err(e) => Err(e),
        }
    }

    /// The inode behind a claimed lock, if it is UNLINKED. Other nodes may have deleted it, and its
    /// block may be anything by now: the dinode is read last.
    fn orphan(
        &self,
        claim: Claim<Inode>,
        addr: BlockAddr,
        formal: Option<FormalIno>,
    ) -> Result<Option<InodeExclusive>> {
        let over = deleted_upto(claim.lvb());
        if formal.is_some_and(|f| f.0 <= over) || self.rgrps.state(addr)? != BlkState::Unlinked {
            return Ok(None);
        }
        let inode = claim.read()?;
        Ok(formal.is_none_or(|f| f == inode.inum.formal).then_some(inode))
    }

    fn delete_held(&self, mut inode: InodeExclusive, waits: bool) -> Result<bool> {
        let (addr, name) = (inode.inum.addr, inode.lock_name());
        self.rgrps.release(&mut inode.resv);
        if self.rgrps.state(addr)? != BlkState::Unlinked {
            return Err(Error::Stale);
        }
        if inode.dinode.nlink.get() != 0 {
            return Err(Error::corrupt(addr, CorruptKind::Dinode("unlinked, but its link count is not 0")));
        }
        let Some(alone) = self.sole_user(&inode, waits)? else { return Ok(false) };
        if inode.is_dir() && inode.flags().has(DiFlags::EXHASH) {
            dir::free_leaves(self, &mut inode)?;
        }
        if inode.dinode.eattr.get() != 0 {
            xattr::free_all(self, &mut inode)?;
        }
        self.free_tree_and_dinode(&mut inode)?;
        if self.inodes.is_shared() {
            let over = deleted_upto(inode.glock().lvb()).max(inode.inum.formal.0);
            inode.set_lvb(deleted_lvb(over));
        }
        inode.forget_object();
        drop(inode);
        drop(alone);
        // Giving a lock up that others may want costs a log flush: that waits until somebody does.
        if !self.inodes.is_shared() {
            self.inodes.remove(name);
        }
        Ok(true)
    }

    /// Proof that no other node uses the inode; `None` when one does. With `waits`, nodes get some time to let go of it, unless
    /// one of them wants the inode itself meanwhile: that one is using it.
    fn sole_user(&self, inode: &InodeExclusive, waits: bool) -> Result<Option<Option<Claim<Bare>>>> {
        if !self.bare.is_shared() {
            return Ok(Some(None));
        }
        let lock = self.bare.get(LockName::iopen(inode.inum.addr));
        if let Some(claim) = lock.try_claim()? {
            return Ok(Some(Some(claim)));
        }
        if !waits {
            return Ok(None);
        }
        let (start, own) = (Instant::now(), inode.glock());
        let patience = || if own.is_demanded() { LAST_LOOK } else { LETTING_GO };
        Ok(lock.claim_while(&|| start.elapsed() < patience())?.map(Some))
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
    /// are somebody's and skipped, so that this may be called (without an rgrp lock) while other inodes are held. With `waits`,
    /// when none is held: nodes that only cache a lock get the time to give it up. `left` is told of those that are in use.
    pub fn reclaim(
        &self,
        rgrp_index: usize,
        unused: &dyn Fn(BlockAddr) -> bool,
        left: &dyn Fn(BlockAddr),
        waits: bool,
    ) -> Result<u64> {
        let mut deleted = 0;
        for addr in self.rgrps.find(rgrp_index, BlkState::Unlinked)? {
            if !unused(addr) {
                left(addr);
                continue;
            }
            let (lock, until) = (self.inode(addr), Instant::now() + GIVING_UP);
            let claim = if waits { lock.claim_while(&|| Instant::now() < until)? } else { lock.try_claim()? };
            match self.delete_claimed(claim, (addr, None), &|| unused(addr), waits)? {
                Fate::Deleted => deleted += 1,
                Fate::InUse => left(addr),
                Fate::Over => {}
            }
        }
        Ok(deleted)
    }
}

/// Lives of the inode's address up to this one are over, says the value block of its lock.
pub(super) fn deleted_upto(lvb: Lvb) -> u64 {
    let said = InodeLvb::view(&lvb.0);
    if said.magic.get() == MAGIC { said.generation_deleted.get() } else { 0 }
}

fn deleted_lvb(upto: u64) -> Lvb {
    let mut lvb = Lvb::default();
    *InodeLvb::edit(&mut lvb.0) = InodeLvb { magic: MAGIC.into(), pad: 0.into(), generation_deleted: upto.into() };
    lvb
}
