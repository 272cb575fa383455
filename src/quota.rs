//! Chapter 11: quotas (ondisk.md 7.3, 7.4).
//!
//! Blocks are charged to a user and a group in the transaction that allocates them: in a slot of this node's quota_change
//! file. From time to time the slots are moved to the quota file, which all nodes share; usage is the file's value plus the
//! slot's change.
//!
//! An entry of the quota file travels with its lock, in the value block: who has that lock need not read the file (ondisk.md
//! 7.3, 10.1).

use crate::cache::Buffer;
use crate::error::{CorruptKind, Error, Result};
use crate::file;
use crate::format::dinode::DINODE_SIZE;
use crate::format::lvb::QuotaLvb;
use crate::format::system::QC_USER;
use crate::format::{MAGIC, OnDisk, QuotaChange, QuotaEntry};
use crate::glock::{GlockTable, LockManager, Lvb, Protected};
use crate::ids::{BlockAddr, FileBlock, LockKind, LockName};
use crate::inode::{Inode, Volume};
use crate::journal::{Reserve, Transaction};
use crate::rgrp::{Owner, Space, Want};
use crate::sync::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// `quota=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotaMode {
    /// Nothing is counted.
    Off,
    /// Counted, not enforced.
    Account,
    /// Counted and enforced.
    On,
}

/// Whose quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// A user.
    User(u32),
    /// A group.
    Group(u32),
}

impl Who {
    /// Index of the entry in the quota file: 2·id for users, 2·id+1 for groups.
    fn index(self) -> u64 {
        match self {
            Self::User(id) => 2 * u64::from(id),
            Self::Group(id) => 2 * u64::from(id) + 1,
        }
    }
    fn lock(self) -> LockName {
        LockName { kind: LockKind::Quota, number: self.index() }
    }
    fn from_index(index: u64) -> Option<Self> {
        let id = u32::try_from(index / 2).ok()?;
        Some(if index.is_multiple_of(2) { Self::User(id) } else { Self::Group(id) })
    }
}

/// One line of a quota report. Numbers are filesystem blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaLine {
    /// Whose.
    pub who: Who,
    /// Hard limit, 0 = none.
    pub limit: u64,
    /// Warning level, 0 = none.
    pub warn: u64,
    /// Blocks in use, pending changes of this node included.
    pub used: i64,
}

/// Pending quota changes of this node, and the locks of the entries.
pub struct Quota {
    mode: QuotaMode,
    inode: BlockAddr,
    blocks: Vec<Arc<Buffer>>,
    slots_per_block: usize,
    state: Mutex<State>,
    /// One lock for each entry of the quota file.
    locks: GlockTable<EntryLock>,
    /// What the locks' table refers to.
    _alive: Arc<()>,
}

/// What lies in the lock of an entry: nothing, the entry is its value block.
struct EntryLock;

impl Protected for EntryLock {
    type Context = ();
    const HAS_LVB: bool = true;
    fn instantiate(_: LockName, (): &()) -> Result<Self> {
        Ok(Self)
    }
    fn sync(_: LockName, _: &mut Self, (): &()) -> Result<()> {
        Ok(())
    }
    fn invalidate(_: LockName, (): &()) {}
}

/// Limit, warning level and value, as the value block has them; `None` when nobody has filled it in.
fn from_lvb(lvb: Lvb) -> Option<(u64, u64, i64)> {
    let said = QuotaLvb::view(&lvb.0);
    let count = |n: i64| u64::try_from(n).unwrap_or(0);
    (said.magic.get() == MAGIC).then(|| (count(said.limit.get()), count(said.warn.get()), said.value.get()))
}

fn to_lvb(entry: &QuotaEntry) -> Lvb {
    let mut lvb = Lvb::default();
    let count = |n: u64| i64::try_from(n).unwrap_or(i64::MAX).into();
    let (limit, warn) = (count(entry.limit.get()), count(entry.warn.get()));
    *QuotaLvb::edit(&mut lvb.0) =
        QuotaLvb { magic: MAGIC.into(), pad: 0.into(), limit, warn, value: entry.value.get().into() };
    lvb
}

/// Entries whose locks are kept when nobody uses them.
const KEPT: usize = 4096;

