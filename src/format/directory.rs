//! Directory entries and leaves (ondisk.md 5.2, 5.5).

use super::superblock::DiskInum;
use super::{MetaHeader, be};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of an entry before its name.
pub const DIRENT_SIZE: usize = 40;
/// Bytes of a leaf before its first entry.
pub const LEAF_SIZE: usize = 104;
/// Longest name.
pub const NAME_MAX: usize = 255;
/// Deepest hash table: 2^17 slots.
pub const DEPTH_MAX: u16 = 17;

/// The fixed part of a directory entry; the name follows.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Dirent {
    /// Whom it names; zero = sentinel (unused).
    pub inum: DiskInum,
    /// CRC-32 of the name.
    pub hash: be::U32,
    /// Distance to the next entry.
    pub rec_len: be::U16,
    /// 1..=255.
    pub name_len: be::U16,
    /// A [`DirentType`].
    pub kind: be::U16,
    /// 1 when the inode's xattr block follows the dinode.
    pub rahead: be::U16,
    /// The kernel keeps a cookie here in memory; ignore.
    pub pad: [u8; 12],
}
const _: () = assert!(size_of::<Dirent>() == DIRENT_SIZE);

/// Bytes an entry with a name of `name_len` bytes needs.
pub const fn dirent_len(name_len: usize) -> usize {
    (DIRENT_SIZE + name_len + 7) & !7
}

/// `de_type`: the file type, as in st_mode >> 12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DirentType {
    /// Fifo.
    Fifo = 1,
    /// Character device.
    Chr = 2,
    /// Directory.
    Dir = 4,
    /// Block device.
    Blk = 6,
    /// Regular file.
    Reg = 8,
    /// Symbolic link.
    Lnk = 10,
    /// Socket.
    Sock = 12,
}

impl DirentType {
    /// The type with this number.
    pub fn from_raw(raw: u16) -> Option<Self> {
        Some(match raw {
            1 => Self::Fifo,
            2 => Self::Chr,
            4 => Self::Dir,
            6 => Self::Blk,
            8 => Self::Reg,
            10 => Self::Lnk,
            12 => Self::Sock,
            _ => return None,
        })
    }
    /// The type in a mode.
    pub fn from_mode(mode: u32) -> Option<Self> {
        Self::from_raw(((mode & super::dinode::mode::S_IFMT) >> 12) as u16)
    }
    /// The type bits of a mode.
    pub fn mode(self) -> u32 {
        (self as u32) << 12
    }
}

/// The header of a leaf block; entries follow.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Leaf {
    /// Type LF.
    pub header: MetaHeader,
    /// Hash bits common to all entries.
    pub depth: be::U16,
    /// Live entries in this block.
    pub entries: be::U16,
    /// 1200.
    pub dirent_format: be::U32,
    /// Next leaf of the chain, 0 = end.
    pub next: be::U64,
    /// The directory's dinode.
    pub inode: be::U64,
    /// Position in the chain from 1; 0 = unknown.
    pub dist: be::U32,
    /// Time of last change, nanoseconds.
    pub nsec: be::U32,
    /// Time of last change, seconds.
    pub sec: be::U64,
    /// 0.
    pub reserved: [u8; 40],
}
const _: () = assert!(size_of::<Leaf>() == LEAF_SIZE);
