//! Whether the mount may still write.

use crate::error::{Error, Result};
use crate::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Good until the first I/O error or contradiction; bad for ever afterwards (ondisk.md 8.12, withdraw).
#[derive(Debug, Default)]
pub struct Health {
    failed: AtomicBool,
    cause: Mutex<Option<String>>,
}

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
        self.failed.store(true, Ordering::Release);
        tracing::error!("withdrawn: {cause}; nothing is written any more");
        true
    }
    /// Why, if it has withdrawn.
    pub fn cause(&self) -> Option<String> {
        self.cause.lock().clone()
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
