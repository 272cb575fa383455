//! Appending to the rindex: entries and counters in one transaction.

use super::GrowError;
use crate::admin::fresh::rindex_entry;
use crate::error::{Error, Result};
use crate::file::{self, change, grow_cost, map_for_write};
use crate::format::rgrp::RgrpExtent;
use crate::format::{RindexEntry, StatfsChange};
use crate::fs::Fs;
use crate::ids::{BlockSize, FileBlock};
use crate::inode::{Inode, Volume};
use crate::journal::{Reserve, Transaction};
use crate::rgrp::{Space, Want};

const ENTRY: usize = size_of::<RindexEntry>();

/// How many entries go into one transaction: as many as touch two blocks of the file.
pub(super) fn most(bs: BlockSize) -> usize {
    (bs.bytes() / ENTRY).max(1)
}

/// Whether the rindex can be appended to: its entries are `known` groups, and it is written as the kernel writes it.
pub(super) fn check(rindex: &Inode, known: usize) -> Result<(), GrowError> {
    if rindex.dinode.size.get() != known as u64 * ENTRY as u64 {
        return Err(GrowError::OddRindex("ends in the middle of an entry"));
    }
    if !rindex.is_jdata() || rindex.owner().is_some() {
        return Err(GrowError::OddRindex("is not a journaled system file"));
    }
    Ok(())
}

/// Appends the entries of these groups, and counts their blocks.
pub(super) fn append(fs: &Fs, rindex: &mut Inode, groups: &[RgrpExtent]) -> Result<()> {
    let vol = fs.volume();
    let bytes: Vec<u8> = groups.iter().flat_map(rindex_entry).collect();
    let data: i64 = groups.iter().map(|rg| i64::from(rg.data)).sum();
    let won = StatfsChange { total: data.into(), free: data.into(), dinodes: 0.into() };
    let (from, now) = (rindex.dinode.size.get(), vol.clock.now());
    let fits = rindex.is_stuffed() && from + bytes.len() as u64 <= vol.bs.stuffed_max() as u64;
    let room = if fits { Room::none() } else { Room::find(vol, rindex, from, bytes.len() as u64)? };
    let Room { mut space, log } = room;
    change(vol, rindex, Reserve::blocks(1 + log + space.log_blocks() + 1), |tx, rindex| {
        if fits {
            file::put_stuffed(vol, tx, rindex, from as usize, &bytes)?;
        } else {
            put(vol, tx, &mut space, rindex, from, &bytes)?;
            rindex.dinode.size.set(from + bytes.len() as u64);
        }
        rindex.dinode.set_mtime(now);
        rindex.dinode.set_ctime(now);
        fs.statfs().charge(tx, won);
        Ok(())
    })?;
    Ok(())
}

/// Allocates what the next entry will need, so that it can be made when nothing is free. That there is no space for it now is no
/// failure.
pub(super) fn make_room(vol: &Volume, rindex: &mut Inode) -> Result<()> {
    let from = rindex.dinode.size.get();
    if rindex.is_stuffed() && from + ENTRY as u64 <= vol.bs.stuffed_max() as u64 {
        return Ok(());
    }
    let Room { mut space, log } = match Room::find(vol, rindex, from, ENTRY as u64) {
        Err(Error::NoSpace) => return Ok(()),
        other => other?,
    };
    if space.blocks() == 0 {
        return Ok(());
    }
    change(vol, rindex, Reserve::blocks(1 + log + space.log_blocks()), |tx, rindex| {
        put(vol, tx, &mut space, rindex, from, &[0; ENTRY])
    })?;
    Ok(())
}

/// Space and log blocks for writing some bytes of the rindex.
struct Room<'v> {
    space: Space<'v>,
    log: u32,
}

impl<'v> Room<'v> {
    fn none() -> Self {
        Self { space: Space::empty(), log: 0 }
    }
    /// Sets it aside and reads what will be changed, so that nothing can fail in the transaction. `NoSpace`.
    fn find(vol: &'v Volume, rindex: &mut Inode, from: u64, bytes: u64) -> Result<Self> {
        let (first, end) = (vol.bs.block_of(from), vol.bs.blocks_for(from + bytes));
        let cost = grow_cost(vol, rindex, FileBlock(first), end - first, false)?;
        for block in first..end {
            if let Some(addr) = file::map(vol, rindex, FileBlock(block), 1)?.start {
                file::journaled_block(vol, rindex, addr)?;
            }
        }
        let space = match cost.alloc {
            0 => Space::empty(),
            blocks => {
                let want = Want { blocks, min: blocks, goal: rindex.goal(vol), spread: false };
                vol.rgrps.reserve(want, &mut rindex.resv)?
            }
        };
        Ok(Self { space, log: cost.log })
    }
}

/// Writes bytes into the rindex, whose blocks are allocated as need be; the caller sets the size.
fn put(
    vol: &Volume,
    tx: &mut Transaction<'_>,
    space: &mut Space<'_>,
    rindex: &mut Inode,
    from: u64,
    bytes: &[u8],
) -> Result<()> {
    let (mut at, mut rest) = (from, bytes);
    while !rest.is_empty() {
        let (block, skip) = (vol.bs.block_of(at), vol.bs.within(at));
        let (addr, _, fresh) = map_for_write(vol, tx, space, rindex, FileBlock(block), 1)?;
        let name = rindex.lock_name();
        let buffer = if fresh { tx.new_jdata(addr, name) } else { vol.cache.jdata(addr, name)? };
        let n = rest.len().min(vol.bs.bytes() - skip);
        let (now, later) = rest.split_at(n);
        tx.edit(&buffer, |b| b[skip..skip + n].copy_from_slice(now));
        (at, rest) = (at + n as u64, later);
    }
    Ok(())
}
