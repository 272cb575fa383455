//! Extended attributes: namespaces, sizes, flags, rights.

use crate::harness::*;
use rustix::fs::{XattrFlags, getxattr, lgetxattr, listxattr, lsetxattr, removexattr, setxattr};
use rustix::io::Errno;
use std::path::Path;

fn set(path: &Path, name: &str, value: &[u8]) -> rustix::io::Result<()> {
    setxattr(path, name, value, XattrFlags::empty())
}

fn get(path: &Path, name: &str) -> rustix::io::Result<Vec<u8>> {
    let mut buf = vec![0; 70_000];
    let n = getxattr(path, name, &mut buf[..])?;
    buf.truncate(n);
    Ok(buf)
}

fn list(path: &Path) -> Vec<String> {
    let mut buf = vec![0u8; 70_000];
    let n = listxattr(path, &mut buf[..]).expect("listxattr");
    let mut names: Vec<String> = buf[..n]
        .split(|&b| b == 0)
        .filter(|s| !s.is_empty())
        .map(|s| String::from_utf8_lossy(s).into_owned())
        .collect();
    names.sort();
    names
}

pub fn run(t: &T) {
    namespaces(t);
    sizes(t);
    how(t);
    rights(t);
}

fn namespaces(t: &T) {
    let d = t.dir();
    for (what, path) in one_of_each(&d) {
        let user = lsetxattr(&path, "user.a", b"1", XattrFlags::empty());
        match what {
            "regular" | "directory" => t.eq("user attribute", user, Ok(())),
            _ => t.err(&format!("user attribute of a {what}"), user, Errno::PERM),
        }
        t.ok(&format!("trusted attribute of a {what}"), lsetxattr(&path, "trusted.a", b"2", XattrFlags::empty()));
        t.ok(&format!("security attribute of a {what}"), lsetxattr(&path, "security.a", b"3", XattrFlags::empty()));
        let mut buf = [0; 8];
        t.eq("trusted value", lgetxattr(&path, "trusted.a", &mut buf[..]), Ok(1));
        t.eq("security value", lgetxattr(&path, "security.a", &mut buf[..]), Ok(1));
    }
    let f = d.join("regular");
    t.eq("list", list(&f), ["security.a", "trusted.a", "user.a"].map(String::from).to_vec());
    t.err("no namespace", set(&f, "plain", b"x"), Errno::OPNOTSUPP);
    t.err("unknown namespace", set(&f, "system.other", b"x"), Errno::OPNOTSUPP);
    t.err("only a namespace", set(&f, "user.", b"x"), Errno::INVAL);
    t.err("a missing one", get(&f, "user.no"), Errno::NODATA);
    t.err("removing a missing one", removexattr(&f, "user.no"), Errno::NODATA);
}

fn sizes(t: &T) {
    let d = t.dir();
    let f = d.join("f");
    file(&f, 0o644);
    for len in [0, 1, 100, 3500, 4096, 10_000, 65_536] {
        let value: Vec<u8> = (0..len).map(|n| (n % 253) as u8).collect();
        t.ok(&format!("a value of {len} bytes"), set(&f, "user.v", &value));
        t.yes("reads back", get(&f, "user.v").as_ref() == Ok(&value));
        t.eq("its size", rustix::fs::getxattr_query(&f, "user.v"), Ok(len));
        if len > 1 {
            t.err("into a small buffer", getxattr(&f, "user.v", &mut vec![0u8; len - 1][..]), Errno::RANGE);
        }
    }
    t.err("65537 bytes", set(&f, "user.v", &vec![0; 65_537]), Errno::TOOBIG);
    let longest = format!("user.{}", "n".repeat(250));
    t.ok("a name of 255 bytes", set(&f, &longest, b"1"));
    t.eq("reads back", get(&f, &longest), Ok(b"1".to_vec()));
    t.err("a name of 256 bytes", set(&f, &format!("{longest}n"), b"1"), Errno::RANGE);
    t.ok("remove the long one", removexattr(&f, &longest));
    t.ok("remove the large one", removexattr(&f, "user.v"));
    t.eq("none left", list(&f), Vec::new());
    let many = d.join("many");
    file(&many, 0o644);
    for n in 0..100 {
        set(&many, &format!("user.attribute-{n}"), format!("value {n}").as_bytes()).expect("set");
    }
    t.eq("100 attributes", list(&many).len(), 100);
    for n in (0..100).step_by(2) {
        removexattr(&many, format!("user.attribute-{n}")).expect("remove");
    }
    t.eq("50 left", list(&many).len(), 50);
    t.eq("one of them", get(&many, "user.attribute-51"), Ok(b"value 51".to_vec()));
}

fn how(t: &T) {
    let f = t.dir().join("f");
    file(&f, 0o644);
    t.err("REPLACE a missing one", setxattr(&f, "user.x", b"1", XattrFlags::REPLACE), Errno::NODATA);
    t.ok("CREATE", setxattr(&f, "user.x", b"1", XattrFlags::CREATE));
    t.err("CREATE again", setxattr(&f, "user.x", b"2", XattrFlags::CREATE), Errno::EXIST);
    t.ok("REPLACE", setxattr(&f, "user.x", b"22", XattrFlags::REPLACE));
    t.eq("value", get(&f, "user.x"), Ok(b"22".to_vec()));
    t.err("both", setxattr(&f, "user.x", b"2", XattrFlags::CREATE | XattrFlags::REPLACE), Errno::EXIST);
}

fn rights(t: &T) {
    let d = t.dir();
    let f = d.join("f");
    file(&f, 0o600);
    set(&f, "user.x", b"1").expect("set");
    set(&f, "security.y", b"1").expect("set");
    t.err("reading without r", as_user(USER, USER, || get(&f, "user.x")), Errno::ACCESS);
    chmod(&f, 0o644).expect("chmod");
    t.ok("reading with r", as_user(USER, USER, || get(&f, "user.x")));
    t.err("writing without w", as_user(USER, USER, || set(&f, "user.x", b"2")), Errno::ACCESS);
    t.err("removing without w", as_user(USER, USER, || removexattr(&f, "user.x")), Errno::ACCESS);
    chmod(&f, 0o666).expect("chmod");
    t.ok("writing with w", as_user(USER, USER, || set(&f, "user.x", b"2")));
    let setpriv = |args: &[&str]| {
        let mut c = std::process::Command::new("setpriv");
        c.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).args(args).arg(&f);
        c.output().is_ok_and(|o| o.status.success())
    };
    t.yes("a user cannot set trusted attributes", !setpriv(&["setfattr", "-n", "trusted.x", "-v", "1"]));
    t.yes("nor security attributes", !setpriv(&["setfattr", "-n", "security.x", "-v", "1"]));
    set(&f, "trusted.z", b"1").expect("set");
    t.yes("nor read trusted ones", !setpriv(&["getfattr", "-n", "trusted.z"]));
    let sticky = d.join("sticky");
    mkdir(&sticky, 0o777).expect("mkdir");
    chmod(&sticky, 0o1777).expect("chmod");
    let r = as_user(USER, USER, || set(&sticky, "user.x", b"1"));
    t.err("user attributes of another's sticky directory", r, Errno::PERM);
}
