//! Named cases.

use super::clients::Client;
use super::*;

fn lock(number: u64, start: u64, end: u64, exclusive: bool, wait: bool) -> PlockAsk {
    PlockAsk { op: PlockOp::Lock, exclusive, wait, pid: 1, number, start, end, owner: 0 }
}

/// Nodes that run, all with the empty table.
fn running(count: u32) -> (World, Rng) {
    let (mut world, mut rng) = (World::new(count, None), Rng::new(1));
    world.quiet(&mut rng);
    (world, rng)
}

fn ask(world: &mut World, node: u32, ask: PlockAsk) {
    let Some(member) = world.members.get_mut(&node) else { panic!("no such node") };
    member.clients[0].ask(&mut member.order, ask);
    world.effects(node);
}

fn client(world: &World, node: u32) -> &Client {
    &world.members[&node].clients[0]
}

#[test]
fn a_node_alone_sends_nothing_and_answers_at_once() {
    let mut order = Order::new(NodeId(1), 1);
    order.start(5, [NodeId(1)]);
    let first = order.ask(lock(1, 0, 9, true, false));
    assert_eq!(order.next_effect(), Some(OrderEffect::Answer(first, PlockAnswer::Done)));
    let other = PlockAsk { owner: 1, ..lock(1, 5, 5, false, false) };
    let second = order.ask(other);
    assert_eq!(order.next_effect(), Some(OrderEffect::Answer(second, PlockAnswer::Again)));
    let waiting = order.ask(PlockAsk { wait: true, ..other });
    assert_eq!(order.next_effect(), None);
    order.close(1, 0);
    assert_eq!(order.next_effect(), Some(OrderEffect::Answer(waiting, PlockAnswer::Done)));
    assert_eq!(order.next_effect(), None);
}

/// dlm.md 4.11.4.
#[test]
fn an_unlock_of_what_is_not_locked_is_answered_here() {
    let (mut world, _) = running(2);
    ask(&mut world, 2, PlockAsk { op: PlockOp::Unlock, ..lock(1, 0, 9, false, false) });
    assert!(client(&world, 2).outstanding.is_none());
    // Not so while a lock of the owner is under way.
    let Some(member) = world.members.get_mut(&2) else { panic!("no such node") };
    member.order.ask(lock(1, 0, 9, true, false));
    member.order.ask(PlockAsk { op: PlockOp::Unlock, ..lock(1, 0, 9, false, false) });
    let effects: Vec<OrderEffect> = std::iter::from_fn(|| member.order.next_effect()).collect();
    assert!(effects.iter().all(|effect| matches!(effect, OrderEffect::Send { .. })) && effects.len() == 2);
}

/// dlm.md 6.6, 64: the waiter scan, the cancel race, the purge of a failed node, a joiner with messages before and
/// after the start. (Splitting and merging: `plock/tests.rs`.)
#[test]
fn s64_plocks() {
    let (mut world, mut rng) = running(3);
    ask(&mut world, 1, lock(0, 0, 3, true, false));
    world.quiet(&mut rng);
    // Two readers and a writer elsewhere wait; a part that is unlocked serves whom it fits.
    ask(&mut world, 2, lock(0, 0, 1, false, true));
    ask(&mut world, 3, lock(0, 1, 3, true, true));
    world.quiet(&mut rng);
    ask(&mut world, 1, PlockAsk { op: PlockOp::Unlock, ..lock(0, 0, 1, false, false) });
    world.quiet(&mut rng);
    assert!(client(&world, 2).outstanding.is_none() && client(&world, 3).outstanding.is_some());
    // A joiner: the stop finds a request under way, another is asked while stopped.
    ask(&mut world, 2, lock(1, 0, 0, true, false));
    world.join(4);
    ask(&mut world, 4, lock(1, 0, 1, true, true));
    world.quiet(&mut rng);
    let waiting = client(&world, 4).outstanding.is_some() != client(&world, 2).outstanding.is_some();
    let refused = client(&world, 2).outstanding.is_none() && client(&world, 2).held[1][0] == 0;
    assert!(waiting || refused, "one of the two has the byte");
    world.check_beliefs();
    // The writer's cancel races the death of the one in its way: it ends once, in either way.
    let Some((local, _)) = client(&world, 3).outstanding else { panic!("it waits") };
    let Some(member) = world.members.get_mut(&3) else { panic!("no such node") };
    member.order.cancel(local);
    world.effects(3);
    world.lose(1, &mut rng);
    world.quiet(&mut rng);
    assert!(client(&world, 3).outstanding.is_none());
    world.check_beliefs();
    // The dead node's locks are gone, for whoever joins now too.
    ask(&mut world, 4, lock(0, 3, 3, false, true));
    world.join(1);
    world.quiet(&mut rng);
    world.check_beliefs();
    let tables: Vec<_> = world.members.values().map(|member| member.order.table().cloned()).collect();
    assert!(tables.iter().all(|table| table.is_some() && *table == tables[0]));
}

