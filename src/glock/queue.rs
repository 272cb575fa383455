//! The holders that wait for a glock, in the order in which they came.

use super::mode::LockState;
use std::collections::VecDeque;

/// Which waiter is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ticket(pub(super) u64);

/// How a holder comes in while the kernel gives back what it cached under the lock ([`Protected::drain`](super::Protected)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Entry {
    /// After that.
    #[default]
    Ordinary,
    /// At once, because giving back waits for it: data that the kernel writes back.
    WriteBack,
    /// At once too, but afterwards the kernel may have something again: it fills a page, or changes a file's size.
    Fill,
}

/// A holder that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Waiter {
    /// Which.
    pub(super) ticket: Ticket,
    /// The state it wants.
    pub(super) wants: LockState,
    /// It must not wait for another holder or node.
    pub(super) tries: bool,
    /// How it comes in during a drain.
    pub(super) entry: Entry,
}

/// Waiters in strict order: nobody is granted before the one in front of it, so neither readers nor writers starve.
#[derive(Debug, Default)]
pub(super) struct Queue {
    waiters: VecDeque<Waiter>,
}

impl Queue {
    /// True when nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }
    /// The one in front.
    pub(super) fn front(&self) -> Option<Waiter> {
        self.waiters.front().copied()
    }
    /// Puts one at the end.
    pub(super) fn push(&mut self, waiter: Waiter) {
        self.waiters.push_back(waiter);
    }
    /// Takes the one in front if it may be granted: `state` is good for it and it gets along with those that hold (`held`).
    pub(super) fn pop_fitting(&mut self, state: LockState, held: LockState, exact: bool) -> Option<Waiter> {
        let front = self.front()?;
        if state.is_good_for(front.wants, exact) && held.coexists(front.wants) { self.pop() } else { None }
    }
    /// Takes out the one in front.
    pub(super) fn pop(&mut self) -> Option<Waiter> {
        let front = self.waiters.pop_front();
        self.trim();
        front
    }
    /// There are a million glocks, and hardly ever somebody waits: an empty queue takes no memory.
    fn trim(&mut self) {
        if self.waiters.is_empty() {
            self.waiters = VecDeque::new();
        }
    }
    /// Takes out a waiter wherever it stands; false when it is not there.
    pub(super) fn remove(&mut self, ticket: Ticket) -> bool {
        let before = self.waiters.len();
        self.waiters.retain(|w| w.ticket != ticket);
        let found = self.waiters.len() != before;
        self.trim();
        found
    }
    /// Takes out the first one that a drain waits for, if it may be granted.
    pub(super) fn pop_drain_holder(&mut self, state: LockState, held: LockState) -> Option<Waiter> {
        let at = self
            .waiters
            .iter()
            .position(|w| w.entry != Entry::Ordinary && state.permits(w.wants) && held.coexists(w.wants))?;
        let waiter = self.waiters.remove(at);
        self.trim();
        waiter
    }
    /// Takes out every waiter that tries.
    pub(super) fn take_trying(&mut self) -> Vec<Waiter> {
        let trying = self.waiters.iter().filter(|w| w.tries).copied().collect();
        self.waiters.retain(|w| !w.tries);
        self.trim();
        trying
    }
    /// Those who wait, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.waiters.iter()
    }
}
