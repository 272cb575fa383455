//! Runtime state: `/run/gfs2r/NAME/` with the daemon's pid (locked while it lives), the mount point and the control socket.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The folder of all mounts: `GFS2R_RUN_DIR`, or `/run/gfs2r`.
pub(super) fn root() -> PathBuf {
    std::env::var_os("GFS2R_RUN_DIR").map_or_else(|| PathBuf::from("/run/gfs2r"), PathBuf::from)
}

/// The runtime folder of one mount, held by its daemon.
pub(super) struct RunDir {
    path: PathBuf,
    /// Locked as long as the daemon lives: the kernel lets go of it however the daemon ends.
    _pid: File,
}

impl RunDir {
    /// Claims the folder for this process; `AlreadyExists` when a living daemon has it.
    pub(super) fn claim(name: &str, target: &Path) -> io::Result<Self> {
        let path = root().join(name.replace('/', "_"));
        fs::create_dir_all(&path)?;
        let mut pid = File::options().create(true).truncate(false).write(true).read(true).open(path.join("pid"))?;
        match pid.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::AlreadyExists.into()),
            Err(TryLockError::Error(e)) => return Err(e),
        }
        pid.set_len(0)?;
        writeln!(pid, "{}", std::process::id())?;
        fs::write(path.join("target"), target.as_os_str().as_encoded_bytes())?;
        remove_if_there(&path.join("error"))?;
        remove_if_there(&path.join("control"))?;
        Ok(Self { path, _pid: pid })
    }

    /// Where the control socket is.
    pub(super) fn control(&self) -> PathBuf {
        self.path.join("control")
    }

    /// Where the log goes when there is no system log.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Leaves word for umount that the volume was not closed cleanly. The lock stays, as in [`RunDir::remove`].
    pub(super) fn leave_error(self, error: &str) -> io::Result<()> {
        let left = fs::write(self.path.join("error"), error);
        std::mem::forget(self);
        left
    }

    /// Removes the folder: the volume is clean.
    pub(super) fn remove(self) -> io::Result<()> {
        let removed = fs::remove_dir_all(&self.path);
        // The lock stays until the process has ended: other threads may still hold the device open, and who waits for us
        // wants to mount it again.
        std::mem::forget(self);
        removed
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The runtime folder of what is mounted on `target`; one of a living daemon before one that a killed daemon left.
pub(super) fn find(target: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(root()).ok()?;
    let of_target =
        |dir: &PathBuf| fs::read(dir.join("target")).is_ok_and(|t| t == target.as_os_str().as_encoded_bytes());
    let found: Vec<PathBuf> = entries.filter_map(Result::ok).map(|e| e.path()).filter(of_target).collect();
    found.iter().find(|dir| is_alive(dir)).or(found.first()).cloned()
}

/// True while a daemon holds the folder.
fn is_alive(dir: &Path) -> bool {
    File::open(dir.join("pid")).is_ok_and(|pid| matches!(pid.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// Where the mount of this folder is.
pub(super) fn target(folder: &Path) -> Option<PathBuf> {
    use std::os::unix::ffi::OsStringExt;
    fs::read(folder.join("target")).ok().map(|t| PathBuf::from(std::ffi::OsString::from_vec(t)))
}

/// The end of a daemon, to be waited for.
pub(super) struct End {
    dir: PathBuf,
    /// None: it was gone already.
    pid: Option<File>,
}

/// Prepares to wait for the daemon of this folder. To be called before it is told to end: it removes the folder a little
/// before that.
pub(super) fn end_of(dir: PathBuf) -> io::Result<End> {
    let pid = match File::open(dir.join("pid")) {
        Ok(pid) => Some(pid),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    Ok(End { dir, pid })
}

impl End {
    /// Waits until the daemon has ended and holds nothing any more; its parting error, if it left one.
    pub(super) fn wait(self) -> io::Result<Option<String>> {
        let Self { dir, pid } = self;
        let Some(pid) = pid else { return Ok(None) };
        pid.lock_shared()?;
        // The lock is given up after the folder was removed: if it is still there, the daemon did not close the volume.
        let error = match fs::read_to_string(dir.join("error")) {
            Ok(error) => error,
            Err(e) if e.kind() == io::ErrorKind::NotFound && !dir.join("pid").exists() => return Ok(None),
            Err(e) if e.kind() == io::ErrorKind::NotFound => "its daemon was killed".into(),
            Err(e) => return Err(e),
        };
        // The log stays for whoever wants to know why.
        for name in ["target", "control", "error", "pid"] {
            remove_if_there(&dir.join(name))?;
        }
        // Only when nothing is left in it.
        match fs::remove_dir(dir) {
            Err(e) if !matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => Err(e),
            _ => Ok(Some(error)),
        }
    }
}
