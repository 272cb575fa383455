//! gfs2r and the Linux kernel on one disk, in turn: each mounts what the other wrote, sees the same tree, and replays the
//! other's dirty journal. The stock fsck has the last word.

use gfs2r_uml::{End, Job, Outcome, Uml, guest_path, tools, tree};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(180);

/// One of our programs, built beside this crate's.
fn program(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_BIN_EXE_fswork")).parent()?.join(name);
    if path.exists() {
        return Some(path);
    }
    println!("SKIPPED: {} is not built (cargo build --workspace in this profile)", path.display());
    None
}

fn treelist() -> String {
    // The kernel shows device number 0:0 for nodes that were looked up; reading changes access times; a link count of a
    // directory and all else must agree.
    format!("{} --without rdev,atime --with ino", guest_path(Path::new(env!("CARGO_BIN_EXE_treelist"))))
}

fn fswork() -> String {
    guest_path(Path::new(env!("CARGO_BIN_EXE_fswork")))
}

/// Images, mount point and runtime state of one test; whatever is mounted or running is ended when dropped.
struct Bench {
    dir: PathBuf,
    programs: PathBuf,
}

impl Bench {
    fn new(name: &str) -> Option<Self> {
        if !Path::new("/dev/fuse").exists() {
            println!("SKIPPED: there is no /dev/fuse");
            return None;
        }
        let programs = program("mount.gfs2r")?.parent()?.to_owned();
        let dir = std::env::temp_dir().join(format!("gfs2r-interop-{}-{name}", std::process::id()));
        std::fs::create_dir_all(dir.join("mnt")).expect("a folder of our own");
        Some(Self { dir, programs })
    }

    fn image(&self) -> PathBuf {
        self.dir.join("image")
    }
    fn mnt(&self) -> PathBuf {
        self.dir.join("mnt")
    }

    /// A program of ours, with our runtime folder, ended by force after a while.
    fn ours(&self, name: &str) -> Command {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "120"]).arg(self.programs.join(name)).env("GFS2R_RUN_DIR", self.dir.join("run"));
        command
    }

    fn must(&self, command: &mut Command) {
        let out = command.stdin(Stdio::null()).output().expect("it starts");
        let text = [out.stdout, out.stderr].concat();
        assert!(out.status.success(), "{command:?}: {}\n{}", out.status, String::from_utf8_lossy(&text));
    }

    fn mkfs(&self, options: &[&str]) {
        File::create(self.image()).and_then(|f| f.set_len(512 << 20)).expect("an image");
        let fixed = ["-O", "-q", "-p", "lock_nolock", "-j", "1", "-J", "16"];
        self.must(self.ours("mkfs.gfs2r").args(fixed).args(options).arg(self.image()));
    }
    fn mount(&self) {
        self.must(self.ours("mount.gfs2r").arg(self.image()).arg(self.mnt()));
    }
    fn umount(&self) {
        self.must(self.ours("umount.gfs2r").arg(self.mnt()));
    }

    fn daemon(&self) -> Option<String> {
        let run = std::fs::read_dir(self.dir.join("run")).ok()?.next()?.ok()?.path();
        Some(std::fs::read_to_string(run.join("pid")).ok()?.trim().to_owned())
    }

    /// The power goes: the daemon is killed where it stands.
    fn pull_the_plug(&self) {
        let pid = self.daemon().expect("a daemon is running");
        self.must(Command::new("kill").args(["-KILL", &pid]));
        self.must(Command::new("umount").arg("-l").arg(self.mnt()));
    }

    fn work(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["-s", "KILL", "170"])
            .arg(env!("CARGO_BIN_EXE_fswork"))
            .arg("--dir")
            .arg(self.mnt())
            .args(arguments);
        command
    }

    fn list(&self) -> String {
        let mut command = Command::new("timeout");
        command.args(["-s", "KILL", "120"]).arg(env!("CARGO_BIN_EXE_treelist")).args([
            "--without",
            "rdev,atime",
            "--with",
            "ino",
        ]);
        let out = command.arg(self.mnt()).output().expect("it starts");
        assert!(out.status.success(), "treelist: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).expect("text")
    }

    fn assert_clean(&self, when: &str) {
        let fsck = tools::fsck(&self.image(), &["-n"]).expect("fsck.gfs2 runs");
        assert_eq!(fsck.status, Some(0), "{when}: fsck.gfs2 -n:\n{}", fsck.text);
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Nothing of this is there when the test went well; all of it may be when it did not.
        let _ended = self.daemon().map(|pid| Command::new("kill").args(["-KILL", &pid]).stderr(Stdio::null()).status());
        let _unmounted = Command::new("umount").arg("-l").arg(self.mnt()).stderr(Stdio::null()).status();
        if let Err(e) = std::fs::remove_dir_all(&self.dir) {
            eprintln!("{}: {e}", self.dir.display());
        }
    }
}

