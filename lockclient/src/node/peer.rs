//! A peer as the driver sees it: the conversation, and whether there is a connection for it.

use crate::ids::NodeId;
use crate::inspect::{PeerView, peer_view};
use crate::midcomms::Midcomms;
use crate::transport::Transport;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Connection {
    None,
    Wanted,
    Up,
}

/// Frames are written together, about this many bytes at a time.
const WRITE: usize = 32 * 1024;

pub(super) struct Peer {
    pub(super) midcomms: Midcomms,
    connection: Connection,
}

impl Peer {
    pub(super) fn new(node: NodeId, peer: NodeId) -> Peer {
        Peer { midcomms: Midcomms::new(node, peer), connection: Connection::None }
    }

    pub(super) fn view(&self, node: NodeId) -> PeerView {
        let connection = match self.connection {
            Connection::None => "none",
            Connection::Wanted => "wanted",
            Connection::Up => "up",
        };
        peer_view(node, connection, &self.midcomms)
    }

    pub(super) fn up(&mut self) {
        self.connection = Connection::Up;
        self.midcomms.connected();
    }

    pub(super) fn down(&mut self) {
        self.connection = Connection::None;
    }

    pub(super) fn gone(&mut self) {
        self.midcomms.node_gone();
        if self.connection == Connection::Wanted {
            // The transport gives up; if we want it again, we ask again.
            self.connection = Connection::None;
        }
    }

    pub(super) fn flush(&mut self, node: NodeId, transport: &Transport) {
        match self.connection {
            Connection::Up => {
                let mut bytes = Vec::new();
                while let Some(frame) = self.midcomms.next_transmit() {
                    bytes.extend_from_slice(&frame);
                    if bytes.len() >= WRITE {
                        transport.send(node, std::mem::take(&mut bytes));
                    }
                }
                if !bytes.is_empty() {
                    transport.send(node, bytes);
                }
            }
            Connection::None if self.midcomms.wants_connection() => {
                self.connection = Connection::Wanted;
                transport.connect(node);
            }
            Connection::None | Connection::Wanted => {}
        }
    }
}
