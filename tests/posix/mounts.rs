//! Mounting: read-only, remounting, the ways a daemon ends, and what is refused.

use crate::harness::*;
use rustix::io::Errno;
use rustix::process::Signal;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

pub fn run(t: &T) {
    refused(t);
    read_only(t);
    remounting(t);
    what_lasts(t);
    access_times(t);
    terminated(t);
    killed(t);
    killed_after_sync(t);
    in_use(t);
    again(t);
}

/// Refusals are one line that names what is wrong.
fn refused(t: &T) {
    let m = Mounted::unmounted("128M");
    let one_line = |said: &Said, words: &str| {
        t.yes("is refused", !said.ok);
        t.eq(&format!("in one line: {:?}", said.text), said.text.trim_end().lines().count(), 1);
        t.yes(&format!("which says '{words}': {:?}", said.text), said.text.contains(words));
    };
    one_line(&m.mount("nonsense=3"), "nonsense=3");
    let other = m.image().with_file_name("other");
    let (dir, image) = (m.dir(), m.image());
    one_line(&m.run("mount.gfs2r", &[other.as_ref(), dir.as_ref()]), "No such file");
    fs::write(&other, vec![0; 1 << 20]).expect("write");
    one_line(&m.run("mount.gfs2r", &[other.as_ref(), dir.as_ref()]), "GFS2");
    fs::write(&other, b"").expect("write");
    one_line(&m.run("mount.gfs2r", &[other.as_ref(), dir.as_ref()]), "other");
    one_line(&m.run("mount.gfs2r", &[image.as_ref(), other.as_ref()]), "not a directory");
    one_line(&m.run("mount.gfs2r", &[dir.as_ref(), dir.as_ref()]), "neither a block device nor an image");
    one_line(&m.umount(), "not mounted");
    t.yes("mounts", m.mount("acl").ok);
    let second = dir.with_file_name("second");
    fs::create_dir(&second).expect("mkdir");
    one_line(&m.run("mount.gfs2r", &[image.as_ref(), second.as_ref()]), "already mounted");
    t.ok("the first still works", fs::write(dir.join("f"), b"x"));
    m.finish(t);
}

fn read_only(t: &T) {
    let m = Mounted::new("128M", "acl");
    let d = m.dir();
    fs::write(d.join("f"), b"contents").expect("write");
    mkdir(&d.join("sub"), 0o755).expect("mkdir");
    t.yes("unmounts", m.umount().ok);
    let said = m.mount("ro");
    t.yes(&format!("mounts ro: {}", said.text), said.ok);
    all_refused(t, &m);
    t.eq("reads", fs::read(d.join("f")).ok(), Some(b"contents".to_vec()));
    t.eq("lists", fs::read_dir(&d).expect("readdir").count(), 2);
    m.finish(t);
}

fn all_refused(t: &T, m: &Mounted) {
    let d = m.dir();
    let f = d.join("f");
    for (what, r) in [
        ("create", create(&d.join("n"), 0o644).map(|_| ())),
        ("open for writing", open(&f, rustix::fs::OFlags::WRONLY, 0).map(|_| ())),
        ("O_TRUNC", open(&f, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::TRUNC, 0).map(|_| ())),
        ("mkdir", mkdir(&d.join("n"), 0o755)),
        ("rmdir", rustix::fs::rmdir(d.join("sub"))),
        ("unlink", rustix::fs::unlink(&f)),
        ("link", rustix::fs::link(&f, d.join("n"))),
        ("symlink", rustix::fs::symlink("x", d.join("n"))),
        ("mknod", mknod(&d.join("n"), rustix::fs::FileType::Fifo, 0o644, 0)),
        ("rename", rustix::fs::rename(&f, d.join("n"))),
        ("chmod", chmod(&f, 0o600)),
        ("chown", chown(&f, Some(1), Some(1))),
        ("setxattr", rustix::fs::setxattr(&f, "user.x", b"1", rustix::fs::XattrFlags::empty())),
        ("utimensat", std_result(fs::File::open(&f).and_then(|h| h.set_modified(std::time::SystemTime::UNIX_EPOCH)))),
    ] {
        t.err(&format!("{what} on a read-only mount"), r, Errno::ROFS);
    }
}

