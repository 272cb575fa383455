//! Records in an EA block, as bytes (ondisk.md 6.1, 6.3 to 6.5). Every record that is looked at is checked; no bytes make this
//! panic.

use crate::error::{CorruptKind, Error};
use crate::format::ea::{EA_HEADER, EA_LAST, EA_VALUE_MAX, EaType};
use crate::format::{EaHeader, OnDisk, get_u64, put_u64};
use crate::ids::{BlockAddr, BlockSize};

/// Bytes of an EA or ED block before its contents.
pub(super) const START: usize = 24;

/// What is wrong with an EA block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Defect(pub(super) &'static str);

impl Defect {
    /// As an error of the block at `addr`.
    pub(super) fn at(self, addr: BlockAddr) -> Error {
        Error::corrupt(addr, CorruptKind::Xattr(self.0))
    }
}

/// What the volume's format says about records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Bytes behind the header: of records in an EA block, of a value in an ED block.
    pub(super) payload: usize,
    /// Newest type that exists.
    pub(super) newest: EaType,
}

impl Rules {
    /// The rules of a format (1801, 1802) at a block size.
    pub(super) fn new(bs: BlockSize, fs_format: u32) -> Self {
        Self { payload: bs.payload(), newest: if fs_format >= 1802 { EaType::Trusted } else { EaType::Security } }
    }
}

/// What an attribute occupies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Bytes of its record.
    pub(super) size: usize,
    /// Its ED blocks; 0 when the value is inline.
    pub(super) ptrs: usize,
}

impl Shape {
    /// The shape of an attribute with a name of `name` (1..=255) and a value of `value` bytes; `None` when it is too large.
    pub(super) fn of(rules: Rules, name: usize, value: usize) -> Option<Self> {
        if value > EA_VALUE_MAX {
            return None;
        }
        let inline = align8(EA_HEADER + name + value);
        if inline <= rules.payload {
            return Some(Self { size: inline, ptrs: 0 });
        }
        let ptrs = value.div_ceil(rules.payload);
        let size = EA_HEADER + align8(name) + 8 * ptrs;
        (size <= rules.payload && ptrs <= usize::from(u8::MAX)).then_some(Self { size, ptrs })
    }
}

fn align8(n: usize) -> usize {
    (n + 7) & !7
}

/// A record of an EA block, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// Where it starts.
    pub(super) offset: usize,
    /// Its length: the next record, or the block's end, follows.
    pub(super) len: usize,
    /// Bytes of its value.
    pub(super) data_len: usize,
    /// Bytes of its name.
    pub(super) name_len: usize,
    /// Its type.
    pub(super) kind: EaType,
    /// Its ED blocks; an unused record may still own some.
    pub(super) ptrs: usize,
}

impl Record {
    /// True when it holds an attribute.
    pub(super) fn used(self) -> bool {
        self.kind != EaType::Unused
    }
    /// Its name.
    pub(super) fn name(self, block: &[u8]) -> &[u8] {
        &block[self.offset + EA_HEADER..][..self.name_len]
    }
    /// Its value, when it is inline.
    pub(super) fn inline_value(self, block: &[u8]) -> &[u8] {
        &block[self.offset + EA_HEADER + self.name_len..][..self.data_len]
    }
    /// Its ED pointers, raw.
    pub(super) fn pointers(self, block: &[u8]) -> impl Iterator<Item = u64> {
        let start = self.offset + EA_HEADER + align8(self.name_len);
        (0..self.ptrs).map(move |i| get_u64(block, start + 8 * i))
    }
    /// Bytes of its length that it needs: the rest is slack.
    pub(super) fn size(self) -> usize {
        match (self.used(), self.ptrs) {
            (false, _) => 0,
            (true, 0) => align8(EA_HEADER + self.name_len + self.data_len),
            (true, ptrs) => EA_HEADER + align8(self.name_len) + 8 * ptrs,
        }
    }
}

/// The records of a block, in order; ends after the first defect.
pub(super) fn records(block: &[u8], rules: Rules) -> impl Iterator<Item = Result<Record, Defect>> {
    let mut at = START;
    std::iter::from_fn(move || {
        if at >= block.len() {
            return None;
        }
        let record = record_at(block, at, rules);
        at = record.as_ref().map_or(block.len(), |r| r.offset + r.len);
        Some(record)
    })
}

fn record_at(block: &[u8], offset: usize, rules: Rules) -> Result<Record, Defect> {
    let room = block.len() - offset;
    if room < EA_HEADER {
        return Err(Defect("records do not end at the block's end"));
    }
    let header = EaHeader::view(&block[offset..]);
    let len = header.rec_len.get() as usize;
    if len < EA_HEADER || len > room {
        return Err(Defect("record of impossible length"));
    }
    let kind = EaType::from_raw(header.kind).filter(|&k| k <= rules.newest).ok_or(Defect("record of unknown type"))?;
    if (header.flags & EA_LAST != 0) != (len == room) {
        return Err(Defect("last record not at the block's end"));
    }
    let (name_len, ptrs) = (usize::from(header.name_len), usize::from(header.num_ptrs));
    let record = Record { offset, len, data_len: header.data_len.get() as usize, name_len, kind, ptrs };
    if ptrs > 0 && EA_HEADER + align8(name_len) + 8 * ptrs > len {
        return Err(Defect("pointers pass the record"));
    }
    if record.used() {
        check_used(record, rules)?;
    }
    Ok(record)
}

