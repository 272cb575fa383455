//! A walk over a tree that checks what must fit together, and notes what must last.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What is noted of a name: inode, mode, link count, size, owner, times, a checksum of contents and attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    numbers: [u64; 6],
    /// mtime. Not ctime: under many races the kernel now and then shows one, milliseconds later, that it never tells us.
    changed: (i64, i64),
    contents: u64,
}

/// FNV-1a.
fn checksum(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, &b| (sum ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

const START: u64 = 0xcbf2_9ce4_8422_2325;

/// Walks the tree. Panics on a contradiction.
pub fn facts(root: &Path) -> BTreeMap<PathBuf, Facts> {
    let (mut all, mut names) = (BTreeMap::new(), HashMap::<u64, (u64, u64)>::new());
    directory(root, root, &mut all, &mut names);
    for (inode, (found, links)) in names {
        assert_eq!(found, links, "inode {inode} has {found} names and says {links}");
    }
    all
}

fn directory(root: &Path, dir: &Path, all: &mut BTreeMap<PathBuf, Facts>, names: &mut HashMap<u64, (u64, u64)>) {
    let mut subdirectories = 0;
    for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("readdir of {}: {e}", dir.display())) {
        let entry = entry.unwrap_or_else(|e| panic!("an entry of {}: {e}", dir.display()));
        let path = entry.path();
        let meta =
            fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("a name without inode, {}: {e}", path.display()));
        let kind = entry.file_type().expect("a type");
        assert_eq!(kind, meta.file_type(), "type of {}", path.display());
        assert_eq!(std::os::unix::fs::DirEntryExt::ino(&entry), meta.ino(), "number of {}", path.display());
        if meta.is_dir() {
            subdirectories += 1;
            directory(root, &path, all, names);
        } else {
            names.entry(meta.ino()).or_insert((0, meta.nlink())).0 += 1;
        }
        let known = all.insert(path.strip_prefix(root).expect("below it").to_owned(), of(&path, &meta));
        assert!(known.is_none(), "{} is listed twice", path.display());
    }
    let links = fs::metadata(dir).expect("stat").nlink();
    assert_eq!(links, 2 + subdirectories, "link count of {}", dir.display());
}

fn of(path: &Path, meta: &fs::Metadata) -> Facts {
    let kind = meta.file_type();
    let mut contents = START;
    if kind.is_file() {
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        assert_eq!(bytes.len() as u64, meta.len(), "size of {}", path.display());
        contents = checksum(contents, &bytes);
    } else if kind.is_symlink() {
        let target = fs::read_link(path).unwrap_or_else(|e| panic!("readlink {}: {e}", path.display()));
        assert_eq!(target.as_os_str().len() as u64, meta.len(), "length of {}", path.display());
        contents = checksum(contents, target.as_os_str().as_bytes());
    }
    if kind.is_file() || kind.is_dir() {
        contents = checksum(contents, &attributes(path));
    }
    let rdev = if kind.is_char_device() || kind.is_block_device() { meta.rdev() } else { 0 };
    Facts {
        numbers: [
            meta.ino(),
            u64::from(meta.mode()),
            meta.nlink(),
            meta.len(),
            u64::from(meta.uid()) << 32 | u64::from(meta.gid()),
            rdev,
        ],
        changed: (meta.mtime(), meta.mtime_nsec()),
        contents,
    }
}

/// Names and values of all extended attributes, in order of names.
fn attributes(path: &Path) -> Vec<u8> {
    let mut list = vec![0u8; 1 << 16];
    let n = rustix::fs::listxattr(path, &mut list[..]).unwrap_or_else(|e| panic!("listxattr {}: {e}", path.display()));
    let mut names: Vec<&[u8]> = list[..n].split(|&b| b == 0).filter(|n| !n.is_empty()).collect();
    names.sort_unstable();
    let (mut out, mut value) = (Vec::new(), vec![0u8; 1 << 16]);
    for name in names {
        let n = rustix::fs::getxattr(path, name, &mut value[..])
            .unwrap_or_else(|e| panic!("{} of {}: {e}", String::from_utf8_lossy(name), path.display()));
        out.extend_from_slice(name);
        out.extend_from_slice(&value[..n]);
    }
    out
}
