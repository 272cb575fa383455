//! What a guest shall do, and what came of it.

use crate::jobdir::JobDir;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One disk image of a guest. The first one is `/dev/ubda`, the next `/dev/ubdb`, and so on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// The image: a regular file or a block device of the host.
    pub image: PathBuf,
    /// Several guests may have it at once; without this the image is locked for one.
    pub shared: bool,
    /// The guest cannot write to it.
    pub read_only: bool,
}

/// The description of one guest's life: boot, run a script, power off.
#[derive(Debug, Clone)]
pub struct Job {
    pub(crate) script: String,
    pub(crate) disks: Vec<Disk>,
    pub(crate) limit: Duration,
    pub(crate) memory_mib: u32,
    pub(crate) modules: Vec<String>,
    pub(crate) files: Vec<(String, Vec<u8>)>,
    pub(crate) variables: Vec<(String, String)>,
    pub(crate) kernel_args: Vec<String>,
}

impl Job {
    /// A job that runs `script` (bash) as root: 512 MiB of memory, a limit of 60 s, no disk, the module gfs2.
    ///
    /// The script decides about mounting and unmounting; its exit status is that of the job. What it leaves mounted is
    /// lost at power-off as in a crash, except that the guest runs `sync` first.
    pub fn new(script: impl Into<String>) -> Job {
        Job {
            script: script.into(),
            disks: Vec::new(),
            limit: Duration::from_secs(60),
            memory_mib: 512,
            modules: vec!["gfs2".into()],
            files: Vec::new(),
            variables: Vec::new(),
            kernel_args: Vec::new(),
        }
    }

    /// Replaces the script.
    pub fn script(mut self, script: impl Into<String>) -> Job {
        self.script = script.into();
        self
    }

    /// Adds a disk that this guest alone may have. At most 16 disks.
    pub fn disk(self, image: impl Into<PathBuf>) -> Job {
        self.add(image.into(), false, false)
    }

    /// Adds a disk that several guests may have at once.
    pub fn shared_disk(self, image: impl Into<PathBuf>) -> Job {
        self.add(image.into(), true, false)
    }

    /// Adds a disk that the guest cannot write to.
    pub fn read_only_disk(self, image: impl Into<PathBuf>) -> Job {
        self.add(image.into(), true, true)
    }

    fn add(mut self, image: PathBuf, shared: bool, read_only: bool) -> Job {
        self.disks.push(Disk { image, shared, read_only });
        self
    }

    /// Sets how long the guest may live, boot (about 1.5 s) included, before it is killed ([`End::TimedOut`]).
    pub fn limit(mut self, limit: Duration) -> Job {
        self.limit = limit;
        self
    }

    /// Sets the guest's memory, in MiB. Pages that it does not touch cost the host nothing.
    pub fn memory_mib(mut self, memory_mib: u32) -> Job {
        self.memory_mib = memory_mib;
        self
    }

    /// Loads one more kernel module (`veth`, `loop` ...) before the script; a job fails when it cannot be loaded.
    pub fn module(mut self, name: impl Into<String>) -> Job {
        self.modules.push(name.into());
        self
    }

    /// Puts a file into the window, where the script finds it as `$OUT/NAME`. `name` is a plain file name.
    pub fn file(mut self, name: impl Into<String>, contents: impl Into<Vec<u8>>) -> Job {
        self.files.push((name.into(), contents.into()));
        self
    }

    /// Sets an environment variable of the script.
    pub fn variable(mut self, name: impl Into<String>, value: impl Into<String>) -> Job {
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Adds one word to the kernel's command line, for example `vec0:transport=tap,ifname=...`.
    pub fn kernel_arg(mut self, word: impl Into<String>) -> Job {
        self.kernel_args.push(word.into());
        self
    }
}

/// How a guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The script ended with this status (128 + n after signal n), and the guest powered itself off.
    Script(i32),
    /// The guest ended by itself without finishing the script: a kernel panic, or it never booted.
    Died,
    /// The time limit came first, and the guest was killed.
    TimedOut,
    /// The test killed it.
    Killed,
}

/// What came of a [`Job`]. The window [`Outcome::out`] is removed when this is dropped.
#[derive(Debug)]
pub struct Outcome {
    /// How the guest ended.
    pub end: End,
    /// What the script printed, on both of its outputs.
    pub console: String,
    /// What the kernel said, from boot to the end (also the whole of a panic).
    pub kernel: String,
    /// From the start of the guest's process to its end.
    pub duration: Duration,
    pub(crate) dir: JobDir,
}

impl Outcome {
    /// Whether the script ended with status 0.
    pub fn is_ok(&self) -> bool {
        self.end == End::Script(0)
    }

    /// The host's side of the guest's `$OUT`.
    pub fn out(&self) -> &Path {
        self.dir.out()
    }

    /// Reads a file that the script left in `$OUT`, as text; bytes that are no UTF-8 are replaced.
    ///
    /// # Errors
    /// Those of reading the file, with its name.
    pub fn read(&self, name: &str) -> Result<String, String> {
        match std::fs::read(self.out().join(name)) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => Err(format!("{name}: {error}")),
        }
    }

    /// Whether the kernel panicked.
    pub fn panicked(&self) -> bool {
        self.kernel.contains("Kernel panic - not syncing")
    }

    /// The kernel's lines that tell of trouble: a withdraw, an oops, a warning, an error of the filesystem or the disk.
    /// Empty after a healthy run, replay of a journal included.
    pub fn trouble(&self) -> Vec<&str> {
        trouble(&self.kernel)
    }

    /// Everything one wants to read when an assertion about this outcome fails.
    pub fn report(&self) -> String {
        format!(
            "the guest ended with {:?} after {:.1} s\n--- script ---\n{}\n--- kernel ---\n{}",
            self.end,
            self.duration.as_secs_f64(),
            self.console,
            tail(&self.kernel, 80)
        )
    }

    /// Returns itself when the script ended with status 0.
    ///
    /// # Errors
    /// The [`report`](Outcome::report) otherwise.
    pub fn success(self) -> Result<Outcome, String> {
        if self.is_ok() { Ok(self) } else { Err(self.report()) }
    }
}

/// The lines of a kernel's messages that tell of trouble.
pub(crate) fn trouble(kernel: &str) -> Vec<&str> {
    kernel.lines().filter(|line| is_trouble(line)).collect()
}

fn is_trouble(line: &str) -> bool {
    const WORDS: [&str; 16] = [
        "withdraw",
        "BUG:",
        "kernel BUG",
        "Oops",
        "Kernel panic",
        "WARNING:",
        "Call Trace",
        "fatal:",
        "I/O error",
        "error recovering",
        "Magic number missing",
        "inconsisten",
        "invalid metadata",
        "blocked for more than",
        "Out of memory",
        "general protection",
    ];
    WORDS.iter().any(|word| line.contains(word))
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_told_from_the_journal_lines() {
        assert!(!is_trouble("gfs2: fsid=ubda.0: jid=0: Replayed 12 of 15 blocks"));
        assert!(!is_trouble("gfs2: fsid=ubda.0: jid=0: Found 3 revoke tags"));
        assert!(is_trouble("gfs2: fsid=ubda.0: about to withdraw this file system"));
        assert!(is_trouble("Kernel panic - not syncing: Fatal exception"));
    }

    #[test]
    fn the_tail_is_no_longer_than_the_text() {
        assert_eq!(tail("a\nb\nc", 2), "b\nc");
        assert_eq!(tail("a", 5), "a");
    }
}
