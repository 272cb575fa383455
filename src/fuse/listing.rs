//! A directory listing on its way to the kernel.

use super::convert::{file_attr, file_type, fuse_errno, nameless};
use super::service::Service;
use crate::error::Error;
use crate::fs::DirItem;
use fuser::{Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// A listing under way: the reply being filled.
pub(super) trait Listing: Send + 'static {
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
