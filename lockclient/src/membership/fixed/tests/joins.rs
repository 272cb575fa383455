//! Nodes that have heard one another, and join at the same moment.

use super::*;

impl Net {
    /// Nodes that live and have joined nothing.
    fn idle(nodes: u32) -> Net {
        let mut net = Net::new(nodes, &[]);
        for node in 1..=nodes {
            net.nodes.insert(NodeId(node), Fixed::new(config(node, nodes, 1)));
        }
        net.run(1000);
        net
    }

    /// Whatever was held back arrives, in its order.
    fn release(&mut self) {
        for (to, from, bytes) in self.held.take().into_iter().flatten() {
            self.feed(to, MembershipEvent::Datagram { from, bytes });
        }
    }
}

/// Found with whole nodes: five that had heard of one another joined at the same moment, and each began alone.
#[test]
fn nodes_that_join_at_the_same_moment_begin_together() {
    for joins in 1..=5_u32 {
        let mut net = Net::idle(5);
        net.held = Some(Vec::new());
        (1..=joins).for_each(|node| net.feed(NodeId(node), MembershipEvent::Join(SPACE)));
        assert!(net.started.is_empty(), "started before the others could know: {:?}", net.started);
        net.release();
        net.run(1000);
        let all: Vec<u32> = (1..=joins).collect();
        all.iter().for_each(|node| assert_eq!(net.members(*node), all));
        assert!(net.fenced.is_empty());
    }
}

/// The same in every order: what each says reaches the others in its order, but otherwise at any time. (Seed 18: a node that
/// had just been started heard what another had said of the view before, without it, and took itself for counted out.)
#[test]
fn nodes_that_join_at_the_same_moment_agree() {
    for seed in 0..2000_u64 {
        let mut random = Rng::new(seed);
        let mut net = Net::idle(5);
        net.held = Some(Vec::new());
        let (begin, mut joiners) = (net.now, vec![1, 2, 3, 4, 5_u32]);
        for _ in 0..400 {
            let under_way = net.held.as_ref().map_or(0, Vec::len);
            let choice = random.below(under_way + joiners.len() + 1);
            if choice < joiners.len() {
                let joiner = joiners.swap_remove(choice);
                net.feed(NodeId(joiner), MembershipEvent::Join(SPACE));
            } else if under_way > 0 {
                let held = net.held.as_mut().expect("set above");
                let (to, from, _) = held[random.below(under_way)];
                let first = held.iter().position(|d| (d.0, d.1) == (to, from)).expect("at least that one");
                let (to, from, bytes) = held.remove(first);
                net.feed(to, MembershipEvent::Datagram { from, bytes });
            } else if net.now < begin + 700 {
                // Nobody is silent for the token: then fencing would be right.
                net.run(50);
            }
        }
        net.release();
        joiners.into_iter().for_each(|joiner| net.feed(NodeId(joiner), MembershipEvent::Join(SPACE)));
        net.run(3000);
        (1..=5).for_each(|node| assert_eq!(net.members(node), [1, 2, 3, 4, 5], "seed {seed}, node {node}"));
        assert!(net.fenced.is_empty() && net.expelled.is_empty(), "seed {seed}");
    }
}
