//! A volume that nobody has mounted, opened for work on it.

use crate::clock::SystemClock;
use crate::device::{BlockDevice, FileDevice, OpenMode, ReadAhead, Topology, claim};
use crate::format::superblock::SuperblockError;
use crate::volume::{self, Identity, OpenError, OpenOptions, Opened};
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

/// Why it is not opened.
#[derive(Debug)]
pub enum OfflineError {
    /// The device cannot be opened.
    Device(std::io::Error),
    /// Somebody here uses it.
    InUse,
    /// It belongs to a cluster: another node may have it mounted.
    Cluster,
    /// It is no volume, or a damaged one.
    Open(OpenError),
}

impl From<OpenError> for OfflineError {
    fn from(e: OpenError) -> Self {
        Self::Open(e)
    }
}

impl fmt::Display for OfflineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(e) => e.fmt(f),
            Self::InUse => f.write_str("in use (mounted, or held by another program)"),
            Self::Cluster => f.write_str(
                "a cluster's volume that is not mounted here (mount it first, or say --unmounted if no node has it mounted)",
            ),
            Self::Open(OpenError::Superblock(SuperblockError::NotGfs2)) => f.write_str("not a gfs2 filesystem"),
            Self::Open(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for OfflineError {}

/// An open volume and what its device says of its stripes.
pub struct Offline {
    /// The volume: to be closed.
    pub opened: Opened,
    /// The stripes.
    pub topology: Option<Topology>,
}

/// Opens the volume on a device or in an image; dirty journals are replayed. `nobody`: the caller knows that no other node has it
/// mounted; without that, a cluster's volume is refused.
pub fn open(device: &Path, nobody: bool, options: &OpenOptions) -> Result<Offline, OfflineError> {
    let mode = if options.read_only { OpenMode::ReadOnly } else { OpenMode::ReadWrite };
    let in_use = |e: std::io::Error| match e.kind() {
        ErrorKind::ResourceBusy => OfflineError::InUse,
        _ => OfflineError::Device(e),
    };
    let file = FileDevice::open(device, mode).map_err(in_use)?;
    if !options.read_only {
        claim(&file).map_err(in_use)?;
    }
    let id = Identity::read(&file)?;
    if !nobody && id.superblock.lockproto() != b"lock_nolock" {
        return Err(OfflineError::Cluster);
    }
    let topology = file.topology();
    let disk: Arc<dyn BlockDevice> = Arc::new(ReadAhead::new(file));
    let opened = volume::open(disk, options, Arc::new(SystemClock))?;
    Ok(Offline { opened, topology })
}
