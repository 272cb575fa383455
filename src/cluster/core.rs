//! What the callbacks, the control thread and the [`Cluster`](super::Cluster) share.
//!
//! The machine stands behind one mutex. Whoever feeds it an event performs `Hold` and `Release` before the mutex is let go, so
//! that they take effect in the order in which they were decided; everything that takes time becomes a job of the control
//! thread (`recover`).

use super::Recovery;
use super::control::{Ask, Control, Effect, Event, Refusal, Value, Which};
use super::direct::{Direct, Got, patient};
use super::dlm::Dlm;
use super::freeze::Freeze;
use super::name;
use crate::error::Result;
use crate::ids::{Jid, LockName};
use crate::sync::{Condvar, Instant, Mutex, MutexGuard};
use lockclient::flags::LockFlags;
use lockclient::frame::Slot;
use lockclient::ids::LockId;
use lockclient::mode::Mode;
use lockclient::node::space::{Completion, LockClient, Prompt};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// See the module.
pub(super) struct Core {
    pub(super) dlm: Arc<Dlm>,
    desk: Mutex<Desk>,
    changed: Condvar,
    control: Arc<Direct>,
    mounted: Arc<Direct>,
    pub(super) mount: Arc<Direct>,
    pub(super) live: Arc<Direct>,
    /// Our own journal.
    pub(super) journal: OnceLock<Arc<Direct>>,
    pub(super) freeze: Freeze,
    recovery: OnceLock<Arc<dyn Recovery>>,
    /// We leave on purpose: that the lockspace ends is no misfortune.
    pub(super) leaving: AtomicBool,
    /// This mount shall not come about.
    given_up: AtomicBool,
    /// Withdrawn, or expelled.
    pub(super) withdrawn: AtomicBool,
    /// Grants were refused because nobody was there to replay a journal.
    pub(super) disturbed: AtomicBool,
    /// Replays in a row that could not be done because the volume is not open yet.
    unserved: AtomicU32,
}

/// The machine and what came of it.
struct Desk {
    machine: Control,
    jobs: VecDeque<Job>,
    wake_at: Option<Instant>,
    mount: Option<std::result::Result<bool, Refusal>>,
    published: bool,
    stop: bool,
}

/// What takes time.
#[derive(Clone, Copy, Debug)]
pub(super) enum Job {
    /// A question to the lock service.
    Ask(Ask),
    /// Replay this journal.
    Recover(u32),
    /// Replay those of others that nobody owns.
    RecoverOthers,
}

/// Replays tried in vain before the volume is open, until grants that are held back are refused: a mount that needs them
/// could wait for ever, when all who might replay have died.
const UNSERVED_MAX: u32 = 3;

impl Core {
    pub(super) fn new(spectator: bool) -> std::io::Result<Arc<Self>> {
        let dlm = Dlm::new()?;
        Ok(Arc::new_cyclic(|weak: &Weak<Core>| {
            let plain = |name: LockName| dlm.add(|token| Direct::new(name, token, false, |_| {}));
            let (live, freeze) = (weak.clone(), weak.clone());
            Self {
                desk: Mutex::new(Desk {
                    machine: Control::new(spectator),
                    jobs: VecDeque::new(),
                    wake_at: None,
                    mount: None,
                    published: false,
                    stop: false,
                }),
                changed: Condvar::new(),
                control: dlm.add(|token| Direct::new(name::CONTROL, token, true, |_| {})),
                mounted: plain(name::MOUNTED),
                mount: plain(name::MOUNT),
                live: dlm.add(|token| {
                    Direct::new(name::LIVE, token, false, move |mode| {
                        // Nobody wants this lock exclusively but to say that he has withdrawn.
                        if let (Mode::Ex, Some(core)) = (mode, live.upgrade()) {
                            tracing::warn!("another node has withdrawn");
                            core.feed(Event::RemoteWithdraw);
                        }
                    })
                }),
                journal: OnceLock::new(),
                freeze: Freeze::new(dlm.add(|token| {
                    Direct::new(name::FREEZE, token, false, move |mode| {
                        if let (Mode::Ex, Some(core)) = (mode, freeze.upgrade()) {
                            core.freeze.notice();
                        }
                    })
                })),
                recovery: OnceLock::new(),
                leaving: AtomicBool::new(false),
                given_up: AtomicBool::new(false),
                withdrawn: AtomicBool::new(false),
                disturbed: AtomicBool::new(false),
                unserved: AtomicU32::new(0),
                dlm,
            }
        }))
    }

    /// Tells the machine.
    pub(super) fn feed(&self, event: Event) {
        let mut desk = self.desk.lock();
        for effect in desk.machine.step(event) {
            match effect {
                Effect::Hold => self.dlm.hold(),
                Effect::Release => self.dlm.release_held(),
                Effect::Ask(ask) => desk.jobs.push_back(Job::Ask(ask)),
                Effect::Recover(jid) => desk.jobs.push_back(Job::Recover(jid)),
                Effect::RecoverOthers => desk.jobs.push_back(Job::RecoverOthers),
                Effect::WakeAfter(ms) => {
                    let at = Instant::now() + Duration::from_millis(ms);
                    desk.wake_at = Some(desk.wake_at.map_or(at, |before| before.min(at)));
                }
                Effect::Mounted { first } => desk.mount = Some(Ok(first)),
                Effect::Refused(why) => desk.mount = Some(Err(why)),
                Effect::Published => desk.published = true,
            }
        }
        drop(desk);
        self.changed.notify_all();
    }

