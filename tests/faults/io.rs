//! Reads, writes and flushes that fail.

use crate::act::{Act, Check, clean, ensure, look, mount_options, of_the_disk, refuses, stock, text};
use crate::cases::{Unit, all};
use crate::disk::{Fault, FaultDisk};
use crate::run::{Runner, full};
use crate::stage::{LONG_AGO, Stage, open_at};
use crate::view::View;
use gfs2r::device::{BlockDevice, CrashMode, SimDevice};
use gfs2r::error::Error;
use std::sync::Arc;

/// Faults of one kind that are tried of each operation.
const READS: u64 = 3;
const WRITES: u64 = 4;
const MOUNTS: u64 = 60;

/// Every operation with every read failing.
pub(crate) fn reads(stage: &Stage, name: &str) {
    let mut r = Runner::new(name);
    for case in all() {
        let Some(Some(act)) = r.run(case.name, |_| Act::rehearse(stage, case, false)) else { continue };
        for tiny in [false, true] {
            for k in r.some(act.reads[usize::from(tiny)], READS) {
                for fault in [Fault::Read(k), Fault::ReadsFrom(k)] {
                    if !full() && (fault == Fault::ReadsFrom(k)) == r.rng.chance(66) {
                        continue;
                    }
                    let what = format!("{}, {fault:?}{}", case.name, if tiny { ", nothing cached" } else { "" });
                    r.run(&what, |r| failed_read(r, &act, tiny, fault));
                }
            }
        }
    }
    r.finish();
}

fn failed_read(r: &mut Runner, act: &Act<'_>, tiny: bool, fault: Fault) -> Check {
    let disk = act.disk();
    let opened = act.mount(&disk, tiny)?;
    disk.arm(fault);
    let first = act.perform(&opened);
    disk.disarm();
    if !disk.fired() {
        // Where a directory in the root goes is a matter of chance, and so is what is read for it.
        r.saw("reads that were not needed this time");
        return first.map(drop).map_err(text);
    }
    if let Err(e) = &first {
        ensure(of_the_disk(e), || format!("not an honest error: {e:?}"))?;
    }
    let composite = !act.case.again;
    if let Some(cause) = opened.fs.volume().journal.withdrawn() {
        // Only where the cache is too small to hold what was read in preparation.
        ensure(tiny, || format!("it withdraws: {cause}"))?;
        r.saw("withdraws after a failed read, with too small a cache");
        refuses(&opened.fs)?;
        drop(opened);
        return power_cut(r, act, &disk, true, true);
    }
    let seen = View::of(&opened.fs).map_err(|e| format!("the look after {first:?}: {e}"))?;
    // A short write.
    let short = matches!((&first, act.case.unit), (Ok(answer), Unit::Parts(_)) if *answer != act.answer);
    match &first {
        Ok(answer) => {
            ensure(short || *answer == act.answer, || format!("a wrong answer: {answer}, should be {}", act.answer))?;
            act.judge(&seen, short, true, false).map_err(|e| format!("success, but {e}"))?;
        }
        Err(e) => {
            let done = composite || act.case.durable;
            act.judge(&seen, true, done, false).map_err(|words| format!("failed ({e}), but {words}"))?;
        }
    }
    if (first.is_err() || short) && !composite {
        let again = act.perform(&opened).map_err(|e| format!("fails again on a healthy disk: {e:?}"))?;
        ensure(again == act.answer, || format!("a wrong answer afterwards: {again}, should be {}", act.answer))?;
    }
    opened.close().map_err(|e| format!("close: {e}"))?;
    drop(opened);
    let contents = disk.sim.contents();
    let seen = look(Arc::new(contents), act.stage)?;
    act.judge(&seen, first.is_err() && composite, true, true).map_err(|e| format!("at the end {e}"))
}

/// Every operation, a sync and a close after it, with every write failing.
pub(crate) fn writes(stage: &Stage, name: &str) {
    let mut r = Runner::new(name);
    for case in all() {
        let Some(Some(act)) = r.run(case.name, |_| Act::rehearse(stage, case, true)) else { continue };
        if act.writes.is_empty() {
            continue;
        }
        if act.discards > 0 {
            for fault in [Fault::Discard(0), Fault::Discard(act.discards - 1), Fault::DiscardsFrom(0)] {
                r.run(&format!("{}, {fault:?}", case.name), |_| failed_discard(&act, fault));
            }
        }
        for k in r.some(act.writes.len() as u64, WRITES) {
            let flush = act.writes[k as usize];
            let mut faults = vec![Fault::Write(k), Fault::WritesFrom(k)];
            if flush {
                faults.push(Fault::FlushesFrom(k));
            }
            if !full() {
                let one = *r.rng.pick(&faults);
                faults = vec![one];
            }
            for fault in faults {
                let kind = if flush { " (flush)" } else { "" };
                r.run(&format!("{}, {fault:?}{kind}", case.name), |r| failed_write(r, &act, fault));
            }
        }
    }
    r.finish();
}