fn check_used(record: Record, rules: Rules) -> Result<(), Defect> {
    if record.name_len == 0 {
        return Err(Defect("record without a name"));
    }
    if record.data_len > EA_VALUE_MAX {
        return Err(Defect("value of impossible length"));
    }
    if record.ptrs == 0 && EA_HEADER + record.name_len + record.data_len > record.len {
        return Err(Defect("value passes the record"));
    }
    if record.ptrs != 0 && record.ptrs != record.data_len.div_ceil(rules.payload) {
        return Err(Defect("number of pointers does not match the value"));
    }
    Ok(())
}

/// Where a new record can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fit {
    /// The record that gives the room.
    pub(super) giver: usize,
    /// Where the new record starts.
    at: usize,
    /// Its length.
    len: usize,
    /// The giver is unused and still owns ED blocks, which must be freed first.
    pub(super) owns_blocks: bool,
}

/// The first room for a record of `need` bytes: an unused record (taken whole) or the slack of a used one.
pub(super) fn find_fit(block: &[u8], rules: Rules, need: usize) -> Result<Option<Fit>, Defect> {
    for record in records(block, rules) {
        let record = record?;
        let size = record.size();
        if record.len >= size + need {
            let owns_blocks = !record.used() && record.ptrs > 0;
            return Ok(Some(Fit {
                giver: record.offset,
                at: record.offset + size,
                len: record.len - size,
                owns_blocks,
            }));
        }
    }
    Ok(None)
}

/// The room that replacing the record itself gives.
pub(super) fn in_place(record: Record) -> Fit {
    Fit { giver: record.offset, at: record.offset, len: record.len, owns_blocks: false }
}

/// Where a value is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// In the record.
    Inline(&'a [u8]),
    /// In ED blocks.
    External {
        /// Bytes.
        len: usize,
        /// The blocks.
        blocks: &'a [BlockAddr],
    },
}

/// Writes an attribute where `find_fit` or `in_place` found room for it.
pub(super) fn write(block: &mut [u8], fit: Fit, kind: EaType, name: &[u8], value: Value<'_>) {
    let flags = EaHeader::view(&block[fit.giver..]).flags;
    if fit.at != fit.giver {
        let giver = EaHeader::edit(&mut block[fit.giver..]);
        giver.rec_len.set((fit.at - fit.giver) as u32);
        giver.flags = flags & !EA_LAST;
    }
    let (data_len, num_ptrs) = match value {
        Value::Inline(bytes) => (bytes.len(), 0),
        Value::External { len, blocks } => (len, blocks.len() as u8),
    };
    *EaHeader::edit(&mut block[fit.at..]) = EaHeader {
        rec_len: (fit.len as u32).into(),
        data_len: (data_len as u32).into(),
        name_len: name.len() as u8,
        kind: kind as u8,
        flags: flags & EA_LAST,
        num_ptrs,
        pad: 0.into(),
    };
    let body = fit.at + EA_HEADER;
    block[body..][..name.len()].copy_from_slice(name);
    match value {
        Value::Inline(bytes) => block[body + name.len()..][..bytes.len()].copy_from_slice(bytes),
        Value::External { blocks, .. } => {
            block[body + name.len()..body + align8(name.len())].fill(0);
            let pointers = blocks.iter().enumerate();
            pointers.for_each(|(i, addr)| put_u64(block, body + align8(name.len()) + 8 * i, addr.get()));
        }
    }
}

/// Marks a record unused that keeps its ED blocks for now (ondisk.md 6.4).
pub(super) fn retire(block: &mut [u8], offset: usize) {
    EaHeader::edit(&mut block[offset..]).kind = EaType::Unused as u8;
}

/// Marks a record unused and without ED blocks: they were freed. It stays a record of its own.
pub(super) fn disown(block: &mut [u8], record: Record) {
    let start = record.offset + EA_HEADER + align8(record.name_len);
    block[start..][..8 * record.ptrs].fill(0);
    let header = EaHeader::edit(&mut block[record.offset..]);
    header.kind = EaType::Unused as u8;
    header.num_ptrs = 0;
}

/// Removes the record at `offset` (its ED blocks, if any, were freed): its predecessor swallows it; the first of a block
/// becomes unused.
pub(super) fn remove(block: &mut [u8], rules: Rules, offset: usize) -> Result<(), Defect> {
    let mut before: Option<Record> = None;
    let mut it = None;
    for record in records(block, rules) {
        let record = record?;
        if record.offset == offset {
            it = Some(record);
            break;
        }
        before = Some(record);
    }
    let it = it.ok_or(Defect("record vanished"))?;
    disown(block, it);
    if let Some(before) = before {
        let last = EaHeader::view(&block[offset..]).flags & EA_LAST;
        let header = EaHeader::edit(&mut block[before.offset..]);
        header.rec_len.set((before.len + it.len) as u32);
        header.flags |= last;
    }
    Ok(())
}

/// Makes a new EA block empty: one unused record.
pub(super) fn clear(block: &mut [u8]) {
    let len = block.len() - START;
    block[START..].fill(0);
    let header = EaHeader::edit(&mut block[START..]);
    header.rec_len.set(len as u32);
    header.flags = EA_LAST;
}
