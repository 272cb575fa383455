//! A mount that goes away with its guard, and a book of checks.

use rustix::fs::{CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::cell::{Cell, RefCell};
use std::fmt::Debug;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// Nobody in particular.
pub const USER: u32 = 65534;
/// Somebody else.
pub const OTHER: u32 = 65533;

/// True when this machine lets us mount; otherwise says what is missing.
pub fn can_run() -> bool {
    let missing = if !rustix::process::geteuid().is_root() {
        "root"
    } else if !Path::new("/dev/fuse").exists() {
        "/dev/fuse"
    } else if Command::new("mkfs.gfs2").arg("-V").output().is_err() {
        "mkfs.gfs2"
    } else {
        return true;
    };
    eprintln!("SKIPPED: the POSIX conformance run needs {missing}. NOTHING WAS TESTED.");
    false
}

/// A program of ours, as mount(8) would call it.
fn program(name: &str) -> Command {
    let path = Path::new(env!("CARGO_BIN_EXE_gfs2r")).with_file_name(name);
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", "60"]).arg(path);
    command
}

/// What a command said, and whether it succeeded. Its output goes to a file: a daemon that kept a pipe would keep us waiting.
pub struct Said {
    pub ok: bool,
    pub text: String,
}

/// An image in a temporary folder with a mount point beside it; unmounted, killed and removed when dropped.
pub struct Mounted {
    folder: tempfile::TempDir,
    daemon: Arc<AtomicI32>,
}

impl Mounted {
    /// Makes an image and mounts it.
    pub fn new(size: &str, options: &str) -> Self {
        let mounted = Self::unmounted(size);
        let said = mounted.mount(options);
        assert!(said.ok, "mount: {}", said.text);
        // Everybody may come in.
        rustix::fs::chmod(mounted.dir(), Mode::from_raw_mode(0o755)).expect("chmod of the root");
        mounted
    }

    /// An image that is not mounted yet.
    pub fn unmounted(size: &str) -> Self {
        Self::unmounted_with(size, &[])
    }

    /// The same with more options for mkfs.gfs2.
    pub fn unmounted_with(size: &str, more: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("gfs2r-posix-").tempdir().expect("a temporary folder");
        rustix::fs::chmod(folder.path(), Mode::from_raw_mode(0o755)).expect("chmod");
        let mounted = Self { folder, daemon: Arc::new(AtomicI32::new(0)) };
        fs::create_dir(mounted.dir()).expect("a mount point");
        let made = Command::new("truncate").args(["-s", size]).arg(mounted.image()).status().expect("truncate runs");
        assert!(made.success());
        let mkfs = Command::new("mkfs.gfs2")
            .args(["-O", "-q", "-p", "lock_nolock", "-J", "16"])
            .args(more)
            .arg(mounted.image())
            .output();
        assert!(mkfs.expect("mkfs.gfs2 runs").status.success(), "mkfs.gfs2 failed");
        mounted
    }

    pub fn dir(&self) -> PathBuf {
        self.folder.path().join("mnt")
    }

    pub fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    pub fn daemon(&self) -> Arc<AtomicI32> {
        Arc::clone(&self.daemon)
    }

    /// Runs one of our programs and waits for it.
    pub fn run(&self, name: &str, args: &[&std::ffi::OsStr]) -> Said {
        let out = self.folder.path().join("output");
        let file = File::create(&out).expect("a file for output");
        let status = program(name)
            .args(args)
            .env("GFS2R_RUN_DIR", self.folder.path().join("run"))
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .status()
            .expect("timeout runs");
        Said { ok: status.success(), text: fs::read_to_string(out).expect("its output") }
    }

    pub fn mount(&self, options: &str) -> Said {
        let (image, dir) = (self.image(), self.dir());
        let said = self.run("mount.gfs2r", &[image.as_ref(), dir.as_ref(), "-o".as_ref(), options.as_ref()]);
        if said.ok && !options.contains("remount") {
            self.daemon.store(self.pid().unwrap_or(0), Ordering::Release);
        }
        said
    }

    pub fn umount(&self) -> Said {
        let said = self.run("umount.gfs2r", &[self.dir().as_ref()]);
        if said.ok {
            self.daemon.store(0, Ordering::Release);
        }
        said
    }

    /// The daemon's process id, from its runtime folder.
    pub fn pid(&self) -> Option<i32> {
        let run = fs::read_dir(self.folder.path().join("run")).ok()?.next()?.ok()?.path();
        fs::read_to_string(run.join("pid")).ok()?.trim().parse().ok()
    }

    /// Sends the daemon a signal and waits for its end.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = self.daemon.swap(0, Ordering::AcqRel);
        let Some(process) = rustix::process::Pid::from_raw(pid) else { return };
        if rustix::process::kill_process(process, signal).is_err() {
            return;
        }
        let since = Instant::now();
        while is_alive(pid) && since.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn is_mounted(&self) -> bool {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        table.contains(&format!(" {} ", self.dir().display()))
    }

    /// Mounted as fuseblk, over a loop device.
    pub fn is_like_a_disk(&self) -> bool {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        table.lines().any(|line| line.contains(&format!(" {} ", self.dir().display())) && line.contains("fuseblk"))
    }

    /// Removes the mount, whatever state it is in.
    pub fn detach(&self) {
        if self.is_mounted() {
            // The guard's last means: nothing can be done if even that fails.
            let _ = rustix::mount::unmount(self.dir(), rustix::mount::UnmountFlags::DETACH);
        }
    }

    /// fsck.gfs2 -n: what it complains of.
    pub fn fsck(&self) -> Result<(), String> {
        let out = Command::new("fsck.gfs2").arg("-n").arg(self.image()).output().map_err(|e| e.to_string())?;
        let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        if out.status.success() { Ok(()) } else { Err(format!("{}\n{text}", out.status)) }
    }

    /// Unmounts and checks the volume.
    pub fn finish(self, t: &T) {
        let said = self.umount();
        t.yes(&format!("unmounts: {}", said.text), said.ok);
        t.yes("is unmounted", !self.is_mounted());
        t.ok("fsck.gfs2 -n finds nothing", self.fsck());
    }
}

fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.detach();
        self.signal(rustix::process::Signal::KILL);
    }
}

