//! The extents of the write buffer: pure bookkeeping, no I/O, no waiting.
//!
//! A [`Piece`] is a run of blocks that was written in one go. Pieces never overlap: a newer write cuts what it covers out of
//! older ones. A piece is dirty, being written, or clean; the ranges that are being written are also kept apart
//! (`inflight`), since a piece may be cut or replaced while the device still writes its old contents.

use crate::device::AlignedBuf;
use crate::ids::{BatchId, BlockSize, LockName};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Some blocks of a shared buffer.
#[derive(Clone)]
pub(super) struct Slice {
    pub(super) buf: Arc<AlignedBuf>,
    /// Byte at which it starts.
    pub(super) at: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PieceState {
    /// Newer than the device.
    Dirty,
    /// Handed to the device by the write with this number.
    Writing(u64),
    /// The same as on the device.
    Clean,
}

#[derive(Clone)]
pub(super) struct Piece {
    pub(super) blocks: u64,
    pub(super) data: Slice,
    pub(super) owner: LockName,
    /// Must be on the device before this batch commits.
    pub(super) ordered: Option<BatchId>,
    pub(super) state: PieceState,
    /// Grows from write to write.
    pub(super) stamp: u64,
}

impl Piece {
    fn part(&self, bs: BlockSize, skip: u64, blocks: u64) -> Self {
        let data = Slice { buf: self.data.buf.clone(), at: self.data.at + skip as usize * bs.bytes() };
        Self { blocks, data, ..self.clone() }
    }
}

/// Which pieces are to be written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Which {
    /// All with a stamp up to this one.
    All(u64),
    /// One lock's, with a stamp up to this one.
    Owner(LockName, u64),
    /// Those ordered before this batch or an earlier one.
    Ordered(BatchId),
}

/// A run handed to the device.
pub(super) struct Taken {
    pub(super) start: u64,
    pub(super) blocks: u64,
    pub(super) data: Slice,
}

pub(super) struct Pieces {
    bs: BlockSize,
    map: BTreeMap<u64, Piece>,
    owners: HashMap<LockName, BTreeSet<u64>>,
    ordered: BTreeSet<(BatchId, u64)>,
    /// First block → (block after the last, number of the write).
    inflight: BTreeMap<u64, (u64, u64)>,
    /// Bytes not yet on the device.
    dirty: usize,
    clean: usize,
    /// Clean pieces, oldest first: (start, stamp); entries may be outdated.
    queue: VecDeque<(u64, u64)>,
    stamp: u64,
    writes: u64,
}

impl Pieces {
    pub(super) fn new(bs: BlockSize) -> Self {
        Self {
            bs,
            map: BTreeMap::new(),
            owners: HashMap::new(),
            ordered: BTreeSet::new(),
            inflight: BTreeMap::new(),
            dirty: 0,
            clean: 0,
            queue: VecDeque::new(),
            stamp: 0,
            writes: 0,
        }
    }
    /// Bytes dirty or being written.
    pub(super) fn dirty_bytes(&self) -> usize {
        self.dirty
    }
    /// Stamp of the newest write.
    pub(super) fn stamp(&self) -> u64 {
        self.stamp
    }
    /// True when the device is writing some of these blocks.
    pub(super) fn is_inflight(&self, start: u64, end: u64) -> bool {
        self.inflight.range(..end).next_back().is_some_and(|(_, (e, _))| *e > start)
    }
    /// The piece that holds `block`, with its start.
    pub(super) fn covering(&self, block: u64) -> Option<(u64, &Piece)> {
        self.map.range(..=block).next_back().filter(|(s, p)| *s + p.blocks > block).map(|(s, p)| (*s, p))
    }
    /// What overlaps [start, end), clipped: (block, blocks, contents), ascending.
    pub(super) fn overlaps(&self, start: u64, end: u64) -> Vec<(u64, u64, Slice)> {
        let mut found = Vec::new();
        let before = self.covering(start).map(|(s, p)| (s, p.clone()));
        let from = before.as_ref().map_or(start, |(s, p)| s + p.blocks);
        let rest = self.map.range(from..end.max(from)).map(|(s, p)| (*s, p.clone()));
        for (s, p) in before.into_iter().chain(rest) {
            let (a, b) = (s.max(start), (s + p.blocks).min(end));
            found.push((a, b - a, p.part(self.bs, a - s, b - a).data));
        }
        found
    }

