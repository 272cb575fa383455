//! The volume on which the operations play: files, directories and attributes of every shape.

use crate::view::View;
use gfs2r::clock::SimClock;
use gfs2r::device::{BlockDevice, CrashMode, MemoryDevice, SimDevice};
use gfs2r::error::Result;
use gfs2r::fs::{Caller, Fs, InodeFlags, NewInode, SetMode};
use gfs2r::ids::BlockAddr;
use gfs2r::quota::{QuotaMode, Who};
use gfs2r::volume::{OpenOptions, Opened, open};
use std::sync::{Arc, OnceLock};

/// Who owns all.
pub(crate) const ANN: Caller = Caller { uid: 1000, gid: 1001, umask: 0o022 };
/// The superuser.
pub(crate) const SUPER: Caller = Caller { uid: 0, gid: 0, umask: 0 };
/// When the stage was set.
pub(crate) const LONG_AGO: i64 = 1_700_000_000;
const DISK: u64 = 40 << 20;

/// A volume, closed.
pub(crate) struct Stage {
    pub bs: u64,
    pub quota: QuotaMode,
    pub disk: MemoryDevice,
    /// The same with inodes without a name that nobody has deleted yet.
    pub orphans: MemoryDevice,
    /// The same, its journal not replayed after much has happened.
    pub dirty: MemoryDevice,
    /// What it shows, with or without something made durable first, without and with orphans.
    pub befores: [OnceLock<View>; 4],
    /// Names after which a directory grows: out of its dinode, by a leaf, by table blocks (or another leaf).
    pub growth: [usize; 3],
}

/// What an operation has at hand.
pub(crate) struct Ctx<'a> {
    pub opened: &'a Opened,
    pub fs: &'a Arc<Fs>,
    pub bs: u64,
    pub growth: [usize; 3],
    pub caller: Caller,
}

impl Ctx<'_> {
    /// Does something with the inode at a path.
    pub(crate) fn on<T>(&self, path: &str, f: impl FnOnce(BlockAddr) -> Result<T>) -> Result<T> {
        let mut at = self.fs.root();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let next = self.fs.lookup(at, name.as_bytes());
            self.let_go(at);
            at = next?.inum.addr;
        }
        let result = f(at);
        self.let_go(at);
        result
    }
    /// Nobody waits for the answer to a forget, and nobody hears of its errors: what was not deleted stays an orphan.
    pub(crate) fn let_go(&self, node: BlockAddr) {
        if let Err(e) = self.fs.forget(node, 1) {
            assert!(e.is_fatal(), "forget: {e}");
        }
    }
    pub(crate) fn make(&self, dir: &str, name: &str, what: &NewInode<'_>) -> Result<()> {
        let attr = self.on(dir, |dir| self.fs.make(&self.caller, dir, name.as_bytes(), what))?;
        self.let_go(attr.inum.addr);
        Ok(())
    }
    pub(crate) fn link(&self, node: &str, dir: &str, name: &str) -> Result<()> {
        self.on(node, |node| {
            self.on(dir, |dir| self.fs.link(&self.caller, node, dir, name.as_bytes())).map(|_| self.let_go(node))
        })
    }
    pub(crate) fn write(&self, path: &str, offset: u64, bytes: &[u8]) -> Result<usize> {
        self.on(path, |node| self.fs.write(&self.caller, node, offset, bytes, false))
    }
    fn write_all(&self, path: &str, offset: u64, bytes: &[u8]) -> Result<()> {
        self.write(path, offset, bytes).map(|n| assert_eq!(n, bytes.len(), "a short write to {path}"))
    }
    pub(crate) fn set(&self, path: &str, name: &str, len: usize, fill: u8) -> Result<()> {
        self.on(path, |node| self.fs.setxattr(&self.caller, node, name.as_bytes(), &vec![fill; len], SetMode::Any))
    }
    /// A name, the longer the larger the blocks are.
    pub(crate) fn name(&self, n: usize) -> String {
        let len = (self.bs as usize / 16).clamp(40, 180);
        format!("{n:x<len$}")
    }
    /// First offset that a tree of this height does not hold.
    pub(crate) fn beyond(&self, height: u32) -> u64 {
        (self.bs - 232) / 8 * self.bs * ((self.bs - 24) / 8).pow(height - 1)
    }
    fn file(&self, path: &str, pieces: &[(u64, usize)]) -> Result<()> {
        self.make("/", path, &NewInode::File(0o644))?;
        pieces.iter().try_for_each(|&(offset, len)| self.write_all(path, offset, &pattern(7, len)))
    }
}

