//! Members come and go in order.

use crate::lab::{EAGAIN, Lab, Lock, NONE};
use crate::values::sees;
use lockclient::flags::LockFlags;
use lockclient::mode::Mode;

const VALBLK: LockFlags = LockFlags::VALBLK;
/// Names enough for several blocks of a list of names, whichever node keeps the directory.
const MANY: usize = 700;

/// A node alone takes many locks and writes values; who joins must see all of it.
fn alone(lab: &mut Lab, node: u32) -> Result<(Vec<Vec<u8>>, Vec<Lock>), String> {
    let mut names = Vec::new();
    let mut locks = Vec::new();
    for n in 0..MANY {
        // Some short ones and the longest among them.
        let name = match n {
            0 => vec![b'x'],
            1 => vec![b'y'; 64],
            _ => lab.name(node),
        };
        locks.push(lab.request(node, &name, Mode::Ex, VALBLK)?);
        names.push(name);
    }
    for lock in &locks {
        lab.ends(lock, 0)?;
        lab.id(lock)?;
    }
    Ok((names, locks))
}

/// The locks that a node took alone are there for the one that has joined.
fn seen_by(lab: &mut Lab, joiner: u32, names: &[Vec<u8>], locks: &[Lock]) -> Result<(), String> {
    let probes: Vec<Lock> =
        names.iter().map(|name| lab.request(joiner, name, Mode::Cr, LockFlags::NOQUEUE)).collect::<Result<_, _>>()?;
    for (probe, name) in probes.iter().zip(names) {
        lab.ends(probe, EAGAIN).map_err(|error| format!("{}: {error}", String::from_utf8_lossy(name)))?;
        lab.id(probe)?;
    }
    // The value comes with the lock.
    for (name, lock) in names.iter().zip(locks).take(20) {
        let waiting = lab.request(joiner, name, Mode::Pr, VALBLK)?;
        lab.told(lock, Mode::Pr)?;
        lab.unlock_with(lock, VALBLK, &[0x41; 32])?;
        lab.ends(lock, crate::lab::EUNLOCK)?;
        sees(&lab.ends(&waiting, 0)?, 0x41, true)?;
        lab.unlock(&waiting)?;
    }
    lab.unlock_all(&locks[20..])
}

pub(crate) fn kernel_first(lab: &mut Lab) -> Result<(), String> {
    lab.boot_ours(2)?;
    lab.join(lab.k)?;
    let (names, locks) = alone(lab, lab.k)?;
    lab.join(2)?;
    seen_by(lab, 2, &names, &locks)
}

pub(crate) fn ours_first(lab: &mut Lab) -> Result<(), String> {
    lab.boot_ours(2)?;
    lab.join(2)?;
    let (names, locks) = alone(lab, 2)?;
    lab.join(lab.k)?;
    seen_by(lab, lab.k, &names, &locks)
}

/// A node leaves although it holds locks; who waits for them gets them, with values that are not valid.
fn leaves(lab: &mut Lab, node: u32, stays: u32) -> Result<(), String> {
    let mut waiting = Vec::new();
    let mut stayed = Vec::new();
    for (dir, master) in lab.places() {
        let (name, anchor) = lab.resource(dir, master)?;
        let lost = lab.lock(node, &name, Mode::Ex, VALBLK)?;
        lab.converts(&lost, Mode::Ex, VALBLK, &[0x51; 32], 0)?;
        let lock = lab.request(stays, &name, Mode::Pr, VALBLK)?;
        lab.told(&lost, Mode::Pr)?;
        waiting.push((lock, (master == stays).then_some(anchor)));
        // And one that the node that stays holds, whoever is the master.
        let (name, anchor) = lab.resource(dir, master)?;
        let lock = lab.lock(stays, &name, Mode::Ex, VALBLK)?;
        stayed.push((name, lock, (master == stays).then_some(anchor)));
    }
    lab.leave(node)?;
    for (lock, _) in &waiting {
        lab.ends(lock, 0)?;
        lab.id(lock)?;
    }
    for (_, lock, _) in &stayed {
        lab.converts(lock, Mode::Pr, VALBLK, &[0x52; 32], 0)?;
    }
    lab.join(node)?;
    for (name, lock, _) in &stayed {
        lab.attempt(node, name, Mode::Ex, LockFlags::NOQUEUE, EAGAIN)?;
        let reader = lab.request(node, name, Mode::Pr, VALBLK)?;
        sees(&lab.ends(&reader, 0)?, 0x52, true)?;
        lab.unlock_all([&reader, lock])?;
    }
    for (lock, anchor) in waiting.iter().map(|(lock, anchor)| (lock, anchor)) {
        lab.unlock(lock)?;
        lab.unlock_all(anchor)?;
    }
    lab.unlock_all(stayed.iter().filter_map(|(_, _, anchor)| anchor.as_ref()))
}

pub(crate) fn ours_leaves(lab: &mut Lab) -> Result<(), String> {
    let (k, p) = (lab.k, lab.p());
    leaves(lab, p, k)?;
    // And once more, right away.
    lab.leave(p)?;
    lab.join(p)
}

pub(crate) fn kernel_leaves(lab: &mut Lab) -> Result<(), String> {
    let (k, p) = (lab.k, lab.p());
    leaves(lab, k, p)?;
    lab.leave(k)?;
    lab.join(k)
}

pub(crate) fn calls_while_stopped(lab: &mut Lab) -> Result<(), String> {
    for _ in 0..3 {
        let mut calls = Vec::new();
        for (dir, master) in lab.places() {
            for asker in [lab.k, lab.p()] {
                let (name, anchor) = lab.resource(dir, master)?;
                let lock = lab.lock(asker, &name, Mode::Pr, NONE)?;
                calls.push((name, anchor, lock, asker));
            }
        }
        lab.stop_all()?;
        let mut asked = Vec::new();
        for (name, _, lock, asker) in &calls {
            asked.push(lab.request(*asker, name, Mode::Cr, NONE)?);
            lab.begin_convert(lock, Mode::Ex, LockFlags::CONVDEADLK, &[])?;
        }
        for lock in &asked {
            lab.has_not_ended(lock)?;
        }
        lab.start_all()?;
        for (lock, (_, anchor, converted, _)) in asked.iter().zip(&calls) {
            lab.ends(lock, 0)?;
            lab.id(lock)?;
            lab.unlock(lock)?;
            lab.ends(converted, 0)?;
            lab.unlock_all([converted, anchor])?;
        }
    }
    Ok(())
}
