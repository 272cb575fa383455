//! Several nodes on one disk: each sees what the others did, whoever dies in the middle.
//!
//! `SEED` repeats a run; `SHARED_OPS` (operations) makes it longer.

#[path = "shared/busy.rs"]
mod busy;
#[path = "shared/deaths.rs"]
mod deaths;
#[path = "shared/detail.rs"]
mod detail;
#[path = "support/hall.rs"]
mod hall;
#[path = "model/harness.rs"]
mod harness;
#[path = "model/ops.rs"]
mod ops;
#[allow(dead_code, reason = "each test uses its own part")]
#[path = "model/reference.rs"]
mod reference;
mod support;

use gfs2r::clock::{Clock, SimClock};
use gfs2r::device::{BlockDevice, MemoryDevice};
use gfs2r::ids::Jid;
use gfs2r::quota::QuotaMode;
use gfs2r::volume::{Mounter, OpenOptions, Opened, open_shared};
use hall::{Cable, Hall};
use harness::World;
use ops::Rng;
use std::sync::Arc;
use support::{check, stock_fsck};

/// The disk, the locks, and who is there.
pub(crate) struct Cluster {
    pub disk: Arc<MemoryDevice>,
    pub hall: Arc<Hall>,
    pub cables: Vec<Arc<Cable>>,
    pub clock: Arc<dyn Clock>,
    pub options: OpenOptions,
}

impl Cluster {
    pub(crate) fn make(nodes: u32, mib: u64, block_size: u32, seed: u64) -> Self {
        let disk = Arc::new(MemoryDevice::new(mib << 20));
        let small = gfs2r_mkfs::Options::small(block_size).expect("a legal block size");
        // One group for all, or some for each.
        let rgrp_mib = if seed.is_multiple_of(3) { 2048 } else { 32 };
        let (lock_proto, lock_table) = ("lock_dlm".into(), "hall:shared".into());
        let options = gfs2r_mkfs::Options { journals: nodes, seed, rgrp_mib, lock_proto, lock_table, ..small };
        gfs2r_mkfs::format_device(&*disk, &options, &mut gfs2r_mkfs::Silent).expect("the volume is made");
        let cables = (0..nodes).map(|_| Cable::new(&disk)).collect();
        let clock: Arc<dyn Clock> = Arc::new(SimClock::new(1_700_000_000));
        let options = OpenOptions { discard: true, quota: QuotaMode::Account, ..OpenOptions::default() };
        Self { disk, hall: Hall::open(seed), cables, clock, options }
    }

    pub(crate) fn join(&mut self, n: usize, mounter: Mounter) -> Opened {
        self.cables[n] = Cable::new(&self.disk);
        let options = OpenOptions { jid: Jid(n as u32), ..self.options.clone() };
        let device: Arc<dyn BlockDevice> = Arc::clone(&self.cables[n]) as _;
        open_shared(device, &options, Arc::clone(&self.clock), self.hall.desk(n), mounter)
            .unwrap_or_else(|e| panic!("node {n} opens: {e}"))
    }

    pub(crate) fn all(&mut self) -> Vec<Opened> {
        let all: Vec<Opened> = (0..self.cables.len())
            .map(|n| self.join(n, if n == 0 { Mounter::First } else { Mounter::Joining }))
            .collect();
        all
    }

    /// Node `n` dies: neither disk nor locks hear of it any more.
    pub(crate) fn kill(&self, n: usize, opened: Opened) {
        self.cables[n].pull();
        self.hall.kill(n);
        drop(opened);
    }

    /// A survivor replays its journal; then locks are granted again.
    pub(crate) fn recover(&self, survivor: &Opened, n: usize) {
        let replayed = survivor.recover_journal(Jid(n as u32)).unwrap_or_else(|e| panic!("recovery of {n}: {e}"));
        assert!(replayed.clean || replayed.found >= replayed.replayed);
        self.hall.recovered();
    }

    pub(crate) fn nobody_holds(&self) {
        for n in 0..self.cables.len() {
            assert_eq!(self.hall.held_by(n), [], "node {n} left and holds locks");
        }
    }
}

pub(crate) fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

