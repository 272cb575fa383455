//! What the dead leave behind, and what can be known without them (dlm.md 4.6.2, 4.6.5).

use crate::engine::Engine;
use crate::engine::lock::{LockKey, Queue, Wait};
use crate::engine::resource::{self, Master, ResourceKey};
use crate::flags::{LockFlags, StatusFlags};
use crate::frame::MsgType;
use crate::ids::{LockId, NodeId};
use crate::lvb;
use crate::mode::{Mode, compatible, middle_conversion};
use crate::status::{Status, result};

impl Engine {
    /// A node is gone: drops its locks, its mastery and its messages.
    pub(crate) fn forget_node(&mut self, node: NodeId) {
        self.request_queue.retain(|(from, _)| *from != node);
        let keys: Vec<LockKey> = self.locks.keys().collect();
        for key in keys {
            let lock = &mut self.locks[key];
            if lock.wait_node == node {
                // Nobody will answer.
                lock.wait_node = NodeId::NONE;
            }
            if lock.holder == node {
                self.purge_lock(key);
            }
        }
        let resources: Vec<ResourceKey> = self.resources.keys().collect();
        for key in resources {
            let record = &mut self.resources[key];
            if record.master != Master::Node(node) {
                continue;
            }
            (record.master, record.master_lost, record.new_master) = (Master::Unknown, true, false);
            let queues = [Queue::Granted, Queue::Converting, Queue::Waiting];
            let locks: Vec<LockKey> = queues.into_iter().flat_map(|queue| self.queue(key, queue)).collect();
            for lock in locks {
                let lock = &mut self.locks[lock];
                (lock.remid, lock.moot_cancels) = (LockId::NONE, 0);
                let converts = lock.queue == Queue::Converting || lock.wait == Wait::Convert;
                if lock.queue == Queue::Converting && middle_conversion(lock.granted, lock.requested) {
                    // It may have been granted, and the word of it is lost.
                    lock.unresolved = true;
                }
                let weakens = LockFlags::CONVDEADLK | LockFlags::ALTPR | LockFlags::ALTCW;
                if converts && lock.exflags.intersects(weakens) {
                    // The master may have weakened its mode, as it was allowed to, and the word of it is lost; others
                    // may have been granted what that made possible.
                    lock.unresolved = false;
                    lock.granted = lock.granted.min(Some(Mode::Nl));
                    lock.sbflags |= StatusFlags::DEMOTED;
                }
            }
        }
    }

    fn purge_lock(&mut self, key: LockKey) {
        #[cfg(test)]
        if self.mutation == Some(crate::engine::Mutation::ForgetPurge) {
            return;
        }
        let lock = &self.locks[key];
        let record = &mut self.resources[lock.resource];
        if lock.exflags.contains(LockFlags::VALBLK) && lvb::unlock_writes(lock.granted) {
            record.lvb_lost = true;
        }
        record.grant_due = true;
        self.free_lock(key);
    }

    /// Decides, on what we master, what only the dead knew.
    pub(crate) fn settle_resources(&mut self) {
        let keys: Vec<ResourceKey> = self.resources.keys().collect();
        for key in keys {
            if self.is_master(key) {
                self.settle_conversions(key);
                self.settle_value(key);
                let record = &mut self.resources[key];
                if record.new_master {
                    record.grant_due |= !record.is_empty(Queue::Waiting) || !record.is_empty(Queue::Converting);
                    self.order_conversions(key);
                }
            } else {
                self.resources[key].lvb_stale = false;
            }
            let record = &mut self.resources[key];
            (record.new_master, record.lvb_lost) = (false, false);
        }
    }

    /// A conversion between PR and CW may or may not have been granted. Others that hold one of the two were granted
    /// with it or against it: that tells. If nobody does, it may as well have been granted.
    fn settle_conversions(&mut self, key: ResourceKey) {
        let held = self
            .queue(key, Queue::Granted)
            .filter_map(|lock| self.locks[lock].granted)
            .chain(
                self.queue(key, Queue::Converting)
                    .filter(|lock| !self.locks[*lock].unresolved)
                    .filter_map(|lock| self.locks[lock].granted),
            )
            .find(|mode| matches!(mode, Mode::Pr | Mode::Cw));
        let converting: Vec<LockKey> = self.queue(key, Queue::Converting).collect();
        let mut agreed = held;
        for lock in converting {
            let lock = &mut self.locks[lock];
            if std::mem::take(&mut lock.unresolved) || lock.granted.is_none() {
                // Several of them must not be decided differently.
                agreed = agreed.or(lock.requested);
                lock.granted = agreed;
            }
        }
    }

