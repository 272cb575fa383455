//! What comes back to a process copy, and what may have overtaken it (dlm.md 1.11, 3.7).
//!
//! A lock awaits at most one answer to a *primary* message (`wait`), and on top of it an answer to a cancel and to a
//! forced unlock (`overlap_*`). The stream between two nodes keeps its order, so answers come in the order of the
//! messages. A conversion that has ended makes a cancel under way moot; its answer is counted in `moot_cancels` and
//! skipped, so that the next conversion and the next cancel are not taken for the old ones.

use super::Engine;
use super::grant::alternate_mode;
use super::lock::{LockKey, Queue, Wait};
use super::resource::Master;
use crate::flags::{LockFlags, StatusFlags};
use crate::frame::{Msg, MsgType};
use crate::ids::NodeId;
use crate::lvb::{self, Transfer};
use crate::mode::Mode;
use crate::status::{Status, result};

impl Engine {
    /// The lock an answer is about, if it is a process copy of the sender's.
    fn replied_lock(&mut self, from: NodeId, msg: &Msg) -> Option<LockKey> {
        let Some(key) = self.client_lock_of(msg.remid) else {
            // Normal after an unlock: a notice or a grant was under way.
            self.ignore("answer about an unknown lock");
            return None;
        };
        let lock = &self.locks[key];
        let master = self.resources[lock.resource].master;
        // A request may have gone to a node that was taken for the master.
        let asked = lock.wait_node == from && matches!(lock.wait, Wait::Lookup | Wait::Request);
        // A master that has answered the last unlock may have forgotten the resource, and recovery found another.
        let awaited = lock.wait_node == from && lock.wait_count > 0;
        let fits = match msg.kind {
            MsgType::RequestReply => asked,
            MsgType::ConvertReply | MsgType::UnlockReply | MsgType::CancelReply => {
                master == Master::Node(from) || awaited
            }
            _ => master == Master::Node(from),
        };
        if !fits {
            self.ignore("answer from a node that is not the master");
            return None;
        }
        Some(key)
    }

    /// Ticks off what this answer answers; false if nothing.
    pub(crate) fn consume_reply(&mut self, key: LockKey, kind: MsgType, outcome: i32) -> bool {
        let lock = &mut self.locks[key];
        if kind == MsgType::CancelReply && lock.moot_cancels > 0 {
            lock.moot_cancels -= 1;
            return false;
        }
        if lock.wait_count == 0 {
            return false;
        }
        // An overlap that waits for the answer to a request has not been sent itself.
        let sent = !matches!(lock.wait, Wait::Lookup | Wait::Request);
        let overlap = match kind {
            MsgType::CancelReply if sent => std::mem::take(&mut lock.overlap_cancel),
            MsgType::UnlockReply if sent => std::mem::take(&mut lock.overlap_unlock),
            _ => false,
        };
        let answered = match kind {
            MsgType::CancelReply => lock.wait == Wait::Cancel,
            MsgType::UnlockReply => lock.wait == Wait::Unlock,
            MsgType::ConvertReply => lock.wait == Wait::Convert,
            MsgType::RequestReply => matches!(lock.wait, Wait::Lookup | Wait::Request),
            MsgType::LookupReply => lock.wait == Wait::Lookup,
            _ => false,
        };
        if !overlap && !answered {
            return false;
        }
        lock.wait_count -= 1;
        if overlap && kind == MsgType::CancelReply && lock.wait == Wait::Convert {
            // The answer to the conversion was to come first: it will not come any more.
            (lock.wait, lock.wait_count) = (Wait::Nothing, lock.wait_count.saturating_sub(1));
        }
        if answered && !overlap {
            lock.wait = Wait::Nothing;
            lock.resend = false;
            let ended = kind == MsgType::ConvertReply && outcome != result::EINPROGRESS;
            if ended && std::mem::take(&mut lock.overlap_cancel) {
                lock.wait_count = lock.wait_count.saturating_sub(1);
                lock.moot_cancels = lock.moot_cancels.saturating_add(1);
            }
        }
        true
    }

