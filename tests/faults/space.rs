//! Full disks and quota limits.

use crate::act::{Check, LATER, NOW, clean, ensure, look, stock, text};
use crate::cases::{Case, Unit, all};
use crate::run::{Runner, full};
use crate::stage::{ANN, Ctx, SUPER, Stage, open_at, options, pattern};
use crate::view::View;
use gfs2r::device::{BlockDevice, MemoryDevice};
use gfs2r::error::{Error, Result};
use gfs2r::fs::NewInode;
use gfs2r::quota::{QuotaMode, Who};
use gfs2r::volume::Opened;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Free blocks where there is enough for everything.
const ENOUGH: u64 = 700;
/// Numbers of free blocks that are tried of each operation, besides none, just enough and one less.
const TRIED: u64 = 2;

/// The stage with so many blocks free.
struct Images<'a> {
    stage: &'a Stage,
    made: BTreeMap<u64, Arc<MemoryDevice>>,
}

impl<'a> Images<'a> {
    fn new(stage: &'a Stage) -> Self {
        let disk = Arc::new(stage.disk.snapshot());
        let mut images = Self { stage, made: BTreeMap::new() };
        images.play(&disk, |c| {
            c.make("/", "fill", &NewInode::Dir(0o700))?;
            c.make("/fill", "big", &NewInode::File(0o600))?;
            (0..8).try_for_each(|i| c.make("/fill", &format!("fine{i}"), &NewInode::File(0o600)))?;
            leave_free(c, ENOUGH)
        });
        images.made.insert(ENOUGH, disk);
        images
    }
    fn play(&self, disk: &Arc<MemoryDevice>, f: impl FnOnce(&Ctx<'_>) -> Result<()>) {
        let opened = mount(disk, self.stage).expect("opens");
        f(&ctx(self.stage, &opened)).expect("the disk is filled");
        opened.close().expect("closes");
    }
    /// The disk with `n` blocks free.
    fn with(&mut self, n: u64) -> Arc<MemoryDevice> {
        if !self.made.contains_key(&n) {
            let disk = Arc::new(self.made[&ENOUGH].snapshot());
            self.play(&disk, |c| leave_free(c, n));
            self.made.insert(n, disk);
        }
        Arc::new(self.made[&n].snapshot())
    }
}

fn mount(disk: &Arc<MemoryDevice>, stage: &Stage) -> Check<Opened> {
    open_at(Arc::clone(disk) as Arc<dyn BlockDevice>, &options(stage.quota), NOW)
}

fn ctx<'a>(stage: &Stage, opened: &'a Opened) -> Ctx<'a> {
    Ctx { opened, fs: &opened.fs, bs: stage.bs, growth: stage.growth, caller: SUPER }
}

/// Fills the disk until exactly `n` blocks are free.
fn leave_free(c: &Ctx<'_>, n: u64) -> Result<()> {
    let longer = |path: &str, blocks: u64| {
        c.on(path, |node| {
            let size = c.fs.getattr(node)?.size;
            c.fs.fallocate(&SUPER, node, size, blocks * c.bs, 0)
        })
    };
    while c.fs.space().free > n + 150 {
        longer("/fill/big", (c.fs.space().free - n - 100).min(2000))?;
    }
    // One block each, as long as the pointers lie in the dinode.
    for i in 0..8 {
        let path = format!("/fill/fine{i}");
        while c.fs.space().free > n && c.on(&path, |node| c.fs.getattr(node))?.size < c.beyond(1) {
            longer(&path, 1)?;
        }
    }
    assert_eq!(c.fs.space().free, n, "so many blocks are left");
    Ok(())
}

/// What an operation does and needs, where there is enough.
struct Price {
    case: Case,
    before: View,
    after: View,
    answer: String,
    /// Free blocks it takes; negative when it gives some back.
    blocks: i64,
}

