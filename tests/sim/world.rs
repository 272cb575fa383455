//! A schedule: the volume, the nodes, what befalls them, and what must hold in the end.

use crate::disk::{Cable, Fate};
use crate::history::History;
use crate::log::Log;
use crate::mover::{place, token};
use crate::net::Net;
use crate::node;
use crate::tokens::{PLACES, TOKENS, Tokens};
use gfs2r::clock::{Clock, SimClock};
use gfs2r::device::{BlockDevice, CrashMode, MemoryDevice, SimDevice};
use gfs2r::fs::{Caller, Fs, NewInode};
use gfs2r::ids::Jid;
use gfs2r::quota::QuotaMode;
use gfs2r::sync::simulated::{Failure, Report, Settings, note, random, run};
use gfs2r::sync::{Mutex, thread};
use gfs2r::volume::{self, OpenOptions};
use lockclient::ids::NodeId;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

pub(crate) const ME: Caller = Caller { uid: 0, gid: 0, umask: 0 };
/// Files that are overwritten in place: their sectors are registers.
pub(crate) const REGISTERS: [(&str, u64); 3] = [("r0", 1), ("r1", 4), ("r2", 12)];
/// Directories with names that all nodes make and take away.
pub(crate) const DIRS: [&str; 2] = ["d0", "d1"];
/// From this seed on tokens are moved.
const MOVED_FROM: u64 = 8_000_000;
/// What is in the registers in the beginning.
const FIRST: u64 = 1;

/// All that is fixed for a schedule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) nodes: u32,
    pub(crate) block_size: u32,
    /// Operations in a life, and lives of a node, at most.
    pub(crate) operations: u64,
    pub(crate) lives: u64,
    /// Deaths from outside.
    pub(crate) kills: u64,
    /// The power goes for all.
    pub(crate) power: bool,
    /// Of so many lives one ends in a write, and one by a write error.
    pub(crate) dies_one_in: u64,
    pub(crate) fails_one_in: u64,
    pub(crate) one_in: u64,
    /// The volume is as it was made (and slower to open), and checked with the stock tools in the end.
    pub(crate) stock: bool,
    /// Threads of each life that move tokens between directories.
    pub(crate) movers: u64,
    /// A rule that is broken on purpose.
    pub(crate) broken: Option<Broken>,
}

/// Rules that a schedule can break, to prove that it would be noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// The journal of a dead node is not replayed, and said to be.
    Replay,
    /// A dead node is said to be fenced, and goes on writing for a while.
    Fence,
    /// What a flush of a device confirms is lost when the power goes.
    Flush,
    /// Some log headers are not written: what was committed with them is not in the log when a lock is given up.
    Log,
    /// Some blocks that are no metadata are not written.
    Data,
    /// Replays know of no revokes.
    Revokes,
}

impl Plan {
    /// What this seed means.
    pub(crate) fn of(seed: u64) -> Self {
        let mut state = seed ^ 0x005e_ed0f_9f52;
        let mut draw = |below: u64| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (z ^ (z >> 31)) % below
        };
        Self {
            seed,
            nodes: [2, 2, 2, 3, 3, 4][draw(6) as usize],
            block_size: [512, 1024][draw(2) as usize],
            operations: [6, 12, 24][draw(3) as usize],
            lives: 1 + draw(3),
            kills: [0, 1, 1, 2][draw(4) as usize],
            power: draw(4) == 0,
            dies_one_in: [0, 2, 3][draw(3) as usize],
            fails_one_in: [0, 0, 6][draw(3) as usize],
            one_in: [3, 20, 100, 500][draw(4) as usize],
            stock: seed.is_multiple_of(500),
            // Older seeds are kept as they are.
            movers: if seed < MOVED_FROM { 0 } else { [0, 1, 2, 3][draw(4) as usize] },
            broken: None,
        }
    }
}

/// What the threads of a schedule share.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) disk: Arc<SimDevice>,
    pub(crate) net: OnceLock<Arc<Net>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) history: History,
    pub(crate) log: Log,
    pub(crate) tokens: Tokens,
    /// The present life of each node: its cable, and which life it is.
    pub(crate) lives: Mutex<BTreeMap<NodeId, (Arc<Cable>, u64)>>,
    /// No power.
    pub(crate) dark: AtomicBool,
    values: AtomicU64,
    pub(crate) counts: Counts,
}

