//! The membership's datagrams.

use super::{Settings, TransportEvent};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::UdpSocket;
use tokio::sync::mpsc::{Sender, UnboundedReceiver};

pub(super) async fn receive_datagrams(udp: Arc<UdpSocket>, settings: Settings, events: Sender<TransportEvent>) {
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok((length, from)) = udp.recv_from(&mut buffer).await else {
            // The error of an earlier datagram of ours; reading goes on.
            tokio::task::yield_now().await;
            continue;
        };
        let Some((node, _)) = settings.peers.iter().find(|(_, address)| **address == from) else {
            if let Some(count) = settings.counters.unknown_datagrams.count() {
                tracing::warn!(%from, count, "datagrams from an unknown address are ignored");
            }
            continue;
        };
        let bytes = match &settings.tls {
            Some(tls) => tls.seals().open(*node, &buffer[..length]),
            None => Some(buffer[..length].to_vec()),
        };
        let Some(bytes) = bytes else {
            if let Some(count) = settings.counters.forged_datagrams.count() {
                tracing::warn!(%from, count, "datagrams that this node's connection does not vouch for are ignored");
            }
            continue;
        };
        if events.send(TransportEvent::Datagram(*node, bytes)).await.is_err() {
            return;
        }
    }
}

pub(super) async fn send_datagrams(udp: Arc<UdpSocket>, mut outgoing: UnboundedReceiver<(SocketAddr, Vec<u8>)>) {
    while let Some((address, bytes)) = outgoing.recv().await {
        if let Err(error) = udp.send_to(&bytes, address).await {
            tracing::trace!(%address, %error, "datagram not sent");
        }
    }
}
