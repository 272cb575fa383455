//! Decisions about entries and about what lies in a dinode or a leaf.

use super::{Plan, Unlink, dinode, is_alive, naming, new_formal};
use crate::disk::Disk;
use crate::issue::{Issue, IssueKind};
use crate::repair::tree;
use crate::report::CheckError;
use crate::state::State;
use gfs2r::format::dinode::DINODE_SIZE;
use gfs2r::format::dinode::mode::{S_IFDIR, S_IFMT, S_IFREG};
use gfs2r::format::header::FORMAT_DIRENT;
use gfs2r::format::{DiFlags, Dinode, Dirent, DirentType, Leaf, OnDisk, get_u64};
use gfs2r::ids::BlkState;

pub(super) fn is_entry(kind: &IssueKind) -> bool {
    use IssueKind as K;
    matches!(
        kind,
        K::DirentDangling { .. }
            | K::DirentUnlinked { .. }
            | K::DirentStale { .. }
            | K::DirentType { .. }
            | K::DirectoryLinkedTwice { .. }
            | K::DotdotWrong { .. }
    )
}

fn edit_entry(plan: &mut Plan, block: u64, dir: u64, name: &str, target: u64, f: impl FnOnce(&mut Dirent) + 'static) {
    let (start, name) = (if block == dir { DINODE_SIZE } else { 104 }, name.to_owned());
    plan.edits.push((
        block,
        Box::new(move |b| {
            if let Some(at) = find(b, start, &name, target) {
                f(Dirent::edit(&mut b[at..]));
            }
        }),
    ));
}

/// Offset of the entry of this name (as people see it) and target.
pub(crate) fn find(block: &[u8], start: usize, name: &str, target: u64) -> Option<usize> {
    let mut at = start;
    while at + 40 <= block.len() {
        let dirent = Dirent::view(&block[at..]);
        let (len, name_len) = (usize::from(dirent.rec_len.get()), usize::from(dirent.name_len.get()));
        let bytes = block.get(at + 40..at + 40 + name_len)?;
        if dirent.inum.addr.get() == target && crate::state::lossy(bytes) == name {
            return Some(at);
        }
        at += len.max(8);
    }
    None
}

pub(super) fn entry(st: &State, issue: &Issue, plan: &mut Plan) -> Result<bool, CheckError> {
    use IssueKind as K;
    let (block, dir) = (issue.block.unwrap_or(0), issue.inode.unwrap_or(0));
    let gone = |name: &str, target: u64| Unlink { block, dir, target, name: name.into() };
    match &issue.kind {
        K::DirentDangling { name, target } => plan.unlink.push(gone(name, *target)),
        K::DirentUnlinked { name, target } => {
            if is_alive(st, *target) {
                plan.states.push((*target, BlkState::Dinode));
            } else {
                plan.unlink.push(gone(name, *target));
            }
        }
        K::DotdotWrong { .. } if dir == st.root || dir == st.master => drop(plan.tops.insert(dir)),
        K::DirentStale { name, .. } if name == ".." => drop(plan.rebuild.insert(dir)),
        K::DirentStale { name, target, expected, .. } => {
            let only = st.inode(*target).is_some_and(|i| i.refs == 0 && !i.unlinked);
            let single = st.entries.iter().filter(|e| e.addr == *target).count() == 1;
            if only && single {
                // Nothing else names the inode: this entry was meant for it, and its number was hit.
                let formal = *expected;
                edit_entry(plan, block, dir, name, *target, move |d| d.inum.formal.set(formal));
            } else {
                plan.unlink.push(gone(name, *target));
            }
        }
        K::DirentType { name, .. } if name == "." || name == ".." => drop(plan.rebuild.insert(dir)),
        K::DirentType { name, found, mode } => {
            let Some(e) = st.entries.iter().find(|e| e.block == block && st.name_lossy(e) == *name) else {
                return Ok(false);
            };
            let known = DirentType::from_raw(*found);
            let odd = st.inode(e.addr).is_none_or(|i| i.damaged) || odd_contents(st, e.addr);
            match (known, DirentType::from_mode(*mode)) {
                (Some(kind), _) if odd => set_type(plan, e.addr, kind),
                (_, Some(kind)) => {
                    edit_entry(plan, block, dir, name, e.addr, move |d| d.kind.set(kind as u16));
                }
                _ => return Ok(false),
            }
        }
        K::DirectoryLinkedTwice { name } => {
            let Some(e) = st.entries.iter().find(|e| e.block == block && st.name_lossy(e) == *name).copied() else {
                return Ok(false);
            };
            if (e.addr == st.root || e.addr == st.master) && st.inode(e.addr).is_some_and(thinks_it_is_a_child) {
                // It is no top directory at all: the superblock names the wrong one.
                plan.tops.insert(e.addr);
                return Ok(true);
            }
            let first = naming(st, e.addr).filter(|_| e.addr != st.root && e.addr != st.master);
            let up = st.inode(e.addr).and_then(|i| i.dotdot).map(|(_, addr)| addr);
            match first {
                // The directory itself says which of the two is its parent.
                Some(first) if up == Some(dir) && st.inodes[first.parent as usize].addr != dir => {
                    let (block, dir) = (first.block, st.inodes[first.parent as usize].addr);
                    plan.unlink.push(Unlink { block, dir, target: e.addr, name: st.name_lossy(&first) });
                }
                _ => plan.unlink.push(gone(name, e.addr)),
            }
        }
        _ => drop(plan.rebuild.insert(dir)),
    }
    Ok(true)
}

