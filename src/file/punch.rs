//! Making files smaller: truncate, holes, the final freeing of a tree (ondisk.md 4.6, 4.7).

use super::data::Zeroing;
use super::grow::{grow_cost, unstuff};
use super::io::touch;
use super::map::map;
use super::piece::{Piece, Range, first_work};
use super::{MAX_SIZE, change, stuffed};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::format::DiFlags;
use crate::format::dinode::DINODE_SIZE;
use crate::ids::FileBlock;
use crate::inode::{Inode, Volume};
use crate::journal::{Reserve, Transaction};
use crate::rgrp::{Space, Want};

/// Sets the size (ondisk.md 4.6), shrinking in many transactions (TRUNC_IN_PROG) or growing; sets mtime and ctime. Blocks
/// beyond the end go, also when the size stays as it is.
pub fn truncate(vol: &Volume, inode: &mut Inode, size: u64) -> Result<()> {
    if size > MAX_SIZE {
        return Err(Error::TooBig);
    }
    let now = vol.clock.now();
    if inode.is_stuffed() {
        return resize_stuffed(vol, inode, size, now);
    }
    if size > inode.dinode.size.get() {
        let gap = gap(vol, inode, size)?;
        change(vol, inode, Reserve::blocks(2), |tx, inode| {
            inode.dinode.size.set(size);
            touch(inode, now);
            gap.map_or(Ok(()), |gap| gap.apply(vol, tx))
        })?;
        return Ok(());
    }
    shrink(vol, inode, size, now)
}

/// Blocks that [`truncate`] would have to allocate: the one into which the dinode's contents move.
pub fn resize_cost(vol: &Volume, inode: &Inode, size: u64) -> Result<u64> {
    if !inode.is_stuffed() || size <= vol.bs.stuffed_max() as u64 {
        return Ok(0);
    }
    Ok(grow_cost(vol, inode, FileBlock(0), 0, false)?.alloc.into())
}

fn resize_stuffed(vol: &Volume, inode: &mut Inode, size: u64, now: Timestamp) -> Result<()> {
    if size <= vol.bs.stuffed_max() as u64 {
        change(vol, inode, Reserve::blocks(1), |tx, inode| {
            touch(inode, now);
            stuffed::resize(vol, tx, inode, size)
        })?;
        return Ok(());
    }
    let cost = grow_cost(vol, inode, FileBlock(0), 0, false)?;
    let mut space = match cost.alloc {
        0 => Space::empty(),
        n => {
            let want = Want { blocks: n, min: n, goal: inode.goal(vol), spread: false };
            vol.rgrps.reserve(want, &mut inode.resv)?
        }
    };
    change(vol, inode, Reserve::blocks(cost.log + space.log_blocks()), |tx, inode| {
        unstuff(vol, tx, &mut space, inode)?;
        inode.dinode.size.set(size);
        touch(inode, now);
        Ok(())
    })?;
    Ok(())
}

/// Shrinks a file that has a tree.
fn shrink(vol: &Volume, inode: &mut Inode, size: u64, now: Timestamp) -> Result<()> {
    let range = beyond(vol, size);
    let edge = edge(vol, inode, size, vol.bs.bytes() as u64)?;
    let cut = |tx: &mut Transaction<'_>, inode: &mut Inode| -> Result<()> {
        if let Some(edge) = &edge {
            edge.apply(vol, tx)?;
        }
        inode.dinode.size.set(size);
        touch(inode, now);
        Ok(())
    };
    let Some(first) = first_work(vol, inode, range)? else {
        change(vol, inode, Reserve::blocks(2), |tx, inode| {
            cut(tx, inode)?;
            collapse(vol, tx, inode)
        })?;
        return Ok(());
    };
    let mut free = vol.rgrps.lock_for_free(first)?;
    let piece = Piece::plan(vol, inode, &free, range)?;
    if piece.finished {
        let reserve = piece.reserve(vol, &free, 0);
        change(vol, inode, reserve, |tx, inode| {
            cut(tx, inode)?;
            piece.apply(tx, &mut free, inode)?;
            collapse(vol, tx, inode)
        })?;
        return Ok(());
    }
    drop(free);
    change(vol, inode, Reserve::blocks(2), |tx, inode| {
        cut(tx, inode)?;
        let flags = inode.flags().with(DiFlags::TRUNC_IN_PROG);
        inode.dinode.flags.set(flags.0);
        Ok(())
    })?;
    resume_truncate(vol, inode)
}

/// The file blocks that a file of this size does not need.
fn beyond(vol: &Volume, size: u64) -> Range {
    Range { from: vol.bs.blocks_for(size), to: u64::MAX }
}

/// Zeroing from byte `offset` to byte `to` of its block (at most to the block's end), if it is mapped and not covered whole.
fn edge(vol: &Volume, inode: &Inode, offset: u64, to: u64) -> Result<Option<Zeroing>> {
    let from = vol.bs.within(offset);
    let to = to.min(vol.bs.bytes() as u64) as usize;
    if from >= to || from == 0 && to == vol.bs.bytes() {
        return Ok(None);
    }
    let extent = map(vol, inode, FileBlock(vol.bs.block_of(offset)), 1)?;
    match extent.start {
        Some(addr) => Zeroing::prepare(vol, inode, addr, from, to),
        None => Ok(None),
    }
}

