//! The scenarios of dlm.md 6.6, by number. Each is one deterministic run; `sim_random` varies the order of messages.

mod aborted;
mod basics;
mod directory;
mod overlap;
mod recovery;
mod values;

use super::{Outcome, World};
use crate::flags::LockFlags;
use crate::ids::{NodeId, name_hash};
use crate::mode::Mode;
use crate::status::Status;

pub(super) const NONE: LockFlags = LockFlags::empty();

/// A cluster whose failures are panics.
pub(super) struct Cluster {
    pub(super) world: World,
}

impl Cluster {
    pub(super) fn new(nodes: u32) -> Cluster {
        let mut world = World::with_nodes(nodes).unwrap_or_else(|why| panic!("{why}"));
        world.verbose = true;
        Cluster { world }
    }

    /// Fails with the state of the cluster.
    pub(super) fn must<T>(&self, outcome: Result<T, String>) -> T {
        outcome.unwrap_or_else(|why| panic!("{why}\n{}", self.world.dump()))
    }

    pub(super) fn lock(&mut self, node: u32, name: &str, mode: Mode, flags: LockFlags) -> u64 {
        let outcome = self.world.lock(node, name, mode, flags);
        self.must(outcome)
    }

    /// A lock that is granted once the network is quiet.
    pub(super) fn held(&mut self, node: u32, name: &str, mode: Mode, flags: LockFlags) -> u64 {
        let token = self.lock(node, name, mode, flags);
        self.settle();
        assert_eq!(self.mode(token), Some(mode));
        token
    }

    pub(super) fn convert(&mut self, token: u64, mode: Mode, flags: LockFlags) {
        let outcome = self.world.convert(token, mode, flags);
        self.must(outcome);
    }

    pub(super) fn unlock(&mut self, token: u64, flags: LockFlags) {
        let outcome = self.world.unlock(token, flags);
        self.must(outcome);
    }

    pub(super) fn cancel(&mut self, token: u64) {
        self.unlock(token, LockFlags::CANCEL);
    }

    pub(super) fn settle(&mut self) {
        let outcome = self.world.settle();
        self.must(outcome);
    }

    /// Delivers exactly one frame.
    pub(super) fn deliver(&mut self, from: u32, to: u32) {
        let outcome = self.world.deliver(NodeId(from), NodeId(to));
        assert!(self.must(outcome), "nothing from {from} to {to}\n{}", self.world.dump());
    }

    pub(super) fn crash(&mut self, node: u32) {
        self.world.crash(NodeId(node), |n| n);
    }

    pub(super) fn join(&mut self, node: u32) {
        let outcome = self.world.join(NodeId(node), |_| {});
        self.must(outcome);
    }

    /// Everything that must hold in the end does.
    pub(super) fn finish(mut self) {
        let outcome = self.world.wind_down();
        self.must(outcome);
    }

    pub(super) fn mode(&self, token: u64) -> Option<Mode> {
        self.world.shadows[&token].held.filter(|_| !self.world.shadows[&token].dead)
    }

    pub(super) fn waits(&self, token: u64) -> bool {
        self.world.shadows[&token].op.is_some()
    }

    pub(super) fn dead(&self, token: u64) -> bool {
        self.world.shadows[&token].dead
    }

    pub(super) fn notices(&self, token: u64) -> Vec<Mode> {
        self.world.shadows[&token].notices.clone()
    }

    pub(super) fn statuses(&self, token: u64) -> Vec<Status> {
        self.world.shadows[&token].outcomes.iter().map(|o| o.status).collect()
    }

    pub(super) fn last(&self, token: u64) -> Outcome {
        self.world.shadows[&token].last().cloned().unwrap_or_else(|| panic!("no completion\n{}", self.world.dump()))
    }

    pub(super) fn ignored(&self, node: u32, reason: &str) -> u64 {
        self.world.nodes[&NodeId(node)].engine.ignored().get(reason).copied().unwrap_or(0)
    }

    /// A name that this node directs, different for each `salt`.
    pub(super) fn name_directed_by(&self, node: u32, salt: u32) -> String {
        let engine = &self.world.nodes.values().next().expect("a node").engine;
        (0..1000)
            .map(|i| format!("n{salt}.{i}"))
            .find(|name| engine.directory_of(name_hash(name.as_bytes())) == NodeId(node))
            .expect("names are spread over the nodes")
    }

    /// A name directed by `dir` whose master is `master` (which holds an NL lock on it).
    pub(super) fn mastered(&mut self, dir: u32, master: u32, salt: u32) -> (String, u64) {
        let name = self.name_directed_by(dir, salt);
        let keeper = self.held(master, &name, Mode::Nl, NONE);
        (name, keeper)
    }
}
