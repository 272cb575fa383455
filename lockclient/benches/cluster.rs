//! What locks cost between nodes: one at a time, many at once, and when a node dies. Whole nodes on loopback addresses.
//!
//! `cargo bench --bench cluster` prints the numbers; the README quotes them.

use lockclient::fence::FenceDevice;
use lockclient::flags::LockFlags;
use lockclient::frame::Slot;
use lockclient::ids::{LockId, NodeId};
use lockclient::membership::fixed::{Fixed, FixedConfig};
use lockclient::mode::Mode;
use lockclient::node::space::{Completion, LockClient, LockRequest, LockSpace, Progress, Prompt};
use lockclient::node::{Node, NodeConfig};
use lockclient::status::{Refusal, Status};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

const TOKEN_MS: u64 = 1000;
const NONE: LockFlags = LockFlags::empty();

/// What a node's lockspace tells.
struct Desk {
    done: Mutex<Sender<(u64, Completion)>>,
    /// Locks that go on by themselves, so many times, when they are told of an end.
    again: AtomicU64,
    space: OnceLock<LockSpace>,
    ended: AtomicU64,
    stopped: Mutex<Option<Instant>>,
    recovered: Mutex<Option<(Instant, Instant)>>,
}

impl LockClient for Desk {
    fn prompt(&self) -> Prompt {
        Prompt::Always
    }
    fn completed(&self, token: u64, completion: Completion) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        let again = self.again.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        match (self.space.get(), completion.status) {
            (Some(space), Status::Granted) if again => {
                // Downwards has no answer, upwards has.
                space.convert(completion.lock, Mode::Nl, NONE, None).expect("down");
                space.convert(completion.lock, Mode::Ex, NONE, None).expect("up");
            }
            _ => {
                // Whoever listened may have heard enough.
                let _gone = self.done.lock().expect("queue").send((token, completion));
            }
        }
    }
    fn blocking(&self, _token: u64, _lock: LockId, _mode: Mode) {}
    fn refused(&self, call: u64, why: Refusal) {
        panic!("call {call} refused: {why}");
    }
    fn prepare(&self) {
        *self.stopped.lock().expect("time") = Some(Instant::now());
    }
    fn recovered(&self, _slots: &[Slot], _our_slot: u16, _generation: u32) {
        if let Some(stopped) = *self.stopped.lock().expect("time") {
            *self.recovered.lock().expect("time") = Some((stopped, Instant::now()));
        }
    }
}

struct Member {
    node: Node,
    desk: Arc<Desk>,
    space: LockSpace,
    done: Receiver<(u64, Completion)>,
}

impl Member {
    fn request(&self, token: u64, name: &str, mode: Mode) -> Progress {
        let name = name.as_bytes();
        let request =
            LockRequest { token, name, mode, flags: NONE, lvb: None, wants_notices: true, uses_lost_value: false };
        self.space.request(request).expect("request")
    }

    /// A lock that is granted, here or elsewhere.
    fn lock(&self, name: &str, mode: Mode) -> LockId {
        match self.request(0, name, mode) {
            Progress::Done(completion) => completion.lock,
            _ => self.done.recv().expect("answer").1.lock,
        }
    }
}

fn cluster(runtime: &Runtime, net: u8, count: u32) -> Vec<Member> {
    let nodes: Vec<NodeId> = (1..=count).map(NodeId).collect();
    let address = |node: u32| SocketAddr::from((Ipv4Addr::new(127, 98, net, node as u8), 21064));
    let start = |id: &NodeId| NodeConfig {
        node: *id,
        address: address(id.0),
        peers: nodes.iter().filter(|node| *node != id).map(|node| (*node, address(node.0))).collect(),
        membership: Box::new(Fixed::new(FixedConfig {
            node: *id,
            incarnation: u64::from(std::process::id()),
            name: "bench".into(),
            nodes: nodes.clone(),
            token_ms: TOKEN_MS,
            startup_ms: 1000,
            fencing: true,
        })),
        fence: nodes.iter().map(|n| (*n, FenceDevice { agent: "none".into(), options: vec![] })).collect(),
        tls: None,
    };
    let configs: Vec<NodeConfig> = nodes.iter().map(start).collect();
    runtime.block_on(async {
        let mut members = Vec::new();
        let mut started = Vec::new();
        for config in configs {
            started.push(Node::start(config).await.expect("node"));
        }
        for node in started {
            let (sender, done) = channel();
            let desk = Arc::new(Desk {
                done: Mutex::new(sender),
                again: AtomicU64::new(0),
                space: OnceLock::new(),
                ended: AtomicU64::new(0),
                stopped: Mutex::new(None),
                recovered: Mutex::new(None),
            });
            let space = node.join("bench", desk.clone(), |_| {}).await.expect("join");
            assert!(desk.space.set(space.clone()).is_ok(), "set once");
            members.push(Member { node, desk, space, done });
        }
        members
    })
}

