//! What is to be done about each finding: decided here, carried out in `apply.rs`.

mod inode;

pub(crate) use inode::find;

use crate::blockmap::BlockKind;
use crate::disk::Disk;
use crate::issue::{Issue, IssueKind, Owner};
use crate::repair::tree::{self, Turns, in_tree, nearly};
use crate::report::CheckError;
use crate::state::{Entry, State};
use crate::tree::height_max;
use gfs2r::format::dinode::DINODE_SIZE;
use gfs2r::format::{DiFlags, Dinode, DirentType, Leaf, MAGIC, MetaHeader, MetaType, OnDisk, QuotaChange, get_u64};
use gfs2r::ids::BlkState;
use std::collections::{BTreeMap, BTreeSet};

/// When a finding's turn comes. Names are looked at when all structures are sound, counts when all names are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Structure,
    Names,
    Counts,
    Statfs,
    /// Files that need much space, when all that can be freed is free.
    Space,
    /// Legal.
    Leave,
}

/// A change of a block in place.
pub(crate) type Edit = Box<dyn FnOnce(&mut [u8])>;

/// An entry that is to go: the block it lies in, its directory, whom it names, and its name for people.
pub(crate) struct Unlink {
    pub(crate) block: u64,
    pub(crate) dir: u64,
    pub(crate) target: u64,
    pub(crate) name: String,
}

/// Attributes to be written anew.
#[derive(Default)]
pub(crate) struct XattrFix {
    /// Blocks that are not this inode's, or cannot be read.
    pub(crate) bad: BTreeSet<u64>,
    /// Records to drop: block, offset.
    pub(crate) drop: BTreeSet<(u64, u32)>,
    /// Values to bring together into one group: block.
    pub(crate) gather: bool,
    /// Copies to point to instead: old to new.
    pub(crate) copies: BTreeMap<u64, u64>,
}

/// All that is to be done in one round.
#[derive(Default)]
pub(crate) struct Plan {
    pub(crate) edits: Vec<(u64, Edit)>,
    pub(crate) states: Vec<(u64, BlkState)>,
    pub(crate) turns: BTreeMap<u64, Turns>,
    pub(crate) shared: Vec<(u64, Vec<Owner>)>,
    /// Blocks that several claim. Whose they are is decided first.
    pub(crate) contested: BTreeSet<u64>,
    pub(crate) xattrs: BTreeMap<u64, XattrFix>,
    pub(crate) rebuild: BTreeSet<u64>,
    pub(crate) unlink: Vec<Unlink>,
    pub(crate) attach: BTreeSet<u64>,
    pub(crate) remove: BTreeSet<u64>,
    /// System files to find or make: directory, name.
    pub(crate) system: Vec<(u64, String)>,
    /// Root or master is not there.
    pub(crate) tops: BTreeSet<u64>,
    pub(crate) groups: BTreeSet<u64>,
    pub(crate) generations: Vec<(u64, u64)>,
    pub(crate) journals: BTreeMap<u32, u64>,
    pub(crate) clear: BTreeSet<u32>,
    pub(crate) superblock: Vec<IssueKind>,
    pub(crate) statfs: bool,
}

/// When this finding's turn is.
pub(crate) fn stage(kind: &IssueKind) -> Stage {
    use IssueKind as K;
    match kind {
        K::SystemFileMissing { name } if name.starts_with("journal") => Stage::Space,
        K::SystemFileMissing { .. }
        | K::SystemFileType { .. }
        | K::SystemFileUnknown { .. }
        | K::SystemFlag { .. }
        | K::QuotaSize { .. }
        | K::QuotaChangeHole { .. }
        | K::DirentDangling { .. }
        | K::DirentStale { .. }
        | K::DotdotWrong { .. }
        | K::DirectoryLinkedTwice { .. }
        | K::DirectoryUnreachable {}
        | K::InodeUnreferenced { .. }
        | K::InodeLinks { .. }
        | K::SuperblockFormal { .. } => Stage::Names,
        K::BlockLeaked { .. }
        | K::RgrpFree { .. }
        | K::RgrpDinodes { .. }
        | K::RgrpCrc { .. }
        | K::RgrpSkip { .. }
        | K::RgrpCopy { .. }
        | K::RgrpFlags { .. }
        | K::RgrpGeneration { .. } => Stage::Counts,
        K::StatfsTotals { .. } => Stage::Statfs,
        K::RgrpSkipUnset { .. }
        | K::JournalReplayed { .. }
        | K::JournalHeaderDamaged { .. }
        | K::BlocksBeyondEof { .. }
        | K::TruncateInProgress { .. } => Stage::Leave,
        _ => Stage::Structure,
    }
}

