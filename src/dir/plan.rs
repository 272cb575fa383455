//! What adding a name will cost, found out before the transaction begins.

use super::block::Defect;
use super::exhash::Chain;
use super::grow::{self, Spot, Step};
use super::hash::{self, Run};
use super::split::{self, Growth};
use super::table::{self, Table};
use super::{AddPlan, hash::index};
use crate::error::{CorruptKind, Error, Result};
use crate::file;
use crate::format::DiFlags;
use crate::format::checksum::dir_hash;
use crate::format::directory::{NAME_MAX, dirent_len};
use crate::ids::{DirHash, FileBlock};
use crate::inode::{Inode, Volume};

/// Plans `add`. `TooBig` when the directory is full, `TooManyLinks` when its link count is, `NameTooLong` above 255 bytes,
/// `NotFound` when the directory was removed (nlink 0). Does not look whether the name exists.
///
/// The common case, room in the leaf, is `alloc` 0 and `log` 2; growth is rehearsed on a copy of the leaf, so it is counted as
/// it will happen and not as it might at worst. The most there is, a table of depth 17 at 512 bytes a block (some 2200 blocks),
/// fits a transaction of the smallest journal.
pub fn plan_add(vol: &Volume, dir: &Inode, name: &[u8]) -> Result<AddPlan> {
    check_may_add(dir, name)?;
    let (hash, need) = (dir_hash(name), dirent_len(name.len()));
    let plan = match grow::spot(vol, dir, hash, need)? {
        Spot::Here { leaf: false, .. } => AddPlan { alloc: 0, log: 1 },
        Spot::Here { leaf: true, .. } => AddPlan { alloc: 0, log: 2 },
        Spot::After(step) => plan_growth(vol, dir, hash, need, step)?,
    };
    Ok(plan)
}

/// Whether names may be added at all.
fn check_may_add(dir: &Inode, name: &[u8]) -> Result<()> {
    match name.len() {
        0 => return Err(Error::Invalid),
        1..=NAME_MAX => {}
        _ => return Err(Error::NameTooLong),
    }
    if dir.dinode.nlink.get() == 0 {
        return Err(Error::NotFound);
    }
    if dir.dinode.entries.get() == u32::MAX {
        return Err(Error::TooBig);
    }
    Ok(())
}

/// Cost of the whole growth that starts with `step`.
fn plan_growth(vol: &Volume, dir: &Inode, hash: DirHash, need: usize, step: Step) -> Result<AddPlan> {
    let at = dir.inum.addr;
    let (leaf, depth, run) = match step {
        // The last leaf, the new one, the dinode.
        Step::Chain { .. } => return Ok(AddPlan { alloc: 1, log: 3 }),
        Step::Convert => {
            let depth = split::first_depth(vol.bs);
            let mut leaf = vec![0; vol.bs.bytes()];
            split::init_leaf(&mut leaf, at, 0, 1, vol.clock.now());
            split::convert(&dir.buffer(vol)?.bytes(), &mut leaf).map_err(|d| d.at(at))?;
            (leaf, depth, Run::around(0, depth, 0))
        }
        Step::Split { .. } | Step::Double => {
            let mut table = Table::open(vol, dir)?;
            let slot = index(hash, table.depth);
            let first = table.leaf(slot)?;
            let leaf = Chain::new(vol, dir, table.depth, first).next()?;
            let leaf = leaf.ok_or_else(|| Defect("hash table slot without a leaf").at(at))?;
            (leaf.bytes.to_vec(), table.depth, hash::Run::around(slot, table.depth, leaf.depth()))
        }
    };
    let Growth { splits, doublings, chained } = split::rehearse(leaf, depth, hash, need).map_err(|d| d.at(at))?;
    // Dinode and leaf, one new leaf for each split, the slots that change hands.
    let leaves = splits + u32::from(chained) + u32::from(step == Step::Convert);
    let (alloc, mut log) = (leaves, 2 + leaves);
    if doublings > 0 {
        let cost = double_cost(vol, dir, depth + doublings)?;
        return sum(AddPlan { alloc, log }, cost).ok_or_else(|| Error::corrupt(at, CorruptKind::Directory("growth")));
    }
    if !dir.is_stuffed() {
        log += table::blocks_of_run(vol.bs, run);
    }
    Ok(AddPlan { alloc, log })
}

fn sum(a: AddPlan, b: AddPlan) -> Option<AddPlan> {
    Some(AddPlan { alloc: a.alloc.checked_add(b.alloc)?, log: a.log.checked_add(b.log)? })
}

/// Cost of a table of depth `depth` in place of the present one, which is read here: all its blocks are logged (`grow_cost`
/// counts them), and those that grow the tree.
fn double_cost(vol: &Volume, dir: &Inode, depth: u32) -> Result<AddPlan> {
    let blocks = table::blocks(vol.bs, depth);
    let cost = file::grow_cost(vol, dir, FileBlock(0), u64::from(blocks), true)?;
    if dir.flags().has(DiFlags::EXHASH) {
        Table::open(vol, dir)?.read_all()?;
    }
    Ok(AddPlan { alloc: cost.alloc, log: cost.log })
}
