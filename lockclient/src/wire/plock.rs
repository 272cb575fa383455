//! The 64 bytes of a byte-range lock message (dlm.md 4.11), as the daemons multicast them.

use super::{WireError, put, take};
use crate::ids::NodeId;
use crate::plock::{PlockOp, PlockRequest};
use bincode::{Decode, Encode};

#[derive(Encode, Decode)]
struct Raw {
    version: [u32; 3],
    op: u8,
    exclusive: u8,
    wait: u8,
    flags: u8,
    pid: u32,
    node: u32,
    rv: i32,
    lockspace: u32,
    number: u64,
    start: u64,
    end: u64,
    owner: u64,
}

const CLOSE: u8 = 1;

/// The bytes of a message for a lockspace.
pub fn encode_plock(lockspace: u32, request: &PlockRequest) -> Vec<u8> {
    let op = match request.op {
        PlockOp::Lock => 1,
        PlockOp::Unlock => 2,
        PlockOp::Get => 3,
        PlockOp::Cancel => 4,
    };
    let raw = Raw {
        version: [1, 2, 0],
        op,
        exclusive: u8::from(request.exclusive),
        wait: u8::from(request.wait),
        flags: if request.close { CLOSE } else { 0 },
        pid: request.pid,
        node: request.node.0,
        rv: 0,
        lockspace,
        number: request.number,
        start: request.start,
        end: request.end,
        owner: request.owner,
    };
    let mut bytes = Vec::with_capacity(64);
    put(&mut bytes, &raw);
    bytes
}

/// The lockspace and the meaning of a message.
pub fn decode_plock(bytes: &[u8]) -> Result<(u32, PlockRequest), WireError> {
    let (raw, _) = take::<Raw>(bytes)?;
    let op = match raw.op {
        1 => PlockOp::Lock,
        2 => PlockOp::Unlock,
        3 => PlockOp::Get,
        4 => PlockOp::Cancel,
        other => return Err(WireError::Unknown(u32::from(other))),
    };
    if raw.version[0] != 1 {
        return Err(WireError::Value("version"));
    }
    let request = PlockRequest {
        op,
        exclusive: raw.exclusive != 0,
        wait: raw.wait != 0,
        close: raw.flags & CLOSE != 0,
        pid: raw.pid,
        node: NodeId(raw.node),
        number: raw.number,
        start: raw.start,
        end: raw.end,
        owner: raw.owner,
        ticket: 0,
    };
    Ok((raw.lockspace, request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_captured_message() {
        let golden = [
            0x01, 0, 0, 0, 0x02, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0x58, 3, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x28,
            0xfd, 0x44, 0x3d, 0x1b, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0x0e, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x5b,
            0xba, 0x99, 0, 0, 0, 0,
        ];
        let (lockspace, request) = decode_plock(&golden).expect("decodes");
        assert_eq!((lockspace, request.number, request.start, request.end), (0x44fd_2812, 0x1b3d, 5, 14));
        assert!(request.exclusive && request.wait && request.op == PlockOp::Lock && request.node == NodeId(1));
        assert_eq!(encode_plock(lockspace, &request), golden);
        assert!((0..64).all(|n| decode_plock(&golden[..n]).is_err()));
    }
}
