//! Members die: what they held is free, what the others held is theirs, and values are believed or not by the rules.

use crate::changes::kernel_first;
use crate::lab::{EAGAIN, ECANCEL, EUNLOCK, Lab, Lock, NONE};
use crate::values::{NOT_VALID, sees};
use lockclient::flags::LockFlags;
use lockclient::mode::Mode::{self, Cr, Ex, Nl, Pr};

const VALBLK: LockFlags = LockFlags::VALBLK;

/// One resource before a death.
struct Scene {
    name: Vec<u8>,
    /// The victim's.
    lost: Lock,
    /// A survivor's lock that is granted before, and the mode it has.
    kept: Option<(Lock, Mode)>,
    /// A survivor's lock that waits for the victim's.
    waiting: Option<Lock>,
    /// The value that a reader sees afterwards, and whether it is valid; nothing if nothing is promised.
    value: Option<(u8, bool)>,
}

/// A value is on the resource, and both have a lock in NL on it.
fn valued(lab: &mut Lab, place: (u32, u32), victim: u32, survivor: u32) -> Result<(Vec<u8>, Lock, Lock), String> {
    let name = lab.name(place.0);
    let (first, second) = if place.1 == victim { (victim, survivor) } else { (survivor, victim) };
    let one = lab.lock(first, &name, Ex, VALBLK)?;
    lab.converts(&one, Nl, VALBLK, &[0x61; 32], 0)?;
    // A conversion downwards has no answer; this one comes after it.
    lab.settled(first, &name)?;
    let two = lab.lock(second, &name, Nl, VALBLK)?;
    Ok(if first == victim { (name, one, two) } else { (name, two, one) })
}

fn scenes(lab: &mut Lab, victim: u32, survivor: u32) -> Result<Vec<Scene>, String> {
    let mut scenes = Vec::new();
    for place in lab.places().into_iter().filter(|place| place.1 == victim || place.1 == survivor) {
        let remote = place.1 == victim;
        // The victim writes; a survivor waits with a new request.
        let (name, lost, old) = valued(lab, place, victim, survivor)?;
        lab.converts(&lost, Ex, VALBLK, &[], 0)?;
        let waiting = lab.request(survivor, &name, Ex, NONE)?;
        lab.told(&lost, Ex)?;
        // Nobody has the value; a new master has it from an NL lock, and says that it may be stale.
        scenes.push(Scene { name, lost, kept: Some((old, Nl)), waiting: Some(waiting), value: Some((0x61, false)) });
        // Both read; the survivor converts up and waits. It has the value in a mode that excludes writers.
        let (name, lost, kept) = valued(lab, place, victim, survivor)?;
        lab.converts(&lost, Pr, VALBLK, &[], 0)?;
        lab.converts(&kept, Pr, VALBLK, &[], 0)?;
        lab.convert(&kept, Ex, VALBLK, &[])?;
        lab.told(&lost, Ex)?;
        scenes.push(Scene { name, lost, kept: None, waiting: Some(kept), value: None });
        // The survivor holds alone.
        let (name, lost, kept) = valued(lab, place, victim, survivor)?;
        lab.converts(&kept, Pr, VALBLK, &[], 0)?;
        scenes.push(Scene { name, lost, kept: Some((kept, Pr)), waiting: None, value: Some((0x61, true)) });
        // Both in NL: a master that lives knows the value; a new one does not.
        let (name, lost, kept) = valued(lab, place, victim, survivor)?;
        scenes.push(Scene { name, lost, kept: Some((kept, Nl)), waiting: None, value: Some((0x61, !remote)) });
        // CR excludes no writer.
        let (name, lost, kept) = valued(lab, place, victim, survivor)?;
        lab.converts(&kept, Cr, VALBLK, &[], 0)?;
        scenes.push(Scene { name, lost, kept: Some((kept, Cr)), waiting: None, value: Some((0x61, !remote)) });
    }
    Ok(scenes)
}

