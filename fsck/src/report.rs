//! What a check is asked and what it answers.

use crate::issue::{Issue, IssueKind, Severity};
use gfs2r::format::superblock::SuperblockError;
use std::fmt;

/// What to do about journals that were not closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Journals {
    /// A dirty journal is an error, and the blocks are checked as they lie on the disk.
    MustBeClean,
    /// Dirty journals are replayed in memory, and the result is checked.
    #[default]
    Overlay,
}

/// What to check and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// About dirty journals.
    pub journals: Journals,
    /// Do not list unlinked inodes and interrupted truncates (they are legal).
    pub ignore_unlinked: bool,
    /// Issues kept; more are only counted.
    pub issues_max: usize,
    /// Bytes of memory that may be used; `None`: as many as it takes. A volume that needs more is refused with
    /// [`CheckError::Memory`].
    pub memory: Option<u64>,
    /// Look first, in little memory, whether there is anything to find at all.
    pub quick: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { journals: Journals::default(), ignore_unlinked: false, issues_max: 10_000, memory: None, quick: true }
    }
}

impl Options {
    /// Refuses what takes more than [`memory`](Self::memory).
    pub(crate) fn afford(&self, needed: u64) -> Result<(), CheckError> {
        match self.memory {
            Some(allowed) if needed > allowed => Err(CheckError::Memory { needed, allowed }),
            _ => Ok(()),
        }
    }
    /// For a volume that was closed: dirty journals are errors.
    pub fn closed() -> Self {
        Self { journals: Journals::MustBeClean, ..Self::default() }
    }
}

/// Numbers about the volume that was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Block size in bytes.
    pub block_size: u32,
    /// Resource groups.
    pub rgrps: u64,
    /// Journals.
    pub journals: u64,
    /// Journals that were dirty.
    pub journals_dirty: u64,
    /// Blocks that replay would write.
    pub replayed: u64,
    /// Data blocks of all resource groups.
    pub blocks: u64,
    /// Free ones, by the bitmaps.
    pub free: u64,
    /// Dinodes, unlinked ones included.
    pub dinodes: u64,
    /// Unlinked ones.
    pub unlinked: u64,
    /// Directories.
    pub directories: u64,
    /// Directory entries.
    pub entries: u64,
    /// Blocks with file data.
    pub data_blocks: u64,
    /// Bytes read from the device.
    pub bytes_read: u64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The issues, in the order of the passes.
    pub issues: Vec<Issue>,
    /// Issues beyond [`Options::issues_max`], which are not listed.
    pub more: u64,
    /// False when the check had to stop early, because what it stands on (master directory, rindex, resource group headers)
    /// is damaged.
    pub complete: bool,
    /// Numbers about the volume.
    pub stats: Stats,
}

impl Report {
    /// True when the check came to its end and found neither error nor warning.
    pub fn is_clean(&self) -> bool {
        self.complete && self.problems().next().is_none()
    }
    /// The errors and warnings.
    pub fn problems(&self) -> impl Iterator<Item = &Issue> {
        self.issues.iter().filter(|i| i.severity() >= Severity::Warning)
    }
    /// The errors.
    pub fn errors(&self) -> impl Iterator<Item = &Issue> {
        self.issues.iter().filter(|i| i.severity() == Severity::Error)
    }
    /// The codes of errors and warnings, in order.
    pub fn codes(&self) -> Vec<&'static str> {
        self.problems().map(Issue::code).collect()
    }
    /// True when an issue of this code was found, whatever its severity.
    pub fn has(&self, code: &str) -> bool {
        self.issues.iter().any(|i| i.code() == code)
    }
    /// Panics with the whole report unless [`is_clean`](Self::is_clean): for tests.
    #[track_caller]
    pub fn assert_clean(&self) {
        assert!(self.is_clean(), "the volume is not consistent:\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for issue in &self.issues {
            writeln!(f, "{issue}")?;
        }
        if self.more > 0 {
            writeln!(f, "and {} more", self.more)?;
        }
        if !self.complete {
            writeln!(f, "the check stopped early")?;
        }
        Ok(())
    }
}

/// Why a volume could not be checked or read at all.
#[derive(Debug)]
pub enum CheckError {
    /// The device failed at this block.
    Io {
        /// Where.
        block: u64,
        /// How.
        error: std::io::Error,
    },
    /// No superblock that can be worked with.
    Superblock(SuperblockError),
    /// A structure that the reader needs is damaged (the checker turns these into issues).
    Damaged {
        /// Where.
        block: u64,
        /// What is wrong.
        what: String,
    },
    /// The reader was asked for a name that does not exist.
    NotFound(String),
    /// The reader was asked for more bytes than it returns in one piece.
    TooBig(u64),
    /// The check takes more memory than was allowed.
    Memory {
        /// Bytes it takes.
        needed: u64,
        /// Bytes it may use.
        allowed: u64,
    },
}

impl CheckError {
    pub(crate) fn damaged(block: u64, what: impl Into<String>) -> Self {
        Self::Damaged { block, what: what.into() }
    }
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { block, error } => write!(f, "cannot read block {block}: {error}"),
            Self::Superblock(e) => e.fmt(f),
            Self::Damaged { block, what } => write!(f, "block {block}: {what}"),
            Self::NotFound(name) => write!(f, "{name}: not found"),
            Self::Memory { needed, allowed } => {
                let mib = |bytes: &u64| bytes.div_ceil(1 << 20);
                write!(f, "the check takes {} MiB of memory and may use {} (see --memory)", mib(needed), mib(allowed))
            }
            Self::TooBig(bytes) => write!(f, "{bytes} bytes are too many to read in one piece"),
        }
    }
}

impl std::error::Error for CheckError {}

/// Collects issues up to a limit.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) issues: Vec<Issue>,
    pub(crate) more: u64,
    max: usize,
    ignore_unlinked: bool,
    /// Set while blocks are walked a second time.
    pub(crate) muted: bool,
}

impl Findings {
    /// Nothing was found so far.
    pub(crate) fn is_empty(&self) -> bool {
        self.issues.is_empty() && self.more == 0
    }
    pub(crate) fn new(options: &Options) -> Self {
        Self { max: options.issues_max, ignore_unlinked: options.ignore_unlinked, ..Self::default() }
    }
    /// Notes an issue in `block` of `inode`.
    pub(crate) fn add(&mut self, block: impl Into<Option<u64>>, inode: impl Into<Option<u64>>, kind: IssueKind) {
        let legal = matches!(kind, IssueKind::InodeUnlinked { .. } | IssueKind::TruncateInProgress { .. });
        if self.muted || (legal && self.ignore_unlinked) {
            return;
        }
        if self.issues.len() >= self.max {
            self.more += 1;
            return;
        }
        self.issues.push(Issue { kind, block: block.into(), inode: inode.into(), path: None });
    }
}
