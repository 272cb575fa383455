//! A node of ours whose membership is in the test's hands.

use gfs2r_uml::dlm::{Event, Events};
use lockclient::flags::LockFlags;
use lockclient::frame::Slot;
use lockclient::ids::{LockId, NodeId};
use lockclient::membership::{Membership, MembershipAction, MembershipEvent};
use lockclient::mode::Mode;
use lockclient::node::space::{Completion, LockClient, LockRequest, LockSpace, Progress};
use lockclient::node::{Node, NodeConfig};
use lockclient::recovery::Start;
use lockclient::status::{Refusal, Status};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

#[derive(Default)]
struct Wishes {
    actions: VecDeque<MembershipAction>,
    joins: BTreeSet<u32>,
    leaves: BTreeSet<u32>,
    stopped: BTreeSet<u32>,
}

/// What the test and the node tell one another.
#[derive(Clone, Default)]
struct Hand(Arc<(Mutex<Wishes>, Condvar)>);

impl Hand {
    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, what: &str, mut done: impl FnMut(&mut Wishes) -> bool) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut wishes = self.wishes();
        while !done(&mut wishes) {
            let left = deadline.checked_duration_since(Instant::now()).ok_or(format!("no {what}"))?;
            wishes = self.0.1.wait_timeout(wishes, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }
}

struct Manual {
    hand: Hand,
    now: u64,
}

impl Membership for Manual {
    fn handle(&mut self, event: MembershipEvent, now: u64) {
        self.now = now;
        let mut wishes = self.hand.wishes();
        match event {
            MembershipEvent::Join(space) => drop(wishes.joins.insert(space)),
            MembershipEvent::Leave(space) => drop(wishes.leaves.insert(space)),
            MembershipEvent::Stopped(space) => drop(wishes.stopped.insert(space)),
            _ => {}
        }
        self.hand.0.1.notify_all();
    }

    fn next_action(&mut self) -> Option<MembershipAction> {
        self.hand.wishes().actions.pop_front()
    }

    fn wake_at(&self) -> Option<u64> {
        Some(self.now + 3)
    }

    fn is_quorate(&self) -> bool {
        true
    }
}

/// Hands what the lockspace tells to the test.
struct Desk {
    events: Events,
    ids: Ids,
    queued: Mutex<HashMap<u64, u64>>,
    recovered: AtomicU64,
}

type Ids = Arc<Mutex<HashMap<u64, u32>>>;

fn note(ids: &Ids, tag: u64, lock: LockId) {
    ids.lock().unwrap_or_else(PoisonError::into_inner).insert(tag, lock.0);
}

fn errno(refusal: Refusal) -> i32 {
    match refusal {
        Refusal::Invalid => -22,
        Refusal::Busy => -16,
        Refusal::NoEntry => -2,
        Refusal::NoMemory => -12,
        Refusal::NoDevice => -19,
        Refusal::Protocol => -71,
    }
}

fn event(tag: u64, completion: Completion) -> Event {
    let status = match completion.status {
        Status::Granted => 0,
        Status::Again => -11,
        Status::Deadlock => -35,
        Status::Cancelled => -65537,
        Status::Unlocked => -65538,
    };
    let flags = completion.flags.bits() as u8; // three flags
    Event::Completed { tag, status, flags, lvb: completion.lvb.map(Into::into) }
}

impl LockClient for Desk {
    fn completed(&self, tag: u64, completion: Completion) {
        note(&self.ids, tag, completion.lock);
        self.events.add(event(tag, completion));
    }

    fn blocking(&self, tag: u64, _lock: LockId, mode: Mode) {
        self.events.add(Event::Blocking { tag, mode: mode as u8 });
    }

    fn refused(&self, call: u64, why: Refusal) {
        let tag = self.queued.lock().unwrap_or_else(PoisonError::into_inner).remove(&call).unwrap_or(0);
        self.events.add(Event::Completed { tag, status: errno(why), flags: 0, lvb: None });
    }

    fn recovered(&self, _slots: &[Slot], _our_slot: u16, _generation: u32) {
        self.recovered.fetch_add(1, Ordering::Release);
    }
}

/// See the module. Dropping it is a crash.
pub(crate) struct Ours {
    pub(crate) events: Events,
    hand: Hand,
    node: Arc<Node>,
    desk: Arc<Desk>,
    space: Option<LockSpace>,
    joining: Option<JoinHandle<Result<LockSpace, String>>>,
    starts: u64,
}

