//! On which nodes an inode is in use (ondisk.md 9.4).
//!
//! A node holds the *iopen* lock of an inode shared as long as its kernel knows the inode. Who wants to delete one needs that
//! lock exclusively, with the inode's own lock held. A node that is asked for it lets go if it can; if it cannot, it pokes the
//! deleter, who gives up, and it deletes the inode itself when it lets go. So the last user deletes.

use super::Volume;
use crate::error::Result;
use crate::glock::{ExclusiveHolder, Protected, SharedHolder};
use crate::ids::{BlockAddr, LockKind, LockName};
use crate::sync::{Instant, thread};
use std::sync::Arc;
use std::time::Duration;

/// How long the kernel here has to forget an inode that another node wants to delete, before that node is told that it cannot.
const FORGETTING: Duration = Duration::from_millis(50);

/// What lies in a lock that protects nothing.
pub struct Bare;

/// "This inode is in use here": dropped when it is not any more. Nothing where no other node could ask.
#[derive(Default)]
pub struct InUse(Option<Box<SharedHolder<Bare>>>);

impl InUse {
    /// True when another node wants to delete the inode.
    pub fn is_demanded(&self) -> bool {
        self.0.as_ref().is_some_and(|held| held.glock().is_demanded())
    }
}

/// Who uses inodes on this node.
pub trait Users: Send + Sync {
    /// True while the inode is in use.
    fn uses(&self, addr: BlockAddr) -> bool;
    /// Another node wants to delete it: if it is only remembered, it should be forgotten. Does not wait.
    fn forget_soon(&self, addr: BlockAddr);
}

impl Protected for Bare {
    type Context = Volume;
    const HEEDS: bool = true;
    // A holder stays for long: others must be able to share the lock meanwhile.
    const EXACT: bool = true;

    fn instantiate(_: LockName, _: &Volume) -> Result<Self> {
        Ok(Self)
    }
    fn sync(_: LockName, _: &mut Self, _: &Volume) -> Result<()> {
        Ok(())
    }
    fn invalidate(_: LockName, _: &Volume) {}

    fn heed(name: LockName, cx: &Arc<Volume>) {
        if let (LockKind::Iopen, Some(addr)) = (name.kind, BlockAddr::new(name.number)) {
            cx.iopen_is_wanted(addr);
        }
    }
}

impl Volume {
    /// Says to all nodes that the inode is in use here. The caller holds the inode's lock, so that nobody is deleting it.
    pub fn use_inode(&self, addr: BlockAddr) -> Result<InUse> {
        if !self.bare.is_shared() || addr == self.root.addr {
            return Ok(InUse(None));
        }
        self.bare.get(LockName::iopen(addr)).shared().map(|held| InUse(Some(Box::new(held))))
    }

    /// Nobody else moves directories while this is held.
    pub fn rename_lock(&self) -> Result<ExclusiveHolder<Bare>> {
        self.bare.get(LockName::rename()).exclusive()
    }

    fn iopen_is_wanted(&self, addr: BlockAddr) {
        let Some(users) = self.users.get() else { return };
        if !users.uses(addr) {
            // Nobody holds the lock, so it is given up by itself.
            return;
        }
        users.forget_soon(addr);
        let until = Instant::now() + FORGETTING;
        let lock = self.bare.get(LockName::iopen(addr));
        while users.uses(addr) && lock.is_demanded() {
            if Instant::now() >= until {
                // The deleter holds it, waits for us, and gives up when somebody wants it.
                self.inode(addr).poke();
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}