/// The round trip of two frames over bare sockets, two threads.
fn bare_round_trip() -> Duration {
    const ROUNDS: u32 = 20_000;
    let listener = TcpListener::bind("127.98.0.1:0").expect("socket");
    let mut near = TcpStream::connect(listener.local_addr().expect("address")).expect("connection");
    let (mut far, _) = listener.accept().expect("connection");
    near.set_nodelay(true).expect("option");
    far.set_nodelay(true).expect("option");
    let echo = std::thread::spawn(move || {
        let mut frame = [0; 144];
        while far.read_exact(&mut frame).is_ok() {
            far.write_all(&frame).expect("echo");
        }
    });
    let mut frame = [0; 144];
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        near.write_all(&frame).expect("ask");
        near.read_exact(&mut frame).expect("answer");
    }
    let each = begun.elapsed() / ROUNDS;
    drop(near);
    echo.join().expect("thread");
    each
}

fn report(what: &str, value: String) {
    println!("{what:<64} {value:>16}");
}

fn micros(time: Duration) -> String {
    format!("{:.1} us", time.as_secs_f64() * 1e6)
}

fn one_at_a_time(members: &[Member]) {
    const ROUNDS: usize = 20_000;
    let _anchor = members[0].lock("single", Mode::Nl);
    let lock = members[1].lock("single", Mode::Nl);
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        members[1].space.convert(lock, Mode::Ex, NONE, None).expect("up");
        members[1].done.recv().expect("answer");
        times.push(begun.elapsed());
        members[1].space.convert(lock, Mode::Nl, NONE, None).expect("down");
    }
    times.sort();
    // Without a thread of the caller's to be woken: the lock is converted again from the callback.
    members[1].desk.again.store(ROUNDS as u64, Ordering::Relaxed);
    let begun = Instant::now();
    members[1].space.convert(lock, Mode::Ex, NONE, None).expect("up");
    members[1].done.recv().expect("answer");
    let each = begun.elapsed() / ROUNDS as u32;
    let bare = bare_round_trip();
    report("bare round trip of two frames, two threads", micros(bare));
    report("conversion NL -> EX, mastered elsewhere, again from its callback", micros(each));
    report("  beyond the bare round trip", micros(each.saturating_sub(bare)));
    report("conversion NL -> EX, mastered elsewhere, a thread waits: median", micros(times[ROUNDS / 2]));
    report("  99 of 100", micros(times[ROUNDS * 99 / 100]));
    report("  median beyond the bare round trip", micros(times[ROUNDS / 2].saturating_sub(bare)));
}

fn many_at_once(members: &[Member]) {
    const LOCKS: u64 = 1000;
    const ROUNDS: u64 = 400_000;
    let there = &members[1];
    let names: Vec<String> = (0..LOCKS).map(|n| format!("pipe{n}")).collect();
    for name in &names {
        members[0].lock(name, Mode::Nl);
    }
    // New locks and their ends, a thousand under way.
    let before = there.desk.ended.load(Ordering::Relaxed);
    let begun = Instant::now();
    let mut under_way: Vec<LockId> = Vec::new();
    for _ in 0..100 {
        for (token, name) in names.iter().enumerate() {
            assert!(matches!(there.request(token as u64, name, Mode::Pr), Progress::Pending(_)), "mastered elsewhere");
        }
        for _ in 0..LOCKS {
            under_way.push(there.done.recv().expect("answer").1.lock);
        }
        for lock in under_way.drain(..) {
            there.space.unlock(lock, NONE, None).expect("unlock");
        }
        (0..LOCKS).for_each(|_| drop(there.done.recv().expect("answer")));
    }
    let answers = there.desk.ended.load(Ordering::Relaxed) - before;
    let rate = answers as f64 / begun.elapsed().as_secs_f64();
    report("new locks and unlocks mastered elsewhere, 1000 under way", format!("{rate:.0} /s"));
    // Conversions that go on by themselves.
    let locks: Vec<LockId> = names.iter().map(|name| there.lock(name, Mode::Nl)).collect();
    there.desk.again.store(ROUNDS, Ordering::Relaxed);
    let begun = Instant::now();
    for lock in &locks {
        there.space.convert(*lock, Mode::Ex, NONE, None).expect("up");
    }
    (0..LOCKS).for_each(|_| drop(there.done.recv().expect("answer")));
    let rate = (ROUNDS + LOCKS) as f64 / begun.elapsed().as_secs_f64();
    report("conversions NL -> EX (and back), 1000 under way: answered", format!("{rate:.0} /s"));
}

