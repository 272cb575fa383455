//! Locks taken without reading what they protect, and how long one waits for them.

use super::driver::Glock;
use super::holder::{ExclusiveHolder, Hold, WriteGuard};
use super::manager::Lvb;
use super::mode::LockState::{Exclusive, Shared};
use super::queue::Entry;
use super::{GlockTable, Protected};
use crate::error::{Error, Result};
use crate::ids::LockName;
use crate::sync::{Instant, thread};
use std::sync::Arc;
use std::time::Duration;

/// Proof of an exclusive lock whose object may not be there: an inode that is being made, or of which nobody knows whether it
/// still is one.
pub struct Claim<T: Protected> {
    // Dropped before `hold`, as in the holders.
    guard: WriteGuard<T>,
    hold: Hold<T>,
}

impl<T: Protected> Glock<T> {
    /// Takes the lock exclusive without reading the object.
    pub fn claim(self: &Arc<Self>) -> Result<Claim<T>> {
        let hold = self.hold(Exclusive, false, Entry::Ordinary)?;
        let guard = self.write()?;
        Ok(Claim { guard, hold })
    }

    /// The same if nobody has to be waited for; other nodes that hold the lock are told that somebody wants it.
    pub fn try_claim(self: &Arc<Self>) -> Result<Option<Claim<T>>> {
        let hold = match self.hold(Exclusive, true, Entry::Ordinary) {
            Ok(hold) => hold,
            Err(Error::WouldBlock | Error::MustWait) => return Ok(None),
            Err(e) => return Err(e),
        };
        Ok(self.object.try_write_arc().map(|guard| Claim { guard, hold }))
    }

    /// The same, waiting as long as `patient` says so (asked now and then).
    pub fn claim_while(self: &Arc<Self>, patient: &dyn Fn() -> bool) -> Result<Option<Claim<T>>> {
        match self.acquire_while(Exclusive, patient) {
            Ok(()) => {}
            Err(Error::WouldBlock) => return Ok(None),
            Err(e) => return Err(e),
        }
        let hold = self.held();
        let guard = self.write()?;
        Ok(Some(Claim { guard, hold }))
    }

    /// Tells the nodes that hold the lock exclusive that somebody wants it, without waiting for it.
    pub fn poke(self: &Arc<Self>) {
        if self.acquire(Shared, true, Entry::Ordinary).is_ok() {
            self.release();
        }
    }
}

impl<T: Protected> Claim<T> {
    /// The lock's name.
    pub fn name(&self) -> LockName {
        self.hold.glock.name()
    }
    /// The lock's value block; zero when nobody has set it.
    pub fn lvb(&self) -> Lvb {
        self.hold.glock.lvb()
    }
    /// Puts an object inside (an old one is replaced).
    pub fn fill(self, object: T) -> ExclusiveHolder<T> {
        let Self { mut guard, hold } = self;
        *guard = Some(object);
        ExclusiveHolder::filled_with(hold, guard)
    }
    /// Reads the object if it is not there.
    pub fn read(self) -> Result<ExclusiveHolder<T>> {
        let Self { guard, hold } = self;
        Glock::filled(hold, guard)
    }
}

impl<T: Protected> GlockTable<T> {
    /// Gives up every lock that other nodes may want, waiting at most so long; the number of those that are still held. Nobody
    /// uses the table meanwhile or afterwards.
    pub fn give_up_all(&self, at_most: Duration) -> usize {
        if !self.is_shared() {
            return 0;
        }
        let until = Instant::now() + at_most;
        loop {
            for name in self.names() {
                self.remove(name);
            }
            if self.is_empty() || Instant::now() >= until {
                return self.len();
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}
