//! One journal: its blocks, its headers, its head (ondisk.md 8.2, 8.9).

use crate::disk::Disk;
use crate::issue::IssueKind;
use crate::reader;
use crate::report::{CheckError, Findings};
use gfs2r::format::checksum::{crc32, crc32c_raw};
use gfs2r::format::log::LH_UNMOUNT;
use gfs2r::format::{Dinode, LogHeader, MAGIC, MetaType, OnDisk};
use std::collections::HashMap;

/// Smallest and largest journal.
const SIZE: std::ops::RangeInclusive<u64> = 8 << 20..=1 << 30;

/// The newest header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// Its journal block.
    pub(crate) at: u32,
    pub(crate) sequence: u64,
    pub(crate) flags: u32,
    pub(crate) tail: u32,
    /// Local statfs: total, free, dinodes.
    pub(crate) local: [i64; 3],
}

/// A journal that was read.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) jid: u32,
    /// Its dinode.
    pub(crate) inode: u64,
    /// Device addresses of its blocks.
    pub(crate) blocks: Vec<u64>,
    pub(crate) head: Option<Head>,
    /// Blocks to replay: address → true for a metadata copy.
    pub(crate) replayed: HashMap<u64, bool>,
}

impl Journal {
    /// True when the newest header does not say that the log was closed.
    pub(crate) fn is_dirty(&self) -> bool {
        self.head.is_some_and(|head| head.flags & LH_UNMOUNT == 0)
    }
    /// The position after this one.
    pub(crate) fn after(&self, at: u32, by: u32) -> u32 {
        ((u64::from(at) + u64::from(by)) % (self.blocks.len() as u64).max(1)) as u32
    }
}

/// CRC-32C over many blocks that are mostly zeros: zeros are skipped by a table.
struct Crc {
    /// Effect of the zeros from byte 120 to the end of the block on each byte of the state.
    zeros: [[u32; 256]; 4],
    zero_block: Vec<u8>,
}

impl Crc {
    fn new(block: usize) -> Self {
        let zero_block = vec![0; block - 120];
        // The state after zeros is linear in the state before: one run per bit, then sums.
        let step = |mut state: u32, n: usize| {
            for _ in 0..n {
                state = state >> 1 ^ if state & 1 == 1 { 0x82f6_3b78 } else { 0 };
            }
            state
        };
        let bits: Vec<u32> = (0..32).map(|bit| step(1 << bit, 8 * zero_block.len())).collect();
        let mut zeros = [[0; 256]; 4];
        for (byte, table) in zeros.iter_mut().enumerate() {
            for (value, entry) in table.iter_mut().enumerate() {
                *entry = (0..8).filter(|bit| value >> bit & 1 == 1).fold(0, |sum, bit| sum ^ bits[8 * byte + bit]);
            }
        }
        Self { zeros, zero_block }
    }
    /// The `lh_crc` of a log header block.
    fn header(&self, block: &[u8]) -> u32 {
        if block[120..] != self.zero_block[..] {
            return crc32c_raw(&block[52..]);
        }
        let state = crc32c_raw(&block[52..120]);
        (0..4).fold(0, |sum, byte| sum ^ self.zeros[byte][(state >> (8 * byte) & 0xff) as usize])
    }
}

/// What a journal block is when it claims to be a log header.
fn header<'b>(crc: &Crc, block: &'b [u8]) -> Option<Result<&'b LogHeader, ()>> {
    let lh = LogHeader::view(block);
    if lh.header.magic.get() != MAGIC || lh.header.kind.get() != MetaType::LogHeader as u32 {
        return None;
    }
    let mut first = [0; 48];
    first[..44].copy_from_slice(&block[..44]);
    let valid = lh.hash.get() == crc32(&first) && (lh.crc.get() == 0 || lh.crc.get() == crc.header(block));
    Some(if valid { Ok(lh) } else { Err(()) })
}

/// Reads a journal and finds its head. `None` when the file cannot be a journal (an issue says why).
pub(crate) fn scan(
    disk: &Disk<'_>,
    found: &mut Findings,
    jid: u32,
    inode: u64,
    dinode: &[u8],
) -> Result<Option<Journal>, CheckError> {
    let size = Dinode::view(dinode).size.get();
    let bs = disk.bs.bytes() as u64;
    if !SIZE.contains(&size) || !size.is_multiple_of(bs) {
        found.add(inode, inode, IssueKind::JournalSize { jid, size });
        return Ok(None);
    }
    let count = size / bs;
    let map = match reader::map(disk, dinode, 0..count) {
        // Pass 1 will say it with more words.
        Err(CheckError::Damaged { .. }) => return Ok(None),
        other => other?,
    };
    if let Some(hole) = (0..count).find(|&n| map.get(n as usize).is_none_or(|&(number, _)| number != n)) {
        found.add(inode, inode, IssueKind::JournalHole { jid, at: hole });
        return Ok(None);
    }
    let blocks: Vec<u64> = map.into_iter().map(|(_, addr)| addr).collect();
    if blocks.iter().any(|&addr| addr >= disk.blocks) {
        return Ok(None);
    }
    let headers = headers(disk, found, jid, inode, &blocks)?;
    if headers.is_empty() {
        found.add(inode, inode, IssueKind::JournalNoHeader { jid });
    }
    check_order(found, jid, inode, &headers, &blocks);
    Ok(Some(Journal { jid, inode, blocks, head: head(&headers), replayed: HashMap::new() }))
}

