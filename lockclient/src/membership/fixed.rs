//! The built-in membership: a list of nodes, signs of life, majority.
//!
//! Each node tells all others several times per token that it lives, which lockspaces it has joined, and the newest
//! *view* (proposed membership) of each that it has stopped for. The lowest living member of a lockspace leads it:
//! when those who live and have joined differ from the view, it proposes the next view. A member that sees a newer
//! view stops its lockspace and says so. When every member of the view has stopped, the leader starts it, provided
//! that
//!
//! * the nodes that live are a majority of the list (of two nodes, one is enough), and
//! * no node is in doubt. In doubt is who was a member of a started view and fell silent, or, when nobody of the view
//!   has been started before, who has not been seen at all: it may live, cut off, and write. The leader has it fenced.
//!
//! A node *lives* for another when the two hear one another: each sign of life names those that its sender hears. A node
//! that hears nobody, or that nobody hears, is as good as silent, for itself and for the others; nothing could be
//! agreed with it.
//!
//! Two leaders may exist for a while, on both sides of a cut; only the side with the majority starts anything, and it
//! has the other side fenced first. With two nodes both sides fence, and the first shot wins. A node that was counted
//! out and appears again with its old life is *expelled*: its locks are gone; only a new life may join. A life that was
//! only silent goes on as if nothing had been: what was under way to it and from it arrives.
//!
//! A process that was stopped for a while hears what was said meanwhile only after it has seen how late it is; so silence
//! is judged once it has had the time to listen.

mod describe;
mod doubt;
mod inspect;
mod peer;
#[cfg(test)]
mod tests;
mod trust;

use super::{Membership, MembershipAction, MembershipEvent, majority};
use crate::ids::NodeId;
use crate::inspect::MembershipView;
use crate::wire::{Heartbeat, JoinedSpace, View, decode_heartbeat, encode_heartbeat};
use peer::Peer;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use trust::Sent;

/// The cluster, alike on all nodes, and this node's place in it. Times are milliseconds.
#[derive(Clone, Debug)]
pub struct FixedConfig {
    /// This node.
    pub node: NodeId,
    /// Changes with every start of the process (the time of day will do).
    pub incarnation: u64,
    /// The cluster's name.
    pub name: String,
    /// All nodes.
    pub nodes: Vec<NodeId>,
    /// Silence after which a node is dead.
    pub token_ms: u64,
    /// How long nodes that have not been seen are waited for, once there is a majority, before they are fenced.
    pub startup_ms: u64,
    /// Nodes in doubt are fenced. Without this, data is at risk: for laboratories only.
    pub fencing: bool,
}

/// A view that is so many ahead of all that is known is nobody's.
const VIEWS_AHEAD: u64 = 1 << 32;

/// A member of a view: node, incarnation, number of its join.
type Member = (NodeId, u64, u64);

/// A lockspace that we have joined.
#[derive(Clone, Debug, Default)]
struct Space {
    join: u64,
    view: View,
    adopted_at: u64,
    /// The engine has stopped for this view.
    stopped: bool,
    started: bool,
    /// The first of our signs of life that named this join.
    named: Option<u64>,
    /// The view we were started with last.
    begun: View,
    leaving: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Fixed {
    config: FixedConfig,
    cluster: u32,
    now: u64,
    peers: BTreeMap<NodeId, Peer>,
    spaces: BTreeMap<u32, Space>,
    /// Nodes of ours that may still write.
    doubtful: BTreeSet<NodeId>,
    /// Nodes that were fenced since they fell silent (or before they were seen).
    fenced: BTreeSet<NodeId>,
    /// Lives that were counted out.
    expelled: BTreeSet<(NodeId, u64)>,
    next_beat: u64,
    beats: u64,
    /// We were away for a while: silence is not judged before.
    listening: Option<u64>,
    sent: Sent,
    /// Since then the nodes that live are a majority.
    quorate_since: Option<u64>,
    joins: u64,
    actions: VecDeque<MembershipAction>,
}

impl Fixed {
    /// A membership in which nobody has been heard.
    pub fn new(config: FixedConfig) -> Fixed {
        let mut crc = crc32fast::Hasher::new();
        crc.update(config.name.as_bytes());
        for node in &config.nodes {
            crc.update(format!(" {node}").as_bytes());
        }
        // Nodes that count differently would fence one another for ever.
        let FixedConfig { token_ms, startup_ms, fencing, .. } = config;
        crc.update(format!(" {token_ms} {startup_ms} {fencing}").as_bytes());
        let others = config.nodes.iter().copied().filter(|node| *node != config.node);
        Fixed {
            cluster: crc.finalize(),
            now: 0,
            peers: others.map(|node| (node, Peer::default())).collect(),
            spaces: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            fenced: BTreeSet::new(),
            expelled: BTreeSet::new(),
            next_beat: 0,
            beats: 0,
            listening: None,
            sent: Sent::default(),
            quorate_since: None,
            joins: 0,
            actions: VecDeque::new(),
            config,
        }
    }

