//! The cluster file (`/etc/gfs2r/cluster.toml`): who the nodes are, where they listen, and how each is fenced. The same
//! file lies on every node; each finds itself in it by its name.
//!
//! ```toml
//! name = "tcluster"               # the part before ':' in the lock table
//! token_ms = 1000                 # silence after which a node is declared dead (1000 unless given)
//! startup_ms = 5000               # how long nodes never seen are waited for before they are fenced (5 tokens unless given)
//! unsafe_no_fencing = false       # true permits agent = "none", or no agent: for laboratories only
//!
//! [tls]                           # optional: then all nodes speak TLS, and no kernel can take part
//! ca = "ca.pem"                   # who signs the nodes' certificates; paths are relative to this file
//! certificate = "node.pem"        # this node's, with its name as a DNS name; a [node.tls] may name others per node
//! key = "node.key"
//!
//! [[node]]
//! id = 1
//! name = "node1"
//! address = "192.0.2.1"           # port 21064 unless given as address:port
//! [node.fence]
//! agent = "fence_ipmilan"         # a program of the FenceAgentAPI; the other keys are its options
//! ip = "192.0.2.101"
//! ```
//!
//! Mistakes are reported all at once, one line each: file, line, what, and what to do about it.

mod check;
#[cfg(test)]
mod tests;

use crate::fence::FenceDevice;
use crate::ids::NodeId;
use crate::membership::fixed::{Fixed, FixedConfig};
use crate::node::NodeConfig;
use crate::tls::TlsFiles;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Where the file lies unless another is named.
pub const DEFAULT_PATH: &str = "/etc/gfs2r/cluster.toml";
/// The port that every DLM listens on.
pub const DEFAULT_PORT: u16 = 21064;
/// A file longer than this is none of ours.
const SIZE_MAX: u64 = 1 << 20;

/// One node of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNode {
    /// Its number; 1 and up.
    pub id: NodeId,
    /// Its name; unique.
    pub name: String,
    /// Where it listens, with TCP and UDP; unique.
    pub address: SocketAddr,
    /// How others make sure that it is dead.
    pub fence: Option<FenceDevice>,
    /// Its certificate and key, where the cluster speaks TLS.
    pub tls: Option<TlsFiles>,
}

/// A cluster file in which everything is as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterFile {
    /// Where it was read from.
    pub path: PathBuf,
    /// The cluster's name.
    pub name: String,
    /// Silence after which a node is dead, in milliseconds.
    pub token_ms: u64,
    /// How long nodes that have not been seen are waited for before they are fenced, in milliseconds.
    pub startup_ms: u64,
    /// Nodes may go unfenced: data is at risk.
    pub unsafe_no_fencing: bool,
    /// All nodes, by id.
    pub nodes: Vec<ClusterNode>,
}

/// Why a cluster file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterFileError {
    /// It cannot be read.
    #[error("{}: {error} (write it, or name another with cluster=FILE)", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// Something in it is wrong: a line for each mistake.
    #[error("{}", .0.join("\n"))]
    Mistakes(Vec<String>),
    /// The node that we shall be is not in it.
    #[error("{}: no node is called {name:?}; there are {known} (add it, or choose with node=NAME)", path.display())]
    NoSuchNode {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        name: String,
        /// Who is there.
        known: String,
    },
    /// The lock table's cluster is another.
    #[error("{}: this is cluster {ours:?}, but the lock table says {theirs:?} (name the right file, or change the table)", path.display())]
    OtherCluster {
        /// The file.
        path: PathBuf,
        /// The file's name of the cluster.
        ours: String,
        /// What was wanted.
        theirs: String,
    },
}

