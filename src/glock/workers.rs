//! Threads that give locks up. A demotion waits for disks (and, for an inode, for the kernel to drop its pages), so it never
//! runs on the thread that brought the news, nor on one that serves requests. None is started before the first demotion.

use crate::sync::{Condvar, Instant, Mutex, thread};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Demotions that may run at the same time.
const THREADS_MAX: usize = 64;
/// A thread without work ends after this time.
const IDLE: Duration = Duration::from_secs(5);

type Job = Box<dyn FnOnce() + Send>;

/// A pool that grows on demand, with a timer.
#[derive(Default)]
pub(super) struct Workers {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    jobs: Mutex<Jobs>,
    bell: Condvar,
}

#[derive(Default)]
struct Jobs {
    ready: VecDeque<Job>,
    timed: BTreeMap<(Instant, u64), Job>,
    sequence: u64,
    threads: usize,
    idle: usize,
    stopped: bool,
}

impl Workers {
    /// Runs `job` on a thread of the pool.
    pub(super) fn submit(&self, job: impl FnOnce() + Send + 'static) {
        let mut jobs = self.inner.jobs.lock();
        jobs.ready.push_back(Box::new(job));
        self.wake(&mut jobs);
    }
    /// Runs `job` at that time.
    pub(super) fn submit_at(&self, at: Instant, job: impl FnOnce() + Send + 'static) {
        let mut jobs = self.inner.jobs.lock();
        jobs.sequence += 1;
        let key = (at, jobs.sequence);
        jobs.timed.insert(key, Box::new(job));
        self.wake(&mut jobs);
    }

    fn wake(&self, jobs: &mut Jobs) {
        if jobs.idle > jobs.ready.len().saturating_sub(1) || jobs.threads >= THREADS_MAX {
            self.inner.bell.notify_one();
        } else {
            self.inner.start(jobs);
        }
    }
}

impl Inner {
    fn start(self: &Arc<Self>, jobs: &mut Jobs) {
        let inner = Arc::clone(self);
        match thread::Builder::new().name("glock".into()).spawn(move || inner.work()) {
            Ok(_detached) => jobs.threads += 1,
            // The threads there are will come to it; without any, the next event tries again.
            Err(e) => tracing::error!("no thread for a lock demotion: {e}"),
        }
    }

    /// Whoever watched the clock has something else to do: another one watches it.
    fn watch_on(self: &Arc<Self>, jobs: &mut Jobs) {
        if jobs.timed.is_empty() {
            return;
        }
        if jobs.idle > 0 || jobs.threads >= THREADS_MAX {
            self.bell.notify_one();
        } else {
            self.start(jobs);
        }
    }

    fn work(self: &Arc<Self>) {
        let mut jobs = self.jobs.lock();
        loop {
            if jobs.stopped {
                break;
            }
            let now = Instant::now();
            let due = jobs.timed.first_key_value().map(|(&(at, _), _)| at).filter(|&at| at <= now);
            let job = if due.is_some() { jobs.timed.pop_first().map(|(_, job)| job) } else { jobs.ready.pop_front() };
            if let Some(job) = job {
                self.watch_on(&mut jobs);
                drop(jobs);
                job();
                jobs = self.jobs.lock();
                continue;
            }
            let until = jobs.timed.first_key_value().map_or(now + IDLE, |(&(at, _), _)| at);
            jobs.idle += 1;
            let over = self.bell.wait_until(&mut jobs, until).timed_out();
            jobs.idle -= 1;
            let due = jobs.timed.first_key_value().is_some_and(|(&(at, _), _)| at <= Instant::now());
            if over && jobs.ready.is_empty() && !due && (jobs.timed.is_empty() || jobs.idle > 0) {
                self.watch_on(&mut jobs);
                break;
            }
        }
        jobs.threads -= 1;
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut jobs = self.inner.jobs.lock();
        jobs.stopped = true;
        let left = (std::mem::take(&mut jobs.ready), std::mem::take(&mut jobs.timed));
        drop(jobs);
        self.inner.bell.notify_all();
        // They refer to glocks, whose end must not come under the pool's mutex.
        drop(left);
    }
}
