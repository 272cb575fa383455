//! Giving up what a lock waits for, without giving up what it holds (dlm.md 1.7, 1.11).

use super::Engine;
use super::grant::Occasion;
use super::lock::{LockKey, Queue, Wait};
use super::resource::Master;
use crate::flags::LockFlags;
use crate::frame::{Msg, MsgType};
use crate::ids::NodeId;
use crate::mode::Mode;
use crate::status::{Status, result};

impl Engine {
    /// Our client no longer wants what this lock waits for.
    pub(crate) fn cancel(&mut self, key: LockKey) {
        let lock = &mut self.locks[key];
        if lock.queue == Queue::Parked {
            self.complete(key, Status::Cancelled);
            return self.free_lock(key);
        }
        let nothing_outstanding = lock.queue == Queue::Granted && lock.wait == Wait::Nothing && !lock.resend;
        if lock.overlaps() || matches!(lock.wait, Wait::Cancel | Wait::Unlock) || nothing_outstanding {
            return;
        }
        if lock.resend || matches!(lock.wait, Wait::Lookup | Wait::Request) {
            // Whether there will be anything to cancel is known when the answer comes.
            lock.overlap_cancel = true;
            return;
        }
        match self.resources[lock.resource].master {
            Master::Me => {
                let waited = lock.queue;
                let resource = lock.resource;
                if self.revert(key) != result::ECANCEL {
                    return;
                }
                self.complete(key, Status::Cancelled);
                if waited == Queue::Waiting {
                    self.free_lock(key);
                }
                self.grant_pass(resource, Occasion::Later);
            }
            Master::Node(master) => self.send_cancel(key, master),
            Master::Unknown => self.ignore("cancel without a master"),
        }
    }

    pub(crate) fn send_cancel(&mut self, key: LockKey, master: NodeId) {
        let mut msg = self.message_about(key, MsgType::Cancel, master);
        msg.exflags |= LockFlags::CANCEL;
        let lock = &mut self.locks[key];
        if lock.wait == Wait::Nothing {
            self.await_reply(key, Wait::Cancel, master);
        } else {
            lock.overlap_cancel = true;
            lock.wait_count = lock.wait_count.saturating_add(1);
        }
        self.send(master, msg);
    }

    /// Undoes on a record what waits: a conversion goes back to its mode, a new lock leaves its queue.
    pub(crate) fn revert(&mut self, key: LockKey) -> i32 {
        match self.locks[key].queue {
            Queue::Converting => {
                self.locks[key].requested = None;
                // While it converted its client may not have known what it holds: a notice may have been lost on it.
                self.locks[key].highbast = Mode::Nl;
                self.enqueue(key, Queue::Granted);
                result::ECANCEL
            }
            Queue::Waiting => {
                super::resource::dequeue(&mut self.resources, &mut self.locks, key);
                result::ECANCEL
            }
            Queue::Granted | Queue::Parked | Queue::None => result::OK,
        }
    }

    /// Another node no longer wants what its lock waits for.
    pub(crate) fn receive_cancel(&mut self, from: NodeId, msg: Msg) {
        let Some(key) = self.locks.find(msg.remid) else {
            return self.answer_unknown(from, &msg, MsgType::CancelReply, result::ENOENT);
        };
        let (resource, waited) = (self.locks[key].resource, self.locks[key].queue);
        if self.locks[key].holder != from || !self.is_master(resource) {
            return self.ignore("cancel of a lock that is not the sender's");
        }
        let outcome = self.revert(key);
        self.answer(key, MsgType::CancelReply, outcome);
        if outcome != result::ECANCEL {
            return;
        }
        if waited == Queue::Waiting {
            self.free_lock(key);
        }
        self.grant_pass(resource, Occasion::Later);
    }
}
