//! Reading system files before there are glocks, a journal or rgrps: just enough to find them (ondisk.md 1.6, 7).
//!
//! Everything here reads through a cache of its own, which is dropped once the journals are recovered: a replay may change
//! what was read.

use super::held::Locks;
use crate::cache::Cache;
use crate::error::{CorruptKind, Error, Result};
use crate::format::dinode::DINODE_SIZE;
use crate::format::directory::{DIRENT_SIZE, LEAF_SIZE};
use crate::format::rgrp::RgrpExtent;
use crate::format::{DiFlags, Dinode, Dirent, Leaf, MetaType, OnDisk, RindexEntry, get_pointer, get_u64};
use crate::glock::LockState;
use crate::ids::{BlockAddr, LockName};
use crate::journal::LogExtent;
use crate::rgrp::parse_rindex;
use std::collections::HashSet;
use std::sync::Arc;

/// Largest system file that is read whole: an rindex of 2^20 groups.
const WHOLE_MAX: u64 = 96 << 20;
/// Journals lie between 8 MiB and 1 GiB (ondisk.md 2.7).
const JOURNAL_BYTES: std::ops::RangeInclusive<u64> = 8 << 20..=1 << 30;

/// A system file: its dinode and the block that holds it.
pub(super) struct SystemFile {
    pub(super) addr: BlockAddr,
    pub(super) dinode: Dinode,
    block: Arc<[u8]>,
}

/// Reads system files through a cache.
pub(super) struct Bootstrap<'c> {
    pub(super) cache: &'c Cache,
    /// The locks under which this is done.
    pub(super) locks: &'c Locks,
}

