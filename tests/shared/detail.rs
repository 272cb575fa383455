//! Single rules of sharing, each shown by itself.

use crate::Cluster;
use crate::harness::ME;
use crate::support::{check, stock_fsck};
use gfs2r::device::{BlockDevice, MemoryDevice};
use gfs2r::error::Error;
use gfs2r::fs::{Caller, Fs, NewInode, RenameHow, Space};
use gfs2r::ids::{BlkState, BlockAddr, Inum, Jid};
use gfs2r::quota::{QuotaMode, Who};
use gfs2r::volume::{self, Mounter, OpenOptions, Opened, open_shared};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

struct Two {
    cluster: Cluster,
    a: Opened,
    b: Opened,
}

impl Two {
    fn make() -> Self {
        Self::with(|_| {})
    }
    fn with(options: impl FnOnce(&mut OpenOptions)) -> Self {
        let mut cluster = Cluster::make(2, 160, 4096, 7);
        options(&mut cluster.options);
        let (a, b) = (cluster.join(0, Mounter::First), cluster.join(1, Mounter::Joining));
        Self { cluster, a, b }
    }
    fn finish(self) {
        self.a.close().expect("close a");
        self.b.close().expect("close b");
        self.cluster.nobody_holds();
        check(&*self.cluster.disk, "at the end");
        stock_fsck(&self.cluster.disk, "at the end");
    }
    fn state(&self, inum: Inum) -> BlkState {
        self.a.fs.volume().rgrps.state(inum.addr).expect("state")
    }
    fn free(&self) -> (u64, u64) {
        for opened in [&self.a, &self.b, &self.a] {
            opened.fs.sync_counters().expect("counters");
        }
        (self.a.fs.space().free, self.b.fs.space().free)
    }
}

fn create(fs: &Fs, name: &str, bytes: usize) -> Inum {
    let inum = fs.make(&ME, fs.root(), name.as_bytes(), &NewInode::File(0o644)).expect("create").inum;
    if bytes > 0 {
        assert_eq!(fs.write(&ME, inum.addr, 0, &vec![9; bytes], false).expect("write"), bytes);
    }
    inum
}

fn size_of(fs: &Fs, node: BlockAddr) -> u64 {
    fs.getattr(node).expect("getattr").size
}

/// A file without a name lives as long as any node has it open; the last one deletes it.
#[test]
fn the_last_user_deletes() {
    let two = Two::make();
    let (a, b) = (&two.a.fs, &two.b.fs);
    let before = two.free();
    let inum = create(a, "f", 100_000);
    assert_eq!(b.lookup(b.root(), b"f").expect("lookup").inum, inum);
    a.unlink(a.root(), b"f").expect("unlink");
    let since = Instant::now();
    a.forget(inum.addr, 1).expect("forget");
    assert!(since.elapsed() < Duration::from_secs(3), "told soon that somebody uses it");
    assert_eq!(two.state(inum), BlkState::Unlinked);
    let mut bytes = [0; 1000];
    assert_eq!(b.read(inum.addr, 50_000, &mut bytes).expect("read"), 1000);
    assert!(bytes.iter().all(|&byte| byte == 9));
    assert!(matches!(b.lookup(b.root(), b"f"), Err(Error::NotFound)));
    b.forget(inum.addr, 1).expect("forget");
    assert_eq!(two.state(inum), BlkState::Free);
    assert_eq!(two.free(), before);
    two.finish();
}

/// What a kernel only remembers does not keep a file.
#[test]
fn what_is_remembered_is_forgotten() {
    let two = Two::make();
    let (a, b) = (&two.a.fs, &two.b.fs);
    let inum = create(a, "f", 10);
    b.lookup(b.root(), b"f").expect("lookup");
    let asked = Arc::new(AtomicBool::new(false));
    let (fs, flag) = (Arc::downgrade(b), Arc::clone(&asked));
    b.set_forgetter(Box::new(move |addr| {
        flag.store(true, Ordering::Release);
        if let Some(fs) = fs.upgrade() {
            std::thread::spawn(move || fs.forget(addr, 1));
        }
    }));
    a.unlink(a.root(), b"f").expect("unlink");
    a.forget(inum.addr, 1).expect("forget");
    assert!(asked.load(Ordering::Acquire));
    let until = Instant::now() + Duration::from_secs(20);
    while two.state(inum) != BlkState::Free {
        assert!(Instant::now() < until, "nobody deleted it");
        std::thread::sleep(Duration::from_millis(1));
    }
    two.finish();
}

