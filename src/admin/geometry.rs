//! Where every resource group and journal goes, of a new filesystem and of one that grows: pure arithmetic (ondisk.md 2.1 to 2.4,
//! 11.1).
//!
//! The formulas are the stock tool's, oddities included, so that both tools lay a device out block for block alike.
//! All numbers are blocks unless their name says otherwise.

use crate::device::Topology;
use crate::format::rgrp::RgrpExtent;
use crate::format::superblock::SUPERBLOCK_OFFSET;
use crate::ids::{BlockAddr, BlockSize};
use std::fmt;

/// Most resource groups: enough for 32 PiB in groups of 2 GiB. Each costs us, and every node that mounts, memory.
const RGRPS_MAX: u64 = 1 << 24;
/// MiB in the largest resource group, and in those that a filesystem grows by.
const LARGEST_MIB: u64 = 2048;

/// Why there is no layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GeometryError {
    /// The device is too small for what was asked.
    WillNotFit {
        /// Journals asked for.
        journals: u64,
        /// Largest journal that so many journals could have, when that was the reason.
        max_journal_mib: Option<u64>,
    },
    /// More than 2^24 resource groups.
    TooManyGroups,
}

impl GeometryError {
    fn will_not_fit() -> Self {
        Self::WillNotFit { journals: 0, max_journal_mib: None }
    }
}

impl fmt::Display for GeometryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WillNotFit { journals, max_journal_mib } => {
                f.write_str("gfs2 will not fit on this device.")?;
                match max_journal_mib {
                    Some(max) if *max >= 8 => {
                        write!(f, "\nMaximum size for {journals} journals on this device is {max}MB.")
                    }
                    _ => Ok(()),
                }
            }
            Self::TooManyGroups => f.write_str("Too many resource groups for this device: make them larger (-r)"),
        }
    }
}

impl std::error::Error for GeometryError {}

/// Alignment of resource groups to the stripes of the device, in blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Alignment {
    /// Stripe width: every group's length is a multiple of this, plus `offset`. 0 = no alignment.
    pub base: u64,
    /// Stripe unit: each group starts this much further, so that the headers do not all fall on one disk.
    pub offset: u64,
}

impl Alignment {
    /// To the stripes of a device; none where it has none, or such as do not fit (ondisk.md 2.1).
    pub fn of_device(t: &Topology, bs: BlockSize) -> Option<Self> {
        let bs = bs.bytes() as u64;
        let striped = t.optimal_io > t.physical
            && t.minimum_io > t.physical
            && t.optimal_io % t.minimum_io == 0
            && t.minimum_io >= bs;
        striped.then(|| Self { base: t.optimal_io / bs, offset: t.minimum_io / bs })
    }
    fn of_len(self, len: u64) -> u64 {
        align(len, self.base).saturating_add(self.offset)
    }
}

/// What the layout depends on.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Block size.
    pub bs: BlockSize,
    /// Blocks of the device that may be used.
    pub device_blocks: u64,
    /// Number of journals, at least 1.
    pub journals: u64,
    /// MiB in a journal; `None` = chosen by the size of the device.
    pub journal_mib: Option<u64>,
    /// MiB wished in a resource group.
    pub rgrp_mib: u64,
    /// Stripes.
    pub alignment: Alignment,
}

/// The layout of a filesystem.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Block size.
    pub bs: BlockSize,
    /// Blocks of the device that may be used.
    pub device_blocks: u64,
    /// MiB in a journal.
    pub journal_mib: u64,
    /// Number of journals; journal `j` lies in resource group `j`.
    pub journals: usize,
    /// All resource groups, by address.
    pub rgrps: Vec<RgrpExtent>,
}

impl Layout {
    /// Lays out a device. `WillNotFit` when it is too small for what was asked.
    pub fn plan(request: &Request) -> Result<Self, GeometryError> {
        let journal_mib = journal_size(request)?;
        let mut layout = Self {
            bs: request.bs,
            device_blocks: request.device_blocks,
            journal_mib,
            journals: usize::try_from(request.journals).map_err(|_| GeometryError::will_not_fit())?,
            rgrps: Vec::new(),
        };
        let after_journals = layout.place_journals(request)?;
        layout.place_others(request, after_journals)?;
        if layout.rgrps.len() <= layout.journals {
            return Err(GeometryError::will_not_fit());
        }
        Ok(layout)
    }
    /// Blocks in a journal.
    pub fn journal_blocks(&self) -> u64 {
        (self.journal_mib << 20) >> self.bs.shift()
    }
    /// Address of the superblock.
    pub fn superblock(&self) -> u64 {
        self.bs.block_of(SUPERBLOCK_OFFSET)
    }
    /// Blocks up to the end of the last resource group.
    pub fn filesystem_blocks(&self) -> u64 {
        self.rgrps.last().map_or(0, RgrpExtent::end)
    }
    /// Data blocks of all resource groups.
    pub fn data_blocks(&self) -> u64 {
        self.rgrps.iter().map(|rg| u64::from(rg.data)).sum()
    }

