//! Opening and closing a volume: the one place where chapters 2 to 12 are put together.
//!
//! Opening goes: superblock, system files, recovery of every journal (a single node is always the first mounter), then our
//! own journal, the rgrps, the counters, the operations. Closing goes the same way backwards and ends with a clean log header.

mod bootstrap;

use crate::cache::Cache;
use crate::clock::Clock;
use crate::device::BlockDevice;
use crate::error::{CorruptKind, Error, Result};
use crate::format::superblock::{SUPERBLOCK_OFFSET, SuperblockError};
use crate::format::{MetaType, OnDisk, Superblock};
use crate::fs::Fs;
use crate::glock::{GlockTable, LockManager, Nolock};
use crate::ids::{BlockAddr, BlockSize, Jid, LockName};
use crate::inode::{Volume, VolumeOptions};
use crate::journal::{Journal, JournalPlace, Replayed, UnrecoveredJournal};
use crate::quota::{Quota, QuotaMode};
use crate::rgrp::Rgrps;
use crate::statfs::{Accounts, Statfs};
use crate::sync::Mutex;
use bootstrap::{Bootstrap, SystemFile};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::sync::atomic::{AtomicBool, Ordering};

/// How a volume is to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// No writing, but for the replay of dirty journals.
    pub read_only: bool,
    /// Leave dirty journals alone (only with `read_only`).
    pub norecovery: bool,
    /// Without a journal of our own; needs every journal clean.
    pub spectator: bool,
    /// `hostdata=jid=N`: which journal is ours.
    pub jid: Jid,
    /// POSIX ACLs.
    pub acl: bool,
    /// `data=ordered`; false for `writeback`.
    pub ordered: bool,
    /// `suiddir`.
    pub suiddir: bool,
    /// Cache flushes around commits; only for devices with a safe cache may it be off.
    pub barrier: bool,
    /// Freed blocks are discarded.
    pub discard: bool,
    /// `commit=`: seconds after which the log is committed.
    pub commit_secs: u32,
    /// `quota=`.
    pub quota: QuotaMode,
    /// Bytes of clean metadata that are kept.
    pub cache_bytes: usize,
    /// Unused inodes that are kept.
    pub cached_inodes: usize,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            norecovery: false,
            spectator: false,
            jid: Jid(0),
            acl: true,
            ordered: true,
            suiddir: false,
            barrier: true,
            discard: false,
            commit_secs: 30,
            quota: QuotaMode::Off,
            cache_bytes: 256 << 20,
            cached_inodes: 1 << 20,
        }
    }
}

/// Why a volume cannot be opened.
#[derive(Debug)]
pub enum OpenError {
    /// The superblock is refused.
    Superblock(SuperblockError),
    /// The device ends before the filesystem does (device bytes, filesystem bytes).
    Truncated(u64, u64),
    /// The block size is one this machine cannot do.
    BlockSize(u32),
    /// There is no journal with this id; so many there are.
    NoJournal(Jid, u32),
    /// The journal is dirty and may not be replayed.
    Dirty(Jid),
    /// Something else: a device error or a contradiction.
    Other(Error),
}

