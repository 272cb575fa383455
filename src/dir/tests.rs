//! The pure parts against naive models, and against what the kernel is known to produce.

use super::block::{self, Defect, NewEntry, find, find_room, records};
use super::hash::{Run, index};
use super::{Entry, split};
use crate::clock::Timestamp;
use crate::format::checksum::dir_hash;
use crate::format::directory::{LEAF_SIZE, dirent_len};
use crate::format::{DirentType, Leaf, OnDisk};
use crate::ids::{BlockAddr, BlockSize, FormalIno, Inum};
use proptest::prelude::*;
use std::collections::BTreeMap;

fn size(bytes: u32) -> BlockSize {
    BlockSize::new(bytes).expect("legal")
}

fn entry(n: u64) -> Entry {
    Entry { inum: Inum { formal: FormalIno(n + 1), addr: addr(n + 1000) }, kind: DirentType::Reg }
}

fn addr(n: u64) -> BlockAddr {
    BlockAddr::new(n).expect("not 0")
}

fn put(block: &mut [u8], start: usize, name: &[u8], to: Entry) -> bool {
    let Some(room) = find_room(block, start, dirent_len(name.len())).expect("sound") else { return false };
    block::insert(block, room, &NewEntry { name, hash: dir_hash(name), entry: to, rahead: false });
    true
}

/// A hashed directory in memory: the algorithm of ondisk.md 5.6 around the same pure parts.
struct Mem {
    bs: BlockSize,
    depth: u32,
    table: Vec<usize>,
    leaves: Vec<Vec<u8>>,
}

impl Mem {
    /// From a linear block that is full.
    fn convert(bs: BlockSize, dinode: &[u8]) -> Self {
        let mut leaf = Self::leaf(bs, 0, 1);
        split::convert(dinode, &mut leaf).expect("sound");
        let depth = split::first_depth(bs);
        Self { bs, depth, table: vec![0; 1 << depth], leaves: vec![leaf] }
    }

    fn leaf(bs: BlockSize, depth: u16, dist: u32) -> Vec<u8> {
        let mut leaf = vec![0; bs.bytes()];
        split::init_leaf(&mut leaf, addr(7), depth, dist, Timestamp::default());
        leaf
    }

    fn next(&self, leaf: usize) -> Option<usize> {
        let next = Leaf::view(&self.leaves[leaf]).next.get();
        (next != 0).then_some(next as usize)
    }

    fn add(&mut self, name: &[u8], to: Entry) {
        let hash = dir_hash(name);
        loop {
            let slot = index(hash, self.depth);
            let first = self.table[slot as usize];
            let (mut at, mut len) = (first, 1);
            loop {
                if put(&mut self.leaves[at], LEAF_SIZE, name, to) {
                    let leaf = Leaf::edit(&mut self.leaves[at]);
                    leaf.entries.set(leaf.entries.get() + 1);
                    return;
                }
                let Some(next) = self.next(at) else { break };
                (at, len) = (next, len + 1);
            }
            let leaf_depth = u32::from(Leaf::view(&self.leaves[first]).depth.get());
            if leaf_depth < self.depth {
                self.split(first, Run::around(slot, self.depth, leaf_depth));
            } else if self.depth < 17 {
                self.table = self.table.iter().flat_map(|&l| [l, l]).collect();
                self.depth += 1;
            } else {
                let new = self.leaves.len();
                self.leaves.push(Self::leaf(self.bs, 17, len + 1));
                Leaf::edit(&mut self.leaves[at]).next.set(new as u64);
            }
        }
    }

    fn split(&mut self, first: usize, run: Run) {
        let depth = Leaf::view(&self.leaves[first]).depth.get() + 1;
        let mut lower = Self::leaf(self.bs, depth, 1);
        let half = run.start + run.len / 2;
        split::split(&mut self.leaves[first], &mut lower, half << (32 - self.depth)).expect("sound");
        Leaf::edit(&mut self.leaves[first]).depth.set(depth);
        self.table[run.start as usize..half as usize].fill(self.leaves.len());
        self.leaves.push(lower);
    }

