//! The log of this node: opening, closing, and what stands between.

use super::ail::Place;
use super::flush::FlushReason;
use super::flusher::Flusher;
use super::place::{JournalPlace, LogMap};
use super::replay::CleanJournal;
use super::reserve::{Costs, Reserve};
use super::ring::Ring;
use super::state::State;
use crate::cache::Cache;
use crate::clock::Clock;
use crate::error::{CorruptKind, Error, Result};
use crate::format::StatfsChange;
use crate::ids::{BatchId, Jid, LockName, LogBlock, LogSeq};
use crate::sync::{Condvar, Instant, Mutex, thread};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// Longest time that closing the log takes.
const CLOSING: Duration = Duration::from_secs(10);

/// The log of this node.
pub struct Journal {
    pub(super) cache: Arc<Cache>,
    /// None on a read-only mount.
    pub(super) log: Option<Log>,
    pub(super) me: Weak<Journal>,
}

pub(super) struct Log {
    pub(super) place: JournalPlace,
    pub(super) map: LogMap,
    pub(super) costs: Costs,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) barrier: bool,
    pub(super) commit_every: Duration,
    pub(super) state: Mutex<State>,
    /// A waiting `begin` may look again.
    pub(super) admitted: Condvar,
    /// No transaction is open.
    pub(super) idle: Condvar,
    /// A flush has ended.
    pub(super) flushed: Condvar,
    /// One more thread waits for a flush.
    pub(super) gathered: Condvar,
    /// Held by whoever writes blocks in place.
    pub(super) writeback: Mutex<()>,
    /// Held by whoever makes room.
    pub(super) room: Mutex<()>,
    pub(super) flusher: Flusher,
    /// The closing header is written.
    shut: AtomicBool,
}

impl Log {
    pub(super) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Acquire)
    }
    /// Byte ranges of `blocks` blocks from a position on.
    pub(super) fn runs(&self, position: u64, blocks: usize) -> Vec<(u64, usize)> {
        let at = LogBlock((position % u64::from(self.map.size())) as u32);
        self.map.runs(at, blocks as u32)
    }
}

