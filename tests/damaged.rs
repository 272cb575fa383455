//! A volume that is damaged in one place: opening it, or the first look at the place, says in one error what is wrong and where.
//! (What comes after that does not matter here: `tests/fuzz.rs` looks that nothing panics.)

#[allow(dead_code, reason = "each test uses its own part")]
#[path = "fuzz/base.rs"]
mod base;
#[allow(dead_code, reason = "each test uses its own part")]
#[path = "fuzz/tape.rs"]
mod tape;

use base::ME;
use gfs2r::clock::SimClock;
use gfs2r::device::MemoryDevice;
use gfs2r::error::{CorruptKind, Error};
use gfs2r::format::directory::LEAF_SIZE;
use gfs2r::format::log::{LD_METADATA, LH_FLUSH_NORMAL};
use gfs2r::format::superblock::{SUPERBLOCK_OFFSET, SuperblockError};
use gfs2r::format::{
    DiFlags, Dinode, Dirent, LogDescriptor, LogHeader, MetaHeader, MetaType, OnDisk, RgrpHeader, RindexEntry,
    Superblock, get_u64, put_u64,
};
use gfs2r::fs::{Fs, NewInode};
use gfs2r::ids::{BlockAddr, Jid};
use gfs2r::volume::{self, Layout, OpenError, OpenOptions, Opened};
use std::sync::Arc;

/// A copy of the volume with one of everything (`fuzz/base.rs`), block size 1024.
struct Disk {
    device: MemoryDevice,
    base: &'static base::Base,
}

const DINODE: usize = 232;

impl Disk {
    fn new() -> Self {
        let base = base::base(2);
        Self { device: base.device.snapshot(), base }
    }
    fn read(&self, block: u64) -> Vec<u8> {
        base::read(&self.device, self.base.bs, block)
    }
    /// Changes a block; checksums are made right.
    fn edit(&self, block: u64, f: impl FnOnce(&mut [u8])) {
        let mut bytes = self.read(block);
        f(&mut bytes);
        base::write(&self.device, self.base.bs, block, &mut bytes, true);
    }
    fn superblock(&self, f: impl FnOnce(&mut Superblock)) {
        self.edit(SUPERBLOCK_OFFSET >> self.base.bs.shift(), |b| f(Superblock::edit(b)));
    }
    fn open(&self) -> Result<Opened, OpenError> {
        let device = Arc::new(self.device.snapshot());
        volume::open(device, &OpenOptions::default(), Arc::new(SimClock::new(1_700_000_001)))
    }
    /// The error that opening gives.
    fn refused(&self) -> OpenError {
        match self.open() {
            Ok(_) => panic!("opened"),
            Err(e) => e,
        }
    }
    /// The contradiction that opening finds: where, what, as text.
    fn corrupt(&self) -> (u64, CorruptKind, String) {
        match self.refused() {
            OpenError::Other(e) => contradiction(e),
            e => panic!("{e}"),
        }
    }
    /// The contradiction that an operation on the opened volume finds.
    fn found_by<T>(&self, f: impl FnOnce(&Fs) -> Result<T, Error>) -> (u64, CorruptKind, String) {
        let opened = self.open().unwrap_or_else(|e| panic!("it should open: {e}"));
        match f(&opened.fs) {
            Ok(_) => panic!("nothing was found"),
            Err(e) => contradiction(e),
        }
    }
    /// Address of what a path leads to, from the root or, with a leading `//`, from the master directory.
    fn find(&self, path: &str) -> u64 {
        let layout = Layout::read(Arc::new(self.device.snapshot())).expect("whole");
        let sb = layout.identity().superblock;
        let top = if path.starts_with("//") { sb.master_dir } else { sb.root_dir };
        let mut at = top.addr.get();
        for name in path.split('/').filter(|n| !n.is_empty()) {
            let blocks = if Dinode::view(&self.read(at)).flags().has(DiFlags::EXHASH) {
                self.base.of_kind(MetaType::Leaf).iter().map(|&l| (l, LEAF_SIZE)).collect()
            } else {
                vec![(at, DINODE)]
            };
            at = blocks.iter().find_map(|&(b, start)| entry(&self.read(b), start, name.as_bytes())).expect(name).1;
        }
        at
    }
}

