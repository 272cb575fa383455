//! Bytes into and out of blocks: the buffered kind, the journaled kind.
//!
//! Ordinary data goes to the [`DataCache`](crate::cache::DataCache) in as large pieces as the extents allow; newly allocated
//! blocks are *ordered*: on the device before the transaction commits that makes them reachable (ondisk.md 8.8). Data of JDATA
//! files are buffers edited inside transactions.

use crate::cache::Buffer;
use crate::device::AlignedBuf;
use crate::error::Result;
use crate::format::MetaType;
use crate::ids::{BatchId, BlockAddr, LockName};
use crate::inode::{Inode, Volume};
use crate::journal::Transaction;
use std::sync::Arc;

/// Most bytes that are copied or read through memory of our own at once.
pub(super) const PIECE: usize = 1 << 20;

/// Fills `buf[..len]` from byte `skip` of the blocks at `start`. `buf` may be longer: a last block that is only partly wanted is
/// read whole into it when it has room.
pub(super) fn read(vol: &Volume, start: BlockAddr, skip: usize, buf: &mut [u8], len: usize) -> Result<()> {
    let bs = vol.bs.bytes();
    let (mut addr, mut at) = (start, 0);
    if skip > 0 {
        let n = (bs - skip).min(len);
        let mut block = AlignedBuf::zeroed(bs);
        vol.cache.data().read(addr, &mut block)?;
        buf[..n].copy_from_slice(&block[skip..skip + n]);
        (addr, at) = (addr.saturating_add(1), n);
    }
    let want = len - at;
    let whole = if buf.len() - at >= want.next_multiple_of(bs) { want.next_multiple_of(bs) } else { want - want % bs };
    let dst = &mut buf[at..at + whole];
    if dst.as_ptr().align_offset(vol.cache.device().alignment()) == 0 {
        if whole > 0 {
            vol.cache.data().read(addr, dst)?;
        }
    } else {
        bounce(vol, addr, dst)?;
    }
    at += whole;
    if at < len {
        let mut block = AlignedBuf::zeroed(bs);
        vol.cache.data().read(addr.saturating_add((whole / bs) as u64), &mut block)?;
        let rest = len - at;
        buf[at..len].copy_from_slice(&block[..rest]);
    }
    Ok(())
}

/// Reads whole blocks into memory that the device cannot write to directly.
fn bounce(vol: &Volume, addr: BlockAddr, dst: &mut [u8]) -> Result<()> {
    let mut block = AlignedBuf::zeroed(dst.len().min(PIECE));
    let mut at = 0;
    for part in dst.chunks_mut(PIECE) {
        let here = addr.saturating_add((at >> vol.bs.shift()) as u64);
        let piece = &mut block[..part.len()];
        vol.cache.data().read(here, piece)?;
        part.copy_from_slice(piece);
        at += part.len();
    }
    Ok(())
}

/// The same for a journaled file.
pub(super) fn read_journaled(vol: &Volume, inode: &Inode, start: BlockAddr, skip: usize, buf: &mut [u8]) -> Result<()> {
    let bs = vol.bs.bytes();
    let blocks = (skip + buf.len()).div_ceil(bs) as u64;
    ahead(vol, inode, start, blocks);
    let (mut at, mut skip) = (0, skip);
    for i in 0..blocks {
        let bytes = vol.cache.jdata(start.saturating_add(i), inode.lock_name())?.bytes();
        let n = (bs - skip).min(buf.len() - at);
        buf[at..at + n].copy_from_slice(&bytes[skip..skip + n]);
        at += n;
        skip = 0;
    }
    Ok(())
}

/// Reads blocks of a journaled file in one go.
fn ahead(vol: &Volume, inode: &Inode, start: BlockAddr, blocks: u64) {
    if blocks > 1 {
        let addrs: Vec<BlockAddr> = (0..blocks.min(1024)).map(|i| start.saturating_add(i)).collect();
        vol.cache.read_ahead(&addrs, inode.lock_name());
    }
}

