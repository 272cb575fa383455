//! The quick check must not overlook what the full one finds: random faults, and those made to balance, in healthy images.

use crate::common::agree::{agree, healthy};
use crate::common::plant::Plant;
use crate::damage::{Random, fault, metadata};
use crate::number;
use gfs2r::format::dinode::DINODE_SIZE;
use gfs2r::format::directory::LEAF_SIZE;
use gfs2r::format::{DiFlags, Dinode, Dirent, Leaf, OnDisk, get_u64, put_u64};
use gfs2r_fsck::Options;
use std::collections::BTreeSet;

/// Block and offset of an entry.
type Place = (u64, usize);

struct Base {
    plant: Plant,
    kinds: Vec<(u32, Vec<u64>)>,
    dinodes: Vec<u64>,
    /// The live entries of each block that has any.
    entries: Vec<Vec<Place>>,
}

fn base(name: &str) -> Base {
    let plant = healthy(name);
    let kinds = metadata(&plant);
    let of = |wanted: u32| kinds.iter().find(|(kind, _)| *kind == wanted).map(|(_, blocks)| blocks.clone());
    let groups = plant.rindex();
    let allocated = |blocks: Option<Vec<u64>>| {
        let own = |&block: &u64| groups.iter().any(|e| plant.state_in(e, block) != 0);
        blocks.unwrap_or_default().into_iter().filter(own).collect::<Vec<_>>()
    };
    let (dinodes, leaves) = (allocated(of(4)), allocated(of(6)));
    let linear = |&&at: &&u64| {
        let bytes = plant.read(at);
        let di = Dinode::view(&bytes);
        di.mode.get() >> 12 == 4 && di.flags.get() & 2 == 0
    };
    let stuffed = dinodes.iter().filter(linear).map(|&at| entries(&plant, at, DINODE_SIZE));
    let entries = stuffed.chain(leaves.iter().map(|&at| entries(&plant, at, LEAF_SIZE)));
    let entries = entries.filter(|all| !all.is_empty()).collect();
    Base { plant, kinds, dinodes, entries }
}

fn entries(plant: &Plant, block: u64, start: usize) -> Vec<Place> {
    let bytes = plant.read(block);
    let (mut at, mut found) = (start, Vec::new());
    while at < plant.bs {
        let dirent = Dirent::view(&bytes[at..]);
        if dirent.inum.addr.get() != 0 {
            found.push((block, at));
        }
        at += usize::from(dirent.rec_len.get());
    }
    found
}

fn dirent(plant: &Plant, (block, at): Place) -> Dirent {
    *Dirent::view(&plant.read(block)[at..])
}

fn put(plant: &Plant, (block, at): Place, f: impl FnOnce(&mut Dirent)) {
    plant.edit(block, |bytes| f(Dirent::edit(&mut bytes[at..])));
}

/// Gives the second entry the name of the first. False when it has not the length.
fn same_name(plant: &Plant, a: Place, b: Place) -> bool {
    let (da, db) = (dirent(plant, a), dirent(plant, b));
    let len = usize::from(da.name_len.get());
    if da.name_len.get() != db.name_len.get() {
        return false;
    }
    let name = plant.read(a.0)[a.1 + 40..a.1 + 40 + len].to_vec();
    plant.edit(b.0, |bytes| bytes[b.1 + 40..b.1 + 40 + len].copy_from_slice(&name));
    put(plant, b, |d| d.hash.set(da.hash.get()));
    true
}

