//! Where a request runs: on the thread that read it, or on the pool.

use super::service::Service;
use crate::error::{Error, Result};
use crate::ids::Inum;
use crate::sync;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Requests that may wait at the same time. Where other nodes hold locks each of them may wait long, and what lets a lock go must
/// still find a thread (fuse.md D7); a thread is made when it is needed and costs little while it waits.
const POOL: usize = 8192;

/// Runs requests; knows how many threads that read them may wait at once.
pub struct Dispatcher {
    /// Threads that may still start to wait.
    spare: AtomicUsize,
    pool: tokio::runtime::Runtime,
}

impl Dispatcher {
    /// `spare`: how many of the threads that read requests may wait at the same time; at least one must go on reading.
    pub fn new(spare: usize) -> io::Result<Self> {
        let pool = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(POOL)
            .thread_name("gfs2r-worker")
            .build()?;
        Ok(Self { spare: AtomicUsize::new(spare), pool })
    }

    /// Runs `op` without waiting; where it must wait, waits here if a thread can be spared. `None`: the caller moves the
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

    /// The kernel forgets a node: what must be deleted then is deleted here if that is quickly done, otherwise later.
    pub fn forget(&self, service: &Arc<Service>, node: u64, count: u64) {
        let Some(inum) = service.forget(node, count) else { return };
        let done = if service.fs.is_deleted_quickly(inum) { self.here(|| service.delete(inum)) } else { None };
        // There is nobody to tell: the inode stays an orphan and is deleted by the next mount.
        let tell = move |result: Result<()>| {
            if let Err(e) = result {
                tracing::warn!(inode = inum.addr.get(), "deleting an unlinked inode failed: {e}");
            }
        };
        match done {
            Some(result) => tell(result),
            None => {
                let deletion = Deletion { service: Arc::clone(service), inum, begun: false };
                self.later(move || tell(deletion.run()));
            }
        }
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

/// The deletion of a forgotten inode on the pool. If the pool ends before its turn comes, the unmount does it.
struct Deletion {
    service: Arc<Service>,
    inum: Inum,
    begun: bool,
}

impl Deletion {
    fn run(mut self) -> Result<()> {
        self.begun = true;
        self.service.delete(self.inum)
    }
}

impl Drop for Deletion {
    fn drop(&mut self) {
        if !self.begun {
            self.service.fs.leave_to_unmount(self.inum);
        }
    }
}
