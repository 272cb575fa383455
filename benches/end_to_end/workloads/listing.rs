//! A directory of 50,000 entries.

use super::Suite;
use super::walk::entries;
use crate::measure::{Bench, Unit, exists, open_dir};
use crate::targets::Kind;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::io;

pub(super) const LISTING: Suite = Suite {
    name: "a directory of 50000",
    rows: &["readdir, remounted", "readdir, again", "ls -l, remounted"],
    // fuse2fs lists 600 entries of such a directory in a second, and looks for each name from its start.
    fits: |kind| kind.is_filesystem() && kind != Kind::Fuse2fs,
    needs_mount: true,
    run: listing,
};

fn listing(bench: &mut Bench<'_>) -> io::Result<()> {
    let amount = bench.scaled(50_000);
    let top = bench.target.root.join("listing");
    if !exists(&top) {
        std::fs::create_dir(&top)?;
        let dir = open_dir(&top)?;
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        for n in 0..amount {
            rustix::fs::openat(&dir, format!("entry-{n:06}"), flags, Mode::from_raw_mode(0o644))?;
        }
    }
    let amount = amount as f64;
    let list = || -> io::Result<()> {
        let found = entries(&open_dir(&top)?)?.len();
        if found == amount as usize { Ok(()) } else { Err(io::Error::other(format!("{found} entries listed"))) }
    };
    bench.target.remount()?;
    bench.time("readdir, remounted", Unit::Ops, amount, |_| list())?;
    bench.time("readdir, again", Unit::Ops, amount, |_| list())?;
    bench.target.remount()?;
    bench.time("ls -l, remounted", Unit::Ops, amount, |_| {
        let dir = open_dir(&top)?;
        for (name, _) in entries(&dir)? {
            rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    })
}
