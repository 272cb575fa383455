//! Runtime state: `/run/gfs2r/NAME/` with the daemon's pid (locked while it lives), the mount point and the control socket; and
//! `/run/gfs2r/node-CLUSTER.NODE/` for a node of a cluster, with the socket that takes further mounts.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::net::UnixListener;
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
        let pid = hold(&path)?;
        fs::write(path.join("target"), target.as_os_str().as_encoded_bytes())?;
        remove_if_there(&path.join("error"))?;
        remove_if_there(&path.join("waiting"))?;
        Ok(Self { path, _pid: pid })
    }

    /// The log is that of the node's daemon.
    pub(super) fn share_log(&self, who: &str) -> io::Result<()> {
        remove_if_there(&self.log())?;
        std::os::unix::fs::symlink(node_path(who).join("log"), self.log())
    }

    /// Says what the mount waits for, or that it waits no longer.
    pub(super) fn set_waiting(&self, what: Option<&str>, source: &Path) {
        let path = self.path.join("waiting");
        let said = match what {
            Some(what) => fs::write(path, format!("{}\n{what}", source.display())),
            None => remove_if_there(&path),
        };
        if let Err(e) = said {
            tracing::debug!("{}: {e}", self.path.display());
        }
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
    pub(super) fn leave_error(&self, error: &str) -> io::Result<()> {
        fs::write(self.path.join("error"), error)
    }

    /// Removes the folder: the volume is clean. The lock stays until this is dropped or the process has ended: other threads
    /// may still hold the device open, and who waits for us wants to mount it again.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.path)
    }

    /// Whoever waits for the end of the volume may go on.
    pub(super) fn release(self) -> io::Result<()> {
        self._pid.unlock()
    }
}

/// Folders are made and sockets bound one at a time: the process has one umask.
static MAKING: std::sync::Mutex<()> = std::sync::Mutex::new(());

fn making() -> std::sync::MutexGuard<'static, ()> {
    MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Makes a folder and holds it for this process; `AlreadyExists` when a living daemon has it.
fn hold(path: &Path) -> io::Result<File> {
    let _one_at_a_time = making();
    fs::create_dir_all(path)?;
    let mut pid = File::options().create(true).truncate(false).write(true).read(true).open(path.join("pid"))?;
    match pid.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::AlreadyExists.into()),
        Err(TryLockError::Error(e)) => return Err(e),
    }
    pid.set_len(0)?;
    writeln!(pid, "{}", std::process::id())?;
    remove_if_there(&path.join("control"))?;
    Ok(pid)
}

/// Listens on a socket to which nobody but root may connect, from the first moment.
pub(super) fn listen(path: &Path) -> io::Result<UnixListener> {
    let _one_at_a_time = making();
    let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    listener
}

/// The folder of a node of a cluster, held by the daemon that is it.
pub(super) struct NodeDir {
    path: PathBuf,
    _pid: File,
}

fn node_path(who: &str) -> PathBuf {
    root().join(format!("node-{}", who.replace('/', "_")))
}

impl NodeDir {
    /// Claims it; `AlreadyExists` when a living daemon has it.
    pub(super) fn claim(who: &str) -> io::Result<Self> {
        let path = node_path(who);
        hold(&path).map(|pid| Self { path, _pid: pid })
    }

    /// Where that daemon takes mounts.
    pub(super) fn control_of(who: &str) -> PathBuf {
        node_path(who).join("control")
    }
    pub(super) fn control(&self) -> PathBuf {
        self.path.join("control")
    }
    /// Where the log goes when there is no system log.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// The node is no more. A log stays to which the folder of a volume refers that was not closed cleanly.
    pub(super) fn remove(self) -> io::Result<()> {
        remove_if_there(&self.control())?;
        let refers = |folder: &PathBuf| fs::read_link(folder.join("log")).is_ok_and(|log| log == self.log());
        if fs::read_dir(root())?.filter_map(Result::ok).any(|entry| refers(&entry.path())) {
            return Ok(());
        }
        fs::remove_dir_all(&self.path)
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

/// What is mounted here and what it waits for, as long as its daemon lives.
pub(super) fn waiting(folder: &Path) -> Option<(String, String)> {
    let said = if is_alive(folder) { fs::read_to_string(folder.join("waiting")).ok()? } else { return None };
    said.split_once('\n').map(|(source, what)| (source.to_owned(), what.to_owned()))
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
        for name in ["target", "control", "error", "waiting", "pid"] {
            remove_if_there(&dir.join(name))?;
        }
        // Only when nothing is left in it.
        match fs::remove_dir(dir) {
            Err(e) if !matches!(e.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::NotFound) => Err(e),
            _ => Ok(Some(error)),
        }
    }
}