/// An orphan that another node uses is not reclaimed.
#[test]
fn orphans_in_use_are_left_alone() {
    let two = Two::make();
    let (a, b) = (&two.a.fs, &two.b.fs);
    let inum = create(b, "f", 10);
    b.unlink(b.root(), b"f").expect("unlink");
    assert_eq!(two.state(inum), BlkState::Unlinked);
    assert_eq!(a.reclaim_orphans(&AtomicBool::new(false)).expect("reclaim"), 0);
    assert_eq!(size_of(b, inum.addr), 10);
    b.forget(inum.addr, 1).expect("forget");
    assert_eq!(two.state(inum), BlkState::Free);
    two.finish();
}

/// A node that is leaving uses nothing: whoever wants to delete then is not told to leave it to that node.
#[test]
fn who_leaves_leaves_nothing_behind() {
    let two = Two::make();
    let (a, b) = (&two.a.fs, &two.b.fs);
    let inum = create(a, "f", 10);
    b.lookup(b.root(), b"f").expect("lookup");
    a.unlink(a.root(), b"f").expect("unlink");
    b.forget_all().expect("forget all");
    a.forget(inum.addr, 1).expect("forget");
    assert_eq!(two.state(inum), BlkState::Free);
    two.finish();
}

/// Both nodes leave at the same time while each has files open that have no names: none is left.
#[test]
fn all_leave_at_once() {
    for round in 0..5 {
        let two = Two::make();
        let (a, b) = (&two.a.fs, &two.b.fs);
        for n in 0..40 {
            let (name, maker) = (format!("f{n}"), if n % 2 == 0 { a } else { b });
            create(maker, &name, 10);
            for fs in [a, b] {
                fs.lookup(fs.root(), name.as_bytes()).expect("lookup");
            }
            let last = if n % 4 < 2 { a } else { b };
            last.unlink(last.root(), name.as_bytes()).expect("unlink");
        }
        std::thread::scope(|scope| {
            scope.spawn(|| two.a.close().expect("close a"));
            scope.spawn(|| two.b.close().expect("close b"));
        });
        two.finish();
        println!("round {round}");
    }
}

/// What nobody uses any more goes, at the latest when it is looked at again (which waits for nobody, so perhaps not at once).
fn deleted_in_the_end(fs: &Fs, inum: Inum) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        fs.delete_left().expect("look");
        if fs.volume().rgrps.state(inum.addr).expect("state") == BlkState::Free {
            return;
        }
        assert!(Instant::now() < until, "nobody deleted it");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Who left a deletion to a user that died looks again.
#[test]
fn the_user_dies() {
    let Two { mut cluster, a, b } = Two::make();
    let inum = create(&a.fs, "f", 10);
    b.fs.lookup(b.fs.root(), b"f").expect("lookup");
    a.fs.unlink(a.fs.root(), b"f").expect("unlink");
    a.fs.forget(inum.addr, 1).expect("forget");
    assert_eq!(a.fs.delete_left().expect("look"), 0);
    cluster.kill(1, b);
    cluster.recover(&a, 1);
    deleted_in_the_end(&a.fs, inum);
    let b = cluster.join(1, Mounter::Joining);
    let two = Two { cluster, a, b };
    assert_eq!(two.state(inum), BlkState::Free);
    two.finish();
}