    /// What every answer brings along.
    fn take_flags(&mut self, key: LockKey, msg: &Msg) {
        self.locks[key].sbflags = msg.sbflags;
        self.locks[key].wire_flags = msg.flags;
    }

    /// Takes the master's grant over into the process copy.
    fn apply_remote_grant(&mut self, key: LockKey, msg: &Msg) {
        let lock = &mut self.locks[key];
        if msg.sbflags.contains(StatusFlags::ALTMODE) {
            lock.requested = alternate_mode(lock.exflags, lock.requested).or(lock.requested);
        }
        let Some(requested) = lock.requested else { return };
        lock.doubtful = msg.sbflags.contains(StatusFlags::VALNOTVALID);
        let returns = lvb::transfer(lock.granted, requested) == Transfer::Return;
        if returns
            && lock.exflags.contains(LockFlags::VALBLK)
            && let Some(own) = &mut lock.lvb
        {
            let take = msg.extra.len().min(own.len());
            own[..take].copy_from_slice(&msg.extra[..take]);
            lock.lvbseq = msg.lvbseq;
            lock.value_returned = take > 0;
        }
        self.apply_grant(key);
    }

    pub(crate) fn receive_request_reply(&mut self, from: NodeId, msg: Msg) {
        let Some(key) = self.replied_lock(from, &msg) else { return };
        let asked_directory = self.locks[key].wait == Wait::Lookup;
        if !self.consume_reply(key, MsgType::RequestReply, msg.result) {
            return self.ignore("answer to nothing");
        }
        let (id, resource) = (self.locks[key].id, self.locks[key].resource);
        if asked_directory && !self.is_master(resource) {
            // The directory took the question as a request: it is the master.
            let node = self.config.node;
            let record = &mut self.resources[resource];
            // Should we have become the directory since, its word is worth something only if it has our lock.
            record.unconfirmed |= record.dir == node && record.master != Master::Node(from);
            (record.master, record.first) = (Master::Node(from), id);
        }
        match msg.result {
            result::OK | result::EINPROGRESS if self.is_master(resource) => {
                self.ignore("another node answers as the master of a resource mastered here");
                self.route(key);
            }
            result::OK | result::EINPROGRESS => self.request_accepted(key, from, &msg),
            result::EBADR | result::ENOTBLK => self.not_the_master(key, from, msg.result),
            _ => {
                // EAGAIN; or the master has no room, which ends the request just the same.
                if !asked_directory && msg.result == result::EAGAIN {
                    // It has taken the resource up again, and will say so when it forgets it.
                    self.resources[resource].removed = false;
                }
                self.take_flags(key, &msg);
                self.complete(key, Status::Again);
                self.free_lock(key);
                if self.resources[resource].first == id {
                    self.confirm(resource, msg.result);
                }
            }
        }
    }

    fn request_accepted(&mut self, key: LockKey, master: NodeId, msg: &Msg) {
        self.take_flags(key, msg);
        let lock = &mut self.locks[key];
        (lock.remid, lock.bounces) = (msg.lkid, 0);
        let (id, resource) = (lock.id, lock.resource);
        let record = &mut self.resources[resource];
        (record.unconfirmed, record.removed) = (false, false);
        if record.master == Master::Unknown {
            // It had refused a request before this one, and has become the master since. We must know it: what it says
            // about this lock from now on would be dropped otherwise.
            record.master = Master::Node(master);
        }
        if msg.result == result::OK {
            self.apply_remote_grant(key, msg);
            self.complete(key, Status::Granted);
        } else {
            self.enqueue(key, Queue::Waiting);
        }
        if self.resources[resource].first == id {
            self.confirm(resource, msg.result);
        }
        let lock = &mut self.locks[key];
        let cancel = std::mem::take(&mut lock.overlap_cancel);
        if std::mem::take(&mut lock.overlap_unlock) {
            // Nothing was done under this lock: its value, which may not be valid, is not written back.
            lock.exflags.remove(LockFlags::VALBLK | LockFlags::IVVALBLK);
            lock.exflags |= LockFlags::FORCEUNLOCK;
            self.unlock(key);
        } else if cancel && msg.result == result::EINPROGRESS {
            self.send_cancel(key, master);
        }
    }

