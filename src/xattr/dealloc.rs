//! Freeing everything at the inode's end (ondisk.md 6.6).

use super::block::{self, START, records};
use super::read::{self, data_blocks, rules};
use super::remove::free_block;
use crate::error::Result;
use crate::format::{DiFlags, MetaType, put_pointer};
use crate::ids::BlockAddr;
use crate::inode::{Inode, Volume};

/// EA blocks that one transaction frees at most.
const BATCH: usize = 64;

/// Frees all attribute blocks of an UNLINKED inode (ondisk.md 6.6); restartable: values first, record by record, then EA blocks
/// from the end of their list, then the block that `di_eattr` names.
pub fn free_all(vol: &Volume, inode: &mut Inode) -> Result<()> {
    let Some(root) = read::root(vol, inode)? else { return Ok(()) };
    match read::indirect(vol, inode)? {
        None => free_values(vol, inode, root)?,
        Some(list) => {
            let mut blocks = read::listed(vol, &list)?;
            for &addr in &blocks {
                free_values(vol, inode, addr)?;
            }
            while !blocks.is_empty() {
                let keep = blocks.len().saturating_sub(BATCH);
                let end = blocks.len();
                free_block(vol, inode, blocks.split_off(keep), &mut |tx, _| {
                    tx.edit(&list, |block| (keep..end).for_each(|slot| put_pointer(block, START, slot, None)));
                })?;
            }
        }
    }
    free_block(vol, inode, vec![root], &mut |_, inode| {
        inode.dinode.eattr.set(0);
        inode.dinode.flags.set(inode.flags().without(DiFlags::EA_INDIRECT).0);
    })
}

/// Frees the ED blocks of all records of an EA block, one record at a time; they become unused.
fn free_values(vol: &Volume, inode: &mut Inode, addr: BlockAddr) -> Result<()> {
    let buffer = vol.cache.meta(addr, inode.lock_name(), MetaType::EaBlock)?;
    let bytes = buffer.bytes();
    for record in records(&bytes, rules(vol)) {
        let record = record.map_err(|d| d.at(addr))?;
        if record.ptrs > 0 {
            let blocks = data_blocks(vol, addr, &bytes, record)?;
            free_block(vol, inode, blocks, &mut |tx, _| tx.edit(&buffer, |block| block::disown(block, record)))?;
        }
    }
    Ok(())
}