    fn lives(&self, node: NodeId) -> bool {
        node == self.config.node || self.peers.get(&node).is_some_and(|peer| peer.mutual)
    }

    fn incarnation(&self, node: NodeId) -> Option<u64> {
        if node == self.config.node {
            return Some(self.config.incarnation);
        }
        self.peers.get(&node)?.living().map(|beat| beat.incarnation)
    }

    /// What a living node says about a lockspace.
    fn says(&self, node: NodeId, lockspace: u32) -> Option<JoinedSpace> {
        if node == self.config.node {
            let space = self.spaces.get(&lockspace).filter(|space| !space.leaving)?;
            let view = if space.stopped { space.view.clone() } else { View::default() };
            let known = space.begun.members.clone();
            return Some(JoinedSpace { lockspace, join: space.join, view, started: space.started, known });
        }
        let beat = self.peers.get(&node)?.living()?;
        beat.spaces.iter().find(|space| space.lockspace == lockspace).cloned()
    }

    fn hear(&mut self, from: NodeId, bytes: &[u8]) {
        let Ok(beat) = decode_heartbeat(bytes) else { return };
        if beat.node != from || self.is_ahead_of_all(&beat) {
            return;
        }
        if beat.cluster != self.cluster {
            return self.note_difference(from);
        }
        let Some(peer) = self.peers.get_mut(&from) else { return };
        let Some(renewed) = peer.note(&beat, self.now) else { return };
        peer.differed = None;
        peer.heard_us = peer.heard_us.max(self.sent.when_heard(&beat, &self.config));
        if renewed || peer.beat.as_ref().is_none_or(|before| before.newest_join() < beat.newest_join()) {
            // It shall know at once that it is heard, and that we know of its join.
            self.next_beat = 0;
        }
        let hears_us = beat.hears(self.config.node, self.config.incarnation);
        if renewed || !hears_us {
            self.lose(from);
        }
        if renewed {
            // The old life is over: the process that lived it is dead, and a new one greets us.
            self.doubtful.remove(&from);
            self.fenced.remove(&from);
            self.actions.push_back(MembershipAction::NodeGone(from));
        }
        let expelled = self.expelled.contains(&(from, beat.incarnation));
        let Some(peer) = self.peers.get_mut(&from) else { return };
        peer.beat = Some(beat);
        if hears_us && !std::mem::replace(&mut peer.mutual, true) && !expelled {
            // It has begun anew, or it was but silent for a while: either way it answers for itself again.
            self.doubtful.remove(&from);
            self.fenced.remove(&from);
            peer.returns += 1;
        }
    }

    /// Does it name views that no cluster could have come to? Whoever counted on from there would not be understood any more.
    fn is_ahead_of_all(&self, beat: &Heartbeat) -> bool {
        let heard = self.peers.values().filter_map(|peer| peer.beat.as_ref()).flat_map(|beat| beat.spaces.iter());
        let known = heard.map(|says| says.view.number).chain(self.spaces.values().map(|space| space.view.number));
        let highest = known.max().unwrap_or(0);
        beat.spaces.iter().any(|says| says.view.number > highest.saturating_add(VIEWS_AHEAD))
    }

