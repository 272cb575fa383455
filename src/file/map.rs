//! Reading the tree: which block of the device holds a block of the file.
//!
//! Every pointer that is followed or handed out is checked against the resource groups, so that a lie on the disk ends in
//! [`Corrupt`](crate::error::Corrupt) and never in somebody else's block. A pointer block is read once per call that needs it.

use super::metapath::{Path, Shape};
use crate::cache::Buffer;
use crate::error::{CorruptKind, Error, Result};
use crate::format::dinode::DINODE_SIZE;
use crate::format::{MetaType, get_pointer};
use crate::ids::{BlockAddr, FileBlock};
use crate::inode::{Inode, Volume};
use std::sync::Arc;

/// A run of file blocks that is contiguous on the device, or a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First block on the device; `None` for a hole.
    pub start: Option<BlockAddr>,
    /// Length in blocks, at least 1.
    pub len: u64,
}

/// Pointer blocks that are read ahead in one go.
pub(super) const READ_AHEAD: usize = 64;

/// A pointer block and a snapshot of it.
pub(super) struct Node {
    pub(super) buffer: Arc<Buffer>,
    bytes: Arc<[u8]>,
    /// Where its pointers start: 232 in the dinode, 24 elsewhere.
    pub(super) start: usize,
}

impl Node {
    /// The dinode.
    pub(super) fn root(vol: &Volume, inode: &Inode) -> Result<Self> {
        let buffer = inode.buffer(vol)?;
        let bytes = buffer.bytes();
        Ok(Self { buffer, bytes, start: DINODE_SIZE })
    }
    /// An indirect block whose address was checked.
    pub(super) fn indirect(vol: &Volume, inode: &Inode, addr: BlockAddr) -> Result<Self> {
        let buffer = vol.cache.meta(addr, inode.lock_name(), MetaType::Indirect)?;
        let bytes = buffer.bytes();
        Ok(Self { buffer, bytes, start: 24 })
    }
    /// Pointer number `slot`, as it stands on the disk.
    pub(super) fn raw(&self, slot: usize) -> Option<BlockAddr> {
        get_pointer(&self.bytes, self.start, slot)
    }
    /// Pointer number `slot`, checked to point to a block that a file can own.
    pub(super) fn get(&self, vol: &Volume, slot: usize) -> Result<Option<BlockAddr>> {
        match self.raw(slot) {
            Some(p) if !vol.rgrps.owns(p) => Err(Error::corrupt(self.buffer.addr(), CorruptKind::Pointer(p.get()))),
            p => Ok(p),
        }
    }
    /// The block below `slot`, if there is one.
    pub(super) fn child(&self, vol: &Volume, inode: &Inode, slot: usize) -> Result<Option<Self>> {
        self.get(vol, slot)?.map(|p| Self::indirect(vol, inode, p)).transpose()
    }
    /// Gives up the snapshot, so that an edit of the block need not copy it: the buffer and where its pointers start.
    pub(super) fn release(self) -> (Arc<Buffer>, usize) {
        (self.buffer, self.start)
    }
    /// How many pointers there are.
    pub(super) fn slots(&self) -> usize {
        (self.bytes.len() - self.start) / 8
    }
    /// Reads the blocks that the next pointers from `slot` on (below `end`) lead to; returns the first slot not looked at.
    pub(super) fn read_ahead(&self, vol: &Volume, inode: &Inode, slot: u64, end: u64) -> u64 {
        let mut addrs = Vec::new();
        let mut at = slot;
        while at < end && addrs.len() < READ_AHEAD {
            addrs.extend(self.raw(at as usize).filter(|&p| vol.rgrps.owns(p)));
            at += 1;
        }
        if addrs.len() > 1 {
            vol.cache.read_ahead(&addrs, inode.lock_name());
        }
        at
    }
}

/// The pointer block that maps the file block of `path`, down to where the tree ends.
fn lowest(vol: &Volume, inode: &Inode, path: &Path, height: u16) -> Result<Option<Node>> {
    let mut node = Node::root(vol, inode)?;
    for level in 0..height - 1 {
        match node.child(vol, inode, path.slot(level))? {
            Some(child) => node = child,
            None => return Ok(None),
        }
    }
    Ok(Some(node))
}

/// The extent that starts at file block `from` (height ≥ 1), at most `max` blocks long. Pointers are checked against the
/// rgrps: one that no file can own is corruption. Blocks beyond the tree are a hole, and so is all of a stuffed file.
pub fn map(vol: &Volume, inode: &Inode, from: FileBlock, max: u64) -> Result<Extent> {
    let max = max.max(1);
    let shape = Shape::new(vol.bs);
    let height = inode.dinode.height.get();
    let Some(path) = shape.path(height, from) else { return Ok(Extent { start: None, len: max }) };
    let node = lowest(vol, inode, &path, height)?;
    let start = match &node {
        Some(node) => node.get(vol, path.last())?,
        None => None,
    };
    let (Some(node), Some(start)) = (node, start) else {
        let limit = from.0.saturating_add(max);
        let next = next_data(vol, inode, from.0, limit)?.unwrap_or(limit);
        return Ok(Extent { start: None, len: next.saturating_sub(from.0).max(1) });
    };
    let mut len = run(vol, &node, path.last(), start, max)?;
    let mut in_block = (node.slots() - path.last()) as u64;
    // The run goes on in the next pointer block when it filled this one.
    while len == in_block && len < max {
        let Some(path) = from.0.checked_add(len).and_then(|b| shape.path(height, FileBlock(b))) else { break };
        let Some(node) = lowest(vol, inode, &path, height)? else { break };
        let more = run(vol, &node, path.last(), start.saturating_add(len), max - len)?;
        len += more;
        in_block += node.slots() as u64;
    }
    Ok(Extent { start: Some(start), len })
}

