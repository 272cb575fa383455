//! Names: lookup, link, unlink, rmdir, readlink.

use super::attr::Attr;
use super::{Caller, Fs};
use crate::dir::{self, Entry};
use crate::error::{CorruptKind, Error, Result};
use crate::file;
use crate::format::directory::NAME_MAX;
use crate::format::{DiFlags, DirentType};
use crate::ids::BlockAddr;
use crate::inode::{Inode, InodeExclusive};
use crate::journal::Reserve;
use crate::rgrp::{FreeSpace, Want};

impl Fs {
    /// The inode a name leads to; the kernel holds a reference to it afterwards.
    pub fn lookup(&self, parent: BlockAddr, name: &[u8]) -> Result<Attr> {
        self.watch(settled(|| self.do_lookup(parent, name)))
    }

    fn do_lookup(&self, parent: BlockAddr, name: &[u8]) -> Result<Attr> {
        check_name(name)?;
        let dir = there(self.shared(parent))?;
        must_be_dir(&dir)?;
        let entry = dir::lookup(&self.vol, &dir, name)?.ok_or(Error::NotFound)?;
        if entry.inum.addr == parent {
            self.nodes.remember(dir.inum, self.vol.use_inode(dir.inum.addr)?);
            return Attr::of(self, &dir);
        }
        // `..` leads to an inode that comes before this one in lock order: let go first.
        let dir = if name == b".." { None } else { Some(dir) };
        let inode = self.vol.shared(entry.inum)?;
        let attr = Attr::of(self, &inode)?;
        if attr.kind != entry.kind {
            return Err(Error::corrupt(
                entry.inum.addr,
                CorruptKind::Directory("entry of another type than its inode"),
            ));
        }
        self.nodes.remember(entry.inum, self.vol.use_inode(entry.inum.addr)?);
        drop(dir);
        Ok(attr)
    }

    /// Where a symbolic link points.
    pub fn readlink(&self, node: BlockAddr) -> Result<Vec<u8>> {
        let inode = self.watch(self.shared(node))?;
        if inode.dinode.mode.get() >> 12 != DirentType::Lnk as u32 {
            return Err(Error::Invalid);
        }
        let size = inode.dinode.size.get();
        if size > self.vol.bs.bytes() as u64 {
            let wrong = CorruptKind::Dinode("symbolic link longer than a block");
            return self.watch(Err(Error::corrupt(inode.inum.addr, wrong)));
        }
        let mut target = vec![0; size as usize];
        let n = self.watch(file::read(&self.vol, &inode, 0, &mut target))?;
        target.truncate(n);
        Ok(target)
    }

    /// Gives an inode another name.
    pub fn link(&self, caller: &Caller, node: BlockAddr, parent: BlockAddr, name: &[u8]) -> Result<Attr> {
        self.watch(self.do_link(caller, node, parent, name))
    }

    fn do_link(&self, caller: &Caller, node: BlockAddr, parent: BlockAddr, name: &[u8]) -> Result<Attr> {
        check_name(name)?;
        if node == parent {
            return Err(Error::NotPermitted);
        }
        let mut dir = there(self.exclusive(parent))?;
        may_add(&dir)?;
        if dir::lookup(&self.vol, &dir, name)?.is_some() {
            return Err(Error::Exists);
        }
        let mut inode = self.exclusive(node)?;
        let in_use = self.vol.use_inode(node)?;
        if inode.is_dir() || cannot_change(inode.flags()) {
            return Err(Error::NotPermitted);
        }
        match inode.dinode.nlink.get() {
            0 => return Err(Error::NotFound),
            u32::MAX => return Err(Error::TooManyLinks),
            _ => {}
        }
        let attr = Attr::of(self, &inode)?;
        let plan = dir::plan_add(&self.vol, &dir, name)?;
        inode.buffer(&self.vol)?;
        let mut space = self.space_for_name(caller, &mut dir, plan.alloc)?;
        let log = plan.log + 1 + space.as_ref().map_or(0, |s| s.log_blocks());
        let mut tx = self.vol.journal.begin(Reserve::blocks(log))?;
        let mut none = crate::rgrp::Space::empty();
        let entry = Entry { inum: inode.inum, kind: attr.kind };
        let rahead = inode.dinode.eattr.get() == inode.inum.addr.get().wrapping_add(1);
        dir::add(&self.vol, &mut tx, space.as_mut().unwrap_or(&mut none), &mut dir, name, entry, rahead)?;
        let links = inode.dinode.nlink.get() + 1;
        inode.dinode.nlink.set(links);
        inode.dinode.set_ctime(self.vol.clock.now());
        inode.write_back(&self.vol, &mut tx)?;
        tx.commit();
        self.nodes.remember(inode.inum, in_use);
        Attr::of(self, &inode)
    }

