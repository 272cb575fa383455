//! Scenarios 35 to 53: members die, leave, join, in every state.

use super::{Cluster, NONE};
use crate::engine::{Event, Mutation};
use crate::flags::{LockFlags as F, StatusFlags};
use crate::ids::NodeId;
use crate::mode::Mode::{self, *};
use crate::sim::shadow::number_in;
use crate::sim::{Schedule, run_schedule};
use crate::status::Status::*;

#[test]
fn s35_a_holder_dies() {
    for (held, flags) in Mode::ALL.iter().flat_map(|m| [NONE, F::VALBLK].map(|f| (*m, f))) {
        let mut c = Cluster::new(3);
        let (name, _) = c.mastered(3, 1, 35);
        let writer = c.held(1, &name, Ex, F::VALBLK);
        c.convert(writer, Nl, F::VALBLK);
        c.held(2, &name, held, flags);
        let waiting = c.lock(3, &name, Ex, F::VALBLK);
        c.settle();
        assert_eq!(c.waits(waiting), held > Nl);
        c.crash(2);
        c.settle();
        assert_eq!(c.mode(waiting), Some(Ex));
        let doubtful = held >= Pw && flags == F::VALBLK;
        assert_eq!(c.last(waiting).flags.contains(StatusFlags::VALNOTVALID), doubtful, "{held:?} {flags:?}");
        c.finish();
    }
}

#[test]
fn s36_the_master_dies() {
    // Directory: another node; the holder itself; the dead master too.
    for dir in [4, 2, 1] {
        let mut c = Cluster::new(4);
        let (name, _) = c.mastered(dir, 1, 36);
        let (a, b) = (c.held(2, &name, Pr, NONE), c.held(3, &name, Pr, NONE));
        let converting = c.held(2, &name, Nl, NONE);
        c.convert(converting, Ex, F::QUECVT);
        let waiting = c.lock(3, &name, Ex, NONE);
        c.settle();
        c.crash(1);
        c.settle();
        let outcome = c.world.check_quiet();
        c.must(outcome);
        assert_eq!((c.mode(a), c.mode(b)), (Some(Pr), Some(Pr)));
        assert!(c.waits(converting) && c.waits(waiting));
        c.unlock(a, NONE);
        c.unlock(b, NONE);
        c.settle();
        assert_eq!(c.mode(converting), Some(Ex));
        c.finish();
    }
}

#[test]
fn s37_the_master_dies_with_something_outstanding() {
    // What is outstanding at node 2; whether the master has seen it before it dies, and whether the answer arrives.
    for (case, seen) in (0..6).flat_map(|case| [0, 1, 2].map(|seen| (case, seen))) {
        let mut c = Cluster::new(3);
        let (name, _) = c.mastered(3, 1, 37);
        let other = c.held(3, &name, Cr, NONE);
        let lock = c.held(2, &name, [Nl, Nl, Ex, Pr, Nl, Cr][case].min(Cr), NONE);
        let subject = match case {
            0 => c.lock(2, &name, Cw, NONE),
            1 => {
                c.convert(lock, Pw, NONE);
                lock
            }
            2 => {
                c.convert(lock, Nl, NONE);
                lock
            }
            3 => {
                c.unlock(lock, NONE);
                lock
            }
            4 => {
                c.convert(lock, Ex, NONE);
                c.settle();
                c.cancel(lock);
                lock
            }
            _ => {
                c.convert(lock, Ex, NONE);
                c.unlock(lock, F::FORCEUNLOCK);
                lock
            }
        };
        if seen > 0 {
            while c.must(c.world.clone().deliver(NodeId(2), NodeId(1))) {
                c.deliver(2, 1);
            }
        }
        c.world.crash(NodeId(1), |n| if seen == 2 { n } else { 0 });
        c.settle();
        let outcome = c.world.check_quiet();
        c.must(outcome);
        assert!(c.dead(subject) || (!c.waits(subject) && !c.world.shadows[&subject].unlock), "case {case} seen {seen}");
        assert_eq!(c.mode(other), Some(Cr));
        c.finish();
    }
}

#[test]
fn s38_a_middle_conversion_is_left_undecided() {
    for third in [None, Some(Pr), Some(Cw)] {
        let mut c = Cluster::new(4);
        let (name, _) = c.mastered(3, 1, 38);
        let lock = c.held(2, &name, Pr, NONE);
        if third == Some(Pr) {
            c.held(4, &name, Pr, NONE);
        }
        c.convert(lock, Cw, NONE);
        if third == Some(Cw) {
            // The master grants the conversion and then another CW; only that one hears of it.
            c.deliver(2, 1);
            let other = c.lock(4, &name, Cw, NONE);
            c.deliver(4, 3);
            c.deliver(3, 4);
            c.deliver(4, 1);
            c.deliver(1, 4);
            assert_eq!(c.mode(other), Some(Cw));
        }
        c.world.crash(NodeId(1), |_| 0);
        c.settle();
        assert_eq!(c.waits(lock), third == Some(Pr), "{third:?}");
        c.finish();
    }
}

