//! Several threads at once, and the power going at any moment.

use super::crash::seeds;
use super::model::Model;
use super::rig::*;
use crate::device::{AlignedBuf, BlockDevice, CrashMode, SimDevice};
use crate::format::{MetaType, put_u64};
use crate::ids::{BatchId, BlockSize};
use crate::journal::ail::Place;
use crate::journal::{FlushReason, Reserve};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

const THREADS: u64 = 4;

/// Runs the workload on a slow device until the power goes, or to the end.
fn run(seed: u64, bs: u32, log_blocks: u32, crash_at: u64) -> (Rig, Vec<Model>) {
    let bs = BlockSize::new(bs).expect("legal");
    let dev = Arc::new(SimDevice::new(fresh_disk(bs)));
    let rig = Rig::mount_through(dev.clone(), Arc::new(Slow(dev.clone())), bs, log_blocks, 1 << 20).expect("fresh");
    let mut models: Vec<Model> = (0..THREADS).map(|i| Model::beside_others(seed, i, false)).collect();
    models.iter().for_each(|m| m.format(&rig));
    dev.set_crash_point(dev.ops() + crash_at);
    std::thread::scope(|scope| {
        for model in &mut models {
            let rig = &rig;
            scope.spawn(move || {
                for _ in 0..100 {
                    if let Err(e) = model.step(rig) {
                        assert!(rig.dev.crashed(), "seed {seed}: {e} without a crash");
                        break;
                    }
                }
            });
        }
    });
    for m in &mut models {
        m.durable = m.durable.max(rig.journal.committed());
    }
    (rig, models)
}

#[test]
fn threads_and_a_crash() {
    for seed in seeds(30) {
        for (bs, log_blocks) in [(512, 64), (1024, 200)] {
            let crash_at = seed * 37 % 400 + 1;
            let (rig, models) = run(seed, bs, log_blocks, crash_at);
            for (i, mode) in
                [CrashMode::AllLost, CrashMode::AllKept, CrashMode::Random, CrashMode::Torn].into_iter().enumerate()
            {
                let what = format!("seed {seed} bs {bs} log {log_blocks} crash at {crash_at} {mode:?}");
                let image = rig.dev.crash(seed + i as u64, mode);
                let again = Rig::mount(image, rig.cache.block_size(), log_blocks, 1 << 20).expect(&what);
                let (mut last, mut next) = (BatchId(0), BatchId(u64::MAX));
                for model in &models {
                    let (l, n) = model.check(&again, &what);
                    (last, next) = (last.max(l), next.min(n));
                }
                assert!(last < next, "{what}: a transaction of batch {last:?} is there, one of {next:?} is not");
            }
        }
    }
}

#[test]
fn many_fsyncs_share_flushes() {
    let bs = BlockSize::new(4096).expect("legal");
    let dev = Arc::new(SimDevice::new(fresh_disk(bs)));
    let rig = Rig::mount_through(dev.clone(), Arc::new(Slow(dev.clone())), bs, 512, 1 << 20).expect("fresh");
    // All threads commit before the first of them syncs.
    let barrier = std::sync::Barrier::new(32);
    std::thread::scope(|scope| {
        for t in 0..32u64 {
            let (rig, barrier) = (&rig, &barrier);
            scope.spawn(move || {
                let mut tx = rig.journal.begin(Reserve::blocks(1)).expect("room");
                let b = tx.new_meta(addr(FIRST + t), owner(FIRST + t), MetaType::Indirect);
                tx.edit(&b, |bytes| put_u64(bytes, 32, t));
                let data = Arc::new(AlignedBuf::copy_of(&[t as u8; 4096]));
                rig.cache
                    .data()
                    .write(owner(FIRST + t), addr(FIRST + 100 + t), data, Some(tx.batch()))
                    .expect("buffered");
                let batch = tx.commit();
                barrier.wait();
                rig.journal.sync_file(owner(FIRST + t), batch).expect("synced");
            });
        }
    });
    let c = rig.dev.counters();
    // The first flush takes all 32; who comes while it runs finds its batch durable or asks for one more. How many come late
    // depends on the scheduler; that nearly all share does not.
    assert!(c.durable_writes <= 4 && c.flushes <= 8, "{c:?}");
    let rig = rig.crash(0, CrashMode::AllLost, 512);
    for t in 0..32 {
        assert_eq!(rig.block_on_disk(FIRST + 100 + t), [t as u8; 4096]);
        assert_eq!(crate::format::get_u64(&rig.meta(FIRST + t).bytes(), 32), t);
    }
}

