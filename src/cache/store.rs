//! The cache of one volume.

use super::buffer::Used;
use super::gate::Gate;
use super::lru::Shards;
use super::{AddrMap, Barrier, Buffer, BufferKind, DataCache, Health};
use crate::device::{AlignedBuf, BlockDevice};
use crate::error::{CorruptKind, Error, Result};
use crate::format::{MetaHeader, MetaType};
use crate::ids::{BlockAddr, BlockSize, Jid, LockName};
use crate::sync::{about_to_wait, may_wait};
use std::sync::{Arc, OnceLock};

/// The largest read of [`Cache::read_ahead`].
const READ_AHEAD: usize = 1 << 20;
/// Blocks that read-ahead reads for nothing rather than making two requests.
const READ_GAP: u64 = 8;

/// The blocks of one volume in memory.
pub struct Cache {
    dev: Arc<dyn BlockDevice>,
    bs: BlockSize,
    blocks: Shards,
    data: DataCache,
    health: Arc<Health>,
    barrier: Arc<Barrier>,
    overlay: Arc<OnceLock<AddrMap<Arc<[u8]>>>>,
    /// What every new block begins as; copied with the first change.
    zeros: Arc<[u8]>,
}

impl Cache {
    /// A cache of at most `limit` bytes of clean metadata.
    pub fn new(dev: Arc<dyn BlockDevice>, bs: BlockSize, limit: usize) -> Arc<Self> {
        let health = Arc::new(Health::default());
        let dev: Arc<dyn BlockDevice> = Gate::new(dev, health.clone());
        let overlay = Arc::new(OnceLock::new());
        let barrier = Arc::new(Barrier::default());
        let data = DataCache::new(dev.clone(), bs, health.clone(), barrier.clone(), overlay.clone());
        let zeros = Arc::from(vec![0; bs.bytes()]);
        Arc::new(Self { dev, bs, blocks: Shards::new(limit / bs.bytes()), data, health, barrier, overlay, zeros })
    }
    /// The device. What is written to it passes the [`Health`].
    pub fn device(&self) -> &Arc<dyn BlockDevice> {
        &self.dev
    }
    /// The block size.
    pub fn block_size(&self) -> BlockSize {
        self.bs
    }
    /// Whether the mount has withdrawn.
    pub fn health(&self) -> &Health {
        &self.health
    }
    /// The file data write buffer.
    pub fn data(&self) -> &DataCache {
        &self.data
    }
    /// True when the whole block lies on the device.
    pub fn is_on_device(&self, addr: BlockAddr) -> bool {
        self.bs.offset(addr).checked_add(self.bs.bytes() as u64).is_some_and(|end| end <= self.dev.size())
    }
    /// The metadata block at `addr`, read if need be (`MustWait` when it would read and may not) and checked to be of type
    /// `kind` when read from the disk or cached under another type: [`Corrupt`](crate::error::Corrupt) otherwise.
    pub fn meta(&self, addr: BlockAddr, owner: LockName, kind: MetaType) -> Result<Arc<Buffer>> {
        self.load(addr, owner, BufferKind::Meta, Some(kind))
    }
    /// A block of a journaled file (no metadata header).
    ///
    /// A file that becomes journaled, or ceases to be, has its data written ([`DataCache::write_owner`]) respectively its
    /// blocks put in place and invalidated ([`Journal::sync_owner`](crate::journal::Journal::sync_owner),
    /// [`invalidate`](Self::invalidate)) before it is read the other way.
    pub fn jdata(&self, addr: BlockAddr, owner: LockName) -> Result<Arc<Buffer>> {
        self.load(addr, owner, BufferKind::Jdata, None)
    }
    /// The buffer if it is cached, whatever it holds.
    pub fn cached(&self, addr: BlockAddr) -> Option<Arc<Buffer>> {
        self.blocks.get(addr).0
    }
    /// Number of buffers.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }
    /// True when nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Reads blocks that are not cached with few large requests, for a walk that will need them. Errors are left for the
    /// later read to report. Does nothing when the thread may not wait.
    pub fn read_ahead(&self, addrs: &[BlockAddr], owner: LockName) {
        if !may_wait() {
            return;
        }
        let mut wanted: Vec<(u64, u64)> = addrs
            .iter()
            .filter(|a| self.is_on_device(**a))
            .filter_map(|a| match self.blocks.get(*a) {
                (None, epoch) => Some((a.get(), epoch)),
                (Some(_), _) => None,
            })
            .collect();
        wanted.sort_unstable();
        wanted.dedup_by_key(|(a, _)| *a);
        let max = (READ_AHEAD / self.bs.bytes()) as u64;
        let mut from = 0;
        while from < wanted.len() {
            let first = wanted[from].0;
            let mut to = from + 1;
            while to < wanted.len() && wanted[to].0 - wanted[to - 1].0 <= READ_GAP && wanted[to].0 - first < max {
                to += 1;
            }
            self.read_run(&wanted[from..to], owner);
            from = to;
        }
    }
    fn read_run(&self, run: &[(u64, u64)], owner: LockName) {
        let (Some((first, _)), Some((last, _))) = (run.first(), run.last()) else { return };
        let Some(start) = BlockAddr::new(*first) else { return };
        let mut buf = AlignedBuf::zeroed((last - first + 1) as usize * self.bs.bytes());
        if self.data.read(start, &mut buf).is_err() {
            return;
        }
        for (block, epoch) in run {
            let Some(addr) = BlockAddr::new(*block) else { continue };
            let at = (block - first) as usize * self.bs.bytes();
            let bytes = Arc::from(&buf[at..at + self.bs.bytes()]);
            // Another thread's buffer, or a change meanwhile: either way there is nothing left to do ahead of time.
            let _ = self.blocks.insert(Buffer::new(addr, owner, BufferKind::Unknown, bytes), *epoch);
        }
    }
    /// Forgets all clean buffers of this lock (it was given up).
    pub fn invalidate(&self, owner: LockName) {
        for addr in self.blocks.of_owner(owner) {
            if !self.blocks.drop_clean(addr) {
                tracing::error!("block {addr} of lock {owner} is dirty while the lock is given up");
            }
        }
        self.data.drop_clean(owner);
    }
    /// Contents that stand before those of the device, for a read-only mount of a volume whose journals are dirty and cannot
    /// be replayed. What was cached of them is dropped. `Invalid` when it was called before.
    pub fn set_overlay(&self, blocks: impl IntoIterator<Item = (BlockAddr, Arc<[u8]>)>) -> Result<()> {
        let blocks: AddrMap<Arc<[u8]>> = blocks.into_iter().collect();
        let addrs: Vec<BlockAddr> = blocks.keys().copied().collect();
        self.overlay.set(blocks).map_err(|_| Error::Invalid)?;
        for addr in addrs {
            if !self.drop_clean(addr) {
                return Err(Error::Busy);
            }
        }
        Ok(())
    }

