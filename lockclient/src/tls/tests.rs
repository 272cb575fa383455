//! Credentials that are not good enough, and nodes that go on meanwhile.

use super::*;
use crate::client::Locks;
use crate::fence::FenceDevice;
use crate::membership::fixed::{Fixed, FixedConfig};
use crate::mode::Mode;
use crate::node::{Node, NodeConfig};
use crate::transport::{Strangers, Stream};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Signs certificates; its files go with it.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

const NODES: u32 = 3;

fn name(node: u32) -> String {
    format!("node{node}.example.org")
}

impl Authority {
    fn new() -> Authority {
        let dir = tempfile::tempdir().expect("folder");
        let mut params = CertificateParams::new(Vec::new()).expect("params");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("key");
        let certificate = params.self_signed(&key).expect("certificate");
        std::fs::write(dir.path().join("ca.pem"), certificate.pem()).expect("file");
        Authority { dir, issuer: Issuer::new(params, key) }
    }

    /// Credentials in this name, which expire at the end of that year.
    fn files(&self, name: &str, year: i32) -> TlsFiles {
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("params");
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(year, 12, 31));
        let key = KeyPair::generate().expect("key");
        let certificate = params.signed_by(&key, &self.issuer).expect("certificate");
        let path = |what: &str| self.dir.path().join(format!("{name}-{year}.{what}"));
        std::fs::write(path("pem"), certificate.pem()).expect("file");
        std::fs::write(path("key"), key.serialize_pem()).expect("file");
        let names = (1..=NODES).map(|node| (NodeId(node), self::name(node))).collect();
        TlsFiles { ca: self.dir.path().join("ca.pem"), certificate: path("pem"), key: path("key"), names }
    }

    fn node(&self, node: u32) -> TlsFiles {
        self.files(&name(node), 2999)
    }
}

