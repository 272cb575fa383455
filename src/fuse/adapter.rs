//! The transport built on the fuser crate: decodes, dispatches, encodes. Nothing else knows fuser.

use super::dispatch::Dispatcher;
use super::errno::errno;
use super::service::{Opened, Service};
use crate::clock::Timestamp;
use crate::device::AlignedBuf;
use crate::error::{Error, Result};
use crate::format::DirentType;
use crate::sync::DashMap;
use crate::fs::{Attr, Caller, DirItem, NewInode, OpenHow, SetAttr, SetTime};
use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, IoctlFlags, KernelConfig, LockOwner, Notifier, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::OFlags;
use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Largest request the kernel sends or asks for.
pub(super) const MAX_IO: u32 = 1 << 20;

thread_local! {
    /// Memory for the answers to reads, one for each thread that answers.
    static READ_BUFFER: RefCell<AlignedBuf> = RefCell::new(AlignedBuf::zeroed(MAX_IO as usize));
}

/// Implements fuser's trait on a [`Service`].
pub(super) struct Adapter {
    pub(super) service: Arc<Service>,
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) kernel: Arc<Kernel>,
}

/// What we tell the kernel unasked, and what we must know for it.
#[derive(Default)]
pub(super) struct Kernel {
    /// Set when the session stands.
    notifier: OnceLock<Notifier>,
    /// Nodes open for writing, and how often.
    writers: DashMap<u64, u32>,
}

impl Kernel {
    /// The session's voice.
    pub(super) fn set_notifier(&self, notifier: Notifier) {
        // Only one session ever calls this; a second voice would be the same one.
        let _ = self.notifier.set(notifier);
    }

    fn opened(&self, node: u64, write: bool) {
        if write {
            *self.writers.entry(node).or_insert(0) += 1;
        }
    }

    fn released(&self, node: u64, write: bool) {
        if write {
            let mut left = 0;
            self.writers.alter(&node, |_, n| {
                left = n.saturating_sub(1);
                left
            });
            if left == 0 {
                self.writers.remove_if(&node, |_, n| *n == 0);
            }
        }
    }

    /// The kernel asks for attributes again.
    fn attributes_changed(&self, node: u64) {
        self.invalidate(node, -1);
    }

    /// The kernel writes what it has collected of a file, and has done so when this returns. Waits for other requests.
    fn collect_writes(&self, node: u64) {
        self.invalidate(node, 0);
    }

    fn invalidate(&self, node: u64, offset: i64) {
        let Some(notifier) = self.notifier.get() else { return };
        if let Err(e) = notifier.inval_inode(INodeNo(node), offset, 0) {
            tracing::debug!(node, "the kernel keeps what it has: {e}");
        }
    }
}

impl Adapter {
    fn serve<T, R: Send + 'static>(
        &self,
        reply: R,
        op: impl Fn(&Service) -> Result<T> + Send + 'static,
        answer: impl FnOnce(&Service, R, Result<T>) + Send + 'static,
    ) {
        let service = Arc::clone(&self.service);
        let for_answer = Arc::clone(&self.service);
        self.dispatcher.run(reply, move || op(&service), move |reply, result| answer(&for_answer, reply, result));
    }

    fn serve_entry(&self, reply: ReplyEntry, op: impl Fn(&Service) -> Result<Attr> + Send + 'static) {
        self.serve(reply, op, |service, reply, result| match result {
            Ok(attr) => send_entry(service, reply, &attr),
            Err(e) => reply.error(fuse_errno(&e)),
        });
    }

    fn serve_empty(&self, reply: ReplyEmpty, op: impl Fn(&Service) -> Result<()> + Send + 'static) {
        self.serve(reply, op, |_, reply, result| match result {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(fuse_errno(&e)),
        });
    }
}

fn fuse_errno(error: &Error) -> Errno {
    Errno::from_i32(errno(error))
}

