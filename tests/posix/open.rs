//! open(2) and creat(2).

use crate::harness::*;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};

pub fn run(t: &T) {
    creation(t);
    flags(t);
    special(t);
    modes(t);
}

fn creation(t: &T) {
    let d = t.dir();
    let f = d.join("f");
    t.err("open without O_CREAT", open(&f, OFlags::RDONLY, 0), Errno::NOENT);
    t.ok("O_CREAT", open(&f, OFlags::CREATE | OFlags::RDONLY, 0o640));
    t.eq("mode", perm(&f), 0o640);
    t.eq("size", stat(&f).st_size, 0);
    t.err("O_EXCL on a file", create(&f, 0o644), Errno::EXIST);
    t.ok("O_CREAT of what exists", open(&f, OFlags::CREATE | OFlags::RDONLY, 0o777));
    t.eq("mode stays", perm(&f), 0o640);
    t.err("O_EXCL on a directory", create(&d, 0o644), Errno::EXIST);
    rustix::fs::symlink("target", d.join("dangling")).expect("symlink");
    t.err("O_EXCL on a dangling link", create(&d.join("dangling"), 0o644), Errno::EXIST);
    t.ok("O_CREAT through a dangling link", open(&d.join("dangling"), OFlags::CREATE | OFlags::WRONLY, 0o600));
    t.yes("makes the target", d.join("target").is_file());
    t.err("below a file", create(&f.join("x"), 0o644), Errno::NOTDIR);
    t.err("below nothing", create(&d.join("no/x"), 0o644), Errno::NOENT);
    t.err("with a slash at the end", open(&d.join("new/"), OFlags::CREATE | OFlags::WRONLY, 0o644), Errno::ISDIR);
    t.err("empty name", open(std::path::Path::new(""), OFlags::RDONLY, 0), Errno::NOENT);
    let gone = d.join("gone");
    mkdir(&gone, 0o755).expect("mkdir");
    let handle = fs::File::open(&gone).expect("open");
    rustix::fs::rmdir(&gone).expect("rmdir");
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    t.err(
        "in a removed directory",
        rustix::fs::openat(&handle, "x", OFlags::CREATE | OFlags::RDWR, mode),
        Errno::NOENT,
    );
}

fn flags(t: &T) {
    let d = t.dir();
    let f = d.join("f");
    fs::write(&f, b"hello").expect("write");
    t.ok("O_TRUNC", open(&f, OFlags::WRONLY | OFlags::TRUNC, 0));
    t.eq("truncated", stat(&f).st_size, 0);
    fs::write(&f, b"hello").expect("write");
    let mut a = open(&f, OFlags::RDWR | OFlags::APPEND, 0).expect("append");
    a.seek(SeekFrom::Start(1)).expect("seek");
    a.write_all(b"!").expect("write");
    let mut b = open(&f, OFlags::WRONLY | OFlags::APPEND, 0).expect("append");
    b.write_all(b"?").expect("write");
    a.write_all(b"!").expect("write");
    t.eq("O_APPEND", fs::read(&f).expect("read"), b"hello!?!".to_vec());
    rustix::fs::symlink("f", d.join("l")).expect("symlink");
    t.err("O_NOFOLLOW on a link", open(&d.join("l"), OFlags::RDONLY | OFlags::NOFOLLOW, 0), Errno::LOOP);
    t.ok("O_NOFOLLOW on a file", open(&f, OFlags::RDONLY | OFlags::NOFOLLOW, 0));
    t.ok("O_PATH | O_NOFOLLOW on a link", open(&d.join("l"), OFlags::PATH | OFlags::NOFOLLOW, 0));
    t.err("O_DIRECTORY on a file", open(&f, OFlags::RDONLY | OFlags::DIRECTORY, 0), Errno::NOTDIR);
    t.err("write to a directory", open(&d, OFlags::WRONLY, 0), Errno::ISDIR);
    t.err("O_TRUNC of a directory", open(&d, OFlags::RDONLY | OFlags::TRUNC, 0), Errno::ISDIR);
    t.err("O_CREAT of a directory", open(&d, OFlags::RDONLY | OFlags::CREATE, 0o644), Errno::ISDIR);
    t.err(
        "write on a read-only handle",
        std_result(fs::File::open(&f).expect("open").write(b"x").map(|_| ())),
        Errno::BADF,
    );
    let mut w = open(&f, OFlags::WRONLY, 0).expect("open");
    t.err("read on a write-only handle", std_result(w.read(&mut [0; 1]).map(|_| ())), Errno::BADF);
    for (what, flags) in [("O_SYNC", OFlags::SYNC), ("O_DSYNC", OFlags::DSYNC), ("O_NOATIME", OFlags::NOATIME)] {
        let mut s = open(&f, OFlags::RDWR | flags, 0).expect("open");
        t.ok(what, s.write_all(b"y"));
    }
    match open(&d, OFlags::TMPFILE | OFlags::RDWR, 0o600) {
        Ok(mut tmp) => {
            t.ok("write to an O_TMPFILE", tmp.write_all(b"secret"));
            t.eq("its link count", rustix::fs::fstat(&tmp).expect("fstat").st_nlink, 0);
        }
        Err(e) => t.eq("O_TMPFILE", e, Errno::OPNOTSUPP),
    }
    executing(t);
}

