//! Membership by hand: every member is stopped before any is started; who died is forgotten in between by those who live.

use crate::lab::{LIMIT, Lab, SPACE, absent};
use gfs2r_uml::dlm::KernelNode;
use lockclient::ids::{NodeId, lockspace_id};
use lockclient::recovery::{Start, StartMember};

impl Lab {
    fn space() -> u32 {
        lockspace_id(SPACE)
    }

    pub(crate) fn stop_all(&mut self) -> Result<(), String> {
        if let Some(kernel) = &mut self.kernel
            && self.members.contains(&self.k)
        {
            kernel.stop(SPACE)?;
        }
        let members = self.ours.iter().filter(|(node, _)| self.members.contains(node));
        members.into_iter().try_for_each(|(_, ours)| ours.stop(Lab::space()))
    }

    /// Starts all members.
    pub(crate) fn begin_start(&mut self) -> Result<(), String> {
        let cluster: Vec<_> = self.lives.iter().map(|(node, life)| (NodeId(*node), *life)).collect();
        for (id, ours) in self.ours.iter_mut().filter(|(node, _)| self.members.contains(node)) {
            let known = self.known.entry(*id).or_default();
            let member = |node: &u32| StartMember {
                node: NodeId(*node),
                weight: 1,
                incarnation: self.lives[node],
                new: !known.contains(node),
            };
            let members = self.members.iter().map(member).collect();
            known.clone_from(&self.members);
            ours.begin_start(Lab::space(), Start { members, cluster: cluster.clone(), round: 0 });
        }
        if let Some(kernel) = &mut self.kernel
            && self.members.contains(&self.k)
        {
            kernel.start(SPACE)?;
        }
        Ok(())
    }

    /// Starts all members and waits until the nodes of ours have recovered.
    pub(crate) fn start_all(&mut self) -> Result<(), String> {
        self.begin_start()?;
        let members = self.ours.iter().filter(|(node, _)| self.members.contains(node));
        members.into_iter().try_for_each(|(_, ours)| ours.finish_start())
    }

    /// A node enters the lockspace.
    pub(crate) fn join(&mut self, node: u32) -> Result<(), String> {
        if node == self.k {
            return self.join_kernel();
        }
        let ours = self.ours.get_mut(&node).ok_or_else(|| absent(node))?;
        ours.begin_join(&self.runtime, SPACE, Lab::space())?;
        self.stop_all()?;
        self.members.insert(node);
        self.known.remove(&node);
        if self.members.contains(&self.k) {
            self.kernel()?.add_member(SPACE, node)?;
        }
        self.start_all()?;
        let ours = self.ours.get_mut(&node).ok_or_else(|| absent(node))?;
        ours.finish_join(&self.runtime)
    }

    fn join_kernel(&mut self) -> Result<(), String> {
        let created = self.kernel()?.begin_create(SPACE)?;
        self.stop_all()?;
        self.members.insert(self.k);
        let members = self.members.clone();
        let kernel = self.kernel()?;
        kernel.set_id(SPACE, Lab::space())?;
        members.iter().try_for_each(|node| kernel.add_member(SPACE, *node))?;
        self.begin_start()?;
        self.kernel()?.admit(SPACE)?;
        let created = created.recv_timeout(LIMIT).map_err(|_| "the kernel does not come in".to_string())?;
        created.map_err(|error| format!("the kernel does not come in: error {error}"))?;
        let members = self.ours.iter().filter(|(node, _)| self.members.contains(node));
        members.into_iter().try_for_each(|(_, ours)| ours.finish_start())
    }

    /// A node leaves the lockspace, with whatever it holds.
    pub(crate) fn leave(&mut self, node: u32) -> Result<(), String> {
        if node == self.k {
            return self.leave_kernel();
        }
        self.stop_all()?;
        self.members.remove(&node);
        self.forget(node);
        if self.members.contains(&self.k) {
            self.kernel()?.remove_member(SPACE, node)?;
        }
        self.start_all()?;
        let ours = self.ours.get_mut(&node).ok_or_else(|| absent(node))?;
        ours.leave(&self.runtime, Lab::space())
    }

    fn leave_kernel(&mut self) -> Result<(), String> {
        let removed = self.kernel()?.begin_remove(SPACE)?;
        self.stop_all()?;
        let members = std::mem::take(&mut self.members);
        let kernel = self.kernel()?;
        members.iter().try_for_each(|node| kernel.remove_member(SPACE, *node))?;
        kernel.admit(SPACE)?;
        self.members = members;
        self.members.remove(&self.k);
        self.forget(self.k);
        self.start_all()?;
        // The last lockspace is gone: the kernel waits until all have said FIN.
        let removed = removed.recv_timeout(LIMIT).map_err(|_| "the kernel does not get out".to_string())?;
        removed.map_err(|error| format!("the kernel does not get out: error {error}"))?;
        self.kernel()?.forget(SPACE)
    }

    fn forget(&mut self, node: u32) {
        for known in self.known.values_mut() {
            known.remove(&node);
        }
    }

    /// A node crashes; nobody is told.
    pub(crate) fn crash(&mut self, node: u32) {
        if node == self.k {
            drop(self.kernel.take().map(KernelNode::kill));
        } else {
            self.ours.remove(&node);
        }
    }

    /// The others learn that a node is dead (and fenced): it is out of the cluster. They are stopped.
    pub(crate) fn bury(&mut self, node: u32) -> Result<(), String> {
        self.stop_all()?;
        let was_member = self.members.remove(&node);
        self.forget(node);
        self.ours.values().for_each(|ours| ours.node_gone(node));
        if node != self.k {
            let is_member = self.members.contains(&self.k);
            let kernel = self.kernel()?;
            kernel.remove_address(node)?;
            if is_member && was_member {
                kernel.remove_member(SPACE, node)?;
            }
        }
        self.lives.remove(&node);
        Ok(())
    }

    /// A node dies and the others go on.
    pub(crate) fn die(&mut self, node: u32) -> Result<(), String> {
        self.crash(node);
        self.bury(node)?;
        self.start_all()
    }
}
