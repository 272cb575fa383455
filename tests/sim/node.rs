//! A node: its lives, one after the other, and what it does in them.

use crate::disk::Cable;
use crate::log::RECORD;
use crate::mover::{self, Mover};
use crate::net::Place;
use crate::tokens::{PLACES, TOKENS};
use crate::world::{Broken, DIRS, ME, REGISTERS, World, sector};
use gfs2r::cluster::{self, Cluster, JoinOptions, Parting, Recovery};
use gfs2r::device::BlockDevice;
use gfs2r::error::{Error, Result};
use gfs2r::fs::{Fs, NewInode, RenameHow, SetAttr, SetMode};
use gfs2r::ids::{BlockAddr, Jid};
use gfs2r::sync::simulated::{note, random};
use gfs2r::sync::thread;
use gfs2r::volume::{self, Opened, open_shared};
use lockclient::ids::NodeId;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// What the cluster asks of a mount.
struct ForPeers {
    opened: Weak<Opened>,
    orphans: Arc<AtomicBool>,
    world: Arc<World>,
}

impl ForPeers {
    fn opened(&self) -> Result<Arc<Opened>> {
        self.opened.upgrade().ok_or(Error::Withdrawn)
    }
}

impl Recovery for ForPeers {
    fn recover(&self, jid: Jid) -> Result<()> {
        let opened = self.opened()?;
        if self.world.plan.broken == Some(Broken::Replay) {
            return Ok(());
        }
        let replayed = opened.recover_journal(jid)?;
        note(u64::from(jid.0) << 4, || format!("journal {} replayed: {replayed:?}", jid.0));
        self.world.counts.replays.fetch_add(u64::from(!replayed.clean), Ordering::Relaxed);
        self.orphans.store(true, Ordering::Release);
        assert!(opened.is_journal_clean(jid)?, "journal {} is dirty after its replay", jid.0);
        Ok(())
    }
    fn journals(&self) -> u32 {
        self.opened().map_or(0, |opened| opened.journals)
    }
    fn is_clean(&self, jid: Jid) -> Result<bool> {
        self.opened()?.is_journal_clean(jid)
    }
    fn is_quiet(&self) -> bool {
        self.opened().is_ok_and(|opened| opened.fs.volume().cache.health().await_writers(Duration::from_secs(90)))
    }
    fn freeze(&self) -> Result<()> {
        self.opened()?.fs.freeze()
    }
    fn thaw(&self) {
        if let Ok(opened) = self.opened() {
            opened.fs.thaw();
        }
    }
    fn lost(&self) {
        if let Ok(opened) = self.opened() {
            let why = Error::Io(Arc::new(std::io::Error::other("the cluster has gone on without this node")));
            opened.fs.volume().journal.withdraw(&why);
        }
    }
}

/// All lives of a node.
pub(crate) fn run(world: &Arc<World>, id: NodeId) {
    for life in 0..world.plan.lives {
        thread::sleep(Duration::from_micros(random(2000)));
        world.net().await_fence(id);
        let by = u64::from(id.0) * 1000 + life;
        let fate = world.fate();
        if world.dark.load(Ordering::SeqCst) {
            return;
        }
        let (theirs, weak) = (id, Arc::downgrade(world));
        let dies = move || {
            if let Some(world) = weak.upgrade() {
                world.kill(theirs, true);
            }
        };
        let cable = Cable::new(&world.disk, id.0, fate, (world.plan.block_size, world.plan.broken), Box::new(dies));
        world.lives.lock().insert(id, (Arc::clone(&cable), by));
        note(by, || format!("life {by} begins: {fate:?}"));
        Life { world: Arc::clone(world), id, by, cable, may_fail: fate.fails_at.is_some() }.live();
        note(by, || format!("life {by} is over"));
    }
}

#[derive(Clone)]
pub(crate) struct Life {
    pub(crate) world: Arc<World>,
    id: NodeId,
    pub(crate) by: u64,
    cable: Arc<Cable>,
    may_fail: bool,
}

impl Life {
    /// Dead. (A node that is dead for the others goes on until it is fenced.)
    pub(crate) fn is_over(&self) -> bool {
        self.cable.is_pulled() || self.world.dark.load(Ordering::SeqCst)
    }

