//! Walking an inode's EA blocks: finding, reading and listing attributes.

use super::block::{self, Defect, Record, Rules, START, records};
use super::name::full_name;
use crate::cache::Buffer;
use crate::error::{CorruptKind, Error, Result};
use crate::format::ea::EaType;
use crate::format::{DiFlags, MetaType, get_u64};
use crate::ids::BlockAddr;
use crate::inode::{Inode, Volume};
use std::ops::ControlFlow;
use std::sync::Arc;

/// The rules of this volume.
pub(super) fn rules(vol: &Volume) -> Rules {
    Rules::new(vol.bs, vol.fs_format)
}

/// A record in its block.
pub(super) struct Place {
    /// The EA block.
    pub(super) buffer: Arc<Buffer>,
    /// Its contents.
    pub(super) bytes: Arc<[u8]>,
    /// The record.
    pub(super) record: Record,
}

/// The block that `di_eattr` names.
pub(super) fn root(vol: &Volume, inode: &Inode) -> Result<Option<BlockAddr>> {
    pointer(vol, inode.inum.addr, inode.dinode.eattr.get())
}

/// A pointer found in the block at `at`, checked; `None` for 0.
pub(super) fn pointer(vol: &Volume, at: BlockAddr, raw: u64) -> Result<Option<BlockAddr>> {
    match BlockAddr::new(raw) {
        Some(addr) if !vol.rgrps.owns(addr) => Err(Error::corrupt(at, CorruptKind::Pointer(raw))),
        addr => Ok(addr),
    }
}

/// True when `di_eattr` names a list of EA blocks.
pub(super) fn is_indirect(inode: &Inode) -> bool {
    inode.flags().has(DiFlags::EA_INDIRECT)
}

/// The indirect block, if there is one.
pub(super) fn indirect(vol: &Volume, inode: &Inode) -> Result<Option<Arc<Buffer>>> {
    match root(vol, inode)? {
        Some(addr) if is_indirect(inode) => Ok(Some(vol.cache.meta(addr, inode.lock_name(), MetaType::Indirect)?)),
        _ => Ok(None),
    }
}

/// Addresses listed in an indirect block, in order; the first zero ends the list.
pub(super) fn listed(vol: &Volume, buffer: &Buffer) -> Result<Vec<BlockAddr>> {
    let bytes = buffer.bytes();
    let raws = (START..bytes.len()).step_by(8).map(|at| get_u64(&bytes, at));
    raws.map_while(|raw| pointer(vol, buffer.addr(), raw).transpose()).collect()
}

/// Shows each EA block to `each` until it breaks.
pub(super) fn each_block<T>(
    vol: &Volume,
    inode: &Inode,
    each: &mut dyn FnMut(Arc<Buffer>) -> Result<ControlFlow<T>>,
) -> Result<Option<T>> {
    let Some(first) = root(vol, inode)? else { return Ok(None) };
    let read = |addr| vol.cache.meta(addr, inode.lock_name(), MetaType::EaBlock);
    let Some(list) = indirect(vol, inode)? else { return Ok(each(read(first)?)?.break_value()) };
    for addr in listed(vol, &list)? {
        if let ControlFlow::Break(it) = each(read(addr)?)? {
            return Ok(Some(it));
        }
    }
    Ok(None)
}

/// Finds an attribute.
pub(super) fn find(vol: &Volume, inode: &Inode, kind: EaType, name: &[u8]) -> Result<Option<Place>> {
    let rules = rules(vol);
    each_block(vol, inode, &mut |buffer| {
        let bytes = buffer.bytes();
        let wanted = |r: &Result<Record, Defect>| r.as_ref().map_or(true, |r| r.kind == kind && r.name(&bytes) == name);
        let record = records(&bytes, rules).find(wanted).transpose().map_err(|d| d.at(buffer.addr()))?;
        Ok(match record {
            Some(record) => ControlFlow::Break(Place { buffer, bytes, record }),
            None => ControlFlow::Continue(()),
        })
    })
}

/// The ED blocks of a record, checked. Zero pointers (a deletion that was interrupted) are skipped.
pub(super) fn data_blocks(vol: &Volume, at: BlockAddr, bytes: &[u8], record: Record) -> Result<Vec<BlockAddr>> {
    record.pointers(bytes).filter_map(|raw| pointer(vol, at, raw).transpose()).collect()
}

/// Whether the volume offers this type.
pub(super) fn check_kind(vol: &Volume, kind: EaType) -> Result<()> {
    if kind == EaType::Unused || kind > rules(vol).newest { Err(Error::NotSupported) } else { Ok(()) }
}

/// The value; `NoAttribute` when it is not there, `NotSupported` for `trusted.` on a volume of format 1801.
pub fn get(vol: &Volume, inode: &Inode, kind: EaType, name: &[u8]) -> Result<Vec<u8>> {
    check_kind(vol, kind)?;
    let place = find(vol, inode, kind, name)?.ok_or(Error::NoAttribute)?;
    if place.record.ptrs == 0 {
        return Ok(place.record.inline_value(&place.bytes).to_vec());
    }
    let at = place.buffer.addr();
    let blocks = data_blocks(vol, at, &place.bytes, place.record)?;
    if blocks.len() != place.record.ptrs {
        return Err(Defect("value with a missing block").at(at));
    }
    vol.cache.read_ahead(&blocks, inode.lock_name());
    let mut value = Vec::with_capacity(place.record.data_len);
    for addr in blocks {
        let bytes = vol.cache.meta(addr, inode.lock_name(), MetaType::EaData)?.bytes();
        let part = (place.record.data_len - value.len()).min(bytes.len() - START);
        value.extend_from_slice(&bytes[START..][..part]);
    }
    Ok(value)
}

/// Full names (with prefix), each once, in the order of their records. The ACLs are named when the volume uses ACLs.
pub fn list(vol: &Volume, inode: &Inode) -> Result<Vec<Vec<u8>>> {
    let (mut names, rules) = (Vec::new(), rules(vol));
    each_block::<()>(vol, inode, &mut |buffer| {
        let bytes = buffer.bytes();
        for record in block::records(&bytes, rules) {
            let record = record.map_err(|d| d.at(buffer.addr()))?;
            if record.kind == EaType::System && !vol.options.acl {
                continue;
            }
            names.extend(full_name(record.kind, if record.used() { record.name(&bytes) } else { &[] }));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}
