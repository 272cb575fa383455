//! What is known of an rgrp in memory only: blocks that may not be used yet, windows, hints. It outlives the rgrp's object,
//! which may be dropped and read again.

use super::group::Rgrp;
use crate::ids::{BatchId, BlkState, BlockAddr};
use crate::journal::Journal;
use crate::sync::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

/// Blocks set aside in memory for one inode, so that it grows in one piece. Owned by the incore inode.
#[derive(Debug, Default)]
pub struct Reservation {
    /// Rgrp and first index of its window; whether the window still is there, only the rgrp's side knows.
    window: Option<(u32, u32)>,
}

impl Reservation {
    pub(super) fn take(&mut self) -> Option<(usize, u32)> {
        self.window.take().map(|(rgrp, start)| (rgrp as usize, start))
    }
    pub(super) fn set(&mut self, rgrp: usize, start: u32) {
        self.window = u32::try_from(rgrp).ok().map(|rgrp| (rgrp, start));
    }
    pub(super) fn rgrp(&self) -> Option<usize> {
        self.window.map(|(rgrp, _)| rgrp as usize)
    }
}

/// In-memory state of one rgrp.
pub(super) struct Side {
    /// Blocks that can be promised, as last seen; `UNKNOWN` before the rgrp was read.
    hint: AtomicU32,
    /// Index behind the last allocation.
    last: AtomicU32,
    state: Mutex<State>,
}

const UNKNOWN: u32 = u32::MAX;

#[derive(Default)]
struct State {
    /// Freed runs by first index: (length, batch that frees them).
    freed: BTreeMap<u32, (u32, BatchId)>,
    /// Sum of their lengths.
    freed_blocks: u32,
    /// Windows by first index: length.
    windows: BTreeMap<u32, u32>,
}

impl Default for Side {
    fn default() -> Self {
        Self { hint: AtomicU32::new(UNKNOWN), last: AtomicU32::new(0), state: Mutex::new(State::default()) }
    }
}

impl Side {
    /// False when the rgrp certainly cannot give `blocks`.
    pub(super) fn may_have(&self, blocks: u32) -> bool {
        self.hint.load(Ordering::Relaxed) >= blocks
    }

    /// Blocks that can be promised now: free, and not waiting for a commit. Runs that became usable are handed to `usable`.
    pub(super) fn available(&self, group: &Rgrp, journal: &Journal, mut usable: impl FnMut(BlockAddr, u32)) -> u32 {
        let mut state = self.state.lock();
        if state.freed_blocks > 0 {
            let committed = journal.committed();
            let mut back = 0;
            state.freed.retain(|&start, &mut (len, batch)| {
                if batch <= committed {
                    back += len;
                    usable(group.extent().block_at(start), len);
                }
                batch > committed
            });
            state.freed_blocks -= back;
        }
        let available = group.free().saturating_sub(state.freed_blocks);
        self.hint.store(available, Ordering::Relaxed);
        available
    }

    pub(super) fn last(&self) -> u32 {
        self.last.load(Ordering::Relaxed)
    }

    pub(super) fn set_last(&self, index: u32) {
        self.last.store(index, Ordering::Relaxed);
    }

    /// True when blocks wait for a commit.
    pub(super) fn waits_for_commit(&self) -> bool {
        self.state.lock().freed_blocks > 0
    }

    /// A run was freed in this batch.
    pub(super) fn freed(&self, start: u32, len: u32, batch: BatchId) {
        let mut state = self.state.lock();
        state.freed_blocks += len;
        let joined = state.freed.range_mut(..start).next_back().is_some_and(|(&s, run)| {
            let joins = s + run.0 == start && run.1 == batch;
            if joins {
                run.0 += len;
            }
            joins
        });
        if !joined {
            state.freed.insert(start, (len, batch));
        }
        // It is free again one day: the hint must not keep anybody from looking.
        self.hint.store(UNKNOWN, Ordering::Relaxed);
    }

    /// The first run of at least `want` usable blocks from `from` on, then from the start; else the longest. Windows count as
    /// used when `windows`.
    pub(super) fn search(&self, group: &Rgrp, from: u32, want: u32, windows: bool) -> Option<(u32, u32)> {
        let state = self.state.lock();
        let mut best: Option<(u32, u32)> = None;
        for (mut at, end) in [(from, group.extent().data), (0, from)] {
            while at < end {
                let Some((start, len)) = state.next_run(group, at, end, want, windows) else { break };
                if best.is_none_or(|(_, b)| len > b) {
                    best = Some((start, len.min(want)));
                }
                if len >= want {
                    return best;
                }
                at = start + len;
            }
        }
        best
    }

    /// The first usable run at or after `from`, windows passed over as if free (for trimming).
    pub(super) fn free_run(&self, group: &Rgrp, from: u32, journal: &Journal) -> Option<(u32, u32)> {
        self.available(group, journal, |_, _| {});
        self.state.lock().next_run(group, from, group.extent().data, u32::MAX, false)
    }

    /// Opens a window.
    pub(super) fn open_window(&self, start: u32, len: u32) {
        self.state.lock().windows.insert(start, len);
    }

    /// Closes the window that starts here; its length if it was there.
    pub(super) fn close_window(&self, start: u32) -> Option<u32> {
        self.state.lock().windows.remove(&start)
    }

    /// Drops all windows: space is short.
    pub(super) fn close_windows(&self) {
        self.state.lock().windows.clear();
    }
}

impl State {
    /// The first run of blocks that are free and not barred, within `from..to`, at most `want` long.
    fn next_run(&self, group: &Rgrp, from: u32, to: u32, want: u32, windows: bool) -> Option<(u32, u32)> {
        let mut at = from;
        loop {
            at = group.find(at, BlkState::Free).filter(|&a| a < to)?;
            if let Some(end) = self.barred_at(at, windows) {
                at = end;
                if at >= to {
                    return None;
                }
                continue;
            }
            let most = (to - at).min(want).min(self.next_bar(at, windows) - at);
            return Some((at, group.run(at, most, BlkState::Free)));
        }
    }

    /// End of the barred run that `at` lies in.
    fn barred_at(&self, at: u32, windows: bool) -> Option<u32> {
        let freed = self.freed.range(..=at).next_back().map(|(&s, &(len, _))| s + len);
        let window = self.windows.range(..=at).next_back().filter(|_| windows).map(|(&s, &len)| s + len);
        freed.into_iter().chain(window).filter(|&end| end > at).max()
    }

    /// Start of the next barred run after `at`.
    fn next_bar(&self, at: u32, windows: bool) -> u32 {
        let freed = self.freed.range(at..).next().map(|(&s, _)| s);
        let window = self.windows.range(at..).next().filter(|_| windows).map(|(&s, _)| s);
        freed.into_iter().chain(window).min().unwrap_or(u32::MAX)
    }
}
