//! Blocks as they are before anybody has used them: an empty resource group, a clean log, an empty quota_change file.

use super::geometry;
use crate::device::AlignedBuf;
use crate::format::checksum::{crc32, crc32c_raw};
use crate::format::header::MetaType;
use crate::format::log::{LH_UNMOUNT, LH_USERSPACE};
use crate::format::rgrp::RgrpExtent;
use crate::format::{LogHeader, MetaHeader, OnDisk, RgrpHeader, RindexEntry};
use crate::ids::{BlockAddr, BlockSize};

/// Header and bitmap of a resource group in which everything is free. `next`: the address of the one behind it, to which its skip
/// leads (ondisk.md 3.2).
pub fn empty_group(bs: BlockSize, rg: &RgrpExtent, next: Option<BlockAddr>) -> AlignedBuf {
    let mut buf = AlignedBuf::zeroed(rg.length as usize * bs.bytes());
    for (n, block) in buf.chunks_exact_mut(bs.bytes()).enumerate() {
        MetaHeader::init(block, if n == 0 { MetaType::Rgrp } else { MetaType::Bitmap });
    }
    let header = RgrpHeader::edit(&mut buf);
    header.free.set(rg.data);
    // Groups lie in order and are at most 2 GiB long, stripe included.
    header.skip.set(next.map_or(0, |next| u32::try_from(next.get().saturating_sub(rg.addr.get())).unwrap_or(0)));
    header.data0.set(rg.data0.get());
    header.data.set(rg.data);
    header.bitbytes.set(rg.bitbytes);
    let crc = header.checksum();
    header.crc.set(crc);
    buf
}

/// The entry of a resource group in the rindex (ondisk.md 3.1).
pub fn rindex_entry(rg: &RgrpExtent) -> [u8; size_of::<RindexEntry>()] {
    let mut entry = [0; size_of::<RindexEntry>()];
    let fields = RindexEntry::edit(&mut entry);
    fields.addr.set(rg.addr.get());
    fields.length.set(rg.length);
    fields.data0.set(rg.data0.get());
    fields.data.set(rg.data);
    fields.bitbytes.set(rg.bitbytes);
    entry
}

/// The log of a journal that nobody has used (ondisk.md 2.7): a header in every block. Sequence numbers start somewhere by chance
/// and wrap to 0, so exactly one block carries the highest: the head of a clean log.
///
/// A journal is up to 1 GiB of headers, so making one must be cheap: all but 120 bytes of a header's block are zero, and what zeros
/// do to a CRC is linear, so four table look-ups stand for them.
#[derive(Debug)]
pub struct CleanLog {
    blocks: u64,
    start: u64,
    jinode: BlockAddr,
    zeros: Zeros,
}

impl CleanLog {
    /// Of `blocks` blocks, for the journal with this dinode; block 0 has the sequence number `start`.
    pub fn new(bs: BlockSize, blocks: u64, start: u64, jinode: BlockAddr) -> Self {
        let blocks = blocks.max(1);
        Self { blocks, start: start % blocks, jinode, zeros: Zeros::new(bs.bytes() - size_of::<LogHeader>()) }
    }
    /// How many blocks.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }
    /// Fills `block`, which is zero, with log block `n`, which lies at `addr`.
    pub fn fill(&self, n: u64, addr: BlockAddr, block: &mut [u8]) {
        MetaHeader::init(block, MetaType::LogHeader);
        let header = LogHeader::edit(block);
        header.sequence.set((self.start + n) % self.blocks);
        header.flags.set(LH_UNMOUNT | LH_USERSPACE);
        header.blkno.set(n as u32);
        header.addr.set(addr.get());
        header.jinode.set(self.jinode.get());
        let hash = crc32(&block[..48]);
        let crc = self.zeros.after(crc32c_raw(&block[52..size_of::<LogHeader>()]));
        let header = LogHeader::edit(block);
        header.hash.set(hash);
        header.crc.set(crc);
    }
}

/// What a number of zero bytes does to a CRC-32C: a linear map of its 32 bits, tabulated byte by byte.
#[derive(Debug)]
struct Zeros([[u32; 256]; 4]);

impl Zeros {
    fn new(count: usize) -> Self {
        let mut bits = [0u32; 32];
        for (i, image) in bits.iter_mut().enumerate() {
            let mut crc = 1u32 << i;
            for _ in 0..count * 8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            }
            *image = crc;
        }
        let mut tables = [[0; 256]; 4];
        for (byte, table) in tables.iter_mut().enumerate() {
            for (value, entry) in table.iter_mut().enumerate() {
                *entry = (0..8).filter(|bit| value >> bit & 1 == 1).fold(0, |crc, bit| crc ^ bits[8 * byte + bit]);
            }
        }
        Self(tables)
    }
    /// The CRC after the zeros.
    fn after(&self, crc: u32) -> u32 {
        let bytes = [crc & 0xff, crc >> 8 & 0xff, crc >> 16 & 0xff, crc >> 24];
        bytes.iter().zip(&self.0).fold(0, |all, (&byte, table)| all ^ table[byte as usize])
    }
}

/// Blocks of the file of a journal of `mib` MiB, and those of its node's other files: what one more journal costs at least.
pub fn journal_cost(bs: BlockSize, mib: u32, quota_change_mib: u32) -> u64 {
    let file = |mib: u32| geometry::space_for_file(bs, u64::from(mib) << 20);
    // inum_range and statfs_change are a block each; one more pays for the room that a directory may need.
    file(mib) + file(quota_change_mib) + 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_of_a_clean_log_is_valid_and_one_is_the_head() {
        let bs = BlockSize::new(512).expect("legal");
        let dinode = BlockAddr::new(100).expect("not 0");
        let log = CleanLog::new(bs, 1000, 12_345, dinode);
        let mut heads = 0;
        for n in 0..1000 {
            let mut block = vec![0; 512];
            log.fill(n, dinode.saturating_add(n + 1), &mut block);
            assert!(LogHeader::is_valid(&block), "{n}");
            heads += u32::from(LogHeader::view(&block).sequence.get() == 999);
        }
        assert_eq!(heads, 1);
    }
}
