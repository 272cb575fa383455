//! Inode locks that the mount itself takes, beside the glocks: for a moment while it reads the system files, for good where
//! other nodes shall know that a file is ours (ondisk.md 10.2).

use crate::error::{Error, Result};
use crate::glock::{Answer, LockClient, LockManager, LockState, Lvb, Reply, Request};
use crate::ids::{BlockAddr, LockName};
use crate::sync::{Condvar, Instant, Mutex};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Longest time that giving a lock back is waited for.
const GIVING_BACK: Duration = Duration::from_secs(5);

/// Waits for the answer to one request at a time. Somebody who wants the lock waits until it is given back.
#[derive(Default)]
struct Waiter {
    reply: Mutex<Option<Reply>>,
    answered: Condvar,
}

impl LockClient for Waiter {
    fn completed(self: Arc<Self>, reply: Reply, _lvb: Option<Lvb>) {
        *self.reply.lock() = Some(reply);
        self.answered.notify_all();
    }
    fn blocking(self: Arc<Self>, _ceiling: LockState) {}
}

/// A lock that is held until this is dropped.
pub(super) struct Held {
    manager: Arc<dyn LockManager>,
    name: LockName,
    state: LockState,
    waiter: Arc<Waiter>,
}

impl Held {
    /// Waits for the lock.
    pub(super) fn take(manager: &Arc<dyn LockManager>, name: LockName, state: LockState) -> Result<Self> {
        let waiter = Arc::new(Waiter::default());
        let mut held = Self { manager: Arc::clone(manager), name, state: LockState::Unlocked, waiter };
        match held.ask(state, None) {
            Some(Reply::Granted) => {
                held.state = state;
                Ok(held)
            }
            _ => Err(Error::Io(Arc::new(std::io::Error::other("the lock service failed")))),
        }
    }

    /// Asks for another state and waits for the answer, at most until `until`.
    fn ask(&self, to: LockState, until: Option<Instant>) -> Option<Reply> {
        let client: Arc<dyn LockClient> = Arc::<Waiter>::clone(&self.waiter);
        let request = Request { from: self.state, to, no_queue: false, lvb: None };
        if let Answer::Done(reply, _) = self.manager.request(self.name, request, &client) {
            return Some(reply);
        }
        let mut reply = self.waiter.reply.lock();
        while reply.is_none() {
            match until {
                None => self.waiter.answered.wait(&mut reply),
                Some(until) => {
                    if self.waiter.answered.wait_until(&mut reply, until).timed_out() {
                        return None;
                    }
                }
            }
        }
        reply.take()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.state != LockState::Unlocked
            && self.ask(LockState::Unlocked, Some(Instant::now() + GIVING_BACK)).is_none()
        {
            tracing::warn!("lock {} could not be given back", self.name);
            return;
        }
        self.manager.release(self.name);
    }
}

/// Locks of system files, by the addresses of their dinodes. Where nobody else can want one, none is taken.
pub(super) struct Locks {
    manager: Arc<dyn LockManager>,
    held: Mutex<BTreeMap<BlockAddr, Held>>,
}

impl Locks {
    pub(super) fn new(manager: Arc<dyn LockManager>) -> Self {
        Self { manager, held: Mutex::default() }
    }
    /// True where other nodes may want these locks.
    pub(super) fn is_shared(&self) -> bool {
        self.manager.is_shared()
    }
    /// Holds the lock of the inode at `addr`, if it is not held already.
    pub(super) fn hold(&self, addr: BlockAddr, state: LockState) -> Result<()> {
        let mut held = self.held.lock();
        if !self.manager.is_shared() || held.contains_key(&addr) {
            return Ok(());
        }
        held.insert(addr, Held::take(&self.manager, LockName::inode(addr), state)?);
        Ok(())
    }
    /// Gives back all but these.
    pub(super) fn keep(&self, kept: &[BlockAddr]) {
        let given_back: Vec<Held> = {
            let mut held = self.held.lock();
            let others: Vec<BlockAddr> = held.keys().filter(|addr| !kept.contains(addr)).copied().collect();
            others.iter().filter_map(|addr| held.remove(addr)).collect()
        };
        drop(given_back);
    }
}
