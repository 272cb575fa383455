//! flock(2) across the cluster: a FLOCK lock for each inode, in the state that its holders here want exactly (dlm.md 5.11).
//!
//! The lock manager is asked directly, without a glock: there is no object to read or to write, and a program that waits must cost no
//! thread. What happens is decided by [`Table`], a function of what it knows and of what came; [`Flocks`] does it.
//!
//! A state once got is kept when the last holder leaves, until another node wants it. Shared becomes exclusive by way of
//! nothing: as flock(2) says, a change of mode is an unlock and a lock.

use super::Fs;
use crate::error::{Error, Result};
use crate::glock::{Answer, LockClient, LockManager, LockState, Lvb, Reply, Request};
use crate::ids::{BlockAddr, LockKind, LockName};
use crate::sync::{Mutex, MutexGuard, thread};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// How often one that may not wait asks; the lock may only be kept unused by another node (1, 2 and 4 ms in between).
const TRIES: u32 = 4;
/// So many inodes' locks are kept though nobody here holds them.
const KEPT: usize = 1024;

/// Told once what became of a request for a lock.
pub type LockDone = Box<dyn FnOnce(Result<()>) + Send>;

/// All flocks of a mount.
pub(super) struct Flocks {
    me: Weak<Flocks>,
    manager: Arc<dyn LockManager>,
    files: Mutex<HashMap<BlockAddr, File>>,
}

struct File {
    table: Table,
    client: Arc<dyn LockClient>,
    /// What to call for each waiter.
    done: HashMap<u64, LockDone>,
}

/// The lock manager's way to one file's table.
struct Client {
    flocks: Weak<Flocks>,
    addr: BlockAddr,
}

impl LockClient for Client {
    fn completed(self: Arc<Self>, reply: Reply, _: Option<Lvb>) {
        if let Some(flocks) = self.flocks.upgrade() {
            flocks.step(self.addr, |table| table.replied(reply));
        }
    }
    fn blocking(self: Arc<Self>, ceiling: LockState) {
        if let Some(flocks) = self.flocks.upgrade() {
            flocks.step(self.addr, |table| table.blocking(ceiling));
        }
    }
}

impl Fs {
    /// Locks a file for `owner`, which is an open file. `ticket` names the request for [`Fs::cancel_flock`] and must be one of its own.
    /// `done` is told `WouldBlock` when it may not `wait` and would have to, and `Interrupted` when it was cancelled.
    pub fn flock(&self, node: BlockAddr, (owner, ticket): (u64, u64), exclusive: bool, wait: bool, done: LockDone) {
        self.flocks.ask(node, Waiter { owner, ticket, exclusive, wait, tries: 0 }, done);
    }

    /// Gives an owner's lock up.
    pub fn unflock(&self, node: BlockAddr, owner: u64) {
        self.flocks.step(node, |table| table.unlock(owner));
    }

    /// Takes a request back that waits.
    pub fn cancel_flock(&self, node: BlockAddr, ticket: u64) {
        self.flocks.step(node, |table| table.cancel(ticket));
    }
}

