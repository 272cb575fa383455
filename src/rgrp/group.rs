//! One resource group in memory: what lives inside its glock.

use super::bitmap;
use crate::cache::{Buffer, Cache};
use crate::error::{CorruptKind, Error, Result};
use crate::format::rgrp::{RG_MEMORY_ONLY, RG_NOALLOC, RG_TRIMMED, RgrpExtent};
use crate::format::{MetaHeader, MetaType, OnDisk, RgrpHeader};
use crate::ids::{BlkState, BlockAddr, LockName};
use crate::journal::Transaction;
use std::sync::Arc;

/// A resource group: the counters of its header and the blocks of its bitmap.
pub struct Rgrp {
    /// Which one, by the rindex.
    n: usize,
    extent: RgrpExtent,
    /// Distance to the next rgrp, 0 for the last.
    skip: u32,
    flags: u32,
    free: u32,
    dinodes: u32,
    unlinked: u32,
    igeneration: u64,
    areas: Vec<Area>,
    /// Every run of usable blocks is shorter than this, as far as is known.
    pub(super) runs_below: u32,
    /// The lock's value block was compared with the header.
    pub(super) lvb_checked: bool,
}

/// The part of the bitmap that lies in one block.
struct Area {
    buffer: Arc<Buffer>,
    /// Where in the block it starts.
    offset: usize,
    /// Its first entry, and the one after its last.
    from: u32,
    to: u32,
    /// Entries that are FREE.
    free: u32,
}

impl Area {
    fn map<'b>(&self, block: &'b [u8]) -> &'b [u8] {
        &block[self.offset..self.offset + ((self.to - self.from) / 4) as usize]
    }
}

impl Rgrp {
    /// Reads header and bitmap. A header that miscounts its bitmap is a contradiction.
    pub(super) fn read(cache: &Cache, n: usize, extent: RgrpExtent, skip: u32) -> Result<Self> {
        let name = LockName::rgrp(extent.addr);
        let addrs: Vec<BlockAddr> = (0..extent.length).map(|i| extent.addr.saturating_add(u64::from(i))).collect();
        cache.read_ahead(&addrs, name);
        let mut areas = Vec::with_capacity(addrs.len());
        let (mut dinodes, mut unlinked) = (0, 0);
        for (i, addr) in (0..).zip(addrs) {
            let buffer = cache.meta(addr, name, if i == 0 { MetaType::Rgrp } else { MetaType::Bitmap })?;
            let (offset, first, len) = extent.bitmap_part(cache.block_size(), i);
            let mut area = Area { buffer, offset, from: first * 4, to: (first + len) * 4, free: 0 };
            let bytes = area.buffer.bytes();
            let (map, entries) = (area.map(&bytes), area.to - area.from);
            area.free = bitmap::count(map, entries, BlkState::Free);
            unlinked += bitmap::count(map, entries, BlkState::Unlinked);
            dinodes += bitmap::count(map, entries, BlkState::Dinode);
            areas.push(area);
        }
        let block = areas[0].buffer.bytes();
        let header = RgrpHeader::view(&block);
        let free = areas.iter().map(|a| a.free).sum();
        dinodes += unlinked;
        if header.free.get() != free || header.dinodes.get() != dinodes {
            return Err(Error::corrupt(extent.addr, CorruptKind::Rgrp("its header miscounts its bitmap")));
        }
        let (flags, igeneration) = (header.flags.get() & !RG_MEMORY_ONLY, header.igeneration.get());
        let (runs_below, lvb_checked) = (u32::MAX, false);
        Ok(Self { n, extent, skip, flags, free, dinodes, unlinked, igeneration, areas, runs_below, lvb_checked })
    }

    /// Which one, by the rindex.
    pub(super) fn n(&self) -> usize {
        self.n
    }
    pub(super) fn extent(&self) -> &RgrpExtent {
        &self.extent
    }
    pub(super) fn flags(&self) -> u32 {
        self.flags
    }
    /// Free blocks.
    pub(super) fn free(&self) -> u32 {
        self.free
    }
    /// Dinodes, unlinked ones included.
    pub(super) fn dinodes(&self) -> u32 {
        self.dinodes
    }
    /// Unlinked dinodes.
    pub(super) fn unlinked(&self) -> u32 {
        self.unlinked
    }
    pub(super) fn igeneration(&self) -> u64 {
        self.igeneration
    }
    /// False when nothing may be allocated here.
    pub(super) fn allocates(&self) -> bool {
        self.flags & RG_NOALLOC == 0
    }
    /// True when nothing was freed since the last trim.
    pub(super) fn is_trimmed(&self) -> bool {
        self.flags & RG_TRIMMED != 0
    }
    /// Number of header and bitmap blocks.
    pub(super) fn blocks(&self) -> u32 {
        self.extent.length
    }

