//! What the observer knows, and what it makes of it.
//!
//! A node takes the time *after* it was granted a lock and *before* it gives it up, so the interval between lies within
//! the time in which it held the lock; two such intervals that overlap and exclude one another prove that the lock
//! manager broke its promise. An interval that was never closed lasts until the life it belongs to has ended beyond
//! doubt: until the fence agent was told that the node is off, or the node was started anew.

use lockclient::mode::Mode;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share.
pub(crate) fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // Neither is negative.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Milliseconds as the log has them.
pub(crate) const MS: u64 = 1_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The life begins.
    Born,
    /// The node is a member.
    Joined,
    /// The node holds a lock.
    Granted { token: u64, name: String, mode: Mode },
    /// It is about to give it up.
    Released { token: u64 },
    /// Its lockspace has ended, and it did not ask for it.
    Ended,
    /// It has left, as asked.
    Left,
    /// Fencing of this life was reported done.
    Fenced,
    /// It was asked for a word, and everything before it is read.
    Mark(u64),
    /// Its output has ended, and is read.
    Silent,
    /// Something the log should have, for whoever reads it.
    Note(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: u64,
    pub(crate) node: u32,
    pub(crate) life: u64,
    pub(crate) what: What,
}

/// Everything that was heard, in the order in which it was heard.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<(Mutex<Vec<Entry>>, Condvar)>);

struct Interval {
    node: u32,
    life: u64,
    mode: Mode,
    from: u64,
    to: u64,
}

