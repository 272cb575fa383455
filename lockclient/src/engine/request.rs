//! A new lock: checked, led to the master, decided there (dlm.md 1.5, 1.7, 2.3, 2.4).

use super::grant::{Occasion, Verdict};
use super::lock::{Lock, LockKey, Queue, Wait};
use super::resource::{Master, ResourceKey};
use super::{Effect, Engine, LockCall};
use crate::flags::LockFlags;
use crate::frame::{Msg, MsgType};
use crate::ids::{LockId, Name, NodeId, name_hash};
use crate::status::{Refusal, Status, result};

impl Engine {
    pub(crate) fn refuse(&mut self, call: u64, why: Refusal) {
        self.emit(Effect::Refused { call, why });
    }

    /// Is this a value block of the lockspace's length, or none?
    pub(crate) fn fits(&self, lvb: &Option<Box<[u8]>>) -> bool {
        lvb.as_ref().is_none_or(|lvb| lvb.len() == self.config.lvb_length)
    }

    pub(crate) fn client_lock(&mut self, call: LockCall) {
        if !valid_request(&call) || !self.fits(&call.lvb) {
            return self.refuse(call.call, Refusal::Invalid);
        }
        let resource = self.resource_for_client(call.name.as_bytes());
        let lock = Lock {
            token: call.token,
            lvb: call.lvb,
            exflags: call.flags,
            pid: call.pid,
            requested: Some(call.mode),
            wants_notices: call.wants_notices,
            uses_lost_value: call.uses_lost_value,
            ..Lock::new(resource, NodeId::NONE)
        };
        let Some(key) = self.attach(lock) else { return self.refuse(call.call, Refusal::NoMemory) };
        self.emit(Effect::Accepted { call: call.call, lock: self.locks[key].id });
        self.route(key);
    }

    /// The record of a name that our client uses, active from now on.
    fn resource_for_client(&mut self, name: &[u8]) -> ResourceKey {
        let hash = name_hash(name);
        let Some(key) = self.resources.find(name, hash) else {
            let dir = self.directory_of(hash);
            let key = self.resources.insert(name, hash, dir);
            if dir == self.config.node {
                self.resources[key].master = Master::Me;
            }
            return key;
        };
        let record = &mut self.resources[key];
        if record.locks == 0 {
            // An idle record may have missed that the master forgot the resource, or that it moved.
            record.uncertain = matches!(record.master, Master::Node(_));
            record.first = LockId::NONE;
        }
        key
    }

    /// Leads a new lock to the master, or to whoever knows the master, or lets it wait for that answer.
    pub(crate) fn route(&mut self, key: LockKey) {
        let (id, resource) = (self.locks[key].id, self.locks[key].resource);
        let record = &mut self.resources[resource];
        if record.uncertain
            && let Master::Node(node) = record.master
        {
            record.uncertain = false;
            record.first = id;
            return self.send_request(key, MsgType::Request, node);
        }
        if record.first != LockId::NONE && record.first != id {
            return self.enqueue(key, Queue::Parked);
        }
        match record.master {
            Master::Me => self.request_here(key),
            Master::Node(node) => self.send_request(key, MsgType::Request, node),
            Master::Unknown if record.dir == self.config.node => {
                record.master = Master::Me;
                self.request_here(key);
            }
            Master::Unknown => {
                record.first = id;
                let dir = record.dir;
                self.send_request(key, MsgType::Lookup, dir);
            }
        }
    }

    fn send_request(&mut self, key: LockKey, kind: MsgType, to: NodeId) {
        self.locks[key].remid = LockId::NONE;
        let mut msg = self.message_about(key, kind, to);
        if kind == MsgType::Lookup {
            msg.nodeid = -1;
        }
        msg.extra = self.resources[self.locks[key].resource].name.to_vec();
        self.await_reply(key, if kind == MsgType::Lookup { Wait::Lookup } else { Wait::Request }, to);
        self.send(to, msg);
    }

    /// Notes that a primary message of this lock is about to be sent.
    pub(crate) fn await_reply(&mut self, key: LockKey, wait: Wait, to: NodeId) {
        self.wait_order = self.wait_order.wrapping_add(1);
        let lock = &mut self.locks[key];
        lock.wait = wait;
        lock.wait_node = to;
        lock.wait_order = self.wait_order;
        lock.wait_count = lock.wait_count.saturating_add(1);
    }

    /// A request of our own client on a resource mastered here.
    fn request_here(&mut self, key: LockKey) {
        let (id, resource) = (self.locks[key].id, self.locks[key].resource);
        let outcome = self.decide_request(key);
        match outcome {
            result::OK => self.complete(key, Status::Granted),
            result::EAGAIN => self.complete(key, Status::Again),
            _ => {}
        }
        let requested = self.locks[key].requested;
        self.effects_of_arrival(key, outcome, requested);
        if outcome == result::EAGAIN {
            self.free_lock(key);
        }
        if self.resources[resource].first == id {
            self.confirm(resource, outcome);
        }
    }

    /// The master's decision about a new lock.
    fn decide_request(&mut self, key: LockKey) -> i32 {
        if self.can_grant(key, Occasion::Arrival) == Verdict::Grant {
            self.grant(key);
            result::OK
        } else if self.locks[key].exflags.contains(LockFlags::NOQUEUE) {
            result::EAGAIN
        } else {
            self.enqueue_waiting(key, Queue::Waiting);
            result::EINPROGRESS
        }
    }

