//! Mutual TLS between the nodes of a cluster (1.3 only). It is for clusters of our own nodes: kernels do not speak it.
//!
//! * Every connection is shaken hands on in both directions: a node's certificate must be signed by the cluster's
//!   authority, be valid now, and carry as a DNS name the name that the cluster file gives to the node that the
//!   connection belongs to. Sessions are not resumed, so that an expired certificate ends its node's next connection.
//! * Signs of life stay datagrams, so that a connection that is made anew or is full does not make a node seem dead.
//!   They are *sealed* ([`seal::Seals`]) with a key that both ends derive from the connection over which the sender
//!   speaks (the TLS exporter): no further secret is needed, a seal vouches for exactly what the connection vouched
//!   for, and no datagram counts twice or in another node's or life's name. So with TLS every node keeps a connection
//!   to every other, also when it has nothing to say.

pub mod seal;
#[cfg(test)]
mod tests;

use crate::ids::NodeId;
use rustls::client::{Resumption, verify_server_name};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use seal::Seals;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is not what it should be.
    #[error("{}: {what} (PEM is expected; see [tls] in the cluster file)", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The certificate does not say who we are.
    #[error("{}: the certificate is not {name:?}'s: {error} (its DNS names must contain the node's name)", path.display())]
    Name {
        /// The certificate.
        path: PathBuf,
        /// This node's name.
        name: String,
        /// What is wrong with it.
        error: rustls::Error,
    },
    /// A node's name cannot stand in a certificate.
    #[error("{0:?} cannot stand in a certificate (a DNS name is expected)")]
    NotDns(String),
    /// What the library says.
    #[error("TLS: {0}")]
    Refused(String),
}

/// A node's credentials, ready for use.
#[derive(Debug)]
pub struct Tls {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    names: BTreeMap<NodeId, ServerName<'static>>,
    seals: Seals,
}

impl Tls {
    /// Reads and checks the credentials of the node `own`.
    pub fn load(files: &TlsFiles, own: NodeId) -> Result<Tls, TlsError> {
        let bad = |path: &Path, what: String| TlsError::File { path: path.to_owned(), what };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.ca)? {
            roots.add(certificate).map_err(|error| bad(&files.ca, error.to_string()))?;
        }
        let (roots, chain) = (Arc::new(roots), certificates(&files.certificate)?);
        let key = || PrivateKeyDer::from_pem_file(&files.key).map_err(|error| bad(&files.key, error.to_string()));
        let names = names(files)?;
        if let (Some(name), Some(first)) = (names.get(&own), chain.first()) {
            is_named(first, name).map_err(|error| TlsError::Name {
                path: files.certificate.clone(),
                name: files.names.get(&own).cloned().unwrap_or_default(),
                error,
            })?;
        }
        let refused = |error: rustls::Error| TlsError::Refused(error.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| bad(&files.ca, error.to_string()))?;
        let mut client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(refused)?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain.clone(), key()?)
            .map_err(|error| bad(&files.key, error.to_string()))?;
        client.resumption = Resumption::disabled();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(refused)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key()?)
            .map_err(|error| bad(&files.key, error.to_string()))?;
        server.send_tls13_tickets = 0;
        Ok(Tls { client: Arc::new(client), server: Arc::new(server), names, seals: Seals::default() })
    }

    /// The keys that signs of life are sealed with.
    pub fn seals(&self) -> &Seals {
        &self.seals
    }

    /// Our end of a connection that we make to this node.
    pub(crate) fn dial(&self, node: NodeId) -> io::Result<Connection> {
        let name = self.names.get(&node).cloned().ok_or(io::ErrorKind::InvalidInput)?;
        let connection = ClientConnection::new(self.client.clone(), name).map_err(io::Error::other)?;
        Ok(Connection::Client(connection))
    }

    /// Our end of a connection that is made to us.
    pub(crate) fn answer(&self) -> io::Result<Connection> {
        let connection = ServerConnection::new(self.server.clone()).map_err(io::Error::other)?;
        Ok(Connection::Server(connection))
    }

    /// Which of these nodes a certificate that the authority has signed belongs to.
    pub(crate) fn who(&self, connection: &Connection, candidates: &[NodeId]) -> Result<NodeId, String> {
        let first = connection.peer_certificates().and_then(|chain| chain.first()).ok_or("no certificate")?;
        let is = |node: &&NodeId| self.names.get(node).is_some_and(|name| is_named(first, name).is_ok());
        candidates.iter().find(is).copied().ok_or_else(|| "the certificate is another node's".to_owned())
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bad = |what: String| TlsError::File { path: path.to_owned(), what };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let list = read.map_err(|error| bad(error.to_string()))?;
    if list.is_empty() { Err(bad("there is no certificate".into())) } else { Ok(list) }
}

fn names(files: &TlsFiles) -> Result<BTreeMap<NodeId, ServerName<'static>>, TlsError> {
    let name = |name: &String| ServerName::try_from(name.clone()).map_err(|_| TlsError::NotDns(name.clone()));
    files.names.iter().map(|(node, text)| Ok((*node, name(text)?))).collect()
}

fn is_named(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> Result<(), rustls::Error> {
    verify_server_name(&ParsedCertificate::try_from(certificate)?, name)
}
