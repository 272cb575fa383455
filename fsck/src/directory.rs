//! The inside of a directory: hash table, leaves, records (ondisk.md 5; 12.5). Whom the entries name is pass 2's business.

use crate::blockmap::BlockKind;
use crate::dirents::{Dirents, RawDirent, RecordFault};
use crate::disk::Disk;
use crate::issue::IssueKind;
use crate::report::CheckError;
use crate::state::{Inode, State, lossy};
use crate::tree::{self, Walk};
use gfs2r::format::checksum::dir_hash;
use gfs2r::format::dinode::DINODE_SIZE;
use gfs2r::format::directory::{DEPTH_MAX, LEAF_SIZE};
use gfs2r::format::header::FORMAT_DIRENT;
use gfs2r::format::{DiFlags, Dinode, Leaf, MetaType, OnDisk, get_u64};

/// What is gathered while a directory is read.
struct Gathered {
    /// Its future place in the list of inodes.
    index: u32,
    /// Live entries, `.` and `..` included.
    entries: u32,
    /// (hash, entry) of all entries, to find names that occur twice.
    hashes: Vec<(u32, u32)>,
}

/// Consecutive slots with the same leaf, or a later leaf of their chain.
#[derive(Clone, Copy, Debug)]
struct Run {
    start: u32,
    length: u32,
    /// Place in the chain, from 1.
    place: u32,
    /// lf_depth of the first leaf of the chain.
    depth: u16,
    /// A slot beside it is missing, so that it may be longer.
    cut: bool,
}

/// Checks a directory's inside and takes note of its entries.
pub(crate) fn check(
    disk: &Disk<'_>,
    st: &mut State,
    inode: &mut Inode,
    di: &Dinode,
    bytes: &[u8],
    index: u32,
) -> Result<(), CheckError> {
    let addr = inode.addr;
    let mut gathered = Gathered { index, entries: 0, hashes: Vec::new() };
    if inode.flags.has(DiFlags::EXHASH) {
        hashed(disk, st, inode, di, bytes, &mut gathered)?;
    } else if di.height.get() == 0 {
        let expected = disk.bs.stuffed_max() as u64;
        if inode.size != expected {
            st.found.add(addr, addr, IssueKind::DirectorySize { found: inode.size, expected });
        }
        records(st, inode, addr, bytes, DINODE_SIZE, None, &mut gathered);
    } else {
        st.found.add(addr, addr, IssueKind::DirectoryForm { height: di.height.get(), flags: inode.flags.0 });
        inode.damaged = true;
        tree::walk(disk, st, inode, bytes, walk_of_table(di.height.get(), 0, false))?;
    }
    duplicates(st, inode, &mut gathered.hashes);
    st.settle(inode, 0);
    // An inode that is being deleted has its count zeroed and keeps its dots.
    let (found, counted) = (di.entries.get(), gathered.entries);
    if found != counted && !inode.damaged && !inode.unlinked {
        st.found.add(addr, addr, IssueKind::DirectoryEntries { found, counted });
    }
    st.stats.directories += 1;
    st.stats.entries += u64::from(counted);
    Ok(())
}

fn walk_of_table(height: u16, end: u64, list: bool) -> Walk {
    Walk { height, kind: BlockKind::Table, end, list }
}

fn hashed(
    disk: &Disk<'_>,
    st: &mut State,
    inode: &mut Inode,
    di: &Dinode,
    bytes: &[u8],
    gathered: &mut Gathered,
) -> Result<(), CheckError> {
    let (addr, depth, height) = (inode.addr, di.depth.get(), di.height.get());
    let min = (disk.bs.bytes() / 16).trailing_zeros() as u16;
    if !(min..=DEPTH_MAX).contains(&depth) {
        inode.damaged = true;
        st.found.add(addr, addr, IssueKind::DinodeDepth { depth, min });
        tree::walk(disk, st, inode, bytes, walk_of_table(height, 0, false))?;
        return Ok(());
    }
    let expected = 8u64 << depth;
    if inode.size != expected {
        inode.damaged = true;
        st.found.add(addr, addr, IssueKind::DirectorySize { found: inode.size, expected });
    }
    let table = table(disk, st, inode, height, bytes, expected as usize)?;
    let mut runs = Vec::new();
    let mut start = 0u32;
    let missing = |slot: Option<u32>| slot.and_then(|s| table.get(s as usize)).is_some_and(|p| p.unwrap_or(0) == 0);
    for slots in table.chunk_by(|a, b| a == b) {
        let length = slots.len() as u32;
        let cut = missing(start.checked_sub(1)) || missing(start.checked_add(length));
        let run = Run { start, length, place: 1, depth: 0, cut };
        start += run.length;
        match slots[0] {
            // A deleted directory loses its leaves one run at a time.
            Some(0) if inode.unlinked => {}
            Some(0) => {
                inode.damaged = true;
                st.found.add(addr, addr, IssueKind::DirectorySlot { slot: run.start, pointer: 0 });
            }
            Some(leaf) if st.claim(inode, addr, leaf, BlockKind::Leaf) => runs.push((leaf, run)),
            // A finding was noted: for the claim, or for the hole in the table.
            Some(_) | None => {}
        }
    }
    leaves(disk, st, inode, depth, runs, gathered)
}

