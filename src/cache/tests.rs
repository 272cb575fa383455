//! The write buffer against a naive model, and the cache's one promise: one address, one buffer.

use super::pieces::{Pieces, Slice, Which};
use super::*;
use crate::device::{AlignedBuf, BlockDevice, MemoryDevice, SimDevice};
use crate::error::Error;
use crate::format::{MetaHeader, MetaType};
use crate::ids::{BatchId, BlockAddr, BlockSize, Jid, LockName};
use crate::sync;
use std::sync::Arc;

fn addr(n: u64) -> BlockAddr {
    BlockAddr::new(n).expect("not 0")
}
fn owner(n: u64) -> LockName {
    LockName::inode(addr(n))
}
fn bs(bytes: u32) -> BlockSize {
    BlockSize::new(bytes).expect("legal")
}

struct Rng(u64);
impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// A write that the "device" has not finished.
struct Flying {
    id: u64,
    ranges: Vec<(u64, u64)>,
    writes: Vec<(u64, u8)>,
}

/// Pieces alone: random writes, cuts, collections and completions in any order. What a reader sees is the newest write; what
/// the "device" holds after everything is written is that too; no two writes of one block are in flight together.
#[test]
fn pieces_against_a_model() {
    const BLOCKS: u64 = 64;
    for seed in 1..200 {
        let mut rng = Rng(seed);
        let size = bs(512);
        let mut p = Pieces::new(size);
        let mut want = vec![0u8; BLOCKS as usize + 1];
        let mut device = want.clone();
        let mut flying: Vec<Flying> = Vec::new();
        for step in 0..400u32 {
            let (start, len) = (1 + rng.below(BLOCKS - 8), 1 + rng.below(8));
            match rng.below(8) {
                0..=2 => {
                    let v = (step % 251 + 1) as u8;
                    let buf = Arc::new(AlignedBuf::copy_of(&vec![v; len as usize * 512]));
                    let ordered = (rng.below(3) == 0).then(|| BatchId(1 + rng.below(4)));
                    p.write(start, len, Slice { buf, at: 0 }, owner(1 + rng.below(3)), ordered);
                    (start..start + len).for_each(|b| want[b as usize] = v);
                }
                3 => {
                    let v = (step % 251 + 1) as u8;
                    if p.patch(start, 0, &[v; 512], owner(1), None) {
                        want[start as usize] = v;
                    }
                }
                4 => {
                    // Freed: contents are nobody's business until they are written again. Waits as `discard` does.
                    if !p.is_inflight(start, start + len) {
                        p.cut(start, start + len);
                        (start..start + len).for_each(|b| want[b as usize] = device[b as usize]);
                    }
                }
                5 | 6 => {
                    let which = match rng.below(3) {
                        0 => Which::All(p.stamp()),
                        1 => Which::Owner(owner(1 + rng.below(3)), p.stamp()),
                        _ => Which::Ordered(BatchId(rng.below(5))),
                    };
                    let (id, taken) = p.collect(which, 2048);
                    let mut writes = Vec::new();
                    for t in &taken {
                        writes.extend((0..t.blocks).map(|i| (t.start + i, t.data.buf[t.data.at + i as usize * 512])));
                    }
                    for (b, _) in &writes {
                        assert!(!flying.iter().any(|f| f.writes.iter().any(|(x, _)| x == b)), "seed {seed}: {b} twice");
                    }
                    if !taken.is_empty() {
                        flying.push(Flying { id, ranges: taken.iter().map(|t| (t.start, t.blocks)).collect(), writes });
                    }
                }
                _ => {
                    if !flying.is_empty() {
                        let f = flying.swap_remove(rng.below(flying.len() as u64) as usize);
                        f.writes.iter().for_each(|(b, v)| device[*b as usize] = *v);
                        p.finish(f.id, &f.ranges, 2048, 4096);
                    }
                }
            }
            p.check();
            let mut seen = device.clone();
            for (s, n, slice) in p.overlaps(1, BLOCKS + 1) {
                (0..n).for_each(|i| seen[(s + i) as usize] = slice.buf[slice.at + i as usize * 512]);
            }
            assert_eq!(seen, want, "seed {seed} step {step}");
        }
    }
}

fn sim(blocks: u64, size: u32) -> Arc<SimDevice> {
    Arc::new(SimDevice::new(MemoryDevice::new(blocks * u64::from(size))))
}

