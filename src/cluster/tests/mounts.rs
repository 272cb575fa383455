//! Who mounts first, and what becomes of a mount when others die meanwhile.

use super::*;

#[test]
fn a_node_alone_is_the_first_mounter() {
    let lab = Lab::new(1);
    lab.disk.soil(2);
    let node = lab.node(1);
    for _ in 0..2 {
        let member = lab.mount(&node);
        assert_eq!((member.cluster.mounter(), member.jid()), (Mounter::First, 0));
        assert!(!lab.disk.is_dirty(2));
        member.unmount();
    }
}

#[test]
fn s65_three_nodes_race_and_one_is_first() {
    let lab = Lab::new(3);
    lab.disk.soil(1);
    let members = lab.members();
    let firsts = members.iter().filter(|m| m.cluster.mounter() == Mounter::First).count();
    assert_eq!(firsts, 1);
    let mut jids: Vec<u32> = members.iter().map(Member::jid).collect();
    jids.sort_unstable();
    assert_eq!(jids, [0, 1, 2]);
    assert_eq!(lab.disk.replays(1), 1);
    members.into_iter().for_each(|m| drop(m.unmount()));
}

#[test]
fn s65_the_first_mounter_dies_before_it_is_done() {
    let lab = Lab::new(3);
    // Two of three are needed before anything begins.
    let (nodes, first) = ([lab.node(2), lab.node(3)], lab.join(&lab.node(1)).expect("joined"));
    assert_eq!(first.cluster.mounter(), Mounter::First);
    lab.disk.soil(first.jid());
    std::thread::scope(|scope| {
        let others: Vec<_> = nodes.iter().map(|node| scope.spawn(|| lab.mount(node))).collect();
        std::thread::sleep(Duration::from_millis(700));
        assert!(others.iter().all(|o| !o.is_finished()), "mounted beside a first mounter");
        first.cluster.let_go_of_node();
        drop(first);
        let others: Vec<Member> = others.into_iter().map(|o| o.join().expect("mounted")).collect();
        let firsts = others.iter().filter(|m| m.cluster.mounter() == Mounter::First).count();
        assert_eq!((firsts, lab.disk.replays(0)), (1, 1));
    });
}

#[test]
fn s66_a_node_dies_while_another_mounts() {
    let lab = Lab::new(3);
    let (b, _third) = (lab.node(2), lab.node(3));
    let a = lab.mount(&lab.node(1));
    let b = lab.join(&b).expect("joined");
    assert_eq!(b.cluster.mounter(), Mounter::Joining);
    // All who could replay the journal of `a` are gone, and `b` cannot yet.
    a.crash();
    until("the mount is told to begin again", || b.cluster.was_disturbed());
    b.cluster.leave();
    let b = lab.mount(&b.node);
    assert_eq!((b.cluster.mounter(), lab.disk.replays(0)), (Mounter::First, 1));
}

#[test]
fn a_spectator_waits_for_a_mounter_to_note_it() {
    let lab = Lab::new(2);
    let (a, node) = (lab.mount(&lab.node(1)), lab.node(2));
    let options = JoinOptions { spectator: true, ..JoinOptions::default() };
    let spectator = Cluster::join(&node, "fs0", &options).expect("joined");
    assert_eq!(spectator.mounter(), Mounter::Spectator);
    spectator.leave();
    a.unmount();
}

#[test]
fn a_mount_can_be_given_up() {
    let lab = Lab::new(2);
    let nodes = lab.nodes();
    let first = lab.join(&nodes[0]).expect("joined");
    let options = JoinOptions::default();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| Cluster::join(&nodes[1], "fs0", &options).map(|_| ()));
        std::thread::sleep(Duration::from_millis(700));
        options.stop.store(true, Ordering::SeqCst);
        assert!(matches!(second.join().expect("no panic"), Err(JoinError::Interrupted)));
    });
    first.cluster.leave();
}
