//! EACCES and EPERM: what those who are not root may not do; sticky directories.

use crate::harness::*;
use rustix::fs::{AtFlags, CWD, OFlags, link, rename, rmdir, symlink, unlink};
use rustix::io::Errno;
use std::fs;
use std::path::Path;

pub fn run(t: &T) {
    files(t);
    directories(t);
    owners_only(t);
    sticky(t);
    times(t);
}

fn open_as(uid: u32, gid: u32, path: &Path, flags: OFlags) -> rustix::io::Result<()> {
    as_user(uid, gid, || open(path, flags, 0o644).map(|_| ()))
}

fn files(t: &T) {
    let d = t.dir();
    let f = d.join("f");
    file(&f, 0);
    chown(&f, Some(USER), Some(USER)).expect("chown");
    // (mode, who, may read, may write)
    let cases = [
        (0o000, (USER, USER), false, false),
        (0o400, (USER, USER), true, false),
        (0o200, (USER, USER), false, true),
        (0o600, (USER, USER), true, true),
        (0o066, (USER, USER), false, false),
        (0o600, (OTHER, USER), false, false),
        (0o040, (OTHER, USER), true, false),
        (0o020, (OTHER, USER), false, true),
        (0o606, (OTHER, USER), false, false),
        (0o660, (OTHER, OTHER), false, false),
        (0o004, (OTHER, OTHER), true, false),
        (0o002, (OTHER, OTHER), false, true),
        (0o000, (0, 0), true, true),
    ];
    for (mode, (uid, gid), read, write) in cases {
        chmod(&f, mode).expect("chmod");
        for (flags, may) in [
            (OFlags::RDONLY, read),
            (OFlags::WRONLY, write),
            (OFlags::RDWR, read && write),
            (OFlags::WRONLY | OFlags::TRUNC, write),
        ] {
            let what = format!("open {flags:?} of mode {mode:03o} as {uid}:{gid}");
            let r = open_as(uid, gid, &f, flags);
            if may { t.eq(&what, r, Ok(())) } else { t.err(&what, r, Errno::ACCESS) }
        }
        let may = |yes| if yes { Ok(()) } else { Err(Errno::ACCESS) };
        let access = |a| as_user(uid, gid, || rustix::fs::accessat(CWD, &f, a, AtFlags::EACCESS));
        t.eq("access for reading", access(rustix::fs::Access::READ_OK), may(read));
        t.eq("access for writing", access(rustix::fs::Access::WRITE_OK), may(write));
    }
    chmod(&f, 0o644).expect("chmod");
    t.err(
        "root runs nothing without x",
        rustix::fs::accessat(CWD, &f, rustix::fs::Access::EXEC_OK, AtFlags::EACCESS),
        Errno::ACCESS,
    );
}

fn directories(t: &T) {
    let d = t.dir_with(0o755);
    let f = d.join("f");
    fs::write(&f, b"x").expect("write");
    mkdir(&d.join("sub"), 0o755).expect("mkdir");
    let other = t.dir_with(0o777);
    let mine = other.join("mine");
    file(&mine, 0o644);
    chown(&mine, Some(USER), Some(USER)).expect("chown");
    // No write permission for the directory: no name comes or goes.
    let refused = |t: &T, why: &str| {
        let calls: [(&str, rustix::io::Result<()>); 9] = as_user(USER, USER, || {
            [
                ("create", create(&d.join("n"), 0o644).map(|_| ())),
                ("mkdir", mkdir(&d.join("n"), 0o755)),
                ("symlink", symlink("x", d.join("n"))),
                ("mkfifo", mknod(&d.join("n"), rustix::fs::FileType::Fifo, 0o644, 0)),
                ("link", link(&mine, d.join("n"))),
                ("unlink", unlink(&f)),
                ("rmdir", rmdir(d.join("sub"))),
                ("rename out", rename(&f, other.join("n"))),
                ("rename in", rename(&mine, d.join("n"))),
            ]
        });
        for (what, r) in calls {
            t.err(&format!("{what} in a directory {why}"), r, Errno::ACCESS);
        }
    };
    refused(t, "of others");
    // No search permission: nothing is found.
    chmod(&d, 0o666).expect("chmod");
    refused(t, "without x");
    t.err("stat without x", as_user(USER, USER, || rustix::fs::stat(&f)), Errno::ACCESS);
    t.eq("listing without x", as_user(USER, USER, || fs::read_dir(&d).map(|r| r.count()).ok()), Some(2));
    chmod(&d, 0o711).expect("chmod");
    t.err("listing without r", as_user(USER, USER, || std_result(fs::read_dir(&d))), Errno::ACCESS);
    t.ok("stat without r", as_user(USER, USER, || rustix::fs::stat(&f)));
    // A moved directory of somebody else: `..` changes, so it must be writable.
    let (from, to) = (t.dir_with(0o777), t.dir_with(0o777));
    mkdir(&from.join("roots"), 0o755).expect("mkdir");
    let moved = as_user(USER, USER, || rename(from.join("roots"), to.join("roots")));
    t.err("moving a directory one may not write", moved, Errno::ACCESS);
}

