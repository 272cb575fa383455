//! The system directories: linear until they overflow, then hashed (ondisk.md 5).
//!
//! A new filesystem's directories hold a few names, but with many journals or small blocks `jindex`, `per_node` and the
//! master directory outgrow their dinode.

use crate::Error;
use crate::system::{Inode, Space};
use crate::tree::{Block, Tree};
use gfs2r::format::checksum::dir_hash;
use gfs2r::format::directory::{DEPTH_MAX, DIRENT_SIZE, LEAF_SIZE, dirent_len};
use gfs2r::format::header::{FORMAT_DIRENT, MetaType};
use gfs2r::format::superblock::DiskInum;
use gfs2r::format::{DiFlags, Dirent, DirentType, Leaf, MetaHeader, OnDisk, put_pointer};
use gfs2r::ids::{BlockAddr, BlockSize, Inum};
use std::collections::BTreeMap;

/// A directory under construction.
pub(crate) struct Directory {
    bs: BlockSize,
    /// Its dinode.
    pub(crate) inode: Inode,
    /// The hash table; empty while linear.
    table: Vec<BlockAddr>,
    /// The table's own blocks, once it has outgrown the dinode.
    tree: Option<Tree>,
    leaves: BTreeMap<BlockAddr, Vec<u8>>,
}

impl Directory {
    /// An empty directory with `.` and `..`.
    pub(crate) fn new(bs: BlockSize, mut inode: Inode, parent: Inum) -> Self {
        let own = inode.inum();
        let dinode = inode.edit();
        dinode.nlink.set(2);
        dinode.size.set(bs.stuffed_max() as u64);
        dinode.payload_format.set(FORMAT_DIRENT);
        dinode.entries.set(2);
        let block = inode.block_mut();
        Dirent::edit(&mut block[232..]).rec_len.set(bs.stuffed_max() as u16);
        for (name, inum) in [(b".".as_slice(), own), (b"..", parent)] {
            let put = insert(block, 232, name, inum, DirentType::Dir);
            debug_assert!(put, "two short names fit in any dinode");
        }
        Self { bs, inode, table: Vec::new(), tree: None, leaves: BTreeMap::new() }
    }
    /// Adds a name; the directory grows as needed.
    pub(crate) fn add(&mut self, name: &str, inum: Inum, kind: DirentType, space: &mut Space) -> Result<(), Error> {
        let name = name.as_bytes();
        if self.table.is_empty() && !insert(self.inode.block_mut(), 232, name, inum, kind) {
            self.become_hashed(space)?;
        }
        if !self.table.is_empty() {
            self.add_hashed(name, inum, kind, space)?;
        }
        let dinode = self.inode.edit();
        dinode.entries.set(dinode.entries.get() + 1);
        if kind == DirentType::Dir {
            dinode.nlink.set(dinode.nlink.get() + 1);
        }
        Ok(())
    }
    /// The finished blocks.
    pub(crate) fn finish(mut self) -> Vec<Block> {
        let mut blocks: Vec<Block> = Vec::new();
        if !self.table.is_empty() {
            self.store_table(&mut blocks);
        }
        blocks.extend(self.leaves);
        blocks.push((self.inode.inum().addr, self.inode.into_block()));
        blocks
    }

