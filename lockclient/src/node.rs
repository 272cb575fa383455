//! A running node: drives the pure machines. One task, the driver, owns the membership and times; each lockspace's
//! engine stands behind a lock of its own ([`space`]), and so does each conversation with a peer ([`links`]). An operation
//! on a resource mastered here is carried out in the caller's thread, without a detour; one on a resource mastered
//! elsewhere is sent by the caller's thread, and its answer is taken in by the thread that reads it.
//!
//! Everything an engine wants done leaves it, in its order, while its lock is held: frames into the conversations,
//! callbacks into the lockspace's queue ([`teller`]). Clients are never called from inside a call of theirs.

mod control;
mod links;
pub mod plocks;
pub mod space;
mod teller;
#[cfg(test)]
mod tests;
mod trust;

use crate::clock::Clock;
use crate::engine::Config;
use crate::fence::{FenceDevice, fence};
use crate::ids::NodeId;
use crate::inspect::NodeView;
use crate::membership::{Membership, MembershipAction, MembershipEvent};
use crate::recovery::Start;
use crate::tls::{Tls, TlsFiles};
use crate::transport::{Counters, Settings, Strangers, Transport, TransportEvent, lines};
use control::Order;
use links::Links;
pub use links::PeerStatus;
use space::{Callback, LockClient, LockSpace, Shared};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A node and its place in the cluster.
pub struct NodeConfig {
    /// This node.
    pub node: NodeId,
    /// Its own address, for TCP and UDP.
    pub address: SocketAddr,
    /// The other nodes' addresses.
    pub peers: BTreeMap<NodeId, SocketAddr>,
    /// Who is in the cluster.
    pub membership: Box<dyn Membership>,
    /// How to fence each node; one that is not listed cannot be fenced.
    pub fence: BTreeMap<NodeId, FenceDevice>,
    /// With this, the nodes speak TLS with each other; no kernel can take part then.
    pub tls: Option<TlsFiles>,
}

/// Why a lockspace cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The node has been shut down.
    #[error("the node has been shut down")]
    Shutdown,
    /// This node is in the lockspace already.
    #[error("already a member of the lockspace")]
    Exists,
    /// The members are configured differently (`EPROTO`), or have gone on without us.
    #[error("the members of the lockspace do not accept us")]
    Refused,
    /// No thread for the callbacks.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

enum Command {
    Join {
        shared: Arc<Shared>,
        done: oneshot::Sender<bool>,
    },
    Release {
        lockspace: u32,
        done: oneshot::Sender<()>,
    },
    /// Nobody waits for entering it any more.
    Abandon(Arc<Shared>),
    Stopped(u32, u64),
    Fenced(NodeId, bool),
    Shutdown(oneshot::Sender<bool>),
    BreakConnections,
    Inspect(oneshot::Sender<Sketch>),
}

/// A view of the node that lacks its lockspaces: whoever asks looks into these himself, and waits for their engines.
struct Sketch {
    view: NodeView,
    spaces: Vec<Arc<Shared>>,
}

impl Sketch {
    fn finish(self) -> NodeView {
        let lockspaces = self.spaces.iter().map(|shared| shared.view()).collect();
        NodeView { lockspaces, ..self.view }
    }
}

/// What engines have for the driver.
pub(crate) enum Outbound {
    Recovered(u32),
    RecoveryFailed(u32),
    /// The lockspace has carried out its last order.
    Left(u32),
}

/// What a node has counted, and where it stands with its peers.
#[derive(Clone, Debug)]
pub struct NodeCounters {
    /// Who came and got nowhere.
    pub strangers: Strangers,
    /// The other nodes.
    pub peers: Vec<PeerStatus>,
}

/// A running node. Dropping it ends it abruptly, as a crash would; [`Node::shutdown`] parts in order.
pub struct Node {
    id: NodeId,
    commands: UnboundedSender<Command>,
    outbound: UnboundedSender<Outbound>,
    links: Arc<Links>,
    counters: Arc<Counters>,
    task: JoinHandle<()>,
    /// The driver's, and the datagrams': readers wait for engines, and would keep signs of life waiting.
    alive: Alive,
    clock: Clock,
}

