//! Random operations, from a seed.
#![allow(clippy::little_endian_bytes, reason = "random bytes have no order")]

/// A small random number generator (xorshift64*), so that a seed means the same everywhere and for ever.
#[derive(Clone, Debug)]
pub(crate) struct Rng {
    state: u64,
    /// Bytes that decide instead, the next one last.
    script: Option<Vec<u8>>,
}

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, script: None }
    }
    /// Numbers that are read from `bytes`, so that a fuzzer chooses them; 0 when all are used.
    #[allow(dead_code, reason = "not every test is scripted")]
    pub(crate) fn scripted(bytes: &[u8]) -> Self {
        Self { script: Some(bytes.iter().rev().copied().collect()), ..Self::new(0) }
    }
    /// True when a script is at its end.
    #[allow(dead_code, reason = "not every test is scripted")]
    pub(crate) fn is_done(&self) -> bool {
        self.script.as_ref().is_some_and(Vec::is_empty)
    }
    fn read(&mut self, width: usize) -> Option<u64> {
        let script = self.script.as_mut()?;
        Some((0..width).fold(0, |n, _| n << 8 | u64::from(script.pop().unwrap_or(0))))
    }
    pub(crate) fn next(&mut self) -> u64 {
        if let Some(scripted) = self.read(2) {
            return scripted;
        }
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        let width = (64 - n.saturating_sub(1).leading_zeros()).div_ceil(8) as usize;
        self.read(width).unwrap_or_else(|| self.next()) % n.max(1)
    }
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(len).collect()
    }
}

/// The seed of this run: `SEED` in the environment, or the time. Printed, so that a failure can be repeated.
pub(crate) fn seed(test: &str) -> u64 {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |d| d.as_nanos() as u64 % 1_000_000_007)
    });
    println!("{test}: SEED={seed}");
    seed
}

/// What may be done. Numbers pick among what there is; the harness resolves them.
#[derive(Clone)]
pub(crate) enum Op {
    Create { dir: u64, name: Vec<u8>, perm: u32 },
    Mkdir { dir: u64, name: Vec<u8> },
    Symlink { dir: u64, name: Vec<u8>, target: Vec<u8> },
    Mknod { dir: u64, name: Vec<u8>, mode: u32, rdev: (u32, u32) },
    Link { node: u64, dir: u64, name: Vec<u8> },
    Remove { dir: u64, name: u64, rmdir: bool, keep_open: bool },
    Rename { from: u64, name: u64, to: u64, new_name: Vec<u8>, existing: Option<u64>, how: u32 },
    Write { file: u64, offset: u64, len: usize, fill: u64 },
    Truncate { file: u64, size: u64 },
    Punch { file: u64, offset: u64, len: u64 },
    Allocate { file: u64, offset: u64, len: u64, keep: bool },
    Zero { file: u64, offset: u64, len: u64 },
    Chmod { node: u64, perm: u32 },
    Chown { node: u64, uid: u32, gid: u32 },
    Utimes { node: u64, sec: i64, nsec: u32 },
    SetXattr { node: u64, name: Vec<u8>, len: usize, fill: u64 },
    RemoveXattr { node: u64, name: Vec<u8> },
    Chattr { file: u64, journal: bool },
    Bulk { dir: u64, count: u32, tag: u32 },
    BulkRemove { dir: u64, percent: u64 },
    Fsync { node: u64 },
    Sync,
    Check { node: u64 },
    CloseOpen,
}

fn name(rng: &mut Rng) -> Vec<u8> {
    match rng.below(20) {
        0 => vec![b'n'; 255],
        1 => vec![b'x'; 256],
        2..=4 => {
            let len = 1 + rng.below(200) as usize;
            (0..len).map(|_| b'a' + rng.below(26) as u8).collect()
        }
        _ => format!("f{}", rng.below(60)).into_bytes(),
    }
}

/// Offsets that matter: around the stuffed limit, block and height borders, and sometimes far out.
fn offset(rng: &mut Rng, bs: u64) -> u64 {
    let borders = [0, bs - 232, bs, bs * ((bs - 232) / 8), bs * ((bs - 232) / 8) * ((bs - 24) / 8)];
    match rng.below(10) {
        0..=2 => rng.below(2 * bs),
        3..=5 => {
            let near = *rng.pick(&borders);
            near.saturating_sub(rng.below(bs)) + rng.below(bs)
        }
        6..=8 => rng.below(200 * bs),
        _ => rng.below(1 << 36),
    }
}