/// Operations one after the other, each on a node drawn by lot, compared with the model; a node dies now and then and comes
/// again, another one leaves and comes again.
fn in_turn(nodes: u32, mib: u64, block_size: u32, operations: u64, seed: u64) {
    let operations = number("SHARED_OPS", operations);
    println!("{nodes} nodes, {mib} MiB, block size {block_size}, {operations} operations, SEED={seed}");
    let mut cluster = Cluster::make(nodes, mib, block_size, seed);
    let opened = cluster.all();
    let disk: Arc<dyn BlockDevice> = Arc::clone(&cluster.disk) as _;
    let mut world = World::shared(disk, cluster.options.clone(), Arc::clone(&cluster.clock), opened);
    let mut rng = Rng::new(seed);
    for n in 0..operations {
        world.now = rng.below(u64::from(nodes)) as usize;
        let op = ops::random(&mut rng, u64::from(block_size));
        if std::env::var_os("SHARED_TRACE").is_some() {
            println!("{n}: on {}: {op:?}", world.now);
        }
        let start = std::time::Instant::now();
        world.apply(&op);
        if std::env::var_os("SHARED_TRACE").is_some() && start.elapsed().as_millis() > 20 {
            println!("    {:?}", start.elapsed());
        }
        healthy(&world, &format!("SEED={seed} operation {n} on {}: {op:?}", world.now));
        if n % 701 == 700 {
            dies(&cluster, &mut world, &mut rng, seed);
            let dead = world.now;
            world.join(dead, cluster.join(dead, Mounter::Joining));
        }
        if n % 997 == 996 {
            let leaver = rng.below(u64::from(nodes)) as usize;
            world.now = leaver;
            world.apply(&ops::Op::CloseOpen);
            world.leave(leaver).close().expect("a clean close");
            assert_eq!(cluster.hall.held_by(leaver), [], "SEED={seed}: node {leaver} left and holds locks");
            world.join(leaver, cluster.join(leaver, Mounter::Joining));
        }
    }
    for node in 0..nodes as usize {
        world.now = node;
        world.check_all();
    }
    world.apply(&ops::Op::CloseOpen);
    world.settle();
    let left: u64 = world.all().map(|(_, o)| o.fs.reclaim_orphans(&Default::default()).expect("orphans")).sum();
    println!(
        "  {} nodes in the tree, {} times out of space, {left} orphans left over",
        world.model.nodes.len(),
        world.no_space
    );
    println!("  {:?} requests, {:?} notices", cluster.hall.requests, cluster.hall.notices);
    world.finish();
    cluster.nobody_holds();
    check(&*cluster.disk, &format!("SEED={seed} at the end"));
    stock_fsck(&cluster.disk, &format!("SEED={seed} at the end"));
}

fn healthy(world: &World, when: &str) {
    for (n, opened) in world.all() {
        if let Some(cause) = opened.fs.volume().journal.withdrawn() {
            panic!("{when}: node {n} has withdrawn: {cause}");
        }
    }
}

/// A node that has synced dies; the others have not, and go on.
fn dies(cluster: &Cluster, world: &mut World, rng: &mut Rng, seed: u64) {
    world.apply(&ops::Op::CloseOpen);
    world.settle();
    let nodes = world.all().count();
    let dead = rng.below(nodes as u64) as usize;
    world.now = dead;
    world.fs().sync().expect("sync");
    let opened = world.leave(dead);
    cluster.kill(dead, opened);
    let (_, survivor) = world.all().nth(rng.below(nodes as u64 - 1) as usize).expect("somebody is left");
    cluster.recover(survivor, dead);
    healthy(world, &format!("SEED={seed} after the death of {dead}"));
}

#[test]
fn two_nodes_in_turn() {
    in_turn(2, 192, 4096, 3000, ops::seed("two_nodes_in_turn"));
}

#[test]
fn three_nodes_in_turn() {
    in_turn(3, 192, 1024, 2500, ops::seed("three_nodes_in_turn"));
}

#[test]
fn four_nodes_in_turn() {
    in_turn(4, 192, 512, 1500, ops::seed("four_nodes_in_turn"));
}

/// Full most of the time: nodes take space from each other.
#[test]
fn two_nodes_nearly_full() {
    in_turn(2, 44, 4096, 1500, ops::seed("two_nodes_nearly_full"));
}
