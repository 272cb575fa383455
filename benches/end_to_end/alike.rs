//! A lock_nolock volume, served as a mount of a cluster is: what is left of the difference is the locks.

use gfs2r::clock::SystemClock;
use gfs2r::device::{FileDevice, OpenMode};
use gfs2r::fuse::{self, AtimeSwitch, Disk, MountSpec, Policy, Service, Transport};
use gfs2r::volume::{self, OpenOptions};
use rustix::mount::MountFlags;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// As `gfs2r`, the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Mounts, serves until unmounted, closes the volume.
pub(crate) fn serve(disk: &Path, root: &Path) -> io::Result<()> {
    let device = Arc::new(FileDevice::open(disk, OpenMode::ReadWrite)?);
    let opened = volume::open(device, &OpenOptions::default(), Arc::new(SystemClock)).map_err(io::Error::other)?;
    let service = Service {
        fs: Arc::clone(&opened.fs),
        policy: Policy { locks: false, ..Policy::shared() },
        atime: Arc::new(AtimeSwitch::default()),
        nodiratime: false,
        label: b"bench:alike".to_vec(),
    };
    let spec = MountSpec {
        source: disk.to_owned(),
        target: root.to_owned(),
        flags: MountFlags::empty(),
        disk: Disk::Image { block_size: 4096 },
        transport: Transport::Native,
    };
    let session = fuse::mount(&spec, service, None).map_err(|e| io::Error::other(format!("{e:?}")))?;
    let served = session.serve()?;
    opened.close().map_err(|e| io::Error::other(e.to_string()))?;
    drop(served);
    Ok(())
}
