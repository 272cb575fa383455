//! The quick check: proves in little memory that there is nothing to find, or gives up.
//!
//! Passes 1 and system run as they are; what they gather about blocks, inodes and entries is not kept but balanced:
//!
//! * A block that is claimed is cleared in the bitmap (in memory). A claim on a block that is not USED refutes, and so does
//!   a block that is still USED at the end. Two bits a block.
//! * An inode has a slot, found by counting the dinodes before it in the bitmap: formal number, type, whether it is a system
//!   file, and its link count less the entries that named it, which must come to nothing. Twelve bytes an inode, whether
//!   the entries or the dinode are met first. That an entry and its target agree about being below the master directory
//!   carries that property down the tree.
//! * Directories are few: each keeps `..` and who names it, so that the way up can be walked.
//! * Names are compared within a leaf, where all names of one hash are, and forgotten. Those of chains of leaves are kept to
//!   the end of their directory.
//! * What directories and chains take is not known beforehand: it refutes when it passes what is left of the memory.
//!
//! Whatever refutes is not reported from here: the caller runs the full check, which finds it again and says what it is.
//! So this must refuse whenever the full check has a finding; refusing without need costs only time.

use crate::blockmap::{BlockKind, BlockMap, dinodes_in};
use crate::check::numbers;
use crate::disk::Disk;
use crate::pass2_directories::names;
use crate::report::{CheckError, Findings, Options, Report};
use crate::state::{Entry, Inode, State};
use crate::{initialize, pass1_metadata, rgrps, system};
use gfs2r::format::dinode::mode::S_IFDIR;
use gfs2r::format::{DiFlags, Superblock};
use gfs2r::ids::BlkState;

/// Blocks between two remembered counts of dinodes.
const STRIDE: u32 = 256;
/// Entries of system directories that are kept for the checks of system files.
const SYSTEM_ENTRIES_MAX: usize = 100_000;
/// The type of a directory in an entry.
const DIR: u16 = (S_IFDIR >> 12) as u16;
/// No directory.
const NOBODY: u32 = u32::MAX;
/// Buffers, and what else does not grow with the volume, in bytes.
const FIXED: u64 = 24 << 20;

/// What is known of one inode.
#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    /// [`key`] in two halves, zero as long as nobody has met it.
    key: [u32; 2],
    /// Link count less entries, modulo 2^32.
    balance: u32,
}

#[derive(Clone, Copy, Debug)]
struct Dir {
    slot: u32,
    /// The directory (index) with the entry that names it.
    parent: u32,
    inum: (u64, u64),
    dotdot: Option<(u64, u64)>,
}

/// What the quick check keeps.
#[derive(Debug, Default)]
pub(crate) struct Quick {
    /// Dinodes before each [`STRIDE`] blocks, all groups one after the other.
    samples: Vec<u32>,
    /// Where each group begins in `samples`.
    starts: Vec<usize>,
    slots: Vec<Slot>,
    dirs: Vec<Dir>,
    /// (slot of a directory, index of the directory whose entry names it).
    children: Vec<(u32, u32)>,
    /// Entries that name directories in the directory that is being read.
    subdirs: u32,
    /// Entries of [`State::entries`] that are settled.
    settled: usize,
    entries: u64,
    /// Bytes that directories and kept entries may take.
    spare: u64,
    refuted: bool,
}

/// Type, "is a system file" and formal number in one; `None` when they do not fit.
fn key(kind: u16, system: bool, formal: u64) -> Option<u64> {
    let fits = (1..16).contains(&kind) && formal >> 59 == 0;
    fits.then(|| u64::from(kind) << 60 | u64::from(system) << 59 | formal)
}

impl Quick {
    fn new(map: &BlockMap, spare: u64) -> Self {
        let mut quick = Self { spare, ..Self::default() };
        let mut before = 0u32;
        for group in &map.groups {
            quick.starts.push(quick.samples.len());
            for bytes in group.bits.chunks(STRIDE as usize / 4) {
                quick.samples.push(before);
                before = before.saturating_add(dinodes_in(bytes));
            }
        }
        quick.refuted = before == u32::MAX;
        quick.slots = vec![Slot::default(); if quick.refuted { 0 } else { before as usize }];
        quick
    }

