//! Messages of the ordered multicast ([`crate::plock::order`]). They are our own affair: no kernel sees them.

use super::{WireError, put, take};
use crate::ids::NodeId;
use crate::plock::order::{OrderBody, OrderFrame, PIECE_RECORDS, Record};
use crate::plock::{Plock, PlockAnswer, PlockOp, PlockRequest};
use bincode::{Decode, Encode};

#[derive(Encode, Decode)]
struct RawHead {
    round: u64,
    kind: u8,
}

const HELLO: u8 = 1;
const PIECE: u8 = 2;
const SUBMIT: u8 = 3;
const DELIVER: u8 = 4;

#[derive(Encode, Decode)]
struct RawHello {
    life: u64,
    has_state: u8,
    reached: u64,
}

#[derive(Encode, Decode)]
struct RawPiece {
    index: u32,
    last: u8,
    number: u64,
    records: u16,
}

#[derive(Encode, Decode)]
struct RawRequest {
    op: u8,
    exclusive: u8,
    wait: u8,
    close: u8,
    pid: u32,
    node: u32,
    number: u64,
    start: u64,
    end: u64,
    owner: u64,
    ticket: u64,
}

#[derive(Encode, Decode)]
struct RawPlock {
    start: u64,
    end: u64,
    owner: u64,
    pid: u32,
    node: u32,
    exclusive: u8,
}

#[derive(Encode, Decode)]
struct RawAnswer {
    node: u32,
    number: u64,
    local: u64,
    kind: u8,
}

const SESSION: u8 = 1;
const ANSWER: u8 = 2;
const LOCK: u8 = 3;
const WAITER: u8 = 4;

const DONE: u8 = 0;
const AGAIN: u8 = 1;
const NO_ENTRY: u8 = 2;
const CONFLICT: u8 = 3;
const INTERRUPTED: u8 = 4;
const NO_LOCKS: u8 = 5;
const GONE: u8 = 6;

fn put_request(bytes: &mut Vec<u8>, request: &PlockRequest) {
    let op = match request.op {
        PlockOp::Lock => 1,
        PlockOp::Unlock => 2,
        PlockOp::Get => 3,
        PlockOp::Cancel => 4,
    };
    let PlockRequest { exclusive, wait, close, pid, node, number, start, end, owner, ticket, .. } = *request;
    let (exclusive, wait, close) = (u8::from(exclusive), u8::from(wait), u8::from(close));
    put(bytes, &RawRequest { op, exclusive, wait, close, pid, node: node.0, number, start, end, owner, ticket });
}

fn take_request(bytes: &[u8]) -> Result<(PlockRequest, &[u8]), WireError> {
    let (raw, rest) = take::<RawRequest>(bytes)?;
    let op = match raw.op {
        1 => PlockOp::Lock,
        2 => PlockOp::Unlock,
        3 => PlockOp::Get,
        4 => PlockOp::Cancel,
        _ => return Err(WireError::Value("operation")),
    };
    let RawRequest { exclusive, wait, close, pid, node, number, start, end, owner, ticket, .. } = raw;
    if start > end {
        return Err(WireError::Value("range"));
    }
    let (exclusive, wait, close) = (exclusive != 0, wait != 0, close != 0);
    Ok((PlockRequest { op, exclusive, wait, close, pid, node: NodeId(node), number, start, end, owner, ticket }, rest))
}

fn put_lock(bytes: &mut Vec<u8>, lock: &Plock) {
    let Plock { start, end, owner, pid, node, exclusive } = *lock;
    put(bytes, &RawPlock { start, end, owner, pid, node: node.0, exclusive: u8::from(exclusive) });
}

fn take_lock(bytes: &[u8]) -> Result<(Plock, &[u8]), WireError> {
    let (RawPlock { start, end, owner, pid, node, exclusive }, rest) = take::<RawPlock>(bytes)?;
    if start > end {
        return Err(WireError::Value("range"));
    }
    Ok((Plock { start, end, owner, pid, node: NodeId(node), exclusive: exclusive != 0 }, rest))
}

