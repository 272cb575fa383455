//! Long names, long paths, loops of links, paths through what is no directory.

use crate::harness::*;
use rustix::fs::{link, rename, rmdir, symlink, unlink};
use rustix::io::Errno;
use std::fs;
use std::path::{Path, PathBuf};

/// Every call that takes a path, with how it is called.
type Call = (&'static str, fn(&Path) -> rustix::io::Result<()>);

fn calls() -> Vec<Call> {
    vec![
        ("open", |p| open(p, rustix::fs::OFlags::RDONLY, 0).map(|_| ())),
        ("create", |p| create(p, 0o644).map(|_| ())),
        ("mkdir", |p| mkdir(p, 0o755)),
        ("rmdir", |p| rmdir(p)),
        ("unlink", |p| unlink(p)),
        ("symlink", |p| symlink("x", p)),
        ("mknod", |p| mknod(p, rustix::fs::FileType::Fifo, 0o644, 0)),
        ("chmod", |p| chmod(p, 0o644)),
        ("chown", |p| rustix::fs::chown(p, Some(rustix::process::Uid::from_raw(1)), None)),
        ("stat", |p| rustix::fs::stat(p).map(|_| ())),
        ("readlink", |p| rustix::fs::readlink(p, Vec::new()).map(|_| ())),
        ("rename from", |p| rename(p, p.with_extension("to"))),
        ("getxattr", |p| rustix::fs::getxattr(p, "user.x", &mut [0u8; 1][..]).map(|_| ())),
    ]
}

pub fn run(t: &T) {
    let d = t.dir();
    file(&d.join("f"), 0o644);
    symlink("loop2", d.join("loop1")).expect("symlink");
    symlink("loop1", d.join("loop2")).expect("symlink");
    symlink("self", d.join("self")).expect("symlink");
    let long = "n".repeat(255);
    let (fits, longer) = (d.join(&long), d.join(format!("{long}n")));
    for (what, call) in calls() {
        t.err(&format!("{what} below a file"), call(&d.join("f/x")), Errno::NOTDIR);
        t.err(&format!("{what} below nothing"), call(&d.join("no/x")), Errno::NOENT);
        t.err(&format!("{what} through a loop"), call(&d.join("loop1/x")), Errno::LOOP);
        t.err(&format!("{what} through a link to itself"), call(&d.join("self/x")), Errno::LOOP);
        t.err(&format!("{what} with 256 bytes"), call(&longer), Errno::NAMETOOLONG);
        t.err(&format!("{what} with a path of 4096 bytes"), call(&path_of(&d, 4096)), Errno::NAMETOOLONG);
    }
    t.ok("create 255", create(&fits, 0o644));
    t.ok("stat 255", rustix::fs::stat(&fits));
    t.ok("rename to 255", rename(&fits, d.join("m".repeat(255))));
    t.err("rename to 256", rename(d.join("f"), &longer), Errno::NAMETOOLONG);
    t.err("link to 256", link(d.join("f"), &longer), Errno::NAMETOOLONG);
    t.ok("unlink 255", unlink(d.join("m".repeat(255))));
    t.ok("mkdir 255", mkdir(&fits, 0o755));
    t.ok("rmdir 255", rmdir(&fits));
    deep(t, &d);
    link_lengths(t, &d);
    strange_names(t);
}

/// `d/././.` with so many bytes.
fn path_of(d: &Path, len: usize) -> PathBuf {
    let mut text = d.to_str().expect("plain").to_owned();
    while text.len() + 2 < len {
        text.push_str("/.");
    }
    while text.len() < len {
        text.push('/');
    }
    PathBuf::from(text)
}

fn deep(t: &T, d: &Path) {
    t.ok("stat with a path of 4095 bytes", rustix::fs::stat(path_of(d, 4095)));
    let mut at = d.to_owned();
    for n in 0..100 {
        at.push(format!("deep{n}"));
        mkdir(&at, 0o755).expect("mkdir");
    }
    t.ok("a file 100 levels down", fs::write(at.join("f"), b"x"));
    t.ok("removing all of it", fs::remove_dir_all(d.join("deep0")));
    // 40 links in a row are the kernel's limit.
    symlink("f", d.join("c0")).expect("symlink");
    for n in 1..=40 {
        symlink(format!("c{}", n - 1), d.join(format!("c{n}"))).expect("symlink");
    }
    t.ok("40 links", rustix::fs::stat(d.join("c39")));
    t.err("41 links", rustix::fs::stat(d.join("c40")), Errno::LOOP);
}

/// A GFS2 link lives inside its dinode: 4096 - 232 bytes with the NUL.
fn link_lengths(t: &T, d: &Path) {
    for len in [1, 59, 60, 1000, 3863] {
        let target = "t".repeat(len);
        let l = d.join(format!("l{len}"));
        t.ok(&format!("a link of {len} bytes"), symlink(&target, &l));
        t.eq("reads back", rustix::fs::readlink(&l, Vec::new()).map(|c| c.into_bytes()), Ok(target.into_bytes()));
    }
    t.err("a link of 3864 bytes", symlink("t".repeat(3864), d.join("toolong")), Errno::NAMETOOLONG);
    t.err("a link of 4096 bytes", symlink("t".repeat(4096), d.join("toolong")), Errno::NAMETOOLONG);
}

fn strange_names(t: &T) {
    use std::os::unix::ffi::OsStrExt;
    let d = t.dir();
    let names: [&[u8]; 8] = [b" ", b"\n", b"\xff\xfe", b"...", b"-rf", b"a\\b", b"\x01", "\u{e4}\u{1f600}".as_bytes()];
    for name in names {
        t.ok("a strange name", create(&d.join(std::ffi::OsStr::from_bytes(name)), 0o644));
    }
    let mut listed: Vec<Vec<u8>> =
        fs::read_dir(&d).expect("readdir").map(|e| e.expect("entry").file_name().as_bytes().to_vec()).collect();
    let mut wanted: Vec<Vec<u8>> = names.iter().map(|n| n.to_vec()).collect();
    listed.sort();
    wanted.sort();
    t.eq("are all listed", listed, wanted);
    t.ok("and removed", fs::remove_dir_all(&d));
}
