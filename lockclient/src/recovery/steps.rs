//! Stop, start, the sequence of steps, the barriers between them (dlm.md 4.3 to 4.5).

use super::{Exchange, Member, Stage, Start, Step, status};
use crate::engine::resource::Master;
use crate::engine::{Effect, Engine};
use crate::frame::{Frame, NOT_READY, Rcom, RcomBody, RcomConfig, Slot};
use crate::ids::{Name, NodeId};
use crate::status::{Refusal, result};

/// Pauses between polls grow by this much at least, up to the second number.
const POLL_MS: (u64, u64) = (2, 1000);

/// The pause after this one: a quarter longer, so that a barrier is noticed soon after it falls, however long it stood. (A
/// kernel begins with 20 ms, which is most of the time that a small recovery takes.)
fn longer_pause(pause: u64) -> u64 {
    (pause + (pause / 4).max(POLL_MS.0)).min(POLL_MS.1)
}

impl Engine {
    /// Membership changes: nothing is decided any more until the members agree again.
    pub(crate) fn stop(&mut self) {
        let was_running = std::mem::take(&mut self.running);
        let recovery = &mut self.recovery;
        recovery.seq = recovery.seq.wrapping_add(1);
        recovery.stopped = true;
        recovery.status = 0;
        recovery.slots.clear();
        recovery.refused.clear();
        (recovery.step, recovery.exchange, recovery.poll_at) = (Step::Idle, None, None);
        if was_running {
            self.emit(Effect::Prepare);
        }
    }

    /// Begins a recovery with these members.
    pub(crate) fn start(&mut self, start: Start) {
        let ourselves = start.members.iter().any(|m| m.node == self.config.node);
        if self.running || !self.recovery.stopped || !ourselves {
            return self.ignore("start of a lockspace that is not stopped");
        }
        let recovery = &mut self.recovery;
        recovery.seq = recovery.seq.wrapping_add(1);
        recovery.stopped = false;
        self.hold_callbacks = true;
        self.drop_idle_records();
        self.change_members(&start);
        self.redirect_resources();
        self.recovery.step = Step::Greet { peer: 0 };
        self.greet();
    }

    fn drop_idle_records(&mut self) {
        let idle: Vec<_> = self.resources.keys().filter(|key| self.resources[*key].locks == 0).collect();
        for key in idle {
            self.resources.remove(key);
        }
    }

    /// Who is gone, who is new (dlm.md 4.5 step 3).
    fn change_members(&mut self, start: &Start) {
        let stays = |member: &Member| start.members.iter().any(|m| m.node == member.node && !m.new);
        let (kept, lost): (Vec<Member>, Vec<Member>) =
            std::mem::take(&mut self.recovery.members).into_iter().partition(stays);
        self.recovery.members = kept;
        for member in lost {
            self.emit(Effect::MemberRemoved(member.node));
            let here = start.cluster.contains(&(member.node, member.incarnation));
            // Who is still in the cluster has left the lockspace in order: nothing of its own is in doubt.
            if let (false, slot @ 1..) = (here, member.slot_given) {
                self.emit(Effect::SlotFailed(Slot { node: member.node, slot }));
            }
            self.forget_node(member.node);
            self.recovery.gone.push(member.node);
        }
        for new in &start.members {
            if let Some(member) = self.recovery.members.iter_mut().find(|m| m.node == new.node) {
                member.weight = new.weight;
                continue;
            }
            let member = Member {
                node: new.node,
                weight: new.weight,
                incarnation: new.incarnation,
                slot: None,
                slot_before: 0,
                slot_given: 0,
                generation: 0,
            };
            self.recovery.members.push(member);
            self.emit(Effect::MemberAdded(new.node));
        }
        self.recovery.members.sort_by_key(|m| m.node);
        let weighted = self.recovery.members.iter().any(|m| m.weight > 0);
        // A weight beyond reason must not become memory.
        let shares = |m: &Member| if weighted { m.weight.min(1000) } else { 1 };
        let array = self.recovery.members.iter().flat_map(|m| (0..shares(m)).map(|_| m.node));
        self.node_array = array.collect();
    }

    fn redirect_resources(&mut self) {
        let keys: Vec<_> = self.resources.keys().collect();
        for key in keys {
            let node = self.config.node;
            let dir = self.directory_of(self.resources[key].hash);
            let record = &mut self.resources[key];
            record.dir = dir;
            record.unconfirmed = dir == node && matches!(record.master, Master::Node(_));
            record.removed = false;
        }
        self.list_names();
    }

