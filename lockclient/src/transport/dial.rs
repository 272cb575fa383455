//! Our own connection to one peer: made when it is wanted, kept as long as it lasts.

use super::stream::{End, Stream, read_frames};
use super::{Command, Connection, RETRY, Settings, Sink, TransportEvent};
use crate::ids::NodeId;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use tokio::sync::mpsc::{Sender, UnboundedReceiver};

pub(super) struct Peer {
    node: NodeId,
    address: SocketAddr,
    settings: Settings,
    events: Sender<TransportEvent>,
    sink: Arc<dyn Sink>,
}

/// How our connection ended.
enum Gone {
    /// Nobody wants it any more.
    Unwanted,
    /// We have broken it.
    Broken,
    /// The peer has, or the network.
    Lost(End),
}

/// First pause before a connection that the peer does not keep is made again; doubled each time.
const PAUSE: Duration = Duration::from_millis(10);

impl Peer {
    pub(super) fn new(
        node: NodeId,
        address: SocketAddr,
        settings: &Settings,
        events: Sender<TransportEvent>,
        sink: Arc<dyn Sink>,
    ) -> Peer {
        Peer { node, address, settings: settings.clone(), events, sink }
    }

    /// Waits until a connection is wanted, keeps it as long as it lasts, and starts over.
    pub(super) async fn run(self, mut inbox: UnboundedReceiver<Command>) {
        let mut number = 0;
        let mut pause = None;
        loop {
            match inbox.recv().await {
                None => return,
                Some(Command::Connect) => {}
                Some(_) => continue,
            }
            if let Some(pause) = pause
                && !wait(pause, &mut inbox).await
            {
                continue;
            }
            let Some(stream) = self.connect(&mut inbox).await else { continue };
            number += 1;
            let (stream, begun) = (Arc::new(stream), Instant::now());
            let up = Connection { number, stream: Arc::downgrade(&stream) };
            if self.events.send(TransportEvent::Up(self.node, up)).await.is_err() {
                return;
            }
            let gone = self.serve(&stream, number, &mut inbox).await;
            match gone {
                Gone::Unwanted => stream.end(),
                Gone::Lost(End::Orderly) => {}
                Gone::Broken | Gone::Lost(_) => stream.abort(),
            }
            drop(stream);
            // A peer that accepts us and changes its mind at once shall not keep us busy.
            pause = match gone {
                Gone::Lost(_) if begun.elapsed() < RETRY => Some(pause.map_or(PAUSE, |p| (2 * p).min(RETRY))),
                _ => None,
            };
            if self.events.send(TransportEvent::Down(self.node)).await.is_err() {
                return;
            }
        }
    }

    /// Tries once a second until it succeeds or is no longer wanted.
    async fn connect(&self, inbox: &mut UnboundedReceiver<Command>) -> Option<Stream> {
        loop {
            match tokio::time::timeout(RETRY, self.attempt()).await {
                Ok(Ok(stream)) => return Some(stream),
                Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
                    if let Some(count) = self.settings.counters.failed_handshakes.count() {
                        tracing::warn!(node = %self.node, address = %self.address, %error, count, "handshakes failed");
                    }
                }
                Ok(Err(error)) => tracing::debug!(node = %self.node, %error, "cannot connect"),
                Err(_) => tracing::debug!(node = %self.node, "no answer"),
            }
            if !wait(RETRY, inbox).await {
                return None;
            }
        }
    }

    async fn attempt(&self) -> io::Result<Stream> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind(SocketAddr::new(self.settings.local.ip(), 0))?;
        let tcp = socket.connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.settings.tls else { return Ok(Stream::plain(tcp)) };
        let stream = Stream::secret(tcp, tls.dial(self.node)?).await?;
        if let Some(connection) = stream.tls() {
            tls.seals().dialled(self.node, &connection)?;
        }
        Ok(stream)
    }

    /// Tells when a full socket takes bytes again, and reads what the peer says on this connection, until it breaks or
    /// is not wanted. A peer that takes nothing keeps nobody from saying so.
    async fn serve(&self, stream: &Stream, number: u64, inbox: &mut UnboundedReceiver<Command>) -> Gone {
        let reading = read_frames(stream, &*self.sink, |_| Some(self.node));
        tokio::pin!(reading);
        let mut full = false;
        loop {
            tokio::select! {
                end = &mut reading => return Gone::Lost(end),
                command = inbox.recv() => match command {
                    None | Some(Command::Disconnect) => return Gone::Unwanted,
                    Some(Command::Break(which)) if which.is_none_or(|which| which == number) => return Gone::Broken,
                    Some(Command::Drain(which)) if which == number => full = true,
                    Some(_) => {}
                },
                writable = stream.writable(), if full => {
                    if writable.is_err() {
                        return Gone::Lost(End::Broken);
                    }
                    full = self.sink.writable(self.node, number);
                }
            }
        }
    }
}

/// Waits; false if meanwhile the connection is no longer wanted.
async fn wait(pause: Duration, inbox: &mut UnboundedReceiver<Command>) -> bool {
    let over = tokio::time::sleep(pause);
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over => return true,
            command = inbox.recv() => match command {
                None | Some(Command::Disconnect) => return false,
                Some(_) => {}
            },
        }
    }
}
