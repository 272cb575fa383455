//! Log room: what a group costs (ondisk.md 8.3, 8.6). Pure arithmetic.

use crate::ids::BlockSize;

/// Log room an operation asks for: an upper bound of the blocks it will change and of the blocks it will free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    /// Metadata and journaled data blocks that may be changed.
    pub blocks: u32,
    /// Metadata or journaled data blocks that may be freed.
    pub revokes: u32,
}

impl Reserve {
    /// Room for this many changed blocks, nothing freed.
    pub fn blocks(blocks: u32) -> Self {
        Self { blocks, revokes: 0 }
    }
    /// With room for `revokes` freed blocks.
    pub fn with_revokes(self, revokes: u32) -> Self {
        Self { revokes, ..self }
    }
}

/// Items per descriptor, by block size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Costs {
    /// Metadata addresses in a descriptor; also the revokes in one.
    pub(super) meta: usize,
    /// Journaled data blocks in a descriptor.
    pub(super) jdata: usize,
    /// Revokes in a continuation block.
    pub(super) more_revokes: usize,
}

impl Costs {
    pub(super) fn new(bs: BlockSize) -> Self {
        let room = bs.bytes() - crate::format::log::LD_ITEMS;
        Self { meta: room / 8, jdata: room / 16, more_revokes: bs.payload() / 8 }
    }
    /// Blocks of a revoke section.
    pub(super) fn revoke_blocks(self, revokes: usize) -> usize {
        match revokes {
            0 => 0,
            n => 1 + n.saturating_sub(self.meta).div_ceil(self.more_revokes),
        }
    }
    /// Blocks of a group without its header.
    pub(super) fn body(self, meta: usize, jdata: usize, revokes: usize) -> usize {
        meta + meta.div_ceil(self.meta) + jdata + jdata.div_ceil(self.jdata) + self.revoke_blocks(revokes)
    }
    /// Upper bound for a group, header included, of which only the sums are known: however many of the `blocks` turn out
    /// to be journaled data, and however it is put together, [`body`](Self::body) + 1 is no more than this, and the bound of
    /// a part is no more than that of the whole. Nothing costs nothing.
    pub(super) fn bound(self, blocks: usize, revokes: usize) -> usize {
        if blocks == 0 && revokes == 0 {
            return 0;
        }
        blocks + blocks.div_ceil(self.jdata) + 1 + self.revoke_blocks(revokes) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_of_the_specification() {
        let c = Costs::new(BlockSize::new(4096).expect("legal"));
        assert_eq!((c.meta, c.jdata, c.more_revokes), (503, 251, 509));
        assert_eq!((c.revoke_blocks(503), c.revoke_blocks(504), c.revoke_blocks(2507)), (1, 2, 5));
        assert_eq!(c.body(7, 0, 0), 8);
    }

    #[test]
    fn the_bound_is_one() {
        for bs in [512, 1024, 4096] {
            let c = Costs::new(BlockSize::new(bs).expect("legal"));
            for blocks in (0..2000).step_by(7) {
                for jdata in (0..=blocks).step_by(31) {
                    for revokes in [0, 1, 60, 503, 504, 3000] {
                        let real = c.body(blocks - jdata, jdata, revokes);
                        assert!(real == 0 || real < c.bound(blocks, revokes));
                    }
                }
            }
        }
    }
}
