//! From memory to the disk, so that a crash at any moment leaves the volume as it was or as it is to be.
//!
//! What is changed in place goes through a journal of the volume, like any transaction: copies, a log header, flush, in place,
//! flush, a header that closes the log. Whoever comes next after a crash replays it. Blocks without a metadata header (data
//! that is copied, a new rindex, new log blocks) lie where nothing was, and are written before; so is what leads to the journals.

use crate::journal::{Head, Journal};
use crate::reader;
use crate::repair::journals::closed;
use crate::repair::tree;
use crate::repair::work::Work;
use crate::report::CheckError;
use gfs2r::device::{AlignedBuf, BlockDevice};
use gfs2r::format::log::{LD_ITEMS, LD_METADATA, LH_USERSPACE};
use gfs2r::format::superblock::SUPERBLOCK_OFFSET;
use gfs2r::format::{Dinode, LogDescriptor, LogHeader, MetaHeader, MetaType, OnDisk, Superblock, put_u64};
use gfs2r::ids::BlockSize;
use std::collections::HashSet;

/// Writes everything. How many blocks; the changes are forgotten.
pub(crate) fn commit(work: &mut Work<'_>, journals: &[Journal]) -> Result<u64, CheckError> {
    let changes = work.disk.changes();
    if changes.is_empty() && !work.sb_changed {
        return Ok(0);
    }
    let device = work.disk.device();
    let guarded = !changes.is_empty();
    if guarded {
        // No kernel mounts a volume with this protocol.
        let mut sb = work.sb;
        if let Some(rest) = work.sb.lockproto().strip_prefix(b"lock_") {
            sb.lockproto[..5].copy_from_slice(b"fsck_");
            sb.lockproto[5..5 + rest.len()].copy_from_slice(rest);
        }
        put_superblock(device, &sb)?;
    }
    let logs: HashSet<u64> = journals.iter().flat_map(|j| j.blocks.iter().copied()).collect();
    let is_plain = |at: &u64| {
        let log = [MetaType::LogHeader as u32, MetaType::LogDescriptor as u32];
        let bytes = work.disk.change(*at).unwrap_or_default();
        logs.contains(at) || !MetaHeader::has_magic(bytes) || log.contains(&MetaHeader::view_kind(bytes))
    };
    let (plain, logged): (Vec<u64>, Vec<u64>) = changes.iter().partition(|at| is_plain(at));
    in_place(work, &plain)?;
    // A log that nobody finds is none: what leads to it was broken, and is mended before it is used.
    let way = way_to_logs(work, journals)?;
    let (way, logged): (Vec<u64>, Vec<u64>) = logged.iter().partition(|at| way.contains(at));
    in_place(work, &way)?;
    flush(device)?;
    let whole = |j: &&Journal| j.head.is_some() && !j.is_dirty() && !j.blocks.iter().any(|b| plain.contains(b));
    let log = journals.iter().filter(whole).max_by_key(|j| j.blocks.len()).filter(|j| j.blocks.len() >= 64);
    match log.and_then(|j| j.head.map(|head| (j, head))) {
        Some((journal, mut head)) => {
            let room = (work.disk.bs.bytes() - LD_ITEMS) / 8;
            let batch = (journal.blocks.len() - 4) * room / (room + 1) - 2;
            for part in logged.chunks(batch) {
                through(work, journal, &mut head, part)?;
            }
        }
        None => {
            in_place(work, &logged)?;
            flush(device)?;
        }
    }
    if guarded || work.sb_changed {
        put_superblock(device, &work.sb)?;
    }
    let written = changes.len() as u64 + u64::from(work.sb_changed);
    work.sb_changed = false;
    work.disk.forget(None);
    Ok(written)
}

/// The blocks on the way from the superblock to the journals: master, jindex, the journals' dinodes and their indirect blocks.
fn way_to_logs(work: &Work<'_>, journals: &[Journal]) -> Result<HashSet<u64>, CheckError> {
    let master = work.sb.master_dir.addr.get();
    let mut way = HashSet::from([master]);
    let jindex = reader::dinode(&work.disk, master).and_then(|m| reader::lookup(&work.disk, &m, b"jindex"));
    way.extend(jindex.ok().flatten().map(|entry| entry.addr));
    for journal in journals {
        way.insert(journal.inode);
        if let Ok(dinode) = reader::dinode(&work.disk, journal.inode) {
            let height = Dinode::view(&dinode).height.get();
            let inner = tree::blocks(&work.disk, &dinode)?.into_iter().filter(|&(_, level)| level < height);
            way.extend(inner.map(|(at, _)| at));
        }
    }
    Ok(way)
}

