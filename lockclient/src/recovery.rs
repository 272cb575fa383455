//! What happens when the membership of a lockspace changes (dlm.md 4).
//!
//! The layer above stops every member before it starts any (that is its promise). A start names the new members;
//! then, in an explicit sequence of steps, all of them together
//!
//! 1. greet one another, and agree on small stable *slots* (`slots`),
//! 2. rebuild the directory: each asks every other which resources it masters (`names`),
//! 3. if someone is gone: find new masters for the resources of the dead, send them our locks, decide what the dead
//!    have left undecided, and find out which value blocks can still be believed (`masters`, `settle`),
//! 4. let locking go on: first what was queued meanwhile, then what must be asked again (`waiters`).
//!
//! Between the steps stand *barriers*: the lowest member polls the others until all have reached the step, the others
//! poll the lowest (`steps`).
//!
//! A further failure may come at any moment: stop abandons everything, the next start begins again. Three things
//! make that safe: `gone` is forgotten only after a complete round; marks on resources (`new_master`, `grant_due`,
//! `lvb_lost`) stay until they are acted on; and what a dead node leaves behind (its records, its mastery, its queued
//! messages) is dropped at once when it is first seen to be gone, before a successor with the same number can speak.

mod finish;
mod masters;
mod names;
mod settle;
mod slots;
mod steps;
mod waiters;

use crate::engine::resource::ResourceKey;
use crate::frame::{NOT_READY, Rcom, RcomBody, RcomConfig, Slot};
use crate::ids::{LockId, Name, NodeId};
use crate::status::result;
use std::collections::BTreeMap;

/// Bits of the recovery status that members show one another.
pub mod status {
    /// The member knows the members.
    pub const NODES: u32 = 0x01;
    /// All do.
    pub const NODES_ALL: u32 = 0x02;
    /// The member has rebuilt its part of the directory.
    pub const DIR: u32 = 0x04;
    /// All have.
    pub const DIR_ALL: u32 = 0x08;
    /// The member has recovered its locks.
    pub const LOCKS: u32 = 0x10;
    /// All have.
    pub const LOCKS_ALL: u32 = 0x20;
    /// The member is done.
    pub const DONE: u32 = 0x40;
    /// All are.
    pub const DONE_ALL: u32 = 0x80;
}

/// A member, as the membership layer announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StartMember {
    /// Who.
    pub node: NodeId,
    /// Share of the directory (1, unless configured otherwise everywhere alike).
    pub weight: u32,
    /// Changes when the node leaves the cluster and comes back (the kernel's `comm_seq`).
    pub incarnation: u64,
    /// It has not been part of a start before, even if its number has.
    pub new: bool,
}

/// The membership that a lockspace is started with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// All members, this node included.
    pub members: Vec<StartMember>,
    /// All nodes of the cluster with their incarnation: who is still here has left the lockspace in order.
    pub cluster: Vec<(NodeId, u64)>,
    /// The same number on all members for this start, another for every other: tells their rounds of byte-range locks
    /// apart ([`crate::plock::order`]). 0: the membership knows no such number.
    pub round: u64,
}

/// A member, as recovery knows it.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) node: NodeId,
    pub(crate) weight: u32,
    pub(crate) incarnation: u64,
    /// Not known yet; or 0, no slot; or its slot.
    pub(crate) slot: Option<u16>,
    /// The slot it had in the last round that was completed, 0 none.
    pub(crate) slot_before: u16,
    /// The slot it was given last, 0 for none. The lowest member forgets `slot` while it asks for it; should the member die just
    /// then, its death must be told all the same.
    pub(crate) slot_given: u16,
    pub(crate) generation: u32,
}

/// A barrier between steps, named by the step that it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Nodes,
    Directory,
    Locks,
    Done,
}

impl Stage {
    /// The bit a member shows that has reached it; twice the bit: all have.
    pub(crate) fn bit(self) -> u32 {
        match self {
            Stage::Nodes => status::NODES,
            Stage::Directory => status::DIR,
            Stage::Locks => status::LOCKS,
            Stage::Done => status::DONE,
        }
    }
}

