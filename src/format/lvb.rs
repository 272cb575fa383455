//! Lock value blocks (ondisk.md 3.5, 9.4, 10.1).

use super::be;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Value block of an rgrp's lock.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RgrpLvb {
    /// [`super::MAGIC`] when the rest is valid.
    pub magic: be::U32,
    /// Copy of rg_flags.
    pub flags: be::U32,
    /// Free blocks.
    pub free: be::U32,
    /// Dinodes.
    pub dinodes: be::U32,
    /// Next generation.
    pub igeneration: be::U64,
    /// Unlinked dinodes.
    pub unlinked: be::U32,
    /// 0.
    pub pad: be::U32,
}
const _: () = assert!(size_of::<RgrpLvb>() == 32);

/// Value block of an inode's lock.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct InodeLvb {
    /// [`super::MAGIC`] when the rest is valid.
    pub magic: be::U32,
    /// 0.
    pub pad: be::U32,
    /// Lives up to this formal number are over.
    pub generation_deleted: be::U64,
}
const _: () = assert!(size_of::<InodeLvb>() == 16);

/// Value block of a quota lock.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct QuotaLvb {
    /// [`super::MAGIC`] when the rest is valid.
    pub magic: be::U32,
    /// 0.
    pub pad: be::U32,
    /// Hard limit.
    pub limit: be::I64,
    /// Warning level.
    pub warn: be::I64,
    /// Blocks in use.
    pub value: be::I64,
}
const _: () = assert!(size_of::<QuotaLvb>() == 32);
