//! Two conversations over connections that break anywhere (dlm.md 6.6: 54 to 60).

use super::*;
use crate::frame::{Msg, MsgType, Rcom, RcomBody};
use crate::sim::Rng;

const SPACE: u32 = 7;

fn numbered(n: u32) -> Frame {
    Frame::Msg(Box::new(Msg { pid: n, ..Msg::new(MsgType::Unlock) }))
}

fn status() -> Frame {
    Frame::Rcom(Box::new(Rcom { result: 0, id: 1, seq: 1, seq_reply: 0, body: RcomBody::Status { need_slots: false } }))
}

fn not_ready() -> Frame {
    let Frame::Rcom(question) = status() else { unreachable!("see there") };
    Frame::Rcom(Box::new(crate::recovery::not_ready_answer(&question).expect("a question")))
}

/// Both ends, the bytes between them, and what has been delivered.
struct Pair {
    ends: [Midcomms; 2],
    wires: [Vec<u8>; 2],
    got: [Vec<u32>; 2],
}

impl Pair {
    fn new() -> Pair {
        let ends = [Midcomms::new(NodeId(1), NodeId(2)), Midcomms::new(NodeId(2), NodeId(1))];
        let mut pair = Pair { ends, wires: [Vec::new(), Vec::new()], got: [Vec::new(), Vec::new()] };
        pair.ends.iter_mut().for_each(Midcomms::member_added);
        pair.greet();
        pair
    }

    fn greet(&mut self) {
        self.ends.iter_mut().for_each(|end| end.send(SPACE, status()).expect("fits"));
        self.run();
        assert_eq!(self.ends.each_ref().map(Midcomms::state), [State::Established; 2]);
    }

    /// Moves bytes into the wires.
    fn write(&mut self) {
        for (end, wire) in self.ends.iter_mut().zip(&mut self.wires) {
            while let Some(bytes) = end.next_transmit() {
                wire.extend(bytes);
            }
        }
    }

    /// Receives whole frames from at most this many bytes of the wire written by `from`.
    fn read(&mut self, from: usize, most: usize) {
        let to = 1 - from;
        let mut read = 0;
        while let Ok(Some(length)) = wire::frame_length(&self.wires[from]) {
            if length > self.wires[from].len() || read + length > most {
                break;
            }
            let frame: Vec<u8> = self.wires[from].drain(..length).collect();
            read += length;
            self.ends[to].receive(&frame);
        }
        self.ends[to].flush_ack();
        while let Some(delivery) = self.ends[to].next_delivery() {
            if let Frame::Msg(msg) = delivery.frame {
                self.got[to].push(msg.pid);
            }
        }
    }

    fn run(&mut self) {
        for _ in 0..10 {
            self.write();
            self.read(0, usize::MAX);
            self.read(1, usize::MAX);
        }
    }

    /// The connection breaks; nothing in the wires arrives.
    fn reset(&mut self) {
        self.wires = [Vec::new(), Vec::new()];
        self.ends.iter_mut().for_each(Midcomms::connected);
    }
}

#[test]
fn s54_a_break_at_every_byte_loses_and_repeats_nothing() {
    for cut in 0..600 {
        let mut pair = Pair::new();
        (0..4).for_each(|n| pair.ends[0].send(SPACE, numbered(n)).expect("fits"));
        pair.write();
        pair.read(0, cut);
        pair.write();
        pair.reset();
        pair.ends[0].send(SPACE, numbered(4)).expect("fits");
        pair.run();
        assert_eq!(pair.got[1], [0, 1, 2, 3, 4], "cut at {cut}");
        assert!(pair.ends[0].unacknowledged.is_empty());
    }
}

