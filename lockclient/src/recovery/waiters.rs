//! Operations that were under way when the membership changed (dlm.md 4.6.1, 4.6.6).

use crate::engine::Engine;
use crate::engine::lock::{LockKey, Queue, Wait};
use crate::flags::LockFlags;
use crate::ids::NodeId;
use crate::mode::middle_conversion;
use crate::status::{Status, result};

impl Engine {
    /// Locks of our own with something outstanding, in the order in which it was sent.
    fn waiters(&self) -> Vec<LockKey> {
        let mut keys: Vec<LockKey> = self.locks.keys().filter(|key| self.locks[*key].is_outstanding()).collect();
        // Far fewer than 2^31 messages are outstanding at once, so that the distance to now orders across the wrap.
        keys.sort_by_key(|key| std::cmp::Reverse(self.wait_order.wrapping_sub(self.locks[*key].wait_order)));
        keys
    }

    /// First pass, before masters are found: what the dead will not answer is decided here, or marked to be asked again.
    pub(crate) fn settle_waiters(&mut self) {
        for key in self.waiters() {
            let lock = &mut self.locks[key];
            if lock.wait == Wait::Lookup {
                // Lookups and their answers are dropped everywhere; a master's own answer may still come.
                lock.resend = true;
                continue;
            }
            if lock.resend || lock.wait_node != NodeId::NONE {
                continue;
            }
            match lock.wait {
                Wait::Lookup => {}
                Wait::Request => lock.resend = true,
                // A forced unlock came on top of whatever this was. The dead master may have carried it out and given
                // the mode to others.
                _ if lock.overlap_unlock => {
                    self.stop_waiting(key);
                    self.unlock_answered(key, result::EUNLOCK);
                }
                Wait::Convert if middle_conversion(lock.granted, lock.requested) => {
                    lock.unresolved = true;
                    self.stop_waiting(key);
                    self.enqueue(key, Queue::Converting);
                }
                Wait::Convert => lock.resend = true,
                Wait::Unlock => {
                    self.stop_waiting(key);
                    self.unlock_answered(key, result::EUNLOCK);
                }
                Wait::Cancel | Wait::Nothing if lock.unresolved => {
                    // What is left of it when it is cancelled, the new master will know.
                    lock.overlap_cancel = true;
                    self.stop_waiting(key);
                }
                Wait::Cancel | Wait::Nothing => {
                    lock.overlap_cancel = false;
                    self.stop_waiting(key);
                    self.cancel_answered(key, result::ECANCEL);
                }
            }
        }
    }

    /// No answer will come; what was to happen on top of it is looked at in the second pass.
    fn stop_waiting(&mut self, key: LockKey) {
        let lock = &mut self.locks[key];
        (lock.wait, lock.wait_count, lock.moot_cancels) = (Wait::Nothing, 0, 0);
        lock.resend = lock.overlaps();
    }

    /// Second pass, with locking allowed again.
    pub(crate) fn reissue_waiters(&mut self) {
        for key in self.waiters() {
            if self.locks[key].resend {
                self.reissue(key);
            }
        }
    }

    /// Does again what was under way, or what was to follow it.
    pub(crate) fn reissue(&mut self, key: LockKey) {
        let lock = &mut self.locks[key];
        let wait = std::mem::take(&mut lock.wait);
        let cancel = std::mem::take(&mut lock.overlap_cancel);
        let unlock = std::mem::take(&mut lock.overlap_unlock);
        (lock.resend, lock.wait_count, lock.moot_cancels) = (false, 0, 0);
        let (id, resource) = (lock.id, lock.resource);
        match wait {
            Wait::Lookup | Wait::Request if unlock || cancel => {
                self.complete(key, if unlock { Status::Unlocked } else { Status::Cancelled });
                self.free_lock(key);
                if self.resources[resource].first == id {
                    self.confirm(resource, result::ENOTBLK);
                }
            }
            Wait::Lookup | Wait::Request => self.route(key),
            Wait::Convert if unlock => {
                lock.requested = None;
                lock.exflags |= LockFlags::FORCEUNLOCK;
                self.unlock(key);
            }
            Wait::Convert if cancel => {
                lock.requested = None;
                self.complete(key, Status::Cancelled);
            }
            Wait::Convert => self.convert(key),
            Wait::Nothing | Wait::Unlock | Wait::Cancel if unlock => {
                lock.exflags |= LockFlags::FORCEUNLOCK;
                self.unlock(key);
            }
            Wait::Nothing | Wait::Unlock | Wait::Cancel if cancel => self.cancel(key),
            Wait::Nothing | Wait::Unlock | Wait::Cancel => {}
        }
    }
}
