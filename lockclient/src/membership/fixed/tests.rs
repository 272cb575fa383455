//! Clusters of the built-in membership on a network that loses, cuts and delays.

use super::*;
use crate::sim::Rng;

mod fencing;
mod joins;
mod scenarios;
mod silence;

const SPACE: u32 = 42;

/// Nodes, the datagrams under way, and what each lockspace was told.
struct Net {
    now: u64,
    nodes: BTreeMap<NodeId, Fixed>,
    /// Nodes that hear nobody and are not heard.
    cut: BTreeSet<NodeId>,
    /// What the first says does not reach the second.
    silent: BTreeSet<(NodeId, NodeId)>,
    /// The members a node was started with, while it is.
    started: BTreeMap<NodeId, (u64, Vec<NodeId>)>,
    /// The lives of the members that a node was started with last.
    known: BTreeMap<NodeId, Vec<(NodeId, u64)>>,
    /// To whom, from whom, what.
    under_way: VecDeque<(NodeId, NodeId, Vec<u8>)>,
    fenced: Vec<NodeId>,
    expelled: Vec<NodeId>,
    left: Vec<NodeId>,
    fence_works: bool,
    /// Agents do not finish; who runs them for whom.
    agents: Option<Vec<(NodeId, NodeId)>>,
    /// Nodes whose lockspace takes long to stop.
    slow: BTreeSet<NodeId>,
    /// Datagrams take their time: to whom, from whom, what.
    held: Option<Vec<(NodeId, NodeId, Vec<u8>)>>,
    /// Conversations that nodes have begun with one another: who, with whom.
    talks: BTreeSet<(Life, Life)>,
    /// Those that one end has ended.
    ended: BTreeSet<(Life, Life)>,
    /// Who has ended one with whom.
    gone: Vec<(NodeId, NodeId)>,
}

/// A node, and which process of it.
type Life = (NodeId, u64);

fn config(node: u32, nodes: u32, incarnation: u64) -> FixedConfig {
    FixedConfig {
        node: NodeId(node),
        incarnation,
        name: "test".into(),
        nodes: (1..=nodes).map(NodeId).collect(),
        token_ms: 1000,
        startup_ms: 3000,
        fencing: true,
    }
}

impl Net {
    fn new(nodes: u32, present: &[u32]) -> Net {
        let mut net = Net {
            now: 0,
            nodes: BTreeMap::new(),
            cut: BTreeSet::new(),
            silent: BTreeSet::new(),
            started: BTreeMap::new(),
            known: BTreeMap::new(),
            under_way: VecDeque::new(),
            fenced: Vec::new(),
            expelled: Vec::new(),
            left: Vec::new(),
            fence_works: true,
            agents: None,
            slow: BTreeSet::new(),
            held: None,
            talks: BTreeSet::new(),
            ended: BTreeSet::new(),
            gone: Vec::new(),
        };
        for node in present {
            net.boot(*node, nodes, 1);
        }
        net
    }

    fn boot(&mut self, node: u32, nodes: u32, incarnation: u64) {
        self.nodes.insert(NodeId(node), Fixed::new(config(node, nodes, incarnation)));
        self.known.remove(&NodeId(node));
        self.feed(NodeId(node), MembershipEvent::Join(SPACE));
    }

    /// Something happens to a node, and everything that follows from it without time passing.
    fn feed(&mut self, node: NodeId, event: MembershipEvent) {
        self.handle(node, event);
        for _ in 0..10_000 {
            let Some((to, from, bytes)) = self.under_way.pop_front() else { return };
            self.handle(to, MembershipEvent::Datagram { from, bytes });
        }
        panic!("they do not stop talking at {}", self.now);
    }

