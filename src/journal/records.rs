//! What stands in the log: written and scanned side by side (ondisk.md 8.2, 8.3).

use super::reserve::Costs;
use crate::clock::Timestamp;
use crate::error::{CorruptKind, Error, Result};
use crate::format::log::{LD_ITEMS, LD_JDATA, LD_METADATA, LD_REVOKE};
use crate::format::{
    LogDescriptor, LogHeader, MAGIC, MetaHeader, MetaType, OnDisk, StatfsChange, be, get_u64, put_u64,
};
use crate::ids::{BlockAddr, BlockSize, Jid, LogBlock, LogSeq};
use std::sync::Arc;

/// A block image for the log.
pub(super) type Image = (BlockAddr, Arc<[u8]>);

/// Writes the body of a group into `out`, which has exactly [`Costs::body`] blocks: journaled data, metadata, revokes, as
/// the kernel orders them.
pub(super) fn encode(bs: BlockSize, jdata: &[Image], meta: &[Image], revokes: &[BlockAddr], out: &mut [u8]) {
    let costs = Costs::new(bs);
    let mut blocks = out.chunks_exact_mut(bs.bytes());
    let mut next = || blocks.next().expect("the caller has counted with Costs::body");
    for chunk in jdata.chunks(costs.jdata) {
        let descriptor = next();
        describe(descriptor, LD_JDATA, 1 + chunk.len(), chunk.len());
        for (i, (addr, bytes)) in chunk.iter().enumerate() {
            let escaped = MetaHeader::has_magic(bytes);
            put_u64(descriptor, LD_ITEMS + 16 * i, addr.get());
            put_u64(descriptor, LD_ITEMS + 16 * i + 8, u64::from(escaped));
            let image = next();
            image.copy_from_slice(bytes);
            if escaped {
                // A scan must not take it for log structure.
                be::U32::edit(image).set(0);
            }
        }
    }
    for chunk in meta.chunks(costs.meta) {
        let descriptor = next();
        describe(descriptor, LD_METADATA, 1 + chunk.len(), chunk.len());
        for (i, (addr, bytes)) in chunk.iter().enumerate() {
            put_u64(descriptor, LD_ITEMS + 8 * i, addr.get());
            next().copy_from_slice(bytes);
        }
    }
    if revokes.is_empty() {
        return;
    }
    let (first, rest) = revokes.split_at(revokes.len().min(costs.meta));
    let descriptor = next();
    describe(descriptor, LD_REVOKE, costs.revoke_blocks(revokes.len()), revokes.len());
    put_addrs(descriptor, LD_ITEMS, first);
    for chunk in rest.chunks(costs.more_revokes) {
        let block = next();
        MetaHeader::init(block, MetaType::LogContinuation);
        put_addrs(block, size_of::<MetaHeader>(), chunk);
    }
}

fn describe(block: &mut [u8], kind: u32, length: usize, items: usize) {
    let ld = LogDescriptor::edit(block);
    ld.header = MetaHeader::new(MetaType::LogDescriptor);
    ld.kind.set(kind);
    // Both are bounded by the journal's size, which is a u32.
    ld.length.set(length as u32);
    ld.data1.set(items as u32);
}

fn put_addrs(block: &mut [u8], at: usize, addrs: &[BlockAddr]) {
    for (i, addr) in addrs.iter().enumerate() {
        put_u64(block, at + 8 * i, addr.get());
    }
}

/// What a header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeaderFields {
    pub(super) writer: Jid,
    pub(super) sequence: LogSeq,
    pub(super) flags: u32,
    pub(super) tail: LogBlock,
    pub(super) at: LogBlock,
    /// Address of the header's own block.
    pub(super) addr: BlockAddr,
    pub(super) inode: BlockAddr,
    /// statfs_change, quota_change; 0 in the headers that recovery writes.
    pub(super) files: (u64, u64),
    pub(super) local: StatfsChange,
    pub(super) time: Timestamp,
}

/// Writes a header over `block`, a whole block of zeros.
pub(super) fn write_header(block: &mut [u8], h: &HeaderFields) {
    let lh = LogHeader::edit(block);
    lh.header = MetaHeader::new(MetaType::LogHeader);
    lh.header.jid.set(h.writer.0);
    lh.sequence.set(h.sequence.0);
    lh.flags.set(h.flags);
    lh.tail.set(h.tail.0);
    lh.blkno.set(h.at.0);
    lh.nsec.set(h.time.nsec);
    lh.sec.set(h.time.sec.max(0) as u64);
    lh.addr.set(h.addr.get());
    lh.jinode.set(h.inode.get());
    lh.statfs_addr.set(h.files.0);
    lh.quota_addr.set(h.files.1);
    lh.local_total = h.local.total;
    lh.local_free = h.local.free;
    lh.local_dinodes = h.local.dinodes;
    LogHeader::seal(block);
}