fn owners_only(t: &T) {
    let d = t.dir_with(0o777);
    for (what, path) in one_of_each(&d) {
        chown(&path, Some(USER), Some(USER)).expect("chown");
        let stranger = |f: &(dyn Fn() -> rustix::io::Result<()> + Sync)| as_user(OTHER, OTHER, f);
        let owner_may = |f: &(dyn Fn() -> rustix::io::Result<()> + Sync)| as_user(USER, USER, f);
        if what != "symlink" {
            t.err(&format!("chmod of another's {what}"), stranger(&|| chmod(&path, 0o777)), Errno::PERM);
            t.ok("by its owner", owner_may(&|| chmod(&path, 0o600)));
        }
        t.err("chown by a stranger", stranger(&|| chown(&path, Some(OTHER), None)), Errno::PERM);
        t.err("giving away", owner_may(&|| chown(&path, Some(OTHER), None)), Errno::PERM);
        t.err("to a group one is not in", owner_may(&|| chown(&path, None, Some(OTHER))), Errno::PERM);
        t.ok("to one's own group", owner_may(&|| chown(&path, None, Some(USER))));
        t.ok("to oneself", owner_may(&|| chown(&path, Some(USER), Some(USER))));
    }
    t.err(
        "device nodes",
        as_user(USER, USER, || {
            mknod(&d.join("dev"), rustix::fs::FileType::CharacterDevice, 0o644, rustix::fs::makedev(1, 3))
        }),
        Errno::PERM,
    );
    t.ok("fifos", as_user(USER, USER, || mknod(&d.join("p"), rustix::fs::FileType::Fifo, 0o644, 0)));
    t.eq("owner of what one makes", owner(&d.join("p")), (USER, USER));
}

fn sticky(t: &T) {
    // (owner of the directory, owner of the file, may USER remove it)
    for (dir_owner, file_owner, may) in
        [(0, 0, false), (0, USER, true), (USER, 0, true), (OTHER, OTHER, false), (OTHER, USER, true)]
    {
        let d = t.dir_with(0o1777);
        let plain = t.dir_with(0o777);
        chown(&d, Some(dir_owner), Some(dir_owner)).expect("chown");
        let fresh = |name: &str| {
            let path = d.join(name);
            file(&path, 0o666);
            chown(&path, Some(file_owner), Some(file_owner)).expect("chown");
            path
        };
        let check = |what: &str, r: rustix::io::Result<()>| {
            let what = format!("{what} in a sticky directory of {dir_owner}, file of {file_owner}");
            if may { t.eq(&what, r, Ok(())) } else { t.err_of(&what, r, &[Errno::PERM, Errno::ACCESS]) }
        };
        let (a, b, c, e) = (fresh("a"), fresh("b"), fresh("c"), d.join("e"));
        mkdir(&e, 0o777).expect("mkdir");
        chmod(&e, 0o777).expect("chmod");
        chown(&e, Some(file_owner), None).expect("chown");
        let mine = plain.join("mine");
        file(&mine, 0o666);
        chown(&mine, Some(USER), Some(USER)).expect("chown");
        check("unlink", as_user(USER, USER, || unlink(&a)));
        check("rename", as_user(USER, USER, || rename(&b, plain.join("b"))));
        check("replacing", as_user(USER, USER, || rename(&mine, &c)));
        check("rmdir", as_user(USER, USER, || rmdir(&e)));
    }
}

fn times(t: &T) {
    use rustix::fs::{Timespec, Timestamps, UTIME_NOW, utimensat};
    let d = t.dir_with(0o777);
    let f = d.join("f");
    file(&f, 0o644);
    chown(&f, Some(USER), Some(USER)).expect("chown");
    let set = |uid: u32, nsec| {
        let time = Timespec { tv_sec: 1, tv_nsec: nsec };
        let both = Timestamps { last_access: time, last_modification: time };
        as_user(uid, uid, || utimensat(CWD, &f, &both, AtFlags::empty()))
    };
    t.ok("the owner sets times", set(USER, 5));
    t.ok("and touches", set(USER, UTIME_NOW));
    t.err("a stranger sets", set(OTHER, 5), Errno::PERM);
    t.err("a stranger touches", set(OTHER, UTIME_NOW), Errno::ACCESS);
    chmod(&f, 0o666).expect("chmod");
    t.ok("whoever may write touches", set(OTHER, UTIME_NOW));
    t.err("but does not set", set(OTHER, 5), Errno::PERM);
}
