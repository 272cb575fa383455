//! Which of atime, mtime and ctime each call changes, of the file and of its parent.

use crate::harness::*;
use rustix::fs::{AtFlags, CWD, FallocateFlags, OFlags, RenameFlags, XattrFlags};
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

type Times = [(i64, u64); 3];

fn times(path: &Path) -> Times {
    let st = stat(path);
    [(st.st_atime, st.st_atime_nsec), (st.st_mtime, st.st_mtime_nsec), (st.st_ctime, st.st_ctime_nsec)]
}

/// Which times moved, as letters; a time that went backwards is written in capitals.
fn moved(before: &Times, after: &Times) -> String {
    let mut out = String::new();
    for (n, letter) in ['a', 'm', 'c'].into_iter().enumerate() {
        match after[n].cmp(&before[n]) {
            std::cmp::Ordering::Greater => out.push(letter),
            std::cmp::Ordering::Less => out.push(letter.to_ascii_uppercase()),
            std::cmp::Ordering::Equal => {}
        }
    }
    out
}

/// `op` must move exactly the times `wanted` of each path.
#[track_caller]
fn moves<R>(t: &T, what: &str, paths: &[(&Path, &str)], op: impl FnOnce() -> R) {
    let before: Vec<Times> = paths.iter().map(|(p, _)| times(p)).collect();
    // Longer than the tick of the kernel's coarse clock.
    std::thread::sleep(Duration::from_millis(11));
    drop(op());
    for ((path, wanted), before) in paths.iter().zip(before) {
        let name = path.file_name().expect("has one").to_string_lossy();
        t.eq(&format!("times of {name} after {what}"), moved(&before, &times(path)).as_str(), wanted);
    }
}

pub fn run(t: &T) {
    contents(t);
    attributes(t);
    names(t);
    reading(t);
}

fn contents(t: &T) {
    let d = t.dir();
    let f = d.join("f");
    fs::write(&f, vec![1u8; 10_000]).expect("write");
    let mut h = fs::File::options().read(true).write(true).open(&f).expect("open");
    let both: &[(&Path, &str)] = &[(&f, "mc"), (&d, "")];
    moves(t, "write", both, || h.write_all(b"x").expect("write"));
    moves(t, "fsync", &[(&f, "")], || h.sync_all().expect("fsync"));
    moves(t, "ftruncate", both, || h.set_len(5000).expect("ftruncate"));
    moves(t, "ftruncate to the same size", both, || h.set_len(5000).expect("ftruncate"));
    moves(t, "ftruncate longer", both, || h.set_len(50_000).expect("ftruncate"));
    moves(t, "fallocate", both, || rustix::fs::fallocate(&h, FallocateFlags::empty(), 0, 90_000).expect("fallocate"));
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    moves(t, "punching", both, || rustix::fs::fallocate(&h, punch, 4096, 8192).expect("fallocate"));
    moves(t, "O_TRUNC", both, || fs::File::create(&f).expect("open"));
    moves(t, "O_TRUNC of an empty file", both, || fs::File::create(&f).expect("open"));
    moves(t, "opening for writing", &[(&f, "")], || open(&f, OFlags::WRONLY, 0).expect("open"));
    moves(t, "writing nothing", &[(&f, "")], || h.write(b"").expect("write"));
    fs::write(&f, b"12345").expect("write");
    moves(t, "closing", &[(&f, "")], || h);
    moves(t, "syncfs", &[(&f, "")], || rustix::fs::syncfs(fs::File::open(&d).expect("open")).expect("syncfs"));
}

fn attributes(t: &T) {
    let d = t.dir();
    for (what, path) in one_of_each(&d) {
        let p = path.as_path();
        let c: &[(&Path, &str)] = &[(p, "c"), (&d, "")];
        if what != "symlink" {
            moves(t, &format!("chmod of a {what}"), c, || chmod(p, 0o600).expect("chmod"));
        }
        moves(t, &format!("chown of a {what}"), c, || chown(p, Some(1), Some(1)).expect("chown"));
        moves(t, &format!("link to a {what}"), &[(p, if what == "directory" { "" } else { "c" })], || {
            let _ = rustix::fs::linkat(CWD, p, CWD, d.join(format!("{what}-l")), AtFlags::empty());
        });
        moves(t, &format!("utimensat of a {what}"), &[(p, "amc"), (&d, "")], || {
            let far = rustix::fs::Timespec { tv_sec: 4_000_000_000, tv_nsec: 0 };
            let at = rustix::fs::Timestamps { last_access: far, last_modification: far };
            rustix::fs::utimensat(CWD, p, &at, AtFlags::SYMLINK_NOFOLLOW).expect("utimensat");
        });
    }
    let f = d.join("regular");
    let c: &[(&Path, &str)] = &[(&f, "c"), (&d, "")];
    moves(t, "setxattr", c, || rustix::fs::setxattr(&f, "user.x", b"1", XattrFlags::empty()).expect("setxattr"));
    moves(t, "replacing an attribute", c, || {
        rustix::fs::setxattr(&f, "user.x", b"2", XattrFlags::empty()).expect("setxattr")
    });
    moves(t, "getxattr", &[(&f, "")], || rustix::fs::getxattr(&f, "user.x", &mut [0u8; 9][..]).expect("getxattr"));
    moves(t, "removexattr", c, || rustix::fs::removexattr(&f, "user.x").expect("removexattr"));
    moves(t, "a failing chmod", &[(&f, "")], || as_user(USER, USER, || chmod(&f, 0o777)).err());
    moves(t, "a failing chown", &[(&f, "")], || as_user(USER, USER, || chown(&f, Some(USER), None)).err());
}

