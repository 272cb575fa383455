//! The two helpers' command lines, as mount(8) and umount(8) call them.

use super::options::MountOptions;
use super::{EXIT_FAILED, EXIT_SYSTEM, EXIT_USAGE, control, daemon, rundir, umount};
use clap::Parser;
use clap::error::ErrorKind;
use rustix::mount::MountFlags;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Set in the child that becomes the daemon.
const CHILD: &str = "GFS2R_MOUNT_CHILD";

/// Mount a GFS2 volume.
#[derive(Parser, Debug)]
#[command(
    name = "mount.gfs2r",
    disable_version_flag = true,
    after_help = "\
Options of -o: ro rw noatime relatime strictatime nosuid nodev noexec remount fg,
  lockproto=lock_nolock locktable=C:F hostdata=jid=N spectator norecovery acl noacl quota=off|account|on
  quota_quantum=S suiddir data=ordered|writeback discard barrier nobarrier commit=S errors=withdraw|panic
  statfs_quantum=S statfs_percent=P cache=SIZE

Examples:
  mount.gfs2r /dev/sdb1 /mnt/gfs2
  mount -t gfs2r disk.img /mnt/gfs2 -o noatime,quota=on
  mount.gfs2r disk.img /mnt/gfs2 -o ro,norecovery"
)]
struct MountArgs {
    /// Block device or image file.
    spec: PathBuf,
    /// Where to mount.
    dir: PathBuf,
    /// Mount options, separated by commas.
    #[arg(short = 'o', value_name = "OPTIONS")]
    options: Vec<String>,
    /// Pass over unknown options.
    #[arg(short = 's')]
    sloppy: bool,
    /// Check everything, mount nothing.
    #[arg(short = 'f')]
    fake: bool,
    /// Do not write /etc/mtab (which nobody does).
    #[arg(short = 'n')]
    no_mtab: bool,
    /// Say what is done.
    #[arg(short = 'v')]
    verbose: bool,
    /// Mount in this namespace (only the current one is known).
    #[arg(short = 'N', value_name = "NS")]
    namespace: Option<String>,
    /// Filesystem type, as mount(8) passes it.
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<String>,
    /// Version and formats.
    #[arg(short = 'V', long = "version", action = clap::ArgAction::Version)]
    version: Option<bool>,
}

/// `mount.gfs2r`.
pub fn mount_main() -> ExitCode {
    let args = match parse::<MountArgs>("mount.gfs2r") {
        Ok(args) => args,
        Err(code) => return code,
    };
    match mount(&args) {
        Ok(code) => code,
        Err((code, message)) => {
            eprintln!("mount.gfs2r: {message}");
            ExitCode::from(code)
        }
    }
}

fn parse<T: Parser>(name: &str) -> Result<T, ExitCode> {
    let version = concat!(env!("CARGO_PKG_VERSION"), " (GFS2 formats 1801, 1802)");
    let parsed = T::command().version(version).try_get_matches().and_then(|m| T::from_arg_matches(&m));
    parsed.map_err(|e| match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            print!("{e}");
            ExitCode::SUCCESS
        }
        _ => {
            let text = e.to_string();
            let line = text.lines().next().unwrap_or("usage").trim_start_matches("error: ").to_owned();
            eprintln!("{name}: {line} (see {name} --help)");
            ExitCode::from(EXIT_USAGE)
        }
    })
}

