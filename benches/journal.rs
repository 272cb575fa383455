//! What a transaction, an fsync and a cached block cost: `cargo bench --bench journal [-- FILE]`. With FILE (an image file or
//! device of at least 1 GiB, which is overwritten) the disk is that, else memory.

use gfs2r::cache::Cache;
use gfs2r::clock::SystemClock;
use gfs2r::device::{AlignedBuf, BlockDevice, FileDevice, MemoryDevice, OpenMode};
use gfs2r::format::{MetaType, put_u64};
use gfs2r::ids::{BlockAddr, BlockSize, Jid, LockName};
use gfs2r::journal::{FlushReason, Journal, JournalPlace, LogExtent, Reserve, UnrecoveredJournal};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const LOG_BLOCKS: u32 = 8192;
const FIRST: u64 = 100_000;

/// A disk whose flush takes as long as a real one's; counts them.
struct SlowFlush(MemoryDevice, AtomicU64);

impl BlockDevice for SlowFlush {
    fn size(&self) -> u64 {
        self.0.size()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> std::io::Result<()> {
        self.0.write(offset, buf)
    }
    fn write_durable(&self, offset: u64, buf: &[u8]) -> std::io::Result<()> {
        self.1.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(1));
        self.0.write(offset, buf)
    }
    fn flush(&self) -> std::io::Result<()> {
        std::thread::sleep(Duration::from_millis(1));
        Ok(())
    }
    fn discard(&self, offset: u64, len: u64) -> std::io::Result<()> {
        self.0.discard(offset, len)
    }
}

fn addr(n: u64) -> BlockAddr {
    BlockAddr::new(n).expect("not 0")
}

fn measure(what: &str, n: u64, mut f: impl FnMut(u64)) {
    let start = Instant::now();
    (0..n).for_each(&mut f);
    let ns = start.elapsed().as_nanos() / u128::from(n);
    println!("{what:55} {ns:9} ns");
}

fn main() {
    let file = std::env::args().skip(1).find(|a| !a.starts_with("--"));
    let dev: Arc<dyn BlockDevice> = match &file {
        Some(path) => Arc::new(FileDevice::open(path.as_ref(), OpenMode::ReadWrite).expect("a device")),
        None => Arc::new(MemoryDevice::new(1 << 30)),
    };
    let (cache, journal) = open(dev);
    transactions(&cache, &journal);
    fsyncs(&cache, &journal, 2000, "append 4 KiB and fsync");
    data(&cache, &journal);
    journal.shutdown().expect("closed");
    let dev = Arc::new(SlowFlush(MemoryDevice::new(1 << 30), AtomicU64::new(0)));
    let (cache, journal) = open(dev.clone());
    dev.1.store(0, Ordering::Relaxed);
    fsyncs(&cache, &journal, 100, "the same, flush and FUA 1 ms each");
    println!("{:55} {:9}", "headers for these 100 + 4000 fsyncs", dev.1.load(Ordering::Relaxed));
}

fn open(dev: Arc<dyn BlockDevice>) -> (Arc<Cache>, Arc<Journal>) {
    let bs = BlockSize::new(4096).expect("legal");
    let cache = Cache::new(dev, bs, 256 << 20);
    let place = JournalPlace {
        jid: Jid(0),
        extents: vec![LogExtent { addr: addr(1000), blocks: LOG_BLOCKS }],
        inode: addr(900),
        statfs_change: addr(901),
        quota_change: addr(902),
        master_statfs: addr(903),
    };
    // Whatever an earlier run has left there: start anew.
    let zeros = AlignedBuf::zeroed(1 << 20);
    for i in 0..u64::from(LOG_BLOCKS) * 4096 / (1 << 20) {
        cache.device().write(1000 * 4096 + i * (1 << 20), &zeros).expect("zeroed");
    }
    let start = Instant::now();
    let found = UnrecoveredJournal::examine(&cache, place).expect("examined");
    println!("{:55} {:9} us", "finding the head of a 32 MiB log", start.elapsed().as_micros());
    let (clean, _) = found.recover(Jid(0), &SystemClock).expect("recovered");
    let journal = Journal::open(cache.clone(), clean, Arc::new(SystemClock), true, 30).expect("open");
    (cache, journal)
}

