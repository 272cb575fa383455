//! Joining a cluster, from the cluster file to a place in the lockspace, and leaving it again.
//!
//! A node of a cluster is one [`Host`]: a lock manager at one address. Each volume that is mounted on it has a lockspace there.

use super::client;
use super::dlm::Dlm;
use super::options::ClusterOptions;
use super::plocks::ClusterPlocks;
use crate::cluster::{Cluster, JoinOptions, Mounter, Recovery};
use crate::error::{Error, Result};
use crate::ids::Jid;
use crate::sync::Mutex;
use crate::volume::{self, Opened};
use lockclient::cluster_file::{ClusterFile, DEFAULT_PATH};
use lockclient::inspect::{ClusterNode, NodeView};
use lockclient::membership::majority;
use lockclient::node::{Inspector, Node};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Which cluster a mount joins, and as whom. Everything in it has been checked.
pub(super) struct Plan {
    file: ClusterFile,
    /// Our name in it.
    node: String,
    lockspace: String,
}

impl Plan {
    /// Reads the cluster file; `table`: CLUSTER:NAME.
    pub(super) fn read(options: &ClusterOptions, table: &str) -> Result<Self, String> {
        let (cluster, lockspace) = table
            .split_once(':')
            .filter(|(cluster, name)| !cluster.is_empty() && !name.is_empty())
            .ok_or_else(|| format!("its lock table '{table}' is not CLUSTER:NAME (-o locktable=CLUSTER:NAME)"))?;
        let path = options.file.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        let file = ClusterFile::read(path).map_err(|e| e.to_string())?;
        file.expect_cluster(cluster).map_err(|e| e.to_string())?;
        let node = file.node(options.node.as_deref()).map_err(|e| e.to_string())?.name.clone();
        Ok(Self { file, node, lockspace: lockspace.to_owned() })
    }

    /// The node, by its cluster and its name there.
    pub(super) fn who(&self) -> String {
        format!("{}.{}", self.file.name, self.node)
    }
}

/// The lock manager of a node, which all volumes that are mounted on it share.
pub(super) struct Host {
    runtime: Runtime,
    /// Until it has ended.
    node: Mutex<Option<Arc<Node>>>,
    /// All nodes' names.
    names: BTreeMap<u32, String>,
    /// How long the cluster may take before that is told.
    patience: Duration,
}

