//! The life of a mount.

use super::options::{MountOptions, OnError};
use super::rundir::RunDir;
use super::{control, log};
use crate::clock::SystemClock;
use crate::device::{BlockDevice, FileDevice, OpenMode, ReadAhead};
use crate::fuse::{self, Disk, MountSpec, Policy, Service};
use crate::volume::{self, Identity, Opened};
use rustix::mount::{MountFlags, UnmountFlags, unmount};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What mount.gfs2r was asked for, checked.
pub(super) struct Plan {
    source: PathBuf,
    target: PathBuf,
    options: MountOptions,
    device: FileDevice,
    id: Identity,
    block_device: bool,
}

/// Checks everything that can be checked without changing anything.
pub(super) fn plan(source: &Path, target: &Path, options: MountOptions) -> Result<Plan, String> {
    let say = |what: &Path, e: &dyn std::fmt::Display| format!("{}: {e}", what.display());
    let source = source.canonicalize().map_err(|e| say(source, &e))?;
    let target = target.canonicalize().map_err(|e| say(target, &e))?;
    if !target.is_dir() {
        return Err(say(&target, &"not a directory"));
    }
    let kind = source.metadata().map_err(|e| say(&source, &e))?.file_type();
    if !kind.is_block_device() && !kind.is_file() {
        return Err(say(&source, &"neither a block device nor an image file"));
    }
    // Not claimed: the mount itself claims a block device, and would find it in use.
    // A read-only mount replays dirty journals, so it writes too, unless the device or -o norecovery forbids it.
    let mode = if options.open.norecovery { OpenMode::ReadOnly } else { OpenMode::ReadWriteShared };
    let device = match FileDevice::open(&source, mode) {
        Err(e) if options.open.read_only && mode != OpenMode::ReadOnly && is_read_only_error(&e) => {
            FileDevice::open(&source, OpenMode::ReadOnly)
        }
        other => other,
    };
    let device = device.map_err(|e| match e.kind() {
        io::ErrorKind::ResourceBusy => say(&source, &"in use (mounted, or held by another program)"),
        _ => say(&source, &e),
    })?;
    let id = Identity::read(&device).map_err(|e| say(&source, &e))?;
    let proto = match &options.lockproto {
        Some(proto) => proto.clone(),
        None => String::from_utf8_lossy(id.superblock.lockproto()).into_owned(),
    };
    match proto.as_str() {
        "lock_nolock" => {}
        "lock_dlm" => {
            let hint = "its lock protocol is lock_dlm, and cluster mounts are not available yet \
                        (if no other node uses it: -o lockproto=lock_nolock)";
            return Err(say(&source, &hint));
        }
        other => {
            let what = format!(
                "unknown lock protocol '{other}' in the superblock (left by a killed fsck? tunegfs2 -o lockproto=...)"
            );
            return Err(say(&source, &what));
        }
    }
    Ok(Plan { source, target, options, device, id, block_device: kind.is_block_device() })
}

fn is_read_only_error(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

/// Mounts and serves until unmounted. `ready` is called once the mount is usable.
pub(super) fn run(plan: Plan, background: bool, ready: impl FnOnce() -> io::Result<()>) -> Result<(), String> {
    let Plan { source, target, options, device, id, block_device } = plan;
    let say = |e: &dyn std::fmt::Display| format!("{}: {e}", source.display());
    let run_dir = RunDir::claim(&id.name(), &target).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            say(&format!("already mounted here (or a volume of the same name '{}' is)", id.name()))
        }
        _ => say(&format!("cannot keep runtime state in {}: {e}", super::rundir::root().display())),
    })?;
    if background {
        log::to_system(&run_dir.log()).map_err(|e| say(&e))?;
    } else {
        log::to_stderr();
    }
    if !block_device {
        let lock = if device.read_only() { device.lock_shared() } else { device.lock_exclusive() };
        lock.map_err(|_| say(&"the image is in use by another program"))?;
    }
    // lock_nolock: nobody else writes.
    let device: Arc<dyn BlockDevice> = Arc::new(ReadAhead::new(device));
    let opened = volume::open(device, &options.open, Arc::new(SystemClock)).map_err(|e| say(&e))?;
    let opened = Arc::new(opened);
    let mut flags = options.flags;
    flags.set(MountFlags::RDONLY, options.open.read_only);
    let block_size = id.superblock.bsize.get();
    let disk = if block_device { Disk::Device { block_size } } else { Disk::Image { block_size } };
    let spec = MountSpec { source: source.clone(), target: target.clone(), flags, disk, transport: options.transport };
    let service = Service { fs: Arc::clone(&opened.fs), policy: Policy::single(), atime: options.atime };
    let session = match fuse::mount(&spec, service) {
        Ok(session) => session,
        Err(e) => {
            let closed = finish(opened);
            return Err(say(&format!("cannot mount on {}: {e}{}", target.display(), closed.err().unwrap_or_default())));
        }
    };
    raise_readahead(&target);
    control::listen(&run_dir.control(), Arc::clone(&opened)).map_err(|e| say(&e))?;
    let keeper = Keeper::start(&opened, &options, &target).map_err(|e| say(&e))?;
    tracing::info!(source = %source.display(), target = %target.display(), "mounted");
    ready().map_err(|e| say(&e))?;
    let served = session.serve();
    keeper.stop();
    if let Err(e) = &served {
        tracing::warn!("the FUSE session ended with an error: {e}");
    }
    let result = finish(opened);
    // Now the disk is clean: whoever waits in umount(2) may go on.
    drop(served);
    let parting = match &result {
        Ok(()) => run_dir.remove(),
        Err(e) => {
            tracing::error!("{e}");
            run_dir.leave_error(e)
        }
    };
    if let Err(e) = parting {
        tracing::warn!("runtime state cannot be tidied: {e}");
    }
    tracing::info!(source = %source.display(), "unmounted");
    result.map_err(|e| say(&e))
}

