//! Searching a 2-bit map: pure functions over the bytes of one bitmap part (ondisk.md 3.3).

use crate::ids::BlkState;

/// State of entry `index`.
pub(super) fn get(map: &[u8], index: u32) -> BlkState {
    BlkState::from_bits(map[(index / 4) as usize] >> (2 * (index % 4)))
}

/// Sets entry `index`.
pub(super) fn set(map: &mut [u8], index: u32, state: BlkState) {
    let shift = 2 * (index % 4);
    let byte = &mut map[(index / 4) as usize];
    *byte = *byte & !(3 << shift) | (state as u8) << shift;
}

/// First entry of `state` in `from..to`.
pub(super) fn find(map: &[u8], from: u32, to: u32, state: BlkState) -> Option<u32> {
    let pattern = (state as u8) * 0x55;
    let mut at = from;
    while at < to {
        if at % 4 == 0 {
            // Whole bytes that hold none of this state are passed over, eight at a time where possible.
            let byte = (at / 4) as usize;
            if at + 32 <= to {
                if let Some(word) = map.get(byte..byte + 8).and_then(|b| b.first_chunk::<8>()) {
                    if !has(u64::from_be_bytes(*word) ^ (u64::from(pattern) * 0x0101_0101_0101_0101)) {
                        at += 32;
                        continue;
                    }
                }
            }
            if at + 4 <= to && !has(u64::from(map[byte] ^ pattern) | 0xffff_ffff_ffff_ff00) {
                at += 4;
                continue;
            }
        }
        if get(map, at) == state {
            return Some(at);
        }
        at += 1;
    }
    None
}

/// True when one of the 32 pairs is 00.
fn has(word: u64) -> bool {
    let low = 0x5555_5555_5555_5555;
    (word | word >> 1) & low != low
}

/// Number of entries from `from` on that are all `state`, at most up to `to`.
pub(super) fn run(map: &[u8], from: u32, to: u32, state: BlkState) -> u32 {
    let whole = (state as u8) * 0x55;
    let mut at = from;
    while at < to {
        if at % 4 == 0 && at + 4 <= to && map[(at / 4) as usize] == whole {
            at += 4;
            continue;
        }
        if get(map, at) != state {
            break;
        }
        at += 1;
    }
    at - from
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn as_a_naive_search(bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(0x55), Just(0xff), any::<u8>()], 1..40), from in 0u32..160, to in 0u32..160, state in 0u8..4) {
            let to = to.min(bytes.len() as u32 * 4);
            let state = BlkState::from_bits(state);
            let naive = (from..to).find(|&i| get(&bytes, i) == state);
            prop_assert_eq!(find(&bytes, from, to, state), naive);
            if from < to {
                let naive = (from..to).take_while(|&i| get(&bytes, i) == state).count() as u32;
                prop_assert_eq!(run(&bytes, from, to, state), naive);
            }
        }

        #[test]
        fn setting_changes_one_entry(mut bytes in proptest::collection::vec(any::<u8>(), 1..10), index in 0u32..40, state in 0u8..4) {
            let index = index % (bytes.len() as u32 * 4);
            let before: Vec<BlkState> = (0..bytes.len() as u32 * 4).map(|i| get(&bytes, i)).collect();
            set(&mut bytes, index, BlkState::from_bits(state));
            for (i, old) in before.iter().enumerate() {
                let want = if i as u32 == index { BlkState::from_bits(state) } else { *old };
                prop_assert_eq!(get(&bytes, i as u32), want);
            }
        }
    }
}
