//! The tree of pointers below a dinode (ondisk.md 4.4).

use crate::blockmap::BlockKind;
use crate::disk::Disk;
use crate::report::CheckError;
use crate::state::{Inode, State};
use gfs2r::format::dinode::DINODE_SIZE;
use gfs2r::format::{MetaType, get_u64};
use gfs2r::ids::BlockSize;

/// Greatest height of a tree at this block size: the least k whose capacity passes 64 bits.
pub(crate) fn height_max(bs: BlockSize) -> u16 {
    let mut capacity = (bs.bytes() as u128) * (bs.dinode_pointers() as u128);
    let mut height = 1;
    while capacity <= u128::from(u64::MAX) {
        capacity *= bs.indirect_pointers() as u128;
        height += 1;
    }
    height
}

/// Blocks of data below one pointer of level `level` (0 = the dinode) in a tree of this height.
pub(crate) fn span(bs: BlockSize, height: u16, level: u16) -> u64 {
    (bs.indirect_pointers() as u64).saturating_pow(u32::from(height.saturating_sub(level + 1)))
}

/// The pointers of one block that are not holes: (address, number of the first file block below).
pub(crate) fn pointers(block: &[u8], start: usize, first: u64, span: u64) -> impl Iterator<Item = (u64, u64)> + '_ {
    (0..(block.len() - start) / 8).filter_map(move |i| {
        let pointer = get_u64(block, start + 8 * i);
        (pointer != 0).then(|| (pointer, first.saturating_add((i as u64).saturating_mul(span))))
    })
}

/// What the walk found.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Data blocks, whoever else claims them.
    pub(crate) blocks: u64,
    /// Those at or beyond the end.
    pub(crate) beyond: u64,
    /// (number in the file, address) of each data block that is the inode's alone, if asked for; not sorted.
    pub(crate) list: Vec<(u64, u64)>,
}

/// What the walk is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    pub(crate) height: u16,
    /// What the data blocks are.
    pub(crate) kind: BlockKind,
    /// File blocks from here on lie beyond the end.
    pub(crate) end: u64,
    /// Fill in [`Tree::list`].
    pub(crate) list: bool,
}

/// Walks the tree below a dinode whose height was checked, claiming every block.
pub(crate) fn walk(
    disk: &Disk<'_>,
    st: &mut State,
    inode: &mut Inode,
    dinode: &[u8],
    walk: Walk,
) -> Result<Tree, CheckError> {
    let mut tree = Tree::default();
    if walk.height == 0 {
        return Ok(tree);
    }
    let at = inode.addr;
    let mut level = Vec::new();
    take(st, inode, &mut tree, &mut level, walk, (at, dinode, DINODE_SIZE, 0, 0), disk.bs);
    for depth in 1..walk.height {
        let mut next = Vec::new();
        disk.visit(&mut level, |addr, first, bytes| {
            if st.header(inode, addr, bytes, BlockKind::Indirect, MetaType::Indirect) {
                take(st, inode, &mut tree, &mut next, walk, (addr, bytes, 24, first, depth), disk.bs);
            }
            Ok(())
        })?;
        level = next;
    }
    Ok(tree)
}

/// Claims what the pointers of one block point to. `block` = (address, bytes, offset of the pointers, first file block, level).
fn take(
    st: &mut State,
    inode: &mut Inode,
    tree: &mut Tree,
    next: &mut Vec<(u64, u64)>,
    walk: Walk,
    (at, bytes, start, first, level): (u64, &[u8], usize, u64, u16),
    bs: BlockSize,
) {
    let last = level + 1 == walk.height;
    for (pointer, number) in pointers(bytes, start, first, span(bs, walk.height, level)) {
        let kind = if last { walk.kind } else { BlockKind::Indirect };
        let granted = st.claim(inode, at, pointer, kind);
        if last {
            tree.blocks += 1;
            tree.beyond += u64::from(number >= walk.end);
            if walk.list && granted {
                tree.list.push((number, pointer));
            }
        } else if granted {
            next.push((pointer, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heights_of_the_table_in_the_specification() {
        for (bytes, height) in [(512, 10), (1024, 8), (2048, 7), (4096, 6), (65536, 4)] {
            assert_eq!(height_max(BlockSize::new(bytes).expect("legal")), height, "block size {bytes}");
        }
    }

    #[test]
    fn spans() {
        let bs = BlockSize::new(4096).expect("legal");
        assert_eq!((span(bs, 1, 0), span(bs, 3, 0), span(bs, 3, 2)), (1, 509 * 509, 1));
    }
}