    /// The slot of the dinode at this address.
    fn slot(&self, map: &BlockMap, addr: u64) -> Option<u32> {
        let (at, index) = map.locate(addr)?;
        let group = &map.groups[at];
        if group.state(index) != BlkState::Dinode {
            return None;
        }
        let first = (index / STRIDE * (STRIDE / 4)) as usize;
        let byte = (index / 4) as usize;
        let last = group.bits[byte] & ((1 << (2 * (index % 4))) - 1);
        let sample = self.samples[self.starts[at] + (index / STRIDE) as usize];
        Some(sample + dinodes_in(&group.bits[first..byte]) + dinodes_in(&[last]))
    }

    /// An inode is met, by itself (`links` more are wanted) or by an entry (one less).
    fn meet(&mut self, slot: Option<u32>, key: Option<u64>, links: u32) {
        let (Some(slot), Some(key)) = (slot.and_then(|s| self.slots.get_mut(s as usize)), key) else {
            self.refuted = true;
            return;
        };
        let key = [(key >> 32) as u32, key as u32];
        if slot.key == [0, 0] {
            slot.key = key;
        }
        self.refuted |= slot.key != key;
        slot.balance = slot.balance.wrapping_add(links);
    }

    /// Gives each directory its parent. False when one is named by none, or not by exactly one.
    fn parents(&mut self) -> bool {
        for &(slot, parent) in &self.children {
            let Ok(at) = self.dirs.binary_search_by_key(&slot, |dir| dir.slot) else { return false };
            if self.dirs[at].parent != NOBODY {
                return false;
            }
            self.dirs[at].parent = parent;
        }
        true
    }

    /// All directories lead up to one of these two, and `..` is the way.
    fn all_reached(&self, tops: [u64; 2]) -> bool {
        let mut reached = vec![false; self.dirs.len()];
        let mut path = Vec::new();
        for from in 0..self.dirs.len() {
            let mut at = from;
            while !reached[at] {
                let dir = &self.dirs[at];
                let is_top = tops.contains(&dir.inum.1);
                let parent = if is_top { at } else { dir.parent as usize };
                // Longer than there are directories is a circle.
                if path.len() > self.dirs.len() || self.dirs.get(parent).map(|parent| parent.inum) != dir.dotdot {
                    return false;
                }
                path.push(at);
                if is_top {
                    break;
                }
                at = parent;
            }
            path.drain(..).for_each(|at| reached[at] = true);
        }
        true
    }
}

/// The full check's memory at most, for its inodes and blocks, in bytes.
pub(crate) fn full_memory(blocks: u64, dinodes: u64, entries: u64) -> u64 {
    // Bitmaps and kinds; inodes with their index; entries with names of thirty bytes. Lists double as they grow.
    FIXED + blocks / 4 * 3 + dinodes.saturating_mul(2 * 136) + entries.saturating_mul(2 * 70)
}

/// The quick check's memory, in bytes, without what directories and chains of leaves take.
fn memory(blocks: u64, dinodes: u64) -> u64 {
    FIXED + blocks / 4 + blocks / 64 + dinodes.saturating_mul(12)
}

/// The report on a healthy volume; `None` when it is not, or when this cannot tell.
///
/// # Errors
/// When the device fails, or the volume does not fit [`Options::memory`].
pub(crate) fn check(
    disk: &mut Disk<'_>,
    sb: &Superblock,
    mut found: Findings,
    options: &Options,
) -> Result<Option<Report>, CheckError> {
    let initialize::Found { journals, usable } = initialize::journals(disk, &mut found, sb, options.journals)?;
    if !usable || !found.is_empty() || journals.iter().any(|j| j.is_dirty() || !j.replayed.is_empty()) {
        return Ok(None);
    }
    options.afford(memory(disk.blocks, 0))?;
    let Some(groups) = rgrps::read(disk, &mut found, sb.master_dir.addr.get())? else { return Ok(None) };
    if !found.is_empty() || groups.iter().any(|g| g.counts.unlinked > 0) {
        return Ok(None);
    }
    let needed = memory(disk.blocks, groups.iter().map(|g| u64::from(g.counts.dinodes)).sum());
    options.afford(needed)?;
    let map = BlockMap::new(groups);
    let quick = Some(Quick::new(&map, options.memory.map_or(u64::MAX, |allowed| allowed - needed)));
    let (master, root) = (sb.master_dir.addr.get(), sb.root_dir.addr.get());
    let mut st = State { map, quick, found, fs_format: sb.fs_format.get(), master, root, ..State::default() };
    pass1_metadata::run(disk, &mut st)?;
    if !proven(&mut st, sb) {
        return Ok(None);
    }
    system::run(disk, &mut st, &[])?;
    if !st.found.is_empty() {
        return Ok(None);
    }
    numbers(disk, &mut st, &journals);
    Ok(Some(Report { complete: true, stats: st.stats, ..Report::default() }))
}

