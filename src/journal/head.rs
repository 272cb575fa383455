//! Finding the newest header of a log (ondisk.md 8.9).

use super::place::LogMap;
use crate::cache::Cache;
use crate::device::AlignedBuf;
use crate::error::Result;
use crate::format::log::LH_UNMOUNT;
use crate::format::{LogHeader, OnDisk, StatfsChange};
use crate::ids::{LogBlock, LogSeq};

/// What the newest header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) sequence: LogSeq,
    pub(super) flags: u32,
    pub(super) tail: u32,
    pub(super) at: u32,
    /// (total, free, dinodes) of the writer's local statfs.
    pub(super) local: (i64, i64, i64),
}

impl Head {
    /// The head of a journal without any header: nothing to replay.
    const ZERO: Self = Self { sequence: LogSeq(0), flags: 0, tail: 0, at: 0, local: (0, 0, 0) };

    pub(super) fn of(block: &[u8]) -> Self {
        let lh = LogHeader::view(block);
        // A version 1 header ends before these.
        let local = if lh.crc.get() == 0 {
            StatfsChange::default()
        } else {
            StatfsChange { total: lh.local_total, free: lh.local_free, dinodes: lh.local_dinodes }
        };
        Self {
            sequence: LogSeq(lh.sequence.get()),
            flags: lh.flags.get(),
            tail: lh.tail.get(),
            at: lh.blkno.get(),
            local: (local.total.get(), local.free.get(), local.dinodes.get()),
        }
    }
    /// True when nothing is to be replayed.
    pub(super) fn is_clean(&self) -> bool {
        self.flags & LH_UNMOUNT != 0
    }
}

/// The kernel's rule: from block 0 on, each valid header whose sequence is not lower than the best so far is the best; the
/// first lower one ends the search, for sequences grow along the ring.
pub(super) fn find(cache: &Cache, map: &LogMap) -> Result<Head> {
    let bs = cache.block_size().bytes();
    let per_read = ((1 << 20) / bs) as u32;
    let mut buf = AlignedBuf::zeroed(per_read as usize * bs);
    let mut best = Head::ZERO;
    let mut at = 0;
    while at < map.size() {
        let blocks = per_read.min(map.size() - at);
        let part = &mut buf[..blocks as usize * bs];
        map.read(cache, LogBlock(at), part)?;
        for block in part.chunks_exact(bs).filter(|b| LogHeader::is_valid(b)) {
            let head = Head::of(block);
            if head.sequence < best.sequence {
                return Ok(best);
            }
            best = head;
        }
        at += blocks;
    }
    Ok(best)
}
