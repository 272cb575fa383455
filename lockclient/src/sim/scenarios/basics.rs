//! Scenarios 1 to 14: what is granted, in which order, and who is told.

use super::{Cluster, NONE};
use crate::flags::{LockFlags as F, StatusFlags};
use crate::frame::{Frame, RcomBody};
use crate::ids::NodeId;
use crate::lvb::{Transfer, transfer};
use crate::mode::Mode::{self, *};
use crate::sim::shadow::number_in;
use crate::status::{Refusal, Status};

#[test]
fn s01_pairs_are_granted_if_compatible() {
    for second_node in [1, 2] {
        let mut c = Cluster::new(2);
        for (i, (a, b)) in Mode::ALL.iter().flat_map(|a| Mode::ALL.map(|b| (*a, b))).enumerate() {
            let name = format!("pair{i}");
            c.held(1, &name, a, NONE);
            let second = c.lock(second_node, &name, b, NONE);
            c.settle();
            assert_eq!(c.waits(second), !a.compatible(b), "{a:?} {b:?}");
        }
        c.finish();
    }
}

#[test]
fn s02_conversions_alone_move_the_value() {
    for node in [1, 2] {
        let mut c = Cluster::new(2);
        for (i, (from, to)) in Mode::ALL.iter().flat_map(|a| Mode::ALL.map(|b| (*a, b))).enumerate() {
            let name = format!("conversion{i}");
            let keeper = c.held(1, &name, Ex, F::VALBLK);
            c.convert(keeper, Nl, F::VALBLK);
            c.settle();
            let first = c.world.values[name.as_bytes()].last;
            let lock = c.held(node, &name, from, F::VALBLK);
            c.convert(lock, to, F::VALBLK);
            c.settle();
            let outcome = c.last(lock);
            assert_eq!((outcome.status, outcome.mode), (Status::Granted, Some(to)));
            let written = c.world.values[name.as_bytes()].last;
            match transfer(Some(from), to) {
                Transfer::Return => assert_eq!(outcome.lvb.map(|lvb| number_in(&lvb)), Some(first), "{from:?} {to:?}"),
                Transfer::Write => {
                    assert!(written > first);
                    c.convert(lock, Nl, NONE);
                    c.convert(keeper, Ex, F::VALBLK);
                    c.settle();
                    assert_eq!(c.last(keeper).lvb.map(|lvb| number_in(&lvb)), Some(written), "{from:?} {to:?}");
                }
                Transfer::Nothing => assert_eq!(outcome.lvb, None, "{from:?} {to:?}"),
            }
        }
        c.finish();
    }
}

#[test]
fn s03_new_requests_are_served_in_order() {
    let mut c = Cluster::new(2);
    let holder = c.held(1, "r", Ex, NONE);
    let queue = [(1, Pr), (2, Pr), (1, Ex), (2, Pr)].map(|(node, mode)| {
        let token = c.lock(node, "r", mode, NONE);
        c.settle();
        token
    });
    assert!(queue.iter().all(|token| c.waits(*token)));
    c.unlock(holder, NONE);
    c.settle();
    assert_eq!(queue.map(|token| c.mode(token)), [Some(Pr), Some(Pr), None, None]);
    c.unlock(queue[0], NONE);
    c.unlock(queue[1], NONE);
    c.settle();
    assert_eq!(c.mode(queue[2]), Some(Ex));
    assert!(c.waits(queue[3]));
    c.finish();
}

#[test]
fn s04_nl_waits_its_turn_unless_it_may_pass() {
    let mut c = Cluster::new(1);
    c.held(1, "r", Pr, NONE);
    c.lock(1, "r", Ex, NONE);
    let plain = c.lock(1, "r", Nl, NONE);
    let expedited = c.lock(1, "r", Nl, F::EXPEDITE);
    let unordered = c.lock(1, "r", Pr, F::NOORDER);
    assert!(c.waits(plain));
    assert_eq!((c.mode(expedited), c.mode(unordered)), (Some(Nl), Some(Pr)));
    c.finish();
}

#[test]
fn s05_quecvt_goes_behind_other_conversions() {
    let mut c = Cluster::new(1);
    c.held(1, "r", Cr, NONE);
    let first = c.held(1, "r", Nl, NONE);
    let (polite, pushing) = (c.held(1, "r", Nl, NONE), c.held(1, "r", Nl, NONE));
    c.convert(first, Ex, NONE);
    c.convert(polite, Pr, F::QUECVT);
    c.convert(pushing, Pr, NONE);
    assert!(c.waits(first) && c.waits(polite));
    assert_eq!(c.mode(pushing), Some(Pr));
    c.finish();
}

