//! Freezing: the volume is brought to rest, changes wait until it is thawed, reading goes on.
//!
//! Who would change something waits at a gate before it takes any lock, so that nobody else waits for what it holds.

use super::Fs;
use crate::error::{Error, Result};
use crate::sync::{Condvar, Mutex, about_to_wait};
use std::sync::atomic::{AtomicBool, Ordering};

/// The gate.
#[derive(Default)]
pub(super) struct Gate {
    shut: AtomicBool,
    lock: Mutex<()>,
    opened: Condvar,
}

impl Gate {
    pub(super) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Acquire)
    }

    fn set(&self, shut: bool) {
        let _waiters_look_again = self.lock.lock();
        self.shut.store(shut, Ordering::Release);
        self.opened.notify_all();
    }

    /// Waits while the gate is shut (`MustWait` where that is not allowed).
    pub(super) fn pass(&self) -> Result<()> {
        if !self.is_shut() {
            return Ok(());
        }
        about_to_wait()?;
        let mut lock = self.lock.lock();
        while self.is_shut() {
            self.opened.wait(&mut lock);
        }
        Ok(())
    }
}

impl Fs {
    /// True while the volume is frozen.
    pub fn is_frozen(&self) -> bool {
        self.gate.is_shut()
    }

    /// Brings the volume to rest: everything is on the disk and the log closed, so that a copy of the device is clean. Changes
    /// wait until [`thaw`](Self::thaw). Errors: `Busy` when it is frozen already; what the disk says, and then it is not frozen.
    pub fn freeze(&self) -> Result<()> {
        if self.is_frozen() {
            return Err(Error::Busy);
        }
        if self.is_read_only() {
            self.gate.set(true);
            return Ok(());
        }
        // Before the gate is shut: the counters' own changes pass it, but a journal at rest would hold them.
        self.sync_counters()?;
        self.gate.set(true);
        let frozen = self.sync_counters().and_then(|()| self.vol.journal.freeze());
        frozen.inspect_err(|_| self.gate.set(false))
    }

    /// Ends a freeze; nothing happens where there is none.
    pub fn thaw(&self) {
        if self.is_frozen() {
            self.vol.journal.thaw();
            self.gate.set(false);
        }
    }
}
