//! chattr(1): immutable, append-only, and the others.

use crate::harness::*;
use rustix::fs::{AtFlags, CWD, IFlags, OFlags, ioctl_getflags, ioctl_setflags, link, rename, rmdir, unlink};
use rustix::io::Errno;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

fn set(path: &Path, flags: IFlags) -> rustix::io::Result<()> {
    ioctl_setflags(fs::File::open(path).expect("open"), flags)
}

fn get(path: &Path) -> IFlags {
    ioctl_getflags(fs::File::open(path).expect("open")).expect("getflags")
}

/// Takes the flags away again, so that the test folder can be removed.
struct Unset(Vec<PathBuf>);

impl Drop for Unset {
    fn drop(&mut self) {
        for path in &self.0 {
            if let Ok(f) = fs::File::open(path) {
                // What remains is removed with the image.
                let _ = ioctl_setflags(f, IFlags::empty());
            }
        }
    }
}

pub fn run(t: &T) {
    all(t);
    immutable_file(t);
    append_only_file(t);
    directories(t);
}

fn all(t: &T) {
    let d = t.dir();
    let f = d.join("f");
    file(&f, 0o644);
    t.eq("at first", get(&f), IFlags::empty());
    for flag in [IFlags::SYNC, IFlags::NOATIME, IFlags::JOURNALING, IFlags::SYNC | IFlags::NOATIME] {
        t.ok(&format!("set {flag:?}"), set(&f, flag));
        t.eq("is set", get(&f), flag);
        t.ok("a write", fs::write(&f, b"contents"));
        t.eq("reads back", fs::read(&f).expect("read"), b"contents".to_vec());
    }
    t.ok("clear", set(&f, IFlags::empty()));
    t.eq("cleared", get(&f), IFlags::empty());
    t.err("a flag GFS2 lacks", set(&f, IFlags::NODUMP), Errno::OPNOTSUPP);
    t.err("by a stranger", as_user(USER, USER, || set(&f, IFlags::SYNC)), Errno::PERM);
    chown(&f, Some(USER), Some(USER)).expect("chown");
    t.ok("by the owner", as_user(USER, USER, || set(&f, IFlags::SYNC)));
    t.err("immutable by the owner", as_user(USER, USER, || set(&f, IFlags::IMMUTABLE)), Errno::PERM);
    t.err("append-only by the owner", as_user(USER, USER, || set(&f, IFlags::APPEND)), Errno::PERM);
    let sub = d.join("sub");
    mkdir(&sub, 0o755).expect("mkdir");
    t.ok("j on a directory", set(&sub, IFlags::JOURNALING));
    fs::write(sub.join("f"), b"x").expect("write");
    t.eq("is inherited", get(&sub.join("f")), IFlags::JOURNALING);
}

fn immutable_file(t: &T) {
    let d = t.dir();
    let f = d.join("f");
    fs::write(&f, b"fixed").expect("write");
    let _unset = Unset(vec![f.clone()]);
    t.ok("set", set(&f, IFlags::IMMUTABLE));
    t.eq("reads", fs::read(&f).ok(), Some(b"fixed".to_vec()));
    for (what, r) in [
        ("open for writing", open(&f, OFlags::WRONLY, 0).map(|_| ())),
        ("open for appending", open(&f, OFlags::WRONLY | OFlags::APPEND, 0).map(|_| ())),
        ("O_TRUNC", open(&f, OFlags::WRONLY | OFlags::TRUNC, 0).map(|_| ())),
        ("chmod", chmod(&f, 0o600)),
        ("chown", chown(&f, Some(1), Some(1))),
        ("chgrp", chown(&f, None, Some(1))),
        ("link", link(&f, d.join("g"))),
        ("unlink", unlink(&f)),
        ("rename", rename(&f, d.join("g"))),
        ("utimensat", touch(&f, 5)),
        ("touch", touch(&f, rustix::fs::UTIME_NOW)),
        ("setxattr", rustix::fs::setxattr(&f, "user.x", b"1", rustix::fs::XattrFlags::empty())),
        ("removexattr", rustix::fs::removexattr(&f, "user.x")),
        ("changing another flag", set(&f, IFlags::IMMUTABLE | IFlags::SYNC)),
    ] {
        t.err(&format!("{what} of an immutable file"), r, Errno::PERM);
    }
    fs::write(d.join("other"), b"o").expect("write");
    t.err("being replaced", rename(d.join("other"), &f), Errno::PERM);
    t.ok("unset", set(&f, IFlags::empty()));
    t.ok("unlink", unlink(&f));
}

