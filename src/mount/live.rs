//! A running mount as others see it: its state, its numbers, its locks.

use super::cluster::Joined;
use super::dlm::Dlm;
use super::host::Place;
use super::options::MountOptions;
use crate::cluster::{Cluster, Parting};
use crate::error::Result;
use crate::fuse::AtimeSwitch;
use crate::ids::BlockSize;
use crate::quota::{QuotaLine, QuotaMode, Who};
use crate::sync::Mutex;
use crate::volume::{Identity, Opened, uuid_text};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// What the parts of the daemon share.
pub(super) struct Live {
    pub(super) opened: Arc<Opened>,
    pub(super) id: Identity,
    pub(super) source: PathBuf,
    pub(super) target: PathBuf,
    /// As they are now: a remount changes them. `lockproto` and `locktable` are always set.
    pub(super) options: Mutex<MountOptions>,
    pub(super) atime: Arc<AtimeSwitch>,
    /// The lock manager, of a mount that has one.
    pub(super) dlm: Option<Dlm>,
    /// Held by whoever freezes, thaws or remounts: one after the other.
    pub(super) changing: Mutex<()>,
    /// How many journals there are, as far as we know: they may become more.
    pub(super) journals: AtomicU32,
    /// There may be inodes without a name that nobody uses any more.
    pub(super) orphans: Arc<AtomicBool>,
    /// Our part in the cluster, until it is left; none with lock_nolock.
    pub(super) joined: Mutex<Option<Joined>>,
    /// Our place in the daemon of our node.
    pub(super) place: Option<Arc<Place>>,
}

impl Live {
    /// Our part in the cluster, as long as we have one.
    pub(super) fn cluster(&self) -> Option<Arc<Cluster>> {
        self.joined.lock().as_ref().map(|joined| Arc::clone(&joined.cluster))
    }

    /// Has other nodes replay our journal, and leaves the cluster when that is done. `Unreplayed`: nobody did; to be tried again.
    pub(super) fn withdraw(&self) -> Parting {
        let Some(part) = self.cluster() else { return Parting::Replayed };
        // What we know is overtaken as soon as another node has replayed our journal.
        self.opened.fs.shut();
        let parting = part.withdraw();
        match parting {
            Parting::Replayed => tracing::info!("another node has replayed our journal"),
            Parting::Alone => tracing::info!("nobody else has it mounted: the next mount replays our journal"),
            Parting::Unreplayed => tracing::error!("no other node has replayed our journal: our locks are kept"),
        }
        parting
    }

    /// Closes the volume, then leaves the cluster: all is on the disk, and others may use it. Closing again does nothing. When
    /// the volume cannot be closed, others replay its journal before they get our locks; if nobody does, the cluster is left
    /// with the end of this process: a death, after which the journal is replayed.
    pub(super) fn close(&self) -> Result<()> {
        let closed = self.opened.close();
        let parting = if closed.is_err() { self.withdraw() } else { Parting::Replayed };
        if let Some(joined) = self.joined.lock().take() {
            match parting {
                Parting::Replayed | Parting::Alone => joined.leave(),
                Parting::Unreplayed => joined.abandon(),
            }
        }
        closed
    }

    /// `withdrawn`, `frozen`, `read_only` or `live`, and the cause of a withdraw.
    fn state(&self) -> (&'static str, Option<String>) {
        match self.opened.fs.volume().journal.withdrawn() {
            Some(cause) => ("withdrawn", Some(cause)),
            None if self.opened.fs.is_frozen() => ("frozen", None),
            None if self.opened.is_read_only() => ("read_only", None),
            None => ("live", None),
        }
    }

    /// All that `gfs2r status --json` shows of a mount.
    pub(super) fn status(&self) -> Value {
        let fs = &self.opened.fs;
        let (vol, space, sb) = (fs.volume(), fs.space(), &self.id.superblock);
        let (state, cause) = self.state();
        let block = u64::from(space.block_size);
        let demand = self.cluster().map_or((0, 0), |part| part.demand_in_all());
        let options = self.options.lock();
        let quota = match fs.quota().map(|q| q.mode()) {
            Some(QuotaMode::On) => "on",
            Some(QuotaMode::Account) => "account",
            Some(QuotaMode::Off) | None => "off",
        };
        json!({
            "directory": self.target, "source": self.source, "state": state, "withdraw_cause": cause,
            "lock_protocol": options.lockproto, "lock_table": options.locktable,
            "journal": (!vol.journal.is_read_only()).then_some(vol.jid.0), "journals": self.journals.load(Ordering::Acquire), "format": sb.fs_format.get(), "uuid": uuid_text(&sb.uuid),
            "pid": std::process::id(), "quota": quota, "block_size": block,
            "space": {
                "total_bytes": space.total.saturating_mul(block), "free_bytes": space.free_bytes(),
                "inodes": space.inodes, "inodes_used": space.inodes.saturating_sub(space.free),
            },
            "cache": {
                "metadata_bytes": (vol.cache.len() as u64).saturating_mul(block),
                "metadata_limit_bytes": options.open.cache_bytes,
                "dirty_data_bytes": vol.cache.data().dirty_bytes(),
            },
            "cluster": self.dlm.as_ref().map(|dlm| dlm.summary(demand)),
            "glocks": { "inode": vol.inodes.len(), "rgrp": vol.rgrps.locks().len() },
        })
    }

    /// The dump of all locks.
    pub(super) fn glocks(&self) -> String {
        let vol = self.opened.fs.volume();
        vol.inodes.dump() + &vol.rgrps.locks().dump()
    }
}

/// A line of a quota report; numbers in bytes, 0 for no limit.
pub(super) fn quota_line(line: &QuotaLine, bs: BlockSize) -> Value {
    let (kind, id) = match line.who {
        Who::User(id) => ("user", id),
        Who::Group(id) => ("group", id),
    };
    let bytes = |blocks: u64| blocks.saturating_mul(bs.bytes() as u64);
    let used = u64::try_from(line.used).unwrap_or(0);
    json!({
        "kind": kind, "id": id, "limit_bytes": bytes(line.limit), "warn_bytes": bytes(line.warn), "used_bytes": bytes(used),
    })
}
