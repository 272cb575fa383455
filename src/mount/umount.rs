//! `umount.gfs2r`: unmounts, and returns once the volume is clean.

use super::rundir;
use rustix::mount::{UnmountFlags, unmount};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// How to unmount.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How {
    pub(super) lazy: bool,
    pub(super) force: bool,
}

/// Why it was not unmounted.
#[derive(Debug)]
pub(super) enum UmountError {
    NotMounted(PathBuf),
    System(PathBuf, io::Error),
    NotClean(String),
}

impl fmt::Display for UmountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotMounted(what) => write!(f, "{}: not mounted", what.display()),
            Self::System(what, e) if e.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                write!(f, "{}: in use (fuser -vm {0} shows by whom)", what.display())
            }
            Self::System(what, e) => write!(f, "{}: {e}", what.display()),
            Self::NotClean(why) => {
                write!(f, "unmounted, but the volume is not clean: {why} (the next mount replays its journal)")
            }
        }
    }
}

/// Unmounts what is mounted on `what`, or from the device or image `what`.
pub(super) fn run(what: &Path, how: How) -> Result<(), UmountError> {
    let system = |e: io::Error| UmountError::System(what.to_owned(), e);
    let canonical = what.canonicalize().map_err(system)?;
    let target = mount_point(&canonical).ok_or_else(|| UmountError::NotMounted(what.to_owned()))?;
    let end = rundir::find(&target).map(rundir::end_of).transpose().map_err(system)?;
    let mut flags = UnmountFlags::empty();
    flags.set(UnmountFlags::DETACH, how.lazy);
    flags.set(UnmountFlags::FORCE, how.force);
    unmount(&target, flags).map_err(|e| system(e.into()))?;
    let Some(end) = end.filter(|_| !how.lazy) else { return Ok(()) };
    match end.wait().map_err(system)? {
        Some(error) => Err(UmountError::NotClean(error)),
        None => Ok(()),
    }
}

/// The last mount point of ours that is `what` or whose source is.
fn mount_point(what: &Path) -> Option<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    table.lines().rev().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let target = PathBuf::from(unescape(left.split(' ').nth(4)?));
        let mut right = right.split(' ');
        let (kind, source) = (right.next()?, PathBuf::from(unescape(right.next()?)));
        let ours = kind == "fuse.gfs2r" || kind == "fuseblk.gfs2r";
        (ours && (target == what || source == what)).then_some(target)
    })
}

/// `major:minor` of what is mounted on `target`, from the mount table.
pub(super) fn device_number(target: &Path) -> Option<String> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    table.lines().rev().find_map(|line| {
        let mut fields = line.split(' ');
        let number = fields.nth(2)?;
        (Path::new(&unescape(fields.nth(1)?)) == target).then(|| number.to_owned())
    })
}

/// mountinfo writes blanks and backslashes as `\040` and the like.
fn unescape(field: &str) -> String {
    let mut out = String::new();
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        match rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    #[test]
    fn blanks_in_mount_points() {
        assert_eq!(super::unescape("/mnt/a\\040b\\134c"), "/mnt/a b\\c");
    }
}