    /// Puts dirty blocks in place of whatever was there. What was ordered before an older batch and is not on the device yet
    /// stays ordered before that: else stale contents could show after a crash.
    pub(super) fn write(&mut self, start: u64, blocks: u64, data: Slice, owner: LockName, ordered: Option<BatchId>) {
        let older = self.cut(start, start + blocks);
        let ordered = [older, ordered].into_iter().flatten().min();
        self.stamp += 1;
        let stamp = self.stamp;
        self.put(start, Piece { blocks, data, owner, ordered, state: PieceState::Dirty, stamp });
    }
    /// Changes bytes of a one-block piece that nobody else looks at; false when there is no such piece.
    pub(super) fn patch(
        &mut self,
        block: u64,
        at: usize,
        bytes: &[u8],
        owner: LockName,
        ordered: Option<BatchId>,
    ) -> bool {
        let Some((start, piece)) = self.covering(block) else { return false };
        if start != block || piece.blocks != 1 || matches!(piece.state, PieceState::Writing(_)) {
            return false;
        }
        let mut piece = self.take(start);
        let from = piece.data.at + at;
        let fits = match Arc::get_mut(&mut piece.data.buf) {
            Some(buf) => {
                buf[from..from + bytes.len()].copy_from_slice(bytes);
                true
            }
            None => false,
        };
        if fits {
            if piece.state == PieceState::Clean {
                self.stamp += 1;
                piece.stamp = self.stamp;
                piece.ordered = None;
                piece.state = PieceState::Dirty;
            }
            piece.owner = owner;
            piece.ordered = [piece.ordered, ordered].into_iter().flatten().min();
        }
        self.put(start, piece);
        fits
    }
    /// Removes [start, end); returns the oldest batch that some removed dirty block was ordered before.
    pub(super) fn cut(&mut self, start: u64, end: u64) -> Option<BatchId> {
        let mut oldest = None;
        let mut starts: Vec<u64> = self.covering(start).map(|(s, _)| s).into_iter().collect();
        starts.extend(self.map.range(start.saturating_add(1)..end.max(start.saturating_add(1))).map(|(s, _)| *s));
        for s in starts {
            let piece = self.take(s);
            let stop = s + piece.blocks;
            if s < start {
                self.put(s, piece.part(self.bs, 0, start - s));
            }
            if stop > end {
                self.put(end, piece.part(self.bs, end - s, stop - end));
            }
            if piece.state != PieceState::Clean {
                oldest = [oldest, piece.ordered].into_iter().flatten().min();
            }
        }
        oldest
    }
    /// True when an unwritten block of [start, end) is ordered before `upto` or an older batch.
    pub(super) fn is_ordered(&self, start: u64, end: u64, upto: BatchId) -> bool {
        self.ordered
            .range(..=(upto, u64::MAX))
            .any(|(_, s)| *s < end && self.map.get(s).is_some_and(|p| s + p.blocks > start))
    }
    /// Drops the clean pieces of a lock.
    pub(super) fn drop_clean(&mut self, owner: LockName) {
        let starts: Vec<u64> = self.owners.get(&owner).map(|s| s.iter().copied().collect()).unwrap_or_default();
        for s in starts {
            if self.map.get(&s).is_some_and(|p| p.state == PieceState::Clean) {
                self.take(s);
            }
        }
    }

    /// Orders a lock's unwritten pieces before `batch`, unless they are ordered before an older one. False: there are none.
    pub(super) fn order_owner(&mut self, owner: LockName, batch: BatchId) -> bool {
        let Some(starts) = self.owners.get(&owner) else { return false };
        let mut found = false;
        for start in starts {
            let Some(p) = self.map.get_mut(start) else { continue };
            if p.state == PieceState::Clean {
                continue;
            }
            found = true;
            if p.ordered.is_some_and(|b| b <= batch) {
                continue;
            }
            if let Some(before) = p.ordered.replace(batch) {
                self.ordered.remove(&(before, *start));
            }
            self.ordered.insert((batch, *start));
        }
        found
    }
    /// Takes up to about `budget` bytes of dirty pieces for the device, as write number `.0`.
    pub(super) fn collect(&mut self, which: Which, budget: usize) -> (u64, Vec<Taken>) {
        let mut bytes = 0;
        let mut chosen = Vec::new();
        let mut consider = |s: u64, p: &Piece, inflight: &Self| {
            let wanted = match which {
                Which::All(upto) | Which::Owner(_, upto) => p.stamp <= upto,
                Which::Ordered(_) => true,
            };
            if wanted && p.state == PieceState::Dirty && !inflight.is_inflight(s, s + p.blocks) {
                chosen.push(s);
                bytes += p.blocks as usize * inflight.bs.bytes();
            }
            bytes < budget
        };
        match which {
            Which::All(_) => {
                let _ = self.map.iter().all(|(s, p)| consider(*s, p, self));
            }
            Which::Owner(owner, _) => {
                if let Some(starts) = self.owners.get(&owner) {
                    let _ = starts.iter().all(|s| self.map.get(s).is_none_or(|p| consider(*s, p, self)));
                }
            }
            Which::Ordered(upto) => {
                let _ = self
                    .ordered
                    .range(..=(upto, u64::MAX))
                    .all(|(_, s)| self.map.get(s).is_none_or(|p| consider(*s, p, self)));
            }
        }
        chosen.sort_unstable();
        self.writes += 1;
        let id = self.writes;
        let mut taken = Vec::with_capacity(chosen.len());
        for start in chosen {
            if let Some(p) = self.map.get_mut(&start) {
                p.state = PieceState::Writing(id);
                self.inflight.insert(start, (start + p.blocks, id));
                taken.push(Taken { start, blocks: p.blocks, data: p.data.clone() });
            }
        }
        (id, taken)
    }
    /// The device has written (or failed to write) what write `id` took: small pieces stay, clean, when `keep`.
    pub(super) fn finish(&mut self, id: u64, ranges: &[(u64, u64)], keep_below: usize, clean_budget: usize) {
        for (start, blocks) in ranges {
            self.inflight.remove(start);
            let end = start + blocks;
            let mine: Vec<u64> = self
                .map
                .range(*start..end)
                .filter(|(_, p)| p.state == PieceState::Writing(id))
                .map(|(s, _)| *s)
                .collect();
            for s in mine {
                let mut piece = self.take(s);
                let bytes = piece.blocks as usize * self.bs.bytes();
                if bytes >= keep_below {
                    continue;
                }
                if piece.data.buf.len() > 2 * bytes {
                    // A remnant must not keep the large buffer that it was cut from.
                    let at = piece.data.at;
                    piece.data = Slice { buf: Arc::new(AlignedBuf::copy_of(&piece.data.buf[at..at + bytes])), at: 0 };
                }
                piece.state = PieceState::Clean;
                piece.ordered = None;
                self.put(s, piece);
            }
        }
        self.shrink(clean_budget);
    }
    /// True while something of `which` is dirty or being written.
    pub(super) fn pending(&self, which: Which) -> bool {
        let unwritten = |p: &Piece, upto: u64| p.state != PieceState::Clean && p.stamp <= upto;
        match which {
            Which::All(upto) => self.dirty > 0 && self.map.values().any(|p| unwritten(p, upto)),
            Which::Owner(owner, upto) => self
                .owners
                .get(&owner)
                .is_some_and(|starts| starts.iter().any(|s| self.map.get(s).is_some_and(|p| unwritten(p, upto)))),
            Which::Ordered(upto) => self.ordered.first().is_some_and(|(b, _)| *b <= upto),
        }
    }