/// A section's kind and sizes, checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section {
    pub(super) kind: u32,
    /// Journal blocks, descriptor included; at least 1.
    pub(super) length: u32,
    pub(super) items: usize,
}

/// One step of a walk through the log.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Header,
    Section(Section),
}

/// What the journal block at device address `at` is. Anything but a valid header or descriptor aborts a replay.
pub(super) fn parse(bs: BlockSize, block: &[u8], at: BlockAddr) -> Result<Step> {
    let bad = |what| Err(Error::corrupt(at, CorruptKind::Journal(what)));
    match MetaHeader::view_kind(block) {
        k if k == MetaType::LogHeader as u32 && LogHeader::is_valid(block) => return Ok(Step::Header),
        k if k == MetaType::LogDescriptor as u32 => {}
        _ => return bad("neither a log header nor a descriptor where one belongs"),
    }
    let ld = LogDescriptor::view(block);
    let (kind, length, items) = (ld.kind.get(), ld.length.get(), ld.data1.get() as usize);
    let costs = Costs::new(bs);
    let Some(payload) = length.checked_sub(1).map(|n| n as usize) else {
        return bad("a descriptor of length 0");
    };
    let fits = match kind {
        LD_METADATA => items <= costs.meta && items <= payload,
        LD_JDATA => items <= costs.jdata && items <= payload,
        LD_REVOKE => items <= costs.meta + payload.saturating_mul(costs.more_revokes),
        // Unknown sections are stepped over, as the kernel does.
        _ => true,
    };
    if !fits {
        return bad("a descriptor with more items than it has room for");
    }
    Ok(Step::Section(Section { kind, length, items }))
}

/// Item `i` of a METADATA descriptor, or of a REVOKE descriptor's first block.
pub(super) fn addr_item(block: &[u8], i: usize) -> u64 {
    get_u64(block, LD_ITEMS + 8 * i)
}

/// Item `i` of a JDATA descriptor: address, and whether the image was escaped.
pub(super) fn jdata_item(block: &[u8], i: usize) -> (u64, bool) {
    (get_u64(block, LD_ITEMS + 16 * i), get_u64(block, LD_ITEMS + 16 * i + 8) != 0)
}

/// Item `i` of a revoke continuation block.
pub(super) fn continued_item(block: &[u8], i: usize) -> u64 {
    get_u64(block, size_of::<MetaHeader>() + 8 * i)
}

/// Puts the magic back into an escaped image.
pub(super) fn unescape(image: &mut [u8]) {
    be::U32::edit(image).set(MAGIC);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let bs = BlockSize::new(512).expect("legal");
        let costs = Costs::new(bs);
        let addr = |n: u64| BlockAddr::new(n).expect("not 0");
        let image = |n: u64, magic: bool| {
            let mut b = vec![n as u8; 512];
            if magic {
                be::U32::edit(&mut b).set(MAGIC);
            }
            (addr(n), Arc::from(b))
        };
        let jdata: Vec<Image> = (100..140).map(|n| image(n, n % 2 == 0)).collect();
        let meta: Vec<Image> = (200..270).map(|n| image(n, true)).collect();
        let revokes: Vec<BlockAddr> = (1000..1200).map(addr).collect();
        let blocks = costs.body(meta.len(), jdata.len(), revokes.len());
        let mut out = vec![0; blocks * 512];
        encode(bs, &jdata, &meta, &revokes, &mut out);
        let (mut pos, mut seen) = (0, Vec::new());
        while pos < blocks {
            let block = &out[pos * 512..][..512];
            let Step::Section(s) = parse(bs, block, addr(1)).expect("a descriptor") else { panic!("a header?") };
            for i in 0..s.items {
                match s.kind {
                    LD_JDATA => {
                        let (a, escaped) = jdata_item(block, i);
                        let mut b = out[(pos + 1 + i) * 512..][..512].to_vec();
                        assert!(!MetaHeader::has_magic(&b));
                        if escaped {
                            unescape(&mut b);
                        }
                        assert_eq!(b[..], jdata[a as usize - 100].1[..]);
                        seen.push(a);
                    }
                    LD_METADATA => seen.push(addr_item(block, i)),
                    _ if i < costs.meta => seen.push(addr_item(block, i)),
                    _ => {
                        let (b, k) = ((i - costs.meta) / costs.more_revokes, (i - costs.meta) % costs.more_revokes);
                        seen.push(continued_item(&out[(pos + 1 + b) * 512..], k));
                    }
                }
            }
            pos += s.length as usize;
        }
        let all: Vec<u64> = (100..140).chain(200..270).chain(1000..1200).collect();
        assert_eq!(seen, all);
    }
}
