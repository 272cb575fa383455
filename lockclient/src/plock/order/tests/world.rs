//! The nodes, the streams between them, and a membership that keeps its promise.

use super::clients::{BYTES, Client, INODES, OWNERS};
use crate::ids::NodeId;
use crate::plock::order::state::State;
use crate::plock::order::{Mutation, Order, OrderBody, OrderEffect, OrderFrame};
use crate::sim::Rng;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub(super) struct Member {
    pub(super) order: Order,
    pub(super) clients: Vec<Client>,
    stopped: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Group {
    /// Members are to stop.
    Stopping,
    /// All have stopped; these are still to be started.
    Starting(BTreeSet<u32>),
    Running,
}

pub(super) struct World {
    count: u32,
    pub(super) members: BTreeMap<u32, Member>,
    links: BTreeMap<(u32, u32), VecDeque<OrderFrame>>,
    group: Group,
    /// The members of the round that is being started.
    round_members: BTreeSet<u32>,
    /// The state at each number, as whoever came first has it.
    states: BTreeMap<u64, State>,
    lives: u64,
    mutation: Option<Mutation>,
    pub(super) rounds: u64,
    pub(super) granted: u64,
    answers: u64,
    /// Answers that came while a state was adopted.
    pub(super) late_answers: u64,
}

impl World {
    /// All nodes have joined, and nothing has been started.
    pub(super) fn new(count: u32, mutation: Option<Mutation>) -> World {
        let mut world = World {
            count,
            members: BTreeMap::new(),
            links: BTreeMap::new(),
            group: Group::Stopping,
            round_members: BTreeSet::new(),
            states: BTreeMap::new(),
            lives: 0,
            mutation,
            rounds: 0,
            granted: 0,
            answers: 0,
            late_answers: 0,
        };
        (1..=count).for_each(|node| world.join(node));
        world
    }

    pub(super) fn join(&mut self, node: u32) {
        self.lives += 1;
        let mut order = Order::new(NodeId(node), self.lives);
        order.mutation = self.mutation;
        let clients = (0..OWNERS).map(Client::new).collect();
        self.members.insert(node, Member { order, clients, stopped: true });
        self.group = Group::Stopping;
    }

    /// The node is dead; of what it has sent, only a part arrives.
    pub(super) fn lose(&mut self, node: u32, rng: &mut Rng) {
        self.members.remove(&node);
        for ((from, to), link) in &mut self.links {
            if *to == node {
                link.clear();
            } else if *from == node {
                link.truncate(rng.below(link.len() + 1));
            }
        }
        // What only the dead have seen has never been.
        let reached = self.members.values().filter_map(|m| m.order.reached()).max();
        self.states.retain(|number, _| Some(*number) <= reached);
        self.group = Group::Stopping;
    }

    /// Members change.
    pub(super) fn change(&mut self, rng: &mut Rng) {
        let node = 1 + rng.below(self.count as usize) as u32;
        match self.members.contains_key(&node) {
            true if self.members.len() > 1 || rng.chance(10) => self.lose(node, rng),
            true => self.group = Group::Stopping,
            false => self.join(node),
        }
        // A view can also change back and forth without anyone going.
        if rng.chance(10) {
            self.group = Group::Stopping;
        }
    }

    pub(super) fn client(&mut self, rng: &mut Rng) {
        let nodes: Vec<u32> = self.members.keys().copied().collect();
        let Some(node) = rng.pick(&nodes).copied() else { return };
        let Some(member) = self.members.get_mut(&node) else { return };
        let client = &mut member.clients[rng.below(OWNERS as usize)];
        client.act(&mut member.order, rng);
        self.effects(node);
    }

    /// One thing that is under way happens; false if nothing is.
    pub(super) fn step(&mut self, rng: &mut Rng) -> bool {
        let links: Vec<(u32, u32)> = self.links.iter().filter(|(_, l)| !l.is_empty()).map(|(k, _)| *k).collect();
        if self.group != Group::Running && (links.is_empty() || rng.chance(30)) {
            self.step_group(rng);
            return true;
        }
        let Some((from, to)) = rng.pick(&links).copied() else { return false };
        let frame = self.links.get_mut(&(from, to)).and_then(VecDeque::pop_front);
        if let (Some(frame), Some(member)) = (frame, self.members.get_mut(&to)) {
            let (adopting, before) = (matches!(frame.body, OrderBody::Piece { .. }), self.answers);
            member.order.receive(NodeId(from), frame);
            self.effects(to);
            if adopting {
                self.late_answers += self.answers - before;
            }
        }
        true
    }

    fn step_group(&mut self, rng: &mut Rng) {
        match &mut self.group {
            Group::Stopping => {
                let going: Vec<u32> = self.members.iter().filter(|(_, m)| !m.stopped).map(|(n, _)| *n).collect();
                match rng.pick(&going) {
                    Some(node) => {
                        let Some(member) = self.members.get_mut(node) else { return };
                        member.order.stop();
                        member.stopped = true;
                    }
                    None => {
                        self.rounds += 1;
                        self.round_members = self.members.keys().copied().collect();
                        self.group = Group::Starting(self.round_members.clone());
                    }
                }
            }
            Group::Starting(waiting) => {
                let all: Vec<u32> = waiting.iter().copied().collect();
                match rng.pick(&all).copied() {
                    Some(node) => {
                        waiting.remove(&node);
                        let members: Vec<NodeId> = self.round_members.iter().copied().map(NodeId).collect();
                        if let Some(member) = self.members.get_mut(&node) {
                            member.stopped = false;
                            member.order.start(self.rounds, members);
                            self.effects(node);
                        }
                    }
                    None => self.group = Group::Running,
                }
            }
            Group::Running => {}
        }
    }

    /// Carries out what a node wants done, and checks what can be checked.
    pub(super) fn effects(&mut self, node: u32) {
        let Some(member) = self.members.get_mut(&node) else { return };
        let mut granted = 0;
        while let Some(effect) = member.order.next_effect() {
            match effect {
                OrderEffect::Send { to, frame } => {
                    if self.round_members.contains(&to.0) {
                        self.links.entry((node, to.0)).or_default().push_back(frame);
                    }
                }
                OrderEffect::Answer(local, answer) => {
                    let its = |client: &&mut Client| client.outstanding.is_some_and(|(number, _)| number == local);
                    let Some(client) = member.clients.iter_mut().find(its) else { panic!("answered twice: {local}") };
                    self.answers += 1;
                    if client.answered(local, answer) {
                        granted += 1;
                    }
                }
            }
        }
        self.granted += granted;
        self.check_state(node);
        self.check_exclusion();
    }

    fn check_state(&mut self, node: u32) {
        let Some(state) = self.members.get(&node).and_then(|m| m.order.state.as_ref()) else { return };
        let known = self.states.entry(state.number).or_insert_with(|| state.clone());
        assert_eq!(known, state, "node {node} differs at {}", state.number);
    }

    fn check_exclusion(&self) {
        for number in 0..INODES {
            for byte in 0..BYTES {
                let clients = self.members.values().flat_map(|member| &member.clients);
                let held: Vec<u8> = clients.map(|c| c.certain(number, byte)).filter(|held| *held > 0).collect();
                assert!(held.len() <= 1 || held.iter().all(|held| *held == 1), "inode {number} byte {byte}: {held:?}");
            }
        }
    }

    /// Until nothing is under way.
    pub(super) fn quiet(&mut self, rng: &mut Rng) {
        let mut steps = 0;
        while self.step(rng) {
            steps += 1;
            assert!(steps < 200_000, "it never ends");
        }
        let states: Vec<&Order> = self.members.values().map(|member| &member.order).collect();
        for order in &states {
            assert!(order.source().is_some(), "node {} does not run: {:?}", order.node, order.phase);
            assert_eq!(order.state, states[0].state);
        }
    }

    /// What every client believes is what the table says, and who waits has a reason.
    pub(super) fn check_beliefs(&self) {
        for (node, member) in &self.members {
            let Some(table) = member.order.table() else { panic!("no table") };
            for client in &member.clients {
                let mut held = vec![[0; BYTES]; INODES as usize];
                for file in table.export() {
                    let own = file.locks.iter().filter(|l| (l.node.0, l.owner) == (*node, client.owner));
                    for lock in own {
                        (lock.start..=lock.end)
                            .for_each(|byte| held[file.number as usize][byte as usize] = 1 + u8::from(lock.exclusive));
                    }
                }
                assert_eq!(held, client.held, "node {node} owner {}", client.owner);
                if let Some((local, ask)) = client.outstanding {
                    assert!(table.is_waiting(ask.number, NodeId(*node), local), "{local} {ask:?} is not answered");
                }
            }
            for file in table.export() {
                for waiter in &file.waiters {
                    let blocked = file.locks.iter().any(|lock| lock.conflicts(&waiter.as_lock()));
                    assert!(blocked, "{waiter:?} waits for nothing");
                }
                assert!(file.locks.iter().all(|l| self.members.contains_key(&l.node.0)), "a lock of the dead");
            }
        }
    }

    /// Every owner closes everything.
    pub(super) fn close_all(&mut self) {
        let nodes: Vec<u32> = self.members.keys().copied().collect();
        for node in nodes {
            let Some(member) = self.members.get_mut(&node) else { continue };
            for client in &mut member.clients {
                (0..INODES).for_each(|number| client.close(&mut member.order, number));
            }
            self.effects(node);
        }
    }

    pub(super) fn check_empty(&self) {
        for member in self.members.values() {
            assert_eq!(member.order.outstanding(), 0);
            // Whoever was granted something between the closes of others has closed before; the table is empty.
            assert_eq!(member.order.table().map(|table| table.size()), Some(0));
            assert!(member.clients.iter().all(|client| client.outstanding.is_none()));
        }
    }
}
