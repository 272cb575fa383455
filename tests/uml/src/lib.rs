//! The Linux kernel's own GFS2, run in User-Mode Linux, as the oracle of gfs2r's tests.
//!
//! A test describes what shall happen in a [`Job`] (disks, a shell script, a time limit), and [`Uml::run`] boots a
//! guest for it, runs the script as the guest's root, powers off and returns an [`Outcome`]. [`Uml::spawn`] gives a
//! [`Guest`] handle instead: the test can wait for a line of output and [`Guest::kill`] the machine in the middle of
//! its work, which leaves a disk with a dirty journal, exactly as a crash does.
//!
//! What the guest sees:
//!
//! | place | what |
//! |---|---|
//! | `/` | the host's root, **read-only** (every program of the host is there) |
//! | `/tmp` `/run` `/mnt` | empty tmpfs of the guest; `/mnt/gfs` exists |
//! | `/dev/ubda`, `/dev/ubdb` ... | the disks of the job, in order |
//! | `$OUT` | a window to [`Outcome::out`] on the host, writable; files of [`Job::file`] are there |
//! | `$HOST` | the host's root once more, read-only, for what hides under `/tmp` or `/run` ([`guest_path`]) |
//!
//! The kernel modules gfs2, dlm and configfs are loaded. Output of the script and messages of the kernel arrive on two
//! separate consoles. Nothing survives a guest, however it ends: its processes form one group that is killed when the
//! handle is dropped, or when the test program itself dies; its job directory is removed with the [`Outcome`].
//!
//! A cluster: [`kernels`] are several guests with one disk and the kernel's lock manager between them; [`nodes`] are daemons of
//! gfs2r on this machine with the same disk; [`network`] is where both live.
//!
//! Programs of this crate do the work inside (a fork costs 30 ms there, so each is one process): `treelist`
//! ([`tree`]) prints everything that can be seen of a directory tree, in one canonical form; `fswork` ([`work`]) does
//! a seeded random workload.

#![forbid(unsafe_code)]
// Raw values of ACLs and a hash are little-endian by definition; no structure of the disk is handled here.
#![allow(clippy::little_endian_bytes)]

mod console;
pub mod dlm;
mod find;
mod guest;
mod job;
mod jobdir;
pub mod kernels;
pub mod network;
pub mod nodes;
pub mod tools;
pub mod tree;
pub mod work;

pub use find::{Uml, guest_path, program};
pub use guest::Guest;
pub use job::{Disk, End, Job, Outcome};
