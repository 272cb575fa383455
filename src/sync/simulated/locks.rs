//! Locks: those of `parking_lot`, tried until they are free.

use super::Instant;
use super::scheduler::{Scheduler, me, pause};
use parking_lot::{ArcRwLockReadGuard, ArcRwLockWriteGuard, RawRwLock};
use parking_lot::{MutexGuard, RwLockReadGuard, RwLockWriteGuard};
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Takes what `attempt` gives, now or when the others have gone on.
fn until_free<G>(attempt: impl Fn() -> Option<G>, wait: impl FnOnce() -> G) -> G {
    let Some((scheduler, n)) = me() else { return wait() };
    pause();
    loop {
        if let Some(guard) = attempt() {
            return guard;
        }
        scheduler.spin(n);
    }
}

/// A mutex.
#[derive(Default)]
pub struct Mutex<T: ?Sized>(parking_lot::Mutex<T>);

impl<T> Mutex<T> {
    /// Unlocked.
    pub const fn new(value: T) -> Self {
        Self(parking_lot::Mutex::new(value))
    }
    /// What was inside.
    pub fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Locks it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        until_free(|| self.0.try_lock(), || self.0.lock())
    }
    /// Locks it if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        pause();
        self.0.try_lock()
    }
    /// What is inside; nobody else has it.
    pub fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A lock for many readers or one writer.
pub struct RwLock<T>(Arc<parking_lot::RwLock<T>>);

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> RwLock<T> {
    /// Unlocked.
    pub fn new(value: T) -> Self {
        Self(Arc::new(parking_lot::RwLock::new(value)))
    }
    /// What is inside; nobody else has it.
    pub fn get_mut(&mut self) -> &mut T {
        // Only guards of `read_arc` and `write_arc` share it, and they outlive no exclusive borrow in our code.
        Arc::get_mut(&mut self.0).unwrap_or_else(|| panic!("a guard is alive")).get_mut()
    }
    /// Locks it for reading.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        until_free(|| self.0.try_read(), || self.0.read())
    }
    /// Locks it for writing.
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        until_free(|| self.0.try_write(), || self.0.write())
    }
    /// Locks it for reading if it is free.
    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        pause();
        self.0.try_read()
    }
    /// Locks it for writing if it is free.
    pub fn try_write(&self) -> Option<RwLockWriteGuard<'_, T>> {
        pause();
        self.0.try_write()
    }
    /// As [`RwLock::read`], with a guard that keeps it alive.
    pub fn read_arc(&self) -> ArcRwLockReadGuard<RawRwLock, T> {
        until_free(|| self.0.try_read_arc(), || self.0.read_arc())
    }
    /// As [`RwLock::write`], with a guard that keeps it alive.
    pub fn write_arc(&self) -> ArcRwLockWriteGuard<RawRwLock, T> {
        until_free(|| self.0.try_write_arc(), || self.0.write_arc())
    }
    /// As [`RwLock::try_read`].
    pub fn try_read_arc(&self) -> Option<ArcRwLockReadGuard<RawRwLock, T>> {
        pause();
        self.0.try_read_arc()
    }
    /// As [`RwLock::try_write`].
    pub fn try_write_arc(&self) -> Option<ArcRwLockWriteGuard<RawRwLock, T>> {
        pause();
        self.0.try_write_arc()
    }
}

impl<T: fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Did the time run out?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// It did.
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

/// A condition variable.
#[derive(Default)]
pub struct Condvar {
    real: parking_lot::Condvar,
    waiting: std::sync::Mutex<VecDeque<(Arc<Scheduler>, usize)>>,
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condvar")
    }
}

impl Condvar {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self { real: parking_lot::Condvar::new(), waiting: std::sync::Mutex::new(VecDeque::new()) }
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, VecDeque<(Arc<Scheduler>, usize)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits, without the lock, until it is notified.
    pub fn wait<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>) {
        match me() {
            None => self.real.wait(guard),
            Some(me) => {
                self.wait_simulated(&me, guard, None);
            }
        }
    }
    /// The same, for a while at most.
    pub fn wait_for<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, time: Duration) -> WaitTimeoutResult {
        WaitTimeoutResult(match me() {
            None => self.real.wait_for(guard, time).timed_out(),
            Some(me) => {
                let deadline = me.0.after(time);
                self.wait_simulated(&me, guard, Some(deadline))
            }
        })
    }
    /// The same, until then at most.
    pub fn wait_until<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, until: Instant) -> WaitTimeoutResult {
        self.wait_for(guard, until.saturating_duration_since(Instant::now()))
    }

    fn wait_simulated<T: ?Sized>(
        &self,
        (scheduler, n): &(Arc<Scheduler>, usize),
        guard: &mut MutexGuard<'_, T>,
        deadline: Option<u64>,
    ) -> bool {
        self.waiting().push_back((Arc::clone(scheduler), *n));
        let mutex = MutexGuard::mutex(guard);
        MutexGuard::unlocked(guard, || {
            scheduler.block(*n, deadline);
            // It is locked again right after, for which nobody may have it then.
            while mutex.is_locked() {
                scheduler.spin(*n);
            }
        });
        let mut waiting = self.waiting();
        let before = waiting.len();
        waiting.retain(|(_, other)| other != n);
        waiting.len() != before
    }

    /// Wakes one that waits.
    pub fn notify_one(&self) -> bool {
        let next = self.waiting().pop_front();
        match next {
            Some((scheduler, n)) => {
                scheduler.wake(n);
                true
            }
            None => self.real.notify_one(),
        }
    }
    /// Wakes all that wait.
    pub fn notify_all(&self) -> usize {
        let all = std::mem::take(&mut *self.waiting());
        for (scheduler, n) in &all {
            scheduler.wake(*n);
        }
        all.len() + self.real.notify_all()
    }
}
