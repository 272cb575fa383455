//! Random transactions, and what must be found after a crash.
//!
//! Every transaction counts up in block 0 (always metadata), so the recovered counter says which transaction was the last,
//! and the model knows the state after each.

use super::rig::*;
use crate::device::{AlignedBuf, BlockDevice};
use crate::error::{Error, Result};
use crate::format::{MetaHeader, MetaType, StatfsChange, get_u64, put_u64};
use crate::ids::BatchId;
use crate::journal::ail::Place;
use crate::journal::{FlushReason, Reserve, Transaction};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Blocks in play.
pub(super) const N: usize = 24;

/// What a block is. Values are unique: one per write.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Block {
    Free {
        since: BatchId,
    },
    Meta(u64),
    Jdata(u64),
    /// All values written since it was allocated.
    Data {
        values: Vec<u64>,
    },
}

pub(super) struct Model {
    rng: u64,
    /// Its first block.
    base: u64,
    /// It is the only one: statfs counts its transactions, and it may do what would disturb others.
    alone: bool,
    pub(super) blocks: Vec<Block>,
    next_value: u64,
    pub(super) counter: u64,
    /// State after each transaction.
    pub(super) states: BTreeMap<u64, Vec<Block>>,
    /// Last transaction of each batch.
    pub(super) ends: BTreeMap<BatchId, u64>,
    /// Batches known to be durable.
    pub(super) durable: BatchId,
    /// Values of data blocks known to be durable.
    pub(super) synced: BTreeSet<u64>,
    /// The block that the other node was writing when the power went.
    other_in_flight: Option<usize>,
}

impl Model {
    pub(super) fn new(seed: u64) -> Self {
        Self::beside_others(seed, 0, true)
    }
    /// Number `index` of several.
    pub(super) fn beside_others(seed: u64, index: u64, alone: bool) -> Self {
        let mut blocks = vec![Block::Free { since: BatchId(0) }; N];
        blocks[0] = Block::Meta(0);
        Self {
            rng: seed ^ index << 32,
            base: FIRST + index * N as u64,
            alone,
            states: BTreeMap::from([(0, blocks.clone())]),
            blocks,
            next_value: 1,
            counter: 0,
            ends: BTreeMap::new(),
            durable: BatchId(0),
            synced: BTreeSet::new(),
            other_in_flight: None,
        }
    }
    pub(super) fn below(&mut self, n: u64) -> u64 {
        // splitmix64
        self.rng = self.rng.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.rng ^ self.rng >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % n
    }
    fn value(&mut self) -> u64 {
        self.next_value += 1;
        self.next_value
    }