fn contradiction(e: Error) -> (u64, CorruptKind, String) {
    let text = e.to_string();
    match e {
        Error::Corrupt(c) => {
            assert!(text.contains(&format!("block {}", c.at)), "it does not say where: {text}");
            (c.at.get(), c.what, text)
        }
        e => panic!("not a contradiction: {e}"),
    }
}

/// Offset and address of an entry.
fn entry(block: &[u8], start: usize, name: &[u8]) -> Option<(usize, u64)> {
    let mut at = start;
    while at + 40 <= block.len() {
        let d = Dirent::view(&block[at..]);
        let len = usize::from(d.name_len.get());
        if d.inum.addr.get() != 0 && block[at + 40..].starts_with(name) && len == name.len() {
            return Some((at, d.inum.addr.get()));
        }
        at += usize::from(d.rec_len.get()).max(8);
    }
    None
}

fn block(n: u64) -> BlockAddr {
    BlockAddr::new(n).expect("not 0")
}

#[test]
fn the_volume_is_sound_before() {
    let disk = Disk::new();
    let opened = disk.open().expect("opens");
    let linear = opened.fs.lookup(opened.fs.root(), b"linear").expect("there");
    assert_eq!(linear.inum.addr.get(), disk.find("/linear"));
    opened.close().expect("closes");
}

#[test]
fn not_gfs2() {
    for bytes in [0, 512, SUPERBLOCK_OFFSET, SUPERBLOCK_OFFSET + 512, 1 << 20] {
        let empty = Disk { device: MemoryDevice::new(bytes), ..Disk::new() };
        let e = empty.refused();
        assert!(matches!(e, OpenError::Superblock(SuperblockError::NotGfs2)), "{bytes} bytes: {e}");
        assert!(e.to_string().contains("not a GFS2 filesystem"), "{e}");
    }
}

#[test]
fn superblocks() {
    type Change = fn(&mut Superblock);
    let cases: [(Change, SuperblockError, &str); 9] = [
        (|s| s.header.magic.set(1), SuperblockError::NotGfs2, "not a GFS2"),
        (|s| s.header.kind.set(2), SuperblockError::NotGfs2, "not a GFS2"),
        (|s| s.fs_format.set(1803), SuperblockError::UnknownFormat(1803, 1900), "1803/1900"),
        (|s| s.fs_format.set(1309), SuperblockError::UnknownFormat(1309, 1900), "1309/1900"),
        (|s| s.multihost_format.set(1401), SuperblockError::UnknownFormat(1802, 1401), "1802/1401"),
        (|s| s.bsize.set(3000), SuperblockError::BlockSize(3000), "block size 3000"),
        (|s| s.bsize.set(256), SuperblockError::BlockSize(256), "block size 256"),
        (|s| s.bsize_shift.set(12), SuperblockError::BlockSizeShift(1024, 12), "shift 12"),
        (|s| s.root_dir.addr.set(0), SuperblockError::NoRoot, "root directory"),
    ];
    for (change, want, text) in cases {
        let disk = Disk::new();
        disk.superblock(change);
        match disk.refused() {
            OpenError::Superblock(got) => {
                assert_eq!(got, want);
                assert!(got.to_string().contains(text), "{got}");
            }
            e => panic!("{want}: {e}"),
        }
    }
    // Another legal block size: nothing lies where it should.
    let disk = Disk::new();
    disk.superblock(|s| {
        s.bsize.set(4096);
        s.bsize_shift.set(12);
    });
    assert!(matches!(disk.corrupt().1, CorruptKind::MetaType { wanted: 4, .. }));
}

#[test]
fn a_device_that_ends_early() {
    for (bytes, text) in
        [(39 << 20, "ends before the filesystem"), (20 << 20, "ends before"), (10 << 20, "past the end of the device")]
    {
        let mut disk = Disk::new();
        disk.device.resize(bytes);
        let e = disk.refused();
        assert!(e.to_string().contains(text), "{bytes} bytes: {e}");
    }
    let mut disk = Disk::new();
    disk.device.resize((40 << 20) - 1024);
    // The last blocks may belong to no resource group.
    if let Err(e) = disk.open() {
        assert!(matches!(e, OpenError::Truncated(..)), "{e}");
    }
}

