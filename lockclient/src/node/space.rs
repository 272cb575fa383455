//! A lockspace as its client sees it.
//!
//! [`LockSpace`] is a handle; operations are carried out in the caller's thread as far as this node can decide them.
//! What ends at once is returned at once ([`Progress::Done`]); everything else reaches the client's [`LockClient`]
//! later, in the order in which it arose: from one thread per lockspace, or, if it is [`Prompt`], without that detour.

mod look;
mod parked;

use super::Outbound;
use super::control::{self, Order};
use super::links::{Links, Said};
use super::plocks::{Done, Plocks};
use super::teller::Teller;
use crate::clock::Clock;
use crate::engine::{ClientCall, Config, Effect, Engine, Event, LockCall};
use crate::flags::{LockFlags, StatusFlags};
use crate::frame::{Frame, Slot};
use crate::ids::{LockId, Name, NodeId, lockspace_id};
use crate::inspect::{SpaceView, plock_counts, space_view};
use crate::mode::Mode;
use crate::plock::PlockAnswer;
use crate::status::{Refusal, Status};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The lock.
    pub lock: LockId,
    /// How it ended.
    pub status: Status,
    /// DEMOTED, VALNOTVALID, ALTMODE.
    pub flags: StatusFlags,
    /// The mode held now. It can differ from what was held before a failed conversion in two cases only: DEMOTED is
    /// set, or a conversion between PR and CW was cancelled whose master had died.
    pub mode: Option<Mode>,
    /// The value block, where one was returned.
    pub lvb: Option<Box<[u8]>>,
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It has ended; no callback follows.
    Done(Completion),
    /// Accepted; [`LockClient::completed`] follows (for a cancel: perhaps).
    Pending(LockId),
    /// The lockspace is in recovery, or the others have not heard us for a while: the call of this number waits. It may still be refused ([`LockClient::refused`]).
    Queued(u64),
}

/// May a client be told from any thread? Waking the lockspace's own takes longer than a frame between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// Everything comes from the lockspace's thread.
    No,
    /// [`LockClient::completed`] may come from any thread: it does not wait for anything that takes longer than a mutex
    /// (no disk, no other lock, no channel that may be full), since no frame of that peer is read meanwhile.
    Completions,
    /// And so may [`LockClient::blocking`].
    Always,
}

/// Who is told. The methods are called one at a time, never from inside a call of the client's own, and, unless
/// [`LockClient::prompt`] says otherwise, from one thread; they may call the lockspace.
pub trait LockClient: Send + Sync + 'static {
    /// Asked once, when the lockspace is entered.
    fn prompt(&self) -> Prompt {
        Prompt::No
    }
    /// An operation ended.
    fn completed(&self, token: u64, completion: Completion);
    /// A lock is in the way of someone who wants this mode.
    fn blocking(&self, token: u64, lock: LockId, mode: Mode);
    /// The call of this number, queued during recovery, is refused.
    fn refused(&self, call: u64, why: Refusal);
    /// Locking has stopped; recovery follows (GFS2's `recover_prep`). No member goes on before this returns.
    fn prepare(&self) {}
    /// A member has failed (GFS2's `recover_slot`).
    fn slot_failed(&self, _slot: Slot) {}
    /// Recovery is complete (GFS2's `recover_done`).
    fn recovered(&self, _slots: &[Slot], _our_slot: u16, _generation: u32) {}
    /// The cluster has gone on without this node: its locks are lost, nothing may be written any more.
    fn expelled(&self) {}
    /// The last call: the lockspace has been left, or the node is gone. Nothing that is outstanding will complete.
    fn ended(&self) {}
}

pub(crate) enum Callback {
    Completed(u64, Completion),
    Blocking(u64, LockId, Mode),
    Refused(u64, Refusal),
    Prepare,
    SlotFailed(Slot),
    Recovered {
        slots: Vec<Slot>,
        our_slot: u16,
        generation: u32,
    },
    Expelled,
    /// A byte-range request has ended.
    Plock(Done, PlockAnswer),
    /// Answered when everything before it has been told.
    Barrier(oneshot::Sender<()>),
}

