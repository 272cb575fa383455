//! The superblock (ondisk.md 1.4), 64 KiB into the device.

use super::{MetaHeader, be};
use crate::ids::{BlockAddr, BlockSize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Byte offset of the superblock on the device.
pub const SUPERBLOCK_OFFSET: u64 = 65536;
/// The only multihost format there is.
pub const MULTIHOST_FORMAT: u32 = 1900;
/// Oldest format we know.
pub const FORMAT_MIN: u32 = 1801;
/// Newest format we know.
pub const FORMAT_MAX: u32 = 1802;

/// An inode's identity as it stands on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DiskInum {
    /// Formal inode number.
    pub formal: be::U64,
    /// Address of the dinode.
    pub addr: be::U64,
}

impl DiskInum {
    /// From an identity.
    pub fn new(inum: crate::ids::Inum) -> Self {
        Self { formal: inum.formal.0.into(), addr: inum.addr.get().into() }
    }
    /// The identity; `None` when the address or the formal number is 0.
    pub fn get(&self) -> Option<crate::ids::Inum> {
        let addr = BlockAddr::new(self.addr.get())?;
        let formal = self.formal.get();
        (formal != 0).then_some(crate::ids::Inum { formal: crate::ids::FormalIno(formal), addr })
    }
}

/// The superblock.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Superblock {
    /// Type SB.
    pub header: MetaHeader,
    /// 1801 or 1802.
    pub fs_format: be::U32,
    /// [`MULTIHOST_FORMAT`].
    pub multihost_format: be::U32,
    /// 0.
    pub pad0: be::U32,
    /// Block size in bytes.
    pub bsize: be::U32,
    /// log2 of it.
    pub bsize_shift: be::U32,
    /// 0.
    pub pad1: be::U32,
    /// The master directory.
    pub master_dir: DiskInum,
    /// Once the rindex.
    pub pad2: [u8; 16],
    /// The root directory.
    pub root_dir: DiskInum,
    /// `lock_nolock` or `lock_dlm`, NUL-terminated.
    pub lockproto: [u8; 64],
    /// `cluster:fsname`, NUL-terminated.
    pub locktable: [u8; 64],
    /// Once the quota inode.
    pub pad3: [u8; 16],
    /// Once the licence inode.
    pub pad4: [u8; 16],
    /// UUID in textual order.
    pub uuid: [u8; 16],
}
const _: () = assert!(size_of::<Superblock>() == 272);

/// Why a superblock is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SuperblockError {
    /// No magic, or not of type SB.
    NotGfs2,
    /// The format numbers are not ones we know (fs format, multihost format).
    UnknownFormat(u32, u32),
    /// Not a power of two in 512..=65536.
    BlockSize(u32),
    /// `bsize_shift` disagrees with `bsize`.
    BlockSizeShift(u32, u32),
    /// An address of master or root directory is 0.
    NoRoot,
}

impl std::fmt::Display for SuperblockError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotGfs2 => f.write_str("not a GFS2 filesystem (no superblock at 64 KiB)"),
            Self::UnknownFormat(fs, multi) => {
                write!(f, "unknown on-disk format {fs}/{multi} (1801 and 1802 with 1900 are known)")
            }
            Self::BlockSize(b) => write!(f, "invalid block size {b} (a power of two from 512 to 65536 is needed)"),
            Self::BlockSizeShift(b, s) => write!(f, "invalid block size shift {s} for block size {b}"),
            Self::NoRoot => f.write_str("superblock without master or root directory"),
        }
    }
}

impl Superblock {
    /// What every reader checks at mount; the block size on success.
    pub fn check(&self) -> Result<BlockSize, SuperblockError> {
        if self.header.magic.get() != super::MAGIC || self.header.kind.get() != super::MetaType::Superblock as u32 {
            return Err(SuperblockError::NotGfs2);
        }
        let (fs, multi) = (self.fs_format.get(), self.multihost_format.get());
        if !(FORMAT_MIN..=FORMAT_MAX).contains(&fs) || multi != MULTIHOST_FORMAT {
            return Err(SuperblockError::UnknownFormat(fs, multi));
        }
        let bytes = self.bsize.get();
        let size = BlockSize::new(bytes).ok_or(SuperblockError::BlockSize(bytes))?;
        if size.shift() != self.bsize_shift.get() {
            return Err(SuperblockError::BlockSizeShift(bytes, self.bsize_shift.get()));
        }
        if self.master_dir.addr.get() == 0 || self.root_dir.addr.get() == 0 {
            return Err(SuperblockError::NoRoot);
        }
        Ok(size)
    }
    /// `lockproto` up to its NUL.
    pub fn lockproto(&self) -> &[u8] {
        until_nul(&self.lockproto)
    }
    /// `locktable` up to its NUL.
    pub fn locktable(&self) -> &[u8] {
        until_nul(&self.locktable)
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or(&[])
}
