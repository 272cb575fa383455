//! Growing the tree (ondisk.md 4.5): unstuffing, raising the height, filling holes.
//!
//! A change is planned first ([`grow_cost`] reads what will be touched and counts exactly), then space and log room are set
//! aside ([`Room`]), then it is made inside a transaction by [`map_for_write`], which cannot run out of either.

use super::map::{Node, present};
use super::metapath::Shape;
use crate::error::{CorruptKind, Error, Result};
use crate::format::dinode::DINODE_SIZE;
use crate::format::{MetaType, put_pointer};
use crate::ids::{BlockAddr, FileBlock};
use crate::inode::{Inode, Volume};
use crate::journal::{Reserve, Transaction};
use crate::rgrp::{Space, Want};

/// What growing costs at most: for mapping `blocks` file blocks from `from` for writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrowCost {
    /// Blocks to allocate (data and indirect, unstuffing included).
    pub alloc: u32,
    /// Metadata blocks to log besides what `Space::log_blocks` counts: dinode, new and changed indirect blocks.
    pub log: u32,
}

/// The cost of mapping `blocks` blocks from `from` for writing. `alloc` is exact; `log` is an upper bound.
/// `metadata`: the data blocks themselves are logged (directory tables, journaled files): they then count in `log` too.
/// `TooBig` when a block lies beyond the largest tree.
pub fn grow_cost(vol: &Volume, inode: &Inode, from: FileBlock, blocks: u64, metadata: bool) -> Result<GrowCost> {
    let last = from.0.checked_add(blocks.max(1) - 1).ok_or(Error::TooBig)?;
    let shape = Shape::new(vol.bs);
    let old = inode.dinode.height.get();
    let new = shape.height_for(FileBlock(last)).max(old);
    if last >= shape.capacity(new) {
        return Err(Error::TooBig);
    }
    let unstuffs = inode.is_stuffed() && inode.dinode.size.get() > 0;
    let mut there = present(vol, inode, from.0, last)?;
    if unstuffs && from.0 == 0 && blocks > 0 {
        there[0] = 1;
    }
    // Pointer blocks whose slot 0 will lead to what the dinode points to now.
    let base = old.max(1);
    let chain = if new > base && (unstuffs || has_pointers(vol, inode)?) { u64::from(new - base) } else { 0 };
    let mut alloc = chain + u64::from(unstuffs) + blocks.saturating_sub(there[0]);
    let mut log = 1 + chain;
    if blocks > 0 {
        for k in 1..new {
            let touched = shape.touched(k, from.0, last);
            let exists = match k {
                k if k < base => there[usize::from(k)],
                k => u64::from(chain > 0 && shape.starts_in_first(k, from.0)),
            };
            alloc += touched.saturating_sub(exists);
            log += touched;
        }
    }
    if metadata || inode.is_jdata() {
        log += blocks + u64::from(unstuffs);
    }
    let fit = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(GrowCost { alloc: fit(alloc), log: fit(log) })
}

fn has_pointers(vol: &Volume, inode: &Inode) -> Result<bool> {
    if inode.is_stuffed() {
        return Ok(false);
    }
    let root = Node::root(vol, inode)?;
    Ok((0..root.slots()).any(|slot| root.raw(slot).is_some()))
}

/// Space and log room for mapping some blocks.
pub(super) struct Room<'v> {
    /// The space.
    pub(super) space: Space<'v>,
    /// How many file blocks may be mapped: as many as wanted, or fewer when space or log cannot take more at once.
    pub(super) blocks: u64,
    /// The log room to ask for.
    pub(super) reserve: Reserve,
}

impl<'v> Room<'v> {
    /// Sets space aside for mapping up to `want` file blocks from `from`, at least one. `NoSpace` when not even that is there.
    pub(super) fn find(vol: &'v Volume, inode: &mut Inode, from: u64, want: u64) -> Result<Self> {
        let max = vol.journal.max_reserve();
        let mut blocks = want.max(1);
        loop {
            let mut cost = grow_cost(vol, inode, FileBlock(from), blocks, false)?;
            if cost.log > max && blocks > 1 {
                blocks /= 2;
                continue;
            }
            let space = Self::space(vol, inode, from, blocks, cost)?;
            while cost.alloc > space.blocks() && blocks > 1 {
                blocks /= 2;
                cost = grow_cost(vol, inode, FileBlock(from), blocks, false)?;
            }
            if cost.alloc > space.blocks() {
                return Err(Error::NoSpace);
            }
            let log = cost.log.saturating_add(space.log_blocks());
            if log > max && blocks > 1 {
                blocks /= 2;
                continue;
            }
            return Ok(Self { space, blocks, reserve: Reserve::blocks(log) });
        }
    }

