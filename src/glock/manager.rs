//! The border to whoever grants locks: nobody else on a single node, the cluster's lock service elsewhere.

use super::machine::Reply;
use super::mode::LockState;
use crate::ids::LockName;
use std::sync::Arc;

/// The 32 bytes that travel with a lock (ondisk.md 10.1). All zero when nobody has set them or they were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lvb(pub [u8; 32]);

/// A change of one lock's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What we hold now.
    pub from: LockState,
    /// What is wanted.
    pub to: LockState,
    /// Answer [`Reply::Refused`] rather than wait for other nodes (they are still told that somebody wants the lock).
    pub no_queue: bool,
    /// The kind of lock has a value block. Leaving EX writes this one; a granted change upward brings the present one back.
    pub lvb: Option<Lvb>,
}

/// How a request was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done, with this value block if there is one to tell.
    Done(Reply, Option<Lvb>),
    /// [`LockClient::completed`] will be called once, from another thread.
    Pending,
}

/// The glock, as the lock manager sees it.
pub trait LockClient: Send + Sync {
    /// A pending request ended. Does not wait for anything but short mutexes.
    fn completed(self: Arc<Self>, reply: Reply, lvb: Option<Lvb>);
    /// Another node waits for us to hold no more than `ceiling` (the bast). May come at any time, also again and also late.
    fn blocking(self: Arc<Self>, ceiling: LockState);
}

/// Grants cluster locks.
///
/// There is at most one request per lock at a time. No method waits, and none calls the client before it has returned: it is
/// called with the glock's mutex held. A lock manager that wants to send `blocking` keeps a `Weak` of the client it was last
/// given for the name.
pub trait LockManager: Send + Sync {
    /// Asks for another state. Going down is granted always.
    fn request(&self, name: LockName, request: Request, client: &Arc<dyn LockClient>) -> Answer;
    /// Takes the pending request of this lock back. It still completes exactly once: `Refused`, or `Granted` if it was too
    /// late.
    fn cancel(&self, name: LockName);
    /// The lock is unlocked and will not be used for now: forget everything about it.
    fn release(&self, name: LockName);
    /// False when nobody else can want these locks, so that nothing need be synced or forgotten before one is dropped.
    fn is_shared(&self) -> bool;
    /// False while others may have declared this node dead and gone on without it: nothing may be written then. Cheap, and to be
    /// asked before each write.
    fn is_trusted(&self) -> bool {
        true
    }
    /// These locks will probably be asked for soon by this node, and by no other; with each, whether its kind has a value block.
    fn prepare(&self, _names: &[(LockName, bool)]) {}
    /// This lock is needed to replay the journal of a dead node: it is granted even while other locks are held back until that
    /// is done. To be said once of each journal's inode, and of whatever else a replay locks.
    fn serves_recovery(&self, _name: LockName) {}
}

/// The lock manager of a single node (`lock_nolock`): everything is granted at once.
#[derive(Debug, Default)]
pub struct Nolock;

impl LockManager for Nolock {
    fn request(&self, _name: LockName, _request: Request, _client: &Arc<dyn LockClient>) -> Answer {
        Answer::Done(Reply::Granted, None)
    }
    fn cancel(&self, _name: LockName) {}
    fn release(&self, _name: LockName) {}
    fn is_shared(&self) -> bool {
        false
    }
}
