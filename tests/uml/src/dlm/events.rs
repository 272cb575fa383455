//! What a lock manager has told a test, kept until the test asks.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One thing told. `tag` is the test's name for a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// An operation ended.
    Completed {
        /// Of the lock.
        tag: u64,
        /// 0 or a negative error.
        status: i32,
        /// Status block flags.
        flags: u8,
        /// The value block, where one was returned.
        lvb: Option<Vec<u8>>,
    },
    /// The lock is in the way of someone who wants this mode.
    Blocking {
        /// Of the lock.
        tag: u64,
        /// Wanted.
        mode: u8,
    },
    /// The kernel asks: `online` or `offline`, and the lockspace.
    Uevent(String, String),
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    closed: bool,
}

/// A queue of events with a way to wait for one. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Events(Arc<(Mutex<Kept>, Condvar)>);

impl Events {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Events are only added and removed whole.
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds one.
    pub fn add(&self, event: Event) {
        self.kept().events.push_back(event);
        self.0.1.notify_all();
    }

    /// Nothing follows.
    pub fn close(&self) {
        self.kept().closed = true;
        self.0.1.notify_all();
    }

    /// Takes the first event that is wanted, waiting for it.
    ///
    /// # Errors
    /// When it does not come in time; with what did come.
    pub fn wait(&self, what: &str, limit: Duration, wanted: impl Fn(&Event) -> bool) -> Result<Event, String> {
        let deadline = Instant::now() + limit;
        let mut kept = self.kept();
        loop {
            if let Some(at) = kept.events.iter().position(&wanted)
                && let Some(event) = kept.events.remove(at)
            {
                return Ok(event);
            }
            let left = deadline.checked_duration_since(Instant::now()).filter(|_| !kept.closed);
            let Some(left) = left else {
                let last: Vec<&Event> = kept.events.iter().rev().take(8).collect();
                return Err(format!("no {what}; the last events, newest first: {last:?}"));
            };
            kept = self.0.1.wait_timeout(kept, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes the first event that is wanted, if it is there.
    pub fn take(&self, wanted: impl Fn(&Event) -> bool) -> Option<Event> {
        let mut kept = self.kept();
        let at = kept.events.iter().position(wanted)?;
        kept.events.remove(at)
    }
}
