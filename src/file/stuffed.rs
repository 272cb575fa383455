//! Files whose contents lie in the dinode (ondisk.md 4.3).

use super::change;
use super::io::date;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::format::dinode::DINODE_SIZE;
use crate::ids::BatchId;
use crate::inode::{Inode, Volume};
use crate::journal::{Reserve, Transaction};

/// Fills `buf` from byte `offset`; the caller has clipped the range to the size, and a size that does not fit was refused when
/// the dinode was read.
pub(super) fn read(vol: &Volume, inode: &Inode, offset: usize, buf: &mut [u8]) -> Result<()> {
    let bytes = inode.buffer(vol)?.bytes();
    let from = DINODE_SIZE + offset;
    let source = bytes.get(from..from + buf.len()).ok_or(Error::Invalid)?;
    buf.copy_from_slice(source);
    Ok(())
}

/// Writes `bytes`, which fit into the dinode, in a transaction of their own.
pub(super) fn write(
    vol: &Volume,
    inode: &mut Inode,
    offset: usize,
    bytes: &[u8],
    now: Option<Timestamp>,
) -> Result<BatchId> {
    let ((), batch) = change(vol, inode, Reserve::blocks(1), |tx, inode| {
        date(inode, now);
        put(vol, tx, inode, offset, bytes)
    })?;
    Ok(batch)
}

/// Puts bytes into the dinode of a stuffed inode inside a transaction and extends its size; the caller writes the dinode back.
/// `Invalid` when they do not fit.
pub fn put(vol: &Volume, tx: &mut Transaction<'_>, inode: &mut Inode, offset: usize, bytes: &[u8]) -> Result<()> {
    let end = offset.checked_add(bytes.len()).filter(|&e| e <= vol.bs.stuffed_max()).ok_or(Error::Invalid)?;
    let size = inode.dinode.size.get().min(vol.bs.stuffed_max() as u64) as usize;
    let buffer = inode.buffer(vol)?;
    tx.edit(&buffer, |b| {
        let area = &mut b[DINODE_SIZE..];
        // What lies beyond the old size ought to be zero, but other writers may have left something there.
        if offset > size {
            area[size..offset].fill(0);
        }
        area[offset..end].copy_from_slice(bytes);
    });
    inode.dinode.size.set(size.max(end) as u64);
    Ok(())
}

/// Sets the size of a stuffed inode, at most bs-232, and zeroes what lies beyond the smaller of the two sizes.
pub(super) fn resize(vol: &Volume, tx: &mut Transaction<'_>, inode: &mut Inode, size: u64) -> Result<()> {
    let kept = inode.dinode.size.get().min(size).min(vol.bs.stuffed_max() as u64) as usize;
    let buffer = inode.buffer(vol)?;
    tx.edit(&buffer, |b| b[DINODE_SIZE + kept..].fill(0));
    inode.dinode.size.set(size);
    Ok(())
}

/// Zeroes a range of a stuffed inode's contents.
pub(super) fn zero(vol: &Volume, tx: &mut Transaction<'_>, inode: &Inode, from: usize, to: usize) -> Result<()> {
    let to = to.min(vol.bs.stuffed_max());
    let buffer = inode.buffer(vol)?;
    if from < to {
        tx.edit(&buffer, |b| b[DINODE_SIZE + from..DINODE_SIZE + to].fill(0));
    }
    Ok(())
}
