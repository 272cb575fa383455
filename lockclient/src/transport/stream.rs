//! A connection, plain or with TLS, that may be written from any thread and is read by one task.

use super::Sink;
use crate::ids::NodeId;
use crate::wire;
use rustls::Connection;
use std::io::{self, ErrorKind, Read, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// See the module.
#[derive(Debug)]
pub struct Stream {
    tcp: TcpStream,
    tls: Option<Mutex<Connection>>,
}

/// The socket as TLS wants to see it: takes and gives what it can, without waiting.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        take(self.0, buffer)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What TLS may hold back, encrypted, when the socket is full.
const SECRET_MAX: usize = 64 * 1024;
/// Plain bytes taken out of TLS at a time; a record has no more.
const RECORD: usize = 16 * 1024;

impl Stream {
    pub(super) fn plain(tcp: TcpStream) -> Stream {
        Stream { tcp, tls: None }
    }

    /// Shakes hands. The caller limits the time, and looks at the certificate.
    pub(crate) async fn secret(tcp: TcpStream, mut tls: Connection) -> io::Result<Stream> {
        tls.set_buffer_limit(Some(SECRET_MAX));
        loop {
            match push(&mut tls, &tcp) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    tcp.writable().await?;
                    continue;
                }
                other => other?,
            }
            if !tls.is_handshaking() {
                return Ok(Stream { tcp, tls: Some(Mutex::new(tls)) });
            }
            match tls.read_tls(&mut Socket(&tcp)) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => process(&mut tls, &tcp)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => tcp.readable().await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// The TLS connection, if it is one.
    pub(super) fn tls(&self) -> Option<MutexGuard<'_, Connection>> {
        // A panic elsewhere does not make it wrong: its own methods do not panic half-way.
        self.tls.as_ref().map(|tls| tls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes what the socket takes, and does not wait.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let Some(mut tls) = self.tls() else { return self.tcp.try_write(bytes) };
        push(&mut tls, &self.tcp)?;
        let taken = tls.writer().write(bytes)?;
        match push(&mut tls, &self.tcp) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Is everything that was taken in the socket? `WouldBlock` if it cannot be yet.
    pub fn try_flush(&self) -> io::Result<()> {
        self.tls().map_or(Ok(()), |mut tls| push(&mut tls, &self.tcp))
    }

    pub(super) async fn writable(&self) -> io::Result<()> {
        self.tcp.writable().await
    }

    /// Appends what has arrived; nothing means that the peer has ended the stream in order.
    fn try_read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        let mut record = [0; RECORD];
        let Some(mut tls) = self.tls() else {
            let length = take(&self.tcp, &mut record)?;
            buffer.extend_from_slice(&record[..length]);
            return Ok(length);
        };
        loop {
            match tls.reader().read(&mut record) {
                Ok(length) => {
                    buffer.extend_from_slice(&record[..length]);
                    return Ok(length);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            // The end of the socket, too: the reader knows whether TLS was over before it.
            tls.read_tls(&mut Socket(&self.tcp))?;
            process(&mut tls, &self.tcp)?;
        }
    }

    /// Ends it in order. What the socket does not take is lost; whoever numbers it sends it again.
    pub(super) fn end(&self) {
        if let Some(mut tls) = self.tls() {
            tls.send_close_notify();
            if let Err(error) = push(&mut tls, &self.tcp) {
                tracing::trace!(%error, "the end could not be told");
            }
        }
    }

    /// When the stream is closed, the peer shall see it broken, not ended: after an orderly end a kernel does not send
    /// again what we have not acknowledged. (So nothing may shut one direction down before, either.)
    pub(super) fn abort(&self) {
        if let Err(error) = self.tcp.set_zero_linger() {
            tracing::debug!(%error, "cannot close abruptly");
        }
    }
}

/// Reads what there is. A read that does not fill the buffer has emptied the socket, so that the next one waits for
/// news without asking again; `try_read` would ask.
fn take(tcp: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut taken = None;
    let full = buffer.len();
    let emptied = tcp.try_io(Interest::READABLE, || match rustix::io::read(tcp, &mut *buffer)? {
        length if length == full || length == 0 => {
            taken = Some(length);
            Ok(())
        }
        length => {
            taken = Some(length);
            Err(ErrorKind::WouldBlock.into())
        }
    });
    match taken {
        Some(length) => Ok(length),
        None => emptied.and(Err(ErrorKind::WouldBlock.into())),
    }
}

/// Whatever TLS wants to say, as far as the socket takes it.
fn push(tls: &mut Connection, tcp: &TcpStream) -> io::Result<()> {
    while tls.wants_write() {
        tls.write_tls(&mut Socket(tcp))?;
    }
    Ok(())
}

fn process(tls: &mut Connection, tcp: &TcpStream) -> io::Result<()> {
    let processed = tls.process_new_packets();
    // An answer, or why there will be none; a full socket takes it later.
    match push(tls, tcp) {
        Err(error) if error.kind() != ErrorKind::WouldBlock && processed.is_ok() => return Err(error),
        _ => {}
    }
    processed.map(|_| ()).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The peer has ended it in order.
    Orderly,
    /// It broke.
    Broken,
    /// What came was not the protocol.
    Garbage,
}

/// Who reads must let others have a turn after so many reads.
const TURN: u32 = 16;

/// Reads whole frames until the stream ends or cannot be followed. `speaker` says who it is, given the first frame;
/// nobody, and the stream is not followed.
pub(super) async fn read_frames(
    stream: &Stream,
    sink: &dyn Sink,
    mut speaker: impl FnMut(&[u8]) -> Option<NodeId>,
) -> End {
    let mut node = None;
    let mut buffer = Vec::with_capacity(16 * wire::FRAME_MAX);
    let mut reads = 0u32;
    loop {
        match stream.try_read(&mut buffer) {
            Ok(0) => return End::Orderly,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if stream.tcp.readable().await.is_err() {
                    return End::Broken;
                }
                continue;
            }
            Err(error) if error.kind() == ErrorKind::InvalidData => return End::Garbage,
            Err(_) => return End::Broken,
        }
        let mut frames = Vec::new();
        let mut rest = &buffer[..];
        loop {
            match wire::frame_length(rest) {
                Ok(Some(length)) if length <= rest.len() => {
                    let (frame, after) = rest.split_at(length);
                    frames.push(frame);
                    rest = after;
                }
                Ok(_) => break,
                Err(_) => return End::Garbage,
            }
        }
        let unread = rest.len();
        if let Some(first) = frames.first() {
            let Some(from) = node.or_else(|| speaker(first)) else { return End::Garbage };
            node = Some(from);
            sink.frames(from, &frames);
        }
        let used = buffer.len() - unread;
        buffer.drain(..used);
        reads += 1;
        if reads.is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
    }
}
