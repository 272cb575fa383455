//! Several mounts of one volume in this process, which passes their locks: a cluster that cannot fail.

use crate::hall::Hall;
use gfs2r::clock::SystemClock;
use gfs2r::device::{BlockDevice, FileDevice, OpenMode};
use gfs2r::fs::LockDone;
use gfs2r::fs::plock::{Found, LocalPlocks, Plock, Plocks};
use gfs2r::fuse::{self, AtimeSwitch, Disk, MountSpec, Policy, Service, Transport};
use gfs2r::ids::{BlockAddr, Jid};
use gfs2r::volume::{Mounter, OpenOptions, Opened, open_shared};
use rustix::mount::MountFlags;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// One keeper of byte-range locks for all nodes: a node's owners get its number.
struct Owners(Arc<LocalPlocks>, u64);

impl Owners {
    fn named(&self, lock: Plock) -> Plock {
        Plock { owner: lock.owner.wrapping_mul(64) + self.1, ..lock }
    }
}

impl Plocks for Owners {
    fn lock(&self, lock: Plock, ticket: u64, wait: bool, done: LockDone) {
        // Tickets are a mount's own, as owners are.
        self.0.lock(self.named(lock), ticket.wrapping_mul(64) + self.1, wait, done);
    }
    fn cancel(&self, inode: BlockAddr, ticket: u64) {
        self.0.cancel(inode, ticket.wrapping_mul(64) + self.1);
    }
    fn unlock(&self, lock: Plock, done: LockDone) {
        self.0.unlock(self.named(lock), done);
    }
    fn close(&self, inode: BlockAddr, owner: u64) {
        self.0.close(inode, owner.wrapping_mul(64) + self.1);
    }
    fn get(&self, lock: Plock, found: Found) {
        self.0.get(self.named(lock), found);
    }
}

/// A file of this name beside the image asks for the locks of all nodes.
pub const ASK: &str = "ask";

/// Mounts and serves until all are unmounted.
pub fn run(image: &Path, mounts: &[PathBuf]) -> io::Result<()> {
    let device: Arc<dyn BlockDevice> = Arc::new(FileDevice::open(image, OpenMode::ReadWriteShared)?);
    let (hall, plocks) = (Hall::open(), Arc::new(LocalPlocks::default()));
    let mut served = Vec::new();
    for (n, target) in mounts.iter().enumerate() {
        let mounter = if n == 0 { Mounter::First } else { Mounter::Joining };
        let options = OpenOptions { jid: Jid(u32::try_from(n).unwrap_or(0)), ..OpenOptions::default() };
        let opened = open_shared(Arc::clone(&device), &options, Arc::new(SystemClock), hall.node(n), mounter);
        let opened = Arc::new(opened.map_err(|e| io::Error::other(e.to_string()))?);
        opened.fs.volume().inodes.hold_at_most(Duration::from_millis(2));
        opened.fs.set_plocks(Arc::new(Owners(Arc::clone(&plocks), n as u64)));
        let service = Service {
            fs: Arc::clone(&opened.fs),
            policy: Policy::shared(),
            atime: Arc::new(AtimeSwitch::default()),
            nodiratime: false,
            label: b"test:hall".to_vec(),
        };
        let spec = MountSpec {
            source: PathBuf::from("hall"),
            target: target.clone(),
            flags: MountFlags::empty(),
            disk: Disk::Image { block_size: 4096 },
            transport: Transport::Native,
        };
        let session = fuse::mount(&spec, service, None).map_err(|e| io::Error::other(format!("{e:?}")))?;
        served.push((std::thread::spawn(move || session.serve()), opened));
    }
    let all: Vec<Arc<Opened>> = served.iter().map(|(_, opened)| Arc::clone(opened)).collect();
    let asked = image.with_extension(ASK);
    std::thread::spawn(move || {
        while std::fs::remove_file(&asked).is_err() {
            std::thread::sleep(Duration::from_millis(100));
        }
        for (n, opened) in all.iter().enumerate() {
            let dump = opened.fs.volume().inodes.dump();
            println!("node{}'s locks that are used or waited for:\n{}", n + 1, busy(&dump));
        }
    });
    let mut opened = Vec::new();
    for (thread, volume) in served {
        match thread.join() {
            Ok(Ok(_ended)) => opened.push(volume),
            Ok(Err(e)) => return Err(e),
            Err(_panic) => return Err(io::Error::other("a session panicked")),
        }
    }
    opened.iter().try_for_each(|o| o.close().map_err(|e| io::Error::other(e.to_string())))
}

/// Of a dump of locks, those with holders, or on their way.
pub fn busy(dump: &str) -> String {
    let mut kept = String::new();
    let mut block: Vec<&str> = Vec::new();
    for line in dump.lines().chain(["G:"]) {
        if line.trim_start().starts_with("G:") {
            let under_way = block.first().and_then(|g| g.split("f:").nth(1)?.split(' ').next());
            let under_way = under_way.is_some_and(|flags| flags.contains(['l', 'D', 'r']));
            if under_way || block.iter().any(|l| l.contains("H:")) {
                kept += &(block.join("\n") + "\n");
            }
            block.clear();
        }
        block.push(line);
    }
    kept
}
