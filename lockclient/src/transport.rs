//! The only sockets: one outgoing TCP connection to each peer for what we send, any number of incoming ones for what
//! we read (either end may speak on either), and one UDP socket for the membership's datagrams (dlm.md 3.2).
//!
//! A peer is known by the address it comes from, and by its certificate where the cluster speaks TLS ([`crate::tls`]);
//! outgoing connections are bound to our own address for that reason. A numbered stream is never spread over two
//! sockets: everything goes out on our own connection. A connection that breaks is closed abruptly, so that the peer
//! sends again what it cannot know to have arrived.
//!
//! Frames take no detour: whoever reads them off a socket hands them to the [`Sink`] in its own thread, and whoever has
//! something to say writes it to the [`Stream`] in its own thread, as far as the socket takes it. What comes and goes
//! more slowly (connections, datagrams) is reported to the driver as [`TransportEvent`]s.
//!
//! Who is nobody we know gets nowhere and is counted ([`Counters`]): connections and datagrams from other addresses,
//! streams that are not the protocol, handshakes that fail. A new connection takes the place of a node's older one when
//! it has proved itself (by its certificate, or by a frame), not before; only so many may be about to do so.

mod accept;
mod counters;
mod datagrams;
mod dial;
mod stream;
#[cfg(test)]
mod tests;

pub use counters::{Counters, Strangers};
pub use stream::Stream;

use crate::ids::NodeId;
use crate::tls::Tls;
use datagrams::{receive_datagrams, send_datagrams};
use dial::Peer;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, channel, unbounded_channel};
use tokio::task::JoinSet;

/// Who takes in frames, and writes when a socket that was full takes bytes again. Called from the threads that read.
pub trait Sink: Send + Sync + 'static {
    /// Whole frames arrived, in this order.
    fn frames(&self, from: NodeId, frames: &[&[u8]]);
    /// Our connection of this number takes bytes again; true if it has been filled again.
    fn writable(&self, to: NodeId, connection: u64) -> bool;
}

/// What the sockets report.
#[derive(Debug)]
pub enum TransportEvent {
    /// Our connection to a peer stands.
    Up(NodeId, Connection),
    /// It has broken.
    Down(NodeId),
    /// A datagram arrived.
    Datagram(NodeId, Vec<u8>),
}

/// A connection of ours to a peer, as long as it lasts.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Counts the connections to this peer.
    pub number: u64,
    /// Where to write.
    pub stream: Weak<Stream>,
}

/// What is wanted of a peer's task.
#[derive(Clone, Copy, Debug)]
enum Command {
    Connect,
    Disconnect,
    /// The socket of this connection is full: tell the sink when it takes bytes again.
    Drain(u64),
    /// A write to this connection failed; without a number: as if the network had broken it.
    Break(Option<u64>),
}

/// The way to the task that keeps our connection to one peer.
#[derive(Clone, Debug)]
pub struct Line(UnboundedSender<Command>);

impl Line {
    fn command(&self, command: Command) {
        // A peer's task ends with the transport only; then nothing is wanted any more.
        let _ended = self.0.send(command);
    }

    /// A connection is wanted; [`TransportEvent::Up`] follows, sooner or later.
    pub fn connect(&self) {
        self.command(Command::Connect);
    }

    /// Ends the connection, or the attempts to make one.
    pub fn disconnect(&self) {
        self.command(Command::Disconnect);
    }

    /// The connection of this number is full: [`Sink::writable`] follows, unless it breaks.
    pub fn drain(&self, connection: u64) {
        self.command(Command::Drain(connection));
    }

    /// The connection of this number is broken (without one: breaks it); [`TransportEvent::Down`] follows.
    pub fn break_connection(&self, connection: Option<u64>) {
        self.command(Command::Break(connection));
    }
}

/// What the peers' tasks receive.
pub struct Inboxes(BTreeMap<NodeId, UnboundedReceiver<Command>>);

/// The lines to these peers, for whoever will be the sink, and their other ends, for [`Transport::open`].
pub fn lines(peers: impl Iterator<Item = NodeId>) -> (BTreeMap<NodeId, Line>, Inboxes) {
    let (mut lines, mut inboxes) = (BTreeMap::new(), BTreeMap::new());
    for node in peers {
        let (sender, inbox) = unbounded_channel();
        lines.insert(node, Line(sender));
        inboxes.insert(node, inbox);
    }
    (lines, Inboxes(inboxes))
}

/// Where to listen and who the others are.
#[derive(Clone)]
pub struct Settings {
    /// Our address, for TCP and UDP: nothing is accepted on another.
    pub local: SocketAddr,
    /// The other nodes'.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// Our credentials, where TLS is spoken.
    pub tls: Option<Arc<Tls>>,
    /// Where strangers are counted.
    pub counters: Arc<Counters>,
}

/// All sockets of a node.
pub struct Transport {
    datagrams: UnboundedSender<(SocketAddr, Vec<u8>)>,
    settings: Settings,
    /// Ends with the transport.
    _tasks: JoinSet<()>,
}

/// Longest pause between attempts to connect, and the limit of one attempt, handshake included.
const RETRY: Duration = Duration::from_secs(1);
/// Events that may wait; more, and the sockets are not read.
const BACKLOG: usize = 1024;

impl Transport {
    /// Opens the sockets. Datagrams are read and written by `alive`, where nothing waits for an engine.
    pub async fn open(
        settings: Settings,
        alive: &Handle,
        inboxes: Inboxes,
        sink: Arc<dyn Sink>,
    ) -> io::Result<(Transport, Receiver<TransportEvent>)> {
        let listener = TcpListener::bind(settings.local).await?;
        let udp = std::net::UdpSocket::bind(settings.local)?;
        udp.set_nonblocking(true)?;
        let udp = {
            let _there = alive.enter();
            Arc::new(UdpSocket::from_std(udp)?)
        };
        let (events, receiver) = channel(BACKLOG);
        let mut tasks = JoinSet::new();
        for (node, inbox) in inboxes.0 {
            let Some(address) = settings.peers.get(&node) else { continue };
            let peer = Peer::new(node, *address, &settings, events.clone(), sink.clone());
            tasks.spawn(peer.run(inbox));
        }
        tasks.spawn(accept::accept(listener, settings.clone(), sink));
        tasks.spawn_on(receive_datagrams(udp.clone(), settings.clone(), events), alive);
        let (datagrams, outgoing) = unbounded_channel();
        tasks.spawn_on(send_datagrams(udp, outgoing), alive);
        Ok((Transport { datagrams, settings, _tasks: tasks }, receiver))
    }

    /// Sends a datagram, if it can be sent. Where TLS is spoken it is sealed, and needs a connection to have stood.
    pub fn datagram(&self, node: NodeId, bytes: Vec<u8>) {
        let Some(address) = self.settings.peers.get(&node) else { return };
        let sealed = match &self.settings.tls {
            Some(tls) => tls.seals().seal(node, &bytes),
            None => Some(bytes),
        };
        if let Some(bytes) = sealed {
            // Datagrams may be lost; so may this one.
            let _lost = self.datagrams.send((*address, bytes));
        }
    }
}

/// The nodes that an address may belong to.
fn nodes_at(peers: &BTreeMap<NodeId, SocketAddr>, ip: IpAddr) -> Vec<NodeId> {
    peers.iter().filter(|(_, address)| address.ip() == ip).map(|(node, _)| *node).collect()
}
