//! Withdrawing and freezing.

use super::glocks::name;
use super::*;
use crate::cluster::Parting;
use crate::error::Error;

#[test]
fn s68_a_node_withdraws_and_another_replays_its_journal() {
    let lab = Lab::new(3);
    let mut members = lab.members();
    let tables: Vec<_> = members.iter().map(|m| m.table(10)).collect();
    // In use until the end, so that it is not given up before.
    let held = tables[0].get(name(1)).exclusive().expect("granted");
    let bad = members.remove(0);
    let jid = bad.jid();
    lab.disk.stuck.store(true, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let parting = scope.spawn(|| bad.cluster.withdraw());
        let wanted = scope.spawn(|| drop(tables[1].get(name(1)).exclusive().expect("granted")));
        std::thread::sleep(Duration::from_millis(500));
        assert!(!wanted.is_finished() && lab.disk.is_dirty(jid), "granted before the replay");
        assert!(tables[0].get(name(2)).shared().is_err(), "a withdrawn node gets no lock");
        drop(held);
        lab.disk.stuck.store(false, Ordering::SeqCst);
        assert_eq!(parting.join().expect("no panic"), Parting::Replayed);
        wanted.join().expect("granted");
    });
    assert_eq!(lab.disk.replays(jid), 1);
    assert!(bad.cluster.is_lost() && !members[0].cluster.is_lost());
    // It may come again.
    let again = lab.mount(&bad.node);
    assert_eq!(again.cluster.mounter(), Mounter::Joining);
}

#[test]
fn s68_a_node_withdraws_alone_and_the_next_is_the_first() {
    let lab = Lab::new(2);
    let node = lab.node(2);
    let bad = lab.mount(&lab.node(1));
    let jid = bad.jid();
    assert_eq!((bad.cluster.withdraw(), bad.cluster.withdraw()), (Parting::Alone, Parting::Alone));
    let next = lab.mount(&node);
    assert_eq!((next.cluster.mounter(), lab.disk.replays(jid)), (Mounter::First, 1));
}

#[test]
fn a_journal_stays_ours_while_a_write_is_under_way() {
    let lab = Lab::new(2);
    let mut members = lab.members();
    let bad = members.remove(0);
    lab.disk.writing.store(true, Ordering::SeqCst);
    assert_eq!(bad.cluster.withdraw(), Parting::Unreplayed);
    bad.cluster.leave();
    assert!(lab.disk.is_dirty(bad.jid()) && lab.disk.replays(bad.jid()) == 0, "replayed under a write");
    lab.disk.writing.store(false, Ordering::SeqCst);
    assert_eq!(bad.cluster.withdraw(), Parting::Replayed);
    assert_eq!(lab.disk.replays(bad.jid()), 1);
}

#[test]
fn a_wait_is_given_up() {
    let lab = Lab::new(3);
    // Alone of three: no majority.
    let node = lab.node(1);
    let options = JoinOptions::default();
    let stop = Arc::clone(&options.stop);
    std::thread::scope(|scope| {
        let joins = scope.spawn(|| Cluster::join(&node, "fs0", &options).map(|_| ()));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!joins.is_finished());
        stop.store(true, Ordering::SeqCst);
        assert!(matches!(joins.join().expect("no panic"), Err(JoinError::Interrupted)));
    });
    let node = Arc::into_inner(node).expect("nobody else has it");
    lab.runtime.block_on(node.shutdown());
}

#[test]
fn any_node_freezes_all() {
    let lab = Lab::new(3);
    let members = lab.members();
    for member in &members {
        member.cluster.freeze().expect("frozen");
        assert_eq!(lab.disk.frozen.load(Ordering::SeqCst), 3);
        for other in members.iter().filter(|m| m.jid() != member.jid()) {
            assert!(matches!(other.cluster.freeze(), Err(Error::Busy)));
            assert!(matches!(other.cluster.thaw(), Err(Error::Invalid)));
        }
        member.cluster.thaw().expect("thawed");
        until("all have thawed", || lab.disk.frozen.load(Ordering::SeqCst) == 0);
    }
    // Who freezes and dies: the others thaw.
    let mut members = members;
    members[0].cluster.freeze().expect("frozen");
    members.remove(0).crash();
    until("the others have thawed", || members.iter().all(|m| !m.volume.frozen.load(Ordering::SeqCst)));
    // And one leaves while it is frozen by another.
    members[0].cluster.freeze().expect("frozen");
    members.remove(1).unmount();
    members[0].cluster.thaw().expect("thawed");
}

#[test]
fn two_that_freeze_at_once_do_not_wait_for_one_another() {
    let lab = Lab::new(2);
    let members = lab.members();
    for _ in 0..5 {
        let frozen = std::thread::scope(|scope| {
            let freezes: Vec<_> = members
                .iter()
                .map(|m| {
                    scope.spawn(|| {
                        let frozen = m.cluster.freeze().is_ok();
                        if frozen {
                            m.cluster.thaw().expect("thawed");
                        }
                        frozen
                    })
                })
                .collect();
            freezes.into_iter().map(|f| f.join().expect("no panic")).filter(|f| *f).count()
        });
        assert!(frozen >= 1, "neither could freeze");
        until("all have thawed", || lab.disk.frozen.load(Ordering::SeqCst) == 0);
    }
    members.into_iter().for_each(|m| drop(m.unmount()));
}