fn put_record(bytes: &mut Vec<u8>, record: &Record) {
    match record {
        Record::Session { node, life, last } => put(bytes, &(SESSION, node.0, *life, *last)),
        Record::Answer { node, number, local, answer } => {
            let kind = match answer {
                PlockAnswer::Done => DONE,
                PlockAnswer::Again => AGAIN,
                PlockAnswer::NoEntry => NO_ENTRY,
                PlockAnswer::Conflict(_) => CONFLICT,
                PlockAnswer::Interrupted => INTERRUPTED,
                PlockAnswer::NoLocks => NO_LOCKS,
                PlockAnswer::Gone => GONE,
            };
            put(bytes, &ANSWER);
            put(bytes, &RawAnswer { node: node.0, number: *number, local: *local, kind });
            if let PlockAnswer::Conflict(lock) = answer {
                put_lock(bytes, lock);
            }
        }
        Record::Lock(number, lock) => {
            put(bytes, &(LOCK, *number));
            put_lock(bytes, lock);
        }
        Record::Waiter(request) => {
            put(bytes, &WAITER);
            put_request(bytes, request);
        }
    }
}

fn take_record(bytes: &[u8]) -> Result<(Record, &[u8]), WireError> {
    let (kind, rest) = take::<u8>(bytes)?;
    match kind {
        SESSION => {
            let ((node, life, last), rest) = take::<(u32, u64, u64)>(rest)?;
            Ok((Record::Session { node: NodeId(node), life, last }, rest))
        }
        ANSWER => {
            let (RawAnswer { node, number, local, kind }, mut rest) = take::<RawAnswer>(rest)?;
            let answer = match kind {
                DONE => PlockAnswer::Done,
                AGAIN => PlockAnswer::Again,
                NO_ENTRY => PlockAnswer::NoEntry,
                CONFLICT => {
                    let (lock, after) = take_lock(rest)?;
                    rest = after;
                    PlockAnswer::Conflict(lock)
                }
                INTERRUPTED => PlockAnswer::Interrupted,
                NO_LOCKS => PlockAnswer::NoLocks,
                GONE => PlockAnswer::Gone,
                _ => return Err(WireError::Value("answer")),
            };
            Ok((Record::Answer { node: NodeId(node), number, local, answer }, rest))
        }
        LOCK => {
            let (number, rest) = take::<u64>(rest)?;
            let (lock, rest) = take_lock(rest)?;
            Ok((Record::Lock(number, lock), rest))
        }
        WAITER => take_request(rest).map(|(request, rest)| (Record::Waiter(request), rest)),
        _ => Err(WireError::Value("record")),
    }
}

