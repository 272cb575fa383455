//! Extended attributes of one inode (ondisk.md 6.1, 6.2).

pub(crate) mod acl;

use crate::blockmap::BlockKind;
use crate::disk::Disk;
use crate::issue::IssueKind;
use crate::report::CheckError;
use crate::state::{Inode, State, lossy};
use gfs2r::format::ea::{EA_HEADER, EA_LAST, EA_VALUE_MAX, EaHeader, EaType};
use gfs2r::format::superblock::FORMAT_MAX;
use gfs2r::format::{DiFlags, MetaType, OnDisk, get_u64};
use gfs2r::ids::BlockSize;
use std::collections::HashSet;

/// Where the value of an attribute is.
#[derive(Clone, Debug)]
pub(crate) enum Value<'b> {
    Inline(&'b [u8]),
    /// Addresses of value blocks (0 = missing), length of the value.
    Blocks(Vec<u64>, usize),
}

/// A record, used or not.
#[derive(Clone, Debug)]
pub(crate) struct Record<'b> {
    pub(crate) offset: u32,
    pub(crate) kind: EaType,
    pub(crate) name: &'b [u8],
    pub(crate) value: Value<'b>,
}

/// What is wrong with a block of records.
#[derive(Clone, Debug)]
pub(crate) enum RecordFault {
    Chain { offset: u32, what: &'static str },
    Type { offset: u32, found: u8 },
    Pointers { offset: u32, found: u8, expected: u64 },
}

/// The records of an attribute block, in order; the walk ends at the first one that breaks the chain.
pub(crate) fn records<'b>(block: &'b [u8], bs: BlockSize, fs_format: u32) -> (Vec<Record<'b>>, Vec<RecordFault>) {
    let (mut records, mut faults) = (Vec::new(), Vec::new());
    let mut at = 24;
    loop {
        let offset = at as u32;
        let mut chain = |what| faults.push(RecordFault::Chain { offset, what });
        if block.len() - at < EA_HEADER {
            chain("too near to the end of the block");
            break;
        }
        let ea = EaHeader::view(&block[at..]);
        let len = ea.rec_len.get() as usize;
        if len < EA_HEADER || !len.is_multiple_of(8) || len > block.len() - at {
            chain("record length 0, not a multiple of 8 or past the end of the block");
            break;
        }
        let ends = at + len == block.len();
        if (ea.flags & EA_LAST != 0) != ends {
            chain("the last record is not marked, or another one is");
            break;
        }
        match record(offset, &block[at..at + len], ea, bs, fs_format) {
            Ok(record) => records.push(record),
            Err(fault) => faults.push(fault),
        }
        at += len;
        if ends {
            break;
        }
    }
    (records, faults)
}

fn record<'b>(
    offset: u32,
    bytes: &'b [u8],
    ea: &EaHeader,
    bs: BlockSize,
    fs_format: u32,
) -> Result<Record<'b>, RecordFault> {
    let kind = EaType::from_raw(ea.kind)
        .filter(|&kind| kind != EaType::Trusted || fs_format >= FORMAT_MAX)
        .ok_or(RecordFault::Type { offset, found: ea.kind })?;
    let (name_len, data_len, count) = (usize::from(ea.name_len), ea.data_len.get() as usize, usize::from(ea.num_ptrs));
    let unused = kind == EaType::Unused;
    if unused && count == 0 {
        // What is left of a removed attribute means nothing.
        return Ok(Record { offset, kind, name: &[], value: Value::Inline(&[]) });
    }
    if name_len == 0 && !unused {
        return Err(RecordFault::Chain { offset, what: "a name of length 0" });
    }
    if data_len > EA_VALUE_MAX {
        return Err(RecordFault::Chain { offset, what: "a value of more than 65536 bytes" });
    }
    let value_at = if count == 0 { EA_HEADER + name_len } else { EA_HEADER + name_len.next_multiple_of(8) };
    let value_len = if count == 0 { data_len } else { 8 * count };
    if value_at + value_len > bytes.len() {
        return Err(RecordFault::Chain { offset, what: "name and value do not fit the record" });
    }
    let name = &bytes[EA_HEADER..EA_HEADER + name_len];
    if count == 0 {
        return Ok(Record { offset, kind, name, value: Value::Inline(&bytes[value_at..value_at + value_len]) });
    }
    let expected = data_len.div_ceil(bs.payload()) as u64;
    if count as u64 != expected {
        return Err(RecordFault::Pointers { offset, found: ea.num_ptrs, expected });
    }
    let blocks = (0..count).map(|i| get_u64(bytes, value_at + 8 * i)).collect();
    Ok(Record { offset, kind, name, value: Value::Blocks(blocks, data_len) })
}

/// The addresses in the index block of attribute blocks: up to the first 0. Also the slot of a pointer behind it.
pub(crate) fn index(block: &[u8]) -> (Vec<u64>, Option<u32>) {
    let all: Vec<u64> = (24..block.len()).step_by(8).map(|at| get_u64(block, at)).collect();
    let used = all.iter().position(|&p| p == 0).unwrap_or(all.len());
    let stray = all[used..].iter().position(|&p| p != 0).map(|i| (used + i) as u32);
    (all[..used].to_vec(), stray)
}