/// Who unlinked died before it could say so: the user finds out.
#[test]
fn the_unlinker_dies() {
    let Two { mut cluster, a, b } = Two::make();
    let inum = create(&a.fs, "f", 10);
    b.fs.unlink(b.fs.root(), b"f").expect("unlink");
    b.fs.sync().expect("sync");
    cluster.kill(1, b);
    cluster.recover(&a, 1);
    assert_eq!(a.fs.reclaim_orphans(&AtomicBool::new(false)).expect("reclaim"), 0);
    assert_eq!((a.fs.delete_left().expect("look"), size_of(&a.fs, inum.addr)), (0, 10));
    a.fs.forget(inum.addr, 1).expect("forget");
    deleted_in_the_end(&a.fs, inum);
    let b = cluster.join(1, Mounter::Joining);
    let two = Two { cluster, a, b };
    assert_eq!(two.state(inum), BlkState::Free);
    two.finish();
}

/// A directory that was removed, and its parent with it, has no names: nothing is stale.
#[test]
fn renaming_in_what_was_removed() {
    let two = Two::make();
    let (a, b) = (&two.a.fs, &two.b.fs);
    let make = |dir, name: &str| a.make(&ME, dir, name.as_bytes(), &NewInode::Dir(0o755)).expect("mkdir").inum.addr;
    let (outer, other) = (make(a.root(), "outer"), make(a.root(), "other"));
    let inner = make(outer, "inner");
    let seen = b.lookup(b.root(), b"outer").expect("lookup").inum.addr;
    b.lookup(seen, b"inner").expect("lookup");
    b.rmdir(seen, b"inner").expect("rmdir");
    b.rmdir(b.root(), b"outer").expect("rmdir");
    a.forget(outer, 1).expect("forget");
    b.forget(seen, 1).expect("forget");
    for (from, to) in [(inner, other), (other, inner)] {
        let renamed = a.rename(&ME, (from, b"f"), (to, b"g"), RenameHow::Replace);
        assert!(matches!(renamed, Err(Error::NotFound)), "{renamed:?}");
    }
    two.finish();
}

/// A life that is over stays over, also where its address lives again.
#[test]
fn another_life_is_stale() {
    let two = Two::make();
    let (a, b) = (&two.a.fs, &two.b.fs);
    let old = create(a, "f", 10);
    b.lookup(b.root(), b"f").expect("lookup");
    b.forget(old.addr, 1).expect("forget");
    a.unlink(a.root(), b"f").expect("unlink");
    a.forget(old.addr, 1).expect("forget");
    assert_eq!(two.state(old), BlkState::Free);
    assert!(matches!(b.by_handle(old.addr), Err(Error::Stale)));
    assert!(matches!(b.volume().shared(old), Err(Error::Stale)));
    a.sync().expect("sync");
    // Until the address is used again, here or there.
    for n in 0..200 {
        let fs = if n % 2 == 0 { a } else { b };
        let new = create(fs, &format!("n{n}"), 0);
        if new.addr == old.addr {
            assert_ne!(new.formal, old.formal);
            assert!(matches!(b.volume().shared(old), Err(Error::Stale)));
            assert!(b.by_handle(old.addr).expect("lives").inum == new);
        }
    }
    two.finish();
}

/// What df says, on both nodes.
#[test]
fn counters_meet() {
    let two = Two::make();
    let before = two.free();
    assert_eq!(before.0, before.1);
    create(&two.a.fs, "a", 3 << 20);
    create(&two.b.fs, "b", 5 << 20);
    let after = two.free();
    assert_eq!(after.0, after.1);
    let blocks = (before.0 - after.0) * 4096;
    assert!((8 << 20..9 << 20).contains(&blocks), "{blocks} bytes less");
    two.finish();
}

