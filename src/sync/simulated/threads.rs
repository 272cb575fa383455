//! Threads and time.

use super::scheduler::me;
use std::ops::{Add, AddAssign, Sub};
use std::sync::OnceLock;
use std::time::Duration;

/// A moment: of the simulation, or, outside one, since the first look at the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(Duration);

impl Instant {
    /// Now.
    pub fn now() -> Self {
        static BEGIN: OnceLock<std::time::Instant> = OnceLock::new();
        match super::now() {
            Some(now) => Self(Duration::from_nanos(now)),
            None => Self(BEGIN.get_or_init(std::time::Instant::now).elapsed()),
        }
    }
    /// How long ago it was.
    pub fn elapsed(&self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
    /// The time from `earlier` to here; zero if that is later.
    pub fn saturating_duration_since(&self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
    /// The same.
    pub fn duration_since(&self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}
impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, time: Duration) {
        *self = *self + time;
    }
}
impl Sub<Instant> for Instant {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

/// As `std::thread`.
pub mod thread {
    use super::super::scheduler::{Scheduler, me as myself};
    use super::{Duration, me};
    use std::io;
    use std::sync::{Arc, Mutex, PoisonError};
    pub use std::thread::{panicking, scope};

    /// A handle on a thread.
    #[derive(Clone)]
    pub struct Thread {
        simulated: Option<(Arc<Scheduler>, usize)>,
        real: std::thread::Thread,
        name: Option<String>,
    }

    /// Which thread it is.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum ThreadId {
        /// One of the simulation.
        Simulated(usize),
        /// Another one.
        Real(std::thread::ThreadId),
    }

    impl Thread {
        /// Which it is.
        pub fn id(&self) -> ThreadId {
            self.simulated.as_ref().map_or(ThreadId::Real(self.real.id()), |(_, n)| ThreadId::Simulated(*n))
        }
        /// Its name.
        pub fn name(&self) -> Option<&str> {
            self.name.as_deref()
        }
        /// Ends its [`park`].
        pub fn unpark(&self) {
            match &self.simulated {
                Some((scheduler, n)) => scheduler.unpark(*n),
                None => self.real.unpark(),
            }
        }
    }

    /// This thread.
    pub fn current() -> Thread {
        let (simulated, real) = (me(), std::thread::current());
        let name = match &simulated {
            Some((scheduler, n)) => Some(scheduler.name_of(*n)),
            None => real.name().map(str::to_owned),
        };
        Thread { simulated, real, name }
    }
    /// Waits for [`Thread::unpark`].
    pub fn park() {
        match myself() {
            Some((scheduler, n)) => scheduler.park(n, None),
            None => std::thread::park(),
        }
    }
    /// The same, for a while at most.
    pub fn park_timeout(time: Duration) {
        match myself() {
            Some((scheduler, n)) => {
                let deadline = scheduler.after(time);
                scheduler.park(n, Some(deadline));
            }
            None => std::thread::park_timeout(time),
        }
    }
    /// Lets time pass.
    pub fn sleep(time: Duration) {
        match myself() {
            Some((scheduler, n)) => {
                let deadline = scheduler.after(time);
                scheduler.block(n, Some(deadline));
            }
            None => std::thread::sleep(time),
        }
    }
    /// Lets others run.
    pub fn yield_now() {
        if myself().is_some() { super::super::yield_here() } else { std::thread::yield_now() }
    }

    /// How a thread is made.
    #[derive(Default)]
    pub struct Builder(Option<String>);

    impl Builder {
        /// A thread like any other.
        pub fn new() -> Self {
            Self::default()
        }
        /// With a name.
        #[must_use]
        pub fn name(self, name: String) -> Self {
            Self(Some(name))
        }
        /// Starts it.
        pub fn spawn<T: Send + 'static>(self, body: impl FnOnce() -> T + Send + 'static) -> io::Result<JoinHandle<T>> {
            let result = Arc::new(Mutex::new(None));
            let Some((scheduler, _)) = myself() else {
                let builder = self.0.map_or_else(std::thread::Builder::new, |n| std::thread::Builder::new().name(n));
                return builder.spawn(body).map(|handle| JoinHandle {
                    thread: Thread { simulated: None, real: handle.thread().clone(), name: None },
                    result,
                    real: Some(handle),
                });
            };
            let (name, theirs) = (self.0.unwrap_or_default(), Arc::clone(&result));
            let n = scheduler.start(name.clone(), move || {
                let value = body();
                *theirs.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
            })?;
            let thread = Thread { simulated: Some((scheduler, n)), real: std::thread::current(), name: Some(name) };
            Ok(JoinHandle { thread, result, real: None })
        }
    }

    /// Starts a thread.
    pub fn spawn<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        Builder::new().spawn(body).unwrap_or_else(|e| panic!("no thread: {e}"))
    }

    /// A thread that can be waited for.
    pub struct JoinHandle<T> {
        thread: Thread,
        result: Arc<Mutex<Option<T>>>,
        real: Option<std::thread::JoinHandle<T>>,
    }

    impl<T> JoinHandle<T> {
        /// The thread.
        pub fn thread(&self) -> &Thread {
            &self.thread
        }
        /// Has it ended?
        pub fn is_finished(&self) -> bool {
            match (&self.real, &self.thread.simulated) {
                (Some(real), _) => real.is_finished(),
                (None, Some((scheduler, n))) => scheduler.is_done(*n),
                (None, None) => true,
            }
        }
        /// Waits for its end.
        pub fn join(self) -> std::thread::Result<T> {
            if let Some(real) = self.real {
                return real.join();
            }
            if let (Some((scheduler, n)), Some((_, me))) = (&self.thread.simulated, myself()) {
                scheduler.join(me, *n);
            }
            let result = self.result.lock().unwrap_or_else(PoisonError::into_inner).take();
            result.ok_or_else(|| Box::new("it has not ended") as Box<dyn std::any::Any + Send>)
        }
    }
}
