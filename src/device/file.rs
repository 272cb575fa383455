//! A block device or image file.
//!
//! Direct I/O keeps the page cache out of the way: on a shared disk a cached page is a stale page, and a mounted volume
//! caches its blocks itself. Where O_DIRECT cannot be had (some image files), ordinary I/O and fdatasync serve; several
//! processes of one host still see each other's writes, since they share the page cache.

mod batch;
mod topology;

pub use topology::Topology;

use super::{AlignedBuf, BlockDevice, check_read, check_write, refused_read_only};
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::{Errno, ReadWriteFlags};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How a device is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; others may use it meanwhile.
    ReadOnly,
    /// For reading and writing, alone: a block device is claimed (O_EXCL), so that one that is mounted or held by another
    /// program is refused, and no other can claim it meanwhile. Image files know no such claim
    /// ([`FileDevice::lock_exclusive`]).
    ReadWrite,
    /// For reading and writing together with other programs of this host that know how to share (several nodes of a
    /// cluster on one host). A block device that is claimed at the moment of opening is refused, but not claimed.
    ReadWriteShared,
}

/// A block device or image file, with direct I/O where it can be had.
#[derive(Debug)]
pub struct FileDevice {
    file: File,
    path: PathBuf,
    mode: OpenMode,
    block_device: bool,
    direct: bool,
    /// Of offsets and lengths.
    alignment: usize,
    /// Of memory; 1 without direct I/O.
    memory_alignment: usize,
    size: AtomicU64,
    /// False once the kernel has refused RWF_DSYNC on this file.
    dsync: AtomicBool,
    pool: OnceLock<Option<rayon::ThreadPool>>,
}

impl FileDevice {
    /// Opens a block device or regular file. Errors: those of open(2); `ResourceBusy` when a block device is mounted or
    /// held; `InvalidInput` when it is neither a block device nor a regular file.
    pub fn open(path: &Path, mode: OpenMode) -> io::Result<Self> {
        let kind = std::fs::metadata(path)?.file_type();
        if !kind.is_block_device() && !kind.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "neither a block device nor a regular file"));
        }
        let block_device = kind.is_block_device();
        if block_device && mode == OpenMode::ReadWriteShared {
            // Claimed and let go again: whoever holds it now (a mount of the kernel's, say) does not share.
            drop(claim_briefly(path)?);
        }
        let (file, direct) = match open_file(path, mode, block_device, true) {
            Ok(file) => (file, true),
            Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                (open_file(path, mode, block_device, false)?, false)
            }
            Err(e) => return Err(e),
        };
        let needs = if block_device { sector_needs(&file)? } else { direct_needs(&file) };
        let (file, direct, needs) = match needs {
            Some(needs) => (file, direct, needs),
            // An image on a disk of larger sectors: its own blocks may be smaller, so direct I/O does not suit it.
            None => (open_file(path, mode, block_device, false)?, false, Needs { offset: 512, memory: 1 }),
        };
        let device = Self {
            size: AtomicU64::new(0),
            path: path.to_path_buf(),
            mode,
            block_device,
            direct,
            alignment: needs.offset,
            memory_alignment: if direct { needs.memory } else { 1 },
            dsync: AtomicBool::new(true),
            pool: OnceLock::new(),
            file,
        };
        device.refresh_size()?;
        Ok(device)
    }
    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.path
    }
    /// True for a block device, false for an image file.
    pub fn is_block_device(&self) -> bool {
        self.block_device
    }
    /// True when I/O bypasses the page cache.
    pub fn is_direct(&self) -> bool {
        self.direct
    }
    /// Tells other programs to keep out while this device is open: an advisory flock(2) on the file. `ResourceBusy` when
    /// another holds a lock on it.
    pub fn lock_exclusive(&self) -> io::Result<()> {
        self.file.try_lock().map_err(lock_error)
    }
    /// The same, for programs that share the device among themselves.
    pub fn lock_shared(&self) -> io::Result<()> {
        self.file.try_lock_shared().map_err(lock_error)
    }
    /// What the device tells about its stripes and sectors; `None` for image files and where the kernel does not say.
    pub fn topology(&self) -> Option<Topology> {
        if !self.block_device {
            return None;
        }
        topology::read(rustix::fs::fstat(&self.file).ok()?.st_rdev)
    }

    fn aligned(&self, buf: &[u8]) -> bool {
        buf.as_ptr().addr().is_multiple_of(self.memory_alignment)
    }
    /// Checks a read against the size, asking again in case the device has grown.
    fn check_read(&self, offset: u64, len: usize) -> io::Result<()> {
        check_read(self.size(), offset, len).or_else(|_| check_read(self.refresh_size()?, offset, len))
    }
    fn check_write(&self, offset: u64, len: u64) -> io::Result<()> {
        if self.read_only() {
            return Err(refused_read_only());
        }
        check_write(self.size(), self.alignment, offset, len)
            .or_else(|_| check_write(self.refresh_size()?, self.alignment, offset, len))
    }
    /// Reads through aligned memory the sectors around a range.
    fn read_bounced(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let before = (offset % self.alignment as u64) as usize;
        let mut whole = AlignedBuf::zeroed((before + buf.len()).next_multiple_of(self.alignment));
        // The end of an image file need not be a whole sector; what is missing reads as zero.
        let there = self.size().saturating_sub(offset - before as u64);
        let want = whole.len().min(usize::try_from(there).unwrap_or(usize::MAX));
        let mut done = 0;
        while done < want {
            match self.file.read_at(&mut whole[done..], offset - before as u64 + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        buf.copy_from_slice(&whole[before..before + buf.len()]);
        Ok(())
    }
    /// Writes with RWF_DSYNC. `Ok(false)` when the kernel does not offer it here; nothing was written then.
    fn write_dsync(&self, offset: u64, buf: &[u8]) -> io::Result<bool> {
        let mut done = 0;
        while done < buf.len() {
            let part = [IoSlice::new(&buf[done..])];
            match rustix::io::pwritev2(&self.file, &part, offset + done as u64, ReadWriteFlags::DSYNC) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => done += n,
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) if done == 0 => return Ok(false),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }
}

impl BlockDevice for FileDevice {
    fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }
    fn refresh_size(&self) -> io::Result<u64> {
        // Nothing else uses the file's position; the end is the size, of block devices too.
        let size = (&self.file).seek(SeekFrom::End(0))?;
        self.size.store(size, Ordering::Relaxed);
        Ok(size)
    }
    fn alignment(&self) -> usize {
        self.alignment
    }
    fn read_only(&self) -> bool {
        self.mode == OpenMode::ReadOnly
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check_read(offset, buf.len())?;
        let whole_sectors = offset.is_multiple_of(self.alignment as u64) && buf.len().is_multiple_of(self.alignment);
        if self.direct && !(whole_sectors && self.aligned(buf)) {
            return self.read_bounced(offset, buf);
        }
        self.file.read_exact_at(buf, offset)
    }
    fn read_many(&self, ranges: &mut [(u64, &mut [u8])]) -> io::Result<()> {
        self.read_batch(ranges)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check_write(offset, buf.len() as u64)?;
        if self.aligned(buf) {
            self.file.write_all_at(buf, offset)
        } else {
            self.file.write_all_at(&AlignedBuf::copy_of(buf), offset)
        }
    }
    fn write_durable(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check_write(offset, buf.len() as u64)?;
        let bounce = (!self.aligned(buf)).then(|| AlignedBuf::copy_of(buf));
        let buf = bounce.as_deref().unwrap_or(buf);
        // On a block device RWF_DSYNC costs a flush more: the kernel writes with FUA (or flushes), and flushes once more.
        if !self.block_device && self.dsync.load(Ordering::Relaxed) {
            if self.write_dsync(offset, buf)? {
                return Ok(());
            }
            self.dsync.store(false, Ordering::Relaxed);
        }
        self.file.write_all_at(buf, offset)?;
        self.flush()
    }
    fn write_many(&self, ranges: &[(u64, &[u8])]) -> io::Result<()> {
        self.write_batch(ranges)
    }
    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_write(offset, len)?;
        if len == 0 {
            return Ok(());
        }
        // On a block device the kernel turns this into unmapping (or fast zeroing) without falling back to slow writes.
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        match rustix::fs::fallocate(&self.file, flags, offset, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::NODEV) => {
                Err(io::Error::new(io::ErrorKind::Unsupported, "the device does not know discard"))
            }
            other => other.map_err(io::Error::from),
        }
    }
}

