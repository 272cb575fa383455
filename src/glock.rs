//! Chapter 3: the glock, a cluster lock with its cached object inside. (API skeleton)

use crate::error::Result;
use crate::ids::LockName;
use crate::sync::DashMap;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

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

/// A cluster lock with the object it protects. Cheap to clone (`Arc` inside where needed by the implementation).
pub struct Glock<T: Protected> {
    _t: PhantomData<T>,
}

/// Proof of a shared lock; derefs to the object. Owned: may be moved to another thread.
pub struct SharedHolder<T: Protected> {
    _t: PhantomData<T>,
}
/// Proof of an exclusive lock; derefs to the object mutably. Owned.
pub struct ExclusiveHolder<T: Protected> {
    _t: PhantomData<T>,
}

impl<T: Protected> Glock<T> {
    /// The lock's name.
    pub fn name(&self) -> LockName {
        unimplemented!()
    }
    /// Takes the lock shared; instantiates the object when needed. `MustWait` when it would wait and may not.
    pub fn shared(self: &Arc<Self>) -> Result<SharedHolder<T>> {
        unimplemented!()
    }
    /// Takes the lock exclusive.
    pub fn exclusive(self: &Arc<Self>) -> Result<ExclusiveHolder<T>> {
        unimplemented!()
    }
    /// Takes the lock exclusive if that needs no waiting at all; `None` otherwise.
    pub fn try_exclusive(self: &Arc<Self>) -> Result<Option<ExclusiveHolder<T>>> {
        unimplemented!()
    }
    /// Takes the lock exclusive and puts `object` inside without reading (a newly created object; an old one is replaced).
    pub fn exclusive_with(self: &Arc<Self>, _object: T) -> Result<ExclusiveHolder<T>> {
        unimplemented!()
    }
}

impl<T: Protected> ExclusiveHolder<T> {
    /// The lock's name.
    pub fn name(&self) -> LockName {
        unimplemented!()
    }
    /// Drops the object when the holder is dropped: the next holder reads it from disk/cache again (after a failed change).
    pub fn forget_object(&mut self) {
        unimplemented!()
    }
}

impl<T: Protected> Deref for SharedHolder<T> {
    type Target = T;
    fn deref(&self) -> &T {
        unimplemented!()
    }
}
impl<T: Protected> Deref for ExclusiveHolder<T> {
    type Target = T;
    fn deref(&self) -> &T {
        unimplemented!()
    }
}
impl<T: Protected> DerefMut for ExclusiveHolder<T> {
    fn deref_mut(&mut self) -> &mut T {
        unimplemented!()
    }
}

/// All glocks of one kind: name → glock, with an LRU of unused ones.
pub struct GlockTable<T: Protected> {
    _map: DashMap<LockName, Arc<Glock<T>>>,
}

impl<T: Protected> GlockTable<T> {
    /// A table of glocks granted by `manager`; `keep` unused ones stay cached. `set_context` must follow before use.
    pub fn new(_manager: Arc<dyn LockManager>, _keep: usize) -> Self {
        unimplemented!()
    }
    /// Gives the table the context for `Protected` calls, once (a `Weak` inside: the context usually owns the table).
    pub fn set_context(&self, _cx: &Arc<T::Context>) {
        unimplemented!()
    }
    /// The glock of this name, made when new.
    pub fn get(&self, _name: LockName) -> Arc<Glock<T>> {
        unimplemented!()
    }
    /// Names of all glocks now in the table.
    pub fn names(&self) -> Vec<LockName> {
        unimplemented!()
    }
    /// Drops the glock from the table when nobody uses it (a deleted inode).
    pub fn remove(&self, _name: LockName) {
        unimplemented!()
    }
    /// Drops unused glocks beyond the limit.
    pub fn shrink(&self) {
        unimplemented!()
    }
}

/// Grants cluster locks: `Nolock` here, the DLM later.
pub trait LockManager: Send + Sync {}

/// The lock manager of a single node: everything is granted at once.
#[derive(Debug, Default)]
pub struct Nolock;
impl LockManager for Nolock {}
