//! What members say to one another, what a client asks, what the machine wants done.

use super::super::{Plock, PlockAnswer, PlockOp, PlockRequest};
use crate::ids::NodeId;

/// What a client asks: [`PlockRequest`] without what the node adds. A close is [`super::Order::close`], a cancel
/// [`super::Order::cancel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlockAsk {
    /// Lock, unlock or get.
    pub op: PlockOp,
    /// A write lock.
    pub exclusive: bool,
    /// Wait while it conflicts.
    pub wait: bool,
    /// The process, for information.
    pub pid: u32,
    /// The inode.
    pub number: u64,
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end: u64,
    /// The owner on this node.
    pub owner: u64,
}

/// A part of the state on its way to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// A member, and its last request that was carried out.
    Session {
        /// Who.
        node: NodeId,
        /// Which life of it.
        life: u64,
        /// The request.
        last: u64,
    },
    /// An answer that the member may not have heard.
    Answer {
        /// For whom; its session comes before.
        node: NodeId,
        /// Given at this number.
        number: u64,
        /// To this request.
        local: u64,
        /// The answer.
        answer: PlockAnswer,
    },
    /// A lock on this inode.
    Lock(u64, Plock),
    /// A waiting request.
    Waiter(PlockRequest),
}

/// Records in one frame: it stays below the limit of a frame.
pub const PIECE_RECORDS: usize = 60;

/// A message between members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderFrame {
    /// Of which round.
    pub round: u64,
    /// What.
    pub body: OrderBody,
}

/// The kinds of messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderBody {
    /// "I am here": the first message of a round, and the demand for the state once more.
    Hello {
        /// Changes with every join.
        life: u64,
        /// The number reached; `None` without the state.
        reached: Option<u64>,
    },
    /// A part of the source's state.
    Piece {
        /// From 0.
        index: u32,
        /// Nothing follows.
        last: bool,
        /// The number that the state has.
        number: u64,
        /// At most [`PIECE_RECORDS`].
        records: Vec<Record>,
    },
    /// To the source: a request.
    Submit {
        /// The sender's number for it.
        local: u64,
        /// The number that the sender has reached.
        reached: u64,
        /// The request.
        request: PlockRequest,
    },
    /// From the source: a request in its order; its `node` says whose.
    Deliver {
        /// Its number.
        number: u64,
        /// As submitted.
        local: u64,
        /// As submitted.
        reached: u64,
        /// The request.
        request: PlockRequest,
    },
}

/// What the machine wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrderEffect {
    /// Send to a member, after everything sent to it before.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        frame: OrderFrame,
    },
    /// The request of this number has ended.
    Answer(u64, PlockAnswer),
}
