//! Freeing a range of a tree piece by piece (ondisk.md 4.6, 4.7).
//!
//! A piece is one transaction: blocks of one rgrp, whose lock is held, and pointers zeroed in a bounded number of blocks. Each
//! leaves the file consistent — pointers, bitmap and di_blocks agree — so the work may stop after any of them and be begun
//! again from the start: freed parts are zero pointers and cost nothing.
//!
//! A pointer block all of whose blocks go in the same piece goes with them and is not edited first: only the pointer to it, in
//! the block above, is zeroed. So freeing a large contiguous file logs bitmaps and hardly anything else.

use super::map::Node;
use super::metapath::Shape;
use crate::cache::Buffer;
use crate::error::{CorruptKind, Error, Result};
use crate::format::put_pointer;
use crate::ids::{BlockAddr, BlockSize};
use crate::inode::{Inode, Volume};
use crate::journal::{Reserve, Transaction};
use crate::rgrp::FreeSpace;
use std::sync::Arc;

/// Most log blocks a piece asks for: small enough for the smallest journal, large enough that few pieces are needed.
const LOG_MAX: u32 = 256;
/// How many of the last runs a freed block is tried to be joined to: data, its pointer block, and theirs.
const JOIN: usize = 4;

/// The range `from..to` of file blocks that is to be freed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Range {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Range {
    /// Everything.
    pub(crate) const ALL: Self = Self { from: 0, to: u64::MAX };
}

/// What one transaction frees.
pub(crate) struct Piece {
    runs: Vec<(BlockAddr, u64)>,
    edits: Vec<Edit>,
    revokes: u32,
    freed: u64,
    /// Nothing is left in the range after this piece.
    pub(crate) finished: bool,
}

/// Pointers of one block that are zeroed: (first slot, how many).
struct Edit {
    buffer: Arc<Buffer>,
    start: usize,
    slots: Vec<(u32, u32)>,
}

/// The first block in the range that is to be freed: data, or a pointer block that lies within the range and is empty.
pub(crate) fn first_work(vol: &Volume, inode: &Inode, range: Range) -> Result<Option<BlockAddr>> {
    if inode.is_stuffed() {
        return Ok(None);
    }
    let root = Node::root(vol, inode)?;
    first_in(vol, inode, range, &root, 0, 0)
}

fn first_in(
    vol: &Volume,
    inode: &Inode,
    range: Range,
    node: &Node,
    level: u16,
    base: u64,
) -> Result<Option<BlockAddr>> {
    let (shape, height) = (Shape::new(vol.bs), inode.dinode.height.get());
    let Some(part) = shape.part(height, level, base, range.from, range.to) else { return Ok(None) };
    let span = shape.span(height, level);
    for slot in part.first..part.end {
        let Some(addr) = node.get(vol, slot as usize)? else { continue };
        if level + 1 == height {
            return Ok(Some(addr));
        }
        let base = base.saturating_add(slot.saturating_mul(span));
        let child = Node::indirect(vol, inode, addr)?;
        if let Some(found) = first_in(vol, inode, range, &child, level + 1, base)? {
            return Ok(Some(found));
        }
        if shape.part(height, level + 1, base, range.from, range.to).is_some_and(|p| p.whole) {
            return Ok(Some(addr));
        }
    }
    Ok(None)
}

