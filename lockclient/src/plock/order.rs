//! Byte-range locks in the same order on all members, without a process group: the ordered multicast that the table
//! needs, on top of streams that deliver in order between two nodes and of a membership that stops every member before
//! it starts any ([`crate::membership::fixed`]). One pure machine per lockspace.
//!
//! *A round* is the time between a start and the next stop. In every round
//!
//! 1. all members greet one another, each with the number it has reached, if it has the state at all;
//! 2. who has reached the highest number (of several, the lowest node) is the *source* of the round. It takes out what
//!    belongs to nodes that are gone or have begun a new life, and sends its state to the others, who adopt it;
//! 3. everyone sends again to the source what it has asked and what has not been carried out yet. The source gives
//!    each request a number and sends it to all, itself included; that is *delivery*, and only delivery changes the
//!    state. Nothing is delivered while stopped.
//!
//! Why no granted lock is ever lost. A node reports an answer only when it has delivered the request, or has adopted a
//! state in which it was. Within a round all members deliver prefixes of one sequence, which begins with the state
//! that the source had. A member of the next round has a prefix of it at most as long as the new source's, for the
//! source is chosen after all members have told theirs: so what any survivor has reported is in the state that all go
//! on with. What was delivered by dead nodes only may be undone; nobody is left who has heard of it.
//!
//! Why nothing is done twice. A request carries its node and a number of that node that only grows, and the state
//! remembers the last of each node that was carried out. The answer to one that was carried out beyond the point that
//! its node had reached is kept in the state until the node says, with its next request, that it has come that far.
//!
//! A node that is alone is its own source: it sends nothing and answers at once. Waiting for one another cannot come
//! from this machine: it never waits for a lock, only for messages. Programs whose locks wait for each other are not
//! noticed, as on any GFS2 cluster.

mod message;
mod state;
#[cfg(test)]
mod tests;

pub use message::{OrderBody, OrderEffect, OrderFrame, PIECE_RECORDS, PlockAsk, Record};

use super::{PlockAnswer, PlockOp, PlockRequest, PlockTable};
use crate::ids::NodeId;
use state::{Greeting, State, local_number};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

#[derive(Clone, Debug)]
enum Phase {
    /// Between rounds.
    Stopped,
    /// The members of the round that have greeted.
    Greeting(BTreeMap<NodeId, Greeting>),
    /// The source's state comes in.
    Adopting { source: NodeId, pieces: u32, incoming: State },
    /// Requests go to the source.
    Running { source: NodeId },
    /// The membership cannot tell rounds apart: there are no such locks.
    Refusing,
}

/// A request of ours that has not ended.
#[derive(Clone, Copy, Debug)]
struct Pending {
    request: PlockRequest,
    /// It is not the client's: nobody is to be answered.
    silent: bool,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Order {
    node: NodeId,
    life: u64,
    round: u64,
    members: BTreeSet<NodeId>,
    phase: Phase,
    /// `None` until a state has been adopted.
    state: Option<State>,
    /// Greetings of a round that we have not begun.
    early: BTreeMap<NodeId, (u64, Greeting)>,
    pending: BTreeMap<u64, Pending>,
    /// The last local number given.
    locals: u64,
    /// The last local number that any source has seen.
    submitted: u64,
    effects: VecDeque<OrderEffect>,
    dropped: u64,
    /// A rule broken on purpose, to prove that the checks see it.
    #[cfg(test)]
    mutation: Option<Mutation>,
}

/// Rules that a test can break.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutation {
    /// The lowest member with a state is the source, however far others have come.
    LowestIsSource,
    /// Answers given beyond the point that a node has reached are not reported.
    LoseAnswers,
    /// Frames of other rounds count.
    MixRounds,
    /// Delivery goes on after a stop.
    IgnoreStop,
}

impl Order {
    /// A lockspace that has just been joined; `life` differs between any two joins of this node.
    pub fn new(node: NodeId, life: u64) -> Order {
        Order {
            node,
            life,
            round: 0,
            members: BTreeSet::new(),
            phase: Phase::Stopped,
            state: None,
            early: BTreeMap::new(),
            pending: BTreeMap::new(),
            locals: 0,
            submitted: 0,
            effects: VecDeque::new(),
            dropped: 0,
            #[cfg(test)]
            mutation: None,
        }
    }

    /// The next thing to be done.
    pub fn next_effect(&mut self) -> Option<OrderEffect> {
        self.effects.pop_front()
    }

    /// The table as this node has it; `None` before it has one.
    pub fn table(&self) -> Option<&PlockTable> {
        self.state.as_ref().map(|state| &state.table)
    }

