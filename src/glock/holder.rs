//! Holders: proof that a glock is held, and the only way to its object.

use super::manager::Lvb;
use super::mode::LockState::{self, Deferred, Exclusive, Shared};
use super::queue::Entry;
use super::{Glock, Protected};
use crate::error::{Error, Result};
use crate::ids::LockName;
use crate::sync::{ArcRwLockReadGuard, ArcRwLockWriteGuard, RawRwLock, about_to_wait};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

type ReadGuard<T> = ArcRwLockReadGuard<RawRwLock, Option<T>>;
pub(super) type WriteGuard<T> = ArcRwLockWriteGuard<RawRwLock, Option<T>>;

/// One holder's share of a glock; given back when dropped.
pub(super) struct Hold<T: Protected> {
    pub(super) glock: Arc<Glock<T>>,
}

impl<T: Protected> Drop for Hold<T> {
    fn drop(&mut self) {
        self.glock.release();
    }
}

/// Proof of a shared lock; derefs to the object. Owned: may be moved to another thread.
pub struct SharedHolder<T: Protected> {
    // Dropped before `hold`: whoever is granted next finds the object free.
    guard: ReadGuard<T>,
    hold: Hold<T>,
}

/// Proof of a deferred lock (direct I/O): like a shared one, but nobody on any node caches the file's data meanwhile.
pub struct DeferredHolder<T: Protected> {
    guard: ReadGuard<T>,
    hold: Hold<T>,
}

/// Proof of an exclusive lock; derefs to the object mutably. Owned.
pub struct ExclusiveHolder<T: Protected> {
    guard: WriteGuard<T>,
    hold: Hold<T>,
    forget: bool,
}

impl<T: Protected> Glock<T> {
    /// Takes the lock shared; instantiates the object when needed. `MustWait` when it would wait and may not.
    pub fn shared(self: &Arc<Self>) -> Result<SharedHolder<T>> {
        self.shared_as(Entry::Ordinary)
    }

    /// The same for a request that a drain may wait for.
    pub fn shared_as(self: &Arc<Self>, entry: Entry) -> Result<SharedHolder<T>> {
        let hold = self.hold(Shared, false, entry)?;
        let guard = self.read()?;
        Ok(SharedHolder { guard, hold })
    }

    /// Takes the lock deferred.
    pub fn deferred(self: &Arc<Self>) -> Result<DeferredHolder<T>> {
        let hold = self.hold(Deferred, false, Entry::Ordinary)?;
        let guard = self.read()?;
        Ok(DeferredHolder { guard, hold })
    }

    /// Takes the lock exclusive.
    pub fn exclusive(self: &Arc<Self>) -> Result<ExclusiveHolder<T>> {
        self.exclusive_as(Entry::Ordinary)
    }

    /// The same for a request that a drain may wait for.
    pub fn exclusive_as(self: &Arc<Self>, entry: Entry) -> Result<ExclusiveHolder<T>> {
        let hold = self.hold(Exclusive, false, entry)?;
        let guard = self.write()?;
        Self::filled(hold, guard)
    }

    /// Takes the lock exclusive if nobody has to be waited for; `None` otherwise. The object may have to be read: a thread
    /// that may wait waits for that, another one is told `MustWait`.
    pub fn try_exclusive(self: &Arc<Self>) -> Result<Option<ExclusiveHolder<T>>> {
        let hold = match self.hold(Exclusive, true, Entry::Ordinary) {
            Ok(hold) => hold,
            Err(Error::WouldBlock | Error::MustWait) => return Ok(None),
            Err(e) => return Err(e),
        };
        let Some(guard) = self.object.try_write_arc() else { return Ok(None) };
        Self::filled(hold, guard).map(Some)
    }

    /// Takes the lock exclusive and puts `object` inside without reading (a newly created object; an old one is replaced).
    pub fn exclusive_with(self: &Arc<Self>, object: T) -> Result<ExclusiveHolder<T>> {
        let hold = self.hold(Exclusive, false, Entry::Ordinary)?;
        let mut guard = self.write()?;
        *guard = Some(object);
        Ok(ExclusiveHolder { guard, hold, forget: false })
    }

