//! What is measured: filesystems that can be formatted, mounted, unmounted and asked for their processor time.

#[path = "targets/daemon.rs"]
mod daemon;
#[path = "targets/nodes.rs"]
pub(crate) mod nodes;

use super::Args;
use super::measure::open_dir;
use super::workloads::Suite;
use daemon::{Daemon, run};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The kinds of targets (`end_to_end.rs` says what they are).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    Gfs2r,
    /// The first of three nodes; the others do nothing.
    Dlm,
    /// lock_nolock, served as a mount of a cluster is.
    Alike,
    Floor,
    /// The floor, served as a mount of a cluster is.
    FloorAlike,
    Fuse2fs,
    Ext4,
    Raw,
    Gfs2,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gfs2r => "gfs2r",
            Self::Dlm => "dlm",
            Self::Alike => "alike",
            Self::Floor => "floor",
            Self::FloorAlike => "floor-s",
            Self::Fuse2fs => "fuse2fs",
            Self::Ext4 => "ext4",
            Self::Raw => "raw",
            Self::Gfs2 => "gfs2",
        }
    }

    fn is_floor(self) -> bool {
        matches!(self, Self::Floor | Self::FloorAlike)
    }

    /// Whether files and directories can be made on it.
    pub(crate) fn is_filesystem(self) -> bool {
        self != Self::Raw
    }
}

/// A target: its disk, its mount point, and the daemon while it is mounted.
pub(crate) struct Target {
    pub(crate) kind: Kind,
    /// The image file or block device.
    pub(crate) disk: PathBuf,
    /// Where it is mounted.
    pub(crate) root: PathBuf,
    /// For further images and mount points.
    pub(crate) dir: PathBuf,
    bin_dir: PathBuf,
    daemon: Option<Daemon>,
    /// Kept: the floor's tree lives as long as its process.
    floor: Option<Daemon>,
    /// The loop device of `disk`.
    looped: Option<PathBuf>,
    mounted: bool,
    /// There is a filesystem on the disk, and the kernel can mount it.
    usable: bool,
}

impl Target {
    /// Makes the disk, formats it and mounts it, when something needs that.
    pub(crate) fn new(kind: Kind, dir: &Path, args: &Args, mount: bool) -> io::Result<Self> {
        let device = args.device_of(kind);
        let root = dir.join(kind.name());
        std::fs::create_dir_all(&root)?;
        let mut target = Self {
            kind,
            disk: device.clone().unwrap_or_else(|| dir.join(format!("{}.img", kind.name()))),
            root,
            dir: dir.to_owned(),
            bin_dir: args.bin_dir(),
            daemon: None,
            floor: None,
            looped: None,
            mounted: false,
            usable: false,
        };
        target.have_tools()?;
        // Without a device the kernel's GFS2 is only asked for its mkfs.
        target.usable = mount && (kind != Kind::Gfs2 || device.is_some());
        if target.usable {
            if device.is_none() && !kind.is_floor() {
                written_image(&target.disk, args.image_size << 20)?;
            }
            if kind.is_filesystem() {
                target.format()?;
                target.mount()?;
            }
        }
        Ok(target)
    }

    /// Whether a suite has what it needs.
    pub(crate) fn can(&self, suite: &Suite) -> bool {
        self.usable || !suite.needs_mount
    }

    fn have_tools(&self) -> io::Result<()> {
        let tools: &[&str] = match self.kind {
            Kind::Gfs2r | Kind::Dlm | Kind::Alike | Kind::Floor | Kind::FloorAlike | Kind::Raw => &[],
            Kind::Fuse2fs => &["mkfs.ext4", "fuse2fs"],
            Kind::Ext4 => &["mkfs.ext4", "losetup"],
            Kind::Gfs2 => &["mkfs.gfs2"],
        };
        for tool in tools {
            let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().any(|d| Path::new(d).join(tool).exists());
            if !found {
                return Err(io::Error::new(io::ErrorKind::NotFound, format!("{tool} is not installed")));
            }
        }
        Ok(())
    }

