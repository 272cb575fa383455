//! read(2), write(2), lseek(2) for holes, fsync(2).

use super::data;
use super::grow::{Room, grow_cost, map_for_write};
use super::map::{map, next_data, next_hole};
use super::punch::gap;
use super::stuffed;
use super::{MAX_SIZE, change};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::ids::{BatchId, BlockAddr, FileBlock};
use crate::inode::{Inode, Volume};
use crate::journal::Reserve;

/// A write is divided into transactions that allocate at most this much.
const CHUNK: u64 = 1 << 20;
/// Times of a file that is overwritten in place need not be finer than this: the kernel's own clock ticks every 4 ms.
const COARSE_NSEC: i128 = 4_000_000;

/// Reads up to `buf.len()` bytes from `offset`; short at the end of the file, holes are zeros. Bytes of `buf` beyond the number
/// returned may be overwritten: they may lie in the file's last block.
pub fn read(vol: &Volume, inode: &Inode, offset: u64, buf: &mut [u8]) -> Result<usize> {
    let size = inode.dinode.size.get().min(MAX_SIZE);
    let end = size.min(offset.saturating_add(buf.len() as u64));
    if offset >= end {
        return Ok(0);
    }
    let len = (end - offset) as usize;
    if inode.is_stuffed() {
        stuffed::read(vol, inode, offset as usize, &mut buf[..len])?;
        return Ok(len);
    }
    let mut done = 0;
    while done < len {
        let pos = offset + done as u64;
        let (block, skip) = (vol.bs.block_of(pos), vol.bs.within(pos));
        let extent = map(vol, inode, FileBlock(block), vol.bs.block_of(end - 1) - block + 1)?;
        let n = extent_bytes(vol, extent.len, skip).min((len - done) as u64) as usize;
        match extent.start {
            None => buf[done..done + n].fill(0),
            Some(start) if inode.is_jdata() => {
                data::read_journaled(vol, inode, start, skip, &mut buf[done..done + n])?;
            }
            Some(start) if done + n == len => data::read(vol, start, skip, &mut buf[done..], n)?,
            Some(start) => data::read(vol, start, skip, &mut buf[done..done + n], n)?,
        }
        done += n;
    }
    Ok(len)
}

/// Bytes of an extent after the first `skip`.
fn extent_bytes(vol: &Volume, blocks: u64, skip: usize) -> u64 {
    blocks.saturating_mul(vol.bs.bytes() as u64) - skip as u64
}

/// How many blocks a write may allocate at most: what a quota is asked for.
pub fn write_cost(vol: &Volume, inode: &Inode, offset: u64, len: u64) -> Result<u64> {
    let end = offset.saturating_add(len).min(MAX_SIZE);
    if len == 0 || offset >= end || inode.is_stuffed() && end <= vol.bs.stuffed_max() as u64 {
        return Ok(0);
    }
    let (first, last) = (vol.bs.block_of(offset), vol.bs.block_of(end - 1));
    Ok(u64::from(grow_cost(vol, inode, FileBlock(first), last - first + 1, false)?.alloc))
}

/// Writes all of `bytes` at `offset` (unstuffing, allocating, growing the size), in as many transactions as log and rgrps
/// demand; sets mtime and ctime. When space runs out (`NoSpace`, `QuotaExceeded`) after some bytes were written: their number;
/// before any: the error. `TooBig` at 2^63-1. Returns bytes written and the batch that makes them reachable (for O_SYNC).
///
/// Bytes that only replace others need no transaction. Then the times are brought up to date once they are more than 4 ms old,
/// which is as fine as the kernel's clock is: a file overwritten in small pieces costs no log space for each of them.
pub fn write(vol: &Volume, inode: &mut Inode, offset: u64, bytes: &[u8]) -> Result<(usize, BatchId)> {
    write_dated(vol, inode, offset, bytes, Some(vol.clock.now()))
}

/// The same, but leaves the times alone: for bytes that somebody wrote earlier into a cache which knows when that was.
pub fn write_undated(vol: &Volume, inode: &mut Inode, offset: u64, bytes: &[u8]) -> Result<(usize, BatchId)> {
    write_dated(vol, inode, offset, bytes, None)
}

