//! What the clients believe: which modes they hold, what they wait for, what they were told, and which value a
//! value block should have. From this follow I3 (mutual exclusion as clients see it), I8 (one completion each) and
//! I11 (values).

use super::{Verdict, World};
use crate::engine::{ClientCall, Event, LockCall};
use crate::flags::{LockFlags, StatusFlags};
use crate::frame::Slot;
use crate::ids::{LockId, NodeId};
use crate::lvb::{self, Transfer};
use crate::mode::{self, Mode};
use crate::status::{Refusal, Status};

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Its status.
    pub status: Status,
    /// DEMOTED, VALNOTVALID, ALTMODE.
    pub flags: StatusFlags,
    /// The mode held afterwards.
    pub mode: Option<Mode>,
    /// The value block returned.
    pub lvb: Option<Box<[u8]>>,
}

/// A client's view of one lock.
#[derive(Clone, Debug)]
pub struct Shadow {
    /// Where.
    pub node: NodeId,
    /// The resource.
    pub name: Vec<u8>,
    /// Known once the call was accepted.
    pub id: Option<LockId>,
    /// The mode held.
    pub held: Option<Mode>,
    /// The mode asked for, and how.
    pub op: Option<(Mode, LockFlags)>,
    /// A cancel was asked for.
    pub cancel: bool,
    /// An unlock was asked for.
    pub unlock: bool,
    /// The lock is gone.
    pub dead: bool,
    /// Told to be in the way of this, and still holding the mode it was told about.
    pub notice: Option<Mode>,
    /// All notices.
    pub notices: Vec<Mode>,
    /// All completions.
    pub outcomes: Vec<Outcome>,
    /// All refusals.
    pub refusals: Vec<Refusal>,
}

/// A call on its way into an engine.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Lock(LockCall),
    Other(ClientCall),
}

/// What a call asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Lock,
    Convert,
    Unlock,
    Cancel,
}

/// What a value block should hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Value {
    pub(crate) last: u64,
    /// A writer died, or the master with the value: anything may be read until the next write.
    pub(crate) doubtful: bool,
}

impl Shadow {
    /// What the client may rely on: what it is giving up counts as given up.
    pub fn relies_on(&self) -> Option<Mode> {
        if self.dead || self.unlock {
            return None;
        }
        match (self.held, self.op) {
            // These allow the master to weaken the mode.
            (Some(_), Some((_, flags)))
                if flags.intersects(LockFlags::CONVDEADLK | LockFlags::ALTPR | LockFlags::ALTCW) =>
            {
                Some(Mode::Nl)
            }
            (Some(held), Some((mode, _))) if mode::middle_conversion(Some(held), Some(mode)) => Some(Mode::Cr),
            (Some(held), Some((mode, _))) => Some(held.min(mode)),
            (held, _) => held,
        }
    }

    /// The last completion.
    pub fn last(&self) -> Option<&Outcome> {
        self.outcomes.last()
    }

    /// Nothing outstanding?
    pub fn is_idle(&self) -> bool {
        !self.dead && self.op.is_none() && !self.unlock && self.id.is_some()
    }
}

impl World {
    pub(crate) fn submit(&mut self, node: NodeId, token: u64, call: Call) -> Verdict {
        let number = self.number();
        let (asked, call) = match call {
            Call::Lock(mut call) => {
                call.call = number;
                let shadow = Shadow {
                    node,
                    name: call.name.as_bytes().to_vec(),
                    id: None,
                    held: None,
                    op: Some((call.mode, call.flags)),
                    cancel: false,
                    unlock: false,
                    dead: false,
                    notice: None,
                    notices: Vec::new(),
                    outcomes: Vec::new(),
                    refusals: Vec::new(),
                };
                self.shadows.insert(token, shadow);
                (Asked::Lock, ClientCall::Lock(call))
            }
            Call::Other(mut client) => {
                let shadow = self.shadows.get_mut(&token).ok_or("no such lock")?;
                let asked = match &mut client {
                    ClientCall::Convert { call, mode, flags, .. } => {
                        *call = number;
                        if shadow.op.is_none() {
                            shadow.op = Some((*mode, *flags));
                            Asked::Convert
                        } else {
                            // Bound to be refused; nothing to take back then.
                            Asked::Cancel
                        }
                    }
                    ClientCall::Unlock { call, flags, .. } if flags.contains(LockFlags::CANCEL) => {
                        *call = number;
                        shadow.cancel = true;
                        Asked::Cancel
                    }
                    ClientCall::Unlock { call, .. } => {
                        *call = number;
                        shadow.unlock = true;
                        Asked::Unlock
                    }
                    ClientCall::Lock(_) => return Err("a new lock is not another call".into()),
                };
                (asked, client)
            }
        };
        self.calls.insert(number, (token, asked));
        self.note(|| format!("{node} client {token}: {call:?}"));
        self.feed(node, Event::Client(call))
    }

