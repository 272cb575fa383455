//! The arithmetic of the indirect tree (ondisk.md 4.4): heights, paths, ranges. Pure; nothing here reads a block.
//!
//! A tree of height `h` has pointer blocks at the levels `0..h`: level 0 is the dinode, the pointers of level `h-1` address
//! data. One pointer of level `L` covers `span(h, L) = inptrs^(h-1-L)` file blocks.
//!
//! ```text
//! bs 4096, file block 268435456 (1 TiB), height 4:  slot 2 of the dinode, then 18, 54, 54
//! 268435456 = ((2*509 + 18)*509 + 54)*509 + 54
//! ```

use crate::ids::{BlockSize, FileBlock};

/// No tree is higher than this (bs 512).
pub(crate) const HEIGHT_LIMIT: u16 = 10;

/// The numbers of a block size that the tree depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Pointers in a dinode.
    pub(crate) diptrs: u64,
    /// Pointers in an indirect block.
    pub(crate) inptrs: u64,
    max_height: u16,
}

impl Shape {
    /// The shape of trees on a volume of this block size.
    pub(crate) fn new(bs: BlockSize) -> Self {
        let (diptrs, inptrs) = (bs.dinode_pointers() as u64, bs.indirect_pointers() as u64);
        let mut max_height = 1;
        let mut bytes = bs.bytes() as u64 * diptrs;
        while let Some(next) = bytes.checked_mul(inptrs) {
            bytes = next;
            max_height += 1;
        }
        Self { diptrs, inptrs, max_height: (max_height + 1).min(HEIGHT_LIMIT) }
    }
    /// The greatest height the format allows; a file of this height has no other size limit than 2^63-1.
    pub(crate) fn max_height(&self) -> u16 {
        self.max_height
    }
    /// inptrs^n, saturating.
    fn power(&self, n: u16) -> u64 {
        (0..n).fold(1u64, |p, _| p.saturating_mul(self.inptrs))
    }
    /// File blocks that a tree of this height (≥ 1) can map.
    pub(crate) fn capacity(&self, height: u16) -> u64 {
        self.diptrs.saturating_mul(self.power(height.saturating_sub(1)))
    }
    /// The least height whose tree maps this block.
    pub(crate) fn height_for(&self, block: FileBlock) -> u16 {
        (1..self.max_height).find(|&h| block.0 < self.capacity(h)).unwrap_or(self.max_height)
    }
    /// File blocks under one pointer of level `level`.
    pub(crate) fn span(&self, height: u16, level: u16) -> u64 {
        self.power(height.saturating_sub(1).saturating_sub(level))
    }
    /// Pointers in a block of this level.
    pub(crate) fn slots(&self, level: u16) -> u64 {
        if level == 0 { self.diptrs } else { self.inptrs }
    }
    /// The slots that lead to `block`, from level 0 on; `None` when it lies beyond the tree.
    pub(crate) fn path(&self, height: u16, block: FileBlock) -> Option<Path> {
        if height == 0 || height > HEIGHT_LIMIT || block.0 >= self.capacity(height) {
            return None;
        }
        let mut slots = [0u16; HEIGHT_LIMIT as usize];
        let mut rest = block.0;
        for level in (1..height).rev() {
            slots[usize::from(level)] = (rest % self.inptrs) as u16;
            rest /= self.inptrs;
        }
        slots[0] = rest as u16;
        Some(Path { slots, height })
    }
    /// How many pointer blocks of height `k` above the data (1 = lowest level) the file blocks `a..=b` touch.
    pub(crate) fn touched(&self, k: u16, a: u64, b: u64) -> u64 {
        let each = self.power(k);
        (b / each).saturating_sub(a / each) + 1
    }
    /// True when some block of `a..` lies under pointer block number 0 of height `k` above the data.
    pub(crate) fn starts_in_first(&self, k: u16, a: u64) -> bool {
        a < self.power(k)
    }
}

/// One slot per level, down to a file block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    slots: [u16; HEIGHT_LIMIT as usize],
    height: u16,
}

impl Path {
    /// The slot at `level`.
    pub(crate) fn slot(&self, level: u16) -> usize {
        usize::from(self.slots[usize::from(level)])
    }
    /// The slot in the block that points to data.
    pub(crate) fn last(&self) -> usize {
        self.slot(self.height - 1)
    }
}