    /// The number reached.
    pub fn reached(&self) -> Option<u64> {
        self.state.as_ref().map(|state| state.number)
    }

    /// Who orders the requests now; `None` between rounds.
    pub fn source(&self) -> Option<NodeId> {
        if let Phase::Running { source } = self.phase { Some(source) } else { None }
    }

    /// Requests that have not ended.
    pub fn outstanding(&self) -> usize {
        self.pending.len()
    }

    /// Frames that did not fit and were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// A request of a client; its answer follows under the number returned, perhaps at once.
    pub fn ask(&mut self, ask: PlockAsk) -> u64 {
        let PlockAsk { op, exclusive, wait, pid, number, start, end, owner } = ask;
        let (node, close, ticket) = (self.node, false, 0);
        let wait = wait && op == PlockOp::Lock;
        let request = PlockRequest { op, exclusive, wait, close, pid, node, number, start, end, owner, ticket };
        // To a reversed range the table has no answer, and a cancel has a way of its own.
        if start > end || op == PlockOp::Cancel {
            return self.answer_at_once(PlockAnswer::NoEntry);
        }
        if op == PlockOp::Unlock && !self.concerns(number, owner) {
            return self.answer_at_once(PlockAnswer::Done);
        }
        if matches!(self.phase, Phase::Refusing) {
            return self.answer_at_once(PlockAnswer::NoLocks);
        }
        self.submit(request, false)
    }

    /// The newest request to lock that asks for this and has not ended.
    pub fn find(&self, ask: &PlockAsk) -> Option<u64> {
        let is_it = |p: &Pending| {
            let r = &p.request;
            let (range, kind) = ((r.start, r.end, r.exclusive), r.op == PlockOp::Lock);
            kind && (r.number, r.owner) == (ask.number, ask.owner) && range == (ask.start, ask.end, ask.exclusive)
        };
        self.pending.iter().rev().find(|(_, pending)| is_it(pending)).map(|(local, _)| *local)
    }

    /// Gives a waiting request up. It ends as `Interrupted`, or with the answer that was faster.
    pub fn cancel(&mut self, local: u64) {
        let Some(pending) = self.pending.get(&local).copied() else { return };
        if pending.silent || pending.request.op == PlockOp::Cancel {
            return;
        }
        if local > self.submitted {
            self.pending.remove(&local);
            return self.effects.push_back(OrderEffect::Answer(local, PlockAnswer::Interrupted));
        }
        if pending.request.op == PlockOp::Lock && pending.request.wait {
            self.submit(PlockRequest { op: PlockOp::Cancel, ticket: local, ..pending.request }, true);
        }
    }

    /// An owner has closed an inode: its locks go, and what it waits for ends as `Interrupted`.
    pub fn close(&mut self, number: u64, owner: u64) {
        if !self.concerns(number, owner) {
            return;
        }
        let request = PlockRequest {
            op: PlockOp::Unlock,
            exclusive: false,
            wait: false,
            close: true,
            pid: 0,
            node: self.node,
            number,
            start: 0,
            end: u64::MAX,
            owner,
            ticket: 0,
        };
        self.submit(request, true);
    }

    /// Has the owner anything on this inode, or anything under way?
    fn concerns(&self, number: u64, owner: u64) -> bool {
        let held = self.state.as_ref().is_some_and(|state| state.table.concerns(number, self.node, owner));
        let is_its = |pending: &Pending| (pending.request.number, pending.request.owner) == (number, owner);
        held || self.pending.values().any(is_its)
    }

    fn answer_at_once(&mut self, answer: PlockAnswer) -> u64 {
        self.locals += 1;
        self.effects.push_back(OrderEffect::Answer(self.locals, answer));
        self.locals
    }

    fn submit(&mut self, request: PlockRequest, silent: bool) -> u64 {
        self.locals += 1;
        let local = self.locals;
        self.pending.insert(local, Pending { request, silent });
        self.send_submit(local, request);
        local
    }

    fn send_submit(&mut self, local: u64, request: PlockRequest) {
        let (Phase::Running { source }, Some(reached)) = (&self.phase, self.reached()) else { return };
        let source = *source;
        self.submitted = self.submitted.max(local);
        match source == self.node {
            true => self.number(self.node, local, reached, request),
            false => self.send(source, OrderBody::Submit { local, reached, request }),
        }
    }

    fn send(&mut self, to: NodeId, body: OrderBody) {
        self.effects.push_back(OrderEffect::Send { to, frame: OrderFrame { round: self.round, body } });
    }

    fn others(&self) -> Vec<NodeId> {
        self.members.iter().copied().filter(|node| *node != self.node).collect()
    }

