//! What a node's client is told.

use lockclient::frame::Slot;
use lockclient::ids::LockId;
use lockclient::mode::Mode;
use lockclient::node::space::Completion;
use lockclient::status::Refusal;

/// Told in this order.
pub(crate) enum Callback {
    Completed(u64, Completion),
    Blocking(u64, LockId, Mode),
    Refused(u64, Refusal),
    Prepare,
    SlotFailed(Slot),
    Recovered(Vec<Slot>, u16, u32),
    /// Everything before it has been told: the lockspace has stopped for this change.
    Stopped(usize),
    Expelled,
}

impl Callback {
    /// For traces: which kind it is.
    pub(crate) fn kind(&self) -> u64 {
        match self {
            Self::Completed(..) => 1,
            Self::Blocking(..) => 2,
            Self::Refused(..) => 3,
            Self::Prepare => 4,
            Self::SlotFailed(_) => 5,
            Self::Recovered(..) => 6,
            Self::Stopped(_) => 7,
            Self::Expelled => 8,
        }
    }
    /// For traces: in words.
    pub(crate) fn word(&self) -> String {
        match self {
            Self::Completed(token, c) => format!("{token:x}: {:?} {:?} in mode {:?}", c.status, c.flags, c.mode),
            Self::Blocking(token, _, mode) => format!("somebody who wants {token:x} in mode {mode:?}"),
            Self::Refused(call, why) => format!("call {call}, refused: {why:?}"),
            Self::Prepare => "a recovery".into(),
            Self::SlotFailed(slot) => format!("the death of {slot:?}"),
            Self::Recovered(_, own, generation) => format!("the end of recovery {generation}, its slot {own}"),
            Self::Stopped(n) => format!("change {n}"),
            Self::Expelled => "its expulsion".into(),
        }
    }
}
