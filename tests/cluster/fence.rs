//! The fence agent of the lab: kills the node's daemon, waits until it is gone, and writes down when.

use crate::history::now;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Duration;

/// Killed nodes are told here: node and time, a line each.
const BOOK: &str = "fenced";

/// Reads `node=N` from stdin, as agents do.
pub fn run(lab: &Path) -> io::Result<()> {
    let mut options = String::new();
    io::stdin().read_to_string(&mut options)?;
    let node = options.lines().find_map(|l| l.strip_prefix("node=")).ok_or_else(|| io::Error::other("no node="))?;
    let before = now();
    for pid in daemons(&lab.join(format!("node{node}/run"))) {
        let Some(process) = Pid::from_raw(pid) else { continue };
        if !alive(pid) {
            continue;
        }
        let line = format!("{node} {before}\n");
        File::options().create(true).append(true).open(lab.join(BOOK))?.write_all(line.as_bytes())?;
        // It may have ended by itself.
        let _gone = kill_process(process, Signal::KILL);
        while alive(pid) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(())
}

/// Who was killed, and when.
pub fn book(lab: &Path) -> Vec<(u32, u64)> {
    let text = fs::read_to_string(lab.join(BOOK)).unwrap_or_default();
    text.lines()
        .filter_map(|l| l.split_once(' '))
        .filter_map(|(n, t)| Some((n.parse().ok()?, t.parse().ok()?)))
        .collect()
}

/// The daemons of a runtime folder.
pub fn daemons(run: &Path) -> Vec<i32> {
    let entries = fs::read_dir(run).into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|e| fs::read_to_string(e.path().join("pid")).ok()?.trim().parse().ok()).collect()
}

/// Neither gone nor a zombie.
pub fn alive(pid: i32) -> bool {
    if Pid::from_raw(pid).is_none_or(|p| test_kill_process(p).is_err()) {
        return false;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}
