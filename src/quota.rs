//! Chapter 11: quotas. (API skeleton)

use crate::cache::Buffer;
use crate::error::Result;
use crate::inode::Volume;
use crate::journal::Transaction;
use crate::rgrp::Owner;
use std::sync::Arc;

/// `quota=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaMode {
    /// Nothing is counted.
    Off,
    /// Counted, not enforced.
    Account,
    /// Counted and enforced.
    On,
}

/// Pending quota changes of this node and the cached limits.
pub struct Quota {}

impl Quota {
    /// Loads pending changes from this node's quota_change blocks (QC headers are checked).
    pub fn load(_mode: QuotaMode, _quota_inode: crate::ids::BlockAddr, _blocks: Vec<Arc<Buffer>>) -> Result<Arc<Self>> {
        unimplemented!()
    }
    /// Metadata blocks a charge may add.
    pub fn log_blocks(&self) -> u32 {
        unimplemented!()
    }
    /// Charges blocks in a transaction.
    pub fn charge(&self, _tx: &mut Transaction<'_>, _owner: Owner, _blocks: i64) -> Result<()> {
        unimplemented!()
    }
    /// `QuotaExceeded` when `blocks` more would pass a limit of the owner (mode On; `privileged` callers pass).
    pub fn check(&self, _vol: &Volume, _owner: Owner, _blocks: u64) -> Result<()> {
        unimplemented!()
    }
    /// Adds pending changes to the quota file (ondisk.md 7.4), one transaction per id.
    pub fn sync(&self, _vol: &Volume) -> Result<()> {
        unimplemented!()
    }
}