    /// Membership changes: nothing is delivered any more until the next round.
    pub fn stop(&mut self) {
        #[cfg(test)]
        if self.mutation == Some(Mutation::IgnoreStop) {
            return;
        }
        self.phase = Phase::Stopped;
    }

    /// A round begins, with these members. Nothing that belongs to another round counts any more.
    pub fn start(&mut self, round: u64, members: impl IntoIterator<Item = NodeId>) {
        self.round = round;
        self.members = members.into_iter().collect();
        let alone = self.others().is_empty();
        if round == 0 && !alone {
            self.phase = Phase::Refusing;
            return self.refuse_all();
        }
        let own = (self.node, self.life, self.reached());
        let mut greeted = BTreeMap::from([(self.node, own)]);
        for (node, (of, greeting)) in std::mem::take(&mut self.early) {
            if self.is_current(of) && self.members.contains(&node) {
                greeted.insert(node, greeting);
            }
        }
        self.phase = Phase::Greeting(greeted);
        for node in self.others() {
            self.send(node, OrderBody::Hello { life: self.life, reached: own.2 });
        }
        self.choose();
    }

    fn refuse_all(&mut self) {
        for (local, pending) in std::mem::take(&mut self.pending) {
            if !pending.silent {
                self.effects.push_back(OrderEffect::Answer(local, PlockAnswer::NoLocks));
            }
        }
    }

    /// A frame from a peer.
    pub fn receive(&mut self, from: NodeId, frame: OrderFrame) {
        if let OrderBody::Hello { life, reached } = frame.body {
            return self.hello(from, frame.round, (from, life, reached));
        }
        let stopped = matches!(self.phase, Phase::Stopped | Phase::Refusing);
        if !self.is_current(frame.round) || stopped || !self.members.contains(&from) || from == self.node {
            return self.dropped += 1;
        }
        match frame.body {
            OrderBody::Hello { .. } => {}
            OrderBody::Piece { index, last, number, records } => self.piece(from, (index, last), number, records),
            OrderBody::Submit { local, reached, request } if self.source() == Some(self.node) => {
                self.number(from, local, reached, PlockRequest { node: from, ..request });
            }
            OrderBody::Deliver { number, local, reached, request } if self.source() == Some(from) => {
                if self.reached().map(|reached| reached.wrapping_add(1)) == Some(number) {
                    self.deliver(local, reached, request);
                } else {
                    self.demand(from);
                }
            }
            // Meant for a time before a gap, which has been demanded, or before a source was chosen.
            OrderBody::Submit { .. } | OrderBody::Deliver { .. } => self.dropped += 1,
        }
    }

    fn is_current(&self, round: u64) -> bool {
        #[cfg(test)]
        if self.mutation == Some(Mutation::MixRounds) {
            return true;
        }
        round == self.round
    }

    fn hello(&mut self, from: NodeId, round: u64, greeting: Greeting) {
        let current = self.is_current(round) && self.members.contains(&from);
        match &mut self.phase {
            Phase::Greeting(greeted) if current => {
                greeted.insert(from, greeting);
                self.choose();
            }
            // It has missed something: the state once more.
            Phase::Running { source } if current && *source == self.node => self.send_state(from),
            Phase::Stopped | Phase::Greeting(_) => {
                self.early.insert(from, (round, greeting));
            }
            // Of a round that is over; nobody can be ahead of a round that goes on.
            _ => self.dropped += 1,
        }
    }

    /// All members have greeted: who is the source?
    fn choose(&mut self) {
        let Phase::Greeting(greeted) = &self.phase else { return };
        if greeted.len() < self.members.len() {
            return;
        }
        let members: Vec<Greeting> = greeted.values().copied().collect();
        // Without any state the lowest begins with an empty one.
        let best = members.iter().max_by_key(|(node, _, reached)| (*reached, Reverse(*node)));
        #[cfg(test)]
        let best = match self.mutation {
            Some(Mutation::LowestIsSource) => members.iter().max_by_key(|m| (m.2.is_some(), Reverse(m.0))),
            _ => best,
        };
        let source = best.map_or(self.node, |best| best.0);
        if source != self.node {
            self.phase = Phase::Adopting { source, pieces: 0, incoming: State::default() };
            return;
        }
        let mut state = self.state.take().unwrap_or_default();
        let reached = state.number;
        state.change_members(&members);
        self.state = Some(state);
        for node in self.others() {
            self.send_state(node);
        }
        self.begin(source, reached);
    }

