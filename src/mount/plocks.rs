//! fcntl(2) locks on a cluster mount: the filesystem's ranges of bytes are kept by the lock service, for all nodes.

use crate::error::{Error, Result};
use crate::fs::LockDone;
use crate::fs::plock::{Found, Plock, Plocks};
use crate::ids::BlockAddr;
use lockclient::node::space::LockSpace;
use lockclient::plock::order::PlockAsk;
use lockclient::plock::{PlockAnswer, PlockOp};
use std::io;
use std::sync::Arc;

/// The byte-range locks of the lockspace.
pub(super) struct ClusterPlocks(pub(super) LockSpace);

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
    fn lock(&self, lock: Plock, wait: bool, done: LockDone) {
        self.0.plock(ask(PlockOp::Lock, &lock, wait), Box::new(move |answer| done(result(answer))));
    }

    fn cancel(&self, lock: Plock) {
        if let Some(handle) = self.0.plock_find(&ask(PlockOp::Lock, &lock, true)) {
            self.0.plock_cancel(handle);
        }
    }

    fn unlock(&self, lock: Plock, done: LockDone) {
        self.0.plock(ask(PlockOp::Unlock, &lock, false), Box::new(move |answer| done(result(answer))));
    }

    fn close(&self, inode: BlockAddr, owner: u64) {
        self.0.plock_close(inode.get(), owner);
    }

    fn get(&self, lock: Plock, found: Found) {
        let own = self.0.node();
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
        self.0.plock(ask(PlockOp::Get, &lock, false), Box::new(answered));
    }
}
