//! Who may hold what, and in which order (dlm.md 1.6 to 1.8). Only the master of a resource decides this.

use super::Engine;
use super::lock::{LockKey, Queue};
use super::resource::ResourceKey;
use crate::flags::{LockFlags, StatusFlags};
use crate::frame::MsgType;
use crate::lvb::{self, Transfer};
use crate::mode::{Mode, compatible, middle_conversion};
use crate::status::{Status, result};

/// Why a lock is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// It has just arrived.
    Arrival,
    /// Something else on the resource changed.
    Later,
    /// The pass after recovery: the order of conversions is not known any more.
    Recovered,
}

/// The answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Grant,
    Wait,
    /// Two conversions wait for one another.
    Deadlock,
    /// So it was, and this lock gave up its mode to resolve it.
    Demoted,
}

impl Engine {
    /// The core rule G of dlm.md 1.6, first match wins.
    pub(crate) fn grantable(&self, key: LockKey, occasion: Occasion) -> bool {
        let lock = &self.locks[key];
        let record = &self.resources[lock.resource];
        let converts = lock.granted.is_some();
        if lock.exflags.contains(LockFlags::EXPEDITE) {
            return true;
        }
        if self.is_blocked(key) {
            return false;
        }
        let quecvt = lock.exflags.contains(LockFlags::QUECVT);
        match (occasion, converts) {
            (Occasion::Recovered, true) => true,
            (Occasion::Arrival, true) if !quecvt => true,
            (Occasion::Arrival, true) => record.is_empty(Queue::Converting),
            _ if lock.exflags.contains(LockFlags::NOORDER) => true,
            (Occasion::Later, true) => record.head(Queue::Converting) == key,
            (Occasion::Arrival, false) => record.is_empty(Queue::Converting) && record.is_empty(Queue::Waiting),
            (_, false) => record.is_empty(Queue::Converting) && record.head(Queue::Waiting) == key,
        }
    }

    /// Does another lock hold a mode that excludes the one requested?
    fn is_blocked(&self, key: LockKey) -> bool {
        let lock = &self.locks[key];
        let blocks = |other: LockKey| other != key && !compatible(self.locks[other].granted, lock.requested);
        #[cfg(test)]
        if self.mutation == Some(super::Mutation::IgnoreConverting) {
            return self.queue(lock.resource, Queue::Granted).any(blocks);
        }
        self.queue(lock.resource, Queue::Granted).any(blocks)
            || self.queue(lock.resource, Queue::Converting).any(blocks)
    }

    /// The full test of dlm.md 1.6, with conversion deadlock and alternate modes.
    pub(crate) fn can_grant(&mut self, key: LockKey, occasion: Occasion) -> Verdict {
        if self.grantable(key, occasion) {
            return Verdict::Grant;
        }
        let lock = &mut self.locks[key];
        let (flags, requested) = (lock.exflags, lock.requested);
        if lock.granted.is_some() && !flags.contains(LockFlags::NOQUEUE) && self.conversion_deadlock(key) {
            let lock = &mut self.locks[key];
            if flags.contains(LockFlags::CONVDEADLK) {
                lock.granted = Some(Mode::Nl);
                lock.sbflags |= StatusFlags::DEMOTED;
                return Verdict::Demoted;
            }
            return Verdict::Deadlock;
        }
        let Some(alternate) = alternate_mode(flags, requested) else { return Verdict::Wait };
        self.locks[key].requested = Some(alternate);
        let occasion = if occasion == Occasion::Recovered { Occasion::Later } else { occasion };
        if self.grantable(key, occasion) {
            self.locks[key].sbflags |= StatusFlags::ALTMODE;
            return Verdict::Grant;
        }
        self.locks[key].requested = requested;
        Verdict::Wait
    }

