//! Putting saved metadata on another device, to look at it there: a filesystem with all its structures and none of its users'
//! data. What the device held is lost.

use super::metafile::Reader;
use crate::format::superblock::SUPERBLOCK_OFFSET;
use crate::format::{OnDisk, Superblock};
use crate::ids::BlockSize;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

/// What was put on the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    /// Blocks.
    pub blocks: u64,
    /// Blocks that lie past the end of the device, or of the filesystem that was saved.
    pub outside: u64,
    /// Bytes of a block.
    pub block_size: u32,
}

/// Writes every block of `from` to `target`, which has `size` bytes; it is durable when this returns. `progress` is called now
/// and then with the blocks written so far. Errors: of either file; `InvalidData` for records that make no sense.
pub fn restore(from: &mut Reader, target: &File, size: u64, progress: &mut dyn FnMut(u64)) -> io::Result<Restored> {
    let mut record = Vec::new();
    let bs = first(from, &mut record)?;
    let block_bytes = bs.bytes() as u64;
    let end = from.fs_bytes().min(size);
    let mut done = Restored { block_size: 1 << bs.shift(), ..Restored::default() };
    let mut next = Some(bs.block_of(SUPERBLOCK_OFFSET));
    while let Some(block) = next {
        if record.len() > bs.bytes() {
            return Err(wrong(format!("block {block} has {} bytes saved, more than a block", record.len())));
        }
        record.resize(bs.bytes(), 0);
        match block.checked_mul(block_bytes).filter(|at| at.checked_add(block_bytes).is_some_and(|to| to <= end)) {
            Some(at) => {
                target.write_all_at(&record, at)?;
                done.blocks += 1;
            }
            None => done.outside += 1,
        }
        if done.blocks % 4096 == 0 {
            progress(done.blocks);
        }
        next = from.next(&mut record)?;
    }
    target.sync_all()?;
    Ok(done)
}

/// The first record is the superblock: it tells the block size.
fn first(from: &mut Reader, record: &mut Vec<u8>) -> io::Result<BlockSize> {
    let block = from.next(record)?.ok_or_else(|| wrong("no block is saved in it".to_owned()))?;
    let alien = || wrong("the first block saved is no superblock".to_owned());
    if record.len() < size_of::<Superblock>() {
        record.resize(size_of::<Superblock>(), 0);
    }
    let bs = Superblock::view(record).check().map_err(|_| alien())?;
    if bs.block_of(SUPERBLOCK_OFFSET) == block { Ok(bs) } else { Err(alien()) }
}

fn wrong(what: String) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