    /// We asked a node that is not, or no longer, the master.
    fn not_the_master(&mut self, key: LockKey, from: NodeId, code: i32) {
        if self.finish_overlapped(key, code) {
            return;
        }
        let node = self.config.node;
        let resource = self.locks[key].resource;
        let record = &mut self.resources[resource];
        // As the directory we know better than the node we asked; it accepts once it hears so from us.
        if record.dir != node && record.master == Master::Node(from) {
            record.master = Master::Unknown;
        }
        let lock = &mut self.locks[key];
        lock.bounces = lock.bounces.saturating_add(1);
        if lock.bounces > 3 {
            lock.wait = Wait::Request;
            return self.reissue_later(key);
        }
        self.route(key);
    }

    /// A cancel or forced unlock waited for this answer and nothing was queued anywhere: ends the lock.
    fn finish_overlapped(&mut self, key: LockKey, code: i32) -> bool {
        let lock = &mut self.locks[key];
        if !lock.overlaps() {
            return false;
        }
        let status = if lock.overlap_unlock { Status::Unlocked } else { Status::Cancelled };
        let (id, resource) = (lock.id, lock.resource);
        self.complete(key, status);
        self.free_lock(key);
        if self.resources[resource].first == id {
            self.confirm(resource, code);
        }
        true
    }

    pub(crate) fn receive_lookup_reply(&mut self, from: NodeId, msg: Msg) {
        let key = self.locks.find(msg.lkid).filter(|key| !self.locks[*key].is_master_copy());
        let Some(key) = key.filter(|key| self.locks[*key].wait == Wait::Lookup && self.locks[*key].wait_node == from)
        else {
            return self.ignore("answer to a lookup that is over");
        };
        if !self.consume_reply(key, MsgType::LookupReply, msg.result) {
            return self.ignore("answer to nothing");
        }
        let node = self.config.node;
        let (id, resource) = (self.locks[key].id, self.locks[key].resource);
        let record = &mut self.resources[resource];
        record.master = match u32::try_from(msg.nodeid) {
            Ok(answer) if NodeId(answer) == node => Master::Me,
            // Already ours: the directory's own request has told us before its answer did (dlm.md 2.6).
            Ok(_) | Err(_) if record.master == Master::Me => Master::Me,
            Ok(answer) if self.recovery.is_member(NodeId(answer)) => Master::Node(NodeId(answer)),
            Ok(_) | Err(_) => Master::Unknown,
        };
        match record.master {
            Master::Me => {
                if !self.finish_overlapped(key, result::OK) {
                    self.route(key);
                }
                // The request may have ended without confirming, when another lock was the first.
                if self.resources[resource].first == id {
                    self.confirm(resource, result::OK);
                }
            }
            Master::Node(_) => {
                if !self.finish_overlapped(key, result::ENOTBLK) {
                    self.route(key);
                }
            }
            Master::Unknown => {
                if !self.finish_overlapped(key, result::ENOTBLK) {
                    self.locks[key].wait = Wait::Request;
                    self.reissue_later(key);
                }
            }
        }
    }

    pub(crate) fn receive_convert_reply(&mut self, from: NodeId, msg: Msg) {
        let Some(key) = self.replied_lock(from, &msg) else { return };
        let known = matches!(msg.result, result::OK | result::EINPROGRESS | result::EAGAIN | result::EDEADLK);
        if !known {
            return self.ignore("unexpected answer to a conversion");
        }
        // A conversion that was queued before the master died may turn out to deadlock under the new one.
        let lock = &self.locks[key];
        let refused = msg.result == result::EDEADLK && lock.queue == Queue::Converting && lock.wait == Wait::Nothing;
        if !refused && !self.consume_reply(key, MsgType::ConvertReply, msg.result) {
            return self.ignore("answer to nothing");
        }
        self.convert_answered(key, &msg);
    }