/// How many pointers from `slot` on are `want`, `want`+1, …
fn run(vol: &Volume, node: &Node, slot: usize, want: BlockAddr, max: u64) -> Result<u64> {
    let mut len = 0;
    while len < max && slot + (len as usize) < node.slots() {
        if node.raw(slot + len as usize) != want.checked_add(len) {
            break;
        }
        node.get(vol, slot + len as usize)?;
        len += 1;
    }
    Ok(len)
}

/// The first file block in `from..limit` that has a block on the device. Whole empty subtrees are skipped.
pub(super) fn next_data(vol: &Volume, inode: &Inode, from: u64, limit: u64) -> Result<Option<u64>> {
    Search::new(vol, inode, limit, true).run(from)
}

/// The first file block in `from..limit` that has none.
pub(super) fn next_hole(vol: &Volume, inode: &Inode, from: u64, limit: u64) -> Result<Option<u64>> {
    let capacity = Shape::new(vol.bs).capacity(inode.dinode.height.get());
    let found = Search::new(vol, inode, limit.min(capacity), false).run(from)?;
    Ok(found.or((capacity < limit).then_some(capacity.max(from))))
}

/// A walk in file order for the first pointer that is set (or not set).
struct Search<'a> {
    vol: &'a Volume,
    inode: &'a Inode,
    shape: Shape,
    height: u16,
    limit: u64,
    data: bool,
    visited: u64,
}

impl<'a> Search<'a> {
    fn new(vol: &'a Volume, inode: &'a Inode, limit: u64, data: bool) -> Self {
        let height = inode.dinode.height.get();
        Self { vol, inode, shape: Shape::new(vol.bs), height, limit, data, visited: 0 }
    }

    fn run(&mut self, from: u64) -> Result<Option<u64>> {
        if self.height == 0 {
            return Ok(None);
        }
        let root = Node::root(self.vol, self.inode)?;
        self.visit(&root, 0, 0, from)
    }

    fn visit(&mut self, node: &Node, level: u16, base: u64, from: u64) -> Result<Option<u64>> {
        self.count()?;
        let span = self.shape.span(self.height, level);
        let Some(part) = self.shape.part(self.height, level, base, from, self.limit) else { return Ok(None) };
        let mut ahead = if level + 2 == self.height { part.first } else { part.end };
        for slot in part.first..part.end {
            let block = base.saturating_add(slot.saturating_mul(span));
            let pointer = node.get(self.vol, slot as usize)?;
            let Some(addr) = pointer else {
                if !self.data {
                    return Ok(Some(block.max(from)));
                }
                continue;
            };
            if level + 1 == self.height {
                if self.data {
                    return Ok(Some(block.max(from)));
                }
                continue;
            }
            // The first child alone answers most searches: no reading ahead for it.
            if slot >= ahead && slot > part.first {
                ahead = node.read_ahead(self.vol, self.inode, slot, part.end);
            }
            let child = Node::indirect(self.vol, self.inode, addr)?;
            if let Some(found) = self.visit(&child, level + 1, block, from)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// A tree has no more pointer blocks than the volume has blocks; one that seems to have points at itself.
    fn count(&mut self) -> Result<()> {
        self.visited += 1;
        if self.visited.is_multiple_of(1 << 20) {
            let all: u64 = self.vol.rgrps.extents().iter().map(|e| u64::from(e.data)).sum();
            if self.visited > all {
                return Err(Error::corrupt(
                    self.inode.inum.addr,
                    CorruptKind::Dinode("its pointer blocks form a circle"),
                ));
            }
        }
        Ok(())
    }
}

/// How much of the file blocks `a..=b` is there: pointer blocks by height above the data (index 0 = data blocks).
pub(super) fn present(vol: &Volume, inode: &Inode, a: u64, b: u64) -> Result<[u64; 11]> {
    let mut count = [0u64; 11];
    let height = inode.dinode.height.get();
    if height > 0 {
        let root = Node::root(vol, inode)?;
        count_present(vol, inode, &root, 0, 0, (a, b.saturating_add(1)), &mut count)?;
    }
    Ok(count)
}

fn count_present(
    vol: &Volume,
    inode: &Inode,
    node: &Node,
    level: u16,
    base: u64,
    range: (u64, u64),
    count: &mut [u64; 11],
) -> Result<()> {
    let (shape, height) = (Shape::new(vol.bs), inode.dinode.height.get());
    let Some(part) = shape.part(height, level, base, range.0, range.1) else { return Ok(()) };
    for slot in part.first..part.end {
        let Some(addr) = node.get(vol, slot as usize)? else { continue };
        count[usize::from(height - 1 - level)] += 1;
        if level + 1 < height {
            let child = Node::indirect(vol, inode, addr)?;
            let base = base.saturating_add(slot.saturating_mul(shape.span(height, level)));
            count_present(vol, inode, &child, level + 1, base, range, count)?;
        }
    }
    Ok(())
}
