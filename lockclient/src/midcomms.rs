//! What stands between frames and a TCP stream that may break (dlm.md 3.4, 3.5): which version a peer speaks, numbered
//! envelopes, acknowledgements, what to send again on a new connection, and how two nodes part. Pure: frames in,
//! bytes out.
//!
//! * Towards a peer that speaks 3.2, lock messages (and recovery's own locks and lookups) travel in envelopes whose
//!   numbers start at 0. They are kept until acknowledged and are sent again, under their old numbers, on every new
//!   connection. The receiver takes number by number: each inner frame is delivered exactly once and in order (I18).
//! * Status and names requests travel bare; whoever sent one repeats it. The first of them shows the peer's version;
//!   nothing numbered is sent before that.
//! * Nobody waits for an acknowledgement: a kernel sends them by its own rules. So the queue has no bound but memory.
//! * Both ends forget numbers and version at the same moments: after both have said FIN, or when a node leaves the
//!   cluster. An end that kept its numbers would be ignored from then on.

#[cfg(test)]
mod tests;

use crate::frame::Frame;
use crate::ids::NodeId;
use crate::wire::{self, PacketBody, VERSION_BARE, VERSION_NUMBERED, WireError};
use std::collections::VecDeque;

/// Where the conversation with a peer stands; the names are TCP's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not begun, or over.
    Closed,
    /// Going on.
    Established,
    /// We have said FIN.
    FinWait1,
    /// And the peer has it.
    FinWait2,
    /// The peer has said FIN; members of a lockspace of ours are still there.
    CloseWait,
    /// Both have said FIN, the peer first.
    LastAck,
    /// Both have said FIN, we first.
    Closing,
}

/// The version a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Bare,
    Numbered,
}

/// A frame for a lockspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The lockspace's global id.
    pub lockspace: u32,
    /// The frame.
    pub frame: Frame,
}

/// The conversation with one peer.
#[derive(Clone, Debug)]
pub struct Midcomms {
    node: NodeId,
    peer: NodeId,
    state: State,
    version: Option<Version>,
    /// How many lockspaces have the peer as a member.
    users: u32,
    seq_send: u32,
    seq_next: u32,
    /// Envelopes without an acknowledgement, by number.
    unacknowledged: VecDeque<(u32, Vec<u8>)>,
    /// Frames that wait for the peer's version.
    waiting: VecDeque<(u32, Frame)>,
    /// For the connection.
    transmit: VecDeque<Transmit>,
    delivered: VecDeque<Delivery>,
    /// Envelopes taken in since the last acknowledgement.
    owed: u32,
    /// Number of our FIN.
    fin: Option<u32>,
    /// We have parted, or are about to: nothing that comes makes us begin anew.
    parted: bool,
    /// Frames that were dropped.
    dropped: u64,
}

/// Something for the connection.
#[derive(Clone, Debug)]
enum Transmit {
    /// The envelope of this number, if it is not acknowledged by then.
    Envelope(u32),
    /// A frame of a lockspace without an envelope.
    Bare(Vec<u8>),
    /// "I expect this number next."
    Ack(u32),
}

/// Bare frames kept for a connection that is not there; more are dropped, since they are repeated.
const BARE_MAX: usize = 64;

/// Is `a` before `b`, across the wrap of 32 bits?
fn before(a: u32, b: u32) -> bool {
    a != b && b.wrapping_sub(a) < 0x8000_0000
}

impl Midcomms {
    /// A conversation that has not begun.
    pub fn new(node: NodeId, peer: NodeId) -> Midcomms {
        Midcomms {
            node,
            peer,
            state: State::Closed,
            version: None,
            users: 0,
            seq_send: 0,
            seq_next: 0,
            unacknowledged: VecDeque::new(),
            waiting: VecDeque::new(),
            transmit: VecDeque::new(),
            delivered: VecDeque::new(),
            owed: 0,
            fin: None,
            parted: false,
            dropped: 0,
        }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// Frames dropped so far: stale, damaged, or from someone else.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Envelopes that the peer has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.unacknowledged.len()
    }

    /// Sends a frame of a lockspace to the peer.
    pub fn send(&mut self, lockspace: u32, frame: Frame) -> Result<(), WireError> {
        let bare = matches!(&frame, Frame::Rcom(rcom) if rcom.body.is_raw());
        if bare || self.version == Some(Version::Bare) {
            let bytes = wire::encode(self.node, lockspace, &frame)?;
            if bare && self.transmit.len() >= BARE_MAX + self.unacknowledged.len() {
                self.dropped += 1;
                return Ok(());
            }
            self.transmit.push_back(Transmit::Bare(bytes));
            return Ok(());
        }
        if self.version.is_none() {
            self.waiting.push_back((lockspace, frame));
            return Ok(());
        }
        let inner = wire::encode(self.node, lockspace, &frame)?;
        self.send_numbered(&inner)
    }

