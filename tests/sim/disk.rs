//! The shared disk, and each node's way to it.
//!
//! What a node has written and was told so stays when the node dies: it is in the disk. What was on its way is there, is not, or
//! is there in parts. What no flush has confirmed is in the disk's own cache: all of it may be lost when the power goes, which all
//! nodes notice.

use gfs2r::device::{BlockDevice, SimDevice};
use gfs2r::sync::simulated::{note, pause, random, yield_here};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Arc;

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
    /// Told when the node dies by its fate.
    dies: Box<dyn Fn() + Send + Sync>,
}

fn gone() -> io::Error {
    io::Error::other("the cable is pulled out")
}

impl Cable {
    pub(crate) fn new(disk: &Arc<SimDevice>, node: u32, fate: Fate, dies: Box<dyn Fn() + Send + Sync>) -> Arc<Self> {
        let (disk, pulled, writes) = (Arc::clone(disk), AtomicBool::new(false), AtomicU64::new(0));
        Arc::new(Self { disk, node, pulled, writes, fate, dies })
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
        self.disk.write(offset, buf)?;
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
        self.disk.read(offset, buf)
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
        self.disk.flush()
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check()?;
        self.disk.discard(offset, len)
    }
}
