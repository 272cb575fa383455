//! What is done with one input. Used by `tests/fuzz.rs` and by the workspace `fuzz`.
#![allow(unreachable_pub, reason = "the crate of the targets uses it")]

use crate::tape::Tape;
use lockclient::engine::{ClientCall, Config, Effect, Engine, Event, LockCall};
use lockclient::flags::{LockFlags, StatusFlags};
use lockclient::frame::{Frame, Msg, MsgType, Rcom, RcomBody, RcomConfig, RcomLock, Slot};
use lockclient::ids::{LockId, Name, NodeId, name_hash};
use lockclient::mode::Mode;
use lockclient::recovery::{Start, StartMember};
use lockclient::wire::{self, PacketBody};

/// A frame that is whole: what makes arbitrary bytes one.
#[expect(clippy::little_endian_bytes, reason = "the protocol's order")]
fn as_frame(bytes: &[u8], command: u8) -> Vec<u8> {
    let mut frame = [&[2, 0, 3, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, command, 0][..], bytes].concat();
    let length = u16::try_from(frame.len()).unwrap_or(u16::MAX).to_le_bytes();
    frame[12..14].copy_from_slice(&length);
    frame
}

/// Any bytes as everything that arrives from a network. What is understood says the same when it is said again.
pub fn wire(input: &[u8]) {
    let mut tape = Tape::new(input);
    let command = tape.u8();
    let rest = tape.take(5000);
    for bytes in [rest.to_vec(), as_frame(rest, command % 7)] {
        if let Ok(Some(length)) = wire::frame_length(&bytes) {
            assert!((wire::HEADER..=wire::FRAME_MAX).contains(&length));
        }
        if let Ok(packet) = wire::decode(&bytes)
            && let PacketBody::Frame { lockspace, frame } = &packet.body
            && let Ok(again) = wire::encode(packet.node, *lockspace, frame)
        {
            let twice = wire::decode(&again).expect("what we write we can read");
            assert_eq!(twice.body, packet.body);
        }
        if let Ok(beat) = wire::decode_heartbeat(&bytes) {
            let again = wire::decode_heartbeat(&wire::encode_heartbeat(&beat)).expect("what we write we can read");
            assert_eq!((again.node, again.number), (beat.node, beat.number));
        }
        if let Ok((lockspace, request)) = wire::decode_plock(&bytes) {
            assert_eq!(wire::decode_plock(&wire::encode_plock(lockspace, &request)), Ok((lockspace, request)));
        }
    }
}

const NAMES: [&[u8]; 3] = [b"a", b"resource", &[9; 64]];

fn name(tape: &mut Tape<'_>) -> Name {
    Name::new(tape.pick::<&[u8]>(&NAMES)).expect("at most 64 bytes")
}

fn mode(tape: &mut Tape<'_>) -> Option<Mode> {
    Mode::from_number(i32::from(tape.u8() % 7) - 1)
}

/// Ids of locks are small in a small engine; in the other half of the cases they are anything.
fn lock_id(tape: &mut Tape<'_>) -> LockId {
    LockId(if tape.once_in(8) { tape.u32() } else { u32::from(tape.u8() % 12) | u32::from(tape.u8() % 2) << 20 })
}

fn code(tape: &mut Tape<'_>) -> i32 {
    *tape.pick(&[0, -115, -11, -35, -0x1_0001, -0x1_0002, -53, -15, -17, -22, -2, -3, 1, 2, 3, i32::MIN])
}

