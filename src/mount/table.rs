//! The kernel's table of mounts, `/proc/self/mountinfo`.

use std::path::{Path, PathBuf};

/// A line of the table that is ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// `major:minor`.
    pub(super) number: String,
    /// Where it is mounted.
    pub(super) target: PathBuf,
    /// Options of this mount: `rw,nosuid,noatime` ...
    pub(super) options: String,
    /// `fuse.gfs2r` or `fuseblk.gfs2r`.
    pub(super) kind: String,
    /// What is mounted.
    pub(super) source: PathBuf,
}

/// Our mounts in this mount namespace, oldest first. Empty where the table cannot be read.
pub(super) fn ours() -> Vec<Entry> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().filter_map(entry).filter(|e| e.kind == "fuse.gfs2r" || e.kind == "fuseblk.gfs2r").collect()
}

fn entry(line: &str) -> Option<Entry> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(2);
    let number = left.next()?.to_owned();
    let target = PathBuf::from(unescape(left.nth(1)?));
    let options = left.next()?.to_owned();
    let mut right = right.split(' ');
    let (kind, source) = (right.next()?.to_owned(), PathBuf::from(unescape(right.next()?)));
    Some(Entry { number, target, options, kind, source })
}

/// The topmost mount of ours whose mount point or source is `what`.
pub(super) fn find(what: &Path) -> Option<Entry> {
    ours().into_iter().rev().find(|e| e.target == what || e.source == what)
}

/// The same for a path that may lie inside the mount.
pub(super) fn containing(path: &Path) -> Option<Entry> {
    let mut all = ours();
    path.ancestors()
        .find_map(|at| all.iter().rposition(|e| e.target == at || e.source == at))
        .map(|n| all.swap_remove(n))
}

/// mountinfo writes blanks and backslashes as `\040` and the like.
fn unescape(field: &str) -> String {
    let mut out = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'\\').then(|| after.get(..3)).flatten().and_then(octal);
        out.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let line = "83 26 0:45 / /mnt/a\\040b\\134c rw,nosuid shared:7 - fuse.gfs2r /tmp/d\\040\u{e9}.img rw,user_id=0";
        let wanted = Entry {
            number: "0:45".into(),
            target: "/mnt/a b\\c".into(),
            options: "rw,nosuid".into(),
            kind: "fuse.gfs2r".into(),
            source: "/tmp/d \u{e9}.img".into(),
        };
        assert_eq!(entry(line), Some(wanted));
        assert_eq!(entry("83 26 0:45 / /mnt"), None);
        assert_eq!(unescape("a\\04"), "a\\04");
    }
}
