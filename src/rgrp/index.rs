//! The rindex in memory: where the resource groups lie, and whose a block is. It grows while the volume is mounted, when some
//! node adds groups at the end (ondisk.md 7.5, 11.1); nothing of it ever changes.

use super::claims::Claims;
use crate::error::{CorruptKind, Error, Result};
use crate::format::rgrp::RgrpExtent;
use crate::format::{OnDisk, RindexEntry};
use crate::ids::{BlockAddr, BlockSize, LockName};
use crate::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

/// Groups that may be added at least while a volume is mounted.
const ROOM: usize = 32_768;

/// The resource groups of a volume, ascending, and what is known of each in memory only.
pub(super) struct Index {
    slots: Box<[OnceLock<Slot>]>,
    /// How many of the slots are filled.
    len: AtomicUsize,
    growing: Mutex<()>,
    /// How often the rindex may have grown behind our back, and as of which time it is known.
    lost: AtomicU64,
    known: AtomicU64,
}

struct Slot {
    extent: RgrpExtent,
    claims: Arc<Claims>,
}

impl Index {
    /// From checked entries, which need not be sorted.
    pub(super) fn new(mut extents: Vec<RgrpExtent>) -> Self {
        extents.sort_by_key(|e| e.addr);
        let room = extents.len() + extents.len().max(ROOM);
        let index = Self {
            slots: (0..room).map(|_| OnceLock::new()).collect(),
            len: AtomicUsize::new(0),
            growing: Mutex::new(()),
            lost: AtomicU64::new(0),
            known: AtomicU64::new(0),
        };
        index.push(&extents);
        index
    }
    fn push(&self, extents: &[RgrpExtent]) {
        for extent in extents {
            let n = self.len();
            if self.slots[n].set(Slot { extent: *extent, claims: Arc::new(Claims::new(n)) }).is_ok() {
                self.len.store(n + 1, Ordering::Release);
            }
        }
    }
    /// Takes over what the rindex says now (checked, ascending): its beginning must be what is known.
    pub(super) fn grow(&self, extents: &[RgrpExtent]) -> Result<()> {
        let _one_at_a_time = self.growing.lock();
        let known = self.len();
        let wrong = |at: BlockAddr| Error::corrupt(at, CorruptKind::Rgrp("a resource group went or moved"));
        for n in 0..known {
            if extents.get(n) != Some(self.extent(n)) {
                return Err(wrong(self.extent(n).addr));
            }
        }
        let fitting = extents.len().min(self.slots.len());
        if fitting < extents.len() {
            tracing::warn!(
                "{} resource groups were added: they are used after the next mount",
                extents.len() - fitting
            );
        }
        self.push(&extents[known..fitting]);
        Ok(())
    }
    /// The rindex may have grown: somebody looks before the next allocation.
    pub(super) fn set_stale(&self) {
        self.lost.fetch_add(1, Ordering::AcqRel);
    }
    /// True when it may have grown since it was read.
    pub(super) fn is_stale(&self) -> bool {
        self.lost() != self.known.load(Ordering::Acquire)
    }
    /// How often it may have grown: to be asked before it is read.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Acquire)
    }
    /// It was read.
    pub(super) fn set_known(&self, as_of: u64) {
        self.known.store(as_of, Ordering::Release);
    }
    fn slot(&self, n: usize) -> &Slot {
        match self.slots.get(n).and_then(OnceLock::get) {
            Some(slot) => slot,
            None => panic!("there is no resource group {n}, only {}", self.len()),
        }
    }
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }
    /// All of them.
    pub(super) fn all(&self) -> Vec<RgrpExtent> {
        (0..self.len()).map(|n| *self.extent(n)).collect()
    }
    /// Number `n`.
    pub(super) fn extent(&self, n: usize) -> &RgrpExtent {
        &self.slot(n).extent
    }
    /// What is known of number `n` in memory only.
    pub(super) fn claims(&self, n: usize) -> &Arc<Claims> {
        &self.slot(n).claims
    }
    /// Name of the lock of number `n`.
    pub(super) fn lock_name(&self, n: usize) -> LockName {
        LockName::rgrp(self.extent(n).addr)
    }
    /// How many of them, from the first on, are as `before` says.
    fn partition(&self, before: impl Fn(&RgrpExtent) -> bool) -> usize {
        let (mut from, mut to) = (0, self.len());
        while from < to {
            let middle = from + (to - from) / 2;
            if before(self.extent(middle)) { from = middle + 1 } else { to = middle }
        }
        from
    }
    /// The rgrp with this lock.
    pub(super) fn by_lock(&self, name: LockName) -> Option<usize> {
        let n = self.partition(|e| e.addr.get() < name.number);
        (n < self.len() && self.extent(n).addr.get() == name.number).then_some(n)
    }
    /// The rgrp whose data block this is.
    pub(super) fn of(&self, block: BlockAddr) -> Option<usize> {
        let n = self.partition(|e| e.data0 <= block).checked_sub(1)?;
        self.extent(n).index_of(block).map(|_| n)
    }
    /// The same for a block that some rgrp must own: anything else is a wild pointer.
    pub(super) fn must_own(&self, block: BlockAddr) -> Result<usize> {
        self.of(block).ok_or_else(|| Error::corrupt(block, CorruptKind::Pointer(block.get())))
    }
    /// Distance to the next rgrp, 0 for the last (`rg_skip`).
    pub(super) fn skip(&self, n: usize) -> u32 {
        if n + 1 >= self.len() {
            return 0;
        }
        u32::try_from(self.extent(n + 1).addr.get() - self.extent(n).addr.get()).unwrap_or(0)
    }
}

/// The entries in the contents of an rindex file (whose dinode is at `at`), checked and ascending (ondisk.md 3.1).
pub fn parse_rindex(bytes: &[u8], bs: BlockSize, at: BlockAddr) -> Result<Vec<RgrpExtent>> {
    let wrong = |what| Error::corrupt(at, CorruptKind::Rgrp(what));
    if bytes.is_empty() || !bytes.len().is_multiple_of(size_of::<RindexEntry>()) {
        return Err(wrong("rindex whose size is not a multiple of 96"));
    }
    let mut extents = bytes
        .chunks_exact(size_of::<RindexEntry>())
        .map(|e| RgrpExtent::check(RindexEntry::view(e), bs).map_err(wrong))
        .collect::<Result<Vec<_>>>()?;
    extents.sort_by_key(|e| e.addr);
    if extents.windows(2).any(|w| w[0].end() > w[1].addr.get()) {
        return Err(wrong("rindex with overlapping resource groups"));
    }
    Ok(extents)
}
