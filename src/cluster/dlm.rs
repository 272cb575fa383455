//! The [`LockManager`] of a cluster (dlm.md 5.3 to 5.6).
//!
//! | glock state | mode | a notice with this mode means: no more than |
//! |---|---|---|
//! | UN | NL, or no lock yet | – |
//! | SH | PR | SH |
//! | DF | CW | DF |
//! | EX | EX | UN |
//!
//! A lock that was once asked for is kept in NL when it is given up, and unlocked when its glock is dropped. A request is
//! carried out in the caller's thread; what the lock service decides at once is answered at once. The rest comes from the
//! lockspace's callback thread.
//!
//! While grants are *held back* (5.6) a grant of anything but UN is parked here; the glock goes on asking. Downward
//! changes and failures are told at once.
//!
//! The shard of the name is locked during a call, so that no callback overtakes the note of who asked. Order: shard,
//! then `calls` or `parked`; the glock's mutex is taken with none of them.

use super::ahead::Preparing;
use super::direct::Direct;
use super::modes::{ceiling, flags, mode, reply};
use super::name;
use super::service::LockSpace;
use super::watch::{Heat, Wait};
use crate::glock::{Answer, LockClient, LockManager, LockState, Lvb, Reply, Request};
use crate::ids::LockName;
use crate::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use crate::sync::{DashMap, Instant, Mutex, RwLock, thread};
use lockclient::flags::LockFlags;
use lockclient::ids::LockId;
use lockclient::mode::Mode;
use lockclient::node::space::{Completion, LockRequest, Progress};
use lockclient::status::{Refusal, Status};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

/// A lock that is busy is asked for again after this.
pub(super) const BUSY: Duration = Duration::from_millis(20);

/// See the module.
pub(super) struct Dlm {
    space: OnceLock<LockSpace>,
    pub(super) entries: DashMap<LockName, Entry>,
    /// Locks that were got ready, the oldest first.
    pub(super) ready: Mutex<VecDeque<LockName>>,
    directs: RwLock<BTreeMap<u64, Arc<Direct>>>,
    next_direct: AtomicU64,
    calls: Mutex<Calls>,
    /// As `parked.held`, to be read without its lock.
    held: AtomicBool,
    parked: Mutex<Parked>,
    exempt: RwLock<HashSet<LockName>>,
    /// Withdrawn, or the lockspace has ended: every request fails.
    closed: AtomicBool,
    late: Sender<Late>,
    /// What other nodes want of us, and we of them.
    pub(super) heat: Heat,
}

/// One glock's lock.
pub(super) struct Entry {
    /// `NONE` until one has been granted or asked for.
    pub(super) lock: LockId,
    /// It has storage for a value block.
    pub(super) valued: bool,
    /// None: no glock has asked yet (see [`ahead`](super::ahead)).
    pub(super) client: Option<Weak<dyn LockClient>>,
    pub(super) pending: Option<Box<Pending>>,
    /// It is being got ready; what is pending waits for that.
    pub(super) ahead: Option<Preparing>,
}

/// What waits for its end.
pub(super) struct Pending {
    request: Request,
    client: Arc<dyn LockClient>,
    /// It asked for a new lock.
    fresh: bool,
    since: Instant,
    /// The number of the call, when it waits for recovery.
    call: Option<u64>,
}

/// Calls that wait for recovery, by number: whose they are.
#[derive(Default)]
struct Calls {
    tokens: HashMap<u64, u64>,
    /// Refused before the caller could note them: he does it as soon as his call returns, so there are never more than threads.
    early: HashMap<u64, Refusal>,
}

/// Grants that are held back.
#[derive(Default)]
struct Parked {
    held: bool,
    /// Since when.
    since: Option<Instant>,
    closed: bool,
    grants: BTreeMap<LockName, (Arc<dyn LockClient>, Option<Lvb>)>,
}

/// What is done a little later, by a thread of its own.
enum Late {
    Deliver(Arc<dyn LockClient>, Reply, Option<Lvb>),
    Retry(LockName, Instant),
}

