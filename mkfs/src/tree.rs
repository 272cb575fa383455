//! Files that are too long for their dinode: quota_change, rindex and large hash tables (ondisk.md 2.6, 4.4).

use crate::Error;
use crate::system::{Inode, Space};
use gfs2r::format::header::MetaType;
use gfs2r::format::{MetaHeader, put_pointer};
use gfs2r::ids::{BlockAddr, BlockSize};

/// A block to be written.
pub(crate) type Block = (BlockAddr, Vec<u8>);

/// The tree of a file that grows at its end. The dinode's pointers, height, block count and goal follow each step.
#[derive(Debug)]
pub(crate) struct Tree {
    bs: BlockSize,
    height: u16,
    /// The indirect blocks above the last data block, top level first.
    path: Vec<Block>,
    /// Indirect blocks that are full.
    full: Vec<Block>,
    /// Data blocks, in order.
    data: Vec<BlockAddr>,
}

impl Tree {
    /// An empty tree. Its height grows when it is too low.
    pub(crate) fn new(bs: BlockSize, height: u16) -> Self {
        Self { bs, height, path: Vec::new(), full: Vec::new(), data: Vec::new() }
    }
    /// The indirect blocks and the addresses of the data blocks.
    pub(crate) fn finish(mut self) -> (Vec<Block>, Vec<BlockAddr>) {
        self.full.append(&mut self.path);
        (self.full, self.data)
    }
    /// Adds data blocks until there are `count`.
    pub(crate) fn grow(&mut self, inode: &mut Inode, space: &mut Space, count: u64) -> Result<(), Error> {
        while (self.data.len() as u64) < count {
            self.append(inode, space)?;
        }
        Ok(())
    }
    /// Adds a data block; each indirect block is allocated right before the first block it maps.
    fn append(&mut self, inode: &mut Inode, space: &mut Space) -> Result<(), Error> {
        let n = self.data.len() as u64;
        let per_block = self.bs.indirect_pointers() as u64;
        if n == reach(self.bs, self.height) {
            self.raise(inode, space)?;
        }
        for level in 1..self.height {
            // How many data blocks one block of this level maps.
            let span = per_block.saturating_pow(u32::from(self.height - level));
            if n.is_multiple_of(span) {
                self.full.extend(self.path.drain(usize::from(level) - 1..));
                let (addr, block) = self.indirect(inode, space)?;
                self.point(inode, n / span, addr);
                self.path.push((addr, block));
            }
        }
        let addr = space.allocate()?;
        count_block(inode, addr);
        self.point(inode, n, addr);
        self.data.push(addr);
        inode.edit().height.set(self.height);
        Ok(())
    }
    /// Adds a level below the dinode: a new block takes over all its pointers.
    fn raise(&mut self, inode: &mut Inode, space: &mut Space) -> Result<(), Error> {
        let (addr, mut block) = self.indirect(inode, space)?;
        let pointers = &mut inode.block_mut()[232..];
        block[24..24 + pointers.len()].copy_from_slice(pointers);
        pointers.fill(0);
        put_pointer(inode.block_mut(), 232, 0, Some(addr));
        self.path.insert(0, (addr, block));
        self.height += 1;
        Ok(())
    }
    fn indirect(&self, inode: &mut Inode, space: &mut Space) -> Result<Block, Error> {
        let addr = space.allocate()?;
        count_block(inode, addr);
        let mut block = vec![0; self.bs.bytes()];
        MetaHeader::init(&mut block, MetaType::Indirect);
        Ok((addr, block))
    }
    /// Sets the pointer of item `n` of a level in the block above it: the last of the path, or the dinode.
    fn point(&mut self, inode: &mut Inode, n: u64, to: BlockAddr) {
        let per_block = self.bs.indirect_pointers() as u64;
        match self.path.last_mut() {
            Some((_, parent)) => put_pointer(parent, 24, (n % per_block) as usize, Some(to)),
            None => put_pointer(inode.block_mut(), 232, n as usize, Some(to)),
        }
    }
}

fn count_block(inode: &mut Inode, addr: BlockAddr) {
    let dinode = inode.edit();
    dinode.blocks.set(dinode.blocks.get() + 1);
    dinode.goal_meta.set(addr.get());
}

/// Data blocks that a tree of this height can map.
fn reach(bs: BlockSize, height: u16) -> u64 {
    let below = (bs.indirect_pointers() as u64).saturating_pow(u32::from(height).saturating_sub(1));
    below.saturating_mul(bs.dinode_pointers() as u64)
}

/// Height of the tree of a file of this many blocks: at least 1.
pub(crate) fn height(bs: BlockSize, blocks: u64) -> u16 {
    (1..).find(|&height| reach(bs, height) >= blocks).unwrap_or(1)
}