    fn space(vol: &'v Volume, inode: &mut Inode, from: u64, blocks: u64, cost: GrowCost) -> Result<Space<'v>> {
        if cost.alloc == 0 {
            return Ok(Space::empty());
        }
        let min = match blocks {
            1 => cost.alloc,
            _ => grow_cost(vol, inode, FileBlock(from), 1, false)?.alloc.clamp(1, cost.alloc),
        };
        let want = Want { blocks: cost.alloc, min, goal: inode.goal(vol), spread: false };
        vol.rgrps.reserve(want, &mut inode.resv)
    }
}

/// Allocates up to `want` contiguous blocks for the inode: di_blocks and goals move along.
fn take(
    vol: &Volume,
    tx: &mut Transaction<'_>,
    space: &mut Space<'_>,
    inode: &mut Inode,
    want: u32,
    after: Option<BlockAddr>,
) -> Result<(BlockAddr, u32)> {
    let near = after.unwrap_or_else(|| inode.goal(vol)).saturating_add(1);
    let (addr, got) = space.alloc(tx, want.max(1), Some(near), inode.owner())?;
    let blocks = inode.dinode.blocks.get().saturating_add(u64::from(got));
    inode.dinode.blocks.set(blocks);
    let goal = addr.saturating_add(u64::from(got) - 1).get();
    inode.dinode.goal_meta.set(goal);
    inode.dinode.goal_data.set(goal);
    Ok((addr, got))
}

/// Maps one file block for writing inside a transaction, allocating what is missing (height, indirect blocks, the block);
/// reads nothing that `grow_cost` has not read. Unstuffs first when the inode is stuffed. Updates di_blocks, goals, height in
/// `inode.dinode` (the caller calls `write_back`). Returns the extent, at most `max` long, and whether it is newly allocated
/// (all of it or nothing of it). What newly allocated blocks hold is the caller's to write.
pub fn map_for_write(
    vol: &Volume,
    tx: &mut Transaction<'_>,
    space: &mut Space<'_>,
    inode: &mut Inode,
    at: FileBlock,
    max: u64,
) -> Result<(BlockAddr, u64, bool)> {
    if inode.is_stuffed() {
        unstuff(vol, tx, space, inode)?;
    }
    let shape = Shape::new(vol.bs);
    let wanted = shape.height_for(at);
    if wanted > inode.dinode.height.get() {
        raise(vol, tx, space, inode, wanted)?;
    }
    let height = inode.dinode.height.get();
    let path = shape.path(height, at).ok_or(Error::TooBig)?;
    let mut node = Node::root(vol, inode)?;
    for level in 0..height - 1 {
        let slot = path.slot(level);
        node = match node.child(vol, inode, slot)? {
            Some(child) => child,
            None => new_child(vol, tx, space, inode, node, slot)?,
        };
    }
    fill(vol, tx, space, inode, node, path.last(), max)
}

/// Hangs an empty indirect block below `slot`.
fn new_child(
    vol: &Volume,
    tx: &mut Transaction<'_>,
    space: &mut Space<'_>,
    inode: &mut Inode,
    parent: Node,
    slot: usize,
) -> Result<Node> {
    let (addr, _) = take(vol, tx, space, inode, 1, None)?;
    tx.new_meta(addr, inode.lock_name(), MetaType::Indirect);
    let (buffer, start) = parent.release();
    tx.edit(&buffer, |b| put_pointer(b, start, slot, Some(addr)));
    Node::indirect(vol, inode, addr)
}

/// The extent at `slot`: the run that is there, or newly allocated blocks for the hole that is there.
fn fill(
    vol: &Volume,
    tx: &mut Transaction<'_>,
    space: &mut Space<'_>,
    inode: &mut Inode,
    node: Node,
    slot: usize,
    max: u64,
) -> Result<(BlockAddr, u64, bool)> {
    let room = (node.slots() - slot).min(usize::try_from(max.max(1)).unwrap_or(usize::MAX));
    if let Some(addr) = node.get(vol, slot)? {
        let mut len = 1;
        while len < room && node.raw(slot + len) == addr.checked_add(len as u64) {
            node.get(vol, slot + len)?;
            len += 1;
        }
        return Ok((addr, len as u64, false));
    }
    let hole = (0..room).take_while(|i| node.raw(slot + i).is_none()).count();
    let want = u32::try_from(hole).unwrap_or(u32::MAX).min(space.blocks());
    let before = slot.checked_sub(1).and_then(|s| node.raw(s)).filter(|&p| vol.rgrps.owns(p));
    let (addr, got) = take(vol, tx, space, inode, want, before)?;
    let (buffer, start) = node.release();
    tx.edit(&buffer, |b| {
        for i in 0..got as usize {
            put_pointer(b, start, slot + i, addr.checked_add(i as u64));
        }
    });
    Ok((addr, u64::from(got), true))
}

/// Height 0 → 1 (ondisk.md 4.5). For directories the data block gets a JD header and carries bs-24 bytes. The moved bytes of
/// an ordinary file are on the device before the transaction commits, whatever `data=` says: they were durable in the dinode.
pub fn unstuff(vol: &Volume, tx: &mut Transaction<'_>, space: &mut Space<'_>, inode: &mut Inode) -> Result<()> {
    if !inode.is_stuffed() {
        return Ok(());
    }
    let buffer = inode.buffer(vol)?;
    let size = inode.dinode.size.get();
    if size > vol.bs.stuffed_max() as u64 {
        return Err(Error::corrupt(inode.inum.addr, CorruptKind::Dinode("stuffed, but larger than its block")));
    }
    let mut pointer = None;
    if size > 0 {
        let (addr, _) = take(vol, tx, space, inode, 1, None)?;
        let bytes = buffer.bytes();
        let data = &bytes[DINODE_SIZE..DINODE_SIZE + size as usize];
        let name = inode.lock_name();
        if inode.is_dir() {
            let block = tx.new_meta(addr, name, MetaType::JournaledData);
            tx.edit(&block, |b| b[24..24 + data.len()].copy_from_slice(data));
        } else if inode.is_jdata() {
            let block = tx.new_jdata(addr, name);
            tx.edit(&block, |b| b[..data.len()].copy_from_slice(data));
        } else {
            vol.cache.data().write_part(name, addr, 0, data, true, Some(tx.batch()))?;
        }
        pointer = Some(addr);
    }
    tx.edit(&buffer, |b| {
        b[DINODE_SIZE..].fill(0);
        put_pointer(b, DINODE_SIZE, 0, pointer);
    });
    inode.dinode.height.set(1);
    Ok(())
}

/// Raises the height (≥ 1) to `to`: a chain of new indirect blocks between the dinode and what it points to. A tree without
/// pointers just becomes higher.
fn raise(vol: &Volume, tx: &mut Transaction<'_>, space: &mut Space<'_>, inode: &mut Inode, to: u16) -> Result<()> {
    let from = inode.dinode.height.get();
    let buffer = inode.buffer(vol)?;
    let pointers = buffer.bytes();
    let used = &pointers[DINODE_SIZE..DINODE_SIZE + 8 * vol.bs.dinode_pointers()];
    if used.iter().any(|&b| b != 0) {
        let mut chain = Vec::new();
        for _ in from..to {
            chain.push(take(vol, tx, space, inode, 1, None)?.0);
        }
        for (i, &addr) in chain.iter().enumerate() {
            let block = tx.new_meta(addr, inode.lock_name(), MetaType::Indirect);
            tx.edit(&block, |b| match chain.get(i + 1) {
                Some(&next) => put_pointer(b, 24, 0, Some(next)),
                None => b[24..24 + used.len()].copy_from_slice(used),
            });
        }
        tx.edit(&buffer, |b| {
            b[DINODE_SIZE..].fill(0);
            put_pointer(b, DINODE_SIZE, 0, chain.first().copied());
        });
    }
    inode.dinode.height.set(to);
    Ok(())
}
