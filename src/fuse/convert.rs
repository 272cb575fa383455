//! Between the fuser crate's types and ours.

use super::asker::Asker;
use super::errno::errno;
use super::kernel::WRITE_HANDLE;
use super::service::{Opened, Service};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::format::DirentType;
use crate::fs::{Attr, Caller, DirItem, NewInode, OpenHow, SetTime};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyEntry, Request, TimeOrNow,
};
use rustix::fs::OFlags;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub(super) fn fuse_errno(error: &Error) -> Errno {
    Errno::from_i32(errno(error))
}

pub(super) fn caller(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid(), umask: 0 }
}

pub(super) fn asker(req: &Request) -> Asker {
    Asker { who: caller(req), pid: req.pid() }
}

pub(super) fn owned(name: &OsStr) -> Box<[u8]> {
    name.as_bytes().into()
}

pub(super) fn send_entry(service: &Service, reply: ReplyEntry, attr: &Attr) {
    let policy = &service.policy;
    let generation = Generation(attr.inum.formal.0);
    reply.entry_with_ttls(&policy.attr_ttl, &policy.name_ttl, &file_attr(service, attr, true), generation);
}

pub(super) fn send_attr(service: &Service, reply: ReplyAttr, ttl: Duration, result: Result<Attr>) {
    match result {
        Ok(attr) => reply.attr(&ttl, &file_attr(service, &attr, false)),
        Err(e) => reply.error(fuse_errno(&e)),
    }
}

/// `as_node`: the number is the kernel's name for the inode (1 for the root), not what stat(2) shows.
pub(super) fn file_attr(service: &Service, attr: &Attr, as_node: bool) -> FileAttr {
    let ino = if as_node { service.node(attr.inum.addr) } else { attr.inum.addr.get() };
    let ctime = system_time(attr.ctime);
    FileAttr {
        ino: INodeNo(ino),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.atime),
        mtime: system_time(attr.mtime),
        ctime,
        crtime: ctime,
        kind: file_type(attr.kind),
        perm: (attr.perm & 0o7777) as u16,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: encode_dev(attr.rdev),
        blksize: service.fs.space_unit(),
        flags: 0,
    }
}

/// A device number as FUSE carries it: 12 bits of major, 20 of minor.
pub(super) fn encode_dev((major, minor): (u32, u32)) -> u32 {
    minor & 0xff | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}

pub(super) fn decode_dev(dev: u32) -> (u32, u32) {
    ((dev >> 8) & 0xfff, dev & 0xff | (dev >> 12) & 0xf_ff00)
}

pub(super) fn file_type(kind: DirentType) -> FileType {
    match kind {
        DirentType::Fifo => FileType::NamedPipe,
        DirentType::Chr => FileType::CharDevice,
        DirentType::Dir => FileType::Directory,
        DirentType::Blk => FileType::BlockDevice,
        DirentType::Reg => FileType::RegularFile,
        DirentType::Lnk => FileType::Symlink,
        DirentType::Sock => FileType::Socket,
    }
}

pub(super) fn system_time(t: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(t.nsec));
    let seconds = Duration::from_secs(t.sec.unsigned_abs());
    let whole = if t.sec < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    // A time this far off is nonsense on the disk: show the epoch rather than fail the whole answer.
    whole.and_then(|w| w.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

/// A time of a request. fuser takes both seconds and nanoseconds of a time before 1970 away from the epoch, where the kernel
/// counts nanoseconds forwards; that is undone here. (Its way back is right.)
pub(super) fn timestamp(t: SystemTime) -> Timestamp {
    match t.duration_since(UNIX_EPOCH) {
        Ok(d) => Timestamp { sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nsec: d.subsec_nanos() },
        Err(before) => {
            let d = before.duration();
            Timestamp { sec: -i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nsec: d.subsec_nanos() }
        }
    }
}

pub(super) fn set_time(t: TimeOrNow) -> SetTime {
    match t {
        TimeOrNow::SpecificTime(at) => SetTime::At(timestamp(at)),
        TimeOrNow::Now => SetTime::Now,
    }
}

pub(super) fn open_how(flags: i32) -> OpenHow {
    let flags = OFlags::from_bits_retain(flags.cast_unsigned());
    OpenHow {
        write: flags.intersects(OFlags::WRONLY | OFlags::RDWR),
        append: flags.contains(OFlags::APPEND),
        truncate: flags.contains(OFlags::TRUNC),
    }
}

/// O_RDWR: a mapping may be made through which pages are changed.
pub(super) fn may_map(flags: i32) -> bool {
    OFlags::from_bits_retain(flags.cast_unsigned()).contains(OFlags::RDWR)
}

/// O_CREAT with O_EXCL: a file that is there already will not do.
pub(super) fn must_be_new(flags: i32) -> bool {
    OFlags::from_bits_retain(flags.cast_unsigned()).contains(OFlags::EXCL)
}

/// O_NOATIME: a reading that leaves no trace.
pub(super) fn no_atime(flags: i32) -> bool {
    OFlags::from_bits_retain(flags.cast_unsigned()).contains(OFlags::NOATIME)
}

pub(super) fn file_handle(write: bool) -> FileHandle {
    FileHandle(if write { WRITE_HANDLE } else { 0 })
}

pub(super) fn fopen_flags(opened: Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    if opened.direct {
        flags |= FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
    }
    if opened.keep_cache {
        flags |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    flags
}

/// Attributes for an entry of which only number and type are shown.
pub(super) fn nameless(service: &Service, item: &DirItem<'_>) -> FileAttr {
    bare(service.node(item.entry.inum.addr), file_type(item.entry.kind), 1)
}

/// A [`NewInode`] that owns what it needs.
pub(super) enum Made {
    Dir(u32),
    Symlink(Box<[u8]>),
    Node(u32, u32),
}

impl Made {
    pub(super) fn as_new(&self) -> NewInode<'_> {
        match self {
            Self::Dir(mode) => NewInode::Dir(*mode),
            Self::Symlink(target) => NewInode::Symlink(target),
            Self::Node(mode, rdev) => NewInode::Node(*mode, decode_dev(*rdev)),
        }
    }
}

/// The answer "there is no such name, and you may remember that": an entry with node 0.
pub(super) fn no_inode() -> FileAttr {
    bare(0, FileType::RegularFile, 0)
}

fn bare(ino: u64, kind: FileType, nlink: u32) -> FileAttr {
    let zero = UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(ino),
        size: 0,
        blocks: 0,
        atime: zero,
        mtime: zero,
        ctime: zero,
        crtime: zero,
        kind,
        perm: 0,
        nlink,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_and_times_survive() {
        for dev in [(0, 0), (8, 1), (259, 70000), (4095, 0xf_ffff)] {
            assert_eq!(decode_dev(encode_dev(dev)), dev);
        }
        for t in [(0, 0), (5, 999_999_999), (1 << 33, 1), (-5, 0)] {
            let t = Timestamp { sec: t.0, nsec: t.1 };
            assert_eq!(timestamp(system_time(t)), t);
        }
        // As fuser decodes -100 s and 250 ns.
        assert_eq!(timestamp(UNIX_EPOCH - Duration::new(100, 250)), Timestamp { sec: -100, nsec: 250 });
        assert_eq!(system_time(Timestamp { sec: -1, nsec: 999_999_999 }), UNIX_EPOCH - Duration::from_nanos(1));
    }
}
