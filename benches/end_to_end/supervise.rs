//! The one that tidies up, whatever happens to the one that measures.

use super::Args;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io::{self, BufRead};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Why nothing can be measured here.
pub(crate) fn impossible(bin_dir: &Path) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("mounting needs root".into());
    }
    if !Path::new("/dev/fuse").exists() {
        return Some("/dev/fuse is missing (modprobe fuse)".into());
    }
    for program in ["mkfs.gfs2r", "mount.gfs2r", "umount.gfs2r"] {
        if !bin_dir.join(program).exists() {
            return Some(format!("{program} is not in {} (make release)", bin_dir.display()));
        }
    }
    None
}

/// Runs the measuring child in a folder and a process group of its own, and removes everything afterwards.
pub(crate) fn run(args: &Args) -> Result<(), String> {
    let base = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let dir = base.join(format!("gfs2r-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(|e| e.to_string())?;
    }
    let run_dir = dir.join("run");
    let child = std::env::current_exe().and_then(|exe| {
        Command::new(exe)
            .args(std::env::args_os().skip(1))
            .arg("--child")
            .env("GFS2R_BENCH_DIR", &dir)
            .env("GFS2R_RUN_DIR", &run_dir)
            .env("TMPDIR", &dir)
            .process_group(0)
            .spawn()
    });
    let result = match child {
        Ok(mut child) => {
            let result = watch(&mut child, &stop, Duration::from_secs(args.limit));
            if result.is_err() {
                end(&mut child, &run_dir);
            }
            result
        }
        Err(e) => Err(format!("cannot start: {e}")),
    };
    tidy(&dir)?;
    result
}

fn watch(child: &mut Child, stop: &AtomicBool, limit: Duration) -> Result<(), String> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => return Err(format!("the measuring process ended with {status}")),
            Ok(None) => {}
            Err(e) => return Err(e.to_string()),
        }
        if stop.load(Ordering::Relaxed) {
            return Err("interrupted".into());
        }
        if start.elapsed() > limit {
            return Err(format!("not done after {} s", limit.as_secs()));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Kills what we started: first the daemons, so that whoever waits for one of them wakes.
fn end(child: &mut Child, run_dir: &Path) {
    for entry in std::fs::read_dir(run_dir).into_iter().flatten().flatten() {
        let pid = std::fs::read_to_string(entry.path().join("pid")).unwrap_or_default();
        if let Some(pid) = pid.trim().parse().ok().and_then(Pid::from_raw) {
            // It may have ended by itself.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    if let Ok(pid) = i32::try_from(child.id()) {
        // The same here.
        if let Some(pid) = Pid::from_raw(pid) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
    drop(child.wait());
}

/// Unmounts what is below a folder, lets go of the loop devices of its images, removes it.
fn tidy(dir: &Path) -> Result<(), String> {
    let say = |e: io::Error| format!("{} is left behind: {e}", dir.display());
    let dir = dir.canonicalize().map_err(say)?;
    for mount in mounts_below(&dir).map_err(say)?.iter().rev() {
        if let Err(e) = rustix::mount::unmount(mount, rustix::mount::UnmountFlags::DETACH) {
            eprintln!("end_to_end: {} is left mounted: {e}", mount.display());
        }
    }
    for entry in std::fs::read_dir("/sys/block").map_err(say)?.flatten() {
        let backing = std::fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
        if Path::new(backing.trim_end()).starts_with(&dir) {
            if let Err(e) = super::targets::detach(&Path::new("/dev").join(entry.file_name())) {
                eprintln!("end_to_end: {e}");
            }
        }
    }
    std::fs::remove_dir_all(&dir).map_err(say)
}

fn mounts_below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let table = io::BufReader::new(std::fs::File::open("/proc/self/mountinfo")?);
    let mut found = Vec::new();
    for line in table.lines() {
        let line = line?;
        let place = PathBuf::from(line.split(' ').nth(4).unwrap_or_default());
        if place.starts_with(dir) {
            found.push(place);
        }
    }
    Ok(found)
}
