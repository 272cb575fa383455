//! Recovery messages (dlm.md 3.10): 32 bytes after the header, then what the type says.

use super::{WireError, put, take};
use crate::flags::LockFlags;
use crate::frame::{Rcom, RcomBody, RcomConfig, RcomLock, Slot};
use crate::ids::{LockId, Name, NodeId};
use crate::mode::{Mode, number};
use bincode::{Decode, Encode};

#[derive(Encode, Decode)]
struct Raw {
    kind: u32,
    result: i32,
    id: u64,
    seq: u64,
    seq_reply: u64,
}

#[derive(Encode, Decode)]
struct RawStatus {
    flags: u32,
    unused: u32,
    unused2: u64,
}

#[derive(Encode, Decode)]
struct RawConfig {
    lvblen: u32,
    lsflags: u32,
    flags: u32,
    our_slot: u16,
    num_slots: u16,
    generation: u32,
    unused: u32,
    unused2: u64,
}

#[derive(Encode, Decode)]
struct RawSlot {
    node: u32,
    slot: u16,
    unused: u16,
    unused2: u64,
}

#[derive(Encode, Decode)]
struct RawLock {
    ownpid: u32,
    lkid: u32,
    remid: u32,
    parent_lkid: u32,
    parent_remid: u32,
    exflags: u32,
    flags: u32,
    lvbseq: u32,
    result: i32,
    rqmode: i8,
    grmode: i8,
    status: u8,
    asts: u8,
    wait_type: u16,
    namelen: u16,
    name: [u8; 64],
}

const STATUS: u32 = 1;
const NAMES: u32 = 2;
const LOOKUP: u32 = 3;
const LOCK: u32 = 4;
const REPLY: u32 = 4;
const NEED_SLOTS: u32 = 1;
/// Ends a list of names.
const LIST_END: u16 = 0xffff;

pub(super) fn encode(rcom: &Rcom) -> Result<Vec<u8>, WireError> {
    let kind = match &rcom.body {
        RcomBody::Status { .. } => STATUS,
        RcomBody::Names { .. } => NAMES,
        RcomBody::Lookup { .. } => LOOKUP,
        RcomBody::Lock(_) => LOCK,
        RcomBody::StatusReply(_) => STATUS + REPLY,
        RcomBody::NamesReply { .. } => NAMES + REPLY,
        RcomBody::LookupReply => LOOKUP + REPLY,
        RcomBody::LockReply(_) => LOCK + REPLY,
    };
    let mut bytes = Vec::new();
    put(&mut bytes, &Raw { kind, result: rcom.result, id: rcom.id, seq: rcom.seq, seq_reply: rcom.seq_reply });
    match &rcom.body {
        RcomBody::Status { need_slots } => {
            put(&mut bytes, &RawStatus { flags: if *need_slots { NEED_SLOTS } else { 0 }, unused: 0, unused2: 0 });
        }
        RcomBody::Names { after } => bytes.extend_from_slice(after.as_ref().map_or(&[][..], Name::as_bytes)),
        RcomBody::Lookup { name } => bytes.extend_from_slice(name.as_bytes()),
        RcomBody::Lock(lock) | RcomBody::LockReply(lock) => encode_lock(&mut bytes, lock),
        RcomBody::StatusReply(config) => encode_config(&mut bytes, config)?,
        RcomBody::NamesReply { names, end } => {
            for name in names {
                let length = u16::try_from(name.as_bytes().len()).map_err(|_| WireError::TooLong)?;
                bytes.extend_from_slice(&length.to_be_bytes());
                bytes.extend_from_slice(name.as_bytes());
            }
            bytes.extend_from_slice(&if *end { LIST_END } else { 0 }.to_be_bytes());
        }
        RcomBody::LookupReply => {}
    }
    Ok(bytes)
}

fn encode_config(bytes: &mut Vec<u8>, config: &RcomConfig) -> Result<(), WireError> {
    let raw = RawConfig {
        lvblen: config.lvblen,
        lsflags: config.lsflags,
        flags: 0,
        our_slot: config.our_slot,
        num_slots: u16::try_from(config.slots.len()).map_err(|_| WireError::TooLong)?,
        generation: config.generation,
        unused: 0,
        unused2: 0,
    };
    put(bytes, &raw);
    for slot in &config.slots {
        put(bytes, &RawSlot { node: slot.node.0, slot: slot.slot, unused: 0, unused2: 0 });
    }
    Ok(())
}

