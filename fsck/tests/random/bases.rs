//! The volumes that are damaged: those that the kernel filled, and others made here, of every block size, both formats, one to
//! four journals, closed and not.

use crate::common::{self, plant::Plant};
use crate::{damage, witness};
use gfs2r::clock::SimClock;
use gfs2r::device::MemoryDevice;
use gfs2r::fs::{Caller, Fs, NewInode, SetMode};
use gfs2r::ids::BlockAddr;
use gfs2r::quota::QuotaMode;
use gfs2r::volume::{self, OpenOptions};
use gfs2r_fsck::{Yes, repair};
use std::collections::BTreeSet;
use std::sync::Arc;

const ME: Caller = Caller { uid: 0, gid: 0, umask: 0 };
const USER: Caller = Caller { uid: 1000, gid: 1001, umask: 0o022 };
/// FS_JOURNAL_DATA_FL.
const JOURNALED: u32 = 0x4000;

/// A volume in order.
pub(crate) struct Base {
    pub(crate) name: &'static str,
    pub(crate) plant: Plant,
    pub(crate) kinds: Vec<(u32, Vec<u64>)>,
    pub(crate) files: Vec<witness::File>,
    /// Blocks of journals whose loss takes with it what was committed last; empty where all is in place.
    pub(crate) needed: BTreeSet<u64>,
}

/// How a volume was left.
#[derive(Clone, Copy, PartialEq)]
enum Left {
    Closed,
    /// The machine stopped after a fsync: the journal is dirty.
    Dirty,
    /// So, with files that had been deleted and were still open.
    Unlinked,
}

/// All of them.
pub(crate) fn all() -> Vec<Base> {
    let full = ["full.4096", "full.512", "full.1024"].map(|name| {
        let plant = Plant::new(&common::image(name));
        plant.refill_journals();
        base(name, plant, false)
    });
    // The kernel's journals hold data that the checker's reader of files does not lay over: no witness.
    let dirty = ["dirty.4096", "dirty.1024"].map(|name| {
        let plant = Plant::new(&common::image(name));
        Base { name, kinds: damage::metadata(&plant), plant, files: Vec::new(), needed: BTreeSet::new() }
    });
    let own = [
        ("own.512.1801", 512, 1801, 1, Left::Closed),
        ("own.512.2j.dirty", 512, 1802, 2, Left::Dirty),
        ("own.1024.1801.unlinked", 1024, 1801, 1, Left::Unlinked),
        ("own.2048", 2048, 1802, 1, Left::Closed),
        ("own.2048.3j.dirty", 2048, 1802, 3, Left::Dirty),
        ("own.4096.4j", 4096, 1802, 4, Left::Closed),
        ("own.4096.1801.unlinked", 4096, 1801, 2, Left::Unlinked),
    ];
    let own = own.map(|(name, bs, format, journals, left)| {
        let device = make(bs, format, journals, left);
        base(name, Plant { device, bs: bs as usize }, left != Left::Closed)
    });
    full.into_iter().chain(dirty).chain(own).collect()
}

fn base(name: &'static str, plant: Plant, is_dirty: bool) -> Base {
    // What should be there is what is there when the journals are replayed.
    let after = Plant { device: plant.device.snapshot(), bs: plant.bs };
    if is_dirty {
        assert!(repair(&after.device, &mut Yes).expect("replayed").clean, "{name}");
    }
    let needed = if is_dirty { witness::journals(&plant) } else { BTreeSet::new() };
    Base { name, kinds: damage::metadata(&plant), files: witness::files(&after), plant, needed }
}

fn make(bs: u32, format: u32, journals: u32, left: Left) -> MemoryDevice {
    let device = Arc::new(MemoryDevice::new((20 + 16 * u64::from(journals)) << 20));
    let small = gfs2r_mkfs::Options::small(bs).expect("a legal block size");
    let options = gfs2r_mkfs::Options { journals, format, ..small };
    gfs2r_mkfs::format_device(&*device, &options, &mut gfs2r_mkfs::Silent).expect("made");
    let options = OpenOptions { quota: QuotaMode::On, ..OpenOptions::default() };
    let opened = volume::open(device.clone(), &options, Arc::new(SimClock::new(1_700_000_000))).expect("opened");
    let fs = &opened.fs;
    fill(fs, bs);
    if left == Left::Closed {
        opened.close().expect("closed");
        return device.snapshot();
    }
    fs.sync().expect("synced");
    work(fs, left == Left::Unlinked);
    device.snapshot()
}