fn mount(args: &MountArgs) -> Result<ExitCode, (u8, String)> {
    let options = MountOptions::parse(&args.options.join(","), args.sloppy).map_err(|e| (EXIT_USAGE, e.to_string()))?;
    if !rustix::process::geteuid().is_root() {
        return Err((EXIT_USAGE, "only root can mount".into()));
    }
    if options.remount {
        return remount(&args.dir, &options).map(|()| ExitCode::SUCCESS).map_err(|e| (EXIT_FAILED, e));
    }
    let child = std::env::var_os(CHILD).is_some();
    let foreground = options.foreground;
    // Also in the parent: whatever is wrong is said before a daemon is started.
    let plan = daemon::plan(&args.spec, &args.dir, options).map_err(|e| (EXIT_FAILED, e))?;
    if args.fake {
        return Ok(ExitCode::SUCCESS);
    }
    if child {
        // A new session: signals of the terminal are not meant for the daemon. It fails only for a session's leader.
        if let Err(e) = rustix::process::setsid() {
            eprintln!("mount.gfs2r: new session: {e}");
        }
        std::env::set_current_dir("/").map_err(|e| (EXIT_SYSTEM, e.to_string()))?;
        return daemon::run(plan, true, daemon::detach).map(|()| ExitCode::SUCCESS).map_err(|e| (EXIT_FAILED, e));
    }
    if foreground {
        return daemon::run(plan, false, || Ok(())).map(|()| ExitCode::SUCCESS).map_err(|e| (EXIT_FAILED, e));
    }
    drop(plan);
    start_child().map_err(|e| (EXIT_SYSTEM, format!("cannot start the daemon: {e}")))
}

/// Starts the daemon and waits for its word that the mount is usable.
fn start_child() -> std::io::Result<ExitCode> {
    let mut child = Command::new(std::env::current_exe()?)
        .arg0("mount.gfs2r")
        .args(std::env::args_os().skip(1))
        .env(CHILD, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    if line.trim() == "ok" {
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait()?;
    Ok(ExitCode::from(status.code().and_then(|c| u8::try_from(c).ok()).filter(|&c| c != 0).unwrap_or(EXIT_FAILED)))
}

/// `-o remount,ro|rw`: the daemon first, then the kernel's flag; the other way round for rw.
fn remount(dir: &Path, options: &MountOptions) -> Result<(), String> {
    let say = |e: &dyn std::fmt::Display| format!("{}: {e}", dir.display());
    let target = dir.canonicalize().map_err(|e| say(&e))?;
    let run = rundir::find(&target).ok_or_else(|| say(&"not a mounted gfs2r filesystem"))?;
    let control = run.join("control");
    let flags = |ro| {
        let mut flags = options.flags;
        flags.set(MountFlags::RDONLY, ro);
        flags
    };
    let kernel = |ro| rustix::mount::mount_remount(&*target, flags(ro), c"").map_err(|e| say(&std::io::Error::from(e)));
    if options.open.read_only {
        kernel(true)?;
        control::ask(&control, "remount ro").map_err(|e| say(&e))?;
    } else {
        control::ask(&control, "remount rw").map_err(|e| say(&e))?;
        kernel(false)?;
    }
    Ok(())
}

/// Unmount a GFS2 volume; returns when it is clean.
#[derive(Parser, Debug)]
#[command(
    name = "umount.gfs2r",
    disable_version_flag = true,
    after_help = "\
Examples:
  umount.gfs2r /mnt/gfs2
  umount /mnt/gfs2"
)]
struct UmountArgs {
    /// Mount point, device or image.
    what: PathBuf,
    /// Detach now, let the volume be closed when nobody uses it any more.
    #[arg(short = 'l')]
    lazy: bool,
    /// Abort pending requests.
    #[arg(short = 'f')]
    force: bool,
    /// Do not write /etc/mtab (which nobody does).
    #[arg(short = 'n')]
    no_mtab: bool,
    /// Remount read-only when it is in use (not offered).
    #[arg(short = 'r')]
    read_only: bool,
    /// Say what is done.
    #[arg(short = 'v')]
    verbose: bool,
    /// Namespace, as umount(8) passes it.
    #[arg(short = 'N', value_name = "NS")]
    namespace: Option<String>,
    /// Filesystem type, as umount(8) passes it.
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<String>,
    /// Version and formats.
    #[arg(short = 'V', long = "version", action = clap::ArgAction::Version)]
    version: Option<bool>,
}

/// `umount.gfs2r`.
pub fn umount_main() -> ExitCode {
    let args = match parse::<UmountArgs>("umount.gfs2r") {
        Ok(args) => args,
        Err(code) => return code,
    };
    match umount::run(&args.what, umount::How { lazy: args.lazy, force: args.force }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("umount.gfs2r: {e}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}