    /// One resource group per journal, just large enough. Returns where the next group may start.
    fn place_journals(&mut self, request: &Request) -> Result<u64, GeometryError> {
        let bs = request.bs;
        let mut addr = align(self.superblock() + 1, request.alignment.offset);
        let len = request.alignment.of_len(len_for_data(bs, space_for_file(bs, self.journal_mib << 20)));
        for _ in 0..self.journals {
            if addr.saturating_add(len) > request.device_blocks {
                return Err(GeometryError::will_not_fit());
            }
            self.rgrps.push(split(bs, addr, len).ok_or_else(GeometryError::will_not_fit)?);
            addr += len;
        }
        Ok(addr)
    }
    /// The rest of the device in groups of nearly equal size, larger ones first; its last block stays unused.
    fn place_others(&mut self, request: &Request, start: u64) -> Result<(), GeometryError> {
        let bs = request.bs;
        let blocks_of_mib = |mib: u64| (mib << 20) >> bs.shift();
        let (target, longest) = (blocks_of_mib(request.rgrp_mib), blocks_of_mib(LARGEST_MIB));
        self.rgrps.extend(fill(bs, start..request.device_blocks, target, longest, request.alignment)?);
        Ok(())
    }
}

/// Groups for a range of blocks (ondisk.md 2.4).
fn fill(
    bs: BlockSize,
    space: std::ops::Range<u64>,
    target: u64,
    longest: u64,
    alignment: Alignment,
) -> Result<Vec<RgrpExtent>, GeometryError> {
    let (mut addr, mut rgrps) = (space.start, Vec::new());
    let groups = divide(space.end.saturating_sub(space.start), target, longest, alignment);
    if groups.iter().map(|(count, _)| count).sum::<u64>() > RGRPS_MAX {
        return Err(GeometryError::TooManyGroups);
    }
    for (count, len) in groups {
        for _ in 0..count {
            if addr.saturating_add(len) > space.end {
                return Ok(rgrps);
            }
            let Some(rgrp) = split(bs, addr, len) else { return Ok(rgrps) };
            rgrps.push(rgrp);
            addr += len;
        }
    }
    Ok(rgrps)
}

/// The groups by which a filesystem grows that ends before block `end` when its device has `device_blocks` (ondisk.md 11.1); none
/// when there is no room for one. One block stays unused before the first, as the stock tool leaves it.
pub fn growth(
    bs: BlockSize,
    end: u64,
    device_blocks: u64,
    alignment: Alignment,
) -> Result<Vec<RgrpExtent>, GeometryError> {
    let start = align(end.saturating_add(1), alignment.offset);
    let target = (LARGEST_MIB << 20) >> bs.shift();
    if start >= device_blocks {
        return Ok(Vec::new());
    }
    fill(bs, start..device_blocks, target, target, alignment)
}

/// MiB in a journal (ondisk.md 2.2).
fn journal_size(request: &Request) -> Result<u64, GeometryError> {
    let bs = request.bs;
    if let Some(mib) = request.journal_mib {
        let half = request.device_blocks / 2;
        let wanted = mib.checked_mul(request.journals).and_then(|all| all.checked_mul((1 << 20) >> bs.shift()));
        if wanted.is_none_or(|blocks| blocks > half) {
            // device_blocks * block size is a size in bytes, so it cannot overflow.
            let max_mib = ((half << bs.shift()) / request.journals.max(1)) >> 20;
            return Err(GeometryError::WillNotFit { journals: request.journals, max_journal_mib: Some(max_mib) });
        }
        return Ok(mib);
    }
    let each = request.device_blocks / request.journals.max(1);
    let least = (8 << 20) >> bs.shift();
    let blocks: u64 = match each {
        n if n < 2 * least => return Err(GeometryError::will_not_fit()),
        n if n < 131_072 => least,
        n if n < 524_288 => 4096,
        n if n < 2_097_152 => 8192,
        n if n < 4_194_304 => 16_384,
        n if n < 268_435_456 => 32_768,
        n if n < 2_684_354_560 => 131_072,
        _ => 262_144,
    };
    Ok(((blocks << bs.shift()) >> 20).max(8))
}

/// `x` rounded up to a multiple of `a`; 0 means no rounding. Saturates.
fn align(x: u64, a: u64) -> u64 {
    if a == 0 { x } else { x.checked_next_multiple_of(a).unwrap_or(u64::MAX) }
}