fn write_dated(
    vol: &Volume,
    inode: &mut Inode,
    offset: u64,
    bytes: &[u8],
    now: Option<Timestamp>,
) -> Result<(usize, BatchId)> {
    if bytes.is_empty() {
        return Ok((0, inode.last_batch()));
    }
    if offset >= MAX_SIZE {
        return Err(Error::TooBig);
    }
    let len = bytes.len().min(usize::try_from(MAX_SIZE - offset).unwrap_or(usize::MAX));
    let bytes = &bytes[..len];
    if inode.is_stuffed() && offset + len as u64 <= vol.bs.stuffed_max() as u64 {
        let batch = stuffed::write(vol, inode, offset as usize, bytes, now)?;
        return Ok((len, batch));
    }
    if let Some(gap) = gap(vol, inode, offset)? {
        change(vol, inode, Reserve::blocks(2), |tx, _| gap.apply(vol, tx))?;
    }
    let (mut done, mut last, mut dated) = (0, None, false);
    while done < len {
        match step(vol, inode, offset + done as u64, &bytes[done..], now) {
            Ok(Step { bytes, batch }) => {
                done += bytes;
                dated |= batch.is_some();
                last = batch.or(last);
            }
            Err(Error::NoSpace | Error::QuotaExceeded) if done > 0 => break,
            Err(e) => return Err(e),
        }
    }
    let old = |now| !(recent(inode.dinode.mtime(), now) && recent(inode.dinode.ctime(), now));
    if !dated && now.is_some_and(old) {
        let ((), batch) = change(vol, inode, Reserve::blocks(1), |_, inode| {
            date(inode, now);
            Ok(())
        })?;
        last = Some(batch);
    }
    Ok((done, last.unwrap_or_else(|| inode.last_batch())))
}

/// Sets the times of a change of contents.
pub(super) fn touch(inode: &mut Inode, now: Timestamp) {
    inode.dinode.set_mtime(now);
    inode.dinode.set_ctime(now);
}

/// Sets them, unless the caller said to leave them.
pub(super) fn date(inode: &mut Inode, now: Option<Timestamp>) {
    if let Some(now) = now {
        touch(inode, now);
    }
}

/// True when `then` is so little before `now` that nobody is misled.
fn recent(then: Timestamp, now: Timestamp) -> bool {
    let nanos = |t: Timestamp| i128::from(t.sec) * 1_000_000_000 + i128::from(t.nsec);
    (0..COARSE_NSEC).contains(&(nanos(now) - nanos(then)))
}

/// What one step of a write did.
struct Step {
    bytes: usize,
    /// Its transaction's batch; `None` when it needed none, so that the times are not set yet.
    batch: Option<BatchId>,
}

/// Writes the bytes that fall into the extent or hole at `pos`.
fn step(vol: &Volume, inode: &mut Inode, pos: u64, bytes: &[u8], now: Option<Timestamp>) -> Result<Step> {
    let (block, skip) = (vol.bs.block_of(pos), vol.bs.within(pos));
    let most = (CHUNK >> vol.bs.shift()).max(1);
    let wanted = vol.bs.blocks_for(skip as u64 + bytes.len() as u64);
    let extent = map(vol, inode, FileBlock(block), wanted)?;
    let clip = |blocks: u64| &bytes[..extent_bytes(vol, blocks, skip).min(bytes.len() as u64) as usize];
    match extent.start {
        None => allocate(vol, inode, pos, extent.len.min(most), bytes, now),
        Some(start) if inode.is_jdata() => {
            let room = u64::from(vol.journal.max_reserve() / 2).clamp(1, most);
            replace_journaled(vol, inode, start, pos, clip(extent.len.min(room)), now)
        }
        Some(start) => replace(vol, inode, start, pos, clip(extent.len), now),
    }
}

/// Allocates up to `blocks` blocks of the hole at `pos` and fills them.
fn allocate(
    vol: &Volume,
    inode: &mut Inode,
    pos: u64,
    blocks: u64,
    bytes: &[u8],
    now: Option<Timestamp>,
) -> Result<Step> {
    let (block, skip) = (vol.bs.block_of(pos), vol.bs.within(pos));
    let Room { mut space, blocks, reserve } = Room::find(vol, inode, block, blocks)?;
    let bytes = &bytes[..extent_bytes(vol, blocks, skip).min(bytes.len() as u64) as usize];
    let (name, jdata) = (inode.lock_name(), inode.is_jdata());
    let ((), batch) = change(vol, inode, reserve, |tx, inode| {
        let (mut at, mut skip, mut rest) = (block, skip, bytes);
        while !rest.is_empty() {
            let left = vol.bs.blocks_for((skip + rest.len()) as u64);
            let (addr, got, fresh) = map_for_write(vol, tx, &mut space, inode, FileBlock(at), left)?;
            let n = extent_bytes(vol, got, skip).min(rest.len() as u64) as usize;
            let (here, later) = rest.split_at(n);
            if jdata {
                data::write_journaled(tx, vol, name, addr, skip, here, fresh)?;
            } else {
                // What is not fresh was stuffed a moment ago and is ordered too.
                let ordered = (vol.options.ordered || !fresh).then(|| tx.batch());
                data::write(vol, name, addr, skip, here, fresh, ordered)?;
            }
            (at, skip, rest) = (at.saturating_add(got), 0, later);
        }
        extend(inode, pos + bytes.len() as u64);
        date(inode, now);
        Ok(())
    })?;
    Ok(Step { bytes: bytes.len(), batch: Some(batch) })
}