    pub(super) fn hold(self: &Arc<Self>, state: LockState, tries: bool, entry: Entry) -> Result<Hold<T>> {
        self.acquire(state, tries, entry)?;
        Ok(self.held())
    }

    /// For whoever has acquired the lock.
    pub(super) fn held(self: &Arc<Self>) -> Hold<T> {
        Hold { glock: Arc::clone(self) }
    }

    /// The object, read; instantiated when it is not there. Other readers, who may stay for long, are never waited for: one of
    /// them may have come first and have put it there.
    fn read(&self) -> Result<ReadGuard<T>> {
        loop {
            // Another holder may just be reading the object from the disk.
            let guard = match self.object.try_read_arc() {
                Some(guard) => guard,
                None => {
                    about_to_wait()?;
                    self.object.read_arc()
                }
            };
            if guard.is_some() {
                return Ok(guard);
            }
            drop(guard);
            // Nobody who shares the lock keeps a guard without an object: it is free, or filled, soon.
            let Some(mut guard) = self.object.try_write_arc() else { continue };
            if guard.is_none() {
                *guard = Some(T::instantiate(self.name(), &*self.context()?)?);
            }
            return Ok(ArcRwLockWriteGuard::downgrade(guard));
        }
    }

    pub(super) fn write(&self) -> Result<WriteGuard<T>> {
        match self.object.try_write_arc() {
            Some(guard) => Ok(guard),
            None => {
                about_to_wait()?;
                Ok(self.object.write_arc())
            }
        }
    }

    /// A holder whose object is there. (The parameters are dropped from the last on: the guard before the hold.)
    pub(super) fn filled(hold: Hold<T>, mut guard: WriteGuard<T>) -> Result<ExclusiveHolder<T>> {
        if guard.is_none() {
            *guard = Some(T::instantiate(hold.glock.name(), &*hold.glock.context()?)?);
        }
        Ok(ExclusiveHolder { guard, hold, forget: false })
    }
}

impl<T: Protected> SharedHolder<T> {
    /// The lock's name.
    pub fn name(&self) -> LockName {
        self.hold.glock.name()
    }
    /// The lock.
    pub fn glock(&self) -> &Arc<Glock<T>> {
        &self.hold.glock
    }
}

impl<T: Protected> DeferredHolder<T> {
    /// The lock's name.
    pub fn name(&self) -> LockName {
        self.hold.glock.name()
    }
    /// The lock.
    pub fn glock(&self) -> &Arc<Glock<T>> {
        &self.hold.glock
    }
}

impl<T: Protected> ExclusiveHolder<T> {
    /// The lock's name.
    pub fn name(&self) -> LockName {
        self.hold.glock.name()
    }
    /// The lock.
    pub fn glock(&self) -> &Arc<Glock<T>> {
        &self.hold.glock
    }
    pub(super) fn filled_with(hold: Hold<T>, guard: WriteGuard<T>) -> Self {
        Self { guard, hold, forget: false }
    }
    /// Drops the object when the holder is dropped: the next holder reads it from disk/cache again (after a failed change).
    pub fn forget_object(&mut self) {
        self.forget = true;
    }
    /// Sets the lock's value block; other nodes see it when the lock is given up.
    pub fn set_lvb(&mut self, lvb: Lvb) {
        self.hold.glock.set_lvb(lvb);
    }
}

impl<T: Protected> Drop for ExclusiveHolder<T> {
    fn drop(&mut self) {
        if self.forget {
            *self.guard = None;
        }
    }
}

const FILLED: &str = "a holder is made only when the object is there, and only its drop takes it out";

impl<T: Protected> Deref for SharedHolder<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.guard.as_ref().expect(FILLED)
    }
}
impl<T: Protected> Deref for DeferredHolder<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.guard.as_ref().expect(FILLED)
    }
}
impl<T: Protected> Deref for ExclusiveHolder<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.guard.as_ref().expect(FILLED)
    }
}
impl<T: Protected> DerefMut for ExclusiveHolder<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect(FILLED)
    }
}
