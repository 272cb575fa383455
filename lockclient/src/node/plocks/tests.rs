//! Byte-range locks between whole nodes on loopback addresses.

use crate::node::Node;
use crate::node::space::{Completion, LockClient, LockSpace};
use crate::node::tests::Place;
use crate::plock::order::PlockAsk;
use crate::plock::{PlockAnswer, PlockOp};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot::{Receiver, channel};

struct Nobody;

impl LockClient for Nobody {
    fn completed(&self, _token: u64, _completion: Completion) {}
    fn blocking(&self, _token: u64, _lock: crate::ids::LockId, _mode: crate::mode::Mode) {}
    fn refused(&self, _call: u64, _why: crate::status::Refusal) {}
}

async fn join(node: &Node) -> LockSpace {
    let join = tokio::time::timeout(Duration::from_secs(30), node.join("plocks", Arc::new(Nobody), |_| {}));
    join.await.expect("in time").expect("join")
}

fn lock(number: u64, start: u64, end: u64, wait: bool) -> PlockAsk {
    PlockAsk { op: PlockOp::Lock, exclusive: true, wait, pid: 7, number, start, end, owner: 1 }
}

fn ask(space: &LockSpace, ask: PlockAsk) -> (super::PlockHandle, Receiver<PlockAnswer>) {
    let (done, answer) = channel();
    let handle = space.plock(ask, Box::new(move |answer| done.send(answer).expect("the test is there")));
    (handle, answer)
}

async fn answer(answer: Receiver<PlockAnswer>) -> PlockAnswer {
    tokio::time::timeout(Duration::from_secs(30), answer).await.expect("in time").expect("told")
}

#[tokio::test(flavor = "multi_thread")]
async fn alone_all_is_answered_in_the_callers_thread() {
    let place = Place::new(1);
    let node = place.node(1, true).await;
    let space = join(&node).await;
    // The first round may begin a moment after the join has returned.
    assert_eq!(answer(ask(&space, lock(1, 0, 9, false)).1).await, PlockAnswer::Done);
    let mut at_once = ask(&space, PlockAsk { owner: 2, ..lock(1, 3, 3, false) }).1;
    assert_eq!(at_once.try_recv(), Ok(PlockAnswer::Again));
    let (handle, mut waiting) = ask(&space, PlockAsk { owner: 2, ..lock(1, 3, 3, true) });
    assert!(waiting.try_recv().is_err());
    space.plock_cancel(handle);
    assert_eq!(answer(waiting).await, PlockAnswer::Interrupted);
    let (_, waiting) = ask(&space, PlockAsk { owner: 2, ..lock(1, 3, 3, true) });
    node.release(&space).await;
    assert_eq!(answer(waiting).await, PlockAnswer::Gone);
    assert_eq!(answer(ask(&space, lock(1, 0, 9, false)).1).await, PlockAnswer::Gone);
    node.shutdown().await;
}