fn extend(inode: &mut Inode, end: u64) {
    if end > inode.dinode.size.get() {
        inode.dinode.size.set(end);
    }
}

/// Overwrites an extent in place. When the file grows by it, the bytes are ordered before the new size.
fn replace(
    vol: &Volume,
    inode: &mut Inode,
    start: BlockAddr,
    pos: u64,
    bytes: &[u8],
    now: Option<Timestamp>,
) -> Result<Step> {
    let (skip, end) = (vol.bs.within(pos), pos + bytes.len() as u64);
    if end <= inode.dinode.size.get() {
        data::write(vol, inode.lock_name(), start, skip, bytes, false, None)?;
        return Ok(Step { bytes: bytes.len(), batch: None });
    }
    // Before the transaction, which then lies in this batch or in a later one: a failing read here harms nobody.
    data::write(vol, inode.lock_name(), start, skip, bytes, false, Some(vol.journal.running()))?;
    let ((), batch) = change(vol, inode, Reserve::blocks(1), |_, inode| {
        extend(inode, end);
        date(inode, now);
        Ok(())
    })?;
    Ok(Step { bytes: bytes.len(), batch: Some(batch) })
}

/// Overwrites an extent of a journaled file.
fn replace_journaled(
    vol: &Volume,
    inode: &mut Inode,
    start: BlockAddr,
    pos: u64,
    bytes: &[u8],
    now: Option<Timestamp>,
) -> Result<Step> {
    let skip = vol.bs.within(pos);
    let blocks = vol.bs.blocks_for((skip + bytes.len()) as u64);
    let held = data::journaled(vol, inode, start, blocks)?;
    let reserve = Reserve::blocks(1 + u32::try_from(blocks).unwrap_or(u32::MAX - 1));
    let name = inode.lock_name();
    let ((), batch) = change(vol, inode, reserve, |tx, inode| {
        data::write_journaled(tx, vol, name, start, skip, bytes, false)?;
        extend(inode, pos + bytes.len() as u64);
        date(inode, now);
        Ok(())
    })?;
    drop(held);
    Ok(Step { bytes: bytes.len(), batch: Some(batch) })
}

/// What lseek(2) looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// SEEK_DATA.
    Data,
    /// SEEK_HOLE.
    Hole,
}

/// The next data or hole at or after `offset`; `NoSuchRegion` beyond the end. The end of the file is a hole; a stuffed file is
/// all data.
pub fn seek(vol: &Volume, inode: &Inode, offset: u64, what: Seek) -> Result<u64> {
    let size = inode.dinode.size.get().min(MAX_SIZE);
    if offset >= size {
        return Err(Error::NoSuchRegion);
    }
    if inode.is_stuffed() {
        return Ok(if what == Seek::Data { offset } else { size });
    }
    let (first, end) = (vol.bs.block_of(offset), vol.bs.blocks_for(size));
    let start_of = |block: u64| block.saturating_mul(vol.bs.bytes() as u64).max(offset);
    match what {
        Seek::Data => next_data(vol, inode, first, end)?.map(start_of).ok_or(Error::NoSuchRegion),
        Seek::Hole => Ok(next_hole(vol, inode, first, end)?.map_or(size, start_of).min(size)),
    }
}

/// Makes the file's data and inode durable: fsync(2).
pub fn fsync(vol: &Volume, inode: &Inode) -> Result<()> {
    durable(vol, inode, inode.last_batch())
}

/// The same, but changes of the times alone may lag: fdatasync(2).
pub fn fdatasync(vol: &Volume, inode: &Inode) -> Result<()> {
    durable(vol, inode, inode.data_batch())
}

fn durable(vol: &Volume, inode: &Inode, upto: BatchId) -> Result<()> {
    vol.journal.sync_file(inode.lock_name(), upto)
}
