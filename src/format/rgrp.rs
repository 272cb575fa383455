//! Resource groups: the rindex entry, the header, where a block's bits are (ondisk.md 3).

use super::{MetaHeader, be};
use crate::ids::{BlockAddr, BlockSize};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An entry of the rindex file.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RindexEntry {
    /// Block of the rgrp header.
    pub addr: be::U64,
    /// Number of header and bitmap blocks.
    pub length: be::U32,
    /// Ignore: the stock mkfs leaves garbage.
    pub pad: be::U32,
    /// First data block.
    pub data0: be::U64,
    /// Number of data blocks, a multiple of 4.
    pub data: be::U32,
    /// Bytes of bitmap: data/4.
    pub bitbytes: be::U32,
    /// Ignore: the stock mkfs leaves garbage.
    pub reserved: [u8; 64],
}
const _: () = assert!(size_of::<RindexEntry>() == 96);

/// `rg_flags`: do not allocate here.
pub const RG_NOALLOC: u32 = 0x08;
/// `rg_flags`: nothing was freed since the last FITRIM.
pub const RG_TRIMMED: u32 = 0x10;
/// `rg_flags`: bits that exist in memory only.
pub const RG_MEMORY_ONLY: u32 = 0xf000_0000;
/// Bytes of the rgrp header; the bitmap follows.
pub const RGRP_HEADER: usize = 128;

/// The header in the first block of an rgrp.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RgrpHeader {
    /// Type RG.
    pub header: MetaHeader,
    /// RG_ flags.
    pub flags: be::U32,
    /// Number of free blocks.
    pub free: be::U32,
    /// Number of dinodes, unlinked ones included.
    pub dinodes: be::U32,
    /// Distance to the next rgrp, 0 in the last.
    pub skip: be::U32,
    /// Next generation to hand out.
    pub igeneration: be::U64,
    /// Copy of the rindex entry's.
    pub data0: be::U64,
    /// Copy of the rindex entry's.
    pub data: be::U32,
    /// Copy of the rindex entry's.
    pub bitbytes: be::U32,
    /// CRC-32 of these 128 bytes with this field 0; 0 = absent.
    pub crc: be::U32,
    /// 0.
    pub reserved: [u8; 60],
}
const _: () = assert!(size_of::<RgrpHeader>() == RGRP_HEADER);

impl RgrpHeader {
    /// The checksum this header should carry.
    pub fn checksum(&self) -> u32 {
        let mut copy = *self;
        copy.crc.set(0);
        super::checksum::crc32(copy.as_bytes())
    }
}

/// Where an rgrp lies: the checked meaning of a rindex entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RgrpExtent {
    /// Block of the header.
    pub addr: BlockAddr,
    /// Number of header and bitmap blocks.
    pub length: u32,
    /// First data block.
    pub data0: BlockAddr,
    /// Number of data blocks.
    pub data: u32,
    /// Bytes of bitmap.
    pub bitbytes: u32,
}

impl RgrpExtent {
    /// Checks an entry's arithmetic as the kernel does (ondisk.md 3.1); says which rule it breaks.
    pub fn check(entry: &RindexEntry, bs: BlockSize) -> Result<Self, &'static str> {
        let addr = BlockAddr::new(entry.addr.get()).ok_or("rindex entry with address 0")?;
        let data0 = BlockAddr::new(entry.data0.get()).ok_or("rindex entry with data0 0")?;
        let (length, data, bitbytes) = (entry.length.get(), entry.data.get(), entry.bitbytes.get());
        if length == 0 || addr.checked_add(u64::from(length)) != Some(data0) {
            return Err("rindex entry whose data does not follow its bitmap");
        }
        if u64::from(bitbytes) * 4 != u64::from(data) || data == 0 {
            return Err("rindex entry whose bitmap does not match its data blocks");
        }
        let before_last = (bs.bytes() - RGRP_HEADER) as u64 + u64::from(length - 1) * bs.payload() as u64;
        let without_last = if length == 1 { 0 } else { before_last - bs.payload() as u64 };
        if u64::from(bitbytes) > before_last || u64::from(bitbytes) <= without_last {
            return Err("rindex entry whose bitmap does not fill its blocks");
        }
        data0.checked_add(u64::from(data)).ok_or("rindex entry past the end of all devices")?;
        Ok(Self { addr, length, data0, data, bitbytes })
    }
    /// Index of a block in this rgrp's bitmap; `None` when it is not one of its data blocks.
    pub fn index_of(&self, block: BlockAddr) -> Option<u32> {
        let index = block.get().checked_sub(self.data0.get())?;
        u32::try_from(index).ok().filter(|&i| i < self.data)
    }
    /// The block at this index of the bitmap.
    pub fn block_at(&self, index: u32) -> BlockAddr {
        self.data0.saturating_add(u64::from(index))
    }
    /// First block after this rgrp's data.
    pub fn end(&self) -> u64 {
        self.data0.get() + u64::from(self.data)
    }
    /// Bytes of the bitmap that block number `n` (0 = header block) holds: (offset in that block, first byte of the
    /// concatenated bitmap, length in bytes).
    pub fn bitmap_part(&self, bs: BlockSize, n: u32) -> (usize, u32, u32) {
        let first = (bs.bytes() - RGRP_HEADER) as u32;
        let rest = bs.payload() as u32;
        if n == 0 {
            (RGRP_HEADER, 0, self.bitbytes.min(first))
        } else {
            let start = first + (n - 1) * rest;
            (24, start, self.bitbytes.saturating_sub(start).min(rest))
        }
    }
}

/// Where byte `byte` of the concatenated bitmap is: (block number within the rgrp, offset in that block).
pub fn bitmap_location(bs: BlockSize, byte: u32) -> (u32, usize) {
    let first = (bs.bytes() - RGRP_HEADER) as u32;
    if byte < first {
        (0, RGRP_HEADER + byte as usize)
    } else {
        let b = byte - first;
        let rest = bs.payload() as u32;
        (1 + b / rest, 24 + (b % rest) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::super::OnDisk;
    use super::*;

    #[test]
    fn the_worked_examples() {
        let bs = BlockSize::new(4096).expect("legal");
        assert_eq!(bitmap_location(bs, 5000), (1, 24 + 1032));
        let entry = RindexEntry {
            addr: 2074.into(),
            length: 1.into(),
            pad: 77.into(),
            data0: 2075.into(),
            data: 14308.into(),
            bitbytes: 3577.into(),
            reserved: [9; 64],
        };
        let rg = RgrpExtent::check(&entry, bs).expect("the tiny filesystem's second rgrp");
        assert_eq!(rg.index_of(BlockAddr::new(2075).expect("not 0")), Some(0));
        assert_eq!(rg.end(), 16383);
        let mut header = [0u8; 128];
        let h = RgrpHeader::edit(&mut header);
        h.header = MetaHeader::new(super::super::MetaType::Rgrp);
        h.free.set(0x36db);
        h.dinodes.set(9);
        h.data0.set(0x81b);
        h.data.set(0x37e4);
        h.bitbytes.set(0xdf9);
        assert_eq!(h.checksum(), 0x16f7_ca2f);
    }
}
