//! The hash table of an exhash directory (ondisk.md 5.1): 2^d leaf addresses, in the dinode while they fit half a block, then
//! in JD blocks of the directory's file tree.

use super::block::Defect;
use super::hash::Run;
use super::split;
use crate::cache::Buffer;
use crate::error::{CorruptKind, Error, Result};
use crate::file;
use crate::format::dinode::DINODE_SIZE;
use crate::format::directory::DEPTH_MAX;
use crate::format::{MetaType, get_u64, put_u64};
use crate::ids::{BlockAddr, BlockSize, FileBlock};
use crate::inode::{Inode, Volume};
use crate::journal::Transaction;
use std::sync::Arc;

/// Bytes of a JD block before its slots.
const JD_HEADER: usize = 24;

/// Slots in a JD block.
pub(super) fn slots_per_block(bs: BlockSize) -> u32 {
    bs.indirect_pointers() as u32
}

/// JD blocks of a table of this depth.
pub(super) fn blocks(bs: BlockSize, depth: u32) -> u32 {
    (1u32 << depth).div_ceil(slots_per_block(bs))
}

/// JD blocks that hold a run.
pub(super) fn blocks_of_run(bs: BlockSize, run: Run) -> u32 {
    let per = slots_per_block(bs);
    (run.end() - 1) / per - run.start / per + 1
}

/// A directory's table, read slot by slot. Keeps the block it read last.
pub(super) struct Table<'a> {
    vol: &'a Volume,
    dir: &'a Inode,
    /// log2 of the number of slots.
    pub(super) depth: u32,
    /// Number of the block in `block`; meaningless while that is `None`.
    number: u32,
    block: Option<(BlockAddr, Arc<[u8]>)>,
}

impl<'a> Table<'a> {
    /// Checks depth and size of the table.
    pub(super) fn open(vol: &'a Volume, dir: &'a Inode) -> Result<Self> {
        let depth = u32::from(dir.dinode.depth.get());
        let fits = !dir.is_stuffed() || 8u64 << depth <= vol.bs.stuffed_max() as u64;
        if depth < split::first_depth(vol.bs).min(u32::from(DEPTH_MAX))
            || depth > u32::from(DEPTH_MAX)
            || dir.dinode.size.get() != 8 << depth
            || !fits
        {
            return Err(Defect("hash table of impossible size").at(dir.inum.addr));
        }
        Ok(Self { vol, dir, depth, number: 0, block: None })
    }

    /// The raw address in slot `index` (below 2^depth), the block that holds the slot.
    fn raw(&mut self, index: u32) -> Result<(u64, BlockAddr)> {
        let per = slots_per_block(self.vol.bs);
        let stuffed = self.dir.is_stuffed();
        let (number, offset) = if stuffed {
            (0, DINODE_SIZE + 8 * index as usize)
        } else {
            (index / per, JD_HEADER + 8 * (index % per) as usize)
        };
        let (addr, bytes) = match self.block.take() {
            Some(block) if self.number == number => block,
            _ => {
                let buffer = if stuffed { self.dir.buffer(self.vol)? } else { jd_block(self.vol, self.dir, number)? };
                (buffer.addr(), buffer.bytes())
            }
        };
        let raw = get_u64(&bytes, offset);
        (self.number, self.block) = (number, Some((addr, bytes)));
        Ok((raw, addr))
    }

    /// The leaf in slot `index`; a slot without one is corruption.
    pub(super) fn leaf(&mut self, index: u32) -> Result<BlockAddr> {
        let at = self.dir.inum.addr;
        self.leaf_or_freed(index)?.ok_or_else(|| Defect("hash table slot without a leaf").at(at))
    }

    /// The leaf in slot `index`; `None` when it was freed (a directory whose removal is under way).
    pub(super) fn leaf_or_freed(&mut self, index: u32) -> Result<Option<BlockAddr>> {
        let (raw, at) = self.raw(index)?;
        match BlockAddr::new(raw) {
            Some(leaf) if !self.vol.rgrps.owns(leaf) => Err(Error::corrupt(at, CorruptKind::Pointer(raw))),
            leaf => Ok(leaf),
        }
    }

    /// Checks that every slot of the run is `leaf`.
    pub(super) fn check_run(&mut self, run: Run, leaf: BlockAddr) -> Result<()> {
        for index in run.start..run.end() {
            if self.raw(index)?.0 != leaf.get() {
                return Err(Defect("slots of a leaf do not agree with its depth").at(leaf));
            }
        }
        Ok(())
    }

    /// All slots.
    pub(super) fn read_all(&mut self) -> Result<Vec<u64>> {
        (0..1u32 << self.depth).map(|index| Ok(self.raw(index)?.0)).collect()
    }
}

/// JD block number `number` of a table that is not in the dinode.
fn jd_block(vol: &Volume, dir: &Inode, number: u32) -> Result<Arc<Buffer>> {
    let extent = file::map(vol, dir, FileBlock(u64::from(number)), 1)?;
    let addr = extent.start.ok_or_else(|| Defect("hole in a hash table").at(dir.inum.addr))?;
    vol.cache.meta(addr, dir.lock_name(), MetaType::JournaledData)
}

/// Sets every slot of a run; the blocks were read before the transaction (`Table::check_run`).
pub(super) fn set_run(
    vol: &Volume,
    tx: &mut Transaction<'_>,
    dir: &Inode,
    run: Run,
    to: Option<BlockAddr>,
) -> Result<()> {
    let raw = BlockAddr::raw(to);
    if dir.is_stuffed() {
        let buffer = dir.buffer(vol)?;
        tx.edit(&buffer, |block| {
            (run.start..run.end()).for_each(|i| put_u64(block, DINODE_SIZE + 8 * i as usize, raw))
        });
        return Ok(());
    }
    let per = slots_per_block(vol.bs);
    let mut index = run.start;
    while index < run.end() {
        let buffer = jd_block(vol, dir, index / per)?;
        let end = run.end().min((index / per + 1) * per);
        tx.edit(&buffer, |block| (index..end).for_each(|i| put_u64(block, JD_HEADER + 8 * (i % per) as usize, raw)));
        index = end;
    }
    Ok(())
}

/// Writes slots `slots` into JD block contents, from its first slot on; what follows them is zero.
pub(super) fn fill_jd(block: &mut [u8], slots: &[u64]) {
    block[JD_HEADER..].fill(0);
    for (i, &slot) in slots.iter().enumerate() {
        put_u64(block, JD_HEADER + 8 * i, slot);
    }
}
