//! The time of a node: milliseconds since it began. Time that the machine sleeps counts, since the others do not sleep.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    begun: Timespec,
}

impl Clock {
    /// It is 0 now.
    pub(crate) fn begin() -> Clock {
        Clock { begun: clock_gettime(ClockId::Boottime) }
    }

    /// Milliseconds since the beginning.
    pub(crate) fn now(&self) -> u64 {
        let now = clock_gettime(ClockId::Boottime);
        let nanoseconds = now.tv_nsec - self.begun.tv_nsec;
        let milliseconds = (now.tv_sec - self.begun.tv_sec) * 1000 + nanoseconds.div_euclid(1_000_000);
        // The clock never goes backwards.
        u64::try_from(milliseconds).unwrap_or(0)
    }
}
