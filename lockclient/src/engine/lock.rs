//! One client's stake in a resource, and the table of all of them.
//!
//! The master of a resource keeps a record of every lock on it; a holder elsewhere keeps a second record, the
//! *process copy*, with the same state a moment later. `holder` tells them apart: nobody for a lock of our own
//! client (local or process copy, depending on who masters the resource), else the node whose *master copy* this is.

use super::resource::ResourceKey;
use crate::flags::{LockFlags, StatusFlags};
use crate::ids::{LockId, NodeId};
use crate::mode::Mode;

/// Position in the table of locks.
pub(crate) type LockKey = u32;

/// Marks the absence of a position.
pub(crate) const NIL: u32 = u32::MAX;

/// Which list of its resource a lock is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    /// Holds a mode, nothing outstanding at the master.
    Granted = 0,
    /// Holds a mode and waits for another.
    Converting = 1,
    /// Holds nothing and waits.
    Waiting = 2,
    /// Waits for the answer who the master is.
    Parked = 3,
    /// The first message is on its way.
    None = 4,
}

impl Queue {
    /// The number on the wire.
    pub(crate) fn wire_status(self) -> u8 {
        match self {
            Queue::Waiting => 1,
            Queue::Granted => 2,
            Queue::Converting => 3,
            Queue::Parked | Queue::None => 0,
        }
    }
}

/// The one primary message whose answer a process copy awaits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Wait {
    #[default]
    Nothing,
    Lookup,
    Request,
    Convert,
    Unlock,
    Cancel,
}

impl Wait {
    /// The message type on the wire.
    pub(crate) fn wire_type(self) -> u16 {
        match self {
            Wait::Nothing => 0,
            Wait::Request => 1,
            Wait::Convert => 2,
            Wait::Unlock => 3,
            Wait::Cancel => 4,
            Wait::Lookup => 11,
        }
    }
}

/// A lock record.
#[derive(Clone, Debug)]
pub(crate) struct Lock {
    /// The client's name for it.
    pub(crate) token: u64,
    pub(crate) lvb: Option<Box<[u8]>>,
    /// See [`LockCall`](super::event::LockCall).
    pub(crate) uses_lost_value: bool,
    pub(crate) id: LockId,
    /// The same lock on the other side.
    pub(crate) remid: LockId,
    pub(crate) resource: ResourceKey,
    pub(crate) next: LockKey,
    pub(crate) prev: LockKey,
    /// Nobody: our own client's. Else the node whose master copy this is.
    pub(crate) holder: NodeId,
    /// Where the outstanding message went.
    pub(crate) wait_node: NodeId,
    /// Order of outstanding messages, for recovery.
    pub(crate) wait_order: u32,
    pub(crate) exflags: LockFlags,
    pub(crate) sbflags: StatusFlags,
    pub(crate) lvbseq: u32,
    pub(crate) pid: u32,
    /// USER and ORPHAN bits of a kernel peer, echoed.
    pub(crate) wire_flags: u16,
    pub(crate) granted: Option<Mode>,
    pub(crate) requested: Option<Mode>,
    /// Strongest mode its client has been told about since it was last granted anything.
    pub(crate) highbast: Mode,
    pub(crate) queue: Queue,
    pub(crate) wait: Wait,
    /// Number of answers outstanding.
    pub(crate) wait_count: u8,
    /// Answers to cancels that a successful conversion made moot.
    pub(crate) moot_cancels: u8,
    pub(crate) overlap_cancel: bool,
    pub(crate) overlap_unlock: bool,
    /// Recovery will issue the outstanding operation again.
    pub(crate) resend: bool,
    /// A conversion between PR and CW whose outcome died with the master: it holds one of the two.
    pub(crate) unresolved: bool,
    /// Recovery awaits the new master's answer about this lock.
    pub(crate) awaits_master: bool,
    /// The last grant brought a value for the client.
    pub(crate) value_returned: bool,
    /// Times in a row that a request met a node which is not the master.
    pub(crate) bounces: u8,
    pub(crate) wants_notices: bool,
    /// The last callback queued for the client, if it was a notice.
    pub(crate) last_notice: Option<Mode>,
    /// Mode after the last completion queued for the client.
    pub(crate) completed_mode: Option<Mode>,
}

