//! Chapter 8: where a file's bytes are.
//!
//! Contents up to bs-232 bytes lie in the dinode (*stuffed*, `stuffed.rs`). Larger ones hang from a tree of pointer blocks
//! (ondisk.md 4.4): `metapath.rs` is its arithmetic, `map.rs` reads it, `grow.rs` lets it grow, `piece.rs` and `punch.rs` let
//! it shrink, `allocate.rs` fills it ahead of time. `data.rs` moves bytes, `io.rs` is what read(2) and write(2) call.
//!
//! # A change
//!
//! Every change goes: read what it will touch, set space aside (`rgrps.reserve`, which says "no space" or never), ask for log
//! room (`journal.begin`), change blocks, write the dinode back, commit. `change` is the frame of it. A failure before
//! anything was changed leaves the inode as it was; after that the transaction is dropped and the mount withdraws.
//!
//! # Invariants
//!
//! - Pointers, bitmap, di_blocks and counters of one allocation or one freeing are in one transaction.
//! - Newly allocated data is on the device before its transaction commits (`data=ordered`, and always for unstuffing).
//! - Bytes between the size and the end of its block are zero.
//! - An address from the disk is used only when an rgrp owns it.

mod allocate;
mod data;
mod grow;
mod io;
mod jdata;
mod map;
pub(crate) mod metapath;
pub(crate) mod piece;
mod punch;
mod stuffed;

pub use allocate::{Contents, allocate, allocate_cost, fill, zero_range};
pub use data::journaled_block;
pub use grow::{GrowCost, grow_cost, map_for_write, unstuff};
pub use io::{Seek, fdatasync, fsync, read, seek, write, write_cost, write_undated};
pub use jdata::set_jdata;
pub use map::{Extent, map};
pub use punch::{free_tree, punch, resize_cost, resume_truncate, truncate};
pub use stuffed::put as put_stuffed;

use crate::error::Result;
use crate::ids::BatchId;
use crate::inode::{Inode, Volume};
use crate::journal::{Reserve, Transaction};

/// The largest size a file can have.
pub const MAX_SIZE: u64 = i64::MAX as u64;

/// One transaction that changes an inode: `f` changes it, then its dinode is written back. When `f` fails the inode in memory
/// is as before; if it had changed a block by then, the mount withdraws.
pub(crate) fn change<R>(
    vol: &Volume,
    inode: &mut Inode,
    reserve: Reserve,
    f: impl FnOnce(&mut Transaction<'_>, &mut Inode) -> Result<R>,
) -> Result<(R, BatchId)> {
    // Its buffer is read before the transaction, in which nothing should be able to fail.
    inode.buffer(vol)?;
    let before = inode.dinode;
    let mut tx = vol.journal.begin(reserve)?;
    let result = f(&mut tx, inode).and_then(|r| inode.write_back(vol, &mut tx).map(|()| r));
    match result {
        Ok(r) => Ok((r, tx.commit())),
        Err(e) => {
            inode.dinode = before;
            Err(e)
        }
    }
}
