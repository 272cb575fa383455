//! Setting an attribute (ondisk.md 6.3, 6.4).

use super::SetMode;
use super::block::{self, Fit, START, Shape, Value};
use super::read::{self, Place, each_block, find, rules};
use super::remove::release;
use crate::cache::Buffer;
use crate::error::{CorruptKind, Error, Result};
use crate::format::ea::EaType;
use crate::format::{DiFlags, MetaType, put_pointer};
use crate::ids::BlockAddr;
use crate::inode::{Inode, Volume};
use crate::journal::{Reserve, Transaction};
use crate::rgrp::{Space, Want};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Sets an attribute (ondisk.md 6.3, 6.4); ctime. One transaction; when a value in blocks of its own was replaced, another
/// frees those. `OutOfRange` for too large, `NoSpace`, `Exists`, `NoAttribute`, `NotSupported` for `trusted.` on a volume of
/// format 1801. `also` is applied to the dinode in the same transaction (mode change of an ACL).
pub fn set(
    vol: &Volume,
    inode: &mut Inode,
    kind: EaType,
    name: &[u8],
    value: &[u8],
    how: SetMode,
    also: &mut dyn FnMut(&mut Inode),
) -> Result<()> {
    read::check_kind(vol, kind)?;
    let shape = check_size(vol, name, value)?;
    let (old, target) = loop {
        let old = find(vol, inode, kind, name)?;
        match (how, &old) {
            (SetMode::Create, Some(_)) => return Err(Error::Exists),
            (SetMode::Replace, None) => return Err(Error::NoAttribute),
            _ => {}
        }
        match choose(vol, inode, old.as_ref(), shape.size)? {
            Target::In { buffer, fit } if fit.owns_blocks => release(vol, inode, &buffer, fit.giver)?,
            target => break (old, target),
        }
    };
    let in_place = matches!((&old, &target), (Some(o), Target::In { buffer, fit }) if replaces(o, buffer, *fit));
    let mut space = reserve(vol, inode, shape, &target)?;
    // EA block, EA block of the old record, indirect block, dinode; new blocks.
    let log = 4 + shape.ptrs as u32 + space.as_ref().map_or(0, Space::log_blocks);
    let mut tx = vol.journal.begin(Reserve::blocks(log))?;
    put(vol, &mut tx, space.as_mut(), inode, target, shape, kind, name, value)?;
    let retired = match old.filter(|_| !in_place) {
        Some(old) => retire(vol, &mut tx, &old)?,
        None => None,
    };
    also(inode);
    inode.dinode.set_ctime(vol.clock.now());
    inode.write_back(vol, &mut tx)?;
    tx.commit();
    drop(space);
    match retired {
        Some((buffer, offset)) => {
            let released = release(vol, inode, &buffer, offset);
            vol.journal.or_later("freeing a replaced attribute's blocks", released)
        }
        None => Ok(()),
    }
}

/// Blocks that [`set`] would have to allocate for an attribute; what the old value gives back comes later.
pub fn set_cost(vol: &Volume, inode: &Inode, kind: EaType, name: &[u8], value: &[u8]) -> Result<u64> {
    let shape = check_size(vol, name, value)?;
    let old = find(vol, inode, kind, name)?;
    let target = choose(vol, inode, old.as_ref(), shape.size)?;
    Ok(shape.ptrs as u64 + u64::from(target.blocks()))
}

/// The shape of an attribute; `Invalid` for an empty name, `OutOfRange` for what does not fit.
pub(super) fn check_size(vol: &Volume, name: &[u8], value: &[u8]) -> Result<Shape> {
    match name.len() {
        0 => Err(Error::Invalid),
        1..=255 => Shape::of(rules(vol), name.len(), value.len()).ok_or(Error::OutOfRange),
        _ => Err(Error::OutOfRange),
    }
}

/// Where a new record goes.
pub(super) enum Target {
    /// Into a block there is.
    In {
        /// The block.
        buffer: Arc<Buffer>,
        /// Where in it.
        fit: Fit,
    },
    /// Into the inode's first EA block.
    First,
    /// Into a second EA block: the list of them must be made.
    Second,
    /// Into a further one, whose address goes into this slot of the list.
    Further {
        /// The list.
        list: Arc<Buffer>,
        /// The free slot.
        slot: usize,
    },
}

impl Target {
    /// Blocks to allocate for it.
    fn blocks(&self) -> u32 {
        match self {
            Self::In { .. } => 0,
            Self::First | Self::Further { .. } => 1,
            Self::Second => 2,
        }
    }
}

/// Finds room for a record of `need` bytes. The record of an old inline value is overwritten where the new one fits into it.
pub(super) fn choose(vol: &Volume, inode: &Inode, old: Option<&Place>, need: usize) -> Result<Target> {
    if let Some(old) = old.filter(|old| old.record.ptrs == 0 && old.record.len >= need) {
        return Ok(Target::In { buffer: old.buffer.clone(), fit: block::in_place(old.record) });
    }
    let rules = rules(vol);
    let fit = each_block(vol, inode, &mut |buffer| {
        let fit = block::find_fit(&buffer.bytes(), rules, need).map_err(|d| d.at(buffer.addr()))?;
        Ok(fit.map_or(ControlFlow::Continue(()), |fit| ControlFlow::Break(Target::In { buffer, fit })))
    })?;
    if let Some(target) = fit {
        return Ok(target);
    }
    if read::root(vol, inode)?.is_none() {
        return Ok(Target::First);
    }
    let Some(list) = read::indirect(vol, inode)? else { return Ok(Target::Second) };
    let slot = read::listed(vol, &list)?.len();
    if slot < vol.bs.indirect_pointers() { Ok(Target::Further { list, slot }) } else { Err(Error::NoSpace) }
}

