//! Performs what the machine decides; the only caller of [`Protected`] and [`LockManager`].
//!
//! One word says what holders hold. While nothing is under way it is changed by compare-and-swap alone; the flag `SLOW` in it
//! sends everybody to the mutex and the machine behind it, which then knows exactly who holds, since nobody comes or goes
//! without the mutex. When the machine is quiet again the flag is cleared.

use super::Protected;
use super::machine::{Effect, Event, Machine, Millis, Refusal, Reply};
use super::manager::{Answer, LockClient, LockManager, Lvb, Request};
use super::mode::LockState;
use super::queue::{Entry, Ticket, Waiter};
use super::workers::Workers;
use crate::error::{Error, Result};
use crate::ids::{LockKind, LockName};
use crate::sync::{Instant, Mutex, MutexGuard, RwLock, about_to_wait, thread};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// How often one who waits with limited patience looks whether it has any left.
const PATIENT_LOOKS: Duration = Duration::from_millis(2);

const SLOW: u32 = 1 << 4;
const ONE: u32 = 1 << 5;

/// The word: state in bits 0-1, what holders hold in bits 2-3, `SLOW` in bit 4, their number above.
fn pack(state: LockState, held: (LockState, u32)) -> u32 {
    state as u32 | ((held.0 as u32) << 2) | (held.1 * ONE)
}
fn unpack(word: u32) -> (LockState, (LockState, u32)) {
    (LockState::from_bits(word), (LockState::from_bits(word >> 2), word / ONE))
}

/// What all glocks of a table share.
pub(super) struct Shared<T: Protected> {
    pub(super) manager: Arc<dyn LockManager>,
    pub(super) context: OnceLock<Weak<T::Context>>,
    pub(super) workers: Workers,
    pub(super) start: Instant,
    /// See [`GlockTable::hold_at_most`](super::GlockTable).
    pub(super) hold_ms: AtomicU64,
    /// See [`GlockTable::shut`](super::GlockTable).
    pub(super) shut: AtomicBool,
}

/// A cluster lock with the object it protects inside.
pub struct Glock<T: Protected> {
    name: LockName,
    word: AtomicU32,
    /// Looked at since the clock hand of the table passed.
    pub(super) touched: AtomicBool,
    /// Which life of this name in the table.
    pub(super) serial: u64,
    /// Locked only by who holds the glock, and by the driver when nobody does: it never waits long.
    pub(super) object: Arc<RwLock<Option<T>>>,
    slow: Mutex<Slow>,
    pub(super) shared: Arc<Shared<T>>,
}

struct Slow {
    machine: Machine,
    waiting: Vec<Waiting>,
    tickets: u64,
    lvb: Option<Box<Lvb>>,
    /// What comes next takes its time: done by a thread of the pool once the mutex is free.
    step: Option<Step>,
}

/// A step of a change of state that waits for the kernel or the disk.
enum Step {
    Drain(LockState),
    Sync,
    Invalidate,
}

struct Waiting {
    ticket: Ticket,
    thread: thread::Thread,
    outcome: Option<Result<(), Refusal>>,
}

/// What dump shows of a glock.
pub(super) struct Picture {
    pub(super) state: LockState,
    pub(super) held: (LockState, u32),
    pub(super) waiters: Vec<(Waiter, Option<String>)>,
    pub(super) demote: Option<(LockState, Millis)>,
    pub(super) phase: super::machine::Phase,
}

impl<T: Protected> Glock<T> {
    pub(super) fn new(name: LockName, serial: u64, shared: Arc<Shared<T>>) -> Arc<Self> {
        let holds = name.kind == LockKind::Inode;
        let hold = if holds { shared.hold_ms.load(Ordering::Relaxed) } else { 0 };
        let machine = Machine::new(hold, T::DRAINS, T::EXACT);
        Arc::new(Self {
            name,
            word: AtomicU32::new(0),
            touched: AtomicBool::new(true),
            serial,
            object: Arc::new(RwLock::new(None)),
            slow: Mutex::new(Slow { machine, waiting: Vec::new(), tickets: 0, lvb: None, step: None }),
            shared,
        })
    }

    /// The lock's name.
    pub fn name(&self) -> LockName {
        self.name
    }

    /// The context for `Protected` calls; gone when the volume is closed.
    pub(super) fn context(&self) -> Result<Arc<T::Context>> {
        self.shared.context.get().and_then(Weak::upgrade).ok_or(Error::Withdrawn)
    }

