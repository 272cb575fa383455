//! Extended attributes on real volumes: against a naive model and the stock fsck.

#[path = "model/ops.rs"]
#[allow(dead_code, unreachable_pub, reason = "the generator of random numbers is used alone")]
mod ops;
mod volume;

use gfs2r::error::{CorruptKind, Error};
use gfs2r::fs::{Fs, NewInode, SetMode};
use gfs2r::ids::BlockAddr;
use ops::{Rng, seed};
use std::collections::BTreeMap;
use volume::{ROOT, Volume};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn check(fs: &Fs, node: BlockAddr, model: &Model) {
    let mut names = fs.listxattr(node).expect("list");
    names.sort();
    assert_eq!(names, model.keys().cloned().collect::<Vec<_>>());
    for (name, value) in model {
        assert!(fs.getxattr(node, name).expect("there") == *value, "{}", String::from_utf8_lossy(name));
    }
}

fn random_sets(block_size: u32, rounds: u64) {
    let mut rng = Rng::new(seed(&format!("random_sets at {block_size}")));
    let Some(volume) = Volume::make(block_size, 64, 1802) else { return };
    let fs = volume.fs();
    fs.sync().expect("sync");
    let free = fs.space().free;
    let node = fs.make(&ROOT, fs.root(), b"file", &NewInode::File(0o600)).expect("file").inum.addr;
    let largest = if block_size == 512 { 20_000 } else { 65_536 };
    let mut model = Model::new();
    for round in 0..rounds {
        let n = rng.below(24);
        let prefix = [&b"user."[..], b"security.", b"trusted."][(n % 3) as usize];
        let name = [prefix, b"name".repeat((1 + n * 5 % 30) as usize).as_slice(), n.to_string().as_bytes()].concat();
        let len = match rng.below(10) {
            0 => rng.below(largest),
            1 => rng.below(3 * u64::from(block_size)),
            _ => rng.below(u64::from(block_size) / 3),
        };
        let value = rng.bytes(len as usize);
        let known = model.contains_key(&name);
        match rng.below(6) {
            0 if known => {
                fs.removexattr(node, &name).expect("remove");
                model.remove(&name);
            }
            0 => assert!(matches!(fs.removexattr(node, &name), Err(Error::NoAttribute))),
            1 if known => {
                assert!(matches!(fs.setxattr(&ROOT, node, &name, &value, SetMode::Create), Err(Error::Exists)))
            }
            1 => assert!(matches!(fs.setxattr(&ROOT, node, &name, &value, SetMode::Replace), Err(Error::NoAttribute))),
            _ => match fs.setxattr(&ROOT, node, &name, &value, SetMode::Any) {
                Ok(()) => drop(model.insert(name, value)),
                // The list of EA blocks is full; the old value stays.
                Err(Error::NoSpace) => assert!(block_size == 512 && round > 50),
                Err(e) => panic!("{e}"),
            },
        }
        if round % 50 == 0 {
            check(fs, node, &model);
        }
    }
    check(fs, node, &model);
    let volume = volume.remount();
    let fs = volume.fs();
    assert_eq!(fs.lookup(fs.root(), b"file").expect("there").inum.addr, node);
    check(fs, node, &model);
    fs.unlink(fs.root(), b"file").expect("unlink");
    let volume = volume.remount();
    assert_eq!(volume.fs().space().free, free, "all blocks of attributes are free again");
    volume.finish();
}

#[test]
fn random_sets_at_512() {
    random_sets(512, 1500);
}

#[test]
fn random_sets_at_1024() {
    random_sets(1024, 1500);
}

#[test]
fn random_sets_at_4096() {
    random_sets(4096, 1500);
}

#[test]
fn limits() {
    let Some(volume) = Volume::make(4096, 64, 1802) else { return };
    let fs = volume.fs();
    let node = fs.make(&ROOT, fs.root(), b"file", &NewInode::File(0o600)).expect("file").inum.addr;
    let set = |name: &[u8], len: usize| fs.setxattr(&ROOT, node, name, &vec![7; len], SetMode::Any);
    let longest = [&b"user."[..], &[b'n'; 255]].concat();
    set(&longest, 65_536).expect("the largest there is");
    assert!(matches!(set(b"user.x", 65_537), Err(Error::OutOfRange)));
    assert!(matches!(set(&[&longest[..], b"n"].concat(), 1), Err(Error::OutOfRange)));
    assert!(matches!(set(b"user.", 1), Err(Error::Invalid)));
    assert!(matches!(set(b"system.other", 1), Err(Error::NotSupported)));
    assert!(matches!(set(b"nothing", 1), Err(Error::NotSupported)));
    set(b"user.empty", 0).expect("an empty value is one");
    assert_eq!(fs.getxattr(node, b"user.empty").expect("there"), b"");
    volume.finish();
}

