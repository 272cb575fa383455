//! One lockspace on one node, as a pure machine: events in, effects out; no clock, no socket, no thread, no chance.
//!
//! A *resource* has one *master*, the node that owns its queues; a *directory* node, found by hashing the name,
//! records who that is. A lock on a resource mastered here is decided here, without a message: that is the common
//! case, and the fast one. Otherwise the operation travels to the master and this node keeps a process copy of the
//! record. [`crate::recovery`] rebuilds all of this whenever the membership changes.
//!
//! The folder, in reading order: `resource` and `lock` (the tables), `grant` (who may hold what, and in which order),
//! `request`, `convert`, `unlock`, `cancel` (the operations, on the client's side and on the master's), `reply`
//! (what comes back to a process copy, and everything that may have overtaken it), `directory` (lookup, removal),
//! `callback` (what the client is told).
//!
//! What holds after every event is checked by [`Engine::check`] (dlm.md 6.5):
//! * locks granted or converting on a master are compatible; nothing grantable is left waiting;
//! * a lock is on exactly one queue, and its modes fit that queue;
//! * the number of answers a lock awaits is the number of messages that will be answered;
//! * locks are parked only while the one that asks for the master has a message under way.
//!
//! Rules of the house: whatever a peer sends is checked before use, and what does not fit is counted and dropped;
//! effects come out in a deterministic order; the client is called by the driver after the event, never from inside.

mod callback;
mod cancel;
mod check;
mod convert;
mod directory;
mod dump;
mod event;
pub(crate) mod grant;
mod inspect;
pub(crate) mod lock;
mod reply;
mod request;
pub(crate) mod resource;
mod unlock;

pub use event::{ClientCall, Config, Effect, Event, LockCall};

use crate::flags::LockFlags;
use crate::frame::{Frame, Msg, MsgType, Rcom};
use crate::ids::{LockId, NodeId};
use crate::recovery::Recovery;
use lock::{LockKey, LockTable, NIL, Queue};
use resource::{Master, ResourceKey, ResourceTable};
use std::collections::{BTreeMap, VecDeque};

/// One lockspace on one node.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) config: Config,
    pub(crate) now: u64,
    pub(crate) locks: LockTable,
    pub(crate) resources: ResourceTable,
    /// Members, each as often as its weight, ascending: the directory is spread over this.
    pub(crate) node_array: Vec<NodeId>,
    pub(crate) running: bool,
    pub(crate) recovery: Recovery,
    /// Calls that came while the lockspace was stopped.
    client_queue: VecDeque<ClientCall>,
    /// Messages that came while the lockspace was stopped.
    pub(crate) request_queue: VecDeque<(NodeId, Msg)>,
    /// The messages that waited are being carried out.
    pub(crate) draining: bool,
    effects: VecDeque<Effect>,
    /// Callbacks held back during recovery.
    pub(crate) held: VecDeque<Effect>,
    pub(crate) hold_callbacks: bool,
    pub(crate) wait_order: u32,
    /// Requests to issue again a little later, by due time.
    delayed: VecDeque<(u64, LockId)>,
    next_scan: u64,
    ignored: BTreeMap<&'static str, u64>,
    /// A rule broken on purpose, to prove that the checks see it.
    #[cfg(test)]
    pub(crate) mutation: Option<Mutation>,
}

/// Rules that a test can break.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// Locks on the converting queue no longer block others.
    IgnoreConverting,
    /// Every blocking notice of a grant pass and of an arrival to a remote holder is lost.
    LoseNotice,
    /// Locks of nodes that are gone are kept.
    ForgetPurge,
}

impl Engine {
    /// A lockspace that has never been started.
    pub fn new(config: Config) -> Engine {
        let recovery = Recovery::new(config.first_sequence, config.first_tag);
        Engine {
            config,
            now: 0,
            locks: LockTable::default(),
            resources: ResourceTable::default(),
            node_array: Vec::new(),
            running: false,
            recovery,
            client_queue: VecDeque::new(),
            request_queue: VecDeque::new(),
            draining: false,
            effects: VecDeque::new(),
            held: VecDeque::new(),
            hold_callbacks: false,
            wait_order: 0,
            delayed: VecDeque::new(),
            next_scan: 0,
            ignored: BTreeMap::new(),
            #[cfg(test)]
            mutation: None,
        }
    }

