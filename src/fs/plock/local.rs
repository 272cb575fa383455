//! The byte-range locks of one node.

use super::{Found, Plock, Plocks};
use crate::error::{Error, Result};
use crate::fs::flock::LockDone;
use crate::ids::BlockAddr;
use crate::sync::Mutex;
use std::collections::{HashMap, VecDeque};

/// Byte-range locks that only this node knows.
#[derive(Default)]
pub struct LocalPlocks {
    files: Mutex<HashMap<BlockAddr, File>>,
}

#[derive(Default)]
struct File {
    ranges: Ranges,
    waiting: VecDeque<(Plock, LockDone)>,
}

/// What is locked of one inode. No two ranges of an owner overlap.
#[derive(Debug, Default)]
struct Ranges(Vec<Plock>);

impl Ranges {
    fn conflict(&self, wanted: &Plock) -> Option<Plock> {
        self.0.iter().filter(|l| l.conflicts(wanted)).min_by_key(|l| l.start).copied()
    }

    /// The owner has nothing in this range any more; what it has outside stays.
    fn cut(&mut self, range: &Plock) {
        let (mine, mut others): (Vec<Plock>, Vec<Plock>) =
            self.0.drain(..).partition(|l| l.owner == range.owner && l.overlaps(range));
        for lock in mine {
            if lock.start < range.start {
                others.push(Plock { end: range.start - 1, ..lock });
            }
            if lock.end > range.end {
                others.push(Plock { start: range.end + 1, ..lock });
            }
        }
        self.0 = others;
    }

    /// The owner has this range in this mode; neighbours of the same mode become one with it.
    fn put(&mut self, mut lock: Plock) {
        self.cut(&lock);
        self.0.retain(|l| {
            let same = l.owner == lock.owner && l.exclusive == lock.exclusive && l.pid == lock.pid;
            let before = same && l.end.checked_add(1) == Some(lock.start);
            let after = same && lock.end.checked_add(1) == Some(l.start);
            if before {
                lock.start = l.start;
            }
            if after {
                lock.end = l.end;
            }
            !before && !after
        });
        self.0.push(lock);
    }
}

impl LocalPlocks {
    /// Changes a file's locks, grants to those who wait what can be granted then, and tells everybody.
    fn change(&self, inode: BlockAddr, f: impl FnOnce(&mut File, &mut Vec<(LockDone, Result<()>)>)) {
        let mut told = Vec::new();
        let mut files = self.files.lock();
        let file = files.entry(inode).or_default();
        f(file, &mut told);
        // A grant can make room too, for those who came earlier: an exclusive lock becomes a shared one.
        while let Some(at) = file.waiting.iter().position(|(lock, _)| file.ranges.conflict(lock).is_none()) {
            let Some((lock, done)) = file.waiting.remove(at) else { break };
            file.ranges.put(lock);
            told.push((done, Ok(())));
        }
        if file.waiting.is_empty() && file.ranges.0.is_empty() {
            files.remove(&inode);
        }
        drop(files);
        for (done, result) in told {
            done(result);
        }
    }
}

impl Plocks for LocalPlocks {
    fn lock(&self, lock: Plock, wait: bool, done: LockDone) {
        self.change(lock.inode, |file, told| {
            if wait || file.ranges.conflict(&lock).is_none() {
                file.waiting.push_back((lock, done));
            } else {
                told.push((done, Err(Error::WouldBlock)));
            }
        });
    }

    fn cancel(&self, lock: Plock) {
        self.change(lock.inode, |file, told| {
            if let Some(at) = file.waiting.iter().position(|(l, _)| *l == lock) {
                told.extend(file.waiting.remove(at).map(|(_, done)| (done, Err(Error::Interrupted))));
            }
        });
    }

    fn unlock(&self, lock: Plock, done: LockDone) {
        self.change(lock.inode, |file, told| {
            file.ranges.cut(&lock);
            told.push((done, Ok(())));
        });
    }

    fn close(&self, inode: BlockAddr, owner: u64) {
        self.change(inode, |file, told| {
            file.ranges.0.retain(|l| l.owner != owner);
            let (gone, left) = file.waiting.drain(..).partition(|(l, _)| l.owner == owner);
            file.waiting = left;
            let gone: VecDeque<(Plock, LockDone)> = gone;
            told.extend(gone.into_iter().map(|(_, done)| (done, Err(Error::Interrupted))));
        });
    }

