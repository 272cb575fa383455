//! Several threads on each of several nodes, all at once, on a small common tree: nothing may be lost, doubled or torn, and
//! nobody may wait for ever.

use crate::harness::ME;
use crate::ops::{Rng, seed};
use crate::support::{check, stock_fsck};
use crate::{Cluster, number};
use gfs2r::error::{Error, Result};
use gfs2r::fs::{Attr, Fs, NewInode, OpenHow, RenameHow, SetAttr, SetMode};
use gfs2r::ids::BlockAddr;
use gfs2r::sync::impatiently;
use gfs2r::volume::{Mounter, Opened};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes of a record in a common file.
const RECORD: usize = 32;
/// Longest time in which nothing happens.
const STUCK: Duration = Duration::from_secs(60);

/// An inode that this node's kernel knows.
struct Known<'f> {
    fs: &'f Fs,
    addr: BlockAddr,
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        // A node that died may say anything.
        if let Err(e) = self.fs.forget(self.addr, 1)
            && !e.is_fatal()
            && !matches!(e, Error::ReadOnly)
        {
            panic!("forgetting {}: {e}", self.addr);
        }
    }
}

/// As the daemon asks: first so that nothing is waited for, then, if that will not do, with patience.
fn asked<T>(mut f: impl FnMut() -> Result<T>) -> Result<T> {
    match impatiently(&mut f) {
        Err(Error::MustWait) => f(),
        done => done,
    }
}

/// One program on one node.
struct Program {
    fs: Arc<Fs>,
    node: usize,
    number: u64,
    rng: Rng,
    appended: u64,
    counted: u64,
    /// Appended records that were made durable.
    promised: Arc<AtomicU64>,
    pulse: Arc<AtomicU64>,
}

/// What others may have brought about.
fn is_normal(e: &Error) -> bool {
    use Error::{
        Exists, Invalid, IsADirectory, NoAttribute, NoSpace, NotADirectory, NotEmpty, NotFound, NotPermitted, Stale,
    };
    matches!(
        e,
        Exists
            | Invalid
            | IsADirectory
            | NoAttribute
            | NoSpace
            | NotADirectory
            | NotEmpty
            | NotFound
            | NotPermitted
            | Stale
    )
}

fn known(fs: &Fs, attr: Attr) -> Known<'_> {
    Known { fs, addr: attr.inum.addr }
}

fn look<'f>(fs: &'f Fs, dir: &Known<'_>, name: &str) -> Result<Known<'f>> {
    Ok(known(fs, asked(|| fs.lookup(dir.addr, name.as_bytes()))?))
}

fn root(fs: &Fs) -> Known<'_> {
    Known { fs, addr: fs.root() }
}

impl Program {
    /// Runs until `count` operations are done; ends early when the node has died.
    fn run(&mut self, count: u64) -> std::result::Result<(), String> {
        for n in 0..count {
            self.pulse.fetch_add(1, Ordering::Relaxed);
            let op = self.rng.below(20);
            match self.one(op) {
                Ok(()) => {}
                Err(e) if is_normal(&e) => {}
                Err(e) if e.is_fatal() && self.fs.volume().journal.withdrawn().is_some() => {
                    return Err(format!("node {} program {} op {op} number {n}: {e}", self.node, self.number));
                }
                Err(e) => {
                    return Err(format!(
                        "node {} program {} op {op} number {n}: strange: {e:?}",
                        self.node, self.number
                    ));
                }
            }
        }
        Ok(())
    }

    fn one(&mut self, op: u64) -> Result<()> {
        let fs = Arc::clone(&self.fs);
        let top = root(&fs);
        let dir = look(&fs, &top, &format!("d{}", self.rng.below(3)))?;
        let name = format!("f{}", self.rng.below(8));
        match op {
            0..3 => self.append(&fs, &top),
            3..5 => self.count(&fs, &top),
            5 | 6 => self.rewrite(&fs, &dir, &name),
            7 | 8 => Self::verify(&fs, &dir, &name),
            9 => asked(|| fs.unlink(dir.addr, name.as_bytes())),
            10 => self.rename(&fs, &top, &dir, &name),
            11 => self.link(&fs, &top, &dir, &name),
            12 => self.truncate(&fs, &dir, &name),
            13 => self.xattr(&fs, &dir, &name),
            14 => Self::list(&fs, &dir),
            15 => self.directories(&fs, &dir),
            16 => self.open_unlinked(&fs, &dir),
            17 => self.many(&fs, &dir),
            18 => fs.sync(),
            _ => self.own(&fs, &top),
        }
    }