#[test]
fn s06_noqueue_fails_and_tells_only_if_asked() {
    let mut c = Cluster::new(2);
    let (holder, converting) = (c.held(1, "r", Pr, NONE), c.held(1, "r", Pr, NONE));
    c.convert(converting, Pw, F::NOORDER);
    assert!(c.waits(converting));
    let told = c.notices(holder).len();
    let quiet = c.lock(2, "r", Ex, F::NOQUEUE);
    c.settle();
    assert_eq!((c.statuses(quiet), c.dead(quiet)), (vec![Status::Again], true));
    assert_eq!((c.notices(holder).len(), c.notices(converting)), (told, vec![]));
    let loud = c.lock(2, "r", Ex, F::NOQUEUE | F::NOQUEUEBAST);
    c.settle();
    assert_eq!(c.statuses(loud), [Status::Again]);
    assert_eq!((c.notices(holder).last(), c.notices(converting)), (Some(&Ex), vec![Ex]));
    c.finish();
}

#[test]
fn s07_alternate_modes() {
    let mut c = Cluster::new(2);
    let holder = c.held(1, "r", Pr, NONE);
    let alternate = c.lock(2, "r", Ex, F::ALTPR);
    c.settle();
    assert_eq!((c.mode(alternate), c.last(alternate).flags), (Some(Pr), StatusFlags::ALTMODE));
    c.convert(holder, Nl, NONE);
    c.convert(alternate, Nl, NONE);
    c.settle();
    let exclusive = c.held(1, "r", Ex, NONE);
    let queued = c.lock(2, "r", Ex, F::ALTCW);
    c.settle();
    assert!(c.waits(queued));
    c.convert(exclusive, Cw, NONE);
    c.settle();
    assert_eq!((c.mode(queued), c.last(queued).flags), (Some(Cw), StatusFlags::ALTMODE));
    c.finish();
}

#[test]
fn s08_mutual_conversions_deadlock() {
    for second in [1, 2] {
        let mut c = Cluster::new(2);
        let (a, b) = (c.held(1, "r", Pr, NONE), c.held(second, "r", Pr, NONE));
        c.convert(a, Ex, NONE);
        c.settle();
        c.convert(b, Ex, F::QUECVT);
        c.settle();
        assert_eq!((c.last(b).status, c.mode(b)), (Status::Deadlock, Some(Pr)));
        c.cancel(a);
        c.settle();
        assert_eq!((c.last(a).status, c.mode(a)), (Status::Cancelled, Some(Pr)));
        c.convert(b, Nl, NONE);
        c.convert(a, Ex, NONE);
        c.settle();
        assert_eq!(c.mode(a), Some(Ex));
        c.finish();
    }
}

#[test]
fn s09_convdeadlk_gives_way() {
    let mut c = Cluster::new(3);
    let (name, _) = c.mastered(1, 1, 9);
    let (a, b) = (c.held(2, &name, Pr, NONE), c.held(3, &name, Pr, NONE));
    c.convert(a, Ex, NONE);
    c.settle();
    c.convert(b, Ex, F::CONVDEADLK);
    c.settle();
    assert_eq!(c.mode(a), Some(Ex));
    assert!(c.waits(b));
    c.convert(a, Nl, NONE);
    c.settle();
    assert_eq!((c.mode(b), c.last(b).flags), (Some(Ex), StatusFlags::DEMOTED));
    c.finish();
}

#[test]
fn s10_nodlckwt_tells_instead_of_failing() {
    let mut c = Cluster::new(1);
    let (a, b) = (c.held(1, "r", Pr, NONE), c.held(1, "r", Pr, NONE));
    c.convert(a, Ex, NONE);
    c.convert(b, Ex, F::NODLCKWT);
    assert!(c.waits(a) && c.waits(b));
    let third = c.held(1, "r", Nl, F::EXPEDITE);
    c.unlock(third, NONE);
    assert!(c.notices(b).contains(&Ex));
    c.cancel(a);
    c.convert(a, Nl, NONE);
    assert_eq!(c.mode(b), Some(Ex));
    c.finish();
}

#[test]
fn s11_headque_goes_first() {
    let mut c = Cluster::new(2);
    let holder = c.held(1, "r", Ex, NONE);
    let (second, first) = (c.lock(1, "r", Ex, NONE), c.lock(2, "r", Ex, F::HEADQUE));
    c.settle();
    c.unlock(holder, NONE);
    c.settle();
    assert_eq!((c.mode(first), c.mode(second)), (Some(Ex), None));
    c.finish();
}

