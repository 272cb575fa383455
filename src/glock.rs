//! Chapter 3: the glock, a cluster lock with its cached object inside.

use crate::error::Result;
use crate::ids::LockName;
use crate::sync::{ArcRwLockReadGuard, ArcRwLockWriteGuard, DashMap, RawRwLock, RwLock, about_to_wait};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock, Weak};

/// What lives inside a glock. Implemented beside each object (`inode/protect.rs`, `rgrp/protect.rs`).
pub trait Protected: Sized + Send + Sync + 'static {
    /// What the object needs to be read from and written to the disk.
    type Context: Send + Sync + 'static;
    /// Reads the object from the disk; called with the lock held, when a holder finds no object.
    fn instantiate(name: LockName, cx: &Self::Context) -> Result<Self>;
    /// Makes all that this lock covers clean on the disk (log flushed, written in place, revoked), before EX is given up.
    fn sync(name: LockName, object: &mut Self, cx: &Self::Context) -> Result<()>;
    /// Forgets what is cached outside the object (buffers); the object itself is dropped afterwards.
    fn invalidate(name: LockName, cx: &Self::Context);
}

type Slot<T> = Arc<RwLock<Option<T>>>;
type Cx<T> = Arc<OnceLock<Weak<<T as Protected>::Context>>>;

/// A cluster lock with the object it protects.
pub struct Glock<T: Protected> {
    name: LockName,
    object: Slot<T>,
    cx: Cx<T>,
}

/// Proof of a shared lock; derefs to the object. Owned: may be moved to another thread.
pub struct SharedHolder<T: Protected> {
    guard: ArcRwLockReadGuard<RawRwLock, Option<T>>,
}
/// Proof of an exclusive lock; derefs to the object mutably. Owned.
pub struct ExclusiveHolder<T: Protected> {
    name: LockName,
    forget: bool,
    guard: ArcRwLockWriteGuard<RawRwLock, Option<T>>,
}

impl<T: Protected> Glock<T> {
    /// The lock's name.
    pub fn name(&self) -> LockName {
        self.name
    }

    fn fill(&self, slot: &mut Option<T>) -> Result<()> {
        if slot.is_none() {
            let cx = self.cx.get().and_then(Weak::upgrade).ok_or(crate::error::Error::Withdrawn)?;
            *slot = Some(T::instantiate(self.name, &cx)?);
        }
        Ok(())
    }

    fn write(&self) -> Result<ArcRwLockWriteGuard<RawRwLock, Option<T>>> {
        match self.object.try_write_arc() {
            Some(guard) => Ok(guard),
            None => {
                about_to_wait()?;
                Ok(self.object.write_arc())
            }
        }
    }

    /// Takes the lock shared; instantiates the object when needed. `MustWait` when it would wait and may not.
    pub fn shared(self: &Arc<Self>) -> Result<SharedHolder<T>> {
        loop {
            let guard = match self.object.try_read_arc() {
                Some(guard) => guard,
                None => {
                    about_to_wait()?;
                    self.object.read_arc()
                }
            };
            if guard.is_some() {
                return Ok(SharedHolder { guard });
            }
            drop(guard);
            let mut guard = self.write()?;
            self.fill(&mut guard)?;
            return Ok(SharedHolder { guard: ArcRwLockWriteGuard::downgrade(guard) });
        }
    }
    /// Takes the lock exclusive.
    pub fn exclusive(self: &Arc<Self>) -> Result<ExclusiveHolder<T>> {
        let mut guard = self.write()?;
        self.fill(&mut guard)?;
        Ok(ExclusiveHolder { name: self.name, forget: false, guard })
    }
    /// Takes the lock exclusive if that needs no waiting at all; `None` otherwise.
    pub fn try_exclusive(self: &Arc<Self>) -> Result<Option<ExclusiveHolder<T>>> {
        let Some(mut guard) = self.object.try_write_arc() else { return Ok(None) };
        self.fill(&mut guard)?;
        Ok(Some(ExclusiveHolder { name: self.name, forget: false, guard }))
    }
    /// Takes the lock exclusive and puts `object` inside without reading (a newly created object; an old one is replaced).
    pub fn exclusive_with(self: &Arc<Self>, object: T) -> Result<ExclusiveHolder<T>> {
        let mut guard = self.write()?;
        *guard = Some(object);
        Ok(ExclusiveHolder { name: self.name, forget: false, guard })
    }
}

impl<T: Protected> ExclusiveHolder<T> {
    /// The lock's name.
    pub fn name(&self) -> LockName {
        self.name
    }
    /// Drops the object when the holder is dropped: the next holder reads it from disk/cache again (after a failed change).
    pub fn forget_object(&mut self) {
        self.forget = true;
    }
}

impl<T: Protected> Drop for ExclusiveHolder<T> {
    fn drop(&mut self) {
        if self.forget {
            *self.guard = None;
        }
    }
}

const FILLED: &str = "a holder is made only of a filled slot";

impl<T: Protected> Deref for SharedHolder<T> {
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

/// All glocks of one kind: name → glock.
pub struct GlockTable<T: Protected> {
    map: DashMap<LockName, Arc<Glock<T>>>,
    cx: Cx<T>,
    keep: usize,
}

impl<T: Protected> GlockTable<T> {
    /// A table of glocks granted by `manager`; `keep` unused ones stay cached. `set_context` must follow before use.
    pub fn new(_manager: Arc<dyn LockManager>, keep: usize) -> Self {
        Self { map: DashMap::new(), cx: Arc::new(OnceLock::new()), keep }
    }
    /// Gives the table the context for `Protected` calls, once (a `Weak` inside: the context usually owns the table).
    pub fn set_context(&self, cx: &Arc<T::Context>) {
        let _set_before = self.cx.set(Arc::downgrade(cx)).is_err();
    }
    /// The glock of this name, made when new.
    pub fn get(&self, name: LockName) -> Arc<Glock<T>> {
        if let Some(found) = self.map.get(&name) {
            return Arc::clone(&found);
        }
        let make = || Arc::new(Glock { name, object: Arc::new(RwLock::new(None)), cx: Arc::clone(&self.cx) });
        let glock = Arc::clone(&self.map.entry(name).or_insert_with(make));
        if self.map.len() > self.keep + self.keep / 8 {
            self.shrink();
        }
        glock
    }
    /// Names of all glocks now in the table.
    pub fn names(&self) -> Vec<LockName> {
        self.map.iter().map(|e| *e.key()).collect()
    }
    /// Drops the glock from the table when nobody uses it (a deleted inode).
    pub fn remove(&self, name: LockName) {
        self.map.remove_if(&name, |_, g| unused(g));
    }
    /// Drops unused glocks beyond the limit.
    pub fn shrink(&self) {
        let mut over = self.map.len().saturating_sub(self.keep);
        self.map.retain(|_, g| {
            if over > 0 && unused(g) {
                over -= 1;
                return false;
            }
            true
        });
    }
}

fn unused<T: Protected>(glock: &Arc<Glock<T>>) -> bool {
    Arc::strong_count(glock) == 1 && Arc::strong_count(&glock.object) == 1
}

/// Grants cluster locks: `Nolock` here, the DLM later.
pub trait LockManager: Send + Sync {}

/// The lock manager of a single node: everything is granted at once.
#[derive(Debug, Default)]
pub struct Nolock;
impl LockManager for Nolock {}
