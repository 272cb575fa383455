//! Who mounts first, and whose journal is to be replayed (dlm.md 5.7, 5.8): a function of what happened. No clock, no thread, no
//! lock in here.
//!
//! Every node runs this machine, a kernel its own of the same conduct; they meet in two locks. MOUNTED is held shared by
//! each mounted node, so that whoever gets it exclusively is alone. The value block of CONTROL ([`ControlBlock`]) says up to
//! which generation of the lockspace deaths have been noted in it, and which journals wait for their replay.
//!
//! ```text
//!  Mount ─► CONTROL NL ─► MOUNTED NL ─► ┌► sleep ─► CONTROL EX (try) ─► MOUNTED EX (try) ─► first mounter
//!                                       │    again ◄─┘ no                     │ no
//!                                       └── not yet ◄── CONTROL NL ◄── MOUNTED PR (try)
//!                                                           └─► journals clean, generation ours: mounted
//!
//!  Prepare ─► hold grants back           SlotFailed(s) ─► note it          Done(generation) ─► work:
//!  CONTROL EX ─► note deaths, strike out what is replayed ─► CONTROL NL ─► some left: replay them, then work again
//!                                                                      └─► none left: grants are told
//! ```
//!
//! Invariants:
//! 1. At most one procedure runs, with at most one question or sleep open.
//! 2. Grants are held back from the moment a mounted node hears `Prepare` until it has seen, under CONTROL EX, that no
//!    journal waits, in a generation not older than that.
//! 3. The death of the lock's master can bring an older value of the block back (of two copies of equal number the lock service
//!    takes either, dlm.md 1.10). Whoever sees a generation older than one it saw before notes again what waited then.
//! 4. A replay counts for deaths before it alone: it is reported before the journal's lock is given up, and forgotten when the
//!    journal's owner fails.
//! 5. A bit is struck out only after a replay succeeded here, and only if no newer generation is on its way.

mod block;
mod mounting;
mod work;

#[cfg(test)]
mod schedule;
#[cfg(test)]
mod transcript;

use block::ControlBlock;
pub(super) use block::JIDS;

use crate::glock::Lvb;
use lockclient::mode::Mode;
use std::collections::BTreeSet;

/// One of the two locks this machine takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Control,
    Mounted,
}

/// What becomes of the value block with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing.
    Skip,
    /// It is wanted.
    Fetch,
    /// It is left behind.
    Write(Lvb),
}

/// A question to the lock service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) which: Which,
    pub(super) mode: Mode,
    /// Rather not than wait.
    pub(super) tries: bool,
    pub(super) value: Value,
}

/// Why a mount does not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The value block says that nobody may mount.
    Disabled,
    /// Another node is the first mounter although CONTROL is ours: the cluster contradicts itself.
    Contended,
    /// Somebody stopped us.
    Interrupted,
    /// The lockspace is gone.
    Gone,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Locking has stopped.
    Prepare,
    /// The node with this slot has failed.
    SlotFailed(u16),
    /// Locking goes on: our slot, the largest slot, the generation.
    Done { our_slot: u16, largest: u16, generation: u32 },
    /// We want to mount.
    Mount,
    /// We want to mount no longer, if it is not too late.
    Stop,
    /// We are the first mounter, and all journals are replayed.
    FirstDone,
    /// The question is answered: granted or not, with the value block as known now.
    Answer { granted: bool, lvb: Lvb },
    /// The question will never be answered.
    Gone,
    /// A time has passed.
    Wake,
    /// A replay has ended; without success another node may have been at it, or it could not be done.
    Recovered { jid: u32, success: bool },
    /// Somebody withdrew.
    RemoteWithdraw,
    /// We are leaving.
    Unmount,
    /// We have withdrawn.
    Withdraw,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Ask; answer with `Answer` or `Gone`.
    Ask(Ask),
    /// Come back with `Wake` after so many milliseconds.
    WakeAfter(u64),
    /// Grants are held back.
    Hold,
    /// Grants are told.
    Release,
    /// We may mount.
    Mounted { first: bool },
    /// We may not.
    Refused(Refusal),
    /// Others may mount.
    Published,
    /// Replay this journal; answer with `Recovered`.
    Recover(u32),
    /// Replay, of all journals but our own, those that nobody owns; answer with `Recovered` for each.
    RecoverOthers,
}

/// Where the procedure stands that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Idle,
    Mounting(mounting::Step),
    Working(work::Step),
    /// The lockspace is gone.
    Dead,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Control {
    spectator: bool,
    /// The generation when locking last stopped, the newest one, and the one in which we came.
    block: u32,
    start: u32,
    mount: u32,
    /// Our journal; `None` before the first generation.
    jid: Option<u32>,
    /// For each journal: the generation (`block`) in which its owner failed, 0 for none.
    submit: Vec<u32>,
    /// For each journal: replayed here.
    replayed: Vec<bool>,
    /// Replays that have not been answered yet.
    under_way: BTreeSet<u32>,
    held: bool,
    mount_done: bool,
    first_mount: bool,
    /// Locking is stopped or being recovered.
    recovering: bool,
    unmount: bool,
    withdrawn: bool,
    /// `Stop` was heard.
    stopped: bool,
    /// Somebody withdrew, and we have not looked yet.
    remote_withdraw: bool,
    /// There may be work.
    wanted: bool,
    step: Step,
    /// What we hold of MOUNTED.
    mounted: Mode,
    /// The value block as we last saw or wrote it.
    seen: ControlBlock,
    /// Replays in vain since the last that was not.
    in_vain: u32,
}

