//! Several machines, one model of the two locks and of the membership, and a seed that decides what happens next: every order
//! of steps, with deaths, arrivals, departures and withdrawals between any two (dlm.md 6.6, scenarios 65 to 69).
//!
//! Checked after every step: nobody may see what lies under a dead node's locks before its journal is replayed; nobody is
//! mounted beside a first mounter that replays. Checked at the end, when nothing more goes wrong: everybody is mounted, nothing is
//! held back, every journal is replayed. `SEEDS=100000 cargo test --release --lib control::schedule`; `SEED=n` shows one.

use super::{Ask, Control, Effect, Event, Value, Which};
use crate::glock::Lvb;
use lockclient::mode::{Mode, compatible};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lock {
    Control,
    Mounted,
    Journal(u32),
}

#[derive(Clone, Copy, Debug)]
enum Job {
    Ask(Ask),
    Recover(u32),
    /// As first mounter.
    ReplayAll,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// On its way to being mounted.
    Mounting,
    /// First mounter, replaying.
    First,
    /// Waits for its own journal's lock.
    Entering,
    Active,
    Withdrawn,
}

struct Node {
    machine: Control,
    jobs: VecDeque<Job>,
    wakes: u32,
    held: bool,
    life: Life,
    slot: u16,
    /// Locking is stopped.
    stopped: bool,
    /// Slots that failed since this node was last started.
    failed: Vec<u16>,
    /// Its copy of the block, with the number under which the lock service knows it.
    copy: (Lvb, u32),
}

/// What may go wrong in a schedule.
#[derive(Clone, Copy)]
struct Rules {
    nodes: u32,
    deaths: u32,
    arrivals: u32,
    departures: u32,
    withdrawals: u32,
}

struct World {
    random: u64,
    rules: Rules,
    nodes: BTreeMap<u32, Node>,
    next: u32,
    generation: u32,
    locks: BTreeMap<(Lock, u32), Mode>,
    value: (Lvb, u32),
    /// Nodes that are gone and whose locks are still there.
    gone: BTreeSet<u32>,
    /// A change of the membership is under way: all are to stop.
    changing: bool,
    /// Journals that are not clean, by jid: whose.
    dirty: BTreeMap<u32, u32>,
    /// Those of them whose owner's locks are gone.
    exposed: BTreeSet<u32>,
    replays: BTreeMap<u32, u32>,
    log: bool,
}

