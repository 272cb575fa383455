//! Pass 1: every dinode, its tree, its attributes, its entries; who owns which block (ondisk.md 12.3).

use crate::blockmap::BlockKind;
use crate::directory;
use crate::disk::Disk;
use crate::issue::IssueKind;
use crate::report::CheckError;
use crate::state::{Inode, State};
use crate::tree::{self, Walk};
use crate::xattr;
use gfs2r::format::dinode::mode::{S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK};
use gfs2r::format::header::{FORMAT_DIRENT, FORMAT_QUOTA, FORMAT_RINDEX};
use gfs2r::format::{DiFlags, Dinode, MAGIC, MetaHeader, MetaType, OnDisk};
use gfs2r::ids::BlockSize;

/// Every flag that has a meaning, those of gfs1 included.
const KNOWN_FLAGS: u32 = 0xe000_07ff & !0x10;

/// Visits every dinode that the bitmaps know.
pub(crate) fn run(disk: &Disk<'_>, st: &mut State) -> Result<(), CheckError> {
    for group in 0..st.map.groups.len() {
        let mut dinodes = st.map.groups[group].dinodes();
        let mut newest = 0;
        disk.visit(&mut dinodes, |addr, unlinked, bytes| {
            let is_one = dinode(disk, st, addr, unlinked, bytes)?;
            let (formal, generation) = (Dinode::view(bytes).num.formal.get(), Dinode::view(bytes).generation.get());
            // An inode that the kernel made carries its generation as formal number; those of mkfs have generation 0.
            let made = if is_one && generation == formal { formal } else { 0 };
            newest = newest.max(made);
            Ok(())
        })?;
        let next = st.map.groups[group].igeneration;
        if st.is_refuted() {
            return Ok(());
        }
        if newest != 0 && newest >= next {
            let at = st.map.groups[group].extent.addr.get();
            st.found.add(at, None, IssueKind::RgrpGeneration { next, used: newest });
        }
    }
    Ok(())
}

/// Checks one dinode and everything below it. False when the block is no dinode.
pub(crate) fn dinode(
    disk: &Disk<'_>,
    st: &mut State,
    addr: u64,
    unlinked: bool,
    bytes: &[u8],
) -> Result<bool, CheckError> {
    let di = Dinode::view(bytes);
    let header = MetaHeader::view(bytes);
    let found = if header.magic.get() == MAGIC { header.kind.get() } else { 0 };
    if found != MetaType::Dinode as u32 {
        // Perhaps the bitmap is wrong and not the block: pass 5 knows.
        st.no_dinodes.push((addr, found));
        return Ok(false);
    }
    let mut inode = Inode {
        addr,
        formal: di.num.formal.get(),
        mode: di.mode.get(),
        nlink: di.nlink.get(),
        flags: di.flags(),
        size: di.size.get(),
        unlinked,
        damaged: false,
        counted: 0,
        refs: 0,
        subdirs: 0,
        dot: None,
        dotdot: None,
        entry: None,
    };
    if !st.claim(&mut inode, addr, addr, BlockKind::Dinode) {
        // Another inode has it as something else. That is one finding; it is still a dinode.
        inode.counted = 1;
    }
    st.header(&mut inode, addr, bytes, BlockKind::Dinode, MetaType::Dinode);
    fields(st, &mut inode, di);
    let index = u32::try_from(st.inodes.len()).unwrap_or(u32::MAX);
    contents(disk, st, &mut inode, di, bytes, index)?;
    xattr::check(disk, st, &mut inode, di.eattr.get())?;
    let (claimed, counted) = (di.blocks.get(), inode.counted);
    if claimed != counted && !inode.damaged {
        st.found.add(addr, addr, IssueKind::DinodeBlocks { found: claimed, counted });
    }
    if unlinked {
        st.found.add(addr, addr, IssueKind::InodeUnlinked { blocks: counted });
    }
    st.add_inode(inode);
    Ok(true)
}

/// The fields that concern nothing but themselves.
fn fields(st: &mut State, inode: &mut Inode, di: &Dinode) {
    let addr = inode.addr;
    let mut add = |kind| st.found.add(addr, addr, kind);
    if di.num.addr.get() != addr {
        add(IssueKind::DinodeAddress { found: di.num.addr.get() });
    }
    if inode.formal == 0 {
        add(IssueKind::DinodeFormal {});
    }
    let times = [("atime", di.atime_nsec), ("mtime", di.mtime_nsec), ("ctime", di.ctime_nsec)];
    for (which, nsec) in times.map(|(which, nsec)| (which, nsec.get())) {
        if nsec >= 1_000_000_000 {
            add(IssueKind::DinodeTime { which, nsec });
        }
    }
    if let Some(what) = odd_flags(inode) {
        add(IssueKind::DinodeFlags { flags: inode.flags.0, what });
    }
    if inode.size > i64::MAX as u64 {
        add(IssueKind::DinodeSize { size: inode.size });
        inode.damaged = true;
    }
    for (field, goal) in [("goal_meta", di.goal_meta.get()), ("goal_data", di.goal_data.get())] {
        // Files in their first block have no data of their own; the goal for metadata is set from the beginning.
        let unset = goal == 0 && field == "goal_data";
        if !unset && !st.map.contains(goal) {
            st.found.add(addr, addr, IssueKind::DinodeGoal { field, goal });
        }
    }
}

