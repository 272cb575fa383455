//! Freeing the leaves of a removed directory (ondisk.md 5.7).
//!
//! Some runs at a time: in one transaction their leaves are freed and their slots zeroed. A crash leaves zero slots, which the
//! next attempt skips. The transaction of the last run also turns the inode into a plain file, so that whoever goes on after a
//! crash frees what is left, the table, as ordinary blocks.

use super::block::Defect;
use super::exhash::{Chain, is_exhash};
use super::hash::Run;
use super::table::{self, Table};
use crate::error::{CorruptKind, Error, Result};
use crate::format::dinode::mode::S_IFREG;
use crate::format::{Leaf, MetaType, OnDisk};
use crate::ids::BlockAddr;
use crate::inode::{Inode, Volume};
use crate::journal::{Reserve, Transaction};
use crate::rgrp::FreeSet;

/// Leaves that one transaction frees at most, and table blocks after which it takes no further run.
const BATCH: usize = 64;

/// Frees the leaves of a removed directory, restartable; afterwards it is a plain file whose tree `file::free_tree` frees.
/// Does nothing for a linear directory.
pub fn free_leaves(vol: &Volume, dir: &mut Inode) -> Result<()> {
    if !dir.is_dir() || !is_exhash(dir) {
        return Ok(());
    }
    let mut index = 0;
    loop {
        let batch = Batch::gather(vol, dir, index)?;
        index = batch.end;
        if batch.free(vol, dir)? {
            return Ok(());
        }
    }
}

/// What one transaction frees.
#[derive(Default)]
struct Batch {
    /// Leaves.
    leaves: Vec<BlockAddr>,
    /// Their slots.
    runs: Vec<Run>,
    /// Table blocks with those slots, at most.
    table_blocks: u32,
    /// Leaf that becomes the last of its chain, because the chain is too long for one transaction.
    cut: Option<BlockAddr>,
    /// Slot where the next batch starts.
    end: u32,
    /// Nothing is left after this.
    last: bool,
}

impl Batch {
    /// The next runs from slot `index` on.
    fn gather(vol: &Volume, dir: &Inode, index: u32) -> Result<Self> {
        let mut table = Table::open(vol, dir)?;
        let slots = 1 << table.depth;
        let mut batch = Self { end: index, ..Self::default() };
        while batch.end < slots && batch.leaves.len() < BATCH && (batch.table_blocks as usize) < BATCH {
            let Some(first) = table.leaf_or_freed(batch.end)? else {
                batch.end += 1;
                continue;
            };
            let (chain, depth) = chain_of(vol, dir, table.depth, first)?;
            if batch.leaves.len() + chain.len() > BATCH {
                if batch.leaves.is_empty() {
                    // From the tail, so that what is left is a chain.
                    let keep = chain.len() - BATCH;
                    batch.cut = Some(chain[keep - 1]);
                    batch.leaves.extend_from_slice(&chain[keep..]);
                }
                return Ok(batch);
            }
            let run = Run::around(batch.end, table.depth, depth);
            if run.start != batch.end {
                return Err(Defect("leaf run that is not aligned").at(first));
            }
            table.check_run(run, first)?;
            batch.leaves.extend(chain);
            batch.runs.push(run);
            if !dir.is_stuffed() {
                batch.table_blocks += table::blocks_of_run(vol.bs, run);
            }
            batch.end = run.end();
        }
        batch.last = batch.end >= slots;
        Ok(batch)
    }

    /// Frees it in a transaction; true when it was the last.
    fn free(self, vol: &Volume, dir: &mut Inode) -> Result<bool> {
        let set = FreeSet::lock(&vol.rgrps, self.leaves.clone())?;
        let reserve = Reserve::blocks(set.log_blocks() + self.table_blocks + 2).with_revokes(set.blocks());
        let mut tx = vol.journal.begin(reserve)?;
        set.free(&mut tx, dir.owner())?;
        self.unlink(vol, &mut tx, dir)?;
        let blocks = dir.dinode.blocks.get().checked_sub(self.leaves.len() as u64);
        dir.dinode.blocks.set(blocks.ok_or_else(|| Error::corrupt(dir.inum.addr, CorruptKind::Dinode("di_blocks")))?);
        if self.last {
            dir.dinode.mode.set(S_IFREG);
        }
        dir.write_back(vol, &mut tx)?;
        tx.commit();
        Ok(self.last)
    }

    /// Takes the leaves out of the table or chain.
    fn unlink(&self, vol: &Volume, tx: &mut Transaction<'_>, dir: &Inode) -> Result<()> {
        for &run in &self.runs {
            table::set_run(vol, tx, dir, run, None)?;
        }
        if let Some(cut) = self.cut {
            let buffer = vol.cache.meta(cut, dir.lock_name(), MetaType::Leaf)?;
            tx.edit(&buffer, |block| Leaf::edit(block).next.set(0));
        }
        Ok(())
    }
}

/// Leaves of a chain, and the depth of the first.
fn chain_of(vol: &Volume, dir: &Inode, depth: u32, first: BlockAddr) -> Result<(Vec<BlockAddr>, u32)> {
    let (mut leaves, mut leaf_depth) = (Vec::new(), depth);
    let mut chain = Chain::new(vol, dir, depth, first);
    while let Some(leaf) = chain.next()? {
        if leaves.is_empty() {
            leaf_depth = leaf.depth();
        }
        leaves.push(leaf.buffer.addr());
    }
    Ok((leaves, leaf_depth))
}
