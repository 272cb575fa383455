//! Chapter 5: the life of a transaction. (API skeleton)

use crate::cache::{Buffer, Cache};
use crate::clock::Clock;
use crate::error::{Corrupt, Error, Result};
use crate::format::{MetaType, StatfsChange};
use crate::ids::{BatchId, BlockAddr, Jid, LockName};
use std::marker::PhantomData;
use std::sync::Arc;

/// A run of journal blocks on the device, in journal order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogExtent {
    /// First block.
    pub addr: BlockAddr,
    /// How many.
    pub blocks: u32,
}

/// What mount knows about a journal before it is opened.
#[derive(Clone, Debug)]
pub struct JournalPlace {
    /// Which one.
    pub jid: Jid,
    /// Its blocks, in order, without holes.
    pub extents: Vec<LogExtent>,
    /// Its dinode.
    pub inode: BlockAddr,
    /// Dinode of statfs_change of this jid.
    pub statfs_change: BlockAddr,
    /// Dinode of quota_change of this jid.
    pub quota_change: BlockAddr,
    /// Dinode of the master statfs file.
    pub master_statfs: BlockAddr,
}

/// Log room an operation asks for: an upper bound of the blocks it will change and of the blocks it will free.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    /// Metadata and journaled data blocks that may be changed.
    pub blocks: u32,
    /// Metadata or journaled data blocks that may be freed.
    pub revokes: u32,
}

impl Reserve {
    /// Room for this many changed blocks, nothing freed.
    pub fn blocks(blocks: u32) -> Self {
        Self { blocks, revokes: 0 }
    }
    /// With room for `revokes` freed blocks.
    pub fn with_revokes(self, revokes: u32) -> Self {
        Self { revokes, ..self }
    }
}

/// Why a flush is asked for (stamped into the header).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushReason {
    /// Timer or log pressure.
    Normal,
    /// fsync, sync.
    Sync,
    /// Unmount or remount read-only.
    Shutdown,
    /// Freeze.
    Freeze,
}

/// A journal that was examined: how its log stands.
pub struct UnrecoveredJournal {}

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// True when the log was clean and nothing was to be done.
    pub clean: bool,
    /// Blocks found in the active log.
    pub found: u64,
    /// Blocks copied into place.
    pub replayed: u64,
    /// Revoke tags found.
    pub revokes: u64,
}

/// A clean journal, ready to be opened for writing.
pub struct CleanJournal {}

impl UnrecoveredJournal {
    /// Reads the log's head.
    pub fn examine(_cache: &Arc<Cache>, _place: JournalPlace) -> Result<Self> {
        unimplemented!()
    }
    /// True when the newest header says UNMOUNT.
    pub fn is_clean(&self) -> bool {
        unimplemented!()
    }
    /// Replays the log if it is dirty, adds its local statfs to the master's, writes a clean header (ondisk.md 8.10).
    pub fn recover(self, _by: Jid, _clock: &dyn Clock) -> Result<(CleanJournal, Replayed)> {
        unimplemented!()
    }
    /// The contents that a replay would put in place, for a read-only mount of a dirty volume on a read-only device.
    pub fn overlay(&self) -> Result<Vec<(BlockAddr, Arc<[u8]>)>> {
        unimplemented!()
    }
}

/// The log of this node.
pub struct Journal {}

