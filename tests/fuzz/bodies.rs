//! What is done with one input, for each target. Used by `tests/fuzz.rs` and by `fuzz/fuzz_targets`.
#![allow(unreachable_pub, reason = "the crate of the targets uses it")]

use crate::base::{self, Base, ME};
use crate::exercise::{exercise, inspect};
use crate::harness::World;
use crate::ops::{self, Rng};
use crate::tape::Tape;
use gfs2r::clock::SimClock;
use gfs2r::device::MemoryDevice;
use gfs2r::format::dinode::DINODE_SIZE;
use gfs2r::format::directory::{DIRENT_SIZE, LEAF_SIZE, dirent_len};
use gfs2r::format::log::{LD_ITEMS, LD_JDATA, LD_METADATA, LD_REVOKE};
use gfs2r::format::{
    Dinode, Dirent, Leaf, LogDescriptor, LogHeader, MetaHeader, MetaType, OnDisk, RindexEntry, Superblock, be,
    checksum, get_u64, put_u64,
};
use gfs2r::fs::{NewInode, RenameHow};
use gfs2r::ids::{BlockAddr, BlockSize};
use gfs2r::volume::{self, OpenOptions};
use std::sync::Arc;

/// A target: its name and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 5] = [("block", block), ("journal", journal), ("dir", dir), ("ops", ops), ("image", image)];

/// Any bytes as any structure of the disk: read on their own, and in the place of a block of a volume.
///
/// Input: volume, block (type, which), how, then the bytes.
pub fn block(input: &[u8]) {
    let mut tape = Tape::new(input);
    let base = base::choose(&mut tape);
    let at = base.any_block(&mut tape);
    let how = tape.u8();
    let rest = tape.take(base.bs.bytes());
    parse(rest);
    let device = base.device.snapshot();
    let mut bytes = base::read(&device, base.bs, at);
    // Mostly behind the header, so that it is not refused at its first word.
    let from = if how & 3 == 0 { 0 } else { 24 };
    let end = (from + rest.len()).min(bytes.len());
    bytes[from..end].copy_from_slice(&rest[..end - from]);
    if how & 0x0c != 0 && MetaHeader::view_kind(&bytes) == MetaType::Dinode as u32 {
        // It says where it lies, or it is refused.
        let dinode = Dinode::edit(&mut bytes);
        dinode.num.addr.set(at);
    }
    base::write(&device, base.bs, at, &mut bytes, how & 0x10 == 0);
    let device = Arc::new(device);
    if how & 0xe0 == 0xe0 {
        inspect(&*device);
    }
    exercise(&device, &mut tape);
}

/// Bytes on their own.
fn parse(bytes: &[u8]) {
    let padded = |len: usize| {
        let mut block = bytes.to_vec();
        block.resize(len.max(bytes.len()), 0);
        block
    };
    let at = BlockAddr::new(17).expect("not 0");
    for size in [512, 4096, 65536] {
        let (bs, block) = (BlockSize::new(size).expect("legal"), padded(size as usize));
        for kind in 0..20 {
            if let Some(kind) = MetaType::from_raw(kind)
                && let Err(e) = MetaHeader::check(&block, at, kind)
            {
                assert!(!e.to_string().is_empty());
            }
        }
        if let Ok(dinode) = gfs2r::inode::check_dinode(&block, at, bs) {
            assert_eq!(dinode.num.addr.get(), 17);
        }
        if let Ok(extent) = gfs2r::format::rgrp::RgrpExtent::check(RindexEntry::view(&block), bs) {
            let (first, _, len) = extent.bitmap_part(bs, 0);
            assert!(first + len as usize <= bs.bytes() && extent.end() > extent.addr.get());
        }
        LogHeader::is_valid(&block);
    }
    let block = padded(4096);
    match Superblock::view(&block).check() {
        Ok(bs) => assert!(bs.bytes() >= 512),
        Err(e) => assert!(!e.to_string().is_empty()),
    }
    if let Ok(Some(acl)) = gfs2r::xattr::acl::Acl::parse(bytes) {
        assert_eq!(gfs2r::xattr::acl::Acl::parse(&acl.to_bytes()).expect("what was written"), Some(acl));
    }
    gfs2r::xattr::split_name(bytes);
}