#[test]
fn s12_a_value_made_invalid_is_reported_until_written() {
    for writer_node in [1, 2] {
        let mut c = Cluster::new(2);
        let reader = c.held(1, "r", Nl, F::VALBLK);
        let writer = c.held(writer_node, "r", Ex, F::VALBLK);
        c.convert(writer, Nl, F::VALBLK);
        c.convert(writer, Ex, F::VALBLK);
        c.settle();
        c.convert(writer, Nl, F::VALBLK | F::IVVALBLK);
        c.convert(reader, Pr, F::VALBLK);
        c.settle();
        assert_eq!(c.last(reader).flags, StatusFlags::VALNOTVALID);
        c.convert(reader, Nl, NONE);
        c.convert(writer, Ex, F::VALBLK);
        c.settle();
        c.convert(writer, Nl, F::VALBLK);
        c.convert(reader, Pr, F::VALBLK);
        c.settle();
        assert_eq!(c.last(reader).flags, StatusFlags::empty());
        c.convert(reader, Nl, NONE);
        c.convert(writer, Ex, F::VALBLK);
        c.settle();
        c.unlock(writer, F::IVVALBLK);
        c.settle();
        c.convert(reader, Pr, F::VALBLK);
        c.settle();
        assert_eq!(c.last(reader).flags, StatusFlags::VALNOTVALID);
        c.finish();
    }
}

#[test]
fn s13_invalid_without_a_buffer_is_not_reported() {
    let mut c = Cluster::new(1);
    let reader = c.held(1, "r", Nl, F::VALBLK);
    let writer = c.held(1, "r", Ex, F::VALBLK);
    c.unlock(writer, F::IVVALBLK);
    c.convert(reader, Pr, F::VALBLK);
    assert_eq!((c.last(reader).flags, c.last(reader).lvb), (StatusFlags::empty(), None));
    c.finish();
}

#[test]
fn s14_notices_that_say_nothing_new_are_dropped() {
    let mut c = Cluster::new(1);
    let holder = c.held(1, "r", Ex, NONE);
    let waiting = [Pr, Pr, Cw, Ex, Pw].map(|mode| c.lock(1, "r", mode, NONE));
    // The second PR repeats, PW after EX is weaker. CW after PR excludes a mode that PR does not, but to the
    // master it is weaker than what the holder was told.
    assert_eq!(c.notices(holder), [Pr, Ex]);
    c.convert(holder, Nl, NONE);
    assert_eq!((c.mode(waiting[0]), c.mode(waiting[1])), (Some(Pr), Some(Pr)));
    assert!(c.notices(waiting[0]).contains(&Ex));
    c.finish();
}

#[test]
fn s14_pr_and_cw_are_both_told() {
    let mut c = Cluster::new(1);
    let holder = c.held(1, "r", Pr, NONE);
    c.lock(1, "r", Cw, NONE);
    c.lock(1, "r", Ex, NONE);
    assert_eq!(c.notices(holder), [Cw, Ex]);
    c.finish();
}

#[test]
fn arguments_are_checked() {
    let mut c = Cluster::new(1);
    let refused = |c: &mut Cluster, mode, flags| {
        let token = c.lock(1, "r", mode, flags);
        c.world.shadows[&token].refusals.clone()
    };
    for flags in [F::CANCEL, F::QUECVT, F::CONVDEADLK, F::EXPEDITE | F::NOQUEUE, F::FORCEUNLOCK] {
        assert_eq!(refused(&mut c, Nl, flags), [Refusal::Invalid], "{flags:?}");
    }
    assert_eq!(refused(&mut c, Pr, F::EXPEDITE), [Refusal::Invalid]);
    let lock = c.held(1, "r", Ex, NONE);
    for (mode, flags) in [(Pr, F::QUECVT), (Pr, F::CONVDEADLK | F::NOQUEUE)] {
        c.convert(lock, mode, flags);
        assert_eq!(c.world.shadows[&lock].refusals.last(), Some(&Refusal::Invalid), "{flags:?}");
    }
    c.unlock(lock, F::CANCEL | F::FORCEUNLOCK);
    assert_eq!(c.world.shadows[&lock].refusals.last(), Some(&Refusal::Invalid));
    let waiting = c.lock(1, "r", Ex, NONE);
    c.unlock(waiting, NONE);
    c.convert(waiting, Nl, NONE);
    assert_eq!(c.world.shadows[&waiting].refusals, [Refusal::Busy, Refusal::Busy]);
}

#[test]
fn answers_to_a_lockspace_that_is_not_there() {
    let mut c = Cluster::new(1);
    c.join(2);
    c.world.seen_everywhere();
    let outcome = c.world.change(crate::membership::sim::Change::Start(NodeId(1)));
    c.must(outcome);
    let frame = c.world.streams[&(NodeId(1), NodeId(2))].front().cloned();
    let Some(Frame::Rcom(rcom)) = frame else { panic!("no status request") };
    let answer = crate::engine::Engine::not_ready_answer(&rcom).expect("a status request");
    assert_eq!((answer.result, answer.id, answer.seq_reply, answer.seq), (-3, rcom.id, rcom.seq, 0));
    assert!(matches!(answer.body, RcomBody::StatusReply(config) if config.lvblen == u32::MAX));
    c.finish();
}
