//! A log may hold anything: recovery says what is wrong or does what it can, and never panics, hangs or writes wildly.

use super::model::Model;
use super::rig::*;
use crate::clock::SimClock;
use crate::device::{BlockDevice, CrashMode, MemoryDevice, SimDevice};
use crate::error::{CorruptKind, Error};
use crate::format::log::{LD_JDATA, LD_METADATA, LH_UNMOUNT};
use crate::format::{LogDescriptor, LogHeader, MetaType, OnDisk, be, put_u64};
use crate::ids::{BlockSize, Jid};
use crate::journal::{FlushReason, Reserve, UnrecoveredJournal};
use std::sync::Arc;

const LOG_BLOCKS: u32 = 64;

/// A dirty volume after some work.
fn dirty(seed: u64, bs: BlockSize) -> MemoryDevice {
    let rig = Rig::mount(fresh_disk(bs), bs, LOG_BLOCKS, 1 << 20).expect("fresh");
    let mut model = Model::new(seed);
    model.format(&rig);
    for _ in 0..40 + seed % 30 {
        model.step(&rig).expect("no crash");
    }
    rig.journal.flush(FlushReason::Sync).expect("flushed");
    let mut tx = rig.journal.begin(Reserve::blocks(2)).expect("room");
    for n in 0..2 {
        tx.new_meta(addr(FIRST + 100 + n), owner(1), MetaType::Indirect);
    }
    tx.commit();
    rig.journal.flush(FlushReason::Sync).expect("flushed");
    rig.dev.crash(seed, CrashMode::AllKept)
}

#[test]
fn no_log_makes_recovery_panic() {
    let bs = BlockSize::new(512).expect("legal");
    for seed in super::crash::seeds(40) {
        let image = dirty(seed, bs);
        let mut rng = Model::new(seed);
        for _ in 0..40 {
            let disk = image.snapshot();
            for _ in 0..1 + rng.below(4) {
                damage(&disk, &mut rng, bs);
            }
            let dev = Arc::new(SimDevice::new(disk));
            let cache = crate::cache::Cache::new(dev.clone(), bs, 1 << 20);
            let Ok(found) = UnrecoveredJournal::examine(&cache, place(LOG_BLOCKS)) else { continue };
            // Errors are what most damage leads to; the point is that something is returned.
            let overlay = found.overlay().map(|blocks| blocks.len());
            if let Ok((_, done)) = found.recover(Jid(0), &SimClock::new(1)) {
                assert!(done.clean || overlay.expect("the same walk") as u64 <= done.replayed);
                let rig = Rig::mount(dev.crash(0, CrashMode::AllLost), bs, LOG_BLOCKS, 1 << 20).expect("clean now");
                assert!(rig.replayed.clean);
            }
        }
    }
}

/// Changes something in one block of the log, and makes headers valid again so that they are believed.
fn damage(disk: &MemoryDevice, rng: &mut Model, bs: BlockSize) {
    let n = LOG + rng.below(u64::from(LOG_BLOCKS));
    let mut block = read_block(disk, bs, n);
    let word = |rng: &mut Model| match rng.below(4) {
        0 => rng.below(u64::from(LOG_BLOCKS) + 3) as u32,
        1 => u32::MAX - rng.below(3) as u32,
        2 => rng.below(1 << 32) as u32,
        _ => [LD_METADATA, LD_JDATA, 301, 0][rng.below(4) as usize],
    };
    match rng.below(3) {
        0 => {
            // A field of a descriptor or header.
            let at = 24 + 4 * rng.below(7) as usize;
            be::U32::edit(&mut block[at..]).set(word(rng));
        }
        1 => {
            let at = 4 * rng.below(bs.bytes() as u64 / 4) as usize;
            be::U32::edit(&mut block[at..]).set(word(rng));
        }
        _ => {
            // An address.
            let at = 72 + 8 * rng.below(8) as usize;
            let to = [0, 1, 128, LOG, LOG + 5, FIRST, FIRST + BLOCKS - 1, FIRST + BLOCKS, u64::MAX];
            put_u64(&mut block, at, to[rng.below(to.len() as u64) as usize]);
        }
    }
    let header = crate::format::MetaHeader::view_kind(&block) == MetaType::LogHeader as u32;
    if header && rng.below(4) != 0 {
        LogHeader::seal(&mut block);
    }
    disk.write(n << bs.shift(), &block).expect("memory");
}

