//! Carries a round's plan out, in memory.

use crate::blockmap::BlockKind;
use crate::repair::build::{self, NewEntry, Pool};
use crate::repair::plan::{Plan, Unlink, find, naming, new_formal};
use crate::repair::salvage::{self, Orphans};
use crate::repair::work::Work;
use crate::repair::{journals, shared, superblock, system, tree, xattr};
use crate::report::CheckError;
use crate::state::State;
use gfs2r::format::dinode::DINODE_SIZE;
use gfs2r::format::dinode::mode::{S_IFDIR, S_IFMT};
use gfs2r::format::{DiFlags, Dinode, Dirent, DirentType, Leaf, MetaHeader, MetaType, OnDisk};
use gfs2r::ids::BlkState;
use std::collections::{BTreeMap, BTreeSet};

/// Entries to be added, by directory.
pub(crate) type Inserts = BTreeMap<u64, Vec<NewEntry>>;

/// Everything in the plan, in an order in which nothing pulls the rug from under what follows.
pub(crate) fn apply(work: &mut Work<'_>, st: &mut State, mut plan: Plan) -> Result<(), CheckError> {
    superblock::apply(work, st, &plan.superblock);
    if !plan.tops.is_empty() {
        // Which directories are the top ones decides about all names: the rest can wait for the next round.
        let Plan { tops, states, .. } = plan;
        plan = Plan { tops, states, ..Plan::default() };
    }
    for (block, edit) in std::mem::take(&mut plan.edits) {
        work.edit(block, edit)?;
    }
    for (block, state) in std::mem::take(&mut plan.states) {
        work.set_state(st, block, state);
    }
    shared::decide(work, st, &mut plan)?;
    for (inode, mut turns) in std::mem::take(&mut plan.turns) {
        tree::turn(work, inode, &mut turns)?;
    }
    for (inode, fix) in std::mem::take(&mut plan.xattrs) {
        xattr::apply(work, st, inode, fix)?;
    }
    for (jid, inode) in std::mem::take(&mut plan.journals) {
        if !journals::mend(work, st, jid, inode)? {
            plan.remove.insert(inode);
        }
    }
    for top in std::mem::take(&mut plan.tops) {
        if superblock::top(work, st, top)? {
            plan.rebuild.insert(top);
        }
    }
    for unlink in std::mem::take(&mut plan.unlink) {
        remove_entry(work, &unlink)?;
    }
    let mut inserts = Inserts::new();
    let found_some = system::create(work, st, &plan.system, &mut inserts)?;
    attach(work, st, &plan.attach, found_some, &mut inserts)?;
    let rebuild: BTreeSet<u64> = plan.rebuild.iter().chain(inserts.keys()).copied().collect();
    if !rebuild.is_empty() {
        let orphans = salvage::orphans(work, st, &plan.rebuild)?;
        for dir in rebuild.difference(&plan.remove) {
            self::rebuild(work, st, *dir, &orphans, inserts.remove(dir).unwrap_or_default())?;
        }
    }
    for inode in plan.remove {
        remove_inode(work, st, inode)?;
    }
    for (at, next) in plan.generations {
        if let Some(g) = st.map.groups.iter().position(|g| g.extent.addr.get() == at) {
            st.map.groups[g].igeneration = next;
            work.touch(g);
        }
    }
    for at in plan.groups {
        if let Some(g) = st.map.groups.iter().position(|g| g.extent.addr.get() == at) {
            work.touch(g);
        }
    }
    work.settle(st)?;
    if plan.statfs {
        system::statfs(work, st)?;
    }
    Ok(())
}

/// The inode is no more: its block is free and does not look like a dinode. Its other blocks are found to be nobody's later.
fn remove_inode(work: &mut Work<'_>, st: &mut State, addr: u64) -> Result<(), CheckError> {
    work.set_state(st, addr, BlkState::Free);
    work.edit(addr, |block| block[..size_of::<MetaHeader>()].fill(0))
}