/// What happened in a schedule.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) operations: AtomicU64,
    pub(crate) deaths: AtomicU64,
    pub(crate) replays: AtomicU64,
    pub(crate) withdrawals: AtomicU64,
}

impl Counts {
    pub(crate) fn add(&self, other: &Self) {
        let pairs = [
            (&self.operations, &other.operations),
            (&self.deaths, &other.deaths),
            (&self.replays, &other.replays),
            (&self.withdrawals, &other.withdrawals),
        ];
        for (sum, one) in pairs {
            sum.fetch_add(one.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }
}

impl World {
    pub(crate) fn net(&self) -> &Arc<Net> {
        self.net.get().expect("set before the nodes start")
    }
    /// A number that nobody has used yet.
    pub(crate) fn value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::Relaxed) + 100
    }
    pub(crate) fn options(&self, jid: Jid) -> OpenOptions {
        OpenOptions { jid, quota: QuotaMode::Account, cache_bytes: 1 << 20, commit_secs: 1, ..OpenOptions::default() }
    }

    /// A life ends without a word.
    pub(crate) fn died(&self, by: u64) {
        self.history.died(by);
        self.log.died(by);
        self.tokens.died(by);
    }
    /// Nobody believes what this life is told.
    pub(crate) fn is_out(&self, by: u64) -> bool {
        by < 1_000_000 && (self.net().is_cut_off(NodeId((by / 1000) as u32)) || self.dark.load(Ordering::SeqCst))
    }
    /// Its life is over: nobody hears of it from now on. `at_once`: nor does the disk; otherwise only when it is fenced.
    pub(crate) fn kill(&self, id: NodeId, at_once: bool) {
        let Some((cable, by)) = self.lives.lock().get(&id).cloned() else { return };
        self.died(by);
        self.counts.deaths.fetch_add(1, Ordering::Relaxed);
        if at_once {
            cable.pull();
        }
        self.net().dies(id, at_once);
    }

    pub(crate) fn fate(&self) -> Fate {
        let once = |one_in: u64| one_in > 0 && random(one_in) == 0;
        let dies_at = once(self.plan.dies_one_in).then(|| random(120));
        let fails_at = once(self.plan.fails_one_in).then(|| random(120));
        Fate { dies_at, fails_at }
    }
}

/// What a sector full of this number looks like.
pub(crate) fn sector(value: u64) -> Vec<u8> {
    value.to_le_bytes().repeat(512 / 8)
}

/// A file of ours, by name; the caller forgets it.
pub(crate) fn put(fs: &Fs, name: &str, bytes: &[u8]) {
    let attr = fs.make(&ME, fs.root(), name.as_bytes(), &NewInode::File(0o644)).expect("made");
    if !bytes.is_empty() {
        assert_eq!(fs.write(&ME, attr.inum.addr, 0, bytes, false).expect("written"), bytes.len());
    }
    fs.forget(attr.inum.addr, 1).expect("forgotten");
}

/// A volume, and the same with its journals as they were made.
type Base = (MemoryDevice, MemoryDevice);

/// A volume for so many nodes, made once.
fn base(nodes: u32, block_size: u32, tokens: bool) -> Base {
    static MADE: OnceLock<std::sync::Mutex<BTreeMap<(u32, u32, bool), Base>>> = OnceLock::new();
    let mut made = MADE.get_or_init(Default::default).lock().expect("no panic");
    let (disk, full) = made.entry((nodes, block_size, tokens)).or_insert_with(|| {
        // In a simulation of its own, so that it is the same in every process.
        let (made, disk) = mpsc::channel();
        let settings = Settings { seed: 0, one_in: 100, steps: 1_000_000, lines: 0 };
        run(settings, move || made.send(make(nodes, block_size, tokens)).expect("awaited")).expect("it is made");
        disk.recv().expect("sent")
    });
    (disk.snapshot(), full.snapshot())
}

/// The beginning of a log header.
const HEADER: [u8; 8] = [0x01, 0x16, 0x19, 0x70, 0, 0, 0, 8];

