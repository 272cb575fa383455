//! What a mount needs to know before it changes anything.

use super::options::MountOptions;
use super::{client, cluster};
use crate::device::{BlockDevice, FileDevice, OpenMode};
use crate::fuse::Transport;
use crate::volume::Identity;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const IN_USE: &str = "in use (mounted, or held by another program)";

/// Puts a device in front of the disk.
pub type Front<'a> = &'a dyn Fn(Arc<dyn BlockDevice>) -> Arc<dyn BlockDevice>;

/// What mount.gfs2r was asked for, checked.
pub(super) struct Plan {
    pub(super) source: PathBuf,
    pub(super) target: PathBuf,
    pub(super) options: MountOptions,
    pub(super) device: FileDevice,
    pub(super) id: Identity,
    pub(super) block_device: bool,
    /// The cluster to be joined; none with lock_nolock.
    pub(super) cluster: Option<cluster::Plan>,
}

/// Checks everything that can be checked without changing anything.
pub(super) fn plan(source: &Path, target: &Path, mut options: MountOptions) -> Result<Plan, String> {
    let say = |what: &Path, e: &dyn std::fmt::Display| format!("{}: {e}", what.display());
    let io = |what: &Path, e: io::Error| say(what, &client::words(&e));
    let source = source.canonicalize().map_err(|e| io(source, e))?;
    let target = target.canonicalize().map_err(|e| io(target, e))?;
    if target.metadata().is_err_and(|e| e.kind() == io::ErrorKind::NotConnected) {
        return Err(say(&target, &"something is mounted there whose daemon is gone (umount it, then mount again)"));
    }
    if !target.is_dir() {
        return Err(say(&target, &"not a directory"));
    }
    let kind = source.metadata().map_err(|e| io(&source, e))?.file_type();
    if !kind.is_block_device() && !kind.is_file() {
        return Err(say(&source, &"neither a block device nor an image file"));
    }
    // Claimed later, in its own way: see `run`.
    // A read-only mount replays dirty journals, so it writes too, unless the device or -o norecovery forbids it.
    let protected = kind.is_block_device() && is_write_protected(&source);
    if protected && !options.open.read_only {
        return Err(say(&source, &WRITE_PROTECTED));
    }
    let mode = if options.open.norecovery || protected { OpenMode::ReadOnly } else { OpenMode::ReadWriteShared };
    let device = match FileDevice::open(&source, mode) {
        Err(e) if options.open.read_only && mode != OpenMode::ReadOnly && is_read_only_error(&e) => {
            FileDevice::open(&source, OpenMode::ReadOnly)
        }
        other => other,
    };
    let device = device.map_err(|e| match e.kind() {
        io::ErrorKind::ResourceBusy => say(&source, &IN_USE),
        _ if is_read_only_error(&e) => say(&source, &WRITE_PROTECTED),
        _ => io(&source, e),
    })?;
    let id = Identity::read(&device).map_err(|e| say(&source, &e))?;
    let proto = match &options.lockproto {
        Some(proto) => proto.clone(),
        None => String::from_utf8_lossy(id.superblock.lockproto()).into_owned(),
    };
    let table = options.locktable.take();
    let table = table.unwrap_or_else(|| String::from_utf8_lossy(id.superblock.locktable()).into_owned());
    let cluster = match proto.as_str() {
        "lock_nolock" => None,
        "lock_dlm" if options.transport == Transport::Fuser => {
            return Err(say(&source, &"transport=fuser cannot serve a cluster mount (leave the option out)"));
        }
        "lock_dlm" => {
            let hint = "if no other node uses the volume: -o lockproto=lock_nolock";
            let plan = cluster::Plan::read(&options.cluster, &table);
            Some(plan.map_err(|e| say(&source, &format!("{e}; {hint}")))?)
        }
        other => {
            let what = format!(
                "unknown lock protocol '{other}' in the superblock (left by a killed fsck? tunegfs2 -o lockproto=...)"
            );
            return Err(say(&source, &what));
        }
    };
    if device.read_only() && !options.open.read_only {
        return Err(say(&source, &WRITE_PROTECTED));
    }
    (options.lockproto, options.locktable) = (Some(proto), Some(table));
    Ok(Plan { source, target, options, device, id, block_device: kind.is_block_device(), cluster })
}

const WRITE_PROTECTED: &str = "write-protected (-o ro mounts it read-only)";

/// The kernel lets root open a write-protected block device for writing, and then refuses each write.
fn is_write_protected(device: &Path) -> bool {
    let Ok(found) = rustix::fs::stat(device) else { return false };
    let (major, minor) = (rustix::fs::major(found.st_rdev), rustix::fs::minor(found.st_rdev));
    std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/ro")).is_ok_and(|ro| ro.trim() == "1")
}

fn is_read_only_error(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied)
}

impl Plan {
    /// Makes sure that nobody uses the disk in a way that ours does not allow for: alone, nobody at all; in a cluster, nobody but
    /// other nodes of it that run on this machine. A block device's claim is to be kept.
    pub(super) fn claim(&self) -> Result<Option<File>, String> {
        let in_use =
            |_| format!("the {} is in use by another program", if self.block_device { "device" } else { "image" });
        match (&self.cluster, self.block_device) {
            (None, true) => claim_device(&self.source).map(Some).map_err(|e| match e.kind() {
                io::ErrorKind::ResourceBusy => IN_USE.to_owned(),
                _ => client::words(&e),
            }),
            (None, false) if self.device.read_only() => self.device.lock_shared().map(|()| None).map_err(in_use),
            (None, false) => self.device.lock_exclusive().map(|()| None).map_err(in_use),
            (Some(_), false) => self.device.lock_shared().map(|()| None).map_err(in_use),
            (Some(_), true) => {
                let alone = self.device.lock_exclusive().is_ok();
                self.device.lock_shared().map_err(in_use)?;
                match claim_device(&self.source) {
                    Ok(claim) => Ok(Some(claim)),
                    // Another node of the cluster has it: they share a lock that nobody else takes.
                    Err(e) if e.kind() == io::ErrorKind::ResourceBusy && !alone => Ok(None),
                    Err(e) if e.kind() == io::ErrorKind::ResourceBusy => Err(IN_USE.to_owned()),
                    Err(e) => Err(client::words(&e)),
                }
            }
        }
    }
}

/// Opens a block device so that neither a mount nor mkfs can claim it meanwhile.
fn claim_device(device: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::EXCL.bits().cast_signed();
    File::options().read(true).custom_flags(flags).open(device)
}
