//! Writing a planned filesystem, large and many at a time.

use crate::geometry::Layout;
use crate::{Error, Plan};
use gfs2r::admin::fresh::empty_group;
use gfs2r::device::{AlignedBuf, BlockDevice};
use gfs2r::format::header::MetaType;
use gfs2r::format::rgrp::bitmap_location;
use gfs2r::format::superblock::SUPERBLOCK_OFFSET;
use gfs2r::format::{MetaHeader, OnDisk, RgrpHeader};
use gfs2r::ids::{BlkState, BlockAddr, BlockSize};
use std::io::ErrorKind;

/// Bytes in one write.
const CHUNK: usize = 1 << 20;
/// Bytes handed to the device at a time.
const BATCH: usize = 16 << 20;
/// Bytes discarded at a time, so that progress can be shown.
const DISCARD: u64 = 4 << 30;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Telling the device that nothing on it is needed.
    Discard,
    /// Writing the journals.
    Journals,
    /// Writing the resource groups.
    ResourceGroups,
    /// Writing the system files.
    SystemFiles,
    /// Making it all durable and writing the superblock.
    Superblock,
}

/// Is told how far the work has come.
pub trait Observer {
    /// A phase begins: this many units of work.
    fn begin(&mut self, phase: Phase, total: u64);
    /// So much more is done.
    fn advance(&mut self, done: u64);
    /// The phase is over.
    fn end(&mut self, phase: Phase);
}

/// An observer that keeps quiet.
#[derive(Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn begin(&mut self, _: Phase, _: u64) {}
    fn advance(&mut self, _: u64) {}
    fn end(&mut self, _: Phase) {}
}

pub(crate) fn write(device: &dyn BlockDevice, plan: &Plan, observer: &mut dyn Observer) -> Result<(), Error> {
    let bs = plan.layout.bs;
    clear_superblock(device, bs)?;
    if plan.options.discard {
        discard(device, observer)?;
    }
    write_journals(device, plan, observer)?;
    write_rgrps(device, plan, observer)?;
    write_system(device, plan, observer)?;
    observer.begin(Phase::Superblock, 0);
    // Nothing that looks like a filesystem before the filesystem is there.
    device.flush().map_err(Error::device("Failed to sync the device"))?;
    let mut head = AlignedBuf::zeroed(SUPERBLOCK_OFFSET as usize + bs.bytes());
    head[SUPERBLOCK_OFFSET as usize..].copy_from_slice(&plan.system.superblock);
    device.write(0, &head).map_err(Error::device("Failed to write the superblock"))?;
    device.flush().map_err(Error::device("Failed to sync the device"))?;
    observer.end(Phase::Superblock);
    Ok(())
}

fn clear_superblock(device: &dyn BlockDevice, bs: BlockSize) -> Result<(), Error> {
    let zeros = AlignedBuf::zeroed(bs.bytes().max(4096));
    device.write_durable(SUPERBLOCK_OFFSET, &zeros).map_err(Error::device("Failed to clear the old superblock"))
}

fn discard(device: &dyn BlockDevice, observer: &mut dyn Observer) -> Result<(), Error> {
    observer.begin(Phase::Discard, device.size());
    let end = device.size() - device.size() % device.alignment() as u64;
    let mut at = 0;
    while at < end {
        let len = DISCARD.min(end - at);
        match device.discard(at, len) {
            Ok(()) => {}
            // Only advice, after all; the stock tool goes on too.
            Err(e) if matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput) => break,
            Err(e) => return Err(Error::Device("Failed to discard device contents", e)),
        }
        at += len;
        observer.advance(len);
    }
    observer.end(Phase::Discard);
    Ok(())
}

fn write_journals(device: &dyn BlockDevice, plan: &Plan, observer: &mut dyn Observer) -> Result<(), Error> {
    let bs = plan.layout.bs;
    let per_chunk = (CHUNK / bs.bytes()) as u64;
    let journals = &plan.system.journals;
    observer.begin(Phase::Journals, journals.iter().map(|j| j.blocks() << bs.shift()).sum());
    let mut buffers = vec![AlignedBuf::zeroed(CHUNK); BATCH / CHUNK];
    for journal in journals {
        let mut next = 0;
        while next < journal.blocks() {
            let mut ranges: Vec<(u64, &[u8])> = Vec::with_capacity(buffers.len());
            for buffer in &mut buffers {
                let count = per_chunk.min(journal.blocks() - next);
                let bytes = (count << bs.shift()) as usize;
                for (n, block) in (next..next + count).zip(buffer[..bytes].chunks_exact_mut(bs.bytes())) {
                    journal.fill(n, block);
                }
                ranges.push((bs.offset(journal.inum.addr.saturating_add(next)), &buffer[..bytes]));
                next += count;
                if next == journal.blocks() {
                    break;
                }
            }
            device.write_many(&ranges).map_err(Error::device("Failed to write a journal"))?;
            observer.advance(ranges.iter().map(|(_, buf)| buf.len() as u64).sum());
        }
    }
    observer.end(Phase::Journals);
    Ok(())
}

