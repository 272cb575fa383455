//! Every order of events for small cases: two or three nodes, one resource, a few operations.

use super::World;
use crate::flags::LockFlags;
use crate::ids::NodeId;
use crate::mode::Mode::{self, *};

/// What a client does next; locks are numbered in the order of the script.
#[derive(Clone, Copy)]
enum Op {
    Lock(u32, Mode, LockFlags),
    Convert(usize, Mode, LockFlags),
    Unlock(usize, LockFlags),
}

const NONE: LockFlags = LockFlags::empty();

/// Explores; counts complete orders.
fn explore(world: &World, script: &[Op], tokens: &[u64], leaves: &mut u32, limit: u32) {
    if *leaves >= limit {
        return;
    }
    let mut moved = false;
    for (from, to) in world.deliverable() {
        let mut next = world.clone();
        next.deliver(from, to).unwrap_or_else(|why| panic!("{why}\n{}", next.dump()));
        explore(&next, script, tokens, leaves, limit);
        moved = true;
    }
    if let Some((op, rest)) = script.split_first() {
        let (mut next, mut tokens) = (world.clone(), tokens.to_vec());
        let outcome = match *op {
            Op::Lock(node, mode, flags) => next.lock(node, "r", mode, flags).map(|token| tokens.push(token)),
            Op::Convert(i, mode, flags) => next.convert(tokens[i], mode, flags),
            Op::Unlock(i, flags) => next.unlock(tokens[i], flags),
        };
        outcome.unwrap_or_else(|why| panic!("{why}\n{}", next.dump()));
        explore(&next, rest, &tokens, leaves, limit);
        moved = true;
    }
    if !moved {
        *leaves += 1;
        let mut end = world.clone();
        end.wind_down().unwrap_or_else(|why| panic!("{why}\n{}", end.dump()));
    }
}

fn all_orders(nodes: u32, script: &[Op]) {
    let mut world = World::with_nodes(nodes).unwrap_or_else(|why| panic!("{why}"));
    world.verbose = true;
    world.log.clear();
    let mut leaves = 0;
    explore(&world, script, &[], &mut leaves, 6_000);
    println!("{leaves} orders");
    assert!(leaves > 1);
}

#[test]
fn two_requests_and_a_cancel() {
    all_orders(
        2,
        &[Op::Lock(1, Ex, NONE), Op::Lock(2, Ex, NONE), Op::Unlock(1, LockFlags::CANCEL), Op::Lock(2, Pr, NONE)],
    );
}

#[test]
fn conversions_with_overlaps() {
    let script = [
        Op::Lock(1, Pr, NONE),
        Op::Lock(2, Pr, NONE),
        Op::Convert(1, Ex, NONE),
        Op::Convert(0, Ex, NONE),
        Op::Unlock(1, LockFlags::CANCEL),
        Op::Unlock(1, LockFlags::FORCEUNLOCK),
    ];
    all_orders(2, &script);
}

#[test]
fn hand_over_and_back() {
    let script = [
        Op::Lock(1, Ex, LockFlags::VALBLK),
        Op::Lock(2, Ex, LockFlags::VALBLK),
        Op::Convert(0, Nl, LockFlags::VALBLK),
        Op::Convert(0, Pr, LockFlags::VALBLK),
        Op::Unlock(1, LockFlags::FORCEUNLOCK),
    ];
    all_orders(2, &script);
}

#[test]
fn three_nodes_find_one_master() {
    all_orders(3, &[Op::Lock(1, Cr, NONE), Op::Lock(2, Cw, NONE), Op::Lock(3, Pr, LockFlags::NOQUEUE)]);
}

#[test]
fn a_member_dies_in_every_order() {
    // Node 2 crashes after every prefix of a hand-over, with every cut of what it has sent.
    for steps in 0..12 {
        for cut in 0..3 {
            let mut world = World::with_nodes(3).unwrap_or_else(|why| panic!("{why}"));
            let lock = world.lock(1, "r", Ex, LockFlags::VALBLK).expect("lock");
            world.lock(2, "r", Ex, LockFlags::VALBLK).expect("lock");
            world.lock(3, "r", Pr, LockFlags::VALBLK).expect("lock");
            for _ in 0..steps {
                if let Some((from, to)) = world.deliverable().last().copied() {
                    world.deliver(from, to).unwrap_or_else(|why| panic!("{why}"));
                }
            }
            if world.shadows[&lock].is_idle() && world.shadows[&lock].held.is_some() {
                world.convert(lock, Nl, LockFlags::VALBLK).expect("convert");
            }
            world.crash(NodeId(2), |n| n.min(cut));
            world.wind_down().unwrap_or_else(|why| panic!("steps {steps} cut {cut}: {why}\n{}", world.dump()));
        }
    }
}
