//! Mutual TLS between the nodes of a cluster.

use crate::ids::NodeId;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Where a node's credentials lie, and whom it speaks with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// PEM: the certificates of those who sign the nodes' certificates.
    pub ca: PathBuf,
    /// PEM: this node's certificate, and whatever lies between it and `ca`.
    pub certificate: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
    /// The nodes' names, as their certificates must have them.
    pub names: BTreeMap<NodeId, String>,
}