    /// Two conversions that wait for one another. What stands before a lock on the queue is served first, so it is
    /// enough that we block it; what stands behind must also block us.
    fn conversion_deadlock(&self, key: LockKey) -> bool {
        let lock = &self.locks[key];
        let mut behind = false;
        for other in self.queue(lock.resource, Queue::Converting) {
            if other == key {
                behind = true;
                continue;
            }
            let other = &self.locks[other];
            let we_block = !compatible(lock.granted, other.requested);
            let it_blocks = !compatible(other.granted, lock.requested);
            if we_block && (!behind || it_blocks) {
                return true;
            }
        }
        false
    }

    /// Gives a lock the mode it asked for, moving the value block and the lock.
    pub(crate) fn grant(&mut self, key: LockKey) {
        self.transfer_on_grant(key);
        let lock = &mut self.locks[key];
        (lock.granted, lock.requested) = (lock.requested, None);
        lock.highbast = Mode::Nl;
        if lock.queue != Queue::Granted {
            self.enqueue(key, Queue::Granted);
        }
    }

    fn transfer_on_grant(&mut self, key: LockKey) {
        let length = self.config.lvb_length;
        let lock = &mut self.locks[key];
        let record = &mut self.resources[lock.resource];
        let Some(requested) = lock.requested else { return };
        let takes_part = lock.exflags.contains(LockFlags::VALBLK);
        lock.doubtful = record.lvb_stale;
        match lvb::transfer(lock.granted, requested) {
            Transfer::Return => {
                let (true, Some(own), Some(value)) = (takes_part, &mut lock.lvb, &record.lvb) else { return };
                own.copy_from_slice(value);
                lock.lvbseq = record.lvbseq;
                lock.value_returned = true;
            }
            Transfer::Write if lock.exflags.contains(LockFlags::IVVALBLK) => {
                record.lvb_stale = true;
                return;
            }
            Transfer::Write => {
                if let (true, Some(own)) = (takes_part, &lock.lvb) {
                    record.lvb.get_or_insert_with(|| vec![0; length].into()).copy_from_slice(own);
                    record.lvbseq = record.lvbseq.wrapping_add(1);
                    (record.lvb_stale, lock.doubtful) = (false, false);
                    lock.lvbseq = record.lvbseq;
                }
            }
            Transfer::Nothing => {}
        }
        if record.lvb_stale {
            lock.sbflags |= StatusFlags::VALNOTVALID;
        }
    }

    /// Grants a lock that waited, and tells its holder.
    fn grant_queued(&mut self, key: LockKey) {
        self.grant(key);
        let holder = self.locks[key].holder;
        if !self.locks[key].is_master_copy() {
            return self.complete(key, Status::Granted);
        }
        let mut msg = self.message_about(key, MsgType::Grant, holder);
        msg.extra = self.value_of(key);
        self.send(holder, msg);
    }

    /// Grants whatever has become grantable and tells those who still stand in the way (dlm.md 1.8).
    pub(crate) fn grant_pass(&mut self, resource: ResourceKey, occasion: Occasion) {
        let mut blocked = Blocked::default();
        self.grant_conversions(resource, occasion, &mut blocked);
        let mut next = self.resources[resource].head(Queue::Waiting);
        while next != super::NIL {
            let key = next;
            next = self.locks[key].next;
            match self.can_grant(key, Occasion::Later) {
                Verdict::Grant => self.grant_queued(key),
                _ => blocked.add(self.locks[key].requested),
            }
        }
        if let Some(high) = blocked.high {
            self.notify_blockers(resource, high, blocked.cw);
        }
    }

