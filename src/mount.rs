//! The daemon: from a device and options to a mounted filesystem, and the same way backwards.
//!
//! `mount.gfs2r` starts itself again in the background and waits until that child says the mount is usable. The child opens
//! the volume, mounts, serves, and when the directory is unmounted closes the volume: counters, data, log, clean header.
//! `umount.gfs2r` unmounts and waits for the child to end.
//!
//! | file | what |
//! |---|---|
//! | `cli` | the two helpers' command lines |
//! | `options` | `-o` |
//! | `plan` | what must be right before anything is changed |
//! | `cluster`, `plocks` | joining a cluster and leaving it; fcntl locks of the whole cluster |
//! | `host` | several volumes on one node: mounts that are handed over to its daemon |
//! | `daemon`, `keeper`, `log`, `rundir` | a mount's life, its background work, where it logs, where it leaves its pid |
//! | `control`, `live`, `remount`, `dlm`, `watch`, `metrics` | what it can be asked while it runs |
//! | `client` | asking it |
//! | `umount`, `table` | unmounting; the kernel's table of mounts |

mod cli;
mod client;
mod cluster;
mod control;
mod daemon;
mod dlm;
mod host;
mod keeper;
mod live;
mod log;
mod metrics;
mod options;
mod plan;
mod plocks;
mod remount;
mod rundir;
mod table;
mod umount;
mod watch;

pub use cli::{mount_main, mount_on, umount_main};
pub use client::{Mounted, words};
pub use control::{added_json, growth_json};
pub use options::{MountOptions, OptionError, bytes};
pub use plan::Front;

/// What `--version` says.
pub const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (GFS2 formats 1801 and 1802)");

/// Exit status of mount(8): usage or permission.
pub const EXIT_USAGE: u8 = 1;
/// Exit status of mount(8): system error.
pub const EXIT_SYSTEM: u8 = 2;
/// Exit status of mount(8): the mount failed.
pub const EXIT_FAILED: u8 = 32;
