//! Looking at a volume without mounting it.

use super::bootstrap::Bootstrap;
use super::held::Locks;
use super::{Identity, OpenError, OpenOptions, system_files};
use crate::cache::Cache;
use crate::device::BlockDevice;
use crate::error::Result;
use crate::glock::Nolock;
use crate::ids::BlockAddr;
use crate::journal::JournalPlace;
use std::sync::Arc;

/// Where the parts of a volume lie, for looking at it without mounting it.
pub struct Layout {
    id: Identity,
    cache: Arc<Cache>,
    rgrps: Vec<crate::format::rgrp::RgrpExtent>,
    journals: Vec<JournalPlace>,
}

impl Layout {
    /// Reads superblock, rindex and the places of the journals.
    pub fn read(dev: Arc<dyn BlockDevice>) -> Result<Self, OpenError> {
        let id = Identity::read(&*dev)?;
        let cache = Cache::new(dev, id.bs, 32 << 20);
        let locks = Locks::new(Arc::new(Nolock));
        let system = system_files(&cache, &locks, &id, &OpenOptions::default())?;
        let rgrps = Bootstrap { cache: &cache, locks: &locks }.rindex(&system.rindex)?;
        Ok(Self { id, cache, rgrps, journals: system.journals })
    }
    /// The superblock.
    pub fn identity(&self) -> &Identity {
        &self.id
    }
    /// The checked rindex, ascending.
    pub fn rgrps(&self) -> &[crate::format::rgrp::RgrpExtent] {
        &self.rgrps
    }
    /// The blocks of a journal, in order.
    pub fn journal(&self, n: u32) -> Option<&[crate::journal::LogExtent]> {
        self.journals.iter().find(|j| j.jid.0 == n).map(|j| j.extents.as_slice())
    }
    /// The whole contents of a small file or of a directory's hash table.
    pub fn contents(&self, dev: &dyn BlockDevice, dinode: BlockAddr) -> Result<Vec<u8>> {
        let _same_device = dev;
        let locks = Locks::new(Arc::new(Nolock));
        let boot = Bootstrap { cache: &self.cache, locks: &locks };
        boot.contents(&boot.open(dinode)?)
    }
    /// State of a block in its bitmap; `None` when no rgrp owns it.
    pub fn state(&self, dev: &dyn BlockDevice, block: Option<BlockAddr>) -> Result<Option<crate::ids::BlkState>> {
        let Some((n, index)) =
            block.and_then(|b| self.rgrps.iter().enumerate().find_map(|(n, e)| Some((n, e.index_of(b)?))))
        else {
            return Ok(None);
        };
        let (part, offset) = crate::format::rgrp::bitmap_location(self.id.bs, index / 4);
        let bytes = self.bitmap_block(dev, n, part)?;
        Ok(Some(crate::ids::BlkState::from_bits(bytes[offset] >> (2 * (index % 4)))))
    }
    /// How many blocks of an rgrp are in a state.
    pub fn count(&self, dev: &dyn BlockDevice, n: usize, state: crate::ids::BlkState) -> Result<u64> {
        let extent = self.rgrps[n];
        let mut count = 0;
        for part in 0..extent.length {
            let bytes = self.bitmap_block(dev, n, part)?;
            let (offset, _, len) = extent.bitmap_part(self.id.bs, part);
            for byte in &bytes[offset..offset + len as usize] {
                count += (0..4).filter(|i| crate::ids::BlkState::from_bits(byte >> (2 * i)) == state).count() as u64;
            }
        }
        Ok(count)
    }
    fn bitmap_block(&self, dev: &dyn BlockDevice, n: usize, part: u32) -> Result<crate::device::AlignedBuf> {
        let mut bytes = crate::device::AlignedBuf::zeroed(self.id.bs.bytes());
        dev.read(self.id.bs.offset(self.rgrps[n].addr.saturating_add(u64::from(part))), &mut bytes)?;
        Ok(bytes)
    }
}

/// Reads the rindex alone, whatever else of the volume is damaged: the resource groups, ascending.
pub fn rgrps_of(dev: Arc<dyn BlockDevice>) -> Result<Vec<crate::format::rgrp::RgrpExtent>, OpenError> {
    let id = Identity::read(&*dev)?;
    let cache = Cache::new(dev, id.bs, 32 << 20);
    let locks = Locks::new(Arc::new(Nolock));
    let boot = Bootstrap { cache: &cache, locks: &locks };
    let master = BlockAddr::new(id.superblock.master_dir.addr.get()).ok_or(crate::error::Error::Invalid)?;
    let rindex = boot.must_find(&boot.open(master)?, b"rindex", "master directory without rindex")?;
    Ok(boot.rindex(&rindex)?)
}
