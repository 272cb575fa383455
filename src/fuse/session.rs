//! Mounting, and serving until unmounted.

use super::adapter::Adapter;
use super::dispatch::Dispatcher;
use super::kernel::{Kernel, MAX_IO};
use super::native::{self, Farewell};
use super::service::Service;
use rustix::mount::MountFlags;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

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
    /// Who reads the requests.
    pub transport: Transport,
}

/// Who reads the kernel's requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// Our own: sync(2) and umount(2) wait for us where the kernel lets them.
    #[default]
    Native,
    /// The fuser crate.
    Fuser,
}

/// A mounted filesystem whose requests wait to be served.
pub struct Session(Inner);

enum Inner {
    Native(native::Session),
    Fuser(fuser::Session<Adapter>),
}

/// The session is over. Where the kernel waits in umount(2) for us, it does so until this is dropped: drop it when the disk is
/// clean.
pub struct Ended {
    _farewell: Option<Farewell>,
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
    let session = match spec.transport {
        Transport::Native => native::Session::open(device, service).map(Inner::Native),
        Transport::Fuser => fuser_session(device, service).map(Inner::Fuser),
    };
    match session {
        Ok(inner) => Ok(Session(inner)),
        Err(e) => {
            rustix::mount::unmount(&*target, rustix::mount::UnmountFlags::DETACH)?;
            Err(e)
        }
    }
}

fn fuser_session(device: File, service: Service) -> io::Result<fuser::Session<Adapter>> {
    let readers = service.policy.readers;
    let kernel = Arc::new(Kernel::default());
    let dispatcher = Arc::new(Dispatcher::new(readers)?);
    let adapter = Adapter { service: Arc::new(service), dispatcher, kernel: Arc::clone(&kernel) };
    let mut config = fuser::Config::default();
    config.n_threads = Some(readers);
    let session = fuser::Session::from_fd(adapter, OwnedFd::from(device), fuser::SessionACL::All, config)?;
    kernel.set_voice(Arc::new(session.notifier()));
    Ok(session)
}

impl Session {
    /// Serves requests until the filesystem is unmounted.
    pub fn serve(self) -> io::Result<Ended> {
        match self.0 {
            Inner::Native(session) => session.serve().map(|farewell| Ended { _farewell: Some(farewell) }),
            Inner::Fuser(session) => session.run().map(|()| Ended { _farewell: None }),
        }
    }
}