    /// Space for a directory to grow by `blocks`; none is needed for 0.
    pub(super) fn space_for_name<'a>(
        &'a self,
        caller: &Caller,
        dir: &mut Inode,
        blocks: u32,
    ) -> Result<Option<crate::rgrp::Space<'a>>> {
        if blocks == 0 {
            return Ok(None);
        }
        if let Some(owner) = dir.owner() {
            self.check_quota(caller, owner, u64::from(blocks))?;
        }
        let want = Want { blocks, min: blocks, goal: dir.goal(&self.vol), spread: false };
        self.vol.rgrps.reserve(want, &mut dir.resv).map(Some)
    }

    /// Removes a name of anything but a directory.
    pub fn unlink(&self, parent: BlockAddr, name: &[u8]) -> Result<()> {
        self.watch(settled(|| self.remove_name(parent, name, false)))
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, parent: BlockAddr, name: &[u8]) -> Result<()> {
        if name == b"." {
            return Err(Error::Invalid);
        }
        if name == b".." {
            return Err(Error::NotEmpty);
        }
        self.watch(settled(|| self.remove_name(parent, name, true)))
    }

    fn remove_name(&self, parent: BlockAddr, name: &[u8], directory: bool) -> Result<()> {
        check_name(name)?;
        let mut dir = there(self.exclusive(parent))?;
        must_be_dir(&dir)?;
        let entry = dir::lookup(&self.vol, &dir, name)?.ok_or(Error::NotFound)?;
        match (directory, entry.kind) {
            (true, DirentType::Dir) => {}
            (true, _) => return Err(Error::NotADirectory),
            (false, DirentType::Dir) => return Err(Error::IsADirectory),
            (false, _) => {}
        }
        let mut victim = self.vol.exclusive(entry.inum)?;
        may_remove(&dir, &victim)?;
        check_kind(&victim, entry)?;
        self.may_vanish(&victim)?;
        dir::prepare_change(&self.vol, &dir, name)?;
        victim.buffer(&self.vol)?;
        let mut free = self.last_name_goes(&victim)?;
        let log = dir::CHANGE_LOG_BLOCKS + 1 + free.as_ref().map_or(0, |f| f.log_blocks(1));
        let mut tx = self.vol.journal.begin(Reserve::blocks(log))?;
        dir::remove(&self.vol, &mut tx, &mut dir, name)?;
        self.drop_name(&mut tx, &mut victim, free.as_mut())?;
        tx.commit();
        drop((free, dir));
        self.after_unlink(victim)
    }

    /// A directory may go when it is empty.
    pub(super) fn may_vanish(&self, victim: &Inode) -> Result<()> {
        if victim.is_dir() && (victim.dinode.entries.get() > 2 || victim.dinode.nlink.get() > 2) {
            return Err(Error::NotEmpty);
        }
        Ok(())
    }

    /// The victim's rgrp, locked, when this is its last name.
    pub(super) fn last_name_goes(&self, victim: &Inode) -> Result<Option<FreeSpace<'_>>> {
        if victim.dinode.nlink.get() == 0 {
            return Err(Error::corrupt(victim.inum.addr, CorruptKind::Dinode("named, but its link count is 0")));
        }
        if victim.is_dir() || victim.dinode.nlink.get() == 1 {
            return self.vol.rgrps.lock_for_free(victim.inum.addr).map(Some);
        }
        Ok(None)
    }

    /// Takes one name off the victim's count, in the transaction that removes the name.
    pub(super) fn drop_name(
        &self,
        tx: &mut crate::journal::Transaction<'_>,
        victim: &mut Inode,
        free: Option<&mut FreeSpace<'_>>,
    ) -> Result<()> {
        match free {
            Some(free) => {
                if victim.is_dir() {
                    victim.dinode.entries.set(0);
                }
                self.vol.unlinked(tx, victim, free)
            }
            None => {
                let links = victim.dinode.nlink.get() - 1;
                victim.dinode.nlink.set(links);
                victim.dinode.set_ctime(self.vol.clock.now());
                victim.write_back(&self.vol, tx)
            }
        }
    }

    /// Deletes the inode at once when it has no name and the kernel does not know it; otherwise with the last reference.
    ///
    /// The name is gone by now, so that a block that cannot be read is no failure of the operation: what is left is an
    /// orphan, which is deleted when space is short or at the next mount.
    pub(super) fn after_unlink(&self, victim: InodeExclusive) -> Result<()> {
        if victim.dinode.nlink.get() > 0 || !self.nodes.doom(victim.inum) {
            return Ok(());
        }
        let inum = victim.inum;
        let deleted = self.vol.delete(victim).map(|deleted| {
            if !deleted {
                self.leave(inum);
            }
        });
        self.vol.journal.or_later("deleting an inode without a name", deleted)
    }
}

