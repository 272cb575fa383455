//! What a transport and the kernel agree on at the start, and what it tells the kernel unasked.

use super::native::abi::init;
use super::service::Service;
use crate::sync::DashMap;
use std::io;
use std::sync::{Arc, OnceLock};

/// Largest request the kernel sends or asks for.
pub(super) const MAX_IO: u32 = 1 << 20;

/// A transport's way to tell the kernel something unasked.
pub(super) trait Voice: Send + Sync {
    /// Attributes of a node are no longer good, and unless `offset` is negative its pages neither.
    fn inval_inode(&self, node: u64, offset: i64) -> io::Result<()>;
}

/// What we tell the kernel unasked, and what we must know for it.
#[derive(Default)]
pub(super) struct Kernel {
    /// Set when the session stands.
    voice: OnceLock<Arc<dyn Voice>>,
    /// Nodes open for writing, and how often.
    writers: DashMap<u64, u32>,
}

impl Kernel {
    /// The session's voice.
    pub(super) fn set_voice(&self, voice: Arc<dyn Voice>) {
        // Only one session ever calls this; a second voice would be the same one.
        let _ = self.voice.set(voice);
    }

    pub(super) fn opened(&self, node: u64, write: bool) {
        if write {
            *self.writers.entry(node).or_insert(0) += 1;
        }
    }

    pub(super) fn released(&self, node: u64, write: bool) {
        if write {
            let mut left = 0;
            self.writers.alter(&node, |_, n| {
                left = n.saturating_sub(1);
                left
            });
            if left == 0 {
                self.writers.remove_if(&node, |_, n| *n == 0);
            }
        }
    }

    /// True when a node is open for writing.
    pub(super) fn is_written(&self, node: u64) -> bool {
        self.writers.contains_key(&node)
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
        let Some(voice) = self.voice.get() else { return };
        if let Err(e) = voice.inval_inode(node, offset) {
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
