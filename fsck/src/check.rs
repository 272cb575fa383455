//! The order of the passes.

use crate::blockmap::{BlockKind, BlockMap};
use crate::disk::Disk;
use crate::issue::IssueKind;
use crate::journal::Journal;
use crate::report::{CheckError, Findings, Journals, Options, Report};
use crate::state::State;
use crate::{
    initialize, pass1_metadata, pass1b_duplicates, pass2_directories, pass3_connectivity, pass4_links, pass5_bitmaps,
};
use crate::{quick, rgrps, system};
use gfs2r::device::BlockDevice;
use gfs2r::format::rgrp::RgrpExtent;
use gfs2r::format::{MAGIC, MetaHeader, MetaType, OnDisk, Superblock};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Checks a volume without writing to it.
///
/// # Errors
/// Only when the device fails or holds no superblock that can be worked with. Everything else is an [`Issue`](crate::Issue)
/// of the report.
pub fn check(device: &dyn BlockDevice, options: &Options) -> Result<Report, CheckError> {
    let mut found = Findings::new(options);
    let (mut disk, sb) = initialize::superblock(device, &mut found)?;
    if options.quick && found.is_empty() {
        match quick::check(&mut disk, &sb, Findings::new(options), options) {
            Ok(Some(report)) => return Ok(report),
            Err(error @ CheckError::Memory { .. }) => return Err(error),
            // The full check meets what is wrong again, and reports it.
            Ok(None) | Err(_) => disk.forget(None),
        }
    }
    let Examined { mut st, journals, complete } = examine(&mut disk, &sb, found, options, None)?;
    name(&mut st);
    numbers(&disk, &mut st, &journals);
    Ok(Report { issues: st.found.issues, more: st.found.more, complete, stats: st.stats })
}

/// What is known about a volume after all passes.
pub(crate) struct Examined {
    pub(crate) st: State,
    pub(crate) journals: Vec<Journal>,
    /// False when there was nothing to check against.
    pub(crate) complete: bool,
}

/// All passes. `extents`: where the resource groups are, if somebody knows better than rindex.
pub(crate) fn examine(
    disk: &mut Disk<'_>,
    sb: &Superblock,
    mut found: Findings,
    options: &Options,
    extents: Option<&[RgrpExtent]>,
) -> Result<Examined, CheckError> {
    let initialize::Found { journals, usable } = initialize::journals(disk, &mut found, sb, options.journals)?;
    let groups = match extents {
        Some(extents) => rgrps::groups(disk, &mut found, extents)?,
        None if usable => rgrps::read(disk, &mut found, sb.master_dir.addr.get())?,
        None => None,
    };
    let mut st = State {
        found,
        fs_format: sb.fs_format.get(),
        master: sb.master_dir.addr.get(),
        root: sb.root_dir.addr.get(),
        ..State::default()
    };
    let complete = groups.is_some();
    if let Some(groups) = groups {
        let dinodes = groups.iter().map(|g| u64::from(g.counts.dinodes + g.counts.unlinked)).sum();
        options.afford(quick::full_memory(disk.blocks, dinodes, dinodes))?;
        st.map = BlockMap::new(groups);
        passes(disk, &mut st, sb, &journals, options)?;
    }
    Ok(Examined { st, journals, complete })
}

fn passes(
    disk: &Disk<'_>,
    st: &mut State,
    sb: &Superblock,
    journals: &[Journal],
    options: &Options,
) -> Result<(), CheckError> {
    pass1_metadata::run(disk, st)?;
    let links = pass2_directories::run(disk, st)?;
    pass1b_duplicates::run(disk, st)?;
    pass3_connectivity::run(st, &links);
    pass4_links::run(st, &links);
    pass5_bitmaps::run(st);
    for (which, inum) in [("master", sb.master_dir), ("root", sb.root_dir)] {
        let expected = st.inode(inum.addr.get()).map(|i| i.formal);
        if let Some(expected) = expected.filter(|&e| e != inum.formal.get() && e != 0) {
            let kind = IssueKind::SuperblockFormal { which, found: inum.formal.get(), expected };
            st.found.add(inum.addr.get(), None, kind);
        }
    }
    // What recovery would add to statfs is part of the view only if that is the view after recovery.
    let recovered = if options.journals == Journals::Overlay { journals } else { &[] };
    system::run(disk, st, recovered)?;
    replayed_targets(disk, st, journals)
}