    fn handle(&mut self, node: NodeId, event: MembershipEvent) {
        let now = self.now;
        let Some(fixed) = self.nodes.get_mut(&node) else { return };
        fixed.handle(event, now);
        while let Some(action) = self.nodes.get_mut(&node).and_then(Membership::next_action) {
            match action {
                MembershipAction::Stop(space) => {
                    self.started.remove(&node);
                    if !self.slow.contains(&node) {
                        self.handle(node, MembershipEvent::Stopped(space));
                    }
                }
                MembershipAction::Start(_, start) => {
                    let members: Vec<NodeId> = start.members.iter().map(|m| m.node).collect();
                    // Told to go on and, in the same breath, counted out.
                    let Some(space) = self.nodes[&node].spaces.get(&SPACE) else { continue };
                    let lives: Vec<(NodeId, u64)> = start.members.iter().map(|m| (m.node, m.incarnation)).collect();
                    let before = self.known.insert(node, lives.clone()).unwrap_or_default();
                    for life in before.iter().filter(|life| !lives.contains(life) && start.cluster.contains(life)) {
                        let dead = self.fenced.contains(&life.0) && !self.nodes.contains_key(&life.0);
                        assert!(!dead, "to {node}, {life:?} has left in order, at {}", self.now);
                    }
                    self.started.insert(node, (space.view.number, members));
                    let own = (node, self.nodes[&node].config.incarnation);
                    for other in start.members.iter().map(|m| (m.node, m.incarnation)).filter(|other| *other != own) {
                        let lost = self.ended.contains(&(own, other)) || self.ended.contains(&(other, own));
                        assert!(!lost, "{own:?} and {other:?} go on, and what was under way is lost, at {}", self.now);
                        self.talks.insert((own, other));
                    }
                    self.check();
                }
                MembershipAction::Fence(victim) => {
                    if let Some(agents) = &mut self.agents {
                        agents.push((node, victim));
                        continue;
                    }
                    if self.fence_works {
                        self.fenced.push(victim);
                        self.nodes.remove(&victim);
                        self.started.remove(&victim);
                    }
                    let success = self.fence_works;
                    self.handle(node, MembershipEvent::Fenced { node: victim, success });
                }
                // People are told.
                MembershipAction::Differs(_) => {}
                MembershipAction::Datagram { to, bytes } => {
                    if let Some(held) = &mut self.held {
                        held.push((to, node, bytes));
                    } else if !self.cut.contains(&node) && !self.cut.contains(&to) && !self.silent.contains(&(node, to))
                    {
                        self.under_way.push_back((to, node, bytes));
                    }
                }
                MembershipAction::Expelled(_) => {
                    // The process ends, as a filesystem that has lost its locks must.
                    self.expelled.push(node);
                    self.started.remove(&node);
                    self.nodes.remove(&node);
                }
                MembershipAction::Left(_) => {
                    self.left.push(node);
                    self.started.remove(&node);
                }
                MembershipAction::NodeGone(other) => {
                    self.gone.push((node, other));
                    let life = |node| self.nodes.get(&node).map(|fixed: &Fixed| (node, fixed.config.incarnation));
                    let ended = life(node).zip(life(other)).filter(|pair| self.talks.contains(pair));
                    self.ended.extend(ended);
                }
            }
        }
    }

    /// All who run, run in the same view. Who was fenced does not run any more, who was left behind must not.
    fn check(&self) {
        if self.nodes.values().any(|fixed| !fixed.config.fencing) {
            return;
        }
        let Some((first, view)) = self.started.iter().next() else { return };
        for (node, other) in &self.started {
            assert_eq!(view, other, "{first} and {node} run in different views at {}", self.now);
        }
    }

    /// Cuts what the first says to the second.
    fn silence(&mut self, from: u32, to: u32) {
        self.silent.insert((NodeId(from), NodeId(to)));
    }

    /// The node leaves the lockspace: its client has given up everything.
    fn leave(&mut self, node: u32) {
        self.started.remove(&NodeId(node));
        self.feed(NodeId(node), MembershipEvent::Leave(SPACE));
    }

    fn run(&mut self, ms: u64) {
        let end = self.now + ms;
        while self.now < end {
            self.now += 50;
            let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
            ids.into_iter().for_each(|id| self.feed(id, MembershipEvent::Tick));
        }
    }

    fn members(&self, node: u32) -> Vec<u32> {
        self.started.get(&NodeId(node)).map(|(_, m)| m.iter().map(|n| n.0).collect()).unwrap_or_default()
    }
}

#[test]
fn three_nodes_find_one_another_without_fencing_anyone() {
    let mut net = Net::new(3, &[1, 2, 3]);
    net.run(2000);
    assert!((1..=3).all(|n| net.members(n) == [1, 2, 3]));
    assert!(net.fenced.is_empty());
}

#[test]
fn a_node_that_falls_silent_is_fenced_before_the_others_go_on() {
    let mut net = Net::new(3, &[1, 2, 3]);
    net.run(2000);
    net.fence_works = false;
    net.cut.insert(NodeId(2));
    net.run(5000);
    assert_eq!((net.members(1), net.members(3)), (vec![], vec![]), "nobody goes on while fencing fails");
    assert!(net.members(2).is_empty(), "the minority stops");
    net.fence_works = true;
    net.run(3000);
    assert_eq!((net.members(1), net.members(3), &net.fenced[..]), (vec![1, 3], vec![1, 3], &[NodeId(2)][..]));
    // It comes back as another.
    net.cut.clear();
    net.boot(2, 3, 2);
    net.run(3000);
    assert!((1..=3).all(|n| net.members(n) == [1, 2, 3]));
}

