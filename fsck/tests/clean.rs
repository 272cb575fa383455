//! What stands in good order has no issues.

mod common;

use common::plant::{Plant, volume};
use gfs2r::device::MemoryDevice;
use gfs2r_fsck::{Journals, Options, Volume, check};

const FULL: [&str; 3] = ["full.512", "full.1024", "full.4096"];
const DIRTY: [&str; 2] = ["dirty.1024", "dirty.4096"];

#[test]
fn fresh_volumes() {
    for bs in ["512", "1024", "2048", "4096"] {
        for journals in ["1", "2", "3"] {
            for format in ["format=1801", "format=1802"] {
                let options = ["-b", bs, "-j", journals, "-J", "8", "-o", format];
                let Some(device) = common::fresh(96, &options) else { return };
                let report = check(&device, &Options::closed()).expect("the check runs");
                report.assert_clean();
                assert!(report.issues.is_empty(), "{options:?}:\n{report}");
                assert_eq!(report.stats.journals.to_string(), journals);
            }
        }
    }
}

#[test]
fn volumes_that_the_kernel_filled() {
    for name in FULL {
        let device = common::image(name);
        let report = check(&device, &Options::closed()).expect("the check runs");
        report.assert_clean();
        // The only thing worth knowing about them is the file with blocks allocated in advance.
        let codes: Vec<_> = report.issues.iter().map(|i| i.code()).collect();
        assert_eq!(codes, ["blocks-beyond-eof"], "{name}:\n{report}");
        let plant = Plant::new(&device);
        plant.refill_journals();
        plant.check().assert_clean();
        assert_eq!(common::stock_verdict(&plant.device).unwrap_or(0), 0, "{name}");
    }
}

#[test]
fn dirty_volumes_are_clean_after_replay() {
    for name in DIRTY {
        let device = common::image(name);
        let report = check(&device, &Options::default()).expect("the check runs");
        report.assert_clean();
        assert!(report.has("journal-replayed") && report.has("inode-unlinked"), "{name}:\n{report}");
        assert!(report.stats.replayed > 50 && report.stats.journals_dirty == 1, "{name}:\n{:?}", report.stats);
        let report = check(&device, &Options { ignore_unlinked: true, ..Options::default() }).expect("the check runs");
        assert!(!report.has("inode-unlinked"));
    }
}

#[test]
fn dirty_volumes_are_not_clean_before_replay() {
    for name in DIRTY {
        let report = check(&common::image(name), &Options::closed()).expect("the check runs");
        assert!(report.has("journal-dirty"), "{name}:\n{report}");
        assert!(report.errors().count() > 1, "{name}: the disk alone cannot be in order:\n{report}");
    }
}

/// What replay leaves is what `fsck.gfs2 -y` leaves, as far as that keeps it.
#[test]
fn the_replayed_view_is_what_the_stock_tool_makes_of_it() {
    if !common::have("fsck.gfs2") {
        return;
    }
    for name in DIRTY {
        let device = common::image(name);
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        device.save(file.path()).expect("save");
        let done = std::process::Command::new("fsck.gfs2").arg("-y").arg(file.path()).output().expect("fsck.gfs2 runs");
        assert_eq!(done.status.code(), Some(1), "{name}: {}", String::from_utf8_lossy(&done.stdout));
        let mended = MemoryDevice::load(file.path()).expect("load");
        let (ours, theirs) = (volume(&device), Volume::open(&mended, Journals::MustBeClean).expect("a volume"));
        let (our_tree, mut their_tree) = (ours.tree().expect("tree"), theirs.tree().expect("tree"));
        // It may have made a lost+found, which would change the root.
        their_tree.retain(|e| !e.path.starts_with("/lost+found"));
        assert_eq!(our_tree.len(), their_tree.len());
        for (a, b) in our_tree.iter().zip(&their_tree) {
            assert_eq!(a, b);
            if a.mode & 0o170000 == 0o100000 && a.size < 10_000_000 {
                let addr = a.inum.addr.get();
                assert!(
                    ours.read_file(addr).expect("read") == theirs.read_file(addr).expect("read"),
                    "{}",
                    a.path.display()
                );
            }
        }
    }
}

