//! How long this node may believe that it is a member ([`crate::membership::Membership::trusted_until`]).
//!
//! Whoever declares it dead has not heard it for the token. Signs of life say which was the newest that their sender heard of
//! each other node; so each peer is known to have heard us at some moment after we said that, and cannot have
//! declared us dead before that saying is a token old. Any member of the view we were started in may lead one without us,
//! so the one that has heard us longest ago decides. Members that are dead themselves count until a view without them is
//! started: as long as that takes, locking has stopped anyway.

use super::{Fixed, FixedConfig};
use crate::wire::Heartbeat;
use std::collections::{BTreeSet, VecDeque};

/// So many of our own signs of life are remembered.
const SENT_MAX: usize = 256;

/// Our own signs of life of the last token, and when they were said.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent(VecDeque<(u64, u64)>);

impl Sent {
    pub(super) fn note(&mut self, number: u64, now: u64, token_ms: u64) {
        self.0.push_back((number, now));
        while self.0.len() > SENT_MAX || self.0.front().is_some_and(|(_, at)| at.saturating_add(token_ms) < now) {
            self.0.pop_front();
        }
    }

    /// When we said what this says was heard of us.
    pub(super) fn when_heard(&self, beat: &Heartbeat, config: &FixedConfig) -> Option<u64> {
        let heard =
            beat.hears.iter().find(|heard| (heard.node, heard.incarnation) == (config.node, config.incarnation))?;
        self.0.iter().find(|(number, _)| *number == heard.number).map(|(_, at)| *at)
    }
}

impl Fixed {
    pub(super) fn trusted_until(&self) -> u64 {
        let known = self.spaces.values().flat_map(|space| space.begun.members.iter().map(|member| member.0));
        let others: BTreeSet<_> = known.filter(|node| *node != self.config.node).collect();
        // Rounded milliseconds, clocks of unlike speed, and the time from the look at the clock to the deed.
        let margin = (self.config.token_ms / 16).max(2);
        let heard = |node| self.peers.get(node).and_then(|peer| peer.heard_us);
        let until = |at: u64| at.saturating_add(self.config.token_ms).saturating_sub(margin);
        others.iter().map(|node| heard(node).map_or(0, until)).min().unwrap_or(u64::MAX)
    }
}