/// A log of any shape, replayed.
///
/// Input: volume, then steps: log sections with fields of the input's choice, written behind the newest header; at the end
/// single bytes anywhere in the log.
pub fn journal(input: &[u8]) {
    let mut tape = Tape::new(input);
    let base = base::choose(&mut tape);
    let device = base.device.snapshot();
    let mut log = Log::new(base, &device);
    for _ in 0..24 {
        if tape.is_empty() {
            break;
        }
        match tape.below(8) {
            0 | 1 => log.header(&mut tape),
            2 | 3 => log.blocks(&mut tape, LD_METADATA),
            4 => log.blocks(&mut tape, LD_JDATA),
            5 => log.revokes(&mut tape),
            6 => log.damage(&mut tape),
            _ => log.patch(&mut tape),
        }
    }
    let device = Arc::new(device);
    if tape.once_in(8) {
        inspect(&*device);
    }
    let look = OpenOptions { read_only: true, norecovery: true, ..OpenOptions::default() };
    drop(volume::open(Arc::new(device.snapshot()), &look, Arc::new(SimClock::new(1))));
    exercise(&device, &mut tape);
}

/// Writes a log behind what is there.
struct Log<'b> {
    base: &'b Base,
    device: &'b MemoryDevice,
    /// The next journal block and the sequence number of the newest header.
    next: usize,
    sequence: u64,
    start: usize,
}

impl<'b> Log<'b> {
    fn new(base: &'b Base, device: &'b MemoryDevice) -> Self {
        let newest = base.journal.iter().enumerate().filter_map(|(n, &block)| {
            let bytes = base::read(device, base.bs, block);
            LogHeader::is_valid(&bytes).then(|| (LogHeader::view(&bytes).sequence.get(), n))
        });
        let (sequence, n) = newest.max().unwrap_or((1, 0));
        Self { base, device, next: n + 1, sequence, start: n + 1 }
    }
    fn block(&self, n: usize) -> u64 {
        self.base.journal[n % self.base.journal.len()]
    }
    fn put(&mut self, bytes: &mut [u8], seal: bool) {
        base::write(self.device, self.base.bs, self.block(self.next), bytes, seal);
        self.next += 1;
    }
    fn header(&mut self, tape: &mut Tape<'_>) {
        let how = tape.u8();
        let mut bytes = base::read(self.device, self.base.bs, self.block(self.start + self.base.journal.len() - 1));
        self.sequence = if how & 7 == 7 { tape.u64() } else { self.sequence.wrapping_add(1) };
        let len = self.base.journal.len();
        MetaHeader::init(&mut bytes, MetaType::LogHeader);
        let lh = LogHeader::edit(&mut bytes);
        lh.sequence.set(self.sequence);
        lh.flags.set(u32::from(how >> 3 & 3 == 3));
        lh.tail.set(if how >> 5 == 7 { tape.u32() } else { (self.start % len) as u32 });
        lh.blkno.set(if how >> 5 == 6 { tape.u32() } else { (self.next % len) as u32 });
        lh.local_free.set(tape.u8() as i64 - 128);
        self.put(&mut bytes, true);
    }
    /// A block that a section may name.
    fn address(&self, tape: &mut Tape<'_>) -> u64 {
        match tape.below(8) {
            0 => tape.u64(),
            1 => u64::from(tape.u16()),
            2 => self.base.journal[tape.below(self.base.journal.len())],
            _ => self.base.any_block(tape),
        }
    }
    fn descriptor(&mut self, tape: &mut Tape<'_>, kind: u32, length: u32, items: u32) -> Vec<u8> {
        let how = tape.u8();
        let mut bytes = vec![0; self.base.bs.bytes()];
        MetaHeader::init(&mut bytes, MetaType::LogDescriptor);
        let ld = LogDescriptor::edit(&mut bytes);
        ld.kind.set(if how & 7 == 7 { tape.u32() } else { kind });
        ld.length.set(if how >> 3 & 7 == 7 { tape.u32() } else { length });
        ld.data1.set(if how >> 6 == 3 { tape.u32() } else { items });
        bytes
    }
    fn blocks(&mut self, tape: &mut Tape<'_>, kind: u32) {
        let count = tape.below(6);
        let mut head = self.descriptor(tape, kind, 1 + count as u32, count as u32);
        let mut copies = Vec::new();
        for n in 0..count {
            let addr = self.address(tape);
            let mut bytes = match (addr << self.base.bs.shift()) >> self.base.bs.shift() == addr
                && addr < self.base.bs.block_of(gfs2r::device::BlockDevice::size(self.device))
            {
                true => base::read(self.device, self.base.bs, addr),
                false => vec![0; self.base.bs.bytes()],
            };
            if kind == LD_METADATA {
                put_u64(&mut head, LD_ITEMS + 8 * n, addr);
            } else {
                let escaped = u64::from(tape.u8() & 1);
                if escaped == 1 {
                    bytes[..4].fill(0);
                }
                put_u64(&mut head, LD_ITEMS + 16 * n, addr);
                put_u64(&mut head, LD_ITEMS + 16 * n + 8, escaped);
            }
            scribble(&mut bytes, tape);
            copies.push(bytes);
        }
        self.put(&mut head, false);
        for mut bytes in copies {
            self.put(&mut bytes, true);
        }
    }
    fn revokes(&mut self, tape: &mut Tape<'_>) {
        let count = tape.below(6);
        let mut head = self.descriptor(tape, LD_REVOKE, 1, count as u32);
        for n in 0..count {
            let addr = self.address(tape);
            put_u64(&mut head, LD_ITEMS + 8 * n, addr);
        }
        self.put(&mut head, false);
    }
    /// Changes one of the blocks that were written last.
    fn damage(&mut self, tape: &mut Tape<'_>) {
        let block = self.block(self.next + self.base.journal.len() - 1 - tape.below(16));
        let mut bytes = base::read(self.device, self.base.bs, block);
        scribble(&mut bytes, tape);
        base::write(self.device, self.base.bs, block, &mut bytes, tape.u8() & 3 != 0);
    }
    /// Changes any block of the log.
    fn patch(&mut self, tape: &mut Tape<'_>) {
        let block = self.block(tape.below(self.base.journal.len()));
        let mut bytes = base::read(self.device, self.base.bs, block);
        scribble(&mut bytes, tape);
        base::write(self.device, self.base.bs, block, &mut bytes, tape.u8() & 3 != 0);
    }
}

