//! Cluster-wide POSIX byte-range locks (dlm.md 4.11). They are not locks of the DLM: every node keeps the whole table
//! of a lockspace, and all nodes change it by the same messages in the same order, which a totally ordered multicast
//! delivers. Pure: the messages in, the results for whoever asked out.
//!
//! A lock belongs to (node, owner); two locks conflict when they overlap, belong to different owners, and one of them
//! is exclusive. Waiters are looked at in their order after every change, each that no longer conflicts is served
//! (which is not strictly first come, first served). There is no deadlock detection.
//!
//! This page is the table. With corosync the order comes from a process group; under the built-in membership it comes
//! from [`order`].

pub mod order;
#[cfg(test)]
mod tests;

use crate::ids::NodeId;
use std::collections::BTreeMap;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlockOp {
    /// A range, shared or exclusive.
    Lock,
    /// A range no longer.
    Unlock,
    /// Who would be in the way?
    Get,
    /// A waiting request no longer.
    Cancel,
}

/// A message of the table, as every node receives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlockRequest {
    /// What.
    pub op: PlockOp,
    /// A write lock.
    pub exclusive: bool,
    /// Wait while it conflicts.
    pub wait: bool,
    /// The file is being closed: with an unlock, waiters of the owner go too and no result is given.
    pub close: bool,
    /// The process, for information.
    pub pid: u32,
    /// The node that asks.
    pub node: NodeId,
    /// The inode.
    pub number: u64,
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end: u64,
    /// The owner on that node.
    pub owner: u64,
    /// The node's own number for a request to lock; in a cancel, the number of what is cancelled. Not in the daemons'
    /// messages, which have no place for it: 0 there, and requests are told apart by what they ask.
    pub ticket: u64,
}

/// A lock in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Plock {
    /// First byte.
    pub start: u64,
    /// Last byte.
    pub end: u64,
    /// The owner on its node.
    pub owner: u64,
    /// The process, for information.
    pub pid: u32,
    /// The owner's node.
    pub node: NodeId,
    /// A write lock.
    pub exclusive: bool,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlockAnswer {
    /// Done; or, to a question, nobody is in the way.
    Done,
    /// It conflicts and may not wait (`EAGAIN`).
    Again,
    /// No such waiter (`ENOENT`).
    NoEntry,
    /// This one would be in the way.
    Conflict(Plock),
    /// It was waiting, and was cancelled or its owner closed the file (`EINTR`).
    Interrupted,
    /// The table is full, or the cluster has no such locks (`ENOLCK`).
    NoLocks,
    /// The lockspace is gone, and the lock with it if it was granted (`EIO`).
    Gone,
}

/// An answer, to be passed on by the node that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlockResult {
    /// The request.
    pub request: PlockRequest,
    /// How it ended.
    pub answer: PlockAnswer,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct File {
    locks: Vec<Plock>,
    waiters: Vec<PlockRequest>,
}

/// More locks and waiters than this in one lockspace, and requests are refused: some tens of megabytes on every node.
pub const LOCKS_MAX: usize = 1 << 20;

/// The table of a lockspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlockTable {
    files: BTreeMap<u64, File>,
    /// Locks and waiters.
    size: usize,
}

/// All locks and waiters of one inode, for a node that joins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlockFile {
    /// The inode.
    pub number: u64,
    /// Locks.
    pub locks: Vec<Plock>,
    /// Waiters, in order and complete, so that a later cancel finds them.
    pub waiters: Vec<PlockRequest>,
}

/// A part of another node's table.
pub(crate) enum Adopted {
    Lock(Plock),
    Waiter(PlockRequest),
}

impl PlockRequest {
    fn as_lock(&self) -> Plock {
        let PlockRequest { start, end, owner, pid, node, exclusive, .. } = *self;
        Plock { start, end, owner, pid, node, exclusive }
    }

    fn is_same_waiter(&self, other: &PlockRequest) -> bool {
        self.as_lock() == other.as_lock() && self.ticket == other.ticket
    }
}

impl Plock {
    fn overlaps(&self, other: &Plock) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    fn has_owner_of(&self, other: &Plock) -> bool {
        (self.node, self.owner) == (other.node, other.owner)
    }

    fn conflicts(&self, other: &Plock) -> bool {
        !self.has_owner_of(other) && self.overlaps(other) && (self.exclusive || other.exclusive)
    }

    /// What is left of this lock outside of `hole`.
    fn without(&self, hole: &Plock) -> impl Iterator<Item = Plock> + use<> {
        let before = (self.start < hole.start).then(|| Plock { end: hole.start - 1, ..*self });
        let after = (self.end > hole.end).then(|| Plock { start: hole.end + 1, ..*self });
        before.into_iter().chain(after)
    }
}

impl File {
    fn size(&self) -> usize {
        self.locks.len() + self.waiters.len()
    }

    fn conflict(&self, lock: &Plock) -> Option<Plock> {
        self.locks.iter().find(|held| held.conflicts(lock)).copied()
    }

    /// Takes a range away from its owner.
    fn cut(&mut self, hole: &Plock) {
        let mut kept = Vec::with_capacity(self.locks.len());
        for lock in self.locks.drain(..) {
            if lock.has_owner_of(hole) && lock.overlaps(hole) {
                kept.extend(lock.without(hole));
            } else {
                kept.push(lock);
            }
        }
        self.locks = kept;
    }

    fn add(&mut self, lock: Plock) {
        let covers = |held: &Plock| {
            held.has_owner_of(&lock)
                && held.exclusive == lock.exclusive
                && held.start <= lock.start
                && lock.end <= held.end
        };
        if !self.locks.iter().any(covers) {
            self.cut(&lock);
            self.locks.push(lock);
        }
    }