/// What the handles, the driver, the readers and the callback thread share.
pub(crate) struct Shared {
    name: String,
    id: u32,
    node: NodeId,
    engine: Mutex<Engine>,
    clock: Clock,
    /// Calls that wait until we are trusted again, with the numbers they have; only touched while the engine is locked.
    parked: Mutex<Vec<ClientCall>>,
    is_parking: AtomicBool,
    pub(super) links: Arc<Links>,
    pub(super) plocks: Mutex<Plocks>,
    outbound: UnboundedSender<Outbound>,
    teller: Arc<Teller>,
    orders: Sender<Order>,
    ended: AtomicBool,
    calls: AtomicU64,
    /// When the engine wants to be told the time; written while it is locked, read by the driver, which does not wait for it.
    wake: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        name: &str,
        config: Config,
        clock: Clock,
        (links, outbound): (Arc<Links>, UnboundedSender<Outbound>),
        client: Arc<dyn LockClient>,
    ) -> std::io::Result<Arc<Shared>> {
        // The threads end after `end`.
        let teller = Teller::new(name, client, links.trust.clone())?;
        let (orders, given) = channel();
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            id: lockspace_id(name),
            node: config.node,
            plocks: Mutex::new(Plocks::new(config.node, config.first_sequence)),
            engine: Mutex::new(Engine::new(config)),
            clock,
            parked: Mutex::default(),
            is_parking: AtomicBool::new(false),
            links,
            outbound,
            teller,
            orders,
            ended: AtomicBool::new(false),
            calls: AtomicU64::new(1),
            wake: AtomicU64::new(u64::MAX),
        });
        let own = shared.clone();
        let thread = std::thread::Builder::new().name(format!("order {name}"));
        if let Err(error) = thread.spawn(move || control::serve(&own, &given)) {
            shared.teller.end();
            return Err(error);
        }
        Ok(shared)
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// A panic elsewhere does not make the engine's own state wrong: it never calls out while it is locked.
    pub(crate) fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn engine_if_free(&self) -> Option<MutexGuard<'_, Engine>> {
        match self.engine.try_lock() {
            Ok(engine) => Some(engine),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn now(&self) -> u64 {
        self.clock.now()
    }

    /// What the membership wants; carried out in its order, soon.
    pub(super) fn order(&self, order: Order) {
        // The thread has ended after `end`: then nothing is done any more.
        let _ended = self.orders.send(order);
    }

    /// There is something to tell the client.
    pub(crate) fn callback(&self, callback: Callback) {
        self.teller.push(callback);
        self.teller.rouse();
    }

    pub(crate) fn view(&self) -> SpaceView {
        let plocks = self.look_at_plocks(plock_counts);
        space_view(&self.name, self.id, &self.engine(), plocks)
    }

    /// The others have gone on without us.
    pub(super) fn forfeit(&self) {
        self.teller.forfeit();
    }

    /// Nothing is accepted any more, and what has been ordered is the last.
    pub(crate) fn end(&self) {
        self.close(false);
    }

    /// As [`Shared::end`]; the driver hears when it is done.
    pub(super) fn leave(&self) {
        self.order(Order::Stop { told: None });
        self.close(true);
    }

    fn close(&self, left: bool) {
        self.ended.store(true, Ordering::Release);
        self.order(Order::End { left });
    }

    /// After the last order: nothing is told any more.
    pub(super) fn wind_up(&self, left: bool) {
        self.plock_end();
        self.teller.end();
        if left {
            // The driver may have ended with the node.
            let _ended = self.outbound.send(Outbound::Left(self.id));
        }
    }

    /// Something happened: passes on what follows from it.
    pub(crate) fn feed(&self, event: Event) {
        let mut said = Said::default();
        self.take_in(event, &|| true, &mut said);
        self.links.flush(said);
        self.teller.rouse();
    }

    /// As [`Shared::feed`]; the caller flushes what is said, and has the client told. Nothing happens if it is not wanted any
    /// more once it is its turn.
    pub(super) fn take_in(&self, event: Event, wanted: &dyn Fn() -> bool, said: &mut Said) {
        let event = match event {
            Event::Frame { from, frame: Frame::Plock(frame) } => return self.plock_frame(from, *frame, wanted, said),
            other => other,
        };
        let now = self.now();
        let engine = self.engine();
        if wanted() {
            self.carry_out(engine, event, now, said);
        }
    }

    /// Tells the engine the time if it wants to know. Not while someone is at work on it: then the driver comes again.
    pub(crate) fn tick(&self, now: u64) {
        if self.wake_at() > now {
            return;
        }
        let Some(engine) = self.engine_if_free() else { return };
        let mut said = Said::default();
        self.carry_out(engine, Event::Tick, now, &mut said);
        self.links.flush(said);
        self.teller.rouse();
    }

    /// When the engine wants to be told the time.
    pub(crate) fn wake_at(&self) -> u64 {
        self.wake.load(Ordering::SeqCst)
    }

    /// The engine is about to be left.
    fn note_wake(&self, engine: &Engine) {
        self.wake.store(engine.wake_at().unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    fn carry_out(&self, mut engine: MutexGuard<'_, Engine>, event: Event, now: u64, said: &mut Said) {
        match &event {
            Event::Stop => self.plock_stop(said),
            Event::Start(start) => self.plock_prepare(start),
            _ => {}
        }
        engine.handle(event, now);
        while let Some(effect) = engine.next_effect() {
            self.pass_on(effect, said);
        }
        self.note_wake(&engine);
        self.links.due(self.wake_at());
    }

    /// Has the client told, from this thread if it is prompt.
    pub(super) fn tell_promptly(&self) {
        self.teller.tell_promptly();
    }

    fn pass_on(&self, effect: Effect, said: &mut Said) {
        let outbound = |out| {
            // The driver ends with the node; then nothing is done any more.
            let _ended = self.outbound.send(out);
        };
        match effect {
            Effect::Send { to, frame } => self.links.send(self.id, to, frame, said),
            Effect::MemberAdded(node) if node != self.node => self.links.member_added(node, said),
            Effect::MemberRemoved(node) if node != self.node => self.links.member_removed(node, said),
            Effect::MemberAdded(_) | Effect::MemberRemoved(_) | Effect::Accepted { .. } => {}
            Effect::Refused { call, why } => self.teller.push(Callback::Refused(call, why)),
            Effect::Completion { token, lock, status, flags, mode, lvb } => {
                self.teller.push(Callback::Completed(token, Completion { lock, status, flags, mode, lvb }));
            }
            Effect::Blocking { token, lock, mode } => self.teller.push(Callback::Blocking(token, lock, mode)),
            Effect::Prepare => self.teller.push(Callback::Prepare),
            Effect::SlotFailed(slot) => self.teller.push(Callback::SlotFailed(slot)),
            Effect::Recovered { slots, our_slot, generation } => {
                self.teller.push(Callback::Recovered { slots, our_slot, generation });
                self.plock_start(said);
                outbound(Outbound::Recovered(self.id));
            }
            Effect::RecoveryFailed(_) => outbound(Outbound::RecoveryFailed(self.id)),
        }
    }

    /// A client's call; what ends at once is returned.
    fn call(&self, call: ClientCall, number: u64) -> Result<Progress, Refusal> {
        let mut unsaid = Unsaid::default();
        let progress = self.call_unsaid(call, number, &mut unsaid);
        self.say(unsaid);
        progress
    }

    fn say(&self, unsaid: Unsaid) {
        self.links.flush(unsaid.said);
        if unsaid.told {
            self.teller.rouse();
        }
    }

    /// As [`Shared::call`]; what is to be said to others is gathered.
    fn call_unsaid(&self, call: ClientCall, number: u64, unsaid: &mut Unsaid) -> Result<Progress, Refusal> {
        if self.ended.load(Ordering::Acquire) {
            return Err(Refusal::NoDevice);
        }
        let mut progress = Progress::Queued(number);
        // Only these may be called before the client has heard how the operation before them ended.
        let overtakes = |flags: &LockFlags| flags.intersects(LockFlags::CANCEL | LockFlags::FORCEUNLOCK);
        let overtakes = matches!(&call, ClientCall::Unlock { flags, .. } if overtakes(flags));
        let mut refused = None;
        let mut engine = self.engine();
        if self.is_parking.load(Ordering::Acquire) || !self.links.trust.holds() {
            self.park(call);
            return Ok(progress);
        }
        let now = self.now();
        // Then it hears of this one later, too: the completions of a lock come in order.
        let in_line = overtakes && self.teller.is_behind();
        engine.handle(Event::Client(call), now);
        while let Some(effect) = engine.next_effect() {
            match effect {
                Effect::Accepted { call, lock } if call == number => progress = Progress::Pending(lock),
                Effect::Refused { call, why } if call == number => refused = Some(why),
                Effect::Completion { lock, status, flags, mode, lvb, .. }
                    if progress == Progress::Pending(lock) && !in_line =>
                {
                    progress = Progress::Done(Completion { lock, status, flags, mode, lvb });
                }
                other => {
                    unsaid.told |= tells(&other);
                    self.pass_on(other, &mut unsaid.said);
                }
            }
        }
        self.note_wake(&engine);
        refused.map_or(Ok(progress), Err)
    }
}

/// What several calls have to say to other nodes, to be said together ([`LockSpace::say`]).
#[derive(Default)]
#[must_use = "nobody hears of the calls before it is said"]
pub struct Unsaid {
    said: Said,
    told: bool,
}

/// Is the client told of this?
fn tells(effect: &Effect) -> bool {
    !matches!(effect, Effect::Send { .. } | Effect::MemberAdded(_) | Effect::MemberRemoved(_))
}

/// A new lock, in the client's words.
#[derive(Clone, Debug)]
pub struct LockRequest<'a> {
    /// The client's name for the lock.
    pub token: u64,
    /// The resource, 1..=64 bytes.
    pub name: &'a [u8],
    /// The mode wanted.
    pub mode: Mode,
    /// How.
    pub flags: LockFlags,
    /// The value block storage, required with VALBLK (zeros will do).
    pub lvb: Option<Box<[u8]>>,
    /// Tell me when I am in someone's way.
    pub wants_notices: bool,
    /// The client uses a value that comes with VALNOTVALID. If it does not, this lock is not asked for it either when the
    /// resource's master dies.
    pub uses_lost_value: bool,
}

/// A handle on a lockspace.
#[derive(Clone)]
pub struct LockSpace {
    pub(super) shared: Arc<Shared>,
}

impl LockSpace {
    pub(crate) fn new(shared: Arc<Shared>) -> LockSpace {
        LockSpace { shared }
    }

    /// This node's number.
    pub fn node(&self) -> NodeId {
        self.shared.node
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Its global id.
    pub fn id(&self) -> u32 {
        self.shared.id
    }

    fn number(&self) -> u64 {
        self.shared.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// A new lock.
    pub fn request(&self, request: LockRequest<'_>) -> Result<Progress, Refusal> {
        let mut unsaid = Unsaid::default();
        let progress = self.request_unsaid(request, &mut unsaid);
        self.say(unsaid);
        progress
    }

    /// As [`LockSpace::request`], for one of many: the other nodes hear of it when [`LockSpace::say`] is called, soon.
    pub fn request_unsaid(&self, request: LockRequest<'_>, unsaid: &mut Unsaid) -> Result<Progress, Refusal> {
        let name = Name::new(request.name).ok_or(Refusal::Invalid)?;
        let LockRequest { token, mode, flags, lvb, wants_notices, uses_lost_value, .. } = request;
        let (number, pid) = (self.number(), std::process::id());
        let call = LockCall { call: number, token, mode, flags, name, lvb, pid, wants_notices, uses_lost_value };
        self.shared.call_unsaid(ClientCall::Lock(call), number, unsaid)
    }

    /// Says what was gathered, with as few writes as possible.
    pub fn say(&self, unsaid: Unsaid) {
        self.shared.say(unsaid);
    }

    /// Another mode for a lock. `lvb` is the value to write, where the conversion writes one.
    pub fn convert(
        &self,
        lock: LockId,
        mode: Mode,
        flags: LockFlags,
        lvb: Option<Box<[u8]>>,
    ) -> Result<Progress, Refusal> {
        let call = self.number();
        self.shared.call(ClientCall::Convert { call, lock, mode, flags, lvb }, call)
    }

    /// Gives a lock up. With FORCEUNLOCK also one that waits.
    pub fn unlock(&self, lock: LockId, flags: LockFlags, lvb: Option<Box<[u8]>>) -> Result<Progress, Refusal> {
        let call = self.number();
        self.shared.call(ClientCall::Unlock { call, lock, flags, lvb }, call)
    }

    /// Gives up what a lock waits for. A completion follows if there was anything to give up; it may also be the one
    /// of the operation itself, which was faster.
    pub fn cancel(&self, lock: LockId) -> Result<Progress, Refusal> {
        self.unlock(lock, LockFlags::CANCEL, None)
    }

    /// Has the lockspace been left, or is the node gone?
    pub fn has_ended(&self) -> bool {
        self.shared.ended.load(Ordering::Acquire)
    }

    /// Can the others not have gone on without us yet? Cheap: to be asked before anything is done under a lock that was
    /// granted a while ago. While it is false nothing is granted, and calls wait ([`Progress::Queued`]); it becomes true
    /// again, or the lockspace ends.
    pub fn is_trusted(&self) -> bool {
        self.shared.links.trust.holds() && !self.has_ended()
    }

    /// Is locking allowed, as opposed to stopped or in recovery?
    pub fn is_running(&self) -> bool {
        self.shared.engine().is_running()
    }
}
