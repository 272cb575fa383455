//! Joining a cluster, from the cluster file to a place in the lockspace, and leaving it again.

use super::client;
use super::dlm::Dlm;
use super::options::ClusterOptions;
use super::plocks::ClusterPlocks;
use crate::cluster::{Cluster, JoinOptions, Mounter, Recovery};
use crate::error::{Error, Result};
use crate::ids::Jid;
use crate::volume::{self, Opened};
use lockclient::cluster_file::{ClusterFile, DEFAULT_PATH};
use lockclient::membership::majority;
use lockclient::node::Node;
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
    node: Option<String>,
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
        file.node(options.node.as_deref()).map_err(|e| e.to_string())?;
        Ok(Self { file, node: options.node.clone(), lockspace: lockspace.to_owned() })
    }

    /// Becomes a node of the cluster and a member of the volume's lockspace. Waits for a majority of the nodes, and says so
    /// (`waiting`) when that takes longer than a moment.
    pub(super) fn join(&self, spectator: bool, waiting: &(dyn Fn(&str) + Sync)) -> Result<Joined, String> {
        // On a single processor a second thread would only be woken for nothing.
        let threads = std::thread::available_parallelism().map_or(2, |n| n.get().min(2));
        let runtime = Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("gfs2r-dlm")
            .enable_all()
            .build()
            .map_err(|e| client::words(&e))?;
        let config = self.file.start(self.node.as_deref()).map_err(|e| e.to_string())?;
        let address = config.address;
        let node = runtime.block_on(Node::start(config)).map(Arc::new).map_err(|e| match e.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("{address} is in use (has this node another volume mounted? one at a time, for now)")
            }
            std::io::ErrorKind::AddrNotAvailable => {
                format!("{address} is no address of this machine (is node= right?)")
            }
            _ => format!("{address}: {}", client::words(&e)),
        })?;
        let nodes = self.file.nodes.len();
        let majority = majority(nodes);
        let patience = Duration::from_millis(self.file.startup_ms.max(self.file.token_ms).saturating_mul(2));
        let joined = std::thread::scope(|scope| {
            // Dropped when we are in.
            let (_still, joining) = mpsc::channel::<()>();
            scope.spawn(move || {
                if joining.recv_timeout(patience) == Err(RecvTimeoutError::Timeout) {
                    waiting(&format!(
                        "waiting for the cluster: {majority} of its {nodes} nodes must be there, and absent ones be fenced"
                    ));
                }
            });
            Cluster::join(&node, &self.lockspace, &JoinOptions { spectator, ..JoinOptions::default() })
        });
        match joined {
            Ok(cluster) => {
                let names = self.file.nodes.iter().map(|node| (node.id.0, node.name.clone())).collect();
                Ok(Joined { cluster, names, node: Some(node), runtime: Some(runtime) })
            }
            Err(e) => {
                end(node, &runtime);
                Err(e.to_string())
            }
        }
    }
}

/// This node's part in the cluster.
pub(super) struct Joined {
    pub(super) cluster: Arc<Cluster>,
    /// All nodes' names.
    names: BTreeMap<u32, String>,
    node: Option<Arc<Node>>,
    runtime: Option<Runtime>,
}

impl Joined {
    /// What `gfs2r dlm` may look at.
    pub(super) fn dlm(&self) -> Option<Dlm> {
        let node = self.node.as_ref()?;
        Some(Dlm::new(node.inspector(), self.cluster.space()?.clone(), self.names.clone()))
    }

    /// Makes fcntl(2) locks hold on all nodes.
    pub(super) fn keep_plocks(&self, opened: &Opened) {
        if let Some(space) = self.cluster.space() {
            opened.fs.set_plocks(Arc::new(ClusterPlocks(space.clone())));
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

    /// Leaves the lockspace and the cluster in order; to be called when nothing is written any more.
    pub(super) fn leave(&mut self) {
        self.cluster.leave();
        if let (Some(node), Some(runtime)) = (self.node.take(), self.runtime.take()) {
            end(node, &runtime);
        }
    }
}

/// Parts from the other nodes in order; nobody else has the node any more.
fn end(node: Arc<Node>, runtime: &Runtime) {
    match Arc::into_inner(node) {
        Some(node) => {
            if !runtime.block_on(node.shutdown()) {
                tracing::warn!("left the cluster without a last word from every node");
            }
        }
        None => tracing::error!("the cluster's node is still in use: it ends with the process"),
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