fn remounting(t: &T) {
    let m = Mounted::new("128M", "acl");
    let d = m.dir();
    fs::write(d.join("f"), b"1").expect("write");
    mkdir(&d.join("sub"), 0o755).expect("mkdir");
    let writer = open(&d.join("f"), rustix::fs::OFlags::WRONLY, 0).expect("open");
    t.yes("remount,ro with a writer is refused", !m.mount("remount,ro").ok);
    drop(writer);
    let said = m.mount("remount,ro");
    t.yes(&format!("remount,ro: {}", said.text), said.ok);
    all_refused(t, &m);
    t.ok("and the volume is clean meanwhile", m.fsck());
    // mount(8) adds what /proc/mounts shows.
    let said = m.mount("rw,relatime,user_id=0,group_id=0,default_permissions,allow_other,max_read=1048576,remount");
    t.yes(&format!("remount,rw: {}", said.text), said.ok);
    t.ok("a write", fs::write(d.join("f"), b"22"));
    t.ok("a new file", fs::write(d.join("g"), b"new"));
    m.finish(t);
}

/// Attributes as they were before the unmount.
fn what_lasts(t: &T) {
    let m = Mounted::new("128M", "acl");
    let d = m.dir();
    for (n, sec) in [-1i64, -315_593_940, -10_000_000_000, 0, 1 << 31, 1 << 32, 1 << 36].into_iter().enumerate() {
        let at = rustix::fs::Timespec { tv_sec: sec, tv_nsec: 999_999_999 };
        let both = rustix::fs::Timestamps { last_access: at, last_modification: at };
        let f = create(&d.join(format!("t{n}")), 0o644).expect("create");
        t.ok(&format!("futimens {sec}"), rustix::fs::futimens(&f, &both));
    }
    // Written in the clock tick in which it was made: the kernel sees no change of times, and its pages come to us later.
    let mut late = create(&d.join("late"), 0o644).expect("create");
    late.write_all(&[1; 9000]).expect("write");
    let facts = |name: &str| {
        let st = stat(&d.join(name));
        let times = [(st.st_atime, st.st_atime_nsec), (st.st_mtime, st.st_mtime_nsec), (st.st_ctime, st.st_ctime_nsec)];
        (st.st_ino, st.st_mode, st.st_size, st.st_blocks, times)
    };
    std::thread::sleep(std::time::Duration::from_millis(30));
    drop(late);
    fs::write(d.join("read"), b"x").expect("write");
    fs::read(d.join("read")).expect("read");
    let names: Vec<String> = (0..7).map(|n| format!("t{n}")).chain(["late".into(), "read".into()]).collect();
    let before: Vec<_> = names.iter().map(|n| facts(n)).collect();
    t.yes("unmounts", m.umount().ok);
    t.yes("mounts", m.mount("acl").ok);
    for (name, before) in names.iter().zip(before) {
        t.eq(&format!("facts of {name}"), facts(name), before);
    }
    m.finish(t);
}

/// Which of four readings move the access time: a file first and again, a directory first and again.
fn access_times(t: &T) {
    let m = Mounted::unmounted("128M");
    for (options, wanted) in [
        ("relatime", [true, false, true, false]),
        ("strictatime", [true; 4]),
        ("noatime", [false; 4]),
        ("strictatime,nodiratime", [true, true, false, false]),
        ("relatime,nodiratime", [true, false, false, false]),
    ] {
        t.yes("mounts", m.mount(options).ok);
        let (f, e) = (m.dir().join("f"), m.dir().join("e"));
        fs::write(&f, options).expect("write");
        fs::create_dir_all(e.join(options)).expect("mkdir");
        let moved = |path: &std::path::Path, read: &dyn Fn()| {
            let before = (stat(path).st_atime, stat(path).st_atime_nsec);
            std::thread::sleep(std::time::Duration::from_millis(11));
            read();
            (stat(path).st_atime, stat(path).st_atime_nsec) > before
        };
        let file = || drop(fs::read(&f).expect("read"));
        let dir = || fs::read_dir(&e).expect("readdir").for_each(drop);
        let is = [moved(&f, &file), moved(&f, &file), moved(&e, &dir), moved(&e, &dir)];
        t.eq(&format!("access times with {options}"), is, wanted);
        t.yes("unmounts", m.umount().ok);
    }
}

