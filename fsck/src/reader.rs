//! Reads dinodes, directories, files and attributes without checking more than it needs: an error is a
//! [`CheckError::Damaged`] that says where. Never loops and never leaves the device, whatever the bytes.

use crate::dirents::Dirents;
use crate::disk::Disk;
use crate::report::CheckError;
use crate::tree::{height_max, pointers, span};
use crate::xattr::{self, Value};
use gfs2r::format::dinode::DINODE_SIZE;
use gfs2r::format::directory::{DEPTH_MAX, LEAF_SIZE};
use gfs2r::format::ea::EaType;
use gfs2r::format::{DiFlags, Dinode, Leaf, MAGIC, MetaHeader, MetaType, OnDisk, get_u64};
use std::collections::HashSet;
use std::ops::Range;

/// Longest file that is read in one piece.
pub(crate) const READ_FILE_MAX: u64 = 4 << 30;

/// Full name and value of each attribute.
pub(crate) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// An entry as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedEntry {
    pub(crate) name: Vec<u8>,
    pub(crate) formal: u64,
    pub(crate) addr: u64,
}

fn want(bytes: &[u8], addr: u64, wanted: MetaType) -> Result<(), CheckError> {
    let header = MetaHeader::view(bytes);
    if header.magic.get() == MAGIC && header.kind.get() == wanted as u32 {
        return Ok(());
    }
    Err(CheckError::damaged(addr, format!("not of type {} ({wanted:?})", wanted as u32)))
}

/// The block of a dinode.
pub(crate) fn dinode(disk: &Disk<'_>, addr: u64) -> Result<Box<[u8]>, CheckError> {
    let bytes = disk.read(addr)?;
    want(&bytes, addr, MetaType::Dinode)?;
    if Dinode::view(&bytes).num.addr.get() != addr {
        return Err(CheckError::damaged(addr, "a dinode with another address"));
    }
    Ok(bytes)
}

/// (file block, address) of the blocks of a file within `range`, sorted; holes are left out.
pub(crate) fn map(disk: &Disk<'_>, dinode: &[u8], range: Range<u64>) -> Result<Vec<(u64, u64)>, CheckError> {
    let di = Dinode::view(dinode);
    let (at, height) = (di.num.addr.get(), di.height.get());
    if height > height_max(disk.bs) {
        return Err(CheckError::damaged(at, format!("a tree of height {height}")));
    }
    if height == 0 {
        return Ok(Vec::new());
    }
    let wanted =
        |first: u64, level: u16| first < range.end && first.saturating_add(span(disk.bs, height, level)) > range.start;
    let take = |bytes: &[u8], start: usize, first: u64, level: u16, into: &mut Vec<(u64, u64)>| {
        let found = pointers(bytes, start, first, span(disk.bs, height, level));
        into.extend(found.filter(|&(_, first)| wanted(first, level)));
    };
    let mut seen = HashSet::new();
    let mut level = Vec::new();
    take(dinode, DINODE_SIZE, 0, 0, &mut level);
    for depth in 1..height {
        let mut next = Vec::new();
        disk.visit(&mut level, |addr, first, bytes| {
            want(bytes, addr, MetaType::Indirect)?;
            if !seen.insert(addr) {
                return Err(CheckError::damaged(addr, "an indirect block in two places"));
            }
            take(bytes, 24, first, depth, &mut next);
            Ok(())
        })?;
        level = next;
    }
    let mut found: Vec<(u64, u64)> = level.into_iter().map(|(addr, number)| (number, addr)).collect();
    found.sort_unstable();
    Ok(found)
}

/// Bytes `offset..offset+len` of a file or directory table, as far as its size goes; holes read as zeros.
pub(crate) fn read_range(disk: &Disk<'_>, bytes: &[u8], offset: u64, len: u64) -> Result<Vec<u8>, CheckError> {
    let di = Dinode::view(bytes);
    let size = di.size.get();
    let end = offset.saturating_add(len).min(size);
    let len = end.saturating_sub(offset);
    if len > READ_FILE_MAX {
        return Err(CheckError::TooBig(len));
    }
    if di.height.get() == 0 {
        let stuffed = &bytes[DINODE_SIZE..];
        let range = offset.min(size) as usize..end as usize;
        let part = if len == 0 { Some(&[][..]) } else { stuffed.get(range) };
        return part
            .map(<[u8]>::to_vec)
            .ok_or_else(|| CheckError::damaged(di.num.addr.get(), "more bytes than a dinode holds"));
    }
    let (skip, piece) =
        if di.mode.get() & 0o170000 == 0o040000 { (24, disk.bs.payload()) } else { (0, disk.bs.bytes()) };
    let mut out = vec![0; len as usize];
    if len == 0 {
        return Ok(out);
    }
    let blocks = map(disk, bytes, offset / piece as u64..end.div_ceil(piece as u64))?;
    let mut items: Vec<(u64, u64)> = blocks.into_iter().map(|(number, addr)| (addr, number)).collect();
    disk.visit(&mut items, |_, number, block| {
        // The block's bytes of the file, cut to the range asked for. The product is below the file's size.
        let start = number * piece as u64;
        let (from, to) = (start.max(offset), (start + piece as u64).min(end));
        if from < to {
            let source = &block[skip + (from - start) as usize..skip + (to - start) as usize];
            out[(from - offset) as usize..(to - offset) as usize].copy_from_slice(source);
        }
        Ok(())
    })?;
    Ok(out)
}

