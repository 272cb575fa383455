//! Directories on real volumes: against a naive model, the specification's numbers, and the stock fsck.

#[path = "model/ops.rs"]
#[allow(dead_code, unreachable_pub, reason = "the generator of random numbers is used alone")]
mod ops;
mod volume;

use gfs2r::error::{Corrupt, CorruptKind, Error};
use gfs2r::format::checksum::dir_hash;
use gfs2r::fs::{Fs, NewInode, RenameHow};
use gfs2r::ids::BlockAddr;
use ops::{Rng, seed};
use std::collections::{BTreeMap, BTreeSet};
use volume::{ROOT, Volume};

type Model = BTreeMap<Vec<u8>, BlockAddr>;

/// Everything a directory lists from `from` on, at most `max` entries; `.` and `..` are left out. Where to go on.
fn page(fs: &Fs, dir: BlockAddr, from: u64, max: usize) -> (Vec<(Vec<u8>, BlockAddr)>, Option<u64>) {
    let (mut out, mut next, mut seen) = (Vec::new(), None, 0);
    fs.list(dir, from, &mut |item| {
        if seen == max {
            return false;
        }
        seen += 1;
        assert!(item.next > from && i64::try_from(item.next).is_ok());
        next = Some(item.next);
        if item.name != b"." && item.name != b".." {
            out.push((item.name.to_vec(), item.entry.inum.addr));
        }
        true
    })
    .expect("list");
    (out, next.filter(|_| seen > 0))
}

fn list_all(fs: &Fs, dir: BlockAddr, by: usize) -> Model {
    let (mut all, mut from) = (Model::new(), 0);
    loop {
        let (items, next) = page(fs, dir, from, by);
        for (name, to) in items {
            assert!(all.insert(name, to).is_none(), "listed twice");
        }
        match next {
            Some(next) => from = next,
            None => return all,
        }
    }
}

fn check(fs: &Fs, dir: BlockAddr, model: &Model) {
    assert_eq!(list_all(fs, dir, 97), *model);
    for (name, to) in model {
        assert_eq!(fs.lookup(dir, name).expect("there").inum.addr, *to);
    }
}

fn make_file(fs: &Fs, dir: BlockAddr, name: &[u8]) -> BlockAddr {
    fs.make(&ROOT, dir, name, &NewInode::File(0o644)).expect("file").inum.addr
}

fn make_dir(fs: &Fs, dir: BlockAddr, name: &[u8]) -> BlockAddr {
    fs.make(&ROOT, dir, name, &NewInode::Dir(0o755)).expect("directory").inum.addr
}

fn some_name(rng: &mut Rng, of: u64) -> Vec<u8> {
    let n = rng.below(of);
    let mut name = format!("{n}").into_bytes();
    let len = name.len() + (n * 31 % 97) as usize * usize::from(n.is_multiple_of(5)) + (n * 7 % 9) as usize;
    name.resize(len.min(255), b'a' + (n % 26) as u8);
    name
}

/// One random change of directory `dir`, mirrored in the model.
fn change(fs: &Fs, rng: &mut Rng, dir: BlockAddr, other: BlockAddr, file: BlockAddr, names: u64, model: &mut Model) {
    let name = some_name(rng, names);
    let known = model.get(&name).copied();
    match (rng.below(10), known) {
        (0..=4, None) => {
            fs.link(&ROOT, file, dir, &name).expect("link");
            model.insert(name, file);
        }
        (5, None) => {
            let made = make_dir(fs, dir, &name);
            model.insert(name, made);
        }
        (0, Some(_)) => assert!(matches!(fs.link(&ROOT, file, dir, &name), Err(Error::Exists))),
        (1..=4, Some(it)) => {
            if it == file { fs.unlink(dir, &name) } else { fs.rmdir(dir, &name) }.expect("remove");
            model.remove(&name);
        }
        (5, Some(it)) => {
            // Away and back under another name.
            let new = some_name(rng, names);
            fs.rename(&ROOT, (dir, &name), (other, b"guest"), RenameHow::Replace).expect("rename away");
            model.remove(&name);
            let back = if model.contains_key(&new) { name } else { new };
            fs.rename(&ROOT, (other, b"guest"), (dir, &back), RenameHow::Replace).expect("rename back");
            model.insert(back, it);
        }
        (6, Some(it)) => {
            let new = some_name(rng, names);
            if !model.contains_key(&new) {
                fs.rename(&ROOT, (dir, &name), (dir, &new), RenameHow::Replace).expect("rename");
                model.remove(&name);
                model.insert(new, it);
            }
        }
        (_, None) => assert!(matches!(fs.lookup(dir, &name), Err(Error::NotFound))),
        (_, Some(it)) => assert_eq!(fs.lookup(dir, &name).expect("there").inum.addr, it),
    }
}

