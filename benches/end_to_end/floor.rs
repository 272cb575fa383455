//! The floor: a tree in memory behind FUSE.
//!
//! What a request costs through FUSE when nothing is behind it. It must be served as our daemon serves, or it says nothing:
//! mounted the same way, the same features asked for at the start, names and attributes as long good, as many threads
//! (`src/fuse/policy.rs`, `kernel.rs`, `session.rs`). Data is kept, because a read must give what was written.

#[path = "floor/serve.rs"]
mod serve;
#[path = "floor/tree.rs"]
mod tree;

pub(crate) use serve::serve;