fn make(nodes: u32, block_size: u32, tokens: bool) -> Base {
    let disk = Arc::new(MemoryDevice::new(96 << 20));
    let small = gfs2r_mkfs::Options::small(block_size).expect("a legal block size");
    let (lock_proto, lock_table) = ("lock_dlm".into(), "sim:fs".into());
    let options = gfs2r_mkfs::Options {
        journals: nodes,
        seed: 7,
        uuid: [7; 16],
        time: 1_600_000_000,
        lock_proto,
        lock_table,
        journal_mib: Some(JOURNAL_MIB),
        quota_change_mib: 1,
        rgrp_mib: 32,
        ..small
    };
    gfs2r_mkfs::format_device(&*disk, &options, &mut gfs2r_mkfs::Silent).expect("the volume is made");
    let clock: Arc<dyn Clock> = Arc::new(SimClock::new(1_600_000_000));
    let opened = volume::open(Arc::clone(&disk) as _, &OpenOptions::default(), clock).expect("opens");
    let fs = &opened.fs;
    for (name, sectors) in REGISTERS {
        put(fs, name, &sector(FIRST).repeat(sectors as usize));
    }
    put(fs, "log", &[]);
    for name in DIRS {
        let attr = fs.make(&ME, fs.root(), name.as_bytes(), &NewInode::Dir(0o755)).expect("made");
        fs.forget(attr.inum.addr, 1).expect("forgotten");
    }
    if tokens {
        put_tokens(fs);
    }
    opened.close().expect("closes");
    drop(opened);
    let full = disk.snapshot();
    blank(&disk, u64::from(block_size));
    // Without the pages that became empty.
    let packed = MemoryDevice::new(disk.size());
    let mut page = vec![0; 4096];
    for at in (0..disk.size()).step_by(4096) {
        disk.read(at, &mut page).expect("readable");
        if page.iter().any(|b| *b != 0) {
            packed.write(at, &page).expect("writable");
        }
    }
    (packed, full)
}

/// All tokens are in the first place; the last of them is a directory.
fn put_tokens(fs: &Fs) {
    for n in 0..PLACES {
        let attr = fs.make(&ME, fs.root(), place(n).as_bytes(), &NewInode::Dir(0o755)).expect("made");
        for t in (0..TOKENS).filter(|_| n == 0) {
            let kind = if t == TOKENS - 1 { NewInode::Dir(0o755) } else { NewInode::File(0o644) };
            let made = fs.make(&ME, attr.inum.addr, token(t).as_bytes(), &kind).expect("made").inum.addr;
            if t < TOKENS - 1 {
                fs.write(&ME, made, 0, token(t).as_bytes(), false).expect("written");
            }
            fs.forget(made, 1).expect("forgotten");
        }
        fs.forget(attr.inum.addr, 1).expect("forgotten");
    }
}

/// Empties the journals but for the newest header of each: whoever looks for it need not check thousands of others.
fn blank(disk: &MemoryDevice, block_size: u64) {
    let mut newest: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let mut block = vec![0; block_size as usize];
    let mut headers = Vec::new();
    for at in (0..disk.size()).step_by(block_size as usize) {
        disk.read(at, &mut block).expect("readable");
        if block[..8] != HEADER {
            continue;
        }
        let number = |range: std::ops::Range<usize>| range.fold(0, |n, i| n << 8 | u64::from(block[i]));
        let (jid, sequence) = (number(20..24) as u32, number(24..32));
        headers.push((jid, at));
        let best = newest.entry(jid).or_insert((sequence, at));
        *best = (*best).max((sequence, at));
    }
    block.fill(0);
    for (jid, at) in headers {
        if newest[&jid].1 != at {
            disk.write(at, &block).expect("writable");
        }
    }
}

/// MiB in a journal.
const JOURNAL_MIB: u32 = 8;

