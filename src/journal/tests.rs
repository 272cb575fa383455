//! The journal against a disk that crashes.

mod basic;
mod rig;

use rig::Rig;