#[derive(Default)]
struct State {
    /// Slot and pending change.
    pending: BTreeMap<Who, (usize, i64)>,
    /// Slots that were given back.
    free: Vec<usize>,
    /// Slots from here on were never used.
    next: usize,
}

const ENTRY: u64 = size_of::<QuotaEntry>() as u64;
const SLOT: usize = size_of::<QuotaChange>();

impl Quota {
    /// Loads pending changes from this node's quota_change blocks. `inode` is the quota file's dinode.
    pub fn load(
        mode: QuotaMode,
        inode: BlockAddr,
        blocks: Vec<Arc<Buffer>>,
        manager: Arc<dyn LockManager>,
    ) -> Result<Arc<Self>> {
        let payload = blocks.first().map_or(0, |b| b.bytes().len() - 24);
        let slots_per_block = payload / SLOT;
        let mut state = State::default();
        for (n, block) in blocks.iter().enumerate() {
            let bytes = block.bytes();
            for within in 0..slots_per_block {
                let slot = n * slots_per_block + within;
                let disk = QuotaChange::view(&bytes[24 + within * SLOT..]);
                if disk.change.get() == 0 {
                    continue;
                }
                let id = disk.id.get();
                let who = if disk.flags.get() & QC_USER != 0 { Who::User(id) } else { Who::Group(id) };
                if state.pending.insert(who, (slot, disk.change.get())).is_some() {
                    let wrong = CorruptKind::SystemFile("quota_change with two slots for one id");
                    return Err(Error::corrupt(block.addr(), wrong));
                }
                state.next = slot + 1;
            }
        }
        let used: std::collections::HashSet<usize> = state.pending.values().map(|(slot, _)| *slot).collect();
        state.free = (0..state.next).filter(|s| !used.contains(s)).collect();
        let (locks, alive) = (GlockTable::new(manager, KEPT), Arc::new(()));
        locks.set_context(&alive);
        Ok(Arc::new(Self { mode, inode, blocks, slots_per_block, state: Mutex::new(state), locks, _alive: alive }))
    }

    /// Gives up all locks, when the volume is closed; how many could not be in this time.
    pub fn give_up_all(&self, at_most: Duration) -> usize {
        self.locks.give_up_all(at_most)
    }

    /// How the mount treats quotas.
    pub fn mode(&self) -> QuotaMode {
        self.mode
    }

    /// True when limits are enforced.
    pub fn is_enforced(&self) -> bool {
        self.mode == QuotaMode::On
    }

    /// Metadata blocks a charge may add: the slot blocks of a user and a group.
    pub fn log_blocks(&self) -> u32 {
        2
    }

    /// Charges blocks (negative: gives them back) to a user and a group, in a transaction.
    pub fn charge(&self, tx: &mut Transaction<'_>, owner: Owner, blocks: i64) -> Result<()> {
        if blocks == 0 {
            return Ok(());
        }
        let mut state = self.state.lock();
        for who in [Who::User(owner.uid), Who::Group(owner.gid)] {
            self.change(tx, &mut state, who, blocks);
        }
        Ok(())
    }

    fn change(&self, tx: &mut Transaction<'_>, state: &mut State, who: Who, by: i64) {
        let (slot, old) = match state.pending.get(&who) {
            Some(&found) => found,
            None => match self.new_slot(state) {
                Some(slot) => (slot, 0),
                None => {
                    // The allocation is half done and must not fail for its book-keeping; usage is approximate anyway.
                    tracing::warn!("quota: no free slot for {who:?}, a change of {by} blocks is not counted");
                    return;
                }
            },
        };
        let change = old.saturating_add(by);
        let (flags, id) = match who {
            _ if change == 0 => (0, 0),
            Who::User(id) => (QC_USER, id),
            Who::Group(id) => (0, id),
        };
        let at = 24 + slot % self.slots_per_block * SLOT;
        tx.edit(&self.blocks[slot / self.slots_per_block], |b| {
            *QuotaChange::edit(&mut b[at..]) =
                QuotaChange { change: change.into(), flags: flags.into(), id: id.into() };
        });
        if change == 0 {
            state.pending.remove(&who);
            state.free.push(slot);
        } else {
            state.pending.insert(who, (slot, change));
        }
    }

