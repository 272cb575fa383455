//! Lock messages (dlm.md 3.6): 72 bytes after the header, then a name or a value block.

use super::{INNER_MAX, WireError, put, take};
use crate::flags::{LockFlags, StatusFlags};
use crate::frame::{Msg, MsgType};
use crate::ids::LockId;
use crate::mode::{Mode, number};
use bincode::{Decode, Encode};

#[derive(Encode, Decode)]
struct Raw {
    kind: u32,
    nodeid: i32,
    pid: u32,
    lkid: u32,
    remid: u32,
    parent_lkid: u32,
    parent_remid: u32,
    exflags: u32,
    sbflags: u32,
    flags: u32,
    lvbseq: u32,
    hash: u32,
    status: u32,
    grmode: i32,
    rqmode: i32,
    bastmode: i32,
    asts: u32,
    result: i32,
}

pub(super) fn encode(msg: &Msg) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(72 + msg.extra.len());
    let raw = Raw {
        kind: msg.kind as u32,
        nodeid: msg.nodeid,
        pid: msg.pid,
        lkid: msg.lkid.0,
        remid: msg.remid.0,
        parent_lkid: 0,
        parent_remid: 0,
        exflags: msg.exflags.bits(),
        sbflags: msg.sbflags.bits(),
        flags: u32::from(msg.flags),
        lvbseq: msg.lvbseq,
        hash: msg.hash,
        status: msg.status,
        grmode: number(msg.grmode),
        rqmode: number(msg.rqmode),
        // Only notices have one; the kernel leaves 0 elsewhere.
        bastmode: msg.bastmode.map_or(0, Mode::number),
        asts: msg.asts,
        result: msg.result,
    };
    put(&mut bytes, &raw);
    bytes.extend_from_slice(&msg.extra);
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<Msg, WireError> {
    let (raw, extra) = take::<Raw>(bytes)?;
    let kind = MsgType::from_number(raw.kind).ok_or(WireError::Unknown(raw.kind))?;
    if extra.len() > INNER_MAX {
        return Err(WireError::TooLong);
    }
    // The requested mode decides in these; elsewhere it is for information and may be anything.
    let decides = matches!(kind, MsgType::Request | MsgType::Lookup | MsgType::Convert);
    if decides && Mode::from_number(raw.rqmode).is_none() {
        return Err(WireError::Value("requested mode"));
    }
    if kind == MsgType::Bast && Mode::from_number(raw.bastmode).is_none() {
        return Err(WireError::Value("blocked mode"));
    }
    Ok(Msg {
        kind,
        nodeid: raw.nodeid,
        pid: raw.pid,
        lkid: LockId(raw.lkid),
        remid: LockId(raw.remid),
        exflags: LockFlags::from_bits_retain(raw.exflags),
        sbflags: StatusFlags::from_bits_retain(raw.sbflags),
        // 6.1 leaks internal bits above.
        flags: (raw.flags & 0xffff) as u16,
        lvbseq: raw.lvbseq,
        hash: raw.hash,
        status: raw.status,
        grmode: Mode::from_number(raw.grmode),
        rqmode: Mode::from_number(raw.rqmode),
        bastmode: Mode::from_number(raw.bastmode).filter(|_| kind == MsgType::Bast),
        asts: raw.asts,
        result: raw.result,
        extra: extra.to_vec(),
    })
}
