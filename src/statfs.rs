//! Chapter 11: the fuzzy counters. (API skeleton)

use crate::cache::Buffer;
use crate::error::Result;
use crate::format::StatfsChange;
use crate::inode::Volume;
use crate::journal::{Journal, Transaction};
use std::sync::Arc;

/// Master totals and this node's delta.
pub struct Statfs {}

impl Statfs {
    /// From the dinode buffers of the master statfs file and of our statfs_change file.
    pub fn load(_master: Arc<Buffer>, _local: Arc<Buffer>, _journal: Arc<Journal>) -> Result<Arc<Self>> {
        unimplemented!()
    }
    /// Counts in a transaction: the statfs_change dinode and the numbers stamped into log headers.
    pub fn charge(&self, _tx: &mut Transaction<'_>, _delta: StatfsChange) {
        unimplemented!()
    }
    /// What df shows: (total, free, dinodes), free within 0..=total.
    pub fn totals(&self) -> (u64, u64, u64) {
        unimplemented!()
    }
    /// Moves the delta to the master file, one transaction (ondisk.md 7.2).
    pub fn sync(&self, _vol: &Volume) -> Result<()> {
        unimplemented!()
    }
}

/// The ledger of a mount: statfs and quota together.
pub struct Accounts {}

impl Accounts {
    /// Both books.
    pub fn new(_statfs: Arc<Statfs>, _quota: Option<Arc<crate::quota::Quota>>) -> Self {
        unimplemented!()
    }
}

impl crate::rgrp::Ledger for Accounts {
    fn log_blocks(&self) -> u32 {
        unimplemented!()
    }
    fn charge(&self, _tx: &mut Transaction<'_>, _delta: StatfsChange, _owner: Option<crate::rgrp::Owner>) -> Result<()> {
        unimplemented!()
    }
}
