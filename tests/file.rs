//! Files on real volumes: the same operations on a file and on bytes in memory give the same bytes, and the stock fsck finds
//! nothing afterwards. Trees are made high by working around the offsets where they grow.

#[path = "model/ops.rs"]
#[allow(dead_code, unreachable_pub, reason = "only the random numbers are used")]
mod ops;
#[path = "model/reference.rs"]
#[allow(dead_code, unreachable_pub, reason = "only the bytes are used")]
mod reference;
mod volume;

use gfs2r::clock::SimClock;
use gfs2r::device::{AlignedBuf, CrashMode, MemoryDevice, SimDevice};
use gfs2r::error::Error;
use gfs2r::file::{self, Seek};
use gfs2r::format::DiFlags;
use gfs2r::fs::NewInode;
use gfs2r::ids::{BlkState, FileBlock, Inum};
use gfs2r::inode::Volume as Vol;
use gfs2r::journal::{FlushReason, Reserve};
use gfs2r::volume::{OpenOptions, open};
use ops::{Rng, seed};
use reference::Bytes;
use std::sync::Arc;
use volume::{ROOT, Volume};

/// A new regular file in the root directory.
fn new_file(v: &Volume, name: &str) -> Inum {
    let root = v.fs().volume().root.addr;
    v.fs().make(&ROOT, root, name.as_bytes(), &NewInode::File(0o644)).expect("create").inum
}

fn vol(v: &Volume) -> &Arc<Vol> {
    v.fs().volume()
}

fn blocks_of(v: &Volume, inum: Inum) -> u64 {
    vol(v).shared(inum).expect("inode").dinode.blocks.get()
}

/// Where trees of this block size become higher, and 0.
fn boundaries(bs: u64) -> [u64; 4] {
    let (di, ind) = ((bs - 232) / 8, (bs - 24) / 8);
    [0, bs * di, bs * di * ind, bs * di * ind * ind]
}

/// Bytes around a boundary in which the operations work.
const BEFORE: u64 = 40_000;
const AFTER: u64 = 400_000;

struct File {
    inum: Inum,
    model: Bytes,
    jdata: bool,
}

impl File {
    /// An offset near one of the boundaries.
    fn offset(&self, rng: &mut Rng, bs: u64) -> u64 {
        let base = *rng.pick(&boundaries(bs)[..]);
        let at = base.saturating_sub(BEFORE / 2) + rng.below(BEFORE);
        if rng.chance(30) { at - at % bs } else { at }
    }

    fn write(&mut self, v: &Volume, rng: &mut Rng, bs: u64) {
        let offset = if rng.chance(25) { self.model.size } else { self.offset(rng, bs) };
        let len = match rng.below(10) {
            0 => 150_000,
            1..=4 => 1 + rng.below(100),
            5..=7 => 1 + rng.below(3 * bs),
            _ => 1 + rng.below(20_000),
        };
        // Appending must not leave the windows that are compared.
        let room = boundaries(bs).iter().any(|b| offset >= b.saturating_sub(BEFORE) && offset + len <= b + AFTER);
        if !room {
            return;
        }
        let bytes = rng.bytes(len as usize);
        let mut inode = vol(v).exclusive(self.inum).expect("inode");
        let (n, _) = file::write(vol(v), &mut inode, offset, &bytes).expect("write");
        assert_eq!(n, bytes.len());
        self.model.write(offset, &bytes);
    }

