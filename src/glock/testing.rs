//! A pretended cluster: what the lock service does for several nodes, with one thread that delivers its letters late.

use super::{Answer, LockClient, LockManager, LockState, Lvb, Reply, Request};
use crate::ids::LockName;
use crate::sync::Mutex;
use std::collections::{HashMap, VecDeque};
use std::sync::mpsc;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// A lock service for several nodes in one process: late grants, blocking notices, conversion deadlocks.
pub(crate) struct Cluster {
    resources: Mutex<HashMap<LockName, Resource>>,
    post: Mutex<mpsc::Sender<Letter>>,
}

#[derive(Default)]
struct Resource {
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
    cluster: Arc<Cluster>,
}

fn compatible(a: LockState, b: LockState) -> bool {
    a == LockState::Unlocked || b == LockState::Unlocked || (a == b && a != LockState::Exclusive)
}

impl Cluster {
    /// One whose letters take times that depend on the seed.
    pub(crate) fn start(seed: u64) -> Arc<Self> {
        let (post, letters) = mpsc::channel::<Letter>();
        std::thread::spawn(move || {
            let mut random = seed;
            for letter in letters {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                std::thread::sleep(Duration::from_micros((random >> 33) % 50));
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
        Arc::new(Self { resources: Mutex::default(), post: Mutex::new(post) })
    }
    /// What node `id` calls.
    pub(crate) fn node(self: &Arc<Self>, id: usize) -> Arc<dyn LockManager> {
        Arc::new(Node { id, cluster: Arc::clone(self) })
    }
    fn send(&self, letter: Letter) {
        self.post.lock().send(letter).expect("the postman lives as long as the cluster");
    }
    fn ceiling(to: LockState) -> LockState {
        if to == LockState::Exclusive { LockState::Unlocked } else { to }
    }
    fn pass(&self, r: &mut Resource) {
        while let Some((node, request)) = r.queue.front().copied() {
            let blockers: Vec<usize> = r
                .granted
                .iter()
                .filter(|(n, s)| **n != node && !compatible(**s, request.to))
                .map(|(n, _)| *n)
                .collect();
            if !blockers.is_empty() {
                for b in blockers {
                    self.send(Letter::Blocking(r.clients[&b].clone(), Self::ceiling(request.to)));
                }
                return;
            }
            r.queue.pop_front();
            r.granted.insert(node, request.to);
            if let Some(client) = r.clients[&node].upgrade() {
                self.send(Letter::Completed(client, Reply::Granted, Some(r.lvb)));
            }
        }
    }
}

impl LockManager for Node {
    fn request(&self, name: LockName, request: Request, client: &Arc<dyn LockClient>) -> Answer {
        let mut all = self.cluster.resources.lock();
        let r = all.entry(name).or_default();
        r.clients.insert(self.id, Arc::downgrade(client));
        assert_eq!(r.granted.get(&self.id).copied().unwrap_or_default(), request.from, "the node knows what it holds");
        if request.from.permits(request.to) {
            if let (LockState::Exclusive, Some(lvb)) = (request.from, request.lvb) {
                r.lvb = lvb;
            }
            r.granted.insert(self.id, request.to);
            self.cluster.pass(r);
            return Answer::Done(Reply::Granted, None);
        }
        let converts = request.from != LockState::Unlocked;
        if converts && r.queue.iter().any(|(n, q)| *n != self.id && q.from != LockState::Unlocked) {
            return Answer::Done(Reply::Deadlock, None);
        }
        let free = r.granted.iter().all(|(n, s)| *n == self.id || compatible(*s, request.to));
        if request.no_queue && !(free && r.queue.is_empty()) {
            return Answer::Done(Reply::Refused, None);
        }
        if converts {
            r.queue.push_front((self.id, request));
        } else {
            r.queue.push_back((self.id, request));
        }
        self.cluster.pass(r);
        Answer::Pending
    }
    fn cancel(&self, name: LockName) {
        let mut all = self.cluster.resources.lock();
        let r = all.entry(name).or_default();
        let before = r.queue.len();
        r.queue.retain(|(n, _)| *n != self.id);
        if r.queue.len() != before
            && let Some(client) = r.clients[&self.id].upgrade()
        {
            self.cluster.send(Letter::Completed(client, Reply::Refused, None));
        }
    }
    fn release(&self, name: LockName) {
        let held = self.cluster.resources.lock().get(&name).and_then(|r| r.granted.get(&self.id).copied());
        assert!(held.unwrap_or_default() == LockState::Unlocked, "released while held");
    }
    fn is_shared(&self) -> bool {
        true
    }
}
