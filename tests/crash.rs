//! The crash matrix: workloads on a disk that can crash, images of it at many moments with writes lost, torn and reordered;
//! each is replayed, checked, and compared with what the model says must be there.
//!
//! What must be there after a crash: the tree of names as it was after *some* operation between the last sync and the crash
//! (operations are atomic and stay in order), and the exact contents of every file that was synced and not touched since.

#[path = "model/harness.rs"]
mod harness;
#[path = "model/ops.rs"]
mod ops;
#[allow(dead_code, reason = "each test uses its own part")]
#[path = "model/reference.rs"]
mod reference;
mod support;

use gfs2r::clock::SimClock;
use gfs2r::device::{BlockDevice, CrashMode, MemoryDevice, SimDevice};
use gfs2r::fs::Fs;
use gfs2r::ids::BlockAddr;
use gfs2r::volume::{self, OpenOptions};
use harness::World;
use ops::{Op, Rng};
use reference::{Id, Kind, Model};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use support::{check, format, stock_fsck};

/// A disk that takes pictures of what a crash would leave, at random writes and flushes.
struct Watched {
    sim: SimDevice,
    state: Mutex<Pictures>,
}

struct Pictures {
    rng: Rng,
    /// Operations of the workload that have begun.
    begun: usize,
    /// Pictures of each write and flush.
    each: u32,
    taken: Vec<Picture>,
}

struct Picture {
    disk: MemoryDevice,
    /// Operations that had begun when it was taken.
    begun: usize,
    seed: u64,
    mode: CrashMode,
}

impl Watched {
    fn look(&self) {
        let mut state = self.state.lock().expect("no panic while held");
        for _ in 0..state.each {
            self.take_picture(&mut state);
        }
    }

    fn take_picture(&self, state: &mut Pictures) {
        let modes = [CrashMode::AllLost, CrashMode::AllKept, CrashMode::Random, CrashMode::Torn, CrashMode::Torn];
        let mode = match state.rng.below(6) {
            5 => CrashMode::Prefix(state.rng.below(self.sim.pending() as u64 + 1) as usize),
            n => modes[n as usize],
        };
        let seed = state.rng.next();
        let picture = Picture { disk: self.sim.crash(seed, mode), begun: state.begun, seed, mode };
        state.taken.push(picture);
    }
}

impl BlockDevice for Watched {
    fn size(&self) -> u64 {
        self.sim.size()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.sim.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.sim.write(offset, buf)?;
        self.look();
        Ok(())
    }
    fn write_durable(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.look();
        self.sim.write_durable(offset, buf)?;
        self.look();
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        self.look();
        self.sim.flush()?;
        self.look();
        Ok(())
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.sim.discard(offset, len)
    }
}

/// The tree of names: path → type. Two names of one inode are told by a number for each inode with several.
type Tree = BTreeSet<(Vec<u8>, char)>;

fn tree_of_model(model: &Model) -> Tree {
    let kind = |id: &Id| match &model.nodes[id].kind {
        Kind::File(_) => 'f',
        Kind::Dir(_) => 'd',
        Kind::Symlink(_) => 'l',
        Kind::Special(..) => 's',
    };
    model.paths().into_iter().map(|(path, id)| (path, kind(&id))).collect()
}

fn tree_of_volume(fs: &Fs) -> (Tree, BTreeMap<Vec<u8>, BlockAddr>) {
    use gfs2r::format::DirentType as T;
    let (mut tree, mut nodes) = (Tree::new(), BTreeMap::new());
    let mut todo = vec![(Vec::new(), fs.root())];
    while let Some((path, dir)) = todo.pop() {
        let mut names = Vec::new();
        fs.list(dir, 0, &mut |item| {
            if item.name != b"." && item.name != b".." {
                names.push((item.name.to_vec(), item.entry.kind));
            }
            true
        })
        .expect("list after a replay");
        for (name, kind) in names {
            let attr = fs.lookup(dir, &name).expect("lookup after a replay");
            let below = [&path[..], b"/", &name].concat();
            let c = match kind {
                T::Reg => 'f',
                T::Dir => 'd',
                T::Lnk => 'l',
                _ => 's',
            };
            tree.insert((below.clone(), c));
            nodes.insert(below.clone(), attr.inum.addr);
            if kind == T::Dir {
                todo.push((below, attr.inum.addr));
            }
        }
    }
    (tree, nodes)
}

/// What is known at each operation of the workload.
struct Story {
    /// The tree after operation n (entry 0: before the first), as a hash, with the tree itself for reports.
    trees: Vec<Tree>,
    /// Which inode each path led to after operation n.
    ids: Vec<BTreeMap<Vec<u8>, Id>>,
    /// For each sync: (operations that were done, model then).
    syncs: Vec<(usize, Model)>,
    /// Inodes that operation n may have changed the contents of.
    touched: Vec<Option<Id>>,
}