    fn change(&mut self, v: &Volume, rng: &mut Rng, bs: u64) {
        let vol = vol(v);
        let (a, b) = (self.offset(rng, bs), self.offset(rng, bs));
        let near = a + 1 + rng.below(4 * bs);
        let end = if rng.chance(50) { near } else { b.max(a + 1) };
        let mut inode = vol.exclusive(self.inum).expect("inode");
        match rng.below(100) {
            0..=24 => {
                let size = match rng.below(6) {
                    0 => 0,
                    1 => self.model.size.saturating_sub(rng.below(2 * bs)),
                    _ => a,
                };
                file::truncate(vol, &mut inode, size).expect("truncate");
                self.model.truncate(size);
            }
            25..=59 => {
                file::punch(vol, &mut inode, a, end - a).expect("punch");
                self.model.zero(a, end - a);
            }
            60..=79 => {
                let (len, keep) = (near - a, rng.chance(50));
                match file::allocate(vol, &mut inode, a, len, keep) {
                    Err(Error::NotSupported) if self.jdata => {}
                    result => {
                        result.expect("allocate");
                        if !keep && near > self.model.size {
                            self.model.truncate(near);
                        }
                    }
                }
            }
            80..=87 => match file::zero_range(vol, &mut inode, a, near - a, true) {
                Err(Error::NotSupported) if self.jdata => {}
                result => {
                    result.expect("zero_range");
                    self.model.zero(a, near - a);
                }
            },
            88..=95 => {
                file::set_jdata(vol, &mut inode, !self.jdata).expect("set_jdata");
                self.jdata = !self.jdata;
            }
            _ => file::fsync(vol, &inode).expect("fsync"),
        }
    }

    /// Contents, size and holes are those of the model.
    fn check(&self, v: &Volume, rng: &mut Rng, bs: u64) {
        let vol = vol(v);
        let inode = vol.shared(self.inum).expect("inode");
        assert_eq!(inode.dinode.size.get(), self.model.size, "size");
        assert_eq!(inode.is_jdata(), self.jdata);
        for base in boundaries(bs) {
            let from = base.saturating_sub(BEFORE);
            let mut buf = vec![0xaa; (BEFORE + AFTER) as usize];
            let n = file::read(vol, &inode, from, &mut buf).expect("read");
            let wanted = self.model.read(from, buf.len());
            assert_eq!(n, wanted.len(), "length at {from}");
            if let Some(at) = (0..n).find(|&i| buf[i] != wanted[i]) {
                panic!("byte {} is {:#x}, not {:#x}", from + at as u64, buf[at], wanted[at]);
            }
        }
        let (at, len) = (self.offset(rng, bs), 1 + rng.below(9000) as usize);
        let mut buf = vec![0xaa; len];
        let n = file::read(vol, &inode, at, &mut buf).expect("read");
        assert_eq!(buf[..n], self.model.read(at, len), "read of {len} at {at}");
        self.check_tail(v, bs);
        self.check_seek(v, self.offset(rng, bs), bs);
    }

    /// On the disk, the bytes between the end of the file and the end of its last block are zero: others rely on it.
    fn check_tail(&self, v: &Volume, bs: u64) {
        let vol = vol(v);
        let inode = vol.shared(self.inum).expect("inode");
        let size = self.model.size;
        if inode.is_stuffed() || inode.is_jdata() || size.is_multiple_of(bs) {
            return;
        }
        let last = file::map(vol, &inode, FileBlock(size / bs), 1).expect("map");
        if let Some(addr) = last.start {
            let mut block = AlignedBuf::zeroed(bs as usize);
            vol.cache.data().read(addr, &mut block).expect("read");
            assert!(block[(size % bs) as usize..].iter().all(|&b| b == 0), "rubbish beyond the end");
        }
    }

