//! rindex and the headers of the resource groups (ondisk.md 3; 12.2).

use crate::blockmap::Group;
use crate::disk::Disk;
use crate::issue::IssueKind;
use crate::reader;
use crate::report::{CheckError, Findings};
use gfs2r::format::rgrp::{RG_MEMORY_ONLY, RgrpExtent};
use gfs2r::format::superblock::SUPERBLOCK_OFFSET;
use gfs2r::format::{Dinode, MAGIC, MetaHeader, MetaType, OnDisk, RgrpHeader, RindexEntry};

/// Reads all resource groups, sorted by address. `None` when they are too damaged to check anything against them.
pub(crate) fn read(disk: &Disk<'_>, found: &mut Findings, master: u64) -> Result<Option<Vec<Group>>, CheckError> {
    let rindex = reader::dinode(disk, master).and_then(|master| reader::lookup(disk, &master, b"rindex"));
    let bytes = match rindex {
        Ok(None) => {
            found.add(master, master, IssueKind::SystemFileMissing { name: "rindex".into() });
            return Ok(None);
        }
        Ok(Some(entry)) => reader::dinode(disk, entry.addr),
        Err(e) => Err(e),
    };
    let bytes = match bytes {
        Err(CheckError::Damaged { block, what }) => {
            found.add(block, None, IssueKind::RindexEntry { entry: 0, what });
            return Ok(None);
        }
        other => other?,
    };
    let Some(extents) = entries(disk, found, &bytes)? else { return Ok(None) };
    groups(disk, found, &extents)
}

/// Reads the groups at these places, which are sorted. `None` when one of them is not there.
pub(crate) fn groups(
    disk: &Disk<'_>,
    found: &mut Findings,
    extents: &[RgrpExtent],
) -> Result<Option<Vec<Group>>, CheckError> {
    let mut groups = Vec::with_capacity(extents.len());
    let mut whole = true;
    for (i, &extent) in extents.iter().enumerate() {
        let next = extents.get(i + 1).map(|next| next.addr.get());
        match group(disk, found, extent, next)? {
            Some(group) => groups.push(group),
            None => whole = false,
        }
    }
    Ok(whole.then_some(groups))
}

/// The entries of rindex, sorted; `None` when one is wrong.
pub(crate) fn entries(
    disk: &Disk<'_>,
    found: &mut Findings,
    dinode: &[u8],
) -> Result<Option<Vec<RgrpExtent>>, CheckError> {
    let di = Dinode::view(dinode);
    let (at, size) = (di.num.addr.get(), di.size.get());
    // Each resource group needs two blocks of the device at least.
    let size_max = (disk.blocks / 2).saturating_mul(96);
    if !size.is_multiple_of(96) || size > size_max || size == 0 {
        found.add(at, at, IssueKind::RindexSize { size });
    }
    let bytes = match reader::read_range(disk, dinode, 0, size.min(size_max) / 96 * 96) {
        Err(CheckError::Damaged { block, what }) => {
            found.add(block, at, IssueKind::RindexEntry { entry: 0, what });
            return Ok(None);
        }
        other => other?,
    };
    let mut extents: Vec<(RgrpExtent, u64)> = Vec::new();
    let mut whole = !bytes.is_empty();
    let first = SUPERBLOCK_OFFSET.div_ceil(disk.bs.bytes() as u64) + 1;
    for (entry, bytes) in (0..).zip(bytes.chunks_exact(96)) {
        let wrong = match RgrpExtent::check(RindexEntry::view(bytes), disk.bs) {
            Ok(extent) if extent.addr.get() < first => {
                IssueKind::RindexEntry { entry, what: "on the superblock".into() }
            }
            Ok(extent) if extent.end() > disk.blocks => {
                IssueKind::RindexBeyondDevice { entry, end: extent.end(), blocks: disk.blocks }
            }
            Ok(extent) => {
                extents.push((extent, entry));
                continue;
            }
            Err(what) => IssueKind::RindexEntry { entry, what: what.into() },
        };
        found.add(at, at, wrong);
        whole = false;
    }
    extents.sort_by_key(|(extent, _)| extent.addr);
    for pair in extents.windows(2) {
        if pair[0].0.end() > pair[1].0.addr.get() {
            found.add(at, at, IssueKind::RindexOverlap { entry: pair[1].1, other: pair[0].1 });
            whole = false;
        }
    }
    Ok(whole.then(|| extents.into_iter().map(|(extent, _)| extent).collect()))
}

