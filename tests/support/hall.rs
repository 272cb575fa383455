//! A lock hall: the lock service of several nodes in one process, and the cable between each node and the disk they share.
//!
//! The rules are the DLM's as far as GFS2 sees them: first come first served, conversions before new requests, blocking notices
//! to those who stand in the way, value blocks written by who leaves EX, lost with an EX holder that dies, and the deadlock of
//! two conversions told to the second. Every answer comes from another thread, and a little late.
#![allow(dead_code, reason = "each test uses its own part")]

use gfs2r::device::{BlockDevice, MemoryDevice};
use gfs2r::glock::{Answer, LockClient, LockManager, LockState, Lvb, Reply, Request};
use gfs2r::ids::LockName;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

/// The lock service.
pub(crate) struct Hall {
    state: Mutex<State>,
    post: Mutex<Sender<Letter>>,
    /// Requests so far.
    pub requests: AtomicU64,
    /// Blocking notices so far.
    pub notices: AtomicU64,
}

#[derive(Default)]
struct State {
    locks: HashMap<LockName, Lock>,
    /// Which life of each node this is: whoever belongs to an earlier one gets nothing.
    lives: HashMap<usize, u64>,
    /// A node died and its journal is not replayed: nothing is granted.
    blocked: bool,
}

#[derive(Default)]
struct Lock {
    granted: BTreeMap<usize, LockState>,
    converting: VecDeque<Waiting>,
    waiting: VecDeque<Waiting>,
    clients: BTreeMap<usize, Weak<dyn LockClient>>,
    lvb: Lvb,
}

#[derive(Clone, Copy)]
struct Waiting {
    node: usize,
    to: LockState,
}

enum Letter {
    Completed(Weak<dyn LockClient>, Reply, Option<Lvb>),
    Blocking(Weak<dyn LockClient>, LockState),
}

fn compatible(a: LockState, b: LockState) -> bool {
    a == LockState::Unlocked || b == LockState::Unlocked || (a == b && a != LockState::Exclusive)
}

impl Lock {
    fn holds(&self, node: usize) -> LockState {
        self.granted.get(&node).copied().unwrap_or_default()
    }
    fn in_the_way(&self, node: usize, to: LockState) -> Vec<usize> {
        self.granted.iter().filter(|(n, s)| **n != node && !compatible(**s, to)).map(|(n, _)| *n).collect()
    }
}

