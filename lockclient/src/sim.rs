//! A cluster in one process: several engines, a network that keeps order between two nodes and nothing else, a
//! membership that stops everyone before it starts anyone, crashes, and a shadow of what every client believes.
//!
//! Everything follows from a seed. After every event the invariants of dlm.md 6.5 are checked: on each node
//! ([`Engine::check`]), between the clients (`shadow`), and when the network is quiet between the nodes (`quiet`).
//! `random` draws schedules; the named scenarios of dlm.md 6.6 live in the tests.
//!
//! To repeat a failure: `SEED=n cargo test --release --lib sim_random -- --nocapture`; for long runs `SEEDS=n`.

mod quiet;
mod random;
mod rng;
mod shadow;

#[cfg(test)]
mod exhaustive;
#[cfg(test)]
mod scenarios;
#[cfg(test)]
mod seeds;

pub use random::{Schedule, run_schedule};
pub use rng::Rng;
pub use shadow::{Outcome, Shadow};

use crate::engine::{ClientCall, Config, Effect, Engine, Event, LockCall};
use crate::flags::LockFlags;
use crate::frame::{Frame, Slot};
use crate::ids::{LockId, Name, NodeId};
use crate::membership::sim::Group;
use crate::mode::Mode;
use shadow::{Asked, Call, Value};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What went wrong.
pub type Verdict = Result<(), String>;

/// A node of the simulated cluster.
#[derive(Clone, Debug)]
pub struct SimNode {
    /// Its lockspace.
    pub engine: Engine,
    /// Changes at every restart.
    pub incarnation: u64,
    status: (u64, u32),
    /// Membership changes it has stopped for and started with.
    pub(crate) seen: usize,
    pub(crate) started: usize,
    /// With which join of each member it was started last.
    pub(crate) known: BTreeMap<NodeId, u64>,
    /// Rounds of recovery it has completed: number of the change, generation, slots.
    pub recovered: Vec<(usize, u32, Vec<Slot>)>,
    /// Slots reported as failed.
    pub failed_slots: Vec<Slot>,
    /// `Prepare` callbacks.
    pub prepared: usize,
    /// Recovery gave up.
    pub recovery_failed: bool,
}

/// The simulated cluster.
#[derive(Clone, Debug)]
pub struct World {
    /// Milliseconds.
    pub now: u64,
    /// The living nodes.
    pub nodes: BTreeMap<NodeId, SimNode>,
    /// Frames under way, in order between two nodes.
    pub streams: BTreeMap<(NodeId, NodeId), VecDeque<Frame>>,
    /// Pairs whose frames do not arrive for now.
    pub stalled: BTreeSet<(NodeId, NodeId)>,
    /// What the clients believe, by token.
    pub shadows: BTreeMap<u64, Shadow>,
    pub(crate) group: Group,
    pub(crate) calls: BTreeMap<u64, (u64, Asked)>,
    pub(crate) values: BTreeMap<Vec<u8>, Value>,
    pub(crate) slots_by_change: BTreeMap<usize, (u32, Vec<Slot>)>,
    next: u64,
    /// Keep a log of events (costs time).
    pub verbose: bool,
    /// The log.
    pub log: VecDeque<String>,
    #[cfg(test)]
    pub(crate) mutation: Option<crate::engine::Mutation>,
}

impl World {
    /// An empty cluster.
    pub fn new() -> World {
        World {
            now: 0,
            nodes: BTreeMap::new(),
            streams: BTreeMap::new(),
            stalled: BTreeSet::new(),
            shadows: BTreeMap::new(),
            group: Group::default(),
            calls: BTreeMap::new(),
            values: BTreeMap::new(),
            slots_by_change: BTreeMap::new(),
            next: 1,
            verbose: false,
            log: VecDeque::new(),
            #[cfg(test)]
            mutation: None,
        }
    }

    /// A cluster of nodes 1..=n, all members and recovered.
    pub fn with_nodes(n: u32) -> Result<World, String> {
        let mut world = World::new();
        for id in 1..=n {
            world.join(NodeId(id), |_| {})?;
        }
        world.settle()?;
        Ok(world)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        if self.verbose {
            if self.log.len() >= 40000 {
                self.log.pop_front();
            }
            let line = format!("{:>7} {}", self.now, line());
            self.log.push_back(line);
        }
    }