fn caller(req: &Request) -> Caller {
    Caller { uid: req.uid(), gid: req.gid(), umask: 0 }
}

/// Whether a waiting program has this supplementary group; a program we cannot see has none.
fn has_group(pid: u32, gid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    groups.split_whitespace().any(|g| g.parse() == Ok(gid))
}

fn owned(name: &OsStr) -> Box<[u8]> {
    name.as_bytes().into()
}

fn send_entry(service: &Service, reply: ReplyEntry, attr: &Attr) {
    let policy = &service.policy;
    let generation = Generation(attr.inum.formal.0);
    reply.entry_with_ttls(&policy.attr_ttl, &policy.name_ttl, &file_attr(service, attr, true), generation);
}

/// `as_node`: the number is the kernel's name for the inode (1 for the root), not what stat(2) shows.
fn file_attr(service: &Service, attr: &Attr, as_node: bool) -> FileAttr {
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
fn encode_dev((major, minor): (u32, u32)) -> u32 {
    minor & 0xff | (major & 0xfff) << 8 | (minor & 0xf_ff00) << 12
}

fn decode_dev(dev: u32) -> (u32, u32) {
    ((dev >> 8) & 0xfff, dev & 0xff | (dev >> 12) & 0xf_ff00)
}

fn file_type(kind: DirentType) -> FileType {
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

fn system_time(t: Timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(u64::from(t.nsec));
    let seconds = Duration::from_secs(t.sec.unsigned_abs());
    let whole = if t.sec < 0 { UNIX_EPOCH.checked_sub(seconds) } else { UNIX_EPOCH.checked_add(seconds) };
    // A time this far off is nonsense on the disk: show the epoch rather than fail the whole answer.
    whole.and_then(|w| w.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
}

/// A time of a request. fuser takes both seconds and nanoseconds of a time before 1970 away from the epoch, where the kernel
/// counts nanoseconds forwards; that is undone here. (Its way back is right.)
fn timestamp(t: SystemTime) -> Timestamp {
    match t.duration_since(UNIX_EPOCH) {
        Ok(d) => Timestamp { sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nsec: d.subsec_nanos() },
        Err(before) => {
            let d = before.duration();
            Timestamp { sec: -i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nsec: d.subsec_nanos() }
        }
    }
}

fn set_time(t: TimeOrNow) -> SetTime {
    match t {
        TimeOrNow::SpecificTime(at) => SetTime::At(timestamp(at)),
        TimeOrNow::Now => SetTime::Now,
    }
}

fn open_how(flags: i32) -> OpenHow {
    let flags = OFlags::from_bits_retain(flags.cast_unsigned());
    OpenHow {
        write: flags.intersects(OFlags::WRONLY | OFlags::RDWR),
        append: flags.contains(OFlags::APPEND),
        truncate: flags.contains(OFlags::TRUNC),
    }
}

/// O_NOATIME: a reading that leaves no trace.
fn no_atime(flags: i32) -> bool {
    OFlags::from_bits_retain(flags.cast_unsigned()).contains(OFlags::NOATIME)
}

fn fopen_flags(opened: Opened) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    if opened.direct {
        flags |= FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
    }
    if opened.keep_cache {
        flags |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    flags
}

fn send_xattr(reply: ReplyXattr, size: u32, result: Result<Vec<u8>>) {
    match result {
        Ok(value) if size == 0 => reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX)),
        Ok(value) if value.len() <= size as usize => reply.data(&value),
        Ok(_) => reply.error(fuse_errno(&Error::OutOfRange)),
        Err(e) => reply.error(fuse_errno(&e)),
    }
}

/// Runs `op` on this thread's read buffer and answers with what it put there.
fn answer_read(service: &Service, reply: ReplyData, (node, offset, size, quietly): (u64, u64, u32, bool)) {
    READ_BUFFER.with_borrow_mut(|buf| {
        let len = buf.len().min(size as usize);
        match service.read(node, offset, &mut buf[..len], quietly) {
            Ok(n) => reply.data(&buf[..n]),
            Err(e) => reply.error(fuse_errno(&e)),
        }
    });
}

/// A listing under way: the reply being filled.
trait Listing: Send + 'static {
    const PLUS: bool;
    /// Adds an entry; false when it does not fit.
    fn push(&mut self, service: &Service, item: &DirItem<'_>) -> bool;
    fn done(self);
    fn failed(self, error: &Error);
}

impl Listing for ReplyDirectory {
    const PLUS: bool = false;
    fn push(&mut self, service: &Service, item: &DirItem<'_>) -> bool {
        let ino = INodeNo(service.node(item.entry.inum.addr));
        !self.add(ino, item.next, file_type(item.entry.kind), OsStr::from_bytes(item.name))
    }
    fn done(self) {
        self.ok();
    }
    fn failed(self, error: &Error) {
        self.error(fuse_errno(error));
    }
}

impl Listing for ReplyDirectoryPlus {
    const PLUS: bool = true;
    fn push(&mut self, service: &Service, item: &DirItem<'_>) -> bool {
        let name = OsStr::from_bytes(item.name);
        match &item.attr {
            Some(attr) => {
                let (a, generation) = (file_attr(service, attr, true), Generation(attr.inum.formal.0));
                !self.add(a.ino, item.next, name, &service.policy.attr_ttl, &a, generation)
            }
            // Node 0: a name without a reference, as for `.` and `..`.
            None => {
                let a = nameless(service, item);
                !self.add(INodeNo(0), item.next, name, &Duration::ZERO, &a, Generation(0))
            }
        }
    }
    fn done(self) {
        self.ok();
    }
    fn failed(self, error: &Error) {
        self.error(fuse_errno(error));
    }
}

/// Attributes for an entry of which only number and type are shown.
fn nameless(service: &Service, item: &DirItem<'_>) -> FileAttr {
    let zero = UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(service.node(item.entry.inum.addr)),
        size: 0,
        blocks: 0,
        atime: zero,
        mtime: zero,
        ctime: zero,
        crtime: zero,
        kind: file_type(item.entry.kind),
        perm: 0,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

impl Adapter {
    /// A listing is answered with what was taken before it had to wait; the kernel asks for the rest.
    fn serve_list<L: Listing>(&self, node: u64, from: u64, mut reply: L) {
        let mut taken = 0;
        let service = &self.service;
        let result = self.dispatcher.here(|| {
            if taken > 0 {
                return Ok(());
            }
            service.list(node, from, L::PLUS, &mut |item| {
                let fits = reply.push(service, &item);
                taken += usize::from(fits);
                fits
            })
        });
        match result {
            Some(Err(e)) if taken == 0 => reply.failed(&e),
            Some(_) => reply.done(),
            None if taken > 0 => reply.done(),
            None => {
                let service = Arc::clone(&self.service);
                self.dispatcher.later(move || {
                    let mut taken = 0;
                    let result = service.list(node, from, L::PLUS, &mut |item| {
                        let fits = reply.push(&service, &item);
                        taken += usize::from(fits);
                        fits
                    });
                    match result {
                        Err(e) if taken == 0 => reply.failed(&e),
                        _ => reply.done(),
                    }
                });
            }
        }
    }

    fn serve_make(&self, req: &Request, umask: u32, parent: INodeNo, name: &OsStr, what: Made, reply: ReplyEntry) {
        let (who, name) = (Caller { umask, ..caller(req) }, owned(name));
        self.serve_entry(reply, move |s| s.make(&who, parent.0, &name, &what.as_new()));
    }
}

/// A [`NewInode`] that owns what it needs.
enum Made {
    Dir(u32),
    Symlink(Box<[u8]>),
    Node(u32, u32),
}

impl Made {
    fn as_new(&self) -> NewInode<'_> {
        match self {
            Self::Dir(mode) => NewInode::Dir(*mode),
            Self::Symlink(target) => NewInode::Symlink(target),
            Self::Node(mode, rdev) => NewInode::Node(*mode, decode_dev(*rdev)),
        }
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let policy = &self.service.policy;
        let mut wanted = InitFlags::FUSE_ASYNC_READ
            | InitFlags::FUSE_BIG_WRITES
            | InitFlags::FUSE_MAX_PAGES
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_ASYNC_DIO
            | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
            | InitFlags::FUSE_EXPLICIT_INVAL_DATA
            | InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_DONT_MASK
            | InitFlags::FUSE_HAS_IOCTL_DIR
            | InitFlags::FUSE_HAS_EXPIRE_ONLY
            | InitFlags::FUSE_CACHE_SYMLINKS
            | InitFlags::from_bits_retain(HANDLE_KILLPRIV_V2);
        if self.service.fs.volume().options.acl {
            wanted |= InitFlags::FUSE_POSIX_ACL;
        }
        if policy.writeback_cache {
            wanted |= InitFlags::FUSE_WRITEBACK_CACHE;
        }
        if policy.readdirplus {
            wanted |= InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_READDIRPLUS_AUTO;
        }
        if policy.locks {
            wanted |= InitFlags::FUSE_POSIX_LOCKS | InitFlags::FUSE_FLOCK_LOCKS;
        }
        if let Err(missing) = config.add_capabilities(wanted) {
            tracing::debug!(?missing, "this kernel lacks some FUSE features");
            let present = wanted & config.capabilities();
            config.add_capabilities(present).map_err(|m| io::Error::other(format!("FUSE features {m:?}")))?;
        }
        // Each returns what was possible instead; anything the kernel gives will do.
        for refused in [config.set_max_write(MAX_IO).err(), config.set_max_readahead(MAX_IO).err()].into_iter().flatten() {
            tracing::debug!(refused, "the kernel limits request sizes");
        }
        for refused in [config.set_max_background(64).err(), config.set_congestion_threshold(48).err()].into_iter().flatten() {
            tracing::debug!(refused, "the kernel limits background requests");
        }
        if config.set_time_granularity(Duration::from_nanos(1)).is_err() {
            tracing::debug!("the kernel keeps coarser times");
        }
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = owned(name);
        self.serve(reply, move |s| s.lookup(parent.0, &name), |service, reply, result| match result {
            Ok(attr) => send_entry(service, reply, &attr),
            Err(Error::NotFound) if !service.policy.negative_ttl.is_zero() => {
                reply.entry(&service.policy.negative_ttl, &no_inode(), Generation(0));
            }
            Err(e) => reply.error(fuse_errno(&e)),
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        let service = Arc::clone(&self.service);
        let forget = move || {
            // There is nobody to tell: the inode stays an orphan and is deleted by the next mount.
            if let Err(e) = service.forget(ino.0, nlookup) {
                tracing::warn!(inode = ino.0, "deleting an unlinked inode failed: {e}");
            }
        };
        if self.service.forget_takes_long(ino.0, nlookup) { self.dispatcher.later(forget) } else { forget() }
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.serve(reply, move |s| s.getattr(ino.0), send_attr);
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let who = caller(req);
        let set = SetAttr {
            mode,
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            ctime: ctime.map(timestamp),
        };
        self.serve(reply, move |s| s.setattr(&who, ino.0, &set), send_attr);
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        self.serve(reply, move |s| s.readlink(ino.0), |_, reply, result| match result {
            Ok(target) => reply.data(&target),
            Err(e) => reply.error(fuse_errno(&e)),
        });
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        self.serve_make(req, umask, parent, name, Made::Node(mode, rdev), reply);
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.serve_make(req, umask, parent, name, Made::Dir(mode), reply);
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.serve_make(req, 0, parent, name, Made::Symlink(owned(target.as_os_str())), reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = owned(name);
        self.serve_empty(reply, move |s| s.unlink(parent.0, &name));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = owned(name);
        self.serve_empty(reply, move |s| s.rmdir(parent.0, &name));
    }

    fn rename(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (who, name, newname) = (caller(req), owned(name), owned(newname));
        self.serve_empty(reply, move |s| s.rename(&who, (parent.0, &name), (newparent.0, &newname), flags.bits()));
    }

    fn link(&self, req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        let (who, newname) = (caller(req), owned(newname));
        self.serve(reply, move |s| s.link(&who, ino.0, newparent.0, &newname), |service, reply, result| match result {
            Ok(attr) => {
                let policy = &service.policy;
                let (attr, generation) = (file_attr(service, &attr, true), Generation(attr.inum.formal.0));
                // The kernel takes the attributes of this answer without asking whether they are stale (fuse.md A3).
                let ttl = if policy.writeback_cache { policy.attr_ttl } else { Duration::ZERO };
                reply.entry_with_ttls(&ttl, &policy.name_ttl, &attr, generation);
            }
            Err(e) => reply.error(fuse_errno(&e)),
        });
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (who, how, kernel) = (caller(req), open_how(flags.0), Arc::clone(&self.kernel));
        let quietly = no_atime(flags.0);
        self.serve(reply, move |s| s.open(&who, ino.0, how, quietly), move |_, reply, result| match result {
            Ok(opened) => {
                kernel.opened(ino.0, how.write);
                if opened.touched {
                    kernel.attributes_changed(ino.0);
                }
                reply.opened(FileHandle(0), fopen_flags(opened));
            }
            Err(e) => reply.error(fuse_errno(&e)),
        });
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.kernel.released(ino.0, open_how(flags.0).write);
        reply.ok();
    }

    fn create(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, flags: i32, reply: ReplyCreate) {
        let (who, name) = (Caller { umask, ..caller(req) }, owned(name));
        let make = move |s: &Service| s.make(&who, parent.0, &name, &NewInode::File(mode));
        let kernel = Arc::clone(&self.kernel);
        self.serve(reply, make, move |service, reply, result| match result {
            Ok(attr) => {
                let (a, generation) = (file_attr(service, &attr, true), Generation(attr.inum.formal.0));
                let opened = service.opened(open_how(flags).write, false);
                kernel.opened(a.ino.0, open_how(flags).write);
                reply.created(&service.policy.name_ttl, &a, generation, FileHandle(0), fopen_flags(opened));
            }
            Err(e) => reply.error(fuse_errno(&e)),
        });
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let quietly = no_atime(flags.0);
        let what = (ino.0, offset, size, quietly);
        let service = &self.service;
        let mut reply = Some(reply);
        let done = READ_BUFFER.with_borrow_mut(|buf| {
            let len = buf.len().min(size as usize);
            let result = self.dispatcher.here(|| service.read(ino.0, offset, &mut buf[..len], quietly))?;
            if let Some(reply) = reply.take() {
                match result {
                    Ok(n) => reply.data(&buf[..n]),
                    Err(e) => reply.error(fuse_errno(&e)),
                }
            }
            Some(())
        });
        if let (None, Some(reply)) = (done, reply) {
            let service = Arc::clone(service);
            self.dispatcher.later(move || answer_read(&service, reply, what));
        }
    }

    fn write(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let who = caller(req);
        let kill = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let at_end = open_how(flags.0).append && !write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let send = |reply: ReplyWrite, result: Result<usize>| match result {
            Ok(n) => reply.written(u32::try_from(n).unwrap_or(u32::MAX)),
            Err(e) => reply.error(fuse_errno(&e)),
        };
        match self.dispatcher.here(|| self.service.write(&who, ino.0, offset, data, kill, at_end)) {
            Some(result) => send(reply, result),
            None => {
                let (service, data) = (Arc::clone(&self.service), data.to_vec());
                self.dispatcher.later(move || {
                    let result = service.write(&who, ino.0, offset, &data, kill, at_end);
                    send(reply, result);
                });
            }
        }
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        // Closing promises nothing about the disk. Saying "not implemented" once makes the kernel stop asking; where locks
        // come to us it must go on asking.
        if self.service.policy.locks { reply.ok() } else { reply.error(Errno::ENOSYS) }
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.serve_empty(reply, move |s| s.fsync(ino.0));
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        self.serve_empty(reply, move |s| s.fsync(ino.0));
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectory) {
        self.serve_list(ino.0, offset, reply);
    }

    fn readdirplus(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, reply: ReplyDirectoryPlus) {
        self.serve_list(ino.0, offset, reply);
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let space = self.service.fs.space();
        let bs = space.block_size;
        reply.statfs(space.total, space.free, space.free, space.inodes, space.free, bs, 255, bs);
    }

    fn setxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, value: &[u8], flags: i32, _position: u32, reply: ReplyEmpty) {
        let (who, pid) = (caller(req), req.pid());
        let (name, value) = (owned(name), Box::<[u8]>::from(value));
        let in_group = move |gid| has_group(pid, gid);
        self.serve_empty(reply, move |s| s.setxattr(&who, ino.0, (&name, &value), flags, &in_group));
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = owned(name);
        self.serve(reply, move |s| s.getxattr(ino.0, &name), move |_, reply, result| send_xattr(reply, size, result));
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        self.serve(reply, move |s| s.listxattr(ino.0), move |_, reply, result| send_xattr(reply, size, result));
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = owned(name);
        self.serve_empty(reply, move |s| s.removexattr(ino.0, &name));
    }

    fn ioctl(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: IoctlFlags,
        cmd: u32,
        in_data: &[u8],
        out_size: u32,
        reply: ReplyIoctl,
    ) {
        let (who, input) = (caller(req), Box::<[u8]>::from(in_data));
        let op = move |s: &Service| s.ioctl(&who, ino.0, cmd, &input, out_size as usize);
        self.serve(reply, op, move |_, reply, result| match result {
            Ok(out) => reply.ioctl(0, &out),
            Err(Error::NotSupported) if !Service::knows_ioctl(cmd) => reply.error(Errno::ENOTTY),
            Err(e) => reply.error(fuse_errno(&e)),
        });
    }

    fn fallocate(&self, req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, length: u64, mode: i32, reply: ReplyEmpty) {
        let who = caller(req);
        self.serve_empty(reply, move |s| s.fallocate(&who, ino.0, offset, length, mode));
    }

    fn lseek(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let send = |reply: ReplyLseek, result: Result<u64>| match result {
            Ok(at) => reply.offset(i64::try_from(at).unwrap_or(i64::MAX)),
            Err(e) => reply.error(fuse_errno(&e)),
        };
        if !self.service.policy.writeback_cache || !self.kernel.writers.contains_key(&ino.0) {
            return self.serve(reply, move |s| s.seek(ino.0, offset, whence), move |_, reply, result| send(reply, result));
        }
        // The kernel asks us where data is while it still keeps some of it back: it would read as a hole, and cp would lose it.
        let (service, kernel) = (Arc::clone(&self.service), Arc::clone(&self.kernel));
        self.dispatcher.later(move || {
            kernel.collect_writes(ino.0);
            send(reply, service.seek(ino.0, offset, whence));
        });
    }
}

/// FUSE_HANDLE_KILLPRIV_V2: without it every write first asks for `security.capability`.
const HANDLE_KILLPRIV_V2: u64 = 1 << 28;

fn send_attr(service: &Service, reply: ReplyAttr, result: Result<Attr>) {
    match result {
        Ok(attr) => reply.attr(&service.policy.attr_ttl, &file_attr(service, &attr, false)),
        Err(e) => reply.error(fuse_errno(&e)),
    }
}

/// The answer "there is no such name, and you may remember that": an entry with node 0.
fn no_inode() -> FileAttr {
    let zero = UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: zero,
        mtime: zero,
        ctime: zero,
        crtime: zero,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
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