/// How often a name is looked up again that led to an inode which was gone by then.
const LOOKS: u32 = 3;

/// Runs an operation on names again when what a name led to was gone (`Stale`): what is true then counts.
pub(super) fn settled<T>(op: impl Fn() -> Result<T>) -> Result<T> {
    for _ in 1..LOOKS {
        match op() {
            Err(Error::Stale) => {}
            done => return done,
        }
    }
    op()
}

/// A directory that another node has removed has no names (`NotFound`); the kernel may still know it, and would ask again.
pub(super) fn there<T>(dir: Result<T>) -> Result<T> {
    dir.map_err(|e| if matches!(e, Error::Stale) { Error::NotFound } else { e })
}

/// `NameTooLong` above 255 bytes, `NotFound` for the empty name.
pub(super) fn check_name(name: &[u8]) -> Result<()> {
    match name.len() {
        0 => Err(Error::NotFound),
        n if n > NAME_MAX => Err(Error::NameTooLong),
        _ => Ok(()),
    }
}

pub(super) fn must_be_dir(inode: &Inode) -> Result<()> {
    if inode.is_dir() { Ok(()) } else { Err(Error::NotADirectory) }
}

pub(super) fn cannot_change(flags: DiFlags) -> bool {
    flags.has(DiFlags::IMMUTABLE) || flags.has(DiFlags::APPENDONLY)
}

/// A name may be added: a directory that still has a name and is not immutable.
pub(super) fn may_add(dir: &Inode) -> Result<()> {
    must_be_dir(dir)?;
    if dir.dinode.nlink.get() == 0 {
        return Err(Error::NotFound);
    }
    if dir.flags().has(DiFlags::IMMUTABLE) {
        return Err(Error::NotPermitted);
    }
    Ok(())
}

/// A name of `victim` may be removed from `dir`.
pub(super) fn may_remove(dir: &Inode, victim: &Inode) -> Result<()> {
    if cannot_change(dir.flags()) || cannot_change(victim.flags()) {
        return Err(Error::NotPermitted);
    }
    Ok(())
}

/// An entry says the type of its inode; another one is corruption.
pub(super) fn check_kind(inode: &Inode, entry: Entry) -> Result<()> {
    if DirentType::from_mode(inode.dinode.mode.get()) == Some(entry.kind) {
        return Ok(());
    }
    Err(Error::corrupt(entry.inum.addr, CorruptKind::Directory("entry of another type than its inode")))
}