    /// Takes in what happened at `now` (milliseconds, never backwards). Effects wait in [`Engine::next_effect`].
    pub fn handle(&mut self, event: Event, now: u64) {
        self.now = self.now.max(now);
        match event {
            Event::Client(call) if self.running => self.client(call),
            Event::Client(call) => self.client_queue.push_back(call),
            Event::Frame { from, frame: Frame::Msg(msg) } => self.message(from, *msg),
            Event::Frame { from, frame: Frame::Rcom(rcom) } => self.rcom(from, *rcom),
            // The driver hands these to `plock::order`.
            Event::Frame { frame: Frame::Plock(_), .. } => self.ignore("byte-range lock"),
            Event::Stop => self.stop(),
            Event::Start(start) => self.start(start),
            Event::Tick => self.tick(),
        }
    }

    /// The next thing to be done.
    pub fn next_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Event::Tick`] is wanted next, if at all.
    pub fn wake_at(&self) -> Option<u64> {
        let scan = (self.running && self.resources.idle_head != NIL).then_some(self.next_scan);
        let delayed = if self.running { self.delayed.front().map(|(due, _)| *due) } else { None };
        [scan, delayed, self.recovery.wake_at()].into_iter().flatten().min()
    }

    /// Is locking allowed, as opposed to stopped or in recovery?
    pub fn is_running(&self) -> bool {
        self.running
    }

    /// The answer a lockspace that does not exist gives to a status request; `None` to anything else.
    pub fn not_ready_answer(rcom: &Rcom) -> Option<Rcom> {
        crate::recovery::not_ready_answer(rcom)
    }

    /// Messages that did not fit and were dropped, by reason.
    pub fn ignored(&self) -> &BTreeMap<&'static str, u64> {
        &self.ignored
    }

    /// Number of lock records and of resource records (active and idle).
    pub fn sizes(&self) -> (usize, usize) {
        (self.locks.len(), self.resources.len())
    }

    pub(crate) fn ignore(&mut self, reason: &'static str) {
        *self.ignored.entry(reason).or_default() += 1;
    }

    pub(crate) fn emit(&mut self, effect: Effect) {
        self.effects.push_back(effect);
    }

    pub(crate) fn client(&mut self, call: ClientCall) {
        match call {
            ClientCall::Lock(call) => self.client_lock(call),
            ClientCall::Convert { call, lock, mode, flags, lvb } => self.client_convert(call, lock, mode, flags, lvb),
            ClientCall::Unlock { call, lock, flags, lvb } => self.client_unlock(call, lock, flags, lvb),
        }
    }

    /// Lets calls in that waited for recovery, in their order.
    pub(crate) fn admit_clients(&mut self) {
        while self.running {
            let Some(call) = self.client_queue.pop_front() else { break };
            self.client(call);
        }
    }

    fn message(&mut self, from: NodeId, msg: Msg) {
        if !self.running {
            if self.recovery.never_agreed() {
                self.ignore("message for an earlier life");
            } else if !self.recovery.is_member(from) {
                // The last words of a dead node must not pass for those of its successor.
                self.ignore("message from a stranger");
            } else {
                self.request_queue.push_back((from, msg));
            }
            return;
        }
        self.execute(from, msg);
    }

    /// Carries out a message of a member.
    pub(crate) fn execute(&mut self, from: NodeId, msg: Msg) {
        if from == self.config.node || !self.recovery.is_member(from) {
            return self.ignore("message from a stranger");
        }
        match msg.kind {
            MsgType::Request => self.receive_request(from, msg),
            MsgType::Convert => self.receive_convert(from, msg),
            MsgType::Unlock => self.receive_unlock(from, msg),
            MsgType::Cancel => self.receive_cancel(from, msg),
            MsgType::RequestReply => self.receive_request_reply(from, msg),
            MsgType::ConvertReply => self.receive_convert_reply(from, msg),
            MsgType::UnlockReply => self.receive_unlock_reply(from, msg),
            MsgType::CancelReply => self.receive_cancel_reply(from, msg),
            MsgType::Grant => self.receive_grant(from, msg),
            MsgType::Bast => self.receive_bast(from, msg),
            MsgType::Lookup => self.receive_lookup(from, msg),
            MsgType::Remove => self.receive_remove(from, msg),
            MsgType::LookupReply => self.receive_lookup_reply(from, msg),
            MsgType::Purge => self.ignore("purge"),
        }
    }

    fn tick(&mut self) {
        self.recovery_tick();
        while self.running && self.delayed.front().is_some_and(|(due, _)| *due <= self.now) {
            let Some((_, id)) = self.delayed.pop_front() else { break };
            if let Some(key) = self.locks.find(id).filter(|key| self.locks[*key].resend) {
                self.reissue(key);
            }
        }
        if self.running && self.now >= self.next_scan {
            self.scan_idle();
        }
    }

    /// Issues this lock's request again after a short pause: the directory and the masters do not agree yet.
    pub(crate) fn reissue_later(&mut self, key: LockKey) {
        const PAUSE_MS: u64 = 5;
        self.locks[key].resend = true;
        self.delayed.push_back((self.now + PAUSE_MS, self.locks[key].id));
    }

    /// The next record of a queue after `key`.
    pub(crate) fn queue(&self, resource: ResourceKey, queue: Queue) -> impl Iterator<Item = LockKey> + '_ {
        let head = self.resources[resource].head(queue);
        std::iter::successors((head != NIL).then_some(head), |key| {
            let next = self.locks[*key].next;
            (next != NIL).then_some(next)
        })
    }

    /// Moves a lock to the tail of a queue.
    pub(crate) fn enqueue(&mut self, key: LockKey, queue: Queue) {
        resource::enqueue(&mut self.resources, &mut self.locks, key, queue, false);
    }

    /// Moves a lock to the queue of those who wait: to its tail, or with HEADQUE to its head. A conversion must not
    /// be put before one that blocks it, or the two would wait for one another.
    pub(crate) fn enqueue_waiting(&mut self, key: LockKey, queue: Queue) {
        let lock = &self.locks[key];
        let mut front = lock.exflags.contains(LockFlags::HEADQUE);
        if front && queue == Queue::Converting {
            let mut others = self.queue(lock.resource, queue);
            front = others.all(|other| crate::mode::compatible(self.locks[other].granted, lock.requested));
        }
        resource::enqueue(&mut self.resources, &mut self.locks, key, queue, front);
    }

    /// Do we own the queues of the resource of this lock?
    pub(crate) fn is_master(&self, resource: ResourceKey) -> bool {
        self.resources[resource].master == Master::Me
    }

    /// Ends a lock record.
    pub(crate) fn free_lock(&mut self, key: LockKey) {
        resource::dequeue(&mut self.resources, &mut self.locks, key);
        let resource = self.locks[key].resource;
        self.locks.remove(key);
        let record = &mut self.resources[resource];
        record.locks -= 1;
        if record.locks == 0 {
            self.retire(resource);
        }
    }

    /// The resource of a new record, which becomes (or stays) active.
    pub(crate) fn attach(&mut self, lock: lock::Lock) -> Option<LockKey> {
        let resource = lock.resource;
        let key = self.locks.insert(lock);
        match key {
            Some(_) => {
                self.resources[resource].locks += 1;
                self.resources.leave_idle_list(resource);
            }
            None if self.resources[resource].locks == 0 => self.retire(resource),
            None => {}
        }
        key
    }

    /// A message about a lock to its other side, with the fields every such message carries.
    pub(crate) fn message_about(&self, key: LockKey, kind: MsgType, to: NodeId) -> Msg {
        let lock = &self.locks[key];
        Msg {
            // Node ids are below 2^31 (corosync clears the high bit).
            nodeid: to.0.cast_signed(),
            pid: lock.pid,
            lkid: lock.id,
            remid: lock.remid,
            exflags: lock.exflags,
            sbflags: lock.sbflags,
            flags: lock.wire_flags,
            lvbseq: lock.lvbseq,
            hash: self.resources[lock.resource].hash,
            status: u32::from(lock.queue.wire_status()),
            grmode: lock.granted,
            rqmode: lock.requested,
            asts: 1 | u32::from(lock.wants_notices) << 1,
            ..Msg::new(kind)
        }
    }

    /// The value block of a lock, where it takes part in the transfer.
    pub(crate) fn value_of(&self, key: LockKey) -> Vec<u8> {
        let lock = &self.locks[key];
        match &lock.lvb {
            Some(lvb) if lock.exflags.contains(LockFlags::VALBLK) => lvb.to_vec(),
            _ => Vec::new(),
        }
    }

    pub(crate) fn send(&mut self, to: NodeId, msg: Msg) {
        self.emit(Effect::Send { to, frame: Frame::Msg(Box::new(msg)) });
    }
}
