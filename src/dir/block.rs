//! Directory entries in a block, as bytes: scanning, finding, making room, inserting, deleting (ondisk.md 5.2, 5.6.1, 5.7).
//!
//! The same for the dinode of a linear directory and for a leaf; only the offset where entries start differs (`start`).
//! Records tile the block from there to its end. Whatever breaks a rule of 5.2 is a [`Defect`]; no bytes make this panic.

use super::Entry;
use crate::error::{CorruptKind, Error};
use crate::format::directory::{DIRENT_SIZE, NAME_MAX, dirent_len};
use crate::format::superblock::DiskInum;
use crate::format::{Dirent, DirentType, OnDisk};
use crate::ids::{BlockAddr, DirHash};

/// What is wrong with a directory block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Defect(pub(super) &'static str);

impl Defect {
    /// As an error of the block at `addr`.
    pub(super) fn at(self, addr: BlockAddr) -> Error {
        Error::corrupt(addr, CorruptKind::Directory(self.0))
    }
}

/// A record of a block, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Where it starts in the block.
    pub(super) offset: usize,
    /// Its length: the next record, or the block's end, follows.
    pub(super) len: usize,
    /// Length of its name; meaningless when it is not live.
    pub(super) name_len: usize,
    /// Hash of its name as stored.
    pub(super) hash: u32,
    /// False for a sentinel, which can only be the first record.
    pub(super) live: bool,
}

impl Record {
    /// The name of a live record.
    pub(super) fn name(self, block: &[u8]) -> &[u8] {
        &block[self.offset + DIRENT_SIZE..][..self.name_len]
    }
    /// Bytes that a live record needs of its length; 0 for a sentinel.
    fn used(self) -> usize {
        if self.live { dirent_len(self.name_len) } else { 0 }
    }
}

/// The records of `block` from `start` on, in order; ends after the first defect.
pub(super) fn records(block: &[u8], start: usize) -> Records<'_> {
    Records { block, start, at: start }
}

/// Iterator of [`records`].
pub(super) struct Records<'a> {
    block: &'a [u8],
    start: usize,
    at: usize,
}

impl Iterator for Records<'_> {
    type Item = Result<Record, Defect>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.block.len() {
            return None;
        }
        let record = record_at(self.block, self.at, self.at == self.start);
        self.at = record.as_ref().map_or(self.block.len(), |r| r.offset + r.len);
        Some(record)
    }
}

/// The record at `offset`, checked.
#[inline]
fn record_at(block: &[u8], offset: usize, first: bool) -> Result<Record, Defect> {
    let room = block.len() - offset;
    if room < DIRENT_SIZE {
        return Err(Defect("entries do not end at the block's end"));
    }
    let dirent = Dirent::view(&block[offset..]);
    let len = usize::from(dirent.rec_len.get());
    if len < DIRENT_SIZE || len % 8 != 0 {
        return Err(Defect("record length too small or misaligned"));
    }
    if len > room {
        return Err(Defect("record passes the block's end"));
    }
    let live = dirent.inum.addr.get() != 0 && dirent.inum.formal.get() != 0;
    let name_len = usize::from(dirent.name_len.get());
    if live && (name_len == 0 || name_len > NAME_MAX || DIRENT_SIZE + name_len > len) {
        return Err(Defect("name does not fit its record"));
    }
    if !live && !first {
        return Err(Defect("unused entry that is not the first"));
    }
    Ok(Record { offset, len, name_len, hash: dirent.hash.get(), live })
}

/// A record found by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Where it starts.
    pub(super) offset: usize,
    /// Where its predecessor starts; `None` when it is the first.
    pub(super) before: Option<usize>,
}

/// Finds a name. Looks no further than its record, as the kernel does.
pub(super) fn find(block: &[u8], start: usize, hash: DirHash, name: &[u8]) -> Result<Option<Found>, Defect> {
    let mut before = None;
    for record in records(block, start) {
        let record = record?;
        if record.hash == hash.0 && record.live && record.name(block) == name {
            return Ok(Some(Found { offset: record.offset, before }));
        }
        before = Some(record.offset);
    }
    Ok(None)
}

