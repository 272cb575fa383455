//! Faults of every kind, by chance.

use crate::common::plant::Plant;
use gfs2r::device::{BlockDevice, MemoryDevice};
use gfs2r::format::{MAGIC, MetaHeader, OnDisk, get_u64, put_u64};
use std::collections::{BTreeMap, BTreeSet};

/// xorshift64*: good enough to choose bytes, and the seed says everything.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

/// The blocks with a metadata header, by type, log blocks left out but for a few.
pub(crate) fn metadata(plant: &Plant) -> Vec<(u32, Vec<u64>)> {
    let mut kinds = BTreeMap::<u32, Vec<u64>>::new();
    for block in 65536 / plant.bs as u64..plant.device.size() / plant.bs as u64 {
        let bytes = plant.read(block);
        let header = MetaHeader::view(&bytes);
        if header.magic.get() == MAGIC {
            kinds.entry(header.kind.get()).or_default().push(block);
        }
    }
    kinds.into_iter().collect()
}

/// One fault. Notes the blocks it hits; says of which kind it was, and what.
pub(crate) fn fault(
    plant: &mut Plant,
    random: &mut Random,
    kinds: &[(u32, Vec<u64>)],
    hit: &mut BTreeSet<u64>,
) -> (&'static str, String) {
    let of = |random: &mut Random| {
        let blocks = &kinds[random.below(kinds.len())].1;
        blocks[random.below(blocks.len())]
    };
    let (a, b) = (of(random), of(random));
    hit.insert(a);
    let end = plant.bs.min(512);
    match random.below(12) {
        0 | 1 => {
            let n = 1 + random.below(3);
            let places: Vec<usize> = (0..n).map(|_| random.below(8 * end)).collect();
            plant.edit(a, |bytes| places.iter().for_each(|&p| bytes[p / 8] ^= 1 << (p % 8)));
            ("bits flipped", format!("bits {places:?} of {a}"))
        }
        2 => {
            plant.edit(a, |bytes| bytes.fill(0));
            ("block zeroed", format!("{a} zeroed"))
        }
        3 => {
            let (x, y) = (plant.read(a), plant.read(b));
            plant.write(a, &y);
            plant.write(b, &x);
            hit.insert(b);
            ("blocks swapped", format!("{a} and {b} swapped"))
        }
        4 => {
            plant.write(a, &plant.read(b));
            ("block duplicated", format!("{b} copied to {a}"))
        }
        5 => {
            let kind = random.below(16) as u32;
            plant.edit(a, |bytes| MetaHeader::edit(bytes).kind.set(kind));
            ("wrong type", format!("{a} of type {kind}"))
        }
        6 | 7 => pointer(plant, random, a, b),
        8 => {
            let at = 24 + random.below(end - 32);
            let noise = random.next();
            let value = random.pick(&[noise, noise % 20_000, 0, u64::MAX, noise % 256]);
            plant.edit(a, |bytes| put_u64(bytes, at, value));
            ("wrong number", format!("{value:#x} at {at} of {a}"))
        }
        9 => {
            let (at, len) = (random.below(plant.bs), 1 + random.below(64));
            let noise = random.next();
            plant.edit(a, |bytes| {
                let range = at..(at + len).min(bytes.len());
                bytes[range].iter_mut().enumerate().for_each(|(i, x)| *x = (noise >> (i % 57)) as u8);
            });
            ("noise", format!("noise at {at}+{len} of {a}"))
        }
        10 => ring(plant, random, a, hit),
        _ => rare(plant, random, a, hit),
    }
}

/// A pointer to somewhere else: another block, itself, the beginning, the end.
fn pointer(plant: &Plant, random: &mut Random, a: u64, b: u64) -> (&'static str, String) {
    let bytes = plant.read(a);
    let blocks = plant.device.size() / plant.bs as u64;
    let places: Vec<usize> = (24..plant.bs - 8)
        .step_by(8)
        .filter(|&at| {
            let word = get_u64(&bytes, at);
            word > 16 && word < blocks
        })
        .collect();
    if places.is_empty() {
        return ("none", format!("no pointer in {a}"));
    }
    let at = random.pick(&places);
    let there = get_u64(&bytes, at);
    let noise = random.next();
    let value = random.pick(&[b, a, there + 1, noise % blocks, 3, blocks + 7, noise]);
    plant.edit(a, |bytes| put_u64(bytes, at, value));
    ("wrong pointer", format!("pointer {value} for {there} at {at} of {a}"))
}

/// A ring: a pointer of one block leads to another, whose pointer leads back.
fn ring(plant: &Plant, random: &mut Random, a: u64, hit: &mut BTreeSet<u64>) -> (&'static str, String) {
    let bytes = plant.read(a);
    let blocks = plant.device.size() / plant.bs as u64;
    let inside = |at: &usize| (17..blocks).contains(&get_u64(&bytes, *at));
    let places: Vec<usize> = (24..plant.bs - 8).step_by(8).filter(inside).collect();
    if places.is_empty() {
        return ("none", format!("no pointer in {a}"));
    }
    let at = random.pick(&places);
    let there = get_u64(&bytes, at);
    hit.insert(there);
    plant.edit(there, |other| put_u64(other, at, a));
    ("cycle", format!("{a} points to {there} and back at {at}"))
}

/// What does not happen every day: the device is shorter, or the superblock is hit.
fn rare(plant: &mut Plant, random: &mut Random, a: u64, hit: &mut BTreeSet<u64>) -> (&'static str, String) {
    let bs = plant.bs as u64;
    match random.below(4) {
        0 => {
            let blocks = plant.device.size() / bs;
            let left = blocks - 1 - random.below((blocks / 3) as usize) as u64;
            hit.extend(left..blocks);
            let mut device = MemoryDevice::snapshot(&plant.device);
            device.resize(left * bs / 4096 * 4096);
            hit.extend(left * bs / 4096 * 4096 / bs..left);
            plant.device = device;
            ("device truncated", format!("the device ends at {left}"))
        }
        1 => {
            let (at, noise) = (random.below(0x100), random.next());
            plant.edit(65536 / bs, |bytes| put_u64(bytes, at, noise));
            ("superblock noise", format!("noise at {at} of the superblock"))
        }
        2 => {
            plant.edit(65536 / bs, |bytes| bytes[..512].fill(0));
            ("superblock zeroed", "superblock zeroed".into())
        }
        _ => {
            let at = random.below(plant.bs);
            plant.edit(a, |bytes| bytes[at] = bytes[at].wrapping_add(1));
            ("wrong byte", format!("byte {at} of {a} larger by 1"))
        }
    }
}
