//! How a directory changes its shape, as bytes: a linear block becomes a leaf, a leaf splits, a table doubles
//! (ondisk.md 5.6.2 to 5.6.4).

use super::block::{self, Defect, Found, NewEntry, records};
use super::hash;
use crate::clock::Timestamp;
use crate::format::dinode::DINODE_SIZE;
use crate::format::directory::{DEPTH_MAX, LEAF_SIZE};
use crate::format::header::FORMAT_DIRENT;
use crate::format::{Leaf, OnDisk, put_u64};
use crate::ids::{BlockAddr, BlockSize, DirHash};

/// Depth of a new table: bs/16 slots fill half a block.
pub(super) fn first_depth(bs: BlockSize) -> u32 {
    bs.shift() - 4
}

/// Fills in the header fields of a new leaf and makes it empty.
pub(super) fn init_leaf(block: &mut [u8], owner: BlockAddr, depth: u16, dist: u32, now: Timestamp) {
    let leaf = Leaf::edit(block);
    leaf.depth.set(depth);
    leaf.entries.set(0);
    leaf.dirent_format.set(FORMAT_DIRENT);
    leaf.next.set(0);
    leaf.inode.set(owner.get());
    leaf.dist.set(dist);
    leaf.reserved = [0; 40];
    touch_leaf(block, now);
    block::clear(block, LEAF_SIZE);
}

/// Sets a leaf's time of last change.
pub(super) fn touch_leaf(block: &mut [u8], now: Timestamp) {
    let leaf = Leaf::edit(block);
    leaf.sec.set(now.sec.cast_unsigned());
    leaf.nsec.set(now.nsec);
}

/// Moves the entries of a linear directory's block into an initialised leaf; says how many they are. The last record grows by
/// the 128 bytes that a leaf's header is shorter than a dinode's.
pub(super) fn convert(dinode: &[u8], leaf: &mut [u8]) -> Result<u32, Defect> {
    let (mut last, mut live) = (DINODE_SIZE, 0);
    let mut last_len = 0;
    for record in records(dinode, DINODE_SIZE) {
        let record = record?;
        (last, last_len) = (record.offset, record.len);
        live += u32::from(record.live);
    }
    let shorter = DINODE_SIZE - LEAF_SIZE;
    leaf[LEAF_SIZE..][..dinode.len() - DINODE_SIZE].copy_from_slice(&dinode[DINODE_SIZE..]);
    block::set_len(leaf, last - shorter, last_len + shorter);
    Leaf::edit(leaf).entries.set(live as u16);
    Ok(live)
}

/// Fills a dinode's block behind the header with a new table whose every slot is `leaf`.
pub(super) fn first_table(dinode: &mut [u8], bs: BlockSize, leaf: BlockAddr) {
    dinode[DINODE_SIZE..].fill(0);
    for slot in 0..1usize << first_depth(bs) {
        put_u64(dinode, DINODE_SIZE + 8 * slot, leaf.get());
    }
}

/// Moves the live entries of `leaf` with a hash below `divider` into `new` (an initialised leaf), each at the offset it had;
/// adjusts both counts. Both blocks are as they were when it fails.
pub(super) fn split(leaf: &mut [u8], new: &mut [u8], divider: u32) -> Result<(), Defect> {
    let live = block::count(leaf, LEAF_SIZE)?;
    for record in records(leaf, LEAF_SIZE) {
        let record = record?;
        if record.live && record.hash < divider {
            block::entry(leaf, record.offset)?;
        }
    }
    let (mut at, mut before, mut tail, mut moved) = (LEAF_SIZE, None, LEAF_SIZE, 0);
    while at < leaf.len() {
        // What was checked above is still there: deleting changes nothing behind the deleted record.
        let Some(Ok(record)) = records(leaf, at).next() else {
            return Err(Defect("record changed under a split"));
        };
        at = record.offset + record.len;
        if !(record.live && record.hash < divider) {
            before = Some(record.offset);
            continue;
        }
        // The record in `new` that reaches to its end is cut where this one begins in `leaf`.
        if record.offset != tail {
            block::set_len(new, tail, record.offset - tail);
        }
        tail = record.offset;
        let len = new.len() - tail;
        let entry = block::entry(leaf, record.offset)?;
        let name = record.name(leaf);
        block::write_record(new, tail, len, &NewEntry { name, hash: DirHash(record.hash), entry, rahead: false });
        block::delete(leaf, Found { offset: record.offset, before });
        before = before.or(Some(record.offset));
        moved += 1;
    }
    Leaf::edit(leaf).entries.set((live - moved) as u16);
    Leaf::edit(new).entries.set(moved as u16);
    Ok(())
}

/// A table with every slot twice.
pub(super) fn double(table: &[u64]) -> Vec<u64> {
    table.iter().flat_map(|&slot| [slot, slot]).collect()
}

/// What must happen to a full leaf before a name fits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Growth {
    /// Times the leaf (or the half that the name belongs to) is split.
    pub(super) splits: u32,
    /// Times the table doubles.
    pub(super) doublings: u32,
    /// A leaf is appended to the chain.
    pub(super) chained: bool,
}

/// Rehearses, on a copy of the leaf, what making room for a record of `need` bytes will take.
pub(super) fn rehearse(mut leaf: Vec<u8>, mut depth: u32, hash: DirHash, need: usize) -> Result<Growth, Defect> {
    let mut growth = Growth::default();
    let mut new = vec![0; leaf.len()];
    let mut leaf_depth = u32::from(Leaf::view(&leaf).depth.get());
    while block::find_room(&leaf, LEAF_SIZE, need)?.is_none() {
        if leaf_depth < depth {
            let run = hash::Run::around(hash::index(hash, depth), depth, leaf_depth);
            let divider = (run.start + run.len / 2) << (32 - depth);
            block::clear(&mut new, LEAF_SIZE);
            split(&mut leaf, &mut new, divider)?;
            if hash.0 < divider {
                std::mem::swap(&mut leaf, &mut new);
            }
            leaf_depth += 1;
            growth.splits += 1;
        } else if depth < u32::from(DEPTH_MAX) {
            depth += 1;
            growth.doublings += 1;
        } else {
            growth.chained = true;
            break;
        }
    }
    Ok(growth)
}
