//! A few names that all nodes move between the same directories: each is in exactly one of them.
//!
//! Operations have a beginning and an end. All orders in which those that are under way can have happened are followed through time
//! (Wing and Gong): when one ends, what it answered must fit one of the orders that are left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

/// Directories, and what is moved between them; the last of it is a directory.
pub(crate) const PLACES: usize = 3;
pub(crate) const TOKENS: usize = 3;

/// What is done to a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Move { from: usize, to: usize },
    Look { at: usize },
}

/// What came of it. Who does not know says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was there, or has been moved.
    Found,
    /// It was not there.
    Absent,
}

#[derive(Clone, Debug)]
struct Op {
    by: u64,
    kind: Kind,
    begun: u64,
    ended: Option<(u64, Outcome)>,
}

/// One order that is possible.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    /// Which of the operations under way have happened, and which of these found it.
    done: u64,
    found: u64,
    /// Where it is whoever dies.
    base: usize,
    /// Moves since, all of one life, which its death may undo from the end.
    since: Vec<(usize, usize)>,
    /// Where it can be when the power goes: a set of bits.
    dark: u64,
    /// The last move.
    last: Option<usize>,
}

#[derive(Debug)]
struct Token {
    ops: Vec<Op>,
    /// Under way, by slot.
    open: Vec<Option<usize>>,
    orders: BTreeSet<Order>,
    /// Lives that ended.
    dead: BTreeSet<u64>,
}

#[derive(Default)]
struct State {
    now: u64,
    tokens: BTreeMap<usize, Token>,
    dead: BTreeSet<u64>,
    power: bool,
}

/// The history of all tokens.
#[derive(Default)]
pub(crate) struct Tokens(Mutex<State>);

impl Order {
    fn place(&self) -> usize {
        self.since.last().map_or(self.base, |(_, place)| *place)
    }
    /// The first moves of those that a death could undo are there for good.
    fn settle(&mut self, moves: usize) {
        if let Some((_, place)) = moves.checked_sub(1).and_then(|n| self.since.get(n)) {
            self.base = *place;
            self.since.drain(..moves);
        }
    }
    /// A life has this directory's lock: whoever had it has written down all that happened to it.
    fn touched(&mut self, ops: &[Op], by: u64, at: usize) {
        if self.since.last().is_none_or(|(op, _)| ops[*op].by == by) {
            return;
        }
        let from = |n: usize| if n == 0 { self.base } else { self.since[n - 1].1 };
        let last = (0..self.since.len()).rev().find(|n| self.since[*n].1 == at || from(*n) == at);
        self.settle(last.map_or(0, |n| n + 1));
    }
    /// After that operation, if it can happen now with that outcome.
    fn after(&self, ops: &[Op], n: usize, slot: usize, outcome: Outcome) -> Option<Self> {
        let op = &ops[n];
        let at = match op.kind {
            Kind::Move { from, .. } => from,
            Kind::Look { at } => at,
        };
        if (self.place() == at) != (outcome == Outcome::Found) {
            return None;
        }
        let mut next = self.clone();
        next.done |= 1 << slot;
        next.found |= u64::from(outcome == Outcome::Found) << slot;
        next.touched(ops, op.by, at);
        if let (Kind::Move { to, .. }, Outcome::Found) = (op.kind, outcome) {
            next.touched(ops, op.by, to);
            // (Of a life that ended nothing is certain, but nothing more will be undone either: it has happened or not.)
            next.since.push((n, to));
            next.dark |= 1 << to;
            next.last = Some(n);
        }
        Some(next)
    }
}

impl Token {
    fn new() -> Self {
        let order = Order { done: 0, found: 0, base: 0, since: Vec::new(), dark: 1, last: None };
        Self { ops: Vec::new(), open: Vec::new(), orders: BTreeSet::from([order]), dead: BTreeSet::new() }
    }

