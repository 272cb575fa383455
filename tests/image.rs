//! Volumes that nobody has mounted: saved metadata against the stock tool's, hostile files of it, and files read out.

mod support;

use gfs2r::admin::metafile::Reader as MetaFile;
use gfs2r::admin::reader::{Reader, copy, pax};
use gfs2r::admin::restoremeta::restore;
use gfs2r::admin::savemeta::{Scope, save};
use gfs2r::clock::SimClock;
use gfs2r::device::{BlockDevice, MemoryDevice};
use gfs2r::format::{DiFlags, Dinode, MetaHeader, MetaType, OnDisk};
use gfs2r::fs::{Caller, NewInode};
use gfs2r::ids::BlockAddr;
use gfs2r::volume::{self, OpenOptions, Opened};
use gfs2r::xattr::SetMode;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use support::{format, have_stock_tools, stock_fsck_file};

const SIZE: u64 = 64 << 20;
const ROOT: Caller = Caller { uid: 0, gid: 0, umask: 0 };

fn open(disk: Arc<dyn BlockDevice>) -> Opened {
    let clock = Arc::new(SimClock::new(1_700_000_000));
    volume::open(disk, &OpenOptions::default(), clock).unwrap_or_else(|e| panic!("open: {e}"))
}

/// Every kind of file: large directories, holes, several heights, attributes in their own blocks, links.
fn fill(opened: &Opened) {
    let fs = &opened.fs;
    let make = |parent: BlockAddr, name: &str, new: NewInode| {
        fs.make(&ROOT, parent, name.as_bytes(), &new).unwrap_or_else(|e| panic!("{name}: {e}")).inum.addr
    };
    let write =
        |node, at, bytes: &[u8]| assert_eq!(fs.write(&ROOT, node, at, bytes, false).expect("written"), bytes.len());
    let dir = make(fs.root(), "dir", NewInode::Dir(0o750));
    for n in 0..600 {
        let node = make(dir, &format!("a file with a long name, number {n}"), NewInode::File(0o640));
        write(node, 0, format!("contents {n}").as_bytes());
    }
    let large = make(fs.root(), "large", NewInode::File(0o600));
    write(large, 0, &vec![0xa5; 3 << 20]);
    let holes = make(fs.root(), "holes", NewInode::File(0o644));
    write(holes, 1 << 30, b"far away");
    write(holes, 5 << 20, &[7; 10_000]);
    fs.setxattr(&ROOT, holes, b"user.small", b"value", SetMode::Any).expect("an attribute is set");
    fs.setxattr(&ROOT, holes, b"user.large", &[b'x'; 5000], SetMode::Any).expect("an attribute is set");
    make(fs.root(), "link", NewInode::Symlink(b"dir/somewhere"));
}

fn filled(block_size: u32) -> MemoryDevice {
    let disk = Arc::new(MemoryDevice::new(SIZE));
    format(&*disk, block_size, 2, 1802, 5);
    let opened = open(Arc::clone(&disk) as _);
    fill(&opened);
    opened.close().expect("closed");
    disk.snapshot()
}

/// What our side saves of a disk.
fn save_ours(disk: &MemoryDevice, to: &Path, level: u32) -> (u64, u64) {
    let disk: Arc<dyn BlockDevice> = Arc::new(disk.snapshot());
    let file = File::create(to).expect("a file is made");
    let saved = save(&disk, file, level, Scope::Reachable, &mut |_, _| {}).unwrap_or_else(|e| panic!("save: {e}"));
    (saved.blocks, saved.problems)
}

/// The blocks of saved metadata, without the zeros at their ends.
fn blocks(path: &Path) -> BTreeMap<u64, Vec<u8>> {
    let mut reader = MetaFile::new(File::open(path).expect("it is there")).expect("saved metadata");
    let (mut all, mut bytes) = (BTreeMap::new(), Vec::new());
    while let Some(block) = reader.next(&mut bytes).expect("a record") {
        let used = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
        all.insert(block, bytes[..used].to_vec());
    }
    all
}

