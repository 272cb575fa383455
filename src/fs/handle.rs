//! Inodes named by their address alone: file handles that outlived the kernel's memory of the inode (open_by_handle_at(2), NFS).

use super::Fs;
use super::attr::Attr;
use crate::error::{Error, Result};
use crate::format::DiFlags;
use crate::ids::{BlkState, BlockAddr};

impl Fs {
    /// The inode at this address, which may be anything; the kernel holds a reference to it afterwards, and compares the life
    /// (formal number) itself. `Stale` when there is no inode there, when it has no name any more, or is one of the system's.
    pub fn by_handle(&self, node: BlockAddr) -> Result<Attr> {
        // Nothing here is watched: an address out of the blue that does not fit says nothing about the disk. The kernel asks
        // only for what it has forgotten, so an inode without a name is one that is being deleted.
        if self.vol.kept.contains(&node) {
            return Err(Error::Stale);
        }
        self.is_live(node)?;
        let inode = self.vol.inode(node).shared().map_err(stale_unless_failing)?;
        // The lock is ours now, so what the bitmap says will last.
        self.is_live(node)?;
        if inode.dinode.nlink.get() == 0 || inode.flags().has(DiFlags::SYSTEM) {
            return Err(Error::Stale);
        }
        self.nodes.remember(inode.inum, self.vol.use_inode(inode.inum.addr)?);
        Attr::of(self, &inode)
    }

    fn is_live(&self, node: BlockAddr) -> Result<()> {
        match self.vol.rgrps.state(node).map_err(stale_unless_failing)? {
            BlkState::Dinode => Ok(()),
            _ => Err(Error::Stale),
        }
    }
}

fn stale_unless_failing(e: Error) -> Error {
    if matches!(e, Error::Corrupt(_)) { Error::Stale } else { e }
}
