//! Locks that are taken for themselves: MOUNT, LIVE, FREEZE, JOURNAL, CONTROL, MOUNTED. There is nothing cached inside, so
//! they need no glock; whoever wants one waits for it in its own thread. Their grants are never held back.

use super::dlm::{self, BUSY, Dlm};
use super::service::LockSpace;
use crate::error::{Error, Result};
use crate::glock::Lvb;
use crate::ids::LockName;
use crate::sync::{Condvar, Mutex, MutexGuard, thread};
use lockclient::flags::LockFlags;
use lockclient::ids::LockId;
use lockclient::mode::Mode;
use lockclient::node::space::{Completion, LockRequest, Progress};
use lockclient::status::{Refusal, Status};
use std::time::Duration;

/// How often a waiter looks whether it shall go on waiting.
const LOOK: Duration = Duration::from_millis(50);

/// A lock that is taken for itself.
pub(super) struct Direct {
    name: LockName,
    token: u64,
    /// It has a value block.
    valued: bool,
    /// Called, from the callback thread, with the mode that somebody waits for.
    notice: Box<dyn Fn(Mode) + Send + Sync>,
    /// One operation at a time.
    operation: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lock: LockId,
    mode: Option<Mode>,
    lvb: Lvb,
    call: Option<u64>,
    waiting: bool,
    outcome: Option<std::result::Result<Completion, Refusal>>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// The mode is held.
    Granted,
    /// It would have had to wait.
    Again,
    /// Another node wants the same conversion.
    Deadlock,
    /// `stop` said so.
    Stopped,
}

/// Never stops.
pub(super) fn patient() -> bool {
    false
}