/// True for the dinode of a system file, of which trailing zeros may be missing.
fn is_system_dinode(bytes: &[u8]) -> bool {
    let mut block = bytes.to_vec();
    block.resize(4096, 0);
    MetaHeader::has_magic(&block)
        && MetaHeader::view(&block).kind.get() == MetaType::Dinode as u32
        && Dinode::view(&block).flags().has(DiFlags::SYSTEM)
}

/// Restores into an image of our size.
fn restore_ours(from: &Path, to: &Path) -> std::io::Result<u64> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(to)?;
    file.set_len(SIZE)?;
    Ok(restore(&mut MetaFile::new(File::open(from)?)?, &file, SIZE, &mut |_| {})?.blocks)
}

fn stock(arguments: &[&Path]) {
    let out = Command::new("gfs2_edit").args(arguments).output().expect("gfs2_edit runs");
    assert!(out.status.success(), "gfs2_edit {arguments:?}: {}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn saved_metadata_is_the_stock_tools() {
    if !have_stock_tools() {
        return;
    }
    for block_size in [512, 1024, 4096] {
        let disk = filled(block_size);
        let dir = tempfile::tempdir().expect("a temporary folder");
        let at = |name: &str| dir.path().join(name);
        disk.save(&at("image")).expect("the image is written");
        stock(&[Path::new("savemeta"), &at("image"), &at("stock")]);
        let theirs = blocks(&at("stock"));
        for level in [0, 9] {
            let (count, problems) = save_ours(&disk, &at("ours"), level);
            let ours = blocks(&at("ours"));
            assert_eq!((problems, ours.len() as u64), (0, count));
            let missing: Vec<_> = theirs.keys().filter(|b| !ours.contains_key(b)).collect();
            assert!(missing.is_empty(), "{block_size}: not saved: {missing:?}");
            // Of the copies of system files' dinodes in a journal we save the contents too: replayed, they are right.
            let more = |b: &u64, bytes: &[u8]| is_system_dinode(&ours[b]) && ours[b].starts_with(bytes);
            let differ: Vec<_> =
                theirs.iter().filter(|(b, bytes)| ours[b] != **bytes && !more(b, bytes)).map(|(b, _)| b).collect();
            assert!(differ.is_empty(), "{block_size}: differ: {differ:?}");
            // Both ways round give the same image.
            File::create(at("a")).and_then(|f| f.set_len(SIZE)).expect("an image is made");
            stock(&[Path::new("restoremeta"), &at("ours"), &at("a")]);
            restore_ours(&at("ours"), &at("b")).expect("restored");
            restore_ours(&at("stock"), &at("c")).expect("restored");
            let read = |name: &str| std::fs::read(at(name)).expect("readable");
            let (a, b) = (read("a"), read("b"));
            assert!(a == b, "{block_size}, {level}: what stock restores of ours differs from what we restore");
            if theirs == ours {
                assert!(a == read("c"), "{block_size}, {level}: what we restore of stock's differs");
            }
            stock_fsck_file(&at("a"), "stock restored ours");
            stock_fsck_file(&at("c"), "we restored stock's");
            support::check(&MemoryDevice::load(&at("c")).expect("loaded"), "we restored stock's");
        }
    }
}

/// xorshift: the same damage from the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[test]
fn hostile_files_of_metadata_end_with_an_error() {
    let disk = filled(1024);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| dir.path().join(name);
    for level in [0, 1] {
        save_ours(&disk, &at("good"), level);
        let good = std::fs::read(at("good")).expect("readable");
        let mut refused = 0;
        for seed in 1..=60u64 {
            println!("level {level}, seed {seed}");
            let (mut random, mut bad) = (Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)), good.clone());
            match random.below(3) {
                0 => bad.truncate(random.below(good.len() as u64) as usize),
                1 => bad[random.below(160) as usize] ^= 1 << random.below(8),
                _ => (0..40).for_each(|_| bad[random.below(good.len() as u64) as usize] = random.below(256) as u8),
            }
            std::fs::write(at("bad"), &bad).expect("written");
            refused += u64::from(restore_ours(&at("bad"), &at("out")).is_err());
            // Whatever it says, nothing is written past the end.
            assert!(std::fs::metadata(at("out")).map_or(0, |m| m.len()) <= SIZE);
        }
        assert!(refused > 10, "{refused}");
    }
}

