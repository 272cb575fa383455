//! What can still be read of a damaged directory: entries of its table's leaves, and of leaves that say they are its own.

use crate::blockmap::BlockKind;
use crate::disk::Disk;
use crate::repair::build::NewEntry;
use crate::repair::tree::{self, nearly};
use crate::repair::work::Work;
use crate::report::CheckError;
use crate::state::State;
use gfs2r::format::checksum::dir_hash;
use gfs2r::format::dinode::DINODE_SIZE;
use gfs2r::format::directory::{DIRENT_SIZE, LEAF_SIZE, dirent_len};
use gfs2r::format::{DiFlags, Dinode, Dirent, DirentType, Leaf, MetaType, OnDisk, get_u64};
use gfs2r::ids::BlkState;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Leaves that no table leads to, by the directory they name.
pub(crate) type Orphans = HashMap<u64, Vec<u64>>;

/// What was saved of a directory.
#[derive(Default)]
pub(crate) struct Salvage {
    /// Without `.` and `..`; names are unique.
    pub(crate) entries: Vec<NewEntry>,
    /// Blocks that were the directory's alone.
    pub(crate) blocks: Vec<u64>,
    /// Whom `..` named.
    pub(crate) dotdot: Option<(u64, u64)>,
}

/// Looks through all blocks that are in use and nobody's for leaves of these directories.
pub(crate) fn orphans(work: &Work<'_>, st: &State, of: &BTreeSet<u64>) -> Result<Orphans, CheckError> {
    let mut found = Orphans::new();
    for group in &st.map.groups {
        let nobodys = |&i: &u32| group.state(i) != BlkState::Free && group.kind(i).is_none();
        let mut items: Vec<(u64, ())> =
            (0..group.extent.data).filter(nobodys).map(|i| (group.extent.block_at(i).get(), ())).collect();
        work.disk.visit(&mut items, |addr, (), bytes| {
            let leaf = Leaf::view(bytes);
            if nearly(bytes, MetaType::Leaf) && of.contains(&leaf.inode.get()) {
                found.entry(leaf.inode.get()).or_default().push(addr);
            }
            Ok(())
        })?;
    }
    Ok(found)
}

/// Reads what there is of the directory at `addr`.
pub(crate) fn directory(work: &Work<'_>, st: &State, addr: u64, orphans: &Orphans) -> Result<Salvage, CheckError> {
    let (disk, bytes) = (&work.disk, work.disk.read(addr)?);
    let di = Dinode::view(&bytes);
    let mut saved = Salvage::default();
    let mut found = BTreeMap::new();
    let mut first = Vec::new();
    if di.height.get() == 0 {
        if di.flags().has(DiFlags::EXHASH) {
            first.extend((DINODE_SIZE..bytes.len()).step_by(8).map(|at| get_u64(&bytes, at)));
        }
        // Whatever the flag says: pointers do not look like records.
        entries(st, &bytes, DINODE_SIZE, di.flags().has(DiFlags::EXHASH), &mut saved, &mut found);
    } else {
        for (at, level) in tree::blocks(disk, &bytes)? {
            let is_table = level == di.height.get();
            let kind = if is_table { BlockKind::Table } else { BlockKind::Indirect };
            if is_table && st.map.contains(at) {
                let block = disk.read(at)?;
                if nearly(&block, MetaType::JournaledData) {
                    first.extend((24..block.len()).step_by(8).map(|i| get_u64(&block, i)));
                }
            }
            if st.map.kind(at) == Some(kind) && !st.taken.contains(&at) {
                saved.blocks.push(at);
            }
        }
    }
    first.extend(orphans.get(&addr).into_iter().flatten());
    leaves(disk, st, addr, first, &mut saved, &mut found)?;
    saved.entries = found.into_values().collect();
    saved.blocks.sort_unstable_by(|a, b| b.cmp(a));
    saved.blocks.dedup();
    Ok(saved)
}

