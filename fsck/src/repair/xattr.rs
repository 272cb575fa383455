//! Attributes written anew with what is whole of them (ondisk.md 6).

use crate::blockmap::BlockKind;
use crate::repair::plan::XattrFix;
use crate::repair::tree::nearly;
use crate::repair::work::Work;
use crate::report::CheckError;
use crate::state::State;
use crate::xattr::{Record, Value, acl, index, records};
use gfs2r::format::ea::{EA_HEADER, EA_LAST, EaHeader, EaType};
use gfs2r::format::{DiFlags, Dinode, MetaHeader, MetaType, OnDisk, get_u64, put_u64};
use std::collections::HashSet;

/// Keeps every record of the inode that is whole; the others go.
pub(crate) fn apply(work: &mut Work<'_>, st: &mut State, inode: u64, fix: XattrFix) -> Result<(), CheckError> {
    let dinode = work.disk.read(inode)?;
    let di = Dinode::view(&dinode);
    let (eattr, indirect) = (di.eattr.get(), di.flags().has(DiFlags::EA_INDIRECT));
    if eattr == 0 {
        return Ok(());
    }
    let moved = |at: u64| fix.copies.get(&at).copied().unwrap_or(at);
    let good = |work: &Work<'_>, at: u64, kind| -> Result<bool, CheckError> {
        let inside = st.map.contains(at) && !fix.bad.contains(&at);
        Ok(inside && nearly(&work.disk.read(at)?, kind))
    };
    let top = moved(eattr);
    let mut blocks = Vec::new();
    if indirect && good(work, eattr, MetaType::Indirect)? {
        let bytes = work.disk.read(top)?;
        let all: Vec<u64> = (24..bytes.len()).step_by(8).map(|at| get_u64(&bytes, at)).filter(|&p| p != 0).collect();
        debug_assert!(index(&bytes).0.len() <= all.len());
        for pointer in all {
            if !blocks.contains(&moved(pointer)) && good(work, pointer, MetaType::EaBlock)? {
                blocks.push(moved(pointer));
            }
        }
    } else if !indirect && good(work, eattr, MetaType::EaBlock)? {
        blocks.push(top);
    }
    let mut names = HashSet::new();
    for &at in &blocks {
        rewrite(work, st, at, &fix, &mut names)?;
    }
    let kept = !blocks.is_empty();
    if indirect && kept {
        work.edit(top, |block| {
            MetaHeader::init(block, MetaType::Indirect);
            block[24..].fill(0);
            blocks.iter().enumerate().for_each(|(i, &p)| put_u64(block, 24 + 8 * i, p));
        })?;
    }
    work.edit(inode, |block| {
        let di = Dinode::edit(block);
        di.eattr.set(if kept { top } else { 0 });
        if !kept {
            di.flags.set(di.flags().without(DiFlags::EA_INDIRECT).0);
        }
    })
}

/// Writes the good records of one block, one after the other.
fn rewrite(
    work: &mut Work<'_>,
    st: &mut State,
    at: u64,
    fix: &XattrFix,
    names: &mut HashSet<(EaType, Vec<u8>)>,
) -> Result<(), CheckError> {
    let old = work.disk.read(at)?;
    let (found, _) = records(&old, work.disk.bs, work.sb.fs_format.get());
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for record in found {
        if record.kind == EaType::Unused || fix.drop.contains(&(at, record.offset)) {
            continue;
        }
        if let Some(bytes) = keep(work, st, fix, &old, &record, names)? {
            kept.push(bytes);
        }
    }
    let mut block = vec![0; old.len()];
    MetaHeader::init(&mut block, MetaType::EaBlock);
    let mut offset = 24;
    let end = block.len();
    for (i, record) in kept.iter().enumerate() {
        let last = i + 1 == kept.len();
        block[offset..offset + record.len()].copy_from_slice(record);
        let ea = EaHeader::edit(&mut block[offset..]);
        let len = if last { end - offset } else { record.len() };
        ea.rec_len.set(len as u32);
        ea.flags = ea.flags & !EA_LAST | if last { EA_LAST } else { 0 };
        offset += len;
    }
    if kept.is_empty() {
        let ea = EaHeader::edit(&mut block[24..]);
        ea.rec_len.set((end - 24) as u32);
        ea.flags = EA_LAST;
    }
    work.put(at, &block);
    Ok(())
}

/// The bytes of a record that is to stay, with new places for its value where they are needed.
fn keep(
    work: &mut Work<'_>,
    st: &mut State,
    fix: &XattrFix,
    block: &[u8],
    record: &Record<'_>,
    names: &mut HashSet<(EaType, Vec<u8>)>,
) -> Result<Option<Vec<u8>>, CheckError> {
    let offset = record.offset as usize;
    let name_end = EA_HEADER + record.name.len();
    let (value, bytes) = match &record.value {
        Value::Inline(value) => {
            let len = (name_end + value.len()).next_multiple_of(8);
            (value.to_vec(), block[offset..offset + len].to_vec())
        }
        Value::Blocks(pointers, len) => {
            let mut value = Vec::new();
            let mut places: Vec<u64> = Vec::new();
            for pointer in pointers {
                let at = fix.copies.get(pointer).copied().unwrap_or(*pointer);
                if fix.bad.contains(pointer) || !st.map.contains(at) || places.contains(&at) {
                    return Ok(None);
                }
                let data = work.disk.read(at)?;
                if !nearly(&data, MetaType::EaData) {
                    return Ok(None);
                }
                value.extend_from_slice(&data[24..]);
                places.push(at);
            }
            let groups: HashSet<_> = places.iter().filter_map(|&p| st.map.locate(p)).map(|(g, _)| g).collect();
            if groups.len() > 1 {
                let Some(new) = work.allocate_together(st, places.len(), BlockKind::EaData) else { return Ok(None) };
                for (from, to) in places.iter().zip(&new) {
                    let data = work.disk.read(*from)?;
                    work.put(*to, &data);
                }
                places = new;
            }
            value.truncate(*len);
            let first = EA_HEADER + record.name.len().next_multiple_of(8);
            let mut bytes = block[offset..offset + first + 8 * places.len()].to_vec();
            places.iter().enumerate().for_each(|(i, &p)| put_u64(&mut bytes, first + 8 * i, p));
            (value, bytes)
        }
    };
    let is_acl = record.kind == EaType::System && record.name.starts_with(b"posix_acl_");
    if is_acl && acl::fault(&value).is_some() || !names.insert((record.kind, record.name.to_vec())) {
        return Ok(None);
    }
    Ok(Some(bytes))
}
