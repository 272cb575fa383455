//! Which blocks were met.

use std::collections::HashMap;

/// Blocks for which one piece answers.
const PIECE: u64 = 4096;

/// A set of block numbers: a bit for each block, in pieces that exist where something is.
#[derive(Default)]
pub(super) struct Seen {
    pieces: HashMap<u64, Box<[u64; (PIECE / 64) as usize]>>,
}

impl Seen {
    /// True when it was not in the set.
    pub(super) fn insert(&mut self, block: u64) -> bool {
        let piece = self.pieces.entry(block / PIECE).or_insert_with(|| Box::new([0; (PIECE / 64) as usize]));
        let word = &mut piece[(block % PIECE / 64) as usize];
        let fresh = *word >> (block % 64) & 1 == 0;
        *word |= 1 << (block % 64);
        fresh
    }

    pub(super) fn has(&self, block: u64) -> bool {
        self.pieces
            .get(&(block / PIECE))
            .is_some_and(|piece| piece[(block % PIECE / 64) as usize] >> (block % 64) & 1 == 1)
    }
}
