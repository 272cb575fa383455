//! Who has the baton.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

/// How a run is made.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// All there is of chance.
    pub seed: u64,
    /// One in so many points where a thread could have to wait is made one where it does.
    pub one_in: u64,
    /// Steps after which the run is given up as going nowhere.
    pub steps: u64,
    /// Keep the last so many lines of what happened (costs time).
    pub lines: usize,
}

/// How a run went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// A number that stands for all that happened, in order.
    pub trace: u64,
    /// Times the baton was handed on.
    pub steps: u64,
    /// Simulated time.
    pub time: Duration,
    /// Threads there were.
    pub threads: usize,
    /// The last lines of what happened.
    pub lines: Vec<String>,
}

/// A run that went wrong. Its threads are left as they are.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The panic, or "deadlock", and who waited for what.
    pub what: String,
    /// The last lines of what happened.
    pub lines: Vec<String>,
    /// Times the baton was handed on.
    pub steps: u64,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        write!(f, "{} (after {} steps)", self.what, self.steps)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// Could run.
    Ready,
    /// Waits to be woken, or for its deadline.
    Blocked,
    /// Waits for a lock that was not free when so much had happened.
    Spins(u64),
    Done,
}

struct Slot {
    name: String,
    status: Status,
    deadline: Option<u64>,
    /// It ran into its deadline.
    timed_out: bool,
    /// Woken ahead of time.
    permit: bool,
    joiners: Vec<usize>,
    machine: Option<std::thread::Thread>,
}

struct State {
    settings: Settings,
    random: u64,
    /// Nanoseconds.
    now: u64,
    slots: Vec<Slot>,
    /// Those that are not done.
    alive: Vec<usize>,
    /// How much has happened: whoever spins looks again when it is more.
    happened: u64,
    serial: u64,
    steps: u64,
    trace: u64,
    lines: VecDeque<String>,
    outcome: Option<mpsc::Sender<Result<Report, Failure>>>,
}

/// One simulation.
pub(super) struct Scheduler {
    state: Mutex<State>,
    /// Who has the baton.
    current: AtomicUsize,
}

/// Nobody: after a failure.
const NOBODY: usize = usize::MAX;

thread_local! {
    static ME: RefCell<Option<(Arc<Scheduler>, usize)>> = const { RefCell::new(None) };
}

/// The simulation that this thread belongs to, and which of its threads it is.
pub(super) fn me() -> Option<(Arc<Scheduler>, usize)> {
    // Gone while thread-locals are dropped.
    ME.try_with(|me| me.borrow().clone()).ok().flatten()
}

/// True in a thread of a simulation.
pub fn is_simulated() -> bool {
    me().is_some()
}

/// A number below `below`, from the simulation's seed; 0 outside one.
pub fn random(below: u64) -> u64 {
    me().map_or(0, |(s, _)| s.lock().random(below))
}

/// True once in so many times.
pub fn chance(one_in: u64) -> bool {
    one_in > 0 && random(one_in) == 0
}

/// A place where this thread could have to wait: it does, one time in [`Settings::one_in`].
pub fn pause() {
    if let Some((s, me)) = me() {
        let mut state = s.lock();
        let one_in = state.settings.one_in;
        if state.random(one_in) == 0 {
            s.switch(state, me);
        }
    }
}

/// A place where this thread waits for whoever is chosen.
pub fn yield_here() {
    if let Some((s, me)) = me() {
        let state = s.lock();
        s.switch(state, me);
    }
}

/// Nanoseconds since the simulation began.
pub fn now() -> Option<u64> {
    me().map(|(s, _)| s.lock().now)
}

/// A number that was not given before in this simulation.
pub(crate) fn serial() -> Option<u64> {
    me().map(|(s, _)| {
        let mut state = s.lock();
        state.serial += 1;
        state.serial
    })
}

/// Something happened that belongs to the trace; the text is kept as a line if lines are kept.
pub fn note(number: u64, text: impl FnOnce() -> String) {
    if let Some((s, me)) = me() {
        let mut state = s.lock();
        state.mix(number);
        state.line(me, text);
    }
}