/// Name of the live record at `offset`, which a walk has checked.
pub(super) fn name(block: &[u8], offset: usize) -> &[u8] {
    let name_len = usize::from(Dirent::view(&block[offset..]).name_len.get());
    &block[offset + DIRENT_SIZE..][..name_len]
}

/// What the live record at `offset` leads to.
pub(super) fn entry(block: &[u8], offset: usize) -> Result<Entry, Defect> {
    let dirent = Dirent::view(&block[offset..]);
    let inum = dirent.inum.get().ok_or(Defect("entry without an inode"))?;
    let kind = DirentType::from_raw(dirent.kind.get()).ok_or(Defect("entry of unknown type"))?;
    Ok(Entry { inum, kind })
}

/// Live records of a block, all of it checked.
pub(super) fn count(block: &[u8], start: usize) -> Result<u32, Defect> {
    records(block, start).try_fold(0, |n, record| Ok(n + u32::from(record?.live)))
}

/// Where a new record can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// The record that gives the room.
    giver: usize,
    /// Where the new record starts: at the giver when it is a sentinel, behind its name otherwise.
    offset: usize,
    /// Length of the new record.
    len: usize,
}

/// The first room for a record of `need` bytes (`dirent_len` of its name).
pub(super) fn find_room(block: &[u8], start: usize, need: usize) -> Result<Option<Room>, Defect> {
    for record in records(block, start) {
        let record = record?;
        let used = record.used();
        if record.len >= used + need {
            return Ok(Some(Room { giver: record.offset, offset: record.offset + used, len: record.len - used }));
        }
    }
    Ok(None)
}

/// A name to be inserted.
#[derive(Clone, Copy, Debug)]
pub(super) struct NewEntry<'a> {
    /// 1..=255 bytes.
    pub(super) name: &'a [u8],
    /// Its hash.
    pub(super) hash: DirHash,
    /// Where it leads.
    pub(super) entry: Entry,
    /// The inode's EA block follows its dinode.
    pub(super) rahead: bool,
}

/// Writes a record into room that `find_room` found in this block for this name.
pub(super) fn insert(block: &mut [u8], room: Room, new: &NewEntry<'_>) {
    if room.offset != room.giver {
        set_len(block, room.giver, room.offset - room.giver);
    }
    write_record(block, room.offset, room.len, new);
}

/// Writes a whole record: header, name, padding of the name.
pub(super) fn write_record(block: &mut [u8], offset: usize, len: usize, new: &NewEntry<'_>) {
    let record = &mut block[offset..][..dirent_len(new.name.len())];
    record.fill(0);
    *Dirent::edit(record) = Dirent {
        inum: DiskInum::new(new.entry.inum),
        hash: new.hash.0.into(),
        rec_len: (len as u16).into(),
        name_len: (new.name.len() as u16).into(),
        kind: (new.entry.kind as u16).into(),
        rahead: u16::from(new.rahead).into(),
        pad: [0; 12],
    };
    record[DIRENT_SIZE..][..new.name.len()].copy_from_slice(new.name);
}

/// Deletes a record: the first becomes a sentinel, any other is swallowed by its predecessor.
pub(super) fn delete(block: &mut [u8], found: Found) {
    match found.before {
        None => Dirent::edit(&mut block[found.offset..]).inum = DiskInum::default(),
        Some(before) => {
            let len = usize::from(Dirent::view(&block[found.offset..]).rec_len.get());
            set_len(block, before, found.offset + len - before);
        }
    }
}

/// Points the record at `offset` at another inode.
pub(super) fn redirect(block: &mut [u8], offset: usize, to: Entry) {
    let dirent = Dirent::edit(&mut block[offset..]);
    dirent.inum = DiskInum::new(to.inum);
    dirent.kind.set(to.kind as u16);
    dirent.rahead.set(0);
}

/// Makes the block empty from `start` on: one sentinel.
pub(super) fn clear(block: &mut [u8], start: usize) {
    block[start..].fill(0);
    let len = block.len() - start;
    set_len(block, start, len);
}

/// Sets the length of the record at `offset`; at most 65432, what a leaf of the largest block holds.
pub(super) fn set_len(block: &mut [u8], offset: usize, len: usize) {
    Dirent::edit(&mut block[offset..]).rec_len.set(len as u16);
}