/// A message that no honest node would send at this moment.
fn message(tape: &mut Tape<'_>) -> Frame {
    let kind = MsgType::from_number(u32::from(tape.u8() % 14) + 1).expect("1 to 14");
    let name = name(tape);
    let extra = match tape.u8() % 4 {
        0 => tape.take(40).to_vec(),
        1 => vec![tape.u8(); 32],
        _ => name.as_bytes().to_vec(),
    };
    Frame::Msg(Box::new(Msg {
        nodeid: i32::from(tape.u8() % 5) - 1,
        lkid: lock_id(tape),
        remid: lock_id(tape),
        exflags: LockFlags::from_bits_retain(tape.u32()),
        sbflags: StatusFlags::from_bits_retain(tape.u32()),
        flags: tape.u16(),
        lvbseq: tape.u32(),
        hash: if tape.once_in(6) { tape.u32() } else { name_hash(name.as_bytes()) },
        grmode: mode(tape),
        // The decoder lets no request without a mode pass, and no notice.
        rqmode: mode(tape).or(Some(Mode::Ex)),
        bastmode: mode(tape).or(Some(Mode::Ex)),
        asts: u32::from(tape.u8()),
        result: code(tape),
        extra,
        ..Msg::new(kind)
    }))
}

fn recovery_lock(tape: &mut Tape<'_>) -> RcomLock {
    RcomLock {
        ownpid: 1,
        lkid: lock_id(tape),
        remid: lock_id(tape),
        parent: u32::from(tape.once_in(9)),
        exflags: LockFlags::from_bits_retain(tape.u32()),
        flags: tape.u16(),
        lvbseq: tape.u32(),
        result: code(tape),
        rqmode: mode(tape),
        grmode: mode(tape),
        status: tape.u8() % 5,
        asts: tape.u8(),
        wait_type: tape.u16() % 16,
        name: name(tape),
        lvb: tape.take(40).to_vec(),
    }
}

/// A recovery message that need not fit.
fn recovery(tape: &mut Tape<'_>) -> Frame {
    let slot = |tape: &mut Tape<'_>| Slot { node: NodeId(u32::from(tape.u8() % 5)), slot: tape.u16() % 6 };
    let body = match tape.u8() % 8 {
        0 => RcomBody::Status { need_slots: tape.once_in(2) },
        1 => RcomBody::Names { after: tape.once_in(2).then(|| name(tape)) },
        2 => RcomBody::Lookup { name: name(tape) },
        3 => RcomBody::Lock(Box::new(recovery_lock(tape))),
        4 => RcomBody::StatusReply(RcomConfig {
            lvblen: *tape.pick(&[32, 32, 32, 16, u32::MAX]),
            lsflags: 0,
            our_slot: tape.u16() % 6,
            generation: u32::from(tape.u8()),
            slots: (0..tape.u8() % 5).map(|_| slot(tape)).collect(),
        }),
        5 => RcomBody::NamesReply { names: (0..tape.u8() % 4).map(|_| name(tape)).collect(), end: tape.once_in(2) },
        6 => RcomBody::LookupReply,
        _ => RcomBody::LockReply(Box::new(recovery_lock(tape))),
    };
    let (result, id) = (i32::from(tape.u8()), u64::from(tape.u8()));
    Frame::Rcom(Box::new(Rcom { result, id, seq: u64::from(tape.u8()), seq_reply: u64::from(tape.u8()), body }))
}

/// What an honest member answers, whose status is always the last one.
fn honest_answer(rcom: &Rcom) -> Option<Rcom> {
    let slots = (1..=3).map(|n| Slot { node: NodeId(n), slot: n as u16 }).collect();
    let (result, body) = match &rcom.body {
        RcomBody::Status { .. } => {
            (0xff, RcomBody::StatusReply(RcomConfig { lvblen: 32, lsflags: 0, our_slot: 1, generation: 7, slots }))
        }
        RcomBody::Names { .. } => (0, RcomBody::NamesReply { names: Vec::new(), end: true }),
        RcomBody::Lookup { .. } => (1, RcomBody::LookupReply),
        RcomBody::Lock(lock) => (0, RcomBody::LockReply(Box::new(RcomLock { remid: lock.lkid, ..(**lock).clone() }))),
        _ => return None,
    };
    Some(Rcom { result, id: rcom.id, seq: 5, seq_reply: rcom.seq, body })
}

/// An engine among members that say anything.
struct Bench {
    engine: Engine,
    now: u64,
    steps: usize,
    /// Members answer recovery honestly.
    honest: bool,
}