    /// A slot for a new id; `None` when more ids are pending than the file has slots.
    fn new_slot(&self, state: &mut State) -> Option<usize> {
        state.free.pop().or_else(|| {
            let new = (state.next < self.slots_per_block * self.blocks.len()).then_some(state.next)?;
            state.next += 1;
            Some(new)
        })
    }

    /// `QuotaExceeded` when `blocks` more would pass a limit of the owner (mode On). Callers who may pass limits do not ask.
    pub fn check(&self, vol: &Volume, owner: Owner, blocks: u64) -> Result<()> {
        if !self.is_enforced() {
            return Ok(());
        }
        for who in [Who::User(owner.uid), Who::Group(owner.gid)] {
            let (limit, _, value) = self.entry(vol, who)?;
            let pending = self.state.lock().pending.get(&who).map_or(0, |(_, change)| *change);
            let used = u64::try_from(value.saturating_add(pending)).unwrap_or(0);
            if limit > 0 && used.saturating_add(blocks) > limit {
                return Err(Error::QuotaExceeded);
            }
        }
        Ok(())
    }

    /// The quota file's entry: limit, warning level, value.
    fn entry(&self, vol: &Volume, who: Who) -> Result<(u64, u64, i64)> {
        let lock = self.locks.get(who.lock());
        if let Some(known) = from_lvb(lock.shared()?.glock().lvb()) {
            return Ok(known);
        }
        let mut held = lock.exclusive()?;
        if let Some(known) = from_lvb(held.glock().lvb()) {
            return Ok(known);
        }
        let inode = vol.inode(self.inode).shared()?;
        let entry = read_entry(vol, &inode, who)?;
        held.set_lvb(to_lvb(&entry));
        Ok((entry.limit.get(), entry.warn.get(), entry.value.get()))
    }

    /// Adds pending changes to the quota file, one transaction for each id. Where the disk is too full for an id's place in
    /// that file, the change stays where it is, as durable as before, and counts all the same.
    pub fn sync(&self, vol: &Volume) -> Result<()> {
        let all: Vec<Who> = self.state.lock().pending.keys().copied().collect();
        for who in all {
            match self.update(vol, who, true, |_| {}) {
                Err(Error::NoSpace) => {
                    tracing::info!("quota: no space for {who:?} in the quota file, moved there later")
                }
                done => done?,
            }
        }
        Ok(())
    }

    /// Sets limits (blocks, 0 = none); `None` leaves one as it is.
    pub fn set(&self, vol: &Volume, who: Who, limit: Option<u64>, warn: Option<u64>) -> Result<()> {
        self.update(vol, who, false, |entry| {
            if let Some(limit) = limit {
                entry.limit.set(limit);
            }
            if let Some(warn) = warn {
                entry.warn.set(warn);
            }
        })
    }

    /// Changes an entry of the quota file, with the pending change moved into it when `settle`, in one transaction.
    fn update(&self, vol: &Volume, who: Who, settle: bool, f: impl FnOnce(&mut QuotaEntry)) -> Result<()> {
        let mut held = self.locks.get(who.lock()).exclusive()?;
        let mut inode = vol.inode(self.inode).exclusive()?;
        let mut entry = read_entry(vol, &inode, who)?;
        let (at, end) = (who.index() * ENTRY, who.index() * ENTRY + ENTRY);
        let bs = vol.bs;
        let first = bs.block_of(at);
        let blocks = bs.block_of(end - 1) - first + 1;
        let stays_stuffed = inode.is_stuffed() && end <= bs.stuffed_max() as u64;
        let cost = if stays_stuffed {
            file::GrowCost::default()
        } else {
            file::grow_cost(vol, &inode, FileBlock(first), blocks, false)?
        };
        let mut space = match cost.alloc {
            0 => None,
            n => {
                let want = Want { blocks: n, min: n, goal: inode.goal(vol), spread: false };
                Some(vol.rgrps.reserve(want, &mut inode.resv)?)
            }
        };
        inode.buffer(vol)?;
        // The dinode, the blocks of the entry (and the one that unstuffing makes), the slot.
        let log = 1 + cost.log + blocks as u32 + 2 + space.as_ref().map_or(0, Space::log_blocks);
        let mut tx = vol.journal.begin(Reserve::blocks(log))?;
        let mut state = self.state.lock();
        if settle {
            let pending = state.pending.get(&who).map_or(0, |(_, change)| *change);
            entry.value.set(entry.value.get().saturating_add(pending).max(0));
            if pending != 0 {
                self.change(&mut tx, &mut state, who, -pending);
            }
        }
        f(&mut entry);
        held.set_lvb(to_lvb(&entry));
        drop(state);
        let mut none = Space::empty();
        let space = space.as_mut().unwrap_or(&mut none);
        write_bytes(vol, &mut tx, space, &mut inode, at, zerocopy::IntoBytes::as_bytes(&entry))?;
        if inode.dinode.size.get() < end {
            inode.dinode.size.set(end);
        }
        inode.write_back(vol, &mut tx)?;
        tx.commit();
        Ok(())
    }

