//! Chapter 6: resource groups, where free blocks come from (ondisk.md 3).
//!
//! An allocation is promised before it is made: [`Rgrps::reserve`] locks an rgrp (several, if need be), counts what may be
//! used, and hands out a [`Space`]. Whatever is then taken from the space, inside a transaction, cannot fail for want of
//! space. "No space" is said by `reserve` or never.
//!
//! **Reuse.** A block freed in a batch is not handed out before that batch is durable: replaying an older log could otherwise
//! write the old contents over the new. `rgrp/side.rs` remembers such blocks; the bitmap on the disk shows them free.
//!
//! **Windows.** A file that grows gets a window of blocks set aside in memory, so that files written at the same time do not
//! cut each other up. Windows are a wish: when space is short they are dropped.
//!
//! Lock order: rgrps ascending; after inodes, before the transaction.

mod bitmap;
mod free;
mod group;
mod reserve;
mod set;
mod side;
mod space;

pub use free::FreeSpace;
pub use group::Rgrp;
pub use set::FreeSet;
pub use side::Reservation;
pub use space::Space;

use crate::cache::Cache;
use crate::error::{CorruptKind, Error, Result};
use crate::format::StatfsChange;
use crate::format::rgrp::RgrpExtent;
use crate::glock::{Glock, GlockTable, LockManager};
use crate::ids::{BlkState, BlockAddr, Jid, LockName};
use crate::journal::{FlushReason, Journal, Transaction};
use group::GroupContext;
use side::Side;
use std::sync::{Arc, OnceLock};

/// Whose blocks are charged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Counts every allocation and free in its own transaction: statfs and quota implement it.
pub trait Ledger: Send + Sync {
    /// Metadata blocks a charge may add to the transaction (statfs_change dinode, quota_change blocks).
    fn log_blocks(&self) -> u32;
    /// Counts a change of free blocks and dinodes; `owner` is charged `-delta.free` blocks, `None` for system files.
    fn charge(&self, tx: &mut Transaction<'_>, delta: StatfsChange, owner: Option<Owner>) -> Result<()>;
}

/// What an operation wants to allocate.
#[derive(Clone, Copy, Debug)]
pub struct Want {
    /// Blocks it would like.
    pub blocks: u32,
    /// Blocks without which it cannot do anything: `NoSpace` if the volume cannot give them.
    pub min: u32,
    /// Where it would like them.
    pub goal: BlockAddr,
    /// A directory that is to be placed apart from its siblings (Orlov): ignore the goal.
    pub spread: bool,
}

/// Deletes unlinked inodes of the rgrp with this index; true when any went.
type Reclaimer = Box<dyn Fn(usize) -> bool + Send + Sync>;

/// Rgrps whose bitmaps stay in memory when nobody uses them.
const KEPT: usize = 4096;

/// All resource groups of a volume.
pub struct Rgrps {
    cache: Arc<Cache>,
    journal: Arc<Journal>,
    ledger: Arc<dyn Ledger>,
    cx: Arc<GroupContext>,
    table: GlockTable<Rgrp>,
    /// In-memory state of each rgrp, in the order of `cx.extents`.
    sides: Vec<Side>,
    jid: Jid,
    njournals: u32,
    discard: bool,
    reclaimer: OnceLock<Reclaimer>,
}

impl Rgrps {
    /// Takes the checked rindex, ascending. `njournals` and `jid` say which rgrps this node prefers.
    #[allow(clippy::too_many_arguments, reason = "the parts of a volume meet here once")]
    pub fn new(
        cache: Arc<Cache>,
        journal: Arc<Journal>,
        manager: Arc<dyn LockManager>,
        ledger: Arc<dyn Ledger>,
        extents: Vec<RgrpExtent>,
        jid: Jid,
        njournals: u32,
        discard: bool,
    ) -> Result<Arc<Self>> {
        let sides = extents.iter().map(|_| Side::default()).collect();
        let cx = Arc::new(GroupContext { cache: Arc::clone(&cache), journal: Arc::clone(&journal), extents });
        let table = GlockTable::new(manager, KEPT);
        table.set_context(&cx);
        let njournals = njournals.max(1);
        let reclaimer = OnceLock::new();
        Ok(Arc::new(Self { cache, journal, ledger, cx, table, sides, jid, njournals, discard, reclaimer }))
    }

