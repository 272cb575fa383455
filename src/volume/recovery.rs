//! Recovery of journals: when the volume is opened, and of another node's while we work (ondisk.md 8.10, 8.11).

use super::held::Locks;
use super::{Identity, Mounter, OpenError, OpenOptions, Opened, system_files};
use crate::cache::Cache;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::glock::Nolock;
use crate::ids::Jid;
use crate::journal::{CleanJournal, JournalPlace, Replayed, Settle, UnrecoveredJournal};
use std::sync::Arc;

/// What was done to each journal, and ours, ready for writing.
type Recovered = (Vec<(Jid, Replayed)>, Option<CleanJournal>);

/// Recovers every journal that is ours to recover; our own is handed out for writing.
pub(super) fn recover(
    cache: &Arc<Cache>,
    places: Vec<JournalPlace>,
    options: &OpenOptions,
    clock: &dyn Clock,
    mounter: Mounter,
) -> Result<Recovered, OpenError> {
    let mut recovered = Vec::new();
    let mut own = None;
    if options.norecovery || mounter == Mounter::Spectator {
        return Ok((recovered, own));
    }
    // Who has a journal takes over what others had not counted yet in one transaction, once it is open.
    let writes = !options.read_only && !options.spectator;
    let settle = if writes || mounter != Mounter::First { Settle::Stay } else { Settle::InPlace };
    for place in places {
        let jid = place.jid;
        if mounter == Mounter::Joining && jid != options.jid {
            continue;
        }
        let journal = UnrecoveredJournal::examine(cache, place)?;
        if !journal.is_clean() && (options.spectator || cache.device().read_only()) {
            return Err(OpenError::Dirty(jid));
        }
        let (clean, replayed) = journal.recover_with(options.jid, clock, settle)?;
        tell(jid, &replayed);
        recovered.push((jid, replayed));
        if jid == options.jid {
            own = Some(clean);
        }
    }
    Ok((recovered, own))
}

fn tell(jid: Jid, replayed: &Replayed) {
    if !replayed.clean {
        tracing::info!(
            jid = jid.0,
            found = replayed.found,
            replayed = replayed.replayed,
            revokes = replayed.revokes,
            "journal replayed"
        );
    }
}

impl Opened {
    /// Replays the journal of a node that died, while we work. The caller holds that journal's lock; no node is granted what the
    /// dead one held before this is done. No lock is waited for. A journal that is clean, or that there is not, is left alone.
    /// Errors: `ReadOnly` when the device cannot be written; `Invalid` for our own; what is wrong with the journal.
    pub fn recover_journal(&self, jid: Jid) -> Result<Replayed> {
        let clean = Replayed { clean: true, ..Replayed::default() };
        let vol = self.fs.volume();
        if !vol.journal.is_read_only() && jid == vol.jid {
            return Err(Error::Invalid);
        }
        let place = match self.places.iter().find(|place| place.jid == jid) {
            Some(place) => place.clone(),
            None => match self.added_since(jid)? {
                Some(place) => place,
                None => return Ok(clean),
            },
        };
        let journal = UnrecoveredJournal::examine(&vol.cache, place)?;
        let statfs_change = journal.place().statfs_change;
        // Others use the master file, and who dies over it must not have added to it already: a node that does not write, or no
        // longer, leaves what the dead one had counted to the next that does.
        let (_, replayed) = journal.recover_with(vol.jid, &*vol.clock, Settle::Stay)?;
        // Not of a journal that is clean already: whoever replayed it may have died after he had taken its counts over in his own log,
        // which nobody has replayed yet. What he did not come to stays for the next owner of that journal, or for the first who
        // mounts, after all replays.
        if !replayed.clean && !self.is_read_only() {
            self.fs.take_over_counts(statfs_change)?;
        }
        tell(jid, &replayed);
        Ok(replayed)
    }

    /// Does this journal end with a clean header? Looks without any lock.
    pub fn is_journal_clean(&self, jid: Jid) -> Result<bool> {
        let place = self.places.iter().find(|place| place.jid == jid).ok_or(Error::Invalid)?;
        Ok(UnrecoveredJournal::examine(&self.fs.volume().cache, place.clone())?.is_clean())
    }

    /// The place of a journal that was added while we worked. Its node had it mounted, so the names that lead to it are on the
    /// disk.
    fn added_since(&self, jid: Jid) -> Result<Option<JournalPlace>> {
        let vol = self.fs.volume();
        let device = Arc::clone(vol.cache.device());
        let id = Identity::read(&*device).map_err(|_| Error::Invalid)?;
        let scout = Cache::new(device, vol.bs, 32 << 20);
        let locks = Locks::new(Arc::new(Nolock));
        let system = system_files(&scout, &locks, &id, &OpenOptions::default())?;
        Ok(system.journals.into_iter().find(|place| place.jid == jid))
    }
}
