//! Searching a 2-bit map: pure functions over the bytes of one bitmap area (ondisk.md 3.3).
//!
//! Entry `i` is the two bits `2·(i mod 4)` of byte `i/4`, so that a word of eight bytes, least significant first, holds 32
//! entries in order: a search looks at 32 of them at a time and finds its entry by counting trailing zeros.

use crate::ids::BlkState;

/// The low bit of each of the 32 pairs of a word.
const LOW: u64 = 0x5555_5555_5555_5555;

/// State of entry `index`.
pub(super) fn get(map: &[u8], index: u32) -> BlkState {
    BlkState::from_bits(map[(index / 4) as usize] >> (2 * (index % 4)))
}

/// Sets entries `from..to`.
pub(super) fn fill(map: &mut [u8], from: u32, to: u32, state: BlkState) {
    let mut at = from;
    while at < to {
        let byte = &mut map[(at / 4) as usize];
        if at.is_multiple_of(4) && at + 4 <= to {
            *byte = state as u8 * 0x55;
            at += 4;
        } else {
            let shift = 2 * (at % 4);
            *byte = *byte & !(3 << shift) | (state as u8) << shift;
            at += 1;
        }
    }
}

/// Word `n` of the map, zeros beyond its end.
#[allow(clippy::little_endian_bytes, reason = "the first entry of a byte is in its lowest bits, on every machine")]
fn word(map: &[u8], n: u32) -> u64 {
    let rest = &map[(8 * n as usize).min(map.len())..];
    match rest.first_chunk::<8>() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes[..rest.len()].copy_from_slice(rest);
            u64::from_le_bytes(bytes)
        }
    }
}

/// The low bit of each pair of the word that is in `state`.
fn matches(word: u64, state: BlkState) -> u64 {
    let differs = word ^ (state as u64).wrapping_mul(LOW);
    !(differs | differs >> 1) & LOW
}

/// First entry in `from..to` whose being in `state` is `wanted`.
fn search(map: &[u8], from: u32, to: u32, state: BlkState, wanted: bool) -> Option<u32> {
    let mut n = from / 32;
    let mut mask = LOW << (2 * (from % 32));
    while n * 32 < to {
        let hits = matches(word(map, n), state);
        let hits = if wanted { hits } else { !hits } & mask;
        if hits != 0 {
            let at = n * 32 + hits.trailing_zeros() / 2;
            return (at < to).then_some(at);
        }
        mask = LOW;
        n += 1;
    }
    None
}

/// First entry of `state` in `from..to`.
pub(super) fn find(map: &[u8], from: u32, to: u32, state: BlkState) -> Option<u32> {
    search(map, from, to, state, true)
}

/// Number of entries from `from` on that are all `state`, at most up to `to`.
pub(super) fn run(map: &[u8], from: u32, to: u32, state: BlkState) -> u32 {
    search(map, from, to, state, false).unwrap_or(to).saturating_sub(from)
}

/// How many of the entries below `to` are in `state`.
pub(super) fn count(map: &[u8], to: u32, state: BlkState) -> u32 {
    let whole: u32 = (0..to / 32).map(|n| matches(word(map, n), state).count_ones()).sum();
    let rest = matches(word(map, to / 32), state) & !(u64::MAX << (2 * (to % 32)));
    whole + rest.count_ones()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn maps() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(0u8), Just(0x55), Just(0xaa), Just(0xff), any::<u8>()];
        proptest::collection::vec(byte, 1..40)
    }

    #[test]
    fn the_worked_example() {
        // ondisk.md 3.3: the tiny image's first and last bytes.
        assert_eq!(get(&[0x57, 0x55], 0), BlkState::Dinode);
        assert_eq!(get(&[0x57, 0x55], 1), BlkState::Used);
        assert_eq!((0..4).map(|i| get(&[0xf5], i) as u8).collect::<Vec<_>>(), [1, 1, 3, 3]);
    }

    proptest! {
        #[test]
        fn as_a_naive_search(map in maps(), from in 0u32..170, to in 0u32..170, state in 0u8..4) {
            let to = to.min(map.len() as u32 * 4);
            let state = BlkState::from_bits(state);
            let naive = (from..to).find(|&i| get(&map, i) == state);
            prop_assert_eq!(find(&map, from, to, state), naive);
            let naive = (from..to).take_while(|&i| get(&map, i) == state).count() as u32;
            prop_assert_eq!(run(&map, from, to, state), naive);
            let naive = (0..to).filter(|&i| get(&map, i) == state).count() as u32;
            prop_assert_eq!(count(&map, to, state), naive);
        }

        #[test]
        fn filling_changes_those_entries(mut map in maps(), a in 0u32..160, b in 0u32..160, state in 0u8..4) {
            let entries = map.len() as u32 * 4;
            let (from, to) = (a.min(b).min(entries), a.max(b).min(entries));
            let before: Vec<BlkState> = (0..entries).map(|i| get(&map, i)).collect();
            fill(&mut map, from, to, BlkState::from_bits(state));
            for (i, old) in (0..).zip(before) {
                let want = if (from..to).contains(&i) { BlkState::from_bits(state) } else { old };
                prop_assert_eq!(get(&map, i), want);
            }
        }
    }
}
