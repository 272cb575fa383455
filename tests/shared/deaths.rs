//! Who recovers a dead node dies as well.

use crate::Cluster;
use crate::harness::ME;
use crate::support::stock_fsck;
use gfs2r::device::{BlockDevice, MemoryDevice};
use gfs2r::fs::NewInode;
use gfs2r::ids::Jid;
use gfs2r::volume::{Mounter, OpenOptions, open_shared};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A node's way to the disk on which no more than so many writes arrive.
struct Short {
    disk: Arc<MemoryDevice>,
    left: AtomicU64,
}

impl Short {
    fn is_over(&self) -> bool {
        self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_err()
    }
}

impl BlockDevice for Short {
    fn size(&self) -> u64 {
        self.disk.size()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        if self.is_over() { Err(io::Error::other("dead")) } else { self.disk.write(offset, buf) }
    }
    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.disk.discard(offset, len)
    }
}

/// One that takes over a dead node's counters dies at any write of it, before or after the transaction is in its log; then both
/// journals are recovered, the one that died first before the other.
#[test]
fn two_deaths_count_once() {
    for writes in 0..40 {
        let mut cluster = Cluster::make(3, 160, 4096, 7);
        let a = cluster.join(0, Mounter::First);
        let short = Arc::new(Short { disk: Arc::clone(&cluster.disk), left: AtomicU64::new(u64::MAX) });
        let options = OpenOptions { jid: Jid(1), ..cluster.options.clone() };
        let (clock, desk) = (Arc::clone(&cluster.clock), cluster.hall.desk(1));
        let b = open_shared(Arc::clone(&short) as _, &options, clock, desk, Mounter::Joining).expect("opens");
        let c = cluster.join(2, Mounter::Joining);
        let made = c.fs.make(&ME, c.fs.root(), b"f", &NewInode::File(0o644)).expect("create").inum;
        assert_eq!(c.fs.write(&ME, made.addr, 0, &vec![9; 1 << 20], false).expect("write"), 1 << 20);
        c.fs.sync().expect("sync");
        cluster.kill(2, c);
        short.left.store(writes, Ordering::SeqCst);
        let survived = b.recover_journal(Jid(2)).is_ok();
        let is_over = short.left.load(Ordering::SeqCst) > 0 && survived;
        cluster.kill(1, b);
        for dead in [2, 1] {
            a.recover_journal(Jid(dead)).unwrap_or_else(|e| panic!("{writes} writes, recovery of {dead}: {e}"));
        }
        cluster.hall.recovered();
        a.close().expect("close");
        // Whoever mounts the volume next takes over what was left.
        let a = cluster.join(0, Mounter::First);
        a.close().expect("close");
        stock_fsck(&cluster.disk, &format!("{writes} writes"));
        if is_over {
            assert!(writes > 3, "{writes} writes");
            return;
        }
    }
    panic!("the recovery takes more writes than that");
}