/// Zeroing of what lies between the end of the file and byte `to`, in the end's block, before the file grows past it. It is
/// zero already, unless a crash came between a write of data and the commit of the size that makes it part of the file.
pub(super) fn gap(vol: &Volume, inode: &Inode, to: u64) -> Result<Option<Zeroing>> {
    let size = inode.dinode.size.get();
    if to <= size || inode.is_stuffed() {
        return Ok(None);
    }
    let start_of_block = size - size % vol.bs.bytes() as u64;
    if start_of_block == size { Ok(None) } else { edge(vol, inode, size, to - start_of_block) }
}

/// A file truncated to nothing is stuffed again: height 0, no pointers, the goal its own address.
fn collapse(vol: &Volume, tx: &mut Transaction<'_>, inode: &mut Inode) -> Result<()> {
    if inode.dinode.size.get() == 0 {
        let buffer = inode.buffer(vol)?;
        tx.edit(&buffer, |b| b[DINODE_SIZE..].fill(0));
        inode.dinode.height.set(0);
        inode.dinode.goal_meta.set(inode.inum.addr.get());
        inode.dinode.goal_data.set(inode.inum.addr.get());
    }
    Ok(())
}

/// Finishes a truncate that was interrupted (TRUNC_IN_PROG set).
pub fn resume_truncate(vol: &Volume, inode: &mut Inode) -> Result<()> {
    free_range(vol, inode, beyond(vol, inode.dinode.size.get()))?;
    let now = vol.clock.now();
    change(vol, inode, Reserve::blocks(1), |tx, inode| {
        let flags = inode.flags().without(DiFlags::TRUNC_IN_PROG);
        inode.dinode.flags.set(flags.0);
        touch(inode, now);
        collapse(vol, tx, inode)
    })?;
    Ok(())
}

/// Frees what a range of file blocks holds, one piece per transaction.
fn free_range(vol: &Volume, inode: &mut Inode, range: Range) -> Result<()> {
    while let Some(first) = first_work(vol, inode, range)? {
        let mut free = vol.rgrps.lock_for_free(first)?;
        let piece = Piece::plan(vol, inode, &free, range)?;
        let reserve = piece.reserve(vol, &free, 0);
        change(vol, inode, reserve, |tx, inode| piece.apply(tx, &mut free, inode))?;
        if piece.finished {
            break;
        }
    }
    Ok(())
}

/// Frees the whole tree of an UNLINKED inode (final delete); height becomes 0. Restartable.
pub fn free_tree(vol: &Volume, inode: &mut Inode) -> Result<()> {
    if inode.is_stuffed() {
        return Ok(());
    }
    free_range(vol, inode, Range::ALL)?;
    change(vol, inode, Reserve::blocks(1), |tx, inode| {
        inode.dinode.size.set(0);
        collapse(vol, tx, inode)
    })?;
    Ok(())
}

/// Punches a hole: [offset, offset+len), size unchanged; sets mtime and ctime. Partly covered blocks are zeroed, whole ones
/// freed, and so are pointer blocks that map nothing else.
pub fn punch(vol: &Volume, inode: &mut Inode, offset: u64, len: u64) -> Result<()> {
    let end = offset.saturating_add(len).min(MAX_SIZE);
    if offset >= end {
        return Ok(());
    }
    let now = vol.clock.now();
    if inode.is_stuffed() {
        change(vol, inode, Reserve::blocks(1), |tx, inode| {
            touch(inode, now);
            let to = end.min(inode.dinode.size.get()) as usize;
            stuffed::zero(vol, tx, inode, usize::try_from(offset).unwrap_or(usize::MAX).min(to), to)
        })?;
        return Ok(());
    }
    let edges = edges(vol, inode, offset, end)?;
    change(vol, inode, Reserve::blocks(1 + edges.len() as u32), |tx, inode| {
        touch(inode, now);
        edges.iter().try_for_each(|edge| edge.apply(vol, tx))
    })?;
    let range = Range { from: vol.bs.blocks_for(offset), to: vol.bs.block_of(end) };
    if range.from < range.to { free_range(vol, inode, range) } else { Ok(()) }
}

/// The partly covered blocks at the ends of `offset..end`.
pub(super) fn edges(vol: &Volume, inode: &Inode, offset: u64, end: u64) -> Result<Vec<Zeroing>> {
    let bs = vol.bs.bytes() as u64;
    let start_of_last = end - end % bs;
    if vol.bs.block_of(offset) == vol.bs.block_of(end - 1) {
        let to = end - (offset - offset % bs);
        return Ok(edge(vol, inode, offset, to)?.into_iter().collect());
    }
    let head = edge(vol, inode, offset, bs)?;
    let tail = if start_of_last < end { edge(vol, inode, start_of_last, end - start_of_last)? } else { None };
    Ok(head.into_iter().chain(tail).collect())
}
