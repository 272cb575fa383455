//! A cluster of gfs2r's daemons on this machine: one disk image, a mount for each. Nothing of it is left when it is dropped.

use crate::network::own_address;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(60);

/// Kills the node's daemon and waits until it is gone: on one machine that is what fencing means.
const AGENT: &str = r#"#!/usr/bin/env bash
while IFS='=' read -r key value; do [ "$key" = node ] && node=$value; done
pid=$(cat "DIR/$node/run"/*/pid 2>/dev/null | sort -u | head -n 1); [ -n "$pid" ] || exit 0
kill -KILL "$pid" 2>/dev/null
for _ in $(seq 200); do grep -qs '^State:.[^ZX]' "/proc/$pid/status" || exit 0; sleep 0.02; done
exit 1
"#;

/// Nodes with numbers from 1 on.
pub struct Nodes {
    dir: PathBuf,
    programs: PathBuf,
    image: PathBuf,
    daemons: Vec<Option<Child>>,
}

/// The cluster's file: nodes of these numbers and addresses, a fence agent, how long silence may last.
pub fn cluster_file(addresses: &[(u32, std::net::Ipv4Addr)], agent: &str, token_ms: u64) -> String {
    let mut text = format!("name = \"lab\"\ntoken_ms = {token_ms}\n");
    for (n, address) in addresses {
        text += &format!("\n[[node]]\nid = {n}\nname = \"node{n}\"\naddress = \"{address}\"\n");
        text += &format!("[node.fence]\nagent = \"{agent}\"\n");
    }
    text
}

impl Nodes {
    /// `count` nodes on `image`, in the folder `dir`, which exists; nothing is mounted. `programs` is where the programs are.
    ///
    /// # Errors
    /// When something cannot be written.
    pub fn new(dir: &Path, programs: &Path, image: &Path, count: u32, token_ms: u64) -> Result<Nodes, String> {
        let make = || -> std::io::Result<()> {
            for n in 1..=count {
                fs::create_dir_all(dir.join(format!("{n}/mnt")))?;
                fs::create_dir_all(dir.join(format!("{n}/run")))?;
            }
            let agent = dir.join("fence");
            fs::write(&agent, AGENT.replace("DIR", &dir.to_string_lossy()))?;
            fs::set_permissions(&agent, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            let addresses: Vec<_> = (1..=count).map(|n| (n, own_address(n))).collect();
            fs::write(dir.join("cluster.toml"), cluster_file(&addresses, &agent.to_string_lossy(), token_ms))
        };
        make().map_err(|error| format!("{}: {error}", dir.display()))?;
        let daemons = (0..count).map(|_| None).collect();
        Ok(Nodes { dir: dir.to_owned(), programs: programs.to_owned(), image: image.to_owned(), daemons })
    }

    fn all(&self) -> Vec<u32> {
        (1..).zip(&self.daemons).map(|(n, _)| n).collect()
    }

    /// Where a node has it mounted.
    pub fn mnt(&self, node: u32) -> PathBuf {
        self.dir.join(format!("{node}/mnt"))
    }

    /// A program of ours, as a node runs it, ended by force after two minutes.
    pub fn ours(&self, node: u32, name: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "120"]).arg(self.programs.join(name));
        command.env("GFS2R_RUN_DIR", self.dir.join(format!("{node}/run")));
        command
    }

    /// The process of a node's daemon.
    pub fn daemon(&self, node: u32) -> Option<u32> {
        self.daemons.get(node as usize - 1)?.as_ref().map(Child::id)
    }

    fn start(&mut self, node: u32) -> std::io::Result<()> {
        let log = File::options().create(true).append(true).open(self.dir.join(format!("{node}/log")))?;
        let daemon = Command::new(self.programs.join("mount.gfs2r"))
            .arg(&self.image)
            .arg(self.mnt(node))
            .args(["-o", &format!("fg,cluster={},node=node{node}", self.dir.join("cluster.toml").display())])
            .env("GFS2R_RUN_DIR", self.dir.join(format!("{node}/run")))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        if let Some(slot) = self.daemons.get_mut(node as usize - 1) {
            *slot = Some(daemon);
        }
        Ok(())
    }

    /// Mounts on these nodes: most of all must be up before the first is served.
    ///
    /// # Errors
    /// When one does not come up, with the end of its log.
    pub fn mount(&mut self, nodes: &[u32]) -> Result<(), String> {
        nodes.iter().try_for_each(|&node| self.start(node)).map_err(|error| error.to_string())?;
        let until = Instant::now() + LIMIT;
        for &node in nodes {
            while !is_mounted(&self.mnt(node)) {
                let slot = self.daemons.get_mut(node as usize - 1).and_then(Option::as_mut);
                let ended = slot.is_none_or(|daemon| !matches!(daemon.try_wait(), Ok(None)));
                if ended || Instant::now() > until {
                    return Err(format!("node {node} does not mount:\n{}", self.log(node)));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    /// [`mount`](Nodes::mount) on all.
    ///
    /// # Errors
    /// As there.
    pub fn mount_all(&mut self) -> Result<(), String> {
        self.mount(&self.all())
    }

    /// Kills a node's daemon and waits for nothing; [`kill`](Nodes::kill) does the rest.
    ///
    /// # Errors
    /// When there is none.
    pub fn strike(&mut self, node: u32) -> Result<(), String> {
        let daemon = self.daemons.get_mut(node as usize - 1).and_then(Option::as_mut).ok_or("no daemon")?;
        daemon.kill().map_err(|error| error.to_string())
    }

    /// The power of all these goes at once: their daemons are killed where they stand.
    pub fn kill(&mut self, nodes: &[u32]) {
        let mut dead = Vec::new();
        for &node in nodes {
            if let Some(mut daemon) = self.daemons.get_mut(node as usize - 1).and_then(Option::take) {
                // One that has ended by itself is as dead.
                let _gone = daemon.kill();
                dead.push(daemon);
            }
        }
        for mut daemon in dead {
            if let Err(error) = daemon.wait() {
                eprintln!("daemon {}: {error}", daemon.id());
            }
        }
        for &node in nodes {
            // Nothing is mounted if it was killed before it mounted.
            let _gone = Command::new("umount").arg("-l").arg(self.mnt(node)).stderr(Stdio::null()).status();
        }
    }

    /// [`kill`](Nodes::kill) of all.
    pub fn kill_all(&mut self) {
        self.kill(&self.all());
    }

    /// Unmounts one node in order.
    ///
    /// # Errors
    /// What the program said.
    pub fn umount(&mut self, node: u32) -> Result<(), String> {
        must(self.ours(node, "umount.gfs2r").arg(self.mnt(node)))?;
        let daemon = self.daemons.get_mut(node as usize - 1).and_then(Option::take);
        let ended = daemon.map(|mut daemon| daemon.wait());
        match ended {
            Some(Ok(status)) if status.success() => Ok(()),
            other => Err(format!("the daemon of node {node} ended with {other:?}:\n{}", self.log(node))),
        }
    }

    /// Unmounts all, one after the other.
    ///
    /// # Errors
    /// As in [`Nodes::umount`].
    pub fn umount_all(&mut self) -> Result<(), String> {
        self.all().into_iter().try_for_each(|node| self.umount(node))
    }

    /// The end of a daemon's log.
    pub fn log(&self, node: u32) -> String {
        let text = fs::read(self.dir.join(format!("{node}/log"))).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// Runs a program that must succeed: its standard output.
///
/// # Errors
/// All that it said.
pub fn must(command: &mut Command) -> Result<String, String> {
    let out = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let complained = String::from_utf8_lossy(&out.stderr);
    if out.status.success() { Ok(said) } else { Err(format!("{command:?}: {}\n{said}{complained}", out.status)) }
}

fn is_mounted(mnt: &Path) -> bool {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == mnt))
}
