//! Clients: owners of locks that do one thing at a time and remember what they have been told.

use crate::plock::order::{Order, PlockAsk};
use crate::plock::{PlockAnswer, PlockOp};
use crate::sim::Rng;

pub(super) const BYTES: usize = 6;
pub(super) const INODES: u64 = 2;
pub(super) const OWNERS: u64 = 2;

/// What is held of a byte: nothing, shared, exclusive.
pub(super) type Byte = u8;

/// An owner on a node.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    pub(super) owner: u64,
    /// By inode, then byte: as the client has been told.
    pub(super) held: Vec<[Byte; BYTES]>,
    pub(super) outstanding: Option<(u64, PlockAsk)>,
    /// What is outstanding will be gone by the time its answer comes: the inode has been closed since.
    void: bool,
}

impl Client {
    pub(super) fn new(owner: u64) -> Client {
        Client { owner, held: vec![[0; BYTES]; INODES as usize], outstanding: None, void: false }
    }

    /// Something new, if nothing is outstanding; else perhaps a cancel.
    pub(super) fn act(&mut self, order: &mut Order, rng: &mut Rng) {
        if let Some((local, _)) = self.outstanding {
            if rng.chance(30) {
                order.cancel(local);
            }
            return;
        }
        let number = rng.below(INODES as usize) as u64;
        if rng.chance(8) {
            self.close(order, number);
            return;
        }
        let start = rng.below(BYTES);
        let end = start + rng.below(BYTES - start);
        let op = [PlockOp::Lock, PlockOp::Lock, PlockOp::Unlock, PlockOp::Get][rng.below(4)];
        let (exclusive, wait) = (rng.chance(60), rng.chance(60));
        let ask =
            PlockAsk { op, exclusive, wait, pid: 1, number, start: start as u64, end: end as u64, owner: self.owner };
        self.ask(order, ask);
    }

    pub(super) fn ask(&mut self, order: &mut Order, ask: PlockAsk) {
        self.outstanding = Some((order.ask(ask), ask));
    }

    pub(super) fn close(&mut self, order: &mut Order, number: u64) {
        order.close(number, self.owner);
        self.held[number as usize] = [0; BYTES];
        self.void |= self.outstanding.is_some_and(|(_, ask)| ask.number == number);
    }

    /// What is certainly held: during a change, the weaker of before and after.
    pub(super) fn certain(&self, number: u64, byte: usize) -> Byte {
        let held = self.held[number as usize][byte];
        match &self.outstanding {
            Some((_, ask)) if ask.number == number && covers(ask, byte) => held.min(wanted(ask).unwrap_or(held)),
            _ => held,
        }
    }

    /// An answer: to what is outstanding, or something is wrong.
    pub(super) fn answered(&mut self, local: u64, answer: PlockAnswer) -> bool {
        let Some((expected, ask)) = self.outstanding.take() else { panic!("answer {local} to nothing") };
        assert_eq!(expected, local, "an answer to something else");
        let void = std::mem::take(&mut self.void);
        match (ask.op, answer) {
            (PlockOp::Lock, PlockAnswer::Done) if void => {}
            (PlockOp::Lock | PlockOp::Unlock, PlockAnswer::Done) => {
                for byte in (0..BYTES).filter(|byte| covers(&ask, *byte)) {
                    self.held[ask.number as usize][byte] = wanted(&ask).unwrap_or(0);
                }
            }
            (PlockOp::Get, PlockAnswer::Done | PlockAnswer::Conflict(_)) => {}
            (PlockOp::Lock, PlockAnswer::Again) if !ask.wait => {}
            (PlockOp::Lock, PlockAnswer::Interrupted) => {}
            // Given up before it was sent.
            (_, PlockAnswer::Interrupted) => {}
            (op, answer) => panic!("{answer:?} to {op:?}"),
        }
        (ask.op, answer) == (PlockOp::Lock, PlockAnswer::Done)
    }
}

fn covers(ask: &PlockAsk, byte: usize) -> bool {
    (ask.start..=ask.end).contains(&(byte as u64))
}

/// What a byte will be after this.
fn wanted(ask: &PlockAsk) -> Option<Byte> {
    match ask.op {
        PlockOp::Lock => Some(1 + u8::from(ask.exclusive)),
        PlockOp::Unlock => Some(0),
        PlockOp::Get | PlockOp::Cancel => None,
    }
}
