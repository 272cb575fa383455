//! Damage at scale: images with one to five faults by chance are repaired. Then nothing is found any more, neither by us nor
//! by the stock tool, every file that no fault touched is what it was, and memory stayed within its bound.
//!
//! `GFS2R_IMAGES` (of the quick check: `GFS2R_QUICK`) sets how many images, `GFS2R_SEED` one seed, `GFS2R_STOCK=n` asks the stock tool about every n-th image,
//! `GFS2R_BASES=n` takes only the first n volumes.
//! `side_by_side` (ignored; `make side-by-side`) lets the stock tool repair the same images and prints a table.

mod bases;
#[path = "../common/mod.rs"]
mod common;
mod damage;
mod quick;
mod sides;
mod witness;

use bases::Base;
use cap::Cap;
use common::plant::Plant;
use damage::Random;
use gfs2r::device::{BlockDevice, MemoryDevice};
use gfs2r_fsck::{CheckError, Options, Yes, check, repair};
use std::alloc::System;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What repair and check of one of these images (up to 84 MiB) may allocate at most, the device in memory included.
const MEMORY_MAX: usize = 96 << 20;
/// An image that takes longer hangs.
const HANGS: Duration = Duration::from_secs(300);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

/// One damaged image.
struct Damaged {
    plant: Plant,
    /// Kind, and what exactly.
    faults: Vec<(&'static str, String)>,
    hit: BTreeSet<u64>,
}

impl Damaged {
    fn new(base: &Base, random: &mut Random, faults: usize) -> Self {
        let mut plant = Plant { device: base.plant.device.snapshot(), bs: base.plant.bs };
        let mut hit = BTreeSet::new();
        let faults = (0..faults).map(|_| damage::fault(&mut plant, random, &base.kinds, &mut hit)).collect();
        Self { plant, faults, hit }
    }
    /// The files that must have survived.
    fn untouched<'b>(&self, base: &'b Base) -> &'b [witness::File] {
        let all_there = base.needed.is_disjoint(&self.hit);
        let cut = base.plant.device.size() != self.plant.device.size() && !base.needed.is_empty();
        if all_there && !cut { &base.files } else { &[] }
    }
}

/// The image of this seed.
fn of(seed: u64, bases: &[Base]) -> (&Base, Random) {
    let count = number("GFS2R_BASES").unwrap_or(u64::MAX).clamp(1, bases.len() as u64);
    let base = &bases[(seed % count) as usize];
    (base, Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
}

/// What our own check says against it; `None` for nothing.
fn verdict(device: &dyn BlockDevice) -> Option<String> {
    match check(device, &Options::closed()) {
        Ok(report) if report.is_clean() => None,
        Ok(report) => Some(format!("still found: {}", report.to_string().chars().take(1500).collect::<String>())),
        Err(e) => Some(format!("cannot be checked: {e}")),
    }
}

/// What is wrong after the repair of one image; empty for nothing. An error: it was refused.
fn try_one(base: &Base, mut random: Random, stock: bool) -> Result<(Vec<String>, String), String> {
    let n = 1 + random.below(5);
    let damaged = Damaged::new(base, &mut random, n);
    let plant = &damaged.plant;
    let faults = damaged.faults.iter().map(|(_, what)| &what[..]).collect::<Vec<_>>().join("; ");
    let keep = |suffix: &str| {
        if let Ok(path) = std::env::var("GFS2R_SAVE") {
            plant.device.save(format!("{path}{suffix}").as_ref()).expect("saved");
        }
    };
    keep("");
    let mut wrong = Vec::new();
    wrong.extend(common::agree::agree(&plant.device, &Options::default()).err());
    let done = match repair(&plant.device, &mut Yes) {
        Ok(done) => done,
        Err(CheckError::Superblock(e)) => return Err(format!("refused: {e} [{faults}]")),
        Err(e) => return Ok((vec![format!("error: {e}")], faults)),
    };
    if number("GFS2R_SEED").is_some() && number("GFS2R_IMAGES").is_none() {
        done.issues
            .iter()
            .filter(|(_, yes)| !yes)
            .take(20)
            .chain(done.issues.iter().take(60))
            .for_each(|(i, yes)| println!("{yes} {i}"));
        println!("{} rounds, {} blocks", done.rounds, done.written);
    }
    if !done.clean {
        wrong.push(format!("not clean after {} rounds", done.rounds));
    }
    wrong.extend(verdict(&plant.device));
    let lost = witness::losses(&plant.device, damaged.untouched(base), &damaged.hit);
    wrong.extend(lost.into_iter().take(5).map(|(_, what)| what));
    if stock && wrong.is_empty() {
        if let Some(status) = common::stock_verdict(&plant.device).filter(|&s| s != 0) {
            wrong.push(format!("the stock tool says {status}"));
        }
    }
    keep(".after");
    Ok((wrong, faults))
}

/// Ends the process when one image takes for ever; says which.
fn guard(current: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        loop {
            let before = current.load(Ordering::Relaxed);
            std::thread::sleep(HANGS);
            if current.load(Ordering::Relaxed) == before {
                println!("GFS2R_SEED={before}: hangs");
                std::process::exit(101);
            }
        }
    });
}

