//! The program: options, what it prints, exit statuses.

mod common;

use common::plant::Plant;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn run(arguments: &[&str], device: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fsck-gfs2r"));
    command.args(arguments).args(device).output().expect("the program runs")
}

fn status(output: &Output) -> i32 {
    output.status.code().expect("not killed")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn saved(plant: &Plant) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    plant.device.save(file.path()).expect("save");
    file
}

#[test]
fn help_and_version() {
    for option in ["-h", "--help", "-V"] {
        let output = run(&[option], None);
        assert_eq!(status(&output), 0, "{option}");
        assert!(text(&output).contains("fsck.gfs2r"), "{option}: {}", text(&output));
    }
}

#[test]
fn usage_errors() {
    let nothing = tempfile::NamedTempFile::new().expect("temporary file");
    nothing.as_file().set_len(1 << 20).expect("set length");
    for (arguments, device) in [
        (&["--nonsense"][..], Some(nothing.path())),
        (&["-n"], None),
        (&["-n", "-y"], Some(nothing.path())),
        (&["-n", "-q", "-v"], Some(nothing.path())),
        (&["-n"], Some(Path::new("/nonexistent"))),
        (&["-n"], Some(Path::new("/"))),
        (&["-n"], Some(nothing.path())),
    ] {
        let output = run(arguments, device);
        assert_eq!(status(&output), 16, "{arguments:?} {device:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?} {device:?} says nothing");
    }
}

fn damaged() -> tempfile::NamedTempFile {
    let plant = Plant::new(&common::image("full.4096"));
    plant.dinode("/a/fifo", |di| di.nlink.set(7));
    plant.dinode("/a/hello", |di| di.goal_meta.set(3));
    saved(&plant)
}

fn answer(arguments: &[&str], device: &Path, answers: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fsck-gfs2r"));
    command.args(arguments).arg(device).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    child.stdin.take().expect("a pipe").write_all(answers.as_bytes()).expect("written");
    child.wait_with_output().expect("it ends")
}

#[test]
fn yes_repairs_everything() {
    let file = damaged();
    let output = run(&["-y"], Some(file.path()));
    assert_eq!(status(&output), 1, "{}", text(&output));
    assert!(text(&output).contains("2 faults repaired"), "{}", text(&output));
    assert_eq!(status(&run(&["-n"], Some(file.path()))), 0);
    assert_eq!(status(&run(&["-y"], Some(file.path()))), 0);
}

#[test]
fn every_finding_is_asked_about() {
    let file = damaged();
    let before = std::fs::read(file.path()).expect("read");
    let output = answer(&[], file.path(), "n\nn\n");
    assert_eq!(status(&output), 4, "{}", text(&output));
    assert!(text(&output).contains("Repair it? (y/n/a)"), "{}", text(&output));
    assert!(before == std::fs::read(file.path()).expect("read"), "something was written");
    // Nobody answers: no.
    assert_eq!(status(&answer(&[], file.path(), "")), 4);
    assert!(before == std::fs::read(file.path()).expect("read"), "something was written");
    assert_eq!(status(&answer(&[], file.path(), "what\nn\ny\n")), 4);
    let left = text(&run(&["-n"], Some(file.path())));
    assert!(left.ends_with("0 errors, 1 warnings, nothing was changed\n") || left.contains("1 errors"), "{left}");
    assert_eq!(status(&answer(&[], file.path(), "a\n")), 1);
    assert_eq!(status(&run(&["-n"], Some(file.path()))), 0);
}

#[test]
fn at_boot() {
    let file = damaged();
    let output = run(&["-a"], Some(file.path()));
    assert_eq!((status(&output), text(&output)), (0, format!("{}: clean.\n", file.path().display())));
    assert_eq!(status(&run(&["-p", "-f"], Some(file.path()))), 1);
    let dirty = saved(&Plant::new(&common::image("dirty.4096")));
    let output = run(&["-a"], Some(dirty.path()));
    assert!([0, 1].contains(&status(&output)), "{}", text(&output));
    assert!(text(&output).contains("1 journals replayed"), "{}", text(&output));
    // Of a cluster: not without being asked.
    let plant = Plant::new(&common::image("dirty.4096"));
    plant.superblock(|sb| sb.lockproto[..12].copy_from_slice(b"lock_dlm\0\0\0\0"));
    let shared = saved(&plant);
    let before = std::fs::read(shared.path()).expect("read");
    let output = run(&["-a"], Some(shared.path()));
    assert_eq!(status(&output), 4);
    assert!(String::from_utf8_lossy(&output.stderr).contains("belongs to a cluster"));
    assert!(before == std::fs::read(shared.path()).expect("read"), "something was written");
}

#[test]
fn what_was_overwritten_comes_back() {
    let file = damaged();
    let before = std::fs::read(file.path()).expect("read");
    let dir = tempfile::tempdir().expect("temporary directory");
    let undo = dir.path().join("undo");
    let path = undo.to_str().expect("UTF-8");
    assert_eq!(status(&run(&["-y", "--undo", path], Some(file.path()))), 1);
    assert!(before != std::fs::read(file.path()).expect("read"));
    // The file must be new.
    assert_eq!(status(&run(&["-y", "--undo", path], Some(file.path()))), 16);
    assert_eq!(status(&run(&["--put-back", path], Some(file.path()))), 0);
    assert!(before == std::fs::read(file.path()).expect("read"), "not as it was");
}

