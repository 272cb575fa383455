//! chattr(1) flags (ondisk.md 4.2), and trimming.

use super::{Caller, Fs};
use crate::error::{Error, Result};
use crate::file;
use crate::format::DiFlags;
use crate::ids::BlockAddr;
use crate::inode::Inode as HeldInode;

/// FS_IOC_GETFLAGS bits that GFS2 knows.
#[derive(Clone, Copy, Debug)]
pub struct Inode;

impl Inode {
    /// `S`.
    pub const SYNC: u32 = 0x0000_0008;
    /// `i`.
    pub const IMMUTABLE: u32 = 0x0000_0010;
    /// `a`.
    pub const APPEND: u32 = 0x0000_0020;
    /// `A`.
    pub const NOATIME: u32 = 0x0000_0080;
    /// `I`, read-only.
    pub const INDEX: u32 = 0x0000_1000;
    /// `j`.
    pub const JOURNAL_DATA: u32 = 0x0000_4000;
    /// `T`.
    pub const TOPDIR: u32 = 0x0002_0000;

    const SETTABLE: u32 =
        Self::SYNC | Self::IMMUTABLE | Self::APPEND | Self::NOATIME | Self::JOURNAL_DATA | Self::TOPDIR;
}

/// Which disk flag a settable chattr flag is, but for `j`, which depends on the type.
const PAIRS: [(u32, DiFlags); 5] = [
    (Inode::SYNC, DiFlags::SYNC),
    (Inode::IMMUTABLE, DiFlags::IMMUTABLE),
    (Inode::APPEND, DiFlags::APPENDONLY),
    (Inode::NOATIME, DiFlags::NOATIME),
    (Inode::TOPDIR, DiFlags::TOPDIR),
];

/// `struct fsxattr`: the xflags of FS_IOC_FSGETXATTR; the other fields are 0.
#[derive(Clone, Copy, Debug)]
pub struct FsxAttr;

/// (xflag, flag): how FSGETXATTR's bits map to GETFLAGS'.
const XFLAGS: [(u32, u32); 4] =
    [(0x20, Inode::SYNC), (0x8, Inode::IMMUTABLE), (0x10, Inode::APPEND), (0x40, Inode::NOATIME)];

impl FsxAttr {
    /// xflags from flags.
    pub fn from_flags(flags: u32) -> u32 {
        XFLAGS.iter().filter(|(_, f)| flags & f != 0).fold(0, |x, (bit, _)| x | bit)
    }
    /// `flags` with the bits that xflags can say replaced.
    pub fn apply(flags: u32, xflags: u32) -> u32 {
        XFLAGS.iter().fold(flags, |f, (bit, flag)| if xflags & bit != 0 { f | flag } else { f & !flag })
    }
}

impl Fs {
    /// FS_IOC_GETFLAGS.
    pub fn get_flags(&self, node: BlockAddr) -> Result<u32> {
        let inode = self.watch(self.shared(node))?;
        Ok(shown(&inode))
    }

    /// FS_IOC_SETFLAGS. Flags that GFS2 does not have are refused; `I` may be given back as it was read.
    pub fn set_flags(&self, caller: &Caller, node: BlockAddr, flags: u32) -> Result<()> {
        let mut inode = self.watch(self.exclusive(node))?;
        let old = shown(&inode);
        if caller.uid != 0 && caller.uid != inode.dinode.uid.get() {
            return Err(Error::NotPermitted);
        }
        if flags & !(Inode::SETTABLE | Inode::INDEX) != 0 {
            return Err(Error::NotSupported);
        }
        let changed = (flags ^ old) & Inode::SETTABLE;
        if changed & (Inode::IMMUTABLE | Inode::APPEND) != 0 && caller.uid != 0 {
            return Err(Error::NotPermitted);
        }
        if old & Inode::IMMUTABLE != 0 && flags & Inode::IMMUTABLE != 0 && changed != 0 {
            return Err(Error::NotPermitted);
        }
        if flags & Inode::TOPDIR != 0 && !inode.is_dir() {
            return Err(Error::Invalid);
        }
        if changed & Inode::JOURNAL_DATA != 0 && inode.is_regular() {
            self.watch(file::set_jdata(&self.vol, &mut inode, flags & Inode::JOURNAL_DATA != 0))?;
        }
        let mut new = inode.flags();
        for (bit, flag) in PAIRS {
            new = if flags & bit != 0 { new.with(flag) } else { new.without(flag) };
        }
        if inode.is_dir() {
            let inherit = DiFlags::INHERIT_JDATA;
            new = if flags & Inode::JOURNAL_DATA != 0 { new.with(inherit) } else { new.without(inherit) };
        }
        let now = self.vol.clock.now();
        self.change_dinode(&mut inode, |d| {
            d.flags.set(new.0);
            d.set_ctime(now);
        })
    }

    /// FITRIM: tells the device of free extents; bytes trimmed. `Invalid` for a range that begins behind the end or is shorter
    /// than a block, and for a least length that no rgrp can have.
    pub fn trim(&self, start: u64, len: u64, min_len: u64) -> Result<u64> {
        if self.is_read_only() {
            return Err(Error::ReadOnly);
        }
        let bs = self.vol.bs;
        let end = bs.block_of(start.saturating_add(len));
        let extents = self.vol.rgrps.extents();
        let last = extents.last().map_or(0, |e| e.end());
        let longest = extents.iter().map(|e| u64::from(e.data)).max().unwrap_or(0);
        if bs.block_of(start) >= last || len < bs.bytes() as u64 || bs.blocks_for(min_len) > longest {
            return Err(Error::Invalid);
        }
        let blocks = self.watch(self.vol.rgrps.trim(bs.blocks_for(start), end, bs.blocks_for(min_len).max(1)))?;
        Ok(blocks.saturating_mul(bs.bytes() as u64))
    }
}

/// The flags of an inode as chattr shows them.
fn shown(inode: &HeldInode) -> u32 {
    let flags = inode.flags();
    let mut out = PAIRS.iter().filter(|(_, f)| flags.has(*f)).fold(0, |o, (bit, _)| o | bit);
    let journal = if inode.is_dir() { DiFlags::INHERIT_JDATA } else { DiFlags::JDATA };
    if flags.has(journal) {
        out |= Inode::JOURNAL_DATA;
    }
    if flags.has(DiFlags::EXHASH) {
        out |= Inode::INDEX;
    }
    out
}
