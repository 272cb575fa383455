//! Mounting, and serving until unmounted.

use super::adapter::{Adapter, MAX_IO};
use super::dispatch::Dispatcher;
use super::kernel::Kernel;
use super::service::Service;
use rustix::mount::MountFlags;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What is mounted where.
#[derive(Clone, Debug)]
pub struct MountSpec {
    /// What /proc/mounts shows as the source.
    pub source: PathBuf,
    /// The directory.
    pub target: PathBuf,
    /// ro, nosuid and the like.
    pub flags: MountFlags,
    /// A block device: mounted as fuseblk, with this block size.
    pub block_device: Option<u32>,
}

/// A mounted filesystem whose requests wait to be served.
pub struct Session {
    inner: fuser::Session<Adapter>,
}

/// Mounts: afterwards the directory shows the filesystem, and [`Session::serve`] must run.
pub fn mount(spec: &MountSpec, service: Service) -> io::Result<Session> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let mut data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other,max_read={MAX_IO}",
        device.as_raw_fd()
    );
    let kind = match spec.block_device {
        Some(block_size) => {
            data.push_str(&format!(",blksize={block_size}"));
            c"fuseblk.gfs2r"
        }
        None => c"fuse.gfs2r",
    };
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let source = text(spec.source.as_os_str().as_bytes())?;
    let target = text(spec.target.as_os_str().as_bytes())?;
    let data = text(data.as_bytes())?;
    rustix::mount::mount(&*source, &*target, kind, spec.flags, &*data)?;
    let readers = service.policy.readers;
    let kernel = Arc::new(Kernel::default());
    let dispatcher = Arc::new(Dispatcher::new(readers)?);
    let adapter = Adapter { service: Arc::new(service), dispatcher, kernel: Arc::clone(&kernel) };
    let mut config = fuser::Config::default();
    config.n_threads = Some(readers);
    match fuser::Session::from_fd(adapter, OwnedFd::from(device), fuser::SessionACL::All, config) {
        Ok(inner) => {
            kernel.set_notifier(inner.notifier());
            keep_block_counts_fresh(&kernel)?;
            Ok(Session { inner })
        }
        Err(e) => {
            rustix::mount::unmount(&*target, rustix::mount::UnmountFlags::DETACH)?;
            Err(e)
        }
    }
}

/// Once a second, also of files that nobody syncs: du shows how a download grows.
fn keep_block_counts_fresh(kernel: &Arc<Kernel>) -> io::Result<()> {
    let kernel = Arc::downgrade(kernel);
    std::thread::Builder::new().name("gfs2r-blocks".into()).spawn(move || {
        while let Some(kernel) = kernel.upgrade() {
            kernel.all_settled();
            drop(kernel);
            std::thread::sleep(Duration::from_secs(1));
        }
    })?;
    Ok(())
}

impl Session {
    /// Serves requests until the filesystem is unmounted; all requests have been answered when this returns.
    pub fn serve(self) -> io::Result<()> {
        self.inner.run()
    }
}