impl Journal {
    /// Opens a clean journal for writing. `commit_secs`: age at which the background flusher commits.
    pub fn open(_cache: Arc<Cache>, _journal: CleanJournal, _clock: Arc<dyn Clock>, _barrier: bool, _commit_secs: u32) -> Result<Arc<Self>> {
        unimplemented!()
    }
    /// The log of a read-only mount: `begin` says `ReadOnly`.
    pub fn read_only(_cache: Arc<Cache>) -> Arc<Self> {
        unimplemented!()
    }
    /// Begins a transaction: waits for log room (`MustWait` when it may not). From then on this thread may wait
    /// (`sync::commit_to_waiting`). Errors: `ReadOnly`, `Withdrawn`. A reserve beyond `max_reserve` is `Invalid`.
    pub fn begin(&self, _reserve: Reserve) -> Result<Transaction<'_>> {
        unimplemented!()
    }
    /// Largest number of blocks one transaction may reserve; larger work must be split.
    pub fn max_reserve(&self) -> u32 {
        unimplemented!()
    }
    /// The batch that transactions now commit into.
    pub fn running(&self) -> BatchId {
        unimplemented!()
    }
    /// The newest batch that is durable.
    pub fn committed(&self) -> BatchId {
        unimplemented!()
    }
    /// Makes every batch up to `upto` durable; returns at once when it is. Concurrent calls share one flush.
    pub fn flush_to(&self, _upto: BatchId, _why: FlushReason) -> Result<()> {
        unimplemented!()
    }
    /// Makes everything committed so far durable (also file data ordered with it).
    pub fn flush(&self, _why: FlushReason) -> Result<()> {
        unimplemented!()
    }
    /// Makes buffered file data and log durable and everything written in place: what a lock of another node must see, and
    /// what `sync` before a snapshot wants. The log stays open.
    pub fn quiesce(&self, _why: FlushReason) -> Result<()> {
        unimplemented!()
    }
    /// `quiesce` for the blocks of one lock, with revokes for them (ondisk.md 8.7 rule 2).
    pub fn sync_owner(&self, _owner: LockName) -> Result<()> {
        unimplemented!()
    }
    /// Closes the log: quiesce, then a header with UNMOUNT whose tail is itself. Transactions afterwards say `ReadOnly`.
    pub fn shutdown(&self) -> Result<()> {
        unimplemented!()
    }
    /// Opens the log again after `shutdown` (remount read-write).
    pub fn resume(&self) -> Result<()> {
        unimplemented!()
    }
    /// Local statfs change to be stamped into headers (`lh_local_*`); called under an open transaction.
    pub fn set_local_statfs(&self, _delta: StatfsChange) {
        unimplemented!()
    }
    /// Stops all writing for good: an I/O error or a contradiction was met. The first cause is kept and logged.
    pub fn withdraw(&self, _cause: &Error) {
        unimplemented!()
    }
    /// The cause of the withdraw, if there was one.
    pub fn withdrawn(&self) -> Option<String> {
        unimplemented!()
    }
    /// Turns a corruption found while reading into a withdraw, as the kernel does; passes other results through.
    pub fn watch<T>(&self, _result: Result<T>) -> Result<T> {
        unimplemented!()
    }
}

/// A change under way. Dropped without `commit` after something was changed, it withdraws the mount: the change is half done.
pub struct Transaction<'j> {
    _j: PhantomData<&'j Journal>,
}

impl Transaction<'_> {
    /// Changes a buffer in place and puts it into the batch. `f` sees the present contents (a whole block).
    pub fn edit<R>(&mut self, _buffer: &Arc<Buffer>, _f: impl FnOnce(&mut [u8]) -> R) -> R {
        unimplemented!()
    }
    /// A newly allocated metadata block: zero but for its header. A revoke still unwritten for it is dropped.
    pub fn new_meta(&mut self, _addr: BlockAddr, _owner: LockName, _kind: MetaType) -> Arc<Buffer> {
        unimplemented!()
    }
    /// A newly allocated block of a journaled file, zeroed.
    pub fn new_jdata(&mut self, _addr: BlockAddr, _owner: LockName) -> Arc<Buffer> {
        unimplemented!()
    }
    /// The blocks were freed: their buffers and buffered data are dropped, and copies of them in the active log revoked.
    pub fn forget(&mut self, _addr: BlockAddr, _blocks: u32) {
        unimplemented!()
    }
    /// The batch this transaction commits into (for ordered data and for fsync).
    pub fn batch(&self) -> BatchId {
        unimplemented!()
    }
    /// Hands the changes to the running batch; no I/O.
    pub fn commit(self) -> BatchId {
        unimplemented!()
    }
}

/// Kept for `use` in signatures of callers.
pub type JournalCorrupt = Corrupt;