    /// The line of one id, all zero where nothing is known of it.
    pub fn line(&self, vol: &Volume, who: Who) -> Result<QuotaLine> {
        let (limit, warn, value) = self.entry(vol, who)?;
        let pending = self.state.lock().pending.get(&who).map_or(0, |(_, change)| *change);
        Ok(QuotaLine { who, limit, warn, used: value.saturating_add(pending) })
    }

    /// Every id with a limit, a warning level or blocks in use.
    pub fn report(&self, vol: &Volume) -> Result<Vec<QuotaLine>> {
        let inode = vol.inode(self.inode).shared()?;
        let mut lines = BTreeMap::new();
        let size = inode.dinode.size.get();
        let mut at = 0;
        while at < size {
            // Holes are most of this file: ids far apart are far apart here.
            at = match file::seek(vol, &inode, at, file::Seek::Data) {
                Ok(data) => data - data % ENTRY,
                Err(Error::NoSuchRegion) => break,
                Err(e) => return Err(e),
            };
            let hole = match file::seek(vol, &inode, at.max(1), file::Seek::Hole) {
                Ok(hole) => hole.max(at + 1),
                Err(Error::NoSuchRegion) => size,
                Err(e) => return Err(e),
            };
            while at < hole.min(size) {
                if let Some(who) = Who::from_index(at / ENTRY) {
                    let e = read_entry(vol, &inode, who)?;
                    let (limit, warn, used) = (e.limit.get(), e.warn.get(), e.value.get());
                    if (limit, warn, used) != (0, 0, 0) {
                        lines.insert(who, QuotaLine { who, limit, warn, used });
                    }
                }
                at += ENTRY;
            }
        }
        for (&who, &(_, change)) in &self.state.lock().pending {
            let line = lines.entry(who).or_insert(QuotaLine { who, limit: 0, warn: 0, used: 0 });
            line.used = line.used.saturating_add(change);
        }
        Ok(lines.into_values().collect())
    }
}

fn read_entry(vol: &Volume, inode: &Inode, who: Who) -> Result<QuotaEntry> {
    let mut entry = QuotaEntry::default();
    // Short at the end of the file: the rest of the entry is zero.
    file::read(vol, inode, who.index() * ENTRY, zerocopy::IntoBytes::as_mut_bytes(&mut entry))?;
    Ok(entry)
}

/// Writes into the quota file inside a transaction, allocating what is missing.
fn write_bytes(
    vol: &Volume,
    tx: &mut Transaction<'_>,
    space: &mut Space<'_>,
    inode: &mut Inode,
    mut at: u64,
    mut bytes: &[u8],
) -> Result<()> {
    if inode.is_stuffed() && at + bytes.len() as u64 <= vol.bs.stuffed_max() as u64 {
        let buffer = inode.buffer(vol)?;
        let start = DINODE_SIZE + at as usize;
        tx.edit(&buffer, |b| b[start..start + bytes.len()].copy_from_slice(bytes));
        return Ok(());
    }
    while !bytes.is_empty() {
        let within = vol.bs.within(at);
        let n = bytes.len().min(vol.bs.bytes() - within);
        let (addr, _, new) = file::map_for_write(vol, tx, space, inode, FileBlock(vol.bs.block_of(at)), 1)?;
        let buffer = if new { tx.new_jdata(addr, inode.lock_name()) } else { file::journaled_block(vol, inode, addr)? };
        tx.edit(&buffer, |b| b[within..within + n].copy_from_slice(&bytes[..n]));
        at += n as u64;
        bytes = &bytes[n..];
    }
    Ok(())
}
