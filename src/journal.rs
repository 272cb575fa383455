//! Chapter 5: the life of a transaction.
//!
//! ```text
//!  begin ── edit, new_meta, forget ── commit ─┐        (no I/O; room in the log is promised at begin)
//!  begin ── edit ─────────────────── commit ──┤
//!                                             ▼
//!                                    the running batch
//!                                             │ flush: no transaction open → snapshot, next batch starts
//!                                             ▼
//!            ordered data + log body ─ device flush ─ header (durable)  = committed
//!                                             │
//!                                             ▼
//!                      AIL: committed, not in place ── write-back ── in place
//!                                             │ next header
//!                                             ▼
//!                               the tail moves, log room is free again
//! ```
//!
//! [`transaction`] begins, changes and commits; [`flush`] makes a batch durable; [`retire`] writes back and moves the tail;
//! [`ail`] knows what is not yet in place; [`revoke`] what is in the log; [`ring`] and [`reserve`] count its room; [`flusher`] is the background thread.
//! [`records`] is what stands in the log, written and scanned side by side; [`head`] and [`replay`] read it after a crash.
//! `docs/JOURNAL.md` tells the story in whole sentences.
//!
//! # Invariants
//!
//! * A block that is pinned in a batch is not written in place before that batch is durable.
//! * A header is written only after everything it vouches for was written *and* the device was flushed: the group's body,
//!   the data ordered before it, and the in-place writes behind its tail. Payload has no checksum; this order is all there is.
//! * The next position never reaches the durable tail, and what open transactions and the running batch may need always
//!   fits between, with four blocks to spare for headers.
//! * A freed block is not handed out as data before the freeing batch is durable; by then no older write of it is in flight.
//! * One thread at a time writes to the log, one at a time writes in place. Neither holds the state's mutex during I/O.

mod ail;
mod flush;
mod flusher;
mod head;
mod log;
mod place;
mod records;
mod replay;
mod reserve;
mod retire;
mod revoke;
mod ring;
mod state;
mod transaction;

pub use flush::FlushReason;
pub use log::Journal;
pub use place::{JournalPlace, LogExtent};
pub use replay::{CleanJournal, Replayed, Settle, UnrecoveredJournal};
pub use reserve::Reserve;
pub use transaction::Transaction;

/// Kept for `use` in signatures of callers.
pub type JournalCorrupt = crate::error::Corrupt;

#[cfg(test)]
mod tests;
