//! Mounting as an administrator does it: `make install`, then mount(8), umount(8), findmnt(8) and fstab; images and block
//! devices; options; what is refused and how. Needs root, and says so loudly where it cannot run.

#![allow(unreachable_pub, reason = "the modules of one test")]

#[path = "mount/device.rs"]
mod device;
#[path = "mount/helper.rs"]
mod helper;
#[path = "mount/installed.rs"]
mod installed;
#[path = "mount/options.rs"]
mod options;
#[path = "mount/packaged.rs"]
mod packaged;
#[path = "mount/refused.rs"]
mod refused;
#[path = "mount/sandbox.rs"]
mod sandbox;
