//! Datagrams of the built-in membership ([`crate::membership::fixed`]). They are our own affair: no kernel sees them.

use super::{WireError, put, take};
use crate::ids::NodeId;
use bincode::{Decode, Encode};

const MAGIC: u32 = 0x6866_3267;
const LAYOUT: u16 = 2;
/// A datagram never needs more than this many members or lockspaces.
const LIST_MAX: usize = 128;

/// A proposed or agreed membership of a lockspace. Views are ordered by number, then by who proposes.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct View {
    /// Higher is newer.
    pub number: u64,
    /// The node that proposes it.
    pub leader: NodeId,
    /// Members with their incarnation and the number of their join.
    pub members: Vec<(NodeId, u64, u64)>,
}

/// What a node says about one lockspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedSpace {
    /// The lockspace's global id.
    pub lockspace: u32,
    /// Changes with every join.
    pub join: u64,
    /// The newest view it has seen; it has stopped for it.
    pub view: View,
    /// Locking goes on in that view, as far as the membership is concerned.
    pub started: bool,
    /// It has been started with some view since it joined.
    pub known: bool,
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who.
    pub node: NodeId,
    /// Changes with every start of the process.
    pub incarnation: u64,
    /// A hash of the cluster's name and list of nodes: others are ignored.
    pub cluster: u32,
    /// The nodes it hears: with their incarnation, and the highest number of a join that it has heard of.
    pub heard: Vec<(NodeId, u64, u64)>,
    /// Nodes that may still write to the disk, and must be fenced before locking goes on.
    pub doubtful: Vec<NodeId>,
    /// The lockspaces it has joined.
    pub spaces: Vec<JoinedSpace>,
}

#[derive(Encode, Decode)]
struct RawBeat {
    magic: u32,
    layout: u16,
    spaces: u16,
    node: u32,
    cluster: u32,
    incarnation: u64,
    heard: u16,
    doubtful: u16,
}

#[derive(Encode, Decode)]
struct RawSpace {
    lockspace: u32,
    leader: u32,
    join: u64,
    number: u64,
    started: u8,
    known: u8,
    members: u8,
}

#[derive(Encode, Decode)]
struct RawMember {
    node: u32,
    incarnation: u64,
    join: u64,
}

/// The bytes of a datagram.
pub fn encode_heartbeat(beat: &Heartbeat) -> Vec<u8> {
    let mut bytes = Vec::new();
    let spaces = &beat.spaces[..beat.spaces.len().min(LIST_MAX)];
    let doubtful = &beat.doubtful[..beat.doubtful.len().min(LIST_MAX)];
    let heard = &beat.heard[..beat.heard.len().min(LIST_MAX)];
    let raw = RawBeat {
        magic: MAGIC,
        layout: LAYOUT,
        spaces: spaces.len() as u16,
        node: beat.node.0,
        cluster: beat.cluster,
        incarnation: beat.incarnation,
        heard: heard.len() as u16,
        doubtful: doubtful.len() as u16,
    };
    put(&mut bytes, &raw);
    for (node, incarnation, join) in heard {
        put(&mut bytes, &RawMember { node: node.0, incarnation: *incarnation, join: *join });
    }
    for node in doubtful {
        put(&mut bytes, &node.0);
    }
    for space in spaces {
        let members = &space.view.members[..space.view.members.len().min(LIST_MAX)];
        let raw = RawSpace {
            lockspace: space.lockspace,
            leader: space.view.leader.0,
            join: space.join,
            number: space.view.number,
            started: u8::from(space.started),
            known: u8::from(space.known),
            members: members.len() as u8,
        };
        put(&mut bytes, &raw);
        for (node, incarnation, join) in members {
            put(&mut bytes, &RawMember { node: node.0, incarnation: *incarnation, join: *join });
        }
    }
    bytes
}

/// The meaning of a datagram.
pub fn decode_heartbeat(bytes: &[u8]) -> Result<Heartbeat, WireError> {
    let (raw, mut rest) = take::<RawBeat>(bytes)?;
    if raw.magic != MAGIC || raw.layout != LAYOUT {
        return Err(WireError::Value("heartbeat"));
    }
    let (mut spaces, mut doubtful, mut heard) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..raw.heard {
        let (member, after) = take::<RawMember>(rest)?;
        rest = after;
        heard.push((NodeId(member.node), member.incarnation, member.join));
    }
    for _ in 0..raw.doubtful {
        let (node, after) = take::<u32>(rest)?;
        rest = after;
        doubtful.push(NodeId(node));
    }
    for _ in 0..raw.spaces {
        // Ends with the datagram at the latest.
        let (space, after) = take::<RawSpace>(rest)?;
        rest = after;
        let mut members = Vec::new();
        for _ in 0..space.members {
            let (member, after) = take::<RawMember>(rest)?;
            rest = after;
            members.push((NodeId(member.node), member.incarnation, member.join));
        }
        let view = View { number: space.number, leader: NodeId(space.leader), members };
        spaces.push(JoinedSpace {
            lockspace: space.lockspace,
            join: space.join,
            view,
            started: space.started != 0,
            known: space.known != 0,
        });
    }
    Ok(Heartbeat {
        node: NodeId(raw.node),
        incarnation: raw.incarnation,
        cluster: raw.cluster,
        heard,
        doubtful,
        spaces,
    })
}
