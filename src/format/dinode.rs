//! The dinode (ondisk.md 4.1, 4.2).

use super::superblock::DiskInum;
use super::{MetaHeader, be};
use crate::clock::Timestamp;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the dinode header: stuffed data, entries or pointers start here.
pub const DINODE_SIZE: usize = 232;

/// The first 232 bytes of a dinode's block.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Dinode {
    /// Type DI.
    pub header: MetaHeader,
    /// Own identity.
    pub num: DiskInum,
    /// Type and permissions, as st_mode.
    pub mode: be::U32,
    /// Owner.
    pub uid: be::U32,
    /// Group.
    pub gid: be::U32,
    /// Link count.
    pub nlink: be::U32,
    /// Bytes.
    pub size: be::U64,
    /// Blocks owned, this one included.
    pub blocks: be::U64,
    /// Last access, seconds.
    pub atime: be::I64,
    /// Last change of data, seconds.
    pub mtime: be::I64,
    /// Last change of inode, seconds.
    pub ctime: be::I64,
    /// Major number of a device node.
    pub major: be::U32,
    /// Minor number of a device node.
    pub minor: be::U32,
    /// Allocation goal.
    pub goal_meta: be::U64,
    /// Allocation goal.
    pub goal_data: be::U64,
    /// Generation.
    pub generation: be::U64,
    /// [`DiFlags`].
    pub flags: be::U32,
    /// 1200 for a stuffed directory, else 0.
    pub payload_format: be::U32,
    /// 0.
    pub pad1: be::U16,
    /// Height of the tree; 0 = stuffed.
    pub height: be::U16,
    /// 0.
    pub pad2: be::U32,
    /// 0.
    pub pad3: be::U16,
    /// Directories: log2 of the hash table's entries.
    pub depth: be::U16,
    /// Directories: entries, `.` and `..` included.
    pub entries: be::U32,
    /// 0.
    pub pad4: [u8; 16],
    /// Address of the xattr block, 0 = none.
    pub eattr: be::U64,
    /// Nanoseconds of atime.
    pub atime_nsec: be::U32,
    /// Nanoseconds of mtime.
    pub mtime_nsec: be::U32,
    /// Nanoseconds of ctime.
    pub ctime_nsec: be::U32,
    /// 0.
    pub reserved: [u8; 44],
}
const _: () = assert!(size_of::<Dinode>() == DINODE_SIZE);

impl Dinode {
    /// Last access.
    pub fn atime(&self) -> Timestamp {
        Timestamp { sec: self.atime.get(), nsec: self.atime_nsec.get() }
    }
    /// Last change of data.
    pub fn mtime(&self) -> Timestamp {
        Timestamp { sec: self.mtime.get(), nsec: self.mtime_nsec.get() }
    }
    /// Last change of inode.
    pub fn ctime(&self) -> Timestamp {
        Timestamp { sec: self.ctime.get(), nsec: self.ctime_nsec.get() }
    }
    /// Sets the last access.
    pub fn set_atime(&mut self, t: Timestamp) {
        self.atime.set(t.sec);
        self.atime_nsec.set(t.nsec);
    }
    /// Sets the last change of data.
    pub fn set_mtime(&mut self, t: Timestamp) {
        self.mtime.set(t.sec);
        self.mtime_nsec.set(t.nsec);
    }
    /// Sets the last change of inode.
    pub fn set_ctime(&mut self, t: Timestamp) {
        self.ctime.set(t.sec);
        self.ctime_nsec.set(t.nsec);
    }
    /// The flags.
    pub fn flags(&self) -> DiFlags {
        DiFlags(self.flags.get())
    }
}

/// `di_flags`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiFlags(pub u32);

impl DiFlags {
    /// File data goes through the journal; always set on directories.
    pub const JDATA: Self = Self(0x1);
    /// A directory with a hash table.
    pub const EXHASH: Self = Self(0x2);
    /// `di_eattr` is an indirect block.
    pub const EA_INDIRECT: Self = Self(0x8);
    /// Nobody may change it.
    pub const IMMUTABLE: Self = Self(0x20);
    /// It may only grow.
    pub const APPENDONLY: Self = Self(0x40);
    /// Reading leaves no trace.
    pub const NOATIME: Self = Self(0x80);
    /// Writes are durable before they return.
    pub const SYNC: Self = Self(0x100);
    /// A system file; inherited.
    pub const SYSTEM: Self = Self(0x200);
    /// Directories: children are spread over the disk.
    pub const TOPDIR: Self = Self(0x400);
    /// A truncate was begun and must be finished.
    pub const TRUNC_IN_PROG: Self = Self(0x2000_0000);
    /// Directories: new files are JDATA.
    pub const INHERIT_JDATA: Self = Self(0x8000_0000);

    /// True when all of `other` is set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    /// With `other` set.
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// With `other` cleared.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Type part of a mode.
pub mod mode {
    /// Mask of the type.
    pub const S_IFMT: u32 = 0o170000;
    /// Fifo.
    pub const S_IFIFO: u32 = 0o010000;
    /// Character device.
    pub const S_IFCHR: u32 = 0o020000;
    /// Directory.
    pub const S_IFDIR: u32 = 0o040000;
    /// Block device.
    pub const S_IFBLK: u32 = 0o060000;
    /// Regular file.
    pub const S_IFREG: u32 = 0o100000;
    /// Symbolic link.
    pub const S_IFLNK: u32 = 0o120000;
    /// Socket.
    pub const S_IFSOCK: u32 = 0o140000;
    /// Set user id.
    pub const S_ISUID: u32 = 0o4000;
    /// Set group id.
    pub const S_ISGID: u32 = 0o2000;
    /// Sticky.
    pub const S_ISVTX: u32 = 0o1000;
}
