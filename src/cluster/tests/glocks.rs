//! Glocks of several nodes over the real lock service.

use super::*;
use crate::glock::{Answer, GlockTable, LockClient, LockManager, LockState, Lvb, Nolock, Protected, Reply, Request};
use crate::ids::{LockKind, LockName};
use std::sync::atomic::AtomicI64;

/// The object: a number, as this node knows it.
pub(super) struct Count {
    pub(super) value: u64,
}

impl Protected for Count {
    type Context = Disk;
    const HAS_LVB: bool = true;
    fn instantiate(name: LockName, disk: &Disk) -> Result<Self> {
        Ok(Self { value: disk.values.lock().get(&name.number).copied().unwrap_or(0) })
    }
    fn sync(name: LockName, object: &mut Self, disk: &Disk) -> Result<()> {
        disk.values.lock().insert(name.number, object.value);
        Ok(())
    }
    fn invalidate(_: LockName, _: &Disk) {}
}

/// Not an inode: those are kept for a while.
pub(super) fn name(number: u64) -> LockName {
    LockName { kind: LockKind::Rgrp, number }
}

pub(super) fn table(manager: Arc<dyn LockManager>, keep: usize, disk: &Arc<Disk>) -> Arc<GlockTable<Count>> {
    let table = GlockTable::new(manager, keep);
    table.set_context(disk);
    Arc::new(table)
}

impl Member {
    pub(super) fn table(&self, keep: usize) -> Arc<GlockTable<Count>> {
        table(self.cluster.manager(), keep, &self.volume.disk)
    }
}

/// Who holds a lock, on all nodes together: readers, direct ones, writers.
#[derive(Default)]
struct Holders([AtomicI64; 3]);

impl Holders {
    fn with<R>(&self, kind: usize, what: impl FnOnce() -> R) -> R {
        self.0[kind].fetch_add(1, Ordering::SeqCst);
        let seen: Vec<i64> = self.0.iter().map(|n| n.load(Ordering::SeqCst)).collect();
        let fine = match kind {
            0 => seen[1] + seen[2] == 0,
            1 => seen[0] + seen[2] == 0,
            _ => seen == [0, 0, 1],
        };
        assert!(fine, "held together: {seen:?}");
        let r = what();
        self.0[kind].fetch_sub(1, Ordering::SeqCst);
        r
    }
}

/// As the value block and as the object say.
fn check(lvb: Lvb, value: u64, what: &str) {
    let bytes: [u8; 8] = lvb.0[..8].try_into().expect("eight");
    assert_eq!(u64::from_be_bytes(bytes), value, "{what}: the value block is not the one of the object");
}

#[test]
fn three_nodes_count_under_glocks() {
    const LOCKS: u64 = 3;
    const ROUNDS: u64 = 150;
    let lab = Lab::new(3);
    let members = lab.members();
    let tables: Vec<_> = members.iter().map(|m| m.table(2)).collect();
    let holders: Vec<Holders> = (0..LOCKS).map(|_| Holders::default()).collect();
    let written: Vec<AtomicU64> = (0..LOCKS).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        for worker in 0..6_u64 {
            let (tables, holders, written) = (&tables, &holders, &written);
            scope.spawn(move || {
                let mut random = worker.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1;
                for _ in 0..ROUNDS {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let which = (random >> 33) % LOCKS;
                    let at = which as usize;
                    let lock = tables[(worker % 3) as usize].get(name(which + 1));
                    match (random >> 40) % 8 {
                        0..4 => {
                            let held = lock.shared().expect("granted");
                            holders[at].with(0, || check(lock.lvb(), held.value, "shared"));
                        }
                        4 => {
                            let held = lock.deferred().expect("granted");
                            holders[at].with(1, || check(lock.lvb(), held.value, "deferred"));
                        }
                        kind => {
                            let held = if kind == 5 { lock.try_exclusive() } else { lock.exclusive().map(Some) };
                            let Some(mut held) = held.expect("no error") else { continue };
                            holders[at].with(2, || {
                                check(lock.lvb(), held.value, "exclusive");
                                held.value += 1;
                                let mut lvb = Lvb::default();
                                lvb.0[..8].copy_from_slice(&held.value.to_be_bytes());
                                held.set_lvb(lvb);
                                written[at].fetch_add(1, Ordering::SeqCst);
                            });
                        }
                    }
                }
            });
        }
    });
    for which in 0..LOCKS {
        let held = tables[0].get(name(which + 1)).shared().expect("granted");
        let times = written[which as usize].load(Ordering::SeqCst);
        assert!(times > 10, "written {times} times only");
        assert_eq!(held.value, times);
    }
    drop(tables);
    members.into_iter().for_each(|m| drop(m.unmount()));
}

