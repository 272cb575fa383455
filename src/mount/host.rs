//! Several volumes on one node. A cluster knows a node by one address, behind which one lock manager answers; so the daemon
//! that mounts the first volume of a node mounts the others too. A later `mount.gfs2r` finds the node's folder taken and hands
//! its mount over through the socket in it; it waits, prints what it hears, and ends when the volume is mounted (with `fg`: when it
//! is unmounted). The daemon ends with its last volume.
//!
//! Who asks sends one line of JSON ([`Order`]) and keeps the connection: when it closes (^C), the mount is given up. The answer
//! is lines: `waiting TEXT`, then `ok` or `error WHY`; `ending` says that the daemon is about to end: begin again.

use super::cluster::Host;
use super::daemon::Terms;
use super::options::MountOptions;
use super::plan::{self, Plan};
use super::rundir::{self, NodeDir};
use super::{client, daemon};
use crate::sync::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The volumes of a node.
pub(super) struct Hosting {
    pub(super) host: Arc<Host>,
    volumes: Mutex<Volumes>,
    changed: Condvar,
}

#[derive(Default)]
struct Volumes {
    count: usize,
    /// The last has left: no more are taken.
    ending: bool,
}

/// A volume's place in the daemon.
pub(super) struct Place {
    hosting: Arc<Hosting>,
    left: AtomicBool,
}

impl Hosting {
    pub(super) fn new(host: Arc<Host>) -> Arc<Self> {
        Arc::new(Self { host, volumes: Mutex::default(), changed: Condvar::new() })
    }

    /// A place for another volume; none when the daemon is about to end.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Arc<Place>> {
        let mut volumes = self.volumes.lock();
        if volumes.ending {
            return None;
        }
        volumes.count += 1;
        Some(Arc::new(Place { hosting: Arc::clone(self), left: AtomicBool::new(false) }))
    }

    /// The last volume has left.
    pub(super) fn is_ending(&self) -> bool {
        self.volumes.lock().ending
    }

    /// Waits until the last volume has left.
    pub(super) fn wait(&self) {
        let mut volumes = self.volumes.lock();
        while !volumes.ending {
            self.changed.wait(&mut volumes);
        }
    }
}

impl Place {
    pub(super) fn host(&self) -> &Arc<Host> {
        &self.hosting.host
    }

    /// The volume is closed. True for the last one: now the daemon ends.
    pub(super) fn leave(&self) -> bool {
        if self.left.swap(true, Ordering::AcqRel) {
            return false;
        }
        let mut volumes = self.hosting.volumes.lock();
        volumes.count -= 1;
        volumes.ending |= volumes.count == 0;
        self.hosting.changed.notify_all();
        volumes.ending
    }
}

/// A mount that is handed over.
#[derive(Serialize, Deserialize)]
struct Order {
    source: PathBuf,
    target: PathBuf,
    options: String,
    sloppy: bool,
    /// Where paths mean the same.
    namespace: PathBuf,
}

/// Our mount namespace.
fn namespace() -> io::Result<PathBuf> {
    std::fs::read_link("/proc/self/ns/mnt")
}

/// Longest order.
const ORDER_MAX: u64 = 1 << 20;
/// How often, and how many times, a daemon is looked for that is starting or ending.
const LOOK: Duration = Duration::from_millis(100);
const LOOKS: u32 = 300;

/// Who mounts: us, as the node that the folder stands for, or the daemon that has it (and has done it).
pub(super) enum Role {
    /// We.
    Host(NodeDir),
    /// It has been mounted, with this folder for its state.
    HandedOver(Option<PathBuf>),
}

/// Becomes the node, or has the daemon mount that is it. `words`: the mount's options as they were given.
pub(super) fn find_role(plan: &Plan, who: &str, words: (&str, bool)) -> Result<Role, String> {
    for _ in 0..LOOKS {
        match NodeDir::claim(who) {
            Ok(dir) => return Ok(Role::Host(dir)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(format!("cannot keep runtime state in {}: {e}", rundir::root().display())),
        }
        match hand_over(plan, &NodeDir::control_of(who), words) {
            Ok(Some(Ok(()))) => return Ok(Role::HandedOver(rundir::find(&plan.target))),
            Ok(Some(Err(why))) => return Err(why),
            // It is starting, or ending.
            Ok(None) => std::thread::sleep(LOOK),
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                std::thread::sleep(LOOK);
            }
            Err(e) => return Err(format!("the daemon of node {who}: {}", client::words(&e))),
        }
    }
    Err(format!("the daemon of node {who} does not answer"))
}