#[test]
fn system_files() {
    let disk = Disk::new();
    let master = disk.find("//");
    let missing = |name: &str, dir: &str, want: &str| {
        let disk = Disk::new();
        let dir = disk.find(dir);
        disk.edit(dir, |b| {
            let (at, _) = entry(b, DINODE, name.as_bytes()).expect("there");
            b[at + 40] ^= 0x20;
        });
        let (at, what, text) = disk.corrupt();
        assert!(matches!(what, CorruptKind::SystemFile(_)), "{text}");
        assert!(text.contains(want), "{text}");
        assert_eq!(at, dir, "{text}");
    };
    missing("jindex", "//", "without jindex");
    missing("per_node", "//", "without per_node");
    missing("rindex", "//", "without rindex");
    missing("statfs", "//", "without statfs");
    missing("quota", "//", "without quota");
    missing("statfs_change0", "//per_node", "without its statfs_change");
    missing("quota_change1", "//per_node", "without its quota_change");
    disk.edit(master, |b| b[0] = 0);
    let (at, what, _) = disk.corrupt();
    assert_eq!((at, what), (master, CorruptKind::MetaType { wanted: 4, found: 0 }));
    let disk = Disk::new();
    disk.edit(master, |b| Dirent::edit(&mut b[DINODE..]).rec_len.set(3));
    assert!(matches!(disk.corrupt(), (at, CorruptKind::Directory(_), _) if at == master));
}

#[test]
fn rindex() {
    let plant = |f: fn(&mut [u8]), g: fn(&mut Dinode)| {
        let disk = Disk::new();
        let rindex = disk.find("//rindex");
        // Where its contents are: in the dinode or in its first block.
        let bytes = disk.read(rindex);
        match Dinode::view(&bytes).height.get() {
            0 => disk.edit(rindex, |b| f(&mut b[DINODE..])),
            _ => disk.edit(get_u64(&bytes, DINODE), f),
        }
        disk.edit(rindex, |b| g(Dinode::edit(b)));
        let (at, what, text) = disk.corrupt();
        assert_eq!(at, rindex, "{text}");
        assert!(matches!(what, CorruptKind::Rgrp(_)), "{text}");
        text
    };
    assert!(plant(|_| {}, |d| d.size.set(95)).contains("multiple of 96"));
    assert!(plant(|_| {}, |d| d.size.set(0)).contains("multiple of 96"));
    assert!(plant(|b| RindexEntry::edit(b).addr.set(0), |_| {}).contains("address 0"));
    assert!(plant(|b| RindexEntry::edit(b).bitbytes.set(7), |_| {}).contains("bitmap"));
    assert!(plant(|b| RindexEntry::edit(b).length.set(1), |_| {}).contains("rindex entry"));
}

#[test]
fn resource_groups() {
    let disk = Disk::new();
    let layout = Layout::read(Arc::new(disk.device.snapshot())).expect("whole");
    let free = |e: &&gfs2r::format::rgrp::RgrpExtent| RgrpHeader::view(&disk.read(e.addr.get())).free.get();
    let first = *layout.rgrps().iter().max_by_key(free).expect("there is one");
    assert!(first.length > 1);
    let make = |fs: &Fs| {
        // Until one is put into the damaged group.
        (0..2000).try_for_each(|n| {
            let dir = fs.make(&ME, fs.root(), format!("d{n}").as_bytes(), &NewInode::Dir(0o755))?;
            fs.make(&ME, dir.inum.addr, b"f", &NewInode::File(0o644)).map(drop)
        })
    };
    for part in [0, 1] {
        let disk = Disk::new();
        let at = first.addr.get() + part;
        disk.edit(at, |b| b[3] ^= 1);
        let (found, what, text) = disk.found_by(make);
        assert_eq!(found, at, "{text}");
        assert_eq!(what, CorruptKind::MetaType { wanted: 2 + part as u32, found: 0 });
    }
    // The header counts other than the bitmap.
    let at = first.addr.get();
    disk.edit(at, |b| {
        let header = RgrpHeader::edit(b);
        let n = header.free.get();
        header.free.set(n - 1);
    });
    let (found, what, text) = disk.found_by(make);
    assert!(found == at && matches!(what, CorruptKind::Rgrp(_)), "{text}");
}

