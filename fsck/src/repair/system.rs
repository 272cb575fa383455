//! System files that are missing: found again among the inodes without a name, or made anew (ondisk.md 2.6, 7).

use crate::blockmap::BlockKind;
use crate::journal::Journal;
use crate::repair::apply::{Inserts, make_directory};
use crate::repair::build::{self, NewEntry, Pool};
use crate::repair::journals;
use crate::repair::plan::new_formal;
use crate::repair::work::Work;
use crate::report::CheckError;
use crate::state::{Inode, State};
use gfs2r::admin::fresh::rindex_entry;
use gfs2r::format::dinode::DINODE_SIZE;
use gfs2r::format::dinode::mode::{S_IFDIR, S_IFMT, S_IFREG};
use gfs2r::format::header::{FORMAT_QUOTA, FORMAT_RINDEX};
use gfs2r::format::{DiFlags, Dinode, DirentType, MetaHeader, MetaType, OnDisk, StatfsChange, get_u64, put_u64};
use std::collections::BTreeSet;

/// Finds or makes each file; true when one was found and not made.
pub(crate) fn create(
    work: &mut Work<'_>,
    st: &mut State,
    wanted: &[(u64, String)],
    inserts: &mut Inserts,
) -> Result<bool, CheckError> {
    let mut used = BTreeSet::new();
    for (dir, name) in wanted {
        let there = candidate(work, st, name, &used)?;
        let (addr, formal, is_dir) = match there {
            Some(inode) => (inode.addr, inode.formal, inode.is_dir()),
            None => match make(work, st, *dir, name)? {
                Some((addr, formal, is_dir)) => (addr, formal, is_dir),
                None => continue,
            },
        };
        used.insert(addr);
        let kind = if is_dir { DirentType::Dir } else { DirentType::Reg };
        let entry = NewEntry { name: name.clone().into_bytes(), formal, addr, kind: kind as u16 };
        inserts.entry(*dir).or_default().push(entry);
    }
    Ok(!wanted.is_empty())
}

/// An inode without a name that looks like this system file.
fn candidate(work: &Work<'_>, st: &State, name: &str, used: &BTreeSet<u64>) -> Result<Option<Inode>, CheckError> {
    let free = |i: &&Inode| i.entry.is_none() && !i.unlinked && !used.contains(&i.addr) && i.addr != st.master;
    let mut fitting = Vec::new();
    for inode in st.inodes.iter().filter(free).filter(|i| i.flags.has(DiFlags::SYSTEM)) {
        if fits(work, st, inode, name)? {
            fitting.push(inode);
        }
    }
    // mkfs numbers journals first, then what belongs to the nodes, the files of the master directory last.
    fitting.sort_by_key(|i| i.formal);
    let number = name.trim_start_matches("journal").parse::<u64>().ok();
    let exact = number.and_then(|n| fitting.iter().find(|i| i.formal == n + 1));
    let last = ["inum", "statfs", "rindex", "quota"].contains(&name);
    let first = if last { fitting.last() } else { fitting.first() };
    Ok(exact.or(first).map(|i| (**i).clone()))
}

fn fits(work: &Work<'_>, st: &State, inode: &Inode, name: &str) -> Result<bool, CheckError> {
    let is_dir = inode.mode & S_IFMT == S_IFDIR;
    if is_dir != ["jindex", "per_node"].contains(&name) {
        return Ok(false);
    }
    if is_dir {
        let wanted: &[u8] = if name == "jindex" { b"journal" } else { b"inum_range" };
        let own = st.entries.iter().filter(|e| st.inodes[e.parent as usize].addr == inode.addr);
        return Ok(own.map(|e| st.name(e)).any(|n| n.starts_with(wanted)));
    }
    let format = Dinode::view(&work.disk.read(inode.addr)?).payload_format.get();
    Ok(match name {
        "inum" => inode.size == 8,
        "statfs" => inode.size == 24,
        "rindex" => format == FORMAT_RINDEX,
        "quota" => format == FORMAT_QUOTA,
        _ if name.starts_with("inum_range") => inode.size == 16,
        _ if name.starts_with("statfs_change") => inode.size == 24,
        _ if name.starts_with("quota_change") => first_block(work, inode)? == MetaType::QuotaChange as u32,
        _ => is_journal(work, inode)?,
    })
}

/// Type of the first block of a file; 0 for none.
fn first_block(work: &Work<'_>, inode: &Inode) -> Result<u32, CheckError> {
    let dinode = work.disk.read(inode.addr)?;
    let map = crate::reader::map(&work.disk, &dinode, 0..1).unwrap_or_default();
    let Some(&(_, at)) = map.first().filter(|&&(_, at)| at < work.disk.blocks) else { return Ok(0) };
    Ok(MetaHeader::view_kind(&work.disk.read(at)?))
}

