//! Blocks that several claim (ondisk.md 12.4). Whoever's the block can be shown to be keeps it. The others get a copy where a
//! copy is of use, because one of them may be innocent: with copies, what it reads is what it read before.

use crate::blockmap::BlockKind;
use crate::issue::Owner;
use crate::repair::plan::{self, Plan};
use crate::repair::work::Work;
use crate::report::CheckError;
use crate::state::State;
use gfs2r::format::{Dinode, Leaf, MetaHeader, MetaType, OnDisk};

/// How well a claim is supported by what is in the block.
fn rank(st: &State, bytes: &[u8], block: u64, owner: &Owner) -> u8 {
    let typed = plan::holds_quota_changes(st, owner.inode);
    let kind = MetaHeader::view_kind(bytes);
    let is = |wanted: MetaType| kind == wanted as u32;
    match owner.kind {
        BlockKind::Dinode if is(MetaType::Dinode) && Dinode::view(bytes).num.addr.get() == block => 4,
        BlockKind::Leaf if is(MetaType::Leaf) && Leaf::view(bytes).inode.get() == owner.inode => 3,
        BlockKind::Indirect | BlockKind::EaIndex if is(MetaType::Indirect) => 2,
        BlockKind::Table if is(MetaType::JournaledData) => 2,
        BlockKind::EaBlock if is(MetaType::EaBlock) => 2,
        BlockKind::EaData if is(MetaType::EaData) => 2,
        // Only those of quota changes have such blocks, and no other.
        BlockKind::Data if typed => 3 * u8::from(is(MetaType::QuotaChange)),
        BlockKind::Data | BlockKind::JournaledData => 1,
        _ => 0,
    }
}

/// Decides about all blocks with several owners, and adds to the plan.
pub(crate) fn decide(work: &mut Work<'_>, st: &mut State, plan: &mut Plan) -> Result<(), CheckError> {
    for (block, owners) in std::mem::take(&mut plan.shared) {
        let gone = |o: &Owner| plan.remove.contains(&o.inode);
        let owners: Vec<Owner> = owners.into_iter().filter(|o| !gone(o)).collect();
        if owners.len() < 2 {
            continue;
        }
        let bytes = work.disk.read(block)?;
        let best = owners.iter().map(|o| rank(st, &bytes, block, o)).max().unwrap_or(0);
        let Some(keeper) = owners.iter().position(|o| rank(st, &bytes, block, o) == best) else { continue };
        for (i, owner) in owners.iter().enumerate().filter(|&(i, _)| i != keeper) {
            let own = owners[i].inode == owners[keeper].inode;
            lose(work, st, plan, block, &bytes, owner, own && owner.kind == owners[keeper].kind);
        }
    }
    Ok(())
}

fn lose(
    work: &mut Work<'_>,
    st: &mut State,
    plan: &mut Plan,
    block: u64,
    bytes: &[u8],
    owner: &Owner,
    same_twice: bool,
) {
    let useful = rank(st, bytes, block, owner) > 0;
    let is_dir = st.inode(owner.inode).is_some_and(|i| i.is_dir());
    match owner.kind {
        BlockKind::Data | BlockKind::JournaledData | BlockKind::Indirect if !is_dir => {
            let is_data = owner.kind != BlockKind::Indirect;
            let cycle = !is_data && same_twice;
            let empty = !useful && plan::holds_quota_changes(st, owner.inode);
            let copy = if (useful || empty) && !cycle { work.allocate(st, owner.kind) } else { None };
            if let Some(copy) = copy {
                let mut bytes = bytes.to_vec();
                if empty {
                    bytes.fill(0);
                    MetaHeader::init(&mut bytes, MetaType::QuotaChange);
                }
                work.put(copy, &bytes);
            }
            let turn = plan.turns.entry(owner.inode).or_default().entry((block, is_data)).or_default();
            turn.keep_first |= same_twice;
            turn.to.extend(copy);
        }
        BlockKind::EaBlock | BlockKind::EaIndex | BlockKind::EaData => {
            let copy = if useful && !same_twice { work.allocate(st, owner.kind) } else { None };
            let fix = plan.xattrs.entry(owner.inode).or_default();
            match copy {
                Some(copy) => {
                    fix.copies.insert(block, copy);
                    work.put(copy, bytes);
                }
                None => drop(fix.bad.insert(block)),
            }
        }
        // A dinode that another has as metadata, and that is none.
        BlockKind::Dinode => drop(plan.remove.insert(owner.inode)),
        _ => drop(plan.rebuild.insert(owner.inode)),
    }
}