    fn send_numbered(&mut self, inner: &[u8]) -> Result<(), WireError> {
        let sequence = self.seq_send;
        let bytes = wire::encode_numbered(self.node, sequence, inner)?;
        self.seq_send = sequence.wrapping_add(1);
        self.transmit.push_back(Transmit::Envelope(sequence));
        self.unacknowledged.push_back((sequence, bytes));
        Ok(())
    }

    /// The next bytes for the connection.
    pub fn next_transmit(&mut self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        self.transmit_into(&mut bytes).then_some(bytes)
    }

    /// Appends the next bytes for the connection; false if there are none.
    pub fn transmit_into(&mut self, bytes: &mut Vec<u8>) -> bool {
        while let Some(next) = self.transmit.pop_front() {
            match next {
                Transmit::Bare(frame) => bytes.extend_from_slice(&frame),
                Transmit::Ack(next) => bytes.extend_from_slice(&wire::encode_ack(self.node, next)),
                Transmit::Envelope(sequence) => {
                    // Their numbers follow one another. What is acknowledged already has no need to be sent.
                    let first = self.unacknowledged.front().map_or(sequence, |(first, _)| *first);
                    let place = usize::try_from(sequence.wrapping_sub(first)).unwrap_or(usize::MAX);
                    let Some((_, envelope)) = self.unacknowledged.get(place) else { continue };
                    bytes.extend_from_slice(envelope);
                }
            }
            return true;
        }
        false
    }

    /// Is there anything for the connection?
    pub fn has_transmit(&self) -> bool {
        !self.transmit.is_empty()
    }

    /// About how many bytes are kept until they are written, or until they are acknowledged.
    pub fn kept_bytes(&self) -> usize {
        let bare = |transmit: &Transmit| if let Transmit::Bare(bytes) = transmit { bytes.len() } else { 0 };
        let waiting = self.waiting.len() * size_of::<(u32, Frame)>();
        let bare: usize = self.transmit.iter().map(bare).sum();
        self.unacknowledged.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() + bare + waiting
    }

    /// Is there anything that needs a connection?
    pub fn wants_connection(&self) -> bool {
        !self.transmit.is_empty() || !self.unacknowledged.is_empty()
    }

    /// A new connection stands: whatever is not acknowledged is sent again, first.
    pub fn connected(&mut self) {
        let bare = |transmit: &Transmit| matches!(transmit, Transmit::Bare(_));
        let kept: Vec<Transmit> = self.transmit.drain(..).filter(bare).collect();
        self.transmit.extend(self.unacknowledged.iter().map(|(sequence, _)| Transmit::Envelope(*sequence)));
        self.transmit.extend(kept);
    }

    /// A whole frame arrived from the peer. What it brings waits in [`Midcomms::next_delivery`].
    pub fn receive(&mut self, bytes: &[u8]) {
        let Ok(packet) = wire::decode(bytes) else {
            self.dropped += 1;
            return;
        };
        let version = match packet.version {
            VERSION_NUMBERED => Version::Numbered,
            VERSION_BARE => Version::Bare,
            _ => return self.drop_frame(),
        };
        if packet.node != self.peer || self.version.is_some_and(|known| known != version) {
            return self.drop_frame();
        }
        let bare_recovery =
            matches!(&packet.body, PacketBody::Frame { frame: Frame::Rcom(rcom), .. } if rcom.body.is_raw());
        // A peer that has not heard yet that we leave is answered ("not ready"), and that is all: beginning anew would
        // cost us the numbers that its FIN is counted by. Nor does its answer to a question of ours begin anything.
        let begins = bare_recovery && !self.parted;
        let asks = matches!(&packet.body, PacketBody::Frame { frame: Frame::Rcom(rcom), .. } if rcom.body.asks());
        if begins && asks && !matches!(self.state, State::Closed | State::Established) {
            // The peer begins anew before the old conversation was over ("shutdown stuck").
            self.reset();
        }
        if self.version.is_none() {
            self.version = Some(version);
            self.send_waiting();
        }
        if begins && self.state == State::Closed {
            self.state = State::Established;
        }
        match packet.body {
            PacketBody::Frame { lockspace, frame } => {
                if bare_recovery || version == Version::Bare {
                    self.delivered.push_back(Delivery { lockspace, frame });
                } else {
                    // Must be numbered.
                    self.drop_frame();
                }
            }
            PacketBody::Numbered { sequence, inner } => self.receive_numbered(sequence, inner),
            PacketBody::Ack(next) => self.receive_ack(next),
            PacketBody::Fin => self.drop_frame(),
        }
    }

    fn drop_frame(&mut self) {
        self.dropped += 1;
    }

    fn send_waiting(&mut self) {
        for (lockspace, frame) in std::mem::take(&mut self.waiting) {
            if self.send(lockspace, frame).is_err() {
                // Too long for a frame; the engine makes no such frames.
                self.drop_frame();
            }
        }
    }

