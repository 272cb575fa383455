//! What is done after every change of the membership, and after every replay (dlm.md 5.8, "control work").

use super::{Control, ControlBlock, Effect, JIDS, Value, Which};
use crate::glock::Lvb;
use lockclient::mode::Mode;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Waiting for CONTROL; the generations when we asked.
    Take { block: u32, start: u32 },
    /// Giving it back, having seen this.
    Drop { block: u32, start: u32, seen: Option<Lvb> },
}

use super::Step::{Idle, Working};

impl Control {
    /// Begins, if there is something to do and nothing else is under way.
    pub(super) fn work(&mut self, out: &mut Vec<Effect>) {
        if self.step != Idle || !self.wanted || self.withdrawn || self.unmount {
            return;
        }
        self.wanted = false;
        if std::mem::take(&mut self.remote_withdraw) {
            out.push(Effect::RecoverOthers);
        }
        if !self.mount_done || self.first_mount || self.is_stopped() {
            return;
        }
        self.step = Working(Step::Take { block: self.block, start: self.start });
        Self::ask(Which::Control, Mode::Ex, false, Value::Fetch, out);
    }

    pub(super) fn work_answer(&mut self, step: Step, granted: bool, lvb: Lvb, out: &mut Vec<Effect>) {
        match step {
            Step::Take { .. } if !granted => {
                // Cannot be: nobody said "rather not". Tried again like a replay.
                self.step = Idle;
                out.push(Effect::WakeAfter(super::RETRY));
            }
            Step::Take { block, start } => {
                let (seen, value) = if (block, start) == (self.block, self.start) {
                    self.account(ControlBlock(lvb))
                } else {
                    // A newer generation: its own work follows.
                    (None, Value::Skip)
                };
                self.step = Working(Step::Drop { block, start, seen });
                Self::ask(Which::Control, Mode::Nl, false, value, out);
            }
            Step::Drop { block, start, seen } => {
                self.step = Idle;
                if let Some(seen) = seen {
                    self.conclude(ControlBlock(seen), (block, start) == (self.block, self.start), out);
                }
            }
        }
    }

    /// Notes deaths in the value block, and strikes out what has been replayed. The block as it is then, and whether it is
    /// to be written.
    fn account(&mut self, mut control: ControlBlock) -> (Option<Lvb>, Value) {
        let (noted, start) = (control.generation(), self.start);
        let mut write = false;
        if noted < self.seen.generation() {
            // An older value has come back. To replay a journal twice does no harm.
            self.seen.waiting().for_each(|jid| control.set_waits(jid, true));
        }
        if let (Some(jid), false, true) = (self.jid, self.spectator, noted <= start)
            && control.waits(jid)
        {
            // It was replayed before we came, or we would not have. An older value has come back.
            control.set_waits(jid, false);
            write = true;
        }
        if noted <= start {
            for (jid, replayed) in (0u32..).zip(self.replayed.iter_mut()) {
                if std::mem::take(replayed) && control.waits(jid) {
                    control.set_waits(jid, false);
                    write = true;
                }
            }
        }
        if noted == start {
            // Somebody noted these before us; they may even be replayed by now.
            self.submit.iter_mut().filter(|s| **s < noted).for_each(|s| *s = 0);
        } else if noted < start {
            for (jid, submitted) in (0u32..).zip(self.submit.iter_mut()) {
                if *submitted != 0 && *submitted < start {
                    *submitted = 0;
                    control.set_waits(jid, true);
                }
            }
            control.set_generation(start);
            write = true;
        }
        self.seen = control;
        (Some(control.0), if write { Value::Write(control.0) } else { Value::Skip })
    }

    /// Replays what waits; if nothing does, grants are told again.
    fn conclude(&mut self, control: ControlBlock, unmoved: bool, out: &mut Vec<Effect>) {
        let mut none = true;
        for jid in (0..JIDS).filter(|jid| control.waits(*jid)) {
            none = false;
            if Some(jid) != self.jid && self.under_way.insert(jid) {
                out.push(Effect::Recover(jid));
            }
        }
        // A block newer than ours announces a `Done` that will come.
        if none && unmoved && control.generation() <= self.start {
            self.release(out);
        }
    }
}
