//! OPEN, CREATE and RELEASE: who has what open decides what the kernel may cache (fuse.md 6.1).

use super::abi::{OpenIn, RELEASE_FLOCK_UNLOCK, ReleaseIn};
use super::reply::{Reply, entry_out, open_out};
use super::serve::Server;
use crate::error::{Error, Result};
use crate::format::DirentType;
use crate::fs::{Attr, NewInode, OpenHow};
use crate::fuse::asker::Asker;
use crate::fuse::convert::{may_map, must_be_new, no_atime, open_how};
use crate::fuse::kernel::Kernel;
use crate::fuse::service::{Opened, Service};
use std::sync::Arc;
use std::time::Duration;
use zerocopy::IntoBytes;

/// How somebody opens a file.
#[derive(Clone, Copy)]
struct Opening {
    asker: Asker,
    how: OpenHow,
    /// No access time.
    quietly: bool,
    /// Pages may be changed through a mapping.
    maps: bool,
}

impl Opening {
    fn new(asker: Asker, flags: i32) -> Self {
        Self { asker, how: open_how(flags), quietly: no_atime(flags), maps: may_map(flags) }
    }

    /// Opens a file the kernel knows.
    fn open(&self, kernel: &Kernel, service: &Service, node: u64) -> Result<Opened> {
        let opened = service.open(&self.asker, node, self.how, self.quietly)?;
        // The last thing that can fail or must wait: it counts.
        if service.policy.is_shared() && self.maps {
            kernel.open_mapper(node)?;
        }
        Ok(opened)
    }
}

/// A file as CREATE leaves it.
struct Created {
    attr: Attr,
    /// It was there already.
    opened: Option<Opened>,
}

impl Server {
    pub(super) fn open(&self, reply: Reply, (asker, node): (Asker, u64), open: OpenIn) {
        let opening = Opening::new(asker, open.flags);
        let (kernel, for_answer) = (Arc::clone(&self.kernel), Arc::clone(&self.kernel));
        self.run(
            reply,
            move |s| opening.open(&kernel, s, node),
            move |service, reply, opened| {
                let write = opening.how.write;
                for_answer.after_open(node, write, opened.touched);
                reply.opened(beside_writers(&for_answer, service, node, opened), for_answer.new_handle(write));
            },
        );
    }

    pub(super) fn create(
        &self,
        reply: Reply,
        (asker, parent): (Asker, u64),
        name: Box<[u8]>,
        (mode, flags): (u32, i32),
    ) {
        let opening = Opening::new(asker, flags);
        let (kernel, for_answer) = (Arc::clone(&self.kernel), Arc::clone(&self.kernel));
        self.run(
            reply,
            move |s| match s.make(&opening.asker.who, parent, &name, &NewInode::File(mode)) {
                Ok(attr) => Ok(Created { attr, opened: None }),
                // The kernel saw no such name; another node has made it since.
                Err(Error::Exists) if s.policy.is_shared() && !must_be_new(flags) => {
                    open_existing(&kernel, s, (parent, &name), &opening)
                }
                Err(e) => Err(e),
            },
            move |service, reply, created| {
                let (kernel, attr, write) = (for_answer, created.attr, opening.how.write);
                let node = service.node(attr.inum.addr);
                kernel.opened(node, write);
                let ttl = match created.opened {
                    None => kernel.attr_ttl(service, node),
                    // The kernel takes these attributes without asking whether they are stale.
                    Some(_) => Duration::ZERO,
                };
                if created.opened.is_none() && opening.maps && service.policy.is_shared() {
                    kernel.pages.made_with_mapper(node);
                }
                let opened = created.opened.unwrap_or_else(|| service.opened(write, false));
                let opened = beside_writers(&kernel, service, node, opened);
                let entry = entry_out(service, &attr, ttl, service.policy.name_ttl);
                reply.two(entry.as_bytes(), open_out(opened, kernel.new_handle(write)).as_bytes());
            },
        );
    }

    /// RELEASE: a file is closed for good.
    pub(super) fn release(&self, node: u64, release: &ReleaseIn) {
        let shared = self.service.policy.is_shared();
        if shared && may_map(release.flags) {
            self.kernel.pages.close_mapper(node);
        }
        if self.service.policy.locks {
            let flock = (release.release_flags & RELEASE_FLOCK_UNLOCK != 0).then_some(release.lock_owner);
            self.locks.release(&self.service, node, release.handle, flock);
        }
        self.kernel.released(node, open_how(release.flags).write);
    }
}

/// While somebody here writes past the page cache, others read past it too (O2).
fn beside_writers(kernel: &Kernel, service: &Service, node: u64, opened: Opened) -> Opened {
    Opened { direct: opened.direct || service.policy.is_shared() && kernel.is_written(node), ..opened }
}

/// CREATE of a name that is there: as open(2) with O_CREAT.
fn open_existing(kernel: &Kernel, service: &Service, name: (u64, &[u8]), opening: &Opening) -> Result<Created> {
    let attr = service.lookup(name.0, name.1)?;
    let node = service.node(attr.inum.addr);
    let opened = match attr.kind {
        DirentType::Reg => opening.open(kernel, service, node),
        DirentType::Dir => Err(Error::IsADirectory),
        // The kernel looks again.
        _ => Err(Error::Stale),
    };
    match opened {
        Ok(opened) => Ok(Created { attr, opened: Some(opened) }),
        Err(e) => {
            // The kernel will not hear of it.
            if let Some(inum) = service.forget(node, 1) {
                service.fs.leave_to_unmount(inum);
            }
            Err(e)
        }
    }
}
