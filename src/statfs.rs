//! Chapter 11: the fuzzy counters (ondisk.md 7.2).
//!
//! The master file holds the totals; each node keeps what it changed since its last sync in its statfs_change file, in the
//! same transactions as the allocations, and stamps it into its log headers. df adds the two up.

use crate::cache::Buffer;
use crate::error::Result;
use crate::format::dinode::DINODE_SIZE;
use crate::format::{MetaType, OnDisk, StatfsChange};
use crate::ids::{BlockAddr, LockName};
use crate::inode::Volume;
use crate::journal::{Journal, Reserve, Transaction};
use crate::quota::Quota;
use crate::rgrp::{Ledger, Owner};
use crate::sync::Mutex;
use std::sync::Arc;

/// Master totals and this node's delta.
pub struct Statfs {
    /// Dinode of the master file.
    master: BlockAddr,
    local: Arc<Buffer>,
    journal: Arc<Journal>,
    counts: Mutex<Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    master: Numbers,
    local: Numbers,
}

/// The three numbers, in the machine's order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Numbers {
    total: i64,
    free: i64,
    dinodes: i64,
}

impl Numbers {
    fn read(buffer: &Buffer) -> Self {
        let bytes = buffer.bytes();
        Self::from_disk(StatfsChange::view(&bytes[DINODE_SIZE..]))
    }
    fn from_disk(disk: &StatfsChange) -> Self {
        Self { total: disk.total.get(), free: disk.free.get(), dinodes: disk.dinodes.get() }
    }
    fn to_disk(self) -> StatfsChange {
        StatfsChange { total: self.total.into(), free: self.free.into(), dinodes: self.dinodes.into() }
    }
    /// Saturating: counters from a damaged disk must not stop anything.
    fn plus(self, other: Self) -> Self {
        Self {
            total: self.total.saturating_add(other.total),
            free: self.free.saturating_add(other.free),
            dinodes: self.dinodes.saturating_add(other.dinodes),
        }
    }
    fn put(self, tx: &mut Transaction<'_>, buffer: &Arc<Buffer>) {
        tx.edit(buffer, |b| *StatfsChange::edit(&mut b[DINODE_SIZE..]) = self.to_disk());
    }
}

impl Statfs {
    /// From the dinode buffers of the master statfs file and of our statfs_change file.
    pub fn load(master: Arc<Buffer>, local: Arc<Buffer>, journal: Arc<Journal>) -> Result<Arc<Self>> {
        let counts = Counts { master: Numbers::read(&master), local: Numbers::read(&local) };
        journal.set_local_statfs(counts.local.to_disk());
        Ok(Arc::new(Self { master: master.addr(), local, journal, counts: Mutex::new(counts) }))
    }

    /// Counts in a transaction: the statfs_change dinode and the numbers stamped into log headers. One block.
    pub fn charge(&self, tx: &mut Transaction<'_>, delta: StatfsChange) {
        let mut counts = self.counts.lock();
        counts.local = counts.local.plus(Numbers::from_disk(&delta));
        counts.local.put(tx, &self.local);
        self.journal.set_local_statfs(counts.local.to_disk());
    }

    /// What df shows: (total, free, dinodes), free within 0..=total.
    pub fn totals(&self) -> (u64, u64, u64) {
        let counts = *self.counts.lock();
        let sum = counts.master.plus(counts.local);
        let total = u64::try_from(sum.total).unwrap_or(0);
        let free = u64::try_from(sum.free).unwrap_or(0).min(total);
        (total, free, u64::try_from(sum.dinodes).unwrap_or(0))
    }

    /// True when the local change of free blocks is at least `percent` of the master's free blocks (`statfs_percent=`).
    pub fn is_far_off(&self, percent: u32) -> bool {
        let counts = *self.counts.lock();
        let limit = counts.master.free.max(0) / 100 * i64::from(percent);
        percent > 0 && counts.local.free.saturating_abs() >= limit.max(1)
    }

    /// Without a file of our own there is nothing of ours to count.
    pub fn forget_local(&self) {
        self.counts.lock().local = Numbers::default();
    }

    /// Reads the master file again: other nodes add to it.
    pub fn refresh(&self, vol: &Volume) -> Result<()> {
        let held = vol.inode(self.master).shared()?;
        let master = vol.cache.meta(self.master, held.lock_name(), MetaType::Dinode)?;
        self.counts.lock().master = Numbers::read(&master);
        Ok(())
    }

    /// Takes over what a dead node had counted and not added to the master file; `file` is its statfs_change dinode, whose
    /// numbers are moved in one transaction. The caller has that node's journal, so nobody else uses the file.
    pub fn take_over(&self, vol: &Volume, file: BlockAddr) -> Result<()> {
        let name = LockName::inode(file);
        let theirs = vol.cache.meta(file, name, MetaType::Dinode)?;
        let delta = Numbers::read(&theirs);
        if delta == Numbers::default() {
            drop(theirs);
            vol.cache.invalidate(name);
            return Ok(());
        }
        let mut tx = vol.journal.begin(Reserve::blocks(2))?;
        let mut counts = self.counts.lock();
        counts.local = counts.local.plus(delta);
        counts.local.put(&mut tx, &self.local);
        Numbers::default().put(&mut tx, &theirs);
        self.journal.set_local_statfs(counts.local.to_disk());
        drop(counts);
        tx.commit();
        drop(theirs);
        vol.journal.sync_owner(name)?;
        vol.cache.invalidate(name);
        Ok(())
    }

    /// Moves the delta to the master file, one transaction.
    pub fn sync(&self, vol: &Volume) -> Result<()> {
        if self.counts.lock().local == Numbers::default() {
            return if vol.inodes.is_shared() { self.refresh(vol) } else { Ok(()) };
        }
        // Other nodes add to the master file too: its lock, and its contents as they are now.
        let addr = self.master;
        let held = vol.inode(addr).exclusive()?;
        let master = vol.cache.meta(addr, held.lock_name(), MetaType::Dinode)?;
        let mut tx = vol.journal.begin(Reserve::blocks(2))?;
        let mut counts = self.counts.lock();
        counts.master = Numbers::read(&master).plus(counts.local);
        counts.local = Numbers::default();
        counts.master.put(&mut tx, &master);
        counts.local.put(&mut tx, &self.local);
        self.journal.set_local_statfs(counts.local.to_disk());
        drop(counts);
        tx.commit();
        Ok(())
    }
}

/// The ledger of a mount: statfs and quota together.
pub struct Accounts {
    statfs: Arc<Statfs>,
    quota: Option<Arc<Quota>>,
}

impl Accounts {
    /// Both books.
    pub fn new(statfs: Arc<Statfs>, quota: Option<Arc<Quota>>) -> Self {
        Self { statfs, quota }
    }
}

impl Ledger for Accounts {
    fn log_blocks(&self) -> u32 {
        1 + self.quota.as_ref().map_or(0, |q| q.log_blocks())
    }

    fn charge(&self, tx: &mut Transaction<'_>, delta: StatfsChange, owner: Option<Owner>) -> Result<()> {
        self.statfs.charge(tx, delta);
        match (&self.quota, owner) {
            (Some(quota), Some(owner)) => quota.charge(tx, owner, delta.free.get().saturating_neg()),
            _ => Ok(()),
        }
    }
}
