//! The six lock modes, which of them live together, and what a change from one to another is called.
//!
//! "No mode" (the protocol's IV, -1) is `None`: `Option<Mode>` is one byte, like the mode itself.

/// A lock mode, weakest first. The numbers are the protocol's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Mode {
    /// Null: holds the place (and the value block), excludes nobody.
    Nl = 0,
    /// Concurrent read: excludes only EX.
    Cr = 1,
    /// Concurrent write: shares with NL, CR and other CW.
    Cw = 2,
    /// Protected read: shares with NL, CR and other PR.
    Pr = 3,
    /// Protected write: shares with NL and CR.
    Pw = 4,
    /// Exclusive: shares with NL alone.
    Ex = 5,
}

use Mode::{Cr, Cw, Ex, Nl, Pr, Pw};

impl Mode {
    /// Every mode, weakest first.
    pub const ALL: [Mode; 6] = [Nl, Cr, Cw, Pr, Pw, Ex];

    /// The mode of a protocol number 0..=5.
    pub fn from_number(number: i32) -> Option<Mode> {
        usize::try_from(number).ok().and_then(|i| Self::ALL.get(i).copied())
    }

    /// The protocol number.
    pub fn number(self) -> i32 {
        i32::from(self as u8)
    }

    /// May both modes be granted on one resource together?
    pub fn compatible(self, other: Mode) -> bool {
        // One bit per mode, NL lowest: the rows of the table in dlm.md 1.2.
        const SHARES: [u8; 6] = [0b11_1111, 0b01_1111, 0b00_0111, 0b00_1011, 0b00_0011, 0b00_0001];
        SHARES[self as usize] & (1 << other as u8) != 0
    }
}

/// As [`Mode::compatible`], with "no mode" compatible with everything.
pub fn compatible(a: Option<Mode>, b: Option<Mode>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.compatible(b),
        _ => true,
    }
}

/// The protocol number of a mode or of none (-1).
pub fn number(mode: Option<Mode>) -> i32 {
    mode.map_or(-1, Mode::number)
}

/// PR and CW are neither stronger nor weaker than one another; a change between them is "middle".
pub fn middle_conversion(granted: Option<Mode>, requested: Option<Mode>) -> bool {
    matches!((granted, requested), (Some(Pr), Some(Cw)) | (Some(Cw), Some(Pr)))
}

/// Gives something up: always grantable, and therefore never answered by the master.
pub fn down_conversion(granted: Option<Mode>, requested: Option<Mode>) -> bool {
    requested < granted && !middle_conversion(granted, requested)
}

/// May a conversion between these modes ask to queue behind others (QUECVT)?
pub fn may_queue_convert(granted: Mode, requested: Mode) -> bool {
    match granted {
        Nl => requested >= Cr,
        Cr => requested >= Cw,
        Cw => requested >= Pr,
        Pr => matches!(requested, Cw | Pw | Ex),
        Pw => requested == Ex,
        Ex => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compatibility_is_the_published_table() {
        let table = ["yyyyyy", "yyyyy-", "yyy---", "yy-y--", "yy----", "y-----"];
        for (a, row) in Mode::ALL.iter().zip(table) {
            for (b, cell) in Mode::ALL.iter().zip(row.chars()) {
                assert_eq!(a.compatible(*b), cell == 'y', "{a:?} {b:?}");
                assert_eq!(a.compatible(*b), b.compatible(*a));
            }
        }
        assert!(compatible(None, Some(Ex)));
    }

    #[test]
    fn conversions_are_classed() {
        assert!(middle_conversion(Some(Pr), Some(Cw)) && middle_conversion(Some(Cw), Some(Pr)));
        assert!(!down_conversion(Some(Pr), Some(Cw)));
        assert!(down_conversion(Some(Ex), Some(Nl)) && down_conversion(Some(Pw), Some(Cw)));
        assert!(!down_conversion(Some(Ex), Some(Ex)) && !down_conversion(None, Some(Nl)));
        let quecvt = ["CR CW PR PW EX", "CW PR PW EX", "PR PW EX", "CW PW EX", "EX", ""];
        for (granted, row) in Mode::ALL.iter().zip(quecvt) {
            for requested in Mode::ALL {
                let name = format!("{requested:?}").to_uppercase();
                assert_eq!(may_queue_convert(*granted, requested), row.contains(&name), "{granted:?} {requested:?}");
            }
        }
    }

    #[test]
    fn numbers() {
        for mode in Mode::ALL {
            assert_eq!(Mode::from_number(mode.number()), Some(mode));
        }
        assert_eq!((Mode::from_number(-1), Mode::from_number(6), number(None)), (None, None, -1));
    }
}