    fn get(&self, lock: Plock, found: Found) {
        let conflict = self.files.lock().get(&lock.inode).and_then(|file| file.ranges.conflict(&lock));
        found(Ok(conflict));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    fn lock(owner: u64, start: u64, end: u64, exclusive: bool) -> Plock {
        Plock { inode: BlockAddr::new(9).expect("not 0"), owner, pid: 1, start, end, exclusive }
    }

    fn ask(locks: &LocalPlocks, lock: Plock, wait: bool) -> Receiver<Result<()>> {
        let (send, receive) = channel();
        locks.lock(lock, wait, Box::new(move |result| send.send(result).expect("somebody listens")));
        receive
    }

    fn granted(answer: &Receiver<Result<()>>) -> Option<bool> {
        answer.try_recv().ok().map(|result| result.is_ok())
    }

    #[test]
    fn ranges_split_and_join() {
        let mut ranges = Ranges::default();
        ranges.put(lock(1, 0, 99, true));
        ranges.put(lock(1, 10, 19, false));
        ranges.cut(&lock(1, 50, 59, true));
        let mut seen: Vec<(u64, u64, bool)> = ranges.0.iter().map(|l| (l.start, l.end, l.exclusive)).collect();
        seen.sort_unstable();
        assert_eq!(seen, [(0, 9, true), (10, 19, false), (20, 49, true), (60, 99, true)]);
        ranges.put(lock(1, 50, 59, true));
        ranges.put(lock(1, 10, 19, true));
        assert_eq!(ranges.0, [lock(1, 0, 99, true)]);
        assert!(
            ranges.conflict(&lock(2, 99, 200, false)).is_some() && ranges.conflict(&lock(2, 100, 200, true)).is_none()
        );
    }

    /// Against a byte for each byte.
    #[test]
    fn ranges_are_what_a_byte_map_says() {
        let mut seed = 42_u64;
        let mut random = |n: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % n
        };
        let (mut ranges, mut map) = (Ranges::default(), [None::<bool>; 32]);
        for step in 0..2000 {
            let start = random(32);
            let l = lock(1, start, start + random(32 - start), random(2) == 1);
            let on = random(3) > 0;
            if on {
                ranges.put(l)
            } else {
                ranges.cut(&l)
            }
            map[l.start as usize..=l.end as usize].fill(on.then_some(l.exclusive));
            for (at, cell) in (0..).zip(&map) {
                let has = ranges.0.iter().find(|r| r.start <= at && at <= r.end).map(|r| r.exclusive);
                assert_eq!(has, *cell, "step {step}, byte {at}");
            }
        }
    }

    #[test]
    fn a_downgrade_lets_those_in_who_wait() {
        let locks = LocalPlocks::default();
        assert_eq!(granted(&ask(&locks, lock(1, 0, 9, true), true)), Some(true));
        let second = ask(&locks, lock(2, 5, 20, false), true);
        assert_eq!(granted(&ask(&locks, lock(1, 0, 9, false), true)), Some(true));
        assert_eq!(granted(&second), Some(true));
    }

    #[test]
    fn who_waits_is_told_when_it_is_free() {
        let locks = LocalPlocks::default();
        assert_eq!(granted(&ask(&locks, lock(1, 0, 9, true), true)), Some(true));
        let second = ask(&locks, lock(2, 5, 20, true), true);
        let third = ask(&locks, lock(3, 7, 7, false), true);
        assert_eq!(granted(&ask(&locks, lock(4, 0, 0, false), false)), Some(false));
        locks.cancel(lock(3, 7, 7, false));
        assert_eq!((granted(&second), granted(&third)), (None, Some(false)));
        locks.unlock(lock(1, 5, 9, true), Box::new(|_| {}));
        assert_eq!(granted(&second), Some(true));
        locks.get(
            lock(5, 0, 100, true),
            Box::new(|found| assert_eq!(found.expect("no error"), Some(lock(1, 0, 4, true)))),
        );
        locks.close(lock(1, 0, 0, true).inode, 1);
        locks.close(lock(1, 0, 0, true).inode, 2);
        assert!(locks.files.lock().is_empty());
    }
}
