//! Many runs, some of them chosen by a seed; all that fail are reported together. A run that hangs ends the program.

use crate::act::Check;
use crate::ops::Rng;
use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// Longest time that one run may take, on the busiest of machines.
const HANGS: Duration = Duration::from_secs(240);
/// Failures that are reported in full.
const REPORTED: usize = 30;

static NOW_RUNNING: Mutex<BTreeMap<String, (Instant, String)>> = Mutex::new(BTreeMap::new());
static WATCH: Once = Once::new();

/// The full product instead of a sample: `FAULTS=full`.
pub(crate) fn full() -> bool {
    std::env::var_os("FAULTS").is_some_and(|v| v == "full")
}

/// A panic's words.
pub(crate) fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without words").to_owned()
}

/// Runs things and keeps what failed.
pub(crate) struct Runner {
    name: String,
    pub seed: u64,
    pub rng: Rng,
    runs: u64,
    failures: Vec<String>,
    /// Things worth telling: how often each was seen.
    pub seen: BTreeMap<String, u64>,
}

impl Runner {
    pub(crate) fn new(name: &str) -> Self {
        WATCH.call_once(|| drop(std::thread::spawn(watch)));
        let seed = crate::ops::seed(name);
        let (runs, failures, seen) = (0, Vec::new(), BTreeMap::new());
        Self { name: name.into(), seed, rng: Rng::new(seed), runs, failures, seen }
    }

    /// One run. `None` when it failed.
    pub(crate) fn run<T>(&mut self, what: &str, f: impl FnOnce(&mut Self) -> Check<T>) -> Option<T> {
        let key = thread(std::thread::current().id());
        running().insert(key.clone(), (Instant::now(), format!("{}: {what}", self.name)));
        self.runs += 1;
        let result =
            catch_unwind(AssertUnwindSafe(|| f(self))).unwrap_or_else(|p| Err(format!("panic: {}", words(&*p))));
        running().remove(&key);
        result.map_err(|why| self.failures.push(format!("{what}: {why}"))).ok()
    }

    /// Some of `0..n`, the last always; all of them when all are wanted.
    pub(crate) fn some(&mut self, n: u64, at_most: u64) -> Vec<u64> {
        if full() || n <= at_most {
            return (0..n).collect();
        }
        let mut chosen = vec![n - 1];
        while (chosen.len() as u64) < at_most {
            chosen.push(self.rng.below(n));
        }
        chosen.sort_unstable();
        chosen.dedup();
        chosen
    }

    pub(crate) fn saw(&mut self, what: impl Into<String>) {
        *self.seen.entry(what.into()).or_default() += 1;
    }

    /// Fails when something has failed.
    pub(crate) fn finish(self) {
        println!("{}: {} runs, {} failed, SEED={}", self.name, self.runs, self.failures.len(), self.seed);
        for (what, times) in &self.seen {
            println!("  {times:5} {what}");
        }
        let some: Vec<&str> = self.failures.iter().take(REPORTED).map(String::as_str).collect();
        assert!(some.is_empty(), "{} SEED={}:\n{}", self.name, self.seed, some.join("\n"));
    }
}

fn running() -> std::sync::MutexGuard<'static, BTreeMap<String, (Instant, String)>> {
    NOW_RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

fn thread(id: ThreadId) -> String {
    format!("{id:?}")
}

/// Ends the program when a run does not end.
fn watch() {
    loop {
        std::thread::sleep(Duration::from_secs(5));
        let hangs = running().values().find(|(since, _)| since.elapsed() > HANGS).map(|(_, what)| what.clone());
        if let Some(what) = hangs {
            eprintln!("HANGS: {what}");
            std::process::exit(101);
        }
    }
}