/// The reader against what the script that filled the image wrote.
#[test]
fn the_reader_finds_what_was_written() {
    let line = |i: usize| format!("{i:015}\n");
    let data = |len: usize| (0..len / 16 + 1).flat_map(|i| line(i).into_bytes()).take(len).collect::<Vec<u8>>();
    for name in FULL {
        let device = common::image(name);
        let volume = volume(&device);
        let stat = |path: &str| volume.stat_path(path).unwrap_or_else(|e| panic!("{name} {path}: {e}"));
        assert_eq!(volume.read_path("/a/hello").expect("read"), b"hello\n");
        assert_eq!(stat("/a/hello").inum, stat("/a/b/hello2").inum);
        assert_eq!(stat("/a/hello").nlink, 2);
        assert_eq!(stat("/a/b/link").target.as_deref(), Some(&b"../hello"[..]));
        assert_eq!((stat("/a/chr").rdev, stat("/a/blk").rdev), ((5, 1), (8, 3)));
        assert_eq!((stat("/a/data").uid, stat("/a/data").gid), (1000, 1001));
        assert!(volume.read_path("/a/data").expect("read") == data(777_000), "{name}");
        assert!(volume.read_path("/a/cut").expect("read") == data(123_457), "{name}");
        let sparse = stat("/a/sparse").inum.addr.get();
        assert_eq!(volume.read_range(sparse, 102_399_990, 26).expect("read"), [vec![0; 10], data(16)].concat());
        assert_eq!(volume.read_range(sparse, 3_072_000_984, 100).expect("read"), data(1000)[984..]);
        assert_eq!(volume.read_path("/a/jdata").expect("read")[..20], [&[1, 0x16, 0x19, 0x70][..], &data(16)].concat());
        let attributes = stat("/a/data").xattrs;
        let find = |name: &str| attributes.iter().find(|(n, _)| n == name.as_bytes()).map(|(_, v)| v.clone());
        assert_eq!(find("user.big"), Some(vec![b'q'; 9000]));
        assert_eq!(find("security.foo"), Some(b"bar".to_vec()));
        let attributes = stat("/a/cut").xattrs;
        assert_eq!(attributes.len(), 46, "45 of 60 and a trusted one");
        assert!(stat("/a/b/inherits").xattrs.iter().any(|(n, _)| n == b"system.posix_acl_access"));
        let tree = volume.tree().expect("tree");
        let count = |dir: &str| tree.iter().filter(|e| e.path.parent() == Some(dir.as_ref())).count();
        assert_eq!((count("/big"), count("/same")), (400, 20));
        assert!(volume.lookup("/a/nothing").is_err());
        assert!(volume.system_tree().expect("tree").iter().any(|e| e.path.ends_with("per_node/quota_change1")));
    }
}

/// Makes an image file for these tests of a raw one: `FIXTURE_FROM=full.4096.img FIXTURE_TO=full.4096 cargo test ... --ignored`.
#[test]
#[ignore = "makes a fixture"]
fn make_fixture() {
    let var = |name| std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set"));
    let plant = Plant::new(&MemoryDevice::load(var("FIXTURE_FROM").as_ref()).expect("load"));
    for jid in 0..plant.check().stats.journals as u32 {
        let (head, blocks) = plant.head(jid);
        let bytes = plant.read(blocks[head]);
        let header = gfs2r::format::OnDisk::view(&bytes);
        let gfs2r::format::LogHeader { flags, tail, .. } = *header;
        let tail = if flags.get() & 1 != 0 { head } else { tail.get() as usize };
        let n = blocks.len();
        let keep = (head + n - tail) % n;
        for (i, &block) in blocks.iter().enumerate() {
            if (i + n - tail) % n > keep {
                plant.write(block, &vec![0; plant.bs]);
            }
        }
    }
    common::save(&plant.device, &common::images().join(format!("{}.gz", var("FIXTURE_TO"))));
}