/// The entry that names an inode.
pub(crate) fn naming(st: &State, addr: u64) -> Option<Entry> {
    let known = st.inode(addr).and_then(|i| i.entry).and_then(|e| st.entries.get(e as usize).copied());
    known.or_else(|| st.entries.iter().find(|e| e.addr == addr).copied())
}

fn dinode(plan: &mut Plan, addr: u64, f: impl FnOnce(&mut Dinode) + 'static) {
    plan.edits.push((addr, Box::new(move |block| f(Dinode::edit(block)))));
}

fn turn(plan: &mut Plan, inode: u64, pointer: u64, is_data: bool) {
    plan.turns.entry(inode).or_default().entry((pointer, is_data)).or_default();
}

/// Adds to the plan what this finding asks for. False when nothing can be done about it.
pub(crate) fn decide(st: &State, disk: &Disk<'_>, issue: &Issue, plan: &mut Plan) -> Result<bool, CheckError> {
    use IssueKind as K;
    let (block, inode) = (issue.block.unwrap_or(0), issue.inode.unwrap_or(0));
    let is_dir = st.inode(inode).is_some_and(|i| i.is_dir());
    match &issue.kind {
        K::SuperblockMultihost { .. }
        | K::SuperblockShift { .. }
        | K::SuperblockLockproto { .. }
        | K::SuperblockFormal { .. } => plan.superblock.push(issue.kind.clone()),
        K::SuperblockDirectory { found, .. } => drop(plan.tops.insert(*found)),
        K::SystemFileMissing { name } => plan.system.push((inode, name.clone())),
        K::SystemFileType { .. } | K::QuotaChangeHole { .. } => drop(plan.remove.insert(inode)),
        K::SystemFileSize { name, .. } => system_size(st, disk, inode, name, plan)?,
        K::SystemFileUnknown { name } => {
            let dir = naming(st, inode).map_or(0, |e| st.inodes[e.parent as usize].addr);
            match naming(st, inode) {
                Some(e) if st.name_lossy(&e) == *name => {
                    plan.unlink.push(Unlink { block: e.block, dir, target: inode, name: name.clone() });
                }
                _ => unlink_by_name(st, name, plan),
            }
        }
        &K::SystemFlag { expected, .. } => dinode(plan, inode, move |di| {
            let flags = di.flags();
            let system = DiFlags::SYSTEM;
            di.flags.set(if expected { flags.with(system) } else { flags.without(system) }.0);
        }),
        K::StatfsTotals { .. } => plan.statfs = true,
        &K::QuotaSize { size } => dinode(plan, inode, move |di| di.size.set((size / 88 * 88).max(176))),
        &K::QuotaChangeSlot { slot, .. } => {
            let per_block = (disk.bs.payload() / 16) as u64;
            let at = 24 + 16 * (slot % per_block) as usize;
            plan.edits.push((block, Box::new(move |b| b[at..at + size_of::<QuotaChange>()].fill(0))));
        }
        K::RgrpFree { .. }
        | K::RgrpDinodes { .. }
        | K::RgrpCrc { .. }
        | K::RgrpSkip { .. }
        | K::RgrpCopy { .. }
        | K::RgrpFlags { .. } => drop(plan.groups.insert(block)),
        &K::RgrpGeneration { used, .. } => plan.generations.push((block, used.saturating_add(1))),
        &K::JournalSize { jid, .. } | &K::JournalHole { jid, .. } => drop(plan.journals.insert(jid, inode)),
        &K::JournalDirty { jid, .. }
        | &K::JournalSequence { jid, .. }
        | &K::JournalNoHeader { jid }
        | &K::JournalHeaderPlace { jid, .. }
        | &K::JournalTail { jid, .. }
        | &K::JournalWalk { jid, .. }
        | &K::JournalPayload { jid, .. } => drop(plan.clear.insert(jid)),
        K::BlockLeaked { count } => {
            plan.states.extend((block..block.saturating_add(*count)).map(|b| (b, BlkState::Free)));
        }
        // The state follows when it is known whose it is.
        K::BlockNotAllocated { .. } | K::BlockState { .. } if plan.contested.contains(&block) => {}
        K::BlockNotAllocated { kind } | K::BlockState { kind, .. } => {
            let state = if *kind == BlockKind::Dinode { BlkState::Dinode } else { BlkState::Used };
            plan.states.push((block, state));
        }
        &K::BlockType { kind, wanted, .. } => return block_type(st, disk, (block, inode), kind, wanted, plan),
        &K::BlockFormat { expected, .. } => {
            if block == 65536 >> disk.bs.shift() {
                plan.superblock.push(issue.kind.clone());
            } else {
                plan.edits.push((block, Box::new(move |b| MetaHeader::edit(b).format.set(expected))));
            }
        }
        &K::PointerRange { pointer, kind } => match kind {
            _ if in_tree(kind) && !is_dir => turn(plan, inode, pointer, kind != BlockKind::Indirect),
            BlockKind::EaBlock | BlockKind::EaData | BlockKind::EaIndex => {
                plan.xattrs.entry(inode).or_default().bad.insert(pointer);
            }
            _ => drop(plan.rebuild.insert(inode)),
        },
        K::BlockDoubleOwned { owners } => plan.shared.push((block, owners.0.clone())),
        K::XattrRecord { .. } | K::XattrType { .. } | K::XattrPointers { .. } | K::XattrIndirect { .. } => {
            plan.xattrs.entry(inode).or_default();
        }
        K::XattrHole { .. } | K::XattrDuplicate { .. } | K::AclSyntax { .. } => {
            plan.xattrs.entry(inode).or_default();
        }
        K::XattrRgrp { .. } => plan.xattrs.entry(inode).or_default().gather = true,
        K::InodeUnlinked { .. } => {
            // Unless something else says that it is alive.
            let alive = st.found.issues.iter().any(|other| match &other.kind {
                K::UnlinkedLinks { .. } | K::UnlinkedNotEmpty { .. } => other.inode == issue.inode,
                K::DirentUnlinked { target, .. } => *target == inode && is_alive(st, inode),
                _ => false,
            });
            if !alive {
                plan.remove.insert(inode);
            }
        }
        K::UnlinkedLinks { .. } | K::UnlinkedNotEmpty { .. } => plan.states.push((inode, BlkState::Dinode)),
        K::DirectoryUnreachable {} | K::InodeUnreferenced { .. } => {
            if st.inode(inode).is_some_and(|i| i.nlink == 0 && i.refs == 0 && !i.is_dir()) {
                // It was being deleted.
                plan.remove.insert(inode);
            } else {
                plan.attach.insert(inode);
            }
        }
        &K::InodeLinks { counted, .. } => dinode(plan, inode, move |di| di.nlink.set(counted)),
        K::DinodeHeader { .. } => {
            let bytes = disk.read(block)?;
            if plausible(disk, block, &bytes) {
                plan.edits.push((block, Box::new(|b| mend(b, MetaType::Dinode))));
            } else if block == st.root || block == st.master {
                plan.tops.insert(block);
            } else {
                plan.states.push((block, BlkState::Free));
            }
        }
        K::RgrpBlock { .. } | K::RindexSize { .. } | K::RindexEntry { .. } => return Ok(false),
        K::RindexOverlap { .. } | K::RindexBeyondDevice { .. } => return Ok(false),
        K::JournalTarget { .. } | K::JournalConflict { .. } | K::JournalOverwritesData { .. } => return Ok(false),
        _ if inode::is_entry(&issue.kind) => return inode::entry(st, issue, plan),
        _ => return inode::inode_fields(st, disk, issue, plan),
    }
    Ok(true)
}

