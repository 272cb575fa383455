//! All that a volume shows: names, attributes, contents, extended attributes, quotas, free space; and how two such views
//! differ.

use gfs2r::error::{Error, Result};
use gfs2r::file::Seek;
use gfs2r::format::DirentType;
use gfs2r::fs::{Attr, Fs};
use gfs2r::ids::BlockAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

const CHUNK: u64 = 512;

/// Contents without the zeros, in chunks.
type Bytes = BTreeMap<u64, Vec<u8>>;

/// One inode, as one of its names shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub size: u64,
    pub blocks: u64,
    what: (DirentType, u32, u32, (u32, u32)),
    nlink: u32,
    perm: u32,
    flags: u32,
    /// Access, change of data, change of inode: whole seconds.
    times: [i64; 3],
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    bytes: Bytes,
}

/// All of a volume.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub items: BTreeMap<String, Arc<Item>>,
    pub quotas: Vec<String>,
    pub free: u64,
}

impl View {
    /// Looks at everything but `/fill`.
    pub(crate) fn of(fs: &Fs) -> Result<Self> {
        let mut view = Self { free: fs.space().free, ..Self::default() };
        if let Some(quota) = fs.quota() {
            view.quotas = quota.report(fs.volume())?.iter().map(|line| format!("{line:?}")).collect();
        }
        let mut known = BTreeMap::new();
        let mut todo = vec![(String::new(), fs.root())];
        view.items.insert("/".into(), Arc::new(item(fs, &fs.getattr(fs.root())?)?));
        while let Some((path, dir)) = todo.pop() {
            for name in names(fs, dir)? {
                let attr = fs.lookup(dir, name.as_bytes())?;
                let node = attr.inum.addr;
                let path = format!("{path}/{name}");
                // It is only there to fill the disk.
                if path == "/fill" {
                    fs.forget(node, 1)?;
                    continue;
                }
                if attr.kind == DirentType::Dir {
                    todo.push((path.clone(), node));
                }
                let item = match known.get(&node) {
                    Some(item) => Arc::clone(item),
                    None => Arc::new(item(fs, &attr)?),
                };
                known.insert(node, Arc::clone(&item));
                view.items.insert(path, item);
            }
        }
        // Directories were needed until here.
        known.keys().try_for_each(|node| fs.forget(*node, u64::MAX))?;
        Ok(view)
    }

    /// Without the charges for what fills the disk.
    pub(crate) fn without_filling(mut self) -> Self {
        self.quotas.retain(|line| !line.contains("User(0)") && !line.contains("Group(0)"));
        self
    }

    /// Without numbers of blocks.
    pub(crate) fn without_blocks(mut self) -> Self {
        self.items.values_mut().for_each(|item| Arc::make_mut(item).blocks = 0);
        self.quotas.clear();
        self.free = 0;
        self
    }

    /// How this view differs from the wanted one.
    pub(crate) fn differences(&self, want: &Self, free: bool) -> Vec<String> {
        let mut out = Vec::new();
        for path in self.items.keys().chain(want.items.keys().filter(|p| !self.items.contains_key(*p))) {
            match (self.items.get(path), want.items.get(path)) {
                (Some(a), Some(b)) => out.extend(a.difference(b).map(|d| format!("{path}: {d}"))),
                (Some(_), None) => out.push(format!("{path} is there")),
                (None, _) => out.push(format!("{path} is not there")),
            }
        }
        // What is charged for an inode that waits for its deletion is given back with it.
        if free && self.quotas != want.quotas {
            out.push(format!("quotas {:?}, should be {:?}", self.quotas, want.quotas));
        }
        if free && self.free != want.free {
            out.push(format!("{} blocks free, should be {}", self.free, want.free));
        }
        out
    }

    /// The same when an operation on the contents of `parts` may have stopped half-way: each of their bytes is as before or
    /// as after. Everything else is as before or as after.
    pub(crate) fn half_way(&self, before: &Self, after: &Self, parts: &[&str]) -> Vec<String> {
        let mut out = Vec::new();
        for (path, item) in &self.items {
            match (before.items.get(path), after.items.get(path)) {
                (Some(b), Some(a)) if parts.contains(&path.as_str()) => {
                    out.extend(item.half_way(b, a).map(|d| format!("{path}: {d}")));
                }
                (None, None) => out.push(format!("{path} is there")),
                (b, a) if b == Some(item) || a == Some(item) => {}
                (b, a) => out.extend(b.or(a).and_then(|w| item.difference(w)).map(|d| format!("{path}: {d}"))),
            }
        }
        let gone = before.items.keys().filter(|p| after.items.contains_key(*p) && !self.items.contains_key(*p));
        out.extend(gone.map(|path| format!("{path} is not there")));
        out
    }
}