fn bytes(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 16 * 7 + i % 16 + seed) as u8).collect()
}

fn file(fs: &Fs, dir: BlockAddr, name: &str, pieces: &[(u64, usize)]) -> BlockAddr {
    let node = fs.make(&USER, dir, name.as_bytes(), &NewInode::File(0o644)).expect("made").inum.addr;
    for &(offset, len) in pieces {
        let written = fs.write(&USER, node, offset, &bytes(len, name.len()), false).expect("written");
        assert_eq!(written, len);
    }
    node
}

fn fill(fs: &Fs, bs: u32) {
    let bs = bs as usize;
    let dir =
        |parent, name: &str| fs.make(&ME, parent, name.as_bytes(), &NewInode::Dir(0o777)).expect("made").inum.addr;
    let root = fs.root();
    let (big, some) = (dir(root, "hashed"), dir(root, "some"));
    let deep = ["one", "two", "three"].iter().fold(some, |parent, name| dir(parent, name));
    for n in 0..400 {
        let name = format!("name-{n}-{}", "x".repeat(n % 50));
        file(fs, big, &name, if n % 4 == 0 { &[(0, 20)] } else { &[] });
    }
    for n in (0..400).step_by(3) {
        fs.unlink(big, format!("name-{n}-{}", "x".repeat(n % 50)).as_bytes()).expect("unlinked");
    }
    file(fs, deep, "stuffed", &[(0, 100)]);
    let data = file(fs, some, "data", &[(0, 90 * bs)]);
    file(fs, some, "sparse", &[(0, 3 * bs), (5000 * bs as u64, bs), (300_000 * bs as u64 + 5, 2 * bs)]);
    let journaled = file(fs, some, "journaled", &[]);
    fs.set_flags(&USER, journaled, JOURNALED).expect("journaled");
    fs.write(&USER, journaled, 0, &bytes(20 * bs, 9), false).expect("written");
    fs.link(&USER, data, deep, b"second name").expect("linked");
    for n in 0..30 {
        let name = format!("user.attribute {n}");
        fs.setxattr(&USER, data, name.as_bytes(), &bytes(n * 9, n), SetMode::Any).expect("set");
    }
    fs.setxattr(&USER, data, b"user.long", &bytes(2 * bs + 77, 1), SetMode::Any).expect("set");
    let entry = |tag: u16, perm: u16, id: u32| {
        [&tag.to_le_bytes()[..], &perm.to_le_bytes()[..], &id.to_le_bytes()[..]].concat()
    };
    let none = u32::MAX;
    let entries = [entry(1, 6, none), entry(2, 6, 77), entry(4, 4, none), entry(0x10, 6, none), entry(0x20, 4, none)];
    let acl = [2u32.to_le_bytes().to_vec(), entries.concat()].concat();
    fs.setxattr(&USER, journaled, b"system.posix_acl_access", &acl, SetMode::Any).expect("set");
    for (name, what) in [
        (&b"short"[..], NewInode::Symlink(b"../some/data")),
        (b"long", NewInode::Symlink(&[b'y'; 200])),
        (b"fifo", NewInode::Node(0o010644, (0, 0))),
        (b"device", NewInode::Node(0o020644, (5, 1))),
    ] {
        fs.make(&USER, deep, name, &what).expect("made");
    }
}

/// What is committed and not written in place.
fn work(fs: &Fs, unlinked: bool) {
    let some = fs.lookup(fs.root(), b"some").expect("there").inum.addr;
    let mut last = some;
    for n in 0..25 {
        last = file(fs, some, &format!("late {n}"), &[(0, 700 * n)]);
    }
    let journaled = fs.lookup(some, b"journaled").expect("there").inum.addr;
    fs.write(&USER, journaled, 300, &bytes(3000, 3), false).expect("written");
    if unlinked {
        for n in 0..5 {
            let name = format!("late {n}");
            // Still looked up: it stays until that is forgotten.
            fs.lookup(some, name.as_bytes()).expect("there");
            fs.unlink(some, name.as_bytes()).expect("unlinked");
        }
    }
    fs.fsync(journaled).expect("durable");
    fs.fsync(last).expect("durable");
}
