//! One request: decoded, run here or on the pool, answered.

use super::abi::{GETATTR_FH, IoctlOut, ReadIn, SetattrIn, fattr};
use super::channel::Channel;
use super::locks::Locks;
use super::reply::{Listing, Reply, absent, attr_out, entry_out};
use super::request::{Malformed, Op, header, parse};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::fs::{Attr, Caller, SetAttr, SetTime};
use crate::fuse::asker::Asker;
use crate::fuse::convert::Made;
use crate::fuse::dispatch::Dispatcher;
use crate::fuse::kernel::{Kernel, MAX_IO, WRITE_HANDLE};
use crate::fuse::service::Service;
use rustix::io::Errno;
use std::sync::Arc;
use std::time::Duration;
use zerocopy::IntoBytes;

/// Serves requests from a channel.
pub(super) struct Server {
    pub(super) service: Arc<Service>,
    pub(super) dispatcher: Dispatcher,
    pub(super) kernel: Arc<Kernel>,
    pub(super) channel: Arc<Channel>,
    pub(super) locks: Arc<Locks>,
}

/// What a request means for the session.
pub(super) enum After {
    /// There will be more.
    Next,
    /// The filesystem is being unmounted: this is to be answered when the disk is clean.
    Destroy(Reply),
}

impl Server {
    /// Serves the message in `bytes`.
    pub(super) fn serve(&self, bytes: &[u8]) -> After {
        let (head, op) = match parse(bytes) {
            Ok(parsed) => parsed,
            Err(Malformed) => {
                tracing::warn!(len = bytes.len(), "a malformed request from the kernel");
                if let Some(head) = header(bytes) {
                    self.reply(head.unique).errno(Errno::IO);
                }
                return After::Next;
            }
        };
        let (node, reply) = (head.node, head.unique);
        let who = Caller { uid: head.uid, gid: head.gid, umask: 0 };
        // FORGET and INTERRUPT have no answer.
        match op {
            Op::Forget(count) => self.dispatcher.forget(&self.service, node, count),
            Op::BatchForget(list) => {
                list.iter().for_each(|one| self.dispatcher.forget(&self.service, one.node, one.count));
            }
            Op::Interrupt(unique) => self.locks.interrupt(&self.service.fs, unique),
            Op::Destroy => return After::Destroy(self.reply(reply)),
            op => self.request(self.reply(reply), op, (node, who, head.pid)),
        }
        After::Next
    }

    fn reply(&self, unique: u64) -> Reply {
        Reply::new(Arc::clone(&self.channel), unique)
    }

