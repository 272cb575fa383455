//! What the client is told, and what it is spared (dlm.md 1.9).
//!
//! Callbacks leave in the order in which they arose. A notice says nothing new when the one before it was as strong,
//! and nothing at all when the lock's mode no longer stands in the way; both are decided when it is queued, against
//! the callback queued last. During recovery everything is held back until the members agree again.

use super::lock::LockKey;
use super::{Effect, Engine};
use crate::flags::StatusFlags;
use crate::frame::MsgType;
use crate::mode::Mode;
use crate::status::Status;

impl Engine {
    /// An operation of our client ended. Nothing happens for a master copy.
    pub(crate) fn complete(&mut self, key: LockKey, status: Status) {
        let lock = &mut self.locks[key];
        if lock.is_master_copy() {
            return;
        }
        let returned = std::mem::take(&mut lock.value_returned);
        let lvb = if returned && status == Status::Granted { lock.lvb.clone() } else { None };
        if returned
            && lock.sbflags.contains(StatusFlags::VALNOTVALID)
            && !lock.uses_lost_value
            && let Some(own) = &mut lock.lvb
        {
            // Should the master die, this lock vouches for what it has (settle_value): not for a value that was lost.
            own.fill(0);
        }
        (lock.last_notice, lock.completed_mode) = (None, lock.granted);
        let effect = Effect::Completion {
            token: lock.token,
            lock: lock.id,
            status,
            flags: lock.sbflags,
            mode: lock.granted,
            lvb,
        };
        self.callback(effect);
    }

    /// This lock is in the way of `mode`: tells its client, here or elsewhere.
    pub(crate) fn notify(&mut self, key: LockKey, mode: Mode) {
        let holder = self.locks[key].holder;
        if self.locks[key].is_master_copy() {
            #[cfg(test)]
            if self.mutation == Some(super::Mutation::LoseNotice) {
                return;
            }
            let mut msg = self.message_about(key, MsgType::Bast, holder);
            msg.bastmode = Some(mode);
            return self.send(holder, msg);
        }
        self.notify_client(key, mode);
    }

    /// Queues a notice for our own client, unless it would say nothing new.
    pub(crate) fn notify_client(&mut self, key: LockKey, mode: Mode) {
        let lock = &mut self.locks[key];
        let told = lock.last_notice.is_some_and(|last| last == mode || (last > mode && last > Mode::Pr));
        let moot = lock.completed_mode.is_none_or(|held| held.compatible(mode));
        if told || moot {
            return;
        }
        lock.last_notice = Some(mode);
        let effect = Effect::Blocking { token: lock.token, lock: lock.id, mode };
        self.callback(effect);
    }

    fn callback(&mut self, effect: Effect) {
        if self.hold_callbacks {
            self.held.push_back(effect);
        } else {
            self.emit(effect);
        }
    }

    /// Recovery is over: lets out what was held back.
    pub(crate) fn release_callbacks(&mut self) {
        self.hold_callbacks = false;
        while let Some(effect) = self.held.pop_front() {
            self.emit(effect);
        }
    }
}
