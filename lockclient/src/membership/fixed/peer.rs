//! What is known of another node: what it said last, whether it hears us, and which of its lives are over.

use super::Fixed;
use crate::ids::NodeId;
use crate::wire::{Heard, Heartbeat};
use std::collections::VecDeque;

/// Another node.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    pub(super) heard: Option<u64>,
    /// The newest it has said, while it is heard.
    pub(super) beat: Option<Heartbeat>,
    /// It hears us, too.
    pub(super) mutual: bool,
    /// Incarnation and number of the newest sign of life ever.
    pub(super) last: Option<(u64, u64)>,
    /// When we said the newest that it is known to have heard of us.
    pub(super) heard_us: Option<u64>,
    /// Incarnations that are over. What they said may still be under way.
    past: VecDeque<u64>,
    /// When the newest of its lives was heard first.
    pub(super) since: u64,
    /// Counts its lives, and how often it was there again.
    pub(super) returns: u64,
    /// An agent is at work on it, ordered when `returns` was this.
    pub(super) fencing: Option<u64>,
    /// Try the agent again then.
    pub(super) retry_at: u64,
    /// When it last greeted with another cluster file than ours.
    pub(super) differed: Option<u64>,
}

/// So many earlier incarnations of a node are remembered.
const PAST_MAX: usize = 8;

impl Peer {
    /// The newest it has said, if we and it hear one another.
    pub(super) fn living(&self) -> Option<&Heartbeat> {
        self.beat.as_ref().filter(|_| self.mutual)
    }

    /// How we say that we hear it.
    pub(super) fn as_heard(&self, node: NodeId) -> Option<Heard> {
        let (incarnation, number) = self.beat.as_ref().and(self.last)?;
        Some(Heard { node, incarnation, number })
    }

    /// Is this news? Notes that it has been heard. `Some(true)`: of a new incarnation.
    pub(super) fn note(&mut self, beat: &Heartbeat, now: u64) -> Option<bool> {
        let late = self.last.is_some_and(|last| last.0 == beat.incarnation && last.1 >= beat.number);
        if late || self.past.contains(&beat.incarnation) {
            return None;
        }
        let before = self.last.replace((beat.incarnation, beat.number)).map(|last| last.0);
        let past = before.filter(|before| *before != beat.incarnation);
        if before != Some(beat.incarnation) {
            self.since = now;
            self.returns += 1;
        }
        self.past.extend(past);
        if self.past.len() > PAST_MAX {
            self.past.pop_front();
        }
        self.heard = Some(now);
        Some(past.is_some())
    }
}

impl Fixed {
    /// Has a node begun a new life since? It need not hear us yet: the process that lived this one is dead.
    pub(super) fn is_over(&self, (node, incarnation): (NodeId, u64)) -> bool {
        let replaced = self.peers.get(&node).is_some_and(|peer| peer.past.contains(&incarnation));
        replaced || self.incarnation(node).is_some_and(|lives| lives != incarnation)
    }
}