    fn program(&self, name: &str) -> Command {
        Command::new(self.bin_dir.join(name))
    }

    /// The command that formats `disk` as this kind; `fresh`: an image of which nothing is written yet.
    pub(crate) fn mkfs(&self, disk: &Path, fresh: bool) -> Option<Command> {
        let gfs2 = |mut command: Command, table: &str| {
            command.args(["-O", "-q", "-p", "lock_nolock", "-t", table]);
            if !fresh {
                command.arg("-K");
            }
            command.arg(disk);
            command
        };
        match self.kind {
            Kind::Gfs2r => Some(gfs2(self.program("mkfs.gfs2r"), if fresh { "bench:fresh" } else { "bench:gfs2r" })),
            Kind::Alike => Some(gfs2(self.program("mkfs.gfs2r"), "bench:alike")),
            Kind::Dlm => Some(nodes::mkfs(&self.bin_dir, disk, fresh)),
            Kind::Gfs2 => Some(gfs2(Command::new("mkfs.gfs2"), "bench:gfs2")),
            Kind::Fuse2fs | Kind::Ext4 => {
                let mut command = Command::new("mkfs.ext4");
                // The tables are zero; nothing is left to be done in the background during the measurements.
                let how = if fresh { "lazy_itable_init=1" } else { "nodiscard,lazy_itable_init=0,lazy_journal_init=0" };
                command.args(["-q", "-F", "-E", how]).arg(disk);
                Some(command)
            }
            Kind::Floor | Kind::FloorAlike | Kind::Raw => None,
        }
    }

    fn format(&mut self) -> io::Result<()> {
        self.mkfs(&self.disk, false).map_or(Ok(()), |mut mkfs| run(&mut mkfs))
    }

    /// Mounts the target's own disk.
    pub(crate) fn mount(&mut self) -> io::Result<()> {
        if self.mounted {
            return Ok(());
        }
        let (disk, root) = (self.disk.clone(), self.root.clone());
        self.daemon = self.mount_disk(&disk, &root)?;
        self.mounted = true;
        Ok(())
    }

    /// Mounts any disk of this kind; returns once it is usable.
    pub(crate) fn mount_disk(&mut self, disk: &Path, root: &Path) -> io::Result<Option<Daemon>> {
        match self.kind {
            Kind::Gfs2r => {
                run(self.program("mount.gfs2r").arg(disk).arg(root))?;
                Daemon::of_gfs2r(root).map(Some)
            }
            Kind::Dlm => nodes::mount(&self.bin_dir, disk, root).map(Some),
            Kind::Alike => Daemon::alike(disk, root).map(Some),
            Kind::Floor | Kind::FloorAlike => {
                if self.floor.is_none() {
                    self.floor = Some(Daemon::floor(root, self.kind == Kind::FloorAlike)?);
                }
                if let Some(floor) = &mut self.floor {
                    floor.tell("mount", "ok")?;
                    raise_readahead(root);
                }
                Ok(None)
            }
            Kind::Fuse2fs => Daemon::fuse2fs(disk, root).map(Some),
            Kind::Ext4 => {
                let device = match self.looped.clone().filter(|_| disk == self.disk) {
                    Some(device) => device,
                    None => attach(disk)?,
                };
                if disk == self.disk {
                    self.looped = Some(device.clone());
                }
                rustix::mount::mount(&device, root, c"ext4", MountFlags::empty(), None)?;
                Ok(None)
            }
            Kind::Gfs2 => {
                rustix::mount::mount(disk, root, c"gfs2", MountFlags::empty(), None)?;
                Ok(None)
            }
            Kind::Raw => Ok(None),
        }
    }

    /// Unmounts the target's own disk; everything is on it when this returns.
    pub(crate) fn unmount(&mut self) -> io::Result<()> {
        if !self.mounted {
            return Ok(());
        }
        let (root, daemon) = (self.root.clone(), self.daemon.take());
        self.unmount_disk(&root, daemon)?;
        self.mounted = false;
        Ok(())
    }

