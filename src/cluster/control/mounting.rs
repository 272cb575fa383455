//! Mounting (dlm.md 5.7).

use super::{Control, ControlBlock, Effect, Refusal, Value, Which};
use crate::glock::Lvb;
use lockclient::mode::Mode;

/// Pause between two tries, in milliseconds.
const PAUSE: u64 = 500;
/// The longer one of a spectator who waits for a mounter to note his coming.
const SPECTATOR_PAUSE: u64 = 1500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// CONTROL and MOUNTED come into being, in NL.
    OpenControl,
    OpenMounted,
    /// MOUNTED goes back to NL before the next try, after which we pause this long.
    Lower(u64),
    Sleep,
    TakeControl,
    /// CONTROL is ours, with this value.
    TakeMounted(Lvb),
    JoinMounted(Lvb),
    /// CONTROL goes back; then we look at the value.
    DropControl(Lvb),
    /// First mounter, all replayed: not while locking is stopped.
    AwaitRecovery,
    LowerMounted(Lvb),
    PublishControl,
}

use super::Step::{Idle, Mounting};
use Step::*;

impl Control {
    pub(super) fn begin_mount(&mut self, out: &mut Vec<Effect>) {
        self.hold(out);
        self.step = Mounting(OpenControl);
        Self::ask(Which::Control, Mode::Nl, false, Value::Fetch, out);
    }

    pub(super) fn stop(&mut self, out: &mut Vec<Effect>) {
        self.stopped = true;
        if self.step == Mounting(Sleep) {
            self.refuse(Refusal::Interrupted, out);
        }
    }

    fn refuse(&mut self, why: Refusal, out: &mut Vec<Effect>) {
        self.step = Idle;
        out.push(Effect::Refused(why));
    }

    pub(super) fn mount_answer(&mut self, step: Step, granted: bool, lvb: Lvb, out: &mut Vec<Effect>) {
        match step {
            OpenControl => {
                self.step = Mounting(OpenMounted);
                Self::ask(Which::Mounted, Mode::Nl, false, Value::Skip, out);
            }
            OpenMounted => self.try_control(out),
            Lower(pause) => {
                self.mounted = Mode::Nl;
                self.sleep(pause, out);
            }
            Sleep | AwaitRecovery => {}
            TakeControl if !granted => self.restart(PAUSE, out),
            TakeControl if self.spectator => self.look(lvb, out),
            TakeControl => {
                self.step = Mounting(TakeMounted(lvb));
                Self::ask(Which::Mounted, Mode::Ex, true, Value::Skip, out);
            }
            TakeMounted(control) if granted => self.first(control, out),
            TakeMounted(control) => {
                self.step = Mounting(JoinMounted(control));
                Self::ask(Which::Mounted, Mode::Pr, true, Value::Skip, out);
            }
            JoinMounted(control) if granted => {
                self.mounted = Mode::Pr;
                self.look(control, out);
            }
            JoinMounted(_) => self.refuse(Refusal::Contended, out),
            DropControl(control) => self.decide(ControlBlock(control), out),
            LowerMounted(control) => {
                self.mounted = Mode::Pr;
                self.step = Mounting(PublishControl);
                Self::ask(Which::Control, Mode::Nl, false, Value::Write(control), out);
            }
            PublishControl => {
                self.step = Idle;
                out.push(Effect::Published);
            }
        }
    }

    /// Not this time.
    fn restart(&mut self, pause: u64, out: &mut Vec<Effect>) {
        if self.stopped {
            return self.refuse(Refusal::Interrupted, out);
        }
        if self.mounted == Mode::Nl {
            return self.sleep(pause, out);
        }
        self.step = Mounting(Lower(pause));
        Self::ask(Which::Mounted, Mode::Nl, false, Value::Skip, out);
    }

    fn sleep(&mut self, pause: u64, out: &mut Vec<Effect>) {
        self.step = Mounting(Sleep);
        out.push(Effect::WakeAfter(pause));
    }

    pub(super) fn try_control(&mut self, out: &mut Vec<Effect>) {
        self.step = Mounting(TakeControl);
        Self::ask(Which::Control, Mode::Ex, true, Value::Fetch, out);
    }

    /// We are alone: both locks stay ours until all journals are replayed.
    fn first(&mut self, control: Lvb, out: &mut Vec<Effect>) {
        self.mounted = Mode::Ex;
        if ControlBlock(control).is_disabled() {
            return self.refuse(Refusal::Disabled, out);
        }
        (self.mount_done, self.first_mount) = (true, true);
        self.step = Idle;
        self.release(out);
        out.push(Effect::Mounted { first: true });
    }

    /// Others are mounted: gives CONTROL back, and looks at what it said.
    fn look(&mut self, control: Lvb, out: &mut Vec<Effect>) {
        if ControlBlock(control).is_disabled() {
            return self.refuse(Refusal::Disabled, out);
        }
        self.step = Mounting(DropControl(control));
        Self::ask(Which::Control, Mode::Nl, false, Value::Skip, out);
    }

    fn decide(&mut self, control: ControlBlock, out: &mut Vec<Effect>) {
        let generation = control.generation();
        if control.waiting().next().is_some() {
            return self.restart(PAUSE, out);
        }
        if generation < self.mount {
            // Those who are mounted have not noted yet that we came.
            return self.restart(if self.spectator { SPECTATOR_PAUSE } else { PAUSE }, out);
        }
        if generation != self.start || self.is_stopped() {
            return self.restart(PAUSE, out);
        }
        self.mount_done = true;
        self.seen = control;
        self.step = Idle;
        self.forget_notes();
        self.release(out);
        out.push(Effect::Mounted { first: false });
    }

    pub(super) fn first_done(&mut self, out: &mut Vec<Effect>) {
        if !self.first_mount || self.step != Idle {
            return;
        }
        if self.recovering {
            self.step = Mounting(AwaitRecovery);
        } else {
            self.publish(out);
        }
    }

    pub(super) fn publish(&mut self, out: &mut Vec<Effect>) {
        self.first_mount = false;
        self.forget_notes();
        self.seen = ControlBlock::clean(self.start);
        self.step = Mounting(LowerMounted(self.seen.0));
        Self::ask(Which::Mounted, Mode::Pr, false, Value::Skip, out);
    }
}
