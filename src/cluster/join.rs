//! [`Cluster`]: entering the lockspace, serving, leaving.

use super::Recovery;
use super::control::{Event, Refusal};
use super::core::Core;
use super::direct::{Direct, Got};
use super::freeze;
use super::name;
use super::recover;
use super::service::{LockSpace, Node};
use super::withdraw::{self, Parting};
use crate::error::{Error, Result};
use crate::glock::LockManager;
use crate::ids::Jid;
use crate::sync::{Instant, Mutex, mpsc, thread};
use lockclient::flags::LockFlags;
use lockclient::mode::Mode;
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// How to join.
#[derive(Clone, Debug, Default)]
pub struct JoinOptions {
    /// Without a journal: neither writes nor replays.
    pub spectator: bool,
    /// Set to give up waiting (a signal came).
    pub stop: Arc<AtomicBool>,
}

/// As what this node mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounter {
    /// Alone: it replays every journal before others may come.
    First,
    /// Others are mounted; all journals but its own are their affair.
    Joining,
    /// Without a journal.
    Spectator,
}

/// Why a node cannot mount.
#[derive(Debug)]
pub enum JoinError {
    /// The lockspace cannot be entered.
    Lockspace(lockclient::node::JoinError),
    /// The members could not agree on a journal for us.
    NoSlot,
    /// Mounting is disabled for the whole cluster.
    Disabled,
    /// MOUNTED and CONTROL contradict one another.
    Contended,
    /// `stop` was set.
    Interrupted,
    /// The lockspace was lost meanwhile.
    Lost,
    /// No thread.
    Thread(std::io::Error),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lockspace(e) => write!(f, "cannot enter the lockspace: {e}"),
            Self::NoSlot => f.write_str("the members of the lockspace do not agree on a journal for this node"),
            Self::Disabled => f.write_str("mounting is disabled in this cluster"),
            Self::Contended => f.write_str("another node is the first mounter and does not hold the control lock"),
            Self::Interrupted => f.write_str("interrupted"),
            Self::Lost => f.write_str("the lockspace was lost while mounting"),
            Self::Thread(e) => write!(f, "cannot start a thread: {e}"),
        }
    }
}
impl std::error::Error for JoinError {}

impl From<Refusal> for JoinError {
    fn from(why: Refusal) -> Self {
        match why {
            Refusal::Disabled => Self::Disabled,
            Refusal::Contended => Self::Contended,
            Refusal::Interrupted => Self::Interrupted,
            Refusal::Gone => Self::Lost,
        }
    }
}

/// This node's membership in the cluster of one filesystem.
pub struct Cluster {
    core: Arc<Core>,
    jid: Jid,
    mounter: Mounter,
    /// Until the lockspace is left.
    node: Mutex<Option<Arc<Node>>>,
    control: Mutex<Option<thread::JoinHandle<()>>>,
    freezer: Mutex<Option<thread::JoinHandle<()>>>,
    /// How our withdrawal ended, when it has.
    parting: Mutex<Option<Parting>>,
}

/// Longest time that the others need to go on without us.
const LEAVING: Duration = Duration::from_secs(60);

