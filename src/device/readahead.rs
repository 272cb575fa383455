//! Reads more than was asked where that is likely to be wanted soon.
//!
//! The inodes of a directory, or the leaves of one, lie beside each other and are asked for one by one; reading 128 KiB takes a
//! disk hardly longer than reading a block. So the second small read within a *segment* fetches all of it, and later ones are
//! answered from memory. Only for a disk that nobody else writes: what is kept here, no lock protects.

use super::{AlignedBuf, BlockDevice};
use crate::sync::Mutex;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// Bytes fetched at once.
const SEGMENT: u64 = 128 << 10;
/// Segments kept: 8 MiB.
const KEPT: usize = 64;
/// How many segments with one small read so far are remembered.
const REMEMBERED: usize = 64;
/// Longest read that is small.
const SMALL: usize = 16 << 10;

/// A device with readahead.
pub struct ReadAhead<D> {
    inner: D,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Segments by number, the longest unused first.
    kept: VecDeque<(u64, Arc<AlignedBuf>)>,
    /// Numbers of segments that were read from once, oldest first.
    once: VecDeque<u64>,
    /// Segments being fetched, and whether something was written to them meanwhile.
    fetching: Vec<(u64, bool)>,
}

impl State {
    fn get(&mut self, number: u64) -> Option<Arc<AlignedBuf>> {
        let at = self.kept.iter().rposition(|(n, _)| *n == number)?;
        let found = self.kept.remove(at)?;
        let bytes = Arc::clone(&found.1);
        self.kept.push_back(found);
        Some(bytes)
    }

    /// Notes a small read. True when it is not the first in this segment, and nobody fetches it yet.
    fn is_again(&mut self, number: u64) -> bool {
        if self.fetching.iter().any(|(n, _)| *n == number) {
            return false;
        }
        if let Some(at) = self.once.iter().rposition(|n| *n == number) {
            self.once.remove(at);
            return true;
        }
        if self.once.len() == REMEMBERED {
            self.once.pop_front();
        }
        self.once.push_back(number);
        false
    }

    /// Ends a fetch; keeps what came unless something was written there meanwhile.
    fn fetched(&mut self, number: u64, bytes: Option<Arc<AlignedBuf>>) {
        let Some(at) = self.fetching.iter().position(|(n, _)| *n == number) else { return };
        let (_, spoilt) = self.fetching.swap_remove(at);
        if let (Some(bytes), false) = (bytes, spoilt) {
            if self.kept.len() == KEPT {
                self.kept.pop_front();
            }
            self.kept.push_back((number, bytes));
        }
    }

    fn written(&mut self, offset: u64, len: u64) {
        let touched = offset / SEGMENT..=offset.saturating_add(len.saturating_sub(1)) / SEGMENT;
        self.kept.retain(|(n, _)| !touched.contains(n));
        for (n, spoilt) in &mut self.fetching {
            *spoilt |= touched.contains(n);
        }
    }
}

impl<D: BlockDevice> ReadAhead<D> {
    /// In front of `inner`.
    pub fn new(inner: D) -> Self {
        Self { inner, state: Mutex::default() }
    }

    /// Runs a write: what is kept of its ranges is forgotten before and after, so that nothing read meanwhile stays.
    fn writing<T>(&self, ranges: &[(u64, u64)], write: impl FnOnce(&D) -> T) -> T {
        let forget = || {
            let mut state = self.state.lock();
            ranges.iter().for_each(|(offset, len)| state.written(*offset, *len));
        };
        forget();
        let result = write(&self.inner);
        forget();
        result
    }

    fn fetch(&self, number: u64) -> io::Result<Arc<AlignedBuf>> {
        let start = number * SEGMENT;
        let len = SEGMENT.min(self.inner.size().saturating_sub(start));
        let mut bytes = AlignedBuf::zeroed(len as usize);
        let read = self.inner.read(start, &mut bytes);
        let bytes = Arc::new(bytes);
        self.state.lock().fetched(number, read.is_ok().then(|| Arc::clone(&bytes)));
        read.map(|()| bytes)
    }
}

impl<D: BlockDevice> BlockDevice for ReadAhead<D> {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn refresh_size(&self) -> io::Result<u64> {
        self.inner.refresh_size()
    }

    fn alignment(&self) -> usize {
        self.inner.alignment()
    }