fn random_changes(block_size: u32, names: u64, changes: u64) {
    let mut rng = Rng::new(seed(&format!("random_changes at {block_size}")));
    let Some(volume) = Volume::make(block_size, 128, 1802) else { return };
    let fs = volume.fs();
    let (dir, other) = (make_dir(fs, fs.root(), b"dir"), make_dir(fs, fs.root(), b"other"));
    let file = make_file(fs, fs.root(), b"file");
    let mut model = Model::new();
    for i in 0..changes {
        change(fs, &mut rng, dir, other, file, names, &mut model);
        if i % (changes / 4).max(1) == 0 {
            check(fs, dir, &model);
        }
    }
    check(fs, dir, &model);
    let volume = volume.remount();
    let fs = volume.fs();
    assert_eq!(fs.lookup(fs.root(), b"dir").expect("there").inum.addr, dir);
    fs.lookup(fs.root(), b"file").expect("there");
    check(fs, dir, &model);
    volume.finish();
}

#[test]
fn random_changes_at_512() {
    random_changes(512, 3000, 12_000);
}

#[test]
fn random_changes_at_1024() {
    random_changes(1024, 5000, 20_000);
}

#[test]
fn random_changes_at_4096() {
    random_changes(4096, 10_000, 40_000);
}

/// A listing in small pieces while the directory changes: what is there all the time is listed exactly once.
#[test]
fn a_listing_survives_changes() {
    for block_size in [512, 4096] {
        let mut rng = Rng::new(seed("a_listing_survives_changes"));
        let Some(volume) = Volume::make(block_size, 64, 1802) else { return };
        let fs = volume.fs();
        let file = make_file(fs, fs.root(), b"file");
        for round in 0..6u64 {
            let (dir, other) = (
                make_dir(fs, fs.root(), format!("dir{round}").as_bytes()),
                make_dir(fs, fs.root(), format!("o{round}").as_bytes()),
            );
            let mut model = Model::new();
            // From a linear directory of a few names up to many leaves.
            for _ in 0..[3, 6, 20, 60, 300, 900][round as usize] {
                change(fs, &mut rng, dir, other, file, 2000, &mut model);
            }
            let mut always: BTreeSet<Vec<u8>> = model.keys().cloned().collect();
            let (mut listed, mut from) = (Vec::new(), 0);
            loop {
                let (items, next) = page(fs, dir, from, 1 + rng.below(9) as usize);
                listed.extend(items.into_iter().map(|(name, _)| name));
                let Some(next) = next else { break };
                from = next;
                for _ in 0..rng.below(30) {
                    change(fs, &mut rng, dir, other, file, 2000, &mut model);
                    always.retain(|name| model.contains_key(name));
                }
            }
            let count = |name: &Vec<u8>| listed.iter().filter(|n| *n == name).count();
            // A name that was removed and added again in between may have been listed before and after.
            for name in &always {
                assert_eq!(count(name), 1, "{}", String::from_utf8_lossy(name));
            }
            check(fs, dir, &model);
        }
        volume.finish();
    }
}

/// ondisk.md 5.6.3, through the whole stack.
#[test]
fn sequential_creates_have_the_kernels_shape() {
    for (block_size, names, leaves) in [(4096u32, 12_000u64, 256u64), (512, 300, 56)] {
        let Some(volume) = Volume::make(block_size, 128, 1802) else { return };
        let fs = volume.fs();
        let (file, dir) = (make_file(fs, fs.root(), b"file"), make_dir(fs, fs.root(), b"dir"));
        for n in 0..names {
            fs.link(&ROOT, file, dir, format!("f{n}").as_bytes()).expect("link");
        }
        let attr = fs.getattr(dir).expect("attributes");
        let slots = attr.size / 8;
        let bs = u64::from(block_size);
        let table = if attr.size > bs / 2 { attr.size.div_ceil(bs - 24) } else { 0 };
        // At 512 bytes the dinode has 35 pointers, more than the table has blocks here.
        assert!(table <= 35);
        assert_eq!(attr.blocks * 512 / bs, 1 + table + leaves, "{slots} slots at {block_size}");
        volume.finish();
    }
}

