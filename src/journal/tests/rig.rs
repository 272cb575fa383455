//! A tiny volume: a journal, the statfs files, and blocks to play with.

use crate::cache::Cache;
use crate::clock::SimClock;
use crate::device::{BlockDevice, CrashMode, MemoryDevice, SimDevice};
use crate::format::{Dinode, MetaHeader, MetaType, OnDisk, StatfsChange, dinode::DINODE_SIZE};
use crate::ids::{BlockAddr, BlockSize, Jid, LockName};
use crate::journal::{Journal, JournalPlace, LogExtent, Replayed, UnrecoveredJournal};
use std::sync::Arc;

pub(super) fn addr(n: u64) -> BlockAddr {
    BlockAddr::new(n).expect("not 0")
}

/// The lock of block `n` in these tests.
pub(super) fn owner(n: u64) -> LockName {
    LockName::inode(addr(n))
}

pub(super) const MASTER: u64 = 150;
pub(super) const CHANGE: u64 = 151;
pub(super) const LOG: u64 = 256;
/// The first block that tests may use; the device has this many more.
pub(super) const FIRST: u64 = 4096;
pub(super) const BLOCKS: u64 = 4096;

pub(super) fn place(log_blocks: u32) -> JournalPlace {
    // Two extents, the second before the first: nothing may rely on one piece.
    let half = log_blocks / 2;
    JournalPlace {
        jid: Jid(3),
        extents: vec![
            LogExtent { addr: addr(LOG + u64::from(log_blocks - half)), blocks: half },
            LogExtent { addr: addr(LOG), blocks: log_blocks - half },
        ],
        inode: addr(152),
        statfs_change: addr(CHANGE),
        quota_change: addr(153),
        master_statfs: addr(MASTER),
    }
}

pub(super) fn fresh_disk(bs: BlockSize) -> MemoryDevice {
    let disk = MemoryDevice::new((FIRST + BLOCKS) << bs.shift());
    for n in [MASTER, CHANGE] {
        let mut block = vec![0; bs.bytes()];
        MetaHeader::init(&mut block, MetaType::Dinode);
        Dinode::edit(&mut block).size.set(24);
        disk.write(n << bs.shift(), &block).expect("memory");
    }
    disk
}

pub(super) struct Rig {
    pub(super) dev: Arc<SimDevice>,
    pub(super) cache: Arc<Cache>,
    pub(super) journal: Arc<Journal>,
    pub(super) replayed: Replayed,
}

impl Rig {
    pub(super) fn new(bs: u32, log_blocks: u32) -> Self {
        let bs = BlockSize::new(bs).expect("legal");
        Self::mount(fresh_disk(bs), bs, log_blocks, 16 << 20).expect("a fresh disk")
    }
    /// Mounts: recovers the journal and opens it.
    pub(super) fn mount(
        disk: MemoryDevice,
        bs: BlockSize,
        log_blocks: u32,
        limit: usize,
    ) -> crate::error::Result<Self> {
        Self::mount_device(Arc::new(SimDevice::new(disk)), bs, log_blocks, limit)
    }
    pub(super) fn mount_device(
        dev: Arc<SimDevice>,
        bs: BlockSize,
        log_blocks: u32,
        limit: usize,
    ) -> crate::error::Result<Self> {
        Self::mount_through(dev.clone(), dev, bs, log_blocks, limit)
    }
    /// The mount does its I/O through `upper`, which stands before `dev`.
    pub(super) fn mount_through(
        dev: Arc<SimDevice>,
        upper: Arc<dyn BlockDevice>,
        bs: BlockSize,
        log_blocks: u32,
        limit: usize,
    ) -> crate::error::Result<Self> {
        let cache = Cache::new(upper, bs, limit);
        let clock = Arc::new(SimClock::new(1_000_000));
        let (clean, replayed) = UnrecoveredJournal::examine(&cache, place(log_blocks))?.recover(Jid(3), &*clock)?;
        // The timer must not interfere: a day.
        let journal = Journal::open(cache.clone(), clean, clock, true, 86400)?;
        journal.log.as_ref().expect("writable").flusher.disable();
        dev.reset_counters();
        Ok(Self { dev, cache, journal, replayed })
    }
    pub(super) fn block_on_disk(&self, n: u64) -> Vec<u8> {
        read_block(&*self.dev, self.cache.block_size(), n)
    }
    /// Crashes and mounts what is left.
    pub(super) fn crash(self, seed: u64, mode: CrashMode, log_blocks: u32) -> Self {
        let bs = self.cache.block_size();
        Self::mount(self.dev.crash(seed, mode), bs, log_blocks, 16 << 20).expect("what a crash leaves can be mounted")
    }
    pub(super) fn meta(&self, n: u64) -> Arc<crate::cache::Buffer> {
        self.cache.meta(addr(n), owner(n), MetaType::Indirect).expect("a metadata block")
    }
}

/// A device that takes its time: others get the processor in the midst of a request, and the ranges of a batch are written
/// one by one, in any order.
pub(super) struct Slow(pub(super) Arc<SimDevice>);

impl Slow {
    fn dawdle(offset: u64) {
        for _ in 0..offset / 512 % 7 {
            std::thread::yield_now();
        }
    }
}

impl BlockDevice for Slow {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        Self::dawdle(offset);
        self.0.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> std::io::Result<()> {
        Self::dawdle(offset);
        let done = self.0.write(offset, buf);
        Self::dawdle(offset + 512);
        done
    }
    fn write_durable(&self, offset: u64, buf: &[u8]) -> std::io::Result<()> {
        Self::dawdle(offset);
        self.0.write_durable(offset, buf)
    }
    fn write_many(&self, ranges: &[(u64, &[u8])]) -> std::io::Result<()> {
        let mut order: Vec<_> = ranges.iter().collect();
        order.sort_by_key(|(offset, _)| offset.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        order.into_iter().map(|(offset, buf)| self.write(*offset, buf)).fold(Ok(()), std::io::Result::and)
    }
    fn flush(&self) -> std::io::Result<()> {
        Self::dawdle(1536);
        self.0.flush()
    }
    fn discard(&self, offset: u64, len: u64) -> std::io::Result<()> {
        self.0.discard(offset, len)
    }
}

pub(super) fn read_block(dev: &dyn BlockDevice, bs: BlockSize, n: u64) -> Vec<u8> {
    let mut block = vec![0; bs.bytes()];
    dev.read(n << bs.shift(), &mut block).expect("on the device");
    block
}

pub(super) fn statfs_of(block: &[u8]) -> (i64, i64, i64) {
    let s = StatfsChange::view(&block[DINODE_SIZE..]);
    (s.total.get(), s.free.get(), s.dinodes.get())
}