impl Node {
    /// Opens the sockets and begins to live.
    pub async fn start(config: NodeConfig) -> std::io::Result<Node> {
        let load = |files: &TlsFiles| Tls::load(files, config.node).map(Arc::new).map_err(std::io::Error::other);
        let tls = config.tls.as_ref().map(load).transpose()?;
        let clock = Clock::begin();
        let (lines, inboxes) = lines(config.peers.keys().copied());
        let links = Arc::new(Links::new(config.node, lines, clock, tls.is_some()));
        let counters = Arc::new(Counters::default());
        let alive = Alive::start()?;
        let (local, peers) = (config.address, config.peers);
        let settings = Settings { local, peers, tls, counters: counters.clone() };
        let (transport, events) = Transport::open(settings, alive.handle()?, inboxes, links.clone()).await?;
        let (commands, inbox) = unbounded_channel();
        let (outbound, outgoing) = unbounded_channel();
        let driver = Driver {
            node: config.node,
            clock,
            commands: commands.clone(),
            transport,
            membership: config.membership,
            fence: config.fence,
            links: links.clone(),
            spaces: Spaces { list: BTreeMap::new(), links: links.clone() },
            joining: BTreeMap::new(),
            leaving: BTreeMap::new(),
            ending: 0,
            stops: 0,
            last_stop: BTreeMap::new(),
            fence_failures: BTreeMap::new(),
        };
        let task = alive.handle()?.spawn(driver.run(inbox, outgoing, events));
        Ok(Node { id: config.node, commands, outbound, links, counters, task, alive, clock })
    }

    /// Enters a lockspace; returns once recovery has made this node a full member. `configure` may change the
    /// engine's configuration; all members must agree on the value block length and the lockspace flags. Without a majority it
    /// waits; whoever drops the future gives the lockspace up.
    pub async fn join(
        &self,
        name: &str,
        client: Arc<dyn LockClient>,
        configure: impl FnOnce(&mut Config),
    ) -> Result<LockSpace, JoinError> {
        let mut config = Config::new(self.id);
        let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64);
        (config.first_sequence, config.first_tag) = (seed, seed.rotate_left(17) >> 1);
        configure(&mut config);
        let ways = (self.links.clone(), self.outbound.clone());
        let shared = Shared::new(name, config, self.clock, ways, client).map_err(JoinError::Thread)?;
        let (done, answer) = oneshot::channel();
        let mut joining = Joining { shared: Some(shared.clone()), commands: &self.commands };
        let answer = match self.commands.send(Command::Join { shared: shared.clone(), done }) {
            Ok(()) => answer.await,
            Err(_) => {
                shared.end();
                return Err(JoinError::Shutdown);
            }
        };
        joining.shared = None;
        match answer {
            Ok(true) => Ok(LockSpace::new(shared)),
            Ok(false) => Err(JoinError::Refused),
            Err(_) => {
                shared.end();
                Err(if self.commands.is_closed() { JoinError::Shutdown } else { JoinError::Exists })
            }
        }
    }

    /// Leaves a lockspace, with whatever locks are left in it; returns once the others go on without us.
    pub async fn release(&self, space: &LockSpace) {
        let (done, answer) = oneshot::channel();
        if self.commands.send(Command::Release { lockspace: space.id(), done }).is_ok() {
            // An error means that the node has ended, and the lockspace with it.
            let _ended = answer.await;
        }
    }

    /// What has been counted so far, and where the conversations stand.
    pub fn counters(&self) -> NodeCounters {
        NodeCounters { strangers: self.counters.read(), peers: self.links.status() }
    }

    /// Breaks all connections, as the network might do; for tests. They are made anew, and nothing is lost.
    pub fn break_connections(&self) {
        // An error means that the node has ended, and its connections with it.
        let _ended = self.commands.send(Command::BreakConnections);
    }

    /// The state of the node, its peers and its lockspaces; `None` if it has ended. [`Node::inspector`] for threads.
    pub async fn inspect(&self) -> Option<NodeView> {
        let (answer, view) = oneshot::channel();
        self.commands.send(Command::Inspect(answer)).ok()?;
        view.await.ok().map(Sketch::finish)
    }

    /// A way to look at the node from any thread that may block, as long as it lives.
    pub fn inspector(&self) -> Inspector {
        Inspector(self.commands.clone())
    }

    /// Leaves the cluster in order: all lockspaces first, then the conversations, then the sockets. False: not all peers
    /// have parted with us within five seconds.
    pub async fn shutdown(mut self) -> bool {
        let (done, answer) = oneshot::channel();
        let asked = self.commands.send(Command::Shutdown(done)).is_ok();
        // An error means that the node has ended, and its conversations with it.
        let parted = asked && answer.await.unwrap_or(false);
        self.task.abort();
        // The task has been told to end; that it was aborted is no news.
        let _aborted = (&mut self.task).await;
        parted
    }
}