impl Cluster {
    /// Enters the lockspace `fsname` and waits until this node may mount. The locks of a mount are held from here on; MOUNT
    /// until [`Cluster::serve`]. Waits; not to be called where asynchronous tasks run.
    pub fn join(node: &Arc<Node>, fsname: &str, options: &JoinOptions) -> Result<Arc<Self>, JoinError> {
        let core = Core::new(options.spectator).map_err(JoinError::Thread)?;
        let client: Arc<dyn lockclient::node::space::LockClient> = Arc::clone(&core) as _;
        let stop = || options.stop.load(Ordering::Relaxed);
        let space = wait_for(node.join(fsname, client, |_| {}), &stop).ok_or(JoinError::Interrupted)?;
        let space = space.map_err(JoinError::Lockspace)?;
        core.dlm.open(space);
        let control = {
            let core = Arc::clone(&core);
            thread::Builder::new().name("cluster control".into()).spawn(move || recover::run(&core))
        };
        let mut cluster = Self {
            core,
            jid: Jid(0),
            mounter: Mounter::Spectator,
            node: Mutex::new(Some(Arc::clone(node))),
            control: Mutex::new(None),
            freezer: Mutex::new(None),
            parting: Mutex::new(None),
        };
        let joined = match control {
            Ok(thread) => {
                *cluster.control.lock() = Some(thread);
                cluster.mount(options)
            }
            Err(e) => Err(JoinError::Thread(e)),
        };
        if let Err(why) = joined {
            cluster.leave();
            return Err(why);
        }
        Ok(Arc::new(cluster))
    }

    fn mount(&mut self, options: &JoinOptions) -> Result<(), JoinError> {
        let core = Arc::clone(&self.core);
        let flag = Arc::clone(&options.stop);
        let stop = || flag.load(Ordering::Relaxed);
        let Some(jid) = core.wait_for_jid(&stop) else {
            return Err(if stop() { JoinError::Interrupted } else { JoinError::NoSlot });
        };
        self.jid = Jid(jid);
        core.feed(Event::Mount);
        let first = core.wait_for_mount(&stop)?;
        self.mounter = match (options.spectator, first) {
            (true, _) => Mounter::Spectator,
            (false, true) => Mounter::First,
            (false, false) => Mounter::Joining,
        };
        let taken = |got: Result<Got>| match got {
            Ok(Got::Granted) => Ok(()),
            Ok(_) => Err(JoinError::Interrupted),
            Err(_) => Err(JoinError::Lost),
        };
        let none = LockFlags::empty();
        taken(core.mount.set(&core.dlm, Mode::Ex, none, None, &stop))?;
        taken(core.live.set(&core.dlm, Mode::Pr, none, None, &stop))?;
        if !options.spectator {
            let journal = core.dlm.add(|token| Direct::new(name::journal(self.jid), token, false, |_| {}));
            let got = journal.set(&core.dlm, Mode::Ex, none, None, &stop);
            // Set once, here.
            let _first = core.journal.set(journal);
            taken(got)?;
        }
        taken(core.join_freeze(&stop))?;
        tracing::info!("journal {jid}, {:?}", self.mounter);
        Ok(())
    }

    /// Grants the glocks of this filesystem.
    pub fn manager(&self) -> Arc<dyn LockManager> {
        Arc::clone(&self.core.dlm) as _
    }
    /// The lockspace, for what is not a glock (POSIX locks, a dump).
    pub fn space(&self) -> Option<&LockSpace> {
        self.core.dlm.space()
    }
    /// Our journal (a spectator's slot has one too, which it does not use).
    pub fn jid(&self) -> Jid {
        self.jid
    }
    /// As what we mount.
    pub fn mounter(&self) -> Mounter {
        self.mounter
    }
    /// A node died while we mounted, and nobody replayed its journal: grants were refused. The mount is to begin again.
    pub fn was_disturbed(&self) -> bool {
        self.core.disturbed.load(Ordering::Acquire)
    }
    /// We have withdrawn or were expelled.
    pub fn is_lost(&self) -> bool {
        self.core.withdrawn.load(Ordering::Acquire)
    }

    /// The first mounter has replayed all journals: others may mount. Waits until they have been told.
    pub fn first_done(&self) -> Result<()> {
        if self.mounter != Mounter::First {
            return Ok(());
        }
        self.core.feed(Event::FirstDone);
        if self.core.wait_for_published() { Ok(()) } else { Err(Error::Withdrawn) }
    }

