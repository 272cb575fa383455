//! Who is the master, who records it, and how both forget (dlm.md 2).

use super::resource::{Master, ResourceKey};
use super::{Engine, NIL};
use crate::frame::{Msg, MsgType};
use crate::ids::{LockId, Name, NodeId, name_hash};
use crate::status::result;

/// At most this many idle records are looked at in one scan; the next follows soon.
const SCAN_AT_MOST: usize = 4096;

impl Engine {
    /// The node that records the master of names with this hash.
    pub(crate) fn directory_of(&self, hash: u32) -> NodeId {
        match self.node_array.len() {
            0 => self.config.node,
            total => self.node_array[(hash >> 16) as usize % total],
        }
    }

    /// The last lock of a resource is gone. Its value with it; the record stays for a while.
    pub(crate) fn retire(&mut self, key: ResourceKey) {
        let (now, node) = (self.now, self.config.node);
        let record = &mut self.resources[key];
        (record.lvb, record.lvbseq, record.lvb_stale) = (None, 0, false);
        (record.grant_due, record.lvb_lost, record.uncertain) = (false, false, false);
        // With no lock left there is nothing to recover.
        (record.master_lost, record.new_master, record.awaits_lookup) = (false, false, false);
        record.idle_since = now;
        if std::mem::take(&mut record.unconfirmed) | std::mem::take(&mut record.removed) {
            // Our lock was the last the master had, and recovery made it forget the resource without a word; or it has said
            // that it does, and our request was never sent.
            record.master = Master::Unknown;
        }
        if record.dir == node && matches!(record.master, Master::Node(_)) {
            // The directory's own memory: only the master's word, or recovery, deletes it.
            return;
        }
        if self.resources.idle_head == NIL {
            self.next_scan = now + self.config.scan_ms;
        }
        self.resources.join_idle_list(key);
    }

    /// Drops records that have been idle for long, and tells the directory about those we were the master of.
    pub(crate) fn scan_idle(&mut self) {
        let (now, node) = (self.now, self.config.node);
        self.next_scan = now + self.config.scan_ms;
        for _ in 0..SCAN_AT_MOST {
            let key = self.resources.idle_head;
            if key == NIL || now.saturating_sub(self.resources[key].idle_since) < self.config.toss_ms {
                return;
            }
            let record = &self.resources[key];
            if record.dir == node && matches!(record.master, Master::Node(_)) {
                // It became the directory's memory of another master after it had become idle.
                self.resources.leave_idle_list(key);
                continue;
            }
            if record.master == Master::Me && record.dir != node {
                let msg = Msg { hash: record.hash, extra: record.name.to_vec(), ..Msg::new(MsgType::Remove) };
                let dir = record.dir;
                self.send(dir, msg);
            }
            self.resources.remove(key);
        }
        self.next_scan = now + 100;
    }

    /// Someone asks who the master of a resource is. The first to ask becomes it.
    pub(crate) fn receive_lookup(&mut self, from: NodeId, msg: Msg) {
        let Some(name) = Name::new(&msg.extra) else { return self.ignore("lookup with too long a name") };
        let hash = name_hash(name.as_bytes());
        if self.directory_of(hash) != self.config.node {
            return self.answer_lookup(from, &msg, -1, result::EINVAL);
        }
        let key = match self.resources.find(name.as_bytes(), hash) {
            Some(key) => key,
            None => self.resources.insert(name.as_bytes(), hash, self.config.node),
        };
        let record = &mut self.resources[key];
        if record.master == Master::Unknown {
            record.master = Master::Node(from);
        }
        record.unconfirmed &= record.master != Master::Node(from);
        record.removed &= record.master != Master::Node(from);
        match record.master {
            // The question carries the whole request: no need for another round.
            Master::Me => self.receive_request(from, msg),
            Master::Node(master) => {
                if record.locks == 0 {
                    self.resources.leave_idle_list(key);
                }
                self.answer_lookup(from, &msg, master.0.cast_signed(), result::OK);
            }
            Master::Unknown => self.ignore("lookup without an answer"),
        }
    }

    fn answer_lookup(&mut self, to: NodeId, question: &Msg, nodeid: i32, code: i32) {
        let answer = Msg {
            nodeid,
            lkid: question.lkid,
            remid: LockId::NONE,
            flags: question.flags,
            hash: question.hash,
            result: code,
            ..Msg::new(MsgType::LookupReply)
        };
        self.send(to, answer);
    }

    /// A master no longer uses a resource we direct.
    pub(crate) fn receive_remove(&mut self, from: NodeId, msg: Msg) {
        let Some(name) = Name::new(&msg.extra) else { return self.ignore("removal with too long a name") };
        let hash = name_hash(name.as_bytes());
        if self.directory_of(msg.hash) != self.config.node {
            return self.ignore("removal sent to a node that is not the directory");
        }
        match self.resources.find(name.as_bytes(), hash) {
            None => self.ignore("removal of an unknown resource"),
            Some(key) if self.resources[key].master != Master::Node(from) => self.ignore("removal by another master"),
            // The master will make the resource anew when our request reaches it.
            // If the request never goes out, nobody is left who would tell us to forget it.
            Some(key) if self.resources[key].locks > 0 => {
                self.resources[key].removed = true;
                self.ignore("removal of a resource in use");
            }
            Some(key) => self.resources.remove(key),
        }
    }
}
