//! When a revoke is owed, and when it ends (ondisk.md 8.7).
//!
//! A revoke for a block must be written when the block is freed, or its lock given up, while a copy of it lies in the active
//! part of the log. [`Copies`] knows which blocks have one: it learns of a copy when its group is snapshotted, and forgets it
//! when a durable tail has passed the newest group that holds one, or when a revoke after it is durable.

use crate::cache::{AddrMap, AddrSet};
use crate::ids::{BatchId, BlockAddr, LockName};
use std::collections::HashMap;

/// Blocks of which a copy lies in the active log, each with the newest group that has one.
#[derive(Default)]
pub(super) struct Copies {
    blocks: AddrMap<(BatchId, LockName)>,
    owners: HashMap<LockName, AddrSet>,
}

impl Copies {
    /// The newest group that holds a copy.
    pub(super) fn newest(&self, addr: BlockAddr) -> Option<BatchId> {
        self.blocks.get(&addr).map(|(batch, _)| *batch)
    }
    /// Blocks of this run with copies, ascending in no order.
    pub(super) fn in_run(&self, start: BlockAddr, blocks: u64) -> Vec<BlockAddr> {
        let end = start.saturating_add(blocks);
        if (self.blocks.len() as u64) < blocks {
            return self.blocks.keys().filter(|a| (start..end).contains(*a)).copied().collect();
        }
        (0..blocks).filter_map(|i| start.checked_add(i)).filter(|a| self.blocks.contains_key(a)).collect()
    }
    /// Blocks of this lock with copies.
    pub(super) fn of_owner(&self, owner: LockName) -> Vec<BlockAddr> {
        self.owners.get(&owner).map(|set| set.iter().copied().collect()).unwrap_or_default()
    }
    /// A group has one.
    pub(super) fn add(&mut self, addr: BlockAddr, owner: LockName, batch: BatchId) {
        if let Some((_, before)) = self.blocks.insert(addr, (batch, owner))
            && before != owner
        {
            self.unindex(before, addr);
        }
        self.owners.entry(owner).or_default().insert(addr);
    }
    /// Copies in this group and older ones no longer count: the tail has passed them, or a later revoke is durable.
    pub(super) fn drop_upto(&mut self, addr: BlockAddr, batch: BatchId) {
        if let Some((newest, owner)) = self.blocks.get(&addr).copied()
            && newest <= batch
        {
            self.blocks.remove(&addr);
            self.unindex(owner, addr);
        }
    }
    fn unindex(&mut self, owner: LockName, addr: BlockAddr) {
        if let Some(set) = self.owners.get_mut(&owner) {
            set.remove(&addr);
            if set.is_empty() {
                self.owners.remove(&owner);
            }
        }
    }
}
