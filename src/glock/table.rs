//! All glocks of one kind: name → glock. Unused ones are kept up to a limit, and dropped by a clock: what was looked at since
//! its hand last passed gets another round.

use super::driver::Shared;
use super::machine::{Event, HOLD_MAX};
use super::manager::LockManager;
use super::{Glock, Protected, Workers};
use crate::ids::LockName;
use crate::sync::{DashMap, Instant, Mutex};
use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Glocks looked at per new one while the table is too full.
const SHRINK_STEP: usize = 64;

/// All glocks of one kind: name → glock, with a clock of unused ones.
pub struct GlockTable<T: Protected> {
    map: DashMap<LockName, Arc<Glock<T>>, BuildHasherDefault<NameHasher>>,
    /// The clock: names with their glock's serial number, so that a dropped and remade glock is not taken for the old one.
    ring: Mutex<VecDeque<(LockName, u64)>>,
    count: AtomicUsize,
    serial: AtomicU64,
    keep: usize,
    shared: Arc<Shared<T>>,
}

impl<T: Protected> GlockTable<T> {
    /// A table of glocks granted by `manager`; `keep` unused ones stay cached. `set_context` must follow before use.
    pub fn new(manager: Arc<dyn LockManager>, keep: usize) -> Self {
        let shared = Shared {
            manager,
            context: OnceLock::new(),
            workers: Workers::default(),
            start: Instant::now(),
            hold_ms: AtomicU64::new(HOLD_MAX),
            shut: AtomicBool::new(false),
        };
        Self {
            map: DashMap::default(),
            ring: Mutex::default(),
            count: AtomicUsize::new(0),
            serial: AtomicU64::new(0),
            keep,
            shared: Arc::new(shared),
        }
    }
    /// Gives the table the context for `Protected` calls, once (a `Weak` inside: the context usually owns the table).
    pub fn set_context(&self, cx: &Arc<T::Context>) {
        if self.shared.context.set(Arc::downgrade(cx)).is_err() {
            debug_assert!(false, "the context is set once");
        }
    }
    /// How long a lock that was got is kept at most for programs here when other nodes want it (200 ms unless set); for glocks made
    /// from now on. Short times are fair to other nodes, long ones save passing locks to and fro.
    pub fn hold_at_most(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.shared.hold_ms.store(ms, Ordering::Relaxed);
    }
    /// Refuses every lock from now on ([`Error::Withdrawn`](crate::error::Error)): others will get what we have. Waits at most so long
    /// until nobody holds any but those that `kept` says.
    pub fn shut(&self, kept: &dyn Fn(LockName) -> bool, at_most: Duration) {
        self.shared.shut.store(true, Ordering::SeqCst);
        let until = Instant::now() + at_most;
        while self.glocks().iter().any(|g| !kept(g.name()) && g.is_held()) && Instant::now() < until {
            crate::sync::thread::sleep(Duration::from_millis(1));
        }
    }
    /// Who grants the locks.
    pub fn manager(&self) -> &Arc<dyn LockManager> {
        &self.shared.manager
    }
    /// The glock of this name, made when new.
    pub fn get(&self, name: LockName) -> Arc<Glock<T>> {
        if let Some(glock) = self.find(name) {
            return glock;
        }
        let mut fresh = false;
        let glock = Arc::clone(&self.map.entry(name).or_insert_with(|| {
            fresh = true;
            let serial = self.serial.fetch_add(1, Ordering::Relaxed);
            Glock::new(name, serial, Arc::clone(&self.shared))
        }));
        if fresh {
            let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
            let mut ring = self.ring.lock();
            ring.push_back((name, glock.serial));
            let stale = ring.len() > 2 * count + 1024;
            drop(ring);
            if stale {
                self.sweep();
            }
            if count > self.keep {
                self.shrink_by(SHRINK_STEP);
            }
        }
        glock
    }
    /// The glock of this name, if there is one.
    pub fn find(&self, name: LockName) -> Option<Arc<Glock<T>>> {
        let glock = Arc::clone(&*self.map.get(&name)?);
        if !glock.touched.load(Ordering::Relaxed) {
            glock.touched.store(true, Ordering::Relaxed);
        }
        Some(glock)
    }
    /// True when other nodes may want these locks.
    pub fn is_shared(&self) -> bool {
        self.shared.manager.is_shared()
    }
    /// Names of all glocks now in the table.
    pub fn names(&self) -> Vec<LockName> {
        self.map.iter().map(|e| *e.key()).collect()
    }
    /// All glocks now in the table.
    pub fn glocks(&self) -> Vec<Arc<Glock<T>>> {
        self.map.iter().map(|e| Arc::clone(e.value())).collect()
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Drops the glock from the table when nobody uses it (a deleted inode). Where other nodes may want it, it is first given
    /// up in the background and dropped later.
    pub fn remove(&self, name: LockName) {
        if !self.try_drop(name, None, true)
            && let Some(glock) = self.map.get(&name).map(|g| Arc::clone(&g))
        {
            glock.touched.store(false, Ordering::Relaxed);
            if self.shared.manager.is_shared() {
                glock.tell(Event::Unneeded);
            }
        }
    }
    /// Drops unused glocks beyond the limit.
    pub fn shrink(&self) {
        // Two rounds: the first takes away the marks.
        self.shrink_by(2 * self.len());
    }

    fn shrink_by(&self, steps: usize) {
        for _ in 0..steps {
            if self.count.load(Ordering::Relaxed) <= self.keep {
                return;
            }
            let Some((name, serial)) = self.ring.lock().pop_front() else { return };
            if self.try_drop(name, Some(serial), false) {
                continue;
            }
            let Some(glock) = self.map.get(&name).map(|g| Arc::clone(&g)).filter(|g| g.serial == serial) else {
                continue;
            };
            if !glock.touched.swap(false, Ordering::Relaxed)
                && self.shared.manager.is_shared()
                && Arc::strong_count(&glock) == 2
            {
                // Unlocked in the background; the hand comes by again.
                glock.tell(Event::Unneeded);
            }
            self.ring.lock().push_back((name, serial));
        }
    }

    /// Drops the glock if nobody refers to it and it may go. `even_touched`: also when it was used lately.
    fn try_drop(&self, name: LockName, serial: Option<u64>, even_touched: bool) -> bool {
        let dropped = self.map.remove_if(&name, |_, glock| {
            let wanted = serial.is_none_or(|s| s == glock.serial);
            let unused = Arc::strong_count(glock) == 1 && glock.may_drop();
            let goes = wanted && unused && (even_touched || !glock.touched.load(Ordering::Relaxed));
            if goes {
                // Under the map's lock, so that a new glock of this name asks after this one has let go.
                self.shared.manager.release(name);
            }
            goes
        });
        if dropped.is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        dropped.is_some()
    }

    /// Takes names out of the clock whose glock is gone.
    fn sweep(&self) {
        let mut ring = std::mem::take(&mut *self.ring.lock());
        ring.retain(|(name, serial)| self.map.get(name).is_some_and(|g| g.serial == *serial));
        self.ring.lock().append(&mut ring);
    }
}

/// Mixes kind and number; names are block addresses, so a keyed hash would only cost time.
#[derive(Default)]
struct NameHasher(u64);

impl NameHasher {
    fn mix(&mut self, v: u64) {
        let x = (self.0 ^ v).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        self.0 ^= self.0 >> 29;
    }
}

impl Hasher for NameHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.mix(u64::from(b));
        }
    }
    fn write_u64(&mut self, v: u64) {
        self.mix(v);
    }
    fn write_isize(&mut self, v: isize) {
        self.mix(v as u64);
    }
}

#[cfg(test)]
impl<T: Protected> GlockTable<T> {
    pub(super) fn ring_len(&self) -> usize {
        self.ring.lock().len()
    }
}
