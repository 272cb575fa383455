//! The life of a mount.

use super::cluster::{self, ForPeers, Host, Joined};
use super::host::{self, Hosting, Place, Role};
use super::keeper::Keeper;
use super::live::Live;
use super::options::MountOptions;
use super::plan::{Front, Plan};
use super::rundir::{self, RunDir};
use super::{client, control, log, metrics};
use crate::clock::SystemClock;
use crate::device::{BlockDevice, ReadAhead};
use crate::fuse::{self, AtimeSwitch, Disk, MountSpec, Policy, Service};
use crate::quota::QuotaMode;
use crate::sync::Mutex;
use crate::volume::{self, Opened};
use rustix::mount::{MountFlags, UnmountFlags, unmount};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How long whoever unmounts waits for the last user of a volume in a daemon that goes on with others.
const LETTING_GO: Duration = Duration::from_secs(5);

/// Mounts and serves until unmounted. `ready` is called once the mount is usable. `words`: the options as they were given.
pub(super) fn run(
    plan: Plan,
    front: Option<Front<'_>>,
    words: (&str, bool),
    background: bool,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<(), String> {
    let source = plan.source.clone();
    let say = |e: &dyn std::fmt::Display| format!("{}: {e}", source.display());
    let stop = Arc::new(AtomicBool::new(false));
    let waiting = |what: Option<&str>| {
        if let Some(what) = what {
            eprintln!("mount.gfs2r: {}: {what}", source.display());
        }
    };
    let terms = Terms { stop: &stop, waiting: &waiting, front };
    let start_log = |file: &Path| {
        if background {
            return log::to_system(file);
        }
        log::to_stderr();
        Ok(())
    };
    let Some(who) = plan.cluster.as_ref().map(cluster::Plan::who) else {
        let run_dir = claim(&plan)?;
        start_log(&run_dir.log()).map_err(|e| say(&e))?;
        return serve_volume(plan, run_dir, None, &terms, ready);
    };
    let dir = match host::find_role(&plan, &who, words).map_err(|why| why_of(&source, why))? {
        Role::Host(dir) => dir,
        Role::HandedOver(folder) => {
            ready().map_err(|e| say(&e))?;
            return match folder.map(rundir::end_of) {
                Some(end) if !background => end.and_then(rundir::End::wait).map(|_| ()).map_err(|e| say(&e)),
                _ => Ok(()),
            };
        }
    };
    start_log(&dir.log()).map_err(|e| say(&e))?;
    // Read by `find_role` before; still there.
    let part = plan.cluster.as_ref().ok_or("no cluster")?;
    let hosting = Hosting::new(Host::start(part).map_err(|e| say(&e))?);
    let place = hosting.enter().ok_or("the daemon ends")?;
    host::listen(&dir.control(), Arc::clone(&hosting)).map_err(|e| say(&client::words(&e)))?;
    let served = claim(&plan).and_then(|run_dir| serve_volume(plan, run_dir, Some(Arc::clone(&place)), &terms, ready));
    place.leave();
    if let (Err(why), true) = (&served, !hosting.is_ending()) {
        // Other volumes have come meanwhile: this process goes on with them.
        eprintln!("mount.gfs2r: {why}");
        if background && let Err(e) = fail_and_detach() {
            tracing::debug!("telling that the mount failed: {e}");
        }
    }
    hosting.wait();
    hosting.host.end();
    if let Err(e) = dir.remove() {
        tracing::warn!("runtime state cannot be tidied: {e}");
    }
    served
}

/// With what it is about, unless it is said already.
fn why_of(source: &Path, why: String) -> String {
    let prefix = source.display().to_string();
    if why.starts_with(&prefix) { why } else { format!("{prefix}: {why}") }
}

/// The runtime folder of a volume.
pub(super) fn claim(plan: &Plan) -> Result<RunDir, String> {
    let say = |e: &dyn std::fmt::Display| format!("{}: {e}", plan.source.display());
    let name = name_of(plan);
    RunDir::claim(&name, &plan.target).map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            say(&format!("already mounted here (or a volume of the same name '{name}' is)"))
        }
        _ => {
            let root = super::rundir::root();
            say(&format!("cannot keep runtime state in {}: {}", root.display(), client::words(&e)))
        }
    })
}

