//! Whole nodes on loopback addresses: sockets, threads and all.

mod parting;
mod silence;
mod stopped;

use super::*;
use crate::client::{LockError, Locks};
use crate::flags::LockFlags;
use crate::membership::fixed::{Fixed, FixedConfig};
use crate::mode::Mode;
use crate::status::Status;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::mpsc::unbounded_channel;

/// Each cluster has its own addresses, so that tests can run side by side.
pub(super) struct Place {
    net: u8,
    count: u32,
}

static NETS: AtomicU8 = AtomicU8::new(1);
static LIVES: AtomicU64 = AtomicU64::new(1);

impl Place {
    pub(super) fn new(count: u32) -> Place {
        Place { net: NETS.fetch_add(1, Ordering::Relaxed), count }
    }

    fn address(&self, node: u32) -> SocketAddr {
        let unique = (std::process::id() % 250) as u8;
        SocketAddr::from((Ipv4Addr::new(127, 100 + self.net, unique, node as u8), 21064))
    }

    pub(super) async fn node(&self, id: u32, unsafe_no_fencing: bool) -> Node {
        // The address of a node that has just died may be in use for a moment.
        let mut left = 50;
        loop {
            match Node::start(self.config(id, unsafe_no_fencing)).await {
                Ok(node) => return node,
                Err(error) => {
                    left -= 1;
                    assert!(left > 0, "{error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn config(&self, id: u32, unsafe_no_fencing: bool) -> NodeConfig {
        let nodes: Vec<NodeId> = (1..=self.count).map(NodeId).collect();
        NodeConfig {
            node: NodeId(id),
            address: self.address(id),
            peers: nodes.iter().filter(|n| n.0 != id).map(|n| (*n, self.address(n.0))).collect(),
            membership: Box::new(Fixed::new(FixedConfig {
                node: NodeId(id),
                incarnation: LIVES.fetch_add(1, Ordering::Relaxed),
                name: "test".into(),
                nodes: nodes.clone(),
                token_ms: 600,
                startup_ms: 1000,
                fencing: !unsafe_no_fencing,
            })),
            fence: nodes.iter().map(|n| (*n, FenceDevice { agent: "none".into(), options: vec![] })).collect(),
            tls: None,
        }
    }
}

const NONE: LockFlags = LockFlags::empty();

#[tokio::test(flavor = "multi_thread")]
async fn a_single_node_locks() {
    let place = Place::new(1);
    let node = place.node(1, true).await;
    let locks = Locks::join(&node, "solo", |_| {}).await.expect("join");
    let mut lock = locks.lock(b"r", Mode::Pr).await.expect("lock");
    assert_eq!(locks.lock_with(b"r", Mode::Ex, LockFlags::NOQUEUE).await, Err(LockError::Failed(Status::Again)));
    locks.convert(&mut lock, Mode::Ex).await.expect("convert");
    assert_eq!(lock.mode, Some(Mode::Ex));
    locks.unlock(lock).await.expect("unlock");
    node.release(locks.space()).await;
    assert!(matches!(locks.lock(b"r", Mode::Ex).await, Err(LockError::Refused(_))));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_nodes_pass_a_lock_around_with_its_value() {
    let place = Place::new(3);
    let mut nodes = Vec::new();
    for id in 1..=3 {
        nodes.push(place.node(id, true).await);
    }
    let (notices, mut noticed) = unbounded_channel();
    let mut spaces = Vec::new();
    for node in &nodes {
        let notices = notices.clone();
        let tell = move |notice| notices.send(notice).expect("the test is there");
        let join = tokio::time::timeout(Duration::from_secs(30), Locks::join(node, "ring", tell));
        spaces.push(join.await.expect("in time").expect("join"));
    }
    let mut held = spaces[0].lock_with(b"baton", Mode::Ex, LockFlags::VALBLK).await.expect("lock");
    for round in 1..30u8 {
        let from = &spaces[usize::from(round + 2) % 3];
        let to = spaces[usize::from(round) % 3].clone();
        let waiting = tokio::spawn(async move { to.lock_with(b"baton", Mode::Ex, LockFlags::VALBLK).await });
        let notice = noticed.recv().await.expect("notice");
        assert_eq!((notice.lock, notice.mode), (held.lock, Mode::Ex));
        from.convert_with(&mut held, Mode::Nl, LockFlags::VALBLK, Some(vec![round; 32].into())).await.expect("down");
        let mut next = waiting.await.expect("task").expect("lock");
        // The value travels with the lock.
        let to = &spaces[usize::from(round) % 3];
        to.convert_with(&mut next, Mode::Nl, NONE, None).await.expect("down");
        let back = to.convert_with(&mut next, Mode::Ex, LockFlags::VALBLK, None).await.expect("up");
        assert_eq!(back.lvb.as_deref(), Some(&[round; 32][..]));
        from.unlock(held).await.expect("unlock");
        held = next;
        while noticed.try_recv().is_ok() {}
    }
    let text = spaces[0].space().dump();
    assert!(text.contains("baton"), "{text}");
    for (node, locks) in nodes.iter().zip(&spaces) {
        node.release(locks.space()).await;
    }
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_break_lose_nothing() {
    let place = Place::new(2);
    let nodes = [place.node(1, true).await, place.node(2, true).await];
    let mut spaces = Vec::new();
    for node in &nodes {
        let join = tokio::time::timeout(Duration::from_secs(30), Locks::join(node, "breaks", |_| {}));
        spaces.push(join.await.expect("in time").expect("join"));
    }
    let counters: Arc<Vec<AtomicU64>> = Arc::new((0..8).map(|_| AtomicU64::new(0)).collect());
    let mut tasks = Vec::new();
    for (locks, worker) in spaces.iter().flat_map(|locks| (0..4).map(move |worker| (locks.clone(), worker))) {
        let counters = counters.clone();
        tasks.push(tokio::spawn(async move {
            for round in 0..600 {
                let which = (round + worker) % counters.len();
                let lock = locks.lock(format!("counter{which}").as_bytes(), Mode::Ex).await.expect("lock");
                let seen = counters[which].load(Ordering::Relaxed);
                tokio::task::yield_now().await;
                counters[which].store(seen + 1, Ordering::Relaxed);
                locks.unlock(lock).await.expect("unlock");
            }
        }));
    }
    let mut breaks = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while tasks.iter().any(|task| !task.is_finished()) {
        assert!(Instant::now() < deadline, "locks hang after {breaks} breaks");
        tokio::time::sleep(Duration::from_millis(3)).await;
        breaks += 1;
        nodes[breaks % 2].break_connections();
    }
    for task in tasks {
        task.await.expect("worker");
    }
    println!("{breaks} breaks");
    assert_eq!(counters.iter().map(|c| c.load(Ordering::Relaxed)).sum::<u64>(), 2 * 4 * 600);
    for node in nodes {
        node.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_dies_and_its_locks_are_free_after_fencing() {
    let place = Place::new(3);
    let mut nodes: Vec<Option<Node>> = Vec::new();
    for id in 1..=3 {
        nodes.push(Some(place.node(id, false).await));
    }
    let mut spaces = Vec::new();
    for node in nodes.iter().flatten() {
        let join = tokio::time::timeout(Duration::from_secs(30), Locks::join(node, "death", |_| {}));
        spaces.push(join.await.expect("in time").expect("join"));
    }
    let names: Vec<Vec<u8>> = (0..40).map(|i| format!("r{i}").into_bytes()).collect();
    for name in &names {
        spaces[1].lock(name, Mode::Ex).await.expect("lock");
    }
    let survivor = spaces[2].clone();
    let wanted = names.clone();
    let waiting = tokio::spawn(async move {
        for name in &wanted {
            survivor.lock(name, Mode::Ex).await.expect("lock");
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!waiting.is_finished());
    drop(nodes[1].take());
    tokio::time::timeout(Duration::from_secs(30), waiting).await.expect("in time").expect("all locks");
    // The dead one comes back as another, and finds the locks taken.
    let again = place.node(2, false).await;
    let locks = tokio::time::timeout(Duration::from_secs(30), Locks::join(&again, "death", |_| {})).await;
    let locks = locks.expect("in time").expect("join");
    assert_eq!(locks.lock_with(&names[0], Mode::Pr, LockFlags::NOQUEUE).await, Err(LockError::Failed(Status::Again)));
    drop(nodes);
    drop(again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_lock_that_nobody_wants_any_more_is_given_back() {
    let place = Place::new(1);
    let node = place.node(1, true).await;
    let locks = Locks::join(&node, "drop", |_| {}).await.expect("join");
    let first = locks.lock(b"r", Mode::Ex).await.expect("lock");
    let given_up = tokio::time::timeout(Duration::from_millis(20), locks.lock(b"r", Mode::Ex)).await;
    assert!(given_up.is_err());
    locks.unlock(first).await.expect("unlock");
    let third = tokio::time::timeout(Duration::from_secs(10), locks.lock(b"r", Mode::Ex)).await;
    third.expect("the one given up does not stand in the way").expect("lock");
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_learns_that_the_lockspace_has_ended() {
    let place = Place::new(1);
    for abrupt in [false, true] {
        let node = place.node(1, true).await;
        let locks = Locks::join(&node, "end", |_| {}).await.expect("join");
        let held = locks.lock(b"r", Mode::Ex).await.expect("lock");
        let waiting = tokio::spawn({
            let locks = locks.clone();
            async move { locks.lock(b"r", Mode::Ex).await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        if abrupt {
            drop(node);
        } else {
            node.release(locks.space()).await;
        }
        let answer = tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("in time").expect("task");
        assert_eq!(answer, Err(LockError::Refused(crate::status::Refusal::NoDevice)));
        assert!(locks.unlock(held).await.is_err());
    }
}

#[test]
fn threads_may_wait_too() {
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let place = Place::new(1);
    let (node, locks) = runtime.block_on(async {
        let node = place.node(1, true).await;
        let locks = Locks::join(&node, "threads", |_| {}).await.expect("join");
        (node, locks)
    });
    let counter = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let (locks, counter) = (locks.clone(), counter.clone());
            std::thread::spawn(move || {
                for _ in 0..200 {
                    let lock = locks.lock_blocking(b"counter", Mode::Ex, NONE).expect("lock");
                    let seen = counter.load(Ordering::Relaxed);
                    std::thread::yield_now();
                    counter.store(seen + 1, Ordering::Relaxed);
                    locks.unlock_blocking(lock).expect("unlock");
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("thread"));
    assert_eq!(counter.load(Ordering::Relaxed), 800);
    runtime.block_on(node.shutdown());
}

/// A client that is slow to hear.
struct Slow {
    heard: std::sync::Mutex<Vec<(u64, Status)>>,
    gate: std::sync::Mutex<std::sync::mpsc::Receiver<()>>,
}

impl LockClient for Slow {
    fn completed(&self, token: u64, completion: space::Completion) {
        self.gate.lock().expect("gate").recv().expect("the test opens it");
        self.heard.lock().expect("list").push((token, completion.status));
    }
    fn blocking(&self, _token: u64, _lock: crate::ids::LockId, _mode: Mode) {}
    fn refused(&self, _call: u64, _why: crate::status::Refusal) {}
}

/// Found beside a kernel: the forced unlock of a lock was answered before the client had heard of its grant.
#[tokio::test(flavor = "multi_thread")]
async fn a_forced_unlock_does_not_overtake_the_grant() {
    let place = Place::new(1);
    let node = place.node(1, true).await;
    let (open, gate) = std::sync::mpsc::channel();
    let client = Arc::new(Slow { heard: std::sync::Mutex::default(), gate: std::sync::Mutex::new(gate) });
    let space = node.join("slow", client.clone(), |_| {}).await.expect("join");
    let request = |token| space::LockRequest {
        token,
        name: b"r",
        mode: Mode::Ex,
        flags: NONE,
        lvb: None,
        wants_notices: false,
        uses_lost_value: false,
    };
    let Ok(space::Progress::Done(first)) = space.request(request(1)) else { panic!("granted at once") };
    let Ok(space::Progress::Pending(second)) = space.request(request(2)) else { panic!("has to wait") };
    space.unlock(first.lock, NONE, None).expect("unlock");
    // The second lock has been granted, and its client has not heard of it.
    let progress = space.unlock(second, LockFlags::FORCEUNLOCK, None);
    assert_eq!(progress, Ok(space::Progress::Pending(second)));
    open.send(()).expect("client");
    open.send(()).expect("client");
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.heard.lock().expect("list").len() < 2 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(*client.heard.lock().expect("list"), [(2, Status::Granted), (2, Status::Unlocked)]);
    node.shutdown().await;
}

/// Without trust a call waits; with it, it is carried out.
#[tokio::test(flavor = "multi_thread")]
async fn calls_wait_while_the_node_is_not_trusted() {
    let place = Place::new(1);
    let node = place.node(1, true).await;
    let (open, gate) = std::sync::mpsc::channel();
    let client = Arc::new(Slow { heard: std::sync::Mutex::default(), gate: std::sync::Mutex::new(gate) });
    let space = node.join("trust", client.clone(), |_| {}).await.expect("join");
    assert!(space.is_trusted());
    let mut token = 0;
    // The driver, which knows that there is nobody else, may be quicker.
    let waits = (0..1000).any(|_| {
        token += 1;
        node.links.trust.renew(0);
        let request = space::LockRequest {
            token,
            name: b"r",
            mode: Mode::Pr,
            flags: NONE,
            lvb: None,
            wants_notices: false,
            uses_lost_value: false,
        };
        matches!(space.request(request), Ok(space::Progress::Queued(_)))
    });
    assert!(waits);
    open.send(()).expect("client");
    let deadline = Instant::now() + Duration::from_secs(10);
    while client.heard.lock().expect("list").is_empty() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(*client.heard.lock().expect("list"), [(token, Status::Granted)]);
    assert!(space.is_trusted());
    node.shutdown().await;
}

/// Scenario 55: both ends connect at the same moment, each keeps its own connection.
#[tokio::test(flavor = "multi_thread")]
async fn s55_both_connect_at_once() {
    for _ in 0..4 {
        let place = Place::new(2);
        let nodes = [place.node(1, true).await, place.node(2, true).await];
        let both = async {
            let (a, b) = tokio::join!(Locks::join(&nodes[0], "both", |_| {}), Locks::join(&nodes[1], "both", |_| {}));
            let (a, b) = (a.expect("join"), b.expect("join"));
            for name in [&b"x"[..], b"y", b"z"] {
                let (x, y) = tokio::join!(a.lock(name, Mode::Pr), b.lock(name, Mode::Pr));
                a.unlock(x.expect("lock")).await.expect("unlock");
                b.unlock(y.expect("lock")).await.expect("unlock");
            }
        };
        tokio::time::timeout(Duration::from_secs(30), both).await.expect("in time");
        for node in nodes {
            node.shutdown().await;
        }
    }
}

/// A peer made of bare sockets: asks for the status of a lockspace, on any connection.
async fn ask(stream: &mut tokio::net::TcpStream, tag: u64) -> std::io::Result<()> {
    let body = crate::frame::RcomBody::Status { need_slots: false };
    let rcom = crate::frame::Rcom { result: 0, id: tag, seq: 1, seq_reply: 0, body };
    let bytes = crate::wire::encode(NodeId(2), 77, &crate::frame::Frame::Rcom(Box::new(rcom))).expect("fits");
    tokio::io::AsyncWriteExt::write_all(stream, &bytes).await
}

/// The tag of the next answer.
async fn answered(stream: &mut tokio::net::TcpStream) -> u64 {
    use tokio::io::AsyncReadExt;
    loop {
        let mut bytes = vec![0; crate::wire::HEADER];
        stream.read_exact(&mut bytes).await.expect("an answer");
        let length = crate::wire::frame_length(&bytes).expect("a frame").expect("a header");
        bytes.resize(length, 0);
        stream.read_exact(&mut bytes[crate::wire::HEADER..]).await.expect("a whole answer");
        if let crate::wire::PacketBody::Frame { frame: crate::frame::Frame::Rcom(rcom), .. } =
            crate::wire::decode(&bytes).expect("decodes").body
        {
            return rcom.id;
        }
    }
}

/// Scenario 55: a second connection of a peer takes the place of the first; what the first still brings is not heard.
#[tokio::test(flavor = "multi_thread")]
async fn s55_a_second_connection_replaces_the_first() {
    let place = Place::new(2);
    let listener = tokio::net::TcpListener::bind(place.address(2)).await.expect("socket");
    let node = place.node(1, true).await;
    let connect = || async {
        let socket = tokio::net::TcpSocket::new_v4().expect("socket");
        socket.bind(SocketAddr::new(place.address(2).ip(), 0)).expect("address");
        socket.connect(place.address(1)).await.expect("connection")
    };
    let limit = Duration::from_secs(20);
    let mut first = connect().await;
    ask(&mut first, 1).await.expect("sent");
    // Answers come on the node's own connection.
    let (mut back, _) = tokio::time::timeout(limit, listener.accept()).await.expect("in time").expect("connection");
    assert_eq!(tokio::time::timeout(limit, answered(&mut back)).await.expect("in time"), 1);
    let mut second = connect().await;
    ask(&mut second, 2).await.expect("sent");
    assert_eq!(tokio::time::timeout(limit, answered(&mut back)).await.expect("in time"), 2);
    // Refused by the operating system, or written to nobody.
    let _stale = ask(&mut first, 3).await;
    let end = tokio::time::timeout(limit, tokio::io::AsyncReadExt::read(&mut first, &mut [0; 64])).await;
    assert!(end.expect("in time").map_or(true, |length| length == 0), "the first connection is closed");
    ask(&mut second, 4).await.expect("sent");
    assert_eq!(tokio::time::timeout(limit, answered(&mut back)).await.expect("in time"), 4, "3 was not heard");
    node.shutdown().await;
}