/// Buffers `bytes` from byte `skip` of the blocks at `start` on. `fresh`: the blocks are newly allocated, and zero but for this.
pub(super) fn write(
    vol: &Volume,
    owner: LockName,
    start: BlockAddr,
    skip: usize,
    bytes: &[u8],
    fresh: bool,
    ordered: Option<BatchId>,
) -> Result<()> {
    let (bs, data) = (vol.bs.bytes(), vol.cache.data());
    let (mut addr, mut rest) = (start, bytes);
    if skip > 0 || rest.len() < bs {
        let n = (bs - skip).min(rest.len());
        data.write_part(owner, addr, skip, &rest[..n], fresh, ordered)?;
        (addr, rest) = (addr.saturating_add(1), &rest[n..]);
    }
    let (whole, tail) = rest.split_at(rest.len() - rest.len() % bs);
    for part in whole.chunks(PIECE) {
        data.write(owner, addr, Arc::new(AlignedBuf::copy_of(part)), ordered)?;
        addr = addr.saturating_add((part.len() / bs) as u64);
    }
    if !tail.is_empty() {
        data.write_part(owner, addr, 0, tail, fresh, ordered)?;
    }
    Ok(())
}

/// Writes `bytes` into blocks of a journaled file, inside a transaction. Blocks that are not `fresh` were looked at before it
/// began ([`journaled`]).
pub(super) fn write_journaled(
    tx: &mut Transaction<'_>,
    vol: &Volume,
    owner: LockName,
    start: BlockAddr,
    skip: usize,
    bytes: &[u8],
    fresh: bool,
) -> Result<()> {
    let (mut addr, mut skip, mut rest) = (start, skip, bytes);
    while !rest.is_empty() {
        let n = (vol.bs.bytes() - skip).min(rest.len());
        let block = if fresh { tx.new_jdata(addr, owner) } else { vol.cache.jdata(addr, owner)? };
        let (now, later) = rest.split_at(n);
        tx.edit(&block, |b| b[skip..skip + n].copy_from_slice(now));
        (addr, skip, rest) = (addr.saturating_add(1), 0, later);
    }
    Ok(())
}

/// The buffers of blocks of a journaled file, read if need be.
pub(super) fn journaled(vol: &Volume, inode: &Inode, start: BlockAddr, blocks: u64) -> Result<Vec<Arc<Buffer>>> {
    ahead(vol, inode, start, blocks);
    (0..blocks).map(|i| vol.cache.jdata(start.saturating_add(i), inode.lock_name())).collect()
}

/// The buffer of a mapped block of a journaled file or of a directory's table.
pub fn journaled_block(vol: &Volume, inode: &Inode, addr: BlockAddr) -> Result<Arc<Buffer>> {
    if inode.is_dir() {
        vol.cache.meta(addr, inode.lock_name(), MetaType::JournaledData)
    } else {
        vol.cache.jdata(addr, inode.lock_name())
    }
}

/// Bytes of one block that are to become zero: read before the transaction, so that inside it nothing can fail.
pub(super) enum Zeroing {
    /// An ordinary block with its new contents.
    Buffered(LockName, BlockAddr, Arc<AlignedBuf>),
    /// A journaled one and the range within it.
    Journaled(Arc<Buffer>, usize, usize),
}

impl Zeroing {
    /// Prepares zeroing the bytes `from..to` of the block at `addr`; `None` when they are zero.
    pub(super) fn prepare(
        vol: &Volume,
        inode: &Inode,
        addr: BlockAddr,
        from: usize,
        to: usize,
    ) -> Result<Option<Self>> {
        let is_zero = |bytes: &[u8]| bytes.iter().all(|&b| b == 0);
        if inode.is_jdata() {
            let buffer = vol.cache.jdata(addr, inode.lock_name())?;
            let needless = is_zero(&buffer.bytes()[from..to]);
            return Ok((!needless).then_some(Self::Journaled(buffer, from, to)));
        }
        let mut block = AlignedBuf::zeroed(vol.bs.bytes());
        vol.cache.data().read(addr, &mut block)?;
        if is_zero(&block[from..to]) {
            return Ok(None);
        }
        block[from..to].fill(0);
        Ok(Some(Self::Buffered(inode.lock_name(), addr, Arc::new(block))))
    }
    /// Zeroes. Ordered: what is cut off never comes back after a crash that keeps the new size.
    pub(super) fn apply(&self, vol: &Volume, tx: &mut Transaction<'_>) -> Result<()> {
        match self {
            Self::Buffered(owner, addr, block) => {
                vol.cache.data().write(*owner, *addr, Arc::clone(block), Some(tx.batch()))
            }
            Self::Journaled(buffer, from, to) => {
                tx.edit(buffer, |b| b[*from..*to].fill(0));
                Ok(())
            }
        }
    }
}
