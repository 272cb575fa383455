//! Scenarios 24 to 34: cancels and forced unlocks that cross other messages.

use super::{Cluster, NONE};
use crate::flags::LockFlags as F;
use crate::ids::NodeId;
use crate::mode::Mode::*;
use crate::status::{Refusal, Status::*};

/// A cluster of three: node 1 masters the resource, node 2 is the one that changes its mind.
fn stage() -> (Cluster, String, u64) {
    let mut c = Cluster::new(3);
    let (name, keeper) = c.mastered(3, 1, 24);
    // Node 2 knows the master.
    c.held(2, &name, Nl, NONE);
    (c, name, keeper)
}

#[test]
fn s24_cancel_before_the_answer_to_a_request() {
    // Granted: success wins. Queued: the cancel follows. Failed: the failure stands.
    for (held, flags, expected) in [(Nl, NONE, Granted), (Ex, NONE, Cancelled), (Ex, F::NOQUEUE, Again)] {
        let (mut c, name, keeper) = stage();
        c.convert(keeper, held, NONE);
        let lock = c.lock(2, &name, Ex, flags);
        c.cancel(lock);
        c.settle();
        assert_eq!(c.statuses(lock), [expected]);
        c.finish();
    }
}

#[test]
fn s25_forced_unlock_before_the_answer_to_a_request() {
    for (held, flags, expected) in
        [(Nl, NONE, vec![Granted, Unlocked]), (Ex, NONE, vec![Unlocked]), (Ex, F::NOQUEUE, vec![Again])]
    {
        let (mut c, name, keeper) = stage();
        c.convert(keeper, held, NONE);
        let lock = c.lock(2, &name, Ex, flags);
        c.unlock(lock, F::FORCEUNLOCK);
        c.settle();
        assert_eq!(c.statuses(lock), expected);
        c.finish();
    }
}

#[test]
fn s24_s25_when_the_addressee_is_not_the_master() {
    for flag in [F::CANCEL, F::FORCEUNLOCK] {
        let mut c = Cluster::new(3);
        let (name, keeper) = c.mastered(3, 1, 24);
        let used = c.held(2, &name, Nl, NONE);
        c.unlock(used, NONE);
        c.unlock(keeper, NONE);
        c.settle();
        c.world.nodes.get_mut(&NodeId(2)).expect("node").engine.config.toss_ms = 30_000;
        for _ in 0..3 {
            c.world.now += 11_000;
            let outcome = c.world.feed(NodeId(1), crate::engine::Event::Tick);
            c.must(outcome);
        }
        c.settle();
        let lock = c.lock(2, &name, Ex, NONE);
        c.unlock(lock, flag);
        c.settle();
        assert_eq!(c.statuses(lock), [if flag == F::CANCEL { Cancelled } else { Unlocked }]);
        c.finish();
    }
}

#[test]
fn s26_cancel_while_looking_up_and_while_parked() {
    for flag in [F::CANCEL, F::FORCEUNLOCK] {
        let ended = if flag == F::CANCEL { Cancelled } else { Unlocked };
        let mut c = Cluster::new(3);
        let (name, _) = c.mastered(3, 1, 26);
        let (first, second, third) =
            (c.lock(2, &name, Pr, NONE), c.lock(2, &name, Pr, NONE), c.lock(2, &name, Pr, NONE));
        c.unlock(second, flag);
        assert_eq!(c.statuses(second), [ended]);
        c.unlock(first, flag);
        assert!(c.statuses(first).is_empty());
        c.settle();
        assert_eq!((c.statuses(first), c.statuses(third)), (vec![ended], vec![Granted]));
        c.finish();
    }
}

#[test]
fn s27_cancel_crosses_the_grant() {
    let (mut c, name, keeper) = stage();
    c.convert(keeper, Ex, NONE);
    let lock = c.lock(2, &name, Ex, NONE);
    c.settle();
    // The grant is under way when the cancel is sent.
    c.convert(keeper, Nl, NONE);
    c.cancel(lock);
    c.settle();
    assert_eq!((c.statuses(lock), c.mode(lock)), (vec![Granted], Some(Ex)));
    // The other order: the cancel arrives first.
    c.convert(lock, Nl, NONE);
    c.convert(keeper, Ex, NONE);
    c.settle();
    let other = c.lock(2, &name, Ex, NONE);
    c.settle();
    c.cancel(other);
    c.deliver(2, 1);
    c.convert(keeper, Nl, NONE);
    c.settle();
    assert_eq!((c.statuses(other), c.dead(other)), (vec![Cancelled], true));
    c.finish();
}

