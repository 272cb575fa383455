//! The binary interface of `/dev/dlm-control` and `/dev/dlm_NAME`, from the public header `linux/dlm_device.h`, as
//! 64-bit programs see it. The pointers in it are ours: the kernel hands them back and never follows them.

/// Value blocks of lockspaces that are made through the device.
pub const LVB_LENGTH: usize = 32;
/// Length of the fixed part of any request.
const REQUEST: usize = 120;
/// Length of the fixed part of a result.
pub const RESULT: usize = 72;
const VERSION: [u32; 3] = [6, 0, 2];
/// What stands for the address of the completion function.
const COMPLETION: u64 = 1;
/// What stands for the address of the blocking function.
const BLOCKING: u64 = 2;
/// Removes a lockspace although there are locks in it.
const FORCE_FREE: u32 = 2;

/// A lock, a conversion (flag CONVERT, with `lock`), an unlock or a cancel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LockOp {
    /// Give it up instead of taking it.
    pub unlock: bool,
    /// Comes back in every event.
    pub tag: u64,
    /// The id of the lock, 0 for a new one.
    pub lock: u32,
    /// Mode wanted, 0..=5.
    pub mode: u8,
    /// Flags of dlm.md 1.4.
    pub flags: u32,
    /// The resource, for a new lock.
    pub name: Vec<u8>,
    /// Value to write.
    pub lvb: [u8; LVB_LENGTH],
}

/// What the device tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// An operation ended.
    Completed {
        /// Of the lock.
        tag: u64,
        /// 0 or a negative error.
        status: i32,
        /// The id of the lock.
        lock: u32,
        /// Status block flags.
        flags: u8,
        /// The value block, where one was returned.
        lvb: Option<Vec<u8>>,
    },
    /// The lock is in the way of someone who wants this mode.
    Blocking {
        /// Of the lock.
        tag: u64,
        /// Wanted.
        mode: u8,
    },
}

fn request(command: u8) -> Vec<u8> {
    let mut bytes = vec![0; REQUEST];
    for (i, part) in VERSION.iter().enumerate() {
        put(&mut bytes, 4 * i, &part.to_ne_bytes());
    }
    bytes[12] = command;
    bytes[13] = 1; // 64 bits
    bytes
}

fn put(bytes: &mut [u8], at: usize, part: &[u8]) {
    bytes[at..at + part.len()].copy_from_slice(part);
}

/// The request for an operation on a lock.
pub fn encode_lock(op: &LockOp) -> Vec<u8> {
    let mut bytes = request(if op.unlock { 2 } else { 1 });
    bytes[16] = op.mode;
    bytes[17] = op.name.len().min(64) as u8; // at most 64
    put(&mut bytes, 20, &op.flags.to_ne_bytes());
    put(&mut bytes, 24, &op.lock.to_ne_bytes());
    for (at, word) in [(48, op.tag), (56, COMPLETION), (64, op.tag), (72, BLOCKING), (80, op.tag)] {
        put(&mut bytes, at, &word.to_ne_bytes());
    }
    put(&mut bytes, 88, &op.lvb);
    bytes.extend_from_slice(&op.name[..op.name.len().min(64)]);
    bytes
}

/// The request for a new lockspace; the answer is its minor number.
pub fn encode_create(name: &str) -> Vec<u8> {
    let mut bytes = request(4);
    // The name stands at byte 24, within the fixed part if it fits.
    bytes.resize(REQUEST.max(24 + name.len() + 1), 0);
    put(&mut bytes, 24, name.as_bytes());
    bytes
}

/// The request to remove one, with its locks.
pub fn encode_remove(minor: u32) -> Vec<u8> {
    let mut bytes = request(5);
    put(&mut bytes, 16, &FORCE_FREE.to_ne_bytes());
    put(&mut bytes, 20, &minor.to_ne_bytes());
    bytes
}

/// One result; `None` when the bytes are none.
pub fn decode(bytes: &[u8]) -> Option<Told> {
    let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let (function, tag) = (long(16)?, long(24)?);
    if function == BLOCKING {
        return Some(Told::Blocking { tag, mode: *bytes.get(64)? });
    }
    let lvb = match word(68)? as usize {
        0 => None,
        at => Some(bytes.get(at..at + LVB_LENGTH)?.to_vec()),
    };
    Some(Told::Completed { tag, status: word(40)?.cast_signed(), lock: word(44)?, flags: *bytes.get(48)?, lvb })
}