    fn request(&self, reply: Reply, op: Op<'_>, (node, who, pid): (u64, Caller, u32)) {
        let asker = Asker { who, pid };
        match op {
            Op::Lookup(name) => self.lookup(reply, node, name.into()),
            Op::Getattr(get) => {
                self.getattr(reply, node, get.flags & GETATTR_FH != 0 && get.handle & WRITE_HANDLE != 0);
            }
            Op::Setattr(set) => {
                let set = set_attr(&set);
                let most = self.service.policy.link_ttl();
                self.attr(reply, node, most, move |s| s.setattr(&asker, node, &set));
            }
            Op::Readlink => self.run(reply, move |s| s.readlink(node), |_, reply, target| reply.bytes(&target)),
            Op::Symlink { name, target } => self.make(reply, (who, node), name.into(), Made::Symlink(target.into())),
            Op::Mknod(m, name) => {
                let who = Caller { umask: m.umask, ..who };
                self.make(reply, (who, node), name.into(), Made::Node(m.mode, m.rdev));
            }
            Op::Mkdir(m, name) => {
                self.make(reply, (Caller { umask: m.umask, ..who }, node), name.into(), Made::Dir(m.mode));
            }
            Op::Unlink(name) => {
                let name: Box<[u8]> = name.into();
                self.empty(reply, move |s| s.unlink(node, &name));
            }
            Op::Rmdir(name) => {
                let name: Box<[u8]> = name.into();
                self.empty(reply, move |s| s.rmdir(node, &name));
            }
            Op::Rename { new_dir, flags, name, new_name } => {
                let (name, new_name): (Box<[u8]>, Box<[u8]>) = (name.into(), new_name.into());
                self.empty(reply, move |s| s.rename(&who, (node, &name), (new_dir, &new_name), flags));
            }
            Op::Link { node: target, name } => self.link(reply, (who, target), node, name.into()),
            Op::Open(open) => self.open(reply, (asker, node), open),
            // Nothing to keep of an open directory.
            Op::Opendir | Op::Releasedir => reply.bytes(&[0; 16][..if matches!(op, Op::Opendir) { 16 } else { 0 }]),
            Op::Read(read) => self.read(reply, node, read),
            Op::Write(write, data) => self.write(reply, (asker, node), write, data),
            Op::Statfs => reply.statfs(&self.service.fs.space()),
            Op::Release(release) => {
                self.release(node, &release);
                reply.ok();
            }
            Op::Fsync => {
                let kernel = Arc::clone(&self.kernel);
                self.dispatch(
                    reply,
                    move |s| s.fsync(node),
                    move |_, reply, result| {
                        kernel.settled(node);
                        match result {
                            Ok(()) => reply.ok(),
                            Err(e) => reply.error(&e),
                        }
                    },
                );
            }
            Op::Fsyncdir => self.empty(reply, move |s| s.fsync(node)),
            Op::Syncfs => self.empty(reply, move |s| s.fs.sync()),
            Op::Setxattr { flags, name, value } => {
                let (name, value): (Box<[u8]>, Box<[u8]>) = (name.into(), value.into());
                self.empty(reply, move |s| s.setxattr(&asker, node, (&name, &value), flags));
            }
            Op::Getxattr { size, name } => {
                let name: Box<[u8]> = name.into();
                self.run(reply, move |s| s.getxattr(node, &name), move |_, reply, value| sized(reply, size, &value));
            }
            Op::Listxattr { size } => {
                self.run(reply, move |s| s.listxattr(node), move |_, reply, list| sized(reply, size, &list));
            }
            Op::Removexattr(name) => {
                let name: Box<[u8]> = name.into();
                self.empty(reply, move |s| s.removexattr(node, &name));
            }
            // Closing promises nothing about the disk. Saying "not implemented" once makes the kernel stop asking; where locks
            // come to us it must go on asking.
            Op::Flush(flush) if self.service.policy.locks => {
                self.locks.flush(&self.service, node, flush.handle, flush.lock_owner);
                reply.ok();
            }
            Op::Setlk(ask, wait) if self.service.policy.locks => {
                self.locks.set(&self.service, reply, node, ask, wait);
            }
            Op::Getlk(ask) if self.service.policy.locks => Locks::get(&self.service, reply, node, ask),
            Op::Readdir(read) => self.list(reply, node, read, false),
            Op::Readdirplus(read) => self.list(reply, node, read, true),
            Op::Create(create, name) => {
                let who = Caller { umask: create.umask, ..who };
                self.create(reply, (Asker { who, pid }, node), name.into(), (create.mode, create.flags));
            }
            Op::Ioctl(ioctl, input) => {
                let (command, out_size, input) = (ioctl.command, ioctl.out_size.min(MAX_IO), Box::<[u8]>::from(input));
                self.dispatch(
                    reply,
                    move |s| s.ioctl(&who, node, command, &input, out_size as usize),
                    move |_, reply, result| match result {
                        Ok(out) => reply.two(IoctlOut::default().as_bytes(), &out),
                        Err(Error::NotSupported) if !Service::knows_ioctl(command) => reply.errno(Errno::NOTTY),
                        Err(e) => reply.error(&e),
                    },
                );
            }
            Op::Fallocate(f) => {
                self.empty(reply, move |s| s.fallocate(&asker, node, f.offset, f.length, f.mode));
            }
            Op::Lseek(seek) => self.seek(reply, node, seek.offset, seek.whence),
            Op::Flush(_)
            | Op::Setlk(..)
            | Op::Getlk(_)
            | Op::Init { .. }
            | Op::Forget(_)
            | Op::BatchForget(_)
            | Op::Interrupt(_)
            | Op::Destroy
            | Op::Other => reply.errno(Errno::NOSYS),
        }
    }

    /// Runs `op` here or later.
    pub(super) fn dispatch<T>(
        &self,
        reply: Reply,
        op: impl Fn(&Service) -> Result<T> + Send + 'static,
        answer: impl FnOnce(&Service, Reply, Result<T>) + Send + 'static,
    ) {
        let (service, for_answer) = (Arc::clone(&self.service), Arc::clone(&self.service));
        self.dispatcher.run(reply, move || op(&service), move |reply, result| answer(&for_answer, reply, result));
    }

    /// As [`Server::dispatch`], with errors answered.
    pub(super) fn run<T>(
        &self,
        reply: Reply,
        op: impl Fn(&Service) -> Result<T> + Send + 'static,
        answer: impl FnOnce(&Service, Reply, T) + Send + 'static,
    ) {
        self.dispatch(reply, op, move |service, reply, result| match result {
            Ok(value) => answer(service, reply, value),
            Err(e) => reply.error(&e),
        });
    }

    fn empty(&self, reply: Reply, op: impl Fn(&Service) -> Result<()> + Send + 'static) {
        self.run(reply, op, |_, reply, ()| reply.ok());
    }

    fn entry(&self, reply: Reply, op: impl Fn(&Service) -> Result<Attr> + Send + 'static) {
        self.run(reply, op, |service, reply, attr| {
            let policy = &service.policy;
            reply.bytes(entry_out(service, &attr, policy.attr_ttl, policy.name_ttl).as_bytes());
        });
    }

    /// `most`: how long the attributes are good at most.
    fn attr(&self, reply: Reply, node: u64, most: Duration, op: impl Fn(&Service) -> Result<Attr> + Send + 'static) {
        let kernel = Arc::clone(&self.kernel);
        self.run(reply, op, move |service, reply, attr| {
            reply.bytes(attr_out(service, &attr, kernel.attr_ttl(service, node).min(most)).as_bytes());
        });
    }

