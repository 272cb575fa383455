//! The cluster under test: a kernel, up to two nodes of ours, one lockspace; and one way to speak to all of them. Who is
//! a member is a matter of `members.rs`.

use crate::ours::Ours;
use gfs2r_uml::Uml;
use gfs2r_uml::dlm::{Event, Events, KernelNode, Reply};
use lockclient::flags::LockFlags;
use lockclient::ids::{NodeId, name_hash};
use lockclient::mode::Mode;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc::Receiver;
use std::time::Duration;
use tokio::runtime::Runtime;

pub(crate) const SPACE: &str = "shared";
/// What does not happen within this time does not happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(15);
pub(crate) const EAGAIN: i32 = -11;
pub(crate) const EBUSY: i32 = -16;
pub(crate) const EDEADLK: i32 = -35;
pub(crate) const ECANCEL: i32 = -65537;
pub(crate) const EUNLOCK: i32 = -65538;
pub(crate) const NONE: LockFlags = LockFlags::empty();

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    pub(crate) status: i32,
    pub(crate) flags: u8,
    pub(crate) lvb: Option<Vec<u8>>,
}

/// A lock of some node; the test's handle on it.
#[derive(Debug)]
pub(crate) struct Lock {
    pub(crate) node: u32,
    pub(crate) tag: u64,
    name: Vec<u8>,
    /// The kernel's answer to the call, which has the id.
    answer: RefCell<Option<Receiver<Reply>>>,
    id: Cell<u32>,
}

pub(crate) struct Lab {
    pub(crate) stage: &'static str,
    pub(crate) kernel: Option<KernelNode>,
    /// The kernel's number.
    pub(crate) k: u32,
    pub(crate) ours: BTreeMap<u32, Ours>,
    pub(crate) members: BTreeSet<u32>,
    pub(crate) uml: Uml,
    pub(crate) runtime: Runtime,
    /// Of each node in the cluster: which of all lives it lives.
    pub(crate) lives: BTreeMap<u32, u64>,
    births: u64,
    /// Whom each node of ours has been started with.
    pub(crate) known: BTreeMap<u32, BTreeSet<u32>>,
    tags: u64,
    names: u64,
}

pub(crate) fn address(node: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 98, 76, node as u8) // nodes of the lab have small numbers
}

/// A node that a test does without is an error of the test.
pub(crate) fn absent(node: u32) -> String {
    format!("node {node} is not there")
}

impl Lab {
    /// Boots a kernel with this number; nobody is a member of anything.
    pub(crate) fn start(stage: &'static str, uml: &Uml, k: u32) -> Result<Lab, String> {
        let runtime = Runtime::new().map_err(|error| error.to_string())?;
        let mut lab = Lab {
            stage,
            kernel: None,
            k,
            ours: BTreeMap::new(),
            members: BTreeSet::new(),
            uml: uml.clone(),
            runtime,
            lives: BTreeMap::new(),
            births: 0,
            known: BTreeMap::new(),
            tags: 1,
            names: 1,
        };
        lab.boot_kernel()?;
        Ok(lab)
    }

    pub(crate) fn boot_kernel(&mut self) -> Result<(), String> {
        let tap = format!("tap{}", self.k);
        let mut kernel = KernelNode::boot(&self.uml, self.k, address(self.k), &tap, Duration::from_secs(600))?;
        kernel.configure("cluster_name", "lab")?;
        // Idle resources go soon, so that this happens all the time.
        kernel.configure("toss_secs", "1")?;
        kernel.configure("scan_secs", "1")?;
        kernel.configure("recover_callbacks", "1")?;
        kernel.add_address(self.k, address(self.k))?;
        self.ours.keys().try_for_each(|node| kernel.add_address(*node, address(*node)))?;
        self.kernel = Some(kernel);
        self.born(self.k);
        Ok(())
    }

