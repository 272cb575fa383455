//! The system files, from the master directory down (ondisk.md 2.6).

use crate::dir;
use crate::error::{CorruptKind, Error, Result};
use crate::ids::Inum;
use crate::inode::Volume;

/// The system file that the master directory calls so.
pub(super) fn find(vol: &Volume, name: &'static str) -> Result<Inum> {
    let master = vol.shared(vol.master)?;
    let missing =
        || Error::corrupt(vol.master.addr, CorruptKind::SystemFile("a name is missing in the master directory"));
    Ok(dir::lookup(vol, &master, name.as_bytes())?.ok_or_else(missing)?.inum)
}
