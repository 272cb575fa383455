//! Snapshots for people: how a node, its lockspaces, its locks and its byte-range locks are at this moment. They are
//! plain values, for serde; [`render`] shows them the way `dlm_tool` does.
//!
//! A snapshot is taken under the lock of what it shows, so that it is consistent in itself; two of them are not of the
//! same moment. Looking changes nothing.

pub mod render;

use crate::engine::Engine;
use crate::ids::NodeId;
use crate::midcomms::Midcomms;
use crate::mode::Mode;
use crate::plock::order::Order;
use crate::plock::{Plock, PlockFile, PlockRequest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A node of the cluster, as the membership sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterNode {
    /// Its id.
    pub node: u32,
    /// It is heard from (or it is this node).
    pub alive: bool,
    /// Which life of it; `None` if it is silent.
    pub incarnation: Option<u64>,
    /// Milliseconds since it was last heard from; `None` for this node, and for one that never was.
    pub heard_ms_ago: Option<u64>,
    /// It fell silent as a member and may still write: it has to be fenced.
    pub in_doubt: bool,
    /// The fence agent is at work on it.
    pub being_fenced: bool,
    /// It has been fenced since it fell silent.
    pub fenced: bool,
    /// It greets with another cluster file than this node's, and is not taken in.
    #[serde(default)]
    pub differs: bool,
    /// How often in a row fencing it has failed here.
    #[serde(default)]
    pub fence_failures: u32,
}

/// What a membership shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembershipView {
    /// Which life of this node.
    pub incarnation: u64,
    /// Silence after which a node is dead, in milliseconds.
    pub token_ms: u64,
    /// All nodes of the cluster, by id.
    pub nodes: Vec<ClusterNode>,
}

/// The conversation with a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// Who.
    pub node: u32,
    /// `none`, `wanted` or `up`: our own connection to it.
    pub connection: String,
    /// Where the conversation stands, in TCP's words.
    pub conversation: String,
    /// Frames that it has not acknowledged.
    pub unacknowledged: usize,
    /// Frames of its that were stale, damaged or not its own.
    pub dropped: u64,
}

/// A running node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its id.
    pub node: u32,
    /// Enough nodes are there to go on.
    pub quorate: bool,
    /// Who is in the cluster.
    pub membership: MembershipView,
    /// The conversations, by node.
    pub peers: Vec<PeerView>,
    /// The lockspaces it has joined, by id.
    pub lockspaces: Vec<SpaceView>,
}

/// A member of a lockspace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberView {
    /// Who.
    pub node: u32,
    /// Which life of it.
    pub incarnation: u64,
    /// Its slot; 0 none.
    pub slot: u16,
    /// Its share of the directory.
    pub weight: u32,
}

/// The byte-range locks of a lockspace, in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlockCounts {
    /// Who orders requests; `None` while members change.
    pub source: Option<u32>,
    /// Deliveries so far; `None` without a table.
    pub reached: Option<u64>,
    /// Locks and waiters of all nodes.
    pub size: usize,
    /// Requests of this node that have not ended.
    pub outstanding: usize,
    /// Messages that did not fit.
    pub dropped: u64,
}

/// A lockspace on this node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceView {
    /// Its name.
    pub name: String,
    /// Its global id.
    pub id: u32,
    /// Locking is allowed, as opposed to stopped or in recovery.
    pub running: bool,
    /// Where recovery stands.
    pub recovery_step: String,
    /// Bits of the recovery status.
    pub recovery_status: u32,
    /// Stops and starts so far, from a random number on.
    pub recovery_sequence: u64,
    /// Epoch of the membership.
    pub generation: u32,
    /// This node's slot; 0 none.
    pub slot: u16,
    /// The members, by node.
    pub members: Vec<MemberView>,
    /// Lock records.
    pub locks: usize,
    /// Resource records, active and idle.
    pub resources: usize,
    /// Calls and messages that wait for recovery.
    pub waiting_calls: usize,
    /// Messages of members that wait for recovery.
    pub waiting_messages: usize,
    /// Messages that did not fit, by reason.
    pub ignored: BTreeMap<String, u64>,
    /// Byte-range locks.
    pub plocks: PlockCounts,
}

