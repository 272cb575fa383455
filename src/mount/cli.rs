//! The two helpers' command lines, as mount(8) and umount(8) call them.

use super::options::MountOptions;
use super::plan::Front;
use super::{EXIT_FAILED, EXIT_SYSTEM, EXIT_USAGE, VERSION, client, daemon, plan, remount, umount};
use clap::error::ErrorKind;
use clap::{Args, Parser};
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

/// Set in the child that becomes the daemon.
const CHILD: &str = "GFS2R_MOUNT_CHILD";

/// What mount(8) and umount(8) pass to any helper.
#[derive(Args, Debug)]
struct Common {
    /// Do not write /etc/mtab (which nobody does).
    #[arg(short = 'n')]
    no_mtab: bool,
    /// Say what is done.
    #[arg(short = 'v')]
    verbose: bool,
    /// Mount namespace; mount(8) and umount(8) have entered it already.
    #[arg(short = 'N', value_name = "NS")]
    namespace: Option<String>,
    /// Filesystem type, as mount(8) and umount(8) pass it.
    #[arg(short = 't', value_name = "TYPE")]
    kind: Option<String>,
    /// Version and formats.
    #[arg(short = 'V', long = "version", action = clap::ArgAction::Version)]
    version: Option<bool>,
}

/// Mount a GFS2 volume.
#[derive(Parser, Debug)]
#[command(
    name = "mount.gfs2r",
    version = VERSION,
    disable_version_flag = true,
    max_term_width = 100,
    after_help = "\
Mount options:
  generic          ro rw noatime relatime strictatime nosuid nodev noexec
                   remount nofail _netdev x-*
  locking          lockproto=lock_nolock locktable=CLUSTER:NAME hostdata=jid=N
  recovery         spectator norecovery errors=withdraw|panic
  data             data=ordered|writeback barrier nobarrier discard commit=S
  permissions      acl noacl suiddir
  quota            quota=off|account|on quota_quantum=S
  statfs           statfs_quantum=S statfs_percent=P
  of gfs2r         fg (stay in the foreground) cache=SIZE

Environment:
  GFS2R_LOG        what is logged: error, warn, info, debug or a tracing filter
  GFS2R_RUN_DIR    where runtime state lives (default /run/gfs2r)

Exit status:
  0 mounted; 1 wrong usage or not root; 2 system error; 32 the mount failed

Examples:
  mount.gfs2r /dev/sdb1 /mnt/gfs2
  mount -t gfs2r disk.img /mnt/gfs2 -o noatime,quota=on
  mount.gfs2r disk.img /mnt/gfs2 -o ro,norecovery
  mount -o remount,ro /mnt/gfs2"
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
    #[command(flatten)]
    common: Common,
}

/// Unmount a GFS2 volume; returns when it is clean.
#[derive(Parser, Debug)]
#[command(
    name = "umount.gfs2r",
    version = VERSION,
    disable_version_flag = true,
    max_term_width = 100,
    after_help = "\
Exit status:
  0 unmounted and clean; 1 wrong usage or not root; 32 not unmounted, or not clean

Examples:
  umount.gfs2r /mnt/gfs2
  umount /mnt/gfs2
  umount -l /mnt/gfs2"
)]
struct UmountArgs {
    /// Mount point, device or image.
    what: PathBuf,
    /// Detach now, let the volume be closed when nobody uses it any more.
    #[arg(short = 'l')]
    lazy: bool,
    /// Abort what is under way, if the daemon does not answer.
    #[arg(short = 'f')]
    force: bool,
    /// Remount read-only what is in use.
    #[arg(short = 'r')]
    read_only: bool,
    #[command(flatten)]
    common: Common,
}

/// `mount.gfs2r`.
pub fn mount_main() -> ExitCode {
    main("mount.gfs2r", |args| mount(&args))
}

/// `mount.gfs2r` in the foreground, with a device of the caller's in front of the disk: how tests see what a bad disk does.
/// `args`: as `mount.gfs2r` takes them, its name first.
pub fn mount_on(args: Vec<OsString>, front: Front<'_>) -> Result<(), String> {
    let args = MountArgs::try_parse_from(args).map_err(|e| e.to_string())?;
    let options = MountOptions::parse(&args.options.join(","), args.sloppy).map_err(|e| e.to_string())?;
    daemon::run(plan::plan(&args.spec, &args.dir, options)?, Some(front), false, || Ok(()))
}

/// `umount.gfs2r`.
pub fn umount_main() -> ExitCode {
    if std::env::var_os(umount::LEAVING).is_some() {
        return leave();
    }
    main(umount::PROGRAM, |args| unmount(&args))
}

/// For a daemon that was told to end.
fn leave() -> ExitCode {
    match umount::leave(Path::new(&std::env::args_os().nth(1).unwrap_or_default())) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("{}: {}", umount::PROGRAM, client::words(&e));
            ExitCode::FAILURE
        }
    }
}

