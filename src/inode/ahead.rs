//! Which inodes will probably be made next: where some were made one after the other, those behind them. The lock service may get
//! their locks ready ([`LockManager::prepare`](crate::glock::LockManager::prepare)).

use super::Volume;
use crate::ids::{BlockAddr, LockName};
use crate::sync::Mutex;
use std::collections::VecDeque;
use std::ops::Range;

/// Addresses that are got ready together.
const GROUP: u64 = 16;
/// As many inodes made in a group say that there will be more.
const SEVERAL: u32 = 3;
/// Groups remembered: several directories are filled at a time.
const REMEMBERED: usize = 32;

/// Where inodes were made lately.
#[derive(Default)]
pub struct Ahead(Mutex<VecDeque<Group>>);

struct Group {
    number: u64,
    made: u32,
    /// The locks of its addresses are asked for.
    ready: bool,
}

impl Ahead {
    /// An inode is made at this address: the addresses to be got ready now.
    fn made(&self, addr: u64) -> Option<Range<u64>> {
        let mut groups = self.0.lock();
        let number = addr / GROUP;
        let group = entry(&mut groups, number);
        group.made += 1;
        let from = match (group.ready, group.made) {
            // Those behind it come when the first of these is used.
            (true, 1) => (number + 1) * GROUP,
            (false, SEVERAL) => {
                group.ready = true;
                addr + 1
            }
            _ => return None,
        };
        let next = entry(&mut groups, number + 1);
        let until = if std::mem::replace(&mut next.ready, true) { number + 1 } else { number + 2 };
        Some(from..until * GROUP).filter(|range| !range.is_empty())
    }
}

fn entry(groups: &mut VecDeque<Group>, number: u64) -> &mut Group {
    let at = groups.iter().rposition(|g| g.number == number).unwrap_or_else(|| {
        if groups.len() == REMEMBERED {
            groups.pop_front();
        }
        groups.push_back(Group { number, made: 0, ready: false });
        groups.len() - 1
    });
    &mut groups[at]
}

impl Volume {
    /// An inode is being made there; gets the locks of the next ones ready.
    pub(super) fn look_ahead(&self, addr: BlockAddr) {
        if !self.inodes.is_shared() {
            return;
        }
        let Some(range) = self.ahead.made(addr.get()) else { return };
        let both = |next| [(LockName::inode(next), true), (LockName::iopen(next), false)];
        let names: Vec<_> = range.filter_map(BlockAddr::new).flat_map(both).collect();
        self.inodes.manager().prepare(&names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_once_and_before_it_is_needed() {
        let ahead = Ahead::default();
        let mut ready = std::collections::BTreeSet::new();
        for addr in 1000..2000 {
            assert!(addr < 1003 || ready.contains(&addr), "{addr} was not got ready");
            for next in ahead.made(addr).into_iter().flatten() {
                assert!(next > addr && next < addr + 3 * GROUP);
                assert!(ready.insert(next), "{next} twice");
            }
        }
    }

    #[test]
    fn single_inodes_get_nothing_ready() {
        let ahead = Ahead::default();
        assert!((0..500).all(|n| ahead.made(n * 1000).is_none()));
        assert!((0..500).all(|n| ahead.made(n * 1000 + 1).is_none()));
    }
}