fn is_journal(work: &Work<'_>, inode: &Inode) -> Result<bool, CheckError> {
    let kind = first_block(work, inode)?;
    let log = [MetaType::LogHeader as u32, MetaType::LogDescriptor as u32, MetaType::LogContinuation as u32];
    Ok(inode.size >= 8 << 20 && log.contains(&kind))
}

/// Gives a journal without a name the next name in jindex. False when the inode is no journal.
pub(crate) fn attach_journal(
    work: &Work<'_>,
    st: &State,
    addr: u64,
    inserts: &mut Inserts,
) -> Result<bool, CheckError> {
    let Some(inode) = st.inode(addr).filter(|i| i.mode & S_IFMT == S_IFREG) else { return Ok(false) };
    let master = st.index.get(&st.master).copied();
    let jindex = st.entries.iter().find(|e| Some(e.parent) == master && st.name(e) == b"jindex");
    let Some(dir) = jindex.and_then(|e| st.inode(e.addr)).filter(|i| i.is_dir()) else { return Ok(false) };
    if !is_journal(work, inode)? {
        return Ok(false);
    }
    let there = |n: usize| {
        let name = format!("journal{n}").into_bytes();
        let own = |e: &&crate::state::Entry| st.inodes[e.parent as usize].addr == dir.addr;
        st.entries.iter().filter(own).any(|e| st.name(e) == name)
            || inserts.get(&dir.addr).is_some_and(|all| all.iter().any(|e| e.name == name))
    };
    let Some(n) = (0..4096).find(|&n| !there(n)) else { return Ok(false) };
    let entry =
        NewEntry { name: format!("journal{n}").into_bytes(), formal: inode.formal, addr, kind: DirentType::Reg as u16 };
    inserts.entry(dir.addr).or_default().push(entry);
    Ok(true)
}

/// Makes a system file: {address, formal number, whether it is a directory}. `None` without space.
fn make(work: &mut Work<'_>, st: &mut State, dir: u64, name: &str) -> Result<Option<(u64, u64, bool)>, CheckError> {
    let formal = new_formal(st) + work.made();
    let system = DiFlags::SYSTEM.with(DiFlags::JDATA);
    if ["jindex", "per_node"].contains(&name) {
        let made = make_directory(work, st, formal, S_IFDIR | 0o700, system, dir)?;
        return Ok(made.map(|addr| (addr, formal, true)));
    }
    let is_journal = name.strip_prefix("journal").is_some();
    if is_journal && !journals::is_room(work, st) {
        return Ok(None);
    }
    let Some(addr) = work.allocate(st, BlockKind::Dinode) else { return Ok(None) };
    let plain = is_journal || name.starts_with("quota_change");
    let flags = if plain { DiFlags::SYSTEM } else { system };
    let mut block = build::dinode(work.disk.bs.bytes(), addr, formal, S_IFREG | 0o600, flags.0);
    let done = match name {
        "inum" => stuffed(&mut block, &[formal + 1]),
        "statfs" => stuffed(&mut block, &[0; 3]),
        "rindex" => {
            Dinode::edit(&mut block).payload_format.set(FORMAT_RINDEX);
            let bytes = rindex(st);
            build::contents(work, st, &mut block, &bytes)
        }
        "quota" => {
            Dinode::edit(&mut block).payload_format.set(FORMAT_QUOTA);
            let mut bytes = [0; 176];
            put_u64(&mut bytes, 16, 1);
            put_u64(&mut bytes, 88 + 16, 1);
            build::contents(work, st, &mut block, &bytes)
        }
        _ if name.starts_with("inum_range") => stuffed(&mut block, &[0; 2]),
        _ if name.starts_with("statfs_change") => stuffed(&mut block, &[0; 3]),
        _ if name.starts_with("quota_change") => quota_change(work, st, &mut block),
        _ => journals::fill(work, st, addr, &mut block),
    };
    if done {
        work.put(addr, &block);
    }
    Ok(done.then_some((addr, formal, false)))
}

fn stuffed(block: &mut [u8], words: &[u64]) -> bool {
    Dinode::edit(block).size.set(8 * words.len() as u64);
    words.iter().enumerate().for_each(|(i, &word)| put_u64(block, DINODE_SIZE + 8 * i, word));
    true
}

