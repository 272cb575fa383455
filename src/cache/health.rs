//! Whether the mount may still write.

use crate::error::{Error, Result};
use crate::sync::{Condvar, Instant, Mutex, thread};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// Good until the first I/O error or contradiction; bad for ever afterwards (ondisk.md 8.12, withdraw).
///
/// Every write of a cache passes [`Health::writing`]: none begins after a withdraw, and whoever gives the journal away can wait
/// for those that began before ([`Health::await_writers`]).
#[derive(Default)]
pub struct Health {
    failed: AtomicBool,
    cause: Mutex<Option<String>>,
    /// There is a cause.
    failing: Condvar,
    /// Writes that are in the device's hands.
    writers: AtomicUsize,
    /// May anything be written now? Nobody asks on a single node.
    trusted: OnceLock<Box<dyn Fn() -> bool + Send + Sync>>,
}

/// A write is under way until this is dropped.
pub(crate) struct Writing<'a>(&'a Health);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.writers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// How often a write that may not go yet looks again.
const LOOK: Duration = Duration::from_millis(5);
/// A write that waits so long is told of.
const PATIENCE: Duration = Duration::from_secs(1);

impl Health {
    /// [`Error::Withdrawn`] once the mount has withdrawn. Called before every write.
    pub fn check(&self) -> Result<()> {
        if self.failed.load(Ordering::Acquire) { Err(Error::Withdrawn) } else { Ok(()) }
    }
    /// Withdraws. The first cause is kept and logged; true for the call that did it.
    pub fn fail(&self, cause: &Error) -> bool {
        self.fail_because(&cause.to_string())
    }
    /// The same with a cause in words.
    pub fn fail_because(&self, cause: &str) -> bool {
        let mut kept = self.cause.lock();
        if kept.is_some() {
            return false;
        }
        *kept = Some(cause.to_owned());
        self.failed.store(true, Ordering::SeqCst);
        self.failing.notify_all();
        tracing::error!("withdrawn: {cause}; nothing is written any more");
        true
    }
    /// `trusted` says whether the locks that were granted to this node are still its own: others declare a node dead that they have
    /// not heard for a while, and a process that was stopped meanwhile does not know. To be said once, and cheap to ask.
    pub fn ask_before_writing(&self, trusted: Box<dyn Fn() -> bool + Send + Sync>) {
        if self.trusted.set(trusted).is_err() {
            debug_assert!(false, "it is said once");
        }
    }
    /// To be held during a write. Waits while the node is not trusted: until it is known to be a member still, or has withdrawn
    /// ([`Error::Withdrawn`]).
    pub(crate) fn writing(&self) -> Result<Writing<'_>> {
        let mut since = None;
        loop {
            self.writers.fetch_add(1, Ordering::SeqCst);
            let writing = Writing(self);
            if self.failed.load(Ordering::SeqCst) {
                return Err(Error::Withdrawn);
            }
            if self.trusted.get().is_none_or(|trusted| trusted()) {
                return Ok(writing);
            }
            drop(writing);
            let (begun, told) = since.get_or_insert_with(|| (Instant::now(), false));
            if !*told && begun.elapsed() >= PATIENCE {
                *told = true;
                tracing::warn!("writes wait: the other nodes may have gone on without this one");
            }
            thread::sleep(LOOK);
        }
    }
    /// After a withdraw: waits until no write is in the device's hands any more; false if some still is after this time.
    pub fn await_writers(&self, at_most: Duration) -> bool {
        let until = Instant::now() + at_most;
        while self.writers.load(Ordering::SeqCst) > 0 {
            if Instant::now() >= until {
                return false;
            }
            thread::sleep(LOOK);
        }
        true
    }
    /// Why, if it has withdrawn.
    pub fn cause(&self) -> Option<String> {
        self.cause.lock().clone()
    }
    /// Whoever waits for a withdraw looks up.
    pub fn rouse(&self) {
        let _between_looks = self.cause.lock();
        self.failing.notify_all();
    }
    /// Waits until it has withdrawn or somebody is roused, at most for this time; why, if it has.
    pub fn await_failure(&self, at_most: Duration) -> Option<String> {
        let mut cause = self.cause.lock();
        if cause.is_none() {
            self.failing.wait_for(&mut cause, at_most);
        }
        cause.clone()
    }
    /// Passes a result of a write on; its error withdraws.
    pub fn watch<T>(&self, result: std::io::Result<T>) -> Result<T> {
        result.map_err(|e| {
            let e = Error::from(e);
            self.fail(&e);
            e
        })
    }
}

/// Withdraws when a panic passes through its scope: what it guards is then in doubt.
pub(crate) struct Doubt<'a>(pub(crate) &'a Health);

impl Drop for Doubt<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail_because("a panic while the disk was being written");
        }
    }
}
