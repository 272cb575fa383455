//! Allocating and freeing on a small volume, against a naive model: what state is every block in?

use super::*;
use crate::clock::SimClock;
use crate::device::{BlockDevice, MemoryDevice};
use crate::error::Error;
use crate::format::dinode::DINODE_SIZE;
use crate::format::rgrp::RindexEntry;
use crate::format::{Dinode, MetaHeader, MetaType, OnDisk, RgrpHeader, StatfsChange};
use crate::glock::Nolock;
use crate::glock::testing::Cluster;
use crate::ids::{BatchId, BlockSize};
use crate::journal::{FlushReason, JournalPlace, LogExtent, Reserve, UnrecoveredJournal};
use crate::sync::{Mutex, impatiently};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};

const LOG: u64 = 256;
const LOG_BLOCKS: u32 = 4096;
const MASTER: u64 = 150;
const CHANGE: u64 = 151;
const FIRST: u64 = 16384;

fn addr(n: u64) -> BlockAddr {
    BlockAddr::new(n).expect("not 0")
}

/// Counts what it is told.
#[derive(Default)]
struct Books(Mutex<(i64, i64)>);

impl Ledger for Books {
    fn log_blocks(&self) -> u32 {
        0
    }
    fn charge(&self, _: &mut Transaction<'_>, delta: StatfsChange, _: Option<Owner>) -> Result<()> {
        let mut sums = self.0.lock();
        sums.0 += delta.free.get();
        sums.1 += delta.dinodes.get();
        Ok(())
    }
}

struct Rig {
    dev: Arc<MemoryDevice>,
    bs: BlockSize,
    extents: Vec<RgrpExtent>,
    books: Arc<Books>,
    journal: Arc<Journal>,
    rgrps: Arc<Rgrps>,
}

/// Rgrps with so many data blocks each, one after the other, empty.
fn format(bs: BlockSize, sizes: &[u32]) -> (Arc<MemoryDevice>, Vec<RgrpExtent>) {
    let mut extents = Vec::new();
    let mut at = FIRST;
    for &data in sizes {
        let before = |len: u64| (bs.bytes() as u64 - 128) + (len - 1) * bs.payload() as u64;
        let length = (1..).find(|&len| u64::from(data / 4) <= before(len)).expect("there is a length") as u32;
        let entry = RindexEntry {
            addr: at.into(),
            length: length.into(),
            pad: 0.into(),
            data0: (at + u64::from(length)).into(),
            data: data.into(),
            bitbytes: (data / 4).into(),
            reserved: [0; 64],
        };
        extents.push(RgrpExtent::check(&entry, bs).expect("legal"));
        at += u64::from(length) + u64::from(data);
    }
    let dev = MemoryDevice::new(at << bs.shift());
    let mut block = vec![0; bs.bytes()];
    for n in [MASTER, CHANGE, CHANGE + 1] {
        MetaHeader::init(&mut block, MetaType::Dinode);
        Dinode::edit(&mut block).size.set(24);
        assert!(block.len() > DINODE_SIZE);
        dev.write(n << bs.shift(), &block).expect("memory");
    }
    for e in &extents {
        for n in 0..u64::from(e.length) {
            block.fill(0);
            MetaHeader::init(&mut block, if n == 0 { MetaType::Rgrp } else { MetaType::Bitmap });
            if n == 0 {
                RgrpHeader::edit(&mut block).free.set(e.data);
            }
            dev.write((e.addr.get() + n) << bs.shift(), &block).expect("memory");
        }
    }
    (Arc::new(dev), extents)
}

fn mount(dev: Arc<MemoryDevice>, bs: BlockSize, extents: Vec<RgrpExtent>) -> Rig {
    mount_node(dev, bs, extents, 0, Arc::new(Nolock))
}

