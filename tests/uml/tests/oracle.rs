//! The kernel's GFS2 under the workload: clean when unmounted, recoverable when cut off, the same tree in every view.

use gfs2r_uml::{End, Job, Outcome, Uml, guest_path, tools, tree};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(180);

/// A directory for the images of one test, removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("gfs2r-uml-test-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Scratch(path)
    }

    /// A new filesystem with one journal, for one node.
    fn image(&self, name: &str, options: &[&str]) -> PathBuf {
        let image = self.0.join(name);
        tools::mkfs(&image, 512 << 20, &[&["-p", "lock_nolock", "-j", "1", "-J", "16"], options].concat()).unwrap();
        image
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

fn fswork() -> String {
    guest_path(Path::new(env!("CARGO_BIN_EXE_fswork")))
}

fn treelist() -> String {
    // The kernel shows device number 0:0 for nodes that were looked up, and reading changes access times.
    format!("{} --without rdev,atime --with flags,data,ino", guest_path(Path::new(env!("CARGO_BIN_EXE_treelist"))))
}

fn assert_clean(image: &Path) {
    let fsck = tools::fsck(image, &["-n"]).unwrap();
    assert_eq!(fsck.status, Some(0), "fsck.gfs2 -n {}:\n{}", image.display(), fsck.text);
}

fn assert_ok(outcome: &Outcome) {
    assert!(outcome.is_ok() && outcome.trouble().is_empty(), "trouble {:?}\n{}", outcome.trouble(), outcome.report());
}

fn assert_same(outcome: &Outcome, left: &str, right: &str) {
    let found = tree::differences(&outcome.read(left).unwrap(), &outcome.read(right).unwrap(), 20);
    assert!(found.is_empty(), "{left} / {right}:\n{}", found.join("\n"));
}

#[test]
fn a_tree_survives_unmount_and_mount() {
    let Some(uml) = Uml::find_or_skip() else { return };
    let scratch = Scratch::new("mount");
    for (block_size, seed) in [("4096", 11), ("1024", 12)] {
        let image = scratch.image(block_size, &["-b", block_size]);
        let script = format!(
            r#"set -e
            mount -t gfs2 -o acl /dev/ubda /mnt/gfs
            {work} --dir /mnt/gfs --ops 4000 --seed {seed}
            {list} /mnt/gfs >$OUT/before
            umount /mnt/gfs; mount -t gfs2 -o acl /dev/ubda /mnt/gfs
            {list} /mnt/gfs >$OUT/after
            df /mnt/gfs; umount /mnt/gfs"#,
            work = fswork(),
            list = treelist()
        );
        let outcome = uml.run(&Job::new(script).disk(&image).limit(LIMIT)).unwrap();
        println!("{block_size}: {:?} {}", outcome.duration, outcome.console);
        assert_ok(&outcome);
        assert_same(&outcome, "before", "after");
        assert!(outcome.read("before").unwrap().lines().count() > 500);
        assert_clean(&image);
    }
}

#[test]
fn a_seed_gives_one_tree_on_two_disks() {
    let Some(uml) = Uml::find_or_skip() else { return };
    let scratch = Scratch::new("seed");
    let (one, two) = (scratch.image("one", &[]), scratch.image("two", &[]));
    let script = format!(
        r#"set -e
        mkdir /mnt/two; mount -t gfs2 -o acl /dev/ubda /mnt/gfs; mount -t gfs2 -o acl /dev/ubdb /mnt/two
        {work} --dir /mnt/gfs --ops 1500 --seed 21 --trace /tmp/one
        {work} --dir /mnt/two --ops 1500 --seed 21 --trace /tmp/two
        {list} --without mtime,ctime,ino /mnt/gfs >$OUT/one
        {list} --without mtime,ctime,ino /mnt/two >$OUT/two
        cmp /tmp/one /tmp/two
        umount /mnt/gfs /mnt/two"#,
        work = fswork(),
        list = treelist()
    );
    let outcome = uml.run(&Job::new(script).disk(&one).disk(&two).limit(LIMIT)).unwrap();
    assert_ok(&outcome);
    assert_same(&outcome, "one", "two");
}

/// Cuts a guest off in the middle of its work; the sync log is left in `scratch/log`.
fn crash(uml: &Uml, scratch: &Scratch, image: &Path, seed: u64) {
    let script = format!(
        r#"mount -t gfs2 -o acl /dev/ubda /mnt/gfs && {work} --dir /mnt/gfs --ops 1000000 --seed {seed} --no-chattr-j --sync-log $OUT/log"#,
        work = fswork()
    );
    let guest = uml.spawn(&Job::new(script).disk(image).limit(LIMIT)).unwrap();
    guest.wait_for_line("fswork: step 800", LIMIT).unwrap();
    let outcome = guest.kill();
    assert_eq!(outcome.end, End::Killed);
    assert!(outcome.trouble().is_empty(), "{}", outcome.report());
    std::fs::copy(outcome.out().join("log"), scratch.0.join("log")).unwrap();
}

/// What shall happen to the disk before the promises are checked; the kernel's messages are returned.
fn check_promises(uml: &Uml, scratch: &Scratch, image: &Path) -> String {
    let script = format!(
        r#"set -e
        mount -t gfs2 -o acl /dev/ubda /mnt/gfs
        {work} --dir /mnt/gfs --check $OUT/log
        {list} /mnt/gfs >$OUT/tree
        umount /mnt/gfs"#,
        work = fswork(),
        list = treelist()
    );
    let log = std::fs::read(scratch.0.join("log")).unwrap();
    let outcome = uml.run(&Job::new(script).disk(image).file("log", log).limit(LIMIT)).unwrap();
    assert_ok(&outcome);
    let kept = outcome
        .console
        .lines()
        .find_map(|line| line.strip_prefix("fswork: kept ")?.split(' ').next()?.parse::<u32>().ok());
    assert!(kept.unwrap_or(0) > 10, "{}", outcome.report());
    outcome.kernel.clone()
}

#[test]
fn a_crash_loses_nothing_that_was_synced() {
    let Some(uml) = Uml::find_or_skip() else { return };
    let scratch = Scratch::new("crash");
    let image = scratch.image("crashed", &[]);
    crash(&uml, &scratch, &image, 31);
    let copy = scratch.0.join("copy");
    std::fs::copy(&image, &copy).unwrap();

    // The stock fsck replays the journal, and takes what the dead node had open and unlinked.
    let look = tools::fsck(&image, &["-n"]).unwrap();
    assert!(look.text.contains("dirty") || look.status != Some(0), "no crash image:\n{}", look.text);
    let repair = tools::fsck(&image, &["-y"]).unwrap();
    assert!(matches!(repair.status, Some(0 | 1)), "fsck.gfs2 -y: {:?}\n{}", repair.status, repair.text);
    assert_clean(&image);
    let kernel = check_promises(&uml, &scratch, &image);
    assert!(!kernel.contains("Replaying journal"), "{kernel}");

    // So does the kernel.
    let kernel = check_promises(&uml, &scratch, &copy);
    assert!(kernel.contains("Replaying journal"), "{kernel}");
}