/// A file that is run cannot be written, one that is written cannot be run.
fn executing(t: &T) {
    let d = t.dir();
    let exe = d.join("sleep");
    fs::copy("/bin/sleep", &exe).expect("copy");
    chmod(&exe, 0o755).expect("chmod");
    let mut child = std::process::Command::new(&exe).arg("20").spawn().expect("it runs");
    t.err("write to a running program", open(&exe, OFlags::WRONLY, 0), Errno::TXTBSY);
    t.err(
        "truncate a running program",
        std_result(fs::File::options().write(true).truncate(true).open(&exe)),
        Errno::TXTBSY,
    );
    child.kill().expect("kill");
    child.wait().expect("wait");
    let _writer = open(&exe, OFlags::WRONLY, 0).expect("open");
    let run = std::process::Command::new(&exe).arg("0").status();
    t.err("run a file open for writing", std_result(run), Errno::TXTBSY);
}

fn special(t: &T) {
    let d = t.dir();
    for (what, path) in one_of_each(&d) {
        match what {
            "socket" => t.err("open a socket", open(&path, OFlags::RDONLY, 0), Errno::NXIO),
            "fifo" => {
                let flags = OFlags::WRONLY | OFlags::NONBLOCK;
                t.err("write to a fifo nobody reads", open(&path, flags, 0), Errno::NXIO);
                let mut reader = open(&path, OFlags::RDONLY | OFlags::NONBLOCK, 0).expect("reader");
                let mut writer = open(&path, flags, 0).expect("writer");
                writer.write_all(b"through").expect("write");
                let mut buf = [0; 7];
                t.ok("read from a fifo", reader.read_exact(&mut buf));
                t.eq("what came", &buf, b"through");
            }
            "symlink" => t.err("open a dangling link", open(&path, OFlags::RDONLY, 0), Errno::NOENT),
            _ => {}
        }
    }
    // /dev/null's numbers: a device node works, mount options permitting.
    let null = d.join("null");
    mknod(&null, rustix::fs::FileType::CharacterDevice, 0o666, rustix::fs::makedev(1, 3)).expect("mknod");
    t.ok("write to a null device", fs::write(&null, b"x"));
    t.eq("read from a null device", fs::read(&null).expect("read").len(), 0);
    t.ok("a listening socket", std::os::unix::net::UnixListener::bind(d.join("listening")));
    t.yes("is a socket", kind(&d.join("listening")).is_socket());
}

fn modes(t: &T) {
    let d = t.dir();
    for (n, (mask, mode, want)) in
        [(0o022, 0o666, 0o644), (0o077, 0o777, 0o700), (0, 0o777, 0o777), (0o777, 0o777, 0), (0o070, 0o4755, 0o4705)]
            .into_iter()
            .enumerate()
    {
        let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
        let (f, sub, node) = (d.join(format!("f{n}")), d.join(format!("d{n}")), d.join(format!("n{n}")));
        let made = create(&f, mode).is_ok() && mkdir(&sub, mode).is_ok();
        let made = made && mknod(&node, rustix::fs::FileType::Fifo, mode, 0).is_ok();
        rustix::process::umask(old);
        t.yes("made", made);
        t.eq("umask of open", perm(&f), want);
        t.eq("umask of mkdir", perm(&sub), want & 0o1777);
        t.eq("umask of mknod", perm(&node), want);
    }
    // A mode that forbids what the very call that made it may do.
    let mut f = create(&d.join("locked"), 0).expect("create");
    t.ok("write to a file made with mode 0", f.write_all(b"x"));
    t.ok("read it", f.seek(SeekFrom::Start(0)).and_then(|_| f.read_exact(&mut [0; 1])));
}
