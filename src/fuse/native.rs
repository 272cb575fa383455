//! The transport of our own, from linux/fuse.h: what the fuser crate does not pass on (SYNCFS, who flushes and who locks,
//! what became of an invalidation) arrives here.
//!
//! `request.rs` turns bytes into an [`Op`](request::Op), `serve.rs` runs it through the [`Service`] as the other transport
//! does, `reply.rs` makes the answer, `channel.rs` is the open device.
//!
//! Threads take requests in turn (`turns.rs`); the one that meets DESTROY ends the session, and the kernel's umount(2) waits until
//! [`Farewell`] is dropped.

pub(super) mod abi;
mod channel;
mod data;
mod locks;
mod open;
mod reply;
mod request;
mod serve;
mod turns;

use super::dispatch::Dispatcher;
use super::kernel::{BACKGROUND, Kernel, MAX_IO, wanted};
use super::service::Service;
use crate::sync;
use abi::{InitOut, MAJOR, MINOR, init};
use channel::{Channel, Next};
use locks::Locks;
use reply::Reply;
use request::{Op, parse};
use rustix::io::Errno;
use serve::{After, Server};
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use turns::Turns;
use zerocopy::IntoBytes;

/// A request's data and what comes before it.
const BUFFER: usize = MAX_IO as usize + 4096;

/// Threads that serve requests, most of them asleep: so many disk reads of different programs can be under way.
const THREADS: usize = 16;

/// A session with the kernel.
pub(super) struct Session {
    server: Arc<Server>,
    turns: Arc<Turns>,
}

/// The kernel waits in umount(2) until this is dropped.
pub(super) struct Farewell(Option<Reply>);

impl Drop for Farewell {
    fn drop(&mut self) {
        if let Some(reply) = self.0.take() {
            reply.ok();
        }
    }
}

impl Session {
    /// Agrees with the kernel on the protocol. `device` is /dev/fuse, already mounted.
    pub(super) fn open(device: File, service: Service) -> io::Result<Self> {
        let readers = service.policy.readers.clamp(1, THREADS);
        let channel = Arc::new(Channel::new(device));
        let minor = agree(&channel, &service)?;
        let kernel = Arc::new(Kernel::default());
        kernel.set_minor(minor);
        kernel.set_voice(Arc::<Channel>::clone(&channel));
        kernel.keep_block_counts_fresh()?;
        let turns = Arc::new(Turns::new(readers));
        let dispatcher = Dispatcher::new(THREADS - 1)?;
        let service = Arc::new(service);
        if service.policy.is_shared() {
            kernel.answers_for(&service.fs);
        }
        let server = Arc::new(Server { service, dispatcher, kernel, channel, locks: Arc::new(Locks::default()) });
        Ok(Self { server, turns })
    }

    /// Serves until unmounted.
    pub(super) fn serve(self) -> io::Result<Farewell> {
        let (done, ended) = std::sync::mpsc::channel();
        for n in 0..THREADS {
            let (server, turns, done) = (Arc::clone(&self.server), Arc::clone(&self.turns), done.clone());
            std::thread::Builder::new().name(format!("gfs2r-fuse-{n}")).spawn(move || {
                // The receiver goes with the session: whoever comes later has nothing to add.
                let _ = done.send(read_requests(&server, &turns));
                // The others are to see the end too.
                turns.give();
            })?;
        }
        drop(done);
        // On DESTROY one thread ends, and the others with ENODEV when the kernel has its answer; otherwise all end at once.
        let farewell = ended.recv().map_err(|_| io::Error::other("the FUSE threads died"))?;
        self.server.kernel.end();
        farewell
    }
}

fn read_requests(server: &Server, turns: &Arc<Turns>) -> io::Result<Farewell> {
    let giving = Arc::clone(turns);
    sync::before_waits(move || giving.give());
    let mut buf = vec![0; BUFFER];
    loop {
        turns.take();
        match server.channel.next(&mut buf)? {
            Next::Gone => return Ok(Farewell(None)),
            Next::Request(len) => {
                // A bug in one request must not cost the thread: its turn to read would be lost. The request was answered
                // with EIO when its reply was dropped, and a panic within a change has made the mount withdraw.
                match catch_unwind(AssertUnwindSafe(|| server.serve(&buf[..len]))) {
                    Ok(After::Destroy(reply)) => return Ok(Farewell(Some(reply))),
                    Ok(After::Next) => {}
                    Err(_) => tracing::error!("a request ended in a panic"),
                }
            }
        }
    }
}

/// INIT, the first request. The kernel's protocol is 7.this.
fn agree(channel: &Arc<Channel>, service: &Service) -> io::Result<u32> {
    let mut buf = vec![0; BUFFER];
    loop {
        let Next::Request(len) = channel.next(&mut buf)? else {
            return Err(io::Error::other("unmounted before the first request"));
        };
        let (head, op) = parse(&buf[..len]).map_err(|_| io::Error::other("the first request is malformed"))?;
        let reply = Reply::new(Arc::clone(channel), head.unique);
        let Op::Init { version, flags2 } = op else {
            reply.errno(Errno::IO);
            continue;
        };
        if version.major > MAJOR {
            // The kernel speaks ours when it hears which that is, and asks again.
            reply.bytes(InitOut { major: MAJOR, minor: MINOR, ..InitOut::default() }.as_bytes());
            continue;
        }
        if (version.major, version.minor) < (MAJOR, 31) {
            reply.errno(Errno::PROTO);
            return Err(io::Error::other(format!(
                "the kernel's FUSE protocol {}.{} is too old (7.31 at least)",
                version.major, version.minor
            )));
        }
        let offered = u64::from(version.flags) | u64::from(flags2) << 32;
        let flags = (wanted(service) | init::INIT_EXT) & offered;
        tracing::debug!("FUSE {}.{}, flags {flags:#x} of {offered:#x}", version.major, version.minor);
        let out = InitOut {
            major: MAJOR,
            minor: MINOR.min(version.minor),
            max_readahead: version.max_readahead.min(MAX_IO),
            flags: flags as u32,
            max_background: BACKGROUND.0,
            congestion_threshold: BACKGROUND.1,
            max_write: MAX_IO,
            time_gran: 1,
            max_pages: (MAX_IO / 4096) as u16,
            flags2: (flags >> 32) as u32,
            ..InitOut::default()
        };
        reply.bytes(out.as_bytes());
        return Ok(version.minor);
    }
}
