//! Deleting inodes without a name: when the kernel forgets them, later, at unmount.
//!
//! Whoever cannot delete one because it is in use leaves it to the user, who was asked for its *iopen* lock and so knows; but the
//! user may die, or be a node that only wanted to delete it too. So it is noted here, and looked at again once a second and at
//! unmount, until it is gone: nobody gives up for good who may have been the last.

use super::Fs;
use crate::error::{Error, Result};
use crate::ids::{BlockAddr, FormalIno, Inum};
use crate::inode::Fate;
use crate::sync::{Instant, Mutex, thread};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// More are not noted; the next scan finds them.
const NOTED: usize = 1 << 16;
/// How long one look at what was left may take.
const LOOK: Duration = Duration::from_millis(200);
/// How long other nodes are waited for at unmount, beyond what is deleted.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Inodes to look at again: where, and which life (any when it is not known).
#[derive(Default)]
pub(super) struct Left(Mutex<State>);

#[derive(Default)]
struct State {
    noted: BTreeMap<BlockAddr, Option<FormalIno>>,
    /// The one that was looked at last.
    last: Option<BlockAddr>,
}

impl Left {
    fn note(&self, addr: BlockAddr, formal: Option<FormalIno>) {
        let mut state = self.0.lock();
        if state.noted.len() < NOTED {
            state.noted.insert(addr, formal);
        }
    }

    /// Every one once, beginning with the one after that at which the last look ended.
    fn round(&self) -> Vec<(BlockAddr, Option<FormalIno>)> {
        let state = self.0.lock();
        let mut all: Vec<_> = state.noted.iter().map(|(addr, formal)| (*addr, *formal)).collect();
        let first = state.last.map_or(0, |last| all.partition_point(|(addr, _)| *addr <= last));
        all.rotate_left(first);
        all
    }

    fn looked_at(&self, addr: BlockAddr, formal: Option<FormalIno>, fate: Option<Fate>) {
        let mut state = self.0.lock();
        state.last = Some(addr);
        if matches!(fate, Some(Fate::Deleted | Fate::Over)) && state.noted.get(&addr) == Some(&formal) {
            state.noted.remove(&addr);
        }
    }
}

impl Fs {
    /// Deletes inodes that lost their last name before a crash, on any node, and that nobody uses; those in use are looked at again
    /// by [`Fs::delete_left`]. `stop`: it ends early.
    pub fn reclaim_orphans(&self, stop: &AtomicBool) -> Result<u64> {
        let mut freed = 0;
        let (unused, left) = (|addr| !self.nodes.known(addr), |addr| self.left.note(addr, None));
        for index in 0..self.vol.rgrps.len() {
            if stop.load(Ordering::Acquire) {
                break;
            }
            freed += self.watch(self.vol.reclaim(index, &unused, &left, true))?;
        }
        Ok(freed)
    }

    /// The same for one rgrp, when space is short.
    pub fn reclaim_rgrp(&self, index: usize) -> bool {
        let unused = |addr| !self.nodes.known(addr);
        self.vol.reclaim(index, &unused, &|_| {}, false).is_ok_and(|freed| freed > 0)
    }

    /// Deletes an inode that [`Fs::let_go`] returned. Until then it is an orphan, which the next read-write mount deletes.
    pub fn delete_forgotten(&self, inum: Inum) -> Result<()> {
        let result = self.watch(self.delete_unused(inum));
        if !matches!(result, Err(Error::MustWait)) {
            self.nodes.deleted();
        }
        result
    }

    /// Looks again at inodes without a name that were in use when they were to be deleted, without waiting for other nodes; counts
    /// what it deleted. To be called now and then.
    pub fn delete_left(&self) -> Result<u64> {
        let until = Instant::now() + LOOK;
        self.look_at_left(false, &|| Instant::now() < until && !self.is_frozen())
    }

    fn look_at_left(&self, waits: bool, goes_on: &dyn Fn() -> bool) -> Result<u64> {
        let mut deleted = 0;
        for (addr, formal) in self.left.round() {
            if self.is_read_only() || !goes_on() {
                break;
            }
            if self.nodes.known(addr) {
                continue;
            }
            self.gate.pass()?;
            let result = self.vol.delete_at(addr, formal, &|| !self.nodes.known(addr), waits).map(Some);
            let fate = self.vol.journal.or_later("deleting an inode without a name", result)?;
            self.left.looked_at(addr, formal, fate);
            deleted += u64::from(fate == Some(Fate::Deleted));
        }
        Ok(deleted)
    }

    /// The kernel is gone: forgets every inode, and deletes those without a name. Those that another node uses are that node's to
    /// delete, which it learns; what cannot be deleted now is left to the next mount.
    pub fn forget_all(&self) -> Result<()> {
        loop {
            for inum in self.nodes.clear() {
                let result = self.delete_unused(inum);
                self.nodes.deleted();
                self.vol.journal.or_later("deleting an inode without a name", result)?;
            }
            // What is left is being deleted by another thread, or put back by it.
            if self.nodes.doomed() == 0 || self.vol.journal.withdrawn().is_some() {
                break;
            }
            thread::sleep(Duration::from_millis(1));
        }
        let until = Instant::now() + LAST_WAIT;
        self.look_at_left(true, &|| Instant::now() < until && self.vol.journal.withdrawn().is_none()).map(drop)
    }

    /// Forgets every inode: the volume is being closed and the kernel gone.
    pub fn forget_known(&self) {
        // Only of a mount that may not delete anything is something left.
        drop(self.nodes.clear());
    }

    /// An inode that [`Fs::let_go`] returned cannot be deleted by the caller after all: [`Fs::forget_all`] will.
    pub fn leave_to_unmount(&self, inum: Inum) {
        self.nodes.put_back(inum);
    }

    /// Somebody has it: it is looked at again.
    pub(super) fn leave(&self, inum: Inum) {
        self.left.note(inum.addr, Some(inum.formal));
    }

    fn delete_unused(&self, inum: Inum) -> Result<()> {
        // It stays an orphan, which the next read-write mount deletes.
        if self.is_read_only() {
            return Ok(());
        }
        self.gate.pass()?;
        if self.vol.delete_at(inum.addr, Some(inum.formal), &|| !self.nodes.known(inum.addr), true)? == Fate::InUse {
            tracing::debug!("inode {} is in use elsewhere", inum.addr);
            self.leave(inum);
        }
        Ok(())
    }
}
