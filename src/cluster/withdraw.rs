//! Parting from the cluster after a contradiction (dlm.md 5.9). Our journal is dirty and we must not write; another node has to
//! replay it before anybody sees what lies under our locks. So these stay ours until that is certain:
//!
//! 1. No lock is taken or given up any more.
//! 2. Our JOURNAL lock goes; a notice goes out on LIVE; whoever hears it replays what he finds without owner.
//! 3. When the journal is clean, we leave the lockspace and all our locks with it. (A member that leaves is not dead: nobody
//!    would look at its journal.)
//! 4. When it does not become clean (nobody is there, nobody heard, or a write of ours is still in the device's hands), we stay
//!    and keep our locks. It is tried again until somebody has come, or until this process ends: that is a death like any
//!    other, fenced and replayed.

use super::control::Event;
use super::core::Core;
use super::direct::Got;
use crate::sync::thread;
use lockclient::flags::LockFlags;
use lockclient::mode::Mode;
use lockclient::node::space::LockSpace;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often we look whether our journal has become clean, and how many times; the notice is sent anew now and then: whoever
/// heard it may have come to our journal before the lock service had taken our lock away.
const LOOK: Duration = Duration::from_secs(1);
const LOOKS: u32 = 10;
const NOTICE_EVERY: u32 = 3;
/// How a withdrawal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// Another node has replayed our journal; the lockspace is left.
    Replayed,
    /// It is still dirty. The lockspace is not left and the process has to end, so that the others notice its death.
    Unreplayed,
}

/// Everything but leaving; called again it tries again. `None` when the cluster has lost us before.
pub(super) fn withdraw(core: &Arc<Core>) -> Option<Parting> {
    if !core.parting.swap(true, Ordering::AcqRel) {
        if core.withdrawn.swap(true, Ordering::AcqRel) {
            return None;
        }
        tracing::error!("withdrawing from the cluster");
        core.feed(Event::Withdraw);
        core.dlm.close();
    } else if core.dlm.space().is_none_or(LockSpace::has_ended) {
        return None;
    }
    let Some(journal) = core.journal.get() else {
        // A spectator has nothing that waits.
        return Some(Parting::Replayed);
    };
    if !core.recovery().is_none_or(|recovery| recovery.is_quiet()) {
        // Who replays our journal now would see his blocks overwritten.
        tracing::error!("a write is still in the device's hands: our journal cannot be given away");
        return Some(Parting::Unreplayed);
    }
    journal.unlock_and_wait(&core.dlm);
    let parting = if is_replayed(core) { Parting::Replayed } else { Parting::Unreplayed };
    tracing::warn!("withdrawn: {parting:?}");
    Some(parting)
}

/// Sends the notice; false when there is nobody else who could have heard it.
fn tell_others(core: &Core) -> bool {
    // Every other node holds LIVE shared. With a try they are told that they are in the way; we get it only if we are alone.
    let lower = core.live.set(&core.dlm, Mode::Nl, LockFlags::empty(), None, &|| false);
    let flags = LockFlags::NOQUEUE | LockFlags::NOQUEUEBAST;
    let got = lower.and_then(|_| core.live.set(&core.dlm, Mode::Ex, flags, None, &|| false));
    if matches!(got, Ok(Got::Granted))
        && let Err(e) = core.live.set(&core.dlm, Mode::Nl, LockFlags::empty(), None, &|| false)
    {
        // Whoever comes later would wait for it; it is gone with the lockspace.
        tracing::debug!("the notice of the withdrawal: {e}");
    }
    matches!(got, Ok(Got::Again))
}

/// Tells the others and looks whether somebody has replayed our journal.
fn is_replayed(core: &Core) -> bool {
    let (Some(recovery), Some(jid)) = (core.recovery(), core.jid()) else { return false };
    for look in 0..LOOKS {
        if look % NOTICE_EVERY == 0 && !tell_others(core) {
            return false;
        }
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
