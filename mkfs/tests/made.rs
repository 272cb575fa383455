//! What is made is a filesystem, whatever other tools are installed; and until it is, nothing looks like one.

use gfs2r::device::{BlockDevice, CrashMode, MemoryDevice, SimDevice};
use gfs2r::format::header::MAGIC;
use gfs2r::format::rgrp::{RgrpExtent, bitmap_location};
use gfs2r::format::superblock::SUPERBLOCK_OFFSET;
use gfs2r::format::{Dinode, MetaHeader, MetaType, OnDisk, RgrpHeader, Superblock};
use gfs2r::ids::BlkState;
use gfs2r_mkfs::geometry::Alignment;
use gfs2r_mkfs::{Options, Plan, Silent, format_device, make_image};

const MIB: u64 = 1 << 20;

fn small(bs: u32) -> Options {
    Options::small(bs).expect("a legal block size")
}

fn read(disk: &MemoryDevice, offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    disk.read(offset, &mut bytes).expect("inside the disk");
    bytes
}

/// Counts free blocks and dinodes of an rgrp by its bitmap, and checks header and dinodes against it.
fn check_rgrp(disk: &MemoryDevice, plan: &Plan, rg: &RgrpExtent) -> (u64, u64) {
    let bs = plan.layout.bs;
    let bytes = read(disk, bs.offset(rg.addr), rg.length as usize * bs.bytes());
    for (n, block) in bytes.chunks_exact(bs.bytes()).enumerate() {
        let kind = if n == 0 { MetaType::Rgrp } else { MetaType::Bitmap };
        MetaHeader::check(block, rg.addr, kind).expect("a block of the rgrp");
    }
    let (mut free, mut dinodes) = (0, 0);
    for index in 0..rg.data {
        let (block, offset) = bitmap_location(bs, index / 4);
        match BlkState::from_bits(bytes[block as usize * bs.bytes() + offset] >> (2 * (index % 4))) {
            BlkState::Free => free += 1,
            BlkState::Used => {}
            BlkState::Unlinked => panic!("an unlinked dinode in a new filesystem"),
            BlkState::Dinode => {
                dinodes += 1;
                let block = read(disk, bs.offset(rg.block_at(index)), bs.bytes());
                MetaHeader::check(&block, rg.block_at(index), MetaType::Dinode).expect("a dinode");
                assert_eq!(Dinode::view(&block).num.addr.get(), rg.block_at(index).get());
            }
        }
    }
    let header = RgrpHeader::view(&bytes);
    assert_eq!((u64::from(header.free.get()), u64::from(header.dinodes.get())), (free, dinodes));
    assert_eq!(header.crc.get(), header.checksum());
    (free, dinodes)
}

#[test]
fn every_block_is_accounted_for() {
    let cases = [
        (32, small(4096)),
        (32, small(512)),
        (64, Options { journals: 2, ..small(512) }),
        (80, Options { journals: 3, rgrp_mib: 32, quota_change_mib: 2, ..small(1024) }),
        (90, Options { alignment: Alignment { base: 24, offset: 6 }, rgrp_mib: 32, ..small(2048) }),
    ];
    for (mib, options) in cases {
        let disk = MemoryDevice::new(mib * MIB);
        let plan = Plan::new(disk.size(), &options).expect("fits");
        format_device(&disk, &options, &mut Silent).expect("made");
        let sb = read(&disk, SUPERBLOCK_OFFSET, options.block_size.bytes());
        assert_eq!(Superblock::view(&sb).check(), Ok(options.block_size));
        let counted = plan.layout.rgrps.iter().map(|rg| check_rgrp(&disk, &plan, rg));
        let (free, dinodes) = counted.fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
        let (_, [total, stated_free, stated_dinodes]) = plan.numbers();
        assert_eq!(
            (total, stated_free, stated_dinodes),
            (plan.layout.data_blocks() as i64, free as i64, dinodes as i64),
            "{options:?}"
        );
        // What each dinode says it owns, all together, is what the bitmaps say is used.
        let mut owned = 0;
        for (offset, bytes) in make_image(mib * MIB, &options).expect("made again") {
            let blocks = bytes.chunks_exact(options.block_size.bytes());
            let dinodes = blocks.filter(|b| {
                let header = MetaHeader::view(b);
                header.magic.get() == MAGIC && header.kind.get() == MetaType::Dinode as u32
            });
            owned += dinodes.map(|b| Dinode::view(b).blocks.get()).sum::<u64>();
            assert_eq!(read(&disk, offset, bytes.len()), bytes, "equal options, equal disks");
        }
        assert_eq!(owned, plan.layout.data_blocks() - free);
    }
}

#[test]
fn a_crash_leaves_no_filesystem_or_the_whole_one() {
    let old = MemoryDevice::new(32 * MIB);
    let options = small(4096);
    format_device(&old, &Options { uuid: [7; 16], seed: 7, ..options.clone() }, &mut Silent).expect("made");
    let whole = SimDevice::new(old.snapshot());
    format_device(&whole, &options, &mut Silent).expect("made");
    let last = whole.ops();
    let wanted = whole.contents();
    let (mut none, mut all) = (0, 0);
    for point in 0..last {
        let sim = SimDevice::new(old.snapshot());
        sim.set_crash_point(point);
        assert!(format_device(&sim, &options, &mut Silent).is_err(), "the crash is noticed");
        for (seed, mode) in [
            (1, CrashMode::AllLost),
            (2, CrashMode::AllKept),
            (3, CrashMode::Random),
            (4, CrashMode::Torn),
            (5, CrashMode::Torn),
        ] {
            let disk = sim.crash(seed, mode);
            let sb = read(&disk, SUPERBLOCK_OFFSET, 4096);
            let sb = Superblock::view(&sb);
            if sb.check().is_err() {
                none += 1;
            } else if sb.uuid == [7; 16] {
                assert_eq!(point, 0, "seed {seed} {mode:?}: the old filesystem survives only if nothing happened");
            } else {
                all += 1;
                for (offset, len) in wanted.allocated_ranges() {
                    let (a, b) = (read(&disk, offset, len as usize), read(&wanted, offset, len as usize));
                    assert!(a == b, "point {point}, seed {seed} {mode:?}: half a filesystem, different near {offset}");
                }
            }
        }
    }
    assert!(none > 20 && all > 0, "both ends were seen: {none} without, {all} whole");
}

#[test]
fn a_failing_device_is_reported_and_leaves_nothing() {
    let sim = SimDevice::new(MemoryDevice::new(32 * MIB));
    sim.fail_writes(Some(Box::new(|index, _| index == 9)));
    format_device(&sim, &small(4096), &mut Silent).expect_err("the ninth write fails");
    let sb = read(&sim.contents(), SUPERBLOCK_OFFSET, 4096);
    assert!(Superblock::view(&sb).check().is_err());
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    for (bytes, options) in [
        (0, small(4096)),
        (MIB, small(4096)),
        (15 * MIB, small(4096)),
        (64 * MIB, Options { journals: 5, ..small(4096) }),
        (64 * MIB, Options { blocks: Some(16385), ..small(4096) }),
        (64 * MIB, Options { journals: 0, ..small(4096) }),
        (17 * MIB, Options { quota_change_mib: 64, ..small(4096) }),
        (64 * MIB, Options { lock_table: "x".repeat(64), ..small(4096) }),
    ] {
        let sim = SimDevice::new(MemoryDevice::new(bytes));
        assert!(format_device(&sim, &options, &mut Silent).is_err(), "{bytes} {options:?}");
        assert_eq!(sim.ops(), 0);
    }
}
