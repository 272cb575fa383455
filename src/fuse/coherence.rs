//! The kernel's caches on a shared mount: what is asked of them when a lock goes (fuse.md 6.2, 6.5).
//!
//! Attributes of an inode we hand out are good until they are invalidated, which is done here, just before the lock is given up.
//! Answers that are overtaken by that are thrown away by the kernel itself (A1), but for the first one that names an inode: as
//! long as the kernel says that it does not know an inode which we named, that answer is still on its way, and it is told again
//! (A2).
//!
//! So an answer may leave after its lock has gone (O7 asks for more): attributes in it are thrown away, a page in it is locked by the
//! kernel until it has arrived, which a drain waits for, and what a program reads past the cache it may as well have read a moment
//! earlier. Only LINK and SETATTR answers are taken unasked; their attributes are good for no time at all (`policy.rs`).

use super::kernel::Kernel;
use crate::error::Result;
use crate::fs::Fs;
use crate::glock::LockState;
use crate::ids::BlockAddr;
use crate::inode::KernelCache;
use rustix::io::Errno;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// For how long an answer that names an inode may be on its way.
const PATIENCE: Duration = Duration::from_secs(1);

/// The kernel's caches, as the engine asks for them.
pub(super) struct Coherence {
    /// Weak: the volume below owns us.
    pub(super) kernel: Weak<Kernel>,
    pub(super) fs: Weak<Fs>,
}

impl Coherence {
    fn node(fs: &Fs, addr: BlockAddr) -> u64 {
        if addr == fs.root() { 1 } else { addr.get() }
    }
}

impl KernelCache for Coherence {
    fn holds(&self, addr: BlockAddr, to: LockState) -> bool {
        let (Some(kernel), Some(fs)) = (self.kernel.upgrade(), self.fs.upgrade()) else { return false };
        let node = Self::node(&fs, addr);
        // Under a shared lock everything may stay that was not changed behind our back.
        if to == LockState::Shared {
            kernel.pages.holds_changed(node)
        } else {
            fs.is_known(addr) || kernel.pages.holds(node)
        }
    }

    fn drain(&self, addr: BlockAddr, _to: LockState) -> Result<()> {
        let (Some(kernel), Some(fs)) = (self.kernel.upgrade(), self.fs.upgrade()) else { return Ok(()) };
        let node = Self::node(&fs, addr);
        let pages = kernel.pages.drain(node);
        let offset = if pages.is_some() { 0 } else { -1 };
        let (start, mut pause) = (Instant::now(), Duration::from_micros(20));
        while !kernel.tell(node, offset)? && fs.is_known(addr) {
            if start.elapsed() > PATIENCE {
                tracing::warn!(node, "the kernel does not know an inode that it was told of");
                break;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(2));
        }
        Ok(())
    }
}

impl Kernel {
    /// The volume below asks the kernel from now on before it gives a lock up.
    pub(super) fn answers_for(self: &Arc<Self>, fs: &Arc<Fs>) {
        let coherence = Coherence { kernel: Arc::downgrade(self), fs: Arc::downgrade(fs) };
        if fs.volume().kernel_cache.set(Arc::new(coherence)).is_err() {
            debug_assert!(false, "a volume is mounted once");
        }
        let kernel = Arc::downgrade(self);
        fs.set_forgetter(Box::new(move |addr| {
            // The root is never deleted: its number is that of its block.
            let voice = kernel.upgrade().and_then(|kernel| kernel.voice().map(Arc::clone));
            if let Some(Err(e)) = voice.map(|voice| voice.forget(addr.get())) {
                // Then the inode is deleted when the kernel forgets it by itself.
                tracing::debug!(node = addr.get(), "the kernel does not forget: {e}");
            }
        }));
    }

    /// Tells the kernel that attributes, and unless `offset` is negative pages, are no longer good; waits for the latter. False when
    /// it does not know the inode.
    fn tell(&self, node: u64, offset: i64) -> Result<bool> {
        let Some(voice) = self.voice() else { return Ok(true) };
        match voice.inval_inode(node, offset, 0) {
            Ok(knows) => Ok(knows),
            // Nothing is mounted any more.
            Err(e)
                if [Errno::NODEV, Errno::NOTCONN, Errno::CONNABORTED]
                    .iter()
                    .any(|n| e.raw_os_error() == Some(n.raw_os_error())) =>
            {
                Ok(true)
            }
            Err(e) => Err(e.into()),
        }
    }

    /// The kernel drops the pages of `len` bytes from `offset` on (0: to the end). Waits for page fills.
    pub(super) fn drop_pages(&self, node: u64, offset: u64, len: i64) {
        let offset = i64::try_from(offset).unwrap_or(i64::MAX);
        if let Some(Err(e)) = self.voice().map(|voice| voice.inval_inode(node, offset, len)) {
            tracing::debug!(node, "the kernel keeps what it has: {e}");
        }
    }

    /// A file is opened for reading and writing: see [`Pages::open_mapper`](super::pages::Pages).
    pub(super) fn open_mapper(&self, node: u64) -> Result<()> {
        self.pages.open_mapper(node, || self.tell(node, 0).map(|_| ()))
    }
}
