//! Space that is held: taking from it.

use super::claims::ResvId;
use super::group::Rgrp;
use super::plan::Run;
use super::{Owner, Rgrps, lvb};
use crate::error::Result;
use crate::format::StatfsChange;
use crate::glock::ExclusiveHolder;
use crate::ids::{BlkState, BlockAddr, FormalIno, Inum};
use crate::journal::Transaction;

/// A promise on one rgrp: the very blocks it will be kept with.
pub(super) struct Part {
    group: ExclusiveHolder<Rgrp>,
    runs: Vec<Run>,
    /// The reservation that the only run is the beginning of.
    resv: Option<ResvId>,
}

impl Part {
    pub(super) fn new(group: ExclusiveHolder<Rgrp>, runs: Vec<Run>, resv: Option<ResvId>) -> Self {
        debug_assert!(resv.is_none() || runs.len() == 1, "a reservation is one run");
        Self { group, runs, resv }
    }
    fn left(&self) -> u32 {
        self.runs.iter().map(|run| run.len).sum()
    }
    /// Header and bitmap blocks that its runs lie in.
    fn log_blocks(&self) -> u32 {
        if self.runs.is_empty() {
            return 0;
        }
        // The header's block, and the others by number.
        let mut areas: Vec<usize> = Vec::new();
        for run in &self.runs {
            areas.extend(self.group.area_of(run.first)..=self.group.area_of(run.first + run.len - 1));
        }
        areas.push(0);
        areas.sort_unstable();
        areas.dedup();
        u32::try_from(areas.len()).unwrap_or(u32::MAX)
    }
}

/// Space that is held: allocation through it cannot fail for lack of space.
pub struct Space<'r> {
    rgrps: Option<&'r Rgrps>,
    parts: Vec<Part>,
}

impl<'r> Space<'r> {
    pub(super) fn new(rgrps: &'r Rgrps, parts: Vec<Part>) -> Self {
        Self { rgrps: Some(rgrps), parts }
    }

    /// No space: for operations that found they need none.
    pub fn empty() -> Self {
        Self { rgrps: None, parts: Vec::new() }
    }

    /// Blocks that are promised.
    pub fn blocks(&self) -> u32 {
        self.parts.iter().map(Part::left).sum()
    }

    /// Metadata blocks that allocating all of it may add to a transaction, the ledger's included.
    pub fn log_blocks(&self) -> u32 {
        let Some(rgrps) = self.rgrps else { return 0 };
        self.parts.iter().map(Part::log_blocks).sum::<u32>() + rgrps.ledger.log_blocks()
    }

    /// Allocates up to `want` contiguous blocks (at least one), at `goal` if they are promised there: FREE → USED. Takes from
    /// the promise; asking beyond it is a bug (panics).
    pub fn alloc(
        &mut self,
        tx: &mut Transaction<'_>,
        want: u32,
        goal: Option<BlockAddr>,
        owner: Option<Owner>,
    ) -> Result<(BlockAddr, u32)> {
        let (part, run) = self.choose(want, goal);
        let len = self.parts[part].runs[run].len.min(want.max(1));
        let first = self.take(tx, part, run, len, BlkState::Used, owner)?;
        Ok((self.parts[part].group.extent().block_at(first), len))
    }

    /// The block that `alloc_dinode` (or, with `ea`, `alloc_dinode_with_ea`) will take next, if any is promised.
    pub fn next_dinode(&self, ea: bool) -> Option<BlockAddr> {
        let (part, run) = self.best(if ea { 2 } else { 1 }, None)?;
        Some(self.parts[part].group.extent().block_at(self.parts[part].runs[run].first))
    }

    /// Allocates a dinode: FREE → DINODE; the formal number is the rgrp's generation.
    pub fn alloc_dinode(&mut self, tx: &mut Transaction<'_>, owner: Option<Owner>) -> Result<Inum> {
        let (part, run) = self.choose(1, None);
        self.dinode(tx, part, run, owner)
    }

    /// Allocates a dinode and, if it can be had, the block right after it (for its EA block; state USED).
    pub fn alloc_dinode_with_ea(
        &mut self,
        tx: &mut Transaction<'_>,
        owner: Option<Owner>,
    ) -> Result<(Inum, Option<BlockAddr>)> {
        let (part, run) = self.choose(2, None);
        let two = self.parts[part].runs[run].len >= 2;
        let inum = self.dinode(tx, part, run, owner)?;
        if !two {
            return Ok((inum, None));
        }
        let first = self.take(tx, part, run, 1, BlkState::Used, owner)?;
        Ok((inum, Some(self.parts[part].group.extent().block_at(first))))
    }

    fn dinode(&mut self, tx: &mut Transaction<'_>, part: usize, run: usize, owner: Option<Owner>) -> Result<Inum> {
        let formal = FormalIno(self.parts[part].group.next_generation());
        let first = self.take(tx, part, run, 1, BlkState::Dinode, owner)?;
        Ok(Inum { formal, addr: self.parts[part].group.extent().block_at(first) })
    }

    /// The run to take from: the one at the goal, or the first that has `want` blocks, or the first.
    fn choose(&self, want: u32, goal: Option<BlockAddr>) -> (usize, usize) {
        self.best(want, goal).unwrap_or_else(|| panic!("{want} blocks were asked for beyond the promise"))
    }

    fn best(&self, want: u32, goal: Option<BlockAddr>) -> Option<(usize, usize)> {
        let mut best: Option<(u32, usize, usize)> = None;
        for (p, part) in self.parts.iter().enumerate() {
            let at = goal.and_then(|g| part.group.extent().index_of(g));
            for (r, run) in part.runs.iter().enumerate() {
                let rank = if at == Some(run.first) { 0 } else { 1 + u32::from(run.len < want) };
                if best.is_none_or(|(before, ..)| rank < before) {
                    best = Some((rank, p, r));
                }
            }
        }
        best.map(|(_, part, run)| (part, run))
    }

    /// Takes `len` blocks from the beginning of a run; the first of them.
    fn take(
        &mut self,
        tx: &mut Transaction<'_>,
        p: usize,
        r: usize,
        len: u32,
        to: BlkState,
        owner: Option<Owner>,
    ) -> Result<u32> {
        let Part { group, runs, resv } = &mut self.parts[p];
        let first = runs[r].first;
        let n = group.n();
        group.check_run(group.extent().block_at(first), len, BlkState::Free, "a block to be allocated is not free")?;
        group.change(tx, first, len, BlkState::Free, to);
        runs[r].first += len;
        runs[r].len -= len;
        if runs[r].len == 0 {
            runs.remove(r);
        }
        let Some(rgrps) = self.rgrps else { return Ok(first) };
        let claims = rgrps.cx.index.claims(n);
        if let Some(id) = *resv {
            claims.consume(id, len);
        }
        claims.set_last(first + len);
        if rgrps.shared {
            lvb::publish(group);
        }
        let dinodes = i64::from(to == BlkState::Dinode);
        let delta = StatfsChange { total: 0.into(), free: (-i64::from(len)).into(), dinodes: dinodes.into() };
        rgrps.ledger.charge(tx, delta, owner)?;
        Ok(first)
    }
}
