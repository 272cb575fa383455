//! Threads of the machine, used again: most simulated threads live shorter than it takes to make one.

use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::Thread;

type Job = Box<dyn FnOnce() + Send>;

/// Those without work.
static IDLE: Mutex<Vec<(Sender<Job>, Thread)>> = Mutex::new(Vec::new());

fn idle() -> MutexGuard<'static, Vec<(Sender<Job>, Thread)>> {
    // A list: whole at every step.
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `job` on a thread; which one it is.
pub(super) fn run(mut job: Job) -> io::Result<Thread> {
    while let Some((sender, thread)) = idle().pop() {
        match sender.send(job) {
            Ok(()) => return Ok(thread),
            // It is no more.
            Err(back) => job = back.0,
        }
    }
    let (sender, jobs) = channel::<Job>();
    let work = move || {
        let mut job = job;
        loop {
            job();
            idle().push((sender.clone(), std::thread::current()));
            match jobs.recv() {
                Ok(next) => job = next,
                Err(_) => return,
            }
        }
    };
    let thread = std::thread::Builder::new().name("simulated".into()).stack_size(1 << 20).spawn(work)?;
    Ok(thread.thread().clone())
}
