//! Numbers made of a name's hash: the table index, the run of a leaf, the cookie of an entry.

use crate::ids::DirHash;

/// Index into a table of 2^`depth` slots, `depth` in 1..=31: the top bits of the hash.
pub(super) fn index(hash: DirHash, depth: u32) -> u32 {
    hash.0 >> (32 - depth)
}

/// A leaf's slots: `start .. start + len`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// First slot.
    pub(super) start: u32,
    /// How many: a power of two.
    pub(super) len: u32,
}

impl Run {
    /// The run around slot `index` of a leaf of depth `leaf_depth` in a table of depth `depth`; `leaf_depth` ≤ `depth`.
    pub(super) fn around(index: u32, depth: u32, leaf_depth: u32) -> Self {
        let len = 1 << (depth - leaf_depth);
        Self { start: index & !(len - 1), len }
    }
    /// The slot after the last.
    pub(super) fn end(self) -> u32 {
        self.start + self.len
    }
    /// Smallest and largest hash that belong here.
    pub(super) fn bounds(self, depth: u32) -> (u32, u32) {
        let shift = 32 - depth;
        let first = self.start << shift;
        (first, first + (((u64::from(self.len)) << shift) - 1) as u32)
    }
}

/// Bits of a cookie that tell apart names of equal hash.
const MINOR_BITS: u32 = 31;
/// Largest of them; one less than fits, so that "after the last entry" is still a positive `i64`.
const MINOR_MAX: u64 = (1 << MINOR_BITS) - 2;

/// Largest position: what follows it is still a positive `i64`.
pub(super) const POSITION_MAX: u64 = (u32::MAX as u64) << MINOR_BITS | MINOR_MAX;

/// Position of a name in the listing order: its hash, then 31 bits of a hash that has nothing to do with CRC-32.
pub(super) fn position(hash: u32, name: &[u8]) -> u64 {
    u64::from(hash) << MINOR_BITS | minor(name)
}

/// The hash part of a position.
pub(super) fn hash_of_position(position: u64) -> u32 {
    (position >> MINOR_BITS).min(u64::from(u32::MAX)) as u32
}

/// FNV-1a with a final mix.
fn minor(name: &[u8]) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    for &b in name {
        h = (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    h ^= h >> 29;
    (h.wrapping_mul(0xbf58_476d_1ce4_e5b9) >> (64 - MINOR_BITS)).min(MINOR_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::checksum::dir_hash;

    #[test]
    fn runs_are_aligned_and_bounded() {
        let run = Run::around(0b1011, 4, 2);
        assert_eq!(run, Run { start: 0b1000, len: 4 });
        assert_eq!(run.bounds(4), (0x8000_0000, 0xbfff_ffff));
        assert_eq!(Run::around(7, 3, 0).bounds(3), (0, u32::MAX));
    }

    #[test]
    fn positions_order_like_hashes_and_stay_positive() {
        let (a, b) = (dir_hash(b"hello"), dir_hash(b"a"));
        assert!(a < b && position(a.0, b"hello") < position(b.0, b"a"));
        assert_eq!(hash_of_position(position(a.0, b"hello")), a.0);
        assert!(i64::try_from(POSITION_MAX + 1).is_ok());
        assert_eq!(index(a, 8), 0x36);
    }
}
