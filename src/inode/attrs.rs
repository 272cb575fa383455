//! What an inode says of itself, and how a change of it reaches its block.

use super::{Inode, Volume};
use crate::cache::Buffer;
use crate::error::Result;
use crate::format::dinode::mode::{S_IFDIR, S_IFMT, S_IFREG};
use crate::format::{DiFlags, Dinode, MetaType, OnDisk};
use crate::ids::{BatchId, BlockAddr, Inum, LockName};
use crate::journal::Transaction;
use crate::rgrp::{Owner, Reservation};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Inode {
    /// An inode with this dinode. `batch`: the batch whose commit makes everything that happened to it so far durable.
    pub(super) fn new(inum: Inum, dinode: Dinode, batch: BatchId) -> Self {
        Self { inum, dinode, resv: Reservation::default(), last_batch: batch.0.into(), data_batch: batch.0.into() }
    }
    /// The lock that covers the inode's blocks.
    pub fn lock_name(&self) -> LockName {
        LockName::inode(self.inum.addr)
    }
    /// The dinode's buffer.
    pub fn buffer(&self, vol: &Volume) -> Result<Arc<Buffer>> {
        vol.cache.meta(self.inum.addr, self.lock_name(), MetaType::Dinode)
    }
    /// Puts `self.dinode` into the buffer, in the transaction (one block). The block's own metadata header stays: the journal
    /// stamps it.
    pub fn write_back(&self, vol: &Volume, tx: &mut Transaction<'_>) -> Result<()> {
        self.write_back_times(vol, tx)?;
        self.data_batch.store(tx.batch().0, Ordering::Relaxed);
        Ok(())
    }
    /// The same for a change of nothing but times, which fdatasync(2) need not wait for.
    pub fn write_back_times(&self, vol: &Volume, tx: &mut Transaction<'_>) -> Result<()> {
        let buffer = self.buffer(vol)?;
        tx.edit(&buffer, |block| {
            let on_disk = Dinode::edit(block);
            *on_disk = Dinode { header: on_disk.header, ..self.dinode };
        });
        self.last_batch.store(tx.batch().0, Ordering::Relaxed);
        Ok(())
    }
    /// The batch whose commit makes the inode as it is now durable.
    pub fn last_batch(&self) -> BatchId {
        BatchId(self.last_batch.load(Ordering::Relaxed))
    }
    /// The same, but for its times.
    pub fn data_batch(&self) -> BatchId {
        BatchId(self.data_batch.load(Ordering::Relaxed))
    }
    /// Flags.
    pub fn flags(&self) -> DiFlags {
        self.dinode.flags()
    }
    /// True for a directory.
    pub fn is_dir(&self) -> bool {
        self.dinode.mode.get() & S_IFMT == S_IFDIR
    }
    /// True for a regular file.
    pub fn is_regular(&self) -> bool {
        self.dinode.mode.get() & S_IFMT == S_IFREG
    }
    /// True when the contents lie in the dinode (height 0).
    pub fn is_stuffed(&self) -> bool {
        self.dinode.height.get() == 0
    }
    /// True when file data goes through the journal (JDATA regular files; directories' tables always).
    pub fn is_jdata(&self) -> bool {
        self.flags().has(DiFlags::JDATA)
    }
    /// Whom its blocks are charged to; `None` for system files.
    pub fn owner(&self) -> Option<Owner> {
        let owner = Owner { uid: self.dinode.uid.get(), gid: self.dinode.gid.get() };
        (!self.flags().has(DiFlags::SYSTEM)).then_some(owner)
    }
    /// Allocation goal: `goal_meta`, or its own address where that is out of range.
    pub fn goal(&self, vol: &Volume) -> BlockAddr {
        BlockAddr::new(self.dinode.goal_meta.get()).filter(|&goal| vol.rgrps.owns(goal)).unwrap_or(self.inum.addr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incore_inode_is_small() {
        assert!(size_of::<Inode>() <= 400, "{} bytes; a million of them are cached", size_of::<Inode>());
    }
}
