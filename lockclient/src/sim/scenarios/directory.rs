//! Scenarios 15 to 23: who becomes the master, who knows it, who forgets it.

use super::{Cluster, NONE};
use crate::engine::resource::Master;
use crate::flags::LockFlags as F;
use crate::ids::{NodeId, name_hash};
use crate::mode::Mode::*;
use crate::status::Status;

impl Cluster {
    fn master_at(&self, node: u32, name: &str) -> Option<Master> {
        let engine = &self.world.nodes[&NodeId(node)].engine;
        engine.resources.find(name.as_bytes(), name_hash(name.as_bytes())).map(|key| engine.resources[key].master)
    }

    /// Lets idle records grow old everywhere, and the removals arrive.
    fn forget(&mut self) {
        for _ in 0..5 {
            self.world.now += 11_000;
            let outcome = self.world.advance();
            self.must(outcome);
            self.settle();
        }
    }
}

#[test]
fn s15_the_first_to_lock_becomes_the_master() {
    let mut c = Cluster::new(3);
    let name = c.name_directed_by(3, 1);
    c.held(1, &name, Pr, NONE);
    assert_eq!((c.master_at(1, &name), c.master_at(3, &name)), (Some(Master::Me), Some(Master::Node(NodeId(1)))));
    c.held(2, &name, Pr, NONE);
    assert_eq!(c.master_at(2, &name), Some(Master::Node(NodeId(1))));
    // The directory's own lock needs no message.
    let own = c.name_directed_by(2, 2);
    c.lock(2, &own, Ex, NONE);
    assert!(c.world.deliverable().is_empty());
    // The directory is the master: one round trip.
    let asked = c.lock(1, &own, Ex, F::NOQUEUE);
    c.deliver(1, 2);
    c.deliver(2, 1);
    assert_eq!(c.statuses(asked), [Status::Again]);
    c.finish();
}

#[test]
fn s16_two_look_up_at_once() {
    for first in [1, 2] {
        let mut c = Cluster::new(3);
        let name = c.name_directed_by(3, 1);
        let locks = [c.lock(1, &name, Ex, NONE), c.lock(2, &name, Ex, NONE)];
        c.deliver(first, 3);
        c.deliver(3 - first, 3);
        c.settle();
        assert_eq!(c.master_at(first, &name), Some(Master::Me));
        assert_eq!(locks.map(|token| c.mode(token).is_some()), [first == 1, first == 2]);
        c.finish();
    }
}

#[test]
fn s17_others_are_parked_while_one_looks_up() {
    // The first is granted; the first fails; the first is cancelled.
    for case in 0..3 {
        let mut c = Cluster::new(3);
        let (name, _) = c.mastered(3, 2, 17);
        let blocker = c.held(2, &name, Pr, NONE);
        let flags = if case == 1 { F::NOQUEUE } else { NONE };
        let first = c.lock(1, &name, if case == 1 { Ex } else { Pr }, flags);
        let parked = [c.lock(1, &name, Pr, NONE), c.lock(1, &name, Cr, NONE), c.lock(1, &name, Nl, NONE)];
        if case == 2 {
            c.cancel(first);
            c.cancel(parked[1]);
            assert_eq!(c.statuses(parked[1]), [Status::Cancelled]);
        }
        c.settle();
        let expected = [Status::Granted, Status::Again, Status::Cancelled][case];
        assert_eq!(c.statuses(first), [expected]);
        assert_eq!((c.mode(parked[0]), c.mode(parked[2])), (Some(Pr), Some(Nl)));
        c.unlock(blocker, NONE);
        c.finish();
    }
}

#[test]
fn s18_removal_crosses_a_request_of_the_directory() {
    let mut c = Cluster::new(2);
    let (name, keeper) = c.mastered(2, 1, 18);
    c.unlock(keeper, NONE);
    c.world.now += 11_000;
    let outcome = c.world.advance();
    c.must(outcome);
    // REMOVE is under way; the directory asks the master it knows.
    let lock = c.lock(2, &name, Ex, NONE);
    c.settle();
    assert_eq!((c.mode(lock), c.master_at(1, &name)), (Some(Ex), Some(Master::Me)));
    assert_eq!(c.ignored(2, "removal of a resource in use"), 1);
    c.finish();
}

#[test]
fn s19_removal_before_a_lookup_of_the_same_node() {
    let mut c = Cluster::new(2);
    let (name, keeper) = c.mastered(2, 1, 19);
    c.unlock(keeper, NONE);
    c.world.now += 11_000;
    let outcome = c.world.advance();
    c.must(outcome);
    let lock = c.lock(1, &name, Ex, NONE);
    c.settle();
    assert_eq!((c.mode(lock), c.master_at(2, &name)), (Some(Ex), Some(Master::Node(NodeId(1)))));
    c.finish();
}

#[test]
#[should_panic(expected = "I12")]
fn s19_a_stream_that_reorders_is_noticed() {
    let mut c = Cluster::new(2);
    let (name, keeper) = c.mastered(2, 1, 19);
    c.unlock(keeper, NONE);
    c.world.now += 11_000;
    let outcome = c.world.advance();
    c.must(outcome);
    c.lock(1, &name, Ex, NONE);
    let stream = c.world.streams.get_mut(&(NodeId(1), NodeId(2))).expect("frames");
    stream.make_contiguous().reverse();
    c.settle();
    let outcome = c.world.check_quiet();
    c.must(outcome);
}