/// Locks that were got ready are locks like others, also while they still are on their way and when others want them.
#[test]
fn locks_that_were_got_ready() {
    const LOCKS: u64 = 400;
    let lab = Lab::new(3);
    let members = lab.members();
    let tables: Vec<_> = members.iter().map(|m| m.table(1000)).collect();
    let manager = members[0].cluster.manager();
    manager.prepare(&(1..=LOCKS).map(|n| (name(n), true)).collect::<Vec<_>>());
    std::thread::scope(|scope| {
        for table in &tables {
            let manager = &manager;
            scope.spawn(move || {
                for n in 1..=LOCKS {
                    let lock = table.get(name(n));
                    let mut held = lock.exclusive().expect("granted");
                    check(lock.lvb(), held.value, "exclusive");
                    held.value += 1;
                    let mut lvb = Lvb::default();
                    lvb.0[..8].copy_from_slice(&held.value.to_be_bytes());
                    held.set_lvb(lvb);
                    // Nothing happens to one that is there.
                    manager.prepare(&[(name(n), true)]);
                }
            });
        }
    });
    for n in 1..=LOCKS {
        assert_eq!(tables[1].get(name(n)).shared().expect("granted").value, 3);
    }
    // What nobody asks for does not pile up.
    (LOCKS + 1..LOCKS + 5000).for_each(|n| manager.prepare(&[(name(n), false)]));
    let held = tables[0].get(name(LOCKS + 4999)).shared().expect("granted");
    assert_eq!(held.value, 0);
    drop((held, tables));
    members.into_iter().for_each(|m| drop(m.unmount()));
}

/// Somebody who asks and counts the answers.
#[derive(Default)]
struct Asker {
    answers: Mutex<Vec<Reply>>,
    notices: Mutex<Vec<LockState>>,
}

impl LockClient for Asker {
    fn completed(self: Arc<Self>, reply: Reply, _lvb: Option<Lvb>) {
        self.answers.lock().push(reply);
    }
    fn blocking(self: Arc<Self>, ceiling: LockState) {
        self.notices.lock().push(ceiling);
    }
}

fn ask(manager: &Arc<dyn LockManager>, number: u64, from: LockState, to: LockState, asker: &Arc<Asker>) -> Answer {
    let client: Arc<dyn LockClient> = Arc::clone(asker) as _;
    manager.request(name(number), Request { from, to, no_queue: false, lvb: None }, &client)
}

#[test]
fn a_cancelled_request_completes_once() {
    use LockState::{Exclusive, Shared, Unlocked};
    let lab = Lab::new(2);
    let members = lab.members();
    let managers: Vec<_> = members.iter().map(|m| m.cluster.manager()).collect();
    let (holder, waiter) = (Arc::new(Asker::default()), Arc::new(Asker::default()));
    for (number, from) in [(7, Unlocked), (8, Shared)] {
        waiter.answers.lock().clear();
        for (manager, asker) in managers.iter().zip([&holder, &waiter]) {
            if from == Shared && ask(manager, number, Unlocked, Shared, asker) == Answer::Pending {
                until("shared is granted", || asker.answers.lock().pop() == Some(Reply::Granted));
            }
        }
        if from == Unlocked && ask(&managers[0], number, Unlocked, Exclusive, &holder) == Answer::Pending {
            until("it is granted", || holder.answers.lock().pop() == Some(Reply::Granted));
        }
        assert_eq!(ask(&managers[1], number, from, Exclusive, &waiter), Answer::Pending);
        until("the holder hears of it", || holder.notices.lock().last() == Some(&Unlocked));
        holder.notices.lock().clear();
        managers[1].cancel(name(number));
        until("it is refused", || *waiter.answers.lock() == [Reply::Refused]);
        // The holder gives way, and the lock can be had: nothing is left of the cancelled request.
        let held = if from == Shared { Shared } else { Exclusive };
        assert_eq!(ask(&managers[0], number, held, Unlocked, &holder), Answer::Done(Reply::Granted, None));
        managers[0].release(name(number));
        if ask(&managers[1], number, from, Exclusive, &waiter) == Answer::Pending {
            until("it is granted at last", || waiter.answers.lock().last() == Some(&Reply::Granted));
        }
    }
    members.into_iter().for_each(|m| drop(m.unmount()));
}

