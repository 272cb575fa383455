//! Checks a GFS2 volume without changing it, and reads one without the filesystem.
//!
//! [`check`] is an oracle: it uses nothing of the filesystem but identifiers, on-disk structures and the device trait, so
//! that it cannot share a mistake with what it judges. It may be called at any moment at which the device does not change:
//! dirty journals are replayed in memory ([`Journals::Overlay`]) by a replayer of its own.
//!
//! | step | file | what is established |
//! |---|---|---|
//! | initialize | `initialize.rs` `journal.rs` `replay.rs` `rgrps.rs` | superblock, journals, resource groups |
//! | pass 1 | `pass1_metadata.rs` `tree.rs` `directory.rs` `xattr.rs` | each dinode and all it owns |
//! | pass 2 | `pass2_directories.rs` | whom the entries name |
//! | pass 1b | `pass1b_duplicates.rs` | who claims blocks that several claim |
//! | pass 3 | `pass3_connectivity.rs` | every directory is reached, `..` leads back |
//! | pass 4 | `pass4_links.rs` | link counts |
//! | pass 5 | `pass5_bitmaps.rs` | bitmaps against owners |
//! | system | `system.rs` | system files, statfs, quota |
//!
//! A healthy volume is recognised by `quick.rs`, in a fraction of the memory; only when it is not do the passes run as above.
//!
//! Invariants: a healthy disk is read once (another twice, or three times if blocks have several owners); whatever the bytes, the check ends, in memory
//! proportional to the device; a fault is reported once, where it is, and not again through what follows from it.
//!
//! [`Volume`] lists names and reads contents, for tests that compare what is there after a crash.

mod blockmap;
mod check;
mod directory;
mod dirents;
mod disk;
mod initialize;
mod issue;
mod journal;
mod pass1_metadata;
mod pass1b_duplicates;
mod pass2_directories;
mod pass3_connectivity;
mod pass4_links;
mod pass5_bitmaps;
mod quick;
mod reader;
mod repair;
mod replay;
mod report;
mod rgrps;
mod state;
mod system;
mod tree;
mod volume;
mod xattr;

pub use blockmap::BlockKind;
pub use check::check;
pub use issue::{CODES, EXPLAINED, Issue, IssueKind, Owner, Owners, Severity, State};
pub use repair::{Repaired, Talk, UndoDevice, Yes, put_back, repair};
pub use report::{CheckError, Journals, Options, Report, Stats};
pub use volume::{TreeEntry, Volume};
