//! The lock service of the simulated cluster: the engines of `lockclient`, one for each node, over a network that keeps order
//! between two nodes and nothing else; a membership that stops everyone before it starts anyone, and starts nobody before a dead
//! node was fenced; and, for each node, the thread that tells its client.

use crate::callback::Callback;
use gfs2r::cluster::{Service, Space};
use gfs2r::sync::simulated::{note, random};
use gfs2r::sync::{Condvar, Instant, Mutex, MutexGuard, thread};
use lockclient::engine::{ClientCall, Config, Effect, Engine, Event, LockCall};
use lockclient::flags::LockFlags;
use lockclient::frame::Frame;
use lockclient::ids::{LockId, Name, NodeId};
use lockclient::mode::Mode;
use lockclient::node::JoinError;
use lockclient::node::space::{Completion, LockClient, LockRequest, Progress};
use lockclient::recovery::{Start, StartMember};
use lockclient::status::Refusal;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

struct Member {
    engine: Engine,
    incarnation: u64,
    /// Changes it has stopped for, and started with.
    seen: usize,
    started: usize,
    /// With which join of each member it was started last.
    known: BTreeMap<NodeId, u64>,
    /// Recovered once: a full member.
    joined: bool,
    /// Nothing of it arrives any more, and nothing arrives there.
    cut_off: bool,
    ended: bool,
    queue: VecDeque<Callback>,
    telling: bool,
    calls: u64,
}

#[derive(Default)]
struct State {
    members: BTreeMap<NodeId, Member>,
    streams: BTreeMap<(NodeId, NodeId), VecDeque<Frame>>,
    /// After each change: members, and the number of their join. Change 0 is the empty cluster.
    changes: Vec<BTreeMap<NodeId, u64>>,
    stopped: BTreeMap<usize, BTreeSet<NodeId>>,
    /// Nodes of the cluster that are not in the lockspace.
    present: BTreeMap<NodeId, u64>,
    /// Dead nodes that have not been fenced: no change from this one on starts.
    unfenced: BTreeMap<NodeId, usize>,
    numbers: u64,
    over: bool,
}

/// Makes sure that a node writes no more. False: it does not (see [`Net::is_off`]).
pub(crate) type Fence = Box<dyn Fn(NodeId) -> bool + Send + Sync>;

/// The network.
pub(crate) struct Net {
    state: Mutex<State>,
    changed: Condvar,
    fence: Fence,
}

/// What may happen next.
#[derive(Clone, Copy)]
enum Step {
    Deliver(NodeId, NodeId),
    Stop(NodeId),
    Start(NodeId),
    Fence(NodeId),
    Tick(NodeId),
}

fn now_ms() -> u64 {
    gfs2r::sync::simulated::now().unwrap_or(0) / 1_000_000
}

impl State {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
    fn latest(&self) -> BTreeMap<NodeId, u64> {
        self.changes.last().cloned().unwrap_or_default()
    }
    fn change(&self, n: usize) -> Option<&BTreeMap<NodeId, u64>> {
        self.changes.get(n.checked_sub(1)?)
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for ((from, to), frames) in &self.streams {
            if !frames.is_empty() && self.members.get(to).is_some_and(|m| !m.cut_off) {
                steps.push(Step::Deliver(*from, *to));
            }
        }
        let allowed = self.unfenced.values().copied().min().unwrap_or(usize::MAX);
        let now = now_ms();
        for (id, member) in self.members.iter().filter(|(_, m)| !m.ended) {
            if member.engine.wake_at().is_some_and(|at| at <= now) {
                steps.push(Step::Tick(*id));
            }
            if member.cut_off {
                continue;
            }
            if member.seen < self.changes.len() {
                steps.push(Step::Stop(*id));
            }
            let Some(members) = self.change(member.seen) else { continue };
            let stopped = self.stopped.get(&member.seen);
            let all = members.keys().all(|m| stopped.is_some_and(|set| set.contains(m)));
            if member.started < member.seen && all && members.contains_key(id) && member.seen < allowed {
                steps.push(Step::Start(*id));
            }
        }
        steps.extend(self.unfenced.keys().map(|id| Step::Fence(*id)));
        steps
    }

    fn wake_at(&self) -> Option<u64> {
        self.members.values().filter(|m| !m.ended).filter_map(|m| m.engine.wake_at()).min()
    }

