//! Whatever the bytes, the check ends and does not panic.

mod common;

use common::plant::Plant;
use gfs2r::device::{BlockDevice, MemoryDevice};
use gfs2r::format::{MAGIC, MetaHeader, OnDisk};
use gfs2r_fsck::{Journals, Options, Volume, check};

/// xorshift64*: good enough to choose bytes, and the seed says everything.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// The blocks with a metadata header, by type.
fn metadata(plant: &Plant) -> Vec<(u32, Vec<u64>)> {
    let mut kinds = std::collections::BTreeMap::<u32, Vec<u64>>::new();
    for block in 0..plant.device.size() / plant.bs as u64 {
        let bytes = plant.read(block);
        let header = MetaHeader::view(&bytes);
        if header.magic.get() == MAGIC {
            kinds.entry(header.kind.get()).or_default().push(block);
        }
    }
    kinds.into_iter().collect()
}

/// Overwrites some bytes of one block: with anything, with what numbers look like, or with bytes from elsewhere.
fn damage(plant: &Plant, random: &mut Random, kinds: &[(u32, Vec<u64>)]) {
    // Each type as often as the others, however few blocks it has.
    let blocks = &kinds[random.below(kinds.len())].1;
    let block = blocks[random.below(blocks.len())];
    let other = plant.read(blocks[random.below(blocks.len())]);
    plant.edit(block, |bytes| {
        for _ in 0..=random.below(4) {
            // The front is where the structure is.
            let end = if random.below(3) == 0 { bytes.len() } else { bytes.len().min(512) };
            let at = random.below(end - 8) & !(random.below(8));
            let noise = random.next();
            match random.below(6) {
                0 => bytes[at] = noise as u8,
                1 => bytes[at..at + 8].copy_from_slice(&noise.to_be_bytes()),
                2 => bytes[at..at + 8].copy_from_slice(&(noise % 20_000).to_be_bytes()),
                3 => bytes[at..at + 8].fill(if noise & 1 == 0 { 0 } else { 0xff }),
                4 => bytes[at] ^= 1 << (noise % 8),
                _ => bytes[at..at + 8].copy_from_slice(&other[at..at + 8]),
            }
        }
    });
}

fn survive(name: &str, seed: u64, rounds: u64) {
    let whole = Plant::new(&common::image(name));
    let kinds = metadata(&whole);
    for round in 0..rounds {
        let seed = seed.wrapping_add(round).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = Random(seed);
        let plant = Plant { device: whole.device.snapshot(), bs: whole.bs };
        for _ in 0..=random.below(6) {
            damage(&plant, &mut random, &kinds);
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| look(&plant.device)));
        assert!(result.is_ok(), "panic on {name} with seed {seed:#x}");
    }
}

/// Everything that reads: neither panics nor goes on for ever. What it says does not matter.
fn look(device: &MemoryDevice) {
    for options in [Options::default(), Options::closed()] {
        if let Ok(report) = check(device, &options) {
            assert!(!report.to_string().is_empty() || report.issues.is_empty());
        }
        common::agree::agree(device, &options).expect("the quick check changes nothing");
    }
    let Ok(volume) = Volume::open(device, Journals::Overlay) else { return };
    for tree in [volume.tree(), volume.system_tree()].into_iter().flatten() {
        for entry in tree.iter().filter(|e| e.size < 1 << 20).take(50) {
            // An error is an answer.
            drop(volume.read_file(entry.inum.addr.get()));
        }
    }
}

fn rounds() -> u64 {
    std::env::var("GFS2R_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60)
}

fn seed() -> u64 {
    let given = std::env::var("GFS2R_SEED").ok().and_then(|n| n.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()) << 20);
    println!("GFS2R_SEED={seed}");
    seed
}

#[test]
fn damaged_metadata() {
    for name in ["full.4096", "full.512", "dirty.1024"] {
        survive(name, seed(), rounds());
    }
}

#[test]
fn a_device_that_ends_early() {
    let device = common::image("full.4096");
    for mib in [0, 1, 2, 7, 20, 63] {
        let mut cut = device.snapshot();
        cut.resize(mib << 20);
        look(&cut);
    }
}

#[test]
fn noise_and_nothing() {
    let device = MemoryDevice::new(1 << 20);
    assert!(check(&device, &Options::default()).is_err());
    let mut random = Random(seed() | 1);
    for round in 0..20 {
        let device = common::image("full.1024");
        // The superblock stays, the rest of the first MiB is noise.
        let mut noise = vec![0u8; 1 << 20];
        noise.chunks_exact_mut(8).for_each(|c| c.copy_from_slice(&random.next().to_be_bytes()));
        let from = 66 * 1024 + round * 512;
        device.write(from as u64, &noise[from..]).expect("inside the device");
        look(&device);
    }
}
