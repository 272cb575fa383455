//! Chapter 8: where a file's bytes are. (API skeleton)

use crate::cache::Buffer;
use crate::error::Result;
use crate::ids::{BatchId, BlockAddr, FileBlock};
use crate::inode::{Inode, Volume};
use crate::journal::Transaction;
use crate::rgrp::Space;
use std::sync::Arc;

/// A run of file blocks that is contiguous on the device, or a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First block on the device; `None` for a hole.
    pub start: Option<BlockAddr>,
    /// Length in blocks, at least 1.
    pub len: u64,
}

/// The extent that starts at file block `from` (height ≥ 1), at most `max` blocks long. Pointers are checked against the
/// rgrps: one that no file can own is corruption. Blocks beyond the tree are a hole.
pub fn map(_vol: &Volume, _inode: &Inode, _from: FileBlock, _max: u64) -> Result<Extent> {
    unimplemented!()
}

/// What growing costs at most: for mapping `blocks` file blocks from `from` for writing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GrowCost {
    /// Blocks to allocate (data and indirect, unstuffing included).
    pub alloc: u32,
    /// Metadata blocks to log besides what `Space::log_blocks` counts: dinode, new and changed indirect blocks.
    pub log: u32,
}

/// The cost of mapping `blocks` blocks from `from` for writing (exact or an upper bound; counts holes that are there now).
/// `metadata`: the data blocks themselves carry a header (directory tables): they are then also counted in `log`.
pub fn grow_cost(_vol: &Volume, _inode: &Inode, _from: FileBlock, _blocks: u64, _metadata: bool) -> Result<GrowCost> {
    unimplemented!()
}

/// Maps one file block for writing inside a transaction, allocating what is missing (height, indirect blocks, the block);
/// reads nothing that `grow_cost` has not read. Unstuffs first when the inode is stuffed. Updates di_blocks, goals, height in
/// `inode.dinode` (the caller calls `write_back`). Returns the extent, at most `max` long, and whether it is newly allocated
/// (all of it or nothing of it).
pub fn map_for_write(_vol: &Volume, _tx: &mut Transaction<'_>, _space: &mut Space<'_>, _inode: &mut Inode, _at: FileBlock, _max: u64) -> Result<(BlockAddr, u64, bool)> {
    unimplemented!()
}

/// Height 0 → 1 (ondisk.md 4.5). For directories the data block gets a JD header and carries bs-24 bytes.
pub fn unstuff(_vol: &Volume, _tx: &mut Transaction<'_>, _space: &mut Space<'_>, _inode: &mut Inode) -> Result<()> {
    unimplemented!()
}

/// Reads up to `buf.len()` bytes from `offset`; short at the end of the file, holes are zeros.
pub fn read(_vol: &Volume, _inode: &Inode, _offset: u64, _buf: &mut [u8]) -> Result<usize> {
    unimplemented!()
}

/// Writes all of `bytes` at `offset` (unstuffing, allocating, growing the size), in as many transactions as log and rgrps
/// demand; sets mtime and ctime. On NoSpace after some bytes were written: their number; before any: the error.
/// Returns bytes written and the batch that makes them reachable (for O_SYNC).
pub fn write(_vol: &Volume, _inode: &mut Inode, _offset: u64, _bytes: &[u8]) -> Result<(usize, BatchId)> {
    unimplemented!()
}

/// Sets the size (ondisk.md 4.6), shrinking in many transactions (TRUNC_IN_PROG) or growing; sets mtime and ctime.
pub fn truncate(_vol: &Volume, _inode: &mut Inode, _size: u64) -> Result<()> {
    unimplemented!()
}

/// Finishes a truncate that was interrupted (TRUNC_IN_PROG set).
pub fn resume_truncate(_vol: &Volume, _inode: &mut Inode) -> Result<()> {
    unimplemented!()
}

/// Punches a hole: [offset, offset+len), size unchanged.
pub fn punch(_vol: &Volume, _inode: &mut Inode, _offset: u64, _len: u64) -> Result<()> {
    unimplemented!()
}

/// fallocate(2), default mode or KEEP_SIZE: allocates and zeroes. `NotSupported` on JDATA files.
pub fn allocate(_vol: &Volume, _inode: &mut Inode, _offset: u64, _len: u64, _keep_size: bool) -> Result<()> {
    unimplemented!()
}

/// fallocate ZERO_RANGE.
pub fn zero_range(_vol: &Volume, _inode: &mut Inode, _offset: u64, _len: u64, _keep_size: bool) -> Result<()> {
    unimplemented!()
}

/// What lseek(2) looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// SEEK_DATA.
    Data,
    /// SEEK_HOLE.
    Hole,
}

/// The next data or hole at or after `offset`; `NoSuchRegion` beyond the end.
pub fn seek(_vol: &Volume, _inode: &Inode, _offset: u64, _what: Seek) -> Result<u64> {
    unimplemented!()
}

/// Makes the file's data and inode durable (fsync; with `data_only` times may lag).
pub fn fsync(_vol: &Volume, _inode: &Inode) -> Result<()> {
    unimplemented!()
}

/// Switches JDATA on or off (chattr +j/-j): flushes log and data first.
pub fn set_jdata(_vol: &Volume, _inode: &mut Inode, _on: bool) -> Result<()> {
    unimplemented!()
}

/// Frees the whole tree of an UNLINKED inode (final delete); height becomes 0. Restartable.
pub fn free_tree(_vol: &Volume, _inode: &mut Inode) -> Result<()> {
    unimplemented!()
}

/// The buffer of a mapped block of a journaled file or of a directory's table.
pub fn journaled_block(_vol: &Volume, _inode: &Inode, _addr: BlockAddr) -> Result<Arc<Buffer>> {
    unimplemented!()
}
