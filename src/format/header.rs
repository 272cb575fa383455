//! The header that every metadata block starts with (ondisk.md 1.3).

use super::{OnDisk, be};
use crate::error::{Corrupt, CorruptKind};
use crate::ids::{BlockAddr, Jid};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First word of every metadata block.
pub const MAGIC: u32 = 0x0116_1970;

/// Format number of directory entries, found in `payload_format` and `lf_dirent_format`.
pub const FORMAT_DIRENT: u32 = 1200;
/// Format number of the rindex file's payload.
pub const FORMAT_RINDEX: u32 = 1100;
/// Format number of the quota file's payload.
pub const FORMAT_QUOTA: u32 = 1500;

/// Kind of a metadata block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MetaType {
    /// Superblock.
    Superblock = 1,
    /// First block of a resource group.
    Rgrp = 2,
    /// Further bitmap block of a resource group.
    Bitmap = 3,
    /// Dinode.
    Dinode = 4,
    /// Indirect block.
    Indirect = 5,
    /// Directory leaf.
    Leaf = 6,
    /// Payload block of a directory's hash table.
    JournaledData = 7,
    /// Log header.
    LogHeader = 8,
    /// Log descriptor.
    LogDescriptor = 9,
    /// Extended attribute block.
    EaBlock = 10,
    /// Extended attribute data block.
    EaData = 11,
    /// Continuation of a revoke descriptor.
    LogContinuation = 12,
    /// Block of a quota_change file.
    QuotaChange = 14,
}

impl MetaType {
    /// The type with this number.
    pub fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            1 => Self::Superblock,
            2 => Self::Rgrp,
            3 => Self::Bitmap,
            4 => Self::Dinode,
            5 => Self::Indirect,
            6 => Self::Leaf,
            7 => Self::JournaledData,
            8 => Self::LogHeader,
            9 => Self::LogDescriptor,
            10 => Self::EaBlock,
            11 => Self::EaData,
            12 => Self::LogContinuation,
            14 => Self::QuotaChange,
            _ => return None,
        })
    }
    /// The format number that goes with the type.
    pub fn format(self) -> u32 {
        match self {
            Self::Superblock => 100,
            Self::Rgrp => 200,
            Self::Bitmap => 300,
            Self::Dinode => 400,
            Self::Indirect => 500,
            Self::Leaf => 600,
            Self::JournaledData => 700,
            Self::LogHeader => 800,
            Self::LogDescriptor => 900,
            Self::EaBlock => 1600,
            Self::EaData => 1700,
            Self::LogContinuation => 1000,
            Self::QuotaChange => 1400,
        }
    }
}

/// The 24-byte header.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct MetaHeader {
    /// [`MAGIC`].
    pub magic: be::U32,
    /// A [`MetaType`].
    pub kind: be::U32,
    /// Always 0; rewritten as 0 whenever the block is journalled.
    pub pad0: be::U64,
    /// Format number of the type.
    pub format: be::U32,
    /// Journal id of the node that last journalled the block; informational.
    pub jid: be::U32,
}
const _: () = assert!(size_of::<MetaHeader>() == 24);

impl MetaHeader {
    /// A fresh header of this type, jid 0.
    pub fn new(kind: MetaType) -> Self {
        Self {
            magic: MAGIC.into(),
            kind: (kind as u32).into(),
            pad0: 0.into(),
            format: kind.format().into(),
            jid: 0.into(),
        }
    }
    /// Writes a fresh header over the first 24 bytes of `block`.
    pub fn init(block: &mut [u8], kind: MetaType) {
        *Self::edit(block) = Self::new(kind);
    }
    /// What is done to a block when it enters a transaction: pad0 cleared, jid stamped.
    pub fn stamp(block: &mut [u8], jid: Jid) {
        let header = Self::edit(block);
        header.pad0.set(0);
        header.jid.set(jid.0);
    }
    /// True when the block starts with the magic.
    pub fn has_magic(block: &[u8]) -> bool {
        Self::view(block).magic.get() == MAGIC
    }
    /// The type number found in `block`; 0 when it does not start with the magic.
    pub fn view_kind(block: &[u8]) -> u32 {
        let header = Self::view(block);
        if header.magic.get() == MAGIC { header.kind.get() } else { 0 }
    }
    /// Checks magic and type, the two things readers check.
    pub fn check(block: &[u8], at: BlockAddr, wanted: MetaType) -> Result<(), Corrupt> {
        let header = Self::view(block);
        let found = if header.magic.get() == MAGIC { header.kind.get() } else { 0 };
        if found == wanted as u32 {
            return Ok(());
        }
        Err(Corrupt { at, what: CorruptKind::MetaType { wanted: wanted as u32, found } })
    }
}
