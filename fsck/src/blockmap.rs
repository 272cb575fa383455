//! What the bitmaps say about each block, and what the inodes make of it.

use gfs2r::format::rgrp::RgrpExtent;
use gfs2r::ids::{BlkState, BlockAddr};
use std::cell::Cell;
use std::fmt;

/// What an inode uses a block for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum BlockKind {
    /// Its dinode.
    Dinode = 1,
    /// An indirect block of its tree.
    Indirect = 2,
    /// File data.
    Data = 3,
    /// A piece of a directory's hash table.
    Table = 4,
    /// A directory leaf.
    Leaf = 5,
    /// A block of attribute records.
    EaBlock = 6,
    /// A block of an attribute's value.
    EaData = 7,
    /// The index of attribute blocks.
    EaIndex = 8,
    /// Data of a file whose data goes through the journal.
    JournaledData = 9,
}

impl BlockKind {
    fn from_raw(raw: u8) -> Option<Self> {
        Some(match raw {
            1 => Self::Dinode,
            2 => Self::Indirect,
            3 => Self::Data,
            4 => Self::Table,
            5 => Self::Leaf,
            6 => Self::EaBlock,
            7 => Self::EaData,
            8 => Self::EaIndex,
            9 => Self::JournaledData,
            _ => return None,
        })
    }
}

impl fmt::Display for BlockKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dinode => "a dinode",
            Self::Indirect => "an indirect block",
            Self::Data => "file data",
            Self::JournaledData => "journaled file data",
            Self::Table => "a hash table block",
            Self::Leaf => "a directory leaf",
            Self::EaBlock => "an attribute block",
            Self::EaData => "an attribute value",
            Self::EaIndex => "an attribute index",
        })
    }
}

/// A resource group: its place, its bitmap, what its header says, and what its blocks turned out to be.
pub(crate) struct Group {
    pub(crate) extent: RgrpExtent,
    /// The concatenated bitmap.
    pub(crate) bits: Vec<u8>,
    /// One [`BlockKind`] per data block in four bits, the even block in the lower ones; 0 = nobody's. Empty until somebody
    /// claims a block.
    kinds: Vec<u8>,
    /// As the header says.
    pub(crate) header_free: u32,
    /// As the header says.
    pub(crate) header_dinodes: u32,
    pub(crate) igeneration: u64,
    pub(crate) counts: Counts,
}

/// Blocks of a bitmap in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) free: u32,
    pub(crate) unlinked: u32,
    pub(crate) dinodes: u32,
}

/// Counts the states in a bitmap.
pub(crate) fn count(bits: &[u8]) -> Counts {
    let mut counts = Counts::default();
    for &byte in bits {
        // Bit 0 of each pair: USED or DINODE; bit 1: UNLINKED or DINODE.
        let (low, high) = (byte & 0x55, byte >> 1 & 0x55);
        counts.free += 4 - (low | high).count_ones();
        counts.dinodes += (low & high).count_ones();
        counts.unlinked += (!low & high).count_ones();
    }
    counts
}

/// Dinodes in a piece of a bitmap.
pub(crate) fn dinodes_in(bits: &[u8]) -> u32 {
    let (words, rest) = bits.as_chunks();
    // They are counted: the order of the bytes does not matter.
    let words = words.iter().map(|&bytes| u64::from_ne_bytes(bytes));
    let in_words: u32 = words.map(|word| (word & word >> 1 & 0x5555_5555_5555_5555).count_ones()).sum();
    in_words + rest.iter().map(|&byte| (byte & byte >> 1 & 0x55).count_ones()).sum::<u32>()
}

impl Group {
    pub(crate) fn new(extent: RgrpExtent, bits: Vec<u8>) -> Self {
        let counts = count(&bits);
        Self { extent, bits, kinds: Vec::new(), header_free: 0, header_dinodes: 0, igeneration: 0, counts }
    }
    pub(crate) fn state(&self, index: u32) -> BlkState {
        BlkState::from_bits(self.bits[(index / 4) as usize] >> (2 * (index % 4)))
    }
    pub(crate) fn kind(&self, index: u32) -> Option<BlockKind> {
        BlockKind::from_raw(self.kinds.get((index / 2) as usize)? >> (4 * (index % 2)) & 0xf)
    }
    /// Calls a block free, in memory.
    pub(crate) fn clear(&mut self, index: u32) {
        self.bits[(index / 4) as usize] &= !(3 << (2 * (index % 4)));
    }
    /// True when four blocks from `index` on, a multiple of four, are free and nobody's.
    pub(crate) fn is_idle(&self, index: u32) -> bool {
        let at = (index / 2) as usize;
        // The last four may be cut short.
        let kinds = self.kinds.get(at..(at + 2).min(self.kinds.len())).unwrap_or_default();
        self.bits.get((index / 4) as usize) == Some(&0) && kinds.iter().all(|&pair| pair == 0)
    }
    /// Addresses of the blocks that the bitmap calls dinodes, with true for unlinked ones.
    pub(crate) fn dinodes(&self) -> Vec<(u64, bool)> {
        let first = self.extent.data0.get();
        let mut found = Vec::with_capacity((self.counts.dinodes + self.counts.unlinked) as usize);
        for (at, &byte) in self.bits.iter().enumerate().filter(|(_, byte)| **byte & 0xaa != 0) {
            for pair in 0..4 {
                let state = BlkState::from_bits(byte >> (2 * pair));
                if matches!(state, BlkState::Dinode | BlkState::Unlinked) {
                    found.push((first + at as u64 * 4 + pair, state == BlkState::Unlinked));
                }
            }
        }
        found
    }
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// The block is the claimant's now.
    Granted,
    /// Somebody has it already.
    Taken,
    /// No file can own it.
    Outside,
}

