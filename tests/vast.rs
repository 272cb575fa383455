//! A volume of more than 16 TiB: blocks beyond 2^32, thousands of resource groups, files that reach past 2^44 bytes.

mod support;

use gfs2r::clock::SimClock;
use gfs2r::device::{BlockDevice, MemoryDevice};
use gfs2r::format::RgrpHeader;
use gfs2r::format::{MetaType, OnDisk};
use gfs2r::fs::{Caller, NewInode, SetAttr};
use gfs2r::ids::BlkState;
use gfs2r::volume::{self, Layout, OpenOptions};
use std::sync::Arc;

const ME: Caller = Caller { uid: 0, gid: 0, umask: 0 };
const SIZE: u64 = 17 << 40;

/// Makes every resource group but the last say that it is not to be allocated from, so that what is made lies at the end.
fn only_the_last_group(device: &MemoryDevice, layout: &Layout) {
    let bs = layout.identity().bs;
    let (_, but_last) = layout.rgrps().split_last().expect("some");
    for extent in but_last {
        let mut block = vec![0; bs.bytes()];
        device.read(bs.offset(extent.addr), &mut block).expect("inside");
        let header = RgrpHeader::edit(&mut block);
        assert_eq!(header.header.kind.get(), MetaType::Rgrp as u32);
        header.flags.set(gfs2r::format::rgrp::RG_NOALLOC);
        let crc = header.checksum();
        header.crc.set(crc);
        device.write(bs.offset(extent.addr), &block).expect("inside");
    }
}

#[test]
fn seventeen_tebibytes() {
    let device = Arc::new(MemoryDevice::new(SIZE));
    let small = gfs2r_mkfs::Options::small(4096).expect("legal");
    let options = gfs2r_mkfs::Options { rgrp_mib: 2048, ..small };
    gfs2r_mkfs::format_device(&*device, &options, &mut gfs2r_mkfs::Silent).expect("the volume is made");
    let layout = Layout::read(device.clone()).expect("whole");
    assert!(layout.rgrps().last().expect("some").end() > 1 << 32, "beyond 2^32 blocks");
    println!("{} resource groups, {} MiB of memory", layout.rgrps().len(), device.allocated() >> 20);
    only_the_last_group(&device, &layout);

    let clock = || Arc::new(SimClock::new(1_700_000_000));
    let opened = volume::open(device.clone(), &OpenOptions::default(), clock()).expect("opens");
    let fs = &opened.fs;
    let before = fs.space();
    assert!(before.free > 4_200_000_000 && before.total > before.free, "{before:?}");
    let dir = fs.make(&ME, fs.root(), b"at the end", &NewInode::Dir(0o755)).expect("room").inum.addr;
    let file = fs.make(&ME, dir, b"file", &NewInode::File(0o644)).expect("room").inum.addr;
    assert!(file.get() > 1 << 32, "it lies at {file}");
    let bytes: Vec<u8> = (0..3 << 20).map(|i: u32| (i >> 3) as u8).collect();
    for at in [0, 1 << 44, (1 << 60) + 12_345] {
        assert_eq!(fs.write(&ME, file, at, &bytes, false).expect("room"), bytes.len());
    }
    let doomed = fs.make(&ME, dir, b"doomed", &NewInode::File(0o644)).expect("room").inum.addr;
    fs.write(&ME, doomed, 0, &bytes, false).expect("room");
    fs.unlink(dir, b"doomed").expect("there");
    fs.forget(doomed, 1).expect("deleted");
    fs.setattr(&ME, file, &SetAttr { size: Some((1 << 60) + 20_000), ..SetAttr::default() }).expect("shrinks");
    opened.close().expect("closes");

    let opened = volume::open(device.clone(), &OpenOptions::default(), clock()).expect("opens again");
    let fs = &opened.fs;
    let dir = fs.lookup(fs.root(), b"at the end").expect("there").inum.addr;
    let file = fs.lookup(dir, b"file").expect("there");
    assert_eq!(file.size, (1 << 60) + 20_000);
    for (at, len) in [(0, bytes.len()), (1 << 44, bytes.len()), ((1 << 60) + 12_345, 20_000 - 12_345)] {
        let mut got = vec![0; len];
        assert_eq!(fs.read(file.inum.addr, at, &mut got).expect("there"), len);
        assert!(got == bytes[..len], "the bytes at {at}");
    }
    let used = before.free - fs.space().free;
    opened.close().expect("closes");

    // What the counters say is what the bitmaps say.
    let layout = Layout::read(device.clone()).expect("whole");
    let last = layout.rgrps().len() - 1;
    let count = |state| layout.count(&*device, last, state).expect("readable");
    assert_eq!(count(BlkState::Used) + count(BlkState::Dinode), used, "blocks of the last group in use");
    assert_eq!((count(BlkState::Dinode), count(BlkState::Unlinked)), (2, 0));
    assert_eq!(used * 8, file.blocks + 8, "the file's and the directory's");
}
