//! The driver: one task that owns the membership and the times, and does what the membership wants.

use super::control::Order;
use super::links::Links;
use super::space::{Callback, Shared};
use super::{Command, Outbound, Sketch};
use crate::clock::Clock;
use crate::fence::{FenceDevice, fence};
use crate::ids::NodeId;
use crate::inspect::NodeView;
use crate::membership::{Membership, MembershipAction, MembershipEvent};
use crate::recovery::Start;
use crate::transport::{Transport, TransportEvent};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::{Receiver, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;

/// The lockspaces of a node. When the node ends, in whatever way, so do they.
pub(super) struct Spaces {
    pub(super) list: BTreeMap<u32, Arc<Shared>>,
    pub(super) links: Arc<Links>,
}

impl Spaces {
    fn begin(&mut self, shared: Arc<Shared>) {
        self.links.space_begins(shared.clone());
        self.list.insert(shared.id(), shared);
    }

    fn end(&mut self, id: u32) -> Option<Arc<Shared>> {
        self.links.space_ends(id);
        self.list.remove(&id)
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        for (id, shared) in &self.list {
            self.links.space_ends(*id);
            shared.end();
        }
    }
}

/// See the module.
pub(super) struct Driver {
    pub(super) node: NodeId,
    pub(super) clock: Clock,
    pub(super) commands: UnboundedSender<Command>,
    pub(super) transport: Transport,
    pub(super) links: Arc<Links>,
    pub(super) membership: Box<dyn Membership>,
    pub(super) fence: BTreeMap<NodeId, FenceDevice>,
    pub(super) spaces: Spaces,
    pub(super) joining: BTreeMap<u32, oneshot::Sender<bool>>,
    pub(super) leaving: BTreeMap<u32, oneshot::Sender<()>>,
    /// Lockspaces that we have left and that have orders to carry out still.
    pub(super) ending: usize,
    /// Stops so far, and which was the last of each lockspace.
    pub(super) stops: u64,
    pub(super) last_stop: BTreeMap<u32, u64>,
    /// How often in a row fencing a node has failed.
    pub(super) fence_failures: BTreeMap<u32, u32>,
}

/// How long the peers are waited for when we part.
const PARTING: Duration = Duration::from_secs(5);
/// So many events at once: then the other work has its turn.
const GATHERED: usize = 256;

impl Driver {
    pub(super) async fn run(
        mut self,
        mut inbox: UnboundedReceiver<Command>,
        mut outgoing: UnboundedReceiver<Outbound>,
        mut events: Receiver<TransportEvent>,
    ) {
        let mut parting: Option<(Instant, oneshot::Sender<bool>)> = None;
        let links = self.links.clone();
        let parted = loop {
            let wake = tokio::time::Instant::from_std(self.wake());
            tokio::select! {
                biased;
                Some(out) = outgoing.recv() => self.outbound(out),
                Some(event) = events.recv() => self.transport_event(event),
                Some(command) = inbox.recv() => match command {
                    Command::Shutdown(done) => {
                        let spaces: Vec<u32> = self.spaces.list.keys().copied().collect();
                        spaces.into_iter().for_each(|id| self.member(MembershipEvent::Leave(id)));
                        parting = Some((Instant::now() + PARTING, done));
                    }
                    other => self.command(other),
                },
                // Many frames in one write: see the end of the loop. Others may always have something to be written.
                () = links.wake.notified() => {}
                () = tokio::time::sleep_until(wake) => {}
            }
            // What is there already was not late: it comes before the look at the clock.
            for _ in 0..GATHERED {
                let Ok(event) = events.try_recv() else { break };
                self.transport_event(event);
            }
            if links.is_broken() {
                tracing::error!("a thread of the lock manager has panicked: the node ends");
                break false;
            }
            self.tick();
            if parting.is_some() && self.has_left() {
                // Also with who asked us something since we left.
                links.part();
            }
            links.flush_all();
            if let Some((limit, _)) = &parting {
                let parted = self.has_left() && links.have_parted();
                if parted || *limit <= Instant::now() {
                    break parted;
                }
            }
        };
        if !parted {
            tracing::warn!(peers = ?links.status(), lockspaces = self.spaces.list.len(), "not all peers have parted with us");
        }
        drop(self.spaces);
        // A conversation may have ended after the last flush, in the thread that reads.
        links.flush_all();
        // The last acknowledgements are on their way to the sockets' tasks.
        tokio::time::sleep(Duration::from_millis(20)).await;
        drop(self.transport);
        if let Some((_, done)) = parting {
            // Whoever asked may have stopped waiting.
            let _gone = done.send(parted);
        }
    }

    fn now(&self) -> u64 {
        self.clock.now()
    }

    /// When something is due; clients may have made something due without telling, so at least once a second.
    fn wake(&self) -> Instant {
        let now = self.now();
        self.links.plan(u64::MAX);
        let engines = self.spaces.list.values().map(|shared| shared.wake_at());
        let due = engines.chain(self.membership.wake_at()).chain([self.links.wake_at()]).min().unwrap_or(u64::MAX);
        let due = due.clamp(now + 1, now + 1000);
        self.links.plan(due);
        Instant::now() + Duration::from_millis(due - now)
    }

    fn tick(&mut self) {
        let now = self.now();
        self.spaces.list.values().for_each(|shared| shared.tick(now));
        if self.membership.wake_at().is_some_and(|at| at <= now) {
            self.member(MembershipEvent::Tick);
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Join { shared, done } => {
                let id = shared.id();
                if self.spaces.list.contains_key(&id) {
                    // Dropping `done` says so.
                    return shared.end();
                }
                self.spaces.begin(shared);
                self.joining.insert(id, done);
                self.member(MembershipEvent::Join(id));
            }
            Command::Release { lockspace, done } => {
                if !self.spaces.list.contains_key(&lockspace) {
                    // We were expelled from it. Whoever asked may have stopped waiting.
                    let _gone = done.send(());
                    return;
                }
                self.leaving.insert(lockspace, done);
                self.member(MembershipEvent::Leave(lockspace));
            }
            Command::Abandon(shared) => {
                if self.spaces.list.get(&shared.id()).is_some_and(|known| Arc::ptr_eq(known, &shared)) {
                    self.joining.remove(&shared.id());
                    self.member(MembershipEvent::Leave(shared.id()));
                }
            }
            // Of an earlier stop: meanwhile the lockspace may have been started, and shall stop again.
            Command::Stopped(lockspace, number) if self.last_stop.get(&lockspace) != Some(&number) => {}
            Command::Stopped(lockspace, _) => self.member(MembershipEvent::Stopped(lockspace)),
            Command::Fenced(node, success) => {
                if success {
                    self.fence_failures.remove(&node.0);
                } else {
                    *self.fence_failures.entry(node.0).or_default() += 1;
                }
                self.member(MembershipEvent::Fenced { node, success });
            }
            Command::Shutdown(_) => {}
            Command::BreakConnections => self.links.break_connections(),
            Command::Inspect(answer) => {
                // Whoever asked may have stopped waiting.
                let _gone = answer.send(self.sketch());
            }
        }
    }

    fn sketch(&self) -> Sketch {
        let view = NodeView {
            node: self.node.0,
            quorate: self.membership.is_quorate(),
            membership: {
                let mut view = self.membership.view();
                // What a node that is well again was up to is of no interest.
                for node in view.nodes.iter_mut().filter(|node| node.in_doubt) {
                    node.fence_failures = self.fence_failures.get(&node.node).copied().unwrap_or(0);
                }
                view
            },
            peers: self.links.views(),
            lockspaces: Vec::new(),
        };
        Sketch { view, spaces: self.spaces.list.values().cloned().collect() }
    }

    fn member(&mut self, event: MembershipEvent) {
        let now = self.now();
        self.membership.handle(event, now);
        while let Some(action) = self.membership.next_action() {
            match action {
                MembershipAction::Stop(id) => self.stop(id),
                MembershipAction::Start(id, start) => self.start(id, start),
                MembershipAction::Left(id) => self.left(id),
                MembershipAction::Expelled(id) => {
                    tracing::error!(lockspace = id, "the cluster has gone on without this node; its locks are lost");
                    if let Some(shared) = self.spaces.list.get(&id) {
                        shared.forfeit();
                        shared.order(Order::Tell(Callback::Expelled));
                    }
                    self.left(id);
                }
                MembershipAction::NodeGone(node) => self.links.gone(node),
                MembershipAction::Fence(node) => self.fence(node),
                MembershipAction::Differs(node) => {
                    tracing::error!(%node, "has another cluster file (name, nodes, token_ms, startup_ms or fencing): it stays out until both are alike");
                }
                MembershipAction::Datagram { to, bytes } => self.transport.datagram(to, bytes),
            }
        }
        self.renew_trust();
    }

    /// After everything that came has been worked off: had they gone on without us, the lockspace would be gone now.
    fn renew_trust(&self) {
        self.links.trust.renew(self.membership.trusted_until());
        if self.links.trust.holds() {
            self.spaces.list.values().for_each(|shared| shared.go_on());
        }
    }

    /// Stops a lockspace; the membership hears of it once the client has been told.
    fn stop(&mut self, id: u32) {
        let Some(shared) = self.spaces.list.get(&id) else { return };
        let (told, wait) = oneshot::channel();
        shared.order(Order::Stop { told: Some(told) });
        self.stops += 1;
        self.last_stop.insert(id, self.stops);
        let (commands, number) = (self.commands.clone(), self.stops);
        tokio::spawn(async move {
            // An error means that the lockspace has ended, in order or not: then it has not stopped.
            if wait.await.is_ok() {
                // An error means that the node has ended.
                let _gone = commands.send(Command::Stopped(id, number));
            }
        });
    }

    fn start(&mut self, id: u32, start: Start) {
        tracing::info!(lockspace = id, members = ?start.members.iter().map(|m| m.node.0).collect::<Vec<_>>(), "start");
        if let Some(shared) = self.spaces.list.get(&id) {
            shared.order(Order::Start(start));
        }
    }

    fn left(&mut self, id: u32) {
        if let Some(shared) = self.spaces.end(id) {
            self.ending += 1;
            shared.leave();
        }
        if let Some(done) = self.joining.remove(&id) {
            // As below.
            let _gone = done.send(false);
        }
    }

    /// Nothing of a lockspace that we have left is under way any more.
    fn wound_up(&mut self, id: u32) {
        self.ending = self.ending.saturating_sub(1);
        if let Some(done) = self.leaving.remove(&id) {
            // Whoever asked may have stopped waiting.
            let _gone = done.send(());
        }
        if self.has_left() {
            self.links.part();
        }
    }

    fn has_left(&self) -> bool {
        self.spaces.list.is_empty() && self.ending == 0
    }

    fn fence(&mut self, node: NodeId) {
        tracing::warn!(%node, "fencing");
        let (device, commands) = (self.fence.get(&node).cloned(), self.commands.clone());
        let fail_time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs());
        tokio::spawn(async move {
            let success = match device {
                Some(device) => fence(&device, node, fail_time).await,
                None => {
                    tracing::error!(%node, "no fence agent is configured for this node");
                    false
                }
            };
            // An error means that the node has ended.
            let _gone = commands.send(Command::Fenced(node, success));
        });
    }

    fn outbound(&mut self, out: Outbound) {
        match out {
            Outbound::Recovered(id) => self.joined(id, true),
            Outbound::Left(id) => self.wound_up(id),
            Outbound::RecoveryFailed(id) => {
                tracing::error!(lockspace = id, "members are configured differently");
                self.joined(id, false);
            }
        }
    }

    fn joined(&mut self, id: u32, success: bool) {
        if let Some(done) = self.joining.remove(&id) {
            if !success {
                self.member(MembershipEvent::Leave(id));
            }
            // Whoever asked may have stopped waiting.
            let _gone = done.send(success);
        }
    }

    fn transport_event(&mut self, event: TransportEvent) {
        match event {
            TransportEvent::Up(node, connection) => self.links.up(node, connection),
            TransportEvent::Down(node) => self.links.down(node),
            TransportEvent::Datagram(from, bytes) => self.member(MembershipEvent::Datagram { from, bytes }),
        }
    }
}
