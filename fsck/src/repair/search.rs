//! Searching the whole device for structures, when what leads to them is lost.

use crate::disk::Disk;
use crate::report::CheckError;
use gfs2r::device::{AlignedBuf, BlockDevice};
use gfs2r::format::dinode::mode::{S_IFDIR, S_IFMT};
use gfs2r::format::{DiFlags, Dinode, MAGIC, MetaHeader, MetaType, OnDisk, RgrpHeader, get_u64};
use gfs2r::ids::BlockSize;
use std::collections::BTreeMap;

const PIECE: u64 = 1 << 20;

/// The block size that most dinodes speak for: each knows the number of its block.
pub(crate) fn block_size(device: &dyn BlockDevice) -> Result<Option<BlockSize>, CheckError> {
    let mut votes: BTreeMap<u64, u32> = BTreeMap::new();
    let mut buf = AlignedBuf::zeroed(PIECE as usize);
    let size = device.size() / 4096 * 4096;
    let mut start = 0;
    while start < size && votes.values().sum::<u32>() < 1000 {
        let len = PIECE.min(size - start) as usize;
        device.read(start, &mut buf[..len]).map_err(|error| CheckError::Io { block: 0, error })?;
        for at in (0..len).step_by(512) {
            let header = MetaHeader::view(&buf[at..]);
            if header.magic.get() != MAGIC || header.kind.get() != MetaType::Dinode as u32 {
                continue;
            }
            let (place, addr) = (start + at as u64, get_u64(&buf[at..], 32));
            if addr != 0 && place % addr == 0 && BlockSize::new((place / addr).try_into().unwrap_or(0)).is_some() {
                *votes.entry(place / addr).or_default() += 1;
            }
        }
        start += len as u64;
    }
    let best = votes.iter().max_by_key(|&(_, votes)| *votes).filter(|&(_, &n)| n >= 3);
    Ok(best.and_then(|(&bytes, _)| BlockSize::new(bytes as u32)))
}

/// What a search of the whole device finds.
#[derive(Default)]
pub(crate) struct Found {
    /// System directories that are their own parents: address, formal number.
    pub(crate) masters: Vec<(u64, u64)>,
    /// Other directories that are their own parents.
    pub(crate) roots: Vec<(u64, u64)>,
    /// System files with the payload format of rindex.
    pub(crate) rindexes: Vec<u64>,
}

/// Searches for what the superblock leads to.
pub(crate) fn all(disk: &Disk<'_>) -> Result<Found, CheckError> {
    let mut found = Found::default();
    each(disk, |addr, block| {
        if MetaHeader::view_kind(block) != MetaType::Dinode as u32 {
            return;
        }
        let di = Dinode::view(block);
        if di.num.addr.get() != addr || di.nlink.get() == 0 {
            return;
        }
        let system = di.flags().has(DiFlags::SYSTEM);
        if di.mode.get() & S_IFMT == S_IFDIR {
            let entries = crate::reader::entries(disk, block).unwrap_or_default();
            if entries.iter().any(|e| e.name == b".." && e.addr == addr) {
                let tops = if system { &mut found.masters } else { &mut found.roots };
                tops.push((addr, di.num.formal.get()));
            }
        } else if system && di.payload_format.get() == gfs2r::format::header::FORMAT_RINDEX {
            found.rindexes.push(addr);
        }
    })?;
    Ok(found)
}

/// The headers of resource groups, wherever there are any.
pub(crate) fn headers(disk: &Disk<'_>) -> Result<BTreeMap<u64, RgrpHeader>, CheckError> {
    let mut found = BTreeMap::new();
    each(disk, |addr, block| {
        if MetaHeader::view_kind(block) == MetaType::Rgrp as u32 {
            found.insert(addr, *RgrpHeader::view(block));
        }
    })?;
    Ok(found)
}

/// Calls `f` for every block behind the superblock.
fn each(disk: &Disk<'_>, mut f: impl FnMut(u64, &[u8])) -> Result<(), CheckError> {
    let bs = disk.bs.bytes();
    let step = (PIECE >> disk.bs.shift()).max(1);
    let mut at = (65536 >> disk.bs.shift()) + 1;
    while at < disk.blocks {
        let count = step.min(disk.blocks - at);
        let bytes = disk.read_run(at, count, <[u8]>::to_vec)?;
        for (addr, block) in (at..).zip(bytes.chunks_exact(bs)) {
            f(addr, block);
        }
        at += count;
    }
    Ok(())
}
