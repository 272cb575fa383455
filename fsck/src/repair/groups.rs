//! Where the resource groups are, when rindex or their headers are damaged (ondisk.md 3; 12.2): rindex and the headers each
//! hold the whole truth about a group, so one can be rebuilt from the other; where both are lost, geometry remains.

use crate::disk::Disk;
use crate::reader;
use crate::repair::search;
use crate::repair::tree::nearly;
use crate::repair::work::Work;
use crate::report::{CheckError, Findings};
use gfs2r::admin::fresh::rindex_entry;
use gfs2r::admin::geometry;
use gfs2r::format::rgrp::RgrpExtent;
use gfs2r::format::superblock::SUPERBLOCK_OFFSET;
use gfs2r::format::{Dinode, MetaHeader, MetaType, OnDisk, RgrpHeader, RindexEntry};
use gfs2r::ids::{BlkState, BlockAddr, BlockSize};
use std::collections::BTreeMap;

type Headers = BTreeMap<u64, RgrpHeader>;

/// Finds out where all groups are, mends their headers and bitmaps, and notes the result when rindex says otherwise. False
/// when no group is found.
pub(crate) fn establish(work: &mut Work<'_>) -> Result<bool, CheckError> {
    let rindex = rindex(work)?;
    let said = match &rindex {
        Some(dinode) => listed(&work.disk, dinode)?,
        None => Vec::new(),
    };
    let headers = search::headers(&work.disk)?;
    let mut extents = choose(work.disk.bs, work.disk.blocks, &said, &headers);
    if let Some(last) = extents.last().copied().filter(|last| last.end() > work.disk.blocks) {
        extents.pop();
        extents.extend(shorten(work, last)?);
    }
    if extents.is_empty() {
        return Ok(false);
    }
    for i in 0..extents.len() {
        let next = extents.get(i + 1).map(|next| next.addr.get());
        mend(work, extents[i], next)?;
    }
    let mut muted = Findings::default();
    muted.muted = true;
    let strict = match &rindex {
        Some(dinode) => crate::rgrps::entries(&work.disk, &mut muted, dinode)?,
        None => None,
    };
    let size_right = rindex.as_ref().is_some_and(|d| Dinode::view(d).size.get() == 96 * extents.len() as u64);
    let same = strict.as_ref() == Some(&extents) && size_right;
    let named = rindex.is_some() && is_named(work)?;
    work.extents = (!same || !named).then_some(extents);
    Ok(true)
}

fn is_named(work: &Work<'_>) -> Result<bool, CheckError> {
    let master = reader::dinode(&work.disk, work.sb.master_dir.addr.get());
    // A name that leads to no dinode is as good as none.
    let named = master.and_then(|m| reader::lookup(&work.disk, &m, b"rindex"));
    Ok(matches!(named, Ok(Some(entry)) if reader::dinode(&work.disk, entry.addr).is_ok()))
}

/// The dinode of rindex: by its name, or by its looks.
fn rindex(work: &Work<'_>) -> Result<Option<Box<[u8]>>, CheckError> {
    let disk = &work.disk;
    let master = reader::dinode(disk, work.sb.master_dir.addr.get());
    let named = master.and_then(|m| reader::lookup(disk, &m, b"rindex"));
    if let Ok(Some(entry)) = &named
        && let Ok(dinode) = reader::dinode(disk, entry.addr)
    {
        return Ok(Some(dinode));
    }
    let found = search::all(disk)?;
    Ok(found.rindexes.first().and_then(|&addr| reader::dinode(disk, addr).ok()))
}

/// Every entry of rindex that makes sense by itself.
fn listed(disk: &Disk<'_>, dinode: &[u8]) -> Result<Vec<RgrpExtent>, CheckError> {
    let size = Dinode::view(dinode).size.get().min(disk.blocks.saturating_mul(48)) / 96 * 96;
    let bytes = match reader::read_range(disk, dinode, 0, size) {
        Ok(bytes) => bytes,
        Err(CheckError::Io { block, error }) => return Err(CheckError::Io { block, error }),
        Err(_) => Vec::new(),
    };
    let entries = bytes.chunks_exact(96).filter_map(|e| RgrpExtent::check(RindexEntry::view(e), disk.bs).ok());
    Ok(entries.filter(|e| is_inside(disk.bs, disk.blocks, e)).collect())
}

/// True for a group that begins behind the superblock and has some of its data on the device.
fn is_inside(bs: BlockSize, blocks: u64, extent: &RgrpExtent) -> bool {
    let first = SUPERBLOCK_OFFSET.div_ceil(bs.bytes() as u64) + 1;
    extent.addr.get() >= first && extent.data0.get() < blocks
}

