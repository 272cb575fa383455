//! Threads, locks and time of a simulation: one seed, one order of events.
//!
//! Every simulated thread is a thread of the machine, but only one of them runs at a time: the one that has the *baton*. It hands
//! it on wherever it would wait, and now and then where it only could have to ([`pause`]); a generator that started from the
//! seed says to whom. Nothing else decides anything: time stands still while somebody can run, and jumps to the next deadline
//! when nobody can. So a seed repeats a run exactly, and [`Report::trace`] proves it.
//!
//! | file | what |
//! |---|---|
//! | `scheduler` | who has the baton; time; deadlocks; the trace |
//! | `locks` | [`Mutex`], [`RwLock`], [`Condvar`] |
//! | `threads` | [`thread`], [`Instant`] |
//! | `channel`, `map` | [`mpsc`], [`DashMap`] |
//!
//! # Why not `shuttle`
//!
//! Its condition variables never time out and it knows no clock, but half of what we wait for is time (retries, holding times,
//! timers of the log). And its threads share the thread-locals of one machine thread, which are where patience and open
//! transactions are kept. Threads of the machine with a baton need no unsafe code and no change of a line that waits.
//!
//! # What is not explored
//!
//! Atomics are not scheduling points: an order of two atomic operations in one stretch between locks is not torn apart. The
//! memory model is that of one processor.
//!
//! Outside a simulation (a test's own threads, `main`) everything here behaves as the real thing.

mod channel;
mod locks;
mod map;
mod scheduler;
mod threads;

pub use channel::mpsc;
pub use locks::{Condvar, Mutex, RwLock, WaitTimeoutResult};
pub use map::DashMap;
pub use scheduler::{Failure, Report, Settings, chance, is_simulated, note, now, pause, random, run, yield_here};
pub(crate) use scheduler::serial;
pub use threads::{Instant, thread};

#[cfg(test)]
mod tests;
