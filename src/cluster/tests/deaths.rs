//! Nodes die; the others go on.

use super::glocks::name;
use super::*;
use std::thread::ScopedJoinHandle;

/// Held back, on all these nodes together.
fn held_back(members: &[Member]) -> usize {
    members.iter().map(|m| m.cluster.core().dlm.held_back()).sum()
}

#[test]
fn s69_nobody_sees_what_lies_under_a_dead_nodes_lock_before_the_replay() {
    let lab = Lab::new(3);
    let mut members = lab.members();
    let tables: Vec<_> = members.iter().map(|m| m.table(10)).collect();
    let [dead, a, b] = &tables[..] else { panic!("three") };
    // In use until the end, so that they are not given up before.
    let held = [1, 2].map(|number| dead.get(name(number)).exclusive().expect("granted"));
    lab.disk.stuck.store(true, Ordering::SeqCst);
    let victim = members.remove(0);
    let jid = victim.jid();
    std::thread::scope(|scope| {
        let wanted: Vec<ScopedJoinHandle<'_, ()>> = [a, b]
            .into_iter()
            .map(|table| scope.spawn(|| drop(table.get(name(1)).exclusive().expect("granted"))))
            .collect();
        let exempt = scope.spawn(|| {
            let manager = members[0].cluster.manager();
            manager.serves_recovery(name(2));
            drop(a.get(name(2)).shared().expect("granted"));
        });
        victim.crash();
        drop(held);
        exempt.join().expect("granted although the journal is not replayed");
        until("a grant is held back", || held_back(&members) > 0);
        std::thread::sleep(Duration::from_millis(100));
        assert!(wanted.iter().all(|w| !w.is_finished()) && lab.disk.is_dirty(jid));
        lab.disk.stuck.store(false, Ordering::SeqCst);
        wanted.into_iter().for_each(|w| w.join().expect("granted"));
    });
    assert_eq!(lab.disk.replays(jid), 1);
    // It comes back, as another.
    let again = lab.mount(&lab.node(1));
    assert_eq!((again.cluster.mounter(), again.jid()), (Mounter::Joining, jid));
    drop(again.table(1).get(name(1)).exclusive().expect("granted"));
}

#[test]
fn s67_two_die_one_after_the_other_and_a_replay_fails() {
    let lab = Lab::new(5);
    let mut members = lab.members();
    let dead: Vec<Member> = members.drain(..2).collect();
    let jids: Vec<u32> = dead.iter().map(Member::jid).collect();
    for victim in &dead {
        drop(victim.table(10).get(name(u64::from(victim.jid()) + 1)).exclusive().expect("granted"));
    }
    lab.disk.broken.store(true, Ordering::SeqCst);
    for victim in dead {
        victim.crash();
        std::thread::sleep(Duration::from_millis(300));
    }
    let tables: Vec<_> = members.iter().map(|m| m.table(10)).collect();
    std::thread::scope(|scope| {
        let (members, jids) = (&members, &jids);
        let wanted: Vec<_> = tables
            .iter()
            .map(|table| {
                scope.spawn(move || {
                    jids.iter()
                        .for_each(|jid| drop(table.get(name(u64::from(*jid) + 1)).exclusive().expect("granted")));
                })
            })
            .collect();
        until("grants are held back", || held_back(members) > 0);
        std::thread::sleep(Duration::from_millis(1500));
        assert!(wanted.iter().all(|w| !w.is_finished()));
        lab.disk.broken.store(false, Ordering::SeqCst);
        wanted.into_iter().for_each(|w| w.join().expect("granted"));
    });
    jids.iter().for_each(|jid| assert_eq!(lab.disk.replays(*jid), 1, "journal {jid}"));
    members.into_iter().for_each(|m| drop(m.unmount()));
}

#[test]
fn s68_a_node_unmounts_while_it_replays() {
    let lab = Lab::new(3);
    let mut members = lab.members();
    lab.disk.stuck.store(true, Ordering::SeqCst);
    let victim = members.remove(0);
    let jid = victim.jid();
    victim.crash();
    let [a, b] = <[Member; 2]>::try_from(members).ok().expect("two");
    std::thread::sleep(Duration::from_millis(4500));
    std::thread::scope(|scope| {
        // One of them replays, the other finds the journal in use.
        let left = scope.spawn(|| a.unmount());
        std::thread::sleep(Duration::from_millis(300));
        lab.disk.stuck.store(false, Ordering::SeqCst);
        left.join().expect("left");
    });
    drop(b.table(1).get(name(1)).exclusive().expect("granted"));
    assert_eq!(lab.disk.replays(jid), 1);
    b.unmount();
}
