//! Several nodes, one disk: daemons on a network of this machine, processes on all of them that do everything at once, a
//! history of every operation, faults all along; afterwards it is checked that the answers were those of one filesystem, that
//! nothing fsynced was lost, that all nodes see the same, and that the disk is clean.
//!
//! `SECONDS` is how long the faults last (`make cluster SECONDS=3600`), `SEED` repeats a run as far as scheduling lets it,
//! `NODES` is how many nodes there are, `FAULTS=Kill,Cut` chooses, `KEEP=1` leaves the files of a failed run, `ONLY_FLOCK=1` uses
//! flock(2) in the place of fcntl(2).
//! Needs root, /dev/fuse, mkfs.gfs2, ip, nsenter and python3, and says so loudly where it cannot run.

#![allow(unreachable_pub, reason = "the modules of one test")]

#[path = "cluster/checker.rs"]
mod checker;
#[path = "cluster/disk.rs"]
mod disk;
#[path = "cluster/fence.rs"]
mod fence;
#[path = "cluster/grow.rs"]
mod grow;
#[path = "coherence/hall.rs"]
mod hall;
#[path = "cluster/history.rs"]
mod history;
#[path = "cluster/job.rs"]
mod job;
#[path = "cluster/lab.rs"]
mod lab;
#[path = "cluster/net.rs"]
mod net;
#[path = "cluster/round.rs"]
mod round;
#[path = "cluster/serve.rs"]
mod serve;
#[path = "cluster/view.rs"]
mod view;
#[path = "cluster/worker.rs"]
mod worker;

use lab::Lab;
use round::{FAULTS, Fault, Plan};
use std::time::{Duration, Instant};

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(otherwise)
}

fn seed() -> u64 {
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_nanos();
    let seed = number("SEED", clock as u64 & 0xffff_ffff);
    println!("SEED={seed}");
    seed
}

/// Not a test: what this binary does when a test starts it again (see `job`).
#[test]
fn child() {
    let Ok(text) = std::env::var(job::JOB) else { return };
    let job: job::Job = serde_json::from_str(&text).expect("a job");
    if let Err(e) = job::run(&job) {
        eprintln!("{e}");
        std::process::exit(1);
    }
    std::process::exit(0);
}

/// The workers and the checker on a filesystem that is known to be right: all nodes share a directory of this machine.
#[test]
fn on_a_plain_directory() {
    if let Some(missing) = lab::lacks().filter(|m| *m != "/dev/fuse") {
        eprintln!("SKIPPED: it needs {missing}. NOTHING WAS TESTED.");
        return;
    }
    let mut lab = Lab::plain(3).expect("a lab");
    let seed = seed();
    for n in 0..2 {
        let length = Duration::from_secs(number("SECONDS", 3).min(20));
        let plan = Plan { number: n, seed: seed ^ u64::from(n), length, most: 20_000, faults: &[], power_loss: false };
        finish(&mut lab, |lab| round::run(lab, plan));
    }
}

/// One mount without a cluster: what was fsynced survives every kill.
#[test]
fn on_one_node() {
    series(Lab::alone, number("SECONDS", 16), &[Fault::Kill, Fault::Pause, Fault::Leave]);
}

/// Several nodes in one process.
#[test]
fn in_one_hall() {
    series(|| Lab::hall(3), number("SECONDS", 12), &[]);
}

#[test]
fn without_faults() {
    series(cluster, number("SECONDS", 120) / 10, &[]);
}

/// Every fault there is: disks that are slow or fail, networks that work one way, and the rest. Not in `make test` yet: it
/// still finds things (see the README).
#[test]
#[ignore = "make cluster"]
fn with_all_faults() {
    series(moody, number("SECONDS", 150), &FAULTS);
}

#[test]
fn with_faults() {
    series(cluster, number("SECONDS", 25), &[Fault::Kill, Fault::Pause, Fault::Cut, Fault::Leave, Fault::Freeze]);
}

/// The volume becomes larger and gets a journal while all nodes work.
#[test]
fn while_it_grows() {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(missing) = lab::lacks() {
        eprintln!("SKIPPED: it needs {missing}. NOTHING WAS TESTED.");
        return;
    }
    let plan = Plan {
        number: 0,
        seed: seed(),
        length: Duration::from_secs(number("SECONDS", 12).clamp(6, 60)),
        most: u64::MAX,
        faults: &[],
        power_loss: false,
    };
    finish(&mut cluster().expect("a lab"), |lab| {
        let everyone: Vec<usize> = (0..lab.nodes.len()).collect();
        match lab.mount(&everyone) {
            Ok(()) => grow::run(lab, plan),
            Err(e) => vec![e],
        }
    });
}

/// `scripts/programs-cluster`, the short form.
#[test]
#[ignore = "make programs, make cluster"]
fn real_programs() {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let script = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/programs-cluster");
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_gfs2r")).with_file_name("");
    let out = std::process::Command::new(script).env("SHORT", "1").env("BIN", bin).output().expect("bash runs");
    print!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    // 77: this machine lacks something.
    assert!(matches!(out.status.code(), Some(0 | 77)), "{}", out.status);
}

fn moody() -> std::io::Result<Lab> {
    Lab::moody(nodes())
}

fn cluster() -> std::io::Result<Lab> {
    Lab::cluster(nodes())
}

fn nodes() -> u32 {
    u32::try_from(number("NODES", 3).clamp(1, 16)).expect("small")
}

/// One at a time: the machine is shared, and the token is a second.
static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Rounds of half a minute at most.
fn series(lab: fn() -> std::io::Result<Lab>, seconds: u64, faults: &[Fault]) {
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(missing) = lab::lacks() {
        eprintln!("SKIPPED: it needs {missing}. NOTHING WAS TESTED.");
        return;
    }
    let chosen = std::env::var("FAULTS").ok();
    let wanted = |f: &Fault| chosen.as_ref().is_none_or(|c| c.split(',').any(|n| n == format!("{f:?}")));
    let faults: Vec<Fault> = faults.iter().copied().filter(wanted).collect();
    let seed = seed();
    let mut lab = lab().expect("a lab");
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut n = 0;
    while n == 0 || Instant::now() + Duration::from_secs(8) < end {
        let left = end.saturating_duration_since(Instant::now());
        let length = left.clamp(Duration::from_secs(8), Duration::from_secs(25));
        println!("round {n}: {length:?}");
        let power_loss = !faults.is_empty() && n % 2 == 0;
        let seed = seed ^ u64::from(n) << 20;
        let plan = Plan { number: n, seed, length, most: u64::MAX, faults: &faults, power_loss };
        finish(&mut lab, |lab| {
            let everyone: Vec<usize> = (0..lab.nodes.len()).collect();
            match lab.mount(&everyone) {
                Ok(()) => round::run(lab, plan),
                Err(e) => vec![e],
            }
        });
        n += 1;
    }
}

/// Panics if anything went wrong.
fn finish(lab: &mut Lab, run: impl FnOnce(&mut Lab) -> Vec<String>) {
    let wrong = run(lab);
    if !wrong.is_empty() {
        let kept = if number("KEEP", 0) == 1 { format!(" (files in {})", lab.keep().display()) } else { String::new() };
        panic!("{} things are wrong{kept}:\n{}", wrong.len(), wrong.join("\n"));
    }
}