fn quota_change(work: &mut Work<'_>, st: &mut State, block: &mut [u8]) -> bool {
    let bs = work.disk.bs;
    let mut data = Vec::new();
    for _ in 0..(1u64 << 20) >> bs.shift() {
        let Some(at) = work.allocate(st, BlockKind::Data) else { return false };
        let mut empty = vec![0; bs.bytes()];
        MetaHeader::init(&mut empty, MetaType::QuotaChange);
        work.put(at, &empty);
        data.push(at);
    }
    let Some(made) = build::tree(work, st, &mut Pool(Vec::new()), block, &data) else { return false };
    let di = Dinode::edit(block);
    di.size.set(1 << 20);
    di.blocks.set(1 + made + data.len() as u64);
    true
}

/// The bytes of rindex.
pub(crate) fn rindex(st: &State) -> Vec<u8> {
    st.map.groups.iter().flat_map(|group| rindex_entry(&group.extent)).collect()
}

/// Writes rindex as the resource groups are. False when there is no such file, or no space.
pub(crate) fn write_rindex(work: &mut Work<'_>, st: &mut State) -> Result<bool, CheckError> {
    let master = st.index.get(&st.master).copied();
    let entry = st.entries.iter().find(|e| Some(e.parent) == master && st.name(e) == b"rindex").copied();
    let Some(addr) = entry.and_then(|e| st.inode(e.addr)).filter(|i| i.mode & S_IFMT == S_IFREG).map(|i| i.addr) else {
        return Ok(false);
    };
    let mut block = work.disk.read(addr)?.to_vec();
    let bytes = rindex(st);
    let done = build::contents(work, st, &mut block, &bytes);
    if done {
        work.put(addr, &block);
        work.settle(st)?;
    }
    Ok(done)
}

/// Writes what the bitmaps say into the statfs file, and clears what the nodes would add to it.
pub(crate) fn statfs(work: &mut Work<'_>, st: &State) -> Result<(), CheckError> {
    let mut total = [0i64; 3];
    for group in &st.map.groups {
        let counts = crate::blockmap::count(&group.bits);
        let add = [group.extent.data, counts.free, counts.dinodes + counts.unlinked];
        total.iter_mut().zip(add).for_each(|(sum, n)| *sum += i64::from(n));
    }
    let entries: Vec<_> = st.entries.clone();
    for e in &entries {
        let dir = &st.inodes[e.parent as usize];
        let name = st.name(e);
        let is_master = dir.addr == st.master && name == b"statfs";
        let is_change = dir.flags.has(DiFlags::SYSTEM) && name.starts_with(b"statfs_change");
        if !is_master && !is_change {
            continue;
        }
        work.edit(e.addr, |block| {
            let fits = MetaHeader::view_kind(block) == MetaType::Dinode as u32 && get_u64(block, 32) == e.addr;
            if fits && Dinode::view(block).height.get() == 0 {
                let values = StatfsChange::edit(&mut block[DINODE_SIZE..]);
                let [all, free, dinodes] = if is_master { total } else { [0; 3] };
                values.total.set(all);
                values.free.set(free);
                values.dinodes.set(dinodes);
            }
        })?;
    }
    Ok(())
}

/// What recovery of journals does to the counters: the deltas of the newest log headers are added, the files cleared.
pub(crate) fn statfs_after_replay(work: &mut Work<'_>, journals: &[Journal]) -> Result<(), CheckError> {
    let dirty: Vec<&Journal> = journals.iter().filter(|j| j.is_dirty()).collect();
    let find = |work: &Work<'_>, dir: u64, name: &str| -> Option<u64> {
        let dir = crate::reader::dinode(&work.disk, dir).ok()?;
        crate::reader::lookup(&work.disk, &dir, name.as_bytes()).ok()?.map(|e| e.addr)
    };
    let master = work.sb.master_dir.addr.get();
    // What cannot be found is a finding of the rounds, and so are totals that are wrong then.
    let (Some(statfs), Some(per_node)) = (find(work, master, "statfs"), find(work, master, "per_node")) else {
        return Ok(());
    };
    let is_file = |work: &Work<'_>, at: u64| {
        crate::reader::dinode(&work.disk, at).is_ok_and(|d| Dinode::view(&d).height.get() == 0)
    };
    for journal in dirty {
        let Some(change) = find(work, per_node, &format!("statfs_change{}", journal.jid)) else { continue };
        let Some(head) = journal.head.filter(|_| is_file(work, statfs) && is_file(work, change)) else { continue };
        work.edit(statfs, |block| {
            let values = StatfsChange::edit(&mut block[DINODE_SIZE..]);
            values.total.set(values.total.get().wrapping_add(head.local[0]));
            values.free.set(values.free.get().wrapping_add(head.local[1]));
            values.dinodes.set(values.dinodes.get().wrapping_add(head.local[2]));
        })?;
        work.edit(change, |block| block[DINODE_SIZE..DINODE_SIZE + 24].fill(0))?;
    }
    Ok(())
}