#[test]
fn s54_s56_random_breaks_and_wrapping_numbers() {
    for seed in 0..300 {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let mut pair = Pair::new();
        for (a, b) in [(0, 1), (1, 0)] {
            pair.ends[a].seq_send = u32::MAX - 20;
            pair.ends[b].seq_next = u32::MAX - 20;
        }
        let mut sent = [0, 0];
        for _ in 0..400 {
            let side = rng.below(2);
            match rng.below(10) {
                0..5 => {
                    pair.ends[side].send(SPACE, numbered(sent[side])).expect("fits");
                    sent[side] += 1;
                }
                5..7 => pair.write(),
                7..9 => pair.read(side, rng.below(500)),
                _ => pair.reset(),
            }
        }
        pair.reset();
        pair.run();
        for (side, count) in sent.into_iter().enumerate() {
            assert_eq!(pair.got[1 - side], (0..count).collect::<Vec<_>>(), "seed {seed}");
        }
    }
}

#[test]
fn nothing_numbered_leaves_before_the_version_is_known() {
    let mut end = Midcomms::new(NodeId(1), NodeId(2));
    end.member_added();
    end.send(SPACE, numbered(1)).expect("fits");
    assert!(end.next_transmit().is_none());
    end.receive(&wire::encode(NodeId(2), SPACE, &status()).expect("fits"));
    let bytes = end.next_transmit().expect("the frame that waited");
    assert!(matches!(wire::decode(&bytes).expect("decodes").body, PacketBody::Numbered { sequence: 0, .. }));
}

#[test]
fn s57_parting_in_either_order() {
    // Our FIN before the peer has removed us, after it, and both at once.
    for case in 0..3 {
        let mut pair = Pair::new();
        if case == 1 {
            pair.ends[1].member_removed();
        }
        pair.ends[0].shutdown();
        if case == 2 {
            pair.ends[1].shutdown();
        }
        pair.run();
        if case == 0 {
            assert_eq!(pair.ends.each_ref().map(Midcomms::state), [State::FinWait2, State::CloseWait]);
            pair.ends[1].member_removed();
            pair.run();
        }
        assert_eq!(pair.ends.each_ref().map(Midcomms::state), [State::Closed; 2], "case {case}");
        // They can begin again: both count from 0.
        pair.ends.iter_mut().for_each(Midcomms::member_added);
        pair.greet();
        pair.ends[0].send(SPACE, numbered(9)).expect("fits");
        pair.run();
        assert_eq!(pair.got[1], [9]);
    }
}

#[test]
fn s57_a_peer_that_begins_again_ends_a_stuck_shutdown() {
    let mut pair = Pair::new();
    pair.ends[0].send(SPACE, numbered(0)).expect("fits");
    pair.run();
    pair.ends[0].member_removed();
    pair.ends[1].shutdown();
    pair.write();
    pair.read(1, usize::MAX);
    assert_eq!(pair.ends[0].state(), State::LastAck);
    pair.wires = [Vec::new(), Vec::new()];
    // The peer has restarted.
    pair.ends[1] = Midcomms::new(NodeId(2), NodeId(1));
    pair.ends[1].member_added();
    pair.ends[1].send(SPACE, status()).expect("fits");
    pair.run();
    assert_eq!(pair.ends[0].state(), State::Established);
}

/// Found with whole nodes that left at the same moment: a question that had been under way, or the answer to one, made the
/// leaver, or its peer, count from 0 again; the FIN of one of them was never acknowledged.
#[test]
fn s57_whoever_has_parted_does_not_begin_anew() {
    let mut pair = Pair::new();
    (0..2).for_each(|n| pair.ends[1].send(SPACE, numbered(n)).expect("fits"));
    pair.run();
    // The peer asks, and has not heard that we leave.
    pair.ends[1].send(SPACE, status()).expect("fits");
    pair.ends[0].shutdown();
    pair.ends[0].send(SPACE, not_ready()).expect("fits");
    pair.run();
    assert_eq!((pair.ends[0].state(), pair.ends[1].state()), (State::FinWait2, State::CloseWait));
    pair.ends[1].send(SPACE, status()).expect("fits");
    pair.run();
    pair.ends[1].member_removed();
    pair.run();
    assert_eq!((pair.ends[0].state(), pair.ends[1].state()), (State::Closed, State::Closed));
}

