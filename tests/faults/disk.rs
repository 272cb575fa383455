//! A disk on which one read, write or flush fails, or all from one on.

use gfs2r::device::{BlockDevice, SimDevice};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// What fails, counted from the moment at which the fault is armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing; operations are only counted.
    None,
    /// One read.
    Read(u64),
    /// This read and all after it.
    ReadsFrom(u64),
    /// One write or flush.
    Write(u64),
    /// This write or flush and all after it.
    WritesFrom(u64),
    /// This flush (counted among the writes) and all flushes after it; writes succeed.
    FlushesFrom(u64),
    /// One discard.
    Discard(u64),
    /// This discard and all after it.
    DiscardsFrom(u64),
}

const FLUSH: u64 = u64::MAX;

impl Fault {
    fn of_reads(self, n: u64) -> bool {
        match self {
            Self::Read(k) => n == k,
            Self::ReadsFrom(k) => n >= k,
            _ => false,
        }
    }
    fn of_discards(self, n: u64) -> bool {
        match self {
            Self::Discard(k) => n == k,
            Self::DiscardsFrom(k) => n >= k,
            _ => false,
        }
    }
    fn of_writes(self, n: u64, offset: u64) -> bool {
        match self {
            Self::Write(k) => n == k,
            Self::WritesFrom(k) => n >= k,
            Self::FlushesFrom(k) => n >= k && offset == FLUSH,
            _ => false,
        }
    }
}

/// A crash simulator with a fault, that tells what happened.
pub(crate) struct FaultDisk {
    pub sim: SimDevice,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    fired: AtomicBool,
    reads: AtomicU64,
    /// Of each write or flush since the fault was armed: whether it is a flush.
    writes: Mutex<Vec<bool>>,
    discards: AtomicU64,
    /// The request that the disk is about to get is a discard.
    discarding: AtomicBool,
    /// Requests to write that began after something had failed.
    late: AtomicU64,
}

impl FaultDisk {
    pub(crate) fn new(sim: SimDevice) -> Arc<Self> {
        Arc::new(Self { sim, seen: Arc::default() })
    }

    /// From now on it fails as told.
    pub(crate) fn arm(&self, fault: Fault) {
        self.seen.writes.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.seen.reads.store(0, Ordering::Release);
        let seen = Arc::clone(&self.seen);
        self.sim.fail_reads(Some(Box::new(move |_, _| {
            let hit = fault.of_reads(seen.reads.fetch_add(1, Ordering::AcqRel));
            seen.fired.fetch_or(hit, Ordering::AcqRel);
            hit
        })));
        self.seen.discards.store(0, Ordering::Release);
        let seen = Arc::clone(&self.seen);
        self.sim.fail_writes(Some(Box::new(move |_, offset| {
            let hit = if seen.discarding.load(Ordering::Acquire) {
                fault.of_discards(seen.discards.fetch_add(1, Ordering::AcqRel))
            } else {
                let mut writes = seen.writes.lock().unwrap_or_else(PoisonError::into_inner);
                writes.push(offset == FLUSH);
                fault.of_writes(writes.len() as u64 - 1, offset)
            };
            seen.fired.fetch_or(hit, Ordering::AcqRel);
            hit
        })));
    }
    /// The disk is healthy again.
    pub(crate) fn disarm(&self) {
        self.sim.fail_reads(None);
        self.sim.fail_writes(None);
    }
    /// True once something has failed.
    pub(crate) fn fired(&self) -> bool {
        self.seen.fired.load(Ordering::Acquire)
    }
    /// Reads since the fault was armed.
    pub(crate) fn reads(&self) -> u64 {
        self.seen.reads.load(Ordering::Acquire)
    }
    /// Writes since then; true for a flush.
    pub(crate) fn writes(&self) -> Vec<bool> {
        self.seen.writes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    /// Discards since then.
    pub(crate) fn discards(&self) -> u64 {
        self.seen.discards.load(Ordering::Acquire)
    }
    /// Requests to write that came after a failure.
    pub(crate) fn late(&self) -> u64 {
        self.seen.late.load(Ordering::Acquire)
    }
    fn writing<R>(&self, f: impl FnOnce(&SimDevice) -> R) -> R {
        if self.fired() {
            self.seen.late.fetch_add(1, Ordering::AcqRel);
        }
        f(&self.sim)
    }
}

impl BlockDevice for FaultDisk {
    fn size(&self) -> u64 {
        self.sim.size()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.sim.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.writing(|sim| sim.write(offset, buf))
    }
    fn write_durable(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.writing(|sim| sim.write_durable(offset, buf))
    }
    fn write_many(&self, ranges: &[(u64, &[u8])]) -> io::Result<()> {
        self.writing(|sim| sim.write_many(ranges))
    }
    fn flush(&self) -> io::Result<()> {
        self.writing(SimDevice::flush)
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.seen.discarding.store(true, Ordering::Release);
        let done = self.sim.discard(offset, len);
        self.seen.discarding.store(false, Ordering::Release);
        done
    }
}