/// Found with real mounts: one of the others still heard the dead, took his death for a leave, and nobody replayed his journal.
#[test]
fn who_is_heard_by_one_only_dies_for_both() {
    for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)] {
        let mut net = Net::new(3, &[1, 2, 3]);
        net.run(2000);
        net.silence(from, to);
        net.run(4000);
        let [dead] = net.fenced[..] else { panic!("{:?} were fenced", net.fenced) };
        let others: Vec<u32> = (1..=3).filter(|node| NodeId(*node) != dead).collect();
        assert!(others.iter().all(|other| net.members(*other) == others), "{:?}", net.started);
    }
}

#[test]
fn the_unseen_are_fenced_at_the_first_start() {
    let mut net = Net::new(3, &[1, 3]);
    net.run(2000);
    assert!(net.members(1).is_empty());
    net.run(3000);
    assert_eq!((net.members(1), &net.fenced[..]), (vec![1, 3], &[NodeId(2)][..]));
}

#[test]
fn a_minority_does_not_start() {
    let mut net = Net::new(5, &[1, 2]);
    net.run(20_000);
    assert!(net.members(1).is_empty() && net.fenced.is_empty());
}

#[test]
fn of_two_nodes_one_goes_on_when_the_other_is_fenced() {
    let mut net = Net::new(2, &[1, 2]);
    net.run(2000);
    assert_eq!(net.members(2), [1, 2]);
    net.cut.insert(NodeId(1));
    net.run(5000);
    assert_eq!(net.fenced.len(), 1, "the first shot wins");
    let survivor = if net.fenced[0] == NodeId(1) { 2 } else { 1 };
    assert_eq!(net.members(survivor), [survivor]);
}

#[test]
fn leaving_in_order_puts_nobody_in_doubt() {
    let mut net = Net::new(3, &[1, 2, 3]);
    net.run(2000);
    net.leave(1);
    net.run(2000);
    assert_eq!((net.members(2), net.members(3), &net.left[..]), (vec![2, 3], vec![2, 3], &[NodeId(1)][..]));
    net.nodes.remove(&NodeId(1));
    net.run(5000);
    assert!(net.fenced.is_empty());
    assert_eq!(net.members(2), [2, 3]);
}

#[test]
fn a_node_counted_out_without_fencing_is_expelled() {
    let mut net = Net::new(3, &[1, 2, 3]);
    net.nodes.values_mut().for_each(|fixed| fixed.config.fencing = false);
    net.run(2000);
    net.cut.insert(NodeId(3));
    net.run(3000);
    assert_eq!(net.members(1), [1, 2]);
    net.cut.clear();
    net.run(3000);
    assert_eq!(net.expelled, [NodeId(3)]);
    assert_eq!(net.members(1), [1, 2]);
}

/// Found with real processes: what it says is heard, so that nobody missed it; it hears nothing, so that it answers nothing.
#[test]
fn a_node_that_hears_nobody_is_fenced() {
    for deaf in 1..=3 {
        let mut net = Net::new(3, &[1, 2, 3]);
        net.run(2000);
        let others: Vec<u32> = (1..=3).filter(|node| *node != deaf).collect();
        others.iter().for_each(|other| net.silence(*other, deaf));
        net.run(3000);
        assert!(others.iter().all(|other| net.members(*other) == others), "{:?}", net.started);
        assert_eq!(net.fenced, [NodeId(deaf)]);
    }
}

#[test]
fn a_node_that_nobody_hears_is_fenced() {
    for mute in 1..=3 {
        let mut net = Net::new(3, &[1, 2, 3]);
        net.run(2000);
        let others: Vec<u32> = (1..=3).filter(|node| *node != mute).collect();
        others.iter().for_each(|other| net.silence(mute, *other));
        net.run(3000);
        assert!(others.iter().all(|other| net.members(*other) == others), "{:?}", net.started);
        assert_eq!(net.fenced, [NodeId(mute)]);
    }
}

/// Found with real processes: each of the two has a majority with the third, which followed the one that was shot.
#[test]
fn of_two_that_do_not_hear_one_another_one_is_fenced() {
    for (a, b) in [(1, 2), (1, 3), (2, 3), (2, 1), (3, 1), (3, 2)] {
        let mut net = Net::new(3, &[1, 2, 3]);
        net.run(2000);
        net.silence(a, b);
        net.run(200 * u64::from(a));
        net.silence(b, a);
        net.run(5000);
        assert_eq!(net.fenced.len(), 1);
        let others: Vec<u32> = (1..=3).filter(|node| NodeId(*node) != net.fenced[0]).collect();
        assert!(others.iter().all(|other| net.members(*other) == others), "{:?}", net.started);
    }
}