    fn feed(&mut self, id: NodeId, event: Event) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.engine.handle(event, now_ms());
        self.drain(id, None);
    }

    /// Passes on what the engine wants; what belongs to the call of this number is given back.
    fn drain(&mut self, id: NodeId, call: Option<(u64, bool)>) -> (Option<Progress>, Option<Refusal>) {
        let (mut progress, mut refused) = (None, None);
        while let Some(effect) = self.members.get_mut(&id).and_then(|m| m.engine.next_effect()) {
            match (effect, call) {
                (Effect::Accepted { call, lock }, Some((own, _))) if call == own => {
                    progress = Some(Progress::Pending(lock));
                }
                (Effect::Refused { call, why }, Some((own, _))) if call == own => refused = Some(why),
                (Effect::Completion { lock, status, flags, mode, lvb, .. }, Some((_, false)))
                    if progress == Some(Progress::Pending(lock)) =>
                {
                    progress = Some(Progress::Done(Completion { lock, status, flags, mode, lvb }));
                }
                (other, _) => self.effect(id, other),
            }
        }
        if let Some(member) = self.members.get(&id)
            && let Err(why) = member.engine.check()
        {
            panic!("the lock engine of {id}: {why}");
        }
        (progress, refused)
    }

    fn effect(&mut self, id: NodeId, effect: Effect) {
        let Some(member) = self.members.get_mut(&id) else { return };
        match effect {
            Effect::Send { to, frame } => {
                if !member.cut_off && self.members.contains_key(&to) {
                    self.streams.entry((id, to)).or_default().push_back(frame);
                }
            }
            Effect::Accepted { .. } | Effect::MemberAdded(_) | Effect::MemberRemoved(_) => {}
            Effect::Refused { call, why } => member.queue.push_back(Callback::Refused(call, why)),
            Effect::Completion { token, lock, status, flags, mode, lvb } => {
                member.queue.push_back(Callback::Completed(token, Completion { lock, status, flags, mode, lvb }));
            }
            Effect::Blocking { token, lock, mode } => member.queue.push_back(Callback::Blocking(token, lock, mode)),
            Effect::Prepare => member.queue.push_back(Callback::Prepare),
            Effect::SlotFailed(slot) => member.queue.push_back(Callback::SlotFailed(slot)),
            Effect::Recovered { slots, our_slot, generation } => {
                note(u64::from(our_slot) << 8 | 1, || format!("{id} is recovered: slot {our_slot} of {slots:?}"));
                member.joined = true;
                member.queue.push_back(Callback::Recovered(slots, our_slot, generation));
            }
            Effect::RecoveryFailed(why) => panic!("recovery of {id} failed: {why}"),
        }
    }

    fn perform(&mut self, step: Step) {
        match step {
            Step::Deliver(from, to) => {
                let frame = self.streams.get_mut(&(from, to)).and_then(VecDeque::pop_front);
                if let Some(frame) = frame {
                    self.feed(to, Event::Frame { from, frame });
                }
            }
            Step::Tick(id) => self.feed(id, Event::Tick),
            Step::Stop(id) => {
                let Some(member) = self.members.get_mut(&id) else { return };
                member.seen += 1;
                let seen = member.seen;
                note(seen as u64, || format!("{id} stops for change {seen}"));
                self.feed(id, Event::Stop);
                if let Some(member) = self.members.get_mut(&id) {
                    member.queue.push_back(Callback::Stopped(seen));
                }
            }
            Step::Start(id) => {
                let cluster = self.members.iter().filter(|(_, m)| !m.cut_off).map(|(id, m)| (*id, m.incarnation));
                let cluster = cluster.chain(self.present.iter().map(|(id, i)| (*id, *i))).collect();
                let Some(member) = self.members.get(&id) else { return };
                let Some(members) = self.change(member.seen).cloned() else { return };
                let describe = |(other, serial): (&NodeId, &u64)| StartMember {
                    node: *other,
                    weight: 1,
                    incarnation: self.members.get(other).map_or(0, |m| m.incarnation),
                    new: member.known.get(other) != Some(serial),
                };
                let start = Start { members: members.iter().map(describe).collect(), cluster, round: 0 };
                if let Some(member) = self.members.get_mut(&id) {
                    (member.started, member.known) = (member.seen, members);
                    let n = member.started;
                    note(n as u64, || format!("{id} starts with change {n}"));
                }
                self.feed(id, Event::Start(start));
            }
            Step::Fence(_) => {}
        }
    }

    /// It is no member any more; of what it has sent, so much still arrives.
    fn take_out(&mut self, id: NodeId, arrives: impl Fn(usize) -> usize) {
        for ((from, to), frames) in &mut self.streams {
            if *to == id {
                frames.clear();
            } else if *from == id {
                frames.truncate(arrives(frames.len()));
            }
        }
        let mut members = self.latest();
        if members.remove(&id).is_some() {
            self.changes.push(members);
        }
    }
}

