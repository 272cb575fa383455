//! From the text to a cluster that can be started, or to the list of what is wrong with it.

use super::{ClusterFile, ClusterNode, DEFAULT_PORT};
use crate::fence::FenceDevice;
use crate::ids::NodeId;
use crate::tls::TlsFiles;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use toml::{Spanned, Value};

/// Shorter, and a busy machine counts as dead; longer, and everyone waits for the dead.
const TOKEN_MS: RangeInclusive<i64> = 200..=300_000;
const STARTUP_MS: RangeInclusive<i64> = 200..=3_600_000;
/// What a sign of life can speak about.
const NODES_MAX: usize = 128;
/// Longest name of a cluster in a superblock's lock table.
const CLUSTER_NAME_MAX: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    name: Spanned<String>,
    token_ms: Option<Spanned<i64>>,
    startup_ms: Option<Spanned<i64>>,
    #[serde(default)]
    unsafe_no_fencing: bool,
    tls: Option<Spanned<RawTls>>,
    #[serde(default)]
    node: Vec<Spanned<RawNode>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawNode {
    id: Spanned<i64>,
    name: Spanned<String>,
    address: Spanned<String>,
    fence: Option<Spanned<BTreeMap<String, Value>>>,
    tls: Option<Spanned<RawPair>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTls {
    ca: PathBuf,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPair {
    certificate: PathBuf,
    key: PathBuf,
}

/// The text, and what was found wrong with it so far.
struct Check<'a> {
    text: &'a str,
    path: &'a Path,
    mistakes: Vec<String>,
}

pub(super) fn parse(text: &str, path: &Path) -> Result<ClusterFile, Vec<String>> {
    let mut check = Check { text, path, mistakes: Vec::new() };
    let raw: RawFile = match toml::from_str(text) {
        Ok(raw) => raw,
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let hint = if error.message().contains("unknown field") { "remove or correct it" } else { "correct it" };
            check.wrong(at, error.message().lines().next().unwrap_or("not TOML"), hint);
            return Err(check.mistakes);
        }
    };
    let file = check.file(raw);
    if check.mistakes.is_empty() { Ok(file) } else { Err(check.mistakes) }
}