/// The survivors' side of it, after recovery. `probe` is a second survivor, if there is one.
fn check(lab: &mut Lab, scenes: Vec<Scene>, probe: Option<u32>) -> Result<(), String> {
    for (n, scene) in scenes.into_iter().enumerate() {
        check_one(lab, &scene, probe).map_err(|error| format!("scene {n}, {:?}: {error}", scene.lost))?;
    }
    Ok(())
}

fn check_one(lab: &mut Lab, scene: &Scene, probe: Option<u32>) -> Result<(), String> {
    let mut mine = Vec::new();
    if let Some(waiting) = &scene.waiting {
        lab.ends(waiting, 0)?;
        lab.id(waiting)?;
        if let Some(probe) = probe {
            lab.attempt(probe, &scene.name, Cr, LockFlags::NOQUEUE, EAGAIN)?;
        }
        lab.converts(waiting, Nl, NONE, &[], 0)?;
        mine.push(waiting);
    }
    if let Some((kept, mode)) = &scene.kept {
        if let (Some(probe), Pr) = (probe, mode) {
            lab.attempt(probe, &scene.name, Ex, LockFlags::NOQUEUE, EAGAIN)?;
        }
        if let Some((value, valid)) = scene.value {
            sees(&lab.converts(kept, Pr, VALBLK, &[], 0)?, value, valid)?;
            if let Some(probe) = probe {
                let reader = lab.request(probe, &scene.name, Pr, VALBLK)?;
                sees(&lab.ends(&reader, 0)?, value, valid)?;
                lab.id(&reader)?;
                lab.unlock(&reader)?;
            }
        }
        // The next writer makes it valid.
        let done = lab.converts(kept, Ex, VALBLK, &[], 0)?;
        lab.converts(kept, Nl, VALBLK, &[0x62; 32], 0)?;
        let again = lab.converts(kept, Pr, VALBLK, &[], 0)?;
        sees(&again, 0x62, true).map_err(|error| format!("{error}; before it {done:?}"))?;
        mine.push(kept);
    }
    lab.unlock_all(mine)
}

/// Operations of a survivor that the victim has not answered when it dies.
struct Unanswered {
    request: Lock,
    converting: Lock,
    unlocking: Lock,
    cancelling: Lock,
    canceller: Lock,
}

/// The victim is the master of all of it, and is frozen in the sense that nobody waits for its answers.
fn unanswered(lab: &mut Lab, victim: u32, survivor: u32) -> Result<Vec<Unanswered>, String> {
    let mut all = Vec::new();
    for dir in lab.members.clone() {
        for _ in 0..10 {
            let (names, converting, unlocking) = {
                let mut locks = Vec::new();
                let mut names = Vec::new();
                for _ in 0..4 {
                    let (name, _lost) = lab.resource(dir, victim)?;
                    names.push(name);
                }
                for name in &names[1..3] {
                    locks.push(lab.lock(survivor, name, Cr, NONE)?);
                }
                let mut locks = locks.into_iter();
                let (Some(one), Some(two)) = (locks.next(), locks.next()) else { return Err("two locks".into()) };
                (names, one, two)
            };
            let canceller = lab.lock(survivor, &names[3], Pr, NONE)?;
            let cancelling = lab.request(survivor, &names[3], Ex, NONE)?;
            lab.told(&canceller, Ex)?;
            let request = lab.request(survivor, &names[0], Ex, NONE)?;
            lab.begin_convert(&converting, Ex, NONE, &[])?;
            lab.unlock_with(&unlocking, NONE, &[])?;
            lab.unlock_with(&cancelling, LockFlags::CANCEL, &[])?;
            all.push(Unanswered { request, converting, unlocking, cancelling, canceller });
        }
    }
    Ok(all)
}

fn answered(lab: &mut Lab, all: Vec<Unanswered>) -> Result<(), String> {
    for one in all {
        lab.ends(&one.request, 0)?;
        lab.ends(&one.converting, 0)?;
        lab.ends(&one.unlocking, EUNLOCK)?;
        lab.ends(&one.cancelling, ECANCEL)?;
        for lock in [&one.request, &one.converting, &one.canceller] {
            lab.id(lock)?;
            lab.unlock(lock)?;
        }
    }
    Ok(())
}

