//! A running node: drives the pure machines. One task, the driver, owns the membership and times; each lockspace's
//! engine stands behind a lock of its own ([`space`]), and so does each conversation with a peer ([`links`]). An operation
//! on a resource mastered here is carried out in the caller's thread, without a detour; one on a resource mastered
//! elsewhere is sent by the caller's thread, and its answer is taken in by the thread that reads it.
//!
//! Everything an engine wants done leaves it, in its order, while its lock is held: frames into the conversations,
//! callbacks into the lockspace's queue ([`teller`]). Clients are never called from inside a call of theirs.

mod control;
mod driver;
mod links;
pub mod plocks;
pub mod space;
mod teller;
#[cfg(test)]
mod tests;
mod trust;

use crate::clock::Clock;
use crate::engine::Config;
use crate::fence::FenceDevice;
use crate::ids::NodeId;
use crate::inspect::NodeView;
use crate::membership::Membership;
use crate::tls::{Tls, TlsFiles};
use crate::transport::{Counters, Settings, Strangers, Transport, lines};
use driver::{Driver, Spaces};
use links::Links;
pub use links::PeerStatus;
use space::{LockClient, LockSpace, Shared};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
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
    _alive: Alive,
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
        Ok(Node { id: config.node, commands, outbound, links, counters, task, _alive: alive, clock })
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
    }
}
