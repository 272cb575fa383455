//! Recovery of one journal (ondisk.md 8.10): pass 0 collects revokes, pass 1 copies.

use super::head::{self, Head};
use super::place::{JournalPlace, LogMap};
use super::records::{self, HeaderFields, Section, Step, addr_item, continued_item, jdata_item, unescape};
use super::reserve::Costs;
use crate::cache::{AddrMap, AddrSet, Cache, coalesce};
use crate::clock::Clock;
use crate::device::AlignedBuf;
use crate::error::{CorruptKind, Error, Result};
use crate::format::log::{LD_JDATA, LD_METADATA, LD_REVOKE, LH_RECOVERY, LH_UNMOUNT};
use crate::format::{Dinode, MetaHeader, MetaType, OnDisk, StatfsChange, dinode::DINODE_SIZE};
use crate::ids::{BlockAddr, Jid, LogBlock, LogSeq};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of blocks that are gathered before they are written in place.
const GATHER: usize = 16 << 20;
/// Journal blocks read at once.
const WINDOW: usize = 1 << 20;
/// Revokes that are kept although no copy precedes them, only to be counted.
const COUNTED_REVOKES: usize = 1 << 20;

/// What becomes of the counters of a dead node's last commit, which it had not added to the master file (ondisk.md 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// They are added to the master file and cleared, on the device: nobody else uses the volume.
    InPlace,
    /// They stay in that node's file: whoever uses it next adds them, or [`take_over`](crate::statfs::Statfs::take_over).
    Stay,
}

/// A journal that was examined: how its log stands.
pub struct UnrecoveredJournal {
    cache: Arc<Cache>,
    place: JournalPlace,
    pub(super) map: LogMap,
    pub(super) head: Head,
}

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// True when the log was clean and nothing was to be done.
    pub clean: bool,
    /// Blocks found in the active log.
    pub found: u64,
    /// Blocks copied into place.
    pub replayed: u64,
    /// Revoke tags found.
    pub revokes: u64,
}

/// A clean journal, ready to be opened for writing.
pub struct CleanJournal {
    pub(super) place: JournalPlace,
    pub(super) map: LogMap,
    pub(super) head: Head,
}

impl UnrecoveredJournal {
    /// Reads the log's head.
    pub fn examine(cache: &Arc<Cache>, place: JournalPlace) -> Result<Self> {
        let map = LogMap::new(cache, &place)?;
        let head = head::find(cache, &map)?;
        if head.at >= map.size() || (!head.is_clean() && head.tail >= map.size()) {
            return Err(Error::corrupt(place.inode, CorruptKind::Journal("its head points outside")));
        }
        Ok(Self { cache: cache.clone(), place, map, head })
    }
    /// Where it lies.
    pub fn place(&self) -> &JournalPlace {
        &self.place
    }
    /// True when the newest header says UNMOUNT.
    pub fn is_clean(&self) -> bool {
        self.head.is_clean()
    }
    /// Replays the log if it is dirty, adds its local statfs to the master's, writes a clean header (ondisk.md 8.10).
    ///
    /// Cached copies of replayed blocks are dropped. A dirty one is an error (`Busy`): the caller has synced and given up
    /// whatever the dead node had locked, and the master statfs file.
    pub fn recover(self, by: Jid, clock: &dyn Clock) -> Result<(CleanJournal, Replayed)> {
        self.recover_with(by, clock, Settle::InPlace)
    }
    /// The same where other nodes are at work.
    pub fn recover_with(self, by: Jid, clock: &dyn Clock, settle: Settle) -> Result<(CleanJournal, Replayed)> {
        if self.is_clean() {
            let Self { place, map, head, .. } = self;
            return Ok((CleanJournal { place, map, head }, Replayed { clean: true, ..Replayed::default() }));
        }
        if self.cache.device().read_only() {
            return Err(Error::ReadOnly);
        }
        self.cache.health().check()?;
        let mut done = Replayed::default();
        let revokes = self.collect_revokes(&mut done)?;
        let mut gathered: BTreeMap<BlockAddr, Arc<[u8]>> = BTreeMap::new();
        let most = GATHER / self.cache.block_size().bytes();
        self.copies(&revokes, &mut done, |addr, bytes| {
            gathered.insert(addr, bytes);
            if gathered.len() >= most {
                self.put_in_place(&std::mem::take(&mut gathered))?;
            }
            Ok(())
        })?;
        self.put_in_place(&gathered)?;
        self.settle_statfs(settle)?;
        self.write_clean_header(by, clock)?;
        let Self { cache, place, map, head } = self;
        let now = head::find(&cache, &map)?;
        if !now.is_clean() || now.sequence.0 != head.sequence.0 + 1 {
            return Err(Error::corrupt(place.inode, CorruptKind::Journal("the clean header is not found again")));
        }
        Ok((CleanJournal { place, map, head: now }, done))
    }
    /// The contents that a replay would put in place, for a read-only mount of a dirty volume on a read-only device
    /// ([`Cache::set_overlay`]).
    pub fn overlay(&self) -> Result<Vec<(BlockAddr, Arc<[u8]>)>> {
        if self.is_clean() {
            return Ok(Vec::new());
        }
        let mut done = Replayed::default();
        let revokes = self.collect_revokes(&mut done)?;
        let mut blocks: BTreeMap<BlockAddr, Arc<[u8]>> = BTreeMap::new();
        self.copies(&revokes, &mut done, |addr, bytes| {
            blocks.insert(addr, bytes);
            Ok(())
        })?;
        Ok(blocks.into_iter().collect())
    }