impl Dlm {
    /// One that is not connected yet.
    pub(super) fn new() -> std::io::Result<Arc<Self>> {
        let (late, inbox) = channel();
        let dlm = Arc::new(Self {
            space: OnceLock::new(),
            entries: DashMap::new(),
            ready: Mutex::default(),
            directs: RwLock::default(),
            next_direct: AtomicU64::new(1),
            calls: Mutex::default(),
            held: AtomicBool::new(false),
            parked: Mutex::default(),
            exempt: RwLock::default(),
            closed: AtomicBool::new(false),
            late,
            heat: Heat::default(),
        });
        let weak = Arc::downgrade(&dlm);
        thread::Builder::new().name("locks late".into()).spawn(move || run_late(&weak, &inbox))?;
        Ok(dlm)
    }

    /// From now on locks can be had.
    pub(super) fn open(&self, space: LockSpace) {
        // Called once, by `join`.
        let _first = self.space.set(space);
    }

    /// The lockspace, once it has been entered.
    pub(super) fn space(&self) -> Option<&LockSpace> {
        self.space.get()
    }

    /// Makes room for a lock that is taken for itself.
    pub(super) fn add(self: &Arc<Self>, make: impl FnOnce(u64) -> Direct) -> Arc<Direct> {
        let token = name::direct_token(self.next_direct.fetch_add(1, Ordering::Relaxed));
        let direct = Arc::new(make(token));
        self.directs.write().insert(token, Arc::clone(&direct));
        direct
    }
    /// Forgets such a lock.
    pub(super) fn remove(&self, token: u64) {
        self.directs.write().remove(&token);
    }

    /// Notes whose call this is; the refusal, if it came first.
    pub(super) fn note_call(&self, call: u64, token: u64) -> Option<Refusal> {
        let mut calls = self.calls.lock();
        if let Some(why) = calls.early.remove(&call) {
            return Some(why);
        }
        calls.tokens.insert(call, token);
        None
    }
    /// The call has been carried out.
    pub(super) fn forget_call(&self, call: u64) {
        self.calls.lock().tokens.remove(&call);
    }

    /// From now on grants are held back.
    pub(super) fn hold(&self) {
        {
            let mut parked = self.parked.lock();
            parked.held = true;
            parked.since = Some(Instant::now());
        }
        self.held.store(true, Ordering::Release);
    }
    /// Grants are told again, those first that were held back.
    pub(super) fn release_held(&self) {
        let (grants, since) = {
            let mut parked = self.parked.lock();
            parked.held = false;
            self.held.store(false, Ordering::Release);
            (std::mem::take(&mut parked.grants), parked.since.take())
        };
        if let Some(since) = since {
            tracing::info!(
                "locks are granted again, after {} ms; {} waited",
                since.elapsed().as_millis(),
                grants.len()
            );
        }
        for (client, lvb) in grants.into_values() {
            client.completed(Reply::Granted, lvb);
        }
    }
    /// Everything that is waited for. Looks at every lock.
    pub(super) fn waits(&self) -> Vec<Wait> {
        let entries = self.entries.iter().filter_map(|entry| {
            let pending = entry.pending.as_ref().filter(|p| p.request.to != LockState::Unlocked)?;
            Some(Wait {
                name: *entry.key(),
                wants: pending.request.to,
                since: pending.since.elapsed(),
                held_back: false,
            })
        });
        let mut all: Vec<Wait> = entries.collect();
        let parked = self.parked.lock();
        let since = parked.since.map_or(Duration::ZERO, |since| since.elapsed());
        let wants = LockState::Unlocked;
        all.extend(parked.grants.keys().map(|name| Wait { name: *name, wants, since, held_back: true }));
        all
    }
    /// How many grants are held back.
    #[cfg(test)]
    pub(super) fn held_back(&self) -> usize {
        self.parked.lock().grants.len()
    }