#[test]
fn damaged_volumes_are_saved_as_far_as_they_go() {
    let disk = filled(4096);
    let dir = tempfile::tempdir().expect("a temporary folder");
    let at = dir.path().join("meta");
    let (whole, _) = save_ours(&disk, &at, 0);
    let metadata: Vec<u64> = blocks(&at).into_keys().filter(|&b| b != 16).collect();
    let mut told = 0;
    for seed in 1..=40u64 {
        println!("seed {seed}");
        let (mut random, bad) = (Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)), disk.snapshot());
        for _ in 0..20 {
            let offset = metadata[random.below(metadata.len() as u64) as usize] * 4096;
            let mut block = vec![0; 4096];
            bad.read(offset, &mut block).expect("in range");
            let at = 8 * random.below(512) as usize;
            block[at..at + 8].copy_from_slice(&random.below(u64::MAX).to_be_bytes());
            bad.write(offset, &block).expect("in range");
        }
        let (blocks, problems) = save_ours(&bad, &at, 0);
        assert!(blocks > 0 && blocks <= SIZE / 4096, "{whole}");
        told += problems;
        // Readers end too, whatever they meet.
        if let Ok(reader) = Reader::open(Arc::new(bad), true)
            && let Ok(root) = reader.find(Path::new("/"))
        {
            let mut archive = pax::Archive::new(&reader, std::io::sink());
            archive.add(root, &mut |_, _| {}).expect("a sink takes all");
        }
    }
    assert!(told > 0);
}

#[test]
fn files_are_read_out_with_all_they_have() {
    // Not closed: what was synced lies in the journal, and is replayed in memory.
    let disk = Arc::new(MemoryDevice::new(SIZE));
    format(&*disk, 4096, 1, 1802, 5);
    let opened = open(Arc::clone(&disk) as _);
    fill(&opened);
    opened.fs.sync().expect("synced");
    let crashed = disk.snapshot();
    let before = crashed.snapshot();
    let crashed = Arc::new(crashed);
    let reader = Reader::open(Arc::clone(&crashed) as _, true).unwrap_or_else(|e| panic!("open: {e}"));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let out = dir.path().join("out");
    let mut wrong = Vec::new();
    let root = reader.find(Path::new("/")).expect("the root");
    copy::copy(&reader, root, &out, &mut |path, why| wrong.push(format!("{}: {why}", path.display()))).expect("copied");
    // Few other filesystems have room for the large attribute.
    wrong.retain(|why| !why.contains("user.large"));
    assert!(wrong.is_empty(), "{wrong:?}");
    let attributes: BTreeMap<_, _> = reader
        .find(Path::new("/holes"))
        .and_then(|met| reader.xattrs(met.inum))
        .expect("attributes are read")
        .into_iter()
        .collect();
    assert_eq!(attributes[&b"user.small"[..]], b"value");
    assert_eq!(attributes[&b"user.large"[..]], vec![b'x'; 5000]);
    assert_eq!(std::fs::read_dir(out.join("dir")).expect("a directory").count(), 600);
    for n in [0, 77, 599] {
        let text = std::fs::read_to_string(out.join(format!("dir/a file with a long name, number {n}")));
        assert_eq!(text.expect("readable"), format!("contents {n}"));
    }
    assert!(std::fs::read(out.join("large")).expect("readable").iter().all(|&b| b == 0xa5));
    let holes = File::open(out.join("holes")).expect("readable");
    let meta = holes.metadata().expect("metadata");
    assert_eq!((meta.len(), meta.mode() & 0o7777), ((1 << 30) + 8, 0o644));
    assert!(meta.blocks() * 512 < 1 << 20, "it is sparse: {}", meta.blocks());
    let mut bytes = [0; 8];
    holes.read_exact_at(&mut bytes, 1 << 30).expect("readable");
    assert_eq!((&bytes, meta.mtime()), (b"far away", 1_700_000_000));
    assert_eq!(std::fs::read_link(out.join("link")).expect("a link"), Path::new("dir/somewhere"));
    // Nothing was written.
    let (mut a, mut b) = (vec![0; SIZE as usize], vec![0; SIZE as usize]);
    before.read(0, &mut a).and_then(|()| crashed.read(0, &mut b)).expect("readable");
    assert!(a == b, "the disk has changed");
}
