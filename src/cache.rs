//! Chapter 4: blocks in memory, each tagged with the lock that covers it.
//!
//! Two kinds of blocks, two caches:
//!
//! * Metadata and journaled data live in [`Buffer`]s. Only a [`Transaction`](crate::journal::Transaction) changes them, and
//!   they reach their place on the disk through the log (chapter 5). A reader takes a snapshot of the bytes (`Arc<[u8]>`,
//!   one atomic increment): nobody holds a buffer locked, and an edit of a block that somebody looks at, or that is just
//!   being written, copies it first.
//! * Ordinary file data lives in the [`DataCache`]: a write buffer in front of the device. What was written is seen by every
//!   later read, and reaches the device in large pieces: with the fsync of its file, before the batch that makes a newly
//!   allocated block reachable, or when too much is dirty.
//!
//! # Invariants
//!
//! * One address, one [`Buffer`]: a buffer leaves the map only when nobody but the map holds it (seen under the lock of its
//!   shard), when its block was freed, or when its lock was given up. Whatever is not yet in place is held by the batch or
//!   the AIL of the journal and so cannot be evicted; a miss may therefore always read the device.
//! * Two writes of one data block never overlap in time, so the device cannot reorder them.
//! * Once [`Health`] says so, nothing is written any more.

mod barrier;
mod bell;
mod buffer;
mod data;
mod gate;
mod health;
mod lru;
mod pieces;
mod store;
mod writeback;

pub use buffer::Buffer;
pub use data::DataCache;
pub use health::Health;
pub use store::Cache;

pub(crate) use barrier::{Barrier, Ticket};
pub(crate) use bell::{Bell, join};
pub(crate) use buffer::BufferKind;
pub(crate) use health::Doubt;
pub(crate) use lru::{AddrMap, AddrSet};
pub(crate) use writeback::coalesce;

#[cfg(test)]
mod tests;
