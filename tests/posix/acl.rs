//! POSIX ACLs: rights, the mask, inheritance against the umask.

use crate::harness::*;
use rustix::fs::{OFlags, XattrFlags, getxattr, removexattr, setxattr};
use rustix::io::Errno;
use std::path::Path;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const NONE: u32 = u32::MAX;

/// (tag, permissions, id): 1 owner, 2 user, 4 group, 8 named group, 16 mask, 32 others.
type Entry = (u16, u16, u32);

#[allow(clippy::little_endian_bytes, reason = "this is how the system calls take an ACL")]
fn bytes(entries: &[Entry]) -> Vec<u8> {
    let mut out = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        out.extend(tag.to_le_bytes());
        out.extend(perm.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    out
}

fn set(path: &Path, name: &str, entries: &[Entry]) -> rustix::io::Result<()> {
    setxattr(path, name, &bytes(entries), XattrFlags::empty())
}

fn get(path: &Path, name: &str) -> rustix::io::Result<Vec<u8>> {
    let mut buf = vec![0; 4096];
    let n = getxattr(path, name, &mut buf[..])?;
    buf.truncate(n);
    Ok(buf)
}

/// The user's rw through an ACL.
const FOR_USER: [Entry; 5] = [(1, 6, NONE), (2, 6, USER), (4, 4, NONE), (16, 6, NONE), (32, 0, NONE)];

pub fn run(t: &T) {
    access(t);
    minimal(t);
    inheritance(t);
    refused(t);
    setgid(t);
}

fn access(t: &T) {
    let f = t.dir().join("f");
    file(&f, 0o640);
    let may = |uid, flags| as_user(uid, uid, || open(&f, flags, 0).map(|_| ()));
    t.err("without an ACL", may(USER, OFlags::RDWR), Errno::ACCESS);
    t.ok("set", set(&f, ACCESS, &FOR_USER));
    t.eq("reads back", get(&f, ACCESS), Ok(bytes(&FOR_USER)));
    t.eq("the group bits are the mask", perm(&f), 0o660);
    t.eq("the user may", may(USER, OFlags::RDWR), Ok(()));
    t.err("another may not", may(OTHER, OFlags::RDONLY), Errno::ACCESS);
    t.ok("chmod changes the mask", chmod(&f, 0o640));
    let masked = [(1, 6, NONE), (2, 6, USER), (4, 4, NONE), (16, 4, NONE), (32, 0, NONE)];
    t.eq("the ACL now", get(&f, ACCESS), Ok(bytes(&masked)));
    t.err("the mask forbids", may(USER, OFlags::RDWR), Errno::ACCESS);
    t.eq("and allows", may(USER, OFlags::RDONLY), Ok(()));
    t.ok("remove", removexattr(&f, ACCESS));
    t.err("it is gone", get(&f, ACCESS), Errno::NODATA);
    t.eq("the mode stays", perm(&f), 0o640);
    t.err("the user may no more", may(USER, OFlags::RDONLY), Errno::ACCESS);
}

fn minimal(t: &T) {
    let f = t.dir().join("f");
    file(&f, 0o600);
    t.ok("an ACL of three", set(&f, ACCESS, &[(1, 7, NONE), (4, 5, NONE), (32, 4, NONE)]));
    t.eq("is the mode", perm(&f), 0o754);
    t.err("and not stored", get(&f, ACCESS), Errno::NODATA);
    t.ok("a real one", set(&f, ACCESS, &FOR_USER));
    t.ok("replaced by three", set(&f, ACCESS, &[(1, 6, NONE), (4, 0, NONE), (32, 0, NONE)]));
    t.err("is dropped", get(&f, ACCESS), Errno::NODATA);
    t.eq("mode", perm(&f), 0o600);
}

fn inheritance(t: &T) {
    let d = t.dir();
    let default = [(1, 7, NONE), (2, 7, USER), (4, 5, NONE), (16, 7, NONE), (32, 1, NONE)];
    t.ok("a default ACL", set(&d, DEFAULT, &default));
    t.eq("leaves the mode alone", perm(&d), 0o755);
    t.eq("reads back", get(&d, DEFAULT), Ok(bytes(&default)));
    let old = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let (f, sub, fifo, link) = (d.join("f"), d.join("sub"), d.join("fifo"), d.join("link"));
    create(&f, 0o666).expect("create");
    mkdir(&sub, 0o777).expect("mkdir");
    mknod(&fifo, rustix::fs::FileType::Fifo, 0o640, 0).expect("mknod");
    rustix::fs::symlink("x", &link).expect("symlink");
    rustix::process::umask(old);
    t.eq("the umask does not count", perm(&f), 0o660);
    let of_file = [(1, 6, NONE), (2, 7, USER), (4, 5, NONE), (16, 6, NONE), (32, 0, NONE)];
    t.eq("access ACL of the file", get(&f, ACCESS), Ok(bytes(&of_file)));
    t.eq("mode of the directory", perm(&sub), 0o771);
    t.eq("its access ACL", get(&sub, ACCESS), Ok(bytes(&default)));
    t.eq("its default ACL", get(&sub, DEFAULT), Ok(bytes(&default)));
    t.eq("mode of the fifo", perm(&fifo), 0o640);
    t.eq("mode of the link", perm(&link), 0o777);
    t.ok("the user writes", as_user(USER, USER, || open(&f, OFlags::RDWR, 0)));
    t.ok("and makes files below", as_user(USER, USER, || create(&sub.join("x"), 0o600)));
    t.ok("remove the default ACL", removexattr(&d, DEFAULT));
    t.err("it is gone", get(&d, DEFAULT), Errno::NODATA);
    create(&d.join("plain"), 0o666).expect("create");
    t.eq("the umask counts again", perm(&d.join("plain")), 0o644);
}

fn refused(t: &T) {
    let d = t.dir();
    let f = d.join("f");
    file(&f, 0o644);
    t.err("a default ACL of a file", set(&f, DEFAULT, &FOR_USER), Errno::ACCESS);
    t.err("without owner", set(&f, ACCESS, &[(4, 5, NONE), (32, 4, NONE)]), Errno::INVAL);
    t.err(
        "a named user without a mask",
        set(&f, ACCESS, &[(1, 6, NONE), (2, 6, 1), (4, 4, NONE), (32, 0, NONE)]),
        Errno::INVAL,
    );
    t.err("out of order", set(&f, ACCESS, &[(4, 5, NONE), (1, 6, NONE), (32, 4, NONE)]), Errno::INVAL);
    t.err_of("rubbish", setxattr(&f, ACCESS, b"rubbish", XattrFlags::empty()), &[Errno::INVAL, Errno::OPNOTSUPP]);
    t.err("by a stranger", as_user(USER, USER, || set(&f, ACCESS, &FOR_USER)), Errno::PERM);
    t.err(
        "of a link",
        {
            rustix::fs::symlink("f", d.join("l")).expect("symlink");
            rustix::fs::lsetxattr(d.join("l"), ACCESS, &bytes(&FOR_USER), XattrFlags::empty())
        },
        Errno::OPNOTSUPP,
    );
    let mut many = vec![(1, 6, NONE)];
    many.extend((0..298).map(|n| (2, 6, 1000 + n)));
    many.extend([(4, 4, NONE), (16, 6, NONE), (32, 0, NONE)]);
    match set(&f, ACCESS, &many) {
        Ok(()) => t.eq("302 entries", get(&f, ACCESS), Ok(bytes(&many))),
        Err(e) => t.yes(&format!("302 entries: {e:?}"), [Errno::INVAL, Errno::NOSPC, Errno::TOOBIG].contains(&e)),
    }
}

/// Like chmod, setting an ACL takes setgid away where the owner is not in the group.
fn setgid(t: &T) {
    let f = t.dir_with(0o777).join("f");
    file(&f, 0o644);
    chown(&f, Some(USER), Some(OTHER)).expect("chown");
    chmod(&f, 0o2755).expect("chmod");
    t.ok("set by an owner outside the group", as_user(USER, USER, || set(&f, ACCESS, &FOR_USER)));
    t.eq("setgid goes", perm(&f), 0o660);
    chmod(&f, 0o2755).expect("chmod");
    t.ok("set by root", set(&f, ACCESS, &FOR_USER));
    t.eq("setgid stays", perm(&f), 0o2660);
}
