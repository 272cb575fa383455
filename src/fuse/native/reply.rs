//! Answers. Each is given once; one that is dropped says EIO, so that no program waits for ever.

use super::abi::{
    Attr as WireAttr, AttrOut, Dirent, EntryOut, FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE, FOPEN_PARALLEL_DIRECT_WRITES,
    OpenOut, StatfsOut, WriteOut,
};
use super::channel::Channel;
use crate::clock::Timestamp;
use crate::error::Error;
use crate::fs::{Attr, DirItem, Space};
use crate::fuse::convert::encode_dev;
use crate::fuse::errno::errno;
use crate::fuse::service::{Opened, Service};
use rustix::io::Errno;
use std::sync::Arc;
use std::time::Duration;
use zerocopy::{FromZeros, IntoBytes};

/// The answer to one request.
pub(super) struct Reply {
    channel: Arc<Channel>,
    /// The request's number; 0 once answered.
    unique: u64,
}

impl Reply {
    pub(super) fn new(channel: Arc<Channel>, unique: u64) -> Self {
        Self { channel, unique }
    }

    /// The request's number.
    pub(super) fn unique(&self) -> u64 {
        self.unique
    }

    fn send(mut self, error: i32, parts: &[&[u8]]) {
        let unique = std::mem::take(&mut self.unique);
        match self.channel.send(unique, error, parts) {
            // ENOENT: whoever asked was killed meanwhile. ENODEV: unmounted by force.
            Ok(()) | Err(Errno::NOENT | Errno::NODEV) => {}
            Err(e) => tracing::error!(unique, "an answer could not be sent: {e}"),
        }
    }

    pub(super) fn ok(self) {
        self.send(0, &[]);
    }

    pub(super) fn errno(self, e: Errno) {
        self.send(-e.raw_os_error(), &[]);
    }

    pub(super) fn error(self, e: &Error) {
        self.send(-errno(e), &[]);
    }

    pub(super) fn bytes(self, bytes: &[u8]) {
        self.send(0, &[bytes]);
    }

    pub(super) fn two(self, first: &[u8], second: &[u8]) {
        self.send(0, &[first, second]);
    }

    pub(super) fn written(self, n: usize) {
        self.bytes(WriteOut { size: u32::try_from(n).unwrap_or(u32::MAX), padding: 0 }.as_bytes());
    }

    pub(super) fn opened(self, opened: Opened, handle: u64) {
        self.bytes(open_out(opened, handle).as_bytes());
    }

    pub(super) fn statfs(self, space: &Space) {
        let out = StatfsOut {
            blocks: space.total,
            free: space.free,
            available: space.free,
            files: space.inodes,
            files_free: space.free,
            block_size: space.block_size,
            name_len: 255,
            fragment_size: space.block_size,
            ..StatfsOut::new_zeroed()
        };
        self.bytes(out.as_bytes());
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.unique != 0 {
            tracing::error!(self.unique, "a request was not answered");
            Self { channel: Arc::clone(&self.channel), unique: std::mem::take(&mut self.unique) }.errno(Errno::IO);
        }
    }
}

/// The answer to OPEN.
pub(super) fn open_out(opened: Opened, handle: u64) -> OpenOut {
    let mut open_flags = 0;
    if opened.direct {
        open_flags |= FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
    }
    if opened.keep_cache {
        open_flags |= FOPEN_KEEP_CACHE;
    }
    OpenOut { handle, open_flags, padding: 0 }
}

/// Attributes as stat(2) shows them, but for the number: see [`entry_out`].
fn wire_attr(service: &Service, attr: &Attr) -> WireAttr {
    let sec = |t: Timestamp| t.sec.cast_unsigned();
    WireAttr {
        ino: attr.inum.addr.get(),
        size: attr.size,
        blocks: attr.blocks,
        atime: sec(attr.atime),
        mtime: sec(attr.mtime),
        ctime: sec(attr.ctime),
        atime_nsec: attr.atime.nsec,
        mtime_nsec: attr.mtime.nsec,
        ctime_nsec: attr.ctime.nsec,
        mode: (attr.kind as u32) << 12 | attr.perm & 0o7777,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: encode_dev(attr.rdev),
        blksize: service.fs.space_unit(),
        flags: 0,
    }
}

/// A name's inode: attributes with the kernel's number for it.
pub(super) fn entry_out(service: &Service, attr: &Attr, attr_ttl: Duration, name_ttl: Duration) -> EntryOut {
    let node = service.node(attr.inum.addr);
    EntryOut {
        node,
        generation: attr.inum.formal.0,
        entry_valid: name_ttl.as_secs(),
        attr_valid: attr_ttl.as_secs(),
        entry_valid_nsec: name_ttl.subsec_nanos(),
        attr_valid_nsec: attr_ttl.subsec_nanos(),
        attr: WireAttr { ino: node, ..wire_attr(service, attr) },
    }
}

/// "There is no such name, and you may remember that for so long."
pub(super) fn absent(ttl: Duration) -> EntryOut {
    EntryOut { entry_valid: ttl.as_secs(), entry_valid_nsec: ttl.subsec_nanos(), ..EntryOut::new_zeroed() }
}

pub(super) fn attr_out(service: &Service, attr: &Attr, ttl: Duration) -> AttrOut {
    AttrOut {
        attr_valid: ttl.as_secs(),
        attr_valid_nsec: ttl.subsec_nanos(),
        padding: 0,
        attr: wire_attr(service, attr),
    }
}

/// A directory listing being filled.
pub(super) struct Listing {
    buf: Vec<u8>,
    limit: usize,
    pub(super) plus: bool,
}

impl Listing {
    /// For an answer of at most `limit` bytes.
    pub(super) fn new(limit: usize, plus: bool) -> Self {
        Self { buf: Vec::with_capacity(limit), limit, plus }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.buf.is_empty()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.buf
    }

    /// Adds an entry; false when it does not fit.
    pub(super) fn push(&mut self, service: &Service, item: &DirItem<'_>) -> bool {
        let head = if self.plus { size_of::<EntryOut>() } else { 0 };
        let len = (head + size_of::<Dirent>() + item.name.len()).next_multiple_of(8);
        if self.buf.len() + len > self.limit {
            return false;
        }
        let end = self.buf.len() + len;
        let ino = service.node(item.entry.inum.addr);
        if self.plus {
            // Node 0: a name without a reference, as for `.` and `..`.
            let policy = &service.policy;
            let entry = item.attr.as_ref().map(|a| entry_out(service, a, policy.attr_ttl, policy.name_ttl));
            let entry = entry.unwrap_or_default();
            self.buf.extend_from_slice(entry.as_bytes());
        }
        // A name has at most 255 bytes.
        let name_len = item.name.len() as u32;
        let dirent = Dirent { ino, next: item.next, name_len, kind: item.entry.kind as u32 };
        self.buf.extend_from_slice(dirent.as_bytes());
        self.buf.extend_from_slice(item.name);
        self.buf.resize(end, 0);
        true
    }
}
