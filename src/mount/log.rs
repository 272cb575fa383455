//! Where the daemon's log goes: stderr in the foreground, the system log (journald or syslog) in the background.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The socket of journald and of every syslog daemon.
const SOCKET: &str = "/dev/log";
/// Longest message to the system log; what is longer is cut.
const MESSAGE_MAX: usize = 8192;

/// Starts logging to stderr; `GFS2R_LOG` is the filter.
pub(super) fn to_stderr() {
    let builder = tracing_subscriber::fmt().with_env_filter(filter()).with_writer(io::stderr);
    // Only a second call in one process fails, and then the first one serves.
    let _already = builder.with_ansi(is_colourful()).try_init().is_err();
    panics_are_logged();
}

/// Starts logging to the system log, or where there is none to `file`.
pub(super) fn to_system(file: &Path) -> io::Result<()> {
    if let Some(socket) = connect() {
        // The system log has its own times and levels.
        let system = System(Arc::new(Mutex::new(socket)));
        let builder = tracing_subscriber::fmt().with_env_filter(filter()).with_ansi(false).with_writer(system);
        builder.without_time().with_level(false).with_target(false).try_init().map_err(io::Error::other)?;
    } else {
        let file = Mutex::new(File::options().create(true).append(true).open(file)?);
        let builder = tracing_subscriber::fmt().with_env_filter(filter()).with_ansi(false).with_writer(file);
        builder.try_init().map_err(io::Error::other)?;
    }
    panics_are_logged();
    Ok(())
}

/// The filter of `GFS2R_LOG`; one that cannot be read is said and passed over.
fn filter() -> EnvFilter {
    let given = std::env::var("GFS2R_LOG").unwrap_or_default();
    match EnvFilter::try_new(if given.is_empty() { "info" } else { &given }) {
        Ok(filter) => filter,
        Err(e) => {
            eprintln!("mount.gfs2r: GFS2R_LOG: {e} (such as: info, debug, gfs2r::journal=trace)");
            EnvFilter::new("info")
        }
    }
}

fn is_colourful() -> bool {
    std::io::IsTerminal::is_terminal(&io::stderr()) && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

/// A daemon in the background has no stderr: what a panic says would be lost.
fn panics_are_logged() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        tracing::error!("{info}");
        usual(info);
    }));
}

fn connect() -> Option<UnixDatagram> {
    let socket = UnixDatagram::unbound().ok()?;
    socket.connect(SOCKET).ok()?;
    Some(socket)
}

/// Makes a writer for each message, with its priority.
struct System(Arc<Mutex<UnixDatagram>>);

/// A message on its way to the system log.
struct Message {
    socket: Arc<Mutex<UnixDatagram>>,
    priority: u8,
}

impl<'a> MakeWriter<'a> for System {
    type Writer = Message;
    fn make_writer(&'a self) -> Message {
        Message { socket: Arc::clone(&self.0), priority: priority(Level::INFO) }
    }
    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Message {
        Message { socket: Arc::clone(&self.0), priority: priority(*meta.level()) }
    }
}

/// Facility daemon (3) and the severity.
fn priority(level: Level) -> u8 {
    let severity = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    };
    (3 << 3) | severity
}

/// A line as the system log takes it.
fn datagram(priority: u8, pid: u32, line: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(line);
    let mut message = format!("<{priority}>gfs2r[{pid}]: {}", text.trim()).into_bytes();
    message.truncate(MESSAGE_MAX);
    message
}

impl Write for Message {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let message = datagram(self.priority, std::process::id(), line);
        // A thread that panicked while it held the socket leaves it usable.
        let mut socket = self.socket.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if socket.send(&message).is_err() {
            // The system log was started anew.
            *socket = connect().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
            socket.send(&message)?;
        }
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What to name when somebody asks where the log is: a file, or the system log.
pub(super) fn place(file: &Path) -> Option<PathBuf> {
    file.exists().then(|| file.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_a_priority_and_an_end() {
        assert_eq!(datagram(priority(Level::ERROR), 7, b" went wrong\n"), b"<27>gfs2r[7]: went wrong");
        assert_eq!(datagram(priority(Level::INFO), 7, &[b'x'; 10_000]).len(), MESSAGE_MAX);
    }
}
