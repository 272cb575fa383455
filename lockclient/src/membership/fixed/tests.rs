//! Clusters of the built-in membership on a network that loses, cuts and delays.

use super::*;
use crate::sim::Rng;

const SPACE: u32 = 42;

/// Nodes, the datagrams under way, and what each lockspace was told.
struct Net {
    now: u64,
    nodes: BTreeMap<NodeId, Fixed>,
    /// Nodes that hear nobody and are not heard.
    cut: BTreeSet<NodeId>,
    /// The members a node was started with, while it is.
    started: BTreeMap<NodeId, (u64, Vec<NodeId>)>,
    fenced: Vec<NodeId>,
    expelled: Vec<NodeId>,
    left: Vec<NodeId>,
    fence_works: bool,
    /// Datagrams that are under way, when they take their time.
    slow: Option<Vec<(NodeId, NodeId, Vec<u8>)>>,
}

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
            started: BTreeMap::new(),
            fenced: Vec::new(),
            expelled: Vec::new(),
            left: Vec::new(),
            fence_works: true,
            slow: None,
        };
        for node in present {
            net.boot(*node, nodes, 1);
        }
        net
    }

    fn boot(&mut self, node: u32, nodes: u32, incarnation: u64) {
        self.nodes.insert(NodeId(node), Fixed::new(config(node, nodes, incarnation)));
        self.feed(NodeId(node), MembershipEvent::Join(SPACE));
    }

    fn feed(&mut self, node: NodeId, event: MembershipEvent) {
        let now = self.now;
        let Some(fixed) = self.nodes.get_mut(&node) else { return };
        fixed.handle(event, now);
        while let Some(action) = self.nodes.get_mut(&node).and_then(Membership::next_action) {
            match action {
                MembershipAction::Stop(space) => {
                    self.started.remove(&node);
                    self.feed(node, MembershipEvent::Stopped(space));
                }
                MembershipAction::Start(_, start) => {
                    let members: Vec<NodeId> = start.members.iter().map(|m| m.node).collect();
                    // Told to go on and, in the same breath, counted out.
                    let Some(space) = self.nodes[&node].spaces.get(&SPACE) else { continue };
                    self.started.insert(node, (space.view.number, members));
                    self.check();
                }
                MembershipAction::Fence(victim) => {
                    if self.fence_works {
                        self.fenced.push(victim);
                        self.nodes.remove(&victim);
                        self.started.remove(&victim);
                    }
                    let success = self.fence_works;
                    self.feed(node, MembershipEvent::Fenced { node: victim, success });
                }
                MembershipAction::Datagram { to, bytes } => {
                    if let Some(slow) = &mut self.slow {
                        slow.push((node, to, bytes));
                    } else if !self.cut.contains(&node) && !self.cut.contains(&to) {
                        self.feed(to, MembershipEvent::Datagram { from: node, bytes });
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
                MembershipAction::NodeGone(_) => {}
            }
        }
    }

    /// Who is started is started with the same members as every other member that is started, or they have not yet
    /// seen the newer view; and a started view never contains a living node that is started in another one with us.
    fn check(&self) {
        for (node, (number, members)) in &self.started {
            for (other, (other_number, others)) in &self.started {
                if number == other_number && members.contains(other) && others.contains(node) {
                    assert_eq!(members, others, "{node} and {other} differ about view {number}");
                }
                if number > other_number && members.contains(other) {
                    panic!("{other} runs in view {other_number} while {node} counts it into {number}");
                }
            }
        }
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

/// Found with whole nodes: five that had heard of one another joined at the same moment, and each began alone.
#[test]
fn nodes_that_join_at_the_same_moment_begin_together() {
    for joins in 1..=5_u32 {
        let mut net = Net::new(5, &[]);
        for node in 1..=5 {
            net.nodes.insert(NodeId(node), Fixed::new(config(node, 5, 1)));
        }
        net.run(1000);
        net.slow = Some(Vec::new());
        (1..=joins).for_each(|node| net.feed(NodeId(node), MembershipEvent::Join(SPACE)));
        assert!(net.started.is_empty(), "started before the others could know: {:?}", net.started);
        for (from, to, bytes) in net.slow.take().expect("set above") {
            net.feed(to, MembershipEvent::Datagram { from, bytes });
        }
        net.run(1000);
        let all: Vec<u32> = (1..=joins).collect();
        all.iter().for_each(|node| assert_eq!(net.members(*node), all));
        assert!(net.fenced.is_empty());
    }
}

/// The same in every order: what each says reaches the others in its order, but otherwise at any time.
#[test]
fn nodes_that_join_at_the_same_moment_agree() {
    for seed in 0..2000_u64 {
        let mut random = Rng::new(seed);
        let mut net = Net::new(5, &[]);
        for node in 1..=5 {
            net.nodes.insert(NodeId(node), Fixed::new(config(node, 5, 1)));
        }
        net.run(1000);
        net.slow = Some(Vec::new());
        let mut joiners = vec![1, 2, 3, 4, 5_u32];
        for _ in 0..400 {
            let under_way = net.slow.as_ref().map_or(0, Vec::len);
            let choice = random.below(under_way + joiners.len() + 1);
            if let Some(joiner) = (choice < joiners.len()).then(|| joiners.swap_remove(choice)) {
                net.feed(NodeId(joiner), MembershipEvent::Join(SPACE));
            } else if under_way > 0 {
                let slow = net.slow.as_mut().expect("set above");
                let (from, to, _) = slow[random.below(under_way)];
                let first = slow.iter().position(|d| (d.0, d.1) == (from, to)).expect("at least that one");
                let (from, to, bytes) = slow.remove(first);
                net.feed(to, MembershipEvent::Datagram { from, bytes });
            } else {
                net.run(50);
            }
        }
        for (from, to, bytes) in net.slow.take().expect("set above") {
            net.feed(to, MembershipEvent::Datagram { from, bytes });
        }
        joiners.into_iter().for_each(|joiner| net.feed(NodeId(joiner), MembershipEvent::Join(SPACE)));
        net.run(3000);
        (1..=5).for_each(|node| assert_eq!(net.members(node), [1, 2, 3, 4, 5], "seed {seed}, node {node}"));
        assert!(net.fenced.is_empty() && net.expelled.is_empty(), "seed {seed}");
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
    net.feed(NodeId(1), MembershipEvent::Leave(SPACE));
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

#[test]
fn random_cuts_and_deaths_never_break_the_promise() {
    for seed in 0..200 {
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
                _ => {}
            }
            net.run(rng.below(40) as u64 * 50);
            net.check();
        }
        net.cut.clear();
        net.fence_works = true;
        net.run(12_000);
        let living: Vec<u32> = net.nodes.keys().map(|n| n.0).collect();
        if living.len() >= 3 {
            assert!(living.iter().all(|n| net.members(*n) == living), "seed {seed}: {:?} of {living:?}", net.started);
        }
    }
}