fn thinks_it_is_a_child(inode: &crate::state::Inode) -> bool {
    inode.dotdot.is_some_and(|(_, up)| up != inode.addr)
}

/// True when another finding says that the inode's contents do not fit its type.
fn odd_contents(st: &State, addr: u64) -> bool {
    use IssueKind as K;
    st.found.issues.iter().any(|i| {
        let odd = matches!(
            i.kind,
            K::SpecialContents { .. } | K::SymlinkTarget { .. } | K::DinodeFlags { .. } | K::DirectorySize { .. }
        );
        odd && i.inode == Some(addr)
    })
}

fn set_type(plan: &mut Plan, addr: u64, kind: DirentType) {
    dinode(plan, addr, move |di| di.mode.set(di.mode.get() & !S_IFMT & 0xffff | kind.mode()));
}

pub(super) fn inode_fields(st: &State, disk: &Disk<'_>, issue: &Issue, plan: &mut Plan) -> Result<bool, CheckError> {
    use IssueKind as K;
    let addr = issue.inode.unwrap_or(0);
    let block = issue.block.unwrap_or(0);
    match &issue.kind {
        &K::DinodeAddress { found } => {
            let formal = st.inode(addr).map(|i| i.formal);
            let original = st.inode(found).filter(|i| Some(i.formal) == formal);
            if original.is_some() {
                plan.remove.insert(addr);
            } else {
                dinode(plan, addr, move |di| di.num.addr.set(addr));
            }
        }
        K::DinodeFormal {} => {
            let named = naming(st, addr).map(|e| e.formal).filter(|&f| f != 0);
            let formal = named.unwrap_or_else(|| new_formal(st));
            dinode(plan, addr, move |di| di.num.formal.set(formal));
        }
        K::DinodeMode { .. } => {
            let named = naming(st, addr).and_then(|e| DirentType::from_raw(e.kind));
            set_type(plan, addr, named.unwrap_or(DirentType::Reg));
        }
        K::DinodeHeight { .. } => {
            let bytes = disk.read(addr)?;
            let di = Dinode::view(&bytes);
            let is_link = di.mode.get() & S_IFMT != S_IFREG && di.mode.get() & S_IFMT != S_IFDIR;
            let alone = di.blocks.get() <= 1 + u64::from(di.eattr.get() != 0);
            let stuffed = is_link || alone && di.size.get() <= disk.bs.stuffed_max() as u64;
            let height = if stuffed { 0 } else { tree::measured_height(disk, &bytes)? };
            dinode(plan, addr, move |di| di.height.set(height));
        }
        &K::DinodeStuffedSize { size, max } => {
            let bytes = disk.read(addr)?;
            let first = get_u64(&bytes, DINODE_SIZE);
            let is_dir = st.inode(addr).is_some_and(|i| i.is_dir());
            if is_dir {
                plan.rebuild.insert(addr);
            } else if st.map.contains(first) && st.map.kind(first).is_none() && size > max {
                let height = tree::measured_height(disk, &bytes)?;
                dinode(plan, addr, move |di| di.height.set(height));
            } else {
                dinode(plan, addr, move |di| di.size.set(max));
            }
        }
        K::DinodeSize { .. } => {
            let bytes = disk.read(addr)?;
            let last = crate::reader::map(disk, &bytes, 0..u64::MAX).ok().and_then(|m| m.last().map(|&(n, _)| n + 1));
            let used = bytes[DINODE_SIZE..].iter().rposition(|&b| b != 0).map_or(0, |at| at as u64 + 1);
            let stuffed = Dinode::view(&bytes).height.get() == 0;
            let size = if stuffed { used } else { last.unwrap_or(0).saturating_mul(disk.bs.bytes() as u64) };
            let size = size.min(i64::MAX as u64);
            dinode(plan, addr, move |di| di.size.set(size));
        }
        K::DinodeFlags { .. } => {
            let is_dir = st.inode(addr).is_some_and(|i| i.is_dir());
            dinode(plan, addr, move |di| {
                let known = di.flags.get() & 0xe000_07ef;
                let dirs = DiFlags::EXHASH.0 | DiFlags::TOPDIR.0 | DiFlags::INHERIT_JDATA.0;
                di.flags.set(if is_dir { known | DiFlags::JDATA.0 } else { known & !dirs });
            });
        }
        &K::DinodeGoal { field, .. } => {
            dinode(
                plan,
                addr,
                move |di| {
                    if field == "goal_meta" { di.goal_meta.set(addr) } else { di.goal_data.set(addr) }
                },
            )
        }
        &K::DinodeTime { which, .. } => dinode(plan, addr, move |di| match which {
            "atime" => di.atime_nsec.set(0),
            "mtime" => di.mtime_nsec.set(0),
            _ => di.ctime_nsec.set(0),
        }),
        &K::DinodePayloadFormat { expected, .. } => dinode(plan, addr, move |di| di.payload_format.set(expected)),
        &K::DinodeBlocks { counted, .. } => dinode(plan, addr, move |di| di.blocks.set(counted)),
        K::SpecialContents { .. } => {
            let named = naming(st, addr).and_then(|e| DirentType::from_raw(e.kind));
            let mode = st.inode(addr).and_then(|i| DirentType::from_mode(i.mode));
            match named {
                Some(kind) if Some(kind) != mode => set_type(plan, addr, kind),
                _ => dinode(plan, addr, |di| {
                    di.size.set(0);
                    di.height.set(0);
                }),
            }
        }
        K::SymlinkTarget { .. } => {
            let named = naming(st, addr).and_then(|e| DirentType::from_raw(e.kind));
            let bytes = disk.read(addr)?;
            let len = bytes[DINODE_SIZE..].iter().position(|&b| b == 0).unwrap_or(0) as u64;
            match named {
                Some(kind) if kind != DirentType::Lnk => set_type(plan, addr, kind),
                _ if len == 0 => drop(plan.remove.insert(addr)),
                _ => dinode(plan, addr, move |di| {
                    di.size.set(len);
                    di.height.set(0);
                }),
            }
        }
        &K::DirectorySize { expected, .. } if !st.inode(addr).is_some_and(|i| i.flags.has(DiFlags::EXHASH)) => {
            let named = naming(st, addr).and_then(|e| DirentType::from_raw(e.kind));
            if named.is_none_or(|kind| kind == DirentType::Dir) {
                dinode(plan, addr, move |di| di.size.set(expected));
            }
        }
        &K::DirectoryEntries { counted, .. } => dinode(plan, addr, move |di| di.entries.set(counted)),
        &K::LeafEntries { counted, .. } => {
            plan.edits.push((block, Box::new(move |b| Leaf::edit(b).entries.set(counted as u16))));
        }
        K::LeafFormat { .. } => {
            plan.edits.push((block, Box::new(|b| Leaf::edit(b).dirent_format.set(FORMAT_DIRENT))));
        }
        &K::LeafDistance { expected, .. } => {
            plan.edits.push((block, Box::new(move |b| Leaf::edit(b).dist.set(expected))));
        }
        &K::LeafInode { found } => {
            if st.inode(found).is_some_and(|i| i.is_dir()) {
                plan.rebuild.insert(addr);
            } else {
                plan.edits.push((block, Box::new(move |b| Leaf::edit(b).inode.set(addr))));
            }
        }
        K::DinodeDepth { .. }
        | K::DirectoryForm { .. }
        | K::DirectorySize { .. }
        | K::DirectoryHole { .. }
        | K::DirectorySlot { .. }
        | K::LeafRun { .. }
        | K::LeafDepth { .. }
        | K::LeafChain { .. }
        | K::DirentRecord { .. }
        | K::DirentSentinel { .. }
        | K::DirentName { .. }
        | K::DirentHash { .. }
        | K::DirentMisplaced { .. }
        | K::DirentDuplicate { .. }
        | K::DotMissing { .. }
        | K::DotWrong { .. } => {
            // A file that was taken for a directory.
            let named = naming(st, addr).and_then(|e| DirentType::from_raw(e.kind));
            let damaged = st.inode(addr).is_some_and(|i| i.damaged || i.dot.is_none());
            match named {
                Some(kind) if kind != DirentType::Dir && damaged => set_type(plan, addr, kind),
                _ => drop(plan.rebuild.insert(addr)),
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}