    /// A node has fallen silent or deaf, or its life is over. As long as that life may come back, the conversation with it
    /// stands.
    fn lose(&mut self, node: NodeId) {
        let Some(peer) = self.peers.get_mut(&node).filter(|peer| peer.mutual) else { return };
        peer.mutual = false;
        let Some(incarnation) = peer.beat.as_ref().map(|beat| beat.incarnation) else { return };
        let member = self
            .spaces
            .values()
            .any(|space| space.begun.members.iter().any(|(n, i, _)| (*n, *i) == (node, incarnation)));
        // Whatever was done to it, it was heard since.
        self.fenced.remove(&node);
        if member {
            self.doubtful.insert(node);
        }
    }

    /// Who has not been heard for the token is lost. Only judged when time passes: then whatever had come was taken in.
    fn judge_silence(&mut self) {
        if self.listening.is_some_and(|until| self.now < until) {
            return;
        }
        self.listening = None;
        let silent: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(_, peer)| {
                peer.beat.is_some() && peer.heard.is_none_or(|at| at + self.config.token_ms <= self.now)
            })
            .map(|(node, _)| *node)
            .collect();
        for node in silent {
            self.lose(node);
            if let Some(peer) = self.peers.get_mut(&node) {
                peer.beat = None;
            }
        }
    }

    fn tick(&mut self) {
        self.quorate_since = if self.is_quorate() { self.quorate_since.or(Some(self.now)) } else { None };
        self.review();
        if self.now >= self.next_beat {
            self.beat();
        }
    }

    /// Looks at every lockspace after anything has changed.
    fn review(&mut self) {
        let keys: Vec<u32> = self.spaces.keys().copied().collect();
        for lockspace in keys {
            self.follow(lockspace);
            self.propose(lockspace);
            self.begin(lockspace);
            self.depart(lockspace);
        }
    }

    /// The members that a lockspace should have: who lives and has joined, and has not been counted out. All must hear one
    /// another; where two do not, ourselves come first, then those who have been started before, then lower numbers.
    fn desired(&self, lockspace: u32) -> Vec<Member> {
        let rank = |node: &NodeId| {
            let new = self.says(*node, lockspace).is_none_or(|says| says.known.is_empty());
            (*node != self.config.node, new, *node)
        };
        let mut nodes = self.config.nodes.clone();
        nodes.sort_unstable_by_key(rank);
        let mut members: Vec<Member> = Vec::new();
        for node in nodes {
            let said = self.incarnation(node).zip(self.says(node, lockspace));
            let Some((incarnation, join)) = said.map(|(incarnation, says)| (incarnation, says.join)) else { continue };
            let heard = members.iter().all(|member| self.hear_one_another(member.0, node));
            if heard && !self.expelled.contains(&(node, incarnation)) {
                members.push((node, incarnation, join));
            }
        }
        members.sort_unstable();
        members
    }

    /// Do two living nodes hear one another, as they say, with the lives that we know them by?
    fn hear_one_another(&self, a: NodeId, b: NodeId) -> bool {
        let hears = |a: NodeId, b: NodeId| {
            let ourselves = a == self.config.node || b == self.config.node;
            let (beat, life) = (self.peers.get(&a).and_then(Peer::living), self.incarnation(b));
            ourselves || beat.zip(life).is_some_and(|(beat, life)| beat.hears(b, life))
        };
        hears(a, b) && hears(b, a)
    }

    /// Takes over a newer view of whoever leads.
    fn follow(&mut self, lockspace: u32) {
        if self.is_counted_out(lockspace) {
            self.spaces.remove(&lockspace);
            self.actions.push_back(MembershipAction::Stop(lockspace));
            self.actions.push_back(MembershipAction::Expelled(lockspace));
            return;
        }
        let seen = self.peers.keys().filter_map(|node| self.says(*node, lockspace));
        let Some(newest) = seen.max_by(|a, b| a.view.cmp(&b.view)) else { return };
        let own = (self.config.node, self.config.incarnation);
        let Some(space) = self.spaces.get(&lockspace) else { return };
        if newest.view <= space.view {
            return;
        }
        if newest.view.members.contains(&(own.0, own.1, space.join)) {
            self.adopt(lockspace, newest.view);
        }
    }