/// Plants one fault in the descriptor of the last group and says what recovery makes of it.
fn with_descriptor(f: impl FnOnce(&mut [u8])) -> Error {
    let bs = BlockSize::new(512).expect("legal");
    let disk = dirty(1, bs);
    let dev = Arc::new(disk.snapshot());
    let cache = crate::cache::Cache::new(dev, bs, 1 << 20);
    let journal = UnrecoveredJournal::examine(&cache, place(LOG_BLOCKS)).expect("examined");
    // The last group is a descriptor, two blocks, a header.
    let at = journal.map.addr(crate::ids::LogBlock((journal.head.at + LOG_BLOCKS - 3) % LOG_BLOCKS)).get();
    let mut block = read_block(&disk, bs, at);
    assert_eq!(LogDescriptor::view(&block).kind.get(), LD_METADATA);
    f(&mut block);
    disk.write(at << bs.shift(), &block).expect("memory");
    match Rig::mount(disk, bs, LOG_BLOCKS, 1 << 20) {
        Err(e) => e,
        Ok(_) => panic!("recovered although the log is damaged"),
    }
}

#[test]
fn planted_faults_are_named() {
    type Fault = fn(&mut [u8]);
    let faults: [(&str, Fault); 8] = [
        ("neither", |b| b[0] = 0),
        ("length 0", |b| LogDescriptor::edit(b).length.set(0)),
        ("longer than the journal", |b| LogDescriptor::edit(b).length.set(u32::MAX)),
        ("more items", |b| LogDescriptor::edit(b).data1.set(4)),
        ("outside the volume", |b| put_u64(b, 72, 0)),
        ("outside the volume", |b| put_u64(b, 72, u64::MAX)),
        ("outside the volume", |b| put_u64(b, 72, 128)),
        ("journal's own", |b| put_u64(b, 72, LOG + 7)),
    ];
    for (words, fault) in faults {
        let e = with_descriptor(fault);
        assert!(e.to_string().contains(words), "{words}: {e}");
        assert!(matches!(e, Error::Corrupt(c) if matches!(c.what, CorruptKind::Journal(_))));
    }
}

#[test]
fn version_1_headers_are_accepted() {
    // fsck.gfs2 3.5.0 closes a replayed log with one.
    let bs = BlockSize::new(1024).expect("legal");
    let disk = fresh_disk(bs);
    let mut block = vec![0; 1024];
    crate::format::MetaHeader::init(&mut block, MetaType::LogHeader);
    let lh = LogHeader::edit(&mut block);
    lh.sequence.set(77);
    lh.flags.set(LH_UNMOUNT);
    lh.blkno.set(5);
    LogHeader::seal(&mut block);
    LogHeader::edit(&mut block).crc.set(0);
    assert!(LogHeader::is_valid(&block));
    // Journal block 5 lies in the first extent, which is the second on the device.
    disk.write((LOG + 32 + 5) << 10, &block).expect("memory");
    let rig = Rig::mount(disk, bs, 64, 1 << 20).expect("clean");
    assert!(rig.replayed.clean);
    let mut tx = rig.journal.begin(Reserve::blocks(1)).expect("room");
    tx.new_meta(addr(FIRST), owner(1), MetaType::Indirect);
    tx.commit();
    rig.journal.flush(FlushReason::Sync).expect("flushed");
    let head = read_block(&*rig.dev, bs, LOG + 32 + 8);
    let lh = LogHeader::view(&head);
    assert!(LogHeader::is_valid(&head));
    assert_eq!((lh.sequence.get(), lh.blkno.get(), lh.tail.get(), lh.addr.get()), (78, 8, 6, LOG + 40));
    assert_eq!((lh.jinode.get(), lh.statfs_addr.get(), lh.quota_addr.get()), (152, CHANGE, 153));
}

#[test]
fn a_read_only_device_is_not_replayed() {
    struct ReadOnly(MemoryDevice);
    impl BlockDevice for ReadOnly {
        fn size(&self) -> u64 {
            self.0.size()
        }
        fn read_only(&self) -> bool {
            true
        }
        fn read(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<()> {
            self.0.read(offset, buf)
        }
        fn write(&self, _: u64, _: &[u8]) -> std::io::Result<()> {
            panic!("written although it is read-only")
        }
        fn flush(&self) -> std::io::Result<()> {
            panic!("flushed although it is read-only")
        }
        fn discard(&self, _: u64, _: u64) -> std::io::Result<()> {
            panic!("discarded although it is read-only")
        }
    }
    let bs = BlockSize::new(512).expect("legal");
    let cache = crate::cache::Cache::new(Arc::new(ReadOnly(dirty(3, bs))), bs, 1 << 20);
    let journal = UnrecoveredJournal::examine(&cache, place(LOG_BLOCKS)).expect("examined");
    assert!(!journal.overlay().expect("readable").is_empty());
    assert!(matches!(journal.recover(Jid(0), &SimClock::new(1)), Err(Error::ReadOnly)));
}
