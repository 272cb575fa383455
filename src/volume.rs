//! Opening and closing a volume: the one place where chapters 2 to 12 are put together.
//!
//! Opening goes: superblock, system files, recovery of every journal (a single node always is the first mounter), then our
//! own journal, the rgrps, the counters, the operations. Closing goes the same way backwards and ends with a clean log header.

mod bootstrap;
mod held;
mod layout;
mod opened;
mod recovery;

pub use layout::{Layout, rgrps_of};

use crate::cache::Cache;
use crate::clock::Clock;
use crate::device::BlockDevice;
use crate::error::{CorruptKind, Error, Result};
use crate::format::superblock::{SUPERBLOCK_OFFSET, SuperblockError};
use crate::format::{MetaType, OnDisk, Superblock};
use crate::fs::Fs;
use crate::glock::{GlockTable, LockManager, LockState, Nolock};
use crate::ids::{BlockAddr, BlockSize, Jid, LockName};
use crate::inode::{Volume, VolumeOptions};
use crate::journal::{Journal, JournalPlace, Replayed};
use crate::quota::{Quota, QuotaMode};
use crate::rgrp::Rgrps;
use crate::statfs::{Accounts, Statfs};
use crate::sync::Mutex;
use bootstrap::{Bootstrap, SystemFile};
use held::{Held, Locks};
use recovery::recover;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

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
            Self::NoJournal(jid, n) => {
                write!(f, "there is no journal {}, only {n} (gfs2_jadd adds one, on a mounted volume)", jid.0)
            }
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
    places: Vec<JournalPlace>,
    locks: Locks,
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

/// Which part a node plays when it mounts (ondisk.md 8.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounter {
    /// Nobody else has the volume mounted: every journal is recovered.
    First,
    /// Others are at work: only our own journal is.
    Joining,
    /// Others may be at work, and we have no journal.
    Spectator,
}

/// Opens the volume on `dev`, which nobody else uses.
pub fn open(dev: Arc<dyn BlockDevice>, options: &OpenOptions, clock: Arc<dyn Clock>) -> Result<Opened, OpenError> {
    open_shared(dev, options, clock, Arc::new(Nolock), Mounter::First)
}

/// Opens the volume on `dev`, which other nodes may use: `manager` grants the locks among them. The mount's own locks (ondisk.md
/// 10.1: journal, live and so on) are the caller's; `options.jid` is ours by them, and `options.spectator` says whether we have
/// one. Nothing that reads ahead on its own may stand in front of `dev`.
pub fn open_shared(
    dev: Arc<dyn BlockDevice>,
    options: &OpenOptions,
    clock: Arc<dyn Clock>,
    manager: Arc<dyn LockManager>,
    mounter: Mounter,
) -> Result<Opened, OpenError> {
    let reading = Held::take(&manager, LockName::superblock(), LockState::Shared)?;
    let id = Identity::read(&*dev)?;
    drop(reading);
    if id.bs.bytes() > 4096 && id.bs.bytes() > rustix::param::page_size() {
        return Err(OpenError::BlockSize(id.superblock.bsize.get()));
    }
    let writes = !options.read_only && !options.spectator;
    let locks = Locks::new(Arc::clone(&manager));
    // Caches of their own: what they hold is out of date after a replay, and was read under locks that are given back.
    let scout = cache_of(&dev, id.bs, 32 << 20, &manager);
    let system = system_files(&scout, &locks, &id, options)?;
    // Before anything is written. What a replay changes in the rindex can only make the volume larger; while it is half
    // written it may be nonsense, which is then looked at again below.
    if let Ok(extents) = (Bootstrap { cache: &scout, locks: &locks }).rindex(&system.rindex) {
        is_whole(&*dev, id.bs, &extents)?;
    }
    let places = system.journals;
    let count = u32::try_from(places.len()).unwrap_or(u32::MAX);
    if writes && options.jid.0 >= count {
        return Err(OpenError::NoJournal(options.jid, count));
    }
    let (recovered, own) = recover(&scout, places, options, &*clock, mounter)?;
    drop(scout);
    let scout = cache_of(&dev, id.bs, 32 << 20, &manager);
    let system = system_files(&scout, &locks, &id, options)?;
    let extents = Bootstrap { cache: &scout, locks: &locks }.rindex(&system.rindex)?;
    is_whole(&*dev, id.bs, &extents)?;
    let cache = cache_of(&dev, id.bs, options.cache_bytes, &manager);
    let journal = match own {
        Some(clean) if writes => {
            Journal::open(Arc::clone(&cache), clean, Arc::clone(&clock), options.barrier, options.commit_secs)?
        }
        _ => Journal::read_only(Arc::clone(&cache)),
    };
    let (places, rindex) = (system.journals.clone(), system.rindex.addr);
    let kept = kept(&places, options);
    let parts = Parts { id: &id, scout: &scout, cache, journal, clock, manager, kept: kept.clone() };
    let fs = assemble(parts, options, system, extents, count)?;
    watch_locks(&fs, rindex);
    locks.keep(&kept);
    if writes && mounter == Mounter::First {
        for place in places.iter().filter(|place| place.jid != options.jid) {
            fs.take_over_counts(place.statfs_change)?;
        }
    }
    Ok(Opened {
        fs,
        recovered,
        journals: count,
        places,
        locks,
        read_only: AtomicBool::new(!writes),
        born_read_only: !writes,
        remounting: Mutex::new(()),
    })
}