    /// Pass 0: the newest position at which each block is revoked. A revoke that no copy precedes cancels nothing, so there
    /// are never more that matter than blocks in the log.
    fn collect_revokes(&self, done: &mut Replayed) -> Result<AddrMap<u32>> {
        let costs = Costs::new(self.cache.block_size());
        let mut copied = AddrSet::default();
        let mut revokes: AddrMap<u32> = AddrMap::default();
        self.walk(|reader, at, section, block| {
            match section.kind {
                LD_METADATA => copied.extend((0..section.items).filter_map(|i| BlockAddr::new(addr_item(block, i)))),
                LD_JDATA => copied.extend((0..section.items).filter_map(|i| BlockAddr::new(jdata_item(block, i).0))),
                LD_REVOKE => {
                    let mut add = |raw: u64, at: u32| {
                        if let Some(a) = BlockAddr::new(raw)
                            && (copied.contains(&a) || revokes.len() < COUNTED_REVOKES)
                        {
                            done.revokes += u64::from(revokes.insert(a, at).is_none());
                        }
                    };
                    let first = section.items.min(costs.meta);
                    (0..first).for_each(|i| add(addr_item(block, i), at.0));
                    let mut left = section.items - first;
                    for n in 1..section.length {
                        let at = self.map.after(at, n);
                        let more = reader.block(at)?;
                        let here = left.min(costs.more_revokes);
                        (0..here).for_each(|i| add(continued_item(more, i), at.0));
                        left -= here;
                        if left == 0 {
                            break;
                        }
                    }
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(revokes)
    }

    /// Pass 1: hands every copy that is not revoked to `sink`, in log order.
    fn copies(
        &self,
        revokes: &AddrMap<u32>,
        done: &mut Replayed,
        mut sink: impl FnMut(BlockAddr, Arc<[u8]>) -> Result<()>,
    ) -> Result<()> {
        self.walk(|reader, at, section, block| {
            if section.kind != LD_METADATA && section.kind != LD_JDATA {
                return Ok(());
            }
            for i in 0..section.items {
                let (raw, escaped) = match section.kind {
                    LD_METADATA => (addr_item(block, i), false),
                    _ => jdata_item(block, i),
                };
                // Items are fewer than the section's length, a u32.
                let from = self.map.after(at, 1 + i as u32);
                done.found += 1;
                let addr = self.check_target(raw, at)?;
                if revokes.get(&addr).is_some_and(|r| is_revoked(self.head.tail, *r, from.0)) {
                    continue;
                }
                let mut bytes: Arc<[u8]> = Arc::from(reader.block(from)?);
                if section.kind == LD_METADATA && !MetaHeader::has_magic(&bytes) {
                    return Err(self.bad(from, "a logged metadata block without its magic"));
                }
                if escaped {
                    unescape(Arc::make_mut(&mut bytes));
                }
                done.replayed += 1;
                sink(addr, bytes)?;
            }
            Ok(())
        })
    }
    /// A block that may be replayed: on the device, behind the superblock, not of this journal.
    fn check_target(&self, raw: u64, at: LogBlock) -> Result<BlockAddr> {
        let bs = self.cache.block_size();
        let addr = BlockAddr::new(raw).filter(|a| self.cache.is_on_device(*a) && bs.offset(*a) > 65536);
        let addr = addr.ok_or_else(|| self.bad(at, "a logged block lies outside the volume"))?;
        let inside = |e: &super::LogExtent| (e.addr..e.addr.saturating_add(u64::from(e.blocks))).contains(&addr);
        if self.place.extents.iter().any(inside) {
            return Err(self.bad(at, "a logged block is one of the journal's own"));
        }
        Ok(addr)
    }

    /// Calls `visit` with the reader, position and descriptor of each section from the tail to the head.
    fn walk(&self, mut visit: impl FnMut(&mut Reader<'_>, LogBlock, Section, &[u8]) -> Result<()>) -> Result<()> {
        let mut reader = Reader::new(&self.cache, &self.map);
        let mut at = LogBlock(self.head.tail);
        let mut left = self.map.size();
        while at.0 != self.head.at {
            let block: Arc<[u8]> = Arc::from(reader.block(at)?);
            let length = match records::parse(self.cache.block_size(), &block, self.map.addr(at))? {
                Step::Header => 1,
                Step::Section(section) => {
                    if section.length > left {
                        return Err(self.bad(at, "a section that is longer than the journal"));
                    }
                    visit(&mut reader, at, section, &block)?;
                    section.length
                }
            };
            left = left.checked_sub(length).ok_or_else(|| self.bad(at, "the log runs past its head"))?;
            at = self.map.after(at, length);
        }
        Ok(())
    }

    /// Who cannot write the disk withdraws: it would only try again for ever, and keep others from it.
    fn put_in_place(&self, blocks: &BTreeMap<BlockAddr, Arc<[u8]>>) -> Result<()> {
        let bs = self.cache.block_size();
        for addr in blocks.keys() {
            self.give_up_cached(*addr)?;
        }
        let list: Vec<(u64, &[u8])> = blocks.iter().map(|(a, bytes)| (bs.offset(*a), &bytes[..])).collect();
        let requests = coalesce(&list);
        let ranges: Vec<(u64, &[u8])> = requests.iter().map(|(offset, buf)| (*offset, &buf[..])).collect();
        self.cache.health().watch(self.cache.device().write_many(&ranges))
    }
    fn give_up_cached(&self, addr: BlockAddr) -> Result<()> {
        if self.cache.drop_clean(addr) { Ok(()) } else { Err(Error::Busy) }
    }

    /// The dead node's local statfs, as of its last commit, is accounted for (ondisk.md 7.2).
    fn settle_statfs(&self, settle: Settle) -> Result<()> {
        if self.head.local == (0, 0, 0) || settle == Settle::Stay {
            return Ok(());
        }
        let (total, free, dinodes) = self.head.local;
        self.edit_statfs(self.place.master_statfs, |s| {
            s.total.set(s.total.get().saturating_add(total));
            s.free.set(s.free.get().saturating_add(free));
            s.dinodes.set(s.dinodes.get().saturating_add(dinodes));
        })?;
        self.edit_statfs(self.place.statfs_change, |s| *s = StatfsChange::default())
    }
    fn edit_statfs(&self, addr: BlockAddr, f: impl FnOnce(&mut StatfsChange)) -> Result<()> {
        let bs = self.cache.block_size();
        if !self.cache.is_on_device(addr) {
            return Err(Error::corrupt(addr, CorruptKind::SystemFile("a statfs file lies outside the device")));
        }
        self.give_up_cached(addr)?;
        let mut block = AlignedBuf::zeroed(bs.bytes());
        self.cache.device().read(bs.offset(addr), &mut block)?;
        MetaHeader::check(&block, addr, MetaType::Dinode)?;
        let dinode = Dinode::view(&block);
        if dinode.height.get() != 0 || dinode.size.get() < size_of::<StatfsChange>() as u64 {
            return Err(Error::corrupt(addr, CorruptKind::SystemFile("a statfs file that is not one")));
        }
        f(StatfsChange::edit(&mut block[DINODE_SIZE..]));
        self.cache.health().watch(self.cache.device().write(bs.offset(addr), &block))
    }

    /// A header one after the head that says: clean, by recovery.
    fn write_clean_header(&self, by: Jid, clock: &dyn Clock) -> Result<()> {
        let at = self.map.after(LogBlock(self.head.at), 1);
        let sequence =
            self.head.sequence.0.checked_add(1).ok_or_else(|| self.bad(at, "its sequence numbers are used up"))?;
        let mut block = AlignedBuf::zeroed(self.cache.block_size().bytes());
        let fields = HeaderFields {
            writer: by,
            sequence: LogSeq(sequence),
            flags: LH_UNMOUNT | LH_RECOVERY,
            tail: LogBlock(0),
            at,
            addr: self.map.addr(at),
            inode: self.place.inode,
            files: (0, 0),
            local: StatfsChange::default(),
            time: clock.now(),
        };
        records::write_header(&mut block, &fields);
        let (dev, health) = (self.cache.device(), self.cache.health());
        health.watch(dev.flush())?;
        health.watch(dev.write_durable(self.cache.block_size().offset(fields.addr), &block))
    }
    fn bad(&self, at: LogBlock, what: &'static str) -> Error {
        Error::corrupt(self.map.addr(at), CorruptKind::Journal(what))
    }
}

/// Whether a copy at position `at` lies between the tail and the revoke at `revoke`; positions wrap (ondisk.md 8.10, 5).
fn is_revoked(tail: u32, revoke: u32, at: u32) -> bool {
    if revoke < tail { tail < at || at < revoke } else { tail < at && at < revoke }
}

/// Reads journal blocks through a window.
struct Reader<'a> {
    cache: &'a Cache,
    map: &'a LogMap,
    window: AlignedBuf,
    /// First block in the window, and how many there are.
    first: u32,
    blocks: u32,
}

impl<'a> Reader<'a> {
    fn new(cache: &'a Cache, map: &'a LogMap) -> Self {
        let bs = cache.block_size().bytes();
        let blocks = (WINDOW / bs).min(map.size() as usize);
        Self { cache, map, window: AlignedBuf::zeroed(blocks * bs), first: 0, blocks: 0 }
    }
    fn block(&mut self, at: LogBlock) -> Result<&[u8]> {
        let bs = self.cache.block_size().bytes();
        if at.0 < self.first || at.0 >= self.first + self.blocks {
            let blocks = ((self.window.len() / bs) as u32).min(self.map.size() - at.0);
            self.blocks = 0;
            self.map.read(self.cache, at, &mut self.window[..blocks as usize * bs])?;
            (self.first, self.blocks) = (at.0, blocks);
        }
        let from = (at.0 - self.first) as usize * bs;
        Ok(&self.window[from..from + bs])
    }
}

#[cfg(test)]
mod tests {
    use super::is_revoked;

    #[test]
    fn revokes_cancel_what_lies_before_them() {
        assert!(is_revoked(10, 20, 15) && !is_revoked(10, 20, 25));
        // Wrapped: the log runs from 100 over the end to 5.
        assert!(is_revoked(100, 5, 120) && is_revoked(100, 5, 3) && !is_revoked(100, 5, 7));
        assert!(!is_revoked(10, 200, 5));
    }
}