/// By the name in the cluster, as the kernel's; a volume without one by its UUID.
fn name_of(plan: &Plan) -> String {
    plan.options.locktable.clone().filter(|t| !t.is_empty()).unwrap_or_else(|| plan.id.name())
}

/// SIGINT and SIGTERM set a flag as long as this lives.
struct Stops(Vec<signal_hook::SigId>);

impl Stops {
    fn watch(stop: &Arc<AtomicBool>) -> io::Result<Self> {
        let all = [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM].into_iter();
        all.map(|signal| signal_hook::flag::register(signal, Arc::clone(stop))).collect::<io::Result<_>>().map(Self)
    }
}

impl Drop for Stops {
    fn drop(&mut self) {
        for id in self.0.drain(..) {
            // It was registered above.
            let _was_there = signal_hook::low_level::unregister(id);
        }
    }
}

/// How a volume is mounted.
pub(super) struct Terms<'a> {
    /// Set to give up a mount that waits.
    pub(super) stop: &'a Arc<AtomicBool>,
    /// Told what it waits for, and when that is over.
    pub(super) waiting: &'a (dyn Fn(Option<&str>) + Sync),
    /// What stands in front of the disk.
    pub(super) front: Option<Front<'a>>,
}

/// A volume's life, from its plan to its end.
pub(super) fn serve_volume(
    plan: Plan,
    run_dir: RunDir,
    place: Option<Arc<Place>>,
    terms: &Terms<'_>,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<(), String> {
    let served = mount_and_serve(plan, run_dir, place.as_ref(), terms, ready);
    let is_last = place.is_none_or(|place| place.leave());
    let Closed { run_dir, volume } = served?;
    if is_last {
        // The process ends, and with it the lock of the folder, for which whoever unmounts waits.
        std::mem::forget(run_dir);
        return Ok(());
    }
    // The device is to be closed when whoever unmounts hears of it.
    let until = Instant::now() + LETTING_GO;
    while volume.strong_count() > 0 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    run_dir.release().map_err(|e| e.to_string())
}

/// A volume that is closed in order: its folder, whose lock is still held, and whoever may still use it.
struct Closed {
    run_dir: RunDir,
    volume: Weak<Opened>,
}

