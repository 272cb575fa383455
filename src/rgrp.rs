//! Chapter 6: resource groups, where free blocks come from (ondisk.md 3).
//!
//! An allocation is promised before it is made: [`Rgrps::reserve`] locks an rgrp (several, if need be), counts what may be
//! used, and hands out a [`Space`]. Whatever is then taken from the space, inside a transaction, cannot fail for want of
//! space. "No space" is said by `reserve` or never.
//!
//! **Reuse.** A block freed in a batch is not handed out before that batch is durable: replaying an older log could otherwise
//! write the old contents over the new. [`claims`] remembers such blocks; the bitmap on the disk shows them free.
//!
//! **Reservations.** A file that grows gets a run of blocks set aside in memory, so that files written at the same time do
//! not cut each other up. They are a wish: when space is short they are taken away.
//!
//! `group` is the object inside the glock, `bitmap` searches, `plan` chooses the blocks a promise is kept with, `place` the
//! rgrps that are tried, `reserve` conducts. `alloc` and `free` make the changes, in the caller's transaction, and have the
//! [`Ledger`] count them; `lvb` tells other nodes.
//!
//! Invariants: the header counts the bitmap (checked when it is read; `Corrupt` otherwise). A promise names its blocks, and
//! the rgrp is locked until it is kept or given up. Of every change, either all is in the transaction or nothing is.
//!
//! Lock order: rgrps ascending; after inodes, before the transaction.

mod alloc;
mod bitmap;
mod claims;
mod free;
mod group;
mod index;
mod lvb;
mod place;
mod plan;
mod protect;
mod reserve;
mod set;
mod trim;

#[cfg(test)]
mod tests;

pub use alloc::Space;
pub use claims::Reservation;
pub use free::FreeSpace;
pub use group::Rgrp;
pub use index::parse_rindex;
pub use set::FreeSet;

use crate::cache::Cache;
use crate::error::{CorruptKind, Error, Result};
use crate::format::StatfsChange;
use crate::format::rgrp::RgrpExtent;
use crate::glock::{Glock, GlockTable, LockManager};
use crate::ids::{BlkState, BlockAddr, Jid};
use crate::journal::{Journal, Transaction};
use crate::sync::{Mutex, about_to_wait};
use index::Index;
use protect::RgrpContext;
use std::cell::Cell;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

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

/// Reads the rindex again and tells [`Rgrps::grow`].
type Rereader = Box<dyn Fn() -> Result<()> + Send + Sync>;

/// Rgrps whose bitmaps stay in memory when nobody uses them.
const KEPT: usize = 512;

/// All resource groups of a volume.
pub struct Rgrps {
    ledger: Arc<dyn Ledger>,
    cx: Arc<RgrpContext>,
    table: GlockTable<Rgrp>,
    jid: Jid,
    njournals: u32,
    /// Freed blocks are discarded once they may be used again.
    discard: bool,
    /// Other nodes may want our locks.
    shared: bool,
    reclaimer: OnceLock<Reclaimer>,
    rereader: OnceLock<Rereader>,
    /// Held by whoever reads the rindex again.
    rereading: Mutex<()>,
}

thread_local! {
    /// This thread is reading an rindex.
    static READS_INDEX: Cell<bool> = const { Cell::new(false) };
}

