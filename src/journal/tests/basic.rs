//! One property each.

use super::Rig;
use super::rig::*;
use crate::device::{AlignedBuf, BlockDevice, CrashMode};
use crate::error::Error;
use crate::format::{MAGIC, MetaHeader, MetaType, OnDisk, StatfsChange, be};
use crate::ids::BatchId;
use crate::journal::{FlushReason, Reserve, UnrecoveredJournal};
use crate::sync;
use std::sync::Arc;

#[test]
fn what_was_flushed_survives_and_what_was_not_is_gone() {
    for bs in [512, 1024, 4096] {
        let rig = Rig::new(bs, 64);
        assert_eq!((rig.replayed.clean, rig.replayed.found), (false, 0), "a journal of zeros is replayed as nothing");
        let mut tx = rig.journal.begin(Reserve::blocks(2)).expect("room");
        let b = tx.new_meta(addr(FIRST), owner(FIRST), MetaType::Indirect);
        tx.edit(&b, |bytes| bytes[100] = 1);
        let j = tx.new_jdata(addr(FIRST + 1), owner(FIRST));
        tx.edit(&j, |bytes| be::U32::edit(bytes).set(MAGIC));
        let batch = tx.commit();
        rig.journal.flush_to(batch, FlushReason::Sync).expect("flushed");
        let mut tx = rig.journal.begin(Reserve::blocks(1)).expect("room");
        tx.edit(&b, |bytes| bytes[100] = 2);
        tx.commit();
        assert_eq!(rig.block_on_disk(FIRST), vec![0; bs as usize], "nothing is in place yet");
        let rig = rig.crash(1, CrashMode::AllLost, 64);
        assert_eq!((rig.replayed.found, rig.replayed.replayed), (2, 2));
        let b = rig.meta(FIRST);
        assert_eq!(b.bytes()[100], 1);
        assert_eq!(MetaHeader::view(&b.bytes()).jid.get(), 3);
        let j = rig.cache.jdata(addr(FIRST + 1), owner(FIRST)).expect("read");
        assert!(MetaHeader::has_magic(&j.bytes()));
        rig.journal.shutdown().expect("closed");
        assert!(matches!(rig.journal.begin(Reserve::blocks(1)), Err(Error::ReadOnly)));
        let rig = rig.crash(1, CrashMode::AllLost, 64);
        assert!(rig.replayed.clean);
    }
}

#[test]
fn an_fsync_is_two_writes_and_one_flush() {
    let rig = Rig::new(4096, 64);
    let mut tx = rig.journal.begin(Reserve::blocks(1)).expect("room");
    tx.new_meta(addr(FIRST), owner(FIRST), MetaType::Indirect);
    let batch = tx.commit();
    rig.journal.flush_to(batch, FlushReason::Sync).expect("flushed");
    let c = rig.dev.counters();
    assert_eq!((c.writes, c.durable_writes, c.flushes), (2, 1, 1));
    rig.journal.flush_to(batch, FlushReason::Sync).expect("durable already");
    rig.journal.flush(FlushReason::Sync).expect("nothing to do");
    assert_eq!(rig.dev.counters(), c);
    // An append: data, body and header, still one flush.
    let mut tx = rig.journal.begin(Reserve::blocks(1)).expect("room");
    tx.edit(&rig.meta(FIRST), |b| b[50] = 1);
    let data = Arc::new(AlignedBuf::copy_of(&[7; 4096]));
    rig.cache.data().write(owner(9), addr(FIRST + 9), data, Some(tx.batch())).expect("buffered");
    let batch = tx.commit();
    rig.journal.sync_file(owner(9), batch).expect("synced");
    let d = rig.dev.counters();
    assert_eq!((d.writes - c.writes, d.durable_writes - c.durable_writes, d.flushes - c.flushes), (3, 1, 1));
    // An overwrite: data alone.
    let data = Arc::new(AlignedBuf::copy_of(&[8; 4096]));
    rig.cache.data().write(owner(9), addr(FIRST + 9), data, None).expect("buffered");
    rig.journal.sync_file(owner(9), batch).expect("synced");
    let e = rig.dev.counters();
    assert_eq!((e.writes - d.writes, e.durable_writes - d.durable_writes, e.flushes - d.flushes), (1, 0, 1));
    let rig = rig.crash(0, CrashMode::AllLost, 64);
    assert_eq!(rig.block_on_disk(FIRST + 9), [8; 4096]);
}

