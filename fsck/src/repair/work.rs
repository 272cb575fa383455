//! The volume under repair: blocks change in memory, bitmaps through the map, and space is taken where nobody is.

use crate::blockmap::{self, BlockKind};
use crate::disk::Disk;
use crate::report::CheckError;
use crate::state::State;
use gfs2r::format::rgrp::{RG_MEMORY_ONLY, RgrpExtent};
use gfs2r::format::{MetaHeader, MetaType, OnDisk, RgrpHeader, Superblock};
use gfs2r::ids::BlkState;
use std::collections::BTreeSet;

/// What every step of a repair works on.
pub(crate) struct Work<'d> {
    pub(crate) disk: Disk<'d>,
    pub(crate) sb: Superblock,
    /// The superblock differs from the device's.
    pub(crate) sb_changed: bool,
    /// Where the resource groups are, when rindex does not say it.
    pub(crate) extents: Option<Vec<RgrpExtent>>,
    /// Groups whose bitmap or header must be written.
    touched: BTreeSet<usize>,
    /// Where the search for free space goes on: group, index.
    cursor: (usize, u32),
    /// Inodes made so far: their formal numbers must differ.
    made: u64,
}

impl<'d> Work<'d> {
    pub(crate) fn new(disk: Disk<'d>, sb: Superblock) -> Self {
        Self { disk, sb, sb_changed: false, extents: None, touched: BTreeSet::new(), cursor: (0, 0), made: 0 }
    }
    /// A number that rises with every call.
    pub(crate) fn made(&mut self) -> u64 {
        self.made += 1;
        self.made
    }
    /// Changes a block in place.
    pub(crate) fn edit(&mut self, addr: u64, f: impl FnOnce(&mut [u8])) -> Result<(), CheckError> {
        let mut bytes = self.disk.read(addr)?;
        let before = bytes.clone();
        f(&mut bytes);
        if bytes != before {
            self.disk.lay_over(addr, bytes);
        }
        Ok(())
    }
    pub(crate) fn put(&mut self, addr: u64, bytes: &[u8]) {
        self.disk.lay_over(addr, bytes.into());
    }
    /// Called at the start of each round, when the map is new.
    pub(crate) fn start_round(&mut self) {
        self.cursor = (0, 0);
        self.touched.clear();
    }
    /// Sets the state of a block in the bitmap; nothing happens for a block outside all groups.
    pub(crate) fn set_state(&mut self, st: &mut State, addr: u64, state: BlkState) {
        let Some((g, index)) = st.map.locate(addr) else { return };
        let (byte, shift) = ((index / 4) as usize, 2 * (index % 4));
        let bits = &mut st.map.groups[g].bits;
        bits[byte] = bits[byte] & !(3 << shift) | (state as u8) << shift;
        self.touched.insert(g);
    }
    /// The header of this group is to be written anew.
    pub(crate) fn touch(&mut self, group: usize) {
        self.touched.insert(group);
    }
    /// Takes a block that the bitmap calls free and nobody claims. `None` when there is none.
    pub(crate) fn allocate(&mut self, st: &mut State, kind: BlockKind) -> Option<u64> {
        while let Some(group) = st.map.groups.get(self.cursor.0) {
            let found = (self.cursor.1..group.extent.data)
                .find(|&i| group.state(i) == BlkState::Free && group.kind(i).is_none());
            let Some(index) = found else {
                self.cursor = (self.cursor.0 + 1, 0);
                continue;
            };
            let addr = group.extent.block_at(index).get();
            self.cursor.1 = index + 1;
            st.map.claim(addr, kind);
            let state = if kind == BlockKind::Dinode { BlkState::Dinode } else { BlkState::Used };
            self.set_state(st, addr, state);
            return Some(addr);
        }
        None
    }
    /// Takes `count` free blocks of one group.
    pub(crate) fn allocate_together(&mut self, st: &mut State, count: usize, kind: BlockKind) -> Option<Vec<u64>> {
        for g in 0..st.map.groups.len() {
            let group = &st.map.groups[g];
            let free = (0..group.extent.data).filter(|&i| group.state(i) == BlkState::Free && group.kind(i).is_none());
            let found: Vec<u64> = free.take(count).map(|i| group.extent.block_at(i).get()).collect();
            if found.len() == count {
                for &addr in &found {
                    st.map.claim(addr, kind);
                    self.set_state(st, addr, BlkState::Used);
                }
                return Some(found);
            }
        }
        None
    }
    /// Free blocks that [`allocate`](Self::allocate) would find.
    pub(crate) fn free(&self, st: &State) -> u64 {
        let free = |g: &blockmap::Group| {
            (0..g.extent.data).filter(|&i| g.state(i) == BlkState::Free && g.kind(i).is_none()).count() as u64
        };
        st.map.groups.iter().map(free).sum()
    }
    /// Writes the bitmaps that changed, and makes their headers agree.
    pub(crate) fn settle(&mut self, st: &State) -> Result<(), CheckError> {
        for g in std::mem::take(&mut self.touched) {
            let group = &st.map.groups[g];
            let next = st.map.groups.get(g + 1).map(|next| next.extent.addr.get());
            self.write_group(group.extent, &group.bits, group.igeneration, next)?;
        }
        Ok(())
    }
    /// Lays a group's bitmap and header over the disk, whatever lies there.
    pub(crate) fn write_group(
        &mut self,
        extent: RgrpExtent,
        bits: &[u8],
        igeneration: u64,
        next: Option<u64>,
    ) -> Result<(), CheckError> {
        let (bs, at) = (self.disk.bs, extent.addr.get());
        let counts = blockmap::count(bits);
        let skip = next.map_or(0, |next| u32::try_from(next - at).unwrap_or(0));
        for number in 0..extent.length {
            let (offset, first, len) = extent.bitmap_part(bs, number);
            let part = &bits[first as usize..(first + len) as usize];
            let kind = if number == 0 { MetaType::Rgrp } else { MetaType::Bitmap };
            self.edit(at + u64::from(number), |block| {
                let known = MetaHeader::view_kind(block) == kind as u32;
                if !known {
                    block.fill(0);
                    MetaHeader::init(block, kind);
                }
                MetaHeader::edit(block).format.set(kind.format());
                block[offset..offset + len as usize].copy_from_slice(part);
                if number == 0 {
                    let header = RgrpHeader::edit(block);
                    header.free.set(counts.free);
                    header.dinodes.set(counts.dinodes + counts.unlinked);
                    header.flags.set(header.flags.get() & !RG_MEMORY_ONLY);
                    header.skip.set(skip);
                    header.igeneration.set(igeneration);
                    header.data0.set(extent.data0.get());
                    header.data.set(extent.data);
                    header.bitbytes.set(extent.bitbytes);
                    header.crc.set(header.checksum());
                }
            })?;
        }
        Ok(())
    }
}
