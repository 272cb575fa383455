//! What an administrator sees of a lockspace, as values ([`crate::inspect`]).

use super::Engine;
use super::lock::{LockKey, Queue};
use super::resource::{Master, ResourceKey};
use crate::inspect::{LockView, MemberView, ResourceView, SpaceView, mode_name};
use std::collections::BTreeMap;
use std::fmt::Write;

impl Engine {
    /// The state of the lockspace, but for its name and its byte-range locks.
    pub fn view(&self) -> SpaceView {
        let recovery = &self.recovery;
        let members = recovery.members.iter().map(|member| MemberView {
            node: member.node.0,
            incarnation: member.incarnation,
            slot: member.slot.unwrap_or(0),
            weight: member.weight,
        });
        SpaceView {
            running: self.running,
            recovery_step: format!("{:?}", recovery.step),
            recovery_status: recovery.status,
            recovery_sequence: recovery.seq,
            generation: recovery.generation,
            slot: recovery.our_slot,
            members: members.collect(),
            locks: self.locks.len(),
            resources: self.resources.len(),
            waiting_calls: self.client_queue.len(),
            waiting_messages: self.request_queue.len(),
            ignored: self.ignored.iter().map(|(why, count)| ((*why).to_owned(), *count)).collect(),
            ..SpaceView::default()
        }
    }

    /// Every resource with its locks, in the order of its records.
    pub fn lock_dump(&self) -> Vec<ResourceView> {
        let mut loose: BTreeMap<ResourceKey, Vec<LockKey>> = BTreeMap::new();
        for key in self.locks.keys().filter(|key| self.locks[*key].queue == Queue::None) {
            loose.entry(self.locks[key].resource).or_default().push(key);
        }
        let none = Vec::new();
        self.resources.keys().map(|key| self.resource_view(key, loose.get(&key).unwrap_or(&none))).collect()
    }

    /// One resource with its locks, but for those of ours whose first message is on its way.
    pub fn look(&self, name: &[u8]) -> Option<ResourceView> {
        self.resources.find(name, crate::ids::name_hash(name)).map(|key| self.resource_view(key, &[]))
    }

    fn resource_view(&self, key: ResourceKey, loose: &[LockKey]) -> ResourceView {
        let record = &self.resources[key];
        let queue = |queue| self.queue(key, queue).map(|lock| self.lock_view(lock));
        let first = queue(Queue::Waiting).chain(queue(Queue::Parked));
        let lvb = record.lvb.as_ref().map(|lvb| {
            lvb.iter().fold(String::new(), |mut text, byte| {
                // Writing to a String cannot fail.
                let _ = write!(text, "{byte:02x}");
                text
            })
        });
        ResourceView {
            name: record.name.escape_ascii().to_string(),
            master: match record.master {
                Master::Unknown => None,
                Master::Me => Some(self.config.node.0),
                Master::Node(node) => Some(node.0),
            },
            directory: record.dir.0,
            granted: queue(Queue::Granted).collect(),
            converting: queue(Queue::Converting).collect(),
            waiting: first.chain(loose.iter().map(|lock| self.lock_view(*lock))).collect(),
            lvb,
            lvb_sequence: record.lvbseq,
            lvb_valid: !record.lvb_stale,
        }
    }

    fn lock_view(&self, key: LockKey) -> LockView {
        let lock = &self.locks[key];
        LockView {
            id: lock.id.0,
            remote_id: lock.remid.0,
            node: if lock.is_master_copy() { lock.holder.0 } else { self.config.node.0 },
            pid: lock.pid,
            granted: mode_name(lock.granted),
            requested: mode_name(lock.requested),
            flags: lock.exflags.bits(),
            awaits: format!("{:?}", lock.wait),
            wants_notices: lock.wants_notices,
        }
    }
}
