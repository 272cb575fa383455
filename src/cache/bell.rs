//! Waking a background thread.

use crate::sync::{Condvar, Mutex, thread};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A bell that a background thread sleeps by. It is apart from what the thread works for, so that the sleeping thread does
/// not keep that alive.
#[derive(Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    condvar: Condvar,
    stop: AtomicBool,
}

impl Bell {
    /// Wakes the thread; remembered when it is busy.
    pub(crate) fn ring(&self) {
        *self.rung.lock() = true;
        self.condvar.notify_all();
    }
    /// Tells the thread to end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.ring();
    }
    /// True once it must end.
    pub(crate) fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
    /// Sleeps until the bell rings (true) or the time is over (false).
    pub(crate) fn wait(&self, at_most: Option<Duration>) -> bool {
        let mut rung = self.rung.lock();
        while !*rung && !self.stopped() {
            match at_most {
                None => self.condvar.wait(&mut rung),
                Some(time) => {
                    if self.condvar.wait_for(&mut rung, time).timed_out() {
                        break;
                    }
                }
            }
        }
        std::mem::take(&mut *rung)
    }
}

/// Waits for a background thread, unless it is the one that calls (it let go of the last reference to its master).
pub(crate) fn join(handle: thread::JoinHandle<()>) {
    if handle.thread().id() != thread::current().id() && handle.join().is_err() {
        tracing::error!("a background thread panicked");
    }
}
