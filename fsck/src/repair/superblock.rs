//! The superblock and the two top directories. There is one copy: what is lost is found again in the structures.

use crate::disk::Disk;
use crate::initialize;
use crate::issue::IssueKind;
use crate::repair::build::{self, NewEntry, Pool};
use crate::repair::search::{self, Found};
use crate::repair::work::Work;
use crate::report::{CheckError, Findings};
use crate::state::State;
use gfs2r::device::BlockDevice;
use gfs2r::format::dinode::mode::S_IFDIR;
use gfs2r::format::superblock::{FORMAT_MAX, FORMAT_MIN, MULTIHOST_FORMAT, SUPERBLOCK_OFFSET, SuperblockError};
use gfs2r::format::{DiFlags, Dinode, DirentType, MAGIC, MetaHeader, MetaType, OnDisk, Superblock};
use gfs2r::ids::{BlkState, BlockSize};

/// A superblock to work with, and whether it had to be found.
pub(crate) fn load<'d>(
    device: &'d dyn BlockDevice,
    found: &mut Findings,
) -> Result<(Disk<'d>, Superblock, Option<SuperblockError>), CheckError> {
    let error = match initialize::superblock(device, found) {
        Ok((disk, sb)) => return Ok((disk, sb, None)),
        Err(CheckError::Superblock(error)) => error,
        Err(other) => return Err(other),
    };
    let unknown = |format: u32| (FORMAT_MAX + 1..MULTIHOST_FORMAT).contains(&format);
    if let SuperblockError::UnknownFormat(format, _) = error
        && unknown(format)
    {
        // A later format is not damage.
        return Err(CheckError::Superblock(error));
    }
    let bs = search::block_size(device)?;
    let Some(bs) = bs else { return Err(CheckError::Superblock(error)) };
    let disk = Disk::new(device, bs);
    let all = search::all(&disk)?;
    let mut sb = old(device)?;
    renew(&mut sb, bs, &all);
    if sb.master_dir.addr.get() == 0 && sb.root_dir.addr.get() == 0 {
        return Err(CheckError::Superblock(error));
    }
    Ok((disk, sb, Some(error)))
}

/// The superblock as it lies there, if it looks like one at all; else an empty one.
fn old(device: &dyn BlockDevice) -> Result<Superblock, CheckError> {
    let mut bytes = gfs2r::device::AlignedBuf::zeroed(4096);
    device.read(SUPERBLOCK_OFFSET, &mut bytes).map_err(|error| CheckError::Io { block: 0, error })?;
    let sb = *Superblock::view(&bytes);
    let signs = [
        sb.header.magic.get() == MAGIC,
        sb.header.kind.get() == MetaType::Superblock as u32,
        (FORMAT_MIN..=FORMAT_MAX).contains(&sb.fs_format.get()),
        sb.multihost_format.get() == MULTIHOST_FORMAT,
        sb.lockproto().starts_with(b"lock_"),
    ];
    if signs.iter().filter(|&&s| s).count() >= 3 {
        return Ok(sb);
    }
    bytes.fill(0);
    let sb = Superblock::edit(&mut bytes);
    sb.lockproto[..11].copy_from_slice(b"lock_nolock");
    Ok(*sb)
}

/// Sets every field that can be known.
fn renew(sb: &mut Superblock, bs: BlockSize, found: &Found) {
    let header = MetaHeader::new(MetaType::Superblock);
    sb.header = header;
    if !(FORMAT_MIN..=FORMAT_MAX).contains(&sb.fs_format.get()) {
        sb.fs_format.set(FORMAT_MAX);
    }
    sb.multihost_format.set(MULTIHOST_FORMAT);
    sb.bsize.set(bs.bytes() as u32);
    sb.bsize_shift.set(bs.shift());
    if ![&b"lock_nolock"[..], b"lock_dlm"].contains(&sb.lockproto()) {
        set_lockproto(sb);
    }
    let place = |said: u64, tops: &[(u64, u64)]| {
        let known = tops.iter().find(|&&(addr, _)| addr == said);
        known.or(tops.first()).copied()
    };
    if let Some((addr, formal)) = place(sb.master_dir.addr.get(), &found.masters) {
        sb.master_dir.addr.set(addr);
        sb.master_dir.formal.set(formal);
    }
    if let Some((addr, formal)) = place(sb.root_dir.addr.get(), &found.roots) {
        sb.root_dir.addr.set(addr);
        sb.root_dir.formal.set(formal);
    }
}

/// The protocol that an unknown one is likeliest to have been: one with a lock table belongs to a cluster.
fn set_lockproto(sb: &mut Superblock) {
    let found = sb.lockproto();
    let dlm = found.ends_with(b"dlm") || sb.locktable[0] != 0 && !found.ends_with(b"nolock");
    let proto: &[u8] = if dlm { b"lock_dlm" } else { b"lock_nolock" };
    sb.lockproto.fill(0);
    sb.lockproto[..proto.len()].copy_from_slice(proto);
}