fn mount_node(
    dev: Arc<MemoryDevice>,
    bs: BlockSize,
    extents: Vec<RgrpExtent>,
    node: u32,
    locks: Arc<dyn LockManager>,
) -> Rig {
    let jid = Jid(node);
    let cache = Cache::new(dev.clone(), bs, 16 << 20);
    let clock = Arc::new(SimClock::new(1_000_000));
    let place = JournalPlace {
        jid,
        extents: vec![LogExtent { addr: addr(LOG + u64::from(node * LOG_BLOCKS)), blocks: LOG_BLOCKS }],
        inode: addr(160),
        statfs_change: addr(CHANGE + u64::from(node)),
        quota_change: addr(161),
        master_statfs: addr(MASTER),
    };
    let journal =
        UnrecoveredJournal::examine(&cache, place).and_then(|j| j.recover(jid, &*clock)).expect("recovered").0;
    let journal = Journal::open(cache.clone(), journal, clock, true, 86400).expect("opened");
    let books = Arc::new(Books::default());
    let rgrps = Rgrps::new(cache, journal.clone(), locks, books.clone(), extents.clone(), jid, 2, true).expect("made");
    Rig { dev, bs, extents, books, journal, rgrps }
}

impl Rig {
    fn new(bs: u32, sizes: &[u32]) -> Self {
        let bs = BlockSize::new(bs).expect("legal");
        let (dev, extents) = format(bs, sizes);
        mount(dev, bs, extents)
    }
    fn remount(self) -> Self {
        self.journal.shutdown().expect("shut down");
        let Self { dev, bs, extents, .. } = self;
        mount(dev, bs, extents)
    }
    fn want(&self, blocks: u32, min: u32, goal: u64) -> Want {
        Want { blocks, min, goal: addr(goal), spread: false }
    }
    /// Allocates what is wanted, all of it, in one transaction.
    fn alloc(&self, want: Want, resv: &mut Reservation) -> Result<Vec<(BlockAddr, u32)>> {
        let mut space = self.rgrps.reserve(want, resv)?;
        let mut tx = self.journal.begin(Reserve::blocks(space.log_blocks()))?;
        let mut runs = Vec::new();
        while space.blocks() > 0 {
            runs.push(space.alloc(&mut tx, space.blocks(), None, None)?);
        }
        tx.commit();
        Ok(runs)
    }
    fn free(&self, start: BlockAddr, len: u32) -> BatchId {
        let mut free = self.rgrps.lock_for_free(start).expect("locked");
        let reach = 4 * (self.bs.bytes() as u32 - 128);
        let mut tx =
            self.journal.begin(Reserve::blocks(free.log_blocks(1 + len / reach)).with_revokes(len)).expect("begun");
        free.free(&mut tx, start, len, None).expect("used");
        tx.commit()
    }
    fn free_blocks(&self) -> u32 {
        (0..self.rgrps.len()).map(|n| self.rgrps.find(n, BlkState::Free).expect("read").len() as u32).sum()
    }
}

#[test]
fn files_grow_in_one_piece_beside_each_other() {
    let rig = Rig::new(4096, &[8000]);
    let mut resv = [Reservation::default(), Reservation::default()];
    let mut last: [Option<u64>; 2] = [None, None];
    let mut breaks = 0;
    for i in 0..200 {
        let f = i % 2;
        let goal = last[f].unwrap_or(rig.extents[0].data0.get());
        let runs = rig.alloc(rig.want(1, 1, goal), &mut resv[f]).expect("there is space");
        let at = runs[0].0.get();
        breaks += u32::from(last[f].is_some_and(|l| l + 1 != at));
        last[f] = Some(at);
    }
    assert!(breaks <= 8, "{breaks} breaks in two files of 100 blocks");
}

#[test]
fn goal_reservation_and_release() {
    let rig = Rig::new(4096, &[8000]);
    let base = rig.extents[0].data0.get();
    let mut resv = Reservation::default();
    assert_eq!(rig.alloc(rig.want(5, 1, base + 100), &mut resv).expect("space"), [(addr(base + 100), 5)]);
    let other = rig.alloc(rig.want(1, 1, base + 105), &mut Reservation::default()).expect("space")[0].0.get();
    assert!(other >= base + 105 + 32, "the reservation of another was respected, {other}");
    assert_eq!(rig.alloc(rig.want(1, 1, base + 105), &mut resv).expect("space"), [(addr(base + 105), 1)]);
    rig.rgrps.release(&mut resv);
    rig.alloc(rig.want(5, 1, base + 1000), &mut resv).expect("space");
    rig.rgrps.release(&mut resv);
    assert_eq!(
        rig.alloc(rig.want(1, 1, base + 1005), &mut Reservation::default()).expect("space")[0].0,
        addr(base + 1005)
    );
}

