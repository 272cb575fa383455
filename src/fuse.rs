//! Chapter 14: the kernel's requests.
//!
//! [`Service`] is the narrow interface: one function for each request, in plain types, none of which is a transport's. A
//! transport decodes a request, calls the function through [`Dispatcher`], and encodes the answer. There are two: `fuse/native/`,
//! our own, and the one built on the fuser crate (`fuse/adapter.rs`, `listing.rs`, `negotiate.rs`, half of `convert.rs`).
//!
//! How a request waits (fuse.md 3.2): the thread that read it runs it *impatiently* (`sync.rs`). If it would have to wait and
//! another reader is free, it waits right there, which saves a hop; the last free reader never waits, it hands the request and
//! its reply to a pool that grows.
//!
//! What the kernel may cache is one table, `fuse/policy.rs`.

mod adapter;
mod asker;
mod coherence;
mod convert;
mod dispatch;
mod errno;
mod image;
mod kernel;
mod listing;
mod native;
mod negotiate;
mod pages;
mod policy;
mod service;
mod session;
mod tight;

pub use asker::Asker;
pub use dispatch::Dispatcher;
pub use policy::{Atime, AtimeSwitch, Policy};
pub use service::{Service, WriteHow};
pub use session::{Disk, Ended, MountSpec, Session, Transport, mount};
