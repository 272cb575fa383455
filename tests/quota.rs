//! Quotas and the counters of df, on real volumes.

mod support;

use gfs2r::clock::SimClock;
use gfs2r::device::MemoryDevice;
use gfs2r::error::Error;
use gfs2r::fs::{Caller, NewInode, SetAttr, SetMode};
use gfs2r::ids::BlockAddr;
use gfs2r::quota::{Quota, QuotaMode, Who};
use gfs2r::volume::{OpenOptions, Opened, open};
use std::sync::Arc;

const ANN: Caller = Caller { uid: 1000, gid: 1001, umask: 0o022 };

struct Mounted {
    dev: Arc<MemoryDevice>,
    opened: Opened,
}

impl Mounted {
    fn make(block_size: u32) -> Option<Self> {
        if !support::have_stock_tools() {
            return None;
        }
        let dev = Arc::new(MemoryDevice::new(64 << 20));
        support::format(&*dev, block_size, 1, 1802, 0);
        Some(Self::mount(dev))
    }
    fn mount(dev: Arc<MemoryDevice>) -> Self {
        let options = OpenOptions { quota: QuotaMode::On, ..OpenOptions::default() };
        let opened = open(dev.clone(), &options, Arc::new(SimClock::new(1_700_000_000)));
        let opened = opened.unwrap_or_else(|e| panic!("open: {e}"));
        Self { dev, opened }
    }
    fn quota(&self) -> &Arc<Quota> {
        self.opened.fs.quota().expect("mounted with quota=on")
    }
    fn used(&self, who: Who) -> i64 {
        let lines = self.quota().report(self.opened.fs.volume()).expect("report");
        lines.iter().find(|l| l.who == who).map_or(0, |l| l.used)
    }
    fn file(&self, name: &str) -> BlockAddr {
        let fs = &self.opened.fs;
        fs.make(&ANN, fs.root(), name.as_bytes(), &NewInode::File(0o644)).expect("make").inum.addr
    }
    fn blocks(&self, nodes: &[BlockAddr]) -> i64 {
        let unit = self.opened.fs.volume().bs.bytes() as u64 / 512;
        nodes.iter().map(|&n| (self.opened.fs.getattr(n).expect("getattr").blocks / unit) as i64).sum()
    }
    fn finish(self) {
        self.opened.close().expect("close");
        support::stock_fsck(&self.dev, "at the end");
    }
}

/// Permission bits are the kernel's to check: anybody may write to the root directory here.
fn story(block_size: u32) {
    let Some(m) = Mounted::make(block_size) else { return };
    let fs = Arc::clone(&m.opened.fs);
    let before = fs.space();
    let nodes = [m.file("a"), m.file("b")];
    fs.write(&ANN, nodes[0], 0, &[1; 50_000], false).expect("write");
    fs.write(&ANN, nodes[1], 1 << 20, &[2; 9000], false).expect("write");
    let blocks = m.blocks(&nodes);
    assert!(blocks > 2);
    assert_eq!((m.used(Who::User(1000)), m.used(Who::Group(1001))), (blocks, blocks), "counted before any sync");
    assert_eq!(before.free - fs.space().free, blocks as u64);

    // Synced in between or not, mounted again or not: usage is the same, and so is df.
    fs.sync_counters().expect("sync");
    let free = fs.space().free;
    assert_eq!((m.used(Who::User(1000)), m.used(Who::Group(1001))), (blocks, blocks));
    fs.write(&ANN, nodes[1], 2 << 20, &[2; 9000], false).expect("write");
    let more = m.blocks(&nodes);
    assert_eq!((free - fs.space().free) as i64, more - blocks);
    m.opened.close().expect("close");
    drop(fs);
    let m = Mounted::mount(m.dev);
    let fs = Arc::clone(&m.opened.fs);
    let nodes = ["a", "b"].map(|n| fs.lookup(fs.root(), n.as_bytes()).expect("lookup").inum.addr);
    assert_eq!(m.used(Who::User(1000)), more);

    // A limit: what would pass it is refused, what stays below is not, and a higher one lets it through.
    m.quota().set(fs.volume(), Who::User(1000), Some(more as u64 + 3), None).expect("set");
    let large = vec![3; 20 * block_size as usize];
    assert!(matches!(fs.write(&ANN, nodes[0], 4 << 20, &large, false), Err(Error::QuotaExceeded)));
    assert!(fs.write(&Caller::default(), nodes[0], 4 << 20, &large, false).is_ok(), "the superuser may");
    assert!(fs.write(&ANN, nodes[0], 4 << 20, &large, false).is_ok(), "above the limit, but no block is needed");
    assert!(matches!(fs.setxattr(&ANN, nodes[0], b"user.a", b"b", SetMode::Any), Err(Error::QuotaExceeded)));
    assert!(matches!(fs.make(&ANN, fs.root(), b"c", &NewInode::File(0o644)), Err(Error::QuotaExceeded)));
    m.quota().set(fs.volume(), Who::User(1000), Some(0), None).expect("set");
    let node = m.file("c");
    fs.forget(node, 1).expect("forget");

    // Another owner, then nobody.
    let set = SetAttr { uid: Some(7), ..SetAttr::default() };
    fs.setattr(&Caller::default(), nodes[0], &set).expect("chown");
    assert_eq!(m.used(Who::User(7)), m.blocks(&nodes[..1]));
    fs.unlink(fs.root(), b"a").expect("unlink");
    nodes.iter().for_each(|&n| fs.forget(n, 2).expect("forget"));
    assert_eq!(m.used(Who::User(7)), 0);
    fs.sync_counters().expect("sync");
    assert_eq!(m.used(Who::User(7)), 0);
    drop(fs);
    m.finish();
}

/// Moving a charge to the quota file may take a block there. On a full disk the charge stays where it is: nothing fails, and
/// nothing is forgotten.
#[test]
fn a_full_disk_keeps_charges_waiting() {
    let Some(m) = Mounted::make(1024) else { return };
    let fs = Arc::clone(&m.opened.fs);
    let (node, fill) = (m.file("a"), m.file("fill"));
    let owner = SetAttr { uid: Some(900_000), gid: Some(800_000), ..SetAttr::default() };
    fs.setattr(&Caller::default(), node, &owner).expect("chown");
    let mut size = 0;
    while fs.space().free > 0 {
        let bytes = vec![1; (fs.space().free as usize).min(1000) * 1024];
        size += fs.write(&Caller::default(), fill, size, &bytes, false).expect("as long as there is space") as u64;
    }
    fs.sync_counters().expect("nothing fails");
    assert_eq!((m.used(Who::User(900_000)), m.used(Who::Group(800_000))), (1, 1));
    m.opened.close().expect("close");
    drop(fs);
    let m = Mounted::mount(m.dev);
    assert_eq!((m.used(Who::User(900_000)), m.used(Who::Group(800_000))), (1, 1));
    let fs = Arc::clone(&m.opened.fs);
    fs.unlink(fs.root(), b"fill").expect("unlink");
    fs.sync_counters().expect("there is space again");
    assert_eq!((m.used(Who::User(900_000)), m.used(Who::Group(800_000))), (1, 1));
    drop(fs);
    m.finish();
}

#[test]
fn quotas_4096() {
    story(4096);
}

#[test]
fn quotas_512() {
    story(512);
}
