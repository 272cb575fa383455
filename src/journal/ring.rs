//! Positions in the log, and its free room.

use crate::ids::LogBlock;

/// Blocks that are kept for headers which move the tail, and for the last header of all: without them a full log could not
/// be emptied.
pub(super) const SPARE: u64 = 4;

/// The log as a ring. Positions count up for ever; the block is the position modulo the size. `tail` is the *durable* one:
/// blocks from it on must not be overwritten.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    size: u32,
    next: u64,
    tail: u64,
}

impl Ring {
    /// An empty ring that continues at `next`.
    pub(super) fn new(size: u32, next: LogBlock) -> Self {
        Self { size, next: u64::from(next.0), tail: u64::from(next.0) }
    }
    /// Where the next block is written.
    pub(super) fn next(&self) -> u64 {
        self.next
    }
    /// The oldest block that may be needed after a crash.
    pub(super) fn tail(&self) -> u64 {
        self.tail
    }
    /// The journal block of a position.
    pub(super) fn block(&self, position: u64) -> LogBlock {
        LogBlock((position % u64::from(self.size)) as u32)
    }
    /// Blocks between tail and the next one.
    pub(super) fn used(&self) -> u64 {
        self.next - self.tail
    }
    /// Blocks that may be written: one less than what is not in use, for the next position never reaches the tail.
    pub(super) fn free(&self) -> u64 {
        u64::from(self.size).saturating_sub(self.used() + 1)
    }
    /// True when so many blocks can be promised to transactions.
    pub(super) fn has_room(&self, blocks: u64) -> bool {
        blocks + SPARE <= self.free()
    }
    /// Takes `blocks` for a group; its first position.
    pub(super) fn take(&mut self, blocks: u64) -> u64 {
        assert!(blocks <= self.free(), "the log would overwrite its own tail");
        let at = self.next;
        self.next += blocks;
        at
    }
    /// A header with this tail has become durable.
    pub(super) fn set_tail(&mut self, tail: u64) {
        assert!(tail >= self.tail && tail <= self.next, "the tail moves forward, up to the next position");
        self.tail = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_position_never_reaches_the_tail() {
        let mut r = Ring::new(64, LogBlock(60));
        assert_eq!((r.used(), r.free()), (0, 63));
        assert!(r.has_room(59) && !r.has_room(60));
        assert_eq!(r.take(63), 60);
        assert_eq!(r.free(), 0);
        r.set_tail(r.next());
        assert_eq!((r.free(), r.block(r.next())), (63, LogBlock((60 + 63) % 64)));
    }
}
