//! Nodes on this machine: a disk image, a network, a daemon and a mount for each. Nothing of it is left when it is dropped.

use crate::disk::{self, Mood};
use crate::fence;
use crate::history::{Incarnation, now};
use crate::job::{JOB, Job, Started, stack_of};
use crate::net::Net;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

#[path = "lab/trouble.rs"]
mod trouble;

/// Silence after which a node is declared dead, in milliseconds.
pub const TOKEN_MS: u64 = 1000;

/// A mount takes this long at most, also after a death.
const MOUNT_LIMIT: Duration = Duration::from_secs(60);
const UMOUNT_LIMIT: Duration = Duration::from_secs(60);

/// A mount that was made, for telling whose answers are whose.
#[derive(Clone, Debug)]
pub struct Mounting {
    pub node: u32,
    pub since: u64,
    pub faulty: Option<u64>,
    pub killed: Option<u64>,
}

pub struct Node {
    pub number: u32,
    pub dir: PathBuf,
    pub daemon: Option<Child>,
    /// Index in [`Lab::mountings`].
    pub mounting: usize,
    pub workers: Vec<Started>,
}

impl Node {
    pub fn mnt(&self) -> PathBuf {
        self.dir.join("mnt")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Starts its umount.
    fn umount(&self) -> io::Result<Child> {
        let file = File::create(self.dir.join("umount"))?;
        Command::new("timeout")
            .args(["-s", "KILL", &UMOUNT_LIMIT.as_secs().to_string()])
            .arg(program("umount.gfs2r"))
            .arg(self.mnt())
            .env("GFS2R_RUN_DIR", self.dir.join("run"))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
    }

    /// The last lines of the daemon's log.
    pub fn log_tail(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n    ")
    }
}

/// What the nodes are.
enum Kind {
    /// All use one directory of this machine.
    Plain,
    /// One mount, without a cluster.
    Alone,
    /// Mounts in one process, which passes the locks itself.
    Hall,
    /// Mounts in a cluster.
    Cluster(Net),
    /// The same, and each node's way to the disk can be made worse.
    Moody(Net),
}

pub struct Lab {
    // Nodes first: dropped in this order.
    pub nodes: Vec<Node>,
    kind: Kind,
    pub mountings: Vec<Mounting>,
    folder: Option<tempfile::TempDir>,
}

/// A program of ours: of the folder `PROGRAMS` (so that a long run keeps its own), or beside the one that cargo built for
/// this test.
pub fn program(name: &str) -> PathBuf {
    match std::env::var_os("PROGRAMS") {
        Some(folder) => Path::new(&folder).join(name),
        None => Path::new(env!("CARGO_BIN_EXE_gfs2r")).with_file_name(name),
    }
}

/// What this machine lacks for a cluster of mounts.
pub fn lacks() -> Option<&'static str> {
    let has =
        |name: &str| Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !rustix::process::geteuid().is_root() {
        Some("root")
    } else if !Path::new("/dev/fuse").exists() {
        Some("/dev/fuse")
    } else if !has("mkfs.gfs2") {
        Some("mkfs.gfs2")
    } else if !has("ip") || !has("nsenter") {
        Some("ip and nsenter")
    } else if !has("python3") {
        Some("python3")
    } else {
        None
    }
}

impl Lab {
    /// Nodes without a filesystem: all use one directory of this machine.
    pub fn plain(nodes: u32) -> io::Result<Self> {
        let mut lab = Self::folders(nodes)?;
        let shared = lab.dir().join("shared");
        fs::create_dir(&shared)?;
        for node in &mut lab.nodes {
            fs::remove_dir(node.mnt())?;
            std::os::unix::fs::symlink(&shared, node.mnt())?;
            node.mounting = lab.mountings.len();
            lab.mountings.push(Mounting { node: node.number, since: now(), faulty: None, killed: None });
        }
        Ok(lab)
    }

    /// One node without a cluster, formatted, not mounted yet.
    pub fn alone() -> io::Result<Self> {
        let mut lab = Self::folders(1)?;
        lab.format(&["-j", "1", "-p", "lock_nolock"])?;
        lab.kind = Kind::Alone;
        Ok(lab)
    }

    /// Nodes in one process.
    pub fn hall(nodes: u32) -> io::Result<Self> {
        let mut lab = Self::folders(nodes)?;
        lab.format(&["-j", &nodes.to_string(), "-p", "lock_nolock"])?;
        lab.kind = Kind::Hall;
        Ok(lab)
    }

