//! One block of metadata or journaled data.

use crate::error::{Corrupt, CorruptKind, Result};
use crate::format::{MetaHeader, MetaType};
use crate::ids::{BatchId, BlockAddr, Jid, LockName};
use crate::sync::RwLock;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

/// What a buffer holds, and so how it is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BufferKind {
    /// A block with a metadata header.
    Meta,
    /// A data block of a journaled file.
    Jdata,
    /// Read ahead; the first user says what it is.
    Unknown,
}

/// Looked at since the clock's hand passed.
const USED: u8 = 1;
/// Changed since it was read: the device may have had other contents.
const EDITED: u8 = 2;
/// Its block was freed: no longer in the cache, must not be logged.
const FORGOTTEN: u8 = 4;
/// Its lock was given up: no longer in the cache, its contents may be stale.
const STALE: u8 = 8;
/// Committed but not yet in place.
const IN_AIL: u8 = 16;

/// A cached metadata or journaled-data block.
pub struct Buffer {
    addr: BlockAddr,
    content: RwLock<Content>,
    /// The newest batch that it was put into and that has not committed; 0 = none.
    pinned_in: AtomicU64,
    flags: AtomicU8,
}

struct Content {
    bytes: Arc<[u8]>,
    owner: LockName,
    kind: BufferKind,
}

/// Under which lock a buffer was found.
pub(super) enum Used {
    /// Under the right one.
    Here,
    /// Dirty, under this one: it is claimed by two.
    Before(LockName),
    /// Clean, under another one: what it holds may be of an earlier life, when the block was somebody else's, and stale.
    Elsewhere,
}

impl Buffer {
    pub(super) fn new(addr: BlockAddr, owner: LockName, kind: BufferKind, bytes: Arc<[u8]>) -> Arc<Self> {
        Arc::new(Self {
            addr,
            content: RwLock::new(Content { bytes, owner, kind }),
            pinned_in: AtomicU64::new(0),
            flags: AtomicU8::new(USED),
        })
    }
    /// Its address.
    pub fn addr(&self) -> BlockAddr {
        self.addr
    }
    /// The lock that covers it.
    pub fn owner(&self) -> LockName {
        self.content.read().owner
    }
    /// A snapshot of its present contents (one block).
    pub fn bytes(&self) -> Arc<[u8]> {
        self.content.read().bytes.clone()
    }

    /// True while it is in the running batch, in one being committed, or committed but not yet in place.
    pub(crate) fn is_dirty(&self) -> bool {
        self.pinned_in.load(Ordering::Acquire) != 0 || self.has(IN_AIL)
    }
    /// True once its block was freed.
    pub(crate) fn is_forgotten(&self) -> bool {
        self.has(FORGOTTEN)
    }
    /// True once its lock was given up.
    pub(crate) fn is_stale(&self) -> bool {
        self.has(STALE)
    }
    /// The batch that it waits in.
    pub(crate) fn pinned_in(&self) -> BatchId {
        BatchId(self.pinned_in.load(Ordering::Acquire))
    }
    /// Puts it into a batch, or (0) into none.
    pub(crate) fn pin(&self, batch: BatchId) {
        self.pinned_in.store(batch.0, Ordering::Release);
    }
    /// The batch has committed: unpins it unless a newer batch has it.
    pub(crate) fn unpin(&self, batch: BatchId) {
        // A failed exchange means a newer batch holds it: nothing to do.
        let _ = self.pinned_in.compare_exchange(batch.0, 0, Ordering::AcqRel, Ordering::Acquire);
    }
    /// Says whether it waits to be written in place.
    pub(crate) fn set_in_ail(&self, yes: bool) {
        self.set(IN_AIL, yes);
    }
    /// Contents and how to log them.
    pub(crate) fn snapshot(&self) -> (Arc<[u8]>, BufferKind) {
        let c = self.content.read();
        (c.bytes.clone(), c.kind)
    }
    /// The only way to change a block. `f` must not ask for this buffer's `bytes`. A metadata block is stamped with `jid`
    /// before `f` (which may compute a checksum over the header), and again should `f` have written a new header.
    pub(crate) fn change<R>(&self, jid: Jid, f: impl FnOnce(&mut [u8]) -> R) -> R {
        let mut c = self.content.write();
        let meta = c.kind != BufferKind::Jdata;
        let bytes = Arc::make_mut(&mut c.bytes);
        if meta {
            MetaHeader::stamp(bytes, jid);
        }
        let result = f(bytes);
        if meta {
            MetaHeader::stamp(bytes, jid);
            debug_assert!(MetaHeader::has_magic(bytes), "block {} lost its metadata header", self.addr);
        }
        self.set(EDITED, true);
        result
    }

    /// Notes a use as `kind` under the lock `owner`, and checks the type.
    pub(super) fn use_as(&self, owner: LockName, kind: BufferKind, wanted: Option<MetaType>) -> Result<Used> {
        if !self.has(USED) {
            self.set(USED, true);
        }
        let before = {
            let c = self.content.read();
            if c.owner != owner && !self.is_dirty() {
                return Ok(Used::Elsewhere);
            }
            if let Some(wanted) = wanted {
                MetaHeader::check(&c.bytes, self.addr, wanted)?;
            }
            if c.owner == owner && c.kind == kind {
                return Ok(Used::Here);
            }
            c.owner
        };
        let mut c = self.content.write();
        if c.kind != kind {
            // One block reached as metadata and as file data: two owners claim it.
            if self.is_dirty() {
                let found = MetaHeader::view_kind(&c.bytes);
                return Err(Corrupt { at: self.addr, what: CorruptKind::MetaType { wanted: 0, found } }.into());
            }
            c.kind = kind;
        }
        c.owner = owner;
        Ok(if before == owner { Used::Here } else { Used::Before(before) })
    }
    /// Reads and clears the clock's mark.
    pub(super) fn take_used(&self) -> bool {
        self.flags.fetch_and(!USED, Ordering::AcqRel) & USED != 0
    }
    pub(super) fn was_edited(&self) -> bool {
        self.has(EDITED)
    }
    pub(super) fn mark_forgotten(&self) {
        self.set(FORGOTTEN, true);
        self.pin(BatchId(0));
    }
    pub(super) fn mark_stale(&self) {
        self.set(STALE, true);
    }
    fn has(&self, flag: u8) -> bool {
        self.flags.load(Ordering::Acquire) & flag != 0
    }
    fn set(&self, flag: u8, yes: bool) {
        if yes {
            self.flags.fetch_or(flag, Ordering::AcqRel);
        } else {
            self.flags.fetch_and(!flag, Ordering::AcqRel);
        }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({}, {:?})", self.addr, self.pinned_in())
    }
}