    pub(crate) fn boot_ours(&mut self, node: u32) -> Result<(), String> {
        let socket = |node: u32| SocketAddr::from((address(node), 21064));
        let others = [2, 3, self.k].into_iter().filter(|other| *other != node);
        let peers = others.map(|other| (NodeId(other), socket(other))).collect();
        let ours = Ours::start(&self.runtime, node, socket(node), peers)?;
        if let Some(kernel) = &mut self.kernel {
            kernel.add_address(node, address(node))?;
        }
        self.ours.insert(node, ours);
        self.born(node);
        Ok(())
    }

    fn born(&mut self, node: u32) {
        self.births += 1;
        self.lives.insert(node, self.births);
    }

    pub(crate) fn kernel(&mut self) -> Result<&mut KernelNode, String> {
        self.kernel.as_mut().ok_or_else(|| absent(self.k))
    }

    pub(crate) fn events(&self, node: u32) -> Result<&Events, String> {
        match &self.kernel {
            Some(kernel) if node == self.k => Ok(&kernel.events),
            _ => self.ours.get(&node).map(|ours| &ours.events).ok_or_else(|| absent(node)),
        }
    }

    /// Begins to ask for a lock.
    pub(crate) fn request(&mut self, node: u32, name: &[u8], mode: Mode, flags: LockFlags) -> Result<Lock, String> {
        self.tags += 1;
        let (tag, name) = (self.tags, name.to_vec());
        let lock = Lock { node, tag, name, answer: RefCell::new(None), id: Cell::new(0) };
        if node == self.k {
            let target = (lock.tag, 0);
            let answer = self.kernel()?.lock(SPACE, target, mode as u8, flags.bits(), &lock.name, &[])?;
            lock.answer.replace(Some(answer));
        } else {
            let ours = self.ours.get(&node).ok_or_else(|| absent(node))?;
            ours.lock(lock.tag, mode, flags, &lock.name).map_err(|error| format!("request refused: {error}"))?;
        }
        Ok(lock)
    }

    /// The lock's number on its node.
    pub(crate) fn id(&self, lock: &Lock) -> Result<u32, String> {
        if let Some(answer) = lock.answer.take() {
            let answer = answer.recv_timeout(LIMIT).map_err(|_| format!("no answer to the call for {lock:?}"))?;
            let id = answer.map_err(|error| format!("{lock:?} refused: {error}"))?;
            if lock.id.get() == 0 {
                lock.id.set(id.parse().map_err(|_| format!("{id}: no lock id"))?);
            }
        } else if lock.node != self.k {
            let id = self.ours.get(&lock.node).and_then(|ours| ours.id(lock.tag));
            lock.id.set(id.ok_or_else(|| format!("the id of {lock:?} is not known"))?);
        }
        Ok(lock.id.get())
    }

    /// Begins a conversion; `Err` of the inner result is the refusal.
    pub(crate) fn try_convert(
        &mut self,
        lock: &Lock,
        mode: Mode,
        flags: LockFlags,
        lvb: &[u8],
    ) -> Result<Result<(), i32>, String> {
        let id = self.id(lock)?;
        if lock.node != self.k {
            let ours = self.ours.get(&lock.node).ok_or_else(|| absent(lock.node))?;
            return Ok(ours.convert(lock.tag, id, mode, flags, lvb));
        }
        let flags = flags | LockFlags::CONVERT;
        let answer = self.kernel()?.lock(SPACE, (lock.tag, id), mode as u8, flags.bits(), &[], lvb)?;
        let answer = answer.recv_timeout(LIMIT).map_err(|_| "no answer to a conversion".to_string())?;
        Ok(answer.map(drop))
    }

    pub(crate) fn convert(&mut self, lock: &Lock, mode: Mode, flags: LockFlags, lvb: &[u8]) -> Result<(), String> {
        self.try_convert(lock, mode, flags, lvb)?.map_err(|error| format!("conversion of {lock:?} refused: {error}"))
    }

