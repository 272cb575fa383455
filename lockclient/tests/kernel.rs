//! A living kernel in one lockspace with nodes of ours, over a real network: Debian's User-Mode Linux in a guest, our
//! nodes in this process, a bridge between them in a network namespace of its own. Nobody but this test tells either side
//! who is a member (`lab.rs`), so that every order of joins, departures and deaths can be had.
//!
//! `cargo test --release --test kernel -- [WORD]` runs the checks whose names contain a word. Without a kernel (or
//! without the right to make a namespace) it says `SKIPPED` and why; with `GFS2R_UML_REQUIRED=1` that is a failure.
//!
//! Nothing is left behind, whatever happens: guests die with this process, the namespace and all that is in it with its
//! last process.

#[path = "kernel/changes.rs"]
mod changes;
#[path = "kernel/deaths.rs"]
mod deaths;
#[path = "kernel/lab.rs"]
mod lab;
#[path = "kernel/locks.rs"]
mod locks;
#[path = "kernel/members.rs"]
mod members;
#[path = "kernel/ours.rs"]
mod ours;
#[path = "kernel/queues.rs"]
mod queues;
#[path = "kernel/races.rs"]
mod races;
#[path = "kernel/values.rs"]
mod values;

use gfs2r_uml::Uml;
use lab::Lab;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// In the environment of the process that runs in the namespace.
const INSIDE: &str = "LOCKCLIENT_KERNEL_TEST";

/// The network: the nodes of ours have their addresses on the bridge, guests have a tap each.
const NETWORK: &str = r#"
set -e
PATH=$PATH:/usr/sbin:/sbin
ip link set lo up
ip link add br0 type bridge forward_delay 0
for node in 2 3; do ip addr add 10.98.76.$node/24 dev br0; done
for tap in tap1 tap9; do ip tuntap add dev $tap mode tap; ip link set $tap master br0 up; done
ip link set br0 up
exec "$@"
"#;

