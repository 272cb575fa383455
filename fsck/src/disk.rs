//! The device as a checker sees it: blocks, read in large pieces, with replayed journals laid over them in memory.

use crate::report::CheckError;
use gfs2r::device::{AlignedBuf, BlockDevice};
use gfs2r::ids::BlockSize;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// Largest single read.
const READ_MAX: usize = 512 << 10;
/// Unwanted bytes between two wanted blocks that are read rather than skipped.
const GAP_MAX: usize = 16 << 10;
/// Bytes that are read with several requests in flight.
const BATCH_MAX: usize = 4 << 20;
/// Requests in such a batch.
const BATCH_RUNS: usize = 256;

/// A device read block by block, with an overlay of replayed blocks.
pub(crate) struct Disk<'d> {
    device: &'d dyn BlockDevice,
    pub(crate) bs: BlockSize,
    /// Whole blocks on the device.
    pub(crate) blocks: u64,
    overlay: HashMap<u64, Box<[u8]>>,
    scratch: RefCell<Vec<AlignedBuf>>,
    bytes_read: Cell<u64>,
}

impl<'d> Disk<'d> {
    pub(crate) fn new(device: &'d dyn BlockDevice, bs: BlockSize) -> Self {
        Self {
            device,
            bs,
            blocks: device.size() >> bs.shift(),
            overlay: HashMap::new(),
            scratch: RefCell::default(),
            bytes_read: Cell::new(0),
        }
    }

    /// Lays `bytes` over block `addr`.
    pub(crate) fn lay_over(&mut self, addr: u64, bytes: Box<[u8]>) {
        self.overlay.insert(addr, bytes);
    }