    /// Begins a conversion without waiting for the call itself, which may wait for recovery.
    pub(crate) fn begin_convert(
        &mut self,
        lock: &Lock,
        mode: Mode,
        flags: LockFlags,
        lvb: &[u8],
    ) -> Result<(), String> {
        if lock.node != self.k {
            return self.convert(lock, mode, flags, lvb);
        }
        let (id, flags) = (self.id(lock)?, flags | LockFlags::CONVERT);
        let answer = self.kernel()?.lock(SPACE, (lock.tag, id), mode as u8, flags.bits(), &[], lvb)?;
        lock.answer.replace(Some(answer));
        Ok(())
    }

    pub(crate) fn try_unlock(&mut self, lock: &Lock, flags: LockFlags, lvb: &[u8]) -> Result<Result<(), i32>, String> {
        let id = self.id(lock)?;
        if lock.node != self.k {
            let ours = self.ours.get(&lock.node).ok_or_else(|| absent(lock.node))?;
            return Ok(ours.unlock(lock.tag, id, flags, lvb));
        }
        let answer = self.kernel()?.unlock(SPACE, (lock.tag, id), flags.bits(), lvb)?;
        let answer = answer.recv_timeout(LIMIT).map_err(|_| "no answer to an unlock".to_string())?;
        Ok(answer.map(drop))
    }

    pub(crate) fn unlock_with(&mut self, lock: &Lock, flags: LockFlags, lvb: &[u8]) -> Result<(), String> {
        self.try_unlock(lock, flags, lvb)?.map_err(|error| format!("unlock of {lock:?} refused: {error}"))
    }

    /// What an operation on this lock came to.
    pub(crate) fn done(&self, lock: &Lock) -> Result<Done, String> {
        let ours = |event: &Event| matches!(event, Event::Completed { tag, .. } if *tag == lock.tag);
        match self.events(lock.node)?.wait(&format!("completion for {lock:?}"), LIMIT, ours)? {
            Event::Completed { status, flags, lvb, .. } => Ok(Done { status, flags, lvb }),
            other => Err(format!("{other:?}")),
        }
    }

    /// It must have come to this.
    pub(crate) fn ends(&self, lock: &Lock, status: i32) -> Result<Done, String> {
        let done = self.done(lock)?;
        if done.status == status { Ok(done) } else { Err(format!("{lock:?}: {done:?} instead of status {status}")) }
    }

    /// The lock is told that it is in the way of `mode`.
    pub(crate) fn told(&self, lock: &Lock, mode: Mode) -> Result<(), String> {
        let ours = |event: &Event| *event == Event::Blocking { tag: lock.tag, mode: mode as u8 };
        self.events(lock.node)?.wait(&format!("notice of {mode:?} for {lock:?}"), LIMIT, ours).map(drop)
    }

    /// All that this node has said about a resource has reached the master, and what the master said before has come
    /// back: an NL lock that passes all queues goes there and is given up again.
    pub(crate) fn settled(&mut self, node: u32, name: &[u8]) -> Result<(), String> {
        self.attempt(node, name, Mode::Nl, LockFlags::EXPEDITE, 0)
    }

    /// The lock waits at the master.
    pub(crate) fn waits(&mut self, lock: &Lock) -> Result<(), String> {
        self.settled(lock.node, &lock.name)?;
        self.has_not_ended(lock)
    }

    /// Nothing has ended for this lock.
    pub(crate) fn has_not_ended(&self, lock: &Lock) -> Result<(), String> {
        let ours = |event: &Event| matches!(event, Event::Completed { tag, .. } if *tag == lock.tag);
        match self.events(lock.node)?.take(ours) {
            None => Ok(()),
            Some(event) => Err(format!("{lock:?} should wait: {event:?}")),
        }
    }

    /// The lock has not been told anything.
    pub(crate) fn not_told(&mut self, lock: &Lock) -> Result<(), String> {
        self.settled(lock.node, &lock.name)?;
        match self.events(lock.node)?.take(|event| matches!(event, Event::Blocking { tag, .. } if *tag == lock.tag)) {
            None => Ok(()),
            Some(event) => Err(format!("{lock:?} should not be told: {event:?}")),
        }
    }

