//! Ordered data and body → barrier → header (ondisk.md 8.5).

use super::ail::{Entry, Place};
use super::log::{Journal, Log};
use super::records::{HeaderFields, Image, encode, write_header};
use super::state::State;
use crate::cache::{Buffer, BufferKind, Doubt, Ticket};
use crate::device::AlignedBuf;
use crate::error::{CorruptKind, Error, Result};
use crate::format::log::{LH_FLUSH_FREEZE, LH_FLUSH_NORMAL, LH_FLUSH_SHUTDOWN, LH_FLUSH_SYNC};
use crate::format::{MetaHeader, StatfsChange};
use crate::ids::{BatchId, BlockAddr, LockName};
use crate::sync::{Instant, MutexGuard, about_to_wait};
use std::sync::Arc;
use std::time::Duration;

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

impl FlushReason {
    pub(super) fn flags(self) -> u32 {
        match self {
            Self::Normal => LH_FLUSH_NORMAL,
            Self::Sync => LH_FLUSH_SYNC,
            Self::Shutdown => LH_FLUSH_SHUTDOWN,
            Self::Freeze => LH_FLUSH_FREEZE,
        }
    }
}

/// A body is handed to the device in requests of this size, several in flight.
const BODY_REQUEST: usize = 1 << 20;

/// Longest time that a flush waits for company.
const PATIENCE: Duration = Duration::from_millis(1);

/// Threads that had waited for the last flush are likely to be back in a moment with their next transaction: without a little
/// patience the first of them would flush for itself alone, and the others wait for a second flush. A lone thread waits for
/// nobody.
fn gather(log: &Log, s: &mut MutexGuard<'_, State>) {
    let until = Instant::now() + (s.last_took / 4).min(PATIENCE);
    while s.waiting < s.last_together {
        if log.gathered.wait_until(s, until).timed_out() {
            return;
        }
    }
}

/// A batch as it stood when its last transaction ended.
struct Snapshot {
    id: BatchId,
    meta: Vec<Image>,
    jdata: Vec<Image>,
    revokes: Vec<BlockAddr>,
    buffers: Vec<(BlockAddr, Arc<Buffer>)>,
    gone: Vec<BlockAddr>,
    awaits_writeback: bool,
    wants_barrier: bool,
    local: StatfsChange,
}

impl Snapshot {
    fn has_nothing_to_log(&self) -> bool {
        self.buffers.is_empty() && self.revokes.is_empty()
    }
}

/// The right to write to the log; one thread has it at a time.
pub(super) struct Role<'a>(pub(super) &'a Log);

impl Drop for Role<'_> {
    fn drop(&mut self) {
        self.0.state.lock().flushing = false;
        self.0.flushed.notify_all();
        self.0.admitted.notify_all();
    }
}

