//! FITRIM: telling the device which blocks are not in use.

use super::{Rgrps, lvb, plan};
use crate::error::Result;
use crate::journal::{FlushReason, Reserve};

impl Rgrps {
    /// FITRIM: discards free extents of at least `min_blocks` within [start, end) blocks; returns blocks discarded. A group in
    /// which nothing was freed since it was last trimmed as a whole is passed over.
    pub fn trim(&self, start: u64, end: u64, min_blocks: u64) -> Result<u64> {
        // What is free now shall be usable: only that may be discarded.
        self.cx.journal.flush(FlushReason::Normal)?;
        let mut trimmed = 0;
        for n in 0..self.len() {
            let extent = self.cx.index.extent(n);
            if extent.end() > start && extent.data0.get() < end {
                trimmed += self.trim_one(n, start, end, min_blocks.max(1))?;
            }
        }
        Ok(trimmed)
    }

    fn trim_one(&self, n: usize, start: u64, end: u64, min_blocks: u64) -> Result<u64> {
        let extent = *self.cx.index.extent(n);
        let shift = self.cx.cache.block_size().shift();
        // Held exclusively: nobody allocates what is being discarded.
        let mut group = self.glock(n).exclusive()?;
        if group.is_trimmed() {
            return Ok(0);
        }
        self.available(&mut group)?;
        // What is set aside is not in use either.
        self.cx.index.claims(n).drop_reservations();
        let mut trimmed = 0;
        for run in plan::all(&group, self.cx.index.claims(n)) {
            let at = extent.block_at(run.first).get();
            let (first, last) = (at.max(start), (at + u64::from(run.len)).min(end));
            if last.saturating_sub(first) >= min_blocks {
                self.cx.cache.device().discard(first << shift, (last - first) << shift)?;
                trimmed += last - first;
            }
        }
        let whole = start <= extent.data0.get() && extent.end() <= end && min_blocks == 1;
        if whole && self.cx.index.claims(n).freed_blocks() == 0 && !self.cx.journal.is_read_only() {
            let mut tx = self.cx.journal.begin(Reserve::blocks(1))?;
            group.set_trimmed(&mut tx);
            tx.commit();
            if self.shared {
                lvb::publish(&mut group);
            }
        }
        Ok(trimmed)
    }
}
