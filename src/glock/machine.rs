//! What a glock does next: a function of what it knows and what just happened. No clock, no thread, no lock in here.
//!
//! ```text
//!            Want, Released, Abandon           Blocking(ceiling), Tick
//!                    │                               │
//!   Idle ── grant from the front of the queue ── demote due and nobody holds ──► Draining ─ Drained ─► Syncing ─ Synced ─► Invalidating
//!    │                                                                                                                        │ Invalidated
//!    └─ the front waiter wants a stronger state, nobody holds ──► Asking ◄────────────────────────────────────────────────────┘
//!                                                                   └─ Replied ──► Idle
//! ```
//!
//! Invariants, restored after every event:
//! 1. At most one question to the lock manager is open, and the state changes only when it is answered.
//! 2. The state is never weakened while somebody holds.
//! 3. EX is left only after `Sync` succeeded. If it fails the lock is kept for good: others must replay our journal first.
//! 4. Waiters are granted in the order in which they came, but for drain holders (6).
//! 5. A state that was asked for on behalf of a waiter is used by it once before it may be demoted (else nodes could pass a
//!    lock to and fro without either getting anything done).
//! 6. While Draining, the kernel gives back what it caches under the lock, which is still held. What that may wait for (page
//!    fills, data written back, changes of size: [`Entry`]) is let in at once where the state permits it, past everybody else.
//!    Draining ends when they are gone and none of them has put anything new into the kernel's cache; otherwise it runs again.

use super::mode::LockState::{self, Unlocked};
use super::queue::{Entry, Queue, Ticket, Waiter};

/// Milliseconds on some steady clock.
pub(super) type Millis = u64;

/// Shortest time a lock is kept once it was got.
const HOLD_MIN: Millis = 10;
/// Longest time.
pub(super) const HOLD_MAX: Millis = 200;

/// What the lock manager answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The lock is in the state asked for.
    Granted,
    /// It would have had to wait and was told not to (or the request was cancelled). The state is as before.
    Refused,
    /// Two nodes wait to convert what both hold; this one must let go first. The state is as before.
    Deadlock,
    /// The lock service failed. The state is as before.
    Failed,
}

/// What happens to a glock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Somebody wants to hold.
    Want(Waiter),
    /// A holder is gone.
    Released,
    /// A waiter gives up. With `cancel`, so does the request made for it.
    Abandon { ticket: Ticket, cancel: bool },
    /// The lock manager answered.
    Replied(Reply),
    /// Another node waits for us to hold no more than `ceiling`.
    Blocking { ceiling: LockState },
    /// The lock is not needed here any more.
    Unneeded,
    /// Time has passed.
    Tick,
    /// The kernel has given back what it cached, or (false) could not be made to.
    Drained(bool),
    /// What was changed under the lock is on the disk, or (false) could not be brought there.
    Synced(bool),
    /// What was cached under the lock is forgotten.
    Invalidated,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The waiter holds now.
    Grant(Ticket),
    /// The waiter cannot have it.
    Refuse(Ticket, Refusal),
    /// Make the kernel give back what it may not cache when we hold no more than this; answer with `Drained`.
    Drain(LockState),
    /// Make everything clean on the disk; answer with `Synced`.
    Sync,
    /// Forget everything cached; answer with `Invalidated`.
    Invalidate,
    /// Ask the lock manager; answer with `Replied`.
    Ask { from: LockState, to: LockState, tries: bool },
    /// Take back the question that is open.
    Cancel,
    /// Come back with `Tick` at this time.
    WakeAt(Millis),
    /// The lock cannot be given up: stop writing for good.
    Withdraw,
}

/// Why a waiter cannot have the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It tried, and would have to wait.
    WouldWait,
    /// The lock service failed.
    Failed,
    /// This node has withdrawn.
    Withdrawn,
}

/// Where a change of state stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// None is under way.
    Idle,
    /// Waiting for `Drained`, or (`done`) for those who were let in meanwhile; then on to this state.
    Draining { to: LockState, done: bool },
    /// Waiting for `Synced`; then on to this state.
    Syncing(LockState),
    /// Waiting for `Invalidated`.
    Invalidating(LockState),
    /// Waiting for `Replied`. `since` when; `cancelled` when a cancel is on its way; `tries` when refusal is expected.
    Asking { to: LockState, since: Millis, cancelled: bool, tries: bool },
    /// A sync failed: this lock stays as it is for ever.
    Withdrawn,
}