impl Lock {
    /// A record that is on no queue and holds nothing.
    pub(crate) fn new(resource: ResourceKey, holder: NodeId) -> Lock {
        Lock {
            token: 0,
            lvb: None,
            uses_lost_value: false,
            id: LockId::NONE,
            remid: LockId::NONE,
            resource,
            next: NIL,
            prev: NIL,
            holder,
            wait_node: NodeId::NONE,
            wait_order: 0,
            exflags: LockFlags::empty(),
            sbflags: StatusFlags::empty(),
            lvbseq: 0,
            pid: 0,
            wire_flags: 0,
            granted: None,
            requested: None,
            highbast: Mode::Nl,
            queue: Queue::None,
            wait: Wait::Nothing,
            wait_count: 0,
            moot_cancels: 0,
            overlap_cancel: false,
            overlap_unlock: false,
            resend: false,
            unresolved: false,
            awaits_master: false,
            value_returned: false,
            bounces: 0,
            wants_notices: false,
            last_notice: None,
            completed_mode: None,
        }
    }

    /// The master's record of another node's lock?
    pub(crate) fn is_master_copy(&self) -> bool {
        self.holder != NodeId::NONE
    }

    /// Is a cancel or forced unlock pending on top of the primary operation?
    pub(crate) fn overlaps(&self) -> bool {
        self.overlap_cancel || self.overlap_unlock
    }

    /// Is any answer outstanding, or about to be asked for again?
    pub(crate) fn is_outstanding(&self) -> bool {
        self.wait != Wait::Nothing || self.overlaps() || self.resend || self.wait_count != 0
    }
}

#[derive(Clone, Debug)]
enum Entry {
    Vacant,
    Occupied(Lock),
}

/// All lock records of a lockspace. An id is a position and how often that position has been used: a late message
/// about a lock that is gone finds nothing, although positions are used again.
#[derive(Clone, Debug, Default)]
pub(crate) struct LockTable {
    entries: Vec<Entry>,
    generations: Vec<u8>,
    free: std::collections::VecDeque<LockKey>,
    length: usize,
}

/// Low bits of an id: the position plus one.
const KEY_BITS: u32 = 24;
/// A position rests until this many others are free too, so that ids come back late.
const RESTING: usize = 256;

impl LockTable {
    /// Number of records.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Takes in a record and names it; `None` when 2^24 - 1 locks exist.
    pub(crate) fn insert(&mut self, mut lock: Lock) -> Option<LockKey> {
        let full = self.entries.len() >= (1 << KEY_BITS) - 1;
        let key = match self.free.len() > RESTING || full {
            true => self.free.pop_front()?,
            false => {
                self.entries.push(Entry::Vacant);
                self.generations.push(0);
                // Below 2^24, as checked above.
                (self.entries.len() - 1) as LockKey
            }
        };
        let at = key as usize;
        lock.id = LockId(u32::from(self.generations[at]) << KEY_BITS | (key + 1));
        self.entries[at] = Entry::Occupied(lock);
        self.length += 1;
        Some(key)
    }

    /// Forgets a record.
    pub(crate) fn remove(&mut self, key: LockKey) {
        let at = key as usize;
        if matches!(self.entries[at], Entry::Occupied(_)) {
            self.entries[at] = Entry::Vacant;
            self.generations[at] = self.generations[at].wrapping_add(1);
            self.free.push_back(key);
            self.length -= 1;
        }
    }

    /// The position of an id, if that very lock still exists. Safe on ids from outside.
    pub(crate) fn find(&self, id: LockId) -> Option<LockKey> {
        let key = (id.0 & ((1 << KEY_BITS) - 1)).checked_sub(1)?;
        match self.entries.get(key as usize) {
            Some(Entry::Occupied(lock)) if lock.id == id => Some(key),
            _ => None,
        }
    }

    /// All positions in use, in order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = LockKey> + '_ {
        self.entries.iter().enumerate().filter(|(_, e)| matches!(e, Entry::Occupied(_))).map(|(i, _)| i as LockKey)
    }
}

// Positions come only from `find`, `keys` and the lists of resources, which hold occupied positions.
impl std::ops::Index<LockKey> for LockTable {
    type Output = Lock;
    fn index(&self, key: LockKey) -> &Lock {
        match &self.entries[key as usize] {
            Entry::Occupied(lock) => lock,
            Entry::Vacant => unreachable!("a list names a lock that is gone"),
        }
    }
}

impl std::ops::IndexMut<LockKey> for LockTable {
    fn index_mut(&mut self, key: LockKey) -> &mut Lock {
        match &mut self.entries[key as usize] {
            Entry::Occupied(lock) => lock,
            Entry::Vacant => unreachable!("a list names a lock that is gone"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_never_names_its_successor() {
        let mut table = LockTable::default();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..10_000 {
            let key = table.insert(Lock::new(0, NodeId::NONE)).expect("room");
            let id = table[key].id;
            assert!(seen.insert(id), "reused {id:?}");
            assert_eq!(table.find(id), Some(key));
            table.remove(key);
            assert_eq!(table.find(id), None);
        }
        assert_eq!(table.len(), 0);
        assert_eq!(table.find(LockId(0)), None);
        assert_eq!(table.find(LockId(u32::MAX)), None);
    }
}