impl Bootstrap<'_> {
    /// The file whose dinode is at `addr`.
    pub(super) fn open(&self, addr: BlockAddr) -> Result<SystemFile> {
        self.locks.hold(addr, LockState::Shared)?;
        let block = self.cache.meta(addr, LockName::inode(addr), MetaType::Dinode)?.bytes();
        let dinode = crate::inode::check_dinode(&block, addr, self.cache.block_size())?;
        Ok(SystemFile { addr, dinode, block })
    }

    /// The file that `name` in `dir` leads to; `None` when there is no such name.
    pub(super) fn find(&self, dir: &SystemFile, name: &[u8]) -> Result<Option<SystemFile>> {
        self.entry(dir, name)?.map(|addr| self.open(addr)).transpose()
    }

    /// Where `name` in `dir` leads to.
    fn entry(&self, dir: &SystemFile, name: &[u8]) -> Result<Option<BlockAddr>> {
        if dir.dinode.flags().has(DiFlags::EXHASH) {
            self.find_hashed(dir, name)
        } else {
            scan(&dir.block, DINODE_SIZE, dir.addr, name)
        }
    }

    /// The same, where a missing name is corruption.
    pub(super) fn must_find_entry(&self, dir: &SystemFile, name: &[u8], what: &'static str) -> Result<BlockAddr> {
        self.entry(dir, name)?.ok_or_else(|| Error::corrupt(dir.addr, CorruptKind::SystemFile(what)))
    }

    /// The same, where a missing name is corruption.
    pub(super) fn must_find(&self, dir: &SystemFile, name: &[u8], what: &'static str) -> Result<SystemFile> {
        self.find(dir, name)?.ok_or_else(|| Error::corrupt(dir.addr, CorruptKind::SystemFile(what)))
    }

    /// Looks through every leaf of a hashed directory: these directories are small.
    fn find_hashed(&self, dir: &SystemFile, name: &[u8]) -> Result<Option<BlockAddr>> {
        let table = self.contents(dir)?;
        let mut seen = HashSet::new();
        for slot in table.chunks_exact(8) {
            let mut leaf = BlockAddr::new(get_u64(slot, 0));
            while let Some(addr) = leaf {
                if !seen.insert(addr) {
                    break;
                }
                let block = self.cache.meta(addr, LockName::inode(dir.addr), MetaType::Leaf)?.bytes();
                if let Some(found) = scan(&block, LEAF_SIZE, addr, name)? {
                    return Ok(Some(found));
                }
                leaf = BlockAddr::new(Leaf::view(&block).next.get());
            }
        }
        Ok(None)
    }

    /// The whole contents of a small file.
    pub(super) fn contents(&self, file: &SystemFile) -> Result<Vec<u8>> {
        let size = file.dinode.size.get();
        if size > WHOLE_MAX {
            return Err(Error::corrupt(file.addr, CorruptKind::SystemFile("implausibly large")));
        }
        let size = size as usize;
        if file.dinode.height.get() == 0 {
            let end = DINODE_SIZE + size.min(file.block.len() - DINODE_SIZE);
            return Ok(file.block[DINODE_SIZE..end].to_vec());
        }
        let bs = self.cache.block_size();
        let is_dir = file.dinode.mode.get() & 0o170000 == 0o040000;
        let (start, payload) = if is_dir { (24, bs.payload()) } else { (0, bs.bytes()) };
        let mut out = Vec::with_capacity(size);
        for block in self.blocks(file, size.div_ceil(payload))? {
            match block {
                Some(addr) if is_dir => {
                    let b = self.cache.meta(addr, LockName::inode(file.addr), MetaType::JournaledData)?.bytes();
                    out.extend_from_slice(&b[start..]);
                }
                Some(addr) => {
                    let b = self.cache.jdata(addr, LockName::inode(file.addr))?.bytes();
                    out.extend_from_slice(&b);
                }
                None => out.resize(out.len() + payload, 0),
            }
        }
        out.truncate(size);
        Ok(out)
    }

    /// The addresses of the first `count` blocks of a file of height 1 or more.
    fn blocks(&self, file: &SystemFile, count: usize) -> Result<Vec<Option<BlockAddr>>> {
        let bs = self.cache.block_size();
        let mut level: Vec<Option<BlockAddr>> =
            (0..bs.dinode_pointers()).map(|i| get_pointer(&file.block, DINODE_SIZE, i)).collect();
        let inptrs = bs.indirect_pointers();
        for below in (0..file.dinode.height.get().saturating_sub(1)).rev() {
            let each = (0..below).fold(1u64, |n, _| n.saturating_mul(inptrs as u64)).saturating_mul(inptrs as u64);
            let needed = (count as u64).div_ceil(each);
            level.truncate(usize::try_from(needed).unwrap_or(usize::MAX));
            let addrs: Vec<BlockAddr> = level.iter().flatten().copied().collect();
            self.cache.read_ahead(&addrs, LockName::inode(file.addr));
            let mut next = Vec::with_capacity(level.len() * inptrs);
            for pointer in &level {
                match pointer {
                    Some(addr) => {
                        let b = self.cache.meta(*addr, LockName::inode(file.addr), MetaType::Indirect)?.bytes();
                        next.extend((0..inptrs).map(|i| get_pointer(&b, 24, i)));
                    }
                    None => next.resize(next.len() + inptrs, None),
                }
            }
            level = next;
        }
        level.resize(count, None);
        Ok(level)
    }

    /// Every block of a file without holes: a quota_change file.
    pub(super) fn all_blocks(&self, file: &SystemFile) -> Result<Vec<BlockAddr>> {
        let wrong =
            || Error::corrupt(file.addr, CorruptKind::SystemFile("quota_change file with a hole or a wild size"));
        let size = file.dinode.size.get();
        if size == 0 || size > 64 << 20 || file.dinode.height.get() == 0 {
            return Err(wrong());
        }
        let count = self.cache.block_size().blocks_for(size) as usize;
        self.blocks(file, count)?.into_iter().map(|b| b.ok_or_else(wrong)).collect()
    }

    /// The runs of a journal's blocks, in order. Size limits and holes are checked (ondisk.md 2.7).
    pub(super) fn journal_extents(&self, file: &SystemFile) -> Result<Vec<LogExtent>> {
        let wrong = |what| Error::corrupt(file.addr, CorruptKind::Journal(what));
        let bs = self.cache.block_size();
        let size = file.dinode.size.get();
        if !JOURNAL_BYTES.contains(&size) || bs.within(size) != 0 {
            return Err(wrong("its size is not a multiple of the block size between 8 MiB and 1 GiB"));
        }
        if file.dinode.height.get() == 0 {
            return Err(wrong("it has no blocks"));
        }
        let device_blocks = self.cache.device().size() >> bs.shift();
        let mut extents: Vec<LogExtent> = Vec::new();
        for block in self.blocks(file, (size >> bs.shift()) as usize)? {
            let addr = block.ok_or_else(|| wrong("it has a hole"))?;
            if addr.get() >= device_blocks {
                return Err(wrong("it reaches past the end of the device"));
            }
            match extents.last_mut() {
                Some(last) if last.addr.checked_add(u64::from(last.blocks)) == Some(addr) => last.blocks += 1,
                _ => extents.push(LogExtent { addr, blocks: 1 }),
            }
        }
        Ok(extents)
    }

    /// The checked rindex.
    pub(super) fn rindex(&self, file: &SystemFile) -> Result<Vec<RgrpExtent>> {
        let wrong = |what| Error::corrupt(file.addr, CorruptKind::Rgrp(what));
        let size = file.dinode.size.get();
        if size == 0 || !size.is_multiple_of(size_of::<RindexEntry>() as u64) {
            return Err(wrong("rindex whose size is not a multiple of 96"));
        }
        parse_rindex(&self.contents(file)?, self.cache.block_size(), file.addr)
    }
}

/// Looks for a name among the entries of one block; the whole chain is checked.
fn scan(block: &[u8], start: usize, at: BlockAddr, name: &[u8]) -> Result<Option<BlockAddr>> {
    let wrong = || Error::corrupt(at, CorruptKind::Directory("entry chain is broken"));
    let mut offset = start;
    let mut found = None;
    while offset < block.len() {
        if block.len() - offset < DIRENT_SIZE {
            return Err(wrong());
        }
        let entry = Dirent::view(&block[offset..]);
        let (len, name_len) = (usize::from(entry.rec_len.get()), usize::from(entry.name_len.get()));
        if len < DIRENT_SIZE || len % 8 != 0 || offset + len > block.len() {
            return Err(wrong());
        }
        if let Some(inum) = entry.inum.get() {
            if DIRENT_SIZE + name_len > len {
                return Err(wrong());
            }
            if &block[offset + DIRENT_SIZE..offset + DIRENT_SIZE + name_len] == name {
                found = Some(inum.addr);
            }
        }
        offset += len;
    }
    Ok(found)
}
