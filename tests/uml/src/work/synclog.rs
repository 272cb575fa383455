//! The test of durability: a record, outside of the filesystem under test, of what must survive a crash.
//!
//! The files live in the directory `synced`. Each is worked on in turns: the log gets `begin NAME` before the first
//! change, then come the changes, then fsync of the file and of the directory, then the log gets
//! `synced NAME STATE` or `gone NAME`. The log is flushed after each of its lines. So after a crash, at any moment,
//! the last line of a name says what must be there: exactly this state, or no such name, or (after `begin`) anything
//! that can be read. [`check`] looks.

use super::data::write_all;
use super::rng::Rng;
use crate::tree::{content, hex};
use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Number of files in the directory.
const FILES: u64 = 40;
const DIR: &str = "synced";
const TAG: &str = "user.tag";

/// The log, and the files that there are.
pub(super) struct SyncLog {
    log: std::fs::File,
    dir: PathBuf,
    files: BTreeSet<String>,
}

impl SyncLog {
    /// Starts a log, and makes the directory `synced` durable.
    pub(super) fn start(log: &Path, work: &Path) -> Result<SyncLog, String> {
        let log = std::fs::File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        let dir = work.join(DIR);
        let made =
            rustix::fs::mkdir(&dir, Mode::from_raw_mode(0o755)).and_then(|()| sync(&dir)).and_then(|()| sync(work));
        made.map_err(|error| format!("{}: {error}", dir.display()))?;
        Ok(SyncLog { log, dir, files: BTreeSet::new() })
    }

    fn say(&mut self, line: &str) -> Result<(), String> {
        // One write, so that a line is either not there, or there with its beginning at least.
        self.log
            .write_all(format!("{line}\n").as_bytes())
            .and_then(|()| self.log.sync_data())
            .map_err(|error| format!("log: {error}"))
    }

    /// Stores, moves or removes one file, durably.
    pub(super) fn one(&mut self, rng: &mut Rng) -> Result<(), String> {
        let name = format!("s{}", rng.below(FILES));
        match rng.below(8) {
            0 if self.files.contains(&name) => self.remove(&name),
            1 | 2 if self.files.contains(&name) => {
                let to = format!("s{}", rng.below(FILES));
                if to == name { Ok(()) } else { self.rename(&name, &to) }
            }
            _ => self.store(&name, rng),
        }
    }

    fn store(&mut self, name: &str, rng: &mut Rng) -> Result<(), String> {
        self.say(&format!("begin {name}"))?;
        let path = self.dir.join(name);
        let state = store(&path, rng).and_then(|()| sync(&self.dir)).and_then(|()| state(&path));
        let state = state.map_err(|error| format!("store {name}: {error}"))?;
        self.files.insert(name.to_string());
        self.say(&format!("synced {name} {state}"))
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), String> {
        self.say(&format!("begin {from}"))?;
        self.say(&format!("begin {to}"))?;
        let target = self.dir.join(to);
        let moved = rustix::fs::rename(self.dir.join(from), &target);
        let state = moved.and_then(|()| sync(&self.dir)).and_then(|()| sync(&target)).and_then(|()| state(&target));
        let state = state.map_err(|error| format!("rename {from} {to}: {error}"))?;
        self.files.remove(from);
        self.files.insert(to.to_string());
        self.say(&format!("synced {to} {state}"))?;
        self.say(&format!("gone {from}"))
    }

    fn remove(&mut self, name: &str) -> Result<(), String> {
        self.say(&format!("begin {name}"))?;
        let removed = rustix::fs::unlink(self.dir.join(name)).and_then(|()| sync(&self.dir));
        removed.map_err(|error| format!("remove {name}: {error}"))?;
        self.files.remove(name);
        self.say(&format!("gone {name}"))
    }
}

fn sync(path: &Path) -> Result<(), Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).and_then(rustix::fs::fsync)
}

/// Changes a file in some ways and makes it durable.
fn store(path: &Path, rng: &mut Rng) -> Result<(), Errno> {
    let truncate = if rng.one_in(3) { OFlags::TRUNC } else { OFlags::empty() };
    let file =
        rustix::fs::open(path, OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | truncate, Mode::from_raw_mode(0o644))?;
    for _ in 0..rng.range(1, 3) {
        let length = match rng.below(4) {
            0 | 1 => rng.range(1, 3000),
            2 => rng.range(1, 20_000),
            _ => rng.range(1, 200_000),
        };
        let offset = rng.below(100_000);
        write_all(&file, &rng.bytes(length), if rng.one_in(2) { 0 } else { offset })?;
    }
    if rng.one_in(4) {
        rustix::fs::ftruncate(&file, rng.below(150_000))?;
    }
    if rng.one_in(3) {
        let length = rng.range(1, 300);
        rustix::fs::fsetxattr(&file, TAG, &rng.bytes(length), XattrFlags::empty())?;
    }
    if rng.one_in(3) {
        rustix::fs::fdatasync(&file)?
    }
    rustix::fs::fsync(&file)
}

/// What is promised of a file: size, contents and the attribute `user.tag`.
fn state(path: &Path) -> Result<String, Errno> {
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let size = u64::try_from(rustix::fs::fstat(&file)?.st_size).map_err(|_| Errno::IO)?;
    let contents = content::hash(&file, size, u64::MAX)?;
    let mut value = vec![0u8; 65536];
    let tag = match rustix::fs::fgetxattr(&file, TAG, value.as_mut_slice()) {
        Ok(length) => hex(&value[..length]),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => "-".into(),
        Err(error) => return Err(error),
    };
    Ok(format!("{size} {contents} {tag}"))
}

/// What [`check`] found.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Number of names whose state was certain and is right.
    pub kept: usize,
    /// Number of names that were being changed; they could be read.
    pub open: usize,
    /// One line for each broken promise. Must be empty.
    pub broken: Vec<String>,
}

/// Compares the log of a run that was cut off with what is in its work directory now.
///
/// # Errors
/// When the log cannot be read or holds a line that is none of ours.
pub fn check(log: &Path, work: &Path) -> Result<Checked, String> {
    let text = std::fs::read(log).map_err(|error| format!("{}: {error}", log.display()))?;
    let text = String::from_utf8_lossy(&text);
    // The last line may have been cut off; what follows the last newline is no line.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let mut last: BTreeMap<&str, (&str, &str)> = BTreeMap::new();
    for line in whole.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some(what @ ("begin" | "synced" | "gone")), Some(name)) = (words.next(), words.next()) else {
            return Err(format!("{}: not a line of this log: {line:?}", log.display()));
        };
        last.insert(name, (what, words.next().unwrap_or("")));
    }
    let mut checked = Checked::default();
    for (name, (what, promised)) in last {
        let found = state(&work.join(DIR).join(name));
        match (what, found) {
            ("begin", Ok(_) | Err(Errno::NOENT)) => checked.open += 1,
            ("gone", Err(Errno::NOENT)) => checked.kept += 1,
            ("synced", Ok(found)) if found == promised => checked.kept += 1,
            (_, Ok(found)) => checked.broken.push(format!("{name}: {what} {promised}, but found {found}")),
            (_, Err(error)) => checked.broken.push(format!("{name}: {what} {promised}, but {error}")),
        }
    }
    Ok(checked)
}
