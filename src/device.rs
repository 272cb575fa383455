//! Chapter 2: the disk, as a trait.
//!
//! A [`BlockDevice`] reads and writes byte ranges that are multiples of its [`alignment`](BlockDevice::alignment), from
//! memory that is aligned too ([`AlignedBuf`]). A write is *done* when it returns and *durable* after the next
//! [`flush`](BlockDevice::flush); until then it may be lost, torn or reordered, and the crash simulator in `device/sim.rs`
//! does all three.

mod buffer;
mod file;
mod memory;
mod sim;

pub use buffer::AlignedBuf;
pub use file::FileDevice;
pub use memory::MemoryDevice;
pub use sim::{CrashImage, SimDevice};

use std::io;

/// A disk that several nodes may share.
pub trait BlockDevice: Send + Sync {
    /// Bytes.
    fn size(&self) -> u64;
    /// Offsets, lengths and memory of every request are multiples of this (512 to 4096).
    fn alignment(&self) -> usize {
        512
    }
    /// True when writes are refused.
    fn read_only(&self) -> bool {
        false
    }
    /// Fills `buf` from byte `offset`.
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Writes `buf` at byte `offset`.
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()>;
    /// Writes `buf` so that it is durable when this returns (FUA); earlier writes need not be.
    fn write_durable(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.write(offset, buf)?;
        self.flush()
    }
    /// Writes many ranges, several in flight, in no particular order; returns when all are done, with the first error.
    fn write_many(&self, ranges: &[(u64, &[u8])]) -> io::Result<()> {
        ranges.iter().try_for_each(|(offset, buf)| self.write(*offset, buf))
    }
    /// Makes every write that has returned durable.
    fn flush(&self) -> io::Result<()>;
    /// Tells the device that a range is not needed; it may read as anything afterwards.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;
}