/// From a plan to the end of what is mounted.
fn mount_and_serve(
    plan: Plan,
    run_dir: RunDir,
    place: Option<&Arc<Place>>,
    terms: &Terms<'_>,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<Closed, String> {
    let (source, target, name) = (plan.source.clone(), plan.target.clone(), name_of(&plan));
    let say = |e: &dyn std::fmt::Display| format!("{}: {e}", source.display());
    if let Some(cluster) = &plan.cluster {
        run_dir.share_log(&cluster.who()).map_err(|e| say(&e))?;
    }
    let stops = Stops::watch(terms.stop).map_err(|e| say(&e))?;
    let told = terms.waiting;
    let wait = |what: Option<&str>| {
        run_dir.set_waiting(what, &source);
        if let Some(what) = what {
            tracing::warn!("{}: {what}", source.display());
        }
        told(what);
    };
    let terms = Terms { waiting: &wait, ..*terms };
    let (session, live) = match bring_up(plan, place, &terms) {
        Ok(up) => up,
        Err(e) => return Err(say(&give_up(run_dir, e))),
    };
    let serving = control::listen(&run_dir.control(), Arc::clone(&live)).and_then(|listener| {
        if let Some(address) = live.options.lock().metrics {
            metrics::serve(address, &live)
                .map_err(|e| io::Error::other(format!("metrics={address}: {}", client::words(&e))))?;
        }
        let keeper = Keeper::start(&live)?;
        drop(stops);
        if terms.stop.load(Ordering::Acquire) {
            return Err(io::Error::other("interrupted"));
        }
        tracing::info!(source = %source.display(), target = %target.display(), table = %name, "mounted");
        ready().map(|()| (keeper, listener))
    });
    let (keeper, listener) = match serving {
        Ok(keeper) => keeper,
        Err(e) => {
            let why = undo(session, &live, &client::words(&e));
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
    let result = live.close().map_err(|e| e.to_string());
    // Now the disk is clean: whoever waits in umount(2) may go on.
    drop(served);
    drop(listener);
    let volume = Arc::downgrade(&live.opened);
    drop(live);
    tracing::info!(source = %source.display(), "unmounted");
    match result {
        Ok(()) => {
            if let Err(e) = run_dir.remove() {
                tracing::warn!("runtime state cannot be tidied: {e}");
            }
            Ok(Closed { run_dir, volume })
        }
        Err(e) => {
            tracing::error!("{e}");
            if let Err(e) = run_dir.leave_error(&e) {
                tracing::warn!("runtime state cannot be tidied: {e}");
            }
            if place.is_none() {
                std::mem::forget(run_dir);
            }
            Err(say(&e))
        }
    }
}

/// From a plan to a mounted filesystem whose requests wait to be served.
fn bring_up(plan: Plan, place: Option<&Arc<Place>>, terms: &Terms<'_>) -> Result<(fuse::Session, Arc<Live>), String> {
    // Before the journal is replayed: whoever else has it mounted must not lose anything.
    let claim = plan.claim()?;
    let Plan { source, target, options, device, id, block_device, cluster } = plan;
    let device: Arc<dyn BlockDevice> = Arc::new(device);
    let device = terms.front.map_or(Arc::clone(&device), |front| front(device));
    let (opened, joined) = match cluster {
        // Nobody else writes.
        None => {
            let device = Arc::new(ReadAhead::new(device));
            let opened = volume::open(device, &options.open, Arc::new(SystemClock)).map_err(|e| e.to_string())?;
            (opened, None)
        }
        Some(cluster) => {
            let place = place.ok_or("no lock manager")?;
            let join = || place.host().join(&cluster, options.open.spectator, terms.stop, terms.waiting);
            let (opened, joined) = open_shared(&join, device, &options)?;
            if !options.cluster.local_flocks {
                joined.keep_plocks(&opened);
            }
            (opened, Some(joined))
        }
    };
    let journals = opened.journals.into();
    let opened = Arc::new(opened);
    let mut flags = options.flags;
    flags.set(MountFlags::RDONLY, options.open.read_only);
    let block_size = id.superblock.bsize.get();
    // Several nodes of a cluster may run on this machine, and the kernel takes a block device for one filesystem only.
    let disk = if block_device && joined.is_none() { Disk::Device { block_size } } else { Disk::Image { block_size } };
    let spec = MountSpec { source: source.clone(), target: target.clone(), flags, disk, transport: options.transport };
    let atime = Arc::new(AtimeSwitch::new(options.atime));
    let service = Service {
        fs: Arc::clone(&opened.fs),
        policy: policy(&options, joined.is_some()),
        atime: Arc::clone(&atime),
        nodiratime: options.flags.contains(MountFlags::NODIRATIME),
        label: id.superblock.locktable().to_vec(),
    };
    let live = Live {
        opened,
        id,
        source,
        target: target.clone(),
        options: Mutex::new(options),
        atime,
        changing: Mutex::default(),
        journals,
        dlm: joined.as_ref().and_then(Joined::dlm),
        // A crash may have left some.
        orphans: Arc::new(AtomicBool::new(true)),
        joined: Mutex::new(joined),
        place: place.cloned(),
    };
    match fuse::mount(&spec, service, claim) {
        Ok(session) => {
            let part = live.cluster();
            let (opened, orphans) = (Arc::downgrade(&live.opened), Arc::clone(&live.orphans));
            let for_peers = ForPeers { opened, orphans };
            match part.map_or(Ok(()), |part| part.serve(Arc::new(for_peers))) {
                Ok(()) => Ok((session, Arc::new(live))),
                Err(e) => Err(undo(session, &live, &e.to_string())),
            }
        }
        Err(e) => {
            let closed = live.close().map_or_else(|e| format!("; {e}"), |()| String::new());
            Err(format!("cannot mount on {}: {}{closed}", target.display(), client::words(&e)))
        }
    }
}

/// The mount must not stay without a daemon. What went wrong, and what else did.
fn undo(session: fuse::Session, live: &Live, why: &str) -> String {
    // Nobody answers any more: unmounting does not wait for us.
    drop(session);
    let undone = unmount(&live.target, UnmountFlags::DETACH).map_err(|e| format!(", and unmounting: {e}"));
    let closed = live.close().map_err(|e| format!(", and closing: {e}"));
    [why.to_owned(), undone.err().unwrap_or_default(), closed.err().unwrap_or_default()].concat()
}

/// Joins the cluster and opens the volume as one of many; again from the start when another node dies meanwhile.
fn open_shared(
    join: &dyn Fn() -> Result<Joined, String>,
    device: Arc<dyn BlockDevice>,
    options: &MountOptions,
) -> Result<(Opened, Joined), String> {
    loop {
        let joined = join()?;
        let part = &joined.cluster;
        let open = volume::OpenOptions { jid: part.jid(), ..options.open.clone() };
        let clock = Arc::new(SystemClock);
        match volume::open_shared(Arc::clone(&device), &open, clock, part.manager(), joined.mounter()) {
            Ok(opened) => return Ok((opened, joined)),
            Err(e) => {
                let disturbed = joined.cluster.was_disturbed();
                joined.leave();
                if !disturbed {
                    return Err(e.to_string());
                }
                tracing::info!("another node died while we mounted: beginning again ({e})");
            }
        }
    }
}

/// What the kernel may cache. Writes that it collects come without the writer's name, as the superuser's, who may pass limits:
/// where quotas are enforced each write comes by itself, and says at once that the limit is reached.
fn policy(options: &MountOptions, shared: bool) -> Policy {
    if shared {
        return Policy { locks: !options.cluster.local_flocks, ..Policy::shared() };
    }
    Policy { writeback_cache: options.open.quota != QuotaMode::On, ..Policy::single() }
}

/// Leaves no runtime state behind when the mount failed; the reason again.
fn give_up(run_dir: RunDir, why: String) -> String {
    tracing::error!("not mounted: {why}");
    match run_dir.remove().and_then(|()| run_dir.release()) {
        Ok(()) => why,
        Err(e) => format!("{why} (and runtime state cannot be tidied: {e})"),
    }
}

/// SIGTERM: a clean unmount. When the directory is in use it is detached, what the kernel still holds is written, the volume
/// is closed, and the programs that use it see a dead mount.
///
/// A process of its own does what concerns the mount: if we were killed while a thread of ours waits for an answer of ours, the
/// kernel would wait with it for ever.
pub(super) fn leave(live: &Live) {
    // What the kernel has collected is to be written.
    live.opened.fs.thaw();
    let child = std::env::current_exe().and_then(|program| {
        Command::new(program).arg0(super::umount::PROGRAM).env(super::umount::LEAVING, "1").arg(&live.target).status()
    });
    match child {
        // The kernel tells the readers, and they the rest.
        Ok(status) if status.success() => return,
        Ok(_) => tracing::warn!("{} is in use: it was detached", live.target.display()),
        Err(e) => tracing::error!("{} cannot be unmounted: {e}", live.target.display()),
    }
    let closed = live.close();
    if let Err(e) = &closed {
        tracing::error!("closing the volume: {e}");
    }
    if let Some(folder) = rundir::find(&live.target).filter(|_| closed.is_ok())
        && let Err(e) = std::fs::remove_dir_all(folder)
    {
        tracing::warn!("runtime state cannot be tidied: {e}");
    }
    if let Some(place) = &live.place {
        if !place.leave() {
            // Other volumes are served still.
            return;
        }
        place.host().end();
    }
    std::process::exit(i32::from(closed.is_err()));
}

/// Says on stdout that the mount is usable, then lets go of the terminal.
pub(super) fn detach() -> io::Result<()> {
    // From here on the daemon lives longer than who started it.
    rustix::process::set_parent_process_death_signal(None)?;
    let_go(b"ok\n")
}

/// Says on stdout that the mount has failed, then lets go of the terminal.
fn fail_and_detach() -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(None)?;
    let_go(b"failed\n")
}

fn let_go(word: &[u8]) -> io::Result<()> {
    io::stdout().write_all(word)?;
    io::stdout().flush()?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}