/// True when nothing in pass 1 was odd and everything balances.
fn proven(st: &mut State, sb: &Superblock) -> bool {
    let Some(mut quick) = st.quick.take() else { return false };
    let lists = st.found.is_empty() && st.no_dinodes.is_empty() && st.taken.is_empty();
    if quick.refuted || !lists || quick.entries > u64::from(u32::MAX) {
        return false;
    }
    let leaked = |byte: u8| byte & 0x55 & !(byte >> 1) != 0;
    if st.map.groups.iter().any(|g| g.bits.iter().any(|&byte| leaked(byte))) {
        return false;
    }
    if quick.slots.iter().any(|slot| slot.key == [0, 0] || slot.balance != 0) || !quick.parents() {
        return false;
    }
    let top = |addr: u64, formal: u64, system: bool| {
        let kept = st.inode(addr);
        kept.is_some_and(|i| i.is_dir() && i.formal == formal && i.flags.has(DiFlags::SYSTEM) == system)
    };
    top(st.root, sb.root_dir.formal.get(), false)
        && top(st.master, sb.master_dir.formal.get(), true)
        && quick.all_reached([st.root, st.master])
}

impl State {
    /// True when something was found that the full check has to look at.
    pub(crate) fn is_refuted(&self) -> bool {
        self.quick.as_ref().is_some_and(|quick| quick.refuted || !self.found.is_empty() || !self.no_dinodes.is_empty())
    }

    /// [`State::claim`] of the quick check.
    pub(crate) fn claim_quickly(&mut self, inode: &mut Inode, addr: u64, kind: BlockKind) -> bool {
        let is_dinode = kind == BlockKind::Dinode;
        let wanted = if is_dinode { BlkState::Dinode } else { BlkState::Used };
        let granted = match self.map.locate(addr) {
            Some((at, index)) if self.map.groups[at].state(index) == wanted => {
                if !is_dinode {
                    self.map.groups[at].clear(index);
                }
                true
            }
            _ => false,
        };
        inode.counted += u64::from(granted);
        inode.damaged |= !granted;
        self.refute(!granted);
        granted
    }

    fn refute(&mut self, if_so: bool) {
        if let Some(quick) = &mut self.quick {
            quick.refuted |= if_so;
        }
    }

    /// Balances the entries of `dir` from this one on, unless they were before, and forgets them.
    pub(crate) fn settle(&mut self, dir: &Inode, from: usize) {
        let Some(quick) = &mut self.quick else { return };
        let kept = 2 * (self.entries.len() * size_of::<Entry>() + self.names.len());
        let dirs = 2 * quick.dirs.len() * (size_of::<Dir>() + size_of::<(u32, u32)>());
        quick.refuted |= (kept + dirs) as u64 > quick.spare;
        let from = from.max(quick.settled);
        let system = dir.flags.has(DiFlags::SYSTEM);
        if system && from > quick.settled {
            // They are kept in any case: together with those before them.
            return;
        }
        for entry in &self.entries[from..] {
            let slot = quick.slot(&self.map, entry.addr);
            // One link less.
            quick.meet(slot, key(entry.kind, system, entry.formal), u32::MAX);
            if entry.kind == DIR {
                quick.subdirs = quick.subdirs.saturating_add(1);
                quick.children.extend(slot.map(|slot| (slot, quick.dirs.len() as u32)));
            }
        }
        quick.entries += (self.entries.len() - from) as u64;
        if system {
            quick.settled = self.entries.len();
            quick.refuted |= quick.settled > SYSTEM_ENTRIES_MAX;
        } else {
            self.forget_entries(from);
        }
    }

