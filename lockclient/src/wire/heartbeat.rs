//! Datagrams of the built-in membership ([`crate::membership::fixed`]). They are our own affair: no kernel sees them.

use super::{WireError, put, take};
use crate::ids::NodeId;
use bincode::{Decode, Encode};

const MAGIC: u32 = 0x6866_3267;
const LAYOUT: u16 = 3;
/// A datagram never needs more than this many members or lockspaces.
const LIST_MAX: usize = 128;
/// Views and joins are counted from 1: no cluster comes this far, and whoever counts on from here does not overflow.
const NUMBER_MAX: u64 = 1 << 62;

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

impl View {
    /// A number for this view that no other view has, in this life of the cluster or another (64-bit FNV-1a); not 0.
    pub fn round(&self) -> u64 {
        let mut bytes = Vec::new();
        put(&mut bytes, &(self.number, self.leader.0));
        for (node, incarnation, join) in &self.members {
            put(&mut bytes, &RawMember { node: node.0, incarnation: *incarnation, join: *join });
        }
        let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        hash.max(1)
    }
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
    /// The members of the view it was started with last, since it joined: all of these may hold locks, and write.
    pub known: Vec<(NodeId, u64, u64)>,
}

/// A node that another hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Which.
    pub node: NodeId,
    /// The newest of its lives.
    pub incarnation: u64,
    /// The newest sign of it.
    pub number: u64,
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Who.
    pub node: NodeId,
    /// Changes with every start of the process.
    pub incarnation: u64,
    /// Grows with every sign of life of an incarnation: one that comes late, or twice, says nothing.
    pub number: u64,
    /// A hash of the cluster's name and list of nodes: others are ignored.
    pub cluster: u32,
    /// The nodes it hears, and the newest it has heard of each.
    pub hears: Vec<Heard>,
    /// Nodes that may still write to the disk, and must be fenced before locking goes on.
    pub doubtful: Vec<NodeId>,
    /// The lockspaces it has joined.
    pub spaces: Vec<JoinedSpace>,
}

impl Heartbeat {
    /// Does its sender hear this life of a node?
    pub fn hears(&self, node: NodeId, incarnation: u64) -> bool {
        self.hears.iter().any(|heard| (heard.node, heard.incarnation) == (node, incarnation))
    }

    /// The highest number of a join that it names: they are numbered in their order.
    pub fn newest_join(&self) -> u64 {
        self.spaces.iter().map(|space| space.join).max().unwrap_or(0)
    }
}

#[derive(Encode, Decode)]
struct RawHeard {
    node: u32,
    incarnation: u64,
    number: u64,
}

#[derive(Encode, Decode)]
struct RawBeat {
    magic: u32,
    layout: u16,
    spaces: u16,
    node: u32,
    cluster: u32,
    incarnation: u64,
    number: u64,
    hears: u16,
    doubtful: u16,
}

#[derive(Encode, Decode)]
struct RawSpace {
    lockspace: u32,
    leader: u32,
    join: u64,
    number: u64,
    started: u8,
    members: u8,
    known: u8,
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
    let hears = &beat.hears[..beat.hears.len().min(LIST_MAX)];
    let raw = RawBeat {
        magic: MAGIC,
        layout: LAYOUT,
        spaces: spaces.len() as u16,
        node: beat.node.0,
        cluster: beat.cluster,
        incarnation: beat.incarnation,
        number: beat.number,
        hears: hears.len() as u16,
        doubtful: doubtful.len() as u16,
    };
    put(&mut bytes, &raw);
    for Heard { node, incarnation, number } in hears.iter().copied() {
        put(&mut bytes, &RawHeard { node: node.0, incarnation, number });
    }
    for node in doubtful {
        put(&mut bytes, &node.0);
    }
    for space in spaces {
        let members = &space.view.members[..space.view.members.len().min(LIST_MAX)];
        let known = &space.known[..space.known.len().min(LIST_MAX)];
        let raw = RawSpace {
            lockspace: space.lockspace,
            leader: space.view.leader.0,
            join: space.join,
            number: space.view.number,
            started: u8::from(space.started),
            members: members.len() as u8,
            known: known.len() as u8,
        };
        put(&mut bytes, &raw);
        for (node, incarnation, join) in members.iter().chain(known) {
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
    let mut hears = Vec::new();
    for _ in 0..raw.hears {
        // Ends with the datagram at the latest.
        let (heard, after) = take::<RawHeard>(rest)?;
        rest = after;
        hears.push(Heard { node: NodeId(heard.node), incarnation: heard.incarnation, number: heard.number });
    }
    let mut nodes = |count: u16| {
        let mut nodes = Vec::new();
        for _ in 0..count {
            // Likewise.
            let (node, after) = take::<u32>(rest)?;
            rest = after;
            nodes.push(NodeId(node));
        }
        Ok::<_, WireError>(nodes)
    };
    let doubtful = nodes(raw.doubtful)?;
    let mut spaces = Vec::new();
    for _ in 0..raw.spaces {
        let (space, after) = take::<RawSpace>(rest)?;
        rest = after;
        if space.number > NUMBER_MAX || space.join > NUMBER_MAX {
            return Err(WireError::Value("number of a view"));
        }
        let mut members = |count: u8| {
            let mut members = Vec::new();
            for _ in 0..count {
                let (member, after) = take::<RawMember>(rest)?;
                rest = after;
                members.push((NodeId(member.node), member.incarnation, member.join));
            }
            Ok::<_, WireError>(members)
        };
        let (members, known) = (members(space.members)?, members(space.known)?);
        let view = View { number: space.number, leader: NodeId(space.leader), members };
        spaces.push(JoinedSpace {
            lockspace: space.lockspace,
            join: space.join,
            view,
            started: space.started != 0,
            known,
        });
    }
    Ok(Heartbeat {
        node: NodeId(raw.node),
        incarnation: raw.incarnation,
        number: raw.number,
        cluster: raw.cluster,
        hears,
        doubtful,
        spaces,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_cannot_be_counted_on_from_are_refused() {
        for (number, join, fits) in [(NUMBER_MAX, 1, true), (u64::MAX, 1, false), (1, u64::MAX, false)] {
            let view = View { number, leader: NodeId(1), members: vec![] };
            let spaces = vec![JoinedSpace { lockspace: 1, join, view, started: false, known: vec![] }];
            let (hears, doubtful) = (vec![], vec![]);
            let beat = Heartbeat { node: NodeId(1), incarnation: 1, number: 1, cluster: 1, hears, doubtful, spaces };
            assert_eq!(decode_heartbeat(&encode_heartbeat(&beat)).is_ok(), fits);
        }
    }

    #[test]
    fn a_round_is_named_by_all_of_its_view() {
        let view = View { number: 3, leader: NodeId(1), members: vec![(NodeId(1), 7, 1), (NodeId(2), 9, 1)] };
        // The same on every build: nodes of different builds must agree.
        assert_eq!(view.round(), 0x98a5_baf7_6ea7_671a);
        let mut others = vec![View { number: 4, ..view.clone() }, View { leader: NodeId(2), ..view.clone() }];
        for member in [(NodeId(3), 9, 1), (NodeId(2), 8, 1), (NodeId(2), 9, 2)] {
            others.push(View { members: vec![view.members[0], member], ..view.clone() });
        }
        assert!(others.iter().all(|other| other.round() != view.round() && other.round() != 0));
    }
}
