//! Taking several locks without deadlock (ondisk.md 10.2).
//!
//! The order: rename, then inodes (a parent before its child, otherwise by address), then rindex, quotas, resource groups by
//! address, then the transaction. No glock is waited for inside a transaction.

use super::{ExclusiveHolder, Glock, Protected};
use crate::error::Result;
use crate::ids::{LockKind, LockName};
use std::sync::Arc;

/// Place of a lock in the order: locks are taken by ascending rank.
pub fn rank(name: LockName) -> (u8, u64) {
    let class = match name.kind {
        LockKind::Nondisk => 0,
        LockKind::Meta | LockKind::Journal => 1,
        LockKind::Iopen | LockKind::Flock => 2,
        LockKind::Inode => 3,
        LockKind::Quota => 4,
        LockKind::Rgrp => 5,
    };
    (class, name.number)
}

/// Takes locks exclusive in order, each once, and returns the holders in the order asked for; a repeated lock gives one
/// holder, the others are `None`.
pub fn exclusive_many<T: Protected>(locks: &[Arc<Glock<T>>]) -> Result<Vec<Option<ExclusiveHolder<T>>>> {
    let mut order: Vec<usize> = (0..locks.len()).collect();
    order.sort_by_key(|&i| (rank(locks[i].name()), i));
    let mut holders: Vec<Option<ExclusiveHolder<T>>> = locks.iter().map(|_| None).collect();
    let mut before = None;
    for i in order {
        if before != Some(locks[i].name()) {
            holders[i] = Some(locks[i].exclusive()?);
            before = Some(locks[i].name());
        }
    }
    Ok(holders)
}
