//! Replay of one journal into the overlay (ondisk.md 8.10): an implementation of its own, written from the specification, so
//! that it can testify about the filesystem's.

use crate::disk::Disk;
use crate::issue::IssueKind;
use crate::journal::{Head, Journal};
use crate::report::{CheckError, Findings};
use gfs2r::format::log::{LD_ITEMS, LD_JDATA, LD_METADATA, LD_REVOKE};
use gfs2r::format::{LogDescriptor, LogHeader, MAGIC, MetaHeader, MetaType, OnDisk, get_u64};
use std::collections::HashMap;

/// Why the walk stopped: the journal block and the reason.
type Stop = (u32, &'static str);

/// A logged copy of a block.
#[derive(Clone, Copy, Debug)]
struct Copy {
    /// Journal block of the copy.
    at: u32,
    /// Where it belongs.
    target: u64,
    /// The first word was replaced by zero.
    escaped: bool,
    /// From a METADATA section.
    metadata: bool,
}

#[derive(Default)]
struct Log {
    copies: Vec<Copy>,
    /// Revoked address → journal block of the last revoke.
    revokes: HashMap<u64, u32>,
}

/// Lays what a dirty journal holds over the disk. `earlier` are the journals replayed before. False when recovery would
/// give up; then there is no view to check.
pub(crate) fn replay(
    disk: &mut Disk<'_>,
    found: &mut Findings,
    journal: &mut Journal,
    earlier: &[Journal],
) -> Result<bool, CheckError> {
    let Some(head) = journal.head else { return Ok(true) };
    let (jid, inode) = (journal.jid, journal.inode);
    if head.tail as usize >= journal.blocks.len() {
        found.add(inode, inode, IssueKind::JournalTail { jid, tail: head.tail });
        return Ok(false);
    }
    let log = match walk(disk, journal, head)? {
        Ok(log) => log,
        Err((at, what)) => {
            let block = journal.blocks.get(at as usize).copied();
            found.add(block, inode, IssueKind::JournalWalk { jid, at, what });
            return Ok(false);
        }
    };
    lay(disk, found, journal, earlier, head, &log)
}

/// Lays the newest copy of each block over the disk, unless a later revoke cancels it.
fn lay(
    disk: &mut Disk<'_>,
    found: &mut Findings,
    journal: &mut Journal,
    earlier: &[Journal],
    head: Head,
    log: &Log,
) -> Result<bool, CheckError> {
    let (jid, inode, count) = (journal.jid, journal.inode, journal.blocks.len() as u64);
    let distance = |at: u32| (u64::from(at) + count - u64::from(head.tail)) % count;
    let cancelled = |copy: &Copy| log.revokes.get(&copy.target).is_some_and(|&at| distance(copy.at) < distance(at));
    let live: Vec<&Copy> = log.copies.iter().filter(|copy| !cancelled(copy)).collect();
    let revoked = (log.copies.len() - live.len()) as u64;
    let newest: HashMap<u64, usize> = live.iter().enumerate().map(|(i, copy)| (copy.target, i)).collect();
    let mut items: Vec<(u64, usize)> =
        live.iter().enumerate().map(|(i, copy)| (journal.blocks[copy.at as usize], i)).collect();
    let mut images = Vec::new();
    let mut whole = true;
    disk.visit(&mut items, |source, i, bytes| {
        let Copy { at, target, escaped, metadata } = *live[i];
        if metadata && !MetaHeader::has_magic(bytes) {
            whole = false;
            found.add(source, inode, IssueKind::JournalPayload { jid, at, target });
        } else if target >= disk.blocks || target == 0 {
            found.add(source, inode, IssueKind::JournalTarget { jid, at, target });
        } else if newest.get(&target) == Some(&i) {
            let mut image: Box<[u8]> = bytes.into();
            if escaped {
                MetaHeader::edit(&mut image).magic.set(MAGIC);
            }
            images.push((target, metadata, image));
        }
        Ok(())
    })?;
    if !whole {
        return Ok(false);
    }
    for (target, metadata, image) in images {
        if let Some(other) = earlier.iter().find(|other| other.replayed.contains_key(&target)) {
            found.add(target, inode, IssueKind::JournalConflict { jid, other: other.jid });
        }
        disk.lay_over(target, image);
        journal.replayed.insert(target, metadata);
    }
    let blocks = journal.replayed.len() as u64;
    found.add(None, inode, IssueKind::JournalReplayed { jid, blocks, revoked });
    Ok(true)
}

/// Walks from the tail to the head and takes note of copies and revokes.
fn walk(disk: &Disk<'_>, journal: &Journal, head: Head) -> Result<Result<Log, Stop>, CheckError> {
    let count = journal.blocks.len() as u64;
    let mut log = Log::default();
    let mut at = head.tail;
    let mut left = (u64::from(head.at) + count - u64::from(at)) % count;
    let mut sequence: Option<u64> = None;
    while left > 0 {
        let bytes = disk.read(journal.blocks[at as usize])?;
        let step = if LogHeader::is_valid(&bytes) {
            let lh = LogHeader::view(&bytes);
            if lh.blkno.get() != at && at != 0 {
                return Ok(Err((at, "a log header of another place between tail and head")));
            }
            if sequence.is_some_and(|before| before.checked_add(1) != Some(lh.sequence.get())) {
                return Ok(Err((at, "a gap in the sequence between tail and head")));
            }
            sequence = Some(lh.sequence.get());
            1
        } else {
            match section(disk, journal, at, &bytes, left, &mut log)? {
                Ok(step) => step,
                Err(what) => return Ok(Err((at, what))),
            }
        };
        at = journal.after(at, step);
        left -= u64::from(step);
    }
    if sequence.is_some_and(|before| before.checked_add(1) != Some(head.sequence)) {
        return Ok(Err((head.at, "a gap in the sequence before the head")));
    }
    Ok(Ok(log))
}

/// Takes note of one section; its length in blocks.
fn section(
    disk: &Disk<'_>,
    journal: &Journal,
    at: u32,
    bytes: &[u8],
    left: u64,
    log: &mut Log,
) -> Result<Result<u32, &'static str>, CheckError> {
    let ld = LogDescriptor::view(bytes);
    if ld.header.magic.get() != MAGIC || ld.header.kind.get() != MetaType::LogDescriptor as u32 {
        return Ok(Err("neither log header nor descriptor between tail and head"));
    }
    let (kind, length, items) = (ld.kind.get(), ld.length.get(), ld.data1.get() as usize);
    if length == 0 || u64::from(length) > left {
        return Ok(Err("a section that ends behind the head"));
    }
    let width = if kind == LD_JDATA { 16 } else { 8 };
    let room = (disk.bs.bytes() - LD_ITEMS) / width;
    match kind {
        LD_METADATA | LD_JDATA => {
            if items > room || length as usize != items + 1 {
                return Ok(Err("a descriptor whose length does not match its items"));
            }
            for item in 0..items {
                let offset = LD_ITEMS + width * item;
                log.copies.push(Copy {
                    // Below the length, which is a u32.
                    at: journal.after(at, item as u32 + 1),
                    target: get_u64(bytes, offset),
                    escaped: kind == LD_JDATA && get_u64(bytes, offset + 8) != 0,
                    metadata: kind == LD_METADATA,
                });
            }
        }
        LD_REVOKE => return revokes(disk, journal, at, bytes, (length, items), log),
        _ => return Ok(Err("a descriptor of unknown type")),
    }
    Ok(Ok(length))
}

fn revokes(
    disk: &Disk<'_>,
    journal: &Journal,
    at: u32,
    bytes: &[u8],
    (length, items): (u32, usize),
    log: &mut Log,
) -> Result<Result<u32, &'static str>, CheckError> {
    let bs = disk.bs.bytes();
    let first = (bs - LD_ITEMS) / 8;
    let more = items.saturating_sub(first).div_ceil((bs - 24) / 8);
    if length as usize != 1 + more {
        return Ok(Err("a revoke descriptor whose length does not match its items"));
    }
    let mut left = items;
    for number in 0..length {
        let place = journal.after(at, number);
        let continuation;
        let (block, start) = if number == 0 {
            (bytes, LD_ITEMS)
        } else {
            continuation = disk.read(journal.blocks[place as usize])?;
            let header = MetaHeader::view(&continuation);
            if header.magic.get() != MAGIC || header.kind.get() != MetaType::LogContinuation as u32 {
                return Ok(Err("a revoke section without its continuation block"));
            }
            (&continuation[..], 24)
        };
        let here = left.min((bs - start) / 8);
        log.revokes.extend((0..here).map(|i| (get_u64(block, start + 8 * i), place)));
        left -= here;
    }
    Ok(Ok(length))
}
