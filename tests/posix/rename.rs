//! rename(2) and renameat2(2).

use crate::harness::*;
use rustix::fs::{CWD, RenameFlags, link, rename, renameat_with, symlink};
use rustix::io::Errno;
use std::fs;
use std::path::Path;

fn rename2(from: &Path, to: &Path, flags: RenameFlags) -> rustix::io::Result<()> {
    renameat_with(CWD, from, CWD, to, flags)
}

pub fn run(t: &T) {
    simple(t);
    replacing(t);
    directories(t);
    flags(t);
}

fn simple(t: &T) {
    let (d, e) = (t.dir(), t.dir());
    for (what, path) in one_of_each(&d) {
        let ino = stat(&path).st_ino;
        let there = e.join(what);
        t.ok(&format!("rename a {what} into another directory"), rename(&path, &there));
        t.err("the old name is gone", rustix::fs::lstat(&path), Errno::NOENT);
        t.eq("same inode", stat(&there).st_ino, ino);
        t.ok("within a directory", rename(&there, e.join(format!("{what}-2"))));
        t.eq("same inode again", stat(&e.join(format!("{what}-2"))).st_ino, ino);
    }
    t.eq("nlink of the old parent", nlink(&d), 2);
    t.eq("nlink of the new parent", nlink(&e), 3);
    t.err("rename of nothing", rename(d.join("no"), d.join("x")), Errno::NOENT);
    let f = e.join("regular-2");
    t.err("into nothing", rename(&f, d.join("no/x")), Errno::NOENT);
    t.err("below a file", rename(&f, f.join("x")), Errno::NOTDIR);
    t.ok("onto itself", rename(&f, &f));
    t.yes("still there", f.exists());
    link(&f, d.join("hard")).expect("link");
    t.ok("onto another name of the same inode", rename(&f, d.join("hard")));
    t.yes("does nothing", f.exists() && nlink(&f) == 2);
    t.err("to another filesystem", rename(&f, "/dev/shm/gfs2r-posix"), Errno::XDEV);
    symlink("hard", d.join("l")).expect("symlink");
    t.ok("a link is renamed, not its target", rename(d.join("l"), d.join("l2")));
    t.yes("it is", kind(&d.join("l2")).is_symlink() && d.join("hard").exists());
}

fn replacing(t: &T) {
    let d = t.dir();
    for victim in ["regular", "fifo", "block", "char", "socket", "symlink"] {
        let (a, b) = (t.dir(), t.dir());
        one_of_each(&a);
        one_of_each(&b);
        let ino = stat(&a.join("regular")).st_ino;
        t.ok(&format!("a file replaces a {victim}"), rename(a.join("regular"), b.join(victim)));
        t.eq("same inode", stat(&b.join(victim)).st_ino, ino);
        t.err("a directory does not", rename(a.join("directory"), b.join(victim)), Errno::NOTDIR);
        if victim != "regular" {
            t.err("and does not give way", rename(a.join(victim), b.join("directory")), Errno::ISDIR);
        }
    }
    fs::write(d.join("a"), b"a").expect("write");
    fs::write(d.join("b"), b"bb").expect("write");
    link(d.join("b"), d.join("b2")).expect("link");
    t.ok("replace a file with two names", rename(d.join("a"), d.join("b")));
    t.eq("the other name stays", (nlink(&d.join("b2")), fs::read(d.join("b2")).expect("read")), (1, b"bb".to_vec()));
    t.eq("contents", fs::read(d.join("b")).expect("read"), b"a".to_vec());
}

