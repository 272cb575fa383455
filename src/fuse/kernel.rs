//! What a transport and the kernel agree on at the start, and what it tells the kernel unasked.

use super::native::abi::init;
use super::pages::Pages;
use super::service::Service;
use super::tight::Collected;
use crate::sync::DashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Largest request the kernel sends or asks for.
pub(super) const MAX_IO: u32 = 1 << 20;

/// Requests of its own (readahead, write-back) that the kernel sends before it waits for answers, and the number from which it
/// calls us congested.
pub(super) const BACKGROUND: (u16, u16) = (64, 48);

/// This bit is set in the handle of a file that is open for writing.
pub(super) const WRITE_HANDLE: u64 = 1;

/// A transport's way to tell the kernel something unasked.
pub(super) trait Voice: Send + Sync {
    /// Attributes of a node are no longer good, and unless `offset` is negative its pages of `len` bytes from there (0: to the end)
    /// neither. False when the kernel does not know it.
    fn inval_inode(&self, node: u64, offset: i64, len: i64) -> io::Result<bool>;

    /// The kernel should forget a node that it does not have open. Does not wait.
    fn forget(&self, node: u64) -> io::Result<()>;
}

/// What we tell the kernel unasked, and what we must know for it.
#[derive(Default)]
pub(super) struct Kernel {
    /// Set when the session stands.
    voice: OnceLock<Arc<dyn Voice>>,
    /// Set when it has ended.
    over: AtomicBool,
    /// Nodes open for writing.
    writers: DashMap<u64, Writers>,
    /// The disk is nearly full (`tight.rs`).
    tight: AtomicBool,
    /// Its page cache, on a shared mount.
    pub(super) pages: Pages,
    /// Its protocol is 7.this.
    minor: AtomicU32,
    /// Handles given out.
    handles: AtomicU64,
}

/// Those who have a node open for writing.
#[derive(Clone, Copy, Default)]
struct Writers {
    /// How many opens.
    count: u32,
    /// Something was written since the kernel was last told to ask for the attributes. It keeps sizes and times itself, but
    /// not the number of blocks.
    wrote: bool,
    collected: Collected,
}

impl Kernel {
    /// The session's voice.
    pub(super) fn set_voice(&self, voice: Arc<dyn Voice>) {
        // Only one session ever calls this; a second voice would be the same one.
        let _ = self.voice.set(voice);
    }

    /// The kernel speaks protocol 7.`minor`.
    pub(super) fn set_minor(&self, minor: u32) {
        self.minor.store(minor, Ordering::Relaxed);
    }

    /// The kernel drops the pages that a write past the page cache covers also after the write (seen with 7.45).
    pub(super) fn drops_after_writes(&self) -> bool {
        self.minor.load(Ordering::Relaxed) >= 45
    }

    /// A handle for an open file, which no other has.
    pub(super) fn new_handle(&self, write: bool) -> u64 {
        // Bit 0 is WRITE_HANDLE.
        (self.handles.fetch_add(1, Ordering::Relaxed) + 1) << 1 | if write { WRITE_HANDLE } else { 0 }
    }

    pub(super) fn voice(&self) -> Option<&Arc<dyn Voice>> {
        self.voice.get().filter(|_| !self.over.load(Ordering::Acquire))
    }

