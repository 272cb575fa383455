//! The rindex in memory: where the resource groups lie, and whose a block is.

use crate::error::{CorruptKind, Error, Result};
use crate::format::rgrp::RgrpExtent;
use crate::ids::{BlockAddr, LockName};

/// The resource groups of a volume, ascending.
pub(super) struct Index {
    extents: Vec<RgrpExtent>,
}

impl Index {
    /// From checked entries, which need not be sorted.
    pub(super) fn new(mut extents: Vec<RgrpExtent>) -> Self {
        extents.sort_by_key(|e| e.addr);
        Self { extents }
    }
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.extents.len()
    }
    /// All of them.
    pub(super) fn all(&self) -> &[RgrpExtent] {
        &self.extents
    }
    /// Number `n`.
    pub(super) fn extent(&self, n: usize) -> &RgrpExtent {
        &self.extents[n]
    }
    /// Name of the lock of number `n`.
    pub(super) fn lock_name(&self, n: usize) -> LockName {
        LockName::rgrp(self.extents[n].addr)
    }
    /// The rgrp with this lock.
    pub(super) fn by_lock(&self, name: LockName) -> Option<usize> {
        self.extents.binary_search_by_key(&name.number, |e| e.addr.get()).ok()
    }
    /// The rgrp whose data block this is.
    pub(super) fn of(&self, block: BlockAddr) -> Option<usize> {
        let after = self.extents.partition_point(|e| e.data0 <= block);
        let n = after.checked_sub(1)?;
        self.extents[n].index_of(block).map(|_| n)
    }
    /// The same for a block that some rgrp must own: anything else is a wild pointer.
    pub(super) fn must_own(&self, block: BlockAddr) -> Result<usize> {
        self.of(block).ok_or_else(|| Error::corrupt(block, CorruptKind::Pointer(block.get())))
    }
    /// Distance to the next rgrp, 0 for the last (`rg_skip`).
    pub(super) fn skip(&self, n: usize) -> u32 {
        let here = self.extents[n].addr.get();
        self.extents.get(n + 1).and_then(|next| u32::try_from(next.addr.get() - here).ok()).unwrap_or(0)
    }
}
