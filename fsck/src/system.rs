//! The system files: which there must be, and what is in them (ondisk.md 2.6, 7).

use crate::blockmap::BlockKind;
use crate::disk::Disk;
use crate::issue::IssueKind;
use crate::journal::Journal;
use crate::reader;
use crate::report::CheckError;
use crate::state::{State, lossy};
use gfs2r::format::dinode::mode::{S_IFDIR, S_IFMT, S_IFREG};
use gfs2r::format::system::{QC_USER, QuotaChange, StatfsChange};
use gfs2r::format::{MAGIC, MetaHeader, MetaType, OnDisk};
use std::collections::{HashMap, HashSet};

/// A system file that was found: its place in the list of inodes.
type Names = HashMap<Vec<u8>, u32>;

/// Checks all system files.
pub(crate) fn run(disk: &Disk<'_>, st: &mut State, journals: &[Journal]) -> Result<(), CheckError> {
    for (which, addr) in [("master", st.master), ("root", st.root)] {
        // A block that is no dinode at all was reported as such.
        if st.inode(addr).is_none_or(|i| !i.is_dir() || i.unlinked) && !st.no_dinodes.iter().any(|&(at, _)| at == addr)
        {
            st.found.add(addr, None, IssueKind::SuperblockDirectory { which, found: addr });
        }
    }
    let Some(mut master) = names(st, st.master) else { return Ok(()) };
    let mut take = |st: &mut State, name: &str, kind| required(st, &mut master, st.master, name, kind);
    let jindex = take(st, "jindex", S_IFDIR);
    let per_node = take(st, "per_node", S_IFDIR);
    let inum = take(st, "inum", S_IFREG);
    let statfs = take(st, "statfs", S_IFREG);
    take(st, "rindex", S_IFREG);
    let quota = take(st, "quota", S_IFREG);
    unknown(st, &master);
    size(st, inum, "inum", 8, "8");
    size(st, statfs, "statfs", 24, "24");
    if let Some(quota) = quota.map(|q| st.inodes[q as usize].clone()).filter(|q| !q.size.is_multiple_of(88)) {
        st.found.add(quota.addr, quota.addr, IssueKind::QuotaSize { size: quota.size });
    }
    let journal_count = jindex.map_or(0, |jindex| check_jindex(st, jindex));
    st.stats.journals = u64::from(journal_count);
    let changes = match per_node {
        Some(per_node) => check_per_node(disk, st, per_node, journal_count)?,
        None => Vec::new(),
    };
    totals(disk, st, statfs, &changes, journals)
}

/// The names in a system directory; `None` when it cannot be relied on.
fn names(st: &State, addr: u64) -> Option<Names> {
    let &index = st.index.get(&addr)?;
    let dir = &st.inodes[index as usize];
    if !dir.is_dir() || dir.damaged {
        return None;
    }
    let own = st.entries.iter().filter(|e| e.parent == index);
    Some(own.map(|e| (st.name(e).to_vec(), *st.index.get(&e.addr).unwrap_or(&u32::MAX))).collect())
}

/// Takes a name out of `names`; reports it when it is missing or of another type.
fn required(st: &mut State, names: &mut Names, dir: u64, name: &str, kind: u32) -> Option<u32> {
    let Some(index) = names.remove(name.as_bytes()) else {
        st.found.add(dir, dir, IssueKind::SystemFileMissing { name: name.into() });
        return None;
    };
    let inode = st.inodes.get(index as usize)?;
    if inode.mode & S_IFMT == kind {
        return Some(index);
    }
    let (addr, mode) = (inode.addr, inode.mode);
    // An unknown type was reported as such.
    if !inode.damaged {
        st.found.add(addr, addr, IssueKind::SystemFileType { name: name.into(), mode });
    }
    None
}

fn unknown(st: &mut State, left: &Names) {
    let mut left: Vec<_> = left.iter().map(|(name, &index)| (lossy(name), index)).collect();
    left.sort();
    for (name, index) in left {
        let addr = st.inodes.get(index as usize).map(|i| i.addr);
        st.found.add(addr, addr, IssueKind::SystemFileUnknown { name });
    }
}

fn size(st: &mut State, index: Option<u32>, name: &str, wanted: u64, expected: &'static str) {
    let Some(inode) = index.map(|i| &st.inodes[i as usize]) else { return };
    let (addr, found) = (inode.addr, inode.size);
    if found != wanted {
        st.found.add(addr, addr, IssueKind::SystemFileSize { name: name.into(), found, expected });
    }
}

/// journal0, journal1 … without a gap, and nothing else. How many.
fn check_jindex(st: &mut State, jindex: u32) -> u32 {
    let addr = st.inodes[jindex as usize].addr;
    let Some(mut names) = names(st, addr) else { return 0 };
    let mut count = 0;
    while names.contains_key(format!("journal{count}").as_bytes()) {
        required(st, &mut names, addr, &format!("journal{count}"), S_IFREG);
        count += 1;
    }
    let numbered = |name: &[u8]| name.strip_prefix(b"journal").is_some_and(|n| n.iter().all(u8::is_ascii_digit));
    if count == 0 || names.keys().any(|name| numbered(name)) {
        // Nobody finds the journals behind the gap.
        st.found.add(addr, addr, IssueKind::SystemFileMissing { name: format!("journal{count}") });
        names.retain(|name, _| !numbered(name));
    }
    unknown(st, &names);
    count
}

