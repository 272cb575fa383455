//! Adding journals: one for each node more that shall mount at the same time (ondisk.md 11.2).
//!
//! A journal is four files: inum_range, statfs_change and quota_change in per_node, and last the journal itself in jindex; a node
//! that mounts counts the journals by their names. What takes more than one transaction to make has a name of its own until it is
//! whole, then it gets the right one. What a crash leaves of that name, or of files in per_node without their journal, is removed
//! the next time.
//!
//! Both directories are locked meanwhile: nobody else adds journals, and who mounts waits.

mod make;

use super::fresh::{CleanLog, journal_cost};
use super::system;
use crate::clock::Clock;
use crate::dir;
use crate::error::{Error, Result};
use crate::format::header::MetaType;
use crate::format::system::InumRange;
use crate::format::{MetaHeader, StatfsChange};
use crate::fs::Fs;
use crate::ids::BlockAddr;
use crate::inode::{Inode, InodeExclusive, Volume};
use std::fmt;

/// Most journals that a volume may have: what the engine looks for when it mounts.
const JOURNALS_MAX: u32 = 1 << 16;

/// What is wished.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// How many journals.
    pub count: u32,
    /// MiB in each, 8 to 1024 (the stock tool takes 32 and more).
    pub journal_mib: u32,
    /// MiB in each quota_change file, 1 to 64.
    pub quota_change_mib: u32,
    /// Decides where the sequence numbers of the new logs start: something that is not the same every time.
    pub seed: u64,
}

impl Default for Request {
    fn default() -> Self {
        Self { count: 1, journal_mib: 128, quota_change_mib: 1, seed: 0 }
    }
}

