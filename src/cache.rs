//! Chapter 4: blocks in memory, each tagged with the lock that covers it. (API skeleton)
//!
//! Metadata (and journaled data) live in [`Buffer`]s; only a [`Transaction`](crate::journal::Transaction) changes them.
//! A reader takes a snapshot of the bytes (`Arc<[u8]>`, one atomic increment): nobody holds a buffer locked.
//! Ordinary file data lives in the [`DataCache`]: a write buffer in front of the device.

use crate::device::{AlignedBuf, BlockDevice};
use crate::error::Result;
use crate::format::MetaType;
use crate::ids::{BatchId, BlockAddr, BlockSize, LockName};
use std::sync::Arc;

/// A cached metadata or journaled-data block.
pub struct Buffer {}

impl Buffer {
    /// Its address.
    pub fn addr(&self) -> BlockAddr {
        unimplemented!()
    }
    /// The lock that covers it.
    pub fn owner(&self) -> LockName {
        unimplemented!()
    }
    /// A snapshot of its present contents (one block).
    pub fn bytes(&self) -> Arc<[u8]> {
        unimplemented!()
    }
}

/// The blocks of one volume in memory.
pub struct Cache {}

impl Cache {
    /// A cache of at most `limit` bytes of clean metadata.
    pub fn new(_dev: Arc<dyn BlockDevice>, _bs: BlockSize, _limit: usize) -> Arc<Self> {
        unimplemented!()
    }
    /// The device.
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        unimplemented!()
    }
    /// The block size.
    pub fn block_size(&self) -> BlockSize {
        unimplemented!()
    }
    /// The metadata block at `addr`, read if need be (`MustWait` when it would read and may not) and checked to be of type
    /// `kind` when read from the disk or cached under another type: [`Corrupt`](crate::error::Corrupt) otherwise.
    pub fn meta(&self, _addr: BlockAddr, _owner: LockName, _kind: MetaType) -> Result<Arc<Buffer>> {
        unimplemented!()
    }
    /// A block of a journaled file (no metadata header).
    pub fn jdata(&self, _addr: BlockAddr, _owner: LockName) -> Result<Arc<Buffer>> {
        unimplemented!()
    }
    /// Reads blocks that are not cached with few large requests, for a walk that will need them. Errors are left for the
    /// later read to report. Does nothing when the thread may not wait.
    pub fn read_ahead(&self, _addrs: &[BlockAddr], _owner: LockName) {
        unimplemented!()
    }
    /// Forgets all clean buffers of this lock (it was given up).
    pub fn invalidate(&self, _owner: LockName) {
        unimplemented!()
    }
    /// The file data write buffer.
    pub fn data(&self) -> &DataCache {
        unimplemented!()
    }
}

/// Ordinary (not journaled) file data: written here, on the device later; read through here so that what is not yet written
/// is seen. Keeps recently written small pieces clean, so that repeated small appends need no read.
pub struct DataCache {}

impl DataCache {
    /// Reads `buf.len()` bytes (a multiple of the block size) of the contiguous blocks from `addr`.
    pub fn read(&self, _addr: BlockAddr, _buf: &mut [u8]) -> Result<()> {
        unimplemented!()
    }
    /// Buffers whole blocks from `addr` on: `bytes.len()` is a multiple of the block size. They will be on the device before
    /// batch `ordered` commits (newly allocated blocks), or with the next fsync of `owner`, write-back or shutdown.
    /// Waits (after `about_to_wait`) while too much is dirty.
    pub fn write(&self, _owner: LockName, _addr: BlockAddr, _bytes: Arc<AlignedBuf>, _ordered: Option<BatchId>) -> Result<()> {
        unimplemented!()
    }
    /// Changes part of one block: reads it if need be unless `fresh` (then the rest of the block is zero).
    pub fn write_part(&self, _owner: LockName, _addr: BlockAddr, _offset: usize, _bytes: &[u8], _fresh: bool, _ordered: Option<BatchId>) -> Result<()> {
        unimplemented!()
    }
    /// Drops what is buffered for these blocks: they were freed. Waits for writes of them that are in flight.
    pub fn discard(&self, _addr: BlockAddr, _blocks: u64) {
        unimplemented!()
    }
    /// Writes this lock's dirty data and waits (not durable before a device flush).
    pub fn write_owner(&self, _owner: LockName) -> Result<()> {
        unimplemented!()
    }
    /// Writes all data ordered before batch `upto` (inclusive) and waits.
    pub fn write_ordered(&self, _upto: BatchId) -> Result<()> {
        unimplemented!()
    }
    /// Writes everything and waits.
    pub fn write_all(&self) -> Result<()> {
        unimplemented!()
    }
}
