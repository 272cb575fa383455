//! What an agent has done counts for the life that it was ordered for.

use super::*;

fn fenced(net: &mut Net, by: u32, victim: u32, success: bool) {
    let (by, victim) = (NodeId(by), NodeId(victim));
    net.agents.as_mut().expect("they take long").retain(|agent| *agent != (by, victim));
    net.feed(by, MembershipEvent::Fenced { node: victim, success });
}

/// Found by reading: the agent takes so long that the node is up again, joins and writes, and is cut off.
#[test]
fn an_old_success_does_not_fence_a_newer_life() {
    let mut net = Net::new(3, &[1, 2, 3]);
    net.run(2000);
    net.agents = Some(vec![]);
    net.nodes.remove(&NodeId(2));
    net.started.remove(&NodeId(2));
    net.run(2000);
    assert_eq!(net.agents, Some(vec![(NodeId(1), NodeId(2))]));
    net.boot(2, 3, 2);
    net.run(2000);
    assert!((1..=3).all(|node| net.members(node) == [1, 2, 3]), "the new life is at work");
    net.cut.insert(NodeId(2));
    net.run(2000);
    assert!(net.members(1).is_empty());
    assert_eq!(net.agents.as_ref().map(Vec::len), Some(1), "no second agent beside the first");
    fenced(&mut net, 1, 2, true);
    assert!(net.members(1).is_empty(), "it was about the old life");
    net.run(100);
    assert_eq!(net.agents, Some(vec![(NodeId(1), NodeId(2))]), "ordered anew, at once");
    net.run(1000);
    assert!(net.members(1).is_empty());
    net.nodes.remove(&NodeId(2));
    fenced(&mut net, 1, 2, true);
    net.run(1000);
    assert_eq!((net.members(1), net.members(3)), (vec![1, 3], vec![1, 3]));
}

/// A node whose file differs is not switched off again and again: it is told apart from one that nobody hears.
#[test]
fn who_greets_with_another_file_is_not_fenced_but_waited_for() {
    let mut net = Net::new(3, &[1, 2]);
    let other = FixedConfig { token_ms: 2000, ..config(3, 3, 1) };
    net.nodes.insert(NodeId(3), Fixed::new(other));
    net.feed(NodeId(3), MembershipEvent::Join(SPACE));
    net.run(10_000);
    assert!(net.fenced.is_empty() && net.members(1).is_empty(), "fenced {:?}", net.fenced);
    let seen = Membership::view(&net.nodes[&NodeId(1)]);
    assert!(seen.nodes.iter().map(|node| node.differs).eq([false, false, true]));
    // Silent at last, it is fenced as any other; alike at last, it is let in.
    net.nodes.remove(&NodeId(3));
    net.run(10_000);
    assert_eq!((net.fenced.clone(), net.members(1)), (vec![NodeId(3)], vec![1, 2]));
    net.boot(3, 3, 2);
    net.run(3000);
    assert_eq!(net.members(1), [1, 2, 3]);
}

/// One datagram must not make this node count on from where nobody can follow.
#[test]
fn views_that_no_cluster_comes_to_are_nobodys() {
    let mut net = Net::new(3, &[1, 2, 3]);
    net.run(2000);
    let mut beat = net.nodes[&NodeId(3)].peers[&NodeId(1)].beat.clone().expect("heard");
    (beat.node, beat.number) = (NodeId(3), 1 << 20);
    beat.incarnation = net.nodes[&NodeId(3)].config.incarnation;
    beat.spaces.iter_mut().for_each(|space| space.view.number = 1 << 61);
    net.feed(NodeId(1), MembershipEvent::Datagram { from: NodeId(3), bytes: encode_heartbeat(&beat) });
    net.run(3000);
    assert!((1..=3).all(|node| net.members(node) == [1, 2, 3]) && net.fenced.is_empty(), "all go on");
}

/// The second way: the success comes while the node is there, and it falls silent before we have a lockspace with it.
#[test]
fn whoever_was_heard_after_it_was_fenced_is_fenced_again() {
    let mut fixed = Fixed::new(config(1, 3, 1));
    let beat = |number, incarnation, hears: bool| {
        let heard = crate::wire::Heard { node: NodeId(1), incarnation: 1, number: 1 };
        let cluster = Fixed::new(config(2, 3, 1)).cluster;
        encode_heartbeat(&Heartbeat {
            node: NodeId(2),
            incarnation,
            number,
            cluster,
            hears: hears.then_some(heard).into_iter().collect(),
            doubtful: vec![],
            spaces: vec![],
        })
    };
    let say = |fixed: &mut Fixed, bytes, now| {
        fixed.handle(MembershipEvent::Datagram { from: NodeId(2), bytes }, now);
    };
    say(&mut fixed, beat(1, 1, true), 100);
    for now in (150..2000).step_by(50) {
        fixed.handle(MembershipEvent::Tick, now);
    }
    assert!(!fixed.lives(NodeId(2)));
    fixed.peers.get_mut(&NodeId(2)).expect("listed").fencing = Some(fixed.peers[&NodeId(2)].returns);
    fixed.handle(MembershipEvent::Fenced { node: NodeId(2), success: true }, 2000);
    assert!(fixed.fenced.contains(&NodeId(2)));
    say(&mut fixed, beat(1, 2, false), 2050);
    assert!(!fixed.fenced.contains(&NodeId(2)), "a new life, which may write");
    say(&mut fixed, beat(2, 2, true), 2100);
    // An agent that was ordered for an earlier absence.
    fixed.peers.get_mut(&NodeId(2)).expect("listed").fencing = Some(0);
    fixed.handle(MembershipEvent::Fenced { node: NodeId(2), success: true }, 2150);
    assert!(!fixed.fenced.contains(&NodeId(2)));
    for now in (2200..5000).step_by(50) {
        fixed.handle(MembershipEvent::Tick, now);
    }
    assert!(!fixed.lives(NodeId(2)) && !fixed.fenced.contains(&NodeId(2)));
}

/// The new life is heard, and does not hear us yet: it is not switched off again for what the others still think of the old.
#[test]
fn a_life_that_has_just_come_is_not_fenced_for_the_one_before() {
    for late in [1, 3] {
        let mut net = Net::new(3, &[1, 2, 3]);
        net.run(2000);
        net.nodes.remove(&NodeId(2));
        net.started.remove(&NodeId(2));
        net.agents = Some(vec![]);
        net.run(1500);
        fenced(&mut net, 1, 2, false);
        net.silence(2, late);
        net.boot(2, 3, 2);
        net.run(800);
        net.silent.clear();
        net.run(3000);
        assert!((1..=3).all(|node| net.members(node) == [1, 2, 3]), "{:?}", net.started);
    }
}

#[test]
fn nodes_that_count_differently_are_of_different_clusters() {
    let cluster = |change: fn(&mut FixedConfig)| {
        let mut config = config(1, 3, 1);
        change(&mut config);
        Fixed::new(config).cluster
    };
    let same = cluster(|_| {});
    assert_eq!(same, cluster(|config| (config.node, config.incarnation) = (NodeId(2), 7)));
    assert_ne!(same, cluster(|config| config.token_ms += 1));
    assert_ne!(same, cluster(|config| config.startup_ms += 1));
    assert_ne!(same, cluster(|config| config.fencing = false));
}
