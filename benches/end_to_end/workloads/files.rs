//! Ten thousand small files, in one directory and in a hundred.

use super::Suite;
use crate::measure::{Bench, Unit, drop_names, open_dir};
use crate::targets::Kind;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::io;
use std::path::Path;

const ROWS: &[&str] = &[
    "create, write 1 KiB",
    "stat, cached",
    "stat, kernel cold",
    "stat, remounted",
    "open, read 1 KiB, remounted",
    "rename",
    "unlink",
    "create, empty",
    "unlink, empty",
];

pub(super) const ONE_DIR: Suite = Suite {
    name: "10000 files, 1 directory",
    rows: ROWS,
    fits: Kind::is_filesystem,
    needs_mount: true,
    run: |bench| small_files(bench, 1),
};

pub(super) const MANY_DIRS: Suite = Suite {
    name: "10000 files, 100 directories",
    rows: ROWS,
    fits: Kind::is_filesystem,
    needs_mount: true,
    run: |bench| small_files(bench, 100),
};

/// The files of a workload: so many directories, so many names, which are the same in each.
struct Files {
    dirs: Vec<String>,
    names: Vec<String>,
}

impl Files {
    fn each(&self, root: &Path, mut f: impl FnMut(&OwnedFd, &str) -> io::Result<()>) -> io::Result<()> {
        let root = open_dir(root)?;
        for dir in &self.dirs {
            let dir = rustix::fs::openat(&root, dir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            for name in &self.names {
                f(&dir, name)?;
            }
        }
        Ok(())
    }

    fn create(&self, root: &Path, contents: &[u8]) -> io::Result<()> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        self.each(root, |dir, name| {
            let file = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o644))?;
            if !contents.is_empty() {
                rustix::io::write(&file, contents)?;
            }
            Ok(())
        })
    }

    fn stat(&self, root: &Path) -> io::Result<()> {
        self.each(root, |dir, name| Ok(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map(drop)?))
    }

    fn read(&self, root: &Path) -> io::Result<()> {
        let mut buf = [0u8; 4096];
        self.each(root, |dir, name| {
            let file = rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::io::read(&file, &mut buf)?;
            Ok(())
        })
    }

    fn rename(&self, root: &Path) -> io::Result<()> {
        self.each(root, |dir, name| {
            let to = format!("r{name}");
            rustix::fs::renameat(dir, name, dir, to.as_str())?;
            Ok(())
        })
    }

    fn unlink(&self, root: &Path, prefix: &str) -> io::Result<()> {
        self.each(root, |dir, name| {
            let name = format!("{prefix}{name}");
            Ok(rustix::fs::unlinkat(dir, name.as_str(), AtFlags::empty())?)
        })
    }
}

fn small_files(bench: &mut Bench<'_>, dirs: u64) -> io::Result<()> {
    // fuse2fs looks for each name from the start of the directory: with all files it would take minutes. The smaller
    // directory flatters it.
    let all = if bench.target.kind == Kind::Fuse2fs && dirs == 1 { 2_500 } else { 10_000 };
    let per_dir = (bench.scaled(all) / dirs).max(1);
    let files = Files {
        dirs: (0..dirs).map(|n| format!("files{dirs}-{n}")).collect(),
        names: (0..per_dir).map(|n| format!("file-{n:05}")).collect(),
    };
    let root = bench.target.root.clone();
    for dir in &files.dirs {
        std::fs::create_dir(root.join(dir))?;
    }
    bench.target.settle()?;
    let amount = (per_dir * dirs) as f64;
    bench.time("create, write 1 KiB", Unit::Ops, amount, |t| files.create(&t.root, &[7; 1024]))?;
    bench.target.settle()?;
    // Writing made the attributes doubtful; the first look asks for them again.
    files.stat(&root)?;
    bench.time("stat, cached", Unit::Ops, amount, |t| files.stat(&t.root))?;
    drop_names()?;
    bench.target.settle()?;
    bench.time("stat, kernel cold", Unit::Ops, amount, |t| files.stat(&t.root))?;
    bench.target.remount()?;
    bench.time("stat, remounted", Unit::Ops, amount, |t| files.stat(&t.root))?;
    bench.target.remount()?;
    bench.time("open, read 1 KiB, remounted", Unit::Ops, amount, |t| files.read(&t.root))?;
    bench.target.settle()?;
    bench.time("rename", Unit::Ops, amount, |t| files.rename(&t.root))?;
    bench.target.settle()?;
    bench.time("unlink", Unit::Ops, amount, |t| files.unlink(&t.root, "r"))?;
    bench.target.settle()?;
    bench.time("create, empty", Unit::Ops, amount, |t| files.create(&t.root, &[]))?;
    bench.target.settle()?;
    bench.time("unlink, empty", Unit::Ops, amount, |t| files.unlink(&t.root, ""))?;
    for dir in &files.dirs {
        std::fs::remove_dir(root.join(dir))?;
    }
    Ok(())
}
