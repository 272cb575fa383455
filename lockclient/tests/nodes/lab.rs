//! The cluster of one case: a bridge, a network namespace and a process for each node, and everything that can be done
//! to them. Dropping it ends all of it.

use crate::fence::{self, Policy, Switch};
use crate::node;
use crate::observer::{Entry, Log, What, now};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The resource that one node keeps; the others work on with the rest.
pub(crate) const KEPT: &str = "kept";
pub(crate) const PORT: u16 = 21064;
/// What does not happen within this time does not happen: ten times the token, and more than ten times what is usual.
pub(crate) const LIMIT: Duration = Duration::from_secs(12);
/// How late a line is read where that is tried.
const LATE: Duration = Duration::from_micros(300);

pub(crate) fn address(node: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 98, 77, node as u8) // nodes of the lab have small numbers
}

/// The process waits until its end of the cable is there.
const BOOT: &str = r#"
set -e
PATH=$PATH:/usr/sbin:/sbin
echo plug
read plugged
ip link set lo up
ip addr add "$1"/24 dev eth0
ip link set eth0 up
shift
exec "$@"
"#;

/// The life of a node: a process, until it is started anew.
pub(crate) struct Life {
    pub(crate) number: u64,
    pub(crate) fenced: bool,
    process: Child,
    input: ChildStdin,
    port: String,
}

