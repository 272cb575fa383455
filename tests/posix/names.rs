//! mkdir, rmdir, link, unlink, symlink, mknod: names and link counts.

use crate::harness::*;
use rustix::fs::{AtFlags, CWD, FileType, link, rmdir, symlink, unlink};
use rustix::io::Errno;
use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};

pub fn run(t: &T) {
    directories(t);
    links(t);
    symlinks(t);
    nodes(t);
    unlinking(t);
    open_unlinked(t);
}

fn directories(t: &T) {
    let d = t.dir();
    t.eq("nlink of an empty directory", nlink(&d), 2);
    let sub = d.join("sub");
    t.ok("mkdir", mkdir(&sub, 0o755));
    t.eq("nlink of its parent", nlink(&d), 3);
    t.eq("nlink of the child", nlink(&sub), 2);
    t.yes("kind", kind(&sub).is_dir());
    t.err("mkdir again", mkdir(&sub, 0o755), Errno::EXIST);
    t.err("mkdir .", mkdir(&d.join("."), 0o755), Errno::EXIST);
    t.err("mkdir ..", mkdir(&d.join("sub/.."), 0o755), Errno::EXIST);
    t.err("mkdir below nothing", mkdir(&d.join("no/x"), 0o755), Errno::NOENT);
    file(&d.join("f"), 0o644);
    t.err("mkdir over a file", mkdir(&d.join("f"), 0o755), Errno::EXIST);
    t.err("mkdir below a file", mkdir(&d.join("f/x"), 0o755), Errno::NOTDIR);
    t.ok("mkdir with a slash", mkdir(&d.join("slash/"), 0o755));
    symlink("nowhere", d.join("l")).expect("symlink");
    t.err("mkdir over a dangling link", mkdir(&d.join("l"), 0o755), Errno::EXIST);
    t.err("rmdir of a file", rmdir(d.join("f")), Errno::NOTDIR);
    t.err("rmdir of a link", rmdir(d.join("l")), Errno::NOTDIR);
    t.err("rmdir of nothing", rmdir(d.join("no")), Errno::NOENT);
    t.err("rmdir .", rmdir(sub.join(".")), Errno::INVAL);
    t.err("rmdir ..", rmdir(sub.join("..")), Errno::NOTEMPTY);
    file(&sub.join("f"), 0o644);
    t.err("rmdir of a full one", rmdir(&sub), Errno::NOTEMPTY);
    unlink(sub.join("f")).expect("unlink");
    mkdir(&sub.join("d"), 0o755).expect("mkdir");
    t.err("rmdir of one with a subdirectory", rmdir(&sub), Errno::NOTEMPTY);
    rmdir(sub.join("d")).expect("rmdir");
    let handle = fs::File::open(&sub).expect("open");
    t.ok("rmdir", rmdir(&sub));
    t.eq("nlink of the parent afterwards", nlink(&d), 3);
    t.eq("nlink of the removed one", rustix::fs::fstat(&handle).expect("fstat").st_nlink, 0);
    let rest = rustix::fs::Dir::read_from(&handle).expect("opendir").filter_map(Result::ok).count();
    t.yes("a removed directory is empty", rest <= 2);
    t.err("mkdir in a removed directory", rustix::fs::mkdirat(&handle, "x", rustix::fs::Mode::RWXU), Errno::NOENT);
    t.err("rmdir of the mount's root", rmdir(d.parent().expect("has one")), Errno::BUSY);
}

fn links(t: &T) {
    let d = t.dir();
    for (what, path) in one_of_each(&d) {
        let to = d.join(format!("{what}-link"));
        let made = rustix::fs::linkat(CWD, &path, CWD, &to, AtFlags::empty());
        if what == "directory" {
            t.err("link to a directory", made, Errno::PERM);
            continue;
        }
        t.ok(&format!("link to a {what}"), made);
        t.eq("nlink of the old", nlink(&path), 2);
        t.eq("nlink of the new", nlink(&to), 2);
        t.eq("one inode", stat(&path).st_ino, stat(&to).st_ino);
        t.ok("unlink the old", unlink(&path));
        t.eq("nlink", nlink(&to), 1);
    }
    file(&d.join("f"), 0o644);
    let f = d.join("f");
    t.err("link over a file", link(&f, d.join("fifo-link")), Errno::EXIST);
    t.err("link over itself", link(&f, &f), Errno::EXIST);
    t.err("link over a directory", link(&f, d.join("directory")), Errno::EXIST);
    t.err("link of nothing", link(d.join("no"), d.join("x")), Errno::NOENT);
    t.err("link into nothing", link(&f, d.join("no/x")), Errno::NOENT);
    t.err("link below a file", link(&f, f.join("x")), Errno::NOTDIR);
    t.err("to another filesystem", link(&f, "/dev/shm/gfs2r-posix"), Errno::XDEV);
    let handle = fs::File::open(&f).expect("open");
    unlink(&f).expect("unlink");
    use std::os::fd::AsRawFd;
    let proc = format!("/proc/self/fd/{}", handle.as_raw_fd());
    let revived = rustix::fs::linkat(CWD, proc, CWD, d.join("revived"), AtFlags::SYMLINK_FOLLOW);
    t.err("link of an unlinked file", revived, Errno::NOENT);
    let many = d.join("many");
    file(&many, 0o644);
    for n in 0..300 {
        link(&many, d.join(format!("m{n}"))).expect("link");
    }
    t.eq("nlink after 300 links", nlink(&many), 301);
    for n in 0..300 {
        unlink(d.join(format!("m{n}"))).expect("unlink");
    }
    t.eq("nlink after 300 unlinks", nlink(&many), 1);
}