/// A cache that writes nothing while this node may have been counted out.
fn cache_of(dev: &Arc<dyn BlockDevice>, bs: BlockSize, limit: usize, manager: &Arc<dyn LockManager>) -> Arc<Cache> {
    let cache = Cache::new(Arc::clone(dev), bs, limit);
    if manager.is_shared() {
        let manager = Arc::clone(manager);
        cache.health().ask_before_writing(Box::new(move || manager.is_trusted()));
    }
    cache
}

/// System files whose locks are kept while the volume is open: the journals' (nobody is to change where they lie, and recovery
/// waits for no lock), our own counters'.
fn kept(places: &[JournalPlace], options: &OpenOptions) -> Vec<BlockAddr> {
    let own = places.iter().filter(|place| place.jid == options.jid && !options.spectator);
    places.iter().map(|place| place.inode).chain(own.flat_map(|own| [own.statfs_change, own.quota_change])).collect()
}

/// What the loss of a lock means beyond the inode itself.
fn watch_locks(fs: &Arc<Fs>, rindex: BlockAddr) {
    let vol = fs.volume();
    let weak = Arc::downgrade(&vol.rgrps);
    let lost = move |name| {
        if name == LockName::inode(rindex)
            && let Some(rgrps) = weak.upgrade()
        {
            rgrps.set_index_stale();
        }
    };
    if vol.lost.set(Box::new(lost)).is_err() {
        tracing::error!("the locks of a volume are watched once");
    }
    let weak = Arc::downgrade(fs);
    vol.rgrps.set_rereader(Box::new(move || weak.upgrade().map_or(Ok(()), |fs| fs.reread_rindex(rindex))));
    if vol.inodes.is_shared() {
        // It was read under a lock that is given back now.
        vol.rgrps.set_index_stale();
    }
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

/// Finds the system files (ondisk.md 2.6, 7).
fn system_files(cache: &Arc<Cache>, locks: &Locks, id: &Identity, options: &OpenOptions) -> Result<SystemFiles> {
    let boot = Bootstrap { cache, locks };
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
        let own = n == options.jid.0 && !options.spectator;
        let file = |name: &str, what| {
            let addr = boot.must_find_entry(&per_node, format!("{name}{n}").as_bytes(), what)?;
            if own {
                locks.hold(addr, LockState::Exclusive)?;
            }
            // Another node holds those of its own for good.
            if own || !locks.is_shared() { boot.open(addr).map(|file| (addr, Some(file))) } else { Ok((addr, None)) }
        };
        let (statfs_change, _) = file("statfs_change", "a journal without its statfs_change file")?;
        let (changes, opened) = file("quota_change", "a journal without its quota_change file")?;
        if let Some(opened) = opened.filter(|_| n == options.jid.0 && options.quota != QuotaMode::Off) {
            quota_change = Some(boot.all_blocks(&opened)?);
        }
        journals.push(JournalPlace {
            jid: Jid(n),
            extents: boot.journal_extents(&journal)?,
            inode: journal.addr,
            statfs_change,
            quota_change: changes,
            master_statfs: statfs.addr,
        });
    }
    if journals.is_empty() {
        return Err(Error::corrupt(sb, CorruptKind::SystemFile("no journals")));
    }
    Ok(SystemFiles { journals, rindex, statfs, quota_change, quota })
}

/// What a volume is put together from.
struct Parts<'p> {
    id: &'p Identity,
    scout: &'p Arc<Cache>,
    cache: Arc<Cache>,
    journal: Arc<Journal>,
    clock: Arc<dyn Clock>,
    manager: Arc<dyn LockManager>,
    kept: Vec<BlockAddr>,
}

fn assemble(
    parts: Parts<'_>,
    options: &OpenOptions,
    system: SystemFiles,
    extents: Vec<crate::format::rgrp::RgrpExtent>,
    njournals: u32,
) -> Result<Arc<Fs>> {
    let Parts { id, scout, cache, journal, clock, manager, kept } = parts;
    let read_only = options.read_only || options.spectator;
    let own =
        system.journals.iter().find(|j| j.jid == options.jid).or(system.journals.first()).ok_or(Error::Invalid)?;
    let dinode = |cache: &Arc<Cache>, addr| cache.meta(addr, LockName::inode(addr), MetaType::Dinode);
    let master = dinode(scout, system.statfs.addr)?;
    let alone = !manager.is_shared();
    let local = dinode(if alone || !options.spectator { &cache } else { scout }, own.statfs_change)?;
    let statfs = Statfs::load(master, local, Arc::clone(&journal))?;
    if options.spectator && !alone {
        statfs.forget_local();
    }
    let quota = match system.quota_change {
        Some(blocks) if !read_only => {
            let owner = LockName::inode(own.quota_change);
            let blocks =
                blocks.into_iter().map(|b| cache.meta(b, owner, MetaType::QuotaChange)).collect::<Result<Vec<_>>>()?;
            Some(Quota::load(options.quota, system.quota, blocks, Arc::clone(&manager))?)
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
        inodes: GlockTable::new(Arc::clone(&manager), options.cached_inodes),
        bare: GlockTable::new(manager, options.cached_inodes),
        users: OnceLock::new(),
        lost: OnceLock::new(),
        ahead: crate::inode::Ahead::default(),
        kept,
    });
    vol.inodes.set_context(&vol);
    vol.bare.set_context(&vol);
    let fs = Fs::new(vol, statfs, quota);
    let weak = Arc::downgrade(&fs);
    let reclaim = move |index| weak.upgrade().is_some_and(|fs: Arc<Fs>| fs.reclaim_rgrp(index));
    fs.volume().rgrps.set_reclaimer(Box::new(reclaim));
    Ok(fs)
}
