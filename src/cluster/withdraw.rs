//! Parting from the cluster after a contradiction (dlm.md 5.9). Our journal is dirty and we must not write; another node has to
//! replay it before anybody sees what lies under our locks. So these stay ours until that is certain:
//!
//! 1. No lock is taken or given up any more.
//! 2. Our JOURNAL lock goes; a notice goes out on LIVE; whoever hears it replays what he finds without owner.
//! 3. When the journal is clean, we leave the lockspace and all our locks with it. (A member that leaves is not dead: nobody
//!    would look at its journal.)
//! 4. When it does not become clean (nobody is there, nobody heard), we stay and keep our locks until this process ends. That is
//!    a death like any other: fenced, and replayed.

use super::control::Event;
use super::core::Core;
use super::direct::Got;
use crate::sync::thread;
use lockclient::flags::LockFlags;
use lockclient::mode::Mode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often we look whether our journal has become clean, and how many times.
const LOOK: Duration = Duration::from_secs(1);
const LOOKS: u32 = 10;
/// How a withdrawal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// Another node has replayed our journal; the lockspace is left.
    Replayed,
    /// It is still dirty. The lockspace is not left and the process has to end, so that the others notice its death.
    Unreplayed,
}

/// Everything but leaving. `None` when we have withdrawn before.
pub(super) fn withdraw(core: &Arc<Core>) -> Option<Parting> {
    if core.withdrawn.swap(true, Ordering::AcqRel) {
        return None;
    }
    tracing::error!("withdrawing from the cluster");
    core.feed(Event::Withdraw);
    core.dlm.close();
    let Some(journal) = core.journal.get() else {
        // A spectator has nothing that waits.
        return Some(Parting::Replayed);
    };
    journal.unlock(&core.dlm);
    let parting = if tell_others(core) && wait_for_replay(core) { Parting::Replayed } else { Parting::Unreplayed };
    tracing::warn!("withdrawn: {parting:?}");
    Some(parting)
}

/// Sends the notice; false when there is nobody else who could have heard it.
fn tell_others(core: &Core) -> bool {
    let lower = core.live.set(&core.dlm, Mode::Nl, LockFlags::empty(), None, &|| false);
    let flags = LockFlags::NOQUEUE | LockFlags::NOQUEUEBAST;
    matches!(lower.and_then(|_| core.live.set(&core.dlm, Mode::Ex, flags, None, &|| false)), Ok(Got::Again))
}

fn wait_for_replay(core: &Core) -> bool {
    let (Some(recovery), Some(jid)) = (core.recovery(), core.jid()) else { return false };
    for _ in 0..LOOKS {
        match recovery.is_clean(jid) {
            Ok(true) => return true,
            Ok(false) => thread::sleep(LOOK),
            Err(e) => {
                tracing::error!("journal {}: {e}", jid.0);
                return false;
            }
        }
    }
    false
}