impl Host {
    /// Becomes the node of this plan.
    pub(super) fn start(plan: &Plan) -> Result<Arc<Self>, String> {
        // On a single processor a second thread would only be woken for nothing.
        let threads = std::thread::available_parallelism().map_or(2, |n| n.get().min(2));
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("gfs2r-dlm")
            .enable_all()
            .build()
            .map_err(|e| client::words(&e))?;
        let config = plan.file.start(Some(&plan.node)).map_err(|e| e.to_string())?;
        let address = config.address;
        let node = runtime.block_on(Node::start(config)).map_err(|e| match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("{address} is in use (by a mount with another GFS2R_RUN_DIR, or another program?)")
            }
            std::io::ErrorKind::AddrNotAvailable => {
                format!("{address} is no address of this machine (is node= right?)")
            }
            _ => format!("{address}: {}", client::words(&e)),
        })?;
        Ok(Arc::new(Self {
            runtime,
            node: Mutex::new(Some(Arc::new(node))),
            names: plan.file.nodes.iter().map(|node| (node.id.0, node.name.clone())).collect(),
            patience: Duration::from_millis(plan.file.startup_ms.max(plan.file.token_ms).saturating_mul(2)),
        }))
    }

    /// Becomes a member of a volume's lockspace. Waits for a majority of the nodes, and says so (`waiting`; nothing when it is
    /// over) when that takes longer than a moment, until `stop` is set.
    pub(super) fn join(
        self: &Arc<Self>,
        plan: &Plan,
        spectator: bool,
        stop: &Arc<AtomicBool>,
        waiting: &(dyn Fn(Option<&str>) + Sync),
    ) -> Result<Joined, String> {
        let node = self.node.lock().clone().ok_or("the lock manager has ended")?;
        let cluster = std::thread::scope(|scope| {
            // Dropped when we are in.
            let (_still, joining) = mpsc::channel::<()>();
            let (inspector, names, mut patience) = (node.inspector(), &self.names, self.patience);
            scope.spawn(move || {
                let mut told = String::new();
                while joining.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                    patience = Duration::from_secs(1);
                    let now = missing(&inspector, names);
                    if now != told {
                        waiting(Some(&now));
                        told = now;
                    }
                }
                if !told.is_empty() {
                    waiting(None);
                }
            });
            Cluster::join(&node, &plan.lockspace, &JoinOptions { spectator, stop: Arc::clone(stop) })
        });
        Ok(Joined { cluster: cluster.map_err(|e| e.to_string())?, host: Arc::clone(self), spectator })
    }

    /// Parts from the other nodes in order; to be called when all lockspaces are left.
    pub(super) fn end(&self) {
        match self.node.lock().take().map(Arc::try_unwrap) {
            Some(Ok(node)) => {
                if !self.runtime.block_on(node.shutdown()) {
                    tracing::warn!("left the cluster without a last word from every node");
                }
            }
            Some(Err(_)) => tracing::error!("the cluster's node is still in use: it ends with the process"),
            None => {}
        }
    }

    /// The lock manager is not to part from the others: they shall notice that this process has ended.
    fn abandon(&self) {
        std::mem::forget(self.node.lock().take());
    }
}

/// What is waited for: nodes that are absent, and those that have to be fenced before anything goes on.
fn missing(inspector: &Inspector, names: &BTreeMap<u32, String>) -> String {
    inspector.inspect().map_or_else(|| "waiting for the cluster".to_owned(), |view| missing_of(&view, names))
}

fn missing_of(view: &NodeView, names: &BTreeMap<u32, String>) -> String {
    let nodes = &view.membership.nodes;
    let why = |node: &ClusterNode| -> Option<String> {
        let why = match node {
            _ if node.in_doubt && node.fence_failures > 0 => {
                format!("its fencing has failed {}", times(node.fence_failures))
            }
            _ if node.in_doubt || node.being_fenced => "it is being fenced".to_owned(),
            _ if node.differs => "its cluster file is not this node's: make them alike".to_owned(),
            _ if node.alive || view.quorate => return None,
            _ if node.heard_ms_ago.is_some() => "silent".to_owned(),
            _ => "not heard from".to_owned(),
        };
        Some(format!("{} ({why})", names.get(&node.node).cloned().unwrap_or_else(|| node.node.to_string())))
    };
    let all: Vec<String> = nodes.iter().filter_map(why).collect();
    let quorum = if view.quorate {
        String::new()
    } else {
        format!("; {} of {} nodes must be there", majority(nodes.len()), nodes.len())
    };
    match all.as_slice() {
        [] => "waiting for the other nodes to let this one in".to_owned(),
        all => format!("waiting for {}{quorum}", all.join(", ")),
    }
}

/// A number of times.
pub(super) fn times(n: u32) -> String {
    if n == 1 { "once".to_owned() } else { format!("{n} times") }
}

/// This node's part in the cluster of one volume.
pub(super) struct Joined {
    pub(super) cluster: Arc<Cluster>,
    host: Arc<Host>,
    spectator: bool,
}

impl Joined {
    /// What `gfs2r dlm` may look at.
    pub(super) fn dlm(&self) -> Option<Dlm> {
        let inspector = self.host.node.lock().as_ref()?.inspector();
        Some(Dlm::new(inspector, self.cluster.space()?.clone(), self.host.names.clone(), self.spectator))
    }

