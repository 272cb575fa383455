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

/// What goes into the blocks of a file: the number of the block in the file, its address, its bytes (zeros).
pub type Contents<'c> = &'c dyn Fn(u64, BlockAddr, &mut [u8]);

/// Gives an ordinary file without blocks its first `blocks` blocks and writes all of them; its size stays as it is. `NotSupported`
/// on JDATA files. On `NoSpace` what was allocated stays.
pub fn fill(vol: &Volume, inode: &mut Inode, blocks: u64, contents: Contents<'_>) -> Result<()> {
    if inode.is_jdata() {
        return Err(Error::NotSupported);
    }
    let (mut at, most) = (0, CHUNK >> vol.bs.shift());
    while at < blocks {
        at += allocate_some(vol, inode, at, most.min(blocks - at), &|inode, block, addr, got, batch| {
            write_blocks(vol, inode, (block, addr, got), batch, contents)
        })?;
    }
    Ok(())
}

/// Buffers what `contents` says for a run of new blocks (number in the file, address, how many).
fn write_blocks(
    vol: &Volume,
    inode: &Inode,
    (block, addr, blocks): (u64, BlockAddr, u64),
    ordered: BatchId,
    contents: Contents<'_>,
) -> Result<()> {
    let most = (PIECE >> vol.bs.shift()) as u64;
    let mut done = 0;
    while done < blocks {
        let n = most.min(blocks - done);
        let mut piece = AlignedBuf::zeroed(n as usize * vol.bs.bytes());
        for (i, bytes) in (done..).zip(piece.chunks_exact_mut(vol.bs.bytes())) {
            contents(block + i, addr.saturating_add(i), bytes);
        }
        vol.cache.data().write(inode.lock_name(), addr.saturating_add(done), Arc::new(piece), Some(ordered))?;
        done += n;
    }
    Ok(())
}

/// Allocates up to `blocks` zeroed blocks of the hole at `at`, in one transaction; returns how many.
fn fill_hole(vol: &Volume, inode: &mut Inode, at: u64, blocks: u64) -> Result<u64> {
    allocate_some(vol, inode, at, blocks, &|inode, _, addr, got, batch| zero_blocks(vol, inode, addr, got, Some(batch)))
}

/// Writes a run of new blocks: the file, the number of the first in it, its address, how many, the batch they are ordered before.
type WriteRun<'w> = &'w dyn Fn(&Inode, u64, BlockAddr, u64, BatchId) -> Result<()>;

/// Allocates up to `blocks` blocks of the hole at `at`, in one transaction, and has them written; returns how many.
fn allocate_some(vol: &Volume, inode: &mut Inode, at: u64, blocks: u64, write: WriteRun<'_>) -> Result<u64> {
    let Room { mut space, blocks, reserve } = Room::find(vol, inode, at, blocks)?;
    change(vol, inode, reserve, |tx, inode| {
        let mut done = 0;
        while done < blocks {
            let block = at.saturating_add(done);
            let (addr, got, fresh) = map_for_write(vol, tx, &mut space, inode, FileBlock(block), blocks - done)?;
            // Not fresh: the block that held the stuffed contents until now.
            if fresh {
                write(inode, block, addr, got, tx.batch())?;
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