#[test]
fn dinodes() {
    let disk = Disk::new();
    let tree = disk.find("/linear/tree");
    let lookup = |fs: &Fs| {
        let dir = fs.lookup(fs.root(), b"linear")?;
        fs.lookup(dir.inum.addr, b"tree")
    };
    type Change = fn(&mut Dinode);
    let cases: [(Change, &str); 5] = [
        (|d| d.header.kind.set(5), "metadata type 5 where type 4 belongs"),
        (|d| d.num.addr.set(99), "lies elsewhere"),
        (|d| d.mode.set(0), "file type"),
        (|d| d.height.set(40), "higher than the format allows"),
        (|d| d.height.set(0), "larger than its block"),
    ];
    for (change, want) in cases {
        let disk = Disk::new();
        disk.edit(tree, |b| change(Dinode::edit(b)));
        let (at, _, text) = disk.found_by(lookup);
        assert_eq!(at, tree, "{text}");
        assert!(text.contains(want), "{text}");
    }
    // A pointer to where no file can be: the superblock.
    disk.edit(tree, |b| put_u64(b, DINODE, 64));
    let read = |fs: &Fs| {
        let node = lookup(fs)?.inum.addr;
        fs.read(node, 0, &mut [0; 100])
    };
    let (_, what, text) = disk.found_by(read);
    assert!(what == CorruptKind::Pointer(64) && text.contains("no file can own"), "{text}");
    // The entry leads to another inode than was meant.
    let disk = Disk::new();
    let linear = disk.find("/linear");
    let other = disk.find("/hashed");
    disk.edit(linear, |b| {
        let (at, _) = entry(b, DINODE, b"tree").expect("there");
        Dirent::edit(&mut b[at..]).inum.addr.set(other);
    });
    let opened = disk.open().expect("opens");
    assert!(matches!(lookup(&opened.fs), Err(Error::Stale | Error::Corrupt(_))));
}

#[test]
fn directories() {
    let list = |name: &'static [u8]| {
        move |fs: &Fs| {
            let dir = fs.lookup(fs.root(), name)?.inum.addr;
            fs.list(dir, 0, &mut |_| true)
        }
    };
    let disk = Disk::new();
    let (linear, hashed) = (disk.find("/linear"), disk.find("/hashed"));
    disk.edit(linear, |b| {
        let (at, _) = entry(b, DINODE, b"tree").expect("there");
        Dirent::edit(&mut b[at..]).rec_len.set(17);
    });
    let (at, what, text) = disk.found_by(list(b"linear"));
    assert!(at == linear && matches!(what, CorruptKind::Directory(_)), "{text}");
    assert!(text.contains("record length"), "{text}");

    let disk = Disk::new();
    disk.edit(linear, |b| {
        let d = Dinode::edit(b);
        let n = d.entries.get();
        d.entries.set(n + 1);
    });
    let (at, _, text) = disk.found_by(list(b"linear"));
    assert!(at == linear && text.contains("number of entries"), "{text}");

    let disk = Disk::new();
    let table = Dinode::view(&disk.read(hashed)).height.get() > 0;
    assert!(!table, "the table lies in the dinode");
    let leaf = get_u64(&disk.read(hashed), DINODE);
    disk.edit(leaf, |b| MetaHeader::edit(b).kind.set(7));
    let (at, what, _) = disk.found_by(list(b"hashed"));
    assert_eq!((at, what), (leaf, CorruptKind::MetaType { wanted: 6, found: 7 }));

    let disk = Disk::new();
    disk.edit(hashed, |b| put_u64(b, DINODE, 0));
    let (at, _, text) = disk.found_by(list(b"hashed"));
    assert!(at == hashed && text.contains("slot without a leaf"), "{text}");

    // A chain that bites its tail.
    let disk = Disk::new();
    disk.edit(leaf, |b| gfs2r::format::Leaf::edit(b).next.set(leaf));
    let (_, what, text) = disk.found_by(list(b"hashed"));
    assert!(matches!(what, CorruptKind::Directory(_)), "{text}");
}

