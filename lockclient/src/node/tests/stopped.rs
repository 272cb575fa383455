//! A node whose process has been stopped: its connections stand, and nothing is read from them.

use super::*;
use crate::engine::Config;
use crate::node::space::{Completion, LockClient, LockRequest, LockSpace, Progress, Prompt};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Sender, channel};

/// Long enough that everything is seen before the stopped node is given up.
const TOKEN_MS: u64 = 5000;
/// More frames than sockets take.
const LOCKS: usize = 60_000;
/// No frame of one lock and its envelope is longer.
const FRAME: usize = 256;

/// Counts what is granted.
#[derive(Default)]
struct Count(AtomicU64);

impl LockClient for Count {
    fn prompt(&self) -> Prompt {
        Prompt::Always
    }
    fn completed(&self, _token: u64, completion: Completion) {
        assert_eq!(completion.status, Status::Granted);
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn blocking(&self, _token: u64, _lock: crate::ids::LockId, _mode: Mode) {}
    fn refused(&self, call: u64, why: crate::status::Refusal) {
        panic!("call {call}: {why}");
    }
}

async fn start(place: &Place, id: u32) -> Node {
    let membership = Fixed::new(FixedConfig {
        node: NodeId(id),
        incarnation: LIVES.fetch_add(1, Ordering::Relaxed),
        name: "stopped".into(),
        nodes: (1..=3).map(NodeId).collect(),
        token_ms: TOKEN_MS,
        startup_ms: 10_000,
        fencing: true,
    });
    Node::start(NodeConfig { membership: Box::new(membership), ..place.config(id, true) }).await.expect("node")
}

async fn join(node: &Node, client: Arc<dyn LockClient>) -> LockSpace {
    let configure = |config: &mut Config| config.toss_ms = 1_000_000;
    tokio::time::timeout(Duration::from_secs(30), node.join("stopped", client, configure))
        .await
        .expect("in time")
        .expect("join")
}

/// Requests PR on all of them; how many are answered later.
fn request_all(space: &LockSpace) -> u64 {
    let mut pending = 0;
    for n in 0..LOCKS {
        let name = format!("resource {n:>20}");
        let name = name.as_bytes();
        let request = LockRequest {
            token: 1,
            name,
            mode: Mode::Pr,
            flags: NONE,
            lvb: None,
            wants_notices: true,
            uses_lost_value: false,
        };
        match space.request(request).expect("request") {
            Progress::Done(_) => {}
            _ => pending += 1,
        }
    }
    pending
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// All threads of a runtime, stopped until this is dropped.
struct Stop {
    _gates: Vec<Sender<()>>,
}

impl Stop {
    fn all(runtime: &Handle, threads: usize) -> Stop {
        let stopped = Arc::new(AtomicU64::new(0));
        let gates = (0..threads).map(|_| {
            let (gate, closed) = channel::<()>();
            let stopped = stopped.clone();
            runtime.spawn(async move {
                stopped.fetch_add(1, Ordering::Relaxed);
                // Ends with an error when the gate is dropped.
                let _opened = closed.recv();
            });
            gate
        });
        let gates = gates.collect();
        while stopped.load(Ordering::Relaxed) < threads as u64 {
            std::thread::sleep(Duration::from_millis(1));
        }
        Stop { _gates: gates }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_stopped_holds_nobody_up_and_costs_no_more_than_its_locks() {
    const THREADS: usize = 2;
    let place = Place::new(3);
    let own_runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(THREADS).enable_all().build();
    let runtime = own_runtime().expect("runtime");
    let nodes = [start(&place, 1).await, start(&place, 2).await];
    let third = Arc::new(place);
    let there = third.clone();
    let third = runtime.spawn(async move { start(&there, 3).await }).await.expect("task");
    let counts: Vec<Arc<Count>> = (0..3).map(|_| Arc::default()).collect();
    let near = [join(&nodes[0], counts[0].clone()).await, join(&nodes[1], counts[1].clone()).await];
    let far = join(&third, counts[2].clone()).await;
    until("all are members", || near[0].is_running() && near[1].is_running() && far.is_running()).await;
    // Node 3 is the master of everything.
    let pending = request_all(&far);
    until("granted", || counts[2].0.load(Ordering::Relaxed) == pending).await;

    let alive = third._alive.handle().expect("runs");
    let stop = (Stop::all(runtime.handle(), THREADS), Stop::all(alive, 1));
    let about = |node: &Node, peer: u32| {
        let status = node.counters().peers.into_iter().find(|status| status.node == NodeId(peer));
        status.expect("a peer")
    };
    let pending = request_all(&near[0]);
    assert_eq!(pending, LOCKS as u64, "nothing can be answered yet");
    // The sockets are full, and what is kept is the frames, once.
    until("full", || about(&nodes[0], 3).full).await;
    let kept = about(&nodes[0], 3).waiting_bytes;
    assert!(kept <= (LOCKS + 1000) * FRAME, "{kept} bytes are kept for {LOCKS} locks");
    // Nodes 1 and 2 go on with each other meanwhile.
    for n in 0..200 {
        let name = format!("between us {n}");
        let locks = [0, 1].map(|which: usize| {
            let name = name.as_bytes();
            let request = LockRequest {
                token: 2,
                name,
                mode: Mode::Nl,
                flags: NONE,
                lvb: None,
                wants_notices: false,
                uses_lost_value: false,
            };
            near[which].request(request).expect("request")
        });
        drop(locks);
    }
    let others = || counts[1].0.load(Ordering::Relaxed);
    // A third of the names has its directory on the stopped node.
    until("the others go on", || others() > 10).await;
    assert!(about(&nodes[0], 3).full && near[0].is_running(), "the stopped node has not been given up yet");

    // It is given up: everything is granted, nothing is kept for it.
    until("granted after all", || counts[0].0.load(Ordering::Relaxed) >= pending).await;
    until("nothing is kept", || about(&nodes[0], 3).waiting_bytes == 0).await;
    let expelled = Arc::new(AtomicBool::new(false));
    drop(stop);
    let seen = expelled.clone();
    let watching = runtime.spawn(async move {
        while !far.has_ended() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        seen.store(true, Ordering::Relaxed);
    });
    // And it learns of it when it goes on.
    until("it is expelled", || expelled.load(Ordering::Relaxed)).await;
    watching.await.expect("task");
    drop(third);
    for node in nodes {
        node.shutdown().await;
    }
    runtime.shutdown_background();
}