#[test]
fn the_background_thread_commits_and_ends() {
    let bs = BlockSize::new(512).expect("legal");
    let dev = Arc::new(SimDevice::new(fresh_disk(bs)));
    let cache = crate::cache::Cache::new(dev.clone(), bs, 1 << 20);
    let clock = Arc::new(crate::clock::SimClock::new(1));
    let (clean, _) = crate::journal::UnrecoveredJournal::examine(&cache, place(64))
        .and_then(|j| j.recover(crate::ids::Jid(0), &*clock))
        .expect("recovered");
    let journal = crate::journal::Journal::open(cache.clone(), clean, clock, true, 1).expect("open");
    let mut tx = journal.begin(Reserve::blocks(1)).expect("room");
    tx.new_meta(addr(FIRST), owner(FIRST), MetaType::Indirect);
    let batch = tx.commit();
    while journal.committed() < batch {
        std::thread::yield_now();
    }
    // Pressure: more transactions than the log holds, and nobody but the thread and `begin` makes room.
    for n in 0..500 {
        let mut tx = journal.begin(Reserve::blocks(2)).expect("room");
        for k in 0..2 {
            tx.new_meta(addr(FIRST + 2 * n + k), owner(FIRST), MetaType::Indirect);
        }
        tx.commit();
    }
    journal.flush(FlushReason::Sync).expect("flushed");
    journal.shutdown().expect("closed");
    journal.shutdown().expect("closed already");
    drop(journal);
    // Ended threads hold nothing.
    assert_eq!(Arc::strong_count(&cache), 1);
}

/// A device on which writes of one place stand still until they are let go.
struct Held {
    dev: Arc<SimDevice>,
    offset: u64,
    gate: Mutex<Gate>,
    bell: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Gate {
    Closed,
    /// A write stands before it.
    Reached,
    Open,
}

impl Held {
    fn is(&self, gate: Gate) -> bool {
        *self.gate.lock().expect("no panic") == gate
    }
    fn turn(&self, to: Gate) {
        *self.gate.lock().expect("no panic") = to;
        self.bell.notify_all();
    }
    fn wait_for(&self, gate: Gate) {
        let turned = self.bell.wait_while(self.gate.lock().expect("no panic"), |g| *g != gate);
        drop(turned.expect("no panic"));
    }
}

impl BlockDevice for Held {
    fn size(&self) -> u64 {
        self.dev.size()
    }
    fn read(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
        self.dev.read(offset, buf)
    }
    fn write(&self, offset: u64, buf: &[u8]) -> std::io::Result<()> {
        if (offset..offset + buf.len() as u64).contains(&self.offset) && self.is(Gate::Closed) {
            self.turn(Gate::Reached);
            self.wait_for(Gate::Open);
        }
        self.dev.write(offset, buf)
    }
    fn flush(&self) -> std::io::Result<()> {
        self.dev.flush()
    }
    fn discard(&self, offset: u64, len: u64) -> std::io::Result<()> {
        self.dev.discard(offset, len)
    }
}

/// Write-back that nobody asked for on behalf of a lock (timer, full log, freeze) is in the midst of writing its block in place
/// when the lock is wanted elsewhere: it must not be given up before that write has ended, or what the next holder writes would
/// be overwritten.
#[test]
fn a_lock_is_not_given_up_while_somebody_else_writes_its_block_in_place() {
    let bs = BlockSize::new(4096).expect("legal");
    let dev = Arc::new(SimDevice::new(fresh_disk(bs)));
    let offset = FIRST << bs.shift();
    let held = Arc::new(Held { dev: dev.clone(), offset, gate: Mutex::new(Gate::Open), bell: Condvar::new() });
    let rig = Rig::mount_through(dev, held.clone(), bs, 64, 1 << 20).expect("fresh");
    let mut tx = rig.journal.begin(Reserve::blocks(2)).expect("room");
    for n in [FIRST, FIRST + 1] {
        let b = tx.new_meta(addr(n), owner(n), MetaType::Indirect);
        tx.edit(&b, |bytes| bytes[40] = 1);
    }
    let batch = tx.commit();
    rig.journal.flush_to(batch, FlushReason::Sync).expect("flushed");
    held.turn(Gate::Closed);
    let log = rig.journal.log.as_ref().expect("writable");
    std::thread::scope(|scope| {
        scope.spawn(|| rig.journal.write_back(log, Place::Upto(batch)).expect("in place"));
        held.wait_for(Gate::Reached);
        scope.spawn(|| {
            rig.journal.sync_owner(owner(FIRST)).expect("synced");
            // The next holder writes.
            rig.dev.write(offset, &[3; 4096]).expect("write");
        });
        // Long enough for a lock that is given up too early.
        std::thread::sleep(Duration::from_millis(100));
        held.turn(Gate::Open);
    });
    assert_eq!(rig.block_on_disk(FIRST), [3; 4096]);
    assert_eq!(rig.block_on_disk(FIRST + 1)[40], 1);
}