/// ondisk.md C.5: a table of the greatest depth and a chain, and everything freed again.
#[test]
fn colliding_names_and_the_end_of_their_directory() {
    let Some(volume) = Volume::make(512, 64, 1802) else { return };
    let fs = volume.fs();
    let file = make_file(fs, fs.root(), b"file");
    fs.sync().expect("sync");
    let free = fs.space().free;
    let dir = make_dir(fs, fs.root(), b"dir");
    let wanted = dir_hash(b"hello").0 >> 15;
    let collide = |n: &Vec<u8>| dir_hash(n).0 >> 15 == wanted;
    let names: Vec<Vec<u8>> = (0..).map(|n| format!("c{n}").into_bytes()).filter(collide).take(43).collect();
    let mut model = Model::new();
    for name in &names {
        fs.link(&ROOT, file, dir, name).expect("link");
        model.insert(name.clone(), file);
    }
    assert_eq!(fs.getattr(dir).expect("attributes").size, 1 << 20);
    check(fs, dir, &model);
    let volume = volume.remount();
    let fs = volume.fs();
    assert_eq!(fs.lookup(fs.root(), b"dir").expect("there").inum.addr, dir);
    fs.lookup(fs.root(), b"file").expect("there");
    check(fs, dir, &model);
    for name in &names {
        fs.unlink(dir, name).expect("unlink");
    }
    fs.rmdir(fs.root(), b"dir").expect("rmdir");
    let volume = volume.remount();
    volume.fs().sync().expect("sync");
    assert_eq!(volume.fs().space().free, free);
    volume.finish();
}

/// The directory of 20,000 names that users have, with a look at every name.
#[test]
fn twenty_thousand_names() {
    let Some(volume) = Volume::make(4096, 64, 1802) else { return };
    let fs = volume.fs();
    let (file, dir) = (make_file(fs, fs.root(), b"file"), make_dir(fs, fs.root(), b"dir"));
    let mut model = Model::new();
    for n in 0..20_000u32 {
        let name = format!("IMG_{n:08}.jpeg").into_bytes();
        fs.link(&ROOT, file, dir, &name).expect("link");
        model.insert(name, file);
    }
    check(fs, dir, &model);
    model.retain(|name, _| {
        let keep = name[11] % 2 == 0;
        if !keep {
            fs.unlink(dir, name).expect("unlink");
        }
        keep
    });
    check(fs, dir, &model);
    volume.finish();
}

/// A linear directory and a hashed one, with a fault planted: exactly that is found.
#[test]
fn planted_faults_are_found() {
    let hashed = |volume: &Volume| {
        let fs = volume.fs();
        fs.lookup(fs.root(), b"dir").expect("there").inum.addr.get()
    };
    let leaf = |volume: &Volume| volume.number(hashed(volume), 232);
    let Some(mut volume) = Volume::make(4096, 64, 1802) else { return };
    let fs = volume.fs();
    let (file, dir) = (make_file(fs, fs.root(), b"file"), make_dir(fs, fs.root(), b"dir"));
    for n in 0..200 {
        fs.link(&ROOT, file, dir, format!("f{n}").as_bytes()).expect("link");
    }
    type Change = fn(&mut [u8], u64);
    let faults: [(bool, Change, &str); 6] = [
        (true, |b, _| b[27] += 1, "wrong number of entries in a leaf"),
        (true, |b, own| b[32..40].copy_from_slice(&own.to_be_bytes()), "leaf chain runs in a circle"),
        (true, |b, _| b[25] = 9, "leaf deeper than the hash table"),
        (true, |b, _| b[104 + 21] = 41, "record length too small or misaligned"),
        (false, |b, _| b[232..240].fill(0), "hash table slot without a leaf"),
        (false, |b, _| b[147] = 18, "deep"),
    ];
    for (in_leaf, change, what) in faults {
        let good = volume.opened.close().map(|()| volume.dev.snapshot()).expect("close");
        volume = Volume::mount(volume.dev);
        let block = if in_leaf { leaf(&volume) } else { hashed(&volume) };
        volume = volume.damage(block, |b| change(b, block));
        let fs = volume.fs();
        let found = fs.lookup(fs.root(), b"dir").and_then(|d| fs.list(d.inum.addr, 0, &mut |_| true));
        match found {
            Err(Error::Corrupt(Corrupt { what: CorruptKind::Directory(said), .. })) => assert_eq!(said, what),
            Err(Error::Corrupt(Corrupt { what: CorruptKind::Dinode(said), .. })) => {
                assert!(said.contains(what), "{said}")
            }
            other => panic!("{what}: {other:?}"),
        }
        assert!(volume.fs().volume().journal.withdrawn().is_some(), "{what}");
        volume = Volume::mount(std::sync::Arc::new(good));
    }
    // A wrong hash is tolerated as the kernel does: the name is listed, once, and not found.
    let block = leaf(&volume);
    let volume = volume.damage(block, |b| b[104 + 48 + 16..][..4].fill(0xff));
    let fs = volume.fs();
    let dir = fs.lookup(fs.root(), b"dir").expect("there").inum.addr;
    let listed = list_all(fs, dir, 7);
    assert_eq!(listed.len(), 200);
    let lost: Vec<_> = listed.keys().filter(|name| matches!(fs.lookup(dir, name), Err(Error::NotFound))).collect();
    assert_eq!(lost.len(), 1);
}
