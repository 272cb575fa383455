//! chmod, chown, truncate, utimensat, statfs.

use crate::harness::*;
use rustix::fs::{AtFlags, CWD, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, utimensat};
use rustix::io::Errno;
use std::fs;
use std::io::Write;
use std::path::Path;

pub fn run(t: &T) {
    modes(t);
    owners(t);
    privileges_go(t);
    inheritance(t);
    truncation(t);
    explicit_times(t);
    space(t);
}

fn modes(t: &T) {
    let d = t.dir();
    for (what, path) in one_of_each(&d) {
        if what == "symlink" {
            t.err("chmod through a dangling link", chmod(&path, 0o600), Errno::NOENT);
            continue;
        }
        let kind_before = kind(&path);
        for mode in [0o000, 0o777, 0o4711, 0o2755, 0o1777, 0o7777, 0o640] {
            t.ok(&format!("chmod {mode:o} of a {what}"), chmod(&path, mode));
            t.eq("mode", perm(&path), mode);
        }
        t.eq("kind stays", kind(&path), kind_before);
    }
    t.err("chmod of nothing", chmod(&d.join("no"), 0o600), Errno::NOENT);
    t.err("chmod below a file", chmod(&d.join("regular/x"), 0o600), Errno::NOTDIR);
    let f = fs::File::open(d.join("regular")).expect("open");
    t.ok("fchmod", rustix::fs::fchmod(&f, rustix::fs::Mode::from_raw_mode(0o751)));
    t.eq("mode", perm(&d.join("regular")), 0o751);
    rustix::fs::symlink("regular", d.join("l")).expect("symlink");
    t.ok("chmod through a link", chmod(&d.join("l"), 0o604));
    t.eq("mode of the target", perm(&d.join("regular")), 0o604);
}

fn owners(t: &T) {
    let d = t.dir();
    for (what, path) in one_of_each(&d) {
        t.ok(&format!("chown of a {what}"), chown(&path, Some(123), Some(456)));
        t.eq("owner", owner(&path), (123, 456));
        t.ok("only the user", chown(&path, Some(124), None));
        t.eq("owner", owner(&path), (124, 456));
        t.ok("only the group", chown(&path, None, Some(457)));
        t.eq("owner", owner(&path), (124, 457));
        t.ok("neither", chown(&path, None, None));
        t.eq("owner", owner(&path), (124, 457));
        t.ok("large ids", chown(&path, Some(0xffff_fffe), Some(0x8000_0000)));
        t.eq("owner", owner(&path), (0xffff_fffe, 0x8000_0000));
    }
    t.err("chown of nothing", chown(&d.join("no"), Some(1), None), Errno::NOENT);
}

/// When setuid and setgid go.
fn privileges_go(t: &T) {
    let d = t.dir_with(0o777);
    let at = |name: &str, mode: u32| {
        let path = d.join(name);
        fs::write(&path, b"0123456789").expect("write");
        chown(&path, Some(USER), Some(USER)).expect("chown");
        chmod(&path, mode).expect("chmod");
        path
    };
    let f = at("chown", 0o6755);
    chown(&f, Some(OTHER), Some(OTHER)).expect("chown");
    t.eq("chown by root", perm(&f), 0o755);
    let f = at("chown-user", 0o6755);
    as_user(USER, USER, || chown(&f, None, Some(USER))).expect("chown");
    t.eq("chown by the owner", perm(&f), 0o755);
    let f = at("locking", 0o2745);
    chown(&f, Some(OTHER), None).expect("chown");
    t.eq("chown by root keeps setgid without group execution", perm(&f), 0o2745);
    let sub = d.join("dir");
    mkdir(&sub, 0o755).expect("mkdir");
    chmod(&sub, 0o6755).expect("chmod");
    chown(&sub, Some(OTHER), Some(OTHER)).expect("chown");
    t.eq("chown of a directory", perm(&sub), 0o6755);
    for (n, (mode, want)) in
        [(0o6777, 0o777), (0o4777, 0o777), (0o2777, 0o777), (0o1777, 0o1777)].into_iter().enumerate()
    {
        let f = at(&format!("write{n}"), mode);
        as_user(USER, USER, || fs::File::options().write(true).open(&f).and_then(|mut f| f.write_all(b"x")))
            .expect("write");
        t.eq("write by the owner", perm(&f), want);
        let f = at(&format!("other{n}"), mode);
        as_user(OTHER, OTHER, || fs::File::options().write(true).open(&f).and_then(|mut f| f.write_all(b"x")))
            .expect("write");
        t.eq("write by another", perm(&f), want);
        let f = at(&format!("truncate{n}"), mode);
        as_user(USER, USER, || fs::File::options().write(true).open(&f).and_then(|f| f.set_len(2))).expect("ftruncate");
        t.eq("ftruncate", perm(&f), want);
        let f = at(&format!("open{n}"), mode);
        as_user(USER, USER, || open(&f, OFlags::WRONLY | OFlags::TRUNC, 0)).expect("open");
        t.eq("O_TRUNC", perm(&f), want);
        let f = at(&format!("direct{n}"), mode);
        let block = [0u8; 4096];
        as_user(USER, USER, || {
            let mut f = open(&f, OFlags::WRONLY | OFlags::SYNC, 0)?;
            f.write_all(&block).map_err(|e| errno(&e))
        })
        .expect("write");
        t.eq("O_SYNC write", perm(&f), want);
        let f = at(&format!("allocate{n}"), mode);
        as_user(USER, USER, || {
            let f = open(&f, OFlags::WRONLY, 0)?;
            rustix::fs::fallocate(&f, rustix::fs::FallocateFlags::empty(), 0, 100)
        })
        .expect("fallocate");
        t.eq("fallocate", perm(&f), want);
        let f = at(&format!("root{n}"), mode);
        fs::File::options().write(true).open(&f).and_then(|mut f| f.write_all(b"x")).expect("write");
        t.eq("write by root", perm(&f), mode);
    }
    let f = at("group", 0o755);
    chown(&f, Some(USER), Some(OTHER)).expect("chown");
    as_user(USER, USER, || chmod(&f, 0o2755)).expect("chmod");
    t.eq("setgid of a group one is not in", perm(&f), 0o755);
}

