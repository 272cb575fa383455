//! Extended attribute records (ondisk.md 6.1).

use super::be;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a record before its name.
pub const EA_HEADER: usize = 16;
/// Longest value.
pub const EA_VALUE_MAX: usize = 65536;
/// `ea_flags`: the last record of its block.
pub const EA_LAST: u8 = 1;

/// `ea_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EaType {
    /// Free for use.
    Unused = 0,
    /// `user.`
    User = 1,
    /// `system.`
    System = 2,
    /// `security.`
    Security = 3,
    /// `trusted.`, format 1802 only.
    Trusted = 4,
}

impl EaType {
    /// The type with this number.
    pub fn from_raw(raw: u8) -> Option<Self> {
        Some(match raw {
            0 => Self::Unused,
            1 => Self::User,
            2 => Self::System,
            3 => Self::Security,
            4 => Self::Trusted,
            _ => return None,
        })
    }
}

/// The fixed part of a record.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct EaHeader {
    /// Distance to the next record; never 0.
    pub rec_len: be::U32,
    /// Bytes of the value.
    pub data_len: be::U32,
    /// Bytes of the name, without prefix.
    pub name_len: u8,
    /// An [`EaType`].
    pub kind: u8,
    /// [`EA_LAST`] or 0.
    pub flags: u8,
    /// 0 = the value is inline; else the number of data blocks.
    pub num_ptrs: u8,
    /// 0.
    pub pad: be::U32,
}
const _: () = assert!(size_of::<EaHeader>() == EA_HEADER);