    /// What is called a hole is zero, and data and holes alternate up to the end.
    fn check_seek(&self, v: &Volume, from: u64, bs: u64) {
        let vol = vol(v);
        let inode = vol.shared(self.inum).expect("inode");
        if from >= self.model.size {
            assert!(matches!(file::seek(vol, &inode, from, Seek::Data), Err(Error::NoSuchRegion)));
            return;
        }
        match file::seek(vol, &inode, from, Seek::Data) {
            Err(Error::NoSuchRegion) => {
                let tail = (self.model.size - from).min(AFTER) as usize;
                assert!(self.model.read(from, tail).iter().all(|&b| b == 0), "data after {from} was not found");
            }
            result => {
                let data = result.expect("seek");
                let len = (data - from).min(AFTER) as usize;
                assert!(
                    data < self.model.size && self.model.read(from, len).iter().all(|&b| b == 0),
                    "a hole with data"
                );
                let hole = file::seek(vol, &inode, data, Seek::Hole).expect("there is one at the end");
                assert!(hole > data && hole <= self.model.size);
                if hole < self.model.size && !inode.is_stuffed() {
                    assert_eq!(hole % bs, 0);
                    let extent = file::map(vol, &inode, FileBlock(hole / bs), 1).expect("map");
                    assert_eq!(extent.start, None, "no hole at {hole}");
                }
            }
        }
    }
}

fn random_operations(bs: u32, rounds: u64) {
    let seed = seed("random_operations");
    let mut rng = Rng::new(seed ^ u64::from(bs));
    let Some(mut v) = Volume::make(bs, 64, 1802) else { return };
    let mut files: Vec<File> =
        (0..4).map(|i| File { inum: new_file(&v, &format!("f{i}")), model: Bytes::default(), jdata: false }).collect();
    for f in &mut files[2..] {
        let mut inode = vol(&v).exclusive(f.inum).expect("inode");
        file::set_jdata(vol(&v), &mut inode, true).expect("set_jdata");
        f.jdata = true;
    }
    let bs = u64::from(bs);
    for round in 0..rounds {
        let pick = rng.below(4) as usize;
        let f = &mut files[pick];
        if rng.chance(55) {
            f.write(&v, &mut rng, bs)
        } else {
            f.change(&v, &mut rng, bs)
        }
        if round % 16 == 0 {
            f.check(&v, &mut rng, bs);
        }
        if round % 150 == 149 {
            v = v.remount();
            files.iter().for_each(|f| f.check(&v, &mut rng, bs));
        }
    }
    files.iter().for_each(|f| f.check(&v, &mut rng, bs));
    assert_eq!(vol(&v).journal.overruns(), 0, "transactions used more log than they had reserved");
    v.finish();
}

#[test]
fn random_operations_512() {
    random_operations(512, 600);
}

#[test]
fn random_operations_1024() {
    random_operations(1024, 600);
}

#[test]
fn random_operations_4096() {
    random_operations(4096, 600);
}

#[test]
fn the_largest_file() {
    for bs in [512, 4096] {
        let Some(v) = Volume::make(bs, 32, 1802) else { return };
        let inum = new_file(&v, "large");
        let mut inode = vol(&v).exclusive(inum).expect("inode");
        assert!(matches!(file::write(vol(&v), &mut inode, file::MAX_SIZE, b"x"), Err(Error::TooBig)));
        let (n, _) = file::write(vol(&v), &mut inode, file::MAX_SIZE - 3, b"abcdef").expect("write");
        assert_eq!((n, inode.dinode.size.get()), (3, file::MAX_SIZE));
        let mut buf = [0; 10];
        let n = file::read(vol(&v), &inode, file::MAX_SIZE - 5, &mut buf).expect("read");
        assert_eq!(buf[..n], *b"\0\0abc");
        let data = file::seek(vol(&v), &inode, 0, Seek::Data).expect("data");
        assert_eq!(data, file::MAX_SIZE - 3 - (file::MAX_SIZE - 3) % u64::from(bs));
        assert_eq!(file::seek(vol(&v), &inode, data, Seek::Hole).expect("the end"), file::MAX_SIZE);
        file::write(vol(&v), &mut inode, 12345, b"near the start").expect("write");
        file::punch(vol(&v), &mut inode, 4 * u64::from(bs), file::MAX_SIZE).expect("punch");
        file::truncate(vol(&v), &mut inode, file::MAX_SIZE).expect("truncate");
        assert!(matches!(file::truncate(vol(&v), &mut inode, file::MAX_SIZE + 1), Err(Error::TooBig)));
        file::truncate(vol(&v), &mut inode, 0).expect("truncate");
        assert_eq!((inode.dinode.blocks.get(), inode.dinode.height.get()), (1, 0));
        drop(inode);
        v.finish();
    }
}

