//! Switching a file between ordinary and journaled data (ondisk.md 4.2).

use super::change;
use crate::error::{Error, Result};
use crate::format::DiFlags;
use crate::inode::{Inode, Volume};
use crate::journal::Reserve;

/// Switches JDATA on or off (chattr +j/-j). Log and data are flushed first and no copy of a data block stays in the active log,
/// so that no block is half journaled: a replay never puts an old journaled copy over later ordinary data. Regular files only.
pub fn set_jdata(vol: &Volume, inode: &mut Inode, on: bool) -> Result<()> {
    if !inode.is_regular() {
        return Err(Error::Invalid);
    }
    if on == inode.is_jdata() {
        return Ok(());
    }
    let name = inode.lock_name();
    vol.journal.sync_owner(name)?;
    // What was cached one way must not be found by those who look the other way.
    vol.cache.invalidate(name);
    let now = vol.clock.now();
    change(vol, inode, Reserve::blocks(1), |_, inode| {
        let flags = inode.flags();
        inode.dinode.flags.set(if on { flags.with(DiFlags::JDATA) } else { flags.without(DiFlags::JDATA) }.0);
        inode.dinode.set_ctime(now);
        Ok(())
    })?;
    Ok(())
}