/// A thread of the node's own; ends without being waited for.
struct Alive(Option<Runtime>);

impl Alive {
    fn start() -> std::io::Result<Alive> {
        let builder = &mut Builder::new_multi_thread();
        builder.worker_threads(1).thread_name("membership").enable_all().build().map(|runtime| Alive(Some(runtime)))
    }

    fn handle(&self) -> std::io::Result<&Handle> {
        let ended = || std::io::Error::other("the membership's thread has ended");
        self.0.as_ref().map(Runtime::handle).ok_or_else(ended)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.end();
    }
}

impl Alive {
    fn end(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A lockspace that is being entered; dropped with it, it is given up.
struct Joining<'a> {
    shared: Option<Arc<Shared>>,
    commands: &'a UnboundedSender<Command>,
}

impl Drop for Joining<'_> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            // An error means that the node has ended, and its lockspaces with it.
            let _ended = self.commands.send(Command::Abandon(shared));
        }
    }
}

/// Looks at a node from outside of its tasks.
#[derive(Clone)]
pub struct Inspector(UnboundedSender<Command>);

impl Inspector {
    /// As [`Node::inspect`]; waits for the answer. Not to be called from a task.
    pub fn inspect(&self) -> Option<NodeView> {
        let (answer, view) = oneshot::channel();
        self.0.send(Command::Inspect(answer)).ok()?;
        view.blocking_recv().ok().map(Sketch::finish)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
        // Its lockspaces are over now, though the task may end a little later.
        self.links.end_all();
        self.alive.end();
    }
}

/// The lockspaces of a node. When the node ends, in whatever way, so do they.
struct Spaces {
    list: BTreeMap<u32, Arc<Shared>>,
    links: Arc<Links>,
}

impl Spaces {
    fn begin(&mut self, shared: Arc<Shared>) {
        self.links.space_begins(shared.clone());
        self.list.insert(shared.id(), shared);
    }

    fn end(&mut self, id: u32) -> Option<Arc<Shared>> {
        self.links.space_ends(id);
        self.list.remove(&id)
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for (id, shared) in &self.list {
            self.links.space_ends(*id);
            shared.end();
        }
    }
}

struct Driver {
    node: NodeId,
    clock: Clock,
    commands: UnboundedSender<Command>,
    transport: Transport,
    links: Arc<Links>,
    membership: Box<dyn Membership>,
    fence: BTreeMap<NodeId, FenceDevice>,
    spaces: Spaces,
    joining: BTreeMap<u32, oneshot::Sender<bool>>,
    leaving: BTreeMap<u32, oneshot::Sender<()>>,
    /// Lockspaces that we have left and that have orders to carry out still.
    ending: usize,
    /// Stops so far, and which was the last of each lockspace.
    stops: u64,
    last_stop: BTreeMap<u32, u64>,
    /// How often in a row fencing a node has failed.
    fence_failures: BTreeMap<u32, u32>,
}

/// How long the peers are waited for when we part.
const PARTING: Duration = Duration::from_secs(5);
/// So many events at once: then the other work has its turn.
const GATHERED: usize = 256;

