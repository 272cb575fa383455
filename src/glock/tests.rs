//! Glocks with threads, on one node and among several that share a pretended disk.

use super::testing::Cluster;
use super::*;
use crate::error::{Error, Result};
use crate::ids::LockKind;
use crate::sync::{Mutex, impatiently};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

fn name(number: u64) -> LockName {
    LockName { kind: LockKind::Rgrp, number }
}

/// The disk of the pretended cluster: a number per lock.
#[derive(Default)]
struct Disk {
    values: Mutex<HashMap<u64, u64>>,
    reads: AtomicU64,
    fail_sync: AtomicBool,
}

/// The object: the number, as this node knows it.
struct Count {
    value: u64,
}

impl Protected for Count {
    type Context = Disk;
    const HAS_LVB: bool = true;
    fn instantiate(name: LockName, disk: &Disk) -> Result<Self> {
        disk.reads.fetch_add(1, Ordering::Relaxed);
        Ok(Self { value: disk.values.lock().get(&name.number).copied().unwrap_or(0) })
    }
    fn sync(name: LockName, object: &mut Self, disk: &Disk) -> Result<()> {
        if disk.fail_sync.load(Ordering::Relaxed) {
            return Err(Error::Withdrawn);
        }
        disk.values.lock().insert(name.number, object.value);
        Ok(())
    }
    fn invalidate(_: LockName, _: &Disk) {}
    fn describe(&self) -> Option<String> {
        Some(format!("C: n:{}", self.value))
    }
}

fn table(manager: Arc<dyn LockManager>, keep: usize, disk: &Arc<Disk>) -> GlockTable<Count> {
    let table = GlockTable::new(manager, keep);
    table.set_context(disk);
    table
}

#[test]
fn one_node() {
    let disk = Arc::new(Disk::default());
    let t = table(Arc::new(Nolock), 100, &disk);
    let lock = t.get(name(7));
    let a = lock.shared().expect("free");
    let b = lock.shared().expect("shared with a");
    assert!(lock.try_exclusive().expect("no error").is_none());
    assert!(matches!(impatiently(|| lock.exclusive()), Err(Error::MustWait)));
    drop((a, b));
    let mut c = impatiently(|| lock.exclusive()).expect("free again");
    c.value = 5;
    assert!(matches!(impatiently(|| lock.shared()), Err(Error::MustWait)));
    drop(c);
    assert_eq!(lock.shared().expect("free").value, 5);
    let mut d = lock.exclusive().expect("free");
    d.forget_object();
    assert_eq!(d.value, 5);
    drop(d);
    assert_eq!(lock.deferred().expect("EX permits DF").value, 0, "read again");
    let e = lock.exclusive_with(Count { value: 9 }).expect("free");
    assert_eq!(e.value, 9);
    assert_eq!(disk.reads.load(Ordering::Relaxed), 2);
}

#[test]
fn holders_move_between_threads() {
    let disk = Arc::new(Disk::default());
    let t = table(Arc::new(Nolock), 100, &disk);
    let held = t.get(name(1)).exclusive().expect("free");
    std::thread::spawn(move || drop(held)).join().expect("no panic");
    drop(t.get(name(1)).exclusive().expect("free again"));
}

#[test]
fn many_threads_on_one_node() {
    let disk = Arc::new(Disk::default());
    let t = Arc::new(table(Arc::new(Nolock), 2, &disk));
    std::thread::scope(|s| {
        for id in 0..4u64 {
            let t = &t;
            s.spawn(move || {
                for i in 0..2000u64 {
                    let lock = t.get(name(i % 3));
                    if (i + id).is_multiple_of(3) {
                        let mut x = lock.exclusive().expect("granted");
                        let v = x.value;
                        if i.is_multiple_of(7) {
                            std::thread::yield_now();
                        }
                        x.value = v + 1;
                        t.shared_disk_of_test(name(i % 3), x.value, &lock);
                    } else {
                        let x = lock.shared().expect("granted");
                        let v = x.value;
                        std::hint::spin_loop();
                        assert_eq!(v, x.value);
                    }
                }
            });
        }
    });
    let total: u64 = (0..3).map(|n| t.get(name(n)).shared().expect("free").value).sum();
    let wanted: u64 = (0..4u64).map(|id| (0..2000u64).filter(|i| (i + id).is_multiple_of(3)).count() as u64).sum();
    assert_eq!(total, wanted);
}

impl GlockTable<Count> {
    /// On a single node an unused glock is dropped without a sync: the object must be on the "disk" before, as an inode is in
    /// its buffer.
    fn shared_disk_of_test(&self, name: LockName, value: u64, lock: &Arc<Glock<Count>>) {
        if let Ok(cx) = lock.context() {
            cx.values.lock().insert(name.number, value);
        }
    }
}

