//! One resource group in memory: what lives inside its glock.

use super::bitmap;
use crate::cache::{Buffer, Cache};
use crate::error::{CorruptKind, Error, Result};
use crate::format::rgrp::{RG_MEMORY_ONLY, RGRP_HEADER, RgrpExtent};
use crate::format::{MetaHeader, MetaType, OnDisk, RgrpHeader};
use crate::glock::Protected;
use crate::ids::{BlkState, BlockAddr, LockName};
use crate::journal::{Journal, Transaction};
use std::sync::Arc;

/// What rgrps need to be read and written.
pub struct GroupContext {
    pub(super) cache: Arc<Cache>,
    pub(super) journal: Arc<Journal>,
    /// The rindex, ascending.
    pub(super) extents: Vec<RgrpExtent>,
}

impl GroupContext {
    pub(super) fn index_of(&self, block: BlockAddr) -> Option<usize> {
        let after = self.extents.partition_point(|e| e.data0 <= block);
        let index = after.checked_sub(1)?;
        self.extents[index].index_of(block).map(|_| index)
    }
}

/// A resource group: counters of its header and the blocks of its bitmap.
pub struct Rgrp {
    index: usize,
    extent: RgrpExtent,
    /// Distance to the next rgrp, 0 for the last.
    skip: u32,
    flags: u32,
    free: u32,
    dinodes: u32,
    igeneration: u64,
    parts: Vec<Part>,
}

/// A block of the bitmap.
struct Part {
    buffer: Arc<Buffer>,
    /// Where in the block the bitmap starts.
    offset: usize,
    /// Index of its first entry, and of the one after its last.
    from: u32,
    to: u32,
}

impl Protected for Rgrp {
    type Context = GroupContext;

    fn instantiate(name: LockName, cx: &GroupContext) -> Result<Self> {
        let found = cx.extents.binary_search_by_key(&name.number, |e| e.addr.get());
        let index = found.map_err(|_| Error::Stale)?;
        let extent = cx.extents[index];
        let bs = cx.cache.block_size();
        let addrs: Vec<BlockAddr> = (0..extent.length).map(|n| extent.addr.saturating_add(u64::from(n))).collect();
        cx.cache.read_ahead(&addrs, name);
        let mut parts = Vec::with_capacity(addrs.len());
        for (n, addr) in addrs.into_iter().enumerate() {
            let kind = if n == 0 { MetaType::Rgrp } else { MetaType::Bitmap };
            let buffer = cx.cache.meta(addr, name, kind)?;
            let (offset, first, len) = extent.bitmap_part(bs, n as u32);
            parts.push(Part { buffer, offset, from: first * 4, to: (first + len) * 4 });
        }
        let bytes = parts[0].buffer.bytes();
        let header = RgrpHeader::view(&bytes);
        let next = cx.extents.get(index + 1).map_or(0, |n| n.addr.get() - extent.addr.get());
        Ok(Self {
            index,
            extent,
            skip: u32::try_from(next).unwrap_or(0),
            flags: header.flags.get() & !RG_MEMORY_ONLY,
            free: header.free.get(),
            dinodes: header.dinodes.get(),
            igeneration: header.igeneration.get(),
            parts,
        })
    }

    fn sync(name: LockName, _object: &mut Self, cx: &GroupContext) -> Result<()> {
        cx.journal.sync_owner(name)
    }

    fn invalidate(name: LockName, cx: &GroupContext) {
        cx.cache.invalidate(name);
    }
}

impl Rgrp {
    pub(super) fn index(&self) -> usize {
        self.index
    }
    pub(super) fn extent(&self) -> &RgrpExtent {
        &self.extent
    }
    pub(super) fn flags(&self) -> u32 {
        self.flags
    }
    /// Free blocks by the header.
    pub(super) fn free(&self) -> u32 {
        self.free
    }
    /// Bitmap and header blocks.
    pub(super) fn blocks(&self) -> u32 {
        self.extent.length
    }