/// Which file an operation changes the contents of.
fn file_pick(op: &Op) -> Option<u64> {
    match op {
        Op::Write { file, .. }
        | Op::Truncate { file, .. }
        | Op::Punch { file, .. }
        | Op::Allocate { file, .. }
        | Op::Zero { file, .. }
        | Op::Chattr { file, .. } => Some(*file),
        _ => None,
    }
}

fn matrix(name: &str, block_size: u32, operations: usize, pictures: usize, weights: fn(&mut Rng, u64) -> Op) {
    let seed = ops::seed(name);
    let disk = MemoryDevice::new(48 << 20);
    format(&disk, block_size, 1, 1802, seed);
    let state = Pictures { rng: Rng::new(seed ^ 77), begun: 0, each: 2, taken: Vec::new() };
    let dev = Arc::new(Watched { sim: SimDevice::new(disk), state: Mutex::new(state) });
    let mut world = World::new(dev.clone(), OpenOptions::default());
    let mut rng = Rng::new(seed);
    let ids = |model: &Model| model.paths().into_iter().collect::<BTreeMap<_, _>>();
    let mut story = Story {
        trees: vec![tree_of_model(&world.model)],
        ids: vec![ids(&world.model)],
        syncs: vec![(0, world.model.clone())],
        touched: vec![None],
    };
    let mut todo: Vec<Op> = Vec::new();
    for n in 1..=operations {
        let mut op = todo.pop().unwrap_or_else(|| weights(&mut rng, u64::from(block_size)));
        // Many operations in one are told apart: a crash may come between any two.
        if let Op::Bulk { dir, count, tag } = op {
            let name = |i| format!("bulk-{tag}-{i}").into_bytes();
            todo = (1..count).map(|i| Op::Create { dir, name: name(i), perm: 0o644 }).collect();
            op = Op::Create { dir, name: name(0), perm: 0o644 };
        }
        if let Op::BulkRemove { dir, percent } = op {
            todo = (0..percent / 2)
                .map(|_| Op::Remove { dir, name: rng.next(), rmdir: false, keep_open: false })
                .collect();
            op = Op::Sync;
        }
        // The harness holds inodes open; a crash test wants them to go.
        if let Op::Remove { keep_open, .. } = &mut op {
            *keep_open = false;
        }
        dev.state.lock().expect("no panic while held").begun = n;
        let before: Vec<Id> = world.model.nodes.keys().copied().collect();
        world.apply(&op);
        let touched = file_pick(&op).and_then(|pick| world.file_of(pick, &before));
        story.touched.push(touched);
        story.trees.push(tree_of_model(&world.model));
        story.ids.push(ids(&world.model));
        if matches!(op, Op::Sync) {
            story.syncs.push((n, world.model.clone()));
        }
    }
    let taken = std::mem::take(&mut dev.state.lock().expect("no panic while held").taken);
    drop(world);
    println!("{name}: {} pictures of {operations} operations", taken.len());
    let step = taken.len().div_ceil(pictures).max(1);
    let mut looked = 0;
    for (i, picture) in taken.into_iter().enumerate() {
        if i % step == 0 {
            examine(name, seed, &story, picture, looked % 50 == 0);
            looked += 1;
        }
    }
    println!("{name}: {looked} crash points examined");
    assert!(looked * 2 >= pictures, "{name}: only {looked} crash points: make the workload longer");
}