    /// The session is over: the kernel has forgotten everything, and nothing is told it any more.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    pub(super) fn opened(&self, node: u64, write: bool) {
        if write {
            self.writers.entry(node).or_default().count += 1;
            if self.is_tight() {
                self.attributes_changed(node);
            }
        }
    }

    /// An open was answered: `touched` as in [`Opened`](super::service::Opened).
    pub(super) fn after_open(&self, node: u64, write: bool, touched: bool) {
        self.opened(node, write);
        if touched {
            self.attributes_changed(node);
        }
    }

    /// The kernel may still keep data of this node back: where data is must be asked after [`Kernel::collect_writes`].
    pub(super) fn keeps_data_back(&self, service: &Service, node: u64) -> bool {
        // On a shared mount: what was changed through a mapping.
        service.policy.writeback_cache && self.is_written(node)
            || service.policy.is_shared() && self.pages.holds_changed(node)
    }

    /// Whether the disk is nearly full.
    pub(super) fn is_tight(&self) -> bool {
        self.tight.load(Ordering::Acquire)
    }

    /// The disk is nearly full, or no longer. When it becomes so, the kernel is made to ask for the attributes of what is written.
    pub(super) fn set_tight(&self, tight: bool) {
        if self.is_tight() != tight && self.tight.swap(tight, Ordering::AcqRel) != tight && tight {
            let nodes: Vec<u64> = self.writers.iter().map(|w| *w.key()).collect();
            for node in nodes {
                self.collected(node, |_| Collected::default());
                self.attributes_changed(node);
            }
        }
    }

    /// Changes what is known of a written node's collected writes.
    pub(super) fn collected(&self, node: u64, change: impl FnOnce(Collected) -> Collected) {
        if let Some(mut writers) = self.writers.get_mut(&node) {
            writers.collected = change(writers.collected);
        }
    }

    pub(super) fn released(&self, node: u64, write: bool) {
        if write {
            let mut left = 0;
            self.writers.alter(&node, |_, w| {
                left = w.count.saturating_sub(1);
                Writers { count: left, ..w }
            });
            if left == 0 {
                self.writers.remove_if(&node, |_, w| w.count == 0);
            }
        }
    }

    /// True when a node is open for writing.
    pub(super) fn is_written(&self, node: u64) -> bool {
        self.writers.contains_key(&node)
    }

    /// A write came, which may have changed the number of blocks.
    pub(super) fn wrote(&self, node: u64) {
        if let Some(mut writers) = self.writers.get_mut(&node) {
            writers.wrote = true;
        }
    }

    /// What was written of a node has its blocks: the kernel asks for them when a program next does.
    pub(super) fn settled(&self, node: u64) {
        let wrote = self.writers.get_mut(&node).is_some_and(|mut w| std::mem::take(&mut w.wrote));
        if wrote {
            self.attributes_changed(node);
        }
    }

    /// The same for every node that was written.
    pub(super) fn all_settled(&self) {
        let wrote: Vec<u64> = self.writers.iter().filter(|w| w.wrote).map(|w| *w.key()).collect();
        for node in wrote {
            self.settled(node);
        }
    }

    /// Once a second that, also of files that nobody syncs: du shows how a download grows.
    pub(super) fn keep_block_counts_fresh(self: &Arc<Self>) -> io::Result<()> {
        let kernel = Arc::downgrade(self);
        std::thread::Builder::new().name("gfs2r-blocks".into()).spawn(move || {
            while let Some(kernel) = kernel.upgrade() {
                kernel.all_settled();
                drop(kernel);
                std::thread::sleep(Duration::from_secs(1));
            }
        })?;
        Ok(())
    }

    /// The kernel asks for attributes again.
    pub(super) fn attributes_changed(&self, node: u64) {
        self.invalidate(node, -1);
    }

    /// The kernel writes what it has collected of a file, and has done so when this returns. Waits for other requests.
    pub(super) fn collect_writes(&self, node: u64) {
        self.invalidate(node, 0);
    }

    fn invalidate(&self, node: u64, offset: i64) {
        let Some(voice) = self.voice() else { return };
        if let Err(e) = voice.inval_inode(node, offset, 0) {
            tracing::debug!(node, "the kernel keeps what it has: {e}");
        }
    }
}

/// The INIT flags that the policy wants (fuse.md 7); one that the kernel does not have is done without.
pub(super) fn wanted(service: &Service) -> u64 {
    let policy = &service.policy;
    // Without HANDLE_KILLPRIV_V2 every write first asks for `security.capability`.
    let mut wanted = init::ASYNC_READ
        | init::BIG_WRITES
        | init::MAX_PAGES
        | init::PARALLEL_DIROPS
        | init::ASYNC_DIO
        | init::DIRECT_IO_ALLOW_MMAP
        | init::EXPLICIT_INVAL_DATA
        | init::ATOMIC_O_TRUNC
        | init::DONT_MASK
        | init::HAS_IOCTL_DIR
        | init::HAS_EXPIRE_ONLY
        | init::EXPORT_SUPPORT
        | init::CACHE_SYMLINKS
        | init::HANDLE_KILLPRIV_V2;
    if service.fs.volume().options.acl {
        wanted |= init::POSIX_ACL;
    }
    if policy.writeback_cache {
        wanted |= init::WRITEBACK_CACHE;
    }
    if policy.readdirplus {
        wanted |= init::DO_READDIRPLUS | init::READDIRPLUS_AUTO;
    }
    if policy.locks {
        wanted |= init::POSIX_LOCKS | init::FLOCK_LOCKS;
    }
    wanted
}