fn names(t: &T) {
    let d = t.dir();
    let e = t.dir();
    let mc: &[(&Path, &str)] = &[(&d, "mc")];
    let at = |name: &str| d.join(name);
    moves(t, "create", mc, || create(&at("f"), 0o644).expect("create"));
    moves(t, "mkdir", mc, || mkdir(&at("sub"), 0o755).expect("mkdir"));
    moves(t, "symlink", mc, || rustix::fs::symlink("f", at("l")).expect("symlink"));
    moves(t, "mknod", mc, || mknod(&at("p"), rustix::fs::FileType::Fifo, 0o644, 0).expect("mknod"));
    let f = at("f");
    moves(t, "link", &[(&d, "mc"), (&f, "c")], || rustix::fs::link(&f, at("f2")).expect("link"));
    moves(t, "unlink of one of two names", &[(&d, "mc"), (&f, "c")], || rustix::fs::unlink(at("f2")).expect("unlink"));
    moves(t, "rename", &[(&d, "mc"), (&e, "mc")], || rustix::fs::rename(&f, e.join("f")).expect("rename"));
    let before = times(&e.join("f"));
    std::thread::sleep(Duration::from_millis(11));
    rustix::fs::rename(e.join("f"), &f).expect("rename");
    t.eq("the moved inode", moved(&before, &times(&f)).as_str(), "c");
    let sub = at("sub");
    moves(t, "exchange", &[(&d, "mc"), (&f, "c"), (&at("l"), "c")], || {
        // The paths swap inodes, both get a new ctime, and their other times come along: swap twice.
        for _ in 0..2 {
            rustix::fs::renameat_with(CWD, &f, CWD, at("l"), RenameFlags::EXCHANGE).expect("exchange");
        }
    });
    moves(t, "rename onto itself", &[(&d, ""), (&f, "")], || rustix::fs::rename(&f, &f).expect("rename"));
    moves(t, "a failing unlink", &[(&d, "")], || rustix::fs::unlink(&sub).err());
    moves(t, "a failing mkdir", &[(&d, ""), (&sub, "")], || mkdir(&sub, 0o755).err());
    moves(t, "a failing rename", &[(&d, ""), (&sub, "")], || rustix::fs::rename(&f, &sub).err());
    moves(t, "mkdir below", &[(&d, ""), (&sub, "mc")], || mkdir(&sub.join("x"), 0o755).expect("mkdir"));
    moves(t, "rmdir below", &[(&d, ""), (&sub, "mc")], || rustix::fs::rmdir(sub.join("x")).expect("rmdir"));
    moves(t, "rmdir", mc, || rustix::fs::rmdir(&sub).expect("rmdir"));
    let h = fs::File::open(&f).expect("open");
    let ctime = |h: &fs::File| rustix::fs::fstat(h).map(|s| (s.st_ctime, s.st_ctime_nsec)).expect("fstat");
    let before = ctime(&h);
    moves(t, "unlink", mc, || rustix::fs::unlink(&f).expect("unlink"));
    t.yes("unlink moves the inode's ctime", ctime(&h) > before);
    for path in [at("n1"), at("n2"), at("n3")] {
        match path.file_name().and_then(|n| n.to_str()) {
            Some("n1") => drop(create(&path, 0o644).expect("create")),
            Some("n2") => mkdir(&path, 0o755).expect("mkdir"),
            _ => rustix::fs::symlink("x", &path).expect("symlink"),
        }
        let [a, m, c] = times(&path);
        t.yes("a new inode's times are one", a == m && m == c);
        t.yes("and its parent's", times(&d)[1] >= m);
    }
}

/// relatime: a read moves atime when it is not later than mtime.
fn reading(t: &T) {
    let d = t.dir();
    let f = d.join("f");
    fs::write(&f, b"text").expect("write");
    let read = |p: &Path| {
        let mut buf = Vec::new();
        fs::File::open(p).and_then(|mut f| f.read_to_end(&mut buf)).expect("read");
    };
    moves(t, "the first read", &[(&f, "a"), (&d, "")], || read(&f));
    moves(t, "the second read", &[(&f, "")], || read(&f));
    moves(t, "O_NOATIME", &[(&f, "mc")], || {
        fs::File::options().append(true).open(&f).and_then(|mut f| f.write_all(b"!")).expect("append");
        open(&f, OFlags::RDONLY | OFlags::NOATIME, 0).and_then(|mut f| std_result(f.read(&mut [0; 4]))).expect("read");
    });
    rustix::fs::symlink("f", d.join("l")).expect("symlink");
    let l = d.join("l");
    moves(t, "readlink", &[(&l, "a")], || fs::read_link(&l).expect("readlink"));
    moves(t, "readdir", &[(&d, "a")], || fs::read_dir(&d).expect("readdir").count());
    moves(t, "stat", &[(&d, ""), (&f, "")], || fs::metadata(&f).expect("stat"));
}
