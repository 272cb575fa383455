//! Makes GFS2 filesystems: `mkfs.gfs2r` as a library.
//!
//! What is written is planned completely before the first write: [`geometry`] says where the resource groups and journals
//! go, `system` builds the system files in memory and keeps account of every block. Then the device is written in
//! an order that never leaves something that looks like a filesystem and is none:
//!
//! 1. the place of the superblock is cleared, durably: from here on nothing is left of what was there;
//! 2. discard, journals, resource groups, system files;
//! 3. flush; superblock; flush.
//!
//! ```
//! # fn main() -> Result<(), gfs2r_mkfs::Error> {
//! use gfs2r::device::MemoryDevice;
//! let disk = MemoryDevice::new(32 << 20);
//! let options = gfs2r_mkfs::Options::small(4096).expect("a legal block size");
//! let report = gfs2r_mkfs::format_device(&disk, &options, &mut gfs2r_mkfs::Silent)?;
//! assert_eq!(report.journals, 1);
//! # Ok(())
//! # }
//! ```

mod directory;
mod error;
mod journals;
mod options;
mod report;
mod system;
mod tree;
mod write;

pub use error::Error;
pub use gfs2r::admin::geometry;
pub use options::Options;
pub use report::Report;
pub use system::Created;
pub use write::{Observer, Phase, Silent};

use geometry::{Layout, Request};
use gfs2r::device::{BlockDevice, MemoryDevice};
use gfs2r::format::superblock::{FORMAT_MAX, FORMAT_MIN};

/// A filesystem that is decided on but not written.
#[derive(Debug)]
pub struct Plan {
    /// Where everything goes.
    pub layout: Layout,
    /// What the user is told.
    pub report: Report,
    system: system::System,
    options: Options,
}

impl Plan {
    /// Plans a filesystem for a device of `device_bytes`; reads and writes nothing.
    pub fn new(device_bytes: u64, options: &Options) -> Result<Self, Error> {
        check(options)?;
        let bs = options.block_size;
        let all = bs.block_of(device_bytes);
        let device_blocks = options.blocks.unwrap_or(all);
        if device_blocks > all {
            return Err(Error::BiggerThanDevice { bytes: device_bytes, blocks: all });
        }
        let layout = Layout::plan(&Request {
            bs,
            device_blocks,
            journals: options.journals.into(),
            journal_mib: options.journal_mib.map(u64::from),
            rgrp_mib: options.rgrp_mib.into(),
            alignment: options.alignment,
        })?;
        let system = system::System::build(&layout, options)?;
        let report = Report::new(&layout, all, options);
        Ok(Self { layout, report, system, options: options.clone() })
    }
    /// The system files' dinodes as they were created, in order, for whoever wants to see them (`-D`).
    pub fn created(&self) -> &[Created] {
        &self.system.created
    }
    /// The next formal inode number, and what the statfs file says: data blocks, free ones, dinodes.
    pub fn numbers(&self) -> (u64, [i64; 3]) {
        let totals = self.system.totals;
        (self.system.next_formal, [totals.total.get(), totals.free.get(), totals.dinodes.get()])
    }
    /// Writes the filesystem. All is durable when this returns without error.
    pub fn write(&self, device: &dyn BlockDevice, observer: &mut dyn Observer) -> Result<(), Error> {
        if !self.options.block_size.bytes().is_multiple_of(device.alignment()) {
            return Err(Error::Invalid("the block size is smaller than the device's sectors"));
        }
        write::write(device, self, observer)
    }
}

/// Makes a filesystem on `device`: plan and write.
pub fn format_device(
    device: &dyn BlockDevice,
    options: &Options,
    observer: &mut dyn Observer,
) -> Result<Report, Error> {
    let plan = Plan::new(device.size(), options)?;
    plan.write(device, observer)?;
    Ok(plan.report)
}

/// Makes a filesystem of `bytes` bytes and returns what is not zero in it: offsets and contents. For tests that have a disk
/// type of their own (the library's unit tests, whose `BlockDevice` is another crate's to us).
pub fn make_image(bytes: u64, options: &Options) -> Result<Vec<(u64, Vec<u8>)>, Error> {
    let disk = MemoryDevice::new(bytes);
    format_device(&disk, options, &mut Silent)?;
    let part = |(offset, len): (u64, u64)| {
        let mut bytes = vec![0; len as usize];
        disk.read(offset, &mut bytes).map_err(Error::device("Failed to read memory"))?;
        Ok((offset, bytes))
    };
    disk.allocated_ranges().into_iter().map(part).collect()
}

fn check(options: &Options) -> Result<(), Error> {
    if options.journals == 0 {
        return Err(Error::Invalid("No journals specified"));
    }
    if options.journal_mib.is_some_and(|mib| !(1..=1024).contains(&mib)) {
        return Err(Error::Invalid("Bad journal size"));
    }
    if !(1..=64).contains(&options.quota_change_mib) {
        return Err(Error::Invalid("Bad quota change size"));
    }
    if !(32..=2048).contains(&options.rgrp_mib) {
        return Err(Error::Invalid("Bad resource group size"));
    }
    if !(FORMAT_MIN..=FORMAT_MAX).contains(&options.format) {
        return Err(Error::Invalid("Value of 'format' is invalid"));
    }
    if options.lock_proto.len() > 63 || options.lock_table.len() > 63 {
        return Err(Error::Invalid("Lock protocol or lock table is too long"));
    }
    Ok(())
}