/// What a setgid directory gives its children.
fn inheritance(t: &T) {
    let d = t.dir();
    chown(&d, Some(0), Some(777)).expect("chown");
    chmod(&d, 0o2777).expect("chmod");
    let (f, sub, l, fifo) = (d.join("f"), d.join("d"), d.join("l"), d.join("fifo"));
    create(&f, 0o2755).expect("create");
    t.eq("group of a file", (owner(&f), perm(&f)), ((0, 777), 0o2755));
    mkdir(&sub, 0o755).expect("mkdir");
    t.eq("group of a directory", (owner(&sub), perm(&sub)), ((0, 777), 0o2755));
    rustix::fs::symlink("x", &l).expect("symlink");
    t.eq("group of a link", owner(&l), (0, 777));
    mknod(&fifo, rustix::fs::FileType::Fifo, 0o644, 0).expect("mknod");
    t.eq("group of a fifo", (owner(&fifo), perm(&fifo)), ((0, 777), 0o644));
    let g = d.join("g");
    as_user(USER, USER, || create(&g, 0o2755).map(|_| ())).expect("create");
    t.eq("setgid of a group the maker is not in", (owner(&g), perm(&g)), ((USER, 777), 0o755));
    let plain = t.dir_with(0o777);
    let h = plain.join("h");
    as_user(USER, OTHER, || create(&h, 0o644).map(|_| ())).expect("create");
    t.eq("otherwise the maker's group", owner(&h), (USER, OTHER));
}

fn truncate(path: &Path, len: u64) -> rustix::io::Result<()> {
    // truncate(2) opens nothing; the nearest safe call is nix's.
    nix::unistd::truncate(path, i64::try_from(len).expect("fits")).map_err(|e| Errno::from_raw_os_error(e as i32))
}

fn truncation(t: &T) {
    let d = t.dir();
    let f = d.join("f");
    fs::write(&f, vec![7u8; 10_000]).expect("write");
    for len in [5000, 12_345, 3, 0, 1 << 20, 4096, 1 << 40, 100] {
        t.ok("truncate", truncate(&f, len));
        t.eq("size", stat(&f).st_size as u64, len);
    }
    let bytes = fs::read(&f).expect("read");
    t.yes("kept what stayed, zeroes elsewhere", bytes.iter().all(|&b| b == 0) && bytes.len() == 100);
    fs::write(&f, vec![7u8; 100]).expect("write");
    truncate(&f, 50).expect("truncate");
    truncate(&f, 100).expect("truncate");
    let bytes = fs::read(&f).expect("read");
    t.yes("zeroes where it was cut", bytes[..50] == [7; 50] && bytes[50..] == [0; 50]);
    let handle = fs::File::options().write(true).open(&f).expect("open");
    t.ok("ftruncate", handle.set_len(10));
    t.eq("size", stat(&f).st_size, 10);
    t.err("of a directory", truncate(&d, 0), Errno::ISDIR);
    t.err("of nothing", truncate(&d.join("no"), 0), Errno::NOENT);
    t.err("below a file", truncate(&f.join("x"), 0), Errno::NOTDIR);
    t.err("ftruncate of a read-only handle", rustix::fs::ftruncate(fs::File::open(&f).expect("open"), 0), Errno::INVAL);
    // GFS2's largest file is the largest there is.
    t.ok("the largest size", truncate(&f, i64::MAX as u64));
    t.eq("is what stat says", stat(&f).st_size, i64::MAX);
    t.ok("and back", truncate(&f, 0));
}