impl Check<'_> {
    fn wrong(&mut self, at: usize, what: &str, hint: &str) {
        self.mistakes.push(format!("{}:{}: {what} ({hint})", self.path.display(), self.line(at)));
    }

    fn line(&self, at: usize) -> usize {
        1 + self.text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
    }

    fn file(&mut self, raw: RawFile) -> ClusterFile {
        let name = raw.name.get_ref().clone();
        if name.is_empty() || name.len() > CLUSTER_NAME_MAX || !name.bytes().all(is_name_byte) {
            let what = format!("{name:?} cannot be a cluster's name");
            self.wrong(raw.name.span().start, &what, "1 to 32 letters, digits, '-' and '_'");
        }
        let token_ms = self.number("token_ms", raw.token_ms, 1000, &TOKEN_MS);
        let startup_ms = self.number("startup_ms", raw.startup_ms, 5 * token_ms, &STARTUP_MS);
        if raw.node.is_empty() {
            self.wrong(0, "there is no [[node]]", "list every node of the cluster");
        }
        if raw.node.len() > NODES_MAX {
            self.wrong(0, &format!("{} nodes are too many", raw.node.len()), &format!("{NODES_MAX} at most"));
        }
        let tls = raw.tls.map(|tls| (tls.span().start, tls.into_inner()));
        let count = raw.node.len();
        let nodes: Vec<(Lines, ClusterNode)> = raw
            .node
            .into_iter()
            .map(|node| self.node(node, tls.as_ref(), raw.unsafe_no_fencing || count == 1))
            .collect();
        self.compare(&nodes);
        let mut nodes: Vec<ClusterNode> = nodes.into_iter().map(|(_, node)| node).collect();
        nodes.sort_by_key(|node| node.id);
        let names: BTreeMap<NodeId, String> = nodes.iter().map(|node| (node.id, node.name.clone())).collect();
        nodes.iter_mut().filter_map(|node| node.tls.as_mut()).for_each(|tls| tls.names = names.clone());
        let unsafe_no_fencing = raw.unsafe_no_fencing;
        let path = self.path.to_owned();
        ClusterFile { path, name, token_ms: token_ms as u64, startup_ms: startup_ms as u64, unsafe_no_fencing, nodes }
    }

    fn number(&mut self, key: &str, given: Option<Spanned<i64>>, default: i64, bounds: &RangeInclusive<i64>) -> i64 {
        let Some(given) = given else { return default.clamp(*bounds.start(), *bounds.end()) };
        let value = *given.get_ref();
        if !bounds.contains(&value) {
            let hint = format!("between {} and {} milliseconds", bounds.start(), bounds.end());
            self.wrong(given.span().start, &format!("{key} = {value} is out of bounds"), &hint);
        }
        value.clamp(*bounds.start(), *bounds.end())
    }

    fn node(&mut self, raw: Spanned<RawNode>, tls: Option<&(usize, RawTls)>, unfenced: bool) -> (Lines, ClusterNode) {
        let at = raw.span().start;
        let raw = raw.into_inner();
        let lines = Lines { id: raw.id.span().start, name: raw.name.span().start, address: raw.address.span().start };
        let id = i32::try_from(*raw.id.get_ref()).ok().filter(|id| *id > 0);
        if id.is_none() {
            let what = format!("id = {} cannot be a node's number", raw.id.get_ref());
            self.wrong(lines.id, &what, "1 to 2147483647, and never another for the same node");
        }
        let name = raw.name.into_inner();
        if name.is_empty() || name.len() > 253 || !name.bytes().all(|byte| is_name_byte(byte) || byte == b'.') {
            let what = format!("{name:?} cannot be a node's name");
            self.wrong(lines.name, &what, "a host name: letters, digits, '-', '_' and '.'");
        }
        let address = self.address(lines.address, raw.address.get_ref());
        let fence = self.fence(at, &name, raw.fence, unfenced);
        let tls = self.tls(at, &name, tls, raw.tls);
        let id = NodeId(id.unwrap_or(0) as u32);
        (lines, ClusterNode { id, name, address, fence, tls })
    }

    fn address(&mut self, at: usize, text: &str) -> SocketAddr {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let with_port = text.parse::<SocketAddr>().ok();
        let bare = text.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, DEFAULT_PORT));
        let Some(address) = with_port.or(bare) else {
            let hint =
                "an IP address, as 192.0.2.1, 192.0.2.1:21064, fd00::1 or [fd00::1]:21064; names are not looked up";
            self.wrong(at, &format!("{text:?} is not an address"), hint);
            return nowhere;
        };
        if address.ip().is_unspecified() || address.ip().is_multicast() || address.port() == 0 {
            self.wrong(
                at,
                &format!("{text:?} is not the address of a node"),
                "the node's own address, and a port above 0",
            );
        }
        address
    }

    /// What several nodes may not have in common.
    fn compare(&mut self, nodes: &[(Lines, ClusterNode)]) {
        for (index, (lines, node)) in nodes.iter().enumerate() {
            let before = &nodes[..index];
            if before.iter().any(|(_, other)| other.id == node.id && node.id != NodeId::NONE) {
                self.wrong(
                    lines.id,
                    &format!("id = {} stands here for the second time", node.id),
                    "one number per node",
                );
            }
            if before.iter().any(|(_, other)| other.name == node.name) {
                let what = format!("name = {:?} stands here for the second time", node.name);
                self.wrong(lines.name, &what, "one name per node");
            }
            if before.iter().any(|(_, other)| other.address == node.address && node.address.port() != 0) {
                let what = format!("address {} stands here for the second time", node.address);
                self.wrong(lines.address, &what, "one address per node");
            }
            let first = before.first().map(|(_, first)| first.address);
            if first.is_some_and(|first| first.is_ipv4() != node.address.is_ipv4() && first.port() != 0) {
                self.wrong(lines.address, "IPv4 and IPv6 are mixed", "give all nodes addresses of one kind");
            }
        }
    }

    fn fence(
        &mut self,
        node_at: usize,
        node: &str,
        raw: Option<Spanned<BTreeMap<String, Value>>>,
        unfenced: bool,
    ) -> Option<FenceDevice> {
        let Some(raw) = raw else {
            if !unfenced {
                let what = format!("node {node:?} has no [node.fence]");
                self.wrong(node_at, &what, "name its fence agent, or set unsafe_no_fencing = true in a laboratory");
            }
            return None;
        };
        let at = raw.span().start;
        let mut options = raw.into_inner();
        let agent = match options.remove("agent") {
            Some(Value::String(agent)) if !agent.is_empty() && !agent.contains('\0') => agent,
            _ => {
                self.wrong(at, &format!("the fence of node {node:?} has no agent"), "agent = \"fence_...\", a program");
                return None;
            }
        };
        if agent == "none" && !unfenced {
            let what = format!("the fence agent of node {node:?} is \"none\"");
            self.wrong(at, &what, "name a fence agent, or set unsafe_no_fencing = true in a laboratory");
        }
        let options = options.into_iter().filter_map(|(key, value)| self.option(at, node, key, value)).collect();
        Some(FenceDevice { agent, options })
    }

    /// An option is one line of the agent's input.
    fn option(&mut self, at: usize, node: &str, key: String, value: Value) -> Option<(String, String)> {
        let text = match value {
            Value::String(text) => Some(text),
            Value::Integer(number) => Some(number.to_string()),
            Value::Float(number) => Some(number.to_string()),
            Value::Boolean(is) => Some(if is { "1".into() } else { "0".into() }),
            _ => None,
        };
        let whole_line = |text: &str| !text.contains(['\n', '\r', '\0']);
        match text {
            _ if key == "node" || key == "fail_time" => {
                let what = format!("option {key:?} in the fence of node {node:?} is ours to give");
                self.wrong(at, &what, "remove it");
                None
            }
            Some(text) if whole_line(&text) && whole_line(&key) && !key.contains('=') => Some((key, text)),
            _ => {
                let what = format!("option {key:?} in the fence of node {node:?} cannot be handed to an agent");
                self.wrong(at, &what, "a text of one line, a number, true or false");
                None
            }
        }
    }

    fn tls(
        &mut self,
        at: usize,
        node: &str,
        common: Option<&(usize, RawTls)>,
        own: Option<Spanned<RawPair>>,
    ) -> Option<TlsFiles> {
        let Some((common_at, common)) = common else {
            if let Some(own) = own {
                let what = format!("node {node:?} has [node.tls], but there is no [tls]");
                self.wrong(own.span().start, &what, "name the certificate authority: [tls] ca = \"FILE\"");
            }
            return None;
        };
        let own = own.map(Spanned::into_inner);
        let pair = match (own, common.certificate.clone(), common.key.clone()) {
            (Some(own), _, _) => own,
            (None, Some(certificate), Some(key)) => RawPair { certificate, key },
            (None, None, None) => {
                let what = format!("node {node:?} has no certificate");
                self.wrong(at, &what, "certificate and key, in [tls] for all or in [node.tls]");
                return None;
            }
            (None, _, _) => {
                self.wrong(*common_at, "certificate and key belong together", "give both, or neither");
                return None;
            }
        };
        let folder = self.path.parent().unwrap_or(Path::new(""));
        Some(TlsFiles {
            ca: folder.join(&common.ca),
            certificate: folder.join(pair.certificate),
            key: folder.join(pair.key),
            names: BTreeMap::new(),
        })
    }
}

/// Where something about a node stands.
struct Lines {
    id: usize,
    name: usize,
    address: usize,
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}