    fn live(&self) {
        let place = Place { net: Arc::clone(self.world.net()), id: self.id };
        let node = Arc::new(cluster::Node::new(place));
        for attempt in 0.. {
            let cluster = match Cluster::join(&node, "fs", &JoinOptions::default()) {
                Ok(cluster) => cluster,
                Err(_) if self.is_over() || self.world.net().is_cut_off(self.id) => return,
                Err(e) => panic!("life {} cannot join: {e}", self.by),
            };
            let mounter = match cluster.mounter() {
                cluster::Mounter::First => volume::Mounter::First,
                cluster::Mounter::Joining => volume::Mounter::Joining,
                cluster::Mounter::Spectator => volume::Mounter::Spectator,
            };
            note(self.by, || format!("life {} mounts journal {} {mounter:?}", self.by, cluster.jid().0));
            let device: Arc<dyn BlockDevice> = Arc::clone(&self.cable) as _;
            let options = self.world.options(cluster.jid());
            match open_shared(device, &options, Arc::clone(&self.world.clock), cluster.manager(), mounter) {
                Ok(opened) => return self.mounted(&cluster, opened),
                Err(_) if self.is_over() || self.world.net().is_cut_off(self.id) => return,
                Err(_) if self.may_fail => return self.world.kill(self.id, true),
                Err(e) if cluster.was_disturbed() && attempt < 20 => {
                    note(self.by, || format!("life {} begins to mount again: {e}", self.by));
                    cluster.leave();
                    // The journal may be dirty by now; whoever mounts next replays it.
                }
                Err(e) => panic!("life {} cannot mount: {e}", self.by),
            }
        }
    }

    fn mounted(&self, cluster: &Arc<Cluster>, opened: Opened) {
        let replayed = opened.recovered.iter().filter(|(_, r)| !r.clean).count();
        self.world.counts.replays.fetch_add(replayed as u64, Ordering::Relaxed);
        let opened = Arc::new(opened);
        let orphans = Arc::new(AtomicBool::new(false));
        let peers =
            ForPeers { opened: Arc::downgrade(&opened), orphans: Arc::clone(&orphans), world: Arc::clone(&self.world) };
        let served = cluster.serve(Arc::new(peers));
        let ended = Arc::new(AtomicBool::new(false));
        let keeper = self.keep(cluster, &opened, &ended);
        if served.is_ok() {
            let movers = mover::start(self, &opened);
            self.work(&opened, &orphans);
            movers.into_iter().for_each(|mover| mover.join().expect("no panic"));
        }
        self.part(cluster, &opened);
        ended.store(true, Ordering::SeqCst);
        drop(opened);
        keeper.join().expect("no panic");
    }

    /// As the mount's own: withdraws from the cluster when the volume has, whoever waits for what.
    fn keep(&self, cluster: &Arc<Cluster>, opened: &Arc<Opened>, ended: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
        let (cluster, opened, ended) = (Arc::clone(cluster), Arc::downgrade(opened), Arc::clone(ended));
        let (world, id, by) = (Arc::clone(&self.world), self.id, self.by);
        let keep = move || {
            while !ended.load(Ordering::SeqCst) && !world.net().is_cut_off(id) {
                thread::sleep(Duration::from_millis(30));
                let Some(opened) = opened.upgrade() else { return };
                if opened.fs.volume().journal.withdrawn().is_some() && !world.net().is_cut_off(id) {
                    world.died(by);
                    // As the mount does: nobody is answered any more from what others will change.
                    opened.fs.shut();
                    if cluster.withdraw() == Parting::Unreplayed {
                        world.kill(id, true);
                    }
                    return;
                }
            }
        };
        thread::Builder::new().name(format!("keep {}", self.by)).spawn(keep).expect("a thread")
    }

