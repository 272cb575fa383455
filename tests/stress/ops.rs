//! Random operations on a small name space, so that threads get in each other's way.

use crate::harness::{chmod, chown, mkdir, mknod, open, std_result};
use rustix::fs::{
    CWD, FallocateFlags, FileType, IFlags, OFlags, RenameFlags, SeekFrom, Timespec, Timestamps, XattrFlags, fallocate,
};
use rustix::io::{Errno, Result};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Answers that the other threads, or chance, may bring about.
const NORMAL: [Errno; 17] = [
    Errno::NOENT,
    Errno::EXIST,
    Errno::NOTDIR,
    Errno::ISDIR,
    Errno::NOTEMPTY,
    Errno::INVAL,
    Errno::NOSPC,
    Errno::LOOP,
    Errno::PERM,
    Errno::OPNOTSUPP,
    Errno::NODATA,
    Errno::TOOBIG,
    Errno::RANGE,
    Errno::NXIO,
    Errno::BUSY,
    Errno::NAMETOOLONG,
    Errno::SPIPE,
];

/// How a dead mount answers.
const DEAD: [Errno; 3] = [Errno::NOTCONN, Errno::CONNABORTED, Errno::IO];

/// Largest offset used.
const FAR: u64 = 3 << 20;

pub struct Worker {
    root: PathBuf,
    state: u64,
    /// A file kept open while others rename and remove it.
    kept: Option<File>,
    buffer: gfs2r::device::AlignedBuf,
}

impl Worker {
    pub fn new(root: PathBuf, seed: u64) -> Self {
        let buffer = gfs2r::device::AlignedBuf::zeroed(256 << 10);
        Self { root, state: seed.wrapping_mul(2) | 1, kept: None, buffer }
    }

    /// splitmix64.
    fn below(&mut self, n: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn path(&mut self) -> PathBuf {
        let mut path = self.root.clone();
        for _ in 0..self.below(3) {
            path.push(format!("d{}", self.below(4)));
        }
        path.push(match self.below(10) {
            0..3 => format!("d{}", self.below(4)),
            3 => format!("{:0>200}", self.below(12)),
            _ => format!("f{}", self.below(12)),
        });
        path
    }

    /// Runs `count` operations; the answers that nothing explains. Ends when the mount is dead.
    pub fn run(&mut self, count: u64) -> Vec<String> {
        let mut strange = Vec::new();
        for _ in 0..count {
            let op = self.below(34);
            let path = self.path();
            match self.one(op, &path) {
                Ok(()) => {}
                Err(e) if NORMAL.contains(&e) => {}
                Err(e) => {
                    strange.push(format!("operation {op} on {}: {e:?}", path.display()));
                    if DEAD.contains(&e) {
                        return strange;
                    }
                }
            }
        }
        strange
    }

    fn one(&mut self, op: u64, path: &PathBuf) -> Result<()> {
        match op {
            // Without waiting: it may be a pipe that nobody reads.
            0..3 => open(path, OFlags::CREATE | OFlags::WRONLY | OFlags::NONBLOCK, 0o644).map(drop),
            3 | 4 => mkdir(path, 0o755),
            5 => mknod(path, FileType::Fifo, 0o644, 0),
            6 => mknod(path, FileType::CharacterDevice, 0o644, rustix::fs::makedev(1, 3)),
            7 => {
                let len = self.below(3000) as usize + 1;
                rustix::fs::symlink("l".repeat(len), path)
            }
            8 => rustix::fs::linkat(CWD, path, CWD, self.path(), rustix::fs::AtFlags::empty()),
            9..12 => rustix::fs::rename(path, self.path()),
            12 => rustix::fs::renameat_with(CWD, path, CWD, self.path(), RenameFlags::NOREPLACE),
            13 => rustix::fs::renameat_with(CWD, path, CWD, self.path(), RenameFlags::EXCHANGE),
            14 | 15 => rustix::fs::unlink(path),
            16 => rustix::fs::rmdir(path),
            17..26 => self.contents(op, path),
            26 => chmod(path, 0o600 | self.below(0o200) as u32),
            27 => chown(path, Some(self.below(3) as u32), Some(self.below(3) as u32)),
            28 => {
                let at = Timespec { tv_sec: self.below(1 << 33) as i64, tv_nsec: self.below(1_000_000_000) as i64 };
                let both = Timestamps { last_access: at, last_modification: at };
                rustix::fs::utimensat(CWD, path, &both, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
            }
            29 | 30 => self.attribute(path),
            31 => std_result(fs::read_dir(path).map(|list| list.flatten().for_each(drop))),
            32 => {
                let f = open(path, OFlags::RDONLY | OFlags::NONBLOCK, 0)?;
                let flags = if self.below(2) == 0 { IFlags::JOURNALING } else { IFlags::empty() };
                rustix::fs::ioctl_setflags(&f, flags).or_else(no_such_ioctl)
            }
            _ => {
                self.kept = Some(open(path, OFlags::RDWR | OFlags::NONBLOCK, 0)?);
                Ok(())
            }
        }
    }

    /// Operations on what is in a file: the one at `path`, or the one kept open.
    fn contents(&mut self, op: u64, path: &std::path::Path) -> Result<()> {
        let kept = if self.below(4) == 0 { self.kept.take() } else { None };
        let f = match kept {
            Some(f) => f,
            None => {
                let direct = if op == 18 { OFlags::DIRECT } else { OFlags::empty() };
                open(path, OFlags::RDWR | OFlags::NONBLOCK | direct, 0)?
            }
        };
        // A device is no file to write to.
        if !f.metadata().is_ok_and(|m| m.is_file()) {
            return Ok(());
        }
        let (at, len) = (self.below(FAR), self.below(100_000) + 1);
        let (block, blocks) = (at & !4095, (len as usize & !4095) + 4096);
        self.buffer.fill(at as u8);
        match op {
            17 | 19 => std_result(f.write_all_at(&self.buffer[..len as usize], at)),
            18 => std_result(f.write_all_at(&self.buffer[..blocks], block)),
            20 => std_result(f.read_at(&mut self.buffer[..len as usize], at).map(drop)),
            21 => std_result(f.set_len(at)),
            22 => fallocate(&f, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, len),
            23 => {
                let how = [FallocateFlags::empty(), FallocateFlags::KEEP_SIZE, FallocateFlags::ZERO_RANGE];
                let how = how[self.below(3) as usize];
                fallocate(&f, how, at, len)
            }
            24 => {
                let how = if at % 2 == 0 { SeekFrom::Data(at) } else { SeekFrom::Hole(at) };
                rustix::fs::seek(&f, how)?;
                rustix::fs::copy_file_range(&f, Some(&mut (at / 2)), &f, Some(&mut (at + FAR)), len as usize).map(drop)
            }
            _ => std_result(if at % 2 == 0 { f.sync_all() } else { f.sync_data() }),
        }
    }

    fn attribute(&mut self, path: &PathBuf) -> Result<()> {
        let name = format!("user.{}", self.below(5));
        match self.below(4) {
            0 => rustix::fs::lremovexattr(path, &name),
            1 => rustix::fs::lgetxattr(path, &name, &mut [0u8; 100][..]).map(drop),
            _ => {
                let len = [0, 10, 300, 5000, 20_000][self.below(5) as usize];
                rustix::fs::lsetxattr(path, &name, &vec![len as u8; len], XattrFlags::empty())
            }
        }
    }
}

/// chattr of what is no file of this filesystem (a pipe, a device).
fn no_such_ioctl(e: Errno) -> Result<()> {
    if e == Errno::NOTTY { Ok(()) } else { Err(e) }
}
