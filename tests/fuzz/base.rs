//! The volumes that inputs change: small ones of our own making that are walked in no time, and what the Linux kernel left
//! (`fsck/tests/images`).

use crate::tape::Tape;
use flate2::read::GzDecoder;
use gfs2r::clock::SimClock;
use gfs2r::device::{BlockDevice, MemoryDevice};
use gfs2r::format::{LogHeader, MAGIC, MetaHeader, MetaType, OnDisk, RgrpHeader};
use gfs2r::fs::{Caller, Fs, NewInode, SetMode};
use gfs2r::ids::{BlockAddr, BlockSize};
use gfs2r::volume::{self, Layout, OpenOptions};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A volume to start from.
pub(crate) struct Base {
    pub(crate) device: MemoryDevice,
    pub(crate) bs: BlockSize,
    /// Blocks with a metadata header outside of the journals, by type.
    pub(crate) kinds: Vec<(u32, Vec<u64>)>,
    /// The blocks of journal 0, in order.
    pub(crate) journal: Vec<u64>,
}

const SMALL: [u32; 4] = [4096, 512, 1024, 2048];
const KERNEL: [&str; 5] = ["full.4096", "full.1024", "full.512", "dirty.4096", "dirty.1024"];
/// How many volumes there are; the first four are our own small ones.
pub(crate) const COUNT: usize = SMALL.len() + KERNEL.len();

/// Volume number `n`.
pub(crate) fn base(n: usize) -> &'static Base {
    static ALL: [OnceLock<Base>; COUNT] = [const { OnceLock::new() }; COUNT];
    ALL[n].get_or_init(|| match n.checked_sub(SMALL.len()) {
        None => Base::of(small(SMALL[n])),
        Some(kernel) => Base::of(image(KERNEL[kernel])),
    })
}

