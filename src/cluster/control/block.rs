//! The value block of CONTROL (dlm.md 5.2): unlike everything else of GFS2 little-endian.
//!
//! | bytes | what |
//! |---|---|
//! | 0..4 | the generation up to which deaths are noted; all ones: nobody may mount |
//! | 4..8 | unused |
//! | 8..32 | bit j of byte 8+j/8: journal j waits for its replay |

use crate::glock::Lvb;

/// Journals that have a bit.
pub(in crate::cluster) const JIDS: u32 = 192;

/// The value block, edited in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ControlBlock(pub(super) Lvb);

impl ControlBlock {
    /// One that says: all journals are replayed, as of this generation.
    pub(super) fn clean(generation: u32) -> Self {
        let mut block = Self(Lvb::default());
        block.set_generation(generation);
        block
    }
    /// The generation up to which deaths are noted.
    pub(super) fn generation(&self) -> u32 {
        let [a, b, c, d, ..] = self.0.0;
        u32::from(a) | u32::from(b) << 8 | u32::from(c) << 16 | u32::from(d) << 24
    }
    /// Sets it.
    pub(super) fn set_generation(&mut self, generation: u32) {
        for (byte, shift) in self.0.0.iter_mut().zip([0, 8, 16, 24]) {
            *byte = (generation >> shift & 0xff) as u8;
        }
    }
    /// Nobody may mount.
    pub(super) fn is_disabled(&self) -> bool {
        self.generation() == u32::MAX
    }
    /// Does this journal wait?
    pub(super) fn waits(&self, jid: u32) -> bool {
        jid < JIDS && self.0.0[8 + jid as usize / 8] & (1 << (jid % 8)) != 0
    }
    /// Says whether it waits; a journal without a bit cannot be noted.
    pub(super) fn set_waits(&mut self, jid: u32, waits: bool) {
        if jid < JIDS {
            let (byte, bit) = (&mut self.0.0[8 + jid as usize / 8], 1 << (jid % 8));
            *byte = if waits { *byte | bit } else { *byte & !bit };
        }
    }
    /// All journals that wait.
    pub(super) fn waiting(&self) -> impl Iterator<Item = u32> + '_ {
        (0..JIDS).filter(|jid| self.waits(*jid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_kernels() {
        let mut block = ControlBlock::clean(0x0102_0304);
        block.set_waits(1, true);
        block.set_waits(10, true);
        block.set_waits(191, true);
        block.set_waits(192, true);
        let bytes = block.0.0;
        assert_eq!((&bytes[..4], bytes[8], bytes[9], bytes[31]), (&[4, 3, 2, 1][..], 2, 4, 128));
        assert_eq!(block.waiting().collect::<Vec<_>>(), [1, 10, 191]);
        block.set_waits(10, false);
        assert_eq!((block.0.0[9], block.generation()), (0, 0x0102_0304));
        // What a kernel wrote when a second node had come.
        assert_eq!(ControlBlock::clean(2).0.0[..5], [2, 0, 0, 0, 0]);
    }
}
