//! Chapter 9: linear and extendible-hash directories. (API skeleton)

use crate::error::Result;
use crate::format::DirentType;
use crate::ids::Inum;
use crate::inode::{Inode, Volume};
use crate::journal::Transaction;
use crate::rgrp::Space;

/// What a name leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Whom.
    pub inum: Inum,
    /// Its type.
    pub kind: DirentType,
}

/// Looks a name up; `None` when it is not there.
pub fn lookup(_vol: &Volume, _dir: &Inode, _name: &[u8]) -> Result<Option<Entry>> {
    unimplemented!()
}

/// What adding a name costs at most, found out before the transaction. All blocks that the change will look at are cached
/// afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddPlan {
    /// Blocks to allocate.
    pub alloc: u32,
    /// Metadata blocks to log, besides `Space::log_blocks`; the directory's dinode included.
    pub log: u32,
}

/// Plans `add`. `TooBig` when the directory is full, `NameTooLong` above 255 bytes, `NotFound` when the directory was removed
/// (nlink 0). Does not look whether the name exists.
pub fn plan_add(_vol: &Volume, _dir: &Inode, _name: &[u8]) -> Result<AddPlan> {
    unimplemented!()
}

/// Adds a name that is not there (ondisk.md 5.6); entries, times and, for a directory, the parent's nlink +1. Writes the
/// dinode back.
pub fn add(_vol: &Volume, _tx: &mut Transaction<'_>, _space: &mut Space<'_>, _dir: &mut Inode, _name: &[u8], _to: Entry, _rahead: bool) -> Result<()> {
    unimplemented!()
}

/// Metadata blocks that `remove` or `replace` of one name may log: entry block (and its predecessor) and dinode.
pub const CHANGE_LOG_BLOCKS: u32 = 3;

/// Removes a name (ondisk.md 5.7): entries, times, nlink -1 for a directory. `NotFound` when it is not there.
pub fn remove(_vol: &Volume, _tx: &mut Transaction<'_>, _dir: &mut Inode, _name: &[u8]) -> Result<Entry> {
    unimplemented!()
}

/// Points an existing name (also `..`) at another inode: in place; times; nlink by the change of type.
pub fn replace(_vol: &Volume, _tx: &mut Transaction<'_>, _dir: &mut Inode, _name: &[u8], _to: Entry) -> Result<Entry> {
    unimplemented!()
}

/// Reads the blocks that a later `remove`/`replace` of this name will touch, so that it waits for nothing.
pub fn prepare_change(_vol: &Volume, _dir: &Inode, _name: &[u8]) -> Result<()> {
    unimplemented!()
}

/// Position in a directory: 0 is the start; stable while the entry lives.
pub type Cookie = u64;

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Where it leads.
    pub entry: Entry,
    /// Cookie to resume *after* it.
    pub next: Cookie,
}

/// Lists from `from` on, `.` and `..` included, until `each` says false or the end. Checks entry counts as the kernel does.
pub fn list(_vol: &Volume, _dir: &Inode, _from: Cookie, _each: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<()> {
    unimplemented!()
}

/// Writes `.` and `..` into a new directory's dinode block and sets size, entries, payload_format in `dinode` fields of the
/// block (the incore `dinode` is passed and updated too).
pub fn init(_block: &mut [u8], _dinode: &mut crate::format::Dinode, _own: Inum, _parent: Inum) {
    unimplemented!()
}

/// Frees the leaves of a removed directory (ondisk.md 5.7), restartable; afterwards it is a plain file whose tree
/// `file::free_tree` frees.
pub fn free_leaves(_vol: &Volume, _dir: &mut Inode) -> Result<()> {
    unimplemented!()
}
