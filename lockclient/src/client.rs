//! Locks for programs that want to wait for them, asynchronously or in a thread of their own. Programs with a state
//! machine per lock use [`LockSpace`] and [`LockClient`] directly.
//!
//! ```no_run
//! # async fn example(node: lockclient::node::Node) -> Result<(), Box<dyn std::error::Error>> {
//! use lockclient::client::Locks;
//! use lockclient::mode::Mode;
//! let locks = Locks::join(&node, "demo", |notice| println!("someone wants {:?}", notice.mode)).await?;
//! let mut lock = locks.lock(b"printer", Mode::Ex).await?;
//! locks.convert(&mut lock, Mode::Pr).await?;
//! locks.unlock(lock).await?;
//! # Ok(()) }
//! ```

use crate::flags::LockFlags;
use crate::ids::LockId;
use crate::mode::Mode;
use crate::node::space::{Completion, LockClient, LockRequest, LockSpace, Progress, Prompt};
use crate::node::{JoinError, Node};
use crate::status::{Refusal, Status};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use tokio::sync::oneshot;

/// Why there is no lock.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LockError {
    /// The call was refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The operation ended without success.
    #[error("the operation ended as {0:?}")]
    Failed(Status),
}

/// A lock that is held.
#[derive(Debug, PartialEq, Eq)]
pub struct Held {
    /// Its id.
    pub lock: LockId,
    /// The mode held.
    pub mode: Option<Mode>,
    token: u64,
}

/// Someone is blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notice {
    /// By this lock.
    pub lock: LockId,
    /// And wants this.
    pub mode: Mode,
}

type Answer = Result<Completion, Refusal>;

struct Waiter {
    answer: oneshot::Sender<Answer>,
    /// A lock that is granted to nobody is given back.
    new: bool,
}

#[derive(Default)]
struct Waiting {
    by_token: HashMap<u64, Waiter>,
    /// Calls queued during recovery.
    queued: HashMap<u64, u64>,
}

/// Receives the callbacks and hands them to whoever waits.
struct Desk {
    waiting: Mutex<Waiting>,
    space: OnceLock<LockSpace>,
    on_notice: Box<dyn Fn(Notice) + Send + Sync>,
}

impl Desk {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Maps that stay consistent at every step.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LockClient for Desk {
    /// Waking whoever waits does not wait; of what is done on a notice nothing is known.
    fn prompt(&self) -> Prompt {
        Prompt::Completions
    }

    fn completed(&self, token: u64, completion: Completion) {
        let waiter = self.waiting().by_token.remove(&token);
        let (granted, lock) = (completion.status == Status::Granted, completion.lock);
        let unwanted = match waiter {
            Some(waiter) => waiter.answer.send(Ok(completion)).is_err() && waiter.new,
            None => false,
        };
        if let (true, true, Some(space)) = (unwanted, granted, self.space.get())
            && let Err(error) = space.unlock(lock, LockFlags::FORCEUNLOCK, None)
        {
            tracing::debug!(?lock, %error, "a lock that nobody wants any more is gone already");
        }
    }

    fn blocking(&self, _token: u64, lock: LockId, mode: Mode) {
        (self.on_notice)(Notice { lock, mode });
    }

    fn ended(&self) {
        // Whoever waits learns it from the answer that will not come.
        *self.waiting() = Waiting::default();
    }

    fn refused(&self, call: u64, why: Refusal) {
        let mut waiting = self.waiting();
        let waiter = waiting.queued.remove(&call).and_then(|token| waiting.by_token.remove(&token));
        if let Some(waiter) = waiter {
            // Whoever asked may have stopped waiting.
            let _gone = waiter.answer.send(Err(why));
        }
    }
}

/// A lockspace in which one waits for locks.
#[derive(Clone)]
pub struct Locks {
    space: LockSpace,
    desk: Arc<Desk>,
    tokens: Arc<AtomicU64>,
}

/// An operation that has ended or will.
enum Outcome {
    Now(Answer),
    /// Of this lock, unless the call itself is queued.
    Later(oneshot::Receiver<Answer>, Option<LockId>),
}

/// Gives up a request that nobody waits for any more, so that it does not stand in the way of others.
struct GiveUp<'a> {
    space: &'a LockSpace,
    lock: Option<LockId>,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        if let Some(lock) = self.lock
            && let Err(error) = self.space.unlock(lock, LockFlags::FORCEUNLOCK, None)
        {
            tracing::debug!(?lock, %error, "a lock that nobody wants any more is gone already");
        }
    }
}

impl Locks {
    /// Enters a lockspace. `on_notice` is called for every lock that stands in someone's way.
    pub async fn join(
        node: &Node,
        name: &str,
        on_notice: impl Fn(Notice) + Send + Sync + 'static,
    ) -> Result<Locks, JoinError> {
        let on_notice = Box::new(on_notice);
        let desk = Arc::new(Desk { waiting: Mutex::default(), space: OnceLock::new(), on_notice });
        let space = node.join(name, desk.clone(), |_| {}).await?;
        // Set once, here.
        let _first = desk.space.set(space.clone());
        Ok(Locks { space, desk, tokens: Arc::new(AtomicU64::new(1)) })
    }