impl Control {
    /// A node that has just entered the lockspace.
    pub(super) fn new(spectator: bool) -> Self {
        Self {
            spectator,
            block: 0,
            start: 0,
            mount: 0,
            jid: None,
            submit: Vec::new(),
            replayed: Vec::new(),
            under_way: BTreeSet::new(),
            held: false,
            mount_done: false,
            first_mount: false,
            recovering: false,
            unmount: false,
            withdrawn: false,
            stopped: false,
            remote_withdraw: false,
            wanted: false,
            step: Step::Idle,
            mounted: Mode::Nl,
            seen: ControlBlock::clean(0),
            in_vain: 0,
        }
    }

    /// Our journal id, once the lockspace has given us a slot.
    pub(super) fn jid(&self) -> Option<u32> {
        self.jid
    }

    /// Something happened; says what is to be done, in this order.
    pub(super) fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        match event {
            Event::Prepare | Event::SlotFailed(_) | Event::Done { .. } if self.withdrawn => {}
            Event::Prepare => self.prepare(&mut out),
            Event::SlotFailed(slot) => self.failed(slot),
            Event::Done { our_slot, largest, generation } => self.done(our_slot, largest, generation, &mut out),
            Event::Mount => self.begin_mount(&mut out),
            Event::Stop => self.stop(&mut out),
            Event::FirstDone => self.first_done(&mut out),
            Event::Answer { granted, lvb } => match self.step {
                Step::Mounting(step) => self.mount_answer(step, granted, lvb, &mut out),
                Step::Working(step) => self.work_answer(step, granted, lvb, &mut out),
                Step::Idle | Step::Dead => {}
            },
            Event::Gone => {
                let mounting = matches!(self.step, Step::Mounting(_)) && !self.mount_done;
                self.step = Step::Dead;
                if mounting {
                    out.push(Effect::Refused(Refusal::Gone));
                }
            }
            Event::Wake => match self.step {
                Step::Mounting(mounting::Step::Sleep) => self.try_control(&mut out),
                _ => self.wanted = true,
            },
            Event::Recovered { jid, success } => self.recovered(jid, success, &mut out),
            Event::RemoteWithdraw if !self.withdrawn => (self.remote_withdraw, self.wanted) = (true, true),
            Event::RemoteWithdraw => {}
            Event::Unmount => self.unmount = true,
            Event::Withdraw => self.withdrawn = true,
        }
        self.work(&mut out);
        out
    }

    fn prepare(&mut self, out: &mut Vec<Effect>) {
        self.block = self.start;
        self.recovering = true;
        if self.mount_done && !self.first_mount {
            self.hold(out);
        }
    }

    fn failed(&mut self, slot: u16) {
        let Some(jid) = usize::from(slot).checked_sub(1) else { return };
        if let (Some(submitted), Some(replayed)) = (self.submit.get_mut(jid), self.replayed.get_mut(jid)) {
            *submitted = self.block;
            // If we have replayed this journal it was before its owner had it.
            *replayed = false;
        }
    }

    fn done(&mut self, our_slot: u16, largest: u16, generation: u32, out: &mut Vec<Effect>) {
        let size = usize::from(largest).next_multiple_of(16);
        if size > self.submit.len() {
            self.submit.resize(size, 0);
            self.replayed.resize(size, false);
        }
        self.start = generation;
        if self.jid.is_none() {
            self.jid = u32::from(our_slot).checked_sub(1);
            self.mount = generation;
        }
        self.recovering = false;
        self.wanted |= !self.unmount;
        if self.step == Step::Mounting(mounting::Step::AwaitRecovery) {
            self.publish(out);
        }
    }

    fn recovered(&mut self, jid: u32, success: bool, out: &mut Vec<Effect>) {
        self.under_way.remove(&jid);
        if Some(jid) == self.jid || self.first_mount {
            return;
        }
        if let Some(replayed) = usize::try_from(jid).ok().and_then(|jid| self.replayed.get_mut(jid)) {
            *replayed = success;
        }
        if success {
            (self.wanted, self.in_vain) = (true, 0);
        } else {
            out.push(Effect::WakeAfter((RETRY_SOON << self.in_vain.min(10)).min(RETRY)));
            self.in_vain = self.in_vain.saturating_add(1);
        }
    }

    fn hold(&mut self, out: &mut Vec<Effect>) {
        if !self.held {
            self.held = true;
            out.push(Effect::Hold);
        }
    }
    fn release(&mut self, out: &mut Vec<Effect>) {
        if self.held {
            self.held = false;
            out.push(Effect::Release);
        }
    }
    fn forget_notes(&mut self) {
        self.in_vain = 0;
        self.submit.fill(0);
        self.replayed.fill(false);
    }
    /// Locking is stopped or being recovered, as seen by the numbers.
    fn is_stopped(&self) -> bool {
        self.block == self.start
    }

    fn ask(which: Which, mode: Mode, tries: bool, value: Value, out: &mut Vec<Effect>) {
        out.push(Effect::Ask(Ask { which, mode, tries, value }));
    }
}

/// A replay without success is tried again after this, in milliseconds.
const RETRY: u64 = 1000;
/// The first time: mostly another node is at it, and will have done it in a moment. Doubled each time, up to [`RETRY`].
const RETRY_SOON: u64 = 50;
