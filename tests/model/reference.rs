//! A filesystem that can be read in one sitting: what the operations should do.

use std::collections::BTreeMap;

/// A node of the model.
pub(crate) type Id = usize;

/// Bytes with holes, in pages of 4096.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes {
    pub size: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

const PAGE: u64 = 4096;

impl Bytes {
    pub(crate) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let len = self.size.saturating_sub(offset).min(len as u64) as usize;
        let mut out = vec![0; len];
        let mut at = 0;
        while at < len {
            let pos = offset + at as u64;
            let within = (pos % PAGE) as usize;
            let n = (PAGE as usize - within).min(len - at);
            if let Some(page) = self.pages.get(&(pos / PAGE)) {
                out[at..at + n].copy_from_slice(&page[within..within + n]);
            }
            at += n;
        }
        out
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.put(offset, bytes);
        self.size = self.size.max(offset + bytes.len() as u64);
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            let pos = offset + at as u64;
            let within = (pos % PAGE) as usize;
            let n = (PAGE as usize - within).min(bytes.len() - at);
            let page = self.pages.entry(pos / PAGE).or_insert_with(|| vec![0; PAGE as usize]);
            page[within..within + n].copy_from_slice(&bytes[at..at + n]);
            at += n;
        }
    }

    pub(crate) fn zero(&mut self, offset: u64, len: u64) {
        let end = offset.saturating_add(len).min(self.size);
        if offset >= end {
            return;
        }
        for (&number, page) in self.pages.range_mut(offset / PAGE..=(end - 1) / PAGE) {
            let start = number * PAGE;
            let (from, to) = (offset.saturating_sub(start), (end - start).min(PAGE));
            page[from as usize..to as usize].fill(0);
        }
    }

    pub(crate) fn truncate(&mut self, size: u64) {
        if size < self.size {
            let old = self.size;
            self.zero(size, old - size);
            self.pages.retain(|&p, _| p * PAGE < size);
        }
        self.size = size;
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File(Bytes),
    Dir(BTreeMap<Vec<u8>, Id>),
    Symlink(Vec<u8>),
    Special(u32, (u32, u32)),
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub kind: Kind,
    pub perm: u32,
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub mtime: Option<(i64, u32)>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub parent: Id,
}

/// Names of the errors the model predicts, as `Error`'s variants are called.
pub(crate) type Why = &'static str;

/// The model.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub nodes: BTreeMap<Id, Node>,
    next: Id,
}

pub(crate) const ROOT: Id = 0;

impl Model {
    pub(crate) fn new() -> Self {
        let root = Node {
            kind: Kind::Dir(BTreeMap::new()),
            perm: 0o755,
            uid: 0,
            gid: 0,
            nlink: 2,
            mtime: None,
            xattrs: BTreeMap::new(),
            parent: ROOT,
        };
        Self { nodes: BTreeMap::from([(ROOT, root)]), next: 1 }
    }

    pub(crate) fn dir(&self, id: Id) -> Result<&BTreeMap<Vec<u8>, Id>, Why> {
        match &self.nodes[&id].kind {
            Kind::Dir(entries) => Ok(entries),
            _ => Err("NotADirectory"),
        }
    }

    fn dir_mut(&mut self, id: Id) -> &mut BTreeMap<Vec<u8>, Id> {
        match &mut self.nodes.get_mut(&id).expect("known").kind {
            Kind::Dir(entries) => entries,
            _ => unreachable!("checked to be a directory"),
        }
    }

    fn is_dir(&self, id: Id) -> bool {
        matches!(self.nodes[&id].kind, Kind::Dir(_))
    }

    pub(crate) fn may_make(&self, parent: Id, name: &[u8]) -> Result<(), Why> {
        if name.len() > 255 {
            return Err("NameTooLong");
        }
        let entries = self.dir(parent)?;
        if self.nodes[&parent].nlink == 0 {
            return Err("NotFound");
        }
        if entries.contains_key(name) { Err("Exists") } else { Ok(()) }
    }

    pub(crate) fn make(&mut self, parent: Id, name: &[u8], kind: Kind, perm: u32) -> Id {
        let id = self.next;
        self.next += 1;
        let is_dir = matches!(kind, Kind::Dir(_));
        let nlink = if is_dir { 2 } else { 1 };
        let node = Node { kind, perm, uid: 0, gid: 0, nlink, mtime: None, xattrs: BTreeMap::new(), parent };
        self.nodes.insert(id, node);
        self.dir_mut(parent).insert(name.to_vec(), id);
        if is_dir {
            self.nodes.get_mut(&parent).expect("known").nlink += 1;
        }
        id
    }

    pub(crate) fn may_link(&self, id: Id, parent: Id, name: &[u8]) -> Result<(), Why> {
        if name.len() > 255 {
            return Err("NameTooLong");
        }
        if id == parent {
            return Err("NotPermitted");
        }
        self.may_make(parent, name)?;
        if self.is_dir(id) {
            return Err("NotPermitted");
        }
        if self.nodes[&id].nlink == 0 { Err("NotFound") } else { Ok(()) }
    }

    pub(crate) fn link(&mut self, id: Id, parent: Id, name: &[u8]) {
        self.dir_mut(parent).insert(name.to_vec(), id);
        self.nodes.get_mut(&id).expect("known").nlink += 1;
    }

