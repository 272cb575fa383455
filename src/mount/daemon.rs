//! The life of a mount.

use super::live::Live;
use super::options::{MountOptions, OnError};
use super::rundir::RunDir;
use super::{client, control, log, table};
use crate::clock::SystemClock;
use crate::device::{BlockDevice, FileDevice, OpenMode, ReadAhead};
use crate::fuse::{self, AtimeSwitch, Disk, MountSpec, Policy, Service};
use crate::quota::QuotaMode;
use crate::sync::Mutex;
use crate::volume::{self, Identity, Opened};
use rustix::mount::{MountFlags, UnmountFlags, unmount};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const IN_USE: &str = "in use (mounted, or held by another program)";

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
pub(super) fn plan(source: &Path, target: &Path, mut options: MountOptions) -> Result<Plan, String> {
    let say = |what: &Path, e: &dyn std::fmt::Display| format!("{}: {e}", what.display());
    let io = |what: &Path, e: io::Error| say(what, &client::words(&e));
    let source = source.canonicalize().map_err(|e| io(source, e))?;
    let target = target.canonicalize().map_err(|e| io(target, e))?;
    if target.metadata().is_err_and(|e| e.kind() == io::ErrorKind::NotConnected) {
        return Err(say(&target, &"something is mounted there whose daemon is gone (umount it, then mount again)"));
    }
    if !target.is_dir() {
        return Err(say(&target, &"not a directory"));
    }
    let kind = source.metadata().map_err(|e| io(&source, e))?.file_type();
    if !kind.is_block_device() && !kind.is_file() {
        return Err(say(&source, &"neither a block device nor an image file"));
    }
    // Claimed later, in its own way: see `run`.
    // A read-only mount replays dirty journals, so it writes too, unless the device or -o norecovery forbids it.
    let protected = kind.is_block_device() && is_write_protected(&source);
    if protected && !options.open.read_only {
        return Err(say(&source, &WRITE_PROTECTED));
    }
    let mode = if options.open.norecovery || protected { OpenMode::ReadOnly } else { OpenMode::ReadWriteShared };
    let device = match FileDevice::open(&source, mode) {
        Err(e) if options.open.read_only && mode != OpenMode::ReadOnly && is_read_only_error(&e) => {
            FileDevice::open(&source, OpenMode::ReadOnly)
        }
        other => other,
    };
    let device = device.map_err(|e| match e.kind() {
        io::ErrorKind::ResourceBusy => say(&source, &IN_USE),
        _ if is_read_only_error(&e) => say(&source, &WRITE_PROTECTED),
        _ => io(&source, e),
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
    if device.read_only() && !options.open.read_only {
        return Err(say(&source, &WRITE_PROTECTED));
    }
    options.lockproto = Some(proto);
    let table = options.locktable.take();
    options.locktable = table.or_else(|| Some(String::from_utf8_lossy(id.superblock.locktable()).into_owned()));
    Ok(Plan { source, target, options, device, id, block_device: kind.is_block_device() })
}

const WRITE_PROTECTED: &str = "write-protected (-o ro mounts it read-only)";

/// The kernel lets root open a write-protected block device for writing, and then refuses each write.
fn is_write_protected(device: &Path) -> bool {
    let Ok(found) = rustix::fs::stat(device) else { return false };
    let (major, minor) = (rustix::fs::major(found.st_rdev), rustix::fs::minor(found.st_rdev));
    std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/ro")).is_ok_and(|ro| ro.trim() == "1")
}

fn is_read_only_error(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

/// Mounts and serves until unmounted. `ready` is called once the mount is usable.
pub(super) fn run(plan: Plan, background: bool, ready: impl FnOnce() -> io::Result<()>) -> Result<(), String> {
    let Plan { source, target, options, device, id, block_device } = plan;
    let say = |e: &dyn std::fmt::Display| format!("{}: {e}", source.display());
    // By the name in the cluster, as the kernel's; a volume without one by its UUID.
    let name = options.locktable.clone().filter(|t| !t.is_empty()).unwrap_or_else(|| id.name());
    let run_dir = RunDir::claim(&name, &target).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            say(&format!("already mounted here (or a volume of the same name '{name}' is)"))
        }
        _ => {
            let root = super::rundir::root();
            say(&format!("cannot keep runtime state in {}: {}", root.display(), client::words(&e)))
        }
    })?;
    if background {
        log::to_system(&run_dir.log()).map_err(|e| say(&e))?;
    } else {
        log::to_stderr();
    }
    let mut claim = None;
    if block_device {
        // Before the journal is replayed: whoever else has it mounted must not lose anything.
        claim = Some(claim_device(&source).map_err(|e| {
            say(&match e.kind() {
                io::ErrorKind::ResourceBusy => IN_USE.to_owned(),
                _ => client::words(&e),
            })
        })?);
    } else {
        let lock = if device.read_only() { device.lock_shared() } else { device.lock_exclusive() };
        lock.map_err(|_| say(&"the image is in use by another program"))?;
    }
    // lock_nolock: nobody else writes.
    let device: Arc<dyn BlockDevice> = Arc::new(ReadAhead::new(device));
    let opened = match volume::open(device, &options.open, Arc::new(SystemClock)) {
        Ok(opened) => Arc::new(opened),
        Err(e) => return Err(say(&give_up(run_dir, e.to_string()))),
    };
    let mut flags = options.flags;
    flags.set(MountFlags::RDONLY, options.open.read_only);
    let block_size = id.superblock.bsize.get();
    let disk = if block_device { Disk::Device { block_size } } else { Disk::Image { block_size } };
    let spec = MountSpec { source: source.clone(), target: target.clone(), flags, disk, transport: options.transport };
    let atime = Arc::new(AtimeSwitch::new(options.atime));
    let service = Service {
        fs: Arc::clone(&opened.fs),
        policy: policy(&options),
        atime: Arc::clone(&atime),
        nodiratime: options.flags.contains(MountFlags::NODIRATIME),
        label: id.superblock.locktable().to_vec(),
    };
    let session = match fuse::mount(&spec, service, claim) {
        Ok(session) => session,
        Err(e) => {
            let closed = finish(opened);
            let why = format!("{}{}", client::words(&e), closed.map_or_else(|e| format!("; {e}"), |()| String::new()));
            return Err(say(&give_up(run_dir, format!("cannot mount on {}: {why}", target.display()))));
        }
    };
    let (live_source, live_target) = (source.clone(), target.clone());
    let live = Live {
        opened,
        id,
        source: live_source,
        target: live_target,
        options: Mutex::new(options),
        atime,
        dlm: None,
        changing: Mutex::default(),
    };
    let live = Arc::new(live);
    let serving = control::listen(&run_dir.control(), Arc::clone(&live)).and_then(|()| {
        let keeper = Keeper::start(&live)?;
        tracing::info!(source = %source.display(), target = %target.display(), table = %name, "mounted");
        ready().map(|()| keeper)
    });
    let keeper = match serving {
        Ok(keeper) => keeper,
        // The mount must not stay without a daemon.
        Err(e) => {
            // Nobody answers any more: unmounting does not wait for us.
            drop(session);
            let undone = unmount(&target, UnmountFlags::DETACH).map_err(|e| format!(", and unmounting: {e}"));
            let closed = finish(Arc::clone(&live.opened)).map_err(|e| format!(", and closing: {e}"));
            let why = [client::words(&e), undone.err().unwrap_or_default(), closed.err().unwrap_or_default()].concat();
            return Err(say(&give_up(run_dir, why)));
        }
    };
    let served = session.serve();
    // Nothing may wait for a thaw that nobody can ask for any more.
    live.opened.fs.thaw();
    keeper.stop();
    if let Err(e) = &served {
        tracing::warn!("the FUSE session ended with an error: {e}");
    }
    let result = finish(Arc::clone(&live.opened));
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

/// What the kernel may cache. Writes that it collects come without the writer's name, as the superuser's, who may pass limits:
/// where quotas are enforced each write comes by itself, and says at once that the limit is reached.
fn policy(options: &MountOptions) -> Policy {
    Policy { writeback_cache: options.open.quota != QuotaMode::On, ..Policy::single() }
}

/// Leaves no runtime state behind when the mount failed; the reason again.
fn give_up(run_dir: RunDir, why: String) -> String {
    tracing::error!("not mounted: {why}");
    match run_dir.remove() {
        Ok(()) => why,
        Err(e) => format!("{why} (and runtime state cannot be tidied: {e})"),
    }
}

fn finish(opened: Arc<Opened>) -> Result<(), String> {
    opened.close().map_err(|e| e.to_string())
}

/// What the kernel's page cache may do for this mount. Where it does not let us choose, nothing is lost.
struct PageCache {
    /// The mount's folder below /sys/class/bdi.
    bdi: Option<PathBuf>,
    /// Bytes that may be collected before they are written: as last told to the kernel.
    limit: u64,
}

impl PageCache {
    /// Fewest and most bytes that programs may write before the kernel sends them to us; between, a quarter of the free space,
    /// so that what was collected finds room (`fuse/tight.rs`).
    const LIMITS: (u64, u64) = (64 << 20, 1 << 30);

    /// For the mount on `target`. Its number comes from the mount table: asking the directory would wait for our own answer.
    fn of(target: &Path) -> Self {
        let number = table::find(target).map(|e| e.number).unwrap_or_default();
        // On a block device the kernel gives FUSE a second one beside the disk's own.
        let bdi = [format!("/sys/class/bdi/{number}-fuseblk"), format!("/sys/class/bdi/{number}")];
        Self { bdi: bdi.iter().map(PathBuf::from).find(|dir| dir.exists()), limit: 0 }
    }

    fn set(&self, key: &str, value: u64) {
        let Some(bdi) = &self.bdi else { return };
        if let Err(e) = std::fs::write(bdi.join(key), value.to_string()) {
            tracing::debug!("{}/{key}: {e}", bdi.display());
        }
    }

    /// Cold sequential reads gain from a readahead as large as a request.
    fn raise_readahead(&self) {
        self.set("read_ahead_kb", 1024);
    }

    /// Lets programs write ahead of the disk, the less the fuller it is.
    fn limit_writes(&mut self, free_bytes: u64) {
        let limit = (free_bytes / 4).clamp(Self::LIMITS.0, Self::LIMITS.1);
        if limit.abs_diff(self.limit) > self.limit / 8 {
            self.limit = limit;
            self.set("max_bytes", limit);
        }
    }
}

/// The background work of a mount: counters, orphans, signals, the fate of a withdrawn volume.
struct Keeper {
    stopped: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
    signals: signal_hook::iterator::Handle,
}

impl Keeper {
    fn start(live: &Arc<Live>) -> io::Result<Self> {
        let mut signals = signal_hook::iterator::Signals::new([SIGTERM, SIGINT, SIGHUP])?;
        let handle = signals.handle();
        let for_signals = Arc::clone(live);
        std::thread::Builder::new().name("gfs2r-signals".into()).spawn(move || {
            for signal in &mut signals {
                if signal != SIGHUP {
                    leave(&for_signals.opened, &for_signals.target);
                }
            }
        })?;
        let stopped = Arc::new(AtomicBool::new(false));
        let (live, stop) = (Arc::clone(live), Arc::clone(&stopped));
        let thread = std::thread::Builder::new().name("gfs2r-keeper".into()).spawn(move || keep(&live, &stop))?;
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

fn keep(live: &Live, stop: &AtomicBool) {
    let opened = &live.opened;
    let mut page_cache = PageCache::of(&live.target);
    page_cache.raise_readahead();
    page_cache.limit_writes(opened.fs.space().free_bytes());
    if !opened.is_read_only() {
        match opened.fs.reclaim_orphans(stop) {
            Ok(0) => {}
            Ok(n) => tracing::info!(inodes = n, "deleted inodes that lost their last name before a crash"),
            Err(e) => tracing::warn!("looking for unlinked inodes failed: {e}"),
        }
    }
    let mut last = Instant::now();
    let mut told = false;
    while !stop.load(Ordering::Acquire) {
        std::thread::park_timeout(Duration::from_secs(1));
        page_cache.limit_writes(opened.fs.space().free_bytes());
        if let Some(cause) = opened.fs.volume().journal.withdrawn() {
            if !told {
                tracing::error!("withdrawn: {cause}");
                told = true;
            }
            if live.options.lock().on_error == OnError::Panic {
                tracing::error!("errors=panic: the daemon ends");
                std::process::abort();
            }
            continue;
        }
        let quantum = {
            let options = live.options.lock();
            Duration::from_secs(u64::from(options.statfs_quantum.max(1).min(options.quota_quantum)))
        };
        // Frozen counters would wait for the thaw, and the unmount for them.
        if last.elapsed() >= quantum && !opened.is_read_only() && !opened.fs.is_frozen() {
            last = Instant::now();
            if let Err(e) = opened.fs.sync_counters() {
                tracing::warn!("moving statfs and quota changes failed: {e}");
            }
        }
    }
}

/// Opens a block device so that neither a mount nor mkfs can claim it meanwhile.
fn claim_device(device: &Path) -> io::Result<std::fs::File> {
    let flags = rustix::fs::OFlags::EXCL.bits().cast_signed();
    std::fs::File::options().read(true).custom_flags(flags).open(device)
}

/// SIGTERM: a clean unmount. When the directory is in use it is detached, what the kernel still holds is written, the volume
/// is closed, and the programs that use it see a dead mount.
///
/// A process of its own does what concerns the mount: if we were killed while a thread of ours waits for an answer of ours, the
/// kernel would wait with it for ever.
fn leave(opened: &Arc<Opened>, target: &Path) {
    // What the kernel has collected is to be written.
    opened.fs.thaw();
    let child = std::env::current_exe().and_then(|program| {
        Command::new(program).arg0(super::umount::PROGRAM).env(super::umount::LEAVING, "1").arg(target).status()
    });
    match child {
        // The kernel tells the readers, and they the rest.
        Ok(status) if status.success() => return,
        Ok(_) => tracing::warn!("{} is in use: it was detached", target.display()),
        Err(e) => tracing::error!("{} cannot be unmounted: {e}", target.display()),
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