    fn receive_numbered(&mut self, sequence: u32, inner: &[u8]) {
        if self.version != Some(Version::Numbered) {
            return self.drop_frame();
        }
        if sequence != self.seq_next {
            if before(sequence, self.seq_next) {
                // It has been delivered; the acknowledgement was lost.
                self.send_ack();
            }
            return self.drop_frame();
        }
        self.seq_next = self.seq_next.wrapping_add(1);
        self.owed = self.owed.saturating_add(1);
        let Ok(packet) = wire::decode(inner) else { return self.drop_frame() };
        match packet.body {
            PacketBody::Frame { lockspace, frame } if packet.node == self.peer => {
                if self.state == State::Closed && !self.parted {
                    self.state = State::Established;
                }
                self.delivered.push_back(Delivery { lockspace, frame });
            }
            PacketBody::Fin => self.receive_fin(),
            _ => self.drop_frame(),
        }
    }

    fn receive_ack(&mut self, next: u32) {
        while self.unacknowledged.front().is_some_and(|(sequence, _)| before(*sequence, next)) {
            self.unacknowledged.pop_front();
        }
        if !self.fin.is_some_and(|fin| before(fin, next)) {
            return;
        }
        self.fin = None;
        match self.state {
            // The peer may still wait for our word about its own FIN, which came in the same breath.
            State::LastAck | State::Closing => self.reset_keeping_transmit(),
            State::FinWait1 => self.state = State::FinWait2,
            _ => {}
        }
    }

    fn receive_fin(&mut self) {
        self.flush_ack();
        match self.state {
            State::Established if self.users > 0 => self.state = State::CloseWait,
            State::Established | State::Closed => {
                self.state = State::LastAck;
                self.send_fin();
            }
            State::FinWait1 => self.state = State::Closing,
            State::FinWait2 => self.reset_keeping_transmit(),
            State::CloseWait | State::LastAck | State::Closing => self.drop_frame(),
        }
    }

    fn send_fin(&mut self) {
        self.fin = Some(self.seq_send);
        if self.send_numbered(&wire::encode_fin(self.node)).is_err() {
            // A FIN is a header: it always fits.
            self.drop_frame();
        }
    }

    /// How many envelopes have been taken in and not acknowledged.
    pub fn owed(&self) -> u32 {
        self.owed
    }

    /// Acknowledges what was taken in: when something goes to the peer anyway, when much has come, or after a while.
    pub fn flush_ack(&mut self) {
        if std::mem::take(&mut self.owed) > 0 {
            self.send_ack();
        }
    }

    /// A newer acknowledgement speaks for one that nothing was written after; however much a peer sends that does not
    /// read, no more than one waits for it.
    fn send_ack(&mut self) {
        if let Some(Transmit::Ack(next)) = self.transmit.back_mut() {
            *next = self.seq_next;
        } else {
            self.transmit.push_back(Transmit::Ack(self.seq_next));
        }
    }

    /// The next frame for a lockspace.
    pub fn next_delivery(&mut self) -> Option<Delivery> {
        self.delivered.pop_front()
    }

    /// The peer is a member of one more lockspace.
    pub fn member_added(&mut self) {
        self.users += 1;
        self.parted = false;
        if !matches!(self.state, State::Closed | State::Established) {
            self.reset();
        }
        if self.state == State::Closed && self.version.is_some() {
            self.state = State::Established;
        }
    }

    /// And of one less.
    pub fn member_removed(&mut self) {
        self.users = self.users.saturating_sub(1);
        if self.users == 0 && self.state == State::CloseWait {
            self.state = State::LastAck;
            self.send_fin();
        }
    }

    /// Our last lockspace is gone: parts with the peer. Over when the state is [`State::Closed`].
    pub fn shutdown(&mut self) {
        self.users = 0;
        self.parted = true;
        match (self.state, self.version) {
            (State::Established, Some(Version::Numbered)) => {
                self.state = State::FinWait1;
                self.send_fin();
            }
            (State::CloseWait, _) => {
                self.state = State::LastAck;
                self.send_fin();
            }
            (State::Established, _) => self.reset(),
            _ => {}
        }
    }

    /// The peer left the cluster: nothing of this conversation counts any more.
    pub fn node_gone(&mut self) {
        self.users = 0;
        self.parted = false;
        self.reset();
    }

    fn reset(&mut self) {
        self.transmit.clear();
        self.reset_keeping_transmit();
    }

    /// As a reset, with the last acknowledgement still on its way.
    fn reset_keeping_transmit(&mut self) {
        self.state = State::Closed;
        self.version = None;
        (self.seq_send, self.seq_next, self.fin) = (0, 0, None);
        self.unacknowledged.clear();
        self.transmit.retain(|transmit| !matches!(transmit, Transmit::Envelope(_)));
        self.waiting.clear();
        self.owed = 0;
    }
}