impl State {
    fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }
    fn mix(&mut self, number: u64) {
        self.trace = (self.trace ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }
    fn line(&mut self, who: usize, text: impl FnOnce() -> String) {
        if self.settings.lines > 0 {
            if self.lines.len() >= self.settings.lines {
                self.lines.pop_front();
            }
            let line = format!("{:>12} {}#{who}: {}", self.now, self.slots[who].name, text());
            self.lines.push_back(line);
        }
    }
    fn expire(&mut self) {
        let now = self.now;
        for &n in &self.alive {
            let slot = &mut self.slots[n];
            if slot.status == Status::Blocked && slot.deadline.is_some_and(|at| at <= now) {
                (slot.status, slot.deadline, slot.timed_out) = (Status::Ready, None, true);
            }
        }
    }
    /// Who runs next; time goes on when nobody can. `None`: a deadlock.
    fn choose(&mut self) -> Option<usize> {
        self.now += 1 + self.random(2000);
        self.expire();
        loop {
            let happened = self.happened;
            let can = |slot: &Slot| match slot.status {
                Status::Ready => true,
                Status::Spins(at) => at != happened,
                _ => false,
            };
            let count = self.alive.iter().filter(|n| can(&self.slots[**n])).count();
            if count > 0 {
                let nth = self.random(count as u64) as usize;
                return self.alive.iter().copied().filter(|n| can(&self.slots[*n])).nth(nth);
            }
            let next = self.alive.iter().filter_map(|n| self.slots[*n].deadline).min()?;
            self.now = self.now.max(next);
            self.expire();
        }
    }
    fn picture(&self) -> String {
        let of = |n: &usize| {
            let slot = &self.slots[*n];
            format!("\n  {}#{n}: {:?}, until {:?}", slot.name, slot.status, slot.deadline)
        };
        self.alive.iter().map(of).collect()
    }
}

