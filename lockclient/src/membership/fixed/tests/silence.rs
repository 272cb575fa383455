//! Silence that ends before anyone has drawn a conclusion: both lives go on, and so do their conversations.

use super::*;

/// Found by reading: everything that was under way when all had lost one another was thrown away, and nobody asked again.
#[test]
fn a_cut_that_heals_ends_no_conversation() {
    for cut_ms in [700, 1000, 1300, 1600, 2000] {
        for cut in [vec![1, 2, 3], vec![1], vec![2], vec![3], vec![1, 3]] {
            let mut net = Net::new(3, &[1, 2, 3]);
            net.run(2000);
            net.agents = Some(vec![]);
            net.cut.extend(cut.iter().copied().map(NodeId));
            net.run(cut_ms);
            net.cut.clear();
            net.run(3000);
            assert!((1..=3).all(|node| net.members(node) == [1, 2, 3]), "{cut:?} {cut_ms} {:?}", net.started);
            assert!(net.gone.is_empty() && net.fenced.is_empty(), "{cut:?} {cut_ms} {:?}", net.gone);
        }
    }
}

/// One datagram in which it is not named, or silence of one direction.
#[test]
fn one_sided_silence_ends_no_conversation() {
    for (from, to) in [(1, 2), (2, 1), (1, 3), (3, 1), (2, 3), (3, 2)] {
        for ms in [700, 1000, 1100, 1300, 1600] {
            let mut net = Net::new(3, &[1, 2, 3]);
            net.run(2000);
            net.agents = Some(vec![]);
            net.silence(from, to);
            net.run(ms);
            net.silent.clear();
            net.run(3000);
            assert!((1..=3).all(|node| net.members(node) == [1, 2, 3]), "{from} {to} {ms} {:?}", net.started);
            assert!(net.gone.is_empty(), "{from} {to} {ms} {:?}", net.gone);
        }
    }
}

#[test]
fn who_is_counted_out_or_begins_anew_is_spoken_to_no_more() {
    let mut net = Net::new(3, &[1, 2, 3]);
    net.run(2000);
    net.cut.insert(NodeId(3));
    net.run(3000);
    net.gone.sort_unstable();
    assert_eq!(net.gone, [(NodeId(1), NodeId(3)), (NodeId(2), NodeId(3))]);
    net.gone.clear();
    net.cut.clear();
    net.boot(3, 3, 2);
    net.run(2000);
    assert!((1..=3).all(|node| net.members(node) == [1, 2, 3]));
    net.gone.clear();
    // Back before it was missed.
    net.boot(3, 3, 3);
    net.run(2000);
    net.gone.sort_unstable();
    assert_eq!(net.gone, [(NodeId(1), NodeId(3)), (NodeId(2), NodeId(3))], "once each");
    assert!((1..=3).all(|node| net.members(node) == [1, 2, 3]));
}

/// What the others said while this process was stopped is still to be heard.
#[test]
fn a_pause_of_ours_is_not_their_silence() {
    let mut net = Net::new(3, &[1, 2, 3]);
    net.run(2000);
    let mut own = net.nodes.remove(&NodeId(1)).expect("runs");
    let lives = |own: &Fixed| (2..=3).all(|node| own.lives(NodeId(node)));
    let paused = net.now + 1200;
    own.handle(MembershipEvent::Tick, paused);
    assert!(lives(&own), "nothing that came meanwhile has been heard yet");
    own.handle(MembershipEvent::Tick, paused + 50);
    assert!(lives(&own));
    // And if there is nothing to be heard, that is soon noticed; also by one that is late each time.
    let mut late = own.clone();
    own.handle(MembershipEvent::Tick, paused + 130);
    assert!(!lives(&own));
    late.handle(MembershipEvent::Tick, paused + 500);
    assert!(!lives(&late));
}

/// A datagram that comes late is not taken for the silence of all whose datagrams come after it.
#[test]
fn silence_is_judged_after_all_that_came() {
    let mut net = Net::new(3, &[1, 2, 3]);
    net.run(2000);
    net.held = Some(vec![]);
    let mut own = net.nodes.remove(&NodeId(1)).expect("runs");
    net.run(600);
    let held = net.held.take().expect("set above");
    let mut heard = held.into_iter().filter(|(to, _, _)| *to == NodeId(1)).collect::<Vec<_>>();
    heard.sort_by_key(|(_, from, _)| *from);
    for (_, from, bytes) in heard {
        own.handle(MembershipEvent::Datagram { from, bytes }, net.now + 500);
        assert!((2..=3).all(|node| own.lives(NodeId(node))), "after a datagram of {from}");
    }
}

/// Found by reading: a node that still named the old life of another was put into one view with the new one; when it heard
/// the new one at last, it ended the conversation that the view had begun.
#[test]
fn a_new_life_is_a_member_with_those_who_hear_it() {
    let mut net = Net::new(3, &[1, 2, 3]);
    net.run(2000);
    net.nodes.remove(&NodeId(2));
    net.started.remove(&NodeId(2));
    net.silence(2, 3);
    net.boot(2, 3, 2);
    net.run(400);
    net.silent.clear();
    net.run(1000);
    assert!((1..=3).all(|node| net.members(node) == [1, 2, 3]), "{:?}", net.started);
    assert!(net.fenced.is_empty());
}
