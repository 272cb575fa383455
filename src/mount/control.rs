//! The control socket: one request line, one answer line, for `gfs2r status` and for remounting.

use crate::volume::Opened;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Listens on `path` in a thread of its own until the process ends.
pub(super) fn listen(path: &Path, opened: Arc<Opened>) -> io::Result<()> {
    let listener = UnixListener::bind(path)?;
    std::thread::Builder::new().name("gfs2r-control".into()).spawn(move || {
        for stream in listener.incoming() {
            if let Err(e) = stream.and_then(|s| serve(s, &opened)) {
                tracing::debug!("control connection: {e}");
            }
        }
    })?;
    Ok(())
}

fn serve(stream: UnixStream, opened: &Opened) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut line = String::new();
    BufReader::new(io::Read::take(&stream, 4096)).read_line(&mut line)?;
    let answer = match line.trim() {
        "remount ro" => answer(opened.remount(true)),
        "remount rw" => answer(opened.remount(false)),
        "sync" => answer(opened.fs.sync()),
        "status" => status(opened),
        other => format!("error unknown request '{other}'"),
    };
    let mut stream = stream;
    writeln!(stream, "{answer}")
}

fn answer(result: crate::error::Result<()>) -> String {
    match result {
        Ok(()) => "ok".into(),
        Err(e) => format!("error {e}"),
    }
}

fn status(opened: &Opened) -> String {
    let vol = opened.fs.volume();
    match vol.journal.withdrawn() {
        Some(cause) => format!("ok withdrawn {cause}"),
        None if opened.is_read_only() => "ok read-only".into(),
        None => "ok read-write".into(),
    }
}

/// Asks the daemon behind `socket`; the words after `ok`.
pub(super) fn ask(socket: &Path, request: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    writeln!(stream, "{request}")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    match line.trim_end().split_once(' ').unwrap_or((line.trim_end(), "")) {
        ("ok", rest) => Ok(rest.into()),
        ("error", why) => Err(io::Error::other(why.to_owned())),
        _ => Err(io::Error::other("the daemon ended without an answer")),
    }
}
