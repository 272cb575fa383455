//! Committed blocks that are not yet in place (the kernel's AIL1), group by group.
//!
//! One entry per address: a block that is logged again moves to the newer group when that commits. A group is *finished* when
//! none of its blocks is left here; the log's tail is the start of the oldest group that is not.
//!
//! A block that a running transaction has freed stays here until the freeing batch commits ([`Entry::gone`]): it is no longer
//! written in place, but before that commit a crash must still find its copy in the log, so its group counts as unfinished
//! for every header of an older batch.

use crate::cache::{AddrMap, Buffer};
use crate::ids::{BatchId, BlockAddr, LockName};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A committed block.
pub(super) struct Entry {
    pub(super) buffer: Arc<Buffer>,
    /// As committed; the buffer may be newer.
    pub(super) bytes: Arc<[u8]>,
    pub(super) group: BatchId,
    /// The batch that freed it.
    pub(super) gone: Option<BatchId>,
}

/// A group in the log.
struct Group {
    id: BatchId,
    /// Position of its first block.
    start: u64,
    /// Entries left.
    left: usize,
    /// All blocks it logged.
    logged: Vec<BlockAddr>,
}

#[derive(Default)]
pub(super) struct Ail {
    entries: AddrMap<Entry>,
    /// Oldest first.
    groups: VecDeque<Group>,
}

/// Which blocks to write in place.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Those of groups up to this one.
    Upto(BatchId),
    /// Those of one lock.
    Owner(LockName),
}

impl Ail {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    pub(super) fn get_mut(&mut self, addr: BlockAddr) -> Option<&mut Entry> {
        self.entries.get_mut(&addr)
    }
    /// Adds a group that has committed.
    pub(super) fn add_group(&mut self, id: BatchId, start: u64, blocks: Vec<(BlockAddr, Entry)>) {
        let logged = blocks.iter().map(|(a, _)| *a).collect();
        self.groups.push_back(Group { id, start, left: blocks.len(), logged });
        for (addr, entry) in blocks {
            entry.buffer.set_in_ail(true);
            if let Some(old) = self.entries.insert(addr, entry) {
                self.count_down(old.group);
            }
        }
    }
    /// Start of the oldest group that stays unfinished when `logged` (moving to a new group) and `gone` (freed by it) leave.
    pub(super) fn oldest_start<'a>(&self, leaving: impl Iterator<Item = &'a BlockAddr>) -> Option<u64> {
        let mut fewer: BTreeMap<BatchId, usize> = BTreeMap::new();
        for addr in leaving {
            if let Some(entry) = self.entries.get(addr) {
                *fewer.entry(entry.group).or_default() += 1;
            }
        }
        self.groups.iter().find(|g| g.left > fewer.get(&g.id).copied().unwrap_or(0)).map(|g| g.start)
    }
    /// The batch that freed this block has committed.
    pub(super) fn drop_gone(&mut self, addr: BlockAddr, batch: BatchId) {
        if self.entries.get(&addr).is_some_and(|e| e.gone == Some(batch)) {
            self.remove(addr);
        }
    }
    /// Up to `max` blocks to write, those of the oldest groups first, sorted by address.
    pub(super) fn choose(
        &self,
        which: Place,
        of_owner: &[BlockAddr],
        max: usize,
    ) -> Vec<(BlockAddr, BatchId, Arc<[u8]>)> {
        let mut chosen = Vec::new();
        let mut add = |addr: &BlockAddr, group: Option<BatchId>| {
            if let Some(e) = self.entries.get(addr)
                && e.gone.is_none()
                && group.is_none_or(|g| g == e.group)
            {
                chosen.push((*addr, e.group, e.bytes.clone()));
            }
            chosen.len() < max
        };
        match which {
            Place::Upto(upto) => {
                let groups = self.groups.iter().filter(|g| g.left > 0).take_while(|g| g.id <= upto);
                let _all = groups.flat_map(|g| g.logged.iter().map(|a| (a, g.id))).all(|(a, g)| add(a, Some(g)));
            }
            Place::Owner(_) => {
                let _all = of_owner.iter().all(|a| add(a, None));
            }
        }
        chosen.sort_unstable_by_key(|(a, ..)| *a);
        chosen
    }
    /// The copy that `group` logged is in place.
    pub(super) fn written(&mut self, addr: BlockAddr, group: BatchId) {
        if self.entries.get(&addr).is_some_and(|e| e.group == group) {
            self.remove(addr);
        }
    }
    /// The durable tail is here now: groups before it leave; what they logged is returned.
    pub(super) fn pass(&mut self, tail: u64) -> Vec<(BatchId, Vec<BlockAddr>)> {
        let mut passed = Vec::new();
        while self.groups.front().is_some_and(|g| g.start < tail) {
            if let Some(g) = self.groups.pop_front() {
                assert!(g.left == 0, "the tail passes a group with blocks that are not in place");
                passed.push((g.id, g.logged));
            }
        }
        passed
    }
    fn remove(&mut self, addr: BlockAddr) {
        if let Some(e) = self.entries.remove(&addr) {
            e.buffer.set_in_ail(false);
            self.count_down(e.group);
        }
    }
    fn count_down(&mut self, id: BatchId) {
        // Ids ascend along the queue, with gaps where a batch had nothing to log.
        let i = self.groups.partition_point(|g| g.id < id);
        match self.groups.get_mut(i) {
            Some(g) if g.id == id => g.left -= 1,
            _ => unreachable!("an entry's group stays as long as its entries"),
        }
    }
}
