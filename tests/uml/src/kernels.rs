//! A cluster of kernels: guests with one disk, GFS2 on it, and the kernel's lock manager between them.
//!
//! Daemons tell a kernel who is a member of its lockspace; here this module does (see [`crate::dlm`]): every member is stopped
//! before any is started.

use crate::dlm::{KernelNode, Reply, ran};
use crate::network::{guest_address, tap};
use crate::{Job, Outcome, Uml};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::time::Duration;

/// What the volume must be formatted with: `-t lab:shared`.
pub const TABLE: &str = "lab:shared";
const CLUSTER: &str = "lab";
const SPACE: &str = "shared";
/// The global id of the lockspace; any number will do, as long as all have the same.
const SPACE_ID: u32 = 0x1ab;
/// A mount that replays several journals takes a while.
const LIMIT: Duration = Duration::from_secs(60);

/// Kernels and who of them has it mounted. Dropping it kills them.
pub struct Kernels {
    nodes: BTreeMap<u32, KernelNode>,
    mounted: BTreeSet<u32>,
}

impl Kernels {
    /// Boots guests that share `image`; `job` says what else they have. Nothing is mounted.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn boot(uml: &Uml, image: &Path, ids: &[u32], job: &Job) -> Result<Kernels, String> {
        let boot = |id: u32| {
            let job = job.clone().shared_disk(image);
            KernelNode::boot_with(uml, id, guest_address(id), &tap(id), job)
        };
        let booted: Vec<Result<KernelNode, String>> = std::thread::scope(|scope| {
            let all: Vec<_> = ids.iter().map(|&id| scope.spawn(move || boot(id))).collect();
            all.into_iter().map(|one| one.join().unwrap_or_else(|_| Err("the boot panicked".into()))).collect()
        });
        let mut nodes = BTreeMap::new();
        for node in booted {
            let mut node = node?;
            node.configure("cluster_name", CLUSTER)?;
            // GFS2 then asks nobody but the lock manager about journals.
            node.configure("recover_callbacks", "1")?;
            ids.iter().try_for_each(|&id| node.add_address(id, guest_address(id)))?;
            nodes.insert(node.id, node);
        }
        Ok(Kernels { nodes, mounted: BTreeSet::new() })
    }

    /// One of them.
    ///
    /// # Errors
    /// When it is not there.
    pub fn node(&mut self, id: u32) -> Result<&mut KernelNode, String> {
        self.nodes.get_mut(&id).ok_or_else(|| format!("kernel node {id} is not there"))
    }

    fn stop(&mut self) -> Result<(), String> {
        let members = self.mounted.clone();
        members.iter().try_for_each(|&id| self.node(id)?.stop(SPACE))
    }

    fn start(&mut self) -> Result<(), String> {
        let members = self.mounted.clone();
        members.iter().try_for_each(|&id| self.node(id)?.start(SPACE))
    }

    /// Mounts it on `/mnt/gfs` of a guest.
    ///
    /// # Errors
    /// When the kernel refuses, with its words.
    pub fn mount(&mut self, id: u32, options: &str) -> Result<(), String> {
        let answer = self.node(id)?.begin_mount(SPACE, options)?;
        self.stop()?;
        let others = self.mounted.clone();
        self.mounted.insert(id);
        let members = self.mounted.clone();
        let node = self.node(id)?;
        node.set_id(SPACE, SPACE_ID)?;
        members.iter().try_for_each(|&member| node.add_member(SPACE, member))?;
        others.iter().try_for_each(|&other| self.node(other)?.add_member(SPACE, id))?;
        self.start()?;
        self.node(id)?.admit(SPACE)?;
        self.outcome(id, "mount", &answer)
    }

    /// Unmounts it.
    ///
    /// # Errors
    /// When the kernel refuses, with its words.
    pub fn umount(&mut self, id: u32) -> Result<(), String> {
        let answer = self.node(id)?.begin_umount(SPACE)?;
        self.stop()?;
        let members = self.mounted.clone();
        self.mounted.remove(&id);
        let others = self.mounted.clone();
        let node = self.node(id)?;
        members.iter().try_for_each(|&member| node.remove_member(SPACE, member))?;
        node.admit(SPACE)?;
        others.iter().try_for_each(|&other| self.node(other)?.remove_member(SPACE, id))?;
        self.start()?;
        self.outcome(id, "umount", &answer)?;
        self.node(id)?.forget(SPACE)
    }

    fn outcome(&mut self, id: u32, what: &str, answer: &Receiver<Reply>) -> Result<(), String> {
        let why = |node: &KernelNode| {
            let log = node.kernel_log();
            let lines: Vec<&str> = log.lines().collect();
            lines[lines.len().saturating_sub(40)..].join("\n")
        };
        let node = self.node(id)?;
        let answer = answer.recv_timeout(LIMIT).map_err(|_| format!("{what} on {id} does not end\n{}", why(node)))?;
        ran(&answer).map(drop).map_err(|error| format!("{what} on {id}: {error}\n{}", why(node)))
    }

    /// Pulls the plugs of all, one right after the other.
    pub fn kill_all(mut self) -> BTreeMap<u32, Outcome> {
        let nodes = std::mem::take(&mut self.nodes);
        std::thread::scope(|scope| {
            let all: Vec<_> = nodes.into_iter().map(|(id, node)| (id, scope.spawn(move || node.kill()))).collect();
            all.into_iter().filter_map(|(id, one)| Some((id, one.join().ok()?))).collect()
        })
    }

    /// Messages of trouble from any kernel, with the number of its node.
    pub fn trouble(&self) -> Vec<String> {
        let mut all = Vec::new();
        for (id, node) in &self.nodes {
            let log = node.kernel_log();
            all.extend(crate::job::trouble(&log).into_iter().map(|line| format!("node {id}: {line}")));
        }
        all
    }
}