    /// The request that was to find the master has its answer: lets the parked ones go on. After a success the
    /// master is certain and all may go; otherwise the next in line asks.
    pub(crate) fn confirm(&mut self, resource: ResourceKey, outcome: i32) {
        let record = &mut self.resources[resource];
        if record.first == LockId::NONE {
            return;
        }
        record.first = LockId::NONE;
        let certain = record.master == Master::Me || matches!(outcome, result::OK | result::EINPROGRESS);
        let parked: Vec<LockKey> = self.queue(resource, Queue::Parked).collect();
        for key in parked {
            super::resource::dequeue(&mut self.resources, &mut self.locks, key);
            if !certain {
                self.resources[resource].first = self.locks[key].id;
            }
            self.route(key);
            if !certain {
                break;
            }
        }
    }

    /// A request from another node.
    pub(crate) fn receive_request(&mut self, from: NodeId, msg: Msg) {
        let Some(name) = Name::new(&msg.extra) else { return self.ignore("request with too long a name") };
        if msg.rqmode.is_none() || msg.lkid == LockId::NONE {
            return self.ignore("request without a mode or an id");
        }
        let resource = match self.resource_for_request(from, name.as_bytes()) {
            Ok(resource) => resource,
            Err(code) => return self.answer_unknown(from, &msg, MsgType::RequestReply, code),
        };
        if self.knows_master_copy(resource, from, msg.lkid) {
            return self.ignore("request that was answered already");
        }
        let takes_part = msg.exflags.contains(LockFlags::VALBLK);
        let lock = Lock {
            remid: msg.lkid,
            pid: msg.pid,
            exflags: msg.exflags,
            sbflags: msg.sbflags,
            wire_flags: msg.flags,
            requested: msg.rqmode,
            wants_notices: msg.asts & 2 != 0,
            lvb: takes_part.then(|| vec![0; self.config.lvb_length].into()),
            ..Lock::new(resource, from)
        };
        let Some(key) = self.attach(lock) else {
            return self.answer_unknown(from, &msg, MsgType::RequestReply, result::ENOMEM);
        };
        let outcome = self.decide_request(key);
        self.answer(key, MsgType::RequestReply, outcome);
        let requested = self.locks[key].requested;
        self.effects_of_arrival(key, outcome, requested);
        if outcome == result::EAGAIN {
            self.free_lock(key);
        }
    }

    /// The record for another node's request, if we are or may become the master (the table of dlm.md 2.3): what
    /// the directory asks of us is right, since the directory decides.
    fn resource_for_request(&mut self, from: NodeId, name: &[u8]) -> Result<ResourceKey, i32> {
        let hash = name_hash(name);
        let dir = self.directory_of(hash);
        // A request that waited for recovery was sent when another node may have been the directory.
        let authoritative = from == dir && !self.draining;
        match self.resources.find(name, hash) {
            Some(key) if self.resources[key].master == Master::Me => Ok(key),
            Some(key) if authoritative => {
                self.resources[key].master = Master::Me;
                self.resources[key].uncertain = false;
                Ok(key)
            }
            Some(_) => Err(result::ENOTBLK),
            None if authoritative || dir == self.config.node => {
                let key = self.resources.insert(name, hash, dir);
                self.resources[key].master = Master::Me;
                Ok(key)
            }
            None => Err(result::EBADR),
        }
    }

    /// Is there a record of this holder's lock on the resource?
    pub(crate) fn knows_master_copy(&self, resource: ResourceKey, holder: NodeId, remid: LockId) -> bool {
        self.master_copy(resource, holder, remid).is_some()
    }

    /// The record of this holder's lock on the resource.
    pub(crate) fn master_copy(&self, resource: ResourceKey, holder: NodeId, remid: LockId) -> Option<LockKey> {
        [Queue::Granted, Queue::Converting, Queue::Waiting]
            .into_iter()
            .flat_map(|queue| self.queue(resource, queue))
            .find(|key| self.locks[*key].holder == holder && self.locks[*key].remid == remid)
    }

    /// Answers a holder about its lock.
    pub(crate) fn answer(&mut self, key: LockKey, kind: MsgType, outcome: i32) {
        let holder = self.locks[key].holder;
        let mut msg = self.message_about(key, kind, holder);
        msg.result = outcome;
        if matches!(kind, MsgType::RequestReply | MsgType::ConvertReply) {
            msg.extra = self.value_of(key);
        }
        self.send(holder, msg);
    }

    /// Answers about a lock of which there is no record here.
    pub(crate) fn answer_unknown(&mut self, to: NodeId, question: &Msg, kind: MsgType, code: i32) {
        let nodeid = to.0.cast_signed();
        let answer = Msg { nodeid, remid: question.lkid, flags: question.flags, result: code, ..Msg::new(kind) };
        self.send(to, answer);
    }
}

/// The argument checks of dlm.md 1.5 for a new lock.
fn valid_request(call: &LockCall) -> bool {
    let flags = call.flags;
    let conversions = LockFlags::CANCEL | LockFlags::CONVERT | LockFlags::QUECVT | LockFlags::CONVDEADLK;
    let expedite = flags.contains(LockFlags::EXPEDITE);
    // Recovery cannot list a resource whose name is empty (its length would end the list), so there is none.
    !call.name.as_bytes().is_empty()
        && !flags.intersects(conversions | LockFlags::FORCEUNLOCK)
        && !(expedite && (flags.contains(LockFlags::NOQUEUE) || call.mode != crate::mode::Mode::Nl))
        && !(flags.contains(LockFlags::VALBLK) && call.lvb.is_none())
}
