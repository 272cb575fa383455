//! Many threads doing everything at once to one tree, through a real mount: nothing may fail in a way that it should not, and the
//! tree must be consistent at the end, also after the daemon was killed in the middle.
//!
//! `GFS2R_STRESS_SEED` repeats a run as far as scheduling lets it, `GFS2R_STRESS_OPS` (operations of each thread) and
//! `GFS2R_STRESS_ROUNDS` (kills) make it longer.

#![allow(unreachable_pub, dead_code, reason = "the modules of one test; the harness is shared")]

#[path = "posix/harness.rs"]
mod harness;
#[path = "stress/ops.rs"]
mod ops;
#[path = "stress/walk.rs"]
mod walk;

use harness::{Mounted, can_run};
use ops::Worker;
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const THREADS: u64 = 4;

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

fn seed() -> u64 {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
    let seed = number("GFS2R_STRESS_SEED", clock as u64 & 0xffff_ffff);
    println!("GFS2R_STRESS_SEED={seed}");
    seed
}

/// Random operations of several threads; then what the tree says must fit together, before and after a remount.
#[test]
fn everything_at_once() {
    if !can_run() {
        return;
    }
    let seed = seed();
    for (block_size, options) in [("4096", "acl"), ("1024", "acl,data=writeback"), ("512", "acl,quota=account")] {
        let m = Mounted::unmounted_with("512M", &["-b", block_size]);
        let said = m.mount(options);
        assert!(said.ok, "mount: {}", said.text);
        let done = AtomicBool::new(false);
        let strange = std::thread::scope(|s| {
            let guard = s.spawn(|| kill_when_it_hangs(&m, &done));
            let workers: Vec<_> = (0..THREADS)
                .map(|n| {
                    let mut worker = Worker::new(m.dir(), seed ^ n << 40);
                    s.spawn(move || worker.run(number("GFS2R_STRESS_OPS", 1500)))
                })
                .collect();
            let strange: Vec<String> =
                workers.into_iter().flat_map(|w| w.join().expect("the thread ends")).take(20).collect();
            done.store(true, Ordering::Release);
            guard.join().expect("the guard ends");
            strange
        });
        assert!(strange.is_empty(), "{block_size}, {options}: unexpected answers:\n{}", strange.join("\n"));
        let before = walk::facts(&m.dir());
        println!("{block_size}, {options}: {} names", before.len());
        let said = m.umount();
        assert!(said.ok, "umount: {}", said.text);
        m.fsck().expect("fsck.gfs2 -n finds nothing");
        let said = m.mount(options);
        assert!(said.ok, "mount: {}", said.text);
        let after = walk::facts(&m.dir());
        for (path, facts) in &before {
            assert_eq!(after.get(path), Some(facts), "{path:?} after the remount");
        }
        assert_eq!(after.len(), before.len());
        assert!(m.umount().ok);
        m.fsck().expect("fsck.gfs2 -n finds nothing");
    }
}

/// The same with SIGKILL for the daemon in the middle: what each thread had fsynced is there, and the tree fits together.
#[test]
fn killed_in_the_middle() {
    if !can_run() {
        return;
    }
    let seed = seed();
    let m = Mounted::unmounted_with("512M", &[]);
    let said = m.mount("acl");
    assert!(said.ok, "mount: {}", said.text);
    for round in 0..number("GFS2R_STRESS_ROUNDS", 3) {
        let stop = AtomicBool::new(false);
        let promised: Vec<AtomicU64> = (0..THREADS).map(|_| AtomicU64::new(0)).collect();
        std::thread::scope(|s| {
            for n in 0..THREADS {
                let (m, stop, promised) = (&m, &stop, &promised[n as usize]);
                let mut worker = Worker::new(m.dir(), seed ^ round << 20 ^ n << 40);
                s.spawn(move || {
                    let path = m.dir().join(format!("witness{n}"));
                    let device = fs::metadata(m.dir()).expect("stat of the root").dev();
                    for record in 1..=u64::MAX {
                        worker.run(10);
                        if stop.load(Ordering::Acquire) || witness(&path, device, record).is_err() {
                            return;
                        }
                        promised.store(record, Ordering::Release);
                    }
                });
            }
            let since = Instant::now();
            while promised.iter().any(|p| p.load(Ordering::Acquire) < 20 + 10 * round) {
                assert!(since.elapsed() < Duration::from_secs(120), "seed {seed}: the threads get nowhere");
                std::thread::sleep(Duration::from_millis(5));
            }
            m.signal(Signal::KILL);
            stop.store(true, Ordering::Release);
            m.detach();
        });
        let said = m.mount("acl");
        assert!(said.ok, "seed {seed}: mount after a kill: {}", said.text);
        for (n, promised) in promised.iter().enumerate() {
            let path = m.dir().join(format!("witness{n}"));
            let (is, wanted) = (last_record(&path), promised.load(Ordering::Acquire));
            assert!(is >= wanted, "seed {seed}: {} has {is} of {wanted} records", path.display());
            fs::remove_file(&path).expect("remove");
        }
        println!("round {round}: {} names", walk::facts(&m.dir()).len());
        assert!(m.umount().ok);
        m.fsck().expect("fsck.gfs2 -n finds nothing");
        assert!(m.mount("acl").ok);
    }
    assert!(m.umount().ok);
}

/// Appends a record and makes it durable. Fails where the mount is gone and the path leads to what lies below it.
fn witness(path: &Path, device: u64, record: u64) -> std::io::Result<()> {
    let f = fs::File::options().create(true).append(true).open(path)?;
    if f.metadata()?.dev() != device {
        return Err(std::io::ErrorKind::NotConnected.into());
    }
    std::io::Write::write_all(&mut &f, &[record as u8; 100])?;
    f.sync_all()
}

/// How many whole records lie in order.
fn last_record(path: &Path) -> u64 {
    let Ok(f) = fs::File::open(path) else { return 0 };
    let mut record = [0; 100];
    let mut n = 0;
    while f.read_exact_at(&mut record, n * 100).is_ok() && record == [(n + 1) as u8; 100] {
        n += 1;
    }
    n
}

fn kill_when_it_hangs(m: &Mounted, done: &AtomicBool) {
    let since = Instant::now();
    while !done.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(20));
        if since.elapsed() > Duration::from_secs(600) {
            eprintln!("the run hangs: killing the daemon");
            return m.signal(Signal::KILL);
        }
    }
}