fn main<T: Parser>(name: &str, run: impl FnOnce(T) -> Result<ExitCode, (u8, String)>) -> ExitCode {
    if let Some(code) = gfs2r_manual::on_request(T::command) {
        return code;
    }
    let args = match T::try_parse() {
        Ok(args) => args,
        Err(e) => return refuse(name, &e),
    };
    run(args).unwrap_or_else(|(code, message)| {
        eprintln!("{name}: {message}");
        ExitCode::from(code)
    })
}

fn refuse(name: &str, e: &clap::Error) -> ExitCode {
    if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Nothing can be done about a closed standard output.
        let _ = e.print();
        return ExitCode::SUCCESS;
    }
    let text = e.to_string();
    let mut lines = text.lines().take_while(|l| !l.is_empty()).map(|l| l.trim().trim_start_matches("error: "));
    let line = [lines.next().unwrap_or("usage"), &lines.collect::<Vec<_>>().join(", ")].join(" ");
    eprintln!("{name}: {} (see {name} --help)", line.trim());
    ExitCode::from(EXIT_USAGE)
}

fn mount(args: &MountArgs) -> Result<ExitCode, (u8, String)> {
    let list = args.options.join(",");
    let options = MountOptions::parse(&list, args.sloppy).map_err(|e| (EXIT_USAGE, e.to_string()))?;
    if !rustix::process::geteuid().is_root() {
        return Err((EXIT_USAGE, "only root can mount".into()));
    }
    if options.remount {
        if args.fake {
            return Ok(ExitCode::SUCCESS);
        }
        return remount::run(&args.dir, &list).map(|()| ExitCode::SUCCESS).map_err(|e| (EXIT_FAILED, e));
    }
    if options.no_fail && !args.spec.exists() {
        return Ok(ExitCode::SUCCESS);
    }
    let child = std::env::var_os(CHILD).is_some();
    let foreground = options.foreground;
    // Also in the parent: whatever is wrong is said before a daemon is started.
    let plan = plan::plan(&args.spec, &args.dir, options).map_err(|e| (EXIT_FAILED, e))?;
    if args.fake {
        return Ok(ExitCode::SUCCESS);
    }
    if child {
        // A new session: signals of the terminal are not meant for the daemon. It fails only for a session's leader.
        if let Err(e) = rustix::process::setsid() {
            eprintln!("mount.gfs2r: new session: {e}");
        }
        std::env::set_current_dir("/").map_err(|e| (EXIT_SYSTEM, e.to_string()))?;
        return daemon::run(plan, None, true, daemon::detach).map(|()| ExitCode::SUCCESS).map_err(|e| (EXIT_FAILED, e));
    }
    if foreground {
        return daemon::run(plan, None, false, || Ok(())).map(|()| ExitCode::SUCCESS).map_err(|e| (EXIT_FAILED, e));
    }
    drop(plan);
    let code = start_child().map_err(|e| (EXIT_SYSTEM, format!("cannot start the daemon: {}", client::words(&e))))?;
    if code == 0 && args.common.verbose {
        println!("mount.gfs2r: {} mounted on {}.", args.spec.display(), args.dir.display());
    }
    Ok(ExitCode::from(code))
}

/// Starts the daemon and waits for its word that the mount is usable; the exit status.
fn start_child() -> std::io::Result<u8> {
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
        return Ok(0);
    }
    let status = child.wait()?;
    if let Some(signal) = status.signal() {
        eprintln!("mount.gfs2r: the daemon was ended by signal {signal} while it mounted");
    }
    Ok(status.code().and_then(|c| u8::try_from(c).ok()).filter(|&c| c != 0).unwrap_or(EXIT_FAILED))
}

fn unmount(args: &UmountArgs) -> Result<ExitCode, (u8, String)> {
    if !rustix::process::geteuid().is_root() {
        return Err((EXIT_USAGE, "only root can unmount".into()));
    }
    let how = umount::How { lazy: args.lazy, force: args.force, read_only: args.read_only };
    let target = umount::run(Path::new(&args.what), how).map_err(|e| (EXIT_FAILED, e.to_string()))?;
    if args.common.verbose {
        println!("umount.gfs2r: {} unmounted", target.display());
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_as_the_callers_pass_them() {
        let mount = ["mount.gfs2r", "/dev/sda", "/mnt", "-s", "-f", "-n", "-v", "-o", "rw,noatime", "-t", "fuse.gfs2r"];
        let args = MountArgs::try_parse_from(mount).expect("as mount(8) calls it");
        assert!(args.sloppy && args.fake && args.common.no_mtab && args.common.verbose);
        let umount =
            ["umount.gfs2r", "/mnt", "-l", "-f", "-n", "-v", "-r", "-t", "fuseblk.gfs2r", "-N", "/proc/1/ns/mnt"];
        let args = UmountArgs::try_parse_from(umount).expect("as umount(8) calls it");
        assert!(args.lazy && args.force && args.read_only);
        assert!(MountArgs::try_parse_from(["mount.gfs2r", "/dev/sda"]).is_err());
    }
}
