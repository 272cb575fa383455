//! Objects that hold one value, each value written once (Gibbons and Korach): a value's operations form a cluster with a zone
//! from the first end to the last start. The history can be put in order exactly when no two forward zones overlap and no
//! backward zone lies inside a forward one.

use super::{EACH, Event, History, Op, Outcome, shorten, show};
use crate::history::Object;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// All objects.
pub(super) fn check(history: &History) -> Vec<String> {
    let mut objects: BTreeMap<Object, Vec<&Event>> = BTreeMap::new();
    for event in &history.events {
        match &event.op {
            Op::Write { on, .. } | Op::Read { on, .. } => objects.entry(*on).or_default().push(event),
            Op::Sync { on } => on.iter().for_each(|o| objects.entry(*o).or_default().push(event)),
            _ => {}
        }
    }
    objects.iter().flat_map(|(object, events)| one(history, *object, events)).collect()
}

/// A value with what was done to it.
#[derive(Clone, Default)]
struct Cluster<'a> {
    write: Option<&'a Event>,
    reads: Vec<&'a Event>,
}

fn one(history: &History, object: Object, events: &[&Event]) -> Vec<String> {
    let lost = lossable(history, events);
    let mut kills: Vec<(u64, usize)> =
        history.incarnations.iter().enumerate().filter_map(|(i, n)| n.killed.map(|k| (k, i))).collect();
    kills.sort_unstable();
    // What was in order until each kill, with what that kill took away; then the whole without anything that was taken away.
    let mut gone: BTreeSet<u64> = BTreeSet::new();
    for (killed, by) in &kills {
        let wrong = ordered(object, events, *killed, &gone);
        if !wrong.is_empty() {
            return wrong;
        }
        gone.extend(lost.get(by).into_iter().flatten());
    }
    ordered(object, events, u64::MAX, &gone)
}

/// By incarnation, the values that its death may have taken away.
fn lossable(history: &History, events: &[&Event]) -> HashMap<usize, BTreeSet<u64>> {
    let mut lost: HashMap<usize, BTreeSet<u64>> = HashMap::new();
    let mut seen: HashMap<u64, BTreeSet<usize>> = HashMap::new();
    let mut synced: HashMap<usize, u64> = HashMap::new();
    for event in events {
        match (&event.op, &event.outcome) {
            (Op::Read { .. }, Some(Outcome::Value(value))) => {
                seen.entry(*value).or_default().insert(event.by);
            }
            (Op::Sync { .. }, Some(Outcome::Done)) => {
                let last = synced.entry(event.by).or_default();
                *last = event.start.max(*last);
            }
            _ => {}
        }
    }
    for event in events {
        let Op::Write { value, .. } = event.op else { continue };
        let durable = event.end.zip(synced.get(&event.by)).is_some_and(|(end, sync)| end <= *sync);
        let by_others = seen.get(&value).is_some_and(|s| s.iter().any(|by| *by != event.by));
        if history.killed(event.by).is_some() && !durable && !by_others {
            lost.entry(event.by).or_default().insert(value);
        }
    }
    lost
}

/// Can what had ended before `until` be put in order, when the values of `gone` never were?
fn ordered(object: Object, events: &[&Event], until: u64, gone: &BTreeSet<u64>) -> Vec<String> {
    let mut clusters: BTreeMap<u64, Cluster<'_>> = BTreeMap::new();
    for event in events.iter().filter(|e| e.start < until) {
        match (&event.op, &event.outcome) {
            (Op::Write { value, .. }, _) => clusters.entry(*value).or_default().write = Some(event),
            (Op::Read { .. }, Some(Outcome::Value(value))) if event.end.is_some_and(|e| e < until) => {
                clusters.entry(*value).or_default().reads.push(event);
            }
            _ => {}
        }
    }
    let mut wrong = Vec::new();
    let (mut forward, mut backward) = (Vec::new(), Vec::new());
    for (value, cluster) in &clusters {
        if gone.contains(value) {
            continue;
        }
        let started = match cluster.write {
            Some(write) => write.start,
            // What was there at the beginning.
            None if *value == 0 => 0,
            None => {
                wrong.push(format!("{object:?}: a value that nobody wrote: {}", show(cluster.reads[0])));
                continue;
            }
        };
        let ended = cluster.write.map_or(Some(0), |w| w.end.filter(|e| *e < until && w.done()));
        if let Some(early) = cluster.reads.iter().find(|r| r.end.is_some_and(|end| end < started)) {
            wrong.push(format!("{object:?}: read before it was written: {}", show(early)));
            continue;
        }
        let first = cluster.reads.iter().filter_map(|r| r.end).chain(ended).min();
        let last = cluster.reads.iter().map(|r| r.start).max().unwrap_or(0).max(started);
        // Never answered, never read: never happened.
        let Some(first) = first else { continue };
        if first < last {
            forward.push((first, last, *value));
        } else {
            backward.push((last, first, *value));
        }
    }
    forward.sort_unstable();
    for pair in forward.windows(2).filter(|p| p[1].0 < p[0].1).take(EACH) {
        wrong.push(format!(
            "{object:?}: two values at the same time:\n  {}\n  {}",
            cluster_text(&clusters, pair[0].2),
            cluster_text(&clusters, pair[1].2)
        ));
    }
    for (from, to, value) in backward {
        let before = forward.partition_point(|(first, _, _)| *first < from);
        let around = before.checked_sub(1).and_then(|i| forward.get(i)).filter(|(_, last, _)| to < *last);
        if let Some((_, _, around)) = around {
            wrong.push(format!(
                "{object:?}: a value came between two moments of another:\n  {}\n  {}",
                cluster_text(&clusters, value),
                cluster_text(&clusters, *around)
            ));
        }
    }
    shorten(wrong)
}

/// A cluster by its telling members: the write, the read that ended first, the one that began last.
fn cluster_text(clusters: &BTreeMap<u64, Cluster<'_>>, value: u64) -> String {
    let Some(cluster) = clusters.get(&value) else { return String::new() };
    let mut telling: Vec<&Event> = cluster.write.into_iter().collect();
    telling.extend(cluster.reads.iter().min_by_key(|r| r.end));
    telling.extend(cluster.reads.iter().max_by_key(|r| r.start));
    let telling: Vec<String> = telling.into_iter().map(show).collect();
    format!("{value:#x}: {}", telling.join("\n    "))
}