#[test]
fn a_freed_block_is_not_replayed_over_its_next_owner() {
    let rig = Rig::new(4096, 64);
    let mut tx = rig.journal.begin(Reserve::blocks(2)).expect("room");
    tx.new_meta(addr(FIRST), owner(FIRST), MetaType::Indirect);
    // Keeps the group in the log.
    tx.new_meta(addr(FIRST + 1), owner(FIRST), MetaType::Indirect);
    tx.commit();
    rig.journal.flush(FlushReason::Sync).expect("flushed");
    let mut tx = rig.journal.begin(Reserve::default().with_revokes(1)).expect("room");
    tx.forget(addr(FIRST), 1);
    tx.commit();
    rig.journal.flush(FlushReason::Sync).expect("flushed");
    let data = Arc::new(AlignedBuf::copy_of(&[9; 4096]));
    rig.cache.data().write(owner(1), addr(FIRST), data, None).expect("buffered");
    rig.cache.data().write_all().expect("written");
    rig.journal.sync_data().expect("durable");
    let rig = rig.crash(0, CrashMode::AllLost, 64);
    assert_eq!((rig.replayed.found, rig.replayed.replayed, rig.replayed.revokes), (2, 1, 1));
    assert_eq!(rig.block_on_disk(FIRST), [9; 4096]);
}

#[test]
fn a_block_freed_and_taken_again_in_one_batch_is_replayed() {
    let rig = Rig::new(4096, 64);
    let mut tx = rig.journal.begin(Reserve::blocks(1)).expect("room");
    tx.new_meta(addr(FIRST), owner(FIRST), MetaType::Indirect);
    tx.commit();
    rig.journal.flush(FlushReason::Sync).expect("flushed");
    let mut tx = rig.journal.begin(Reserve::blocks(1).with_revokes(1)).expect("room");
    tx.forget(addr(FIRST), 1);
    let b = tx.new_meta(addr(FIRST), owner(FIRST), MetaType::Indirect);
    tx.edit(&b, |bytes| bytes[99] = 5);
    tx.commit();
    rig.journal.flush(FlushReason::Sync).expect("flushed");
    let rig = rig.crash(0, CrashMode::AllLost, 64);
    assert_eq!((rig.replayed.found, rig.replayed.replayed, rig.replayed.revokes), (1, 1, 0));
    assert_eq!(rig.meta(FIRST).bytes()[99], 5);
}

#[test]
fn freeing_does_not_lose_the_block_before_it_commits() {
    // Batch 1 logs a block; batch 2 (other things) commits after a transaction of batch 3 has freed it. The header of
    // batch 2 must not move the tail past batch 1 although nothing of it is left to be written in place.
    let rig = Rig::new(4096, 64);
    let mut tx = rig.journal.begin(Reserve::blocks(1)).expect("room");
    let b = tx.new_meta(addr(FIRST), owner(FIRST), MetaType::Indirect);
    tx.edit(&b, |bytes| bytes[99] = 5);
    tx.commit();
    rig.journal.flush(FlushReason::Sync).expect("flushed");
    let mut tx = rig.journal.begin(Reserve::default().with_revokes(1)).expect("room");
    tx.forget(addr(FIRST), 1);
    tx.commit();
    let log = rig.journal.log.as_ref().expect("writable");
    rig.journal.move_tail(log, FlushReason::Normal).expect("a header, or none");
    let rig = rig.crash(0, CrashMode::AllLost, 64);
    assert_eq!(rig.meta(FIRST).bytes()[99], 5);
}

#[test]
fn a_small_log_goes_round_many_times() {
    let rig = Rig::new(512, 32);
    for i in 0..2000u64 {
        let mut tx = rig.journal.begin(Reserve::blocks(3)).expect("room is made");
        for k in 0..3 {
            let n = FIRST + (i * 7 + k * 13) % 50;
            let b = match rig.cache.cached(addr(n)) {
                Some(b) => b,
                None => tx.new_meta(addr(n), owner(n), MetaType::Indirect),
            };
            tx.edit(&b, |bytes| bytes[64] = bytes[64].wrapping_add(1));
        }
        tx.commit();
    }
    assert_eq!(rig.journal.overruns(), 0);
    let mut expect = vec![0u8; 50];
    for i in 0..2000 {
        for k in 0..3 {
            let e = &mut expect[(i * 7 + k * 13) % 50];
            *e = e.wrapping_add(1);
        }
    }
    rig.journal.flush(FlushReason::Sync).expect("flushed");
    let rig = rig.crash(3, CrashMode::Random, 32);
    let found: Vec<u8> = (0..50).map(|k| rig.meta(FIRST + k).bytes()[64]).collect();
    assert_eq!(found, expect);
}

