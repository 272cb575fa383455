//! Three real processes in three network namespaces, joined by a bridge: killed, stopped, cut off, deafened, restarted,
//! while they take locks from one another as fast as they can. An observer outside, in this process, hears of every
//! grant before it is acted on and of every release before it is done, with the time of day of the whole machine, and
//! checks afterwards that no two nodes ever held what excludes one another. Whoever was killed, stopped or cut off holds
//! its locks until the observer itself has said that it is fenced (`observer.rs`).
//!
//! `cargo test --release --test nodes -- [WORD]` runs the cases whose names contain a word. Without the right to make
//! namespaces it says `SKIPPED` and why; with `GFS2R_NAMESPACES_REQUIRED=1` that is a failure.
//!
//! Nothing is left behind, whatever happens: all of it runs in a namespace of processes, which ends with its first
//! process, and takes the network with it. The times of the cases are the token (a second) and bounds several times
//! longer than what happens on an idle machine; the short ones are printed, not demanded.

#[path = "nodes/cases.rs"]
mod cases;
#[path = "nodes/fence.rs"]
mod fence;
#[path = "nodes/lab.rs"]
mod lab;
#[path = "nodes/node.rs"]
mod node;
#[path = "nodes/observer.rs"]
mod observer;

use lab::Lab;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::Instant;

/// In the environment of the process that runs in the namespaces.
const INSIDE: &str = "LOCKCLIENT_NODES_TEST";

/// What must be possible in the namespaces.
const PROBE: &str = r#"
set -e
PATH=$PATH:/usr/sbin:/sbin
ip link set lo up
ip link add probe0 type bridge forward_delay 0
ip link add probe1 type veth peer name probe2
ip link set probe1 master probe0 up
ip link del probe1
ip link del probe0
exec "$@"
"#;

/// Says why there is nothing to be tested; a failure if there must be.
fn skip(reason: &str) -> ExitCode {
    eprintln!("SKIPPED: the tests of several processes in namespaces: {reason}");
    let required = std::env::var_os("GFS2R_NAMESPACES_REQUIRED").is_some_and(|value| value == "1");
    if required { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Becomes this program again, the first process of a namespace of its own.
fn enter(arguments: &[String]) -> ExitCode {
    let Ok(program) = std::env::current_exe() else { return skip("this program does not know its own path") };
    let namespace = |words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["--net", "--pid", "--fork", "--kill-child"]).args(words).env(INSIDE, "1");
        command.args(["sh", "-c", PROBE, "lab"]);
        command
    };
    // Whoever is not root may make a namespace with a namespace of users around it, on most systems.
    for words in [&[][..], &["--map-root-user"][..]] {
        if namespace(words).arg("true").output().is_ok_and(|output| output.status.success()) {
            let error = namespace(words).arg(&program).args(arguments).exec();
            return skip(&format!("unshare: {error}"));
        }
    }
    let probe = namespace(&[]).arg("true").output();
    let why = probe.map_or_else(|error| error.to_string(), |o| String::from_utf8_lossy(&o.stderr).trim().to_string());
    skip(&format!("no namespaces with bridge and veth: {}", why.lines().last().unwrap_or("no reason given")))
}

fn run_case(number: usize, name: &str, case: cases::Case) -> bool {
    let begun = Instant::now();
    let mut lab = match Lab::new(number) {
        Ok(lab) => lab,
        Err(error) => {
            println!("FAILED  {name}: {error}");
            return false;
        }
    };
    let outcome = case(&mut lab);
    let numbers = lab.log.numbers();
    let time = begun.elapsed().as_secs_f64();
    match &outcome {
        Ok(()) => println!("ok      {name} ({time:.1} s, {numbers}{})", lab.remarks()),
        Err(error) => println!("FAILED  {name} ({time:.1} s, {numbers})\n        {error}\n{}", lab.log.tail(40)),
    }
    outcome.is_ok()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("--list") => return ExitCode::SUCCESS,
        Some(node::ROLE) => return node::main(&arguments[1..]),
        Some(fence::ROLE) => return fence::agent(&arguments[1..]),
        _ => {}
    }
    if std::env::var_os(INSIDE).is_none() {
        return enter(&arguments);
    }
    let words: Vec<String> = arguments.into_iter().filter(|argument| !argument.starts_with('-')).collect();
    let (mut done, mut failed) = (0, Vec::new());
    let wanted = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    for (number, (name, case)) in cases::CASES.iter().enumerate().filter(|(_, (name, _))| wanted(name)) {
        done += 1;
        if !run_case(number, name, *case) {
            failed.push(*name);
        }
    }
    println!("\nseveral processes: {done} cases, {} failed", failed.len());
    failed.iter().for_each(|name| println!("    {name}"));
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
