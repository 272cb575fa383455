//! What the processes on the nodes do: random operations on a small tree that all share, each written to the history.

#[path = "worker/files.rs"]
mod files;
#[path = "worker/free.rs"]
mod free;
#[path = "worker/kept.rs"]
mod kept;
#[path = "worker/locked.rs"]
mod locked;
#[path = "worker/mapped.rs"]
mod mapped;
#[path = "worker/names.rs"]
mod names;
#[path = "worker/own.rs"]
mod own;

use crate::history::{Object, Op, Outcome, Recorder, now};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub use locked::{LINE, log_line, sum};

/// Registers: (file, offset). Neighbours in a page, in a file that fits its inode, far apart.
pub const REGISTERS: [(u8, u64); 8] = [(0, 0), (0, 64), (1, 0), (1, 64), (1, 4096), (1, 100_000), (2, 0), (2, 1 << 20)];
pub const REGISTER_FILES: u8 = 3;
pub const REPLACED: u8 = 3;
pub const XATTRS: u8 = 2;
pub const OWNERS: u8 = 2;
/// Even ones are locked with flock, odd ones with fcntl.
pub const COUNTERS: u8 = 4;
pub const REWRITTEN: u8 = 2;
pub const TOKENS: u8 = 4;
pub const PLACES: u8 = 4;
pub const KEPT: u64 = 5;

/// What a worker is told.
#[derive(Serialize, Deserialize, Clone, Debug)]
pub struct Spec {
    /// The directory of this round.
    pub root: PathBuf,
    pub history: PathBuf,
    pub seed: u64,
    /// Unique in the round; from 1, below 4096.
    pub writer: u32,
    /// Ends at this time (see [`now`]).
    pub until: u64,
    /// Or after this many operations.
    pub most: u64,
}

pub struct Worker {
    root: PathBuf,
    record: Recorder,
    random: u64,
    writer: u32,
    number: u32,
    line: u32,
    name: u32,
    kept: kept::Kept,
    mapped: mapped::Mapped,
    own: own::Own,
    open: Vec<Option<File>>,
}

/// The chances of each operation; their sum does not matter.
const CHANCES: &[(u64, fn(&mut Worker))] = &[
    (20, Worker::write_register),
    (40, Worker::read_register),
    (5, Worker::sync_registers),
    (4, Worker::change_owner),
    (8, Worker::read_owner),
    (4, Worker::change_xattr),
    (6, Worker::read_xattr),
    (5, Worker::replace),
    (8, Worker::read_replaced),
    (2, Worker::sync_replaced),
    (9, Worker::count),
    (5, Worker::append),
    (4, Worker::log_length),
    (1, Worker::log_content),
    (6, Worker::create_name),
    (1, Worker::sync_names),
    (5, Worker::move_token),
    (8, Worker::look_for_token),
    (3, Worker::rewrite),
    (2, Worker::put_kept),
    (4, Worker::open_kept),
    (5, Worker::read_kept),
    (2, Worker::remove_kept),
    (15, Worker::free_for_all),
    (10, Worker::own_work),
    (1, Worker::own_check),
];

/// Makes the tree of a round.
pub fn set_up(root: &Path) -> io::Result<()> {
    fs::create_dir(root)?;
    for file in 0..REGISTER_FILES {
        let end = REGISTERS.iter().filter(|(f, _)| *f == file).map(|(_, at)| at + 64).max().unwrap_or(64);
        let file = File::create(root.join(format!("register{file}")))?;
        file.set_len(end)?;
        file.sync_all()?;
    }
    for k in 0..XATTRS {
        let path = root.join(format!("xattr{k}"));
        File::create(&path)?;
        rustix::fs::setxattr(&path, "user.v", &0u64.to_le_bytes(), rustix::fs::XattrFlags::empty())?;
    }
    for k in 0..OWNERS {
        File::create(root.join(format!("owner{k}")))?;
    }
    fs::create_dir(root.join("replaced"))?;
    for k in 0..REPLACED {
        fs::write(root.join(format!("replaced/r{k}")), files::body(0))?;
    }
    for k in 0..COUNTERS {
        fs::write(root.join(format!("counter{k}")), 0u64.to_le_bytes())?;
    }
    for k in 0..REWRITTEN {
        File::create(root.join(format!("rewritten{k}")))?;
    }
    File::create(root.join("log"))?;
    for dir in ["names", "kept", "free", "own", "free/s0", "free/s1", "free/s2"] {
        fs::create_dir(root.join(dir))?;
    }
    for k in 0..PLACES {
        fs::create_dir(root.join(format!("place{k}")))?;
    }
    for k in 0..TOKENS {
        fs::write(root.join(format!("place0/token{k}")), format!("token {k}"))?;
    }
    rustix::fs::syncfs(File::open(root)?)?;
    Ok(())
}