#[test]
fn a_full_volume_takes_what_fits_and_not_a_block_more() {
    for bs in [1024u32, 4096] {
        let Some(v) = Volume::make(bs, 24, 1802) else { return };
        let inum = new_file(&v, "filler");
        let before = v.fs().space().free;
        let chunk = vec![7u8; 300_000];
        let mut size = 0u64;
        let mut inode = vol(&v).exclusive(inum).expect("inode");
        loop {
            match file::write(vol(&v), &mut inode, size, &chunk) {
                Ok((n, _)) => size += n as u64,
                Err(Error::NoSpace) => break,
                Err(e) => panic!("{e}"),
            }
        }
        assert_eq!(inode.dinode.size.get(), size);
        // A new pointer block and its first data block may not have fitted any more.
        assert!(v.fs().space().free <= 1, "{} blocks of {before} are left", v.fs().space().free);
        assert!(matches!(file::allocate(vol(&v), &mut inode, size, 1 << 20, true), Err(Error::NoSpace)));
        let mut back = vec![0; size as usize];
        assert_eq!(file::read(vol(&v), &inode, 0, &mut back).expect("read"), back.len());
        assert!(back.iter().all(|&b| b == 7));
        file::truncate(vol(&v), &mut inode, 5000).expect("truncate");
        file::write(vol(&v), &mut inode, 5000, &chunk).expect("what was freed can be used again");
        file::truncate(vol(&v), &mut inode, 0).expect("truncate");
        drop(inode);
        assert_eq!(v.fs().space().free, before);
        v.finish();
    }
}

#[test]
fn a_large_file_goes_in_bounded_pieces() {
    for (bs, megabytes) in [(512, 40u64), (4096, 200)] {
        let Some(v) = Volume::make(bs, megabytes + 40, 1802) else { return };
        let inum = new_file(&v, "large");
        let free = v.fs().space().free;
        let mut inode = vol(&v).exclusive(inum).expect("inode");
        file::allocate(vol(&v), &mut inode, 0, megabytes << 20, false).expect("allocate");
        assert!(inode.dinode.blocks.get() > (megabytes << 20) / u64::from(bs));
        file::punch(vol(&v), &mut inode, 5_000_001, 20_000_000).expect("punch");
        file::truncate(vol(&v), &mut inode, 3).expect("truncate");
        assert!(!inode.flags().has(DiFlags::TRUNC_IN_PROG));
        file::truncate(vol(&v), &mut inode, 0).expect("truncate");
        assert_eq!(inode.dinode.blocks.get(), 1);
        drop(inode);
        assert_eq!(v.fs().space().free, free);
        assert_eq!(vol(&v).journal.overruns(), 0);
        v.finish();
    }
}

#[test]
fn an_interrupted_truncate_is_finished_by_the_next_exclusive_lock() {
    let Some(v) = Volume::make(1024, 32, 1802) else { return };
    let inum = new_file(&v, "cut");
    let mut inode = vol(&v).exclusive(inum).expect("inode");
    file::write(vol(&v), &mut inode, 0, &[1; 500_000]).expect("write");
    inode.dinode.size.set(2048);
    let flags = inode.flags().with(DiFlags::TRUNC_IN_PROG);
    inode.dinode.flags.set(flags.0);
    inode.buffer(vol(&v)).expect("buffer");
    let mut tx = vol(&v).journal.begin(Reserve::blocks(1)).expect("begin");
    inode.write_back(vol(&v), &mut tx).expect("write back");
    tx.commit();
    drop(inode);
    let v = v.remount();
    assert!(blocks_of(&v, inum) > 400, "readers ignore the flag");
    let inode = vol(&v).exclusive(inum).expect("inode");
    assert!(!inode.flags().has(DiFlags::TRUNC_IN_PROG));
    // The dinode, pointer blocks down to the first two blocks of data, and these.
    let height = u64::from(inode.dinode.height.get());
    assert_eq!(inode.dinode.blocks.get(), 1 + (height - 1) + 2);
    drop(inode);
    v.finish();
}