#[test]
fn no_space_is_said_exactly_when_there_is_none() {
    let rig = Rig::new(512, &[2000, 3000, 400]);
    let mut keep: Vec<Reservation> = (0..20).map(|_| Reservation::default()).collect();
    for (i, resv) in (0..).zip(&mut keep) {
        // Reservations everywhere, which must give way.
        rig.alloc(rig.want(1, 1, rig.extents[i % 3].data0.get() + 7), resv).expect("space");
    }
    let left = rig.free_blocks();
    assert_eq!(left, 5400 - 20);
    let goal = rig.extents[1].data0.get();
    let too_much = rig.rgrps.reserve(rig.want(left + 1, left + 1, goal), &mut Reservation::default()).err();
    assert!(matches!(too_much, Some(Error::NoSpace)));
    let runs = rig.alloc(rig.want(left, left, goal), &mut Reservation::default()).expect("exactly what is there");
    assert_eq!(runs.iter().map(|r| r.1).sum::<u32>(), left);
    assert_eq!(rig.free_blocks(), 0);
    assert!(matches!(rig.alloc(rig.want(1, 1, goal), &mut keep[0]), Err(Error::NoSpace)));
    // A freed block must wait for its batch: asking for it commits.
    let (start, _) = runs[0];
    let batch = rig.free(start, 3);
    assert!(rig.journal.committed() < batch);
    let three = |min| rig.rgrps.reserve(rig.want(3, min, goal), &mut Reservation::default()).map(|s| s.blocks());
    assert!(matches!(impatiently(|| three(3)), Err(Error::MustWait)));
    assert_eq!(three(3).expect("after a commit"), 3);
    assert!(rig.journal.committed() >= batch);
    assert!(matches!(three(4), Err(Error::NoSpace)));
    assert_eq!(rig.books.0.lock().0, -5400 + 3);
}

#[test]
fn the_reclaimer_is_asked_before_giving_up() {
    let rig = Rig::new(512, &[400]);
    let goal = rig.extents[0].data0.get();
    let mut space = rig.rgrps.reserve(rig.want(1, 1, goal), &mut Reservation::default()).expect("space");
    let mut tx = rig.journal.begin(Reserve::blocks(space.log_blocks())).expect("begun");
    let inum = space.alloc_dinode(&mut tx, None).expect("allocated");
    tx.commit();
    drop(space);
    let mut free = rig.rgrps.lock_for_free(inum.addr).expect("locked");
    let mut tx = rig.journal.begin(Reserve::blocks(free.log_blocks(1))).expect("begun");
    free.unlink_dinode(&mut tx, inum.addr).expect("a dinode");
    tx.commit();
    drop(free);
    assert_eq!(rig.rgrps.find(0, BlkState::Unlinked).expect("read"), [inum.addr]);
    rig.alloc(rig.want(399, 399, goal), &mut Reservation::default()).expect("all the rest");
    let asked = Arc::new(AtomicBool::new(false));
    let (weak, journal, mark) = (Arc::downgrade(&rig.rgrps), rig.journal.clone(), asked.clone());
    rig.rgrps.set_reclaimer(Box::new(move |n| {
        mark.store(true, Ordering::Relaxed);
        let rgrps = weak.upgrade().expect("alive");
        let found = rgrps.find(n, BlkState::Unlinked).expect("read");
        for &at in &found {
            let mut free = rgrps.lock_for_free(at).expect("locked");
            let mut tx = journal.begin(Reserve::blocks(free.log_blocks(1)).with_revokes(1)).expect("begun");
            free.free_dinode(&mut tx, at, None).expect("unlinked");
            tx.commit();
        }
        !found.is_empty()
    }));
    let runs = rig.alloc(rig.want(1, 1, goal), &mut Reservation::default()).expect("reclaimed");
    assert!(asked.load(Ordering::Relaxed));
    assert_eq!(runs, [(inum.addr, 1)]);
    assert!(matches!(rig.alloc(rig.want(1, 1, goal), &mut Reservation::default()), Err(Error::NoSpace)));
}

