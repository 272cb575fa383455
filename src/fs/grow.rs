//! The volume became larger: another node added resource groups (ondisk.md 7.5, 11.1).

use super::Fs;
use crate::error::{CorruptKind, Error, Result};
use crate::file;
use crate::format::RindexEntry;
use crate::ids::BlockAddr;
use crate::rgrp::parse_rindex;

/// The largest rindex that is read: 2^20 groups.
const WHOLE_MAX: usize = 96 << 20;

impl Fs {
    /// Reads the rindex, whose dinode is at `rindex`, and uses what was added to it.
    pub fn reread_rindex(&self, rindex: BlockAddr) -> Result<()> {
        const ENTRY: usize = size_of::<RindexEntry>();
        let inode = self.vol.inode(rindex).shared()?;
        let size = usize::try_from(inode.dinode.size.get()).unwrap_or(usize::MAX);
        if size > WHOLE_MAX {
            return Err(Error::corrupt(rindex, CorruptKind::SystemFile("implausibly large")));
        }
        let whole = size - size % ENTRY;
        // Later entries may lie in a block of the first new group.
        let first = whole.min(self.vol.rgrps.len().saturating_add(1).saturating_mul(ENTRY));
        for upto in [first, whole] {
            if upto / ENTRY <= self.vol.rgrps.len() {
                continue;
            }
            let mut bytes = vec![0; upto];
            file::read(&self.vol, &inode, 0, &mut bytes)?;
            self.vol.rgrps.grow(&parse_rindex(&bytes, self.vol.bs, rindex)?)?;
        }
        Ok(())
    }
}
