//! READ and WRITE.

use super::abi::{READ_LOCKOWNER, ReadIn, WRITE_CACHE, WRITE_KILL_SUIDGID, WriteIn};
use super::reply::Reply;
use super::serve::Server;
use crate::device::AlignedBuf;
use crate::error::Result;
use crate::fuse::asker::Asker;
use crate::fuse::convert::{no_atime, open_how};
use crate::fuse::kernel::{Kernel, MAX_IO};
use crate::fuse::service::{Service, WriteHow};
use std::cell::RefCell;
use std::sync::Arc;

thread_local! {
    /// Memory for the answers to reads, one for each thread that answers.
    static READ_BUFFER: RefCell<AlignedBuf> = RefCell::new(AlignedBuf::zeroed(MAX_IO as usize));
}

impl Server {
    pub(super) fn read(&self, reply: Reply, node: u64, read: ReadIn) {
        let mut reply = Some(reply);
        READ_BUFFER.with_borrow_mut(|buf| {
            let len = buf.len().min(read.size as usize);
            let done = self.dispatcher.here(|| read_or_fill(&self.kernel, &self.service, node, &read, &mut buf[..len]));
            if let Some(result) = done
                && let Some(reply) = reply.take()
            {
                answer_read(reply, result, buf);
            }
        });
        if let Some(reply) = reply {
            let (service, kernel) = (Arc::clone(&self.service), Arc::clone(&self.kernel));
            self.dispatcher.later(move || {
                READ_BUFFER.with_borrow_mut(|buf| {
                    let len = buf.len().min(read.size as usize);
                    let result = read_or_fill(&kernel, &service, node, &read, &mut buf[..len]);
                    answer_read(reply, result, buf);
                });
            });
        }
    }

    pub(super) fn write(&self, reply: Reply, (asker, node): (Asker, u64), write: WriteIn, data: &[u8]) {
        let how = WriteHow {
            kill: write.write_flags & WRITE_KILL_SUIDGID != 0,
            append: open_how(write.flags).append,
            cached: write.write_flags & WRITE_CACHE != 0,
        };
        let at = (node, write.offset);
        match self.dispatcher.here(|| self.kernel.write(&self.service, &asker, at, data, how)) {
            Some(result) if !beside_pages(&self.kernel, &self.service, node, how) => written(reply, result),
            Some(result) => {
                let kernel = Arc::clone(&self.kernel);
                self.dispatcher.later(move || {
                    kernel.drop_written(node, &write, how);
                    written(reply, result);
                });
            }
            None => {
                let (service, kernel, data) = (Arc::clone(&self.service), Arc::clone(&self.kernel), data.to_vec());
                self.dispatcher.later(move || {
                    let result = kernel.write(&service, &asker, at, &data, how);
                    if beside_pages(&kernel, &service, node, how) {
                        kernel.drop_written(node, &write, how);
                    }
                    written(reply, result);
                });
            }
        }
    }
}

/// The write went past a page cache that has pages of the file, and the kernel does not see to that itself.
fn beside_pages(kernel: &Kernel, service: &Service, node: u64, how: WriteHow) -> bool {
    service.policy.is_shared() && !how.cached && !kernel.drops_after_writes() && kernel.pages.holds(node)
}

impl Kernel {
    /// Drops what a write past the page cache may have left in it: the kernel dropped these pages before it asked us, and not again.
    fn drop_written(&self, node: u64, write: &WriteIn, how: WriteHow) {
        // Only we know where the end was that was written to.
        if how.append {
            self.drop_pages(node, 0, 0)
        } else {
            self.drop_pages(node, write.offset, i64::from(write.size))
        }
    }
}

fn written(reply: Reply, result: Result<usize>) {
    match result {
        Ok(n) => reply.written(n),
        Err(e) => reply.error(&e),
    }
}

/// Reads for a program, or for the page cache, which on a shared mount must not wait as others may (fuse.md O3).
fn read_or_fill(kernel: &Kernel, service: &Service, node: u64, read: &ReadIn, buf: &mut [u8]) -> Result<usize> {
    if !service.policy.is_shared() || read.read_flags & READ_LOCKOWNER != 0 {
        return service.read(node, read.offset, buf, no_atime(read.flags));
    }
    let filling = kernel.pages.fill(node);
    service.fill(node, read.offset, buf, filling.is_exclusive(), || filling.held())
}

fn answer_read(reply: Reply, result: Result<usize>, buf: &[u8]) {
    match result {
        Ok(n) => reply.bytes(&buf[..n]),
        Err(e) => reply.error(&e),
    }
}
