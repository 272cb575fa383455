//! The pointers of an inode, read and changed without trusting them.

use crate::blockmap::BlockKind;
use crate::disk::Disk;
use crate::repair::work::Work;
use crate::report::CheckError;
use crate::tree::height_max;
use gfs2r::format::dinode::DINODE_SIZE;
use gfs2r::format::{Dinode, MAGIC, MetaHeader, MetaType, OnDisk, get_u64, put_u64};
use std::collections::{BTreeMap, HashSet};

/// True when a header has at least two of magic, type and format right: one of them was hit, and not the block replaced.
pub(crate) fn nearly(bytes: &[u8], wanted: MetaType) -> bool {
    let header = MetaHeader::view(bytes);
    let right =
        [header.magic.get() == MAGIC, header.kind.get() == wanted as u32, header.format.get() == wanted.format()];
    right.iter().filter(|&&r| r).count() >= 2
}

/// All blocks below a dinode with their level (1 = the dinode's pointers), each once, as far as the way is passable.
pub(crate) fn blocks(disk: &Disk<'_>, dinode: &[u8]) -> Result<Vec<(u64, u16)>, CheckError> {
    let height = Dinode::view(dinode).height.get().min(height_max(disk.bs));
    let (mut all, mut seen) = (Vec::new(), HashSet::new());
    if height == 0 {
        return Ok(all);
    }
    let mut level = vec![(dinode.to_vec(), DINODE_SIZE)];
    for depth in 1..=height {
        let mut next = Vec::new();
        for (block, start) in level {
            for pointer in (start..block.len()).step_by(8).map(|at| get_u64(&block, at)) {
                if pointer == 0 || pointer >= disk.blocks || !seen.insert(pointer) {
                    continue;
                }
                all.push((pointer, depth));
                if depth < height {
                    let bytes = disk.read(pointer)?;
                    if nearly(&bytes, MetaType::Indirect) {
                        next.push((bytes.to_vec(), 24));
                    }
                }
            }
        }
        level = next;
    }
    Ok(all)
}

/// What is done to pointers at a block.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn {
    /// The first pointer found stays.
    pub(crate) keep_first: bool,
    /// New targets for the others, from the back; when they are used up, the pointer becomes a hole.
    pub(crate) to: Vec<u64>,
}

/// Changes to be made to one inode's pointers: by target, and whether it is taken for data.
pub(crate) type Turns = BTreeMap<(u64, bool), Turn>;

/// Turns pointers of the tree below the dinode at `addr`.
pub(crate) fn turn(work: &mut Work<'_>, addr: u64, turns: &mut Turns) -> Result<(), CheckError> {
    let dinode = work.disk.read(addr)?;
    let height = Dinode::view(&dinode).height.get().min(height_max(work.disk.bs));
    if height == 0 {
        return Ok(());
    }
    let mut seen = HashSet::from([addr]);
    let mut level = vec![(addr, DINODE_SIZE)];
    for depth in 1..=height {
        let mut next = Vec::new();
        for (at, start) in level {
            let mut block = work.disk.read(at)?;
            let mut changed = false;
            for place in (start..block.len()).step_by(8) {
                let pointer = get_u64(&block, place);
                if pointer == 0 {
                    continue;
                }
                let mut now = pointer;
                if let Some(turn) = turns.get_mut(&(pointer, depth == height)) {
                    if !std::mem::take(&mut turn.keep_first) {
                        now = turn.to.pop().unwrap_or(0);
                        put_u64(&mut block, place, now);
                        changed = true;
                    }
                }
                if depth < height && now != 0 && now < work.disk.blocks && seen.insert(now) {
                    if MetaHeader::view_kind(&work.disk.read(now)?) == MetaType::Indirect as u32 {
                        next.push((now, 24));
                    }
                }
            }
            if changed {
                work.put(at, &block);
            }
        }
        level = next;
    }
    Ok(())
}

/// The height that the blocks themselves speak for: as many levels of indirect blocks as the first pointer leads through.
pub(crate) fn measured_height(disk: &Disk<'_>, dinode: &[u8]) -> Result<u16, CheckError> {
    let first =
        |block: &[u8], start: usize| (start..block.len()).step_by(8).map(|at| get_u64(block, at)).find(|&p| p != 0);
    let mut pointer = first(dinode, DINODE_SIZE);
    let mut height = 1;
    while height < height_max(disk.bs) {
        let Some(at) = pointer.filter(|&at| at < disk.blocks) else { break };
        let block = disk.read(at)?;
        if MetaHeader::view_kind(&block) != MetaType::Indirect as u32 {
            break;
        }
        height += 1;
        pointer = first(&block, 24);
    }
    Ok(height)
}

/// True when a kind of block lies in the tree of pointers of a file.
pub(crate) fn in_tree(kind: BlockKind) -> bool {
    matches!(kind, BlockKind::Data | BlockKind::JournaledData | BlockKind::Indirect)
}
