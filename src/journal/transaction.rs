//! Begin, change, commit.

use super::log::Journal;
use super::reserve::Reserve;
use crate::cache::Buffer;
use crate::error::{Error, Result};
use crate::format::MetaType;
use crate::ids::{BatchId, BlockAddr, LockName};
use crate::sync::{about_to_wait, commit_to_waiting};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

/// A change under way. Dropped without `commit` after something was changed, it withdraws the mount: the change is half done.
#[must_use = "a transaction that is dropped after a change withdraws the mount"]
pub struct Transaction<'j> {
    journal: &'j Journal,
    reserve: Reserve,
    batch: BatchId,
    used_blocks: usize,
    used_revokes: usize,
    changed: bool,
    done: bool,
    /// It stays on the thread that began it (see [`must_have_none_open`]).
    stays: PhantomData<*const ()>,
}

thread_local! {
    /// Transactions that this thread has open, in any journal.
    static OPEN: Cell<usize> = const { Cell::new(0) };
}

/// A flush waits for all open transactions to end: a thread that waits for a flush with one open would wait for itself.
pub(super) fn must_have_none_open() -> Result<()> {
    if OPEN.get() == 0 {
        return Ok(());
    }
    tracing::error!("a flush was asked for within a transaction");
    debug_assert!(false, "a flush was asked for within a transaction");
    Err(Error::Invalid)
}

impl Journal {
    /// Begins a transaction: waits for log room (`MustWait` when it may not). From then on this thread may wait
    /// (`sync::commit_to_waiting`). Errors: `ReadOnly`, `Withdrawn`. A reserve beyond `max_reserve` is `Invalid`.
    ///
    /// A thread has one transaction open at a time, and takes locks that another one may hold while it begins *before* it
    /// begins itself.
    pub fn begin(&self, reserve: Reserve) -> Result<Transaction<'_>> {
        self.begin_unless(reserve, false)
    }

    /// As [`Journal::begin`]; with `frozen`, `Busy` instead of waiting for a thaw.
    pub(super) fn begin_unless(&self, reserve: Reserve, frozen: bool) -> Result<Transaction<'_>> {
        let Some(log) = &self.log else { return Err(Error::ReadOnly) };
        if reserve.blocks > self.max_reserve()
            || log.costs.bound(0, reserve.revokes as usize) > log.map.size() as usize / 4
        {
            return Err(Error::Invalid);
        }
        let mut s = log.state.lock();
        let mut ticket = None;
        let admitted = loop {
            if let Err(e) = self.cache.health().check() {
                break Err(e);
            }
            if s.closed {
                break Err(Error::ReadOnly);
            }
            if frozen && s.frozen {
                break Err(Error::Busy);
            }
            let first = ticket.is_none_or(|t| s.queue.front() == Some(&t)) && (ticket.is_some() || s.queue.is_empty());
            let shut = s.closing || s.frozen;
            if first && !shut && s.has_room(log.costs, reserve) {
                break Ok(());
            }
            if let Err(e) = about_to_wait() {
                break Err(e);
            }
            if ticket.is_none() {
                s.next_ticket += 1;
                ticket = Some(s.next_ticket);
                let t = s.next_ticket;
                s.queue.push_back(t);
            }
            if first && !shut {
                drop(s);
                let made = self.make_room(log, reserve);
                s = log.state.lock();
                if let Err(e) = made {
                    break Err(e);
                }
            } else {
                log.admitted.wait(&mut s);
            }
        };
        if let Some(t) = ticket {
            s.queue.retain(|q| *q != t);
            log.admitted.notify_all();
        }
        admitted?;
        s.open += 1;
        s.promised_blocks += reserve.blocks as usize;
        s.promised_revokes += reserve.revokes as usize;
        let batch = s.running;
        drop(s);
        commit_to_waiting();
        OPEN.set(OPEN.get() + 1);
        Ok(Transaction {
            journal: self,
            reserve,
            batch,
            used_blocks: 0,
            used_revokes: 0,
            changed: false,
            done: false,
            stays: PhantomData,
        })
    }
    /// Largest number of blocks one transaction may reserve; larger work must be split.
    pub fn max_reserve(&self) -> u32 {
        // A quarter of the log holds the blocks; with as much for revokes and descriptors, an empty log has room for two.
        self.log.as_ref().map_or(0, |log| log.map.size() / 4 - 2)
    }
}

