//! Who may still write to the shared disk, and is to be fenced before locking goes on; and who must know of us first.

use super::peer::Peer;
use super::{Fixed, Member};
use crate::ids::NodeId;
use crate::membership::MembershipAction;
use crate::wire::View;
use std::collections::BTreeSet;

impl Fixed {
    /// Has a member of an earlier view left in order, as it says itself?
    pub(super) fn has_left(&self, lockspace: u32, (node, incarnation, join): Member) -> bool {
        self.incarnation(node) == Some(incarnation) && self.says(node, lockspace).is_none_or(|says| says.join != join)
    }

    /// Members of earlier views who are not in this one, and who may still write: they have neither left in order nor
    /// begun a new life. Each member names those it was started with, so that nobody is forgotten.
    fn left_behind(&self, lockspace: u32, view: &View) -> Vec<NodeId> {
        let known = view.members.iter().filter_map(|member| self.says(member.0, lockspace)).flat_map(|says| says.known);
        let goes_on = |node: NodeId| view.members.iter().any(|member| member.0 == node);
        known
            .filter(|member| !goes_on(member.0) && !self.has_left(lockspace, *member))
            .filter(|member| !self.is_over((member.0, member.1)))
            .map(|member| member.0)
            .collect()
    }

    /// Has everyone been fenced who may still write? Orders it where it is due.
    pub(super) fn nobody_in_doubt(&mut self, lockspace: u32, view: &View) -> bool {
        if !self.config.fencing {
            return true;
        }
        let mut doubtful = self.doubtful.clone();
        doubtful.extend(self.left_behind(lockspace, view));
        let beats = view.members.iter().filter_map(|(node, _, _)| self.peers.get(node)?.living());
        doubtful.extend(beats.flat_map(|beat| beat.doubtful.iter().copied()));
        let first = self.spaces.get(&lockspace).is_some_and(|space| space.begun.members.is_empty())
            && view.members.iter().all(|(node, _, _)| self.was_never_started(*node));
        let waited = self.quorate_since.is_some_and(|at| self.now >= at + self.config.startup_ms);
        let mut strangers: BTreeSet<NodeId> = BTreeSet::new();
        let unseen: Vec<NodeId> = self.peers.iter().filter(|(_, p)| !p.mutual).map(|(n, _)| *n).collect();
        if first {
            if !unseen.is_empty() && !waited {
                return false;
            }
            // Who greets with another file lives, and would do so again after it was fenced: that is for people to mend.
            strangers.extend(unseen.iter().filter(|node| !doubtful.contains(node) && self.has_differed(**node)));
            doubtful.extend(unseen);
        }
        let pending: Vec<NodeId> = doubtful
            .into_iter()
            .filter(|n| !self.fenced.contains(n) && !view.members.iter().any(|m| m.0 == *n))
            .collect();
        let now = self.now;
        // A new life is not fenced for the old one because it does not hear us yet.
        let due = |node: &&NodeId| !self.has_just_come(**node) && !strangers.contains(*node);
        for node in pending.iter().filter(due).collect::<Vec<_>>() {
            if let Some(peer) = self.peers.get_mut(node).filter(|peer| peer.fencing.is_none() && peer.retry_at <= now) {
                peer.fencing = Some(peer.returns);
                self.actions.push_back(MembershipAction::Fence(*node));
            }
        }
        pending.is_empty()
    }

    /// A node greets us with another list of nodes or other times: nothing it says counts, and somebody must be told.
    pub(super) fn note_difference(&mut self, node: NodeId) {
        let known = self.has_differed(node);
        let Some(peer) = self.peers.get_mut(&node) else { return };
        peer.differed = Some(self.now);
        if !known {
            self.actions.push_back(MembershipAction::Differs(node));
        }
    }

    /// Has it done so lately?
    pub(super) fn has_differed(&self, node: NodeId) -> bool {
        let at = self.peers.get(&node).and_then(|peer| peer.differed);
        at.is_some_and(|at| self.now < at.saturating_add(self.config.token_ms))
    }

    /// Has this node never had a part in a started view, as far as it says?
    fn was_never_started(&self, node: NodeId) -> bool {
        if node == self.config.node {
            return self.spaces.values().all(|space| space.begun.members.is_empty());
        }
        let beat = self.peers.get(&node).and_then(Peer::living);
        beat.is_some_and(|beat| beat.spaces.iter().all(|space| space.known.is_empty()))
    }

    /// The agent has finished. What it did counts for the node as it was when it was ordered: if the node was heard after
    /// that, it may be another life, or the same one untouched, and is fenced anew if it is in doubt again.
    pub(super) fn fencing_ended(&mut self, node: NodeId, success: bool) {
        let Some(peer) = self.peers.get_mut(&node) else { return };
        let current = peer.fencing.take() == Some(peer.returns);
        peer.retry_at = if current { self.now + self.config.token_ms } else { self.now };
        if success && current {
            self.fenced.insert(node);
        }
    }

    /// It is heard, and has not had the time to hear us.
    fn has_just_come(&self, node: NodeId) -> bool {
        let heard = self.peers.get(&node).filter(|peer| peer.beat.is_some());
        heard.is_some_and(|peer| self.now < peer.since.saturating_add(self.config.token_ms))
    }

    /// At our first start: do those who live and are not in this view know that we have joined? From then on they begin
    /// nothing without us. Otherwise nodes that join at the same moment would each begin, alone.
    pub(super) fn others_know(&self, lockspace: u32, view: &View) -> bool {
        let Some(space) = self.spaces.get(&lockspace).filter(|space| space.begun.members.is_empty()) else {
            return true;
        };
        let Some(named) = space.named else { return false };
        let others = self.peers.iter().filter(|(node, _)| !view.members.iter().any(|member| member.0 == **node));
        let others = others.filter(|(node, peer)| peer.mutual || self.has_just_come(**node));
        others.filter_map(|(_, peer)| peer.beat.as_ref()).all(|beat| {
            let ours = |node, incarnation| (node, incarnation) == (self.config.node, self.config.incarnation);
            beat.hears.iter().any(|heard| ours(heard.node, heard.incarnation) && heard.number >= named)
        })
    }
}
