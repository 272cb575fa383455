//! Making and removing system files. The directory is held; so is what is made, until it is done.

use crate::dir::{self, Entry};
use crate::error::Result;
use crate::file::{self, Contents};
use crate::format::dinode::mode::S_IFREG;
use crate::format::{DiFlags, DirentType};
use crate::ids::BlockAddr;
use crate::inode::{Birth, Inode, InodeExclusive, Volume};
use crate::journal::Reserve;
use crate::rgrp::Want;

/// A file that fits in its dinode, journaled, made in one transaction with its name.
pub(super) fn small(vol: &Volume, dir: &mut Inode, name: &[u8], bytes: &[u8]) -> Result<()> {
    create(vol, dir, name, DiFlags::SYSTEM.with(DiFlags::JDATA), bytes).map(|_| ())
}

/// A file of `bytes` bytes, all of them there, made under the first of two names, which becomes the second when the file is whole.
/// `contents` is asked with the address of the file's dinode.
pub(super) fn large<F: Fn(u64, BlockAddr, &mut [u8])>(
    vol: &Volume,
    dir: &mut Inode,
    (unfinished, name): (&[u8], &[u8]),
    bytes: u64,
    contents: &dyn Fn(BlockAddr) -> F,
) -> Result<()> {
    let mut inode = create(vol, dir, unfinished, DiFlags::SYSTEM, &[])?;
    let fill = contents(inode.inum.addr);
    let contents: Contents<'_> = &fill;
    file::fill(vol, &mut inode, vol.bs.blocks_for(bytes), contents)?;
    vol.rgrps.release(&mut inode.resv);
    finish(vol, dir, &mut inode, (unfinished, name), bytes)
}

fn create(vol: &Volume, dir: &mut Inode, name: &[u8], flags: DiFlags, bytes: &[u8]) -> Result<InodeExclusive> {
    let plan = dir::plan_add(vol, dir, name)?;
    let want = Want { blocks: 1 + plan.alloc, min: 1 + plan.alloc, goal: dir.goal(vol), spread: false };
    let (mut space, cradle) = vol.cradle(|| vol.rgrps.reserve(want, &mut dir.resv), false)?;
    let birth = Birth { mode: S_IFREG | 0o600, uid: 0, gid: 0, rdev: (0, 0), flags, now: vol.clock.now() };
    let mut tx = vol.journal.begin(Reserve::blocks(1 + plan.log + space.log_blocks()))?;
    let (mut inode, _in_use, _) = vol.create(&mut tx, &mut space, cradle, &birth, dir.inum, false)?;
    if !bytes.is_empty() {
        file::put_stuffed(vol, &mut tx, &mut inode, 0, bytes)?;
    }
    inode.write_back(vol, &mut tx)?;
    let entry = Entry { inum: inode.inum, kind: DirentType::Reg };
    dir::add(vol, &mut tx, &mut space, dir, name, entry, false)?;
    tx.commit();
    drop(space);
    vol.rgrps.release(&mut dir.resv);
    Ok(inode)
}

/// Gives the file its size and its name.
fn finish(
    vol: &Volume,
    dir: &mut Inode,
    inode: &mut Inode,
    (unfinished, name): (&[u8], &[u8]),
    bytes: u64,
) -> Result<()> {
    let plan = dir::plan_add(vol, dir, name)?;
    dir::prepare_change(vol, dir, unfinished)?;
    inode.buffer(vol)?;
    let mut space = match plan.alloc {
        0 => crate::rgrp::Space::empty(),
        blocks => {
            let want = Want { blocks, min: blocks, goal: dir.goal(vol), spread: false };
            vol.rgrps.reserve(want, &mut dir.resv)?
        }
    };
    let log = 1 + plan.log + dir::CHANGE_LOG_BLOCKS + space.log_blocks();
    let mut tx = vol.journal.begin(Reserve::blocks(log))?;
    inode.dinode.size.set(bytes);
    inode.write_back(vol, &mut tx)?;
    let entry = Entry { inum: inode.inum, kind: DirentType::Reg };
    dir::add(vol, &mut tx, &mut space, dir, name, entry, false)?;
    dir::remove(vol, &mut tx, dir, unfinished)?;
    tx.commit();
    drop(space);
    vol.rgrps.release(&mut dir.resv);
    Ok(())
}

/// Removes a file that nobody uses; nothing happens where there is none.
pub(super) fn remove(vol: &Volume, dir: &mut Inode, name: &[u8]) -> Result<()> {
    let Some(entry) = dir::lookup(vol, dir, name)? else { return Ok(()) };
    let mut inode = vol.exclusive(entry.inum)?;
    dir::prepare_change(vol, dir, name)?;
    inode.buffer(vol)?;
    let mut free = vol.rgrps.lock_for_free(inode.inum.addr)?;
    let mut tx = vol.journal.begin(Reserve::blocks(dir::CHANGE_LOG_BLOCKS + 1 + free.log_blocks(1)))?;
    dir::remove(vol, &mut tx, dir, name)?;
    vol.unlinked(&mut tx, &mut inode, &mut free)?;
    tx.commit();
    drop(free);
    // Should another node look at it just now, it is deleted later, as any inode without a name.
    vol.delete(inode).map(|_deleted| ())
}
