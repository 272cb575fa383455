//! The processes behind the mounts.

use super::wait_until;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A filesystem's daemon.
pub(crate) struct Daemon {
    pids: Vec<u32>,
    child: Option<Child>,
    talk: Option<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Daemon {
    /// The daemon that `mount.gfs2r` left behind.
    pub(super) fn of_gfs2r(root: &Path) -> io::Result<Self> {
        let all = std::env::var_os("GFS2R_RUN_DIR").unwrap_or_else(|| "/run/gfs2r".into());
        Self::of_mounts(&[(all.into(), root.to_owned())])
    }

    /// The daemons of these runtime folders and mount points.
    pub(super) fn of_mounts(mounts: &[(PathBuf, PathBuf)]) -> io::Result<Self> {
        let pids = mounts.iter().map(|(all, root)| Self::pid(all, root)).collect::<io::Result<_>>()?;
        Ok(Self { pids, child: None, talk: None })
    }

    fn pid(all: &Path, root: &Path) -> io::Result<u32> {
        let root = root.canonicalize()?;
        for entry in std::fs::read_dir(all)? {
            let entry = entry?.path();
            let target = std::fs::read(entry.join("target")).unwrap_or_default();
            if target == root.as_os_str().as_encoded_bytes() {
                let pid = std::fs::read_to_string(entry.join("pid"))?;
                return pid.trim().parse().map_err(io::Error::other);
            }
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "mount.gfs2r left no daemon"))
    }

    /// The floor on a directory, waiting to be told to mount.
    pub(super) fn floor(root: &Path, shared: bool) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("--serve-floor")
            .arg(root)
            .args(shared.then_some("--shared"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(to), Some(from)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("a child without pipes"));
        };
        Ok(Self { pids: vec![child.id()], child: Some(child), talk: Some((to, BufReader::new(from))) })
    }

    /// lock_nolock, served by this program as a mount of a cluster is.
    pub(super) fn alike(disk: &Path, root: &Path) -> io::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--serve-alike").arg(disk).arg("--on").arg(root);
        Self::foreground("the mount", command, root)
    }

    /// fuse2fs as Debian ships it, with its own defaults.
    pub(super) fn fuse2fs(disk: &Path, root: &Path) -> io::Result<Self> {
        let mut command = Command::new("fuse2fs");
        command.arg(disk).arg(root).arg("-f").stderr(Stdio::null());
        Self::foreground("fuse2fs", command, root)
    }

    /// A program that mounts on `root` and stays.
    fn foreground(what: &str, mut command: Command, root: &Path) -> io::Result<Self> {
        let before = rustix::fs::stat(root)?.st_dev;
        let mut child = command.stdout(Stdio::null()).spawn()?;
        let mut ended = false;
        wait_until(what, || {
            ended = child.try_wait().is_ok_and(|status| status.is_some());
            ended || rustix::fs::stat(root).is_ok_and(|s| s.st_dev != before)
        })?;
        if ended {
            return Err(io::Error::other(format!("{what} ended at once")));
        }
        Ok(Self { pids: vec![child.id()], child: Some(child), talk: None })
    }

    /// Says a word and waits for the answer.
    pub(super) fn tell(&mut self, word: &str, answer: &str) -> io::Result<()> {
        if let Some((to, _)) = &mut self.talk {
            writeln!(to, "{word}")?;
            to.flush()?;
        }
        self.hear(answer)
    }

    /// Waits for a word.
    pub(super) fn hear(&mut self, word: &str) -> io::Result<()> {
        let mut line = String::new();
        if let Some((_, from)) = &mut self.talk {
            from.read_line(&mut line)?;
        }
        if line.trim() == word { Ok(()) } else { Err(io::Error::other(format!("the floor said '{}'", line.trim()))) }
    }

    /// Waits until it has ended, after an unmount.
    pub(super) fn wait(mut self) -> io::Result<()> {
        match &mut self.child {
            Some(child) => child.wait().map(drop),
            None => Ok(()),
        }
    }

    /// The processor time of its threads in seconds.
    pub(super) fn cpu(&self) -> f64 {
        let of_thread = |task: std::fs::DirEntry| -> Option<f64> {
            let schedstat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            schedstat.split(' ').next()?.parse().ok()
        };
        let tasks = |pid: &u32| std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let tasks = self.pids.iter().flat_map(tasks);
        tasks.filter_map(of_thread).sum::<f64>() / 1e9
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The floor ends when its standard input does.
        self.talk = None;
        if let Some(child) = &mut self.child {
            drop(child.wait());
        }
    }
}

/// Runs a program to its end; its last words when it fails.
pub(super) fn run(command: &mut Command) -> io::Result<()> {
    let out = command.stdin(Stdio::null()).output()?;
    if out.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&out.stderr);
    let last = words.lines().last().unwrap_or("no message");
    Err(io::Error::other(format!("{}: {}: {last}", command.get_program().to_string_lossy(), out.status)))
}