#[test]
fn a_writer_gets_through_a_stream_of_readers() {
    let disk = Arc::new(Disk::default());
    let t = Arc::new(table(Arc::new(Nolock), 2, &disk));
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        for _ in 0..2 {
            s.spawn(|| {
                // Overlapping readers: the lock is never free by chance.
                let mut held = t.get(name(1)).shared().expect("granted");
                while !stop.load(Ordering::Relaxed) {
                    drop(std::mem::replace(&mut held, {
                        let lock = t.get(name(1));
                        match impatiently(|| lock.shared()) {
                            Ok(next) => next,
                            // A writer waits: readers queue behind it.
                            Err(_) => break,
                        }
                    }));
                }
            });
        }
        let mut x = t.get(name(1)).exclusive().expect("granted");
        x.value += 1;
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn unused_glocks_are_dropped() {
    let disk = Arc::new(Disk::default());
    let t = table(Arc::new(Nolock), 100, &disk);
    let kept = t.get(name(5)).exclusive().expect("free");
    for n in 0..1000 {
        drop(t.get(name(n + 10)).shared().expect("free"));
    }
    assert!(t.len() <= 101, "{} glocks", t.len());
    t.shrink();
    assert!(t.names().contains(&name(5)));
    drop(kept);
    t.remove(name(5));
    assert!(!t.names().contains(&name(5)));
    // Made and removed over and over: the clock does not grow.
    for _ in 0..5000 {
        drop(t.get(name(6)).shared().expect("free"));
        t.remove(name(6));
    }
    assert!(t.ring_len() < 3000);
}

#[test]
fn several_in_order() {
    let disk = Arc::new(Disk::default());
    let t = table(Arc::new(Nolock), 100, &disk);
    let locks = [t.get(name(3)), t.get(name(1)), t.get(name(3))];
    let held = order::exclusive_many(&locks).expect("free");
    assert_eq!(held.iter().map(|h| h.as_ref().map(|h| h.name().number)).collect::<Vec<_>>(), [Some(3), Some(1), None]);
}

#[test]
fn a_dump() {
    let disk = Arc::new(Disk::default());
    let t = table(Arc::new(Nolock), 100, &disk);
    drop(t.get(name(0x11)).shared().expect("free"));
    let held = t.get(name(0x12)).exclusive().expect("free");
    let text = t.dump();
    assert!(
        text.starts_with("G:  s:SH n:3/11 f:o t:SH d:EX/0 a:0 v:0 r:1\n C: n:0\nG:  s:EX n:3/12 f:q t:EX"),
        "{text}"
    );
    assert!(text.contains("\n H: s:EX f:H e:0 p:"), "{text}");
    drop(held);
}

#[test]
fn several_nodes_count_together() {
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(42);
    println!("SEED={seed}");
    let disk = Arc::new(Disk::default());
    let cluster = Cluster::start(seed);
    let nodes: Vec<_> = (0..3).map(|id| table(cluster.node(id), 1, &disk)).collect();
    let added = [const { AtomicU64::new(0) }; 3];
    std::thread::scope(|s| {
        for (id, node) in nodes.iter().enumerate() {
            for thread in 0..2u64 {
                let added = &added;
                s.spawn(move || {
                    let mut last = [0; 3];
                    for i in 0..60u64 {
                        let which = (i * 7 + id as u64 + thread) % 3;
                        let lock = node.get(name(which));
                        match (i + thread) % 4 {
                            0 => {
                                let x = lock.shared().expect("granted");
                                assert!(x.value >= last[which as usize], "a number went back");
                                last[which as usize] = x.value;
                            }
                            1 => {
                                if let Some(mut x) = lock.try_exclusive().expect("no error") {
                                    x.value += 1;
                                    let lvb = u64::from_be_bytes(lock.lvb().0[..8].try_into().expect("8 bytes")) + 1;
                                    assert_eq!(lvb, x.value, "the value block goes with the lock");
                                    let mut bytes = Lvb::default();
                                    bytes.0[..8].copy_from_slice(&lvb.to_be_bytes());
                                    x.set_lvb(bytes);
                                    added[which as usize].fetch_add(1, Ordering::Relaxed);
                                }
                            }
                            2 if i % 8 == 2 => drop(impatiently(|| lock.deferred())),
                            _ => {
                                let mut x = lock.exclusive().expect("granted");
                                x.value += 1;
                                let mut bytes = Lvb::default();
                                bytes.0[..8].copy_from_slice(&x.value.to_be_bytes());
                                x.set_lvb(bytes);
                                added[which as usize].fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        }
    });
    for which in 0..3u64 {
        let value = nodes[0].get(name(which)).shared().expect("granted").value;
        assert_eq!(value, added[which as usize].load(Ordering::Relaxed), "lock {which}");
    }
}

#[test]
fn a_lock_that_cannot_be_written_is_kept() {
    let disk = Arc::new(Disk::default());
    let cluster = Cluster::start(1);
    let node = |id| table(cluster.node(id), 10, &disk);
    let (a, b) = (node(0), node(1));
    a.get(name(1)).exclusive().expect("free").value = 3;
    disk.fail_sync.store(true, Ordering::Relaxed);
    assert!(matches!(impatiently(|| b.get(name(1)).shared()), Err(Error::MustWait)), "the request is under way");
    while !matches!(impatiently(|| a.get(name(1)).shared()), Err(Error::Withdrawn)) {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(b.get(name(1)).try_exclusive().expect("no error").is_none(), "never given up");
}
