//! The control thread: does what the machine decided and takes time. Replays run here, one after the other; a replay
//! that is not possible now (another node is at it, or the disk failed) is tried again after a second, for as long as the
//! journal waits.

use super::control::Event;
use super::core::{Core, Job};
use super::direct::{Direct, Got};
use super::name;
use crate::ids::Jid;
use lockclient::flags::LockFlags;
use lockclient::mode::Mode;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Runs until it is told to stop.
pub(super) fn run(core: &Arc<Core>) {
    while let Some(job) = core.next_job() {
        match job {
            Job::Ask(ask) => {
                let event = match core.ask(ask) {
                    Ok(granted) => Event::Answer { granted, lvb: core.lock(ask.which).lvb() },
                    Err(_) => Event::Gone,
                };
                core.feed(event);
            }
            Job::Recover(jid) => {
                if !recover(core, Jid(jid)) {
                    core.feed(Event::Recovered { jid, success: false });
                }
            }
            Job::RecoverOthers => recover_others(core),
        }
    }
}

/// Replays the journal of a dead node and says so, unless its owner lives after all or another node is at it.
fn recover(core: &Arc<Core>, jid: Jid) -> bool {
    if core.withdrawn.load(Ordering::Acquire) {
        return false;
    }
    let Some(recovery) = core.recovery() else {
        core.unserved();
        return false;
    };
    // The lock of a dead owner is gone; a living one has it.
    let lock = core.dlm.add(|token| Direct::new(name::journal(jid), token, false, |_| {}));
    let got = lock.set(&core.dlm, Mode::Ex, LockFlags::NOQUEUE, None, &|| core.is_stopping());
    let success = match got {
        Ok(Got::Granted) => {
            tracing::info!("replaying journal {}", jid.0);
            let outcome = recovery.recover(jid);
            match &outcome {
                Ok(()) => tracing::info!("journal {} is replayed", jid.0),
                Err(e) => tracing::error!("journal {}: {e}", jid.0),
            }
            if outcome.is_ok() {
                // Before the next owner can have it.
                core.feed(Event::Recovered { jid: jid.0, success: true });
            }
            lock.unlock(&core.dlm);
            outcome.is_ok()
        }
        Ok(_) | Err(_) => {
            tracing::debug!("journal {} is in use", jid.0);
            false
        }
    };
    core.dlm.remove(lock.token());
    success
}

/// Somebody withdrew and has let go of his journal; which one is not said.
fn recover_others(core: &Arc<Core>) {
    let Some(journals) = core.recovery().map(|r| r.journals()) else { return };
    // Also one that was added after we had mounted: who withdraws is a member still.
    let members = core.dlm.space().map(|space| space.inspect().members).unwrap_or_default();
    let slots = members.iter().filter_map(|member| u32::from(member.slot).checked_sub(1));
    let all: BTreeSet<u32> = (0..journals).chain(slots).collect();
    for jid in all.into_iter().filter(|jid| core.jid() != Some(Jid(*jid))) {
        // A journal that is in use is its owner's affair: no second try, unless the machine says so.
        recover(core, Jid(jid));
    }
}
