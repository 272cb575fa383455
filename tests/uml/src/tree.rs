//! `treelist`: all that can be seen of a directory tree, in one canonical form.
//!
//! The same tree gives the same bytes, whoever serves it (the kernel, gfs2r over FUSE), so two listings are compared
//! with [`differences`]. One line for each name, sorted by path:
//!
//! ```text
//! a/b type=file mode=0644 uid=0 gid=0 size=5 nlink=2 same=a/a mtime=... ctime=... content=... user.x=0a0b
//! ```
//!
//! Names and symlink targets are escaped (`\x20` for a space). `same` names the first path of a file with several
//! links. `content` is a hash of the [canonical contents](content): holes and written zeros are equal, so that it does
//! not depend on allocation; the column `data` shows the allocation. Values of extended attributes are in hex. What
//! cannot be read is shown in its place as `!ERRNO` and counted.
//!
//! Which columns appear is chosen with [`Options`]; those that differ for good reasons are left out: `atime`, `rdev`
//! (Linux 6.1 shows 0:0 for a device node that was looked up through a directory), `ctime` and `mtime` between two runs.

mod columns;
pub mod content;
mod walk;

pub use columns::{Column, Columns};
pub use walk::{Listing, Options, list};

use std::collections::BTreeMap;

/// Compares two listings line by line: one line for each path that differs, at most `most`, and how many there were
/// beyond; empty when they are equal.
pub fn differences(left: &str, right: &str, most: usize) -> Vec<String> {
    let (left, right) = (by_path(left), by_path(right));
    let mut found = Vec::new();
    for (path, line) in &left {
        match right.get(path) {
            None => found.push(format!("only left:  {path} {line}")),
            Some(other) if other == line => {}
            Some(other) => found.push(format!("differs:    {path} {}", fields(line, other))),
        }
    }
    for (path, line) in &right {
        if !left.contains_key(path) {
            found.push(format!("only right: {path} {line}"));
        }
    }
    let beyond = found.len().saturating_sub(most);
    found.truncate(most);
    if beyond > 0 {
        found.push(format!("... and {beyond} more"));
    }
    found
}

fn by_path(listing: &str) -> BTreeMap<&str, &str> {
    listing.lines().map(|line| line.split_once(' ').unwrap_or((line, ""))).collect()
}

/// The fields of two lines that are not in both.
fn fields(left: &str, right: &str) -> String {
    let has = |line: &str, field: &str| line.split(' ').any(|other| other == field);
    let only = |line: &str, other: &str| -> Vec<String> {
        line.split(' ').filter(|field| !has(other, field)).map(|field| field.chars().take(200).collect()).collect()
    };
    format!("[{}] / [{}]", only(left, right).join(" "), only(right, left).join(" "))
}

/// Escapes bytes that would break a line into fields: everything but printable ASCII, and the backslash.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_graphic() && byte != b'\\' {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(2 * bytes.len());
    for &byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests;
