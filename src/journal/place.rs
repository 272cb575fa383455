//! Where a journal's blocks lie.

use crate::cache::Cache;
use crate::error::{CorruptKind, Error, Result};
use crate::ids::{BlockAddr, BlockSize, Jid, LogBlock};

/// A run of journal blocks on the device, in journal order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogExtent {
    /// First block.
    pub addr: BlockAddr,
    /// How many.
    pub blocks: u32,
}

/// What mount knows about a journal before it is opened.
#[derive(Clone, Debug)]
pub struct JournalPlace {
    /// Which one.
    pub jid: Jid,
    /// Its blocks, in order, without holes.
    pub extents: Vec<LogExtent>,
    /// Its dinode.
    pub inode: BlockAddr,
    /// Dinode of statfs_change of this jid.
    pub statfs_change: BlockAddr,
    /// Dinode of quota_change of this jid.
    pub quota_change: BlockAddr,
    /// Dinode of the master statfs file.
    pub master_statfs: BlockAddr,
}

/// A journal needs room for a few groups. (The format's lower limit of 8 MiB is mount's to check; tests use small ones.)
const MIN_BLOCKS: u32 = 32;

/// Maps journal blocks to the device.
#[derive(Clone, Debug)]
pub(super) struct LogMap {
    bs: BlockSize,
    /// (first journal block, extent), ascending.
    parts: Vec<(u32, LogExtent)>,
    size: u32,
}

impl LogMap {
    /// Checks that the extents lie on the device and make a journal.
    pub(super) fn new(cache: &Cache, place: &JournalPlace) -> Result<Self> {
        let bad = |what| Error::corrupt(place.inode, CorruptKind::Journal(what));
        let mut parts = Vec::with_capacity(place.extents.len());
        let mut size = 0u32;
        for extent in &place.extents {
            let last = u64::from(extent.blocks).checked_sub(1).and_then(|n| extent.addr.checked_add(n));
            if last.is_none_or(|last| !cache.is_on_device(last)) {
                return Err(bad("a block of it lies outside the device"));
            }
            parts.push((size, *extent));
            size = size.checked_add(extent.blocks).ok_or_else(|| bad("too large"))?;
        }
        if size < MIN_BLOCKS {
            return Err(bad("too small"));
        }
        Ok(Self { bs: cache.block_size(), parts, size })
    }
    /// Blocks of the journal.
    pub(super) fn size(&self) -> u32 {
        self.size
    }
    /// The position `n` blocks after `at`, wrapping.
    pub(super) fn after(&self, at: LogBlock, n: u32) -> LogBlock {
        LogBlock(((u64::from(at.0) + u64::from(n)) % u64::from(self.size)) as u32)
    }
    /// Address of a journal block; `at` must be below the size.
    pub(super) fn addr(&self, at: LogBlock) -> BlockAddr {
        let (first, extent) = self.part(at.0);
        extent.addr.saturating_add(u64::from(at.0 - first))
    }
    /// Byte ranges on the device of `n` blocks from `at` on, wrapping: (offset, length), in journal order.
    pub(super) fn runs(&self, at: LogBlock, n: u32) -> Vec<(u64, usize)> {
        let mut runs: Vec<(u64, usize)> = Vec::new();
        let (mut at, mut left) = (at.0, n);
        while left > 0 {
            let (first, extent) = self.part(at);
            let run = (first + extent.blocks - at).min(left);
            let offset = self.bs.offset(extent.addr.saturating_add(u64::from(at - first)));
            let len = run as usize * self.bs.bytes();
            match runs.last_mut() {
                Some((o, l)) if *o + *l as u64 == offset => *l += len,
                _ => runs.push((offset, len)),
            }
            left -= run;
            at = (at + run) % self.size;
        }
        runs
    }
    /// Reads `buf.len()` bytes (whole blocks) from `at` on, wrapping.
    pub(super) fn read(&self, cache: &Cache, at: LogBlock, buf: &mut [u8]) -> Result<()> {
        let blocks = (buf.len() / self.bs.bytes()) as u32;
        let mut from = 0;
        for (offset, len) in self.runs(at, blocks) {
            cache.device().read(offset, &mut buf[from..from + len])?;
            from += len;
        }
        Ok(())
    }
    fn part(&self, at: u32) -> (u32, LogExtent) {
        let i = self.parts.partition_point(|(first, _)| *first <= at);
        // The first part starts at 0, so at least one starts at or before any position.
        self.parts[i - 1]
    }
}
