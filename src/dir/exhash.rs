//! Finding things in a hashed directory: leaf chains and names (ondisk.md 5.5).

use super::block::{self, Defect, Found};
use super::table::Table;
use super::{Entry, hash};
use crate::cache::Buffer;
use crate::error::{CorruptKind, Error, Result};
use crate::format::directory::LEAF_SIZE;
use crate::format::{DiFlags, Leaf, MetaType, OnDisk};
use crate::ids::{BlockAddr, DirHash};
use crate::inode::{Inode, Volume};
use std::sync::Arc;

/// True for a directory with a hash table.
pub(super) fn is_exhash(dir: &Inode) -> bool {
    dir.flags().has(DiFlags::EXHASH)
}

/// Where a name is.
pub(super) struct Place {
    /// The block with its record.
    pub(super) buffer: Arc<Buffer>,
    /// Contents of that block.
    pub(super) bytes: Arc<[u8]>,
    /// The record.
    pub(super) found: Found,
    /// The block is a leaf; otherwise it is the dinode.
    pub(super) leaf: bool,
}

impl Place {
    /// Where the name leads.
    pub(super) fn entry(&self) -> Result<Entry> {
        block::entry(&self.bytes, self.found.offset).map_err(|d| d.at(self.buffer.addr()))
    }
}

/// A leaf in memory.
pub(super) struct LeafBlock {
    /// Its buffer.
    pub(super) buffer: Arc<Buffer>,
    /// Its contents.
    pub(super) bytes: Arc<[u8]>,
}

impl LeafBlock {
    /// Its header.
    pub(super) fn header(&self) -> &Leaf {
        Leaf::view(&self.bytes)
    }
    /// Hash bits that its entries share.
    pub(super) fn depth(&self) -> u32 {
        u32::from(self.header().depth.get())
    }
    /// A defect of this leaf.
    pub(super) fn bad(&self, defect: Defect) -> Error {
        defect.at(self.buffer.addr())
    }
}

/// Walks a chain of leaves; notices when it runs in a circle (Brent's algorithm: the walk is compared with one earlier
/// block, which is moved up at every power of two).
pub(super) struct Chain<'a> {
    vol: &'a Volume,
    dir: &'a Inode,
    depth: u32,
    next: Option<BlockAddr>,
    mark: Option<BlockAddr>,
    steps: u32,
    stride: u32,
}

impl<'a> Chain<'a> {
    /// The chain that starts with leaf `first` in a table of this depth.
    pub(super) fn new(vol: &'a Volume, dir: &'a Inode, depth: u32, first: BlockAddr) -> Self {
        Self { vol, dir, depth, next: Some(first), mark: None, steps: 0, stride: 1 }
    }

    /// The next leaf, checked.
    pub(super) fn next(&mut self) -> Result<Option<LeafBlock>> {
        let Some(addr) = self.next else { return Ok(None) };
        let buffer = self.vol.cache.meta(addr, self.dir.lock_name(), MetaType::Leaf)?;
        let leaf = LeafBlock { bytes: buffer.bytes(), buffer };
        if leaf.depth() > self.depth {
            return Err(leaf.bad(Defect("leaf deeper than the hash table")));
        }
        let raw = leaf.header().next.get();
        self.next = BlockAddr::new(raw);
        if let Some(next) = self.next {
            if !self.vol.rgrps.owns(next) {
                return Err(Error::corrupt(addr, CorruptKind::Pointer(raw)));
            }
            if self.mark == self.next || next == addr {
                return Err(leaf.bad(Defect("leaf chain runs in a circle")));
            }
            self.steps += 1;
            if self.steps == self.stride {
                (self.mark, self.steps, self.stride) = (self.next, 0, self.stride.saturating_mul(2));
            }
        }
        Ok(Some(leaf))
    }
}

/// Finds a name.
pub(super) fn find(vol: &Volume, dir: &Inode, hash: DirHash, name: &[u8]) -> Result<Option<Place>> {
    let mut table = Table::open(vol, dir)?;
    let first = table.leaf(hash::index(hash, table.depth))?;
    let mut chain = Chain::new(vol, dir, table.depth, first);
    while let Some(leaf) = chain.next()? {
        if let Some(found) = block::find(&leaf.bytes, LEAF_SIZE, hash, name).map_err(|d| leaf.bad(d))? {
            return Ok(Some(Place { buffer: leaf.buffer, bytes: leaf.bytes, found, leaf: true }));
        }
    }
    Ok(None)
}
