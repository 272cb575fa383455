//! The lock service of several nodes in one process: grants in order, blocking notices, value blocks. One thread delivers.

use gfs2r::glock::{Answer, LockClient, LockManager, LockState, Lvb, Reply, Request};
use gfs2r::ids::LockName;
use gfs2r::sync::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Weak};

/// The service.
pub(crate) struct Hall {
    locks: Mutex<HashMap<LockName, Lock>>,
    post: Mutex<mpsc::Sender<Letter>>,
    /// Grants that another node had to make room for.
    pub(crate) handed_over: AtomicU64,
}

#[derive(Default)]
struct Lock {
    granted: HashMap<usize, LockState>,
    queue: VecDeque<(usize, Request)>,
    clients: HashMap<usize, Weak<dyn LockClient>>,
    lvb: Lvb,
}

enum Letter {
    Completed(Arc<dyn LockClient>, Reply, Option<Lvb>),
    Blocking(Weak<dyn LockClient>, LockState),
}

struct Node {
    id: usize,
    hall: Arc<Hall>,
}

fn compatible(a: LockState, b: LockState) -> bool {
    a == LockState::Unlocked || b == LockState::Unlocked || (a == b && a != LockState::Exclusive)
}

impl Lock {
    fn held_by(&self, node: usize) -> LockState {
        self.granted.get(&node).copied().unwrap_or_default()
    }
    fn in_the_way(&self, node: usize, to: LockState) -> Vec<usize> {
        self.granted.iter().filter(|(n, s)| **n != node && !compatible(**s, to)).map(|(n, _)| *n).collect()
    }
}

impl Hall {
    pub(crate) fn open() -> Arc<Self> {
        let (post, letters) = mpsc::channel();
        std::thread::spawn(move || {
            for letter in letters {
                match letter {
                    Letter::Completed(client, reply, lvb) => client.completed(reply, lvb),
                    Letter::Blocking(client, ceiling) => {
                        if let Some(client) = client.upgrade() {
                            client.blocking(ceiling);
                        }
                    }
                }
            }
        });
        Arc::new(Self { locks: Mutex::default(), post: Mutex::new(post), handed_over: AtomicU64::new(0) })
    }

    /// What node `id` asks.
    pub(crate) fn node(self: &Arc<Self>, id: usize) -> Arc<dyn LockManager> {
        Arc::new(Node { id, hall: Arc::clone(self) })
    }

    fn send(&self, letter: Letter) {
        self.post.lock().send(letter).expect("the postman lives as long as the hall");
    }

    fn tell_blockers(&self, lock: &Lock, node: usize, to: LockState) {
        let ceiling = if to == LockState::Exclusive { LockState::Unlocked } else { to };
        for blocker in lock.in_the_way(node, to) {
            self.send(Letter::Blocking(lock.clients[&blocker].clone(), ceiling));
        }
    }

    fn grant_what_fits(&self, lock: &mut Lock) {
        while let Some((node, request)) = lock.queue.front().copied() {
            if !lock.in_the_way(node, request.to).is_empty() {
                return self.tell_blockers(lock, node, request.to);
            }
            lock.queue.pop_front();
            lock.granted.insert(node, request.to);
            self.handed_over.fetch_add(1, Ordering::Relaxed);
            if let Some(client) = lock.clients[&node].upgrade() {
                self.send(Letter::Completed(client, Reply::Granted, Some(lock.lvb)));
            }
        }
    }
}

impl LockManager for Node {
    fn request(&self, name: LockName, request: Request, client: &Arc<dyn LockClient>) -> Answer {
        let mut locks = self.hall.locks.lock();
        let lock = locks.entry(name).or_default();
        lock.clients.insert(self.id, Arc::downgrade(client));
        assert_eq!(lock.held_by(self.id), request.from, "{name}: the node knows what it holds");
        if request.from.permits(request.to) {
            if let (LockState::Exclusive, Some(lvb)) = (request.from, request.lvb) {
                lock.lvb = lvb;
            }
            lock.granted.insert(self.id, request.to);
            self.hall.grant_what_fits(lock);
            return Answer::Done(Reply::Granted, None);
        }
        let converts = request.from != LockState::Unlocked;
        if converts && lock.queue.iter().any(|(n, q)| *n != self.id && q.from != LockState::Unlocked) {
            return Answer::Done(Reply::Deadlock, None);
        }
        let free = lock.in_the_way(self.id, request.to).is_empty();
        if free && (lock.queue.is_empty() || converts) {
            lock.granted.insert(self.id, request.to);
            return Answer::Done(Reply::Granted, Some(lock.lvb));
        }
        if request.no_queue {
            self.hall.tell_blockers(lock, self.id, request.to);
            return Answer::Done(Reply::Refused, None);
        }
        if converts {
            lock.queue.push_front((self.id, request));
        } else {
            lock.queue.push_back((self.id, request));
        }
        self.hall.grant_what_fits(lock);
        Answer::Pending
    }

    fn cancel(&self, name: LockName) {
        let mut locks = self.hall.locks.lock();
        let lock = locks.entry(name).or_default();
        let before = lock.queue.len();
        lock.queue.retain(|(n, _)| *n != self.id);
        if lock.queue.len() != before {
            if let Some(client) = lock.clients[&self.id].upgrade() {
                self.hall.send(Letter::Completed(client, Reply::Refused, None));
            }
            self.hall.grant_what_fits(lock);
        }
    }

    fn release(&self, name: LockName) {
        let mut locks = self.hall.locks.lock();
        if let Some(lock) = locks.get_mut(&name) {
            assert_eq!(lock.held_by(self.id), LockState::Unlocked, "{name}: released while held");
            lock.granted.remove(&self.id);
            lock.clients.remove(&self.id);
        }
    }

    fn is_shared(&self) -> bool {
        true
    }
}