    /// Has someone we were a member with gone on without us?
    fn is_counted_out(&self, lockspace: u32) -> bool {
        let Some(space) = self.spaces.get(&lockspace).filter(|space| !space.leaving) else { return false };
        let own = (self.config.node, self.config.incarnation, space.join);
        space.begun.members.iter().filter(|member| member.0 != own.0).any(|(node, incarnation, join)| {
            // Even of a node that does not hear us.
            let beat = self.peers.get(node).and_then(|peer| peer.beat.as_ref());
            let said = beat.filter(|beat| beat.incarnation == *incarnation).map(|beat| &beat.spaces);
            said.into_iter()
                .flatten()
                .filter(|says| says.lockspace == lockspace && says.join == *join)
                // What it said before it was started with us is no news.
                .any(|says| says.started && says.view > space.begun && !says.view.members.contains(&own))
        })
    }

    fn adopt(&mut self, lockspace: u32, view: View) {
        let Some(space) = self.spaces.get_mut(&lockspace) else { return };
        (space.view, space.adopted_at, space.stopped, space.started) = (view, self.now, false, false);
        self.actions.push_back(MembershipAction::Stop(lockspace));
    }

    /// Who should lead these: the lowest of those who have been started before, or else the lowest. (A node that has just
    /// come does not hear everyone yet, and must not lead those who do.)
    fn leader_of(&self, lockspace: u32, members: &[Member]) -> Option<NodeId> {
        let nodes = || members.iter().map(|member| member.0);
        let has_been_started = |node: &NodeId| self.says(*node, lockspace).is_some_and(|says| !says.known.is_empty());
        nodes().find(has_been_started).or_else(|| nodes().next())
    }

    /// As the leader: proposes the next view when the members differ from the last.
    fn propose(&mut self, lockspace: u32) {
        let desired = self.desired(lockspace);
        let leads = self.leader_of(lockspace, &desired) == Some(self.config.node);
        let Some(space) = self.spaces.get(&lockspace).filter(|_| leads) else { return };
        let newest = self.peers.keys().filter_map(|node| self.says(*node, lockspace)).map(|s| s.view).max();
        // A view of someone who is gone cannot be started by anyone.
        let orphaned = space.view.leader != self.config.node && !space.started;
        // Those we lead have followed someone who does not count us in.
        let overtaken = newest.as_ref().is_some_and(|newest| *newest > space.view);
        // Whoever else proposes may not hear us, or not what we hear: then it is our turn in a while, and not at once.
        let contested = overtaken || (orphaned && space.view.number > 0);
        let our_turn = !contested || self.now >= space.adopted_at + self.config.token_ms / 4;
        if our_turn && (desired != space.view.members || orphaned || overtaken) {
            let number = 1 + newest.map_or(0, |newest| newest.number).max(space.view.number);
            self.adopt(lockspace, View { number, leader: self.config.node, members: desired });
        }
    }

    /// Starts a view: as the leader when nothing stands in the way, else when the leader has.
    fn begin(&mut self, lockspace: u32) {
        let Some(space) = self.spaces.get(&lockspace).filter(|space| space.stopped && !space.started) else { return };
        let view = space.view.clone();
        let ready = if view.leader == self.config.node {
            self.may_start(lockspace, &view)
        } else {
            self.says(view.leader, lockspace).is_some_and(|leader| leader.view == view && leader.started)
        };
        if !ready {
            return;
        }
        let start = self.describe(lockspace, &view);
        for member in self.spaces.get(&lockspace).map(|s| s.begun.members.clone()).unwrap_or_default() {
            let goes_on = view.members.iter().any(|m| (m.0, m.1) == (member.0, member.1));
            if !goes_on && !self.has_left(lockspace, member) {
                let first = self.expelled.insert((member.0, member.1));
                if first && !self.is_over((member.0, member.1)) {
                    // It will not be spoken to again. (A conversation with a newer life may have begun already.)
                    self.actions.push_back(MembershipAction::NodeGone(member.0));
                }
            }
        }
        if let Some(space) = self.spaces.get_mut(&lockspace) {
            (space.started, space.begun) = (true, view);
        }
        // The leader has had them fenced.
        self.doubtful
            .retain(|node| self.spaces.values().any(|s| !s.started && s.begun.members.iter().any(|m| m.0 == *node)));
        self.actions.push_back(MembershipAction::Start(lockspace, start));
        self.next_beat = 0;
    }

