//! A tree like that of sources: unpacked as tar would, walked, read, removed.

use super::Suite;
use super::walk::{du, read_all, remove_all};
use crate::measure::{Bench, Unit, open_dir};
use crate::targets::Kind;
use rustix::fs::{Mode, OFlags, Timespec, Timestamps};
use std::io;
use std::path::Path;

pub(super) const TREE: Suite = Suite {
    name: "a tree of sources",
    rows: &["unpack", "unpack, to clean unmount", "du, remounted", "du, again", "read all, remounted", "rm -rf"],
    fits: Kind::is_filesystem,
    needs_mount: true,
    run: tree,
};

/// An archive's entries in order: directories before what they contain.
enum Entry {
    Dir(String),
    File(String, usize),
}

/// A small generator of numbers: every run unpacks the same tree.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    /// Sizes of source files: most are small, a few are large; about 9 KiB on average.
    fn size(&mut self) -> usize {
        let magnitude = self.below(4) + self.below(4) + self.below(4) + self.below(4) + self.below(3);
        ((48 << magnitude) + self.below(48 << magnitude)) as usize % (400 << 10)
    }
}

fn archive(files: u64) -> Vec<Entry> {
    let mut numbers = Numbers(42);
    let mut dirs = vec!["tree".to_owned()];
    let mut entries = vec![Entry::Dir("tree".into())];
    while (entries.len() as u64) < files {
        let parent = dirs[numbers.below(dirs.len() as u64) as usize].clone();
        let dir = if parent.matches('/').count() > 5 { "tree".into() } else { parent };
        let dir = format!("{dir}/dir-{}", dirs.len());
        entries.push(Entry::Dir(dir.clone()));
        for n in 0..numbers.below(20) + 1 {
            let size = numbers.size();
            entries.push(Entry::File(format!("{dir}/source_file_{n}.rs"), size));
        }
        dirs.push(dir);
    }
    entries
}

/// What tar's system calls are: create, write in pieces of 10 KiB, set times and mode.
fn unpack(root: &Path, entries: &[Entry], contents: &[u8]) -> io::Result<()> {
    let root = open_dir(root)?;
    let time = Timespec { tv_sec: 1_600_000_000, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
    for entry in entries {
        match entry {
            Entry::Dir(name) => rustix::fs::mkdirat(&root, name, Mode::from_raw_mode(0o700))?,
            Entry::File(name, size) => {
                let file = rustix::fs::openat(&root, name, flags, Mode::from_raw_mode(0o600))?;
                for piece in contents[..*size].chunks(10_240) {
                    rustix::io::write(&file, piece)?;
                }
                rustix::fs::futimens(&file, &times)?;
                rustix::fs::fchmod(&file, Mode::from_raw_mode(0o644))?;
            }
        }
    }
    for entry in entries.iter().rev() {
        if let Entry::Dir(name) = entry {
            rustix::fs::utimensat(&root, name, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
            rustix::fs::chmodat(&root, name, Mode::from_raw_mode(0o755), rustix::fs::AtFlags::empty())?;
        }
    }
    Ok(())
}

fn tree(bench: &mut Bench<'_>) -> io::Result<()> {
    let entries = archive(bench.scaled(6000));
    let amount = entries.len() as f64;
    let contents: Vec<u8> = (0..512 << 10).map(|n: u32| (n % 251) as u8).collect();
    let top = bench.target.root.join("unpacked");
    std::fs::create_dir(&top)?;
    bench.target.settle()?;
    bench.time("unpack", Unit::Ops, amount, |_| unpack(&top, &entries, &contents))?;
    bench.target.remount()?;
    let found = bench.count("du, remounted", Unit::Ops, |_| du(&top).map(|n| (n, n as f64)))?;
    if found != entries.len() as u64 {
        return Err(io::Error::other(format!("{found} entries instead of {}", entries.len())));
    }
    bench.count("du, again", Unit::Ops, |_| du(&top).map(|n| (n, n as f64)))?;
    bench.target.remount()?;
    bench.count("read all, remounted", Unit::Mb, |_| read_all(&top).map(|n| (n, n as f64 / 1e6)))?;
    bench.target.settle()?;
    bench.count("rm -rf", Unit::Ops, |_| remove_all(&top).map(|n| (n, n as f64)))?;
    bench.target.settle()?;
    bench.time("unpack, to clean unmount", Unit::Ops, amount, |target| {
        unpack(&top, &entries, &contents)?;
        target.unmount()
    })?;
    bench.target.mount()?;
    remove_all(&top)?;
    std::fs::remove_dir(&top)
}
