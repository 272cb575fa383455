//! Asking running mounts: their runtime folders and control sockets. What `gfs2r status` and its like are made of.

use super::{rundir, table};
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest answer that is taken: a dump of some millions of locks.
const ANSWER_MAX: u64 = 1 << 30;
/// How long a question that needs no disk may take.
const SOON: Duration = Duration::from_secs(10);

/// A mount with a daemon.
#[derive(Clone, Debug)]
pub struct Mounted {
    folder: PathBuf,
    target: PathBuf,
}

impl Mounted {
    /// The mount that `what` is on, or that `what` is the device or image of.
    pub fn find(what: &Path) -> Result<Self, String> {
        // First without looking at the mount: its daemon may be gone, or a request may wait for what is asked here.
        let absolute = match std::path::absolute(what).ok().filter(|p| table::find(p).is_some()) {
            Some(path) => path,
            None => what.canonicalize().map_err(|e| words(&e))?,
        };
        let entry = table::containing(&absolute).ok_or("not on a mounted gfs2r filesystem")?;
        let folder = rundir::find(&entry.target).ok_or_else(|| {
            format!(
                "no runtime folder for it in {} (was it mounted with another GFS2R_RUN_DIR?)",
                rundir::root().display()
            )
        })?;
        Ok(Self { folder, target: entry.target })
    }

    /// The same for work that needs no mount: `None` for a device or an image that is not mounted here.
    pub fn of_volume(what: &Path) -> Result<Option<Self>, String> {
        match Self::find(what) {
            Ok(mounted) => Ok(Some(mounted)),
            Err(why) if what.is_dir() || !what.exists() => Err(why),
            Err(_) => Ok(None),
        }
    }

    /// All of this host, by the name of their folders.
    pub fn all() -> io::Result<Vec<Self>> {
        let entries = match std::fs::read_dir(rundir::root()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let folder = entry?.path();
            // A folder that is just being made or removed has no target.
            if let Some(target) = rundir::target(&folder) {
                all.push(Self { folder, target });
            }
        }
        all.sort_by(|a, b| a.folder.cmp(&b.folder));
        Ok(all)
    }

    /// Where it is mounted.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Asks its daemon; waits for the answer as long as it takes.
    pub fn ask(&self, request: &str) -> Result<Value, String> {
        let answer = ask(&self.folder.join("control"), request).map_err(|e| match e.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => {
                "its daemon is gone (umount it, then mount it again)".to_owned()
            }
            io::ErrorKind::PermissionDenied => "only root may ask its daemon".to_owned(),
            _ => words(&e),
        })?;
        if answer.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&answer).map_err(|e| format!("the daemon's answer cannot be read: {e}"))
    }

    /// What `gfs2r status` shows of it. A daemon that is gone or does not answer is a state, not an error.
    pub fn status(&self) -> Value {
        let state = match ask_within(&self.folder.join("control"), "status", Some(SOON)) {
            Ok(answer) => match serde_json::from_str(&answer) {
                Ok(status) => return status,
                Err(_) => "unknown",
            },
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {
                if let Some((source, what)) = rundir::waiting(&self.folder) {
                    let log = super::log::place(&self.folder.join("log"));
                    return json!({ "directory": self.target, "source": source, "state": "mounting", "waiting_for": what, "log": log });
                }
                "dead"
            }
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => "unknown",
            Err(_) => "hung",
        };
        let source = table::find(&self.target).map(|e| e.source);
        json!({ "directory": self.target, "source": source, "state": state, "log": super::log::place(&self.folder.join("log")) })
    }
}

/// Asks the daemon behind `socket`; the words after `ok`.
pub(super) fn ask(socket: &Path, request: &str) -> io::Result<String> {
    ask_within(socket, request, None)
}

/// True when the daemon answers a simple question in time.
pub(super) fn answers(socket: &Path, within: Duration) -> bool {
    ask_within(socket, "ping", Some(within)).is_ok()
}

fn ask_within(socket: &Path, request: &str, within: Option<Duration>) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(within)?;
    writeln!(stream, "{request}")?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_MAX)).read_line(&mut line)?;
    match line.trim_end().split_once(' ').unwrap_or((line.trim_end(), "")) {
        ("ok", rest) => Ok(rest.into()),
        ("error", why) => Err(io::Error::other(why.to_owned())),
        _ => Err(io::Error::other("the daemon ended without an answer")),
    }
}

/// An error without the number that [`io::Error`] adds.
pub fn words(e: &io::Error) -> String {
    let text = e.to_string();
    match text.rfind(" (os error ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}