/// A random operation for a volume of this block size.
pub(crate) fn random(rng: &mut Rng, bs: u64) -> Op {
    let r = |rng: &mut Rng| rng.next();
    match rng.below(1000) {
        0..=119 => Op::Create { dir: r(rng), name: name(rng), perm: rng.below(0o1000) as u32 },
        120..=169 => Op::Mkdir { dir: r(rng), name: name(rng) },
        170..=199 => {
            let len =
                if rng.chance(10) { bs as usize - 240 + rng.below(12) as usize } else { 1 + rng.below(90) as usize };
            Op::Symlink { dir: r(rng), name: name(rng), target: vec![b't'; len] }
        }
        200..=214 => {
            let mode = *rng.pick(&[0o010644, 0o020600, 0o060660, 0o140755]);
            let rdev = if mode == 0o020600 || mode == 0o060660 {
                (rng.below(4096) as u32, rng.below(1 << 20) as u32)
            } else {
                (0, 0)
            };
            Op::Mknod { dir: r(rng), name: name(rng), mode, rdev }
        }
        215..=254 => Op::Link { node: r(rng), dir: r(rng), name: name(rng) },
        255..=334 => Op::Remove { dir: r(rng), name: r(rng), rmdir: rng.chance(30), keep_open: rng.chance(15) },
        335..=424 => {
            let existing = rng.chance(40).then(|| r(rng));
            let how = *rng.pick(&[0, 0, 0, 1, 2]);
            Op::Rename { from: r(rng), name: r(rng), to: r(rng), new_name: name(rng), existing, how }
        }
        425..=584 => {
            let len = match rng.below(10) {
                0..=5 => rng.below(3 * bs),
                6..=8 => rng.below(40 * bs),
                _ => rng.below(300_000),
            };
            Op::Write { file: r(rng), offset: offset(rng, bs), len: len as usize + 1, fill: r(rng) }
        }
        585..=664 => {
            let size = if rng.chance(25) { 0 } else { offset(rng, bs) };
            Op::Truncate { file: r(rng), size }
        }
        665..=694 => Op::Punch { file: r(rng), offset: offset(rng, bs), len: 1 + rng.below(100 * bs) },
        695..=709 => Op::Allocate {
            file: r(rng),
            offset: rng.below(100 * bs),
            len: 1 + rng.below(60 * bs),
            keep: rng.chance(50),
        },
        710..=719 => Op::Zero { file: r(rng), offset: rng.below(100 * bs), len: 1 + rng.below(60 * bs) },
        720..=749 => Op::Chmod { node: r(rng), perm: rng.below(0o1000) as u32 },
        750..=764 => Op::Chown { node: r(rng), uid: rng.below(5) as u32, gid: rng.below(5) as u32 },
        765..=784 => Op::Utimes {
            node: r(rng),
            sec: rng.below(1 << 34) as i64 - (1 << 32),
            nsec: rng.below(1_000_000_000) as u32,
        },
        785..=854 => {
            let prefix = *rng.pick(&["user.", "user.", "trusted.", "security."]);
            let name = format!("{prefix}a{}", rng.below(12)).into_bytes();
            let len = match rng.below(10) {
                0..=5 => rng.below(100),
                6..=7 => rng.below(bs),
                8 => rng.below(4 * bs),
                _ => rng.below(20_000),
            };
            Op::SetXattr { node: r(rng), name, len: len as usize, fill: r(rng) }
        }
        855..=874 => {
            let prefix = *rng.pick(&["user.", "user.", "trusted.", "security."]);
            Op::RemoveXattr { node: r(rng), name: format!("{prefix}a{}", rng.below(12)).into_bytes() }
        }
        875..=884 => Op::Chattr { file: r(rng), journal: rng.chance(50) },
        885..=889 => Op::Bulk { dir: r(rng), count: rng.below(120) as u32, tag: rng.below(1000) as u32 },
        890..=894 => Op::BulkRemove { dir: r(rng), percent: 20 + rng.below(80) },
        895..=924 => Op::Fsync { node: r(rng) },
        925..=934 => Op::Sync,
        935..=989 => Op::Check { node: r(rng) },
        _ => Op::CloseOpen,
    }
}

/// Long names and targets are shown by their length.
impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |b: &[u8]| {
            if b.len() > 20 { format!("{} bytes", b.len()) } else { String::from_utf8_lossy(b).into_owned() }
        };
        match self {
            Self::Create { dir, name, perm } => write!(f, "create {} in {dir}, {perm:o}", short(name)),
            Self::Mkdir { dir, name } => write!(f, "mkdir {} in {dir}", short(name)),
            Self::Symlink { dir, name, target } => write!(f, "symlink {} in {dir} to {}", short(name), short(target)),
            Self::Mknod { dir, name, mode, rdev } => write!(f, "mknod {} in {dir}, {mode:o} {rdev:?}", short(name)),
            Self::Link { node, dir, name } => write!(f, "link {node} to {} in {dir}", short(name)),
            Self::Remove { dir, name, rmdir, keep_open } => {
                write!(f, "remove {name} in {dir}, rmdir {rmdir}, open {keep_open}")
            }
            Self::Rename { from, name, to, new_name, existing, how } => {
                write!(f, "rename {name} of {from} to {} in {to} ({existing:?}), {how}", short(new_name))
            }
            Self::Write { file, offset, len, .. } => write!(f, "write {file}: {len} at {offset}"),
            Self::Truncate { file, size } => write!(f, "truncate {file} to {size}"),
            Self::Punch { file, offset, len } => write!(f, "punch {file}: {len} at {offset}"),
            Self::Allocate { file, offset, len, keep } => write!(f, "allocate {file}: {len} at {offset}, keep {keep}"),
            Self::Zero { file, offset, len } => write!(f, "zero {file}: {len} at {offset}"),
            Self::Chmod { node, perm } => write!(f, "chmod {node} {perm:o}"),
            Self::Chown { node, uid, gid } => write!(f, "chown {node} {uid}:{gid}"),
            Self::Utimes { node, sec, nsec } => write!(f, "utimes {node} {sec}.{nsec}"),
            Self::SetXattr { node, name, len, .. } => write!(f, "setxattr {node} {}: {len}", short(name)),
            Self::RemoveXattr { node, name } => write!(f, "removexattr {node} {}", short(name)),
            Self::Chattr { file, journal } => write!(f, "chattr {file} j={journal}"),
            Self::Bulk { dir, count, tag } => write!(f, "{count} files {tag} in {dir}"),
            Self::BulkRemove { dir, percent } => write!(f, "remove {percent}% of {dir}"),
            Self::Fsync { node } => write!(f, "fsync {node}"),
            Self::Sync => f.write_str("sync"),
            Self::Check { node } => write!(f, "check {node}"),
            Self::CloseOpen => f.write_str("close open files"),
        }
    }
}