impl Scheduler {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held but for want of memory.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, state: &mut State, name: String) -> usize {
        let n = state.slots.len();
        state.alive.push(n);
        state.slots.push(Slot {
            name,
            status: Status::Ready,
            deadline: None,
            timed_out: false,
            permit: false,
            joiners: Vec::new(),
            machine: None,
        });
        n
    }

    /// Hands the baton on and waits until it comes back.
    fn switch(&self, state: MutexGuard<'_, State>, me: usize) {
        if self.hand_on(state, me) {
            self.await_baton(me);
        }
    }

    /// False when it stays here.
    fn hand_on(&self, mut state: MutexGuard<'_, State>, me: usize) -> bool {
        state.steps += 1;
        if state.steps > state.settings.steps {
            let what = format!("no end in sight{}", state.picture());
            self.fail(state, what);
            return true;
        }
        let Some(next) = state.choose() else {
            let what = format!("deadlock{}", state.picture());
            self.fail(state, what);
            return true;
        };
        if state.slots[next].status == Status::Ready {
            state.happened += 1;
        }
        state.slots[next].status = Status::Ready;
        state.mix(next as u64);
        if next == me {
            return false;
        }
        let machine = state.slots[next].machine.clone();
        self.current.store(next, Ordering::Release);
        drop(state);
        // One that has not begun looks when it does.
        if let Some(machine) = machine {
            machine.unpark();
        }
        true
    }

    fn await_baton(&self, me: usize) {
        while self.current.load(Ordering::Acquire) != me {
            std::thread::park();
        }
    }

    /// The end of this run; its threads stay where they are.
    fn fail(&self, mut state: MutexGuard<'_, State>, what: String) {
        self.current.store(NOBODY, Ordering::Release);
        let failure = Failure { what, lines: state.lines.drain(..).collect(), steps: state.steps };
        if let Some(outcome) = state.outcome.take() {
            // Whoever waits for it is there.
            let _told = outcome.send(Err(failure));
        }
    }

    /// Waits until it is woken (false) or the deadline has come (true).
    pub(super) fn block(&self, me: usize, deadline: Option<u64>) -> bool {
        let mut state = self.lock();
        if deadline.is_some_and(|at| at <= state.now) {
            self.switch(state, me);
            return true;
        }
        let slot = &mut state.slots[me];
        (slot.status, slot.deadline, slot.timed_out) = (Status::Blocked, deadline, false);
        self.switch(state, me);
        self.lock().slots[me].timed_out
    }
    /// Parks: as `block`, unless it was woken before.
    pub(super) fn park(&self, me: usize, deadline: Option<u64>) {
        if !std::mem::take(&mut self.lock().slots[me].permit) {
            self.block(me, deadline);
            self.lock().slots[me].permit = false;
        }
    }
    /// Wakes a thread that is blocked.
    pub(super) fn wake(&self, n: usize) {
        let slot = &mut self.lock().slots[n];
        if slot.status == Status::Blocked {
            (slot.status, slot.deadline) = (Status::Ready, None);
        }
    }
    /// Wakes a thread that is parked, or will be.
    pub(super) fn unpark(&self, n: usize) {
        self.lock().slots[n].permit = true;
        self.wake(n);
    }
    /// The lock was not free: comes back when something has happened.
    pub(super) fn spin(&self, me: usize) {
        let mut state = self.lock();
        state.slots[me].status = Status::Spins(state.happened);
        self.switch(state, me);
    }
    /// The time so far and a little later.
    pub(super) fn after(&self, time: Duration) -> u64 {
        self.lock().now.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }
    pub(super) fn name_of(&self, n: usize) -> String {
        self.lock().slots[n].name.clone()
    }
    pub(super) fn is_done(&self, n: usize) -> bool {
        self.lock().slots[n].status == Status::Done
    }
    /// Waits for the end of a thread.
    pub(super) fn join(&self, me: usize, n: usize) {
        while !self.is_done(n) {
            self.lock().slots[n].joiners.push(me);
            self.block(me, None);
        }
    }

    /// Starts a thread of this simulation. `body` must not panic for what the caller wants to know of: a panic ends the run.
    pub(super) fn start(
        self: &Arc<Self>,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<usize> {
        let n = self.add(&mut self.lock(), name);
        let scheduler = Arc::clone(self);
        let thread = std::thread::Builder::new().stack_size(1 << 20).spawn(move || scheduler.live(n, body))?;
        self.lock().slots[n].machine = Some(thread.thread().clone());
        Ok(n)
    }

    fn live(self: Arc<Self>, n: usize, body: impl FnOnce()) {
        ME.set(Some((Arc::clone(&self), n)));
        self.await_baton(n);
        let ended = catch_unwind(AssertUnwindSafe(body));
        let mut state = self.lock();
        if let Err(panic) = ended {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned())).unwrap_or_default();
            let what = format!("{}#{n} panicked: {text}", state.slots[n].name);
            self.fail(state, what);
            // Never to run again, so that nothing of it is dropped.
            std::mem::forget(panic);
            loop {
                std::thread::park();
            }
        }
        ME.set(None);
        state.slots[n].status = Status::Done;
        state.alive.retain(|other| *other != n);
        for joiner in std::mem::take(&mut state.slots[n].joiners) {
            if state.slots[joiner].status == Status::Blocked {
                state.slots[joiner].status = Status::Ready;
            }
        }
        if state.alive.is_empty() {
            let time = Duration::from_nanos(state.now);
            let lines = state.lines.drain(..).collect();
            let report = Report { trace: state.trace, steps: state.steps, time, threads: state.slots.len(), lines };
            if let Some(outcome) = state.outcome.take() {
                // Whoever waits for it is there.
                let _told = outcome.send(Ok(report));
            }
            return;
        }
        self.hand_on(state, n);
    }
}

/// Runs `body` as the first thread of a simulation, and all threads that it starts, to their end.
pub fn run(settings: Settings, body: impl FnOnce() + Send + 'static) -> Result<Report, Failure> {
    let (outcome, ended) = mpsc::channel();
    let state = State {
        settings,
        random: settings.seed,
        now: 0,
        slots: Vec::new(),
        alive: Vec::new(),
        happened: 0,
        serial: 0,
        steps: 0,
        trace: 0,
        lines: VecDeque::new(),
        outcome: Some(outcome),
    };
    let scheduler = Arc::new(Scheduler { state: Mutex::new(state), current: AtomicUsize::new(NOBODY) });
    let lost = |what: String| Failure { what, lines: Vec::new(), steps: 0 };
    let first = scheduler.start("main".into(), body).map_err(|e| lost(e.to_string()))?;
    scheduler.current.store(first, Ordering::Release);
    let machine = scheduler.lock().slots[first].machine.clone();
    if let Some(machine) = machine {
        machine.unpark();
    }
    ended.recv().unwrap_or_else(|_| Err(lost("it ended without a word".into())))
}