    fn depth(&self) -> u32 {
        self.table.len().ilog2()
    }
    fn slot(&self, hash: u32) -> usize {
        (u64::from(hash) >> (32 - self.depth())) as usize
    }
    fn new_leaf(&mut self, depth: u16, space: &mut Space) -> Result<BlockAddr, Error> {
        let addr = space.allocate()?;
        let mut block = vec![0; self.bs.bytes()];
        MetaHeader::init(&mut block, MetaType::Leaf);
        let leaf = Leaf::edit(&mut block);
        leaf.depth.set(depth);
        leaf.dirent_format.set(FORMAT_DIRENT);
        leaf.inode.set(self.inode.inum().addr.get());
        Dirent::edit(&mut block[LEAF_SIZE..]).rec_len.set((self.bs.bytes() - LEAF_SIZE) as u16);
        self.leaves.insert(addr, block);
        let dinode = self.inode.edit();
        dinode.blocks.set(dinode.blocks.get() + 1);
        dinode.goal_meta.set(addr.get());
        Ok(addr)
    }
    /// Linear to hashed (5.6.2): the entries move to one leaf as they lie.
    fn become_hashed(&mut self, space: &mut Space) -> Result<(), Error> {
        let addr = self.new_leaf(0, space)?;
        let entries = self.inode.dinode().entries.get();
        let block = self.inode.block_mut();
        // The bytes a leaf has beyond a dinode become the last entry's.
        let extra = (232 - LEAF_SIZE) as u16;
        let last = entries_of(block, 232).last().map_or(232, |(offset, _)| offset);
        let dirent = Dirent::edit(&mut block[last..]);
        dirent.rec_len.set(dirent.rec_len.get() + extra);
        let moved = block[232..].to_vec();
        block[232..].fill(0);
        if let Some(leaf) = self.leaves.get_mut(&addr) {
            leaf[LEAF_SIZE..LEAF_SIZE + moved.len()].copy_from_slice(&moved);
            Leaf::edit(leaf).entries.set(entries as u16);
        }
        self.table = vec![addr; self.bs.bytes() / 16];
        let dinode = self.inode.edit();
        dinode.flags.set(dinode.flags().with(DiFlags::EXHASH).0);
        dinode.payload_format.set(0);
        Ok(())
    }
    fn add_hashed(&mut self, name: &[u8], inum: Inum, kind: DirentType, space: &mut Space) -> Result<(), Error> {
        let hash = dir_hash(name).0;
        loop {
            let addr = self.table[self.slot(hash)];
            let leaf = self.leaves.get_mut(&addr).ok_or(Error::NoSpace)?;
            if insert(leaf, LEAF_SIZE, name, inum, kind) {
                let leaf = Leaf::edit(leaf);
                leaf.entries.set(leaf.entries.get() + 1);
                return Ok(());
            }
            if u32::from(Leaf::view(leaf).depth.get()) == self.depth() {
                if self.depth() == u32::from(DEPTH_MAX) {
                    return Err(Error::NoSpace);
                }
                self.double(space)?;
            }
            self.split(hash, space)?;
        }
    }
    /// Splits the leaf of `hash` (5.6.3): the lower half of its table slots, and their entries, move to a new leaf.
    fn split(&mut self, hash: u32, space: &mut Space) -> Result<(), Error> {
        let (slot, old) = (self.slot(hash), self.table[self.slot(hash)]);
        let depth = self.leaves.get(&old).map_or(0, |leaf| Leaf::view(leaf).depth.get()) + 1;
        let new = self.new_leaf(depth, space)?;
        let run = self.table.len() >> (depth - 1);
        let start = slot & !(run - 1);
        self.table[start..start + run / 2].fill(new);
        let divider = ((start + run / 2) as u64) << (32 - self.depth());
        let (Some(mut from), Some(mut to)) = (self.leaves.remove(&old), self.leaves.remove(&new)) else {
            return Err(Error::NoSpace);
        };
        let (mut moved, mut offset, mut previous) = (0, LEAF_SIZE, None);
        while offset < from.len() {
            let dirent = *Dirent::view(&from[offset..]);
            let next = offset + usize::from(dirent.rec_len.get());
            if dirent.inum.get().is_some() && u64::from(dirent.hash.get()) < divider {
                copy_entry(&mut to, &from[offset..])?;
                remove(&mut from, offset, previous);
                moved += 1;
                // A first entry stays as a sentinel; any other has become part of the one before it.
                previous = previous.or(Some(offset));
            } else {
                previous = Some(offset);
            }
            offset = next;
        }
        let (old_leaf, new_leaf) = (Leaf::edit(&mut from), Leaf::edit(&mut to));
        old_leaf.depth.set(depth);
        old_leaf.entries.set(old_leaf.entries.get() - moved);
        new_leaf.entries.set(moved);
        self.leaves.insert(old, from);
        self.leaves.insert(new, to);
        Ok(())
    }
    /// Doubles the table (5.6.4), which gets blocks of its own once the dinode is too small for it.
    fn double(&mut self, space: &mut Space) -> Result<(), Error> {
        self.table = self.table.iter().flat_map(|&leaf| [leaf, leaf]).collect();
        if 8 * self.table.len() > self.bs.stuffed_max() {
            let blocks = self.table.len().div_ceil(self.bs.payload() / 8) as u64;
            let tree = self.tree.get_or_insert_with(|| Tree::new(self.bs, 1));
            tree.grow(&mut self.inode, space, blocks)?;
        }
        Ok(())
    }
    /// Writes the table into the dinode or its blocks.
    fn store_table(&mut self, blocks: &mut Vec<Block>) {
        let depth = self.depth() as u16;
        let dinode = self.inode.edit();
        dinode.size.set(8 * self.table.len() as u64);
        dinode.depth.set(depth);
        let Some(tree) = self.tree.take() else {
            for (i, &leaf) in self.table.iter().enumerate() {
                put_pointer(self.inode.block_mut(), 232, i, Some(leaf));
            }
            return;
        };
        let (indirect, data) = tree.finish();
        blocks.extend(indirect);
        for (addr, leaves) in data.into_iter().zip(self.table.chunks(self.bs.payload() / 8)) {
            let mut block = vec![0; self.bs.bytes()];
            MetaHeader::init(&mut block, MetaType::JournaledData);
            for (i, &leaf) in leaves.iter().enumerate() {
                put_pointer(&mut block, 24, i, Some(leaf));
            }
            blocks.push((addr, block));
        }
    }
}