    /// A node enters the lockspace; the closure may change its configuration.
    pub fn join(&mut self, id: NodeId, configure: impl FnOnce(&mut Config)) -> Verdict {
        let incarnation = self.number();
        let mut config = Config::new(id);
        config.first_sequence = u64::from(id.0) * 1000 + incarnation;
        config.first_tag = u64::from(id.0) << 32 | incarnation;
        configure(&mut config);
        #[allow(unused_mut)]
        let mut engine = Engine::new(config);
        #[cfg(test)]
        {
            engine.mutation = self.mutation;
        }
        self.streams.retain(|(from, to), _| *from != id && *to != id);
        let node = SimNode {
            engine,
            incarnation,
            status: (0, 0),
            seen: 0,
            started: 0,
            known: BTreeMap::new(),
            recovered: Vec::new(),
            failed_slots: Vec::new(),
            prepared: 0,
            recovery_failed: false,
        };
        let serial = self.number();
        self.note(|| format!("{id} joins"));
        let seen = self.group.join(id, serial);
        self.nodes.insert(id, SimNode { seen, ..node });
        Ok(())
    }

    /// A node dies; of what it has sent, a part may still arrive.
    pub fn crash(&mut self, id: NodeId, delivered: impl Fn(usize) -> usize) {
        self.note(|| format!("{id} crashes"));
        self.remove(id, delivered);
    }

    /// A node leaves the lockspace and stays in the cluster: `left` remembers its incarnation.
    pub fn leave(&mut self, id: NodeId) {
        self.note(|| format!("{id} leaves"));
        if let Some(node) = self.nodes.get(&id) {
            self.group.present.insert(id, node.incarnation);
        }
        self.remove(id, |n| n);
    }

    fn remove(&mut self, id: NodeId, delivered: impl Fn(usize) -> usize) {
        self.doubt_values(id);
        self.nodes.remove(&id);
        self.shadows.retain(|_, shadow| shadow.node != id);
        for ((from, to), frames) in &mut self.streams {
            if *to == id {
                frames.clear();
            } else if *from == id {
                frames.truncate(delivered(frames.len()));
            }
        }
        self.group.leave(id);
    }

    /// Feeds one event to a node and carries out the effects.
    pub fn feed(&mut self, id: NodeId, event: Event) -> Verdict {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        node.engine.handle(event, now);
        let (seq, bits) = (node.engine.recovery.seq, node.engine.recovery.status);
        if node.status.0 == seq && node.status.1 & !bits != 0 {
            return Err(format!("I15: status of {id} went from {:#x} to {bits:#x}", node.status.1));
        }
        node.status = (seq, bits);
        while let Some(effect) = self.nodes.get_mut(&id).and_then(|node| node.engine.next_effect()) {
            self.effect(id, effect)?;
        }
        let node = &self.nodes[&id];
        node.engine.check().map_err(|why| format!("node {id}: {why}"))
    }