    /// The outcome of a conversion, from the master or made up by recovery.
    pub(crate) fn convert_answered(&mut self, key: LockKey, msg: &Msg) {
        // Whether the dead master had to be taken to have weakened the lock, its successor does not know.
        let demoted = self.locks[key].sbflags & StatusFlags::DEMOTED;
        self.take_flags(key, msg);
        match msg.result {
            result::OK => {
                self.apply_remote_grant(key, msg);
                self.complete(key, Status::Granted);
            }
            result::EINPROGRESS => {
                if msg.sbflags.contains(StatusFlags::DEMOTED) {
                    self.locks[key].granted = Some(Mode::Nl);
                }
                self.enqueue(key, Queue::Converting);
            }
            outcome => {
                self.locks[key].sbflags |= demoted;
                self.locks[key].requested = None;
                self.locks[key].unresolved = false;
                if self.locks[key].queue == Queue::Converting {
                    self.enqueue(key, Queue::Granted);
                }
                let deadlock = outcome == result::EDEADLK;
                self.complete(key, if deadlock { Status::Deadlock } else { Status::Again });
            }
        }
    }

    pub(crate) fn receive_unlock_reply(&mut self, from: NodeId, msg: Msg) {
        let Some(key) = self.replied_lock(from, &msg) else { return };
        if !self.consume_reply(key, MsgType::UnlockReply, msg.result) {
            return self.ignore("answer to nothing");
        }
        self.unlock_answered(key, msg.result);
    }

    /// The outcome of an unlock, from the master or made up by recovery.
    pub(crate) fn unlock_answered(&mut self, key: LockKey, outcome: i32) {
        if outcome != result::EUNLOCK {
            return self.ignore("unlock of a lock the master does not know");
        }
        self.locks[key].granted = None;
        self.complete(key, Status::Unlocked);
        self.free_lock(key);
    }

    pub(crate) fn receive_cancel_reply(&mut self, from: NodeId, msg: Msg) {
        let Some(key) = self.replied_lock(from, &msg) else { return };
        if !self.consume_reply(key, MsgType::CancelReply, msg.result) {
            return self.ignore("answer to nothing");
        }
        if self.locks[key].unresolved && matches!(msg.grmode, Some(Mode::Pr | Mode::Cw)) {
            // Which of the two modes it holds since the old master died, only the new one knows.
            self.locks[key].granted = msg.grmode;
        }
        if msg.sbflags.contains(StatusFlags::DEMOTED) && self.locks[key].queue == Queue::Converting {
            // It was queued whole, and gave up its mode later.
            self.take_flags(key, &msg);
            self.locks[key].granted = Some(Mode::Nl);
        }
        self.cancel_answered(key, msg.result);
    }

    /// The outcome of a cancel, from the master or made up by recovery.
    pub(crate) fn cancel_answered(&mut self, key: LockKey, outcome: i32) {
        let waited = self.locks[key].queue;
        if outcome != result::ECANCEL || self.revert(key) != result::ECANCEL {
            return;
        }
        self.locks[key].unresolved = false;
        self.complete(key, Status::Cancelled);
        if waited == Queue::Waiting {
            self.free_lock(key);
        }
    }

    pub(crate) fn receive_grant(&mut self, from: NodeId, msg: Msg) {
        let Some(key) = self.replied_lock(from, &msg) else { return };
        let lock = &self.locks[key];
        if !matches!(lock.queue, Queue::Waiting | Queue::Converting) || lock.requested.is_none() {
            return self.ignore("grant of nothing");
        }
        self.take_flags(key, &msg);
        self.apply_remote_grant(key, &msg);
        self.complete(key, Status::Granted);
    }

    pub(crate) fn receive_bast(&mut self, from: NodeId, msg: Msg) {
        let Some(key) = self.replied_lock(from, &msg) else { return };
        match msg.bastmode {
            Some(mode) => self.notify_client(key, mode),
            None => self.ignore("notice without a mode"),
        }
    }
}
