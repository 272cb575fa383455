//! Freeing scattered blocks together: all their resource groups are locked, in ascending order.

use super::{FreeSpace, Owner, Rgrps};
use crate::error::{CorruptKind, Error, Result};
use crate::ids::BlockAddr;
use crate::journal::Transaction;

/// Blocks that are to be freed in one transaction, with the locks of their rgrps.
pub struct FreeSet<'r> {
    places: Vec<(FreeSpace<'r>, Vec<(BlockAddr, u32)>)>,
    blocks: u32,
    /// Blocks that one bitmap block describes.
    reach: u32,
}

impl<'r> FreeSet<'r> {
    /// Locks the rgrps of these blocks. A block that is named twice belongs to two owners: corruption.
    pub fn lock(rgrps: &'r Rgrps, mut blocks: Vec<BlockAddr>) -> Result<Self> {
        blocks.sort_unstable();
        // Of a group that another node has added we learn under the rindex's lock: not while we hold groups, for which that node may
        // wait. New ones lie behind all others.
        if let Some(&last) = blocks.last() {
            rgrps.of(last)?;
        }
        let reach = 4 * (rgrps.cx.cache.block_size().bytes() as u32 - 128);
        let mut set = Self { places: Vec::new(), blocks: 0, reach };
        let mut before = None;
        for block in blocks {
            if before == Some(block) {
                return Err(Error::corrupt(block, CorruptKind::Pointer(block.get())));
            }
            before = Some(block);
            set.blocks += 1;
            match set.places.last_mut() {
                Some((free, runs)) if free.covers(block) => match runs.last_mut() {
                    Some((start, len)) if start.saturating_add(u64::from(*len)) == block => *len += 1,
                    _ => runs.push((block, 1)),
                },
                _ => set.places.push((rgrps.lock_for_free(block)?, vec![(block, 1)])),
            }
        }
        Ok(set)
    }
    /// How many blocks.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }
    /// Metadata blocks that freeing them may add to a transaction, the ledger's included.
    pub fn log_blocks(&self) -> u32 {
        let counted = |runs: &[(BlockAddr, u32)]| runs.iter().map(|(_, len)| 1 + len / self.reach).sum();
        self.places.iter().map(|(free, runs)| free.log_blocks(counted(runs))).sum()
    }
    /// Frees them all.
    pub fn free(mut self, tx: &mut Transaction<'_>, owner: Option<Owner>) -> Result<()> {
        for (free, runs) in &mut self.places {
            for &(start, len) in runs.iter() {
                free.free(tx, start, len, owner)?;
            }
        }
        Ok(())
    }
}