    fn effect(&mut self, id: NodeId, effect: Effect) -> Verdict {
        self.note(|| format!("  {id}: {}", brief(&effect)));
        match effect {
            Effect::Send { to, frame } => {
                if self.nodes.contains_key(&to) {
                    self.streams.entry((id, to)).or_default().push_back(frame);
                }
            }
            Effect::Accepted { call, lock } => self.accepted(call, lock),
            Effect::Refused { call, why } => self.refused(call, why),
            Effect::Completion { token, status, flags, mode, lvb, .. } => {
                self.completed(token, Outcome { status, flags, mode, lvb })?;
            }
            Effect::Blocking { token, mode, .. } => self.notified(token, mode)?,
            Effect::Recovered { slots, our_slot, generation } => self.recovered(id, slots, our_slot, generation)?,
            other => {
                let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
                match other {
                    Effect::Prepare => node.prepared += 1,
                    Effect::SlotFailed(slot) => node.failed_slots.push(slot),
                    Effect::RecoveryFailed(_) => node.recovery_failed = true,
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Delivers the next frame from one node to another; false if there is none.
    pub fn deliver(&mut self, from: NodeId, to: NodeId) -> Result<bool, String> {
        let Some(frame) = self.streams.get_mut(&(from, to)).and_then(VecDeque::pop_front) else { return Ok(false) };
        self.note(|| format!("{from} -> {to}: {}", brief_frame(&frame)));
        self.feed(to, Event::Frame { from, frame })?;
        Ok(true)
    }

    /// Pairs with something to deliver.
    pub fn deliverable(&self) -> Vec<(NodeId, NodeId)> {
        let waiting = self.streams.iter().filter(|(pair, frames)| !frames.is_empty() && !self.stalled.contains(*pair));
        waiting.map(|(pair, _)| *pair).collect()
    }

    /// Time passes until someone wants to be woken; false if nobody does.
    pub fn advance(&mut self) -> Result<bool, String> {
        let wakes: Vec<(u64, NodeId)> =
            self.nodes.iter().filter_map(|(id, node)| Some((node.engine.wake_at()?, *id))).collect();
        let Some((at, id)) = wakes.into_iter().min() else { return Ok(false) };
        self.now = self.now.max(at);
        self.feed(id, Event::Tick)?;
        Ok(true)
    }

    /// Delivers everything, in order, until the network is quiet and recovery is over. Idle records stay.
    pub fn settle(&mut self) -> Verdict {
        for _ in 0..20_000 {
            if let Some((from, to)) = self.deliverable().into_iter().next() {
                self.deliver(from, to)?;
            } else if let Some(action) = self.group.actions(&self.nodes).into_iter().next() {
                self.change(action)?;
            } else if !self.is_settled() {
                self.advance()?;
            } else {
                return Ok(());
            }
        }
        Err(format!("I20: the cluster does not settle\n{}", self.dump()))
    }

    /// No recovery is under way and no request waits to be repeated.
    fn is_settled(&self) -> bool {
        self.nodes.values().all(|node| {
            let delayed = node.engine.locks.keys().any(|key| node.engine.locks[key].resend);
            (node.engine.running && !delayed) || node.recovery_failed
        })
    }

    /// A new lock; its token.
    pub fn lock(&mut self, node: u32, name: &str, mode: Mode, flags: LockFlags) -> Result<u64, String> {
        let token = self.number();
        let name = Name::new(name.as_bytes()).ok_or("name too long")?;
        let lvb = flags.contains(LockFlags::VALBLK).then(|| vec![0; 32].into());
        let call =
            LockCall { call: 0, token, mode, flags, name, lvb, pid: 1, wants_notices: true, uses_lost_value: false };
        self.submit(NodeId(node), token, Call::Lock(call))?;
        Ok(token)
    }

    /// Another mode for a lock.
    pub fn convert(&mut self, token: u64, mode: Mode, flags: LockFlags) -> Verdict {
        let (node, lock, lvb) = self.target(token, mode, flags)?;
        self.submit(node, token, Call::Other(ClientCall::Convert { call: 0, lock, mode, flags, lvb }))
    }

    /// Gives a lock up (or, with CANCEL, what it waits for).
    pub fn unlock(&mut self, token: u64, flags: LockFlags) -> Verdict {
        let (node, lock, lvb) = self.target(token, Mode::Nl, flags)?;
        self.submit(node, token, Call::Other(ClientCall::Unlock { call: 0, lock, flags, lvb }))
    }

    fn target(
        &mut self,
        token: u64,
        mode: Mode,
        flags: LockFlags,
    ) -> Result<(NodeId, LockId, Option<Box<[u8]>>), String> {
        let lvb = self.value_to_write(token, mode, flags);
        let shadow = self.shadows.get(&token).ok_or("no such lock")?;
        Ok((shadow.node, shadow.id.ok_or("the lock was not accepted yet")?, lvb))
    }

    /// Everything there is to know.
    pub fn dump(&self) -> String {
        let mut text: String = self.log.iter().map(|line| format!("{line}\n")).collect();
        for node in self.nodes.values() {
            text += &format!(
                "incarnation {} seen {} started {}\n{}",
                node.incarnation,
                node.seen,
                node.started,
                node.engine.dump()
            );
        }
        for (token, shadow) in self.shadows.iter().filter(|(_, shadow)| !shadow.dead) {
            text += &format!("client {token}: {shadow:?}\n");
        }
        for ((from, to), frames) in &self.streams {
            for frame in frames {
                text += &format!("under way {from} -> {to}: {}\n", brief_frame(frame));
            }
        }
        text
    }
}

impl Default for World {
    fn default() -> Self {
        World::new()
    }
}

fn brief(effect: &Effect) -> String {
    match effect {
        Effect::Send { to, frame } => format!("sends {to} {}", brief_frame(frame)),
        other => format!("{other:?}"),
    }
}

fn brief_frame(frame: &Frame) -> String {
    match frame {
        Frame::Msg(m) => format!(
            "{:?} lkid {:x} remid {:x} node {} rq {:?} bast {:?} result {} flags {:?} sb {:?} {}",
            m.kind,
            m.lkid.0,
            m.remid.0,
            m.nodeid,
            m.rqmode,
            m.bastmode,
            m.result,
            m.exflags,
            m.sbflags,
            m.extra.escape_ascii()
        ),
        Frame::Rcom(r) => format!("{:?} result {} id {} seq {}/{}", r.body, r.result, r.id, r.seq, r.seq_reply),
        Frame::Plock(p) => format!("{p:?}"),
    }
}
