//! What the passes learn and share: the block map, the inodes, the names, the findings.

use crate::blockmap::{BlockKind, BlockMap, Claim};
use crate::issue::{IssueKind, Owner};
use crate::quick::Quick;
use crate::report::{Findings, Stats};
use gfs2r::format::dinode::mode::{S_IFDIR, S_IFMT};
use gfs2r::format::{DiFlags, MAGIC, MetaHeader, MetaType, OnDisk};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What is kept of a dinode.
#[derive(Clone, Debug)]
pub(crate) struct Inode {
    pub(crate) addr: u64,
    pub(crate) formal: u64,
    pub(crate) mode: u32,
    pub(crate) nlink: u32,
    pub(crate) flags: DiFlags,
    pub(crate) size: u64,
    /// UNLINKED in the bitmap.
    pub(crate) unlinked: bool,
    /// Something in it is wrong, so that what follows from it is not worth a finding of its own.
    pub(crate) damaged: bool,
    /// Blocks counted as its own.
    pub(crate) counted: u64,
    /// Entries that name it, `.` and `..` aside.
    pub(crate) refs: u32,
    /// Directories: entries that name directories, `.` and `..` aside.
    pub(crate) subdirs: u32,
    /// Directories: whom `.` names, {formal, addr}.
    pub(crate) dot: Option<(u64, u64)>,
    /// Directories: whom `..` names.
    pub(crate) dotdot: Option<(u64, u64)>,
    /// The entry (index into [`State::entries`]) that names it.
    pub(crate) entry: Option<u32>,
}

impl Inode {
    pub(crate) fn is_dir(&self) -> bool {
        self.mode & S_IFMT == S_IFDIR
    }
}

/// A directory entry other than `.` and `..`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// The directory: index into [`State::inodes`].
    pub(crate) parent: u32,
    /// The block the entry lies in.
    pub(crate) block: u64,
    pub(crate) formal: u64,
    pub(crate) addr: u64,
    pub(crate) kind: u16,
    name_at: usize,
    name_len: u8,
}

/// Finds inodes by address. They come sorted, as pass 1 visits them; the few that come later lie aside.
#[derive(Debug, Default)]
pub(crate) struct Index {
    addrs: Vec<u64>,
    numbers: Vec<u32>,
    later: HashMap<u64, u32>,
    /// Where the next look begins: neighbours in a directory are mostly neighbours on the disk.
    recent: Cell<usize>,
}

impl Index {
    /// Notes an address; a second number for it takes the place of the first.
    pub(crate) fn insert(&mut self, addr: u64, number: u32) {
        if self.addrs.last().is_none_or(|&last| last < addr) {
            self.addrs.push(addr);
            self.numbers.push(number);
        } else if let Ok(at) = self.addrs.binary_search(&addr) {
            self.numbers[at] = number;
        } else {
            self.later.insert(addr, number);
        }
    }
    pub(crate) fn get(&self, addr: &u64) -> Option<&u32> {
        let next = self.recent.get().saturating_add(1);
        let at = if self.addrs.get(next) == Some(addr) { Ok(next) } else { self.addrs.binary_search(addr) };
        match at {
            Ok(at) => {
                self.recent.set(at);
                self.numbers.get(at)
            }
            Err(_) => self.later.get(addr),
        }
    }
    pub(crate) fn contains_key(&self, addr: &u64) -> bool {
        self.get(addr).is_some()
    }
}

/// Blocks claimed more than once, and who claims them.
pub(crate) type Duplicates = BTreeMap<u64, Vec<Owner>>;

/// Everything the passes share, except the disk.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) map: BlockMap,
    pub(crate) found: Findings,
    pub(crate) stats: Stats,
    /// sb_fs_format.
    pub(crate) fs_format: u32,
    pub(crate) master: u64,
    pub(crate) root: u64,
    pub(crate) inodes: Vec<Inode>,
    /// Address to index into `inodes`.
    pub(crate) index: Index,
    pub(crate) entries: Vec<Entry>,
    pub(crate) names: Vec<u8>,
    /// Blocks that the bitmap calls dinodes and that are none, with the type found.
    pub(crate) no_dinodes: Vec<(u64, u32)>,
    /// Blocks that a second claim was made on.
    pub(crate) taken: BTreeSet<u64>,
    /// Set for the second walk: the claims on the blocks in question.
    pub(crate) watch: Option<Duplicates>,
    /// Dinodes found where the bitmap sees none, because an entry names them.
    pub(crate) strays: Vec<u64>,
    /// Set for the quick check.
    pub(crate) quick: Option<Quick>,
}

