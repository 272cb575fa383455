//! Many requests at once: neighbours are joined, the rest is spread over a few threads.
//!
//! One thread with one request in flight leaves a disk four to ten times slower than it is (fuse.md 3.3). The threads are
//! a pool that is started by the first batch that needs it and then kept: starting threads for each batch would cost as
//! much as several small writes, and a pool whose tasks may borrow (rayon's) spares the copy into owned buffers.

use super::FileDevice;
use crate::device::{AlignedBuf, BlockDevice};
use crate::sync::Mutex;
use rustix::io::Errno;
use std::io::{self, IoSlice, IoSliceMut};

/// So many ranges are written or read by the caller alone: waking threads takes longer. An fsync writes one to three.
const FEW: usize = 3;
/// Requests in flight.
const THREADS: usize = 8;
/// Joined requests end here, so that a long batch still occupies all threads.
const RUN_BYTES: usize = 1 << 20;
/// Most pieces in one request; the kernel allows 1024.
const RUN_PIECES: usize = 256;

/// Cuts ranges that are sorted by offset into runs, each written by one request: the number of ranges in each.
fn runs(ranges: impl Iterator<Item = (u64, usize)>) -> Vec<usize> {
    let mut counts: Vec<usize> = Vec::new();
    let (mut end, mut bytes) = (None, 0);
    for (offset, len) in ranges {
        match counts.last_mut() {
            Some(count) if end == Some(offset) && *count < RUN_PIECES && bytes + len <= RUN_BYTES => {
                *count += 1;
                bytes += len;
            }
            _ => {
                counts.push(1);
                bytes = len;
            }
        }
        end = offset.checked_add(len as u64);
    }
    counts
}

impl FileDevice {
    pub(super) fn write_batch(&self, ranges: &[(u64, &[u8])]) -> io::Result<()> {
        for (offset, buf) in ranges {
            self.check_write(*offset, buf.len() as u64)?;
        }
        let mut sorted = ranges.to_vec();
        sorted.sort_by_key(|(offset, _)| *offset);
        let counts = runs(sorted.iter().map(|(offset, buf)| (*offset, buf.len())));
        let mut rest = sorted.as_slice();
        let jobs = counts.iter().map(|&count| {
            let (run, others) = rest.split_at(count);
            rest = others;
            run
        });
        self.in_parallel(jobs.collect(), |run| self.write_run(run))
    }

    pub(super) fn read_batch(&self, ranges: &mut [(u64, &mut [u8])]) -> io::Result<()> {
        for (offset, buf) in ranges.iter() {
            self.check_read(*offset, buf.len())?;
        }
        let mut sorted: Vec<(u64, &mut [u8])> = ranges.iter_mut().map(|(offset, buf)| (*offset, &mut **buf)).collect();
        sorted.sort_by_key(|(offset, _)| *offset);
        let counts = runs(sorted.iter().map(|(offset, buf)| (*offset, buf.len())));
        let mut rest = sorted.as_mut_slice();
        let mut jobs = Vec::with_capacity(counts.len());
        for count in counts {
            let (run, others) = rest.split_at_mut(count);
            rest = others;
            jobs.push(run);
        }
        self.in_parallel(jobs, |run| self.read_run(run))
    }

    /// Runs `work` on every job, on the pool when there are more than a few; the first error when all are done.
    fn in_parallel<J: Send>(&self, jobs: Vec<J>, work: impl Fn(J) -> io::Result<()> + Sync) -> io::Result<()> {
        let pool = if jobs.len() > FEW { self.pool.get_or_init(start_pool).as_ref() } else { None };
        let Some(pool) = pool else {
            return jobs.into_iter().map(work).fold(Ok(()), io::Result::and);
        };
        let tasks = jobs.len().min(THREADS);
        let queue = Mutex::new(jobs.into_iter());
        let failed = Mutex::new(None);
        pool.in_place_scope(|scope| {
            for _ in 0..tasks {
                scope.spawn(|_| {
                    loop {
                        // A statement of its own, so that the queue is not locked during the work.
                        let job = queue.lock().next();
                        let Some(job) = job else { break };
                        if let Err(e) = work(job) {
                            failed.lock().get_or_insert(e);
                        }
                    }
                });
            }
        });
        failed.into_inner().map_or(Ok(()), Err)
    }

    fn write_run(&self, run: &[(u64, &[u8])]) -> io::Result<()> {
        let [(offset, first), more @ ..] = run else { return Ok(()) };
        if more.is_empty() {
            return self.write(*offset, first);
        }
        if !run.iter().all(|(_, buf)| self.aligned(buf)) {
            let joined: Vec<&[u8]> = run.iter().map(|(_, buf)| *buf).collect();
            return self.write(*offset, &AlignedBuf::copy_of(&joined.concat()));
        }
        let mut slices: Vec<IoSlice<'_>> = run.iter().map(|(_, buf)| IoSlice::new(buf)).collect();
        let mut left = slices.as_mut_slice();
        let mut at = *offset;
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match rustix::io::pwritev(&self.file, left, at) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    at += n as u64;
                    IoSlice::advance_slices(&mut left, n);
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn read_run(&self, run: &mut [(u64, &mut [u8])]) -> io::Result<()> {
        let whole = |(offset, buf): &(u64, &mut [u8])| {
            offset.is_multiple_of(self.alignment as u64)
                && buf.len().is_multiple_of(self.alignment)
                && self.aligned(buf)
        };
        if run.len() == 1 || (self.direct && !run.iter().all(whole)) {
            return run.iter_mut().try_for_each(|(offset, buf)| self.read(*offset, buf));
        }
        let Some(&mut (mut at, _)) = run.first_mut() else { return Ok(()) };
        let mut slices: Vec<IoSliceMut<'_>> = run.iter_mut().map(|(_, buf)| IoSliceMut::new(buf)).collect();
        let mut left = slices.as_mut_slice();
        IoSliceMut::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match rustix::io::preadv(&self.file, left, at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    at += n as u64;
                    IoSliceMut::advance_slices(&mut left, n);
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

/// The pool; `None` when the system refuses threads, and then requests go one after another.
fn start_pool() -> Option<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new().num_threads(THREADS).thread_name(|n| format!("gfs2r-io-{n}")).build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_joined_up_to_a_limit() {
        let offsets = [0u64, 4096, 8192, 16384, 20480];
        assert_eq!(runs(offsets.iter().map(|&o| (o, 4096))), [3, 2]);
        assert_eq!(runs((0..600u64).map(|i| (i * 512, 512))), [256, 256, 88]);
        assert_eq!(runs((0..3u64).map(|i| (i << 20, 1 << 20))), [1, 1, 1]);
        assert_eq!(runs([(0, 4096), (0, 4096)].into_iter()), [1, 1], "overlapping ranges stay apart");
        assert!(runs(std::iter::empty()).is_empty());
    }
}
