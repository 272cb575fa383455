//! An open volume: remounting and closing it.

use super::Opened;
use crate::error::{Error, Result};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Longest time that giving up the locks of one kind takes.
const GIVING_UP: Duration = Duration::from_secs(10);

impl Opened {
    /// True while nothing is written.
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Acquire)
    }

    /// `-o remount,ro` and `rw`. Read-only: everything is written and the log closed cleanly. Read-write: the log is opened
    /// again. A mount that was opened read-only has no journal of its own and stays so. `Busy` while the volume is frozen.
    pub fn remount(&self, read_only: bool) -> Result<()> {
        let _one_at_a_time = self.remounting.lock();
        if read_only == self.is_read_only() {
            return Ok(());
        }
        if self.born_read_only {
            return Err(Error::ReadOnly);
        }
        if self.fs.is_frozen() {
            return Err(Error::Busy);
        }
        if read_only {
            self.fs.set_read_only(true);
            // Closed on the disk, but so that it can go on.
            let closed = self.fs.sync_counters().and_then(|()| self.fs.volume().journal.freeze());
            closed.inspect_err(|_| self.fs.set_read_only(false))?;
        } else {
            self.fs.volume().journal.thaw();
            self.fs.set_read_only(false);
        }
        self.read_only.store(read_only, Ordering::Release);
        Ok(())
    }

    /// Closes the volume: counters, data and log are on the disk and the log says it is clean when this returns, and no lock is
    /// held that another node may want. Closing again does nothing. After a withdraw the locks stay as they are: others may
    /// have them when our journal was replayed, and not before.
    pub fn close(&self) -> Result<()> {
        let _one_at_a_time = self.remounting.lock();
        self.fs.thaw();
        let closed = self.close_journal();
        if closed.is_ok() {
            self.give_up_locks();
        }
        closed
    }

    fn close_journal(&self) -> Result<()> {
        if self.is_read_only() {
            return Ok(());
        }
        if let Some(cause) = self.fs.volume().journal.withdrawn() {
            tracing::error!("not closed cleanly: withdrawn earlier: {cause}");
            return Err(Error::Withdrawn);
        }
        self.fs.forget_all()?;
        self.fs.sync_counters()?;
        self.fs.volume().journal.shutdown()?;
        self.read_only.store(true, Ordering::Release);
        Ok(())
    }

    /// Everything is on the disk: other nodes may have all locks.
    fn give_up_locks(&self) {
        self.fs.forget_known();
        let vol = self.fs.volume();
        let left = vol.bare.give_up_all(GIVING_UP)
            + vol.inodes.give_up_all(GIVING_UP)
            + self.fs.quota().map_or(0, |quota| quota.give_up_all(GIVING_UP))
            + vol.rgrps.give_up_all(GIVING_UP);
        if left > 0 {
            tracing::warn!("{left} locks could not be given up");
        }
        self.locks.keep(&[]);
    }
}