    pub(crate) fn accepted(&mut self, call: u64, lock: LockId) {
        let Some((token, _)) = self.calls.remove(&call) else { return };
        if let Some(shadow) = self.shadows.get_mut(&token) {
            shadow.id = Some(lock);
        }
    }

    pub(crate) fn refused(&mut self, call: u64, why: Refusal) {
        let Some((token, asked)) = self.calls.remove(&call) else { return };
        let Some(shadow) = self.shadows.get_mut(&token) else { return };
        shadow.refusals.push(why);
        // What it was to write was not written.
        if let Some(value) = self.values.get_mut(&shadow.name) {
            value.doubtful = true;
        }
        match asked {
            Asked::Lock => shadow.dead = true,
            Asked::Convert => shadow.op = None,
            Asked::Unlock => shadow.unlock = false,
            Asked::Cancel => {}
        }
    }

    pub(crate) fn completed(&mut self, token: u64, outcome: Outcome) -> Verdict {
        let Some(shadow) = self.shadows.get_mut(&token) else {
            return Err(format!("I8: completion for the unknown lock {token}"));
        };
        if shadow.dead {
            return Err(format!("I8: {outcome:?} for lock {token}, which is gone"));
        }
        let middle = shadow.op.is_some_and(|(mode, _)| mode::middle_conversion(shadow.held, Some(mode)));
        let excess = || Err(format!("I8: {outcome:?} for lock {token}, which asked for nothing of the kind"));
        match outcome.status {
            Status::Granted => {
                let Some((mode, flags)) = shadow.op.take() else { return excess() };
                let alternate = outcome.flags.contains(StatusFlags::ALTMODE);
                let fits = match outcome.mode {
                    Some(Mode::Pr) if alternate => flags.contains(LockFlags::ALTPR),
                    Some(Mode::Cw) if alternate => flags.contains(LockFlags::ALTCW),
                    granted => granted == Some(mode),
                };
                if !fits {
                    return excess();
                }
                (shadow.held, shadow.notice) = (outcome.mode, None);
            }
            Status::Unlocked if shadow.unlock => shadow.dead = true,
            Status::Cancelled if shadow.cancel && shadow.op.take().is_some() => shadow.dead = shadow.held.is_none(),
            Status::Again => {
                // The only failure a first request knows besides cancellation, and only if it asked for it.
                let Some((_, flags)) = shadow.op.take() else { return excess() };
                if !flags.contains(LockFlags::NOQUEUE) {
                    return excess();
                }
                shadow.dead = shadow.held.is_none();
            }
            Status::Deadlock if shadow.held.is_some() && shadow.op.take().is_some() => {}
            _ => return excess(),
        }
        shadow.cancel = false;
        if middle && shadow.held.is_some() && matches!(outcome.mode, Some(Mode::Pr | Mode::Cw)) {
            // The master died with the answer, and only its successor knows which of the two modes this is.
            shadow.held = outcome.mode;
        }
        if shadow.held.is_some()
            && outcome.mode != shadow.held
            && !shadow.dead
            && !outcome.flags.contains(StatusFlags::DEMOTED)
        {
            return Err(format!("lock {token} holds {:?}, the engine says {:?}", shadow.held, outcome.mode));
        }
        if outcome.flags.contains(StatusFlags::DEMOTED) && !shadow.dead {
            shadow.held = outcome.mode;
        }
        shadow.outcomes.push(outcome);
        self.check_value(token)?;
        self.check_exclusion(token)
    }

    pub(crate) fn notified(&mut self, token: u64, blocked: Mode) -> Verdict {
        let Some(shadow) = self.shadows.get_mut(&token) else { return Ok(()) };
        if shadow.dead {
            return Err(format!("I8: notice for lock {token}, which is gone"));
        }
        shadow.notices.push(blocked);
        let held = shadow.held;
        let kept = shadow.notice.filter(|before| *before > blocked && !mode::compatible(Some(*before), held));
        shadow.notice = Some(kept.unwrap_or(blocked));
        Ok(())
    }