/// True when writing there overwrites the old record.
fn replaces(old: &Place, buffer: &Arc<Buffer>, fit: Fit) -> bool {
    old.buffer.addr() == buffer.addr() && block::in_place(old.record) == fit
}

/// Space for the new blocks, all in one rgrp when there are ED blocks among them.
fn reserve<'v>(vol: &'v Volume, inode: &mut Inode, shape: Shape, target: &Target) -> Result<Option<Space<'v>>> {
    let blocks = shape.ptrs as u32 + target.blocks();
    let want = Want { blocks, min: blocks, goal: inode.goal(vol), spread: false };
    Ok(match (blocks, shape.ptrs) {
        (0, _) => None,
        (_, 0) => Some(vol.rgrps.reserve(want, &mut inode.resv)?),
        _ => Some(vol.rgrps.reserve_in_one(want, &mut inode.resv)?),
    })
}

/// Allocates a run of at most `want` blocks and accounts for it.
fn alloc(
    vol: &Volume,
    tx: &mut Transaction<'_>,
    space: &mut Space<'_>,
    inode: &mut Inode,
    want: u32,
) -> Result<(BlockAddr, u32)> {
    let (addr, len) = space.alloc(tx, want, Some(inode.goal(vol)), inode.owner())?;
    let blocks = inode.dinode.blocks.get().checked_add(u64::from(len));
    inode.dinode.blocks.set(blocks.ok_or_else(|| Error::corrupt(inode.inum.addr, CorruptKind::Dinode("di_blocks")))?);
    Ok((addr, len))
}

/// Makes an empty EA block of a newly allocated one.
pub(super) fn new_block(tx: &mut Transaction<'_>, inode: &Inode, addr: BlockAddr) -> Arc<Buffer> {
    let buffer = tx.new_meta(addr, inode.lock_name(), MetaType::EaBlock);
    tx.edit(&buffer, block::clear);
    buffer
}

/// Writes an attribute at its target, with the blocks that it needs. The caller writes the dinode back.
#[allow(clippy::too_many_arguments)] // The attribute itself is three of them.
pub(super) fn put(
    vol: &Volume,
    tx: &mut Transaction<'_>,
    mut space: Option<&mut Space<'_>>,
    inode: &mut Inode,
    target: Target,
    shape: Shape,
    kind: EaType,
    name: &[u8],
    value: &[u8],
) -> Result<()> {
    let mut next = |tx: &mut Transaction<'_>, inode: &mut Inode, want| match space.as_mut() {
        Some(space) => alloc(vol, tx, space, inode, want),
        None => Err(Error::NoSpace),
    };
    let (buffer, fit) = match target {
        Target::In { buffer, fit } => (buffer, Some(fit)),
        Target::First => {
            let addr = next(tx, inode, 1)?.0;
            inode.dinode.eattr.set(addr.get());
            (new_block(tx, inode, addr), None)
        }
        Target::Second => {
            let first = BlockAddr::new(inode.dinode.eattr.get());
            let (list, addr) = (next(tx, inode, 1)?.0, next(tx, inode, 1)?.0);
            let buffer = tx.new_meta(list, inode.lock_name(), MetaType::Indirect);
            tx.edit(&buffer, |block| {
                put_pointer(block, START, 0, first);
                put_pointer(block, START, 1, Some(addr));
            });
            inode.dinode.eattr.set(list.get());
            inode.dinode.flags.set(inode.flags().with(DiFlags::EA_INDIRECT).0);
            (new_block(tx, inode, addr), None)
        }
        Target::Further { list, slot } => {
            let addr = next(tx, inode, 1)?.0;
            tx.edit(&list, |block| put_pointer(block, START, slot, Some(addr)));
            (new_block(tx, inode, addr), None)
        }
    };
    let fit = match fit {
        Some(fit) => fit,
        None => block::find_fit(&buffer.bytes(), rules(vol), shape.size).ok().flatten().ok_or(Error::OutOfRange)?,
    };
    if shape.ptrs == 0 {
        tx.edit(&buffer, |block| block::write(block, fit, kind, name, Value::Inline(value)));
        return Ok(());
    }
    let mut blocks = Vec::with_capacity(shape.ptrs);
    while blocks.len() < shape.ptrs {
        let (addr, len) = next(tx, inode, (shape.ptrs - blocks.len()) as u32)?;
        blocks.extend((0..u64::from(len)).map(|i| addr.saturating_add(i)));
    }
    for (&addr, part) in blocks.iter().zip(value.chunks(rules(vol).payload)) {
        let data = tx.new_meta(addr, inode.lock_name(), MetaType::EaData);
        tx.edit(&data, |block| block[START..][..part.len()].copy_from_slice(part));
    }
    tx.edit(&buffer, |block| {
        block::write(block, fit, kind, name, Value::External { len: value.len(), blocks: &blocks })
    });
    Ok(())
}

/// Takes the old record away after the new one was written. When it has ED blocks it becomes an unused record that owns them,
/// which is returned.
fn retire(vol: &Volume, tx: &mut Transaction<'_>, old: &Place) -> Result<Option<(Arc<Buffer>, usize)>> {
    let (offset, rules) = (old.record.offset, rules(vol));
    if old.record.ptrs > 0 {
        tx.edit(&old.buffer, |block| block::retire(block, offset));
        return Ok(Some((old.buffer.clone(), offset)));
    }
    tx.edit(&old.buffer, |block| block::remove(block, rules, offset)).map_err(|d| d.at(old.buffer.addr()))?;
    Ok(None)
}
