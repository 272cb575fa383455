//! The end of a mount whose locks others will get without its giving them up: after a withdrawal from a cluster.

use super::Fs;
use crate::glock::LockState;
use crate::sync::mpsc;
use std::sync::Arc;
use std::time::Duration;

/// How long operations under way may take to end, and the kernel to forget.
const PATIENCE: Duration = Duration::from_secs(3);

impl Fs {
    /// From now on every operation fails, and the kernel has nothing left that it could answer from: what we know will be
    /// overtaken. Returns when that is so, or after some seconds.
    pub fn shut(self: &Arc<Self>) {
        let kept = &self.vol.kept;
        self.vol.inodes.shut(&|name| kept.iter().any(|addr| addr.get() == name.number), PATIENCE);
        let fs = Arc::clone(self);
        let (forgotten, wait) = mpsc::channel();
        // Of its own: an answer that the kernel waits for may never come.
        crate::sync::thread::spawn(move || {
            let Some(kernel) = fs.vol.kernel_cache.get() else { return };
            for addr in fs.nodes.all() {
                if let Err(e) = kernel.drain(addr, LockState::Unlocked) {
                    tracing::debug!(inode = addr.get(), "the kernel keeps what it has: {e}");
                }
            }
            // Nobody waits any more when it took too long.
            let _late = forgotten.send(());
        });
        if wait.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
            tracing::warn!("the kernel may still answer from what it has cached");
        }
    }
}
