//! May this node still believe that it is a member? Others declare it dead when they have not heard it for the token, have
//! it fenced and go on. A process that is stopped, or a machine that sleeps, does not notice; when it wakes, its first
//! instructions must not be to grant itself something. So every grant, and every word of one, looks at the clock:
//! until the moment that the membership last named ([`crate::membership::Membership::trusted_until`]) nobody can have
//! declared us dead. After that moment nothing is granted here and no grant is told: calls wait
//! ([`super::space::Progress::Queued`]) until the others are known to have heard us again, or have gone on without us.

use crate::clock::Clock;
use std::sync::atomic::{AtomicU64, Ordering};

/// See the module.
pub(crate) struct Trust {
    clock: Clock,
    /// In the node's milliseconds; the driver moves it on.
    until: AtomicU64,
}

impl Trust {
    pub(super) fn new(clock: Clock) -> Trust {
        Trust { clock, until: AtomicU64::new(u64::MAX) }
    }

    /// Is the moment still to come?
    pub(super) fn holds(&self) -> bool {
        let until = self.until.load(Ordering::Acquire);
        until == u64::MAX || self.clock.now() < until
    }

    pub(super) fn renew(&self, until: u64) {
        self.until.store(until, Ordering::Release);
    }
}