#[test]
fn s39_the_value_of_a_dead_master() {
    // A holder above CR knows the value for certain; with NL holders alone the newest bytes come with a warning.
    for certain in [true, false] {
        let mut c = Cluster::new(4);
        let (name, _) = c.mastered(4, 1, 39);
        let old = c.held(3, &name, Nl, F::VALBLK);
        let writer = c.held(2, &name, Ex, F::VALBLK);
        c.convert(writer, Nl, F::VALBLK);
        c.settle();
        let written = c.world.values[name.as_bytes()].last;
        c.convert(writer, Pr, F::VALBLK);
        c.settle();
        if !certain {
            c.convert(writer, Nl, F::VALBLK);
        }
        c.settle();
        c.crash(1);
        c.settle();
        let reader = c.held(4, &name, Cr, F::VALBLK);
        let outcome = c.last(reader);
        assert_eq!(outcome.lvb.map(|lvb| number_in(&lvb)), Some(written));
        assert_eq!(outcome.flags.contains(StatusFlags::VALNOTVALID), !certain);
        c.unlock(old, NONE);
        c.finish();
    }
}

#[test]
fn s40_the_directory_dies() {
    let mut c = Cluster::new(3);
    let (name, _) = c.mastered(3, 1, 40);
    let looking_up = c.lock(2, &name, Pr, NONE);
    c.crash(3);
    let during = c.lock(2, &name, Pr, NONE);
    c.settle();
    assert_eq!((c.mode(looking_up), c.mode(during)), (Some(Pr), Some(Pr)));
    c.finish();
}

/// Nodes with locks in every state on several resources.
pub(super) fn busy_cluster() -> Cluster {
    let mut c = Cluster::new(4);
    for dir in 1..=4 {
        let (name, _) = c.mastered(dir, dir % 4 + 1, 41);
        let first = c.held(1, &name, Pr, F::VALBLK);
        c.held(3, &name, Cr, F::VALBLK);
        let second = c.held(4, &name, Nl, NONE);
        c.convert(second, Ex, F::QUECVT);
        c.lock(2, &name, Pw, NONE);
        c.lock(3, &name, Ex, NONE);
        c.settle();
        c.convert(first, Pr, NONE);
    }
    c
}

/// One event in the order of `settle`; false when there is nothing left to do.
pub(super) fn one_event(c: &mut Cluster) -> bool {
    let running = c.world.nodes.values().all(|node| node.engine.is_running());
    let outcome = if let Some((from, to)) = c.world.deliverable().first().copied() {
        c.world.deliver(from, to)
    } else if let Some(action) = c.world.group.actions(&c.world.nodes).first().copied() {
        c.world.change(action).map(|()| true)
    } else if running {
        Ok(false)
    } else {
        c.world.advance()
    };
    c.must(outcome)
}

#[test]
fn s41_another_member_dies_at_every_step_of_recovery() {
    // Node 2 dies; node `second` dies after every possible number of events.
    for second in [1, 3] {
        for after in 0.. {
            let mut c = busy_cluster();
            c.crash(2);
            if !(0..after).all(|_| one_event(&mut c)) {
                assert!(after > 60, "recovery took only {after} events");
                break;
            }
            c.crash(second);
            c.settle();
            c.finish();
        }
    }
}

#[test]
fn s41_a_third_one_too() {
    for after in (0..200).step_by(7) {
        let mut c = busy_cluster();
        c.crash(2);
        (0..after).for_each(|_| {
            one_event(&mut c);
        });
        c.crash(1);
        (0..after / 2).for_each(|_| {
            one_event(&mut c);
        });
        c.crash(4);
        c.finish();
    }
}

#[test]
fn s42_a_member_joins_while_another_is_removed() {
    for after in (0..150).step_by(5) {
        let mut c = busy_cluster();
        c.crash(2);
        (0..after).for_each(|_| {
            one_event(&mut c);
        });
        c.join(5);
        c.settle();
        assert_eq!(c.world.nodes[&NodeId(1)].failed_slots.len(), 1);
        c.finish();
    }
}