impl Plan {
    /// Nothing to be done yet.
    pub(crate) fn new(issues: &[Issue]) -> Self {
        let contested = issues.iter().filter(|i| matches!(i.kind, IssueKind::BlockDoubleOwned { .. }));
        Self { contested: contested.filter_map(|i| i.block).collect(), ..Self::default() }
    }
}

/// True for the files of quota changes.
pub(crate) fn holds_quota_changes(st: &State, inode: u64) -> bool {
    st.inode(inode).is_some_and(|i| i.flags.has(DiFlags::SYSTEM))
        && naming(st, inode).is_some_and(|e| st.name_lossy(&e).starts_with("quota_change"))
}

/// True while files are missing that others depend on.
pub(crate) fn misses_files(st: &State) -> bool {
    st.found.issues.iter().any(|i| matches!(i.kind, IssueKind::SystemFileMissing { .. }))
}

fn is_alive(st: &State, addr: u64) -> bool {
    st.inode(addr).is_some_and(|i| i.nlink > 0 && st.entries.iter().any(|e| e.addr == addr && e.formal == i.formal))
}

fn unlink_by_name(st: &State, name: &str, plan: &mut Plan) {
    for e in st.entries.iter().filter(|e| st.name_lossy(e) == name) {
        let dir = &st.inodes[e.parent as usize];
        if dir.flags.has(DiFlags::SYSTEM) {
            plan.unlink.push(Unlink { block: e.block, dir: dir.addr, target: e.addr, name: name.into() });
        }
    }
}