    /// Every request fails from now on, those that wait at once; what is held is not given up.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let mut waiting: Vec<Arc<dyn LockClient>> = Vec::new();
        for mut entry in self.entries.iter_mut() {
            waiting.extend(entry.pending.take().map(|p| p.client));
        }
        {
            let mut parked = self.parked.lock();
            parked.closed = true;
            waiting.extend(std::mem::take(&mut parked.grants).into_values().map(|(client, _)| client));
        }
        waiting.into_iter().for_each(|client| client.completed(Reply::Failed, None));
    }
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Holds this grant back if it has to be.
    fn park(&self, name: LockName, to: LockState, client: &Arc<dyn LockClient>, lvb: Option<Lvb>) -> bool {
        if to == LockState::Unlocked || !self.held.load(Ordering::Acquire) {
            return false;
        }
        let mut parked = self.parked.lock();
        if !parked.held || parked.closed || self.exempt.read().contains(&name) {
            return false;
        }
        parked.grants.insert(name, (Arc::clone(client), lvb));
        true
    }

    /// Asks the lock service. The shard of the name is locked.
    fn issue(&self, name: LockName, entry: &mut Entry, request: Request, client: &Arc<dyn LockClient>) -> Answer {
        const FAILED: Answer = Answer::Done(Reply::Failed, None);
        let (Some(space), Some(token), false) = (self.space(), name::token(name), self.is_closed()) else {
            return FAILED;
        };
        let fresh = entry.lock == LockId::NONE;
        if fresh && request.to == LockState::Unlocked {
            return Answer::Done(Reply::Granted, None);
        }
        let pending =
            |call| Some(Box::new(Pending { request, client: Arc::clone(client), fresh, since: Instant::now(), call }));
        match ask(space, name, token, entry, &request) {
            Ok(Progress::Done(completion)) => {
                let (reply, lvb) = entry.settle(&request, fresh, &completion);
                if reply == Reply::Granted && self.park(name, request.to, client, lvb) {
                    return Answer::Pending;
                }
                return Answer::Done(reply, lvb);
            }
            Ok(Progress::Pending(lock)) => {
                entry.lock = lock;
                entry.pending = pending(None);
                if request.to != LockState::Unlocked {
                    self.heat.wait(name);
                }
            }
            Ok(Progress::Queued(call)) => match self.note_call(call, token) {
                None => entry.pending = pending(Some(call)),
                Some(Refusal::Busy) => return self.retry_soon(name, entry, pending(None)),
                Some(why) => return failed(name, why),
            },
            Err(Refusal::Busy) => return self.retry_soon(name, entry, pending(None)),
            Err(why) => return failed(name, why),
        }
        if (space.has_ended() || self.is_closed()) && entry.pending.take().is_some() {
            // Too late for `close` to see it.
            return FAILED;
        }
        Answer::Pending
    }

    fn retry_soon(&self, name: LockName, entry: &mut Entry, pending: Option<Box<Pending>>) -> Answer {
        entry.pending = pending;
        self.later(Late::Retry(name, Instant::now() + BUSY));
        Answer::Pending
    }
    fn retry(&self, name: LockName) {
        let Some(mut entry) = self.entries.get_mut(&name) else { return };
        let Some(Pending { request, client, .. }) = entry.pending.take().map(|p| *p) else { return };
        let answer = self.issue(name, &mut entry, request, &client);
        drop(entry);
        if let Answer::Done(reply, lvb) = answer {
            client.completed(reply, lvb);
        }
    }
    fn later(&self, late: Late) {
        // The receiver lives as long as `self`.
        let _sent = self.late.send(late);
    }

    /// The lock service says how an operation ended.
    pub(super) fn completed(&self, token: u64, completion: &Completion) {
        if let Some(direct) = self.direct(token) {
            return direct.completed(self, completion);
        }
        // That a lock is gone is told for those alone that nobody refers to any more.
        let Some(name) = name::name(token).filter(|_| completion.status != Status::Unlocked) else { return };
        let Some(mut entry) = self.entries.get_mut(&name) else { return };
        if entry.lock != LockId::NONE && entry.lock != completion.lock {
            return;
        }
        if let Some(ahead) = entry.ahead.take() {
            if let Some(call) = ahead.call {
                self.forget_call(call);
            }
            entry.lock = if completion.status == Status::Granted { completion.lock } else { LockId::NONE };
            let asked = entry.pending.take().map(|p| (self.issue(name, &mut entry, p.request, &p.client), p.client));
            drop(entry);
            if let Some((Answer::Done(reply, lvb), client)) = asked {
                client.completed(reply, lvb);
            }
            return;
        }
        let Some(pending) = entry.pending.take() else { return };
        let Pending { request, client, fresh, call, .. } = *pending;
        if let Some(call) = call {
            self.forget_call(call);
        }
        let (reply, lvb) = entry.settle(&request, fresh, completion);
        drop(entry);
        if !(reply == Reply::Granted && self.park(name, request.to, &client, lvb)) {
            client.completed(reply, lvb);
        }
    }

    /// The lock service says that a lock is in somebody's way.
    pub(super) fn blocking(&self, token: u64, lock: LockId, wanted: Mode) {
        if let Some(direct) = self.direct(token) {
            return direct.blocking(wanted);
        }
        let entry = name::name(token).and_then(|name| self.entries.get(&name));
        let client = entry.filter(|e| e.lock == lock).and_then(|e| e.client.as_ref()?.upgrade());
        if let Some(client) = client {
            if let Some(name) = name::name(token) {
                self.heat.notice(name);
            }
            client.blocking(ceiling(wanted));
        }
    }

    /// The lock service refuses a call that waited for recovery.
    pub(super) fn refused(&self, call: u64, why: Refusal) {
        let token = {
            let mut calls = self.calls.lock();
            let token = calls.tokens.remove(&call);
            if token.is_none() {
                calls.early.insert(call, why);
            }
            token
        };
        let Some(token) = token else { return };
        if let Some(direct) = self.direct(token) {
            return direct.refused(why);
        }
        let Some(name) = name::name(token) else { return };
        let Some(mut entry) = self.entries.get_mut(&name) else { return };
        if entry.ahead.take_if(|ahead| ahead.call == Some(call)).is_some() {
            // Nothing was got ready: who asked meanwhile asks for a new lock.
            if let Some(pending) = entry.pending.take() {
                self.retry_soon(name, &mut entry, Some(pending));
            }
            return;
        }
        let Some(pending) = entry.pending.take_if(|p| p.call == Some(call)) else { return };
        let client = Arc::clone(&pending.client);
        let answer =
            if why == Refusal::Busy { self.retry_soon(name, &mut entry, Some(pending)) } else { failed(name, why) };
        drop(entry);
        if let Answer::Done(reply, lvb) = answer {
            client.completed(reply, lvb);
        }
    }

    /// The lockspace is no more.
    pub(super) fn ended(&self) {
        self.close();
        let directs: Vec<Arc<Direct>> = self.directs.read().values().cloned().collect();
        directs.iter().for_each(|direct| direct.ended());
    }

    fn direct(&self, token: u64) -> Option<Arc<Direct>> {
        if name::is_direct(token) { self.directs.read().get(&token).cloned() } else { None }
    }
}

