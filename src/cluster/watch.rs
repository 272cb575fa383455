//! Which locks the nodes take from one another, and which are waited for: what people look at when a cluster is slow.

use super::dlm::Dlm;
use crate::glock::LockState;
use crate::ids::LockName;
use crate::sync::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Locks that are counted at the same time.
const MAX: usize = 4096;

/// How a lock has been in demand since the mount began, or since it was last forgotten.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Other nodes wanted what we held.
    pub notices: u64,
    /// We had to wait.
    pub waits: u64,
}

/// Counts for the locks that are in demand. When there are too many those go that are the least.
#[derive(Default)]
pub(super) struct Heat {
    locks: Mutex<HashMap<LockName, Demand>>,
    notices: AtomicU64,
    waits: AtomicU64,
}

impl Heat {
    /// Another node wants what we hold.
    pub(super) fn notice(&self, name: LockName) {
        self.notices.fetch_add(1, Ordering::Relaxed);
        self.count(name, |demand| demand.notices += 1);
    }

    /// We have to wait.
    pub(super) fn wait(&self, name: LockName) {
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.count(name, |demand| demand.waits += 1);
    }

    fn count(&self, name: LockName, f: impl FnOnce(&mut Demand)) {
        let mut all = self.locks.lock();
        if all.len() >= MAX && !all.contains_key(&name) {
            let mut sums: Vec<u64> = all.values().map(|d| d.notices + d.waits).collect();
            sums.sort_unstable();
            let middle = sums[sums.len() / 2];
            all.retain(|_, d| d.notices + d.waits > middle);
        }
        f(all.entry(name).or_default());
    }

    /// All of them, the hottest first.
    pub(super) fn list(&self) -> Vec<(LockName, Demand)> {
        let mut all: Vec<(LockName, Demand)> =
            self.locks.lock().iter().map(|(name, demand)| (*name, *demand)).collect();
        all.sort_unstable_by_key(|(name, d)| (std::cmp::Reverse(d.notices + d.waits), *name));
        all
    }
}

/// A lock that this node waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Which.
    pub name: LockName,
    /// What is wanted.
    pub wants: LockState,
    /// How long by now.
    pub since: Duration,
    /// It is granted, and held back until a journal is replayed.
    pub held_back: bool,
}

impl super::Cluster {
    /// The locks that are in demand among the nodes, the hottest first.
    pub fn demand(&self) -> Vec<(LockName, Demand)> {
        self.dlm().heat.list()
    }
    /// How often other nodes wanted what we held, and how often we had to wait, since the mount began.
    pub fn demand_in_all(&self) -> (u64, u64) {
        let heat = &self.dlm().heat;
        (heat.notices.load(Ordering::Relaxed), heat.waits.load(Ordering::Relaxed))
    }
    /// What this node waits for, the longest first. Looks at every lock.
    pub fn waits(&self) -> Vec<Wait> {
        let dlm: &Dlm = self.dlm();
        let mut all = dlm.waits();
        all.sort_by_key(|wait| (std::cmp::Reverse(wait.since), wait.name));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LockKind;

    #[test]
    fn the_hottest_stay() {
        let heat = Heat::default();
        let name = |number| LockName { kind: LockKind::Inode, number };
        (0..10).for_each(|_| heat.notice(name(1)));
        (0..3 * MAX as u64).for_each(|n| heat.wait(name(100 + n)));
        let all = heat.list();
        assert!(all.len() <= MAX);
        assert_eq!(all[0], (name(1), Demand { notices: 10, waits: 0 }));
    }
}