impl Log {
    pub(crate) fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        // A list that is only ever added to.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, entry: Entry) {
        self.entries().push(entry);
        self.0.1.notify_all();
    }

    /// A line of a node: the time, what, and the rest. Anything else is a note.
    pub(crate) fn hear(&self, node: u32, life: u64, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let number = |i: usize| words.get(i).and_then(|word| word.parse::<u64>().ok());
        let what = match (number(0), words.get(1).copied()) {
            (Some(_), Some("joined")) => What::Joined,
            (Some(_), Some("ended")) => What::Ended,
            (Some(_), Some("left")) => What::Left,
            (Some(_), Some("mark")) if number(2).is_some() => What::Mark(number(2).unwrap_or(0)),
            (Some(_), Some("granted")) => match (number(2), words.get(3), words.get(4)) {
                (Some(token), Some(name), Some(mode)) => {
                    let mode = if *mode == "Ex" { Mode::Ex } else { Mode::Pr };
                    What::Granted { token, name: (*name).to_owned(), mode }
                }
                _ => What::Note(line.to_owned()),
            },
            (Some(_), Some("released")) if number(2).is_some() => What::Released { token: number(2).unwrap_or(0) },
            _ => What::Note(line.to_owned()),
        };
        self.add(Entry { at: number(0).unwrap_or_else(now), node, life, what });
    }

    /// Waits until the log has it.
    pub(crate) fn wait(&self, what: &str, limit: Duration, seen: impl Fn(&[Entry]) -> bool) -> Result<(), String> {
        let end = Instant::now() + limit;
        let mut entries = self.entries();
        while !seen(&entries) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("not within {} s: {what}", limit.as_secs_f32()));
            }
            entries = self.0.1.wait_timeout(entries, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// Grants to a node in a span of time.
    pub(crate) fn grants(&self, node: u32, from: u64, to: u64) -> usize {
        let entries = self.entries();
        let within = |entry: &&Entry| entry.node == node && (from..to).contains(&entry.at);
        entries.iter().filter(within).filter(|entry| matches!(entry.what, What::Granted { .. })).count()
    }

    pub(crate) fn count(&self, what: &What) -> usize {
        self.entries().iter().filter(|entry| entry.what == *what).count()
    }

    /// When the fencing of this node was last reported done.
    pub(crate) fn fenced_at(&self, node: u32) -> Option<u64> {
        self.entries().iter().rev().find(|e| e.node == node && e.what == What::Fenced).map(|e| e.at)
    }

    pub(crate) fn numbers(&self) -> String {
        let grants = self.entries().iter().filter(|e| matches!(e.what, What::Granted { .. })).count();
        format!("{grants} grants, {} fenced", self.count(&What::Fenced))
    }

    /// The last entries that are not about locks, and the very last of all.
    pub(crate) fn tail(&self, n: usize) -> String {
        let entries = self.entries();
        let begin = entries.iter().map(|entry| entry.at).min().unwrap_or(0);
        let tell = |entry: &Entry| {
            let at = (entry.at - begin) as f64 / 1e6;
            format!("        {at:>10.1} ms node {} life {}: {:?}\n", entry.node, entry.life, entry.what)
        };
        let rare = |e: &&Entry| !matches!(e.what, What::Granted { .. } | What::Released { .. });
        let rare: String = entries.iter().filter(rare).map(tell).collect();
        let last: String = entries[entries.len().saturating_sub(n)..].iter().map(tell).collect();
        format!("{rare}        ---\n{last}")
    }

    fn intervals(&self, until: u64) -> BTreeMap<String, Vec<Interval>> {
        let entries = self.entries();
        // The life before is over when its node is started anew: by then its process is gone.
        let mut ends: BTreeMap<u64, u64> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.what == What::Born) {
            for old in entries.iter().filter(|old| old.node == entry.node && old.life < entry.life) {
                let end = ends.entry(old.life).or_insert(u64::MAX);
                *end = entry.at.min(*end);
            }
        }
        for entry in entries.iter().filter(|entry| entry.what == What::Fenced) {
            let end = ends.entry(entry.life).or_insert(u64::MAX);
            *end = entry.at.min(*end);
        }
        let released: BTreeMap<(u64, u64), u64> = entries
            .iter()
            .filter_map(|e| if let What::Released { token } = e.what { Some(((e.life, token), e.at)) } else { None })
            .collect();
        let mut by_name: BTreeMap<String, Vec<Interval>> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.at <= until) {
            let What::Granted { token, name, mode } = &entry.what else { continue };
            let given_up = released.get(&(entry.life, *token)).copied().unwrap_or(u64::MAX);
            let end = ends.get(&entry.life).copied().unwrap_or(u64::MAX);
            let (node, life, mode) = (entry.node, entry.life, *mode);
            let interval = Interval { node, life, mode, from: entry.at, to: given_up.min(end) };
            by_name.entry(name.clone()).or_default().push(interval);
        }
        by_name
    }

    /// The promise: never two holders that exclude one another, and nothing new for whoever is fenced. Grants after
    /// `until` are not judged: what ended before them may not be known.
    pub(crate) fn check(&self, until: u64) -> Result<(), String> {
        self.nothing_after_fencing()?;
        for (name, mut intervals) in self.intervals(until) {
            intervals.sort_by_key(|interval| interval.from);
            let mut holding: Vec<&Interval> = Vec::new();
            for interval in &intervals {
                holding.retain(|other| other.to > interval.from);
                if let Some(other) = holding.iter().find(|other| !other.mode.compatible(interval.mode)) {
                    let held = (interval.from - other.from) as f64 / 1e6;
                    let end = if other.to == u64::MAX {
                        "still".to_owned()
                    } else {
                        format!("for another {:.3} ms", (other.to - interval.from) as f64 / 1e6)
                    };
                    return Err(format!(
                        "TWO HOLDERS of {name}: node {} (life {}) has {:?} since {held:.3} ms and keeps it {end}, node {} \
                         (life {}) was granted {:?}",
                        other.node, other.life, other.mode, interval.node, interval.life, interval.mode
                    ));
                }
                holding.push(interval);
            }
        }
        Ok(())
    }

    fn nothing_after_fencing(&self) -> Result<(), String> {
        let entries = self.entries();
        for fenced in entries.iter().filter(|entry| entry.what == What::Fenced) {
            let late = |e: &&Entry| {
                e.life == fenced.life && e.at > fenced.at && matches!(e.what, What::Granted { .. } | What::Joined)
            };
            if let Some(late) = entries.iter().find(late) {
                let after = (late.at - fenced.at) as f64 / 1e6;
                return Err(format!("FENCED AND AT WORK: node {}, {after:.3} ms later: {:?}", late.node, late.what));
            }
        }
        Ok(())
    }
}