/// Bytes none of which is zero.
pub(crate) fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| 1 + ((i / 64) as u8 ^ seed) % 250).collect()
}

/// The value of an ACL that names a user; with the mask that a mode's group bits are.
pub(crate) fn acl(group: u8) -> Vec<u8> {
    let entry = |tag: u8, perm: u8, id: [u8; 4]| [&[tag, 0, perm, 0][..], &id].concat();
    let none = [0xff; 4];
    let entries = [
        entry(0x01, 7, none),
        entry(0x02, 5, [0xd2, 4, 0, 0]),
        entry(0x04, group, none),
        entry(0x10, group, none),
        entry(0x20, 1, none),
    ];
    [vec![2, 0, 0, 0], entries.concat()].concat()
}

pub(crate) fn options(quota: QuotaMode) -> OpenOptions {
    OpenOptions { quota, ..OpenOptions::default() }
}

/// Opens a volume at a time.
pub(crate) fn open_at(dev: Arc<dyn BlockDevice>, options: &OpenOptions, time: i64) -> Result<Opened, String> {
    open(dev, options, Arc::new(SimClock::new(time))).map_err(|e| format!("open: {e}"))
}

impl Stage {
    /// Makes the volume.
    pub(crate) fn set(bs: u64, quota: QuotaMode) -> Self {
        let growth = growth(bs);
        let disk = MemoryDevice::new(DISK);
        format(&disk, bs);
        let disk = Arc::new(disk);
        let stage = |disk: Arc<MemoryDevice>, f: &dyn Fn(&Ctx<'_>) -> Result<()>| {
            let opened = open_at(disk, &options(quota), LONG_AGO).expect("opens");
            f(&Ctx { opened: &opened, fs: &opened.fs, bs, growth, caller: ANN }).expect("the stage is set");
            opened.close().expect("closes");
        };
        stage(Arc::clone(&disk), &|c| {
            // Their places in the quota file are there: whether an operation's charges have been moved to it, which may take
            // a block, is not what these tests are about.
            if let Some(quota) = c.fs.quota() {
                quota.set(c.fs.volume(), Who::User(5), None, Some(1))?;
                quota.set(c.fs.volume(), Who::Group(6), None, Some(1))?;
            }
            rubbish(c)?;
            files(c)?;
            directories(c)?;
            attributes(c)
        });
        let sim = Arc::new(SimDevice::new(disk.snapshot()));
        leave(sim.clone(), &options(quota), orphan, bs, growth);
        let left = Arc::new(sim.crash(0, CrashMode::AllKept));
        // Replayed, but nothing deleted.
        stage(Arc::clone(&left), &|_| Ok(()));
        let sim = Arc::new(SimDevice::new(disk.snapshot()));
        leave(sim.clone(), &options(quota), busy, bs, growth);
        let dirty = sim.crash(0, CrashMode::AllLost);
        Self { bs, quota, disk: disk.snapshot(), orphans: left.snapshot(), dirty, befores: Default::default(), growth }
    }
}

/// Makes a volume whose log begins near its first block: a mount reads up to there.
fn format(disk: &MemoryDevice, bs: u64) {
    let small = gfs2r_mkfs::Options::small(bs as u32).expect("a legal block size");
    let journal_starts = vec![(8 << 20) / bs - 20];
    let options = gfs2r_mkfs::Options { journal_starts, lock_proto: "lock_nolock".into(), ..small };
    gfs2r_mkfs::format_device(disk, &options, &mut gfs2r_mkfs::Silent).expect("the volume is made");
}

