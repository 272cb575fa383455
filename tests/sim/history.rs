//! What all nodes did to a set of registers, and what they may see of it.
//!
//! A register is a name in a directory or a sector of a file; its value a number. Operations have a beginning and an end in the one
//! order of all events. A read must give the value of a write that began before the read ended and that was not certainly overwritten
//! when the read began. A write is *certain* once it has ended, unless its node died without having made it durable and nobody
//! else had seen it; after a loss of power, unless it was made durable.

use std::collections::BTreeMap;
use std::sync::Mutex;

/// A point in the order of events.
pub(crate) type Moment = u64;

#[derive(Clone, Debug)]
struct Write {
    /// Which life of which node.
    by: u64,
    value: u64,
    begun: Moment,
    /// `MAX` while it has not; of a write that failed, when it failed.
    ended: Moment,
    /// It failed: it may have happened or not.
    failed: bool,
    /// When the node's fsync had returned that covers it.
    durable: Moment,
    /// When another node had read it.
    seen: Moment,
}

#[derive(Default)]
struct State {
    now: Moment,
    registers: BTreeMap<String, Vec<Write>>,
    /// When lives ended without a word.
    deaths: BTreeMap<u64, Moment>,
    power: Option<Moment>,
    reads: u64,
}

/// The history.
#[derive(Default)]
pub(crate) struct History(Mutex<State>);

/// A write under way.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    register: String,
    n: usize,
}

const NEVER: Moment = Moment::MAX;