impl Price {
    fn of(stage: &Stage, case: Case, disk: &Arc<MemoryDevice>, caller: gfs2r::fs::Caller) -> Check<Self> {
        let disk = Arc::new(disk.snapshot());
        let opened = mount(&disk, stage)?;
        let free = opened.fs.space().free;
        let before = View::of(&opened.fs).map_err(text)?.without_filling();
        let answer = (case.body)(&Ctx { caller, ..ctx(stage, &opened) }).map_err(text)?;
        let after = View::of(&opened.fs).map_err(text)?.without_filling();
        let blocks = free as i64 - opened.fs.space().free as i64;
        opened.close().map_err(text)?;
        Ok(Self { case, before, after, answer, blocks })
    }
}

/// Every operation with so many blocks free.
pub(crate) fn full_disk(stage: &Stage, name: &str) {
    let mut r = Runner::new(name);
    let mut images = Images::new(stage);
    for case in all() {
        if case.orphans || case.quota && stage.quota == QuotaMode::Off {
            continue;
        }
        let enough = images.with(ENOUGH);
        let Some(price) = r.run(case.name, |_| Price::of(stage, case, &enough, SUPER)) else { continue };
        let cost = price.blocks.max(0) as u64;
        let mut tried = r.some(cost + 3, TRIED);
        tried.extend([0, cost.saturating_sub(1), cost, cost + case.spare]);
        if !full() && cost == 0 {
            tried = vec![0, r.rng.below(4)];
        }
        tried.sort_unstable();
        tried.dedup();
        for n in tried {
            let disk = images.with(n);
            r.run(&format!("{}, {n} blocks free, {} needed", case.name, price.blocks), |r| {
                with_free(r, stage, &price, &disk, n)
            });
        }
    }
    r.finish();
}

fn with_free(r: &mut Runner, stage: &Stage, price: &Price, disk: &Arc<MemoryDevice>, n: u64) -> Check {
    let opened = mount(disk, stage)?;
    let case = price.case;
    let result = (case.body)(&ctx(stage, &opened));
    let free = opened.fs.space().free;
    let seen = View::of(&opened.fs).map_err(text)?.without_filling();
    let (unlike_before, unlike_after) = (seen.differences(&price.before, false), seen.differences(&price.after, false));
    let in_part = |parts: &[&str]| seen.half_way(&price.before, &price.after, parts);
    match (&result, case.unit) {
        (Ok(answer), _) if (*answer == price.answer || case.volatile) && unlike_after.is_empty() => {
            let left = n as i64 - price.blocks;
            ensure(free as i64 == left, || format!("{free} blocks free afterwards, should be {left}"))?;
        }
        (Err(Error::NoSpace), _) if unlike_before.is_empty() && free == n => {
            let enough = price.blocks.max(0) as u64 + case.spare;
            ensure(n < enough, || "no space, though there is enough".into())?;
            r.saw("no space, nothing changed");
        }
        (Ok(_) | Err(Error::NoSpace), Unit::Parts(parts)) if in_part(parts).is_empty() => {
            ensure((n as i64) < price.blocks, || format!("done in part ({result:?}), though there is enough"))?;
            r.saw(format!("in part ({}): {}", if result.is_ok() { "short" } else { "no space" }, case.name));
        }
        (Err(Error::NoSpace), _) if !case.again => r.saw("no space after the first of several operations"),
        _ => {
            return Err(format!(
                "{result:?}, {free} free\n    not as before: {}\n    not as after: {}",
                unlike_before.join("; "),
                unlike_after.join("; ")
            ));
        }
    }
    if result.is_ok() && price.blocks < 0 {
        reuse(&ctx(stage, &opened), price.blocks.unsigned_abs())?;
    }
    if r.rng.chance(50) {
        opened.close().map_err(|e| format!("close: {e}"))?;
    } else {
        // The power goes after a sync.
        opened.fs.sync().map_err(|e| format!("sync: {e}"))?;
    }
    drop(opened);
    clean(&**disk, true, "afterwards")?;
    let seen = look(Arc::clone(disk), stage)?;
    ensure(seen.free >= free || price.blocks < 0, || format!("{} blocks free in the end, {free} before", seen.free))?;
    if r.rng.below(150) == 0 { stock(disk, "at the end") } else { Ok(()) }
}