fn odd_flags(inode: &Inode) -> Option<&'static str> {
    let flags = inode.flags;
    // A hashed directory that is being deleted becomes a regular file and keeps its flags.
    let dir = inode.is_dir() || inode.unlinked;
    if flags.0 & !KNOWN_FLAGS != 0 {
        Some("unknown flags")
    } else if inode.is_dir() && !flags.has(DiFlags::JDATA) {
        Some("a directory without JDATA")
    } else if !dir && [DiFlags::EXHASH, DiFlags::TOPDIR, DiFlags::INHERIT_JDATA].iter().any(|&f| flags.has(f)) {
        Some("flags of directories on something else")
    } else {
        None
    }
}

/// What the inode holds, by its type.
fn contents(
    disk: &Disk<'_>,
    st: &mut State,
    inode: &mut Inode,
    di: &Dinode,
    bytes: &[u8],
    index: u32,
) -> Result<(), CheckError> {
    let (addr, height, bs) = (inode.addr, di.height.get(), disk.bs);
    let max = tree::height_max(bs);
    if height > max {
        inode.damaged = true;
        st.found.add(addr, addr, IssueKind::DinodeHeight { height, max });
        return Ok(());
    }
    payload_format(st, inode, di);
    match inode.mode & S_IFMT {
        S_IFDIR => directory::check(disk, st, inode, di, bytes, index),
        S_IFREG => regular(disk, st, inode, di, bytes),
        S_IFLNK => {
            if let Some(what) = odd_symlink(bs, inode, height, bytes) {
                st.found.add(addr, addr, IssueKind::SymlinkTarget { what });
            }
            data(disk, st, inode, bytes, height).map(|_| ())
        }
        S_IFCHR | S_IFBLK | S_IFIFO | S_IFSOCK => {
            if inode.size != 0 || height != 0 {
                st.found.add(addr, addr, IssueKind::SpecialContents { size: inode.size, height });
            }
            data(disk, st, inode, bytes, height).map(|_| ())
        }
        _ => {
            inode.damaged = true;
            st.found.add(addr, addr, IssueKind::DinodeMode { mode: inode.mode });
            Ok(())
        }
    }
}

fn data(
    disk: &Disk<'_>,
    st: &mut State,
    inode: &mut Inode,
    bytes: &[u8],
    height: u16,
) -> Result<tree::Tree, CheckError> {
    let end = inode.size.div_ceil(disk.bs.bytes() as u64);
    let kind = if inode.flags.has(DiFlags::JDATA) { BlockKind::JournaledData } else { BlockKind::Data };
    let found = tree::walk(disk, st, inode, bytes, Walk { height, kind, end, list: false })?;
    st.stats.data_blocks += found.blocks;
    Ok(found)
}

fn regular(disk: &Disk<'_>, st: &mut State, inode: &mut Inode, di: &Dinode, bytes: &[u8]) -> Result<(), CheckError> {
    let (addr, height) = (inode.addr, di.height.get());
    let max = disk.bs.stuffed_max() as u64;
    // Of a directory that is being deleted only the table is left, and its size says nothing about a file's.
    let was_directory = inode.unlinked && inode.flags.has(DiFlags::EXHASH);
    if height == 0 && inode.size > max {
        st.found.add(addr, addr, IssueKind::DinodeStuffedSize { size: inode.size, max });
    }
    let found = data(disk, st, inode, bytes, height)?;
    let truncating = inode.flags.has(DiFlags::TRUNC_IN_PROG);
    if truncating {
        st.found.add(addr, addr, IssueKind::TruncateInProgress { count: found.beyond });
    } else if found.beyond > 0 && !was_directory && !inode.unlinked {
        st.found.add(addr, addr, IssueKind::BlocksBeyondEof { count: found.beyond });
    }
    Ok(())
}

fn odd_symlink(bs: BlockSize, inode: &Inode, height: u16, bytes: &[u8]) -> Option<&'static str> {
    let room = bs.stuffed_max();
    if height != 0 {
        return Some("its target is not in the dinode");
    }
    match usize::try_from(inode.size) {
        Ok(0) => Some("no target"),
        Ok(len) if len < room => bytes[232..232 + len].contains(&0).then_some("NUL in its target"),
        _ => Some("its target does not fit into the dinode"),
    }
}

fn payload_format(st: &mut State, inode: &Inode, di: &Dinode) {
    let found = di.payload_format.get();
    let linear = inode.is_dir() && !inode.flags.has(DiFlags::EXHASH) && di.height.get() == 0;
    let system = inode.flags.has(DiFlags::SYSTEM);
    let expected = if linear { FORMAT_DIRENT } else { 0 };
    let allowed = found == expected
        // Tools leave it as it was; mkfs marks rindex and quota.
        || (inode.is_dir() && found == FORMAT_DIRENT)
        || (system && [FORMAT_RINDEX, FORMAT_QUOTA].contains(&found))
        || inode.unlinked;
    if !allowed {
        st.found.add(inode.addr, inode.addr, IssueKind::DinodePayloadFormat { found, expected });
    }
}
