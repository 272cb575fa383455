//! Two mounts of one volume, served by this process; programs that use them are processes of their own, each with a deadline.

use crate::hall::Hall;
use crate::support;
use gfs2r::clock::SystemClock;
use gfs2r::device::MemoryDevice;
use gfs2r::fuse::{self, AtimeSwitch, Disk, MountSpec, Policy, Service, Transport};
use gfs2r::ids::Jid;
use gfs2r::volume::{Mounter, OpenOptions, Opened, open_shared};
use rustix::mount::MountFlags;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// No program of these tests needs longer for anything.
const DEADLINE: Duration = Duration::from_secs(20);

/// A mounted node.
struct Node {
    opened: Arc<Opened>,
    target: PathBuf,
    served: Option<JoinHandle<()>>,
}

/// Two nodes.
pub(crate) struct Rig {
    pub(crate) hall: Arc<Hall>,
    device: Arc<MemoryDevice>,
    nodes: Vec<Node>,
    folder: tempfile::TempDir,
}

/// A program, see worker.py.
pub(crate) struct Program {
    child: Child,
    said: Receiver<String>,
}

impl Rig {
    /// `None`, loudly, where this cannot run.
    pub(crate) fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() || !Path::new("/dev/fuse").exists() {
            println!("SKIPPED: needs root and /dev/fuse");
            return None;
        }
        if Command::new("python3").arg("-c").arg("").status().is_err() {
            println!("SKIPPED: needs python3");
            return None;
        }
        let device = Arc::new(MemoryDevice::new(192 << 20));
        support::format(&*device, 4096, 2, 1802, 7);
        let mut rig =
            Self { hall: Hall::open(), device, nodes: Vec::new(), folder: tempfile::tempdir().expect("a folder") };
        for (jid, mounter) in [(0, Mounter::First), (1, Mounter::Joining)] {
            let node = rig.mount(jid, mounter);
            rig.nodes.push(node);
        }
        Some(rig)
    }

    fn mount(&self, jid: u32, mounter: Mounter) -> Node {
        let options = OpenOptions { jid: Jid(jid), ..OpenOptions::default() };
        let manager = self.hall.node(jid as usize);
        let opened = open_shared(self.device.clone(), &options, Arc::new(SystemClock), manager, mounter);
        let opened = Arc::new(opened.unwrap_or_else(|e| panic!("open: {e}")));
        opened.fs.volume().inodes.hold_at_most(Duration::from_millis(2));
        let target = self.folder.path().join(format!("node{jid}"));
        std::fs::create_dir(&target).expect("a mount point");
        let service = Service {
            fs: Arc::clone(&opened.fs),
            policy: Policy::shared(),
            atime: Arc::new(AtimeSwitch::default()),
            nodiratime: false,
            label: b"test:coherence".to_vec(),
        };
        let spec = MountSpec {
            source: PathBuf::from("coherence"),
            target: target.clone(),
            flags: MountFlags::empty(),
            disk: Disk::Image { block_size: 4096 },
            transport: Transport::Native,
        };
        let session = fuse::mount(&spec, service, None).expect("mounts");
        let served = std::thread::spawn(move || {
            // Its error would be the mount's, which the programs see.
            let _ = session.serve();
        });
        Node { opened, target, served: Some(served) }
    }

    /// A path on a node's mount, as a Python string.
    pub(crate) fn path(&self, node: usize, name: &str) -> String {
        format!("{:?}", self.nodes[node].target.join(name).display().to_string())
    }

    /// A path outside of the mounts, as a Python string.
    pub(crate) fn outside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a program.
    pub(crate) fn program(&self) -> Program {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/coherence/worker.py");
        let mut child = Command::new("python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        let (send, said) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Program { child, said }
    }

    /// Glocks of both nodes that are not at rest, for whoever looks for a hang.
    pub(crate) fn dump(&self) -> String {
        let mut out = String::new();
        for (n, node) in self.nodes.iter().enumerate() {
            let volume = node.opened.fs.volume();
            let dump = volume.inodes.dump() + &volume.bare.dump();
            // A glock with those who hold it or wait.
            let glocks = dump.split("G:").filter(|g| g.contains(" H:") || g.contains("f:l"));
            out.push_str(&format!("node {n}:\n{}\n", glocks.collect::<Vec<_>>().join("G:")));
        }
        out
    }

    /// What a program says to a line, with the deadline; a hang is reported and undone.
    pub(crate) fn ask(&self, program: &mut Program, line: &str) -> String {
        program.start(line);
        self.answer(program)
    }

    /// What a program says to the line that was started.
    pub(crate) fn answer(&self, program: &mut Program) -> String {
        match program.said.recv_timeout(DEADLINE) {
            Ok(said) => said,
            Err(e) => {
                let dump = self.dump();
                self.abort();
                panic!("no answer: {e}\n{dump}");
            }
        }
    }

    /// The kernel gives up whatever it waits for.
    fn abort(&self) {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        for node in &self.nodes {
            let target = node.target.display().to_string();
            let line = mounts.lines().find(|l| l.split(' ').nth(4) == Some(&target));
            if let Some(minor) = line.and_then(|l| l.split(' ').nth(2)).and_then(|dev| dev.split(':').nth(1)) {
                // It may be gone already.
                let _ = std::fs::write(format!("/sys/fs/fuse/connections/{minor}/abort"), "1");
            }
        }
    }

    /// Grants that somebody had to make room for, so far.
    pub(crate) fn handed_over(&self) -> u64 {
        self.hall.handed_over.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn unmount(&mut self) {
        for node in &mut self.nodes {
            let Some(served) = node.served.take() else { continue };
            let umount = Command::new("timeout").args(["-s", "KILL", "20", "umount"]).arg(&node.target).status();
            if !umount.is_ok_and(|s| s.success()) {
                // Lazily: a program may still have something open.
                let _ = Command::new("timeout").args(["-s", "KILL", "20", "umount", "-l"]).arg(&node.target).status();
            }
            let (send, ended) = channel();
            std::thread::spawn(move || {
                // The receiver goes when it has waited long enough.
                let _ = send.send(served.join());
            });
            if ended.recv_timeout(Duration::from_secs(20)).is_err() {
                println!("a session did not end");
            }
        }
    }

    /// Unmounts both nodes and checks the disk.
    pub(crate) fn finish(mut self) {
        self.unmount();
        for node in &self.nodes {
            node.opened.close().expect("closes");
        }
        support::check(&*self.device, "after two nodes");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abort();
        }
        self.unmount();
    }
}

impl Program {
    /// Starts a line; [`Rig::answer`] waits for what comes of it.
    pub(crate) fn start(&mut self, line: &str) {
        let stdin = self.child.stdin.as_mut().expect("a pipe");
        writeln!(stdin, "{line}").expect("the program listens");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
