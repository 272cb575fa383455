//! Saving a volume's metadata, and none of its users' data: for others to look at what is wrong with it.
//!
//! Saved are the superblock, every resource group, every dinode that a bitmap names, and what these lead to: pointer blocks,
//! hash tables, leaves, extended attributes, the contents of system files. Of a regular file that lies in its dinode only the
//! dinode's header is; of a journal only its metadata blocks. That is the set of blocks that the stock tool saves.
//!
//! The volume may be damaged in any way: what a block leads to is decided by `blocks` from its bytes, no block is saved twice,
//! and what cannot be right is counted and passed over. Memory: a bit for each block of the filesystem near which metadata
//! lies, and a few MiB.

mod blocks;
mod seen;

use super::metafile::Writer;
use crate::device::{AlignedBuf, BlockDevice};
use crate::format::rgrp::RgrpExtent;
use crate::format::superblock::SUPERBLOCK_OFFSET;
use crate::format::{MetaHeader, Superblock};
use crate::ids::{BlkState, BlockSize};
use crate::volume::{Identity, OpenError, rgrps_of};
use blocks::Role;
use seen::Seen;
use std::fs::File;
use std::io;
use std::sync::Arc;

/// Blocks read at once.
const WINDOW: usize = 512;
/// Problems that are told in words; the others are only counted.
const TOLD: usize = 20;

/// What is to be saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// What the bitmaps lead to; the whole device is searched when the rindex cannot be read.
    #[default]
    Reachable,
    /// Every block of the device that looks like metadata, and what it leads to.
    Everything,
    /// Superblock and resource groups.
    Rgrps,
}

/// What was saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Blocks.
    pub blocks: u64,
    /// Bytes of the filesystem.
    pub fs_bytes: u64,
    /// Bytes of a block.
    pub block_size: u32,
    /// Pointers that led to nothing sensible and blocks that could not be read.
    pub problems: u64,
    /// The first of them in words.
    pub told: Vec<String>,
}

/// Saves the metadata of the volume on `dev` into `file`, packed at `level` (0 to 9). `progress` is called now and then with
/// the share done and the blocks saved so far. Errors: no superblock; the file cannot be written.
pub fn save(
    dev: &Arc<dyn BlockDevice>,
    file: File,
    level: u32,
    scope: Scope,
    progress: &mut dyn FnMut(f64, u64),
) -> Result<Saved, OpenError> {
    let id = Identity::read(&**dev)?;
    let mut saved = Saved { block_size: id.superblock.bsize.get(), ..Saved::default() };
    let (rgrps, scope) = match rgrps_of(Arc::clone(dev)) {
        Ok(rgrps) if !rgrps.is_empty() => (rgrps, scope),
        found => {
            let why = found.err().map_or("it is empty".to_owned(), |e| e.to_string());
            saved.told.push(format!("the rindex cannot be used ({why}): every block of the device is looked at"));
            saved.problems = 1;
            (Vec::new(), Scope::Everything)
        }
    };
    let device_blocks = id.bs.block_of(dev.size());
    let end = rgrps.last().map_or(device_blocks, |last| last.end().min(device_blocks));
    saved.fs_bytes = end.saturating_mul(id.bs.bytes() as u64);
    let io = |e: io::Error| OpenError::Other(e.into());
    let mut saver = Saver {
        dev: &**dev,
        bs: id.bs,
        end,
        out: Writer::new(file, saved.fs_bytes, level).map_err(io)?,
        seen: Seen::default(),
        saved,
    };
    saver.run(&rgrps, scope, progress).map_err(io)?;
    let Saver { out, mut saved, .. } = saver;
    saved.blocks = out.records();
    out.finish().map_err(io)?;
    Ok(saved)
}

struct Saver<'d> {
    dev: &'d dyn BlockDevice,
    bs: BlockSize,
    /// Blocks of the filesystem.
    end: u64,
    out: Writer,
    seen: Seen,
    saved: Saved,
}