/// What a header says about its own group, if that makes sense.
fn own(bs: BlockSize, addr: u64, header: &RgrpHeader) -> Option<RgrpExtent> {
    let length = header.data0.get().checked_sub(addr)?;
    let entry = RindexEntry {
        addr: addr.into(),
        length: u32::try_from(length).ok()?.into(),
        pad: 0.into(),
        data0: header.data0,
        data: header.data,
        bitbytes: header.bitbytes,
        reserved: [0; 64],
    };
    RgrpExtent::check(&entry, bs).ok()
}

/// What a header that lies in a wrong place says about the group it belongs to: data and bitmap determine where it begins.
fn strayed(bs: BlockSize, addr: u64, header: &RgrpHeader) -> Option<RgrpExtent> {
    if own(bs, addr, header).is_some() || header.bitbytes.get().checked_mul(4) != Some(header.data.get()) {
        return None;
    }
    let length = geometry::bitmap_length(bs, header.data.get().into());
    own(bs, header.data0.get().checked_sub(length)?, header)
}

/// Chooses among what rindex and the headers say, the best supported first; what overlaps is dropped.
fn choose(bs: BlockSize, blocks: u64, said: &[RgrpExtent], headers: &Headers) -> Vec<RgrpExtent> {
    let by_header: Vec<RgrpExtent> = headers.iter().filter_map(|(&addr, h)| own(bs, addr, h)).collect();
    let strayed: Vec<RgrpExtent> =
        headers.iter().filter_map(|(&addr, h)| strayed(bs, addr, h)).filter(|e| is_inside(bs, blocks, e)).collect();
    let both = said.iter().filter(|e| by_header.contains(e));
    let with_header = said.iter().filter(|e| {
        let addr = e.addr.get();
        headers.get(&addr).is_some_and(|h| own(bs, addr, h).is_none())
    });
    let inside = by_header.iter().filter(|e| e.end() <= blocks);
    let mut chosen: BTreeMap<u64, RgrpExtent> = BTreeMap::new();
    for extent in both.chain(with_header).chain(inside).chain(said).chain(&by_header).chain(&strayed) {
        let before = chosen.range(..=extent.addr.get()).next_back().is_none_or(|(_, e)| e.end() <= extent.addr.get());
        let after = chosen.range(extent.addr.get()..).next().is_none_or(|(&addr, _)| extent.end() <= addr);
        if before && after {
            chosen.insert(extent.addr.get(), *extent);
        }
    }
    gaps(bs, blocks, &mut chosen, headers);
    chosen.into_values().collect()
}

/// Fills gaps where the header before says that a group follows.
fn gaps(bs: BlockSize, blocks: u64, chosen: &mut BTreeMap<u64, RgrpExtent>, headers: &Headers) {
    let places: Vec<u64> = chosen.keys().copied().collect();
    for (i, &addr) in places.iter().enumerate() {
        let end = places.get(i + 1).copied().unwrap_or(blocks);
        let mut before = chosen[&addr];
        let Some(skip) = headers.get(&addr).map(|h| u64::from(h.skip.get())).filter(|&s| s != 0) else { continue };
        let mut at = addr + skip;
        while at >= before.end() && at + 8 < end {
            let len = if i + 1 < places.len() && end - at < 2 * skip { end - at } else { skip.min(end - at) };
            let Some(extent) = divide(bs, at, len) else { break };
            chosen.insert(at, extent);
            before = extent;
            at += len;
        }
    }
}

/// Divides `len` blocks into bitmap and data, as mkfs does.
fn divide(bs: BlockSize, addr: u64, len: u64) -> Option<RgrpExtent> {
    let entry = rindex_entry(&geometry::split(bs, addr, len)?);
    RgrpExtent::check(RindexEntry::view(&entry), bs).ok()
}

/// Cuts a group at the end of the device. When fewer blocks of bitmap are needed, the group begins later: its data stays
/// where it is. `None` when nothing of use is left of it.
fn shorten(work: &mut Work<'_>, extent: RgrpExtent) -> Result<Option<RgrpExtent>, CheckError> {
    let bs = work.disk.bs;
    let left = work.disk.blocks.saturating_sub(extent.data0.get()).min(u64::from(extent.data)) / 4 * 4;
    let shorter = |moved: u32| {
        let entry = RindexEntry {
            addr: (extent.addr.get() + u64::from(moved)).into(),
            length: (extent.length - moved).into(),
            pad: 0.into(),
            data0: extent.data0.get().into(),
            data: (left as u32).into(),
            bitbytes: (left as u32 / 4).into(),
            reserved: [0; 64],
        };
        RgrpExtent::check(&entry, bs).ok().map(|shorter| (moved, shorter))
    };
    let Some((moved, shorter)) = (0..extent.length).find_map(shorter) else { return Ok(None) };
    let mut whole = extent;
    whole.data = shorter.data;
    whole.bitbytes = shorter.bitbytes;
    let (bits, igeneration) = bitmap(work, whole, extent)?;
    for at in 0..u64::from(moved) {
        let zeros = vec![0; bs.bytes()];
        work.put(extent.addr.get() + at, &zeros);
    }
    work.write_group(shorter, &bits, igeneration, None)?;
    Ok(Some(shorter))
}

