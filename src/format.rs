//! Chapter 1: bytes and their meaning (`docs/FORMAT.md`, ondisk.md).
//!
//! Every structure is a `#[repr(C)]` struct of big-endian integers that is *edited in place*: `T::view(&bytes)` and
//! `T::edit(&mut bytes)` look at the bytes themselves, so what we do not understand survives. Each proves its size.
//! What comes from a disk is checked once, where it enters (`check_*` functions), and trusted inside.

pub mod checksum;
pub mod dinode;
pub mod directory;
pub mod ea;
pub mod header;
pub mod log;
pub mod lvb;
pub mod rgrp;
pub mod superblock;
pub mod system;

pub use dinode::{DiFlags, Dinode};
pub use directory::{Dirent, DirentType, Leaf};
pub use ea::EaHeader;
pub use header::{MAGIC, MetaHeader, MetaType};
pub use log::{LogDescriptor, LogHeader};
pub use rgrp::{RgrpHeader, RindexEntry};
pub use superblock::Superblock;
pub use system::{QuotaChange, QuotaEntry, StatfsChange};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Big-endian integers of the disk.
pub mod be {
    pub use zerocopy::big_endian::{I64, U16, U32, U64};
}

/// A structure that lies at the start of some bytes.
pub trait OnDisk: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned + Sized {
    /// The structure at the start of `bytes`; panics when `bytes` is shorter, so callers pass whole blocks or checked slices.
    fn view(bytes: &[u8]) -> &Self {
        match Self::ref_from_prefix(bytes) {
            Ok((it, _)) => it,
            Err(_) => panic!("{} bytes are too few for a structure of {}", bytes.len(), size_of::<Self>()),
        }
    }
    /// The same, to be edited in place.
    fn edit(bytes: &mut [u8]) -> &mut Self {
        let len = bytes.len();
        match Self::mut_from_prefix(bytes) {
            Ok((it, _)) => it,
            Err(_) => panic!("{len} bytes are too few for a structure of {}", size_of::<Self>()),
        }
    }
}

impl<T: FromBytes + IntoBytes + KnownLayout + Immutable + Unaligned> OnDisk for T {}

/// Reads a big-endian u64 at `offset`; panics when it lies outside, so `offset` must be derived from the block size.
pub fn get_u64(bytes: &[u8], offset: usize) -> u64 {
    be::U64::view(&bytes[offset..]).get()
}

/// Writes a big-endian u64 at `offset`; panics when it lies outside.
pub fn put_u64(bytes: &mut [u8], offset: usize, value: u64) {
    be::U64::edit(&mut bytes[offset..]).set(value);
}

/// Pointer number `index` of a pointer block whose pointers start at `start` (232 in a dinode, 24 elsewhere).
pub fn get_pointer(bytes: &[u8], start: usize, index: usize) -> Option<crate::ids::BlockAddr> {
    crate::ids::BlockAddr::new(get_u64(bytes, start + 8 * index))
}

/// Sets pointer number `index` of a pointer block.
pub fn put_pointer(bytes: &mut [u8], start: usize, index: usize, to: Option<crate::ids::BlockAddr>) {
    put_u64(bytes, start + 8 * index, crate::ids::BlockAddr::raw(to));
}