/// Two ends in memory: until both have shaken hands, or one of them does not want to.
fn shake(client: &mut Connection, server: &mut Connection) -> Result<(), rustls::Error> {
    for _ in 0..20 {
        for turn in [false, true] {
            let (from, to) = if turn { (&mut *server, &mut *client) } else { (&mut *client, &mut *server) };
            let mut bytes = Vec::new();
            while from.wants_write() {
                from.write_tls(&mut bytes).expect("memory");
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                to.read_tls(&mut rest).expect("memory");
                to.process_new_packets()?;
            }
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok(())
}

fn pair(near: &Tls, far: &Tls, far_node: u32) -> Result<(Connection, Connection), rustls::Error> {
    let (mut client, mut server) = (near.dial(NodeId(far_node)).expect("client"), far.answer().expect("server"));
    shake(&mut client, &mut server).map(|()| (client, server))
}

#[test]
fn only_the_right_certificate_will_do() {
    let (authority, other) = (Authority::new(), Authority::new());
    let one = Tls::load(&authority.node(1), NodeId(1)).expect("credentials");
    let two = Tls::load(&authority.node(2), NodeId(2)).expect("credentials");
    let (_, server) = pair(&two, &one, 1).expect("both are good");
    assert_eq!(one.who(&server, &[NodeId(2)]), Ok(NodeId(2)));
    assert_eq!(one.who(&server, &[NodeId(3), NodeId(2)]), Ok(NodeId(2)));
    // Another node's name, at either end.
    assert!(one.who(&server, &[NodeId(3)]).is_err());
    assert!(pair(&two, &one, 3).is_err());
    // Another authority, and a certificate that was good once.
    let foreign = Tls::load(&other.node(2), NodeId(2)).expect("credentials");
    assert!(pair(&foreign, &one, 1).is_err() && pair(&one, &foreign, 2).is_err());
    let expired = Tls::load(&authority.files(&name(2), 2001), NodeId(2)).expect("credentials");
    assert!(pair(&expired, &one, 1).is_err() && pair(&one, &expired, 2).is_err());
}

#[test]
fn credentials_are_checked_at_the_start() {
    let authority = Authority::new();
    let good = authority.node(1);
    let load = |files: &TlsFiles| Tls::load(files, NodeId(1)).map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(load(&good), Ok(()));
    let says = |files: TlsFiles, what: &str| {
        let error = load(&files).expect_err(what);
        assert!(error.contains(what) && !error.contains('\n'), "{error}");
    };
    says(authority.node(2), "the certificate is not \"node1.example.org\"'s");
    says(TlsFiles { key: authority.node(2).key, ..good.clone() }, "node2.example.org-2999.key");
    says(TlsFiles { key: "/nonexistent.key".into(), ..good.clone() }, "/nonexistent.key");
    says(TlsFiles { certificate: good.key.clone(), ..good.clone() }, "there is no certificate");
    says(TlsFiles { ca: good.key.clone(), ..good.clone() }, "there is no certificate");
    let names = [(NodeId(1), "not a name".to_owned())].into();
    says(TlsFiles { names, ..good }, "DNS name is expected");
}

#[test]
fn a_seal_vouches_for_one_datagram_of_one_node() {
    let authority = Authority::new();
    let one = Tls::load(&authority.node(1), NodeId(1)).expect("credentials");
    let two = Tls::load(&authority.node(2), NodeId(2)).expect("credentials");
    assert_eq!(one.seals().seal(NodeId(2), b"early"), None);
    let connect = || {
        let (client, server) = pair(&one, &two, 2).expect("good");
        one.seals().dialled(NodeId(2), &client).expect("key");
        two.seals().answered(NodeId(1), &server).expect("key");
    };
    connect();
    let first = one.seals().seal(NodeId(2), b"first").expect("sealed");
    let second = one.seals().seal(NodeId(2), b"second").expect("sealed");
    // Not in another node's name, not with a changed bit, not shortened.
    assert_eq!(two.seals().open(NodeId(3), &first), None);
    for bit in 0..first.len() * 8 {
        let mut forged = first.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(two.seals().open(NodeId(1), &forged), None, "bit {bit}");
    }
    (0..first.len()).for_each(|length| assert_eq!(two.seals().open(NodeId(1), &first[..length]), None));
    assert_eq!(two.seals().open(NodeId(1), &first).as_deref(), Some(&b"first"[..]));
    // Once, and nothing older than what was opened.
    assert_eq!(two.seals().open(NodeId(1), &first), None);
    let third = one.seals().seal(NodeId(2), b"third").expect("sealed");
    assert!(two.seals().open(NodeId(1), &third).is_some());
    assert_eq!(two.seals().open(NodeId(1), &second), None);
    // A new connection, and what is still on its way under the old key.
    let late = one.seals().seal(NodeId(2), b"late").expect("sealed");
    connect();
    let next = one.seals().seal(NodeId(2), b"next").expect("sealed");
    assert!(two.seals().open(NodeId(1), &next).is_some() && two.seals().open(NodeId(1), &late).is_some());
    // Keys do not pile up.
    let oldest = one.seals().seal(NodeId(2), b"oldest").expect("sealed");
    (0..4).for_each(|_| connect());
    assert_eq!(two.seals().open(NodeId(1), &oldest), None);
    // Our own datagram sent back to us.
    assert_eq!(one.seals().open(NodeId(2), &next), None);
}

fn address(net: u8, node: u32) -> SocketAddr {
    let unique = (std::process::id() % 250) as u8;
    SocketAddr::from(([127, 60 + net, unique, node as u8], 21064))
}

async fn start(net: u8, node: u32, count: u32, tls: TlsFiles) -> Node {
    let nodes: Vec<NodeId> = (1..=count).map(NodeId).collect();
    let config = NodeConfig {
        node: NodeId(node),
        address: address(net, node),
        peers: nodes.iter().filter(|n| n.0 != node).map(|n| (*n, address(net, n.0))).collect(),
        membership: Box::new(Fixed::new(FixedConfig {
            node: NodeId(node),
            incarnation: u64::from(node),
            name: "secret".into(),
            nodes: nodes.clone(),
            token_ms: 2000,
            startup_ms: 10_000,
            fencing: true,
        })),
        fence: nodes.iter().map(|n| (*n, FenceDevice { agent: "none".into(), options: Vec::new() })).collect(),
        tls: Some(tls),
    };
    Node::start(config).await.expect("node")
}

async fn join(node: &Node) -> Locks {
    let join = tokio::time::timeout(Duration::from_secs(30), Locks::join(node, "secret", |_| {}));
    join.await.expect("in time").expect("join")
}

/// Two nodes that hand a lock to and fro until they are told to stop.
struct Traffic {
    stop: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Traffic {
    fn begin(spaces: &[Locks]) -> Traffic {
        let (stop, rounds) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let tasks = spaces.iter().cloned().map(|locks| {
            let (stop, rounds) = (stop.clone(), rounds.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let lock = locks.lock(b"baton", Mode::Ex).await.expect("lock");
                    locks.unlock(lock).await.expect("unlock");
                    rounds.fetch_add(1, Ordering::Relaxed);
                    // A lock that is free and mastered here is granted without waiting.
                    tokio::task::yield_now().await;
                }
            })
        });
        let tasks = tasks.collect();
        Traffic { stop, rounds, tasks }
    }

    /// Goes on: a few more rounds from now.
    async fn goes_on(&self) {
        let from = self.rounds.load(Ordering::Relaxed);
        until("the traffic goes on", || self.rounds.load(Ordering::Relaxed) > from + 10).await;
    }

    async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("traffic");
        }
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn connect(from: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("socket");
    socket.bind(SocketAddr::new(from.ip(), 0)).expect("bind");
    socket.connect(to).await.expect("connection")
}

/// Those who may not: each from the address of node 2, all of them at node 1's door.
async fn intrude(net: u8, node: &Node, tls: Option<&Tls>, traffic: &Traffic) {
    let failed = || node.counters().strangers.failed_handshakes;
    for _ in 0..10 {
        let before = failed();
        let mut tcp = connect(address(net, 2), address(net, 1)).await;
        match tls {
            // Whether our end sees the refusal at once is a matter of time.
            Some(tls) => drop(Stream::secret(tcp, tls.dial(NodeId(1)).expect("client")).await),
            None => {
                let frame = crate::wire::encode_ack(NodeId(2), 0);
                tokio::io::AsyncWriteExt::write_all(&mut tcp, &frame).await.expect("bytes");
                let mut end = Vec::new();
                // An alert and the end, or a reset.
                let _alert = tokio::io::AsyncReadExt::read_to_end(&mut tcp, &mut end).await;
            }
        }
        until("counted", || failed() > before).await;
        traffic.goes_on().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_with_certificates_lock_and_intruders_disturb_nobody() {
    let (authority, other, net) = (Authority::new(), Authority::new(), 0);
    let nodes = [start(net, 1, 2, authority.node(1)).await, start(net, 2, 2, authority.node(2)).await];
    let spaces = [join(&nodes[0]).await, join(&nodes[1]).await];
    let traffic = Traffic::begin(&spaces);
    traffic.goes_on().await;
    let quiet = nodes[0].counters();
    assert_eq!(
        quiet.strangers,
        Strangers { failed_handshakes: quiet.strangers.failed_handshakes, ..Strangers::default() }
    );

    intrude(net, &nodes[0], None, &traffic).await;
    let credentials = |files: TlsFiles, node: u32| Tls::load(&files, NodeId(node)).expect("credentials");
    let mut foreign = other.node(2);
    foreign.ca = authority.node(2).ca;
    intrude(net, &nodes[0], Some(&credentials(foreign, 2)), &traffic).await;
    intrude(net, &nodes[0], Some(&credentials(authority.files(&name(2), 2001), 2)), &traffic).await;
    // Signed, but node 3's, and node 3 does not live there.
    intrude(net, &nodes[0], Some(&credentials(authority.node(3), 3)), &traffic).await;

    // Many who say nothing, or begin and do not go on.
    let mut silent = Vec::new();
    for round in 0..100 {
        let mut stranger = connect(address(net, 2), address(net, 1)).await.into_std().expect("stream");
        stranger.write_all(&[22, 3, 1, 2, 0, 1][..round % 7]).expect("bytes");
        silent.push(stranger);
    }
    until("crowded out", || nodes[0].counters().strangers.crowded_out >= 84).await;
    traffic.goes_on().await;
    // And the slow do not stay.
    let before = nodes[0].counters().strangers.failed_handshakes;
    until("too slow", || nodes[0].counters().strangers.failed_handshakes >= before + 16).await;
    traffic.goes_on().await;
    assert!(nodes.iter().all(|node| node.counters().peers[0].connected));
    drop(silent);
    traffic.end().await;
    for node in nodes {
        node.shutdown().await;
    }
}

/// Connections that break take no signs of life with them, and lose nothing.
#[tokio::test(flavor = "multi_thread")]
async fn secret_connections_may_break() {
    let (authority, net) = (Authority::new(), 1);
    let nodes = [start(net, 1, 2, authority.node(1)).await, start(net, 2, 2, authority.node(2)).await];
    let spaces = [join(&nodes[0]).await, join(&nodes[1]).await];
    let traffic = Traffic::begin(&spaces);
    for round in 0..40 {
        traffic.goes_on().await;
        nodes[round % 2].break_connections();
    }
    traffic.goes_on().await;
    let ended = tokio::time::timeout(Duration::from_secs(10), traffic.end()).await;
    let state = || nodes.iter().zip(&spaces).map(|(n, s)| format!("{:?} {}", n.counters(), s.space().dump()));
    assert!(ended.is_ok(), "traffic hangs: {:?}", state().collect::<Vec<_>>());
    for node in nodes {
        node.shutdown().await;
    }
}

/// Someone else listens where a node should be: it is not spoken with, and the others do not mind.
#[tokio::test(flavor = "multi_thread")]
async fn an_impostor_is_not_spoken_with() {
    let (authority, other, net) = (Authority::new(), Authority::new(), 2);
    let listener = TcpListener::bind(address(net, 3)).await.expect("socket");
    let impostor = Tls::load(&other.node(3), NodeId(3)).expect("credentials");
    let met = Arc::new(AtomicU64::new(0));
    let met_there = met.clone();
    let listening = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            assert!(Stream::secret(tcp, impostor.answer().expect("server")).await.is_err(), "nobody trusts it");
            met_there.fetch_add(1, Ordering::Relaxed);
        }
    });
    let nodes = [start(net, 1, 3, authority.node(1)).await, start(net, 2, 3, authority.node(2)).await];
    until("they have met", || met.load(Ordering::Relaxed) >= 2).await;
    assert!(nodes.iter().any(|node| node.counters().strangers.failed_handshakes > 0));
    let spaces = [join(&nodes[0]).await, join(&nodes[1]).await];
    let traffic = Traffic::begin(&spaces);
    traffic.goes_on().await;
    traffic.end().await;
    listening.abort();
    for node in nodes {
        node.shutdown().await;
    }
}
