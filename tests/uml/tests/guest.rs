//! A guest boots, ends in every way it can, and leaves nothing behind.

use gfs2r_uml::{End, Guest, Job, Uml};
use std::path::{Path, PathBuf};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Whether any process of the group `group` is left that is more than a zombie.
fn group_exists(group: u32) -> bool {
    let ps = std::process::Command::new("ps").args(["-eo", "pgid=,stat="]).output().unwrap();
    let text = String::from_utf8(ps.stdout).unwrap();
    assert!(!text.is_empty());
    text.lines()
        .map(|line| line.trim().split_once(' ').unwrap())
        .any(|(pgid, stat)| pgid == group.to_string() && !stat.trim().starts_with('Z'))
}

fn job_dir(guest: &Guest) -> PathBuf {
    guest.out().parent().unwrap().to_path_buf()
}

#[test]
fn a_script_runs_and_its_status_and_files_come_back() {
    let Some(uml) = Uml::find_or_skip() else { return };
    let script = r#"
        cat "$OUT/in"; printf 'a\tb\r\nno newline'; echo "$WORD" >&2
        uname -r >"$OUT/release"; grep -c gfs2 /proc/filesystems >"$OUT/gfs2"
        touch /etc/written 2>/dev/null && echo 'the host is writable'
        touch "$HOST/etc/written" 2>/dev/null && echo 'the host is writable'
        exit 7
    "#;
    let outcome = uml.run(&Job::new(script).file("in", "hello\n").variable("WORD", "it's me")).unwrap();
    assert_eq!(outcome.end, End::Script(7), "{}", outcome.report());
    assert_eq!(outcome.console, "hello\na\tb\r\nno newlineit's me\n");
    assert!(outcome.read("release").unwrap().starts_with("6."));
    assert_eq!(outcome.read("gfs2").unwrap(), "2\n");
    assert!(outcome.kernel.contains("GFS2 installed"), "{}", outcome.report());
    assert!(outcome.trouble().is_empty(), "{:?}", outcome.trouble());
    assert!(!Path::new("/etc/written").exists());
    let dir = outcome.out().parent().unwrap().to_path_buf();
    drop(outcome);
    assert!(!dir.exists());
}

#[test]
fn a_panic_of_the_kernel_is_told() {
    let Some(uml) = Uml::find_or_skip() else { return };
    let outcome = uml.run(&Job::new("echo before; echo c >/proc/sysrq-trigger; echo after").limit(LONG)).unwrap();
    assert_eq!(outcome.end, End::Died, "{}", outcome.report());
    assert!(outcome.panicked() && !outcome.trouble().is_empty(), "{}", outcome.report());
    assert_eq!(outcome.console, "before\n");
}

#[test]
fn a_missing_module_fails_the_job() {
    let Some(uml) = Uml::find_or_skip() else { return };
    let outcome = uml.run(&Job::new("true").module("no_such_module")).unwrap();
    assert_eq!(outcome.end, End::Script(125), "{}", outcome.report());
}

#[test]
fn the_time_limit_ends_a_guest() {
    let Some(uml) = Uml::find_or_skip() else { return };
    let guest = uml.spawn(&Job::new("echo started; while :; do :; done").limit(Duration::from_secs(5))).unwrap();
    let (group, dir) = (guest.process_group(), job_dir(&guest));
    let outcome = guest.wait();
    assert_eq!(outcome.end, End::TimedOut);
    assert_eq!(outcome.console, "started\n");
    assert!(!group_exists(group));
    drop(outcome);
    assert!(!dir.exists());
}

#[test]
fn a_killed_guest_is_gone() {
    let Some(uml) = Uml::find_or_skip() else { return };
    // Background processes of the guest are processes of the host: all of them must go.
    let guest = uml.spawn(&Job::new("sleep 1000 & sleep 1001 & echo marker 1; sleep 1002").limit(LONG)).unwrap();
    assert_eq!(guest.wait_for_line("marker", LONG).unwrap(), "marker 1");
    let group = guest.process_group();
    assert!(group_exists(group));
    let outcome = guest.kill();
    assert_eq!(outcome.end, End::Killed);
    assert!(!group_exists(group));
}

#[test]
fn a_guest_dies_with_its_handle() {
    let Some(uml) = Uml::find_or_skip() else { return };
    let guest = uml.spawn(&Job::new("echo marker; sleep 1000").limit(LONG)).unwrap();
    guest.wait_for_line("marker", LONG).unwrap();
    let (group, dir) = (guest.process_group(), job_dir(&guest));
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _guest = guest;
        std::panic::panic_any("as a failing test");
    }));
    assert!(panic.is_err());
    assert!(!group_exists(group) && !dir.exists());
}

#[test]
fn a_guest_that_ends_breaks_the_wait_for_a_line() {
    let Some(uml) = Uml::find_or_skip() else { return };
    let guest = uml.spawn(&Job::new("echo other").limit(LONG)).unwrap();
    let error = guest.wait_for_line("marker", LONG).unwrap_err();
    assert!(error.contains("other"), "{error}");
    assert_eq!(guest.wait().end, End::Script(0));
}

/// The guest must not outlive a test program that dies without unwinding. Run by the test below as a program of its own.
#[test]
#[ignore = "only a part of the_guest_dies_with_the_test_program"]
fn starts_a_guest_and_aborts() {
    let uml = Uml::find().unwrap();
    let guest = uml.spawn(&Job::new("echo marker; sleep 1000").limit(LONG)).unwrap();
    guest.wait_for_line("marker", LONG).unwrap();
    std::fs::write(
        std::env::var("GROUP_FILE").unwrap(),
        format!("{} {}", guest.process_group(), job_dir(&guest).display()),
    )
    .unwrap();
    std::process::abort();
}

#[test]
fn the_guest_dies_with_the_test_program() {
    if Uml::find_or_skip().is_none() {
        return;
    }
    let file = std::env::temp_dir().join(format!("gfs2r-uml-group-{}", std::process::id()));
    let status = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "starts_a_guest_and_aborts"])
        .env("GROUP_FILE", &file)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success());
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    let (group, dir) = text.split_once(' ').unwrap();
    // Nobody cleans up after an aborted program.
    std::fs::remove_dir_all(dir).unwrap();
    let group = group.parse().unwrap();
    for _ in 0..200 {
        if !group_exists(group) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("processes of group {group} are left");
}
