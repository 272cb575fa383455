//! Device flushes that many callers share.

use super::Health;
use crate::device::BlockDevice;
use crate::error::Result;
use crate::sync::{Condvar, Mutex};

/// Counts flushes of a device, so that one serves all who wait.
#[derive(Default)]
pub(crate) struct Barrier {
    state: Mutex<Counts>,
    done: Condvar,
}

#[derive(Default)]
struct Counts {
    started: u64,
    done: u64,
    running: bool,
}

/// Proof of a moment: every flush that starts later has a higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

impl Barrier {
    /// Taken after the writes that must become durable have returned.
    pub(crate) fn ticket(&self) -> Ticket {
        Ticket(self.state.lock().started)
    }
    /// True when a flush that started after the ticket was taken has succeeded.
    pub(crate) fn is_past(&self, ticket: Ticket) -> bool {
        self.state.lock().done > ticket.0
    }
    /// Returns when a flush that started after the ticket was taken has succeeded. A failure withdraws.
    pub(crate) fn pass(&self, ticket: Ticket, dev: &dyn BlockDevice, health: &Health) -> Result<()> {
        let mut s = self.state.lock();
        loop {
            if s.done > ticket.0 {
                return Ok(());
            }
            health.check()?;
            if s.running {
                self.done.wait(&mut s);
                continue;
            }
            s.started += 1;
            s.running = true;
            let mine = s.started;
            drop(s);
            let result = health.watch(dev.flush());
            s = self.state.lock();
            s.running = false;
            if result.is_ok() {
                s.done = mine;
            }
            self.done.notify_all();
            result?;
        }
    }
}
