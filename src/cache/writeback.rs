//! Turning many small writes into few large ones.

use super::pieces::Taken;
use crate::device::AlignedBuf;
use crate::ids::BlockSize;
use std::sync::Arc;

/// Largest request that is put together.
pub(super) const MAX_REQUEST: usize = 1 << 20;
/// A piece this large is written from where it lies.
const DIRECT: usize = 256 << 10;

/// Copies neighbouring blocks (ascending byte offsets) together: few large aligned requests.
pub(crate) fn coalesce(blocks: &[(u64, &[u8])]) -> Vec<(u64, AlignedBuf)> {
    let mut requests = Vec::new();
    let mut from = 0;
    while from < blocks.len() {
        let (mut to, mut len) = (from + 1, blocks[from].1.len());
        while to < blocks.len()
            && blocks[from].0 + len as u64 == blocks[to].0
            && len + blocks[to].1.len() <= MAX_REQUEST
        {
            len += blocks[to].1.len();
            to += 1;
        }
        let mut buf = AlignedBuf::zeroed(len);
        let mut at = 0;
        for (_, bytes) in &blocks[from..to] {
            buf[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        }
        requests.push((blocks[from].0, buf));
        from = to;
    }
    requests
}

/// Pieces that are being written: what to hand to the device, and what to say when it is done.
pub(crate) struct WriteSet {
    pub(super) id: u64,
    /// (first block, blocks) of each piece taken.
    pub(super) pieces: Vec<(u64, u64)>,
    requests: Vec<Request>,
}

enum Request {
    Direct { offset: u64, buf: Arc<AlignedBuf>, at: usize, len: usize },
    Copied { offset: u64, buf: AlignedBuf },
}

impl WriteSet {
    pub(super) fn new(bs: BlockSize, id: u64, taken: &[Taken]) -> Self {
        let mut requests = Vec::new();
        let mut small: Vec<(u64, &[u8])> = Vec::new();
        for (i, t) in taken.iter().enumerate() {
            let (offset, len) = (t.start << bs.shift(), t.blocks as usize * bs.bytes());
            let joins = |a: Option<&Taken>, b: Option<&Taken>| match (a, b) {
                (Some(a), Some(b)) => a.start + a.blocks == b.start,
                _ => false,
            };
            let alone =
                !joins(i.checked_sub(1).and_then(|p| taken.get(p)), Some(t)) && !joins(Some(t), taken.get(i + 1));
            if len >= DIRECT || alone {
                requests.push(Request::Direct { offset, buf: t.data.buf.clone(), at: t.data.at, len });
            } else {
                small.push((offset, &t.data.buf[t.data.at..t.data.at + len]));
            }
        }
        requests.extend(coalesce(&small).into_iter().map(|(offset, buf)| Request::Copied { offset, buf }));
        Self { id, pieces: taken.iter().map(|t| (t.start, t.blocks)).collect(), requests }
    }
    /// Byte ranges to write.
    pub(crate) fn ranges(&self) -> Vec<(u64, &[u8])> {
        self.requests
            .iter()
            .map(|r| match r {
                Request::Direct { offset, buf, at, len } => (*offset, &buf[*at..*at + *len]),
                Request::Copied { offset, buf } => (*offset, &buf[..]),
            })
            .collect()
    }
}