fn examine(name: &str, seed: u64, story: &Story, picture: Picture, stock: bool) {
    let when =
        format!("{name} SEED={seed}: crash in operation {} ({:?} {})", picture.begun, picture.mode, picture.seed);
    let disk = Arc::new(picture.disk);
    check(&*disk, &format!("{when}, before the replay"));
    let clock = Arc::new(SimClock::new(1_800_000_000));
    let opened = volume::open(disk.clone(), &OpenOptions::default(), clock).unwrap_or_else(|e| panic!("{when}: {e}"));
    let (tree, nodes) = tree_of_volume(&opened.fs);
    // The last sync that had certainly ended: one whose operation is before the one that was under way.
    let (synced, model) =
        story.syncs.iter().rev().find(|(n, _)| *n < picture.begun || *n == 0).expect("the start counts");
    let last = picture.begun.min(story.trees.len() - 1);
    if !story.trees[*synced..=last].contains(&tree) {
        let nearest =
            story.trees[*synced..=last].iter().min_by_key(|t| t.symmetric_difference(&tree).count()).expect("one");
        let diff: Vec<_> =
            nearest.symmetric_difference(&tree).map(|(p, k)| format!("{k}{}", String::from_utf8_lossy(p))).collect();
        panic!("{when}: names are as after no operation since {synced}; nearest differs in {diff:?}");
    }
    let changed: BTreeSet<Id> = story.touched[synced + 1..=last].iter().flatten().copied().collect();
    for (path, id) in model.paths() {
        let (Kind::File(bytes), Some(&node)) = (&model.nodes[&id].kind, nodes.get(&path)) else { continue };
        // Renamed over or removed and made again since: another inode, or one that was changed.
        let same = story.ids[*synced..=last].iter().all(|ids| ids.get(&path) == Some(&id));
        if changed.contains(&id) || !same {
            continue;
        }
        let want = bytes.read(0, 1 << 20);
        let mut got = vec![0xaa; want.len()];
        let n = opened.fs.read(node, 0, &mut got).unwrap_or_else(|e| panic!("{when}: {e}"));
        let size = opened.fs.getattr(node).unwrap_or_else(|e| panic!("{when}: {e}")).size;
        if size != bytes.size || n != want.len() || got != want {
            let at = got.iter().zip(&want).position(|(g, w)| g != w);
            let path = String::from_utf8_lossy(&path);
            panic!(
                "{when}: {path} (node {id}) was synced after operation {synced} and is not as it was: {size} bytes, {} before; differs at {at:?}",
                bytes.size
            );
        }
    }
    opened.fs.reclaim_orphans(&Default::default()).unwrap_or_else(|e| panic!("{when}: orphans: {e}"));
    opened.close().unwrap_or_else(|e| panic!("{when}: close: {e}"));
    check(&*disk, &format!("{when}, after the replay"));
    if stock {
        stock_fsck(&disk, &when);
    }
}

/// Everything, with a sync now and then.
fn mixed(rng: &mut Rng, bs: u64) -> Op {
    if rng.chance(6) { Op::Sync } else { ops::random(rng, bs) }
}

/// Names: directories that hash, split and double, and renames.
fn names(rng: &mut Rng, bs: u64) -> Op {
    match rng.below(20) {
        0 | 7 | 8 => Op::Sync,
        1..=5 => Op::Bulk { dir: rng.next(), count: 10 + rng.below(40) as u32, tag: rng.below(1000) as u32 },
        6 => Op::BulkRemove { dir: rng.next(), percent: rng.below(60) },
        _ => loop {
            let op = ops::random(rng, bs);
            if matches!(
                op,
                Op::Create { .. }
                    | Op::Mkdir { .. }
                    | Op::Rename { .. }
                    | Op::Remove { .. }
                    | Op::Link { .. }
                    | Op::Symlink { .. }
            ) {
                break op;
            }
        },
    }
}

/// Journaled data, truncates and deletes that wrap the log: revokes matter.
fn contents(rng: &mut Rng, bs: u64) -> Op {
    match rng.below(20) {
        0 | 1 => Op::Sync,
        2 => Op::Chattr { file: rng.next(), journal: rng.chance(70) },
        3 | 4 => Op::Create { dir: 0, name: format!("c{}", rng.below(12)).into_bytes(), perm: 0o644 },
        5 => Op::Remove { dir: 0, name: rng.next(), rmdir: false, keep_open: false },
        6..=12 => Op::Write {
            file: rng.next(),
            offset: rng.below(400 * bs),
            len: 1 + rng.below(60 * bs) as usize,
            fill: rng.next(),
        },
        13..=16 => Op::Truncate { file: rng.next(), size: rng.below(300 * bs) },
        17 => Op::Punch { file: rng.next(), offset: rng.below(300 * bs), len: rng.below(200 * bs) + 1 },
        _ => Op::SetXattr {
            node: rng.next(),
            name: format!("user.x{}", rng.below(6)).into_bytes(),
            len: rng.below(3 * bs) as usize,
            fill: rng.next(),
        },
    }
}

#[test]
fn crash_mixed_4096() {
    matrix("crash_mixed_4096", 4096, 2500, 500, mixed);
}

#[test]
fn crash_mixed_512() {
    matrix("crash_mixed_512", 512, 2500, 400, mixed);
}

#[test]
fn crash_names_1024() {
    matrix("crash_names_1024", 1024, 2500, 400, names);
}

#[test]
fn crash_names_512() {
    matrix("crash_names_512", 512, 2500, 300, names);
}

#[test]
fn crash_contents_4096() {
    matrix("crash_contents_4096", 4096, 1500, 400, contents);
}

#[test]
fn crash_contents_1024() {
    matrix("crash_contents_1024", 1024, 2000, 300, contents);
}