/// A lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockView {
    /// Its id here.
    pub id: u32,
    /// Its id on the other side; 0 if there is none.
    pub remote_id: u32,
    /// The node that holds it.
    pub node: u32,
    /// The process, for information.
    pub pid: u32,
    /// The mode held: `NL` to `EX`, `IV` for none.
    pub granted: String,
    /// The mode asked for, likewise.
    pub requested: String,
    /// Flags of the last operation, the protocol's bits.
    pub flags: u32,
    /// The message whose answer it awaits, `Nothing` if none.
    pub awaits: String,
    /// It is told when it is in the way.
    pub wants_notices: bool,
}

/// A resource and the locks on it that this node knows: all of them where it is the master, else its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceView {
    /// Its name; bytes that cannot be printed as `\xNN`.
    pub name: String,
    /// The node that owns its queues; `None` if that is not known yet.
    pub master: Option<u32>,
    /// The node that records who the master is.
    pub directory: u32,
    /// Those who hold a mode and want no other.
    pub granted: Vec<LockView>,
    /// Those who hold a mode and wait for another.
    pub converting: Vec<LockView>,
    /// Those who wait; and those whose first message is on its way.
    pub waiting: Vec<LockView>,
    /// The value block in hexadecimal digits, if there is one.
    pub lvb: Option<String>,
    /// How often it was written.
    pub lvb_sequence: u32,
    /// It can be believed.
    pub lvb_valid: bool,
}

/// A byte-range lock, or a request that waits for one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlockView {
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end: u64,
    /// A write lock.
    pub exclusive: bool,
    /// The node it belongs to.
    pub node: u32,
    /// The process on that node.
    pub pid: u32,
    /// The owner on that node.
    pub owner: u64,
}

/// The byte-range locks of an inode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlockFileView {
    /// The inode.
    pub number: u64,
    /// Who holds what.
    pub locks: Vec<PlockView>,
    /// Who waits, in order.
    pub waiters: Vec<PlockView>,
}

/// `EX`; `IV` for no mode.
pub(crate) fn mode_name(mode: Option<Mode>) -> String {
    mode.map_or_else(|| "IV".to_owned(), |mode| format!("{mode:?}").to_uppercase())
}

pub(crate) fn peer_view(node: NodeId, connection: &str, midcomms: &Midcomms) -> PeerView {
    PeerView {
        node: node.0,
        connection: connection.to_owned(),
        conversation: format!("{:?}", midcomms.state()).to_uppercase(),
        unacknowledged: midcomms.unacknowledged(),
        dropped: midcomms.dropped(),
    }
}

pub(crate) fn space_view(name: &str, id: u32, engine: &Engine, plocks: PlockCounts) -> SpaceView {
    SpaceView { name: name.to_owned(), id, plocks, ..engine.view() }
}

pub(crate) fn plock_counts(order: &Order) -> PlockCounts {
    PlockCounts {
        source: order.source().map(|node| node.0),
        reached: order.reached(),
        size: order.table().map_or(0, |table| table.size()),
        outstanding: order.outstanding(),
        dropped: order.dropped(),
    }
}

impl From<&PlockFile> for PlockFileView {
    fn from(file: &PlockFile) -> PlockFileView {
        let lock = |lock: &Plock| {
            let Plock { start, end, owner, pid, node, exclusive } = *lock;
            PlockView { start, end, exclusive, node: node.0, pid, owner }
        };
        let waiter = |request: &PlockRequest| {
            let PlockRequest { start, end, owner, pid, node, exclusive, .. } = *request;
            PlockView { start, end, exclusive, node: node.0, pid, owner }
        };
        PlockFileView {
            number: file.number,
            locks: file.locks.iter().map(lock).collect(),
            waiters: file.waiters.iter().map(waiter).collect(),
        }
    }
}