/// Checks and claims everything at `di_eattr`.
pub(crate) fn check(disk: &Disk<'_>, st: &mut State, inode: &mut Inode, eattr: u64) -> Result<(), CheckError> {
    if eattr == 0 {
        return Ok(());
    }
    let addr = inode.addr;
    let mut blocks = Vec::new();
    if inode.flags.has(DiFlags::EA_INDIRECT) {
        if !st.claim(inode, addr, eattr, BlockKind::EaIndex) {
            return Ok(());
        }
        let bytes = disk.read(eattr)?;
        if !st.header(inode, eattr, &bytes, BlockKind::EaIndex, MetaType::Indirect) {
            return Ok(());
        }
        let (pointers, stray) = index(&bytes);
        // The inode may be half deleted: its attribute blocks go first, from the front.
        if let Some(slot) = stray.filter(|_| !inode.unlinked) {
            inode.damaged = true;
            st.found.add(eattr, addr, IssueKind::XattrIndirect { slot, what: "a pointer after the end of the list" });
        }
        let pointers = if inode.unlinked { all_pointers(&bytes) } else { pointers };
        for pointer in pointers {
            if st.claim(inode, eattr, pointer, BlockKind::EaBlock) {
                blocks.push((pointer, ()));
            }
        }
    } else if st.claim(inode, addr, eattr, BlockKind::EaBlock) {
        blocks.push((eattr, ()));
    }
    let mut names = HashSet::new();
    disk.visit(&mut blocks, |at, (), bytes| block(disk, st, inode, at, bytes, &mut names))
}

fn all_pointers(block: &[u8]) -> Vec<u64> {
    (24..block.len()).step_by(8).map(|at| get_u64(block, at)).filter(|&p| p != 0).collect()
}

fn block(
    disk: &Disk<'_>,
    st: &mut State,
    inode: &mut Inode,
    at: u64,
    bytes: &[u8],
    names: &mut HashSet<(EaType, Vec<u8>)>,
) -> Result<(), CheckError> {
    if !st.header(inode, at, bytes, BlockKind::EaBlock, MetaType::EaBlock) {
        return Ok(());
    }
    let (records, faults) = records(bytes, disk.bs, st.fs_format);
    for fault in faults {
        inode.damaged = true;
        let kind = match fault {
            RecordFault::Chain { offset, what } => IssueKind::XattrRecord { offset, what },
            RecordFault::Type { offset, found } => IssueKind::XattrType { offset, found },
            RecordFault::Pointers { offset, found, expected } => IssueKind::XattrPointers { offset, found, expected },
        };
        st.found.add(at, inode.addr, kind);
    }
    for record in records {
        let value = value(disk, st, inode, at, &record)?;
        if record.kind == EaType::Unused {
            continue;
        }
        if !names.insert((record.kind, record.name.to_vec())) {
            st.found.add(at, inode.addr, IssueKind::XattrDuplicate { name: lossy(record.name) });
        }
        let is_acl = record.kind == EaType::System && record.name.starts_with(b"posix_acl_");
        if let Some(what) = value.filter(|_| is_acl).and_then(|value| acl::fault(&value)) {
            st.found.add(at, inode.addr, IssueKind::AclSyntax { name: lossy(record.name), what });
        }
    }
    Ok(())
}

/// Claims and reads the value; `None` when a part of it is missing or not readable as such.
fn value(
    disk: &Disk<'_>,
    st: &mut State,
    inode: &mut Inode,
    at: u64,
    record: &Record<'_>,
) -> Result<Option<Vec<u8>>, CheckError> {
    let (pointers, len) = match &record.value {
        Value::Inline(bytes) => return Ok(Some(bytes.to_vec())),
        Value::Blocks(pointers, len) => (pointers, *len),
    };
    let piece = disk.bs.payload();
    let mut value = vec![0; pointers.len() * piece];
    let mut items = Vec::new();
    for (i, &pointer) in pointers.iter().enumerate() {
        if pointer == 0 {
            // Values of removed attributes are freed block by block, and an inode may be half deleted.
            if record.kind != EaType::Unused && !inode.unlinked {
                inode.damaged = true;
                st.found.add(at, inode.addr, IssueKind::XattrHole { offset: record.offset });
            }
        } else if st.claim(inode, at, pointer, BlockKind::EaData) {
            items.push((pointer, i));
        }
    }
    let mut groups = items.iter().filter_map(|&(pointer, _)| st.map.locate(pointer)).map(|(group, _)| group);
    let first = groups.next();
    if groups.any(|group| Some(group) != first) {
        st.found.add(at, inode.addr, IssueKind::XattrRgrp { name: lossy(record.name) });
    }
    let mut complete = items.len() == pointers.len();
    disk.visit(&mut items, |addr, i, bytes| {
        if st.header(inode, addr, bytes, BlockKind::EaData, MetaType::EaData) {
            value[i * piece..(i + 1) * piece].copy_from_slice(&bytes[24..]);
        } else {
            complete = false;
        }
        Ok(())
    })?;
    value.truncate(len);
    Ok(complete.then_some(value))
}