const fn time(sec: i64, nsec: i64) -> Timespec {
    Timespec { tv_sec: sec, tv_nsec: nsec }
}

fn explicit_times(t: &T) {
    let d = t.dir();
    let set = |path: &Path, a, m| {
        utimensat(CWD, path, &Timestamps { last_access: a, last_modification: m }, AtFlags::SYMLINK_NOFOLLOW)
    };
    let get = |path: &Path| {
        let st = stat(path);
        ((st.st_atime, st.st_atime_nsec as i64), (st.st_mtime, st.st_mtime_nsec as i64))
    };
    for (what, path) in one_of_each(&d) {
        t.ok(&format!("utimensat of a {what}"), set(&path, time(1_000_000_000, 123_456_789), time(1_100_000_000, 1)));
        t.eq("times", get(&path), ((1_000_000_000, 123_456_789), (1_100_000_000, 1)));
        t.ok("omit atime", set(&path, time(0, UTIME_OMIT), time(5, 6)));
        t.eq("times", get(&path), ((1_000_000_000, 123_456_789), (5, 6)));
        t.ok("omit mtime", set(&path, time(7, 8), time(0, UTIME_OMIT)));
        t.eq("times", get(&path), ((7, 8), (5, 6)));
        t.ok("now and then", set(&path, time(0, UTIME_NOW), time(5, 999_999_999)));
        t.yes("now", get(&path).0.0 > 1_600_000_000 && get(&path).1 == (5, 999_999_999));
        t.ok("now", set(&path, time(0, UTIME_NOW), time(0, UTIME_NOW)));
        t.yes("both now", get(&path).1.0 > 1_600_000_000);
        t.ok("before 1970", set(&path, time(-100, 250), time(-1, 999_999_999)));
        t.eq("times", get(&path), ((-100, 250), (-1, 999_999_999)));
        t.ok("after 2106", set(&path, time(1 << 33, 1), time((1 << 33) + 1, 2)));
        t.eq("times", get(&path), ((1 << 33, 1), ((1 << 33) + 1, 2)));
    }
    let f = d.join("regular");
    let mut handle = fs::File::options().append(true).open(&f).expect("open");
    handle.write_all(b"data").expect("write");
    set(&f, time(1, 1), time(2, 2)).expect("utimensat");
    drop(handle);
    t.eq("a close does not undo them", get(&f), ((1, 1), (2, 2)));
    rustix::fs::syncfs(fs::File::open(&d).expect("open")).expect("syncfs");
    t.eq("nor does write-back", get(&f), ((1, 1), (2, 2)));
    t.err("bad nanoseconds", set(&f, time(1, 1_000_000_000), time(1, 1)), Errno::INVAL);
    t.err("of nothing", set(&d.join("no"), time(1, 1), time(1, 1)), Errno::NOENT);
}

fn space(t: &T) {
    let d = t.dir();
    let before = rustix::fs::statfs(&d).expect("statfs");
    t.eq("block size", before.f_bsize, 4096);
    t.eq("longest name", before.f_namelen, 255);
    t.yes("blocks", before.f_blocks >= before.f_bfree && before.f_bfree >= before.f_bavail && before.f_bavail > 0);
    t.yes("inodes", before.f_files > before.f_ffree && before.f_ffree > 0);
    let f = d.join("f");
    fs::write(&f, vec![1u8; 4 << 20]).expect("write");
    fs::File::open(&f).and_then(|f| f.sync_all()).expect("fsync");
    let st = stat(&f);
    t.yes("st_blocks covers the data", st.st_blocks >= 8192 && st.st_blocks < 8400);
    let after = rustix::fs::statfs(&d).expect("statfs");
    let used = before.f_bfree - after.f_bfree;
    t.yes(&format!("1025 to 1050 blocks used: {used}"), (1025..1050).contains(&used));
    t.eq("st_blksize", st.st_blksize, 4096);
}
