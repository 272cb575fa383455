//! The conversations with all peers, and the paths of frames through this node. No frame waits for the driver:
//!
//! * Outwards: whoever makes an engine say something numbers the frame in the peer's [`Midcomms`] while the engine is
//!   locked, so that frames leave in the order in which the engine decided them, and writes it to the socket once the
//!   engine is free. Who has written often without hearing from the peer leaves the writing to the driver, which puts
//!   many frames into one write.
//! * Inwards: whoever reads frames off a socket runs them through the peer's conversation and the engines, sends what
//!   follows from them, and tells a prompt client ([`super::space::Prompt`]) what has ended.
//!
//! Locks, in this order and never two of a kind: `receiving` of a link (held from a frame's number to its engine, so that
//! two sockets of one peer cannot change the order), an engine, a link. The list of lockspaces is read under `receiving`.

use super::space::Shared;
use super::trust::Trust;
use crate::clock::Clock;
use crate::engine::Event;
use crate::frame::Frame;
use crate::ids::NodeId;
use crate::inspect::{PeerView, peer_view};
use crate::midcomms::{Delivery, Midcomms, State};
use crate::transport::{Connection, Line, Sink};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::Duration;
use tokio::sync::Notify;

/// Frames are written together, about this many bytes at a time.
const WRITE: usize = 32 * 1024;
/// So often is written to a peer that is not heard; then the driver gathers what follows.
const UNHEARD_MAX: u32 = 8;
/// Acknowledgements travel with what is said anyway. So many envelopes without one, or so many milliseconds, and it goes
/// alone: it is only about how much the peer has to keep.
const OWED_MAX: u32 = 32;
const OWED_MS: u64 = 10;
/// So long the driver waits for a frame that is being taken in: a fraction of any token.
const PATIENCE_MS: u32 = 10;

enum Way {
    None,
    Wanted,
    Up(Connection),
}

/// One peer.
struct Link {
    midcomms: Midcomms,
    way: Way,
    /// Bytes of frames that the socket has not taken yet.
    rest: Vec<u8>,
    /// The socket is full; its task says when it takes more.
    full: bool,
    /// Writes since it was heard last.
    unheard: u32,
}

/// What a peer's task has to do after a flush.
enum Next {
    Nothing,
    Connect,
    Drain(u64),
    Break(u64),
}

impl Link {
    fn new(node: NodeId, peer: NodeId) -> Link {
        let midcomms = Midcomms::new(node, peer);
        Link { midcomms, way: Way::None, rest: Vec::new(), full: false, unheard: 0 }
    }

    fn is_idle(&self, always: bool) -> bool {
        match self.way {
            Way::None => !always && !self.midcomms.wants_connection(),
            Way::Wanted => true,
            Way::Up(_) => self.full || (self.rest.is_empty() && !self.midcomms.has_transmit()),
        }
    }

    /// Writes what the socket takes.
    fn write(&mut self, always: bool) -> Next {
        if self.is_idle(always) {
            return Next::Nothing;
        }
        let Way::Up(connection) = &self.way else {
            self.way = Way::Wanted;
            return Next::Connect;
        };
        // When its task has ended it, that will be reported.
        let Some(stream) = connection.stream.upgrade() else { return Next::Nothing };
        let number = connection.number;
        self.unheard += 1;
        self.midcomms.flush_ack();
        loop {
            while self.rest.len() < WRITE && self.midcomms.transmit_into(&mut self.rest) {}
            let written =
                if self.rest.is_empty() { stream.try_flush().map(|()| 0) } else { stream.try_write(&self.rest) };
            match written {
                Ok(_) if self.rest.is_empty() => return Next::Nothing,
                Ok(written) => drop(self.rest.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.full = true;
                    return Next::Drain(number);
                }
                // What is lost is sent again on the next connection, by the conversation.
                Err(_) => {
                    self.full = true;
                    return Next::Break(number);
                }
            }
        }
    }

    fn view(&self, node: NodeId) -> PeerView {
        let connection = match self.way {
            Way::None => "none",
            Way::Wanted => "wanted",
            Way::Up(_) => "up",
        };
        peer_view(node, connection, &self.midcomms)
    }

