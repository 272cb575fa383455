//! Who is in the cluster and in each lockspace, and the promise that recovery rests on: **every member has stopped
//! before any is started**, and nobody is started while a node that may still write to the shared disk has not been
//! fenced.
//!
//! [`Membership`] is a pure machine like the rest: events in, actions out; [`crate::node`] does its I/O. [`fixed`] is
//! the built-in one: a list of nodes, heartbeats, majority. A production cluster takes its membership from corosync
//! through the same trait. `sim` is the one of the simulated cluster ([`crate::sim`]): an ordered list of changes, which
//! every node sees at its own pace; it drives engines directly, not through the trait.

pub mod fixed;
#[cfg(any(test, feature = "sim"))]
pub(crate) mod sim;

use crate::ids::NodeId;
use crate::inspect::MembershipView;
use crate::recovery::Start;

/// How many of so many nodes must live for any to go on: more than half, and of two, one.
pub fn majority(nodes: usize) -> usize {
    if nodes == 2 { 1 } else { nodes / 2 + 1 }
}

/// What happens to a membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipEvent {
    /// We want to enter a lockspace.
    Join(u32),
    /// We want to leave it.
    Leave(u32),
    /// The lockspace has stopped, as demanded.
    Stopped(u32),
    /// A datagram of the membership's own protocol arrived.
    Datagram {
        /// From the address of this node.
        from: NodeId,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// The fence agent has finished with a node.
    Fenced {
        /// Which.
        node: NodeId,
        /// The agent says that the node is off.
        success: bool,
    },
    /// Time passed, and whatever had come by then was handed over.
    Tick,
}

/// What a membership wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MembershipAction {
    /// Stop this lockspace, then report [`MembershipEvent::Stopped`].
    Stop(u32),
    /// Start it with these members.
    Start(u32, Start),
    /// We are out of this lockspace.
    Left(u32),
    /// The others have gone on without us: what we held is lost, nothing may be written any more.
    Expelled(u32),
    /// A life of a node is over, or was counted out: its conversation is over. Not for one that is silent and may come back.
    NodeGone(NodeId),
    /// Make sure that this node cannot write any more, then report [`MembershipEvent::Fenced`].
    Fence(NodeId),
    /// Tell people: this node lives, and its configuration is not ours. It is not taken in.
    Differs(NodeId),
    /// Send this to a node, if it can be reached.
    Datagram {
        /// To whom.
        to: NodeId,
        /// The bytes.
        bytes: Vec<u8>,
    },
}

/// A source of membership.
pub trait Membership: Send {
    /// Takes in what happened at `now` (milliseconds, never backwards).
    fn handle(&mut self, event: MembershipEvent, now: u64);
    /// The next thing to be done.
    fn next_action(&mut self) -> Option<MembershipAction>;
    /// When [`MembershipEvent::Tick`] is wanted next.
    fn wake_at(&self) -> Option<u64>;
    /// What an administrator sees of it.
    fn view(&self) -> MembershipView {
        MembershipView::default()
    }
    /// Until this moment (milliseconds, as in [`Membership::handle`]) the others cannot have declared this node dead, as far as
    /// it can know: they are known to have heard it. It must not act on its locks after that. `u64::MAX`: there is nobody.
    fn trusted_until(&self) -> u64 {
        u64::MAX
    }
    /// Are there enough nodes to go on?
    fn is_quorate(&self) -> bool;
}
