//! Chapter 2: the disk, as a trait.
//!
//! A [`BlockDevice`] reads and writes byte ranges that are multiples of its [`alignment`](BlockDevice::alignment), best
//! from memory that is aligned too ([`AlignedBuf`]; other memory is copied). A write is *done* when it returns and
//! *durable* after the next [`flush`](BlockDevice::flush); until then it may be lost, torn or reordered, and the crash
//! simulator in `device/sim.rs` does all three.
//!
//! | implementation | for |
//! |---|---|
//! | [`FileDevice`] | block devices and image files, with direct I/O where it can be had |
//! | [`ReadAhead`] | in front of a device that nobody else writes |
//! | [`MemoryDevice`] | tests: sparse, any size, cheap snapshots, saved to and loaded from image files |
//! | [`SimDevice`] | crash tests: numbered operations, crash images, injected errors, counters |
//!
//! All of them refuse what lies outside the device (`UnexpectedEof` for reads, `InvalidInput` for writes) before they touch
//! anything: an address from a damaged disk must not let an image file grow.

mod buffer;
mod busy;
mod file;
mod memory;
mod readahead;
mod sim;

pub use buffer::AlignedBuf;
pub use busy::claim;
pub use file::{FileDevice, OpenMode, Topology};
pub use memory::MemoryDevice;
pub use readahead::ReadAhead;
pub use sim::{Counters, CrashMode, SimDevice};

use std::io;
use std::sync::Arc;

/// A disk that several nodes may share.
pub trait BlockDevice: Send + Sync {
    /// Bytes.
    fn size(&self) -> u64;
    /// Bytes, after asking again: a device may grow while it is in use.
    fn refresh_size(&self) -> io::Result<u64> {
        Ok(self.size())
    }
    /// Offsets and lengths of every request are multiples of this (512 to 4096).
    fn alignment(&self) -> usize {
        512
    }
    /// True when writes are refused.
    fn read_only(&self) -> bool {
        false
    }
    /// Fills `buf` from byte `offset`.
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
    /// Fills many buffers, several in flight, in no particular order; returns when all are done, with the first error.
    fn read_many(&self, ranges: &mut [(u64, &mut [u8])]) -> io::Result<()> {
        ranges.iter_mut().try_for_each(|(offset, buf)| self.read(*offset, buf))
    }
    /// Writes `buf` at byte `offset`.
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()>;
    /// Writes `buf` so that it is durable when this returns (FUA); earlier writes need not be.
    fn write_durable(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.write(offset, buf)?;
        self.flush()
    }
    /// Writes many ranges, several in flight, in no particular order (ranges that overlap end up in either order); returns
    /// when all are done, with the first error.
    fn write_many(&self, ranges: &[(u64, &[u8])]) -> io::Result<()> {
        ranges.iter().try_for_each(|(offset, buf)| self.write(*offset, buf))
    }
    /// Makes every write that has returned durable.
    fn flush(&self) -> io::Result<()>;
    /// Tells the device that a range is not needed; it may read as anything afterwards. `Unsupported` when the device
    /// has no such thing.
    fn discard(&self, offset: u64, len: u64) -> io::Result<()>;
}

impl<T: BlockDevice + ?Sized> BlockDevice for Arc<T> {
    fn size(&self) -> u64 {
        (**self).size()
    }
    fn refresh_size(&self) -> io::Result<u64> {
        (**self).refresh_size()
    }
    fn alignment(&self) -> usize {
        (**self).alignment()
    }
    fn read_only(&self) -> bool {
        (**self).read_only()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        (**self).read(offset, buf)
    }
    fn read_many(&self, ranges: &mut [(u64, &mut [u8])]) -> io::Result<()> {
        (**self).read_many(ranges)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        (**self).write(offset, buf)
    }
    fn write_durable(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        (**self).write_durable(offset, buf)
    }
    fn write_many(&self, ranges: &[(u64, &[u8])]) -> io::Result<()> {
        (**self).write_many(ranges)
    }
    fn flush(&self) -> io::Result<()> {
        (**self).flush()
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        (**self).discard(offset, len)
    }
}

/// Refuses a read that passes the end of a device of `size` bytes.
fn check_read(size: u64, offset: u64, len: usize) -> io::Result<()> {
    match offset.checked_add(len as u64) {
        Some(end) if end <= size => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            format!("read of {len} bytes at {offset} passes the end of the device ({size} bytes)"),
        )),
    }
}

/// Refuses a write or discard that passes the end of a device of `size` bytes or cuts through its sectors.
fn check_write(size: u64, alignment: usize, offset: u64, len: u64) -> io::Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= size => {}
        _ => {
            let what = format!("write of {len} bytes at {offset} passes the end of the device ({size} bytes)");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
    }
    if !offset.is_multiple_of(alignment as u64) || !len.is_multiple_of(alignment as u64) {
        let what = format!("write of {len} bytes at {offset} is not aligned to {alignment}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(())
}

/// The error of a write to a device that was opened for reading only.
fn refused_read_only() -> io::Error {
    io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "the device is open for reading only")
}
