//! gfs2r: GFS2, the shared-disk cluster filesystem, in userspace.
//!
//! The modules stand in reading order, which is dependency order: a chapter uses only chapters before it
//! (`ARCHITECTURE.md`, checked by `tests/tidy.rs`).

pub mod clock;
pub mod error;
pub mod ids;
pub mod sync;

pub mod format;

pub mod device;

pub mod glock;

pub mod cache;

pub mod journal;

pub mod rgrp;

pub mod inode;

pub mod file;

pub mod dir;

pub mod xattr;

pub mod quota;

pub mod statfs;

pub mod fs;

pub mod volume;

pub mod admin;

#[cfg(any(feature = "mount", feature = "simulated"))]
pub mod cluster;

#[cfg(feature = "mount")]
pub mod fuse;

#[cfg(feature = "mount")]
pub mod mount;

#[cfg(feature = "mount")]
pub mod dump;

#[cfg(feature = "mount")]
pub mod cli;
