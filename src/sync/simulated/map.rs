//! A map that many threads use, in the order of its keys: what is done to all of its entries is done in the same order each time.

use super::RwLock;
use parking_lot::{MappedRwLockReadGuard, MappedRwLockWriteGuard, RwLockReadGuard, RwLockWriteGuard};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// As `dashmap::DashMap`, as far as we use it; one lock for all.
pub struct DashMap<K, V, S = ()> {
    map: RwLock<BTreeMap<K, V>>,
    hasher: PhantomData<fn() -> S>,
}

impl<K: Ord, V, S> Default for DashMap<K, V, S> {
    fn default() -> Self {
        Self { map: RwLock::default(), hasher: PhantomData }
    }
}

impl<K: Ord, V> DashMap<K, V> {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }
}

/// An entry on the way through all of them.
pub struct Item<K, G> {
    key: K,
    guard: G,
}

impl<K, G> Item<K, G> {
    /// Its key.
    pub fn key(&self) -> &K {
        &self.key
    }
}
impl<K, G: Deref> Item<K, G> {
    /// Its value.
    pub fn value(&self) -> &G::Target {
        &self.guard
    }
}
impl<K, G: Deref> Deref for Item<K, G> {
    type Target = G::Target;
    fn deref(&self) -> &G::Target {
        &self.guard
    }
}
impl<K, G: DerefMut> DerefMut for Item<K, G> {
    fn deref_mut(&mut self) -> &mut G::Target {
        &mut self.guard
    }
}

/// The place of a key.
pub struct Place<'a, K, V> {
    key: K,
    map: RwLockWriteGuard<'a, BTreeMap<K, V>>,
}

impl<'a, K: Ord, V> Place<'a, K, V> {
    /// What is there, or this.
    pub fn or_insert(self, value: V) -> MappedRwLockWriteGuard<'a, V> {
        self.or_insert_with(|| value)
    }
    /// What is there, or what this makes.
    pub fn or_insert_with(self, make: impl FnOnce() -> V) -> MappedRwLockWriteGuard<'a, V> {
        let Self { key, map } = self;
        RwLockWriteGuard::map(map, |map| map.entry(key).or_insert_with(make))
    }
}

impl<K: Ord, V, S> DashMap<K, V, S> {
    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<MappedRwLockReadGuard<'_, V>> {
        RwLockReadGuard::try_map(self.map.read(), |map| map.get(key)).ok()
    }
    /// The same, to be changed.
    pub fn get_mut(&self, key: &K) -> Option<MappedRwLockWriteGuard<'_, V>> {
        RwLockWriteGuard::try_map(self.map.write(), |map| map.get_mut(key)).ok()
    }
    /// The place of a key.
    pub fn entry(&self, key: K) -> Place<'_, K, V> {
        Place { key, map: self.map.write() }
    }
    /// Puts it in; what was there before.
    pub fn insert(&self, key: K, value: V) -> Option<V> {
        self.map.write().insert(key, value)
    }
    /// Takes it out.
    pub fn remove(&self, key: &K) -> Option<(K, V)> {
        self.map.write().remove_entry(key)
    }
    /// Takes it out, if it is like this.
    pub fn remove_if(&self, key: &K, is: impl FnOnce(&K, &V) -> bool) -> Option<(K, V)> {
        let mut map = self.map.write();
        let goes = map.get(key).is_some_and(|value| is(key, value));
        if goes { map.remove_entry(key) } else { None }
    }
    /// Is it there?
    pub fn contains_key(&self, key: &K) -> bool {
        self.map.read().contains_key(key)
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.map.read().len()
    }
    /// None?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Ord + Clone, V, S> DashMap<K, V, S> {
    fn keys(&self) -> Vec<K> {
        self.map.read().keys().cloned().collect()
    }
    /// One after the other; others may come and go meanwhile.
    pub fn iter(&self) -> impl Iterator<Item = Item<K, MappedRwLockReadGuard<'_, V>>> {
        self.keys().into_iter().filter_map(|key| self.get(&key).map(|guard| Item { key, guard }))
    }
    /// The same, to be changed.
    pub fn iter_mut(&self) -> impl Iterator<Item = Item<K, MappedRwLockWriteGuard<'_, V>>> {
        self.keys().into_iter().filter_map(|key| self.get_mut(&key).map(|guard| Item { key, guard }))
    }
}
