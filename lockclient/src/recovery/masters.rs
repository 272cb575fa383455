//! New masters for the resources of the dead, and our locks for the new masters (dlm.md 4.6.3, 4.6.4).

use super::{Stage, Step};
use crate::engine::Engine;
use crate::engine::lock::{Lock, LockKey, Queue};
use crate::engine::resource::{Master, ResourceKey};
use crate::flags::LockFlags;
use crate::frame::{MsgType, Rcom, RcomBody, RcomLock};
use crate::ids::{LockId, Name, NodeId, name_hash};
use crate::mode::middle_conversion;
use crate::status::result;

impl Engine {
    /// Finds out, or decides as the directory, who masters what the dead have mastered.
    pub(crate) fn find_masters(&mut self) {
        let node = self.config.node;
        let keys: Vec<ResourceKey> = self.resources.keys().collect();
        let mut outstanding = 0;
        for key in keys {
            let record = &self.resources[key];
            if record.locks == 0 || record.master == Master::Me || !(record.master_lost || record.new_master) {
                continue;
            }
            if record.dir == node {
                if record.master_lost {
                    self.settle_master(key, Master::Me);
                }
                self.resources[key].new_master = true;
                continue;
            }
            let dir = record.dir;
            let Some(name) = Name::new(&record.name) else { continue };
            self.resources[key].awaits_lookup = true;
            outstanding += 1;
            let rcom = Rcom {
                result: 0,
                id: u64::from(key) + 1,
                seq: self.recovery.seq,
                seq_reply: 0,
                body: RcomBody::Lookup { name },
            };
            self.send_rcom(dir, rcom);
        }
        self.recovery.step = Step::Masters { outstanding };
        self.masters_found();
    }

    /// From now on this node is the master; records of a mastery that came to nothing are dropped.
    pub(crate) fn settle_master(&mut self, key: ResourceKey, master: Master) {
        let record = &mut self.resources[key];
        record.master = master;
        record.master_lost = false;
        record.unconfirmed = false;
        record.uncertain = false;
        if master == Master::Me {
            return;
        }
        let queues = [Queue::Granted, Queue::Converting, Queue::Waiting];
        let stale: Vec<LockKey> = queues
            .into_iter()
            .flat_map(|queue| self.queue(key, queue))
            .filter(|lock| self.locks[*lock].is_master_copy())
            .collect();
        for lock in stale {
            self.free_lock(lock);
        }
    }

    /// As the directory: who is the new master? The first to ask.
    pub(crate) fn answer_master(&mut self, from: NodeId, tag: u64, seq: u64, name: Name) {
        let hash = name_hash(name.as_bytes());
        let node = self.config.node;
        let mut answer = Rcom {
            result: result::EINVAL,
            id: tag,
            seq: self.recovery.seq,
            seq_reply: seq,
            body: RcomBody::LookupReply,
        };
        if self.directory_of(hash) == node {
            let key = match self.resources.find(name.as_bytes(), hash) {
                Some(key) => key,
                None => self.resources.insert(name.as_bytes(), hash, node),
            };
            if self.resources[key].master == Master::Unknown {
                let held = self.resources[key].locks > 0;
                self.settle_master(key, Master::Node(from));
                self.resources[key].new_master |= held;
            }
            if self.resources[key].master == Master::Node(from) {
                self.resources[key].unconfirmed = false;
            }
            answer.result = match self.resources[key].master {
                Master::Node(master) => master.0.cast_signed(),
                Master::Me | Master::Unknown => node.0.cast_signed(),
            };
        }
        self.send_rcom(from, answer);
    }

    /// The directory's answer.
    pub(crate) fn master_answered(&mut self, tag: u64, answer: i32) {
        let Step::Masters { outstanding } = self.recovery.step else {
            return self.ignore("new master that nobody asked for");
        };
        let key = u32::try_from(tag.wrapping_sub(1))
            .ok()
            .filter(|key| self.resources.get(*key).is_some_and(|record| record.awaits_lookup));
        let master = u32::try_from(answer).ok().map(NodeId).filter(|node| self.recovery.is_member(*node));
        let (Some(key), Some(master)) = (key, master) else {
            return self.ignore("new master that does not make sense");
        };
        self.resources[key].awaits_lookup = false;
        let master = if master == self.config.node { Master::Me } else { Master::Node(master) };
        self.settle_master(key, master);
        self.resources[key].new_master = true;
        self.recovery.step = Step::Masters { outstanding: outstanding - 1 };
        self.masters_found();
    }

    fn masters_found(&mut self) {
        if self.recovery.step == (Step::Masters { outstanding: 0 }) {
            self.send_locks();
        }
    }

    /// Sends our locks to their new masters.
    fn send_locks(&mut self) {
        let keys: Vec<ResourceKey> = self.resources.keys().filter(|key| self.resources[*key].new_master).collect();
        let mut outstanding = 0;
        for resource in keys {
            let Master::Node(master) = self.resources[resource].master else { continue };
            let queues = [Queue::Granted, Queue::Converting, Queue::Waiting];
            let locks: Vec<LockKey> = queues.into_iter().flat_map(|queue| self.queue(resource, queue)).collect();
            for key in locks {
                self.locks[key].awaits_master = true;
                outstanding += 1;
                self.send_lock(key, master);
            }
        }
        self.recovery.step = Step::Locks { outstanding };
        self.locks_sent();
    }