impl Net {
    pub(crate) fn new(fence: Fence) -> Arc<Self> {
        let net = Arc::new(Self { state: Mutex::default(), changed: Condvar::new(), fence });
        let own = Arc::clone(&net);
        thread::Builder::new().name("net".into()).spawn(move || own.run()).expect("a thread");
        net
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            if state.over {
                return;
            }
            let steps = state.steps();
            if steps.is_empty() {
                match state.wake_at() {
                    None => self.changed.wait(&mut state),
                    Some(at) => {
                        let time = Duration::from_millis(at.saturating_sub(now_ms()) + 1);
                        self.changed.wait_for(&mut state, time);
                    }
                }
                continue;
            }
            let step = steps[random(steps.len() as u64) as usize];
            if let Step::Fence(id) = step {
                drop(state);
                thread::sleep(Duration::from_micros(random(5000)));
                let off = (self.fence)(id);
                note(u64::from(id.0), || format!("{id} is fenced"));
                state = self.lock();
                state.unfenced.remove(&id);
                if let Some(member) = state.members.get_mut(&id).filter(|_| off) {
                    member.ended = true;
                }
            } else {
                state.perform(step);
            }
            drop(state);
            self.changed.notify_all();
            // Mostly at once, sometimes after a while.
            let late = if random(8) == 0 { random(400) } else { random(10) };
            thread::sleep(Duration::from_micros(late));
            state = self.lock();
        }
    }

    /// The simulation ends.
    pub(crate) fn end(&self) {
        self.lock().over = true;
        self.changed.notify_all();
    }

    /// Nobody hears of this node any more, nor it of anybody; the others notice, and have it fenced.
    pub(crate) fn dies(&self, id: NodeId, at_once: bool) {
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(&id) else {
            state.present.remove(&id);
            return;
        };
        if member.cut_off || member.ended {
            return;
        }
        (member.cut_off, member.ended) = (true, at_once);
        note(u64::from(id.0), || format!("{id} dies{}", if at_once { "" } else { " for the others" }));
        let part = random(4) as usize;
        state.take_out(id, |n| if part == 0 { 0 } else { n / part });
        let change = state.changes.len();
        state.unfenced.insert(id, change);
        drop(state);
        self.changed.notify_all();
    }

    /// Of a node that was not fenced when it should have been: now it is.
    pub(crate) fn is_off(&self, id: NodeId) {
        if let Some(member) = self.lock().members.get_mut(&id).filter(|m| m.cut_off) {
            member.ended = true;
        }
        self.changed.notify_all();
    }

    /// Waits until the dead one of this name has been fenced.
    pub(crate) fn await_fence(&self, id: NodeId) {
        let mut state = self.lock();
        while state.unfenced.contains_key(&id) {
            self.changed.wait(&mut state);
        }
    }

    /// Is it out of the lockspace, or about to be?
    pub(crate) fn is_cut_off(&self, id: NodeId) -> bool {
        self.lock().members.get(&id).is_some_and(|m| m.cut_off)
    }

    fn tell(&self, id: NodeId, incarnation: u64, client: &dyn LockClient) {
        let own = |m: &&mut Member| m.incarnation == incarnation;
        let mut state = self.lock();
        loop {
            let Some(member) = state.members.get_mut(&id).filter(own) else { break };
            match member.queue.pop_front() {
                Some(Callback::Stopped(change)) => {
                    state.stopped.entry(change).or_default().insert(id);
                    self.changed.notify_all();
                }
                Some(callback) => {
                    member.telling = true;
                    drop(state);
                    note(callback.kind(), || format!("{id} is told of {}", callback.word()));
                    match callback {
                        Callback::Completed(token, completion) => client.completed(token, completion),
                        Callback::Blocking(token, lock, mode) => client.blocking(token, lock, mode),
                        Callback::Refused(call, why) => client.refused(call, why),
                        Callback::Prepare => client.prepare(),
                        Callback::SlotFailed(slot) => client.slot_failed(slot),
                        Callback::Recovered(slots, own, generation) => client.recovered(&slots, own, generation),
                        Callback::Expelled => client.expelled(),
                        Callback::Stopped(_) => unreachable!("above"),
                    }
                    state = self.lock();
                    if let Some(member) = state.members.get_mut(&id).filter(own) {
                        member.telling = false;
                    }
                }
                None if member.ended => break,
                None => self.changed.wait(&mut state),
            }
        }
        drop(state);
        client.ended();
    }

    fn call(
        &self,
        id: NodeId,
        incarnation: u64,
        overtakes: bool,
        make: impl FnOnce(u64) -> ClientCall,
    ) -> Result<Progress, Refusal> {
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(&id).filter(|m| m.incarnation == incarnation && !m.ended) else {
            return Err(Refusal::NoDevice);
        };
        member.calls += 1;
        let number = member.calls;
        let in_line = overtakes && (member.telling || !member.queue.is_empty());
        member.engine.handle(Event::Client(make(number)), now_ms());
        let (progress, refused) = state.drain(id, Some((number, in_line)));
        drop(state);
        self.changed.notify_all();
        refused.map_or(Ok(progress.unwrap_or(Progress::Queued(number))), Err)
    }
}

