//! Growing and adding journals: volumes in memory, crashes at every write, other nodes at work.

#[path = "support/hall.rs"]
mod hall;
mod support;

use gfs2r::admin::geometry::Alignment;
use gfs2r::admin::{grow, jadd};
use gfs2r::clock::{Clock, SimClock};
use gfs2r::device::{BlockDevice, CrashMode, MemoryDevice, SimDevice};
use gfs2r::error::Error;
use gfs2r::fs::{Caller, Fs, NewInode};
use gfs2r::ids::{BlockAddr, Jid};
use gfs2r::volume::{self, Layout, Mounter, OpenOptions, Opened};
use hall::{Cable, Hall};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{check, stock_fsck};

const MIB: u64 = 1 << 20;
const ROOT: Caller = Caller { uid: 0, gid: 0, umask: 0 };

/// A volume of `used` MiB on a disk of `all`.
fn format(disk: &MemoryDevice, block_size: u32, used: u64, journals: u32, proto: &str) {
    let small = gfs2r_mkfs::Options::small(block_size).expect("a legal block size");
    let blocks = Some(used * MIB / u64::from(block_size));
    let options =
        gfs2r_mkfs::Options { journals, blocks, lock_proto: proto.into(), lock_table: "hall:admin".into(), ..small };
    gfs2r_mkfs::format_device(disk, &options, &mut gfs2r_mkfs::Silent).expect("the volume is made");
}

fn open(disk: Arc<dyn BlockDevice>) -> Opened {
    let clock = Arc::new(SimClock::new(1_700_000_000));
    volume::open(disk, &OpenOptions::default(), clock).unwrap_or_else(|e| panic!("open: {e}"))
}

/// To so many MiB of the disk.
fn to(mib: u64) -> grow::Request {
    grow::Request { device_bytes: Some(mib * MIB), ..grow::Request::default() }
}

fn journals(count: u32) -> jadd::Request {
    jadd::Request { count, journal_mib: 8, seed: 7, ..jadd::Request::default() }
}

fn make(fs: &Fs, name: &str) -> BlockAddr {
    fs.make(&ROOT, fs.root(), name.as_bytes(), &NewInode::File(0o644)).expect("a file is made").inum.addr
}

/// Writes until the volume is full; bytes written.
fn fill_up(fs: &Fs, node: BlockAddr) -> u64 {
    let (piece, mut at) = (vec![0x5a; 1 << 20], 0);
    loop {
        match fs.write(&ROOT, node, at, &piece, false) {
            Ok(n) => at += n as u64,
            Err(Error::NoSpace) => return at,
            Err(e) => panic!("write at {at}: {e}"),
        }
    }
}

#[test]
fn a_volume_grows_again_and_again() {
    for block_size in [512, 1024, 4096] {
        let disk = Arc::new(MemoryDevice::new(600 * MIB));
        format(&disk, block_size, 48, 1, "lock_nolock");
        for step in 1..=14 {
            let opened = open(Arc::clone(&disk) as _);
            let before = opened.fs.space();
            // Full now and then: the room for the next entry is there.
            let node = make(&opened.fs, &format!("f{step}"));
            let filled = if step % 4 == 0 { fill_up(&opened.fs, node) } else { 0 };
            let full = opened.fs.space();
            let grown =
                grow::grow(&opened.fs, &to(48 + 36 * step)).unwrap_or_else(|e| panic!("{block_size}, {step}: {e}"));
            let after = opened.fs.space();
            assert_eq!((after.total - before.total, after.free - full.free > 0), (grown.data_blocks(), true));
            // The new space is used at once.
            let more = opened.fs.write(&ROOT, node, filled, &vec![1; 4 << 20], false).expect("there is space");
            assert!(filled == 0 || more > 1 << 20);
            opened.close().expect("close");
            check(&*disk, &format!("block size {block_size}, step {step}"));
        }
        stock_fsck(&disk, &format!("block size {block_size}"));
        let opened = open(Arc::clone(&disk) as _);
        let again = grow::grow(&opened.fs, &to(48 + 36 * 14)).expect_err("there is no more");
        assert!(matches!(again, grow::GrowError::HasNotGrown(..)), "{again}");
        let larger = grow::grow(&opened.fs, &to(700)).expect_err("the disk ends before");
        assert!(matches!(larger, grow::GrowError::SmallerDevice(..)), "{larger}");
        opened.close().expect("close");
    }
}