fn directories(t: &T) {
    let d = t.dir();
    for name in ["a/b/c", "full/x", "empty"] {
        fs::create_dir_all(d.join(name)).expect("mkdir");
    }
    let a = d.join("a");
    t.err("into itself", rename(&a, a.join("x")), Errno::INVAL);
    t.err("into its grandchild", rename(&a, a.join("b/c/x")), Errno::INVAL);
    t.err_of("onto its own parent", rename(a.join("b"), &a), &[Errno::NOTEMPTY, Errno::EXIST]);
    t.err_of("onto its grandparent", rename(a.join("b/c"), &a), &[Errno::NOTEMPTY, Errno::EXIST]);
    t.err_of("onto a full one", rename(&a, d.join("full")), &[Errno::NOTEMPTY, Errno::EXIST]);
    t.err("of .", rename(a.join("."), d.join("x")), Errno::BUSY);
    t.err("of ..", rename(a.join("b/.."), d.join("x")), Errno::BUSY);
    t.err("onto .", rename(d.join("full"), a.join(".")), Errno::BUSY);
    t.eq("nlink before", nlink(&d), 5);
    t.ok("onto an empty one", rename(&a, d.join("empty")));
    t.eq("nlink of the parent", nlink(&d), 4);
    t.eq("nlink of the moved", nlink(&d.join("empty")), 3);
    t.ok("into a sibling", rename(d.join("empty/b"), d.join("full/x/b")));
    t.eq("nlink left", nlink(&d.join("empty")), 2);
    t.eq("nlink gained", nlink(&d.join("full/x")), 3);
    let up = |p: &Path| rustix::fs::stat(p.join("..")).expect("stat").st_ino;
    t.eq(".. follows", up(&d.join("full/x/b")), stat(&d.join("full/x")).st_ino);
    let handle = fs::File::open(d.join("full/x/b")).expect("open");
    rename(d.join("full/x/b"), d.join("b")).expect("rename");
    let above = rustix::fs::statat(&handle, "..", rustix::fs::AtFlags::empty()).expect("stat");
    t.eq(".. through a handle", above.st_ino, stat(&d).st_ino);
    t.ok("with a slash", rename(d.join("b/"), d.join("bb/")));
    file(&d.join("f"), 0o644);
    t.err("a file with a slash", rename(d.join("f"), d.join("g/")), Errno::NOTDIR);
}

fn flags(t: &T) {
    let d = t.dir();
    fs::write(d.join("a"), b"a").expect("write");
    fs::write(d.join("b"), b"b").expect("write");
    let (a, b) = (d.join("a"), d.join("b"));
    t.err("NOREPLACE", rename2(&a, &b, RenameFlags::NOREPLACE), Errno::EXIST);
    t.ok("NOREPLACE on a free name", rename2(&a, &d.join("c"), RenameFlags::NOREPLACE));
    t.err("EXCHANGE with nothing", rename2(&b, &a, RenameFlags::EXCHANGE), Errno::NOENT);
    t.ok("EXCHANGE", rename2(&b, &d.join("c"), RenameFlags::EXCHANGE));
    t.eq(
        "swapped",
        (fs::read(&b).expect("read"), fs::read(d.join("c")).expect("read")),
        (b"a".to_vec(), b"b".to_vec()),
    );
    let both = RenameFlags::EXCHANGE | RenameFlags::NOREPLACE;
    t.err("both", rename2(&b, &d.join("c"), both), Errno::INVAL);
    fs::create_dir_all(d.join("p/dir/below")).expect("mkdir");
    fs::create_dir_all(d.join("q")).expect("mkdir");
    fs::write(d.join("q/file"), b"f").expect("write");
    t.ok("EXCHANGE of a file and a directory", rename2(&d.join("p/dir"), &d.join("q/file"), RenameFlags::EXCHANGE));
    t.eq("nlink of the parents", (nlink(&d.join("p")), nlink(&d.join("q"))), (2, 3));
    t.yes("kinds", d.join("p/dir").is_file() && d.join("q/file/below").is_dir());
    let above = rustix::fs::stat(d.join("q/file/..")).expect("stat").st_ino;
    t.eq(".. follows", above, stat(&d.join("q")).st_ino);
    t.err("with its own ancestor", rename2(&d.join("q"), &d.join("q/file/below"), RenameFlags::EXCHANGE), Errno::INVAL);
    t.err(
        "with its own descendant",
        rename2(&d.join("q/file/below"), &d.join("q"), RenameFlags::EXCHANGE),
        Errno::INVAL,
    );
    t.err("WHITEOUT", rename2(&b, &d.join("w"), RenameFlags::WHITEOUT), Errno::INVAL);
}
