//! Whole nodes on loopback addresses, each with its part of the cluster; the disk is pretended.

mod deaths;
mod glocks;
mod mounts;
mod parting;

use super::{Cluster, JoinError, JoinOptions, Mounter, Recovery};
use crate::error::Result;
use crate::ids::Jid;
use crate::sync::Mutex;
use lockclient::fence::FenceDevice;
use lockclient::ids::NodeId;
use lockclient::membership::fixed::{Fixed, FixedConfig};
use lockclient::node::{Node, NodeConfig};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

static NETS: AtomicU8 = AtomicU8::new(1);
static LIVES: AtomicU64 = AtomicU64::new(1);

/// Some machines that may be nodes, and the disk they share. Each has its own addresses, so that tests can run side by side.
struct Lab {
    runtime: Runtime,
    net: u8,
    count: u32,
    disk: Arc<Disk>,
}

/// The disk of the pretended filesystem: which journals are dirty, and how often each was replayed.
#[derive(Default)]
struct Disk {
    dirty: Mutex<BTreeMap<u32, bool>>,
    replays: Mutex<BTreeMap<u32, u32>>,
    /// What the nodes count under their locks.
    values: Mutex<BTreeMap<u64, u64>>,
    /// A replay does not go on while this is set.
    stuck: AtomicBool,
    /// A write of whoever withdraws does not end while this is set.
    writing: AtomicBool,
    /// Replays fail while this is set.
    broken: AtomicBool,
    frozen: AtomicU32,
}

impl Disk {
    fn is_dirty(&self, jid: u32) -> bool {
        self.dirty.lock().get(&jid).copied().unwrap_or(false)
    }
    fn soil(&self, jid: u32) {
        self.dirty.lock().insert(jid, true);
    }
    fn replay(&self, jid: u32) {
        while self.stuck.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.dirty.lock().insert(jid, false) == Some(true) {
            *self.replays.lock().entry(jid).or_default() += 1;
        }
    }
    fn replays(&self, jid: u32) -> u32 {
        self.replays.lock().get(&jid).copied().unwrap_or(0)
    }
}

/// A mounted volume, as far as the cluster knows it.
struct Volume {
    disk: Arc<Disk>,
    frozen: AtomicBool,
    lost: AtomicBool,
}

impl Recovery for Volume {
    fn recover(&self, jid: Jid) -> Result<()> {
        if self.disk.broken.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("broken on purpose").into());
        }
        self.disk.replay(jid.0);
        Ok(())
    }
    fn journals(&self) -> u32 {
        4
    }
    fn is_clean(&self, jid: Jid) -> Result<bool> {
        Ok(!self.disk.is_dirty(jid.0))
    }
    fn is_quiet(&self) -> bool {
        !self.disk.writing.load(Ordering::SeqCst)
    }
    fn freeze(&self) -> Result<()> {
        assert!(!self.frozen.swap(true, Ordering::SeqCst), "frozen twice");
        self.disk.frozen.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
    fn thaw(&self) {
        assert!(self.frozen.swap(false, Ordering::SeqCst), "thawed twice");
        self.disk.frozen.fetch_sub(1, Ordering::SeqCst);
    }
    fn lost(&self) {
        self.lost.store(true, Ordering::SeqCst);
    }
}

/// A node that has joined.
struct Member {
    node: Arc<Node>,
    cluster: Arc<Cluster>,
    volume: Arc<Volume>,
}

impl Lab {
    fn new(count: u32) -> Self {
        if std::env::var_os("GFS2R_LOG").is_some() {
            // One test may have done it before.
            let _first =
                tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).try_init();
        }
        let runtime = Runtime::new().expect("runtime");
        Self { runtime, net: NETS.fetch_add(1, Ordering::Relaxed), count, disk: Arc::default() }
    }

    fn address(&self, node: u32) -> SocketAddr {
        let unique = (std::process::id() % 250) as u8;
        SocketAddr::from((Ipv4Addr::new(127, 150 + self.net, unique, node as u8), 21064))
    }

    fn config(&self, id: u32) -> NodeConfig {
        let nodes: Vec<NodeId> = (1..=self.count).map(NodeId).collect();
        NodeConfig {
            node: NodeId(id),
            address: self.address(id),
            tls: None,
            peers: nodes.iter().filter(|n| n.0 != id).map(|n| (*n, self.address(n.0))).collect(),

            membership: Box::new(Fixed::new(FixedConfig {
                node: NodeId(id),
                incarnation: LIVES.fetch_add(1, Ordering::Relaxed),
                name: "test".into(),
                nodes: nodes.clone(),
                token_ms: 2500,
                startup_ms: 3000,
                fencing: true,
            })),
            fence: nodes.iter().map(|n| (*n, FenceDevice { agent: "none".into(), options: vec![] })).collect(),
        }
    }

    fn node(&self, id: u32) -> Arc<Node> {
        // The address of a node that has just died may be in use for a moment.
        let start = Instant::now();
        loop {
            match self.runtime.block_on(Node::start(self.config(id))) {
                Ok(node) => return Arc::new(node),
                Err(error) => assert!(start.elapsed() < Duration::from_secs(10), "{error}"),
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn nodes(&self) -> Vec<Arc<Node>> {
        (1..=self.count).map(|id| self.node(id)).collect()
    }

    /// Joins, without serving.
    fn join(&self, node: &Arc<Node>) -> Result<Member, JoinError> {
        let cluster = Cluster::join(node, "fs0", &JoinOptions::default())?;
        let volume = Arc::new(Volume {
            disk: Arc::clone(&self.disk),
            frozen: AtomicBool::new(false),
            lost: AtomicBool::new(false),
        });
        Ok(Member { node: Arc::clone(node), cluster, volume })
    }

    /// Joins, opens what is pretended to be a volume, serves.
    fn mount(&self, node: &Arc<Node>) -> Member {
        let member = self.join(node).expect("joined");
        member.open(&self.disk);
        member
    }

    /// All nodes, mounted one after the other.
    fn members(&self) -> Vec<Member> {
        let nodes = self.nodes();
        std::thread::scope(|scope| {
            let mounts: Vec<_> = nodes.iter().map(|node| scope.spawn(|| self.mount(node))).collect();
            mounts.into_iter().map(|mount| mount.join().expect("mounted")).collect()
        })
    }
}

impl Member {
    /// What a mount does when it has joined.
    fn open(&self, disk: &Arc<Disk>) {
        let jid = self.cluster.jid().0;
        if self.cluster.mounter() == Mounter::First {
            (0..4).for_each(|jid| disk.replay(jid));
        }
        assert!(!disk.is_dirty(jid), "journal {jid} is ours and nobody has replayed it");
        disk.soil(jid);
        self.cluster.serve(Arc::clone(&self.volume) as _).expect("serving");
    }

    fn jid(&self) -> u32 {
        self.cluster.jid().0
    }

    /// Closes the volume in order, leaves.
    fn unmount(self) -> Arc<Node> {
        self.volume.disk.dirty.lock().insert(self.jid(), false);
        self.cluster.leave();
        self.node
    }

    /// Dies.
    fn crash(self) {
        self.cluster.let_go_of_node();
        assert!(Arc::into_inner(self.node).is_some(), "nobody else has the node");
        until("it notices its own end", || self.volume.lost.load(Ordering::SeqCst));
    }
}

/// Waits for something that is to happen soon.
fn until(what: &str, happened: impl Fn() -> bool) {
    let start = Instant::now();
    while !happened() {
        assert!(start.elapsed() < Duration::from_secs(30), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
