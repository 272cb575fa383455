//! Serving the tree, as our daemon would.

use super::tree::{Body, Done, New, ROOT, Tree};
use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};
use gfs2r::device::AlignedBuf;
use gfs2r::fuse::Policy;
use rustix::mount::{MountFlags, UnmountFlags};
use std::cell::RefCell;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

/// As src/fuse/adapter.rs.
const MAX_IO: u32 = 1 << 20;

static POLICY: OnceLock<Policy> = OnceLock::new();

fn policy() -> &'static Policy {
    POLICY.get_or_init(Policy::single)
}

/// How a file is opened, by the policy.
fn opened(writes: bool) -> FopenFlags {
    if writes && policy().direct_writes {
        FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
    } else {
        FopenFlags::FOPEN_KEEP_CACHE
    }
}

thread_local! {
    static READ_BUFFER: RefCell<AlignedBuf> = RefCell::new(AlignedBuf::zeroed(MAX_IO as usize));
}

/// Mounts on `dir` at each line `mount` on standard input, answers `ok` on standard output, serves until unmounted and
/// answers `gone`. The tree lives as long as the process.
/// `shared`: as a mount that several nodes share.
pub(crate) fn serve(dir: &Path, shared: bool) -> io::Result<()> {
    POLICY.get_or_init(|| if shared { Policy::shared() } else { Policy::single() });
    let tree = Arc::new(Tree::new());
    for line in io::stdin().lock().lines() {
        if line?.trim() != "mount" {
            continue;
        }
        let session = mount(dir, Floor { tree: Arc::clone(&tree) })?;
        say("ok")?;
        session.run()?;
        tree.forget_all();
        say("gone")?;
    }
    Ok(())
}

fn say(word: &str) -> io::Result<()> {
    let mut out = io::stdout();
    writeln!(out, "{word}")?;
    out.flush()
}

/// As src/fuse/session.rs and src/mount/daemon.rs.
fn mount(dir: &Path, floor: Floor) -> io::Result<fuser::Session<Floor>> {
    let device = File::options().read(true).write(true).open("/dev/fuse")?;
    let data = format!(
        "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other,max_read={MAX_IO}",
        device.as_raw_fd()
    );
    let data = CString::new(data).map_err(|_| io::ErrorKind::InvalidInput)?;
    rustix::mount::mount(c"floor", dir, c"fuse.floor", MountFlags::empty(), &*data)?;
    let mut config = fuser::Config::default();
    config.n_threads = Some(policy().readers);
    fuser::Session::from_fd(floor, OwnedFd::from(device), fuser::SessionACL::All, config).inspect_err(|_| {
        // The first error is the one to tell of.
        let _ = rustix::mount::unmount(dir, UnmountFlags::DETACH);
    })
}

struct Floor {
    tree: Arc<Tree>,
}

fn entry(reply: ReplyEntry, made: Done<FileAttr>) {
    match made {
        Ok(attr) => reply.entry_with_ttls(&policy().attr_ttl, &policy().name_ttl, &attr, Generation(1)),
        Err(e) => reply.error(e),
    }
}

fn empty(reply: ReplyEmpty, done: Done<()>) {
    match done {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(e),
    }
}

