//! The background thread: commits what has become old, relieves a log that fills up.

use super::flush::FlushReason;
use super::log::{Journal, Log};
use super::reserve::Reserve;
use super::state::State;
use crate::cache::{Bell, join};
use crate::sync::{Instant, Mutex, thread};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How full the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Pressure {
    None = 0,
    /// Much is pinned: commit.
    Flush = 1,
    /// Much of the log is in use: write back as well, and move the tail.
    WriteBack = 2,
}

/// The kernel's thresholds (ondisk.md 8.6): 2/5 of the log pinned, 4/5 in use. The second is taken a little earlier, since a
/// round of write-back takes its time and transactions should not have to wait for it.
pub(super) fn pressure(s: &State, log: &Log) -> Pressure {
    let size = u64::from(log.map.size());
    let need = s.need(log.costs, Reserve::default());
    if s.ring.used() + need > size * 3 / 5 {
        Pressure::WriteBack
    } else if need > size * 2 / 5 {
        Pressure::Flush
    } else {
        Pressure::None
    }
}

/// The thread and its bell.
#[derive(Default)]
pub(super) struct Flusher {
    bell: Arc<Bell>,
    wanted: Arc<AtomicU8>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
    /// Copy of "there is a thread", so that a commit need not lock.
    started: std::sync::atomic::AtomicBool,
}

impl Flusher {
    /// Starts the thread unless it runs.
    fn start(&self, journal: &Weak<Journal>, every: Duration) {
        if self.started.swap(true, Ordering::AcqRel) {
            return;
        }
        let (bell, wanted, journal) = (self.bell.clone(), self.wanted.clone(), journal.clone());
        let spawned =
            thread::Builder::new().name("gfs2r-log".into()).spawn(move || run(&bell, &wanted, &journal, every));
        match spawned {
            Ok(handle) => *self.thread.lock() = Some(handle),
            // Then whoever needs room makes it, and fsync commits.
            Err(e) => tracing::warn!("no background flusher: {e}"),
        }
    }
    /// No thread: the test decides what happens when.
    #[cfg(test)]
    pub(super) fn disable(&self) {
        self.started.store(true, Ordering::Release);
    }
    /// Ends the thread and waits for it.
    pub(super) fn stop(&self) {
        self.bell.stop();
        let handle = self.thread.lock().take();
        if let Some(handle) = handle {
            join(handle);
        }
    }
}

impl Journal {
    /// Called at each commit.
    pub(super) fn press(&self, log: &Log, pressure: Pressure, changed: bool) {
        if !changed && pressure == Pressure::None {
            return;
        }
        log.flusher.start(&self.me, log.commit_every);
        if pressure != Pressure::None && log.flusher.wanted.fetch_max(pressure as u8, Ordering::AcqRel) < pressure as u8
        {
            log.flusher.bell.ring();
        }
    }
    /// One turn of the background thread.
    fn relieve(&self, wanted: u8, timer: bool) -> crate::error::Result<()> {
        let Some(log) = &self.log else { return Ok(()) };
        if timer {
            self.cache.data().write_all()?;
        }
        if timer || wanted >= Pressure::Flush as u8 {
            self.flush(FlushReason::Normal)?;
        }
        if wanted >= Pressure::WriteBack as u8 {
            let upto = self.committed();
            self.write_back(log, super::ail::Place::Upto(upto))?;
            self.move_tail(log, FlushReason::Normal)?;
        }
        Ok(())
    }
}

fn run(bell: &Bell, wanted: &AtomicU8, journal: &Weak<Journal>, every: Duration) {
    let mut due = Instant::now() + every;
    loop {
        bell.wait(Some(due.saturating_duration_since(Instant::now())));
        if bell.stopped() {
            return;
        }
        let Some(journal) = journal.upgrade() else { return };
        let timer = Instant::now() >= due;
        if timer {
            due = Instant::now() + every;
        }
        // Cleared before the work: pressure that rises meanwhile rings again.
        let want = wanted.swap(0, Ordering::AcqRel);
        if let Err(e) = journal.relieve(want, timer) {
            tracing::debug!("background flusher ends: {e}");
            return;
        }
    }
}