impl Journal {
    /// Makes every batch up to `upto` durable; returns at once when it is. Concurrent calls share one flush.
    pub fn flush_to(&self, upto: BatchId, why: FlushReason) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        let mut s = log.state.lock();
        let upto = upto.min(s.running);
        if s.committed >= upto {
            return Ok(());
        }
        self.cache.health().check()?;
        about_to_wait()?;
        super::transaction::must_have_none_open()?;
        s.waiting += 1;
        log.gathered.notify_all();
        let role = loop {
            let done = if s.committed >= upto || (log.is_shut() && s.batch.is_empty()) {
                Some(Ok(()))
            } else {
                self.cache.health().check().err().map(Err)
            };
            if let Some(done) = done {
                s.waiting -= 1;
                return done;
            }
            if !s.flushing {
                s.flushing = true;
                break Role(log);
            }
            log.flushed.wait(&mut s);
        };
        if why == FlushReason::Sync {
            gather(log, &mut s);
        }
        let (together, start) = (s.waiting, Instant::now());
        drop(s);
        let result = self.commit_running(&role, why);
        let mut s = log.state.lock();
        s.waiting -= 1;
        (s.last_together, s.last_took) = (together, start.elapsed());
        result
    }
    /// Makes everything committed so far durable (also file data ordered with it).
    pub fn flush(&self, why: FlushReason) -> Result<()> {
        self.flush_to(self.running(), why)
    }
    /// fsync: makes the data of `owner` that is buffered now and every batch up to `upto` durable, with one device flush
    /// before the log header, shared with whoever else is waiting.
    pub fn sync_file(&self, owner: LockName, upto: BatchId) -> Result<()> {
        let data = self.cache.data();
        let Some(log) = &self.log else { return Ok(()) };
        self.cache.health().check()?;
        about_to_wait()?;
        {
            let mut s = log.state.lock();
            if upto >= s.running && !log.is_shut() {
                // Under the mutex: the snapshot of this batch comes later and so sees the data as its own.
                let unwritten = data.order_owner(owner, s.running);
                s.batch.wants_barrier |= unwritten || data.needs_barrier();
                let running = s.running;
                drop(s);
                return self.flush_to(running, FlushReason::Sync);
            }
        }
        data.write_owner(owner)?;
        let ticket = data.needs_barrier().then(|| self.cache.barrier().ticket());
        self.flush_to(upto, FlushReason::Sync)?;
        ticket.map_or(Ok(()), |ticket| self.barrier_after(log, ticket))
    }
    /// sync(2): makes all buffered data and everything committed so far durable, with one device flush where the log has
    /// something to commit.
    pub fn sync(&self) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        self.cache.health().check()?;
        about_to_wait()?;
        self.cache.data().write_all()?;
        let ticket = self.cache.barrier().ticket();
        self.flush(FlushReason::Sync)?;
        self.barrier_after(log, ticket)
    }
    /// Makes file data that was written ([`DataCache::write_owner`](crate::cache::DataCache::write_owner)) durable: a device
    /// flush and nothing else.
    pub fn sync_data(&self) -> Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        self.cache.health().check()?;
        about_to_wait()?;
        let ticket = self.cache.barrier().ticket();
        self.barrier_after(log, ticket)
    }
    fn barrier_after(&self, log: &Log, ticket: Ticket) -> Result<()> {
        if !log.barrier {
            return Ok(());
        }
        self.cache.barrier().pass(ticket, &**self.cache.device(), self.cache.health())
    }

    /// Waits for the right to write to the log.
    pub(super) fn role<'a>(&self, log: &'a Log) -> Result<Role<'a>> {
        let mut s = log.state.lock();
        while s.flushing {
            self.cache.health().check()?;
            about_to_wait()?;
            log.flushed.wait(&mut s);
        }
        s.flushing = true;
        Ok(Role(log))
    }

    /// Commits the running batch. An error withdraws.
    fn commit_running(&self, role: &Role<'_>, why: FlushReason) -> Result<()> {
        let _doubt = Doubt(self.cache.health());
        let snapshot = self.snapshot(role.0);
        let result = self.commit(role, &snapshot, why);
        if let Err(e) = &result {
            self.withdraw(e);
        }
        result
    }
    fn commit(&self, role: &Role<'_>, snap: &Snapshot, why: FlushReason) -> Result<()> {
        let log = role.0;
        let data = self.cache.data();
        if snap.has_nothing_to_log() {
            let ordered = data.take_ordered(snap.id);
            let barrier = ordered.is_some() || snap.wants_barrier;
            if let Some(set) = ordered {
                let done = self.write_many(&set.ranges());
                data.finish(set);
                done?;
            }
            data.write_ordered(snap.id)?;
            if barrier {
                self.barrier_after(log, self.cache.barrier().ticket())?;
            }
            log.state.lock().committed = snap.id;
            return Ok(());
        }
        for (addr, bytes) in &snap.meta {
            if !MetaHeader::has_magic(bytes) {
                return Err(Error::corrupt(
                    *addr,
                    CorruptKind::Journal("a metadata block without a header was to be logged"),
                ));
            }
        }
        let blocks = log.costs.body(snap.meta.len(), snap.jdata.len(), snap.revokes.len());
        let start = self.take_log(role, blocks as u64 + 1)?;
        self.write_body(log, snap, start, blocks)?;
        if snap.awaits_writeback {
            // A block that this batch frees may be reused once it is durable: no older write of it may come later.
            drop(log.writeback.lock());
        }
        let header = start + blocks as u64;
        let tail = {
            let s = log.state.lock();
            let leaving = snap.buffers.iter().map(|(a, _)| a).chain(&snap.gone);
            // Only what has been written in place by now is made durable by the header's flush.
            s.ail.oldest_start(leaving).unwrap_or(if snap.buffers.is_empty() { header } else { start })
        };
        self.write_log_header(log, header, tail, why.flags(), snap.local)?;
        self.publish(log, snap, start, tail);
        Ok(())
    }

    /// Ends the running batch: waits until no transaction is open, and takes what they have done.
    fn snapshot(&self, log: &Log) -> Snapshot {
        let mut s = log.state.lock();
        s.closing = true;
        while s.open > 0 {
            log.idle.wait(&mut s);
        }
        let batch = std::mem::take(&mut s.batch);
        let id = s.running;
        let (mut meta, mut jdata) = (Vec::with_capacity(batch.pinned.len()), Vec::new());
        let mut buffers = Vec::with_capacity(batch.pinned.len());
        for (addr, (buffer, owner)) in &batch.pinned {
            let (bytes, kind) = buffer.snapshot();
            if kind == BufferKind::Jdata {
                jdata.push((*addr, bytes))
            } else {
                meta.push((*addr, bytes))
            }
            s.copies.add(*addr, *owner, id);
            buffers.push((*addr, buffer.clone()));
        }
        // A revoke whose copies the tail has passed meanwhile is no longer owed.
        let mut revokes: Vec<BlockAddr> =
            batch.revokes.iter().filter(|a| s.copies.newest(**a).is_some()).copied().collect();
        s.local_logged = s.local;
        let local = s.local;
        s.running.0 += 1;
        s.closing = false;
        log.admitted.notify_all();
        drop(s);
        meta.sort_unstable_by_key(|(a, _)| *a);
        jdata.sort_unstable_by_key(|(a, _)| *a);
        revokes.sort_unstable();
        let gone = batch.gone.iter().filter(|a| !batch.pinned.contains_key(a)).copied().collect();
        Snapshot {
            id,
            meta,
            jdata,
            revokes,
            buffers,
            gone,
            awaits_writeback: batch.awaits_writeback,
            wants_barrier: batch.wants_barrier,
            local,
        }
    }

    /// Room in the log for a group. There always is, since transactions reserve; should one have used more than it had
    /// reserved, the tail is moved first.
    fn take_log(&self, role: &Role<'_>, blocks: u64) -> Result<u64> {
        let log = role.0;
        for attempt in 0..2 {
            let mut s = log.state.lock();
            if blocks <= s.ring.free() {
                return Ok(s.ring.take(blocks));
            }
            let upto = s.committed;
            drop(s);
            if attempt == 0 {
                tracing::error!("a group of {blocks} blocks does not fit in the log: moving the tail");
                self.write_back(log, Place::Upto(upto))?;
                self.write_tail_header(role, FlushReason::Normal)?;
            }
        }
        Err(Error::corrupt(log.place.inode, CorruptKind::Journal("a group does not fit in the log")))
    }

    /// Writes the group's blocks, and the data that must be on the disk before it commits, and waits.
    fn write_body(&self, log: &Log, snap: &Snapshot, start: u64, blocks: usize) -> Result<()> {
        let bs = self.cache.block_size();
        let mut body = AlignedBuf::zeroed(blocks * bs.bytes());
        encode(bs, &snap.jdata, &snap.meta, &snap.revokes, &mut body);
        let mut ranges: Vec<(u64, &[u8])> = Vec::new();
        let mut from = 0;
        for (offset, len) in log.runs(start, blocks) {
            for (i, part) in body[from..from + len].chunks(BODY_REQUEST).enumerate() {
                ranges.push((offset + (i * BODY_REQUEST) as u64, part));
            }
            from += len;
        }
        let data = self.cache.data();
        match data.take_ordered(snap.id) {
            None => self.write_many(&ranges)?,
            Some(set) => {
                let mut all = set.ranges();
                all.append(&mut ranges);
                let done = self.write_many(&all);
                drop(all);
                data.finish(set);
                done?;
            }
        }
        data.write_ordered(snap.id)
    }

    /// Flushes the device and writes a header at `at`. When it returns, `tail` is in force.
    pub(super) fn write_log_header(
        &self,
        log: &Log,
        at: u64,
        tail: u64,
        flags: u32,
        local: StatfsChange,
    ) -> Result<()> {
        let (sequence, block, tail) = {
            let mut s = log.state.lock();
            let sequence = s.sequence;
            s.sequence.0 += 1;
            (sequence, s.ring.block(at), s.ring.block(tail))
        };
        let place = &log.place;
        let mut buf = AlignedBuf::zeroed(self.cache.block_size().bytes());
        let fields = HeaderFields {
            writer: place.jid,
            sequence,
            flags,
            tail,
            at: block,
            addr: log.map.addr(block),
            inode: place.inode,
            files: (place.statfs_change.get(), place.quota_change.get()),
            local,
            time: log.clock.now(),
        };
        write_header(&mut buf, &fields);
        let offset = self.cache.block_size().offset(fields.addr);
        let (dev, health) = (self.cache.device(), self.cache.health());
        if log.barrier {
            self.barrier_after(log, self.cache.barrier().ticket())?;
            health.check()?;
            health.watch(dev.write_durable(offset, &buf))
        } else {
            health.check()?;
            health.watch(dev.write(offset, &buf))
        }
    }

    /// The header is durable: the batch is committed.
    fn publish(&self, log: &Log, snap: &Snapshot, start: u64, tail: u64) {
        let mut images: Vec<&Image> = snap.meta.iter().chain(&snap.jdata).collect();
        images.sort_unstable_by_key(|(a, _)| *a);
        let mut buffers: Vec<&(BlockAddr, Arc<Buffer>)> = snap.buffers.iter().collect();
        buffers.sort_unstable_by_key(|(a, _)| *a);
        let mut guard = log.state.lock();
        let s = &mut *guard;
        s.committed = snap.id;
        let running = s.running;
        let entries = images.into_iter().zip(buffers).map(|((addr, bytes), (_, buffer))| {
            let gone = s.batch.forgotten.contains(addr).then_some(running);
            if gone.is_some() {
                s.batch.gone.insert(*addr);
            }
            (*addr, Entry { buffer: buffer.clone(), bytes: bytes.clone(), group: snap.id, gone })
        });
        let entries: Vec<(BlockAddr, Entry)> = entries.collect();
        if !entries.is_empty() {
            s.ail.add_group(snap.id, start, entries);
        }
        for addr in &snap.gone {
            s.ail.drop_gone(*addr, snap.id);
        }
        for addr in &snap.revokes {
            s.copies.drop_upto(*addr, BatchId(snap.id.0 - 1));
        }
        s.pass_tail(tail);
        for (_, buffer) in &snap.buffers {
            buffer.unpin(snap.id);
        }
    }

    pub(super) fn write_many(&self, ranges: &[(u64, &[u8])]) -> Result<()> {
        let health = self.cache.health();
        health.check()?;
        match ranges {
            [] => Ok(()),
            [(offset, buf)] => health.watch(self.cache.device().write(*offset, buf)),
            _ => health.watch(self.cache.device().write_many(ranges)),
        }
    }
}
