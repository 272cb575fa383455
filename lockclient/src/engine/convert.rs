//! Another mode for a lock (dlm.md 1.5, 1.7). A down-conversion is always granted and never answered: both sides
//! know the outcome.

use super::grant::{Blocked, Occasion, Verdict};
use super::lock::{LockKey, Queue, Wait};
use super::resource::Master;
use super::{Effect, Engine};
use crate::flags::{LockFlags, StatusFlags};
use crate::frame::{Msg, MsgType};
use crate::ids::{LockId, NodeId};
use crate::mode::{Mode, down_conversion, may_queue_convert};
use crate::status::{Refusal, Status, result};

impl Engine {
    pub(crate) fn client_convert(
        &mut self,
        call: u64,
        id: LockId,
        mode: Mode,
        flags: LockFlags,
        lvb: Option<Box<[u8]>>,
    ) {
        let Some(key) = self.client_lock_of(id) else { return self.refuse(call, Refusal::Invalid) };
        let lock = &self.locks[key];
        let has_value = lvb.is_some() || lock.lvb.is_some();
        if !valid_flags(flags) || !self.fits(&lvb) || (flags.contains(LockFlags::VALBLK) && !has_value) {
            return self.refuse(call, Refusal::Invalid);
        }
        if lock.queue != Queue::Granted || lock.is_outstanding() {
            return self.refuse(call, Refusal::Busy);
        }
        if flags.contains(LockFlags::QUECVT) && !lock.granted.is_some_and(|granted| may_queue_convert(granted, mode)) {
            return self.refuse(call, Refusal::Invalid);
        }
        let lock = &mut self.locks[key];
        lock.exflags = flags | LockFlags::CONVERT;
        lock.sbflags = StatusFlags::empty();
        lock.requested = Some(mode);
        if lvb.is_some() {
            lock.lvb = lvb;
        }
        self.emit(Effect::Accepted { call, lock: id });
        self.convert(key);
    }

    /// The record of an id that belongs to our client.
    pub(crate) fn client_lock_of(&self, id: LockId) -> Option<LockKey> {
        self.locks.find(id).filter(|key| !self.locks[*key].is_master_copy())
    }

    /// Carries a conversion out here, or sends it to the master.
    pub(crate) fn convert(&mut self, key: LockKey) {
        let lock = &self.locks[key];
        let (granted, requested) = (lock.granted, lock.requested);
        match self.resources[lock.resource].master {
            Master::Me => {
                let outcome = self.decide_convert(key);
                match outcome {
                    result::OK => self.complete(key, Status::Granted),
                    result::EAGAIN => self.complete(key, Status::Again),
                    result::EDEADLK => self.complete(key, Status::Deadlock),
                    _ => {}
                }
                self.effects_of_convert(key, outcome, requested);
            }
            Master::Node(master) => {
                let mut msg = self.message_about(key, MsgType::Convert, master);
                msg.extra = self.value_of(key);
                if !down_conversion(granted, requested) {
                    self.await_reply(key, Wait::Convert, master);
                    return self.send(master, msg);
                }
                self.send(master, msg);
                // The master grants this whatever happens, and does not answer.
                self.apply_grant(key);
                self.complete(key, Status::Granted);
            }
            // A granted lock has a master; recovery finds one before anything else happens.
            Master::Unknown => self.ignore("conversion without a master"),
        }
    }

    /// Takes over, on a process copy, what the master has granted.
    pub(crate) fn apply_grant(&mut self, key: LockKey) {
        let lock = &mut self.locks[key];
        (lock.granted, lock.requested, lock.unresolved) = (lock.requested, None, false);
        self.enqueue(key, Queue::Granted);
    }

    /// The master's decision about a conversion.
    fn decide_convert(&mut self, key: LockKey) -> i32 {
        match self.can_grant(key, Occasion::Arrival) {
            Verdict::Grant => {
                self.grant(key);
                return result::OK;
            }
            Verdict::Deadlock if !self.locks[key].exflags.contains(LockFlags::NODLCKWT) => {
                self.locks[key].requested = None;
                return result::EDEADLK;
            }
            Verdict::Demoted => {
                let resource = self.locks[key].resource;
                self.grant_conversions(resource, Occasion::Later, &mut Blocked::default());
                if self.grantable(key, Occasion::Arrival) {
                    self.grant(key);
                    return result::OK;
                }
            }
            Verdict::Deadlock | Verdict::Wait => {}
        }
        if self.locks[key].exflags.contains(LockFlags::NOQUEUE) {
            self.locks[key].requested = None;
            return result::EAGAIN;
        }
        self.enqueue_waiting(key, Queue::Converting);
        result::EINPROGRESS
    }

    fn effects_of_convert(&mut self, key: LockKey, outcome: i32, requested: Option<Mode>) {
        let resource = self.locks[key].resource;
        if outcome == result::OK {
            return self.grant_pass(resource, Occasion::Later);
        }
        self.effects_of_arrival(key, outcome, requested);
        if self.locks[key].sbflags.contains(StatusFlags::DEMOTED) && outcome == result::EINPROGRESS {
            // It gave up its mode, which may serve those who need no turn.
            self.grant_pass(resource, Occasion::Later);
        }
    }

    /// A conversion of another node's lock.
    pub(crate) fn receive_convert(&mut self, from: NodeId, msg: Msg) {
        let Some(key) = self.locks.find(msg.remid).filter(|key| self.locks[*key].remid == msg.lkid) else {
            return self.answer_unknown(from, &msg, MsgType::ConvertReply, result::ENOENT);
        };
        if self.locks[key].holder != from || !self.is_master(self.locks[key].resource) {
            return self.ignore("conversion of a lock that is not the sender's");
        }
        if msg.rqmode.is_none() {
            return self.ignore("conversion without a mode");
        }
        if self.locks[key].queue != Queue::Granted {
            return self.answer(key, MsgType::ConvertReply, result::EBUSY);
        }
        self.receive_value(key, &msg);
        let lock = &mut self.locks[key];
        let down = down_conversion(lock.granted, msg.rqmode);
        lock.exflags = msg.exflags;
        if down {
            // A down-conversion has no answer and so must not wait.
            lock.exflags.remove(LockFlags::QUECVT);
        }
        lock.sbflags = msg.sbflags;
        lock.wire_flags = msg.flags;
        lock.requested = msg.rqmode;
        let outcome = self.decide_convert(key);
        if !down {
            self.answer(key, MsgType::ConvertReply, outcome);
        }
        self.effects_of_convert(key, outcome, msg.rqmode);
    }

    /// Takes the value block out of a message of the holder.
    pub(crate) fn receive_value(&mut self, key: LockKey, msg: &Msg) {
        if !msg.exflags.contains(LockFlags::VALBLK) {
            return;
        }
        let length = self.config.lvb_length;
        let lock = &mut self.locks[key];
        let lvb = lock.lvb.get_or_insert_with(|| vec![0; length].into());
        let take = msg.extra.len().min(length);
        lvb[..take].copy_from_slice(&msg.extra[..take]);
        lock.lvbseq = msg.lvbseq;
    }
}

/// The flag checks of dlm.md 1.5 for a conversion.
fn valid_flags(flags: LockFlags) -> bool {
    !flags.intersects(LockFlags::CANCEL | LockFlags::EXPEDITE | LockFlags::FORCEUNLOCK)
        && !flags.contains(LockFlags::CONVDEADLK | LockFlags::NOQUEUE)
}