#[test]
fn deleting_gives_everything_back() {
    let Some(v) = Volume::make(512, 48, 1802) else { return };
    let root = vol(&v).root.addr;
    let free = v.fs().space();
    for (i, (size, jdata)) in
        [(0, false), (100, false), (5000, true), (3_000_000, false), (2_000_000, true)].iter().enumerate()
    {
        let name = format!("f{i}");
        let inum = new_file(&v, &name);
        let mut inode = vol(&v).exclusive(inum).expect("inode");
        file::set_jdata(vol(&v), &mut inode, *jdata).expect("set_jdata");
        file::write(vol(&v), &mut inode, 0, &vec![3; *size]).expect("write");
        file::write(vol(&v), &mut inode, 1 << 40, &vec![3; *size]).expect("write");
        drop(inode);
        v.fs().unlink(root, name.as_bytes()).expect("unlink");
        v.fs().forget(inum.addr, 1).expect("forget");
        assert_eq!(vol(&v).rgrps.state(inum.addr).expect("state"), BlkState::Free);
    }
    assert_eq!(v.fs().space(), free);
    assert_eq!(vol(&v).journal.overruns(), 0);
    v.finish();
}

#[test]
fn small_overwrites_cost_no_transaction_each() {
    let Some(v) = Volume::make(4096, 32, 1802) else { return };
    let inum = new_file(&v, "busy");
    let mut inode = vol(&v).exclusive(inum).expect("inode");
    file::write(vol(&v), &mut inode, 0, &[0; 100_000]).expect("write");
    let mtime = inode.dinode.mtime();
    for i in 0..1000u64 {
        file::write(vol(&v), &mut inode, i * 64, &[i as u8; 64]).expect("write");
    }
    // The simulated clock advances a microsecond with each look.
    assert_eq!(inode.dinode.mtime(), mtime);
    for i in 0..8000u64 {
        file::write(vol(&v), &mut inode, i % 1000 * 64, &[(i % 1000) as u8; 64]).expect("write");
    }
    assert!(inode.dinode.mtime() > mtime);
    let mut buf = vec![0; 64_000];
    file::read(vol(&v), &inode, 0, &mut buf).expect("read");
    assert!(buf.chunks(64).enumerate().all(|(i, c)| c.iter().all(|&b| b == i as u8)));
    drop(inode);
    v.finish();
}

/// A crash between a write of data and the commit of the size that makes it part of the file leaves bytes beyond the end.
#[test]
fn a_growing_file_does_not_show_what_lay_beyond_its_end() {
    let Some(v) = Volume::make(1024, 32, 1802) else { return };
    for (i, how) in ["truncate", "write", "allocate"].into_iter().enumerate() {
        let inum = new_file(&v, how);
        let mut inode = vol(&v).exclusive(inum).expect("inode");
        file::write(vol(&v), &mut inode, 0, &[1; 5000]).expect("write");
        let last = file::map(vol(&v), &inode, FileBlock(4), 1).expect("map").start.expect("mapped");
        vol(&v).cache.data().write_part(inode.lock_name(), last, 904, &[9; 120], false, None).expect("rubbish");
        match i {
            0 => file::truncate(vol(&v), &mut inode, 5100).expect("truncate"),
            1 => drop(file::write(vol(&v), &mut inode, 5060, &[0; 10]).expect("write")),
            _ => file::allocate(vol(&v), &mut inode, 0, 9000, false).expect("allocate"),
        }
        let mut buf = [7; 2000];
        let n = file::read(vol(&v), &inode, 5000, &mut buf).expect("read");
        assert_eq!(n as u64, inode.dinode.size.get().min(7000) - 5000);
        assert!(buf[..n].iter().all(|&b| b == 0), "{how}");
    }
    v.finish();
}