/// Blocks that a file of this many bytes occupies, dinode and indirect blocks included.
pub fn space_for_file(bs: BlockSize, bytes: u64) -> u64 {
    if bytes <= bs.stuffed_max() as u64 {
        return 1;
    }
    let mut blocks = bs.blocks_for(bytes);
    let mut pointers = blocks;
    while pointers > bs.dinode_pointers() as u64 {
        pointers = pointers.div_ceil(bs.indirect_pointers() as u64);
        blocks += pointers;
    }
    blocks + 1
}

/// Data blocks whose bits fit after the rgrp header, and in each further bitmap block.
fn mapped(bs: BlockSize) -> (u64, u64) {
    (4 * (bs.bytes() as u64 - 128), 4 * bs.payload() as u64)
}

/// Blocks of header and bitmap for `data` data blocks (ondisk.md 2.3).
pub fn bitmap_length(bs: BlockSize, data: u64) -> u64 {
    let (first, further) = mapped(bs);
    1 + data.saturating_sub(first).div_ceil(further)
}

/// Length of a resource group that has `data` data blocks.
fn len_for_data(bs: BlockSize, data: u64) -> u64 {
    let data = data.next_multiple_of(4);
    bitmap_length(bs, data) + data
}

/// Splits a resource group of total length `len` into bitmap and data. `None` when nothing is left for data or the numbers
/// do not fit the format. Where one more bitmap block is found to be needed, `data` has already been counted without it:
/// the stock tool wastes a few blocks here, and so do we.
pub fn split(bs: BlockSize, addr: u64, len: u64) -> Option<RgrpExtent> {
    let (first, further) = mapped(bs);
    let four = |n: u64| n - n % 4;
    let mut bitmap = 0;
    while first + further * bitmap < four(len.checked_sub(bitmap)?) {
        bitmap += 1;
    }
    let mappable = if bitmap > 0 { first + further * (bitmap - 1) } else { 0 };
    let data = four(len.checked_sub(bitmap + 1)?);
    if mappable < data {
        bitmap += 1;
    }
    let (length, data) = (u32::try_from(bitmap).ok()?, u32::try_from(data).ok()?);
    if data == 0 {
        return None;
    }
    let addr = BlockAddr::new(addr)?;
    Some(RgrpExtent { addr, length, data0: addr.checked_add(bitmap)?, data, bitbytes: data / 4 })
}