    fn getattr(&self, reply: Reply, node: u64, for_writer: bool) {
        if !for_writer || !self.kernel.asks_before_write(node) {
            return self.attr(reply, node, Duration::MAX, move |s| s.getattr(node));
        }
        let (service, kernel) = (Arc::clone(&self.service), Arc::clone(&self.kernel));
        self.dispatcher.later(move || match kernel.attr_before_write(&service, node) {
            Ok(attr) => reply.bytes(attr_out(&service, &attr, Duration::ZERO).as_bytes()),
            Err(e) => reply.error(&e),
        });
    }

    fn lookup(&self, reply: Reply, node: u64, name: Box<[u8]>) {
        self.dispatch(
            reply,
            move |s| s.lookup(node, &name),
            |service, reply, result| {
                let policy = &service.policy;
                match result {
                    Ok(attr) => reply.bytes(entry_out(service, &attr, policy.attr_ttl, policy.name_ttl).as_bytes()),
                    Err(Error::NotFound) if !policy.negative_ttl.is_zero() => {
                        reply.bytes(absent(policy.negative_ttl).as_bytes());
                    }
                    Err(e) => reply.error(&e),
                }
            },
        );
    }

    fn make(&self, reply: Reply, (who, parent): (Caller, u64), name: Box<[u8]>, what: Made) {
        self.entry(reply, move |s| s.make(&who, parent, &name, &what.as_new()));
    }

    fn link(&self, reply: Reply, (who, target): (Caller, u64), parent: u64, name: Box<[u8]>) {
        self.run(
            reply,
            move |s| s.link(&who, target, parent, &name),
            |service, reply, attr| {
                let policy = &service.policy;
                reply.bytes(entry_out(service, &attr, policy.link_ttl(), policy.name_ttl).as_bytes());
            },
        );
    }

    /// A listing is answered with what was taken before it had to wait; the kernel asks for the rest.
    fn list(&self, reply: Reply, node: u64, read: ReadIn, plus: bool) {
        let mut list = Listing::new(read.size.min(MAX_IO) as usize, plus);
        let service = &self.service;
        let result = self.dispatcher.here(|| {
            if !list.is_empty() {
                return Ok(());
            }
            service.list(node, read.offset, plus, &mut |item| list.push(service, &item))
        });
        match result {
            Some(Err(e)) if list.is_empty() => reply.error(&e),
            None if list.is_empty() => {
                let service = Arc::clone(service);
                self.dispatcher.later(move || {
                    let result = service.list(node, read.offset, plus, &mut |item| list.push(&service, &item));
                    match result {
                        Err(e) if list.is_empty() => reply.error(&e),
                        _ => reply.bytes(list.as_bytes()),
                    }
                });
            }
            _ => reply.bytes(list.as_bytes()),
        }
    }

    fn seek(&self, reply: Reply, node: u64, offset: i64, whence: i32) {
        let send = |reply: Reply, result: Result<u64>| match result {
            Ok(at) => reply.bytes(&at.to_ne_bytes()),
            Err(e) => reply.error(&e),
        };
        if !self.kernel.keeps_data_back(&self.service, node) {
            return self.dispatch(
                reply,
                move |s| s.seek(node, offset, whence),
                move |_, reply, result| send(reply, result),
            );
        }
        // The kernel asks us where data is while it still keeps some of it back: it would read as a hole, and cp would lose it.
        let (service, kernel) = (Arc::clone(&self.service), Arc::clone(&self.kernel));
        self.dispatcher.later(move || {
            kernel.collect_writes(node);
            send(reply, service.seek(node, offset, whence));
        });
    }
}

/// A value for somebody with `size` bytes of room; 0: only its length is asked.
fn sized(reply: Reply, size: u32, value: &[u8]) {
    if size == 0 {
        reply.written(value.len());
    } else if value.len() <= size as usize {
        reply.bytes(value);
    } else {
        reply.errno(Errno::RANGE);
    }
}

fn set_attr(set: &SetattrIn) -> SetAttr {
    let has = |bit: u32| set.valid & bit != 0;
    let at = |sec: u64, nsec: u32| Timestamp { sec: sec.cast_signed(), nsec };
    let time = |now: u32, given: u32, t: Timestamp| {
        if has(now) { Some(SetTime::Now) } else { has(given).then_some(SetTime::At(t)) }
    };
    SetAttr {
        mode: has(fattr::MODE).then_some(set.mode),
        uid: has(fattr::UID).then_some(set.uid),
        gid: has(fattr::GID).then_some(set.gid),
        size: has(fattr::SIZE).then_some(set.size),
        atime: time(fattr::ATIME_NOW, fattr::ATIME, at(set.atime, set.atime_nsec)),
        mtime: time(fattr::MTIME_NOW, fattr::MTIME, at(set.mtime, set.mtime_nsec)),
        ctime: has(fattr::CTIME).then_some(at(set.ctime, set.ctime_nsec)),
    }
}
