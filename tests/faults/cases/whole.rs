//! Operations on the volume, and making things durable.

use super::{Case, Silent, parts, several, whole};
use crate::stage::{SUPER, pattern};
use gfs2r::fs::NewInode;
use gfs2r::quota::Who;

const FILE: NewInode<'_> = NewInode::File(0o644);

pub(super) fn cases() -> Vec<Case> {
    let durable = |case: Case| several(Case { durable: true, ..case });
    let volatile = |case: Case| Case { volatile: true, ..case };
    let quota = |case: Case| Case { quota: true, ..case };
    vec![
        durable(whole("fsync of a directory", |c| {
            c.make("/few", "new", &FILE)?;
            c.on("/few", |node| c.fs.fsync(node)).quiet()
        })),
        durable(parts("fsync of a file", &["/mid"], |c| {
            c.write("/mid", 3 * c.bs, &pattern(9, 5 * c.bs as usize))?;
            c.on("/mid", |node| c.fs.fsync(node)).quiet()
        })),
        durable(parts("fsync of a journaled file", &["/jd"], |c| {
            c.write("/jd", 3 * c.bs, &pattern(9, 5 * c.bs as usize))?;
            c.on("/jd", |node| c.fs.fsync(node)).quiet()
        })),
        durable(parts("fsync, nothing but data", &["/long"], |c| {
            c.write("/long", 3 * c.bs, &pattern(9, 5 * c.bs as usize))?;
            c.fs.sync()?;
            c.write("/long", 13 * c.bs, &pattern(9, 5 * c.bs as usize))?;
            c.on("/long", |node| c.fs.fsync(node)).quiet()
        })),
        durable(parts("sync", &["/mid", "/small"], |c| {
            c.write("/mid", 3 * c.bs, &pattern(9, 5 * c.bs as usize))?;
            c.write("/small", 3 * c.bs, &pattern(9, 5 * c.bs as usize))?;
            c.fs.sync().quiet()
        })),
        volatile(whole("statfs", |c| Ok(format!("{:?}", c.fs.space())))),
        several(whole("statfs and quota files", |c| {
            c.make("/few", "new", &FILE)?;
            c.fs.sync_counters().quiet()
        })),
        quota(whole("quota, a limit", |c| {
            c.fs.quota().map_or(Ok(()), |q| q.set(c.fs.volume(), Who::User(7), Some(100), None)).quiet()
        })),
        quota(whole("quota, a limit far away", |c| {
            c.fs.quota().map_or(Ok(()), |q| q.set(c.fs.volume(), Who::Group(70_000), Some(100), Some(7))).quiet()
        })),
        volatile(quota(whole("quota, report", |c| {
            c.fs.quota().map_or(Ok(Vec::new()), |q| q.report(c.fs.volume())).map(|lines| format!("{lines:?}"))
        }))),
        volatile(whole("trim", |c| c.fs.trim(0, u64::MAX, 0).map(|bytes| bytes.to_string()))),
        Case { orphans: true, ..whole("orphans are deleted", |c| c.fs.reclaim_orphans(&Default::default()).quiet()) },
        durable(whole("remount, read-only and back", |c| {
            c.make("/few", "new", &FILE)?;
            c.opened.remount(true)?;
            c.opened.remount(false).quiet()
        })),
        durable(whole("unmount", |c| {
            c.on("/few", |dir| c.fs.make(&SUPER, dir, b"new", &FILE))?;
            c.opened.close().quiet()
        })),
    ]
}