    fn read_only(&self) -> bool {
        self.inner.read_only()
    }

    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let number = offset / SEGMENT;
        let within = (offset % SEGMENT) as usize;
        if buf.len() > SMALL || within + buf.len() > SEGMENT as usize {
            return self.inner.read(offset, buf);
        }
        let mut state = self.state.lock();
        let mut segment = state.get(number);
        if segment.is_none() && state.is_again(number) {
            state.fetching.push((number, false));
            drop(state);
            // A bad sector elsewhere in the segment concerns nobody yet.
            segment = self.fetch(number).ok();
        } else {
            drop(state);
        }
        match segment.as_deref().and_then(|bytes| bytes.get(within..within + buf.len())) {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(())
            }
            None => self.inner.read(offset, buf),
        }
    }

    fn read_many(&self, ranges: &mut [(u64, &mut [u8])]) -> io::Result<()> {
        self.inner.read_many(ranges)
    }

    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.writing(&[(offset, buf.len() as u64)], |d| d.write(offset, buf))
    }

    fn write_durable(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.writing(&[(offset, buf.len() as u64)], |d| d.write_durable(offset, buf))
    }

    fn write_many(&self, ranges: &[(u64, &[u8])]) -> io::Result<()> {
        let lengths: Vec<(u64, u64)> = ranges.iter().map(|(offset, buf)| (*offset, buf.len() as u64)).collect();
        self.writing(&lengths, |d| d.write_many(ranges))
    }

    fn flush(&self) -> io::Result<()> {
        self.inner.flush()
    }

    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.writing(&[(offset, len)], |d| d.discard(offset, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{MemoryDevice, SimDevice};

    fn numbered(blocks: u64) -> MemoryDevice {
        let device = MemoryDevice::new(blocks * 4096);
        for n in 0..blocks {
            device.write(n * 4096, &[n as u8; 4096]).unwrap();
        }
        device
    }

    fn block(device: &dyn BlockDevice, n: u64) -> u8 {
        let mut buf = [0; 4096];
        device.read(n * 4096, &mut buf).unwrap();
        assert!(buf.iter().all(|b| *b == buf[0]));
        buf[0]
    }

    #[test]
    fn the_second_read_fetches_the_rest() {
        let sim = Arc::new(SimDevice::new(numbered(100)));
        let device = ReadAhead::new(Arc::clone(&sim));
        let before = sim.counters().reads;
        for n in 32..64 {
            assert_eq!(block(&device, n), n as u8);
        }
        assert_eq!(sim.counters().reads - before, 2);
        // The last segment is cut off by the end of the device.
        for n in 96..100 {
            assert_eq!(block(&device, n), n as u8);
        }
        assert_eq!(sim.counters().reads - before, 4);
    }

    #[test]
    fn what_is_written_is_read() {
        let device = ReadAhead::new(numbered(64));
        for n in 0..64 {
            assert_eq!(block(&device, n), n as u8);
        }
        device.write(5 * 4096, &[77; 4096]).unwrap();
        device.write_many(&[(40 * 4096, &[78; 4096]), (41 * 4096, &[79; 4096])]).unwrap();
        device.write_durable(63 * 4096, &[80; 4096]).unwrap();
        for _ in 0..3 {
            assert_eq!([5, 6, 40, 41, 63].map(|n| block(&device, n)), [77, 6, 78, 79, 80]);
        }
    }

    #[test]
    fn a_write_during_a_fetch_spoils_it() {
        let mut state = State::default();
        assert!(!state.is_again(3));
        assert!(state.is_again(3));
        state.fetching.push((3, false));
        assert!(!state.is_again(3), "one fetch is enough");
        state.written(4 * SEGMENT - 1, 1);
        state.fetched(3, Some(Arc::new(AlignedBuf::zeroed(4096))));
        assert!(state.get(3).is_none());
        state.fetching.push((3, false));
        state.written(4 * SEGMENT, 1);
        state.fetched(3, Some(Arc::new(AlignedBuf::zeroed(4096))));
        assert!(state.get(3).is_some());
    }

    #[test]
    fn few_are_kept() {
        let mut state = State::default();
        for n in 0..200 {
            assert!(!state.is_again(n));
            state.fetching.push((n, false));
            state.fetched(n, Some(Arc::new(AlignedBuf::zeroed(512))));
        }
        assert_eq!((state.kept.len(), state.once.len()), (KEPT, REMEMBERED));
        assert!(state.get(199).is_some() && state.get(100).is_none());
    }
}