    /// [`State::add_inode`] of the quick check: only what the checks of system files need is kept.
    pub(crate) fn add_inode_quickly(&mut self, inode: Inode) -> Option<Inode> {
        let Some(quick) = &mut self.quick else { return Some(inode) };
        let system = inode.flags.has(DiFlags::SYSTEM);
        let is_top = [self.root, self.master].contains(&inode.addr);
        let slot = quick.slot(&self.map, inode.addr);
        let mut wrong = inode.unlinked || inode.damaged || inode.nlink == 0;
        let mut links = inode.nlink;
        if inode.is_dir() {
            links = u32::from(!is_top);
            wrong |= inode.nlink != std::mem::take(&mut quick.subdirs).saturating_add(2);
            wrong |= inode.dot.is_none_or(|dot| !names(dot, &inode)) || inode.dotdot.is_none();
            let inum = (inode.formal, inode.addr);
            quick.dirs.extend(slot.map(|slot| Dir { slot, parent: NOBODY, inum, dotdot: inode.dotdot }));
        }
        quick.meet(slot, key((inode.mode >> 12) as u16, system, inode.formal), links);
        quick.refuted |= wrong;
        (system || is_top).then_some(inode)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blockmap::Group;
    use gfs2r::format::rgrp::RgrpExtent;
    use gfs2r::ids::BlockAddr;

    #[test]
    fn slots_count_the_dinodes_before() {
        let block = |n| BlockAddr::new(n).expect("not 0");
        let group = |at: u64, bits: Vec<u8>| {
            let data = bits.len() as u32 * 4;
            Group::new(RgrpExtent { addr: block(at), length: 1, data0: block(at + 1), data, bitbytes: data / 4 }, bits)
        };
        let mut bits = vec![0b1101_0011; 100];
        bits[70] = 0b0000_1100;
        let map = BlockMap::new(vec![group(17, bits), group(1000, vec![0xff; 4])]);
        let quick = Quick::new(&map, 0);
        assert_eq!(quick.slots.len(), 99 * 2 + 1 + 16);
        let all: Vec<u64> = map.groups.iter().flat_map(|g| g.dinodes()).map(|(addr, _)| addr).collect();
        let slots: Vec<_> = all.iter().map(|&addr| quick.slot(&map, addr)).collect();
        assert_eq!(slots, (0..quick.slots.len() as u32).map(Some).collect::<Vec<_>>());
        assert_eq!(quick.slot(&map, 18 + 1), None);
    }

    #[test]
    fn a_link_too_many_and_another_life_are_noticed() {
        let mut quick = Quick { slots: vec![Slot::default(); 2], ..Quick::default() };
        quick.meet(Some(0), key(8, false, 7), u32::MAX);
        quick.meet(Some(0), key(8, false, 7), 2);
        assert!(!quick.refuted && quick.slots[0].balance == 1);
        quick.meet(Some(0), key(8, true, 7), u32::MAX);
        assert!(quick.refuted);
        assert_eq!((key(0, false, 7), key(16, false, 7), key(8, false, 1 << 59)), (None, None, None));
    }

    #[test]
    fn circles_are_not_reached() {
        let dir = |addr: u64, parent: u32, up: u64| Dir { slot: 0, parent, inum: (addr, addr), dotdot: Some((up, up)) };
        let tops = [1, 2];
        let mut quick = Quick { dirs: vec![dir(1, NOBODY, 1), dir(2, NOBODY, 2), dir(3, 0, 1)], ..Quick::default() };
        quick.dirs.push(dir(4, 2, 3));
        assert!(quick.all_reached(tops));
        (quick.dirs[2].parent, quick.dirs[2].dotdot) = (3, Some((4, 4)));
        assert!(!quick.all_reached(tops));
        quick.dirs[2] = dir(3, NOBODY, 1);
        assert!(!quick.all_reached(tops));
    }
}