/// The book of checks.
pub struct T {
    root: PathBuf,
    section: RefCell<String>,
    serial: Cell<u32>,
    checks: Cell<u32>,
    failures: RefCell<Vec<String>>,
    done: Arc<AtomicBool>,
}

impl T {
    /// Checks below `root`; a run that hangs for two minutes gets its daemon killed, which ends every request with an error.
    pub fn new(root: PathBuf, daemon: Option<Arc<AtomicI32>>) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        if let Some(daemon) = daemon {
            let done = Arc::clone(&done);
            std::thread::spawn(move || {
                for _ in 0..1200 {
                    std::thread::sleep(Duration::from_millis(100));
                    if done.load(Ordering::Acquire) {
                        return;
                    }
                }
                if let Some(pid) = rustix::process::Pid::from_raw(daemon.load(Ordering::Acquire)) {
                    eprintln!("the run hangs: killing the daemon");
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
            });
        }
        Self {
            root,
            section: RefCell::default(),
            serial: Cell::new(0),
            checks: Cell::new(0),
            failures: RefCell::default(),
            done,
        }
    }

    /// Runs a chapter; a panic in it is one failure.
    pub fn chapter(&self, name: &str, f: impl FnOnce(&Self)) {
        *self.section.borrow_mut() = name.to_owned();
        let (since, before) = (Instant::now(), self.checks.get());
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| f(self))) {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&s| s.to_owned())).unwrap_or_default();
            self.fail(format!("{name}: panicked: {text}"));
        }
        println!("{name}: {} checks in {:?}", self.checks.get() - before, since.elapsed());
    }

    /// A new directory of its own, which everybody may enter and only root may change.
    pub fn dir(&self) -> PathBuf {
        self.serial.set(self.serial.get() + 1);
        let dir = self.root.join(format!("{}-{}", self.section.borrow(), self.serial.get()));
        fs::create_dir(&dir).expect("a directory for a check");
        dir
    }

    /// The same with these permission bits.
    pub fn dir_with(&self, mode: u32) -> PathBuf {
        let dir = self.dir();
        chmod(&dir, mode).expect("chmod");
        dir
    }

    fn fail(&self, what: String) {
        println!("  FAILED {what}");
        self.failures.borrow_mut().push(what);
    }

    #[track_caller]
    fn check(&self, good: bool, what: impl FnOnce() -> String) {
        self.checks.set(self.checks.get() + 1);
        if !good {
            let at = Location::caller();
            self.fail(format!("{}:{}: {}", at.file(), at.line(), what()));
        }
    }

    #[track_caller]
    pub fn yes(&self, what: &str, good: bool) {
        self.check(good, || what.to_owned());
    }

    #[track_caller]
    pub fn eq<V: PartialEq + Debug>(&self, what: &str, is: V, wanted: V) {
        self.check(is == wanted, || format!("{what}: is {is:?}, must be {wanted:?}"));
    }

    #[track_caller]
    pub fn ok<V, E: Debug>(&self, what: &str, r: Result<V, E>) -> Option<V> {
        self.check(r.is_ok(), || format!("{what}: {:?}", r.as_ref().err()));
        r.ok()
    }

    #[track_caller]
    pub fn err<V>(&self, what: &str, r: rustix::io::Result<V>, wanted: Errno) {
        let is = r.err();
        self.check(is == Some(wanted), || format!("{what}: {}, must be {wanted:?}", said(is)));
    }

    #[track_caller]
    pub fn err_of<V>(&self, what: &str, r: rustix::io::Result<V>, wanted: &[Errno]) {
        let is = r.err();
        self.check(is.is_some_and(|e| wanted.contains(&e)), || {
            format!("{what}: {}, must be one of {wanted:?}", said(is))
        });
    }

    /// Says how many checks failed, and panics if any did.
    pub fn report(self) {
        self.done.store(true, Ordering::Release);
        let failures = self.failures.into_inner();
        println!("{} checks, {} failed", self.checks.get(), failures.len());
        assert!(
            failures.is_empty(),
            "{} of {} checks failed:\n{}",
            failures.len(),
            self.checks.get(),
            failures.join("\n")
        );
    }
}