    fn find(&self, name: &[u8]) -> Option<(usize, block::Found)> {
        let hash = dir_hash(name);
        let mut at = Some(self.table[index(hash, self.depth) as usize]);
        while let Some(leaf) = at {
            if let Some(found) = find(&self.leaves[leaf], LEAF_SIZE, hash, name).expect("sound") {
                return Some((leaf, found));
            }
            at = self.next(leaf);
        }
        None
    }

    fn remove(&mut self, name: &[u8]) -> bool {
        let Some((leaf, found)) = self.find(name) else { return false };
        block::delete(&mut self.leaves[leaf], found);
        let header = Leaf::edit(&mut self.leaves[leaf]);
        header.entries.set(header.entries.get() - 1);
        true
    }

    /// The invariants of ondisk.md 5.5; all names.
    fn check(&self) -> BTreeMap<Vec<u8>, Entry> {
        let (mut names, mut slot) = (BTreeMap::new(), 0u32);
        while slot < 1 << self.depth {
            let first = self.table[slot as usize];
            let leaf_depth = Leaf::view(&self.leaves[first]).depth.get();
            let run = Run::around(slot, self.depth, u32::from(leaf_depth));
            assert_eq!(run.start, slot, "aligned");
            assert!(self.table[slot as usize..run.end() as usize].iter().all(|&l| l == first));
            let (mut at, mut dist) = (Some(first), 1);
            while let Some(leaf) = at {
                let (header, bytes) = (Leaf::view(&self.leaves[leaf]), &self.leaves[leaf]);
                assert_eq!((header.depth.get(), header.dist.get()), (leaf_depth, dist));
                assert_eq!(u32::from(header.entries.get()), block::count(bytes, LEAF_SIZE).expect("sound"));
                for record in records(bytes, LEAF_SIZE).map(|r| r.expect("sound")).filter(|r| r.live) {
                    let (low, high) = run.bounds(self.depth);
                    assert!((low..=high).contains(&record.hash));
                    let name = record.name(bytes).to_vec();
                    assert!(names.insert(name, block::entry(bytes, record.offset).expect("sound")).is_none());
                }
                (at, dist) = (self.next(leaf), dist + 1);
            }
            slot = run.end();
        }
        names
    }
}

/// A linear directory with `.` and `..`, filled until the first name that does not fit; says which that was.
fn fill_linear(bs: BlockSize, name: impl Fn(u64) -> Vec<u8>) -> (Vec<u8>, u64) {
    let mut block = vec![0; bs.bytes()];
    let mut dinode = *crate::format::Dinode::view(&block);
    let own = entry(0).inum;
    super::init(&mut block, &mut dinode, own, own);
    assert_eq!(
        (dinode.entries.get(), dinode.size.get(), dinode.payload_format.get()),
        (2, bs.stuffed_max() as u64, 1200)
    );
    let mut n = 0;
    while put(&mut block, 232, &name(n), entry(n)) {
        n += 1;
    }
    (block, n)
}

fn grown(bs: BlockSize, names: u64, name: impl Fn(u64) -> Vec<u8>) -> Mem {
    let (block, full) = fill_linear(bs, &name);
    let mut mem = Mem::convert(bs, &block);
    (full..names).for_each(|n| mem.add(&name(n), entry(n)));
    assert_eq!(mem.check().len() as u64, names + 2);
    mem
}

#[test]
fn dot_and_dotdot_as_mkfs_writes_them() {
    let bs = size(4096);
    let mut block = vec![0x5a; bs.bytes()];
    let mut dinode = *crate::format::Dinode::view(&block);
    super::init(&mut block, &mut dinode, entry(1).inum, entry(2).inum);
    let all: Vec<_> = records(&block, 232).map(|r| r.expect("sound")).collect();
    assert_eq!(
        all.iter().map(|r| (r.offset, r.len, r.hash)).collect::<Vec<_>>(),
        [(232, 48, 0x0ed4_e242), (280, 3816, 0x9608_161c)]
    );
    assert_eq!(block::entry(&block, 280).expect("sound").inum, entry(2).inum);
}

