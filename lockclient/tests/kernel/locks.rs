//! Modes: which are granted together, and what a change from one to another does.

use crate::lab::{EAGAIN, Lab, NONE};
use lockclient::flags::LockFlags;
use lockclient::mode::Mode;

/// Holder and requester, both ways.
pub(crate) fn ways(lab: &Lab) -> [(u32, u32); 2] {
    let (k, p) = (lab.k, lab.p());
    [(k, p), (p, k)]
}

pub(crate) fn pairs(lab: &mut Lab) -> Result<(), String> {
    for (dir, master) in lab.places() {
        for (holder, asker) in ways(lab) {
            for (held, wanted) in Mode::ALL.iter().flat_map(|held| Mode::ALL.iter().map(move |wanted| (*held, *wanted)))
            {
                pair(lab, (dir, master), (holder, held), (asker, wanted)).map_err(|error| {
                    format!("dir {dir}, master {master}: {holder} holds {held:?}, {asker} wants {wanted:?}: {error}")
                })?;
            }
        }
    }
    Ok(())
}

fn pair(lab: &mut Lab, place: (u32, u32), has: (u32, Mode), wants: (u32, Mode)) -> Result<(), String> {
    let (name, anchor) = lab.resource(place.0, place.1)?;
    let together = has.1.compatible(wants.1);
    let held = lab.lock(has.0, &name, has.1, NONE)?;
    lab.attempt(wants.0, &name, wants.1, LockFlags::NOQUEUE, if together { 0 } else { EAGAIN })?;
    let wanted = lab.request(wants.0, &name, wants.1, NONE)?;
    if together {
        lab.ends(&wanted, 0)?;
        lab.unlock(&held)?;
    } else {
        lab.told(&held, wants.1)?;
        lab.waits(&wanted)?;
        lab.unlock(&held)?;
        lab.ends(&wanted, 0)?;
    }
    lab.unlock_all([&wanted, &anchor])
}

/// What becomes of the value in a conversion (dlm.md 1.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value {
    Returned,
    Written,
    Left,
}

fn value(from: Mode, to: Mode) -> Value {
    match (from, to) {
        (Mode::Ex, _) => Value::Written,
        (Mode::Pw, Mode::Ex) => Value::Returned,
        (Mode::Pw, _) => Value::Written,
        (from, to) if to >= from || from == Mode::Nl => Value::Returned,
        _ => Value::Left,
    }
}

pub(crate) fn conversions(lab: &mut Lab) -> Result<(), String> {
    for (dir, master) in lab.places() {
        for (reader, subject) in ways(lab) {
            for (from, to) in Mode::ALL.iter().flat_map(|from| Mode::ALL.iter().map(move |to| (*from, *to))) {
                conversion(lab, (dir, master), (reader, subject), (from, to)).map_err(|error| {
                    format!("dir {dir}, master {master}: {subject} converts {from:?} to {to:?}: {error}")
                })?;
            }
        }
    }
    Ok(())
}

fn conversion(lab: &mut Lab, place: (u32, u32), who: (u32, u32), modes: (Mode, Mode)) -> Result<(), String> {
    let valued = LockFlags::VALBLK;
    let (name, anchor) = lab.resource(place.0, place.1)?;
    let reader = lab.lock(who.0, &name, Mode::Ex, valued)?;
    lab.converts(&reader, Mode::Nl, valued, &[0x11; 32], 0)?;
    // A conversion downwards has no answer; this one comes after it.
    lab.settled(who.0, &name)?;
    let subject = lab.request(who.1, &name, modes.0, valued)?;
    let first = lab.ends(&subject, 0)?;
    if first.lvb.as_deref() != Some(&[0x11; 32]) {
        return Err(format!("a new lock should see the value: {first:?}"));
    }
    let done = lab.converts(&subject, modes.1, valued, &[0x22; 32], 0)?;
    let what = value(modes.0, modes.1);
    if what == Value::Returned && done.lvb.as_deref() != Some(&[0x11; 32]) {
        return Err(format!("the value should be returned: {done:?}"));
    }
    if done.flags != 0 {
        return Err(format!("flags: {done:?}"));
    }
    lab.settled(who.1, &name)?;
    let seen = lab.converts(&reader, Mode::Nl, valued, &[], 0)?;
    let expected = if what == Value::Written { [0x22; 32] } else { [0x11; 32] };
    if seen.lvb.as_deref() != Some(&expected) {
        return Err(format!("{what:?}, but the other node sees {seen:?}"));
    }
    lab.unlock_all([&subject, &reader, &anchor])
}

pub(crate) fn conversions_that_wait(lab: &mut Lab) -> Result<(), String> {
    for (dir, master) in lab.places() {
        for (other, subject) in ways(lab) {
            for (a, b) in Mode::ALL.iter().flat_map(|a| Mode::ALL.iter().map(move |b| (*a, *b))) {
                for to in Mode::ALL.into_iter().filter(|to| a.compatible(b) && !a.compatible(*to) && b != *to) {
                    conversion_that_waits(lab, (dir, master), (other, a), (subject, b, to)).map_err(|error| {
                        format!("dir {dir}, master {master}: {other} holds {a:?}, {subject} {b:?} to {to:?}: {error}")
                    })?;
                }
            }
        }
    }
    Ok(())
}

fn conversion_that_waits(
    lab: &mut Lab,
    place: (u32, u32),
    (other, a): (u32, Mode),
    (subject, b, to): (u32, Mode, Mode),
) -> Result<(), String> {
    let (name, anchor) = lab.resource(place.0, place.1)?;
    let held = lab.lock(other, &name, a, NONE)?;
    let lock = lab.lock(subject, &name, b, NONE)?;
    lab.converts(&lock, to, LockFlags::NOQUEUE, &[], EAGAIN)?;
    lab.convert(&lock, to, NONE, &[])?;
    lab.told(&held, to)?;
    lab.waits(&lock)?;
    lab.converts(&held, Mode::Nl, NONE, &[], 0)?;
    lab.ends(&lock, 0)?;
    // It has the mode now.
    let probe = Mode::ALL.into_iter().find(|mode| !to.compatible(*mode) && b.compatible(*mode));
    if let Some(probe) = probe {
        lab.attempt(other, &name, probe, LockFlags::NOQUEUE, EAGAIN)?;
    }
    lab.unlock_all([&lock, &held, &anchor])
}
