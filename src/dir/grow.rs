//! Making room for a name: where it fits, and the four ways a directory grows (ondisk.md 5.6).
//!
//! Each [`Step`] leaves a valid directory with the same entries; those that a name needs and its insertion are one transaction.

use super::block::{self, Defect, Room};
use super::exhash::{Chain, is_exhash};
use super::hash::{self, Run};
use super::table::{self, Table};
use super::{linear, split};
use crate::cache::Buffer;
use crate::clock::Timestamp;
use crate::error::{CorruptKind, Error, Result};
use crate::file;
use crate::format::dinode::DINODE_SIZE;
use crate::format::directory::{DEPTH_MAX, LEAF_SIZE};
use crate::format::{DiFlags, Leaf, MetaType, OnDisk};
use crate::ids::{BlockAddr, DirHash, FileBlock};
use crate::inode::{Inode, Volume};
use crate::journal::Transaction;
use crate::rgrp::Space;
use std::sync::Arc;

/// Where a name would go.
pub(super) enum Spot {
    /// There is room.
    Here {
        /// In this block, a leaf or the dinode.
        buffer: Arc<Buffer>,
        /// Where in it.
        room: Room,
        /// The block is a leaf.
        leaf: bool,
    },
    /// There is none before this is done.
    After(Step),
}

/// One way to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Linear → exhash.
    Convert,
    /// Split the leaf of this run.
    Split {
        /// The leaf.
        leaf: BlockAddr,
        /// Its slots.
        run: Run,
    },
    /// Double the table.
    Double,
    /// Append a leaf to the chain whose last is this.
    Chain {
        /// Last leaf of the chain.
        last: BlockAddr,
        /// Leaves in the chain.
        len: u32,
    },
}

/// Finds room for a record of `need` bytes, or the next step towards it. Reads everything that the step will look at.
pub(super) fn spot(vol: &Volume, dir: &Inode, hash: DirHash, need: usize) -> Result<Spot> {
    if !is_exhash(dir) {
        linear::check_shape(vol, dir)?;
        let buffer = dir.buffer(vol)?;
        let room = block::find_room(&buffer.bytes(), DINODE_SIZE, need).map_err(|d| d.at(buffer.addr()))?;
        return Ok(match room {
            Some(room) => Spot::Here { buffer, room, leaf: false },
            None => Spot::After(Step::Convert),
        });
    }
    let mut table = Table::open(vol, dir)?;
    let index = hash::index(hash, table.depth);
    let first = table.leaf(index)?;
    let mut chain = Chain::new(vol, dir, table.depth, first);
    let (mut last, mut len, mut depth) = (first, 0, 0);
    while let Some(leaf) = chain.next()? {
        if let Some(room) = block::find_room(&leaf.bytes, LEAF_SIZE, need).map_err(|d| leaf.bad(d))? {
            return Ok(Spot::Here { buffer: leaf.buffer, room, leaf: true });
        }
        (last, len, depth) = (leaf.buffer.addr(), len + 1, leaf.depth());
    }
    // A chain is never split: entries of its other leaves would be left in the wrong run.
    Ok(Spot::After(if len > 1 || depth == u32::from(DEPTH_MAX) {
        Step::Chain { last, len }
    } else if depth < table.depth {
        let run = Run::around(index, table.depth, depth);
        table.check_run(run, first)?;
        Step::Split { leaf: first, run }
    } else {
        Step::Double
    }))
}

/// Takes one step, in the transaction; the caller writes the dinode back.
pub(super) fn take(
    vol: &Volume,
    tx: &mut Transaction<'_>,
    space: &mut Space<'_>,
    dir: &mut Inode,
    step: Step,
    now: Timestamp,
) -> Result<()> {
    match step {
        Step::Convert => convert(vol, tx, space, dir, now),
        Step::Split { leaf, run } => split_leaf(vol, tx, space, dir, leaf, run, now),
        Step::Double => double(vol, tx, space, dir),
        Step::Chain { last, len } => extend_chain(vol, tx, space, dir, last, len, now),
    }
}

/// Allocates a block for a leaf and accounts for it.
fn new_leaf(vol: &Volume, tx: &mut Transaction<'_>, space: &mut Space<'_>, dir: &mut Inode) -> Result<Arc<Buffer>> {
    let (addr, _) = space.alloc(tx, 1, Some(dir.goal(vol)), dir.owner())?;
    let blocks = dir.dinode.blocks.get().checked_add(1);
    dir.dinode.blocks.set(blocks.ok_or_else(|| Error::corrupt(dir.inum.addr, CorruptKind::Dinode("di_blocks")))?);
    dir.dinode.goal_meta.set(addr.get());
    dir.dinode.goal_data.set(addr.get());
    Ok(tx.new_meta(addr, dir.lock_name(), MetaType::Leaf))
}

