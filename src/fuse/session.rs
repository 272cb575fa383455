//! Mounting, and serving until unmounted.

use super::adapter::Adapter;
use super::dispatch::Dispatcher;
use super::image;
use super::kernel::{Kernel, MAX_IO};
use super::native::{self, Farewell};
use super::service::Service;
use rustix::mount::MountFlags;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

/// What the filesystem lies on; `block_size`: the filesystem's, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disk {
    /// A block device.
    Device {
        /// Bytes in a block.
        block_size: u32,
    },
    /// An image file.
    Image {
        /// Bytes in a block.
        block_size: u32,
    },
}

/// What is mounted where.
#[derive(Clone, Debug)]
pub struct MountSpec {
    /// What /proc/mounts shows as the source.
    pub source: PathBuf,
    /// The directory.
    pub target: PathBuf,
    /// ro, nosuid and the like.
    pub flags: MountFlags,
    /// What the source is.
    pub disk: Disk,
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

/// Threads of the fuser crate: each of them reads, and waits if need be.
const FUSER_THREADS: usize = 4;

/// A mounted filesystem whose requests wait to be served.
pub struct Session {
    inner: Inner,
    claim: Option<File>,
}

enum Inner {
    Native(native::Session),
    Fuser(fuser::Session<Adapter>),
}

/// The session is over. Where the kernel waits in umount(2) for us, it does so until this is dropped: drop it when the disk is
/// clean.
pub struct Ended {
    _farewell: Option<Farewell>,
    _claim: Option<File>,
}

/// Mounts: afterwards the directory shows the filesystem, and [`Session::serve`] must run. `claim`: a block device, opened so that
/// nobody else can claim it; it is held until the end, or else the kernel's claim takes its place.
pub fn mount(spec: &MountSpec, service: Service, mut claim: Option<File>) -> io::Result<Session> {
    if spec.transport == Transport::Fuser && service.policy.is_shared() {
        return Err(io::Error::other("the fuser transport cannot keep a shared mount coherent: leave transport= away"));
    }
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    match spec.disk {
        // The kernel lets umount(2) wait for us, and takes a mount namespace down when the last process in it dies. If that is
        // ourselves, killed, it waits for our answer for ever, and every sync(2) of the machine with it.
        _ if !namespace_outlives_us() => {
            tracing::info!(
                "mounting without a block device, so sync(2) will not wait for the disk: in a mount namespace of its own"
            );
            mount_plain(spec, &device, c"fuse.gfs2r", &options(None))?;
        }
        Disk::Device { block_size } => {
            claim = None;
            mount_plain(spec, &device, c"fuseblk.gfs2r", &options(Some(block_size)))?;
        }
        Disk::Image { block_size } => {
            if let Err(e) = image::mount(spec, &device, &options(Some(block_size))) {
                tracing::info!(
                    "mounting without a loop device, so sync(2) and syncfs(2) will not wait for the disk: {e}"
                );
                mount_plain(spec, &device, c"fuse.gfs2r", &options(None))?;
            }
        }
    }
    let session = match spec.transport {
        Transport::Native => native::Session::open(device, service).map(Inner::Native),
        Transport::Fuser => fuser_session(device, service).map(Inner::Fuser),
    };
    match session {
        Ok(inner) => Ok(Session { inner, claim }),
        Err(e) => {
            if let Err(undo) = rustix::mount::unmount(&spec.target, rustix::mount::UnmountFlags::DETACH) {
                tracing::warn!("unmounting again: {undo}");
            }
            Err(e)
        }
    }
}

/// True in the machine's own process namespace and the mount namespace of its first process. That one's namespace link is not
/// always readable, but its mount table is, and no two namespaces have mounts of the same number.
fn namespace_outlives_us() -> bool {
    // PROC_PID_INIT_INO
    const FIRST_PID_NAMESPACE: &str = "pid:[4026531836]";
    let root = |who: &str| {
        let table = std::fs::read_to_string(format!("/proc/{who}/mountinfo")).unwrap_or_default();
        table.split(' ').next().map(str::to_owned).filter(|number| !number.is_empty())
    };
    std::fs::read_link("/proc/self/ns/pid").is_ok_and(|ns| ns.as_os_str() == FIRST_PID_NAMESPACE)
        && root("self").is_some_and(|ours| root("1") == Some(ours))
}

/// What the filesystem is told when it is made.
fn options(block_size: Option<u32>) -> Vec<(&'static str, Option<String>)> {
    let mut options = vec![
        ("rootmode", Some("40000".to_owned())),
        ("user_id", Some("0".to_owned())),
        ("group_id", Some("0".to_owned())),
        ("default_permissions", None),
        ("allow_other", None),
        ("max_read", Some(MAX_IO.to_string())),
    ];
    options.extend(block_size.map(|bytes| ("blksize", Some(bytes.to_string()))));
    options
}

fn mount_plain(spec: &MountSpec, device: &File, kind: &CStr, options: &[(&str, Option<String>)]) -> io::Result<()> {
    let mut data = format!("fd={}", device.as_raw_fd());
    for (key, value) in options {
        data.push(',');
        data.push_str(key);
        if let Some(value) = value {
            data.push('=');
            data.push_str(value);
        }
    }
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let source = text(spec.source.as_os_str().as_bytes())?;
    let target = text(spec.target.as_os_str().as_bytes())?;
    let data = text(data.as_bytes())?;
    rustix::mount::mount(&*source, &*target, kind, spec.flags, &*data)?;
    Ok(())
}

fn fuser_session(device: File, service: Service) -> io::Result<fuser::Session<Adapter>> {
    let kernel = Arc::new(Kernel::default());
    let dispatcher = Arc::new(Dispatcher::new(FUSER_THREADS - 1)?);
    let adapter = Adapter { service: Arc::new(service), dispatcher, kernel: Arc::clone(&kernel) };
    let mut config = fuser::Config::default();
    config.n_threads = Some(FUSER_THREADS);
    let session = fuser::Session::from_fd(adapter, OwnedFd::from(device), fuser::SessionACL::All, config)?;
    kernel.set_voice(Arc::new(session.notifier()));
    kernel.keep_block_counts_fresh()?;
    Ok(session)
}

impl Session {
    /// Serves requests until the filesystem is unmounted.
    pub fn serve(self) -> io::Result<Ended> {
        let farewell = match self.inner {
            Inner::Native(session) => Some(session.serve()?),
            Inner::Fuser(session) => {
                session.run()?;
                None
            }
        };
        Ok(Ended { _farewell: farewell, _claim: self.claim })
    }
}
