//! The invariants of one node, for the simulator and for tests (dlm.md 6.5: I2, I4, I5, I13, I14).

use super::Engine;
use super::grant::Occasion;
use super::lock::{LockKey, Queue, Wait};
use super::resource::{Master, ResourceKey};
use crate::ids::LockId;

impl Engine {
    /// Checks everything that must hold after every event; the text says what does not.
    pub fn check(&self) -> Result<(), String> {
        let mut listed = 0;
        for key in self.resources.keys() {
            listed += self.check_resource(key)?;
        }
        let unlisted = self.locks.keys().filter(|key| self.locks[*key].queue == Queue::None).count();
        if listed + unlisted != self.locks.len() {
            return Err(format!("I4: {listed} locks on queues, {unlisted} on none, {} in all", self.locks.len()));
        }
        self.locks.keys().try_for_each(|key| self.check_lock(key))
    }

    fn check_resource(&self, key: ResourceKey) -> Result<usize, String> {
        let record = &self.resources[key];
        let name = record.name.escape_ascii();
        let mut listed = 0;
        for queue in [Queue::Granted, Queue::Converting, Queue::Waiting, Queue::Parked] {
            for lock in self.queue(key, queue) {
                listed += 1;
                if self.locks[lock].queue != queue || self.locks[lock].resource != key {
                    return Err(format!("I4: {name}: a lock on the wrong queue"));
                }
            }
        }
        let belonging = self.locks.keys().filter(|lock| self.locks[*lock].resource == key).count();
        if belonging != record.locks as usize {
            return Err(format!("I4: {name}: {belonging} locks, {} counted", record.locks));
        }
        if record.first == LockId::NONE && !record.is_empty(Queue::Parked) {
            return Err(format!("I13: {name}: locks are parked and nobody asks"));
        }
        if record.first != LockId::NONE {
            let first = self.locks.find(record.first).map(|lock| &self.locks[lock]);
            if !first.is_some_and(|lock| lock.resend || matches!(lock.wait, Wait::Lookup | Wait::Request)) {
                return Err(format!("I13: {name}: the first lock asks nobody"));
            }
        }
        if self.running && record.master == Master::Me {
            self.check_queues(key).map_err(|why| format!("{name}: {why}"))?;
        }
        Ok(listed)
    }

    fn check_queues(&self, key: ResourceKey) -> Result<(), String> {
        let holders: Vec<LockKey> = self.queue(key, Queue::Granted).chain(self.queue(key, Queue::Converting)).collect();
        for (i, a) in holders.iter().enumerate() {
            for b in &holders[i + 1..] {
                let (a, b) = (&self.locks[*a], &self.locks[*b]);
                if !crate::mode::compatible(a.granted, b.granted) {
                    return Err(format!("I2: {:?} and {:?} are granted together", a.granted, b.granted));
                }
            }
        }
        for queue in [Queue::Converting, Queue::Waiting] {
            if let Some(lock) = self.queue(key, queue).find(|lock| self.grantable(*lock, Occasion::Later)) {
                let lock = &self.locks[lock];
                return Err(format!("I5: {:?} -> {:?} is grantable and waits", lock.granted, lock.requested));
            }
        }
        Ok(())
    }

    fn check_lock(&self, key: LockKey) -> Result<(), String> {
        let lock = &self.locks[key];
        let fits = match lock.queue {
            Queue::Granted => lock.granted.is_some(),
            Queue::Converting => lock.requested.is_some() && (lock.granted.is_some() || !self.running),
            Queue::Waiting | Queue::Parked | Queue::None => lock.granted.is_none() && lock.requested.is_some(),
        };
        if !fits {
            return Err(format!("I4: {:?} with {:?} -> {:?}", lock.queue, lock.granted, lock.requested));
        }
        let sent_overlap = !matches!(lock.wait, Wait::Lookup | Wait::Request) && !lock.resend;
        let overlaps = if sent_overlap { u8::from(lock.overlap_cancel) + u8::from(lock.overlap_unlock) } else { 0 };
        let expected = u8::from(lock.wait != Wait::Nothing) + overlaps;
        if !lock.resend && lock.wait_count != expected {
            return Err(format!("I14: {:?} awaits {} answers, not {expected}", lock.wait, lock.wait_count));
        }
        Ok(())
    }
}