/// A limit that one node sets holds on the other; what one uses counts on the other once it is in the quota file.
#[test]
fn quotas_meet() {
    let two = Two::with(|o| o.quota = QuotaMode::On);
    let (a, b) = (&two.a.fs, &two.b.fs);
    let ann = Caller { uid: 1000, gid: 1001, umask: 0 };
    let who = Who::User(1000);
    let quota = |opened: &Opened| Arc::clone(opened.fs.quota().expect("quota=on"));
    let file = b.make(&ann, b.root(), b"f", &NewInode::File(0o644)).expect("no limit yet").inum.addr;
    quota(&two.a).set(a.volume(), who, Some(20), None).expect("limit");
    assert!(matches!(b.write(&ann, file, 0, &[1; 100 << 10], false), Err(Error::QuotaExceeded)));
    b.write(&ann, file, 0, &[1; 60 << 10], false).expect("15 blocks and their tree fit");
    quota(&two.b).sync(b.volume()).expect("into the quota file");
    let other = a.make(&ann, a.root(), b"g", &NewInode::File(0o644)).expect("one more").inum.addr;
    assert!(matches!(a.write(&ann, other, 0, &[1; 30 << 10], false), Err(Error::QuotaExceeded)));
    quota(&two.a).set(a.volume(), who, Some(0), None).expect("no limit");
    b.write(&ann, file, 0, &[1; 200 << 10], false).expect("no limit on the other node either");
    two.finish();
}

/// Reading does not take the lock away from those who read.
#[test]
fn access_times_ask_nobody() {
    let two = Two::make();
    let (a, b) = (&two.a.fs, &two.b.fs);
    let inum = create(a, "f", 10);
    b.lookup(b.root(), b"f").expect("lookup");
    assert_eq!((size_of(a, inum.addr), size_of(b, inum.addr)), (10, 10));
    let before = two.cluster.hall.notices.load(Ordering::Relaxed);
    for _ in 0..10 {
        assert!(!a.touch(inum.addr, true).expect("touch") && !b.touch(inum.addr, true).expect("touch"));
    }
    assert_eq!(two.cluster.hall.notices.load(Ordering::Relaxed), before);
    two.finish();
}

/// One who only looks, without a journal, while others work.
#[test]
fn a_spectator_sees_it_all() {
    let two = Two::make();
    let inum = create(&two.a.fs, "f", 50_000);
    let options = OpenOptions { read_only: true, spectator: true, ..OpenOptions::default() };
    let device: Arc<dyn gfs2r::device::BlockDevice> = Arc::clone(&two.cluster.disk) as _;
    let desk = two.cluster.hall.desk(7);
    let c = open_shared(device, &options, Arc::clone(&two.cluster.clock), desk, Mounter::Spectator).expect("opens");
    assert_eq!(c.fs.lookup(c.fs.root(), b"f").expect("lookup").size, 50_000);
    two.b.fs.lookup(two.b.fs.root(), b"f").expect("lookup");
    two.b.fs.append(&ME, inum.addr, b"more", false).expect("append");
    assert_eq!(size_of(&c.fs, inum.addr), 50_004);
    let Space { total, .. } = c.fs.space();
    assert_eq!(total, two.a.fs.space().total);
    c.close().expect("close");
    assert_eq!(two.cluster.hall.held_by(7), []);
    two.finish();
}

/// Recovery of what needs none, and of what may not be recovered.
#[test]
fn journals_that_are_left_alone() {
    let two = Two::make();
    assert!(two.a.recover_journal(Jid(9)).expect("there is none").clean);
    assert!(matches!(two.a.recover_journal(Jid(0)), Err(Error::Invalid)));
    let Two { cluster, a, b } = two;
    create(&b.fs, "f", 1000);
    b.close().expect("close");
    assert!(a.recover_journal(Jid(1)).expect("closed").clean);
    a.close().expect("close");
    stock_fsck(&cluster.disk, "at the end");
}

/// A dead node's counters are not lost, nor counted twice.
#[test]
fn the_counters_of_the_dead() {
    let Two { mut cluster, a, b } = Two::make();
    create(&b.fs, "f", 4 << 20);
    b.fs.sync().expect("sync");
    cluster.kill(1, b);
    let replayed = a.recover_journal(Jid(1)).expect("recovery");
    assert!(!replayed.clean && replayed.replayed > 0);
    cluster.hall.recovered();
    assert_eq!(size_of(&a.fs, a.fs.lookup(a.fs.root(), b"f").expect("it is there").inum.addr), 4 << 20);
    assert!(a.recover_journal(Jid(1)).expect("again").clean);
    let b = cluster.join(1, Mounter::Joining);
    let two = Two { cluster, a, b };
    let free = two.free();
    assert_eq!(free.0, free.1);
    // The stock fsck compares the counters with the bitmaps.
    two.finish();
}

