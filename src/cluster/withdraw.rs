//! Parting from the cluster after a contradiction (dlm.md 5.9). Our journal is dirty and we must not write; another node has to
//! replay it before anybody sees what lies under our locks. So these stay ours until that is certain:
//!
//! 1. No lock is taken or given up any more.
//! 2. Our JOURNAL lock goes; a notice goes out on LIVE; whoever hears it replays what he finds without owner.
//! 3. When the journal is clean, we leave the lockspace and all our locks with it. (A member that leaves is not dead: nobody
//!    would look at its journal.)
//! 4. When nobody else has the volume mounted, and nobody can before we are gone, we leave too: whoever comes is the first
//!    mounter and replays every journal.
//! 5. When the journal does not become clean (nobody heard, or a write of ours is still in the device's hands), we stay
//!    and keep our locks. It is tried again until somebody has come, or until this process ends: that is a death like any
//!    other, fenced and replayed.

use super::control::{Event, Which};
use super::core::Core;
use super::direct::{Direct, Got};
use super::service::LockSpace;
use crate::sync::thread;
use lockclient::flags::LockFlags;
use lockclient::mode::Mode;
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
    /// Nobody else has the volume mounted; the lockspace is left, and whoever mounts next replays all journals.
    Alone,
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
    let parting = await_replay(core);
    tracing::warn!("withdrawn: {parting:?}");
    Some(parting)
}

/// What the notice came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notice {
    /// Other nodes have it mounted, and are told.
    Sent,
    /// Nobody else has it mounted, or will have before we have left.
    Alone,
    /// Not to be said.
    Unsure,
}

/// Sends the notice.
fn tell_others(core: &Core) -> Notice {
    let tries = LockFlags::NOQUEUE | LockFlags::NOQUEUEBAST;
    let set = |lock: &Direct, mode, flags| lock.set(&core.dlm, mode, flags, None, &|| false);
    // Every other node holds LIVE shared. With a try they are told that they are in the way; we get it only if we are alone.
    let got = set(&core.live, Mode::Nl, LockFlags::empty()).and_then(|_| set(&core.live, Mode::Ex, tries));
    match got {
        Ok(Got::Again) => return Notice::Sent,
        Ok(Got::Granted) => {}
        _ => return Notice::Unsure,
    }
    // Who is about to mount holds MOUNTED first. If that is ours alone, whoever comes has to be the first mounter.
    if let Ok(Got::Granted) = set(core.lock(Which::Mounted), Mode::Ex, tries) {
        return Notice::Alone;
    }
    if let Err(e) = set(&core.live, Mode::Nl, LockFlags::empty()) {
        // Whoever comes would wait for it; it is gone with the lockspace.
        tracing::debug!("the notice of the withdrawal: {e}");
    }
    Notice::Unsure
}

/// Tells the others and looks whether somebody has replayed our journal.
fn await_replay(core: &Core) -> Parting {
    let (Some(recovery), Some(jid)) = (core.recovery(), core.jid()) else { return Parting::Unreplayed };
    for look in 0..LOOKS {
        if look % NOTICE_EVERY == 0 {
            match tell_others(core) {
                Notice::Sent => {}
                Notice::Alone => return Parting::Alone,
                Notice::Unsure => return Parting::Unreplayed,
            }
        }
        match recovery.is_clean(jid) {
            Ok(true) => return Parting::Replayed,
            Ok(false) => thread::sleep(LOOK),
            Err(e) => {
                tracing::error!("journal {}: {e}", jid.0);
                return Parting::Unreplayed;
            }
        }
    }
    Parting::Unreplayed
}