    fn format(&self, options: &[&str]) -> io::Result<()> {
        let image = self.image();
        File::create(&image)?.set_len(2 << 30)?;
        let out = Command::new("mkfs.gfs2").args(["-O", "-q", "-J", "8"]).args(options).arg(&image).output()?;
        let said = String::from_utf8_lossy(&out.stderr);
        if out.status.success() { Ok(()) } else { Err(io::Error::other(format!("mkfs.gfs2: {said}"))) }
    }

    /// A cluster whose daemons run in this test's program, for [`Lab::mood`].
    pub fn moody(nodes: u32) -> io::Result<Self> {
        let mut lab = Self::cluster(nodes)?;
        if let Kind::Cluster(net) = std::mem::replace(&mut lab.kind, Kind::Plain) {
            lab.kind = Kind::Moody(net);
        }
        Ok(lab)
    }

    /// A cluster, formatted, nothing mounted yet.
    pub fn cluster(nodes: u32) -> io::Result<Self> {
        let mut lab = Self::folders(nodes)?;
        lab.format(&["-j", &nodes.to_string(), "-p", "lock_dlm", "-t", "lab:shared"])?;
        let agent = lab.dir().join("fence");
        let job = serde_json::to_string(&Job::Fence { lab: lab.dir().to_owned() })?;
        let exe = std::env::current_exe()?;
        let text = format!("#!/bin/sh\n{JOB}='{job}' exec {} child --exact --nocapture\n", exe.display());
        fs::write(&agent, text)?;
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755))?;
        let mut file = format!("name = \"lab\"\ntoken_ms = {TOKEN_MS}\n");
        for n in 1..=nodes {
            file += &format!("\n[[node]]\nid = {n}\nname = \"node{n}\"\naddress = \"{}\"\n", Net::address(n));
            file += &format!("[node.fence]\nagent = \"{}\"\n", agent.display());
        }
        fs::write(lab.dir().join("cluster.toml"), file)?;
        lab.kind = Kind::Cluster(Net::new(nodes)?);
        Ok(lab)
    }

    fn folders(nodes: u32) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("gfs2r-cluster-").tempdir()?;
        let mut all = Vec::new();
        for number in 1..=nodes {
            let dir = folder.path().join(format!("node{number}"));
            fs::create_dir_all(dir.join("mnt"))?;
            fs::create_dir(dir.join("run"))?;
            all.push(Node { number, dir, daemon: None, mounting: 0, workers: Vec::new() });
        }
        Ok(Self { nodes: all, kind: Kind::Plain, mountings: Vec::new(), folder: Some(folder) })
    }

    pub fn dir(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new("/nonexistent"), |f| f.path())
    }

    pub fn image(&self) -> PathBuf {
        self.dir().join("disk.img")
    }

    /// True for nodes without a filesystem of ours.
    pub fn is_plain(&self) -> bool {
        matches!(self.kind, Kind::Plain)
    }

    /// Leaves the files for a look afterwards.
    pub fn keep(&mut self) -> PathBuf {
        self.folder.take().map(tempfile::TempDir::keep).unwrap_or_default()
    }

    /// Mounts these nodes (by index) together: a majority must be up before the first is served.
    pub fn mount(&mut self, which: &[usize]) -> Result<(), String> {
        if self.is_plain() {
            return Ok(());
        }
        if matches!(self.kind, Kind::Hall) {
            self.start_hall().map_err(|e| e.to_string())?;
        } else {
            for &i in which {
                self.start_daemon(i).map_err(|e| e.to_string())?;
            }
        }
        let until = Instant::now() + MOUNT_LIMIT;
        let mut waiting = which.to_vec();
        while !waiting.is_empty() {
            let mut still = Vec::new();
            for &i in &waiting {
                let node = &mut self.nodes[i];
                if let Some(status) = node.daemon.as_mut().and_then(|d| d.try_wait().ok().flatten()) {
                    return Err(format!("node{}: mount ended: {status}\n    {}", node.number, node.log_tail()));
                }
                if !is_mounted(&node.mnt()) {
                    still.push(i);
                }
            }
            waiting = still;
            if Instant::now() > until {
                let said: Vec<String> = waiting
                    .iter()
                    .map(|i| &self.nodes[*i])
                    .map(|n| {
                        let stack = n.daemon.as_ref().map(|d| stack_of(d.id())).unwrap_or_default();
                        format!("node{}: not mounted after {MOUNT_LIMIT:?}\n    {}\n{stack}", n.number, n.log_tail())
                    })
                    .collect();
                return Err(said.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn start_hall(&mut self) -> io::Result<()> {
        let mounts = self.nodes.iter().map(Node::mnt).collect();
        let job = Job::Serve { image: self.image(), mounts };
        let since = now();
        for node in &mut self.nodes {
            node.mounting = self.mountings.len();
            self.mountings.push(Mounting { node: node.number, since, faulty: None, killed: None });
        }
        let node = self.nodes.first_mut().ok_or(io::ErrorKind::NotFound)?;
        let log = File::options().create(true).append(true).open(node.log())?;
        node.daemon = Some(Started::command(&job)?.stdout(log.try_clone()?).stderr(log).spawn()?);
        Ok(())
    }

    fn start_daemon(&mut self, i: usize) -> io::Result<()> {
        let (image, helper) = (self.image(), program("mount.gfs2r"));
        let (mut command, options) = match &self.kind {
            Kind::Plain | Kind::Hall => return Ok(()),
            Kind::Alone => (Command::new(helper), "fg".to_owned()),
            Kind::Cluster(net) | Kind::Moody(net) => {
                let number = u32::try_from(i).unwrap_or(0) + 1;
                let file = self.dir().join("cluster.toml");
                let exe = if matches!(self.kind, Kind::Moody(_)) { std::env::current_exe()? } else { helper };
                (net.command(number, &exe), format!("fg,cluster={},node=node{number}", file.display()))
            }
        };
        let node = self.nodes.get_mut(i).ok_or(io::ErrorKind::NotFound)?;
        node.mounting = self.mountings.len();
        let mut log = File::options().create(true).append(true).open(node.log())?;
        writeln!(log, "{}", Self::mark(node.mounting))?;
        self.mountings.push(Mounting { node: node.number, since: now(), faulty: None, killed: None });
        if matches!(self.kind, Kind::Moody(_)) {
            let (disk, dir) = (image.display().to_string(), node.mnt().display().to_string());
            let arguments = vec!["mount.gfs2r".to_owned(), disk, dir, "-o".to_owned(), options];
            disk::tell(&node.dir, Mood::Well)?;
            Started::tell(&mut command, &Job::Mount { arguments, folder: node.dir.clone() })?;
        } else {
            command.arg(image).arg(node.mnt()).args(["-o", &options]);
        }
        let child = command
            .env("GFS2R_RUN_DIR", node.dir.join("run"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        node.daemon = Some(child);
        Ok(())
    }

    /// Unmounts these nodes, all at the same time.
    pub fn umount(&mut self, which: &[usize]) -> Result<(), String> {
        if self.is_plain() {
            return Ok(());
        }
        if matches!(self.kind, Kind::Hall) {
            return self.umount_hall();
        }
        let mut helpers = Vec::new();
        for &i in which {
            helpers.push((i, self.nodes[i].umount().map_err(|e| e.to_string())?));
        }
        let mut wrong = Vec::new();
        for (i, mut helper) in helpers {
            let out = self.nodes[i].dir.join("umount");
            if end_of(Some(&mut helper), Duration::from_secs(2)).is_none() {
                let node = &self.nodes[i];
                let stack = node.daemon.as_ref().map(|d| stack_of(d.id())).unwrap_or_default();
                println!("  node{} is slow to leave:\n{stack}\n{}", node.number, stack_of(helper.id()));
            }
            let mut status = helper.wait().map_err(|e| e.to_string())?;
            // A process that was killed a moment ago may still be on its way out.
            let until = Instant::now() + Duration::from_secs(5);
            while !status.success()
                && Instant::now() < until
                && fs::read_to_string(&out).is_ok_and(|t| t.contains("busy") || t.contains("in use"))
            {
                std::thread::sleep(Duration::from_millis(100));
                let again = self.nodes[i].umount().and_then(|mut h| h.wait());
                status = again.map_err(|e| e.to_string())?;
            }
            let node = &mut self.nodes[i];
            let ended = status.success().then(|| end_of(node.daemon.as_mut(), Duration::from_secs(10)));
            let said = fs::read_to_string(out).unwrap_or_default();
            match ended {
                Some(Some(end)) if end.success() => node.daemon = None,
                Some(end) => {
                    wrong.push(format!("node{}: its daemon ended with {end:?}\n    {}", node.number, node.log_tail()))
                }
                None => {
                    let stack = node.daemon.as_ref().map(|d| stack_of(d.id())).unwrap_or_default();
                    wrong.push(format!(
                        "node{}: umount: {status}: {said}\n    {}\n{stack}",
                        node.number,
                        node.log_tail()
                    ));
                }
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    fn umount_hall(&mut self) -> Result<(), String> {
        for node in &self.nodes {
            let out = Command::new("timeout").args(["-s", "KILL", "60", "umount"]).arg(node.mnt()).output();
            let out = out.map_err(|e| e.to_string())?;
            if !out.status.success() {
                return Err(format!("node{}: umount: {}", node.number, String::from_utf8_lossy(&out.stderr)));
            }
        }
        let node = &mut self.nodes[0];
        match end_of(node.daemon.as_mut(), Duration::from_secs(20)) {
            Some(end) if end.success() => node.daemon = None,
            end => return Err(format!("the hall ended with {end:?}\n    {}", node.log_tail())),
        }
        Ok(())
    }

    /// What the daemons know of their locks, and the ends of their logs.
    pub fn locks(&self) -> String {
        let mut text = String::new();
        if matches!(self.kind, Kind::Hall) {
            let asked = File::create(self.image().with_extension(crate::serve::ASK));
            std::thread::sleep(Duration::from_secs(1));
            return self.nodes.first().filter(|_| asked.is_ok()).map_or(text, Node::log_tail);
        }
        for node in &self.nodes {
            // From a process of its own: the daemon may not answer.
            let out = Command::new("timeout")
                .args(["-s", "KILL", "5"])
                .arg(program("gfs2r"))
                .arg("glocks")
                .arg(node.mnt())
                .env("GFS2R_RUN_DIR", node.dir.join("run"))
                .output();
            let said = out.map(|o| [o.stdout, o.stderr].concat()).unwrap_or_default();
            let said = String::from_utf8_lossy(&said);
            text += &format!(
                "node{} locks:\n{}\n  log:\n    {}\n",
                node.number,
                crate::serve::busy(&said),
                node.log_tail()
            );
        }
        text
    }

    /// When the present daemon of this node was fenced.
    pub fn fenced(&self, i: usize) -> Option<u64> {
        let node = &self.nodes[i];
        let since = self.mountings.get(node.mounting)?.since;
        fence::book(self.dir()).into_iter().find(|(n, at)| *n == node.number && *at > since).map(|(_, at)| at)
    }

    /// True while the daemon is there.
    pub fn lives(&mut self, i: usize) -> bool {
        let i = if matches!(self.kind, Kind::Hall) { 0 } else { i };
        self.is_plain() || self.nodes[i].daemon.as_mut().is_some_and(|d| matches!(d.try_wait(), Ok(None)))
    }

    /// The mounts as the checker wants them.
    pub fn incarnations(&self) -> Vec<Incarnation> {
        self.mountings.iter().map(|m| Incarnation { node: m.node, faulty: m.faulty, killed: m.killed }).collect()
    }

    /// Both checkers, on an unmounted disk.
    pub fn fsck(&self) -> Result<(), String> {
        if self.is_plain() {
            return Ok(());
        }
        self.check_with("fsck.gfs2", &PathBuf::from("fsck.gfs2"))?;
        self.fsck_ours()
    }

    /// Our own checker alone: it knows unlinked inodes from lost blocks.
    pub fn fsck_ours(&self) -> Result<(), String> {
        self.check_with("fsck.gfs2r", &program("fsck.gfs2r"))
    }

    fn check_with(&self, what: &str, path: &Path) -> Result<(), String> {
        let out = Command::new(path).arg("-n").arg(self.image()).output();
        let out = match out {
            Ok(out) => out,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                println!("SKIPPED: {what} is not there");
                return Ok(());
            }
            Err(e) => return Err(format!("{what}: {e}")),
        };
        let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        let dirty = text.lines().any(|l| l.contains("is dirty") || l.contains("not clean"));
        if !out.status.success() || dirty {
            let lines: Vec<&str> = text.lines().filter(|l| !l.contains("pass")).take(60).collect();
            return Err(format!("{what} -n: {}\n    {}", out.status, lines.join("\n    ")));
        }
        Ok(())
    }
}

fn end_of(child: Option<&mut Child>, limit: Duration) -> Option<ExitStatus> {
    let child = child?;
    let until = Instant::now() + limit;
    loop {
        let ended = child.try_wait().ok().flatten();
        if ended.is_some() || Instant::now() > until {
            return ended;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

pub fn is_mounted(dir: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.contains(&format!(" {} ", dir.display()))
}

/// Removes what is mounted there, whatever state it is in.
fn detach(dir: &Path) {
    for _ in 0..3 {
        if !is_mounted(dir) {
            return;
        }
        if let Err(e) = rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH) {
            eprintln!("umount -l {}: {e}", dir.display());
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.workers.iter_mut().for_each(Started::kill);
        if let Some(daemon) = &mut self.daemon {
            // It may have ended by itself.
            let _gone = daemon.kill();
            if end_of(Some(daemon), Duration::from_secs(10)).is_none() {
                eprintln!("node{}: the killed daemon does not end", self.number);
            }
        }
        detach(&self.mnt());
    }
}
