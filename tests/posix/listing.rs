//! readdir: complete, without repetitions, stable while the directory changes; telldir and seekdir.

use crate::harness::*;
use rustix::fs::Dir;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = Dir::read_from(fs::File::open(path).expect("open"))
        .expect("opendir")
        .map(|e| e.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

pub fn run(t: &T) {
    kinds(t);
    for count in [0, 10, 100, 3000] {
        complete(t, count);
    }
    changing(t);
    removing_while_listing(t);
}

fn kinds(t: &T) {
    let d = t.dir();
    one_of_each(&d);
    for entry in Dir::read_from(fs::File::open(&d).expect("open")).expect("opendir") {
        let entry = entry.expect("entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        let st = rustix::fs::lstat(d.join(&name)).expect("lstat");
        t.eq(&format!("d_type of {name}"), entry.file_type(), rustix::fs::FileType::from_raw_mode(st.st_mode));
        if name != ".." {
            t.eq(&format!("d_ino of {name}"), entry.ino(), st.st_ino);
        }
    }
}

fn complete(t: &T, count: usize) {
    let d = t.dir();
    let mut wanted: Vec<String> = (0..count).map(|n| format!("name-{n:05}")).collect();
    for name in &wanted {
        file(&d.join(name), 0o644);
    }
    wanted.extend([".".into(), "..".into()]);
    wanted.sort();
    t.yes(&format!("{count} names are listed once each"), names(&d) == wanted);
    // From every position that was told, the rest follows.
    let mut dir = Dir::read_from(fs::File::open(&d).expect("open")).expect("opendir");
    let mut told = Vec::new();
    while let Some(entry) = dir.read() {
        let entry = entry.expect("entry");
        told.push((entry.file_name().to_owned(), entry.offset()));
    }
    let step = (told.len() / 40).max(1);
    let mut good = true;
    for at in (0..told.len() - 1).step_by(step) {
        dir.seek(told[at].1).expect("seekdir");
        let next = dir.read().map(|e| e.expect("entry").file_name().to_owned());
        good &= next.as_ref() == Some(&told[at + 1].0);
    }
    t.yes(&format!("seekdir among {count} names"), good);
    dir.rewind();
    t.eq("rewinddir", dir.filter_map(Result::ok).count(), count + 2);
    let links = nlink(&d);
    t.eq("files do not count as links", links, 2);
    t.ok("remove them all", fs::remove_dir_all(&d));
}

/// Names that stay during a listing are listed exactly once, whatever happens to others.
fn changing(t: &T) {
    let d = t.dir();
    for n in 0..1000 {
        file(&d.join(format!("stays-{n}")), 0o644);
        file(&d.join(format!("goes-{n}")), 0o644);
    }
    let mut seen = Vec::new();
    for (n, entry) in Dir::read_from(fs::File::open(&d).expect("open")).expect("opendir").enumerate() {
        seen.push(entry.expect("entry").file_name().to_string_lossy().into_owned());
        if n < 1000 {
            // Goes, comes: leaves split meanwhile.
            rustix::fs::unlink(d.join(format!("goes-{n}"))).expect("unlink");
            file(&d.join(format!("a-rather-longer-name-that-comes-{n}")), 0o644);
        }
    }
    let stays: Vec<&String> = seen.iter().filter(|n| n.starts_with("stays-")).collect();
    t.eq("names that stay", stays.len(), 1000);
    t.eq("each once", stays.iter().collect::<BTreeSet<_>>().len(), 1000);
    t.eq("no name twice", seen.iter().collect::<BTreeSet<_>>().len(), seen.len());
}

fn removing_while_listing(t: &T) {
    let d = t.dir();
    for n in 0..2000 {
        file(&d.join(format!("f{n}")), 0o644);
    }
    let mut removed = 0;
    for entry in Dir::read_from(fs::File::open(&d).expect("open")).expect("opendir") {
        let name = entry.expect("entry").file_name().to_string_lossy().into_owned();
        if name.starts_with('f') {
            rustix::fs::unlink(d.join(name)).expect("unlink");
            removed += 1;
        }
    }
    t.eq("one pass of rm removes all", removed, 2000);
    t.eq("nothing is left", names(&d).len(), 2);
}