impl Request {
    /// The usual one, with a seed of this moment.
    pub fn of_now(clock: &dyn Clock) -> Self {
        let now = clock.now();
        Self { seed: now.sec.cast_unsigned() << 30 ^ u64::from(now.nsec), ..Self::default() }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Added {
    /// Journals before.
    pub old: u32,
    /// Journals now.
    pub new: u32,
}

/// Why there are no more journals.
#[derive(Debug)]
pub enum JaddError {
    /// They do not fit: blocks for each, blocks for all, free blocks.
    NoRoom {
        /// What was asked for.
        request: Request,
        /// Blocks for each.
        each: u64,
        /// Free blocks.
        free: u64,
    },
    /// A number that makes no sense.
    Wrong(&'static str),
    /// The volume says no.
    Volume(Error),
}

impl From<Error> for JaddError {
    fn from(e: Error) -> Self {
        Self::Volume(e)
    }
}

impl fmt::Display for JaddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRoom { request: Request { count, journal_mib, quota_change_mib, .. }, each, free } => write!(
                f,
                "Insufficient space on the device to add {count} {journal_mib}MB journals ({quota_change_mib}MB QC size): {} \
                 blocks needed, {free} free",
                each.saturating_mul(u64::from(*count))
            ),
            Self::Wrong(what) => f.write_str(what),
            Self::Volume(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for JaddError {}

/// The name of what is being made.
const UNFINISHED: &[u8] = b"new_inode";

impl Request {
    fn check(&self) -> Result<(), JaddError> {
        match self {
            Self { count: 0, .. } => Err(JaddError::Wrong("no journals specified")),
            Self { journal_mib, .. } if !(8..=1024).contains(journal_mib) => Err(JaddError::Wrong("bad journal size")),
            Self { quota_change_mib, .. } if !(1..=64).contains(quota_change_mib) => {
                Err(JaddError::Wrong("bad quota change size"))
            }
            _ => Ok(()),
        }
    }
}

/// Adds journals to an open volume. All are durable when this returns without error; after an error some may have been added.
pub fn jadd(fs: &Fs, request: &Request) -> Result<Added, JaddError> {
    request.check()?;
    fs.may_change()?;
    // So that the free blocks are those of the whole cluster.
    fs.sync_counters()?;
    let vol = fs.volume();
    let mut work = Work::begin(vol, request)?;
    let old = work.count()?;
    if old.checked_add(request.count).is_none_or(|all| all > JOURNALS_MAX) {
        return Err(JaddError::Wrong("no volume has so many journals"));
    }
    let (each, free) = (journal_cost(vol.bs, request.journal_mib, request.quota_change_mib), fs.space().free);
    let no_room = || JaddError::NoRoom { request: *request, each, free };
    if each.saturating_mul(u64::from(request.count)) > free {
        return Err(no_room());
    }
    vol.journal.watch(work.clean_up(old))?;
    for n in old..old + request.count {
        match vol.journal.watch(work.add(n)) {
            Ok(()) => {}
            Err(Error::NoSpace) => {
                vol.journal.watch(work.clean_up(n))?;
                return Err(no_room());
            }
            Err(e) => return Err(e.into()),
        }
    }
    drop(work);
    vol.journal.watch(vol.journal.sync())?;
    Ok(Added { old, new: old + request.count })
}

/// How many journals there are.
pub fn count(fs: &Fs) -> Result<u32> {
    let vol = fs.volume();
    let jindex = vol.shared(system::find(vol, "jindex")?)?;
    count_in(vol, &jindex)
}

fn count_in(vol: &Volume, jindex: &Inode) -> Result<u32> {
    for n in 0..JOURNALS_MAX {
        if dir::lookup(vol, jindex, format!("journal{n}").as_bytes())?.is_none() {
            return Ok(n);
        }
    }
    Ok(JOURNALS_MAX)
}

/// The two directories, held.
struct Work<'v> {
    vol: &'v Volume,
    request: &'v Request,
    per_node: InodeExclusive,
    jindex: InodeExclusive,
}

impl<'v> Work<'v> {
    fn begin(vol: &'v Volume, request: &'v Request) -> Result<Self> {
        let wanted = [system::find(vol, "per_node")?, system::find(vol, "jindex")?];
        let mut held = vol.exclusive_many(&wanted)?.into_iter();
        // The same twice is no volume of ours.
        match (held.next().flatten(), held.next().flatten()) {
            (Some(per_node), Some(jindex)) => Ok(Self { vol, request, per_node, jindex }),
            _ => Err(Error::Invalid),
        }
    }

    fn count(&self) -> Result<u32> {
        count_in(self.vol, &self.jindex)
    }

    /// Removes what there is of journal `n`, which is not there itself.
    fn clean_up(&mut self, n: u32) -> Result<()> {
        let vol = self.vol;
        make::remove(vol, &mut self.jindex, UNFINISHED)?;
        make::remove(vol, &mut self.per_node, UNFINISHED)?;
        for name in names(n) {
            make::remove(vol, &mut self.per_node, name.as_bytes())?;
        }
        Ok(())
    }

    /// Journal `n` and what belongs to it.
    fn add(&mut self, n: u32) -> Result<()> {
        let (vol, bs) = (self.vol, self.vol.bs);
        let [range, statfs, quota] = names(n);
        make::small(vol, &mut self.per_node, range.as_bytes(), &[0; size_of::<InumRange>()])?;
        make::small(vol, &mut self.per_node, statfs.as_bytes(), &[0; size_of::<StatfsChange>()])?;
        let bytes = u64::from(self.request.quota_change_mib) << 20;
        let empty =
            |_: BlockAddr| |_: u64, _: BlockAddr, block: &mut [u8]| MetaHeader::init(block, MetaType::QuotaChange);
        make::large(vol, &mut self.per_node, (UNFINISHED, quota.as_bytes()), bytes, &empty)?;
        let bytes = u64::from(self.request.journal_mib) << 20;
        let (blocks, start) = (bs.blocks_for(bytes), scatter(self.request.seed, n));
        let log = |inode| {
            let log = CleanLog::new(bs, blocks, start, inode);
            move |n: u64, addr: BlockAddr, block: &mut [u8]| log.fill(n, addr, block)
        };
        make::large(vol, &mut self.jindex, (UNFINISHED, format!("journal{n}").as_bytes()), bytes, &log)
    }
}

/// The names in per_node of what belongs to journal `n`.
fn names(n: u32) -> [String; 3] {
    ["inum_range", "statfs_change", "quota_change"].map(|what| format!("{what}{n}"))
}

/// splitmix64 of the seed and the journal.
fn scatter(seed: u64, n: u32) -> u64 {
    let z = seed.wrapping_add((u64::from(n) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}