/// Changes a few numbers of a block.
fn scribble(bytes: &mut [u8], tape: &mut Tape<'_>) {
    for _ in 0..tape.below(4) {
        let end = if tape.once_in(3) { bytes.len() } else { bytes.len().min(256) };
        let width = *tape.pick(&[1, 2, 4, 8]);
        let at = tape.below(end) / width * width;
        let old = bytes[at..at + width].iter().fold(0u64, |n, &b| n << 8 | u64::from(b));
        let new = match tape.below(8) {
            0 => 0,
            1 => u64::MAX,
            2 => u64::from(tape.u8()),
            3 => u64::from(tape.u16()),
            4 => tape.u64(),
            5 => old.wrapping_add(u64::from(tape.u8())),
            6 => old.wrapping_sub(u64::from(tape.u8())),
            _ => old ^ 1 << (tape.u8() % 64),
        };
        bytes[at..at + width].copy_from_slice(&be::U64::new(new).to_bytes()[8 - width..]);
    }
}

/// Directory blocks of any contents, read and changed.
///
/// Input: volume, then edits (records of the input's choice, or numbers changed) of blocks of the two directories, then
/// operations in them.
pub fn dir(input: &[u8]) {
    let mut tape = Tape::new(input);
    let base = base::base(tape.below(4));
    let device = base.device.snapshot();
    for _ in 0..1 + tape.below(4) {
        edit_directory(base, &device, &mut tape);
    }
    let device = Arc::new(device);
    if tape.once_in(8) {
        inspect(&*device);
    }
    let clock = Arc::new(SimClock::new(1_700_000_001));
    let Ok(opened) = volume::open(device.clone(), &OpenOptions::default(), clock) else { return };
    let fs = &opened.fs;
    let found: Vec<BlockAddr> =
        [&b"linear"[..], b"hashed"].iter().filter_map(|n| fs.lookup(fs.root(), n).ok().map(|a| a.inum.addr)).collect();
    let dirs = [&[fs.root()], found.as_slice()].concat();
    let name = |tape: &mut Tape<'_>| match tape.below(6) {
        0 => b"stuffed".to_vec(),
        1 => format!("a name of some length {}", tape.u8()).into_bytes(),
        2 => vec![b'l'; 1 + usize::from(tape.u8())],
        3 => b"..".to_vec(),
        4 => tape.take(3).to_vec(),
        _ => format!("n{}", tape.u8()).into_bytes(),
    };
    for n in 0..80 {
        if tape.is_empty() && n > 3 {
            break;
        }
        let (op, dir, to) = (tape.below(8), *tape.pick(&dirs), *tape.pick(&dirs));
        let (one, other) = (name(&mut tape), name(&mut tape));
        // Whatever they answer.
        match op {
            0 => drop(fs.lookup(dir, &one)),
            1 => drop(fs.make(&ME, dir, &one, &NewInode::File(0o600))),
            2 => drop(fs.make(&ME, dir, &one, &NewInode::Dir(0o700))),
            3 => drop(fs.unlink(dir, &one)),
            4 => drop(fs.rmdir(dir, &one)),
            5 => drop(fs.rename(&ME, (dir, &one), (to, &other), RenameHow::Replace)),
            6 => {
                for n in 0..usize::from(tape.u8()) {
                    drop(fs.make(&ME, dir, format!("many {n}").as_bytes(), &NewInode::File(0o600)));
                }
            }
            _ => {
                let mut from = 0;
                let mut left = 3000u32;
                let start = u64::from(tape.u32()) << tape.below(32);
                drop(fs.list(dir, start, &mut |item| {
                    assert!(item.next > start && item.next > from, "a listing that goes back");
                    from = item.next;
                    left -= 1;
                    left > 0
                }));
            }
        }
    }
    exercise(&device, &mut tape);
    drop(opened.close());
}