#[test]
fn two_that_want_more_than_they_share_do_not_wait_for_one_another() {
    let lab = Lab::new(2);
    let members = lab.members();
    let tables: Vec<_> = members.iter().map(|m| m.table(10)).collect();
    for round in 0..20 {
        let locks: Vec<_> = tables.iter().map(|t| t.get(name(5))).collect();
        locks.iter().for_each(|lock| drop(lock.shared().expect("granted")));
        std::thread::scope(|scope| {
            for lock in &locks {
                scope.spawn(move || lock.exclusive().expect("granted").value += 1);
            }
        });
        assert_eq!(locks[0].shared().expect("granted").value, 2 * (round + 1));
    }
    drop(tables);
    members.into_iter().for_each(|m| drop(m.unmount()));
}

/// What a glock costs where nobody else wants it: `cargo test --release --lib uncontended -- --ignored --nocapture`.
#[test]
#[ignore = "measures"]
fn uncontended_cost() {
    const N: u64 = 200_000;
    let lab = Lab::new(1);
    let member = lab.mount(&lab.node(1));
    let managers: [(&str, Arc<dyn LockManager>); 2] =
        [("nolock", Arc::new(Nolock)), ("cluster", member.cluster.manager())];
    for (which, manager) in managers {
        let asker = Arc::new(Asker::default());
        let client: Arc<dyn LockClient> = Arc::clone(&asker) as _;
        let lvb = Some(Lvb::default());
        let turn = |number: u64| {
            for (from, to) in [(LockState::Unlocked, LockState::Exclusive), (LockState::Exclusive, LockState::Unlocked)]
            {
                let request = Request { from, to, no_queue: false, lvb };
                assert!(matches!(manager.request(name(number), request, &client), Answer::Done(Reply::Granted, _)));
            }
        };
        let time = |what: &str, run: &dyn Fn()| {
            let start = Instant::now();
            run();
            println!("{which:8} {what:50} {:6} ns", start.elapsed().as_nanos() / u128::from(N));
        };
        time("manager: EX and back to UN, new locks", &|| (0..N).for_each(turn));
        time("manager: EX and back to UN, known locks", &|| (0..N).for_each(turn));
        time("manager: EX and back to UN, one lock", &|| (0..N).for_each(|_| turn(1)));
        (0..N).for_each(|number| manager.release(name(number)));
        let table = table(Arc::clone(&manager), N as usize * 2, &lab.disk);
        time("glock: EX taken and released, new glocks", &|| {
            (0..N).for_each(|n| drop(table.get(name(n + 1)).exclusive().expect("granted")));
        });
        time("glock: EX taken and released, held by the node", &|| {
            (0..N).for_each(|n| drop(table.get(name(n + 1)).exclusive().expect("granted")));
        });
        time("glock: given up (demoted by a worker, dropped)", &|| {
            (0..N).for_each(|n| table.remove(name(n + 1)));
            until("all are given up", || {
                (0..N).rev().take(64).all(|n| table.find(name(n + 1)).is_none_or(|g| g.state() == LockState::Unlocked))
            });
        });
    }
    member.unmount();
}
