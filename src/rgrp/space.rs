//! Space that is held: taking from it.

use super::group::Rgrp;
use super::{Owner, Rgrps};
use crate::error::{CorruptKind, Error, Result};
use crate::format::StatfsChange;
use crate::glock::ExclusiveHolder;
use crate::ids::{BlkState, BlockAddr, FormalIno, Inum};
use crate::journal::Transaction;

/// A promise on one rgrp.
pub(super) struct Part {
    group: ExclusiveHolder<Rgrp>,
    left: u32,
}

impl Part {
    pub(super) fn new(group: ExclusiveHolder<Rgrp>, promised: u32) -> Self {
        Self { group, left: promised }
    }
}

/// Space that is held: allocation through it cannot fail for lack of space.
pub struct Space<'r> {
    rgrps: Option<&'r Rgrps>,
    parts: Vec<Part>,
    /// Blocks of the first part to take before others: (first index, length).
    window: Option<(u32, u32)>,
}

impl<'r> Space<'r> {
    pub(super) fn new(rgrps: &'r Rgrps, parts: Vec<Part>, window: Option<(u32, u32)>) -> Self {
        Self { rgrps: Some(rgrps), parts, window }
    }

    /// No space: for operations that found they need none.
    pub fn empty() -> Self {
        Self { rgrps: None, parts: Vec::new(), window: None }
    }

    /// Blocks that are promised.
    pub fn blocks(&self) -> u32 {
        self.parts.iter().map(|p| p.left).sum()
    }

    /// Metadata blocks that allocating all of it may add to a transaction, the ledger's included.
    pub fn log_blocks(&self) -> u32 {
        let Some(rgrps) = self.rgrps else { return 0 };
        let maps: u32 = self.parts.iter().map(|p| p.group.blocks().min(p.left.saturating_add(1))).sum();
        maps + rgrps.ledger.log_blocks()
    }

    /// Allocates up to `want` contiguous blocks (at least one), preferably at `goal` (or the reservation): FREE → USED.
    /// Takes from the promise; asking beyond it is a bug (panics).
    pub fn alloc(
        &mut self,
        tx: &mut Transaction<'_>,
        want: u32,
        goal: Option<BlockAddr>,
        owner: Option<Owner>,
    ) -> Result<(BlockAddr, u32)> {
        let (part, first, len) = self.choose(want, goal)?;
        self.take(tx, part, (first, len), BlkState::Used, (-i64::from(len), 0), owner)?;
        Ok((self.parts[part].group.extent().block_at(first), len))
    }

    /// Allocates a dinode: FREE → DINODE; the formal number is the rgrp's generation.
    pub fn alloc_dinode(&mut self, tx: &mut Transaction<'_>, owner: Option<Owner>) -> Result<Inum> {
        let (part, first, _) = self.choose(1, None)?;
        let formal = FormalIno(self.parts[part].group.next_generation());
        self.take(tx, part, (first, 1), BlkState::Dinode, (-1, 1), owner)?;
        Ok(Inum { formal, addr: self.parts[part].group.extent().block_at(first) })
    }

    /// Allocates a dinode and, if it can be had, the block right after it (for its EA block; state USED).
    pub fn alloc_dinode_with_ea(
        &mut self,
        tx: &mut Transaction<'_>,
        owner: Option<Owner>,
    ) -> Result<(Inum, Option<BlockAddr>)> {
        let (part, first, len) = self.choose(2, None)?;
        let formal = FormalIno(self.parts[part].group.next_generation());
        self.take(tx, part, (first, 1), BlkState::Dinode, (-1, 1), owner)?;
        let addr = self.parts[part].group.extent().block_at(first);
        let ea = if len >= 2 {
            self.take(tx, part, (first + 1, 1), BlkState::Used, (-1, 0), owner)?;
            Some(addr.saturating_add(1))
        } else {
            None
        };
        Ok((Inum { formal, addr }, ea))
    }

    /// Which blocks: (part, first index, length up to `want`).
    fn choose(&mut self, want: u32, goal: Option<BlockAddr>) -> Result<(usize, u32, u32)> {
        let part = self.parts.iter().position(|p| p.left > 0);
        let (Some(rgrps), Some(part)) = (self.rgrps, part) else {
            panic!("{want} blocks were asked for beyond the promise");
        };
        let want = want.min(self.parts[part].left).max(1);
        if part == 0 {
            if let Some((start, len)) = self.window.take() {
                let now = want.min(len);
                if len > now {
                    self.window = Some((start + now, len - now));
                }
                return Ok((part, start, now));
            }
        }
        let group = &self.parts[part].group;
        let side = &rgrps.sides[group.index()];
        let from = goal.or(Some(rgrps.goal_of(group.index()))).and_then(|g| group.extent().index_of(g)).unwrap_or(0);
        // The promise counts blocks in windows of others too: they are taken when nothing else is left.
        let found = side.search(group, from, want, true).or_else(|| side.search(group, from, want, false));
        let wrong = CorruptKind::Rgrp("its header promises free blocks that its bitmap does not have");
        let (first, len) = found.ok_or_else(|| Error::corrupt(group.extent().addr, wrong))?;
        Ok((part, first, len))
    }

    fn take(
        &mut self,
        tx: &mut Transaction<'_>,
        part: usize,
        (first, len): (u32, u32),
        to: BlkState,
        (free, dinodes): (i64, i64),
        owner: Option<Owner>,
    ) -> Result<()> {
        let Some(rgrps) = self.rgrps else { return Ok(()) };
        let part = &mut self.parts[part];
        part.left -= len;
        let block = part.group.extent().block_at(first);
        part.group.check_run(block, len, BlkState::Free, "a block to be allocated is not free")?;
        part.group.change(tx, first, len, to, free, dinodes);
        rgrps.note_alloc(part.group.index(), first + len);
        rgrps.ledger.charge(tx, StatfsChange { total: 0.into(), free: free.into(), dinodes: dinodes.into() }, owner)
    }
}