/// A disk of which a picture is taken after every change.
struct Filmed {
    disk: Arc<MemoryDevice>,
    pictures: Arc<Mutex<Vec<MemoryDevice>>>,
    running: Arc<AtomicBool>,
}

impl Filmed {
    fn after(&self, done: io::Result<()>) -> io::Result<()> {
        if self.running.load(Ordering::SeqCst) {
            self.pictures.lock().expect("no panic").push(self.disk.snapshot());
        }
        done
    }
}

impl BlockDevice for Filmed {
    fn size(&self) -> u64 {
        self.disk.size()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.disk.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.after(self.disk.write(offset, buf))
    }
    fn flush(&self) -> io::Result<()> {
        self.disk.flush()
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.after(self.disk.discard(offset, len))
    }
}

/// Whoever takes over a dead node's counters may die after any write of it.
#[test]
fn the_counters_of_the_dead_count_once() {
    let mut cluster = Cluster::make(2, 160, 4096, 7);
    let (pictures, running) = (Arc::<Mutex<Vec<MemoryDevice>>>::default(), Arc::new(AtomicBool::new(false)));
    let filmed =
        Filmed { disk: Arc::clone(&cluster.disk), pictures: Arc::clone(&pictures), running: Arc::clone(&running) };
    let (options, desk) = (cluster.options.clone(), cluster.hall.desk(0));
    let a = open_shared(Arc::new(filmed), &options, Arc::clone(&cluster.clock), desk, Mounter::First).expect("opens");
    let b = cluster.join(1, Mounter::Joining);
    create(&b.fs, "f", 4 << 20);
    b.fs.sync().expect("sync");
    cluster.kill(1, b);
    running.store(true, Ordering::SeqCst);
    a.recover_journal(Jid(1)).expect("recovery");
    running.store(false, Ordering::SeqCst);
    cluster.hall.recovered();
    a.fs.sync_counters().expect("counters");
    let free = a.fs.space().free;
    a.close().expect("close");
    stock_fsck(&cluster.disk, "at the end");
    let pictures = std::mem::take(&mut *pictures.lock().expect("no panic"));
    assert!(pictures.len() > 3, "{} writes", pictures.len());
    for (n, picture) in pictures.into_iter().enumerate() {
        let disk = Arc::new(picture);
        let device: Arc<dyn BlockDevice> = Arc::clone(&disk) as _;
        let opened = volume::open(device, &options, Arc::clone(&cluster.clock)).expect("opens");
        assert_eq!(opened.fs.space().free, free, "after write {n}");
        opened.close().expect("close");
        check(&*disk, "a picture");
    }
}

/// A node whose device has not grown yet uses no resource groups that lie behind its end (that the others' are used is shown in
/// `tests/cluster/grow.rs`).
#[test]
fn groups_behind_the_device() {
    let mut cluster = Cluster::make(2, 128, 4096, 7);
    let (a, b) = (cluster.join(0, Mounter::First), cluster.join(1, Mounter::Joining));
    create(&b.fs, "f", 10);
    let known = b.fs.volume().rgrps.extents();
    let rindex = rindex_of(&a);
    let entry = |n: u64| {
        let last = known.last().expect("some");
        let mut bytes = [0; 96];
        let addr = last.end() + n * 1000;
        bytes[..8].copy_from_slice(&addr.to_be_bytes());
        bytes[8..12].copy_from_slice(&1u32.to_be_bytes());
        bytes[16..24].copy_from_slice(&(addr + 1).to_be_bytes());
        bytes[24..28].copy_from_slice(&800u32.to_be_bytes());
        bytes[28..32].copy_from_slice(&200u32.to_be_bytes());
        bytes
    };
    let (vol, at) = (a.fs.volume(), known.len() as u64 * 96);
    let mut inode = vol.inode(rindex).exclusive().expect("lock");
    let bytes: Vec<u8> = (0..2).flat_map(entry).collect();
    gfs2r::file::write(vol, &mut inode, at, &bytes).expect("two more groups");
    drop(inode);
    create(&b.fs, "g", 10);
    assert_eq!(b.fs.volume().rgrps.len(), known.len());
    assert!(!b.fs.volume().rgrps.owns(BlockAddr::new(known[known.len() - 1].end() + 1005).expect("not 0")));
}