/// A node's place in the cluster.
pub(crate) struct Place {
    pub(crate) net: Arc<Net>,
    pub(crate) id: NodeId,
}

struct InSpace {
    net: Arc<Net>,
    id: NodeId,
    incarnation: u64,
}

impl Service for Place {
    fn join(&self, _name: &str, client: Arc<dyn LockClient>) -> Result<Arc<dyn Space>, JoinError> {
        let (net, id) = (&self.net, self.id);
        let mut state = net.lock();
        let incarnation = state.number();
        let mut config = Config::new(id);
        config.first_sequence = u64::from(id.0) * 1000 + incarnation;
        config.first_tag = u64::from(id.0) << 32 | incarnation;
        state.streams.retain(|(from, to), _| *from != id && *to != id);
        state.present.remove(&id);
        let serial = state.number();
        let mut members = state.latest();
        members.insert(id, serial);
        state.changes.push(members);
        let member = Member {
            engine: Engine::new(config),
            incarnation,
            seen: state.changes.len() - 1,
            started: 0,
            known: BTreeMap::new(),
            joined: false,
            cut_off: false,
            ended: false,
            queue: VecDeque::new(),
            telling: false,
            calls: 0,
        };
        state.members.insert(id, member);
        note(incarnation, || format!("{id} joins"));
        let own = Arc::clone(net);
        thread::Builder::new()
            .name(format!("tell {id}"))
            .spawn(move || own.tell(id, incarnation, &*client))
            .map_err(JoinError::Thread)?;
        net.changed.notify_all();
        loop {
            match state.members.get(&id).filter(|m| m.incarnation == incarnation) {
                Some(member) if member.joined => break,
                Some(member) if !member.ended && !member.cut_off => {}
                _ => return Err(JoinError::Shutdown),
            }
            net.changed.wait(&mut state);
        }
        Ok(Arc::new(InSpace { net: Arc::clone(net), id, incarnation }))
    }

    fn release(&self) {
        let mut state = self.net.lock();
        if let Some(member) = state.members.get_mut(&self.id).filter(|m| !m.cut_off && !m.ended) {
            member.ended = true;
            let incarnation = member.incarnation;
            state.present.insert(self.id, incarnation);
            note(incarnation, || format!("{} leaves", self.id));
            state.take_out(self.id, |n| n);
            state.members.remove(&self.id);
        }
        drop(state);
        self.net.changed.notify_all();
    }
}

impl Space for InSpace {
    fn request(&self, r: LockRequest<'_>) -> Result<Progress, Refusal> {
        let name = Name::new(r.name).ok_or(Refusal::Invalid)?;
        self.net.call(self.id, self.incarnation, false, |call| {
            let LockRequest { token, mode, flags, lvb, wants_notices, uses_lost_value, .. } = r;
            ClientCall::Lock(LockCall { call, token, mode, flags, name, lvb, pid: 1, wants_notices, uses_lost_value })
        })
    }
    fn convert(&self, lock: LockId, mode: Mode, flags: LockFlags, lvb: Option<Box<[u8]>>) -> Result<Progress, Refusal> {
        self.net.call(self.id, self.incarnation, false, |call| ClientCall::Convert { call, lock, mode, flags, lvb })
    }
    fn unlock(&self, lock: LockId, flags: LockFlags, lvb: Option<Box<[u8]>>) -> Result<Progress, Refusal> {
        let overtakes = flags.intersects(LockFlags::CANCEL | LockFlags::FORCEUNLOCK);
        self.net.call(self.id, self.incarnation, overtakes, |call| ClientCall::Unlock { call, lock, flags, lvb })
    }
    fn has_ended(&self) -> bool {
        let state = self.net.lock();
        state.members.get(&self.id).is_none_or(|m| m.incarnation != self.incarnation || m.ended)
    }
    fn is_running(&self) -> bool {
        let state = self.net.lock();
        state.members.get(&self.id).is_some_and(|m| m.engine.is_running())
    }
}

/// How long ago.
#[allow(dead_code, reason = "for traces")]
pub(crate) fn since(start: Instant) -> Duration {
    start.elapsed()
}