    /// A lock that is granted.
    pub(crate) fn lock(&mut self, node: u32, name: &[u8], mode: Mode, flags: LockFlags) -> Result<Lock, String> {
        let lock = self.request(node, name, mode, flags)?;
        self.ends(&lock, 0)?;
        self.id(&lock)?;
        Ok(lock)
    }

    /// A request that must come to this.
    pub(crate) fn attempt(
        &mut self,
        node: u32,
        name: &[u8],
        mode: Mode,
        flags: LockFlags,
        status: i32,
    ) -> Result<(), String> {
        let lock = self.request(node, name, mode, flags)?;
        self.ends(&lock, status)?;
        if status == 0 { self.unlock(&lock) } else { self.id(&lock).map(drop) }
    }

    /// A conversion that must come to this.
    pub(crate) fn converts(
        &mut self,
        lock: &Lock,
        mode: Mode,
        flags: LockFlags,
        lvb: &[u8],
        status: i32,
    ) -> Result<Done, String> {
        self.convert(lock, mode, flags, lvb)?;
        self.ends(lock, status)
    }

    pub(crate) fn unlock(&mut self, lock: &Lock) -> Result<(), String> {
        self.unlock_with(lock, NONE, &[])?;
        self.ends(lock, EUNLOCK).map(drop)
    }

    pub(crate) fn unlock_all<'a>(&mut self, locks: impl IntoIterator<Item = &'a Lock>) -> Result<(), String> {
        locks.into_iter().try_for_each(|lock| self.unlock(lock))
    }

    /// A node of ours that is a member.
    pub(crate) fn p(&self) -> u32 {
        self.members.iter().copied().find(|node| *node != self.k).unwrap_or(2)
    }

    /// A new name whose directory entry this node keeps.
    pub(crate) fn name(&mut self, dir: u32) -> Vec<u8> {
        loop {
            self.names += 1;
            let name = format!("{:>8x}{:>16x}", 2, self.names).into_bytes();
            let members: Vec<u32> = self.members.iter().copied().collect();
            if members[(name_hash(&name) >> 16) as usize % members.len()] == dir {
                return name;
            }
        }
    }

    /// A new resource with this directory node and this master; the lock (NL) holds the master in place.
    pub(crate) fn resource(&mut self, dir: u32, master: u32) -> Result<(Vec<u8>, Lock), String> {
        let name = self.name(dir);
        let anchor = self.lock(master, &name, Mode::Nl, NONE)?;
        Ok((name, anchor))
    }

    /// Every choice of directory node and master among the members.
    pub(crate) fn places(&self) -> Vec<(u32, u32)> {
        self.members.iter().flat_map(|dir| self.members.iter().map(|master| (*dir, *master))).collect()
    }

    /// The kernel has not complained since the last check, and ours has nothing left over that ended.
    pub(crate) fn quiet(&mut self) -> Result<(), String> {
        let nodes: Vec<u32> = self.members.iter().copied().collect();
        for node in nodes {
            let left = |event: &Event| matches!(event, Event::Completed { .. });
            if let Some(event) = self.events(node)?.take(left) {
                return Err(format!("left over on node {node}: {event:?}"));
            }
        }
        Ok(())
    }

    /// What helps to understand a failure.
    pub(crate) fn report(&self) {
        if let Some(kernel) = &self.kernel {
            let log = kernel.kernel_log();
            let lines: Vec<&str> = log.lines().filter(|line| line.contains("dlm") || line.contains("BUG")).collect();
            println!("        --- kernel ---\n{}", lines[lines.len().saturating_sub(25)..].join("\n"));
        }
        for (node, ours) in &self.ours {
            let dump = ours.dump();
            let lines: Vec<&str> = dump.lines().filter(|line| !line.contains("locks 0")).take(40).collect();
            println!("        --- node {node} ---\n{}", lines.join("\n"));
        }
    }
}
