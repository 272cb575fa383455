//! Who came and got nowhere: counted always, told seldom.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Something that strangers do.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    count: AtomicU64,
    /// When it was last told, and how often it had happened then.
    told: Mutex<Option<(Instant, u64)>>,
}

/// Not told again before.
const PAUSE: Duration = Duration::from_secs(10);

impl Seldom {
    /// Counts one more; says how many there were since it was last told, if it is time to tell.
    pub(super) fn count(&self) -> Option<u64> {
        let count = 1 + self.count.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|(at, _)| at.elapsed() < PAUSE) {
            return None;
        }
        let before = told.replace((Instant::now(), count)).map_or(0, |(_, before)| before);
        Some(count.saturating_sub(before))
    }

    /// How often it has happened.
    fn get(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// What strangers have tried.
#[derive(Debug, Default)]
pub struct Counters {
    pub(super) unknown_connections: Seldom,
    pub(super) unknown_datagrams: Seldom,
    pub(super) bad_streams: Seldom,
    pub(super) failed_handshakes: Seldom,
    pub(super) forged_datagrams: Seldom,
    pub(super) crowded_out: Seldom,
}

/// [`Counters`] as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strangers {
    /// Connections from addresses that are no member's.
    pub unknown_connections: u64,
    /// Datagrams from addresses that are no member's.
    pub unknown_datagrams: u64,
    /// Streams, from a member's address, that were not the protocol's.
    pub bad_streams: u64,
    /// TLS handshakes that failed, ours and theirs: no certificate, another authority, another name, too slow.
    pub failed_handshakes: u64,
    /// Datagrams from a member's address whose seal was wrong or old.
    pub forged_datagrams: u64,
    /// Connections that had to go because too many had not proved themselves.
    pub crowded_out: u64,
}

impl Counters {
    /// As numbers.
    pub fn read(&self) -> Strangers {
        Strangers {
            unknown_connections: self.unknown_connections.get(),
            unknown_datagrams: self.unknown_datagrams.get(),
            bad_streams: self.bad_streams.get(),
            failed_handshakes: self.failed_handshakes.get(),
            forged_datagrams: self.forged_datagrams.get(),
            crowded_out: self.crowded_out.get(),
        }
    }
}
