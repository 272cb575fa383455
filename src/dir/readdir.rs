//! Listing (ondisk.md 5.8), in the order of the names' hashes, whatever the directory's shape.
//!
//! An entry's position is made of its name alone. A listing is resumed at a position, and everything that still exists
//! behind it is found there, also when leaves have split or the linear directory has become a hashed one in between.

use super::block::{self, Defect, records};
use super::exhash::{Chain, LeafBlock, is_exhash};
use super::hash::{self, POSITION_MAX, Run, hash_of_position, position};
use super::table::Table;
use super::{Cookie, Listed, linear};
use crate::error::Result;
use crate::format::dinode::DINODE_SIZE;
use crate::format::directory::LEAF_SIZE;
use crate::ids::{BlockAddr, DirHash};
use crate::inode::{Inode, Volume};

/// Leaves that are read ahead of a listing.
const READ_AHEAD: usize = 32;
/// Slots looked at for that: a listing in small pieces must not look through a large table that leads to few leaves each time.
const LOOK_AHEAD: u32 = 1024;

/// Lists from `from` on, `.` and `..` included, until `each` says false or the end. Checks entry counts as the kernel does.
pub fn list(vol: &Volume, dir: &Inode, from: Cookie, each: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<()> {
    if is_exhash(dir) { list_leaves(vol, dir, from, each) } else { list_linear(vol, dir, from, each) }
}

fn list_linear(vol: &Volume, dir: &Inode, from: Cookie, each: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<()> {
    linear::check_shape(vol, dir)?;
    let buffer = dir.buffer(vol)?;
    let bytes = buffer.bytes();
    let mut page = Page::default();
    let live = page.gather(&bytes, DINODE_SIZE, 0, from, (0, u32::MAX)).map_err(|d| d.at(buffer.addr()))?;
    if live != dir.dinode.entries.get() {
        return Err(Defect("wrong number of entries").at(buffer.addr()));
    }
    page.emit(from, each, |_| (&bytes, buffer.addr()))?;
    Ok(())
}

fn list_leaves(vol: &Volume, dir: &Inode, from: Cookie, each: &mut dyn FnMut(Listed<'_>) -> bool) -> Result<()> {
    let mut table = Table::open(vol, dir)?;
    let depth = table.depth;
    let mut index = hash::index(DirHash(hash_of_position(from)), depth);
    let (mut page, mut leaves) = (Page::default(), Vec::<LeafBlock>::new());
    let mut ahead = index;
    while index < 1 << depth {
        if index >= ahead {
            ahead = read_ahead(vol, dir, &mut table, index)?;
        }
        let first = table.leaf(index)?;
        leaves.clear();
        let mut chain = Chain::new(vol, dir, depth, first);
        let mut run = Run { start: index, len: 1 };
        while let Some(leaf) = chain.next()? {
            if leaves.is_empty() {
                run = Run::around(index, depth, leaf.depth());
            }
            gather_leaf(&mut page, &leaf, leaves.len(), from, run.bounds(depth))?;
            leaves.push(leaf);
        }
        let more = page.emit(from, each, |number| {
            let leaf: &LeafBlock = &leaves[number as usize];
            (&leaf.bytes, leaf.buffer.addr())
        })?;
        if !more {
            return Ok(());
        }
        index = run.end();
    }
    Ok(())
}

/// Asks for the next leaves of the table from slot `index` on; says up to which slot.
fn read_ahead(vol: &Volume, dir: &Inode, table: &mut Table<'_>, index: u32) -> Result<u32> {
    let mut addrs: Vec<BlockAddr> = Vec::with_capacity(READ_AHEAD);
    let mut end = index;
    while end < 1 << table.depth && addrs.len() < READ_AHEAD && end - index < LOOK_AHEAD {
        let leaf = table.leaf(end)?;
        if addrs.last() != Some(&leaf) {
            addrs.push(leaf);
        }
        end += 1;
    }
    vol.cache.read_ahead(&addrs, dir.lock_name());
    Ok(end)
}

fn gather_leaf(page: &mut Page, leaf: &LeafBlock, number: usize, from: Cookie, bounds: (u32, u32)) -> Result<()> {
    let number = u32::try_from(number).map_err(|_| leaf.bad(Defect("leaf chain without end")))?;
    let live = page.gather(&leaf.bytes, LEAF_SIZE, number, from, bounds).map_err(|d| leaf.bad(d))?;
    if live != u32::from(leaf.header().entries.get()) {
        return Err(leaf.bad(Defect("wrong number of entries in a leaf")));
    }
    Ok(())
}

/// Entries of one linear directory or leaf chain that are to be listed.
#[derive(Default)]
struct Page {
    /// Position, number of the block in the chain, offset of the record.
    found: Vec<(u64, u32, u32)>,
}

impl Page {
    /// Collects the entries of a block that may be at or behind `from`; counts all live ones. A stored hash outside the leaf's
    /// run (it is wrong: the name can be listed but not looked up) is taken as the nearest inside, so that positions never go
    /// back.
    fn gather(
        &mut self,
        block: &[u8],
        start: usize,
        number: u32,
        from: Cookie,
        bounds: (u32, u32),
    ) -> Result<u32, Defect> {
        let (mut live, lowest) = (0, hash_of_position(from));
        for record in records(block, start) {
            let record = record?;
            if !record.live {
                continue;
            }
            live += 1;
            let hash = record.hash.clamp(bounds.0, bounds.1);
            if hash >= lowest {
                self.found.push((position(hash, record.name(block)), number, record.offset as u32));
            }
        }
        Ok(live)
    }

    /// Lists what was gathered, from `from` on, and forgets it; false when `each` has enough. `blocks` gives contents and
    /// address of a block by its number.
    fn emit<'b>(
        &mut self,
        from: Cookie,
        each: &mut dyn FnMut(Listed<'_>) -> bool,
        blocks: impl Fn(u32) -> (&'b [u8], BlockAddr),
    ) -> Result<bool> {
        let name = |number, offset: u32| block::name(blocks(number).0, offset as usize);
        self.found.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| name(a.1, a.2).cmp(name(b.1, b.2))));
        let mut least = 0;
        for (position, number, offset) in self.found.drain(..) {
            // Two names of one position (both hashes agree): the later moves up, so that a listing can stop between them.
            let position = position.max(least).min(POSITION_MAX);
            least = position + 1;
            if position < from {
                continue;
            }
            let (bytes, addr) = blocks(number);
            let entry = block::entry(bytes, offset as usize).map_err(|d| d.at(addr))?;
            if !each(Listed { name: block::name(bytes, offset as usize), entry, next: position + 1 }) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