    fn send_lock(&mut self, key: LockKey, master: NodeId) {
        let lock = &self.locks[key];
        let Some(name) = Name::new(&self.resources[lock.resource].name) else { return };
        // A conversion between PR and CW whose outcome is unknown travels as one under way: the master decides.
        let status = if lock.unresolved { Queue::Granted } else { lock.queue };
        let wait = if lock.unresolved { MsgType::Convert as u16 } else { lock.wait.wire_type() };
        // That its value was not to be believed cannot be said, so it does not take part with it.
        let silent = lock.doubtful && lock.requested.is_none();
        let body = RcomLock {
            ownpid: lock.pid,
            lkid: lock.id,
            remid: LockId::NONE,
            parent: 0,
            exflags: if silent { lock.exflags - LockFlags::VALBLK } else { lock.exflags },
            flags: lock.wire_flags,
            lvbseq: lock.lvbseq,
            result: 0,
            rqmode: lock.requested,
            grmode: lock.granted,
            status: status.wire_status(),
            asts: 1 | u8::from(lock.wants_notices) << 1,
            wait_type: wait,
            name,
            lvb: lock.lvb.as_ref().filter(|_| !silent).map_or(Vec::new(), |lvb| lvb.to_vec()),
        };
        let id = u64::from(lock.resource) + 1;
        let rcom = Rcom { result: 0, id, seq: self.recovery.seq, seq_reply: 0, body: RcomBody::Lock(Box::new(body)) };
        self.send_rcom(master, rcom);
    }

    /// A holder sends us a lock: we are its new master, whether we know it yet or not.
    pub(crate) fn receive_recovered_lock(&mut self, from: NodeId, tag: u64, seq: u64, mut lock: RcomLock) {
        let (outcome, id) = self.adopt_lock(from, &lock);
        (lock.result, lock.remid) = (outcome, id);
        lock.lvb.clear();
        let body = RcomBody::LockReply(Box::new(lock));
        let rcom = Rcom { result: 0, id: tag, seq: self.recovery.seq, seq_reply: seq, body };
        self.send_rcom(from, rcom);
    }

    fn adopt_lock(&mut self, from: NodeId, sent: &RcomLock) -> (i32, LockId) {
        if sent.parent != 0 {
            return (result::EOPNOTSUPP, LockId::NONE);
        }
        let hash = name_hash(sent.name.as_bytes());
        let Some(resource) = self.resources.find(sent.name.as_bytes(), hash) else {
            return (result::EBADR, LockId::NONE);
        };
        if let Some(key) = self.master_copy(resource, from, sent.lkid) {
            return (result::EEXIST, self.locks[key].id);
        }
        // Whoever had locks for us has sent them before any of us settled what is undecided.
        if self.running || matches!(self.recovery.step, Step::Barrier { stage: Stage::Done, .. }) {
            return (result::EINVAL, LockId::NONE);
        }
        // One that was queued may have been granted just as well as one that was never answered.
        let converts = sent.wait_type == MsgType::Convert as u16 || sent.status == Queue::Converting.wire_status();
        let undecided = converts && middle_conversion(sent.grmode, sent.rqmode);
        let queue = match sent.status {
            2 | 3 if undecided => Queue::Converting,
            1 if sent.rqmode.is_some() => Queue::Waiting,
            2 if sent.grmode.is_some() => Queue::Granted,
            3 if sent.rqmode.is_some() => Queue::Converting,
            _ => return (result::EINVAL, LockId::NONE),
        };
        if self.resources[resource].master != Master::Me {
            // The holder has this from the directory; our own answer is on its way. Should this round be abandoned,
            // the others may hear of it from us alone.
            self.settle_master(resource, Master::Me);
            self.resources[resource].new_master = true;
        }
        let length = self.config.lvb_length;
        let takes_part = sent.exflags.contains(LockFlags::VALBLK);
        let lvb = takes_part.then(|| {
            let mut lvb = vec![0; length];
            let take = sent.lvb.len().min(length);
            lvb[..take].copy_from_slice(&sent.lvb[..take]);
            lvb.into_boxed_slice()
        });
        let record = Lock {
            lvb,
            remid: sent.lkid,
            exflags: sent.exflags,
            wire_flags: sent.flags,
            lvbseq: sent.lvbseq,
            pid: sent.ownpid,
            granted: if queue == Queue::Waiting { None } else { sent.grmode },
            // What a granted lock asked for is asked again after recovery.
            requested: if queue == Queue::Granted { None } else { sent.rqmode },
            unresolved: undecided || (queue == Queue::Converting && sent.grmode.is_none()),
            wants_notices: sent.asts & 2 != 0,
            ..Lock::new(resource, from)
        };
        let Some(key) = self.attach(record) else { return (result::ENOMEM, LockId::NONE) };
        self.enqueue(key, queue);
        if queue != Queue::Granted {
            self.resources[resource].grant_due = true;
        }
        (result::OK, self.locks[key].id)
    }

    /// The new master's answer about one of our locks.
    pub(crate) fn recovered_lock_answered(&mut self, from: NodeId, answer: &RcomLock) {
        let Step::Locks { outstanding } = self.recovery.step else {
            return self.ignore("recovered lock that nobody sent");
        };
        let key = self.client_lock_of(answer.lkid).filter(|key| {
            self.locks[*key].awaits_master && self.resources[self.locks[*key].resource].master == Master::Node(from)
        });
        let Some(key) = key else { return self.ignore("recovered lock that nobody sent") };
        match answer.result {
            result::OK | result::EEXIST => self.locks[key].remid = answer.remid,
            // The new master has not got so far.
            result::EBADR => return self.send_lock(key, from),
            _ => self.ignore("lock that its new master refuses"),
        }
        self.locks[key].awaits_master = false;
        self.recovery.step = Step::Locks { outstanding: outstanding - 1 };
        self.locks_sent();
    }

    fn locks_sent(&mut self) {
        if self.recovery.step == (Step::Locks { outstanding: 0 }) {
            self.enter_barrier(Stage::Locks);
        }
    }
}
