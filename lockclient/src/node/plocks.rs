//! Byte-range locks of a lockspace, as its client sees them: [`Order`] driven by the lockspace's rounds.
//!
//! A round begins when recovery is complete and ends with the stop. The machine has a lock of its own, which is taken
//! after the engine's where both are needed, and never held while a client is called or anything is waited for.

#[cfg(test)]
mod tests;

use super::links::Said;
use super::space::{Callback, LockSpace, Shared};
use crate::frame::Frame;
use crate::ids::NodeId;
use crate::plock::order::{Order, OrderEffect, OrderFrame, PlockAsk};
use crate::plock::{PlockAnswer, PlockFile};
use crate::recovery::Start;
use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

/// A request that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PlockHandle(u64);

/// Who is told how a request ended: once, whatever happens.
pub(crate) struct Done(Option<Box<dyn FnOnce(PlockAnswer) + Send>>);

impl Done {
    pub(crate) fn tell(mut self, answer: PlockAnswer) {
        if let Some(done) = self.0.take() {
            done(answer);
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(done) = self.0.take() {
            done(PlockAnswer::Gone);
        }
    }
}

/// The machine, and who waits for it.
pub(crate) struct Plocks {
    order: Order,
    waiting: BTreeMap<u64, Done>,
    /// The round that begins when recovery is complete.
    round: Option<(u64, Vec<NodeId>)>,
    ended: bool,
}

impl Plocks {
    pub(crate) fn new(node: NodeId, life: u64) -> Plocks {
        Plocks { order: Order::new(node, life), waiting: BTreeMap::new(), round: None, ended: false }
    }
}

impl Shared {
    /// A panic elsewhere does not make the machine's own state wrong: it never calls out while it is locked.
    fn plocks(&self) -> MutexGuard<'_, Plocks> {
        self.plocks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happens to the machine. Frames leave in their order, while it is locked; clients are told afterwards,
    /// by the callback thread.
    fn drive(&self, said: &mut Said, act: impl FnOnce(&mut Order)) {
        let mut plocks = self.plocks();
        act(&mut plocks.order);
        let told = self.pass_on_plocks(&mut plocks, said);
        drop(plocks);
        self.tell_plocks(told);
    }

    /// As [`Shared::drive`], for a client.
    fn drive_now(&self, act: impl FnOnce(&mut Order)) {
        let mut said = Said::default();
        self.drive(&mut said, act);
        self.links.flush(said);
    }

    fn pass_on_plocks(&self, plocks: &mut Plocks, said: &mut Said) -> Vec<(u64, Option<Done>, PlockAnswer)> {
        let mut told = Vec::new();
        while let Some(effect) = plocks.order.next_effect() {
            match effect {
                OrderEffect::Send { to, frame } => {
                    self.links.send(self.id(), to, Frame::Plock(Box::new(frame)), said);
                }
                OrderEffect::Answer(local, answer) => told.push((local, plocks.waiting.remove(&local), answer)),
            }
        }
        told
    }

    fn tell_plocks(&self, told: Vec<(u64, Option<Done>, PlockAnswer)>) {
        for (_, done, answer) in told {
            if let Some(done) = done {
                self.callback(Callback::Plock(done, answer));
            }
        }
    }

    pub(super) fn plock_frame(&self, from: NodeId, frame: OrderFrame, wanted: &dyn Fn() -> bool, said: &mut Said) {
        self.drive(said, |order| {
            if wanted() {
                order.receive(from, frame);
            }
        });
    }

    pub(super) fn plock_stop(&self, said: &mut Said) {
        self.drive(said, Order::stop);
    }

    /// The members of the round that follows this recovery.
    pub(crate) fn plock_prepare(&self, start: &Start) {
        self.plocks().round = Some((start.round, start.members.iter().map(|member| member.node).collect()));
    }

    /// Recovery is complete.
    pub(super) fn plock_start(&self, said: &mut Said) {
        let round = self.plocks().round.take();
        if let Some((round, members)) = round {
            self.drive(said, |order| order.start(round, members));
        }
    }

    /// The lockspace has ended: so have all requests.
    pub(crate) fn plock_end(&self) {
        let waiting = {
            let mut plocks = self.plocks();
            plocks.ended = true;
            plocks.order.stop();
            std::mem::take(&mut plocks.waiting)
        };
        waiting.into_values().for_each(|done| self.callback(Callback::Plock(done, PlockAnswer::Gone)));
    }

    /// A look at the machine.
    pub(crate) fn look_at_plocks<T>(&self, look: impl FnOnce(&Order) -> T) -> T {
        look(&self.plocks().order)
    }
}

impl LockSpace {
    /// A request about a byte range (POSIX locks, dlm.md 4.11), cluster-wide. `done` is called exactly once: in this
    /// thread before this returns, where the answer is known at once (a node alone; an unlock of what is not locked),
    /// else in the lockspace's callback thread. It must not wait, and must not need a lock that the caller holds.
    /// While members change, requests wait.
    pub fn plock(&self, ask: PlockAsk, done: Box<dyn FnOnce(PlockAnswer) + Send>) -> PlockHandle {
        let done = Done(Some(done));
        let mut plocks = self.shared.plocks();
        if plocks.ended {
            drop(plocks);
            done.tell(PlockAnswer::Gone);
            return PlockHandle(0);
        }
        let local = plocks.order.ask(ask);
        let mut said = Said::default();
        let mut told = self.shared.pass_on_plocks(&mut plocks, &mut said);
        let mine = told.iter().position(|(number, _, _)| *number == local);
        let answer = mine.map(|at| told.swap_remove(at).2);
        let done = match answer {
            Some(answer) => Some((done, answer)),
            None => {
                plocks.waiting.insert(local, done);
                None
            }
        };
        drop(plocks);
        self.shared.links.flush(said);
        self.shared.tell_plocks(told);
        if let Some((done, answer)) = done {
            done.tell(answer);
        }
        PlockHandle(local)
    }

    /// Gives a waiting request up: it ends as `Interrupted`, or with the answer that was faster. Nothing happens if it
    /// has ended.
    pub fn plock_cancel(&self, handle: PlockHandle) {
        self.shared.drive_now(|order| order.cancel(handle.0));
    }

    /// The newest request that asks for this lock (inode, owner, range, mode) and has not ended, for a client that keeps
    /// no handles.
    pub fn plock_find(&self, ask: &PlockAsk) -> Option<PlockHandle> {
        self.shared.look_at_plocks(|order| order.find(ask)).map(PlockHandle)
    }

    /// An owner has closed an inode, or its process has died: its locks there go, and what it waits for ends as
    /// `Interrupted`. Nothing is sent if it has neither.
    pub fn plock_close(&self, number: u64, owner: u64) {
        self.shared.drive_now(|order| order.close(number, owner));
    }

    /// The byte-range locks of the lockspace and who waits for them, as this node knows them.
    pub fn plocks(&self) -> Vec<PlockFile> {
        self.shared.look_at_plocks(|order| order.table().map(|table| table.export()).unwrap_or_default())
    }
}
