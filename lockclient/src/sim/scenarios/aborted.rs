//! Scenario 46: rounds of recovery that are abandoned after locks were sent to their new masters.

use super::Cluster;
use super::recovery::{busy_cluster, one_event};
use crate::frame::{Frame, RcomBody};
use crate::ids::{Name, NodeId};
use crate::sim::Rng;
use crate::status::result;
use std::collections::BTreeMap;

/// How often a new master answered a lock sent to it with these results; one node's frames are delivered as they come.
fn answers(world: &crate::sim::World, counts: &mut BTreeMap<i32, usize>) {
    for line in world.log.iter().filter(|line| line.contains("-> ") && line.contains(": LockReply(")) {
        for wanted in [result::OK, result::EEXIST, result::EBADR] {
            if line.contains(&format!("result: {wanted},")) {
                *counts.entry(wanted).or_default() += 1;
            }
        }
    }
}

/// One event; which stream is read next is left to chance.
fn any_event(c: &mut Cluster, random: &mut Rng) {
    let streams = c.world.deliverable();
    if streams.is_empty() || random.below(4) == 0 {
        one_event(c);
    } else {
        let (from, to) = streams[random.below(streams.len())];
        let outcome = c.world.deliver(from, to);
        c.must(outcome);
    }
}

/// Node 2 dies, and three more changes come while that is being recovered from. The locks that have been sent already are
/// sent again (EEXIST: the master has them), and all of it ends well.
#[test]
fn s46_rounds_abandoned_after_locks_were_sent() {
    let mut counts = BTreeMap::new();
    for seed in 0..1000 {
        let mut random = Rng::new(seed);
        let mut c = busy_cluster();
        c.world.log.clear();
        c.crash(2);
        for change in [0, 1, 2, 3] {
            (0..random.below(120)).for_each(|_| any_event(&mut c, &mut random));
            match (change + random.below(2)) % 4 {
                0 if !c.world.nodes.contains_key(&NodeId(5)) => c.join(5),
                1 => c.world.leave(NodeId(4)),
                2 if !c.world.nodes.contains_key(&NodeId(2)) => c.join(2),
                _ => c.crash(3),
            }
        }
        c.settle();
        answers(&c.world, &mut counts);
        c.finish();
    }
    for seen in [result::OK, result::EEXIST] {
        assert!(counts.get(&seen).is_some_and(|count| *count > 0), "no lock was answered with {seen}: {counts:?}");
    }
}

/// A lock reaches a node that does not know the resource (among nodes of ours none does; the frame is changed under
/// way): it says EBADR, and the lock is sent again.
#[test]
fn s46_a_lock_that_comes_too_early_is_sent_again() {
    let mut c = busy_cluster();
    c.world.log.clear();
    c.crash(2);
    let mut changed = 0;
    for _ in 0..400 {
        let lock = c.world.streams.values_mut().flatten().find_map(|frame| match frame {
            Frame::Rcom(rcom) => match &mut rcom.body {
                RcomBody::Lock(lock) => Some(lock),
                _ => None,
            },
            _ => None,
        });
        if let Some(lock) = lock.filter(|_| changed < 2) {
            lock.name = Name::new(b"not yet").expect("short");
            changed += 1;
        }
        one_event(&mut c);
    }
    assert_eq!(changed, 2);
    c.settle();
    let mut counts = BTreeMap::new();
    answers(&c.world, &mut counts);
    assert!(counts.get(&result::EBADR).is_some_and(|count| *count > 0), "{counts:?}");
    let outcome = c.world.check_quiet();
    c.must(outcome);
    c.finish();
}