#[test]
fn growth_has_the_kernels_numbers() {
    // ondisk.md 5.6.3: 12,000 sequential creates make 256 leaves at 4096, 300 make 56 at 512.
    assert_eq!(grown(size(4096), 12_000, |n| format!("f{n}").into_bytes()).leaves.len(), 256);
    assert_eq!(grown(size(512), 300, |n| format!("f{n}").into_bytes()).leaves.len(), 56);
}

#[test]
fn colliding_names_make_the_deepest_table_and_a_chain() {
    // ondisk.md C.5: the names c0, c1, ... whose top 17 hash bits are those of "hello"; 22 leaves (5.6.3), 8 names in each.
    let wanted = dir_hash(b"hello").0 >> 15;
    let names: Vec<Vec<u8>> =
        (0..).map(|n| format!("c{n}").into_bytes()).filter(|n| dir_hash(n).0 >> 15 == wanted).take(40).collect();
    assert_eq!(names[..3], [&b"c13527"[..], b"c158231", b"c185835"]);
    let mem = grown(size(512), 40, |n| names[n as usize].clone());
    assert_eq!((mem.depth, mem.table.len() * 8), (17, 1 << 20));
    let mut chain = vec![mem.table[wanted as usize]];
    while let Some(next) = mem.next(chain[chain.len() - 1]) {
        chain.push(next);
    }
    let dist: Vec<u32> = chain.iter().map(|&l| Leaf::view(&mem.leaves[l]).dist.get()).collect();
    assert_eq!((dist, mem.leaves.len()), (vec![1, 2, 3, 4, 5], 22));
}

#[test]
fn the_rehearsal_foretells_growth() {
    let bs = size(512);
    let names = |n: u64| format!("{}{n}", "long".repeat((n % 50) as usize)).into_bytes();
    let (block, full) = fill_linear(bs, names);
    let mut mem = Mem::convert(bs, &block);
    for n in full..2000 {
        let name = names(n);
        let (hash, depth, leaves) = (dir_hash(&name), mem.depth, mem.leaves.len());
        let first = mem.table[index(hash, depth) as usize];
        let told = split::rehearse(mem.leaves[first].clone(), depth, hash, dirent_len(name.len())).expect("sound");
        mem.add(&name, entry(n));
        assert_eq!(
            (mem.depth - depth, mem.leaves.len() - leaves),
            (told.doublings, told.splits as usize + usize::from(told.chained))
        );
    }
}

#[test]
fn every_rule_of_a_record_is_checked() {
    let good = {
        let mut block = Mem::leaf(size(512), 3, 1);
        for n in 0..4 {
            assert!(put(&mut block, LEAF_SIZE, format!("name{n}").as_bytes(), entry(n)));
        }
        block
    };
    let defect = |offset: usize, value: &[u8]| {
        let mut block = good.clone();
        block[offset..offset + value.len()].copy_from_slice(value);
        block::count(&block, LEAF_SIZE).err()
    };
    let (first, second) = (LEAF_SIZE, LEAF_SIZE + 48);
    assert_eq!(block::count(&good, LEAF_SIZE), Ok(4));
    assert_eq!(defect(first + 20, &[0, 44]), Some(Defect("record length too small or misaligned")));
    assert_eq!(defect(first + 20, &[0, 0]), Some(Defect("record length too small or misaligned")));
    assert_eq!(defect(second + 20, &[2, 0]), Some(Defect("record passes the block's end")));
    assert_eq!(defect(second + 22, &[0, 0]), Some(Defect("name does not fit its record")));
    assert_eq!(defect(second + 22, &[1, 0]), Some(Defect("name does not fit its record")));
    assert_eq!(defect(second, &[0; 8]), Some(Defect("unused entry that is not the first")));
    assert_eq!(defect(first + 8, &[0; 8]), None);
    // The last record one short of the end.
    assert_eq!(defect(LEAF_SIZE + 3 * 48 + 20, &[0, 248]), Some(Defect("entries do not end at the block's end")));
}