    /// Makes fcntl(2) locks hold on all nodes.
    pub(super) fn keep_plocks(&self, opened: &Opened) {
        if let Some(space) = self.cluster.space() {
            opened.fs.set_plocks(Arc::new(ClusterPlocks::new(space.clone())));
        }
    }

    /// As what the volume is to be opened.
    pub(super) fn mounter(&self) -> volume::Mounter {
        match self.cluster.mounter() {
            Mounter::First => volume::Mounter::First,
            Mounter::Joining => volume::Mounter::Joining,
            Mounter::Spectator => volume::Mounter::Spectator,
        }
    }

    /// Leaves the lockspace in order; to be called when nothing is written any more.
    pub(super) fn leave(&self) {
        self.cluster.leave();
    }

    /// The cluster is not to be left in order, but to notice that this process has ended.
    pub(super) fn abandon(self) {
        self.host.abandon();
        // What it holds must stay as it is, and nobody is told anything any more.
        std::mem::forget(self);
    }
}

/// What the cluster asks of this mount.
pub(super) struct ForPeers {
    pub(super) opened: Weak<Opened>,
    /// Set when a journal was replayed: the dead node may have been the last that used a file without a name.
    pub(super) orphans: Arc<AtomicBool>,
}

impl ForPeers {
    fn opened(&self) -> Result<Arc<Opened>> {
        self.opened.upgrade().ok_or(Error::Withdrawn)
    }
}

impl Recovery for ForPeers {
    fn recover(&self, jid: Jid) -> Result<()> {
        self.opened()?.recover_journal(jid)?;
        self.orphans.store(true, Ordering::Release);
        Ok(())
    }

    fn journals(&self) -> u32 {
        self.opened().map_or(0, |opened| opened.journals)
    }

    fn is_clean(&self, jid: Jid) -> Result<bool> {
        self.opened()?.is_journal_clean(jid)
    }

    fn is_quiet(&self) -> bool {
        // The longest that a disk's timeouts usually let a write hang.
        self.opened().is_ok_and(|opened| opened.fs.volume().cache.health().await_writers(Duration::from_secs(90)))
    }

    fn freeze(&self) -> Result<()> {
        self.opened()?.fs.freeze()
    }

    fn thaw(&self) {
        if let Ok(opened) = self.opened() {
            opened.fs.thaw();
        }
    }

    fn lost(&self) {
        if let Ok(opened) = self.opened() {
            opened
                .fs
                .volume()
                .journal
                .withdraw(&Error::Io(Arc::new(std::io::Error::other("the cluster has gone on without this node"))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockclient::inspect::MembershipView;

    #[test]
    fn who_is_waited_for() {
        let names = BTreeMap::from([(1, "ant".to_owned()), (2, "bee".into()), (3, "cow".into())]);
        let node = |node| ClusterNode { node, ..ClusterNode::default() };
        let me = ClusterNode { alive: true, ..node(1) };
        let say = |quorate, nodes| {
            let membership = MembershipView { nodes, ..MembershipView::default() };
            missing_of(&NodeView { quorate, membership, ..NodeView::default() }, &names)
        };
        let silent = ClusterNode { heard_ms_ago: Some(9000), ..node(3) };
        assert_eq!(
            say(false, vec![me.clone(), node(2), silent.clone()]),
            "waiting for bee (not heard from), cow (silent); 2 of 3 nodes must be there"
        );
        let other = ClusterNode { differs: true, ..node(2) };
        let why = "waiting for bee (its cluster file is not this node's: make them alike)";
        assert_eq!(say(true, vec![me.clone(), other]), why);
        let living = ClusterNode { alive: true, ..node(2) };
        let doubt = ClusterNode { in_doubt: true, fence_failures: 3, ..silent };
        assert_eq!(say(true, vec![me.clone(), living, doubt]), "waiting for cow (its fencing has failed 3 times)");
        assert_eq!(say(true, vec![me, node(2)]), "waiting for the other nodes to let this one in");
    }
}
