//! Runs operations on a volume and on the model, and compares.
#![allow(dead_code, clippy::little_endian_bytes, reason = "each test uses its own part; random bytes have no order")]

use crate::ops::{Op, Rng};
use crate::reference::{Bytes, Id, Kind, Model, ROOT, Why};
use gfs2r::clock::{Clock, SimClock, Timestamp};
use gfs2r::device::BlockDevice;
use gfs2r::error::Error;
use gfs2r::format::DirentType;
use gfs2r::fs::{Attr, Caller, Fs, InodeFlags, NewInode, RenameHow, SetAttr, SetMode, SetTime};
use gfs2r::ids::BlockAddr;
use gfs2r::volume::{self, OpenOptions, Opened};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// The superuser.
pub(crate) const ME: Caller = Caller { uid: 0, gid: 0, umask: 0 };

/// What the harness holds of an inode: the address and how many references.
#[derive(Clone, Copy, Debug)]
struct Held {
    addr: BlockAddr,
    refs: u64,
}

/// What a node's kernel would know.
type Known = Arc<Mutex<BTreeMap<Id, Held>>>;

/// One mount of the volume. There may be several.
struct Node {
    opened: Option<Opened>,
    known: Known,
    /// Held during an operation, and while the kernel drops what it only remembers.
    busy: Arc<Mutex<()>>,
}

impl Node {
    fn new(opened: Opened) -> Self {
        let known = BTreeMap::from([(ROOT, Held { addr: opened.fs.root(), refs: 0 })]);
        Self { opened: Some(opened), known: Arc::new(Mutex::new(known)), busy: Arc::default() }
    }
    fn fs(&self) -> &Arc<Fs> {
        &self.opened.as_ref().expect("open").fs
    }
}

/// A volume with its model beside it.
pub(crate) struct World {
    pub dev: Arc<dyn BlockDevice>,
    pub model: Model,
    pub bs: u64,
    nodes: Vec<Node>,
    /// The node whose turn it is.
    pub now: usize,
    clock: Arc<dyn Clock>,
    options: OpenOptions,
    /// Inodes without a name that are held open.
    orphans: Vec<Id>,
    /// The same, and what is about to become one: not to be forgotten because another node wants to delete it.
    open: Arc<Mutex<BTreeSet<Id>>>,
    /// Threads that are dropping what a kernel only remembered.
    dropping: Arc<AtomicUsize>,
    /// Operations that the volume refused for want of space.
    pub no_space: u64,
}

fn variant(error: &Error) -> String {
    format!("{error:?}").split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
}

