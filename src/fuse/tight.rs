//! A disk that is nearly full, under a kernel that collects writes.
//!
//! With the write-back cache the kernel says yes to a write(2) before we have heard of it, and when the bytes come there may be
//! no room: the error then comes from fsync(2) or close(2). So while space is *tight* the kernel is made to ask before each
//! write to a file: its attributes are not good for any time, and it sends GETATTR with the file's handle. Before that is
//! answered, what was collected of the file is taken in. Then the answer says ENOSPC if that failed, or if what is left is less
//! than what the previous write took, which is what the next one will probably take.
//!
//! So a program that writes until the disk is full is told so by the write that does not fit. One whose writes grow may learn it
//! one write late, from the next write, from fsync or from close; so may one whose first write it is. Writing over what is there always works.

use super::asker::Asker;
use super::kernel::Kernel;
use super::service::{Service, WriteHow};
use crate::error::{Error, Result};
use crate::fs::Attr;
use std::time::Duration;

/// Free bytes below which space is tight. The kernel lets 1 % of the memory that may be dirty collect for a FUSE mount before it
/// makes the writers wait; with 64 GiB of memory that is as much.
const TIGHT_BYTES: u64 = 128 << 20;

/// What is known of a file's writes while space is tight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Collected {
    /// The kernel has asked before a write.
    asked: bool,
    /// Bytes of free space that went since then, while it was written: to it, and to whoever wrote at the same moments.
    took: u64,
    /// Something that the kernel had collected found no room.
    lost: bool,
}

impl Kernel {
    /// WRITE of `bytes` at (node, offset).
    pub(super) fn write(
        &self,
        service: &Service,
        asker: &Asker,
        (node, offset): (u64, u64),
        bytes: &[u8],
        how: WriteHow,
    ) -> Result<usize> {
        self.wrote(node);
        if !service.policy.writeback_cache {
            return service.write(asker, node, offset, bytes, how);
        }
        let before = service.fs.space().free_bytes();
        self.set_tight(before < TIGHT_BYTES);
        let result = service.write(asker, node, offset, bytes, how);
        if how.cached && self.is_tight() {
            let full = matches!(&result, Err(Error::NoSpace | Error::QuotaExceeded));
            let took = before.saturating_sub(service.fs.space().free_bytes());
            self.collected(node, |c| Collected { took: c.took.saturating_add(took), lost: c.lost || full, ..c });
        }
        result
    }

    /// GETATTR for an open file, mostly because a write is about to be collected. Waits for other requests: only for a thread
    /// that may wait.
    pub(super) fn attr_before_write(&self, service: &Service, node: u64) -> Result<Attr> {
        self.collect_writes(node);
        let mut was = Collected::default();
        self.collected(node, |c| {
            was = c;
            Collected { asked: true, ..Collected::default() }
        });
        // Before it asked for the first time any number of writes may have been collected.
        let since = service.fs.deletions_ended();
        let fits = || service.fs.space().free_bytes() >= was.took;
        if was.lost || was.asked && !fits() && !(service.fs.await_deletions(since)? && fits()) {
            return Err(Error::NoSpace);
        }
        service.getattr(node)
    }

    /// True when GETATTR for this file needs [`Kernel::attr_before_write`].
    pub(super) fn asks_before_write(&self, node: u64) -> bool {
        self.is_tight() && self.is_written(node)
    }

    /// How long attributes of this node are good.
    pub(super) fn attr_ttl(&self, service: &Service, node: u64) -> Duration {
        if self.asks_before_write(node) { Duration::ZERO } else { service.policy.attr_ttl }
    }
}