    /// Number of rgrps.
    pub fn len(&self) -> usize {
        self.cx.extents.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.cx.extents.is_empty()
    }

    /// Where they lie, ascending.
    pub fn extents(&self) -> Vec<RgrpExtent> {
        self.cx.extents.clone()
    }

    /// True when the block is some rgrp's data block (what a pointer may point to).
    pub fn owns(&self, block: BlockAddr) -> bool {
        self.index_of(block).is_some()
    }

    /// Which rgrp's data block this is.
    fn index_of(&self, block: BlockAddr) -> Option<usize> {
        self.cx.index_of(block)
    }

    fn must_own(&self, block: BlockAddr) -> Result<usize> {
        self.index_of(block).ok_or_else(|| Error::corrupt(block, CorruptKind::Pointer(block.get())))
    }

    /// Where the search in an rgrp begins when nobody says where: behind its last allocation.
    fn goal_of(&self, index: usize) -> BlockAddr {
        self.cx.extents[index].block_at(self.sides[index].last())
    }

    fn note_alloc(&self, index: usize, next: u32) {
        self.sides[index].set_last(next);
    }

    fn glock(&self, index: usize) -> Arc<Glock<Rgrp>> {
        self.table.get(LockName::rgrp(self.cx.extents[index].addr))
    }

    /// Locks the rgrp of `block` for freeing.
    pub fn lock_for_free(&self, block: BlockAddr) -> Result<FreeSpace<'_>> {
        let index = self.must_own(block)?;
        Ok(FreeSpace::new(self, self.glock(index).exclusive()?))
    }

    /// State of a block in the bitmap.
    pub fn state(&self, block: BlockAddr) -> Result<BlkState> {
        let index = self.must_own(block)?;
        let group = self.glock(index).shared()?;
        group.state(block).ok_or_else(|| Error::corrupt(block, CorruptKind::Pointer(block.get())))
    }

    /// All blocks in this state in the rgrp with this index.
    pub fn find(&self, index: usize, state: BlkState) -> Result<Vec<BlockAddr>> {
        let group = self.glock(index).shared()?;
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(at) = group.find(from, state) {
            found.push(group.extent().block_at(at));
            from = at + 1;
        }
        Ok(found)
    }

    /// Called when space is short: deletes unlinked inodes of the rgrp with this index, says whether any went.
    pub fn set_reclaimer(&self, reclaim: Box<dyn Fn(usize) -> bool + Send + Sync>) {
        let _only_the_first_counts = self.reclaimer.set(reclaim).is_err();
    }

    /// FITRIM: discards free extents of at least `min_blocks` within [start, end) blocks; returns blocks discarded.
    pub fn trim(&self, start: u64, end: u64, min_blocks: u64) -> Result<u64> {
        self.journal.flush(FlushReason::Normal)?;
        let bs = self.cache.block_size();
        let mut trimmed = 0;
        for index in 0..self.len() {
            let extent = self.cx.extents[index];
            if extent.end() <= start || extent.data0.get() >= end {
                continue;
            }
            // Held exclusively: nobody allocates what is being discarded.
            let group = self.glock(index).exclusive()?;
            let mut from = 0;
            while let Some((at, len)) = self.sides[index].free_run(&group, from, &self.journal) {
                from = at + len;
                let first = extent.block_at(at).get().max(start);
                let last = (extent.block_at(at).get() + u64::from(len)).min(end);
                if last.saturating_sub(first) >= min_blocks.max(1) {
                    self.cache.device().discard(first << bs.shift(), (last - first) << bs.shift())?;
                    trimmed += last - first;
                }
            }
        }
        Ok(trimmed)
    }

    /// Gives back an inode's reservation.
    pub fn release(&self, resv: &mut Reservation) {
        if let Some((index, start)) = resv.take() {
            self.sides[index].close_window(start);
        }
    }
}