    fn send_state(&mut self, to: NodeId) {
        let Some(state) = &self.state else { return };
        let (records, number) = (state.export(), state.number);
        let count = records.len().div_ceil(PIECE_RECORDS).max(1);
        let mut pieces = records.chunks(PIECE_RECORDS);
        for index in 0..count {
            let records = pieces.next().unwrap_or_default().to_vec();
            // As many pieces as a table of `LOCKS_MAX` has.
            self.send(to, OrderBody::Piece { index: index as u32, last: index + 1 == count, number, records });
        }
    }

    fn piece(&mut self, from: NodeId, (index, last): (u32, bool), number: u64, records: Vec<Record>) {
        if matches!(self.phase, Phase::Greeting(_)) {
            // The source has heard all greetings, of which some are still on their way to us: we would choose it too.
            self.phase = Phase::Adopting { source: from, pieces: 0, incoming: State::default() };
        }
        let Phase::Adopting { source, pieces, incoming } = &mut self.phase else { return self.dropped += 1 };
        if *source != from {
            return self.dropped += 1;
        }
        if index == 0 {
            // Also after a demand that crossed the first sending.
            (*pieces, *incoming) = (0, State::default());
        }
        if *pieces != index {
            // The rest of a state of which a part is missing; asking for it once is enough.
            return if *pieces > 0 { self.demand(from) } else { self.dropped += 1 };
        }
        if !records.into_iter().all(|record| incoming.adopt(record)) {
            // More than any node can have: it is not to be had from this source.
            (*pieces, *incoming) = (0, State::default());
            return self.dropped += 1;
        }
        *pieces += 1;
        if last {
            incoming.adopted(number);
            let state = std::mem::take(incoming);
            let reached = self.reached().unwrap_or(0);
            self.state = Some(state);
            self.begin(from, reached);
        }
    }

    /// Something is missing, which the streams should not allow: asks for the whole state.
    fn demand(&mut self, source: NodeId) {
        self.dropped += 1;
        self.phase = Phase::Adopting { source, pieces: 0, incoming: State::default() };
        self.send(source, OrderBody::Hello { life: self.life, reached: self.reached() });
    }

    /// The state of the round stands. `reached` is where we were before: answers given since then are reported; what
    /// has not been carried out is asked again.
    fn begin(&mut self, source: NodeId, reached: u64) {
        let Some(state) = &self.state else { return };
        let (answers, last) = (state.answers(self.node, reached), state.last(self.node));
        self.phase = Phase::Running { source };
        #[cfg(test)]
        let answers = if self.mutation == Some(Mutation::LoseAnswers) { Vec::new() } else { answers };
        for (local, answer) in answers {
            self.answer(local, answer);
        }
        self.settle();
        let again: Vec<(u64, PlockRequest)> = self
            .pending
            .range((Bound::Excluded(last), Bound::Unbounded))
            .map(|(local, pending)| (*local, pending.request))
            .collect();
        for (local, request) in again {
            self.send_submit(local, request);
        }
    }

    /// As the source: gives a request its number.
    fn number(&mut self, from: NodeId, local: u64, reached: u64, request: PlockRequest) {
        let Some(number) = self.reached().map(|reached| reached.wrapping_add(1)) else { return };
        for node in self.others() {
            self.send(
                node,
                OrderBody::Deliver { number, local, reached, request: PlockRequest { node: from, ..request } },
            );
        }
        self.deliver(local, reached, request);
    }

    fn deliver(&mut self, local: u64, reached: u64, request: PlockRequest) {
        let Some(state) = &mut self.state else { return };
        let results = state.deliver(request.node, local, reached, request);
        let node = self.node;
        for result in results.into_iter().filter(|result| result.request.node == node) {
            self.answer(local_number(&result, local), result.answer);
        }
        if request.node == self.node && (request.close || request.op == PlockOp::Cancel) {
            self.settle();
        }
    }

    fn answer(&mut self, local: u64, answer: PlockAnswer) {
        let Some(pending) = self.pending.remove(&local) else { return };
        if !pending.silent {
            self.effects.push_back(OrderEffect::Answer(local, answer));
        }
    }

    /// What has been carried out without an answer either waits, or it was a close, or it was taken away from those
    /// who wait, by a cancel or a close.
    fn settle(&mut self) {
        let Some(state) = &self.state else { return };
        let waits = |local: u64, p: &Pending| state.table.is_waiting(p.request.number, self.node, local);
        let done = self.pending.range(..=state.last(self.node)).filter(|(local, pending)| !waits(**local, pending));
        let done: Vec<u64> = done.map(|(local, _)| *local).collect();
        for local in done {
            self.answer(local, PlockAnswer::Interrupted);
        }
    }
}
