//! The shared disk, and each node's way to it.
//!
//! What a node has written and was told so stays when the node dies: it is in the disk. What was on its way is there, is not, or
//! is there in parts. What no flush has confirmed is in the disk's own cache: all of it may be lost when the power goes, which all
//! nodes notice.

use crate::world::Broken;
use gfs2r::device::{BlockDevice, SimDevice};
use gfs2r::sync::simulated::{note, pause, random, yield_here};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const SECTOR: usize = 512;

/// What happens when a node writes for the `n`th time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fate {
    /// It dies while that write is under way.
    pub(crate) dies_at: Option<u64>,
    /// That write, and all after it, fail.
    pub(crate) fails_at: Option<u64>,
}

/// One node's way to the disk, for one life of it.
pub(crate) struct Cable {
    disk: Arc<SimDevice>,
    node: u32,
    pulled: AtomicBool,
    writes: AtomicU64,
    fate: Fate,
    block_size: usize,
    broken: Option<Broken>,
    /// Told when the node dies by its fate.
    dies: Box<dyn Fn() + Send + Sync>,
}

/// How a metadata block begins, and then which type it has.
const MAGIC: [u8; 4] = [0x01, 0x16, 0x19, 0x70];
const HEADER: u32 = 8;
const DESCRIPTOR: u32 = 9;
/// What a log descriptor describes.
const REVOKES: u32 = 301;

fn number(block: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(block[at..at + 4].try_into().expect("4"))
}
fn is_of(block: &[u8], kind: u32) -> bool {
    block.len() >= 512 && block[..4] == MAGIC && number(block, 4) == kind
}
/// All that the log says is revoked is as if it were not.
fn forget_revokes(block: &mut [u8]) {
    if is_of(block, DESCRIPTOR) && number(block, 24) == REVOKES {
        block[32..36].fill(0);
    }
}

fn gone() -> io::Error {
    io::Error::other("the cable is pulled out")
}

impl Cable {
    pub(crate) fn new(
        disk: &Arc<SimDevice>,
        node: u32,
        fate: Fate,
        (block_size, broken): (u32, Option<Broken>),
        dies: Box<dyn Fn() + Send + Sync>,
    ) -> Arc<Self> {
        let block_size = block_size as usize;
        let (disk, pulled, writes) = (Arc::clone(disk), AtomicBool::new(false), AtomicU64::new(0));
        Arc::new(Self { disk, node, pulled, writes, fate, block_size, broken, dies })
    }
    /// Nothing goes through any more.
    pub(crate) fn pull(&self) {
        self.pulled.store(true, Ordering::SeqCst);
    }
    pub(crate) fn is_pulled(&self) -> bool {
        self.pulled.load(Ordering::SeqCst)
    }
    fn check(&self) -> io::Result<()> {
        if self.is_pulled() { Err(gone()) } else { Ok(()) }
    }
    /// Some of the sectors arrive.
    fn torn(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        let how = random(3);
        for (i, sector) in buf.chunks(SECTOR).enumerate() {
            if how == 0 || how == 1 && random(2) == 0 {
                self.disk.write(offset + (i * SECTOR) as u64, sector)?;
            }
        }
        Ok(())
    }
    /// To the disk, unless a broken rule says otherwise.
    fn pass(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if !matches!(self.broken, Some(Broken::Log | Broken::Data)) {
            return self.disk.write(offset, buf);
        }
        for (i, block) in buf.chunks(self.block_size).enumerate() {
            let is_lost = match self.broken {
                Some(Broken::Log) => is_of(block, HEADER) && random(4) == 0,
                _ => block[..4] != MAGIC && random(4) == 0,
            };
            if !is_lost {
                self.disk.write(offset + (i * self.block_size) as u64, block)?;
            }
        }
        Ok(())
    }
    fn put(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check()?;
        let n = self.writes.fetch_add(1, Ordering::Relaxed);
        let node = self.node;
        note(offset << 8 | u64::from(node), || format!("node {node} writes {} at {offset}", buf.len()));
        if self.fate.dies_at == Some(n) {
            note(n, || format!("node {node} dies in its write {n}"));
            self.torn(offset, buf)?;
            self.pull();
            (self.dies)();
            return Err(gone());
        }
        if self.fate.fails_at.is_some_and(|at| n >= at) {
            note(n, || format!("write {n} of node {node} fails"));
            self.torn(offset, buf)?;
            return Err(io::Error::other("injected write error"));
        }
        yield_here();
        if self.is_pulled() {
            // On its way when the node died.
            self.torn(offset, buf)?;
            return Err(gone());
        }
        self.pass(offset, buf)?;
        pause();
        self.check()
    }
}

impl BlockDevice for Cable {
    fn size(&self) -> u64 {
        self.disk.size()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        pause();
        self.check()?;
        self.disk.read(offset, buf)?;
        if self.broken == Some(Broken::Revokes) {
            buf.chunks_mut(self.block_size).for_each(forget_revokes);
        }
        Ok(())
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.put(offset, buf)
    }
    fn write_many(&self, ranges: &[(u64, &[u8])]) -> io::Result<()> {
        let mut order: Vec<usize> = (0..ranges.len()).collect();
        for i in (1..order.len()).rev() {
            order.swap(i, random(i as u64 + 1) as usize);
        }
        order.into_iter().try_for_each(|i| self.put(ranges[i].0, ranges[i].1))
    }
    fn flush(&self) -> io::Result<()> {
        self.check()?;
        yield_here();
        self.check()?;
        note(u64::from(self.node) << 16 | 7, || format!("node {} flushes", self.node));
        if self.broken == Some(Broken::Flush) { Ok(()) } else { self.disk.flush() }
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check()?;
        self.disk.discard(offset, len)
    }
}
