//! The only sockets: one outgoing TCP connection to each peer for what we send, any number of incoming ones for what
//! we read (either end may speak on either), and one UDP socket for the membership's datagrams (dlm.md 3.2).
//!
//! A peer is known by the address it comes from; outgoing connections are bound to our own address for that reason.
//! A numbered stream is never spread over two sockets: everything goes out on our own connection. A connection that
//! breaks is closed abruptly, so that the peer sends again what it cannot know to have arrived.

use crate::ids::NodeId;
use crate::wire;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::task::{AbortHandle, JoinSet};

#[cfg(test)]
mod tests;

/// What the sockets report.
#[derive(Debug)]
pub enum TransportEvent {
    /// Whole frames arrived, in this order.
    Frames(NodeId, Vec<Vec<u8>>),
    /// Our connection to a peer stands. Nothing is written before [`Transport::begin`].
    Up(NodeId, Connection),
    /// It has broken.
    Down(NodeId),
    /// A datagram arrived.
    Datagram(NodeId, Vec<u8>),
}

/// A connection of ours to a peer, as long as it lasts.
#[derive(Clone, Debug)]
pub struct Connection {
    number: u64,
    stream: Weak<TcpStream>,
}

enum Command {
    Connect,
    Begin(u64),
    Send(Queued),
    Disconnect,
    /// As if the network had broken it.
    Break,
}

/// Bytes that could not be written at once.
struct Queued {
    bytes: Vec<u8>,
    /// How many of these there are for the peer.
    count: Arc<AtomicUsize>,
}

impl Queued {
    fn new(bytes: Vec<u8>, count: &Arc<AtomicUsize>) -> Queued {
        count.fetch_add(1, Ordering::Relaxed);
        Queued { bytes, count: count.clone() }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Release);
    }
}

/// What the driver has of a peer.
struct Line {
    commands: UnboundedSender<Command>,
    /// Where bytes may be written directly, when nothing is queued.
    current: Option<Connection>,
    queued: Arc<AtomicUsize>,
}

/// All sockets of a node.
pub struct Transport {
    peers: BTreeMap<NodeId, Line>,
    datagrams: UnboundedSender<(SocketAddr, Vec<u8>)>,
    addresses: BTreeMap<NodeId, SocketAddr>,
    /// Ends with the transport.
    _tasks: JoinSet<()>,
}

/// Pause between attempts to connect, and the limit of one attempt.
const RETRY: Duration = Duration::from_secs(1);
/// Events that may wait; more, and the sockets are not read.
const BACKLOG: usize = 1024;

impl Transport {
    /// Opens the sockets. `peers` are the other nodes.
    pub async fn open(
        local: SocketAddr,
        peers: BTreeMap<NodeId, SocketAddr>,
    ) -> io::Result<(Transport, Receiver<TransportEvent>)> {
        let listener = TcpListener::bind(local).await?;
        let udp = Arc::new(UdpSocket::bind(local).await?);
        let (events, receiver) = channel(BACKLOG);
        let mut tasks = JoinSet::new();
        let mut lines = BTreeMap::new();
        for (node, address) in &peers {
            let (commands, inbox) = unbounded_channel();
            let peer = Peer { node: *node, address: *address, local: local.ip(), events: events.clone() };
            tasks.spawn(peer.run(inbox));
            lines.insert(*node, Line { commands, current: None, queued: Arc::default() });
        }
        tasks.spawn(accept(listener, peers.clone(), events.clone()));
        tasks.spawn(receive_datagrams(udp.clone(), peers.clone(), events));
        let (datagrams, outgoing) = unbounded_channel();
        tasks.spawn(send_datagrams(udp, outgoing));
        Ok((Transport { peers: lines, datagrams, addresses: peers, _tasks: tasks }, receiver))
    }

    fn command(&self, node: NodeId, command: Command) {
        // A peer's task ends with the transport only.
        let _ended = self.peers.get(&node).map(|line| line.commands.send(command));
    }

    /// A connection to this node is wanted; [`TransportEvent::Up`] follows, sooner or later.
    pub fn connect(&self, node: NodeId) {
        self.command(node, Command::Connect);
    }

    /// What is sent from now on belongs to this connection.
    pub fn begin(&mut self, node: NodeId, connection: Connection) {
        self.command(node, Command::Begin(connection.number));
        if let Some(line) = self.peers.get_mut(&node) {
            line.current = Some(connection);
        }
    }