impl From<Error> for OpenError {
    fn from(e: Error) -> Self {
        Self::Other(e)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superblock(e) => e.fmt(f),
            Self::Truncated(device, fs) => {
                write!(f, "the device ends before the filesystem does ({device} bytes, {fs} needed)")
            }
            Self::BlockSize(b) => write!(f, "block size {b} is larger than a page of this machine"),
            Self::NoJournal(jid, n) => write!(f, "there is no journal {}, only {n} (add one with gfs2r jadd)", jid.0),
            Self::Dirty(jid) => {
                write!(
                    f,
                    "journal {} is dirty and may not be replayed here (mount read-write first, or -o norecovery,ro)",
                    jid.0
                )
            }
            Self::Other(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for OpenError {}

/// What the superblock says.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The superblock.
    pub superblock: Superblock,
    /// Its block size.
    pub bs: BlockSize,
}

impl Identity {
    /// Reads and checks the superblock.
    pub fn read(dev: &dyn BlockDevice) -> Result<Self, OpenError> {
        if dev.size() < SUPERBLOCK_OFFSET + 4096 {
            return Err(OpenError::Superblock(SuperblockError::NotGfs2));
        }
        let mut block = crate::device::AlignedBuf::zeroed(4096);
        dev.read(SUPERBLOCK_OFFSET, &mut block).map_err(Error::from)?;
        let superblock = *Superblock::view(&block);
        let bs = superblock.check().map_err(OpenError::Superblock)?;
        Ok(Self { superblock, bs })
    }
    /// The name by which a running mount of this volume is known: its lock table, or its UUID.
    pub fn name(&self) -> String {
        match self.superblock.locktable() {
            [] => uuid_text(&self.superblock.uuid),
            table => String::from_utf8_lossy(table).replace('/', "_"),
        }
    }
}

/// A UUID as text.
pub fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex: String = uuid.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// An open volume.
pub struct Opened {
    /// The operations.
    pub fs: Arc<Fs>,
    /// What was done to each journal.
    pub recovered: Vec<(Jid, Replayed)>,
    /// How many journals the volume has.
    pub journals: u32,
    read_only: AtomicBool,
    born_read_only: bool,
    remounting: Mutex<()>,
}

/// The system files that a mount needs.
struct SystemFiles {
    journals: Vec<JournalPlace>,
    rindex: SystemFile,
    statfs: SystemFile,
    quota_change: Option<Vec<BlockAddr>>,
    quota: BlockAddr,
}

/// Where the parts of a volume lie, for looking at it without mounting it.
pub struct Layout {
    id: Identity,
    cache: Arc<Cache>,
    rgrps: Vec<crate::format::rgrp::RgrpExtent>,
    journals: Vec<JournalPlace>,
}

impl Layout {
    /// Reads superblock, rindex and the places of the journals.
    pub fn read(dev: Arc<dyn BlockDevice>) -> Result<Self, OpenError> {
        let id = Identity::read(&*dev)?;
        let cache = Cache::new(dev, id.bs, 32 << 20);
        let system = system_files(&cache, &id, &OpenOptions::default())?;
        let rgrps = Bootstrap { cache: &cache }.rindex(&system.rindex)?;
        Ok(Self { id, cache, rgrps, journals: system.journals })
    }
    /// The superblock.
    pub fn identity(&self) -> &Identity {
        &self.id
    }
    /// The checked rindex, ascending.
    pub fn rgrps(&self) -> &[crate::format::rgrp::RgrpExtent] {
        &self.rgrps
    }
    /// The blocks of a journal, in order.
    pub fn journal(&self, n: u32) -> Option<&[crate::journal::LogExtent]> {
        self.journals.iter().find(|j| j.jid.0 == n).map(|j| j.extents.as_slice())
    }
    /// The whole contents of a small file or of a directory's hash table.
    pub fn contents(&self, dev: &dyn BlockDevice, dinode: BlockAddr) -> Result<Vec<u8>> {
        let _same_device = dev;
        let boot = Bootstrap { cache: &self.cache };
        boot.contents(&boot.open(dinode)?)
    }
    /// State of a block in its bitmap; `None` when no rgrp owns it.
    pub fn state(&self, dev: &dyn BlockDevice, block: Option<BlockAddr>) -> Result<Option<crate::ids::BlkState>> {
        let Some((n, index)) =
            block.and_then(|b| self.rgrps.iter().enumerate().find_map(|(n, e)| Some((n, e.index_of(b)?))))
        else {
            return Ok(None);
        };
        let (part, offset) = crate::format::rgrp::bitmap_location(self.id.bs, index / 4);
        let bytes = self.bitmap_block(dev, n, part)?;
        Ok(Some(crate::ids::BlkState::from_bits(bytes[offset] >> (2 * (index % 4)))))
    }
    /// How many blocks of an rgrp are in a state.
    pub fn count(&self, dev: &dyn BlockDevice, n: usize, state: crate::ids::BlkState) -> Result<u64> {
        let extent = self.rgrps[n];
        let mut count = 0;
        for part in 0..extent.length {
            let bytes = self.bitmap_block(dev, n, part)?;
            let (offset, _, len) = extent.bitmap_part(self.id.bs, part);
            for byte in &bytes[offset..offset + len as usize] {
                count += (0..4).filter(|i| crate::ids::BlkState::from_bits(byte >> (2 * i)) == state).count() as u64;
            }
        }
        Ok(count)
    }
    fn bitmap_block(&self, dev: &dyn BlockDevice, n: usize, part: u32) -> Result<crate::device::AlignedBuf> {
        let mut bytes = crate::device::AlignedBuf::zeroed(self.id.bs.bytes());
        dev.read(self.id.bs.offset(self.rgrps[n].addr.saturating_add(u64::from(part))), &mut bytes)?;
        Ok(bytes)
    }
}

/// Opens the volume on `dev`.
pub fn open(dev: Arc<dyn BlockDevice>, options: &OpenOptions, clock: Arc<dyn Clock>) -> Result<Opened, OpenError> {
    open_with(dev, options, clock, Arc::new(Nolock))
}

/// The same with another lock manager.
pub fn open_with(
    dev: Arc<dyn BlockDevice>,
    options: &OpenOptions,
    clock: Arc<dyn Clock>,
    manager: Arc<dyn LockManager>,
) -> Result<Opened, OpenError> {
    let id = Identity::read(&*dev)?;
    if id.bs.bytes() > 4096 && id.bs.bytes() > rustix::param::page_size() {
        return Err(OpenError::BlockSize(id.superblock.bsize.get()));
    }
    let writes = !options.read_only && !options.spectator;
    // A cache of its own: what it holds is out of date after a replay.
    let scout = Cache::new(Arc::clone(&dev), id.bs, 32 << 20);
    let system = system_files(&scout, &id, options)?;
    // Before anything is written. What a replay changes in the rindex can only make the volume larger; while it is half
    // written it may be nonsense, which is then looked at again below.
    if let Ok(extents) = (Bootstrap { cache: &scout }).rindex(&system.rindex) {
        is_whole(&*dev, id.bs, &extents)?;
    }
    let places = system.journals;
    let count = u32::try_from(places.len()).unwrap_or(u32::MAX);
    if writes && options.jid.0 >= count {
        return Err(OpenError::NoJournal(options.jid, count));
    }
    let (recovered, own) = recover(&scout, places, options, &*clock)?;
    drop(scout);
    let cache = Cache::new(Arc::clone(&dev), id.bs, options.cache_bytes);
    let system = system_files(&cache, &id, options)?;
    let extents = Bootstrap { cache: &cache }.rindex(&system.rindex)?;
    is_whole(&*dev, id.bs, &extents)?;
    let journal = match own {
        Some(clean) if writes => {
            Journal::open(Arc::clone(&cache), clean, Arc::clone(&clock), options.barrier, options.commit_secs)?
        }
        _ => Journal::read_only(Arc::clone(&cache)),
    };
    let fs = assemble(cache, journal, clock, manager, &id, options, system, extents, count)?;
    Ok(Opened {
        fs,
        recovered,
        journals: count,
        read_only: AtomicBool::new(!writes),
        born_read_only: !writes,
        remounting: Mutex::new(()),
    })
}

/// `Truncated` when the last rgrp does not lie on the device.
fn is_whole(
    dev: &dyn BlockDevice,
    bs: BlockSize,
    extents: &[crate::format::rgrp::RgrpExtent],
) -> Result<(), OpenError> {
    let needed = extents.last().map_or(0, |e| e.end()).saturating_mul(bs.bytes() as u64);
    if needed > dev.size() { Err(OpenError::Truncated(dev.size(), needed)) } else { Ok(()) }
}

/// What was done to each journal, and ours, ready for writing.
type Recovered = (Vec<(Jid, Replayed)>, Option<crate::journal::CleanJournal>);

/// Recovers every journal; ours is handed out for writing.
fn recover(
    cache: &Arc<Cache>,
    places: Vec<JournalPlace>,
    options: &OpenOptions,
    clock: &dyn Clock,
) -> Result<Recovered, OpenError> {
    let mut recovered = Vec::new();
    let mut own = None;
    if options.norecovery {
        return Ok((recovered, own));
    }
    for place in places {
        let jid = place.jid;
        let journal = UnrecoveredJournal::examine(cache, place)?;
        if !journal.is_clean() && (options.spectator || cache.device().read_only()) {
            return Err(OpenError::Dirty(jid));
        }
        let (clean, replayed) = journal.recover(options.jid, clock)?;
        if !replayed.clean {
            tracing::info!(
                jid = jid.0,
                found = replayed.found,
                replayed = replayed.replayed,
                revokes = replayed.revokes,
                "journal replayed"
            );
        }
        recovered.push((jid, replayed));
        if jid == options.jid {
            own = Some(clean);
        }
    }
    Ok((recovered, own))
}

/// Finds the system files (ondisk.md 2.6, 7).
fn system_files(cache: &Arc<Cache>, id: &Identity, options: &OpenOptions) -> Result<SystemFiles> {
    let boot = Bootstrap { cache };
    let sb = BlockAddr::new(SUPERBLOCK_OFFSET >> id.bs.shift());
    let master = BlockAddr::new(id.superblock.master_dir.addr.get());
    let (Some(sb), Some(master)) = (sb, master) else { return Err(Error::Invalid) };
    let master = boot.open(master)?;
    let jindex = boot.must_find(&master, b"jindex", "master directory without jindex")?;
    let per_node = boot.must_find(&master, b"per_node", "master directory without per_node")?;
    let statfs = boot.must_find(&master, b"statfs", "master directory without statfs")?;
    let rindex = boot.must_find(&master, b"rindex", "master directory without rindex")?;
    let quota = boot.must_find(&master, b"quota", "master directory without quota")?.addr;
    let mut journals = Vec::new();
    let mut quota_change = None;
    for n in 0..=u32::from(u16::MAX) {
        let Some(journal) = boot.find(&jindex, format!("journal{n}").as_bytes())? else { break };
        let own = |name: &str, what| boot.must_find(&per_node, format!("{name}{n}").as_bytes(), what);
        let statfs_change = own("statfs_change", "a journal without its statfs_change file")?;
        let changes = own("quota_change", "a journal without its quota_change file")?;
        if n == options.jid.0 && options.quota != QuotaMode::Off {
            quota_change = Some(boot.all_blocks(&changes)?);
        }
        journals.push(JournalPlace {
            jid: Jid(n),
            extents: boot.journal_extents(&journal)?,
            inode: journal.addr,
            statfs_change: statfs_change.addr,
            quota_change: changes.addr,
            master_statfs: statfs.addr,
        });
    }
    if journals.is_empty() {
        return Err(Error::corrupt(sb, CorruptKind::SystemFile("no journals")));
    }
    Ok(SystemFiles { journals, rindex, statfs, quota_change, quota })
}

#[allow(clippy::too_many_arguments, reason = "the one place where everything meets")]
fn assemble(
    cache: Arc<Cache>,
    journal: Arc<Journal>,
    clock: Arc<dyn Clock>,
    manager: Arc<dyn LockManager>,
    id: &Identity,
    options: &OpenOptions,
    system: SystemFiles,
    extents: Vec<crate::format::rgrp::RgrpExtent>,
    njournals: u32,
) -> Result<Arc<Fs>> {
    let read_only = options.read_only || options.spectator;
    let own = system.journals.iter().find(|j| j.jid == options.jid).or(system.journals.first());
    let own_statfs = own.ok_or(Error::Invalid)?.statfs_change;
    let dinode = |addr| cache.meta(addr, LockName::inode(addr), MetaType::Dinode);
    let statfs = Statfs::load(dinode(system.statfs.addr)?, dinode(own_statfs)?, Arc::clone(&journal))?;
    let quota = match system.quota_change {
        Some(blocks) if !read_only => {
            let blocks = blocks
                .into_iter()
                .map(|b| cache.meta(b, LockName::inode(own_statfs), MetaType::QuotaChange))
                .collect::<Result<Vec<_>>>()?;
            Some(Quota::load(options.quota, system.quota, blocks)?)
        }
        _ => None,
    };
    let ledger = Arc::new(Accounts::new(Arc::clone(&statfs), quota.clone()));
    let rgrps = Rgrps::new(
        Arc::clone(&cache),
        Arc::clone(&journal),
        Arc::clone(&manager),
        ledger,
        extents,
        options.jid,
        njournals,
        options.discard,
    )?;
    let wrong = || Error::Invalid;
    let vol = Arc::new(Volume {
        bs: id.bs,
        fs_format: id.superblock.fs_format.get(),
        jid: options.jid,
        root: id.superblock.root_dir.get().ok_or_else(wrong)?,
        master: id.superblock.master_dir.get().ok_or_else(wrong)?,
        cache,
        journal,
        rgrps,
        clock,
        options: VolumeOptions {
            read_only,
            acl: options.acl,
            ordered: options.ordered,
            suiddir: options.suiddir,
            barrier: options.barrier,
            discard: options.discard,
        },
        kernel_cache: OnceLock::new(),
        inodes: GlockTable::new(manager, options.cached_inodes),
    });
    vol.inodes.set_context(&vol);
    let fs = Fs::new(vol, statfs, quota);
    let weak = Arc::downgrade(&fs);
    let reclaim = move |index| weak.upgrade().is_some_and(|fs: Arc<Fs>| fs.reclaim_rgrp(index));
    fs.volume().rgrps.set_reclaimer(Box::new(reclaim));
    Ok(fs)
}

impl Opened {
    /// True while nothing is written.
    pub fn is_read_only(&self) -> bool {
        self.read_only.load(Ordering::Acquire)
    }

    /// `-o remount,ro` and `rw`. Read-only: everything is written and the log closed cleanly. Read-write: the log is opened
    /// again. A mount that was opened read-only has no journal of its own and stays so. `Busy` while the volume is frozen.
    pub fn remount(&self, read_only: bool) -> Result<()> {
        let _one_at_a_time = self.remounting.lock();
        if read_only == self.is_read_only() {
            return Ok(());
        }
        if self.born_read_only {
            return Err(Error::ReadOnly);
        }
        if self.fs.is_frozen() {
            return Err(Error::Busy);
        }
        if read_only {
            self.fs.set_read_only(true);
            // Closed on the disk, but so that it can go on.
            let closed = self.fs.sync_counters().and_then(|()| self.fs.volume().journal.freeze());
            closed.inspect_err(|_| self.fs.set_read_only(false))?;
        } else {
            self.fs.volume().journal.thaw();
            self.fs.set_read_only(false);
        }
        self.read_only.store(read_only, Ordering::Release);
        Ok(())
    }

    /// Closes the volume: counters, data and log are on the disk and the log says it is clean when this returns. Closing
    /// again does nothing.
    pub fn close(&self) -> Result<()> {
        let _one_at_a_time = self.remounting.lock();
        self.fs.thaw();
        if self.is_read_only() {
            return Ok(());
        }
        if let Some(cause) = self.fs.volume().journal.withdrawn() {
            tracing::error!("not closed cleanly: withdrawn earlier: {cause}");
            return Err(Error::Withdrawn);
        }
        self.fs.forget_all()?;
        self.fs.sync_counters()?;
        self.fs.volume().journal.shutdown()?;
        self.read_only.store(true, Ordering::Release);
        Ok(())
    }
}
