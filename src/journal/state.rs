//! What the journal's one mutex protects.

use super::ail::Ail;
use super::reserve::{Costs, Reserve};
use super::revoke::Copies;
use super::ring::Ring;
use crate::cache::{AddrMap, AddrSet, Buffer};
use crate::format::StatfsChange;
use crate::ids::{BatchId, BlockAddr, LockName, LogSeq};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// What transactions have committed since the last snapshot.
#[derive(Default)]
pub(super) struct Batch {
    /// Changed blocks.
    pub(super) pinned: AddrMap<(Arc<Buffer>, LockName)>,
    /// Revokes to be written.
    pub(super) revokes: AddrSet,
    /// Freed blocks that were in the group which is being committed: they enter the AIL as gone.
    pub(super) forgotten: AddrSet,
    /// Freed blocks that are in the AIL.
    pub(super) gone: AddrSet,
    /// A freed block is being written in place: that must have ended before the batch commits.
    pub(super) awaits_writeback: bool,
    /// Somebody wants the device flushed even if there is nothing to log.
    pub(super) wants_barrier: bool,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.pinned.is_empty() && self.revokes.is_empty()
    }
}

pub(super) struct State {
    /// Transactions go into this batch.
    pub(super) running: BatchId,
    /// Newest durable batch.
    pub(super) committed: BatchId,
    pub(super) batch: Batch,
    /// Open transactions and what they were promised.
    pub(super) open: usize,
    pub(super) promised_blocks: usize,
    pub(super) promised_revokes: usize,
    /// A snapshot waits for the open transactions; new ones wait for it.
    pub(super) closing: bool,
    /// Somebody writes to the log.
    pub(super) flushing: bool,
    /// Threads that wait for a flush, the one that does it included; how many there were at the last one, and its time.
    pub(super) waiting: usize,
    pub(super) last_together: usize,
    pub(super) last_took: Duration,
    /// Waiting `begin`s, first come first served.
    pub(super) queue: VecDeque<u64>,
    pub(super) next_ticket: u64,
    pub(super) ring: Ring,
    /// Of the next header.
    pub(super) sequence: LogSeq,
    pub(super) ail: Ail,
    pub(super) copies: Copies,
    /// Blocks that are being written in place at this moment.
    pub(super) inflight: AddrSet,
    /// Local statfs delta: now, and as of the last snapshot.
    pub(super) local: StatfsChange,
    pub(super) local_logged: StatfsChange,
    /// No more transactions: closed for good, or frozen.
    pub(super) closed: bool,
    pub(super) frozen: bool,
    /// Transactions that used more than they had reserved.
    pub(super) overruns: u64,
}

impl State {
    pub(super) fn new(ring: Ring, sequence: LogSeq) -> Self {
        Self {
            running: BatchId(1),
            committed: BatchId(0),
            batch: Batch::default(),
            open: 0,
            promised_blocks: 0,
            promised_revokes: 0,
            closing: false,
            flushing: false,
            waiting: 0,
            last_together: 0,
            last_took: Duration::ZERO,
            queue: VecDeque::new(),
            next_ticket: 0,
            ring,
            sequence,
            ail: Ail::default(),
            copies: Copies::default(),
            inflight: AddrSet::default(),
            local: StatfsChange::default(),
            local_logged: StatfsChange::default(),
            closed: false,
            frozen: false,
            overruns: 0,
        }
    }
    /// Log blocks that the running batch and the open transactions may need, with `more` in addition.
    pub(super) fn need(&self, costs: Costs, more: Reserve) -> u64 {
        let blocks = self.batch.pinned.len() + self.promised_blocks + more.blocks as usize;
        let revokes = self.batch.revokes.len() + self.promised_revokes + more.revokes as usize;
        costs.bound(blocks, revokes) as u64
    }
    /// True when a transaction may be promised this.
    pub(super) fn has_room(&self, costs: Costs, more: Reserve) -> bool {
        self.ring.has_room(self.need(costs, more))
    }
    /// The blocks of a run are freed by the running batch. Returns the number of new revokes.
    pub(super) fn forget(&mut self, start: BlockAddr, blocks: u64) -> usize {
        if (self.batch.pinned.len() as u64) < blocks {
            let end = start.saturating_add(blocks);
            self.batch.pinned.retain(|a, _| !(start..end).contains(a));
        } else {
            for a in (0..blocks).filter_map(|i| start.checked_add(i)) {
                self.batch.pinned.remove(&a);
            }
        }
        let mut revokes = 0;
        for a in self.copies.in_run(start, blocks) {
            revokes += usize::from(self.batch.revokes.insert(a));
            if self.copies.newest(a).is_some_and(|batch| batch > self.committed) {
                self.batch.forgotten.insert(a);
            }
            if let Some(entry) = self.ail.get_mut(a)
                && entry.gone.is_none()
            {
                entry.gone = Some(self.running);
                self.batch.gone.insert(a);
            }
            self.batch.awaits_writeback |= self.inflight.contains(&a);
        }
        revokes
    }
    /// A header with this tail is durable.
    pub(super) fn pass_tail(&mut self, tail: u64) {
        self.ring.set_tail(tail);
        for (group, logged) in self.ail.pass(tail) {
            for addr in logged {
                self.copies.drop_upto(addr, group);
            }
        }
    }
}
