//! Chapter 6: resource groups. (API skeleton)

use crate::cache::Cache;
use crate::error::Result;
use crate::format::StatfsChange;
use crate::format::rgrp::RgrpExtent;
use crate::glock::LockManager;
use crate::ids::{BlkState, BlockAddr, Inum, Jid};
use crate::journal::{Journal, Transaction};
use std::sync::Arc;

mod set;
pub use set::FreeSet;

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

/// Blocks set aside in memory for one inode, so that it grows in one piece. Owned by the incore inode.
#[derive(Debug, Default)]
pub struct Reservation {}

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

/// All resource groups of a volume.
pub struct Rgrps {}

impl Rgrps {
    /// Takes the checked rindex. `njournals` and `jid` say which rgrps this node prefers.
    pub fn new(_cache: Arc<Cache>, _journal: Arc<Journal>, _manager: Arc<dyn LockManager>, _ledger: Arc<dyn Ledger>, _extents: Vec<RgrpExtent>, _jid: Jid, _njournals: u32, _discard: bool) -> Result<Arc<Self>> {
        unimplemented!()
    }
    /// Number of rgrps.
    pub fn len(&self) -> usize {
        unimplemented!()
    }
    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Where they lie, ascending.
    pub fn extents(&self) -> Vec<RgrpExtent> {
        unimplemented!()
    }
    /// True when the block is some rgrp's data block (what a pointer may point to).
    pub fn owns(&self, _block: BlockAddr) -> bool {
        unimplemented!()
    }
    /// Sets space aside before a transaction: rgrp locks are held and the blocks are there. "No space" is said here or never;
    /// before it is said, the log is flushed (blocks freed in uncommitted batches) and unlinked inodes are asked for through
    /// `set_reclaimer`. May give fewer than `want.blocks` but never fewer than `want.min`.
    pub fn reserve(&self, _want: Want, _resv: &mut Reservation) -> Result<Space<'_>> {
        unimplemented!()
    }
    /// `reserve` of exactly `want.min` blocks, all in one rgrp (the data blocks of one extended attribute: ondisk.md 6.3).
    pub fn reserve_in_one(&self, _want: Want, _resv: &mut Reservation) -> Result<Space<'_>> {
        unimplemented!()
    }
    /// Locks the rgrp of `block` for freeing.
    pub fn lock_for_free(&self, _block: BlockAddr) -> Result<FreeSpace<'_>> {
        unimplemented!()
    }
    /// State of a block in the bitmap.
    pub fn state(&self, _block: BlockAddr) -> Result<BlkState> {
        unimplemented!()
    }
    /// All blocks in this state in the rgrp with this index.
    pub fn find(&self, _index: usize, _state: BlkState) -> Result<Vec<BlockAddr>> {
        unimplemented!()
    }
    /// Called when space is short: deletes unlinked inodes of the rgrp with this index, says whether any went.
    pub fn set_reclaimer(&self, _reclaim: Box<dyn Fn(usize) -> bool + Send + Sync>) {
        unimplemented!()
    }
    /// FITRIM: discards free extents of at least `min_blocks` within [start, end) blocks; returns blocks discarded.
    pub fn trim(&self, _start: u64, _end: u64, _min_blocks: u64) -> Result<u64> {
        unimplemented!()
    }
    /// Gives back an inode's reservation.
    pub fn release(&self, _resv: &mut Reservation) {
        unimplemented!()
    }
}

/// Space that is held: allocation through it cannot fail for lack of space.
pub struct Space<'r> {
    _r: std::marker::PhantomData<&'r ()>,
}

impl Space<'_> {
    /// No space: for operations that found they need none.
    pub fn empty() -> Self {
        unimplemented!()
    }
    /// Blocks that are promised.
    pub fn blocks(&self) -> u32 {
        unimplemented!()
    }
    /// Metadata blocks that allocating all of it may add to a transaction, the ledger's included.
    pub fn log_blocks(&self) -> u32 {
        unimplemented!()
    }
    /// Allocates up to `want` contiguous blocks (at least one), preferably at `goal` (or the reservation): FREE → USED.
    /// Takes from the promise; asking beyond it is a bug (panics).
    pub fn alloc(&mut self, _tx: &mut Transaction<'_>, _want: u32, _goal: Option<BlockAddr>, _owner: Option<Owner>) -> Result<(BlockAddr, u32)> {
        unimplemented!()
    }
    /// Allocates a dinode: FREE → DINODE; the formal number is the rgrp's generation.
    pub fn alloc_dinode(&mut self, _tx: &mut Transaction<'_>, _owner: Option<Owner>) -> Result<Inum> {
        unimplemented!()
    }
    /// Allocates a dinode and, if it can be had, the block right after it (for its EA block; state USED).
    pub fn alloc_dinode_with_ea(&mut self, _tx: &mut Transaction<'_>, _owner: Option<Owner>) -> Result<(Inum, Option<BlockAddr>)> {
        unimplemented!()
    }
}

/// A locked rgrp, for freeing.
pub struct FreeSpace<'r> {
    _r: std::marker::PhantomData<&'r ()>,
}

impl FreeSpace<'_> {
    /// True when the block is in this rgrp.
    pub fn covers(&self, _block: BlockAddr) -> bool {
        unimplemented!()
    }
    /// Metadata blocks that freeing up to `n` runs here may add to a transaction, the ledger's included.
    pub fn log_blocks(&self, _n: u32) -> u32 {
        unimplemented!()
    }
    /// USED → FREE for a run; calls `tx.forget` for it. A block that is not USED is corruption.
    pub fn free(&mut self, _tx: &mut Transaction<'_>, _start: BlockAddr, _blocks: u32, _owner: Option<Owner>) -> Result<()> {
        unimplemented!()
    }
    /// DINODE → UNLINKED.
    pub fn unlink_dinode(&mut self, _tx: &mut Transaction<'_>, _addr: BlockAddr) -> Result<()> {
        unimplemented!()
    }
    /// UNLINKED → DINODE is not a legal transition; UNLINKED → FREE, with `tx.forget`.
    pub fn free_dinode(&mut self, _tx: &mut Transaction<'_>, _addr: BlockAddr, _owner: Option<Owner>) -> Result<()> {
        unimplemented!()
    }
    /// State of a block of this rgrp.
    pub fn state(&self, _block: BlockAddr) -> Result<BlkState> {
        unimplemented!()
    }
}