    /// The lockspace itself.
    pub fn space(&self) -> &LockSpace {
        &self.space
    }

    /// Begins an operation. The desk is closed meanwhile, so that no answer comes before the question is noted.
    fn begin(&self, token: u64, new: bool, call: impl FnOnce(&LockSpace) -> Result<Progress, Refusal>) -> Outcome {
        let mut waiting = self.desk.waiting();
        let progress = match call(&self.space) {
            Err(why) => return Outcome::Now(Err(why)),
            Ok(Progress::Done(completion)) => return Outcome::Now(Ok(completion)),
            Ok(progress) => progress,
        };
        let (answer, later) = oneshot::channel();
        waiting.by_token.insert(token, Waiter { answer, new });
        let lock = match progress {
            Progress::Pending(lock) => Some(lock),
            Progress::Queued(call) => {
                waiting.queued.insert(call, token);
                None
            }
            Progress::Done(_) => None,
        };
        if self.space.has_ended() {
            // Too late for `ended` to see it.
            waiting.by_token.remove(&token);
        }
        Outcome::Later(later, lock)
    }

    fn begin_lock(&self, name: &[u8], mode: Mode, flags: LockFlags) -> (u64, Outcome) {
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        let lvb = flags.contains(LockFlags::VALBLK).then(|| vec![0; 32].into());
        let request = LockRequest { token, name, mode, flags, lvb, wants_notices: true, uses_lost_value: false };
        (token, self.begin(token, true, |space| space.request(request)))
    }

    /// A lock on a resource; waits until it is granted. When the future is dropped, the lock is given back.
    pub async fn lock(&self, name: &[u8], mode: Mode) -> Result<Held, LockError> {
        self.lock_with(name, mode, LockFlags::empty()).await
    }

    /// As [`Locks::lock`], with flags.
    pub async fn lock_with(&self, name: &[u8], mode: Mode, flags: LockFlags) -> Result<Held, LockError> {
        let (token, outcome) = self.begin_lock(name, mode, flags);
        let lock = if let Outcome::Later(_, lock) = &outcome { *lock } else { None };
        let mut give_up = GiveUp { space: &self.space, lock };
        let answer = wait(outcome).await;
        give_up.lock = None;
        held(token, answer)
    }

    /// As [`Locks::lock_with`], in the calling thread (which must not be one that runs asynchronous tasks).
    pub fn lock_blocking(&self, name: &[u8], mode: Mode, flags: LockFlags) -> Result<Held, LockError> {
        let (token, outcome) = self.begin_lock(name, mode, flags);
        held(token, wait_blocking(outcome))
    }

    /// Another mode for a lock; waits until it is granted.
    pub async fn convert(&self, lock: &mut Held, mode: Mode) -> Result<Completion, LockError> {
        self.convert_with(lock, mode, LockFlags::empty(), None).await
    }

    /// As [`Locks::convert`], with flags and a value to write.
    pub async fn convert_with(
        &self,
        lock: &mut Held,
        mode: Mode,
        flags: LockFlags,
        lvb: Option<Box<[u8]>>,
    ) -> Result<Completion, LockError> {
        let outcome = self.begin(lock.token, false, |space| space.convert(lock.lock, mode, flags, lvb));
        converted(lock, wait(outcome).await)
    }

    /// As [`Locks::convert_with`], in the calling thread.
    pub fn convert_blocking(
        &self,
        lock: &mut Held,
        mode: Mode,
        flags: LockFlags,
        lvb: Option<Box<[u8]>>,
    ) -> Result<Completion, LockError> {
        let outcome = self.begin(lock.token, false, |space| space.convert(lock.lock, mode, flags, lvb));
        converted(lock, wait_blocking(outcome))
    }

    /// Gives a lock up.
    pub async fn unlock(&self, lock: Held) -> Result<(), LockError> {
        let outcome = self.begin(lock.token, false, |space| space.unlock(lock.lock, LockFlags::empty(), None));
        wait(outcome).await.map(|_| ()).map_err(LockError::from)
    }

    /// As [`Locks::unlock`], in the calling thread.
    pub fn unlock_blocking(&self, lock: Held) -> Result<(), LockError> {
        let outcome = self.begin(lock.token, false, |space| space.unlock(lock.lock, LockFlags::empty(), None));
        wait_blocking(outcome).map(|_| ()).map_err(LockError::from)
    }
}

async fn wait(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Now(answer) => answer,
        // The desk is gone with the lockspace.
        Outcome::Later(later, _) => later.await.unwrap_or(Err(Refusal::NoDevice)),
    }
}

fn wait_blocking(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Now(answer) => answer,
        Outcome::Later(later, _) => later.blocking_recv().unwrap_or(Err(Refusal::NoDevice)),
    }
}

fn held(token: u64, answer: Answer) -> Result<Held, LockError> {
    let completion = answer?;
    match completion.status {
        Status::Granted => Ok(Held { lock: completion.lock, mode: completion.mode, token }),
        status => Err(LockError::Failed(status)),
    }
}

fn converted(lock: &mut Held, answer: Answer) -> Result<Completion, LockError> {
    let completion = answer?;
    lock.mode = completion.mode;
    match completion.status {
        Status::Granted => Ok(completion),
        status => Err(LockError::Failed(status)),
    }
}