#[test]
fn statfs_is_settled_once() {
    let rig = Rig::new(1024, 64);
    let delta = StatfsChange { total: 0.into(), free: (-5).into(), dinodes: 2.into() };
    let mut tx = rig.journal.begin(Reserve::blocks(1)).expect("room");
    let b = rig.cache.meta(addr(CHANGE), owner(CHANGE), MetaType::Dinode).expect("a dinode");
    tx.edit(&b, |bytes| *StatfsChange::edit(&mut bytes[232..]) = delta);
    rig.journal.set_local_statfs(delta);
    tx.commit();
    rig.journal.flush(FlushReason::Sync).expect("flushed");
    // Not committed: must not count.
    let tx = rig.journal.begin(Reserve::blocks(1)).expect("room");
    rig.journal.set_local_statfs(StatfsChange { free: (-50).into(), ..delta });
    tx.commit();
    let log = rig.journal.log.as_ref().expect("writable");
    rig.journal.write_back(log, crate::journal::ail::Place::Upto(BatchId(9))).expect("in place");
    rig.journal.move_tail(log, FlushReason::Normal).expect("a header");
    let rig = rig.crash(0, CrashMode::AllLost, 64);
    assert_eq!(statfs_of(&rig.block_on_disk(MASTER)), (0, -5, 2));
    assert_eq!(statfs_of(&rig.block_on_disk(CHANGE)), (0, 0, 0));
    let rig = rig.crash(0, CrashMode::AllLost, 64);
    assert!(rig.replayed.clean);
    assert_eq!(statfs_of(&rig.block_on_disk(MASTER)), (0, -5, 2));
}

/// Blocks of two locks in turn, `count` in all, are changed and committed; the first lock is given up, and another node changes
/// one of its blocks. After a crash that change is still there, and nothing of the second lock is lost. `others`: whether its
/// blocks are in place before the crash.
fn a_lock_is_given_up(count: u64, others: bool) {
    let rig = Rig::new(4096, 64);
    let mut tx = rig.journal.begin(Reserve::blocks(count as u32)).expect("room");
    for n in 0..count {
        let b = tx.new_meta(addr(FIRST + n), owner(FIRST + n % 2), MetaType::Indirect);
        tx.edit(&b, |bytes| bytes[40] = 1);
    }
    tx.commit();
    rig.journal.sync_owner(owner(FIRST)).expect("synced");
    for n in 0..count {
        assert_eq!(rig.block_on_disk(FIRST + n)[40], u8::from(others || n % 2 == 0), "block {n}");
    }
    rig.cache.invalidate(owner(FIRST));
    // Another node changes one of them now.
    rig.dev.write(FIRST << 12, &[3; 4096]).expect("write");
    rig.dev.flush().expect("flush");
    assert!(rig.cache.cached(addr(FIRST)).is_none() && rig.cache.cached(addr(FIRST + 1)).is_some());
    let rig = rig.crash(0, CrashMode::AllLost, 64);
    assert_eq!(rig.block_on_disk(FIRST), [3; 4096]);
    for n in (1..count).step_by(2) {
        assert_eq!(rig.block_on_disk(FIRST + n)[40], 1, "block {n}");
    }
}

#[test]
fn giving_up_a_lock_puts_its_blocks_in_place_and_revokes_them() {
    a_lock_is_given_up(8, false);
    a_lock_is_given_up(4, false);
}

