//! Ordinary file data: a write buffer in front of the device.

use super::bell::{Bell, join};
use super::pieces::{Pieces, Slice, Which};
use super::writeback::WriteSet;
use super::{AddrMap, Barrier, Health, Ticket};
use crate::device::{AlignedBuf, BlockDevice};
use crate::error::{CorruptKind, Error, Result};
use crate::ids::{BatchId, BlockAddr, BlockSize, LockName};
use crate::sync::{Condvar, Mutex, about_to_wait, thread};
use std::sync::{Arc, OnceLock, Weak};

/// Bytes that may be dirty before writers wait.
const DIRTY_LIMIT: usize = 64 << 20;
/// Bytes of small clean pieces that are kept.
const CLEAN_BUDGET: usize = 16 << 20;
/// A written piece of this many bytes or more is dropped.
const KEEP_BELOW: usize = 64 << 10;
/// Bytes handed to the device in one go.
const WRITE_SET: usize = 16 << 20;

/// Ordinary (not journaled) file data: written here, on the device later; read through here so that what is not yet written
/// is seen. Keeps recently written small pieces clean, so that repeated small appends need no read.
pub struct DataCache {
    shared: Arc<Shared>,
    writer: Mutex<Option<thread::JoinHandle<()>>>,
}

struct Shared {
    dev: Arc<dyn BlockDevice>,
    bs: BlockSize,
    health: Arc<Health>,
    overlay: Arc<OnceLock<AddrMap<Arc<[u8]>>>>,
    barrier: Arc<Barrier>,
    pieces: Mutex<Pieces>,
    /// Taken when the device last finished a write of ours; what it holds back until a later flush.
    last_write: Mutex<Option<Ticket>>,
    /// A write to the device ended, or pieces went away.
    changed: Condvar,
    bell: Arc<Bell>,
    limit: usize,
}