/// A choice of volume: mostly a small one.
pub(crate) fn choose(tape: &mut Tape<'_>) -> &'static Base {
    let n = tape.below(40);
    base(if n < COUNT { n } else { n % SMALL.len() })
}

impl Base {
    fn of(device: MemoryDevice) -> Self {
        let layout = Layout::read(Arc::new(device.snapshot())).expect("a whole volume");
        let bs = layout.identity().bs;
        let mut journal = Vec::new();
        let mut all = std::collections::BTreeSet::new();
        for n in 0..u32::MAX {
            let Some(extents) = layout.journal(n) else { break };
            for e in extents {
                let run = e.addr.get()..e.addr.get() + u64::from(e.blocks);
                if n == 0 {
                    journal.extend(run.clone());
                }
                all.extend(run);
            }
        }
        let mut kinds = BTreeMap::<u32, Vec<u64>>::new();
        let mut head = [0; 24];
        for (at, len) in device.allocated_ranges() {
            for block in bs.block_of(at)..bs.block_of(at + len + bs.bytes() as u64 - 1) {
                device.read(block << bs.shift(), &mut head).expect("inside");
                let header = MetaHeader::view(&head);
                if header.magic.get() == MAGIC && !all.contains(&block) {
                    kinds.entry(header.kind.get()).or_default().push(block);
                }
            }
        }
        Self { device, bs, kinds: kinds.into_iter().collect(), journal }
    }
    /// The blocks of one type; the dinodes when there are none of it.
    pub(crate) fn of_kind(&self, kind: MetaType) -> &[u64] {
        let find = |k: MetaType| self.kinds.iter().find(|(n, _)| *n == k as u32).map(|(_, b)| b.as_slice());
        find(kind).or(find(MetaType::Dinode)).expect("every volume has dinodes")
    }
    /// Any metadata block, each type as likely as the others.
    pub(crate) fn any_block(&self, tape: &mut Tape<'_>) -> u64 {
        let (_, blocks) = tape.pick(&self.kinds);
        *tape.pick(blocks)
    }
}

/// Reads a block of a device.
pub(crate) fn read(device: &MemoryDevice, bs: BlockSize, block: u64) -> Vec<u8> {
    let mut bytes = vec![0; bs.bytes()];
    device.read(block << bs.shift(), &mut bytes).expect("inside the device");
    bytes
}

/// Writes a block; checksums are made right when `seal` says so, so that what they protect is believed.
pub(crate) fn write(device: &MemoryDevice, bs: BlockSize, block: u64, bytes: &mut [u8], seal: bool) {
    if seal && MetaHeader::view_kind(bytes) == MetaType::LogHeader as u32 {
        LogHeader::seal(bytes);
    }
    if seal && MetaHeader::view_kind(bytes) == MetaType::Rgrp as u32 {
        let crc = RgrpHeader::view(bytes).checksum();
        RgrpHeader::edit(bytes).crc.set(crc);
    }
    device.write(block << bs.shift(), bytes).expect("inside the device");
}

/// A volume of the kernel's, as `fsck/tests/common` writes them: the size, then numbered pieces.
fn image(name: &str) -> MemoryDevice {
    const PIECE: usize = 4096;
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The crate of the targets lies one folder deeper than the library.
    let folders = [here, here.parent().unwrap_or(here)].map(|p| p.join("fsck/tests/images"));
    let folder = folders.iter().find(|p| p.is_dir()).expect("the images of the checker's tests");
    let path = folder.join(format!("{name}.gz"));
    let mut bytes = Vec::new();
    let file = File::open(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    GzDecoder::new(file).read_to_end(&mut bytes).expect("gzip");
    let number = |at: usize| bytes[at..at + 8].iter().fold(0, |n, &b| n << 8 | u64::from(b));
    let device = MemoryDevice::new(number(0));
    for at in (8..bytes.len()).step_by(8 + PIECE) {
        device.write(number(at) * PIECE as u64, &bytes[at + 8..at + 8 + PIECE]).expect("inside the device");
    }
    device
}

/// The superuser.
pub(crate) const ME: Caller = Caller { uid: 0, gid: 0, umask: 0 };

/// A small volume with one of everything.
fn small(block_size: u32) -> MemoryDevice {
    let device = MemoryDevice::new(40 << 20);
    let options = gfs2r_mkfs::Options::small(block_size).expect("a legal block size");
    let options = gfs2r_mkfs::Options { journals: 2, seed: 1, lock_proto: "lock_nolock".into(), ..options };
    gfs2r_mkfs::format_device(&device, &options, &mut gfs2r_mkfs::Silent).expect("the volume is made");
    let device = Arc::new(device);
    let clock = Arc::new(SimClock::new(1_700_000_000));
    let opened = volume::open(device.clone(), &OpenOptions::default(), clock).expect("opens");
    fill(&opened.fs, u64::from(block_size));
    opened.close().expect("closes");
    device.snapshot()
}

fn fill(fs: &Fs, bs: u64) {
    let make = |dir: BlockAddr, name: &str, what: &NewInode<'_>| {
        fs.make(&ME, dir, name.as_bytes(), what).expect("room").inum.addr
    };
    let write = |node, at, len: u64| {
        let bytes: Vec<u8> = (0..len).map(|i| i as u8).collect();
        assert_eq!(fs.write(&ME, node, at, &bytes, false).expect("room"), bytes.len());
    };
    let set = |node, name: &[u8], len| fs.setxattr(&ME, node, name, &vec![b'v'; len], SetMode::Any).expect("room");
    let root = fs.root();
    let linear = make(root, "linear", &NewInode::Dir(0o755));
    let hashed = make(root, "hashed", &NewInode::Dir(0o755));
    let stuffed = make(linear, "stuffed", &NewInode::File(0o644));
    write(stuffed, 0, 100);
    let tree = make(linear, "tree", &NewInode::File(0o4755));
    write(tree, 0, 5 * bs);
    let high = make(linear, "high", &NewInode::File(0o644));
    write(high, 0, 10);
    write(high, 1 << 34, bs);
    make(linear, "short link", &NewInode::Symlink(b"stuffed"));
    make(linear, "fifo", &NewInode::Node(0o010644, (0, 0)));
    make(linear, "device", &NewInode::Node(0o060600, (8, 1)));
    fs.link(&ME, stuffed, root, b"another name").expect("room");
    // As many as need more than one leaf.
    for n in 0..bs / 20 {
        make(hashed, &format!("a name of some length {n}"), &NewInode::File(0o600));
    }
    let journaled = make(linear, "journaled", &NewInode::File(0o600));
    fs.set_flags(&ME, journaled, gfs2r::fs::InodeFlags::JOURNAL_DATA).expect("empty");
    write(journaled, 0, 3 * bs);
    set(stuffed, b"user.short", 10);
    set(stuffed, b"trusted.other", 20);
    set(tree, b"user.long", 3 * bs as usize);
    for n in 0..8 {
        set(tree, format!("user.{n}").as_bytes(), bs as usize / 6);
    }
}
