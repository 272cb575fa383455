//! What an uncontended lock on a resource mastered here costs, and how much memory a lock takes.
//!
//! `cargo bench` prints the numbers; the README quotes them.

use lockclient::engine::{ClientCall, Config, Effect, Engine, Event, LockCall};
use lockclient::flags::LockFlags;
use lockclient::ids::{LockId, Name, NodeId};
use lockclient::membership::fixed::{Fixed, FixedConfig};
use lockclient::mode::Mode;
use lockclient::node::space::{Completion, LockClient, LockRequest, Progress};
use lockclient::node::{Node, NodeConfig};
use lockclient::recovery::{Start, StartMember};
use lockclient::status::Refusal;
use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

fn engine() -> Engine {
    let mut engine = Engine::new(Config::new(NodeId(1)));
    let member = StartMember { node: NodeId(1), weight: 1, incarnation: 1, new: true };
    engine.handle(Event::Start(Start { members: vec![member], cluster: vec![(NodeId(1), 1)], round: 0 }), 0);
    while engine.next_effect().is_some() {}
    assert!(engine.is_running());
    engine
}

/// Lets effects go; the lock of the last one that was accepted.
fn drain(engine: &mut Engine) -> LockId {
    let (mut id, mut completed) = (LockId::NONE, false);
    while let Some(effect) = engine.next_effect() {
        match black_box(effect) {
            Effect::Accepted { lock, .. } => id = lock,
            Effect::Completion { status, .. } => completed = status.is_success(),
            other => panic!("{other:?}"),
        }
    }
    assert!(completed, "an uncontended operation ends at once");
    id
}

fn lock(engine: &mut Engine, number: u64, mode: Mode, flags: LockFlags) -> LockId {
    let name = format!("{:>8x}{number:>16x}", 2);
    let name = Name::new(name.as_bytes()).expect("24 bytes");
    let lvb = flags.contains(LockFlags::VALBLK).then(|| vec![0; 32].into());
    let call = LockCall {
        call: number,
        token: number,
        mode,
        flags,
        name,
        lvb,
        pid: 1,
        wants_notices: true,
        uses_lost_value: false,
    };
    engine.handle(Event::Client(ClientCall::Lock(call)), 0);
    drain(engine)
}

fn convert(engine: &mut Engine, lock: LockId, mode: Mode, flags: LockFlags) {
    engine.handle(Event::Client(ClientCall::Convert { call: 0, lock, mode, flags, lvb: None }), 0);
    drain(engine);
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn report(what: &str, count: u64, begun: Instant) {
    let nanoseconds = begun.elapsed().as_nanos() as f64 / count as f64;
    println!("{what:<56} {nanoseconds:>8.0} ns   {:>10.0} /s", 1e9 / nanoseconds);
}

struct Nobody;

impl LockClient for Nobody {
    fn completed(&self, _token: u64, _completion: Completion) {}
    fn blocking(&self, _token: u64, _lock: LockId, _mode: Mode) {}
    fn refused(&self, _call: u64, _why: Refusal) {}
}

/// The same through a running node: its lock, its queues, its clock.
fn through_a_node() {
    const MANY: u64 = 300_000;
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    let (node, space) = runtime.block_on(async {
        let membership = Fixed::new(FixedConfig {
            node: NodeId(1),
            incarnation: 1,
            name: "bench".into(),
            nodes: vec![NodeId(1)],
            token_ms: 1000,
            startup_ms: 0,
            fencing: false,
        });
        let config = NodeConfig {
            node: NodeId(1),
            address: "127.99.99.1:21064".parse().expect("address"),
            peers: BTreeMap::new(),
            membership: Box::new(membership),
            fence: BTreeMap::new(),
            tls: None,
        };
        let node = Node::start(config).await.expect("node");
        let space = node.join("bench", Arc::new(Nobody), |_| {}).await.expect("join");
        (node, space)
    });
    let begun = Instant::now();
    for n in 0..MANY {
        let name = (n % 1000).to_string();
        let flags = LockFlags::empty();
        let request = LockRequest {
            token: n,
            name: name.as_bytes(),
            mode: Mode::Ex,
            flags,
            lvb: None,
            wants_notices: true,
            uses_lost_value: false,
        };
        let Ok(Progress::Done(completion)) = space.request(request) else { panic!("not granted at once") };
        space.unlock(completion.lock, LockFlags::empty(), None).expect("unlock");
    }
    report("lock and unlock through a running node", MANY, begun);
    runtime.block_on(node.shutdown());
}

fn main() {
    const MANY: u64 = 1_000_000;
    let mut engine = engine();
    let before = resident_bytes();
    let begun = Instant::now();
    let ids: Vec<LockId> = (0..MANY).map(|n| lock(&mut engine, n, Mode::Pr, LockFlags::VALBLK)).collect();
    report("new lock, new resource, value block", MANY, begun);
    let ids_bytes = (ids.capacity() * size_of::<LockId>()) as u64;
    let bytes = resident_bytes().saturating_sub(before + ids_bytes);
    println!("{:<56} {:>8} bytes", "memory per lock (own resource, 24-byte name, value)", bytes / MANY);

    let begun = Instant::now();
    for id in &ids {
        convert(&mut engine, *id, Mode::Ex, LockFlags::QUECVT | LockFlags::VALBLK);
    }
    report("conversion PR -> EX, a million locks in turn", MANY, begun);
    let begun = Instant::now();
    for _ in 0..MANY / 2 {
        convert(&mut engine, ids[7], Mode::Nl, LockFlags::VALBLK);
        convert(&mut engine, ids[7], Mode::Ex, LockFlags::QUECVT | LockFlags::VALBLK);
    }
    report("conversion EX -> NL -> EX of one lock", MANY, begun);
    let begun = Instant::now();
    for id in &ids {
        let call = ClientCall::Unlock { call: 0, lock: *id, flags: LockFlags::empty(), lvb: None };
        engine.handle(Event::Client(call), 0);
        drain(&mut engine);
    }
    report("unlock", MANY, begun);
    let begun = Instant::now();
    for n in 0..MANY {
        let id = lock(&mut engine, n % 1000, Mode::Ex, LockFlags::empty());
        let call = ClientCall::Unlock { call: 0, lock: id, flags: LockFlags::empty(), lvb: None };
        engine.handle(Event::Client(call), 0);
        drain(&mut engine);
    }
    report("lock and unlock, known resource", MANY, begun);
    through_a_node();
}