/// Offsets and lengths of the entries from `start` to the end of a block we made ourselves.
fn entries_of(block: &[u8], start: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut offset = start;
    std::iter::from_fn(move || {
        let len =
            usize::from(Dirent::view(block.get(offset..).filter(|rest| rest.len() >= DIRENT_SIZE)?).rec_len.get());
        let this = offset;
        offset += len.max(DIRENT_SIZE);
        Some((this, len))
    })
}

/// Puts a name into the first space that is large enough (5.6.1). False when there is none.
fn insert(block: &mut [u8], start: usize, name: &[u8], inum: Inum, kind: DirentType) -> bool {
    let need = dirent_len(name.len());
    let found = entries_of(block, start).find_map(|(offset, len)| {
        let dirent = Dirent::view(&block[offset..]);
        let taken = if dirent.inum.get().is_some() { dirent_len(dirent.name_len.get().into()) } else { 0 };
        (len >= taken + need).then_some((offset, len, taken))
    });
    let Some((offset, len, taken)) = found else { return false };
    if taken > 0 {
        Dirent::edit(&mut block[offset..]).rec_len.set(taken as u16);
    }
    let at = offset + taken;
    // The header as a whole: here may lie the remains of an earlier entry. Behind the name they stay.
    block[at..at + DIRENT_SIZE].fill(0);
    let dirent = Dirent::edit(&mut block[at..]);
    dirent.inum = DiskInum::new(inum);
    dirent.hash.set(dir_hash(name).0);
    dirent.rec_len.set((len - taken) as u16);
    dirent.name_len.set(name.len() as u16);
    dirent.kind.set(kind as u16);
    block[at + DIRENT_SIZE..at + DIRENT_SIZE + name.len()].copy_from_slice(name);
    true
}

/// Adds a copy of the entry at the start of `entry` to a leaf. The kernel would keep its offset, the stock tool closes the
/// gaps; any place is right.
fn copy_entry(leaf: &mut [u8], entry: &[u8]) -> Result<(), Error> {
    let dirent = Dirent::view(entry);
    let name = &entry[DIRENT_SIZE..DIRENT_SIZE + usize::from(dirent.name_len.get())];
    match (dirent.inum.get(), DirentType::from_raw(dirent.kind.get())) {
        (Some(inum), Some(kind)) if insert(leaf, LEAF_SIZE, name, inum, kind) => Ok(()),
        _ => Err(Error::NoSpace),
    }
}

/// Removes the entry at `offset` (5.7): a first entry loses its inum, another one is joined to the one before it.
fn remove(leaf: &mut [u8], offset: usize, previous: Option<usize>) {
    match previous {
        None => Dirent::edit(&mut leaf[offset..]).inum = DiskInum::default(),
        Some(previous) => {
            let len = Dirent::view(&leaf[offset..]).rec_len.get();
            let dirent = Dirent::edit(&mut leaf[previous..]);
            dirent.rec_len.set(dirent.rec_len.get() + len);
        }
    }
}
