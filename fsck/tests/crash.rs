//! The power goes in the middle of a repair: after any number of writes, a second repair ends where the first would have, and
//! nothing more is lost.

mod common;

use common::plant::Plant;
use gfs2r::device::{CrashMode, MemoryDevice, SimDevice};
use gfs2r_fsck::{Journals, Options, TreeEntry, Volume, Yes, check, repair};
use std::collections::BTreeMap;

/// Contents of all files by path; times and the like are the repair's own.
fn contents(device: &MemoryDevice) -> BTreeMap<String, (u32, u64, u32, Option<Vec<u8>>)> {
    let volume = Volume::open(device, Journals::Overlay).expect("a volume");
    let read = |e: &TreeEntry| {
        let small = e.mode & 0o170000 == 0o100000 && e.size < 1 << 20;
        let bytes = small.then(|| volume.read_file(e.inum.addr.get()).expect("readable"));
        (e.path.display().to_string(), (e.mode, e.size, e.nlink, bytes))
    };
    volume.tree().expect("in order").iter().map(read).collect()
}

/// Repairs, with the power gone after each operation in turn.
fn matrix(name: &str, image: &str, fault: fn(&Plant)) {
    let plant = Plant::new(&common::image(image));
    fault(&plant);
    let whole = plant.device.snapshot();
    let done = repair(&whole, &mut Yes).expect("repaired");
    assert!(done.clean && done.written > 0, "{name}: {done:#?}");
    let expected = contents(&whole);
    let counted = SimDevice::new(plant.device.snapshot());
    repair(&counted, &mut Yes).expect("repaired");
    // Of a long repair the first and last operations, and some between.
    let (all, step) = (counted.ops(), 1 + counted.ops() / 60);
    for point in (0..all).filter(|&p| p < 10 || p + 10 > all || p % step == 0) {
        let sim = SimDevice::new(plant.device.snapshot());
        sim.set_crash_point(point);
        assert!(repair(&sim, &mut Yes).is_err(), "{name}: the power went at {point}");
        for (seed, mode) in
            [(0, CrashMode::AllLost), (0, CrashMode::AllKept), (point, CrashMode::Random), (point, CrashMode::Torn)]
        {
            let left = sim.crash(seed, mode);
            let again = repair(&left, &mut Yes).unwrap_or_else(|e| panic!("{name}, {point}, {mode:?}: {e}"));
            assert!(again.clean, "{name}, {point}, {mode:?}: {again:#?}");
            let report = check(&left, &Options::closed()).expect("checked");
            assert!(report.is_clean(), "{name}, {point}, {mode:?}: {report}");
            let found = contents(&left);
            let differs = found.iter().find(|(path, _)| !expected.contains_key(*path));
            let differs = differs.or_else(|| found.iter().find(|&(path, what)| expected.get(path) != Some(what)));
            let differs = differs.or_else(|| expected.iter().find(|&(path, what)| found.get(path) != Some(what)));
            let place = differs.map(|(path, what)| (path, what.0, what.1, what.2, expected.contains_key(path)));
            assert!(place.is_none(), "{name}, {point}, {mode:?}: something else came out: {place:?}");
        }
    }
    println!("{name}: {} crash points", counted.ops());
}

#[test]
fn links_and_goals() {
    matrix("links", "full.4096", |p| {
        p.dinode("/a/fifo", |di| di.nlink.set(7));
        p.dinode("/a/hello", |di| di.goal_meta.set(3));
    });
}

#[test]
fn a_lost_directory() {
    matrix("directory", "full.4096", |p| p.edit(p.addr("/a/b"), |b| b.fill(0)));
}

#[test]
fn a_damaged_leaf() {
    matrix("leaf", "full.512", |p| p.edit(p.leaves("/big")[3], |b| b[200..].fill(7)));
}

#[test]
fn a_lost_bitmap() {
    matrix("bitmap", "full.1024", |p| p.edit(p.rindex()[2].addr.get(), |b| b.fill(0)));
}

#[test]
fn shared_blocks() {
    matrix("shared", "full.4096", |p| {
        let other = p.blocks("/a/cut")[0];
        p.edit(p.addr("/a/data"), |b| gfs2r::format::put_u64(b, 240, other));
    });
}

#[test]
fn a_dirty_journal_and_a_fault() {
    matrix("dirty", "dirty.4096", |p| p.dinode("/a/fifo", |di| di.nlink.set(7)));
}

#[test]
fn a_lost_superblock() {
    matrix("superblock", "full.4096", |p| p.edit(65536 / p.bs as u64, |b| b.fill(0)));
}

#[test]
fn a_lost_rindex() {
    matrix("rindex", "full.4096", |p| p.edit(p.addr("<master>/rindex"), |b| b.fill(0)));
}

#[test]
fn lost_headers_of_groups() {
    matrix("groups", "full.1024", |p| p.rindex().iter().for_each(|e| p.edit(e.addr.get(), |b| b.fill(0))));
}

#[test]
fn a_lost_journal() {
    matrix("journal", "full.4096", |p| p.edit(p.addr("<master>/jindex/journal1"), |b| b.fill(0)));
}

#[test]
fn a_lost_master() {
    matrix("master", "full.4096", |p| p.edit(p.addr("<master>"), |b| b.fill(0)));
}
