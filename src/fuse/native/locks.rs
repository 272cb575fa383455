//! File locks: SETLK, SETLKW, GETLK, and what ends them (FLUSH, RELEASE, INTERRUPT). Fuse.md 6.8.
//!
//! A request that waits for a lock costs no thread: its reply is kept until it is granted or taken back.
//!
//! INTERRUPT names a request by its number. It may be read by another thread before the request is known here; then the number is
//! kept, and the request is taken back as soon as it comes. Numbers of other requests, which end by themselves, are forgotten.

use super::abi::{FileLock, LK_FLOCK, LkIn};
use super::reply::Reply;
use crate::error::{Error, Result};
use crate::fs::Fs;
use crate::fs::plock::Plock;
use crate::fuse::service::Service;
use crate::ids::BlockAddr;
use crate::sync::Mutex;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use zerocopy::IntoBytes;

const F_RDLCK: u32 = 0;
const F_WRLCK: u32 = 1;
const F_UNLCK: u32 = 2;

/// Interrupts without a request that are remembered. They stay a matter of microseconds; the others name requests that nobody
/// takes back.
const STRAY: usize = 256;

/// Lock requests that wait, and who has byte-range locks.
#[derive(Default)]
pub(super) struct Locks {
    waiting: Mutex<Waiting>,
    owners: Mutex<Owners>,
}

#[derive(Default)]
struct Waiting {
    requests: HashMap<u64, Request>,
    strays: VecDeque<u64>,
}

/// A lock request, for taking it back.
/// By inode and number.
#[derive(Clone, Copy)]
enum Request {
    Flock(BlockAddr, u64),
    Posix(BlockAddr, u64),
}

impl Request {
    fn cancel(self, fs: &Fs) {
        match self {
            Self::Flock(addr, unique) => fs.cancel_flock(addr, unique),
            Self::Posix(addr, unique) => fs.plocks().cancel(addr, unique),
        }
    }
}

/// Owners of byte-range locks. A process is one and says goodbye with FLUSH; an open file (F_OFD_SETLK) is one too, and goes
/// with RELEASE, which does not name it.
#[derive(Default)]
struct Owners {
    /// They may have locks.
    locking: HashSet<(BlockAddr, u64)>,
    /// By the handle through which they locked.
    by_handle: HashMap<u64, HashSet<(BlockAddr, u64)>>,
}

impl Owners {
    fn locks(&mut self, handle: u64, who: (BlockAddr, u64)) {
        self.locking.insert(who);
        self.by_handle.entry(handle).or_default().insert(who);
    }

    /// An owner closes a handle: true when it may have locks.
    fn flushed(&mut self, handle: u64, who: (BlockAddr, u64)) -> bool {
        if let Some(owners) = self.by_handle.get_mut(&handle) {
            owners.remove(&who);
            if owners.is_empty() {
                self.by_handle.remove(&handle);
            }
        }
        self.locking.remove(&who)
    }

    /// A handle is closed for good: who locked through it and never said goodbye.
    fn released(&mut self, handle: u64) -> Vec<(BlockAddr, u64)> {
        let gone = self.by_handle.remove(&handle).unwrap_or_default();
        gone.into_iter().filter(|who| self.locking.remove(who)).collect()
    }
}

impl Locks {
    /// SETLK and SETLKW.
    pub(super) fn set(self: &Arc<Self>, service: &Service, reply: Reply, node: u64, ask: LkIn, wait: bool) {
        let (addr, wanted) = match (service.addr(node), plock(service, node, &ask)) {
            (Ok(addr), Ok(wanted)) => (addr, wanted),
            (Err(e), _) | (_, Err(e)) => return reply.error(&e),
        };
        let (fs, flock) = (&service.fs, ask.flags & LK_FLOCK != 0);
        if ask.lock.kind == F_UNLCK {
            if flock {
                fs.unflock(addr, ask.owner);
                return reply.ok();
            }
            return fs.plocks().unlock(wanted, Box::new(move |result| answer(reply, result)));
        }
        let unique = reply.unique();
        let request = if flock { Request::Flock(addr, unique) } else { Request::Posix(addr, unique) };
        let (locks, ended) = (Arc::clone(self), Arc::new(AtomicBool::new(false)));
        let end = Arc::clone(&ended);
        let done = Box::new(move |result| {
            end.store(true, Ordering::Release);
            locks.waiting.lock().requests.remove(&unique);
            answer(reply, result);
        });
        match request {
            Request::Flock(..) => fs.flock(addr, (ask.owner, unique), wanted.exclusive, wait, done),
            Request::Posix(..) => {
                self.owners.lock().locks(ask.handle, (addr, ask.owner));
                fs.plocks().lock(wanted, unique, wait, done);
            }
        }
        if wait && self.register(unique, request, &ended) {
            request.cancel(fs);
        }
    }