/// A fault whose sums come out even.
fn balanced(base: &Base, plant: &Plant, random: &mut Random) -> String {
    let place = |random: &mut Random| {
        let block = &base.entries[random.below(base.entries.len())];
        block[random.below(block.len())]
    };
    let (a, b) = (place(random), place(random));
    let (da, db) = (dirent(plant, a), dirent(plant, b));
    let (x, y) = (random.pick(&base.dinodes), random.pick(&base.dinodes));
    match random.below(10) {
        0 => {
            put(plant, a, |d| d.inum = db.inum);
            put(plant, b, |d| d.inum = da.inum);
            format!("{a:?} and {b:?} name each other's")
        }
        1 => {
            put(plant, a, |d| (d.inum, d.kind) = (db.inum, db.kind));
            format!("{a:?} names what {b:?} names")
        }
        2 => {
            put(plant, a, |d| (d.inum, d.kind) = (db.inum, db.kind));
            put(plant, b, |d| (d.inum, d.kind) = (da.inum, da.kind));
            format!("{a:?} and {b:?} swapped")
        }
        3 => {
            put(plant, a, |d| d.inum.formal = db.inum.formal);
            put(plant, b, |d| d.inum.formal = da.inum.formal);
            format!("formal numbers of {a:?} and {b:?} swapped")
        }
        4 => {
            let (fx, fy) = (Dinode::view(&plant.read(x)).num.formal, Dinode::view(&plant.read(y)).num.formal);
            plant.edit(x, |bytes| Dinode::edit(bytes).num.formal = fy);
            plant.edit(y, |bytes| Dinode::edit(bytes).num.formal = fx);
            format!("formal numbers of inodes {x} and {y} swapped")
        }
        5 => {
            let links = |at: u64, more: i32| {
                let nlink = Dinode::view(&plant.read(at)).nlink.get().wrapping_add_signed(more);
                plant.edit(at, |bytes| Dinode::edit(bytes).nlink.set(nlink));
            };
            links(x, 1);
            links(y, -1);
            format!("a link of {y} given to {x}")
        }
        6 => {
            let flags = Dinode::view(&plant.read(x)).flags.get() ^ DiFlags::SYSTEM.0;
            plant.edit(x, |bytes| Dinode::edit(bytes).flags.set(flags));
            format!("{x}: system file or not")
        }
        7 => {
            let block = &base.entries[random.below(base.entries.len())];
            let (a, b) = (random.pick(block), random.pick(block));
            format!("{b:?} with the name of {a:?}: {}", same_name(plant, a, b))
        }
        8 => {
            // Two pointers of two inodes: one block twice, another never; or the two exchanged, which may be no fault.
            let (px, py) = (get_u64(&plant.read(x), 232), get_u64(&plant.read(y), 232));
            plant.edit(x, |bytes| put_u64(bytes, 232, py));
            let both = random.below(2) == 0;
            if both {
                plant.edit(y, |bytes| put_u64(bytes, 232, px));
            }
            format!("the first pointer of {y} to {x}, exchanged: {both}")
        }
        _ => {
            let groups = plant.rindex();
            let mut one = |state: u8| {
                (0..20_000).find_map(|_| {
                    let e = &groups[random.below(groups.len())];
                    let block = e.data0.get() + random.below(e.data.get() as usize) as u64;
                    (plant.state_in(e, block) == state).then_some(block)
                })
            };
            let (Some(free), Some(used)) = (one(0), one(1)) else { return "nothing".into() };
            plant.set_state(free, 1);
            plant.set_state(used, 0);
            format!("{free} used and {used} free")
        }
    }
}

#[test]
fn the_quick_check_overlooks_nothing() {
    let images = number("GFS2R_QUICK").unwrap_or(if number("GFS2R_SEED").is_some() { 1 } else { 300 });
    let first = number("GFS2R_SEED").unwrap_or_else(|| u64::from(std::process::id()) << 20);
    println!("GFS2R_SEED={first}");
    let bases = ["full.4096", "full.512", "full.1024", "dirty.1024"].map(|name| (name, base(name)));
    let (mut failures, mut proven) = (0, 0);
    for seed in (0..images).map(|n| first.wrapping_add(n)) {
        let (name, base) = &bases[(seed % bases.len() as u64) as usize];
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut plant = Plant { device: base.plant.device.snapshot(), bs: base.plant.bs };
        let what = if random.below(3) > 0 {
            balanced(base, &plant, &mut random)
        } else {
            fault(&mut plant, &mut random, &base.kinds, &mut BTreeSet::new()).1
        };
        match agree(&plant.device, &Options::closed()) {
            Ok(was_proven) => proven += u64::from(was_proven),
            Err(differs) => {
                failures += 1;
                println!("GFS2R_SEED={seed} {name}: [{what}] {}", differs.chars().take(2000).collect::<String>());
            }
        }
    }
    println!("{images} images, {proven} of them healthy all the same, {failures} failures");
    assert!(failures == 0, "{failures} of {images} images");
}

/// Whichever leaves are read between the two.
#[test]
fn a_name_twice_in_a_chain_of_leaves() {
    let base = base("full.512");
    let mut tried = 0;
    for first in base.entries.iter().map(|all| all[0].0) {
        let bytes = base.plant.read(first);
        let (leaf, next) = (Leaf::view(&bytes), Leaf::view(&bytes).next.get());
        if leaf.header.kind.get() != 6 || next == 0 {
            continue;
        }
        let of = |block: u64| entries(&base.plant, block, LEAF_SIZE);
        let len = |place: &Place| dirent(&base.plant, *place).name_len.get();
        let pair = of(first).into_iter().find_map(|a| of(next).into_iter().find(|b| len(b) == len(&a)).map(|b| (a, b)));
        let Some((a, b)) = pair else { continue };
        let plant = Plant { device: base.plant.device.snapshot(), bs: base.plant.bs };
        assert!(same_name(&plant, a, b));
        assert!(plant.check().has("dirent-duplicate"), "{first} and {next}");
        assert_eq!(agree(&plant.device, &Options::closed()), Ok(false));
        tried += 1;
    }
    assert!(tried > 0, "no chain in the image");
}