impl Entry {
    /// Takes in how an operation ended.
    fn settle(&mut self, request: &Request, fresh: bool, completion: &Completion) -> (Reply, Option<Lvb>) {
        let (reply, lvb) = reply(request, fresh, completion);
        if fresh {
            // A new lock that was not granted is gone.
            self.lock = if reply == Reply::Granted { completion.lock } else { LockId::NONE };
        }
        (reply, lvb)
    }
}

/// Makes the call that this request needs.
fn ask(
    space: &LockSpace,
    name: LockName,
    token: u64,
    entry: &mut Entry,
    request: &Request,
) -> Result<Progress, Refusal> {
    let fresh = entry.lock == LockId::NONE;
    let (mode, mut flags) = (mode(request.to), flags(request, fresh));
    if fresh {
        entry.valued = request.lvb.is_some();
        let lvb = entry.valued.then(|| Box::from([0_u8; 32]) as Box<[u8]>);
        let resource = name.resource();
        return space.request(LockRequest {
            token,
            name: resource.as_bytes(),
            mode,
            flags,
            lvb,
            wants_notices: true,
            uses_lost_value: false,
        });
    }
    // A lock that was made without storage stays so.
    flags.set(LockFlags::VALBLK, entry.valued && request.lvb.is_some());
    let written = request.lvb.filter(|_| entry.valued && request.from == LockState::Exclusive);
    space.convert(entry.lock, mode, flags, written.map(|lvb| Box::from(lvb.0) as Box<[u8]>))
}