#[test]
fn s20_stale_idle_record_is_healed() {
    let mut c = Cluster::new(3);
    let (name, keeper) = c.mastered(3, 1, 20);
    let used = c.held(2, &name, Pr, NONE);
    c.unlock(used, NONE);
    c.unlock(keeper, NONE);
    c.settle();
    // Only node 1 forgets; node 2 keeps its idle record a little longer.
    c.world.nodes.get_mut(&NodeId(2)).expect("node").engine.config.toss_ms = u64::MAX;
    c.forget();
    assert_eq!((c.master_at(1, &name), c.master_at(2, &name)), (None, Some(Master::Node(NodeId(1)))));
    let lock = c.held(2, &name, Ex, NONE);
    assert_eq!(c.master_at(2, &name), Some(Master::Me));
    c.unlock(lock, NONE);
    c.world.nodes.get_mut(&NodeId(2)).expect("node").engine.config.toss_ms = 10_000;
    c.finish();
}

/// Found by a random schedule: of two requests on their way the stale master refused the first, and accepted the second as
/// the new master. The first made us forget who that is, so its notice (or grant) for the second was dropped.
#[test]
fn s20_refused_and_accepted_by_the_same_node() {
    for waits in [false, true] {
        let mut c = Cluster::new(3);
        let (name, keeper) = c.mastered(1, 2, 20);
        let used = c.held(3, &name, Nl, NONE);
        c.unlock(keeper, NONE);
        c.settle();
        c.world.stalled.insert((NodeId(2), NodeId(3)));
        // Our last lock is given up, but its answer is late: the record does not become idle here, as it does there.
        c.unlock(used, NONE);
        c.deliver(3, 2);
        c.forget();
        let first = c.lock(3, &name, Nl, NONE);
        c.deliver(3, 2);
        let again = c.lock(2, &name, if waits { Ex } else { Nl }, NONE);
        while c.mode(again).is_none() {
            let (from, to) = *c.world.deliverable().first().expect("something is under way");
            c.deliver(from.0, to.0);
        }
        let second = c.lock(3, &name, Pw, NONE);
        c.deliver(3, 2);
        if waits {
            c.unlock(again, NONE);
        } else {
            c.convert(again, Ex, NONE);
        }
        // All four answers arrive, before anything else does.
        c.world.stalled.clear();
        while c.world.deliverable().contains(&(NodeId(2), NodeId(3))) {
            c.deliver(2, 3);
        }
        assert_eq!(c.mode(second), Some(Pw));
        assert_eq!(c.notices(second), if waits { vec![] } else { vec![Ex] });
        c.unlock(second, NONE);
        c.settle();
        assert_eq!(c.mode(first), Some(Nl));
        c.finish();
    }
}

#[test]
fn s21_request_before_the_master_knows_that_it_is() {
    let mut c = Cluster::new(3);
    let name = c.name_directed_by(3, 21);
    let first = c.lock(1, &name, Cr, NONE);
    c.deliver(1, 3);
    // The directory's answer to node 1 is late; node 2 is sent there all the same.
    c.world.stalled.insert((NodeId(3), NodeId(1)));
    let second = c.lock(2, &name, Cr, NONE);
    for _ in 0..40 {
        for (from, to) in c.world.deliverable() {
            c.deliver(from.0, to.0);
        }
        c.world.now += 5;
        let outcome = c.world.feed(NodeId(2), crate::engine::Event::Tick);
        c.must(outcome);
    }
    assert!(c.waits(second));
    c.world.stalled.clear();
    c.settle();
    assert_eq!((c.mode(first), c.mode(second)), (Some(Cr), Some(Cr)));
    c.finish();
}

#[test]
fn s22_the_directorys_request_overtakes_its_answer() {
    // A kernel directory produces the two in different threads.
    let mut c = Cluster::new(2);
    let name = c.name_directed_by(2, 22);
    let first = c.lock(1, &name, Cr, NONE);
    c.deliver(1, 2);
    let second = c.lock(2, &name, Cr, NONE);
    c.world.streams.get_mut(&(NodeId(2), NodeId(1))).expect("frames").make_contiguous().reverse();
    c.settle();
    assert_eq!((c.mode(first), c.mode(second)), (Some(Cr), Some(Cr)));
    assert_eq!(c.master_at(1, &name), Some(Master::Me));
    c.finish();
}

#[test]
fn s23_idle_records_go_at_their_time() {
    let mut c = Cluster::new(1);
    let lock = c.held(1, "r", Ex, NONE);
    let start = c.world.now;
    c.unlock(lock, NONE);
    for (after, left) in [(5_000, 1), (9_999, 1), (10_000, 0)] {
        c.world.now = start + after;
        let outcome = c.world.feed(NodeId(1), crate::engine::Event::Tick);
        c.must(outcome);
        assert_eq!(c.world.nodes[&NodeId(1)].engine.sizes().1, left, "after {after} ms");
    }
}