    /// Records at the end of a file that everybody appends to.
    fn append(&mut self, fs: &Fs, top: &Known<'_>) -> Result<()> {
        let file = look(fs, top, "log")?;
        let record = record(self.number, self.appended + 1);
        assert_eq!(asked(|| fs.append(&ME, file.addr, &record, false))?, RECORD);
        self.appended += 1;
        if self.rng.chance(20) {
            fs.fsync(file.addr)?;
            self.promised.store(self.appended, Ordering::Release);
        }
        Ok(())
    }

    /// A number that everybody increases, with a file as the lock.
    fn count(&mut self, fs: &Fs, top: &Known<'_>) -> Result<()> {
        let lock = known(fs, asked(|| fs.make(&ME, top.addr, b"lock", &NewInode::File(0o600)))?);
        let done = (|| {
            let file = look(fs, top, "number")?;
            let mut bytes = [0; 8];
            let n = asked(|| fs.read(file.addr, 0, &mut bytes))?;
            let next = u64::from_be_bytes(bytes) + 1;
            assert!(n == 8 || n == 0, "{n} bytes of a number");
            asked(|| fs.write(&ME, file.addr, 0, &next.to_be_bytes(), false))
        })();
        asked(|| fs.unlink(top.addr, b"lock"))?;
        drop(lock);
        done?;
        self.counted += 1;
        Ok(())
    }

    /// A file whose every block says what it should be: replaced as a whole.
    fn rewrite(&mut self, fs: &Fs, dir: &Known<'_>, name: &str) -> Result<()> {
        let file = match asked(|| fs.make(&ME, dir.addr, name.as_bytes(), &NewInode::File(0o644))) {
            Ok(attr) => known(fs, attr),
            Err(Error::Exists) => look(fs, dir, name)?,
            Err(e) => return Err(e),
        };
        let most = if self.rng.chance(20) { 300_000 } else { 6000 };
        let len = 1 + self.rng.below(most) as usize;
        let fill = 1 + self.rng.below(255) as u8;
        if self.rng.chance(50) {
            fs.open(&ME, file.addr, OpenHow { write: true, append: false, truncate: true })?;
        }
        let written = fs.write(&ME, file.addr, 0, &vec![fill; len], false)?;
        assert!(written > 0 && written <= len);
        if self.rng.chance(10) { fs.fsync(file.addr) } else { Ok(()) }
    }

    /// One write is atomic: it is under one lock.
    fn verify(fs: &Fs, dir: &Known<'_>, name: &str) -> Result<()> {
        let file = look(fs, dir, name)?;
        let mut bytes = vec![0; 4096];
        let n = asked(|| fs.read(file.addr, 0, &mut bytes))?;
        // A later, shorter write leaves the rest of an earlier one: at most as many changes as writes.
        let changes = bytes[..n].windows(2).filter(|w| w[0] != w[1]).count();
        assert!(changes < 4096, "torn contents");
        let attr = fs.getattr(file.addr)?;
        assert!(attr.nlink < 1000);
        Ok(())
    }

    fn rename(&mut self, fs: &Fs, top: &Known<'_>, dir: &Known<'_>, name: &str) -> Result<()> {
        let other = look(fs, top, &format!("d{}", self.rng.below(3)))?;
        let new_name = format!("f{}", self.rng.below(8));
        let how = *self.rng.pick(&[RenameHow::Replace, RenameHow::Replace, RenameHow::NoReplace, RenameHow::Exchange]);
        asked(|| fs.rename(&ME, (dir.addr, name.as_bytes()), (other.addr, new_name.as_bytes()), how))
    }

    fn link(&mut self, fs: &Fs, top: &Known<'_>, dir: &Known<'_>, name: &str) -> Result<()> {
        let file = look(fs, dir, name)?;
        let other = look(fs, top, &format!("d{}", self.rng.below(3)))?;
        let new_name = format!("f{}", self.rng.below(8));
        asked(|| fs.link(&ME, file.addr, other.addr, new_name.as_bytes())).map(|attr| drop(known(fs, attr)))
    }

    fn truncate(&mut self, fs: &Fs, dir: &Known<'_>, name: &str) -> Result<()> {
        let file = look(fs, dir, name)?;
        let size = Some(self.rng.below(200_000));
        fs.setattr(&ME, file.addr, &SetAttr { size, ..SetAttr::default() }).map(drop)
    }