    fn load(
        &self,
        addr: BlockAddr,
        owner: LockName,
        kind: BufferKind,
        wanted: Option<MetaType>,
    ) -> Result<Arc<Buffer>> {
        loop {
            let (found, epoch) = self.blocks.get(addr);
            let buffer = match found {
                Some(buffer) => buffer,
                None => {
                    let read = Buffer::new(addr, owner, kind, self.read_block(addr)?);
                    match self.blocks.insert(read, epoch) {
                        Some(buffer) => buffer,
                        None => continue,
                    }
                }
            };
            match buffer.use_as(owner, kind, wanted)? {
                Used::Here => {}
                Used::Before(before) => self.blocks.move_owner(addr, before, owner),
                // (Should it have become dirty meanwhile, the next look says so.)
                Used::Elsewhere => {
                    self.blocks.drop_clean(addr);
                    continue;
                }
            }
            return Ok(buffer);
        }
    }
    fn read_block(&self, addr: BlockAddr) -> Result<Arc<[u8]>> {
        if !self.is_on_device(addr) {
            return Err(Error::corrupt(addr, CorruptKind::OffDevice));
        }
        about_to_wait()?;
        let mut buf = AlignedBuf::zeroed(self.bs.bytes());
        self.data.read(addr, &mut buf)?;
        Ok(Arc::from(&buf[..]))
    }

    /// The device's flushes.
    pub(crate) fn barrier(&self) -> &Barrier {
        &self.barrier
    }
    /// A new block of zeros (with a header when it is metadata); what was cached for the address is forgotten.
    pub(crate) fn create(&self, addr: BlockAddr, owner: LockName, kind: Option<MetaType>, jid: Jid) -> Arc<Buffer> {
        let mut bytes = self.zeros.clone();
        if let Some(kind) = kind {
            let block = Arc::make_mut(&mut bytes);
            MetaHeader::init(block, kind);
            MetaHeader::stamp(block, jid);
        }
        let what = if kind.is_some() { BufferKind::Meta } else { BufferKind::Jdata };
        let buffer = Buffer::new(addr, owner, what, bytes);
        self.blocks.replace(buffer.clone());
        buffer
    }
    /// The blocks were freed: their buffers leave the cache. Buffered data is dropped separately.
    pub(crate) fn forget(&self, addr: BlockAddr, blocks: u64) {
        for i in 0..blocks {
            let Some(a) = addr.checked_add(i) else { return };
            self.blocks.forget(a);
        }
    }
    /// The block was changed on the device directly (recovery): a clean copy is dropped. False when a dirty one stands.
    pub(crate) fn drop_clean(&self, addr: BlockAddr) -> bool {
        self.blocks.drop_clean(addr)
    }
}