#[test]
fn a_dry_run_writes_nothing_and_says_the_same() {
    let disk = Arc::new(MemoryDevice::new(9000 * MIB));
    format(&disk, 4096, 64, 1, "lock_nolock");
    let image = disk.allocated_ranges();
    let read_only = OpenOptions { read_only: true, ..OpenOptions::default() };
    let clock = Arc::new(SimClock::new(1_700_000_000));
    let opened = volume::open(Arc::clone(&disk) as _, &read_only, clock).expect("opens");
    let alignment = Alignment { base: 64, offset: 16 };
    let dry = grow::Request { dry_run: true, alignment, ..grow::Request::default() };
    let planned = grow::grow(&opened.fs, &dry).expect("a plan");
    assert!(planned.groups.len() > 3);
    assert!(matches!(
        grow::grow(&opened.fs, &grow::Request { alignment, ..grow::Request::default() }),
        Err(grow::GrowError::Volume(Error::ReadOnly))
    ));
    drop(opened);
    assert_eq!(disk.allocated_ranges(), image);
    let opened = open(Arc::clone(&disk) as _);
    let grown = grow::grow(&opened.fs, &grow::Request { alignment, ..grow::Request::default() }).expect("grows");
    assert_eq!(grown.groups, planned.groups);
    opened.close().expect("close");
    let layout = Layout::read(Arc::clone(&disk) as _).expect("readable");
    assert!(layout.rgrps().ends_with(&grown.groups));
    check(&*disk, "after growing");
}

#[test]
fn journals_are_added() {
    for block_size in [512, 1024, 4096] {
        let disk = Arc::new(MemoryDevice::new(256 * MIB));
        format(&disk, block_size, 256, 1, "lock_nolock");
        let opened = open(Arc::clone(&disk) as _);
        assert_eq!(jadd::jadd(&opened.fs, &journals(2)).expect("room"), jadd::Added { old: 1, new: 3 });
        let large = jadd::Request { quota_change_mib: 3, journal_mib: 32, ..journals(1) };
        assert_eq!(jadd::jadd(&opened.fs, &large).expect("room"), jadd::Added { old: 3, new: 4 });
        assert_eq!(jadd::count(&opened.fs).expect("readable"), 4);
        let free = opened.fs.space().free;
        let none = jadd::jadd(&opened.fs, &jadd::Request { journal_mib: 200, ..journals(1) }).expect_err("too large");
        assert!(matches!(none, jadd::JaddError::NoRoom { .. }), "{none}");
        assert_eq!(opened.fs.space().free, free);
        for wrong in [journals(0), jadd::Request { journal_mib: 7, ..journals(1) }] {
            assert!(matches!(jadd::jadd(&opened.fs, &wrong), Err(jadd::JaddError::Wrong(_))));
        }
        opened.close().expect("close");
        check(&*disk, &format!("block size {block_size}"));
        stock_fsck(&disk, &format!("block size {block_size}"));
        // Each can be mounted with.
        for jid in 0..4 {
            let options = OpenOptions { jid: Jid(jid), ..OpenOptions::default() };
            let clock = Arc::new(SimClock::new(1_700_000_000));
            let opened = volume::open(Arc::clone(&disk) as _, &options, clock).unwrap_or_else(|e| panic!("{jid}: {e}"));
            assert_eq!(opened.journals, 4);
            make(&opened.fs, &format!("by{jid}"));
            opened.close().expect("close");
        }
        check(&*disk, "after all have been used");
    }
}

/// Runs `work` on a disk that crashes at its `n`th operation, for many n; every image replays to a clean volume on which `again`
/// works.
fn crashes(name: &str, block_size: u32, used: u64, work: &dyn Fn(&Fs) -> bool, again: &dyn Fn(&Fs)) {
    let disk = MemoryDevice::new(160 * MIB);
    format(&disk, block_size, used, 1, "lock_nolock");
    let run = |at: Option<u64>| {
        let sim = Arc::new(SimDevice::new(disk.snapshot()));
        let opened = open(Arc::clone(&sim) as _);
        let node = make(&opened.fs, "before");
        opened.fs.write(&ROOT, node, 0, b"what was there", false).expect("write");
        opened.fs.sync().expect("sync");
        let start = sim.ops();
        if let Some(at) = at {
            sim.set_crash_point(start + at);
        }
        let done = work(&opened.fs);
        (sim, start, done, opened)
    };
    let (sim, start, done, opened) = run(None);
    assert!(done, "{name}: without a crash");
    let all = sim.ops() - start;
    drop((sim, opened));
    let step = (all / 60).max(1);
    println!("{name}: {all} operations, every {step}th");
    for at in (0..all).step_by(step as usize) {
        let (sim, _, _, opened) = run(Some(at));
        drop(opened);
        for (seed, mode) in [(at, CrashMode::AllLost), (at, CrashMode::AllKept), (at * 2 + 1, CrashMode::Torn)] {
            let when = format!("{name}, block size {block_size}: crash at {at} of {all}, {mode:?} {seed}");
            let image = Arc::new(sim.crash(seed, mode));
            check(&*image, &format!("{when}, before the replay"));
            let opened = open(Arc::clone(&image) as _);
            let attr = opened.fs.lookup(opened.fs.root(), b"before").unwrap_or_else(|e| panic!("{when}: {e}"));
            assert_eq!(attr.size, 14, "{when}");
            opened.fs.reclaim_orphans(&AtomicBool::new(false)).unwrap_or_else(|e| panic!("{when}: {e}"));
            opened.close().unwrap_or_else(|e| panic!("{when}: {e}"));
            check(&*image, &format!("{when}, after the replay"));
            if at % (step * 8) == 0 {
                stock_fsck(&image, &when);
            }
            let opened = open(Arc::clone(&image) as _);
            again(&opened.fs);
            opened.close().unwrap_or_else(|e| panic!("{when}, again: {e}"));
            check(&*image, &format!("{when}, done again"));
        }
    }
}

