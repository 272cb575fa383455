//! Freeing blocks of a locked rgrp.

use super::group::Rgrp;
use super::{Owner, Rgrps, lvb};
use crate::error::{CorruptKind, Error, Result};
use crate::format::StatfsChange;
use crate::glock::ExclusiveHolder;
use crate::ids::{BlkState, BlockAddr};
use crate::journal::Transaction;

/// A locked rgrp, for freeing.
pub struct FreeSpace<'r> {
    rgrps: &'r Rgrps,
    group: ExclusiveHolder<Rgrp>,
}

impl<'r> FreeSpace<'r> {
    pub(super) fn new(rgrps: &'r Rgrps, group: ExclusiveHolder<Rgrp>) -> Self {
        Self { rgrps, group }
    }

    /// True when the block is in this rgrp.
    pub fn covers(&self, block: BlockAddr) -> bool {
        self.group.extent().index_of(block).is_some()
    }

    /// Metadata blocks that freeing up to `n` runs here may add to a transaction, the ledger's included. A run counts once
    /// for every `4·(bs-128)` blocks (what one bitmap block describes) that it has or begins.
    pub fn log_blocks(&self, n: u32) -> u32 {
        // Such a run may lie across the border of two bitmap blocks.
        let maps = if n == 0 { 0 } else { n.saturating_mul(2).saturating_add(1).min(self.group.blocks()) };
        maps + self.rgrps.ledger.log_blocks()
    }

    /// USED → FREE for a run; calls `tx.forget` for it. A block that is not USED is corruption.
    pub fn free(
        &mut self,
        tx: &mut Transaction<'_>,
        start: BlockAddr,
        blocks: u32,
        owner: Option<Owner>,
    ) -> Result<()> {
        let first = self.group.check_run(start, blocks, BlkState::Used, "a block to be freed is not in use")?;
        self.release(tx, start, first, blocks, BlkState::Used, owner)
    }

    /// DINODE → UNLINKED.
    pub fn unlink_dinode(&mut self, tx: &mut Transaction<'_>, addr: BlockAddr) -> Result<()> {
        let first = self.group.check_run(addr, 1, BlkState::Dinode, "an inode to be unlinked is not a dinode")?;
        self.group.change(tx, first, 1, BlkState::Dinode, BlkState::Unlinked);
        self.publish();
        Ok(())
    }

    /// UNLINKED → FREE, with `tx.forget`.
    pub fn free_dinode(&mut self, tx: &mut Transaction<'_>, addr: BlockAddr, owner: Option<Owner>) -> Result<()> {
        let first = self.group.check_run(addr, 1, BlkState::Unlinked, "an inode to be deleted is not unlinked")?;
        self.release(tx, addr, first, 1, BlkState::Unlinked, owner)
    }

    fn release(
        &mut self,
        tx: &mut Transaction<'_>,
        start: BlockAddr,
        first: u32,
        blocks: u32,
        from: BlkState,
        owner: Option<Owner>,
    ) -> Result<()> {
        self.group.change(tx, first, blocks, from, BlkState::Free);
        tx.forget(start, blocks);
        self.rgrps.cx.index.claims(self.group.n()).freed(first, blocks, tx.batch());
        self.publish();
        let dinodes = -i64::from(from == BlkState::Unlinked);
        let delta = StatfsChange { total: 0.into(), free: i64::from(blocks).into(), dinodes: dinodes.into() };
        self.rgrps.ledger.charge(tx, delta, owner)
    }

    fn publish(&mut self) {
        if self.rgrps.shared {
            lvb::publish(&mut self.group);
        }
    }

    /// State of a block of this rgrp.
    pub fn state(&self, block: BlockAddr) -> Result<BlkState> {
        self.group.state(block).ok_or_else(|| Error::corrupt(block, CorruptKind::Pointer(block.get())))
    }
}
