//! The map from address to buffer: shards, each with a clock that evicts what was not used lately.

use super::Buffer;
use crate::ids::{BlockAddr, LockName};
use crate::sync::{Mutex, RwLock};
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// A map keyed by block address.
pub(crate) type AddrMap<V> = HashMap<BlockAddr, V, BuildHasherDefault<AddrHasher>>;
/// A set of block addresses.
pub(crate) type AddrSet = HashSet<BlockAddr, BuildHasherDefault<AddrHasher>>;

/// Hashes one integer by a wide multiplication. Colliding addresses cost time, never correctness.
#[derive(Clone, Copy, Default)]
pub(crate) struct AddrHasher(u64);

impl Hasher for AddrHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for &b in bytes {
            self.write_u64(u64::from(b));
        }
    }
    fn write_u64(&mut self, n: u64) {
        let wide = u128::from(self.0 ^ n) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (wide >> 64) as u64 ^ wide as u64;
    }
}

fn hash(addr: BlockAddr) -> u64 {
    let mut h = AddrHasher::default();
    h.write_u64(addr.get());
    h.finish()
}

/// How many entries the clock's hand looks at per insertion, so that a cache full of pinned buffers costs little.
const STEPS: usize = 16;

/// Shards of the map, and an index from lock to blocks.
pub(super) struct Shards {
    shards: Box<[RwLock<Shard>]>,
    owners: Box<[Mutex<HashMap<LockName, AddrSet>>]>,
    /// Buffers per shard.
    limit: usize,
}

#[derive(Default)]
struct Shard {
    map: AddrMap<Arc<Buffer>>,
    clock: VecDeque<BlockAddr>,
    /// Grows when a buffer leaves whose contents were not those that a read begun earlier may have met.
    epoch: u64,
}

impl Shard {
    /// Takes out of the clock what left the map otherwise, and what is in it twice. Otherwise blocks that come and go would
    /// push out those that stay.
    fn sweep(&mut self) {
        let mut seen = AddrSet::default();
        let Self { map, clock, .. } = self;
        clock.retain(|addr| map.contains_key(addr) && seen.insert(*addr));
    }
}

impl Shards {
    /// Room for about `buffers` buffers.
    pub(super) fn new(buffers: usize) -> Self {
        let count = (buffers / 16).clamp(1, 64).next_power_of_two();
        Self {
            shards: (0..count).map(|_| RwLock::default()).collect(),
            owners: (0..16).map(|_| Mutex::default()).collect(),
            limit: (buffers / count).max(4),
        }
    }
    fn shard(&self, addr: BlockAddr) -> &RwLock<Shard> {
        // High bits choose the shard, low bits the place within it.
        &self.shards[(hash(addr) >> 48) as usize & (self.shards.len() - 1)]
    }
    fn owner(&self, owner: LockName) -> &Mutex<HashMap<LockName, AddrSet>> {
        let mut h = AddrHasher::default();
        h.write_u64(owner.number);
        &self.owners[(h.finish() >> 32) as usize & 15]
    }