/// Takes a lock on each name and waits for all of them.
fn take(member: &Member, names: &[String]) {
    let pending = |name: &String| matches!(member.request(0, name, Mode::Pr), Progress::Pending(_));
    let pending = names.iter().map(pending).filter(|pending| *pending).count();
    (0..pending).for_each(|_| drop(member.done.recv().expect("answer")));
}

/// A hundred thousand locks among three nodes, each resource known to two; one dies.
fn recovery(runtime: &Runtime) {
    const LOCKS: usize = 100_000;
    let mut members = cluster(runtime, 2, 3);
    let names: Vec<Vec<String>> =
        (0..3).map(|node| (0..LOCKS / 6).map(|n| format!("{:>8x}{:>16x}", node, n)).collect()).collect();
    for (node, names) in names.iter().enumerate() {
        take(&members[node], names);
    }
    for (node, names) in names.iter().enumerate() {
        take(&members[(node + 1) % 3], names);
    }
    let _held = members[2].lock("wanted", Mode::Ex);
    let Progress::Pending(_) = members[0].request(7, "wanted", Mode::Ex) else { panic!("has to wait") };
    // What is there is from joining.
    members.iter().for_each(|member| *member.desk.recovered.lock().expect("time") = None);
    let dead = members.pop().expect("three");
    let died = Instant::now();
    drop(dead);
    let granted = loop {
        let (token, completion) = members[0].done.recv().expect("grant");
        if token == 7 && completion.status == Status::Granted {
            break Instant::now();
        }
    };
    let longest = members.iter().map(|member| {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some((stopped, recovered)) = *member.desk.recovered.lock().expect("time") {
                break recovered - stopped;
            }
            assert!(Instant::now() < deadline, "recovery does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let longest = longest.max().expect("two");
    report(
        "recovery, 100000 locks, one of three dies: stop to recovered",
        format!("{:.0} ms", longest.as_secs_f64() * 1e3),
    );
    report("  death to grant, token 1000 ms", format!("{:.0} ms", (granted - died).as_secs_f64() * 1e3));
    members.into_iter().for_each(|member| drop(member.node));
}

/// A node that holds what another wants dies.
fn detection(runtime: &Runtime) {
    let mut worst = Duration::ZERO;
    for net in 10..15 {
        let mut members = cluster(runtime, net, 3);
        let _held = members[2].lock("wanted", Mode::Ex);
        let Progress::Pending(_) = members[0].request(7, "wanted", Mode::Ex) else { panic!("has to wait") };
        let dead = members.pop().expect("three");
        let died = Instant::now();
        drop(dead);
        members[0].done.recv().expect("grant");
        worst = worst.max(died.elapsed());
        members.into_iter().for_each(|member| drop(member.node));
    }
    report("death to grant, few locks, token 1000 ms: worst of 5", format!("{:.0} ms", worst.as_secs_f64() * 1e3));
}

fn main() {
    // Words choose: single, many, death, recovery.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |part: &str| words.is_empty() || words.iter().any(|word| word == part);
    let runtime = Runtime::new().expect("runtime");
    let members = cluster(&runtime, 1, 2);
    if wanted("single") {
        one_at_a_time(&members);
    }
    if wanted("many") {
        many_at_once(&members);
    }
    members.into_iter().for_each(|member| drop(member.node));
    if wanted("death") {
        detection(&runtime);
    }
    if wanted("recovery") {
        recovery(&runtime);
    }
}
