//! fcntl(2) locks on a cluster mount: the filesystem's ranges of bytes are kept by the lock service, for all nodes.

use crate::error::{Error, Result};
use crate::fs::LockDone;
use crate::fs::plock::{Found, Plock, Plocks};
use crate::ids::BlockAddr;
use crate::sync::Mutex;
use lockclient::node::plocks::PlockHandle;
use lockclient::node::space::LockSpace;
use lockclient::plock::order::PlockAsk;
use lockclient::plock::{PlockAnswer, PlockOp};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// The byte-range locks of the lockspace.
pub(super) struct ClusterPlocks {
    space: LockSpace,
    /// Requests that have not ended, by their tickets; without a handle as long as they are being made.
    waiting: Arc<Mutex<HashMap<u64, Option<PlockHandle>>>>,
}

impl ClusterPlocks {
    pub(super) fn new(space: LockSpace) -> Self {
        Self { space, waiting: Arc::default() }
    }
}

fn ask(op: PlockOp, lock: &Plock, wait: bool) -> PlockAsk {
    let Plock { inode, owner, pid, start, end, exclusive } = *lock;
    PlockAsk { op, exclusive, wait, pid, number: inode.get(), start, end, owner }
}

fn result(answer: PlockAnswer) -> Result<()> {
    match answer {
        // Nothing was locked there.
        PlockAnswer::Done | PlockAnswer::NoEntry => Ok(()),
        PlockAnswer::Again | PlockAnswer::Conflict(_) => Err(Error::WouldBlock),
        PlockAnswer::Interrupted => Err(Error::Interrupted),
        PlockAnswer::NoLocks => Err(Error::NoLocks),
        PlockAnswer::Gone => Err(Error::Io(Arc::new(io::Error::other("the cluster has gone on without this node")))),
    }
}

impl Plocks for ClusterPlocks {
    fn lock(&self, lock: Plock, ticket: u64, wait: bool, done: LockDone) {
        self.waiting.lock().insert(ticket, None);
        let waiting = Arc::clone(&self.waiting);
        let ended = move |answer| {
            waiting.lock().remove(&ticket);
            done(result(answer));
        };
        let handle = self.space.plock(ask(PlockOp::Lock, &lock, wait), Box::new(ended));
        if let Some(made) = self.waiting.lock().get_mut(&ticket) {
            *made = Some(handle);
        }
    }

    fn cancel(&self, _: BlockAddr, ticket: u64) {
        let handle = self.waiting.lock().get(&ticket).copied().flatten();
        if let Some(handle) = handle {
            self.space.plock_cancel(handle);
        }
    }

    fn unlock(&self, lock: Plock, done: LockDone) {
        self.space.plock(ask(PlockOp::Unlock, &lock, false), Box::new(move |answer| done(result(answer))));
    }

    fn close(&self, inode: BlockAddr, owner: u64) {
        self.space.plock_close(inode.get(), owner);
    }

    fn get(&self, lock: Plock, found: Found) {
        let own = self.space.node();
        let answered = move |answer| {
            found(match answer {
                PlockAnswer::Conflict(held) => {
                    // A process of another node: by a negative number, which is none of ours.
                    let pid = if held.node == own { held.pid } else { held.pid.wrapping_neg() };
                    let (start, end, exclusive) = (held.start, held.end, held.exclusive);
                    Ok(Some(Plock { inode: lock.inode, owner: held.owner, pid, start, end, exclusive }))
                }
                other => result(other).map(|()| None),
            });
        };
        self.space.plock(ask(PlockOp::Get, &lock, false), Box::new(answered));
    }
}