    /// The buffer, and the shard's epoch: to be handed to [`insert`](Self::insert) after a read.
    pub(super) fn get(&self, addr: BlockAddr) -> (Option<Arc<Buffer>>, u64) {
        let shard = self.shard(addr).read();
        (shard.map.get(&addr).cloned(), shard.epoch)
    }
    /// Inserts what was read since [`get`](Self::get) gave `epoch`. Returns the buffer that is in the map now, which may be
    /// another thread's; `None` when the bytes may have become stale meanwhile and must be read again.
    pub(super) fn insert(&self, buffer: Arc<Buffer>, epoch: u64) -> Option<Arc<Buffer>> {
        let addr = buffer.addr();
        let mut shard = self.shard(addr).write();
        if let Some(there) = shard.map.get(&addr) {
            return Some(there.clone());
        }
        if shard.epoch != epoch {
            return None;
        }
        self.add(&mut shard, buffer.clone());
        Some(buffer)
    }
    /// Puts a new block in; a buffer of an earlier life is forgotten.
    pub(super) fn replace(&self, buffer: Arc<Buffer>) {
        let addr = buffer.addr();
        let mut shard = self.shard(addr).write();
        if let Some(old) = shard.map.remove(&addr) {
            old.mark_forgotten();
            self.unindex(old.owner(), addr);
            shard.epoch += 1;
        }
        self.add(&mut shard, buffer);
    }
    /// The block was freed.
    pub(super) fn forget(&self, addr: BlockAddr) {
        let cell = self.shard(addr);
        if !cell.read().map.contains_key(&addr) {
            return;
        }
        let mut shard = cell.write();
        if let Some(old) = shard.map.remove(&addr) {
            old.mark_forgotten();
            self.unindex(old.owner(), addr);
            shard.epoch += 1;
        }
    }
    /// Drops a clean buffer whose block was changed behind the cache's back. False when it is dirty and stays.
    pub(super) fn drop_clean(&self, addr: BlockAddr) -> bool {
        let mut shard = self.shard(addr).write();
        match shard.map.get(&addr) {
            Some(b) if b.is_dirty() => return false,
            Some(b) => {
                b.mark_stale();
                self.unindex(b.owner(), addr);
            }
            None => {}
        }
        shard.map.remove(&addr);
        shard.epoch += 1;
        true
    }
    /// Addresses cached under this lock.
    pub(super) fn of_owner(&self, owner: LockName) -> Vec<BlockAddr> {
        self.owner(owner).lock().get(&owner).map(|set| set.iter().copied().collect()).unwrap_or_default()
    }
    /// The buffer was found to belong to another lock than it was cached under.
    pub(super) fn move_owner(&self, addr: BlockAddr, from: LockName, to: LockName) {
        self.unindex(from, addr);
        self.owner(to).lock().entry(to).or_default().insert(addr);
    }
    /// Number of buffers.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|s| s.read().map.len()).sum()
    }

    fn add(&self, shard: &mut Shard, buffer: Arc<Buffer>) {
        let addr = buffer.addr();
        let owner = buffer.owner();
        shard.map.insert(addr, buffer);
        shard.clock.push_back(addr);
        self.owner(owner).lock().entry(owner).or_default().insert(addr);
        if shard.clock.len() > 2 * self.limit.max(shard.map.len()) {
            shard.sweep();
        }
        for _ in 0..STEPS {
            // Each insertion may evict several, so that the shard shrinks again after a time of many pinned buffers.
            if shard.map.len() <= self.limit {
                break;
            }
            self.tick(shard, addr);
        }
    }
    /// Looks at one entry of the clock.
    fn tick(&self, shard: &mut Shard, keep: BlockAddr) {
        let Some(addr) = shard.clock.pop_front() else { return };
        let Some(b) = shard.map.get(&addr) else { return };
        // The map's reference alone, seen under the shard's lock: nobody can come to hold it while we remove it.
        if addr == keep || b.take_used() || b.is_dirty() || Arc::strong_count(b) > 1 {
            shard.clock.push_back(addr);
            return;
        }
        let (owner, edited) = (b.owner(), b.was_edited());
        shard.map.remove(&addr);
        if edited {
            shard.epoch += 1;
        }
        self.unindex(owner, addr);
    }
    fn unindex(&self, owner: LockName, addr: BlockAddr) {
        let mut owners = self.owner(owner).lock();
        if let Some(set) = owners.get_mut(&owner) {
            set.remove(&addr);
            if set.is_empty() {
                owners.remove(&owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::BufferKind;

    #[test]
    fn blocks_that_come_and_go_do_not_push_out_those_that_stay() {
        let shards = Shards::new(1024);
        let put = |n: u64| {
            let addr = BlockAddr::new(n).expect("not 0");
            shards.replace(Buffer::new(addr, LockName::inode(addr), BufferKind::Unknown, Arc::from([0u8; 8])));
            addr
        };
        for n in 1..=200 {
            put(n);
        }
        for n in 0..100_000 {
            shards.forget(put(1000 + n % 300));
        }
        assert_eq!(shards.len(), 200);
        let clocks: usize = shards.shards.iter().map(|s| s.read().clock.len()).sum();
        assert!(clocks <= shards.shards.len() * (2 * shards.limit + 1), "{clocks} entries in the clocks");
    }
}