impl Direct {
    /// A lock of this name, not asked for yet.
    pub(super) fn new(name: LockName, token: u64, valued: bool, notice: impl Fn(Mode) + Send + Sync + 'static) -> Self {
        Self {
            name,
            token,
            valued,
            notice: Box::new(notice),
            operation: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// The number under which it is called back.
    pub(super) fn token(&self) -> u64 {
        self.token
    }
    /// What is held.
    pub(super) fn mode(&self) -> Option<Mode> {
        self.state.lock().mode
    }
    /// The value block as it was last returned.
    pub(super) fn lvb(&self) -> Lvb {
        self.state.lock().lvb
    }

    /// Asks for `mode` and waits for the end. `flags`: NOQUEUE, NOQUEUEBAST, VALBLK, QUECVT; `write`: the value to leave behind.
    /// `stop` is asked now and then whether to give up. An error: the lockspace is gone.
    pub(super) fn set(
        &self,
        dlm: &Dlm,
        mode: Mode,
        flags: LockFlags,
        write: Option<Lvb>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Got> {
        let space = dlm.space().ok_or_else(gone)?;
        let _operation = self.operation.lock();
        loop {
            let mut state = self.state.lock();
            if state.mode == Some(mode) && write.is_none() {
                return Ok(Got::Granted);
            }
            let begun = self.begin(space, &mut state, mode, flags, write);
            match self.end(dlm, space, &mut state, begun, stop) {
                Ok(completion) => return self.settle(&mut state, mode, &completion, stop),
                Err(Refusal::Busy) => {
                    drop(state);
                    thread::sleep(BUSY);
                }
                Err(why) => {
                    tracing::debug!("lock {}: {why}", self.name);
                    return Err(gone());
                }
            }
        }
    }

    fn settle(&self, state: &mut State, mode: Mode, c: &Completion, stop: &dyn Fn() -> bool) -> Result<Got> {
        if c.status == Status::Granted {
            (state.lock, state.mode) = (c.lock, Some(mode));
            // Whether the value is said to be valid makes no difference here (dlm.md 5.2).
            if c.lvb.is_some() {
                state.lvb = dlm::lvb(c);
            }
            return Ok(Got::Granted);
        }
        if state.mode.is_none() {
            state.lock = LockId::NONE;
        }
        match c.status {
            Status::Again => Ok(Got::Again),
            Status::Deadlock => Ok(Got::Deadlock),
            Status::Cancelled if stop() => Ok(Got::Stopped),
            _ => Err(gone()),
        }
    }

    fn begin(
        &self,
        space: &LockSpace,
        state: &mut State,
        mode: Mode,
        flags: LockFlags,
        write: Option<Lvb>,
    ) -> std::result::Result<Progress, Refusal> {
        if state.mode.is_some() {
            return space.convert(state.lock, mode, flags, write.map(|lvb| Box::from(lvb.0) as Box<[u8]>));
        }
        let lvb = self.valued.then(|| Box::from([0_u8; 32]) as Box<[u8]>);
        let mut flags = flags - LockFlags::QUECVT;
        flags.set(LockFlags::VALBLK, self.valued);
        let (token, name) = (self.token, self.name.resource());
        // The CONTROL lock's value is the best there is, also when a node died that was about to change it.
        space.request(LockRequest {
            token,
            name: name.as_bytes(),
            mode,
            flags,
            lvb,
            wants_notices: true,
            uses_lost_value: true,
        })
    }

    /// Waits until an operation has ended.
    fn end(
        &self,
        dlm: &Dlm,
        space: &LockSpace,
        state: &mut MutexGuard<'_, State>,
        begun: std::result::Result<Progress, Refusal>,
        stop: &dyn Fn() -> bool,
    ) -> std::result::Result<Completion, Refusal> {
        let mut lock = match begun? {
            Progress::Done(completion) => return Ok(completion),
            Progress::Pending(lock) => lock,
            Progress::Queued(call) => {
                if let Some(why) = dlm.note_call(call, self.token) {
                    return Err(why);
                }
                state.call = Some(call);
                state.lock
            }
        };
        (state.waiting, state.outcome) = (true, None);
        let mut cancelled = false;
        loop {
            if let Some(outcome) = state.outcome.take() {
                (state.waiting, state.call) = (false, None);
                return outcome;
            }
            if space.has_ended() {
                state.waiting = false;
                return Err(Refusal::NoDevice);
            }
            if !cancelled && lock != LockId::NONE && stop() {
                cancelled = true;
                match space.cancel(lock) {
                    Ok(Progress::Done(completion)) => {
                        state.waiting = false;
                        return Ok(completion);
                    }
                    Ok(_) => {}
                    // It is asked for again below.
                    Err(Refusal::Busy) => cancelled = false,
                    Err(why) => return Err(why),
                }
            }
            if stop() && !space.is_running() {
                // Recovery may take for ever; whoever stops leaves the lockspace, and this lock with it.
                state.waiting = false;
                return Err(Refusal::NoDevice);
            }
            self.changed.wait_for(state, LOOK);
            if lock == LockId::NONE {
                lock = state.lock;
            }
        }
    }

    /// Gives it up entirely.
    pub(super) fn unlock(&self, dlm: &Dlm) {
        let _operation = self.operation.lock();
        let mut state = self.state.lock();
        if let (Some(space), Some(_)) = (dlm.space(), state.mode.take()) {
            let lock = std::mem::take(&mut state.lock);
            if let Err(why) = space.unlock(lock, LockFlags::empty(), None) {
                tracing::debug!("lock {}: unlock: {why}", self.name);
            }
        }
    }

    /// From the callback thread: an operation ended.
    pub(super) fn completed(&self, dlm: &Dlm, completion: &Completion) {
        let mut state = self.state.lock();
        // That an unlock has ended is of no interest.
        if state.waiting && completion.status != Status::Unlocked {
            if let Some(call) = state.call.take() {
                dlm.forget_call(call);
            }
            state.outcome = Some(Ok(completion.clone()));
            self.changed.notify_all();
        }
    }
    /// From the callback thread: a call that waited for recovery is refused.
    pub(super) fn refused(&self, why: Refusal) {
        let mut state = self.state.lock();
        if state.waiting {
            state.outcome = Some(Err(why));
            self.changed.notify_all();
        }
    }
    /// From the callback thread: somebody waits for this mode.
    pub(super) fn blocking(&self, wanted: Mode) {
        (self.notice)(wanted);
    }
    /// The lockspace is no more.
    pub(super) fn ended(&self) {
        self.changed.notify_all();
    }
}

/// What a lost lockspace means for whoever wanted a lock.
pub(super) fn gone() -> Error {
    Error::from(std::io::Error::other("the lockspace is gone"))
}