    /// Lets those under way happen that can have.
    fn spread(&mut self) {
        let mut todo: Vec<Order> = self.orders.iter().cloned().collect();
        while let Some(order) = todo.pop() {
            for (slot, n) in self.open.iter().enumerate().filter_map(|(slot, n)| Some((slot, (*n)?))) {
                if order.done >> slot & 1 == 1 {
                    continue;
                }
                for outcome in [Outcome::Found, Outcome::Absent] {
                    // What nobody will hear of matters only if it moves something.
                    let op = &self.ops[n];
                    let nothing = outcome == Outcome::Absent || matches!(op.kind, Kind::Look { .. });
                    if self.dead.contains(&op.by) && nothing || op.ended.is_some_and(|(_, o)| o != outcome) {
                        continue;
                    }
                    if let Some(next) = order.after(&self.ops, n, slot, outcome)
                        && self.orders.insert(next.clone())
                    {
                        todo.push(next);
                    }
                }
            }
        }
    }

    fn end(&mut self, slot: usize, now: u64, outcome: Outcome) -> bool {
        let Some(n) = self.open[slot] else { return true };
        self.ops[n].ended = Some((now, outcome));
        // What happened in the place of an answer that is not this one.
        self.spread();
        let bit = 1 << slot;
        let right = if outcome == Outcome::Found { bit } else { 0 };
        let fits = |o: &Order| o.done & bit != 0 && o.found & bit == right;
        let closed = |o: Order| Order { done: o.done & !bit, found: o.found & !bit, ..o };
        self.orders = std::mem::take(&mut self.orders).into_iter().filter(fits).map(closed).collect();
        self.open[slot] = None;
        !self.orders.is_empty()
    }

    /// What did not outlive this: as `left` says how many moves are left.
    fn undo(&mut self, fits: impl Fn(&Op) -> bool) {
        let mut left = BTreeSet::new();
        for order in &self.orders {
            if order.since.first().is_some_and(|(op, _)| fits(&self.ops[*op])) {
                for n in 0..=order.since.len() {
                    let mut kept = Order { since: order.since[..n].to_vec(), ..order.clone() };
                    kept.settle(n);
                    left.insert(kept);
                }
            } else {
                left.insert(order.clone());
            }
        }
        self.orders = left;
    }

    fn power_lost(&mut self) {
        self.spread();
        let places = |o: &Order| (0..PLACES).filter(|p| o.dark >> p & 1 == 1).collect::<Vec<_>>();
        let at = |base| Order { done: 0, found: 0, base, since: Vec::new(), dark: 1 << base, last: None };
        self.orders = self.orders.iter().flat_map(places).map(at).collect();
        self.open.clear();
    }
}