/// dlm.md 6.6, 64, with real nodes: blocking, cancel, close, a joiner, the death of an owner.
#[tokio::test(flavor = "multi_thread")]
async fn s64_between_nodes() {
    let place = Place::new(3);
    let mut nodes =
        [Some(place.node(1, false).await), Some(place.node(2, false).await), Some(place.node(3, false).await)];
    let first = join(nodes[0].as_ref().expect("runs")).await;
    let second = join(nodes[1].as_ref().expect("runs")).await;
    assert_eq!(answer(ask(&first, lock(7, 0, 99, false)).1).await, PlockAnswer::Done);
    assert_eq!(answer(ask(&second, lock(7, 50, 60, false)).1).await, PlockAnswer::Again);
    let get = PlockAsk { op: PlockOp::Get, ..lock(7, 50, 60, false) };
    let PlockAnswer::Conflict(held) = answer(ask(&second, get).1).await else { panic!("nobody in the way") };
    assert_eq!((held.node.0, held.pid, held.start, held.end), (1, 7, 0, 99));
    // A waiter that gives up, one that is served, one that closes.
    let (handle, waiting) = ask(&second, lock(7, 0, 0, true));
    assert_eq!(second.plock_find(&lock(7, 0, 0, true)), Some(handle));
    assert_eq!(second.plock_find(&lock(7, 0, 1, true)), None);
    second.plock_cancel(handle);
    assert_eq!(answer(waiting).await, PlockAnswer::Interrupted);
    let (_, served) = ask(&second, lock(7, 10, 19, true));
    let (_, closed) = ask(&second, PlockAsk { owner: 2, ..lock(7, 0, 0, true) });
    second.plock_close(7, 2);
    assert_eq!(answer(closed).await, PlockAnswer::Interrupted);
    assert_eq!(
        answer(ask(&first, PlockAsk { op: PlockOp::Unlock, ..lock(7, 10, 19, false) }).1).await,
        PlockAnswer::Done
    );
    assert_eq!(answer(served).await, PlockAnswer::Done);
    // A joiner knows the table, and waits for what others hold.
    let third = join(nodes[2].as_ref().expect("runs")).await;
    assert_eq!(answer(ask(&third, lock(7, 10, 10, false)).1).await, PlockAnswer::Again);
    assert_eq!(third.plocks(), first.plocks());
    let (_, heir) = ask(&third, lock(7, 0, 9, true));
    let (_, mut other) = ask(&third, PlockAsk { owner: 3, ..lock(7, 15, 15, true) });
    // The two requests come back from the source of the round before they stand in the table.
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    let view = loop {
        let view = nodes[2].as_ref().expect("runs").inspect().await.expect("runs");
        if view.lockspaces[0].plocks.size == 5 || std::time::Instant::now() > deadline {
            break view;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    assert_eq!((view.node, view.quorate, view.membership.nodes.len(), view.peers.len()), (3, true, 3, 2));
    let space = &view.lockspaces[0];
    assert_eq!((space.name.as_str(), space.running, space.members.len()), ("plocks", true, 3));
    assert_eq!((space.plocks.source, space.plocks.size, space.plocks.outstanding), (Some(1), 5, 2));
    // The source of the round dies, with what it holds.
    assert_eq!(answer(ask(&third, lock(8, 0, 0, false)).1).await, PlockAnswer::Done);
    drop(nodes[0].take());
    assert_eq!(answer(heir).await, PlockAnswer::Done);
    assert!(other.try_recv().is_err());
    second.plock_close(7, 1);
    assert_eq!(answer(other).await, PlockAnswer::Done);
    for node in nodes.into_iter().flatten() {
        node.shutdown().await;
    }
}

/// Many requests of two nodes for one byte, while connections break: one holder at a time, nobody is forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn a_byte_is_passed_around_while_connections_break() {
    let place = Place::new(2);
    let nodes = [place.node(1, true).await, place.node(2, true).await];
    let spaces = [join(&nodes[0]).await, join(&nodes[1]).await];
    let holders = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let mut tasks = Vec::new();
    for (space, owner) in spaces.iter().flat_map(|space| (1..=3).map(move |owner| (space.clone(), owner))) {
        let holders = holders.clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0..60 {
                let range = PlockAsk { owner, ..lock(1, 0, 0, true) };
                assert_eq!(answer(ask(&space, range).1).await, PlockAnswer::Done);
                assert_eq!(holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                assert_eq!(answer(ask(&space, PlockAsk { op: PlockOp::Unlock, ..range }).1).await, PlockAnswer::Done);
            }
        }));
    }
    let mut breaks = 0;
    while tasks.iter().any(|task| !task.is_finished()) {
        tokio::time::sleep(Duration::from_millis(3)).await;
        breaks += 1;
        nodes[breaks % 2].break_connections();
    }
    for task in tasks {
        task.await.expect("worker");
    }
    for node in nodes {
        node.shutdown().await;
    }
}