#[test]
fn small_appends_read_nothing_and_large_writes_are_joined() {
    let dev = sim(4096, 4096);
    let cache = Cache::new(dev.clone(), bs(4096), 1 << 20);
    let data = cache.data();
    data.write_part(owner(1), addr(10), 0, b"hello", true, None).expect("buffered");
    for i in 1..100 {
        data.write_part(owner(1), addr(10), i * 5, b"again", false, None).expect("buffered");
        if i % 10 == 0 {
            data.write_owner(owner(1)).expect("written");
        }
    }
    assert_eq!(dev.counters().reads, 0);
    let mut back = AlignedBuf::zeroed(4096);
    data.read(addr(10), &mut back).expect("read");
    assert!(back.starts_with(b"helloagain") && back[500..].iter().all(|b| *b == 0));
    assert_eq!(dev.counters().reads, 0);
    dev.reset_counters();
    for i in 0..256 {
        let buf = Arc::new(AlignedBuf::copy_of(&[i as u8; 4096]));
        data.write(owner(2), addr(100 + i), buf, None).expect("buffered");
    }
    data.write_owner(owner(2)).expect("written");
    assert_eq!((dev.counters().writes, dev.counters().bytes_written), (1, 1 << 20));
    // Read back in one piece, after the small pieces were given up with their lock.
    cache.invalidate(owner(2));
    dev.reset_counters();
    let mut back = AlignedBuf::zeroed(1 << 20);
    data.read(addr(100), &mut back).expect("read");
    assert_eq!(dev.counters().reads, 1);
    assert!(back.chunks_exact(4096).enumerate().all(|(i, c)| c.iter().all(|b| *b == i as u8)));
}

#[test]
fn too_much_dirty_data_makes_writers_wait() {
    let dev = sim(1024, 4096);
    let health = Arc::new(Health::default());
    let data = DataCache::with_limit(dev.clone(), bs(4096), health, Arc::default(), Arc::default(), 64 << 10);
    let write = |n: u64| data.write(owner(1), addr(n), Arc::new(AlignedBuf::zeroed(4096)), None);
    sync::impatiently(|| {
        // The background writer may or may not keep up with us.
        for n in 0..200 {
            match write(1 + n) {
                Ok(()) => assert!(data.dirty_bytes() <= (64 << 10) + 4096),
                Err(e) => assert!(matches!(e, Error::MustWait)),
            }
        }
    });
    for n in 0..200 {
        write(1 + n).expect("waits");
        assert!(data.dirty_bytes() <= (64 << 10) + 4096);
    }
    data.write_all().expect("written");
    assert_eq!(data.dirty_bytes(), 0);
}

#[test]
fn a_failed_write_withdraws_and_nobody_waits_for_ever() {
    let dev = sim(1024, 4096);
    let cache = Cache::new(dev.clone(), bs(4096), 1 << 20);
    cache.data().write(owner(1), addr(5), Arc::new(AlignedBuf::zeroed(4096)), Some(BatchId(1))).expect("buffered");
    dev.fail_writes(Some(Box::new(|_, _| true)));
    assert!(matches!(cache.data().write_all(), Err(Error::Io(_))));
    assert!(matches!(cache.data().write_ordered(BatchId(1)), Err(Error::Withdrawn)));
    assert!(cache.health().cause().is_some());
}

#[test]
fn wild_addresses_and_lengths_are_refused() {
    let cache = Cache::new(sim(64, 4096), bs(4096), 1 << 20);
    let buf = Arc::new(AlignedBuf::zeroed(8192));
    for a in [63, 64, u64::MAX] {
        assert!(matches!(cache.data().write(owner(1), addr(a), buf.clone(), None), Err(Error::Corrupt(_))));
        assert!(matches!(cache.data().read(addr(a), &mut AlignedBuf::zeroed(8192)), Err(Error::Corrupt(_))));
        cache.data().discard(addr(a), u64::MAX);
        cache.forget(addr(a), 3);
    }
    assert!(matches!(cache.meta(addr(u64::MAX), owner(1), MetaType::Dinode), Err(Error::Corrupt(_))));
    assert!(matches!(cache.data().read(addr(1), &mut [0; 100]), Err(Error::Invalid)));
    assert!(matches!(cache.data().write_part(owner(1), addr(1), 4000, &[0; 97], false, None), Err(Error::Invalid)));
    assert!(matches!(
        cache.data().write_part(owner(1), addr(1), usize::MAX, &[0; 97], false, None),
        Err(Error::Invalid)
    ));
}

fn disk_of_dinodes(blocks: u64) -> Arc<SimDevice> {
    let dev = sim(blocks, 512);
    for n in 0..blocks {
        let mut block = [0; 512];
        MetaHeader::init(&mut block, MetaType::Dinode);
        block[100..108].copy_from_slice(&n.to_be_bytes());
        dev.write(n * 512, &block).expect("memory");
    }
    dev.reset_counters();
    dev
}