    /// Which value can be believed: that of a lock that has excluded writers. Otherwise the newest bytes are kept
    /// for those who take them with a warning.
    fn settle_value(&mut self, key: ResourceKey) {
        let length = self.config.lvb_length;
        let record = &self.resources[key];
        if !record.new_master {
            if record.lvb_lost {
                self.resources[key].lvb_stale = true;
            }
            return;
        }
        let valued: Vec<LockKey> = [Queue::Granted, Queue::Converting]
            .into_iter()
            .flat_map(|queue| self.queue(key, queue))
            .filter(|lock| self.locks[*lock].exflags.contains(LockFlags::VALBLK) && self.locks[*lock].lvb.is_some())
            .collect();
        if valued.is_empty() {
            return;
        }
        let believed = |lock: &LockKey| self.locks[*lock].granted > Some(Mode::Cr) && !self.locks[*lock].doubtful;
        let certain = valued.iter().copied().find(believed);
        let newest = valued.iter().copied().reduce(|best, lock| {
            match lvb::sequence_at_least(self.locks[lock].lvbseq, self.locks[best].lvbseq) {
                true => lock,
                false => best,
            }
        });
        let source = certain.or(newest).map(|lock| &self.locks[lock]);
        let (bytes, sequence) = match source.and_then(|lock| lock.lvb.as_ref().map(|lvb| (lvb, lock.lvbseq))) {
            Some((bytes, sequence)) => (bytes.clone(), sequence),
            None => (vec![0; length].into(), 0),
        };
        let record = &mut self.resources[key];
        (record.lvb, record.lvbseq, record.lvb_stale) = (Some(bytes), sequence, certain.is_none());
    }

    /// The order in which conversions had queued is lost. One that holds a mode in the way of another's must come
    /// before it, or the two would wait for one another. Where they go round in circles, the dead master had refused
    /// one of them, and the word of it is lost: it is refused again, once locking goes on.
    fn order_conversions(&mut self, key: ResourceKey) {
        let mut remaining: Vec<LockKey> = self.queue(key, Queue::Converting).collect();
        while !remaining.is_empty() {
            let free = remaining.iter().position(|lock| {
                let requested = self.locks[*lock].requested;
                remaining.iter().all(|other| other == lock || compatible(self.locks[*other].granted, requested))
            });
            if let Some(free) = free {
                let lock = remaining.remove(free);
                resource::enqueue(&mut self.resources, &mut self.locks, lock, Queue::Converting, false);
                continue;
            }
            let refusable = |lock: &LockKey| !self.locks[*lock].exflags.contains(LockFlags::NODLCKWT);
            let last = remaining.iter().rposition(refusable).unwrap_or(remaining.len() - 1);
            let lock = remaining.remove(last);
            if refusable(&lock) {
                self.recovery.refused.push(self.locks[lock].id);
            }
        }
    }

    /// Refuses the conversions that wait for one another.
    pub(crate) fn refuse_deadlocked(&mut self) {
        for id in std::mem::take(&mut self.recovery.refused) {
            let Some(key) = self.locks.find(id).filter(|key| self.locks[*key].queue == Queue::Converting) else {
                continue;
            };
            self.locks[key].requested = None;
            self.enqueue(key, Queue::Granted);
            if self.locks[key].is_master_copy() {
                self.answer(key, MsgType::ConvertReply, result::EDEADLK);
            } else {
                self.complete(key, Status::Deadlock);
            }
        }
    }

    /// Messages from before the change about who masters what: it has all been settled anew.
    pub(crate) fn drop_stale_messages(&mut self) {
        self.request_queue.retain(|(from, msg)| {
            self.recovery.is_member(*from)
                && !matches!(msg.kind, MsgType::Lookup | MsgType::LookupReply | MsgType::Remove)
        });
    }
}
