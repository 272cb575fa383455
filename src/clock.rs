//! Time comes in as an argument: a [`Clock`] tells it, the system's or a simulated one.

use rustix::time::{ClockId, clock_gettime};
use std::sync::atomic::{AtomicI64, Ordering};

/// A point in time as a dinode keeps it: signed seconds since 1970 and nanoseconds (ondisk.md 4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since the epoch.
    pub sec: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nsec: u32,
}

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The system's clock, with the granularity of the kernel's own file times: on a mount whose kernel sets some of the times,
/// a finer clock would make a file's creation later than its first write.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let t = clock_gettime(ClockId::RealtimeCoarse);
        Timestamp { sec: t.tv_sec, nsec: u32::try_from(t.tv_nsec).unwrap_or(0) }
    }
}

/// A clock for tests: each look advances it by one microsecond.
#[derive(Debug)]
pub struct SimClock {
    nanos: AtomicI64,
}

impl SimClock {
    /// A clock that starts at this second.
    pub fn new(sec: i64) -> Self {
        Self { nanos: AtomicI64::new(sec * 1_000_000_000) }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        let n = self.nanos.fetch_add(1000, Ordering::Relaxed);
        Timestamp { sec: n.div_euclid(1_000_000_000), nsec: u32::try_from(n.rem_euclid(1_000_000_000)).unwrap_or(0) }
    }
}