/// Restores a header.
pub(crate) fn mend(block: &mut [u8], kind: MetaType) {
    let header = MetaHeader::edit(block);
    header.magic.set(MAGIC);
    header.kind.set(kind as u32);
    header.format.set(kind.format());
}

/// True when everything but the header speaks for a dinode.
fn plausible(disk: &Disk<'_>, addr: u64, bytes: &[u8]) -> bool {
    let di = Dinode::view(bytes);
    let typed = DirentType::from_mode(di.mode.get()).is_some();
    let other = MetaHeader::view_kind(bytes);
    typed
        && di.num.addr.get() == addr
        && di.num.formal.get() != 0
        && di.height.get() <= height_max(disk.bs)
        && (other == 0 || nearly(bytes, MetaType::Dinode))
}

fn system_size(st: &State, disk: &Disk<'_>, inode: u64, name: &str, plan: &mut Plan) -> Result<(), CheckError> {
    let bytes = disk.read(inode)?;
    let bs = disk.bs.bytes() as u64;
    let stuffed = Dinode::view(&bytes).height.get() == 0;
    let size = if name.starts_with("quota_change") {
        let mapped = crate::reader::map(disk, &bytes, 0..(64 << 20) / bs).map_or(0, |m| m.len() as u64 * bs);
        ((1 << 20)..=(64 << 20)).contains(&mapped).then_some(mapped)
    } else {
        let size = if name == "inum" {
            8
        } else if name.starts_with("inum_range") {
            16
        } else {
            24
        };
        stuffed.then_some(size)
    };
    match size {
        Some(size) if st.inode(inode).is_some() => dinode(plan, inode, move |di| di.size.set(size)),
        _ => drop(plan.remove.insert(inode)),
    }
    Ok(())
}

fn block_type(
    st: &State,
    disk: &Disk<'_>,
    (block, inode): (u64, u64),
    kind: BlockKind,
    wanted: u32,
    plan: &mut Plan,
) -> Result<bool, CheckError> {
    let Some(wanted) = MetaType::from_raw(wanted) else { return Ok(false) };
    let bytes = disk.read(block)?;
    if wanted == MetaType::QuotaChange {
        if plan.contested.contains(&block) {
            // Whose it is comes first: it may be somebody's data.
            return Ok(true);
        }
        plan.edits.push((
            block,
            Box::new(move |b| {
                if !nearly(b, wanted) {
                    b.fill(0);
                }
                MetaHeader::init(b, wanted);
            }),
        ));
        return Ok(true);
    }
    let of_other = wanted == MetaType::Leaf
        && Leaf::view(&bytes).inode.get() != inode
        && st.inode(Leaf::view(&bytes).inode.get()).is_some();
    if nearly(&bytes, wanted) && !of_other {
        plan.edits.push((block, Box::new(move |b| mend(b, wanted))));
        return Ok(true);
    }
    let is_dir = st.inode(inode).is_some_and(|i| i.is_dir());
    match kind {
        BlockKind::Indirect if !is_dir => {
            let own = disk.read(inode)?;
            let (height, measured) = (Dinode::view(&own).height.get(), tree::measured_height(disk, &own)?);
            let first = get_u64(&own, DINODE_SIZE);
            // Data where the first pointer leads to, and nowhere an indirect block: the height is wrong.
            if measured != height && first != 0 && measured < height {
                dinode(plan, inode, move |di| di.height.set(measured));
            } else {
                turn(plan, inode, block, false);
            }
        }
        BlockKind::EaIndex | BlockKind::EaBlock => {
            let (found, indirect) = (MetaHeader::view_kind(&bytes), kind == BlockKind::EaIndex);
            let other = if indirect { MetaType::EaBlock } else { MetaType::Indirect };
            let direct = Dinode::view(&disk.read(inode)?).eattr.get() == block;
            if found == other as u32 && direct {
                dinode(plan, inode, move |di| {
                    let (flags, flag) = (di.flags(), DiFlags::EA_INDIRECT);
                    di.flags.set(if indirect { flags.without(flag) } else { flags.with(flag) }.0);
                });
            } else {
                plan.xattrs.entry(inode).or_default().bad.insert(block);
            }
        }
        BlockKind::EaData => drop(plan.xattrs.entry(inode).or_default().bad.insert(block)),
        _ => drop(plan.rebuild.insert(inode)),
    }
    Ok(true)
}

/// A number that no inode has.
pub(crate) fn new_formal(st: &State) -> u64 {
    // A number that was hit may be anything.
    st.inodes.iter().map(|i| i.formal).filter(|&f| f < 1 << 48).max().unwrap_or(0) + 1
}