    /// Unmounts what [`Target::mount_disk`] mounted.
    pub(crate) fn unmount_disk(&mut self, root: &Path, daemon: Option<Daemon>) -> io::Result<()> {
        if self.kind == Kind::Gfs2r {
            return run(self.program("umount.gfs2r").arg(root));
        }
        if self.kind == Kind::Dlm {
            return nodes::unmount(&self.bin_dir, root);
        }
        rustix::mount::unmount(root, UnmountFlags::empty())?;
        if let Some(floor) = &mut self.floor {
            floor.hear("gone")?;
        }
        daemon.map_or(Ok(()), Daemon::wait)
    }

    /// Nothing is cached afterwards, neither by the kernel nor by a daemon; only the floor has no disk to go back to.
    pub(crate) fn remount(&mut self) -> io::Result<()> {
        if !self.kind.is_filesystem() {
            return Ok(());
        }
        self.unmount()?;
        self.forget_disk()?;
        self.mount()
    }

    /// The disk's contents leave the page cache, where fuse2fs, and mounts of block devices, keep them.
    fn forget_disk(&self) -> io::Result<()> {
        if self.kind.is_floor() {
            return Ok(());
        }
        let disk = File::open(&self.disk)?;
        disk.sync_data()?;
        Ok(rustix::fs::fadvise(&disk, 0, None, rustix::fs::Advice::DontNeed)?)
    }

    /// Lets what was begun come to an end, so that it does not disturb what is measured next.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        if !self.mounted {
            return Ok(());
        }
        let dir = open_dir(&self.root)?;
        rustix::fs::syncfs(&dir)?;
        // syncfs does not reach every daemon; fsync does.
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let mark = File::from(rustix::fs::openat(&dir, ".settle", flags, Mode::from_raw_mode(0o600))?);
        (&mark).write_all(b"x")?;
        mark.sync_all()?;
        std::thread::sleep(Duration::from_millis(20));
        Ok(())
    }

    /// Seconds of processor time that the daemon has taken so far.
    pub(crate) fn daemon_cpu(&self) -> f64 {
        self.daemon.as_ref().or(self.floor.as_ref()).map_or(0.0, Daemon::cpu)
    }
}

/// An image of which every block is written: otherwise the filesystem that holds it is measured.
fn written_image(path: &Path, size: u64) -> io::Result<()> {
    let file = File::create(path)?;
    let zeros = vec![0; 4 << 20];
    let mut left = size;
    while left > 0 {
        let n = left.min(zeros.len() as u64);
        (&file).write_all(&zeros[..n as usize])?;
        left -= n;
    }
    file.sync_all()?;
    Ok(rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// A loop device for an image.
fn attach(image: &Path) -> io::Result<PathBuf> {
    let out = Command::new("losetup").args(["--find", "--show", "--direct-io=on"]).arg(image).output()?;
    if !out.status.success() {
        return Err(io::Error::other(format!("losetup: {}", String::from_utf8_lossy(&out.stderr).trim())));
    }
    Ok(PathBuf::from(String::from_utf8_lossy(&out.stdout).trim()))
}

/// Lets a loop device go.
pub(crate) fn detach(device: &Path) -> io::Result<()> {
    run(Command::new("losetup").arg("-d").arg(device))
}

impl Drop for Target {
    fn drop(&mut self) {
        // What cannot be undone here, the supervisor undoes.
        drop(self.unmount());
        if let Some(device) = self.looped.take() {
            drop(detach(&device));
        }
    }
}

/// As src/mount/daemon.rs does it for our mounts.
fn raise_readahead(root: &Path) {
    if let Ok(stat) = rustix::fs::stat(root) {
        let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
        drop(std::fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), "1024"));
    }
}

/// Waits for something that another process does.
fn wait_until(what: &str, mut f: impl FnMut() -> bool) -> io::Result<()> {
    let end = Instant::now() + Duration::from_secs(60);
    while !f() {
        if Instant::now() > end {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("waited a minute for {what}")));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
