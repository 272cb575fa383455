//! Value blocks that are written at unlock, invalidated, and written anew.

use crate::lab::{Done, EUNLOCK, Lab};
use crate::locks::ways;
use lockclient::flags::LockFlags;
use lockclient::mode::Mode;

const VALBLK: LockFlags = LockFlags::VALBLK;
/// The flag of a value that is not valid.
pub(crate) const NOT_VALID: u8 = 2;

/// Must see this value, and whether it is valid.
pub(crate) fn sees(done: &Done, value: u8, valid: bool) -> Result<(), String> {
    let right = done.lvb.as_deref() == Some(&[value; 32]) && (done.flags & NOT_VALID == 0) == valid;
    if right { Ok(()) } else { Err(format!("{done:?} instead of the value {value:#x}, valid: {valid}")) }
}

pub(crate) fn validity(lab: &mut Lab) -> Result<(), String> {
    for (dir, master) in lab.places() {
        for (writer, reader) in ways(lab) {
            one(lab, (dir, master), writer, reader)
                .map_err(|error| format!("dir {dir}, master {master}: {writer} writes, {reader} reads: {error}"))?;
        }
    }
    Ok(())
}

fn one(lab: &mut Lab, place: (u32, u32), writer: u32, reader: u32) -> Result<(), String> {
    let (name, anchor) = lab.resource(place.0, place.1)?;
    // A resource without a value does not report one as invalid, and does not return any.
    let reading = lab.request(reader, &name, Mode::Nl, VALBLK)?;
    let done = lab.ends(&reading, 0)?;
    if done.flags & NOT_VALID != 0 || done.lvb.as_deref().is_some_and(|lvb| lvb.iter().any(|byte| *byte != 0)) {
        return Err(format!("nothing was written, but: {done:?}"));
    }
    // Written by unlock, from EX and PW; not from PR.
    for (mode, value) in [(Mode::Ex, 0x31), (Mode::Pw, 0x32)] {
        let writing = lab.lock(writer, &name, mode, VALBLK)?;
        lab.unlock_with(&writing, VALBLK, &[value; 32])?;
        lab.ends(&writing, EUNLOCK)?;
        sees(&lab.converts(&reading, Mode::Pr, VALBLK, &[], 0)?, value, true)?;
        lab.converts(&reading, Mode::Nl, VALBLK, &[], 0)?;
    }
    let idle = lab.lock(writer, &name, Mode::Pr, VALBLK)?;
    lab.unlock_with(&idle, VALBLK, &[0x33; 32])?;
    lab.ends(&idle, EUNLOCK)?;
    sees(&lab.converts(&reading, Mode::Pr, VALBLK, &[], 0)?, 0x32, true)?;
    lab.converts(&reading, Mode::Nl, VALBLK, &[], 0)?;
    // Invalidated by unlock and by conversion; the next writer makes it valid.
    let writing = lab.lock(writer, &name, Mode::Ex, VALBLK)?;
    lab.unlock_with(&writing, LockFlags::IVVALBLK, &[])?;
    lab.ends(&writing, EUNLOCK)?;
    sees(&lab.converts(&reading, Mode::Pr, VALBLK, &[], 0)?, 0x32, false)?;
    lab.converts(&reading, Mode::Nl, VALBLK, &[], 0)?;
    let writing = lab.lock(writer, &name, Mode::Ex, VALBLK)?;
    let done = lab.converts(&writing, Mode::Nl, VALBLK, &[0x34; 32], 0)?;
    if done.flags & NOT_VALID != 0 {
        return Err(format!("written, but not valid: {done:?}"));
    }
    sees(&lab.converts(&reading, Mode::Pr, VALBLK, &[], 0)?, 0x34, true)?;
    lab.converts(&reading, Mode::Nl, VALBLK, &[], 0)?;
    lab.converts(&writing, Mode::Ex, VALBLK, &[], 0)?;
    lab.converts(&writing, Mode::Nl, VALBLK | LockFlags::IVVALBLK, &[0x35; 32], 0)?;
    sees(&lab.converts(&reading, Mode::Pr, VALBLK, &[], 0)?, 0x34, false)?;
    lab.unlock_all([&reading, &writing, &anchor])
}