    fn shrink(&mut self, budget: usize) {
        while self.clean > budget {
            let Some((start, stamp)) = self.queue.pop_front() else { return };
            if self.map.get(&start).is_some_and(|p| p.state == PieceState::Clean && p.stamp == stamp) {
                self.take(start);
            }
        }
        if self.queue.len() > 2 * self.map.len() + 64 {
            let map = &self.map;
            let mut seen = BTreeSet::new();
            self.queue.retain(|(s, stamp)| {
                map.get(s).is_some_and(|p| p.state == PieceState::Clean && p.stamp == *stamp) && seen.insert(*s)
            });
        }
    }
    fn put(&mut self, start: u64, piece: Piece) {
        let bytes = piece.blocks as usize * self.bs.bytes();
        if piece.state == PieceState::Clean {
            self.clean += bytes;
            self.queue.push_back((start, piece.stamp));
        } else {
            self.dirty += bytes;
            if let Some(batch) = piece.ordered {
                self.ordered.insert((batch, start));
            }
        }
        self.owners.entry(piece.owner).or_default().insert(start);
        self.map.insert(start, piece);
    }
    /// Takes out the piece that starts at `start`, which the caller has just seen there.
    fn take(&mut self, start: u64) -> Piece {
        let piece = self.map.remove(&start).expect("the caller found it under the same lock");
        let bytes = piece.blocks as usize * self.bs.bytes();
        if piece.state == PieceState::Clean {
            self.clean -= bytes;
        } else {
            self.dirty -= bytes;
            if let Some(batch) = piece.ordered {
                self.ordered.remove(&(batch, start));
            }
        }
        if let Some(set) = self.owners.get_mut(&piece.owner) {
            set.remove(&start);
            if set.is_empty() {
                self.owners.remove(&piece.owner);
            }
        }
        piece
    }
    /// Every invariant of this file, for tests.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let (mut end, mut dirty, mut clean, mut ordered, mut owned) = (0, 0, 0, 0, 0);
        for (s, p) in &self.map {
            assert!(*s >= end && p.blocks > 0, "pieces overlap");
            end = s + p.blocks;
            let bytes = p.blocks as usize * self.bs.bytes();
            assert!(p.data.at + bytes <= p.data.buf.len());
            if p.state == PieceState::Clean {
                clean += bytes
            } else {
                dirty += bytes
            }
            if let PieceState::Writing(id) = p.state {
                assert!(self.inflight.values().any(|(_, i)| *i == id), "written by nobody");
            }
            if p.state != PieceState::Clean && p.ordered.is_some() {
                ordered += 1;
            }
            assert!(self.owners[&p.owner].contains(s));
        }
        owned += self.owners.values().map(BTreeSet::len).sum::<usize>();
        assert_eq!((dirty, clean, ordered, owned), (self.dirty, self.clean, self.ordered.len(), self.map.len()));
    }
}