impl Hall {
    /// An empty one; `seed` decides how late letters are.
    pub(crate) fn open(seed: u64) -> Arc<Self> {
        let (post, letters) = mpsc::channel::<Letter>();
        std::thread::spawn(move || {
            let mut random = seed | 1;
            for letter in letters {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                if random % 4 == 0 {
                    std::thread::sleep(Duration::from_micros(random % 64));
                }
                match letter {
                    Letter::Completed(client, reply, lvb) => {
                        if let Some(client) = client.upgrade() {
                            client.completed(reply, lvb);
                        }
                    }
                    Letter::Blocking(client, ceiling) => {
                        if let Some(client) = client.upgrade() {
                            client.blocking(ceiling);
                        }
                    }
                }
            }
        });
        let (requests, notices) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { state: Mutex::default(), post: Mutex::new(post), requests, notices })
    }

    /// What node `n` asks.
    pub(crate) fn desk(self: &Arc<Self>, n: usize) -> Arc<dyn LockManager> {
        let life = self.lock().lives.get(&n).copied().unwrap_or(0);
        Arc::new(Desk { node: n, life, hall: Arc::clone(self) })
    }

    /// Node `n` is gone: so are its locks, and what it had written into value blocks under EX. Nothing is granted before
    /// [`recovered`](Self::recovered).
    pub(crate) fn kill(&self, n: usize) {
        let mut state = self.lock();
        *state.lives.entry(n).or_default() += 1;
        state.blocked = true;
        for lock in state.locks.values_mut() {
            if lock.granted.remove(&n) == Some(LockState::Exclusive) {
                lock.lvb = Lvb::default();
            }
            if lock.converting.iter().chain(&lock.waiting).any(|w| w.node == n) {
                // Its threads learn that it is over.
                self.complete(lock, n, Reply::Failed, None);
            }
            lock.converting.retain(|w| w.node != n);
            lock.waiting.retain(|w| w.node != n);
            lock.clients.remove(&n);
        }
    }

    /// The dead node's journal is replayed.
    pub(crate) fn recovered(&self) {
        let mut state = self.lock();
        state.blocked = false;
        for lock in state.locks.values_mut() {
            self.pass(lock);
        }
    }

    /// Locks that a node holds.
    pub(crate) fn held_by(&self, n: usize) -> Vec<(LockName, LockState)> {
        let state = self.lock();
        let held = state.locks.iter().map(|(name, lock)| (*name, lock.holds(n)));
        held.filter(|(_, state)| *state != LockState::Unlocked).collect()
    }

    /// Who holds and who waits, where somebody waits.
    pub(crate) fn picture(&self) -> String {
        let state = self.lock();
        let busy = state.locks.iter().filter(|(_, l)| !l.waiting.is_empty() || !l.converting.is_empty());
        busy.map(|(name, l)| {
            let wait: Vec<String> =
                l.converting.iter().chain(&l.waiting).map(|w| format!("{}:{}", w.node, w.to)).collect();
            format!("{name}: held {:?}, waiting {wait:?}\n", l.granted)
        })
        .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic in the hall")
    }

    fn send(&self, letter: Letter) {
        self.post.lock().expect("no panic").send(letter).expect("the postman lives as long as the hall");
    }

    fn complete(&self, lock: &Lock, node: usize, reply: Reply, lvb: Option<Lvb>) {
        if let Some(client) = lock.clients.get(&node) {
            self.send(Letter::Completed(client.clone(), reply, lvb));
        }
    }

    fn notify(&self, lock: &Lock, blockers: &[usize], to: LockState) {
        let ceiling = if to == LockState::Exclusive { LockState::Unlocked } else { to };
        for blocker in blockers {
            if let Some(client) = lock.clients.get(blocker) {
                self.notices.fetch_add(1, Ordering::Relaxed);
                self.send(Letter::Blocking(client.clone(), ceiling));
            }
        }
    }

    /// Grants what can be granted.
    fn pass(&self, lock: &mut Lock) {
        loop {
            let converts = !lock.converting.is_empty();
            let Some(next) = lock.converting.front().or(lock.waiting.front()).copied() else { return };
            let blockers = lock.in_the_way(next.node, next.to);
            if !blockers.is_empty() {
                return self.notify(lock, &blockers, next.to);
            }
            if converts {
                lock.converting.pop_front()
            } else {
                lock.waiting.pop_front()
            };
            lock.granted.insert(next.node, next.to);
            self.complete(lock, next.node, Reply::Granted, Some(lock.lvb));
        }
    }
}

struct Desk {
    node: usize,
    life: u64,
    hall: Arc<Hall>,
}

