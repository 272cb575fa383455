//! The crash simulator: a disk with a volatile write cache that can lose power at any numbered operation.
//!
//! Every write and flush has an index, from 0. Tests run a workload once to count the operations, then again and again with
//! [`set_crash_point`](SimDevice::set_crash_point) at each of them; whatever was in the cache then, and the operation in
//! flight itself, is kept, lost or torn as [`crash`](SimDevice::crash) is told. What a flush or a durable write had
//! confirmed is always there.
//!
//! ```text
//! index    0      1      2      3        4      5            crash point 5: op 5 is in flight and fails,
//!          write  write  flush  write    write  write        ops 0 and 1 are on the disk,
//!          ─── durable ───▶│    └── in the cache ──┘         each of 3, 4, 5 may be, by seed
//! ```

use super::{BlockDevice, MemoryDevice, check_read, check_write};
use crate::sync::Mutex;
use std::io;

/// The smallest unit that a disk writes whole.
const SECTOR: usize = 512;

/// What becomes of the writes that were in the cache, or in flight, when the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashMode {
    /// All are lost.
    AllLost,
    /// All have reached the disk.
    AllKept,
    /// Each is kept or lost as a whole, by seed, in any order.
    Random,
    /// Each sector of each is kept or lost, by seed, in any order.
    Torn,
    /// The first so many have reached the disk, in order; the others are lost.
    Prefix(usize),
}

/// Operations since the device was made or [`SimDevice::reset_counters`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reads.
    pub reads: u64,
    /// Writes, durable ones included; each range of a batch counts.
    pub writes: u64,
    /// Durable writes.
    pub durable_writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Discards.
    pub discards: u64,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes written.
    pub bytes_written: u64,
}

type Fault = Box<dyn Fn(u64, u64) -> bool + Send>;

/// A disk that can crash.
pub struct SimDevice {
    size: u64,
    state: Mutex<State>,
}

struct State {
    /// What readers see.
    current: MemoryDevice,
    /// What no crash can take away.
    durable: MemoryDevice,
    /// Done or in flight but not durable, in order.
    pending: Vec<Pending>,
    next_op: u64,
    next_read: u64,
    crash_point: Option<u64>,
    crashed: bool,
    counters: Counters,
    fail_read: Option<Fault>,
    fail_write: Option<Fault>,
}

/// A change that is not durable.
#[derive(Clone)]
struct Pending {
    what: Change,
    /// It failed, or a flush has failed since: no later flush makes it durable.
    doubtful: bool,
}

#[derive(Clone)]
enum Change {
    Write { offset: u64, data: Vec<u8> },
    Discard { offset: u64, len: u64 },
}

