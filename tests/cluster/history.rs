//! What was asked of a filesystem, when, and what it answered: a line before each operation and one after it, in a file that
//! does not lie on the filesystem. One clock for all (CLOCK_MONOTONIC): the "nodes" are on one machine.

use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// How long after the moment that is noted a node may still have lived, at most: a tenth of a second.
const FALLING: u64 = 100_000_000;

/// Nanoseconds of CLOCK_MONOTONIC.
pub fn now() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}

/// Something that holds one value at a time, every value written only once.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    /// 64 bytes in a file.
    Register(u8),
    /// A whole file that is replaced by rename.
    Replaced(u8),
    /// An extended attribute.
    Xattr(u8),
    /// The owner in an inode.
    Owner(u8),
}

/// How a register was read.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Kept,
    Opened,
    Writable,
    Mapped,
    Direct,
}

#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    Flock,
    Fcntl,
}

/// Numbers are those of the files; a `value` is unique in its object.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Op {
    Write {
        on: Object,
        value: u64,
    },
    Read {
        on: Object,
        how: How,
    },
    /// fsync: what this node wrote before to these is durable.
    Sync {
        on: Vec<Object>,
    },
    /// Under a lock: read, add one, write, fsync.
    Count {
        counter: u8,
        lock: Lock,
    },
    Peek {
        counter: u8,
    },
    /// A line at the end of the log, then fsync.
    Append {
        writer: u32,
        number: u32,
    },
    LogLength,
    LogContent,
    LogLines,
    /// O_EXCL or mkdir.
    Create {
        name: u32,
    },
    /// fsync of the directory of the created names.
    SyncNames,
    /// rename from one directory to another, then fsync.
    Move {
        token: u8,
        from: u8,
        to: u8,
    },
    /// Is it there?
    Look {
        token: u8,
        at: u8,
    },
    /// Under a lock: verify, truncate, extend, write anew, fsync.
    Rewrite {
        file: u8,
    },
    /// Everything else: what matters is that nothing strange is answered.
    Other {
        what: String,
    },
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub enum Outcome {
    Done,
    Value(u64),
    /// The new value, and when the lock was had and given up.
    Counted {
        value: u64,
        from: u64,
        to: u64,
    },
    Length(u64),
    /// Length and sum of the content.
    Content(u64, u64),
    /// (writer, number) of each line.
    Lines(Vec<(u32, u32)>),
    Exists,
    Absent,
    Present,
    /// The state found was not what the last one left (only [`Op::Rewrite`]).
    Mismatch(String),
    /// An error that nothing explains: it may have happened or not.
    Failed(String),
    /// The content is wrong.
    Wrong(String),
}

/// One mount of one node, from mount to umount or death.
#[derive(Clone, Debug, Default)]
pub struct Incarnation {
    pub node: u32,
    /// From here on it may answer with errors (it was cut off).
    pub faulty: Option<u64>,
    /// It was killed: what it answered later means nothing.
    pub killed: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Event {
    /// Index in [`History::incarnations`].
    pub by: usize,
    pub process: u32,
    pub start: u64,
    /// None: no answer came (that means anything).
    pub end: Option<u64>,
    pub op: Op,
    pub outcome: Option<Outcome>,
}

impl Event {
    /// It was done, and so answered.
    pub fn done(&self) -> bool {
        self.outcome == Some(Outcome::Done)
    }
}

#[derive(Clone, Debug, Default)]
pub struct History {
    pub incarnations: Vec<Incarnation>,
    pub events: Vec<Event>,
}

#[derive(Serialize, Deserialize)]
enum Line {
    Begin(u64, u64, Op),
    End(u64, u64, Outcome),
}

/// Writes a history file.
pub struct Recorder {
    file: File,
    sequence: u64,
}

impl Recorder {
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::options().create_new(true).append(true).open(path)?, sequence: 0 })
    }

    fn line(&mut self, line: &Line) -> u64 {
        let mut text = serde_json::to_vec(line).expect("a line is plain data");
        text.push(b'\n');
        // In one call: a killed process leaves whole lines.
        self.file.write_all(&text).expect("the history is written");
        self.sequence
    }

    pub fn begin(&mut self, op: Op) -> u64 {
        self.sequence += 1;
        self.line(&Line::Begin(self.sequence, now(), op))
    }

    pub fn end(&mut self, sequence: u64, outcome: Outcome) {
        self.line(&Line::End(sequence, now(), outcome));
    }
}

impl History {
    /// Adds the file of one process.
    pub fn load(&mut self, path: &Path, by: usize, process: u32) -> io::Result<()> {
        let text = fs::read_to_string(path)?;
        let mut open = HashMap::new();
        // A process that was killed may leave half a line.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text[..whole].lines() {
            match serde_json::from_str(line) {
                Ok(Line::Begin(n, start, op)) => {
                    open.insert(n, self.events.len());
                    self.events.push(Event { by, process, start, end: None, op, outcome: None });
                }
                Ok(Line::End(n, end, outcome)) => {
                    let event = open.remove(&n).and_then(|at: usize| self.events.get_mut(at));
                    let event = event.ok_or_else(|| io::Error::other(format!("{}: {line}", path.display())))?;
                    (event.end, event.outcome) = (Some(end), Some(outcome));
                }
                Err(e) => return Err(io::Error::other(format!("{}: {e}: {line}", path.display()))),
            }
        }
        Ok(())
    }

    /// What killed nodes answered after their death is forgotten. The moment of death is noted before the blow falls: what
    /// was begun shortly after it may have happened.
    pub fn settle(&mut self) {
        let incarnations = &self.incarnations;
        let killed = |by: usize| incarnations.get(by).and_then(|i| i.killed);
        // Once a dead node has refused something, nothing reaches it any more.
        let mut over = HashSet::new();
        self.events.retain(|e| {
            let late = killed(e.by).is_some_and(|k| e.start >= k);
            let refused = e.outcome.is_some() && !e.done();
            let kept = !late || !over.contains(&(e.by, e.process));
            if late && refused {
                over.insert((e.by, e.process));
            }
            kept && killed(e.by).is_none_or(|k| e.start < k + FALLING)
        });
        for event in &mut self.events {
            let Some(killed) = killed(event.by) else { continue };
            if event.end.is_some_and(|end| end >= killed) {
                (event.end, event.outcome) = (None, None);
            }
            event.start = event.start.min(killed.saturating_sub(1));
        }
        self.events.sort_by_key(|e| e.start);
    }

    /// When the incarnation of this event was killed.
    pub fn killed(&self, by: usize) -> Option<u64> {
        self.incarnations.get(by).and_then(|i| i.killed)
    }
}