/// Fields that were found wrong.
pub(crate) fn apply(work: &mut Work<'_>, st: &State, issues: &[IssueKind]) {
    for issue in issues {
        let sb = &mut work.sb;
        match issue {
            IssueKind::SuperblockMultihost { .. } => sb.multihost_format.set(MULTIHOST_FORMAT),
            &IssueKind::SuperblockShift { expected, .. } => sb.bsize_shift.set(expected),
            IssueKind::BlockFormat { .. } => sb.header.format.set(MetaType::Superblock.format()),
            IssueKind::SuperblockLockproto { .. } => set_lockproto(sb),
            &IssueKind::SuperblockFormal { which, expected, .. } => {
                let inum = if which == "root" { &mut sb.root_dir } else { &mut sb.master_dir };
                inum.formal.set(expected);
                debug_assert!(st.inode(inum.addr.get()).is_some_and(|i| i.formal == expected));
            }
            _ => continue,
        }
        work.sb_changed = true;
    }
}

/// Finds or makes the root or master directory, which is not at `addr`. True when the caller must rebuild it there.
pub(crate) fn top(work: &mut Work<'_>, st: &mut State, addr: u64) -> Result<bool, CheckError> {
    let is_root = addr == st.root;
    let bytes = work.disk.read(addr).unwrap_or_default();
    let is_dinode = st.map.contains(addr) && MetaHeader::view_kind(&bytes) == MetaType::Dinode as u32;
    if is_dinode {
        let di = Dinode::view(&bytes);
        let directory = di.mode.get() & 0o170000 == S_IFDIR && di.num.addr.get() == addr;
        if directory && st.inode(addr).is_none_or(|i| i.unlinked) {
            // The bitmap denies it.
            work.set_state(st, addr, BlkState::Dinode);
            return Ok(false);
        }
    }
    // The superblock may name the wrong block: a top directory is its own parent.
    let own = |i: &&crate::state::Inode| {
        let system = i.flags.has(DiFlags::SYSTEM) != is_root;
        let other = if is_root { st.master } else { st.root };
        i.is_dir() && !i.unlinked && system && i.addr != other && i.dotdot.is_some_and(|(_, up)| up == i.addr)
    };
    if let Some(inode) = st.inodes.iter().find(own) {
        let inum = if is_root { &mut work.sb.root_dir } else { &mut work.sb.master_dir };
        inum.addr.set(inode.addr);
        inum.formal.set(inode.formal);
        work.sb_changed = true;
        return Ok(false);
    }
    if st.inode(addr).is_some_and(|i| i.is_dir() && !i.unlinked) {
        // It is there, and only thinks that it is another's child.
        return Ok(true);
    }
    // The bitmap may deny it as well.
    let found = search::all(&work.disk)?;
    let tops = if is_root { found.roots } else { found.masters };
    if let Some(&(at, formal)) = tops.iter().find(|&&(at, _)| st.map.contains(at)) {
        let inum = if is_root { &mut work.sb.root_dir } else { &mut work.sb.master_dir };
        inum.addr.set(at);
        inum.formal.set(formal);
        work.sb_changed = true;
        work.set_state(st, at, BlkState::Dinode);
        return Ok(false);
    }
    make(work, st, addr, is_root)
}

/// Makes an empty top directory: where it was, if nobody else has that block.
fn make(work: &mut Work<'_>, st: &mut State, addr: u64, is_root: bool) -> Result<bool, CheckError> {
    let same = st.map.contains(addr) && st.map.kind(addr).is_none();
    let at = if same { Some(addr) } else { work.allocate(st, crate::blockmap::BlockKind::Dinode) };
    let Some(at) = at else { return Ok(false) };
    work.set_state(st, at, BlkState::Dinode);
    let inum = if is_root { &mut work.sb.root_dir } else { &mut work.sb.master_dir };
    let formal = if inum.formal.get() == 0 { crate::repair::plan::new_formal(st) } else { inum.formal.get() };
    if inum.addr.get() != at || inum.formal.get() != formal {
        inum.addr.set(at);
        inum.formal.set(formal);
        work.sb_changed = true;
    }
    let flags = if is_root { DiFlags::JDATA } else { DiFlags::JDATA.with(DiFlags::SYSTEM) };
    let mut block = build::dinode(work.disk.bs.bytes(), at, formal, S_IFDIR | 0o755, flags.0);
    Dinode::edit(&mut block).nlink.set(2);
    work.put(at, &block);
    let dot = |name: &[u8]| NewEntry { name: name.into(), formal, addr: at, kind: DirentType::Dir as u16 };
    build::directory(work, st, at, &[dot(b"."), dot(b"..")], Pool(Vec::new()))?;
    // Its leaves, if it had some, say whose they are.
    Ok(at == addr)
}
