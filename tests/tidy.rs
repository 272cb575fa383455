//! Is the house in order? Which module uses which (the table of ARCHITECTURE.md), how long files are, what was left behind.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Chapters in reading order, and what each may use besides the ground floor (ids, error, sync, clock).
const MAY_USE: &[(&str, &[&str])] = &[
    ("ids", &[]),
    ("error", &["ids"]),
    ("sync", &["error"]),
    ("clock", &[]),
    ("format", &[]),
    ("device", &[]),
    ("glock", &[]),
    ("cache", &["format", "device"]),
    ("journal", &["cache", "format", "device"]),
    ("rgrp", &["journal", "cache", "glock", "format"]),
    // inode and file are one storey: an inode's life needs its tree, the tree needs the inode. dir and xattr are asked to
    // write a new directory and to free a dead one.
    ("inode", &["rgrp", "journal", "cache", "glock", "format", "file", "dir", "xattr"]),
    ("file", &["inode", "rgrp", "journal", "cache", "glock", "format", "device"]),
    ("dir", &["file", "inode", "rgrp", "journal", "cache", "glock", "format"]),
    ("xattr", &["file", "inode", "rgrp", "journal", "cache", "glock", "format"]),
    ("quota", &["file", "inode", "rgrp", "journal", "cache", "glock", "format"]),
    ("statfs", &["quota", "inode", "rgrp", "journal", "cache", "format"]),
    ("fs", &["dir", "xattr", "quota", "statfs", "file", "inode", "rgrp", "journal", "cache", "glock", "format"]),
    ("volume", &["fs", "quota", "statfs", "inode", "rgrp", "journal", "cache", "glock", "format", "device"]),
    (
        "admin",
        &[
            "volume", "fs", "quota", "statfs", "dir", "xattr", "file", "inode", "rgrp", "journal", "cache", "glock",
            "format", "device",
        ],
    ),
    // Beside fs, not below it; and the crate lockclient.
    ("cluster", &["glock", "journal"]),
    ("dump", &["admin", "volume", "format", "device", "journal"]),
    ("fuse", &["fs", "inode", "glock", "format", "file", "device"]),
    ("mount", &["fuse", "cluster", "admin", "glock", "volume", "fs", "quota", "device", "format"]),
    ("cli", &["dump", "mount", "admin", "volume", "fs", "quota", "device", "format"]),
];

/// Files that may name a crate that only one place is allowed to know.
const ONLY_IN: &[(&str, &[&str])] =
    &[("fuser::", &["src/fuse/"]), ("tokio::", &["src/fuse/dispatch.rs", "src/cluster/tests", "src/mount/cluster.rs"])];

/// Longest file of code, its inline tests not counted.
const LINES_MAX: usize = 520;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(below: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut todo = vec![root().join(below)];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("a folder of ours").filter_map(Result::ok) {
            let path = entry.path();
            if path.is_dir() {
                todo.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                files.push(path);
            }
        }
    }
    files
}

fn chapter(path: &Path) -> String {
    let inside = path.strip_prefix(root().join("src")).expect("below src");
    let first = inside.components().next().expect("not empty").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The code without its inline tests: they may use whatever helps.
fn code(text: &str) -> &str {
    text.split("#[cfg(test)]").next().unwrap_or(text)
}

fn uses(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            for item in list.split('}').next().unwrap_or("").split(',') {
                found.insert(item.trim().split("::").next().unwrap_or("").to_owned());
            }
        } else {
            found.insert(rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_owned());
        }
    }
    found.remove("");
    found
}

#[test]
fn a_chapter_uses_only_what_the_table_allows() {
    let ground = ["ids", "error", "sync", "clock"];
    let mut wrong = Vec::new();
    for path in rust_files("src") {
        let own = chapter(&path);
        if ["lib", "main", "bin"].contains(&own.as_str()) {
            continue;
        }
        if path.ends_with("tests.rs") {
            continue;
        }
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == own) else {
            wrong.push(format!("{}: chapter '{own}' is not in the table", path.display()));
            continue;
        };
        let text = fs::read_to_string(&path).expect("readable");
        // A comment may name what it likes.
        let lines: String =
            code(&text).lines().filter(|l| !l.trim_start().starts_with("//")).map(|l| format!("{l}\n")).collect();
        for used in uses(&lines) {
            let is_chapter = MAY_USE.iter().any(|(name, _)| *name == used);
            let is_ground = ground.contains(&used.as_str()) && !ground.contains(&own.as_str());
            if is_chapter && used != own && !is_ground && !allowed.contains(&used.as_str()) {
                wrong.push(format!("{}: '{own}' may not use '{used}'", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_transport_is_known_in_one_place() {
    for path in rust_files("src") {
        let text = fs::read_to_string(&path).expect("readable");
        let inside = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        for (word, places) in ONLY_IN {
            if code(&text).contains(word) {
                assert!(
                    places.iter().any(|p| inside.starts_with(p)),
                    "{inside} names {word}, which belongs in {places:?}"
                );
            }
        }
    }
}

#[test]
fn files_are_short_and_nothing_was_left_behind() {
    let left = ["todo!(", "unimplemented!(", "dbg!(", "FIXME", "XXX"];
    for dir in ["src", "mkfs", "fsck", "lockclient"] {
        for path in rust_files(dir) {
            let text = fs::read_to_string(&path).expect("readable");
            let lines = code(&text).lines().count();
            assert!(
                lines <= LINES_MAX || path.ends_with("tests.rs"),
                "{}: {lines} lines, {LINES_MAX} allowed",
                path.display()
            );
            for word in left {
                assert!(!text.contains(word), "{}: {word} was left behind", path.display());
            }
        }
    }
}
