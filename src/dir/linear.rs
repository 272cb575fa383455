//! Directories that fit into their dinode (ondisk.md 5.1).

use super::Entry;
use super::block::{self, Defect, NewEntry};
use super::exhash::Place;
use crate::error::Result;
use crate::format::checksum::dir_hash;
use crate::format::dinode::DINODE_SIZE;
use crate::format::directory::dirent_len;
use crate::format::header::FORMAT_DIRENT;
use crate::format::{Dinode, DirentType, OnDisk};
use crate::ids::{DirHash, Inum};
use crate::inode::{Inode, Volume};

/// Checks that a directory without a hash table has its entries in the dinode.
pub(super) fn check_shape(vol: &Volume, dir: &Inode) -> Result<()> {
    if !dir.is_stuffed() || dir.dinode.size.get() != vol.bs.stuffed_max() as u64 {
        return Err(Defect("directory that is neither linear nor hashed").at(dir.inum.addr));
    }
    Ok(())
}

/// Finds a name.
pub(super) fn find(vol: &Volume, dir: &Inode, hash: DirHash, name: &[u8]) -> Result<Option<Place>> {
    check_shape(vol, dir)?;
    let buffer = dir.buffer(vol)?;
    let bytes = buffer.bytes();
    let found = block::find(&bytes, DINODE_SIZE, hash, name).map_err(|d| d.at(buffer.addr()))?;
    Ok(found.map(|found| Place { buffer, bytes, found, leaf: false }))
}

/// Writes `.` and `..` into a new directory's dinode block and sets size, entries and payload_format, both in the block and in
/// the incore `dinode`.
pub fn init(block: &mut [u8], dinode: &mut Dinode, own: Inum, parent: Inum) {
    let (first, second) = (DINODE_SIZE, DINODE_SIZE + dirent_len(1));
    let rest = block.len() - second;
    block[DINODE_SIZE..].fill(0);
    for (offset, len, name, inum) in [(first, second - first, &b"."[..], own), (second, rest, &b".."[..], parent)] {
        let entry = Entry { inum, kind: DirentType::Dir };
        block::write_record(block, offset, len, &NewEntry { name, hash: dir_hash(name), entry, rahead: false });
    }
    let size = (block.len() - DINODE_SIZE) as u64;
    for it in [dinode, Dinode::edit(block)] {
        it.size.set(size);
        it.entries.set(2);
        it.payload_format.set(FORMAT_DIRENT);
        it.height.set(0);
        it.depth.set(0);
    }
}