#[test]
fn illegal_changes_are_corruption_and_change_nothing() {
    let rig = Rig::new(512, &[4000]);
    let goal = rig.extents[0].data0.get();
    let runs = rig.alloc(rig.want(4, 4, goal), &mut Reservation::default()).expect("space");
    let mut free = rig.rgrps.lock_for_free(runs[0].0).expect("locked");
    let mut tx = rig.journal.begin(Reserve::blocks(free.log_blocks(2)).with_revokes(8)).expect("begun");
    for result in [
        free.free(&mut tx, runs[0].0, 5, None),
        free.free(&mut tx, addr(goal + 4), 1, None),
        free.free(&mut tx, addr(goal + 3999), 2, None),
        free.unlink_dinode(&mut tx, runs[0].0),
        free.free_dinode(&mut tx, runs[0].0, None),
    ] {
        assert!(matches!(result, Err(Error::Corrupt(_))), "{result:?}");
    }
    tx.commit();
    drop(free);
    assert_eq!(rig.free_blocks(), 3996);
    assert!(rig.journal.withdrawn().is_none());
    assert!(rig.rgrps.lock_for_free(addr(3)).is_err());
}

#[test]
fn a_header_that_miscounts_is_corruption() {
    let bs = BlockSize::new(512).expect("legal");
    let (dev, extents) = format(bs, &[400]);
    let mut block = vec![0; 512];
    dev.read(extents[0].addr.get() << 9, &mut block).expect("memory");
    RgrpHeader::edit(&mut block).free.set(401);
    dev.write(extents[0].addr.get() << 9, &block).expect("memory");
    let rig = mount(dev, bs, extents);
    assert!(matches!(rig.alloc(rig.want(1, 1, FIRST), &mut Reservation::default()), Err(Error::Corrupt(_))));
}

#[test]
fn trimming_sets_the_flag_and_freeing_clears_it() {
    let rig = Rig::new(512, &[400, 800]);
    let runs = rig.alloc(rig.want(10, 10, rig.extents[0].data0.get()), &mut Reservation::default()).expect("space");
    assert_eq!(rig.rgrps.trim(0, u64::MAX, 1).expect("trimmed"), 1190);
    assert_eq!(rig.rgrps.trim(0, u64::MAX, 1).expect("nothing left to do"), 0);
    rig.free(runs[0].0, 10);
    assert_eq!(rig.rgrps.trim(0, u64::MAX, 1).expect("trimmed"), 400);
    rig.free(rig.alloc(rig.want(1, 1, runs[0].0.get()), &mut Reservation::default()).expect("space")[0].0, 1);
    assert_eq!(rig.rgrps.trim(0, u64::MAX, 500).expect("only large runs"), 0);
    let rig = rig.remount();
    assert_eq!(rig.rgrps.trim(0, u64::MAX, 1).expect("the flag of the other is on the disk"), 400);
}