#[test]
fn extended_attributes() {
    let disk = Disk::new();
    let tree = disk.find("/linear/tree");
    let get = |fs: &Fs| {
        let dir = fs.lookup(fs.root(), b"linear")?.inum.addr;
        let node = fs.lookup(dir, b"tree")?.inum.addr;
        fs.getxattr(node, b"user.long")
    };
    let root = Dinode::view(&disk.read(tree)).eattr.get();
    let indirect = Dinode::view(&disk.read(tree)).flags().has(DiFlags::EA_INDIRECT);
    assert!(indirect, "one of everything");
    disk.edit(root, |b| b[0] ^= 1);
    let (at, what, _) = disk.found_by(get);
    assert_eq!((at, what), (root, CorruptKind::MetaType { wanted: 5, found: 0 }));
    let disk = Disk::new();
    let first = get_u64(&disk.read(root), 24);
    disk.edit(first, |b| put_u64(b, 24, 0));
    let (at, what, text) = disk.found_by(get);
    assert!(at == first && matches!(what, CorruptKind::Xattr(_)), "{text}");
    // The block of its attributes is the superblock.
    let disk = Disk::new();
    disk.edit(tree, |b| Dinode::edit(b).eattr.set(64));
    assert_eq!(disk.found_by(get).1, CorruptKind::Pointer(64));
}

#[test]
fn journals() {
    let disk = Disk::new();
    let journal = disk.find("//jindex/journal0");
    disk.edit(journal, |b| Dinode::edit(b).size.set(8 << 30));
    let (at, what, text) = disk.corrupt();
    assert!(at == journal && matches!(what, CorruptKind::Journal(_)) && text.contains("8 MiB and 1 GiB"), "{text}");

    let disk = Disk::new();
    disk.edit(journal, |b| put_u64(b, DINODE, 0));
    let (at, _, text) = disk.corrupt();
    assert!(at == journal && text.contains("hole"), "{text}");

    // A dirty log whose section reaches past its header.
    let disk = Disk::new();
    let headers = disk.base.journal.iter().enumerate().filter(|&(_, &b)| LogHeader::is_valid(&disk.read(b)));
    let newest = headers.max_by_key(|&(_, &b)| LogHeader::view(&disk.read(b)).sequence.get());
    let (n, &at) = newest.expect("a journal");
    let len = disk.base.journal.len();
    let mut header = disk.read(at);
    let (descriptor, end) = (disk.base.journal[(n + 1) % len], disk.base.journal[(n + 2) % len]);
    disk.edit(descriptor, |b| {
        b.fill(0);
        MetaHeader::init(b, MetaType::LogDescriptor);
        let ld = LogDescriptor::edit(b);
        ld.kind.set(LD_METADATA);
        ld.length.set(1000);
        ld.data1.set(999);
    });
    let lh = LogHeader::edit(&mut header);
    let sequence = lh.sequence.get() + 1;
    lh.sequence.set(sequence);
    lh.flags.set(LH_FLUSH_NORMAL);
    lh.tail.set(((n + 1) % len) as u32);
    lh.blkno.set(((n + 2) % len) as u32);
    base::write(&disk.device, disk.base.bs, end, &mut header, true);
    let (at, what, text) = disk.corrupt();
    assert!(matches!(what, CorruptKind::Journal(_)), "{text}");
    assert_eq!(block(at), block(descriptor), "{text}");

    // A journal that is not there.
    let disk = Disk::new();
    let options = OpenOptions { jid: Jid(7), ..OpenOptions::default() };
    let device = Arc::new(disk.device.snapshot());
    match volume::open(device, &options, Arc::new(SimClock::new(1))) {
        Err(OpenError::NoJournal(Jid(7), 2)) => {}
        other => panic!("{:?}", other.err()),
    }
}
