//! What was done under a lock was done alone.

use super::{Event, History, Op, Outcome, shorten, show};
use std::collections::BTreeMap;

/// Counters: each value once, in the order of time, one holder at a time, none missing.
pub(super) fn counters(history: &History) -> Vec<String> {
    let mut counters: BTreeMap<u8, Vec<&Event>> = BTreeMap::new();
    for event in &history.events {
        if let Op::Count { counter, .. } | Op::Peek { counter } = event.op {
            counters.entry(counter).or_default().push(event);
        }
    }
    counters.iter().flat_map(|(counter, events)| shorten(counter_of(*counter, events))).collect()
}

/// A completed Count.
struct Counted<'a> {
    value: u64,
    from: u64,
    to: u64,
    event: &'a Event,
}

fn counter_of(counter: u8, events: &[&Event]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut counted: Vec<Counted<'_>> = Vec::new();
    let mut open = 0u64;
    for event in events {
        match (&event.op, &event.outcome) {
            (Op::Count { .. }, Some(Outcome::Counted { value, from, to })) => {
                counted.push(Counted { value: *value, from: *from, to: *to, event });
            }
            (Op::Count { .. }, _) => open += 1,
            _ => {}
        }
    }
    counted.sort_by_key(|c| c.value);
    for pair in counted.windows(2).filter(|p| p[0].value == p[1].value) {
        wrong.push(format!("counter {counter}: twice the same:\n  {}\n  {}", show(pair[0].event), show(pair[1].event)));
    }
    let mut earliest: Option<&Counted<'_>> = None;
    for this in counted.iter().rev() {
        if let Some(later) = earliest.filter(|later| later.event.end.is_some_and(|end| end < this.event.start)) {
            wrong.push(format!("counter {counter}: went backwards:\n  {}\n  {}", show(later.event), show(this.event)));
        }
        if earliest.is_none_or(|e| this.event.end < e.event.end) {
            earliest = Some(this);
        }
    }
    let highest = counted.last().map_or(0, |c| c.value);
    let missing = highest.saturating_sub(counted.len() as u64);
    if missing > open {
        wrong.push(format!("counter {counter}: {missing} values up to {highest} are missing, {open} have no answer"));
    }
    for peek in events {
        let Some(Outcome::Value(value)) = peek.outcome else { continue };
        let before = counted.iter().filter(|c| c.event.end.is_some_and(|e| e < peek.start)).map(|c| c.value).max();
        if before.is_some_and(|b| b > value) || value > highest + open {
            wrong.push(format!("counter {counter}: read {value}, counted to {before:?}: {}", show(peek)));
        }
    }
    counted.sort_by_key(|c| c.from);
    for pair in counted.windows(2).filter(|p| p[1].from < p[0].to) {
        wrong.push(format!(
            "counter {counter}: two holders at once:\n  {}\n  {}",
            show(pair[0].event),
            show(pair[1].event)
        ));
    }
    wrong
}

/// Files rewritten under a lock: what the last holder left, unless it did not come to its end.
pub(super) fn rewrites(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    for event in &history.events {
        let (Op::Rewrite { file }, Some(Outcome::Mismatch(_))) = (&event.op, &event.outcome) else { continue };
        // One without an answer, with nobody who came to his end after it and before this one.
        let same = |e: &&Event| matches!(&e.op, Op::Rewrite { file: f } if f == file);
        let whole = |e: &Event| matches!(e.outcome, Some(Outcome::Done | Outcome::Mismatch(_)));
        let excuse = history.events.iter().filter(same).filter(|e| !whole(e) && Some(e.start) < event.end).any(|e| {
            let after = history.killed(e.by).unwrap_or(e.start);
            let between = |b: &Event| b.start > after && b.end.is_some_and(|end| end < event.start);
            !history.events.iter().filter(same).any(|b| whole(b) && between(b))
        });
        if !excuse {
            wrong.push(format!("changed without the lock, or lost: {}", show(event)));
        }
    }
    shorten(wrong)
}
