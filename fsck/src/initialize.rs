//! What everything else stands on: superblock, master directory, journals, resource groups (ondisk.md 12.2).

use crate::disk::Disk;
use crate::issue::IssueKind;
use crate::journal::{self, Journal};
use crate::reader;
use crate::report::{CheckError, Findings, Journals};
use gfs2r::device::{AlignedBuf, BlockDevice};
use gfs2r::format::superblock::{FORMAT_MAX, FORMAT_MIN, MULTIHOST_FORMAT, SUPERBLOCK_OFFSET, SuperblockError};
use gfs2r::format::{MAGIC, MetaType, OnDisk, Superblock};
use gfs2r::ids::BlockSize;

/// Journals that are looked for; the lock value block of the control lock has room for 192, a single node for more.
const JOURNALS_MAX: u32 = 4096;

/// Reads the superblock. What prevents any work is an error, what does not is an issue.
pub(crate) fn superblock<'d>(
    device: &'d dyn BlockDevice,
    found: &mut Findings,
) -> Result<(Disk<'d>, Superblock), CheckError> {
    let refuse = CheckError::Superblock;
    let align = device.alignment().max(4096);
    if device.size() < SUPERBLOCK_OFFSET + align as u64 {
        return Err(refuse(SuperblockError::NotGfs2));
    }
    let mut buf = AlignedBuf::zeroed(align);
    // 64 KiB is a multiple of every alignment there is (512 to 4096).
    device.read(SUPERBLOCK_OFFSET, &mut buf).map_err(|error| CheckError::Io { block: 0, error })?;
    let sb = *Superblock::view(&buf);
    if sb.header.magic.get() != MAGIC || sb.header.kind.get() != MetaType::Superblock as u32 {
        return Err(refuse(SuperblockError::NotGfs2));
    }
    let (fs_format, multihost) = (sb.fs_format.get(), sb.multihost_format.get());
    if !(FORMAT_MIN..=FORMAT_MAX).contains(&fs_format) {
        return Err(refuse(SuperblockError::UnknownFormat(fs_format, multihost)));
    }
    let bs = BlockSize::new(sb.bsize.get()).ok_or(refuse(SuperblockError::BlockSize(sb.bsize.get())))?;
    if sb.master_dir.addr.get() == 0 || sb.root_dir.addr.get() == 0 {
        return Err(refuse(SuperblockError::NoRoot));
    }
    let at = SUPERBLOCK_OFFSET >> bs.shift();
    if multihost != MULTIHOST_FORMAT {
        found.add(at, None, IssueKind::SuperblockMultihost { found: multihost });
    }
    if sb.bsize_shift.get() != bs.shift() {
        found.add(at, None, IssueKind::SuperblockShift { found: sb.bsize_shift.get(), expected: bs.shift() });
    }
    let (format, expected) = (sb.header.format.get(), MetaType::Superblock.format());
    if format != expected {
        found.add(at, None, IssueKind::BlockFormat { found: format, expected });
    }
    if ![&b"lock_nolock"[..], b"lock_dlm", b"lock_gulm"].contains(&sb.lockproto()) {
        let proto = String::from_utf8_lossy(sb.lockproto()).into_owned();
        found.add(at, None, IssueKind::SuperblockLockproto { found: proto });
    }
    Ok((Disk::new(device, bs), sb))
}

/// The journals of a volume.
pub(crate) struct Found {
    pub(crate) journals: Vec<Journal>,
    /// False when one must be replayed and cannot be: what lies on the disk is not a state that anybody will see.
    pub(crate) usable: bool,
}

/// Finds all journals, looks at them, and lays dirty ones over the disk if asked. The journals' own faults are issues.
pub(crate) fn journals(
    disk: &mut Disk<'_>,
    found: &mut Findings,
    sb: &Superblock,
    mode: Journals,
) -> Result<Found, CheckError> {
    let (mut journals, mut usable) = (Vec::new(), true);
    let names = match journal_inodes(disk, sb) {
        Ok(names) => names,
        // The passes will say what is wrong with the master directory or jindex.
        Err(CheckError::Damaged { .. }) => Vec::new(),
        Err(other) => return Err(other),
    };
    for (jid, addr) in (0..).zip(names) {
        let inode = match reader::dinode(disk, addr) {
            Err(CheckError::Damaged { .. }) => continue,
            other => other?,
        };
        if let Some(journal) = journal::scan(disk, found, jid, addr, &inode)? {
            journals.push(journal);
        }
    }
    for at in 0..journals.len() {
        if !journals[at].is_dirty() {
            continue;
        }
        match mode {
            Journals::MustBeClean => {
                let (jid, inode) = (journals[at].jid, journals[at].inode);
                let (tail, head) = journals[at].head.map_or((0, 0), |head| (head.tail, head.at));
                found.add(None, inode, IssueKind::JournalDirty { jid, tail, head });
            }
            Journals::Overlay => {
                let (earlier, rest) = journals.split_at_mut(at);
                usable &= crate::replay::replay(disk, found, &mut rest[0], earlier)?;
            }
        }
    }
    Ok(Found { journals, usable })
}

/// The dinodes of journal0, journal1 … up to the first missing name.
fn journal_inodes(disk: &Disk<'_>, sb: &Superblock) -> Result<Vec<u64>, CheckError> {
    let master = reader::dinode(disk, sb.master_dir.addr.get())?;
    let Some(jindex) = reader::lookup(disk, &master, b"jindex")? else { return Ok(Vec::new()) };
    let entries = reader::entries(disk, &reader::dinode(disk, jindex.addr)?)?;
    let addr_of = |jid: u32| {
        let name = format!("journal{jid}");
        entries.iter().find(|e| e.name == name.as_bytes()).map(|e| e.addr)
    };
    Ok((0..JOURNALS_MAX).map_while(addr_of).collect())
}