#[test]
fn impatient_threads_are_told() {
    let rig = Rig::new(512, 32);
    let most = rig.journal.max_reserve();
    assert!(matches!(rig.journal.begin(Reserve::blocks(most + 1)), Err(Error::Invalid)));
    sync::impatiently(|| {
        let tx = rig.journal.begin(Reserve::blocks(most)).expect("room");
        assert!(sync::may_wait());
        tx.commit();
    });
    let mut held = Vec::new();
    while let Ok(tx) = sync::impatiently(|| rig.journal.begin(Reserve::blocks(most))) {
        held.push(tx);
    }
    assert!(held.len() >= 2);
    sync::impatiently(|| {
        assert!(matches!(rig.journal.begin(Reserve::blocks(most)), Err(Error::MustWait)));
        assert!(matches!(rig.cache.meta(addr(FIRST), owner(1), MetaType::Indirect), Err(Error::MustWait)));
        assert!(matches!(rig.journal.flush(FlushReason::Sync), Err(Error::MustWait)));
    });
    for tx in held {
        tx.commit();
    }
    assert!(rig.journal.withdrawn().is_none());
}

#[test]
fn a_withdrawn_journal_writes_nothing() {
    let rig = Rig::new(512, 64);
    let mut tx = rig.journal.begin(Reserve::blocks(1)).expect("room");
    tx.new_meta(addr(FIRST), owner(1), MetaType::Indirect);
    drop(tx);
    assert!(rig.journal.withdrawn().expect("half a change").contains("half-way"));
    assert!(matches!(rig.journal.begin(Reserve::blocks(1)), Err(Error::Withdrawn)));
    assert!(matches!(rig.journal.flush(FlushReason::Sync), Err(Error::Withdrawn)));
    assert!(matches!(rig.journal.shutdown(), Err(Error::Withdrawn)));
    let buf = Arc::new(AlignedBuf::zeroed(512));
    assert!(matches!(rig.cache.data().write(owner(1), addr(FIRST), buf, None), Err(Error::Withdrawn)));
    assert_eq!(rig.dev.counters().writes, 0);
}

#[test]
fn a_panic_in_a_change_withdraws() {
    let rig = Rig::new(512, 64);
    let changed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut tx = rig.journal.begin(Reserve::blocks(1)).expect("room");
        let b = tx.new_meta(addr(FIRST), owner(1), MetaType::Indirect);
        tx.edit(&b, |_| panic!("in the midst of a change (expected by the test)"));
    }));
    assert!(changed.is_err());
    assert!(rig.journal.withdrawn().is_some());
    assert!(matches!(rig.journal.flush(FlushReason::Sync), Err(Error::Withdrawn)));
}

#[test]
#[cfg_attr(debug_assertions, should_panic = "within a transaction")]
fn a_flush_within_a_transaction_is_refused() {
    let rig = Rig::new(512, 64);
    let tx = rig.journal.begin(Reserve::blocks(1)).expect("room");
    assert!(matches!(rig.journal.flush(FlushReason::Sync), Err(Error::Invalid)));
    tx.commit();
}

#[test]
fn a_write_error_withdraws() {
    let rig = Rig::new(512, 64);
    rig.dev.fail_writes(Some(Box::new(|_, _| true)));
    let mut tx = rig.journal.begin(Reserve::blocks(1)).expect("room");
    tx.new_meta(addr(FIRST), owner(1), MetaType::Indirect);
    tx.commit();
    assert!(matches!(rig.journal.flush(FlushReason::Sync), Err(Error::Io(_))));
    assert!(rig.journal.withdrawn().is_some());
    assert!(matches!(rig.journal.flush(FlushReason::Sync), Err(Error::Withdrawn)));
}

#[test]
fn an_overlay_shows_what_a_replay_would_do() {
    let rig = Rig::new(1024, 64);
    let mut tx = rig.journal.begin(Reserve::blocks(1)).expect("room");
    let b = tx.new_meta(addr(FIRST), owner(FIRST), MetaType::Indirect);
    tx.edit(&b, |bytes| bytes[77] = 7);
    tx.commit();
    rig.journal.flush(FlushReason::Sync).expect("flushed");
    let bs = rig.cache.block_size();
    let disk = Arc::new(rig.dev.crash(0, CrashMode::AllLost));
    let cache = crate::cache::Cache::new(disk, bs, 1 << 20);
    let found = UnrecoveredJournal::examine(&cache, place(64)).expect("examined");
    assert!(!found.is_clean());
    cache.set_overlay(found.overlay().expect("readable")).expect("once");
    assert_eq!(cache.meta(addr(FIRST), owner(FIRST), MetaType::Indirect).expect("there").bytes()[77], 7);
}