/// Opens, does something, syncs, and leaves as in a crash.
fn leave(sim: Arc<SimDevice>, options: &OpenOptions, f: impl Fn(&Ctx<'_>) -> Result<()>, bs: u64, growth: [usize; 3]) {
    let opened = open_at(sim, options, LONG_AGO).expect("opens");
    f(&Ctx { opened: &opened, fs: &opened.fs, bs, growth, caller: ANN }).expect("before the crash");
    opened.fs.sync().expect("sync");
}

/// Fills free blocks with bytes that nobody may ever see again.
fn rubbish(c: &Ctx<'_>) -> Result<()> {
    c.make("/", "rubbish", &NewInode::File(0o644))?;
    let bytes = vec![0xee; 1 << 20];
    (0..12).try_for_each(|i| c.write_all("/rubbish", i << 20, &bytes))?;
    c.fs.unlink(c.fs.root(), b"rubbish")?;
    c.fs.sync()
}

fn files(c: &Ctx<'_>) -> Result<()> {
    let bs = c.bs;
    let n = bs as usize;
    c.file("empty", &[])?;
    c.file("small", &[(0, 100)])?;
    c.file("victim", &[(0, 90)])?;
    c.file("mid", &[(0, 5 * n + 17)])?;
    c.file("mid2", &[(0, 4 * n + 17)])?;
    c.file("deep", &[(0, n + 5), (c.beyond(1) + 3 * bs, 2 * n), (c.beyond(2), 2 * n + 9)])?;
    c.file("deep2", &[(0, n + 5), (c.beyond(2), n)])?;
    c.file("long", &[(0, 150 * n)])?;
    c.file("recent", &[(0, 50)])?;
    c.file("frag", &[])?;
    c.file("frag2", &[])?;
    for i in 0..30 {
        c.write("/frag", 2 * i * bs, &pattern(i as u8, n))?;
        c.write("/frag2", 2 * i * bs, &pattern(i as u8, n))?;
        c.on("/frag", |node| c.fs.fsync(node))?;
    }
    for name in ["jd", "jd2"] {
        c.file(name, &[])?;
        c.on(name, |node| c.fs.set_flags(&SUPER, node, InodeFlags::JOURNAL_DATA))?;
        c.write(name, 0, &pattern(3, 6 * n))?;
    }
    c.file("synced", &[(0, 3 * n)])?;
    c.on("synced", |node| c.fs.set_flags(&SUPER, node, InodeFlags::SYNC))?;
    c.make("/", "priv", &NewInode::File(0o6755))?;
    c.make("/", "sym", &NewInode::Symlink(b"a target"))?;
    c.make("/", "node", &NewInode::Node(0o020_644, (4, 64)))?;
    c.file("linked", &[(0, 10)])?;
    c.file("common", &[(0, 10)])
}

fn directories(c: &Ctx<'_>) -> Result<()> {
    let dir = NewInode::Dir(0o755);
    for name in ["empty.d", "few", "hollow", "g1", "g2", "g3", "a", "b", "acl.d"] {
        c.make("/", name, &dir)?;
    }
    c.make("/a", "sub", &dir)?;
    c.make("/a", "gone", &dir)?;
    c.make("/b", "sub", &dir)?;
    c.make("/b", "empty", &dir)?;
    for name in ["one", "two", "three"] {
        c.make("/few", name, &NewInode::File(0o600))?;
        c.make("/a", name, &NewInode::File(0o600))?;
        c.make("/b", name, &NewInode::File(0o600))?;
    }
    c.link("/linked", "/few", "link")?;
    for (dir, count) in ["/g1", "/g2", "/g3"].iter().zip(c.growth) {
        (0..count).try_for_each(|n| c.link("/common", dir, &c.name(n)))?;
    }
    (0..c.growth[1] + 1).try_for_each(|n| c.link("/common", "/hollow", &c.name(n)))?;
    (0..c.growth[1] + 1).try_for_each(|n| c.on("/hollow", |dir| c.fs.unlink(dir, c.name(n).as_bytes())))
}

fn attributes(c: &Ctx<'_>) -> Result<()> {
    let n = c.bs as usize;
    for file in ["x.one", "x.some", "x.many", "x.big", "x.two", "x.acl", "x.gone"] {
        c.file(file, &[(0, 30)])?;
    }
    c.set("/x.one", "user.first", 20, 1)?;
    for i in 0..4 {
        c.set("/x.some", &format!("user.name{i}"), n / 3, i)?;
    }
    for i in 0..12 {
        c.set("/x.many", &format!("trusted.a-long-name-{i}"), n / 2, i)?;
    }
    c.set("/x.big", "user.big", 4 * n, 9)?;
    c.set("/x.big", "user.little", 9, 9)?;
    c.set("/x.two", "user.big", 3 * n, 9)?;
    c.set("/x.two", "user.bigger", 5 * n, 8)?;
    c.set("/x.gone", "user.big", 5 * n, 8)?;
    c.set("/x.gone", "user.little", 5, 8)?;
    c.on("/x.acl", |node| c.fs.setxattr(&c.caller, node, b"system.posix_acl_access", &acl(5), SetMode::Any))?;
    c.on("/acl.d", |node| c.fs.setxattr(&c.caller, node, b"system.posix_acl_default", &acl(5), SetMode::Any))
}

/// Inodes that lose their names while they are open.
fn orphan(c: &Ctx<'_>) -> Result<()> {
    let root = c.fs.root();
    for name in ["deep", "mid", "frag", "jd", "x.some", "x.big", "small2"] {
        if name == "small2" {
            c.file(name, &[(0, 10)])?;
        }
        c.fs.lookup(root, name.as_bytes())?;
        c.fs.unlink(root, name.as_bytes())?;
    }
    c.fs.lookup(root, b"hollow")?;
    c.fs.rmdir(root, b"hollow")
}

/// Enough of everything that a replay has work to do: several groups, revokes, an allocation that reuses blocks.
fn busy(c: &Ctx<'_>) -> Result<()> {
    let (root, n) = (c.fs.root(), c.bs as usize);
    c.link("/common", "/g1", &c.name(c.growth[0]))?;
    c.set("/x.one", "user.second", n, 3)?;
    c.write("/jd", n as u64, &pattern(9, 3 * n))?;
    c.fs.sync()?;
    c.fs.unlink(root, b"jd")?;
    c.fs.unlink(root, b"x.big")?;
    c.fs.sync()?;
    c.file("new", &[(0, 20 * n)])?;
    c.fs.sync_counters()?;
    c.fs.sync()?;
    c.fs.unlink(root, b"deep")?;
    c.write_all("/empty", 0, &pattern(8, 3 * n))
}

/// After how many names a directory grows: the first time, the next, and the first time after that by several blocks at once
/// (the last growth, where directories of this size never do that).
fn growth(bs: u64) -> [usize; 3] {
    let disk = MemoryDevice::new(DISK);
    format(&disk, bs);
    let opened = open_at(Arc::new(disk), &OpenOptions::default(), LONG_AGO).expect("opens");
    let c = Ctx { opened: &opened, fs: &opened.fs, bs, growth: [0; 3], caller: SUPER };
    let made = c.file("f", &[]).and_then(|()| c.make("/", "d", &NewInode::Dir(0o755)));
    made.expect("made");
    let mut events = Vec::new();
    for n in 0..400 {
        let free = opened.fs.space().free;
        c.link("/f", "/d", &c.name(n)).expect("link");
        match free - opened.fs.space().free {
            0 => {}
            1 if events.len() > 2 => events[2] = n,
            1 => events.push(n),
            _ if events.len() < 2 => events.push(n),
            _ => {
                events.truncate(2);
                events.push(n);
                break;
            }
        }
    }
    println!("block size {bs}: directories grow after {events:?} names");
    [events[0], events[1], events[2]]
}
