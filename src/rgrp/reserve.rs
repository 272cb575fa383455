//! Finding space, and what is done before "no space" is said.

use super::alloc::{Part, Space};
use super::group::Rgrp;
use super::plan::{Run, plan};
use super::{Reservation, Rgrps, Want, lvb};
use crate::error::{Error, Result};
use crate::glock::{ExclusiveHolder, LockState};
use crate::journal::FlushReason;
use crate::sync::{about_to_wait, may_wait};

/// How many rgrps are tried gently before one is waited for.
const GENTLY: usize = 8;
/// A promise of fewer blocks than this should be kept with one run.
const ONE_RUN: u32 = 64;

/// A promise of so many blocks is good, even where more were wanted.
const MUCH: u32 = 1024;

/// What is done before looking again; false when it brought nothing.
type Effort = fn(&Rgrps) -> Result<bool>;

/// How hard one rgrp is pressed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Press {
    /// Only if nobody uses it, with one run, and without touching what is set aside for others.
    Gently,
    /// With any runs.
    Firmly,
    /// Also what is set aside for others.
    Hard,
}

impl Rgrps {
    /// Sets space aside before a transaction: rgrp locks are held and the blocks are there. "No space" is said here or never;
    /// before it is said, the log is flushed (blocks freed in uncommitted batches) and unlinked inodes are asked for through
    /// `set_reclaimer`. May give fewer than `want.blocks` but never fewer than `want.min`. Not to be called inside a
    /// transaction, nor while a [`Space`] or [`FreeSpace`](super::FreeSpace) is held.
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
        self.reread()?;
        let start = self.start(want, resv);
        let much = want.blocks.min(want.min.max(MUCH));
        let efforts: [(Press, u32, Effort); 6] = [
            (Press::Gently, want.blocks, |_| Ok(true)),
            (Press::Firmly, want.blocks, |_| Ok(true)),
            (Press::Firmly, much, |_| Ok(true)),
            (Press::Hard, want.min, |_| Ok(true)),
            (Press::Hard, want.min, Self::commit),
            (Press::Hard, want.min, Self::reclaim),
        ];
        for (press, enough, effort) in efforts {
            if !effort(self)? {
                continue;
            }
            for n in self
                .order(start)
                .filter(|&n| press != Press::Gently || self.is_ours(n))
                .take(if press == Press::Gently { GENTLY } else { usize::MAX })
            {
                if let Some(space) = self.in_one(n, want, enough, resv, press)? {
                    return Ok(space);
                }
            }
            if several
                && press == Press::Hard
                && let Some(space) = self.in_several(want)?
            {
                return Ok(space);
            }
        }
        Err(Error::NoSpace)
    }

    /// True when trying for the rgrp takes it from nobody who is using it: its lock is here, or this node has the first right
    /// to it.
    fn is_ours(&self, n: usize) -> bool {
        let held = || self.table.find(self.cx.index.lock_name(n)).is_some_and(|g| g.state() == LockState::Exclusive);
        !self.shared || self.prefers(n) || held()
    }

    /// Makes blocks usable that were freed in batches not yet durable; true when there were any.
    fn commit(&self) -> Result<bool> {
        let waiting = (0..self.len()).any(|n| self.cx.index.claims(n).freed_blocks() > 0);
        if waiting {
            about_to_wait()?;
            self.cx.journal.flush(FlushReason::Normal)?;
        }
        Ok(waiting)
    }

    /// Asks for unlinked inodes everywhere; true when any went.
    fn reclaim(&self) -> Result<bool> {
        let Some(reclaim) = self.reclaimer.get() else { return Ok(false) };
        about_to_wait()?;
        // Every rgrp is asked: what one gives may not be enough.
        let any = (0..self.len()).filter(|&n| reclaim(n)).count() > 0;
        if any {
            self.cx.journal.flush(FlushReason::Normal)?;
        }
        Ok(any)
    }

    /// Space for at least `enough` blocks in one rgrp, if it has them.
    fn in_one(
        &self,
        n: usize,
        want: Want,
        enough: u32,
        resv: &mut Reservation,
        press: Press,
    ) -> Result<Option<Space<'_>>> {
        // What other nodes free we do not hear of: where there are any, a rgrp is passed over by hearsay only at first.
        let by_hearsay = !self.shared || press != Press::Hard;
        if by_hearsay && !self.cx.index.claims(n).may_have(enough) {
            return Ok(None);
        }
        let glock = self.glock(n);
        let group = if press == Press::Gently { glock.try_exclusive()? } else { Some(glock.exclusive()?) };
        let Some(mut group) = group else { return Ok(None) };
        let available = self.available(&mut group)?;
        let own = resv.get().filter(|&(at, ..)| at == n);
        let others =
            if press == Press::Hard { 0 } else { self.cx.index.claims(n).reserved_blocks(own.map(|(.., id)| id)) };
        let available = available.saturating_sub(others);
        if available < enough || !group.allocates() {
            return Ok(None);
        }
        let promised = available.min(want.blocks);
        if let Some((_, first, len, id)) = own {
            if len >= promised {
                let run = Run { first, len: promised };
                return Ok(Some(Space::new(self, vec![Part::new(group, vec![run], Some(id))])));
            }
            resv.clear();
        }
        if press == Press::Hard {
            self.cx.index.claims(n).drop_reservations();
        }
        let goal = if want.spread { None } else { resv.after(n).or(group.extent().index_of(want.goal)) };
        let from = goal.unwrap_or_else(|| self.cx.index.claims(n).last());
        let extra = if press == Press::Hard { 0 } else { resv.next_size().min(group.extent().data / 16) };
        let mut runs = plan(&mut group, self.cx.index.claims(n), from, promised, extra);
        let got = runs.iter().fold(0u32, |sum, run| sum.saturating_add(run.len));
        let one_run = runs.len() == 1 || promised > ONE_RUN;
        if got < enough || (press == Press::Gently && !one_run) {
            return Ok(None);
        }
        let mut id = None;
        for run in &mut runs {
            if run.len > promised {
                // All of it is set aside; what is promised is taken out as it is allocated.
                id = Some(resv.open(self.cx.index.claims(n), run.first, run.len));
                run.len = promised;
            }
        }
        Ok(Some(Space::new(self, vec![Part::new(group, runs, id)])))
    }

    /// Space collected from several rgrps, in ascending order; `None` when the volume does not have `want.min`.
    fn in_several(&self, want: Want) -> Result<Option<Space<'_>>> {
        let mut parts = Vec::new();
        let mut missing = want.min;
        for n in 0..self.len() {
            if missing == 0 {
                break;
            }
            if !self.shared && !self.cx.index.claims(n).may_have(1) {
                continue;
            }
            let mut group = self.glock(n).exclusive()?;
            let here = self.available(&mut group)?.min(missing);
            if here == 0 || !group.allocates() {
                continue;
            }
            let from = self.cx.index.claims(n).last();
            self.cx.index.claims(n).drop_reservations();
            let runs = plan(&mut group, self.cx.index.claims(n), from, here, 0);
            missing -= runs.iter().map(|run| run.len).sum::<u32>();
            parts.push(Part::new(group, runs, None));
        }
        Ok((missing == 0).then(|| Space::new(self, parts)))
    }

    /// Blocks of a locked rgrp that can be promised: free, and not waiting for a commit. What became usable is discarded if
    /// the mount wants that.
    pub(super) fn available(&self, group: &mut ExclusiveHolder<Rgrp>) -> Result<u32> {
        if self.shared && !group.lvb_checked {
            lvb::check(group)?;
            group.lvb_checked = true;
        }
        let claims = self.cx.index.claims(group.n());
        claims.set_hint(group.free());
        // A discard waits for the device: a thread that may not wait leaves the runs for the next one.
        if !self.discard || may_wait() {
            let usable = claims.settle(self.cx.journal.committed());
            if self.discard && !usable.is_empty() {
                self.discard(group, &usable);
            }
        }
        let available = group.free().saturating_sub(claims.freed_blocks());
        Ok(available)
    }

    /// Tells the device that these runs are not needed. A hint: that it failed changes nothing.
    fn discard(&self, group: &Rgrp, runs: &[(u32, u32)]) {
        let shift = self.cx.cache.block_size().shift();
        let mut rest = runs.iter().copied().peekable();
        while let Some((first, mut len)) = rest.next() {
            while let Some((_, more)) = rest.next_if(|&(next, _)| next == first + len) {
                len += more;
            }
            let start = group.extent().block_at(first).get();
            if let Err(e) = self.cx.cache.device().discard(start << shift, u64::from(len) << shift) {
                tracing::debug!(block = start, blocks = len, "discard: {e}");
            }
        }
    }
}
