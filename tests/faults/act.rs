//! One operation on the stage: how it goes when nothing fails, and what may be there when something did.

use crate::cases::{Case, Unit};
use crate::disk::{Fault, FaultDisk};
use crate::stage::{ANN, Ctx, LONG_AGO, SUPER, Stage, open_at, options, pattern};
use crate::support;
use crate::view::View;
use gfs2r::device::{BlockDevice, MemoryDevice, SimDevice};
use gfs2r::error::Error;
use gfs2r::fs::{Caller, Fs};
use gfs2r::quota::QuotaMode;
use gfs2r::volume::{OpenOptions, Opened};
use std::sync::Arc;

/// When the operations happen.
pub(crate) const NOW: i64 = LONG_AGO + 1000;
/// When the volume is looked at afterwards.
pub(crate) const LATER: i64 = LONG_AGO + 2000;

/// A failed check, in words.
pub(crate) type Check<T = ()> = Result<T, String>;

/// `Err` with these words unless it holds.
pub(crate) fn ensure(holds: bool, words: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(words()) }
}

pub(crate) fn text(e: Error) -> String {
    e.to_string()
}

/// Read-only checks of a disk, by our checker.
pub(crate) fn clean(disk: &dyn BlockDevice, orphans: bool, when: &str) -> Check {
    let options = gfs2r_fsck::Options { ignore_unlinked: orphans, ..Default::default() };
    let report = gfs2r_fsck::check(disk, &options).map_err(|e| format!("{when}: the checker cannot check: {e}"))?;
    let found: Vec<String> = report.errors().take(5).map(|issue| format!("{issue}")).collect();
    ensure(found.is_empty(), || format!("{when}: the checker found {}", found.join("; ")))
}

/// `fsck.gfs2 -n` as well.
pub(crate) fn stock(disk: &MemoryDevice, when: &str) -> Check {
    let looked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| support::stock_fsck(disk, when)));
    looked.map_err(|why| crate::run::words(&*why))
}

/// An operation, with what was there before and is there after it.
pub(crate) struct Act<'a> {
    pub stage: &'a Stage,
    pub case: Case,
    /// Something was made durable before it, in the same mount.
    pub recent: bool,
    pub caller: Caller,
    pub before: View,
    pub after: View,
    pub answer: String,
    /// Reads it makes (with nothing cached), and in a cache that keeps nothing.
    pub reads: [u64; 2],
    /// Its writes, those of a sync and of a close after it; true for flushes.
    pub writes: Vec<bool>,
    pub discards: u64,
}

/// How it is mounted: as usual, or with a cache that keeps nothing.
pub(crate) fn mount_options(stage: &Stage, tiny: bool) -> OpenOptions {
    let usual = options(stage.quota);
    if tiny { OpenOptions { cache_bytes: 0, cached_inodes: 0, ..usual } } else { usual }
}

impl<'a> Act<'a> {
    /// Plays it without a fault; `None` when it does not belong on this stage.
    pub(crate) fn rehearse(stage: &'a Stage, case: Case, recent: bool) -> Check<Option<Self>> {
        if case.quota && stage.quota == QuotaMode::Off {
            return Ok(None);
        }
        let nothing = (View::default(), View::default());
        let (before, after) = nothing;
        let (answer, writes) = (String::new(), Vec::new());
        let mut act =
            Self { stage, case, recent, caller: SUPER, before, after, answer, reads: [0; 2], writes, discards: 0 };
        let kinds: &[bool] = if recent { &[false] } else { &[true, false] };
        for &tiny in kinds {
            let disk = act.disk();
            let opened = act.mount(&disk, tiny)?;
            disk.arm(Fault::None);
            act.answer = act.perform(&opened).map_err(text)?;
            act.reads[usize::from(tiny)] = disk.reads();
            if !tiny {
                if !act.closes() {
                    opened.fs.sync().map_err(text)?;
                }
                opened.close().map_err(text)?;
                (act.writes, act.discards) = (disk.writes(), disk.discards());
                drop(opened);
                act.after = look(Arc::new(disk.sim.contents()), stage)?;
            }
        }
        let known = &stage.befores[usize::from(recent) + 2 * usize::from(case.orphans)];
        act.before = match known.get() {
            Some(before) => before.clone(),
            None => {
                let disk = act.disk();
                act.mount(&disk, false)?.close().map_err(text)?;
                let before = look(Arc::new(disk.sim.contents()), stage)?;
                known.get_or_init(|| before).clone()
            }
        };
        Ok(Some(act))
    }

