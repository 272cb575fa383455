//! The journal against a disk that crashes.

mod basic;
mod crash;
mod hostile;
mod interop;
mod model;
mod rig;
mod threads;

use rig::Rig;