    fn xattr(&mut self, fs: &Fs, dir: &Known<'_>, name: &str) -> Result<()> {
        let file = look(fs, dir, name)?;
        let len = self.rng.below(3000) as usize;
        fs.setxattr(&ME, file.addr, b"user.x", &vec![len as u8; len], SetMode::Any)?;
        let got = fs.getxattr(file.addr, b"user.x")?;
        // Somebody else may have set another one meanwhile, but as a whole.
        assert!(got.iter().all(|&b| b == got.len() as u8), "a torn attribute");
        Ok(())
    }

    fn list(fs: &Fs, dir: &Known<'_>) -> Result<()> {
        let mut names = std::collections::BTreeSet::new();
        let mut known_here = Vec::new();
        fs.list_plus(dir.addr, 0, &mut |item| {
            assert!(names.insert(item.name.to_vec()), "a name twice");
            if let Some(attr) = item.attr {
                known_here.push(attr);
            }
            true
        })?;
        for attr in known_here {
            drop(known(fs, attr));
        }
        assert!(names.contains(&b"."[..]) && names.contains(&b".."[..]));
        Ok(())
    }

    fn directories(&mut self, fs: &Fs, dir: &Known<'_>) -> Result<()> {
        let name = format!("s{}", self.rng.below(4));
        if self.rng.chance(50) {
            fs.make(&ME, dir.addr, name.as_bytes(), &NewInode::Dir(0o755)).map(|attr| drop(known(fs, attr)))
        } else {
            fs.rmdir(dir.addr, name.as_bytes())
        }
    }

