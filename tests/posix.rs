//! A conformance run through a real mount, in the spirit of pjdfstest: what each system call returns, changes and leaves alone.
//! All checks run; the failures are listed at the end. Needs root, /dev/fuse and mkfs.gfs2, and says so loudly where it cannot
//! run. `GFS2R_POSIX_ON=DIR` runs the checks on another filesystem instead, to see what its kernel says.

#![allow(unreachable_pub, reason = "the modules of one test")]

#[path = "posix/acl.rs"]
mod acl;
#[path = "posix/attrs.rs"]
mod attrs;
#[path = "posix/data.rs"]
mod data;
#[path = "posix/flags.rs"]
mod flags;
#[path = "posix/full.rs"]
mod full;
#[path = "posix/harness.rs"]
mod harness;
#[path = "posix/limits.rs"]
mod limits;
#[path = "posix/linux.rs"]
mod linux;
#[path = "posix/listing.rs"]
mod listing;
#[path = "posix/locks.rs"]
mod locks;
#[path = "posix/mounts.rs"]
mod mounts;
#[path = "posix/names.rs"]
mod names;
#[path = "posix/open.rs"]
mod open;
#[path = "posix/rename.rs"]
mod rename;
#[path = "posix/rights.rs"]
mod rights;
#[path = "posix/times.rs"]
mod times;
#[path = "posix/xattr.rs"]
mod xattr;

use harness::{Mounted, T, can_run};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// A name and what it checks.
type Chapter = (&'static str, fn(&T));

#[test]
fn conformance() {
    if !can_run() {
        return;
    }
    // The whole process: nobody of whom we act on behalf has root's groups.
    nix::unistd::setgroups(&[]).expect("root may drop groups");
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    if let Some(elsewhere) = std::env::var_os("GFS2R_POSIX_ON") {
        return system_calls(None, PathBuf::from(elsewhere));
    }
    for options in ["acl", "acl,transport=fuser"] {
        println!("mounted with {options}");
        let mounted = Mounted::new("512M", options);
        let root = mounted.dir();
        system_calls(Some(mounted), root);
    }
}

/// The chapter of the full disk was run.
static FULL: AtomicBool = AtomicBool::new(false);

/// All chapters on one filesystem; panics when a check failed.
fn system_calls(mounted: Option<Mounted>, root: PathBuf) {
    let t = T::new(root, mounted.as_ref().map(Mounted::daemon));
    let chapters: &[Chapter] = &[
        ("open", open::run),
        ("names", names::run),
        ("rename", rename::run),
        ("attrs", attrs::run),
        ("times", times::run),
        ("limits", limits::run),
        ("rights", rights::run),
        ("data", data::run),
        ("linux", linux::run),
        ("flags", flags::run),
        ("xattr", xattr::run),
        ("acl", acl::run),
        ("locks", locks::run),
        ("listing", listing::run),
    ];
    for (name, chapter) in chapters {
        t.chapter(name, *chapter);
    }
    if let Some(mounted) = mounted {
        t.chapter("unmount", |t| mounted.finish(t));
        t.chapter("mounts", mounts::run);
        // Mounts of its own, on either transport.
        if !FULL.swap(true, Ordering::AcqRel) {
            t.chapter("full", full::run);
        }
    }
    t.report();
}