/// The hash table; `None` for slots that could not be read.
fn table(
    disk: &Disk<'_>,
    st: &mut State,
    inode: &mut Inode,
    height: u16,
    bytes: &[u8],
    len: usize,
) -> Result<Vec<Option<u64>>, CheckError> {
    let addr = inode.addr;
    if height == 0 {
        if len > disk.bs.stuffed_max() {
            inode.damaged = true;
            st.found.add(
                addr,
                addr,
                IssueKind::DinodeStuffedSize { size: len as u64, max: disk.bs.stuffed_max() as u64 },
            );
            return Ok(Vec::new());
        }
        return Ok((0..len / 8).map(|i| Some(get_u64(bytes, DINODE_SIZE + 8 * i))).collect());
    }
    let piece = disk.bs.payload() / 8;
    let mut slots = vec![None; len / 8];
    let blocks = slots.len().div_ceil(piece) as u64;
    let mut found = tree::walk(disk, st, inode, bytes, walk_of_table(height, blocks, true))?;
    if found.beyond > 0 {
        st.found.add(addr, addr, IssueKind::BlocksBeyondEof { count: found.beyond });
    }
    found.list.sort_unstable();
    found.list.retain(|&(number, _)| number < blocks);
    for number in 0..blocks {
        if found.list.binary_search_by_key(&number, |&(n, _)| n).is_err() && !inode.unlinked {
            // Unless the block is there and somebody else's, which is a finding already.
            if !inode.damaged {
                st.found.add(addr, addr, IssueKind::DirectoryHole { at: number });
            }
            inode.damaged = true;
        }
    }
    let mut items: Vec<(u64, u64)> = found.list.iter().map(|&(number, at)| (at, number)).collect();
    disk.visit(&mut items, |at, number, block| {
        if st.header(inode, at, block, BlockKind::Table, MetaType::JournaledData) {
            let first = number as usize * piece;
            for (i, slot) in slots.iter_mut().skip(first).take(piece).enumerate() {
                *slot = Some(get_u64(block, 24 + 8 * i));
            }
        }
        Ok(())
    })?;
    Ok(slots)
}

/// Visits the leaves, then the second leaves of all chains, and so on.
fn leaves(
    disk: &Disk<'_>,
    st: &mut State,
    inode: &mut Inode,
    depth: u16,
    mut runs: Vec<(u64, Run)>,
    gathered: &mut Gathered,
) -> Result<(), CheckError> {
    while !runs.is_empty() {
        let mut next = Vec::new();
        disk.visit(&mut runs, |addr, mut run, bytes| {
            if st.is_refuted() || !st.header(inode, addr, bytes, BlockKind::Leaf, MetaType::Leaf) {
                return Ok(());
            }
            let leaf = Leaf::view(bytes);
            let range = place(st, inode, addr, leaf, depth, &mut run);
            let before = gathered.entries;
            let (hashes, mut unsettled) = (gathered.hashes.len(), st.entries.len());
            let whole = records(st, inode, addr, bytes, LEAF_SIZE, range, gathered);
            let (found, counted) = (leaf.entries.get(), gathered.entries - before);
            if u32::from(found) != counted && whole && !inode.unlinked {
                st.found.add(addr, inode.addr, IssueKind::LeafEntries { found, counted });
            }
            let link = leaf.next.get();
            if st.quick.is_some() && link == 0 && run.place == 1 {
                // All names of these hashes are known. Those of a chain wait: its other leaves come later.
                duplicates(st, inode, &mut gathered.hashes[hashes..]);
                gathered.hashes.truncate(hashes);
            } else {
                unsettled = st.entries.len();
            }
            st.settle(inode, unsettled);
            if link != 0 {
                if depth != DEPTH_MAX && run.place == 1 {
                    st.found.add(addr, inode.addr, IssueKind::LeafChain { depth });
                }
                if st.claim(inode, addr, link, BlockKind::Leaf) {
                    next.push((link, Run { place: run.place.saturating_add(1), ..run }));
                }
            }
            Ok(())
        })?;
        runs = next;
    }
    Ok(())
}