    /// The volume is open: from now on journals of dead nodes are replayed and freezes followed, and others may mount.
    pub fn serve(&self, recovery: Arc<dyn Recovery>) -> Result<()> {
        self.core.set_recovery(Arc::clone(&recovery));
        if self.is_lost() {
            // It happened before there was anybody to tell.
            recovery.lost();
            return Err(Error::Withdrawn);
        }
        self.first_done()?;
        let core = Arc::clone(&self.core);
        let thread = thread::Builder::new().name("cluster freeze".into());
        *self.freezer.lock() = Some(thread.spawn(move || freeze::run(&core, &recovery))?);
        self.core.mount.unlock(&self.core.dlm);
        Ok(())
    }

    /// Freezes the filesystem on all nodes, this one last. Waits for them.
    pub fn freeze(&self) -> Result<()> {
        self.core.freeze_all()
    }
    /// Thaws what [`Cluster::freeze`] froze.
    pub fn thaw(&self) -> Result<()> {
        self.core.thaw_all()
    }

    /// Nothing may be written any more and the journal is dirty: others shall replay it. Waits for about ten seconds, not to be
    /// called with a lock held that [`Recovery::is_clean`] or [`Recovery::lost`] needs. Whoever calls it again hears how the first
    /// call ended. Says [`Parting::Replayed`] at once when the cluster has lost us: it has seen to our journal. After [`Parting::Unreplayed`] the process has to end.
    pub fn withdraw(&self) -> Parting {
        let mut ended = self.parting.lock();
        if let Some(parting) = *ended {
            return parting;
        }
        self.core.freeze.stop();
        let parting = withdraw::withdraw(&self.core).unwrap_or(Parting::Replayed);
        *ended = Some(parting);
        if parting == Parting::Replayed {
            self.part();
        }
        parting
    }

    /// Leaves the lockspace, with all locks; to be called when the volume was closed in order and nothing waits to be written.
    /// Waits until the others go on without us, and for a replay that is under way here. Does nothing after a withdrawal: with
    /// an unreplayed journal nobody leaves.
    pub fn leave(&self) {
        if self.parting.lock().is_none() {
            self.part();
        }
    }

    fn part(&self) {
        self.core.leaving.store(true, Ordering::Release);
        self.core.feed(Event::Unmount);
        self.stop_threads();
        let node = self.node.lock().take();
        if let (Some(node), Some(space)) = (node, self.core.dlm.space()) {
            self.core.dlm.close();
            let until = Instant::now() + LEAVING;
            if wait_for(node.release(space), &|| Instant::now() > until).is_none() {
                tracing::error!("the other nodes do not let us go");
            }
        }
    }

    fn stop_threads(&self) {
        self.core.freeze.stop();
        self.core.stop_control();
        for thread in [self.freezer.lock().take(), self.control.lock().take()].into_iter().flatten() {
            // A replay that finds a contradiction may bring us here itself.
            if thread.thread().id() != thread::current().id() && thread.join().is_err() {
                tracing::error!("a thread of the cluster has panicked");
            }
        }
    }
}

#[cfg(test)]
impl Cluster {
    /// The node dies: lets go of it, so that it can be dropped.
    pub(super) fn let_go_of_node(&self) {
        self.node.lock().take();
    }
    pub(super) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.core.freeze.stop();
        self.core.stop_control();
    }
}

/// Waits for something that needs no runtime in this thread; `None` when `stop` says so.
fn wait_for<F: Future>(future: F, stop: &dyn Fn() -> bool) -> Option<F::Output> {
    struct Bell(mpsc::SyncSender<()>);
    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            // Full: it rings already. Closed: nobody waits any more.
            let _rung = self.0.try_send(());
        }
    }
    let (bell, rung) = mpsc::sync_channel(1);
    let waker = Waker::from(Arc::new(Bell(bell)));
    let mut future = pin!(future);
    while !stop() {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(output);
        }
        // Rung or not, it does no harm to look.
        let _rung = rung.recv_timeout(Duration::from_millis(100));
    }
    None
}