    fn part(&self, cluster: &Arc<Cluster>, opened: &Arc<Opened>) {
        if self.is_over() {
            return;
        }
        let closed = opened.close();
        if self.is_over() {
            return;
        }
        match closed {
            Ok(()) => {
                self.world.history.closed(self.by);
                self.world.tokens.durable(self.by, self.world.tokens.moment());
                self.world.log.durable(self.by, self.world.log.moment());
                cluster.leave();
            }
            Err(e) => {
                assert!(self.may_fail || self.world.net().is_cut_off(self.id), "life {} cannot close: {e:?}", self.by);
                self.world.died(self.by);
                self.world.counts.withdrawals.fetch_add(1, Ordering::Relaxed);
                let parting = cluster.withdraw();
                note(self.by, || format!("life {} withdrew: {parting:?}", self.by));
                match parting {
                    Parting::Replayed | Parting::Alone => cluster.leave(),
                    Parting::Unreplayed => self.world.kill(self.id, true),
                }
            }
        }
    }

    fn work(&self, opened: &Arc<Opened>, orphans: &AtomicBool) {
        let reader = Reader { world: &self.world, fs: &opened.fs, by: self.by, checks: true };
        let mut worker = Worker { reader, id: self.id };
        for _ in 0..1 + random(self.world.plan.operations) {
            if orphans.swap(false, Ordering::AcqRel) {
                let done = opened.fs.reclaim_orphans(&AtomicBool::new(false)).map(drop);
                if !self.goes_on("reclaim", done) {
                    return;
                }
            }
            let (what, done) = worker.step();
            self.world.counts.operations.fetch_add(1, Ordering::Relaxed);
            note(self.by, || format!("life {}: {what}: {done:?}", self.by));
            if !self.goes_on(&what, done) {
                return;
            }
            if random(2) == 0 {
                thread::sleep(Duration::from_micros(random(60_000)));
            }
        }
    }

    /// Panics for what must not happen.
    pub(crate) fn goes_on(&self, what: &str, done: Result<()>) -> bool {
        let over = self.is_over();
        match done {
            _ if over => false,
            Ok(())
            | Err(
                Error::NotFound
                | Error::Exists
                | Error::NotEmpty
                | Error::Stale
                | Error::NotADirectory
                | Error::IsADirectory
                | Error::NoSpace
                | Error::NoAttribute,
            ) => true,
            Err(Error::Io(_) | Error::Withdrawn) if self.may_fail || self.world.net().is_cut_off(self.id) => false,
            Err(e) => panic!("life {}: {what}: {e:?}", self.by),
        }
    }
}

/// Looks at what is there.
pub(crate) struct Reader<'a> {
    pub(crate) world: &'a Arc<World>,
    pub(crate) fs: &'a Arc<Fs>,
    pub(crate) by: u64,
    /// What it sees must be right.
    pub(crate) checks: bool,
}