/// Sees to it that the blocks of a group's bitmap are what they should be.
fn mend(work: &mut Work<'_>, extent: RgrpExtent, next: Option<u64>) -> Result<(), CheckError> {
    let (bs, at) = (work.disk.bs, extent.addr.get());
    let mut right = true;
    for number in 0..extent.length {
        let block = work.disk.read(at + u64::from(number))?;
        let kind = if number == 0 { MetaType::Rgrp } else { MetaType::Bitmap };
        right &= MetaHeader::view_kind(&block) == kind as u32;
        let header = RgrpHeader::view(&block);
        right &= number != 0 || header.data.get() == extent.data && own(bs, at, header).is_some();
    }
    if right {
        return Ok(());
    }
    let (bits, igeneration) = bitmap(work, extent, extent)?;
    for number in 0..extent.length {
        let kind = if number == 0 { MetaType::Rgrp } else { MetaType::Bitmap };
        work.edit(at + u64::from(number), |block| {
            if nearly(block, kind) {
                crate::repair::plan::mend(block, kind);
            }
        })?;
    }
    work.write_group(extent, &bits, igeneration, next)
}

/// The bitmap of `extent` and the next generation, read from blocks that lie as `laid` says. Bits that are lost are guessed
/// so that nothing is given away: what looks like a dinode is one, everything else is in use.
fn bitmap(work: &Work<'_>, extent: RgrpExtent, laid: RgrpExtent) -> Result<(Vec<u8>, u64), CheckError> {
    let (bs, at) = (work.disk.bs, laid.addr.get());
    let mut bits = vec![0; extent.bitbytes as usize];
    let mut igeneration = 0;
    for number in 0..laid.length {
        let block = work.disk.read(at + u64::from(number))?;
        let kind = if number == 0 { MetaType::Rgrp } else { MetaType::Bitmap };
        let (offset, first, len) = laid.bitmap_part(bs, number);
        let len = extent.bitbytes.saturating_sub(first).min(len);
        let header = RgrpHeader::view(&block);
        // A copy of another group's header.
        let foreign = number == 0 && header.data0.get() != 0 && own(bs, at, header).is_none();
        if len == 0 {
            continue;
        }
        if nearly(&block, kind) && !foreign {
            let part = &block[offset..offset + len as usize];
            bits[first as usize..(first + len) as usize].copy_from_slice(part);
            // A generation that was hit is not worth keeping: the inodes will say what was used.
            let next = header.igeneration.get();
            igeneration = if number == 0 && next < 1 << 48 { next } else { igeneration };
        } else {
            guess(work, extent, first, len, &mut bits)?;
        }
    }
    Ok((bits, igeneration))
}

fn guess(work: &Work<'_>, extent: RgrpExtent, first: u32, len: u32, bits: &mut [u8]) -> Result<(), CheckError> {
    let from = first.saturating_mul(4);
    let to = (first + len).saturating_mul(4).min(extent.data);
    let mut items: Vec<(u64, u32)> = (from..to).map(|i| (extent.block_at(i).get(), i)).collect();
    work.disk.visit(&mut items, |addr, index, block| {
        let di = Dinode::view(block);
        let lives = MetaHeader::view_kind(block) == MetaType::Dinode as u32
            && di.num.addr.get() == addr
            && di.nlink.get() > 0
            && BlockAddr::new(addr).is_some();
        let state = if lives { BlkState::Dinode } else { BlkState::Used };
        let (byte, shift) = ((index / 4) as usize, 2 * (index % 4));
        bits[byte] = bits[byte] & !(3 << shift) | (state as u8) << shift;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn division_is_that_of_mkfs() {
        let bs = BlockSize::new(4096).expect("legal");
        let extent = divide(bs, 2074, 14309).expect("divisible");
        assert_eq!((extent.length, extent.data0.get(), extent.data), (1, 2075, 14308));
    }
}
