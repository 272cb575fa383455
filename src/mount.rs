//! The daemon: from a device and options to a mounted filesystem, and the same way backwards.
//!
//! `mount.gfs2r` starts itself again in the background and waits until that child says the mount is usable. The child opens
//! the volume, mounts, serves, and when the directory is unmounted closes the volume: counters, data, log, clean header.
//! `umount.gfs2r` unmounts and waits for the child to end.

mod cli;
mod control;
mod daemon;
mod log;
mod options;
mod rundir;
mod umount;

pub use cli::{mount_main, umount_main};
pub use options::{MountOptions, OptionError};

/// Exit status of mount(8): usage or permission.
pub const EXIT_USAGE: u8 = 1;
/// Exit status of mount(8): system error.
pub const EXIT_SYSTEM: u8 = 2;
/// Exit status of mount(8): the mount failed.
pub const EXIT_FAILED: u8 = 32;