/// The part of a glock that decides.
#[derive(Debug)]
pub(super) struct Machine {
    /// What the lock manager has given us.
    pub(super) state: LockState,
    /// What the present holders hold (UN when there are none) and how many they are.
    pub(super) held: (LockState, u32),
    /// Who waits.
    pub(super) queue: Queue,
    /// Another node's wish: no more than this, not before then.
    pub(super) demote: Option<(LockState, Millis)>,
    /// Where a change stands.
    pub(super) phase: Phase,
    /// The state was got for the waiter in front, which has not used it yet.
    owed: bool,
    /// When the state was got.
    acquired: Millis,
    /// How long it is kept at least, when somebody uses it.
    hold: Millis,
    /// Let go entirely before asking again: the lock manager saw a deadlock.
    let_go: bool,
    /// Drains come before syncs.
    drains: bool,
    /// Holders need exactly their state.
    exact: bool,
    /// Since the drain began somebody was let in who gave the kernel something to cache.
    tainted: bool,
}

impl Machine {
    /// An unlocked glock. `hold`: how long it is kept at least when it was got and is in use (inodes). `drains`: the kernel may cache what it protects. `exact`: see
    /// [`Protected::EXACT`](super::Protected).
    pub(super) fn new(hold: Millis, drains: bool, exact: bool) -> Self {
        Self {
            state: Unlocked,
            held: (Unlocked, 0),
            queue: Queue::default(),
            demote: None,
            phase: Phase::Idle,
            owed: false,
            acquired: 0,
            hold,
            let_go: false,
            drains,
            exact,
            tainted: false,
        }
    }

    /// True when nothing is under way and nobody waits: holders may come and go without asking.
    pub(super) fn is_quiet(&self) -> bool {
        self.phase == Phase::Idle && self.queue.is_empty() && self.demote.is_none() && !self.let_go
    }