fn failed(name: LockName, why: Refusal) -> Answer {
    tracing::error!("lock {name}: {why}");
    Answer::Done(Reply::Failed, None)
}

fn run_late(dlm: &Weak<Dlm>, inbox: &Receiver<Late>) {
    let mut retries: Vec<(LockName, Instant)> = Vec::new();
    loop {
        let due = retries.iter().map(|(_, at)| *at).min();
        let wait = due.map_or(Duration::from_secs(3600), |at| at.saturating_duration_since(Instant::now()));
        match inbox.recv_timeout(wait) {
            Ok(Late::Deliver(client, reply, lvb)) => client.completed(reply, lvb),
            Ok(Late::Retry(name, at)) => retries.push((name, at)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        let now = Instant::now();
        let mut again = Vec::new();
        retries.retain(|&(name, at)| {
            let due = at <= now;
            if due {
                again.push(name);
            }
            !due
        });
        for name in again {
            if let Some(dlm) = dlm.upgrade() {
                dlm.retry(name);
            }
        }
    }
}

impl LockManager for Dlm {
    fn request(&self, name: LockName, request: Request, client: &Arc<dyn LockClient>) -> Answer {
        let mut entry = self.entries.entry(name).or_insert_with(|| Entry {
            lock: LockId::NONE,
            valued: false,
            client: None,
            pending: None,
            ahead: None,
        });
        entry.client = Some(Arc::downgrade(client));
        if entry.ahead.is_some() && !self.is_closed() {
            let client = Arc::clone(client);
            entry.pending =
                Some(Box::new(Pending { request, client, fresh: false, since: Instant::now(), call: None }));
            return Answer::Pending;
        }
        self.issue(name, &mut entry, request, client)
    }

    fn cancel(&self, name: LockName) {
        let Some(mut entry) = self.entries.get_mut(&name) else { return };
        if entry.ahead.is_some() {
            // Nothing was asked yet. Not from here: the caller holds the glock's mutex.
            if let Some(pending) = entry.pending.take() {
                self.later(Late::Deliver(pending.client, Reply::Refused, None));
            }
            return;
        }
        // A call that waits for recovery has no number yet by which it could be taken back: it completes in its time.
        let lock = entry.lock;
        let Some(space) = self.space().filter(|_| entry.pending.is_some() && lock != LockId::NONE) else { return };
        match space.cancel(lock) {
            Ok(Progress::Done(completion)) => {
                let Some(pending) = entry.pending.take() else { return };
                let (reply, lvb) = entry.settle(&pending.request, pending.fresh, &completion);
                // Not from here: the caller holds the glock's mutex.
                self.later(Late::Deliver(pending.client, reply, lvb));
            }
            Ok(Progress::Pending(_) | Progress::Queued(_)) => {}
            Err(why) => tracing::debug!("lock {name}: cancel: {why}"),
        }
    }

    fn release(&self, name: LockName) {
        if self.keep_ready(name) {
            return;
        }
        let Some((_, entry)) = self.entries.remove(&name) else { return };
        let Some(space) = self.space().filter(|_| entry.lock != LockId::NONE && !self.is_closed()) else { return };
        let flags = if entry.valued { LockFlags::VALBLK } else { LockFlags::empty() };
        if let Err(why) = space.unlock(entry.lock, flags, None) {
            tracing::debug!("lock {name}: unlock: {why}");
        }
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn is_trusted(&self) -> bool {
        self.space().is_some_and(LockSpace::is_trusted)
    }

    fn prepare(&self, names: &[(LockName, bool)]) {
        self.get_ready(names);
    }

    fn serves_recovery(&self, name: LockName) {
        self.exempt.write().insert(name);
        let parked = self.parked.lock().grants.remove(&name);
        if let Some((client, lvb)) = parked {
            self.later(Late::Deliver(client, Reply::Granted, lvb));
        }
    }
}