impl Driver {
    async fn run(
        mut self,
        mut inbox: UnboundedReceiver<Command>,
        mut outgoing: UnboundedReceiver<Outbound>,
        mut events: Receiver<TransportEvent>,
    ) {
        let mut parting: Option<(Instant, oneshot::Sender<bool>)> = None;
        let links = self.links.clone();
        let parted = loop {
            let wake = tokio::time::Instant::from_std(self.wake());
            tokio::select! {
                biased;
                Some(out) = outgoing.recv() => self.outbound(out),
                Some(event) = events.recv() => self.transport_event(event),
                Some(command) = inbox.recv() => match command {
                    Command::Shutdown(done) => {
                        let spaces: Vec<u32> = self.spaces.list.keys().copied().collect();
                        spaces.into_iter().for_each(|id| self.member(MembershipEvent::Leave(id)));
                        parting = Some((Instant::now() + PARTING, done));
                    }
                    other => self.command(other),
                },
                // Many frames in one write: see the end of the loop. Others may always have something to be written.
                () = links.wake.notified() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
            // What is there already was not late: it comes before the look at the clock.
            for _ in 0..GATHERED {
                let Ok(event) = events.try_recv() else { break };
                self.transport_event(event);
            }
            if links.is_broken() {
                tracing::error!("a thread of the lock manager has panicked: the node ends");
                break false;
            }
            self.tick();
            if parting.is_some() && self.has_left() {
                // Also with who asked us something since we left.
                links.part();
            }
            links.flush_all();
            if let Some((limit, _)) = &parting {
                let parted = self.has_left() && links.have_parted();
                if parted || *limit <= Instant::now() {
                    break parted;
                }
            }
        };
        if !parted {
            tracing::warn!(peers = ?links.status(), lockspaces = self.spaces.list.len(), "not all peers have parted with us");
        }
        drop(self.spaces);
        // A conversation may have ended after the last flush, in the thread that reads.
        links.flush_all();
        // The last acknowledgements are on their way to the sockets' tasks.
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(self.transport);
        if let Some((_, done)) = parting {
            // Whoever asked may have stopped waiting.
            let _gone = done.send(parted);
        }
    }

    fn now(&self) -> u64 {
        self.clock.now()
    }

    /// When something is due; clients may have made something due without telling, so at least once a second.
    fn wake(&self) -> Instant {
        let now = self.now();
        self.links.plan(u64::MAX);
        let engines = self.spaces.list.values().map(|shared| shared.wake_at());
        let due = engines.chain(self.membership.wake_at()).chain([self.links.wake_at()]).min().unwrap_or(u64::MAX);
        let due = due.clamp(now + 1, now + 1000);
        self.links.plan(due);
        Instant::now() + Duration::from_millis(due - now)
    }

    fn tick(&mut self) {
        let now = self.now();
        self.spaces.list.values().for_each(|shared| shared.tick(now));
        if self.membership.wake_at().is_some_and(|at| at <= now) {
            self.member(MembershipEvent::Tick);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Join { shared, done } => {
                let id = shared.id();
                if self.spaces.list.contains_key(&id) {
                    // Dropping `done` says so.
                    return shared.end();
                }
                self.spaces.begin(shared);
                self.joining.insert(id, done);
                self.member(MembershipEvent::Join(id));
            }
            Command::Release { lockspace, done } => {
                if !self.spaces.list.contains_key(&lockspace) {
                    // We were expelled from it. Whoever asked may have stopped waiting.
                    let _gone = done.send(());
                    return;
                }
                self.leaving.insert(lockspace, done);
                self.member(MembershipEvent::Leave(lockspace));
            }
            Command::Abandon(shared) => {
                if self.spaces.list.get(&shared.id()).is_some_and(|known| Arc::ptr_eq(known, &shared)) {
                    self.joining.remove(&shared.id());
                    self.member(MembershipEvent::Leave(shared.id()));
                }
            }
            // Of an earlier stop: meanwhile the lockspace may have been started, and shall stop again.
            Command::Stopped(lockspace, number) if self.last_stop.get(&lockspace) != Some(&number) => {}
            Command::Stopped(lockspace, _) => self.member(MembershipEvent::Stopped(lockspace)),
            Command::Fenced(node, success) => {
                if success {
                    self.fence_failures.remove(&node.0);
                } else {
                    *self.fence_failures.entry(node.0).or_default() += 1;
                }
                self.member(MembershipEvent::Fenced { node, success });
            }
            Command::Shutdown(_) => {}
            Command::BreakConnections => self.links.break_connections(),
            Command::Inspect(answer) => {
                // Whoever asked may have stopped waiting.
                let _gone = answer.send(self.sketch());
            }
        }
    }

    fn sketch(&self) -> Sketch {
        let view = NodeView {
            node: self.node.0,
            quorate: self.membership.is_quorate(),
            membership: {
                let mut view = self.membership.view();
                // What a node that is well again was up to is of no interest.
                for node in view.nodes.iter_mut().filter(|node| node.in_doubt) {
                    node.fence_failures = self.fence_failures.get(&node.node).copied().unwrap_or(0);
                }
                view
            },
            peers: self.links.views(),
            lockspaces: Vec::new(),
        };
        Sketch { view, spaces: self.spaces.list.values().cloned().collect() }
    }

    fn member(&mut self, event: MembershipEvent) {
        let now = self.now();
        self.membership.handle(event, now);
        while let Some(action) = self.membership.next_action() {
            match action {
                MembershipAction::Stop(id) => self.stop(id),
                MembershipAction::Start(id, start) => self.start(id, start),
                MembershipAction::Left(id) => self.left(id),
                MembershipAction::Expelled(id) => {
                    tracing::error!(lockspace = id, "the cluster has gone on without this node; its locks are lost");
                    if let Some(shared) = self.spaces.list.get(&id) {
                        shared.forfeit();
                        shared.order(Order::Tell(Callback::Expelled));
                    }
                    self.left(id);
                }
                MembershipAction::NodeGone(node) => self.links.gone(node),
                MembershipAction::Fence(node) => self.fence(node),
                MembershipAction::Datagram { to, bytes } => self.transport.datagram(to, bytes),
            }
        }
        self.renew_trust();
    }

    /// After everything that came has been worked off: had they gone on without us, the lockspace would be gone now.
    fn renew_trust(&self) {
        self.links.trust.renew(self.membership.trusted_until());
        if self.links.trust.holds() {
            self.spaces.list.values().for_each(|shared| shared.go_on());
        }
    }

    /// Stops a lockspace; the membership hears of it once the client has been told.
    fn stop(&mut self, id: u32) {
        let Some(shared) = self.spaces.list.get(&id) else { return };
        let (told, wait) = oneshot::channel();
        shared.order(Order::Stop { told: Some(told) });
        self.stops += 1;
        self.last_stop.insert(id, self.stops);
        let (commands, number) = (self.commands.clone(), self.stops);
        tokio::spawn(async move {
            // An error means that the lockspace has ended, in order or not: then it has not stopped.
            if wait.await.is_ok() {
                // An error means that the node has ended.
                let _gone = commands.send(Command::Stopped(id, number));
            }
        });
    }

    fn start(&mut self, id: u32, start: Start) {
        tracing::info!(lockspace = id, members = ?start.members.iter().map(|m| m.node.0).collect::<Vec<_>>(), "start");
        if let Some(shared) = self.spaces.list.get(&id) {
            shared.order(Order::Start(start));
        }
    }

    fn left(&mut self, id: u32) {
        if let Some(shared) = self.spaces.end(id) {
            self.ending += 1;
            shared.leave();
        }
        if let Some(done) = self.joining.remove(&id) {
            // As below.
            let _gone = done.send(false);
        }
    }

    /// Nothing of a lockspace that we have left is under way any more.
    fn wound_up(&mut self, id: u32) {
        self.ending = self.ending.saturating_sub(1);
        if let Some(done) = self.leaving.remove(&id) {
            // Whoever asked may have stopped waiting.
            let _gone = done.send(());
        }
        if self.has_left() {
            self.links.part();
        }
    }

    fn has_left(&self) -> bool {
        self.spaces.list.is_empty() && self.ending == 0
    }

    fn fence(&mut self, node: NodeId) {
        tracing::warn!(%node, "fencing");
        let (device, commands) = (self.fence.get(&node).cloned(), self.commands.clone());
        let fail_time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
        tokio::spawn(async move {
            let success = match device {
                Some(device) => fence(&device, node, fail_time).await,
                None => {
                    tracing::error!(%node, "no fence agent is configured for this node");
                    false
                }
            };
            // An error means that the node has ended.
            let _gone = commands.send(Command::Fenced(node, success));
        });
    }

    fn outbound(&mut self, out: Outbound) {
        match out {
            Outbound::Recovered(id) => self.joined(id, true),
            Outbound::Left(id) => self.wound_up(id),
            Outbound::RecoveryFailed(id) => {
                tracing::error!(lockspace = id, "members are configured differently");
                self.joined(id, false);
            }
        }
    }

    fn joined(&mut self, id: u32, success: bool) {
        if let Some(done) = self.joining.remove(&id) {
            if !success {
                self.member(MembershipEvent::Leave(id));
            }
            // Whoever asked may have stopped waiting.
            let _gone = done.send(success);
        }
    }

    fn transport_event(&mut self, event: TransportEvent) {
        match event {
            TransportEvent::Up(node, connection) => self.links.up(node, connection),
            TransportEvent::Down(node) => self.links.down(node),
            TransportEvent::Datagram(from, bytes) => self.member(MembershipEvent::Datagram { from, bytes }),
        }
    }
}