#[test]
fn a_crash_while_it_grows() {
    for block_size in [512, 4096] {
        // Stripes make more groups of it.
        let work = |fs: &Fs| grow::grow(fs, &to(160)).is_ok();
        let again = |fs: &Fs| match grow::grow(fs, &to(160)) {
            Ok(_) | Err(grow::GrowError::HasNotGrown(..)) => {
                assert!(fs.space().total * u64::from(fs.space_unit()) > 120 * MIB)
            }
            Err(e) => panic!("{e}"),
        };
        crashes("grow", block_size, 48, &work, &again);
    }
}

#[test]
fn a_crash_while_journals_are_added() {
    for block_size in [1024, 4096] {
        let work = |fs: &Fs| jadd::jadd(fs, &journals(2)).is_ok();
        let again = |fs: &Fs| {
            let jadd::Added { old, new } = jadd::jadd(fs, &journals(1)).expect("room");
            assert!((1..=3).contains(&old) && new == old + 1);
        };
        crashes("jadd", block_size, 160, &work, &again);
    }
}

/// Two nodes write all the time; one of them grows the volume and adds a journal, with which a third one joins.
#[test]
fn other_nodes_are_at_work() {
    let disk = Arc::new(MemoryDevice::new(400 * MIB));
    format(&disk, 4096, 64, 2, "lock_dlm");
    let hall = Hall::open(1);
    let clock: Arc<dyn Clock> = Arc::new(SimClock::new(1_700_000_000));
    let join = |n: u32, mounter| {
        let options = OpenOptions { jid: Jid(n), ..OpenOptions::default() };
        volume::open_shared(Cable::new(&disk), &options, Arc::clone(&clock), hall.desk(n as usize), mounter)
            .unwrap_or_else(|e| panic!("node {n}: {e}"))
    };
    let (a, b) = (join(0, Mounter::First), join(1, Mounter::Joining));
    let stop = AtomicBool::new(false);
    let work = |opened: &Opened, n: u32| {
        let fs = &opened.fs;
        let (mut round, mut full) = (0u32, 0);
        while !stop.load(Ordering::Acquire) {
            let name = format!("n{n}-{}", round % 40);
            match fs.make(&ROOT, fs.root(), name.as_bytes(), &NewInode::File(0o644)) {
                Ok(attr) => {
                    match fs.write(&ROOT, attr.inum.addr, 0, &vec![n as u8; 3 << 20], false) {
                        Ok(_) => {}
                        Err(Error::NoSpace) => full += 1,
                        Err(e) => panic!("node {n}: write: {e}"),
                    }
                    fs.forget(attr.inum.addr, 1).unwrap_or_else(|e| panic!("node {n}: forget: {e}"));
                }
                Err(Error::Exists) => fs.unlink(fs.root(), name.as_bytes()).unwrap_or_else(|e| panic!("node {n}: {e}")),
                Err(Error::NoSpace) => full += 1,
                Err(e) => panic!("node {n}: make: {e}"),
            }
            round += 1;
        }
        full
    };
    std::thread::scope(|scope| {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Release);
            }
        }
        let _stop = Stop(&stop);
        let workers = [scope.spawn(|| work(&a, 0)), scope.spawn(|| work(&b, 1))];
        for mib in [120, 180, 260] {
            std::thread::sleep(std::time::Duration::from_millis(150));
            grow::grow(if mib == 180 { &b.fs } else { &a.fs }, &to(mib)).unwrap_or_else(|e| panic!("{mib}: {e}"));
        }
        grow::grow(&a.fs, &grow::Request::default()).expect("the rest");
        assert_eq!(jadd::jadd(&b.fs, &journals(1)).expect("room"), jadd::Added { old: 2, new: 3 });
        let c = join(2, Mounter::Joining);
        let node = make(&c.fs, "by the third");
        c.fs.write(&ROOT, node, 0, &vec![3; 8 << 20], false).expect("space for the third");
        std::thread::sleep(std::time::Duration::from_millis(150));
        c.close().expect("close");
        stop.store(true, Ordering::Release);
        for worker in workers {
            println!("out of space {} times", worker.join().expect("no panic"));
        }
    });
    // The space that one node won is the other's too.
    let node = make(&b.fs, "large");
    let written = fill_up(&b.fs, node);
    println!("{} MiB in one file", written / MIB);
    for opened in [a, b] {
        assert_eq!(opened.fs.volume().journal.withdrawn(), None);
        opened.close().expect("close");
    }
    check(&*disk, "at the end");
    stock_fsck(&disk, "at the end");
}