/// All resource groups, sorted by address.
#[derive(Default)]
pub(crate) struct BlockMap {
    pub(crate) groups: Vec<Group>,
    recent: Cell<usize>,
}

impl BlockMap {
    pub(crate) fn new(groups: Vec<Group>) -> Self {
        Self { groups, recent: Cell::new(0) }
    }
    /// Forgets all claims.
    pub(crate) fn forget(&mut self) {
        self.groups.iter_mut().for_each(|g| g.kinds.fill(0));
    }
    /// The group and index of a data block.
    pub(crate) fn locate(&self, addr: u64) -> Option<(usize, u32)> {
        let addr = BlockAddr::new(addr)?;
        if let Some(index) = self.groups.get(self.recent.get()).and_then(|g| g.extent.index_of(addr)) {
            return Some((self.recent.get(), index));
        }
        let at = self.groups.partition_point(|g| g.extent.addr <= addr).checked_sub(1)?;
        let index = self.groups[at].extent.index_of(addr)?;
        self.recent.set(at);
        Some((at, index))
    }
    pub(crate) fn contains(&self, addr: u64) -> bool {
        self.locate(addr).is_some()
    }
    /// True for a header or bitmap block of a resource group.
    pub(crate) fn is_bitmap(&self, addr: u64) -> bool {
        let at = self.groups.partition_point(|g| g.extent.addr.get() <= addr);
        at.checked_sub(1).is_some_and(|at| addr < self.groups[at].extent.data0.get())
    }
    pub(crate) fn state(&self, addr: u64) -> Option<BlkState> {
        self.locate(addr).map(|(g, i)| self.groups[g].state(i))
    }
    pub(crate) fn kind(&self, addr: u64) -> Option<BlockKind> {
        self.locate(addr).and_then(|(g, i)| self.groups[g].kind(i))
    }
    pub(crate) fn claim(&mut self, addr: u64, kind: BlockKind) -> Claim {
        let Some((group, index)) = self.locate(addr) else { return Claim::Outside };
        let Group { kinds, extent, .. } = &mut self.groups[group];
        if kinds.is_empty() {
            *kinds = vec![0; (extent.data as usize).div_ceil(2)];
        }
        let place = &mut kinds[(index / 2) as usize];
        let shift = 4 * (index % 2);
        if *place >> shift & 0xf != 0 {
            return Claim::Taken;
        }
        *place |= (kind as u8) << shift;
        Claim::Granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting_states() {
        // 0b11_10_01_00: one of each.
        assert_eq!(count(&[0b1110_0100]), Counts { free: 1, unlinked: 1, dinodes: 1 });
        assert_eq!(count(&[0x55, 0xff, 0]), Counts { free: 4, unlinked: 0, dinodes: 4 });
    }

    #[test]
    fn claims() {
        let block = |n| BlockAddr::new(n).expect("not 0");
        let extent = RgrpExtent { addr: block(17), length: 1, data0: block(18), data: 8, bitbytes: 2 };
        let mut map = BlockMap::new(vec![Group::new(extent, vec![0b1100_0000, 0b0000_0010])]);
        assert_eq!(map.groups[0].dinodes(), [(21, false), (22, true)]);
        assert_eq!(map.claim(17, BlockKind::Data), Claim::Outside);
        assert_eq!(map.claim(26, BlockKind::Data), Claim::Outside);
        assert_eq!(map.claim(25, BlockKind::Leaf), Claim::Granted);
        assert_eq!(map.claim(25, BlockKind::Data), Claim::Taken);
        assert_eq!((map.kind(24), map.kind(25)), (None, Some(BlockKind::Leaf)));
        assert_eq!(map.claim(24, BlockKind::JournaledData), Claim::Granted);
        assert_eq!((map.kind(24), map.kind(25)), (Some(BlockKind::JournaledData), Some(BlockKind::Leaf)));
        assert!(!map.groups[0].is_idle(0) && !map.groups[0].is_idle(4));
        assert!(map.is_bitmap(17) && !map.is_bitmap(18) && !map.is_bitmap(16));
    }
}
