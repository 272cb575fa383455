//! The journals (ondisk.md 2.7): a dinode, its indirect blocks level by level, then a log header in every block.
//!
//! The headers are [`CleanLog`]'s.

use crate::Options;
use crate::geometry::Layout;
use crate::system::Inode;
use gfs2r::admin::fresh::CleanLog;
use gfs2r::format::dinode::mode::S_IFREG;
use gfs2r::format::header::MetaType;
use gfs2r::format::rgrp::RgrpExtent;
use gfs2r::format::{DiFlags, MetaHeader, put_pointer};
use gfs2r::ids::{BlockAddr, BlockSize, FormalIno, Inum};

/// A journal as it will be written: `blocks()` blocks from the first data block of its resource group.
#[derive(Debug)]
pub(crate) struct Journal {
    bs: BlockSize,
    /// Its identity; the dinode is the first of its blocks.
    pub(crate) inum: Inum,
    dinode: Vec<u8>,
    /// Indirect blocks of each level, the dinode's own pointers' targets first.
    levels: Vec<u64>,
    /// Log blocks.
    data: u64,
    log: CleanLog,
}

impl Journal {
    /// Plans journal `j`, which lies in `rgrp`.
    pub(crate) fn new(layout: &Layout, rgrp: &RgrpExtent, j: usize, options: &Options) -> Self {
        let (bs, data) = (layout.bs, layout.journal_blocks());
        let mut levels = Vec::new();
        let mut pointers = data;
        while pointers > bs.dinode_pointers() as u64 {
            pointers = pointers.div_ceil(bs.indirect_pointers() as u64);
            levels.insert(0, pointers);
        }
        let indirect: u64 = levels.iter().sum();
        let inum = Inum { formal: FormalIno(j as u64 + 1), addr: rgrp.data0 };
        let mut inode = Inode::new(bs, inum, S_IFREG | 0o600, DiFlags::SYSTEM, options.time);
        let dinode = inode.edit();
        dinode.size.set(layout.journal_mib << 20);
        dinode.blocks.set(1 + indirect + data);
        dinode.height.set(levels.len() as u16 + 1);
        dinode.goal_meta.set(inum.addr.get() + indirect);
        dinode.goal_data.set(inum.addr.get() + indirect + data);
        let mut journal = Self {
            bs,
            inum,
            dinode: inode.into_block(),
            levels,
            data,
            log: CleanLog::new(bs, data, options.journal_start(j, data), inum.addr),
        };
        let below = journal.level_start(0);
        let count = journal.levels.first().copied().unwrap_or(data);
        for i in 0..count {
            put_pointer(&mut journal.dinode, 232, i as usize, Some(below.saturating_add(i)));
        }
        journal
    }
    /// Blocks it occupies, dinode and indirect blocks included.
    pub(crate) fn blocks(&self) -> u64 {
        1 + self.levels.iter().sum::<u64>() + self.data
    }
    /// Fills `block` with block `n` of the journal, counted from the dinode.
    pub(crate) fn fill(&self, n: u64, block: &mut [u8]) {
        block.fill(0);
        let Some(mut n) = n.checked_sub(1) else {
            block.copy_from_slice(&self.dinode);
            return;
        };
        for (level, &count) in self.levels.iter().enumerate() {
            if n < count {
                return self.fill_indirect(level, n, block);
            }
            n -= count;
        }
        self.log.fill(n, self.level_start(self.levels.len()).saturating_add(n), block);
    }

    /// Address of the first block of an indirect level, or of the log when `level` is past them.
    fn level_start(&self, level: usize) -> BlockAddr {
        self.inum.addr.saturating_add(1 + self.levels[..level].iter().sum::<u64>())
    }
    fn fill_indirect(&self, level: usize, n: u64, block: &mut [u8]) {
        MetaHeader::init(block, MetaType::Indirect);
        let per_block = self.bs.indirect_pointers() as u64;
        let targets = self.levels.get(level + 1).copied().unwrap_or(self.data);
        let start = self.level_start(level + 1);
        for i in n * per_block..targets.min((n + 1) * per_block) {
            put_pointer(block, 24, (i % per_block) as usize, Some(start.saturating_add(i)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::{Alignment, Request};
    use gfs2r::format::{LogHeader, OnDisk};

    fn journal(bs: u32, start: u64) -> Journal {
        let options = Options { journal_starts: vec![start], ..Options::small(bs).expect("legal") };
        let bs = options.block_size;
        let request = Request {
            bs,
            device_blocks: bs.block_of(64 << 20),
            journals: 1,
            journal_mib: Some(8),
            rgrp_mib: 256,
            alignment: Alignment::default(),
        };
        let layout = Layout::plan(&request).expect("fits");
        Journal::new(&layout, &layout.rgrps[0], 0, &options)
    }

    #[test]
    fn the_tiny_filesystems_first_header() {
        let journal = journal(4096, 0x6ef);
        assert_eq!(journal.blocks(), 2054);
        let mut block = vec![1; 4096];
        journal.fill(6, &mut block);
        let header = LogHeader::view(&block);
        assert_eq!((header.hash.get(), header.crc.get()), (0x76e3_ca8c, 0xac0f_b9d0));
        assert_eq!((header.addr.get(), header.jinode.get()), (0x18, 0x12));
        assert!(LogHeader::is_valid(&block));
    }

    #[test]
    fn one_block_carries_the_highest_number_and_every_pointer_is_right() {
        let journal = journal(512, 9000);
        assert_eq!(journal.levels, [5, 269]);
        let mut heads = 0;
        let mut block = vec![0; 512];
        for n in 1 + 274..journal.blocks() {
            journal.fill(n, &mut block);
            assert!(LogHeader::is_valid(&block));
            heads += u32::from(LogHeader::view(&block).sequence.get() == journal.data - 1);
        }
        assert_eq!(heads, 1);
        let mut next = journal.inum.addr.get() + 1 + 5;
        for n in 1..=274 {
            journal.fill(n, &mut block);
            for i in 0..61 {
                if let Some(to) = gfs2r::format::get_pointer(&block, 24, i) {
                    assert_eq!(to.get(), next);
                    next += 1;
                }
            }
        }
        assert_eq!(next, journal.inum.addr.get() + journal.blocks());
    }
}
