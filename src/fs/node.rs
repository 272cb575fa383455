//! The inodes the kernel knows, and how often it was told of each.

use crate::error::{Error, Result};
use crate::ids::{BlockAddr, FormalIno, Inum};
use crate::inode::InUse;
use crate::sync::DashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What is kept of a node. There may be millions, so it is small: the address is the key.
struct Node {
    formal: FormalIno,
    /// References the kernel holds, one for each answer that named the inode, times two; plus one when it has no name any
    /// more: the last reference deletes it.
    lookups_doomed: u64,
    /// What tells other nodes that it is in use here.
    in_use: InUse,
}

impl Node {
    fn lookups(&self) -> u64 {
        self.lookups_doomed >> 1
    }
    fn doomed(&self) -> bool {
        self.lookups_doomed & 1 == 1
    }
    fn inum(&self, addr: BlockAddr) -> Inum {
        Inum { formal: self.formal, addr }
    }
}

/// node → references. The root is always known.
pub(super) struct Nodes {
    root: Inum,
    map: DashMap<BlockAddr, Node>,
    /// Inodes without a name that are still to be deleted.
    doomed: AtomicUsize,
    /// Those of them that somebody is deleting.
    deleting: AtomicUsize,
    /// Deletions that ended, since the beginning.
    ended: AtomicUsize,
}

impl Nodes {
    pub(super) fn new(root: Inum) -> Self {
        Self {
            root,
            map: DashMap::new(),
            doomed: AtomicUsize::new(0),
            deleting: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
        }
    }

    /// The identity of a node; `Stale` when the kernel was never told of it.
    pub(super) fn inum(&self, node: BlockAddr) -> Result<Inum> {
        if node == self.root.addr {
            return Ok(self.root);
        }
        self.map.get(&node).map(|n| n.inum(node)).ok_or(Error::Stale)
    }

    /// One more reference; called with the inode's glock held, so that it cannot be deleted meanwhile.
    pub(super) fn remember(&self, inum: Inum, in_use: InUse) {
        if inum == self.root {
            return;
        }
        let new = Node { formal: inum.formal, lookups_doomed: 0, in_use };
        let mut node = self.map.entry(inum.addr).or_insert(new);
        node.lookups_doomed += 2;
    }

    /// The inode lost its last name. True when the kernel does not know it, so that it must be deleted at once.
    pub(super) fn doom(&self, inum: Inum) -> bool {
        match self.map.get_mut(&inum.addr) {
            Some(mut node) => {
                if !node.doomed() {
                    node.lookups_doomed |= 1;
                    self.doomed.fetch_add(1, Ordering::AcqRel);
                }
                false
            }
            None => true,
        }
    }

    /// Drops references; the identity when the node is unknown from now on and its inode doomed.
    pub(super) fn forget(&self, addr: BlockAddr, count: u64) -> Option<Inum> {
        let mut node = self.map.get_mut(&addr)?;
        node.lookups_doomed -= 2 * count.min(node.lookups());
        if node.lookups() > 0 {
            return None;
        }
        drop(node);
        let (_, gone) = self.map.remove_if(&addr, |_, n| n.lookups() == 0)?;
        // Another node took its last name, could not delete it because it was in use here, and leaves that to us.
        let left_to_us = !gone.doomed() && gone.in_use.is_demanded();
        if left_to_us {
            self.doomed.fetch_add(1, Ordering::AcqRel);
        }
        (gone.doomed() || left_to_us).then(|| {
            self.deleting.fetch_add(1, Ordering::AcqRel);
            gone.inum(addr)
        })
    }

    /// An inode that [`Nodes::forget`] or [`Nodes::clear`] returned was deleted, or will not be.
    pub(super) fn deleted(&self) {
        self.deleting.fetch_sub(1, Ordering::AcqRel);
        self.ended.fetch_add(1, Ordering::AcqRel);
        self.doomed.fetch_sub(1, Ordering::AcqRel);
    }

    /// How many deletions have ended since the beginning.
    pub(super) fn ended(&self) -> usize {
        self.ended.load(Ordering::Acquire)
    }

    /// True while an inode is being deleted.
    pub(super) fn is_deleting(&self) -> bool {
        self.deleting.load(Ordering::Acquire) > 0
    }

    /// An inode that [`Nodes::forget`] returned was not deleted: [`Nodes::clear`] will return it.
    pub(super) fn put_back(&self, inum: Inum) {
        self.map.insert(inum.addr, Node { formal: inum.formal, lookups_doomed: 1, in_use: InUse::default() });
        self.deleting.fetch_sub(1, Ordering::AcqRel);
    }

    /// Inodes without a name that are still to be deleted, because they are open or because it has not been done yet.
    pub(super) fn doomed(&self) -> usize {
        self.doomed.load(Ordering::Acquire)
    }

    /// True when the kernel refers to the inode at this address.
    pub(super) fn known(&self, addr: BlockAddr) -> bool {
        addr == self.root.addr || self.map.contains_key(&addr)
    }

    /// All that the kernel refers to.
    pub(super) fn all(&self) -> Vec<BlockAddr> {
        self.map.iter().map(|n| *n.key()).chain([self.root.addr]).collect()
    }

    /// Forgets everything: the kernel is gone. Returns the doomed inodes, and those that other nodes leave to us to delete. Whoever
    /// asks for one after this finds it unused here.
    pub(super) fn clear(&self) -> Vec<Inum> {
        let known: Vec<BlockAddr> = self.map.iter().map(|n| *n.key()).collect();
        let mut ours = Vec::new();
        for addr in known {
            // Others may have forgotten it meanwhile: then they delete it.
            let Some((_, gone)) = self.map.remove(&addr) else { continue };
            // Asked when it is not known any more: a node that was told before that it is in use here has asked before.
            let left_to_us = !gone.doomed() && gone.in_use.is_demanded();
            if left_to_us {
                self.doomed.fetch_add(1, Ordering::AcqRel);
            }
            if gone.doomed() || left_to_us {
                ours.push(gone.inum(addr));
            }
        }
        self.deleting.fetch_add(ours.len(), Ordering::AcqRel);
        ours
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inum(n: u64) -> Inum {
        Inum { formal: FormalIno(n), addr: BlockAddr::new(n).expect("not 0") }
    }

    #[test]
    fn the_last_reference_of_a_doomed_node_deletes() {
        let nodes = Nodes::new(inum(1));
        nodes.remember(inum(7), InUse::default());
        nodes.remember(inum(7), InUse::default());
        assert!(!nodes.doom(inum(7)) && nodes.doom(inum(8)));
        assert_eq!(nodes.forget(inum(7).addr, 1), None);
        assert!(!nodes.doom(inum(7)));
        assert_eq!(nodes.doomed(), 1);
        assert_eq!(nodes.forget(inum(7).addr, 1), Some(inum(7)));
        nodes.deleted();
        assert_eq!(nodes.doomed(), 0);
        assert!(!nodes.known(inum(7).addr) && nodes.known(inum(1).addr));
        assert!(matches!(nodes.inum(inum(7).addr), Err(Error::Stale)));
    }
}