    /// The peer with this number, we ourselves not counted.
    pub(crate) fn peer(&self, number: usize) -> Option<NodeId> {
        let node = self.config.node;
        self.recovery.members.iter().map(|m| m.node).filter(|n| *n != node).nth(number)
    }

    /// Sends a request that is repeated until it is answered.
    pub(crate) fn ask(&mut self, to: NodeId, body: RcomBody) {
        let tag = self.recovery.tag();
        let repeat_at = self.now + self.config.recover_ms;
        self.recovery.exchange = Some(Exchange { tag, to, body: body.clone(), repeat_at });
        self.send_rcom(to, Rcom { result: 0, id: tag, seq: self.recovery.seq, seq_reply: 0, body });
    }

    pub(crate) fn send_rcom(&mut self, to: NodeId, rcom: Rcom) {
        self.emit(Effect::Send { to, frame: Frame::Rcom(Box::new(rcom)) });
    }

    pub(crate) fn recovery_tick(&mut self) {
        if self.recovery.poll_at.is_some_and(|at| at <= self.now) {
            self.recovery.poll_at = None;
            self.poll();
        }
        if self.recovery.exchange.as_ref().is_some_and(|e| e.repeat_at <= self.now)
            && let Some(exchange) = self.recovery.exchange.take()
        {
            self.ask(exchange.to, exchange.body);
        }
    }

    fn greet(&mut self) {
        let Step::Greet { peer } = self.recovery.step else { return };
        match self.peer(peer) {
            Some(node) => self.ask(node, RcomBody::Status { need_slots: false }),
            None => {
                self.recovery.status |= status::NODES;
                self.enter_barrier(Stage::Nodes);
            }
        }
    }

    /// Shows that we have come this far, and waits until all have.
    pub(crate) fn enter_barrier(&mut self, stage: Stage) {
        self.recovery.status |= stage.bit();
        self.recovery.step = Step::Barrier { stage, peer: 0 };
        self.recovery.poll_pause = 0;
        if stage == Stage::Nodes && self.leads() {
            self.forget_slots();
        }
        self.poll();
    }

    fn leads(&self) -> bool {
        self.recovery.low() == self.config.node
    }

    /// Asks the next node that the barrier waits for, or passes the barrier.
    fn poll(&mut self) {
        let Step::Barrier { stage, peer } = self.recovery.step else { return };
        if !self.leads() {
            let low = self.recovery.low();
            return self.ask(low, RcomBody::Status { need_slots: stage == Stage::Nodes });
        }
        match self.peer(peer) {
            Some(node) => self.ask(node, RcomBody::Status { need_slots: false }),
            None => {
                if stage == Stage::Nodes {
                    self.assign_slots();
                }
                self.recovery.status |= stage.bit() << 1;
                self.barrier_passed(stage);
            }
        }
    }

    fn barrier_passed(&mut self, stage: Stage) {
        match stage {
            Stage::Nodes => {
                self.recovery.agreed_once = true;
                self.recovery.step = Step::Names { peer: 0, after: None };
                self.ask_names();
            }
            Stage::Directory => {
                self.settle_waiters();
                if self.recovery.gone.is_empty() {
                    self.enter_barrier(Stage::Locks);
                } else {
                    self.find_masters();
                }
            }
            Stage::Locks => {
                if !self.recovery.gone.is_empty() {
                    self.settle_resources();
                }
                self.drop_stale_messages();
                self.enter_barrier(Stage::Done);
            }
            Stage::Done => self.finish(),
        }
    }

