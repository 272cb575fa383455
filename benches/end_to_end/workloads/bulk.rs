//! Bulk data, a MiB at a time.

use super::Suite;
use crate::measure::{Bench, Unit};
use crate::targets::{Kind, Target};
use gfs2r::device::AlignedBuf;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use std::io;
use std::path::PathBuf;

pub(super) const BULK: Suite = Suite {
    name: "bulk, 1 MiB at a time",
    rows: &[
        "write a new file, no fsync",
        "write a new file, fsync",
        "write a new file, O_DIRECT",
        "overwrite, O_DIRECT",
        "read, remounted",
        "read, again",
        "read, O_DIRECT",
    ],
    fits: |_| true,
    needs_mount: true,
    run: bulk,
};

/// Where bulk data goes: a file of this name, or a place in the raw image.
pub(super) fn place(target: &Target, name: &str) -> PathBuf {
    if target.kind == Kind::Raw { target.disk.clone() } else { target.root.join(name) }
}

/// Opens it; the raw image always for direct I/O.
pub(super) fn open(target: &Target, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
    let mut flags = flags | OFlags::CLOEXEC;
    if target.kind == Kind::Raw {
        flags = (flags | OFlags::DIRECT) - (OFlags::CREATE | OFlags::TRUNC | OFlags::EXCL);
    }
    Ok(rustix::fs::open(place(target, name), flags, Mode::from_raw_mode(0o644))?)
}

pub(super) fn write_all(file: &OwnedFd, mib: u64, buf: &[u8]) -> io::Result<()> {
    for n in 0..mib {
        let mut done = 0;
        while done < buf.len() {
            done += rustix::io::pwrite(file, &buf[done..], (n << 20) + done as u64)?;
        }
    }
    Ok(())
}

fn read_all(file: &OwnedFd, mib: u64, buf: &mut [u8]) -> io::Result<()> {
    for n in 0..mib {
        if rustix::io::pread(file, &mut *buf, n << 20)? != buf.len() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
    }
    Ok(())
}

fn bulk(bench: &mut Bench<'_>) -> io::Result<()> {
    let mib = bench.scaled(512);
    let amount = (mib << 20) as f64 / 1e6;
    let mut buf = AlignedBuf::zeroed(1 << 20);
    buf.fill(0x5a);
    let raw = bench.target.kind == Kind::Raw;
    let new = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
    let remove = |target: &Target, name: &str| if raw { Ok(()) } else { std::fs::remove_file(place(target, name)) };
    bench.time("write a new file, no fsync", Unit::Mb, amount, |t| write_all(&open(t, "bulk-1", new)?, mib, &buf))?;
    bench.target.settle()?;
    remove(bench.target, "bulk-1")?;
    bench.target.settle()?;
    bench.time("write a new file, fsync", Unit::Mb, amount, |t| {
        let file = open(t, "bulk-2", new)?;
        write_all(&file, mib, &buf)?;
        Ok(rustix::fs::fsync(&file)?)
    })?;
    remove(bench.target, "bulk-2")?;
    bench.target.settle()?;
    let direct = OFlags::DIRECT;
    bench.time("write a new file, O_DIRECT", Unit::Mb, amount, |t| {
        write_all(&open(t, "bulk-3", new | direct)?, mib, &buf)
    })?;
    bench.target.settle()?;
    bench.time("overwrite, O_DIRECT", Unit::Mb, amount, |t| {
        write_all(&open(t, "bulk-3", OFlags::WRONLY | direct)?, mib, &buf)
    })?;
    bench.target.remount()?;
    let cold = |t: &mut Target, buf: &mut [u8]| read_all(&open(t, "bulk-3", OFlags::RDONLY)?, mib, buf);
    bench.time("read, remounted", Unit::Mb, amount, |t| cold(t, &mut buf))?;
    bench.time("read, again", Unit::Mb, amount, |t| cold(t, &mut buf))?;
    bench.target.remount()?;
    bench.time("read, O_DIRECT", Unit::Mb, amount, |t| {
        read_all(&open(t, "bulk-3", OFlags::RDONLY | direct)?, mib, &mut buf)
    })?;
    remove(bench.target, "bulk-3")
}