    /// Nothing is sent on a connection that has broken.
    pub fn end(&mut self, node: NodeId) {
        if let Some(line) = self.peers.get_mut(&node) {
            line.current = None;
        }
    }

    /// Writes frames: at once where the socket takes them and nothing waits before them, or else through the peer's task.
    pub fn send(&self, node: NodeId, mut bytes: Vec<u8>) {
        let Some(line) = self.peers.get(&node) else { return };
        let stream = line.current.as_ref().and_then(|connection| connection.stream.upgrade());
        if let Some(stream) = stream
            && line.queued.load(Ordering::Acquire) == 0
        {
            match stream.try_write(&bytes) {
                Ok(written) if written == bytes.len() => return,
                Ok(written) => drop(bytes.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // What is lost is sent again on the next connection, by whoever numbers it.
                Err(_) => return self.command(node, Command::Break),
            }
        }
        self.command(node, Command::Send(Queued::new(bytes, &line.queued)));
    }

    /// Closes our connection to a node.
    pub fn disconnect(&mut self, node: NodeId) {
        self.end(node);
        self.command(node, Command::Disconnect);
    }

    /// Breaks our connection to a node.
    pub(crate) fn break_connection(&self, node: NodeId) {
        self.command(node, Command::Break);
    }

    /// Sends a datagram, if it can be sent.
    pub fn datagram(&self, node: NodeId, bytes: Vec<u8>) {
        if let Some(address) = self.addresses.get(&node) {
            // Datagrams may be lost; so may this one.
            let _lost = self.datagrams.send((*address, bytes));
        }
    }
}

/// The nodes that an address may belong to.
fn nodes_at(peers: &BTreeMap<NodeId, SocketAddr>, ip: IpAddr) -> Vec<NodeId> {
    peers.iter().filter(|(_, address)| address.ip() == ip).map(|(node, _)| *node).collect()
}

struct Peer {
    node: NodeId,
    address: SocketAddr,
    local: IpAddr,
    events: Sender<TransportEvent>,
}

impl Peer {
    /// Waits until a connection is wanted, keeps it as long as it lasts, and starts over.
    async fn run(self, mut inbox: UnboundedReceiver<Command>) {
        let mut connection = 0;
        loop {
            match inbox.recv().await {
                None => return,
                Some(Command::Connect) => {}
                Some(_) => continue,
            }
            let Some(stream) = self.connect(&mut inbox).await else { continue };
            connection += 1;
            let stream = Arc::new(stream);
            let up = Connection { number: connection, stream: Arc::downgrade(&stream) };
            if self.events.send(TransportEvent::Up(self.node, up)).await.is_err() {
                return;
            }
            self.serve(&stream, connection, &mut inbox).await;
            drop(stream);
            if self.events.send(TransportEvent::Down(self.node)).await.is_err() {
                return;
            }
        }
    }

    /// Tries once a second until it succeeds or is no longer wanted.
    async fn connect(&self, inbox: &mut UnboundedReceiver<Command>) -> Option<TcpStream> {
        loop {
            let attempt = tokio::time::timeout(RETRY, self.attempt());
            match attempt.await {
                Ok(Ok(stream)) => return Some(stream),
                Ok(Err(error)) => tracing::debug!(node = %self.node, %error, "cannot connect"),
                Err(_) => tracing::debug!(node = %self.node, "no answer"),
            }
            let pause = tokio::time::sleep(RETRY);
            tokio::pin!(pause);
            loop {
                tokio::select! {
                    () = &mut pause => break,
                    command = inbox.recv() => match command {
                        None | Some(Command::Disconnect) => return None,
                        Some(_) => {}
                    },
                }
            }
        }
    }