impl Life {
    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.process.id()).ok().and_then(Pid::from_raw)
    }

    /// Ends the process, and what it has started, as a loss of power would.
    pub(crate) fn kill(&mut self) {
        if let (Some(pid), Ok(None)) = (self.pid(), self.process.try_wait()) {
            // It may have ended in between.
            let _gone = kill_process_group(pid, Signal::KILL);
            let _reaped = self.process.wait();
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The living (and the dead that were not started anew), by node.
#[derive(Clone, Default)]
pub(crate) struct Lives(Arc<Mutex<BTreeMap<u32, Life>>>);

impl Lives {
    pub(crate) fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, Life>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) struct Lab {
    pub(crate) log: Log,
    pub(crate) switch: Switch,
    /// Nodes in doubt are fenced; without, the observer has something to find.
    pub(crate) fencing: bool,
    /// Nodes on the list of the membership.
    pub(crate) count: u32,
    /// What node 2 says is read late.
    pub(crate) late: bool,
    lives: Lives,
    births: u64,
    /// All lives, with their nodes.
    born: Vec<(u32, u64)>,
    marks: std::cell::Cell<u64>,
    bridge: String,
    folder: PathBuf,
    remarks: Vec<String>,
}

fn ip(words: &[&str]) -> Result<(), String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new("ip").env("PATH", path).args(words).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

impl Lab {
    /// A network without nodes.
    pub(crate) fn new(number: usize) -> Result<Lab, String> {
        let (log, lives) = (Log::default(), Lives::default());
        let folder = std::env::temp_dir().join(format!("lockclient-nodes-{}-{number}", now()));
        std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let switch = Switch::open(&folder.join("switch"), lives.clone(), log.clone());
        let bridge = format!("br{number}");
        let switch = switch.map_err(|error| format!("{}: {error}", folder.display()))?;
        // Ports of networks that are gone linger for a moment: their names, which have this number, are not used again.
        let (births, count, fencing, remarks) = (number as u64 * 100, 3, true, Vec::new());
        let (late, born, marks) = (false, Vec::new(), std::cell::Cell::new(0));
        let lab = Lab { log, switch, fencing, count, late, lives, births, born, marks, bridge, folder, remarks };
        ip(&["link", "add", &lab.bridge, "type", "bridge", "forward_delay", "0"])?;
        ip(&["link", "set", &lab.bridge, "up"])?;
        Ok(lab)
    }

    /// The agent of a node: it says who asks.
    fn agent(&self, node: u32) -> Result<PathBuf, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let (path, socket) = (self.folder.join(format!("agent{node}")), self.folder.join("switch"));
        let role = fence::ROLE;
        let text = format!("#!/bin/sh\nexec '{}' {role} '{}' {node}\n", program.display(), socket.display());
        std::fs::write(&path, text).map_err(|error| error.to_string())?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(|error| error.to_string())?;
        Ok(path)
    }

    /// Starts a node, and it joins. Its earlier life is over.
    pub(crate) fn boot(&mut self, node: u32) -> Result<(), String> {
        self.lives.lock().remove(&node);
        self.births += 1;
        let life = self.births;
        self.log.add(Entry { at: now(), node, life, what: What::Born });
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let agent = self.agent(node)?;
        let mut process = Command::new("unshare")
            .args(["--net", "sh", "-c", BOOT, "node", &address(node).to_string()])
            .arg(program)
            .args([node::ROLE, &node.to_string(), &self.count.to_string(), &life.to_string()])
            .arg(self.fencing.to_string())
            .arg(agent)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| error.to_string())?;
        let (pid, port) = (process.id().to_string(), format!("port{life}"));
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("no pipes to the node".into());
        };
        let mut life = Life { number: life, fenced: false, process, input, port };
        let mut lines = BufReader::new(output).lines();
        if !lines.next().is_some_and(|line| line.is_ok_and(|line| line == "plug")) {
            return Err(format!("node {node} does not start"));
        }
        ip(&["link", "add", &life.port, "type", "veth", "peer", "name", "eth0", "netns", &pid])?;
        ip(&["link", "set", &life.port, "master", &self.bridge, "up"])?;
        writeln!(life.input, "plugged").map_err(|error| error.to_string())?;
        let (log, number, late) = (self.log.clone(), life.number, self.late && node == 2);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if late {
                    std::thread::sleep(LATE);
                }
                log.hear(node, number, &line);
            }
            log.add(Entry { at: now(), node, life: number, what: What::Silent });
        });
        self.born.push((node, number));
        self.lives.lock().insert(node, life);
        Ok(())
    }

    pub(crate) fn life(&self, node: u32) -> u64 {
        self.lives.lock().get(&node).map_or(0, |life| life.number)
    }

    /// Starts these nodes and waits until all are members and each has been granted something.
    pub(crate) fn boot_all(&mut self, nodes: &[u32]) -> Result<(), String> {
        nodes.iter().try_for_each(|node| self.boot(*node))?;
        self.at_work(nodes)
    }

    /// Waits until each of these has been granted locks after this moment.
    pub(crate) fn at_work(&self, nodes: &[u32]) -> Result<(), String> {
        let from = now();
        for node in nodes {
            let life = self.life(*node);
            self.log.wait(&format!("node {node} at work"), LIMIT, |entries| {
                let granted = |e: &&Entry| e.life == life && e.at > from && matches!(e.what, What::Granted { .. });
                entries.iter().rev().take_while(|entry| entry.at + 1_000_000_000 > from).filter(granted).count() >= 20
            })?;
        }
        Ok(())
    }

    /// Tells the process of a node.
    pub(crate) fn tell(&self, node: u32, words: &str) -> Result<(), String> {
        let mut lives = self.lives.lock();
        let life = lives.get_mut(&node).ok_or_else(|| format!("node {node} is not there"))?;
        writeln!(life.input, "{words}").map_err(|error| format!("node {node}: {error}"))
    }

    /// The node takes a resource for itself, and keeps it.
    pub(crate) fn keep(&self, node: u32) -> Result<(), String> {
        self.tell(node, &format!("keep {KEPT}"))?;
        let life = self.life(node);
        self.log.wait(&format!("node {node} has what it shall keep"), LIMIT, |entries| {
            let ours = |what: &What| matches!(what, What::Granted { name, .. } if name == KEPT);
            entries.iter().any(|entry| entry.life == life && ours(&entry.what))
        })
    }

    /// The node asks for the resource that another keeps.
    pub(crate) fn want(&self, nodes: &[u32]) -> Result<(), String> {
        nodes.iter().try_for_each(|node| self.tell(*node, &format!("want {KEPT}")))
    }

    /// Ends the process of a node; whether it is fenced is another matter.
    pub(crate) fn kill(&self, node: u32) {
        if let Some(life) = self.lives.lock().get_mut(&node) {
            life.kill();
        }
    }

    pub(crate) fn signal(&self, node: u32, signal: Signal) -> Result<(), String> {
        let lives = self.lives.lock();
        let pid = lives.get(&node).and_then(Life::pid).ok_or_else(|| format!("node {node} is not there"))?;
        kill_process(pid, signal).map_err(|error| error.to_string())
    }

    /// Pulls the node's cable out of the bridge, or puts it back.
    pub(crate) fn cut(&self, node: u32, cut: bool) -> Result<(), String> {
        let lives = self.lives.lock();
        let life = lives.get(&node).ok_or_else(|| format!("node {node} is not there"))?;
        match cut {
            true => ip(&["link", "set", &life.port, "nomaster"]),
            false => ip(&["link", "set", &life.port, "master", &self.bridge]),
        }
    }

    /// What one node says does not reach another, or does again.
    pub(crate) fn silence(&self, from: u32, to: u32, silent: bool) -> Result<(), String> {
        self.tell(from, &format!("{} {}", if silent { "silence" } else { "speak" }, address(to)))?;
        let (life, done) = (self.life(from), format!("{} silenced={silent} done=true", address(to)));
        self.log.wait("the cut in one direction", LIMIT, |entries| {
            let told = |what: &What| matches!(what, What::Note(text) if text.contains(&done));
            entries.iter().any(|entry| entry.life == life && told(&entry.what))
        })
    }

    pub(crate) fn policy(&self, policy: Policy) {
        self.switch.set(policy);
    }

    /// Waits until the fencing of a node's present life is reported done; when.
    pub(crate) fn fenced(&self, node: u32) -> Result<u64, String> {
        let life = self.life(node);
        let seen = |e: &Entry| e.life == life && e.what == What::Fenced;
        self.log.wait(&format!("node {node} is fenced"), LIMIT, |entries| entries.iter().any(seen))?;
        Ok(self.log.fenced_at(node).unwrap_or_else(now))
    }

    /// The observer's verdict on everything up to now. What the nodes have said by now may not be read yet: a grant could
    /// be known, and the release of another node before it not. So every life says a word first (or its output ends),
    /// and what was said later does not count: whoever had given a lock up by then had said so before.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (until, number) = (now(), self.marks.get() + 1);
        self.marks.set(number);
        for (node, life) in &self.born {
            if let Some(living) = self.lives.lock().get_mut(node).filter(|living| living.number == *life) {
                // Its process may have ended; then so does its output.
                let _gone = writeln!(living.input, "mark {number}");
            }
            let answered = |what: &What| *what == What::Mark(number) || *what == What::Silent;
            self.log.wait(&format!("node {node} says a last word"), LIMIT, |entries| {
                entries.iter().rev().any(|entry| entry.life == *life && answered(&entry.what))
            })?;
        }
        self.log.check(until)
    }

    /// Something worth knowing that is not demanded.
    pub(crate) fn remark(&mut self, text: String) {
        self.remarks.push(text);
    }

    pub(crate) fn remarks(&self) -> String {
        self.remarks.iter().map(|remark| format!("; {remark}")).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.lives.lock().clear();
        // What cannot be removed goes with the namespace.
        let _gone = ip(&["link", "del", &self.bridge]);
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}
