//! The transport built on the fuser crate: decodes, dispatches, encodes. Nothing else knows fuser.

use super::convert::{
    Made, asker, caller, file_attr, file_handle, fopen_flags, fuse_errno, no_atime, no_inode, open_how, owned,
    send_attr, send_entry, set_time, timestamp,
};
use super::dispatch::Dispatcher;
use super::kernel::{Kernel, MAX_IO, WRITE_HANDLE};
use super::listing::Listing;
use super::negotiate::negotiate;
use super::service::{Service, WriteHow};
use crate::device::AlignedBuf;
use crate::error::{Error, Result};
use crate::fs::{Attr, Caller, NewInode, SetAttr};
use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, Generation, INodeNo, IoctlFlags, KernelConfig, LockOwner, OpenFlags,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

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

    fn serve_attr(&self, reply: ReplyAttr, node: u64, op: impl Fn(&Service) -> Result<Attr> + Send + 'static) {
        let kernel = Arc::clone(&self.kernel);
        self.serve(reply, op, move |service, reply, result| {
            send_attr(service, reply, kernel.attr_ttl(service, node), result);
        });
    }

    fn serve_empty(&self, reply: ReplyEmpty, op: impl Fn(&Service) -> Result<()> + Send + 'static) {
        self.serve(reply, op, |_, reply, result| match result {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(fuse_errno(&e)),
        });
    }
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

impl Filesystem for Adapter {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        negotiate(&self.service, config)
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = owned(name);
        self.serve(
            reply,
            move |s| s.lookup(parent.0, &name),
            |service, reply, result| match result {
                Ok(attr) => send_entry(service, reply, &attr),
                Err(Error::NotFound) if !service.policy.negative_ttl.is_zero() => {
                    reply.entry(&service.policy.negative_ttl, &no_inode(), Generation(0));
                }
                Err(e) => reply.error(fuse_errno(&e)),
            },
        );
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.dispatcher.forget(&self.service, ino.0, nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        if fh != Some(FileHandle(WRITE_HANDLE)) || !self.kernel.asks_before_write(ino.0) {
            return self.serve_attr(reply, ino.0, move |s| s.getattr(ino.0));
        }
        let (service, kernel) = (Arc::clone(&self.service), Arc::clone(&self.kernel));
        self.dispatcher.later(move || {
            let result = kernel.attr_before_write(&service, ino.0);
            send_attr(&service, reply, Duration::ZERO, result);
        });
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
        let who = asker(req);
        let set = SetAttr {
            mode,
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            ctime: ctime.map(timestamp),
        };
        self.serve_attr(reply, ino.0, move |s| s.setattr(&who, ino.0, &set));
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        self.serve(
            reply,
            move |s| s.readlink(ino.0),
            |_, reply, result| match result {
                Ok(target) => reply.data(&target),
                Err(e) => reply.error(fuse_errno(&e)),
            },
        );
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
        self.serve(
            reply,
            move |s| s.link(&who, ino.0, newparent.0, &newname),
            |service, reply, result| match result {
                Ok(attr) => {
                    let policy = &service.policy;
                    let (attr, generation) = (file_attr(service, &attr, true), Generation(attr.inum.formal.0));
                    reply.entry_with_ttls(&policy.link_ttl(), &policy.name_ttl, &attr, generation);
                }
                Err(e) => reply.error(fuse_errno(&e)),
            },
        );
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (who, how, kernel) = (asker(req), open_how(flags.0), Arc::clone(&self.kernel));
        let quietly = no_atime(flags.0);
        self.serve(
            reply,
            move |s| s.open(&who, ino.0, how, quietly),
            move |_, reply, result| match result {
                Ok(opened) => {
                    kernel.after_open(ino.0, how.write, opened.touched);
                    reply.opened(file_handle(how.write), fopen_flags(opened));
                }
                Err(e) => reply.error(fuse_errno(&e)),
            },
        );
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
        let (who, name) = (Caller { umask, ..caller(req) }, owned(name));
        let make = move |s: &Service| s.make(&who, parent.0, &name, &NewInode::File(mode));
        let kernel = Arc::clone(&self.kernel);
        self.serve(reply, make, move |service, reply, result| match result {
            Ok(attr) => {
                let (a, generation) = (file_attr(service, &attr, true), Generation(attr.inum.formal.0));
                let opened = service.opened(open_how(flags).write, false);
                kernel.opened(a.ino.0, open_how(flags).write);
                reply.created(
                    &kernel.attr_ttl(service, a.ino.0).min(service.policy.name_ttl),
                    &a,
                    generation,
                    file_handle(open_how(flags).write),
                    fopen_flags(opened),
                );
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
        let who = asker(req);
        let how = WriteHow {
            kill: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
            append: open_how(flags.0).append,
            cached: write_flags.contains(WriteFlags::FUSE_WRITE_CACHE),
        };
        let send = |reply: ReplyWrite, result: Result<usize>| match result {
            Ok(n) => reply.written(u32::try_from(n).unwrap_or(u32::MAX)),
            Err(e) => reply.error(fuse_errno(&e)),
        };
        match self.dispatcher.here(|| self.kernel.write(&self.service, &who, (ino.0, offset), data, how)) {
            Some(result) => send(reply, result),
            None => {
                let (service, kernel, data) = (Arc::clone(&self.service), Arc::clone(&self.kernel), data.to_vec());
                self.dispatcher.later(move || {
                    let result = kernel.write(&service, &who, (ino.0, offset), &data, how);
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
        let kernel = Arc::clone(&self.kernel);
        self.serve(
            reply,
            move |s| s.fsync(ino.0),
            move |_, reply: ReplyEmpty, result| {
                kernel.settled(ino.0);
                match result {
                    Ok(()) => reply.ok(),
                    Err(e) => reply.error(fuse_errno(&e)),
                }
            },
        );
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

    fn setxattr(
        &self,
        req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let who = asker(req);
        let (name, value) = (owned(name), Box::<[u8]>::from(value));
        self.serve_empty(reply, move |s| s.setxattr(&who, ino.0, (&name, &value), flags));
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

    fn fallocate(
        &self,
        req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let who = asker(req);
        self.serve_empty(reply, move |s| s.fallocate(&who, ino.0, offset, length, mode));
    }

    fn lseek(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, offset: i64, whence: i32, reply: ReplyLseek) {
        let send = |reply: ReplyLseek, result: Result<u64>| match result {
            Ok(at) => reply.offset(i64::try_from(at).unwrap_or(i64::MAX)),
            Err(e) => reply.error(fuse_errno(&e)),
        };
        if !self.kernel.keeps_data_back(&self.service, ino.0) {
            return self.serve(
                reply,
                move |s| s.seek(ino.0, offset, whence),
                move |_, reply, result| send(reply, result),
            );
        }
        // The kernel asks us where data is while it still keeps some of it back: it would read as a hole, and cp would lose it.
        let (service, kernel) = (Arc::clone(&self.service), Arc::clone(&self.kernel));
        self.dispatcher.later(move || {
            kernel.collect_writes(ino.0);
            send(reply, service.seek(ino.0, offset, whence));
        });
    }
}