impl State {
    pub(crate) fn inode(&self, addr: u64) -> Option<&Inode> {
        self.index.get(&addr).map(|&i| &self.inodes[i as usize])
    }
    /// Keeps an inode; its place in the list. The quick check keeps few of them.
    pub(crate) fn add_inode(&mut self, inode: Inode) -> Option<u32> {
        let inode = self.add_inode_quickly(inode)?;
        // An inode takes a block of the device and a hundred bytes of memory: u32 is not the limit.
        let index = u32::try_from(self.inodes.len()).unwrap_or(u32::MAX);
        self.index.insert(inode.addr, index);
        self.inodes.push(inode);
        Some(index)
    }
    pub(crate) fn add_entry(&mut self, parent: u32, block: u64, inum: (u64, u64), kind: u16, name: &[u8]) {
        let name_at = self.names.len();
        self.names.extend_from_slice(name);
        let name_len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        self.entries.push(Entry { parent, block, formal: inum.0, addr: inum.1, kind, name_at, name_len });
    }
    /// Forgets the entries from this one on.
    pub(crate) fn forget_entries(&mut self, from: usize) {
        let names = self.entries.get(from).map_or(self.names.len(), |entry| entry.name_at);
        self.entries.truncate(from);
        self.names.truncate(names);
    }
    pub(crate) fn name(&self, entry: &Entry) -> &[u8] {
        &self.names[entry.name_at..entry.name_at + usize::from(entry.name_len)]
    }
    pub(crate) fn name_lossy(&self, entry: &Entry) -> String {
        lossy(self.name(entry))
    }

    /// Claims a block for `inode`. True when it is the inode's alone so far; else it must not be looked into.
    pub(crate) fn claim(&mut self, inode: &mut Inode, from: u64, addr: u64, kind: BlockKind) -> bool {
        if self.quick.is_some() {
            return self.claim_quickly(inode, addr, kind);
        }
        if let Some(owners) = self.watch.as_mut().and_then(|watch| watch.get_mut(&addr)) {
            owners.push(Owner { inode: inode.addr, kind });
        }
        match self.map.claim(addr, kind) {
            Claim::Granted => {
                inode.counted += 1;
                true
            }
            Claim::Taken => {
                inode.damaged = true;
                self.taken.insert(addr);
                false
            }
            Claim::Outside => {
                inode.damaged = true;
                self.found.add(from, inode.addr, IssueKind::PointerRange { pointer: addr, kind });
                false
            }
        }
    }

    /// Checks the header of one of the inode's metadata blocks. False when the block is of another type.
    pub(crate) fn header(
        &mut self,
        inode: &mut Inode,
        addr: u64,
        bytes: &[u8],
        kind: BlockKind,
        wanted: MetaType,
    ) -> bool {
        let header = MetaHeader::view(bytes);
        let found = if header.magic.get() == MAGIC { header.kind.get() } else { 0 };
        if found != wanted as u32 {
            inode.damaged = true;
            self.found.add(addr, inode.addr, IssueKind::BlockType { kind, wanted: wanted as u32, found });
            return false;
        }
        let (format, expected) = (header.format.get(), wanted.format());
        if format != expected {
            self.found.add(addr, inode.addr, IssueKind::BlockFormat { found: format, expected });
        }
        true
    }
}

/// A name for people.
pub(crate) fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_takes_any_order() {
        let mut index = Index::default();
        for (number, addr) in (0..).zip([10, 20, 30, 15, 40, 20]) {
            index.insert(addr, number);
        }
        let found = [10, 15, 20, 30, 40, 15, 12].map(|addr| index.get(&addr).copied());
        assert_eq!(found, [Some(0), Some(3), Some(5), Some(2), Some(4), Some(3), None]);
        assert!(index.contains_key(&40) && !index.contains_key(&41));
    }
}