impl Saver<'_> {
    fn run(&mut self, rgrps: &[RgrpExtent], scope: Scope, progress: &mut dyn FnMut(f64, u64)) -> io::Result<()> {
        let sb = self.bs.block_of(SUPERBLOCK_OFFSET);
        self.save_superblock(sb)?;
        for (n, rgrp) in rgrps.iter().enumerate() {
            let bitmap = self.save_rgrp(rgrp)?;
            if scope == Scope::Reachable {
                self.follow_bitmap(rgrp, &bitmap)?;
            }
            progress((n + 1) as f64 / rgrps.len() as f64, self.out.records());
        }
        if scope == Scope::Everything {
            let mut at = sb + 1;
            while at < self.end {
                let upto = at.saturating_add(WINDOW as u64).min(self.end);
                self.follow((at..upto).map(|block| (block, Role::Found)).collect())?;
                at = upto;
                progress(at as f64 / self.end as f64, self.out.records());
            }
        }
        Ok(())
    }

    /// As much of it as there is; tools take its block size from it, so it comes first.
    fn save_superblock(&mut self, at: u64) -> io::Result<()> {
        let mut block = AlignedBuf::zeroed(4096);
        self.dev.read(SUPERBLOCK_OFFSET, &mut block)?;
        self.seen.insert(at);
        self.out.block(at, &block[..size_of::<Superblock>()])
    }

    /// Saves header and bitmap blocks; the bitmap in one piece.
    fn save_rgrp(&mut self, rgrp: &RgrpExtent) -> io::Result<Vec<u8>> {
        let mut bitmap = Vec::with_capacity(rgrp.bitbytes as usize);
        for n in 0..rgrp.length {
            let at = rgrp.addr.get().saturating_add(u64::from(n));
            let mut block = AlignedBuf::zeroed(self.bs.bytes());
            if let Err(e) = self.dev.read(at.saturating_mul(self.bs.bytes() as u64), &mut block) {
                self.problem(at, &format!("resource group cannot be read: {e}"));
                block.fill(0);
            } else if self.seen.insert(at) {
                self.out.block(at, &block)?;
            }
            let (offset, _, len) = rgrp.bitmap_part(self.bs, n);
            bitmap.extend_from_slice(&block[offset..offset + len as usize]);
        }
        Ok(bitmap)
    }

    /// Saves every dinode that the bitmap names and what it leads to.
    fn follow_bitmap(&mut self, rgrp: &RgrpExtent, bitmap: &[u8]) -> io::Result<()> {
        let mut dinodes = Vec::with_capacity(WINDOW);
        for index in 0..rgrp.data {
            let state = BlkState::from_bits(bitmap[index as usize / 4] >> (2 * (index % 4)));
            if matches!(state, BlkState::Dinode | BlkState::Unlinked) {
                dinodes.push((rgrp.block_at(index).get(), Role::Dinode));
            }
            if dinodes.len() == WINDOW {
                self.follow(std::mem::take(&mut dinodes))?;
            }
        }
        self.follow(dinodes)
    }

    /// Saves these blocks and all that they lead to, a window at a time; what a window leads to comes before what is beside it,
    /// so that what waits stays small.
    fn follow(&mut self, blocks: Vec<(u64, Role)>) -> io::Result<()> {
        let mut waiting = vec![blocks];
        while let Some(mut blocks) = waiting.pop() {
            let window = blocks.split_off(blocks.len().saturating_sub(WINDOW));
            if !blocks.is_empty() {
                waiting.push(blocks);
            }
            let next = self.window(window)?;
            if !next.is_empty() {
                waiting.push(next);
            }
        }
        Ok(())
    }

    /// Saves these blocks; what they lead to.
    fn window(&mut self, mut blocks: Vec<(u64, Role)>) -> io::Result<Vec<(u64, Role)>> {
        blocks.sort_by_key(|(at, _)| *at);
        let mut wanted = Vec::with_capacity(blocks.len());
        for (at, role) in blocks {
            if at >= self.end {
                self.problem(at, &format!("a pointer to {} past the end", role.name()));
            } else if role == Role::Found && self.seen.has(at) {
                // It was met on another way.
            } else if role == Role::Found || self.seen.insert(at) {
                wanted.push((at, role, AlignedBuf::zeroed(self.bs.bytes())));
            }
        }
        let bytes = self.bs.bytes() as u64;
        let mut ranges: Vec<(u64, &mut [u8])> =
            wanted.iter_mut().map(|(at, _, block)| (*at * bytes, &mut block[..])).collect();
        let all_read = self.dev.read_many(&mut ranges).is_ok();
        let mut next = Vec::new();
        for (at, role, mut block) in wanted {
            if !all_read && let Err(e) = self.dev.read(at * bytes, &mut block) {
                self.problem(at, &format!("{} cannot be read: {e}", role.name()));
                continue;
            }
            self.one(at, role, &block, &mut next)?;
        }
        Ok(next)
    }

    fn one(&mut self, at: u64, role: Role, block: &[u8], next: &mut Vec<(u64, Role)>) -> io::Result<()> {
        if !role.fits(block) {
            if role == Role::Found || role == Role::Logged {
                return Ok(());
            }
            self.problem(at, &format!("{} expected", role.name()));
            // Somebody else's data, it seems.
            if !MetaHeader::has_magic(block) {
                return Ok(());
            }
        } else {
            if role == Role::Found {
                self.seen.insert(at);
            }
            blocks::children(self.bs, block, role, next);
        }
        self.out.block(at, &block[..blocks::length(block, role)])
    }

    fn problem(&mut self, at: u64, what: &str) {
        self.saved.problems += 1;
        if self.saved.told.len() < TOLD {
            self.saved.told.push(format!("block {at}: {what}"));
        }
    }
}
