//! Where the daemon's log goes: stderr in the foreground, the system log in the background.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Mutex;
use tracing_subscriber::EnvFilter;

/// Starts logging to stderr; `GFS2R_LOG` is the filter.
pub(super) fn to_stderr() {
    let _already = tracing_subscriber::fmt().with_env_filter(filter()).with_writer(io::stderr).try_init().is_err();
}

/// Starts logging to the system log, or where there is none to `file`.
pub(super) fn to_system(file: &Path) -> io::Result<()> {
    let sink = match syslog() {
        Some(socket) => Sink::Syslog(socket),
        None => Sink::File(File::options().create(true).append(true).open(file)?),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter()).with_ansi(false).with_writer(Mutex::new(sink));
    builder.try_init().map_err(io::Error::other)
}

fn filter() -> EnvFilter {
    EnvFilter::try_from_env("GFS2R_LOG").unwrap_or_else(|_| EnvFilter::new("info"))
}

fn syslog() -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect("/dev/log").ok()?;
    Some(socket)
}

enum Sink {
    Syslog(UnixDatagram),
    File(File),
}

impl Write for Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self {
            Self::Syslog(socket) => {
                // Facility daemon (3), severity notice (5).
                let message =
                    format!("<29>gfs2r[{}]: {}", std::process::id(), String::from_utf8_lossy(line).trim_end());
                socket.send(message.as_bytes())?;
                Ok(line.len())
            }
            Self::File(file) => file.write(line),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Syslog(_) => Ok(()),
            Self::File(file) => file.flush(),
        }
    }
}