impl Reader<'_> {
    fn with<R>(&self, dir: BlockAddr, name: &str, f: impl FnOnce(BlockAddr) -> Result<R>) -> Result<R> {
        let addr = self.fs.lookup(dir, name.as_bytes())?.inum.addr;
        let done = f(addr);
        self.fs.forget(addr, 1)?;
        done
    }
    fn seen(&self, verdict: std::result::Result<(), String>) {
        if let Err(why) = verdict
            && !self.world.is_out(self.by)
        {
            panic!("{why}");
        }
    }

    /// The sectors of a register file.
    fn register(&self, n: usize) -> Result<()> {
        let (name, sectors) = REGISTERS[n];
        let begun = self.world.history.moment();
        let mut buf = vec![0; sectors as usize * 512];
        let len = self.with(self.fs.root(), name, |addr| self.fs.read(addr, 0, &mut buf))?;
        assert_eq!(len, buf.len(), "{name} has lost its end");
        for (i, bytes) in buf.chunks(512).enumerate() {
            let value = u64::from_le_bytes(bytes[..8].try_into().expect("8"));
            assert!(bytes == sector(value), "sector {i} of {name} is torn: {bytes:x?}");
            self.seen(self.world.history.read(self.by, &format!("{name}/{i}"), begun, value));
        }
        Ok(())
    }
    /// What a shared name says.
    fn name(&self, dir: &str, name: &str) -> Result<()> {
        let begun = self.world.history.moment();
        let target = self.with(self.fs.root(), dir, |dir| self.with(dir, name, |addr| self.fs.readlink(addr)));
        let value = match target {
            Ok(bytes) => u64::from_str_radix(std::str::from_utf8(&bytes).expect("a number"), 16).expect("a number"),
            Err(Error::NotFound) => 0,
            // Another one by now.
            Err(Error::Stale) => return Ok(()),
            Err(e) => return Err(e),
        };
        self.seen(self.world.history.read(self.by, &format!("{dir}:{name}"), begun, value));
        Ok(())
    }
    /// A file that is replaced as a whole.
    fn whole(&self, node: u32) -> Result<()> {
        let begun = self.world.history.moment();
        let name = format!("o{node}");
        let mut buf = [0; 600];
        let value = match self.with(self.fs.root(), &name, |addr| self.fs.read(addr, 0, &mut buf)) {
            Ok(600) => u64::from_le_bytes(buf[..8].try_into().expect("8")),
            Ok(n) => panic!("{name} has {n} bytes"),
            Err(Error::NotFound) => 0,
            Err(Error::Stale) => return Ok(()),
            Err(e) => return Err(e),
        };
        assert!(buf.chunks(8).all(|c| c == value.to_le_bytes()), "{name} is torn: {buf:x?}");
        self.seen(self.world.history.read(self.by, &name, begun, value));
        Ok(())
    }
    fn log(&self) -> Result<()> {
        let begun = self.world.log.moment();
        let mut buf = vec![0; 64 * 1024];
        let len = self.with(self.fs.root(), "log", |addr| self.fs.read(addr, 0, &mut buf))?;
        let number = |record: &[u8]| {
            assert!(
                record.len() == RECORD && record.chunks(8).all(|c| c == &record[..8]),
                "a torn record: {record:x?}"
            );
            u64::from_le_bytes(record[..8].try_into().expect("8"))
        };
        let found: Vec<u64> = buf[..len].chunks(RECORD).map(number).collect();
        self.seen(self.world.log.read(self.by, begun, &found));
        Ok(())
    }
    /// Everything.
    pub(crate) fn all(&self) {
        (0..REGISTERS.len()).for_each(|n| self.register(n).expect("readable"));
        for dir in DIRS {
            NAMES.iter().for_each(|name| self.name(dir, name).expect("readable"));
        }
        (1..=self.world.plan.nodes).for_each(|n| self.whole(n).expect("readable"));
        self.log().expect("readable");
        if self.world.plan.movers > 0 {
            let mut mover = Mover::new(self.world, self.fs, self.by);
            for n in 0..TOKENS {
                (0..PLACES).for_each(|at| mover.look(n, at).expect("readable"));
            }
            mover.forget().expect("forgotten");
        }
    }
}

const NAMES: [&str; 3] = ["a", "b", "c"];

struct Worker<'a> {
    reader: Reader<'a>,
    id: NodeId,
}