fn flush(device: &dyn BlockDevice) -> Result<(), CheckError> {
    device.flush().map_err(|error| CheckError::Io { block: 0, error })
}

fn put_superblock(device: &dyn BlockDevice, sb: &Superblock) -> Result<(), CheckError> {
    let io = |error| CheckError::Io { block: 0, error };
    let mut buf = AlignedBuf::zeroed(device.alignment().max(512));
    device.read(SUPERBLOCK_OFFSET, &mut buf).map_err(io)?;
    *Superblock::edit(&mut buf) = *sb;
    device.write_durable(SUPERBLOCK_OFFSET, &buf).map_err(io)
}

/// Writes one block, with those beside it when the device knows only larger pieces.
fn put(device: &dyn BlockDevice, bs: BlockSize, addr: u64, bytes: &[u8]) -> Result<(), CheckError> {
    let io = |error| CheckError::Io { block: addr, error };
    let (start, align) = (addr << bs.shift(), device.alignment() as u64);
    if start.is_multiple_of(align) && (bytes.len() as u64).is_multiple_of(align) {
        return device.write(start, bytes).map_err(io);
    }
    let outer = start / align * align;
    let mut buf = AlignedBuf::zeroed(align as usize);
    device.read(outer, &mut buf).map_err(io)?;
    let within = (start - outer) as usize;
    buf[within..within + bytes.len()].copy_from_slice(bytes);
    device.write(outer, &buf).map_err(io)
}

/// Writes these changes where they belong.
pub(crate) fn in_place(work: &Work<'_>, blocks: &[u64]) -> Result<(), CheckError> {
    for &at in blocks {
        if let Some(bytes) = work.disk.change(at) {
            put(work.disk.device(), work.disk.bs, at, bytes)?;
        }
    }
    Ok(())
}

/// One transaction.
fn through(work: &Work<'_>, journal: &Journal, head: &mut Head, blocks: &[u64]) -> Result<(), CheckError> {
    let (device, bs) = (work.disk.device(), work.disk.bs);
    let room = (bs.bytes() - LD_ITEMS) / 8;
    let tail = journal.after(head.at, 1);
    let mut at = tail;
    for part in blocks.chunks(room) {
        let mut block = vec![0; bs.bytes()];
        MetaHeader::init(&mut block, MetaType::LogDescriptor);
        let ld = LogDescriptor::edit(&mut block);
        ld.kind.set(LD_METADATA);
        ld.length.set(part.len() as u32 + 1);
        ld.data1.set(part.len() as u32);
        part.iter().enumerate().for_each(|(i, &addr)| put_u64(&mut block, LD_ITEMS + 8 * i, addr));
        put(device, bs, journal.blocks[at as usize], &block)?;
        at = journal.after(at, 1);
        for &addr in part {
            let bytes = work.disk.change(addr).unwrap_or_default();
            put(device, bs, journal.blocks[at as usize], bytes)?;
            at = journal.after(at, 1);
        }
    }
    flush(device)?;
    let addr = journal.blocks[at as usize];
    let mut block = closed(bs.bytes(), journal.jid, head.sequence + 1, at, addr, journal.inode);
    let lh = LogHeader::edit(&mut block);
    lh.flags.set(LH_USERSPACE);
    lh.tail.set(tail);
    LogHeader::seal(&mut block);
    put(device, bs, addr, &block)?;
    flush(device)?;
    in_place(work, blocks)?;
    flush(device)?;
    let last = journal.after(at, 1);
    let addr = journal.blocks[last as usize];
    let block = closed(bs.bytes(), journal.jid, head.sequence + 2, last, addr, journal.inode);
    put(device, bs, addr, &block)?;
    flush(device)?;
    (head.at, head.sequence) = (last, head.sequence + 2);
    Ok(())
}