/// The source numbers a grant, only its owner hears of it, and the source dies.
#[test]
fn a_grant_that_only_its_owner_has_heard_of_survives_the_source() {
    for seed in 0..200 {
        let (mut world, mut rng) = (World::new(3, None), Rng::new(seed));
        world.quiet(&mut rng);
        ask(&mut world, 3, lock(0, 0, 5, true, false));
        while client(&world, 3).outstanding.is_some() {
            assert!(world.step(&mut rng));
        }
        world.lose(1, &mut rng);
        ask(&mut world, 2, lock(0, 0, 5, true, false));
        world.quiet(&mut rng);
        assert_eq!(client(&world, 3).held[0], [2; 6], "seed {seed}");
        assert_eq!(client(&world, 2).held[0], [0; 6]);
        world.check_beliefs();
    }
}

/// A table that needs many frames.
#[test]
fn a_large_table_reaches_a_joiner() {
    let (mut world, mut rng) = running(1);
    let Some(member) = world.members.get_mut(&1) else { panic!("no such node") };
    for number in 0..1000 {
        member.order.ask(lock(number, 0, 1, true, false));
        while member.order.next_effect().is_some() {}
    }
    world.join(2);
    let mut steps = 0;
    while world.step(&mut rng) {
        steps += 1;
    }
    assert!(steps > 1000 / PIECE_RECORDS);
    assert_eq!(world.members[&2].order.table().map(|table| table.size()), Some(1000));
    assert_eq!(world.members[&1].order.state, world.members[&2].order.state);
}

/// A frame that the stream should have delivered is missing: the state is asked for again, and no answer is lost.
#[test]
fn a_gap_is_healed_by_the_whole_state() {
    let (source, member) = (NodeId(1), NodeId(2));
    let mut orders = [Order::new(source, 1), Order::new(member, 2)];
    orders.iter_mut().for_each(|order| order.start(9, [source, member]));
    let exchange = |orders: &mut [Order; 2], lose: &mut dyn FnMut(&OrderFrame) -> bool| {
        let mut answers = Vec::new();
        loop {
            let effects: Vec<(usize, OrderEffect)> = (0..2)
                .flat_map(|i| std::iter::from_fn(|| orders[i].next_effect()).map(move |e| (i, e)).collect::<Vec<_>>())
                .collect();
            if effects.is_empty() {
                return answers;
            }
            for (i, effect) in effects {
                match effect {
                    OrderEffect::Send { frame, .. } if lose(&frame) => {}
                    OrderEffect::Send { to, frame } => orders[to.0 as usize - 1].receive(NodeId(i as u32 + 1), frame),
                    OrderEffect::Answer(local, answer) => answers.push((i, local, answer)),
                }
            }
        }
    };
    exchange(&mut orders, &mut |_| false);
    let mine = orders[1].ask(lock(1, 0, 5, true, false));
    let lost = exchange(&mut orders, &mut |frame| matches!(frame.body, OrderBody::Deliver { .. }));
    assert!(lost.is_empty());
    let other = orders[0].ask(lock(2, 0, 5, true, false));
    let answers = exchange(&mut orders, &mut |_| false);
    assert_eq!(answers, [(0, other, PlockAnswer::Done), (1, mine, PlockAnswer::Done)]);
    assert_eq!(orders[0].state, orders[1].state);
}

/// A membership that cannot tell rounds apart (and peers that may be kernels) has no such locks.
#[test]
fn without_numbered_rounds_there_are_no_locks() {
    let mut order = Order::new(NodeId(1), 1);
    let early = order.ask(lock(1, 0, 9, true, true));
    order.start(0, [NodeId(1), NodeId(2)]);
    assert_eq!(order.next_effect(), Some(OrderEffect::Answer(early, PlockAnswer::NoLocks)));
    let late = order.ask(lock(1, 0, 9, true, true));
    assert_eq!(order.next_effect(), Some(OrderEffect::Answer(late, PlockAnswer::NoLocks)));
    assert_eq!(order.next_effect(), None);
}

/// Whoever sends a state without end is not listened to without end.
#[test]
fn a_state_has_no_more_answers_than_can_be() {
    use crate::plock::PlockAnswer;
    use crate::plock::order::state::State;
    let mut state = State::default();
    let node = NodeId(1);
    assert!(state.adopt(Record::Session { node, life: 1, last: 1 }));
    let answer = Record::Answer { node, number: 1, local: 1, answer: PlockAnswer::Done };
    let taken = (0..3 * crate::plock::LOCKS_MAX).take_while(|_| state.adopt(answer)).count();
    assert_eq!(taken, 2 * crate::plock::LOCKS_MAX);
    let mut state = State::default();
    let session = |n: u32| Record::Session { node: NodeId(n), life: 1, last: 1 };
    assert!((1..=1 << 20).take_while(|n| state.adopt(session(*n))).count() < 10_000);
}