/// Runs a schedule; `counts` is added to. The image that is left in the end goes to `last`.
pub(crate) fn schedule(
    plan: Plan,
    lines: usize,
    counts: &Arc<Counts>,
    last: &Arc<std::sync::Mutex<Option<MemoryDevice>>>,
) -> Result<Report, Failure> {
    let (blanked, full) = base(plan.nodes, plan.block_size, plan.movers > 0);
    let disk = if plan.stock { full } else { blanked };
    let settings = Settings { seed: plan.seed, one_in: plan.one_in, steps: 3_000_000, lines };
    let (counts, last) = (Arc::clone(counts), Arc::clone(last));
    run(settings, move || {
        let world = Arc::new(World {
            plan,
            disk: Arc::new(SimDevice::new(disk)),
            net: OnceLock::new(),
            clock: Arc::new(SimClock::new(1_700_000_000)),
            history: History::default(),
            log: Log::default(),
            tokens: Tokens::default(),
            lives: Mutex::default(),
            dark: AtomicBool::new(false),
            values: AtomicU64::new(0),
            counts: Counts::default(),
        });
        for (name, sectors) in REGISTERS {
            (0..sectors).for_each(|n| world.history.begin_with(&format!("{name}/{n}"), FIRST));
        }
        let weak = Arc::downgrade(&world);
        let fence = move |id: NodeId| {
            let Some(world) = weak.upgrade() else { return true };
            let Some((cable, _)) = world.lives.lock().get(&id).cloned() else { return true };
            if world.plan.broken != Some(Broken::Fence) {
                cable.pull();
                return true;
            }
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(200));
                cable.pull();
                world.net().is_off(id);
            });
            false
        };
        let net = Net::new(Box::new(fence));
        assert!(world.net.set(net).is_ok(), "set once");
        let found = play(&world);
        let found = Arc::new(found);
        check(&world, &found);
        counts.add(&world.counts);
        *last.lock().expect("no panic") = Some(found.snapshot());
    })
}

/// Runs the nodes to their end; gives the disk as it is then.
fn play(world: &Arc<World>) -> MemoryDevice {
    let plan = world.plan;
    let start = |n: u32| {
        let world = Arc::clone(world);
        thread::Builder::new().name(format!("n{n}")).spawn(move || node::run(&world, NodeId(n))).expect("a thread")
    };
    let nodes: Vec<_> = (1..=plan.nodes).map(start).collect();
    let killer = {
        let world = Arc::clone(world);
        thread::Builder::new().name("fate".into()).spawn(move || {
            for _ in 0..world.plan.kills {
                thread::sleep(Duration::from_micros(random(1_000_000)));
                let id = NodeId(1 + random(u64::from(world.plan.nodes)) as u32);
                world.kill(id, random(2) == 0);
            }
        })
    };
    let mut found = None;
    if plan.power {
        thread::sleep(Duration::from_micros(random(1_200_000)));
        found = Some(blackout(world));
    }
    for thread in nodes.into_iter().chain(killer) {
        thread.join().expect("no panic");
    }
    world.net().end();
    found.unwrap_or_else(|| world.disk.contents())
}

fn blackout(world: &World) -> MemoryDevice {
    world.dark.store(true, Ordering::SeqCst);
    let lives: Vec<(NodeId, (Arc<Cable>, u64))> =
        world.lives.lock().iter().map(|(id, life)| (*id, life.clone())).collect();
    // Nobody comes between from here on.
    for (_, (cable, by)) in &lives {
        cable.pull();
        world.died(*by);
    }
    world.history.power_lost();
    world.log.power_lost();
    world.tokens.power_lost();
    let mode = [CrashMode::AllLost, CrashMode::AllKept, CrashMode::Random, CrashMode::Torn][random(4) as usize];
    note(99, || format!("the power goes: {mode:?}"));
    let image = world.disk.crash(random(u64::MAX), mode);
    for (id, _) in lives {
        world.net().dies(id, true);
    }
    image
}

/// What must hold in the end: every journal can be replayed, nothing is wrong, nothing that was certain is lost.
fn check(world: &Arc<World>, disk: &Arc<MemoryDevice>) {
    let device: Arc<dyn BlockDevice> = Arc::clone(disk) as _;
    let opened = volume::open(device, &world.options(Jid(0)), Arc::clone(&world.clock)).expect("the volume opens");
    let reader = node::Reader { world, fs: &opened.fs, by: 1_000_000, checks: true };
    reader.all();
    for n in 0..opened.journals {
        assert!(n == 0 || opened.is_journal_clean(Jid(n)).expect("readable"), "journal {n} is dirty");
    }
    opened.fs.reclaim_orphans(&AtomicBool::new(false)).expect("orphans");
    opened.close().expect("a clean close");
    drop(opened);
    let options = gfs2r_fsck::Options { ignore_unlinked: true, ..Default::default() };
    let report = gfs2r_fsck::check(&**disk, &options).expect("can be checked");
    let found: Vec<String> = report.errors().take(20).map(|i| format!("{i}")).collect();
    assert!(found.is_empty(), "the checker found:\n{}", found.join("\n"));
}
