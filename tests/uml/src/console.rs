//! One stream of a guest's output: a thread reads it to its end, others look at it or wait for a line.

use std::io::Read;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// More than this of one stream is dropped; a guest that prints for ever must not eat the host's memory.
const MOST_BYTES: usize = 64 << 20;

#[derive(Debug, Default)]
struct Text {
    bytes: Vec<u8>,
    ended: bool,
}

/// The text that has arrived so far.
#[derive(Debug, Default)]
pub(crate) struct Console {
    text: Mutex<Text>,
    news: Condvar,
}

impl Console {
    /// Starts a thread that reads `stream` to its end. The thread ends when no process has the other end any more.
    pub(crate) fn read_from(mut stream: impl Read + Send + 'static) -> Arc<Console> {
        let console = Arc::new(Console::default());
        let shared = Arc::clone(&console);
        std::thread::spawn(move || {
            let mut buffer = [0u8; 8192];
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => shared.add(&buffer[..n]),
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    // A stream that cannot be read is a stream that has ended.
                    Err(_) => break,
                }
            }
            shared.lock().ended = true;
            shared.news.notify_all();
        });
        console
    }

    fn lock(&self) -> MutexGuard<'_, Text> {
        // The text is whole after any panic: bytes are only appended.
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, bytes: &[u8]) {
        let mut text = self.lock();
        let room = MOST_BYTES.saturating_sub(text.bytes.len()).min(bytes.len());
        text.bytes.extend_from_slice(&bytes[..room]);
        self.news.notify_all();
    }

    /// What has arrived so far.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock().bytes).into_owned()
    }

    /// Waits until the stream has ended; false when `deadline` came first.
    pub(crate) fn wait_for_end(&self, deadline: Instant) -> bool {
        let mut text = self.lock();
        while !text.ended {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            text = self.news.wait_timeout(text, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Waits for a complete line that contains `needle`, counting lines that came before; `None` when the stream ended
    /// or `deadline` came first.
    pub(crate) fn wait_for_line(&self, needle: &str, deadline: Instant) -> Option<String> {
        let mut text = self.lock();
        let mut from = 0; // the start of the first line that has not been looked at
        loop {
            while let Some(length) = text.bytes[from..].iter().position(|&b| b == b'\n') {
                let line = String::from_utf8_lossy(&text.bytes[from..from + length]).into_owned();
                if line.contains(needle) {
                    return Some(line);
                }
                from += length + 1;
            }
            if text.ended {
                return None;
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            text = self.news.wait_timeout(text, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_line_is_found_only_when_complete() {
        let console = Console::read_from(&b"one\ntwo marker\nthree mark"[..]);
        let deadline = Instant::now() + Duration::from_secs(10);
        assert!(console.wait_for_end(deadline));
        assert_eq!(console.wait_for_line("marker", deadline).as_deref(), Some("two marker"));
        assert_eq!(console.wait_for_line("three", deadline), None);
        assert_eq!(console.text(), "one\ntwo marker\nthree mark");
    }
}