impl SimDevice {
    /// A disk that holds what `disk` holds, all of it durable.
    pub fn new(disk: MemoryDevice) -> Self {
        let state = State {
            current: disk.snapshot(),
            durable: disk,
            pending: Vec::new(),
            next_op: 0,
            next_read: 0,
            crash_point: None,
            crashed: false,
            counters: Counters::default(),
            fail_read: None,
            fail_write: None,
        };
        Self { size: state.durable.size(), state: Mutex::new(state) }
    }
    /// Number of write and flush operations so far: the index of the next one.
    pub fn ops(&self) -> u64 {
        self.state.lock().next_op
    }
    /// Number of reads so far, failed ones included: the index of the next one.
    pub fn reads(&self) -> u64 {
        self.state.lock().next_read
    }
    /// The power goes while operation `index` (a write, discard or flush) is in flight: it fails, as does all I/O after it.
    pub fn set_crash_point(&self, index: u64) {
        self.state.lock().crash_point = Some(index);
    }
    /// The power goes now.
    pub fn crash_now(&self) {
        self.state.lock().crashed = true;
    }
    /// True once the power has gone.
    pub fn crashed(&self) -> bool {
        self.state.lock().crashed
    }
    /// Number of writes and discards that are not durable: the `n` of [`CrashMode::Prefix`] up to which it makes sense.
    pub fn pending(&self) -> usize {
        self.state.lock().pending.len()
    }
    /// The disk as it would be found after a crash at this instant, one of the many possible. The device itself goes on, so
    /// many images can be taken of one instant.
    pub fn crash(&self, seed: u64, mode: CrashMode) -> MemoryDevice {
        let state = self.state.lock();
        let disk = state.durable.snapshot();
        let mut rng = Rng(seed);
        let mut order: Vec<&Change> = state.pending.iter().map(|op| &op.what).collect();
        if matches!(mode, CrashMode::Random | CrashMode::Torn) {
            rng.shuffle(&mut order);
        }
        for (i, op) in order.into_iter().enumerate() {
            let kept = match mode {
                CrashMode::AllLost => false,
                CrashMode::AllKept => true,
                CrashMode::Random => rng.coin(),
                CrashMode::Prefix(n) => i < n,
                CrashMode::Torn => {
                    apply_torn(&disk, op, &mut rng);
                    continue;
                }
            };
            if kept {
                apply(&disk, op);
            }
        }
        disk
    }
    /// The disk as readers see it now.
    pub fn contents(&self) -> MemoryDevice {
        self.state.lock().current.snapshot()
    }
    /// Reads for which `fault(index of the read, offset)` holds fail from now on; `None` ends it.
    pub fn fail_reads(&self, fault: Option<Box<dyn Fn(u64, u64) -> bool + Send>>) {
        self.state.lock().fail_read = fault;
    }
    /// Writes, discards and flushes for which `fault(index of the operation, offset)` holds fail from now on; the offset of a
    /// flush is `u64::MAX`. `None` ends it.
    ///
    /// A failed write is not seen by readers, but a crash may find it, or parts of it, on the disk. After a failed flush
    /// all that was in the cache is in doubt: a later flush that succeeds says nothing about it.
    pub fn fail_writes(&self, fault: Option<Box<dyn Fn(u64, u64) -> bool + Send>>) {
        self.state.lock().fail_write = fault;
    }
    /// What was done so far.
    pub fn counters(&self) -> Counters {
        self.state.lock().counters
    }
    /// Counts from zero again. Indexes of operations go on.
    pub fn reset_counters(&self) {
        self.state.lock().counters = Counters::default();
    }
}

impl State {
    /// Gives the next operation its index; an error when it must fail. `in_flight` is what a crash finds under way.
    fn begin_op(&mut self, offset: u64, in_flight: Option<Change>) -> io::Result<()> {
        if self.crashed {
            return Err(power_gone());
        }
        let index = self.next_op;
        self.next_op += 1;
        if self.crash_point.is_some_and(|point| index >= point) {
            self.crashed = true;
            self.pending.extend(in_flight.map(Pending::in_doubt));
            return Err(power_gone());
        }
        if self.fail_write.as_ref().is_some_and(|fault| fault(index, offset)) {
            match in_flight {
                Some(change) => self.pending.push(Pending::in_doubt(change)),
                None => self.pending.iter_mut().for_each(|op| op.doubtful = true),
            }
            return Err(io::Error::other("injected write error"));
        }
        Ok(())
    }
    fn write(&mut self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let change = Change::Write { offset, data: buf.to_vec() };
        self.begin_op(offset, Some(change.clone()))?;
        self.counters.writes += 1;
        self.counters.bytes_written += buf.len() as u64;
        self.current.write(offset, buf)?;
        self.pending.push(Pending { what: change, doubtful: false });
        Ok(())
    }
    /// What is not in doubt becomes durable.
    fn confirm(&mut self) {
        if self.pending.iter().all(|op| !op.doubtful) {
            self.durable = self.current.snapshot();
            self.pending.clear();
            return;
        }
        for op in std::mem::take(&mut self.pending) {
            if op.doubtful {
                self.pending.push(op);
            } else {
                let (start, stop) = op.what.range();
                self.supersede(start, stop - start);
                apply(&self.durable, &op.what);
            }
        }
    }
    /// Cuts a range that has just become durable out of older writes: they can no longer overwrite it.
    fn supersede(&mut self, offset: u64, len: u64) {
        let end = offset + len;
        let old = std::mem::take(&mut self.pending);
        for op in old {
            let (start, stop) = op.what.range();
            if stop <= offset || end <= start {
                self.pending.push(op);
                continue;
            }
            let rest = [op.what.part(start, offset), op.what.part(end, stop)].into_iter().flatten();
            self.pending.extend(rest.map(|what| Pending { what, doubtful: op.doubtful }));
        }
    }
}

