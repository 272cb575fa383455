//! The membership of the simulated cluster ([`crate::sim`]), as a process group would give it: a totally ordered list of changes that each node sees at its own pace.
//! A node stops for every change as it sees it; it starts with a change when every member of it has stopped for it.

use crate::engine::Event;
use crate::ids::NodeId;
use crate::recovery::{Start, StartMember};
use crate::sim::{SimNode, Verdict, World};
use std::collections::{BTreeMap, BTreeSet};

/// What the membership may do next at a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// See the next change.
    Stop(NodeId),
    /// Go on with the last change seen.
    Start(NodeId),
}

/// The changes so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    /// After each change: members, and the number of their join. Change 0 is the empty cluster.
    changes: Vec<BTreeMap<NodeId, u64>>,
    stopped: BTreeMap<usize, BTreeSet<NodeId>>,
    /// Nodes of the cluster that are not in the lockspace.
    pub(crate) present: BTreeMap<NodeId, u64>,
}

impl Group {
    fn latest(&self) -> BTreeMap<NodeId, u64> {
        self.changes.last().cloned().unwrap_or_default()
    }

    /// The number of changes before the join: the new node sees none of them.
    pub(crate) fn join(&mut self, id: NodeId, serial: u64) -> usize {
        self.present.remove(&id);
        let mut members = self.latest();
        members.insert(id, serial);
        self.changes.push(members);
        self.changes.len() - 1
    }

    pub(crate) fn leave(&mut self, id: NodeId) {
        let mut members = self.latest();
        members.remove(&id);
        self.changes.push(members);
    }

    /// Change number `n`, counted from 1.
    fn change(&self, n: usize) -> Option<&BTreeMap<NodeId, u64>> {
        self.changes.get(n.checked_sub(1)?)
    }

    /// Everything the membership may do next.
    pub(crate) fn actions(&self, nodes: &BTreeMap<NodeId, SimNode>) -> Vec<Change> {
        let mut actions = Vec::new();
        for (id, node) in nodes {
            if node.seen < self.changes.len() {
                actions.push(Change::Stop(*id));
            }
            let Some(members) = self.change(node.seen) else { continue };
            let stopped = self.stopped.get(&node.seen);
            let all = members.keys().all(|member| stopped.is_some_and(|set| set.contains(member)));
            if node.started < node.seen && all && members.contains_key(id) {
                actions.push(Change::Start(*id));
            }
        }
        actions
    }
}

impl World {
    /// Carries out a step of the membership.
    pub(crate) fn change(&mut self, change: Change) -> Verdict {
        self.note(|| format!("{change:?}"));
        match change {
            Change::Stop(id) => {
                let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
                node.seen += 1;
                let seen = node.seen;
                self.group.stopped.entry(seen).or_default().insert(id);
                self.feed(id, Event::Stop)
            }
            Change::Start(id) => {
                let cluster = self.nodes.iter().map(|(id, node)| (*id, node.incarnation));
                let cluster = cluster.chain(self.group.present.iter().map(|(id, i)| (*id, *i))).collect();
                let Some(node) = self.nodes.get(&id) else { return Ok(()) };
                let Some(members) = self.group.change(node.seen).cloned() else { return Ok(()) };
                let describe = |(member, serial): (&NodeId, &u64)| StartMember {
                    node: *member,
                    weight: 1,
                    incarnation: self.nodes.get(member).map_or(0, |node| node.incarnation),
                    new: node.known.get(member) != Some(serial),
                };
                let start = Start { members: members.iter().map(describe).collect(), cluster, round: 0 };
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.started = node.seen;
                    node.known = members;
                }
                self.feed(id, Event::Start(start))
            }
        }
    }
}
