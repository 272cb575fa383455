//! Finding space: which rgrps are tried, in which order, and what is done before "no space" is said.

use super::group::Rgrp;
use super::space::{Part, Space};
use super::{Reservation, Rgrps, Want};
use crate::error::{Error, Result};
use crate::format::rgrp::RG_NOALLOC;
use crate::glock::ExclusiveHolder;
use crate::journal::FlushReason;
use std::sync::atomic::{AtomicU64, Ordering};

/// Blocks of a window beyond what is wanted now.
const WINDOW: u32 = 32;
/// A want of at least so many blocks opens a window: a file that is being written.
const OPENS_WINDOW: u32 = 2;

impl Rgrps {
    /// Sets space aside before a transaction: rgrp locks are held and the blocks are there. "No space" is said here or never;
    /// before it is said, the log is flushed (blocks freed in uncommitted batches) and unlinked inodes are asked for through
    /// `set_reclaimer`. May give fewer than `want.blocks` but never fewer than `want.min`.
    pub fn reserve(&self, want: Want, resv: &mut Reservation) -> Result<Space<'_>> {
        self.find_space(want, resv, true)
    }

    /// The same, but all from one rgrp: blocks that are later freed under one rgrp's lock (the data blocks of an extended
    /// attribute, ondisk.md 6.3).
    pub fn reserve_in_one(&self, want: Want, resv: &mut Reservation) -> Result<Space<'_>> {
        self.find_space(want, resv, false)
    }

    fn find_space(&self, want: Want, resv: &mut Reservation, several: bool) -> Result<Space<'_>> {
        let want = Want { blocks: want.blocks.max(want.min), ..want };
        if want.blocks == 0 {
            return Ok(Space::empty());
        }
        let start = self.start(want, resv);
        // First an rgrp that has it all and that nobody is using, then any that has enough.
        if let Some(space) = self.one_rgrp(want, want.blocks, start, resv, true)? {
            return Ok(space);
        }
        if let Some(space) = self.one_rgrp(want, want.min, start, resv, false)? {
            return Ok(space);
        }
        // Then what committing and deleting bring.
        for effort in [Self::commit, Self::reclaim] {
            if !effort(self)? {
                continue;
            }
            if let Some(space) = self.one_rgrp(want, want.min, start, resv, false)? {
                return Ok(space);
            }
            if several && let Some(space) = self.several_rgrps(want)? {
                return Ok(space);
            }
        }
        match self.several_rgrps(want)? {
            Some(space) if several => Ok(space),
            _ => Err(Error::NoSpace),
        }
    }

    /// Makes blocks usable that were freed in batches not yet durable; true when there were any.
    fn commit(&self) -> Result<bool> {
        let waiting = self.sides.iter().any(|s| s.waits_for_commit());
        if waiting {
            self.journal.flush(FlushReason::Normal)?;
        }
        Ok(waiting)
    }

    /// Asks for unlinked inodes everywhere; true when any went.
    fn reclaim(&self) -> Result<bool> {
        crate::sync::about_to_wait()?;
        let Some(reclaim) = self.reclaimer.get() else { return Ok(false) };
        let any = (0..self.len()).fold(false, |any, index| reclaim(index) || any);
        if any {
            self.journal.flush(FlushReason::Normal)?;
        }
        Ok(any)
    }

    /// The rgrp to begin with.
    fn start(&self, want: Want, resv: &Reservation) -> usize {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        if want.spread {
            let n = COUNT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            return (n >> 32) as usize % self.len().max(1);
        }
        resv.rgrp().or_else(|| self.index_of(want.goal)).unwrap_or(0)
    }

    /// The order in which rgrps are tried: from `start` on, this node's preferred ones before the others.
    fn order(&self, start: usize) -> impl Iterator<Item = usize> {
        let n = self.len();
        let (step, own) = (self.njournals as usize, self.jid.0 as usize);
        let all = move || (0..n).map(move |i| (start + i) % n);
        let preferred = move |i: &usize| i % step == own % step;
        let rest = all().skip(1).filter(preferred).chain(all().skip(1).filter(move |i| !preferred(i)));
        all().take(1).chain(rest)
    }

    /// Space for at least `enough` blocks in one rgrp. `gently`: only rgrps that are not in use, and windows are respected.
    fn one_rgrp(&self, want: Want, enough: u32, start: usize, resv: &mut Reservation, gently: bool) -> Result<Option<Space<'_>>> {
        for index in self.order(start) {
            if !self.sides[index].may_have(enough) {
                continue;
            }
            let glock = self.glock(index);
            let group = if gently { glock.try_exclusive()? } else { Some(glock.exclusive()?) };
            let Some(group) = group else { continue };
            let available = self.available(&group);
            if available < enough || group.flags() & RG_NOALLOC != 0 {
                continue;
            }
            if !gently && available < want.blocks.saturating_add(WINDOW) {
                self.sides[index].close_windows();
            }
            let promised = available.min(want.blocks);
            let goal = if want.spread { None } else { Some(want.goal) };
            let window = self.window(&group, promised, goal, resv);
            return Ok(Some(Space::new(self, vec![Part::new(group, promised)], window)));
        }
        Ok(None)
    }

    /// Space collected from several rgrps, in ascending order; `None` when the volume does not have `want.min`.
    fn several_rgrps(&self, want: Want) -> Result<Option<Space<'_>>> {
        let mut parts = Vec::new();
        let mut promised = 0;
        for index in 0..self.len() {
            if promised >= want.min {
                break;
            }
            let group = self.glock(index).exclusive()?;
            self.sides[index].close_windows();
            let here = self.available(&group).min(want.min - promised);
            if here > 0 && group.flags() & RG_NOALLOC == 0 {
                promised += here;
                parts.push(Part::new(group, here));
            }
        }
        Ok((promised >= want.min).then(|| Space::new(self, parts, None)))
    }

    /// Blocks of an rgrp that can be promised; what became usable is discarded if the mount wants that.
    fn available(&self, group: &ExclusiveHolder<Rgrp>) -> u32 {
        let shift = self.cache.block_size().shift();
        self.sides[group.index()].available(group, &self.journal, |start, len| {
            if self.discard {
                // A hint to the device: that it failed changes nothing.
                if let Err(e) = self.cache.device().discard(start.get() << shift, u64::from(len) << shift) {
                    tracing::debug!(block = start.get(), "discard: {e}");
                }
            }
        })
    }

    /// The blocks to take first: from the inode's window, or from a new one. What remains of it stays the inode's.
    fn window(
        &self,
        group: &Rgrp,
        blocks: u32,
        goal: Option<crate::ids::BlockAddr>,
        resv: &mut Reservation,
    ) -> Option<(u32, u32)> {
        let side = &self.sides[group.index()];
        let old = resv.take().and_then(|(index, start)| {
            let len = self.sides[index].close_window(start)?;
            (index == group.index()).then_some((start, len))
        });
        if let Some((start, len)) = old {
            let usable = group.run(start, len, crate::ids::BlkState::Free);
            if usable >= blocks {
                self.keep_window(side, group.index(), start + blocks, usable - blocks, resv);
                return Some((start, blocks));
            }
        }
        if blocks < OPENS_WINDOW && old.is_none() {
            return None;
        }
        let from = goal.and_then(|g| group.extent().index_of(g)).unwrap_or(0);
        let (start, len) = side.search(group, from, blocks.saturating_add(WINDOW), true)?;
        let now = len.min(blocks);
        self.keep_window(side, group.index(), start + now, len - now, resv);
        Some((start, now))
    }

    fn keep_window(&self, side: &super::side::Side, index: usize, start: u32, len: u32, resv: &mut Reservation) {
        if len > 0 {
            side.open_window(start, len);
            resv.set(index, start);
        }
    }
}
