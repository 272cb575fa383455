//! A named object of the lockspace: who masters it, its queues, its value block; and the table of all of them.

use super::lock::{LockKey, LockTable, NIL, Queue};
use crate::ids::{LockId, NodeId};
use hashbrown::HashTable;

/// Position in the table of resources.
pub(crate) type ResourceKey = u32;

/// Who owns the queues of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Master {
    Unknown,
    Me,
    Node(NodeId),
}

/// Ends of a list threaded through the lock records.
#[derive(Clone, Copy, Debug)]
pub(crate) struct List {
    pub(crate) head: LockKey,
    pub(crate) tail: LockKey,
}

/// A resource record.
#[derive(Clone, Debug)]
pub(crate) struct Resource {
    pub(crate) name: Box<[u8]>,
    pub(crate) hash: u32,
    /// The node that records who the master is.
    pub(crate) dir: NodeId,
    pub(crate) master: Master,
    /// The lock whose request confirms the master; others are parked meanwhile.
    pub(crate) first: LockId,
    pub(crate) lists: [List; 4],
    /// Number of lock records; 0 makes the resource idle.
    pub(crate) locks: u32,
    pub(crate) lvb: Option<Box<[u8]>>,
    pub(crate) lvbseq: u32,
    /// The value is not valid (VNV).
    pub(crate) lvb_stale: bool,
    /// An idle record was reused: the next request must confirm the master.
    pub(crate) uncertain: bool,
    /// We direct it and use it, and its master did not list it when the directory was rebuilt.
    pub(crate) unconfirmed: bool,
    /// We are the directory, and the master said that it forgets the resource; our request may make it take it up again.
    pub(crate) removed: bool,
    /// Recovery: the master is gone.
    pub(crate) master_lost: bool,
    /// Recovery: the master changed, our locks must be sent again.
    pub(crate) new_master: bool,
    /// Recovery: awaits the directory's answer.
    pub(crate) awaits_lookup: bool,
    /// Recovery: the grant pass is due.
    pub(crate) grant_due: bool,
    /// Recovery: a holder that could write the value block is gone.
    pub(crate) lvb_lost: bool,
    pub(crate) idle_since: u64,
    pub(crate) idle_next: ResourceKey,
    pub(crate) idle_prev: ResourceKey,
    pub(crate) on_idle_list: bool,
}

impl Resource {
    /// The first lock of a queue.
    pub(crate) fn head(&self, queue: Queue) -> LockKey {
        self.lists.get(queue as usize).map_or(NIL, |list| list.head)
    }

    /// Nothing on this queue?
    pub(crate) fn is_empty(&self, queue: Queue) -> bool {
        self.head(queue) == NIL
    }
}

/// Appends to, or puts in front of, a queue; a lock leaves the queue it was on.
pub(crate) fn enqueue(resources: &mut ResourceTable, locks: &mut LockTable, key: LockKey, queue: Queue, front: bool) {
    dequeue(resources, locks, key);
    let Some(list) = resources[locks[key].resource].lists.get_mut(queue as usize) else { return };
    let (prev, next) = if front { (NIL, list.head) } else { (list.tail, NIL) };
    match prev {
        NIL => list.head = key,
        prev => locks[prev].next = key,
    }
    match next {
        NIL => list.tail = key,
        next => locks[next].prev = key,
    }
    let lock = &mut locks[key];
    (lock.prev, lock.next, lock.queue) = (prev, next, queue);
}

/// Takes a lock off its queue.
pub(crate) fn dequeue(resources: &mut ResourceTable, locks: &mut LockTable, key: LockKey) {
    let (prev, next, queue, resource) = {
        let lock = &locks[key];
        (lock.prev, lock.next, lock.queue, lock.resource)
    };
    let Some(list) = resources[resource].lists.get_mut(queue as usize) else { return };
    match prev {
        NIL => list.head = next,
        prev => locks[prev].next = next,
    }
    match next {
        NIL => list.tail = prev,
        next => locks[next].prev = prev,
    }
    let lock = &mut locks[key];
    (lock.prev, lock.next, lock.queue) = (NIL, NIL, Queue::None);
}

/// All resource records of a lockspace, found by name; the idle ones in order of idleness.
#[derive(Clone, Debug)]
pub(crate) struct ResourceTable {
    entries: Vec<Option<Resource>>,
    free: Vec<ResourceKey>,
    index: HashTable<ResourceKey>,
    pub(crate) idle_head: ResourceKey,
    idle_tail: ResourceKey,
}

