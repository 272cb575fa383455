//! Clusters on one disk, gfs2r's and the kernel's in turn: three daemons of ours write and crash, two kernels replay their journals;
//! two kernels write and crash, three daemons of ours replay. What was fsynced must be there, all nodes must see one tree, and both
//! checkers must be content.
//!
//! `cargo test --release -p gfs2r-uml --test cluster -- [WORD]` runs what has a word in its name. Where it cannot run it says
//! `SKIPPED` and why (`BLOCK_SIZES=512,2048` chooses, `KEEP=1` leaves images and logs); with `GFS2R_UML_REQUIRED=1` that is a failure.

use gfs2r_uml::kernels::{Kernels, TABLE};
use gfs2r_uml::nodes::{Nodes, must};
use gfs2r_uml::{Job, Uml, guest_path, network, tools, tree};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(240);
/// Steps of every node's workload before the power goes.
const STEPS: u32 = 400;
const WHAT: &str = "kernels and our nodes on one disk";

const FSWORK: &str = env!("CARGO_BIN_EXE_fswork");
const TREELIST: &str = env!("CARGO_BIN_EXE_treelist");
/// The kernel shows device number 0:0 for nodes that were looked up; reading changes access times.
const COLUMNS: [&str; 4] = ["--without", "rdev,atime", "--with", "ino"];

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("gfs2r-uml-cluster-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if std::env::var_os("KEEP").is_some() {
            println!("kept: {}", self.0.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

fn programs() -> PathBuf {
    Path::new(FSWORK).with_file_name("")
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn format(mkfs: &Path, image: &Path, block_size: u32, journals: u32) -> Result<(), String> {
    File::create(image).and_then(|file| file.set_len(1 << 30)).map_err(|error| error.to_string())?;
    let mut command = Command::new(mkfs);
    command.args(["-O", "-q", "-p", "lock_dlm", "-t", TABLE, "-J", "16", "-j"]).arg(journals.to_string());
    must(command.args(["-b", &block_size.to_string()]).arg(image)).map(drop)
}

/// Ended by force after a while.
fn limited(program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "200", program]);
    command
}

/// Our checker and the stock one.
fn assert_clean(image: &Path, when: &str) -> Result<(), String> {
    let stock = tools::fsck(image, &["-n"])?;
    if stock.status != Some(0) {
        return Err(format!("{when}: fsck.gfs2 -n: {:?}\n{}", stock.status, stock.text));
    }
    must(limited(&text(&programs().join("fsck.gfs2r"))).arg("-n").arg(image)).map(drop)
}

fn same(what: &str, left: &str, right: &str) -> Result<(), String> {
    let found = tree::differences(left, right, 20);
    if found.is_empty() { Ok(()) } else { Err(format!("{what}:\n{}", found.join("\n"))) }
}

fn list(mnt: &Path) -> Result<String, String> {
    must(limited(TREELIST).args(COLUMNS).arg(mnt))
}

/// The workload of one node, running.
struct Work {
    child: Child,
    out: PathBuf,
    log: PathBuf,
}

impl Work {
    fn start(mnt: &Path, node: u32, seed: u64, dir: &Path) -> Result<Self, String> {
        let (out, log) = (dir.join(format!("work{node}.out")), dir.join(format!("work{node}.log")));
        let place = mnt.join(format!("node{node}"));
        std::fs::create_dir(&place).map_err(|error| format!("{}: {error}", place.display()))?;
        let file = File::create(&out).map_err(|error| error.to_string())?;
        let mut command = limited(FSWORK);
        // The kernel of the guests may panic when it unmounts after it replayed journaled data.
        command.arg("--dir").arg(place).args(["--ops", "1000000", "--no-chattr-j", "--seed", &seed.to_string()]);
        let errors = file.try_clone().map_err(|error| error.to_string())?;
        let child = command.arg("--sync-log").arg(&log).stdin(Stdio::null()).stdout(file).stderr(errors).spawn();
        Ok(Self { child: child.map_err(|error| error.to_string())?, out, log })
    }

    fn wait_for_steps(&self) -> Result<(), String> {
        let until = Instant::now() + LIMIT;
        let wanted = format!("fswork: step {STEPS}\n");
        loop {
            let said = std::fs::read_to_string(&self.out).unwrap_or_default();
            if said.contains(&wanted) {
                return Ok(());
            }
            if said.contains("FAILED") || Instant::now() > until {
                return Err(format!("the workload is stuck or has failed: {said}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // It ends by itself once its mount is gone.
        let _gone = self.child.kill();
        if let Err(error) = self.child.wait() {
            eprintln!("{error}");
        }
    }
}

fn job() -> Job {
    Job::new("").memory_mib(384).limit(LIMIT)
}

/// Three of ours write and crash together; two kernels replay.
fn kernels_replay_ours(uml: &Uml, block_size: u32) -> Result<(), String> {
    let folder = Folder::new(&format!("ours-{block_size}"))?;
    let (dir, image) = (&folder.0, folder.0.join("image"));
    format(&programs().join("mkfs.gfs2r"), &image, block_size, 3)?;
    let mut ours = Nodes::new(dir, &programs(), &image, 3, 1000)?;
    ours.mount_all()?;
    let mut work = Vec::new();
    for node in 1..=3 {
        work.push(Work::start(&ours.mnt(node), node, 70 + u64::from(node) + u64::from(block_size), dir)?);
    }
    work.iter().try_for_each(Work::wait_for_steps)?;
    ours.kill_all();
    let logs: Vec<PathBuf> = work.iter().map(|work| work.log.clone()).collect();
    drop(work);
    // Ours replay the same crash on a copy: the kernels must come to the same tree.
    let copy = dir.join("copy");
    must(Command::new("cp").arg("--sparse=always").arg(&image).arg(&copy))?;

    let mut job = job();
    for (node, log) in (1..).zip(&logs) {
        job = job.file(format!("log{node}"), std::fs::read(log).map_err(|error| error.to_string())?);
    }
    let mut kernels = Kernels::boot(uml, &image, &[1, 2], &job)?;
    kernels.mount(1, "acl")?;
    let said = kernels.node(1)?.kernel_log();
    for jid in 0..3 {
        if !said.contains(&format!("jid={jid}: Replaying journal")) {
            return Err(format!("journal {jid} was not dirty, or the kernel did not replay it:\n{said}"));
        }
    }
    kernels.mount(2, "acl")?;
    let listing = format!("{} {} /mnt/gfs", guest_path(Path::new(TREELIST)), COLUMNS.join(" "));
    let trees = [kernels.node(1)?.run(&listing, LIMIT)?, kernels.node(2)?.run(&listing, LIMIT)?];
    same("two kernels see different trees", &trees[0], &trees[1])?;
    for node in 1..=3 {
        let check = format!("{} --dir /mnt/gfs/node{node} --check $OUT/log{node}", guest_path(Path::new(FSWORK)));
        let said = kernels.node(1 + node % 2)?.run(&check, LIMIT)?;
        println!("        node {node}: {}", said.trim());
    }
    kernels.umount(2)?;
    kernels.umount(1)?;
    let trouble = kernels.trouble();
    drop(kernels);
    if !trouble.is_empty() {
        return Err(format!("the kernels complain: {}", trouble.join("\n")));
    }

    let mut again = Nodes::new(&dir.join("again"), &programs(), &copy, 3, 1000)?;
    again.mount_all()?;
    same("ours come to another tree", &trees[0], &list(&again.mnt(2))?)?;
    again.umount_all()?;
    assert_clean(&copy, "after our replay")?;
    // What was open without a name stays, after a kernel's replay, until somebody deletes it: ours do at their next mount.
    let mut last = Nodes::new(&dir.join("last"), &programs(), &image, 3, 1000)?;
    last.mount_all()?;
    same("ours see another tree than the kernels", &trees[0], &list(&last.mnt(3))?)?;
    last.umount_all()?;
    assert_clean(&image, "after the kernels' replay and our mount")?;
    println!("        {} names agree", trees[0].lines().count());
    Ok(())
}

/// Two kernels write and crash together; three of ours replay.
fn ours_replay_kernels(uml: &Uml, block_size: u32) -> Result<(), String> {
    let folder = Folder::new(&format!("theirs-{block_size}"))?;
    let (dir, image) = (&folder.0, folder.0.join("image"));
    format(Path::new("mkfs.gfs2"), &image, block_size, 3)?;
    let mut kernels = Kernels::boot(uml, &image, &[1, 2], &job())?;
    for node in [1, 2] {
        kernels.mount(node, "acl")?;
    }
    for node in [1, 2] {
        let seed = 80 + u64::from(node) + u64::from(block_size);
        kernels.node(node)?.begin_run(&format!(
            "mkdir /mnt/gfs/node{node} && {} --dir /mnt/gfs/node{node} --ops 1000000 --seed {seed} --sync-log $OUT/log >$OUT/work 2>&1",
            guest_path(Path::new(FSWORK))
        ))?;
    }
    for node in [1, 2] {
        // The size of the log is what can be seen from here: it is synced line by line.
        let log = kernels.node(node)?.out().join("log");
        let until = Instant::now() + LIMIT;
        while std::fs::read_to_string(&log).map_or(0, |log| log.lines().count()) < STEPS as usize / 4 {
            if Instant::now() > until {
                return Err(format!("the workload of kernel {node} is stuck\n{}", kernels.node(node)?.kernel_log()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let trouble = kernels.trouble();
    if !trouble.is_empty() {
        return Err(format!("the kernels complain: {}", trouble.join("\n")));
    }
    let outcomes = kernels.kill_all();

    let mut ours = Nodes::new(dir, &programs(), &image, 3, 1000)?;
    ours.mount_all()?;
    let trees = [list(&ours.mnt(1))?, list(&ours.mnt(2))?, list(&ours.mnt(3))?];
    same("nodes 1 and 2 see different trees", &trees[0], &trees[1])?;
    same("nodes 1 and 3 see different trees", &trees[0], &trees[2])?;
    for (&node, outcome) in &outcomes {
        let place = ours.mnt(node + 1).join(format!("node{node}"));
        let said = must(limited(FSWORK).arg("--dir").arg(place).arg("--check").arg(outcome.out().join("log")))?;
        println!("        kernel {node}: {}", said.trim());
    }
    let replayed: usize = (1..=3).map(|node| ours.log(node).matches("replayed").count()).sum();
    println!("        {} names; replays told of: {replayed}", trees[0].lines().count());
    ours.umount_all()?;
    assert_clean(&image, "after our replay")
}

fn main() -> ExitCode {
    if let Some(end) = network::enter(WHAT) {
        return end;
    }
    if !Path::new("/dev/fuse").exists() {
        return network::skip(WHAT, "there is no /dev/fuse");
    }
    if !programs().join("mount.gfs2r").exists() {
        return network::skip(WHAT, "mount.gfs2r is not built (cargo build --workspace in this profile)");
    }
    let uml = match Uml::find() {
        Ok(uml) => uml,
        Err(why) => return network::skip(WHAT, &why),
    };
    type Check = fn(&Uml, u32) -> Result<(), String>;
    let checks: [(&str, Check); 2] = [
        ("two kernels replay three of ours", kernels_replay_ours),
        ("three of ours replay two kernels", ours_replay_kernels),
    ];
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let mut failed = 0;
    let sizes = std::env::var("BLOCK_SIZES").unwrap_or_else(|_| "4096,1024".into());
    for block_size in sizes.split(',').filter_map(|size| size.parse().ok()) {
        for (name, check) in checks {
            let name = format!("{name}, block size {block_size}");
            if !words.is_empty() && !words.iter().any(|word| name.contains(word.as_str())) {
                continue;
            }
            let begun = Instant::now();
            let result = check(&uml, block_size);
            let seconds = begun.elapsed().as_secs_f64();
            match result {
                Ok(()) => println!("ok      {name} ({seconds:.1} s)"),
                Err(error) => {
                    println!("FAILED  {name} ({seconds:.1} s)\n{error}");
                    failed += 1;
                }
            }
        }
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