/// Checks a leaf's header against its place. The hashes that belong here: (shift, value of hash >> shift).
fn place(st: &mut State, inode: &mut Inode, addr: u64, leaf: &Leaf, depth: u16, run: &mut Run) -> Option<(u32, u32)> {
    let owner = inode.addr;
    let mut add = |kind| st.found.add(addr, owner, kind);
    if leaf.inode.get() != owner {
        add(IssueKind::LeafInode { found: leaf.inode.get() });
    }
    if leaf.dirent_format.get() != FORMAT_DIRENT {
        add(IssueKind::LeafFormat { found: leaf.dirent_format.get() });
    }
    let dist = leaf.dist.get();
    if dist != 0 && dist != run.place {
        add(IssueKind::LeafDistance { found: dist, expected: run.place });
    }
    let own = leaf.depth.get();
    if run.place == 1 {
        run.depth = own;
        if own > depth {
            add(IssueKind::LeafDepth { depth: own, expected: depth });
            inode.damaged = true;
            return None;
        }
        let length = 1u32 << (depth - own);
        if !run.cut && (run.length != length || !run.start.is_multiple_of(length)) {
            add(IssueKind::LeafRun { depth: own, start: run.start, length: run.length });
            inode.damaged = true;
            return None;
        }
    } else if own != run.depth {
        add(IssueKind::LeafDepth { depth: own, expected: run.depth });
    }
    // depth >= 5, so the shift is below 32 unless the leaf holds every hash.
    let own = u32::from(run.depth);
    (own > 0 && run.depth <= depth).then(|| (32 - own, run.start >> (u32::from(depth) - own)))
}

/// Takes note of the entries of one block. False when the chain of records is broken.
fn records(
    st: &mut State,
    inode: &mut Inode,
    block: u64,
    bytes: &[u8],
    start: usize,
    range: Option<(u32, u32)>,
    gathered: &mut Gathered,
) -> bool {
    let mut whole = true;
    for record in Dirents::new(bytes, start) {
        match record {
            Ok(dirent) => entry(st, inode, block, &dirent, range, gathered),
            Err(fault) => {
                let kind = match fault {
                    RecordFault::Record { offset, what } => IssueKind::DirentRecord { offset, what },
                    RecordFault::Sentinel { offset } => IssueKind::DirentSentinel { offset },
                };
                whole = false;
                inode.damaged = true;
                st.found.add(block, inode.addr, kind);
            }
        }
    }
    whole
}

fn entry(
    st: &mut State,
    inode: &mut Inode,
    block: u64,
    dirent: &RawDirent<'_>,
    range: Option<(u32, u32)>,
    gathered: &mut Gathered,
) {
    let owner = inode.addr;
    gathered.entries = gathered.entries.saturating_add(1);
    let expected = dir_hash(dirent.name).0;
    if dirent.hash != expected {
        let kind = IssueKind::DirentHash { name: lossy(dirent.name), found: dirent.hash, expected };
        st.found.add(block, owner, kind);
    } else if range.is_some_and(|(shift, value)| expected >> shift != value) {
        st.found.add(block, owner, IssueKind::DirentMisplaced { name: lossy(dirent.name), hash: expected });
    }
    let dot = match dirent.name {
        b"." => &mut inode.dot,
        b".." => &mut inode.dotdot,
        name => {
            if name.iter().any(|b| b"/\0".contains(b)) {
                st.found.add(block, owner, IssueKind::DirentName { name: lossy(name) });
            }
            if inode.unlinked {
                // One finding is enough: whatever it names has lost a name.
                if gathered.hashes.is_empty() {
                    inode.damaged = true;
                    st.found.add(block, owner, IssueKind::UnlinkedNotEmpty { name: lossy(name) });
                }
                gathered.hashes.push((expected, u32::MAX));
                return;
            }
            gathered.hashes.push((expected, st.entries.len() as u32));
            st.add_entry(gathered.index, block, dirent.inum, dirent.kind, name);
            return;
        }
    };
    let twice = dot.replace(dirent.inum).is_some();
    if twice {
        st.found.add(block, owner, IssueKind::DirentDuplicate { name: lossy(dirent.name) });
    }
    if dirent.kind != 4 {
        let kind = IssueKind::DirentType { name: lossy(dirent.name), found: dirent.kind, mode: inode.mode };
        st.found.add(block, owner, kind);
    }
}

/// Notes names that occur twice among these (hash, entry).
fn duplicates(st: &mut State, inode: &Inode, hashes: &mut [(u32, u32)]) {
    if inode.unlinked {
        return;
    }
    hashes.sort_unstable();
    for same in hashes.chunk_by(|a, b| a.0 == b.0).filter(|same| same.len() > 1) {
        let mut names: Vec<_> = same.iter().map(|&(_, e)| st.entries[e as usize]).collect();
        names.sort_by(|a, b| st.name(a).cmp(st.name(b)));
        for pair in names.windows(2) {
            if st.name(&pair[0]) == st.name(&pair[1]) {
                let name = st.name_lossy(&pair[1]);
                st.found.add(pair[1].block, inode.addr, IssueKind::DirentDuplicate { name });
            }
        }
    }
}
