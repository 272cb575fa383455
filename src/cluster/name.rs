//! Names of locks as the numbers under which the lock service calls back, and the names this chapter itself uses
//! (ondisk.md 10.1, dlm.md 5.2).

use crate::ids::{Jid, LockKind, LockName};

/// Bits of a token below its kind.
const NUMBER_BITS: u32 = 60;
/// The kind in the token of a lock that is taken for itself.
const DIRECT: u64 = 0xf;

const fn nondisk(number: u64) -> LockName {
    LockName { kind: LockKind::Nondisk, number }
}

/// Held exclusively while a node mounts.
pub(super) const MOUNT: LockName = nondisk(0);
/// Held shared by every node that lives; a notice on it says that somebody withdrew.
pub(super) const LIVE: LockName = nondisk(1);
/// Held shared unless the filesystem is frozen.
pub(super) const FREEZE: LockName = nondisk(2);
/// Its value block says which journals wait for their replay.
pub(super) const CONTROL: LockName = nondisk(4);
/// Held shared by every mounted node, exclusively by the first mounter.
pub(super) const MOUNTED: LockName = nondisk(5);

/// Who has this journal.
pub(super) fn journal(jid: Jid) -> LockName {
    LockName { kind: LockKind::Journal, number: u64::from(jid.0) }
}

/// The token of a glock's lock; `None` for a number that no block or id can have.
pub(super) fn token(name: LockName) -> Option<u64> {
    (name.number >> NUMBER_BITS == 0).then_some(((name.kind as u64) << NUMBER_BITS) | name.number)
}

/// The token of the `index`-th lock that is taken for itself.
pub(super) fn direct_token(index: u64) -> u64 {
    (DIRECT << NUMBER_BITS) | (index & ((1 << NUMBER_BITS) - 1))
}

/// Whether this token is one of `direct_token`.
pub(super) fn is_direct(token: u64) -> bool {
    token >> NUMBER_BITS == DIRECT
}

/// The name behind a token of [`token`].
pub(super) fn name(token: u64) -> Option<LockName> {
    let kind = match token >> NUMBER_BITS {
        1 => LockKind::Nondisk,
        2 => LockKind::Inode,
        3 => LockKind::Rgrp,
        4 => LockKind::Meta,
        5 => LockKind::Iopen,
        6 => LockKind::Flock,
        8 => LockKind::Quota,
        9 => LockKind::Journal,
        _ => return None,
    };
    Some(LockName { kind, number: token & ((1 << NUMBER_BITS) - 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_lead_back() {
        for name_ in [MOUNT, CONTROL, LockName { kind: LockKind::Quota, number: 0x1_ffff_ffff }, journal(Jid(191))] {
            assert_eq!(token(name_).and_then(name), Some(name_));
        }
        assert_eq!(token(LockName { kind: LockKind::Inode, number: 1 << 60 }), None);
        assert!(is_direct(direct_token(3)) && name(direct_token(3)).is_none());
    }

    #[test]
    fn names_are_the_kernels() {
        assert_eq!(CONTROL.resource(), "       1               4");
        assert_eq!(journal(Jid(11)).resource(), "       9               b");
    }
}