impl World {
    fn new(seed: u64, rules: Rules) -> Self {
        let mut world = Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678,
            rules,
            nodes: BTreeMap::new(),
            next: 1,
            generation: 0,
            locks: BTreeMap::new(),
            value: (Lvb::default(), 0),
            gone: BTreeSet::new(),
            changing: false,
            dirty: BTreeMap::new(),
            exposed: BTreeSet::new(),
            replays: BTreeMap::new(),
            log: std::env::var_os("SEED").is_some(),
        };
        (0..rules.nodes).for_each(|_| world.arrive());
        world
    }
    fn draw(&mut self, below: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.random >> 33) % below.max(1) as u64) as usize
    }
    fn say(&self, what: impl FnOnce() -> String) {
        if self.log {
            println!("{}", what());
        }
    }

    fn arrive(&mut self) {
        let id = self.next;
        self.next += 1;
        let node = Node {
            machine: Control::new(false),
            jobs: VecDeque::new(),
            wakes: 0,
            held: false,
            life: Life::Mounting,
            slot: 0,
            stopped: true,
            failed: Vec::new(),
            copy: (Lvb::default(), 0),
        };
        self.nodes.insert(id, node);
        self.changing = true;
        self.say(|| format!("{id} arrives"));
    }

    /// Takes a node out. `dead`: the others hear that its slot has failed.
    fn remove(&mut self, id: u32, dead: bool) {
        let Some(node) = self.nodes.remove(&id) else { return };
        self.say(|| format!("{id} {}", if dead { "dies" } else { "leaves" }));
        self.gone.insert(id);
        self.changing = true;
        if dead && node.slot != 0 {
            self.nodes.values_mut().for_each(|n| n.failed.push(node.slot));
        }
        if self.draw(2) == 0 {
            // CONTROL's master was among the dead: the newest copy counts, of two equally new ones either.
            let newest = self.nodes.values().map(|n| n.copy.1).max().unwrap_or(0);
            let copies: Vec<_> = self.nodes.values().map(|n| n.copy).filter(|c| c.1 == newest).collect();
            if !copies.is_empty() {
                self.value = copies[self.draw(copies.len())];
            }
        }
    }

    fn feed(&mut self, id: u32, event: Event) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let effects = node.machine.step(event);
        if self.log {
            println!("{id}: {event:?} -> {effects:?}");
        }
        for effect in effects {
            match effect {
                Effect::Ask(ask) => node.jobs.push_back(Job::Ask(ask)),
                Effect::Recover(jid) => node.jobs.push_back(Job::Recover(jid)),
                Effect::RecoverOthers => {
                    (0..16)
                        .filter(|j| *j + 1 != u32::from(node.slot))
                        .for_each(|j| node.jobs.push_back(Job::Recover(j)));
                }
                Effect::WakeAfter(_) => node.wakes += 1,
                Effect::Hold => node.held = true,
                Effect::Release => node.held = false,
                Effect::Mounted { first: true } => {
                    node.life = Life::First;
                    node.jobs.push_back(Job::ReplayAll);
                }
                Effect::Mounted { first: false } => node.life = Life::Entering,
                Effect::Published => node.life = Life::Entering,
                Effect::Refused(why) => panic!("{id} is refused: {why:?}"),
            }
        }
    }

    fn take(&mut self, id: u32, lock: Lock, mode: Mode) -> bool {
        let free = self.locks.iter().all(|((l, n), m)| *l != lock || *n == id || compatible(Some(*m), Some(mode)));
        if free {
            self.locks.insert((lock, id), mode);
        }
        free
    }

    /// Does the next job of a node; false when it has to wait.
    fn work(&mut self, id: u32) -> bool {
        let node = &self.nodes[&id];
        if node.stopped {
            return false;
        }
        let Some(job) = node.jobs.front().copied() else { return self.enter(id) };
        let event = match job {
            Job::Ask(ask) => match self.ask(id, ask) {
                Some(granted) => Event::Answer { granted, lvb: self.nodes[&id].copy.0 },
                None => return false,
            },
            Job::Recover(jid) => Event::Recovered { jid, success: self.replay(id, jid) },
            Job::ReplayAll => {
                for jid in self.dirty.keys().copied().collect::<Vec<_>>() {
                    self.clean(jid);
                }
                Event::FirstDone
            }
        };
        self.nodes.get_mut(&id).expect("it is there").jobs.pop_front();
        self.feed(id, event);
        true
    }

    fn enter(&mut self, id: u32) -> bool {
        let jid = u32::from(self.nodes[&id].slot) - 1;
        let life = self.nodes[&id].life;
        match life {
            Life::Entering if self.take(id, Lock::Journal(jid), Mode::Ex) => {
                self.nodes.get_mut(&id).expect("it is there").life = Life::Active;
                true
            }
            // Something is written.
            Life::Active if !self.nodes[&id].held => {
                assert!(!self.exposed.contains(&jid), "{id} writes to journal {jid}, which waits for its replay");
                self.dirty.insert(jid, id).is_none()
            }
            Life::Withdrawn => self.part(id, jid),
            _ => false,
        }
    }

    fn ask(&mut self, id: u32, ask: Ask) -> Option<bool> {
        let lock = if ask.which == Which::Control { Lock::Control } else { Lock::Mounted };
        if !self.take(id, lock, ask.mode) {
            return ask.tries.then_some(false);
        }
        if lock == Lock::Control {
            let node = self.nodes.get_mut(&id).expect("it is there");
            match ask.value {
                Value::Fetch => node.copy = self.value,
                // The number of a copy that was written lags behind.
                Value::Write(lvb) => {
                    node.copy.0 = lvb;
                    self.value = (lvb, self.value.1 + 1);
                }
                Value::Skip => {}
            }
        }
        Some(true)
    }

    fn replay(&mut self, id: u32, jid: u32) -> bool {
        let was = self.locks.get(&(Lock::Journal(jid), id)).copied();
        if !self.take(id, Lock::Journal(jid), Mode::Ex) {
            return false;
        }
        assert!(was.is_none(), "{id} replays its own journal");
        self.locks.remove(&(Lock::Journal(jid), id));
        self.clean(jid);
        true
    }
    fn clean(&mut self, jid: u32) {
        if let Some(owner) = self.dirty.remove(&jid) {
            let lives = self.nodes.get(&owner).is_some_and(|n| n.life != Life::Withdrawn);
            assert!(!lives, "the journal of {owner}, which lives, was replayed");
            *self.replays.entry(owner).or_default() += 1;
        }
        self.exposed.remove(&jid);
    }

    /// A withdrawn node leaves when its journal is clean; if it does not become clean, its process ends.
    fn part(&mut self, id: u32, jid: u32) -> bool {
        let dirty = self.dirty.get(&jid) == Some(&id);
        if dirty && self.draw(8) != 0 {
            return false;
        }
        self.remove(id, dirty);
        true
    }

    fn withdraw(&mut self, id: u32) {
        self.say(|| format!("{id} withdraws"));
        let node = self.nodes.get_mut(&id).expect("it is there");
        node.life = Life::Withdrawn;
        let jid = u32::from(node.slot) - 1;
        // What it was about to do it does not do.
        node.jobs.retain(|job| matches!(job, Job::Ask(_)));
        self.feed(id, Event::Withdraw);
        self.locks.remove(&(Lock::Journal(jid), id));
        for other in self.nodes.keys().copied().filter(|n| *n != id).collect::<Vec<_>>() {
            if matches!(self.nodes[&other].life, Life::Active) {
                self.feed(other, Event::RemoteWithdraw);
            }
        }
    }

    /// One step of the membership: somebody stops, or all have stopped and the next generation begins, or somebody is told.
    fn membership(&mut self) -> bool {
        if self.changing {
            let running: Vec<u32> = self.nodes.iter().filter(|(_, n)| !n.stopped).map(|(id, _)| *id).collect();
            if !running.is_empty() {
                let id = running[self.draw(running.len())];
                self.nodes.get_mut(&id).expect("it is there").stopped = true;
                self.feed(id, Event::Prepare);
                return true;
            }
            self.purge();
            self.changing = false;
            return true;
        }
        let stopped: Vec<u32> = self.nodes.iter().filter(|(_, n)| n.stopped).map(|(id, _)| *id).collect();
        if stopped.is_empty() {
            return false;
        }
        let id = stopped[self.draw(stopped.len())];
        self.start(id);
        true
    }

    /// All have stopped: the locks of those who are gone go, and slots are given.
    fn purge(&mut self) {
        self.generation += 1;
        for (jid, owner) in &self.dirty {
            if self.gone.contains(owner) {
                self.exposed.insert(*jid);
            }
        }
        let gone = std::mem::take(&mut self.gone);
        self.locks.retain(|(_, id), _| !gone.contains(id));
        if !self.locks.keys().any(|(lock, _)| *lock == Lock::Control) {
            self.value = (Lvb::default(), 0);
        }
        let mut taken: BTreeSet<u16> = self.nodes.values().map(|n| n.slot).collect();
        for node in self.nodes.values_mut().filter(|n| n.slot == 0) {
            node.slot = (1..).find(|s| !taken.contains(s)).expect("there are enough");
            taken.insert(node.slot);
            // Who has come is not told who failed before.
            node.failed.clear();
        }
    }

    fn start(&mut self, id: u32) {
        let largest = self.nodes.values().map(|n| n.slot).max().unwrap_or(0);
        let node = self.nodes.get_mut(&id).expect("it is there");
        node.stopped = false;
        let (our_slot, new) = (node.slot, node.machine.jid().is_none());
        for slot in std::mem::take(&mut node.failed) {
            self.feed(id, Event::SlotFailed(slot));
        }
        self.feed(id, Event::Done { our_slot, largest, generation: self.generation });
        if new {
            self.feed(id, Event::Mount);
        }
    }

    fn check(&self) {
        let first = self.nodes.values().filter(|n| n.life == Life::First).count();
        let mounted = self.nodes.values().filter(|n| matches!(n.life, Life::Entering | Life::Active)).count();
        assert!(first == 0 || first + mounted == 1, "{mounted} nodes are mounted beside {first} first mounters");
        for (id, node) in self.nodes.iter().filter(|(_, n)| n.life == Life::Active && !n.held) {
            assert!(self.exposed.is_empty(), "{id} sees what {:?} hide", self.exposed);
            assert!(!node.stopped || node.machine.held == node.held);
        }
    }

    fn trouble(&mut self) {
        let all: Vec<u32> = self.nodes.keys().copied().collect();
        let Some(&id) = all.get(self.draw(all.len().max(1))) else { return self.arrive() };
        let kinds = [self.rules.deaths, self.rules.arrivals, self.rules.departures, self.rules.withdrawals];
        match self.draw(4) {
            kind if kinds[kind] == 0 => {}
            0 => {
                self.rules.deaths -= 1;
                self.remove(id, true);
            }
            1 => {
                self.rules.arrivals -= 1;
                self.arrive();
            }
            2 if self.nodes[&id].life == Life::Active && self.nodes[&id].jobs.is_empty() => {
                self.rules.departures -= 1;
                let jid = u32::from(self.nodes[&id].slot) - 1;
                self.feed(id, Event::Unmount);
                if self.dirty.get(&jid) == Some(&id) {
                    self.dirty.remove(&jid);
                }
                self.remove(id, false);
            }
            3 if self.nodes[&id].life == Life::Active => {
                self.rules.withdrawals -= 1;
                self.withdraw(id);
            }
            _ => {}
        }
    }

    /// One thing that happens; false when nothing can.
    fn step(&mut self) -> bool {
        let all: Vec<u32> = self.nodes.keys().copied().collect();
        let from = self.draw(all.len().max(1));
        if self.draw(4) == 0 && self.membership() {
            return true;
        }
        for i in 0..all.len() {
            let id = all[(from + i) % all.len()];
            if self.work(id) {
                return true;
            }
            let node = self.nodes.get_mut(&id).expect("it is there");
            if node.wakes > 0 {
                node.wakes -= 1;
                self.feed(id, Event::Wake);
                return true;
            }
        }
        self.membership()
    }

    fn run(mut self) -> Self {
        for _ in 0..400 {
            if self.draw(12) == 0 {
                self.trouble();
            }
            self.step();
            self.check();
        }
        // Now nothing goes wrong any more.
        for _ in 0..4000 {
            let moved = self.step();
            self.check();
            let done = self.nodes.values().all(|n| n.life == Life::Active && !n.held && n.jobs.is_empty());
            if done && !moved && !self.changing {
                break;
            }
        }
        for (id, node) in &self.nodes {
            assert!(node.life == Life::Active && !node.held, "{id} hangs: {:?}, {:?}", node.life, node.machine);
        }
        assert!(self.exposed.is_empty() || self.nodes.is_empty(), "never replayed: {:?}", self.exposed);
        self
    }
}

