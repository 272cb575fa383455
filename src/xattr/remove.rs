//! Removing an attribute (ondisk.md 6.5), and freeing the blocks of a replaced value.

use super::block::{self, Defect, Record, records};
use super::read::{self, data_blocks, find, rules};
use crate::cache::Buffer;
use crate::error::{CorruptKind, Error, Result};
use crate::format::ea::EaType;
use crate::ids::BlockAddr;
use crate::inode::{Inode, Volume};
use crate::journal::{Reserve, Transaction};
use crate::rgrp::FreeSet;
use std::sync::Arc;

/// Removes an attribute; `NoAttribute` when it is not there; ctime. One transaction. `also` as in `set`.
pub fn remove(
    vol: &Volume,
    inode: &mut Inode,
    kind: EaType,
    name: &[u8],
    also: &mut dyn FnMut(&mut Inode),
) -> Result<()> {
    read::check_kind(vol, kind)?;
    let place = find(vol, inode, kind, name)?.ok_or(Error::NoAttribute)?;
    take_out(vol, inode, &place.buffer, place.record, &mut |inode| {
        also(inode);
        inode.dinode.set_ctime(vol.clock.now());
    })
}

/// Frees the ED blocks of an unused record that still owns them, and removes it.
pub(super) fn release(vol: &Volume, inode: &mut Inode, buffer: &Arc<Buffer>, offset: usize) -> Result<()> {
    let bytes = buffer.bytes();
    for record in records(&bytes, rules(vol)) {
        let record = record.map_err(|d| d.at(buffer.addr()))?;
        if record.offset == offset && !record.used() {
            return take_out(vol, inode, buffer, record, &mut |_| {});
        }
    }
    Err(Defect("record vanished").at(buffer.addr()))
}

/// Removes a record with its ED blocks.
fn take_out(
    vol: &Volume,
    inode: &mut Inode,
    buffer: &Arc<Buffer>,
    record: Record,
    also: &mut dyn FnMut(&mut Inode),
) -> Result<()> {
    let set = FreeSet::lock(&vol.rgrps, data_blocks(vol, buffer.addr(), &buffer.bytes(), record)?)?;
    let reserve = Reserve::blocks(set.log_blocks() + 2).with_revokes(set.blocks());
    let mut tx = vol.journal.begin(reserve)?;
    free(&mut tx, inode, set)?;
    tx.edit(buffer, |block| block::remove(block, rules(vol), record.offset)).map_err(|d| d.at(buffer.addr()))?;
    also(inode);
    inode.write_back(vol, &mut tx)?;
    tx.commit();
    Ok(())
}

/// Frees blocks of the inode and accounts for them.
pub(super) fn free(tx: &mut Transaction<'_>, inode: &mut Inode, set: FreeSet<'_>) -> Result<()> {
    if set.blocks() == 0 {
        return Ok(());
    }
    let left = inode.dinode.blocks.get().checked_sub(u64::from(set.blocks()));
    inode.dinode.blocks.set(left.ok_or_else(|| Error::corrupt(inode.inum.addr, CorruptKind::Dinode("di_blocks")))?);
    set.free(tx, inode.owner())
}

/// Frees one block that `unlink` takes out of where it is named, in a transaction of its own.
pub(super) fn free_block(
    vol: &Volume,
    inode: &mut Inode,
    blocks: Vec<BlockAddr>,
    unlink: &mut dyn FnMut(&mut Transaction<'_>, &mut Inode),
) -> Result<()> {
    let set = FreeSet::lock(&vol.rgrps, blocks)?;
    let reserve = Reserve::blocks(set.log_blocks() + 2).with_revokes(set.blocks());
    let mut tx = vol.journal.begin(reserve)?;
    free(&mut tx, inode, set)?;
    unlink(&mut tx, inode);
    inode.write_back(vol, &mut tx)?;
    tx.commit();
    Ok(())
}