/// Reads and checks one group; `None` when its blocks are not of the right types.
fn group(
    disk: &Disk<'_>,
    found: &mut Findings,
    extent: RgrpExtent,
    next: Option<u64>,
) -> Result<Option<Group>, CheckError> {
    let (at, bs) = (extent.addr.get(), disk.bs);
    disk.read_run(at, u64::from(extent.length), |bytes| {
        let mut bits = Vec::with_capacity(extent.bitbytes as usize);
        let mut whole = true;
        for (number, block) in (0..).zip(bytes.chunks_exact(bs.bytes())) {
            let wanted = if number == 0 { MetaType::Rgrp } else { MetaType::Bitmap };
            whole &= right_type(found, at + u64::from(number), block, wanted);
            let (offset, _, len) = extent.bitmap_part(bs, number);
            bits.extend_from_slice(&block[offset..offset + len as usize]);
        }
        if !whole {
            return None;
        }
        let mut group = Group::new(extent, bits);
        header(found, RgrpHeader::view(bytes), &mut group, next);
        Some(group)
    })
}

fn right_type(found: &mut Findings, at: u64, block: &[u8], wanted: MetaType) -> bool {
    let header = MetaHeader::view(block);
    let kind = if header.magic.get() == MAGIC { header.kind.get() } else { 0 };
    if kind != wanted as u32 {
        found.add(at, None, IssueKind::RgrpBlock { wanted: wanted as u32, found: kind });
        return false;
    }
    if header.format.get() != wanted.format() {
        found.add(at, None, IssueKind::BlockFormat { found: header.format.get(), expected: wanted.format() });
    }
    true
}

fn header(found: &mut Findings, header: &RgrpHeader, group: &mut Group, next: Option<u64>) {
    let extent = group.extent;
    let at = extent.addr.get();
    let mut add = |kind| found.add(at, None, kind);
    let counts = group.counts;
    let (free, dinodes) = (header.free.get(), header.dinodes.get());
    if free != counts.free {
        add(IssueKind::RgrpFree { found: free, counted: counts.free });
    }
    let counted = counts.dinodes + counts.unlinked;
    if dinodes != counted {
        add(IssueKind::RgrpDinodes { found: dinodes, counted });
    }
    let (crc, expected) = (header.crc.get(), header.checksum());
    if crc != 0 && crc != expected {
        add(IssueKind::RgrpCrc { found: crc, expected });
    }
    let skip = header.skip.get();
    let expected = next.map_or(0, |next| next - at);
    if u64::from(skip) != expected {
        // A distance of 2^32 blocks and more does not fit the field.
        let unset = skip == 0 || expected > u64::from(u32::MAX);
        add(if unset { IssueKind::RgrpSkipUnset { expected } } else { IssueKind::RgrpSkip { found: skip, expected } });
    }
    let copies = [
        ("data0", header.data0.get(), extent.data0.get()),
        ("data", u64::from(header.data.get()), u64::from(extent.data)),
        ("bitbytes", u64::from(header.bitbytes.get()), u64::from(extent.bitbytes)),
    ];
    for (field, said, expected) in copies {
        if said != expected {
            add(IssueKind::RgrpCopy { field, found: said, expected });
        }
    }
    if header.flags.get() & RG_MEMORY_ONLY != 0 {
        add(IssueKind::RgrpFlags { found: header.flags.get() });
    }
    group.header_free = free;
    group.header_dinodes = dinodes;
    group.igeneration = header.igeneration.get();
}