    /// Something happened at time `now`; says what is to be done, in this order. At most one of the effects is a step of a
    /// change of state (`Drain`, `Sync`, `Invalidate`, `Ask`).
    pub(super) fn step(&mut self, event: Event, now: Millis) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::Want(waiter) => self.queue.push(waiter),
            Event::Released => self.released(),
            Event::Abandon { ticket, cancel } => self.abandon(ticket, cancel, &mut out),
            Event::Replied(reply) => self.replied(reply, now, &mut out),
            Event::Blocking { ceiling } => self.blocking(ceiling, now, true, &mut out),
            Event::Unneeded => self.blocking(Unlocked, now, false, &mut out),
            Event::Tick => {}
            Event::Drained(true) => {
                if let Phase::Draining { to, .. } = self.phase {
                    self.phase = Phase::Draining { to, done: true };
                }
            }
            Event::Synced(true) => self.synced(&mut out),
            Event::Synced(false) | Event::Drained(false) => {
                self.phase = Phase::Withdrawn;
                self.demote = None;
                out.push(Effect::Withdraw);
            }
            Event::Invalidated => self.invalidated(now, &mut out),
        }
        self.advance(now, &mut out);
        out
    }

    /// Does whatever can be done now.
    fn advance(&mut self, now: Millis, out: &mut Vec<Effect>) {
        match self.phase {
            Phase::Idle => {}
            Phase::Withdrawn => {
                while let Some(w) = self.queue.pop() {
                    out.push(Effect::Refuse(w.ticket, Refusal::Withdrawn));
                }
                return;
            }
            Phase::Draining { to, done } => {
                self.refuse_trying(out);
                return self.draining(to, done, now, out);
            }
            _ => return self.refuse_trying(out),
        }
        if self.demote.is_some_and(|(to, _)| !self.state.exceeds(to)) {
            self.demote = None;
        }
        let due = self.let_go || self.demote.is_some_and(|(_, at)| at <= now);
        self.promote(due, out);
        if self.held.1 > 0 {
            return self.refuse_trying(out);
        }
        match (self.demote, self.queue.front()) {
            _ if self.let_go => self.leave(Unlocked, now, out),
            (Some((to, _)), _) if due && !self.owed => self.leave(to, now, out),
            (_, Some(front)) if !self.state.is_good_for(front.wants, self.exact) => self.reach(front, now, out),
            _ => {}
        }
        if self.phase != Phase::Idle {
            let asking_for_front = matches!(self.phase, Phase::Asking { tries: true, .. });
            if !asking_for_front {
                self.refuse_trying(out);
            }
        }
    }

    /// Grants from the front of the queue, as many as fit. A demote that is due lets only the one in that is owed a use.
    fn promote(&mut self, due: bool, out: &mut Vec<Effect>) {
        // Where holders stay for long, whoever may share with them does not wait for a demotion that waits for them.
        while !due || self.owed || self.exact && self.held.1 > 0 {
            let Some(waiter) = self.queue.pop_fitting(self.state, self.held.0, self.exact) else { break };
            self.owed = false;
            self.held = (waiter.wants, self.held.1 + 1);
            out.push(Effect::Grant(waiter.ticket));
        }
        if self.queue.is_empty() {
            self.owed = false;
        }
    }

    /// Those who only try are told when they would have to wait.
    fn refuse_trying(&mut self, out: &mut Vec<Effect>) {
        if matches!(self.phase, Phase::Asking { tries: true, .. }) {
            return;
        }
        for w in self.queue.take_trying() {
            out.push(Effect::Refuse(w.ticket, Refusal::WouldWait));
        }
    }

    fn released(&mut self) {
        debug_assert!(self.held.1 > 0, "a release without a holder");
        self.held.1 = self.held.1.saturating_sub(1);
        if self.held.1 == 0 {
            self.held.0 = Unlocked;
        }
    }

    fn abandon(&mut self, ticket: Ticket, cancel: bool, out: &mut Vec<Effect>) {
        let was_front = self.queue.front().is_some_and(|w| w.ticket == ticket);
        self.queue.remove(ticket);
        if was_front {
            self.owed = false;
        }
        if let Phase::Asking { to, cancelled: false, since, tries } = self.phase
            && cancel
            && to != Unlocked
            && self.queue.is_empty()
        {
            self.phase = Phase::Asking { to, since, cancelled: true, tries };
            out.push(Effect::Cancel);
        }
    }

    /// Leaves the present state for a weaker one.
    fn leave(&mut self, to: LockState, now: Millis, out: &mut Vec<Effect>) {
        if self.state == Unlocked {
            self.let_go = false;
            self.demote = None;
            return;
        }
        if self.drains { self.drain(to, out) } else { self.sync_or_on(to, now, out) }
    }

    fn sync_or_on(&mut self, to: LockState, now: Millis, out: &mut Vec<Effect>) {
        if self.state.must_sync(to) {
            self.phase = Phase::Syncing(to);
            out.push(Effect::Sync);
        } else {
            self.invalidate_or_ask(to, false, now, out);
        }
    }

    fn drain(&mut self, to: LockState, out: &mut Vec<Effect>) {
        self.phase = Phase::Draining { to, done: false };
        self.tainted = false;
        out.push(Effect::Drain(to));
        self.let_drain_holders_in(out);
    }

    /// Those who are needed for the drain come in whatever the order.
    fn let_drain_holders_in(&mut self, out: &mut Vec<Effect>) {
        while let Some(waiter) = self.queue.pop_drain_holder(self.state, self.held.0) {
            self.held = (waiter.wants, self.held.1 + 1);
            self.tainted |= waiter.entry == Entry::Fill;
            out.push(Effect::Grant(waiter.ticket));
        }
    }

    /// One step of a drain. When the kernel has answered, nobody else is let in until all are out: then nothing waits for them.
    fn draining(&mut self, to: LockState, done: bool, now: Millis, out: &mut Vec<Effect>) {
        if !done {
            return self.let_drain_holders_in(out);
        }
        if self.held.1 > 0 {
            return;
        }
        let lowest = self.lowest(to);
        if self.tainted || lowest != to { self.drain(lowest, out) } else { self.sync_or_on(to, now, out) }
    }

    /// Goes for the state that the waiter in front wants.
    fn reach(&mut self, front: Waiter, now: Millis, out: &mut Vec<Effect>) {
        if self.drains && self.state.must_invalidate(front.wants) {
            self.drain(front.wants, out);
        } else if self.state.must_sync(front.wants) {
            // Only where locks are exact: elsewhere EX permits everything.
            self.phase = Phase::Syncing(front.wants);
            out.push(Effect::Sync);
        } else {
            self.invalidate_or_ask(front.wants, front.tries, now, out);
        }
    }

    fn invalidate_or_ask(&mut self, to: LockState, tries: bool, now: Millis, out: &mut Vec<Effect>) {
        if self.state.must_invalidate(to) {
            self.phase = Phase::Invalidating(to);
            out.push(Effect::Invalidate);
        } else {
            self.ask(to, tries, now, out);
        }
    }

    fn ask(&mut self, to: LockState, tries: bool, now: Millis, out: &mut Vec<Effect>) {
        self.phase = Phase::Asking { to, since: now, cancelled: false, tries };
        out.push(Effect::Ask { from: self.state, to, tries });
    }

    fn synced(&mut self, out: &mut Vec<Effect>) {
        if let Phase::Syncing(to) = self.phase {
            let lowest = self.lowest(to);
            if lowest != to && self.drains {
                return self.drain(lowest, out);
            }
            let to = lowest;
            if self.state.must_invalidate(to) {
                self.phase = Phase::Invalidating(to);
                out.push(Effect::Invalidate);
            } else {
                // The time of asking matters only on the way up.
                self.ask(to, false, 0, out);
            }
        }
    }

    fn invalidated(&mut self, now: Millis, out: &mut Vec<Effect>) {
        if let Phase::Invalidating(to) = self.phase {
            let tries = self.queue.front().is_some_and(|w| w.tries && w.wants == to);
            self.ask(to, tries, now, out);
        }
    }

    /// The target of a demotion that is under way, in view of wishes that came meanwhile.
    fn lowest(&self, to: LockState) -> LockState {
        match self.demote {
            Some((wish, _)) if to.exceeds(wish) => Unlocked,
            _ => to,
        }
    }

    fn replied(&mut self, reply: Reply, now: Millis, out: &mut Vec<Effect>) {
        let Phase::Asking { to, since, .. } = self.phase else { return };
        self.phase = Phase::Idle;
        match reply {
            Reply::Granted => {
                let up = !self.state.permits(to);
                self.state = to;
                self.let_go &= to != Unlocked;
                if up {
                    self.got(to, since, now, out);
                }
            }
            Reply::Refused => {
                // Whoever tried is told; a cancelled request was made for somebody who has left.
                if let Some(front) = self.queue.front().filter(|w| w.tries) {
                    self.queue.pop();
                    out.push(Effect::Refuse(front.ticket, Refusal::WouldWait));
                }
            }
            Reply::Deadlock => self.let_go = self.state != Unlocked,
            Reply::Failed if to == Unlocked => {
                // The lock service is gone, and the lock with it.
                self.state = Unlocked;
                self.let_go = false;
            }
            Reply::Failed => {
                if !to.permits(self.state) {
                    // The lock service is gone; there is nobody to give it to, now or after another try.
                    self.demote = None;
                }
                while let Some(w) = self.queue.pop() {
                    out.push(Effect::Refuse(w.ticket, Refusal::Failed));
                }
            }
        }
    }

    fn got(&mut self, to: LockState, since: Millis, now: Millis, out: &mut Vec<Effect>) {
        self.acquired = now;
        self.owed = self.queue.front().is_some_and(|w| to.is_good_for(w.wants, self.exact));
        if self.hold > 0 {
            if now.saturating_sub(since) > 1000 {
                self.hold = (self.hold + 50).min(HOLD_MAX);
            }
            if let Some((_, at)) = &mut self.demote {
                // It came while we waited: the full time counts from now.
                *at = now + self.hold;
                out.push(Effect::WakeAt(*at));
            }
        }
    }

    /// Somebody wants the lock. `polite`: it is kept for the minimum time when it is in use here.
    fn blocking(&mut self, ceiling: LockState, now: Millis, polite: bool, out: &mut Vec<Effect>) {
        let asking_up = matches!(self.phase, Phase::Asking { to, .. } if to.exceeds(ceiling));
        if matches!(self.phase, Phase::Withdrawn) || !(self.state.exceeds(ceiling) || asking_up) {
            return;
        }
        let in_use = self.held.1 > 0 || !self.queue.is_empty();
        let at = if polite && in_use { now.max(self.acquired + self.hold) } else { now };
        self.demote = Some(match self.demote {
            None => (ceiling, at),
            Some((before, earlier)) if before == ceiling => (before, earlier.min(at)),
            Some((_, earlier)) => (Unlocked, earlier.min(at)),
        });
        if self.hold > HOLD_MIN && self.demote.is_some_and(|(to, _)| to == Unlocked) && polite && !in_use {
            // Kept for nothing: others want it more often than we do.
            self.hold = self.hold.saturating_sub(25).max(HOLD_MIN);
        }
        if let Some((_, at)) = self.demote
            && at > now
        {
            out.push(Effect::WakeAt(at));
        }
    }
}