pub(super) fn encode(frame: &OrderFrame) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut head = |kind| put(&mut bytes, &RawHead { round: frame.round, kind });
    match &frame.body {
        OrderBody::Hello { life, reached } => {
            head(HELLO);
            let has_state = u8::from(reached.is_some());
            put(&mut bytes, &RawHello { life: *life, has_state, reached: reached.unwrap_or(0) });
        }
        OrderBody::Piece { index, last, number, records } => {
            head(PIECE);
            let records = &records[..records.len().min(PIECE_RECORDS)];
            let count = records.len() as u16;
            put(&mut bytes, &RawPiece { index: *index, last: u8::from(*last), number: *number, records: count });
            records.iter().for_each(|record| put_record(&mut bytes, record));
        }
        OrderBody::Submit { local, reached, request } => {
            head(SUBMIT);
            put(&mut bytes, &(*local, *reached));
            put_request(&mut bytes, request);
        }
        OrderBody::Deliver { number, local, reached, request } => {
            head(DELIVER);
            put(&mut bytes, &(*number, *local, *reached));
            put_request(&mut bytes, request);
        }
    }
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Result<OrderFrame, WireError> {
    let (RawHead { round, kind }, rest) = take::<RawHead>(bytes)?;
    let body = match kind {
        HELLO => {
            let (RawHello { life, has_state, reached }, _) = take::<RawHello>(rest)?;
            OrderBody::Hello { life, reached: (has_state != 0).then_some(reached) }
        }
        PIECE => {
            let (raw, mut rest) = take::<RawPiece>(rest)?;
            let mut records = Vec::new();
            for _ in 0..raw.records {
                // Ends with the frame at the latest.
                let (record, after) = take_record(rest)?;
                rest = after;
                records.push(record);
            }
            OrderBody::Piece { index: raw.index, last: raw.last != 0, number: raw.number, records }
        }
        SUBMIT => {
            let ((local, reached), rest) = take::<(u64, u64)>(rest)?;
            OrderBody::Submit { local, reached, request: take_request(rest)?.0 }
        }
        DELIVER => {
            let ((number, local, reached), rest) = take::<(u64, u64, u64)>(rest)?;
            OrderBody::Deliver { number, local, reached, request: take_request(rest)?.0 }
        }
        other => return Err(WireError::Unknown(u32::from(other))),
    };
    Ok(OrderFrame { round, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Frame;
    use crate::wire::{self, INNER_MAX, PacketBody};

    fn request() -> PlockRequest {
        PlockRequest {
            op: PlockOp::Cancel,
            exclusive: true,
            wait: true,
            close: false,
            pid: 7,
            node: NodeId(3),
            number: 0x1234,
            start: 5,
            end: u64::MAX,
            owner: u64::MAX - 1,
            ticket: 99,
        }
    }

    fn frames() -> Vec<OrderFrame> {
        let node = NodeId(u32::MAX);
        let held = Plock { start: 1, end: u64::MAX, owner: 2, pid: 3, node, exclusive: true };
        let answer = PlockAnswer::Conflict(held);
        let mut records = vec![Record::Session { node, life: u64::MAX, last: 5 }, Record::Lock(8, held)];
        for answer in [PlockAnswer::Done, PlockAnswer::Again, PlockAnswer::NoEntry, PlockAnswer::NoLocks, answer] {
            records.push(Record::Answer { node, number: 1, local: 2, answer });
        }
        records.push(Record::Waiter(request()));
        // The longest of each kind fill the rest.
        while records.len() < PIECE_RECORDS {
            records.push(Record::Answer { node, number: u64::MAX, local: u64::MAX, answer });
        }
        let bodies = [
            OrderBody::Hello { life: 1, reached: None },
            OrderBody::Hello { life: 1, reached: Some(0) },
            OrderBody::Piece { index: 3, last: true, number: 77, records },
            OrderBody::Submit { local: 4, reached: 5, request: request() },
            OrderBody::Deliver { number: 6, local: 4, reached: 5, request: request() },
        ];
        bodies.map(|body| OrderFrame { round: 0xfeed, body }).to_vec()
    }

    #[test]
    fn what_is_written_is_read_and_fits_into_a_frame() {
        for frame in frames() {
            let bytes = wire::encode(NodeId(1), 42, &Frame::Plock(Box::new(frame.clone()))).expect("fits");
            assert!(bytes.len() <= INNER_MAX);
            let packet = wire::decode(&bytes).expect("decodes");
            let PacketBody::Frame { lockspace: 42, frame: Frame::Plock(read) } = packet.body else {
                panic!("{packet:?}")
            };
            assert_eq!(*read, frame);
        }
        let waiter = Record::Waiter(request());
        let full = OrderBody::Piece { index: 0, last: false, number: 0, records: vec![waiter; PIECE_RECORDS] };
        let full = Frame::Plock(Box::new(OrderFrame { round: 1, body: full }));
        assert!(wire::encode(NodeId(1), 42, &full).is_ok());
    }

    #[test]
    fn damaged_bytes_are_refused_or_mean_something() {
        let mut rng = crate::sim::Rng::new(1);
        for frame in frames() {
            let bytes = encode(&frame);
            assert!((0..bytes.len()).all(|length| decode(&bytes[..length]).is_err()));
            for _ in 0..2000 {
                let mut damaged = bytes.clone();
                for _ in 0..=rng.below(3) {
                    let at = rng.below(damaged.len());
                    damaged[at] ^= 1 << rng.below(8);
                }
                if let Ok(read) = decode(&damaged) {
                    assert!(decode(&encode(&read)).is_ok());
                }
            }
        }
    }
}
