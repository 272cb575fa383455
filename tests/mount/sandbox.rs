//! A place where gfs2r is installed as `make install` does it, and where nothing that happens is seen outside: namespaces for
//! mounts and processes, a /run of its own. When the guard goes, everything in it is killed, and the mounts go with it.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Prepares the inside: STAGE is where `make install DESTDIR=` put everything.
const SETUP: &str = r#"
set -e
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
sbin=$(readlink -f /sbin)
mount -t overlay overlay -o "lowerdir=$1/sbin:$sbin" "$sbin"
mount --bind "$1/usr/local" /usr/local
echo ready
exec sleep 100000
"#;

/// What a command said, both channels, and its exit status (137 when it had to be killed).
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub text: String,
}

impl Said {
    /// It must have succeeded; what it said.
    #[track_caller]
    pub fn good(self) -> String {
        assert_eq!(self.code, 0, "{}", self.text);
        self.text
    }

    /// It must have ended with this status, whatever it said.
    #[track_caller]
    pub fn code_is(self, code: i32) {
        assert_eq!(self.code, code, "{}", self.text);
    }

    /// It must have ended with this status and said nothing.
    #[track_caller]
    pub fn fails_quietly(self, code: i32) {
        assert_eq!((self.code, self.text.as_str()), (code, ""));
    }

    /// It must have failed with this status, in one line with these words.
    #[track_caller]
    pub fn fails(self, code: i32, words: &str) {
        assert_eq!(self.code, code, "{}", self.text);
        assert!(self.text.contains(words), "'{words}' is not in: {}", self.text);
        assert_eq!(self.text.trim_end().lines().count(), 1, "one line: {}", self.text);
    }
}

pub struct Sandbox {
    folder: tempfile::TempDir,
    unshare: Child,
    init: String,
    loops: std::cell::RefCell<Vec<String>>,
}

fn programs() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_gfs2r")).parent().expect("a folder of programs")
}

/// Runs make (a target, perhaps variables behind it) in the source tree, with the programs that this test was built with.
pub fn make(target: &str, destdir: &Path) -> Result<String, String> {
    // Pages and completions are made in one folder.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let out = Command::new("make")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(target.split_ascii_whitespace())
        .args(["CARGO=:", "SETUP=:", "PREFIX=/usr/local"])
        .arg(format!("BUILT={}", programs().display()))
        .arg(format!("DESTDIR={}", destdir.display()))
        .output()
        .map_err(|e| format!("make: {e}"))?;
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    if out.status.success() { Ok(text) } else { Err(text) }
}

/// Installed once for each test program, in a folder below target/.
fn stage() -> Result<&'static Path, String> {
    static STAGE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = STAGE.get_or_init(|| {
        let name = std::env::current_exe().ok().and_then(|p| Some(p.file_name()?.to_string_lossy().into_owned()));
        let stage = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name.unwrap_or_default());
        if stage.exists() {
            fs::remove_dir_all(&stage).map_err(|e| e.to_string())?;
        }
        make("install", &stage).map(|_| stage)
    });
    made.as_deref().map_err(Clone::clone)
}

