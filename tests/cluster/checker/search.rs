//! A search through all orders in which the operations of one small object can have happened (Wing and Gong): the set of
//! states it can be in is followed through time.

use super::{Event, History, show};
use std::collections::BTreeSet;

/// An object with few states.
pub(super) trait Model {
    type State: Copy + Ord;

    fn initial(&self) -> Self::State;

    /// The state after this operation with its recorded outcome (None: any outcome); None when it cannot happen now.
    fn apply(&self, state: Self::State, event: &Event) -> Option<Self::State>;

    /// The operation returned: what its last part (an fsync) did.
    fn returned(&self, state: Self::State, event: &Event) -> Self::State;

    /// The states that are possible after the death of this incarnation.
    fn killed(&self, state: Self::State, by: usize) -> Vec<Self::State>;
}

/// What happens, in the order of time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Moment {
    Begin(usize),
    End(usize),
    Kill(usize),
}

/// The most operations that are under way at once; beyond it nothing is proved.
const OPEN_MAX: usize = 60;

/// Where it first goes wrong; `events` in any order. `finals` are checked in the state at the end.
pub(super) fn search<M: Model>(model: &M, history: &History, events: &[&Event]) -> Result<(), String> {
    let mut moments: Vec<(u64, Moment)> = Vec::new();
    for (i, event) in events.iter().enumerate() {
        moments.push((event.start, Moment::Begin(i)));
        moments.extend(event.end.map(|end| (end, Moment::End(i))));
    }
    for (by, incarnation) in history.incarnations.iter().enumerate() {
        moments.extend(incarnation.killed.map(|k| (k, Moment::Kill(by))));
    }
    moments.sort_unstable();
    // The operations under way, by slot; a configuration is which of them have happened, and the state.
    let mut open: Vec<Option<usize>> = Vec::new();
    let mut now: BTreeSet<(u64, M::State)> = BTreeSet::from([(0, model.initial())]);
    for (_, moment) in moments {
        match moment {
            Moment::Begin(i) => {
                let slot = open.iter().position(Option::is_none).unwrap_or(open.len());
                if slot >= OPEN_MAX {
                    return Err(format!("more than {OPEN_MAX} operations at once: {}", show(events[i])));
                }
                open.resize(open.len().max(slot + 1), None);
                open[slot] = Some(i);
            }
            Moment::End(i) => {
                let Some(slot) = open.iter().position(|o| *o == Some(i)) else { continue };
                let bit = 1u64 << slot;
                let reached = closure(model, events, &open, now);
                let clear = |(done, state): &(u64, M::State)| (done & !bit, model.returned(*state, events[i]));
                now = reached.iter().filter(|(done, _)| done & bit != 0).map(clear).collect();
                open[slot] = None;
                if now.is_empty() {
                    return Err(show(events[i]));
                }
            }
            Moment::Kill(by) => {
                // What was under way there happened before, or never.
                let mut mask = 0u64;
                let reached = closure(model, events, &open, now);
                for (slot, held) in open.iter_mut().enumerate() {
                    if held.is_some_and(|i| events[i].by == by) {
                        mask |= 1 << slot;
                        *held = None;
                    }
                }
                let after = |(done, state): (u64, M::State)| {
                    model.killed(state, by).into_iter().map(move |s| (done & !mask, s))
                };
                now = reached.into_iter().flat_map(after).collect();
            }
        }
    }
    Ok(())
}

/// All configurations that operations under way can lead to.
fn closure<M: Model>(
    model: &M,
    events: &[&Event],
    open: &[Option<usize>],
    from: BTreeSet<(u64, M::State)>,
) -> BTreeSet<(u64, M::State)> {
    let mut work: Vec<(u64, M::State)> = from.iter().copied().collect();
    let mut all = from;
    while let Some((done, state)) = work.pop() {
        for (slot, held) in open.iter().enumerate() {
            let Some(i) = held else { continue };
            if done & 1 << slot != 0 {
                continue;
            }
            if let Some(next) = model.apply(state, events[*i]) {
                let next = (done | 1 << slot, next);
                if all.insert(next) {
                    work.push(next);
                }
            }
        }
    }
    all
}
