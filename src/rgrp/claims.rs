//! What is known of an rgrp in memory only: blocks that are free on the disk but may not be used yet, and blocks that are set
//! aside for an inode. It outlives the rgrp's object, which may be dropped and read again.

use crate::ids::BatchId;
use crate::sync::{Mutex, MutexGuard, serial};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Which reservation; never 0 and never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ResvId(u64);

/// Blocks set aside in memory for one inode, so that it grows in one piece. Owned by the incore inode; given back when it is
/// dropped.
#[derive(Debug, Default)]
pub struct Reservation {
    held: Option<(Arc<Claims>, ResvId)>,
    /// Blocks the next one sets aside beyond what is wanted.
    size: u32,
    /// Entry behind the last one.
    after: u32,
}

/// Blocks a first reservation sets aside.
const FIRST: u32 = 32;
/// Blocks by which each further one is larger: an inode that used one up grows.
const GROW: u32 = 64;
/// Blocks beyond which they do not grow.
const LARGEST: u32 = 2048;

impl Reservation {
    /// Rgrp, first entry and length of what is set aside, if it still is.
    pub(super) fn get(&self) -> Option<(usize, u32, u32, ResvId)> {
        let (claims, id) = self.held.as_ref()?;
        let (start, len) = claims.state.lock().reservation(*id)?;
        Some((claims.n, start, len, *id))
    }
    /// The rgrp of the last one, even if it is used up.
    pub(super) fn rgrp(&self) -> Option<usize> {
        self.held.as_ref().map(|(claims, _)| claims.n)
    }
    /// Where to go on in rgrp `n`: behind what was set aside there and is used up.
    pub(super) fn after(&self, n: usize) -> Option<u32> {
        self.held.as_ref().filter(|(claims, _)| claims.n == n).map(|_| self.after)
    }
    /// Gives back what is set aside.
    pub(super) fn clear(&mut self) {
        if let Some((claims, id)) = self.held.take() {
            claims.close(id);
        }
    }
    /// Sets a run aside that nobody else has.
    pub(super) fn open(&mut self, claims: &Arc<Claims>, start: u32, len: u32) -> ResvId {
        let before = self.held.is_some();
        self.clear();
        self.size = if before { (self.next_size() + GROW).min(LARGEST) } else { self.next_size() };
        self.after = start + len;
        let id = ResvId(serial());
        let mut state = claims.state.lock();
        state.runs.insert(start, (len, Claim::Reserved(id)));
        state.reserved.insert(id, start);
        state.reserved_blocks += len;
        drop(state);
        self.held = Some((Arc::clone(claims), id));
        id
    }
    /// Blocks a new one sets aside beyond what is wanted now.
    pub(super) fn next_size(&self) -> u32 {
        self.size.max(FIRST)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Why a run of free blocks may not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim {
    /// It was freed in this batch, which may not be durable yet.
    Freed(BatchId),
    /// It is set aside.
    Reserved(ResvId),
}

/// In-memory state of one rgrp.
#[derive(Debug)]
pub(super) struct Claims {
    n: usize,
    /// Free blocks when somebody last looked; `UNKNOWN` before the rgrp was read and after blocks were freed.
    hint: AtomicU32,
    /// Entry behind the last allocation.
    last: AtomicU32,
    /// There may be longer runs of usable blocks than when somebody last searched.
    grown: AtomicBool,
    state: Mutex<State>,
}

const UNKNOWN: u32 = u32::MAX;

#[derive(Debug, Default)]
pub(super) struct State {
    /// Claimed runs by first entry: length and why. They do not overlap.
    runs: BTreeMap<u32, (u32, Claim)>,
    /// First entry of each reservation.
    reserved: HashMap<ResvId, u32>,
    reserved_blocks: u32,
    freed_blocks: u32,
    /// The oldest batch that a freed run waits for, if there are any.
    oldest: BatchId,
}

impl State {
    fn reservation(&self, id: ResvId) -> Option<(u32, u32)> {
        let start = *self.reserved.get(&id)?;
        self.runs.get(&start).map(|&(len, _)| (start, len))
    }
    fn close(&mut self, id: ResvId) -> bool {
        let Some(start) = self.reserved.remove(&id) else { return false };
        if let Some((len, _)) = self.runs.remove(&start) {
            self.reserved_blocks -= len;
        }
        true
    }
}

impl Claims {
    /// Nothing is known of rgrp `n`.
    pub(super) fn new(n: usize) -> Self {
        let (hint, last, grown) = (AtomicU32::new(UNKNOWN), AtomicU32::new(0), AtomicBool::new(false));
        Self { n, hint, last, grown, state: Mutex::default() }
    }

    /// False when the rgrp certainly cannot give `blocks` to this node.
    pub(super) fn may_have(&self, blocks: u32) -> bool {
        self.hint.load(Ordering::Relaxed) >= blocks
    }
    /// Remembers how many blocks are free.
    pub(super) fn set_hint(&self, blocks: u32) {
        self.hint.store(blocks, Ordering::Relaxed);
    }
    /// Where the search begins when nobody says where.
    pub(super) fn last(&self) -> u32 {
        self.last.load(Ordering::Relaxed)
    }
    pub(super) fn set_last(&self, entry: u32) {
        self.last.store(entry, Ordering::Relaxed);
    }
    /// True once after runs of usable blocks may have become longer.
    pub(super) fn take_grown(&self) -> bool {
        self.grown.load(Ordering::Relaxed) && self.grown.swap(false, Ordering::Relaxed)
    }

    /// Blocks that wait for a commit.
    pub(super) fn freed_blocks(&self) -> u32 {
        self.state.lock().freed_blocks
    }
    /// Blocks that are set aside for inodes other than the one with the reservation `own`.
    pub(super) fn reserved_blocks(&self, own: Option<ResvId>) -> u32 {
        let state = self.state.lock();
        let mine = own.and_then(|id| state.reservation(id)).map_or(0, |(_, len)| len);
        state.reserved_blocks - mine
    }

    /// A run was freed in this batch.
    pub(super) fn freed(&self, start: u32, len: u32, batch: BatchId) {
        let mut state = self.state.lock();
        if state.freed_blocks == 0 {
            state.oldest = batch;
        }
        state.freed_blocks += len;
        let joined = state.runs.range_mut(..start).next_back().is_some_and(|(&s, run)| {
            let joins = s + run.0 == start && run.1 == Claim::Freed(batch);
            run.0 += if joins { len } else { 0 };
            joins
        });
        if !joined {
            state.runs.insert(start, (len, Claim::Freed(batch)));
        }
        // It will be usable one day: the hint must not keep anybody from looking.
        self.set_hint(UNKNOWN);
    }

    /// Lets go of what batches up to `committed` freed; these runs.
    pub(super) fn settle(&self, committed: BatchId) -> Vec<(u32, u32)> {
        let mut usable = Vec::new();
        let mut state = self.state.lock();
        if state.freed_blocks == 0 || state.oldest > committed {
            return usable;
        }
        let mut oldest = BatchId(u64::MAX);
        state.runs.retain(|&start, &mut (len, claim)| match claim {
            Claim::Freed(batch) if batch <= committed => {
                usable.push((start, len));
                false
            }
            Claim::Freed(batch) => {
                oldest = oldest.min(batch);
                true
            }
            Claim::Reserved(_) => true,
        });
        state.oldest = oldest;
        state.freed_blocks -= usable.iter().map(|&(_, len)| len).sum::<u32>();
        if !usable.is_empty() {
            self.grown.store(true, Ordering::Relaxed);
        }
        usable
    }

    /// Takes the first `len` blocks out of a reservation: they are allocated now.
    pub(super) fn consume(&self, id: ResvId, len: u32) {
        let mut state = self.state.lock();
        let Some((start, had)) = state.reservation(id) else { return };
        let len = len.min(had);
        state.runs.remove(&start);
        state.reserved_blocks -= len;
        if had > len {
            state.runs.insert(start + len, (had - len, Claim::Reserved(id)));
            state.reserved.insert(id, start + len);
        } else {
            state.reserved.remove(&id);
        }
    }

    /// Gives a reservation back.
    fn close(&self, id: ResvId) {
        if self.state.lock().close(id) {
            self.grown.store(true, Ordering::Relaxed);
        }
    }

    /// Drops all reservations.
    pub(super) fn drop_reservations(&self) {
        let mut state = self.state.lock();
        state.runs.retain(|_, (_, claim)| matches!(claim, Claim::Freed(_)));
        state.reserved.clear();
        state.reserved_blocks = 0;
        drop(state);
        self.grown.store(true, Ordering::Relaxed);
    }

    /// The rgrp's lock is lost. Other nodes allocate as they like: reservations are a matter of one node, what was freed here is
    /// durable by now, and how much is free nobody knows.
    pub(super) fn lost(&self) {
        let mut state = self.state.lock();
        *state = State::default();
        drop(state);
        self.set_hint(UNKNOWN);
        self.grown.store(true, Ordering::Relaxed);
    }

    /// A view of what is claimed.
    pub(super) fn barred(&self) -> Bars<'_> {
        Bars(self.state.lock())
    }
}

/// The claimed runs, while nobody changes them.
pub(super) struct Bars<'c>(MutexGuard<'c, State>);

impl Bars<'_> {
    /// The first claimed run that ends after `at`: (first entry, the one after its last).
    pub(super) fn next(&self, at: u32) -> Option<(u32, u32)> {
        let run = |(&start, &(len, _)): (&u32, &(u32, Claim))| (start, start + len);
        let before = self.0.runs.range(..=at).next_back().map(run).filter(|&(_, end)| end > at);
        before.or_else(|| self.0.runs.range(at.saturating_add(1)..).next().map(run))
    }
}
