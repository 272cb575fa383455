//! Freezing (ondisk.md 8.12). Every node holds FREEZE shared. Who freezes the filesystem takes it exclusively; the others
//! hear that they are in the way, freeze themselves, let go, and ask for it again at once. They get it when the filesystem
//! is thawed, and thaw themselves.

use super::Recovery;
use super::core::Core;
use super::direct::{Direct, Got};
use crate::error::{Error, Result};
use crate::sync::{Condvar, Mutex};
use lockclient::flags::LockFlags;
use lockclient::mode::Mode;
use std::sync::Arc;
use std::time::Duration;

/// A freeze that failed is tried again after this, while the other node waits.
const RETRY: Duration = Duration::from_secs(1);

/// This node's part in freezing.
pub(super) struct Freeze {
    pub(super) lock: Arc<Direct>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Another node waits for us to freeze.
    wanted: bool,
    /// We have frozen the filesystem, or are about to.
    ours: bool,
    /// We are frozen because another node wants it.
    theirs: bool,
    stop: bool,
}

impl Freeze {
    pub(super) fn new(lock: Arc<Direct>) -> Self {
        Self { lock, state: Mutex::default(), changed: Condvar::new() }
    }
    /// Another node wants to freeze the filesystem.
    pub(super) fn notice(&self) {
        self.state.lock().wanted = true;
        self.changed.notify_all();
    }
    /// The freeze thread shall end.
    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_all();
    }
    fn is_stopping(&self) -> bool {
        self.state.lock().stop
    }
}

/// The freeze thread: waits for notices until it is told to stop.
pub(super) fn run(core: &Arc<Core>, recovery: &Arc<dyn Recovery>) {
    let freeze = &core.freeze;
    loop {
        {
            let mut state = freeze.state.lock();
            while !state.stop && (!state.wanted || state.ours) {
                freeze.changed.wait(&mut state);
            }
            if state.stop {
                return;
            }
            (state.wanted, state.theirs) = (false, true);
        }
        let again = match follow(core, recovery) {
            Ok(()) => false,
            Err(e) => {
                tracing::error!("freezing for another node: {e}");
                true
            }
        };
        let mut state = freeze.state.lock();
        state.theirs = false;
        if again && !state.stop {
            state.wanted = true;
            freeze.changed.wait_for(&mut state, RETRY);
        }
    }
}

/// Freezes this node for as long as another holds FREEZE.
fn follow(core: &Arc<Core>, recovery: &Arc<dyn Recovery>) -> Result<()> {
    let (dlm, lock) = (&core.dlm, &core.freeze.lock);
    let stop = || core.freeze.is_stopping();
    if lock.mode() == Some(Mode::Pr) {
        recovery.freeze()?;
        tracing::info!("frozen by another node");
        let asked_again = lock
            .set(dlm, Mode::Nl, LockFlags::empty(), None, &stop)
            .and_then(|_| lock.set(dlm, Mode::Pr, LockFlags::QUECVT, None, &stop));
        recovery.thaw();
        tracing::info!("thawed");
        asked_again?;
    }
    Ok(())
}

impl Core {
    /// Takes FREEZE shared, as every node does; waits while the filesystem is frozen.
    pub(super) fn join_freeze(&self, stop: &dyn Fn() -> bool) -> Result<Got> {
        self.freeze.lock.set(&self.dlm, Mode::Pr, LockFlags::empty(), None, stop)
    }

    /// Freezes the filesystem on all nodes; `Busy` when it is frozen, or another node is about to.
    pub(super) fn freeze_all(&self) -> Result<()> {
        let recovery = self.recovery().ok_or(Error::Busy)?;
        {
            let mut state = self.freeze.state.lock();
            if state.ours || state.theirs || state.wanted {
                return Err(Error::Busy);
            }
            state.ours = true;
        }
        let lock = &self.freeze.lock;
        let frozen = match lock.set(&self.dlm, Mode::Ex, LockFlags::QUECVT, None, &|| self.freeze.is_stopping()) {
            // All others stand still.
            Ok(Got::Granted) => recovery.freeze().inspect_err(|_| self.give_freeze_back()),
            // Another node was faster.
            Ok(Got::Deadlock | Got::Again) => Err(Error::Busy),
            Ok(Got::Stopped) => Err(Error::Interrupted),
            Err(e) => Err(e),
        };
        if frozen.is_err() {
            self.freeze.state.lock().ours = false;
            self.freeze.changed.notify_all();
        }
        frozen
    }

    /// Ends what `freeze_all` began; `Invalid` when we have not frozen anything.
    pub(super) fn thaw_all(&self) -> Result<()> {
        if self.freeze.lock.mode() != Some(Mode::Ex) {
            return Err(Error::Invalid);
        }
        if let Some(recovery) = self.recovery() {
            recovery.thaw();
        }
        self.give_freeze_back();
        self.freeze.state.lock().ours = false;
        self.freeze.changed.notify_all();
        Ok(())
    }

    fn give_freeze_back(&self) {
        if let Err(e) = self.freeze.lock.set(&self.dlm, Mode::Pr, LockFlags::empty(), None, &|| false) {
            // The lock is gone with the lockspace.
            tracing::debug!("thaw: {e}");
        }
    }
}