/// Three files for each journal. The statfs_change files by jid.
fn check_per_node(
    disk: &Disk<'_>,
    st: &mut State,
    per_node: u32,
    journals: u32,
) -> Result<Vec<Option<u32>>, CheckError> {
    let addr = st.inodes[per_node as usize].addr;
    let Some(mut names) = names(st, addr) else { return Ok(Vec::new()) };
    let mut changes = Vec::new();
    for jid in 0..journals {
        let name = format!("inum_range{jid}");
        let range = required(st, &mut names, addr, &name, S_IFREG);
        size(st, range, &name, 16, "16");
        let name = format!("statfs_change{jid}");
        let change = required(st, &mut names, addr, &name, S_IFREG);
        size(st, change, &name, 24, "24");
        changes.push(change);
        let name = format!("quota_change{jid}");
        if let Some(index) = required(st, &mut names, addr, &name, S_IFREG) {
            quota_change(disk, st, index, name)?;
        }
    }
    unknown(st, &names);
    Ok(changes)
}

fn quota_change(disk: &Disk<'_>, st: &mut State, index: u32, name: String) -> Result<(), CheckError> {
    let inode = st.inodes[index as usize].clone();
    let (addr, bs) = (inode.addr, disk.bs.bytes() as u64);
    if !(1 << 20..=64 << 20).contains(&inode.size) || !inode.size.is_multiple_of(bs) {
        let kind = IssueKind::SystemFileSize { name, found: inode.size, expected: "whole blocks of 1 to 64 MiB" };
        st.found.add(addr, addr, kind);
        return Ok(());
    }
    if inode.damaged {
        return Ok(());
    }
    let count = inode.size / bs;
    // Blocks behind the end as well: all of them have a type.
    let map = match reader::map(disk, &disk.read(addr)?, 0..(64 << 20) / bs) {
        // Reported as what it is.
        Err(CheckError::Damaged { .. }) => return Ok(()),
        map => map?,
    };
    if let Some(at) = (0..count).find(|&n| map.get(n as usize).is_none_or(|&(number, _)| number != n)) {
        st.found.add(addr, addr, IssueKind::QuotaChangeHole { at });
    }
    let slots_per_block = (disk.bs.payload() / 16) as u64;
    let mut ids = HashSet::new();
    let mut items: Vec<(u64, u64)> = map.into_iter().map(|(number, at)| (at, number)).collect();
    disk.visit(&mut items, |at, number, block| {
        let header = MetaHeader::view(block);
        let kind = if header.magic.get() == MAGIC { header.kind.get() } else { 0 };
        if kind != MetaType::QuotaChange as u32 {
            let wanted = MetaType::QuotaChange as u32;
            st.found.add(at, addr, IssueKind::BlockType { kind: BlockKind::Data, wanted, found: kind });
            return Ok(());
        }
        for (i, slot) in (0..).zip(block[24..].chunks_exact(16)).map(|(i, bytes)| (i, QuotaChange::view(bytes))) {
            let slot_number = number * slots_per_block + i;
            let what = match (slot.change.get(), slot.flags.get()) {
                (0, _) => continue,
                (_, flags) if flags > QC_USER => "unknown flags",
                (_, flags) if !ids.insert((flags, slot.id.get())) => "a second slot for this id",
                _ => continue,
            };
            st.found.add(at, addr, IssueKind::QuotaChangeSlot { slot: slot_number, what });
        }
        Ok(())
    })
}

/// Master statfs and all deltas against the resource groups.
fn totals(
    disk: &Disk<'_>,
    st: &mut State,
    statfs: Option<u32>,
    changes: &[Option<u32>],
    journals: &[Journal],
) -> Result<(), CheckError> {
    let Some(statfs) = statfs else { return Ok(()) };
    let mut said = [0i128; 3];
    let mut add = |values: [i64; 3]| said.iter_mut().zip(values).for_each(|(sum, value)| *sum += i128::from(value));
    let Some(master) = counters(disk, st, statfs)? else { return Ok(()) };
    add(master);
    for (jid, &change) in (0u32..).zip(changes) {
        // Recovery adds what the newest log header says, and zeroes the file.
        let replayed = journals.iter().find(|j| j.jid == jid && j.is_dirty()).and_then(|j| j.head);
        match (replayed, change) {
            (Some(head), _) => add(head.local),
            (None, Some(change)) => match counters(disk, st, change)? {
                Some(values) => add(values),
                None => return Ok(()),
            },
            (None, None) => return Ok(()),
        }
    }
    let total: i128 = st.map.groups.iter().map(|g| i128::from(g.extent.data)).sum();
    let sum =
        |value: fn(&crate::blockmap::Group) -> u32| st.map.groups.iter().map(|g| i128::from(value(g))).sum::<i128>();
    let by_bitmap = [total, sum(|g| g.counts.free), sum(|g| g.counts.dinodes + g.counts.unlinked)];
    // A header that disagrees with its bitmap was reported, and is not worth a second finding here.
    let by_header = [total, sum(|g| g.header_free), sum(|g| g.header_dinodes)];
    if said != by_bitmap && said != by_header {
        let addr = st.inodes[statfs as usize].addr;
        let text = |v: [i128; 3]| format!("{}, {}, {}", v[0], v[1], v[2]);
        st.found.add(addr, addr, IssueKind::StatfsTotals { found: text(said), expected: text(by_bitmap) });
    }
    Ok(())
}

/// The three counters of a statfs file; `None` when it is not such a file (an issue says so).
fn counters(disk: &Disk<'_>, st: &State, index: u32) -> Result<Option<[i64; 3]>, CheckError> {
    let inode = &st.inodes[index as usize];
    if inode.size < 24 || inode.damaged {
        return Ok(None);
    }
    let bytes = match reader::read_range(disk, &disk.read(inode.addr)?, 0, 24) {
        Err(CheckError::Damaged { .. }) => return Ok(None),
        other => other?,
    };
    Ok((bytes.len() == 24).then(|| {
        let counters = StatfsChange::view(&bytes);
        [counters.total.get(), counters.free.get(), counters.dinodes.get()]
    }))
}