    fn may_start(&mut self, lockspace: u32, view: &View) -> bool {
        let all_stopped = view.members.iter().all(|(node, _, join)| {
            self.says(*node, lockspace).is_some_and(|says| says.view == *view && says.join == *join)
        });
        // Someone may have come back since the view was proposed: it is not dead, and must not be passed over.
        let complete = self.desired(lockspace) == view.members;
        complete
            && all_stopped
            && self.is_quorate()
            && self.others_know(lockspace, view)
            && self.nobody_in_doubt(lockspace, view)
    }

    /// Leaves a lockspace once nobody counts on us any more.
    fn depart(&mut self, lockspace: u32) {
        let Some(space) = self.spaces.get(&lockspace).filter(|space| space.leaving) else { return };
        let own = (self.config.node, self.config.incarnation, space.join);
        let others: Vec<JoinedSpace> = self.peers.keys().filter_map(|node| self.says(*node, lockspace)).collect();
        let counted_on = others.iter().any(|says| !says.started || says.view.members.contains(&own));
        if !counted_on {
            self.spaces.remove(&lockspace);
            self.actions.push_back(MembershipAction::Left(lockspace));
            self.next_beat = 0;
        }
    }

    fn beat(&mut self) {
        self.next_beat = self.now + (self.config.token_ms / 5).max(1);
        let spaces = self.spaces.iter().filter(|(_, space)| !space.leaving);
        let spaces = spaces.filter_map(|(lockspace, _)| self.says(self.config.node, *lockspace)).collect();
        self.beats += 1;
        self.sent.note(self.beats, self.now, self.config.token_ms);
        for space in self.spaces.values_mut().filter(|space| !space.leaving) {
            space.named.get_or_insert(self.beats);
        }
        let beat = Heartbeat {
            node: self.config.node,
            incarnation: self.config.incarnation,
            number: self.beats,
            hears: self.peers.iter().filter_map(|(node, peer)| peer.as_heard(*node)).collect(),
            cluster: self.cluster,
            doubtful: self.doubtful.iter().copied().collect(),
            spaces,
        };
        let bytes = encode_heartbeat(&beat);
        for node in self.peers.keys() {
            self.actions.push_back(MembershipAction::Datagram { to: *node, bytes: bytes.clone() });
        }
    }
}

impl Membership for Fixed {
    fn handle(&mut self, event: MembershipEvent, now: u64) {
        if now > self.now + self.config.token_ms / 4 && self.listening.is_none() {
            self.listening = Some(now + self.config.token_ms / 8);
        }
        self.now = self.now.max(now);
        match event {
            MembershipEvent::Join(lockspace) => {
                self.joins += 1;
                self.spaces.insert(lockspace, Space { join: self.joins, ..Space::default() });
                self.next_beat = 0;
            }
            MembershipEvent::Leave(lockspace) => {
                if let Some(space) = self.spaces.get_mut(&lockspace) {
                    space.leaving = true;
                    self.next_beat = 0;
                }
            }
            MembershipEvent::Stopped(lockspace) => {
                if let Some(space) = self.spaces.get_mut(&lockspace) {
                    space.stopped = true;
                    self.next_beat = 0;
                }
            }
            MembershipEvent::Datagram { from, bytes } => self.hear(from, &bytes),
            MembershipEvent::Fenced { node, success } => self.fencing_ended(node, success),
            MembershipEvent::Tick => self.judge_silence(),
        }
        self.tick();
    }

    fn next_action(&mut self) -> Option<MembershipAction> {
        self.actions.pop_front()
    }

    fn wake_at(&self) -> Option<u64> {
        let heard = self.peers.values().filter(|peer| peer.beat.is_some()).filter_map(|peer| peer.heard).min();
        let silence = heard.map_or(u64::MAX, |at| at.saturating_add(self.config.token_ms));
        let silence = silence.max(self.listening.unwrap_or(0));
        Some(self.next_beat.min(silence).max(self.now + 1))
    }

    fn view(&self) -> MembershipView {
        self.view()
    }

    fn trusted_until(&self) -> u64 {
        self.trusted_until()
    }

    fn is_quorate(&self) -> bool {
        let living = self.config.nodes.iter().filter(|node| self.lives(**node)).count();
        living >= majority(self.config.nodes.len())
    }
}