    /// Becomes a holder of `wants`. `tries`: only if nobody has to be waited for.
    pub(super) fn acquire(self: &Arc<Self>, wants: LockState, tries: bool, entry: Entry) -> Result<()> {
        if !self.acquire_fast(wants) {
            self.acquire_slowly(wants, (tries, entry), None)?;
        }
        self.unless_shut()
    }

    /// For who has just become a holder.
    fn unless_shut(self: &Arc<Self>) -> Result<()> {
        if !self.shared.shut.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.release();
        Err(Error::Withdrawn)
    }

    /// True when somebody holds it.
    pub(super) fn is_held(&self) -> bool {
        let word = self.word.load(Ordering::SeqCst);
        if word & SLOW == 0 { unpack(word).1.1 > 0 } else { self.slow.lock().machine.held.1 > 0 }
    }

    /// The same, waiting only while `patient` says so, which is asked now and then: `WouldBlock` once it does not.
    pub(super) fn acquire_while(self: &Arc<Self>, wants: LockState, patient: &dyn Fn() -> bool) -> Result<()> {
        if !self.acquire_fast(wants) {
            self.acquire_slowly(wants, (false, Entry::Ordinary), Some(patient))?;
        }
        self.unless_shut()
    }

    fn acquire_fast(&self, wants: LockState) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let (state, held) = unpack(word);
            if word & SLOW != 0 || !state.is_good_for(wants, T::EXACT) || !held.0.coexists(wants) {
                return false;
            }
            let new = pack(state, (wants, held.1 + 1));
            match self.word.compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(seen) => word = seen,
            }
        }
    }

    /// One holder less.
    pub(super) fn release(self: &Arc<Self>) {
        let mut word = self.word.load(Ordering::Relaxed);
        while word & SLOW == 0 {
            let (state, (mode, count)) = unpack(word);
            let held = if count <= 1 { (LockState::Unlocked, 0) } else { (mode, count - 1) };
            match self.word.compare_exchange_weak(word, pack(state, held), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return,
                Err(seen) => word = seen,
            }
        }
        self.tell(Event::Released);
    }

    #[cold]
    fn acquire_slowly(
        self: &Arc<Self>,
        wants: LockState,
        (tries, entry): (bool, Entry),
        patient: Option<&dyn Fn() -> bool>,
    ) -> Result<()> {
        let mut slow = self.enter();
        slow.tickets += 1;
        let ticket = Ticket(slow.tickets);
        slow.waiting.push(Waiting { ticket, thread: thread::current(), outcome: None });
        let mut slow = self.run(slow, Event::Want(Waiter { ticket, wants, tries, entry }));
        loop {
            if let Some(outcome) = slow.take_outcome(ticket) {
                self.leave(slow);
                return outcome.map_err(|r| match r {
                    Refusal::WouldWait => Error::WouldBlock,
                    Refusal::Withdrawn => Error::Withdrawn,
                    Refusal::Failed => Error::Io(Arc::new(std::io::Error::other("the lock service failed"))),
                });
            }
            if let Err(must_wait) = about_to_wait() {
                slow.waiting.retain(|w| w.ticket != ticket);
                slow.trim();
                // The request goes on: a patient thread will come for it.
                let slow = self.run(slow, Event::Abandon { ticket, cancel: false });
                self.leave(slow);
                return Err(must_wait);
            }
            if patient.is_some_and(|patient| !patient()) {
                slow.waiting.retain(|w| w.ticket != ticket);
                slow.trim();
                let slow = self.run(slow, Event::Abandon { ticket, cancel: true });
                self.leave(slow);
                return Err(Error::WouldBlock);
            }
            self.leave(slow);
            match patient {
                None => thread::park(),
                Some(_) => thread::park_timeout(PATIENT_LOOKS),
            }
            slow = self.enter();
        }
    }

    /// Takes the mutex and makes everybody else come through it.
    fn enter(&self) -> MutexGuard<'_, Slow> {
        let mut slow = self.slow.lock();
        let word = self.word.fetch_or(SLOW, Ordering::AcqRel);
        if word & SLOW == 0 {
            slow.machine.held = unpack(word).1;
        }
        slow
    }

    /// Gives the mutex back, and the fast path if nothing is under way.
    fn leave(self: &Arc<Self>, mut slow: MutexGuard<'_, Slow>) {
        if let Some(step) = slow.step.take() {
            self.in_background(move |g| g.go(step));
        }
        if slow.machine.is_quiet() {
            self.word.store(pack(slow.machine.state, slow.machine.held), Ordering::Release);
        }
    }

    /// Tells the machine and performs what it says.
    pub(super) fn tell(self: &Arc<Self>, event: Event) {
        let slow = self.enter();
        let slow = self.run(slow, event);
        self.leave(slow);
    }

    fn run<'a>(self: &Arc<Self>, mut slow: MutexGuard<'a, Slow>, event: Event) -> MutexGuard<'a, Slow> {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            for effect in slow.machine.step(event, self.now()) {
                if let Some(answer) = self.perform(&mut slow, effect) {
                    debug_assert!(next.is_none(), "two steps of a change at once");
                    next = Some(answer);
                }
            }
        }
        slow
    }

    /// Performs one effect; the answer, if it is there at once.
    fn perform(self: &Arc<Self>, slow: &mut Slow, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Grant(ticket) => slow.resolve(ticket, Ok(())),
            Effect::Refuse(ticket, why) => slow.resolve(ticket, Err(why)),
            Effect::Ask { from, to, tries } => {
                let lvb = T::HAS_LVB.then(|| slow.lvb.as_deref().copied().unwrap_or_default());
                let client: Arc<dyn LockClient> = Arc::<Self>::clone(self);
                let request = Request { from, to, no_queue: tries, lvb };
                if let Answer::Done(reply, lvb) = self.shared.manager.request(self.name, request, &client) {
                    slow.take_lvb::<T>(reply, lvb);
                    return Some(Event::Replied(reply));
                }
            }
            Effect::Cancel => self.shared.manager.cancel(self.name),
            // What is left of a table that nobody else can want needs no drain either.
            Effect::Drain(to) if self.must_drain(to) => slow.step = Some(Step::Drain(to)),
            Effect::Drain(_) => return Some(Event::Drained(true)),
            Effect::Sync if self.shared.manager.is_shared() => slow.step = Some(Step::Sync),
            // Nobody else will ever look: the log brings the changes to the disk in its own time.
            Effect::Sync => return Some(Event::Synced(true)),
            Effect::Invalidate => slow.step = Some(Step::Invalidate),
            Effect::WakeAt(at) => {
                let weak = Arc::downgrade(self);
                let when = self.shared.start + Duration::from_millis(at);
                self.shared.workers.submit_at(when, move || {
                    if let Some(glock) = weak.upgrade() {
                        glock.tell(Event::Tick);
                    }
                });
            }
            Effect::Withdraw => {
                // The cause was told by whoever failed.
                self.in_background(|glock| {
                    let why = format!("lock {} cannot be given up", glock.name);
                    tracing::error!("{why}");
                    if let Ok(cx) = glock.context() {
                        T::cannot_give_up(glock.name, &Error::Io(Arc::new(std::io::Error::other(why))), &cx);
                    }
                });
            }
        }
        None
    }

    fn in_background(self: &Arc<Self>, job: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let glock = Arc::clone(self);
        self.shared.workers.submit(move || job(&glock));
    }

    fn must_drain(&self, to: LockState) -> bool {
        self.shared.manager.is_shared() && self.context().is_ok_and(|cx| T::must_drain(self.name, to, &cx))
    }

    /// Does a step, and those that follow it: no other thread has to be woken for them.
    fn go(self: &Arc<Self>, first: Step) {
        let mut next = Some(first);
        while let Some(step) = next.take() {
            let event = match step {
                Step::Drain(to) => Event::Drained(self.drain(to)),
                Step::Sync => Event::Synced(self.sync()),
                Step::Invalidate => self.invalidate(),
            };
            let slow = self.enter();
            let mut slow = self.run(slow, event);
            next = slow.step.take();
            self.leave(slow);
        }
    }

    /// The object is not locked: those whom the drain waits for need it.
    fn drain(&self, to: LockState) -> bool {
        // A closed volume has no kernel that caches anything.
        let result = self.context().map_or(Ok(()), |cx| T::drain(self.name, to, &cx));
        result.inspect_err(|e| tracing::error!("lock {}: {e}", self.name)).is_ok()
    }

    fn sync(&self) -> bool {
        self.try_sync().inspect_err(|e| tracing::error!("lock {}: {e}", self.name)).is_ok()
    }

    fn try_sync(&self) -> Result<()> {
        // A closed volume was synced when it was closed.
        let Ok(cx) = self.context() else { return Ok(()) };
        let mut object = self.object.write();
        match &mut *object {
            Some(object) => T::sync(self.name, object, &cx),
            // Forgotten after a change that failed: others of its blocks may still be dirty.
            None => T::sync_without(self.name, &cx),
        }
    }

    fn invalidate(&self) -> Event {
        let object = self.object.write().take();
        if let Ok(cx) = self.context() {
            T::invalidate(self.name, &cx);
        }
        drop(object);
        Event::Invalidated
    }

    fn now(&self) -> Millis {
        u64::try_from(self.shared.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The value block as this node knows it; zero when nobody has set it. Meaningful while the lock is held.
    pub fn lvb(&self) -> Lvb {
        self.slow.lock().lvb.as_deref().copied().unwrap_or_default()
    }

    /// Sets the value block; other nodes see it when EX is left.
    pub(super) fn set_lvb(&self, lvb: Lvb) {
        match &mut self.slow.lock().lvb {
            Some(old) => **old = lvb,
            none => *none = Some(Box::new(lvb)),
        }
    }

    /// What the lock manager has given us.
    pub fn state(&self) -> LockState {
        self.slow.lock().machine.state
    }

    /// True when another node waits for us to give the lock up, wholly or in part.
    pub fn is_demanded(&self) -> bool {
        self.slow.lock().machine.demote.is_some()
    }

    /// True when nobody holds, waits or changes anything, so that the glock may be dropped from the table: at once where
    /// nobody else can want the lock, and where others can only once it is unlocked.
    pub(super) fn may_drop(&self) -> bool {
        let word = self.word.load(Ordering::Acquire);
        let (state, held) = unpack(word);
        word & SLOW == 0 && held.1 == 0 && (state == LockState::Unlocked || !self.shared.manager.is_shared())
    }

    pub(super) fn picture(&self) -> Picture {
        let slow = self.slow.lock();
        let word = self.word.load(Ordering::Acquire);
        let held = if word & SLOW == 0 { unpack(word).1 } else { slow.machine.held };
        let name =
            |t: Ticket| slow.waiting.iter().find(|w| w.ticket == t).map(|w| w.thread.name().unwrap_or("?").to_string());
        Picture {
            state: slow.machine.state,
            held,
            waiters: slow.machine.queue.iter().map(|w| (*w, name(w.ticket))).collect(),
            demote: slow.machine.demote,
            phase: slow.machine.phase,
        }
    }
}

impl<T: Protected> LockClient for Glock<T> {
    fn completed(self: Arc<Self>, reply: Reply, lvb: Option<Lvb>) {
        let mut slow = self.enter();
        slow.take_lvb::<T>(reply, lvb);
        let slow = self.run(slow, Event::Replied(reply));
        self.leave(slow);
    }
    fn blocking(self: Arc<Self>, ceiling: LockState) {
        self.tell(Event::Blocking { ceiling });
        if T::HEEDS {
            self.in_background(|glock| {
                if let Ok(cx) = glock.context() {
                    T::heed(glock.name, &cx);
                }
            });
        }
    }
}

impl Slow {
    fn resolve(&mut self, ticket: Ticket, outcome: Result<(), Refusal>) {
        if let Some(w) = self.waiting.iter_mut().find(|w| w.ticket == ticket) {
            w.outcome = Some(outcome);
            w.thread.unpark();
        }
    }
    /// As for the machine's queue: nobody waits, no memory.
    fn trim(&mut self) {
        if self.waiting.is_empty() {
            self.waiting = Vec::new();
        }
    }
    fn take_outcome(&mut self, ticket: Ticket) -> Option<Result<(), Refusal>> {
        let at = self.waiting.iter().position(|w| w.ticket == ticket)?;
        let outcome = self.waiting[at].outcome.take()?;
        self.waiting.swap_remove(at);
        self.trim();
        Some(outcome)
    }
    fn take_lvb<T: Protected>(&mut self, reply: Reply, lvb: Option<Lvb>) {
        if let (true, Reply::Granted, Some(lvb)) = (T::HAS_LVB, reply, lvb) {
            // Most are never set: those take no memory.
            if self.lvb.is_some() || lvb != Lvb::default() {
                self.lvb = Some(Box::new(lvb));
            }
        }
    }
}
