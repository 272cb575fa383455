//! Bytes and frames (dlm.md 3). Everything is little-endian and packed, as bincode writes fixed-width integers; only
//! the lengths in a list of names are big-endian. bincode is used here and nowhere else.
//!
//! A frame starts with a 16-byte header that holds its length. Lock and recovery messages are frames of their own
//! or, towards a peer that speaks 3.2, the inner frame of a numbered envelope (OPTS). Whatever is decoded is checked:
//! nothing here panics, and nothing is allocated beyond the size of a frame.

mod heartbeat;
mod msg;
mod order;
mod plock;
mod rcom;

#[cfg(test)]
mod tests;

pub use heartbeat::{Heard, Heartbeat, JoinedSpace, View, decode_heartbeat, encode_heartbeat};

pub use plock::{decode_plock, encode_plock};

use crate::frame::Frame;
use crate::ids::NodeId;
use bincode::{Decode, Encode};

/// Longest frame.
pub const FRAME_MAX: usize = 4096;
/// Longest inner frame.
pub const INNER_MAX: usize = FRAME_MAX - ENVELOPE;
/// Length of every header.
pub const HEADER: usize = 16;
/// What the envelope adds to an inner frame.
pub const ENVELOPE: usize = 24;
/// The version with numbered envelopes, which we announce.
pub const VERSION_NUMBERED: u32 = 0x0003_0002;
/// The version without.
pub const VERSION_BARE: u32 = 0x0003_0001;

/// Why bytes are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The length in a header is outside 16..=4096: the stream cannot be followed any further.
    #[error("illegal frame length {0}")]
    Length(usize),
    /// The frame ends before its fields.
    #[error("frame too short")]
    Short,
    /// An unknown kind of frame or message.
    #[error("unknown frame {0}")]
    Unknown(u32),
    /// A field holds what it must not.
    #[error("illegal value of {0}")]
    Value(&'static str),
    /// The frame is longer than a frame may be.
    #[error("frame too long")]
    TooLong,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct RawHeader {
    version: u32,
    id: u32,
    node: u32,
    length: u16,
    command: u8,
    pad: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
struct RawEnvelope {
    next_command: u8,
    pad: u8,
    option_length: u16,
    pad2: u32,
}

const MSG: u8 = 1;
const RCOM: u8 = 2;
const OPTS: u8 = 3;
const ACK: u8 = 4;
const FIN: u8 = 5;
/// Our own, between nodes of the built-in membership; far from the kernel's numbers.
const PLOCK: u8 = 0x70;

/// A frame as it came out of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The sender's protocol version.
    pub version: u32,
    /// The sender.
    pub node: NodeId,
    /// What it says.
    pub body: PacketBody<'a>,
}

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PacketBody<'a> {
    /// Something for a lockspace.
    Frame {
        /// Its global id.
        lockspace: u32,
        /// What.
        frame: Frame,
    },
    /// A numbered envelope.
    Numbered {
        /// Its number.
        sequence: u32,
        /// The inner frame, to be decoded when it is its turn.
        inner: &'a [u8],
    },
    /// The next number the peer expects.
    Ack(u32),
    /// The peer's last word.
    Fin,
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard().with_fixed_int_encoding().with_little_endian().with_no_limit()
}

/// A packed structure at the start of `bytes`, and what follows it.
fn take<T: Decode<()>>(bytes: &[u8]) -> Result<(T, &[u8]), WireError> {
    let (value, used) = bincode::decode_from_slice(bytes, config()).map_err(|_| WireError::Short)?;
    Ok((value, bytes.get(used..).unwrap_or_default()))
}

/// Appends a packed structure.
fn put<T: Encode>(bytes: &mut Vec<u8>, value: &T) {
    // Writing plain integers into memory cannot fail.
    if let Ok(encoded) = bincode::encode_to_vec(value, config()) {
        bytes.extend_from_slice(&encoded);
    }
}

