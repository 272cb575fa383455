//! Chapter 13: being one node of many. The lock service (`lockclient`) joined to the glocks, and the conduct that keeps
//! several nodes on one disk from harming one another.
//!
//! | file | what |
//! |---|---|
//! | `dlm`, `modes` | the [`LockManager`](crate::glock::LockManager) of a cluster: states to modes and back, replies that are held back |
//! | `ahead` | locks that are got ready before anybody asks for them |
//! | `name`, `direct` | names as tokens; locks that are taken for themselves, with nothing cached inside |
//! | `control` | who mounts first, whose journal is to be replayed: a pure machine (dlm.md 5.7, 5.8) |
//! | `core`, `recover` | what the machine and everybody else share; the one thread that does what it says |
//! | `join` | [`Cluster`]: entering, serving, leaving |
//! | `watch` | which locks are in demand, and what is waited for |
//! | `service` | which lock service that is |
//! | `withdraw`, `freeze` | parting after a contradiction (5.9); all nodes stand still (ondisk.md 8.12) |
//!
//! # What protects the data
//!
//! The lock service gives a dead node's locks away as soon as it has recovered itself; the journal of the dead node is still
//! unreplayed then. So from the moment locking stops (`prepare`) until no journal waits for its replay any more, grants are
//! *held back* ([`Cluster::manager`] parks them): nobody sees what lies under a dead node's lock before its journal has been
//! replayed. Which journals those are stands in the value block of the CONTROL lock, which all nodes, kernels among them,
//! read and write alike. Grants of the locks that a replay itself needs are exempt
//! ([`LockManager::serves_recovery`](crate::glock::LockManager::serves_recovery)).
//!
//! # A mount, in order
//!
//! 1. [`Cluster::join`]: lockspace, journal id, first mounter or not; MOUNT, LIVE, JOURNAL and FREEZE are held from here on.
//! 2. The volume is opened with [`Cluster::manager`]; the first mounter replays every journal.
//! 3. [`Cluster::first_done`] (first mounter): now others may mount. [`Cluster::serve`]: from now on this node replays the
//!    journals of others and freezes when asked.
//! 4. [`Cluster::leave`] after the volume was closed in order; [`Cluster::withdraw`] when it could not be.
//!
//! If the volume could not be opened because another node died meanwhile ([`Cluster::was_disturbed`]): leave, and begin again.

mod ahead;
mod control;
mod core;
mod direct;
mod dlm;
mod freeze;
mod join;
mod modes;
mod name;
mod recover;
mod service;
mod watch;
mod withdraw;

#[cfg(test)]
mod tests;

pub use join::{Cluster, JoinError, JoinOptions, Mounter};
#[cfg(feature = "simulated")]
pub use service::{LockSpace, Node, Service, Space};
pub use watch::{Demand, Wait};
pub use withdraw::Parting;

use crate::error::Result;
use crate::ids::Jid;

/// What a mounted volume does for the cluster.
pub trait Recovery: Send + Sync {
    /// Replays the journal of another node, which is dead and whose JOURNAL lock is held meanwhile; nothing to do when it is
    /// clean. After an error it is tried again later, here or on another node.
    fn recover(&self, jid: Jid) -> Result<()>;
    /// How many journals there are.
    fn journals(&self) -> u32;
    /// Does this journal end with a clean header? Asked, without any lock, about our own after we have withdrawn.
    fn is_clean(&self, jid: Jid) -> Result<bool>;
    /// After a withdraw: waits, for a while, until no write of ours is in the device's hands any more; false if one still is.
    fn is_quiet(&self) -> bool;
    /// Brings everything to the disk, a clean log header last, and admits no change until `thaw`.
    fn freeze(&self) -> Result<()>;
    /// Changes are admitted again.
    fn thaw(&self);
    /// The cluster has gone on without this node: its locks are lost. No write may begin from now on (one that is in
    /// the device's hands ends there: that is what fencing is for). Does not wait.
    fn lost(&self);
}