/// Takes an entry out of its block (ondisk.md 5.7); counts follow.
fn remove_entry(work: &mut Work<'_>, unlink: &Unlink) -> Result<(), CheckError> {
    let Unlink { block, dir, target, name } = unlink;
    let is_leaf = block != dir;
    let start = if is_leaf { 104 } else { DINODE_SIZE };
    let mut gone = false;
    work.edit(*block, |bytes| {
        let Some(at) = find(bytes, start, name, *target) else { return };
        let (mut before, mut next) = (start, start);
        while next < at {
            before = next;
            next += usize::from(Dirent::view(&bytes[next..]).rec_len.get()).max(8);
        }
        if next != at {
            return;
        }
        if at == start {
            let dirent = Dirent::edit(&mut bytes[at..]);
            dirent.inum.formal.set(0);
            dirent.inum.addr.set(0);
        } else {
            let len = Dirent::view(&bytes[at..]).rec_len.get();
            let dirent = Dirent::edit(&mut bytes[before..]);
            dirent.rec_len.set(dirent.rec_len.get().saturating_add(len));
        }
        gone = true;
        if is_leaf {
            let leaf = Leaf::edit(bytes);
            leaf.entries.set(leaf.entries.get().saturating_sub(1));
        }
    })?;
    if gone && *dir != 0 {
        work.edit(*dir, |bytes| {
            let di = Dinode::edit(bytes);
            di.entries.set(di.entries.get().saturating_sub(1));
        })?;
    }
    Ok(())
}

/// Writes a directory anew with what is left of it and these entries more.
fn rebuild(
    work: &mut Work<'_>,
    st: &mut State,
    dir: u64,
    orphans: &Orphans,
    extra: Vec<NewEntry>,
) -> Result<(), CheckError> {
    let saved = salvage::directory(work, st, dir, orphans)?;
    let formal = Dinode::view(&work.disk.read(dir)?).num.formal.get();
    let root = (work.sb.root_dir.formal.get(), st.root);
    let own = (formal, dir);
    let parent = if dir == st.root || dir == st.master {
        own
    } else {
        let up = naming(st, dir).map(|e| &st.inodes[e.parent as usize]).map(|i| (i.formal, i.addr));
        let said = saved.dotdot.filter(|&(_, addr)| st.inode(addr).is_some_and(|i| i.is_dir()));
        up.or(said).unwrap_or(root)
    };
    let dot = |name: &[u8], (formal, addr)| NewEntry { name: name.into(), formal, addr, kind: DirentType::Dir as u16 };
    let mut entries = vec![dot(b".", own), dot(b"..", parent)];
    let mut names: BTreeSet<Vec<u8>> = saved.entries.iter().map(|e| e.name.clone()).collect();
    entries.extend(saved.entries);
    for mut entry in extra {
        let wish = entry.name.clone();
        let mut n = 1;
        while !names.insert(entry.name.clone()) {
            n += 1;
            entry.name = [&wish[..], format!("_{n}").as_bytes()].concat();
        }
        entries.push(entry);
    }
    let before = work.disk.read(dir)?;
    if !build::directory(work, st, dir, &entries, Pool(saved.blocks))? {
        work.put(dir, &before);
    }
    Ok(())
}

