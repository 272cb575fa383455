//! The tree in memory.

use dashmap::DashMap;
use fuser::{Errno, FileAttr, FileType, INodeNo};
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// Data is kept in pieces of this size.
const PIECE: usize = 1 << 20;

/// The number of the root.
pub(super) const ROOT: u64 = 1;

pub(super) struct Node {
    pub(super) attr: Mutex<FileAttr>,
    /// How often the kernel holds it.
    pub(super) lookups: AtomicU64,
    pub(super) body: Body,
}

pub(super) enum Body {
    Dir(RwLock<Dir>),
    File(RwLock<Data>),
    Link(Box<[u8]>),
    Special,
}

/// Names by name and by age, which is their place in a listing.
#[derive(Default)]
pub(super) struct Dir {
    names: HashMap<Box<[u8]>, (u64, u64)>,
    order: BTreeMap<u64, (Box<[u8]>, u64, FileType)>,
    last: u64,
}

impl Dir {
    pub(super) fn find(&self, name: &[u8]) -> Option<u64> {
        self.names.get(name).map(|(_, ino)| *ino)
    }

    fn add(&mut self, name: &[u8], ino: u64, kind: FileType) {
        self.last += 1;
        self.names.insert(name.into(), (self.last, ino));
        self.order.insert(self.last, (name.into(), ino, kind));
    }

    fn remove(&mut self, name: &[u8]) -> Option<u64> {
        let (place, ino) = self.names.remove(name)?;
        self.order.remove(&place);
        Some(ino)
    }

    /// Entries behind a place.
    pub(super) fn after(&self, place: u64) -> impl Iterator<Item = (u64, &[u8], u64, FileType)> {
        self.order.range(place + 1..).map(|(place, (name, ino, kind))| (*place, &**name, *ino, *kind))
    }
}

/// A file's data; what is missing is zero.
#[derive(Default)]
pub(super) struct Data {
    pieces: Vec<Vec<u8>>,
}

impl Data {
    pub(super) fn write(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (piece, at) = (offset as usize / PIECE, offset as usize % PIECE);
            let n = bytes.len().min(PIECE - at);
            if self.pieces.len() <= piece {
                self.pieces.resize_with(piece + 1, Vec::new);
            }
            let piece = &mut self.pieces[piece];
            if piece.len() == at {
                piece.extend_from_slice(&bytes[..n]);
            } else {
                if piece.len() < at + n {
                    piece.resize(at + n, 0);
                }
                piece[at..at + n].copy_from_slice(&bytes[..n]);
            }
            offset += n as u64;
            bytes = &bytes[n..];
        }
    }

    pub(super) fn read(&self, mut offset: u64, mut into: &mut [u8]) {
        while !into.is_empty() {
            let (piece, at) = (offset as usize / PIECE, offset as usize % PIECE);
            let n = into.len().min(PIECE - at);
            let have = self.pieces.get(piece).map_or(&[][..], |p| p.get(at..).unwrap_or(&[]));
            let copied = have.len().min(n);
            into[..copied].copy_from_slice(&have[..copied]);
            into[copied..n].fill(0);
            offset += n as u64;
            into = &mut into[n..];
        }
    }

    pub(super) fn truncate(&mut self, size: u64) {
        let (whole, rest) = (size as usize / PIECE, size as usize % PIECE);
        self.pieces.truncate(whole + 1);
        if let Some(last) = self.pieces.get_mut(whole) {
            last.truncate(rest);
        }
    }
}

/// What a new node is.
pub(super) enum New<'a> {
    Dir,
    File,
    Link(&'a [u8]),
    Special(FileType, u32),
}

pub(super) struct Tree {
    nodes: DashMap<u64, Arc<Node>>,
    next: AtomicU64,
}

pub(super) type Done<T> = Result<T, Errno>;

impl Tree {
    pub(super) fn new() -> Self {
        let tree = Self { nodes: DashMap::new(), next: AtomicU64::new(ROOT) };
        tree.node(&New::Dir, 0o755, (0, 0));
        tree
    }