/// All valid headers in the order of their places.
fn headers(
    disk: &Disk<'_>,
    found: &mut Findings,
    jid: u32,
    inode: u64,
    blocks: &[u64],
) -> Result<Vec<Head>, CheckError> {
    let (crc, bs) = (Crc::new(disk.bs.bytes()), disk.bs.bytes());
    let mut headers = Vec::new();
    let mut at = 0u32;
    for run in blocks.chunk_by(|a, b| a + 1 == *b).flat_map(|run| run.chunks((1 << 20) / bs)) {
        disk.read_run(run[0], run.len() as u64, |bytes| {
            for (block, &addr) in bytes.chunks_exact(bs).zip(run) {
                match header(&crc, block) {
                    Some(Ok(lh)) => {
                        // One of another place, or of another journal, says nothing about this log.
                        if in_place(found, (jid, inode), (at, addr), lh) {
                            headers.push(read_head(at, lh));
                        }
                    }
                    Some(Err(())) => found.add(addr, inode, IssueKind::JournalHeaderDamaged { jid, at }),
                    None => {}
                }
                at += 1;
            }
        })?;
    }
    Ok(headers)
}

fn read_head(at: u32, lh: &LogHeader) -> Head {
    Head {
        at,
        sequence: lh.sequence.get(),
        flags: lh.flags.get(),
        tail: lh.tail.get(),
        local: [lh.local_total.get(), lh.local_free.get(), lh.local_dinodes.get()],
    }
}

/// True for a header that was written where it lies.
fn in_place(found: &mut Findings, (jid, inode): (u32, u64), (at, addr): (u32, u64), lh: &LogHeader) -> bool {
    let mut fields = vec![("block", u64::from(lh.blkno.get()), u64::from(at))];
    if lh.crc.get() != 0 {
        // Only the second version has these.
        fields.extend([("address", lh.addr.get(), addr), ("journal", lh.jinode.get(), inode)]);
    }
    fields.retain(|(_, said, expected)| said != expected);
    for &(field, said, expected) in &fields {
        found.add(addr, inode, IssueKind::JournalHeaderPlace { jid, at, field, found: said, expected });
    }
    fields.is_empty()
}

/// Around the ring the sequence rises, except from the head to the oldest header after it.
fn check_order(found: &mut Findings, jid: u32, inode: u64, headers: &[Head], blocks: &[u64]) {
    let ring = headers.iter().zip(headers.iter().cycle().skip(1));
    let falls = ring.filter(|(a, b)| a.sequence >= b.sequence);
    for (before, header) in falls.skip(1).take(1) {
        let (at, sequence) = (header.at, header.sequence);
        let kind = IssueKind::JournalSequence { jid, at, found: sequence, before: before.sequence };
        found.add(blocks[at as usize], inode, kind);
    }
}

/// The kernel's rule: from block 0 up, the last header before the first fall.
fn head(headers: &[Head]) -> Option<Head> {
    let mut best: Option<Head> = None;
    for header in headers {
        if best.is_some_and(|best| header.sequence < best.sequence) {
            break;
        }
        best = Some(*header);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(at: u32, sequence: u64) -> Head {
        Head { at, sequence, flags: 0, tail: 0, local: [0; 3] }
    }

    fn falls(headers: &[Head]) -> usize {
        let mut found = Findings::new(&crate::Options::default());
        check_order(&mut found, 0, 1, headers, &[1, 2, 3, 4, 5, 6, 7, 8]);
        found.issues.len()
    }

    #[test]
    fn the_head_is_before_the_first_fall() {
        assert_eq!(head(&[]), None);
        assert_eq!(head(&[at(0, 7), at(1, 8), at(2, 3)]), Some(at(1, 8)));
        assert_eq!(head(&[at(0, 3), at(5, 4)]), Some(at(5, 4)));
    }

    #[test]
    fn one_fall_around_the_ring() {
        assert_eq!(falls(&[]), 0);
        assert_eq!(falls(&[at(3, 9)]), 0);
        assert_eq!(falls(&[at(0, 1), at(1, 2), at(2, 3)]), 0);
        assert_eq!(falls(&[at(0, 7), at(1, 8), at(2, 3), at(3, 4)]), 0);
        assert_eq!(falls(&[at(0, 7), at(1, 8), at(2, 3), at(3, 2)]), 1);
        assert_eq!(falls(&[at(0, 7), at(1, 8), at(2, 3), at(3, 9)]), 1);
    }

    #[test]
    fn zeros_are_skipped_correctly() {
        for size in [512, 4096] {
            let crc = Crc::new(size);
            let mut block = vec![0; size];
            for seed in 0..20u8 {
                block[52..120]
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, b)| *b = seed.wrapping_mul(31).wrapping_add(i as u8));
                assert_eq!(crc.header(&block), crc32c_raw(&block[52..]));
            }
            block[size - 1] = 1;
            assert_eq!(crc.header(&block), crc32c_raw(&block[52..]));
        }
    }
}