fn transactions(cache: &Arc<Cache>, journal: &Journal) {
    let owner = LockName::inode(addr(1));
    let mut tx = journal.begin(Reserve::blocks(1)).expect("room");
    let buffer = tx.new_meta(addr(FIRST), owner, MetaType::Indirect);
    tx.commit();
    measure("cached block", 2_000_000, |_| {
        black_box(cache.meta(addr(FIRST), owner, MetaType::Indirect).expect("cached").bytes());
    });
    measure("begin and commit", 1_000_000, |_| {
        journal.begin(Reserve::blocks(10)).expect("room").commit();
    });
    measure("begin, edit a block of the batch, commit", 1_000_000, |i| {
        let mut tx = journal.begin(Reserve::blocks(10)).expect("room");
        tx.edit(&buffer, |b| put_u64(b, 64, i));
        tx.commit();
    });
    // As creating files does: a few hot blocks, one new one, for ever; the log goes round, write-back included.
    measure("begin, edit 4 of 64 hot blocks, 1 of 100000, commit", 300_000, |i| {
        let mut tx = journal.begin(Reserve::blocks(10)).expect("room");
        for k in 0..4 {
            edit(cache, &mut tx, FIRST + 1 + (i * 7 + k) % 64, i);
        }
        edit(cache, &mut tx, FIRST + 1000 + i % 100_000, i);
        tx.commit();
    });
    journal.quiesce(FlushReason::Sync).expect("quiet");
}

fn edit(cache: &Cache, tx: &mut gfs2r::journal::Transaction<'_>, n: u64, value: u64) {
    let owner = LockName::inode(addr(n));
    let buffer = match cache.cached(addr(n)) {
        Some(buffer) => buffer,
        None => tx.new_meta(addr(n), owner, MetaType::Indirect),
    };
    tx.edit(&buffer, |b| put_u64(b, 64, value));
}

fn fsyncs(cache: &Arc<Cache>, journal: &Journal, alone: u64, what: &str) {
    let append = |n: u64| {
        let owner = LockName::inode(addr(FIRST + n));
        let mut tx = journal.begin(Reserve::blocks(10)).expect("room");
        edit(cache, &mut tx, FIRST + n, n);
        let buf = Arc::new(AlignedBuf::zeroed(4096));
        cache.data().write(owner, addr(FIRST + 50_000 + n), buf, Some(tx.batch())).expect("buffered");
        let batch = tx.commit();
        journal.sync_file(owner, batch).expect("durable");
    };
    measure(&format!("{what}, 1 thread"), alone, append);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for t in 0..16 {
            scope.spawn(move || (0..250).for_each(|i| append(t * 250 + i)));
        }
    });
    println!("{:55} {:9} ns", format!("{what}, 16 threads"), start.elapsed().as_nanos() / 4000);
}

fn data(cache: &Arc<Cache>, journal: &Journal) {
    let owner = LockName::inode(addr(5));
    let buf = Arc::new(AlignedBuf::zeroed(1 << 20));
    let start = Instant::now();
    for i in 0..400 {
        cache.data().write(owner, addr(FIRST + 256 * i), buf.clone(), None).expect("buffered");
    }
    cache.data().write_owner(owner).expect("written");
    journal.sync_data().expect("durable");
    println!("{:55} {:9} MB/s", "writing 400 MiB in 1 MiB pieces", (400 << 20) / start.elapsed().as_micros().max(1));
    measure("4 KiB write into the buffer, sequential", 100_000, |i| {
        let buf = Arc::new(AlignedBuf::zeroed(4096));
        cache.data().write(owner, addr(FIRST + i % 50_000), buf, None).expect("buffered");
    });
    measure("100-byte append", 500_000, |i| {
        let (n, at) = (FIRST + i / 40, (i % 40 * 100) as usize);
        cache.data().write_part(owner, addr(n), at, &[1; 100], at == 0, None).expect("buffered");
    });
    cache.data().write_all().expect("written");
}
