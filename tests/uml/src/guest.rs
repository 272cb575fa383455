//! A running guest.
//!
//! Invariants: the guest's processes are in one group whose leader is our child and is not reaped before the group has
//! been killed (so the number of the group cannot have become somebody else's); the group dies with the handle, and a
//! watchdog inside the group kills it when the test program dies without dropping anything.

use crate::console::Console;
use crate::job::{End, Job, Outcome};
use crate::jobdir::JobDir;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Becomes the kernel, "$@", with a watchdog beside it: standard input is a pipe whose other end the test program has,
/// so reading it ends when that program dies. The kernel must be the leader of the group: otherwise it makes a session
/// of its own and leaves the group. A panicking kernel sends SIGTERM to its group, hence the trap.
const SUPERVISOR: &str = r#"
trap '' TERM
exec 3<&0 </dev/null
{ read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 &
exec 3<&-
exec "$@"
"#;

/// A handle on a running guest. Dropping it kills the guest and removes its job directory.
#[derive(Debug)]
pub struct Guest {
    processes: Group,
    console: Arc<Console>,
    kernel: Arc<Console>,
    mark: String,
    started: Instant,
    deadline: Instant,
    dir: JobDir,
}

/// The processes of a guest; dropped before the job directory.
#[derive(Debug)]
struct Group {
    leader: Child,
    /// The watchdog reads the other end; it must stay open as long as the guest shall live.
    _lifeline: Option<ChildStdin>,
    reaped: bool,
}

impl Group {
    /// Kills all of them, reaps the leader and waits until none is left.
    fn end(&mut self) {
        let Some(group) = i32::try_from(self.leader.id()).ok().and_then(Pid::from_raw) else { return };
        if self.reaped {
            return;
        }
        // The leader has not been reaped, so the group exists and is ours; an error could only mean that all are gone.
        let _ = kill_process_group(group, Signal::KILL);
        match self.leader.wait() {
            Ok(_) => self.reaped = true,
            Err(error) => eprintln!("guest {}: {error}", self.leader.id()),
        }
        // The others die on their own time; whoever reads the disk next must not meet them. The signal is not sent
        // again: once the group is gone its number is free.
        let deadline = Instant::now() + Duration::from_secs(10);
        while test_kill_process_group(group).is_ok() && any_alive(self.leader.id()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whether a process of the group is more than a zombie (which has no files and no memory, and whose reaping is its new
/// parent's business: that of this machine may take a second).
fn any_alive(group: u32) -> bool {
    let Ok(processes) = std::fs::read_dir("/proc") else { return false };
    processes.filter_map(Result::ok).any(|process| {
        let Ok(stat) = std::fs::read_to_string(process.path().join("stat")) else { return false };
        // PID (NAME) STATE PARENT GROUP ...; the name may hold anything.
        let mut fields = stat.rsplit(')').next().unwrap_or("").split_whitespace();
        let (state, its_group) = (fields.next(), fields.nth(1));
        !matches!(state, Some("Z" | "X")) && its_group.and_then(|field| field.parse().ok()) == Some(group)
    })
}

impl Drop for Group {
    fn drop(&mut self) {
        self.end();
    }
}

impl Guest {
    pub(crate) fn start(kernel: &Path, module_root: &Path, job: &Job) -> Result<Guest, String> {
        let dir = JobDir::create()?;
        let mark = format!("@@status-{}", dir.path().file_name().unwrap_or_default().to_string_lossy());
        write_job(&dir, job)?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SUPERVISOR, "guest"]).arg(kernel).args(kernel_words(&dir, module_root, &mark, job)?);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        {
            use std::os::unix::process::CommandExt;
            command.process_group(0);
        }
        let started = Instant::now();
        let mut leader = command.spawn().map_err(|error| format!("/bin/sh: {error}"))?;
        let (stdout, stderr) = (leader.stdout.take(), leader.stderr.take());
        let processes = Group { _lifeline: leader.stdin.take(), leader, reaped: false };
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else { return Err("the guest has no console".into()) };
        Ok(Guest {
            processes,
            kernel: Console::read_from(stdout),
            console: Console::read_from(stderr),
            mark,
            started,
            deadline: started + job.limit,
            dir,
        })
    }

    /// Waits for a line of the script's output that contains `text`; lines that were printed before count.
    ///
    /// # Errors
    /// When the guest ended or `timeout` passed without such a line; with all that it had printed.
    pub fn wait_for_line(&self, text: &str, timeout: Duration) -> Result<String, String> {
        let deadline = self.deadline.min(Instant::now() + timeout);
        self.console.wait_for_line(text, deadline).ok_or_else(|| {
            format!(
                "no line {text:?} from the guest\n--- script ---\n{}\n--- kernel ---\n{}",
                self.console(),
                self.kernel()
            )
        })
    }

    /// Waits for a message of the kernel that contains `text`.
    ///
    /// # Errors
    /// As [`Guest::wait_for_line`].
    pub fn wait_for_kernel(&self, text: &str, timeout: Duration) -> Result<String, String> {
        let deadline = self.deadline.min(Instant::now() + timeout);
        let line = self.kernel.wait_for_line(text, deadline);
        line.ok_or_else(|| format!("the kernel did not say {text:?}\n{}", self.kernel()))
    }

    /// What the script has printed so far.
    pub fn console(&self) -> String {
        split_start(&self.console.text(), &self.mark).1.to_string()
    }

    /// What the kernel has said so far.
    pub fn kernel(&self) -> String {
        self.kernel.text()
    }

    /// The host's side of the guest's `$OUT`.
    pub fn out(&self) -> &Path {
        self.dir.out()
    }

    /// The id of the guest's process group, for example to stop and continue it as a hung machine.
    pub fn process_group(&self) -> u32 {
        self.processes.leader.id()
    }

    /// Pulls the plug: SIGKILL to every process of the guest, between two of its instructions. What it had written to
    /// its disks is there, what it had not is lost.
    pub fn kill(mut self) -> Outcome {
        self.processes.end();
        self.finish(End::Killed)
    }

    /// Waits for the guest's end, at most to its time limit, and then kills it.
    pub fn wait(mut self) -> Outcome {
        // Both streams end when no process of the guest is left.
        let ended = self.console.wait_for_end(self.deadline) && self.kernel.wait_for_end(self.deadline);
        self.processes.end();
        self.finish(if ended { End::Died } else { End::TimedOut })
    }

    /// Takes the outcome of a guest whose processes are gone. `otherwise` is the end when there is no exit status.
    fn finish(self, otherwise: End) -> Outcome {
        let duration = self.started.elapsed();
        // Nobody can write any more: this only lets the readers take what is in the pipes.
        let soon = Instant::now() + Duration::from_secs(5);
        let whole = self.console.wait_for_end(soon) && self.kernel.wait_for_end(soon);
        let console = self.console.text();
        let (before, console) = split_start(&console, &self.mark);
        let (text, status) = split_status(console.to_string(), &self.mark);
        let kernel = before.to_string() + &self.kernel.text().replace("\r\n", "\n");
        let end = match (status, otherwise) {
            (Some(status), End::Died) if whole => End::Script(status),
            (_, otherwise) => otherwise,
        };
        Outcome { end, console: text, kernel, duration, dir: self.dir }
    }
}

/// Splits the script's console where init has begun to use it: before that, User-Mode Linux tells of itself there.
fn split_start<'a>(console: &'a str, mark: &str) -> (&'a str, &'a str) {
    let start = format!("{mark} start\n");
    match console.split_once(start.as_str()) {
        Some(parts) => parts,
        None => (console, ""),
    }
}

/// Takes the last line, `MARK STATUS`, off the script's output.
fn split_status(text: String, mark: &str) -> (String, Option<i32>) {
    let Some(at) = text.rfind(mark) else { return (text, None) };
    let status = text[at + mark.len()..].split_whitespace().next().and_then(|word| word.parse().ok());
    // Init puts a newline of its own before the mark.
    let body = text[..at].strip_suffix('\n').unwrap_or(&text[..at]).to_string();
    (body, status)
}

fn write_job(dir: &JobDir, job: &Job) -> Result<(), String> {
    dir.write("init.sh", include_bytes!("init.sh"), 0o755)?;
    dir.write("script.sh", job.script.as_bytes(), 0o644)?;
    let mut variables = format!("MODULES='{}'\n", job.modules.join(" "));
    for (name, value) in &job.variables {
        variables.push_str(&format!("export {name}='{}'\n", value.replace('\'', r"'\''")));
    }
    dir.write("variables.sh", variables.as_bytes(), 0o644)?;
    for (name, contents) in &job.files {
        dir.write(&format!("out/{name}"), contents, 0o644)?;
    }
    Ok(())
}

/// The kernel's command line.
fn kernel_words(dir: &JobDir, module_root: &Path, mark: &str, job: &Job) -> Result<Vec<String>, String> {
    let path = |path: &Path| -> Result<String, String> {
        let text = path.to_str().ok_or_else(|| format!("{}: not UTF-8", path.display()))?;
        // The kernel splits its command line at spaces, and an image's name at commas and colons.
        if text.contains([' ', ',', ':', '"']) {
            Err(format!("{text}: a character the kernel's command line cannot carry"))
        } else {
            Ok(text.to_string())
        }
    };
    let job_dir = path(dir.path())?;
    let mut words = vec![
        format!("mem={}M", job.memory_mib),
        format!("uml_dir={job_dir}"),
        "umid=guest".into(),
        "root=/dev/root rootfstype=hostfs ro noreboot panic=0 loglevel=7".into(),
        format!("init={job_dir}/init.sh"),
        // tty0 is the kernel's own console, on standard output; tty1 the script's, on standard error.
        "con=null con0=null,fd:1 con1=null,fd:2".into(),
        format!("JOB={job_dir}"),
        format!("UMLROOT={}", path(module_root)?),
        format!("MARK={mark}"),
    ];
    if job.disks.len() > 16 {
        return Err("a guest has at most 16 disks".into());
    }
    for (disk, letter) in job.disks.iter().zip('a'..='p') {
        let image = std::fs::canonicalize(&disk.image).map_err(|error| format!("{}: {error}", disk.image.display()))?;
        let flags = [(disk.read_only, "r"), (disk.shared, "c")];
        let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, flag)| *flag).collect();
        words.push(format!("ubd{letter}{flags}={}", path(&image)?));
    }
    words.extend(job.kernel_args.iter().cloned());
    Ok(words.iter().flat_map(|word| word.split(' ')).map(str::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_before_the_script_is_the_kernels() {
        assert_eq!(split_start("Checking...OK\n@@s start\nhello\n", "@@s"), ("Checking...OK\n", "hello\n"));
        assert_eq!(split_start("cannot boot\n", "@@s"), ("cannot boot\n", ""));
    }

    #[test]
    fn the_status_is_taken_off_the_output() {
        assert_eq!(split_status("hello\n\n@@s 3\n".into(), "@@s"), ("hello\n".into(), Some(3)));
        assert_eq!(split_status("no newline\n@@s 0\n".into(), "@@s"), ("no newline".into(), Some(0)));
        assert_eq!(split_status("crash".into(), "@@s"), ("crash".into(), None));
    }

    #[test]
    fn disks_are_named_in_order() {
        let dir = JobDir::create().unwrap();
        let image = dir.path().join("i");
        std::fs::write(&image, b"").unwrap();
        let job = Job::new("").disk(&image).shared_disk(&image).read_only_disk(&image);
        let words = kernel_words(&dir, Path::new("/m"), "@@s", &job).unwrap();
        for want in ["ubda=", "ubdbc=", "ubdcrc="] {
            assert!(words.iter().any(|word| word.starts_with(want)), "{want} in {words:?}");
        }
        let odd = Job::new("").disk(dir.path().join("missing"));
        assert!(kernel_words(&dir, Path::new("/m"), "@@s", &odd).is_err());
    }
}