fn finish(opened: Arc<Opened>) -> Result<(), String> {
    opened.close().map_err(|e| e.to_string())
}

/// Cold sequential reads gain from a readahead as large as a request. Where the kernel does not let us, nothing is lost. The
/// device's number comes from the mount table: asking the directory itself would wait for our own answer.
fn raise_readahead(target: &Path) {
    let Some(device) = super::umount::device_number(target) else { return };
    // On a block device the kernel gives FUSE a second one beside the disk's own.
    let bdi = [format!("/sys/class/bdi/{device}-fuseblk"), format!("/sys/class/bdi/{device}")]
        .into_iter()
        .find(|dir| Path::new(dir).exists());
    let Some(bdi) = bdi else { return };
    if let Err(e) = std::fs::write(format!("{bdi}/read_ahead_kb"), b"1024") {
        tracing::debug!("{bdi}/read_ahead_kb: {e}");
    }
}

/// The background work of a mount: counters, orphans, signals, the fate of a withdrawn volume.
struct Keeper {
    stopped: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
    signals: signal_hook::iterator::Handle,
}

impl Keeper {
    fn start(opened: &Arc<Opened>, options: &MountOptions, target: &Path) -> io::Result<Self> {
        let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let handle = signals.handle();
        let (for_signals, target) = (Arc::clone(opened), target.to_owned());
        std::thread::Builder::new().name("gfs2r-signals".into()).spawn(move || {
            for signal in &mut signals {
                if signal != SIGHUP {
                    leave(&for_signals, &target);
                }
            }
        })?;
        let stopped = Arc::new(AtomicBool::new(false));
        let (opened, options, stop) = (Arc::clone(opened), options.clone(), Arc::clone(&stopped));
        let thread =
            std::thread::Builder::new().name("gfs2r-keeper".into()).spawn(move || keep(&opened, &options, &stop))?;
        Ok(Self { stopped, thread, signals: handle })
    }

    fn stop(self) {
        self.stopped.store(true, Ordering::Release);
        self.signals.close();
        self.thread.thread().unpark();
        if self.thread.join().is_err() {
            tracing::error!("the keeper thread panicked");
        }
    }
}

fn keep(opened: &Opened, options: &MountOptions, stop: &AtomicBool) {
    if !opened.is_read_only() {
        match opened.fs.reclaim_orphans() {
            Ok(0) => {}
            Ok(n) => tracing::info!(inodes = n, "deleted inodes that lost their last name before a crash"),
            Err(e) => tracing::warn!("looking for unlinked inodes failed: {e}"),
        }
    }
    let quantum = Duration::from_secs(u64::from(options.statfs_quantum.max(1).min(options.quota_quantum)));
    let mut last = Instant::now();
    let mut told = false;
    while !stop.load(Ordering::Acquire) {
        std::thread::park_timeout(Duration::from_secs(1));
        if let Some(cause) = opened.fs.volume().journal.withdrawn() {
            if !told {
                tracing::error!("withdrawn: {cause}");
                told = true;
            }
            if options.on_error == OnError::Panic {
                std::process::abort();
            }
            continue;
        }
        if last.elapsed() >= quantum && !opened.is_read_only() {
            last = Instant::now();
            if let Err(e) = opened.fs.sync_counters() {
                tracing::warn!("moving statfs and quota changes failed: {e}");
            }
        }
    }
}

/// SIGTERM: a clean unmount. When the directory is in use it is detached, what the kernel still holds is written, the volume
/// is closed, and the programs that use it see a dead mount.
fn leave(opened: &Arc<Opened>, target: &Path) {
    let dir = std::fs::File::open(target);
    let synced = dir.and_then(|d| rustix::fs::syncfs(&d).map_err(io::Error::from));
    if let Err(e) = synced {
        tracing::warn!("writing back before leaving: {e}");
    }
    if unmount(target, UnmountFlags::empty()).is_ok() {
        return;
    }
    tracing::warn!("{} is in use: detaching it", target.display());
    if let Err(e) = unmount(target, UnmountFlags::DETACH) {
        tracing::warn!("detaching: {e}");
    }
    if let Err(e) = opened.close() {
        tracing::error!("closing the volume: {e}");
        std::process::exit(1);
    }
    std::process::exit(0);
}

/// Says on stdout that the mount is usable, then lets go of the terminal.
pub(super) fn detach() -> io::Result<()> {
    io::stdout().write_all(b"ok\n")?;
    io::stdout().flush()?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