#[test]
fn s28_cancel_with_a_conversion_under_way() {
    // The conversion is granted, queued, fails, deadlocks.
    for (case, expected) in [(0, Granted), (1, Cancelled), (2, Again), (3, Deadlock)] {
        let (mut c, name, keeper) = stage();
        let lock = c.held(2, &name, Pr, NONE);
        if case > 0 {
            c.convert(keeper, Pr, NONE);
        }
        if case == 3 {
            c.convert(keeper, Ex, NONE);
        }
        c.convert(lock, Ex, if case == 2 { F::NOQUEUE } else { NONE });
        c.cancel(lock);
        // Only the answer to the conversion so far.
        c.deliver(2, 1);
        c.deliver(1, 2);
        if case == 3 {
            // The first was the notice of the rival's conversion.
            c.deliver(1, 2);
        }
        if case != 1 {
            assert_eq!(c.last(lock).status, expected, "case {case}");
            // The next conversion must not be disturbed by the answer to the old cancel, nor its own cancel by it.
            c.convert(lock, Pr, F::NOQUEUE);
            c.cancel(lock);
        }
        c.settle();
        if case == 1 {
            assert_eq!(c.statuses(lock), [Granted, Cancelled]);
        }
        assert_eq!((c.mode(lock), c.waits(lock)), (Some(Pr), false), "case {case}");
        c.finish();
    }
}

#[test]
fn s29_forced_unlock_with_a_conversion_under_way() {
    for blocked in [false, true] {
        let (mut c, name, keeper) = stage();
        let lock = c.held(2, &name, Pr, NONE);
        if blocked {
            c.convert(keeper, Pr, NONE);
        }
        c.convert(lock, Ex, NONE);
        c.unlock(lock, F::FORCEUNLOCK);
        c.settle();
        assert!(c.dead(lock));
        assert_eq!(c.last(lock).status, Unlocked);
        c.finish();
    }
}

#[test]
fn s30_unlock_crosses_grant_and_notice() {
    let (mut c, name, keeper) = stage();
    c.convert(keeper, Ex, NONE);
    let lock = c.lock(2, &name, Ex, NONE);
    c.settle();
    c.convert(keeper, Nl, NONE);
    let rival = c.lock(1, &name, Ex, NONE);
    c.unlock(lock, F::FORCEUNLOCK);
    c.settle();
    assert_eq!((c.dead(lock), c.mode(rival)), (true, Some(Ex)));
    c.finish();
}

#[test]
fn s31_s32_down_conversion_crosses_a_notice_and_is_followed_by_an_up_conversion() {
    let (mut c, name, _) = stage();
    let lock = c.held(2, &name, Ex, NONE);
    let rival = c.lock(1, &name, Pr, NONE);
    c.convert(lock, Nl, NONE);
    c.convert(lock, Ex, NONE);
    c.deliver(1, 2);
    c.settle();
    // The notice is about a mode that has been given up: dropped. The master saw NL first, so the rival has it.
    assert_eq!(c.notices(lock), []);
    assert_eq!((c.mode(rival), c.waits(lock)), (Some(Pr), true));
    c.finish();
}

#[test]
fn s33_one_operation_at_a_time() {
    let (mut c, name, _) = stage();
    let lock = c.held(2, &name, Nl, NONE);
    c.convert(lock, Ex, NONE);
    c.convert(lock, Pr, NONE);
    assert_eq!(c.world.shadows[&lock].refusals, [Refusal::Busy]);
    c.unlock(lock, NONE);
    assert_eq!(c.world.shadows[&lock].refusals, [Refusal::Busy, Refusal::Busy]);
    c.settle();
    assert_eq!(c.mode(lock), Some(Ex));
    c.finish();
}

#[test]
fn s34_forced_unlock_after_a_cancel() {
    let (mut c, name, keeper) = stage();
    c.convert(keeper, Ex, NONE);
    let lock = c.lock(2, &name, Ex, NONE);
    c.settle();
    c.cancel(lock);
    c.unlock(lock, F::FORCEUNLOCK);
    c.settle();
    // The cancel ended the lock; there was nothing left to unlock.
    assert_eq!((c.statuses(lock), c.dead(lock)), (vec![Cancelled], true));
    c.finish();
}