#[test]
fn a_volume_in_use_is_refused() {
    let file = damaged();
    let before = std::fs::read(file.path()).expect("read");
    let holder = gfs2r::device::FileDevice::open(file.path(), gfs2r::device::OpenMode::ReadWrite).expect("open");
    gfs2r::device::claim(&holder).expect("claimed");
    let output = run(&["-y"], Some(file.path()));
    assert_eq!(status(&output), 16);
    assert!(String::from_utf8_lossy(&output.stderr).contains("unmount it first"));
    assert_eq!(status(&run(&["-n"], Some(file.path()))), 4, "looking is allowed");
    assert!(before == std::fs::read(file.path()).expect("read"), "something was written");
}

#[test]
fn clean() {
    let file = saved(&Plant::new(&common::image("full.4096")));
    let output = run(&["-n"], Some(file.path()));
    assert_eq!((status(&output), text(&output)), (0, format!("{}: clean\n", file.path().display())));
    let output = run(&["-nq"], Some(file.path()));
    assert_eq!((status(&output), text(&output)), (0, String::new()));
    let output = text(&run(&["-nv"], Some(file.path())));
    assert!(output.contains("blocks-beyond-eof") && output.contains("block size 4096"), "{output}");
}

#[test]
fn errors() {
    let plant = Plant::new(&common::image("full.4096"));
    plant.dinode("/a/fifo", |di| di.nlink.set(7));
    plant.dinode("/a/hello", |di| di.goal_meta.set(3));
    let file = saved(&plant);
    let before = std::fs::read(file.path()).expect("read");
    let output = run(&["-n"], Some(file.path()));
    assert_eq!(status(&output), 4);
    let said = text(&output);
    assert!(said.contains("(/a/fifo): 7 links, 1 counted [inode-links]"), "{said}");
    assert!(said.ends_with("1 errors, 1 warnings, nothing was changed\n"), "{said}");
    assert_eq!(status(&run(&["-nq"], Some(file.path()))), 4);
    let output = run(&["-n", "--json"], Some(file.path()));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((json["clean"].as_bool(), json["complete"].as_bool()), (Some(false), Some(true)));
    let codes: Vec<_> = json["issues"].as_array().expect("a list").iter().filter_map(|i| i["code"].as_str()).collect();
    assert!(codes.contains(&"inode-links") && codes.contains(&"dinode-goal"), "{codes:?}");
    assert!(before == std::fs::read(file.path()).expect("read"), "something was written");
}

#[test]
fn a_check_that_stops_early() {
    let plant = Plant::new(&common::image("full.4096"));
    plant.rindex_entry(1, |e| e.bitbytes.set(1));
    let output = run(&["-n"], Some(saved(&plant).path()));
    assert_eq!(status(&output), 8);
    assert!(text(&output).contains("the check stopped early"), "{}", text(&output));
}

#[test]
fn a_dirty_journal() {
    let file = saved(&Plant::new(&common::image("dirty.4096")));
    let output = run(&["-n"], Some(file.path()));
    assert_eq!(status(&output), 0);
    assert!(text(&output).contains("journal 0 is dirty; checked as if replayed"), "{}", text(&output));
}

#[test]
fn memory_is_limited() {
    let healthy = saved(&common::agree::healthy("full.4096"));
    let output = run(&["-n", "--memory", "1M"], Some(healthy.path()));
    assert_eq!(status(&output), 8, "{}", text(&output));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("MiB of memory and may use 1 (see --memory)"), "{said}");
    // With the limit just below what the full check takes, what is healthy is still proven so; what is not is refused.
    let device = gfs2r::device::MemoryDevice::load(healthy.path()).expect("load");
    let options = gfs2r_fsck::Options { quick: false, memory: Some(0), ..gfs2r_fsck::Options::default() };
    let Err(gfs2r_fsck::CheckError::Memory { needed, .. }) = gfs2r_fsck::check(&device, &options) else {
        panic!("no memory at all is enough")
    };
    let (enough, less) = (needed.to_string(), (needed - 1).to_string());
    assert_eq!(status(&run(&["-n", "--memory", &less], Some(healthy.path()))), 0);
    let plant = Plant::new(&device);
    plant.dinode("/a/fifo", |di| di.nlink.set(7));
    let ill = saved(&plant);
    assert_eq!(status(&run(&["-n", "--memory", &less], Some(ill.path()))), 8);
    assert_eq!(status(&run(&["-n", "--memory", &enough], Some(ill.path()))), 4);
    assert_eq!(status(&run(&["-n", "--memory", "much"], Some(ill.path()))), 16);
}

/// Ctrl-C while a question is open: the answer still counts, the repair is not begun.
#[test]
fn an_interrupt_stops_between_steps() {
    use std::io::{BufReader, Read};
    let file = damaged();
    let before = std::fs::read(file.path()).expect("read");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fsck-gfs2r"));
    command.arg(file.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the program runs");
    let mut said = BufReader::new(child.stdout.take().expect("a pipe"));
    let (mut text, mut byte) = (String::new(), [0]);
    while !text.ends_with("(y/n/a) ") && said.read(&mut byte).expect("readable") == 1 {
        text.push(char::from(byte[0]));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill runs");
    assert!(sent.success(), "{text}");
    child.stdin.take().expect("a pipe").write_all(b"y\ny\ny\n").expect("written");
    let rest = std::io::read_to_string(&mut said).expect("readable");
    assert_eq!(child.wait().expect("it ends").code(), Some(32), "{text}{rest}");
    assert!(before == std::fs::read(file.path()).expect("read"), "something was written");
}
