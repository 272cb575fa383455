//! Mounting an image file so that the kernel treats it as what it is, a disk.
//!
//! sync(2) and syncfs(2) reach a FUSE daemon, and umount(2) waits for it, only where the filesystem is of type `fuseblk`, which
//! wants a block device as its source (fuse.md 4). So a loop device is attached to the image, as `mount -o loop` would do; the
//! kernel opens it and does nothing with it, for all I/O is ours and goes to the image itself. It goes away with the mount.
//!
//! Users shall see the image as the source, not the loop device. The kernel shows the path it was given, so it is given the
//! image's path in a mount namespace of this thread's own, where the loop device's node lies over the image.

use super::session::MountSpec;
use nix::sched::{CloneFlags, setns, unshare};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_bind, mount_change, move_mount,
};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A loop device, detached when dropped; one that is in use goes when it no longer is.
struct Loop(PathBuf);

impl Loop {
    fn attach(image: &Path, read_only: bool) -> io::Result<Self> {
        let mut losetup = Command::new("losetup");
        losetup.args(["--find", "--show"]).stdin(Stdio::null());
        if read_only {
            losetup.arg("--read-only");
        }
        let out = losetup.arg("--").arg(image).output()?;
        let name = String::from_utf8_lossy(&out.stdout);
        if !out.status.success() || !name.starts_with("/dev/") {
            return Err(io::Error::other(String::from_utf8_lossy(&out.stderr).trim().to_owned()));
        }
        Ok(Self(PathBuf::from(name.trim())))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("losetup").arg("--detach").arg(&self.0).stdin(Stdio::null()).output();
        match detached {
            Ok(out) if out.status.success() => {}
            Ok(out) => tracing::warn!(device = %self.0.display(), "{}", String::from_utf8_lossy(&out.stderr).trim()),
            Err(e) => tracing::warn!(device = %self.0.display(), "it cannot be detached: {e}"),
        }
    }
}

/// Mounts `spec.source`, an image file, as fuseblk. `device`: /dev/fuse; `options`: as in mount(2)'s data, without `fd`.
pub(super) fn mount(spec: &MountSpec, device: &File, options: &[(&str, Option<String>)]) -> io::Result<()> {
    let read_only = spec.flags.contains(MountFlags::RDONLY);
    let loop_device = Loop::attach(&spec.source, read_only)?;
    let device = device.try_clone()?;
    std::thread::scope(|scope| {
        // The namespace ends with the thread.
        let made = scope.spawn(|| in_own_namespace(&loop_device.0, spec, &device, options));
        made.join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread died")))
    })
}

fn in_own_namespace(
    loop_device: &Path,
    spec: &MountSpec,
    device: &File,
    options: &[(&str, Option<String>)],
) -> io::Result<()> {
    let home = File::open("/proc/thread-self/ns/mnt")?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    // Nothing of this reaches other namespaces.
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)?;
    mount_bind(loop_device, &spec.source)?;
    let made = superblock(spec, device, options);
    setns(home, CloneFlags::CLONE_NEWNS)?;
    move_mount(made?, "", CWD, &spec.target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// The mount, not yet anywhere.
fn superblock(spec: &MountSpec, device: &File, options: &[(&str, Option<String>)]) -> io::Result<OwnedFd> {
    let context = fsopen("fuseblk", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let context = context.as_fd();
    fsconfig_set_string(context, "subtype", "gfs2r")?;
    fsconfig_set_string(context, "source", &spec.source)?;
    fsconfig_set_string(context, "fd", device.as_raw_fd().to_string())?;
    for (key, value) in options {
        match value {
            Some(value) => fsconfig_set_string(context, *key, value.as_str())?,
            None => fsconfig_set_flag(context, *key)?,
        }
    }
    let superblock_flags = [
        (MountFlags::RDONLY, "ro"),
        (MountFlags::SYNCHRONOUS, "sync"),
        (MountFlags::DIRSYNC, "dirsync"),
        (MountFlags::LAZYTIME, "lazytime"),
    ];
    for (flag, name) in superblock_flags {
        if spec.flags.contains(flag) {
            fsconfig_set_flag(context, name)?;
        }
    }
    fsconfig_create(context)?;
    Ok(fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes(spec.flags))?)
}

/// The flags that belong to the mount and not to the filesystem.
fn attributes(flags: MountFlags) -> MountAttrFlags {
    let pairs = [
        (MountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
        (MountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        (MountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
        (MountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
        (MountFlags::NOATIME, MountAttrFlags::MOUNT_ATTR_NOATIME),
        (MountFlags::STRICTATIME, MountAttrFlags::MOUNT_ATTR_STRICTATIME),
        (MountFlags::NODIRATIME, MountAttrFlags::MOUNT_ATTR_NODIRATIME),
        (MountFlags::NOSYMFOLLOW, MountAttrFlags::MOUNT_ATTR_NOSYMFOLLOW),
    ];
    pairs.iter().filter(|(flag, _)| flags.contains(*flag)).map(|(_, attr)| *attr).collect()
}
