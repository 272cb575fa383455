//! What is done to nodes, and what they say of it.

use super::{Kind, Lab, Started, detach, end_of};
use crate::disk::{self, Mood};
use crate::history::now;
use crate::job::stack_of;
use crate::net::Net;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

impl Lab {
    /// Sends the daemon of a node a signal.
    pub fn signal(&mut self, i: usize, signal: Signal) {
        if let Some(daemon) = self.nodes.get(i).and_then(|n| n.daemon.as_ref()) {
            if let Some(pid) = Pid::from_raw(daemon.id().cast_signed()) {
                // A daemon that has just been fenced is no error.
                let _gone = kill_process(pid, signal);
            }
        }
    }

    /// The end of a node: it is marked as killed from `at` on, its processes end, its mount is removed.
    pub fn bury(&mut self, i: usize, at: u64) {
        let mounting = self.nodes[i].mounting;
        if let Some(m) = self.mountings.get_mut(mounting) {
            m.killed = Some(m.killed.map_or(at, |k| k.min(at)));
        }
        self.signal(i, Signal::KILL);
        let node = &mut self.nodes[i];
        node.workers.iter_mut().for_each(Started::kill);
        if end_of(node.daemon.as_mut(), Duration::from_secs(10)).is_none() && node.daemon.is_some() {
            eprintln!(
                "node{}: the killed daemon does not end:\n{}",
                node.number,
                node.daemon.as_ref().map(|d| stack_of(d.id())).unwrap_or_default()
            );
        }
        detach(&node.mnt());
        node.daemon = None;
        node.workers.clear();
    }

    /// From now on the node may answer with errors.
    fn excuse(&mut self, i: usize) {
        if let Some(m) = self.nodes.get(i).and_then(|node| self.mountings.get_mut(node.mounting)) {
            m.faulty = Some(now());
        }
    }

    fn net(&self) -> io::Result<&Net> {
        match &self.kind {
            Kind::Cluster(net) | Kind::Moody(net) => Ok(net),
            _ => Err(io::Error::other("no network")),
        }
    }

    pub fn cut(&mut self, i: usize) -> io::Result<()> {
        self.excuse(i);
        self.net()?.cut(self.nodes[i].number)
    }

    pub fn heal(&mut self, i: usize) -> io::Result<()> {
        self.net()?.heal(self.nodes[i].number)
    }

    /// Loses what goes these ways, from one node to another (by number). The node with index `i` may answer with errors.
    pub fn cut_ways(&mut self, i: usize, ways: &[(u32, u32)]) -> io::Result<()> {
        self.excuse(i);
        ways.iter().try_for_each(|(from, to)| self.net()?.cut_way(*from, *to))
    }

    pub fn heal_ways(&self, ways: &[(u32, u32)]) -> io::Result<()> {
        ways.iter().try_for_each(|(from, to)| self.net()?.heal_way(*from, *to))
    }

    /// Makes a node's way to the disk bad or good.
    pub fn mood(&mut self, i: usize, mood: Mood) -> io::Result<()> {
        if !matches!(mood, Mood::Well | Mood::Slow(_)) {
            self.excuse(i);
        }
        disk::tell(&self.nodes[i].dir, mood)
    }

    /// The log of the present mount of a node.
    pub fn this_log(&self, i: usize) -> String {
        let text = fs::read(self.nodes[i].log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.rsplit_once(&Self::mark(self.nodes[i].mounting)).map_or_else(String::new, |(_, this)| this.to_owned())
    }

    /// What a node says of how its withdrawal ended; none while it has not.
    pub fn withdrawn(&self, i: usize) -> Option<String> {
        let ended = |l: &&str| l.contains("withdrawn: Replayed") || l.contains("withdrawn: Unreplayed");
        self.this_log(i).lines().rev().find(ended).map(str::to_owned)
    }

    /// What the log says where the present mount begins.
    pub(super) fn mark(mounting: usize) -> String {
        format!("== mounting {mounting} ==")
    }

    /// Unmounts a node that has withdrawn: it must end, however it says it did.
    pub fn abandon(&mut self, i: usize) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(8);
        let status = loop {
            let status = self.nodes[i].umount().and_then(|mut helper| helper.wait()).map_err(|e| e.to_string())?;
            // A process that was killed a moment ago may still be on its way out.
            let busy = fs::read_to_string(self.nodes[i].dir.join("umount")).is_ok_and(|said| said.contains("in use"));
            if !busy || Instant::now() > until {
                break status;
            }
            std::thread::sleep(Duration::from_millis(200));
        };
        let node = &mut self.nodes[i];
        if end_of(node.daemon.as_mut(), Duration::from_secs(10)).is_some() {
            return Ok(());
        }
        let said = fs::read_to_string(node.dir.join("umount")).unwrap_or_default();
        let stack = node.daemon.as_ref().map(|d| stack_of(d.id())).unwrap_or_default();
        Err(format!(
            "node{}: withdrawn, unmounted ({status}: {said}), but there\n    {}\n{stack}",
            node.number,
            node.log_tail()
        ))
    }
}
