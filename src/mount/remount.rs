//! `-o remount,...`: the daemon first, then the kernel's flags; the other way round on the way to read-only.

use super::options::{MountOptions, OptionError};
use super::{client, rundir, table};
use crate::fuse::AtimeSwitch;
use crate::volume::Opened;
use rustix::mount::MountFlags;
use std::path::Path;

/// Remounts what is mounted on `dir`. What `options` does not name stays as it is.
pub(super) fn run(dir: &Path, options: &str) -> Result<(), String> {
    let say = |e: &dyn std::fmt::Display| format!("{}: {e}", dir.display());
    let target = dir.canonicalize().map_err(|e| say(&client::words(&e)))?;
    let entry = table::find(&target).ok_or_else(|| say(&"not a mounted gfs2r filesystem"))?;
    let run = rundir::find(&entry.target).ok_or_else(|| say(&"its daemon is gone (umount it, then mount it again)"))?;
    // The kernel forgets each flag that is not said again.
    let all = format!("{},{options}", entry.options);
    let wanted = MountOptions::parse(&all, true).map_err(|e| say(&e))?;
    let kernel = |read_only| {
        let mut flags = wanted.flags;
        flags.set(MountFlags::RDONLY, read_only);
        let done = rustix::mount::mount_remount(&*entry.target, flags, c"");
        done.map_err(|e| say(&client::words(&e.into())))
    };
    let read_only = wanted.open.read_only;
    let request = format!("remount {} {options}", if read_only { "ro" } else { "rw" });
    let was_read_only = entry.options.split(',').any(|o| o == "ro");
    if read_only && !was_read_only {
        kernel(true)?;
    }
    if let Err(e) = client::ask(&run.join("control"), &request) {
        if read_only && !was_read_only {
            kernel(false).map_err(|undo| format!("{}; {undo}", say(&e)))?;
        }
        return Err(say(&e));
    }
    kernel(read_only)
}

/// The daemon's part: checks the whole request before anything is changed.
pub(super) fn serve(
    opened: &Opened,
    now: &MountOptions,
    atime: &AtimeSwitch,
    read_only: bool,
    options: &str,
) -> Result<MountOptions, String> {
    let mut then = now.remounted(options).map_err(|e: OptionError| e.to_string())?;
    then.open.read_only = read_only;
    opened.remount(read_only).map_err(|e| match e {
        crate::error::Error::ReadOnly => {
            "it was mounted read-only and has no journal (unmount it, then mount it read-write)".to_owned()
        }
        crate::error::Error::Busy => "it is frozen (gfs2r thaw)".to_owned(),
        e => e.to_string(),
    })?;
    atime.set(then.atime);
    Ok(then)
}