/// One edit of a block of a directory.
fn edit_directory(base: &Base, device: &MemoryDevice, tape: &mut Tape<'_>) {
    let is_dir = |&&b: &&u64| Dinode::view(&base::read(&base.device, base.bs, b)).mode.get() >> 12 == 4;
    let dinodes: Vec<u64> = base.of_kind(MetaType::Dinode).iter().filter(is_dir).copied().collect();
    let leaves = base.of_kind(MetaType::Leaf);
    let (at, start) = match tape.below(4) {
        0 => (*tape.pick(&dinodes), DINODE_SIZE),
        3 => (*tape.pick(base.of_kind(MetaType::JournaledData)), 24),
        _ => (*tape.pick(leaves), LEAF_SIZE),
    };
    let mut bytes = base::read(device, base.bs, at);
    match tape.below(4) {
        0 => records(&mut bytes, start, base, tape),
        1 => {
            // Pointers of a hash table, or the chain of a leaf.
            for _ in 0..1 + tape.below(8) {
                let to = if tape.once_in(4) { tape.u64() } else { *tape.pick(leaves) };
                if start == LEAF_SIZE {
                    Leaf::edit(&mut bytes).next.set(to);
                } else {
                    let slots = (bytes.len() - start) / 8;
                    put_u64(&mut bytes, start + 8 * tape.below(slots), to);
                }
            }
        }
        2 => scribble(&mut bytes, tape),
        _ => {
            let from = start + tape.below(bytes.len() - start);
            let new = tape.take(64.min(bytes.len() - from));
            bytes[from..from + new.len()].copy_from_slice(new);
        }
    }
    base::write(device, base.bs, at, &mut bytes, false);
}

/// Fills a block with records whose fields are mostly right.
fn records(bytes: &mut [u8], start: usize, base: &Base, tape: &mut Tape<'_>) {
    let mut at = start;
    let dinodes = base.of_kind(MetaType::Dinode);
    while at + DIRENT_SIZE < bytes.len() && !tape.is_empty() {
        let how = tape.u8();
        let len = 1 + usize::from(tape.u8());
        let name: Vec<u8> = match how & 3 {
            0 => tape.take(len).to_vec(),
            1 => vec![b'l'; len],
            _ => format!("n{len}").into_bytes(),
        };
        let used = dirent_len(name.len());
        let inode = *tape.pick(dinodes);
        let formal = get_u64(&base::read(&base.device, base.bs, inode), 24);
        let room = bytes.len() - at;
        let entry = Dirent::edit(&mut bytes[at..]);
        entry.inum.addr.set(if how & 0x1c == 0x1c { tape.u64() } else { inode });
        entry.inum.formal.set(if how & 0x2c == 0x2c { 0 } else { formal });
        entry.hash.set(if how & 0xc0 == 0xc0 { tape.u32() } else { checksum::dir_hash(&name).0 });
        let len = if how & 0xb0 == 0xb0 { usize::from(tape.u16()) } else { used };
        let len = if how & 0x34 == 0x34 || room < used + DIRENT_SIZE { room } else { len };
        entry.rec_len.set(len as u16);
        entry.name_len.set(name.len() as u16);
        entry.kind.set(u16::from(how & 0x0f) % 14);
        let fits = name.len().min(room - DIRENT_SIZE);
        bytes[at + DIRENT_SIZE..][..fits].copy_from_slice(&name[..fits]);
        at += len.max(DIRENT_SIZE);
    }
    if start == LEAF_SIZE {
        Leaf::edit(bytes).entries.set(u16::from(tape.u8()));
    }
}

