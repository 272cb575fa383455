//! Who reads next.
//!
//! Every thread that sleeps in read(2) on /dev/fuse is woken in turn, and each takes its memory and its place on a processor
//! along; so only few do. One that must wait for the disk gives its turn away, and takes one again when it is done.

use crate::sync::{Condvar, Mutex};
use std::cell::Cell;

thread_local! {
    /// This thread may read.
    static MINE: Cell<bool> = const { Cell::new(false) };
}

/// The turns that nobody has.
pub(super) struct Turns {
    free: Mutex<usize>,
    given: Condvar,
}

impl Turns {
    /// So many threads read at the same time.
    pub(super) fn new(turns: usize) -> Self {
        Self { free: Mutex::new(turns), given: Condvar::new() }
    }

    /// Waits for a turn, unless this thread has one.
    pub(super) fn take(&self) {
        if MINE.get() {
            return;
        }
        let mut free = self.free.lock();
        while *free == 0 {
            self.given.wait(&mut free);
        }
        *free -= 1;
        MINE.set(true);
    }

    /// Gives this thread's turn to another, if it has one.
    pub(super) fn give(&self) {
        if MINE.replace(false) {
            *self.free.lock() += 1;
            self.given.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn never_more_than_there_are_and_none_is_lost() {
        let (turns, at_once, done) = (Turns::new(2), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for n in 0..500 {
                        turns.take();
                        turns.take();
                        assert!(at_once.fetch_add(1, Ordering::AcqRel) < 2);
                        if n % 7 == 0 {
                            std::thread::yield_now();
                        }
                        at_once.fetch_sub(1, Ordering::AcqRel);
                        done.fetch_add(1, Ordering::AcqRel);
                        turns.give();
                        turns.give();
                    }
                });
            }
        });
        assert_eq!((done.into_inner(), turns.free.into_inner()), (4000, 2));
    }
}