/// SIGTERM is a clean unmount.
fn terminated(t: &T) {
    let m = Mounted::new("128M", "acl");
    fs::write(m.dir().join("f"), vec![3; 1 << 20]).expect("write");
    m.signal(Signal::TERM);
    t.yes("is unmounted", !m.is_mounted());
    t.ok("and clean", m.fsck());
    t.yes("mounts", m.mount("acl").ok);
    t.yes("nothing was lost", fs::read(m.dir().join("f")).expect("read") == vec![3; 1 << 20]);
    let mut busy = create(&m.dir().join("busy"), 0o644).expect("create");
    busy.write_all(b"written").expect("write");
    m.signal(Signal::TERM);
    t.yes("also when in use", !m.is_mounted());
    t.yes("whose handle is dead", busy.write_all(b"more").and_then(|()| busy.sync_all()).is_err());
    drop(busy);
    t.ok("clean", m.fsck());
    t.yes("mounts", m.mount("acl").ok);
    t.eq("what was written is there", fs::read(m.dir().join("busy")).ok(), Some(b"written".to_vec()));
    m.finish(t);
}

/// syncfs(2), and so sync(2), waits until everything is on the disk; images too, as they are mounted like disks.
fn killed_after_sync(t: &T) {
    let m = Mounted::new("128M", "acl");
    let d = m.dir();
    mkdir(&d.join("sub"), 0o750).expect("mkdir");
    fs::write(d.join("sub/f"), vec![7; 100_000]).expect("write");
    rustix::fs::link(d.join("sub/f"), d.join("g")).expect("link");
    t.ok("syncfs", fs::File::open(&d).and_then(|h| rustix::fs::syncfs(h).map_err(Into::into)));
    m.signal(Signal::KILL);
    m.detach();
    t.yes("mounts again", m.mount("acl").ok);
    if m.is_like_a_disk() {
        t.yes("nothing was lost", fs::read(d.join("g")).is_ok_and(|c| c == vec![7; 100_000]));
        t.eq("mode of the folder", fs::metadata(d.join("sub")).map(|a| a.mode() & 0o7777).ok(), Some(0o750));
    } else {
        println!("SKIPPED: no loop device is to be had, so sync(2) cannot wait for the disk");
    }
    m.finish(t);
}

/// After SIGKILL what came before an fsync is there, and the journal is replayed.
fn killed(t: &T) {
    let m = Mounted::new("128M", "acl");
    let d = m.dir();
    for n in 0..50 {
        fs::write(d.join(format!("f{n}")), format!("contents {n}")).expect("write");
    }
    let open_file = create(&d.join("unlinked"), 0o644).expect("create");
    rustix::fs::unlink(d.join("unlinked")).expect("unlink");
    // An fsync makes durable what came before it.
    open_file.sync_all().expect("fsync");
    fs::write(d.join("later"), b"perhaps").expect("write");
    m.signal(Signal::KILL);
    drop(open_file);
    m.detach();
    let said = m.mount("acl");
    t.yes(&format!("mounts again: {}", said.text), said.ok);
    let whole =
        (0..50).all(|n| fs::read(d.join(format!("f{n}"))).is_ok_and(|c| c == format!("contents {n}").into_bytes()));
    t.yes("what was synced is there", whole);
    t.err("what was unlinked is not", rustix::fs::lstat(d.join("unlinked")), Errno::NOENT);
    m.finish(t);
}

fn in_use(t: &T) {
    let m = Mounted::new("128M", "acl");
    let inside = fs::File::open(m.dir()).expect("open");
    let said = m.umount();
    t.yes(&format!("umount of a busy mount is refused: {}", said.text), !said.ok && said.text.contains("in use"));
    drop(inside);
    m.finish(t);
}

/// When umount.gfs2r returns, the daemon holds the image no more.
fn again(t: &T) {
    let m = Mounted::new("128M", "acl");
    for n in 0..12 {
        fs::write(m.dir().join("f"), vec![n; 1 << 16]).expect("write");
        t.yes("unmounts", m.umount().ok);
        let said = m.mount("acl");
        t.yes(&format!("mounts at once, time {n}: {}", said.text), said.ok);
    }
    m.finish(t);
}