fn many(rules: Rules) {
    let one = std::env::var("SEED").ok().and_then(|s| s.parse().ok());
    let count = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3000);
    let seeds = one.map_or(0..count, |seed: u64| seed..seed + 1);
    let mut replays = 0;
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| World::new(seed, rules).run());
        match outcome {
            Ok(world) => replays += world.replays.len(),
            Err(_) => panic!("seed {seed}"),
        }
    }
    assert!(rules.deaths + rules.withdrawals == 0 || one.is_some() || replays > 0, "no journal was ever replayed");
}

#[test]
fn s65_nodes_race_to_be_the_first_mounter() {
    many(Rules { nodes: 3, deaths: 0, arrivals: 2, departures: 3, withdrawals: 0 });
}

#[test]
fn s66_nodes_die_while_others_mount() {
    many(Rules { nodes: 3, deaths: 2, arrivals: 3, departures: 0, withdrawals: 0 });
}

#[test]
fn s67_nodes_die_in_generations_that_follow_one_another() {
    many(Rules { nodes: 5, deaths: 4, arrivals: 1, departures: 0, withdrawals: 0 });
}

#[test]
fn s68_nodes_withdraw_and_leave_meanwhile() {
    many(Rules { nodes: 4, deaths: 1, arrivals: 2, departures: 2, withdrawals: 2 });
}

#[test]
fn s69_nobody_sees_what_is_not_replayed() {
    many(Rules { nodes: 4, deaths: 6, arrivals: 8, departures: 3, withdrawals: 3 });
}
