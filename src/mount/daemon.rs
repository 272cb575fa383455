//! The life of a mount.

use super::cluster::{self, ForPeers, Joined};
use super::keeper::Keeper;
use super::live::Live;
use super::options::MountOptions;
use super::plan::{Front, Plan};
use super::rundir::RunDir;
use super::{client, control, log};
use crate::clock::SystemClock;
use crate::device::{BlockDevice, ReadAhead};
use crate::fuse::{self, AtimeSwitch, Disk, MountSpec, Policy, Service};
use crate::quota::QuotaMode;
use crate::sync::Mutex;
use crate::volume::{self, Opened};
use rustix::mount::{MountFlags, UnmountFlags, unmount};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Mounts and serves until unmounted. `ready` is called once the mount is usable.
pub(super) fn run(
    plan: Plan,
    front: Option<Front<'_>>,
    background: bool,
    ready: impl FnOnce() -> io::Result<()>,
) -> Result<(), String> {
    let (source, target) = (plan.source.clone(), plan.target.clone());
    let say = |e: &dyn std::fmt::Display| format!("{}: {e}", source.display());
    // By the name in the cluster, as the kernel's; a volume without one by its UUID.
    let name = plan.options.locktable.clone().filter(|t| !t.is_empty()).unwrap_or_else(|| plan.id.name());
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
    let (session, live) = match bring_up(plan, front) {
        Ok(up) => up,
        Err(e) => return Err(say(&give_up(run_dir, e))),
    };
    let serving = control::listen(&run_dir.control(), Arc::clone(&live)).and_then(|()| {
        let keeper = Keeper::start(&live)?;
        tracing::info!(source = %source.display(), target = %target.display(), table = %name, "mounted");
        ready().map(|()| keeper)
    });
    let keeper = match serving {
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

/// From a plan to a mounted filesystem whose requests wait to be served.
fn bring_up(plan: Plan, front: Option<Front<'_>>) -> Result<(fuse::Session, Arc<Live>), String> {
    // Before the journal is replayed: whoever else has it mounted must not lose anything.
    let claim = plan.claim()?;
    let Plan { source, target, options, device, id, block_device, cluster } = plan;
    let device: Arc<dyn BlockDevice> = Arc::new(device);
    let device = front.map_or(Arc::clone(&device), |front| front(device));
    let (opened, joined) = match cluster {
        // Nobody else writes.
        None => {
            let device = Arc::new(ReadAhead::new(device));
            let opened = volume::open(device, &options.open, Arc::new(SystemClock)).map_err(|e| e.to_string())?;
            (opened, None)
        }
        Some(cluster) => {
            let waiting = |what: &str| eprintln!("mount.gfs2r: {}: {what}", source.display());
            let (opened, joined) = open_shared(&cluster, device, &options, &waiting)?;
            if !options.cluster.local_flocks {
                joined.keep_plocks(&opened);
            }
            (opened, Some(joined))
        }
    };
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
        dlm: joined.as_ref().and_then(Joined::dlm),
        // A crash may have left some.
        orphans: Arc::new(AtomicBool::new(true)),
        joined: Mutex::new(joined),
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
    cluster: &cluster::Plan,
    device: Arc<dyn BlockDevice>,
    options: &MountOptions,
    waiting: &(dyn Fn(&str) + Sync),
) -> Result<(Opened, Joined), String> {
    loop {
        let mut joined = cluster.join(options.open.spectator, waiting)?;
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
    match run_dir.remove() {
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
    if let Err(e) = live.close() {
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