/// What every block should be, and which may not be used yet.
#[derive(Default)]
struct Model {
    states: BTreeMap<u64, BlkState>,
    freed: HashMap<u64, BatchId>,
    formal: HashMap<u64, u64>,
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

impl Model {
    fn take(&mut self, rig: &Rig, at: BlockAddr, state: BlkState) {
        let before = self.states.insert(at.get(), state);
        assert!(before.is_none(), "{at} was {before:?}");
        if let Some(batch) = self.freed.remove(&at.get()) {
            assert!(rig.journal.committed() >= batch, "{at} is reused before {batch:?} is durable");
        }
    }
    fn some(&self, random: &mut Random, state: BlkState) -> Option<BlockAddr> {
        let all: Vec<u64> = self.states.iter().filter(|(_, s)| **s == state).map(|(b, _)| *b).collect();
        (!all.is_empty()).then(|| addr(all[random.below(all.len() as u64) as usize]))
    }
    fn check(&self, rig: &Rig) {
        for e in &rig.extents {
            for i in 0..e.data {
                let at = e.block_at(i);
                let want = self.states.get(&at.get()).copied().unwrap_or(BlkState::Free);
                assert_eq!(rig.rgrps.state(at).expect("read"), want, "block {at}");
            }
        }
    }
}

fn alloc_some(rig: &Rig, model: &mut Model, random: &mut Random, resv: &mut Reservation) {
    let large = random.below(4) == 0;
    let blocks = 1 + random.below(if large { 700 } else { 12 }) as u32;
    let min = 1 + random.below(u64::from(blocks)) as u32;
    let e = rig.extents[random.below(rig.extents.len() as u64) as usize];
    let goal = e.block_at(random.below(u64::from(e.data)) as u32);
    let free: u32 = rig.extents.iter().map(|e| e.data).sum::<u32>() - model.states.len() as u32;
    let want = Want { blocks, min, goal, spread: random.below(10) == 0 };
    let mut space = match rig.rgrps.reserve(want, resv) {
        Ok(space) => space,
        Err(Error::NoSpace) => return assert!(free < min, "{free} blocks are free, {min} were wanted"),
        Err(e) => panic!("{e}"),
    };
    assert!(space.blocks() >= min && space.blocks() <= blocks);
    let mut tx = rig.journal.begin(Reserve::blocks(space.log_blocks())).expect("begun");
    // Not all of a promise is always used.
    let mut budget = if random.below(3) == 0 { space.blocks().div_ceil(2) } else { space.blocks() };
    while budget > 0 {
        match random.below(4) {
            0 if budget >= 2 => {
                let (inum, ea) = space.alloc_dinode_with_ea(&mut tx, None).expect("promised");
                model.take(rig, inum.addr, BlkState::Dinode);
                budget -= 1 + u32::from(ea.is_some());
                if let Some(ea) = ea {
                    assert_eq!(ea.get(), inum.addr.get() + 1);
                    model.take(rig, ea, BlkState::Used);
                }
            }
            1 => {
                let inum = space.alloc_dinode(&mut tx, None).expect("promised");
                model.take(rig, inum.addr, BlkState::Dinode);
                let old = model.formal.insert(inum.addr.get(), inum.formal.0);
                assert!(old.is_none_or(|o| o < inum.formal.0), "an address never lives twice with one number");
                budget -= 1;
            }
            _ => {
                let ask = 1 + random.below(u64::from(budget)) as u32;
                let near = (random.below(2) == 0).then_some(goal);
                let (start, len) = space.alloc(&mut tx, ask, near, None).expect("promised");
                assert!((1..=ask).contains(&len));
                (0..u64::from(len)).for_each(|i| model.take(rig, addr(start.get() + i), BlkState::Used));
                budget -= len;
            }
        }
    }
    tx.commit();
}

fn free_some(rig: &Rig, model: &mut Model, random: &mut Random) {
    let Some(start) = model.some(random, BlkState::Used) else { return };
    let n = rig.extents.iter().find(|e| e.index_of(start).is_some()).expect("one of them");
    let most = 1 + random.below(300);
    let is_used = |i: &u64| model.states.get(&(start.get() + i)) == Some(&BlkState::Used) && start.get() + i < n.end();
    let len = (0..most).take_while(is_used).count() as u32;
    let batch = rig.free(start, len);
    for i in 0..u64::from(len) {
        model.states.remove(&(start.get() + i));
        model.freed.insert(start.get() + i, batch);
    }
}

fn end_some(rig: &Rig, model: &mut Model, random: &mut Random) {
    let unlink = random.below(2) == 0;
    let Some(at) = model.some(random, if unlink { BlkState::Dinode } else { BlkState::Unlinked }) else { return };
    let mut free = rig.rgrps.lock_for_free(at).expect("locked");
    let mut tx = rig.journal.begin(Reserve::blocks(free.log_blocks(1)).with_revokes(1)).expect("begun");
    if unlink {
        free.unlink_dinode(&mut tx, at).expect("a dinode");
        model.states.insert(at.get(), BlkState::Unlinked);
    } else {
        free.free_dinode(&mut tx, at, None).expect("unlinked");
        model.states.remove(&at.get());
        model.freed.insert(at.get(), tx.batch());
    }
    tx.commit();
}

#[test]
fn as_the_model() {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0x5eed);
    println!("SEED={seed}");
    for (bs, sizes) in
        [(512, [2000, 3500, 400, 1200]), (1024, [6000, 400, 400, 4000]), (4096, [3000, 1000, 17000, 400])]
    {
        let mut random = Random(seed ^ u64::from(bs));
        let mut rig = Rig::new(bs, &sizes);
        let mut model = Model::default();
        let mut resv: Vec<Reservation> = (0..6).map(|_| Reservation::default()).collect();
        for round in 0..1500 {
            // Ebb and flood: full and empty volumes are where mistakes are.
            let flood = round / 300 % 2 == 0;
            match random.below(10) {
                0..=3 if flood => {
                    let which = random.below(6) as usize;
                    alloc_some(&rig, &mut model, &mut random, &mut resv[which]);
                }
                0 => alloc_some(&rig, &mut model, &mut random, &mut Reservation::default()),
                1..=6 => free_some(&rig, &mut model, &mut random),
                7 => rig.journal.flush(FlushReason::Normal).expect("flushed"),
                _ => end_some(&rig, &mut model, &mut random),
            }
            if round % 500 == 499 {
                let used = model.states.len() as i64;
                assert_eq!(rig.books.0.lock().0, -used, "the ledger was told of everything");
                model.check(&rig);
                resv.iter_mut().for_each(|r| rig.rgrps.release(r));
                rig = rig.remount();
                rig.books.0.lock().0 = -used;
                model.freed.clear();
                model.check(&rig);
            }
        }
        assert_eq!(rig.journal.overruns(), 0, "log_blocks is an upper bound");
    }
}