fn death(lab: &mut Lab, victim: u32, survivor: u32, probe: Option<u32>) -> Result<(), String> {
    let before = scenes(lab, victim, survivor)?;
    let outstanding = unanswered(lab, victim, survivor)?;
    lab.die(victim)?;
    check(lab, before, probe)?;
    answered(lab, outstanding)
}

pub(crate) fn ours_dies(lab: &mut Lab) -> Result<(), String> {
    let (k, p) = (lab.k, lab.p());
    death(lab, p, k, None)?;
    // It comes back as another; the kernel's locks are in its way.
    let name = lab.name(k);
    let held = lab.lock(k, &name, Ex, NONE)?;
    lab.boot_ours(p)?;
    lab.join(p)?;
    lab.attempt(p, &name, Pr, LockFlags::NOQUEUE, EAGAIN)?;
    lab.unlock(&held)
}

pub(crate) fn kernel_dies(lab: &mut Lab) -> Result<(), String> {
    let (k, p) = (lab.k, lab.p());
    let probe = lab.members.iter().copied().find(|node| *node != k && *node != p);
    death(lab, k, p, probe)?;
    // Another kernel takes its place.
    let name = lab.name(p);
    let held = lab.lock(p, &name, Ex, NONE)?;
    lab.boot_kernel()?;
    lab.join(k)?;
    lab.attempt(k, &name, Pr, LockFlags::NOQUEUE, EAGAIN)?;
    lab.unlock(&held)
}

pub(crate) fn three(lab: &mut Lab) -> Result<(), String> {
    if lab.members.is_empty() {
        kernel_first(lab)?;
    }
    lab.boot_ours(3)?;
    lab.join(3)?;
    for (dir, master) in lab.places() {
        for (holder, asker) in [(1, 2), (2, 3), (3, 1), (2, 1), (3, 2), (1, 3)] {
            let (name, anchor) = lab.resource(dir, master)?;
            let held = lab.lock(holder, &name, Ex, VALBLK)?;
            lab.attempt(asker, &name, Cr, LockFlags::NOQUEUE, EAGAIN)?;
            let waiting = lab.request(asker, &name, Pr, VALBLK)?;
            lab.told(&held, Pr)?;
            lab.converts(&held, Nl, VALBLK, &[0x71; 32], 0)?;
            sees(&lab.ends(&waiting, 0)?, 0x71, true)?;
            lab.unlock_all([&held, &waiting, &anchor])?;
        }
    }
    Ok(())
}

pub(crate) fn one_of_ours_dies(lab: &mut Lab) -> Result<(), String> {
    death(lab, 3, lab.k, Some(2))?;
    lab.boot_ours(3)?;
    lab.join(3)?;
    death(lab, 2, 3, Some(lab.k))?;
    lab.boot_ours(2)?;
    lab.join(2)
}

pub(crate) fn one_dies_in_recovery(lab: &mut Lab) -> Result<(), String> {
    for _ in 0..3 {
        // Node 3 leaves the lockspace; node 2 dies at some moment of the recovery that follows.
        let before = scenes(lab, 2, lab.k)?;
        lab.stop_all()?;
        lab.begin_start()?;
        lab.crash(2);
        lab.bury(2)?;
        lab.start_all()?;
        check(lab, before, Some(3))?;
        lab.boot_ours(2)?;
        lab.join(2)?;
    }
    // A value that nobody can vouch for is not valid anywhere.
    let (name, lost, kept) = valued(lab, (2, 2), 2, lab.k)?;
    lab.converts(&lost, Ex, VALBLK, &[], 0)?;
    lab.die(2)?;
    let reader = lab.request(3, &name, Pr, VALBLK)?;
    let done = lab.ends(&reader, 0)?;
    if done.flags & NOT_VALID == 0 {
        return Err(format!("{done:?}"));
    }
    lab.unlock_all([&reader, &kept])?;
    lab.boot_ours(2)?;
    lab.join(2)
}