proptest! {
    #[test]
    fn a_block_is_a_small_map(bs in prop::sample::select(vec![512u32, 1024, 4096]), ops in prop::collection::vec((any::<bool>(), 0u64..60, 1usize..255), 1..300)) {
        let mut block = Mem::leaf(size(bs), 0, 1);
        let mut model = BTreeMap::new();
        for (add, n, len) in ops {
            let mut name = format!("{n:02}").into_bytes();
            name.resize(2 + (n as usize * 7 + len * usize::from(n % 3 == 0)) % 200, b'x');
            let known = model.keys().find(|k: &&Vec<u8>| k[..2] == name[..2]).cloned();
            match (add, known) {
                (true, None) => if put(&mut block, LEAF_SIZE, &name, entry(n)) { model.insert(name, entry(n)); },
                (false, Some(name)) => {
                    let found = find(&block, LEAF_SIZE, dir_hash(&name), &name).expect("sound").expect("there");
                    block::delete(&mut block, found);
                    model.remove(&name);
                }
                _ => {}
            }
            let live: BTreeMap<_, _> = records(&block, LEAF_SIZE).map(|r| r.expect("sound")).filter(|r| r.live)
                .map(|r| (r.name(&block).to_vec(), block::entry(&block, r.offset).expect("sound"))).collect();
            prop_assert_eq!(&live, &model);
        }
    }

    #[test]
    fn a_hashed_directory_is_a_map(bs in prop::sample::select(vec![512u32, 1024]), ops in prop::collection::vec((0u8..4, 0u64..400), 1..800)) {
        let name = |n: u64| { let mut name = format!("n{n}").into_bytes(); name.resize(2 + name.len() + (n * 37 % 200) as usize, b'y'); name };
        let (block, full) = fill_linear(size(bs), |n| name(n + 1000));
        let mut mem = Mem::convert(size(bs), &block);
        let mut model: BTreeMap<Vec<u8>, Entry> = mem.check();
        prop_assert_eq!(model.len() as u64, full + 2);
        for (op, n) in ops {
            if op == 0 {
                prop_assert_eq!(mem.remove(&name(n)), model.remove(&name(n)).is_some());
            } else if let std::collections::btree_map::Entry::Vacant(v) = model.entry(name(n)) {
                v.insert(entry(n));
                mem.add(&name(n), entry(n));
            }
            prop_assert_eq!(mem.find(&name(n)).is_some(), model.contains_key(&name(n)));
        }
        prop_assert_eq!(mem.check(), model);
    }

    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 512), lens in prop::collection::vec(0usize..8, 60), need in 1usize..255) {
        // Plausible record lengths, so that walks get far.
        let mut at = LEAF_SIZE;
        for len in lens {
            if at + 40 > bytes.len() { break; }
            bytes[at + 20..at + 24].copy_from_slice(&[0, 40 + 8 * len as u8, 0, 1 + len as u8]);
            at += 40 + 8 * len;
        }
        let name = vec![b'n'; need];
        let _ = find(&bytes, LEAF_SIZE, dir_hash(&name), &name); // Any answer is right; panicking is not.
        let _ = block::count(&bytes, LEAF_SIZE);
        let mut new = Mem::leaf(size(512), 1, 1);
        let before = bytes.clone();
        if split::split(&mut bytes, &mut new, 1 << 31).is_err() {
            prop_assert_eq!(&bytes, &before);
        } else {
            prop_assert!(block::count(&new, LEAF_SIZE).is_ok() && block::count(&bytes, LEAF_SIZE).is_ok());
        }
        Leaf::edit(&mut bytes).depth.set(4);
        let _ = split::rehearse(bytes, 5, dir_hash(&name), dirent_len(need));
    }
}