impl Flocks {
    pub(super) fn new(manager: Arc<dyn LockManager>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self { me: me.clone(), manager, files: Mutex::default() })
    }

    fn ask(&self, addr: BlockAddr, waiter: Waiter, done: LockDone) {
        let mut files = self.files.lock();
        let crowded = files.len() > KEPT;
        let file = files.entry(addr).or_insert_with(|| File {
            table: Table { crowded, ..Table::default() },
            client: Arc::new(Client { flocks: self.me.clone(), addr }),
            done: HashMap::new(),
        });
        file.done.insert(waiter.ticket, done);
        // Under the same guard: a table that nobody wants anything of yet is anybody's to remove.
        self.step_in(files, addr, |table| table.want(waiter));
    }

    /// Tells the table something and does what follows from it. Programs are told after the mutex is free.
    fn step(&self, addr: BlockAddr, event: impl FnOnce(&mut Table) -> Vec<Act>) {
        self.step_in(self.files.lock(), addr, event);
    }

    fn step_in(
        &self,
        mut files: MutexGuard<'_, HashMap<BlockAddr, File>>,
        addr: BlockAddr,
        event: impl FnOnce(&mut Table) -> Vec<Act>,
    ) {
        let mut told = Vec::new();
        let Some(file) = files.get_mut(&addr) else { return };
        let mut acts = VecDeque::from(event(&mut file.table));
        while let Some(act) = acts.pop_front() {
            match act {
                Act::Tell(ticket, result) => told.extend(file.done.remove(&ticket).map(|done| (done, result))),
                Act::Ask(request) => {
                    let name = LockName { kind: LockKind::Flock, number: addr.get() };
                    if let Answer::Done(reply, _) = self.manager.request(name, request, &file.client) {
                        acts.extend(file.table.replied(reply));
                    }
                }
                Act::Cancel => self.manager.cancel(LockName { kind: LockKind::Flock, number: addr.get() }),
                Act::Retry(ticket, after) => self.retry(addr, ticket, after),
            }
        }
        if file.table.is_unused() {
            files.remove(&addr);
            self.manager.release(LockName { kind: LockKind::Flock, number: addr.get() });
        }
        drop(files);
        for (done, result) in told {
            done(result);
        }
    }

    fn retry(&self, addr: BlockAddr, ticket: u64, after: Duration) {
        let flocks = self.me.clone();
        let waits = move || {
            thread::sleep(after);
            if let Some(flocks) = flocks.upgrade() {
                flocks.step(addr, |table| table.retry(ticket));
            }
        };
        if let Err(e) = thread::Builder::new().name("gfs2r-flock".into()).spawn(waits) {
            tracing::error!("no thread for a lock that is to be tried again: {e}");
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Waiter {
    owner: u64,
    ticket: u64,
    exclusive: bool,
    wait: bool,
    tries: u32,
}

impl Waiter {
    fn state(self) -> LockState {
        if self.exclusive { LockState::Exclusive } else { LockState::Shared }
    }
}

/// What is to be done.
#[derive(Debug)]
enum Act {
    /// The waiter is told.
    Tell(u64, Result<()>),
    /// The lock manager is asked; its answer goes to [`Table::replied`].
    Ask(Request),
    /// The question to it is taken back.
    Cancel,
    /// [`Table::retry`] is to be called after this time.
    Retry(u64, Duration),
}

/// One inode's flocks: who holds, who waits, what the lock manager has given.
#[derive(Debug, Default)]
struct Table {
    state: LockState,
    /// The question that is open, and whether it was taken back.
    asking: Option<(Request, bool)>,
    /// Owners: several shared ones, or an exclusive one.
    holders: Vec<(u64, bool)>,
    queue: VecDeque<Waiter>,
    /// Another node waits.
    wanted: bool,
    /// The one in front is to be tried again later.
    pausing: bool,
    /// There are many tables: nothing is kept for later.
    crowded: bool,
}

impl Table {
    fn is_unused(&self) -> bool {
        self.state == LockState::Unlocked && self.asking.is_none() && self.holders.is_empty() && self.queue.is_empty()
    }

    fn want(&mut self, waiter: Waiter) -> Vec<Act> {
        let held = self.holders.iter().position(|(owner, _)| *owner == waiter.owner);
        if let Some(at) = held {
            if self.holders[at].1 == waiter.exclusive {
                return vec![Act::Tell(waiter.ticket, Ok(()))];
            }
            self.holders.swap_remove(at);
        }
        self.queue.push_back(waiter);
        self.advance(Vec::new())
    }

    fn unlock(&mut self, owner: u64) -> Vec<Act> {
        self.holders.retain(|(o, _)| *o != owner);
        self.advance(Vec::new())
    }

    fn cancel(&mut self, ticket: u64) -> Vec<Act> {
        let Some(at) = self.queue.iter().position(|w| w.ticket == ticket) else { return Vec::new() };
        self.queue.remove(at);
        self.pausing &= at != 0;
        let mut acts = vec![Act::Tell(ticket, Err(Error::Interrupted))];
        if let Some((request, cancelled @ false)) = &mut self.asking
            && self.queue.is_empty()
            && request.to != LockState::Unlocked
        {
            *cancelled = true;
            acts.push(Act::Cancel);
        }
        self.advance(acts)
    }

    fn retry(&mut self, ticket: u64) -> Vec<Act> {
        if self.queue.front().is_some_and(|w| w.ticket == ticket) {
            self.pausing = false;
        }
        self.advance(Vec::new())
    }

    fn blocking(&mut self, ceiling: LockState) -> Vec<Act> {
        let coming = self.asking.is_some_and(|(request, _)| request.to.exceeds(ceiling));
        self.wanted |= self.state.exceeds(ceiling) || coming;
        self.advance(Vec::new())
    }

    fn replied(&mut self, reply: Reply) -> Vec<Act> {
        let Some((request, _)) = self.asking.take() else { return Vec::new() };
        let mut acts = Vec::new();
        match reply {
            Reply::Granted => {
                self.state = request.to;
                // It was got for the one in front, who uses it before anybody else's wish counts.
                if self.queue.front().is_some_and(|w| w.state() == request.to) {
                    self.grant(&mut acts);
                }
            }
            Reply::Refused => {
                if let Some(front) = self.queue.front_mut().filter(|w| !w.wait && request.no_queue) {
                    front.tries += 1;
                    if front.tries < TRIES {
                        self.pausing = true;
                        acts.push(Act::Retry(front.ticket, Duration::from_millis(1 << (front.tries - 1))));
                    } else {
                        self.refuse(&mut acts, || Error::WouldBlock);
                    }
                }
            }
            // The lock service is gone, and the lock with it.
            Reply::Failed if request.to == LockState::Unlocked => self.state = LockState::Unlocked,
            // We never ask for more while we hold something, so there is no deadlock of two who do.
            Reply::Failed | Reply::Deadlock => {
                while !self.queue.is_empty() {
                    self.refuse(&mut acts, || Error::Io(Arc::new(io::Error::other("the lock service failed"))));
                }
            }
        }
        self.advance(acts)
    }

    fn grant(&mut self, acts: &mut Vec<Act>) {
        if let Some(w) = self.queue.pop_front() {
            self.holders.push((w.owner, w.exclusive));
            acts.push(Act::Tell(w.ticket, Ok(())));
        }
    }

    fn refuse(&mut self, acts: &mut Vec<Act>, why: impl FnOnce() -> Error) {
        if let Some(w) = self.queue.pop_front() {
            acts.push(Act::Tell(w.ticket, Err(why())));
        }
    }

    /// Does whatever can be done now.
    fn advance(&mut self, mut acts: Vec<Act>) -> Vec<Act> {
        while self.asking.is_none() {
            let idle = self.holders.is_empty() && self.queue.is_empty();
            if self.holders.is_empty() && (self.wanted || idle && self.crowded) && self.state != LockState::Unlocked {
                self.wanted = false;
                self.ask(LockState::Unlocked, false, &mut acts);
                break;
            }
            let Some(front) = self.queue.front().copied() else { break };
            let shares = !front.exclusive && !self.wanted && self.holders.iter().all(|(_, exclusive)| !exclusive);
            if !self.holders.is_empty() && !shares {
                self.refuse_trying(&mut acts);
                break;
            }
            if self.state == front.state() {
                self.grant(&mut acts);
                continue;
            }
            if self.pausing {
                break;
            }
            let by_way_of_nothing = front.exclusive && self.state != LockState::Unlocked;
            let to = if by_way_of_nothing { LockState::Unlocked } else { front.state() };
            self.ask(to, !front.wait && self.state == LockState::Unlocked, &mut acts);
        }
        acts
    }

    fn ask(&mut self, to: LockState, no_queue: bool, acts: &mut Vec<Act>) {
        let request = Request { from: self.state, to, no_queue, lvb: None };
        self.asking = Some((request, false));
        acts.push(Act::Ask(request));
    }

    fn refuse_trying(&mut self, acts: &mut Vec<Act>) {
        self.queue.retain(|w| {
            if !w.wait {
                acts.push(Act::Tell(w.ticket, Err(Error::WouldBlock)));
            }
            w.wait
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the table says, in short; questions are answered with `reply`.
    fn says(table: &mut Table, acts: Vec<Act>, reply: Option<Reply>) -> Vec<String> {
        let mut out = Vec::new();
        for act in acts {
            match act {
                Act::Tell(t, Ok(())) => out.push(format!("grant {t}")),
                Act::Tell(t, Err(e)) => out.push(format!("{t}: {e}")),
                Act::Ask(r) => {
                    out.push(format!("{}->{}{}", r.from, r.to, if r.no_queue { " no queue" } else { "" }));
                    if let Some(reply) = reply {
                        let more = table.replied(reply);
                        out.extend(says(table, more, Some(reply)));
                    }
                }
                Act::Cancel => out.push("cancel".into()),
                Act::Retry(t, after) => out.push(format!("retry {t} after {after:?}")),
            }
        }
        out
    }

    fn waiter(ticket: u64, owner: u64, exclusive: bool, wait: bool) -> Waiter {
        Waiter { owner, ticket, exclusive, wait, tries: 0 }
    }

    #[test]
    fn locks_are_exact_and_kept_until_wanted() {
        let mut t = Table::default();
        let acts = t.want(waiter(1, 10, true, true));
        assert_eq!(says(&mut t, acts, Some(Reply::Granted)), ["UN->EX", "grant 1"]);
        let acts = t.want(waiter(2, 11, false, true));
        assert!(says(&mut t, acts, None).is_empty(), "waits for the other owner");
        let acts = t.want(waiter(3, 12, false, false));
        assert_eq!(says(&mut t, acts, None), ["3: held by another"]);
        let acts = t.unlock(10);
        assert_eq!(says(&mut t, acts, Some(Reply::Granted)), ["EX->SH", "grant 2"]);
        let acts = t.want(waiter(4, 11, true, true));
        assert_eq!(says(&mut t, acts, Some(Reply::Granted)), ["SH->UN", "UN->EX", "grant 4"]);
        let acts = t.blocking(LockState::Unlocked);
        assert!(says(&mut t, acts, None).is_empty(), "it is held");
        let acts = t.want(waiter(5, 13, true, true));
        assert!(says(&mut t, acts, None).is_empty());
        let acts = t.unlock(11);
        assert_eq!(says(&mut t, acts, Some(Reply::Granted)), ["EX->UN", "UN->EX", "grant 5"], "others come first");
        let acts = t.unlock(13);
        assert!(says(&mut t, acts, None).is_empty() && !t.is_unused(), "kept");
        let acts = t.blocking(LockState::Unlocked);
        assert_eq!(says(&mut t, acts, Some(Reply::Granted)), ["EX->UN"]);
        assert!(t.is_unused());
    }

    #[test]
    fn one_that_may_not_wait_tries_four_times() {
        let mut t = Table::default();
        let acts = t.want(waiter(1, 10, true, false));
        let mut said = says(&mut t, acts, Some(Reply::Refused));
        for _ in 0..3 {
            let acts = t.retry(1);
            said.extend(says(&mut t, acts, Some(Reply::Refused)));
        }
        let asks = said.iter().filter(|s| *s == "UN->EX no queue").count();
        assert_eq!((asks, said.last().map(String::as_str)), (4, Some("1: held by another")));
        assert!(t.is_unused());
    }

    #[test]
    fn a_wish_that_overtakes_the_grant_waits_for_one_use() {
        let mut t = Table::default();
        let acts = t.want(waiter(1, 10, true, true));
        assert_eq!(says(&mut t, acts, None), ["UN->EX"]);
        let acts = t.blocking(LockState::Unlocked);
        assert!(says(&mut t, acts, None).is_empty());
        let acts = t.replied(Reply::Granted);
        assert_eq!(says(&mut t, acts, None), ["grant 1"]);
        let acts = t.unlock(10);
        assert_eq!(says(&mut t, acts, Some(Reply::Granted)), ["EX->UN"]);
    }

    #[test]
    fn what_is_cancelled_is_told_once() {
        let mut t = Table::default();
        let acts = t.want(waiter(1, 10, true, true));
        assert_eq!(says(&mut t, acts, None), ["UN->EX"]);
        let acts = t.cancel(1);
        assert_eq!(says(&mut t, acts, None), ["1: interrupted", "cancel"]);
        let acts = t.cancel(1);
        assert!(says(&mut t, acts, None).is_empty());
        let acts = t.replied(Reply::Refused);
        assert!(says(&mut t, acts, None).is_empty() && t.is_unused());
    }
}