/// Operations on a sound volume, each compared with the model; the checker looks at the end.
///
/// Input: volume and caches, then operations.
pub fn ops(input: &[u8]) {
    let mut tape = Tape::new(input);
    let size = *tape.pick(&[512, 1024, 2048, 4096]);
    let how = tape.u8();
    let device = Arc::new(fresh(size, how & 1 == 0).snapshot());
    let options = OpenOptions {
        cache_bytes: if how & 2 == 0 { 1 << 16 } else { 64 << 20 },
        cached_inodes: if how & 4 == 0 { 8 } else { 1 << 16 },
        quota: if how & 8 == 0 { gfs2r::quota::QuotaMode::Off } else { gfs2r::quota::QuotaMode::On },
        ordered: how & 16 == 0,
        ..OpenOptions::default()
    };
    let mut world = World::new(device.clone(), options);
    let mut rng = Rng::scripted(tape.take(usize::MAX));
    for n in 0..150 {
        if rng.is_done() {
            break;
        }
        let op = ops::random(&mut rng, u64::from(size));
        if std::env::var_os("FUZZ_LOOK").is_some() {
            println!("{n}: {op:?}");
        }
        world.apply(&op);
        if n % 64 == 63 {
            world.remount();
        }
    }
    world.check_all();
    world.finish();
    let report = gfs2r_fsck::check(&*device, &gfs2r_fsck::Options { ignore_unlinked: true, ..Default::default() });
    let report = report.expect("a volume");
    let found: Vec<String> = report.errors().take(20).map(|i| format!("{i}")).collect();
    assert!(found.is_empty(), "the checker found:\n{}", found.join("\n"));
}

/// An empty volume, which ops begin with.
fn fresh(block_size: u32, newest: bool) -> &'static MemoryDevice {
    static ALL: [std::sync::OnceLock<MemoryDevice>; 8] = [const { std::sync::OnceLock::new() }; 8];
    let n = block_size.ilog2() as usize - 9 + 4 * usize::from(newest);
    ALL[n].get_or_init(|| {
        let device = MemoryDevice::new(64 << 20);
        let small = gfs2r_mkfs::Options::small(block_size).expect("legal");
        let options = gfs2r_mkfs::Options { format: if newest { 1802 } else { 1801 }, ..small };
        gfs2r_mkfs::format_device(&device, &options, &mut gfs2r_mkfs::Silent).expect("the volume is made");
        device
    })
}

/// A whole volume with numbers changed in its metadata.
///
/// Input: volume, then edits: block (type, which), numbers; then what is done.
pub fn image(input: &[u8]) {
    let mut tape = Tape::new(input);
    let base = base::choose(&mut tape);
    let device = base.device.snapshot();
    for _ in 0..1 + tape.below(6) {
        let at = base.any_block(&mut tape);
        let mut bytes = base::read(&device, base.bs, at);
        if tape.once_in(5) {
            // The place of an address is taken by another.
            let to = base.any_block(&mut tape);
            let slots = bytes.len() / 8;
            let slot = if tape.once_in(2) { tape.below(slots) } else { tape.below(64) };
            put_u64(&mut bytes, 8 * slot, to);
        } else {
            scribble(&mut bytes, &mut tape);
        }
        base::write(&device, base.bs, at, &mut bytes, tape.u8() & 7 != 7);
    }
    let device = Arc::new(device);
    if tape.once_in(16) {
        inspect(&*device);
    }
    exercise(&device, &mut tape);
    if tape.once_in(32) {
        inspect(&*device);
    }
}
