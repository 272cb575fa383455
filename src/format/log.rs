//! Log headers and descriptors (ondisk.md 8.2, 8.3).

use super::{MetaHeader, MetaType, OnDisk, be};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// `lh_flags`: the log is clean.
pub const LH_UNMOUNT: u32 = 0x1;
/// `lh_flags`: an ordinary flush.
pub const LH_FLUSH_NORMAL: u32 = 0x2;
/// `lh_flags`: a flush for fsync or sync.
pub const LH_FLUSH_SYNC: u32 = 0x4;
/// `lh_flags`: a flush at unmount.
pub const LH_FLUSH_SHUTDOWN: u32 = 0x8;
/// `lh_flags`: a flush for a freeze.
pub const LH_FLUSH_FREEZE: u32 = 0x10;
/// `lh_flags`: written by recovery.
pub const LH_RECOVERY: u32 = 0x20;
/// `lh_flags`: written by a userspace tool.
pub const LH_USERSPACE: u32 = 0x8000_0000;

/// A log header; the rest of its block is zero.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct LogHeader {
    /// Type LH; `jid` = the writer's own.
    pub header: MetaHeader,
    /// +1 per header.
    pub sequence: be::U64,
    /// LH_ flags.
    pub flags: be::U32,
    /// Journal block of the tail.
    pub tail: be::U32,
    /// Own journal block.
    pub blkno: be::U32,
    /// CRC-32 of the first 48 bytes with this field 0.
    pub hash: be::U32,
    /// CRC-32C of bytes 52 to the end of the block; 0 = a version 1 header.
    pub crc: be::U32,
    /// Time written, nanoseconds.
    pub nsec: be::U32,
    /// Time written, seconds.
    pub sec: be::U64,
    /// Own address on the device.
    pub addr: be::U64,
    /// The journal's dinode.
    pub jinode: be::U64,
    /// The writer's statfs_change dinode.
    pub statfs_addr: be::U64,
    /// The writer's quota_change dinode.
    pub quota_addr: be::U64,
    /// Local statfs delta at this point: total.
    pub local_total: be::I64,
    /// Local statfs delta at this point: free.
    pub local_free: be::I64,
    /// Local statfs delta at this point: dinodes.
    pub local_dinodes: be::I64,
}
const _: () = assert!(size_of::<LogHeader>() == 120);

impl LogHeader {
    /// Fills in `hash` and `crc` of a finished header block.
    pub fn seal(block: &mut [u8]) {
        let hash = Self::v1_hash(block);
        Self::edit(block).hash.set(hash);
        let crc = super::checksum::crc32c_raw(&block[52..]);
        Self::edit(block).crc.set(crc);
    }
    /// True when the block is a valid header: magic, type, hash, and crc unless absent (ondisk.md 8.2).
    pub fn is_valid(block: &[u8]) -> bool {
        let lh = Self::view(block);
        lh.header.magic.get() == super::MAGIC
            && lh.header.kind.get() == MetaType::LogHeader as u32
            && lh.hash.get() == Self::v1_hash(block)
            && (lh.crc.get() == 0 || lh.crc.get() == super::checksum::crc32c_raw(&block[52..]))
    }
    fn v1_hash(block: &[u8]) -> u32 {
        let mut first = [0u8; 48];
        first[..44].copy_from_slice(&block[..44]);
        super::checksum::crc32(&first)
    }
}

/// `ld_type`: metadata blocks follow.
pub const LD_METADATA: u32 = 300;
/// `ld_type`: revoked addresses.
pub const LD_REVOKE: u32 = 301;
/// `ld_type`: data blocks follow.
pub const LD_JDATA: u32 = 302;
/// Where a descriptor's items start.
pub const LD_ITEMS: usize = 72;

/// A log descriptor; items follow at [`LD_ITEMS`].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct LogDescriptor {
    /// Type LD, jid 0.
    pub header: MetaHeader,
    /// LD_ type.
    pub kind: be::U32,
    /// Journal blocks of the section, this one included.
    pub length: be::U32,
    /// Number of items.
    pub data1: be::U32,
    /// 0.
    pub data2: be::U32,
    /// 0.
    pub reserved: [u8; 32],
}
const _: () = assert!(size_of::<LogDescriptor>() == LD_ITEMS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worked_example() {
        let mut block = vec![0u8; 4096];
        let words: [u32; 30] = [
            0x01161970, 8, 0, 0, 0x320, 0, 0, 0x801, 0x40002, 0x11a, 0x124, 0, 0, 0x202cac8f, 0, 0x6b02e5da, 0, 0x13c,
            0, 0x12, 0, 0x81d, 0, 0x81e, 0, 0, 0xffffffff, 0xfffffff0, 0, 3,
        ];
        for (i, w) in words.iter().enumerate() {
            be::U32::edit(&mut block[4 * i..]).set(*w);
        }
        LogHeader::seal(&mut block);
        let lh = LogHeader::view(&block);
        assert_eq!((lh.hash.get(), lh.crc.get()), (0xa5f9_a19c, 0xf333_863d));
        assert!(LogHeader::is_valid(&block));
        block[4095] ^= 1;
        assert!(!LogHeader::is_valid(&block));
    }
}