/// Found with real processes: a node that comes back hears one member earlier than the other.
#[test]
fn a_node_that_comes_does_not_lead_those_it_hears_against_those_it_does_not() {
    for (back, unheard) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)] {
        let mut net = Net::new(3, &[1, 2, 3]);
        net.run(2000);
        net.nodes.remove(&NodeId(back));
        net.started.remove(&NodeId(back));
        net.run(3000);
        (net.silent, net.fenced) = ([(NodeId(unheard), NodeId(back))].into(), vec![]);
        net.boot(back, 3, 2);
        net.run(6000);
        let others: Vec<u32> = (1..=3).filter(|node| *node != back).collect();
        assert!(others.iter().all(|other| net.members(*other) == others), "{:?}", net.started);
        net.silent.clear();
        net.run(3000);
        assert!((1..=3).all(|node| net.members(node) == [1, 2, 3]), "{:?}", net.started);
        assert!(net.fenced.is_empty());
    }
}

#[test]
fn random_cuts_and_deaths_never_break_the_promise() {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let from = variable("FROM").unwrap_or(0);
    for seed in from..from + variable("SEEDS").unwrap_or(200) {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let mut net = Net::new(4, &[1, 2, 3, 4]);
        let mut life = 1;
        for _ in 0..60 {
            let node = rng.below(4) as u32 + 1;
            match rng.below(10) {
                0 => {
                    net.nodes.remove(&NodeId(node));
                    net.started.remove(&NodeId(node));
                }
                1..3 if !net.nodes.contains_key(&NodeId(node)) => {
                    life += 1;
                    net.boot(node, 4, life);
                }
                3 => {
                    net.cut.insert(NodeId(node));
                }
                4 => net.fence_works = rng.chance(70),
                5..7 => net.cut.clear(),
                7 => net.silence(node, rng.below(4) as u32 + 1),
                8 => net.silent.clear(),
                _ => {}
            }
            net.run(rng.below(40) as u64 * 50);
            net.check();
        }
        net.cut.clear();
        net.silent.clear();
        net.fence_works = true;
        net.run(12_000);
        let living: Vec<u32> = net.nodes.keys().map(|n| n.0).collect();
        if living.len() >= 3 {
            assert!(living.iter().all(|n| net.members(*n) == living), "seed {seed}: {:?} of {living:?}", net.started);
        }
    }
}

/// What a node believes of itself ends before anyone else can think otherwise.
#[test]
fn trust_ends_before_the_others_give_a_node_up() {
    let mut net = Net::new(3, &[1, 2, 3]);
    net.run(2000);
    assert!((1..=3).all(|node| net.nodes[&NodeId(node)].trusted_until() > net.now + 500));
    net.cut.insert(NodeId(3));
    let until = net.nodes[&NodeId(3)].trusted_until();
    net.agents = Some(Vec::new());
    while net.nodes[&NodeId(1)].lives(NodeId(3)) && net.nodes[&NodeId(2)].lives(NodeId(3)) {
        assert!(net.now < 5000, "nobody misses it");
        net.run(1);
    }
    assert!(until <= net.now && until + 500 > net.now, "until {until}, given up at {}", net.now);
    assert_eq!(net.nodes[&NodeId(3)].trusted_until(), until, "nothing has renewed it");
    assert_eq!(Net::new(1, &[1]).nodes[&NodeId(1)].trusted_until(), u64::MAX);
}

#[test]
fn who_was_never_seen_is_waited_for_from_the_majority_on() {
    let mut net = Net::new(3, &[1]);
    net.run(10_000);
    net.boot(2, 3, 1);
    net.run(2500);
    assert!(net.fenced.is_empty() && net.members(1).is_empty());
    net.run(1500);
    assert_eq!((&net.fenced[..], net.members(1)), (&[NodeId(3)][..], vec![1, 2]));
}

/// Found with real processes on a busy machine: a node is back at once, and was fenced because it did not answer at once.
#[test]
fn a_new_life_that_hears_nobody_yet_is_not_fenced_for_the_old_one() {
    let mut net = Net::new(3, &[1, 2, 3]);
    net.run(2000);
    net.silence(1, 2);
    net.silence(3, 2);
    net.boot(2, 3, 2);
    net.run(3000);
    assert_eq!((net.fenced.len(), net.members(1), net.members(3)), (0, vec![1, 3], vec![1, 3]));
    net.silent.clear();
    net.run(2000);
    assert_eq!(net.members(1), [1, 2, 3]);
}