impl DataCache {
    pub(super) fn new(
        dev: Arc<dyn BlockDevice>,
        bs: BlockSize,
        health: Arc<Health>,
        barrier: Arc<Barrier>,
        overlay: Arc<OnceLock<AddrMap<Arc<[u8]>>>>,
    ) -> Self {
        Self::with_limit(dev, bs, health, barrier, overlay, DIRTY_LIMIT)
    }
    pub(super) fn with_limit(
        dev: Arc<dyn BlockDevice>,
        bs: BlockSize,
        health: Arc<Health>,
        barrier: Arc<Barrier>,
        overlay: Arc<OnceLock<AddrMap<Arc<[u8]>>>>,
        limit: usize,
    ) -> Self {
        let shared = Shared {
            dev,
            bs,
            health,
            overlay,
            barrier,
            last_write: Mutex::new(None),
            pieces: Mutex::new(Pieces::new(bs)),
            changed: Condvar::new(),
            bell: Arc::default(),
            limit,
        };
        Self { shared: Arc::new(shared), writer: Mutex::new(None) }
    }
    /// Reads `buf.len()` bytes (a multiple of the block size) of the contiguous blocks from `addr`.
    pub fn read(&self, addr: BlockAddr, buf: &mut [u8]) -> Result<()> {
        self.shared.read(addr, buf)
    }
    /// Buffers whole blocks from `addr` on: `bytes.len()` is a multiple of the block size. They will be on the device before
    /// batch `ordered` commits (newly allocated blocks), or with the next fsync of `owner`, write-back or shutdown.
    /// Waits (after `about_to_wait`) while too much is dirty.
    pub fn write(
        &self,
        owner: LockName,
        addr: BlockAddr,
        bytes: Arc<AlignedBuf>,
        ordered: Option<BatchId>,
    ) -> Result<()> {
        let s = &*self.shared;
        let blocks = s.blocks(addr, bytes.len())?;
        s.make_room()?;
        let mut pieces = s.pieces.lock();
        pieces.write(addr.get(), blocks, Slice { buf: bytes, at: 0 }, owner, ordered);
        let dirty = pieces.dirty_bytes();
        drop(pieces);
        self.wake_writer(dirty);
        Ok(())
    }
    /// Changes part of one block: reads it if need be unless `fresh` (then the rest of the block is zero).
    pub fn write_part(
        &self,
        owner: LockName,
        addr: BlockAddr,
        offset: usize,
        bytes: &[u8],
        fresh: bool,
        ordered: Option<BatchId>,
    ) -> Result<()> {
        let s = &*self.shared;
        let block = addr.get();
        let size = s.bs.bytes();
        s.blocks(addr, size)?;
        if offset.checked_add(bytes.len()).is_none_or(|end| end > size) {
            return Err(Error::Invalid);
        }
        s.make_room()?;
        let mut from_disk = None;
        let mut pieces = s.pieces.lock();
        if !fresh && pieces.patch(block, offset, bytes, owner, ordered) {
            return Ok(());
        }
        let mut whole = loop {
            if fresh {
                break AlignedBuf::zeroed(size);
            }
            if let Some((start, piece)) = pieces.covering(block) {
                let at = piece.data.at + (block - start) as usize * size;
                break AlignedBuf::copy_of(&piece.data.buf[at..at + size]);
            }
            if let Some(whole) = from_disk.take() {
                break whole;
            }
            drop(pieces);
            let mut whole = AlignedBuf::zeroed(size);
            s.read(addr, &mut whole)?;
            from_disk = Some(whole);
            pieces = s.pieces.lock();
        };
        whole[offset..offset + bytes.len()].copy_from_slice(bytes);
        pieces.write(block, 1, Slice { buf: Arc::new(whole), at: 0 }, owner, ordered);
        let dirty = pieces.dirty_bytes();
        drop(pieces);
        self.wake_writer(dirty);
        Ok(())
    }
    /// Drops what is buffered for these blocks: they were freed. Waits for writes of them that are in flight.
    pub fn discard(&self, addr: BlockAddr, blocks: u64) {
        let s = &*self.shared;
        let (start, end) = (addr.get(), addr.get().saturating_add(blocks));
        let mut pieces = s.pieces.lock();
        pieces.cut(start, end);
        while pieces.is_inflight(start, end) {
            s.changed.wait(&mut pieces);
        }
        drop(pieces);
        s.changed.notify_all();
    }
    /// Writes this lock's dirty data and waits (not durable before a device flush).
    pub fn write_owner(&self, owner: LockName) -> Result<()> {
        let upto = self.shared.pieces.lock().stamp();
        self.shared.write_which(Which::Owner(owner, upto))
    }
    /// Writes all data ordered before batch `upto` (inclusive) and waits.
    pub fn write_ordered(&self, upto: BatchId) -> Result<()> {
        self.shared.write_which(Which::Ordered(upto))
    }
    /// Writes everything and waits.
    pub fn write_all(&self) -> Result<()> {
        let upto = self.shared.pieces.lock().stamp();
        self.shared.write_which(Which::All(upto))
    }
    /// Bytes that are not on the device yet.
    pub fn dirty_bytes(&self) -> usize {
        self.shared.pieces.lock().dirty_bytes()
    }
    /// True when this lock has data that is not on the device yet.
    pub fn has_dirty(&self, owner: LockName) -> bool {
        self.shared.pieces.lock().pending(Which::Owner(owner, u64::MAX))
    }

