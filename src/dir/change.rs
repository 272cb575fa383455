//! Adding, removing and replacing names, each within the caller's transaction (ondisk.md 5.6, 5.7).

use super::block::{self, Defect, NewEntry};
use super::exhash::{self, Place};
use super::grow::{self, Spot};
use super::split::touch_leaf;
use super::{Entry, linear};
use crate::clock::Timestamp;
use crate::error::{CorruptKind, Error, Result};
use crate::format::checksum::dir_hash;
use crate::format::directory::{NAME_MAX, dirent_len};
use crate::format::{DirentType, Leaf, OnDisk};
use crate::inode::{Inode, Volume};
use crate::journal::Transaction;
use crate::rgrp::Space;

/// Adds a name that is not there (ondisk.md 5.6); entries, times and, for a directory, the parent's nlink +1. Writes the
/// dinode back.
///
/// Everything that can refuse was asked in `plan_add`; `TooManyLinks` is said before anything changes here.
pub fn add(
    vol: &Volume,
    tx: &mut Transaction<'_>,
    space: &mut Space<'_>,
    dir: &mut Inode,
    name: &[u8],
    to: Entry,
    rahead: bool,
) -> Result<()> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Error::Invalid);
    }
    let nlink = dir.dinode.nlink.get().checked_add(u32::from(to.kind == DirentType::Dir)).ok_or(Error::TooManyLinks)?;
    let entries = dir.dinode.entries.get().checked_add(1).ok_or(Error::TooBig)?;
    let new = NewEntry { name, hash: dir_hash(name), entry: to, rahead };
    let (need, now) = (dirent_len(name.len()), vol.clock.now());
    loop {
        match grow::spot(vol, dir, new.hash, need)? {
            Spot::After(step) => grow::take(vol, tx, space, dir, step, now)?,
            Spot::Here { buffer, room, leaf } => {
                let full = Defect("leaf with too many entries").at(buffer.addr());
                tx.edit(&buffer, |block| {
                    if leaf && !count_leaf(block, 1, now) {
                        return Err(full);
                    }
                    block::insert(block, room, &new);
                    Ok(())
                })?;
                break;
            }
        }
    }
    dir.dinode.entries.set(entries);
    dir.dinode.nlink.set(nlink);
    changed(vol, tx, dir, now)
}

/// Removes a name (ondisk.md 5.7): entries, times, nlink -1 for a directory. `NotFound` when it is not there.
pub fn remove(vol: &Volume, tx: &mut Transaction<'_>, dir: &mut Inode, name: &[u8]) -> Result<Entry> {
    let place = find(vol, dir, name)?.ok_or(Error::NotFound)?;
    let (old, now) = (place.entry()?, vol.clock.now());
    let at = dir.inum.addr;
    let entries = dir.dinode.entries.get().checked_sub(1).ok_or_else(|| Defect("too few entries").at(at))?;
    let nlink = link_change(dir, -i64::from(old.kind == DirentType::Dir))?;
    let Place { buffer, found, leaf, bytes } = place;
    // Without the snapshot the block is changed in place and not copied.
    drop(bytes);
    let empty = Defect("leaf with too few entries").at(buffer.addr());
    tx.edit(&buffer, |block| {
        if leaf && !count_leaf(block, -1, now) {
            return Err(empty);
        }
        block::delete(block, found);
        Ok(())
    })?;
    dir.dinode.entries.set(entries);
    dir.dinode.nlink.set(nlink);
    changed(vol, tx, dir, now)?;
    Ok(old)
}

/// Points an existing name (also `..`) at another inode: in place; times; nlink by the change of type. Returns where it led.
pub fn replace(vol: &Volume, tx: &mut Transaction<'_>, dir: &mut Inode, name: &[u8], to: Entry) -> Result<Entry> {
    let place = find(vol, dir, name)?.ok_or(Error::NotFound)?;
    let (old, now) = (place.entry()?, vol.clock.now());
    let nlink = link_change(dir, i64::from(to.kind == DirentType::Dir) - i64::from(old.kind == DirentType::Dir))?;
    let Place { buffer, found, leaf, bytes } = place;
    drop(bytes);
    tx.edit(&buffer, |block| {
        block::redirect(block, found.offset, to);
        if leaf {
            touch_leaf(block, now);
        }
    });
    dir.dinode.nlink.set(nlink);
    changed(vol, tx, dir, now)?;
    Ok(old)
}

/// Reads the blocks that a later `remove`/`replace` of this name will touch, so that it waits for nothing.
pub fn prepare_change(vol: &Volume, dir: &Inode, name: &[u8]) -> Result<()> {
    dir.buffer(vol)?;
    find(vol, dir, name)?;
    Ok(())
}

fn find(vol: &Volume, dir: &Inode, name: &[u8]) -> Result<Option<Place>> {
    let hash = dir_hash(name);
    if exhash::is_exhash(dir) { exhash::find(vol, dir, hash, name) } else { linear::find(vol, dir, hash, name) }
}

/// Counts an entry into or out of a leaf and sets its time; false when the count cannot be right.
fn count_leaf(block: &mut [u8], by: i16, now: Timestamp) -> bool {
    let leaf = Leaf::edit(block);
    match leaf.entries.get().checked_add_signed(by) {
        Some(entries) => leaf.entries.set(entries),
        None => return false,
    }
    touch_leaf(block, now);
    true
}

/// The directory's link count after `by` more subdirectories.
fn link_change(dir: &Inode, by: i64) -> Result<u32> {
    let nlink = i64::from(dir.dinode.nlink.get()) + by;
    match u32::try_from(nlink) {
        Ok(nlink) => Ok(nlink),
        Err(_) if by > 0 => Err(Error::TooManyLinks),
        Err(_) => Err(Error::corrupt(dir.inum.addr, CorruptKind::Dinode("link count below 0"))),
    }
}

/// Stamps the times and writes the dinode back.
fn changed(vol: &Volume, tx: &mut Transaction<'_>, dir: &mut Inode, now: Timestamp) -> Result<()> {
    dir.dinode.set_mtime(now);
    dir.dinode.set_ctime(now);
    dir.write_back(vol, tx)
}
