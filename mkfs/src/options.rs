//! What the user asks for.

use crate::geometry::Alignment;
use gfs2r::clock::{Clock, SystemClock};
use gfs2r::ids::BlockSize;

/// Everything that decides what is written. Two runs with equal options write equal devices.
#[derive(Clone, Debug)]
pub struct Options {
    /// Block size.
    pub block_size: BlockSize,
    /// Use so many blocks instead of the whole device.
    pub blocks: Option<u64>,
    /// Number of journals, at least 1.
    pub journals: u32,
    /// MiB in a journal. Readers want 8 to 1024, and the command line takes nothing else; `None` = by the device's size.
    pub journal_mib: Option<u32>,
    /// MiB in each quota_change file, 1 to 64.
    pub quota_change_mib: u32,
    /// MiB wished in a resource group, 32 to 2048.
    pub rgrp_mib: u32,
    /// Stripes to respect, in blocks.
    pub alignment: Alignment,
    /// Format of the filesystem: 1801 or 1802.
    pub format: u32,
    /// New files below the root directory journal their data.
    pub root_inherit_jdata: bool,
    /// `lock_nolock` or `lock_dlm`, at most 63 bytes.
    pub lock_proto: String,
    /// `cluster:name` or empty, at most 63 bytes.
    pub lock_table: String,
    /// UUID in textual order.
    pub uuid: [u8; 16],
    /// All times written, in seconds since 1970.
    pub time: i64,
    /// Decides where the sequence numbers of the journals start.
    pub seed: u64,
    /// Starts of the first journals' sequence numbers, instead of the seed's; each below the blocks of a journal.
    pub journal_starts: Vec<u64>,
    /// Tell the device first that nothing on it is needed any more.
    pub discard: bool,
}

impl Default for Options {
    /// The stock tool's defaults with `lock_nolock`, random UUID and seed, and the time of now; nothing is discarded.
    fn default() -> Self {
        let (uuid, seed) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4().as_u64_pair().0);
        Self {
            block_size: const { BlockSize::new(4096).expect("a power of two") },
            blocks: None,
            journals: 1,
            journal_mib: None,
            quota_change_mib: 1,
            rgrp_mib: 256,
            alignment: Alignment::default(),
            format: gfs2r::format::superblock::FORMAT_MAX,
            root_inherit_jdata: false,
            lock_proto: "lock_nolock".into(),
            lock_table: String::new(),
            uuid: uuid.into_bytes(),
            time: SystemClock.now().sec,
            seed,
            journal_starts: Vec::new(),
            discard: false,
        }
    }
}

impl Options {
    /// A small filesystem for tests: one journal of 8 MiB, fixed UUID, time and seed.
    pub fn small(block_size: u32) -> Option<Self> {
        Some(Self {
            block_size: BlockSize::new(block_size)?,
            journal_mib: Some(8),
            uuid: *b"gfs2r test image",
            time: 1_700_000_000,
            seed: 1,
            ..Self::default()
        })
    }
    /// Where the sequence numbers of journal `j`, of `blocks` blocks, start.
    pub(crate) fn journal_start(&self, j: usize, blocks: u64) -> u64 {
        if let Some(start) = self.journal_starts.get(j) {
            return start % blocks;
        }
        // splitmix64 of the seed and the journal.
        let z = self.seed.wrapping_add((j as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % blocks
    }
}