#[test]
fn eviction_keeps_what_is_held() {
    let cache = Cache::new(disk_of_dinodes(4000), bs(512), 256 * 512);
    let get = |n: u64| cache.meta(addr(n), owner(n), MetaType::Dinode).expect("a dinode");
    let held: Vec<_> = (1..50).map(get).collect();
    held[7].change(Jid(9), |b| b[200] = 77);
    for n in 50..4000 {
        assert_eq!(get(n).bytes()[100..108], n.to_be_bytes());
    }
    assert!(cache.len() < 600, "{} buffers", cache.len());
    for b in &held {
        assert!(Arc::ptr_eq(b, &get(b.addr().get())), "two buffers for one address");
    }
    assert_eq!(get(8).bytes()[200], 77);
    drop(held);
    for n in 50..4000 {
        get(n);
    }
    assert!(cache.cached(addr(20)).is_none());
    cache.invalidate(owner(3999));
    assert!(cache.cached(addr(3999)).is_none());
}

#[test]
fn a_wrong_type_is_corruption() {
    let cache = Cache::new(disk_of_dinodes(64), bs(512), 64 * 512);
    assert!(matches!(cache.meta(addr(5), owner(5), MetaType::Leaf), Err(Error::Corrupt(_))));
    assert!(cache.meta(addr(5), owner(5), MetaType::Dinode).is_ok());
    assert!(matches!(cache.meta(addr(5), owner(5), MetaType::Leaf), Err(Error::Corrupt(_))));
}

#[test]
fn reading_ahead_makes_few_requests() {
    let dev = disk_of_dinodes(4000);
    let cache = Cache::new(dev.clone(), bs(512), 4096 * 512);
    let addrs: Vec<BlockAddr> = (100..400).chain((1000..1100).step_by(3)).map(addr).collect();
    cache.read_ahead(&addrs, owner(2));
    assert_eq!(dev.counters().reads, 2);
    sync::impatiently(|| {
        for a in &addrs {
            assert!(cache.meta(*a, owner(2), MetaType::Dinode).is_ok());
        }
        assert!(matches!(cache.meta(addr(500), owner(2), MetaType::Dinode), Err(Error::MustWait)));
    });
    cache.invalidate(owner(2));
    assert!(cache.cached(addr(100)).is_none());
}

/// What was read under one lock may be stale under another: the block had another owner then, and other nodes may have
/// changed it since.
#[test]
fn a_block_of_another_lock_is_read_again() {
    let dev = disk_of_dinodes(64);
    let cache = Cache::new(dev.clone(), bs(512), 64 * 512);
    let before = cache.meta(addr(5), owner(1), MetaType::Dinode).expect("a dinode");
    let mut block = AlignedBuf::copy_of(&before.bytes());
    block[300] = 77;
    dev.write(5 * 512, &block).expect("in range");
    assert_eq!(cache.meta(addr(5), owner(1), MetaType::Dinode).expect("cached").bytes()[300], 0);
    assert_eq!(cache.meta(addr(5), owner(2), MetaType::Dinode).expect("read again").bytes()[300], 77);
    cache.invalidate(owner(1));
    assert!(cache.cached(addr(5)).is_some());
    cache.invalidate(owner(2));
    assert!(cache.cached(addr(5)).is_none());
}

/// Readers, editors and eviction at once: every buffer anybody gets shows all edits made before.
#[test]
fn many_threads_see_one_buffer() {
    let cache = Cache::new(disk_of_dinodes(600), bs(512), 64 * 512);
    let counts: Vec<sync::Mutex<u8>> = (0..40).map(|_| sync::Mutex::new(0)).collect();
    // Edited buffers must stay held, as the journal holds them.
    let pinned: Vec<_> =
        (0..40).map(|n| cache.meta(addr(1 + n), owner(1 + n), MetaType::Dinode).expect("there")).collect();
    std::thread::scope(|scope| {
        for t in 0..4u64 {
            let (cache, counts) = (&cache, &counts);
            scope.spawn(move || {
                let mut rng = Rng(t);
                for _ in 0..3000 {
                    let n = rng.below(600);
                    if n >= 40 {
                        cache.meta(addr(1 + n % 599), owner(1 + n % 599), MetaType::Dinode).expect("there");
                        continue;
                    }
                    let mut count = counts[n as usize].lock();
                    let b = cache.meta(addr(1 + n), owner(1 + n), MetaType::Dinode).expect("there");
                    assert_eq!(b.bytes()[300], *count);
                    b.change(Jid(0), |bytes| bytes[300] = bytes[300].wrapping_add(1));
                    *count = count.wrapping_add(1);
                }
            });
        }
    });
    drop(pinned);
}