    /// The half of the pass that serves conversions. Each grant or demotion may make another possible: start over.
    pub(crate) fn grant_conversions(&mut self, resource: ResourceKey, occasion: Occasion, blocked: &mut Blocked) {
        'again: loop {
            *blocked = Blocked::default();
            let mut next = self.resources[resource].head(Queue::Converting);
            while next != super::NIL {
                let key = next;
                next = self.locks[key].next;
                match self.can_grant(key, occasion) {
                    Verdict::Grant => {
                        self.grant_queued(key);
                        continue 'again;
                    }
                    Verdict::Demoted => continue 'again,
                    Verdict::Deadlock => {
                        let lock = &self.locks[key];
                        let Some(requested) = lock.requested else { continue };
                        if lock.exflags.contains(LockFlags::NODLCKWT) && lock.highbast < requested {
                            self.locks[key].highbast = requested;
                            self.notify(key, requested);
                        }
                    }
                    Verdict::Wait => blocked.add(self.locks[key].requested),
                }
            }
            return;
        }
    }

    fn notify_blockers(&mut self, resource: ResourceKey, high: Mode, cw: bool) {
        let mut next = self.resources[resource].head(Queue::Granted);
        while next != super::NIL {
            let key = next;
            next = self.locks[key].next;
            let lock = &self.locks[key];
            let Some(granted) = lock.granted.filter(|_| lock.wants_notices) else { continue };
            // CW and PR exclude one another without either being the stronger: "higher" says too little.
            let wanted = match granted == Mode::Pr && cw {
                true => lock.highbast < Mode::Ex,
                false => lock.highbast < high && !granted.compatible(high),
            };
            if wanted {
                let mode = if cw && high == Mode::Pr && granted == Mode::Pr { Mode::Cw } else { high };
                self.locks[key].highbast = high;
                self.notify(key, mode);
            }
        }
    }

    /// Tells the locks on a queue that stand in the way of one that has just arrived.
    pub(crate) fn notify_for_arrival(&mut self, arrival: LockKey, queue: Queue) {
        let resource = self.locks[arrival].resource;
        let Some(requested) = self.locks[arrival].requested else { return };
        let mut next = self.resources[resource].head(queue);
        while next != super::NIL {
            let key = next;
            next = self.locks[key].next;
            let lock = &self.locks[key];
            let Some(granted) = lock.granted.filter(|_| lock.wants_notices && key != arrival) else { continue };
            let wanted = match middle_conversion(Some(granted), Some(requested)) {
                true => lock.highbast < Mode::Ex,
                false => lock.highbast < requested && !granted.compatible(requested),
            };
            if wanted {
                self.locks[key].highbast = requested;
                self.notify(key, requested);
            }
        }
    }

    /// What follows the answer to a request or conversion.
    pub(crate) fn effects_of_arrival(&mut self, key: LockKey, outcome: i32, requested: Option<Mode>) {
        let again = outcome == result::EAGAIN && self.locks[key].exflags.contains(LockFlags::NOQUEUEBAST);
        if again {
            // The request is off the record by now; the notices are about what it wanted.
            let kept = std::mem::replace(&mut self.locks[key].requested, requested);
            self.notify_for_arrival(key, Queue::Granted);
            self.notify_for_arrival(key, Queue::Converting);
            self.locks[key].requested = kept;
            return;
        }
        if outcome == result::EINPROGRESS {
            self.notify_for_arrival(key, Queue::Granted);
        }
        // Who jumps the queue may be grantable once it stands at its head, and may stand in the way of those it
        // passed; nobody else would look at either.
        let jumped = match outcome {
            result::OK => self.locks[key].exflags.contains(LockFlags::NOORDER),
            result::EINPROGRESS => self.locks[key].exflags.contains(LockFlags::HEADQUE),
            _ => false,
        };
        if jumped {
            self.grant_pass(self.locks[key].resource, Occasion::Later);
        }
    }
}

/// The strongest mode that is still waited for.
#[derive(Default)]
pub(crate) struct Blocked {
    high: Option<Mode>,
    cw: bool,
}

impl Blocked {
    fn add(&mut self, requested: Option<Mode>) {
        self.high = self.high.max(requested);
        self.cw |= requested == Some(Mode::Cw);
    }
}

/// The mode to try when the one requested cannot be had.
pub(crate) fn alternate_mode(flags: LockFlags, requested: Option<Mode>) -> Option<Mode> {
    if flags.contains(LockFlags::ALTPR) && requested != Some(Mode::Pr) {
        Some(Mode::Pr)
    } else if flags.contains(LockFlags::ALTCW) && requested != Some(Mode::Cw) {
        Some(Mode::Cw)
    } else {
        None
    }
}
