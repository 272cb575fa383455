//! Nodes that do not hear one another for a while, and what a node does to be heard.

use super::*;
use crate::membership::{Membership, MembershipAction, MembershipEvent};
use crate::recovery::{Start, StartMember};
use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;

const TOKEN_MS: u64 = 600;

/// A membership that hears nothing while told so. Connections stand: what is under way arrives, late or not.
struct Deaf {
    inner: Fixed,
    deaf: Arc<AtomicBool>,
}

impl Membership for Deaf {
    fn handle(&mut self, event: MembershipEvent, now: u64) {
        let datagram = matches!(event, MembershipEvent::Datagram { .. });
        if !datagram || !self.deaf.load(Ordering::Relaxed) {
            self.inner.handle(event, now);
        }
    }
    fn next_action(&mut self) -> Option<MembershipAction> {
        self.inner.next_action()
    }
    fn wake_at(&self) -> Option<u64> {
        self.inner.wake_at()
    }
    fn trusted_until(&self) -> u64 {
        Membership::trusted_until(&self.inner)
    }
    fn is_quorate(&self) -> bool {
        self.inner.is_quorate()
    }
}

/// Locks are taken on all nodes without an end, while nodes lose one another for one to two tokens, without quorum or with
/// an agent that does not succeed. All of them go on after that, and so does every lock.
#[tokio::test(flavor = "multi_thread")]
async fn no_lock_hangs_after_a_silence() {
    let place = Place::new(3);
    let deaf: Vec<Arc<AtomicBool>> = (0..3).map(|_| Arc::default()).collect();
    let (mut nodes, mut spaces) = (Vec::new(), Vec::new());
    for id in 1..=3 {
        let inner = Fixed::new(FixedConfig {
            node: NodeId(id),
            incarnation: LIVES.fetch_add(1, Ordering::Relaxed),
            name: "silence".into(),
            nodes: (1..=3).map(NodeId).collect(),
            token_ms: TOKEN_MS,
            startup_ms: 10_000,
            fencing: true,
        });
        let membership = Box::new(Deaf { inner, deaf: deaf[id as usize - 1].clone() });
        // Nobody can be fenced.
        let config = NodeConfig { membership, fence: BTreeMap::new(), ..place.config(id, false) };
        nodes.push(Node::start(config).await.expect("node"));
    }
    for node in &nodes {
        let join = tokio::time::timeout(Duration::from_secs(30), Locks::join(node, "silence", |_| {}));
        spaces.push(join.await.expect("in time").expect("join"));
    }
    const WORKERS: usize = 6;
    let (stop, progress) =
        (Arc::new(AtomicBool::new(false)), Arc::new(Vec::from_iter((0..18).map(|_| AtomicU64::new(0)))));
    let mut tasks = Vec::new();
    for worker in 0..3 * WORKERS {
        let (locks, stop, progress) = (spaces[worker / WORKERS].clone(), stop.clone(), progress.clone());
        tasks.push(tokio::spawn(async move {
            let mut round = worker;
            while !stop.load(Ordering::Relaxed) {
                round += 1;
                let lock = locks.lock(format!("r{}", round % 23).as_bytes(), Mode::Ex).await.expect("lock");
                tokio::task::yield_now().await;
                locks.unlock(lock).await.expect("unlock");
                progress[worker].fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let all_go_on = async |what: &str| {
        let seen = || progress.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let (before, deadline) = (seen(), Instant::now() + Duration::from_secs(30));
        while !seen().iter().zip(&before).all(|(now, before)| *now > before + 20) {
            assert!(Instant::now() < deadline, "locks hang after {what}: {before:?} {:?}", seen());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    all_go_on("the start").await;
    for who in [&[0, 1, 2][..], &[0], &[1], &[2], &[0, 1]] {
        for ms in [TOKEN_MS * 11 / 10, TOKEN_MS * 3 / 2, TOKEN_MS * 2] {
            who.iter().for_each(|node| deaf[*node].store(true, Ordering::Relaxed));
            tokio::time::sleep(Duration::from_millis(ms)).await;
            who.iter().for_each(|node| deaf[*node].store(false, Ordering::Relaxed));
            all_go_on(&format!("{ms} ms of silence at {who:?}")).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.expect("worker");
    }
    for node in nodes {
        node.shutdown().await;
    }
}

/// A membership of this node alone, which expels it when it is told to.
#[derive(Default)]
struct Expelling {
    actions: VecDeque<MembershipAction>,
    space: Option<u32>,
    expel: Arc<AtomicBool>,
}

impl Membership for Expelling {
    fn handle(&mut self, event: MembershipEvent, now: u64) {
        match event {
            MembershipEvent::Join(space) => {
                self.space = Some(space);
                self.actions.push_back(MembershipAction::Stop(space));
            }
            MembershipEvent::Stopped(space) => {
                let member = StartMember { node: NodeId(1), weight: 1, incarnation: 1, new: true };
                let start = Start { members: vec![member], cluster: vec![(NodeId(1), 1)], round: 1 + now };
                self.actions.push_back(MembershipAction::Start(space, start));
            }
            _ if self.expel.load(Ordering::Relaxed) => {
                self.actions.extend(self.space.take().map(MembershipAction::Expelled));
            }
            _ => {}
        }
    }
    fn next_action(&mut self) -> Option<MembershipAction> {
        self.actions.pop_front()
    }
    fn wake_at(&self) -> Option<u64> {
        Some(0)
    }
    fn is_quorate(&self) -> bool {
        true
    }
}

/// Found by reading: a filesystem that was expelled releases its lockspace when it is unmounted, and waited for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_lockspace_is_released_after_expulsion() {
    let place = Place::new(1);
    let expel = Arc::new(AtomicBool::new(false));
    let membership = Box::new(Expelling { expel: expel.clone(), ..Expelling::default() });
    let node = Node::start(NodeConfig { membership, ..place.config(1, true) }).await.expect("node");
    let locks = Locks::join(&node, "expelled", |_| {}).await.expect("join");
    expel.store(true, Ordering::Relaxed);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !locks.space().has_ended() {
        assert!(Instant::now() < deadline, "is not expelled");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    for _ in 0..2 {
        tokio::time::timeout(Duration::from_secs(10), node.release(locks.space())).await.expect("answered");
    }
    node.shutdown().await;
}

/// Someone looks at all locks for a long time; the node is heard nevertheless, and nobody goes on without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_heard_while_its_engine_is_busy() {
    let place = Place::new(2);
    let nodes = [place.node(1, false).await, place.node(2, false).await];
    let mut spaces = Vec::new();
    for node in &nodes {
        let join = tokio::time::timeout(Duration::from_secs(30), Locks::join(node, "busy", |_| {}));
        spaces.push(join.await.expect("in time").expect("join"));
    }
    for n in 0..20 {
        // Idle resources: the engine wants to be told the time.
        let lock = spaces[0].lock(format!("r{n}").as_bytes(), Mode::Ex).await.expect("lock");
        spaces[0].unlock(lock).await.expect("unlock");
    }
    let shared = spaces[0].space().shared.clone();
    let busy = std::thread::spawn(move || {
        let engine = shared.engine();
        std::thread::sleep(Duration::from_millis(6 * TOKEN_MS));
        drop(engine);
    });
    while !busy.is_finished() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(spaces.iter().all(|locks| !locks.space().has_ended()));
    }
    busy.join().expect("thread");
    let lock =
        tokio::time::timeout(Duration::from_secs(20), spaces[0].lock(b"after", Mode::Ex)).await.expect("in time");
    spaces[0].unlock(lock.expect("lock")).await.expect("unlock");
    let lock =
        tokio::time::timeout(Duration::from_secs(20), spaces[1].lock(b"after", Mode::Ex)).await.expect("in time");
    spaces[1].unlock(lock.expect("lock")).await.expect("unlock");
    for node in nodes {
        node.shutdown().await;
    }
}
