//! The log that all append to: each acknowledged line once, in the order of time; who reads it sees its beginning.

use super::{Event, History, Op, Outcome, shorten, show};
use std::collections::HashMap;

/// Bytes of a line.
pub(super) const LINE: u64 = crate::worker::LINE as u64;

pub(super) fn check(history: &History) -> Vec<String> {
    let events: Vec<&Event> = history.events.iter().collect();
    let mut appends: HashMap<(u32, u32), &Event> = HashMap::new();
    let mut readings: Vec<(&Event, &Vec<(u32, u32)>)> = Vec::new();
    for event in &events {
        match (&event.op, &event.outcome) {
            (Op::Append { writer, number }, _) => {
                appends.insert((*writer, *number), event);
            }
            (Op::LogLines, Some(Outcome::Lines(lines))) => readings.push((event, lines)),
            _ => {}
        }
    }
    // Those who read at the end, when nobody wrote.
    let last = appends.values().filter_map(|e| e.end).max().unwrap_or(0);
    readings.retain(|(e, _)| e.start >= last);
    let Some((_, lines)) = readings.first() else {
        return if appends.is_empty() { Vec::new() } else { vec!["log: nobody read it at the end".into()] };
    };
    let mut wrong = Vec::new();
    for (event, other) in readings.iter().skip(1).filter(|(_, other)| other != lines) {
        wrong.push(format!(
            "log: another content ({} lines, not {}): incarnation {}",
            other.len(),
            lines.len(),
            event.by
        ));
    }
    let at = placed(&appends, lines, &mut wrong);
    in_time(&appends, lines, &mut wrong);
    lengths(history, &appends, lines, &at, &mut wrong);
    shorten(wrong)
}

/// Where each line is; complains of lines that are there twice, were never written, or are not there.
fn placed(
    appends: &HashMap<(u32, u32), &Event>,
    lines: &[(u32, u32)],
    wrong: &mut Vec<String>,
) -> HashMap<(u32, u32), u64> {
    let mut at = HashMap::new();
    for (i, line) in lines.iter().enumerate() {
        if !appends.contains_key(line) {
            wrong.push(format!("log: line {i} is {line:?}, which nobody wrote"));
        } else if let Some(first) = at.insert(*line, i as u64) {
            wrong.push(format!("log: {line:?} is line {first} and line {i}"));
        }
    }
    let mut lost: Vec<&&Event> =
        appends.iter().filter(|(line, e)| e.done() && !at.contains_key(line)).map(|(_, e)| e).collect();
    lost.sort_by_key(|e| e.start);
    wrong.extend(lost.iter().map(|e| format!("log: acknowledged and lost: {}", show(e))));
    at
}

/// No line stands before one that had been acknowledged when it was begun.
fn in_time(appends: &HashMap<(u32, u32), &Event>, lines: &[(u32, u32)], wrong: &mut Vec<String>) {
    let mut earliest: Option<&Event> = None;
    for event in lines.iter().rev().filter_map(|line| appends.get(line)) {
        if let Some(later) = earliest.filter(|later| later.end.is_some_and(|end| end < event.start)) {
            wrong.push(format!("log: out of order:\n  {}\n  {}", show(later), show(event)));
        }
        if event.end.is_some() && earliest.is_none_or(|e| event.end < e.end) {
            earliest = Some(event);
        }
    }
}

/// What was seen in between is a beginning of the whole, and had all that was acknowledged.
fn lengths(
    history: &History,
    appends: &HashMap<(u32, u32), &Event>,
    lines: &[(u32, u32)],
    at: &HashMap<(u32, u32), u64>,
    wrong: &mut Vec<String>,
) {
    let mut ends: Vec<(u64, u64)> = appends.iter().filter_map(|(line, e)| Some((e.end?, *at.get(line)? + 1))).collect();
    ends.sort_unstable();
    let mut most = 0;
    for (_, line) in &mut ends {
        most = most.max(*line);
        *line = most;
    }
    let mut starts: Vec<(u64, u64)> = appends.iter().filter_map(|(line, e)| Some((e.start, *at.get(line)?))).collect();
    starts.sort_unstable();
    let mut least = u64::MAX;
    for (_, line) in starts.iter_mut().rev() {
        least = least.min(*line);
        *line = least;
    }
    for event in &history.events {
        let (length, sum) = match event.outcome {
            Some(Outcome::Length(length)) => (length, None),
            Some(Outcome::Content(length, sum)) => (length, Some(sum)),
            _ => continue,
        };
        let Some(end) = event.end else { continue };
        let known = ends.partition_point(|(e, _)| *e < event.start).checked_sub(1).and_then(|i| ends.get(i));
        let known = known.map_or(0, |(_, line)| *line * LINE);
        if length < known {
            wrong.push(format!("log: shorter than what was acknowledged ({known}): {}", show(event)));
        }
        if history.killed(event.by).is_some() {
            // It may have seen lines of its own that died with it.
            continue;
        }
        let future = starts.get(starts.partition_point(|(s, _)| *s <= end)).map_or(u64::MAX, |(_, line)| line * LINE);
        if length > future.min(lines.len() as u64 * LINE) || length % LINE != 0 {
            wrong.push(format!("log: longer than it can have been ({}): {}", lines.len() as u64 * LINE, show(event)));
        } else if let Some(sum) = sum {
            let prefix = lines.get(..(length / LINE) as usize).unwrap_or(&[]);
            let bytes: Vec<u8> = prefix.iter().flat_map(|(w, n)| crate::worker::log_line(*w, *n)).collect();
            if crate::worker::sum(&bytes) != sum {
                wrong.push(format!("log: other content than at the end: {}", show(event)));
            }
        }
    }
}