/// Gives inodes without a name one: system files in their directories, all others in `lost+found`.
fn attach(
    work: &mut Work<'_>,
    st: &mut State,
    inodes: &BTreeSet<u64>,
    wait: bool,
    inserts: &mut Inserts,
) -> Result<(), CheckError> {
    let mut lost = Vec::new();
    for &addr in inodes {
        let Some(inode) = st.inode(addr).cloned() else { continue };
        if inode.flags.has(DiFlags::SYSTEM) && (wait || system::attach_journal(work, st, addr, inserts)?) {
            // Some system file was missing and was found: it may be this one's directory.
            continue;
        }
        let what = match inode.mode & S_IFMT {
            S_IFDIR => "dir",
            0o100000 => "file",
            0o120000 => "link",
            0o060000 => "blkdev",
            0o020000 => "chrdev",
            0o010000 => "fifo",
            0o140000 => "socket",
            _ => continue,
        };
        let kind = DirentType::from_mode(inode.mode).map_or(0, |t| t as u16);
        let name = format!("lost_{what}_{addr}").into_bytes();
        lost.push(NewEntry { name, formal: inode.formal, addr, kind });
    }
    if lost.is_empty() || st.inode(st.root).is_none_or(|root| !root.is_dir() || root.damaged) {
        return Ok(());
    }
    let Some((dir, formal)) = lost_and_found(work, st, inserts)? else { return Ok(()) };
    for entry in lost.iter().filter(|e| e.kind == DirentType::Dir as u16) {
        dotdot(work, entry.addr, (formal, dir))?;
    }
    lost.retain(|e| e.addr != dir);
    inserts.entry(dir).or_default().extend(lost);
    Ok(())
}

/// Lets `..` of a linear directory name another parent; a hashed one is seen to in the next round.
fn dotdot(work: &mut Work<'_>, dir: u64, (formal, addr): (u64, u64)) -> Result<(), CheckError> {
    work.edit(dir, |block| {
        if Dinode::view(block).flags().has(DiFlags::EXHASH) {
            return;
        }
        let mut at = DINODE_SIZE;
        while at + 48 <= block.len() {
            let (len, name_len) = {
                let d = Dirent::view(&block[at..]);
                (usize::from(d.rec_len.get()), d.name_len.get())
            };
            if name_len == 2 && &block[at + 40..at + 42] == b".." {
                let dirent = Dirent::edit(&mut block[at..]);
                dirent.inum.formal.set(formal);
                dirent.inum.addr.set(addr);
                return;
            }
            at += len.max(8);
        }
    })
}

/// {address, formal number} of `lost+found`, which is made when there is none. `None` without space for it.
fn lost_and_found(
    work: &mut Work<'_>,
    st: &mut State,
    inserts: &mut Inserts,
) -> Result<Option<(u64, u64)>, CheckError> {
    let root = st.index.get(&st.root).copied();
    let there = st.entries.iter().find(|e| Some(e.parent) == root && st.name(e) == b"lost+found");
    let there = there.and_then(|e| st.inode(e.addr)).filter(|i| i.is_dir() && !i.unlinked);
    if let Some(inode) = there {
        return Ok(Some((inode.addr, inode.formal)));
    }
    let formal = new_formal(st) + work.made();
    let Some(addr) = make_directory(work, st, formal, S_IFDIR | 0o700, DiFlags::JDATA, st.root)? else {
        return Ok(None);
    };
    let name = b"lost+found".to_vec();
    inserts.entry(st.root).or_default().push(NewEntry { name, formal, addr, kind: DirentType::Dir as u16 });
    Ok(Some((addr, formal)))
}

/// A new empty directory.
pub(crate) fn make_directory(
    work: &mut Work<'_>,
    st: &mut State,
    formal: u64,
    mode: u32,
    flags: DiFlags,
    parent: u64,
) -> Result<Option<u64>, CheckError> {
    let Some(addr) = work.allocate(st, BlockKind::Dinode) else { return Ok(None) };
    let mut block = build::dinode(work.disk.bs.bytes(), addr, formal, mode, flags.0);
    Dinode::edit(&mut block).nlink.set(2);
    work.put(addr, &block);
    let up = Dinode::view(&work.disk.read(parent)?).num.formal.get();
    let dot = |name: &[u8], formal, addr| NewEntry { name: name.into(), formal, addr, kind: DirentType::Dir as u16 };
    let entries = [dot(b".", formal, addr), dot(b"..", up, parent)];
    build::directory(work, st, addr, &entries, Pool(Vec::new()))?;
    debug_assert!(MetaHeader::view_kind(&work.disk.read(addr)?) == MetaType::Dinode as u32);
    Ok(Some(addr))
}