#[test]
fn s42_a_member_dies_while_the_lowest_asks_for_the_slots() {
    // Wherever the recovery before it was given up: the death is reported once, by everyone who knew it, with its slot.
    for after in 0..150 {
        let mut c = busy_cluster();
        c.join(5);
        (0..after).for_each(|_| {
            one_event(&mut c);
        });
        c.crash(3);
        c.settle();
        for node in [1, 2, 4] {
            let failed = &c.world.nodes[&NodeId(node)].failed_slots;
            assert_eq!(failed.iter().filter(|s| s.node == NodeId(3) && s.slot == 3).count(), 1, "{node}: {after}");
        }
        c.finish();
    }
}

#[test]
fn s43_s44_leaving_and_coming_back() {
    // A crash is reported once with its slot; a departure is not, though the locks go all the same.
    for crashes in [true, false] {
        let mut c = Cluster::new(3);
        let (name, _) = c.mastered(3, 1, 43);
        c.held(2, &name, Ex, F::VALBLK);
        let waiting = c.lock(3, &name, Pr, F::VALBLK);
        if crashes {
            c.crash(2);
        } else {
            c.world.leave(NodeId(2));
        }
        // It is back before anyone has started without it.
        c.join(2);
        c.settle();
        assert_eq!(c.mode(waiting), Some(Pr));
        // A join in the same cluster life would keep the incarnation; the simulator gives a new one at every join.
        assert_eq!(c.world.nodes[&NodeId(1)].failed_slots.len(), 1);
        c.finish();
    }
}

#[test]
fn s44_an_orderly_departure_is_no_failure() {
    let mut c = Cluster::new(3);
    let (name, _) = c.mastered(3, 1, 44);
    c.held(2, &name, Ex, F::VALBLK);
    c.world.leave(NodeId(2));
    c.settle();
    assert!(c.world.nodes.values().all(|node| node.failed_slots.is_empty() && node.prepared > 0));
    assert_eq!(c.mode_after_leave(&name), Some(Ex));
    c.finish();
}

impl Cluster {
    fn mode_after_leave(&mut self, name: &str) -> Option<Mode> {
        let token = self.held(3, name, Ex, NONE);
        self.mode(token)
    }
}

#[test]
fn s45_the_lowest_member_dies_in_a_barrier() {
    for after in 0..160 {
        let mut c = busy_cluster();
        c.crash(3);
        (0..after).for_each(|_| {
            one_event(&mut c);
        });
        c.crash(1);
        c.finish();
    }
}

#[test]
fn s47_messages_that_arrive_while_stopped_wait() {
    let mut c = Cluster::new(3);
    let (name, keeper) = c.mastered(3, 1, 47);
    let lock = c.lock(2, &name, Pr, NONE);
    c.deliver(2, 3);
    c.deliver(3, 2);
    c.deliver(2, 1);
    // The answer is under way; node 2 stops for a change before it arrives.
    c.join(4);
    c.world.seen_everywhere();
    c.deliver(1, 2);
    assert!(c.waits(lock));
    let queued = c.lock(2, &name, Pr, NONE);
    assert!(c.statuses(queued).is_empty());
    c.settle();
    assert_eq!((c.mode(lock), c.mode(queued), c.mode(keeper)), (Some(Pr), Some(Pr), Some(Nl)));
    c.finish();
}

impl crate::sim::World {
    /// Everyone stops for the latest change.
    pub(super) fn seen_everywhere(&mut self) {
        use crate::membership::sim::Change;
        for action in self.group.actions(&self.nodes) {
            if let Change::Stop(_) = action {
                self.change(action).unwrap_or_else(|why| panic!("{why}"));
            }
        }
    }
}

#[test]
fn s48_names_fill_blocks_exactly() {
    let mut c = Cluster::new(2);
    for i in 0..400 {
        c.lock(1, &format!("{i:064}"), Nl, NONE);
        c.lock(1, &format!("{}", char::from(b'0' + (i % 70) as u8)), Nl, NONE);
        c.lock(1, &format!("{:1$}", i, 10 + i % 31), Nl, NONE);
    }
    c.settle();
    c.join(3);
    c.settle();
    let outcome = c.world.check_quiet();
    c.must(outcome);
    c.finish();
}

#[test]
fn s48_late_and_stale_answers_are_dropped() {
    let mut c = Cluster::new(2);
    c.join(3);
    c.world.stalled.extend([(NodeId(2), NodeId(1)), (NodeId(2), NodeId(3))]);
    // Node 1 asks node 2 and asks again after five seconds; both answers arrive.
    for _ in 0..30 {
        one_event(&mut c);
    }
    c.world.now += 5_001;
    for id in [1, 3] {
        let outcome = c.world.feed(NodeId(id), Event::Tick);
        c.must(outcome);
    }
    c.world.stalled.clear();
    c.settle();
    let dropped: u64 = [1, 3].map(|id| c.ignored(id, "recovery answer that nobody awaits")).iter().sum();
    assert!(dropped >= 1);
    c.finish();
}