/// Spreads a 32-bit hash over the 64 bits the table wants.
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Default for ResourceTable {
    fn default() -> Self {
        ResourceTable { entries: Vec::new(), free: Vec::new(), index: HashTable::new(), idle_head: NIL, idle_tail: NIL }
    }
}

impl ResourceTable {
    /// Number of records, active and idle.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// The record of a name.
    pub(crate) fn find(&self, name: &[u8], hash: u32) -> Option<ResourceKey> {
        self.index.find(spread(hash), |key| *self[*key].name == *name).copied()
    }

    /// A new record, active, with nobody as its master.
    pub(crate) fn insert(&mut self, name: &[u8], hash: u32, dir: NodeId) -> ResourceKey {
        let resource = Resource {
            name: name.into(),
            hash,
            dir,
            master: Master::Unknown,
            first: LockId::NONE,
            lists: [List { head: NIL, tail: NIL }; 4],
            locks: 0,
            lvb: None,
            lvbseq: 0,
            lvb_stale: false,
            uncertain: false,
            unconfirmed: false,
            removed: false,
            master_lost: false,
            new_master: false,
            awaits_lookup: false,
            grant_due: false,
            lvb_lost: false,
            idle_since: 0,
            idle_next: NIL,
            idle_prev: NIL,
            on_idle_list: false,
        };
        let key = match self.free.pop() {
            Some(key) => {
                self.entries[key as usize] = Some(resource);
                key
            }
            None => {
                self.entries.push(Some(resource));
                // Resources are bounded by memory long before 2^32.
                (self.entries.len() - 1) as ResourceKey
            }
        };
        let entries = &self.entries;
        // Every indexed position is occupied.
        self.index.insert_unique(spread(hash), key, |k| entries[*k as usize].as_ref().map_or(0, |r| spread(r.hash)));
        key
    }

    /// Forgets a record without locks.
    pub(crate) fn remove(&mut self, key: ResourceKey) {
        self.leave_idle_list(key);
        let hash = self[key].hash;
        if let Ok(entry) = self.index.find_entry(spread(hash), |k| *k == key) {
            entry.remove();
        }
        self.entries[key as usize] = None;
        self.free.push(key);
    }

    /// All positions in use, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = ResourceKey> + '_ {
        self.entries.iter().enumerate().filter(|(_, e)| e.is_some()).map(|(i, _)| i as ResourceKey)
    }

    /// A record at a position that came from outside.
    pub(crate) fn get(&self, key: ResourceKey) -> Option<&Resource> {
        self.entries.get(key as usize).and_then(Option::as_ref)
    }

    /// Puts a record at the young end of the list that the removal scan walks.
    pub(crate) fn join_idle_list(&mut self, key: ResourceKey) {
        self.leave_idle_list(key);
        let tail = self.idle_tail;
        match tail {
            NIL => self.idle_head = key,
            tail => self[tail].idle_next = key,
        }
        self.idle_tail = key;
        let resource = &mut self[key];
        (resource.idle_prev, resource.idle_next, resource.on_idle_list) = (tail, NIL, true);
    }

    /// Takes a record off that list.
    pub(crate) fn leave_idle_list(&mut self, key: ResourceKey) {
        let resource = &mut self[key];
        if !std::mem::take(&mut resource.on_idle_list) {
            return;
        }
        let (prev, next) = (resource.idle_prev, resource.idle_next);
        match prev {
            NIL => self.idle_head = next,
            prev => self[prev].idle_next = next,
        }
        match next {
            NIL => self.idle_tail = prev,
            next => self[next].idle_prev = prev,
        }
    }
}

// Positions come only from `find`, `keys`, the idle list and the locks of a resource, all of which end with it.
impl std::ops::Index<ResourceKey> for ResourceTable {
    type Output = Resource;
    fn index(&self, key: ResourceKey) -> &Resource {
        match &self.entries[key as usize] {
            Some(resource) => resource,
            None => unreachable!("a lock names a resource that is gone"),
        }
    }
}

impl std::ops::IndexMut<ResourceKey> for ResourceTable {
    fn index_mut(&mut self, key: ResourceKey) -> &mut Resource {
        match &mut self.entries[key as usize] {
            Some(resource) => resource,
            None => unreachable!("a lock names a resource that is gone"),
        }
    }
}