impl Ours {
    /// Opens the sockets.
    pub(crate) fn start(
        runtime: &Runtime,
        id: u32,
        at: SocketAddr,
        peers: BTreeMap<NodeId, SocketAddr>,
    ) -> Result<Ours, String> {
        let hand = Hand::default();
        let config = || NodeConfig {
            node: NodeId(id),
            address: at,
            peers: peers.clone(),
            membership: Box::new(Manual { hand: hand.clone(), now: 0 }),
            fence: BTreeMap::new(),
            tls: None,
        };
        let mut left = 50;
        // The port of a node that has just died is free a little later.
        let node = loop {
            match runtime.block_on(Node::start(config())) {
                Ok(node) => break Arc::new(node),
                Err(error) if left == 0 => return Err(format!("node {id}: {error}")),
                Err(_) => left -= 1,
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        let events = Events::default();
        let desk = Desk {
            events: events.clone(),
            ids: Ids::default(),
            queued: Mutex::default(),
            recovered: AtomicU64::new(0),
        };
        Ok(Ours { events, hand, node, desk: Arc::new(desk), space: None, joining: None, starts: 0 })
    }

    fn act(&self, action: MembershipAction) {
        self.hand.wishes().actions.push_back(action);
    }

    /// Asks to enter the lockspace.
    pub(crate) fn begin_join(&mut self, runtime: &Runtime, name: &str, id: u32) -> Result<(), String> {
        let (node, desk, name) = (self.node.clone(), self.desk.clone(), name.to_owned());
        self.joining = Some(runtime.spawn(async move {
            let joined = node.join(&name, desk, |config| {
                (config.toss_ms, config.scan_ms) = (1000, 300);
            });
            joined.await.map_err(|error| error.to_string())
        }));
        self.hand.wait("wish to join", |wishes| wishes.joins.remove(&id))
    }

    /// Waits until it is in.
    pub(crate) fn finish_join(&mut self, runtime: &Runtime) -> Result<(), String> {
        let Some(joining) = self.joining.take() else { return Ok(()) };
        let joined = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), joining).await });
        self.space = Some(joined.map_err(|_| "join takes too long")?.map_err(|error| error.to_string())??);
        Ok(())
    }

    /// Stops the lockspace; has stopped when this returns.
    pub(crate) fn stop(&self, id: u32) -> Result<(), String> {
        self.hand.wishes().stopped.remove(&id);
        self.act(MembershipAction::Stop(id));
        self.hand.wait("stop", |wishes| wishes.stopped.remove(&id))
    }

    pub(crate) fn begin_start(&mut self, id: u32, start: Start) {
        self.starts = self.desk.recovered.load(Ordering::Acquire);
        self.act(MembershipAction::Start(id, start));
    }

    /// Waits until recovery is complete.
    pub(crate) fn finish_start(&self) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.desk.recovered.load(Ordering::Acquire) == self.starts {
            if Instant::now() > deadline {
                return Err(format!("recovery does not end\n{}", self.dump()));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    pub(crate) fn break_connections(&self) {
        self.node.break_connections();
    }

    pub(crate) fn node_gone(&self, node: u32) {
        self.act(MembershipAction::NodeGone(NodeId(node)));
    }

    /// Asks to leave; the lockspace's members must agree ([`Ours::finish_leave`]).
    pub(crate) fn leave(&mut self, runtime: &Runtime, id: u32) -> Result<(), String> {
        let Some(space) = self.space.take() else { return Err("not a member".into()) };
        let node = self.node.clone();
        let released = runtime.spawn(async move { node.release(&space).await });
        self.hand.wait("wish to leave", |wishes| wishes.leaves.remove(&id))?;
        self.act(MembershipAction::Left(id));
        let released = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), released).await });
        released.map_err(|_| "leaving takes too long")?.map_err(|error| error.to_string())
    }

    pub(crate) fn dump(&self) -> String {
        self.space.as_ref().map_or_else(String::new, LockSpace::dump)
    }

    /// The id of a lock, once it is known.
    pub(crate) fn id(&self, tag: u64) -> Option<u32> {
        self.desk.ids.lock().unwrap_or_else(PoisonError::into_inner).get(&tag).copied()
    }

    /// Accepted, or refused with a negative error. What ends at once is an event as well.
    fn progress(&self, tag: u64, result: Result<Progress, Refusal>) -> Result<(), i32> {
        match result {
            Ok(Progress::Done(completion)) => {
                note(&self.desk.ids, tag, completion.lock);
                self.events.add(event(tag, completion));
                Ok(())
            }
            Ok(Progress::Pending(lock)) => {
                note(&self.desk.ids, tag, lock);
                Ok(())
            }
            Ok(Progress::Queued(call)) => {
                self.desk.queued.lock().unwrap_or_else(PoisonError::into_inner).insert(call, tag);
                Ok(())
            }
            Err(refusal) => Err(errno(refusal)),
        }
    }

    fn member(&self) -> &LockSpace {
        self.space.as_ref().expect("a check asks members only")
    }

    pub(crate) fn lock(&self, tag: u64, mode: Mode, flags: LockFlags, name: &[u8]) -> Result<(), i32> {
        let lvb = flags.contains(LockFlags::VALBLK).then(|| vec![0; 32].into());
        let request = LockRequest { token: tag, name, mode, flags, lvb, wants_notices: true, uses_lost_value: false };
        self.progress(tag, self.member().request(request))
    }

    pub(crate) fn convert(&self, tag: u64, id: u32, mode: Mode, flags: LockFlags, lvb: &[u8]) -> Result<(), i32> {
        let lvb = (!lvb.is_empty()).then(|| lvb.into());
        self.progress(tag, self.member().convert(LockId(id), mode, flags, lvb))
    }

    pub(crate) fn unlock(&self, tag: u64, id: u32, flags: LockFlags, lvb: &[u8]) -> Result<(), i32> {
        let lvb = (!lvb.is_empty()).then(|| lvb.into());
        self.progress(tag, self.member().unlock(LockId(id), flags, lvb))
    }
}