/// What a thread allocated and did not free, after a while of both.
fn work(rig: &Rig, seed: u64, rounds: u32) -> Vec<(BlockAddr, u32)> {
    let mut random = Random(seed);
    let mut mine: Vec<(BlockAddr, u32)> = Vec::new();
    let mut resv = Reservation::default();
    for _ in 0..rounds {
        let e = rig.extents[random.below(4) as usize];
        // Sometimes more than any rgrp has: several are locked.
        let large = random.below(8) == 0;
        let blocks = 1 + random.below(if large { 2500 } else { 60 }) as u32;
        let goal = e.block_at(random.below(u64::from(e.data)) as u32);
        match rig.alloc(Want { blocks, min: blocks, goal, spread: false }, &mut resv) {
            Ok(runs) => mine.extend(runs),
            Err(Error::NoSpace) => {}
            Err(e) => panic!("{e}"),
        }
        while mine.iter().map(|r| r.1).sum::<u32>() > 800 {
            let (start, len) = mine.swap_remove(random.below(mine.len() as u64) as usize);
            rig.free(start, len);
        }
    }
    mine
}

fn nobody_has_what_another_has(rig: &Rig, left: &[(BlockAddr, u32)]) {
    let used: u32 = left.iter().map(|r| r.1).sum();
    let mut blocks: Vec<u64> = left.iter().flat_map(|r| r.0.get()..r.0.get() + u64::from(r.1)).collect();
    blocks.sort_unstable();
    blocks.dedup();
    assert_eq!(blocks.len() as u32, used);
    assert_eq!(rig.free_blocks(), rig.extents.iter().map(|e| e.data).sum::<u32>() - used);
    assert_eq!(rig.journal.overruns(), 0);
}

const SIZES: [u32; 4] = [1200, 1600, 400, 2000];

#[test]
fn many_threads() {
    let rig = Rig::new(512, &SIZES);
    let left: Vec<_> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..4)
            .map(|id| {
                s.spawn({
                    let rig = &rig;
                    move || work(rig, 77 + id, 150)
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().expect("no panic")).collect()
    });
    nobody_has_what_another_has(&rig, &left);
}

#[test]
fn two_nodes() {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(9);
    println!("SEED={seed}");
    let bs = BlockSize::new(512).expect("legal");
    let (dev, extents) = format(bs, &SIZES);
    let cluster = Cluster::start(seed);
    let nodes: Vec<Rig> =
        (0..2).map(|n| mount_node(dev.clone(), bs, extents.clone(), n, cluster.node(n as usize))).collect();
    let left: Vec<_> = std::thread::scope(|s| {
        let threads: Vec<_> = (0..4)
            .map(|id| {
                s.spawn({
                    let rig = &nodes[id % 2];
                    move || work(rig, seed + 100 + id as u64, 40)
                })
            })
            .collect();
        threads.into_iter().flat_map(|t| t.join().expect("no panic")).collect()
    });
    for rig in &nodes {
        nobody_has_what_another_has(rig, &left);
        assert!(rig.journal.withdrawn().is_none());
    }
}