impl Piece {
    /// Plans what can be freed under the rgrp lock that `free` holds.
    pub(crate) fn plan(vol: &Volume, inode: &Inode, free: &FreeSpace<'_>, range: Range) -> Result<Self> {
        let mut planner = Planner {
            vol,
            inode,
            free,
            range,
            shape: Shape::new(vol.bs),
            height: inode.dinode.height.get(),
            log_max: LOG_MAX.min(vol.journal.max_reserve() / 2),
            revokes_max: u32::try_from(vol.bs.indirect_pointers()).unwrap_or(u32::MAX),
            touched: 0,
            bitmaps_max: free.log_blocks(1),
            full: false,
            piece: Self { runs: Vec::new(), edits: Vec::new(), revokes: 0, freed: 0, finished: true },
        };
        if planner.height > 0 {
            let root = Node::root(vol, inode)?;
            let Visit { slots, remains, .. } = planner.visit(&root, 0, 0)?;
            planner.record(root, slots);
            planner.piece.finished = !remains;
        }
        let mut piece = planner.piece;
        piece.runs.sort_unstable();
        piece.runs.dedup_by(|next, run| {
            let joins = run.0.get().checked_add(run.1) == Some(next.0.get());
            run.1 += if joins { next.1 } else { 0 };
            joins
        });
        Ok(piece)
    }

    /// Blocks it frees.
    pub(crate) fn freed(&self) -> u64 {
        self.freed
    }

    /// The log room it needs; `extra` runs are freed besides by the caller.
    pub(crate) fn reserve(&self, vol: &Volume, free: &FreeSpace<'_>, extra: u32) -> Reserve {
        let touched: u32 = self.runs.iter().map(|r| bitmaps(vol.bs, r.1)).fold(extra, u32::saturating_add);
        let edits = u32::try_from(self.edits.len()).unwrap_or(u32::MAX);
        let blocks = edits.saturating_add(free.log_blocks(touched)).saturating_add(2);
        Reserve::blocks(blocks).with_revokes(self.revokes.saturating_add(extra))
    }

    /// Frees; the caller writes the dinode back.
    pub(crate) fn apply(&self, tx: &mut Transaction<'_>, free: &mut FreeSpace<'_>, inode: &mut Inode) -> Result<()> {
        let owner = inode.owner();
        for &(start, blocks) in &self.runs {
            // A run lies in one rgrp, whose data blocks are counted in 32 bits.
            let blocks = u32::try_from(blocks).map_err(|_| pointer(inode, start))?;
            free.free(tx, start, blocks, owner)?;
        }
        for edit in &self.edits {
            tx.edit(&edit.buffer, |b| {
                for &(first, count) in &edit.slots {
                    for slot in first..first + count {
                        put_pointer(b, edit.start, slot as usize, None);
                    }
                }
            });
        }
        let left = inode.dinode.blocks.get().checked_sub(self.freed).filter(|&left| left > 0);
        let left = left
            .ok_or_else(|| Error::corrupt(inode.inum.addr, CorruptKind::Dinode("more blocks than di_blocks says")))?;
        inode.dinode.blocks.set(left);
        Ok(())
    }
}

fn pointer(inode: &Inode, to: BlockAddr) -> Error {
    Error::corrupt(inode.inum.addr, CorruptKind::Pointer(to.get()))
}

/// Bitmap blocks that a run of this length may touch beyond its first, plus one: how many small runs it counts for.
fn bitmaps(bs: BlockSize, blocks: u64) -> u32 {
    let each = (bs.bytes() as u64 - 128) * 4;
    u32::try_from(blocks / each + 1).unwrap_or(u32::MAX)
}

struct Planner<'a, 'r> {
    vol: &'a Volume,
    inode: &'a Inode,
    free: &'a FreeSpace<'r>,
    range: Range,
    shape: Shape,
    height: u16,
    log_max: u32,
    revokes_max: u32,
    /// Runs, each counted by the bitmap blocks it may touch.
    touched: u32,
    /// Log blocks that freeing one run more may take.
    bitmaps_max: u32,
    full: bool,
    piece: Piece,
}

/// What a visit of a pointer block found: the slots to zero in it, not recorded yet.
struct Visit {
    slots: Vec<(u32, u32)>,
    /// Something of the range stays below the block: of another rgrp, or for want of room.
    remains: bool,
    /// All that the block maps lies in the range.
    whole: bool,
}

