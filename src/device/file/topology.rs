//! What a block device says about itself, as /sys tells it.

use std::path::PathBuf;

/// Sizes a device asks its users to respect, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Topology {
    /// How far the device's start is off its natural alignment.
    pub alignment_offset: u64,
    /// Sector that can be addressed.
    pub logical: u64,
    /// Smallest request without penalty (a RAID's stripe unit).
    pub minimum_io: u64,
    /// Best request (a RAID's stripe width); 0 = no preference.
    pub optimal_io: u64,
    /// Sector that the medium writes at once.
    pub physical: u64,
}

/// The topology of the block device with this device number.
pub(super) fn read(device: u64) -> Option<Topology> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let own = std::fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    // A partition has no queue of its own, its disk has.
    let queue = [own.join("queue"), own.join("../queue")].into_iter().find(|dir| dir.is_dir())?;
    let number = |path: PathBuf| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    Some(Topology {
        alignment_offset: number(own.join("alignment_offset")).unwrap_or(0),
        logical: number(queue.join("logical_block_size"))?,
        minimum_io: number(queue.join("minimum_io_size")).unwrap_or(0),
        optimal_io: number(queue.join("optimal_io_size")).unwrap_or(0),
        physical: number(queue.join("physical_block_size"))?,
    })
}
