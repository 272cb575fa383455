//! Scenarios 61 to 63 of dlm.md 6.6, as far as this membership has them. What is left of 61 (START messages and their
//! counts, NACK, "disallowed"), 62 (ring ids against quorum) and 63 (several devices, acknowledgement by hand, FENCE_CLEAR)
//! belongs to the daemons' group protocol and comes with it.

use super::*;

impl Net {
    /// Three nodes at work.
    fn three() -> Net {
        let mut net = Net::new(3, &[1, 2, 3]);
        net.run(2000);
        assert!((1..=3).all(|n| net.members(n) == [1, 2, 3]));
        net
    }

    /// The process of a node ends, and its agents with it.
    fn kill(&mut self, node: u32) {
        self.nodes.remove(&NodeId(node));
        self.started.remove(&NodeId(node));
        if let Some(agents) = &mut self.agents {
            agents.retain(|(actor, _)| *actor != NodeId(node));
        }
    }

    /// The lockspace of a slow node has stopped at last.
    fn stopped(&mut self, node: u32) {
        self.slow.remove(&NodeId(node));
        self.feed(NodeId(node), MembershipEvent::Stopped(SPACE));
    }
}

#[test]
fn s61_a_node_joins_and_fails_before_anyone_is_started() {
    let mut net = Net::three();
    net.kill(3);
    net.run(3000);
    (net.fenced, net.slow) = (vec![], [NodeId(2)].into());
    net.boot(3, 3, 2);
    net.run(100);
    assert!(net.members(1).is_empty() && net.members(3).is_empty(), "node 2 has not stopped yet");
    net.kill(3);
    net.run(1500);
    net.stopped(2);
    net.run(2000);
    assert_eq!((net.members(1), net.members(2)), (vec![1, 2], vec![1, 2]));
    assert!(net.fenced.is_empty(), "it was never started, and holds nothing");
}

#[test]
fn s61_the_same_change_twice() {
    let mut net = Net::three();
    net.slow.insert(NodeId(2));
    for life in [2, 3] {
        net.kill(3);
        net.boot(3, 3, life);
        net.run(100);
        assert!((1..=3).all(|n| net.members(n).is_empty()), "node 2 has not stopped for either");
    }
    net.stopped(2);
    net.run(1000);
    assert!((1..=3).all(|n| net.members(n) == [1, 2, 3]));
    assert_eq!(net.nodes[&NodeId(1)].spaces[&SPACE].begun.members[2].1, 3, "with its last life");
    assert!(net.fenced.is_empty());
}

/// The two halves meet again before anyone went on: all of them answer for themselves.
#[test]
fn s61_a_cut_that_heals_before_the_fencing() {
    let mut net = Net::three();
    net.agents = Some(vec![]);
    net.cut.insert(NodeId(3));
    net.run(3000);
    assert_eq!(net.agents, Some(vec![(NodeId(1), NodeId(3))]));
    assert!((1..=3).all(|n| net.members(n).is_empty()));
    net.cut.clear();
    net.run(2000);
    assert!((1..=3).all(|n| net.members(n) == [1, 2, 3]));
    assert!(net.expelled.is_empty());
}

#[test]
fn s62_quorum_is_lost_and_returns() {
    for survivor in 1..=3 {
        let mut net = Net::three();
        let others: Vec<u32> = (1..=3).filter(|n| *n != survivor).collect();
        others.iter().for_each(|n| net.kill(*n));
        net.run(5000);
        assert!(net.members(survivor).is_empty() && !net.nodes[&NodeId(survivor)].is_quorate());
        // The first to return makes a majority, and has the third fenced; it comes back after that.
        net.boot(others[0], 3, 2);
        net.run(5000);
        let two: Vec<u32> = (1..=3).filter(|n| *n != others[1]).collect();
        assert!(two.iter().all(|n| net.members(*n) == two), "{:?}", net.started);
        assert_eq!(net.fenced, [NodeId(others[1])]);
        net.boot(others[1], 3, 2);
        net.run(2000);
        assert!((1..=3).all(|n| net.members(n) == [1, 2, 3]));
    }
}

#[test]
fn s63_who_runs_the_agent_dies() {
    let mut net = Net::new(5, &[1, 2, 3, 4, 5]);
    net.run(2000);
    net.agents = Some(vec![]);
    net.kill(5);
    net.run(1500);
    assert_eq!(net.agents, Some(vec![(NodeId(1), NodeId(5))]), "one agent at a time, run by the lowest");
    net.kill(1);
    net.run(2000);
    assert_eq!(net.agents, Some(vec![(NodeId(2), NodeId(1)), (NodeId(2), NodeId(5))]), "the next takes over");
    assert!((2..=4).all(|n| net.members(n).is_empty()));
    for victim in [5, 1] {
        net.feed(NodeId(2), MembershipEvent::Fenced { node: NodeId(victim), success: true });
        net.run(500);
        assert_eq!(net.members(2).is_empty(), victim == 5, "both must be off");
    }
    assert!((2..=4).all(|n| net.members(n) == [2, 3, 4]));
}

#[test]
fn s63_the_agent_fails_and_is_run_again() {
    let mut net = Net::three();
    net.agents = Some(vec![]);
    net.kill(2);
    net.run(1500);
    for failures in 1..4 {
        assert_eq!(net.agents.as_ref().map(Vec::len), Some(failures));
        net.feed(NodeId(1), MembershipEvent::Fenced { node: NodeId(2), success: false });
        net.run(500);
        assert_eq!(net.agents.as_ref().map(Vec::len), Some(failures), "not at once");
        net.run(1000);
    }
    assert!(net.members(1).is_empty());
    net.feed(NodeId(1), MembershipEvent::Fenced { node: NodeId(2), success: true });
    net.run(500);
    assert_eq!((net.members(1), net.members(3)), (vec![1, 3], vec![1, 3]));
}

/// The new life proves that the old one is over: nobody waits for the agent. (It is not stopped, and may switch the new
/// life off: then that one is missed like any other.)
#[test]
fn s63_a_new_life_makes_fencing_needless() {
    let mut net = Net::three();
    net.agents = Some(vec![]);
    net.kill(2);
    net.run(2000);
    assert!(net.members(1).is_empty());
    net.boot(2, 3, 2);
    net.run(1000);
    assert!((1..=3).all(|n| net.members(n) == [1, 2, 3]));
    // What the agent says now is about a life that is over.
    net.feed(NodeId(1), MembershipEvent::Fenced { node: NodeId(2), success: true });
    net.run(1000);
    net.kill(2);
    net.run(2000);
    assert!(net.members(1).is_empty(), "the new life must be fenced, whatever was said of the old one");
}

#[test]
fn s63_everybody_starts_together() {
    for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1]] {
        let mut net = Net::new(3, &[]);
        for node in order {
            net.boot(node, 3, 1);
            net.run(400);
        }
        net.run(1000);
        assert!((1..=3).all(|n| net.members(n) == [1, 2, 3]));
        assert!(net.fenced.is_empty(), "nobody who starts in time is fenced");
    }
}