    fn node(&self, what: &New<'_>, perm: u16, (uid, gid): (u32, u32)) -> Arc<Node> {
        let ino = self.next.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now();
        let (kind, rdev, size, body) = match what {
            New::Dir => (FileType::Directory, 0, 0, Body::Dir(RwLock::default())),
            New::File => (FileType::RegularFile, 0, 0, Body::File(RwLock::default())),
            New::Link(to) => (FileType::Symlink, 0, to.len() as u64, Body::Link((*to).into())),
            New::Special(kind, rdev) => (*kind, *rdev, 0, Body::Special),
        };
        let attr = FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: 8,
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            kind,
            perm,
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            uid,
            gid,
            rdev,
            blksize: 4096,
            flags: 0,
        };
        let node = Arc::new(Node { attr: Mutex::new(attr), lookups: AtomicU64::new(0), body });
        self.nodes.insert(ino, Arc::clone(&node));
        node
    }

    pub(super) fn get(&self, ino: u64) -> Done<Arc<Node>> {
        self.nodes.get(&ino).map(|n| Arc::clone(&n)).ok_or(Errno::ESTALE)
    }

    fn with_dir<T>(&self, ino: u64, f: impl FnOnce(&mut Dir) -> Done<T>) -> Done<T> {
        let node = self.get(ino)?;
        let Body::Dir(dir) = &node.body else { return Err(Errno::ENOTDIR) };
        f(&mut dir.write())
    }

    fn links(&self, ino: u64, by: i32) {
        if let Ok(node) = self.get(ino) {
            let mut attr = node.attr.lock();
            attr.nlink = attr.nlink.saturating_add_signed(by);
            attr.ctime = SystemTime::now();
            if attr.nlink == 0 && node.lookups.load(Ordering::Acquire) == 0 {
                self.nodes.remove(&ino);
            }
        }
    }

    fn changed(&self, ino: u64) {
        if let Ok(node) = self.get(ino) {
            let mut attr = node.attr.lock();
            attr.mtime = SystemTime::now();
            attr.ctime = attr.mtime;
        }
    }

    /// A name's node, held by the kernel once more.
    pub(super) fn lookup(&self, parent: u64, name: &[u8]) -> Done<FileAttr> {
        let node = self.get(parent)?;
        let Body::Dir(dir) = &node.body else { return Err(Errno::ENOTDIR) };
        let dir = dir.read();
        self.hold(dir.find(name).ok_or(Errno::ENOENT)?)
    }

    /// Attributes of a node that the kernel now holds once more.
    pub(super) fn hold(&self, ino: u64) -> Done<FileAttr> {
        let node = self.get(ino)?;
        node.lookups.fetch_add(1, Ordering::AcqRel);
        let attr = *node.attr.lock();
        Ok(attr)
    }

    pub(super) fn make(&self, parent: u64, name: &[u8], what: &New<'_>, perm: u16, who: (u32, u32)) -> Done<FileAttr> {
        let attr = self.with_dir(parent, |dir| {
            if dir.find(name).is_some() {
                return Err(Errno::EEXIST);
            }
            let node = self.node(what, perm, who);
            node.lookups.store(1, Ordering::Release);
            let attr = *node.attr.lock();
            dir.add(name, attr.ino.0, attr.kind);
            Ok(attr)
        })?;
        if attr.kind == FileType::Directory {
            self.links(parent, 1);
        }
        self.changed(parent);
        Ok(attr)
    }

    pub(super) fn link(&self, ino: u64, parent: u64, name: &[u8]) -> Done<FileAttr> {
        let kind = self.get(ino)?.attr.lock().kind;
        self.with_dir(parent, |dir| {
            if dir.find(name).is_some() {
                return Err(Errno::EEXIST);
            }
            dir.add(name, ino, kind);
            Ok(())
        })?;
        self.links(ino, 1);
        self.changed(parent);
        self.hold(ino)
    }

    pub(super) fn unlink(&self, parent: u64, name: &[u8]) -> Done<()> {
        let ino = self.with_dir(parent, |dir| dir.remove(name).ok_or(Errno::ENOENT))?;
        self.links(ino, -1);
        self.changed(parent);
        Ok(())
    }

    pub(super) fn rmdir(&self, parent: u64, name: &[u8]) -> Done<()> {
        let ino = self.with_dir(parent, |dir| {
            let ino = dir.find(name).ok_or(Errno::ENOENT)?;
            match &self.get(ino)?.body {
                Body::Dir(d) if !d.read().names.is_empty() => return Err(Errno::ENOTEMPTY),
                Body::Dir(_) => {}
                _ => return Err(Errno::ENOTDIR),
            }
            dir.remove(name);
            Ok(ino)
        })?;
        self.links(ino, -2);
        self.links(parent, -1);
        self.changed(parent);
        Ok(())
    }

    /// Replaces what is there. The workloads do not rename directories over one another.
    pub(super) fn rename(&self, from: (u64, &[u8]), to: (u64, &[u8])) -> Done<()> {
        let ino = self.with_dir(from.0, |dir| dir.remove(from.1).ok_or(Errno::ENOENT))?;
        let kind = self.get(ino)?.attr.lock().kind;
        let old = self.with_dir(to.0, |dir| {
            let old = dir.remove(to.1);
            dir.add(to.1, ino, kind);
            Ok(old)
        })?;
        if let Some(old) = old {
            self.links(old, -1);
        }
        if kind == FileType::Directory && from.0 != to.0 {
            self.links(from.0, -1);
            self.links(to.0, 1);
        }
        self.changed(from.0);
        self.changed(to.0);
        Ok(())
    }

    /// The kernel lets go of a node.
    pub(super) fn forget(&self, ino: u64, times: u64) {
        if let Ok(node) = self.get(ino) {
            let attr = node.attr.lock();
            let left = node.lookups.fetch_sub(times, Ordering::AcqRel).saturating_sub(times);
            if left == 0 && attr.nlink == 0 {
                self.nodes.remove(&ino);
            }
        }
    }

    /// After an unmount the kernel holds nothing.
    pub(super) fn forget_all(&self) {
        self.nodes.retain(|_, node| {
            node.lookups.store(0, Ordering::Release);
            node.attr.lock().nlink > 0
        });
    }

    pub(super) fn write(&self, ino: u64, offset: u64, bytes: &[u8]) -> Done<()> {
        let node = self.get(ino)?;
        let Body::File(data) = &node.body else { return Err(Errno::EINVAL) };
        data.write().write(offset, bytes);
        let mut attr = node.attr.lock();
        attr.size = attr.size.max(offset + bytes.len() as u64);
        attr.blocks = attr.size.div_ceil(512);
        attr.mtime = SystemTime::now();
        attr.ctime = attr.mtime;
        Ok(())
    }

    pub(super) fn read(&self, ino: u64, offset: u64, into: &mut [u8]) -> Done<usize> {
        let node = self.get(ino)?;
        let Body::File(data) = &node.body else { return Err(Errno::EINVAL) };
        let size = node.attr.lock().size;
        let n = (size.saturating_sub(offset) as usize).min(into.len());
        data.read().read(offset, &mut into[..n]);
        Ok(n)
    }
}
