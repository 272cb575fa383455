//! Golden frames captured from a kernel (dlm.md 3.9, 4.5.4), round trips, and arbitrary bytes.

use super::*;
use crate::flags::{LockFlags, StatusFlags};
use crate::frame::{Msg, MsgType, Rcom, RcomBody, RcomConfig, RcomLock, Slot};
use crate::ids::{LockId, Name, name_hash};
use crate::mode::Mode;
use crate::sim::Rng;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex"))
        .collect()
}

const LOCKSPACE_T: u32 = 0x68a5_3196;

#[test]
fn a_request_is_what_the_kernel_accepted() {
    let golden = hex("02000300 01000000 02000000 7400 03 00  01 00 0000 00000000
         02000300 9631a568 02000000 5c00 01 00  01000000 01000000 92100000 01010000
         00000000 00000000 00000000 08000000  00000000 00000000 00000000 395afbe2
         00000000 ffffffff 03000000 00000000  03000000 00000000 72657342");
    let msg = Msg {
        nodeid: 1,
        pid: 4242,
        lkid: LockId(0x101),
        exflags: LockFlags::VALBLK,
        hash: name_hash(b"resB"),
        rqmode: Some(Mode::Pr),
        asts: 3,
        extra: b"resB".to_vec(),
        ..Msg::new(MsgType::Request)
    };
    let inner = encode(NodeId(2), LOCKSPACE_T, &Frame::Msg(Box::new(msg.clone()))).expect("fits");
    let bytes = encode_numbered(NodeId(2), 1, &inner).expect("fits");
    assert_eq!(bytes, golden);
    let Packet { body: PacketBody::Numbered { sequence: 1, inner }, .. } = decode(&golden).expect("decodes") else {
        panic!("not numbered")
    };
    let expected = PacketBody::Frame { lockspace: LOCKSPACE_T, frame: Frame::Msg(Box::new(msg)) };
    assert_eq!(decode(inner).expect("decodes").body, expected);
}

#[test]
fn ack_and_fin_are_the_kernels() {
    assert_eq!(encode_ack(NodeId(1), 2), hex("02000300 02000000 01000000 1000 04 00"));
    let fin = encode_numbered(NodeId(1), 0x16, &encode_fin(NodeId(1))).expect("fits");
    assert_eq!(
        fin,
        hex("02000300 16000000 01000000 2800 03 00 05 00 0000 00000000 02000300 00000000 01000000 1000 05 00")
    );
}

#[test]
fn a_status_request_and_its_answers_are_the_kernels() {
    let golden =
        hex("02000300 9631a568 01000000 4000 0200 01000000 00000000 6c03f82c17febab0 0300000000000000 0000000000000000
         00000000 00000000 0000000000000000");
    let id = 0xb0ba_fe17_2cf8_036c;
    let rcom = Rcom { result: 0, id, seq: 3, seq_reply: 0, body: RcomBody::Status { need_slots: false } };
    assert_eq!(encode(NodeId(1), LOCKSPACE_T, &Frame::Rcom(Box::new(rcom.clone()))).expect("fits"), golden);
    let not_ready = crate::recovery::not_ready_answer(&rcom).expect("a status request");
    let bytes = encode(NodeId(2), LOCKSPACE_T, &Frame::Rcom(Box::new(not_ready))).expect("fits");
    assert_eq!(bytes[20..24], hex("fdffffff"));
    assert_eq!(bytes[48..], hex(&format!("ffffffff {}", "00".repeat(28))));
    let slots = vec![Slot { node: NodeId(1), slot: 1 }, Slot { node: NodeId(2), slot: 2 }];
    let config = RcomConfig { lvblen: 32, lsflags: 0, our_slot: 1, generation: 2, slots };
    let rcom = Rcom { result: 7, id: 0x3e9, seq: 3, seq_reply: 5, body: RcomBody::StatusReply(config) };
    let bytes = encode(NodeId(1), LOCKSPACE_T, &Frame::Rcom(Box::new(rcom))).expect("fits");
    let golden = hex("20000000 00000000 00000000 0100 0200 02000000 00000000 0000000000000000
         01000000 0100 0000 0000000000000000 02000000 0200 0000 0000000000000000");
    assert_eq!((bytes.len(), &bytes[48..]), (0x70, &golden[..]));
}

#[test]
fn a_recovered_lock_is_the_kernels() {
    let golden = hex(&format!(
        "c0020000 01000000 00000000 00000000 00000000 08000000 01000000 07000000 00000000 ff 03 02 03 0000 0300 723030 {} {}",
        "00".repeat(61),
        "4c56422d46524f4d2d33 00000000000000000000000000000000000000000000"
    ));
    let Rcom { body: RcomBody::Lock(lock), .. } = rcom::decode(
        &[&hex("04000000 00000000 0100000000000000 0500000000000000 0000000000000000")[..], &golden].concat(),
    )
    .expect("decodes") else {
        panic!("not a lock")
    };
    assert_eq!((lock.name.as_bytes(), lock.grmode, lock.rqmode, lock.status), (&b"r00"[..], Some(Mode::Pr), None, 2));
    assert_eq!((lock.lvbseq, lock.exflags, &lock.lvb[..10]), (7, LockFlags::VALBLK, &b"LVB-FROM-3"[..]));
    let rcom = Rcom { result: 0, id: 1, seq: 5, seq_reply: 0, body: RcomBody::Lock(lock) };
    assert_eq!(rcom::encode(&rcom).expect("fits")[32..], golden);
}

#[test]
fn names_end_with_their_terminator() {
    let rcom = |names: Vec<Name>, end| Rcom {
        result: 0,
        id: 1,
        seq: 1,
        seq_reply: 1,
        body: RcomBody::NamesReply { names, end },
    };
    for end in [true, false] {
        let names: Vec<Name> = [&b"a"[..], b"resource", &[7; 64]].iter().filter_map(|n| Name::new(n)).collect();
        let bytes = rcom::encode(&rcom(names.clone(), end)).expect("fits");
        assert_eq!(bytes[32..37], [0, 1, b'a', 0, 8]);
        assert_eq!(rcom::decode(&bytes), Ok(rcom(names, end)));
    }
    // The kernel's frame is always full, zeros after the terminator; a name over 64 bytes or no terminator is wrong.
    let mut bytes = rcom::encode(&rcom(Vec::new(), true)).expect("fits");
    bytes.resize(4056, 0);
    assert_eq!(rcom::decode(&bytes), Ok(rcom(Vec::new(), true)));
    bytes[32..36].copy_from_slice(&[0, 65, 1, 1]);
    assert_eq!(rcom::decode(&bytes), Err(WireError::Value("name length")));
    bytes[32..36].copy_from_slice(&[0, 2, 1, 1]);
    assert_eq!(rcom::decode(&bytes[..36]), Err(WireError::Short));
}

#[test]
fn lengths_are_checked() {
    assert_eq!(frame_length(&[0; 15]), Ok(None));
    for (length, legal) in [(15u16, false), (16, true), (4096, true), (4097, false)] {
        let mut header = encode_ack(NodeId(1), 0);
        header[12] = (length & 255) as u8;
        header[13] = (length >> 8) as u8;
        assert_eq!(frame_length(&header).is_ok(), legal, "{length}");
    }
}

fn any_frames() -> Vec<Vec<u8>> {
    let mut frames = vec![encode_ack(NodeId(3), 9)];
    let name = Name::new(b"       2            1b3a").expect("short");
    let lock = RcomLock {
        ownpid: 1,
        lkid: LockId(2),
        remid: LockId(3),
        parent: 0,
        exflags: LockFlags::VALBLK,
        flags: 0,
        lvbseq: 4,
        result: -17,
        rqmode: None,
        grmode: Some(Mode::Ex),
        status: 2,
        asts: 3,
        wait_type: 0,
        name,
        lvb: vec![5; 32],
    };
    let bodies = [
        RcomBody::Status { need_slots: true },
        RcomBody::Names { after: Some(name) },
        RcomBody::Lookup { name },
        RcomBody::Lock(Box::new(lock.clone())),
        RcomBody::StatusReply(RcomConfig::default()),
        RcomBody::NamesReply { names: vec![name, name], end: false },
        RcomBody::LookupReply,
        RcomBody::LockReply(Box::new(lock)),
    ];
    for body in bodies {
        let rcom = Rcom { result: 1, id: 2, seq: 3, seq_reply: 4, body };
        frames.push(encode(NodeId(3), 7, &Frame::Rcom(Box::new(rcom))).expect("fits"));
    }
    for kind in (1..=14).filter_map(MsgType::from_number) {
        let msg = Msg {
            rqmode: Some(Mode::Ex),
            bastmode: (kind == MsgType::Bast).then_some(Mode::Cw),
            extra: vec![1; 32],
            sbflags: StatusFlags::DEMOTED,
            result: -0x1_0002,
            ..Msg::new(kind)
        };
        frames.push(encode(NodeId(3), 7, &Frame::Msg(Box::new(msg))).expect("fits"));
    }
    let wrapped: Vec<Vec<u8>> =
        frames.iter().map(|inner| encode_numbered(NodeId(3), 8, inner).expect("fits")).collect();
    frames.extend(wrapped);
    frames
}

#[test]
fn every_kind_survives_a_round_trip() {
    for bytes in any_frames() {
        let packet = decode(&bytes).expect("decodes");
        let again = match packet.body {
            PacketBody::Frame { lockspace, ref frame } => encode(packet.node, lockspace, frame).expect("fits"),
            PacketBody::Numbered { sequence, inner } => encode_numbered(packet.node, sequence, inner).expect("fits"),
            PacketBody::Ack(next) => encode_ack(packet.node, next),
            PacketBody::Fin => encode_fin(packet.node),
        };
        assert_eq!(again, bytes);
    }
}

#[test]
fn damaged_frames_neither_panic_nor_stay_unnoticed() {
    let seed = 1;
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let frames = any_frames();
    for _ in 0..200_000 {
        let mut bytes = rng.pick(&frames).expect("some").clone();
        for _ in 0..=rng.below(4) {
            let at = rng.below(bytes.len());
            bytes[at] = rng.draw() as u8;
        }
        bytes.truncate(rng.below(bytes.len() + 20));
        let length = bytes.len();
        if decode(&bytes).is_ok() {
            assert_eq!(frame_length(&bytes), Ok(Some(length)));
        }
        let _anything_goes = (decode_heartbeat(&bytes), rcom::decode(&bytes), msg::decode(&bytes));
    }
}

#[test]
fn heartbeats_survive_a_round_trip() {
    let view = View { number: 7, leader: NodeId(1), members: vec![(NodeId(1), 5, 6), (NodeId(2), 8, 9)] };
    let known = vec![(NodeId(3), 1, 2)];
    let spaces = vec![JoinedSpace { lockspace: LOCKSPACE_T, join: 3, view, started: true, known }];
    let heard = |node| Heard { node: NodeId(node), incarnation: 11, number: 12 };
    let (hears, doubtful) = (vec![heard(2), heard(3)], vec![NodeId(4)]);
    let beat = Heartbeat { node: NodeId(1), incarnation: 5, number: 6, cluster: 77, hears, doubtful, spaces };
    let bytes = encode_heartbeat(&beat);
    assert_eq!(decode_heartbeat(&bytes), Ok(beat));
    assert!((0..bytes.len()).all(|n| decode_heartbeat(&bytes[..n]).is_err()));
}
