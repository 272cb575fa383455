//! Writing back, moving the tail, making room: how log blocks become free again (ondisk.md 8.5, 8.6).

use super::ail::Place;
use super::flush::{FlushReason, Role};
use super::log::{Journal, Log};
use super::reserve::Reserve;
use crate::cache::{Doubt, coalesce};
use crate::error::{Error, Result};
use crate::format::log::LH_UNMOUNT;

/// `lh_flags` of the header that closes a log: clean, written by a shutdown (what the kernel writes).
const CLOSED: u32 = LH_UNMOUNT | 0x100;
/// Bytes of one round of write-back: others wait for a round at most.
const ROUND: usize = 8 << 20;

impl Journal {
    /// Writes committed blocks in place and waits. One round at a time, so two writes of one block never overlap.
    pub(super) fn write_back(&self, log: &Log, which: Place) -> Result<()> {
        let _doubt = Doubt(self.cache.health());
        let per_round = ROUND / self.cache.block_size().bytes();
        loop {
            let round = log.writeback.lock();
            let chosen = {
                let mut s = log.state.lock();
                let owned = match which {
                    Place::Owner(owner) => s.copies.of_owner(owner),
                    Place::Upto(_) => Vec::new(),
                };
                let chosen = s.ail.choose(which, &owned, per_round);
                s.inflight = chosen.iter().map(|(a, ..)| *a).collect();
                chosen
            };
            if chosen.is_empty() {
                return Ok(());
            }
            let bs = self.cache.block_size();
            let blocks: Vec<(u64, &[u8])> = chosen.iter().map(|(a, _, bytes)| (bs.offset(*a), &bytes[..])).collect();
            let requests = coalesce(&blocks);
            let ranges: Vec<(u64, &[u8])> = requests.iter().map(|(offset, buf)| (*offset, &buf[..])).collect();
            let result = self.write_many(&ranges);
            let mut s = log.state.lock();
            s.inflight.clear();
            if let Err(e) = result {
                drop(s);
                self.withdraw(&e);
                return Err(e);
            }
            for (addr, group, _) in &chosen {
                s.ail.written(*addr, *group);
            }
            drop(s);
            drop(round);
        }
    }

    /// Writes a header without a group when that moves the durable tail.
    pub(super) fn move_tail(&self, log: &Log, why: FlushReason) -> Result<()> {
        let role = self.role(log)?;
        self.write_tail_header(&role, why).inspect_err(|e| self.withdraw(e))
    }
    pub(super) fn write_tail_header(&self, role: &Role<'_>, why: FlushReason) -> Result<()> {
        let log = role.0;
        self.cache.health().check()?;
        let (at, tail, local) = {
            let mut s = log.state.lock();
            let tail = s.ail.oldest_start(std::iter::empty()).unwrap_or(s.ring.next());
            // Moving past a mere header would cost the block that it gains.
            if tail < s.ring.tail() + 2 {
                return Ok(());
            }
            (s.ring.take(1), tail, s.local_logged)
        };
        self.write_log_header(log, at, tail, why.flags(), local)?;
        log.state.lock().pass_tail(tail);
        Ok(())
    }
    /// The last header: everything is in place, nothing to replay.
    pub(super) fn write_closing_header(&self, role: &Role<'_>) -> Result<()> {
        let log = role.0;
        let (at, local) = {
            let mut s = log.state.lock();
            if !s.ail.is_empty() || !s.batch.is_empty() {
                return Err(Error::Busy);
            }
            (s.ring.take(1), s.local_logged)
        };
        self.write_log_header(log, at, at, CLOSED, local)?;
        log.state.lock().pass_tail(at);
        Ok(())
    }

    /// Makes room for a reservation: commits, writes back, moves the tail. One caller does it for all.
    pub(super) fn make_room(&self, log: &Log, reserve: Reserve) -> Result<()> {
        let _one = log.room.lock();
        if log.state.lock().has_room(log.costs, reserve) {
            return Ok(());
        }
        self.flush(FlushReason::Normal)?;
        self.write_back(log, Place::Upto(self.committed()))?;
        self.move_tail(log, FlushReason::Normal)
    }
}