impl Journal {
    /// Opens a clean journal for writing. `commit_secs`: age at which the background flusher commits. Without `barrier`
    /// nothing is ever flushed from the device's cache: only for a device that has none.
    pub fn open(
        cache: Arc<Cache>,
        journal: CleanJournal,
        clock: Arc<dyn Clock>,
        barrier: bool,
        commit_secs: u32,
    ) -> Result<Arc<Self>> {
        let CleanJournal { place, map, head } = journal;
        if cache.device().read_only() {
            return Err(Error::ReadOnly);
        }
        let unusable = |what| Error::corrupt(place.inode, CorruptKind::Journal(what));
        let sequence = head.sequence.0.checked_add(1).ok_or_else(|| unusable("its sequence numbers are used up"))?;
        if head.at >= map.size() {
            return Err(unusable("its head lies outside"));
        }
        let next = map.after(LogBlock(head.at), 1);
        let log = Log {
            costs: Costs::new(cache.block_size()),
            clock,
            barrier,
            commit_every: Duration::from_secs(u64::from(commit_secs.max(1))),
            state: Mutex::new(State::new(Ring::new(map.size(), next), LogSeq(sequence))),
            admitted: Condvar::new(),
            idle: Condvar::new(),
            flushed: Condvar::new(),
            gathered: Condvar::new(),
            writeback: Mutex::new(()),
            room: Mutex::new(()),
            flusher: Flusher::default(),
            shut: AtomicBool::new(false),
            place,
            map,
        };
        Ok(Arc::new_cyclic(|me| Self { cache, log: Some(log), me: me.clone() }))
    }
    /// The log of a read-only mount: `begin` says `ReadOnly`.
    pub fn read_only(cache: Arc<Cache>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self { cache, log: None, me: me.clone() })
    }
    /// True for the log of a read-only mount.
    pub fn is_read_only(&self) -> bool {
        self.log.is_none()
    }
    /// Our journal id; 0 on a read-only mount.
    pub fn jid(&self) -> Jid {
        self.log.as_ref().map_or(Jid(0), |log| log.place.jid)
    }
    /// The batch that transactions now commit into.
    pub fn running(&self) -> BatchId {
        self.log.as_ref().map_or(BatchId(1), |log| log.state.lock().running)
    }
    /// The newest batch that is durable.
    pub fn committed(&self) -> BatchId {
        self.log.as_ref().map_or(BatchId(0), |log| log.state.lock().committed)
    }
    /// Makes buffered file data and log durable and everything written in place: what a lock of another node must see, and
    /// what `sync` before a snapshot wants. The log stays open.
    pub fn quiesce(&self, why: FlushReason) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        self.cache.data().write_all()?;
        self.flush(why)?;
        self.write_back(log, Place::Upto(self.committed()))?;
        self.move_tail(log, why)
    }
    /// `quiesce` for the blocks of one lock, with revokes for them (ondisk.md 8.7 rule 2). The caller holds the lock
    /// exclusively and nobody changes its blocks meanwhile.
    pub fn sync_owner(&self, owner: LockName) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        if log.is_shut() {
            // Everything was in place when it was closed.
            return Ok(());
        }
        self.cache.data().write_owner(owner)?;
        loop {
            let (pinned, committing) = {
                let s = log.state.lock();
                let pinned = s.batch.pinned.values().any(|(_, o)| *o == owner).then_some(s.running);
                let newest = s.copies.of_owner(owner).into_iter().filter_map(|a| s.copies.newest(a)).max();
                (pinned, newest)
            };
            if let Some(batch) = pinned.max(committing) {
                self.flush_to(batch, FlushReason::Normal)?;
            }
            self.write_back(log, Place::Owner(owner))?;
            let copies = log.state.lock().copies.of_owner(owner);
            if copies.is_empty() {
                return self.cache.health().check();
            }
            // A transaction's revokes are limited; a lock with more copies than that takes several.
            let most = (log.map.size() as usize / 8) * log.costs.more_revokes;
            let some = &copies[..copies.len().min(most)];
            let mut tx = match self.begin_unless(Reserve::default().with_revokes(some.len() as u32), true) {
                // The log comes to rest, which brings everything into place: then there is nothing to revoke. Waiting for the thaw
                // instead would keep a lock from the nodes that are to freeze next.
                Err(Error::Busy) => {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                // The log is being closed, which brings everything into place.
                Err(Error::ReadOnly) if self.comes_to_rest(log) => return Ok(()),
                other => other?,
            };
            let busy = tx.revoke_copies(some);
            let batch = tx.commit();
            self.flush_to(batch, FlushReason::Normal)?;
            if busy {
                tracing::debug!("blocks of lock {owner} were changed while it was synced");
            }
        }
    }
    /// Waits for a close that is under way; true when the log is shut.
    fn comes_to_rest(&self, log: &Log) -> bool {
        let until = Instant::now() + CLOSING;
        while !log.is_shut() && self.withdrawn().is_none() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        log.is_shut()
    }

    /// Closes the log: quiesce, then a header with UNMOUNT whose tail is itself. Transactions afterwards say `ReadOnly`.
    pub fn shutdown(&self) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        log.state.lock().closed = true;
        log.admitted.notify_all();
        log.flusher.stop();
        if log.is_shut() {
            return Ok(());
        }
        self.close(log, FlushReason::Shutdown)?;
        log.shut.store(true, Ordering::Release);
        Ok(())
    }
    fn close(&self, log: &Log, why: FlushReason) -> Result<()> {
        self.cache.health().check()?;
        self.cache.data().write_all()?;
        self.flush(why)?;
        self.write_back(log, Place::Upto(self.committed()))?;
        let role = self.role(log)?;
        self.write_closing_header(&role).inspect_err(|e| self.withdraw(e))
    }
    /// Stops transactions and brings the volume to rest, closed as by [`shutdown`](Self::shutdown), so that a snapshot of
    /// the device is clean (ondisk.md 8.12). `begin` waits until [`thaw`](Self::thaw).
    pub fn freeze(&self) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        log.state.lock().frozen = true;
        log.admitted.notify_all();
        self.close(log, FlushReason::Freeze).inspect_err(|_| self.thaw())
    }
    /// Ends a freeze.
    pub fn thaw(&self) {
        if let Some(log) = &self.log {
            log.state.lock().frozen = false;
            log.admitted.notify_all();
        }
    }
    /// Local statfs change to be stamped into headers (`lh_local_*`); called under an open transaction.
    pub fn set_local_statfs(&self, delta: StatfsChange) {
        if let Some(log) = &self.log {
            log.state.lock().local = delta;
        }
    }
    /// Stops all writing for good: an I/O error or a contradiction was met. The first cause is kept and logged.
    pub fn withdraw(&self, cause: &Error) {
        self.cache.health().fail(cause);
        if let Some(log) = &self.log {
            // Whoever waits must look again.
            let _state = log.state.lock();
            log.admitted.notify_all();
            log.flushed.notify_all();
        }
    }
    /// The cause of the withdraw, if there was one.
    pub fn withdrawn(&self) -> Option<String> {
        self.cache.health().cause()
    }
    /// Turns a corruption found while reading into a withdraw, as the kernel does; passes other results through.
    pub fn watch<T>(&self, result: Result<T>) -> Result<T> {
        if let Err(e @ Error::Corrupt(_)) = &result {
            self.withdraw(e);
        }
        result
    }
    /// Work that whoever comes by can finish later (freeing what nothing leads to any more), done after an operation that has
    /// happened: that the device could not be read is no failure of the operation. It is logged; other errors pass through.
    pub fn or_later<T: Default>(&self, what: &str, result: Result<T>) -> Result<T> {
        match self.watch(result) {
            Err(Error::Io(e)) if self.withdrawn().is_none() => {
                tracing::warn!("{what}, left for later: {e}");
                Ok(T::default())
            }
            done => done,
        }
    }
    /// Transactions that used more log than they had reserved: bugs that were survived.
    pub fn overruns(&self) -> u64 {
        self.log.as_ref().map_or(0, |log| log.state.lock().overruns)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Some(log) = &self.log {
            log.flusher.stop();
        }
    }
}