impl Bench {
    /// One event and what follows; members may answer.
    fn feed(&mut self, event: Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            self.steps += 1;
            self.engine.handle(event, self.now);
            let mut effects = 0;
            while let Some(effect) = self.engine.next_effect() {
                effects += 1;
                assert!(effects < 10_000, "one event has no end of effects");
                let Effect::Send { to, frame: Frame::Rcom(rcom) } = effect else { continue };
                if let Some(answer) = honest_answer(&rcom).filter(|_| self.honest && events.len() < 64) {
                    events.push(Event::Frame { from: to, frame: Frame::Rcom(Box::new(answer)) });
                }
            }
            self.check();
            if self.steps > 20_000 {
                return;
            }
        }
    }

    /// A lying member can have incompatible locks granted, by what it reports in recovery; what is ours must stay whole.
    fn check(&self) {
        if let Err(why) = self.engine.check() {
            assert!(!["I4", "I13", "I14"].iter().any(|id| why.contains(id)), "{why}\n{}", self.engine.dump());
        }
        let (locks, resources) = self.engine.sizes();
        let most = self.steps * 4 + 8;
        assert!(locks <= most && resources <= most, "{locks} locks, {resources} records after {} events", self.steps);
    }

    fn start(&mut self, tape: &mut Tape<'_>) {
        let here = tape.u8();
        let members: Vec<StartMember> = (1..=3)
            .filter(|n| *n == self.engine_node() || here >> n & 1 == 1)
            .map(|n| StartMember { node: NodeId(n), weight: 1, incarnation: u64::from(here >> 4), new: here & 1 == 1 })
            .collect();
        let cluster = members.iter().map(|m| (m.node, m.incarnation)).collect();
        self.feed(Event::Stop);
        self.feed(Event::Start(Start { members, cluster, round: u64::from(here) }));
    }

    fn engine_node(&self) -> u32 {
        2
    }

    fn client(&mut self, tape: &mut Tape<'_>) {
        let (call, lock) = (self.steps as u64, lock_id(tape));
        let flags = LockFlags::from_bits_retain(tape.u32() & tape.u32());
        let lvb = tape.once_in(2).then(|| vec![tape.u8(); 32].into());
        let wanted = mode(tape).unwrap_or(Mode::Nl);
        let call = match tape.u8() % 4 {
            0 | 1 => ClientCall::Lock(LockCall {
                call,
                token: call,
                mode: wanted,
                flags,
                name: name(tape),
                lvb,
                pid: 1,
                wants_notices: true,
                uses_lost_value: false,
            }),
            2 => ClientCall::Convert { call, lock, mode: wanted, flags, lvb },
            _ => ClientCall::Unlock { call, lock, flags, lvb },
        };
        self.feed(Event::Client(call));
    }
}

/// One engine: its client does anything, members say anything, the membership changes. Nothing panics, records stay
/// consistent, and nothing grows beyond what was asked for.
pub fn engine(input: &[u8]) {
    let mut tape = Tape::new(input);
    let engine = Engine::new(Config::new(NodeId(2)));
    let mut bench = Bench { engine, now: 0, steps: 0, honest: true };
    bench.start(&mut tape);
    while !tape.is_empty() && bench.steps < 20_000 {
        let from = NodeId(u32::from(tape.u8() % 5));
        bench.honest = !tape.once_in(7);
        match tape.u8() % 16 {
            0..5 => bench.client(&mut tape),
            5..11 => bench.feed(Event::Frame { from, frame: message(&mut tape) }),
            11..13 => bench.feed(Event::Frame { from, frame: recovery(&mut tape) }),
            13 => {
                let bytes = as_frame(tape.take(120), 1 + from.0 as u8 % 2);
                if let Ok(wire::Packet { body: PacketBody::Frame { frame, .. }, .. }) = wire::decode(&bytes) {
                    bench.feed(Event::Frame { from, frame });
                }
            }
            14 => {
                bench.now += u64::from(tape.u16());
                bench.feed(Event::Tick);
            }
            _ => bench.start(&mut tape),
        }
    }
}
