//! A new dinode (ondisk.md 4.9, 9.1).

use super::{InUse, Inode, InodeExclusive, Volume};
use crate::clock::Timestamp;
use crate::dir;
use crate::error::{Error, Result};
use crate::format::dinode::mode::{S_IFDIR, S_IFMT};
use crate::format::superblock::DiskInum;
use crate::format::{DiFlags, Dinode, MetaType, OnDisk};
use crate::glock::Claim;
use crate::ids::{BlockAddr, Inum, LockName};
use crate::journal::Transaction;
use crate::rgrp::{Owner, Space};
use zerocopy::FromZeros;

/// What a new inode is born with.
#[derive(Clone, Copy, Debug)]
pub struct Birth {
    /// Type and permissions.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device numbers.
    pub rdev: (u32, u32),
    /// Flags (JDATA for directories is added).
    pub flags: DiFlags,
    /// Its first times.
    pub now: Timestamp,
}

impl Birth {
    fn is_dir(&self) -> bool {
        self.mode & S_IFMT == S_IFDIR
    }

    /// The dinode of such an inode: links 1 (2 for a directory), one block, the goal its own address.
    fn dinode(&self, own: Inum) -> Dinode {
        let flags = if self.is_dir() { self.flags.with(DiFlags::JDATA) } else { self.flags };
        let mut d = Dinode::new_zeroed();
        d.num = DiskInum::new(own);
        d.mode.set(self.mode);
        d.uid.set(self.uid);
        d.gid.set(self.gid);
        d.nlink.set(if self.is_dir() { 2 } else { 1 });
        d.blocks.set(1);
        d.set_atime(self.now);
        d.set_mtime(self.now);
        d.set_ctime(self.now);
        d.major.set(self.rdev.0);
        d.minor.set(self.rdev.1);
        d.goal_meta.set(own.addr.get());
        d.goal_data.set(own.addr.get());
        d.generation.set(own.formal.0);
        d.flags.set(flags.0);
        d
    }
}

/// The locks of an inode that is about to be made: its own, and the one that says it is in use here.
pub struct Cradle {
    claim: Claim<Inode>,
    in_use: InUse,
}

impl Volume {
    /// Sets space aside with `reserve` and takes the locks of the inode that [`create`](Self::create) will make of it: locks are
    /// not waited for inside a transaction.
    ///
    /// Somebody may still hold the lock of the inode that lived there before, and wait for the rgrp to find out that it is gone.
    /// So the inode's lock is waited for without the rgrp, and the space then set aside anew.
    pub fn cradle<'r>(
        &self,
        mut reserve: impl FnMut() -> Result<Space<'r>>,
        with_ea: bool,
    ) -> Result<(Space<'r>, Cradle)> {
        let mut held: Option<Claim<Inode>> = None;
        loop {
            let space = reserve()?;
            let addr = space.next_dinode(with_ea).ok_or(Error::Invalid)?;
            let lock = self.inode(addr);
            let claim = match held.take() {
                Some(claim) if claim.name() == lock.name() => Some(claim),
                _ => lock.try_claim()?,
            };
            if let Some(claim) = claim {
                let in_use = self.use_inode(addr)?;
                self.look_ahead(addr);
                return Ok((space, Cradle { claim, in_use }));
            }
            drop(space);
            held = Some(lock.claim()?);
        }
    }

    /// Makes a dinode in a transaction: allocates it from `space`, writes it (directories get `.` and `..` of `parent`), puts
    /// the object into its lock, which is held. `with_ea`: also tries to allocate the adjacent EA block. Its address is
    /// returned; the xattr chapter initialises it, points `di_eattr` to it and counts it in `di_blocks`.
    pub fn create(
        &self,
        tx: &mut Transaction<'_>,
        space: &mut Space<'_>,
        cradle: Cradle,
        birth: &Birth,
        parent: Inum,
        with_ea: bool,
    ) -> Result<(InodeExclusive, InUse, Option<BlockAddr>)> {
        let owner = (!birth.flags.has(DiFlags::SYSTEM)).then_some(Owner { uid: birth.uid, gid: birth.gid });
        let (inum, ea_block) =
            if with_ea { space.alloc_dinode_with_ea(tx, owner)? } else { (space.alloc_dinode(tx, owner)?, None) };
        let Cradle { claim, in_use } = cradle;
        let name = LockName::inode(inum.addr);
        if claim.name() != name {
            // Cannot be: the space was asked which block it will give.
            return Err(Error::Invalid);
        }
        let buffer = tx.new_meta(inum.addr, name, MetaType::Dinode);
        let mut dinode = birth.dinode(inum);
        tx.edit(&buffer, |block| {
            dinode.header = Dinode::view(block).header;
            *Dinode::edit(block) = dinode;
            if birth.is_dir() {
                dir::init(block, &mut dinode, inum, parent);
                *Dinode::edit(block) = dinode;
            }
        });
        let held = claim.fill(Inode::new(inum, dinode, tx.batch()));
        Ok((held, in_use, ea_block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::dinode::mode::S_IFREG;
    use crate::ids::FormalIno;

    #[test]
    fn a_newborn_fulfils_the_specification() {
        let now = Timestamp { sec: -5, nsec: 7 };
        let own = Inum { formal: FormalIno(9), addr: BlockAddr::new(500).expect("not 0") };
        let file = Birth { mode: S_IFREG | 0o4755, uid: 1, gid: 2, rdev: (0, 0), flags: DiFlags::SYSTEM, now };
        let d = file.dinode(own);
        assert_eq!((d.nlink.get(), d.blocks.get(), d.size.get(), d.height.get()), (1, 1, 0, 0));
        assert_eq!((d.generation.get(), d.goal_meta.get(), d.goal_data.get()), (9, 500, 500));
        assert_eq!((d.atime(), d.mtime(), d.ctime(), d.flags()), (now, now, now, DiFlags::SYSTEM));
        let dir = Birth { mode: S_IFDIR | 0o755, flags: DiFlags::default(), ..file };
        assert_eq!((dir.dinode(own).nlink.get(), dir.dinode(own).flags()), (2, DiFlags::JDATA));
    }
}
