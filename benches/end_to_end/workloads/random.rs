//! 4 KiB here and there, past the page cache.

use super::Suite;
use super::bulk::{open, place, write_all};
use crate::measure::{Bench, Unit, exists};
use crate::targets::{Kind, Target};
use gfs2r::device::AlignedBuf;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use std::io;
use std::time::{Duration, Instant};

pub(super) const RANDOM: Suite = Suite {
    name: "4 KiB at random, O_DIRECT",
    rows: &["read, 1 at a time", "read, 32 at a time", "write, 1 at a time", "write, 32 at a time"],
    fits: |_| true,
    needs_mount: true,
    run: random,
};

fn random(bench: &mut Bench<'_>) -> io::Result<()> {
    let mib = bench.scaled(512);
    if bench.target.kind != Kind::Raw && !exists(&place(bench.target, "random")) {
        let file = open(bench.target, "random", OFlags::CREATE | OFlags::WRONLY)?;
        let mut buf = AlignedBuf::zeroed(1 << 20);
        buf.fill(0xa5);
        write_all(&file, mib, &buf)?;
        rustix::fs::fsync(&file)?;
    }
    let long = bench.while_long();
    for (row, write, threads) in [
        ("read, 1 at a time", false, 1),
        ("read, 32 at a time", false, 32),
        ("write, 1 at a time", true, 1),
        ("write, 32 at a time", true, 32),
    ] {
        bench.target.settle()?;
        bench.count(row, Unit::Ops, |t| jump(t, mib, write, threads, long).map(|n| ((), n as f64)))?;
    }
    Ok(())
}

/// Threads stand for a queue: each has one request under way. The number of requests.
fn jump(target: &Target, mib: u64, write: bool, threads: u64, long: Duration) -> io::Result<u64> {
    let flags = if write { OFlags::WRONLY } else { OFlags::RDONLY };
    let file = open(target, "random", flags | OFlags::DIRECT)?;
    let end = Instant::now() + long;
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|n| {
                scope.spawn({
                    let file = &file;
                    move || one(file, mib, write, n, end)
                })
            })
            .collect();
        let mut total = 0;
        for worker in workers {
            total += worker.join().map_err(|_| io::Error::other("a thread panicked"))??;
        }
        Ok(total)
    })
}

fn one(file: &OwnedFd, mib: u64, write: bool, seed: u64, end: Instant) -> io::Result<u64> {
    let mut buf = AlignedBuf::zeroed(4096);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut count = 0;
    while Instant::now() < end {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let offset = (state % (mib << 8)) << 12;
        let n = if write {
            rustix::io::pwrite(file, &buf, offset)?
        } else {
            rustix::io::pread(file, &mut buf[..], offset)?
        };
        if n != 4096 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        count += 1;
    }
    Ok(count)
}