fn failed_write(r: &mut Runner, act: &Act<'_>, fault: Fault) -> Check {
    let disk = act.disk();
    let opened = act.mount(&disk, false)?;
    disk.arm(fault);
    let mut before_it = true;
    // What each step says, and whether it should have noticed.
    let mut step = |what: &str, result: &Result<(), Error>, must_notice: bool| {
        let (failed, was_before) = (disk.fired(), before_it);
        before_it = !failed;
        match result {
            Ok(()) if !failed || was_before && !must_notice => Ok(()),
            Ok(()) => Err(format!("{what} says nothing of the failure")),
            Err(e) if failed => ensure(of_the_disk(e), || format!("{what}: not an honest error: {e:?}")),
            Err(e) => Err(format!("{what} fails before anything failed: {e}")),
        }
    };
    let closes = act.closes();
    let done = act.perform(&opened).map(drop);
    let in_it = disk.fired();
    step(act.case.name, &done, act.case.durable)?;
    let (mut synced, mut closed) = (Ok(()), Ok(()));
    if !closes {
        synced = opened.fs.sync();
        step("sync", &synced, true)?;
        let withdrawn = disk.fired();
        if withdrawn {
            refuses(&opened.fs)?;
        }
        closed = opened.close();
        step("close", &closed, true)?;
    }
    ensure(disk.fired(), || "nothing failed".into())?;
    ensure(opened.fs.volume().journal.withdrawn().is_some(), || "it has not withdrawn".into())?;
    drop(opened);
    ensure(disk.late() == 0, || format!("{} writes after the failure", disk.late()))?;
    r.saw(match (in_it, synced.is_ok(), closed.is_ok()) {
        (true, ..) => "failures in the operation",
        (_, false, _) => "failures in sync",
        _ => "failures in close",
    });
    let sure = !closes && synced.is_ok() || act.case.durable && done.is_ok();
    power_cut(r, act, &disk, !sure, true)
}

/// A discard is a hint: that it fails changes nothing but the answer.
fn failed_discard(act: &Act<'_>, fault: Fault) -> Check {
    let disk = act.disk();
    let opened = act.mount(&disk, false)?;
    disk.arm(fault);
    let done = act.perform(&opened);
    ensure(disk.fired(), || "nothing failed".into())?;
    ensure(!matches!(&done, Err(e) if !of_the_disk(e)), || format!("not an honest error: {done:?}"))?;
    opened.close().map_err(|e| format!("close: {e}"))?;
    drop(opened);
    let seen = look(Arc::new(disk.sim.contents()), act.stage)?;
    act.judge(&seen, true, true, true)
}

/// What a power cut leaves is replayed, looked at and checked.
fn power_cut(r: &mut Runner, act: &Act<'_>, disk: &FaultDisk, before: bool, after: bool) -> Check {
    let modes = [CrashMode::AllLost, CrashMode::AllKept, CrashMode::Random, CrashMode::Torn];
    let modes = if full() { modes.to_vec() } else { vec![*r.rng.pick(&modes)] };
    for mode in modes {
        let seed = r.rng.next();
        let image = Arc::new(disk.sim.crash(seed, mode));
        let when = format!("power cut {mode:?} {seed}");
        let result = (|| {
            if r.rng.chance(30) {
                clean(&*image, true, "before the replay")?;
            }
            let seen = look(Arc::clone(&image), act.stage)?;
            act.judge(&seen, before, after, act.case.unit == Unit::Whole)?;
            if r.rng.below(150) == 0 { stock(&image, "after the replay") } else { Ok(()) }
        })();
        result.map_err(|e| format!("{when}: {e}"))?;
    }
    Ok(())
}

/// Opening a volume whose journal must be replayed, with every read and every write failing.
pub(crate) fn mounts(stage: &Stage, name: &str) {
    let mut r = Runner::new(name);
    let want = look(Arc::new(stage.dirty.snapshot()), stage).expect("the replay works");
    let mount = |disk: &Arc<FaultDisk>| {
        open_at(Arc::clone(disk) as Arc<dyn BlockDevice>, &mount_options(stage, false), LONG_AGO + 1000)
    };
    let disk = FaultDisk::new(SimDevice::new(stage.dirty.snapshot()));
    disk.arm(Fault::None);
    drop(mount(&disk).expect("opens"));
    let (reads, writes) = (disk.reads(), disk.writes());
    println!("{name}: {reads} reads and {} writes in a mount with a replay", writes.len());
    let reading = r.some(reads, MOUNTS).into_iter().flat_map(|k| [Fault::Read(k), Fault::ReadsFrom(k)]);
    let mut faults: Vec<Fault> = reading.collect();
    for k in r.some(writes.len() as u64, MOUNTS) {
        faults.extend([Fault::Write(k), Fault::WritesFrom(k)]);
        if writes[k as usize] {
            faults.push(Fault::FlushesFrom(k));
        }
    }
    for fault in faults {
        if !full() && r.rng.chance(50) {
            continue;
        }
        r.run(&format!("mount, {fault:?}"), |r| {
            let disk = FaultDisk::new(SimDevice::new(stage.dirty.snapshot()));
            disk.arm(fault);
            let opened = mount(&disk);
            disk.disarm();
            ensure(disk.fired(), || "nothing failed".into())?;
            let writing = !matches!(fault, Fault::Read(_) | Fault::ReadsFrom(_));
            match opened {
                Err(why) => r.saw(why),
                Ok(_) if writing => return Err("it is mounted, but a write of the replay has failed".into()),
                Ok(opened) => {
                    opened.close().map_err(text)?;
                    r.saw("mounted all the same");
                }
            }
            ensure(!writing || disk.late() == 0, || format!("{} writes after the failure", disk.late()))?;
            let modes = [CrashMode::AllLost, CrashMode::AllKept, CrashMode::Random, CrashMode::Torn];
            for mode in modes {
                let seed = r.rng.next();
                let seen = look(Arc::new(disk.sim.crash(seed, mode)), stage)
                    .map_err(|e| format!("power cut {mode:?} {seed}: {e}"))?;
                let differences = seen.differences(&want, true);
                ensure(differences.is_empty(), || format!("{mode:?} {seed}: {}", differences.join("; ")))?;
            }
            Ok(())
        });
    }
    r.finish();
}
