//! Whatever touches a mount does it in a process of its own, which can be given up: this test binary, started again.

use crate::worker::{self, Spec};
use crate::{disk, fence, serve, view};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Says what the process shall do.
pub const JOB: &str = "GFS2R_CLUSTER_JOB";

#[derive(Serialize, Deserialize, Clone, Debug)]
pub enum Job {
    /// Makes the tree of a round, after removing an older one.
    SetUp {
        root: PathBuf,
        older: Option<PathBuf>,
    },
    Work(Spec),
    LastLook(Spec),
    View {
        root: PathBuf,
        out: PathBuf,
    },
    /// Serves one mount for each directory, with the locks passed in this process.
    Serve {
        image: PathBuf,
        mounts: Vec<PathBuf>,
    },
    /// As `mount.gfs2r` with these arguments, on a disk whose mood the folder's owner decides.
    Mount {
        arguments: Vec<String>,
        folder: PathBuf,
    },
    /// Fails if a file can be read past the kernel's caches.
    Refused {
        root: PathBuf,
    },
    /// What the cluster calls to be sure that a node is dead.
    Fence {
        lab: PathBuf,
    },
}

/// Does what this process was started for.
pub fn run(job: &Job) -> io::Result<()> {
    match job {
        Job::SetUp { root, older } => {
            if let Some(older) = older {
                fs::remove_dir_all(older)?;
            }
            worker::set_up(root)
        }
        Job::Work(spec) => worker::run(spec),
        Job::LastLook(spec) => worker::last_look(spec),
        Job::View { root, out } => view::write(root, out),
        Job::Serve { image, mounts } => serve::run(image, mounts),
        Job::Mount { arguments, folder } => disk::mount(arguments.iter().map(Into::into).collect(), folder),
        Job::Refused { root } => worker::refused(root),
        Job::Fence { lab } => fence::run(lab),
    }
}

/// A started process, alone in its group; killed when dropped.
pub struct Started {
    pub child: Child,
    pub what: String,
}

impl Started {
    pub fn job(job: &Job, what: String, output: &Path) -> io::Result<Self> {
        let out = File::options().create(true).append(true).open(output)?;
        let child = Self::command(job)?.stdout(out.try_clone()?).stderr(out).process_group(0).spawn()?;
        Ok(Self { child, what })
    }

    /// This binary, to do a job.
    pub fn command(job: &Job) -> io::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        Self::tell(&mut command, job)?;
        Ok(command)
    }

    /// Makes a command that starts this binary do a job.
    pub fn tell(command: &mut Command, job: &Job) -> io::Result<()> {
        command.args(["child", "--exact", "--nocapture", "--test-threads", "1"]);
        command.env(JOB, serde_json::to_string(job)?).stdin(Stdio::null());
        Ok(())
    }

    /// None: it is still running then.
    pub fn wait(&mut self, until: Instant) -> io::Result<Option<ExitStatus>> {
        loop {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() >= until {
                return Ok(ended);
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    pub fn kill(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            if let Some(group) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
                // It may have ended by itself in this moment.
                let _gone = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
        }
    }

    /// Where it hangs: of each of its threads, the kernel's stack.
    pub fn stack(&self) -> String {
        stack_of(self.child.id())
    }
}

/// Where each thread of a process and of its children waits, in the kernel; those that wait alike in one line.
pub fn stack_of(pid: u32) -> String {
    let mut alike: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut text = String::new();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().filter_map(Result::ok);
    for task in tasks {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let stack = read("stack");
        let frames = stack.lines().filter_map(|l| l.split(' ').nth(1)?.split('+').next());
        let frames: Vec<&str> = frames.take_while(|f| !f.contains("do_syscall") && !f.contains("entry_")).collect();
        let state = read("stat").rsplit_once(") ").map(|(_, s)| s.chars().take(1).collect::<String>());
        let key = format!("{} {}", state.unwrap_or_default(), frames.join(" < "));
        alike.entry(key).or_default().push(read("comm").trim().to_owned());
        for child in read("children").split_whitespace().filter_map(|c| c.parse().ok()) {
            text += &stack_of(child);
        }
    }
    let lines = alike.into_iter().map(|(stack, names)| format!("    {pid} {}: {stack}\n", names.join(" ")));
    lines.collect::<String>() + &text
}

impl Drop for Started {
    fn drop(&mut self) {
        self.kill();
        // A process in an uninterruptible wait is not waited for: its mount is removed next.
        let until = Instant::now() + Duration::from_secs(2);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(3));
        }
    }
}
