//! Contents of the system files (ondisk.md 7).

use super::be;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `statfs` and `statfs_change`: totals or a node's delta.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct StatfsChange {
    /// Data blocks of all rgrps.
    pub total: be::I64,
    /// Free ones.
    pub free: be::I64,
    /// Dinodes.
    pub dinodes: be::I64,
}
const _: () = assert!(size_of::<StatfsChange>() == 24);

/// An entry of the quota file. All numbers in filesystem blocks.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct QuotaEntry {
    /// Hard limit, 0 = none.
    pub limit: be::U64,
    /// Warning level, 0 = none.
    pub warn: be::U64,
    /// Blocks in use.
    pub value: be::I64,
    /// 0.
    pub reserved: [be::U64; 8],
}
const _: () = assert!(size_of::<QuotaEntry>() == 88);

/// `qc_flags`: the id is a user's.
pub const QC_USER: u32 = 1;

/// A slot of a quota_change file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct QuotaChange {
    /// Blocks not yet added to the quota file; 0 = the slot is free.
    pub change: be::I64,
    /// [`QC_USER`] or 0.
    pub flags: be::U32,
    /// uid or gid.
    pub id: be::U32,
}
const _: () = assert!(size_of::<QuotaChange>() == 16);

/// `inum_range`: historic allocator of formal numbers.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct InumRange {
    /// First number.
    pub start: be::U64,
    /// How many.
    pub length: be::U64,
}
const _: () = assert!(size_of::<InumRange>() == 16);