impl Sandbox {
    /// `None`, said loudly, where this machine does not allow it.
    pub fn new() -> Option<Self> {
        let missing = |what: &str| {
            eprintln!("SKIPPED: {what}. NOTHING WAS TESTED.");
            None
        };
        if !rustix::process::geteuid().is_root() {
            return missing("mounting needs root");
        }
        if !Path::new("/dev/fuse").exists() {
            return missing("/dev/fuse is missing");
        }
        for program in ["mkfs.gfs2r", "fsck.gfs2r"] {
            if !programs().join(program).exists() {
                return missing(&format!("{program} is not built (cargo build --workspace, with the same profile)"));
            }
        }
        let stage = stage().unwrap_or_else(|e| panic!("make install: {e}"));
        let mut unshare = Command::new("unshare")
            .args(["-m", "-p", "--fork", "--kill-child", "--propagation", "private", "sh", "-c", SETUP, "sh"])
            .arg(stage)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare(1) runs");
        let mut line = String::new();
        BufReader::new(unshare.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let init = fs::read_to_string(children).unwrap_or_default().trim().to_owned();
        let folder = tempfile::Builder::new().prefix("gfs2r-mount-").tempdir().expect("a temporary folder");
        let sandbox = Self { folder, unshare, init, loops: std::cell::RefCell::default() };
        if line.trim() != "ready" || sandbox.init.is_empty() {
            return missing("namespaces or overlayfs are not to be had");
        }
        fs::create_dir(sandbox.dir()).expect("a mount point");
        Some(sandbox)
    }

    /// A path in the folder that inside and outside share.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The mount point.
    pub fn dir(&self) -> PathBuf {
        self.path("mnt")
    }

    /// Runs a shell line inside, for a minute at most, in the shared folder; $1, $2 ... are `args`.
    pub fn sh(&self, line: &str, args: &[&Path]) -> Said {
        let out = self.path("output");
        let file = File::create(&out).expect("a file for output");
        let status = Command::new("nsenter")
            .args(["-t", &self.init, "-m", "-p", "--", "timeout", "-s", "KILL", "60", "sh", "-c"])
            // nsenter(1) leaves the current folder.
            .arg(format!("cd \"$0\" || exit 99\n{line}"))
            .arg(self.folder.path())
            .args(args)
            .env_remove("GFS2R_RUN_DIR")
            .env("PATH", "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .status()
            .expect("nsenter(1) runs");
        Said { code: status.code().unwrap_or(137), text: fs::read_to_string(out).expect("its output") }
    }

    /// A new volume in an image file.
    pub fn image(&self, name: &str, size: u64, options: &str) -> PathBuf {
        let path = self.path(name);
        File::create(&path).and_then(|f| f.set_len(size)).expect("an image");
        self.sh(&format!("mkfs.gfs2r -O -q -J 8 {options} \"$1\""), &[&path]).good();
        path
    }

    /// A loop device on an image; it goes with the guard.
    pub fn attach(&self, image: &Path) -> Option<PathBuf> {
        let out = Command::new("losetup").args(["-f", "--show"]).arg(image).output().ok()?;
        let device = String::from_utf8_lossy(&out.stdout).trim().to_owned();
        if !out.status.success() || device.is_empty() {
            eprintln!("SKIPPED: no loop device is to be had. BLOCK DEVICES WERE NOT TESTED.");
            return None;
        }
        self.loops.borrow_mut().push(device.clone());
        Some(device.into())
    }

    /// Ours, and the stock tool where there is one, find nothing on an image or device.
    #[track_caller]
    pub fn is_clean(&self, volume: &Path) {
        self.sh("fsck.gfs2r -n \"$1\"", &[volume]).good();
        // The stock tool is run outside: it sees the volume there as well.
        match Command::new("timeout").args(["-s", "KILL", "60", "fsck.gfs2", "-n"]).arg(volume).output() {
            Ok(out) if out.status.code() != Some(127) => {
                let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
                assert!(out.status.success(), "fsck.gfs2 -n: {}\n{text}", out.status);
            }
            _ => eprintln!("SKIPPED: the stock fsck.gfs2 is not installed"),
        }
    }

    /// Waits up to ten seconds for what a shell line tests.
    #[track_caller]
    pub fn eventually(&self, line: &str) {
        let since = Instant::now();
        while self.sh(line, &[]).code != 0 {
            assert!(since.elapsed() < Duration::from_secs(10), "never true: {line}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Its child, the first process of the namespace, dies with it, and with that one all others.
        let killed = self.unshare.kill().and_then(|()| self.unshare.wait());
        if let Err(e) = killed {
            eprintln!("the sandbox stays: {e}");
        }
        let init = PathBuf::from("/proc").join(&self.init);
        let since = Instant::now();
        while !self.init.is_empty() && init.exists() && since.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        for device in self.loops.borrow().iter() {
            // A device keeps it for whoever uses it next.
            if !Command::new("blockdev").args(["--setrw", device]).status().is_ok_and(|s| s.success()) {
                eprintln!("{device} stays write-protected");
            }
            if !Command::new("losetup").args(["-d", device]).status().is_ok_and(|s| s.success()) {
                eprintln!("{device} stays attached");
            }
        }
    }
}