impl Pending {
    fn in_doubt(what: Change) -> Self {
        Self { what, doubtful: true }
    }
}

impl Change {
    fn range(&self) -> (u64, u64) {
        match self {
            Self::Write { offset, data } => (*offset, *offset + data.len() as u64),
            Self::Discard { offset, len } => (*offset, *offset + *len),
        }
    }
    /// The part of it from `from` to `to`, clipped to its own range; `None` when that is empty.
    fn part(&self, from: u64, to: u64) -> Option<Self> {
        let (start, stop) = self.range();
        let (from, to) = (from.max(start), to.min(stop));
        if from >= to {
            return None;
        }
        Some(match self {
            Self::Write { data, .. } => {
                Self::Write { offset: from, data: data[(from - start) as usize..(to - start) as usize].to_vec() }
            }
            Self::Discard { .. } => Self::Discard { offset: from, len: to - from },
        })
    }
}

fn apply(disk: &MemoryDevice, op: &Change) {
    match op {
        Change::Write { offset, data } => disk.write(*offset, data).expect("was checked when it was issued"),
        // Anything may be read there now.
        Change::Discard { offset, len } => disk.scribble(*offset, *len, 0xa5),
    }
}

fn apply_torn(disk: &MemoryDevice, op: &Change, rng: &mut Rng) {
    let (start, stop) = op.range();
    match op {
        Change::Write { .. } => (start..stop)
            .step_by(SECTOR)
            .filter_map(|at| rng.coin().then(|| op.part(at, at + SECTOR as u64)).flatten())
            .for_each(|sector| apply(disk, &sector)),
        Change::Discard { .. } if rng.coin() => apply(disk, op),
        Change::Discard { .. } => {}
    }
}

fn power_gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "simulated crash")
}

impl BlockDevice for SimDevice {
    fn size(&self) -> u64 {
        self.size
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        check_read(self.size, offset, buf.len())?;
        let mut state = self.state.lock();
        if state.crashed {
            return Err(power_gone());
        }
        let index = state.next_read;
        state.next_read += 1;
        if state.fail_read.as_ref().is_some_and(|fault| fault(index, offset)) {
            return Err(io::Error::other("injected read error"));
        }
        state.counters.reads += 1;
        state.counters.bytes_read += buf.len() as u64;
        state.current.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        check_write(self.size, self.alignment(), offset, buf.len() as u64)?;
        self.state.lock().write(offset, buf)
    }
    fn write_durable(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        check_write(self.size, self.alignment(), offset, buf.len() as u64)?;
        let mut state = self.state.lock();
        state.write(offset, buf)?;
        // It joins the durable part; whatever was cached for the same sectors is older and gone.
        state.supersede(offset, buf.len() as u64);
        state.durable.write(offset, buf)?;
        state.counters.durable_writes += 1;
        Ok(())
    }
    fn write_many(&self, ranges: &[(u64, &[u8])]) -> io::Result<()> {
        for (offset, buf) in ranges {
            check_write(self.size, self.alignment(), *offset, buf.len() as u64)?;
        }
        let mut state = self.state.lock();
        if state.crashed {
            return Err(power_gone());
        }
        let mut result = Ok(());
        for (offset, buf) in ranges {
            if state.crashed {
                // In flight together with the one that met the crash.
                let change = Change::Write { offset: *offset, data: buf.to_vec() };
                state.pending.push(Pending::in_doubt(change));
                continue;
            }
            let done = state.write(*offset, buf);
            result = result.and(done);
        }
        result
    }
    fn flush(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin_op(u64::MAX, None)?;
        state.counters.flushes += 1;
        state.confirm();
        Ok(())
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        check_write(self.size, self.alignment(), offset, len)?;
        let mut state = self.state.lock();
        let change = Change::Discard { offset, len };
        state.begin_op(offset, Some(change.clone()))?;
        state.counters.discards += 1;
        apply(&state.current, &change);
        state.pending.push(Pending { what: change, doubtful: false });
        Ok(())
    }
}

/// splitmix64: small, and every seed is good.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = (self.next() % (i as u64 + 1)) as usize;
            items.swap(i, j);
        }
    }
}

#[cfg(test)]
mod tests;