    pub(crate) fn may_remove(&self, parent: Id, name: &[u8], rmdir: bool) -> Result<Id, Why> {
        let &id = self.dir(parent)?.get(name).ok_or("NotFound")?;
        match (rmdir, &self.nodes[&id].kind) {
            (true, Kind::Dir(entries)) if !entries.is_empty() => Err("NotEmpty"),
            (true, Kind::Dir(_)) => Ok(id),
            (true, _) => Err("NotADirectory"),
            (false, Kind::Dir(_)) => Err("IsADirectory"),
            (false, _) => Ok(id),
        }
    }

    /// Removes a name; the inode if that was its last one.
    pub(crate) fn remove(&mut self, parent: Id, name: &[u8]) -> Option<Id> {
        let id = self.dir_mut(parent).remove(name).expect("checked");
        self.drop_name(parent, id)
    }

    fn drop_name(&mut self, parent: Id, id: Id) -> Option<Id> {
        if self.is_dir(id) {
            self.nodes.get_mut(&parent).expect("known").nlink -= 1;
        }
        let node = self.nodes.get_mut(&id).expect("known");
        node.nlink = if matches!(node.kind, Kind::Dir(_)) { 0 } else { node.nlink - 1 };
        (node.nlink == 0).then_some(id)
    }

    fn below(&self, mut id: Id, above: Id) -> bool {
        loop {
            if id == above {
                return true;
            }
            if id == ROOT {
                return false;
            }
            id = self.nodes[&id].parent;
        }
    }

    /// Whether a rename does something (`Ok(true)`), nothing (`Ok(false)`) or fails. `how`: 0, 1 NOREPLACE, 2 EXCHANGE.
    pub(crate) fn may_rename(
        &self,
        (from, name): (Id, &[u8]),
        (to, new_name): (Id, &[u8]),
        how: u32,
    ) -> Result<bool, Why> {
        let &moved = self.dir(from)?.get(name).ok_or("NotFound")?;
        let target = self.dir(to)?.get(new_name).copied();
        match (how, target) {
            (1, Some(_)) => return Err("Exists"),
            (2, None) => return Err("NotFound"),
            _ => {}
        }
        if target == Some(moved) {
            return Ok(false);
        }
        if self.is_dir(moved) && self.below(to, moved) {
            return Err("Invalid");
        }
        if let Some(target) = target {
            if self.is_dir(target) && self.below(from, target) {
                return Err(if how == 2 { "Invalid" } else { "NotEmpty" });
            }
            if how != 2 {
                match (self.is_dir(moved), &self.nodes[&target].kind) {
                    (true, Kind::Dir(entries)) if !entries.is_empty() => return Err("NotEmpty"),
                    (true, Kind::Dir(_)) => {}
                    (true, _) => return Err("NotADirectory"),
                    (false, Kind::Dir(_)) => return Err("IsADirectory"),
                    (false, _) => {}
                }
            }
        }
        Ok(true)
    }

    /// Renames; the inode that lost its last name.
    pub(crate) fn rename(&mut self, (from, name): (Id, &[u8]), (to, new_name): (Id, &[u8]), how: u32) -> Option<Id> {
        let moved = self.dir_mut(from).remove(name).expect("checked");
        let target = self.dir_mut(to).remove(new_name);
        self.dir_mut(to).insert(new_name.to_vec(), moved);
        self.reparent(moved, from, to);
        match target {
            Some(target) if how == 2 => {
                self.dir_mut(from).insert(name.to_vec(), target);
                self.reparent(target, to, from);
                None
            }
            Some(target) => self.drop_name(to, target),
            None => None,
        }
    }

    fn reparent(&mut self, id: Id, from: Id, to: Id) {
        if self.is_dir(id) {
            self.nodes.get_mut(&from).expect("known").nlink -= 1;
            self.nodes.get_mut(&to).expect("known").nlink += 1;
            self.nodes.get_mut(&id).expect("known").parent = to;
        }
    }

    /// A directory and a name in it that leads to the node.
    pub(crate) fn a_name_of(&self, id: Id) -> Option<(Id, Vec<u8>)> {
        self.nodes.iter().find_map(|(&dir, node)| match &node.kind {
            Kind::Dir(entries) => Some((dir, entries.iter().find(|(_, i)| **i == id)?.0.clone())),
            _ => None,
        })
    }

    pub(crate) fn file(&mut self, id: Id) -> Result<&mut Bytes, Why> {
        match &mut self.nodes.get_mut(&id).expect("known").kind {
            Kind::File(bytes) => Ok(bytes),
            Kind::Dir(_) => Err("IsADirectory"),
            _ => Err("Invalid"),
        }
    }

    /// All paths with the node each leads to, in order.
    pub(crate) fn paths(&self) -> Vec<(Vec<u8>, Id)> {
        let mut out = Vec::new();
        let mut todo = vec![(Vec::new(), ROOT)];
        while let Some((path, id)) = todo.pop() {
            if let Kind::Dir(entries) = &self.nodes[&id].kind {
                for (name, &child) in entries {
                    let below = [&path[..], b"/", name].concat();
                    out.push((below.clone(), child));
                    if self.is_dir(child) {
                        todo.push((below, child));
                    }
                }
            }
        }
        out.sort();
        out
    }
}