/// Replay must not touch what is never journaled, nor overwrite data with an old copy.
fn replayed_targets(disk: &Disk<'_>, st: &mut State, journals: &[Journal]) -> Result<(), CheckError> {
    for journal in journals {
        let (jid, inode) = (journal.jid, journal.inode);
        let mut targets: Vec<_> = journal.replayed.iter().map(|(&target, &metadata)| (target, metadata)).collect();
        targets.sort_unstable();
        for (target, metadata) in targets {
            let kind = match st.map.kind(target) {
                Some(BlockKind::Data) => IssueKind::JournalOverwritesData { jid },
                Some(BlockKind::JournaledData) if metadata => IssueKind::JournalOverwritesData { jid },
                None if !st.map.contains(target) && !st.map.is_bitmap(target) => {
                    IssueKind::JournalTarget { jid, at: 0, target }
                }
                _ => continue,
            };
            // A copy that says what the block says does no harm. (Blocks of quota_change are metadata in a file.)
            if !is_quota_change(disk, target)? && !disk.same_on_device(target)? {
                st.found.add(target, inode, kind);
            }
        }
    }
    Ok(())
}

fn is_quota_change(disk: &Disk<'_>, addr: u64) -> Result<bool, CheckError> {
    let bytes = disk.read(addr)?;
    let header = MetaHeader::view(&bytes);
    Ok(header.magic.get() == MAGIC && header.kind.get() == MetaType::QuotaChange as u32)
}

/// Gives the issues the paths of their inodes.
pub(crate) fn name(st: &mut State) {
    let mut issues = std::mem::take(&mut st.found.issues);
    for issue in &mut issues {
        issue.path = issue.inode.and_then(|addr| path(st, addr));
    }
    st.found.issues = issues;
}

fn path(st: &State, addr: u64) -> Option<PathBuf> {
    let mut names = Vec::new();
    let mut at = addr;
    // Deeper than this, or in a circle: no path.
    for _ in 0..4096 {
        if at == st.root || at == st.master {
            let mut path = PathBuf::from(if at == st.root { "/" } else { "<master>" });
            path.extend(names.into_iter().rev().map(OsStr::from_bytes));
            return Some(path);
        }
        let entry = st.entries.get(st.inode(at)?.entry? as usize)?;
        names.push(st.name(entry));
        at = st.inodes[entry.parent as usize].addr;
    }
    None
}

pub(crate) fn numbers(disk: &Disk<'_>, st: &mut State, journals: &[Journal]) {
    let sum =
        |value: fn(&crate::blockmap::Group) -> u32| st.map.groups.iter().map(|g| u64::from(value(g))).sum::<u64>();
    let (blocks, free) = (sum(|g| g.extent.data), sum(|g| g.counts.free));
    let (unlinked, dinodes) = (sum(|g| g.counts.unlinked), sum(|g| g.counts.dinodes + g.counts.unlinked));
    let stats = &mut st.stats;
    (stats.blocks, stats.free, stats.unlinked, stats.dinodes) = (blocks, free, unlinked, dinodes);
    stats.block_size = disk.bs.bytes() as u32;
    stats.rgrps = st.map.groups.len() as u64;
    stats.journals_dirty = journals.iter().filter(|j| j.is_dirty()).count() as u64;
    stats.replayed = journals.iter().map(|j| j.replayed.len() as u64).sum();
    stats.bytes_read = disk.bytes_read();
}