    fn waiting_bytes(&self) -> usize {
        self.rest.len() + self.midcomms.kept_bytes()
    }
}

/// One peer, and the way to its task.
struct Place {
    /// Held while frames of this peer are taken in.
    receiving: Mutex<()>,
    /// Counts the lives of the peer that are over; changed while `link` is locked.
    lives: AtomicU64,
    link: Mutex<Link>,
    line: Line,
}

impl Place {
    /// Nothing is being taken in, unless an engine is busy for long.
    fn receiving_soon(&self) -> Option<MutexGuard<'_, ()>> {
        for _ in 0..PATIENCE_MS {
            match self.receiving.try_lock() {
                Ok(guard) => return Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        None
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        locked(&self.link)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The conversation and the rest stay consistent at every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of a peer, for administrators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// Who.
    pub node: NodeId,
    /// Where the conversation stands.
    pub state: State,
    /// Our connection to it stands.
    pub connected: bool,
    /// Its socket takes nothing more at the moment.
    pub full: bool,
    /// Bytes of frames kept for it: not written yet, or not acknowledged.
    pub waiting_bytes: usize,
    /// Frames of its that were dropped: stale, damaged, or from someone else.
    pub dropped: u64,
}

/// Peers that something was said to.
#[derive(Default)]
pub(crate) struct Said(Vec<NodeId>);

impl Said {
    fn to(&mut self, node: NodeId) {
        if !self.0.contains(&node) {
            self.0.push(node);
        }
    }
}

/// See the module.
pub(crate) struct Links {
    places: BTreeMap<NodeId, Place>,
    spaces: RwLock<BTreeMap<u32, Arc<Shared>>>,
    /// There is something to be written for the driver.
    pub(super) wake: Notify,
    /// When the driver will look at the engines' times, in the node's milliseconds; never, while it asks for them.
    planned: AtomicU64,
    /// When acknowledgements must go, if any are owed.
    acknowledge_at: AtomicU64,
    /// The node's time.
    clock: Clock,
    /// May anything be granted?
    pub(super) trust: Arc<Trust>,
    /// A thread has panicked in the middle of something: frames may be lost, or a lockspace not stopped.
    broken: AtomicBool,
    /// Connections are kept also when there is nothing to say.
    always: bool,
}

/// Ends the node if its thread panics meanwhile.
pub(super) struct Whole<'a>(pub(super) &'a Links);

impl Drop for Whole<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.broken.store(true, Ordering::SeqCst);
            self.0.wake.notify_one();
        }
    }
}

impl Links {
    pub(super) fn new(node: NodeId, lines: BTreeMap<NodeId, Line>, clock: Clock, always: bool) -> Links {
        let place = |(peer, line)| {
            let link = Mutex::new(Link::new(node, peer));
            (peer, Place { receiving: Mutex::default(), lives: AtomicU64::new(0), link, line })
        };
        let places = lines.into_iter().map(place).collect();
        Links {
            places,
            spaces: RwLock::default(),
            wake: Notify::new(),
            planned: AtomicU64::new(0),
            acknowledge_at: AtomicU64::new(u64::MAX),
            clock,
            trust: Arc::new(Trust::new(clock)),
            broken: AtomicBool::new(false),
            always,
        }
    }