fn leaves(
    disk: &Disk<'_>,
    st: &State,
    owner: u64,
    mut open: Vec<u64>,
    saved: &mut Salvage,
    found: &mut BTreeMap<Vec<u8>, NewEntry>,
) -> Result<(), CheckError> {
    open.dedup();
    open.reverse();
    let mut seen = BTreeSet::new();
    while let Some(at) = open.pop() {
        if !st.map.contains(at) || !seen.insert(at) {
            continue;
        }
        let bytes = disk.read(at)?;
        let leaf = Leaf::view(&bytes);
        let other = leaf.inode.get();
        let foreign = other != owner && st.inode(other).is_some_and(|i| i.is_dir());
        // A leaf that two claim and that does not say it is ours is the other's.
        let shared = st.taken.contains(&at);
        if !nearly(&bytes, MetaType::Leaf) || foreign || (shared && other != owner) {
            continue;
        }
        if !shared && st.map.kind(at).is_none_or(|kind| kind == BlockKind::Leaf) {
            saved.blocks.push(at);
        }
        entries(st, &bytes, LEAF_SIZE, false, saved, found);
        open.push(leaf.next.get());
    }
    Ok(())
}

/// The entries of one block. Where the chain of records breaks, the search goes on for records that name inodes which exist.
fn entries(
    st: &State,
    block: &[u8],
    start: usize,
    mut broken: bool,
    saved: &mut Salvage,
    found: &mut BTreeMap<Vec<u8>, NewEntry>,
) {
    let mut at = start;
    while at + DIRENT_SIZE <= block.len() {
        let dirent = Dirent::view(&block[at..]);
        let (len, name_len) = (usize::from(dirent.rec_len.get()), usize::from(dirent.name_len.get()));
        let inum = (dirent.inum.formal.get(), dirent.inum.addr.get());
        let room = len >= DIRENT_SIZE && len % 8 == 0 && len <= block.len() - at;
        let is_name = (1..=255).contains(&name_len) && at + DIRENT_SIZE + name_len <= block.len();
        if inum.0 == 0 || inum.1 == 0 {
            let skip = if room && !broken { len } else { 8 };
            at += skip;
            continue;
        }
        if !is_name || (broken || !room) && !known(st, block, at, name_len, inum) {
            broken = true;
            at += 8;
            continue;
        }
        let whole = room && len >= DIRENT_SIZE + name_len;
        broken |= !whole;
        let name = block[at + DIRENT_SIZE..at + DIRENT_SIZE + name_len].to_vec();
        keep(st, name, inum, dirent.kind.get(), saved, found);
        at += if whole { len } else { dirent_len(name_len) };
    }
}

/// True for a record that proves itself: its hash is right, and the inode it names is alive.
fn known(st: &State, block: &[u8], at: usize, name_len: usize, (formal, addr): (u64, u64)) -> bool {
    let name = &block[at + DIRENT_SIZE..at + DIRENT_SIZE + name_len];
    let alive = st.inode(addr).is_some_and(|i| i.formal == formal && !i.unlinked);
    Dirent::view(&block[at..]).hash.get() == dir_hash(name).0 && alive
}

fn keep(
    st: &State,
    name: Vec<u8>,
    (formal, addr): (u64, u64),
    kind: u16,
    saved: &mut Salvage,
    found: &mut BTreeMap<Vec<u8>, NewEntry>,
) {
    match &name[..] {
        b"." => return,
        b".." => {
            saved.dotdot = saved.dotdot.or(Some((formal, addr)));
            return;
        }
        _ => {}
    }
    let inode = st.inode(addr);
    // What it names may be gone; pass 2 will say so. Outside all groups there is nothing to ask.
    if !st.map.contains(addr) || inode.is_some_and(|i| i.unlinked) {
        return;
    }
    let name: Vec<u8> = name.iter().map(|&b| if b == b'/' || b == 0 { b'_' } else { b }).collect();
    let kind = inode.and_then(|i| DirentType::from_mode(i.mode)).map_or(kind, |t| t as u16);
    let entry = NewEntry { name: name.clone(), formal, addr, kind };
    let better = |old: &NewEntry| {
        let lives = |e: &NewEntry| st.inode(e.addr).is_some_and(|i| i.formal == e.formal);
        lives(&entry) && !lives(old)
    };
    if found.get(&name).is_none_or(better) {
        found.insert(name, entry);
    }
}