/// Where recovery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Not at work: stopped, or complete.
    Idle,
    /// Asks member number `peer` whether it is there.
    Greet { peer: usize },
    /// Waits for the others.
    Barrier { stage: Stage, peer: usize },
    /// Asks member number `peer` for the resources it masters.
    Names { peer: usize, after: Option<Name> },
    /// Awaits this many answers about new masters.
    Masters { outstanding: usize },
    /// Awaits this many answers about our locks.
    Locks { outstanding: usize },
    /// Members are configured differently.
    Failed,
}

/// The one request that is repeated if no answer comes.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) tag: u64,
    pub(crate) to: NodeId,
    pub(crate) body: RcomBody,
    pub(crate) repeat_at: u64,
}

/// State of recovery of one lockspace.
#[derive(Clone, Debug)]
pub(crate) struct Recovery {
    /// +1 at every stop and every start.
    pub(crate) seq: u64,
    pub(crate) status: u32,
    pub(crate) stopped: bool,
    /// This lockspace has once agreed with others on the members.
    pub(crate) agreed_once: bool,
    pub(crate) members: Vec<Member>,
    /// Members lost since the last complete recovery.
    pub(crate) gone: Vec<NodeId>,
    pub(crate) generation: u32,
    pub(crate) our_slot: u16,
    pub(crate) slots: Vec<Slot>,
    pub(crate) step: Step,
    pub(crate) exchange: Option<Exchange>,
    /// Poll again at this time; the pause grows.
    pub(crate) poll_at: Option<u64>,
    pub(crate) poll_pause: u64,
    next_tag: u64,
    /// Conversions that wait for one another.
    pub(crate) refused: Vec<LockId>,
    /// The resources we master, by the node that directs them, in the order in which they are listed.
    pub(crate) listing: BTreeMap<NodeId, Vec<ResourceKey>>,
}

impl Recovery {
    pub(crate) fn new(seq: u64, first_tag: u64) -> Recovery {
        Recovery {
            seq,
            status: 0,
            stopped: true,
            agreed_once: false,
            members: Vec::new(),
            gone: Vec::new(),
            generation: 0,
            our_slot: 0,
            slots: Vec::new(),
            step: Step::Idle,
            exchange: None,
            poll_at: None,
            poll_pause: 0,
            next_tag: first_tag,
            refused: Vec::new(),
            listing: BTreeMap::new(),
        }
    }

    pub(crate) fn is_member(&self, node: NodeId) -> bool {
        self.member(node).is_some()
    }

    pub(crate) fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.binary_search_by_key(&node, |m| m.node).ok().map(|i| &self.members[i])
    }

    /// The member with the lowest number leads the barriers and assigns the slots.
    pub(crate) fn low(&self) -> NodeId {
        self.members.first().map_or(NodeId::NONE, |m| m.node)
    }

    /// Nothing that arrives can be meant for us: at best for an earlier life of this lockspace on this node.
    pub(crate) fn never_agreed(&self) -> bool {
        !self.agreed_once
    }

    pub(crate) fn wake_at(&self) -> Option<u64> {
        [self.poll_at, self.exchange.as_ref().map(|e| e.repeat_at)].into_iter().flatten().min()
    }

    pub(crate) fn tag(&mut self) -> u64 {
        let tag = self.next_tag;
        // All ones marked an old debugging request.
        self.next_tag = self.next_tag.wrapping_add(1);
        if self.next_tag == 0xffff_ffff {
            self.next_tag += 1;
        }
        tag
    }
}

/// The answer of a node that does not have the lockspace (yet) to a status request.
pub(crate) fn not_ready_answer(rcom: &Rcom) -> Option<Rcom> {
    matches!(rcom.body, RcomBody::Status { .. }).then(|| Rcom {
        result: result::ESRCH,
        id: rcom.id,
        seq: 0,
        seq_reply: rcom.seq,
        body: RcomBody::StatusReply(RcomConfig { lvblen: NOT_READY, ..RcomConfig::default() }),
    })
}