impl LockManager for Desk {
    fn request(&self, name: LockName, request: Request, client: &Arc<dyn LockClient>) -> Answer {
        let hall = &self.hall;
        hall.requests.fetch_add(1, Ordering::Relaxed);
        let mut state = hall.lock();
        if state.lives.get(&self.node).copied().unwrap_or(0) != self.life {
            return Answer::Done(Reply::Failed, None);
        }
        let blocked = state.blocked;
        let lock = state.locks.entry(name).or_default();
        lock.clients.insert(self.node, Arc::downgrade(client));
        let (node, from, to) = (self.node, request.from, request.to);
        assert_eq!(lock.holds(node), from, "node {node} knows what it holds of {name}");
        assert!(
            !lock.converting.iter().chain(&lock.waiting).any(|w| w.node == node),
            "node {node} asks for one thing at a time ({name})"
        );
        if from.permits(to) {
            if let (LockState::Exclusive, Some(lvb)) = (from, request.lvb) {
                lock.lvb = lvb;
            }
            lock.granted.insert(node, to);
            hall.complete(lock, node, Reply::Granted, None);
            if !blocked {
                hall.pass(lock);
            }
            return Answer::Pending;
        }
        let blockers = lock.in_the_way(node, to);
        let converts = from != LockState::Unlocked;
        if converts && lock.converting.iter().any(|w| !compatible(from, w.to) && !compatible(lock.holds(w.node), to)) {
            hall.complete(lock, node, Reply::Deadlock, None);
            return Answer::Pending;
        }
        let ahead = !lock.converting.is_empty() || !converts && !lock.waiting.is_empty();
        if request.no_queue && (blocked || ahead || !blockers.is_empty()) {
            hall.notify(lock, &blockers, to);
            hall.complete(lock, node, Reply::Refused, None);
            return Answer::Pending;
        }
        let queue = if converts { &mut lock.converting } else { &mut lock.waiting };
        queue.push_back(Waiting { node, to });
        if !blocked {
            hall.pass(lock);
        }
        Answer::Pending
    }

    fn cancel(&self, name: LockName) {
        let mut state = self.hall.lock();
        if state.lives.get(&self.node).copied().unwrap_or(0) != self.life {
            return;
        }
        let Some(lock) = state.locks.get_mut(&name) else { return };
        let before = lock.converting.len() + lock.waiting.len();
        lock.converting.retain(|w| w.node != self.node);
        lock.waiting.retain(|w| w.node != self.node);
        if lock.converting.len() + lock.waiting.len() != before {
            self.hall.complete(lock, self.node, Reply::Refused, None);
            self.hall.pass(lock);
        }
    }

    fn release(&self, name: LockName) {
        let mut state = self.hall.lock();
        if state.lives.get(&self.node).copied().unwrap_or(0) != self.life {
            return;
        }
        if let Some(lock) = state.locks.get_mut(&name) {
            assert!(lock.holds(self.node) == LockState::Unlocked, "released while held: {name}");
            lock.clients.remove(&self.node);
            lock.granted.remove(&self.node);
        }
    }

    fn is_shared(&self) -> bool {
        true
    }
}

/// One node's way to the shared disk; pulled out, nothing goes through any more.
pub(crate) struct Cable {
    disk: Arc<MemoryDevice>,
    pulled: AtomicBool,
    /// Blocks written, writes that were made durable, flushes.
    pub writes: AtomicU64,
    pub durable: AtomicU64,
    pub flushes: AtomicU64,
}

impl Cable {
    pub(crate) fn new(disk: &Arc<MemoryDevice>) -> Arc<Self> {
        let disk = Arc::clone(disk);
        Arc::new(Self {
            disk,
            pulled: AtomicBool::new(false),
            writes: AtomicU64::new(0),
            durable: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
        })
    }
    pub(crate) fn pull(&self) {
        self.pulled.store(true, Ordering::SeqCst);
    }
    fn check(&self) -> io::Result<()> {
        if self.pulled.load(Ordering::SeqCst) { Err(io::Error::other("the cable is pulled out")) } else { Ok(()) }
    }
}

impl BlockDevice for Cable {
    fn size(&self) -> u64 {
        self.disk.size()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.check()?;
        self.disk.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check()?;
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.disk.write(offset, buf)
    }
    fn write_durable(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.check()?;
        self.durable.fetch_add(1, Ordering::Relaxed);
        self.disk.write(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        self.check()?;
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.disk.flush()
    }
    fn discard(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check()?;
        // What was discarded may read as anything: somebody who reads it all the same shall notice.
        for at in (offset..offset + len).step_by(512) {
            self.disk.write(at, &[0xdb; 512])?;
        }
        Ok(())
    }
}