fn encode_lock(bytes: &mut Vec<u8>, lock: &RcomLock) {
    let mut name = [0; 64];
    let own = lock.name.as_bytes();
    name[..own.len()].copy_from_slice(own);
    let raw = RawLock {
        ownpid: lock.ownpid,
        lkid: lock.lkid.0,
        remid: lock.remid.0,
        parent_lkid: lock.parent,
        parent_remid: 0,
        exflags: lock.exflags.bits(),
        flags: u32::from(lock.flags),
        lvbseq: lock.lvbseq,
        result: lock.result,
        // Modes are -1..=5.
        rqmode: number(lock.rqmode) as i8,
        grmode: number(lock.grmode) as i8,
        status: lock.status,
        asts: lock.asts,
        wait_type: lock.wait_type,
        // A name has at most 64 bytes.
        namelen: own.len() as u16,
        name,
    };
    put(bytes, &raw);
    bytes.extend_from_slice(&lock.lvb);
}

pub(super) fn decode(bytes: &[u8]) -> Result<Rcom, WireError> {
    let (raw, rest) = take::<Raw>(bytes)?;
    let name = || Name::new(rest).ok_or(WireError::Value("name length"));
    let body = match raw.kind {
        STATUS => {
            let (status, _) = take::<RawStatus>(rest)?;
            RcomBody::Status { need_slots: status.flags & NEED_SLOTS != 0 }
        }
        NAMES if rest.is_empty() => RcomBody::Names { after: None },
        NAMES => RcomBody::Names { after: Some(name()?) },
        LOOKUP => RcomBody::Lookup { name: name()? },
        LOCK => RcomBody::Lock(Box::new(decode_lock(rest)?)),
        kind if kind == STATUS + REPLY => RcomBody::StatusReply(decode_config(rest)?),
        kind if kind == NAMES + REPLY => decode_names(rest)?,
        kind if kind == LOOKUP + REPLY => RcomBody::LookupReply,
        kind if kind == LOCK + REPLY => RcomBody::LockReply(Box::new(decode_lock(rest)?)),
        other => return Err(WireError::Unknown(other)),
    };
    Ok(Rcom { result: raw.result, id: raw.id, seq: raw.seq, seq_reply: raw.seq_reply, body })
}

fn decode_config(bytes: &[u8]) -> Result<RcomConfig, WireError> {
    let (raw, mut rest) = take::<RawConfig>(bytes)?;
    let mut slots = Vec::new();
    for _ in 0..raw.num_slots {
        // Ends with the frame at the latest.
        let (slot, after) = take::<RawSlot>(rest)?;
        slots.push(Slot { node: NodeId(slot.node), slot: slot.slot });
        rest = after;
    }
    Ok(RcomConfig {
        lvblen: raw.lvblen,
        lsflags: raw.lsflags,
        our_slot: raw.our_slot,
        generation: raw.generation,
        slots,
    })
}

fn decode_names(bytes: &[u8]) -> Result<RcomBody, WireError> {
    let mut names = Vec::new();
    let mut rest = bytes;
    loop {
        let (length, after) = rest.split_first_chunk::<2>().ok_or(WireError::Short)?;
        match u16::from_be_bytes(*length) {
            0 => return Ok(RcomBody::NamesReply { names, end: false }),
            LIST_END => return Ok(RcomBody::NamesReply { names, end: true }),
            length => {
                let length = usize::from(length);
                let name = after.get(..length).ok_or(WireError::Short)?;
                names.push(Name::new(name).ok_or(WireError::Value("name length"))?);
                rest = &after[length..];
            }
        }
    }
}

fn decode_lock(bytes: &[u8]) -> Result<RcomLock, WireError> {
    let (raw, lvb) = take::<RawLock>(bytes)?;
    let name = raw.name.get(..usize::from(raw.namelen)).and_then(Name::new);
    Ok(RcomLock {
        ownpid: raw.ownpid,
        lkid: LockId(raw.lkid),
        remid: LockId(raw.remid),
        parent: raw.parent_lkid,
        exflags: LockFlags::from_bits_retain(raw.exflags),
        flags: (raw.flags & 0xffff) as u16,
        lvbseq: raw.lvbseq,
        result: raw.result,
        rqmode: Mode::from_number(i32::from(raw.rqmode)),
        grmode: Mode::from_number(i32::from(raw.grmode)),
        status: raw.status,
        asts: raw.asts,
        wait_type: raw.wait_type,
        name: name.ok_or(WireError::Value("name length"))?,
        lvb: lvb.to_vec(),
    })
}