    /// State of a block; `None` when it is not ours.
    pub(super) fn state(&self, block: BlockAddr) -> Option<BlkState> {
        let index = self.extent.index_of(block)?;
        let part = &self.parts[self.part_of(index)];
        Some(bitmap::get(&part.buffer.bytes()[part.offset..], index - part.from))
    }

    fn part_of(&self, index: u32) -> usize {
        self.parts.partition_point(|p| p.to <= index)
    }

    /// First entry in `state` at or after `from`.
    pub(super) fn find(&self, from: u32, state: BlkState) -> Option<u32> {
        for part in self.parts.iter().skip(self.part_of(from)) {
            let start = from.max(part.from) - part.from;
            let bytes = part.buffer.bytes();
            if let Some(at) = bitmap::find(&bytes[part.offset..], start, part.to - part.from, state) {
                return Some(part.from + at);
            }
        }
        None
    }

    /// Number of entries in `state` from `from` on, at most `most`.
    pub(super) fn run(&self, from: u32, most: u32, state: BlkState) -> u32 {
        let mut len = 0;
        for part in self.parts.iter().skip(self.part_of(from)) {
            let start = (from + len).max(part.from) - part.from;
            let to = (part.to - part.from).min((start).saturating_add(most - len));
            let bytes = part.buffer.bytes();
            let here = bitmap::run(&bytes[part.offset..], start, to, state);
            len += here;
            if len >= most || start + here < part.to - part.from {
                break;
            }
        }
        len.min(most)
    }

    /// Checks that a run of blocks is all in `state`; its first index.
    pub(super) fn check_run(&self, start: BlockAddr, len: u32, state: BlkState, what: &'static str) -> Result<u32> {
        let wrong = || Error::corrupt(start, CorruptKind::Rgrp(what));
        let first = self.extent.index_of(start).ok_or_else(wrong)?;
        if len == 0 || self.extent.data - first < len || self.run(first, len, state) != len {
            return Err(wrong());
        }
        Ok(first)
    }

    /// Sets a run of entries, and the header's counters: free blocks by `free`, dinodes by `dinodes`.
    pub(super) fn change(&mut self, tx: &mut Transaction<'_>, first: u32, len: u32, to: BlkState, free: i64, dinodes: i64) {
        let mut at = first;
        while at < first + len {
            let part = &self.parts[self.part_of(at)];
            let end = part.to.min(first + len);
            tx.edit(&part.buffer, |b| {
                for index in at..end {
                    bitmap::set(&mut b[part.offset..], index - part.from, to);
                }
            });
            at = end;
        }
        // Counters of a damaged header must not stop anything: the checker mends them.
        self.free = u32::try_from(i64::from(self.free) + free).unwrap_or(0).min(self.extent.data);
        self.dinodes = u32::try_from(i64::from(self.dinodes) + dinodes).unwrap_or(0);
        if free > 0 {
            self.flags &= !crate::format::rgrp::RG_TRIMMED;
        }
        self.write_header(tx);
    }

    /// The next generation number; 0 is never one.
    pub(super) fn next_generation(&mut self) -> u64 {
        let generation = self.igeneration.max(1);
        self.igeneration = generation.wrapping_add(1);
        generation
    }

    /// Rewrites the whole header, as the kernel does (ondisk.md 3.2).
    fn write_header(&self, tx: &mut Transaction<'_>) {
        let (extent, skip, flags) = (&self.extent, self.skip, self.flags);
        tx.edit(&self.parts[0].buffer, |b| {
            let header = RgrpHeader::edit(b);
            let jid = header.header.jid;
            header.header = MetaHeader { jid, ..MetaHeader::new(MetaType::Rgrp) };
            header.flags.set(flags);
            header.free.set(self.free);
            header.dinodes.set(self.dinodes);
            header.skip.set(skip);
            header.igeneration.set(self.igeneration);
            header.data0.set(extent.data0.get());
            header.data.set(extent.data);
            header.bitbytes.set(extent.bitbytes);
            header.reserved = [0; 60];
            let crc = header.checksum();
            header.crc.set(crc);
            debug_assert_eq!(size_of::<RgrpHeader>(), RGRP_HEADER);
        });
    }
}