    /// Drops the clean pieces of a lock that was given up.
    pub(super) fn drop_clean(&self, owner: LockName) {
        self.shared.pieces.lock().drop_clean(owner);
    }
    /// [`discard`](Self::discard) for blocks that batch `batch` frees. Data that is ordered before an older batch is written
    /// all the same: that batch may be committing at this moment, and a crash before the free commits would show what the
    /// block held in an earlier life.
    pub(crate) fn discard_freed(&self, addr: BlockAddr, blocks: u64, batch: BatchId) {
        let (start, end) = (addr.get(), addr.get().saturating_add(blocks));
        let older = BatchId(batch.0.saturating_sub(1));
        let owed = self.shared.pieces.lock().is_ordered(start, end, older);
        if owed && let Err(e) = self.write_ordered(older) {
            // The mount has withdrawn: nothing will commit any more.
            tracing::debug!("freed blocks from {addr} on: {e}");
        }
        self.discard(addr, blocks);
    }
    /// Makes this lock's unwritten data ordered before `batch`, so that it is written together with its log. False when
    /// there is none.
    pub(crate) fn order_owner(&self, owner: LockName, batch: BatchId) -> bool {
        self.shared.pieces.lock().order_owner(owner, batch)
    }
    /// True while some data that was written to the device has not been followed by a flush.
    pub(crate) fn needs_barrier(&self) -> bool {
        self.shared.last_write.lock().is_some_and(|ticket| !self.shared.barrier.is_past(ticket))
    }
    /// Takes ordered data that the caller writes together with other things; [`finish`](Self::finish) must follow.
    pub(crate) fn take_ordered(&self, upto: BatchId) -> Option<WriteSet> {
        self.shared.take(Which::Ordered(upto))
    }
    /// The device has done (or failed to do) what [`take_ordered`](Self::take_ordered) gave.
    pub(crate) fn finish(&self, set: WriteSet) {
        self.shared.finish(set);
    }

    /// Starts or wakes the background writer when half of what may be dirty is.
    fn wake_writer(&self, dirty: usize) {
        if dirty <= self.shared.limit / 2 {
            return;
        }
        let mut writer = self.writer.lock();
        if writer.is_none() {
            let (bell, shared) = (self.shared.bell.clone(), Arc::downgrade(&self.shared));
            let thread = thread::Builder::new().name("gfs2r-data".into()).spawn(move || background(&bell, &shared));
            match thread {
                Ok(handle) => *writer = Some(handle),
                // Without it the writers themselves write when the limit is reached.
                Err(e) => tracing::warn!("no background writer: {e}"),
            }
        }
        drop(writer);
        self.shared.bell.ring();
    }
}

impl Drop for DataCache {
    fn drop(&mut self) {
        self.shared.bell.stop();
        if let Some(handle) = self.writer.lock().take() {
            join(handle);
        }
    }
}

/// Writes until a quarter of the limit is dirty, whenever the bell rings.
fn background(bell: &Bell, shared: &Weak<Shared>) {
    loop {
        bell.wait(None);
        if bell.stopped() {
            return;
        }
        let Some(s) = shared.upgrade() else { return };
        while !bell.stopped() {
            let (dirty, stamp) = {
                let pieces = s.pieces.lock();
                (pieces.dirty_bytes(), pieces.stamp())
            };
            if dirty <= s.limit / 4 {
                break;
            }
            match s.write_some(Which::All(stamp)) {
                Ok(true) => {}
                // All of it is in other hands, or the mount has withdrawn (which was logged).
                Ok(false) | Err(_) => break,
            }
        }
    }
}