impl History {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no panic in a history")
    }
    fn tick(state: &mut State) -> Moment {
        state.now += 1;
        state.now
    }

    /// Now.
    pub(crate) fn moment(&self) -> Moment {
        Self::tick(&mut self.lock())
    }
    /// What the register holds in the beginning, for good.
    pub(crate) fn begin_with(&self, register: &str, value: u64) {
        let first = Write { by: 0, value, begun: 0, ended: 0, failed: false, durable: 0, seen: 0 };
        self.lock().registers.entry(register.to_owned()).or_default().push(first);
    }
    /// Has anybody written to it?
    pub(crate) fn knows(&self, register: &str) -> bool {
        self.lock().registers.contains_key(register)
    }
    /// A write begins.
    pub(crate) fn write(&self, by: u64, register: &str, value: u64) -> Begun {
        let mut state = self.lock();
        let begun = Self::tick(&mut state);
        let writes = state.registers.entry(register.to_owned()).or_insert_with(|| {
            vec![Write { by: 0, value: 0, begun: 0, ended: 0, failed: false, durable: 0, seen: 0 }]
        });
        writes.push(Write { by, value, begun, ended: NEVER, failed: false, durable: NEVER, seen: NEVER });
        Begun { register: register.to_owned(), n: writes.len() - 1 }
    }
    /// It ended.
    pub(crate) fn wrote(&self, begun: &Begun, ok: bool) {
        let mut state = self.lock();
        let ended = Self::tick(&mut state);
        let write = &mut state.registers.get_mut(&begun.register).expect("begun")[begun.n];
        (write.ended, write.failed) = (ended, !ok);
    }
    /// It did nothing at all, for certain.
    pub(crate) fn undone(&self, begun: &Begun) {
        let mut state = self.lock();
        let write = &mut state.registers.get_mut(&begun.register).expect("begun")[begun.n];
        // Nobody may read it.
        (write.begun, write.ended, write.failed) = (NEVER, NEVER, true);
    }
    /// All that this life wrote and that had ended by `since` is durable; of the registers that fit.
    pub(crate) fn durable(&self, by: u64, since: Moment, fits: impl Fn(&str) -> bool) {
        let mut state = self.lock();
        let now = Self::tick(&mut state);
        for (_, writes) in state.registers.iter_mut().filter(|(name, _)| fits(name)) {
            for write in writes.iter_mut().filter(|w| w.by == by && w.ended <= since && !w.failed) {
                write.durable = write.durable.min(now);
            }
        }
    }
    /// A life ended.
    pub(crate) fn died(&self, by: u64) {
        let mut state = self.lock();
        let now = Self::tick(&mut state);
        state.deaths.entry(by).or_insert(now);
    }
    /// A node closed in order: all of it is on the disk.
    pub(crate) fn closed(&self, by: u64) {
        let now = self.moment();
        self.durable(by, now, |_| true);
    }
    /// The power went.
    pub(crate) fn power_lost(&self) {
        let mut state = self.lock();
        state.power = Some(Self::tick(&mut state));
    }
    /// Registers, and how many reads there were.
    pub(crate) fn sizes(&self) -> (usize, u64) {
        let state = self.lock();
        (state.registers.len(), state.reads)
    }
    /// All registers.
    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().registers.keys().cloned().collect()
    }

    /// A read that began at `begun` has just given `value`.
    pub(crate) fn read(&self, by: u64, register: &str, begun: Moment, value: u64) -> Result<(), String> {
        let mut state = self.lock();
        let ended = Self::tick(&mut state);
        state.reads += 1;
        let (deaths, power) = (state.deaths.clone(), state.power);
        if !state.registers.contains_key(register) {
            return if value == 0 { Ok(()) } else { Err(format!("{register} reads {value:#x}, nobody wrote to it")) };
        }
        let writes = state.registers.get_mut(register).expect("it is there");
        let certain = |w: &Write| {
            let seen = w.seen < begun && power.is_none_or(|at| w.begun > at);
            let kept = deaths.get(&w.by).is_none_or(|at| *at > begun) && power.is_none_or(|at| w.begun > at);
            let durable = w.durable < begun;
            if durable || seen { true } else { kept && !w.failed }
        };
        let overwritten = |old: &Write| {
            writes.iter().any(|w| {
                let end = w.ended.min(w.seen);
                old.ended.min(old.seen) < w.begun && end < begun && w.begun != NEVER && certain(w)
            })
        };
        let Some(n) = writes.iter().rposition(|w| w.value == value && w.begun < ended && !overwritten(w)) else {
            let all: Vec<String> = writes.iter().map(|w| format!("\n    {w:x?}")).collect();
            return Err(format!(
                "{register} reads {value:#x} at {begun:#x}..{ended:#x} in life {by}; it was written:{}\n    deaths {deaths:?}, power {power:?}",
                all.concat()
            ));
        };
        let alike = writes.iter().filter(|w| w.value == value && w.begun < ended).count();
        if writes[n].by != by && alike == 1 {
            writes[n].seen = writes[n].seen.min(ended);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_values_are_found() {
        let h = History::default();
        h.begin_with("r", 1);
        let w = h.write(10, "r", 2);
        assert!(h.read(20, "r", h.moment(), 1).is_ok(), "it has not ended");
        h.wrote(&w, true);
        assert!(h.read(20, "r", h.moment(), 1).is_err(), "it has");
        assert!(h.read(20, "r", h.moment(), 2).is_ok());
        assert!(h.read(20, "r", h.moment(), 3).is_err(), "nobody wrote it");
        h.died(10);
        assert!(h.read(20, "r", h.moment(), 1).is_err(), "it was seen");
        let w = h.write(11, "r", 5);
        h.wrote(&w, true);
        h.died(11);
        assert!(h.read(20, "r", h.moment(), 2).is_ok(), "it may be lost");
        let w = h.write(12, "r", 6);
        h.wrote(&w, true);
        h.durable(12, h.moment(), |_| true);
        h.died(12);
        assert!(h.read(20, "r", h.moment(), 2).is_err(), "it may not");
        h.power_lost();
        assert!(h.read(20, "r", h.moment(), 6).is_ok());
        assert!(h.read(20, "r", h.moment(), 2).is_err(), "nor then");
    }
}