    /// Has a thread panicked?
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }

    pub(super) fn space_begins(&self, shared: Arc<Shared>) {
        self.spaces.write().unwrap_or_else(PoisonError::into_inner).insert(shared.id(), shared);
    }

    pub(super) fn space_ends(&self, id: u32) {
        self.spaces.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// The node is gone.
    pub(super) fn end_all(&self) {
        let spaces = self.spaces.read().unwrap_or_else(PoisonError::into_inner).clone();
        spaces.into_values().for_each(|shared| shared.end());
    }

    fn space(&self, id: u32) -> Option<Arc<Shared>> {
        self.spaces.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// Says something to a peer; it is written by [`Links::flush`].
    pub(super) fn send(&self, lockspace: u32, to: NodeId, frame: Frame, said: &mut Said) {
        let Some(place) = self.places.get(&to) else { return };
        if let Err(error) = place.link().midcomms.send(lockspace, frame) {
            tracing::error!(%to, %error, "frame cannot be sent");
        }
        said.to(to);
    }

    pub(super) fn member_added(&self, node: NodeId, said: &mut Said) {
        self.change(node, said, Midcomms::member_added);
    }

    pub(super) fn member_removed(&self, node: NodeId, said: &mut Said) {
        self.change(node, said, Midcomms::member_removed);
    }

    fn change(&self, node: NodeId, said: &mut Said, change: fn(&mut Midcomms)) {
        if let Some(place) = self.places.get(&node) {
            change(&mut place.link().midcomms);
            said.to(node);
        }
    }

    /// Writes what was said; often unheard, and the driver gathers it.
    pub(super) fn flush(&self, said: Said) {
        for node in said.0 {
            let Some(place) = self.places.get(&node) else { continue };
            let mut link = place.link();
            if link.unheard >= UNHEARD_MAX && matches!(link.way, Way::Up(_)) {
                drop(link);
                self.wake.notify_one();
                continue;
            }
            let next = link.write(self.always);
            drop(link);
            place.follow(next);
        }
    }

    /// When the driver is wanted for acknowledgements.
    pub(super) fn wake_at(&self) -> u64 {
        self.acknowledge_at.load(Ordering::SeqCst)
    }

    /// Writes whatever there is to be written.
    pub(super) fn flush_all(&self) {
        let overdue = self.wake_at() <= self.clock.now();
        if overdue {
            self.acknowledge_at.store(u64::MAX, Ordering::Release);
        }
        for place in self.places.values() {
            let mut link = place.link();
            if overdue {
                link.midcomms.flush_ack();
            }
            let next = link.write(self.always);
            drop(link);
            place.follow(next);
        }
    }

    /// The driver asks the engines, and has asked them.
    pub(super) fn plan(&self, at: u64) {
        self.planned.store(at, Ordering::SeqCst);
    }

    /// Something is due then, as the driver can see by now: it may have planned to come later.
    pub(super) fn due(&self, at: u64) {
        if at < self.planned.load(Ordering::SeqCst) {
            self.wake.notify_one();
        }
    }

    pub(super) fn up(&self, node: NodeId, connection: Connection) {
        let Some(place) = self.places.get(&node) else { return };
        let mut link = place.link();
        // What was left of the last connection is sent again by the conversation.
        link.rest.clear();
        (link.way, link.full, link.unheard) = (Way::Up(connection), false, 0);
        link.midcomms.connected();
    }

    pub(super) fn down(&self, node: NodeId) {
        if let Some(place) = self.places.get(&node) {
            let mut link = place.link();
            (link.way, link.full) = (Way::None, false);
            link.rest.clear();
        }
    }

    /// A node has left the cluster, or has come back as another: nothing of its old life is taken in after this. (A frame
    /// that has its engine already is carried out; whatever this engine is told next waits for that. The driver, which has
    /// to say that we live, does not wait for long.)
    pub(super) fn gone(&self, node: NodeId) {
        let Some(place) = self.places.get(&node) else { return };
        let _nothing_under_way = place.receiving_soon();
        let mut link = place.link();
        place.lives.fetch_add(1, Ordering::SeqCst);
        link.midcomms.node_gone();
        link.rest.clear();
        link.full = false;
        link.way = match link.way {
            // Half a frame may have been written, and nothing may follow it. The transport will report the end.
            Way::Up(_) => Way::Wanted,
            // The transport gives up; if we want it again, we ask again.
            Way::None | Way::Wanted => Way::None,
        };
        drop(link);
        place.line.disconnect();
    }

    /// Our last lockspace is gone: parts with everyone.
    pub(super) fn part(&self) {
        self.places.values().for_each(|place| place.link().midcomms.shutdown());
    }

    /// Have all conversations ended?
    pub(super) fn have_parted(&self) -> bool {
        self.places.values().all(|place| place.link().midcomms.state() == State::Closed)
    }

    pub(super) fn break_connections(&self) {
        self.places.values().for_each(|place| place.line.break_connection(None));
    }

    pub(super) fn views(&self) -> Vec<PeerView> {
        self.places.iter().map(|(node, place)| place.link().view(*node)).collect()
    }

    pub(super) fn status(&self) -> Vec<PeerStatus> {
        let status = |(node, place): (&NodeId, &Place)| {
            let link = place.link();
            PeerStatus {
                node: *node,
                state: link.midcomms.state(),
                connected: matches!(link.way, Way::Up(_)),
                full: link.full,
                waiting_bytes: link.waiting_bytes(),
                dropped: link.midcomms.dropped(),
            }
        };
        self.places.iter().map(status).collect()
    }

    /// Sees to it that what was taken in is acknowledged, now or soon.
    fn acknowledge(&self, place: &Place, from: NodeId, said: &mut Said) {
        let mut link = place.link();
        if link.midcomms.owed() >= OWED_MAX {
            link.midcomms.flush_ack();
        }
        if link.midcomms.has_transmit() {
            return said.to(from);
        }
        if link.midcomms.owed() > 0 {
            let at = self.clock.now() + OWED_MS;
            let before = self.acknowledge_at.fetch_min(at, Ordering::SeqCst);
            if at < before {
                self.due(at);
            }
        }
    }

    /// Hands a frame to its engine, unless the life that it is from is over by then.
    fn deliver(
        &self,
        from: NodeId,
        delivery: Delivery,
        lives: &dyn Fn() -> bool,
        said: &mut Said,
        heard: &mut Vec<Arc<Shared>>,
    ) {
        let known = heard.iter().find(|shared| shared.id() == delivery.lockspace).cloned();
        let known = known.or_else(|| {
            let found = self.space(delivery.lockspace)?;
            heard.push(found.clone());
            Some(found)
        });
        match (known, delivery.frame) {
            (Some(shared), frame) => shared.take_in(Event::Frame { from, frame }, lives, said),
            (None, Frame::Rcom(rcom)) if lives() => {
                // Without this answer whoever is waiting for us would wait longer.
                if let Some(answer) = crate::recovery::not_ready_answer(&rcom) {
                    self.send(delivery.lockspace, from, Frame::Rcom(Box::new(answer)), said);
                }
            }
            (None, _) => {}
        }
    }
}

impl Place {
    fn follow(&self, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Connect => self.line.connect(),
            Next::Drain(number) => self.line.drain(number),
            Next::Break(number) => self.line.break_connection(Some(number)),
        }
    }
}

