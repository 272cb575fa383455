//! Locks, threads, channels and time. Everything of ours takes them from here, so that they can be swapped in one place: with the
//! feature `simulated` they are those of [`simulated`], where a seed decides who runs when.
//!
//! # Patience
//!
//! A thread that reads requests from the kernel must not wait for a disk or a lock: while it waits, nobody reads. So it
//! runs each request *impatiently* first. Whatever would have to wait says [`Error::MustWait`](crate::error::Error) before
//! anything was changed, and the request is run again, from its start, on a thread that may wait. Once a transaction has
//! begun the thread is patient until the operation ends ([`commit_to_waiting`]): a change is never abandoned half-way.
//!
//! This is the one ambient thing in the house. The alternative, a parameter through every function down to the device,
//! would be in every signature and be used in four places: a cache miss, a contended glock, a full log, a full write buffer.

use crate::error::{Error, Result};
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "simulated")]
pub mod simulated;

#[cfg(not(feature = "simulated"))]
mod real {
    pub use dashmap::DashMap;
    pub use parking_lot::{Condvar, Mutex, RwLock};
    pub use std::sync::mpsc;
    pub use std::thread;
    pub use std::time::Instant;
}

pub use parking_lot::{
    ArcRwLockReadGuard, ArcRwLockWriteGuard, MutexGuard, RawRwLock, RwLockReadGuard, RwLockWriteGuard,
};
#[cfg(not(feature = "simulated"))]
pub use real::{Condvar, DashMap, Instant, Mutex, RwLock, mpsc, thread};
#[cfg(feature = "simulated")]
pub use simulated::{Condvar, DashMap, Instant, Mutex, RwLock, mpsc, thread};

thread_local! {
    static IMPATIENT: Cell<bool> = const { Cell::new(false) };
    static BEFORE_WAIT: RefCell<Option<Box<dyn Fn()>>> = const { RefCell::new(None) };
}

/// A number that was not given before: from 1 on, in this process or this simulation.
pub fn serial() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    #[cfg(feature = "simulated")]
    if let Some(number) = simulated::serial() {
        return number;
    }
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Calls `hook` before each wait of this thread, from now on: somebody else shall do meanwhile what it would have done.
pub fn before_waits(hook: impl Fn() + 'static) {
    BEFORE_WAIT.set(Some(Box::new(hook)));
}

/// Runs `f` with this thread forbidden to wait; the previous rule is restored afterwards, also when `f` panics.
pub fn impatiently<R>(f: impl FnOnce() -> R) -> R {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            IMPATIENT.set(self.0);
        }
    }
    let _restore = Restore(IMPATIENT.replace(true));
    f()
}

/// Whether this thread may wait.
pub fn may_wait() -> bool {
    !IMPATIENT.get()
}

/// `Ok` when this thread may wait, [`Error::MustWait`] otherwise. Called right before each wait.
pub fn about_to_wait() -> Result<()> {
    if !may_wait() {
        return Err(Error::MustWait);
    }
    BEFORE_WAIT.with_borrow(|hook| {
        if let Some(hook) = hook {
            hook();
        }
    });
    Ok(())
}

/// From here to the end of the request this thread may wait: a change has begun and must be finished.
pub fn commit_to_waiting() {
    IMPATIENT.set(false);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_is_restored() {
        assert!(may_wait());
        impatiently(|| {
            assert!(about_to_wait().is_err());
            commit_to_waiting();
            assert!(may_wait());
        });
        assert!(may_wait());
    }
}