    /// Addresses of the blocks that differ from the device, sorted.
    pub(crate) fn changes(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self.overlay.keys().copied().collect();
        all.sort_unstable();
        all
    }
    /// The block as the overlay has it.
    pub(crate) fn change(&self, addr: u64) -> Option<&[u8]> {
        self.overlay.get(&addr).map(|bytes| &bytes[..])
    }
    /// Forgets one change, or with `None` all of them: they are on the device, or not wanted.
    pub(crate) fn forget(&mut self, addr: Option<u64>) {
        match addr {
            Some(addr) => drop(self.overlay.remove(&addr)),
            None => self.overlay.clear(),
        }
    }
    /// The device below.
    pub(crate) fn device(&self) -> &'d dyn BlockDevice {
        self.device
    }

    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read.get()
    }

    /// True when the block lies on the device as the overlay has it (or the overlay has nothing).
    pub(crate) fn same_on_device(&self, addr: u64) -> Result<bool, CheckError> {
        let Some(newer) = self.overlay.get(&addr) else { return Ok(true) };
        let below = Disk::new(self.device, self.bs);
        Ok(below.read(addr)? == *newer)
    }

    /// One block.
    pub(crate) fn read(&self, addr: u64) -> Result<Box<[u8]>, CheckError> {
        if let Some(bytes) = self.overlay.get(&addr) {
            return Ok(bytes.clone());
        }
        self.read_run(addr, 1, |bytes| bytes.into())
    }

    /// `count` blocks from `first` on, in one piece. The caller has bounded `count`.
    pub(crate) fn read_run<R>(&self, first: u64, count: u64, then: impl FnOnce(&[u8]) -> R) -> Result<R, CheckError> {
        if first.checked_add(count).is_none_or(|end| end > self.blocks) {
            return Err(CheckError::Damaged { block: first, what: "a block outside the device".into() });
        }
        let (outer_start, len, within) = self.outer(first, count);
        let mut buf = self.take_scratch(len);
        self.device.read(outer_start, &mut buf[..len]).map_err(|error| CheckError::Io { block: first, error })?;
        self.bytes_read.set(self.bytes_read.get().saturating_add(len as u64));
        let bytes = &mut buf[within..within + ((count << self.bs.shift()) as usize)];
        self.put_overlay(first, bytes);
        let result = then(bytes);
        self.scratch.borrow_mut().push(buf);
        Ok(result)
    }

    /// Calls `f` for each item's block; neighbours are read together. Sorts the items by address.
    pub(crate) fn visit<T: Copy>(
        &self,
        items: &mut [(u64, T)],
        mut f: impl FnMut(u64, T, &[u8]) -> Result<(), CheckError>,
    ) -> Result<(), CheckError> {
        items.sort_by_key(|&(addr, _)| addr);
        let mut rest = &items[..];
        while !rest.is_empty() {
            let mut runs = Vec::new();
            let mut bytes = 0;
            while let Some(n) = self.run(rest) {
                let (run, later) = rest.split_at(n);
                let (first, count) = (run[0].0, run[n - 1].0 - run[0].0 + 1);
                bytes += count.saturating_mul(self.bs.bytes() as u64);
                if !runs.is_empty() && (bytes > BATCH_MAX as u64 || runs.len() == BATCH_RUNS) {
                    break;
                }
                runs.push((first, count, run));
                rest = later;
            }
            self.visit_batch(&runs, &mut f)?;
        }
        Ok(())
    }

    /// How many of the first items, which are sorted, are read together; `None` when there are none.
    fn run<T>(&self, items: &[(u64, T)]) -> Option<usize> {
        let first = items.first()?.0;
        let bs = self.bs.bytes() as u64;
        let apart = |pair: &[(u64, T)]| {
            let (gap, total) = (pair[1].0 - pair[0].0, pair[1].0 - first);
            gap.saturating_sub(1).saturating_mul(bs) > GAP_MAX as u64
                || total.saturating_add(1).saturating_mul(bs) > READ_MAX as u64
        };
        Some(items.windows(2).position(apart).map_or(items.len(), |at| at + 1))
    }

    /// Reads all runs (first block, blocks, items) at once and visits their items in order.
    fn visit_batch<T: Copy>(
        &self,
        runs: &[(u64, u64, &[(u64, T)])],
        f: &mut impl FnMut(u64, T, &[u8]) -> Result<(), CheckError>,
    ) -> Result<(), CheckError> {
        let mut visit = |first: u64, run: &[(u64, T)], bytes: &[u8]| {
            run.iter().try_for_each(|&(addr, item)| {
                let at = (addr - first) as usize * self.bs.bytes();
                f(addr, item, &bytes[at..at + self.bs.bytes()])
            })
        };
        let inside =
            |&(first, count, _): &(u64, u64, _)| first.checked_add(count).is_some_and(|end| end <= self.blocks);
        let mut places = Vec::with_capacity(runs.len());
        if runs.len() > 1 && runs.iter().all(inside) {
            places.extend(runs.iter().map(|&(first, count, _)| self.outer(first, count)));
        }
        let total = places.iter().map(|&(_, len, _)| len).sum();
        let mut buf = if places.is_empty() { AlignedBuf::zeroed(0) } else { self.take_scratch(total) };
        let mut free = &mut buf[..];
        let mut ranges: Vec<(u64, &mut [u8])> = Vec::with_capacity(places.len());
        for &(start, len, _) in &places {
            let (piece, rest) = std::mem::take(&mut free).split_at_mut(len);
            ranges.push((start, piece));
            free = rest;
        }
        if ranges.is_empty() || self.device.read_many(&mut ranges).is_err() {
            // One by one, so that an error says where, and what lies before it is seen.
            return runs
                .iter()
                .try_for_each(|&(first, count, run)| self.read_run(first, count, |bytes| visit(first, run, bytes))?);
        }
        self.bytes_read.set(self.bytes_read.get().saturating_add(total as u64));
        let mut at = 0;
        for (&(first, count, run), &(_, len, within)) in runs.iter().zip(&places) {
            let bytes = &mut buf[at + within..at + within + (count << self.bs.shift()) as usize];
            self.put_overlay(first, bytes);
            visit(first, run, bytes)?;
            at += len;
        }
        self.scratch.borrow_mut().push(buf);
        Ok(())
    }

    /// The sectors around blocks inside the device: (offset, length, where the blocks begin in them).
    fn outer(&self, first: u64, count: u64) -> (u64, usize, usize) {
        let shift = self.bs.shift();
        // Both fit: the last block lies inside the device.
        let (start, end) = (first << shift, (first + count) << shift);
        let align = self.device.alignment().max(1) as u64;
        let outer_start = start - start % align;
        let outer_end = end.next_multiple_of(align).min(self.device.size());
        (outer_start, (outer_end - outer_start) as usize, (start - outer_start) as usize)
    }

    fn put_overlay(&self, first: u64, bytes: &mut [u8]) {
        if self.overlay.is_empty() {
            return;
        }
        for (block, piece) in (first..).zip(bytes.chunks_exact_mut(self.bs.bytes())) {
            if let Some(newer) = self.overlay.get(&block) {
                piece.copy_from_slice(newer);
            }
        }
    }

    fn take_scratch(&self, len: usize) -> AlignedBuf {
        let buf = self.scratch.borrow_mut().pop();
        match buf {
            Some(buf) if buf.len() >= len => buf,
            // Most reads fit; a resource group with an enormous bitmap gets a buffer of its own.
            _ => AlignedBuf::zeroed(len.max(READ_MAX + 2 * AlignedBuf::ALIGN)),
        }
    }
}