    /// A file that is read after somebody, on whatever node, has removed its name.
    fn open_unlinked(&mut self, fs: &Fs, dir: &Known<'_>) -> Result<()> {
        let name = format!("u{}", self.rng.below(4));
        match asked(|| fs.make(&ME, dir.addr, name.as_bytes(), &NewInode::File(0o644))) {
            Ok(attr) => {
                let file = known(fs, attr);
                let len = 5000 + self.rng.below(10_000) as usize;
                fs.write(&ME, file.addr, 0, &vec![7; len], false).map(drop)
            }
            Err(Error::Exists) => {
                let file = look(fs, dir, &name)?;
                let size = fs.getattr(file.addr)?.size;
                if self.rng.chance(60) {
                    match asked(|| fs.unlink(dir.addr, name.as_bytes())) {
                        Ok(()) | Err(Error::NotFound) => {}
                        Err(e) => return Err(e),
                    }
                }
                std::thread::sleep(Duration::from_micros(self.rng.below(3000)));
                let mut bytes = vec![0; 20_000];
                let n = asked(|| fs.read(file.addr, 0, &mut bytes))?;
                assert!(n as u64 >= size && bytes[..n].iter().all(|&b| b == 7), "an open file has lost its contents");
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    /// Enough names for a directory to grow, and all of them away again.
    fn many(&mut self, fs: &Fs, dir: &Known<'_>) -> Result<()> {
        let count = 5 + self.rng.below(40);
        for n in 0..count {
            let name = format!("many-{}-{n}", self.number);
            drop(known(fs, asked(|| fs.make(&ME, dir.addr, name.as_bytes(), &NewInode::File(0o644)))?));
        }
        for n in 0..count {
            fs.unlink(dir.addr, format!("many-{}-{n}", self.number).as_bytes())?;
        }
        Ok(())
    }

    /// A file of this program's own: it always finds what it has written.
    fn own(&mut self, fs: &Fs, top: &Known<'_>) -> Result<()> {
        let name = format!("own{}", self.number);
        let file = match look(fs, top, &name) {
            Ok(file) => file,
            Err(Error::NotFound) => known(fs, fs.make(&ME, top.addr, name.as_bytes(), &NewInode::File(0o600))?),
            Err(e) => return Err(e),
        };
        let (offset, len) = (self.rng.below(400_000), 1 + self.rng.below(50_000) as usize);
        let bytes = self.rng.bytes(len);
        let n = fs.write(&ME, file.addr, offset, &bytes, false)?;
        let mut got = vec![0; n];
        fs.read(file.addr, offset, &mut got)?;
        assert!(got == bytes[..n], "a file of one's own has other contents");
        Ok(())
    }
}

fn record(program: u64, n: u64) -> [u8; RECORD] {
    let mut record = [0xee; RECORD];
    record[..8].copy_from_slice(&program.to_be_bytes());
    record[8..16].copy_from_slice(&n.to_be_bytes());
    record
}

/// How many records of each program lie in the common file, each in order.
fn records(fs: &Fs, programs: u64, when: &str) -> Vec<u64> {
    let top = root(fs);
    let file = look(fs, &top, "log").expect("the log is there");
    let size = fs.getattr(file.addr).expect("getattr").size as usize;
    let mut bytes = vec![0; size];
    assert_eq!(asked(|| fs.read(file.addr, 0, &mut bytes)).expect("read"), size);
    assert_eq!(size % RECORD, 0, "{when}: a torn record");
    let mut seen = vec![0; programs as usize];
    for (at, r) in bytes.chunks_exact(RECORD).enumerate() {
        let (program, n) = (gfs2r::format::get_u64(r, 0), gfs2r::format::get_u64(r, 8));
        assert!(program < programs && r[16..] == [0xee; 16], "{when}: record {at} is no record: {r:x?}");
        seen[program as usize] += 1;
        assert_eq!(n, seen[program as usize], "{when}: record {at} of program {program} is out of order");
    }
    seen
}

fn prepare(fs: &Fs) {
    let top = root(fs);
    for n in 0..3 {
        drop(known(fs, fs.make(&ME, top.addr, format!("d{n}").as_bytes(), &NewInode::Dir(0o755)).expect("mkdir")));
    }
    for name in ["log", "number"] {
        drop(known(fs, fs.make(&ME, top.addr, name.as_bytes(), &NewInode::File(0o644)).expect("create")));
    }
}

fn programs(opened: &[Option<Opened>], per_node: u64, seed: u64, pulse: &Arc<AtomicU64>) -> Vec<Program> {
    let mut all = Vec::new();
    for (node, opened) in opened.iter().enumerate() {
        for _ in 0..per_node {
            let number = all.len() as u64;
            all.push(Program {
                fs: Arc::clone(&opened.as_ref().expect("open").fs),
                node,
                number,
                rng: Rng::new(seed ^ number << 32),
                appended: 0,
                counted: 0,
                promised: Arc::default(),
                pulse: Arc::clone(pulse),
            });
        }
    }
    all
}

/// Shows who waits for what when nothing happens any more, and ends the process.
fn watch(cluster: &Cluster, pulse: &AtomicU64, over: &AtomicBool, what: &str) {
    let (mut last, mut since) = (0, Instant::now());
    while !over.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(50));
        let now = pulse.load(Ordering::Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        } else if since.elapsed() > STUCK {
            eprintln!("{what}: stuck after {now} operations\n{}", cluster.hall.picture());
            std::process::abort();
        }
    }
}

/// Everybody at once; at the end nothing is missing.
fn all_at_once(nodes: u32, block_size: u32, count: u64, seed: u64) {
    let count = number("SHARED_OPS", count);
    let what = format!("SEED={seed}, {nodes} nodes, block size {block_size}, {count} operations of each program");
    println!("{what}");
    let mut cluster = Cluster::make(nodes, 192, block_size, seed);
    let opened: Vec<Option<Opened>> = cluster.all().into_iter().map(Some).collect();
    let first = Arc::clone(&opened[0].as_ref().expect("open").fs);
    prepare(&first);
    let (pulse, over) = (Arc::default(), AtomicBool::new(false));
    let mut all = programs(&opened, 2, seed, &pulse);
    std::thread::scope(|s| {
        s.spawn(|| watch(&cluster, &pulse, &over, &what));
        let threads: Vec<_> = all.iter_mut().map(|p| s.spawn(move || p.run(count))).collect();
        let ends: Vec<_> = threads.into_iter().map(|t| t.join()).collect();
        over.store(true, Ordering::Release);
        for end in ends {
            match end {
                Ok(Ok(())) => {}
                Ok(Err(e)) => panic!("{what}: {e}"),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    let counted: u64 = all.iter().map(|p| p.counted).sum();
    for (n, opened) in opened.iter().enumerate() {
        let fs = &opened.as_ref().expect("open").fs;
        let seen = records(fs, all.len() as u64, &what);
        let wanted: Vec<u64> = all.iter().map(|p| p.appended).collect();
        assert_eq!(seen, wanted, "{what}: records as node {n} sees them");
        let file = look(fs, &root(fs), "number").expect("the number is there");
        let mut bytes = [0; 8];
        asked(|| fs.read(file.addr, 0, &mut bytes)).expect("read");
        assert_eq!(u64::from_be_bytes(bytes), counted, "{what}: the number as node {n} sees it");
    }
    println!(
        "  {counted} counted, {:?} records, {:?} requests",
        all.iter().map(|p| p.appended).sum::<u64>(),
        cluster.hall.requests
    );
    drop((all, first));
    finish(&cluster, opened, &what);
}

fn finish(cluster: &Cluster, opened: Vec<Option<Opened>>, what: &str) {
    let left: u64 = opened.iter().flatten().map(|o| o.fs.reclaim_orphans(&Default::default()).expect("orphans")).sum();
    println!("  {left} orphans left over");
    for opened in opened.into_iter().flatten() {
        opened.close().unwrap_or_else(|e| panic!("{what}: close: {e}"));
    }
    cluster.nobody_holds();
    check(&*cluster.disk, what);
    stock_fsck(&cluster.disk, what);
}

/// A node dies in the middle; a survivor replays its journal. What the dead had made durable is there, the others have lost
/// nothing, and the node comes again.
fn one_dies(nodes: u32, block_size: u32, rounds: u64, seed: u64) {
    let what = format!("SEED={seed}, {nodes} nodes, block size {block_size}, {rounds} deaths");
    println!("{what}");
    let mut cluster = Cluster::make(nodes, 192, block_size, seed);
    let mut opened: Vec<Option<Opened>> = cluster.all().into_iter().map(Some).collect();
    prepare(&opened[0].as_ref().expect("open").fs);
    let mut rng = Rng::new(seed);
    for round in 0..number("SHARED_ROUNDS", rounds) {
        let what = format!("{what}, round {round}");
        let (pulse, over): (Arc<AtomicU64>, _) = (Arc::default(), AtomicBool::new(false));
        let first = opened.iter().flatten().next().expect("somebody is there");
        // The records of the last round are gone, and a lock file that somebody died with.
        let fs = Arc::clone(&first.fs);
        let size = SetAttr { size: Some(0), ..SetAttr::default() };
        fs.setattr(&ME, look(&fs, &root(&fs), "log").expect("the log").addr, &size).expect("truncate");
        match fs.unlink(fs.root(), b"lock") {
            Ok(()) | Err(Error::NotFound) => {}
            Err(e) => panic!("{what}: {e}"),
        }
        fs.sync().expect("sync");
        let mut all = programs(&opened, 2, seed ^ round << 8, &pulse);
        let dead = rng.below(u64::from(nodes)) as usize;
        let after = Duration::from_millis(30 + rng.below(400));
        std::thread::scope(|s| {
            s.spawn(|| watch(&cluster, &pulse, &over, &what));
            let threads: Vec<_> =
                all.iter_mut().map(|p| (p.node, s.spawn(move || p.run(number("SHARED_OPS", 150))))).collect();
            std::thread::sleep(after);
            cluster.cables[dead].pull();
            cluster.hall.kill(dead);
            std::thread::sleep(Duration::from_millis(rng.below(20)));
            let survivor = opened.iter().enumerate().find(|(n, _)| *n != dead).expect("two nodes").1.as_ref();
            cluster.recover(survivor.expect("open"), dead);
            let ends: Vec<_> = threads.into_iter().map(|(node, t)| (node, t.join())).collect();
            over.store(true, Ordering::Release);
            for (node, end) in ends {
                match end {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) if node == dead => {}
                    Ok(Err(e)) => panic!("{what}: {e}"),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        let fs =
            Arc::clone(&opened.iter().enumerate().find(|(n, _)| *n != dead).expect("two").1.as_ref().expect("open").fs);
        let seen = records(&fs, all.len() as u64, &what);
        for (p, seen) in all.iter().zip(seen) {
            let promised = p.promised.load(Ordering::Acquire);
            let wanted = if p.node == dead { promised } else { p.appended };
            assert!(
                seen >= wanted,
                "{what}: {seen} records of program {} on node {}, {wanted} wanted",
                p.number,
                p.node
            );
            // The last one may have been on its way.
            assert!(seen <= p.appended + 1, "{what}: more records than were written");
        }
        let dead_has = all.iter().filter(|p| p.node == dead).map(|p| p.appended).sum::<u64>();
        println!("  round {round}: node {dead} died after {after:?} with {dead_has} records");
        drop((all, fs));
        drop(opened[dead].take());
        opened[dead] = Some(cluster.join(dead, Mounter::Joining));
    }
    finish(&cluster, opened, &what);
}

#[test]
fn two_nodes_at_once() {
    all_at_once(2, 4096, 400, seed("two_nodes_at_once"));
}

#[test]
fn three_nodes_at_once() {
    all_at_once(3, 1024, 250, seed("three_nodes_at_once"));
}

#[test]
fn two_nodes_one_dies() {
    one_dies(2, 4096, 6, seed("two_nodes_one_dies"));
}

#[test]
fn three_nodes_one_dies() {
    one_dies(3, 1024, 5, seed("three_nodes_one_dies"));
}
