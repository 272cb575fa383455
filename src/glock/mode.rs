//! Lock states, and the two rules about them as tables: who may hold together, and what a change of state costs the cache.

use std::fmt;

/// What this node holds of a cluster lock (ondisk.md 10.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockState {
    /// UN: nothing.
    #[default]
    Unlocked = 0,
    /// SH: others may read too.
    Shared = 1,
    /// DF: direct I/O; others may do direct I/O too, nobody may cache data.
    Deferred = 2,
    /// EX: nobody else.
    Exclusive = 3,
}

use LockState::{Deferred, Exclusive, Shared, Unlocked};

impl LockState {
    /// The state with this number.
    pub(super) const fn from_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Unlocked,
            1 => Shared,
            2 => Deferred,
            _ => Exclusive,
        }
    }
    /// True when a node in this state may have a holder that wants `wanted`. EX is good for everything.
    pub const fn permits(self, wanted: Self) -> bool {
        matches!((self, wanted), (Exclusive, _) | (Shared, Shared) | (Deferred, Deferred) | (_, Unlocked))
    }
    /// The same; `exact`: only the state that is wanted will do.
    pub(super) const fn is_good_for(self, wanted: Self, exact: bool) -> bool {
        if exact { self as u32 == wanted as u32 } else { self.permits(wanted) }
    }
    /// True when two holders *on one node* may be there together: many SH, or many DF, or one EX.
    pub const fn coexists(self, other: Self) -> bool {
        matches!((self, other), (Shared, Shared) | (Deferred, Deferred) | (Unlocked, _) | (_, Unlocked))
    }
    /// True when the lock in this state must be given up, wholly or in part, for another node that waits for `ceiling` to be
    /// all that we hold.
    pub const fn exceeds(self, ceiling: Self) -> bool {
        !matches!((self, ceiling), (Unlocked, _) | (_, Exclusive) | (Shared, Shared) | (Deferred, Deferred))
    }
    /// True when leaving this state for `to` needs what was changed under it to be clean on the disk first.
    pub const fn must_sync(self, to: Self) -> bool {
        matches!((self, to), (Exclusive, Unlocked | Shared | Deferred))
    }
    /// True when what is cached under this state may not outlive the change to `to`: others may change it then.
    pub const fn must_invalidate(self, to: Self) -> bool {
        matches!((self, to), (Shared | Exclusive | Deferred, Unlocked) | (Shared | Exclusive, Deferred))
    }
    /// The two letters of the kernel's dumps.
    pub const fn letters(self) -> &'static str {
        match self {
            Unlocked => "UN",
            Shared => "SH",
            Deferred => "DF",
            Exclusive => "EX",
        }
    }
}

impl fmt::Display for LockState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.letters())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_table() {
        let all = [Unlocked, Shared, Deferred, Exclusive];
        let rows: Vec<String> = all
            .iter()
            .flat_map(|&from| all.iter().map(move |&to| (from, to)))
            .filter(|(from, to)| from != to && (from.must_sync(*to) || from.must_invalidate(*to)))
            .map(|(from, to)| {
                let sync = if from.must_sync(to) { " sync" } else { "" };
                let inval = if from.must_invalidate(to) { " invalidate" } else { "" };
                format!("{from}->{to}{sync}{inval}")
            })
            .collect();
        assert_eq!(
            rows,
            [
                "SH->UN invalidate",
                "SH->DF invalidate",
                "DF->UN invalidate",
                "EX->UN sync invalidate",
                "EX->SH sync",
                "EX->DF sync invalidate"
            ]
        );
    }
}