/// Puts contents made elsewhere into a block; its header is the journal's.
fn put(tx: &mut Transaction<'_>, buffer: &Arc<Buffer>, bytes: &[u8]) {
    tx.edit(buffer, |block| block[24..].copy_from_slice(&bytes[24..]));
}

fn convert(
    vol: &Volume,
    tx: &mut Transaction<'_>,
    space: &mut Space<'_>,
    dir: &mut Inode,
    now: Timestamp,
) -> Result<()> {
    let at = dir.inum.addr;
    let old = dir.buffer(vol)?;
    let mut leaf = vec![0; vol.bs.bytes()];
    split::init_leaf(&mut leaf, at, 0, 1, now);
    let live = split::convert(&old.bytes(), &mut leaf).map_err(|d| d.at(at))?;
    if live != dir.dinode.entries.get() {
        return Err(Defect("wrong number of entries").at(at));
    }
    let buffer = new_leaf(vol, tx, space, dir)?;
    put(tx, &buffer, &leaf);
    tx.edit(&old, |block| split::first_table(block, vol.bs, buffer.addr()));
    let depth = split::first_depth(vol.bs);
    let dinode = &mut dir.dinode;
    dinode.size.set(8 << depth);
    dinode.depth.set(depth as u16);
    dinode.payload_format.set(0);
    dinode.flags.set(dinode.flags().with(DiFlags::EXHASH).0);
    Ok(())
}

fn split_leaf(
    vol: &Volume,
    tx: &mut Transaction<'_>,
    space: &mut Space<'_>,
    dir: &mut Inode,
    leaf: BlockAddr,
    run: Run,
    now: Timestamp,
) -> Result<()> {
    let old = vol.cache.meta(leaf, dir.lock_name(), MetaType::Leaf)?;
    let mut upper = old.bytes().to_vec();
    let depth = Leaf::view(&upper).depth.get() + 1;
    let mut lower = vec![0; upper.len()];
    split::init_leaf(&mut lower, dir.inum.addr, depth, 1, now);
    let half = Run { start: run.start, len: run.len / 2 };
    let divider = half.end() << (32 - u32::from(dir.dinode.depth.get()));
    split::split(&mut upper, &mut lower, divider).map_err(|d| d.at(leaf))?;
    Leaf::edit(&mut upper).depth.set(depth);
    split::touch_leaf(&mut upper, now);
    let new = new_leaf(vol, tx, space, dir)?;
    put(tx, &new, &lower);
    put(tx, &old, &upper);
    table::set_run(vol, tx, dir, half, Some(new.addr()))
}

fn double(vol: &Volume, tx: &mut Transaction<'_>, space: &mut Space<'_>, dir: &mut Inode) -> Result<()> {
    let (slots, depth) = {
        let mut table = Table::open(vol, dir)?;
        (split::double(&table.read_all()?), table.depth + 1)
    };
    if dir.is_stuffed() {
        file::unstuff(vol, tx, space, dir)?;
    }
    let per = table::slots_per_block(vol.bs) as usize;
    let count = u64::from(table::blocks(vol.bs, depth));
    let (owner, mut number) = (dir.lock_name(), 0);
    while number < count {
        let (addr, len, fresh) = file::map_for_write(vol, tx, space, dir, FileBlock(number), count - number)?;
        for i in 0..len {
            let addr = addr.saturating_add(i);
            let buffer = match fresh {
                true => tx.new_meta(addr, owner, MetaType::JournaledData),
                false => vol.cache.meta(addr, owner, MetaType::JournaledData)?,
            };
            let from = (number + i) as usize * per;
            let part = &slots[from..slots.len().min(from + per)];
            tx.edit(&buffer, |block| table::fill_jd(block, part));
        }
        number += len;
    }
    dir.dinode.size.set(8 << depth);
    dir.dinode.depth.set(depth as u16);
    Ok(())
}

fn extend_chain(
    vol: &Volume,
    tx: &mut Transaction<'_>,
    space: &mut Space<'_>,
    dir: &mut Inode,
    last: BlockAddr,
    len: u32,
    now: Timestamp,
) -> Result<()> {
    let before = vol.cache.meta(last, dir.lock_name(), MetaType::Leaf)?;
    let depth = Leaf::view(&before.bytes()).depth.get();
    let new = new_leaf(vol, tx, space, dir)?;
    tx.edit(&new, |block| split::init_leaf(block, dir.inum.addr, depth, len.saturating_add(1), now));
    tx.edit(&before, |block| {
        Leaf::edit(block).next.set(new.addr().get());
        split::touch_leaf(block, now);
    });
    Ok(())
}
