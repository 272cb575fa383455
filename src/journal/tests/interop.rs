//! Our log, replayed by fsck.gfs2. Skipped, loudly, where gfs2-utils are not installed.

use super::rig::*;
use crate::cache::Cache;
use crate::clock::SimClock;
use crate::device::{BlockDevice, CrashMode, MemoryDevice, SimDevice};
use crate::format::{
    Dinode, MAGIC, MetaHeader, MetaType, OnDisk, Superblock, be, dinode::DINODE_SIZE, get_pointer, put_u64,
};
use crate::ids::{BlockAddr, BlockSize, Jid};
use crate::journal::{FlushReason, Journal, JournalPlace, LogExtent, Reserve, UnrecoveredJournal};
use std::process::Command;
use std::sync::Arc;

/// The data blocks of an inode, in order.
fn blocks_of(dev: &dyn BlockDevice, bs: BlockSize, dinode: u64) -> Vec<BlockAddr> {
    let block = read_block(dev, bs, dinode);
    let height = Dinode::view(&block).height.get();
    let pointers = |b: &[u8], start: usize, n: usize| -> Vec<BlockAddr> {
        (0..n).filter_map(|i| get_pointer(b, start, i)).collect()
    };
    let mut level = pointers(&block, DINODE_SIZE, bs.dinode_pointers());
    for _ in 1..height {
        level =
            level.iter().flat_map(|a| pointers(&read_block(dev, bs, a.get()), 24, bs.indirect_pointers())).collect();
    }
    level
}

#[test]
fn fsck_replays_what_we_log() {
    let dir = tempfile::tempdir().expect("a directory");
    let image = dir.path().join("image");
    std::fs::File::create(&image).and_then(|f| f.set_len(64 << 20)).expect("an image file");
    for bytes in [512u32, 1024, 4096] {
        let made = Command::new("mkfs.gfs2")
            .args(["-O", "-q", "-p", "lock_nolock", "-j", "1", "-J", "8", "-b", &bytes.to_string()])
            .arg(&image)
            .output();
        match made {
            Ok(out) if out.status.success() => {}
            Ok(out) => panic!("mkfs.gfs2: {}", String::from_utf8_lossy(&out.stderr)),
            Err(e) => return eprintln!("SKIPPED: fsck_replays_what_we_log needs mkfs.gfs2: {e}"),
        }
        let bs = BlockSize::new(bytes).expect("legal");
        let want = work_and_crash(&image, bs);
        let out = Command::new("fsck.gfs2").arg("-y").arg(&image).output().expect("fsck.gfs2 comes with mkfs.gfs2");
        let said = String::from_utf8_lossy(&out.stdout);
        // 1: something was mended, here the journal.
        assert_eq!(out.status.code(), Some(1), "{said}");
        let after = MemoryDevice::load(&image).expect("loaded");
        for (block, bytes) in want {
            assert!(read_block(&after, bs, block) == bytes[..], "block {block} (bs {}):\n{said}", bs.bytes());
        }
        let clean = Command::new("fsck.gfs2").arg("-n").arg(&image).output().expect("fsck.gfs2");
        assert_eq!(clean.status.code(), Some(0), "{}", String::from_utf8_lossy(&clean.stdout));
    }
}

/// Logs blocks of every kind in several groups and leaves the log dirty. Returns what a replay must put in place.
fn work_and_crash(image: &std::path::Path, bs: BlockSize) -> Vec<(u64, Arc<[u8]>)> {
    let dev = Arc::new(SimDevice::new(MemoryDevice::load(image).expect("loaded")));
    let sb = read_block(&*dev, bs, 65536 >> bs.shift());
    let root = Superblock::view(&sb).root_dir.addr.get();
    // The journal is the first dinode of the volume.
    let is_dinode = |n: &u64| MetaHeader::view_kind(&read_block(&*dev, bs, *n)) == MetaType::Dinode as u32;
    let inode = (65536 >> bs.shift()..).find(is_dinode).expect("a journal");
    let extents = blocks_of(&*dev, bs, inode).into_iter().map(|addr| LogExtent { addr, blocks: 1 }).collect();
    let place = JournalPlace {
        jid: Jid(0),
        extents,
        inode: addr(inode),
        statfs_change: addr(root),
        quota_change: addr(root),
        master_statfs: addr(root),
    };
    let cache = Cache::new(dev.clone(), bs, 1 << 20);
    let clock = Arc::new(SimClock::new(1_700_000_000));
    let (clean, done) =
        UnrecoveredJournal::examine(&cache, place).and_then(|j| j.recover(Jid(0), &*clock)).expect("new");
    assert!(done.clean, "mkfs leaves a clean journal");
    let journal = Journal::open(cache.clone(), clean, clock, true, 86400).expect("open");
    journal.log.as_ref().expect("writable").flusher.disable();
    // Blocks that nobody owns, far at the end: whatever lies there, the volume is consistent.
    let free = dev.size() / u64::from(bs.bytes() as u32) - 2000;
    let mut want = Vec::new();
    let mut tx = journal.begin(Reserve::blocks(400)).expect("room");
    for n in 0..200 {
        let b = tx.new_meta(addr(free + n), owner(1), MetaType::Indirect);
        tx.edit(&b, |bytes| put_u64(bytes, 40, n));
        let j = tx.new_jdata(addr(free + 1000 + n), owner(1));
        tx.edit(&j, |bytes| {
            put_u64(bytes, 40, n);
            if n % 2 == 0 {
                be::U32::edit(bytes).set(MAGIC);
            }
        });
        if n >= 100 {
            want.extend([(free + n, b.bytes()), (free + 1000 + n, j.bytes())]);
        }
    }
    tx.commit();
    journal.flush(FlushReason::Sync).expect("flushed");
    // Half of them is freed, which takes many revokes; something else lies there then.
    let mut tx = journal.begin(Reserve::blocks(1).with_revokes(200)).expect("room");
    tx.forget(addr(free), 100);
    tx.forget(addr(free + 1000), 100);
    let dinode = cache.meta(addr(root), owner(root), MetaType::Dinode).expect("the root");
    tx.edit(&dinode, |bytes| Dinode::edit(bytes).mtime.set(1_700_000_000));
    want.push((root, dinode.bytes()));
    tx.commit();
    journal.flush(FlushReason::Sync).expect("flushed");
    let other: Arc<[u8]> = Arc::from(vec![0x77; bs.bytes()]);
    for n in [free, free + 99, free + 1000, free + 1099] {
        dev.write(n << bs.shift(), &other).expect("memory");
        want.push((n, other.clone()));
    }
    dev.flush().expect("memory");
    dev.crash(0, CrashMode::AllLost).save(image).expect("saved");
    want
}