#[test]
fn damaged_images_are_repaired() {
    let images = number("GFS2R_IMAGES").unwrap_or(if number("GFS2R_SEED").is_some() { 1 } else { 60 });
    let stock = number("GFS2R_STOCK").unwrap_or(10);
    let first = number("GFS2R_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 20);
    println!("GFS2R_SEED={first}");
    let bases = bases::all();
    let (mut failures, mut refused) = (Vec::new(), BTreeMap::<String, u32>::new());
    let current = Arc::new(AtomicU64::new(first));
    guard(current.clone());
    let before = ALLOCATOR.allocated();
    let mut most = 0;
    for n in 0..images {
        let seed = first.wrapping_add(n);
        current.store(seed, Ordering::Relaxed);
        let (base, random) = of(seed, &bases);
        let ask = stock != 0 && n % stock == 0;
        let mut fail = |text: String| {
            println!("{text}");
            failures.push(text);
        };
        match catch_unwind(AssertUnwindSafe(|| try_one(base, random, ask))) {
            Ok(Ok((wrong, _))) if wrong.is_empty() => {}
            Ok(Ok((wrong, faults))) => {
                fail(format!("GFS2R_SEED={seed} {}: [{faults}] {}", base.name, wrong.join("\n    ")));
            }
            Ok(Err(why)) => *refused.entry(why).or_default() += 1,
            Err(_) => fail(format!("GFS2R_SEED={seed} {}: panic", base.name)),
        }
        // The peak is that of the whole process: what rises above it was this image.
        let peak = ALLOCATOR.max_allocated().saturating_sub(before);
        if n > 0 && peak > most.max(MEMORY_MAX) {
            fail(format!("GFS2R_SEED={seed} {}: {peak} bytes of memory", base.name));
        }
        most = most.max(peak);
    }
    println!(
        "{images} images, {} failures, {} MiB of memory at most, refused: {refused:?}",
        failures.len(),
        most >> 20
    );
    assert!(failures.is_empty(), "{} of {images} images", failures.len());
}

/// Prints the table of docs/FSCK.md. Fails when the stock tool kept a file that ours lost.
#[test]
#[ignore = "takes minutes: make side-by-side"]
fn side_by_side() {
    if !common::have("fsck.gfs2") {
        return;
    }
    let images = number("GFS2R_IMAGES").unwrap_or(200);
    let first = number("GFS2R_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 20);
    println!("GFS2R_SEED={first}");
    let bases = bases::all();
    let mut table = sides::Table::default();
    for n in 0..images {
        let seed = first.wrapping_add(n);
        let (base, mut random) = of(seed, &bases);
        let faults = 1 + usize::from(n % 5 == 4) * random.below(5);
        let damaged = Damaged::new(base, &mut random, faults);
        let row = sides::compare(base, &damaged);
        let more = row.only_stock_kept.clone();
        for path in more {
            println!("GFS2R_SEED={seed} {} [{:?}]: only the stock tool kept {path}", base.name, damaged.faults);
        }
        for what in row.notes() {
            println!("GFS2R_SEED={seed} {} [{:?}]: {what}", base.name, damaged.faults);
        }
        table.add(if damaged.faults.len() > 1 { "several" } else { damaged.faults[0].0 }, &row);
    }
    println!("{table}");
    assert_eq!(table.worse(), 0, "files that only the stock tool kept");
}

/// A device in a file, for the stock tool.
fn in_file(device: &MemoryDevice) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    device.save(file.path()).expect("saved");
    file
}
