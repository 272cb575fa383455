//! Locks that are got ready before anybody asks for them.
//!
//! A lock that is new in the cluster costs a question to the node that keeps its name in the directory, and the answer. Whoever makes
//! many inodes would wait twice for each. So the locks of inodes that will probably be made are asked for in NL, many at once: NL
//! is in nobody's way, and what comes after it is decided here, since who asks first for a name is its master. What is not used
//! is unlocked when enough others have been got ready after it.

use super::dlm::{Dlm, Entry};
use super::name;
use super::service::{LockSpace, Unsaid};
use crate::ids::LockName;
use lockclient::flags::LockFlags;
use lockclient::ids::LockId;
use lockclient::mode::Mode;
use lockclient::node::space::{LockRequest, Progress};
use lockclient::status::Status;

/// Unused ones that are kept.
const READY_MAX: usize = 2048;

/// A lock that is being got ready.
pub(super) struct Preparing {
    /// The number of the call, when it waits for recovery.
    pub(super) call: Option<u64>,
}

impl Dlm {
    /// Asks for locks in NL, where there is none of these names; each comes with whether it has a value block.
    pub(super) fn get_ready(&self, names: &[(LockName, bool)]) {
        let Some(space) = self.space() else { return };
        let mut unsaid = Unsaid::default();
        names.iter().for_each(|(name, valued)| self.ask_ahead(space, *name, *valued, &mut unsaid));
        space.say(unsaid);
    }

    fn ask_ahead(&self, space: &LockSpace, name: LockName, valued: bool, unsaid: &mut Unsaid) {
        let (Some(token), false) = (name::token(name), self.is_closed()) else { return };
        let new = || Entry { lock: LockId::NONE, valued, client: None, pending: None, ahead: None };
        let mut entry = self.entries.entry(name).or_insert_with(new);
        if entry.client.is_some() || entry.lock != LockId::NONE || entry.ahead.is_some() {
            return;
        }
        entry.valued = valued;
        let lvb = valued.then(|| Box::from([0_u8; 32]) as Box<[u8]>);
        let flags = if valued { LockFlags::VALBLK } else { LockFlags::empty() };
        let (resource, mode) = (name.resource(), Mode::Nl);
        let name_ = resource.as_bytes();
        let (wants_notices, uses_lost_value) = (true, false);
        let request = LockRequest { token, name: name_, mode, flags, lvb, wants_notices, uses_lost_value };
        match space.request_unsaid(request, unsaid) {
            Ok(Progress::Done(completion)) if completion.status == Status::Granted => entry.lock = completion.lock,
            Ok(Progress::Pending(lock)) => {
                (entry.lock, entry.ahead) = (lock, Some(Preparing { call: None }));
            }
            Ok(Progress::Queued(call)) if self.note_call(call, token).is_none() => {
                entry.ahead = Some(Preparing { call: Some(call) });
            }
            // Whoever needs it will ask, and hear what is wrong.
            Ok(_) | Err(_) => {}
        }
        drop(entry);
        self.make_room(name);
    }

    /// One more is ready; the oldest goes if there are too many.
    fn make_room(&self, name: LockName) {
        let oldest = {
            let mut ready = self.ready.lock();
            ready.push_back(name);
            if ready.len() > READY_MAX { ready.pop_front() } else { None }
        };
        if let Some(oldest) = oldest
            && !self.keep_ready(oldest)
            && let Some((_, entry)) = self.entries.remove_if(&oldest, |_, e| e.client.is_none() && e.ahead.is_none())
            && let Some(space) = self.space().filter(|_| entry.lock != LockId::NONE)
            && let Err(why) = space.unlock(entry.lock, LockFlags::empty(), None)
        {
            tracing::debug!("lock {oldest}: unlock: {why}");
        }
    }

    /// True for a lock that cannot be given up because it is still being got ready: it counts as unused from now on.
    pub(super) fn keep_ready(&self, name: LockName) -> bool {
        let Some(mut entry) = self.entries.get_mut(&name).filter(|e| e.ahead.is_some()) else { return false };
        if entry.pending.is_none() {
            entry.client = None;
        }
        drop(entry);
        self.ready.lock().push_back(name);
        true
    }
}