impl Tokens {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("no panic in the history of tokens")
    }
    /// Now.
    pub(crate) fn moment(&self) -> u64 {
        let mut state = self.lock();
        state.now += 1;
        state.now
    }
    /// Something begins.
    pub(crate) fn begin(&self, by: u64, token: usize, kind: Kind) -> usize {
        let begun = self.moment();
        let mut state = self.lock();
        let dead = state.dead.clone();
        let token = state.tokens.entry(token).or_insert_with(Token::new);
        token.dead = dead;
        let slot = token.open.iter().position(Option::is_none).unwrap_or(token.open.len());
        assert!(slot < 64, "too much under way at once");
        token.open.resize(token.open.len().max(slot + 1), None);
        token.ops.push(Op { by, kind, begun, ended: None });
        token.open[slot] = Some(token.ops.len() - 1);
        slot
    }
    /// It has ended, and is certain. (Never called when nobody knows what came of it.)
    pub(crate) fn end(&self, by: u64, n: usize, slot: usize, outcome: Outcome) -> Result<(), String> {
        let now = self.moment();
        let mut state = self.lock();
        if state.dead.contains(&by) || state.power && by < 1_000_000 {
            return Ok(());
        }
        let token = state.tokens.get_mut(&n).expect("it has begun");
        if token.end(slot, now, outcome) {
            return Ok(());
        }
        let all: Vec<String> = token.ops.iter().rev().take(40).map(|op| format!("\n    {op:?}")).collect();
        Err(format!(
            "token {n} is in two places, or in none; the last that was done first:{}\n    dead {:?}",
            all.concat(),
            state.dead
        ))
    }
    /// It did nothing, or only looked.
    pub(crate) fn undone(&self, n: usize, slot: usize) {
        let mut state = self.lock();
        if let Some(token) = state.tokens.get_mut(&n)
            && let Some(open) = token.open.get_mut(slot)
        {
            let orders = std::mem::take(&mut token.orders);
            token.orders = orders.into_iter().filter(|o| o.done >> slot & 1 == 0).collect();
            *open = None;
        }
    }
    /// All moves of this life that had ended by `since` are on the disk.
    pub(crate) fn durable(&self, by: u64, since: u64) {
        let mut state = self.lock();
        if state.power {
            return;
        }
        for token in state.tokens.values_mut() {
            let (orders, ops) = (std::mem::take(&mut token.orders), &token.ops);
            let fits = |n: usize| ops[n].by == by && ops[n].ended.is_some_and(|(at, _)| at <= since);
            let firm = |mut order: Order| {
                if order.last.is_some_and(fits) {
                    order.dark = 1 << order.place();
                }
                let moves = order.since.iter().rposition(|(n, _)| fits(*n)).map_or(0, |n| n + 1);
                order.settle(moves);
                order
            };
            token.orders = orders.into_iter().map(firm).collect();
        }
    }
    /// A life ended.
    pub(crate) fn died(&self, by: u64) {
        let mut state = self.lock();
        if state.power || !state.dead.insert(by) {
            return;
        }
        for token in state.tokens.values_mut() {
            token.spread();
            token.dead.insert(by);
            token.undo(|op| op.by == by);
        }
    }
    /// The power went.
    pub(crate) fn power_lost(&self) {
        let mut state = self.lock();
        state.power = true;
        state.tokens.values_mut().for_each(Token::power_lost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn did(t: &Tokens, by: u64, kind: Kind, outcome: Outcome) -> Result<(), String> {
        let slot = t.begin(by, 0, kind);
        t.end(by, 0, slot, outcome)
    }

    #[test]
    fn it_is_in_one_place() {
        use Kind::{Look, Move};
        use Outcome::{Absent, Found};
        let t = Tokens::default();
        did(&t, 1, Move { from: 0, to: 1 }, Found).expect("it was there");
        did(&t, 2, Look { at: 1 }, Found).expect("it is");
        let slot = t.begin(1, 0, Move { from: 1, to: 2 });
        did(&t, 2, Look { at: 1 }, Found).expect("not yet");
        did(&t, 2, Look { at: 2 }, Found).expect("it is");
        t.end(1, 0, slot, Found).expect("it was there");
        t.died(1);
        did(&t, 2, Look { at: 2 }, Found).expect("it was seen");
        did(&t, 3, Move { from: 2, to: 0 }, Found).expect("it was there");
        t.died(3);
        did(&t, 2, Look { at: 2 }, Found).expect("undone");
        did(&t, 4, Move { from: 2, to: 0 }, Found).expect("it was there");
        t.durable(4, t.moment());
        t.died(4);
        assert!(did(&t, 2, Look { at: 2 }, Found).is_err(), "it was durable");
        let t = Tokens::default();
        assert!(did(&t, 2, Look { at: 0 }, Absent).is_err(), "it is there");
        let t = Tokens::default();
        did(&t, 1, Move { from: 0, to: 1 }, Found).expect("it was there");
        t.power_lost();
        did(&t, 1_000_000, Look { at: 0 }, Found).expect("undone");
        assert!(did(&t, 1_000_000, Look { at: 1 }, Found).is_err(), "in one only");
    }
}
