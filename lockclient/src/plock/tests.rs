//! The table against one that keeps every byte (dlm.md 6.6: 64; I22).

use super::*;
use crate::sim::Rng;

const WHOLE: u64 = i64::MAX as u64;

fn request(op: PlockOp, node: u32, start: u64, end: u64, exclusive: bool, wait: bool) -> PlockRequest {
    let (pid, owner, number, close) = (1, 1, 7, false);
    PlockRequest { op, exclusive, wait, close, pid, node: NodeId(node), number, start, end, owner, ticket: 0 }
}

fn lock(node: u32, start: u64, end: u64, exclusive: bool) -> PlockRequest {
    request(PlockOp::Lock, node, start, end, exclusive, false)
}

fn ranges(table: &PlockTable) -> Vec<(u64, u64, bool)> {
    let mut ranges: Vec<_> = table
        .export()
        .iter()
        .flat_map(|f| f.locks.iter().map(|l| (l.start, l.end, l.exclusive)).collect::<Vec<_>>())
        .collect();
    ranges.sort_unstable();
    ranges
}

#[test]
fn ranges_are_split_and_joined_by_the_book() {
    let cases: [(u64, u64, bool, &[(u64, u64, bool)]); 8] = [
        (10, 20, true, &[(10, 20, true)]),
        (12, 15, false, &[(10, 11, false), (12, 15, false), (16, 20, false)]),
        (12, 15, true, &[(10, 11, false), (12, 15, true), (16, 20, false)]),
        (10, 15, true, &[(10, 15, true), (16, 20, false)]),
        (15, 20, true, &[(10, 14, false), (15, 20, true)]),
        (0, 30, true, &[(0, 30, true)]),
        (5, 12, true, &[(5, 12, true), (13, 20, false)]),
        (15, 25, true, &[(10, 14, false), (15, 25, true)]),
    ];
    for (start, end, exclusive, expected) in cases {
        let mut table = PlockTable::default();
        table.deliver(lock(1, 10, 20, false));
        table.deliver(lock(1, start, end, exclusive));
        if exclusive {
            assert_eq!(ranges(&table), expected, "{start}..={end}");
        } else {
            // Covered by what is held in the same mode.
            assert_eq!(ranges(&table), [(10, 20, false)]);
        }
    }
}

#[test]
fn conflicts_wait_or_fail_and_waiters_are_served() {
    let mut table = PlockTable::default();
    table.deliver(lock(1, 0, WHOLE, true));
    assert_eq!(table.deliver(lock(2, 5, 5, false))[0].answer, PlockAnswer::Again);
    let shared = [2, 3].map(|node| request(PlockOp::Lock, node, 0, 9, false, true));
    let apart = request(PlockOp::Lock, 4, 100, 100, true, true);
    assert!(shared.iter().chain([&apart]).all(|r| table.deliver(*r).is_empty()));
    let got = table.deliver(request(PlockOp::Get, 5, 3, 3, false, false));
    assert!(matches!(got[0].answer, PlockAnswer::Conflict(held) if held.node == NodeId(1)));
    // Unlocking a part serves those who fit, in order.
    let results = table.deliver(request(PlockOp::Unlock, 1, 0, 50, false, false));
    let served: Vec<u32> = results.iter().map(|r| r.request.node.0).collect();
    assert_eq!(served, [1, 2, 3]);
    assert_eq!(table.purge(&[NodeId(1)]), [PlockResult { request: apart, answer: PlockAnswer::Done }]);
    table.purge(&[2, 3, 4].map(NodeId));
    assert!(!table.knows(7));
}

/// Found by `order`'s random schedules (seed 82679): the waiter in front waited for nothing.
#[test]
fn who_is_served_may_make_room_for_who_waits_in_front() {
    let mut table = PlockTable::default();
    table.deliver(lock(1, 0, 0, true));
    table.deliver(lock(2, 1, 1, true));
    let front = request(PlockOp::Lock, 3, 0, 0, false, true);
    let weaker = request(PlockOp::Lock, 1, 0, 1, false, true);
    assert!([front, weaker].iter().all(|r| table.deliver(*r).is_empty()));
    let results = table.deliver(request(PlockOp::Unlock, 2, 1, 1, false, false));
    let served: Vec<u32> = results.iter().map(|r| r.request.node.0).collect();
    assert_eq!(served, [2, 1, 3]);
}

#[test]
fn cancel_and_close_take_waiters_away() {
    let mut table = PlockTable::default();
    table.deliver(lock(1, 0, 9, true));
    let waiting = request(PlockOp::Lock, 2, 0, 9, true, true);
    table.deliver(waiting);
    let cancel = PlockRequest { op: PlockOp::Cancel, ..waiting };
    assert_eq!(table.deliver(cancel)[0].answer, PlockAnswer::Done);
    assert_eq!(table.deliver(cancel)[0].answer, PlockAnswer::NoEntry);
    table.deliver(waiting);
    let close = PlockRequest { close: true, ..request(PlockOp::Unlock, 2, 0, WHOLE, false, false) };
    assert!(table.deliver(close).is_empty());
    let results = table.deliver(request(PlockOp::Unlock, 1, 0, WHOLE, false, false));
    assert_eq!(results.len(), 1, "nobody is left to be served");
    // A joiner's table knows the waiters completely.
    table.deliver(lock(1, 0, 9, true));
    table.deliver(waiting);
    let mut copy = PlockTable::import(table.export());
    assert_eq!(copy, table);
    assert_eq!(copy.deliver(cancel)[0].answer, PlockAnswer::Done);
}

#[test]
fn every_byte_is_locked_as_in_a_table_of_bytes() {
    for seed in 0..200 {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let mut table = PlockTable::default();
        // Per byte: the owners and whether they hold it exclusively.
        let mut bytes: Vec<BTreeMap<u32, bool>> = vec![BTreeMap::new(); 16];
        for _ in 0..200 {
            let node = rng.below(3) as u32 + 1;
            let start = rng.below(16);
            let end = start + rng.below(16 - start);
            let exclusive = rng.chance(50);
            let op = if rng.chance(40) { PlockOp::Unlock } else { PlockOp::Lock };
            let results = table.deliver(request(op, node, start as u64, end as u64, exclusive, false));
            let range = &mut bytes[start..=end];
            let conflict = |holders: &BTreeMap<u32, bool>| holders.iter().any(|(n, x)| *n != node && (*x || exclusive));
            if op == PlockOp::Unlock {
                for holders in range {
                    holders.remove(&node);
                }
            } else if range.iter().any(conflict) {
                assert_eq!(results[0].answer, PlockAnswer::Again);
            } else {
                assert_eq!(results[0].answer, PlockAnswer::Done);
                for holders in range {
                    holders.insert(node, exclusive);
                }
            }
            let mut seen: Vec<BTreeMap<u32, bool>> = vec![BTreeMap::new(); 16];
            for held in table.export().iter().flat_map(|file| &file.locks) {
                for byte in held.start..=held.end {
                    assert_eq!(
                        seen[byte as usize].insert(held.node.0, held.exclusive),
                        None,
                        "overlapping locks of one owner"
                    );
                }
            }
            assert_eq!(seen, bytes, "seed {seed}");
        }
    }
}
