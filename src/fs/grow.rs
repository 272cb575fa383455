//! The volume became larger: this node or another one added resource groups (ondisk.md 7.5, 11.1).

use super::Fs;
use crate::error::{CorruptKind, Error, Result};
use crate::file;
use crate::format::RindexEntry;
use crate::format::rgrp::RgrpExtent;
use crate::ids::BlockAddr;
use crate::inode::Inode;
use crate::rgrp::parse_rindex;

/// The largest rindex that is read: 2^20 groups.
const WHOLE_MAX: usize = 96 << 20;

impl Fs {
    /// Reads the rindex, whose dinode is at `rindex`, and uses what was added to it.
    pub fn reread_rindex(&self, rindex: BlockAddr) -> Result<()> {
        let inode = self.vol.inode(rindex).shared()?;
        self.take_over_rindex(&inode).map(|_| ())
    }

    /// The same for whoever holds it, within [`refresh_index`](crate::rgrp::Rgrps::refresh_index); all groups that it names.
    pub fn take_over_rindex(&self, inode: &Inode) -> Result<Vec<RgrpExtent>> {
        const ENTRY: usize = size_of::<RindexEntry>();
        let (rindex, rgrps) = (inode.inum.addr, &self.vol.rgrps);
        let size = usize::try_from(inode.dinode.size.get()).unwrap_or(usize::MAX);
        if size > WHOLE_MAX {
            return Err(Error::corrupt(rindex, CorruptKind::SystemFile("implausibly large")));
        }
        let whole = size - size % ENTRY;
        // Later entries may lie in a block of the first new group.
        let first = whole.min(rgrps.len().saturating_add(1).saturating_mul(ENTRY));
        let mut all = Vec::new();
        let steps = [first, whole];
        for &upto in &steps[usize::from(first == whole)..] {
            let mut bytes = vec![0; upto];
            file::read(&self.vol, inode, 0, &mut bytes)?;
            all = parse_rindex(&bytes, self.vol.bs, rindex)?;
            if all.len() > rgrps.len() {
                rgrps.grow(self.on_device(&all)?)?;
            }
        }
        Ok(all)
    }

    /// Those groups that lie on the device as it is seen here.
    fn on_device<'g>(&self, all: &'g [RgrpExtent]) -> Result<&'g [RgrpExtent]> {
        let blocks = self.vol.cache.device().refresh_size()? >> self.vol.bs.shift();
        let fitting = all.partition_point(|rg| rg.end() <= blocks);
        if fitting < all.len() {
            tracing::error!(
                "the volume has grown, but its device has not on this node: rescan the device, then mount again"
            );
        }
        Ok(&all[..fitting])
    }
}