/// Collects writes and hands them to the device by the batch.
struct Writer<'a> {
    device: &'a dyn BlockDevice,
    what: &'static str,
    pending: Vec<(u64, AlignedBuf)>,
    bytes: usize,
}

impl<'a> Writer<'a> {
    fn new(device: &'a dyn BlockDevice, what: &'static str) -> Self {
        Self { device, what, pending: Vec::new(), bytes: 0 }
    }
    fn push(&mut self, offset: u64, buf: AlignedBuf) -> Result<(), Error> {
        self.bytes += buf.len();
        self.pending.push((offset, buf));
        if self.bytes >= BATCH { self.flush() } else { Ok(()) }
    }
    fn flush(&mut self) -> Result<(), Error> {
        let ranges: Vec<(u64, &[u8])> = self.pending.iter().map(|(offset, buf)| (*offset, &**buf)).collect();
        self.device.write_many(&ranges).map_err(Error::device(self.what))?;
        self.pending.clear();
        self.bytes = 0;
        Ok(())
    }
}

/// Resource groups, each with the gap before it, which is zeroed.
fn write_rgrps(device: &dyn BlockDevice, plan: &Plan, observer: &mut dyn Observer) -> Result<(), Error> {
    let layout = &plan.layout;
    let bs = layout.bs;
    observer.begin(Phase::ResourceGroups, layout.rgrps.len() as u64);
    let mut writer = Writer::new(device, "Failed to write a resource group");
    let mut end = layout.superblock() + 1;
    for i in 0..layout.rgrps.len() {
        let (rg, used, dinodes) = plan.system.space.rgrp(i);
        zero(&mut writer, bs, end, rg.addr.get())?;
        writer.push(bs.offset(rg.addr), rgrp_blocks(layout, i, used, &dinodes))?;
        end = rg.end();
        observer.advance(1);
    }
    writer.flush()?;
    observer.end(Phase::ResourceGroups);
    Ok(())
}

/// Writes zeros from block `start` to before block `end`.
fn zero(writer: &mut Writer<'_>, bs: BlockSize, start: u64, end: u64) -> Result<(), Error> {
    let (mut at, end) = (start << bs.shift(), end << bs.shift());
    while at < end {
        let len = (CHUNK as u64).min(end - at);
        writer.push(at, AlignedBuf::zeroed(len as usize))?;
        at += len;
    }
    Ok(())
}

/// Header and bitmap of a resource group whose first `used` blocks are in use.
fn rgrp_blocks(layout: &Layout, i: usize, used: u32, dinodes: &[BlockAddr]) -> AlignedBuf {
    let (bs, rg) = (layout.bs, &layout.rgrps[i]);
    let next = layout.rgrps.get(i + 1).map(|next| next.addr);
    let mut buf = empty_group(bs, rg, next);
    for index in 0..used {
        set_state(&mut buf, bs, index, BlkState::Used);
    }
    for index in dinodes.iter().filter_map(|&d| rg.index_of(d)) {
        set_state(&mut buf, bs, index, BlkState::Dinode);
    }
    let header = RgrpHeader::edit(&mut buf);
    header.free.set(rg.data - used);
    header.dinodes.set(dinodes.len() as u32);
    let crc = header.checksum();
    header.crc.set(crc);
    buf
}

fn set_state(buf: &mut [u8], bs: BlockSize, index: u32, state: BlkState) {
    let (block, offset) = bitmap_location(bs, index / 4);
    let byte = &mut buf[block as usize * bs.bytes() + offset];
    let shift = 2 * (index % 4);
    *byte = *byte & !(3 << shift) | (state as u8) << shift;
}

fn write_system(device: &dyn BlockDevice, plan: &Plan, observer: &mut dyn Observer) -> Result<(), Error> {
    let bs = plan.layout.bs;
    let system = &plan.system;
    observer.begin(Phase::SystemFiles, 0);
    let mut writer = Writer::new(device, "Failed to write the system files");
    for (addr, block) in &system.blocks {
        writer.push(bs.offset(*addr), AlignedBuf::copy_of(block))?;
    }
    let per_chunk = (CHUNK / bs.bytes()) as u64;
    for &(start, count) in &system.quota_changes {
        let mut done = 0;
        while done < count {
            let now = per_chunk.min(count - done);
            let mut buf = AlignedBuf::zeroed((now << bs.shift()) as usize);
            for block in buf.chunks_exact_mut(bs.bytes()) {
                MetaHeader::init(block, MetaType::QuotaChange);
            }
            writer.push(bs.offset(start.saturating_add(done)), buf)?;
            done += now;
        }
    }
    writer.flush()?;
    observer.end(Phase::SystemFiles);
    Ok(())
}