fn when(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

fn perm(mode: u32, umask: u32) -> u16 {
    (mode & 0o7777 & !umask) as u16
}

impl Floor {
    fn make(&self, req: &Request, parent: INodeNo, name: &OsStr, what: &New<'_>, perm: u16) -> Done<FileAttr> {
        self.tree.make(parent.0, name.as_bytes(), what, perm, (req.uid(), req.gid()))
    }

    /// Lists a directory; `push` is false when there is no more room.
    fn list(
        &self,
        ino: u64,
        offset: u64,
        mut push: impl FnMut(u64, u64, FileType, &OsStr, Option<&FileAttr>) -> bool,
        plus: bool,
    ) -> Done<()> {
        let node = self.tree.get(ino)?;
        let Body::Dir(dir) = &node.body else { return Err(Errno::ENOTDIR) };
        for (place, name) in [(1, "."), (2, "..")] {
            if offset < place && !push(place, ino, FileType::Directory, OsStr::new(name), None) {
                return Ok(());
            }
        }
        for (place, name, ino, kind) in dir.read().after(offset.saturating_sub(2)) {
            let attr = if plus { Some(self.tree.hold(ino)?) } else { None };
            if !push(place + 2, ino, kind, OsStr::from_bytes(name), attr.as_ref()) {
                if plus {
                    self.tree.forget(ino, 1);
                }
                break;
            }
        }
        Ok(())
    }
}

impl Filesystem for Floor {
    /// As src/fuse/kernel.rs.
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_ASYNC_READ
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
            | InitFlags::from_bits_retain(1 << 28)
            | InitFlags::FUSE_POSIX_ACL;
        let cached = InitFlags::FUSE_WRITEBACK_CACHE;
        let plus = InitFlags::FUSE_DO_READDIRPLUS | InitFlags::FUSE_READDIRPLUS_AUTO;
        let wanted = if policy().writeback_cache { wanted | cached } else { wanted };
        let wanted = if policy().readdirplus { wanted | plus } else { wanted };
        let present = wanted & config.capabilities();
        config.add_capabilities(present).map_err(|m| io::Error::other(format!("FUSE features {m:?}")))?;
        // Whatever the kernel gives instead, it gives our daemon as well.
        let _ = (config.set_max_write(MAX_IO), config.set_max_readahead(MAX_IO));
        let _ = (config.set_max_background(64), config.set_congestion_threshold(48));
        let _ = config.set_time_granularity(Duration::from_nanos(1));
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.tree.lookup(parent.0, name.as_bytes()) {
            Err(e) if e.code() == Errno::ENOENT.code() => {
                let none = FileAttr { ino: INodeNo(0), ..absent() };
                reply.entry(&policy().negative_ttl, &none, Generation(0));
            }
            found => entry(reply, found),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.tree.forget(ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.tree.get(ino.0) {
            Ok(node) => reply.attr(&policy().attr_ttl, &node.attr.lock()),
            Err(e) => reply.error(e),
        }
    }

    fn setattr(
        &self,
        _req: &Request,
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
        let node = match self.tree.get(ino.0) {
            Ok(node) => node,
            Err(e) => return reply.error(e),
        };
        if let (Some(size), Body::File(data)) = (size, &node.body) {
            data.write().truncate(size);
        }
        let mut attr = node.attr.lock();
        attr.perm = mode.map_or(attr.perm, |m| perm(m, 0));
        attr.uid = uid.unwrap_or(attr.uid);
        attr.gid = gid.unwrap_or(attr.gid);
        attr.size = size.unwrap_or(attr.size);
        attr.atime = atime.map_or(attr.atime, when);
        attr.mtime = mtime.map_or(attr.mtime, when);
        attr.ctime = ctime.unwrap_or_else(SystemTime::now);
        reply.attr(&policy().attr_ttl, &attr);
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        match self.tree.get(ino.0).as_deref() {
            Ok(super::tree::Node { body: Body::Link(to), .. }) => reply.data(to),
            _ => reply.error(Errno::EINVAL),
        }
    }

    fn mknod(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry) {
        let what = match mode & 0o170_000 {
            0o100_000 => New::File,
            0o010_000 => New::Special(FileType::NamedPipe, rdev),
            0o020_000 => New::Special(FileType::CharDevice, rdev),
            0o060_000 => New::Special(FileType::BlockDevice, rdev),
            _ => New::Special(FileType::Socket, rdev),
        };
        entry(reply, self.make(req, parent, name, &what, perm(mode, umask)));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        entry(reply, self.make(req, parent, name, &New::Dir, perm(mode, umask)));
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        entry(reply, self.make(req, parent, name, &New::Link(target.as_os_str().as_bytes()), 0o777));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.tree.unlink(parent.0, name.as_bytes()));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.tree.rmdir(parent.0, name.as_bytes()));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        empty(reply, self.tree.rename((parent.0, name.as_bytes()), (newparent.0, newname.as_bytes())));
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        entry(reply, self.tree.link(ino.0, newparent.0, newname.as_bytes()));
    }

    fn open(&self, _req: &Request, _ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), opened(flags.0 & 3 != 0));
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        match self.make(req, parent, name, &New::File, perm(mode, umask)) {
            Ok(attr) => {
                reply.created(&policy().name_ttl, &attr, Generation(1), FileHandle(0), opened(flags & 3 != 0));
            }
            Err(e) => reply.error(e),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        READ_BUFFER.with_borrow_mut(|buf| {
            let len = buf.len().min(size as usize);
            match self.tree.read(ino.0, offset, &mut buf[..len]) {
                Ok(n) => reply.data(&buf[..n]),
                Err(e) => reply.error(e),
            }
        });
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.tree.write(ino.0, offset, data) {
            Ok(()) => reply.written(data.len() as u32),
            Err(e) => reply.error(e),
        }
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _lock_owner: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fsync(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let push = |next, ino, kind, name: &OsStr, _: Option<&FileAttr>| !reply.add(INodeNo(ino), next, kind, name);
        match self.list(ino.0, offset, push, false) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e),
        }
    }

    fn readdirplus(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        let push = |next, _, _, name: &OsStr, attr: Option<&FileAttr>| match attr {
            Some(attr) => !reply.add(attr.ino, next, name, &policy().attr_ttl, attr, Generation(1)),
            None => !reply.add(INodeNo(0), next, name, &Duration::ZERO, &absent(), Generation(0)),
        };
        match self.list(ino.0, offset, push, true) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(e),
        }
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 24, 1 << 23, 1 << 23, 1 << 20, 1 << 20, 4096, 255, 4096);
    }

    fn getxattr(&self, _req: &Request, _ino: INodeNo, _name: &OsStr, _size: u32, reply: ReplyXattr) {
        reply.error(Errno::ENODATA);
    }
}

/// Attributes of a name without an inode.
fn absent() -> FileAttr {
    let zero = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(ROOT),
        size: 0,
        blocks: 0,
        atime: zero,
        mtime: zero,
        ctime: zero,
        crtime: zero,
        kind: FileType::Directory,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}