/// The slots of a pointer block that a range of file blocks touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// First slot.
    pub(crate) first: u64,
    /// First slot after them.
    pub(crate) end: u64,
    /// True when the range covers all that the block maps.
    pub(crate) whole: bool,
}

impl Shape {
    /// The part of the pointer block at `level`, whose first file block is `base`, that `from..to` touches; `None` when it
    /// touches nothing.
    pub(crate) fn part(&self, height: u16, level: u16, base: u64, from: u64, to: u64) -> Option<Part> {
        let (span, slots) = (self.span(height, level), self.slots(level));
        let past = base.saturating_add(span.saturating_mul(slots));
        if from >= past || to <= base || from >= to {
            return None;
        }
        let first = from.saturating_sub(base) / span;
        let end = (to - base).div_ceil(span).min(slots);
        Some(Part { first, end, whole: from <= base && to >= past })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(bs: u32) -> Shape {
        Shape::new(BlockSize::new(bs).expect("legal"))
    }

    #[test]
    fn the_table_of_the_specification() {
        let rows: [(u32, u64, u64, &[u64], u16); 5] = [
            (512, 35, 61, &[17_920, 1_093_120, 66_680_320, 4_067_499_520], 10),
            (1024, 99, 125, &[101_376, 12_672_000, 1_584_000_000, 198_000_000_000], 8),
            (2048, 227, 253, &[464_896, 117_618_688, 29_757_528_064, 7_528_654_600_192], 7),
            (4096, 483, 509, &[1_978_368, 1_006_989_312, 512_557_559_808, 260_891_797_942_272], 6),
            (65536, 8163, 8189, &[534_970_368, 4_380_872_343_552, 35_874_963_621_347_328], 4),
        ];
        for (bs, diptrs, inptrs, sizes, max) in rows {
            let s = shape(bs);
            assert_eq!((s.diptrs, s.inptrs, s.max_height()), (diptrs, inptrs, max));
            for (h, &bytes) in (1..).zip(sizes) {
                let blocks = bytes / u64::from(bs);
                assert_eq!(s.capacity(h), blocks);
                assert_eq!((s.height_for(FileBlock(blocks - 1)), s.height_for(FileBlock(blocks))), (h, h + 1));
            }
            let last = (i64::MAX as u64) / u64::from(bs);
            assert_eq!(s.height_for(FileBlock(last)), max);
            assert!(s.path(max, FileBlock(last)).is_some(), "the largest file has a place for its last block");
        }
    }

    #[test]
    fn the_worked_example() {
        let s = shape(4096);
        let block = FileBlock((1 << 40) >> 12);
        assert_eq!(s.height_for(block), 4);
        let path = s.path(4, block).expect("within the tree");
        assert_eq!([0, 1, 2, 3].map(|l| path.slot(l)), [2, 18, 54, 54]);
        assert_eq!(path.last(), 54);
        assert_eq!(s.path(3, block), None);
    }

    #[test]
    fn paths_count_up() {
        let s = shape(512);
        for block in (0..200_000u64).step_by(977) {
            let h = s.height_for(FileBlock(block)).max(4);
            let path = s.path(h, FileBlock(block)).expect("within the tree");
            let back = (0..h).fold(0u64, |n, l| n + path.slot(l) as u64 * s.span(h, l));
            assert_eq!(back, block);
        }
    }

    #[test]
    fn parts_of_a_range() {
        let s = shape(512);
        // Height 2: each slot of the dinode covers 61 blocks.
        assert_eq!(s.part(2, 0, 0, 61, 123), Some(Part { first: 1, end: 3, whole: false }));
        assert_eq!(s.part(2, 1, 61, 61, 123), Some(Part { first: 0, end: 61, whole: true }));
        assert_eq!(s.part(2, 1, 122, 61, 123), Some(Part { first: 0, end: 1, whole: false }));
        assert_eq!(s.part(2, 1, 183, 61, 123), None);
        assert_eq!(s.part(2, 0, 0, 5, u64::MAX), Some(Part { first: 0, end: 35, whole: false }));
        assert_eq!(s.part(10, 0, 0, 0, u64::MAX).map(|p| p.whole), Some(true));
        assert_eq!((s.touched(1, 60, 61), s.touched(2, 60, 61), s.touched(1, 0, 60)), (2, 1, 1));
    }
}
