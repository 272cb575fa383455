//! Who waits, in which order, and how one stops waiting.

use crate::lab::{EAGAIN, ECANCEL, EDEADLK, EUNLOCK, Lab, NONE};
use crate::locks::ways;
use lockclient::flags::LockFlags;
use lockclient::mode::Mode::{Cr, Cw, Ex, Nl, Pr, Pw};

/// Runs a scenario with every choice of directory node and master, and the actors both ways.
fn everywhere(
    lab: &mut Lab,
    scenario: fn(&mut Lab, (u32, u32), (u32, u32)) -> Result<(), String>,
) -> Result<(), String> {
    for (dir, master) in lab.places() {
        for (a, b) in ways(lab) {
            scenario(lab, (dir, master), (a, b))
                .map_err(|error| format!("dir {dir}, master {master}, actors {a} and {b}: {error}"))?;
        }
    }
    Ok(())
}

pub(crate) fn order(lab: &mut Lab) -> Result<(), String> {
    everywhere(lab, |lab, place, (a, b)| {
        let (name, anchor) = lab.resource(place.0, place.1)?;
        let first = lab.lock(a, &name, Ex, NONE)?;
        let second = lab.request(b, &name, Pr, NONE)?;
        lab.told(&first, Pr)?;
        let third = lab.request(a, &name, Pr, NONE)?;
        lab.waits(&third)?;
        let fourth = lab.request(b, &name, Ex, NONE)?;
        lab.told(&first, Ex)?;
        let fifth = lab.request(a, &name, Pr, NONE)?;
        lab.waits(&fifth)?;
        lab.unlock(&first)?;
        lab.ends(&second, 0)?;
        lab.ends(&third, 0)?;
        // The writer is next; the reader behind it waits although it could be granted.
        lab.told(&second, Ex)?;
        lab.told(&third, Ex)?;
        lab.waits(&fourth)?;
        lab.waits(&fifth)?;
        lab.unlock_all([&second, &third])?;
        lab.ends(&fourth, 0)?;
        lab.told(&fourth, Pr)?;
        lab.waits(&fifth)?;
        lab.unlock(&fourth)?;
        lab.ends(&fifth, 0)?;
        lab.unlock_all([&fifth, &anchor])
    })
}

pub(crate) fn exceptions(lab: &mut Lab) -> Result<(), String> {
    everywhere(lab, |lab, place, (a, b)| {
        let (name, anchor) = lab.resource(place.0, place.1)?;
        let held = lab.lock(a, &name, Pr, NONE)?;
        let writer = lab.request(b, &name, Ex, NONE)?;
        lab.told(&held, Ex)?;
        // A plain NL waits behind the writer; EXPEDITE and NOORDER pass it.
        let plain = lab.request(a, &name, Nl, NONE)?;
        lab.waits(&plain)?;
        let expedited = lab.lock(a, &name, Nl, LockFlags::EXPEDITE)?;
        let unordered = lab.lock(a, &name, Pr, LockFlags::NOORDER)?;
        // HEADQUE: before the writer, and compatible, so that it is granted with the next pass at the latest.
        let late = lab.request(a, &name, Ex, NONE)?;
        let head = lab.request(b, &name, Pw, LockFlags::HEADQUE)?;
        lab.waits(&head)?;
        lab.unlock_all([&held, &unordered])?;
        lab.ends(&head, 0)?;
        lab.waits(&writer)?;
        lab.unlock(&head)?;
        lab.ends(&writer, 0)?;
        lab.waits(&late)?;
        lab.unlock(&writer)?;
        lab.ends(&plain, 0)?;
        lab.ends(&late, 0)?;
        lab.unlock_all([&plain, &late, &expedited])?;
        // QUECVT: a conversion that could be granted waits behind one that cannot.
        let reader = lab.lock(a, &name, Pr, NONE)?;
        let converting = lab.lock(b, &name, Nl, NONE)?;
        let behind = lab.lock(a, &name, Nl, NONE)?;
        let passing = lab.lock(b, &name, Nl, NONE)?;
        lab.convert(&converting, Ex, NONE, &[])?;
        lab.told(&reader, Ex)?;
        lab.convert(&behind, Cr, LockFlags::QUECVT, &[])?;
        lab.waits(&behind)?;
        lab.converts(&passing, Cr, NONE, &[], 0)?;
        lab.unlock_all([&reader, &passing])?;
        lab.ends(&converting, 0)?;
        lab.waits(&behind)?;
        lab.unlock(&converting)?;
        lab.ends(&behind, 0)?;
        lab.unlock_all([&behind, &anchor])
    })
}

pub(crate) fn refusals_with_notices(lab: &mut Lab) -> Result<(), String> {
    everywhere(lab, |lab, place, (a, b)| {
        let (name, anchor) = lab.resource(place.0, place.1)?;
        let held = lab.lock(a, &name, Pr, NONE)?;
        lab.attempt(b, &name, Ex, LockFlags::NOQUEUE, EAGAIN)?;
        lab.not_told(&held)?;
        lab.attempt(b, &name, Ex, LockFlags::NOQUEUE | LockFlags::NOQUEUEBAST, EAGAIN)?;
        lab.told(&held, Ex)?;
        // A converting lock is told as well.
        let writer = lab.lock(b, &name, Nl, NONE)?;
        lab.convert(&writer, Pw, NONE, &[])?;
        lab.waits(&writer)?;
        lab.unlock(&held)?;
        lab.ends(&writer, 0)?;
        lab.attempt(a, &name, Cw, LockFlags::NOQUEUE | LockFlags::NOQUEUEBAST, EAGAIN)?;
        lab.told(&writer, Cw)?;
        lab.unlock_all([&writer, &anchor])
    })
}

