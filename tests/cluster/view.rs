//! What a node sees of the whole tree, as text: names, kinds, rights, links, sizes, times, contents, attributes.

use crate::worker::sum;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Writes the view of `root` to `out`, in the order of the names.
pub fn write(root: &Path, out: &Path) -> io::Result<()> {
    let mut lines = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            let kind = meta.file_type();
            let content = if kind.is_dir() {
                todo.push(path.clone());
                0
            } else if kind.is_symlink() {
                sum(fs::read_link(&path)?.as_os_str().as_bytes())
            } else {
                sum(&fs::read(&path)?)
            };
            // The times of last access are each node's own affair.
            lines.push(format!(
                "{} mode {:o} links {} owner {}:{} size {} mtime {}.{:09} ctime {}.{:09} content {content:016x} xattrs {:016x}",
                path.strip_prefix(root).unwrap_or(&path).display(),
                meta.mode(),
                meta.nlink(),
                meta.uid(),
                meta.gid(),
                meta.size(),
                meta.mtime(),
                meta.mtime_nsec(),
                meta.ctime(),
                meta.ctime_nsec(),
                if kind.is_symlink() { 0 } else { xattrs(&path)? }
            ));
        }
    }
    lines.sort_unstable();
    let mut file = fs::File::create(out)?;
    file.write_all(lines.join("\n").as_bytes())
}

fn xattrs(path: &Path) -> io::Result<u64> {
    let mut names = vec![0u8; 65536];
    let n = rustix::fs::listxattr(path, &mut names[..])?;
    let mut list: Vec<&[u8]> = names[..n].split(|b| *b == 0).filter(|name| !name.is_empty()).collect();
    list.sort_unstable();
    let mut all = Vec::new();
    for name in list {
        let mut value = vec![0u8; 65536];
        let n = rustix::fs::getxattr(path, name, &mut value[..])?;
        all.extend(name);
        all.extend(&value[..n]);
    }
    Ok(sum(&all))
}

/// The first differences of two views.
pub fn differences(a: &str, b: &str) -> Vec<String> {
    let (left, right): (Vec<&str>, Vec<&str>) = (a.lines().collect(), b.lines().collect());
    let here: std::collections::BTreeSet<&str> = left.iter().copied().collect();
    let there: std::collections::BTreeSet<&str> = right.iter().copied().collect();
    let only = |x: &std::collections::BTreeSet<&str>, y: &std::collections::BTreeSet<&str>, mark: &str| {
        x.difference(y).take(5).map(|l| format!("{mark} {l}")).collect::<Vec<_>>()
    };
    let mut all = only(&here, &there, "<");
    all.extend(only(&there, &here, ">"));
    all
}
