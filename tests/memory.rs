//! How much memory is used: for a cached inode, for the metadata cache, and none that grows with time.
//!
//! Counted are bytes that are allocated, less what the disk in memory takes: nothing here depends on when or where it runs.
//! The long form (`cargo test --release --test memory -- --ignored --nocapture`) makes a million inodes in an image file and
//! looks at the whole process.

use cap::Cap;
use gfs2r::clock::SimClock;
use gfs2r::device::{BlockDevice, FileDevice, MemoryDevice, OpenMode};
use gfs2r::fs::{Caller, Fs, NewInode};
use gfs2r::ids::BlockAddr;
use gfs2r::volume::{self, OpenOptions, Opened};
use std::alloc::System;
use std::sync::{Arc, Mutex, PoisonError};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// The tests count what the process allocates: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

const ME: Caller = Caller { uid: 0, gid: 0, umask: 0 };
/// Bytes that an inode may take: its glock with the object, its places in the tables, the kernel's reference.
const INODE_BYTES: usize = 700;
/// Files in a directory.
const PER_DIR: usize = 1000;

fn format(device: &dyn BlockDevice, block_size: u32) {
    let options = gfs2r_mkfs::Options::small(block_size).expect("legal");
    let options = gfs2r_mkfs::Options { journal_mib: Some(32), ..options };
    gfs2r_mkfs::format_device(device, &options, &mut gfs2r_mkfs::Silent).expect("the volume is made");
}

fn open(device: Arc<dyn BlockDevice>, cache_bytes: usize, cached_inodes: usize) -> Opened {
    let options = OpenOptions { cache_bytes, cached_inodes, ..OpenOptions::default() };
    volume::open(device, &options, Arc::new(SimClock::new(1_700_000_000))).expect("opens")
}

/// Makes `count` files in directories; the references to files are kept.
fn make(fs: &Fs, count: usize, each: &mut dyn FnMut(BlockAddr)) {
    let mut dir = fs.root();
    for n in 0..count {
        if n % PER_DIR == 0 {
            // The last one is not needed any more.
            fs.forget(dir, 1).expect("forgotten");
            dir = fs.make(&ME, fs.root(), format!("d{n}").as_bytes(), &NewInode::Dir(0o755)).expect("room").inum.addr;
        }
        let name = format!("file {n}");
        each(fs.make(&ME, dir, name.as_bytes(), &NewInode::File(0o644)).expect("room").inum.addr);
    }
}

/// Looks everything up from the root; the references are kept.
fn walk(fs: &Fs, each: &mut dyn FnMut(BlockAddr)) {
    let names = |dir| {
        let mut names = Vec::new();
        fs.list(dir, 0, &mut |item| {
            if !item.name.starts_with(b".") {
                names.push(item.name.to_vec());
            }
            true
        })
        .expect("list");
        names
    };
    for dir in names(fs.root()) {
        let dir = fs.lookup(fs.root(), &dir).expect("there").inum.addr;
        each(dir);
        for name in names(dir) {
            each(fs.lookup(dir, &name).expect("there").inum.addr);
        }
    }
}

/// Allocated bytes without those of the disk.
fn used(device: &MemoryDevice) -> usize {
    // Per page: the page, its reference counts and its share of the table.
    ALLOCATOR.allocated() - device.allocated() as usize / 4096 * (4096 + 16 + 8)
}

#[test]
fn a_cached_inode_takes_little() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    const COUNT: usize = 30_000;
    const CACHE: usize = 4 << 20;
    let device = Arc::new(MemoryDevice::new(256 << 20));
    format(&*device, 1024);
    let opened = open(device.clone(), CACHE, 1 << 20);
    make(&opened.fs, COUNT, &mut |node| opened.fs.forget(node, 1).expect("forgotten"));
    opened.close().expect("closes");
    drop(opened);

    let opened = open(device.clone(), CACHE, 1 << 20);
    let before = used(&device);
    let mut nodes = Vec::with_capacity(2 * COUNT);
    walk(&opened.fs, &mut |node| nodes.push(node));
    let grown = used(&device) - before - nodes.capacity() * size_of::<BlockAddr>();
    let inodes = opened.fs.volume().inodes.len();
    assert!(inodes >= COUNT, "{inodes} inodes are cached");
    let cache = opened.fs.volume().cache.len();
    println!("{inodes} inodes and {cache} buffers: {grown} bytes");
    assert!(cache * 1024 <= CACHE + CACHE / 4, "{cache} buffers of 1024 bytes, limit {CACHE}");
    // A buffer costs its block and at most 400 bytes.
    let per_inode = grown.saturating_sub(cache * (1024 + 400)) / inodes;
    println!("{per_inode} bytes for an inode");
    assert!(per_inode <= INODE_BYTES, "{per_inode} bytes for an inode");
    // All references are gone: what is kept is bounded by the limits alone.
    for &node in &nodes {
        opened.fs.forget(node, 1).expect("forgotten");
    }
    opened.close().expect("closes");
}