fn rindex_of(opened: &Opened) -> BlockAddr {
    let vol = opened.fs.volume();
    let master = vol.inode(vol.master.addr).shared().expect("master");
    gfs2r::dir::lookup(vol, &master, b"rindex").expect("lookup").expect("rindex").inum.addr
}

/// Each node allocates in resource groups of its own while there is room.
#[test]
fn nodes_keep_out_of_each_others_way() {
    let two = Two::make();
    let (a, b) = (&two.a.fs, &two.b.fs);
    assert!(a.volume().rgrps.len() >= 4, "{} groups", a.volume().rgrps.len());
    let dirs: Vec<BlockAddr> = [(a, "a"), (b, "b")]
        .iter()
        .map(|(fs, name)| fs.make(&ME, fs.root(), name.as_bytes(), &NewInode::Dir(0o755)).expect("mkdir").inum.addr)
        .collect();
    let work = |fs: &Fs, dir, n: u64| {
        let name = format!("f{n}");
        let file = fs.make(&ME, dir, name.as_bytes(), &NewInode::File(0o644)).expect("create").inum.addr;
        fs.write(&ME, file, 0, &[1; 20_000], false).expect("write");
        fs.unlink(dir, format!("f{}", n.wrapping_sub(50)).as_bytes()).err();
    };
    (work(a, dirs[0], 1000), work(b, dirs[1], 1000));
    let before = two.cluster.hall.notices.load(Ordering::Relaxed);
    for n in 0..300 {
        (work(a, dirs[0], n), work(b, dirs[1], n));
    }
    let notices = two.cluster.hall.notices.load(Ordering::Relaxed) - before;
    println!("{notices} blocking notices for 600 files");
    assert!(notices < 30, "{notices} blocking notices");
    two.finish();
}

/// What it costs to hand a file over: two nodes append to it in turn.
#[test]
fn the_price_of_handing_over() {
    let two = Two::make();
    let (a, b) = (&two.a.fs, &two.b.fs);
    let inum = create(a, "f", 10_000);
    b.lookup(b.root(), b"f").expect("lookup");
    let counts = || {
        let sum = |f: &dyn Fn(&crate::hall::Cable) -> u64| two.cluster.cables.iter().map(|c| f(c)).sum::<u64>();
        let get = Ordering::Relaxed;
        [
            sum(&|c| c.flushes.load(get)),
            sum(&|c| c.durable.load(get)),
            sum(&|c| c.writes.load(get)),
            two.cluster.hall.requests.load(get),
        ]
    };
    for fs in [a, b, a, b] {
        fs.append(&ME, inum.addr, &[1; 100], false).expect("append");
    }
    let (before, since) = (counts(), Instant::now());
    const TURNS: u64 = 200;
    for n in 0..TURNS {
        let fs = if n % 2 == 0 { a } else { b };
        fs.append(&ME, inum.addr, &[1; 100], false).expect("append");
    }
    let took = since.elapsed();
    let per: Vec<f64> = counts().iter().zip(before).map(|(now, b)| (now - b) as f64 / TURNS as f64).collect();
    println!(
        "per hand-over: {:.2} device flushes, {:.2} durable writes, {:.2} other writes, {:.2} lock requests, {:?}",
        per[0],
        per[1],
        per[2],
        per[3],
        took / TURNS as u32
    );
    assert_eq!(size_of(a, inum.addr), 10_000 + 100 * (TURNS + 4));
    assert!(per[0] <= 2.5 && per[1] <= 2.5, "a hand-over flushes the log at most twice");
    two.finish();
}
