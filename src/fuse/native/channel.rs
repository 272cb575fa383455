//! The open /dev/fuse: requests come out of it, answers and notifications go in.

use super::abi::{InvalInodeOut, NOTIFY_INVAL_INODE, NOTIFY_PRUNE, OutHeader, PruneOut};
use crate::fuse::kernel::Voice;
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, IoSlice};
use zerocopy::IntoBytes;

/// /dev/fuse after mounting.
pub(super) struct Channel {
    device: File,
}

/// What reading a request led to.
pub(super) enum Next {
    /// A request of this many bytes.
    Request(usize),
    /// The filesystem is unmounted.
    Gone,
}

impl Channel {
    pub(super) fn new(device: File) -> Self {
        Self { device }
    }

    /// Waits for a request.
    pub(super) fn next(&self, buf: &mut [u8]) -> io::Result<Next> {
        loop {
            match rustix::io::read(&self.device, &mut *buf) {
                Ok(0) => return Ok(Next::Gone),
                Ok(len) => return Ok(Next::Request(len)),
                // ENOENT: the request was given up before we had it.
                Err(Errno::INTR | Errno::AGAIN | Errno::NOENT) => {}
                Err(Errno::NODEV) => return Ok(Next::Gone),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Sends header and parts in one message.
    pub(super) fn send(&self, unique: u64, error: i32, parts: &[&[u8]]) -> Result<(), Errno> {
        let body: usize = parts.iter().map(|p| p.len()).sum();
        // No answer is longer than a request may ask for, which is 1 MiB.
        let len = u32::try_from(size_of::<OutHeader>() + body).unwrap_or(u32::MAX);
        let header = OutHeader { len, error, unique };
        let mut slices = [IoSlice::new(&[]); 4];
        slices[0] = IoSlice::new(header.as_bytes());
        for (slot, part) in slices[1..].iter_mut().zip(parts) {
            *slot = IoSlice::new(part);
        }
        rustix::io::writev(&self.device, &slices[..1 + parts.len()]).map(|_| ())
    }
}

impl Voice for Channel {
    fn inval_inode(&self, node: u64, offset: i64, len: i64) -> io::Result<bool> {
        let what = InvalInodeOut { node, offset, len };
        match self.send(0, NOTIFY_INVAL_INODE, &[what.as_bytes()]) {
            Ok(()) => Ok(true),
            // The kernel does not know the inode (any more).
            Err(Errno::NOENT) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn forget(&self, node: u64) -> io::Result<()> {
        let what = PruneOut { count: 1, ..PruneOut::default() };
        Ok(self.send(0, NOTIFY_PRUNE, &[what.as_bytes(), node.as_bytes()])?)
    }
}