    /// A recovery message; the filter of dlm.md 4.5.3 first.
    pub(crate) fn rcom(&mut self, from: NodeId, rcom: Rcom) {
        if let RcomBody::Status { need_slots } = rcom.body {
            return self.answer_status(from, &rcom, need_slots);
        }
        let status = self.recovery.status;
        let needed = match rcom.body {
            RcomBody::Status { .. } | RcomBody::StatusReply(_) => 0,
            RcomBody::Names { .. } | RcomBody::NamesReply { .. } => status::NODES,
            _ => status::NODES | status::DIR,
        };
        let stale = rcom.body.is_reply() && rcom.seq_reply != self.recovery.seq;
        if self.recovery.stopped || stale || status & needed != needed || !self.recovery.is_member(from) {
            return self.ignore("recovery message of another round");
        }
        match rcom.body {
            RcomBody::Status { .. } => {}
            RcomBody::StatusReply(config) => {
                if self.answers_exchange(from, rcom.id) {
                    self.status_answered(from, rcom.result, &config);
                }
            }
            RcomBody::NamesReply { names, end } => {
                if self.answers_exchange(from, rcom.id) {
                    self.names_answered(from, &names, end);
                }
            }
            RcomBody::Names { after } => self.answer_names(from, rcom.id, rcom.seq, after),
            RcomBody::Lookup { name } => self.answer_master(from, rcom.id, rcom.seq, name),
            RcomBody::LookupReply => self.master_answered(rcom.id, rcom.result),
            RcomBody::Lock(lock) => self.receive_recovered_lock(from, rcom.id, rcom.seq, *lock),
            RcomBody::LockReply(lock) => self.recovered_lock_answered(from, &lock),
        }
    }

    /// Is this what the repeated request waits for? Then it waits no more.
    fn answers_exchange(&mut self, from: NodeId, tag: u64) -> bool {
        let fits = self.recovery.exchange.as_ref().is_some_and(|e| e.to == from && e.tag == tag);
        if fits {
            self.recovery.exchange = None;
        } else {
            self.ignore("recovery answer that nobody awaits");
        }
        fits
    }

    fn answer_status(&mut self, to: NodeId, rcom: &Rcom, need_slots: bool) {
        let recovery = &self.recovery;
        let slots = if need_slots && self.leads() { recovery.slots.clone() } else { Vec::new() };
        let config = RcomConfig {
            // A value block length is at most 64.
            lvblen: self.config.lvb_length as u32,
            lsflags: self.config.lockspace_flags,
            our_slot: recovery.our_slot,
            generation: recovery.generation,
            slots,
        };
        let answer = Rcom {
            // The bits fit into eight.
            result: recovery.status.cast_signed(),
            id: rcom.id,
            seq: recovery.seq,
            seq_reply: rcom.seq,
            body: RcomBody::StatusReply(config),
        };
        self.send_rcom(to, answer);
    }

    fn status_answered(&mut self, from: NodeId, bits: i32, config: &RcomConfig) {
        let ready = config.lvblen != NOT_READY && bits != result::ESRCH;
        let ours = (self.config.lvb_length as u32, self.config.lockspace_flags);
        if ready && (config.lvblen, config.lsflags) != ours {
            self.recovery.step = Step::Failed;
            self.hold_callbacks = true;
            return self.emit(Effect::RecoveryFailed(Refusal::Protocol));
        }
        let shown = if ready { bits.cast_unsigned() } else { 0 };
        match self.recovery.step {
            Step::Greet { peer } => {
                self.recovery.step = Step::Greet { peer: peer + 1 };
                self.greet();
            }
            Step::Barrier { stage, peer } => {
                let leads = self.leads();
                let wanted = if leads { stage.bit() } else { stage.bit() << 1 };
                if shown & wanted == 0 {
                    self.recovery.poll_pause = longer_pause(self.recovery.poll_pause);
                    self.recovery.poll_at = Some(self.now + self.recovery.poll_pause);
                    return;
                }
                self.recovery.poll_pause = 0;
                if leads {
                    if stage == Stage::Nodes {
                        self.note_slot(from, config);
                    }
                    self.recovery.step = Step::Barrier { stage, peer: peer + 1 };
                    self.poll();
                } else {
                    if stage == Stage::Nodes {
                        self.adopt_slots(config);
                    }
                    self.barrier_passed(stage);
                }
            }
            _ => self.ignore("status that nobody awaits"),
        }
    }

    /// Asks the next peer for the names it masters, or goes on.
    pub(crate) fn ask_names(&mut self) {
        let Step::Names { peer, after } = self.recovery.step else { return };
        match self.peer(peer) {
            Some(node) => self.ask(node, RcomBody::Names { after }),
            None => self.enter_barrier(Stage::Directory),
        }
    }

    fn names_answered(&mut self, from: NodeId, names: &[Name], end: bool) {
        let Step::Names { peer, after } = self.recovery.step else { return };
        for name in names {
            self.adopt_name(from, name);
        }
        self.recovery.step = match (end, names.last()) {
            (true, _) => Step::Names { peer: peer + 1, after: None },
            (false, Some(last)) => Step::Names { peer, after: Some(*last) },
            (false, None) => Step::Names { peer, after },
        };
        self.ask_names();
    }
}