/// How the mount ended; `None` when the daemon is about to end.
fn hand_over(plan: &Plan, socket: &Path, (options, sloppy): (&str, bool)) -> io::Result<Option<Result<(), String>>> {
    let mut stream = UnixStream::connect(socket)?;
    let mut options = options.to_owned();
    if let Some(file) = &plan.options.cluster.file {
        // The daemon works elsewhere.
        options = format!("{options},cluster={}", file.display());
    }
    let (source, target) = (plan.source.clone(), plan.target.clone());
    let order = Order { source, target, options, sloppy, namespace: namespace()? };
    writeln!(stream, "{}", serde_json::to_string(&order)?)?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("waiting", what) => eprintln!("mount.gfs2r: {}: {what}", plan.source.display()),
            ("ok", _) => return Ok(Some(Ok(()))),
            ("error", why) => return Ok(Some(Err(why.to_owned()))),
            ("ending", _) => return Ok(None),
            _ => return Err(io::Error::other("an answer that cannot be read")),
        }
    }
    Err(io::Error::other("it ended without an answer"))
}

/// Takes mounts until the process ends.
pub(super) fn listen(path: &Path, hosting: Arc<Hosting>) -> io::Result<()> {
    let listener: UnixListener = rundir::listen(path)?;
    std::thread::Builder::new().name("gfs2r-host".into()).spawn(move || {
        for stream in listener.incoming() {
            let hosting = Arc::clone(&hosting);
            let served = stream.and_then(|stream| {
                let thread = std::thread::Builder::new().name("gfs2r-volume".into());
                thread.spawn(move || {
                    if let Err(e) = take(&stream, &hosting) {
                        tracing::debug!("a mount that was handed over: {e}");
                    }
                })
            });
            if let Err(e) = served {
                tracing::warn!("a mount that was handed over: {e}");
            }
        }
    })?;
    Ok(())
}

/// Mounts and serves what another process wants to have mounted.
fn take(stream: &UnixStream, hosting: &Arc<Hosting>) -> io::Result<()> {
    let say = |word: &str, what: &str| writeln!(&mut &*stream, "{word} {}", what.replace('\n', " "));
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut line = String::new();
    BufReader::new(Read::take(stream, ORDER_MAX)).read_line(&mut line)?;
    let order: Order = serde_json::from_str(&line)?;
    let Some(place) = hosting.enter() else { return say("ending", "") };
    let planned = match order.namespace == namespace()? {
        true => MountOptions::parse(&order.options, order.sloppy)
            .map_err(|e| e.to_string())
            .and_then(|options| plan::plan(&order.source, &order.target, options)),
        false => Err(format!(
            "this node's daemon (pid {}) runs in another mount namespace (mount there, or as another node)",
            std::process::id()
        )),
    };
    let (plan, run_dir) = match planned.and_then(|plan| daemon::claim(&plan).map(|run_dir| (plan, run_dir))) {
        Ok(both) => both,
        Err(why) => {
            place.leave();
            return say("error", &why);
        }
    };
    stream.set_read_timeout(None)?;
    let (stop, mounted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (stops, is_mounted, mut closes) = (Arc::clone(&stop), Arc::clone(&mounted), stream.try_clone()?);
    std::thread::Builder::new().name("gfs2r-asker".into()).spawn(move || {
        // Nothing is said any more: this ends when the other one goes.
        let _gone = closes.read(&mut [0]);
        if !is_mounted.load(Ordering::Acquire) {
            stops.store(true, Ordering::Release);
        }
    })?;
    let waiting = |what: Option<&str>| {
        if let Some(what) = what {
            // Whoever asked may have gone; then this is given up.
            let _gone = say("waiting", what);
        }
    };
    let ready = || {
        mounted.store(true, Ordering::Release);
        say("ok", "")
    };
    let served =
        daemon::serve_volume(plan, run_dir, Some(place), &Terms { stop: &stop, waiting: &waiting, front: None }, ready);
    match served {
        Err(why) if !mounted.load(Ordering::Acquire) => say("error", &why),
        _ => Ok(()),
    }
}