#[test]
fn s58_a_restarted_peer_counts_from_zero() {
    let mut pair = Pair::new();
    (0..3).for_each(|n| pair.ends[1].send(SPACE, numbered(n)).expect("fits"));
    pair.run();
    pair.ends[0].node_gone();
    pair.ends[1] = Midcomms::new(NodeId(2), NodeId(1));
    pair.ends.iter_mut().for_each(Midcomms::member_added);
    pair.greet();
    pair.ends[1].send(SPACE, numbered(3)).expect("fits");
    pair.run();
    assert_eq!(pair.got[0], [0, 1, 2, 3]);
}

#[test]
fn s59_an_old_peer_gets_bare_frames_and_may_not_change_its_mind() {
    let mut end = Midcomms::new(NodeId(1), NodeId(2));
    end.member_added();
    let mut old = wire::encode(NodeId(2), SPACE, &status()).expect("fits");
    old[0] = 1;
    end.receive(&old);
    end.send(SPACE, numbered(5)).expect("fits");
    let bytes = end.next_transmit().expect("bytes");
    assert!(matches!(wire::decode(&bytes).expect("decodes").body, PacketBody::Frame { .. }));
    let mut bare = wire::encode(NodeId(2), SPACE, &numbered(6)).expect("fits");
    bare[0] = 1;
    end.receive(&bare);
    assert_eq!(end.delivered.len(), 2);
    bare[0] = 2;
    end.receive(&bare);
    assert_eq!((end.delivered.len(), end.dropped()), (2, 1));
}

#[test]
fn s60_frames_of_others_and_damaged_inner_frames_are_dropped() {
    let mut pair = Pair::new();
    let foreign = wire::encode_numbered(NodeId(3), 0, &wire::encode(NodeId(3), SPACE, &numbered(1)).expect("fits"))
        .expect("fits");
    pair.ends[0].receive(&foreign);
    let mut inner = wire::encode(NodeId(2), SPACE, &numbered(1)).expect("fits");
    inner[14] = 99;
    let damaged = wire::encode_numbered(NodeId(2), 0, &inner).expect("fits");
    pair.ends[0].receive(&damaged);
    assert_eq!(pair.ends[0].dropped(), 2);
    // The damaged one had its number: the stream goes on with the next.
    let next = wire::encode_numbered(NodeId(2), 1, &wire::encode(NodeId(2), SPACE, &numbered(2)).expect("fits"))
        .expect("fits");
    pair.ends[0].receive(&next);
    assert_eq!(pair.ends[0].delivered.len(), 1);
}

/// Found with whole nodes: both part at once, and the answer to the one's FIN was dropped with the conversation.
#[test]
fn both_part_at_once_and_both_hear_of_it() {
    let status = || {
        let body = crate::frame::RcomBody::Status { need_slots: false };
        Frame::Rcom(Box::new(crate::frame::Rcom { result: 0, id: 1, seq: 1, seq_reply: 0, body }))
    };
    let (mut a, mut b) = (Midcomms::new(NodeId(1), NodeId(2)), Midcomms::new(NodeId(2), NodeId(1)));
    a.send(7, status()).expect("fits");
    b.send(7, status()).expect("fits");
    b.receive(&a.next_transmit().expect("a question"));
    a.receive(&b.next_transmit().expect("a question"));
    a.shutdown();
    b.shutdown();
    let (fin_a, fin_b) = (a.next_transmit().expect("FIN"), b.next_transmit().expect("FIN"));
    b.receive(&fin_a);
    let ack_b = b.next_transmit().expect("its acknowledgement");
    // They arrive together, before anything is written.
    a.receive(&fin_b);
    a.receive(&ack_b);
    assert_eq!((a.state(), b.state()), (State::Closed, State::Closing));
    b.receive(&a.next_transmit().expect("the acknowledgement, all the same"));
    assert_eq!(b.state(), State::Closed);
}
