//! The kernel's own distributed lock manager in a guest, driven by hand, for tests of a lock manager that shall talk to it.
//!
//! A cluster has daemons that tell the kernel who is a member of a lockspace. Here a test does that itself: it boots a
//! guest with [`KernelNode::boot`] and talks to the small program inside ([`agent`], `dlmguest`) over TCP. The program
//! knows three things: to read and write files (configfs and sysfs, where membership is), to hear uevents (where the
//! kernel asks for a change of membership), and the device through which a process takes locks ([`device`]).
//!
//! What the daemons' order must be is the test's business; [`KernelNode`] has the single steps:
//!
//! | step | call |
//! |---|---|
//! | addresses of the nodes | [`KernelNode::add_address`], [`KernelNode::remove_address`] |
//! | enter a lockspace | [`KernelNode::begin_create`], then (members, [`KernelNode::start`]), [`KernelNode::admit`] |
//! | membership changes | [`KernelNode::stop`], [`KernelNode::add_member`], [`KernelNode::remove_member`], [`KernelNode::start`] |
//! | leave | [`KernelNode::begin_remove`], [`KernelNode::stop`], [`KernelNode::admit`] |

pub mod agent;
pub mod device;
mod events;
mod node;

pub use events::{Event, Events};
pub use node::{KernelNode, Reply, ran};