    /// Block 0 becomes metadata before the counted part begins.
    pub(super) fn format(&self, rig: &Rig) {
        let bs = rig.cache.block_size();
        let mut block = vec![0; bs.bytes()];
        MetaHeader::init(&mut block, MetaType::Indirect);
        let done = rig.dev.write_durable(self.base << bs.shift(), &block);
        assert!(done.is_ok() || rig.dev.crashed());
    }
    /// One step: mostly a transaction, sometimes something else. Errors are the crash.
    pub(super) fn step(&mut self, rig: &Rig) -> Result<()> {
        match self.below(20) {
            0 => rig.journal.flush(FlushReason::Sync)?,
            1 => rig.journal.write_back(log(rig), Place::Upto(rig.journal.committed()))?,
            2 => {
                let upto = BatchId(rig.journal.committed().0.saturating_sub(1));
                rig.journal.write_back(log(rig), Place::Upto(upto))?;
            }
            3 => rig.journal.move_tail(log(rig), FlushReason::Normal)?,
            4 if self.below(4) == 0 && self.alone => self.sync_everything(rig)?,
            5 => rig.cache.data().write_all()?,
            6 => {
                let n = self.below(N as u64);
                self.sync_file(rig, n as usize)?;
            }
            7 if self.below(2) == 0 => {
                let n = self.below(N as u64);
                rig.journal.sync_owner(owner(self.base + n))?;
                rig.cache.invalidate(owner(self.base + n));
                self.durable = self.durable.max(rig.journal.committed());
                self.other_node(rig, n as usize)?;
            }
            8 => self.overwrite(rig)?,
            _ => self.transaction(rig)?,
        }
        self.durable = self.durable.max(rig.journal.committed());
        Ok(())
    }
    fn sync_everything(&mut self, rig: &Rig) -> Result<()> {
        rig.journal.quiesce(FlushReason::Sync)?;
        rig.journal.sync_data()?;
        for n in 0..N {
            self.note_synced(n);
        }
        Ok(())
    }
    fn sync_file(&mut self, rig: &Rig, n: usize) -> Result<()> {
        let upto = rig.journal.running();
        rig.journal.sync_file(owner(self.base + n as u64), upto)?;
        self.note_synced(n);
        if rig.journal.committed() < upto {
            return Err(Error::Invalid);
        }
        Ok(())
    }
    /// The lock of a block was given up: another node changes the block, and that is durable at once.
    fn other_node(&mut self, rig: &Rig, n: usize) -> Result<()> {
        let Block::Meta(_) = self.blocks[n] else { return Ok(()) };
        if n == 0 {
            return Ok(());
        }
        let v = self.value();
        let bs = rig.cache.block_size();
        let mut buf = vec![0; bs.bytes()];
        MetaHeader::init(&mut buf, MetaType::Indirect);
        fill(&mut buf, v, 24);
        if let Err(e) = rig.dev.write_durable((self.base + n as u64) << bs.shift(), &buf) {
            // Whether the other node's write got through is not this test's business.
            self.other_in_flight = Some(n);
            return Err(e.into());
        }
        self.blocks[n] = Block::Meta(v);
        let must = self.must();
        for (_, state) in self.states.range_mut(must..) {
            state[n] = Block::Meta(v);
        }
        Ok(())
    }
    fn note_synced(&mut self, n: usize) {
        if let Block::Data { values } = &self.blocks[n]
            && let Some(v) = values.last()
        {
            self.synced.insert(*v);
        }
    }
    /// Data is overwritten without a transaction.
    fn overwrite(&mut self, rig: &Rig) -> Result<()> {
        let n = self.below(N as u64) as usize;
        if matches!(self.blocks[n], Block::Data { .. }) {
            self.write_data(rig, n, None)?;
        }
        Ok(())
    }
    fn write_data(&mut self, rig: &Rig, n: usize, ordered: Option<BatchId>) -> Result<()> {
        let v = self.value();
        let mut buf = AlignedBuf::zeroed(rig.cache.block_size().bytes());
        fill(&mut buf, v, 0);
        let (a, o) = (addr(self.base + n as u64), owner(self.base + n as u64));
        let Block::Data { values } = &mut self.blocks[n] else { unreachable!("the caller has looked") };
        values.push(v);
        // Data is written in place: every older state of the same file may show the new value.
        for state in self.states.values_mut() {
            if let Block::Data { values: old } = &mut state[n]
                && old[0] == values[0]
            {
                old.clone_from(values);
            }
        }
        if self.below(2) == 0 {
            rig.cache.data().write(o, a, Arc::new(buf), ordered)
        } else {
            rig.cache.data().write_part(o, a, 0, &buf, ordered.is_some(), ordered)
        }
    }
    fn transaction(&mut self, rig: &Rig) -> Result<()> {
        let actions = 1 + self.below(4);
        let mut tx = rig.journal.begin(Reserve::blocks(5).with_revokes(4))?;
        // From here on nothing may fail but reads, which only a crash makes fail: then the transaction is dropped.
        let counter = rig.cache.meta(addr(self.base), owner(self.base), MetaType::Indirect)?;
        for _ in 0..actions {
            let n = 1 + self.below(N as u64 - 1) as usize;
            self.act(rig, &mut tx, n)?;
        }
        self.counter += 1;
        let c = self.counter;
        tx.edit(&counter, |b| put_u64(b, 32, c));
        if self.alone {
            rig.journal.set_local_statfs(StatfsChange { total: 0.into(), free: (c as i64).into(), dinodes: 0.into() });
        }
        let batch = tx.commit();
        self.states.insert(c, self.blocks.clone());
        self.ends.insert(batch, c);
        Ok(())
    }
    fn act(&mut self, rig: &Rig, tx: &mut Transaction<'_>, n: usize) -> Result<()> {
        let (a, o) = (addr(self.base + n as u64), owner(self.base + n as u64));
        let choice = self.below(4);
        match self.blocks[n].clone() {
            Block::Free { .. } if choice == 0 => {
                let v = self.value();
                let b = tx.new_meta(a, o, MetaType::Indirect);
                tx.edit(&b, |bytes| fill(bytes, v, 24));
                self.blocks[n] = Block::Meta(v);
            }
            Block::Free { .. } if choice == 1 => {
                let v = self.value();
                let b = tx.new_jdata(a, o);
                tx.edit(&b, |bytes| fill_jdata(bytes, v));
                self.blocks[n] = Block::Jdata(v);
            }
            Block::Free { since } if rig.journal.committed() >= since => {
                self.blocks[n] = Block::Data { values: Vec::new() };
                self.write_data(rig, n, Some(tx.batch()))?;
            }
            Block::Free { .. } => {}
            _ if choice == 0 => {
                tx.forget(a, 1);
                self.blocks[n] = Block::Free { since: tx.batch() };
            }
            Block::Meta(_) => {
                let v = self.value();
                let b = rig.cache.meta(a, o, MetaType::Indirect)?;
                tx.edit(&b, |bytes| fill(bytes, v, 24));
                self.blocks[n] = Block::Meta(v);
            }
            Block::Jdata(_) => {
                let v = self.value();
                let b = rig.cache.jdata(a, o)?;
                tx.edit(&b, |bytes| fill_jdata(bytes, v));
                self.blocks[n] = Block::Jdata(v);
            }
            Block::Data { .. } => self.write_data(rig, n, None)?,
        }
        Ok(())
    }