impl Rgrps {
    /// Takes the checked rindex. `njournals` and `jid` say which rgrps this node prefers.
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
        let cx = Arc::new(RgrpContext { cache, journal, index: Index::new(extents) });
        let shared = manager.is_shared();
        let table = GlockTable::new(manager, KEPT);
        table.set_context(&cx);
        let (njournals, reclaimer, rereader) = (njournals.max(1), OnceLock::new(), OnceLock::new());
        Ok(Arc::new(Self {
            ledger,
            cx,
            table,
            jid,
            njournals,
            discard,
            shared,
            reclaimer,
            rereader,
            rereading: Mutex::default(),
        }))
    }

    /// Number of rgrps.
    pub fn len(&self) -> usize {
        self.cx.index.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where they lie, ascending.
    pub fn extents(&self) -> Vec<RgrpExtent> {
        self.cx.index.all()
    }

    /// True when the block is some rgrp's data block (what a pointer may point to).
    pub fn owns(&self, block: BlockAddr) -> bool {
        self.cx.index.of(block).is_some() || self.owned_by_now(block)
    }

    /// The rgrp that owns the block.
    fn of(&self, block: BlockAddr) -> Result<usize> {
        if self.cx.index.of(block).is_none() {
            self.reread()?;
        }
        self.cx.index.must_own(block)
    }

    #[cold]
    fn owned_by_now(&self, block: BlockAddr) -> bool {
        match self.reread() {
            Ok(()) => self.cx.index.of(block).is_some(),
            Err(e) => {
                tracing::debug!("the rindex could not be read again: {e}");
                false
            }
        }
    }

    /// The rindex may have grown (its lock was lost): it is read again before the next allocation.
    pub fn set_index_stale(&self) {
        self.cx.index.set_stale();
    }

    /// Who reads the rindex again. The first one set counts.
    pub fn set_rereader(&self, reread: Box<dyn Fn() -> Result<()> + Send + Sync>) {
        if self.rereader.set(reread).is_err() {
            tracing::debug!("a rereader was set already");
        }
    }

    /// The rindex as it is now (checked, ascending): groups beyond those that are known are used from now on. `Corrupt` when
    /// those that are known have changed.
    pub fn grow(&self, extents: &[RgrpExtent]) -> Result<()> {
        self.cx.index.grow(extents)
    }

    /// Reads the rindex again if it may have grown. Whoever comes while somebody reads it waits: what he looks for may be new.
    fn reread(&self) -> Result<()> {
        let Some(reread) = self.rereader.get() else { return Ok(()) };
        // Reading it leads here too, if its own blocks are not known yet.
        if !self.cx.index.is_stale() || READS_INDEX.get() {
            return Ok(());
        }
        self.refresh_index(|| if self.cx.index.is_stale() { reread() } else { Ok(()) })
    }

    /// Runs `read`, which takes the rindex's lock, reads it and tells [`Rgrps::grow`]; one thread at a time does. As long as that
    /// lock is held afterwards, nothing here asks for it.
    pub fn refresh_index<T>(&self, read: impl FnOnce() -> Result<T>) -> Result<T> {
        struct Over;
        impl Drop for Over {
            fn drop(&mut self) {
                READS_INDEX.set(false);
            }
        }
        let _one_at_a_time = match self.rereading.try_lock() {
            Some(alone) => alone,
            None => {
                about_to_wait()?;
                self.rereading.lock()
            }
        };
        READS_INDEX.set(true);
        let _over = Over;
        let as_of = self.cx.index.lost();
        let result = read()?;
        self.cx.index.set_known(as_of);
        Ok(result)
    }

    /// Gives up all locks, when the volume is closed; how many could not be in this time.
    pub fn give_up_all(&self, at_most: Duration) -> usize {
        self.table.give_up_all(at_most)
    }

    /// The locks, for dumps.
    pub fn locks(&self) -> &GlockTable<Rgrp> {
        &self.table
    }

    fn glock(&self, n: usize) -> Arc<Glock<Rgrp>> {
        self.table.get(self.cx.index.lock_name(n))
    }

    /// Locks the rgrp of `block` for freeing.
    pub fn lock_for_free(&self, block: BlockAddr) -> Result<FreeSpace<'_>> {
        let n = self.of(block)?;
        let mut group = self.glock(n).exclusive()?;
        self.available(&mut group)?;
        Ok(FreeSpace::new(self, group))
    }

    /// State of a block in the bitmap. Not to be asked while the same thread holds the rgrp: see `FreeSpace::state`.
    pub fn state(&self, block: BlockAddr) -> Result<BlkState> {
        let n = self.of(block)?;
        let group = self.glock(n).shared()?;
        group.state(block).ok_or_else(|| Error::corrupt(block, CorruptKind::Pointer(block.get())))
    }

    /// All blocks in this state in the rgrp with this index.
    pub fn find(&self, index: usize, state: BlkState) -> Result<Vec<BlockAddr>> {
        let group = self.glock(index).shared()?;
        let mut found = Vec::new();
        if state == BlkState::Unlinked && group.unlinked() == 0 {
            return Ok(found);
        }
        let mut from = 0;
        while let Some(at) = group.find(from, group.extent().data, state) {
            found.push(group.extent().block_at(at));
            from = at + 1;
        }
        Ok(found)
    }

    /// Called when space is short: deletes unlinked inodes of the rgrp with this index, says whether any went. The first one
    /// set counts.
    pub fn set_reclaimer(&self, reclaim: Box<dyn Fn(usize) -> bool + Send + Sync>) {
        if self.reclaimer.set(reclaim).is_err() {
            tracing::debug!("a reclaimer was set already");
        }
    }

    /// Gives back an inode's reservation: when nobody has it open for writing any more.
    pub fn release(&self, resv: &mut Reservation) {
        resv.clear();
    }
}
