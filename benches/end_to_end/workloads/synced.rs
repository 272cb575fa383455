//! Programs that wait for the disk: logs, mail.

use super::Suite;
use super::bulk::{open, place};
use crate::measure::{Bench, Unit};
use crate::targets::{Kind, Target};
use gfs2r::device::AlignedBuf;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use std::io;
use std::time::{Duration, Instant};

pub(super) const SYNCED: Suite = Suite {
    name: "fsync each time",
    rows: &[
        "append 200 bytes, fsync",
        "append 200 bytes, fsync, 8 files at once",
        "overwrite 4 KiB, fsync",
        "create, write 1 KiB, fsync",
    ],
    fits: |_| true,
    needs_mount: true,
    run: synced,
};

fn synced(bench: &mut Bench<'_>) -> io::Result<()> {
    let long = bench.while_long();
    bench.count("append 200 bytes, fsync", Unit::Ops, |t| side_by_side(t, 1, long, append))?;
    bench.target.settle()?;
    bench.count("append 200 bytes, fsync, 8 files at once", Unit::Ops, |t| side_by_side(t, 8, long, append))?;
    bench.target.settle()?;
    bench.count("overwrite 4 KiB, fsync", Unit::Ops, |t| side_by_side(t, 1, long, overwrite))?;
    if bench.target.kind == Kind::Raw {
        return Ok(());
    }
    for n in 0..8 {
        std::fs::remove_file(place(bench.target, &name(n)))?;
    }
    let dir = bench.target.root.join("mail");
    std::fs::create_dir(&dir)?;
    bench.target.settle()?;
    bench.count("create, write 1 KiB, fsync", Unit::Ops, |_| {
        let end = Instant::now() + long;
        let mut count = 0u32;
        while Instant::now() < end {
            let file = std::fs::File::create_new(dir.join(format!("mail-{count}")))?;
            rustix::io::write(&file, &[9; 1024])?;
            file.sync_all()?;
            count += 1;
        }
        Ok(((), f64::from(count)))
    })?;
    super::walk::remove_all(&dir)?;
    std::fs::remove_dir(&dir)
}

fn name(n: u64) -> String {
    format!("log-{n}")
}

/// `threads` files at once, for a while; the number of operations.
fn side_by_side(
    target: &Target,
    threads: u64,
    long: Duration,
    one: fn(&OwnedFd, u64, u64, bool) -> io::Result<()>,
) -> io::Result<((), f64)> {
    let raw = target.kind == Kind::Raw;
    let files = (0..threads)
        .map(|n| open(target, &name(n), OFlags::CREATE | OFlags::WRONLY))
        .collect::<io::Result<Vec<_>>>()?;
    let end = Instant::now() + long;
    let mut total = 0;
    std::thread::scope(|scope| {
        let work = |n: u64, file: &OwnedFd| -> io::Result<u64> {
            let mut count = 0;
            while Instant::now() < end {
                one(file, n, count, raw)?;
                if raw {
                    rustix::fs::fdatasync(file)?
                } else {
                    rustix::fs::fsync(file)?
                }
                count += 1;
            }
            Ok(count)
        };
        let workers: Vec<_> =
            files.iter().enumerate().map(|(n, file)| scope.spawn(move || work(n as u64, file))).collect();
        for worker in workers {
            total += worker.join().map_err(|_| io::Error::other("a thread panicked"))??;
        }
        Ok::<(), io::Error>(())
    })?;
    Ok(((), total as f64))
}

/// On the raw image a whole block is written instead: less cannot be.
fn append(file: &OwnedFd, thread: u64, count: u64, raw: bool) -> io::Result<()> {
    if raw {
        return overwrite(file, thread, count, raw);
    }
    rustix::io::pwrite(file, &[b'x'; 200], count * 200)?;
    Ok(())
}

fn overwrite(file: &OwnedFd, thread: u64, count: u64, raw: bool) -> io::Result<()> {
    let buf = AlignedBuf::zeroed(4096);
    let place = if raw { (thread << 24) + ((count % 4096) << 12) } else { 0 };
    rustix::io::pwrite(file, &buf, place)?;
    Ok(())
}
