//! Where a request runs: on the thread that read it, or on the pool.

use crate::error::{Error, Result};
use crate::sync;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs requests; knows how many reader threads may wait at once.
pub struct Dispatcher {
    /// Readers that may still start to wait: one less than there are.
    spare: AtomicUsize,
    pool: tokio::runtime::Runtime,
}

impl Dispatcher {
    /// For this many reader threads.
    pub fn new(readers: usize) -> io::Result<Self> {
        let pool = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(512)
            .thread_name("gfs2r-worker")
            .build()?;
        Ok(Self { spare: AtomicUsize::new(readers.saturating_sub(1)), pool })
    }

    /// Runs `op` without waiting; where it must wait, waits here if a reader can be spared. `None`: the caller moves the
    /// request to the pool.
    pub fn here<T>(&self, mut op: impl FnMut() -> Result<T>) -> Option<Result<T>> {
        match sync::impatiently(&mut op) {
            Err(Error::MustWait) => {}
            done => return Some(done),
        }
        let took = self.spare.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1)).is_ok();
        if !took {
            return None;
        }
        struct Back<'a>(&'a AtomicUsize);
        impl Drop for Back<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::AcqRel);
            }
        }
        let _back = Back(&self.spare);
        Some(op())
    }

    /// Runs `job` on the pool.
    pub fn later(&self, job: impl FnOnce() + Send + 'static) {
        self.pool.spawn_blocking(job);
    }

    /// Runs `op` here or later, and gives its result to `answer`.
    pub fn run<T, R: Send + 'static>(
        &self,
        reply: R,
        op: impl Fn() -> Result<T> + Send + 'static,
        answer: impl FnOnce(R, Result<T>) + Send + 'static,
    ) {
        match self.here(&op) {
            Some(result) => answer(reply, result),
            None => self.later(move || {
                let result = op();
                answer(reply, result);
            }),
        }
    }
}
