//! `umount.gfs2r`: unmounts, and returns once the volume is clean.

use super::{client, rundir, table};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How to unmount.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How {
    /// Detach now, do not wait.
    pub(super) lazy: bool,
    /// Abort what is under way when the daemon does not answer.
    pub(super) force: bool,
    /// Remount read-only what is in use.
    pub(super) read_only: bool,
}

/// Why it was not unmounted.
#[derive(Debug)]
pub(super) enum UmountError {
    NotMounted(PathBuf),
    System(PathBuf, io::Error),
    ReadOnly(PathBuf),
    NotClean(String),
}

impl fmt::Display for UmountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMounted(what) => write!(f, "{}: not mounted", what.display()),
            Self::System(what, e) if is_busy(e) => {
                write!(f, "{}: in use (fuser -vm {0} shows by whom)", what.display())
            }
            Self::System(what, e) => write!(f, "{}: {}", what.display(), client::words(e)),
            Self::ReadOnly(what) => write!(f, "{}: in use, so it was remounted read-only", what.display()),
            Self::NotClean(why) => {
                write!(f, "unmounted, but the volume is not clean: {why} (the next mount replays its journal)")
            }
        }
    }
}

fn is_busy(e: &io::Error) -> bool {
    e.raw_os_error() == Some(Errno::BUSY.raw_os_error())
}

/// Unmounts what is mounted on `what`, or from the device or image `what`; says where it was.
pub(super) fn run(what: &Path, how: How) -> Result<PathBuf, UmountError> {
    let system = |e: io::Error| UmountError::System(what.to_owned(), e);
    let target = mount_point(what)?;
    let dir = rundir::find(&target);
    let end = dir.clone().map(rundir::end_of).transpose().map_err(system)?;
    let mut flags = UnmountFlags::empty();
    flags.set(UnmountFlags::DETACH, how.lazy);
    // Aborting loses what the kernel has collected, so it is for a daemon that does not answer.
    let answers = || dir.as_deref().is_some_and(|d| client::answers(&d.join("control"), Duration::from_secs(5)));
    flags.set(UnmountFlags::FORCE, how.force && !answers());
    match unmount(&target, flags).map_err(io::Error::from) {
        Err(e) if how.read_only && is_busy(&e) => {
            super::remount::run(&target, "remount,ro").map_err(|e| system(io::Error::other(e)))?;
            return Err(UmountError::ReadOnly(what.to_owned()));
        }
        result => result.map_err(system)?,
    }
    let Some(end) = end.filter(|_| !how.lazy) else { return Ok(target) };
    match end.wait().map_err(system)? {
        Some(error) => Err(UmountError::NotClean(error)),
        None => Ok(target),
    }
}

/// The name under which the program unmounts.
pub(super) const PROGRAM: &str = "umount.gfs2r";
/// Set when a daemon that was told to end starts [`leave`].
pub(super) const LEAVING: &str = "GFS2R_LEAVING";

/// Writes back and unmounts, for the daemon; what is in use is detached. True when it was unmounted.
pub(super) fn leave(target: &Path) -> io::Result<bool> {
    let synced = std::fs::File::open(target).and_then(|dir| rustix::fs::syncfs(&dir).map_err(io::Error::from));
    if unmount(target, UnmountFlags::empty()).is_ok() {
        return Ok(true);
    }
    unmount(target, UnmountFlags::DETACH)?;
    synced.map(|()| false)
}

/// The last mount point of ours that is `what` or whose source is. A mount whose daemon is gone cannot be canonicalized.
fn mount_point(what: &Path) -> Result<PathBuf, UmountError> {
    let found = match what.canonicalize() {
        Ok(canonical) => table::find(&canonical),
        Err(e) => {
            let absolute = std::path::absolute(what).unwrap_or_else(|_| what.to_owned());
            return table::find(&absolute).map(|e| e.target).ok_or_else(|| UmountError::System(what.to_owned(), e));
        }
    };
    found.map(|e| e.target).ok_or_else(|| UmountError::NotMounted(what.to_owned()))
}
