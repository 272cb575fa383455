//! Were the answers those of one filesystem? Pure: from a history to the list of what is wrong with it.
//!
//! The promise: while all nodes live, operations on one object happen one after another, each at some moment between its
//! start and its end. A killed node takes with it what it had not fsynced and nobody else had seen, and nothing else.

#[path = "checker/locks.rs"]
mod locks;
#[path = "checker/log.rs"]
mod log;
#[path = "checker/places.rs"]
mod places;
#[path = "checker/registers.rs"]
mod registers;
#[path = "checker/search.rs"]
mod search;
#[cfg(test)]
#[path = "checker/tests.rs"]
mod tests;

use super::history::{Event, History, Op, Outcome};

/// Complaints of one kind that are listed.
const EACH: usize = 4;

/// All that is wrong.
pub fn check(mut history: History) -> Vec<String> {
    history.settle();
    let mut wrong = Vec::new();
    for part in [strange, registers::check, locks::counters, locks::rewrites, log::check, places::names, places::tokens]
    {
        wrong.extend(part(&history));
    }
    wrong
}

/// An event for a human, times in milliseconds.
fn show(event: &Event) -> String {
    let ms = |t: u64| format!("{}.{:03}", t / 1_000_000, t / 1000 % 1000);
    format!(
        "[incarnation {} process {} {}..{}] {:?} -> {:?}",
        event.by,
        event.process,
        ms(event.start),
        event.end.map_or_else(|| "never".into(), ms),
        event.op,
        event.outcome
    )
}

/// Errors and wrong contents that the worker itself saw.
fn strange(history: &History) -> Vec<String> {
    let mut wrong = Vec::new();
    for event in &history.events {
        let excused = history.incarnations.get(event.by).and_then(|i| i.faulty);
        let excused = excused.zip(event.end).is_some_and(|(faulty, end)| end >= faulty);
        match &event.outcome {
            Some(Outcome::Wrong(_)) => wrong.push(format!("wrong content: {}", show(event))),
            Some(Outcome::Failed(_)) if !excused => wrong.push(format!("strange answer: {}", show(event))),
            _ => {}
        }
    }
    shorten(wrong)
}

/// The first few of many, and how many there were.
fn shorten(mut wrong: Vec<String>) -> Vec<String> {
    let more = wrong.len().saturating_sub(EACH);
    wrong.truncate(EACH);
    if more > 0 {
        wrong.push(format!("(and {more} more of the last kind)"));
    }
    wrong
}

/// How many operations were answered, by kind: a run that did nothing proves nothing.
pub fn summary(history: &History) -> String {
    let mut kinds: std::collections::BTreeMap<String, (u64, u64)> = std::collections::BTreeMap::new();
    for event in &history.events {
        let kind = match &event.op {
            Op::Read { how, .. } => format!("read-{how:?}"),
            Op::Count { lock, .. } => format!("count-{lock:?}"),
            op => format!("{op:?}").split([' ', '{', '(']).next().unwrap_or("").to_owned(),
        };
        let (all, answered) = kinds.entry(kind).or_default();
        *all += 1;
        *answered += u64::from(event.end.is_some());
    }
    let list: Vec<String> = kinds
        .iter()
        .map(|(k, (all, ok))| if all == ok { format!("{k} {ok}") } else { format!("{k} {ok}/{all}") })
        .collect();
    list.join(", ")
}
