//! Giving up a lock (dlm.md 1.5, 1.7, 1.11). A forced unlock may come while anything is under way.

use super::grant::Occasion;
use super::lock::{LockKey, Queue, Wait};
use super::resource::Master;
use super::{Effect, Engine};
use crate::flags::{LockFlags, StatusFlags};
use crate::frame::{Msg, MsgType};
use crate::ids::{LockId, NodeId};
use crate::lvb;
use crate::status::{Refusal, Status, result};

impl Engine {
    pub(crate) fn client_unlock(&mut self, call: u64, id: LockId, flags: LockFlags, lvb: Option<Box<[u8]>>) {
        let legal = LockFlags::CANCEL | LockFlags::VALBLK | LockFlags::IVVALBLK | LockFlags::FORCEUNLOCK;
        let both = LockFlags::CANCEL | LockFlags::FORCEUNLOCK;
        if !legal.contains(flags) || flags.contains(both) || !self.fits(&lvb) {
            return self.refuse(call, Refusal::Invalid);
        }
        let Some(key) = self.client_lock_of(id) else { return self.refuse(call, Refusal::NoEntry) };
        if flags.contains(LockFlags::CANCEL) {
            self.emit(Effect::Accepted { call, lock: id });
            return self.cancel(key);
        }
        let forced = flags.contains(LockFlags::FORCEUNLOCK);
        let lock = &mut self.locks[key];
        let idle = lock.queue == Queue::Granted && !lock.is_outstanding();
        if !idle && !forced {
            return self.refuse(call, Refusal::Busy);
        }
        if flags.contains(LockFlags::VALBLK) && lvb.is_none() && lock.lvb.is_none() {
            return self.refuse(call, Refusal::Invalid);
        }
        self.emit(Effect::Accepted { call, lock: id });
        if !idle && self.absorb_unlock(key) {
            return;
        }
        let lock = &mut self.locks[key];
        // Whether the value is written is for this call to say, not for an earlier one.
        lock.exflags = lock.exflags.difference(LockFlags::IVVALBLK | LockFlags::VALBLK) | flags;
        if idle {
            lock.sbflags = StatusFlags::empty();
        }
        if lvb.is_some() {
            lock.lvb = lvb;
        }
        self.unlock(key);
    }

    /// A forced unlock on top of something else: is there nothing to send for it (dlm.md 1.11)?
    fn absorb_unlock(&mut self, key: LockKey) -> bool {
        let lock = &mut self.locks[key];
        if lock.queue == Queue::Parked {
            self.complete(key, Status::Unlocked);
            self.free_lock(key);
            return true;
        }
        if lock.wait == Wait::Unlock || lock.overlap_unlock {
            return true;
        }
        if lock.resend || matches!(lock.wait, Wait::Lookup | Wait::Request) {
            lock.overlap_unlock = true;
            return true;
        }
        false
    }

    /// Carries an unlock out here, or sends it to the master.
    pub(crate) fn unlock(&mut self, key: LockKey) {
        let resource = self.locks[key].resource;
        match self.resources[resource].master {
            Master::Me => {
                self.write_on_unlock(key);
                self.locks[key].granted = None;
                self.complete(key, Status::Unlocked);
                self.free_lock(key);
                self.grant_pass(resource, Occasion::Later);
            }
            Master::Node(master) => {
                let mut msg = self.message_about(key, MsgType::Unlock, master);
                msg.extra = self.value_of(key);
                let lock = &mut self.locks[key];
                if lock.wait == Wait::Nothing && !lock.overlaps() {
                    self.await_reply(key, Wait::Unlock, master);
                } else {
                    lock.overlap_unlock = true;
                    lock.wait_node = master;
                    lock.wait_count = lock.wait_count.saturating_add(1);
                }
                self.send(master, msg);
            }
            Master::Unknown => self.ignore("unlock without a master"),
        }
    }

    /// The value block at the end of a lock that could write it.
    fn write_on_unlock(&mut self, key: LockKey) {
        let length = self.config.lvb_length;
        let lock = &self.locks[key];
        if !lvb::unlock_writes(lock.granted) {
            return;
        }
        let record = &mut self.resources[lock.resource];
        if lock.exflags.contains(LockFlags::IVVALBLK) {
            record.lvb_stale = true;
        } else if let (true, Some(own)) = (lock.exflags.contains(LockFlags::VALBLK), &lock.lvb) {
            record.lvb.get_or_insert_with(|| vec![0; length].into()).copy_from_slice(own);
            record.lvbseq = record.lvbseq.wrapping_add(1);
            record.lvb_stale = false;
        }
    }

    /// An unlock of another node's lock.
    pub(crate) fn receive_unlock(&mut self, from: NodeId, msg: Msg) {
        let Some(key) = self.locks.find(msg.remid).filter(|key| self.locks[*key].remid == msg.lkid) else {
            return self.answer_unknown(from, &msg, MsgType::UnlockReply, result::ENOENT);
        };
        let resource = self.locks[key].resource;
        if self.locks[key].holder != from || !self.is_master(resource) {
            return self.ignore("unlock of a lock that is not the sender's");
        }
        self.receive_value(key, &msg);
        let lock = &mut self.locks[key];
        (lock.exflags, lock.sbflags, lock.wire_flags) = (msg.exflags, msg.sbflags, msg.flags);
        self.write_on_unlock(key);
        self.answer(key, MsgType::UnlockReply, result::EUNLOCK);
        self.free_lock(key);
        self.grant_pass(resource, Occasion::Later);
    }
}