#[test]
fn trusted_needs_format_1802() {
    let Some(volume) = Volume::make(4096, 64, 1801) else { return };
    let fs = volume.fs();
    let node = fs.make(&ROOT, fs.root(), b"file", &NewInode::File(0o600)).expect("file").inum.addr;
    assert!(matches!(fs.setxattr(&ROOT, node, b"trusted.x", b"1", SetMode::Any), Err(Error::NotSupported)));
    fs.setxattr(&ROOT, node, b"security.x", b"1", SetMode::Any).expect("offered");
    volume.finish();
}

/// A default ACL is inherited within the transaction that creates: access ACL, default ACL, the adjacent EA block.
#[test]
fn default_acls_are_inherited() {
    let mut acl = vec![2, 0, 0, 0];
    for (tag, perm, id) in [(1u8, 7u8, None), (2, 6, Some(1000u32)), (4, 5, None), (0x10, 7, None), (0x20, 5, None)] {
        acl.extend([tag, 0, perm, 0]);
        acl.extend(id.unwrap_or(u32::MAX).to_le_bytes());
    }
    for block_size in [512, 4096] {
        let Some(volume) = Volume::make(block_size, 64, 1802) else { return };
        let fs = volume.fs();
        fs.setxattr(&ROOT, fs.root(), b"system.posix_acl_default", &acl, SetMode::Any).expect("set");
        let dir = fs.make(&ROOT, fs.root(), b"dir", &NewInode::Dir(0o777)).expect("dir");
        let file = fs.make(&ROOT, dir.inum.addr, b"file", &NewInode::File(0o640)).expect("file");
        assert_eq!((dir.perm, file.perm), (0o775, 0o640));
        assert_eq!(file.blocks * 512 / u64::from(block_size), 2);
        let mut names = fs.listxattr(dir.inum.addr).expect("list");
        names.sort();
        assert_eq!(names, [&b"system.posix_acl_access"[..], b"system.posix_acl_default"]);
        assert_eq!(fs.listxattr(file.inum.addr).expect("list"), [&b"system.posix_acl_access"[..]]);
        assert_eq!(fs.getxattr(dir.inum.addr, b"system.posix_acl_default").expect("there"), acl);
        volume.finish();
    }
}

/// A crash between the two transactions of a replacement leaves an unused record that owns ED blocks (ondisk.md 6.4): setting
/// frees them before it uses the record, deleting the inode frees them too.
#[test]
fn blocks_of_an_interrupted_replacement_are_freed() {
    for delete in [false, true] {
        let Some(volume) = Volume::make(4096, 64, 1802) else { return };
        let fs = volume.fs();
        let free = fs.space().free;
        let node = fs.make(&ROOT, fs.root(), b"file", &NewInode::File(0o600)).expect("file").inum.addr;
        fs.setxattr(&ROOT, node, b"user.big", &[1; 20_000], SetMode::Any).expect("set");
        let volume = volume.remount();
        let ea = volume.number(node.get(), 168);
        let volume = volume.damage(ea, |b| b[24 + 9] = 0);
        let fs = volume.fs();
        fs.lookup(fs.root(), b"file").expect("there");
        check(fs, node, &Model::new());
        if !delete {
            assert_eq!(fs.getattr(node).expect("attributes").blocks / 8, 2 + 5);
            fs.setxattr(&ROOT, node, b"user.small", b"x", SetMode::Any).expect("set");
            assert_eq!(fs.getattr(node).expect("attributes").blocks / 8, 2);
            check(fs, node, &Model::from([(b"user.small".to_vec(), b"x".to_vec())]));
        }
        fs.unlink(fs.root(), b"file").expect("unlink");
        let volume = volume.remount();
        assert_eq!(volume.fs().space().free, free);
        volume.finish();
    }
}

/// ondisk.md 6.1: what breaks a rule is found, and nothing is guessed.
#[test]
fn planted_faults_are_found() {
    type Change = fn(&mut [u8]);
    let faults: [(Change, &str); 4] = [
        (|b| b[24..28].fill(0), "record of impossible length"),
        (|b| b[24 + 10] = 0, "last record not at the block's end"),
        (|b| b[24 + 9] = 7, "record of unknown type"),
        (|b| b[24 + 8] = 0, "record without a name"),
    ];
    for (change, what) in faults {
        let Some(volume) = Volume::make(4096, 64, 1802) else { return };
        let fs = volume.fs();
        let node = fs.make(&ROOT, fs.root(), b"file", &NewInode::File(0o600)).expect("file").inum.addr;
        fs.setxattr(&ROOT, node, b"user.a", b"value", SetMode::Any).expect("set");
        let volume = volume.remount();
        let ea = volume.number(node.get(), 168);
        let volume = volume.damage(ea, change);
        let fs = volume.fs();
        fs.lookup(fs.root(), b"file").expect("there");
        match fs.listxattr(node) {
            Err(Error::Corrupt(c)) => assert_eq!((c.at.get(), c.what), (ea, CorruptKind::Xattr(what))),
            other => panic!("{what}: {other:?}"),
        }
    }
}