#[test]
fn s49_slots_are_the_lowest_free() {
    let mut c = Cluster::new(1);
    for id in [4, 2, 3] {
        c.join(id);
    }
    c.settle();
    let slots = |c: &Cluster, id: u32| {
        let (_, _, slots) = c.world.nodes[&NodeId(id)].recovered.last().expect("recovered").clone();
        slots.iter().map(|s| (s.node.0, s.slot)).collect::<Vec<_>>()
    };
    assert_eq!(slots(&c, 1), [(1, 1), (2, 2), (3, 3), (4, 4)]);
    c.crash(2);
    c.settle();
    assert_eq!(slots(&c, 4), [(1, 1), (3, 3), (4, 4)]);
    c.join(7);
    c.settle();
    assert_eq!(slots(&c, 3), [(1, 1), (3, 3), (4, 4), (7, 2)]);
    c.finish();
}

#[test]
fn s50_a_joiner_may_take_its_time() {
    let mut c = Cluster::new(2);
    let lock = c.held(1, "r", Pr, NONE);
    c.join(3);
    c.world.seen_everywhere();
    for id in [1, 2] {
        let change = crate::membership::sim::Change::Start(NodeId(id));
        let outcome = c.world.change(change);
        c.must(outcome);
    }
    // Minutes of polling a member that has not started.
    for _ in 0..2000 {
        if let Some((from, to)) = c.world.deliverable().first().copied() {
            c.deliver(from.0, to.0);
        } else {
            let outcome = c.world.advance();
            c.must(outcome);
        }
    }
    assert!(c.world.now > 60_000 && !c.world.nodes[&NodeId(1)].engine.is_running());
    c.settle();
    assert_eq!(c.mode(lock), Some(Pr));
    c.finish();
}

#[test]
fn s51_members_must_be_configured_alike() {
    for case in 0..2 {
        let mut c = Cluster::new(1);
        let outcome = c.world.join(NodeId(2), |config| match case {
            0 => config.lvb_length = 16,
            _ => config.lockspace_flags = 1,
        });
        c.must(outcome);
        c.settle();
        assert!(c.world.nodes[&NodeId(2)].recovery_failed);
    }
}

#[test]
fn s52_conversions_rebuilt_in_another_order_do_not_deadlock() {
    let mut c = Cluster::new(4);
    let (name, _) = c.mastered(4, 1, 52);
    let weak = c.held(2, &name, Nl, NONE);
    let strong = c.held(3, &name, Pr, NONE);
    let blocker = c.held(4, &name, Pr, NONE);
    c.convert(strong, Ex, F::QUECVT);
    c.settle();
    // This one comes later, and would block the other for ever if it came first.
    c.convert(weak, Ex, F::QUECVT);
    c.settle();
    assert!(c.waits(weak) && c.waits(strong));
    c.crash(1);
    c.settle();
    assert!(c.waits(weak) && c.waits(strong));
    c.unlock(blocker, NONE);
    c.settle();
    assert_eq!((c.mode(strong), c.waits(weak)), (Some(Ex), true));
    c.finish();
}

#[test]
fn s53_a_purge_grants_and_tells_once() {
    let mut c = Cluster::new(3);
    let (name, _) = c.mastered(3, 1, 53);
    let converting = c.held(1, &name, Nl, NONE);
    c.held(2, &name, Pr, NONE);
    c.convert(converting, Ex, NONE);
    let waiting = c.lock(3, &name, Ex, NONE);
    c.settle();
    c.crash(2);
    c.settle();
    assert_eq!((c.statuses(converting), c.notices(converting)), (vec![Granted, Granted], vec![Ex]));
    assert!(c.waits(waiting));
    c.finish();
}

/// The checks are worth something only if they see what is broken: each of these rules, broken on purpose, is
/// noticed by one of the first schedules.
#[test]
fn broken_rules_are_noticed() {
    for (mutation, seeds) in
        [(Mutation::IgnoreConverting, 200), (Mutation::LoseNotice, 200), (Mutation::ForgetPurge, 200)]
    {
        let caught = (1..=seeds).find_map(|seed| {
            let outcome = run_schedule(seed, &Schedule::default(), |world| world.mutation = Some(mutation));
            outcome.err().map(|why| (seed, why))
        });
        let (seed, why) = caught.unwrap_or_else(|| panic!("{mutation:?} goes unnoticed"));
        println!(
            "{mutation:?}: seed {seed}: {}",
            why.lines().next().unwrap_or_default().chars().take(140).collect::<String>()
        );
    }
}