/// Divides `space` blocks into groups of about `target`: (number, length) of the larger and of the smaller ones.
fn divide(space: u64, mut target: u64, longest: u64, alignment: Alignment) -> [(u64, u64); 2] {
    let mut len0 = alignment.of_len(target);
    while len0 > longest && target > alignment.base + 1 {
        target -= alignment.base + 1;
        len0 = alignment.of_len(target);
    }
    let mut n0 = space / len0;
    if space - n0 * len0 <= alignment.base {
        return [(n0, len0), (0, 0)];
    }
    let adjust = alignment.base.max(1);
    n0 += 1;
    // What is compared never passes n0 * len0 <= space + len0, which fits.
    while len0 > adjust && (len0 - adjust) * n0 >= space {
        len0 -= adjust;
    }
    let len1 = len0.saturating_sub(adjust);
    let mut n1 = 0;
    while n0 > 0 && len0 * n0 + len1 * n1 >= space {
        n0 -= 1;
        n1 += 1;
    }
    [(n0, len0), (n1, len1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(bytes: u64, bs: u32, journals: u64, journal_mib: Option<u64>, rgrp_mib: u64, al: (u64, u64)) -> Layout {
        let bs = BlockSize::new(bs).expect("legal");
        let alignment = Alignment { base: al.0, offset: al.1 };
        let request = Request { bs, device_blocks: bs.block_of(bytes), journals, journal_mib, rgrp_mib, alignment };
        Layout::plan(&request).expect("fits")
    }
    fn line(layout: &Layout, i: usize) -> [u64; 5] {
        let rg = &layout.rgrps[i];
        [rg.addr.get(), rg.length.into(), rg.data0.get(), rg.data.into(), rg.bitbytes.into()]
    }
    const MIB: u64 = 1 << 20;

    /// ondisk.md A and A.1.
    #[test]
    fn the_vectors_of_the_specification() {
        let tiny = plan(64 * MIB, 4096, 1, Some(8), 256, (0, 0));
        assert_eq!((tiny.rgrps.len(), tiny.filesystem_blocks()), (2, 16383));
        assert_eq!(line(&tiny, 0), [17, 1, 18, 2056, 514]);
        assert_eq!(line(&tiny, 1), [2074, 1, 2075, 14308, 3577]);

        let one = plan(1024 * MIB, 4096, 2, None, 256, (0, 0));
        assert_eq!((one.rgrps.len(), one.filesystem_blocks(), one.journal_mib), (6, 262_142, 16));
        assert_eq!(line(&one, 1), [4126, 1, 4127, 4108, 1027]);
        assert_eq!(line(&one, 2), [8235, 4, 8239, 63472, 15868]);
        assert_eq!(line(&one, 5), [198_666, 4, 198_670, 63472, 15868]);

        let small_blocks = plan(300 * MIB, 1024, 1, None, 32, (0, 0));
        assert_eq!((small_blocks.rgrps.len(), small_blocks.filesystem_blocks()), (11, 307_196));
        assert_eq!(line(&small_blocks, 0), [65, 3, 68, 8260, 2065]);
        assert_eq!(line(&small_blocks, 1), [8328, 8, 8336, 29880, 7470]);
        assert_eq!(line(&small_blocks, 10), [277_312, 8, 277_320, 29876, 7469]);

        let striped = plan(3072 * MIB, 4096, 1, None, 256, (64, 16));
        assert_eq!((striped.rgrps.len(), striped.journal_mib), (13, 32));
        assert_eq!(line(&striped, 0), [32, 1, 33, 8268, 2067]);
        assert_eq!(line(&striped, 1), [8304, 5, 8309, 64840, 16210]);
        assert_eq!(line(&striped, 12), [721_632, 5, 721_637, 64776, 16194]);

        let tiny_blocks = plan(64 * MIB, 512, 1, None, 256, (0, 0));
        assert_eq!((tiny_blocks.rgrps.len(), tiny_blocks.filesystem_blocks()), (2, 131_069));
        assert_eq!(line(&tiny_blocks, 1), [16798, 59, 16857, 114_212, 28553]);

        let least = plan(16 * MIB, 4096, 1, None, 256, (0, 0));
        assert_eq!(line(&least, 1), [2074, 1, 2075, 2020, 505]);
    }

    /// ondisk.md 11.1.
    #[test]
    fn growing_is_the_stock_tools() {
        let bs = BlockSize::new(4096).expect("legal");
        let grown = growth(bs, 16383, 40960, Alignment::default()).expect("few");
        let [rg] = grown[..] else { panic!("{grown:?}") };
        assert_eq!((rg.addr.get(), rg.length, rg.data0.get(), rg.data, rg.bitbytes), (16384, 2, 16386, 24572, 6143));
        // Devices of all sizes: what is added lies behind what is there and on the device.
        for blocks in (16_383..16_500).chain([1 << 20, 1 << 24, (1 << 24) + 1, 1 << 32]) {
            let mut end = 16384;
            for rg in growth(bs, 16383, blocks, Alignment { base: 64, offset: 16 }).expect("few") {
                assert!(rg.addr.get() >= end && rg.end() <= blocks, "{blocks}: {rg:?}");
                end = rg.end();
            }
        }
    }

    #[test]
    fn huge_devices_and_wild_requests_end() {
        let huge = plan(1 << 50, 4096, 3, None, 2048, (0, 0));
        assert!(huge.rgrps.len() > 500_000 && huge.filesystem_blocks() < 1 << 38);
        let bs = BlockSize::new(512).expect("legal");
        for (journals, journal_mib, base, offset) in [
            (u64::MAX, Some(u64::MAX), 0, 0),
            (u64::MAX, None, 0, 0),
            (1, None, u64::MAX / 2, 3),
            (1, Some(8), 1 << 40, 1 << 39),
        ] {
            let request = Request {
                bs,
                device_blocks: 1 << 17,
                journals,
                journal_mib,
                rgrp_mib: 256,
                alignment: Alignment { base, offset },
            };
            assert!(Layout::plan(&request).is_err(), "{request:?}");
        }
    }

    #[test]
    fn every_group_passes_the_readers_check() {
        for (bytes, bs, journals, rgrp_mib, al) in
            [(100 * MIB, 512, 3, 32, (0, 0)), (700 * MIB, 1024, 2, 64, (16, 4)), (5000 * MIB, 4096, 5, 256, (32, 8))]
        {
            let layout = plan(bytes, bs, journals, Some(8), rgrp_mib, al);
            let mut end = layout.superblock() + 1;
            for rg in &layout.rgrps {
                let entry = crate::format::RindexEntry {
                    addr: rg.addr.get().into(),
                    length: rg.length.into(),
                    pad: 0.into(),
                    data0: rg.data0.get().into(),
                    data: rg.data.into(),
                    bitbytes: rg.bitbytes.into(),
                    reserved: [0; 64],
                };
                assert_eq!(RgrpExtent::check(&entry, layout.bs), Ok(*rg));
                assert!(rg.addr.get() >= end);
                end = rg.end();
            }
            assert!(end < layout.device_blocks);
        }
    }
}
