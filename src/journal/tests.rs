//! The journal against a disk that crashes.

mod basic;
mod crash;
mod model;
mod rig;

use rig::Rig;