impl Worker {
    fn new(spec: &Spec) -> io::Result<Self> {
        Ok(Self {
            root: spec.root.clone(),
            record: Recorder::create(&spec.history)?,
            random: spec.seed,
            writer: spec.writer,
            number: 0,
            line: 0,
            name: 0,
            kept: kept::Kept::default(),
            mapped: mapped::Mapped::default(),
            own: own::Own::default(),
            open: (0..REGISTER_FILES).map(|_| None).collect(),
        })
    }

    /// splitmix64.
    fn below(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }

    fn small(&mut self, n: u8) -> u8 {
        u8::try_from(self.below(n.into())).unwrap_or(0)
    }

    /// A value that nobody else writes; fits 32 bits.
    fn value(&mut self) -> u64 {
        self.number += 1;
        u64::from(self.writer) << 20 | u64::from(self.number)
    }

    /// One recorded operation.
    fn op(&mut self, op: Op, f: impl FnOnce(&mut Self) -> io::Result<Outcome>) {
        let n = self.record.begin(op);
        let outcome = f(self).unwrap_or_else(|e| Outcome::Failed(e.to_string()));
        self.record.end(n, outcome);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// Works until it is time.
pub fn run(spec: &Spec) -> io::Result<()> {
    let mut worker = Worker::new(spec)?;
    let all: u64 = CHANCES.iter().map(|(chance, _)| chance).sum();
    worker.own_begin();
    let mut count = 0;
    while now() < spec.until && count < spec.most && worker.number < 1 << 20 {
        let mut at = worker.below(all);
        for (chance, act) in CHANCES {
            if at < *chance {
                act(&mut worker);
                break;
            }
            at -= chance;
        }
        count += 1;
    }
    worker.own_check();
    Ok(())
}

/// A withdrawn mount must not answer: what it knows may be overtaken.
pub fn refused(root: &Path) -> io::Result<()> {
    for name in ["register0", "register1", "log"] {
        let read = File::options().read(true).write(true).open(root.join(name)).and_then(|f| read_at(&f, 0, 64));
        if let Ok(bytes) = read {
            return Err(io::Error::other(format!("{name} was read, {} bytes", bytes.len())));
        }
    }
    Ok(())
}

/// Reads everything once more, when nobody writes.
pub fn last_look(spec: &Spec) -> io::Result<()> {
    let mut worker = Worker::new(spec)?;
    for k in 0..8 {
        worker.read_register_by(k, crate::history::How::Opened);
        worker.read_register_by(k, crate::history::How::Mapped);
    }
    for k in 0..REPLACED {
        worker.read_replaced_of(k);
    }
    for k in 0..OWNERS {
        worker.read_owner_of(k);
    }
    for k in 0..XATTRS {
        worker.read_xattr_of(k);
    }
    for k in 0..COUNTERS {
        worker.peek(k);
    }
    for token in 0..TOKENS {
        for at in 0..PLACES {
            worker.look(token, at);
        }
    }
    worker.log_lines();
    worker.log_content();
    worker.names_at_the_end();
    Ok(())
}

/// The registers of a file.
fn registers_of(file: u8) -> Vec<Object> {
    (0u8..).zip(REGISTERS).filter(|(_, (f, _))| *f == file).map(|(k, _)| Object::Register(k)).collect()
}

/// What is at `at`, as much as there is.
fn read_at(file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut have = 0;
    while have < len {
        match file.read_at(&mut bytes[have..], at + have as u64)? {
            0 => break,
            n => have += n,
        }
    }
    bytes.truncate(have);
    Ok(bytes)
}

/// A file written anew and durable.
fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
