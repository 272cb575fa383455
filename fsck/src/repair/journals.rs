//! Journals: replayed where they can be, cleared where they cannot, made anew where they are lost (ondisk.md 8).

use crate::blockmap::BlockKind;
use crate::journal::Journal;
use crate::repair::build::{self, Pool};
use crate::repair::work::Work;
use crate::report::CheckError;
use crate::state::State;
use gfs2r::format::dinode::DINODE_SIZE;
use gfs2r::format::log::{LH_UNMOUNT, LH_USERSPACE};
use gfs2r::format::{Dinode, LogHeader, MetaHeader, MetaType, OnDisk, get_u64, put_u64};
use std::collections::BTreeSet;

/// Size of a journal that is made.
const NEW: u64 = 8 << 20;

/// A log header that closes the log.
pub(crate) fn closed(bs: usize, jid: u32, sequence: u64, at: u32, addr: u64, inode: u64) -> Vec<u8> {
    let mut block = vec![0; bs];
    MetaHeader::init(&mut block, MetaType::LogHeader);
    let lh = LogHeader::edit(&mut block);
    lh.header.jid.set(jid);
    lh.sequence.set(sequence);
    lh.flags.set(LH_UNMOUNT | LH_USERSPACE);
    lh.tail.set(at);
    lh.blkno.set(at);
    lh.addr.set(addr);
    lh.jinode.set(inode);
    LogHeader::seal(&mut block);
    block
}

/// Writes a journal as mkfs would: a header in every block, the newest in the last one. Straight to the device: what was in
/// it is of no use to anybody. Blocks that others claim as well are left alone.
pub(crate) fn clear(work: &mut Work<'_>, journal: &Journal, contested: &BTreeSet<u64>) -> Result<(), CheckError> {
    let bs = work.disk.bs;
    let io = |block: u64| move |error| CheckError::Io { block, error };
    for (n, &addr) in journal.blocks.iter().enumerate().filter(|(_, addr)| !contested.contains(addr)) {
        // Bounded by the size of a journal.
        let n = n as u32;
        let mut block = closed(bs.bytes(), journal.jid, u64::from(n), n, addr, journal.inode);
        LogHeader::edit(&mut block).tail.set(0);
        LogHeader::seal(&mut block);
        work.disk.forget(Some(addr));
        work.disk.device().write(addr << bs.shift(), &block).map_err(io(addr))?;
    }
    work.disk.device().flush().map_err(io(journal.inode))
}

/// Closes the log of a journal that was replayed, with a header after its newest.
pub(crate) fn close(work: &mut Work<'_>, journal: &Journal) -> Result<(), CheckError> {
    let (Some(head), bs) = (journal.head, work.disk.bs) else { return Ok(()) };
    let at = journal.after(head.at, 1);
    let addr = journal.blocks[at as usize];
    let block = closed(bs.bytes(), journal.jid, head.sequence.wrapping_add(1), at, addr, journal.inode);
    let io = |error| CheckError::Io { block: addr, error };
    work.disk.device().write_durable(addr << bs.shift(), &block).map_err(io)
}

/// Mends size and holes of a journal's file. False when it must be made anew.
pub(crate) fn mend(work: &mut Work<'_>, st: &mut State, jid: u32, inode: u64) -> Result<bool, CheckError> {
    let bs = work.disk.bs;
    let dinode = work.disk.read(inode)?;
    let size = Dinode::view(&dinode).size.get();
    let most = (1u64 << 30) >> bs.shift();
    let Ok(map) = crate::reader::map(&work.disk, &dinode, 0..most + 1) else { return Ok(false) };
    let blocks = map.last().map_or(0, |&(n, _)| n + 1);
    let holes = blocks - map.len() as u64;
    if blocks << bs.shift() < NEW || blocks > most || holes > 64 {
        return Ok(false);
    }
    let mut at = map.iter();
    let mut next = at.next();
    for number in 0..blocks {
        if next.is_some_and(|&(n, _)| n == number) {
            next = at.next();
            continue;
        }
        let Some(new) = work.allocate(st, BlockKind::Data) else { return Ok(false) };
        let block = closed(bs.bytes(), jid, 0, number as u32, new, inode);
        // The caller clears the journal when this does not fit its sequence.
        work.put(new, &block);
        if !hang(work, inode, number, new)? {
            return Ok(false);
        }
    }
    if size != blocks << bs.shift() {
        work.edit(inode, |block| Dinode::edit(block).size.set(blocks << bs.shift()))?;
    }
    Ok(true)
}

/// Sets the pointer of file block `number`. False when the way to it is missing.
fn hang(work: &mut Work<'_>, inode: u64, number: u64, new: u64) -> Result<bool, CheckError> {
    let bs = work.disk.bs;
    let height = Dinode::view(&work.disk.read(inode)?).height.get();
    let (mut at, mut start, mut rest) = (inode, DINODE_SIZE, number);
    for level in 0..height {
        let span = crate::tree::span(bs, height, level);
        let place = start + 8 * (rest / span) as usize;
        rest %= span;
        let block = work.disk.read(at)?;
        if place + 8 > block.len() {
            return Ok(false);
        }
        if level + 1 == height {
            work.edit(at, |block| put_u64(block, place, new))?;
            return Ok(true);
        }
        at = get_u64(&block, place);
        if at == 0 || at >= work.disk.blocks {
            return Ok(false);
        }
        start = 24;
    }
    Ok(false)
}

/// True when a new journal would fit.
pub(crate) fn is_room(work: &Work<'_>, st: &State) -> bool {
    let blocks = NEW >> work.disk.bs.shift();
    work.free(st) > blocks + blocks / 32 + 16
}

/// Gives a dinode the blocks of a new journal. The log blocks go straight to the device: they are free so far.
pub(crate) fn fill(work: &mut Work<'_>, st: &mut State, inode: u64, block: &mut [u8]) -> bool {
    let bs = work.disk.bs;
    let mut data = Vec::new();
    for n in 0..(NEW >> bs.shift()) as u32 {
        let Some(at) = work.allocate(st, BlockKind::Data) else { return false };
        let mut header = closed(bs.bytes(), 0, u64::from(n), n, at, inode);
        LogHeader::edit(&mut header).tail.set(0);
        LogHeader::seal(&mut header);
        work.put(at, &header);
        data.push(at);
    }
    let Some(made) = build::tree(work, st, &mut Pool(Vec::new()), block, &data) else { return false };
    let di = Dinode::edit(block);
    di.size.set(NEW);
    di.blocks.set(1 + made + data.len() as u64);
    true
}