impl Planner<'_, '_> {
    fn visit(&mut self, node: &Node, level: u16, base: u64) -> Result<Visit> {
        let mut out = Visit { slots: Vec::new(), remains: false, whole: false };
        let Some(part) = self.shape.part(self.height, level, base, self.range.from, self.range.to) else {
            return Ok(out);
        };
        out.whole = part.whole;
        let span = self.shape.span(self.height, level);
        let mut ahead = if level + 2 == self.height { part.first } else { part.end };
        for slot in part.first..part.end {
            let Some(addr) = node.get(self.vol, slot as usize)? else { continue };
            if self.full {
                out.remains = true;
                break;
            }
            if level + 1 == self.height {
                if self.take(addr, self.inode.is_jdata()) {
                    push(&mut out.slots, slot as u32);
                } else {
                    out.remains = true;
                }
                continue;
            }
            if slot >= ahead {
                ahead = node.read_ahead(self.vol, self.inode, slot, part.end);
            }
            let child = Node::indirect(self.vol, self.inode, addr)?;
            let below = self.visit(&child, level + 1, base.saturating_add(slot.saturating_mul(span)))?;
            if below.whole && !below.remains && self.take(addr, true) {
                push(&mut out.slots, slot as u32);
            } else {
                out.remains |= below.remains || below.whole;
                self.record(child, below.slots);
            }
        }
        Ok(out)
    }

    /// Adds a block to what is freed, if it is of this rgrp and there is room.
    fn take(&mut self, addr: BlockAddr, revoke: bool) -> bool {
        if !self.free.covers(addr) {
            return false;
        }
        // Blocks that may still be edited: those recorded, and those on the way from the dinode to here.
        let edits = self.piece.edits.len() as u32 + u32::from(self.height) + 2;
        if edits.saturating_add(self.bitmaps_max) > self.log_max && !self.piece.runs.is_empty() {
            self.full = true;
            return false;
        }
        if !self.join(addr) {
            self.piece.runs.push((addr, 1));
            self.touch(1);
        }
        self.piece.freed += 1;
        self.piece.revokes += u32::from(revoke);
        // One block more than the limit is no harm; it says that the piece is complete.
        self.full |= self.piece.revokes >= self.revokes_max;
        true
    }

    fn touch(&mut self, more: u32) {
        if more > 0 {
            self.touched += more;
            self.bitmaps_max = self.free.log_blocks(self.touched + 1);
        }
    }

    fn join(&mut self, addr: BlockAddr) -> bool {
        let bs = self.vol.bs;
        for run in self.piece.runs.iter_mut().rev().take(JOIN) {
            let before = bitmaps(bs, run.1);
            if run.0.checked_add(run.1) == Some(addr) {
                run.1 += 1;
            } else if addr.checked_add(1) == Some(run.0) {
                *run = (addr, run.1 + 1);
            } else {
                continue;
            }
            let more = bitmaps(bs, run.1) - before;
            self.touch(more);
            return true;
        }
        false
    }

    fn record(&mut self, node: Node, slots: Vec<(u32, u32)>) {
        if !slots.is_empty() {
            let (buffer, start) = node.release();
            self.piece.edits.push(Edit { buffer, start, slots });
        }
    }
}

/// Adds a slot to ranges of slots in ascending order.
fn push(slots: &mut Vec<(u32, u32)>, slot: u32) {
    match slots.last_mut() {
        Some((first, count)) if *first + *count == slot => *count += 1,
        _ => slots.push((slot, 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_gathered_into_ranges() {
        let mut slots = Vec::new();
        for s in [3, 4, 5, 9, 11, 12] {
            push(&mut slots, s);
        }
        assert_eq!(slots, [(3, 3), (9, 1), (11, 2)]);
    }

    #[test]
    fn long_runs_count_for_several() {
        let bs = BlockSize::new(512).expect("legal");
        assert_eq!((bitmaps(bs, 1), bitmaps(bs, 1535), bitmaps(bs, 1536)), (1, 1, 2));
    }
}