    /// The last transaction that is durable.
    fn must(&self) -> u64 {
        self.ends.range(..=self.durable).next_back().map_or(0, |(_, c)| *c)
    }
    /// Checks a recovered volume. Returns the batch of the last transaction that is there, and of the first that is not.
    pub(super) fn check(&self, rig: &Rig, what: &str) -> (BatchId, BatchId) {
        let raw = rig.block_on_disk(self.base);
        let counter = if MetaHeader::has_magic(&raw) { get_u64(&raw, 32) } else { 0 };
        let must = self.must();
        assert!(counter >= must, "{what}: transaction {must} was durable, {counter} is the last found");
        assert!(
            counter == 0 || self.ends.values().any(|c| *c == counter),
            "{what}: {counter} is not the end of a batch"
        );
        if !rig.replayed.clean && counter > 0 && self.alone {
            let (_, free, _) = statfs_of(&rig.block_on_disk(MASTER));
            assert_eq!(free, counter as i64, "{what}: statfs of another transaction");
        }
        let state = &self.states[&counter];
        for (n, block) in state.iter().enumerate().skip(1) {
            let bytes = rig.block_on_disk(self.base + n as u64);
            let mut want = vec![0; bytes.len()];
            match block {
                Block::Free { .. } => {}
                _ if self.other_in_flight == Some(n) => {}
                Block::Meta(v) => {
                    assert!(MetaHeader::has_magic(&bytes), "{what}: block {n} lost its header");
                    fill(&mut want, *v, 24);
                    assert_eq!(
                        bytes[24..],
                        want[24..],
                        "{what}: block {n} should be metadata {v} (transaction {counter})"
                    );
                }
                Block::Jdata(v) => {
                    fill_jdata(&mut want, *v);
                    assert!(bytes == want, "{what}: block {n} should be journaled data {v} (transaction {counter})");
                }
                Block::Data { values } => self.check_data(n, &bytes, values, what),
            }
        }
        let last = self.ends.iter().find(|(_, c)| **c == counter).map_or(BatchId(0), |(b, _)| *b);
        let next = self.ends.iter().find(|(_, c)| **c > counter).map_or(BatchId(u64::MAX), |(b, _)| *b);
        (last, next)
    }
    fn check_data(&self, n: usize, bytes: &[u8], values: &[u64], what: &str) {
        let from = values.iter().rposition(|v| self.synced.contains(v)).unwrap_or(0);
        for sector in bytes.chunks_exact(512) {
            let v = get_u64(sector, 8);
            assert!(values[from..].contains(&v), "{what}: data block {n} shows {v}, not one of {:?}", &values[from..]);
            assert!(
                sector.chunks_exact(8).all(|w| get_u64(w, 0) == v),
                "{what}: data block {n} is torn within a sector"
            );
        }
    }
}

fn log(rig: &Rig) -> &crate::journal::log::Log {
    rig.journal.log.as_ref().expect("writable")
}

fn fill(bytes: &mut [u8], v: u64, from: usize) {
    for word in bytes[from..].chunks_exact_mut(8) {
        put_u64(word, 0, v);
    }
}

/// Some journaled data begins with the magic and must be escaped in the log.
fn fill_jdata(bytes: &mut [u8], v: u64) {
    fill(bytes, v, 0);
    if v % 3 == 0 {
        bytes[..4].copy_from_slice(&crate::format::MAGIC.to_be_bytes());
    }
}

pub(super) use super::rig::Rig;
