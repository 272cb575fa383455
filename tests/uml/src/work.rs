//! `fswork`: a seeded random workload over one directory, in one process.
//!
//! It is meant to reach every corner of GFS2 that a program can reach: linear and hashed directories with their leaf
//! splits and table doublings, files from stuffed to many levels of indirection, holes, preallocation, all kinds of
//! inodes, every way of renaming, hard links, extended attributes from inline to indirect blocks, ACLs and their
//! inheritance, inode flags, files that are open but unlinked, and the calls that make data durable.
//!
//! For one seed the calls depend on nothing but the results of earlier calls. So two filesystems that give the same
//! results end with the same tree, which [`crate::tree`] compares (without the columns of times); the first call with
//! another result is found by comparing their traces ([`Config::trace`]).
//!
//! With [`Config::sync_log`] a part of the work is a test of durability: see [`synclog`].
//!
//! What it does not reach: mmap (there is none in safe Rust), locks, several processes.

mod attrs;
mod bulk;
mod data;
mod namespace;
mod naming;
mod rng;
pub mod synclog;

use namespace::{Kind, Namespace};
use rng::Rng;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use synclog::SyncLog;

/// What to do, and where.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory to work in, best empty. It must exist.
    pub dir: PathBuf,
    /// Number of steps. A step is one to a few system calls, or some hundreds when it fills a directory.
    pub ops: u64,
    /// Where the random choices start.
    pub seed: u64,
    /// Whether files and directories may get the flag of journaled data.
    pub chattr_j: bool,
    /// Where to record what is durable; outside of the filesystem under test.
    pub sync_log: Option<PathBuf>,
    /// Where to write one line for every call with its result.
    pub trace: Option<PathBuf>,
    /// About how many bytes of data the tree may hold; beyond it the work is removing.
    pub budget: u64,
}

impl Config {
    /// `ops` steps in `dir`, with journaled data, a budget of 96 MiB, and no records.
    pub fn new(dir: impl Into<PathBuf>, ops: u64, seed: u64) -> Config {
        Config { dir: dir.into(), ops, seed, chattr_j: true, sync_log: None, trace: None, budget: 96 << 20 }
    }
}

/// How often each call gave each result; the key is `CALL ok` or `CALL ERRNO`.
pub type Counts = BTreeMap<String, u64>;

/// Does the work, and reports every hundredth step as a line `fswork: step N` on `progress`.
///
/// # Errors
/// When a call gave an error that no healthy filesystem gives (EIO, EROFS, ESTALE, EUCLEAN ...), naming step, call and
/// path; or when a record cannot be written.
pub fn run(config: &Config, progress: &mut impl Write) -> Result<Counts, String> {
    let mut work = Work::new(config)?;
    let say = |progress: &mut dyn Write, line: String| {
        writeln!(progress, "{line}").and_then(|()| progress.flush()).map_err(|error| format!("progress: {error}"))
    };
    say(progress, format!("fswork: seed {} ops {}", config.seed, config.ops))?;
    for step in 0..config.ops {
        if step % 100 == 0 {
            say(progress, format!("fswork: step {step}"))?;
        }
        work.step = step;
        let started = std::time::Instant::now();
        work.one()?;
        let seconds = started.elapsed().as_secs_f64();
        if seconds > 1.0 {
            say(progress, format!("fswork: slow: step {step} took {seconds:.1} s, its last call was {}", work.last))?;
        }
    }
    work.open.clear();
    if let Some(trace) = &mut work.trace {
        trace.flush().map_err(|error| format!("trace: {error}"))?;
    }
    say(progress, format!("fswork: done {} calls", work.counts.values().sum::<u64>()))?;
    Ok(work.counts)
}

/// The workload in progress.
struct Work {
    config: Config,
    rng: Rng,
    names: Namespace,
    /// Files that are open, and have lost their names or may lose them.
    open: Vec<OwnedFd>,
    sync_log: Option<SyncLog>,
    trace: Option<std::io::BufWriter<std::fs::File>>,
    counts: Counts,
    step: u64,
    /// The last call, for messages.
    last: String,
    /// The first error that no healthy filesystem gives.
    fatal: Option<String>,
}

type Step = fn(&mut Work);

/// The steps and how often each is taken, in parts of the sum.
const STEPS: &[(u32, Step)] = &[
    (60, Work::create_file),
    (30, Work::make_dir),
    (3, Work::make_deep_dirs),
    (10, Work::make_symlink),
    (10, Work::make_special),
    (20, Work::make_link),
    (30, Work::rename_file),
    (12, Work::rename_dir),
    (10, Work::rename_exchange),
    (30, Work::unlink),
    (10, Work::remove_dir),
    (8, Work::fill_dir),
    (6, Work::thin_dir),
    (100, Work::write),
    (25, Work::append),
    (15, Work::write_direct),
    (20, Work::write_far),
    (25, Work::truncate),
    (15, Work::allocate),
    (15, Work::punch),
    (20, Work::read),
    (8, Work::read_dir),
    (8, Work::keep_open),
    (10, Work::use_open),
    (6, Work::close_open),
    (15, Work::sync_one),
    (1, Work::sync_all),
    (40, Work::set_xattr),
    (15, Work::remove_xattr),
    (2, Work::many_xattrs),
    (15, Work::set_acl),
    (10, Work::set_default_acl),
    (12, Work::chmod),
    (10, Work::chown),
    (10, Work::set_times),
    (12, Work::chattr),
    (6, Work::chattr_strict),
];

