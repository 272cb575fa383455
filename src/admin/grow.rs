//! Growing a volume into a device that has grown (ondisk.md 11.1).
//!
//! ```text
//!  headers and bitmaps of the new groups ─ flush        outside all groups: nobody looks there yet
//!  rindex entry of the first, statfs      ─ transaction  from here on there is space for what follows
//!  the other entries, statfs              ─ transactions, as many as it takes
//!  room for one more entry, sync                         so that a full volume can grow the next time
//! ```
//!
//! All of it happens under the exclusive lock of the rindex: one node at a time grows, and the others see what was added when they
//! take that lock the next time. Each transaction leaves a volume that is right, only smaller than it could be.

mod append;

use super::fresh::empty_group;
use super::geometry::{Alignment, GeometryError, growth};
use super::system;
use crate::device::BlockDevice;
use crate::error::Error;
use crate::format::rgrp::RgrpExtent;
use crate::fs::Fs;
use crate::ids::BlockSize;
use crate::inode::{InodeExclusive, Volume};
use std::fmt;
use std::io::ErrorKind;

/// Bytes of headers and bitmaps that are handed to the device at a time.
const BATCH: usize = 16 << 20;
/// A volume does not grow by less: the stock tool refuses it too, and many small resource groups are no good.
const LEAST_BYTES: u64 = 32 << 20;

/// What is wished.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request {
    /// Bytes to be used of the device; `None` = all.
    pub device_bytes: Option<u64>,
    /// Stripes of the device, in blocks.
    pub alignment: Alignment,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// What was done, or would be.
#[derive(Clone, Debug)]
pub struct Growth {
    /// Block size.
    pub bs: BlockSize,
    /// Blocks of the filesystem before, as the stock tool counts them: up to the end of its last resource group, and one.
    pub old_blocks: u64,
    /// Blocks of the device.
    pub device_blocks: u64,
    /// The new resource groups.
    pub groups: Vec<RgrpExtent>,
}

impl Growth {
    /// Blocks for data that are won.
    pub fn data_blocks(&self) -> u64 {
        self.groups.iter().map(|rg| u64::from(rg.data)).sum()
    }
}

/// Why a volume does not grow.
#[derive(Debug)]
pub enum GrowError {
    /// The device has no room for another resource group: it has this many blocks, the filesystem that many.
    HasNotGrown(u64, u64),
    /// The device is smaller than what is to be used of it: bytes there, bytes wished.
    SmallerDevice(u64, u64),
    /// There is no layout.
    Geometry(GeometryError),
    /// The rindex is not as the tools and the kernel make it.
    OddRindex(&'static str),
    /// The volume says no.
    Volume(Error),
}

impl From<Error> for GrowError {
    fn from(e: Error) -> Self {
        Self::Volume(e)
    }
}

impl fmt::Display for GrowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HasNotGrown(device, fs) => {
                write!(f, "has not grown by 32 MB at least (device {device} blocks, filesystem {fs})")
            }
            Self::SmallerDevice(device, wished) => write!(f, "the device has {device} bytes, not {wished}"),
            Self::Geometry(e) => e.fmt(f),
            Self::OddRindex(what) => write!(f, "the rindex {what} (fsck.gfs2r mends it)"),
            Self::Volume(Error::NoSpace) => {
                f.write_str("no space left for the rindex itself: delete something first, then grow again")
            }
            Self::Volume(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for GrowError {}

/// Grows an open volume. All is durable when this returns without error; after an error the volume may have grown by a part.
pub fn grow(fs: &Fs, request: &Request) -> Result<Growth, GrowError> {
    if !request.dry_run {
        fs.may_change()?;
    }
    let vol = fs.volume();
    let inum = system::find(vol, "rindex")?;
    let known = || {
        let rindex = vol.exclusive(inum)?;
        fs.take_over_rindex(&rindex).map(|known| (rindex, known))
    };
    let looked = || {
        let rindex = vol.shared(inum)?;
        fs.take_over_rindex(&rindex)
    };
    if request.dry_run {
        return plan(vol, &vol.rgrps.refresh_index(looked)?, request);
    }
    let (mut rindex, known) = vol.rgrps.refresh_index(known)?;
    let growth = plan(vol, &known, request)?;
    append::check(&rindex, known.len())?;
    write_groups(&**vol.cache.device(), &growth).map_err(Error::from)?;
    let done = enter(fs, &mut rindex, known, &growth.groups);
    let result = vol.journal.watch(done.and_then(|()| vol.journal.sync()));
    drop(rindex);
    result?;
    fs.sync_counters()?;
    Ok(growth)
}

/// Decides; the groups that are there come from the rindex, whose lock is held.
fn plan(vol: &Volume, known: &[RgrpExtent], request: &Request) -> Result<Growth, GrowError> {
    let (bs, there) = (vol.bs, vol.cache.device().refresh_size().map_err(Error::from)?);
    let bytes = request.device_bytes.unwrap_or(there);
    if bytes > there && !request.dry_run {
        return Err(GrowError::SmallerDevice(there, bytes));
    }
    let end = known.last().map_or(0, RgrpExtent::end);
    let device_blocks = bs.block_of(bytes);
    let groups = growth(bs, end, device_blocks, request.alignment).map_err(GrowError::Geometry)?;
    let old_blocks = end.saturating_add(1);
    // A device has at most 2^64 bytes.
    let won = groups.first().map_or(0, |first| (device_blocks - first.addr.get()) << bs.shift());
    if won < LEAST_BYTES {
        return Err(GrowError::HasNotGrown(device_blocks, old_blocks));
    }
    Ok(Growth { bs, old_blocks, device_blocks, groups })
}

/// The new groups' own blocks, durable.
fn write_groups(device: &dyn BlockDevice, growth: &Growth) -> std::io::Result<()> {
    let (bs, groups) = (growth.bs, &growth.groups);
    if let (Some(first), Some(last)) = (groups.first(), groups.last()) {
        let (from, to) = (bs.offset(first.addr), last.end() << bs.shift());
        match device.discard(from, to - from) {
            // Only advice.
            Err(e) if !matches!(e.kind(), ErrorKind::Unsupported | ErrorKind::InvalidInput) => return Err(e),
            _ => {}
        }
    }
    let next = |n: usize| groups.get(n + 1).map(|rg| rg.addr);
    let mut n = 0;
    while n < groups.len() {
        let (mut blocks, mut bytes) = (Vec::new(), 0);
        while n < groups.len() && bytes < BATCH {
            let block = empty_group(bs, &groups[n], next(n));
            bytes += block.len();
            blocks.push((bs.offset(groups[n].addr), block));
            n += 1;
        }
        let ranges: Vec<(u64, &[u8])> = blocks.iter().map(|(offset, block)| (*offset, &**block)).collect();
        device.write_many(&ranges)?;
    }
    device.flush()
}

/// Enters the groups into the rindex and uses them.
fn enter(fs: &Fs, rindex: &mut InodeExclusive, mut known: Vec<RgrpExtent>, groups: &[RgrpExtent]) -> Result<(), Error> {
    let vol = fs.volume();
    // The first alone: where the rindex has to grow for the others, this one has the space.
    let (first, others) = groups.split_at(groups.len().min(1));
    for some in std::iter::once(first).chain(others.chunks(append::most(vol.bs))) {
        append::append(fs, rindex, some)?;
        known.extend_from_slice(some);
        vol.rgrps.grow(&known)?;
    }
    append::make_room(vol, rindex)
}