fn said(errno: Option<Errno>) -> String {
    errno.map_or_else(|| "succeeded".to_owned(), |e| format!("{e:?}"))
}

/// Runs `f` with another user's rights. Only this thread's filesystem ids change, as in an NFS server.
pub fn as_user<V: Send>(uid: u32, gid: u32, f: impl FnOnce() -> V + Send) -> V {
    std::thread::scope(|s| {
        let thread = s.spawn(move || {
            nix::unistd::setfsgid(gid.into());
            nix::unistd::setfsuid(uid.into());
            f()
        });
        thread.join().expect("the thread ends")
    })
}

pub fn errno(e: &io::Error) -> Errno {
    Errno::from_io_error(e).unwrap_or(Errno::IO)
}

pub fn std_result<V>(r: io::Result<V>) -> rustix::io::Result<V> {
    r.map_err(|e| errno(&e))
}

pub fn stat(path: &Path) -> Stat {
    rustix::fs::lstat(path).unwrap_or_else(|e| panic!("lstat {}: {e}", path.display()))
}

/// Permission bits.
pub fn perm(path: &Path) -> u32 {
    stat(path).st_mode & 0o7777
}

pub fn owner(path: &Path) -> (u32, u32) {
    let st = stat(path);
    (st.st_uid, st.st_gid)
}

#[allow(clippy::useless_conversion, reason = "the width differs between machines")]
pub fn nlink(path: &Path) -> u64 {
    u64::from(stat(path).st_nlink)
}

pub fn kind(path: &Path) -> FileType {
    FileType::from_raw_mode(stat(path).st_mode)
}

pub fn chmod(path: &Path, mode: u32) -> rustix::io::Result<()> {
    rustix::fs::chmod(path, Mode::from_raw_mode(mode))
}

pub fn chown(path: &Path, uid: Option<u32>, gid: Option<u32>) -> rustix::io::Result<()> {
    use rustix::process::{Gid, Uid};
    rustix::fs::chownat(
        CWD,
        path,
        uid.map(Uid::from_raw),
        gid.map(Gid::from_raw),
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
}

pub fn mkdir(path: &Path, mode: u32) -> rustix::io::Result<()> {
    rustix::fs::mkdir(path, Mode::from_raw_mode(mode))
}

pub fn open(path: &Path, flags: OFlags, mode: u32) -> rustix::io::Result<File> {
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::from_raw_mode(mode)).map(File::from)
}

pub fn create(path: &Path, mode: u32) -> rustix::io::Result<File> {
    open(path, OFlags::CREATE | OFlags::EXCL | OFlags::RDWR, mode)
}

pub fn mknod(path: &Path, kind: FileType, mode: u32, dev: u64) -> rustix::io::Result<()> {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(mode), dev)
}

/// An empty file with these permission bits, whatever the umask.
pub fn file(path: &Path, mode: u32) {
    File::create(path).unwrap_or_else(|e| panic!("create {}: {e}", path.display()));
    chmod(path, mode).expect("chmod");
}

/// Something of each kind in `dir`: (name, path).
pub fn one_of_each(dir: &Path) -> Vec<(&'static str, PathBuf)> {
    let at = |name: &'static str| (name, dir.join(name));
    file(&dir.join("regular"), 0o644);
    mkdir(&dir.join("directory"), 0o755).expect("mkdir");
    mknod(&dir.join("fifo"), FileType::Fifo, 0o644, 0).expect("mknod");
    mknod(&dir.join("block"), FileType::BlockDevice, 0o644, rustix::fs::makedev(1, 2)).expect("mknod");
    mknod(&dir.join("char"), FileType::CharacterDevice, 0o644, rustix::fs::makedev(1, 2)).expect("mknod");
    mknod(&dir.join("socket"), FileType::Socket, 0o644, 0).expect("mknod");
    rustix::fs::symlink("nowhere", dir.join("symlink")).expect("symlink");
    ["regular", "directory", "fifo", "block", "char", "socket", "symlink"].map(at).to_vec()
}
