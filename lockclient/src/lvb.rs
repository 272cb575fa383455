//! Which way a lock value block travels when a lock changes its mode (dlm.md 1.10).

use crate::mode::Mode;

/// What a grant does with the value block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// The resource's value is returned to the lock.
    Return,
    /// The lock's value is written to the resource.
    Write,
    /// Neither.
    Nothing,
}

/// The direction for a lock granted `from` (none: a new lock) that is granted `to`.
pub fn transfer(from: Option<Mode>, to: Mode) -> Transfer {
    match from {
        None | Some(Mode::Nl) => Transfer::Return,
        Some(Mode::Ex) => Transfer::Write,
        Some(Mode::Pw) if to == Mode::Ex => Transfer::Return,
        Some(Mode::Pw) => Transfer::Write,
        Some(from) if to >= from => Transfer::Return,
        Some(_) => Transfer::Nothing,
    }
}

/// Does an unlock from this mode write the value block?
pub fn unlock_writes(granted: Option<Mode>) -> bool {
    granted >= Some(Mode::Pw)
}

/// Is sequence `a` newer than or as new as `b`, across the wrap of 32 bits?
pub fn sequence_at_least(a: u32, b: u32) -> bool {
    // The difference as a signed number: its top bit says that `a` lies behind.
    a.wrapping_sub(b) < 0x8000_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direction_is_the_published_table() {
        let table = ["RRRRRR", "RRRRRR", ".RRRRR", "..RRRR", "...RRR", "WWWWWR", "WWWWWW"];
        let from = [None].into_iter().chain(Mode::ALL.map(Some));
        for (from, row) in from.zip(table) {
            for (to, cell) in Mode::ALL.into_iter().zip(row.chars()) {
                let letter = match transfer(from, to) {
                    Transfer::Return => 'R',
                    Transfer::Write => 'W',
                    Transfer::Nothing => '.',
                };
                assert_eq!(letter, cell, "{from:?} -> {to:?}");
            }
        }
    }

    #[test]
    fn sequences_wrap() {
        assert!(sequence_at_least(5, 5) && sequence_at_least(6, 5) && !sequence_at_least(5, 6));
        assert!(sequence_at_least(2, u32::MAX) && !sequence_at_least(u32::MAX, 2));
    }
}