#[test]
fn the_caches_keep_to_their_limits() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    const KEEP: usize = 1000;
    const CACHE: usize = 1 << 20;
    let device = Arc::new(MemoryDevice::new(256 << 20));
    format(&*device, 1024);
    let opened = open(device.clone(), CACHE, KEEP);
    make(&opened.fs, 10_000, &mut |node| opened.fs.forget(node, 1).expect("forgotten"));
    opened.close().expect("closes");
    // Opened again: what the log still holds is kept beyond the limit.
    let opened = open(device.clone(), CACHE, KEEP);
    let fs = &opened.fs;
    let (mut most, mut held) = (0, Vec::new());
    let mut kept = 0;
    for _ in 0..2 {
        walk(fs, &mut |node| {
            held.push(node);
            kept = kept.max(fs.volume().cache.len());
            most = most.max(fs.volume().inodes.len());
        });
        held.drain(..).for_each(|node| fs.forget(node, 1).expect("forgotten"));
    }
    println!("at most {most} inodes, limit {KEEP}; at most {kept} buffers");
    assert!(most <= KEEP + KEEP / 4, "{most} inodes, limit {KEEP}");
    assert!(kept * 1024 <= CACHE + CACHE / 4, "{kept} buffers of 1024 bytes, limit {CACHE}");
    opened.close().expect("closes");
}

/// One round of making, writing and removing.
fn round(fs: &Fs, files: usize) {
    let dir = fs.make(&ME, fs.root(), b"round", &NewInode::Dir(0o755)).expect("room").inum.addr;
    for n in 0..files {
        let name = format!("file {n}");
        let file = fs.make(&ME, dir, name.as_bytes(), &NewInode::File(0o644)).expect("room").inum.addr;
        let bytes = vec![n as u8; 100 + n * 37 % 9000];
        assert_eq!(fs.write(&ME, file, 0, &bytes, false).expect("room"), bytes.len());
        fs.setxattr(&ME, file, b"user.x", b"value", gfs2r::fs::SetMode::Any).expect("room");
        if n % 50 == 0 {
            fs.fsync(file).expect("fsync");
        }
        fs.forget(file, 1).expect("forgotten");
    }
    for n in 0..files {
        fs.unlink(dir, format!("file {n}").as_bytes()).expect("there");
    }
    fs.rmdir(fs.root(), b"round").expect("empty");
    fs.forget(dir, 1).expect("deleted");
    fs.sync().expect("sync");
    fs.sync_counters().expect("sync");
}

#[test]
fn nothing_grows_with_time() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let device = Arc::new(MemoryDevice::new(128 << 20));
    format(&*device, 1024);
    let opened = open(device.clone(), 1 << 20, 200);
    let mut after = Vec::new();
    for _ in 0..20 {
        round(&opened.fs, 1000);
        after.push(used(&device));
    }
    println!("bytes after each round: {after:?}");
    // Half of them fill the caches and the tables. A tenth is less than 20 bytes for each file of the other half.
    let (first, last) = (after[9], after[19]);
    assert!(last <= first + first / 10, "memory grows: {after:?}");
    assert_eq!(opened.fs.volume().cache.data().dirty_bytes(), 0);
    opened.close().expect("closes");
}

/// Resident bytes of this process.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc");
    let pages: usize = statm.split(' ').nth(1).expect("two numbers").parse().expect("a number");
    pages * 4096
}

/// A million inodes in an image file. `MEMORY_DIR` says where it goes (6 GB), `MEMORY_COUNT` how many.
#[test]
#[ignore = "minutes and gigabytes"]
fn a_million_inodes() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let count = std::env::var("MEMORY_COUNT").ok().and_then(|n| n.parse().ok()).unwrap_or(1_000_000);
    let dir = match std::env::var_os("MEMORY_DIR") {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let path = dir.as_ref().expect("a folder").path().join("image");
    std::fs::File::create(&path).and_then(|f| f.set_len(16 << 30)).expect("a sparse file");
    let device: Arc<dyn BlockDevice> = Arc::new(FileDevice::open(&path, OpenMode::ReadWrite).expect("opens"));
    format(&*device, 4096);
    let mib = |n: usize| n >> 20;
    let report = |what: &str, fs: &Fs| {
        let (inodes, buffers) = (fs.volume().inodes.len(), fs.volume().cache.len());
        let (rss, heap) = (mib(resident()), mib(ALLOCATOR.allocated()));
        println!("{what}: {rss} MiB resident, {heap} MiB allocated, {inodes} inodes, {} MiB of buffers", buffers >> 8);
    };
    let defaults = OpenOptions::default();
    let opened = open(Arc::clone(&device), defaults.cache_bytes, defaults.cached_inodes);
    make(&opened.fs, count, &mut |node| opened.fs.forget(node, 1).expect("forgotten"));
    report("made", &opened.fs);
    opened.close().expect("closes");
    drop(opened);

    let opened = open(device, defaults.cache_bytes, defaults.cached_inodes);
    report("opened again", &opened.fs);
    let mut nodes = Vec::with_capacity(count + count / 500);
    walk(&opened.fs, &mut |node| nodes.push(node));
    report("walked", &opened.fs);
    assert!(opened.fs.volume().inodes.len() >= count);
    assert!(mib(resident()) < 1024, "more than 1 GiB");
    for &node in &nodes {
        opened.fs.forget(node, 1).expect("forgotten");
    }
    report("forgotten", &opened.fs);
    for n in 0..5 {
        round(&opened.fs, 20_000);
        report(&format!("round {n}"), &opened.fs);
    }
    opened.close().expect("closes");
}
