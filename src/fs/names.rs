//! Under which name an inode was last found here: for people who look at locks, and for nothing else. A note costs little and
//! may be out of date; where nobody else wants our locks none is made.

use crate::ids::BlockAddr;
use crate::sync::DashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So many names are remembered; then it begins anew.
const MAX: usize = 1 << 16;
/// A path deeper than this is cut.
const DEPTH: usize = 128;

/// inode → directory and name.
#[derive(Default)]
pub(super) struct Names {
    map: DashMap<BlockAddr, (BlockAddr, Box<[u8]>)>,
    count: AtomicUsize,
}

impl Names {
    /// `addr` was found under this name.
    pub(super) fn note(&self, addr: BlockAddr, parent: BlockAddr, name: &[u8]) {
        if name == b"." || name == b".." {
            return;
        }
        if let Some(mut known) = self.map.get_mut(&addr) {
            if known.0 != parent || *known.1 != *name {
                *known = (parent, name.into());
            }
            return;
        }
        if self.count.fetch_add(1, Ordering::Relaxed) >= MAX {
            self.map.clear();
            self.count.store(1, Ordering::Relaxed);
        }
        self.map.insert(addr, (parent, name.into()));
    }

    /// The path of an inode below `root`, as far as it is known.
    pub(super) fn path(&self, addr: BlockAddr, root: BlockAddr) -> Option<String> {
        let (mut at, mut parts) = (addr, Vec::new());
        while at != root {
            if parts.len() == DEPTH {
                break;
            }
            let Some(known) = self.map.get(&at) else { break };
            parts.push(String::from_utf8_lossy(&known.1).into_owned());
            let next = known.0;
            drop(known);
            at = next;
        }
        parts.reverse();
        match (at == root, parts.is_empty()) {
            (true, _) => Some(format!("/{}", parts.join("/"))),
            (false, true) => None,
            (false, false) => Some(format!(".../{}", parts.join("/"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_put_together() {
        let names = Names::default();
        let addr = |n| BlockAddr::new(n).expect("not 0");
        names.note(addr(2), addr(1), b"usr");
        names.note(addr(3), addr(2), b"lib");
        names.note(addr(9), addr(8), b"lost");
        names.note(addr(2), addr(3), b"..");
        assert_eq!(names.path(addr(3), addr(1)).as_deref(), Some("/usr/lib"));
        assert_eq!(names.path(addr(1), addr(1)).as_deref(), Some("/"));
        assert_eq!(names.path(addr(9), addr(1)).as_deref(), Some(".../lost"));
        assert_eq!(names.path(addr(7), addr(1)), None);
        // Two that name one another, as after renames.
        names.note(addr(4), addr(5), b"a");
        names.note(addr(5), addr(4), b"b");
        assert!(names.path(addr(4), addr(1)).is_some_and(|path| path.starts_with(".../")));
        (10..10 + 2 * MAX as u64).for_each(|n| names.note(addr(n), addr(1), b"x"));
        assert!(names.map.len() <= MAX);
    }
}