fn assert_ok(outcome: &Outcome) {
    assert!(outcome.is_ok() && outcome.trouble().is_empty(), "trouble {:?}\n{}", outcome.trouble(), outcome.report());
}

fn assert_same(what: &str, left: &str, right: &str) {
    let found = tree::differences(left, right, 20);
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn each_reads_what_the_other_wrote() {
    let Some(uml) = Uml::find_or_skip() else { return };
    for (block_size, seed) in [("4096", "41"), ("1024", "42")] {
        let Some(bench) = Bench::new(block_size) else { return };
        bench.mkfs(&["-b", block_size]);
        bench.mount();
        bench.must(&mut bench.work(&["--ops", "2500", "--seed", seed]));
        bench.umount();
        bench.assert_clean("after our writes");
        bench.mount();
        let ours = bench.list();
        bench.umount();
        let script = format!(
            r#"set -e
            mount -t gfs2 -o acl /dev/ubda /mnt/gfs
            {list} /mnt/gfs >$OUT/before
            mkdir /mnt/gfs/kernel
            {work} --dir /mnt/gfs/kernel --ops 1500 --seed 9{seed}
            {list} /mnt/gfs >$OUT/after
            umount /mnt/gfs"#,
            work = fswork(),
            list = treelist()
        );
        let outcome = uml.run(&Job::new(script).disk(bench.image()).limit(LIMIT)).expect("the guest runs");
        assert_ok(&outcome);
        assert_same("the kernel reads ours", &ours, &outcome.read("before").expect("a listing"));
        bench.assert_clean("after the kernel's writes");
        bench.mount();
        assert_same("we read the kernel's", &outcome.read("after").expect("a listing"), &bench.list());
        bench.umount();
        bench.assert_clean("at the end");
        println!("block size {block_size}: {} entries agree", ours.lines().count());
    }
}

/// Starts the workload and waits until it has done a part of it.
fn work_until(bench: &Bench, log: &Path) -> Child {
    let log = log.to_str().expect("a plain path");
    let mut command = bench.work(&["--ops", "1000000", "--seed", "51", "--no-chattr-j", "--sync-log", log]);
    let out = bench.dir.join("work.out");
    let child = command.stdout(File::create(&out).expect("a file")).spawn().expect("it starts");
    let start = Instant::now();
    while !std::fs::read_to_string(&out).expect("readable").contains("fswork: step 800") {
        assert!(start.elapsed() < LIMIT, "the workload is stuck");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

#[test]
fn the_kernel_replays_our_journal() {
    let Some(uml) = Uml::find_or_skip() else { return };
    let Some(bench) = Bench::new("ours-dirty") else { return };
    bench.mkfs(&[]);
    bench.mount();
    let log = bench.dir.join("log");
    let mut child = work_until(&bench, &log);
    bench.pull_the_plug();
    child.kill().expect("it is ours");
    child.wait().expect("it is ours");
    let script = format!(
        r#"set -e
        mount -t gfs2 -o acl /dev/ubda /mnt/gfs
        {work} --dir /mnt/gfs --check $OUT/log
        umount /mnt/gfs"#,
        work = fswork()
    );
    let log = std::fs::read(log).expect("the log of synced files");
    let outcome = uml.run(&Job::new(script).disk(bench.image()).file("log", log).limit(LIMIT)).expect("the guest runs");
    assert_ok(&outcome);
    assert!(outcome.kernel.contains("Replaying journal"), "{}", outcome.report());
    // Unlinked files that were open stay for the next mount of ours to delete.
    bench.mount();
    bench.umount();
    bench.assert_clean("after the kernel's replay and our mount");
}

#[test]
fn we_replay_the_kernels_journal() {
    let Some(uml) = Uml::find_or_skip() else { return };
    let Some(bench) = Bench::new("kernel-dirty") else { return };
    bench.mkfs(&[]);
    let script = format!(
        r#"mount -t gfs2 -o acl /dev/ubda /mnt/gfs && {work} --dir /mnt/gfs --ops 1000000 --seed 61 --sync-log $OUT/log"#,
        work = fswork()
    );
    let guest = uml.spawn(&Job::new(script).disk(bench.image()).limit(LIMIT)).expect("the guest starts");
    guest.wait_for_line("fswork: step 800", LIMIT).expect("it works");
    let outcome = guest.kill();
    assert_eq!(outcome.end, End::Killed);
    let log = bench.dir.join("log");
    std::fs::copy(outcome.out().join("log"), &log).expect("the log of synced files");
    bench.mount();
    bench.must(&mut bench.work(&["--check", log.to_str().expect("a plain path")]));
    bench.umount();
    bench.assert_clean("after our replay");
}