impl Sink for Links {
    fn frames(&self, from: NodeId, frames: &[&[u8]]) {
        let Some(place) = self.places.get(&from) else { return };
        let _whole = Whole(self);
        let (mut said, mut heard) = (Said::default(), Vec::new());
        let order = locked(&place.receiving);
        let mut deliveries = Vec::with_capacity(frames.len());
        let life = {
            let mut link = place.link();
            frames.iter().for_each(|frame| link.midcomms.receive(frame));
            link.unheard = 0;
            while let Some(delivery) = link.midcomms.next_delivery() {
                deliveries.push(delivery);
            }
            place.lives.load(Ordering::SeqCst)
        };
        let lives = || place.lives.load(Ordering::SeqCst) == life;
        deliveries.into_iter().for_each(|delivery| self.deliver(from, delivery, &lives, &mut said, &mut heard));
        drop(order);
        self.acknowledge(place, from, &mut said);
        self.flush(said);
        heard.iter().for_each(|shared| shared.tell_promptly());
    }

    fn writable(&self, to: NodeId, connection: u64) -> bool {
        let Some(place) = self.places.get(&to) else { return false };
        let mut link = place.link();
        if !matches!(&link.way, Way::Up(current) if current.number == connection) {
            return false;
        }
        link.full = false;
        match link.write(self.always) {
            Next::Drain(_) => true,
            next => {
                drop(link);
                place.follow(next);
                false
            }
        }
    }
}