    /// Serves the waiters that no longer conflict. One that is served may hold less than before (a shared lock over its
    /// own exclusive one): then those who were passed over are looked at again. The daemons look once (dlm.md 4.11.6), and
    /// leave such a waiter to wait for nothing; a table in one order with theirs would have to do the same.
    fn serve(&mut self, results: &mut Vec<PlockResult>) {
        let mut i = 0;
        while let Some(request) = self.waiters.get(i).copied() {
            let lock = request.as_lock();
            if self.conflict(&lock).is_some() {
                i += 1;
                continue;
            }
            let weakens = |held: &Plock| held.has_owner_of(&lock) && held.overlaps(&lock) && held.exclusive;
            self.waiters.remove(i);
            if !lock.exclusive && self.locks.iter().any(weakens) {
                i = 0;
            }
            self.add(lock);
            results.push(PlockResult { request, answer: PlockAnswer::Done });
        }
    }
}

impl PlockTable {
    /// Is anything known about this inode? If not, an unlock need not be sent at all.
    pub fn knows(&self, number: u64) -> bool {
        self.files.contains_key(&number)
    }

    /// Has this owner any lock on this inode, or does it wait for one? If not, its close need not be sent at all.
    pub fn concerns(&self, number: u64, node: NodeId, owner: u64) -> bool {
        self.files.get(&number).is_some_and(|file| {
            file.locks.iter().any(|lock| (lock.node, lock.owner) == (node, owner))
                || file.waiters.iter().any(|waiter| (waiter.node, waiter.owner) == (node, owner))
        })
    }

    /// Does this request of a node still wait?
    pub fn is_waiting(&self, number: u64, node: NodeId, ticket: u64) -> bool {
        let waits = |file: &File| file.waiters.iter().any(|w| (w.node, w.ticket) == (node, ticket));
        self.files.get(&number).is_some_and(waits)
    }

    /// Number of locks and waiters.
    pub fn size(&self) -> usize {
        self.size
    }

    /// A message in its order. The results are for the nodes that asked; each passes on its own.
    pub fn deliver(&mut self, request: PlockRequest) -> Vec<PlockResult> {
        let mut results = Vec::new();
        if request.start > request.end {
            return results;
        }
        let lock = request.as_lock();
        let full = self.size >= LOCKS_MAX;
        let file = self.files.entry(request.number).or_default();
        let before = file.size();
        let answer = match request.op {
            PlockOp::Get => Some(file.conflict(&lock).map_or(PlockAnswer::Done, PlockAnswer::Conflict)),
            PlockOp::Lock if full => Some(PlockAnswer::NoLocks),
            PlockOp::Lock => match (file.conflict(&lock), request.wait) {
                (None, _) => {
                    file.add(lock);
                    Some(PlockAnswer::Done)
                }
                (Some(_), true) => {
                    file.waiters.push(request);
                    None
                }
                (Some(_), false) => Some(PlockAnswer::Again),
            },
            PlockOp::Unlock => {
                file.cut(&lock);
                if request.close {
                    file.waiters.retain(|waiter| !waiter.as_lock().has_owner_of(&lock));
                }
                (!request.close).then_some(PlockAnswer::Done)
            }
            PlockOp::Cancel => {
                let found = file.waiters.iter().position(|waiter| waiter.is_same_waiter(&request));
                Some(match found {
                    Some(i) => {
                        file.waiters.remove(i);
                        PlockAnswer::Done
                    }
                    None => PlockAnswer::NoEntry,
                })
            }
        };
        results.extend(answer.map(|answer| PlockResult { request, answer }));
        if matches!(request.op, PlockOp::Lock | PlockOp::Unlock) {
            file.serve(&mut results);
        }
        // `size` counts this file's `before` too.
        self.size = self.size - before + file.size();
        self.forget(request.number);
        results
    }

    fn forget(&mut self, number: u64) {
        if self.files.get(&number).is_some_and(|file| file.locks.is_empty() && file.waiters.is_empty()) {
            self.files.remove(&number);
        }
    }

    /// Nodes are gone, at this point in the order of messages: all at once, or what one leaves would go to another.
    pub fn purge(&mut self, nodes: &[NodeId]) -> Vec<PlockResult> {
        let mut results = Vec::new();
        let numbers: Vec<u64> = self.files.keys().copied().collect();
        for number in numbers {
            if let Some(file) = self.files.get_mut(&number) {
                let before = file.size();
                file.locks.retain(|lock| !nodes.contains(&lock.node));
                file.waiters.retain(|waiter| !nodes.contains(&waiter.node));
                file.serve(&mut results);
                self.size = self.size - before + file.size();
            }
            self.forget(number);
        }
        results
    }

    /// Everything, for a node that joins.
    pub fn export(&self) -> Vec<PlockFile> {
        let files = self.files.iter();
        files
            .map(|(number, f)| PlockFile { number: *number, locks: f.locks.clone(), waiters: f.waiters.clone() })
            .collect()
    }

    /// The table of a node that is complete.
    pub fn import(files: Vec<PlockFile>) -> PlockTable {
        let files = files.into_iter().map(|f| (f.number, File { locks: f.locks, waiters: f.waiters }));
        let files: BTreeMap<u64, File> = files.collect();
        let size = files.values().map(File::size).sum();
        PlockTable { files, size }
    }

    /// Takes in a lock or waiter of another node's table, in that table's order.
    pub(crate) fn adopt(&mut self, number: u64, what: Adopted) {
        let file = self.files.entry(number).or_default();
        match what {
            Adopted::Lock(lock) => file.locks.push(lock),
            Adopted::Waiter(request) => file.waiters.push(request),
        }
        self.size += 1;
    }
}