fn symlinks(t: &T) {
    let d = t.dir();
    let l = d.join("l");
    t.ok("symlink", symlink("some/where", &l));
    t.eq("target", fs::read_link(&l).expect("readlink"), "some/where".into());
    t.eq("size is the target's length", stat(&l).st_size, 10);
    t.eq("mode", perm(&l), 0o777);
    t.err("symlink again", symlink("x", &l), Errno::EXIST);
    t.err("with an empty target", symlink("", d.join("e")), Errno::NOENT);
    t.err("readlink of a directory", rustix::fs::readlink(&d, Vec::new()), Errno::INVAL);
    file(&d.join("f"), 0o644);
    t.err("readlink of a file", rustix::fs::readlink(d.join("f"), Vec::new()), Errno::INVAL);
    symlink("f", d.join("good")).expect("symlink");
    t.ok("through a link", fs::write(d.join("good"), b"123"));
    t.eq("reaches the file", stat(&d.join("f")).st_size, 3);
    symlink(".", d.join("here")).expect("symlink");
    t.yes("through a link to a directory", d.join("here/here/f").exists());
    t.ok("unlink removes the link", unlink(d.join("good")));
    t.yes("not its target", d.join("f").exists());
}

fn nodes(t: &T) {
    let d = t.dir();
    for (n, (kind_wanted, dev)) in [
        (FileType::CharacterDevice, rustix::fs::makedev(1, 3)),
        (FileType::BlockDevice, rustix::fs::makedev(259, 70_000)),
        (FileType::CharacterDevice, rustix::fs::makedev(4095, 0xf_ffff)),
        (FileType::BlockDevice, 0),
        (FileType::Fifo, 0),
        (FileType::Socket, 0),
        (FileType::RegularFile, 0),
    ]
    .into_iter()
    .enumerate()
    {
        let path = d.join(format!("n{n}"));
        t.ok("mknod", mknod(&path, kind_wanted, 0o644, dev));
        t.eq("kind", kind(&path), kind_wanted);
        t.eq("device", stat(&path).st_rdev, dev);
        t.eq("size", stat(&path).st_size, 0);
        t.err("mknod again", mknod(&path, kind_wanted, 0o644, dev), Errno::EXIST);
        t.ok("unlink", unlink(&path));
    }
    t.err("mknod of a directory", mknod(&d.join("x"), FileType::Directory, 0o755, 0), Errno::PERM);
    t.err("below a file", mknod(std::path::Path::new("/dev/null/x"), FileType::Fifo, 0o644, 0), Errno::NOTDIR);
}

fn unlinking(t: &T) {
    let d = t.dir();
    for (what, path) in one_of_each(&d) {
        if what == "directory" {
            t.err("unlink of a directory", unlink(&path), Errno::ISDIR);
            continue;
        }
        t.ok(&format!("unlink of a {what}"), unlink(&path));
        t.err("it is gone", rustix::fs::lstat(&path), Errno::NOENT);
        t.err("unlink again", unlink(&path), Errno::NOENT);
    }
    file(&d.join("f"), 0o644);
    t.err("below a file", unlink(d.join("f/x")), Errno::NOTDIR);
    t.err("with a slash", unlink(d.join("f/")), Errno::NOTDIR);
}

/// A file without a name lives as long as it is open.
fn open_unlinked(t: &T) {
    let d = t.dir();
    let f = d.join("f");
    let mut file = create(&f, 0o644).expect("create");
    file.write_all(b"before").expect("write");
    let ino = stat(&f).st_ino;
    unlink(&f).expect("unlink");
    let st = rustix::fs::fstat(&file).expect("fstat");
    t.eq("nlink", st.st_nlink, 0);
    t.eq("size", st.st_size, 6);
    t.ok("write", file.write_all(&[b'x'; 100_000]));
    t.ok("seek", file.seek(SeekFrom::Start(0)));
    let mut all = Vec::new();
    t.ok("read", file.read_to_end(&mut all));
    t.eq("length", all.len(), 100_006);
    t.yes("contents", all.starts_with(b"beforexxx"));
    t.ok("fsync", file.sync_all());
    t.ok("ftruncate", file.set_len(3));
    t.ok("fchmod", rustix::fs::fchmod(&file, rustix::fs::Mode::RUSR));
    t.eq("size afterwards", rustix::fs::fstat(&file).expect("fstat").st_size, 3);
    // A new file of that name is another one.
    let new = create(&f, 0o644).expect("create");
    t.yes("another inode", rustix::fs::fstat(&new).expect("fstat").st_ino != ino);
    let mut second = create(&d.join("second"), 0o644).expect("create");
    second.write_all(b"2").expect("write");
    fs::rename(&f, d.join("second")).expect("rename");
    t.eq("nlink of the replaced", rustix::fs::fstat(&second).expect("fstat").st_nlink, 0);
    t.ok("write to the replaced", second.write_all(b"2"));
}
