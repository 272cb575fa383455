//! fallocate(2): blocks that are there before they are written. There are no unwritten extents in GFS2, so they are zeroed on
//! the device.

use super::data::PIECE;
use super::grow::{Room, grow_cost, map_for_write};
use super::io::touch;
use super::map::map;
use super::punch::{edges, gap};
use super::{MAX_SIZE, change, stuffed};
use crate::device::AlignedBuf;
use crate::error::{Error, Result};
use crate::ids::{BatchId, BlockAddr, FileBlock};
use crate::inode::{Inode, Volume};
use crate::journal::Reserve;
use std::sync::Arc;

/// Most bytes that one transaction allocates.
const CHUNK: u64 = 8 << 20;

/// Blocks that [`allocate`] would have to allocate for this range: 0 where it fits into the dinode.
pub fn allocate_cost(vol: &Volume, inode: &Inode, offset: u64, end: u64) -> Result<u32> {
    if inode.is_stuffed() && end <= vol.bs.stuffed_max() as u64 {
        return Ok(0);
    }
    let first = vol.bs.block_of(offset);
    Ok(grow_cost(vol, inode, FileBlock(first), vol.bs.blocks_for(end) - first, false)?.alloc)
}

/// fallocate(2), default mode or KEEP_SIZE: allocates and zeroes. `NotSupported` on JDATA files. On `NoSpace` what was allocated
/// stays, beyond the end of the file if the size was to grow.
pub fn allocate(vol: &Volume, inode: &mut Inode, offset: u64, len: u64, keep_size: bool) -> Result<()> {
    let end = check(inode, offset, len)?;
    let in_dinode = inode.is_stuffed() && end <= vol.bs.stuffed_max() as u64;
    if !in_dinode {
        let (mut at, last) = (vol.bs.block_of(offset), vol.bs.block_of(end - 1));
        while at <= last {
            let extent = map(vol, inode, FileBlock(at), last - at + 1)?;
            let blocks = match extent.start {
                Some(_) => extent.len,
                None => fill_hole(vol, inode, at, extent.len.min(CHUNK >> vol.bs.shift()))?,
            };
            at = at.saturating_add(blocks);
        }
    }
    let now = vol.clock.now();
    let grows = !keep_size && end > inode.dinode.size.get();
    let gap = if grows { gap(vol, inode, end)? } else { None };
    change(vol, inode, Reserve::blocks(1), |tx, inode| {
        touch(inode, now);
        if !grows {
            return Ok(());
        }
        if let Some(gap) = &gap {
            gap.apply(vol, tx)?;
        }
        if in_dinode {
            return stuffed::resize(vol, tx, inode, end);
        }
        inode.dinode.size.set(end);
        Ok(())
    })?;
    Ok(())
}

/// fallocate ZERO_RANGE: what is there becomes zero in place, holes are allocated. `NotSupported` on JDATA files.
pub fn zero_range(vol: &Volume, inode: &mut Inode, offset: u64, len: u64, keep_size: bool) -> Result<()> {
    let end = check(inode, offset, len)?;
    if inode.is_stuffed() {
        let to = end.min(inode.dinode.size.get()) as usize;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(to);
        change(vol, inode, Reserve::blocks(1), |tx, inode| stuffed::zero(vol, tx, inode, from, to))?;
        return allocate(vol, inode, offset, len, keep_size);
    }
    let edges = edges(vol, inode, offset, end)?;
    change(vol, inode, Reserve::blocks(1), |tx, _| edges.iter().try_for_each(|edge| edge.apply(vol, tx)))?;
    let (mut at, last) = (vol.bs.blocks_for(offset), vol.bs.block_of(end));
    while at < last {
        let extent = map(vol, inode, FileBlock(at), last - at)?;
        if let Some(start) = extent.start {
            zero_blocks(vol, inode, start, extent.len, None)?;
        }
        at = at.saturating_add(extent.len);
    }
    allocate(vol, inode, offset, len, keep_size)
}

/// The end of the range, if it may be allocated.
fn check(inode: &Inode, offset: u64, len: u64) -> Result<u64> {
    if inode.is_jdata() {
        return Err(Error::NotSupported);
    }
    if len == 0 {
        return Err(Error::Invalid);
    }
    offset.checked_add(len).filter(|&end| end <= MAX_SIZE).ok_or(Error::TooBig)
}

/// Allocates up to `blocks` zeroed blocks of the hole at `at`, in one transaction; returns how many.
fn fill_hole(vol: &Volume, inode: &mut Inode, at: u64, blocks: u64) -> Result<u64> {
    let Room { mut space, blocks, reserve } = Room::find(vol, inode, at, blocks)?;
    change(vol, inode, reserve, |tx, inode| {
        let mut done = 0;
        while done < blocks {
            let block = FileBlock(at.saturating_add(done));
            let (addr, got, fresh) = map_for_write(vol, tx, &mut space, inode, block, blocks - done)?;
            // Not fresh: the block that held the stuffed contents until now.
            if fresh {
                zero_blocks(vol, inode, addr, got, Some(tx.batch()))?;
            }
            done += got;
        }
        Ok(())
    })?;
    Ok(blocks)
}

/// Buffers zeros for whole blocks; the pieces share one buffer.
fn zero_blocks(vol: &Volume, inode: &Inode, start: BlockAddr, blocks: u64, ordered: Option<BatchId>) -> Result<()> {
    let most = (PIECE >> vol.bs.shift()) as u64;
    let full = Arc::new(AlignedBuf::zeroed(most.min(blocks) as usize * vol.bs.bytes()));
    let mut done = 0;
    while done < blocks {
        let n = most.min(blocks - done);
        let bytes = n as usize * vol.bs.bytes();
        let zeros = if bytes == full.len() { Arc::clone(&full) } else { Arc::new(AlignedBuf::zeroed(bytes)) };
        vol.cache.data().write(inode.lock_name(), start.saturating_add(done), zeros, ordered)?;
        done += n;
    }
    Ok(())
}
