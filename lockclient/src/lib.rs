//! A complete node of the distributed lock manager (DLM) that GFS2 clusters speak, as a library.
//!
//! A *lockspace* is a named set of resources, shared by its members. A *lock* is one client's stake in a resource,
//! in one of six modes ([`mode`]). A lockspace promises:
//!
//! * **Exclusion.** Modes held at the same time on one resource are compatible, on all nodes together, through
//!   crashes, cuts and joins, as long as the membership keeps its own promise ([`membership`]).
//! * **One answer.** Every accepted request, conversion and unlock ends with exactly one completion; a request or
//!   conversion that is overtaken by a cancel or a forced unlock ends with it. The callbacks of a lock come in order.
//! * **Notices.** Whoever stands in the way of a waiting lock is told, until it gives way; no notice is lost to recovery.
//! * **Values.** A value block read under a mode that excludes writers is the last one written, or is reported invalid.
//! * **Order.** Requests are served first come, first served; conversions before new requests; a writer is not starved.
//! * **Recovery.** Operations issued while members come and go wait, and complete. When a member dies its locks are
//!   released, after it has been fenced.
//!
//! There is no server: each resource is mastered by one of the nodes that use it, and an operation on a resource
//! mastered here sends nothing.
//!
//! To use it: start a [`node::Node`], [join](node::Node::join) a lockspace, and either drive locks with callbacks
//! through [`node::space::LockSpace`] or wait for them through [`client::Locks`].
//!
//! To read it, in this order: [`mode`], [`flags`], [`lvb`], [`status`] (the tables); [`engine`] and [`recovery`] (one
//! lockspace, pure); [`frame`], [`wire`], [`midcomms`] (the protocol, pure); [`membership`], [`fence`], [`plock`];
//! [`transport`], [`node`], [`client`] (sockets, threads, tasks); [`inspect`] (what people see); and [`sim`], where all of it is put to the test.

pub mod client;
mod clock;
pub mod cluster_file;
pub mod engine;
pub mod fence;
pub mod flags;
pub mod frame;
pub mod ids;
pub mod inspect;
pub mod lvb;
pub mod membership;
pub mod midcomms;
pub mod mode;
pub mod node;
pub mod plock;
pub mod recovery;
pub mod status;
pub mod tls;
pub mod transport;
pub mod wire;

#[cfg(any(test, feature = "sim"))]
pub mod sim;