    async fn attempt(&self) -> io::Result<TcpStream> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind(SocketAddr::new(self.local, 0))?;
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Writes what could not be written at once and reads what the peer says on this connection, until it breaks or is
    /// not wanted.
    async fn serve(&self, stream: &TcpStream, connection: u64, inbox: &mut UnboundedReceiver<Command>) {
        let reading = read_frames(stream, vec![self.node], self.events.clone());
        tokio::pin!(reading);
        let mut begun = false;
        let orderly = loop {
            let command = tokio::select! {
                orderly = &mut reading => break orderly,
                command = inbox.recv() => command,
            };
            match command {
                None | Some(Command::Disconnect) => break true,
                Some(Command::Begin(which)) => begun = which == connection,
                Some(Command::Connect) => {}
                Some(Command::Break) => break false,
                // What was meant for an earlier connection is sent again by whoever numbers it.
                Some(Command::Send(_)) if !begun => {}
                Some(Command::Send(queued)) => {
                    let written = tokio::select! {
                        orderly = &mut reading => break orderly,
                        written = write_all(stream, &queued.bytes) => written,
                    };
                    if let Err(error) = written {
                        tracing::debug!(node = %self.node, %error, "connection broken");
                        break false;
                    }
                }
            }
        };
        if !orderly {
            abort(stream);
        }
    }
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// When the stream is closed, the peer shall see it broken, not ended: after an orderly end a kernel does not send again
/// what we have not acknowledged. (So nothing may shut one direction down before, either.)
fn abort(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        tracing::debug!(%error, "cannot close abruptly");
    }
}

/// Reads whole frames until the stream ends or cannot be followed; true if the peer has ended it in order.
async fn read_frames(stream: &TcpStream, candidates: Vec<NodeId>, events: Sender<TransportEvent>) -> bool {
    let mut node = match candidates[..] {
        [only] => Some(only),
        _ => None,
    };
    let mut buffer = Vec::with_capacity(16 * wire::FRAME_MAX);
    loop {
        if stream.readable().await.is_err() {
            return false;
        }
        match stream.try_read_buf(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return false,
        }
        let (mut frames, mut used) = (Vec::new(), 0);
        loop {
            let rest = &buffer[used..];
            match wire::frame_length(rest) {
                Ok(Some(length)) if length <= rest.len() => {
                    frames.push(rest[..length].to_vec());
                    used += length;
                }
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(?candidates, %error, "stream cannot be followed");
                    return false;
                }
            }
        }
        buffer.drain(..used);
        let Some(first) = frames.first() else { continue };
        // Several nodes may share an address in a laboratory; then the first frame says who speaks.
        let said = || wire::decode(first).ok().map(|packet| packet.node).filter(|node| candidates.contains(node));
        let Some(speaker) = node.or_else(said) else { return false };
        node = Some(speaker);
        if events.send(TransportEvent::Frames(speaker, frames)).await.is_err() {
            return true;
        }
    }
}

async fn accept(listener: TcpListener, peers: BTreeMap<NodeId, SocketAddr>, events: Sender<TransportEvent>) {
    let mut readers = JoinSet::new();
    let mut newest: BTreeMap<Vec<NodeId>, (Weak<TcpStream>, AbortHandle)> = BTreeMap::new();
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        while readers.try_join_next().is_some() {}
        let candidates = nodes_at(&peers, from.ip());
        if candidates.is_empty() {
            tracing::warn!(%from, "connection from an unknown address");
            continue;
        }
        let stream = Arc::new(stream);
        let (events, key, known) = (events.clone(), candidates.clone(), Arc::downgrade(&stream));
        let handle = readers.spawn(async move {
            if !read_frames(&stream, candidates, events).await {
                abort(&stream);
            }
        });
        // A newer connection of a node replaces its older one.
        if let ([_], Some((older, reader))) = (&key[..], newest.insert(key.clone(), (known, handle))) {
            older.upgrade().iter().for_each(|older| abort(older));
            reader.abort();
        }
    }
}

async fn receive_datagrams(udp: Arc<UdpSocket>, peers: BTreeMap<NodeId, SocketAddr>, events: Sender<TransportEvent>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, from)) = udp.recv_from(&mut buffer).await else {
            // The error of an earlier datagram of ours; reading goes on.
            tokio::task::yield_now().await;
            continue;
        };
        let exact = peers.iter().find(|(_, address)| **address == from).map(|(node, _)| *node);
        let Some(node) = exact else { continue };
        if events.send(TransportEvent::Datagram(node, buffer[..length].to_vec())).await.is_err() {
            return;
        }
    }
}

async fn send_datagrams(udp: Arc<UdpSocket>, mut outgoing: UnboundedReceiver<(SocketAddr, Vec<u8>)>) {
    while let Some((address, bytes)) = outgoing.recv().await {
        if let Err(error) = udp.send_to(&bytes, address).await {
            tracing::trace!(%address, %error, "datagram not sent");
        }
    }
}