/// Says why there is nothing to be tested; a failure if there must be.
fn skip(reason: &str) -> ExitCode {
    eprintln!("SKIPPED: the tests against a kernel's lock manager: {reason}");
    let required = std::env::var_os("GFS2R_UML_REQUIRED").is_some_and(|value| value == "1");
    if required { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Becomes this program again, in a network namespace.
fn enter(arguments: &[String]) -> ExitCode {
    let Ok(program) = std::env::current_exe() else { return skip("this program does not know its own path") };
    let namespace = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--net"]).args(words).env(INSIDE, "1");
        command
    };
    // Whoever is not root may make a namespace with a namespace of users around it, on most systems.
    for words in [&[][..], &["--map-root-user"][..]] {
        let probe = namespace(words).args(["sh", "-c", NETWORK, "network", "true"]).output();
        if probe.is_ok_and(|output| output.status.success()) {
            let error = namespace(words).args(["sh", "-c", NETWORK, "network"]).arg(&program).args(arguments).exec();
            return skip(&format!("unshare: {error}"));
        }
    }
    let probe = namespace(&[]).args(["sh", "-c", NETWORK, "network", "true"]).output();
    let why = probe.map_or_else(|error| error.to_string(), |o| String::from_utf8_lossy(&o.stderr).trim().to_string());
    skip(&format!("no network namespace with bridge and tap: {}", why.lines().last().unwrap_or("no reason given")))
}

type Check = fn(&mut Lab) -> Result<(), String>;

/// Runs checks and keeps count.
struct Runner {
    words: Vec<String>,
    done: u32,
    failed: Vec<String>,
}

impl Runner {
    /// `name` is what is promised. False when the check failed.
    fn check(&mut self, lab: &mut Lab, name: &str, check: Check) -> bool {
        if !self.words.is_empty() && !self.words.iter().any(|word| name.contains(word.as_str())) {
            return true;
        }
        self.must(lab, name, check)
    }

    /// As above, whatever was asked for: what comes later builds on it.
    fn must(&mut self, lab: &mut Lab, name: &str, check: Check) -> bool {
        let begun = Instant::now();
        let result = check(lab).and_then(|()| lab.quiet());
        let (stage, time) = (lab.stage, begun.elapsed().as_secs_f64());
        self.done += 1;
        match &result {
            Ok(()) => println!("ok      {stage}: {name} ({time:.1} s)"),
            Err(error) => {
                println!("FAILED  {stage}: {name} ({time:.1} s)\n        {error}");
                lab.report();
                self.failed.push(format!("{stage}: {name}"));
            }
        }
        result.is_ok()
    }
}

/// What is checked while a kernel and a node of ours are members.
const TOGETHER: &[(&str, Check)] = &[
    ("all 36 pairs of modes: granted, refused, waiting", locks::pairs),
    ("all 36 conversions alone, and what becomes of the value", locks::conversions),
    ("every conversion that must wait: refused, notice, down, granted", locks::conversions_that_wait),
    ("first come, first served", queues::order),
    ("NOORDER, EXPEDITE, HEADQUE, QUECVT", queues::exceptions),
    ("NOQUEUE with and without notices", queues::refusals_with_notices),
    ("ALTPR and ALTCW", queues::alternatives),
    ("conversion deadlock: EDEADLK, CONVDEADLK, NODLCKWT", queues::deadlocks),
    ("cancel and forced unlock, waiting and converting", queues::cancels),
    ("cancel and forced unlock that cross the answer", races::crossing_cancels),
    ("values written at unlock, invalidated, written anew", values::validity),
    ("both look up the same new resources at once", races::lookups),
    ("a counter handed around under EX", races::counter),
    ("the same while connections break", races::breaking_connections),
    ("idle resources are forgotten and found again", races::idle),
    ("random requests, conversions, cancels, unlocks", races::random),
    ("calls made while the lockspace is stopped", changes::calls_while_stopped),
];

fn kernel_is_low(run: &mut Runner, uml: &Uml) -> Result<(), String> {
    let mut lab = Lab::start("kernel 1, ours 2 and 3", uml, 1)?;
    if !run.must(&mut lab, "the kernel first, then ours", changes::kernel_first) {
        return Ok(());
    }
    for (name, check) in TOGETHER {
        run.check(&mut lab, name, *check);
    }
    let changes: &[(&str, Check)] = &[
        ("ours leaves with its locks, and comes back", changes::ours_leaves),
        ("the kernel leaves with its locks, and comes back to ours", changes::kernel_leaves),
        ("ours dies, the kernel goes on, ours comes back", deaths::ours_dies),
        ("a third node joins; locks among three", deaths::three),
        ("one of ours dies, kernel and ours go on", deaths::one_of_ours_dies),
        ("one of ours dies during recovery", deaths::one_dies_in_recovery),
        ("the kernel dies, both of ours go on", deaths::kernel_dies),
    ];
    changes.iter().all(|(name, check)| run.must(&mut lab, name, *check));
    Ok(())
}

fn kernel_is_high(run: &mut Runner, uml: &Uml) -> Result<(), String> {
    let mut lab = Lab::start("ours 2, kernel 9", uml, 9)?;
    if !run.must(&mut lab, "ours first, then the kernel", changes::ours_first) {
        return Ok(());
    }
    for (name, check) in TOGETHER {
        run.check(&mut lab, name, *check);
    }
    let changes: &[(&str, Check)] = &[
        ("ours leaves with its locks, and comes back", changes::ours_leaves),
        ("the kernel leaves with its locks, and comes back to ours", changes::kernel_leaves),
        ("ours dies, the kernel goes on, ours comes back", deaths::ours_dies),
        ("the kernel dies, ours goes on", deaths::kernel_dies),
    ];
    changes.iter().all(|(name, check)| run.must(&mut lab, name, *check));
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        return ExitCode::SUCCESS;
    }
    let uml = match Uml::find() {
        Ok(uml) => uml,
        Err(reason) => return skip(&reason),
    };
    if std::env::var_os(INSIDE).is_none() {
        return enter(&arguments);
    }
    let words = arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect();
    let mut run = Runner { words, done: 0, failed: Vec::new() };
    for stage in [kernel_is_low, kernel_is_high] {
        if let Err(error) = stage(&mut run, &uml) {
            println!("FAILED  {error}");
            run.failed.push("a guest".into());
        }
    }
    println!("\nlockclient and the kernel: {} checks, {} failed", run.done, run.failed.len());
    run.failed.iter().for_each(|name| println!("    {name}"));
    if run.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