/// What was given back can be used at once.
fn reuse(c: &Ctx<'_>, blocks: u64) -> Check {
    c.make("/fill", "reuse", &NewInode::File(0o600)).map_err(|e| format!("a file in the space given back: {e}"))?;
    // A block for the inode, and at most so many of pointers.
    let pointers = 2 + blocks / ((c.bs - 24) / 8 - 1);
    let Some(blocks) = blocks.checked_sub(1 + pointers).filter(|&n| n > 0) else { return Ok(()) };
    let bytes = pattern(1, (blocks * c.bs) as usize);
    let n = c.write("/fill/reuse", 0, &bytes).map_err(|e| format!("{blocks} blocks of the space given back: {e}"))?;
    ensure(n == bytes.len(), || format!("only {n} of {} bytes of the space given back", bytes.len()))
}

/// Every operation of somebody who may have so many blocks more.
pub(crate) fn limits(stage: &Stage, name: &str) {
    let mut r = Runner::new(name);
    if stage.quota == QuotaMode::Off {
        return r.finish();
    }
    let disk = Arc::new(stage.disk.snapshot());
    for case in all() {
        if case.orphans || case.quota {
            continue;
        }
        let Some(price) = r.run(case.name, |_| Price::of(stage, case, &disk, ANN)) else { continue };
        let cost = price.blocks.max(0);
        let mut tried = vec![-3, 0, 1, cost - 1, cost, cost + 1];
        tried.sort_unstable();
        tried.dedup();
        for more in tried {
            for who in [Who::User(ANN.uid), Who::Group(ANN.gid)] {
                if full() || r.rng.chance(40) {
                    r.run(&format!("{}, {more} blocks allowed to {who:?}, {} needed", case.name, price.blocks), |r| {
                        with_limit(r, stage, &price, who, more)
                    });
                }
            }
        }
    }
    r.finish();
}

fn used(opened: &Opened, who: Who) -> Check<i64> {
    let quota = opened.fs.quota().ok_or("no quotas")?;
    let lines = quota.report(opened.fs.volume()).map_err(text)?;
    Ok(lines.iter().find(|line| line.who == who).map_or(0, |line| line.used))
}

fn with_limit(r: &mut Runner, stage: &Stage, price: &Price, who: Who, more: i64) -> Check {
    let disk = Arc::new(stage.disk.snapshot());
    let opened = mount(&disk, stage)?;
    let before = used(&opened, who)?;
    let limit = (before + more) as u64;
    let quota = opened.fs.quota().ok_or("no quotas")?;
    quota.set(opened.fs.volume(), who, Some(limit), None).map_err(text)?;
    let free = opened.fs.space().free;
    let case = price.case;
    let result = (case.body)(&Ctx { caller: ANN, ..ctx(stage, &opened) });
    let seen = View::of(&opened.fs).map_err(text)?;
    let now = used(&opened, who)?;
    let differences = |want| seen.differences(want, false).join("; ");
    match &result {
        Ok(_) => {
            ensure(seen.differences(&price.after, false).is_empty(), || differences(&price.after))?;
            // What was charged to this one: an owner may have changed.
            ensure(now <= before.max(limit as i64), || format!("{now} blocks used, {limit} allowed"))?;
        }
        Err(Error::QuotaExceeded) => {
            let nothing = seen.differences(&price.before, false).is_empty();
            ensure(nothing || !case.again, || format!("refused, but not as before: {}", differences(&price.before)))?;
            ensure(!nothing || now == before && opened.fs.space().free == free, || "refused, but charged".into())?;
            ensure(more < price.blocks.max(0) + case.spare as i64, || "refused, though it is allowed".into())?;
            r.saw("quota exceeded, nothing changed");
        }
        Err(e) => return Err(format!("{e:?}")),
    }
    opened.close().map_err(|e| format!("close: {e}"))?;
    drop(opened);
    let end = open_at(Arc::clone(&disk) as Arc<dyn BlockDevice>, &options(stage.quota), LATER)?;
    ensure(used(&end, who)? == now, || "another usage after the next mount".into())?;
    end.close().map_err(text)?;
    clean(&*disk, true, "at the end")
}