/// The length of the frame at the start of a stream; `None` while its header is incomplete.
pub fn frame_length(stream: &[u8]) -> Result<Option<usize>, WireError> {
    if stream.len() < HEADER {
        return Ok(None);
    }
    let (header, _) = take::<RawHeader>(stream)?;
    match usize::from(header.length) {
        length @ HEADER..=FRAME_MAX => Ok(Some(length)),
        length => Err(WireError::Length(length)),
    }
}

/// Who says that it has sent this frame.
pub fn speaker(frame: &[u8]) -> Option<NodeId> {
    take::<RawHeader>(frame).ok().map(|(header, _)| NodeId(header.node))
}

/// Puts a header before a body.
fn frame(version: u32, id: u32, node: NodeId, command: u8, body: &[u8]) -> Result<Vec<u8>, WireError> {
    let total = HEADER + body.len();
    let length = u16::try_from(total).ok().filter(|_| total <= FRAME_MAX).ok_or(WireError::TooLong)?;
    let mut bytes = Vec::with_capacity(total);
    put(&mut bytes, &RawHeader { version, id, node: node.0, length, command, pad: 0 });
    bytes.extend_from_slice(body);
    Ok(bytes)
}

/// A lock or recovery message as a bare frame.
pub fn encode(node: NodeId, lockspace: u32, content: &Frame) -> Result<Vec<u8>, WireError> {
    let (command, body) = match content {
        Frame::Msg(content) => (MSG, msg::encode(content)),
        Frame::Rcom(content) => (RCOM, rcom::encode(content)?),
        Frame::Plock(content) => (PLOCK, order::encode(content)),
    };
    let bytes = frame(VERSION_NUMBERED, lockspace, node, command, &body)?;
    if bytes.len() > INNER_MAX { Err(WireError::TooLong) } else { Ok(bytes) }
}

/// An inner frame in its numbered envelope.
pub fn encode_numbered(node: NodeId, sequence: u32, inner: &[u8]) -> Result<Vec<u8>, WireError> {
    let (header, _) = take::<RawHeader>(inner)?;
    let mut body = Vec::with_capacity(inner.len() + 8);
    put(&mut body, &RawEnvelope { next_command: header.command, pad: 0, option_length: 0, pad2: 0 });
    body.extend_from_slice(inner);
    frame(VERSION_NUMBERED, sequence, node, OPTS, &body)
}

/// "I expect this number next."
pub fn encode_ack(node: NodeId, next: u32) -> Vec<u8> {
    // A header alone is never too long.
    frame(VERSION_NUMBERED, next, node, ACK, &[]).unwrap_or_default()
}

/// The last word, to be sent in an envelope.
pub fn encode_fin(node: NodeId) -> Vec<u8> {
    frame(VERSION_NUMBERED, 0, node, FIN, &[]).unwrap_or_default()
}

/// The meaning of one whole frame.
pub fn decode(bytes: &[u8]) -> Result<Packet<'_>, WireError> {
    let (header, body) = take::<RawHeader>(bytes)?;
    if usize::from(header.length) != bytes.len() || bytes.len() > FRAME_MAX {
        return Err(WireError::Length(usize::from(header.length)));
    }
    let body = match header.command {
        MSG => PacketBody::Frame { lockspace: header.id, frame: Frame::Msg(Box::new(msg::decode(body)?)) },
        RCOM => PacketBody::Frame { lockspace: header.id, frame: Frame::Rcom(Box::new(rcom::decode(body)?)) },
        PLOCK => PacketBody::Frame { lockspace: header.id, frame: Frame::Plock(Box::new(order::decode(body)?)) },
        OPTS => {
            let (envelope, rest) = take::<RawEnvelope>(body)?;
            // Options we do not know are skipped.
            let inner = rest.get(usize::from(envelope.option_length)..).ok_or(WireError::Short)?;
            PacketBody::Numbered { sequence: header.id, inner }
        }
        ACK => PacketBody::Ack(header.id),
        FIN => PacketBody::Fin,
        other => return Err(WireError::Unknown(u32::from(other))),
    };
    Ok(Packet { version: header.version, node: NodeId(header.node), body })
}