fn touch(path: &Path, nsec: i64) -> rustix::io::Result<()> {
    let time = rustix::fs::Timespec { tv_sec: 5, tv_nsec: nsec };
    let both = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &both, AtFlags::empty())
}

fn append_only_file(t: &T) {
    let d = t.dir();
    let f = d.join("f");
    fs::write(&f, b"log").expect("write");
    let _unset = Unset(vec![f.clone()]);
    t.ok("set", set(&f, IFlags::APPEND));
    for (what, r) in [
        ("open for writing", open(&f, OFlags::WRONLY, 0).map(|_| ())),
        ("O_TRUNC", open(&f, OFlags::WRONLY | OFlags::TRUNC, 0).map(|_| ())),
        ("chmod", chmod(&f, 0o600)),
        ("chown", chown(&f, Some(1), Some(1))),
        ("link", link(&f, d.join("g"))),
        ("unlink", unlink(&f)),
        ("rename", rename(&f, d.join("g"))),
        ("utimensat", touch(&f, 5)),
        ("setxattr", rustix::fs::setxattr(&f, "user.x", b"1", rustix::fs::XattrFlags::empty())),
    ] {
        t.err(&format!("{what} of an append-only file"), r, Errno::PERM);
    }
    t.ok("touch", touch(&f, rustix::fs::UTIME_NOW));
    let mut log = open(&f, OFlags::WRONLY | OFlags::APPEND, 0).expect("open");
    t.ok("append", log.write_all(b"ged"));
    drop(log);
    t.eq("appended", fs::read(&f).ok(), Some(b"logged".to_vec()));
}

fn directories(t: &T) {
    let d = t.dir();
    let (i, a, out) = (d.join("i"), d.join("a"), d.join("out"));
    for p in [&i, &a, &out] {
        mkdir(p, 0o755).expect("mkdir");
        file(&p.join("f"), 0o644);
        mkdir(&p.join("d"), 0o755).expect("mkdir");
    }
    let _unset = Unset(vec![i.clone(), a.clone()]);
    t.ok("immutable directory", set(&i, IFlags::IMMUTABLE));
    t.ok("append-only directory", set(&a, IFlags::APPEND));
    for (what, r) in [
        ("create", create(&i.join("n"), 0o644).map(|_| ())),
        ("mkdir", mkdir(&i.join("n"), 0o755)),
        ("symlink", rustix::fs::symlink("x", i.join("n"))),
        ("link", link(out.join("f"), i.join("n"))),
        ("unlink", unlink(i.join("f"))),
        ("rmdir", rmdir(i.join("d"))),
        ("rename out", rename(i.join("f"), out.join("n"))),
        ("rename in", rename(out.join("f"), i.join("n"))),
        ("rename within", rename(i.join("f"), i.join("n"))),
        ("replacing", rename(out.join("f"), i.join("f"))),
    ] {
        t.err(&format!("{what} in an immutable directory"), r, Errno::PERM);
    }
    t.ok("a file in it is written", fs::write(i.join("f"), b"x"));
    for (what, r) in [
        ("unlink", unlink(a.join("f"))),
        ("rmdir", rmdir(a.join("d"))),
        ("rename out", rename(a.join("f"), out.join("n"))),
        ("replacing", rename(out.join("f"), a.join("f"))),
    ] {
        t.err(&format!("{what} in an append-only directory"), r, Errno::PERM);
    }
    t.ok("create in it", create(&a.join("n"), 0o644));
    t.ok("mkdir in it", mkdir(&a.join("m"), 0o755));
    t.ok("link into it", link(out.join("f"), a.join("l")));
    t.ok("rename into it", rename(out.join("f"), a.join("r")));
}
