//! Volumes for tests of single chapters: made by `support::format`, opened in memory, judged by the stock fsck.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part")]

#[path = "../support/mod.rs"]
mod support;

use gfs2r::clock::SimClock;
use gfs2r::device::{AlignedBuf, BlockDevice, MemoryDevice};
use gfs2r::fs::{Caller, Fs};
use gfs2r::volume::{OpenOptions, Opened, open};
use std::sync::Arc;

pub const ROOT: Caller = Caller { uid: 0, gid: 0, umask: 0 };

/// A volume on a disk in memory.
pub struct Volume {
    pub dev: Arc<MemoryDevice>,
    pub opened: Opened,
}

impl Volume {
    /// A fresh one with 8 MiB of journal; `None`, loudly, where the stock tools are missing.
    pub fn make(block_size: u32, megabytes: u64, format_number: u32) -> Option<Self> {
        if !support::have_stock_tools() {
            return None;
        }
        let dev = Arc::new(MemoryDevice::new(megabytes << 20));
        support::format(&dev, block_size, 1, format_number, 0);
        Some(Self::mount(dev))
    }

    pub fn mount(dev: Arc<MemoryDevice>) -> Self {
        let opened = open(dev.clone(), &OpenOptions::default(), Arc::new(SimClock::new(1_700_000_000)));
        Self { dev, opened: opened.unwrap_or_else(|e| panic!("open: {e}")) }
    }

    pub fn fs(&self) -> &Arc<Fs> {
        &self.opened.fs
    }

    /// Closes the volume, lets the stock fsck find nothing, and opens it again.
    pub fn remount(self) -> Self {
        self.opened.close().expect("close");
        support::stock_fsck(&self.dev, "between two mounts");
        Self::mount(self.dev)
    }

    /// Closes the volume, changes a block of its disk, and opens it again.
    pub fn damage(self, block: u64, change: impl FnOnce(&mut [u8])) -> Self {
        self.opened.close().expect("close");
        let mut bytes = self.block(block);
        change(&mut bytes);
        self.dev.write(block * bytes.len() as u64, &bytes).expect("in range");
        Self::mount(self.dev)
    }

    /// A block as it stands on the disk.
    pub fn block(&self, block: u64) -> AlignedBuf {
        let mut bytes = AlignedBuf::zeroed(self.fs().volume().bs.bytes());
        self.dev.read(block * bytes.len() as u64, &mut bytes).expect("in range");
        bytes
    }

    /// The big-endian number at `offset` of a block on the disk.
    pub fn number(&self, block: u64, offset: usize) -> u64 {
        gfs2r::format::get_u64(&self.block(block), offset)
    }

    /// Closes the volume; the stock fsck must find nothing.
    pub fn finish(self) {
        self.opened.close().expect("close");
        support::stock_fsck(&self.dev, "at the end");
    }
}