impl World {
    /// Opens a freshly made volume.
    pub(crate) fn new(dev: Arc<dyn BlockDevice>, options: OpenOptions) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SimClock::new(1_700_000_000));
        let opened = volume::open(Arc::clone(&dev), &options, Arc::clone(&clock)).expect("a new volume opens");
        Self::shared(dev, options, clock, vec![opened])
    }

    /// Several nodes on one freshly made volume.
    pub(crate) fn shared(
        dev: Arc<dyn BlockDevice>,
        options: OpenOptions,
        clock: Arc<dyn Clock>,
        opened: Vec<Opened>,
    ) -> Self {
        let bs = opened[0].fs.volume().bs.bytes() as u64;
        let mut world = Self {
            dev,
            model: Model::new(),
            bs,
            nodes: Vec::new(),
            now: 0,
            clock,
            options,
            orphans: Vec::new(),
            open: Arc::default(),
            dropping: Arc::default(),
            no_space: 0,
        };
        for opened in opened {
            world.join(world.nodes.len(), opened);
        }
        world
    }

    /// A node comes, or comes again.
    pub(crate) fn join(&mut self, n: usize, opened: Opened) {
        let node = Node::new(opened);
        let (known, busy) = (Arc::clone(&node.known), Arc::clone(&node.busy));
        let (open, dropping) = (Arc::clone(&self.open), Arc::clone(&self.dropping));
        let fs = Arc::downgrade(node.fs());
        // As a kernel would: what has no name any more and is not open is dropped, on a thread of its own.
        node.fs().set_forgetter(Box::new(move |addr| {
            let (known, busy, open, fs) = (Arc::clone(&known), Arc::clone(&busy), Arc::clone(&open), fs.clone());
            let dropping = Arc::clone(&dropping);
            dropping.fetch_add(1, Ordering::AcqRel);
            std::thread::spawn(move || {
                let _busy = busy.lock().expect("no panic");
                let found = {
                    let mut known = known.lock().expect("no panic");
                    let id = known.iter().find(|(_, held)| held.addr == addr).map(|(id, _)| *id);
                    id.filter(|id| !open.lock().expect("no panic").contains(id)).and_then(|id| known.remove(&id))
                };
                if let (Some(held), Some(fs)) = (found, fs.upgrade()) {
                    fs.forget(held.addr, held.refs).expect("forgetting succeeds");
                }
                dropping.fetch_sub(1, Ordering::AcqRel);
            });
        }));
        if n < self.nodes.len() {
            self.nodes[n] = node;
        } else {
            self.nodes.push(node);
        }
    }

    /// A node goes, by its own will or not: what its kernel knew is gone with it.
    pub(crate) fn leave(&mut self, n: usize) -> Opened {
        self.settle();
        self.nodes[n].known.lock().expect("no panic").clear();
        self.nodes[n].opened.take().expect("open")
    }

    /// Waits for what kernels drop on their own.
    pub(crate) fn settle(&self) {
        while self.dropping.load(Ordering::Acquire) > 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    pub(crate) fn fs(&self) -> &Arc<Fs> {
        self.nodes[self.now].fs()
    }

    /// The open nodes.
    pub(crate) fn all(&self) -> impl Iterator<Item = (usize, &Opened)> {
        self.nodes.iter().enumerate().filter_map(|(n, node)| Some((n, node.opened.as_ref()?)))
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<Id, Held>> {
        self.nodes[self.now].known.lock().expect("no panic")
    }

    /// Where an inode is. Another node may have made it: then it is looked up.
    fn addr(&self, id: Id) -> BlockAddr {
        if let Some(held) = self.known().get(&id) {
            return held.addr;
        }
        let (dir, name) = self.model.a_name_of(id).unwrap_or_else(|| panic!("node {id} is known here or has a name"));
        let dir = self.addr(dir);
        let attr = self.fs().lookup(dir, &name).unwrap_or_else(|e| panic!("node {id}, which has a name: {e:?}"));
        self.remember(id, &attr);
        attr.inum.addr
    }

    /// True when operations on it are possible on this node: it has a name, or is open here.
    fn reachable(&self, id: Id) -> bool {
        self.model.nodes[&id].nlink > 0 || self.known().contains_key(&id)
    }

    /// Closes the volume and opens it again; finds every inode anew by its name.
    pub(crate) fn remount(&mut self) {
        for id in std::mem::take(&mut self.orphans) {
            self.let_go(id);
        }
        self.nodes[0].opened.take().expect("open").close().expect("a clean close");
        self.reopen();
    }

    /// Opens the volume without closing it first: what was synced must be there. The caller has synced.
    pub(crate) fn abandon(&mut self) {
        for id in std::mem::take(&mut self.orphans) {
            self.model.nodes.remove(&id);
            self.open.lock().expect("no panic").remove(&id);
        }
        self.nodes[0].opened = None;
        self.reopen();
    }

    fn reopen(&mut self) {
        let opened = volume::open(Arc::clone(&self.dev), &self.options, Arc::clone(&self.clock)).expect("opens again");
        opened.fs.reclaim_orphans(&Default::default()).expect("orphans are deleted");
        self.join(0, opened);
        self.hold_all();
    }

    fn hold_all(&mut self) {
        let mut todo = vec![ROOT];
        while let Some(dir) = todo.pop() {
            let entries: Vec<(Vec<u8>, Id)> =
                self.model.dir(dir).expect("a directory").iter().map(|(n, &i)| (n.clone(), i)).collect();
            for (name, id) in entries {
                let attr = self.fs().lookup(self.addr(dir), &name).expect("every name of the model is there");
                let first = self.remember(id, &attr);
                if first && matches!(self.model.nodes[&id].kind, Kind::Dir(_)) {
                    todo.push(id);
                }
            }
        }
    }

    fn remember(&self, id: Id, attr: &Attr) -> bool {
        let mut known = self.known();
        let held = known.entry(id).or_insert(Held { addr: attr.inum.addr, refs: 0 });
        assert_eq!(held.addr, attr.inum.addr, "one inode, one address");
        held.refs += 1;
        held.refs == 1
    }

    fn let_go(&mut self, id: Id) {
        self.open.lock().expect("no panic").remove(&id);
        // Some kernel is the first to drop it, not always the same one.
        for i in 0..self.nodes.len() {
            let node = &self.nodes[(self.now + i * (1 + id % 2) + id % 3) % self.nodes.len()];
            let held = node.known.lock().expect("no panic").remove(&id);
            if let Some(held) = held {
                node.fs().forget(held.addr, held.refs).expect("forgetting succeeds");
            }
        }
        for node in &self.nodes {
            let held = node.known.lock().expect("no panic").remove(&id);
            if let Some(held) = held {
                node.fs().forget(held.addr, held.refs).expect("forgetting succeeds");
            }
        }
        self.model.nodes.remove(&id);
    }

    fn gone(&mut self, id: Id, keep_open: bool) {
        if keep_open { self.orphans.push(id) } else { self.let_go(id) }
    }

    /// Compares an answer with the prediction; true when the operation happened on the volume.
    fn agree<T: std::fmt::Debug>(&mut self, op: &Op, predicted: Result<(), Why>, actual: &Result<T, Error>) -> bool {
        match (predicted, actual) {
            (Ok(()), Ok(_)) => true,
            (Ok(()), Err(Error::NoSpace)) => {
                self.no_space += 1;
                false
            }
            (Err(why), Err(e)) if variant(e) == why => false,
            (predicted, actual) => panic!("{op:?}: model says {predicted:?}, volume says {actual:?}"),
        }
    }

    fn dirs(&self) -> Vec<Id> {
        self.model
            .nodes
            .iter()
            .filter(|(_, n)| matches!(n.kind, Kind::Dir(_)) && n.nlink > 0)
            .map(|(&i, _)| i)
            .collect()
    }

    fn some_dir(&self, pick: u64) -> Id {
        let dirs = self.dirs();
        // The root twice as often: things should pile up somewhere.
        if pick.is_multiple_of(3) { ROOT } else { dirs[(pick / 3) as usize % dirs.len()] }
    }

    fn some_node(&self, pick: u64) -> Id {
        let all: Vec<Id> = self.model.nodes.keys().copied().filter(|&id| self.reachable(id)).collect();
        all[pick as usize % all.len()]
    }

    fn some_file(&self, pick: u64) -> Option<Id> {
        let files: Vec<Id> = self
            .model
            .nodes
            .iter()
            .filter(|(_, n)| matches!(n.kind, Kind::File(_)))
            .map(|(&i, _)| i)
            .filter(|&i| self.reachable(i))
            .collect();
        (!files.is_empty()).then(|| files[pick as usize % files.len()])
    }

    /// Which file a pick meant, among the nodes that were there before.
    pub(crate) fn file_of(&self, pick: u64, before: &[Id]) -> Option<Id> {
        let is_file = |id: &&Id| self.model.nodes.get(id).is_some_and(|n| matches!(n.kind, Kind::File(_)));
        let files: Vec<&Id> = before.iter().filter(is_file).collect();
        (!files.is_empty()).then(|| *files[pick as usize % files.len()])
    }

    fn some_name(&self, dir: Id, pick: u64) -> Option<Vec<u8>> {
        let entries = self.model.dir(dir).ok()?;
        (!entries.is_empty()).then(|| entries.keys().nth(pick as usize % entries.len()).expect("in range").clone())
    }

    /// Does one operation on both.
    pub(crate) fn apply(&mut self, op: &Op) {
        let busy = Arc::clone(&self.nodes[self.now].busy);
        let _busy = busy.lock().expect("no panic");
        match op.clone() {
            Op::Create { dir, name, perm } => {
                self.make(op, dir, &name, Kind::File(Bytes::default()), &NewInode::File(perm), perm);
            }
            Op::Mkdir { dir, name } => {
                self.make(op, dir, &name, Kind::Dir(BTreeMap::new()), &NewInode::Dir(0o755), 0o755);
            }
            Op::Symlink { dir, name, target } => {
                let dir_id = self.some_dir(dir);
                if target.len() as u64 >= self.bs - 232 && self.model.may_make(dir_id, &name).is_ok() {
                    let actual = self.fs().make(&ME, self.addr(dir_id), &name, &NewInode::Symlink(&target));
                    self.agree(op, Err("NameTooLong"), &actual);
                    return;
                }
                self.make(op, dir, &name, Kind::Symlink(target.clone()), &NewInode::Symlink(&target), 0o777);
            }
            Op::Mknod { dir, name, mode, rdev } => {
                self.make(op, dir, &name, Kind::Special(mode, rdev), &NewInode::Node(mode, rdev), mode & 0o7777);
            }
            Op::Link { node, dir, name } => self.link(op, self.some_node(node), self.some_dir(dir), &name),
            Op::Remove { dir, name, rmdir, keep_open } => self.remove(op, self.some_dir(dir), name, rmdir, keep_open),
            Op::Rename { from, name, to, new_name, existing, how } => {
                self.rename(op, from, name, to, &new_name, existing, how)
            }
            Op::Bulk { dir, count, tag } => {
                for n in 0..count {
                    let name = format!("bulk-{tag}-{n}").into_bytes();
                    self.make(op, dir, &name, Kind::File(Bytes::default()), &NewInode::File(0o644), 0o644);
                }
            }
            Op::BulkRemove { dir, percent } => self.bulk_remove(op, self.some_dir(dir), percent),
            Op::Write { file, .. }
            | Op::Truncate { file, .. }
            | Op::Punch { file, .. }
            | Op::Allocate { file, .. }
            | Op::Zero { file, .. }
            | Op::Chattr { file, .. } => {
                if let Some(id) = self.some_file(file) {
                    self.change_file(op, id);
                    if std::env::var_os("MODEL_LOOK").is_some() {
                        println!("node {id}: {op:?}");
                        self.check_node(id);
                    }
                }
            }
            Op::Chmod { node, .. } | Op::Chown { node, .. } | Op::Utimes { node, .. } => {
                self.change_attr(op, self.some_node(node));
            }
            Op::SetXattr { node, name, len, fill } => self.set_xattr(op, self.some_node(node), &name, len, fill),
            Op::RemoveXattr { node, name } => self.remove_xattr(op, self.some_node(node), &name),
            Op::Fsync { node } => self.fs().fsync(self.addr(self.some_node(node))).expect("fsync"),
            Op::Sync => self.fs().sync().expect("sync"),
            Op::Check { node } => self.check_node(self.some_node(node)),
            Op::CloseOpen => {
                for id in std::mem::take(&mut self.orphans) {
                    self.let_go(id);
                }
            }
        }
    }

    fn make(&mut self, op: &Op, dir: u64, name: &[u8], kind: Kind, what: &NewInode<'_>, perm: u32) {
        let dir = self.some_dir(dir);
        let predicted = self.model.may_make(dir, name);
        let actual = self.fs().make(&ME, self.addr(dir), name, what);
        if self.agree(op, predicted, &actual) {
            let id = self.model.make(dir, name, kind, perm);
            self.remember(id, &actual.expect("agreed"));
        }
    }

    fn link(&mut self, op: &Op, id: Id, dir: Id, name: &[u8]) {
        let predicted = self.model.may_link(id, dir, name);
        let actual = self.fs().link(&ME, self.addr(id), self.addr(dir), name);
        if self.agree(op, predicted, &actual) {
            self.model.link(id, dir, name);
            self.remember(id, &actual.expect("agreed"));
        }
    }

    fn remove(&mut self, op: &Op, dir: Id, name: u64, rmdir: bool, keep_open: bool) {
        let name = self.some_name(dir, name).unwrap_or_else(|| b"nothing".to_vec());
        self.remove_name(op, dir, &name, rmdir, keep_open);
    }

    fn remove_name(&mut self, op: &Op, dir: Id, name: &[u8], rmdir: bool, keep_open: bool) {
        let predicted = self.model.may_remove(dir, name, rmdir);
        let addr = self.addr(dir);
        if let (true, Ok(id)) = (keep_open, &predicted) {
            self.addr(*id);
            self.open.lock().expect("no panic").insert(*id);
        }
        let actual = if rmdir { self.fs().rmdir(addr, name) } else { self.fs().unlink(addr, name) };
        if self.agree(op, predicted.map(|_| ()), &actual)
            && let Some(id) = self.model.remove(dir, name)
        {
            self.gone(id, keep_open);
        } else if let (true, Ok(id)) = (keep_open, &predicted) {
            // It has another name, or stays for want of space.
            self.open.lock().expect("no panic").remove(id);
        }
    }

    fn bulk_remove(&mut self, op: &Op, dir: Id, percent: u64) {
        let names: Vec<Vec<u8>> = self.model.dir(dir).expect("a directory").keys().cloned().collect();
        let mut rng = Rng::new(percent);
        for name in names {
            let id = self.model.dir(dir).expect("a directory")[&name];
            if !matches!(self.model.nodes[&id].kind, Kind::Dir(_)) && rng.chance(percent) {
                self.remove_name(op, dir, &name, false, false);
            }
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn rename(&mut self, op: &Op, from: u64, name: u64, to: u64, new_name: &[u8], existing: Option<u64>, how: u32) {
        let (from, to) = (self.some_dir(from), self.some_dir(to));
        let Some(name) = self.some_name(from, name) else { return };
        let new_name = existing.and_then(|e| self.some_name(to, e)).unwrap_or_else(|| new_name.to_vec());
        let how_real = [RenameHow::Replace, RenameHow::NoReplace, RenameHow::Exchange][how as usize];
        let predicted = if new_name.len() > 255 {
            Err("NameTooLong")
        } else {
            self.model.may_rename((from, &name), (to, &new_name), how)
        };
        let (from_addr, to_addr) = (self.addr(from), self.addr(to));
        let actual = self.fs().rename(&ME, (from_addr, &name), (to_addr, &new_name), how_real);
        if self.agree(op, predicted.map(|_| ()), &actual)
            && predicted == Ok(true)
            && let Some(id) = self.model.rename((from, &name), (to, &new_name), how)
        {
            self.gone(id, false);
        }
    }

    fn change_file(&mut self, op: &Op, id: Id) {
        let addr = self.addr(id);
        let fs = Arc::clone(self.fs());
        match *op {
            Op::Write { offset, len, fill, .. } => {
                let bytes = Rng::new(fill).bytes(len);
                match fs.write(&ME, addr, offset, &bytes, false) {
                    Ok(n) => {
                        assert!(n > 0 && n <= len, "{op:?}: {n} bytes written");
                        self.no_space += u64::from(n < len);
                        self.model.file(id).expect("a file").write(offset, &bytes[..n]);
                    }
                    Err(Error::NoSpace) => self.no_space += 1,
                    Err(e) => panic!("{op:?}: {e:?}"),
                }
            }
            Op::Truncate { size, .. } => {
                let set = SetAttr { size: Some(size), ..SetAttr::default() };
                let actual = fs.setattr(&ME, addr, &set);
                if self.agree(op, Ok(()), &actual) {
                    self.model.file(id).expect("a file").truncate(size);
                }
            }
            Op::Punch { offset, len, .. } => {
                fs.fallocate(&ME, addr, offset, len, 3).unwrap_or_else(|e| panic!("{op:?}: {e:?}"));
                self.model.file(id).expect("a file").zero(offset, len);
            }
            Op::Allocate { offset, len, keep, .. } => {
                let journaled = fs.get_flags(addr).expect("flags") & InodeFlags::JOURNAL_DATA != 0;
                let predicted = if journaled { Err("NotSupported") } else { Ok(()) };
                let actual = fs.fallocate(&ME, addr, offset, len, i32::from(keep));
                if self.agree(op, predicted, &actual) && !keep {
                    let file = self.model.file(id).expect("a file");
                    file.size = file.size.max(offset + len);
                }
            }
            Op::Zero { offset, len, .. } => {
                let actual = fs.fallocate(&ME, addr, offset, len, 16 | 1);
                let journaled = fs.get_flags(addr).expect("flags") & InodeFlags::JOURNAL_DATA != 0;
                if matches!(actual, Err(Error::NotSupported)) && journaled {
                    return;
                }
                if self.agree(op, Ok(()), &actual) {
                    self.model.file(id).expect("a file").zero(offset, len);
                } else {
                    self.zeroed_in_part(id, offset, len);
                }
            }
            Op::Chattr { journal, .. } => {
                let flags = if journal { InodeFlags::JOURNAL_DATA } else { 0 };
                fs.set_flags(&ME, addr, flags).unwrap_or_else(|e| panic!("{op:?}: {e:?}"));
            }
            _ => unreachable!("not a change of a file"),
        }
    }

    /// The disk was full in the middle of zeroing: each byte is as before or zero.
    fn zeroed_in_part(&mut self, id: Id, offset: u64, len: u64) {
        let mut got = vec![0; len as usize];
        let n = self.fs().read(self.addr(id), offset, &mut got).expect("read");
        let file = self.model.file(id).expect("a file");
        let before = file.read(offset, len as usize);
        assert_eq!(n, before.len(), "a failed zeroing changed the size of node {id}");
        assert!(before.iter().zip(&got).all(|(b, g)| b == g || *g == 0), "a failed zeroing wrote something else");
        if n > 0 {
            file.write(offset, &got[..n]);
        }
    }

    fn change_attr(&mut self, op: &Op, id: Id) {
        let set = match *op {
            Op::Chmod { perm, .. } => SetAttr { mode: Some(perm), ..SetAttr::default() },
            Op::Chown { uid, gid, .. } => SetAttr { uid: Some(uid), gid: Some(gid), ..SetAttr::default() },
            Op::Utimes { sec, nsec, .. } => {
                let at = SetTime::At(Timestamp { sec, nsec });
                SetAttr { atime: Some(at), mtime: Some(at), ..SetAttr::default() }
            }
            _ => unreachable!("not a change of attributes"),
        };
        let attr = self.fs().setattr(&ME, self.addr(id), &set).unwrap_or_else(|e| panic!("{op:?}: {e:?}"));
        let node = self.model.nodes.get_mut(&id).expect("known");
        match *op {
            Op::Chmod { perm, .. } => node.perm = perm,
            Op::Chown { uid, gid, .. } => (node.uid, node.gid) = (uid, gid),
            Op::Utimes { sec, nsec, .. } => assert_eq!(attr.mtime, Timestamp { sec, nsec }),
            _ => {}
        }
    }

    /// `trusted.` came with format 1802.
    fn lacks(&self, xattr: &[u8]) -> bool {
        self.fs().volume().fs_format < 1802 && xattr.starts_with(b"trusted.")
    }

    fn set_xattr(&mut self, op: &Op, id: Id, name: &[u8], len: usize, fill: u64) {
        let value = Rng::new(fill).bytes(len);
        if self.lacks(name) {
            let actual = self.fs().setxattr(&ME, self.addr(id), name, &value, SetMode::Any);
            self.agree(op, Err("NotSupported"), &actual);
            return;
        }
        match self.fs().setxattr(&ME, self.addr(id), name, &value, SetMode::Any) {
            Ok(()) => {
                self.model.nodes.get_mut(&id).expect("known").xattrs.insert(name.to_vec(), value);
            }
            // How much room there is depends on what was there before: the model does not know.
            Err(Error::NoSpace) => self.no_space += 1,
            Err(Error::OutOfRange) if len as u64 > 20 * self.bs => {}
            Err(e) => panic!("{op:?}: {e:?}"),
        }
    }

    fn remove_xattr(&mut self, op: &Op, id: Id, name: &[u8]) {
        let there = self.model.nodes[&id].xattrs.contains_key(name);
        let predicted = match there {
            true => Ok(()),
            false if self.lacks(name) => Err("NotSupported"),
            false => Err("NoAttribute"),
        };
        let actual = self.fs().removexattr(self.addr(id), name);
        if self.agree(op, predicted, &actual) {
            self.model.nodes.get_mut(&id).expect("known").xattrs.remove(name);
        }
    }

    /// Compares everything about one inode.
    pub(crate) fn check_node(&self, id: Id) {
        let node = &self.model.nodes[&id];
        let attr = self.fs().getattr(self.addr(id)).expect("getattr");
        let got = (attr.perm, attr.uid, attr.gid, attr.nlink);
        assert_eq!(got, (node.perm, node.uid, node.gid, node.nlink), "mode, owner, links of node {id}");
        let mut names: Vec<Vec<u8>> = self.fs().listxattr(self.addr(id)).expect("listxattr");
        names.sort();
        assert_eq!(names, node.xattrs.keys().cloned().collect::<Vec<_>>(), "attribute names of node {id}");
        for (name, value) in &node.xattrs {
            let got = self.fs().getxattr(self.addr(id), name).expect("getxattr");
            assert!(got == *value, "attribute {} of node {id}", String::from_utf8_lossy(name));
        }
        match &node.kind {
            Kind::File(bytes) => self.check_contents(id, bytes, attr.size),
            Kind::Dir(entries) => self.check_listing(id, entries),
            Kind::Symlink(target) => assert_eq!(&self.fs().readlink(self.addr(id)).expect("readlink"), target),
            Kind::Special(mode, rdev) => {
                assert_eq!(attr.kind.mode(), mode & 0o170000);
                assert_eq!(attr.rdev, *rdev);
            }
        }
    }

    fn check_contents(&self, id: Id, bytes: &Bytes, size: u64) {
        assert_eq!(size, bytes.size, "size of node {id}");
        // All of a small file; of a large one the two ends and what lies around the borders.
        let window = 128 * self.bs;
        for start in [0, self.bs * ((self.bs - 232) / 8), size.saturating_sub(window)] {
            let want = bytes.read(start, window as usize);
            let mut got = vec![0xaa; window as usize];
            let n = self.fs().read(self.addr(id), start, &mut got).expect("read");
            assert_eq!(n, want.len(), "bytes at {start} of node {id}");
            if let Some(at) = (0..n).find(|&i| got[i] != want[i]) {
                panic!("node {id}: byte {} of {size} is {:#x}, should be {:#x}", start + at as u64, got[at], want[at]);
            }
        }
    }

    fn check_listing(&self, id: Id, entries: &BTreeMap<Vec<u8>, Id>) {
        let mut got = BTreeMap::new();
        let mut from = 0;
        // In pieces, as the kernel asks.
        loop {
            let mut last = None;
            let mut left = 7 + id % 50;
            self.fs()
                .list(self.addr(id), from, &mut |item| {
                    last = Some(item.next);
                    if item.name != b"." && item.name != b".." {
                        let twice = got.insert(item.name.to_vec(), (item.entry.inum.addr, item.entry.kind)).is_some();
                        assert!(!twice, "{} is listed twice", String::from_utf8_lossy(item.name));
                    }
                    left -= 1;
                    left > 0
                })
                .expect("list");
            match last {
                Some(next) if left == 0 => from = next,
                _ => break,
            }
        }
        assert_eq!(got.len(), entries.len(), "entries of node {id}");
        for (name, &child) in entries {
            let (addr, kind) =
                got.get(name).unwrap_or_else(|| panic!("{} is not listed", String::from_utf8_lossy(name)));
            assert_eq!(*addr, self.addr(child));
            let want = match &self.model.nodes[&child].kind {
                Kind::File(_) => DirentType::Reg,
                Kind::Dir(_) => DirentType::Dir,
                Kind::Symlink(_) => DirentType::Lnk,
                Kind::Special(mode, _) => DirentType::from_mode(*mode).expect("a type"),
            };
            assert_eq!(*kind, want);
        }
    }

    /// Compares every inode.
    pub(crate) fn check_all(&self) {
        for &id in self.model.nodes.keys().filter(|&&id| self.reachable(id)) {
            self.check_node(id);
        }
    }

    /// Ends the run: everything is let go and closed.
    pub(crate) fn finish(mut self) {
        for id in std::mem::take(&mut self.orphans) {
            self.let_go(id);
        }
        self.settle();
        for node in &mut self.nodes {
            if let Some(opened) = node.opened.take() {
                opened.close().expect("a clean close");
            }
        }
    }
}
