//! What the transport tells the kernel unasked.

use crate::sync::DashMap;
use fuser::{INodeNo, Notifier};
use std::sync::OnceLock;

/// What we tell the kernel unasked, and what we must know for it.
#[derive(Default)]
pub(super) struct Kernel {
    /// Set when the session stands.
    notifier: OnceLock<Notifier>,
    /// Nodes open for writing, and how often.
    writers: DashMap<u64, u32>,
}

impl Kernel {
    /// The session's voice.
    pub(super) fn set_notifier(&self, notifier: Notifier) {
        // Only one session ever calls this; a second voice would be the same one.
        let _ = self.notifier.set(notifier);
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
        let Some(notifier) = self.notifier.get() else { return };
        if let Err(e) = notifier.inval_inode(INodeNo(node), offset, 0) {
            tracing::debug!(node, "the kernel keeps what it has: {e}");
        }
    }
}