impl ClusterFile {
    /// Reads and checks a file.
    pub fn read(path: impl AsRef<Path>) -> Result<ClusterFile, ClusterFileError> {
        let path = path.as_ref();
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(SIZE_MAX + 1).read_to_string(&mut text));
        match read {
            Err(error) => Err(ClusterFileError::Read { path: path.to_owned(), error }),
            Ok(length) if length as u64 > SIZE_MAX => {
                let line = format!("{}: longer than {SIZE_MAX} bytes: not a cluster file", path.display());
                Err(ClusterFileError::Mistakes(vec![line]))
            }
            Ok(_) => ClusterFile::parse(&text, path),
        }
    }

    /// Checks the text of a file; `path` is for messages, and what relative paths are relative to.
    pub fn parse(text: &str, path: &Path) -> Result<ClusterFile, ClusterFileError> {
        check::parse(text, path).map_err(ClusterFileError::Mistakes)
    }

    /// Refuses the file if it describes another cluster than the one wanted (the part before ':' of a lock table).
    pub fn expect_cluster(&self, name: &str) -> Result<(), ClusterFileError> {
        if self.name == name {
            return Ok(());
        }
        let (path, ours, theirs) = (self.path.clone(), self.name.clone(), name.to_owned());
        Err(ClusterFileError::OtherCluster { path, ours, theirs })
    }

    /// The node of this name; without a name, the one that is called as this host is, with or without the domain.
    pub fn node(&self, name: Option<&str>) -> Result<&ClusterNode, ClusterFileError> {
        let found = match name {
            Some(name) => self.nodes.iter().find(|node| node.name == name),
            None => self.node_of_host(&host_name()),
        };
        found.ok_or_else(|| ClusterFileError::NoSuchNode {
            path: self.path.clone(),
            name: name.map_or_else(host_name, str::to_owned),
            known: self.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Exactly, or else without the domains, if only one node can be meant.
    fn node_of_host(&self, host: &str) -> Option<&ClusterNode> {
        if let Some(exact) = self.nodes.iter().find(|node| node.name == host) {
            return Some(exact);
        }
        let short = short(host);
        let mut alike = self.nodes.iter().filter(|node| self::short(&node.name) == short);
        // Two different full names are two different hosts.
        alike.next().filter(|node| alike.next().is_none() && (node.name == short || host == short))
    }

    /// What [`crate::node::Node::start`] needs to be the node of this name (see [`ClusterFile::node`]). Says aloud if
    /// data is at risk.
    pub fn start(&self, name: Option<&str>) -> Result<NodeConfig, ClusterFileError> {
        let own = self.node(name)?;
        self.nodes.iter().filter(|node| node.id != own.id && self.is_unfenced(node)).for_each(|node| {
            tracing::warn!(node = node.name, "is not fenced when it falls silent: data is at risk (unsafe_no_fencing)");
        });
        let others = self.nodes.iter().filter(|node| node.id != own.id);
        Ok(NodeConfig {
            node: own.id,
            address: own.address,
            peers: others.map(|node| (node.id, node.address)).collect(),
            membership: Box::new(Fixed::new(self.membership(own))),
            fence: self.nodes.iter().map(|node| (node.id, self.fence_device(node))).collect(),
            tls: own.tls.clone(),
        })
    }

    /// The membership of a node that starts now.
    pub fn membership(&self, own: &ClusterNode) -> FixedConfig {
        FixedConfig {
            node: own.id,
            incarnation: SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64),
            name: self.name.clone(),
            nodes: self.nodes.iter().map(|node| node.id).collect(),
            token_ms: self.token_ms,
            startup_ms: self.startup_ms,
            // Where that is unsafe, the agent is "none": the order of events is the same.
            fencing: true,
        }
    }

    fn fence_device(&self, node: &ClusterNode) -> FenceDevice {
        let none = || FenceDevice { agent: "none".into(), options: Vec::new() };
        node.fence.clone().unwrap_or_else(none)
    }

    fn is_unfenced(&self, node: &ClusterNode) -> bool {
        self.fence_device(node).agent == "none"
    }
}

/// A name without its domain.
fn short(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
}

/// The name of this host, or nothing where it cannot be known.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}