    /// It ends the mount itself.
    pub(crate) fn closes(&self) -> bool {
        self.case.name == "unmount"
    }

    /// The disk before it.
    pub(crate) fn disk(&self) -> Arc<FaultDisk> {
        let disk = if self.case.orphans { &self.stage.orphans } else { &self.stage.disk };
        FaultDisk::new(SimDevice::new(disk.snapshot()))
    }

    /// Mounts it, and does what was to be durable before.
    pub(crate) fn mount(&self, disk: &Arc<FaultDisk>, tiny: bool) -> Check<Opened> {
        let opened = open_at(Arc::clone(disk) as Arc<dyn BlockDevice>, &mount_options(self.stage, tiny), NOW)?;
        if self.recent {
            let c = self.ctx(&opened, SUPER);
            let n = self.stage.bs as usize;
            c.write("/recent", 0, &pattern(200, 2 * n))
                .and_then(|_| c.set("/recent", "user.recent", 100, 5))
                .and_then(|()| c.on("/recent", |node| c.fs.fsync(node)))
                .map_err(text)?;
        }
        Ok(opened)
    }

    pub(crate) fn ctx<'b>(&self, opened: &'b Opened, caller: Caller) -> Ctx<'b> {
        Ctx { opened, fs: &opened.fs, bs: self.stage.bs, growth: self.stage.growth, caller }
    }

    pub(crate) fn perform(&self, opened: &Opened) -> gfs2r::error::Result<String> {
        (self.case.body)(&self.ctx(opened, self.caller))
    }

    /// May the volume look like this? `before`, `after`: whether it may look as before or as after.
    pub(crate) fn judge(&self, seen: &View, before: bool, after: bool, free: bool) -> Check {
        let from_before = seen.differences(&self.before, free);
        let from_after = if self.case.leaves {
            seen.clone().without_blocks().differences(&self.after.clone().without_blocks(), false)
        } else {
            seen.differences(&self.after, free)
        };
        if before && from_before.is_empty() || after && from_after.is_empty() {
            return Ok(());
        }
        let mut words = Vec::new();
        if before {
            if let Unit::Parts(parts) = self.case.unit {
                let half = seen.half_way(&self.before, &self.after, parts);
                if half.is_empty() {
                    return Ok(());
                }
                words.push(format!("not half-way: {}", half.join("; ")));
            } else {
                words.push(format!("not as before: {}", from_before.join("; ")));
            }
        }
        if after {
            words.push(format!("not as after: {}", from_after.join("; ")));
        }
        Err(words.join("\n    "))
    }
}

/// Opens a disk, deletes what has no name, looks at all, closes, checks.
pub(crate) fn look(disk: Arc<MemoryDevice>, stage: &Stage) -> Check<View> {
    let opened = open_at(Arc::clone(&disk) as Arc<dyn BlockDevice>, &options(stage.quota), LATER)?;
    opened.fs.reclaim_orphans(&Default::default()).map_err(|e| format!("orphans: {e}"))?;
    let view = View::of(&opened.fs).map_err(|e| format!("the look afterwards: {e}"))?;
    opened.close().map_err(|e| format!("close afterwards: {e}"))?;
    drop(opened);
    clean(&*disk, false, "afterwards")?;
    Ok(view)
}

/// True for an error that says "the disk".
pub(crate) fn of_the_disk(e: &Error) -> bool {
    matches!(e, Error::Io(_) | Error::Withdrawn)
}

/// What a volume that has withdrawn must still do: refuse.
pub(crate) fn refuses(fs: &Fs) -> Check {
    let made = fs.make(&ANN, fs.root(), b"after the failure", &gfs2r::fs::NewInode::File(0o600));
    ensure(matches!(&made, Err(e) if of_the_disk(e)), || format!("create after a withdraw: {made:?}"))?;
    let synced = fs.sync();
    ensure(matches!(&synced, Err(e) if of_the_disk(e)), || format!("sync after a withdraw: {synced:?}"))?;
    let synced = fs.fsync(fs.root());
    ensure(matches!(&synced, Err(e) if of_the_disk(e)), || format!("fsync after a withdraw: {synced:?}"))
}