    /// The control thread's next job; waits for it. `None` when it shall end.
    pub(super) fn next_job(&self) -> Option<Job> {
        let mut desk = self.desk.lock();
        loop {
            if desk.stop {
                return None;
            }
            if let Some(job) = desk.jobs.pop_front() {
                return Some(job);
            }
            match desk.wake_at {
                Some(at) if at <= Instant::now() => {
                    desk.wake_at = None;
                    drop(desk);
                    self.feed(Event::Wake);
                    desk = self.desk.lock();
                }
                Some(at) => {
                    self.changed.wait_until(&mut desk, at);
                }
                None => self.changed.wait(&mut desk),
            }
        }
    }
    /// The control thread shall end after its present job.
    pub(super) fn stop_control(&self) {
        self.desk.lock().stop = true;
        self.changed.notify_all();
    }
    pub(super) fn is_stopping(&self) -> bool {
        self.desk.lock().stop
    }

    /// Waits until `look` has an answer; `None` when `stop` says so or the lockspace is gone.
    fn wait<R>(&self, stop: &dyn Fn() -> bool, look: impl Fn(&Desk) -> Option<R>) -> Option<R> {
        let mut desk: MutexGuard<'_, Desk> = self.desk.lock();
        loop {
            if let Some(answer) = look(&desk) {
                return Some(answer);
            }
            if stop() || self.dlm.space().is_some_and(|space| space.has_ended()) {
                return None;
            }
            self.changed.wait_for(&mut desk, Duration::from_millis(50));
        }
    }
    /// Waits for the lockspace to give us a journal.
    pub(super) fn wait_for_jid(&self, stop: &dyn Fn() -> bool) -> Option<u32> {
        self.wait(stop, |desk| desk.machine.jid())
    }
    /// Waits until we may mount, or may not. When `stop` says so it is given up.
    pub(super) fn wait_for_mount(&self, stop: &dyn Fn() -> bool) -> std::result::Result<bool, Refusal> {
        if let Some(outcome) = self.wait(stop, |desk| desk.mount) {
            return outcome;
        }
        self.given_up.store(true, Ordering::Release);
        self.feed(Event::Stop);
        self.wait(&patient, |desk| desk.mount).unwrap_or(Err(Refusal::Gone)).and(Err(Refusal::Interrupted))
    }
    /// Waits until others may mount.
    pub(super) fn wait_for_published(&self) -> bool {
        self.wait(&patient, |desk| desk.published.then_some(())).is_some()
    }
    /// Our journal.
    pub(super) fn jid(&self) -> Option<Jid> {
        self.desk.lock().machine.jid().map(Jid)
    }

    /// Performs a question of the machine.
    pub(super) fn ask(&self, ask: Ask) -> Result<bool> {
        let lock = self.lock(ask.which);
        let mut flags = LockFlags::empty();
        flags.set(LockFlags::NOQUEUE, ask.tries);
        flags.set(LockFlags::VALBLK, ask.value != Value::Skip);
        let write = if let Value::Write(lvb) = ask.value { Some(lvb) } else { None };
        let got = lock
            .set(&self.dlm, ask.mode, flags, write, &|| self.is_stopping() || self.given_up.load(Ordering::Acquire))?;
        Ok(got == Got::Granted)
    }
    pub(super) fn lock(&self, which: Which) -> &Arc<Direct> {
        match which {
            Which::Control => &self.control,
            Which::Mounted => &self.mounted,
        }
    }

    /// Who replays and freezes, once the volume is open.
    pub(super) fn recovery(&self) -> Option<&Arc<dyn Recovery>> {
        self.recovery.get()
    }
    pub(super) fn set_recovery(&self, recovery: Arc<dyn Recovery>) {
        // The first stays.
        let _first = self.recovery.set(recovery);
    }
    /// A replay was wanted before the volume was open.
    pub(super) fn unserved(&self) {
        if self.unserved.fetch_add(1, Ordering::Relaxed) + 1 == UNSERVED_MAX {
            tracing::warn!("a journal waits for its replay and nobody replays it: this mount begins again");
            self.disturbed.store(true, Ordering::Release);
            self.dlm.close();
        }
    }

    /// All is lost: nothing may be written any more.
    fn lose(&self) {
        if !self.withdrawn.swap(true, Ordering::AcqRel) {
            self.feed(Event::Withdraw);
            self.dlm.close();
            if let Some(recovery) = self.recovery() {
                recovery.lost();
            }
        }
    }
}

impl LockClient for Core {
    /// Nothing here waits for more than a mutex: what takes its time is done by the threads that give locks up, and by the
    /// control and the freeze thread.
    fn prompt(&self) -> Prompt {
        Prompt::Always
    }
    fn completed(&self, token: u64, completion: Completion) {
        self.dlm.completed(token, &completion);
    }
    fn blocking(&self, token: u64, lock: LockId, mode: Mode) {
        self.dlm.blocking(token, lock, mode);
    }
    fn refused(&self, call: u64, why: lockclient::status::Refusal) {
        self.dlm.refused(call, why);
    }
    fn prepare(&self) {
        self.feed(Event::Prepare);
    }
    fn slot_failed(&self, slot: Slot) {
        tracing::warn!("node {} is dead; its journal was {}", slot.node, slot.slot.saturating_sub(1));
        self.feed(Event::SlotFailed(slot.slot));
    }
    fn recovered(&self, slots: &[Slot], our_slot: u16, generation: u32) {
        let largest = slots.iter().map(|s| s.slot).max().unwrap_or(our_slot);
        tracing::info!("lockspace: generation {generation}, {} nodes", slots.len());
        self.feed(Event::Done { our_slot, largest, generation });
    }
    fn expelled(&self) {
        tracing::error!("the cluster has gone on without this node");
        self.lose();
    }
    fn ended(&self) {
        if !self.leaving.load(Ordering::Acquire) {
            self.lose();
        }
        self.dlm.ended();
        self.feed(Event::Gone);
    }
}
