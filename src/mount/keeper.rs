//! The background work of a mount: what its page cache may collect, counters, orphans, signals, the fate of a withdrawn volume.

use super::daemon::leave;
use super::live::Live;
use super::options::OnError;
use super::table;
use crate::cluster::Parting;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// What the kernel's page cache may do for this mount. Where it does not let us choose, nothing is lost.
struct PageCache {
    /// The mount's folder below /sys/class/bdi.
    bdi: Option<PathBuf>,
    /// Bytes that may be collected before they are written: as last told to the kernel.
    limit: u64,
}

impl PageCache {
    /// Fewest and most bytes that programs may write before the kernel sends them to us; between, a quarter of the free space,
    /// so that what was collected finds room (`fuse/tight.rs`).
    const LIMITS: (u64, u64) = (64 << 20, 1 << 30);

    /// For the mount on `target`. Its number comes from the mount table: asking the directory would wait for our own answer.
    fn of(target: &Path) -> Self {
        let number = table::find(target).map(|e| e.number).unwrap_or_default();
        // On a block device the kernel gives FUSE a second one beside the disk's own.
        let bdi = [format!("/sys/class/bdi/{number}-fuseblk"), format!("/sys/class/bdi/{number}")];
        Self { bdi: bdi.iter().map(PathBuf::from).find(|dir| dir.exists()), limit: 0 }
    }

    fn set(&self, key: &str, value: u64) {
        let Some(bdi) = &self.bdi else { return };
        if let Err(e) = std::fs::write(bdi.join(key), value.to_string()) {
            tracing::debug!("{}/{key}: {e}", bdi.display());
        }
    }

    /// Cold sequential reads gain from a readahead as large as a request.
    fn raise_readahead(&self) {
        self.set("read_ahead_kb", 1024);
    }

    /// Lets programs write ahead of the disk, the less the fuller it is.
    fn limit_writes(&mut self, free_bytes: u64) {
        let limit = (free_bytes / 4).clamp(Self::LIMITS.0, Self::LIMITS.1);
        if limit.abs_diff(self.limit) > self.limit / 8 {
            self.limit = limit;
            self.set("max_bytes", limit);
        }
    }
}

/// How long an unmount waits for inodes without a name to be deleted; what is left the next mount deletes.
const TIDYING: Duration = Duration::from_secs(10);

/// How long a lock of flock(2) that nobody uses is kept at least.
const RESTING: Duration = Duration::from_secs(30);

/// The threads that do it.
pub(super) struct Keeper {
    stopped: Arc<AtomicBool>,
    hurry: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
    live: Weak<Live>,
    signals: signal_hook::iterator::Handle,
}

impl Keeper {
    pub(super) fn start(live: &Arc<Live>) -> io::Result<Self> {
        let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let handle = signals.handle();
        let for_signals = Arc::clone(live);
        std::thread::Builder::new().name("gfs2r-signals".into()).spawn(move || {
            for signal in &mut signals {
                if signal != SIGHUP {
                    leave(&for_signals);
                }
            }
        })?;
        let stopped = Arc::new(AtomicBool::new(false));
        let (for_parting, until) = (Arc::clone(live), Arc::clone(&stopped));
        // Of its own: what others wait for must not wait for what the keeper is at.
        std::thread::Builder::new().name("gfs2r-parting".into()).spawn(move || part(&for_parting, &until))?;
        let weak = Arc::downgrade(live);
        let (live, stop) = (Arc::clone(live), Arc::clone(&stopped));
        let hurry = Arc::new(AtomicBool::new(false));
        let in_a_hurry = Arc::clone(&hurry);
        let thread =
            std::thread::Builder::new().name("gfs2r-keeper".into()).spawn(move || keep(&live, &stop, &in_a_hurry))?;
        Ok(Self { stopped, hurry, thread, live: weak, signals: handle })
    }

    pub(super) fn stop(self) {
        self.stopped.store(true, Ordering::Release);
        self.signals.close();
        self.thread.thread().unpark();
        if let Some(live) = self.live.upgrade() {
            live.opened.fs.volume().cache.health().rouse();
        }
        // Whoever unmounts at once finds a clean disk, unless there is very much to be deleted.
        let until = Instant::now() + TIDYING;
        while !self.thread.is_finished() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.hurry.store(true, Ordering::Release);
        if self.thread.join().is_err() {
            tracing::error!("the keeper thread panicked");
        }
    }
}

/// How often a withdrawal is tried that nobody has answered, and how often while there are others who could.
const TRY_AGAIN: Duration = Duration::from_secs(5);
const TRIES: u32 = 3;

/// Waits until the volume withdraws; then sees to it that others get its journal, and its locks after that.
fn part(live: &Live, stop: &AtomicBool) {
    let health = live.opened.fs.volume().cache.health();
    let cause = loop {
        if stop.load(Ordering::Acquire) {
            return;
        }
        if let Some(cause) = health.await_failure(Duration::from_secs(1)) {
            break cause;
        }
    };
    tracing::error!("withdrawn: {cause}");
    let panics = || live.options.lock().on_error == OnError::Panic;
    let mut tries = 0;
    while live.withdraw() == Parting::Unreplayed && !panics() {
        tries += u32::from(live.cluster().is_some_and(|part| part.others() > 0));
        if tries >= TRIES {
            // They wait for our locks, and are to learn that nobody can give them.
            tracing::error!("the other nodes do not replay our journal: the daemon ends, so that they notice");
            std::process::abort();
        }
        let until = Instant::now() + TRY_AGAIN;
        while Instant::now() < until {
            if stop.load(Ordering::Acquire) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    while !stop.load(Ordering::Acquire) {
        if panics() {
            tracing::error!("errors=panic: the daemon ends");
            std::process::abort();
        }
        // A remount may ask for it.
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Until `stop`; what it deletes it leaves half done only in a `hurry`.
fn keep(live: &Live, stop: &AtomicBool, hurry: &AtomicBool) {
    let opened = &live.opened;
    let mut page_cache = PageCache::of(&live.target);
    page_cache.raise_readahead();
    page_cache.limit_writes(opened.fs.space().free_bytes());
    let (mut last, mut rested) = (Instant::now(), Instant::now());
    loop {
        if !opened.is_read_only() && live.orphans.swap(false, Ordering::AcqRel) {
            match opened.fs.reclaim_orphans(hurry) {
                Ok(0) => {}
                Ok(n) => tracing::info!(inodes = n, "deleted inodes that lost their last name before a crash"),
                Err(e) => tracing::warn!("looking for unlinked inodes failed: {e}"),
            }
        }
        if stop.load(Ordering::Acquire) {
            return;
        }
        std::thread::park_timeout(Duration::from_secs(1));
        page_cache.limit_writes(opened.fs.space().free_bytes());
        if opened.fs.volume().journal.withdrawn().is_some() {
            continue;
        }
        if !opened.is_read_only()
            && let Err(e) = opened.fs.delete_left()
        {
            tracing::warn!("deleting unlinked inodes failed: {e}");
        }
        if rested.elapsed() >= RESTING {
            rested = Instant::now();
            opened.fs.rest_flocks();
        }
        let quantum = {
            let options = live.options.lock();
            Duration::from_secs(u64::from(options.statfs_quantum.max(1).min(options.quota_quantum)))
        };
        // Frozen counters would wait for the thaw, and the unmount for them.
        if last.elapsed() >= quantum && !opened.is_read_only() && !opened.fs.is_frozen() {
            last = Instant::now();
            if let Err(e) = opened.fs.sync_counters() {
                tracing::warn!("moving statfs and quota changes failed: {e}");
            }
        }
    }
}