pub(crate) fn alternatives(lab: &mut Lab) -> Result<(), String> {
    const ALTMODE: u8 = 4;
    everywhere(lab, |lab, place, (a, b)| {
        for (flag, mode, probe) in [(LockFlags::ALTPR, Pr, Cw), (LockFlags::ALTCW, Cw, Pr)] {
            let (name, anchor) = lab.resource(place.0, place.1)?;
            let held = lab.lock(a, &name, mode, NONE)?;
            let lock = lab.request(b, &name, Ex, flag)?;
            let done = lab.ends(&lock, 0)?;
            if done.flags & ALTMODE == 0 {
                return Err(format!("{mode:?} instead of EX, but not said so: {done:?}"));
            }
            lab.id(&lock)?;
            lab.unlock(&held)?;
            lab.attempt(a, &name, probe, LockFlags::NOQUEUE, EAGAIN)?;
            lab.attempt(a, &name, mode, LockFlags::NOQUEUE, 0)?;
            // And by way of the queue.
            lab.unlock(&lock)?;
            let held = lab.lock(a, &name, Ex, NONE)?;
            let lock = lab.request(b, &name, Ex, flag)?;
            lab.told(&held, Ex)?;
            lab.converts(&held, mode, NONE, &[], 0)?;
            let done = lab.ends(&lock, 0)?;
            if done.flags & ALTMODE == 0 {
                return Err(format!("from the queue, {mode:?} instead of EX, but not said so: {done:?}"));
            }
            lab.unlock_all([&held, &lock, &anchor])?;
        }
        Ok(())
    })
}

pub(crate) fn deadlocks(lab: &mut Lab) -> Result<(), String> {
    everywhere(lab, |lab, place, (a, b)| {
        let (name, anchor) = lab.resource(place.0, place.1)?;
        let one = lab.lock(a, &name, Pr, NONE)?;
        let two = lab.lock(b, &name, Pr, NONE)?;
        lab.convert(&one, Ex, NONE, &[])?;
        lab.told(&two, Ex)?;
        lab.converts(&two, Ex, NONE, &[], EDEADLK)?;
        lab.waits(&one)?;
        // NODLCKWT: no error; both wait until one of them gives way.
        lab.convert(&two, Ex, LockFlags::NODLCKWT, &[])?;
        lab.waits(&two)?;
        lab.unlock_with(&two, LockFlags::CANCEL, &[])?;
        lab.ends(&two, ECANCEL)?;
        // CONVDEADLK: the second gives up what it has until it is its turn.
        lab.convert(&two, Ex, LockFlags::CONVDEADLK, &[])?;
        lab.ends(&one, 0)?;
        lab.waits(&two)?;
        lab.told(&one, Ex)?;
        lab.converts(&one, Nl, NONE, &[], 0)?;
        let done = lab.ends(&two, 0)?;
        if done.flags & 1 == 0 {
            return Err(format!("was demoted, but not told so: {done:?}"));
        }
        lab.unlock_all([&one, &two, &anchor])
    })
}

pub(crate) fn cancels(lab: &mut Lab) -> Result<(), String> {
    everywhere(lab, |lab, place, (a, b)| {
        let (name, anchor) = lab.resource(place.0, place.1)?;
        let held = lab.lock(a, &name, Pr, NONE)?;
        // A request that waits is gone after a cancel, and after a forced unlock.
        for (flag, status) in [(LockFlags::CANCEL, ECANCEL), (LockFlags::FORCEUNLOCK, EUNLOCK)] {
            let lock = lab.request(b, &name, Ex, NONE)?;
            lab.told(&held, Ex)?;
            lab.unlock_with(&lock, flag, &[])?;
            lab.ends(&lock, status)?;
            lab.attempt(b, &name, Pr, NONE, 0)?;
            // The holder must be told again next time.
            lab.converts(&held, Pr, NONE, &[], 0)?;
        }
        // A conversion that waits ends, and the lock keeps its mode.
        let lock = lab.lock(b, &name, Cr, NONE)?;
        lab.convert(&lock, Pw, NONE, &[])?;
        lab.told(&held, Pw)?;
        let busy = lab.try_convert(&lock, Ex, NONE, &[])?;
        if busy != Err(-16) {
            return Err(format!("a second conversion: {busy:?} instead of EBUSY"));
        }
        // The kernel lets a plain unlock through while a conversion waits at the master; we do not.
        if b != lab.k {
            let busy = lab.try_unlock(&lock, NONE, &[])?;
            if busy != Err(-16) {
                return Err(format!("unlock during a conversion: {busy:?} instead of EBUSY"));
            }
        }
        lab.unlock_with(&lock, LockFlags::CANCEL, &[])?;
        lab.ends(&lock, ECANCEL)?;
        lab.attempt(a, &name, Ex, LockFlags::NOQUEUE, EAGAIN)?;
        lab.convert(&lock, Pw, NONE, &[])?;
        lab.waits(&lock)?;
        lab.unlock_with(&lock, LockFlags::FORCEUNLOCK, &[])?;
        lab.ends(&lock, EUNLOCK)?;
        lab.converts(&held, Ex, LockFlags::NOQUEUE, &[], 0)?;
        lab.unlock_all([&held, &anchor])
    })
}
