//! What the transport and the kernel agree on at the start, and what it tells the kernel unasked.

use super::adapter::MAX_IO;
use super::service::Service;
use crate::sync::DashMap;
use fuser::{INodeNo, InitFlags, KernelConfig, Notifier};
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

/// FUSE_HANDLE_KILLPRIV_V2: without it every write first asks for `security.capability`.
const HANDLE_KILLPRIV_V2: u64 = 1 << 28;

/// What we tell the kernel unasked, and what we must know for it.
#[derive(Default)]
pub(super) struct Kernel {
    /// Set when the session stands.
    notifier: OnceLock<Notifier>,
    /// Nodes open for writing.
    writers: DashMap<u64, Writers>,
}

/// Those who have a node open for writing.
#[derive(Clone, Copy, Default)]
struct Writers {
    /// How many opens.
    count: u32,
    /// Something was written since the kernel was last told to ask for the attributes. It keeps sizes and times itself, but
    /// not the number of blocks.
    wrote: bool,
}

impl Kernel {
    /// The session's voice.
    pub(super) fn set_notifier(&self, notifier: Notifier) {
        // Only one session ever calls this; a second voice would be the same one.
        let _ = self.notifier.set(notifier);
    }

    pub(super) fn opened(&self, node: u64, write: bool) {
        if write {
            self.writers.entry(node).or_default().count += 1;
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

    /// The kernel asks for attributes again.
    pub(super) fn attributes_changed(&self, node: u64) {
        self.invalidate(node, -1);
    }

    /// The kernel writes what it has collected of a file, and has done so when this returns. Waits for other requests.
    pub(super) fn collect_writes(&self, node: u64) {
        self.invalidate(node, 0);
    }

    fn invalidate(&self, node: u64, offset: i64) {
        let Some(notifier) = self.notifier.get() else { return };
        if let Err(e) = notifier.inval_inode(INodeNo(node), offset, 0) {
            tracing::debug!(node, "the kernel keeps what it has: {e}");
        }
    }
}

/// Asks the kernel for the features that the policy wants (fuse.md 7); one it does not have is done without.
pub(super) fn negotiate(service: &Service, config: &mut KernelConfig) -> io::Result<()> {
    let policy = &service.policy;
    let mut wanted = InitFlags::FUSE_ASYNC_READ
        | InitFlags::FUSE_BIG_WRITES
        | InitFlags::FUSE_MAX_PAGES
        | InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_ASYNC_DIO
        | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
        | InitFlags::FUSE_EXPLICIT_INVAL_DATA
        | InitFlags::FUSE_ATOMIC_O_TRUNC
        | InitFlags::FUSE_DONT_MASK
        | InitFlags::FUSE_HAS_IOCTL_DIR
        | InitFlags::FUSE_HAS_EXPIRE_ONLY
        | InitFlags::FUSE_EXPORT_SUPPORT
        | InitFlags::FUSE_CACHE_SYMLINKS
        | InitFlags::from_bits_retain(HANDLE_KILLPRIV_V2);
    if service.fs.volume().options.acl {
        wanted |= InitFlags::FUSE_POSIX_ACL;
    }
    if policy.writeback_cache {
        wanted |= InitFlags::FUSE_WRITEBACK_CACHE;
    }
    if policy.readdirplus {
        wanted |= InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_READDIRPLUS_AUTO;
    }
    if policy.locks {
        wanted |= InitFlags::FUSE_POSIX_LOCKS | InitFlags::FUSE_FLOCK_LOCKS;
    }
    if let Err(missing) = config.add_capabilities(wanted) {
        tracing::debug!(?missing, "this kernel lacks some FUSE features");
        let present = wanted & config.capabilities();
        config.add_capabilities(present).map_err(|m| io::Error::other(format!("FUSE features {m:?}")))?;
    }
    // Each returns what was possible instead; anything the kernel gives will do.
    for refused in [config.set_max_write(MAX_IO).err(), config.set_max_readahead(MAX_IO).err()].into_iter().flatten() {
        tracing::debug!(refused, "the kernel limits request sizes");
    }
    for refused in
        [config.set_max_background(64).err(), config.set_congestion_threshold(48).err()].into_iter().flatten()
    {
        tracing::debug!(refused, "the kernel limits background requests");
    }
    if config.set_time_granularity(Duration::from_nanos(1)).is_err() {
        tracing::debug!("the kernel keeps coarser times");
    }
    Ok(())
}