/// The steps that give space back.
const SHRINK: &[(u32, Step)] = &[(6, Work::unlink), (3, Work::truncate_to_nothing), (1, Work::close_open)];

impl Work {
    fn new(config: &Config) -> Result<Work, String> {
        let trace = match &config.trace {
            Some(path) => Some(std::io::BufWriter::new(
                std::fs::File::create(path).map_err(|error| format!("{}: {error}", path.display()))?,
            )),
            None => None,
        };
        let sync_log = match &config.sync_log {
            Some(path) => Some(SyncLog::start(path, &config.dir)?),
            None => None,
        };
        Ok(Work {
            config: config.clone(),
            rng: Rng::new(config.seed),
            names: Namespace::new(),
            open: Vec::new(),
            sync_log,
            trace,
            counts: Counts::new(),
            step: 0,
            last: String::new(),
            fatal: None,
        })
    }

    fn one(&mut self) -> Result<(), String> {
        // The choices of the durability test have a generator of their own: with and without it the rest is the same.
        if let Some(log) = &mut self.sync_log
            && self.step.is_multiple_of(8)
        {
            let mut rng = Rng::new(self.config.seed ^ self.step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            log.one(&mut rng).map_err(|error| format!("step {}: durability: {error}", self.step))?;
        }
        let steps = if self.names.bytes() > self.config.budget { SHRINK } else { STEPS };
        let total: u32 = steps.iter().map(|(weight, _)| weight).sum();
        let mut at = self.rng.below(u64::from(total)) as u32; // below a u32
        for (weight, step) in steps {
            if at < *weight {
                step(self);
                break;
            }
            at -= weight;
        }
        self.fatal.take().map_or(Ok(()), Err)
    }

    /// Records the result of a call; gives its value when it went well.
    fn note<T>(&mut self, call: &'static str, path: &Path, result: Result<T, Errno>) -> Option<T> {
        let (text, value, error) = match result {
            Ok(value) => ("ok".to_string(), Some(value), None),
            Err(error) => (name_of(error), None, Some(error)),
        };
        let shown = path.strip_prefix(&self.config.dir).unwrap_or(path);
        let shown = crate::tree::escape(shown.as_os_str().as_encoded_bytes());
        if let Some(trace) = &mut self.trace
            && let Err(error) = writeln!(trace, "{} {call} {shown} {text}", self.step)
        {
            self.fatal.get_or_insert(format!("trace: {error}"));
        }
        if error.is_some_and(is_fatal) {
            self.fatal.get_or_insert(format!("step {}: {call} {shown}: {text}", self.step));
        }
        self.last = format!("{call} {shown} {text}");
        *self.counts.entry(format!("{call} {text}")).or_insert(0) += 1;
        value
    }

    /// The path of a name in the tree; `None` when it is too long to be given to a call.
    fn path(&self, node: usize) -> Option<PathBuf> {
        self.names.path(node).map(|path| self.config.dir.join(path))
    }

    /// A live node of some kind, with its path.
    fn pick(&mut self, kinds: &[Kind]) -> Option<(usize, PathBuf)> {
        let node = self.names.pick(kinds, &mut self.rng)?;
        Some((node, self.path(node)?))
    }

    /// A directory and a name in it that does not exist, as a path.
    fn new_place(&mut self) -> Option<(usize, Vec<u8>, PathBuf)> {
        let dir = self.names.pick(&[Kind::Dir], &mut self.rng)?;
        let name = self.names.new_name(&mut self.rng);
        let path = self.config.dir.join(self.names.path_below(dir, &name)?);
        Some((dir, name, path))
    }
}

/// What a healthy filesystem never answers to a call that we make.
fn is_fatal(error: Errno) -> bool {
    const FATAL: [Errno; 9] = [
        Errno::IO,
        Errno::ROFS,
        Errno::STALE,
        Errno::UCLEAN,
        Errno::NOTCONN,
        Errno::NXIO,
        Errno::FAULT,
        Errno::NOSYS,
        Errno::DEADLK,
    ];
    FATAL.contains(&error)
}

/// The name of the errors that are met now and then, the number of others.
fn name_of(error: Errno) -> String {
    const NAMES: [(Errno, &str); 20] = [
        (Errno::PERM, "EPERM"),
        (Errno::NOENT, "ENOENT"),
        (Errno::IO, "EIO"),
        (Errno::ACCESS, "EACCES"),
        (Errno::EXIST, "EEXIST"),
        (Errno::NOTDIR, "ENOTDIR"),
        (Errno::ISDIR, "EISDIR"),
        (Errno::INVAL, "EINVAL"),
        (Errno::FBIG, "EFBIG"),
        (Errno::NOSPC, "ENOSPC"),
        (Errno::ROFS, "EROFS"),
        (Errno::MLINK, "EMLINK"),
        (Errno::NAMETOOLONG, "ENAMETOOLONG"),
        (Errno::NOTEMPTY, "ENOTEMPTY"),
        (Errno::NODATA, "ENODATA"),
        (Errno::OPNOTSUPP, "EOPNOTSUPP"),
        (Errno::STALE, "ESTALE"),
        (Errno::UCLEAN, "EUCLEAN"),
        (Errno::TOOBIG, "E2BIG"),
        (Errno::RANGE, "ERANGE"),
    ];
    let known = NAMES.iter().find(|(known, _)| *known == error);
    known.map_or_else(|| format!("E{}", error.raw_os_error()), |(_, name)| name.to_string())
}

#[cfg(test)]
mod tests;
