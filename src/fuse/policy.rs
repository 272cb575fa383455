//! What the kernel may cache and how files are opened: one table (fuse.md 7).

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// When reading a file changes its access time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Atime {
    /// Never.
    Never,
    /// When it is not later than the last change, or older than a day.
    #[default]
    Relative,
    /// Always.
    Strict,
}

/// An [`Atime`] that a remount can change.
#[derive(Debug, Default)]
pub struct AtimeSwitch(AtomicU8);

impl AtimeSwitch {
    /// Set to `atime`.
    pub fn new(atime: Atime) -> Self {
        let switch = Self::default();
        switch.set(atime);
        switch
    }

    /// What holds from now on.
    pub fn set(&self, atime: Atime) {
        self.0.store(atime as u8, Ordering::Relaxed);
    }

    /// What holds now.
    pub fn get(&self) -> Atime {
        match self.0.load(Ordering::Relaxed) {
            n if n == Atime::Never as u8 => Atime::Never,
            n if n == Atime::Strict as u8 => Atime::Strict,
            _ => Atime::Relative,
        }
    }
}

/// How a mount treats the kernel's caches. A shared mount must be told of other nodes' changes, a single one need not.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    /// The kernel collects small writes and owns sizes and times of open files. Cannot be coherent between nodes (fuse.md 5).
    pub writeback_cache: bool,
    /// Directory listings carry attributes when the kernel thinks it useful.
    pub readdirplus: bool,
    /// How long a name is good.
    pub name_ttl: Duration,
    /// How long the absence of a name is good.
    pub negative_ttl: Duration,
    /// How long attributes are good.
    pub attr_ttl: Duration,
    /// Writable opens bypass the page cache (fuse.md 6.1, O1).
    pub direct_writes: bool,
    /// flock and fcntl locks come to us.
    pub locks: bool,
    /// Threads that wait for requests at the same time.
    pub readers: usize,
}

/// As good as for ever: 30 years.
const FOREVER: Duration = Duration::from_secs(1 << 30);

impl Policy {
    /// `lock_nolock`: nobody else changes anything.
    pub const fn single() -> Self {
        Self {
            writeback_cache: true,
            readdirplus: true,
            name_ttl: FOREVER,
            negative_ttl: FOREVER,
            attr_ttl: FOREVER,
            direct_writes: false,
            locks: false,
            readers: 2,
        }
    }

    /// How long the attributes in an answer to LINK or SETATTR are good: the kernel takes them without asking whether they are
    /// stale (fuse.md A3).
    pub const fn link_ttl(&self) -> Duration {
        if self.writeback_cache { self.attr_ttl } else { Duration::ZERO }
    }

    /// Other nodes change things too: what the kernel caches is taken from it when a lock goes.
    pub const fn is_shared(&self) -> bool {
        self.direct_writes
    }

    /// A mount shared by several nodes.
    pub const fn shared() -> Self {
        Self {
            writeback_cache: false,
            readdirplus: false,
            name_ttl: Duration::ZERO,
            negative_ttl: Duration::ZERO,
            attr_ttl: FOREVER,
            direct_writes: true,
            locks: true,
            readers: 2,
        }
    }
}
