//! States to modes and back, the flags of requests, and what completions mean (dlm.md 5.3).

use crate::glock::{LockState, Lvb, Reply, Request};
use lockclient::flags::{LockFlags, StatusFlags};
use lockclient::lvb::{Transfer, transfer};
use lockclient::mode::Mode;
use lockclient::node::space::Completion;
use lockclient::status::Status;

/// The mode that means this state.
pub(super) fn mode(state: LockState) -> Mode {
    match state {
        LockState::Unlocked => Mode::Nl,
        LockState::Shared => Mode::Pr,
        LockState::Deferred => Mode::Cw,
        LockState::Exclusive => Mode::Ex,
    }
}

/// What a node may still hold when somebody waits for this mode.
pub(super) fn ceiling(wanted: Mode) -> LockState {
    match wanted {
        // Nobody is in the way of NL.
        Mode::Nl => LockState::Exclusive,
        Mode::Cr | Mode::Pr => LockState::Shared,
        Mode::Cw => LockState::Deferred,
        Mode::Pw | Mode::Ex => LockState::Unlocked,
    }
}

/// The flags of a request (dlm.md 5.3).
pub(super) fn flags(request: &Request, fresh: bool) -> LockFlags {
    let mut flags = LockFlags::empty();
    flags.set(LockFlags::VALBLK, request.lvb.is_some());
    flags.set(LockFlags::NOQUEUE | LockFlags::NOQUEUEBAST, request.no_queue && request.to != LockState::Unlocked);
    let waits = request.to != LockState::Unlocked && request.from != LockState::Exclusive && !request.no_queue;
    flags.set(LockFlags::QUECVT, waits && !fresh);
    flags
}

/// What a completion means for the glock.
pub(super) fn reply(request: &Request, fresh: bool, c: &Completion) -> (Reply, Option<Lvb>) {
    match c.status {
        Status::Granted => {
            let from = (!fresh).then(|| mode(request.from));
            let told = request.lvb.is_some() && transfer(from, mode(request.to)) == Transfer::Return;
            (
                Reply::Granted,
                told.then(|| if c.flags.contains(StatusFlags::VALNOTVALID) { Lvb::default() } else { lvb(c) }),
            )
        }
        Status::Again | Status::Cancelled => (Reply::Refused, None),
        Status::Deadlock => (Reply::Deadlock, None),
        Status::Unlocked => (Reply::Failed, None),
    }
}

/// The value block of a completion; zero where nobody has set one.
pub(super) fn lvb(c: &Completion) -> Lvb {
    c.lvb.as_deref().and_then(|bytes| bytes.try_into().ok()).map(Lvb).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use LockState::{Deferred, Exclusive, Shared, Unlocked};

    /// dlm.md 5.3, the lower table.
    #[test]
    fn flags_of_transitions() {
        let valued = |from, to, no_queue| Request { from, to, no_queue, lvb: Some(Lvb::default()) };
        let (vb, qc) = (LockFlags::VALBLK, LockFlags::QUECVT);
        let tries = LockFlags::NOQUEUE | LockFlags::NOQUEUEBAST;
        for to in [Shared, Deferred, Exclusive] {
            assert_eq!(flags(&valued(Unlocked, to, false), true), vb);
            assert_eq!(flags(&valued(Unlocked, to, true), true), vb | tries);
            assert_eq!(flags(&valued(Unlocked, to, false), false), vb | qc);
        }
        for (from, to) in [(Shared, Exclusive), (Shared, Deferred), (Deferred, Shared), (Deferred, Exclusive)] {
            assert_eq!(flags(&valued(from, to, false), false), vb | qc);
            assert_eq!(flags(&valued(from, to, true), false), vb | tries);
        }
        for (from, to) in [(Exclusive, Shared), (Exclusive, Deferred), (Exclusive, Unlocked), (Shared, Unlocked)] {
            assert_eq!(flags(&valued(from, to, false), false), vb);
        }
        assert_eq!(
            flags(&Request { from: Unlocked, to: Shared, no_queue: false, lvb: None }, true),
            LockFlags::empty()
        );
    }

    #[test]
    fn notices_say_what_may_stay() {
        let told = [Mode::Ex, Mode::Pr, Mode::Cw, Mode::Pw, Mode::Cr].map(ceiling);
        assert_eq!(told, [Unlocked, Shared, Deferred, Unlocked, Shared]);
    }
}
