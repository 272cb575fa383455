//! Bytes that decide: what a fuzzer changes, read from front to back.

/// Decisions. When the bytes are used up every further one is 0, so that any input is a whole one.
pub(crate) struct Tape<'a>(&'a [u8]);

impl<'a> Tape<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
    /// True when nothing is left to decide.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The next `n` bytes, fewer at the end.
    pub(crate) fn take(&mut self, n: usize) -> &'a [u8] {
        let (front, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        front
    }
    /// A number of `width` bytes.
    fn number(&mut self, width: usize) -> u64 {
        self.take(width).iter().fold(0, |n, &b| n << 8 | u64::from(b))
    }
    pub(crate) fn u8(&mut self) -> u8 {
        self.number(1) as u8
    }
    pub(crate) fn u16(&mut self) -> u16 {
        self.number(2) as u16
    }
    pub(crate) fn u32(&mut self) -> u32 {
        self.number(4) as u32
    }
    pub(crate) fn u64(&mut self) -> u64 {
        self.number(8)
    }
    /// A number below `n`, which is not 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        let width = if n <= 256 {
            1
        } else if n <= 65536 {
            2
        } else {
            4
        };
        (self.number(width) % n as u64) as usize
    }
    /// One of these.
    pub(crate) fn pick<'b, T>(&mut self, of: &'b [T]) -> &'b T {
        &of[self.below(of.len())]
    }
    /// True once in `n`.
    pub(crate) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }
}
