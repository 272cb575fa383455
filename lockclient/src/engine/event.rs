//! What goes into a lockspace and what comes out of it.

use crate::flags::{LockFlags, StatusFlags};
use crate::frame::{Frame, Slot};
use crate::ids::{LockId, Name, NodeId};
use crate::mode::Mode;
use crate::recovery::Start;
use crate::status::{Refusal, Status};

/// What makes one lockspace differ from another. Times are milliseconds.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// Length of value blocks in bytes, a multiple of 8, 8..=64 (GFS2: 32). All members must agree.
    pub lvb_length: usize,
    /// Flags that all members must share (GFS2: 0).
    pub lockspace_flags: u32,
    /// An idle resource record older than this is dropped.
    pub toss_ms: u64,
    /// How often idle records are looked at.
    pub scan_ms: u64,
    /// An unanswered status or names request is repeated after this.
    pub recover_ms: u64,
    /// Start of the recovery sequence (random in production).
    pub first_sequence: u64,
    /// Start of the tags of recovery requests (random in production).
    pub first_tag: u64,
}

impl Config {
    /// GFS2's lockspace on this node, with the kernel's times.
    pub fn new(node: NodeId) -> Config {
        Config {
            node,
            lvb_length: 32,
            lockspace_flags: 0,
            toss_ms: 10_000,
            scan_ms: 5_000,
            recover_ms: 5_000,
            first_sequence: 0,
            first_tag: 1,
        }
    }
}

/// A new lock.
#[derive(Clone, Debug)]
pub struct LockCall {
    /// The caller's name for this call, given back in [`Effect::Accepted`] or [`Effect::Refused`].
    pub call: u64,
    /// The caller's name for the lock, given back in every callback.
    pub token: u64,
    /// The mode wanted.
    pub mode: Mode,
    /// How.
    pub flags: LockFlags,
    /// The resource.
    pub name: Name,
    /// Value block storage, required with VALBLK.
    pub lvb: Option<Box<[u8]>>,
    /// Owner process, informational.
    pub pid: u32,
    /// Tell me when I am in someone's way.
    pub wants_notices: bool,
    /// What the client does with a value that comes with VALNOTVALID: it uses it, and the lock may vouch for it when the
    /// master has died; or it does not, and the value is forgotten.
    pub uses_lost_value: bool,
}

/// What a client may ask.
#[derive(Clone, Debug)]
pub enum ClientCall {
    /// A new lock.
    Lock(LockCall),
    /// Another mode for a lock.
    Convert {
        /// As in [`LockCall`].
        call: u64,
        /// Which lock.
        lock: LockId,
        /// The mode wanted.
        mode: Mode,
        /// How.
        flags: LockFlags,
        /// The value block to write, if it changed.
        lvb: Option<Box<[u8]>>,
    },
    /// Give up a lock, or (CANCEL) what it waits for.
    Unlock {
        /// As in [`LockCall`].
        call: u64,
        /// Which lock.
        lock: LockId,
        /// VALBLK, IVVALBLK, CANCEL or FORCEUNLOCK.
        flags: LockFlags,
        /// The value block to write, if it changed.
        lvb: Option<Box<[u8]>>,
    },
}

/// What happens to a lockspace.
#[derive(Clone, Debug)]
pub enum Event {
    /// The client calls.
    Client(ClientCall),
    /// A member sent something.
    Frame {
        /// Who.
        from: NodeId,
        /// What.
        frame: Frame,
    },
    /// Membership changes: stop at once.
    Stop,
    /// Every member has stopped; these are the new members.
    Start(Start),
    /// Time passed.
    Tick,
}

/// What a lockspace wants done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send to a member, after everything sent to it before.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        frame: Frame,
    },
    /// The call was accepted; its completion follows.
    Accepted {
        /// Which call.
        call: u64,
        /// The lock it is about.
        lock: LockId,
    },
    /// The call was refused; nothing follows.
    Refused {
        /// Which call.
        call: u64,
        /// Why.
        why: Refusal,
    },
    /// An operation ended.
    Completion {
        /// The client's name for the lock.
        token: u64,
        /// The lock.
        lock: LockId,
        /// How it ended.
        status: Status,
        /// DEMOTED, VALNOTVALID, ALTMODE.
        flags: StatusFlags,
        /// The mode held now.
        mode: Option<Mode>,
        /// The value block, where one was returned.
        lvb: Option<Box<[u8]>>,
    },
    /// The lock is in someone's way.
    Blocking {
        /// The client's name for the lock.
        token: u64,
        /// The lock.
        lock: LockId,
        /// The mode that someone wants.
        mode: Mode,
    },
    /// A running lockspace has stopped (GFS2's `recover_prep`).
    Prepare,
    /// A member failed (GFS2's `recover_slot`).
    SlotFailed(Slot),
    /// Recovery is complete (GFS2's `recover_done`).
    Recovered {
        /// All members.
        slots: Vec<Slot>,
        /// Our own number, 0 if the members could not agree on numbers.
        our_slot: u16,
        /// Epoch of the membership.
        generation: u32,
    },
    /// Recovery cannot go on: the members are configured differently.
    RecoveryFailed(Refusal),
    /// This node is a member of the lockspace now.
    MemberAdded(NodeId),
    /// This node no longer is.
    MemberRemoved(NodeId),
}