impl Item {
    fn difference(&self, want: &Self) -> Option<String> {
        if self == want {
            return None;
        }
        if self.bytes != want.bytes {
            let at = self.bytes.keys().chain(want.bytes.keys()).find(|at| self.bytes.get(at) != want.bytes.get(at));
            return Some(format!("contents near {at:?}, size {} should be {}", self.size, want.size));
        }
        if self.xattrs != want.xattrs {
            let names = |item: &Self| -> Vec<(String, usize)> {
                item.xattrs.iter().map(|(n, v)| (String::from_utf8_lossy(n).into_owned(), v.len())).collect()
            };
            return Some(format!("attributes {:?} should be {:?}", names(self), names(want)));
        }
        let plain = |i: &Self| format!("{:?}", Self { xattrs: BTreeMap::new(), bytes: Bytes::new(), ..i.clone() });
        Some(format!("{} should be {}", plain(self), plain(want)))
    }

    fn half_way(&self, before: &Self, after: &Self) -> Option<String> {
        let sizes = before.size.min(after.size)..=before.size.max(after.size);
        if !sizes.contains(&self.size) {
            return Some(format!("size {} not in {sizes:?}", self.size));
        }
        if self.what != before.what || self.nlink != before.nlink || self.xattrs != before.xattrs {
            return Some("something else than contents changed".into());
        }
        let all = self.bytes.keys().chain(before.bytes.keys()).chain(after.bytes.keys());
        let byte = |of: &Bytes, at: u64, i: usize| of.get(&at).map_or(0, |c| c[i]);
        for &at in all {
            for i in 0..CHUNK.min(self.size.saturating_sub(at)) as usize {
                let (b, a) = (byte(&before.bytes, at, i), byte(&after.bytes, at, i));
                let it = byte(&self.bytes, at, i);
                if it != b && it != a {
                    return Some(format!("byte {} is {it:#x}: {b:#x} before, {a:#x} after", at + i as u64));
                }
            }
        }
        None
    }
}

fn names(fs: &Fs, dir: BlockAddr) -> Result<Vec<String>> {
    let mut names = Vec::new();
    fs.list(dir, 0, &mut |item| {
        if item.name != b"." && item.name != b".." {
            names.push(String::from_utf8_lossy(item.name).into_owned());
        }
        true
    })?;
    Ok(names)
}

fn item(fs: &Fs, attr: &Attr) -> Result<Item> {
    let node = attr.inum.addr;
    let mut xattrs = BTreeMap::new();
    for name in fs.listxattr(node)? {
        let value = fs.getxattr(node, &name)?;
        xattrs.insert(name, value);
    }
    let bytes = match attr.kind {
        DirentType::Reg => contents(fs, node, attr.size)?,
        DirentType::Lnk => Bytes::from([(0, fs.readlink(node)?)]),
        _ => Bytes::new(),
    };
    Ok(Item {
        size: attr.size,
        blocks: attr.blocks,
        what: (attr.kind, attr.uid, attr.gid, attr.rdev),
        nlink: attr.nlink,
        perm: attr.perm,
        flags: fs.get_flags(node)?,
        times: [attr.atime.sec, attr.mtime.sec, attr.ctime.sec],
        xattrs,
        bytes,
    })
}

/// What is not zero.
fn contents(fs: &Fs, node: BlockAddr, size: u64) -> Result<Bytes> {
    let mut bytes = Bytes::new();
    let mut buf = vec![0; 64 << 10];
    let mut at = 0;
    while at < size {
        at = match fs.seek(node, at, Seek::Data) {
            Ok(data) => data - data % CHUNK,
            Err(Error::NoSuchRegion) => break,
            Err(e) => return Err(e),
        };
        let hole = fs.seek(node, at, Seek::Hole)?.max(at + 1);
        while at < hole {
            let n = fs.read(node, at, &mut buf)?;
            if n == 0 {
                break;
            }
            for (i, chunk) in buf[..n].chunks(CHUNK as usize).enumerate() {
                if chunk.iter().any(|&b| b != 0) {
                    let mut chunk = chunk.to_vec();
                    chunk.resize(CHUNK as usize, 0);
                    bytes.insert(at + i as u64 * CHUNK, chunk);
                }
            }
            at += (n as u64).next_multiple_of(CHUNK);
        }
    }
    Ok(bytes)
}
