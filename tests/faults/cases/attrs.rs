//! Attributes: mode, owner, times, flags, extended attributes, ACLs.

use super::{Case, Silent, digest, whole};
use crate::stage::{Ctx, SUPER, acl};
use gfs2r::clock::Timestamp;
use gfs2r::error::Result;
use gfs2r::fs::{InodeFlags, SetAttr, SetMode, SetTime};

const ACCESS: &[u8] = b"system.posix_acl_access";
const DEFAULT: &[u8] = b"system.posix_acl_default";

fn set(c: &Ctx<'_>, path: &str, set: SetAttr) -> Result<String> {
    c.on(path, |node| c.fs.setattr(&SUPER, node, &set)).quiet()
}

fn remove(c: &Ctx<'_>, path: &str, name: &[u8]) -> Result<String> {
    c.on(path, |node| c.fs.removexattr(node, name)).quiet()
}

fn put(c: &Ctx<'_>, path: &str, name: &[u8], value: &[u8], how: SetMode) -> Result<String> {
    c.on(path, |node| c.fs.setxattr(&c.caller, node, name, value, how)).quiet()
}

fn flags(c: &Ctx<'_>, path: &str, flags: u32) -> Result<String> {
    c.on(path, |node| c.fs.set_flags(&SUPER, node, flags)).quiet()
}

fn plain() -> Vec<Case> {
    vec![
        whole("chmod", |c| set(c, "/mid", SetAttr { mode: Some(0o4711), ..SetAttr::default() })),
        whole("chmod with an ACL", |c| set(c, "/x.acl", SetAttr { mode: Some(0o640), ..SetAttr::default() })),
        whole("chown", |c| set(c, "/mid", SetAttr { uid: Some(5), gid: Some(6), ..SetAttr::default() })),
        whole("utimes", |c| {
            let at = Some(SetTime::At(Timestamp { sec: 12345, nsec: 6 }));
            set(c, "/deep", SetAttr { atime: at, mtime: at, ..SetAttr::default() })
        }),
        whole("access time", |c| c.on("/mid", |node| c.fs.touch(node, true)).quiet()),
        whole("stat", |c| c.on("/deep", |node| c.fs.getattr(node)).map(|a| format!("{a:?}"))),
        whole("chattr +A", |c| flags(c, "/mid", InodeFlags::NOATIME)),
        whole("chattr +i", |c| flags(c, "/few", InodeFlags::IMMUTABLE)),
        whole("chattr +j", |c| flags(c, "/mid", InodeFlags::JOURNAL_DATA)),
        whole("chattr +jA", |c| flags(c, "/frag", InodeFlags::JOURNAL_DATA | InodeFlags::NOATIME)),
        whole("chattr +j, stuffed", |c| flags(c, "/small", InodeFlags::JOURNAL_DATA)),
        whole("chattr -j", |c| flags(c, "/jd", 0)),
        whole("chattr +jT, directory", |c| flags(c, "/few", InodeFlags::JOURNAL_DATA | InodeFlags::TOPDIR)),
        whole("lsattr", |c| c.on("/jd", |node| c.fs.get_flags(node)).map(|f| format!("{f:x}"))),
    ]
}

fn extended() -> Vec<Case> {
    // The new value is written before the old one goes.
    let replaces = |case: Case| Case { spare: 8, leaves: true, ..case };
    vec![
        whole("setxattr, the first", |c| c.set("/mid", "user.new", 30, 1).quiet()),
        whole("setxattr, the first, large", |c| c.set("/mid", "user.new", 3 * c.bs as usize, 1).quiet()),
        whole("setxattr, another", |c| c.set("/x.one", "user.new", 30, 1).quiet()),
        whole("setxattr, another block", |c| c.set("/x.one", "user.new", c.bs as usize - 100, 1).quiet()),
        whole("setxattr, one block more", |c| c.set("/x.many", "user.new", c.bs as usize - 100, 1).quiet()),
        whole("setxattr, another, large", |c| c.set("/x.many", "user.new", 5 * c.bs as usize, 1).quiet()),
        whole("setxattr, as long as before", |c| c.set("/x.one", "user.first", 20, 7).quiet()),
        whole("setxattr, longer", |c| c.set("/x.one", "user.first", 60, 7).quiet()),
        whole("setxattr, much longer", |c| c.set("/x.some", "user.name1", 4 * c.bs as usize, 7).quiet()),
        whole("setxattr, shorter", |c| c.set("/x.some", "user.name1", 3, 7).quiet()),
        replaces(whole("setxattr, large as before", |c| c.set("/x.big", "user.big", 4 * c.bs as usize, 3).quiet())),
        replaces(whole("setxattr, large, larger", |c| c.set("/x.big", "user.big", 7 * c.bs as usize, 3).quiet())),
        replaces(whole("setxattr, large, smaller", |c| c.set("/x.big", "user.big", 2 * c.bs as usize, 3).quiet())),
        replaces(whole("setxattr, large, then small", |c| c.set("/x.big", "user.big", 5, 3).quiet())),
        whole("setxattr, must be new", |c| put(c, "/x.one", b"user.n", b"value", SetMode::Create)),
        whole("setxattr, must be there", |c| put(c, "/x.one", b"user.first", b"value", SetMode::Replace)),
        whole("removexattr, the last", |c| remove(c, "/x.one", b"user.first")),
        whole("removexattr", |c| remove(c, "/x.some", b"user.name1")),
        whole("removexattr, of many", |c| remove(c, "/x.many", b"trusted.a-long-name-5")),
        whole("removexattr, large", |c| remove(c, "/x.big", b"user.big")),
        whole("removexattr, large, of two", |c| remove(c, "/x.two", b"user.bigger")),
        whole("getxattr", |c| c.on("/x.some", |n| c.fs.getxattr(n, b"user.name2")).map(|v| digest(&v))),
        whole("getxattr, large", |c| c.on("/x.two", |n| c.fs.getxattr(n, b"user.bigger")).map(|v| digest(&v))),
        whole("listxattr", |c| c.on("/x.many", |n| c.fs.listxattr(n)).map(|v| format!("{v:?}"))),
        whole("ACL, the first", |c| put(c, "/mid", ACCESS, &acl(7), SetMode::Any)),
        whole("ACL, another", |c| put(c, "/x.acl", ACCESS, &acl(7), SetMode::Any)),
        whole("ACL removed", |c| remove(c, "/x.acl", ACCESS)),
        whole("ACL that is a mode", |c| {
            let all = acl(7);
            let value = [&all[..12], &all[20..28], &all[36..]].concat();
            put(c, "/x.acl", ACCESS, &value, SetMode::Any)
        }),
        whole("ACL, default", |c| put(c, "/few", DEFAULT, &acl(7), SetMode::Any)),
        whole("ACL, default, removed", |c| remove(c, "/acl.d", DEFAULT)),
    ]
}

pub(super) fn cases() -> Vec<Case> {
    [plain(), extended()].concat()
}