    /// State of a block; `None` when it is not ours.
    pub(super) fn state(&self, block: BlockAddr) -> Option<BlkState> {
        let entry = self.extent.index_of(block)?;
        let area = &self.areas[self.area_of(entry)];
        Some(bitmap::get(area.map(&area.buffer.bytes()), entry - area.from))
    }

    /// Which bitmap block holds this entry.
    pub(super) fn area_of(&self, entry: u32) -> usize {
        self.areas.partition_point(|a| a.to <= entry)
    }

    /// First entry in `state` within `from..to`.
    pub(super) fn find(&self, from: u32, to: u32, state: BlkState) -> Option<u32> {
        for area in self.areas.iter().skip(self.area_of(from)).take_while(|a| a.from < to) {
            if state == BlkState::Free && area.free == 0 {
                continue;
            }
            let (start, end) = (from.max(area.from) - area.from, to.min(area.to) - area.from);
            if let Some(at) = bitmap::find(area.map(&area.buffer.bytes()), start, end, state) {
                return Some(area.from + at);
            }
        }
        None
    }

    /// Number of entries in `state` from `from` on, up to `to`.
    pub(super) fn run(&self, from: u32, to: u32, state: BlkState) -> u32 {
        let mut at = from;
        for area in self.areas.iter().skip(self.area_of(from)).take_while(|a| a.from < to) {
            let (start, end) = (at - area.from, to.min(area.to) - area.from);
            let here = bitmap::run(area.map(&area.buffer.bytes()), start, end, state);
            at += here;
            if start + here < end {
                break;
            }
        }
        at - from
    }

    /// Checks that a run of blocks is all in `state`; its first entry.
    pub(super) fn check_run(&self, start: BlockAddr, len: u32, state: BlkState, what: &'static str) -> Result<u32> {
        let wrong = || Error::corrupt(start, CorruptKind::Rgrp(what));
        let first = self.extent.index_of(start).ok_or_else(wrong)?;
        if len == 0 || self.extent.data - first < len || self.run(first, first + len, state) != len {
            return Err(wrong());
        }
        Ok(first)
    }

    /// Puts entries that are all in state `from` into state `to`, and the counters after them. The caller has checked that
    /// they are.
    pub(super) fn change(&mut self, tx: &mut Transaction<'_>, first: u32, len: u32, from: BlkState, to: BlkState) {
        let mut at = first;
        while at < first + len {
            let n = self.area_of(at);
            let area = &mut self.areas[n];
            let end = area.to.min(first + len);
            let (offset, start, stop) = (area.offset, at - area.from, end - area.from);
            tx.edit(&area.buffer, |b| bitmap::fill(&mut b[offset..], start, stop, to));
            area.free -= if from == BlkState::Free { end - at } else { 0 };
            area.free += if to == BlkState::Free { end - at } else { 0 };
            at = end;
        }
        let is_dinode = |s| matches!(s, BlkState::Dinode | BlkState::Unlinked);
        // No counter can pass its bounds: reading proved that they count the bitmap.
        self.free = self.free + len * u32::from(to == BlkState::Free) - len * u32::from(from == BlkState::Free);
        self.dinodes = self.dinodes + len * u32::from(is_dinode(to)) - len * u32::from(is_dinode(from));
        self.unlinked =
            self.unlinked + len * u32::from(to == BlkState::Unlinked) - len * u32::from(from == BlkState::Unlinked);
        if to == BlkState::Free {
            self.flags &= !RG_TRIMMED;
        }
        self.write_header(tx);
    }

    /// Notes that everything free was discarded.
    pub(super) fn set_trimmed(&mut self, tx: &mut Transaction<'_>) {
        self.flags |= RG_TRIMMED;
        self.write_header(tx);
    }

    /// The next generation number; 0 is never one. It reaches the disk with the next `change`.
    pub(super) fn next_generation(&mut self) -> u64 {
        let generation = self.igeneration.max(1);
        self.igeneration = generation.wrapping_add(1);
        generation
    }

    /// Rewrites the whole header, as the kernel does (ondisk.md 3.2).
    fn write_header(&self, tx: &mut Transaction<'_>) {
        tx.edit(&self.areas[0].buffer, |b| {
            let header = RgrpHeader::edit(b);
            let jid = header.header.jid;
            header.header = MetaHeader { jid, ..MetaHeader::new(MetaType::Rgrp) };
            header.flags.set(self.flags);
            header.free.set(self.free);
            header.dinodes.set(self.dinodes);
            header.skip.set(self.skip);
            header.igeneration.set(self.igeneration);
            header.data0.set(self.extent.data0.get());
            header.data.set(self.extent.data);
            header.bitbytes.set(self.extent.bitbytes);
            header.reserved = [0; 60];
            let crc = header.checksum();
            header.crc.set(crc);
        });
    }
}
