//! Pass 2: whom the directory entries name (ondisk.md 12.5). The inside of each directory was checked in pass 1.

use crate::disk::Disk;
use crate::issue::IssueKind;
use crate::pass1_metadata;
use crate::report::CheckError;
use crate::state::{Entry, Inode, State};
use gfs2r::format::dinode::mode::S_IFMT;
use gfs2r::format::{Dinode, MAGIC, MetaHeader, MetaType, OnDisk};
use gfs2r::ids::BlkState;

/// Follows all entries: counts what they name, remembers the first name of each inode.
pub(crate) fn run(disk: &Disk<'_>, st: &mut State) -> Result<Links, CheckError> {
    strays(disk, st)?;
    let mut links = Links { stale: vec![0; st.inodes.len()], names_lost: false };
    for at in 0..st.entries.len() {
        follow(st, at, &mut links);
    }
    for at in 0..st.inodes.len() {
        dots(st, at);
    }
    let no_top = [st.root, st.master].iter().any(|&top| st.inode(top).is_none_or(|inode| !inode.is_dir()));
    let damaged = st.inodes.iter().any(|inode| inode.is_dir() && inode.damaged);
    links.names_lost = no_top || damaged || !st.no_dinodes.is_empty();
    Ok(links)
}

/// What pass 2 leaves to passes 3 and 4.
pub(crate) struct Links {
    /// Per inode: entries that name another life of it. They may or may not be meant for it.
    pub(crate) stale: Vec<u32>,
    /// Some names could not be read, so that a missing name proves nothing.
    pub(crate) names_lost: bool,
}

/// Finds dinodes that entries name and the bitmap denies: better one finding about the bitmap than one for each block of
/// the inode. An inode that was deleted has no links left and is not mistaken for one.
fn strays(disk: &Disk<'_>, st: &mut State) -> Result<(), CheckError> {
    let mut at = 0;
    while let Some(&entry) = st.entries.get(at) {
        at += 1;
        let denied = matches!(st.map.state(entry.addr), Some(BlkState::Free | BlkState::Used));
        if !denied || st.index.contains_key(&entry.addr) || st.map.kind(entry.addr).is_some() {
            continue;
        }
        let bytes = disk.read(entry.addr)?;
        if is_meant(&bytes, &entry) {
            st.strays.push(entry.addr);
            pass1_metadata::dinode(disk, st, entry.addr, false, &bytes)?;
        }
    }
    Ok(())
}

fn is_meant(bytes: &[u8], entry: &Entry) -> bool {
    let (header, di) = (MetaHeader::view(bytes), Dinode::view(bytes));
    header.magic.get() == MAGIC
        && header.kind.get() == MetaType::Dinode as u32
        && di.num.addr.get() == entry.addr
        && di.num.formal.get() == entry.formal
        && di.nlink.get() > 0
        && di.mode.get() >> 12 == u32::from(entry.kind)
}

fn follow(st: &mut State, at: usize, links: &mut Links) {
    let entry = st.entries[at];
    let owner = st.inodes[entry.parent as usize].addr;
    let target = entry.addr;
    let Some(&index) = st.index.get(&target) else {
        // A dinode that cannot be recognised is a finding of its own.
        if st.no_dinodes.iter().any(|&(addr, _)| addr == target) && st.map.kind(target).is_none() {
            return;
        }
        let kind = IssueKind::DirentDangling { name: st.name_lossy(&entry), target };
        st.found.add(entry.block, owner, kind);
        return;
    };
    let inode = &st.inodes[index as usize];
    if inode.unlinked {
        // The parent's link count may well be right, and the bitmap wrong.
        let is_dir = inode.is_dir();
        st.inodes[entry.parent as usize].subdirs += u32::from(is_dir);
        let kind = IssueKind::DirentUnlinked { name: st.name_lossy(&entry), target };
        st.found.add(entry.block, owner, kind);
        return;
    }
    if inode.formal != entry.formal {
        // A formal number of 0 is a finding of its own.
        if inode.formal != 0 {
            let kind = IssueKind::DirentStale {
                name: st.name_lossy(&entry),
                target,
                found: entry.formal,
                expected: inode.formal,
            };
            st.found.add(entry.block, owner, kind);
        }
        links.stale[index as usize] += 1;
    }
    let type_known = !inode.damaged || gfs2r::format::DirentType::from_mode(inode.mode).is_some();
    if (inode.mode & S_IFMT) >> 12 != u32::from(entry.kind) && type_known {
        let kind = IssueKind::DirentType { name: st.name_lossy(&entry), found: entry.kind, mode: inode.mode };
        st.found.add(entry.block, owner, kind);
    }
    link(st, at, index, links);
}

/// Counts a link, unless it names another life.
fn link(st: &mut State, at: usize, index: u32, links: &Links) {
    let entry = st.entries[at];
    let owner = st.inodes[entry.parent as usize].addr;
    let is_stale = st.inodes[index as usize].formal != entry.formal;
    let inode = &mut st.inodes[index as usize];
    let (is_dir, is_top) = (inode.is_dir(), inode.addr == st.root || inode.addr == st.master);
    if !is_stale {
        inode.refs = inode.refs.saturating_add(1);
    }
    let twice = is_dir && (is_top || inode.entry.is_some());
    if inode.entry.is_none() && (!is_stale || links.stale[index as usize] > 0) {
        inode.entry = u32::try_from(at).ok();
    }
    if is_dir {
        st.inodes[entry.parent as usize].subdirs += 1;
    }
    if twice {
        let kind = IssueKind::DirectoryLinkedTwice { name: st.name_lossy(&entry) };
        st.found.add(entry.block, owner, kind);
    }
}

/// `.` names the directory itself; both dots are there.
fn dots(st: &mut State, at: usize) {
    let inode = &st.inodes[at];
    // What cannot be read is a finding already, and a directory that is being deleted may have lost them.
    if !inode.is_dir() || inode.damaged || inode.unlinked {
        return;
    }
    let addr = inode.addr;
    let missing = [(".", inode.dot), ("..", inode.dotdot)];
    let wrong = inode.dot.filter(|&dot| !names(dot, inode));
    for (name, _) in missing.iter().filter(|(_, found)| found.is_none()) {
        st.found.add(addr, addr, IssueKind::DotMissing { name });
    }
    if let Some((_, found)) = wrong {
        st.found.add(addr, addr, IssueKind::DotWrong { found });
    }
}

/// True when {formal, addr} names this inode (whose formal number may be a finding of its own).
pub(crate) fn names((formal, addr): (u64, u64), inode: &Inode) -> bool {
    addr == inode.addr && (formal == inode.formal || inode.formal == 0)
}