impl Shared {
    /// Checks a range and gives its length in blocks.
    fn blocks(&self, addr: BlockAddr, bytes: usize) -> Result<u64> {
        if bytes == 0 || !bytes.is_multiple_of(self.bs.bytes()) {
            return Err(Error::Invalid);
        }
        let end = self.bs.offset(addr).checked_add(bytes as u64);
        if end.is_none_or(|end| end > self.dev.size()) {
            return Err(Error::corrupt(addr, CorruptKind::OffDevice));
        }
        Ok((bytes / self.bs.bytes()) as u64)
    }
    fn read(&self, addr: BlockAddr, buf: &mut [u8]) -> Result<()> {
        if buf.is_empty() {
            return Ok(());
        }
        let size = self.bs.bytes();
        let (start, end) = (addr.get(), addr.get() + self.blocks(addr, buf.len())?);
        // Taken before the device is read: a piece may become clean and go meanwhile, never the other way round.
        let found = self.pieces.lock().overlaps(start, end);
        if let Some((a, b)) = gap(start, end, &found) {
            about_to_wait()?;
            let (from, to) = ((a - start) as usize * size, (b - start) as usize * size);
            self.dev.read(a << self.bs.shift(), &mut buf[from..to])?;
            self.apply_overlay(a, &mut buf[from..to]);
        }
        for (block, blocks, slice) in found {
            let (at, len) = ((block - start) as usize * size, blocks as usize * size);
            buf[at..at + len].copy_from_slice(&slice.buf[slice.at..slice.at + len]);
        }
        Ok(())
    }
    fn apply_overlay(&self, start: u64, buf: &mut [u8]) {
        let Some(overlay) = self.overlay.get() else { return };
        for (block, bytes) in (start..).zip(buf.chunks_exact_mut(self.bs.bytes())) {
            if let Some(over) = BlockAddr::new(block).and_then(|a| overlay.get(&a)) {
                bytes.copy_from_slice(over);
            }
        }
    }
    /// Waits until the writer may add to what is dirty; helps writing.
    fn make_room(&self) -> Result<()> {
        loop {
            self.health.check()?;
            let mut pieces = self.pieces.lock();
            if pieces.dirty_bytes() <= self.limit {
                return Ok(());
            }
            about_to_wait()?;
            let stamp = pieces.stamp();
            let (id, taken) = pieces.collect(Which::All(stamp), WRITE_SET / 4);
            if taken.is_empty() {
                self.changed.wait(&mut pieces);
                continue;
            }
            drop(pieces);
            self.submit(WriteSet::new(self.bs, id, &taken))?;
        }
    }
    fn write_which(&self, which: Which) -> Result<()> {
        loop {
            let mut pieces = self.pieces.lock();
            if !pieces.pending(which) {
                // What failed to be written is not pending either.
                return self.health.check();
            }
            about_to_wait()?;
            let (id, taken) = pieces.collect(which, WRITE_SET);
            if taken.is_empty() {
                // In other hands, or to be written after an older write of the same blocks has ended.
                self.changed.wait(&mut pieces);
            } else {
                drop(pieces);
                self.submit(WriteSet::new(self.bs, id, &taken))?;
            }
        }
    }
    /// Writes a set; false when there was nothing to take.
    fn write_some(&self, which: Which) -> Result<bool> {
        match self.take(which) {
            None => Ok(false),
            Some(set) => self.submit(set).map(|()| true),
        }
    }
    fn take(&self, which: Which) -> Option<WriteSet> {
        let (id, taken) = self.pieces.lock().collect(which, WRITE_SET);
        (!taken.is_empty()).then(|| WriteSet::new(self.bs, id, &taken))
    }
    fn submit(&self, set: WriteSet) -> Result<()> {
        let done = self.health.check().and_then(|()| self.health.watch(self.dev.write_many(&set.ranges())));
        self.finish(set);
        done
    }
    /// After a failure too: the mount has withdrawn then, and nobody must wait for what will not come.
    fn finish(&self, set: WriteSet) {
        // Before the pieces become clean: whoever finds nothing to write must find that a flush is owed.
        *self.last_write.lock() = Some(self.barrier.ticket());
        self.pieces.lock().finish(set.id, &set.pieces, KEEP_BELOW, CLEAN_BUDGET);
        self.changed.notify_all();
    }
}

/// The smallest range that holds every block of [start, end) that `found` lacks.
fn gap(start: u64, end: u64, found: &[(u64, u64, Slice)]) -> Option<(u64, u64)> {
    let (mut a, mut b) = (start, end);
    for (block, blocks, _) in found {
        if *block != a {
            break;
        }
        a += blocks;
    }
    for (block, blocks, _) in found.iter().rev() {
        if block + blocks != b || *block < a {
            break;
        }
        b = *block;
    }
    (a < b).then_some((a, b))
}