/// What direct I/O asks of a request.
struct Needs {
    offset: usize,
    memory: usize,
}

fn open_file(path: &Path, mode: OpenMode, block_device: bool, direct: bool) -> io::Result<File> {
    let mut flags = OFlags::empty();
    if direct {
        flags |= OFlags::DIRECT;
    }
    if block_device && mode == OpenMode::ReadWrite {
        flags |= OFlags::EXCL;
    }
    let mut options = OpenOptions::new();
    options.read(true).write(mode != OpenMode::ReadOnly).custom_flags(flags.bits().cast_signed());
    options.open(path).map_err(|e| match e.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::BUSY) => {
            io::Error::new(io::ErrorKind::ResourceBusy, "the device is mounted or held by another program")
        }
        _ => e,
    })
}

/// Claims a block device that others may be claiming for a moment too, for the same reason.
fn claim_briefly(path: &Path) -> io::Result<File> {
    for _ in 0..5 {
        match open_file(path, OpenMode::ReadWrite, true, true) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(20))
            }
            other => return other,
        }
    }
    open_file(path, OpenMode::ReadWrite, true, true)
}

fn sector_needs(file: &File) -> io::Result<Option<Needs>> {
    let sector = rustix::fs::ioctl_blksszget(file)? as usize;
    if !sector.is_power_of_two() || !(512..=AlignedBuf::ALIGN).contains(&sector) {
        let what = format!("the device has sectors of {sector} bytes; 512 to {} are supported", AlignedBuf::ALIGN);
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    Ok(Some(Needs { offset: sector, memory: sector }))
}

/// `None` when direct I/O on this file would ask for more than 512-byte sectors.
fn direct_needs(file: &File) -> Option<Needs> {
    use rustix::fs::{AtFlags, StatxFlags};
    let default = Needs { offset: 512, memory: 512 };
    let Ok(stat) = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN) else {
        return Some(default);
    };
    if stat.stx_mask & StatxFlags::DIOALIGN.bits() == 0 {
        return Some(default);
    }
    let (offset, memory) = (stat.stx_dio_offset_align, stat.stx_dio_mem_align);
    if offset == 0 || offset > 512 || memory as usize > AlignedBuf::ALIGN {
        return None;
    }
    Some(Needs { offset: 512, memory: (memory as usize).max(1) })
}

fn lock_error(e: std::fs::TryLockError) -> io::Error {
    match e {
        std::fs::TryLockError::Error(e) => e,
        std::fs::TryLockError::WouldBlock => {
            io::Error::new(io::ErrorKind::ResourceBusy, "the image is in use by another program")
        }
    }
}

#[cfg(test)]
mod tests;