impl Worker<'_> {
    fn step(&mut self) -> (String, Result<()>) {
        let dir = DIRS[random(2) as usize];
        let name = NAMES[random(3) as usize];
        let n = random(3) as usize;
        let node = 1 + random(u64::from(self.reader.world.plan.nodes)) as u32;
        match random(20) {
            0 | 1 => (format!("read {}", REGISTERS[n].0), self.reader.register(n)),
            2..=4 => (format!("write {}", REGISTERS[n].0), self.write(n)),
            5 => (format!("look at {dir}/{name}"), self.reader.name(dir, name)),
            6 | 7 => (format!("make {dir}/{name}"), self.make(dir, name)),
            8 => (format!("unlink {dir}/{name}"), self.unlink(dir, name)),
            9 => (format!("put {dir}/{name}"), self.replace(dir, name)),
            10 => (format!("look at o{node}"), self.reader.whole(node)),
            11 | 12 => ("put own".into(), self.own()),
            13 => ("read the log".into(), self.reader.log()),
            14 | 15 => ("append".into(), self.append()),
            16 => ("sync".into(), self.sync()),
            17 => ("scratch".into(), self.scratch()),
            18 => (format!("attributes of {dir}"), self.attributes(dir)),
            _ => (format!("folder m{n}"), self.folder(n)),
        }
    }

    fn fs(&self) -> &Arc<Fs> {
        self.reader.fs
    }
    fn world(&self) -> &Arc<World> {
        self.reader.world
    }
    fn synced(&self, addr: BlockAddr, fits: impl Fn(&str) -> bool) -> Result<()> {
        let since = self.world().history.moment();
        self.fs().fsync(addr)?;
        self.world().history.durable(self.reader.by, since, fits);
        Ok(())
    }

    fn write(&self, n: usize) -> Result<()> {
        let (name, sectors) = REGISTERS[n];
        let first = random(sectors);
        let count = 1 + random(sectors - first);
        let (value, by, history) = (self.world().value(), self.reader.by, &self.world().history);
        self.reader.with(self.fs().root(), name, |addr| {
            let begun: Vec<_> =
                (first..first + count).map(|i| history.write(by, &format!("{name}/{i}"), value)).collect();
            let done = self.fs().write(&ME, addr, first * 512, &sector(value).repeat(count as usize), false);
            begun.iter().for_each(|b| history.wrote(b, done.is_ok()));
            if let Ok(n) = done {
                assert_eq!(n as u64, count * 512, "a short write in place");
            }
            done?;
            if random(3) == 0 { self.synced(addr, |r| r.starts_with(name)) } else { Ok(()) }
        })
    }

    fn make(&self, dir: &str, name: &str) -> Result<()> {
        let (value, history) = (self.world().value(), &self.world().history);
        self.reader.with(self.fs().root(), dir, |parent| {
            let register = format!("{dir}:{name}");
            let begun = history.write(self.reader.by, &register, value);
            let target = format!("{value:x}");
            let made = self.fs().make(&ME, parent, name.as_bytes(), &NewInode::Symlink(target.as_bytes()));
            match made {
                Err(Error::Exists) => history.undone(&begun),
                _ => history.wrote(&begun, made.is_ok()),
            }
            let addr = made?.inum.addr;
            let done = if random(3) == 0 { self.synced(addr, |r| r == register) } else { Ok(()) };
            self.fs().forget(addr, 1)?;
            done
        })
    }

    fn unlink(&self, dir: &str, name: &str) -> Result<()> {
        let history = &self.world().history;
        self.reader.with(self.fs().root(), dir, |parent| {
            let begun = history.write(self.reader.by, &format!("{dir}:{name}"), 0);
            let done = self.fs().unlink(parent, name.as_bytes());
            match done {
                Err(Error::NotFound) => history.undone(&begun),
                _ => history.wrote(&begun, done.is_ok()),
            }
            done
        })
    }

    /// A new one is made beside it and takes its name.
    fn replace(&self, dir: &str, name: &str) -> Result<()> {
        let (value, history, fs) = (self.world().value(), &self.world().history, self.fs());
        let own = format!("t{}", self.reader.by);
        self.reader.with(fs.root(), dir, |parent| {
            let target = format!("{value:x}");
            let addr = fs.make(&ME, parent, own.as_bytes(), &NewInode::Symlink(target.as_bytes()))?.inum.addr;
            let register = format!("{dir}:{name}");
            let begun = history.write(self.reader.by, &register, value);
            let done = fs.rename(&ME, (parent, own.as_bytes()), (parent, name.as_bytes()), RenameHow::Replace);
            history.wrote(&begun, done.is_ok());
            let done = done.and_then(|()| if random(3) == 0 { self.synced(addr, |r| r == register) } else { Ok(()) });
            fs.forget(addr, 1)?;
            done
        })
    }

    /// The way a careful program replaces a file.
    fn own(&self) -> Result<()> {
        let (value, history, fs) = (self.world().value(), &self.world().history, self.fs());
        let (own, temporary) = (format!("o{}", self.id.0), format!("x{}", self.reader.by));
        if random(6) == 0 {
            let begun = history.write(self.reader.by, &own, 0);
            let done = fs.unlink(fs.root(), own.as_bytes());
            match done {
                Err(Error::NotFound) => history.undone(&begun),
                _ => history.wrote(&begun, done.is_ok()),
            }
            return done;
        }
        let addr = fs.make(&ME, fs.root(), temporary.as_bytes(), &NewInode::File(0o600))?.inum.addr;
        let done = fs.write(&ME, addr, 0, &value.to_le_bytes().repeat(75), false).and_then(|n| {
            if n < 600 {
                return Err(Error::NoSpace);
            }
            fs.fsync(addr)?;
            let begun = history.write(self.reader.by, &own, value);
            let done =
                fs.rename(&ME, (fs.root(), temporary.as_bytes()), (fs.root(), own.as_bytes()), RenameHow::Replace);
            history.wrote(&begun, done.is_ok());
            done?;
            if random(2) == 0 { self.synced(addr, |r| r == own) } else { Ok(()) }
        });
        fs.forget(addr, 1)?;
        done
    }

    fn append(&self) -> Result<()> {
        let (value, log, fs) = (self.world().value(), &self.world().log, self.fs());
        self.reader.with(fs.root(), "log", |addr| {
            let n = log.begin(self.reader.by, value);
            let done = fs.append(&ME, addr, &value.to_le_bytes().repeat(RECORD / 8), false);
            log.end(n, done.is_ok());
            done?;
            if random(3) == 0 {
                let since = log.moment();
                fs.fsync(addr)?;
                log.durable(self.reader.by, since);
            }
            Ok(())
        })
    }

    fn sync(&self) -> Result<()> {
        let (since, log) = (self.world().history.moment(), self.world().log.moment());
        let tokens = self.world().tokens.moment();
        self.fs().sync()?;
        self.world().history.durable(self.reader.by, since, |_| true);
        self.world().log.durable(self.reader.by, log);
        self.world().tokens.durable(self.reader.by, tokens);
        if random(3) == 0 { self.fs().sync_counters() } else { Ok(()) }
    }

    /// A file of its own: grown, cut, linked, unlinked while open.
    fn scratch(&self) -> Result<()> {
        let fs = self.fs();
        let (root, name) = (fs.root(), format!("s{}", self.reader.by));
        let addr = match fs.make(&ME, root, name.as_bytes(), &NewInode::File(0o644)) {
            Ok(attr) => attr.inum.addr,
            Err(Error::Exists) => fs.lookup(root, name.as_bytes())?.inum.addr,
            Err(e) => return Err(e),
        };
        let size = random(40_000);
        let bytes = vec![random(255) as u8; 1 + random(9000) as usize];
        let done = fs.write(&ME, addr, size, &bytes, false).and_then(|_| {
            let mut buf = vec![0; bytes.len()];
            let n = fs.read(addr, size, &mut buf)?;
            assert_eq!(buf[..n], bytes[..n], "what was just written is there");
            fs.setattr(&ME, addr, &SetAttr { size: Some(random(20_000)), ..SetAttr::default() })?;
            match random(4) {
                0 => {
                    fs.link(&ME, addr, root, format!("l{}", self.reader.by).as_bytes()).and_then(|_| fs.forget(addr, 1))
                }
                1 => fs.unlink(root, name.as_bytes()).and_then(|()| fs.write(&ME, addr, 0, b"open", false)).map(drop),
                2 => fs.unlink(root, name.as_bytes()),
                _ => fs.fsync(addr),
            }
        });
        fs.forget(addr, 1)?;
        done
    }

    fn attributes(&self, dir: &str) -> Result<()> {
        let fs = self.fs();
        self.reader.with(fs.root(), dir, |addr| match random(4) {
            0 => fs.setxattr(&ME, addr, b"user.a", &vec![7; random(700) as usize], SetMode::Any),
            1 => fs.removexattr(addr, b"user.a"),
            2 => fs.setattr(&ME, addr, &SetAttr { uid: Some(random(3) as u32), ..SetAttr::default() }).map(drop),
            _ => fs.getxattr(addr, b"user.a").map(|v| assert!(v.iter().all(|b| *b == 7), "a strange attribute")),
        })
    }

    fn folder(&self, n: usize) -> Result<()> {
        let (fs, name) = (self.fs(), format!("m{n}"));
        if random(2) == 0 {
            return fs.rmdir(fs.root(), name.as_bytes());
        }
        let addr = fs.make(&ME, fs.root(), name.as_bytes(), &NewInode::Dir(0o755))?.inum.addr;
        fs.forget(addr, 1)
    }
}