    /// I3: what clients rely on is compatible.
    fn check_exclusion(&self, token: u64) -> Verdict {
        let shadow = &self.shadows[&token];
        let mine = shadow.relies_on();
        for (other, theirs) in self.shadows.iter().filter(|(other, s)| **other != token && s.name == shadow.name) {
            if !mode::compatible(mine, theirs.relies_on()) {
                return Err(format!(
                    "I3: locks {token} on {} and {other} on {} hold {mine:?} and {:?} of {}",
                    shadow.node,
                    theirs.node,
                    theirs.relies_on(),
                    shadow.name.escape_ascii()
                ));
            }
        }
        Ok(())
    }

    /// I11: a value read under a mode that excludes writers is the last one written.
    fn check_value(&self, token: u64) -> Verdict {
        let shadow = &self.shadows[&token];
        let Some(outcome) = shadow.last() else { return Ok(()) };
        let (Some(lvb), Some(value)) = (&outcome.lvb, self.values.get(&shadow.name)) else { return Ok(()) };
        let certain = outcome.mode > Some(Mode::Cr) && !outcome.flags.contains(StatusFlags::VALNOTVALID);
        let read = number_in(lvb);
        // Zero: the resource was forgotten in between, and its value with it.
        if certain && !value.doubtful && read != 0 && read != value.last {
            return Err(format!("I11: lock {token} reads {read}, {} was written", value.last));
        }
        Ok(())
    }

    /// The bytes a call writes, if it writes.
    pub(crate) fn value_to_write(&mut self, token: u64, mode: Mode, flags: LockFlags) -> Option<Box<[u8]>> {
        let number = self.number();
        let shadow = self.shadows.get(&token)?;
        if flags.intersects(LockFlags::ALTPR | LockFlags::ALTCW)
            && shadow.held >= Some(Mode::Pw)
            && let Some(value) = self.values.get_mut(&shadow.name)
        {
            // The alternate mode may make it a down-conversion, which writes whatever the lock has.
            value.doubtful = true;
        }
        let writes = flags.contains(LockFlags::VALBLK)
            && !flags.contains(LockFlags::IVVALBLK)
            && shadow.is_idle()
            && shadow.held.is_some_and(|held| lvb::transfer(Some(held), mode) == Transfer::Write);
        if !writes {
            return None;
        }
        self.values.insert(shadow.name.clone(), Value { last: number, doubtful: false });
        let mut bytes = vec![0; 32];
        for (i, byte) in bytes.iter_mut().take(8).enumerate() {
            *byte = (number >> (8 * i)) as u8;
        }
        Some(bytes.into())
    }

    /// A node dies: which values may be lost with it?
    pub(crate) fn doubt_values(&mut self, id: NodeId) {
        // As master it takes values with it; as a writer it may not have written.
        let _ = id;
        for value in self.values.values_mut() {
            value.doubtful = true;
        }
    }

    pub(crate) fn recovered(&mut self, id: NodeId, slots: Vec<Slot>, our_slot: u16, generation: u32) -> Verdict {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let change = node.started;
        let own = slots.iter().find(|s| s.node == id).map_or(0, |s| s.slot);
        if own != our_slot {
            return Err(format!("I16: {id} is told slot {our_slot}, the table says {own}"));
        }
        let mut numbers: Vec<u16> = slots.iter().map(|s| s.slot).collect();
        numbers.sort_unstable();
        numbers.dedup();
        if numbers.len() != slots.len() || slots.is_empty() || numbers.contains(&0) {
            return Err(format!("I16: slots {slots:?}"));
        }
        if let Some((_, _, before)) = node.recovered.last()
            && before.iter().any(|s| s.node == id && s.slot != own)
        {
            return Err(format!("I16: the slot of {id} changed"));
        }
        node.recovered.push((change, generation, slots.clone()));
        let agreed = self.slots_by_change.entry(change).or_insert_with(|| (generation, slots.clone()));
        if *agreed != (generation, slots) {
            return Err(format!("I16: {id} differs about the slots of change {change}"));
        }
        Ok(())
    }
}

/// The number a value block holds.
pub(crate) fn number_in(lvb: &[u8]) -> u64 {
    lvb.iter().take(8).enumerate().fold(0, |number, (i, byte)| number | u64::from(*byte) << (8 * i))
}
