//! Steps that write, read, cut and sync the contents of files.

use super::{Kind, Work};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{FallocateFlags, IFlags, Mode, OFlags};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// At most this many files are kept open.
const MOST_OPEN: usize = 8;

impl Work {
    /// How much to write: mostly little, now and then much.
    pub(super) fn length(&mut self) -> u64 {
        match self.rng.below(20) {
            0..6 => self.rng.range(1, 200),
            6..11 => self.rng.range(1, 5000),
            11..14 => 4096 * self.rng.range(1, 8),
            14..19 => self.rng.range(1, 100_000),
            _ => self.rng.range(1, 1 << 20),
        }
    }

    fn open_file(&mut self, flags: OFlags) -> Option<(usize, PathBuf, OwnedFd)> {
        let (node, path) = self.pick(&[Kind::File])?;
        let opened = rustix::fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty());
        let file = self.note("open", &path, opened)?;
        Some((node, path, file))
    }

    /// The largest power of two for the size of a file. Linux 6.1 cuts a file with journaled data in steps of 8192 blocks,
    /// holes too: for an exabyte that takes for ever.
    fn largest_power(file: impl AsFd) -> u64 {
        match rustix::fs::ioctl_getflags(file) {
            Ok(flags) if flags.contains(IFlags::JOURNALING) => 28,
            _ => 63,
        }
    }

    fn size(file: impl AsFd) -> Result<u64, Errno> {
        rustix::fs::fstat(file).map(|stat| u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// Writes `length` bytes at `offset`.
    pub(super) fn put(&mut self, file: &OwnedFd, node: usize, path: &Path, offset: u64, length: u64) {
        let bytes = self.rng.bytes(length);
        let written = write_all(file, &bytes, offset);
        self.note("write", path, written);
        self.names.add_bytes(node, length + 4096);
    }

    /// Somewhere in the file or a little beyond its end.
    pub(super) fn write(&mut self) {
        let Some((node, path, file)) = self.open_file(OFlags::RDWR) else { return };
        let Some(size) = self.note("fstat", &path, Self::size(&file)) else { return };
        let mut offset = self.rng.below(size.saturating_add(20_000));
        if self.rng.one_in(3) {
            offset = offset / 4096 * 4096;
        }
        let length = self.length();
        self.put(&file, node, &path, offset, length);
    }

    pub(super) fn append(&mut self) {
        let flags = if self.rng.one_in(10) { OFlags::TRUNC } else { OFlags::empty() };
        let Some((node, path, file)) = self.open_file(OFlags::WRONLY | OFlags::APPEND | flags) else { return };
        for _ in 0..self.rng.range(1, 4) {
            let length = self.rng.range(1, 3000);
            let bytes = self.rng.bytes(length);
            let written = rustix::io::write(&file, &bytes);
            self.note("append", &path, written);
            self.names.add_bytes(node, length);
        }
    }

    /// Past the page cache, in whole blocks.
    pub(super) fn write_direct(&mut self) {
        let Some((node, path, file)) = self.open_file(OFlags::RDWR | OFlags::DIRECT) else { return };
        let Some(size) = self.note("fstat", &path, Self::size(&file)) else { return };
        let block = 4096;
        let offset = self.rng.below(size.min(1 << 40) / block + 3) * block;
        let length = self.rng.range(1, 16) * block;
        // Direct I/O wants aligned memory: a part of a larger buffer.
        let mut buffer = vec![0u8; (length + block) as usize];
        let at = buffer.as_ptr().align_offset(block as usize);
        let bytes = self.rng.bytes(length);
        let Some(aligned) = buffer.get_mut(at..at + bytes.len()) else { return };
        aligned.copy_from_slice(&bytes);
        let done = if self.rng.one_in(4) {
            rustix::io::pread(&file, aligned, offset).map(|_| ())
        } else {
            self.names.add_bytes(node, length);
            write_all(&file, aligned, offset)
        };
        self.note("direct", &path, done);
    }

    /// Far beyond the end: a sparse file of several levels of indirection.
    pub(super) fn write_far(&mut self) {
        let Some((node, path, file)) = self.open_file(OFlags::RDWR) else { return };
        let power = if self.rng.one_in(4) { self.rng.range(46, 61) } else { self.rng.range(20, 46) };
        let power = power.min(Self::largest_power(&file));
        let offset = (1 << power) + self.rng.below(1 << power);
        let length = self.rng.range(1, 9000);
        self.put(&file, node, &path, offset, length);
    }

    pub(super) fn truncate(&mut self) {
        let Some((node, path, file)) = self.open_file(OFlags::RDWR) else { return };
        let Some(size) = self.note("fstat", &path, Self::size(&file)) else { return };
        let power = self.rng.range(4, 34).min(Self::largest_power(&file));
        let length = match self.rng.below(6) {
            0 => 0,
            1 | 2 => self.rng.below(size.saturating_add(1)),
            3 => self.rng.below(5000),
            4 => size / 4096 * 4096,
            _ => size.saturating_add(self.rng.below(1 << power)),
        };
        let cut = rustix::fs::ftruncate(&file, length);
        self.note("truncate", &path, cut);
        if length == 0 {
            self.names.set_bytes(node, 0);
        }
    }

    pub(super) fn truncate_to_nothing(&mut self) {
        let Some((node, path, file)) = self.open_file(OFlags::RDWR) else { return };
        let cut = rustix::fs::ftruncate(&file, 0);
        self.note("truncate", &path, cut);
        self.names.set_bytes(node, 0);
    }

    pub(super) fn allocate(&mut self) {
        let Some((node, path, file)) = self.open_file(OFlags::RDWR) else { return };
        let mode = if self.rng.one_in(2) { FallocateFlags::KEEP_SIZE } else { FallocateFlags::empty() };
        let (offset, length) = (self.rng.below(1 << 20), self.rng.range(1, 300_000));
        let done = rustix::fs::fallocate(&file, mode, offset, length);
        self.note("fallocate", &path, done);
        self.names.add_bytes(node, length);
    }

    pub(super) fn punch(&mut self) {
        let Some((_, path, file)) = self.open_file(OFlags::RDWR) else { return };
        let Some(size) = self.note("fstat", &path, Self::size(&file)) else { return };
        let offset = self.rng.below(size.saturating_add(5000));
        let length = match self.rng.below(3) {
            0 => self.rng.range(1, 5000),
            1 => 4096 * self.rng.range(1, 40),
            _ => self.rng.range(1, size.saturating_add(1)),
        };
        let done = rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length);
        self.note("punch", &path, done);
    }

    pub(super) fn read(&mut self) {
        let Some((_, path, file)) = self.open_file(OFlags::RDONLY) else { return };
        let Some(size) = self.note("fstat", &path, Self::size(&file)) else { return };
        let mut buffer = vec![0; self.rng.range(1, 100_000) as usize];
        let read = rustix::io::pread(&file, buffer.as_mut_slice(), self.rng.below(size.saturating_add(1)));
        self.note("read", &path, read);
    }

    /// Takes a handle on a file, and mostly takes the file's name away.
    pub(super) fn keep_open(&mut self) {
        if self.open.len() >= MOST_OPEN {
            return;
        }
        let Some((node, path, file)) = self.open_file(OFlags::RDWR) else { return };
        self.open.push(file);
        if !self.rng.one_in(4) {
            let removed = rustix::fs::unlink(&path);
            if self.note("unlink-open", &path, removed).is_some() {
                self.names.remove(node);
            }
        }
    }

    /// Writes to, reads from or cuts a file that is kept open.
    pub(super) fn use_open(&mut self) {
        let Some(at) = self.rng.index(self.open.len()) else { return };
        let path = PathBuf::from("(open)");
        let (offset, length, what) = (self.rng.below(200_000), self.rng.range(1, 20_000), self.rng.below(3));
        let bytes = self.rng.bytes(length);
        let file = &self.open[at];
        let done = match what {
            0 => write_all(file, &bytes, offset),
            1 => rustix::io::pread(file, vec![0; bytes.len()].as_mut_slice(), offset).map(|_| ()),
            _ => rustix::fs::ftruncate(file, offset / 4),
        };
        self.note("use-open", &path, done);
    }

    pub(super) fn close_open(&mut self) {
        if let Some(at) = self.rng.index(self.open.len()) {
            self.open.swap_remove(at);
        }
    }

    pub(super) fn sync_one(&mut self) {
        let Some((_, path, file)) = self.open_file(OFlags::RDWR) else { return };
        let done = if self.rng.one_in(2) { rustix::fs::fsync(&file) } else { rustix::fs::fdatasync(&file) };
        self.note("fsync", &path, done);
    }

    pub(super) fn sync_all(&mut self) {
        let path = self.config.dir.clone();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let done = rustix::fs::open(&path, flags, Mode::empty()).and_then(rustix::fs::syncfs);
        self.note("syncfs", &path, done);
    }
}

/// Writes all bytes at an offset.
pub(super) fn write_all(file: impl AsFd, bytes: &[u8], offset: u64) -> Result<(), Errno> {
    let mut done = 0;
    while done < bytes.len() {
        match rustix::io::pwrite(&file, &bytes[done..], offset + done as u64) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => done += n,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