    /// A request may wait from now on, unless it has `ended`. True when somebody has interrupted it already.
    fn register(&self, unique: u64, request: Request, ended: &AtomicBool) -> bool {
        let mut waiting = self.waiting.lock();
        if ended.load(Ordering::Acquire) {
            return false;
        }
        if let Some(at) = waiting.strays.iter().position(|u| *u == unique) {
            waiting.strays.remove(at);
            return true;
        }
        waiting.requests.insert(unique, request);
        false
    }

    /// INTERRUPT of the request with this number.
    pub(super) fn interrupt(&self, fs: &Fs, unique: u64) {
        let mut waiting = self.waiting.lock();
        let request = waiting.requests.remove(&unique);
        if request.is_none() {
            if waiting.strays.len() >= STRAY {
                waiting.strays.pop_front();
            }
            waiting.strays.push_back(unique);
        }
        drop(waiting);
        if let Some(request) = request {
            request.cancel(fs);
        }
    }

    /// GETLK.
    pub(super) fn get(service: &Service, reply: Reply, node: u64, ask: LkIn) {
        let wanted = match plock(service, node, &ask) {
            Ok(wanted) => wanted,
            Err(e) => return reply.error(&e),
        };
        let none = FileLock { kind: F_UNLCK, ..ask.lock };
        let found = Box::new(move |found: Result<Option<Plock>>| match found {
            Ok(lock) => reply.bytes(lock.map_or(none, |l| file_lock(&l)).as_bytes()),
            Err(e) => reply.error(&e),
        });
        service.fs.plocks().get(wanted, found);
    }

    /// FLUSH: an owner closes a file.
    pub(super) fn flush(&self, service: &Service, node: u64, handle: u64, owner: u64) {
        if let Ok(addr) = service.addr(node)
            && self.owners.lock().flushed(handle, (addr, owner))
        {
            service.fs.plocks().close(addr, owner);
        }
    }

    /// RELEASE: nobody has the handle open any more. `flock`: the owner of its flock.
    pub(super) fn release(&self, service: &Service, node: u64, handle: u64, flock: Option<u64>) {
        let gone = self.owners.lock().released(handle);
        for (addr, owner) in gone {
            service.fs.plocks().close(addr, owner);
        }
        if let (Some(owner), Ok(addr)) = (flock, service.addr(node)) {
            service.fs.unflock(addr, owner);
        }
    }
}

fn answer(reply: Reply, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(&e),
    }
}

fn plock(service: &Service, node: u64, ask: &LkIn) -> Result<Plock> {
    let lock = &ask.lock;
    let good = [F_RDLCK, F_WRLCK, F_UNLCK].contains(&lock.kind) && lock.start <= lock.end;
    let inode = service.addr(node)?;
    let (start, end) = (lock.start, lock.end.min(i64::MAX as u64));
    if !good || start > end {
        return Err(Error::Invalid);
    }
    Ok(Plock { inode, owner: ask.owner, pid: lock.pid, start, end, exclusive: lock.kind == F_WRLCK })
}

fn file_lock(lock: &Plock) -> FileLock {
    let kind = if lock.exclusive { F_WRLCK } else { F_RDLCK };
    FileLock { start: lock.start, end: lock.end, kind, pid: lock.pid }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_never_says_goodbye_goes_with_the_handle() {
        let addr = BlockAddr::new(5).expect("not 0");
        let mut owners = Owners::default();
        owners.locks(1, (addr, 100));
        owners.locks(1, (addr, 200));
        assert!(owners.flushed(1, (addr, 100)) && !owners.flushed(1, (addr, 100)));
        // The same process through another handle.
        owners.locks(2, (addr, 100));
        assert_eq!(owners.released(1), [(addr, 200)]);
        assert!(owners.flushed(2, (addr, 100)));
        assert!(owners.released(2).is_empty() && owners.locking.is_empty() && owners.by_handle.is_empty());
    }

    #[test]
    fn an_interrupt_that_comes_first_is_remembered() {
        let locks = Locks::default();
        let request = Request::Flock(BlockAddr::new(5).expect("not 0"), 8);
        locks.waiting.lock().strays.push_back(8);
        assert!(locks.register(8, request, &AtomicBool::new(false)));
        assert!(!locks.register(8, request, &AtomicBool::new(false)));
        assert!(locks.waiting.lock().requests.contains_key(&8));
        assert!(!locks.register(10, request, &AtomicBool::new(true)));
        assert!(!locks.waiting.lock().requests.contains_key(&10), "it has ended");
    }
}
