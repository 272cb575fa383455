//! What all nodes hold alike: the table, how far each node's requests have been carried out, and the answers that a
//! node may not have heard. Changed by deliveries alone, so that it is the same everywhere at the same number.

use super::Record;
use crate::ids::NodeId;
use crate::plock::{Adopted, LOCKS_MAX, PlockAnswer, PlockOp, PlockRequest, PlockResult, PlockTable};
use std::collections::{BTreeMap, VecDeque};

/// An answer of ours: to the request of this local number.
pub(super) type Answered = (u64, PlockAnswer);

/// A node's part of the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Session {
    /// Which life of the node.
    life: u64,
    /// The local number of its last request that was carried out: what comes again is not done again.
    last: u64,
    /// Answers given at a number (first) that the node may not have reached.
    answers: VecDeque<(u64, u64, PlockAnswer)>,
}

/// The replicated state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// Deliveries and changes of members so far.
    pub(super) number: u64,
    pub(super) table: PlockTable,
    sessions: BTreeMap<NodeId, Session>,
    /// How many answers were adopted so far, while a state is adopted.
    adopted: usize,
}

/// More members than a cluster has.
const SESSIONS_MAX: usize = 1024;
/// More answers than can be on their way to nodes: there are no more than there were requests that waited.
const ANSWERS_MAX: usize = 2 * LOCKS_MAX;

/// A member as it greets: its life, and the number it has reached (`None`: it has no state).
pub(super) type Greeting = (NodeId, u64, Option<u64>);

impl State {
    /// Carries out a request of a node. `reached` is the number which the node had reached when it asked: it has all
    /// answers up to there.
    pub(super) fn deliver(
        &mut self,
        node: NodeId,
        local: u64,
        reached: u64,
        request: PlockRequest,
    ) -> Vec<PlockResult> {
        self.number = self.number.wrapping_add(1);
        let Some(session) = self.sessions.get_mut(&node) else { return Vec::new() };
        session.forget(reached);
        if local <= session.last {
            return Vec::new();
        }
        session.last = local;
        let ticket = if request.op == PlockOp::Lock { local } else { request.ticket };
        let results = self.table.deliver(PlockRequest { node, ticket, ..request });
        self.keep(&results, local);
        results
    }

    /// The members change: what belongs to nodes that are gone, or have another life now, goes.
    pub(super) fn change_members(&mut self, members: &[Greeting]) {
        self.number = self.number.wrapping_add(1);
        let stays = |node: NodeId, life: u64| members.iter().any(|m| (m.0, m.1) == (node, life));
        let known = self.sessions.iter().map(|(node, session)| (*node, session.life));
        let lost: Vec<NodeId> = known.filter(|(node, life)| !stays(*node, *life)).map(|(node, _)| node).collect();
        for node in &lost {
            self.sessions.remove(node);
        }
        for (node, life, reached) in members {
            let session = self.sessions.entry(*node).or_insert_with(|| Session { life: *life, ..Session::default() });
            session.forget(reached.unwrap_or(0));
        }
        let results = self.table.purge(&lost);
        self.keep(&results, 0);
    }

    /// Keeps answers until the nodes they are for say that they have come this far. `asked` is the request just
    /// carried out; all other answers are for requests that waited.
    fn keep(&mut self, results: &[PlockResult], asked: u64) {
        for result in results {
            let local = local_number(result, asked);
            if let Some(session) = self.sessions.get_mut(&result.request.node) {
                session.answers.push_back((self.number, local, result.answer));
            }
        }
    }

    /// The local number of the last request of a node that was carried out.
    pub(super) fn last(&self, node: NodeId) -> u64 {
        self.sessions.get(&node).map_or(0, |session| session.last)
    }

    /// The answers to a node given after it had reached this number.
    pub(super) fn answers(&self, node: NodeId, reached: u64) -> Vec<Answered> {
        let session = self.sessions.get(&node);
        let all = session.into_iter().flat_map(|session| session.answers.iter());
        all.filter(|(number, _, _)| *number > reached).map(|(_, local, answer)| (*local, *answer)).collect()
    }

    /// Everything, for another member.
    pub(super) fn export(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for (node, session) in &self.sessions {
            records.push(Record::Session { node: *node, life: session.life, last: session.last });
            let answers = session.answers.iter();
            records.extend(answers.map(|(number, local, answer)| Record::Answer {
                node: *node,
                number: *number,
                local: *local,
                answer: *answer,
            }));
        }
        for file in self.table.export() {
            records.extend(file.locks.iter().map(|lock| Record::Lock(file.number, *lock)));
            records.extend(file.waiters.into_iter().map(Record::Waiter));
        }
        records
    }

    /// Takes in a part of what a member has exported; false if that is more than can be.
    pub(super) fn adopt(&mut self, record: Record) -> bool {
        match record {
            Record::Session { node, life, last } => {
                self.sessions.insert(node, Session { life, last, answers: VecDeque::new() });
            }
            Record::Answer { node, number, local, answer } => {
                if let Some(session) = self.sessions.get_mut(&node) {
                    session.answers.push_back((number, local, answer));
                    self.adopted += 1;
                }
            }
            Record::Lock(number, lock) => self.table.adopt(number, Adopted::Lock(lock)),
            Record::Waiter(request) => self.table.adopt(request.number, Adopted::Waiter(request)),
        }
        // An unlock in the middle of a lock makes two of one, full or not.
        let fits = self.sessions.len() <= SESSIONS_MAX && self.adopted <= ANSWERS_MAX;
        fits && self.table.size() <= 2 * LOCKS_MAX
    }

    /// All of it has been taken in: it is the state of this number.
    pub(super) fn adopted(&mut self, number: u64) {
        (self.number, self.adopted) = (number, 0);
    }
}

impl Session {
    fn forget(&mut self, reached: u64) {
        while self.answers.front().is_some_and(|(number, _, _)| *number <= reached) {
            self.answers.pop_front();
        }
    }
}

/// The local number of the request that a result is about, when `asked` was the one just carried out: a lock carries
/// its own, and only a lock is ever answered later.
pub(super) fn local_number(result: &PlockResult, asked: u64) -> u64 {
    if result.request.op == PlockOp::Lock { result.request.ticket } else { asked }
}
