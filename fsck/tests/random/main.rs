//! Damage at scale: images with one to five faults by chance are repaired. Then nothing is found any more, neither by us nor
//! by the stock tool, and every file that no fault touched is what it was.
//!
//! `GFS2R_IMAGES` (of the quick check: `GFS2R_QUICK`) sets how many images, `GFS2R_SEED` one seed, `GFS2R_STOCK=n` asks the stock tool about every n-th image.

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod quick;
mod witness;

use common::plant::Plant;
use damage::Random;
use gfs2r_fsck::{CheckError, Options, Yes, check, repair};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

struct Base {
    name: &'static str,
    plant: Plant,
    kinds: Vec<(u32, Vec<u64>)>,
    files: Vec<witness::File>,
}

fn bases() -> Vec<Base> {
    let make = |name: &'static str| {
        let plant = Plant::new(&common::image(name));
        if name.starts_with("full") {
            plant.refill_journals();
        }
        let kinds = damage::metadata(&plant);
        let files = if name.starts_with("full") { witness::files(&plant) } else { Vec::new() };
        Base { name, plant, kinds, files }
    };
    ["full.4096", "full.512", "full.1024", "dirty.4096", "dirty.1024"].map(make).into()
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|n| n.parse().ok())
}

/// What is wrong after the repair of one image; empty for nothing.
fn try_one(base: &Base, seed: u64, stock: bool) -> Result<(Vec<String>, String), String> {
    let mut random = Random(seed);
    let mut plant = Plant { device: base.plant.device.snapshot(), bs: base.plant.bs };
    let mut hit = BTreeSet::new();
    let n = 1 + random.below(5);
    let faults: Vec<_> = (0..n).map(|_| damage::fault(&mut plant, &mut random, &base.kinds, &mut hit)).collect();
    let faults = faults.join("; ");
    if let Ok(path) = std::env::var("GFS2R_SAVE") {
        plant.device.save(path.as_ref()).expect("saved");
    }
    let damaged = plant.device.snapshot();
    let mut wrong = Vec::new();
    wrong.extend(common::agree::agree(&damaged, &Options::default()).err());
    let done = match repair(&plant.device, &mut Yes) {
        Ok(done) => done,
        Err(CheckError::Superblock(e)) => return Err(format!("refused: {e}")),
        Err(e) => return Ok((vec![format!("error: {e}")], faults)),
    };
    if number("GFS2R_SEED").is_some() && number("GFS2R_IMAGES").is_none() {
        done.issues.iter().take(60).for_each(|(i, yes)| println!("{yes} {i}"));
        println!("{} rounds, {} blocks", done.rounds, done.written);
    }
    if !done.clean {
        wrong.push(format!("not clean after {} rounds", done.rounds));
    }
    match check(&plant.device, &Options::closed()) {
        Ok(report) if report.is_clean() => {}
        Ok(report) => wrong.push(format!("still found: {}", report.to_string().chars().take(1500).collect::<String>())),
        Err(e) => wrong.push(format!("cannot be checked: {e}")),
    }
    wrong.extend(witness::losses(&plant, &base.files, &hit).into_iter().take(5));
    if stock && wrong.is_empty() {
        if let Some(status) = common::stock_verdict(&plant.device).filter(|&s| s != 0) {
            wrong.push(format!("the stock tool says {status}"));
        }
    }
    if let Ok(path) = std::env::var("GFS2R_SAVE") {
        plant.device.save(format!("{path}.after").as_ref()).expect("saved");
    }
    drop(damaged);
    Ok((wrong, faults))
}

#[test]
fn damaged_images_are_repaired() {
    let images = number("GFS2R_IMAGES").unwrap_or(if number("GFS2R_SEED").is_some() { 1 } else { 40 });
    let stock = number("GFS2R_STOCK").unwrap_or(10);
    let first = number("GFS2R_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 20);
    println!("GFS2R_SEED={first}");
    let bases = bases();
    let (mut failures, mut refused) = (Vec::new(), BTreeMap::<String, u32>::new());
    for n in 0..images {
        let seed = first.wrapping_add(n);
        let mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let base = &bases[(seed % bases.len() as u64) as usize];
        let ask = stock != 0 && n % stock == 0;
        match catch_unwind(AssertUnwindSafe(|| try_one(base, mixed, ask))) {
            Ok(Ok((wrong, _))) if wrong.is_empty() => {}
            Ok(Ok((wrong, faults))) => {
                let text = format!("GFS2R_SEED={seed} {}: [{faults}] {}", base.name, wrong.join("\n    "));
                println!("{text}");
                failures.push(text);
            }
            Ok(Err(why)) => *refused.entry(why).or_default() += 1,
            Err(_) => {
                println!("GFS2R_SEED={seed} {}: panic", base.name);
                failures.push(format!("GFS2R_SEED={seed} {}: panic", base.name));
            }
        }
    }
    println!("{images} images, {} failures, refused: {refused:?}", failures.len());
    assert!(failures.is_empty(), "{} of {images} images", failures.len());
}
