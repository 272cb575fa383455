//! What administrators see of a lockspace.

use super::LockSpace;
use crate::inspect::{ResourceView, SpaceView};

impl LockSpace {
    /// The state of the lockspace as text, for administrators.
    pub fn dump(&self) -> String {
        self.shared.engine().dump()
    }

    /// The state of the lockspace.
    pub fn inspect(&self) -> SpaceView {
        self.shared.view()
    }

    /// Every resource with its locks. Locking pauses meanwhile: some milliseconds for ten thousand locks.
    pub fn lock_dump(&self) -> Vec<ResourceView> {
        self.shared.engine().lock_dump()
    }

    /// One resource with its locks, if this node knows it.
    pub fn look(&self, name: &[u8]) -> Option<ResourceView> {
        self.shared.engine().look(name)
    }
}