/// Opens a volume on a disk that can crash.
fn open_sim(disk: MemoryDevice) -> (Arc<SimDevice>, gfs2r::volume::Opened) {
    let sim = Arc::new(SimDevice::new(disk));
    let opened = open(sim.clone(), &OpenOptions::default(), Arc::new(SimClock::new(1_700_000_000)));
    (sim, opened.unwrap_or_else(|e| panic!("open: {e}")))
}

/// Truncating, punching and deleting can be interrupted by a crash at any write: what is found afterwards is consistent, what
/// was fsynced before is there, and the interrupted work is finished by whoever comes next.
#[test]
fn a_crash_during_freeing_loses_nothing_else() {
    let seed = seed("a_crash_during_freeing_loses_nothing_else");
    let mut rng = Rng::new(seed);
    let Some(v) = Volume::make(512, 32, 1802) else { return };
    let names = ["cut", "gone", "holed", "kept"];
    let inums = names.map(|n| new_file(&v, n));
    for inum in inums {
        let mut inode = vol(&v).exclusive(inum).expect("inode");
        file::write(vol(&v), &mut inode, 0, &vec![inum.formal.0 as u8; 1_500_000]).expect("write");
        file::write(vol(&v), &mut inode, 1 << 33, b"far away").expect("write");
    }
    v.opened.close().expect("close");
    let mut crashes = 0;
    for point in 0..40 {
        let (sim, opened) = open_sim(v.dev.snapshot());
        let (vol, root) = (opened.fs.volume().clone(), opened.fs.volume().root.addr);
        let work = || -> gfs2r::error::Result<()> {
            for round in 0..3 {
                let mut inode = vol.exclusive(inums[0])?;
                file::truncate(&vol, &mut inode, 700_001 - round * 300_000)?;
                file::fsync(&vol, &inode)?;
                drop(inode);
                let mut inode = vol.exclusive(inums[2])?;
                file::punch(&vol, &mut inode, 100_000 * round + 77, 2_000_000)?;
                drop(inode);
                vol.journal.flush(FlushReason::Sync)?;
            }
            opened.fs.unlink(root, b"gone")?;
            vol.journal.quiesce(FlushReason::Sync)
        };
        sim.set_crash_point(sim.ops() + point * 2);
        if work().is_err() {
            crashes += 1;
        }
        let mode = *rng.pick(&[CrashMode::AllLost, CrashMode::AllKept, CrashMode::Random, CrashMode::Torn]);
        let image = sim.crash(rng.next(), mode);
        drop(opened);
        let disk = Arc::new(image);
        let v = Volume::mount(disk);
        v.fs().reclaim_orphans(&Default::default()).expect("reclaim");
        for (inum, name) in inums.iter().zip(names) {
            match v.fs().lookup(root, name.as_bytes()) {
                Ok(_) => {
                    let inode = self::vol(&v).exclusive(*inum).expect("inode");
                    assert!(!inode.flags().has(DiFlags::TRUNC_IN_PROG));
                    let mut buf = vec![0; 1_500_000];
                    let n = file::read(self::vol(&v), &inode, 0, &mut buf).expect("read");
                    let own = inum.formal.0 as u8;
                    let holes = name == "holed" || name == "cut";
                    assert!(buf[..n].iter().all(|&b| b == own || holes && b == 0), "{name} holds what it never held");
                    if name == "kept" {
                        assert!(n == buf.len() && buf.iter().all(|&b| b == own), "a bystander was hurt");
                    }
                }
                Err(Error::NotFound) => assert_eq!(name, "gone"),
                Err(e) => panic!("{e}"),
            }
        }
        v.finish();
    }
    assert!(crashes > 0, "no crash point was reached");
}