impl Transaction<'_> {
    /// Changes a buffer in place and puts it into the batch. `f` sees the present contents (a whole block; a metadata block's
    /// header is already stamped). `f` must not ask for `bytes()` of this same buffer.
    pub fn edit<R>(&mut self, buffer: &Arc<Buffer>, f: impl FnOnce(&mut [u8]) -> R) -> R {
        self.changed = true;
        let result = buffer.change(self.journal.jid(), f);
        self.join(buffer);
        result
    }
    /// A newly allocated metadata block: zero but for its header. A revoke still unwritten for it is dropped.
    pub fn new_meta(&mut self, addr: BlockAddr, owner: LockName, kind: MetaType) -> Arc<Buffer> {
        self.create(addr, owner, Some(kind))
    }
    /// A newly allocated block of a journaled file, zeroed.
    pub fn new_jdata(&mut self, addr: BlockAddr, owner: LockName) -> Arc<Buffer> {
        self.create(addr, owner, None)
    }
    fn create(&mut self, addr: BlockAddr, owner: LockName, kind: Option<MetaType>) -> Arc<Buffer> {
        self.changed = true;
        self.journal.cache.data().discard(addr, 1);
        let buffer = self.journal.cache.create(addr, owner, kind, self.journal.jid());
        self.join(&buffer);
        buffer
    }
    /// The blocks were freed: their buffers and buffered data are dropped, and copies of them in the active log revoked.
    /// They must not be used again, except as metadata or journaled data, before this batch is durable.
    pub fn forget(&mut self, addr: BlockAddr, blocks: u32) {
        let Some(log) = &self.journal.log else { return };
        self.changed = true;
        self.journal.cache.forget(addr, u64::from(blocks));
        self.journal.cache.data().discard_freed(addr, u64::from(blocks), self.batch);
        self.used_revokes += log.state.lock().forget(addr, u64::from(blocks));
        if self.used_revokes > self.reserve.revokes as usize {
            self.overrun("revokes", self.used_revokes, self.reserve.revokes);
        }
    }
    /// The batch this transaction commits into (for ordered data and for fsync).
    pub fn batch(&self) -> BatchId {
        self.batch
    }
    /// Hands the changes to the running batch; no I/O.
    pub fn commit(mut self) -> BatchId {
        self.close();
        self.batch
    }

    /// Revokes the copies of these blocks without freeing them: their lock is about to be given up and they are in place.
    /// Blocks that are in the running batch again are left out; returns whether there were such.
    pub(super) fn revoke_copies(&mut self, addrs: &[BlockAddr]) -> bool {
        let Some(log) = &self.journal.log else { return false };
        self.changed = true;
        let mut s = log.state.lock();
        let mut busy = false;
        for &a in addrs {
            let in_place = s.ail.get_mut(a).is_none() && !s.batch.pinned.contains_key(&a);
            if in_place && s.copies.newest(a).is_some() {
                s.batch.revokes.insert(a);
            }
            busy |= !in_place;
        }
        busy
    }

    /// Makes sure the buffer is in the running batch.
    fn join(&mut self, buffer: &Arc<Buffer>) {
        // The batch cannot end while this transaction is open, so a buffer once in it stays in it.
        if buffer.pinned_in() == self.batch {
            return;
        }
        if buffer.is_forgotten() {
            // The block is free: what is written to it has no meaning, and logging it would undo its revoke.
            tracing::error!("block {} was changed after it had been freed", buffer.addr());
            debug_assert!(false, "block {} was changed after it had been freed", buffer.addr());
            return;
        }
        if buffer.is_stale() {
            self.journal.cache.health().fail_because(&format!("block {} was changed without its lock", buffer.addr()));
            return;
        }
        let Some(log) = &self.journal.log else { return };
        let owner = buffer.owner();
        let mut s = log.state.lock();
        buffer.pin(self.batch);
        // A copy in this group supersedes older ones; a revoke would cancel it as well (ondisk.md 8.7).
        s.batch.revokes.remove(&buffer.addr());
        s.batch.pinned.insert(buffer.addr(), (buffer.clone(), owner));
        drop(s);
        self.used_blocks += 1;
        if self.used_blocks > self.reserve.blocks as usize {
            self.overrun("blocks", self.used_blocks, self.reserve.blocks);
        }
    }
    fn overrun(&self, what: &str, used: usize, reserved: u32) {
        if let Some(log) = &self.journal.log {
            log.state.lock().overruns += 1;
        }
        tracing::error!("a transaction used {used} {what} but had reserved {reserved}");
        debug_assert!(std::thread::panicking(), "a transaction used {used} {what} but had reserved {reserved}");
    }
    fn close(&mut self) {
        self.done = true;
        OPEN.set(OPEN.get().saturating_sub(1));
        if let Some(log) = &self.journal.log {
            let mut s = log.state.lock();
            s.open -= 1;
            s.promised_blocks -= self.reserve.blocks as usize;
            s.promised_revokes -= self.reserve.revokes as usize;
            if s.open == 0 {
                log.idle.notify_all();
            }
            if !s.queue.is_empty() {
                log.admitted.notify_all();
            }
            let pressure = super::flusher::pressure(&s, log);
            drop(s);
            self.journal.press(log, pressure, self.changed);
        }
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if self.changed {
            self.journal.cache.health().fail_because("a change was abandoned half-way");
        }
        self.close();
    }
}
