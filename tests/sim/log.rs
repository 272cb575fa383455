//! A file that every node appends to: what was appended must be there once, in order, unless it may be lost.

use crate::history::Moment;
use std::collections::BTreeMap;
use std::sync::Mutex;

#[derive(Clone, Debug)]
struct Append {
    by: u64,
    value: u64,
    begun: Moment,
    ended: Moment,
    failed: bool,
    durable: bool,
    /// Another node has read it: only the loss of power can take it away.
    seen: bool,
    /// Its node died, or the power went.
    doubtful: bool,
}

#[derive(Default)]
struct State {
    now: Moment,
    appends: Vec<Append>,
    dead: BTreeMap<u64, Moment>,
}

/// The history of the log file.
#[derive(Default)]
pub(crate) struct Log(Mutex<State>);

/// Bytes of a record.
pub(crate) const RECORD: usize = 64;

impl Log {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no panic in a log")
    }
    /// Now.
    pub(crate) fn moment(&self) -> Moment {
        let mut state = self.lock();
        state.now += 1;
        state.now
    }
    /// An append begins.
    pub(crate) fn begin(&self, by: u64, value: u64) -> usize {
        let begun = self.moment();
        let mut state = self.lock();
        let doubtful = state.dead.contains_key(&by);
        state.appends.push(Append {
            by,
            value,
            begun,
            ended: Moment::MAX,
            failed: false,
            durable: false,
            seen: false,
            doubtful,
        });
        state.appends.len() - 1
    }
    /// It ended.
    pub(crate) fn end(&self, n: usize, ok: bool) {
        let ended = self.moment();
        let mut state = self.lock();
        (state.appends[n].ended, state.appends[n].failed) = (ended, !ok);
    }
    /// What this life appended until then is durable.
    pub(crate) fn durable(&self, by: u64, since: Moment) {
        for a in self.lock().appends.iter_mut().filter(|a| a.by == by && a.ended <= since && !a.failed) {
            a.durable = true;
        }
    }
    /// A life ended.
    pub(crate) fn died(&self, by: u64) {
        let now = self.moment();
        let mut state = self.lock();
        state.dead.entry(by).or_insert(now);
        for a in state.appends.iter_mut().filter(|a| a.by == by && !a.seen) {
            a.doubtful = true;
        }
    }
    /// The power went.
    pub(crate) fn power_lost(&self) {
        self.lock().appends.iter_mut().for_each(|a| a.doubtful = true);
    }
    /// A read that began at `begun` found these records.
    pub(crate) fn read(&self, by: u64, begun: Moment, found: &[u64]) -> Result<(), String> {
        let now = self.moment();
        let mut state = self.lock();
        if state.dead.contains_key(&by) {
            return Ok(());
        }
        let mut places = BTreeMap::new();
        for (place, value) in found.iter().enumerate() {
            if places.insert(*value, place).is_some() {
                return Err(format!("the log has {value:#x} twice: {found:x?}"));
            }
            if !state.appends.iter().any(|a| a.value == *value && a.begun < now) {
                return Err(format!("the log has {value:#x}, which nobody appended: {found:x?}"));
            }
        }
        for a in &state.appends {
            let certain = a.durable || !a.failed && !a.doubtful;
            if a.ended < begun && certain && !places.contains_key(&a.value) {
                return Err(format!("the log has lost {a:x?}: {found:x?}"));
            }
            for b in &state.appends {
                if a.ended < b.begun
                    && !a.failed
                    && let (Some(x), Some(y)) = (places.get(&a.value), places.get(&b.value))
                    && x > y
                {
                    return Err(format!("the log has {b:x?} before {a:x?}: {found:x?}"));
                }
            }
        }
        for a in state.appends.iter_mut().filter(|a| a.by != by && places.contains_key(&a.value)) {
            (a.seen, a.ended) = (true, a.ended.min(now));
        }
        Ok(())
    }
}