/// All entries of a directory, `.` and `..` included, in the order they lie on the disk.
pub(crate) fn entries(disk: &Disk<'_>, bytes: &[u8]) -> Result<Vec<NamedEntry>, CheckError> {
    let di = Dinode::view(bytes);
    let at = di.num.addr.get();
    if di.mode.get() & 0o170000 != 0o040000 {
        return Err(CheckError::damaged(at, "not a directory"));
    }
    let mut found = Vec::new();
    if !di.flags().has(DiFlags::EXHASH) {
        if di.height.get() != 0 {
            return Err(CheckError::damaged(at, "a directory without form"));
        }
        block_entries(at, bytes, DINODE_SIZE, &mut found)?;
        return Ok(found);
    }
    if di.depth.get() > DEPTH_MAX || di.size.get() != 8u64 << di.depth.get() {
        return Err(CheckError::damaged(at, "a hash table of the wrong size"));
    }
    let table = read_range(disk, bytes, 0, di.size.get())?;
    let mut leaves: Vec<u64> = (0..table.len() / 8).map(|i| get_u64(&table, 8 * i)).collect();
    leaves.dedup();
    let mut seen = HashSet::new();
    for first in leaves {
        let mut next = first;
        while next != 0 {
            if !seen.insert(next) {
                return Err(CheckError::damaged(next, "a leaf in two places"));
            }
            let leaf = disk.read(next)?;
            want(&leaf, next, MetaType::Leaf)?;
            block_entries(next, &leaf, LEAF_SIZE, &mut found)?;
            next = Leaf::view(&leaf).next.get();
        }
    }
    Ok(found)
}

fn block_entries(at: u64, block: &[u8], start: usize, found: &mut Vec<NamedEntry>) -> Result<(), CheckError> {
    for dirent in Dirents::new(block, start) {
        let dirent = dirent.map_err(|fault| CheckError::damaged(at, format!("directory record: {fault:?}")))?;
        found.push(NamedEntry { name: dirent.name.to_vec(), formal: dirent.inum.0, addr: dirent.inum.1 });
    }
    Ok(())
}

/// The entry of this name.
pub(crate) fn lookup(disk: &Disk<'_>, dir: &[u8], name: &[u8]) -> Result<Option<NamedEntry>, CheckError> {
    Ok(entries(disk, dir)?.into_iter().find(|e| e.name == name))
}

/// The attributes of an inode by their full names, sorted.
pub(crate) fn xattrs(disk: &Disk<'_>, dinode: &[u8], fs_format: u32) -> Result<Attributes, CheckError> {
    let di = Dinode::view(dinode);
    let eattr = di.eattr.get();
    if eattr == 0 {
        return Ok(Vec::new());
    }
    let blocks = if di.flags().has(DiFlags::EA_INDIRECT) {
        let bytes = disk.read(eattr)?;
        want(&bytes, eattr, MetaType::Indirect)?;
        xattr::index(&bytes).0
    } else {
        vec![eattr]
    };
    let mut found = Vec::new();
    for addr in blocks {
        let bytes = disk.read(addr)?;
        want(&bytes, addr, MetaType::EaBlock)?;
        let (records, faults) = xattr::records(&bytes, disk.bs, fs_format);
        if let Some(fault) = faults.first() {
            return Err(CheckError::damaged(addr, format!("attribute record: {fault:?}")));
        }
        for record in records {
            let prefix: &[u8] = match record.kind {
                EaType::Unused => continue,
                EaType::User => b"user.",
                EaType::System => b"system.",
                EaType::Security => b"security.",
                EaType::Trusted => b"trusted.",
            };
            let value = match record.value {
                Value::Inline(value) => value.to_vec(),
                Value::Blocks(pointers, len) => {
                    let mut value = Vec::new();
                    for pointer in pointers {
                        let bytes = disk.read(pointer)?;
                        want(&bytes, pointer, MetaType::EaData)?;
                        value.extend_from_slice(&bytes[24..]);
                    }
                    value.truncate(len);
                    value
                }
            };
            found.push(([prefix, record.name].concat(), value));
        }
    }
    found.sort();
    Ok(found)
}
