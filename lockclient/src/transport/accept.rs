//! Connections that others make to us.

use super::stream::{End, Stream, read_frames};
use super::{RETRY, Settings, Sink, nodes_at};
use crate::ids::NodeId;
use crate::wire;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// Connections of one address that have not proved yet whose they are. One more, and the oldest has to go.
const UNPROVED_MAX: usize = 16;
/// A handshake must be over by then.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Ends a connection's task.
type Stop = Arc<Notify>;

/// The connections there are.
#[derive(Default)]
struct Incoming {
    unproved: BTreeMap<IpAddr, VecDeque<Stop>>,
    proved: BTreeMap<NodeId, Stop>,
}

struct Door {
    settings: Settings,
    sink: Arc<dyn Sink>,
    incoming: Mutex<Incoming>,
}

pub(super) async fn accept(listener: TcpListener, settings: Settings, sink: Arc<dyn Sink>) {
    let door = Arc::new(Door { settings, sink, incoming: Mutex::default() });
    let mut readers = JoinSet::new();
    loop {
        let (tcp, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        while readers.try_join_next().is_some() {}
        let candidates = nodes_at(&door.settings.peers, from.ip());
        if candidates.is_empty() {
            if let Some(count) = door.settings.counters.unknown_connections.count() {
                tracing::warn!(%from, count, "connections from an unknown address are refused");
            }
            continue;
        }
        let stop = door.enter(from.ip());
        let door = door.clone();
        readers.spawn(async move {
            tokio::select! {
                () = door.serve(tcp, from, candidates, &stop) => {}
                () = stop.notified() => {}
            }
            door.leave(from.ip(), &stop);
        });
    }
}

impl Door {
    fn incoming(&self) -> MutexGuard<'_, Incoming> {
        // Lists that stay consistent at every step.
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Someone has come; if too many are about to prove themselves, the oldest of them has to go.
    fn enter(&self, ip: IpAddr) -> Stop {
        let stop = Stop::default();
        let mut incoming = self.incoming();
        let waiting = incoming.unproved.entry(ip).or_default();
        waiting.push_back(stop.clone());
        if waiting.len() > UNPROVED_MAX
            && let Some(oldest) = waiting.pop_front()
        {
            oldest.notify_one();
            if let Some(count) = self.settings.counters.crowded_out.count() {
                tracing::warn!(%ip, count, "too many connections that say nothing; the oldest are closed");
            }
        }
        stop
    }

    /// A connection is this node's: it takes the place of its older one.
    fn proved(&self, ip: IpAddr, node: NodeId, stop: &Stop) {
        let mut incoming = self.incoming();
        forget(&mut incoming, ip, stop);
        if let Some(older) = incoming.proved.insert(node, stop.clone()) {
            older.notify_one();
        }
    }

    fn leave(&self, ip: IpAddr, stop: &Stop) {
        let mut incoming = self.incoming();
        forget(&mut incoming, ip, stop);
        incoming.proved.retain(|_, other| !Arc::ptr_eq(other, stop));
    }

    async fn serve(&self, tcp: TcpStream, from: SocketAddr, candidates: Vec<NodeId>, stop: &Stop) {
        let (stream, certified) = match self.shake_hands(tcp, &candidates).await {
            Ok(stream) => stream,
            Err(why) => {
                if let Some(count) = self.settings.counters.failed_handshakes.count() {
                    tracing::warn!(%from, why, count, "handshakes failed");
                }
                return;
            }
        };
        // Without an orderly end, in whatever way this task ends, the peer shall see the stream broken.
        let mut stream = Abrupt { stream, ended: false };
        if let Some(node) = certified {
            self.proved(from.ip(), node, stop);
        }
        let end = read_frames(&stream.stream, &*self.sink, |first| {
            // Several nodes may share an address in a laboratory: the first frame says who speaks.
            certified.or_else(|| {
                let node = wire::speaker(first).filter(|node| candidates.contains(node))?;
                self.proved(from.ip(), node, stop);
                Some(node)
            })
        })
        .await;
        match end {
            End::Orderly => stream.ended = true,
            End::Broken => {}
            End::Garbage => {
                if let Some(count) = self.settings.counters.bad_streams.count() {
                    tracing::warn!(%from, count, "streams that are not the protocol's are closed");
                }
            }
        }
    }

    /// With TLS the certificate says who it is.
    async fn shake_hands(&self, tcp: TcpStream, candidates: &[NodeId]) -> Result<(Stream, Option<NodeId>), String> {
        if let Err(error) = tcp.set_nodelay(true) {
            return Err(error.to_string());
        }
        let Some(tls) = &self.settings.tls else { return Ok((Stream::plain(tcp), None)) };
        let connection = tls.answer().map_err(|error| error.to_string())?;
        let shaken = tokio::time::timeout(HANDSHAKE, Stream::secret(tcp, connection)).await;
        let stream = shaken.map_err(|_| "too slow".to_owned())?.map_err(|error| error.to_string())?;
        let Some(connection) = stream.tls() else { return Err("not secret".into()) };
        let node = tls.who(&connection, candidates)?;
        tls.seals().answered(node, &connection).map_err(|error| error.to_string())?;
        drop(connection);
        Ok((stream, Some(node)))
    }
}

fn forget(incoming: &mut Incoming, ip: IpAddr, stop: &Stop) {
    if let Some(waiting) = incoming.unproved.get_mut(&ip) {
        waiting.retain(|other| !Arc::ptr_eq(other, stop));
    }
}

/// A stream that is broken when it is dropped, unless the peer has ended it.
struct Abrupt {
    stream: Stream,
    ended: bool,
}

impl Drop for Abrupt {
    fn drop(&mut self) {
        if self.ended {
            self.stream.end();
        } else {
            self.stream.abort();
        }
    }
}
